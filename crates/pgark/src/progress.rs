//! Progress on stderr, of a restore and of a verification: a bar on a terminal, otherwise a line every few seconds.

use crate::talk;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::restore::{Stage, Watch};
use pg_ark_engine::verify;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress, and passes on the wish to stop.
pub struct Progress {
    stop: Arc<AtomicBool>,
    terminal: bool,
    now: Mutex<Now>,
}

struct Now {
    bar: ProgressBar,
    stage: Stage,
    done: u64,
    total: u64,
    began: Instant,
    shown: Instant,
}

impl Progress {
    /// Nothing shown yet.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let now = Now {
            bar: ProgressBar::hidden(),
            stage: Stage::Unpack,
            done: 0,
            total: 0,
            began: Instant::now(),
            shown: Instant::now(),
        };
        Progress { stop, terminal: std::io::stderr().is_terminal(), now: Mutex::new(now) }
    }

    /// Ends the bar of work that is done.
    pub fn complete(&self) {
        self.lock().complete();
        self.finish();
    }

    /// Ends the bar of work that may be unfinished.
    pub fn finish(&self) {
        self.lock().end(self.terminal);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    /// The work goes on, so this stage is done, whatever was not counted of it.
    fn complete(&mut self) {
        self.done = self.done.max(self.total);
    }

    fn end(&self, terminal: bool) {
        self.bar.finish_and_clear();
        if !terminal && self.total > 0 && self.done > 0 {
            eprintln!("{}", self.line());
        }
    }

    /// What is read twice is no more than all of it.
    fn line(&self) -> String {
        line(word(self.stage), self.done.min(self.total), self.total, self.began)
    }
}

/// `restoring: 1.2 GB of 4.0 GB (30 %), 210 MB/s`.
fn line(what: &str, done: u64, total: u64, began: Instant) -> String {
    let rate = human_bytes((done as f64 / began.elapsed().as_secs_f64().max(0.001)) as u64);
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    format!("{what}: {} of {} ({percent} %), {rate}/s", human_bytes(done), human_bytes(total))
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Check => "checking what is stored",
        Stage::Unpack | Stage::Load => "restoring",
        Stage::Sync => "making everything durable",
        Stage::Start => "starting the server",
        Stage::Recover => "recovering",
        Stage::Analyze => "gathering statistics",
    }
}

impl Watch for Progress {
    fn stage(&self, stage: Stage, total: u64) {
        let mut now = self.lock();
        now.complete();
        now.end(self.terminal);
        *now = Now {
            bar: bar(self.terminal, stage, total),
            stage,
            done: 0,
            total,
            began: Instant::now(),
            shown: Instant::now(),
        };
        if !self.terminal && total == 0 {
            eprintln!("{}", word(stage));
        }
    }

    fn advance(&self, amount: u64) {
        let mut now = self.lock();
        now.done += amount;
        now.bar.inc(amount);
        if !self.terminal && now.total > 0 && now.shown.elapsed() >= LINE_EVERY {
            now.shown = Instant::now();
            eprintln!("{}", now.line());
        }
    }

    fn warn(&self, message: &str) {
        self.lock().bar.suspend(|| talk::warn(message));
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Shows how much of what is stored was read, and passes on the wish to stop.
pub struct Reading {
    stop: Arc<AtomicBool>,
    what: &'static str,
    terminal: bool,
    read: Mutex<Read>,
}

struct Read {
    bar: ProgressBar,
    done: u64,
    total: u64,
    began: Instant,
    shown: Instant,
}

impl Reading {
    /// Nothing read yet; listens to signals. `what` is done, such as `verifying`.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub fn new(what: &'static str) -> Result<Self> {
        let read = Read {
            bar: ProgressBar::hidden(),
            done: 0,
            total: 0,
            began: Instant::now(),
            shown: Instant::now(),
        };
        let terminal = std::io::stderr().is_terminal();
        Ok(Reading { stop: talk::stop_flag()?, what, terminal, read: Mutex::new(read) })
    }

    /// Ends the bar; returns how many bytes were read.
    pub fn finish(&self) -> u64 {
        let read = self.lock();
        read.bar.finish_and_clear();
        read.done
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl verify::Watch for Reading {
    fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Cancelled, "stopped by a signal")),
        }
    }

    fn total(&self, bytes: u64) {
        let mut read = self.lock();
        read.total = read.total.saturating_add(bytes);
        match read.bar.length() {
            Some(_) => read.bar.set_length(read.total),
            None => read.bar = byte_bar(self.terminal, self.what, read.total),
        }
    }

    fn advance(&self, bytes: u64) {
        let mut read = self.lock();
        read.done = read.done.saturating_add(bytes);
        read.bar.inc(bytes);
        if !self.terminal && read.total > 0 && read.shown.elapsed() >= LINE_EVERY {
            read.shown = Instant::now();
            eprintln!("{}", line(self.what, read.done, read.total, read.began));
        }
    }
}

fn byte_bar(terminal: bool, what: &'static str, total: u64) -> ProgressBar {
    let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    dressed(terminal, ProgressBar::new(total), template, what)
}

fn bar(terminal: bool, stage: Stage, total: u64) -> ProgressBar {
    match total {
        0 => dressed(terminal, ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}", word(stage)),
        _ => byte_bar(terminal, word(stage), total),
    }
}

fn dressed(terminal: bool, bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    if !terminal {
        return ProgressBar::hidden();
    }
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_what_is_done_says_100_percent() {
        let progress = Progress::new(Arc::default());
        progress.stage(Stage::Unpack, 1_900_000_000);
        progress.advance(1_899_000_000);
        assert!(progress.lock().line().contains("(99 %)"), "{}", progress.lock().line());
        progress.complete();
        assert!(progress.lock().line().contains("(100 %)"), "{}", progress.lock().line());
        progress.stage(Stage::Recover, 10);
        assert!(progress.lock().line().contains("(0 %)"), "{}", progress.lock().line());
    }

    #[test]
    fn what_there_is_to_read_adds_up() {
        let reading = Reading::new("verifying").unwrap();
        for bytes in [1 << 30, 2 << 30] {
            verify::Watch::total(&reading, bytes);
            verify::Watch::advance(&reading, bytes / 2);
        }
        let read = reading.lock();
        let shown = line(reading.what, read.done, read.total, read.began);
        assert!(shown.starts_with("verifying: 1.5 GB of 3.0 GB (50 %), "), "{shown}");
        drop(read);
        assert_eq!(reading.finish(), 3 << 29);
    }
}
