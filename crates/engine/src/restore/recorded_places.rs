//! Places that only the record names: tablespaces that nobody mapped. Root gives such a folder to the server's user, so
//! a record that somebody made up must not name one of the system's: an empty `/usr/local/sbin`, for example.

use super::check::Mapped;
use super::facts::Facts;
use super::request::Request;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::path::Path;

/// Folders of the system itself.
const SYSTEM: [&str; 11] =
    ["/bin", "/boot", "/etc", "/proc", "/root", "/run", "/sbin", "/sys", "/usr", "/var/run", "/var/spool"];
/// Below those, but servers' own.
const SERVERS: [&str; 2] = ["/etc/postgresql", "/usr/local/pgsql"];

/// Refuses folders of the system that the user did not name, when root runs the restore.
///
/// # Errors
/// `PermissionDenied`.
pub fn check(mapped: &[Mapped], request: &Request, facts: &Facts) -> Result<()> {
    if !facts.is_root {
        return Ok(());
    }
    let trim = |path: &str| path.trim_end_matches('/').to_string();
    let named = |m: &Mapped| request.tablespaces.iter().any(|(old, _)| trim(old) == trim(&m.from));
    let unasked = mapped.iter().zip(&facts.tablespaces).filter(|(m, _)| !named(m)).map(|(_, folder)| folder);
    match unasked.chain(&facts.new_tablespaces).find(|folder| is_system(&folder.path)) {
        None => Ok(()),
        Some(folder) => Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("the backup names \"{}\" as a tablespace, a place of the system", folder.path.display()),
        )
        .hint(
            "Root does not give it away on the repository's word. Name another place with --tablespace OLD=NEW, or run \
             pgark as the server's user.",
        )),
    }
}

fn is_system(path: &Path) -> bool {
    let below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    // /lib, /lib64 and whatever else a machine calls so.
    let library = path.iter().nth(1).is_some_and(|top| top.as_encoded_bytes().starts_with(b"lib"));
    (below(&SYSTEM) || library || path == Path::new("/")) && !below(&SERVERS)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, Recipe};
    use super::super::prepare;
    use super::*;

    #[test]
    fn places_of_the_system() {
        for path in ["/usr/local/sbin", "/etc/systemd/system/x.service.d", "/lib64/x", "/", "/var/spool/cron"]
        {
            assert!(is_system(Path::new(path)), "{path}");
        }
        for path in ["/srv/fast", "/var/lib/postgresql/fast", "/mnt", "/usr/local/pgsql/fast", "/etcetera"] {
            assert!(!is_system(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn promise_7_root_gives_no_folder_of_the_system_away_unasked() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = format!("/etc/pg_ark_test_{}/sub", std::process::id());
        let mut fixture = Fixture::new(&Recipe::default());
        fixture.change_record(|r| r.tablespaces[0].path.clone_from(&place));
        let request = Request { backup: "latest".into(), pgdata: fixture.path("data"), ..Default::default() };
        let error = prepare(&fixture.cluster, &request).unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
        let named = Request { tablespaces: vec![(place.clone(), place.clone().into())], ..request.clone() };
        prepare(&fixture.cluster, &named).unwrap();
        fixture.change_record(|r| r.new_tablespaces = vec![format!("{place}2")]);
        let error = prepare(&fixture.cluster, &named).unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    }
}
