//! Whether logical backups can be taken: rows of `ark.check` for a server whose schedule takes them.

use super::child::Keeper;
use super::facts::{self, Database};
use super::programs::Programs;
use super::query::Server;
use super::{run, select};
use crate::session::Session;
use pg_ark_contract::conversation::{LogicalChoice, LogicalTask};
use pg_ark_contract::rows::{CheckRow, CheckStatus};
use pg_ark_contract::schedule::JobSpec;
use pg_ark_contract::{Error, Result};
use std::path::Path;

/// One row about the server's programs and the way in, and one for each job that names what cannot be dumped.
pub fn rows(
    task: &LogicalTask,
    server_version_num: u32,
    jobs: &[JobSpec],
    session: &Session,
) -> Vec<CheckRow> {
    let (detail, databases) = match look(task, server_version_num, session) {
        Ok(found) => found,
        Err(error) => return vec![fault("logical backups", error)],
    };
    let all = CheckRow { item: "logical backups".into(), status: CheckStatus::Ok, detail, hint: None };
    let judged = |job: &JobSpec| {
        let error = judge(&databases, &job.logical).err()?;
        Some(fault(&format!("databases of job {}", job.name), error))
    };
    [all].into_iter().chain(jobs.iter().filter_map(judged)).collect()
}

/// Starts the server's own programs and connects as a backup does.
fn look(task: &LogicalTask, server_version_num: u32, session: &Session) -> Result<(String, Vec<Database>)> {
    let major = server_version_num / 10_000;
    let connection = run::connection(task)?.of_major(major);
    let programs = Programs::of_server(Path::new(&task.bindir), major)?;
    let found = Keeper::with(&|| session.check(), |keeper| {
        let server = Server { keeper, programs: &programs, connection: &connection, access: None };
        facts::cluster(&server)
    })?;
    let detail = format!("{}, as role \"{}\" through {}", programs.version, task.user, task.socket_directory);
    Ok((detail, found.databases))
}

/// The job goes on without what it may go on without.
fn judge(databases: &[Database], choice: &LogicalChoice) -> Result<()> {
    select::select(databases.to_vec(), choice).map(|_| ())
}

fn fault(item: &str, error: Error) -> CheckRow {
    CheckRow {
        item: item.into(),
        status: CheckStatus::Error,
        detail: error.to_string(),
        hint: error.hint.or_else(|| Some("Call ark.schedule with this name again.".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::logical_record::DatabaseRecord;

    #[test]
    fn a_job_that_names_what_is_gone_is_told() {
        let database = |name: &str| Database {
            record: DatabaseRecord { name: name.into(), ..DatabaseRecord::default() },
            trouble: None,
        };
        let databases = ["app", "postgres"].map(database);
        let choice = |name: &str| LogicalChoice { databases: Some(vec![name.into()]), ..Default::default() };
        assert!(judge(&databases, &choice("app")).is_ok());
        let row = fault("databases of job a", judge(&databases, &choice("gone")).unwrap_err());
        assert!(row.detail.contains("\"gone\"") && row.hint.is_some(), "{row:?}");
    }
}
