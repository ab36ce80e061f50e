//! Every reader of a repository, and what it says, without what differs from run to run.

use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::ArchiveStatus;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::logical::stored::{self, Dump};
use pg_ark_engine::repository::{Cluster, Repository};
use pg_ark_engine::restore::{self, ConfigChoice, Request, Stage};
use pg_ark_engine::verify::{self, Depth, Watch};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

/// What list, verify-archive, windows, verify and restore say, one paragraph each.
pub fn all(repository: &Path, target: &Path) -> String {
    let mut text = String::new();
    match open(repository) {
        Ok(cluster) => {
            list(&cluster, &mut text);
            archive(&cluster, &mut text);
            windows(&cluster, &mut text);
            verify(&cluster, &mut text);
            dumps(&cluster, &mut text);
            restore(&cluster, target, &mut text);
        }
        Err(error) => text = format!("open: {}\n", shown(&error)),
    }
    let text = text.replace(&target.display().to_string(), "[TARGET]");
    text.replace(&repository.display().to_string(), "[REPOSITORY]")
}

fn open(repository: &Path) -> Result<Cluster> {
    Repository::open(&format!("file://{}", repository.display()))?.cluster("main")
}

fn shown(error: &Error) -> String {
    match error.kind {
        // It tells how much is free on this machine.
        ErrorKind::NotEnoughSpace => format!("{:?}", error.kind),
        kind => format!("{kind:?}: {error}"),
    }
}

/// A line, or the error.
fn say<T>(text: &mut String, what: &str, result: Result<T>, lines: impl FnOnce(T) -> Vec<String>) {
    match result.map(lines) {
        Ok(lines) if lines.is_empty() => text.push_str(&format!("{what}: nothing found\n")),
        Ok(lines) => text.push_str(&format!("{what}:\n  {}\n", lines.join("\n  "))),
        Err(error) => text.push_str(&format!("{what}: {}\n", shown(&error))),
    }
}

fn list(cluster: &Cluster, text: &mut String) {
    say(text, "list", cluster.backups(), |records| {
        let line = |record: &pg_ark_engine::repository::Record| {
            let why = record.unreadable.as_ref().map_or_else(String::new, |e| format!(", {}", shown(e)));
            format!("{} {}{why}", record.backup, record.status.as_str())
        };
        records.iter().map(line).collect()
    });
}

/// By names alone: verify reads every segment.
fn archive(cluster: &Cluster, text: &mut String) {
    say(text, "verify-archive", verify::archive_rows(cluster, None, Depth::Names, &Silent), |rows| {
        let faults = rows.iter().filter(|row| row.status != ArchiveStatus::Ok);
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let line = |row: &pg_ark_contract::rows::ArchiveRow| {
            format!("{} {} {}", row.status.as_str(), text(&row.first_segment), text(&row.detail))
        };
        faults.map(line).collect()
    });
}

fn windows(cluster: &Cluster, text: &mut String) {
    say(text, "windows", verify::windows_of(cluster, None, &Silent), |windows| {
        let rows = windows.rows.iter().map(|row| format!("{} to {}: {}", row.from_lsn, row.to_lsn, row.note));
        windows.remarks.iter().map(|remark| format!("remark: {remark}")).chain(rows).collect()
    });
}

fn verify(cluster: &Cluster, text: &mut String) {
    for level in Level::ALL {
        let request = verify::Request { backup: None, level: *level, jobs: 1 };
        say(
            text,
            &format!("verify {}", level.as_str()),
            verify::validate(cluster, &request, &Silent),
            |rows| {
                let line = |row: &pg_ark_contract::rows::FindingRow| {
                    format!("{} {}: {}", row.severity.as_str(), row.object, row.finding)
                };
                rows.iter().map(line).collect()
            },
        );
    }
}

/// What stands before every way back of a logical backup: the record judged, each dump read and compared with it.
fn dumps(cluster: &Cluster, text: &mut String) {
    for record in cluster.backups().unwrap_or_default() {
        if record.kind.is_physical() || record.unreadable.is_some() {
            continue;
        }
        let read = stored::check(&record).and_then(|logical| {
            let system = record.system_identifier.parse().unwrap_or_default();
            let folder = cluster.backup_folder(system, &record.backup);
            let storage = cluster.storage();
            let globals = Dump::globals(storage, &folder, logical);
            globals.check(&mut |_| Ok(()))?;
            let mut sql = String::new();
            let decoded = globals.decoded(record.compression.codec)?.take(1 << 20).read_to_string(&mut sql);
            decoded.map_err(|e| Error::new(ErrorKind::Corrupt, "the globals do not decode").detail(e))?;
            let mut lines = vec![format!("{} bytes of globals", sql.len())];
            for database in &logical.databases {
                Dump::of(storage, &folder, database).check(&mut |_| Ok(()))?;
                lines.push(format!("{}: whole", database.name));
            }
            Ok(lines)
        });
        say(text, &format!("dumps {}", record.backup), read, |lines| lines);
    }
}

/// Restores every backup, and looks at the plan first.
fn restore(cluster: &Cluster, target: &Path, text: &mut String) {
    for record in cluster.backups().unwrap_or_default() {
        let name = &record.backup;
        let place = |n: usize| target.join(format!("{n}"));
        let spaces = record.tablespaces.iter().enumerate();
        let request = Request {
            backup: name.clone(),
            pgdata: target.join("data"),
            tablespaces: spaces.map(|(number, space)| (space.path.clone(), place(number))).collect(),
            config: ConfigChoice::Skip,
            jobs: 1,
            // Any program that everybody can run: nothing is started.
            program: Some("/usr/bin/env".into()),
            ..Request::default()
        };
        let prepared = restore::prepare(cluster, &request);
        say(text, &format!("plan {name}"), prepared.as_ref().map_err(Clone::clone), |prepared| {
            let recovery = serde_json::to_value(&prepared.plan.recovery).unwrap_or_default();
            vec![format!("known end of WAL: {}", recovery["end"]["lsn"])]
        });
        let Ok(prepared) = prepared else { continue };
        let heard = Heard::default();
        let restored = restore::run(cluster.storage(), &prepared, &heard);
        let warnings = heard.0.into_inner().unwrap_or_default();
        say(text, &format!("restore {name}"), restored, |_| warnings);
        drop(fs::remove_dir_all(target));
    }
}

struct Silent;

impl Watch for Silent {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Keeps what a restore warns of.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl restore::Watch for Heard {
    fn stage(&self, _: Stage, _: u64) {}
    fn advance(&self, _: u64) {}
    fn warn(&self, message: &str) {
        if let Ok(mut heard) = self.0.lock() {
            heard.push(format!("warning: {message}"));
        }
    }
    fn stopped(&self) -> bool {
        false
    }
}
