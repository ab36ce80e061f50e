//! pg_waldump judges our reading of WAL: each test makes a real cluster, has it write, and compares every record with
//! what PostgreSQL's own reader says. `PG_CONFIG` chooses the version; run it for each supported one.

use pg_ark_contract::{Lsn, SegmentSize, Timeline};
use pg_ark_engine::postgres::control_file::{CONTROL_FILE, ControlFile};
use pg_ark_engine::postgres::timeline::{TimelineHistory, history_file_name};
use pg_ark_engine::postgres::wal_record::{Event, Record, WalReader, to_utc};
use pg_ark_engine::postgres::wal_segment::SegmentName;
use pg_ark_engine::wal::summary::{Summarizer, Summary};
use pg_ark_testkit::{Builder, Cluster, StopMode, run};
use std::fs;

/// Names of the resource managers as pg_waldump prints them (access/rmgrlist.h).
const RMGRS: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// What stands for the lost end of a record; it does not begin where the record before it ends.
const OVERWRITE: &str = "OVERWRITE_CONTRECORD";

/// A record, from pg_waldump or from us.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    start: Lsn,
    rmgr: String,
    length: u32,
    xid: u32,
    /// `COMMIT 731 2026-11-22 02:00:00.123456`, `RESTORE_POINT name`, `SWITCH`.
    event: Option<String>,
}

fn ours(record: &Record<'_>) -> Seen {
    let at = |time| to_utc(time).unwrap().format("%F %T%.6f").to_string();
    let event = record.event().map(|event| match event {
        Event::Commit { xid, time } => format!("COMMIT {xid} {}", at(time)),
        Event::Abort { xid, time } => format!("ABORT {xid} {}", at(time)),
        Event::RestorePoint { name, .. } => format!("RESTORE_POINT {}", String::from_utf8_lossy(name)),
        Event::Switch => "SWITCH".to_owned(),
    });
    let is_overwrite = (record.rmgr, record.info & 0xF0) == (0, 0xD0);
    let event = event.or_else(|| is_overwrite.then(|| OVERWRITE.to_owned()));
    let rmgr = RMGRS[usize::from(record.rmgr)].to_owned();
    Seen { start: record.start, rmgr, length: record.length, xid: record.xid, event }
}

/// A line such as `rmgr: Transaction len (rec/tot): 34/ 34, tx: 731, lsn: 0/0150F3D8, prev 0/0150F398, desc: COMMIT ...`.
fn theirs(line: &str) -> Seen {
    let after =
        |label: &str| line.split_once(label).unwrap_or_else(|| panic!("{label}: {line}")).1.trim_start();
    let until = |text: &'static str, label: &str| after(label).split(text).next().unwrap().trim().to_owned();
    let rmgr = until(" ", "rmgr: ");
    let xid: u32 = until(",", "tx: ").parse().unwrap();
    let desc = after("desc: ");
    let (kind, rest) = desc.split_once(' ').unwrap_or((desc, ""));
    // A prepared transaction is named before the time.
    let ended = |kind: &str| {
        let (of, time) = match rest.split_once(": ").filter(|(of, _)| of.parse::<u32>().is_ok()) {
            Some((of, time)) => (of.to_owned(), time),
            None => (xid.to_string(), rest),
        };
        Some(format!("{kind} {of} {}", &time[..26]))
    };
    let event = match (&rmgr[..], kind) {
        ("Transaction", "COMMIT" | "COMMIT_PREPARED") => ended("COMMIT"),
        ("Transaction", "ABORT" | "ABORT_PREPARED") => ended("ABORT"),
        ("XLOG", "RESTORE_POINT") => Some(format!("RESTORE_POINT {rest}")),
        ("XLOG", "SWITCH" | OVERWRITE) => Some(kind.to_owned()),
        _ => None,
    };
    let start = until(",", "lsn: ").parse().unwrap();
    let lengths = until(",", "len (rec/tot):");
    let length = lengths.split('/').next_back().unwrap().trim().parse().unwrap();
    Seen { start, rmgr, length, xid, event }
}

/// Where a test reads.
struct Wal<'a> {
    cluster: &'a Cluster,
    size: SegmentSize,
    /// Number of the first segment.
    first: u64,
}

impl<'a> Wal<'a> {
    /// From the segment that the server writes now.
    fn from_here(cluster: &'a Cluster) -> Self {
        let file = ControlFile::parse(&fs::read(cluster.data().join(CONTROL_FILE)).unwrap()).unwrap();
        let now: Lsn = cluster.psql("SELECT pg_current_wal_insert_lsn()").parse().unwrap();
        Wal { cluster, size: file.wal_segment_size, first: file.wal_segment_size.segment_of(now) }
    }

    fn segment(&self, timeline: u32, number: u64) -> Option<Vec<u8>> {
        let name = SegmentName { timeline: Timeline(timeline), number }.file_name(self.size);
        fs::read(self.cluster.data().join("pg_wal").join(name)).ok()
    }

    /// Reads on one timeline until the records end, `step` bytes at a time.
    fn read(&self, step: usize, check_crc: bool) -> (WalReader, Vec<(Seen, Lsn)>) {
        let mut reader = WalReader::new(self.size.start_of(self.first), self.size, check_crc);
        let mut seen = Vec::new();
        for bytes in (self.first..).map_while(|number| self.segment(1, number)) {
            for piece in bytes.chunks(step) {
                reader.feed(piece, &mut |record| seen.push((ours(record), record.end)));
            }
            if reader.stopped().is_some() {
                break;
            }
        }
        (reader, seen)
    }

    fn summary(&self, number: u64) -> Summary {
        let name = SegmentName { timeline: Timeline(1), number };
        let mut summarizer = Summarizer::new(name, self.size);
        summarizer.feed(&self.segment(1, number).unwrap());
        summarizer.finish()
    }

    /// Fails unless pg_waldump sees the same records, and the same end. Returns ours.
    #[track_caller]
    fn assert_same(&self) -> (WalReader, Vec<(Seen, Lsn)>) {
        let (reader, seen) = self.read(8191, true);
        let start = self.size.start_of(self.first).to_string();
        let mut tool = self.cluster.pg().tool("pg_waldump");
        let output = run(tool.arg("-p").arg(self.cluster.data().join("pg_wal")).args(["-s", &start]));
        let lines = output.stdout.lines().filter(|line| line.starts_with("rmgr: "));
        let expected: Vec<Seen> = lines.map(theirs).collect();
        for ((record, _), line) in seen.iter().zip(&expected) {
            assert_eq!(record, line);
        }
        assert_eq!(seen.len(), expected.len(), "{:?}\n{}", reader.stopped(), output.stderr);
        for pair in seen.windows(2).filter(|pair| pair[1].0.event.as_deref() != Some(OVERWRITE)) {
            self.assert_follows(pair[0].1, pair[1].0.start);
        }
        let stop = reader.stopped().expect("the WAL has an end");
        assert!(stop.lsn.0 % 8192 == 0 || output.stderr.contains(&stop.lsn.to_string()), "{}", output.stderr);
        assert_eq!(reader.end(), seen.last().map(|(_, end)| *end));
        // Neither the size of the pieces nor the checksums matter.
        let (whole, again) = self.read(1 << 30, false);
        assert!(again == seen && whole.end() == reader.end());
        (reader, seen)
    }

    /// The next record begins where one ends, or behind the page header that is there.
    #[track_caller]
    fn assert_follows(&self, end: Lsn, next: Lsn) {
        let header = match (end.0 % self.size.bytes(), end.0 % 8192) {
            (0, _) => 40,
            (_, 0) => 24,
            _ => 0,
        };
        assert_eq!(next, Lsn(end.0 + header));
    }

    /// Fails unless the summaries of all segments add up to the records.
    #[track_caller]
    fn assert_summaries(&self, reader: &WalReader, seen: &[(Seen, Lsn)]) {
        let end = reader.end().unwrap();
        let last = self.size.last_segment_before(end);
        let summaries: Vec<Summary> = (self.first..=last).map(|number| self.summary(number)).collect();
        let is = |word: &'static str| {
            move |(record, _): &&(Seen, Lsn)| record.event.iter().any(|e| e.starts_with(word))
        };
        // A record that is not whole in one segment is in neither summary.
        let whole_in_one = |(record, end): &&(Seen, Lsn)| {
            self.size.segment_of(record.start) == self.size.last_segment_before(*end)
        };
        let commits = seen.iter().filter(is("COMMIT")).filter(whole_in_one).count();
        assert_eq!(summaries.iter().map(|summary| summary.commits).sum::<u64>(), commits as u64);
        let points: Vec<Lsn> =
            summaries.iter().flat_map(|summary| &summary.restore_points).map(|point| point.lsn).collect();
        let expected: Vec<Lsn> = seen.iter().filter(is("RESTORE_POINT")).map(|(_, end)| *end).collect();
        assert_eq!(points, expected);
        let (tip, full) = summaries.split_last().unwrap();
        assert!(full.iter().all(|summary| summary.whole) && !tip.whole, "{summaries:#?}");
        assert_eq!(tip.end, end);
    }
}

fn builder(megabytes: u32) -> Builder {
    let mut builder = Cluster::builder().wal_segment_mb(megabytes).conf("wal_keep_size = 1GB");
    for line in [
        "autovacuum = off",
        "wal_level = logical", // records then name their top transaction
        "max_prepared_transactions = 5",
        "bgwriter_lru_maxpages = 0",
    ] {
        builder = builder.conf(line);
    }
    builder
}

/// Commits, rollbacks, subtransactions, page images, dropped tables, prepared transactions, an origin.
fn traffic(cluster: &Cluster, round: u32) {
    cluster.psql(&format!(
        "CREATE TABLE t{round} (i int PRIMARY KEY, x text);
         DO $$ BEGIN FOR i IN 1..300 LOOP INSERT INTO t{round} VALUES (i, repeat('x', i)); COMMIT; END LOOP; END $$;
         BEGIN; DELETE FROM t{round} WHERE i < 50; ROLLBACK;
         CHECKPOINT;
         UPDATE t{round} SET x = 'y';
         BEGIN;
         DO $$ BEGIN FOR i IN 1000..1100 LOOP
             BEGIN INSERT INTO t{round} VALUES (i, 'sub'); EXCEPTION WHEN OTHERS THEN NULL; END;
         END LOOP; END $$;
         PREPARE TRANSACTION 'subtransactions';
         BEGIN; CREATE TABLE gone{round} (i int PRIMARY KEY, x text);
         SAVEPOINT s; INSERT INTO gone{round} VALUES (1, 'x'); PREPARE TRANSACTION 'rolled back';
         COMMIT PREPARED 'subtransactions'; ROLLBACK PREPARED 'rolled back';
         DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format('CREATE TABLE many%s (i serial PRIMARY KEY, x text)', i); END LOOP; END $$;
         BEGIN;
         DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format('DROP TABLE many%s', i); END LOOP; END $$;
         SAVEPOINT s; INSERT INTO t{round} VALUES (5000, 'x');
         PREPARE TRANSACTION 'drops';
         COMMIT PREPARED 'drops';
         SELECT pg_replication_origin_create('o{round}'), pg_replication_origin_session_setup('o{round}');
         BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', now()); INSERT INTO t{round} VALUES (6000, 'x'); COMMIT;"
    ));
}

/// A restore point that is on disk when the server crashes: the commit behind it sees to that.
fn last_point(cluster: &Cluster) -> Lsn {
    let point = cluster.psql("SELECT pg_create_restore_point('last')").parse().unwrap();
    cluster.psql("INSERT INTO t1 VALUES (8000, 'x')");
    point
}

fn read_as_pg_waldump_does(megabytes: u32) {
    let cluster = builder(megabytes).start();
    let wal = Wal::from_here(&cluster);
    traffic(&cluster, 1);
    let point: Lsn = cluster.psql("SELECT pg_create_restore_point('before \"it\"')").parse().unwrap();
    cluster.psql("SELECT pg_switch_wal()");
    cluster.psql("SELECT pg_logical_emit_message(true, 'large', repeat('m', 3500000))");
    traffic(&cluster, 2);
    cluster.psql("SELECT pg_switch_wal(); INSERT INTO t1 VALUES (7000, 'x')");
    let last = last_point(&cluster);
    cluster.stop(StopMode::Immediate);
    let (reader, seen) = wal.assert_same();
    wal.assert_summaries(&reader, &seen);
    assert!(seen.iter().any(|(_, end)| *end == last), "{last}");

    let count = |word: &str| {
        seen.iter().filter(|(record, _)| record.event.iter().any(|e| e.starts_with(word))).count()
    };
    assert!(count("COMMIT") > 600 && count("ABORT") >= 4 && count("SWITCH") == 2);
    let named =
        seen.iter().find(|(record, _)| record.event.iter().any(|e| e == "RESTORE_POINT before \"it\""));
    assert_eq!(named.map(|(_, end)| *end), Some(point));
    let longest = seen.iter().map(|(record, _)| record.length).max();
    assert!(longest > Some(3_500_000), "{longest:?}");
    damage(&wal, &seen);
}

/// Whatever happens to a real segment, no record comes out that was not written.
fn damage(wal: &Wal<'_>, seen: &[(Seen, Lsn)]) {
    let sound = wal.segment(1, wal.first).unwrap();
    let start = wal.size.start_of(wal.first);
    let mut state = 88_172_645_463_325_252u64;
    let mut random = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % limit
    };
    for _ in 0..20 {
        let mut bytes = sound.clone();
        let at = random(bytes.len());
        let until = (at + random(50) + 1).min(bytes.len());
        bytes[at..until].iter_mut().for_each(|byte| *byte = random(256) as u8);
        let mut reader = WalReader::new(start, wal.size, true);
        let mut found = Vec::new();
        for piece in bytes.chunks(random(100_000) + 1) {
            reader.feed(piece, &mut |record| found.push((ours(record), record.end)));
        }
        assert!(seen.starts_with(&found), "{at}..{until}: {:?}", found.last());
        let before = seen.iter().filter(|(_, end)| end.0 <= start.0 + at as u64).count();
        assert!(found.len() >= before, "{at}..{until}: {:?}", reader.stopped());
    }
}

#[test]
fn records_in_segments_of_1_mb_are_read_as_pg_waldump_does() {
    read_as_pg_waldump_does(1);
}

#[test]
fn records_in_segments_of_16_mb_are_read_as_pg_waldump_does() {
    read_as_pg_waldump_does(16);
}

/// As PostgreSQL's own test 026_overwrite_contrecord makes it: a crash loses the segment in which a record ends.
#[test]
fn a_record_whose_end_was_lost_is_skipped_as_pg_waldump_does() {
    let cluster = builder(1).start();
    let wal = Wal::from_here(&cluster);
    cluster.psql("CREATE TABLE t (i int)");
    let end = cluster.psql("SELECT pg_logical_emit_message(true, 'x', repeat('m', 3000000))");
    let end: Lsn = end.parse().unwrap();
    cluster.stop(StopMode::Immediate);
    let (before, _) = wal.assert_same();
    for number in wal.size.segment_of(end)..wal.size.segment_of(end) + 20 {
        let name = SegmentName { timeline: Timeline(1), number }.file_name(wal.size);
        let _ = fs::remove_file(cluster.data().join("pg_wal").join(name));
    }
    cluster.start();
    cluster.psql("INSERT INTO t VALUES (1)");
    cluster.stop(StopMode::Immediate);
    let (after, seen) = wal.assert_same();
    wal.assert_summaries(&after, &seen);
    assert!(before.end() > Some(end), "{:?} {end}", before.end());
    assert!(seen.iter().all(|(record, _)| record.length < 3_000_000));
    assert!(seen.iter().any(|(record, _)| record.event.as_deref() == Some(OVERWRITE)));
}

#[test]
fn records_go_on_over_a_promotion() {
    let cluster = builder(1).start();
    let wal = Wal::from_here(&cluster);
    let standby = cluster.create_standby(&[]);
    traffic(&cluster, 1);
    cluster.wait_for_standby(&standby);
    standby.promote();
    traffic(&standby, 2);
    let last = last_point(&standby);
    let text = fs::read(standby.data().join("pg_wal").join(history_file_name(Timeline(2)))).unwrap();
    let fork = TimelineHistory::parse(Timeline(2), &text).unwrap().entries[0].switch_lsn;
    standby.stop(StopMode::Immediate);

    let side = Wal { cluster: &standby, ..wal };
    let mut reader = WalReader::new(wal.size.start_of(wal.first), wal.size, true);
    let mut ends = Vec::new();
    for number in wal.first..=wal.size.segment_of(last) {
        // The segment in which the new timeline begins holds a copy of the old one's part.
        let bytes = match number < wal.size.segment_of(fork) {
            true => wal.segment(1, number),
            false => side.segment(2, number),
        };
        reader.feed(&bytes.unwrap(), &mut |record| ends.push(record.end));
    }
    assert!(ends.contains(&fork), "{fork}: {:?}", reader.stopped());
    assert!(ends.contains(&last), "{last}: {:?}", reader.stopped());
}
