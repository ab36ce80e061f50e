//! Tests of what is due: case by case, and against a slow, obvious model of servers that compete, fail and vanish.

use super::*;
use pg_ark_contract::schedule::{RunId, RunRow};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn job(name: &str, kind: JobKind, cron: &str, since: DateTime<Utc>) -> JobSpec {
    JobSpec {
        name: name.into(),
        kind,
        cron: cron.into(),
        timezone: "UTC".into(),
        enabled: true,
        since: text(since),
        time_limit: 3600,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    }
}

fn attempt(key: Key, status: RunStatus, ended: DateTime<Utc>) -> Attempt {
    let row = RunRow {
        id: key.run("x"),
        kind: JobKind::Full,
        status,
        started_at: text(ended),
        finished_at: None,
        host: String::new(),
        backup: None,
        result: None,
        error: None,
    };
    let limit = (status == RunStatus::Running).then(|| ended + Duration::hours(1));
    Attempt { key, status, ended, limit, row }
}

/// The state of one job whose newest attempt is this one.
fn state_of(
    job: &JobSpec,
    newest: Option<Attempt>,
    missed: MissedRuns,
    now: &str,
) -> (JobState, Option<String>) {
    let ended = newest.clone().filter(|newest| newest.status != RunStatus::Running);
    let history = Ok(History { newest, ended, failures: 0 });
    let (mut states, wake) = decide(&[Known { job, history }], None, missed, at(now));
    (states.pop().unwrap(), wake.map(text))
}

fn due(state: &JobState) -> Option<(&str, u32)> {
    state.due.as_ref().map(|run| (&run.due_at[..], run.attempt))
}

#[test]
fn a_job_that_was_made_by_a_clock_ahead_is_done_once_the_clock_is_right() {
    let daily = job("x", JobKind::Full, "0 2 * * *", at("2028-06-01T00:30:00Z"));
    let of = |newest, missed| state_of(&daily, newest, missed, "2026-07-15T12:00:00Z");
    let (state, _) = of(None, MissedRuns::Once);
    assert_eq!(due(&state), Some(("2026-07-15T02:00:00Z", 1)));
    let (state, wake) = of(None, MissedRuns::Skip);
    assert_eq!((due(&state), wake.as_deref()), (None, Some("2026-07-16T02:00:00Z")));
    // What was done since counts, and what failed is tried again.
    let key = Key { due: at("2026-07-15T02:00:00Z"), attempt: 1 };
    let newest = |status| Some(attempt(key, status, at("2026-07-15T02:10:00Z")));
    let (state, wake) = of(newest(RunStatus::Done), MissedRuns::Once);
    assert_eq!((due(&state), wake.as_deref()), (None, Some("2026-07-16T02:00:00Z")));
    let (state, _) = of(newest(RunStatus::Failed), MissedRuns::Once);
    assert_eq!(due(&state), Some(("2026-07-15T02:00:00Z", 2)));
    // The first backup does not wait either; a clock of another server may be a little ahead.
    let history = || Ok(History::default());
    let (states, _) = decide(
        &[Known { job: &daily, history: history() }],
        Some(0),
        MissedRuns::Once,
        at("2026-07-15T12:00:00Z"),
    );
    assert_eq!(due(&states[0]), Some(("2026-07-15T02:00:00Z", 1)));
    let soon = job("x", JobKind::Full, "0 2 * * *", at("2026-07-15T12:30:00Z"));
    assert_eq!(due(&state_of(&soon, None, MissedRuns::Once, "2026-07-15T12:00:00Z").0), None);
}

#[test]
fn what_was_missed_is_made_up_once_and_late_or_left_out() {
    let daily = job("x", JobKind::Full, "0 2 * * *", at("2026-11-01T12:00:00Z"));
    let done = attempt(
        Key { due: at("2026-11-10T02:00:00Z"), attempt: 1 },
        RunStatus::Done,
        at("2026-11-10T02:30:00Z"),
    );
    let of = |missed, now| state_of(&daily, Some(done.clone()), missed, now);
    // Before, at, and days after: the last one.
    for missed in [MissedRuns::Once, MissedRuns::Skip] {
        let (state, wake) = of(missed, "2026-11-11T01:59:59Z");
        assert_eq!((due(&state), wake.as_deref()), (None, Some("2026-11-11T02:00:00Z")));
        let (state, _) = of(missed, "2026-11-11T02:00:00Z");
        assert_eq!(due(&state), Some(("2026-11-11T02:00:00Z", 1)));
        assert_eq!(state.next_run.as_deref(), Some("2026-11-11T02:00:00Z"));
        assert_eq!(due(&of(missed, "2026-11-11T02:04:59Z").0), Some(("2026-11-11T02:00:00Z", 1)));
    }
    assert_eq!(due(&of(MissedRuns::Once, "2026-11-15T01:00:00Z").0), Some(("2026-11-14T02:00:00Z", 1)));
    let (state, wake) = of(MissedRuns::Skip, "2026-11-15T01:00:00Z");
    assert_eq!((due(&state), wake.as_deref()), (None, Some("2026-11-15T02:00:00Z")));
    // Nothing before the job was made, or its schedule changed.
    let fresh = JobSpec { since: "2026-11-14T02:00:00.5Z".into(), ..daily };
    assert_eq!(due(&state_of(&fresh, Some(done), MissedRuns::Once, "2026-11-14T03:00:00Z").0), None);
}

#[test]
fn a_failed_run_is_tried_again_with_growing_pauses_until_the_next_instant() {
    let daily = job("x", JobKind::Full, "0 2 * * *", at("2026-11-01T12:00:00Z"));
    let failed = |attempts, ended: DateTime<Utc>| {
        Some(attempt(Key { due: at("2026-11-10T02:00:00Z"), attempt: attempts }, RunStatus::Failed, ended))
    };
    let ended = at("2026-11-10T03:00:00Z");
    for (attempts, minutes) in
        [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (40, 60), (u32::MAX - 1, 60)]
    {
        let again = ended + Duration::minutes(minutes);
        let of = |now: DateTime<Utc>| state_of(&daily, failed(attempts, ended), MissedRuns::Once, &text(now));
        let (state, wake) = of(again - Duration::seconds(1));
        assert_eq!((due(&state), wake), (None, Some(text(again))), "attempt {attempts}");
        assert_eq!(state.next_run, Some(text(again)));
        assert_eq!(due(&of(again).0), Some(("2026-11-10T02:00:00Z", attempts + 1)));
        let superseded = of(at("2026-11-11T02:00:00Z")).0;
        assert_eq!(due(&superseded), Some(("2026-11-11T02:00:00Z", 1)));
    }
    // There is no further number: the next instant comes all the same.
    let (state, wake) = state_of(&daily, failed(u32::MAX, ended), MissedRuns::Once, "2026-11-10T09:00:00Z");
    assert_eq!((due(&state), wake.as_deref()), (None, Some("2026-11-11T02:00:00Z")));
    // One of a schedule that is no more.
    let changed = JobSpec { since: "2026-11-10T02:00:01Z".into(), ..daily };
    let (state, _) = state_of(&changed, failed(1, ended), MissedRuns::Once, "2026-11-10T09:00:00Z");
    assert_eq!(due(&state), None);
}

#[test]
fn a_run_that_goes_on_blocks_its_job_and_no_other() {
    let since = at("2026-11-01T12:00:00Z");
    let (slow, other) =
        (job("slow", JobKind::Verify, "@hourly", since), job("other", JobKind::Prune, "@hourly", since));
    let running = attempt(
        Key { due: at("2026-11-10T02:00:00Z"), attempt: 1 },
        RunStatus::Running,
        at("2026-11-10T02:00:05Z"),
    );
    let known = [
        Known { job: &slow, history: Ok(History { newest: Some(running), ended: None, failures: 2 }) },
        Known { job: &other, history: Ok(History::default()) },
    ];
    let (states, wake) = decide(&known, None, MissedRuns::Once, at("2026-11-10T02:59:00Z"));
    assert_eq!((due(&states[0]), states[0].failures), (None, 2));
    assert!(states[0].running.is_some() && states[0].last_run.is_none());
    assert_eq!(states[0].next_run.as_deref(), Some("2026-11-10T03:00:00Z"));
    assert_eq!(due(&states[1]), Some(("2026-11-10T02:00:00Z", 1)));
    assert_eq!(wake, Some(at("2026-11-10T02:00:00Z")));
    // Its own limit wakes too: then it may be over.
    let (_, wake) = decide(&known[..1], None, MissedRuns::Once, at("2026-11-10T03:00:01Z"));
    assert_eq!(wake, Some(at("2026-11-10T03:00:05Z")));
}

#[test]
fn a_server_without_a_backup_does_not_wait_for_the_night() {
    let since = at("2026-11-10T12:00:00.7Z");
    let jobs = [
        job("check", JobKind::VerifyArchive, "0 5 * * *", since),
        job("daily", JobKind::Full, "0 2 * * *", since),
        job("weekly", JobKind::Full, "0 2 * * 0", since),
    ];
    let known = || -> Vec<Known<'_>> {
        jobs.iter().map(|job| Known { job, history: Ok(History::default()) }).collect()
    };
    assert_eq!(first_of(&known()), Some(1));
    let (states, wake) = decide(&known(), Some(1), MissedRuns::Skip, at("2026-11-10T18:00:00Z"));
    let dues: Vec<_> = states.iter().map(due).collect();
    assert_eq!(dues, [None, Some(("2026-11-10T12:00:00Z", 1)), None]);
    assert_eq!(wake, Some(at("2026-11-10T12:00:00Z")));
    // One that was tried is tried again by its own rule, and by no other job.
    let mut tried = known();
    let key = Key { due: at("2026-11-10T12:00:00Z"), attempt: 1 };
    let failed = attempt(key, RunStatus::Failed, at("2026-11-10T12:05:00Z"));
    tried[1].history = Ok(History { newest: Some(failed), ended: None, failures: 1 });
    assert_eq!(first_of(&tried), None);
    let (states, _) = decide(&tried, None, MissedRuns::Skip, at("2026-11-10T18:00:00Z"));
    assert_eq!(due(&states[1]), Some(("2026-11-10T12:00:00Z", 2)));
    // What cannot be seen may have been made.
    let mut unseen = known();
    unseen[2].history = Err(Error::new(ErrorKind::Io, "away"));
    assert_eq!(first_of(&unseen), None);
    let off = JobSpec { enabled: false, ..jobs[1].clone() };
    assert_eq!(first_of(&[Known { job: &off, history: Ok(History::default()) }]), None);
}

#[test]
fn what_is_wrong_with_one_job_is_said_and_stops_no_other() {
    let since = at("2026-11-01T12:00:00Z");
    let jobs = [
        job("nonsense", JobKind::Full, "every day", since),
        JobSpec { timezone: "Mars".into(), ..job("zone", JobKind::Full, "@daily", since) },
        JobSpec { since: "yesterday\u{7}".into(), ..job("since", JobKind::Full, "@daily", since) },
        JobSpec { enabled: false, ..job("off", JobKind::Full, "@daily", since) },
        job("unseen", JobKind::Full, "@daily", since),
        job("never", JobKind::Full, "0 0 30 2 *", since),
        job("good", JobKind::Prune, "@daily", since),
    ];
    let known: Vec<Known<'_>> = jobs
        .iter()
        .map(|job| Known {
            job,
            history: match &job.name[..] {
                "unseen" => Err(Error::new(ErrorKind::Io, "away")),
                _ => Ok(History::default()),
            },
        })
        .collect();
    let (states, wake) = decide(&known, None, MissedRuns::Once, at("2026-11-10T12:00:00Z"));
    let errors: Vec<bool> = states.iter().map(|state| state.error.is_some()).collect();
    assert_eq!(errors, [true, true, true, false, true, false, false]);
    let dues: Vec<_> = states.iter().map(|state| state.due.is_some()).collect();
    assert_eq!(dues, [false, false, false, false, false, false, true]);
    assert_eq!(states[4].next_run.as_deref(), Some("2026-11-11T00:00:00Z"), "from its text alone");
    assert_eq!((&states[5].next_run, &states[3].next_run), (&None, &None));
    assert_eq!(wake, Some(at("2026-11-10T00:00:00Z")));
}

/// What the model knows of an attempt.
#[derive(Debug, Clone)]
struct Made {
    server: usize,
    begun: DateTime<Utc>,
    /// When it ends, and how. A server that stops ends it at once.
    ends: DateTime<Utc>,
    succeeds: bool,
}

/// A job's attempts, in the one repository.
type Attempts = BTreeMap<Key, Made>;

#[derive(Debug, Clone)]
struct World {
    crons: Vec<&'static str>,
    missed: MissedRuns,
    /// Steps: minutes that pass, which server looks, and what befalls: see [`step`].
    steps: Vec<(i64, usize, u8, i64)>,
}

const SERVERS: usize = 3;
const CRONS: [&str; 7] =
    ["*/10 * * * *", "@hourly", "0 2 * * *", "30 1,13 * * *", "0 0 * * 1-5", "5 4 1 * *", "*/7 3-5 * * *"];

fn world() -> impl Strategy<Value = World> {
    let step = (0..400_i64, 0..SERVERS, 0..10_u8, 1..600_i64);
    (
        proptest::collection::vec(proptest::sample::select(&CRONS[..]), 1..4),
        prop_oneof![Just(MissedRuns::Once), Just(MissedRuns::Skip)],
        proptest::collection::vec(step, 1..60),
    )
        .prop_map(|(crons, missed, steps)| World { crons, missed, steps })
}

fn status(made: &Made, now: DateTime<Utc>) -> RunStatus {
    match (made.ends <= now, made.succeeds) {
        (false, _) => RunStatus::Running,
        (true, true) => RunStatus::Done,
        (true, false) => RunStatus::Failed,
    }
}

fn seen(attempts: &Attempts, now: DateTime<Utc>) -> History {
    let all: Vec<Attempt> = attempts
        .iter()
        .rev()
        .map(|(key, made)| {
            attempt(*key, status(made, now), if made.ends <= now { made.ends } else { made.begun })
        })
        .collect();
    let ended = all.iter().find(|attempt| attempt.status != RunStatus::Running).cloned();
    History { newest: all.into_iter().next(), ended, failures: 0 }
}

/// What is due, by looking at every instant since the job was made.
fn obvious(
    job: &JobSpec,
    attempts: &Attempts,
    missed: MissedRuns,
    now: DateTime<Utc>,
) -> Option<(DateTime<Utc>, u32)> {
    let (schedule, since) = understood(job, now).unwrap();
    if attempts.values().any(|made| status(made, now) == RunStatus::Running) {
        return None;
    }
    let all = std::iter::successors(schedule.next(since), |last| schedule.next(*last));
    let last = all.take_while(|instant| *instant <= now).last()?;
    let of_last: Vec<(&Key, &Made)> = attempts.iter().filter(|(key, _)| key.due == last).collect();
    match of_last.last() {
        None if missed == MissedRuns::Skip && now - last >= Duration::minutes(5) => None,
        None => Some((last, 1)),
        Some((_, made)) if made.succeeds => None,
        Some((key, made)) => {
            let pause = [1, 2, 4, 8, 16, 32].get(key.attempt as usize - 1).copied().unwrap_or(60);
            (now >= made.ends + Duration::minutes(pause)).then_some((last, key.attempt + 1))
        }
    }
}

/// Begins an attempt as the repository does: only if it is not there, and not beside another.
fn begin(attempts: &mut Attempts, run: &RunId, made: Made) -> bool {
    let key = Key::of(run).unwrap();
    let now = made.begun;
    let is_free = attempts.values().all(|made| status(made, now) != RunStatus::Running)
        && attempts.last_key_value().is_none_or(|(newest, _)| *newest < key);
    is_free && attempts.insert(key, made).is_none()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn servers_that_compete_fail_and_vanish_do_everything_once(world in world()) {
        let since = at("2026-02-27T17:23:45Z");
        let jobs: Vec<JobSpec> = world.crons.iter().enumerate()
            .map(|(at, cron)| job(&format!("job {at}"), JobKind::Full, cron, since)).collect();
        let mut all: Vec<Attempts> = vec![Attempts::new(); jobs.len()];
        let mut now = since;
        // What each server saw when it last looked: it may act on it late.
        let mut stale: Vec<Option<(DateTime<Utc>, Vec<JobState>)>> = vec![None; SERVERS];
        for (pause, server, what, length) in world.steps {
            now += Duration::minutes(pause) + Duration::seconds(pause % 60);
            if what == 0 {
                // It stops: what it did has failed.
                for made in all.iter_mut().flat_map(BTreeMap::values_mut) {
                    if made.server == server && made.ends > now {
                        (made.ends, made.succeeds) = (now, false);
                    }
                }
                continue;
            }
            let known: Vec<Known<'_>> =
                jobs.iter().zip(&all).map(|(job, attempts)| Known { job, history: Ok(seen(attempts, now)) }).collect();
            let (states, wake) = decide(&known, None, world.missed, now);
            for ((job, attempts), state) in jobs.iter().zip(&all).zip(&states) {
                let wanted = obvious(job, attempts, world.missed, now);
                let found = state.due.as_ref().map(|run| (at(&run.due_at), run.attempt));
                prop_assert_eq!(found, wanted, "{} at {}", &job.cron, now);
                let alone = [Known { job, history: Ok(seen(attempts, now)) }];
                prop_assert_eq!(&decide(&alone, None, world.missed, now).0[0], state, "alone it is the same");
                let next = state.next_run.as_deref().map(at).unwrap();
                prop_assert_eq!(state.due.is_some(), next <= now);
                prop_assert!(wake.unwrap() <= next);
            }
            // One that saw this a while ago acts now, beside one that sees it now.
            let late = stale[server].replace((now, states.clone()));
            for (seen_at, states) in late.into_iter().chain([(now, states)]) {
                for ((state, attempts), at_work) in states.iter().zip(all.iter_mut()).zip(0_i64..) {
                    let Some(run) = &state.due else { continue };
                    let ends = now + Duration::minutes(length + at_work);
                    let before = attempts.clone();
                    let made = Made { server, begun: now, ends, succeeds: what > 4 };
                    if begin(attempts, run, made) {
                        let key = Key::of(run).unwrap();
                        prop_assert!(seen_at <= now && key.due <= now && key.due > since);
                        // One attempt after the other, each after a failure of the same instant.
                        let earlier = before.iter().filter(|(other, _)| other.due == key.due);
                        prop_assert_eq!(earlier.clone().count() + 1, key.attempt as usize);
                        for (_, made) in earlier {
                            prop_assert!(made.ends <= now && !made.succeeds, "done twice");
                        }
                    }
                }
            }
        }
        // Wherever an instant passed and somebody looked since, it was tried, or a later one was.
        for attempts in &all {
            let instants: Vec<DateTime<Utc>> = attempts.keys().map(|key| key.due).collect();
            prop_assert!(instants.is_sorted());
        }
    }
}
