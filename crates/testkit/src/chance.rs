//! Chance that can be repeated, and how long it is tried.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Environment variable with the number of rounds.
const ROUNDS: &str = "PG_ARK_ROUNDS";
/// Environment variable with the seed.
const SEED: &str = "PG_ARK_SEED";
/// How often a process is looked at while its moment is awaited.
const LOOK: Duration = Duration::from_micros(500);

/// Rounds of a test that tries moments or places by chance: `$PG_ARK_ROUNDS`, else `usual`.
///
/// # Panics
/// When the variable is no number.
#[track_caller]
pub fn rounds(usual: usize) -> usize {
    number(ROUNDS).map_or(usual, |rounds| usize::try_from(rounds).expect("a number of rounds"))
}

/// Whether `$PG_ARK_ROUNDS` asks for more than the short share of `scripts/test`.
pub fn is_thorough() -> bool {
    number(ROUNDS).is_some_and(|rounds| rounds >= 100)
}

#[track_caller]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Numbers that look random (xorshift64). The seed is `$PG_ARK_SEED`, else the time; it is told when the test fails.
#[derive(Debug)]
pub struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// Numbers for one test.
    pub fn new() -> Chance {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
        Chance::from_seed(number(SEED).unwrap_or(now % 1_000_000_007))
    }

    /// The numbers of a seed.
    pub fn from_seed(seed: u64) -> Chance {
        // Seeds that differ little should not begin alike, and none may be 0.
        Chance { seed, state: seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D).checked_rem(limit).unwrap_or(0)
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// A moment of something that usually takes this long: mostly any, often one near the end, sometimes the very first.
    pub fn moment(&mut self, usual: Duration) -> Duration {
        let whole = usual.as_micros() as u64;
        Duration::from_micros(match self.below(10) {
            0 => self.below(whole / 20 + 1),
            1..=3 => whole * 4 / 5 + self.below(whole / 4 + 1),
            _ => self.below(whole + 1),
        })
    }
}

impl Default for Chance {
    fn default() -> Self {
        Chance::new()
    }
}

impl Drop for Chance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- to see the same again: {SEED}={}", self.seed);
        }
    }
}

/// Waits so long, or until `is_over`; says whether the time passed. Finer than [`crate::holds_within`], which is for
/// conditions: here the moment itself is what is tried.
pub fn passes(time: Duration, mut is_over: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if is_over() {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::park_timeout(left.min(LOOK));
    }
}

/// Kills a child with signal 9 when it has run this long; returns its status when it was faster.
///
/// # Panics
/// When its status cannot be had.
pub fn kill_after(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let mut status = None;
    if passes(time, || {
        status = child.try_wait().expect("status of a child");
        status.is_some()
    }) {
        child.kill().expect("a child that was not waited for can be killed");
        let ended = child.wait().expect("status of a child");
        // It may have ended right before the signal.
        return ended.code().is_some().then_some(ended);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_seed_gives_the_same_again_and_all_of_a_range() {
        let (mut one, mut other) = (Chance::from_seed(7), Chance::from_seed(7));
        let numbers: Vec<u64> = (0..200).map(|_| one.below(10)).collect();
        assert!(numbers.iter().all(|number| *number == other.below(10)));
        assert!((0..10).all(|number| numbers.contains(&number)));
        assert_eq!(one.below(0), 0);
        let usual = Duration::from_millis(100);
        let moments: Vec<Duration> = (0..200).map(|_| one.moment(usual)).collect();
        assert!(
            moments.iter().any(|moment| *moment < usual / 10) && moments.iter().any(|moment| *moment > usual)
        );
    }

    #[test]
    fn a_child_is_killed_in_time_or_its_status_told() {
        let mut slow = Command::new("tail").args(["-f", "/dev/null"]).spawn().expect("tail");
        assert_eq!(kill_after(&mut slow, Duration::from_millis(5)), None);
        let mut quick = Command::new("true").spawn().expect("true");
        assert!(kill_after(&mut quick, Duration::from_secs(30)).expect("it ends").success());
    }
}
