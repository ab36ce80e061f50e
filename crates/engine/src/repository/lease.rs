//! One writer per cluster. FORMAT.md, section "Lease".
//!
//! What: each writer puts a ticket with a name of its own, `lease.json.<token>`, beside those of others. It holds the
//! lease once it has listed the folder *after* that and found no ticket but its own: of two writers at least one sees
//! the other. The holder renews its ticket and removes it when done.
//! Why: a ticket's name is never used again, so whoever removes a dead one removes nothing else, however late.
//! Who is dead: on the same machine a process that is gone. On another machine nobody is for sure, so a ticket must be
//! old by the store's own clock (no host's clock is compared with another's), and then stay as it is for longer than a
//! living holder would let it, by our own clock.
//! Rejected: one file that is taken over by deleting it, since the delete of a slow contender hits the next holder;
//! compare-and-swap, which the local store does not offer; file locks, which do not reach other machines.

use super::layout;
use super::process;
pub use super::process::{Life, host_name};
use super::storage::Storage;
use chrono::{DateTime, Utc};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a lease is promised ahead, in seconds.
pub const LIFETIME: i64 = 60;
/// How often the holder renews it, in seconds.
pub const RENEW_EVERY: u64 = 15;
/// How much longer than its lifetime a lease may be silent before another machine may look for its end, in seconds.
pub const CLOCK_SKEW: i64 = 300;
/// How much a reader's clock may differ from the store's, in seconds: it has nothing else, since it may not write.
const READER_SKEW: i64 = 900;
/// After so long without a renewal the holder itself gives up. Below [`LIFETIME`] + [`CLOCK_SKEW`], above what a file
/// server needs to come back.
const VALID: Duration = Duration::from_secs(240);
/// How long a silent lease of another machine is watched for a sign of life: a living holder gives four in that time.
pub const WATCH: Duration = Duration::from_secs(75);
/// Time between two looks at others.
const LOOK: Duration = Duration::from_millis(50);
/// Looks at others that want the lease at the same time.
const LOOKS: u32 = 60;
const MAX_LEASE: u64 = 64 << 10;

/// Content of a ticket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Major version of the format.
    pub format: u32,
    /// Unique for each acquisition.
    pub token: String,
    /// What the holder does: the backup's name.
    pub purpose: String,
    /// Machine, for people.
    pub host: String,
    /// Boot and process namespace: within it `pid` and `pid_start` name one process. Empty when they name none.
    pub machine: String,
    /// Process ID of the holder.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot.
    pub pid_start: u64,
    /// RFC 3339, by the holder's clock.
    pub acquired_at: DateTime<Utc>,
    /// RFC 3339, by the holder's clock; the holder moves it forward.
    pub expires_at: DateTime<Utc>,
    /// When it was written, by the store's clock.
    #[serde(skip)]
    modified: DateTime<Utc>,
    /// Where it is stored.
    #[serde(skip)]
    path: String,
    /// Why its content cannot be read: all that is known about it is its name and its age.
    #[serde(skip)]
    pub unreadable: Option<Error>,
}

impl Lease {
    fn new(purpose: &str) -> Self {
        let (now, pid) = (Utc::now(), std::process::id());
        let (machine, pid_start) = process::identity(pid);
        Lease {
            format: super::record::FORMAT,
            token: uuid::Uuid::new_v4().to_string(),
            purpose: purpose.to_string(),
            host: host_name(),
            machine,
            pid,
            pid_start,
            acquired_at: now,
            expires_at: now + chrono::Duration::seconds(LIFETIME),
            modified: now,
            path: String::new(),
            unreadable: None,
        }
    }

    /// Stands for a ticket that cannot be read: one of another machine, as far as anybody knows.
    fn unreadable(path: &str, modified: DateTime<Utc>, why: Error) -> Self {
        Lease {
            format: super::record::FORMAT,
            token: path.rsplit('/').next().unwrap_or_default().to_string(),
            purpose: String::new(),
            host: "unknown".to_string(),
            machine: String::new(),
            pid: 0,
            pid_start: 0,
            acquired_at: modified,
            expires_at: modified,
            modified,
            path: path.to_string(),
            unreadable: Some(why),
        }
    }

    /// What can be known about the holder from here.
    pub fn life(&self) -> Life {
        match process::life(&self.machine, self.pid, self.pid_start) {
            // A ticket that this process gave up and could not remove.
            Life::Alive if self.pid == std::process::id() && !held().contains(&self.token) => Life::Dead,
            life => life,
        }
    }

    /// Whether the holder may still be at work: a reader's estimate. For another machine it counts by the reader's
    /// clock, generously.
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        match self.life() {
            Life::Alive => true,
            Life::Dead => false,
            Life::Elsewhere => now < self.modified + chrono::Duration::seconds(LIFETIME + READER_SKEW),
        }
    }
}

/// Every ticket beside `path`.
fn tickets(storage: &Storage, path: &str) -> Result<Vec<Lease>> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    for at in storage.files(folder)? {
        // Without a folder, paths of files begin with a slash.
        let at = at.trim_start_matches('/');
        if at.starts_with(path) {
            found.extend(look(storage, at)?);
        }
    }
    Ok(found)
}

/// The ticket at `path`. One that is none (damaged, no file, a link) must not stop backups for ever: it counts by its
/// age, as one of another machine does.
fn look(storage: &Storage, path: &str) -> Result<Option<Lease>> {
    let why = match storage.is_link(path) {
        true => Error::new(ErrorKind::Corrupt, format!("\"{}\" is a link", storage.display(path))),
        false => match load(storage, path) {
            Err(e) if e.kind == ErrorKind::Corrupt => e,
            other => return other,
        },
    };
    Ok(storage.changed(path)?.map(|modified| Lease::unreadable(path, modified, why)))
}

fn load(storage: &Storage, path: &str) -> Result<Option<Lease>> {
    let Some((bytes, modified)) = storage.get_dated(path, MAX_LEASE)? else { return Ok(None) };
    let lease: Lease = super::record::parse_json(&bytes, &storage.display(path)).map_err(|e| {
        e.hint("It says who writes backups. If no backup of this cluster runs, remove the file.")
    })?;
    Ok(Some(Lease { modified, path: path.to_string(), ..lease }))
}

/// The lease at `path`, if anybody has one: that of a living holder before that of a dead one.
///
/// # Errors
/// What the store said. A ticket that cannot be read is there too ([`Lease::unreadable`]).
pub fn read(storage: &Storage, path: &str) -> Result<Option<Lease>> {
    let now = Utc::now();
    Ok(tickets(storage, path)?.into_iter().min_by_key(|lease| (!lease.is_alive(now), lease.acquired_at)))
}

/// The lease at `path` that is held for `purpose`.
///
/// # Errors
/// As [`read`].
pub fn held_for(storage: &Storage, path: &str, purpose: &str) -> Result<Option<Lease>> {
    Ok(tickets(storage, path)?.into_iter().find(|lease| lease.purpose == purpose))
}

/// Takes the lease at `path`. `pause` sleeps, and fails when there is no more use in it.
///
/// # Errors
/// `Busy`, naming the holder, while another writer is alive or may be.
pub fn acquire(
    storage: &Storage,
    path: &str,
    purpose: &str,
    pause: &dyn Fn(Duration) -> Result<()>,
) -> Result<HeldLease> {
    enter(storage, path, Lease::new(purpose), pause, WATCH)
}

fn enter(
    storage: &Storage,
    path: &str,
    lease: Lease,
    pause: &dyn Fn(Duration) -> Result<()>,
    watch: Duration,
) -> Result<HeldLease> {
    for other in tickets(storage, path)? {
        remove_if_dead(storage, &other, pause, watch)?;
    }
    let token = lease.token.clone();
    let held = HeldLease::put(storage, path, lease)?;
    let mut first = None;
    for _ in 0..LOOKS {
        match rival(storage, path, &token)? {
            None => return held.prove().map(|()| held),
            // Of two that came at the same time, one gives way and the other waits for that.
            Some(rival) if rival.token < token => return Err(busy(storage, &rival)),
            Some(rival) => first = Some(rival),
        }
        pause(LOOK)?;
    }
    Err(first.map_or_else(|| lost(storage, path), |rival| busy(storage, &rival)))
}

/// Somebody else who holds the lease or wants it; an error when the own ticket is not there.
fn rival(storage: &Storage, path: &str, own: &str) -> Result<Option<Lease>> {
    let found = tickets(storage, path)?;
    if !found.iter().any(|lease| lease.token == own) {
        return Err(lost(storage, path));
    }
    let mut rivals = Vec::new();
    for other in found.into_iter().filter(|lease| lease.token != own) {
        match other.life() {
            Life::Dead => storage.delete(&other.path)?,
            Life::Alive | Life::Elsewhere => rivals.push(other),
        }
    }
    Ok(rivals.into_iter().min_by(|a, b| a.token.cmp(&b.token)))
}

/// Removes the ticket of a dead holder.
///
/// # Errors
/// `Busy` when it is alive, or may be.
fn remove_if_dead(
    storage: &Storage,
    lease: &Lease,
    pause: &dyn Fn(Duration) -> Result<()>,
    watch: Duration,
) -> Result<()> {
    match lease.life() {
        Life::Alive => return Err(busy(storage, lease)),
        Life::Dead => {}
        Life::Elsewhere => {
            let silent = storage.clock()?.signed_duration_since(lease.modified).num_seconds();
            // One that is far ahead of the store's clock says nothing: that clock was set back.
            if silent.abs() <= LIFETIME + CLOCK_SKEW {
                return Err(busy(storage, lease));
            }
            let begun = boot_time();
            while boot_time().saturating_sub(begun) < watch {
                pause(Duration::from_secs(1).min(watch))?;
                match look(storage, &lease.path)? {
                    None => return Ok(()),
                    Some(now) if now != *lease => return Err(busy(storage, &now)),
                    Some(_) => {}
                }
            }
        }
    }
    storage.delete(&lease.path)
}

/// Tokens of the tickets that this process stands by.
fn held() -> MutexGuard<'static, BTreeSet<String>> {
    static HELD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lease that this process holds. Dropped, it is released.
pub struct HeldLease {
    storage: Storage,
    state: Mutex<State>,
}

struct State {
    lease: Lease,
    /// When it was last proved, by a clock that also runs while the machine sleeps.
    proved: Duration,
    lost: bool,
}

impl HeldLease {
    fn put(storage: &Storage, path: &str, mut lease: Lease) -> Result<Self> {
        let proved = boot_time();
        lease.path = format!("{path}.{}", lease.token);
        let json = to_json(&lease)?;
        let at = lease.path.clone();
        held().insert(lease.token.clone());
        // First, so that also a ticket is removed whose storing only seemed to fail.
        let state = Mutex::new(State { lease, proved, lost: false });
        let held = HeldLease { storage: storage.clone(), state };
        storage.put(&at, json)?;
        Ok(held)
    }

    /// Moves the expiry forward.
    ///
    /// # Errors
    /// `Busy` when somebody else has taken it over meanwhile, or could have: the caller must stop.
    pub fn renew(&self) -> Result<()> {
        let mut state = self.lock();
        let begun = boot_time();
        if state.lost || begun.saturating_sub(state.proved) > VALID {
            state.lost = true;
            return Err(lost(&self.storage, &state.lease.path));
        }
        match load(&self.storage, &state.lease.path)? {
            Some(current) if current.token == state.lease.token => {}
            _ => {
                state.lost = true;
                return Err(lost(&self.storage, &state.lease.path));
            }
        }
        state.lease.expires_at = Utc::now() + chrono::Duration::seconds(LIFETIME);
        self.storage.put(&state.lease.path, to_json(&state.lease)?)?;
        if boot_time().saturating_sub(state.proved) > VALID {
            state.lost = true;
            return Err(lost(&self.storage, &state.lease.path));
        }
        state.proved = begun;
        Ok(())
    }

    /// Fails unless the lease is held now, and for a while from now on.
    ///
    /// # Errors
    /// As [`HeldLease::renew`]; what the store said: then nothing is proved.
    pub fn prove(&self) -> Result<()> {
        // A store may fail for a moment.
        match self.renew() {
            Err(e) if e.kind != ErrorKind::Busy => self.renew(),
            other => other,
        }
    }

    /// Whether the lease is no longer valid: it could not be renewed in time, or was taken over.
    pub fn is_expired(&self) -> bool {
        let state = self.lock();
        state.lost || boot_time().saturating_sub(state.proved) > VALID
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        // A ticket that cannot be removed now is recognised as dead by whoever comes next.
        let (path, token) = {
            let state = self.lock();
            (state.lease.path.clone(), state.lease.token.clone())
        };
        let _ = self.storage.delete(&path).or_else(|_| self.storage.delete(&path));
        held().remove(&token);
    }
}

/// Removes the tickets at `path` whose holders are known to be dead. Those of other machines stay.
///
/// # Errors
/// What the store said.
pub fn release_dead(storage: &Storage, path: &str) -> Result<()> {
    let dead = tickets(storage, path)?.into_iter().filter(|lease| lease.life() == Life::Dead);
    dead.into_iter().try_for_each(|lease| storage.delete(&lease.path))
}

/// The error for somebody who wants what `holder` has.
pub fn busy(storage: &Storage, holder: &Lease) -> Error {
    let purpose = holder.purpose.escape_debug();
    if let Some(why) = &holder.unreadable {
        return Error::new(
            ErrorKind::Busy,
            format!("somebody may be writing a backup: the lease \"{}\" cannot be read", storage.display(&holder.path)),
        )
        .detail(why)
        .hint(format!(
            "If no backup of this cluster runs anywhere, remove the file; else wait: it ends by itself in {} minutes, and the next backup then takes over.",
            minutes_left(storage, holder).1
        ));
    }
    let what = match layout::is_backup_name(&holder.purpose) {
        true => format!("backup \"{purpose}\" is running"),
        false => format!("\"{purpose}\" is at work"),
    };
    let message = format!(
        "{what} on host \"{}\" (process {}, since {})",
        holder.host.escape_debug(),
        holder.pid,
        holder.acquired_at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    let error = Error::new(ErrorKind::Busy, message);
    let is_backup = layout::is_backup_name(&holder.purpose);
    if holder.life() != Life::Elsewhere {
        return error.hint(match is_backup {
            true => "Wait for it, or stop it with ark.backup_stop.",
            false => "Wait until it has ended, then try again.",
        });
    }
    let (silent, minutes) = minutes_left(storage, holder);
    let wait = match is_backup {
        true => "Wait for it, or call ark.backup_stop on that host's server.",
        false => "Wait until it has ended, then try again.",
    };
    error.detail(format!("Its lease was last renewed {} seconds ago.", silent.max(0))).hint(format!(
        "{wait} If that host is gone for good, the lease ends by itself in {minutes} minutes: the next backup then takes over."
    ))
}

/// For how many seconds a ticket has been silent, and in how many minutes it may be looked upon as dead.
fn minutes_left(storage: &Storage, holder: &Lease) -> (i64, i64) {
    let silent = storage.clock().map_or(0, |now| now.signed_duration_since(holder.modified).num_seconds());
    (silent, (LIFETIME + CLOCK_SKEW - silent).clamp(0, LIFETIME + 2 * CLOCK_SKEW) / 60 + 1)
}

fn lost(storage: &Storage, path: &str) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "the lease \"{}\" was lost: it was removed, or could not be renewed in time",
            storage.display(path)
        ),
    )
    .hint("Another server may have taken over. See what it does, then try again.")
}

fn to_json(lease: &Lease) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(lease)
        .map_err(|e| Error::new(ErrorKind::Internal, "could not write a lease as JSON").detail(e))
}

/// Time since boot, that of sleep included. No one sets this clock.
fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
