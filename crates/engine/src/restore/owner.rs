//! Who shall own a restored server.

use super::access::{Access, Owner};
use super::facts::Facts;
use crate::repository::Record;

/// As root: the recorded owner if this machine has that user, else the owner of the place, else `postgres`; the server
/// refuses to run as root. Otherwise everything belongs to whoever runs the restore.
pub fn choose(record: &Record, facts: &Facts, warnings: &mut Vec<String>) -> Access {
    let group_access = record.data_directory.mode & 0o050 != 0;
    if !facts.is_root {
        return Access { owner: None, group_access };
    }
    let recorded = Some((record.data_directory.uid, record.data_directory.gid));
    let place = Some((facts.data.uid, facts.data.gid));
    let postgres = nix::unistd::User::from_name("postgres").ok().flatten();
    let postgres = postgres.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    let known = |ids: &(u32, u32)| ids.0 != 0 && user_name(ids.0).is_some();
    let chosen = recorded.filter(known).or(place.filter(known)).or(postgres);
    if chosen != recorded {
        warnings.push(match chosen.and_then(|(uid, _)| user_name(uid)) {
            Some(name) => format!(
                "the recorded owner (user id {}) cannot run a server here; everything will belong to {name}",
                record.data_directory.uid
            ),
            None => "everything will belong to root, who may not run the server: change the owner before you start it"
                .to_string(),
        });
    }
    let owner = chosen.map(|(uid, gid)| Owner { uid, gid, user: user_name(uid) });
    Access { owner, group_access }
}

/// Name of a user of this machine.
pub fn user_name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name)
}
