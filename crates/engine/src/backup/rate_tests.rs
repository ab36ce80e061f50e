use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Threads that read as fast as they may, in a time of their own.
struct Readers {
    rate: Rate,
    now: Duration,
    /// For each: its place in line, and when it looks again.
    places: Vec<(Option<Place>, Duration)>,
    /// Bytes read by each.
    read: Vec<u64>,
    /// How late a reader wakes, and how long it reads.
    late: Duration,
}

impl Readers {
    fn new(count: usize, limit: u64) -> Self {
        let places = vec![(None, Duration::ZERO); count];
        Readers {
            rate: Rate::new(limit, Duration::ZERO),
            now: Duration::ZERO,
            places,
            read: vec![0; count],
            late: Duration::from_micros(200),
        }
    }

    fn total(&self) -> u64 {
        self.read.iter().sum()
    }

    /// Everybody who waits looks at the rate at once, as a change wakes them.
    fn change(&mut self, limit: u64) {
        self.rate.change(limit, self.now);
        self.places.iter_mut().for_each(|(_, at)| *at = self.now);
    }

    /// Lets time pass; returns the bytes that were read meanwhile.
    fn run(&mut self, time: Duration) -> u64 {
        let (before, end) = (self.total(), self.now + time);
        while let Some(who) = (0..self.places.len()).min_by_key(|who| self.places[*who].1)
            && self.places[who].1 < end
        {
            let (place, at) = self.places[who];
            self.now = self.now.max(at);
            let place = place.unwrap_or_else(|| self.rate.enter(4 << 20, self.now));
            self.places[who] = match self.rate.wait(&place, self.now) {
                Some(wait) => (Some(place), self.now + wait + self.late),
                None => {
                    self.read[who] += place.bytes;
                    (None, self.now + self.late)
                }
            };
        }
        self.now = end;
        self.total() - before
    }
}

#[track_caller]
fn assert_near(found: u64, expected: u64, percent: u64) {
    assert!(found.abs_diff(expected) * 100 <= expected * percent, "{found} instead of {expected}");
}

#[test]
fn the_rate_holds_over_every_second_and_for_every_thread() {
    for limit in [256 << 10, 1 << 20, 20 << 20, 100 << 20, 1 << 30] {
        for count in [1, 2, 7] {
            let mut readers = Readers::new(count, limit);
            // The first bytes need not wait.
            readers.run(SECOND);
            for _ in 0..20 {
                assert_near(readers.run(SECOND), limit, 8);
            }
            assert_near(readers.run(20 * SECOND), 20 * limit, 1);
            let (least, most) = (readers.read.iter().min().unwrap(), readers.read.iter().max().unwrap());
            assert!(most - least <= 2 * LARGEST.min(limit / PARTS), "{:?}", readers.read);
        }
    }
}

#[test]
fn readers_that_wake_late_catch_up() {
    let mut readers = Readers::new(2, 50 << 20);
    readers.late = 4 * MS;
    readers.run(SECOND);
    assert_near(readers.run(10 * SECOND), 500 << 20, 2);
}

#[test]
fn a_pause_is_not_followed_by_a_burst() {
    let mut readers = Readers::new(3, 10 << 20);
    readers.run(5 * SECOND);
    // Nobody asks for a while.
    readers.places.iter_mut().for_each(|(place, at)| {
        *place = None;
        *at = readers.now + 60 * SECOND;
    });
    readers.run(60 * SECOND);
    assert!(readers.run(100 * MS) <= (10 << 20) / 8 + (1 << 20));
    assert_near(readers.run(SECOND), 10 << 20, 8);
}

#[test]
fn a_change_acts_at_once_also_on_those_who_wait() {
    let mut readers = Readers::new(3, 64 << 10);
    readers.run(10 * SECOND);
    readers.change(100 << 20);
    assert_near(readers.run(SECOND), 100 << 20, 8);
    readers.change(1 << 20);
    // What had a place already is not more than a slice for each.
    readers.run(3 * SECOND);
    assert_near(readers.run(5 * SECOND), 5 << 20, 8);
}

#[test]
fn a_limit_may_come_and_go() {
    let mut readers = Readers::new(2, 0);
    assert!(readers.run(SECOND) > 1 << 30);
    readers.change(10 << 20);
    assert!(readers.run(SECOND) <= (10 << 20) + 3 * LARGEST);
    assert_near(readers.run(5 * SECOND), 50 << 20, 3);
    readers.change(0);
    assert!(readers.run(100 * MS) > 1 << 28, "nobody waits any longer");
    readers.change(10 << 20);
    readers.run(SECOND);
    assert_near(readers.run(5 * SECOND), 50 << 20, 3);
}

#[test]
fn the_smallest_and_the_largest_rates_are_no_trouble() {
    let mut readers = Readers::new(2, 1);
    assert!(readers.run(SECOND) <= SMALLEST);
    let place = readers.rate.enter(1 << 20, readers.now);
    assert_eq!(readers.rate.wait(&place, readers.now), Some(LONGEST));
    let mut rate = Rate::new(u64::MAX, SECOND);
    // A clock that goes backwards gives nothing away.
    for now in [2 * SECOND, SECOND, Duration::MAX] {
        let place = rate.enter(u64::MAX, now);
        assert_eq!(place.bytes, LARGEST);
        assert_eq!(rate.wait(&place, now), None);
    }
}
