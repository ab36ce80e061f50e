//! Readers that take their input in pieces: tar, frames, WAL.

use super::formats::assert_showable;
use pg_ark_contract::settings::Codec;
use pg_ark_contract::{Lsn, Result, SegmentSize, Timeline};
use pg_ark_engine::codec::frame::{self, MAX_FRAME};
use pg_ark_engine::postgres::timeline::TimelineHistory;
use pg_ark_engine::postgres::wal_record::{Event, Record, WalReader};
use pg_ark_engine::postgres::wal_segment::{
    ExpectedSegment, SegmentName, check_first_page, check_first_page_on,
};
use pg_ark_engine::restore::config_archive;
use pg_ark_engine::stored::names;
use pg_ark_engine::stored::tar_reader::{Kind, Member, Sink, TarReader};
use pg_ark_engine::wal::summary::{MAX_RESTORE_POINTS, Summarizer};
use std::io::Read;
use std::ops::Range;

/// Pieces of changing sizes.
fn pieces(bytes: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut size) = (bytes, 0);
    std::iter::from_fn(move || {
        size = size % most + 1;
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Remembers what a tar holds.
#[derive(Default)]
struct Seen {
    members: Vec<(Member, u64)>,
}

impl Sink for Seen {
    fn member(&mut self, member: Member) -> Result<()> {
        assert!(member.path.len() <= 4097, "a path of {} bytes", member.path.len());
        assert!(member.mode <= 0o7777);
        if let Kind::Link(target) = &member.kind {
            assert!(target.len() <= 4097);
        }
        assert!(member.kind == Kind::File || member.size == 0);
        if let Ok(path) = names::safe_path(&member.path) {
            let _ = names::check_link(&member, &path);
        }
        self.members.push((member, 0));
        Ok(())
    }

    fn content(&mut self, offset: u64, range: Range<usize>) -> Result<()> {
        let (member, got) = self.members.last_mut().expect("content of a member");
        assert_eq!(offset, *got);
        *got += range.len() as u64;
        assert!(*got <= member.size && !range.is_empty());
        Ok(())
    }
}

/// A tar, as it is, and with the checksums of its headers put right.
pub fn tar_reader(bytes: &[u8]) {
    for bytes in [bytes, &with_sums(bytes)] {
        let read = |mut pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut reader, mut seen) = (TarReader::new(), Seen::default());
            let fed = (&mut pieces).try_for_each(|piece| reader.feed(piece, &mut seen));
            let end = fed.and_then(|()| reader.finish()).inspect_err(assert_showable);
            (end.is_ok(), seen.members)
        };
        let whole = read(&mut std::iter::once(bytes));
        assert_eq!(whole, read(&mut pieces(bytes, 700)));
        if whole.0 {
            assert!(whole.1.iter().all(|(member, got)| *got == member.size));
        }
    }
}

fn with_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// `config.tar`.
pub fn config_archive(bytes: &[u8]) {
    for bytes in [bytes, &with_sums(bytes)] {
        match config_archive::parse(bytes) {
            Ok(members) => {
                let content = members.iter().filter_map(|m| m.content.as_ref()).map(Vec::len).sum::<usize>();
                assert!(content <= bytes.len());
                for member in &members {
                    assert!(member.path.is_absolute() && member.mode <= 0o777);
                    assert!(!member.path.components().any(|c| c == std::path::Component::ParentDir));
                }
            }
            Err(error) => assert_showable(&error),
        }
    }
}

const CODECS: [Codec; 4] = [Codec::Zstd, Codec::Gzip, Codec::Lz4, Codec::None];

/// A frame; the first byte says of which codec, the next three how many bytes it promises.
pub fn frame_decode(bytes: &[u8]) {
    let Some(([codec, a, b, c], stored)) = bytes.split_first_chunk::<4>() else { return };
    let codec = CODECS[usize::from(*codec) % CODECS.len()];
    let size = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    let mut out = Vec::new();
    match frame::decode(codec, stored, size, &mut out) {
        Ok(()) => assert_eq!(out.len(), size),
        Err(error) => assert_showable(&error),
    }
    assert!(out.capacity() <= size + (1 << 12), "{} for a frame of {size}", out.capacity());
    assert!(frame::decode(codec, stored, MAX_FRAME + 1, &mut out).is_err());
}

/// A stream of frames; the first byte says of which codec. Nothing asks for more than it can take.
pub fn frame_stream(bytes: &[u8]) {
    let Some(([codec], stored)) = bytes.split_first_chunk::<1>() else { return };
    let codec = CODECS[usize::from(*codec) % CODECS.len()];
    let read = |most: usize, stored: &mut (dyn Read + Send)| {
        let Ok(mut stream) = frame::stream(codec, stored) else { return None };
        let (mut buffer, mut sum, mut total) = (vec![0; most], 0, 0);
        while total < 8 << 20 {
            match stream.read(&mut buffer) {
                Ok(0) => return Some((sum, total)),
                Ok(count) => {
                    sum = crc32c::crc32c_append(sum, &buffer[..count]);
                    total += count;
                }
                Err(_) => return None,
            }
        }
        None
    };
    let whole = read(1 << 16, &mut &stored[..]);
    let drops = read(1 << 12, &mut Few(stored));
    assert_eq!(whole, drops);
}

/// A source that gives at most 100 bytes at a time.
struct Few<'a>(&'a [u8]);

impl Read for Few<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = buf.len().min(100);
        self.0.read(&mut buf[..len])
    }
}

const SIZE: u32 = 1 << 20;

/// What a reader tells about a record.
type Told = (Lsn, Lsn, u8, u8, u32, u32, Option<String>);

fn told(record: &Record<'_>) -> Told {
    let event = record.event();
    if let Some(Event::RestorePoint { name, .. }) = event {
        assert!(name.len() < 64, "a restore point's name of {} bytes", name.len());
    }
    let event = event.map(|event| format!("{event:?}"));
    (record.start, record.end, record.rmgr, record.info, record.xid, record.length, event)
}

/// WAL from any segment on: the first byte says from which.
pub fn wal_reader(bytes: &[u8]) {
    let Some(([first], wal)) = bytes.split_first_chunk::<1>() else { return };
    let size = SegmentSize::new(SIZE).unwrap();
    // The last ones are at the very end of what an LSN can name.
    let number = match *first {
        number @ 0..=199 => u64::from(number),
        other => u64::MAX / size.bytes() - u64::from(u8::MAX - other),
    };
    let start = size.start_of(number);
    let mut wal = wal.to_vec();
    // The address of the first page depends on that; the rest of the pages follow by themselves where there are any.
    for (page, header) in wal.chunks_mut(8192).enumerate().filter(|_| *first != 0) {
        if let Some(address) = header.get_mut(8..16) {
            let at = start.0.saturating_add(page as u64 * 8192);
            address.copy_from_slice(&at.to_le_bytes());
        }
    }
    for check_crc in [false, true] {
        let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut reader = WalReader::new(start, size, check_crc);
            let mut records = Vec::new();
            pieces.for_each(|piece| reader.feed(piece, &mut |record| records.push(told(record))));
            (records, reader.end(), reader.stopped().cloned(), reader.pending())
        };
        let whole = read(&mut std::iter::once(&wal[..]));
        for pair in whole.0.windows(2) {
            assert!(pair[0].1 <= pair[1].0 && pair[1].0 < pair[1].1, "{pair:?}");
        }
        if let Some(stop) = &whole.2 {
            assert!(stop.why.len() < 300 && !stop.why.contains(char::is_control), "{stop:?}");
        }
        assert_eq!(whole, read(&mut pieces(&wal, 300)));
    }
    let name = SegmentName { timeline: Timeline(1), number };
    let mut summarizer = Summarizer::new(name, size);
    summarizer.feed(&wal);
    let summary = summarizer.finish();
    assert!(summary.restore_points.len() <= MAX_RESTORE_POINTS);
    assert!((name.start(size)..=name.next().start(size)).contains(&summary.end), "{summary:?}");
}

/// The first page of a segment; the first 12 bytes say which segment of which timeline.
pub fn wal_page(bytes: &[u8]) {
    let Some((head, page)) = bytes.split_first_chunk::<12>() else { return };
    let timeline = u32::from_le_bytes([head[0], head[1], head[2], head[3]]).max(1);
    let lsn = u64::from_le_bytes([head[4], head[5], head[6], head[7], head[8], head[9], head[10], head[11]]);
    let segment_size = SegmentSize::new(SIZE).unwrap();
    let expected = ExpectedSegment {
        name: SegmentName { timeline: Timeline(timeline), number: segment_size.segment_of(Lsn(lsn)) },
        segment_size,
        system_identifier: super::wal_fixture::SYSTEM_IDENTIFIER,
        server_major: (lsn % 2 == 0).then_some(15),
    };
    let plain = check_first_page(page, &expected).inspect_err(assert_showable);
    let history = TimelineHistory::parse(Timeline(timeline), b"1\t0/5000000\tx\n")
        .unwrap_or_else(|_| TimelineHistory::without_ancestors(Timeline(timeline)));
    let along = check_first_page_on(page, &expected, &history).inspect_err(assert_showable);
    assert!(plain.is_ok() || along.is_err());
}
