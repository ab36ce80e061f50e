//! The verdict on everything that is stored. A pure function: the same values give the same plan, and no value, however
//! absurd, makes it fail or drop the last way back.
//!
//! *Good*: a backup that can be restored, alone or with its parents. *Window*: the moments since `now` minus
//! [`Policy::window`]. *Line*: a timeline with its ancestors. *Way*: the backups from which a line is recovered to every
//! moment of the window that it holds.
//!
//! 1. [`facts`]: the order of the backups, and which are good.
//! 2. [`lines`]: the timelines, and the backups along each line.
//! 3. [`window`]: which backups are inside the window, and the ways into it.
//! 4. [`backups`]: the rules that keep backups; [`calendar`]: those of days, weeks, months and years; [`dumps`]: those of
//!    the databases in logical backups.
//! 5. [`needs`], [`wal`]: the WAL and the histories that kept backups need.
//! 6. [`words`]: rules, for people.
//!
//! The window ends now, unless a clock may have jumped ahead: [`jump`].
//!
//! Times are what clocks said when they were written, and clocks are set back. Along a line the WAL says what came
//! first. So a backup whose time lies ahead of a later one's stopped no later than that one: its WAL is not kept for
//! ever, though itself it stays until its time has passed.

mod backups;
mod calendar;
mod dumps;
mod facts;
mod jump;
mod lines;
mod needs;
mod wal;
mod window;
mod words;

use super::model::{BackupVerdict, Plan, Stored};
use chrono::{DateTime, Utc};
use pg_ark_contract::Result;
use pg_ark_contract::retention::{Policy, Verdict};

/// What `policy` keeps of `stored` at `now`.
///
/// # Errors
/// `InvalidArgument` for a time zone that is none.
pub fn plan(stored: &Stored, policy: &Policy, now: DateTime<Utc>) -> Result<Plan> {
    let zone = calendar::zone(&policy.timezone)?;
    let mut facts = facts::Facts::of(stored, policy.window, now);
    let lines = lines::Lines::of(&facts);
    let stopped_by = window::stopped_by(&facts, &lines);
    facts.judge(&stopped_by, policy.window);
    let window = window::Window::of(&facts, &lines, &stopped_by);
    let kept = backups::Kept::of(&facts, &window, policy, zone);
    let verdict = |&index: &usize| BackupVerdict {
        index,
        verdict: if kept.is(index) { Verdict::Keep } else { Verdict::Drop },
        rule: words::backup(&facts, index, kept.rules(index)),
    };
    let verdicts = facts.order.iter().map(verdict).collect();
    let (wal, histories) = wal::judge(&facts, &lines, &window, &kept);
    Ok(Plan { backups: verdicts, wal, histories })
}

#[cfg(test)]
mod tests;
