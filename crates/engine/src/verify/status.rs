//! What the repository contributes to `ark.status`: cheap enough to be asked every few seconds.

use crate::postgres::wal_segment::SegmentName;
use crate::repository::Record;
use crate::wal::archive::Archive;
use crate::wal::line::{Piece, Stretch};
use crate::wal::moments::{Moments, is_damage, shown_time};
use crate::wal::survey::Run;
use chrono::{DateTime, Utc};
use pg_ark_contract::rows::{BackupStatus, StatusRow};
use pg_ark_contract::{Result, SegmentSize, Timeline};

/// Folders of the archive that are listed in search of the last commit.
const MAX_FOLDERS: usize = 16;

/// The last backup and the end of the archive.
///
/// # Errors
/// What the store or `check` said.
pub fn status(
    records: &[Record],
    archive: Option<&Archive>,
    check: &dyn Fn() -> Result<()>,
) -> Result<StatusRow> {
    let mut row = StatusRow {
        last_backup: last_backup(records, |_| true).map(Record::row),
        last_clean_backup: last_backup(records, |record| record.damaged_pages == 0).map(Record::row),
        last_segment: None,
        archive_end_lsn: None,
        archive_end_time: None,
        window: None,
        failed_backup: None,
        free_bytes: None,
        backup_bytes: 0,
        backups: 0,
        pruned_at: None,
    };
    let Some(archive) = archive else { return Ok(row) };
    let Some((size, stretch)) = newest(archive, check)? else { return Ok(row) };
    let Some(last) = stretch.segment(stretch.last()) else { return Ok(row) };
    row.last_segment = Some(last.file_name(size));
    row.archive_end_lsn = Some(last.next().start(size));
    row.archive_end_time = match Moments::new(archive, size).with_check(check).end(&stretch) {
        Ok(moment) => moment.time.and_then(shown_time),
        Err(e) if is_damage(&e) => None,
        Err(e) => return Err(e),
    };
    Ok(row)
}

/// The complete backup that finished last of those that `count`; backups that overlap may finish in another order than
/// they start.
fn last_backup(records: &[Record], count: fn(&Record) -> bool) -> Option<&Record> {
    let finished = |record: &&Record| {
        let text = record.finished_at.as_deref()?;
        DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
    };
    let counts = |record: &&Record| record.status == BackupStatus::Complete && count(record);
    records.iter().filter(counts).max_by_key(finished)
}

/// The newest segments of the newest timeline that has any, as far back as a few folders without a gap.
fn newest(archive: &Archive, check: &dyn Fn() -> Result<()>) -> Result<Option<(SegmentSize, Stretch)>> {
    for timeline in archive.timelines()?.into_iter().rev() {
        let mut found: Option<(SegmentSize, Run)> = None;
        for log in archive.logs(timeline)?.into_iter().rev().take(MAX_FOLDERS) {
            check()?;
            for low in archive.list(timeline, log)?.segments.into_iter().rev() {
                let name = format!("{:08X}{log:08X}{low:08X}", timeline.0);
                match &mut found {
                    None => {
                        let Some(size) = archive.segment_size()? else { return Ok(None) };
                        found = SegmentName::parse(&name, size)
                            .map(|name| (size, Run { first: name.number, last: name.number }));
                    }
                    Some((size, run)) => match SegmentName::parse(&name, *size) {
                        Some(name) if name.number + 1 == run.first => run.first = name.number,
                        _ => return Ok(Some((*size, stretch(timeline, *run)))),
                    },
                }
            }
        }
        if let Some((size, run)) = found {
            return Ok(Some((size, stretch(timeline, run))));
        }
    }
    Ok(None)
}

fn stretch(timeline: Timeline, run: Run) -> Stretch {
    Stretch { pieces: vec![Piece { timeline, run }] }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
