//! Promise 7: no data in the repository is trusted. Valid samples of every format, changed at random, go through every reader:
//! none panics, none takes long, and none takes more memory than its input is worth.

#[allow(missing_docs)]
#[path = "../../../fuzz/src/readers/mod.rs"]
mod readers;

use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use readers::{READERS, Reader, run, samples};
use std::time::{Duration, Instant};

/// Counts what is allocated.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Changed samples for each reader, unless `PG_ARK_HOSTILE_CASES` asks for more.
const CASES: u32 = 120;
/// No sample is large, so no reader needs longer, on any machine.
const LONGEST: Duration = Duration::from_secs(10);

/// A change to bytes; places are parts of the length, of 65536.
#[derive(Debug, Clone)]
enum Change {
    Flip(u16, u8),
    Cut(u16),
    Zero(u16, u8),
    Fill(u16, u8, u8),
    Repeat(u16, u16, u8),
    Move(u16, u16, u16),
    Insert(u16, Vec<u8>),
    Number(u16, u8),
    Text(u16, u8),
}

/// Numbers that arithmetic trips over, in text and in memory.
const NUMBERS: [&[u8]; 12] = [
    b"-1",
    b"0",
    b"1.5",
    b"1e400",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"FFFFFFFF/FFFFFFFF",
    &[0xFF; 8],
    &[0x7F, 0xFF, 0xFF, 0xFF],
    &[0, 0, 0, 0x80],
];

/// Text that harms where it is shown or joined to a path.
const TEXTS: [&str; 8] =
    ["\\u001b]0;x\\u0007", "\\n", "\u{1b}[2J", "\r\n", "../", "/", "\u{202e}", "\\ud800"];

fn change() -> impl Strategy<Value = Change> {
    let at = any::<u16>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), any::<u8>()).prop_map(|(at, len)| Change::Zero(at, len)),
        1 => (at(), any::<u8>(), any::<u8>()).prop_map(|(at, len, byte)| Change::Fill(at, len, byte)),
        2 => (at(), at(), 1u8..20).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        2 => (at(), at(), at()).prop_map(|(from, to, at)| Change::Move(from, to, at)),
        1 => (at(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        3 => (at(), any::<u8>()).prop_map(|(at, which)| Change::Number(at, which)),
        2 => (at(), any::<u8>()).prop_map(|(at, which)| Change::Text(at, which)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let place = |at: u16| usize::from(at) * len / (1 << 16);
        let span = |from: u16, to: u16| place(from.min(to))..place(from.max(to));
        let few = |at: u16, count: u8| place(at)..(place(at) + usize::from(count)).min(len);
        match self {
            Change::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(place(*at)) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Change::Cut(at) => bytes.truncate(place(*at)),
            Change::Zero(at, count) => bytes[few(*at, *count)].fill(0),
            Change::Fill(at, count, with) => bytes[few(*at, *count)].fill(*with),
            Change::Repeat(from, to, times) => {
                let piece = bytes[span(*from, *to)].repeat(usize::from(*times));
                // What grows with each change would be gigabytes after some.
                let end = place(*from.max(to));
                bytes.splice(end..end, piece.into_iter().take(64 << 10));
            }
            Change::Move(from, to, at) => {
                let piece = bytes[span(*from, *to)].to_vec();
                bytes.splice(place(*at)..place(*at), piece.into_iter().take(64 << 10));
            }
            Change::Insert(at, piece) => {
                bytes.splice(place(*at)..place(*at), piece.iter().copied());
            }
            Change::Text(at, which) => {
                // Into a string, where there is one.
                let quote = (place(*at)..len).find(|at| bytes[*at] == b'"').map_or(place(*at), |at| at + 1);
                bytes.splice(quote..quote, TEXTS[usize::from(*which) % TEXTS.len()].bytes());
            }
            Change::Number(at, which) => {
                let number = NUMBERS[usize::from(*which) % NUMBERS.len()];
                // In text, in place of the number that stands next.
                let begin = (place(*at)..len).find(|at| bytes[*at].is_ascii_digit()).unwrap_or(place(*at));
                let digits = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(begin..begin + digits, number.iter().copied());
            }
        }
    }
}

/// One test for all readers: they are many, and quick.
#[test]
fn promise_7_changed_bytes_harm_no_reader() {
    let _alone = alone();
    let wanted = std::env::var("PG_ARK_HOSTILE_CASES").ok().and_then(|text| text.parse().ok());
    let cases = wanted.unwrap_or(CASES);
    for reader in READERS {
        let samples = samples::of(reader.name);
        samples.iter().for_each(|sample| read(reader, sample));
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let ran = runner.run(&(0..samples.len(), vec(change(), 1..6)), |(number, changes)| {
            let mut bytes = samples[number].clone();
            changes.iter().for_each(|change| change.apply(&mut bytes));
            read(reader, &bytes);
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{}: {error}", reader.name));
    }
}

/// Bytes that were made to do harm, rather than changed by chance.
#[test]
fn promise_7_made_up_bytes_harm_no_reader() {
    let _alone = alone();
    let deep = |open: &str| open.repeat(200_000 / open.len());
    let huge = format!("{{\"format\":1,\"x\":[{}0]}}", "0,".repeat(100_000));
    let made_up = [
        Vec::new(),
        vec![0; 100_000],
        vec![0xFF; 100_000],
        vec![b'\n'; 100_000],
        vec![b'"'; 100_000],
        deep("[").into_bytes(),
        deep("{\"a\":").into_bytes(),
        format!("{{\"format\":1,\"a\":{}", deep("[")).into_bytes(),
        huge.into_bytes(),
        format!("{{\"format\":{}}}", "9".repeat(50_000)).into_bytes(),
        format!("{{\"format\":1,\"format\":1}}{}", " ".repeat(50_000)).into_bytes(),
        b"{\"format\":1}\n".repeat(5000),
        "\u{1b}]0;x\u{7}\u{202e}\r\n".repeat(2000).into_bytes(),
    ];
    for reader in READERS {
        made_up.iter().for_each(|bytes| read(reader, bytes));
    }
}

/// Tests of one program run at the same time, and memory is counted for all.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read(reader: &Reader, bytes: &[u8]) {
    MEMORY.reset_peak_usage();
    let (before, begun) = (MEMORY.current_usage(), Instant::now());
    run(reader.name, bytes);
    let (took, held) = (begun.elapsed(), MEMORY.peak_usage().saturating_sub(before));
    let most = reader.memory + reader.per_byte * bytes.len();
    assert!(held <= most, "{}: {held} bytes for {} of input, more than {most}", reader.name, bytes.len());
    assert!(took < LONGEST, "{}: {took:?} for {} bytes", reader.name, bytes.len());
}
