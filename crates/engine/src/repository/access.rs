//! Whether others may change what is stored: what lies in a folder is theirs who may rename and remove its entries.

use pg_ark_contract::rows::{CheckRow, CheckStatus};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Group or others may make, rename and remove entries.
const WRITABLE: u32 = 0o022;
/// Only its owner may rename and remove an entry.
const STICKY: u32 = 0o1000;

/// The row of `ark.check` about the repository's folder and those above it.
pub fn check(folder: &Path) -> CheckRow {
    let row = |status, detail, hint| CheckRow { item: "repository access".into(), status, detail, hint };
    match open_to_others(folder, rustix::process::geteuid().as_raw()) {
        None => row(CheckStatus::Ok, "only its owner may change it".into(), None),
        Some((path, why)) => row(
            CheckStatus::Warning,
            format!("\"{}\" {why}: others may replace what is stored", path.display()),
            Some("Give the folder to the server's user and take the right to write from all others (chmod go-w).".into()),
        ),
    }
}

/// The first folder, from the repository upwards, that somebody besides `user` and root may change.
fn open_to_others(folder: &Path, user: u32) -> Option<(&Path, String)> {
    folder.ancestors().find_map(|path| {
        // What cannot be looked at is another row's matter.
        let meta = path.metadata().ok()?;
        let mode = meta.permissions().mode() & 0o7777;
        let is_ours = [user, 0].contains(&meta.uid());
        // In a folder like /tmp nobody takes away what is ours; the repository itself is no such folder.
        let shared = path != folder && mode & STICKY != 0;
        if !is_ours {
            Some((path, format!("belongs to user {}", meta.uid())))
        } else if mode & WRITABLE != 0 && !shared {
            Some((path, format!("has mode {mode:04o}")))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir_all, set_permissions};

    #[test]
    fn whoever_may_change_a_folder_above_may_change_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let above = dir.path().join("above");
        let folder = above.join("repository");
        create_dir_all(&folder).unwrap();
        let set = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let user = dir.path().metadata().unwrap().uid();
        let found = || open_to_others(&folder, user).map(|(path, why)| (path.to_path_buf(), why));
        for (of_folder, of_above, expected) in [
            (0o700, 0o755, None),
            (0o755, 0o1777, None),
            (0o777, 0o755, Some((&folder, "has mode 0777"))),
            (0o1777, 0o755, Some((&folder, "has mode 1777"))),
            (0o720, 0o755, Some((&folder, "has mode 0720"))),
            (0o700, 0o757, Some((&above, "has mode 0757"))),
        ] {
            set(&folder, of_folder);
            set(&above, of_above);
            let expected = expected.map(|(path, why)| (path.clone(), why.to_string()));
            assert_eq!(found(), expected, "{of_folder:o} in {of_above:o}");
        }
        set(&folder, 0o700);
        set(&above, 0o755);
        let stranger = open_to_others(&folder, user + 1).map(|(path, _)| path);
        assert_eq!(stranger, (user != 0).then_some(&*folder));
    }
}
