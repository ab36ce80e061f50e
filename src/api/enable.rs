//! `ark.enable`: creates or opens the repository and sets it for the whole server; [`super::protect`] does the rest.

use super::{archiving, protect};
use crate::engine::{self, Target};
use crate::postgres::text::Text;
use crate::postgres::{guc, wal};
use crate::{settings, sql, translate, version};
use pg_ark_contract::conversation::{Answer, Task};
use pg_ark_contract::{Error, ErrorKind, Result};
use pgrx::prelude::*;

type Row = (String, String, Option<String>);

/// Creates or opens the repository and sets `pg_ark.repository` for the whole server.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn enable(
    repository: Option<Text>,
    protect: default!(Option<bool>, false),
) -> TableIterator<'static, (name!(item, Text), name!(status, Text), name!(hint, Option<Text>))> {
    version::require();
    let repository = repository.map_or(Ok(String::new()), |url| url.decode());
    let rows = repository.and_then(|url| run(&url, protect.unwrap_or(false)));
    TableIterator::new(
        translate::or_raise(rows)
            .into_iter()
            .map(|(item, status, hint)| (item.into(), status.into(), hint.map(Text::from))),
    )
}

fn run(repository: &str, protect: bool) -> Result<Vec<Row>> {
    if !guc::is_superuser() {
        return Err(Error::new(ErrorKind::PermissionDenied, "permission denied for function enable")
            .detail("It changes the configuration of the whole server.")
            .hint("Run ark.enable as a superuser."));
    }
    check_url(repository)?;
    let target = Target::for_repository(repository.into())?;
    if protect {
        protect::check_place()?;
    }
    let jobs = if protect { protect::jobs()? } else { Vec::new() };
    let system_identifier = Some(wal::system_identifier());
    let task = Task::Open { data_directory: settings::data_directory()?, system_identifier };
    let opened = engine::ask(&target, task)?;
    let Answer::Opened { created, id, foreign } = opened else { return Err(engine::unexpected(&opened)) };
    let advised = if protect { protect::refuse_faults(&target)? } else { Vec::new() };
    set_for_server(repository)?;
    let mut rows = vec![
        (
            "repository".into(),
            if created { "created" } else { "opened" }.into(),
            Some(format!("Its id is {id}.")),
        ),
        (
            "pg_ark.repository".into(),
            "set for the whole server".into(),
            Some(format!("Backups go to {repository} as cluster {}.", target.cluster)),
        ),
    ];
    if let Some(foreign) = foreign {
        translate::warn_error("pg_ark", &foreign);
        rows.extend((!protect).then(|| ("cluster".into(), "advised".into(), foreign.hint)));
    }
    if protect {
        rows.extend(advised);
        rows.extend(protect::run(&jobs)?);
        return Ok(rows);
    }
    rows.extend(left_to_do());
    rows.extend(settings::left_open().map(|to_do| {
        let why = "Every role can SHOW pg_ark.repository until the server loads pg_ark itself.";
        ("shared_preload_libraries".into(), "advised".into(), Some(format!("{why} {to_do}")))
    }));
    Ok(rows)
}

fn check_url(repository: &str) -> Result<()> {
    let bad = |why: &str| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("\"{}\" is not a repository: {why}", repository.escape_debug()),
        )
        .hint("Give a URL, for example file:///var/backups/postgres for a directory.")
    };
    match repository.split_once("://") {
        _ if repository.chars().any(char::is_control) || has_encoded_control(repository) => {
            Err(bad("it holds control characters"))
        }
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(()),
        _ => Err(bad("it is not a URL")),
    }
}

/// `%0A` and its kin: no object has such a path, so an empty folder would be all that comes of it.
fn has_encoded_control(url: &str) -> bool {
    let codes = url.as_bytes().windows(3).filter(|three| three[0] == b'%');
    codes.into_iter().any(|three| matches!(three[1], b'0' | b'1') || three[1..].eq_ignore_ascii_case(b"7f"))
}

/// Writes the setting, has the server reload, and makes it act in this session now. A session that begins later
/// sees it too: the postmaster handles the reload before it accepts another connection.
fn set_for_server(repository: &str) -> Result<()> {
    guc::alter_system("pg_ark.repository", &[repository])?;
    sql::text("SELECT pg_reload_conf()::text", &[])?;
    guc::apply_here(c"pg_ark.repository", repository);
    if settings::repository().is_ok_and(|now| now == repository) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ServerNotReady, "pg_ark.repository was written but does not act")
        .detail("A value on the server's command line stands above postgresql.auto.conf.")
        .hint("Remove pg_ark.repository from the command line that starts the server."))
}

fn left_to_do() -> Vec<Row> {
    let mut rows = Vec::new();
    if guc::wal_level_is_minimal() {
        rows.push((
            "wal_level".into(),
            "to do".into(),
            Some("ALTER SYSTEM SET wal_level = 'replica', then restart the server.".into()),
        ));
    }
    let archiving = archiving::left_to_do();
    rows.extend(archiving.into_iter().map(|(item, hint)| (item.into(), "to do".into(), Some(hint))));
    rows.push(("first backup".into(), "to do".into(), Some("SELECT ark.backup_start();".into())));
    rows
}
