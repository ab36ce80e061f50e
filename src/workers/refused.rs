//! Jobs whose runs did not begin though they were due: the repository took no attempt, or somebody else made it. They are
//! not started again at once, so that neither the log nor the machine is kept busy.

use super::agenda::{Due, NAMED_MAX, others};
use pg_ark_contract::Error;
use std::time::{Duration, Instant};

/// The pause after the first failure, doubled each time.
const FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
const LAST: Duration = Duration::from_secs(300);

/// The pause after a failure, with so many before it.
pub fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(8)).min(LAST)
}

struct One {
    job: String,
    times: u32,
    until: Instant,
    /// None when nothing is wrong: somebody else made the attempt, as far as is known.
    error: Option<Error>,
}

/// Those jobs.
#[derive(Default)]
pub struct Refused(Vec<One>);

impl Refused {
    /// A run of `job` did not begin.
    pub fn add(&mut self, job: &str, error: Option<Error>) {
        let times = self.0.iter().find(|one| one.job == job).map_or(0, |one| one.times);
        self.remove(job);
        let until = Instant::now() + pause(times);
        self.0.push(One { job: job.into(), times: times.saturating_add(1), until, error });
    }

    /// It did.
    pub fn remove(&mut self, job: &str) {
        self.0.retain(|one| one.job != job);
    }

    /// Forgets jobs that are not due any more.
    pub fn keep(&mut self, due: &[Due]) {
        self.0.retain(|one| due.iter().any(|due| due.run.job == one.job));
    }

    /// Whether it is too early to start `job` again.
    pub fn waits(&self, job: &str) -> bool {
        self.0.iter().any(|one| one.job == job && one.until > Instant::now())
    }

    /// Why runs did not begin, of the first few.
    pub fn errors(&self) -> Vec<Error> {
        let named = |one: &One| {
            let error = one.error.clone()?;
            let message = format!("job \"{}\" could not begin: {}", one.job.escape_debug(), error.message);
            Some(Error { message, ..error })
        };
        let all = || self.0.iter().filter_map(named);
        all().take(NAMED_MAX).chain(others(all().count(), "due and could not begin")).collect()
    }

    /// How long until the first of them may be started again.
    pub fn pause(&self) -> Option<Duration> {
        self.0.iter().map(|one| one.until.saturating_duration_since(Instant::now())).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::ErrorKind;
    use pg_ark_contract::schedule::{JobKind, RunId};

    #[test]
    fn pauses_grow_and_end_with_success() {
        let mut refused = Refused::default();
        let full = Error::new(ErrorKind::DiskFull, "no space left");
        refused.add("a", Some(full.clone()));
        assert!(refused.waits("a") && !refused.waits("b"));
        assert!(refused.pause().is_some_and(|pause| pause <= FIRST));
        refused.add("a", Some(full));
        assert!(refused.pause().is_some_and(|pause| pause > FIRST && pause <= 2 * FIRST));
        assert_eq!(refused.errors().len(), 1);
        refused.add("b", None);
        assert_eq!(refused.errors().len(), 1, "nothing is wrong with it");
        let run = RunId { job: "b".into(), due_at: String::new(), attempt: 1 };
        refused.keep(&[Due { run, kind: JobKind::Prune, time_limit: 60 }]);
        assert!(!refused.waits("a") && refused.waits("b"));
        refused.remove("b");
        assert_eq!(refused.pause(), None);
        assert_eq!(pause(u32::MAX), LAST);
    }
}
