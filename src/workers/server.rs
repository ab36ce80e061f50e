//! The connection of a worker, facts about the server, and the calls that a backup makes on it: slot,
//! `pg_backup_start`, `pg_backup_stop`.
//!
//! Each function but [`connect`] runs inside a transaction of the caller. Backup mode and the temporary slot belong to this process:
//! the server takes both back when it ends, in whatever way (`do_pg_abort_backup` and `ReplicationSlotCleanup` are
//! callbacks before shared memory is left).

use super::logical;
use super::request::Request;
use crate::postgres::text::Text;
use crate::postgres::{guc, process, wal, worker};
use crate::{archiving, settings, sql};
use pg_ark_contract::conversation::{BackupKind, BackupTask};
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use serde::Deserialize;

const FACTS: &str = r#"
SELECT json_build_object(
    'server_version_num', current_setting('server_version_num')::int,
    'server_version', current_setting('server_version'),
    'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
    'server_settings', (SELECT json_agg(json_build_array(name, setting) ORDER BY name) FROM pg_settings
        WHERE name IN ('shared_preload_libraries', 'data_checksums', 'wal_segment_size', 'block_size',
                       'max_connections', 'max_worker_processes', 'max_wal_senders',
                       'max_prepared_transactions', 'max_locks_per_transaction', 'data_directory', 'port',
                       'cluster_name', 'wal_level', 'full_page_writes', 'archive_mode', 'server_encoding',
                       'config_file', 'hba_file', 'ident_file', 'data_directory_mode'))
)::text"#;

/// Files that the server read its configuration from.
const CONFIG_FILES: &str = r#"
SELECT coalesce(json_agg(DISTINCT file), '[]')::text FROM (
    SELECT current_setting('config_file') UNION ALL
    SELECT current_setting('hba_file') UNION ALL
    SELECT current_setting('ident_file') UNION ALL
    SELECT sourcefile FROM pg_file_settings"#;

/// Since PostgreSQL 16, pg_hba.conf and pg_ident.conf can include files.
const INCLUDED_FILES: &str = r#" UNION ALL
    SELECT file_name FROM pg_hba_file_rules UNION ALL
    SELECT file_name FROM pg_ident_file_mappings"#;

#[derive(Deserialize)]
struct Facts {
    server_version_num: u32,
    server_version: String,
    system_identifier: String,
    server_settings: Vec<(String, String)>,
}

/// Connects as the bootstrap superuser, and undoes what the database's owner may have set for its sessions:
/// a search_path would slip in functions, a timeout would end a wait for a checkpoint.
pub fn connect(database: u32) {
    worker::connect(database);
    guc::set_for_process(c"search_path", "pg_catalog, pg_temp");
    guc::set_for_process(c"lock_timeout", "0");
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    guc::set_for_process(c"transaction_timeout", "0");
}

/// The engine's task for `request` on this server.
///
/// # Errors
/// `Internal` when the server's answers have an unexpected shape; as [`settings::data_directory`] and [`logical::task`].
pub fn backup_task(request: &Request) -> Result<BackupTask> {
    let logical = match request.kind {
        BackupKind::Logical => Some(logical::task(request.logical.clone())?),
        BackupKind::Full | BackupKind::Incremental => None,
    };
    let facts: Facts = sql::json(FACTS, &[])?;
    let mut server_settings = facts.server_settings;
    if let Some(user) = process::server_user() {
        server_settings.push(("server_user".into(), user));
    }
    Ok(BackupTask {
        kind: request.kind,
        label: request.label.clone(),
        data_directory: settings::data_directory()?,
        server_version_num: facts.server_version_num,
        server_version: facts.server_version,
        system_identifier: system_identifier(&facts.system_identifier)?,
        in_recovery: wal::in_recovery(),
        config_files: config_files(facts.server_version_num)?,
        server_settings,
        compression: request.compression,
        checksum: request.checksum,
        jobs: request.jobs,
        max_rate: request.max_rate,
        volume_size: request.volume_size,
        include_wal: logical.is_none() && archiving::include_wal(request.include_wal)?,
        archive_wait: request.archive_wait,
        logical,
    })
}

fn config_files(server_version_num: u32) -> Result<Vec<String>> {
    let included = if server_version_num >= 160_000 { INCLUDED_FILES } else { "" };
    let query = format!("{CONFIG_FILES}{included}) AS files(file) WHERE file <> ''");
    sql::json(&query, &[])
}

/// SQL shows the identifier as a signed number; it is an unsigned one (`uint64`, catalog/pg_control.h).
fn system_identifier(text: &str) -> Result<u64> {
    text.parse::<i64>().map(i64::cast_unsigned).map_err(|error| {
        Error::new(ErrorKind::Internal, "the system identifier is not a number").detail(error)
    })
}

/// Makes a temporary physical slot that holds back WAL from now on.
///
/// # Errors
/// What the server raises: no free slot, above all.
pub fn create_slot(name: &str) -> Result<()> {
    sql::text(
        "SELECT slot_name::text FROM pg_create_physical_replication_slot($1::text::name, true, true)",
        &[name],
    )
    .map(|_| ())
}

/// Lets the server remove WAL before `lsn`. Never moves the slot back.
///
/// # Errors
/// What the server raises.
pub fn advance_slot(name: &str, lsn: Lsn) -> Result<()> {
    let query = "SELECT (CASE WHEN restart_lsn < $2::pg_lsn \
                    THEN (SELECT end_lsn FROM pg_replication_slot_advance(slot_name, $2::pg_lsn)) END)::text \
                 FROM pg_replication_slots WHERE slot_name = $1::text::name";
    sql::text(query, &[name, &lsn.to_string()]).map(|_| ())
}

/// Drops the slot.
///
/// # Errors
/// What the server raises.
pub fn drop_slot(name: &str) -> Result<()> {
    sql::text("SELECT pg_drop_replication_slot($1::text::name)::text", &[name]).map(|_| ())
}

/// `pg_backup_start`: waits for a checkpoint. Gives the start LSN and its timeline.
///
/// # Errors
/// What the server raises.
pub fn backup_start(label: &str, fast: bool) -> Result<(Lsn, Timeline)> {
    let fast = if fast { "true" } else { "false" };
    let start = sql::text("SELECT pg_backup_start($1, $2::boolean)::text", &[label, fast])?;
    let start_lsn = start.unwrap_or_default().parse()?;
    let timeline = if wal::in_recovery() {
        // A standby's backup starts at its last restartpoint, whose timeline may be older than what it replays now.
        Timeline(sql::json("SELECT timeline_id::text FROM pg_control_checkpoint()", &[])?)
    } else {
        wal::durable_position().1
    };
    Ok((start_lsn, timeline))
}

/// What `pg_backup_stop` gives.
#[derive(Debug)]
pub struct Stopped {
    /// End of the backup.
    pub lsn: Lsn,
    /// Content of `backup_label`, in whatever encoding the label came.
    pub labelfile: Vec<u8>,
    /// Content of `tablespace_map`: paths as the file system has them.
    pub spcmapfile: Vec<u8>,
}

/// `pg_backup_stop`, without waiting for an archive.
///
/// # Errors
/// What the server raises: a standby was promoted, full_page_writes was off.
pub fn backup_stop() -> Result<Stopped> {
    let query = "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(wait_for_archive => false)";
    let [lsn, labelfile, spcmapfile] = sql::columns(query, &[])?;
    let bytes = |text: Option<Text>| text.map(Text::into_bytes).unwrap_or_default();
    Ok(Stopped {
        lsn: lsn.map(|lsn| lsn.decode_lossily()).unwrap_or_default().parse()?,
        labelfile: bytes(labelfile),
        spcmapfile: bytes(spcmapfile),
    })
}
