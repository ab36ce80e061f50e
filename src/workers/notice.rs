//! NOTIFY on channel `pg_ark`: what came of a backup or of a scheduled job, as JSON.
//!
//! `{"event": "finished", "job": "daily full", "backup": "20261122T020000Z-full", "message": "...", "at": "..."}`, where
//! `event` is `finished`, `failed`, `gap` or `damage`. `job` is null for a backup that was started by hand, `backup` for
//! what is none. Sessions hear it that LISTEN in the database that the worker is connected to: `pg_ark.database`.

use crate::postgres::{process, transaction, wal, worker};
use crate::{sql, translate};
use pg_ark_contract::Error;

/// The channel.
const CHANNEL: &str = "pg_ark";
/// Characters of a message: a payload holds fewer than 8000 bytes (`NOTIFY_PAYLOAD_MAX_LENGTH`, commands/async.c).
const MESSAGE_MAX: usize = 1_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It did what it should.
    Finished,
    /// It did not.
    Failed,
    /// The archive has a hole.
    Gap,
    /// Data is damaged, at the source or in the repository.
    Damage,
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Event::Finished => "finished",
            Event::Failed => "failed",
            Event::Gap => "gap",
            Event::Damage => "damage",
        }
    }
}

/// Tells those who listen. A standby cannot, and a worker that has no database yet; a failure is a WARNING.
pub fn send(event: Event, job: Option<&str>, backup: Option<&str>, message: &str) {
    if !worker::is_connected() || wal::in_recovery() {
        return;
    }
    let payload = payload(event, job, backup, message);
    let sent = transaction::run(|| sql::text("SELECT pg_notify($1, $2)::text", &[CHANNEL, &payload]));
    if let Err(error) = sent {
        translate::warn_error("pg_ark: could not notify", &error);
    }
}

/// [`Event::Failed`] with an error.
pub fn send_failure(job: Option<&str>, backup: Option<&str>, error: &Error) {
    send(Event::Failed, job, backup, &error.to_string());
}

fn payload(event: Event, job: Option<&str>, backup: Option<&str>, message: &str) -> String {
    serde_json::json!({
        "event": event.as_str(),
        "job": job,
        "backup": backup,
        "message": message.chars().take(MESSAGE_MAX).collect::<String>(),
        "at": process::utc_now(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_fits_whatever_the_message() {
        for message in ["\u{1}".repeat(100_000), "\u{10FFFF}".repeat(100_000)] {
            let text = payload(Event::Failed, Some(&"x".repeat(63)), Some("20261122T020000Z-full"), &message);
            assert!(text.len() < 8_000, "{}", text.len());
        }
        let text = payload(Event::Damage, None, None, "x");
        assert!(text.contains(r#""event":"damage""#) && text.contains(r#""job":null"#), "{text}");
    }
}
