//! The slow reference: which segments must be kept, and what a repository restores.

use super::reference::Slow;
use super::world::Moment;
use crate::retention::model::BackupState;
use pg_ark_contract::{Lsn, Timeline};
use std::collections::BTreeSet;

impl Slow<'_> {
    /// Whether a stored segment must be kept, when these backups are.
    pub fn needs(
        &self,
        kept: &BTreeSet<usize>,
        bases: &[(usize, Timeline)],
        (system, timeline, number): (u64, Timeline, u64),
    ) -> bool {
        let size = self.stored.wal[&system].segment_size;
        let physical: Vec<usize> =
            self.all().filter(|o| self.backup(*o).system == system && !self.is_logical(*o)).collect();
        let good: Vec<usize> = physical.iter().copied().filter(|o| self.is_good(*o)).collect();
        let mut kept_here = physical.iter().filter(|o| kept.contains(o));
        let unreadable = kept_here.any(|o| self.backup(*o).state == BackupState::Unreadable);
        if unreadable
            || self.lacks_a_history(system)
            || (self.is_newest_system(system) || self.lives_on(system)) && good.is_empty()
        {
            return true;
        }
        let starts_before = |index: usize| {
            let backup = self.backup(index);
            let (from, start) = (backup.timeline.unwrap(), backup.start_lsn.unwrap());
            self.leads(system, from, start, timeline) && size.segment_of(start) <= number
        };
        let of_backup = |index: usize| {
            let stop = self.backup(index).stop_lsn;
            let upto_stop = stop.is_some_and(|stop| number <= size.last_segment_before(stop));
            let failed = self.backup(index).state == BackupState::Failed;
            !failed && starts_before(index) && (self.is_followed(index) || upto_stop)
        };
        if physical.iter().any(|index| kept.contains(index) && of_backup(*index)) {
            return true;
        }
        let on_the_way = |&(index, tip): &(usize, Timeline)| {
            let (from, start, _) = self.span(index).unwrap();
            let history = self.history(system, tip);
            let known = history.contains(timeline) && (tip.0 == 1 || !history.entries.is_empty());
            let passes =
                if known || timeline == tip { true } else { self.leads(system, timeline, Lsn(0), tip) };
            let left = history.end_of(timeline);
            self.backup(index).system == system
                && from <= timeline
                && passes
                && size.segment_of(start) <= number
                && left.is_none_or(|left| number <= size.segment_of(left))
        };
        if bases.iter().any(on_the_way) {
            return true;
        }
        let newest = good.iter().copied().find(|index| self.is_newest_of(*index, &good));
        let led_to = physical.iter().any(|index| {
            let backup = self.backup(*index);
            kept.contains(index)
                && self.is_followed(*index)
                && self.leads(system, backup.timeline.unwrap(), backup.start_lsn.unwrap(), timeline)
        });
        let is_tip =
            bases.iter().any(|(index, tip)| *tip == timeline && self.backup(*index).system == system);
        let lives = !self.is_newest_system(system) && self.is_written_on(system, timeline);
        if lives && !led_to && !is_tip {
            return true;
        }
        self.is_newest_system(system)
            && newest.is_some_and(|newest| self.backup(newest).timeline < Some(timeline))
            && !led_to
            && !is_tip
            && self.reaches_window(system, timeline)
    }

    /// Whether a good backup and WAL without a hole lead to the moment.
    pub fn restores(&self, moment: &Moment) -> bool {
        let Some(wal) = self.stored.wal.get(&moment.system) else { return false };
        let (size, history) = (wal.segment_size, self.history(moment.system, moment.timeline));
        let holds = |number: u64| {
            wal.segments.iter().any(|(timeline, runs)| {
                let left = history.end_of(*timeline);
                history.contains(*timeline)
                    && left.is_none_or(|left| number <= size.segment_of(left))
                    && runs.iter().any(|run| run.first <= number && number <= run.last)
            })
        };
        // The newest first: it needs the least WAL.
        self.all().rev().any(|index| {
            let Some((timeline, start, stop)) = self.span(index) else { return false };
            let first = match self.backup(index).wal_included {
                true => size.last_segment_before(stop) + 1,
                false => size.segment_of(start),
            };
            self.is_good(index)
                && !self.is_logical(index)
                && self.backup(index).system == moment.system
                && stop <= moment.lsn
                && history.reaches(timeline, stop)
                && (first..=size.last_segment_before(moment.lsn)).all(holds)
        })
    }

    /// Whether a backup has everything to become consistent.
    pub fn is_whole(&self, index: usize) -> bool {
        let Some((timeline, start, stop)) = self.span(index) else { return self.is_good(index) };
        let backup = self.backup(index);
        let wal = self.stored.wal.get(&backup.system);
        let holds = |number: u64| {
            let runs = wal.and_then(|wal| wal.segments.get(&timeline));
            runs.is_some_and(|runs| runs.iter().any(|run| run.first <= number && number <= run.last))
        };
        let size = super::repo::size();
        let mut needed = size.segment_of(start)..=size.last_segment_before(stop);
        self.is_good(index) && (backup.wal_included || needed.all(holds))
    }
}
