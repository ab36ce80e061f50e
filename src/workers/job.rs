//! The worker that runs a backup which a session asked for: `ark.backup_start`.
//!
//! It takes the request from the [`Channel`], connects, takes the backup ([`super::backup`]), and tells the session, if it
//! still waits, and those who LISTEN.

use super::notice::{self, Event};
use super::request::Request;
use super::{backup, server};
use crate::postgres::shared::{ANSWER_SIZE, Channel, State};
use crate::postgres::{interrupts, worker};
use crate::translate;
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, Result};

pub use super::backup::WORKER;

/// The worker; `handle` is the one of its [`Channel`].
pub fn main(handle: u32) {
    worker::take_signals();
    let outcome = interrupts::catching(|| {
        let channel = Channel::attach(handle)?;
        let result = interrupts::catching(|| run(&channel));
        let name = channel.read().1;
        match result {
            Ok(row) => {
                channel.publish(State::Complete, &serde_json::to_string(&row).unwrap_or_default());
                tell(&row);
            }
            Err(error) => {
                worker::calm();
                log_failure(&name, &error);
                publish_error(&channel, &error);
                let name = (!name.is_empty()).then_some(name.as_str());
                notice::send_failure(None, name, &error);
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        log_failure("", &error);
    }
}

fn run(channel: &Channel) -> Result<BackupRow> {
    let request = Request::parse(&channel.request())?;
    server::connect(request.database);
    backup::take(&request, None, &|name| channel.publish(State::Started, name))
}

/// Tells those who LISTEN of a complete backup, and of the damage that it holds.
fn tell(row: &BackupRow) {
    let backup = Some(row.backup.as_str());
    notice::send(Event::Finished, None, backup, &completion(row));
    if row.damaged_pages > 0 {
        notice::send(Event::Damage, None, backup, &damage_of(row));
    }
}

/// What the log, a run's result and those who LISTEN say of a complete backup: how much was read and stored, and what a
/// logical one contains.
pub fn completion(row: &BackupRow) -> String {
    let [read, stored] = [row.data_bytes, row.stored_bytes].map(|bytes| human_bytes(bytes.unwrap_or(0)));
    let contents = row.contents.as_ref().map_or_else(String::new, |contents| format!("; {contents}"));
    format!("backup {} is complete: {read} read, {stored} stored{contents}", row.backup)
}

/// What those hear who LISTEN of a backup that holds damaged pages.
pub fn damage_of(row: &BackupRow) -> String {
    format!("backup {} holds damaged pages: {} in all", row.backup, row.damaged_pages)
}

/// `name` is empty when the backup failed before it had one.
fn log_failure(name: &str, error: &Error) {
    let name = if name.is_empty() { String::new() } else { format!(" {name}") };
    translate::warn_error(&format!("pg_ark: backup{name} failed"), error);
}

/// The error for whoever reads the channel; details that do not fit are left out.
pub fn publish_error(channel: &Channel, error: &Error) {
    let full = serde_json::to_string(error).unwrap_or_default();
    if !full.is_empty() && full.len() <= ANSWER_SIZE {
        return channel.publish(State::Failed, &full);
    }
    let short = Error::new(error.kind, error.message.chars().take(1000).collect::<String>());
    channel.publish(State::Failed, &serde_json::to_string(&short).unwrap_or_default());
}
