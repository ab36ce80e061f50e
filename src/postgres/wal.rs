//! Positions in the WAL.

use pg_ark_contract::{Lsn, Timeline};
use pgrx::pg_sys;

/// True while the server recovers or is a standby.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The identifier of this cluster, from pg_control.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// Begin of the last record that was more than housekeeping; None in recovery.
pub fn last_important() -> Option<Lsn> {
    if in_recovery() {
        return None;
    }
    // SAFETY: takes and gives back locks of shared memory.
    Some(Lsn(unsafe { pg_sys::GetLastImportantRecPtr() }))
}

/// WAL that will not be lost: flushed, or on a standby replayed; and its timeline.
pub fn durable_position() -> (Lsn, Timeline) {
    let mut timeline: pg_sys::TimeLineID = 0;
    let lsn = if in_recovery() {
        // SAFETY: reads shared memory and fills `timeline`.
        unsafe { pg_sys::GetXLogReplayRecPtr(&mut timeline) }
    } else {
        // SAFETY: as above; recovery is over, as this function demands.
        unsafe { pg_sys::GetFlushRecPtr(&mut timeline) }
    };
    (Lsn(lsn), Timeline(timeline))
}
