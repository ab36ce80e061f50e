//! Progress of a restore on stderr: a bar on a terminal, otherwise a line every few seconds.

use crate::talk;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pg_ark_contract::units::human_bytes;
use pg_ark_engine::restore::{Stage, Watch};
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

    fn line(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let rate = human_bytes((self.done as f64 / seconds) as u64);
        let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(100);
        format!(
            "{}: {} of {} ({percent} %), {rate}/s",
            word(self.stage),
            human_bytes(self.done),
            human_bytes(self.total)
        )
    }
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Unpack => "restoring",
        Stage::Sync => "making everything durable",
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

fn bar(terminal: bool, stage: Stage, total: u64) -> ProgressBar {
    if !terminal {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        0 => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
        _ => (
            ProgressBar::new(total),
            "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(word(stage));
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
}
