//! What `ark.verify_archive`, `ark.recovery_windows` and their pgark twins say about an archive: promise 6, damage is
//! loud. PostgreSQL's pg_waldump judges what they call whole.

use crate::archiving::{archive_now, archiving, object, switch_wal, wait_archived, wal_folder};
use crate::support::{Ready, names_below};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::{
    Builder, Cluster, Output, Scratch, StopMode, chown_tree_to_server, command, run, run_ok,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn builder() -> Builder {
    let quiet = "autovacuum = off";
    Cluster::builder().wal_segment_mb(1).conf(quiet).conf("track_commit_timestamp = on")
}

/// Writes some WAL in several transactions and archives it; returns the last segment.
#[track_caller]
fn life(ready: &Ready) -> String {
    let server = &ready.server;
    server.psql("CREATE TABLE IF NOT EXISTS life (n int, filler text)");
    for _ in 0..4 {
        server.psql("INSERT INTO life SELECT n, repeat('x', 400) FROM generate_series(1, 1000) n");
    }
    archive_now(ready)
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))
}

/// `pgark --format json ARGUMENTS`, which must end with this exit code; its rows.
#[track_caller]
fn pgark_rows(ready: &Ready, arguments: &[&str], code: i32) -> Vec<Value> {
    let output = run(ready.pgark().args(["--format", "json"]).args(arguments));
    assert_eq!(output.code(), code, "{arguments:?}: {output}");
    json(&output).as_array().expect("an array").clone()
}

/// Rows of a function as JSON, its times as pgark shows them.
#[track_caller]
fn sql_rows(ready: &Ready, function: &str, times: &str) -> Vec<Value> {
    let shown = |time: &str| {
        format!("'{time}', to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
    let times: Vec<String> = times.split(' ').map(shown).collect();
    let row = format!("to_jsonb(f) || jsonb_build_object({})", times.join(", "));
    let query = format!("SELECT coalesce(jsonb_agg({row}), '[]') FROM {function} f");
    let rows: Value = serde_json::from_str(&ready.server.psql(&query)).expect("JSON");
    rows.as_array().expect("an array").clone()
}

/// Both doors say the same; returns it.
#[track_caller]
fn archive_rows(ready: &Ready, deep: bool, kind: Option<ErrorKind>) -> Vec<Value> {
    let arguments = if deep { &["verify-archive", "--deep"][..] } else { &["verify-archive"] };
    let rows = pgark_rows(ready, arguments, kind.map_or(0, |kind| i32::from(kind.exit_code())));
    let sql = sql_rows(ready, &format!("ark.verify_archive({deep})"), "start_time end_time");
    assert_eq!(sql, rows, "SQL and pgark differ");
    rows
}

/// As [`archive_rows`].
#[track_caller]
fn window_rows(ready: &Ready) -> Vec<Value> {
    let rows = pgark_rows(ready, &["windows"], 0);
    let sql = sql_rows(ready, "ark.recovery_windows()", "from_time to_time");
    let plain = |rows: &[Value]| rows.iter().map(seconds_are_exact).collect::<Vec<_>>();
    assert_eq!(plain(&sql), plain(&rows), "SQL and pgark differ");
    rows
}

/// A finish time has no fraction in a record.
fn seconds_are_exact(row: &Value) -> Value {
    let mut row = row.clone();
    if let Some(text) = row["from_time"].as_str() {
        row["from_time"] = text.replace(".000000Z", "Z").into();
    }
    row
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_else(|| panic!("no {column} in {row}"))
}

/// Rows as `status first..last`.
fn shape(rows: &[Value]) -> Vec<String> {
    let line = |row: &Value| {
        let name = |column: &str| row[column].as_str().map_or("-".to_string(), |name| name[16..].to_string());
        format!("{} {}..{}", text(row, "status"), name("first_segment"), name("last_segment"))
    };
    rows.iter().map(line).collect()
}

#[track_caller]
fn stored(ready: &Ready, name: &str) -> PathBuf {
    object(ready, name).unwrap_or_else(|| panic!("{name} is not in the archive"))
}

/// Names of the archive's segments of a timeline.
#[track_caller]
fn segments(ready: &Ready, timeline: u32) -> Vec<String> {
    let wal = wal_folder(ready).expect("an archive");
    let names = names_below(&wal).into_iter().filter_map(|path| {
        let name = path.rsplit('/').next()?.strip_suffix(".zst")?;
        (name.len() == 24 && name.starts_with(&format!("{timeline:08X}"))).then(|| name.to_string())
    });
    names.collect()
}

/// Decodes every segment into a folder, for pg_waldump.
#[track_caller]
fn decoded(ready: &Ready) -> Scratch {
    let folder = Scratch::new("decoded");
    for timeline in [1, 2] {
        for name in segments(ready, timeline) {
            run_ok(
                command("zstd")
                    .args(["-d", "-q", "-o"])
                    .arg(folder.path().join(&name))
                    .arg(stored(ready, &name)),
            );
        }
    }
    chown_tree_to_server(folder.path());
    folder
}

/// pg_waldump reads the records of a timeline from one LSN to another.
#[track_caller]
fn waldump(ready: &Ready, folder: &Path, timeline: u32, start: &str, end: &str) -> Output {
    let mut waldump = ready.server.pg().tool("pg_waldump");
    waldump.arg("-p").arg(folder).args(["-q", "-t", &timeline.to_string(), "-s", start, "-e", end]);
    run(&mut waldump)
}

#[test]
fn sql_and_pgark_agree_with_the_server_and_pg_waldump() {
    let ready = archiving(builder());
    let server = &ready.server;
    life(&ready);
    let backup = ready.take_backup();
    let first = segments(&ready, 1)[0].clone();
    life(&ready);
    // Killed in the middle: the last segments of the first life are completed by the next.
    let mut session = server.session();
    session.ask("INSERT INTO life SELECT n, repeat('y', 400) FROM generate_series(1, 500) n");
    server.kill9();
    server.start();
    life(&ready);
    let xid = server.psql("INSERT INTO life VALUES (0) RETURNING xmin");
    let committed = format!(
        "SELECT to_char(pg_xact_commit_timestamp('{xid}') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    );
    let committed = server.psql(&committed);
    let last = archive_now(&ready);

    for deep in [false, true] {
        let rows = archive_rows(&ready, deep, None);
        let [row] = &rows[..] else { panic!("one range: {rows:?}") };
        assert_eq!((text(row, "first_segment"), text(row, "last_segment")), (&first[..], &last[..]));
        assert_eq!(row["segments"], segments(&ready, 1).len());
        assert_eq!(text(row, "end_time"), committed);
    }
    let windows = window_rows(&ready);
    let [window] = &windows[..] else { panic!("one window: {windows:?}") };
    assert_eq!((text(window, "backup"), text(window, "timelines")), (&backup[..], "1"));
    assert_eq!(text(window, "from_lsn"), ready.backup_row("stop_lsn", &backup));
    assert_eq!((text(window, "to_time"), text(window, "note")), (&committed[..], "the archive ends here"));
    assert!(text(window, "from_time") < text(window, "to_time"), "{window}");
    let folder = decoded(&ready);
    let start = ready.backup_row("start_lsn", &backup);
    waldump(&ready, folder.path(), 1, &start, text(window, "to_lsn")).ok();

    let status = server.psql("SELECT last_backup FROM ark.status");
    assert_eq!(status, backup);
}

#[test]
fn damage_is_loud_a_missing_segment() {
    let ready = archiving(builder());
    life(&ready);
    let one = ready.take_backup();
    life(&ready);
    let names = segments(&ready, 1);
    let lost = &names[names.len() - 2..];
    life(&ready);
    let two = ready.take_backup();
    life(&ready);
    for name in lost {
        fs::remove_file(stored(&ready, name)).expect("an object");
    }
    for deep in [false, true] {
        let rows = archive_rows(&ready, deep, Some(ErrorKind::WalMissing));
        let statuses: Vec<_> = rows.iter().map(|row| text(row, "status")).collect();
        assert_eq!(statuses, ["ok", "gap", "ok"]);
        assert_eq!(
            (text(&rows[1], "first_segment"), text(&rows[1], "last_segment")),
            (&lost[0][..], &lost[1][..])
        );
        assert_eq!(rows[1]["segments"], 2);
    }
    let windows = window_rows(&ready);
    let backups: Vec<_> = windows.iter().map(|row| text(row, "backup")).collect();
    assert_eq!(backups, [&one[..], &two[..]]);
    let note = format!("segments {} to {} of timeline 1 are missing", lost[0], lost[1]);
    assert_eq!(text(&windows[0], "note"), note);
    assert_eq!(text(&windows[1], "note"), "the archive ends here");
    // Without the WAL of the second backup, only the first window is left, and the loss is told.
    let stop =
        ready.server.psql(&format!("SELECT pg_walfile_name('{}')", ready.backup_row("stop_lsn", &two)));
    fs::remove_file(stored(&ready, &stop)).expect("an object");
    let output = run(ready.pgark().arg("windows"));
    assert!(output.success() && !output.stdout.contains(&two), "{output}");
    assert!(output.stderr.contains(&format!("backup \"{two}\" cannot be recovered")), "{output}");
}

/// Does something to the archive's segments; which of them is damaged then.
type Harm = fn(&Ready, &[String]) -> Vec<String>;

#[test]
fn damage_is_loud_in_segments() {
    let ready = archiving(builder());
    let other = archiving(builder());
    for ready in [&ready, &other] {
        (0..3).for_each(|_| drop(life(ready)));
    }
    let names = segments(&ready, 1);
    assert!(names.len() > 6, "{names:?}");
    let pristine: Vec<Vec<u8>> =
        names.iter().map(|name| fs::read(stored(&ready, name)).expect("it")).collect();
    let flip: Harm = |ready, names| {
        let path = stored(ready, &names[3]);
        let mut bytes = fs::read(&path).expect("an object");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).expect("an object");
        vec![names[3].clone()]
    };
    let truncate: Harm = |ready, names| {
        let path = stored(ready, &names[3]);
        let bytes = fs::read(&path).expect("an object");
        fs::write(path, &bytes[..bytes.len() - 100]).expect("an object");
        vec![names[3].clone()]
    };
    let swap: Harm = |ready, names| {
        let (one, two) = (stored(ready, &names[2]), stored(ready, &names[4]));
        let (a, b) = (fs::read(&one).expect("an object"), fs::read(&two).expect("an object"));
        fs::write(one, b).and_then(|()| fs::write(two, a)).expect("objects");
        vec![names[2].clone(), names[4].clone()]
    };
    let reencode: Harm = |ready, names| {
        let folder = Scratch::new("reencoded");
        let (path, plain) = (stored(ready, &names[3]), folder.path().join("segment"));
        run_ok(command("zstd").args(["-d", "-q", "-o"]).arg(&plain).arg(&path));
        let mut bytes = fs::read(&plain).expect("a segment");
        bytes[300_000] ^= 4;
        fs::write(&plain, bytes).expect("a segment");
        run_ok(command("zstd").args(["-q", "-f", "-o"]).arg(&path).arg(&plain));
        vec![names[3].clone()]
    };
    for (what, harm) in [("flip", flip), ("truncate", truncate), ("swap", swap), ("re-encode", reencode)] {
        let damaged = harm(&ready, &names);
        assert_found(&ready, what, &damaged);
        for (name, bytes) in names.iter().zip(&pristine) {
            fs::write(stored(&ready, name), bytes).expect("an object");
        }
    }
    let foreign = fs::read(stored(&other, &names[3])).expect("the other cluster's segment");
    fs::write(stored(&ready, &names[3]), foreign).expect("an object");
    assert_found(&ready, "foreign", &names[3..4]);
    let rows = archive_rows(&ready, true, Some(ErrorKind::Corrupt));
    let damaged = rows.iter().find(|row| text(row, "status") == "damaged").expect("a row");
    assert!(text(damaged, "detail").contains("belongs to system identifier"), "{damaged}");
}

/// A deep check names these segments and no other; names alone tell nothing.
#[track_caller]
fn assert_found(ready: &Ready, what: &str, damaged: &[String]) {
    let rows = archive_rows(ready, true, Some(ErrorKind::Corrupt));
    let found = rows.iter().filter(|row| text(row, "status") == "damaged");
    let found: Vec<_> = found.map(|row| text(row, "first_segment").to_string()).collect();
    assert_eq!(found, damaged, "{what}: {rows:?}");
    let shallow = archive_rows(ready, false, None);
    assert_eq!(shape(&shallow).len(), 1, "{what}: {shallow:?}");
}

#[test]
fn damage_is_loud_strangers_and_histories() {
    let ready = archiving(builder());
    life(&ready);
    let wal = wal_folder(&ready).expect("an archive");
    fs::write(wal.join("00000002.history"), b"nonsense").expect("a file");
    fs::write(wal.join("00000001/notes.txt"), b"x").expect("a file");
    let name = &segments(&ready, 1)[0];
    fs::write(wal.join(format!("00000001/00000000/{name}")), b"x").expect("a file");
    for deep in [false, true] {
        let rows = archive_rows(&ready, deep, Some(ErrorKind::Corrupt));
        let statuses: Vec<_> = rows.iter().map(|row| text(row, "status")).collect();
        assert_eq!(statuses, ["ok", "damaged", "stranger", "stranger"]);
        assert!(text(&rows[1], "detail").contains("00000002.history"), "{rows:?}");
    }
}

#[test]
fn a_healthy_archive_over_a_promotion() {
    let ready = archiving(builder());
    let primary = &ready.server;
    let backup = ready.take_backup();
    life(&ready);
    let standby = primary.create_standby(&[]);
    life(&ready);
    // Half a segment, so that the promotion leaves a .partial file.
    primary.psql("INSERT INTO life SELECT n, repeat('z', 400) FROM generate_series(1, 1000) n");
    primary.wait_for_standby(&standby);
    primary.stop(StopMode::Immediate);
    standby.promote();
    standby.psql("INSERT INTO life SELECT n, repeat('z', 400) FROM generate_series(1, 5000) n");
    let last = switch_wal(&standby);
    wait_archived(&ready, &last);
    wait_archived(&ready, "00000002.history");
    assert!(last.starts_with("00000002"), "{last}");

    let rows = pgark_rows(&ready, &["verify-archive", "--deep"], 0);
    assert_eq!(rows, pgark_rows(&ready, &["verify-archive"], 0));
    let [one, two] = &rows[..] else { panic!("two ranges: {rows:?}") };
    assert_eq!((&one["timeline"], &two["timeline"]), (&1.into(), &2.into()));
    assert!(text(two, "detail").starts_with("goes on from timeline 1 at "), "{two}");
    let windows = pgark_rows(&ready, &["windows"], 0);
    let [window] = &windows[..] else { panic!("one window: {windows:?}") };
    assert_eq!((text(window, "backup"), text(window, "timelines")), (&backup[..], "1,2"));
    let folder = decoded(&ready);
    let start = |row: &Value| text(row, "start_lsn").to_string();
    let backup_start =
        standby.psql(&format!("SELECT start_lsn FROM ark.list_backups() WHERE backup = '{backup}'"));
    waldump(&ready, folder.path(), 1, &backup_start, text(one, "end_lsn")).ok();
    waldump(&ready, folder.path(), 2, &start(two), text(window, "to_lsn")).ok();
    // Without its first segment the timeline has no way in.
    let branch = text(two, "first_segment");
    fs::remove_file(stored(&ready, branch)).expect("an object");
    let rows = pgark_rows(&ready, &["verify-archive"], i32::from(ErrorKind::WalMissing.exit_code()));
    assert_eq!(text(&rows[1], "status"), "gap");
    assert_eq!(text(&rows[1], "first_segment"), branch);
}
