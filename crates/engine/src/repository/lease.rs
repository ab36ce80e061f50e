//! One writer per cluster. FORMAT.md, section "Lease".
//!
//! What: `lease.json` is created if absent and removed when done. Its holder renews it; a lease whose holder is known
//! to be dead (same machine, process gone) is taken over at once, any other when it has been expired for a while.
//! Why: a take-over first creates a tombstone named after the old lease's token, which only one contender can do.
//! Rejected: compare-and-swap, which the local store does not offer; file locks, which do not reach other machines.

use super::storage::Storage;
use chrono::{DateTime, Duration, Utc};
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// How long a lease lives without renewal, in seconds.
pub const LIFETIME: i64 = 60;
/// How often the holder renews it, in seconds.
pub const RENEW_EVERY: u64 = 15;
/// How much other machines' clocks may differ, in seconds.
pub const CLOCK_SKEW: i64 = 300;

const MAX_LEASE: u64 = 64 << 10;

/// Content of `lease.json`.
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
    /// Boot and process namespace: within it `pid` and `pid_start` name one process.
    pub machine: String,
    /// Process ID of the holder.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot.
    pub pid_start: u64,
    /// RFC 3339.
    pub acquired_at: DateTime<Utc>,
    /// RFC 3339; the holder moves it forward.
    pub expires_at: DateTime<Utc>,
}

impl Lease {
    /// Whether the holder may still be at work.
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        if self.machine == machine() {
            return process_start(self.pid) == Some(self.pid_start);
        }
        now < self.expires_at + Duration::seconds(CLOCK_SKEW)
    }
}

/// A lease that this process holds. Dropped, it is released.
pub struct HeldLease {
    storage: Storage,
    path: String,
    lease: std::sync::Mutex<Lease>,
}

/// Reads the lease at `path`, if there is one.
///
/// # Errors
/// `Corrupt` when it is no lease.
pub fn read(storage: &Storage, path: &str) -> Result<Option<Lease>> {
    match storage.get(path, MAX_LEASE)? {
        Some(bytes) => super::record::parse_json(&bytes, &storage.display(path)).map(Some).map_err(|e| {
            e.hint("It says who writes backups. If no backup of this cluster runs, remove the file.")
        }),
        None => Ok(None),
    }
}

/// Takes the lease at `path`.
///
/// # Errors
/// `Busy`, naming the holder, while another writer is alive.
pub fn acquire(storage: &Storage, path: &str, purpose: &str) -> Result<HeldLease> {
    let now = Utc::now();
    let lease = Lease {
        format: super::record::FORMAT,
        token: uuid::Uuid::new_v4().to_string(),
        purpose: purpose.to_string(),
        host: host_name(),
        machine: machine(),
        pid: std::process::id(),
        pid_start: process_start(std::process::id()).unwrap_or_default(),
        acquired_at: now,
        expires_at: now + Duration::seconds(LIFETIME),
    };
    let json = to_json(&lease)?;
    for _ in 0..3 {
        if storage.create(path, json.clone())? {
            return Ok(HeldLease {
                storage: storage.clone(),
                path: path.to_string(),
                lease: std::sync::Mutex::new(lease),
            });
        }
        let Some(old) = read(storage, path)? else { continue };
        if old.is_alive(Utc::now()) {
            return Err(busy(&old));
        }
        bury(storage, path, &old)?;
    }
    Err(Error::new(ErrorKind::Busy, format!("could not take the lease \"{}\"", storage.display(path)))
        .hint("Another writer takes it at the same time; try again."))
}

/// Removes a dead lease: who creates the tombstone may. One that is old was left by a contender that died.
fn bury(storage: &Storage, path: &str, old: &Lease) -> Result<()> {
    let token: String =
        old.token.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    let tombstone = format!("{path}.dead-{token}");
    let now = Utc::now();
    if !storage.create(&tombstone, now.to_rfc3339().into_bytes())? {
        let made = storage.get(&tombstone, MAX_LEASE)?.and_then(|text| {
            DateTime::parse_from_rfc3339(std::str::from_utf8(&text).ok()?).ok().map(|time| time.to_utc())
        });
        return match made {
            Some(made) if (now - made).abs() < Duration::seconds(LIFETIME) => Err(Error::new(
                ErrorKind::Busy,
                format!("another writer is taking over the lease \"{}\"", storage.display(path)),
            )
            .hint("Try again in a minute.")),
            _ => storage.delete(&tombstone),
        };
    }
    if read(storage, path)?.is_some_and(|now| now.token == old.token) {
        storage.delete(path)?;
    }
    storage.delete(&tombstone)
}

impl HeldLease {
    /// Moves the expiry forward.
    ///
    /// # Errors
    /// `Busy` when somebody else has taken it over meanwhile: the caller must stop.
    pub fn renew(&self) -> Result<()> {
        let mut lease = self.lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match read(&self.storage, &self.path)? {
            Some(current) if current.token == lease.token => {}
            Some(current) => return Err(busy(&current)),
            None => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("the lease \"{}\" was removed", self.storage.display(&self.path)),
                ));
            }
        }
        lease.expires_at = Utc::now() + Duration::seconds(LIFETIME);
        self.storage.put(&self.path, to_json(&lease)?)
    }

    /// Whether the lease is no longer valid: it could not be renewed in time.
    pub fn is_expired(&self) -> bool {
        let lease = self.lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Utc::now() > lease.expires_at
    }

    fn release(&self) -> Result<()> {
        let lease = self.lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match read(&self.storage, &self.path)? {
            Some(current) if current.token == lease.token => self.storage.delete(&self.path),
            _ => Ok(()),
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        // A lease that cannot be removed now is recognised as dead by whoever comes next.
        let _ = self.release();
    }
}

/// Removes the lease at `path` if its holder is dead.
///
/// # Errors
/// What the store said.
pub fn release_dead(storage: &Storage, path: &str) -> Result<()> {
    match read(storage, path)? {
        Some(lease) if !lease.is_alive(Utc::now()) => bury(storage, path, &lease),
        _ => Ok(()),
    }
}

fn busy(holder: &Lease) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "backup \"{}\" is running on host \"{}\" (process {}, since {})",
            holder.purpose.escape_debug(),
            holder.host.escape_debug(),
            holder.pid,
            holder.acquired_at.format("%Y-%m-%d %H:%M:%S UTC")
        ),
    )
    .hint("Wait for it, or stop it with ark.backup_stop. If that host is gone for good, its lease ends by itself a few minutes after its last sign of life.")
}

fn to_json(lease: &Lease) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(lease)
        .map_err(|e| Error::new(ErrorKind::Internal, "could not write a lease as JSON").detail(e))
}

/// The machine's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Boot and process namespace: two processes that agree on it see the same process IDs.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), namespace.display())
}

/// Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); `None` when it is gone or a zombie.
fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, Storage) {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
        (dir, storage)
    }

    #[test]
    fn one_holder_at_a_time() {
        let (_dir, storage) = storage();
        let held = acquire(&storage, "lease.json", "a").unwrap();
        let error = acquire(&storage, "lease.json", "b").err().unwrap();
        assert_eq!(error.kind, ErrorKind::Busy);
        held.renew().unwrap();
        drop(held);
        acquire(&storage, "lease.json", "b").unwrap();
    }

    /// Leaves the lease of a process that is gone.
    fn leave_dead_lease(storage: &Storage) -> Lease {
        let held = acquire(storage, "lease.json", "a").unwrap();
        let mut lease = held.lease.lock().unwrap().clone();
        std::mem::forget(held);
        lease.pid_start += 1;
        storage.put("lease.json", to_json(&lease).unwrap()).unwrap();
        lease
    }

    #[test]
    fn the_dead_hold_nothing() {
        let (_dir, storage) = storage();
        leave_dead_lease(&storage);
        drop(acquire(&storage, "lease.json", "b").unwrap());
        assert!(storage.list("").unwrap().is_empty(), "no tombstone stays behind");
    }

    #[test]
    fn who_buries_is_not_disturbed() {
        let (_dir, storage) = storage();
        let lease = leave_dead_lease(&storage);
        let tombstone = format!("lease.json.dead-{}", lease.token);
        storage.put(&tombstone, Utc::now().to_rfc3339().into_bytes()).unwrap();
        assert_eq!(acquire(&storage, "lease.json", "b").err().unwrap().kind, ErrorKind::Busy);
        let old = Utc::now() - Duration::seconds(LIFETIME + 1);
        storage.put(&tombstone, old.to_rfc3339().into_bytes()).unwrap();
        drop(acquire(&storage, "lease.json", "b").unwrap());
        assert!(storage.list("").unwrap().is_empty());
    }

    #[test]
    fn a_damaged_lease_says_what_to_do() {
        let (_dir, storage) = storage();
        storage.put("lease.json", &b"nonsense"[..]).unwrap();
        let error = acquire(&storage, "lease.json", "b").err().unwrap();
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(error.hint.unwrap().contains("remove the file"));
    }

    #[test]
    fn another_machines_lease_lives_until_it_is_long_expired() {
        let (_dir, storage) = storage();
        let now = Utc::now();
        let mut lease = Lease {
            format: 1,
            token: "t".into(),
            purpose: "p".into(),
            host: "h".into(),
            machine: "elsewhere".into(),
            pid: 1,
            pid_start: 1,
            acquired_at: now,
            expires_at: now - Duration::seconds(CLOCK_SKEW - 10),
        };
        storage.put("lease.json", to_json(&lease).unwrap()).unwrap();
        assert!(acquire(&storage, "lease.json", "b").is_err());
        lease.expires_at = now - Duration::seconds(CLOCK_SKEW + 10);
        storage.put("lease.json", to_json(&lease).unwrap()).unwrap();
        acquire(&storage, "lease.json", "b").unwrap();
    }

    #[test]
    fn a_lost_lease_is_noticed() {
        let (_dir, storage) = storage();
        let held = acquire(&storage, "lease.json", "a").unwrap();
        storage.delete("lease.json").unwrap();
        assert_eq!(held.renew().unwrap_err().kind, ErrorKind::Busy);
    }
}
