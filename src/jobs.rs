//! The server's scheduled jobs, as the table `ark.job` has them (`sql/schedule.sql`).

use crate::postgres::relation;
use crate::sql;
use pg_ark_contract::schedule::JobSpec;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::time::Duration;

/// The table's OID, if it is the one that the extension made. Without the extension anybody who may create a schema can
/// make one of that name, and a view would run functions of theirs with the rights of who reads it.
const TABLE: &str = "SELECT c.oid::text FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass \
    AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass \
    JOIN pg_class c ON c.oid = d.objid AND c.relname = 'job' AND c.relkind = 'r' WHERE e.extname = 'pg_ark'";

/// Intervals count as PostgreSQL counts them when it orders them: a month has 30 days.
const JOBS: &str = r#"SELECT coalesce(json_agg(json_build_object(
    'name', name, 'kind', kind, 'cron', cron, 'timezone', timezone, 'enabled', enabled,
    'since', to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'time_limit', ceil(extract(epoch FROM time_limit))::bigint,
    'label', label, 'level', level, 'deep', deep, 'logical', json_build_object('databases', databases,
    'exclude_databases', coalesce(exclude_databases, '{}'), 'skip_failed', skip_failed)) ORDER BY name), '[]')::text FROM ark.job"#;

/// How long to wait for who locks the table: less than the scheduler waits for a look at it.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for a view, which shall answer.
const PATIENCE_OF_VIEWS: Duration = Duration::from_secs(2);

/// Every job of the current database, by name; those that are not enabled too. For a worker and for a session, in a
/// transaction.
///
/// # Errors
/// As [`check`]; `PermissionDenied` when the caller may not read the table; `Internal` when a row has an unexpected shape.
pub fn read() -> Result<Vec<JobSpec>> {
    read_within(PATIENCE)
}

/// As [`read`], for views.
///
/// # Errors
/// As [`read`]; sooner when somebody locks the table.
pub fn read_soon() -> Result<Vec<JobSpec>> {
    read_within(PATIENCE_OF_VIEWS)
}

fn read_within(patience: Duration) -> Result<Vec<JobSpec>> {
    check_within(patience)?;
    if sql::text("SELECT has_table_privilege('ark.job', 'SELECT')::text", &[])?.as_deref() != Some("true") {
        return Err(Error::new(ErrorKind::PermissionDenied, "permission denied for table ark.job")
            .hint("Members of pg_monitor may see the schedule."));
    }
    sql::json(JOBS, &[])
}

/// Makes sure that `ark.job` is ours until the transaction ends.
///
/// # Errors
/// `ServerNotReady` when the extension is not in this database, or has no such table yet, or somebody else locks
/// the table for longer than 20 seconds.
pub fn check() -> Result<()> {
    check_within(PATIENCE)
}

fn check_within(patience: Duration) -> Result<()> {
    let found = sql::text(TABLE, &[])?.and_then(|oid| oid.parse().ok()).unwrap_or(0);
    // Locked, it can neither be dropped nor renamed: the name means this table until the transaction ends.
    if !relation::lock_for_reading(found, patience) {
        return Err(Error::new(ErrorKind::ServerNotReady, "table ark.job is locked by another session").hint(
            "SELECT pid FROM pg_locks WHERE relation = 'ark.job'::regclass AND granted; names it: end its transaction.",
        ));
    }
    if found == 0 || relation::named("ark", "job") != Some(found) {
        return Err(Error::new(ErrorKind::ServerNotReady, "this database has no table of scheduled jobs").hint(
            "CREATE EXTENSION pg_ark in the database named by pg_ark.database, or ALTER EXTENSION pg_ark UPDATE \
             where an older version is.",
        ));
    }
    Ok(())
}
