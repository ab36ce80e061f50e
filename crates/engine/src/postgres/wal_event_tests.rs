use super::*;
use crate::postgres::wal_fixture::WalWriter;
use crate::postgres::wal_record::WalReader;
use pg_ark_contract::units::{Lsn, SegmentSize};

fn wal(magic: u16) -> WalWriter {
    let mut wal = WalWriter::new(Lsn(0x100_0000), SegmentSize::new(1 << 20).unwrap());
    wal.magic = magic;
    wal
}

/// What the events are, read in pieces of several sizes.
#[track_caller]
fn assert_events(wal: &WalWriter, expected: &[&str]) {
    for step in [1, 50, 8192, wal.bytes.len()] {
        let mut reader = WalReader::new(wal.start, wal.size, true);
        let mut events = Vec::new();
        for piece in wal.bytes.chunks(step) {
            reader.feed(piece, &mut |record| events.extend(record.event().map(|event| format!("{event:?}"))));
        }
        assert_eq!(events, expected, "{step} bytes at a time: {:?}", reader.stopped());
    }
}

#[test]
fn ends_of_transactions_say_who_and_when() {
    let mut wal = wal(0xD110);
    wal.commit(700, 1_000_000);
    wal.abort(701, -1);
    // A commit with flags and subtransactions: the time comes first in any case.
    let data: Vec<u8> = [&7i64.to_le_bytes()[..], &2u32.to_le_bytes(), &2u32.to_le_bytes(), &[9; 8]].concat();
    wal.record(1, 0x80, 702, &data);
    // With an origin and a top-level XID in front of the main data.
    let body: Vec<u8> = [&[253, 1, 0, 252, 9, 0, 0, 0, 255, 8][..], &8i64.to_le_bytes()].concat();
    wal.raw(1, 0, 703, &body);
    // PREPARE, and what other resource managers write under the same number.
    wal.record(1, 0x10, 704, &[0; 100]);
    wal.record(10, 0, 705, &[0; 100]);
    // Without a time it is nothing.
    wal.record(1, 0, 706, &[0; 7]);
    assert_events(
        &wal,
        &[
            "Commit { xid: 700, time: 1000000 }",
            "Abort { xid: 701, time: -1 }",
            "Commit { xid: 702, time: 7 }",
            "Commit { xid: 703, time: 8 }",
        ],
    );
}

/// Main data of a record that ends a prepared transaction: arrays with so many elements.
fn prepared(time: i64, flags: u32, counts: &[(u32, usize)], xid: u32) -> Vec<u8> {
    let mut data = time.to_le_bytes().to_vec();
    data.extend_from_slice(&flags.to_le_bytes());
    if flags & 1 != 0 {
        data.extend_from_slice(&[0xDD; 8]);
    }
    for (count, size) in counts {
        data.extend_from_slice(&count.to_le_bytes());
        data.resize(data.len() + *count as usize * size, 0xEE);
    }
    data.extend_from_slice(&xid.to_le_bytes());
    data.extend_from_slice(b"name\0");
    data
}

#[test]
fn a_prepared_transaction_is_named_by_its_own_number() {
    for (magic, item) in [(0xD110, 12), (0xD113, 12), (0xD116, 12), (0xD118, 16)] {
        let mut wal = wal(magic);
        let all = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 8);
        wal.record(1, 0x80 | 0x30, 9, &prepared(1, 1 << 4, &[], 801));
        let few = [(3, 4), (2, 12), (1, item), (4, 16)];
        wal.record(1, 0x80 | 0x30, 9, &prepared(2, all, &few, 802));
        // More than is kept of a record, over many pages.
        let many = [(5000, 4), (700, 12), (900, item), (3000, 16)];
        wal.record(1, 0x80 | 0x30, 9, &prepared(3, all, &many, 803));
        // An abort has no invalidations, whatever its flags say.
        wal.record(1, 0x80 | 0x40, 9, &prepared(4, all, &many[..3], 804));
        assert_events(
            &wal,
            &[
                "Commit { xid: 801, time: 1 }",
                "Commit { xid: 802, time: 2 }",
                "Commit { xid: 803, time: 3 }",
                "Abort { xid: 804, time: 4 }",
            ],
        );
    }
}

#[test]
fn a_prepared_transaction_without_its_number_has_none() {
    let mut wal = wal(0xD110);
    wal.record(1, 0x30, 9, &1i64.to_le_bytes());
    wal.record(1, 0x80 | 0x30, 9, &prepared(2, 0, &[], 5));
    wal.record(1, 0x80 | 0x30, 9, &prepared(3, 1 << 4 | 1 << 1, &[(u32::MAX, 0)], 5));
    let none = [1, 2, 3].map(|time| format!("Commit {{ xid: 0, time: {time} }}"));
    assert_events(&wal, &none.each_ref().map(|text| &text[..]));
}

#[test]
fn restore_points_have_any_name() {
    let mut wal = wal(0xD110);
    wal.restore_point(b"before", 5);
    wal.restore_point(&[b'x'; 64], 6);
    wal.restore_point(b"", 7);
    wal.record(0, 0x70, 0, &[1; 7]);
    wal.switch();
    // The server's field ends with a zero byte (MAXFNAMELEN).
    let x = format!("{:?}", [b'x'; 63]);
    assert_events(
        &wal,
        &[
            "RestorePoint { name: [98, 101, 102, 111, 114, 101], time: 5 }",
            &format!("RestorePoint {{ name: {x}, time: 6 }}"),
            "RestorePoint { name: [], time: 7 }",
            "Switch",
        ],
    );
}

#[test]
fn times_count_from_the_year_2000() {
    assert_eq!(to_utc(0).unwrap().to_rfc3339(), "2000-01-01T00:00:00+00:00");
    assert_eq!(to_utc(-1).unwrap().to_rfc3339(), "1999-12-31T23:59:59.999999+00:00");
    for time in [0, -1, 841_363_200_123_456] {
        assert_eq!(from_utc(to_utc(time).unwrap()), time);
    }
    // The infinities of PostgreSQL, and what chrono cannot hold.
    assert_eq!((to_utc(i64::MAX), to_utc(i64::MIN)), (None, None));
}
