//! `latest` passes over backups whose record is damaged or gone: what that may cost is told, and what it would cost for
//! sure is refused.

use super::choice::Course;
use super::target::Target;
use crate::repository::Cluster;
use crate::stored::lost::{self, Lost, NAMED};
use pg_ark_contract::Result;

/// What the user should know about backups that began after the chosen one and cannot be used.
///
/// # Errors
/// Why they cannot be used, where there are such backups and recovery ends with the chosen one: no archived WAL leads beyond it, or the
/// target is `immediate`. What the store said.
pub fn check(
    cluster: &Cluster,
    system_identifier: u64,
    course: &Course<'_>,
    target: &Target,
) -> Result<Vec<String>> {
    let record = course.record;
    let lost = lost::later(cluster, system_identifier, &record.backup)?;
    let own = record.stop_lsn.map_or(0, |stop| record.wal_segment_size.last_segment_before(stop));
    let goes_on = course.stretch.as_ref().is_some_and(|stretch| stretch.last() > own);
    let ends_here = match target {
        Target::Immediate => true,
        Target::Latest => !goes_on,
        // They are reached, or refused.
        Target::Time(_) | Target::Lsn(_) | Target::Xid(_) | Target::Name(_) => false,
    };
    if lost.is_empty() || !ends_here {
        return Ok(remarks(&lost, &record.backup));
    }
    let reason = match target {
        Target::Immediate => ", and the target is the end of a backup",
        _ => ", and no archived WAL leads beyond it",
    };
    let remedy = format!(
        "To restore the older backup all the same, without what came after it, name it: pgark restore {}.",
        record.backup
    );
    Err(lost::not_the_latest(&record.backup, &lost, reason, &remedy))
}

fn remarks(lost: &[Lost], chosen: &str) -> Vec<String> {
    let mut remarks: Vec<String> = lost
        .iter()
        .take(NAMED)
        .map(|lost| {
            format!("backup {} began after \"{chosen}\" and CANNOT BE USED; it is passed over", lost.shown())
        })
        .collect();
    if let Some(more @ 1..) = lost.len().checked_sub(NAMED) {
        remarks.push(format!(
            "{more} more backups that began later cannot be used: \"pgark verify\" lists them"
        ));
    }
    remarks
}

#[cfg(test)]
#[path = "passed_over_tests.rs"]
mod tests;
