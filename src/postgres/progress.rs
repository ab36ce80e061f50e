//! What the monitoring views show of a backup: `pg_stat_progress_basebackup` and `pg_stat_activity`; and what `ps` shows
//! of a session that waits.

use pgrx::pg_sys;
use std::ffi::CString;

/// Phase as `pg_stat_progress_basebackup` names it (`PROGRESS_BASEBACKUP_PHASE_*`, commands/progress.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// waiting for checkpoint to finish
    WaitCheckpoint = 1,
    /// estimating backup size
    EstimateSize = 2,
    /// streaming database files
    Stream = 3,
    /// waiting for wal archiving to finish
    WaitArchive = 4,
    /// transferring wal files
    TransferWal = 5,
}

/// A row of `pg_stat_progress_basebackup`, there for as long as the guard.
pub struct Row(());

impl Row {
    /// Adds the row of this process.
    pub fn start() -> Row {
        // SAFETY: writes this process's own entry in shared memory.
        unsafe {
            pg_sys::pgstat_progress_start_command(
                pg_sys::ProgressCommandType::PROGRESS_COMMAND_BASEBACKUP,
                pg_sys::InvalidOid,
            );
        }
        let row = Row(());
        // A negative total shows as NULL: not known yet.
        row.set(&[(pg_sys::PROGRESS_BASEBACKUP_BACKUP_TOTAL, -1)]);
        row
    }

    /// Shows `phase`.
    pub fn phase(&self, phase: Phase) {
        self.set(&[(pg_sys::PROGRESS_BASEBACKUP_PHASE, phase as i64)]);
    }

    /// Shows bytes and tablespaces: done and in all.
    pub fn amount(&self, bytes: (u64, u64), tablespaces: (u32, u32)) {
        self.set(&[
            (pg_sys::PROGRESS_BASEBACKUP_BACKUP_STREAMED, signed(bytes.0)),
            (pg_sys::PROGRESS_BASEBACKUP_BACKUP_TOTAL, signed(bytes.1)),
            (pg_sys::PROGRESS_BASEBACKUP_TBLSPC_STREAMED, i64::from(tablespaces.0)),
            (pg_sys::PROGRESS_BASEBACKUP_TBLSPC_TOTAL, i64::from(tablespaces.1)),
        ]);
    }

    fn set(&self, values: &[(u32, i64)]) {
        let (indexes, values): (Vec<i32>, Vec<i64>) =
            values.iter().map(|(index, value)| (*index as i32, *value)).unzip();
        // SAFETY: both arrays have as many elements as is said.
        unsafe {
            pg_sys::pgstat_progress_update_multi_param(
                indexes.len() as i32,
                indexes.as_ptr(),
                values.as_ptr(),
            );
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        // SAFETY: writes this process's own entry in shared memory.
        unsafe { pg_sys::pgstat_progress_end_command() }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Shows `activity` as the query of this worker in `pg_stat_activity`.
pub fn activity(activity: &str) {
    report(activity, pg_sys::BackendState::STATE_RUNNING);
}

/// As [`activity`], for a worker that waits for work: it is shown as idle.
pub fn idle(activity: &str) {
    report(activity, pg_sys::BackendState::STATE_IDLE);
}

fn report(activity: &str, state: pg_sys::BackendState::Type) {
    let Ok(text) = CString::new(activity) else { return };
    // SAFETY: the text is copied into this process's own entry in shared memory.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) }
}

/// What `ps` shows of this session, with more behind it: `postgres: me mydb [local] SELECT 37 % of 2.0 GB`. The guard
/// puts back what was there. Nothing else tells a session's progress honestly: the server's progress views are about
/// its own commands, and another query text would hide the one that runs.
pub struct Title {
    before: Vec<u8>,
}

impl Title {
    /// Remembers what `ps` shows now.
    pub fn start() -> Title {
        let mut length = 0;
        // SAFETY: gives a pointer into the server's own buffer and its length; the bytes are copied at once.
        let before = unsafe {
            let text = pg_sys::get_ps_display(&mut length);
            match usize::try_from(length) {
                Ok(length) if !text.is_null() => std::slice::from_raw_parts(text.cast(), length).to_vec(),
                _ => Vec::new(),
            }
        };
        Title { before }
    }

    /// Shows `text` behind it.
    pub fn show(&self, text: &str) {
        let mut title = self.before.trim_ascii_end().to_vec();
        title.push(b' ');
        title.extend_from_slice(text.as_bytes());
        show_title(title);
    }
}

impl Drop for Title {
    fn drop(&mut self) {
        show_title(std::mem::take(&mut self.before));
    }
}

fn show_title(title: Vec<u8>) {
    let Ok(title) = CString::new(title) else { return };
    // SAFETY: the server copies the text, as much of it as there is room for.
    unsafe { pg_sys::set_ps_display(title.as_ptr()) }
}
