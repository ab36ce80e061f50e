//! Who shall own a restored server.

use super::access::{Access, Owner};
use super::facts::Facts;
use crate::repository::Record;

/// As root: the recorded owner if this machine has that user (by name, since numbers differ between machines), else the
/// owner of the place, else `postgres`; the server refuses to run as root. Otherwise everything belongs to whoever runs
/// the restore.
pub fn choose(record: &Record, facts: &Facts, warnings: &mut Vec<String>) -> Access {
    let group_access = record.data_directory.mode & 0o050 != 0;
    if !facts.is_root {
        return Access { owner: None, group_access };
    }
    let recorded = recorded_owner(record, |name| {
        let user = nix::unistd::User::from_name(name).ok().flatten()?;
        Some((user.uid.as_raw(), user.gid.as_raw()))
    });
    let place = Some((facts.data.uid, facts.data.gid));
    let postgres = nix::unistd::User::from_name("postgres").ok().flatten();
    let postgres = postgres.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    let known = |ids: &(u32, u32)| ids.0 != 0 && user_name(ids.0).is_some();
    let chosen = recorded.filter(known).or(place.filter(known)).or(postgres);
    if chosen.is_none() || chosen != recorded {
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

/// User and group of the recorded owner on this machine; the number alone counts only in a record without the name.
fn recorded_owner(record: &Record, find: impl Fn(&str) -> Option<(u32, u32)>) -> Option<(u32, u32)> {
    let numbers = (record.data_directory.uid, record.data_directory.gid);
    match record.server_settings.get("server_user") {
        None => Some(numbers),
        Some(name) => find(name).map(|found| if found.0 == numbers.0 { numbers } else { found }),
    }
}

/// Name of a user of this machine.
pub fn user_name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, Recipe};
    use super::*;

    #[test]
    fn the_name_of_the_recorded_owner_counts_more_than_its_number() {
        let mut record = Fixture::new(&Recipe::default()).record;
        (record.data_directory.uid, record.data_directory.gid) = (101, 104);
        assert_eq!(recorded_owner(&record, |_| None), Some((101, 104)), "a record without the name");
        record.server_settings.insert("server_user".into(), "postgres".into());
        assert_eq!(recorded_owner(&record, |_| None), None, "101 may be anybody here");
        assert_eq!(recorded_owner(&record, |_| Some((26, 26))), Some((26, 26)));
        assert_eq!(
            recorded_owner(&record, |_| Some((101, 9))),
            Some((101, 104)),
            "the group of the files stays"
        );
    }
}
