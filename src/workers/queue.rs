//! Which of the runs that are due begins first, and how many go on at once.
//!
//! A job that takes backups all the time would else keep the pruning from ever beginning: only one of them may hold the
//! lease. Who waited longest is the next.

use super::agenda::Due;

/// Runs that need no lease, at once: they read the repository, and each has a worker of the server's few.
const WITHOUT_LEASE_MAX: usize = 3;

/// Jobs that are due and did not begin yet, each with the first instant at which it was due. The instant of a run that
/// does not begin moves on with the clock, this one does not.
#[derive(Default)]
pub struct Queue(Vec<(String, String)>);

impl Queue {
    /// What is due, as it is to begin: the longest due first, and backups before others.
    pub fn order(&mut self, mut due: Vec<Due>) -> Vec<Due> {
        self.0.retain(|(job, _)| due.iter().any(|due| due.run.job == *job));
        for due in &due {
            if !self.0.iter().any(|(job, _)| *job == due.run.job) {
                self.0.push((due.run.job.clone(), due.run.due_at.clone()));
            }
        }
        due.sort_by_cached_key(|due| {
            let first = self.0.iter().find(|(job, _)| *job == due.run.job).map(|(_, at)| at.clone());
            (first, due.kind.backup().is_none())
        });
        due
    }

    /// A run of `job` began.
    pub fn begun(&mut self, job: &str) {
        self.0.retain(|(waiting, _)| waiting != job);
    }
}

/// Whether `due` may begin beside those that run: not beside one of its own job, nor of two that need the lease.
pub fn has_room<'a>(due: &Due, running: impl Iterator<Item = &'a Due>) -> bool {
    let lease = due.kind.needs_lease();
    let mut alike = 0;
    for run in running {
        if run.run.job == due.run.job {
            return false;
        }
        alike += usize::from(run.kind.needs_lease() == lease);
    }
    alike < if lease { 1 } else { WITHOUT_LEASE_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::schedule::{JobKind, RunId};

    fn due(job: &str, minute: u32, kind: JobKind) -> Due {
        let due_at = format!("2026-11-22T02:{minute:02}:00Z");
        Due { run: RunId { job: job.into(), due_at, attempt: 1 }, kind, time_limit: 60 }
    }

    fn names(due: &[Due]) -> Vec<&str> {
        due.iter().map(|due| due.run.job.as_str()).collect()
    }

    #[test]
    fn the_longest_due_begins_first_and_backups_on_a_tie() {
        let all = vec![
            due("a", 3, JobKind::Full),
            due("b", 1, JobKind::Prune),
            due("c", 1, JobKind::Full),
            due("d", 2, JobKind::Verify),
        ];
        assert_eq!(names(&Queue::default().order(all)), ["c", "b", "d", "a"]);
    }

    #[test]
    fn a_backup_that_is_due_all_the_time_does_not_starve_the_others() {
        let mut queue = Queue::default();
        let mut begun = Vec::new();
        // Each is due every minute, and a run takes longer than that.
        for minute in 0..6 {
            let all = vec![due("backup", minute, JobKind::Full), due("prune", minute, JobKind::Prune)];
            let order = queue.order(all);
            let first = order[0].run.job.clone();
            queue.begun(&first);
            begun.push(first);
        }
        assert_eq!(begun, ["backup", "prune", "backup", "prune", "backup", "prune"]);
    }

    #[test]
    fn what_is_due_no_more_is_forgotten() {
        let mut queue = Queue::default();
        queue.order(vec![due("prune", 1, JobKind::Prune)]);
        queue.order(Vec::new());
        let order = queue.order(vec![due("prune", 9, JobKind::Prune), due("late", 8, JobKind::Prune)]);
        assert_eq!(names(&order), ["late", "prune"]);
    }

    #[test]
    fn one_with_the_lease_and_three_without_go_on_at_once() {
        let backup = due("backup", 0, JobKind::Full);
        let checks: Vec<_> = ["a", "b", "c"].map(|job| due(job, 0, JobKind::Verify)).into();
        let prune = due("prune", 0, JobKind::Prune);
        assert!(!has_room(&prune, [&backup].into_iter()));
        assert!(has_room(&prune, checks.iter()), "nobody holds the lease");
        let other = due("d", 0, JobKind::VerifyArchive);
        assert!(!has_room(&other, checks.iter()));
        assert!(has_room(&other, checks[..2].iter().chain([&backup])));
        assert!(!has_room(&checks[0], [&checks[0]].into_iter()), "one of each job");
    }
}
