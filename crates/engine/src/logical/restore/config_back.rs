//! Configuration of the old cluster in the new one. What was outside the old data directory goes where a physical restore puts
//! it; what was inside goes to the same place in the new one, where it replaces what initdb made.

use super::plan::{FreshPlan, FreshPrepared};
use crate::repository::Record;
use crate::restore::access::Access;
use crate::restore::config::{self, Action};
use crate::restore::config_archive::ConfigMember;
use crate::restore::config_in_data::{self, folders_in};
use crate::restore::recovery;
use crate::restore::server::{Server, missing_libraries};
use crate::restore::{ConfigChoice, Watch};
use crate::stored::names::hostile;
use pg_ark_contract::{Error, Result};
use std::path::{Path, PathBuf};

/// Names below which a new data directory has its data, or whose presence means something to a server.
const TAKEN: [&str; 32] = [
    "base",
    "global",
    "backup_label",
    "backup_manifest",
    "current_logfiles",
    "postmaster.opts",
    "postmaster.pid",
    "promote",
    "recovery.done",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "PG_VERSION",
    "logrotate",
    "pg_ark.cluster",
    "pg_ark.s",
    "pg_ark_restore.unfinished",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// Members from inside the old data directory, and those from outside.
pub fn split(members: Vec<ConfigMember>, old_data: &Path) -> (Vec<ConfigMember>, Vec<ConfigMember>) {
    members.into_iter().partition(|member| member.path.starts_with(old_data) && member.path != old_data)
}

/// Where members from inside the old data directory go.
///
/// # Errors
/// `Corrupt` for one that would take the place of data.
pub fn places(inside: &[ConfigMember], record: &Record, data: &Path) -> Result<Vec<PathBuf>> {
    inside.iter().map(|member| place(member, record, data)).collect()
}

fn place(member: &ConfigMember, record: &Record, data: &Path) -> Result<PathBuf> {
    let below = member.path.strip_prefix(&record.data_directory.path).unwrap_or(Path::new(""));
    let top = below.iter().next().and_then(|top| top.to_str()).unwrap_or_default();
    if TAKEN.contains(&top) {
        return Err(hostile(member.path.as_os_str().as_encoded_bytes(), "it is no configuration"));
    }
    Ok(data.join(below))
}

/// The libraries that the old server loaded when it started, as far as they are installed: extensions may insist on them.
pub fn libraries(server: &Server, record: &Record) -> Vec<String> {
    let missing = missing_libraries(server, record);
    let value = record.server_settings.get("shared_preload_libraries").map_or("", String::as_str);
    let names = value.split(',').map(|name| name.trim().trim_matches('"'));
    // A path leads nobody knows where.
    let plain = |name: &str| {
        let name = name.strip_prefix("$libdir/").unwrap_or(name);
        !name.is_empty() && !name.contains(['/', '\'', '"', '\\'])
    };
    let there = |name: &str| {
        !missing.iter().any(|m| m == name.trim_start_matches("$libdir/").trim_end_matches(".so"))
    };
    names.filter(|name| plain(name) && there(name)).map(str::to_string).collect()
}

/// Puts configuration into the new cluster.
///
/// # Errors
/// What the system said.
pub fn apply(prepared: &FreshPrepared, watch: &dyn Watch) -> Result<()> {
    let FreshPrepared { plan, record, outside, inside, .. } = prepared;
    let (data, access) = (&plan.data_directory, &plan.access);
    for (member, to) in inside.iter().zip(&plan.config_inside) {
        put(member, to, data, access)?;
    }
    remove_made(plan)?;
    config::apply(&plan.config, record, outside, data, access, watch)?;
    let moved = *data != plan.old_data_directory;
    if plan.config.main.is_none() && (moved || plan.config.choice == ConfigChoice::Pgdata) {
        config_in_data::detach(record, outside, data, access, watch)?;
    }
    recovery::settle(data, plan.archive_mode, plan.port, access)
}

/// Removes what initdb made where a file of the backup goes.
fn remove_made(plan: &FreshPlan) -> Result<()> {
    for (_, name) in config::ROLES {
        let path = plan.data_directory.join(name);
        let is_taken = plan.config.files.iter().any(|file| file.to == path && file.action == Action::Write);
        if !is_taken || plan.config_inside.contains(&path) {
            continue;
        }
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("could not remove \"{}\"", path.display()), &e));
            }
            _ => {}
        }
    }
    Ok(())
}

fn put(member: &ConfigMember, to: &Path, data: &Path, access: &Access) -> Result<()> {
    match &member.content {
        None => folders_in(data, to, access),
        Some(content) => {
            folders_in(data, to.parent().unwrap_or(data), access)?;
            access.replace_file(to, content, member.mode)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::fixture::{Fixture, Recipe};
    use pg_ark_contract::ErrorKind;

    fn member(path: &str) -> ConfigMember {
        ConfigMember { path: path.into(), mode: 0o600, content: Some(Vec::new()) }
    }

    #[test]
    fn configuration_from_inside_goes_inside() {
        let record = Fixture::new(&Recipe::default()).record;
        let all =
            ["/old/data/postgresql.conf", "/etc/x.conf", "/old/data/conf.d/a.conf", "/old/data2/b.conf"];
        let (inside, outside) = split(all.map(member).to_vec(), Path::new("/old/data"));
        assert_eq!(outside.len(), 2);
        let places = places(&inside, &record, Path::new("/new")).unwrap();
        assert_eq!(places, [Path::new("/new/postgresql.conf"), Path::new("/new/conf.d/a.conf")]);
    }

    #[test]
    fn promise_7_no_file_of_the_backup_takes_the_place_of_data() {
        let record = Fixture::new(&Recipe::default()).record;
        for path in [
            "global/pg_control",
            "base/1/1259",
            "standby.signal",
            "pg_wal/x",
            "pg_ark.s/pg_hba.conf",
            "PG_VERSION",
        ] {
            let hostile = member(&format!("/old/data/{path}"));
            let error = places(&[hostile], &record, Path::new("/new")).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt, "{path}");
        }
        for path in ["pg_hba.conf", "pg_hba.d/x.conf", "pg_extra.conf"] {
            places(&[member(&format!("/old/data/{path}"))], &record, Path::new("/new")).unwrap();
        }
    }
}
