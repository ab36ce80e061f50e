//! Warnings that an engine sends to a session: a flood of them must not become the client's.

use crate::translate;

/// Warnings of one engine that are passed on.
const WARNINGS_MAX: u64 = 100;

/// Warnings of one engine: the first are passed on, the rest are counted, so that none floods the client.
#[derive(Default)]
pub struct Warnings {
    seen: u64,
}

impl Warnings {
    /// Passes one on, or counts it.
    pub fn pass(&mut self, message: String, hint: Option<String>) {
        if self.has_room() {
            translate::warn(message, hint);
        }
    }

    fn has_room(&mut self) -> bool {
        self.seen = self.seen.saturating_add(1);
        self.seen <= WARNINGS_MAX
    }

    fn more(&self) -> u64 {
        self.seen.saturating_sub(WARNINGS_MAX)
    }

    /// Says how many were not passed on.
    pub fn end(&self) {
        let more = self.more();
        if more > 0 {
            translate::warn(format!("the engine had {more} more warnings"), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_passed_on() {
        let mut warnings = Warnings::default();
        let passed = (0..1_000).filter(|_| warnings.has_room()).count();
        assert_eq!((passed as u64, warnings.more()), (WARNINGS_MAX, 1_000 - WARNINGS_MAX));
    }
}
