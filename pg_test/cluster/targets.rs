//! Recovery to a moment: it lands exactly there, along the right timeline, or is refused before anything is written.
//! Cases of PostgreSQL's own recovery tests 003, 028 and 039 are here too, where they are about targets.

use crate::archiving::{archive_now, archiving, object, switch_wal, wait_archived};
use crate::support::{Ready, fails_with, names_below, pgark_of};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::process::{CONTINUE, STOP, send_signal};
use pg_ark_testkit::{Builder, Cluster, LONG, Output, Scratch, StopMode, run, run_ok, wait_until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

/// A row for each transaction that was told to be committed.
const MARKS: &str = "CREATE TABLE marks (n int PRIMARY KEY)";

fn builder() -> Builder {
    Cluster::builder().wal_segment_mb(1).conf("wal_keep_size = '2GB'").conf("autovacuum = off")
}

/// A place to restore to, while the origin does not run: copies use its socket.
struct Room {
    folder: Scratch,
}

impl Room {
    fn new() -> Room {
        Room { folder: Scratch::new("targets") }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `pgark restore BACKUP OPTIONS`.
    fn restore(&self, ready: &Ready, backup: &str, name: &str, options: &[&str]) -> Command {
        let mut pgark = ready.pgark();
        pgark.args(["--format", "json", "restore", backup, "--pgdata"]).arg(self.data(name)).args(options);
        pgark
    }

    /// Restores and starts; returns the server and the report.
    #[track_caller]
    fn started(&self, ready: &Ready, backup: &str, name: &str, options: &[&str]) -> (Cluster, Value) {
        let mut pgark = self.restore(ready, backup, name, options);
        let report = json(&run(pgark.arg("--start")).ok());
        (Cluster::open_restored_with(ready.server.pg(), &self.data(name)), report)
    }

    /// Runs pgark, expects a refusal of this kind that says `words`, and nothing written.
    #[track_caller]
    fn refused(&self, ready: &Ready, options: &[&str], kind: ErrorKind, words: &[&str]) {
        let output =
            fails_with(&mut self.restore(ready, "latest", "refused", options), i32::from(kind.exit_code()));
        for word in words {
            assert!(output.stderr.contains(word), "\"{word}\" expected of {options:?}: {output}");
        }
        assert!(!self.data("refused").exists(), "something was written: {options:?}");
    }
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// When and where transactions were committed, as pg_waldump sees it: XID to LSN and time.
fn commits(server: &Cluster, from: &str) -> BTreeMap<u32, (u64, String)> {
    let mut waldump = server.pg().tool("pg_waldump");
    waldump.env("TZ", "UTC").args(["--rmgr=Transaction", "--start", from, "--path"]);
    // It ends with an error at the end of the WAL.
    let text = run(waldump.arg(server.data().join("pg_wal"))).stdout;
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("desc: COMMIT ")) {
        let part = |name: &str| line.split_once(name).map(|(_, rest)| rest.trim_start()).expect("a part");
        let xid = part("tx:").split([',', ' ']).next().expect("a number").parse().expect("an XID");
        let lsn = part("lsn:").split(',').next().map(lsn).expect("an LSN");
        let time = part("desc: COMMIT ").split(" UTC").next().expect("a time").to_string();
        found.insert(xid, (lsn, time));
    }
    found
}

fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hexadecimal") << 32
        | u64::from_str_radix(low, 16).expect("hexadecimal")
}

fn shown(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

/// XIDs of every row that a client wrote.
fn written(server: &Cluster) -> BTreeSet<u32> {
    let rows = server.psql("SELECT xmin FROM marks UNION SELECT xmin FROM pgbench_history");
    rows.lines().map(|xid| xid.parse().expect("an XID")).collect()
}

fn marks(server: &Cluster) -> String {
    server.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM marks")
}

fn add_mark(server: &Cluster, n: u32) {
    server.psql(&format!("INSERT INTO marks VALUES ({n})"));
}

/// Now, by the server's clock, with its zone.
fn now(server: &Cluster) -> String {
    server.psql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || 'Z'")
}

/// Whether a transaction is expected.
type Judge<'a> = &'a dyn Fn(&u32) -> bool;

#[test]
fn recovery_under_load_lands_exactly_on_a_time_an_lsn_a_transaction_and_a_name() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    server.pgbench(&["-i", "-q", "-s", "2"]);
    let begin = server.psql("SELECT pg_current_wal_lsn()");
    let load = server.pgbench_background(&["-n", "-c", "4", "-T", "600"]);
    let backup = ready.take_backup();
    let mut xids = Vec::new();
    for n in 1..=30 {
        let xid = "WITH x AS (INSERT INTO marks VALUES ({}) RETURNING pg_current_xact_id()) SELECT * FROM x";
        xids.push(server.psql(&xid.replace("{}", &n.to_string())).parse::<u32>().expect("an XID"));
        if n == 15 {
            server.psql("SELECT pg_create_restore_point('half way')");
        }
        if n == 20 {
            ready.take_backup();
        }
    }
    load.stop(server);
    archive_now(&ready);
    let (origin, commits) = (written(server), commits(server, &begin));
    assert!(origin.iter().all(|xid| commits.contains_key(xid)), "pg_waldump saw each");
    let (at, time) = commits[&xids[11]].clone();
    server.destroy();

    let (xid, place, zoned) = (xids[11].to_string(), shown(at), format!("{time}+00"));
    let room = Room::new();
    let before = |xid: &u32| commits[xid].0 < at;
    let upto = |xid: &u32| commits[xid].0 <= at;
    let earlier = |xid: &u32| commits[xid].1 < time;
    let not_later = |xid: &u32| commits[xid].1 <= time;
    let cases: [(&[&str], Judge<'_>); 6] = [
        (&["--target-lsn", &place], &upto),
        (&["--target-lsn", &place, "--exclusive"], &before),
        (&["--target-xid", &xid], &upto),
        (&["--target-xid", &xid, "--exclusive"], &before),
        (&["--target-time", &zoned], &not_later),
        (&["--target-time", &zoned, "--exclusive"], &earlier),
    ];
    for (number, (options, is_there)) in cases.into_iter().enumerate() {
        let (copy, report) = room.started(&ready, "latest", &number.to_string(), options);
        assert_eq!(report["plan"]["backup"], backup[..], "the first backup: {options:?}");
        assert_eq!(report["started"]["complete"], true, "{report}");
        let expected: BTreeSet<u32> = origin.iter().copied().filter(is_there).collect();
        let found = written(&copy);
        let (more, less) = (found.difference(&expected).count(), expected.difference(&found).count());
        assert_eq!((more, less), (0, 0), "{options:?}: too many, too few of {}", expected.len());
        assert_eq!(copy.psql("SHOW archive_mode"), "off", "a copy");
    }
    let (copy, report) = room.started(&ready, "latest", "name", &["--target-name", "half way"]);
    assert_eq!(report["plan"]["backup"], backup[..]);
    assert_eq!(copy.psql("SELECT count(*), max(n) FROM marks"), "15|15");
    drop(copy);
    let (copy, report) = room.started(&ready, "latest", "end", &[]);
    assert_ne!(report["plan"]["backup"], backup[..], "the newest backup");
    assert_eq!(written(&copy), origin);
    assert_eq!(report["started"]["reached_lsn"], report["started"]["known_end"]["lsn"]);
    assert_eq!(
        (&report["started"]["timeline"], &report["started"]["not_replayed_bytes"]),
        (&2.into(), &0.into())
    );
    copy.amcheck();
}

#[test]
fn what_cannot_be_reached_is_refused_before_anything_is_written() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    add_mark(server, 1);
    let before = now(server);
    add_mark(server, 2);
    ready.take_backup();
    add_mark(server, 3);
    let between = now(server);
    add_mark(server, 4);
    let gone = archive_now(&ready);
    add_mark(server, 5);
    let last = now(server);
    add_mark(server, 6);
    archive_now(&ready);
    let open = server.psql("BEGIN; INSERT INTO marks VALUES (7); SELECT pg_current_xact_id(); ROLLBACK");
    let open = open.lines().last().expect("an XID").to_string();
    let end = server.psql("SELECT pg_current_wal_insert_lsn()");
    let room = Room::new();
    let unreachable = ErrorKind::TargetUnreachable;
    let check = |options: &[&str], words: &[&str]| room.refused(&ready, options, unreachable, words);
    check(
        &["--target-time", &before],
        &["before the end of the oldest backup", "What can be reached: 0/", "timeline 1"],
    );
    check(
        &["--target-time", "2099-01-01T00:00:00Z"],
        &["the last transaction that is stored ended at 2", "latest"],
    );
    check(&["--target-lsn", &end], &["the WAL that is stored ends at"]);
    check(&["--target-lsn", "0/28"], &["before the end of the oldest backup"]);
    check(&["--target-xid", "999999"], &["transaction 999999", "did not end"]);
    // It ended behind what is stored.
    check(&["--target-xid", &open], &["did not end"]);
    check(&["--target-name", "nowhere"], &["restore point \"nowhere\"", "not in the WAL"]);
    check(&["--target-timeline", "7"], &["timeline 7", "Timelines with WAL or backups: 1"]);
    let invalid = |options: &[&str], words: &[&str]| {
        room.refused(&ready, options, ErrorKind::InvalidArgument, words);
    };
    invalid(
        &["--target-time", "2026-11-22 14:30:00"],
        &["has no zone", "2026-11-22T14:30:00Z if it is in UTC"],
    );
    invalid(&["--target-time", "2026-11-22 14:30:00 CST"], &["unique"]);
    invalid(&["--target-lsn", "0/28", "--target-xid", "5"], &["cannot be used with"]);
    invalid(&["--target", "immediate", "--exclusive"], &["cannot be used with"]);
    invalid(&["--target-action", "pause"], &["need a target"]);
    invalid(&["--standby", "--target-xid", "5"], &["cannot be used with"]);

    fs::remove_file(object(&ready, &gone).expect("stored")).expect("could not remove a segment");
    check(&[], &["the end of the WAL cannot be reached", "WAL is missing behind 0/", &gone, "--keep-wal"]);
    check(&["--target-time", &last], &["WAL is missing", &gone]);
    // Behind the hole no backup is left, before it one is.
    let mut plan = room.restore(&ready, "latest", "plan", &["--target", "immediate", "--dry-run"]);
    assert_eq!(json(&run(&mut plan).ok())["recovery"]["target"]["kind"], "immediate");
    check(&["--target-time", &between], &["WAL is missing"]);
    assert_eq!(names_below(room.folder.path()), Vec::<String>::new());
}

#[test]
fn a_dry_run_tells_everything_and_touches_nothing() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    let backup = ready.take_backup();
    add_mark(server, 1);
    let moment = now(server);
    add_mark(server, 2);
    let segment = archive_now(&ready);
    let room = Room::new();
    let options = ["--target-time", &moment, "--target-action", "pause", "--dry-run"];
    let plan = json(&run(&mut room.restore(&ready, "latest", "new", &options)).ok());
    assert_eq!(plan["backup"], backup[..]);
    let recovery = &plan["recovery"];
    assert_eq!((&recovery["target"]["kind"], &recovery["action"]), (&"time".into(), &"pause".into()));
    let in_utc = moment.replace(' ', "T");
    let told = recovery["target"]["value"].as_str().expect("a time").trim_end_matches('Z');
    assert!(in_utc.starts_with(told.trim_end_matches('0')), "{told} is {in_utc}");
    assert_eq!((&recovery["timeline"], &recovery["wal_included"]), (&1.into(), &false.into()));
    assert_eq!((&recovery["last_segment"], &recovery["archive_mode"]), (&segment[..].into(), &"off".into()));
    let command = recovery["restore_command"].as_str().expect("a command");
    let program = pgark_of(server.pg()).display().to_string();
    assert!(command.starts_with(&program) && command.ends_with("wal-get \"%f\" \"%p\""), "{command}");

    let mut pgark = ready.pgark();
    pgark.args(["restore", "--pgdata"]).arg(room.data("new")).args(options);
    let text = run(&mut pgark).ok();
    for word in
        ["Recovers to:", " time 2", "Z (0/", "it pauses", "Timeline:", "WAL:", &segment, "Archiving:", "off"]
    {
        assert!(text.contains(word), "\"{word}\" expected: {text}");
    }
    assert_eq!(names_below(room.folder.path()), Vec::<String>::new());
}

#[test]
fn timelines_are_followed_as_they_are_named() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    let first = ready.take_backup();
    add_mark(server, 1);
    let moment = now(server);
    add_mark(server, 2);
    archive_now(&ready);
    let second = ready.take_backup();
    add_mark(server, 3);
    archive_now(&ready);
    server.destroy();

    // Back to the old place and to the past: timeline 2, which archives.
    let mut pgark = ready.pgark();
    pgark
        .args(["--format", "json", "restore", "--target-time", &moment, "--start", "--pgdata"])
        .arg(server.data());
    let report = json(&run(&mut pgark).ok());
    assert_eq!((&report["plan"]["backup"], &report["started"]["timeline"]), (&first[..].into(), &2.into()));
    assert_eq!(report["plan"]["recovery"]["archive_mode"], "keep");
    assert_eq!(marks(server), "1");
    assert_eq!(server.psql("SELECT count(*) FROM pg_file_settings WHERE name = 'restore_command'"), "0");
    add_mark(server, 20);
    archive_now(&ready);
    wait_archived(&ready, "00000002.history");
    server.stop(StopMode::Fast);

    let room = Room::new();
    let check = |name: &str, backup: &str, options: &[&str], from: &str, expected: &str, timeline: u32| {
        let (copy, report) = room.started(&ready, backup, name, options);
        let used = (&report["plan"]["backup"], &report["started"]["followed_timeline"]);
        assert_eq!(used, (&from.into(), &timeline.into()), "{name}");
        assert_eq!(marks(&copy), expected, "{name}");
        assert_eq!(report["started"]["timeline"], 3, "{name}: never a number that the archive knows");
    };
    check("latest", "latest", &[], &first, "1,20", 2);
    check("number", "latest", &["--target-timeline", "1"], &second, "1,2,3", 1);
    check("current", "latest", &["--target-timeline", "current"], &second, "1,2,3", 1);
    check("named", &first, &["--target-timeline", "current"], &first, "1,2,3", 1);
    // The second backup was taken behind the fork.
    check("other", &second, &[], &second, "1,2,3", 1);
    let mut wrong = room.restore(&ready, &second, "wrong", &["--target-timeline", "2"]);
    let output = fails_with(&mut wrong, i32::from(ErrorKind::TargetUnreachable.exit_code()));
    assert!(output.stderr.contains("timeline 2 does not continue this backup"), "{output}");
}

/// What a fork left behind is not passed over in silence.
#[test]
fn a_time_that_two_timelines_have_is_refused_until_one_is_named() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    ready.take_backup();
    add_mark(server, 1);
    let past = now(server);
    add_mark(server, 2);
    let between = now(server);
    add_mark(server, 3);
    archive_now(&ready);
    server.destroy();
    let mut pgark = ready.pgark();
    run(pgark.args(["restore", "--target-time", &past, "--start", "--pgdata"]).arg(server.data())).ok();
    add_mark(server, 20);
    archive_now(&ready);
    wait_archived(&ready, "00000002.history");
    server.stop(StopMode::Fast);
    let room = Room::new();
    let at = ["--target-time", between.as_str()];
    let words = ["means two things: timeline 1 has transactions up to", "--target-timeline 1"];
    room.refused(&ready, &at, ErrorKind::TargetUnreachable, &words);
    let (copy, _) = room.started(&ready, "latest", "first", &[at[0], at[1], "--target-timeline", "1"]);
    assert_eq!(marks(&copy), "1,2");
    drop(copy);
    let (copy, _) = room.started(&ready, "latest", "second", &[at[0], at[1], "--target-timeline", "2"]);
    assert_eq!(marks(&copy), "1");
}

/// The server stops at a time only where a later one follows, and at an LSN only where a record begins behind it.
#[test]
fn the_last_time_and_the_last_lsn_that_a_refusal_names_are_reached() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    let begin = server.psql("SELECT pg_current_wal_lsn()");
    ready.take_backup();
    add_mark(server, 1);
    archive_now(&ready);
    let last = commits(server, &begin).into_values().max().expect("a commit").1;
    server.stop(StopMode::Fast);
    let room = Room::new();
    let mut refused = room.restore(&ready, "latest", "refused", &["--target-lsn", "9/0"]);
    let output = fails_with(&mut refused, i32::from(ErrorKind::TargetUnreachable.exit_code()));
    let place = output.stderr.split_once(" to 0/").expect("a window").1;
    let place = format!("0/{}", place.split([' ', ',']).next().expect("an LSN"));
    for (name, options) in
        [("time", ["--target-time", &format!("{last}+00")]), ("lsn", ["--target-lsn", &place])]
    {
        let (copy, report) = room.started(&ready, "latest", name, &options);
        assert_eq!(
            (&report["started"]["complete"], marks(&copy)),
            (&true.into(), "1".to_string()),
            "{report}"
        );
    }
}

/// Both would listen at the same place: that is known before anything is written.
#[test]
fn a_copy_beside_its_running_original_needs_a_port_of_its_own() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    ready.take_backup();
    add_mark(server, 1);
    archive_now(&ready);
    let room = Room::new();
    let words = ["the original server runs", "--port N"];
    room.refused(&ready, &["--start"], ErrorKind::InvalidArgument, &words);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    room.refused(&ready, &["--start", "--port", &port], ErrorKind::InvalidArgument, &["is in use"]);
    drop(listener);
    let report = json(&run(room.restore(&ready, "latest", "copy", &["--port", &port]).arg("--start")).ok());
    assert_eq!(report["started"]["port"].to_string(), port, "{report}");
    let mut stop = server.pg().tool("pg_ctl");
    run_ok(stop.args(["stop", "-m", "fast", "-D"]).arg(room.data("copy")));
    let settings = fs::read_to_string(room.data("copy").join("postgresql.auto.conf")).expect("settings");
    assert!(settings.contains(&format!("port = {port}")) && !settings.contains("hot_standby"), "{settings}");
    assert_eq!(marks(server), "1", "the original goes on");
}

#[test]
fn a_standby_catches_up_from_the_archive_and_follows_a_promotion() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    ready.take_backup();
    add_mark(server, 1);
    archive_now(&ready);
    let standby = ready.restore_beside_stopped("latest", &["--standby".as_ref()]);
    standby.server.configure(&["wal_retrieve_retry_interval = '100ms'"]);
    standby.server.start();
    let caught_up = |expected: &str| {
        wait_until("the standby to catch up", LONG, || {
            standby
                .server
                .try_psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM marks")
                .is_ok_and(|m| m == expected)
        });
    };
    caught_up("1");
    assert_eq!(standby.server.psql("SELECT pg_is_in_recovery()"), "t");
    add_mark(server, 2);
    archive_now(&ready);
    caught_up("1,2");
    // The primary is lost and comes back on a timeline of its own.
    server.destroy();
    let mut pgark = ready.pgark();
    run(pgark.args(["restore", "--start", "--pgdata"]).arg(server.data())).ok();
    assert_eq!(marks(server), "1,2");
    add_mark(server, 3);
    archive_now(&ready);
    caught_up("1,2,3");
}

#[test]
fn pause_shutdown_and_a_standby_are_followed_until_they_are_there() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    ready.take_backup();
    add_mark(server, 1);
    let moment = now(server);
    add_mark(server, 2);
    archive_now(&ready);
    server.stop(StopMode::Fast);
    let room = Room::new();
    let at = ["--target-time", moment.as_str(), "--target-action"];

    let (copy, report) = room.started(&ready, "latest", "pause", &[at[0], at[1], at[2], "pause"]);
    assert_eq!(
        (&report["started"]["state"], &report["started"]["complete"]),
        (&"paused".into(), &true.into())
    );
    assert_eq!(copy.psql("SELECT pg_get_wal_replay_pause_state()"), "paused");
    assert_eq!(marks(&copy), "1");
    copy.psql("SELECT pg_wal_replay_resume()");
    wait_until("the end of recovery", LONG, || copy.psql("SELECT pg_is_in_recovery()") == "f");
    assert_eq!(marks(&copy), "1");
    drop(copy);

    let mut pgark = room.restore(&ready, "latest", "shutdown", &[at[0], at[1], at[2], "shutdown", "--start"]);
    let report = json(&run(&mut pgark).ok());
    assert_eq!((&report["started"]["state"], &report["started"]["pid"]), (&"stopped".into(), &Value::Null));
    let control = run_ok(server.pg().tool("pg_controldata").arg(room.data("shutdown")));
    assert!(control.contains("shut down in recovery"), "{control}");

    let (copy, report) = room.started(&ready, "latest", "standby", &["--standby"]);
    assert_eq!(report["started"]["state"], "standby");
    wait_until("the end of the archive", LONG, || marks(&copy) == "1,2");
    assert!(copy.try_psql("INSERT INTO marks VALUES (9)").is_err(), "it is read-only");
}

/// A server whose settings are lower than its original's pauses in the midst of recovery while it lets clients read
/// (`RecoveryRequiresIntParameter`), and shows the same as one at its target.
#[test]
fn settings_raised_behind_the_backup_neither_hang_recovery_nor_pass_for_the_target() {
    let ready = archiving(builder().conf("max_prepared_transactions = 2"));
    let server = &ready.server;
    server.psql(MARKS);
    ready.take_backup();
    add_mark(server, 1);
    server.psql("ALTER SYSTEM SET max_prepared_transactions = 7");
    server.stop(StopMode::Fast);
    server.start();
    add_mark(server, 2);
    let moment = now(server);
    add_mark(server, 3);
    archive_now(&ready);
    server.stop(StopMode::Fast);
    let room = Room::new();
    let (copy, report) = room.started(&ready, "latest", "promote", &[]);
    assert_eq!(
        (&report["started"]["complete"], marks(&copy)),
        (&true.into(), "1,2,3".to_string()),
        "{report}"
    );
    drop(copy);

    let at = ["--target-time", moment.as_str(), "--target-action", "pause"];
    for (name, options) in [("pause", &at[..]), ("standby", &["--standby"])] {
        let mut pgark = room.restore(&ready, "latest", name, options);
        let output = fails_with(pgark.arg("--start"), i32::from(ErrorKind::RecoveryFailed.exit_code()));
        let setting = "max_prepared_transactions = 2 is a lower setting than on the primary server";
        assert!(output.stderr.contains(setting) && output.stderr.contains("postgresql.conf"), "{output}");
        let copy = Cluster::open_restored_with(server.pg(), &room.data(name));
        copy.stop(StopMode::Fast);
        copy.configure(&["max_prepared_transactions = 7"]);
        copy.start();
        let expected = if name == "pause" { "1,2" } else { "1,2,3" };
        wait_until("recovery to go on", LONG, || marks(&copy) == expected);
    }
}

/// A server that wants a password is not asked: its log tells whether it is where it shall be.
#[test]
fn a_paused_server_that_cannot_be_asked_is_known_by_its_log() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    let hba = server.data().join("pg_hba.conf");
    let open = fs::read_to_string(&hba).expect("pg_hba.conf");
    fs::write(&hba, "local all all scram-sha-256\n").expect("pg_hba.conf");
    // The backup has the file although the server was not told of it.
    ready.take_backup();
    for n in 1..=20 {
        add_mark(server, n);
        switch_wal(server);
    }
    let later = now(server);
    add_mark(server, 22);
    archive_now(&ready);
    fs::write(&hba, open).expect("pg_hba.conf");
    server.stop(StopMode::Fast);
    let room = Room::new();
    let mut pgark =
        room.restore(&ready, "latest", "asked", &["--target-time", &later, "--target-action", "pause"]);
    let report = json(&run(pgark.arg("--start")).ok());
    assert_eq!(report["started"]["state"], "paused", "{report}");
    assert_eq!(report["started"]["complete"], true, "{report}");
    assert!(
        report["started"]["server_said"].as_str().is_some_and(|said| said.starts_with("before commit")),
        "{report}"
    );
    assert_eq!(report["started"]["reached_lsn"], Value::Null, "{report}");
    let log = fs::read_to_string(room.data("asked").join("pg_ark_start.log")).expect("the log");
    assert!(log.contains("pausing at the end of recovery"), "it was waited for: {log}");
    let hba = room.data("asked").join("pg_hba.conf");
    fs::write(hba, "local all all trust\n").expect("pg_hba.conf");
    drop(Cluster::open_restored_with(server.pg(), &room.data("asked")));
}

#[test]
fn recovery_that_ends_before_the_known_end_is_an_error() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    server.psql("CREATE TABLE much AS SELECT repeat(md5(i::text), 8) AS t FROM generate_series(1, 200000) i");
    ready.take_backup();
    add_mark(server, 1);
    archive_now(&ready);
    add_mark(server, 2);
    let last = archive_now(&ready);
    server.stop(StopMode::Fast);
    let newest = newest_segment(&ready, &last);
    let room = Room::new();
    let mut pgark = room.restore(&ready, "latest", "short", &["--start", "--jobs", "1"]);
    let child = pgark.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let child = child.expect("pgark");
    // The plan is made; nothing was recovered yet.
    wait_until("the first files", LONG, || room.data("short").join("base").exists());
    assert!(send_signal(child.id(), STOP));
    for segment in newest {
        let object = object(&ready, &segment).expect("stored");
        // Without a trace of it, or recovery would end in failure.
        let _ = fs::remove_file(object.with_file_name("index.jsonl"));
        fs::remove_file(object).expect("could not remove a segment");
    }
    assert!(send_signal(child.id(), CONTINUE));
    let output = child.wait_with_output().expect("pgark's end");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(ErrorKind::RecoveryShort.exit_code())), "{errors}");
    assert!(errors.contains("before the known end of the WAL"), "{errors}");
    let report = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(report["started"]["complete"], false, "the report comes first");
    let copy = Cluster::open_restored_with(server.pg(), &room.data("short"));
    assert_eq!(marks(&copy), "1", "it runs, and lacks what it was told to lack");
}

/// This segment and those that the server stored when it was stopped.
fn newest_segment(ready: &Ready, from: &str) -> Vec<String> {
    let folder = object(ready, from).expect("stored").parent().expect("a folder").to_path_buf();
    let names = fs::read_dir(folder)
        .expect("the archive")
        .flatten()
        .map(|e| e.file_name().into_string().expect("a name"));
    names.filter_map(|name| Some(name.get(..24)?.to_string())).filter(|name| &name[..] >= from).collect()
}

#[test]
fn statistics_are_gathered_when_asked_for() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql("CREATE TABLE wide AS SELECT i FROM generate_series(1, 1000) i");
    ready.take_backup();
    archive_now(&ready);
    server.stop(StopMode::Fast);
    let room = Room::new();
    let (copy, report) = room.started(&ready, "latest", "analyze", &["--analyze"]);
    assert_eq!(report["started"]["analyzed"], true, "{report}");
    assert_eq!(copy.psql("SELECT reltuples FROM pg_class WHERE relname = 'wide'"), "1000");
}

/// The first story of every handbook: everything is lost, WAL and archive too. A backup that brings its WAL is enough.
#[test]
fn story_a_everything_is_lost_and_the_backup_comes_back() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    add_mark(server, 1);
    ready.try_backup("include_wal => true, wait => true").expect("a backup");
    add_mark(server, 2);
    let segment = archive_now(&ready);
    server.destroy();
    let archive = object(&ready, &segment).expect("stored");
    let archive = archive.ancestors().nth(3).expect("the archive").to_path_buf();
    assert!(archive.ends_with("wal"), "{archive:?}");
    fs::remove_dir_all(archive).expect("could not remove the archive");
    let mut pgark = ready.pgark();
    pgark.args(["--format", "json", "restore", "--start", "--pgdata"]).arg(server.data());
    let report = json(&run(&mut pgark).ok());
    assert_eq!(report["started"]["complete"], true);
    assert_eq!(report["plan"]["recovery"]["restore_command"], "false");
    assert_eq!(marks(server), "1");
    server.amcheck();
}

/// Case 039: the WAL ends in the middle of a page, in a record that is torn. What is promised is what recovery reaches.
#[test]
fn case_039_the_known_end_is_where_recovery_ends() {
    let ready = archiving(builder());
    let server = &ready.server;
    server.psql(MARKS);
    ready.take_backup();
    archive_now(&ready);
    add_mark(server, 1);
    let at = lsn(&server.psql("SELECT pg_current_wal_flush_lsn()"));
    server.psql("SELECT pg_logical_emit_message(true, 'pg_ark', repeat('x', 3000))");
    let name = server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    server.kill9();
    // Half of the record is there, as after a crash whose last write was torn.
    let torn = server.data().join("pg_wal").join(&name);
    let file = fs::OpenOptions::new().write(true).open(&torn).expect("the segment");
    let offset = at % (1 << 20) + 1500;
    file.write_all_at(&vec![0; (1 << 20) - offset as usize], offset).expect("a torn end");
    let mut push = ready.pgark();
    run(push.args(["--cluster", "main", "wal-push"]).arg(&torn).current_dir(server.data())).ok();
    let room = Room::new();
    let (copy, report) = room.started(&ready, "latest", "torn", &[]);
    assert_eq!(report["started"]["known_end"]["lsn"], shown(at)[..], "the last whole record");
    assert_eq!(report["started"]["reached_lsn"], shown(at)[..]);
    assert_eq!(report["started"]["complete"], true);
    assert_eq!(marks(&copy), "1");
}

/// Case 028 and 003: a prepared transaction is committed under its own number, and a target means that one.
#[test]
fn a_prepared_transaction_is_a_target_under_its_own_number() {
    let ready = archiving(builder().conf("max_prepared_transactions = 5"));
    let server = &ready.server;
    server.psql(MARKS);
    ready.take_backup();
    let xid = server
        .psql("BEGIN; SELECT pg_current_xact_id(); INSERT INTO marks VALUES (1); PREPARE TRANSACTION 'p'");
    let xid = xid.lines().next().expect("an XID").to_string();
    add_mark(server, 2);
    server.psql("COMMIT PREPARED 'p'");
    add_mark(server, 3);
    switch_wal(server);
    archive_now(&ready);
    server.stop(StopMode::Fast);
    let room = Room::new();
    let (copy, _) = room.started(&ready, "latest", "inclusive", &["--target-xid", &xid]);
    assert_eq!(marks(&copy), "1,2");
    drop(copy);
    let (copy, _) = room.started(&ready, "latest", "exclusive", &["--target-xid", &xid, "--exclusive"]);
    assert_eq!(marks(&copy), "2");
    assert_eq!(copy.psql("SELECT gid FROM pg_prepared_xacts"), "p");
}

/// As root a restore gives everything to the server's user, who has to be able to run pgark and to read the archive.
#[test]
fn the_owner_of_the_server_must_be_able_to_read_the_archive() {
    if !is_root() {
        eprintln!("skipped: only root can restore for another user");
        return;
    }
    let ready = archiving(builder());
    ready.take_backup();
    let segment = archive_now(&ready);
    let first = object(&ready, &segment).expect("stored");
    let folder = first.parent().expect("a folder");
    run_ok(Command::new("chmod").arg("700").arg(folder));
    run_ok(Command::new("chown").arg("-R").arg("root").arg(folder));
    let room = Room::new();
    let mut pgark = Command::new(pgark_of(ready.server.pg()));
    pgark.arg("--repo").arg(ready.repo.url()).args(["restore", "--pgdata"]).arg(room.data("root"));
    let output: Output = fails_with(&mut pgark, i32::from(ErrorKind::PermissionDenied.exit_code()));
    assert!(output.stderr.contains("cannot read the repository"), "{output}");
    assert!(!room.data("root").exists(), "nothing was written");
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout.trim_ascii() == b"0"
}
