//! The scheduler: the one worker that is there for as long as the server.
//!
//! 1. It waits: for the next moment at which something is due, at the longest a minute; for a change (SIGHUP, which
//!    `ark.schedule` sends too); for the end of a run.
//! 2. It has a short worker look what is due ([`super::agenda`]), because it is itself connected to no database: so it
//!    hinders no DROP, no RENAME and no CREATE DATABASE.
//! 3. It starts a worker for each due run ([`super::run`]) and keeps an eye on it.
//!
//! It decides nothing that matters: of two that are started for one run, in one server or in two, one finds the other's
//! attempt in the repository and ends. It never waits without looking at SIGTERM.

use super::agenda::{self, Due, Known, Question, Report};
use super::limit::Limit;
use super::problems::{Problems, tried_again};
use super::queue::{self, Queue};
use super::refused::{Refused, pause};
use super::run::{self, Order};
use super::{backup, clock};
use crate::not_begun::Notes;
use crate::postgres::database;
use crate::postgres::shared::{Channel, State};
use crate::postgres::worker::{Entry, Handle, Life};
use crate::postgres::{guc, interrupts, latch, progress, wal, worker};
use crate::{settings, translate};
use pg_ark_contract::schedule::RunId;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// Name and type of the worker, as `pg_stat_activity.backend_type` shows it.
pub const WORKER: &str = "pg_ark scheduler";

/// How often it looks: a standby hears of no change, and clocks are set.
const LOOK: Duration = Duration::from_secs(60);
/// How often it looks while there are no jobs.
const LOOK_IDLE: Duration = Duration::from_secs(300);
/// Two looks are no closer together than this, unless something changed.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// How long a worker that was told to end may take before the scheduler goes on without it.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Seconds that a worker may take beyond its limit: to tell its engine, and to write down what happened.
const OVER_LIMIT: u32 = 60;
/// The server wakes this process when a worker ends; in case it does not.
const LIFE_TICK: Duration = Duration::from_secs(5);

/// The worker. Returns when it is told to stop, and after an error.
pub fn main() {
    worker::take_signals();
    let outcome = interrupts::catching(|| {
        worker::connect_to_none();
        Scheduler::default().work()
    });
    if let Err(error) = outcome
        && worker::stop_reason().is_none()
    {
        translate::warn_error("pg_ark: the scheduler failed and is started again", &error);
    }
}

/// A run whose worker was started.
struct Started {
    due: Due,
    handle: Handle,
    channel: Channel,
    /// Its attempt is in the repository: what comes of it is told by its worker.
    begun: bool,
    /// The worker ends at its limit by itself; one that the server keeps waiting does not see that it is over.
    limit: Limit,
}

#[derive(Default)]
struct Scheduler {
    runs: Vec<Started>,
    known: Option<Known>,
    /// What is wrong with jobs, as the last look that asked the engine found it.
    of_jobs: Vec<Error>,
    problems: Problems,
    /// Looks in a row that failed.
    failures: u32,
    /// Jobs whose runs could not begin.
    refused: Refused,
    /// What sessions know of them.
    notes: Notes,
    /// Jobs that wait for their turn.
    queue: Queue,
    /// When to look next; None: now.
    next: Option<Instant>,
    /// A look that did not end when it was told to.
    stuck: Option<Handle>,
}

impl Scheduler {
    fn work(&mut self) -> Result<()> {
        loop {
            if worker::stop_reason().is_some() {
                return Ok(());
            }
            interrupts::check();
            if guc::reload_if_asked() {
                (self.next, self.known) = (None, None);
            }
            self.watch_runs();
            let left = self.next.map(|next| next.saturating_duration_since(Instant::now()));
            match left {
                Some(left) if !left.is_zero() => latch::sleep(left),
                _ => self.look(),
            }
        }
    }

    /// Sees which runs have begun or ended: then the next look finds something new.
    fn watch_runs(&mut self) {
        let mut news = false;
        for run in &mut self.runs {
            if !run.begun && run.channel.read().0 == State::Started {
                (run.begun, news) = (true, true);
                self.queue.begun(&run.due.run.job);
                self.refused.remove(&run.due.run.job);
            }
            if run.limit.check().is_err() {
                run.handle.terminate();
            }
        }
        let runs = std::mem::take(&mut self.runs);
        let (ended, runs): (Vec<_>, _) = runs.into_iter().partition(|run| run.handle.life() == Life::Ended);
        self.runs = runs;
        for run in &ended {
            // A fast one may have begun and ended since.
            match run.channel.read() {
                (State::Failed, error) => self.could_not_begin(&run.due.run, &parse_error(&error)),
                (State::Requested, _) => self.could_not_begin(&run.due.run, &no_answer()),
                (State::Complete, _) => drop(self.refused.add(&run.due.run, None)),
                (State::Started, _) => {
                    self.refused.remove(&run.due.run.job);
                    self.queue.begun(&run.due.run.job);
                }
            }
        }
        if news || !ended.is_empty() {
            (self.next, self.known) = (None, None);
            self.notes.are(self.refused.not_begun());
        }
    }

    /// A failure like any other, but that the repository did not take it: each is told.
    fn could_not_begin(&mut self, run: &RunId, error: &Error) {
        let pause = self.refused.add(run, Some(error.clone()));
        if worker::stop_reason().is_none() {
            let pause = u32::try_from(pause.as_secs()).unwrap_or(u32::MAX);
            let context = format!("pg_ark: job \"{}\" could not begin", run.job.escape_debug());
            translate::warn_error(&context, &tried_again(error, pause));
        }
    }

    /// Looks, and decides when to look again.
    fn look(&mut self) {
        progress::activity("pg_ark: looks which jobs are due");
        let pause = match interrupts::catching(|| self.find_database()) {
            Ok(Place::Nothing(pause)) => {
                (self.known, self.of_jobs) = (None, Vec::new());
                self.refused.clear();
                self.fine(&[]);
                pause
            }
            Ok(Place::Database(oid)) => match interrupts::catching(|| self.ask(oid)) {
                Ok(report) => self.act(report, oid),
                Err(error) => self.failed(vec![error]),
            },
            Err(error) => self.failed(vec![error]),
        };
        self.next = Some(Instant::now() + pause);
        self.notes.are(self.refused.not_begun());
        progress::idle(&self.waiting_for());
    }

    /// What `pg_stat_activity` shows while it waits.
    fn waiting_for(&self) -> String {
        match self.known.as_ref().and_then(|known| known.wake_at.as_deref()) {
            Some(at) => format!("pg_ark: waits for the next job, due at {at}"),
            None => "pg_ark: waits".into(),
        }
    }

    fn find_database(&self) -> Result<Place> {
        match settings::repository() {
            Err(error) if error.kind == ErrorKind::RepositoryUnset => return Ok(Place::Nothing(LOOK_IDLE)),
            other => other?,
        };
        if !settings::run_on().allows(wal::in_recovery()) {
            return Ok(Place::Nothing(LOOK)); // A promotion does not wake this process.
        }
        let name = settings::database();
        match database::find(&name)? {
            Some(found) if found.open => Ok(Place::Database(found.oid)),
            Some(_) => Err(Error::new(
                ErrorKind::ServerNotReady,
                format!("database \"{name}\" does not accept connections"),
            )
            .hint("ALTER DATABASE ... ALLOW_CONNECTIONS true, or name another one in pg_ark.database.")),
            None => Err(Error::new(ErrorKind::ServerNotReady, format!("database \"{name}\" does not exist"))
                .hint("Name the database that holds extension pg_ark in pg_ark.database, then reload.")),
        }
    }

    /// Has a worker look in this database.
    fn ask(&mut self, database: u32) -> Result<Report> {
        if self.stuck.as_ref().is_some_and(|handle| handle.life() != Life::Ended) {
            return Err(too_long());
        }
        self.stuck = None;
        let question = Question { database, known: self.known.clone(), refused: self.refused.names() };
        let channel = Channel::create(&serde_json::to_vec(&question).unwrap_or_default());
        let handle = register(agenda::WORKER, Entry::Agenda, &channel)?;
        if !ends_within(&handle, LOOK_LIMIT) {
            handle.terminate();
            if !ends_within(&handle, END_LIMIT) {
                self.stuck = Some(handle);
            }
            return Err(too_long());
        }
        match channel.read() {
            (State::Complete, text) => serde_json::from_str(&text).map_err(|error| {
                Error::new(ErrorKind::Internal, "the agenda's answer is not understood").detail(error)
            }),
            (State::Failed, text) => Err(parse_error(&text)),
            _ => Err(Error::new(
                ErrorKind::EngineDied,
                "the worker that looks which jobs are due ended without an answer",
            )
            .hint("The server log says why.")),
        }
    }

    /// Starts what is due; gives the pause until the next look.
    fn act(&mut self, report: Report, database: u32) -> Duration {
        self.known = report.known;
        if let Some(of_jobs) = report.of_jobs {
            self.of_jobs = of_jobs;
        }
        let mut problems = report.problems;
        if self.known.is_none() && report.jobs {
            return self.failed(problems);
        }
        problems.extend_from_slice(&self.of_jobs);
        self.refused.keep(&report.due, &report.scheduled);
        for due in self.queue.order(report.due) {
            let run = due.run.clone();
            // Without a free slot for this one there is none for the next.
            if let Err(error) = interrupts::catching(|| self.start(due, database)) {
                self.could_not_begin(&run, &error);
                break;
            }
        }
        self.fine(&problems);
        let Some(known) = &self.known else { return LOOK_IDLE };
        // What is due by now has been started, or waits for the end of a run, which wakes this process.
        let until = known.wake_at.as_deref().and_then(clock::until).filter(|until| !until.is_zero());
        let until = until.unwrap_or(LOOK).min(self.refused.pause().unwrap_or(LOOK));
        until.clamp(LOOK_MIN, LOOK)
    }

    /// Starts a worker for this run, unless it waits for the end of another.
    fn start(&mut self, due: Due, database: u32) -> Result<()> {
        let job = &due.run.job;
        let running = self.runs.iter().map(|run| &run.due);
        if self.refused.waits(job) || !queue::has_room(&due, running) {
            return Ok(());
        }
        let order = Order { run: due.run.clone(), database, scheduler: std::process::id() };
        let channel = Channel::create(&serde_json::to_vec(&order).unwrap_or_default());
        let kind = if due.kind.backup().is_some() { backup::WORKER } else { run::WORKER };
        let handle = register(kind, Entry::Run, &channel)?;
        let limit = Limit::from_now(due.time_limit.saturating_add(OVER_LIMIT));
        self.runs.push(Started { due, handle, channel, begun: false, limit });
        Ok(())
    }

    fn fine(&mut self, problems: &[Error]) {
        self.failures = 0;
        self.problems.are(problems, &self.refused.errors());
    }

    /// Gives the pause until the next look. Jobs are as they were, as far as is known.
    fn failed(&mut self, mut problems: Vec<Error>) -> Duration {
        self.known = None;
        problems.extend_from_slice(&self.of_jobs);
        if worker::stop_reason().is_none() {
            self.problems.are(&problems, &self.refused.errors());
        }
        let pause = pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// Where to look.
enum Place {
    /// Nowhere; look again after this pause.
    Nothing(Duration),
    /// In the database with this OID.
    Database(u32),
}

fn register(kind: &str, entry: Entry, channel: &Channel) -> Result<Handle> {
    Handle::register(kind, entry, channel.handle()).ok_or_else(|| {
        Error::new(ErrorKind::ServerNotReady, "could not start a background worker: every slot is taken")
            .hint("Raise max_worker_processes and restart the server.")
    })
}

/// False when the worker does not end within `limit`; also when this process is told to stop.
fn ends_within(handle: &Handle, limit: Duration) -> bool {
    let began = Instant::now();
    while handle.life() != Life::Ended {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() || worker::stop_reason().is_some() {
            return false;
        }
        interrupts::check();
        latch::sleep(left.min(LIFE_TICK));
    }
    true
}

fn too_long() -> Error {
    let message = format!("the look which jobs are due takes longer than {} s", LOOK_LIMIT.as_secs());
    Error::new(ErrorKind::EngineDied, message).hint("The repository may hang: look at its storage.")
}

fn parse_error(text: &str) -> Error {
    serde_json::from_str(text).unwrap_or_else(|_| no_answer())
}

fn no_answer() -> Error {
    Error::new(ErrorKind::EngineDied, "a worker of pg_ark ended without an answer")
        .hint("The server log says why.")
}
