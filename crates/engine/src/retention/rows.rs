//! The plan as rows, for people.

use super::model::{Plan, Stored, StoredWal, WalVerdict};
use crate::postgres::timeline::history_file_name;
use crate::postgres::wal_segment::SegmentName;
use crate::repository::Cluster;
use crate::wal::Archive;
use crate::wal::archive::segment_of_object;
use pg_ark_contract::Result;
use pg_ark_contract::retention::{PruneObject, PruneRow, Verdict};

/// One row for each verdict. Bytes of WAL are those of what is dropped: an archive holds millions of segments.
///
/// # Errors
/// What the store or `check` said.
pub(super) fn rows(
    cluster: &Cluster,
    stored: &Stored,
    plan: &Plan,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<PruneRow>> {
    let plain = |object: String, kind, verdict, rule: &str, system_identifier| PruneRow {
        object,
        kind,
        verdict,
        rule: rule.to_string(),
        bytes: None,
        system_identifier,
        timeline: None,
        start_lsn: None,
        end_lsn: None,
    };
    let mut rows = Vec::new();
    for verdict in &plan.backups {
        let Some(backup) = stored.backups.get(verdict.index) else { continue };
        let name = backup.backup.clone();
        let row = plain(name, PruneObject::Backup, verdict.verdict, &verdict.rule, backup.system);
        rows.push(PruneRow { bytes: Some(backup.bytes), ..row });
    }
    for verdict in &plan.wal {
        let Some(wal) = stored.wal.get(&verdict.system) else { continue };
        let size = wal.segment_size;
        let name = |number| SegmentName { timeline: verdict.timeline, number }.file_name(size);
        let object = match verdict.run.first == verdict.run.last {
            true => name(verdict.run.first),
            false => format!("{}..{}", name(verdict.run.first), name(verdict.run.last)),
        };
        let bytes = match verdict.verdict {
            Verdict::Keep => None,
            Verdict::Drop => Some(bytes_of(&Archive::of(cluster, verdict.system), wal, verdict, check)?),
        };
        let row = plain(object, PruneObject::Wal, verdict.verdict, &verdict.rule, verdict.system);
        rows.push(PruneRow {
            bytes,
            timeline: Some(verdict.timeline),
            start_lsn: Some(size.start_of(verdict.run.first)),
            end_lsn: Some(size.start_of(verdict.run.last.saturating_add(1))),
            ..row
        });
    }
    for verdict in &plan.histories {
        let name = history_file_name(verdict.timeline);
        let row = plain(name, PruneObject::History, verdict.verdict, &verdict.rule, verdict.system);
        rows.push(PruneRow { timeline: Some(verdict.timeline), ..row });
    }
    Ok(rows)
}

/// Stored bytes of a run, with what lies beside its segments.
fn bytes_of(
    archive: &Archive,
    wal: &StoredWal,
    verdict: &WalVerdict,
    check: &dyn Fn() -> Result<()>,
) -> Result<u64> {
    let per_log = (1u64 << 32) / wal.segment_size.bytes();
    let logs = verdict.run.first / per_log..=verdict.run.last / per_log;
    let mut bytes = 0u64;
    for log in archive.logs(verdict.timeline)?.into_iter().filter(|log| logs.contains(&u64::from(*log))) {
        check()?;
        for object in archive.storage().list(&archive.log_folder(verdict.timeline, log))? {
            let name = object.path.rsplit('/').next().unwrap_or_default();
            let of = segment_of_object(name, wal.segment_size);
            if of.is_some_and(|(of, _)| {
                of.timeline == verdict.timeline && (verdict.run.first..=verdict.run.last).contains(&of.number)
            }) {
                bytes = bytes.saturating_add(object.size);
            }
        }
    }
    Ok(bytes)
}
