//! Jobs whose runs did not begin though they were due: the repository took no attempt, or somebody else made it. They are
//! not started again at once, so that neither the log nor the machine is kept busy.

use super::agenda::Due;
use crate::not_begun::NotBegun;
use crate::postgres::process;
use pg_ark_contract::Error;
use pg_ark_contract::schedule::RunId;
use std::time::{Duration, Instant};

/// The pause after the first failure, doubled each time.
const FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
const LAST: Duration = Duration::from_secs(300);
/// Jobs that could not begin, of which sessions are told.
const KEPT_MAX: usize = 50;

/// The pause after a failure, with so many before it.
pub fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(8)).min(LAST)
}

struct One {
    run: RunId,
    times: u32,
    at: String,
    until: Instant,
    /// None when nothing is wrong: somebody else made the attempt, as far as is known.
    error: Option<Error>,
}

/// Those jobs.
#[derive(Default)]
pub struct Refused(Vec<One>);

impl Refused {
    /// A run did not begin; gives the pause until it is tried again.
    pub fn add(&mut self, run: &RunId, error: Option<Error>) -> Duration {
        let times = self.0.iter().find(|one| one.run.job == run.job).map_or(0, |one| one.times);
        self.remove(&run.job);
        let (run, pause, at) = (run.clone(), pause(times), process::utc_now());
        let until = Instant::now() + pause;
        self.0.push(One { run, times: times.saturating_add(1), at, until, error });
        pause
    }

    /// It did.
    pub fn remove(&mut self, job: &str) {
        self.0.retain(|one| one.run.job != job);
    }

    /// None of them is this server's any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets jobs that are not due any more, unless they could not begin when they were and are still `scheduled`.
    pub fn keep(&mut self, due: &[Due], scheduled: &[String]) {
        self.0.retain(|one| {
            let job = &one.run.job;
            due.iter().any(|due| due.run.job == *job) || one.error.is_some() && scheduled.contains(job)
        });
    }

    /// Names of those that could not begin, as many as are kept.
    pub fn names(&self) -> Vec<String> {
        self.wrong().take(KEPT_MAX).map(|(one, _)| one.run.job.clone()).collect()
    }

    /// Whether it is too early to start `job` again.
    pub fn waits(&self, job: &str) -> bool {
        self.0.iter().any(|one| one.run.job == job && one.until > Instant::now())
    }

    fn wrong(&self) -> impl Iterator<Item = (&One, &Error)> {
        self.0.iter().filter_map(|one| Some((one, one.error.as_ref()?)))
    }

    /// Why runs did not begin.
    pub fn errors(&self) -> Vec<Error> {
        self.wrong().map(|(_, error)| error.clone()).collect()
    }

    /// What sessions are told of them.
    pub fn not_begun(&self) -> Vec<NotBegun> {
        let told = |(one, error): (&One, &Error)| {
            let (run, times, at) = (one.run.clone(), one.times, one.at.clone());
            NotBegun { run, times, at, error: error.clone() }
        };
        self.wrong().take(KEPT_MAX).map(told).collect()
    }

    /// How long until the first of them may be started again.
    pub fn pause(&self) -> Option<Duration> {
        let left = |one: &One| one.until.checked_duration_since(Instant::now());
        self.0.iter().filter_map(left).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::ErrorKind;
    use pg_ark_contract::schedule::JobKind;

    fn run(job: &str) -> RunId {
        RunId { job: job.into(), due_at: String::new(), attempt: 1 }
    }

    #[test]
    fn pauses_grow_and_end_with_success() {
        let mut refused = Refused::default();
        let full = Error::new(ErrorKind::DiskFull, "no space left");
        assert_eq!(refused.add(&run("a"), Some(full.clone())), FIRST);
        assert!(refused.waits("a") && !refused.waits("b"));
        assert!(refused.pause().is_some_and(|pause| pause <= FIRST));
        assert_eq!(refused.add(&run("a"), Some(full)), 2 * FIRST);
        assert!(refused.pause().is_some_and(|pause| pause > FIRST && pause <= 2 * FIRST));
        assert_eq!(refused.not_begun()[0].times, 2);
        refused.add(&run("b"), None);
        assert_eq!(refused.errors().len(), 1, "nothing is wrong with it");
        refused.keep(&[Due { run: run("b"), kind: JobKind::Prune, time_limit: 60 }], &[]);
        assert!(!refused.waits("a") && refused.waits("b"));
        refused.remove("b");
        assert_eq!(refused.pause(), None);
        assert_eq!(pause(u32::MAX), LAST);
    }

    #[test]
    fn what_could_not_begin_is_known_until_a_run_does_or_the_job_is_gone() {
        let mut refused = Refused::default();
        refused.add(&run("a"), Some(Error::new(ErrorKind::Io, "read-only")));
        refused.add(&run("b"), None);
        refused.keep(&[], &["a".into(), "b".into()]);
        assert_eq!(refused.names(), ["a"]);
        assert!(!refused.waits("b"), "somebody else did it");
        refused.keep(&[], &[]);
        assert!(refused.not_begun().is_empty());
    }
}
