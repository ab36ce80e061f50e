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

    /// Ends the bar.
    pub fn finish(&self) {
        let now = self.lock();
        now.bar.finish_and_clear();
        if !self.terminal && now.total > 0 && now.done > 0 {
            eprintln!("{}", now.line());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
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
    }
}

impl Watch for Progress {
    fn stage(&self, stage: Stage, total: u64) {
        self.finish();
        let mut now = self.lock();
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
