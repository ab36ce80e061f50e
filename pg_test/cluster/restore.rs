//! What `pgark restore` refuses before it touches anything, what it leaves when it is ended, and what it says.

use crate::support::{Ready, fails_with, names_below, pgark_of, ready};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::process::{CONTINUE, INTERRUPT, KILL, STOP, Signal, send_signal};
use pg_ark_testkit::{
    Cluster, LONG, Output, Scratch, Tmpfs, assert_same_data, chown_to_server, command, file_url, run, run_ok,
    wait_until,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn code(kind: ErrorKind) -> i32 {
    i32::from(kind.exit_code())
}

/// A server with a tablespace and a little data.
fn with_tablespace() -> (Ready, PathBuf) {
    let ready = ready(Cluster::builder());
    let space = ready.server.create_tablespace("fast");
    ready.server.psql("CREATE TABLE there TABLESPACE fast AS SELECT i FROM generate_series(1, 1000) i");
    (ready, space)
}

/// `pgark restore BACKUP --pgdata DATA OPTIONS`.
fn restore(ready: &Ready, backup: &str, data: &Path, options: &[&str]) -> Command {
    let mut pgark = ready.pgark();
    pgark.args(["restore", backup, "--pgdata"]).arg(data).args(options);
    pgark
}

fn mapping(old: &Path, new: &Path) -> String {
    format!("{}={}", old.display(), new.display())
}

/// Everything below a folder: path, mode, size, time of the last change.
fn state(folder: &Path) -> Vec<(PathBuf, u32, u64, i64)> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("a file");
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        }
        found.push((path, meta.mode(), if meta.is_dir() { 0 } else { meta.len() }, meta.ctime_nsec()));
    }
    found.sort();
    found
}

/// Runs pgark, expects a refusal of this kind that says `words` and how to go on, and nothing changed.
#[track_caller]
fn refused(pgark: &mut Command, kind: ErrorKind, words: &[&str], untouched: &[&Path]) {
    let before: Vec<_> = untouched.iter().map(|folder| state(folder)).collect();
    let output = fails_with(pgark, code(kind));
    for word in words.iter().chain(&["hint:"]) {
        assert!(output.stderr.contains(word), "\"{word}\" expected: {output}");
    }
    assert_eq!(output.stdout, "", "stdout is for data");
    let after: Vec<_> = untouched.iter().map(|folder| state(folder)).collect();
    assert_eq!(before, after, "something was touched");
}

#[test]
fn a_target_that_is_taken_or_closed_is_refused_and_not_touched() {
    let (ready, space) = with_tablespace();
    let backup = ready.take_backup();
    let room = Scratch::new("room");
    let elsewhere = room.path().join("elsewhere");
    let (new, full, closed, file) =
        (room.path().join("new"), room.folder("full"), room.folder("closed"), room.path().join("file"));
    fs::write(full.join("letter"), "mine").expect("a file");
    fs::write(&file, "mine").expect("a file");
    fs::set_permissions(&closed, Permissions::from_mode(0o500)).expect("chmod");
    let map = mapping(&space, &elsewhere);
    let moved = ["--tablespace", map.as_str()];
    let check = |data: &Path, options: &[&str], kind, words: &[&str]| {
        refused(&mut restore(&ready, &backup, data, options), kind, words, &[room.path(), &space]);
    };
    check(&full, &moved, ErrorKind::TargetNotEmpty, &["full\" is not empty", "letter"]);
    check(&file, &moved, ErrorKind::TargetNotEmpty, &["not a folder"]);
    check(&closed, &moved, ErrorKind::PermissionDenied, &["closed\" is not writable", "as root"]);
    check(&closed.join("data"), &moved, ErrorKind::PermissionDenied, &["cannot be created", "closed"]);
    // The original's tablespace is where it was.
    check(&new, &[], ErrorKind::TargetNotEmpty, &["tablespace target", "fast"]);
    let taken = mapping(&space, &full);
    check(&new, &["--tablespace", &taken], ErrorKind::TargetNotEmpty, &["tablespace target", "full"]);
    let wal = full.display().to_string();
    check(&new, &["--waldir", &wal, moved[0], moved[1]], ErrorKind::TargetNotEmpty, &["WAL folder", "full"]);
    let below = mapping(&space, &new.join("fast"));
    check(&new, &["--tablespace", &below], ErrorKind::InvalidArgument, &["one inside the other"]);
    check(&ready.repo.path().join("new"), &moved, ErrorKind::InvalidArgument, &["repository"]);

    let running = ready.server.data();
    let pid = ready.server.pid().expect("a server").to_string();
    let words = ["a server is running", pid.as_str()];
    let mut pgark = restore(&ready, &backup, running, &moved);
    refused(&mut pgark, ErrorKind::ServerRunning, &words, &[&running.join("base"), room.path()]);
}

#[test]
fn a_request_that_makes_no_sense_is_refused_and_touches_nothing() {
    let (ready, space) = with_tablespace();
    let backup = ready.take_backup();
    let room = Scratch::new("room");
    let new = room.path().join("new");
    let check = |options: &[&str], kind, words: &[&str]| {
        refused(&mut restore(&ready, &backup, &new, options), kind, words, &[room.path()]);
    };
    let (one, two) = (mapping(&space, &room.path().join("1")), mapping(&space, &room.path().join("2")));
    let invalid = ErrorKind::InvalidArgument;
    check(&["--tablespace", "/nowhere=/tmp/x"], invalid, &["no tablespace at \"/nowhere\"", "fast"]);
    check(&["--tablespace", &one, "--tablespace", &two], invalid, &["mapped twice"]);
    check(&["--tablespace", &format!("{}=relative", space.display())], invalid, &["absolute"]);
    check(&["--tablespace", &one, "--waldir", "relative"], invalid, &["absolute"]);
    let folder = room.path().display().to_string();
    check(&["--tablespace", &one, "--bindir", &folder, "--start"], invalid, &["--bindir", "bin"]);
    for options in
        [&["--tablespace", "without equals"][..], &["--jobs", "0"], &["--dry-run", "--start"], &["--what"]]
    {
        let output = fails_with(&mut restore(&ready, &backup, &new, options), code(invalid));
        assert!(!output.stderr.contains("panicked"), "{output}");
    }

    let mapped = ["--tablespace", one.as_str()];
    let mut unknown = restore(&ready, "20000101T000000Z-full", &new, &mapped);
    refused(&mut unknown, ErrorKind::BackupNotFound, &["20000101T000000Z-full"], &[room.path()]);
    for name in ["nonsense", "../../etc", ""] {
        let output = run(&mut restore(&ready, name, &new, &mapped));
        let codes = [code(ErrorKind::BackupNotFound), code(ErrorKind::InvalidArgument)];
        assert!(codes.contains(&output.code()), "{output}");
    }
    let mut other = ready.pgark();
    other.args(["--cluster", "other", "restore", "--pgdata"]).arg(&new);
    refused(&mut other, ErrorKind::RepositoryNotFound, &["\"other\"", "main"], &[room.path()]);
    let pgark = |url: &str| {
        let mut pgark = command(pgark_of(ready.server.pg()));
        pgark.env_remove("PGARK_REPO").args(["--repo", url, "restore", "--pgdata"]).arg(&new);
        pgark
    };
    let nothing = file_url(&room.path().join("nothing"));
    refused(&mut pgark(&nothing), ErrorKind::RepositoryNotFound, &["nothing"], &[room.path()]);
    refused(&mut pgark(""), ErrorKind::RepositoryUnset, &["--repo"], &[room.path()]);
    assert!(!new.exists());
}

#[test]
fn a_running_and_a_failed_backup_are_refused() {
    let ready = ready(Cluster::builder());
    let room = Scratch::new("room");
    let new = room.path().join("new");
    let running = ready.start_slow(4096);
    let mut pgark = restore(&ready, &running.backup, &new, &[]);
    refused(&mut pgark, ErrorKind::BackupNotUsable, &["still running"], &[room.path()]);
    // There is no complete one to be the latest.
    refused(
        &mut restore(&ready, "latest", &new, &[]),
        ErrorKind::BackupNotFound,
        &["no complete"],
        &[room.path()],
    );
    ready.server.psql(&format!("SELECT ark.backup_stop('{}')", running.backup));
    ready.assert_failed(&running.backup, "stopped");
    refused(
        &mut restore(&ready, &running.backup, &new, &[]),
        ErrorKind::BackupNotUsable,
        &["failed", "stopped"],
        &[room.path()],
    );
    // One that failed does not stand in the way of one that is complete.
    let backup = ready.take_backup();
    let output = run(&mut restore(&ready, "latest", &new, &[]));
    assert!(output.stderr.contains(&backup), "{output}");
    output.ok();
}

#[test]
fn too_little_space_is_told_before_anything_is_written() {
    let disk = Tmpfs::new(16 << 20);
    let (ready, space) = with_tablespace();
    let backup = ready.take_backup();
    let map = mapping(&space, &disk.path().join("fast"));
    let mut pgark = restore(&ready, &backup, &disk.path().join("data"), &["--tablespace", &map]);
    refused(&mut pgark, ErrorKind::NotEnoughSpace, &["bytes needed", "bytes free", "fast"], &[disk.path()]);
    // A tablespace alone may be too large for its place, too.
    let room = Scratch::new("room");
    disk.resize(16 << 10);
    let mut pgark = restore(&ready, &backup, &room.path().join("data"), &["--tablespace", &map]);
    refused(&mut pgark, ErrorKind::NotEnoughSpace, &["fast"], &[disk.path(), room.path()]);
}

#[test]
fn a_disk_that_fills_up_midway_leaves_nothing_that_a_server_starts_from() {
    let disk = Tmpfs::new(256 << 20);
    let ready = ready(Cluster::builder());
    ready.server.pgbench(&["-i", "-q", "-s", "2"]);
    let backup = ready.take_backup();
    let data = disk.path().join("data");
    let child = Background::start(&mut restore(&ready, &backup, &data, &["--jobs", "1"]));
    // The plan was made; now the room goes.
    wait_until("the first files", LONG, || data.join("PG_VERSION").exists() || data.join("base").exists());
    send_signal(child.0.id(), STOP);
    assert!(!data.join("global/pg_control").exists(), "the restore was faster");
    let eater = fs::File::create(disk.path().join("eater")).expect("a file");
    let block = vec![1; 1 << 20];
    let mut at = 0;
    while eater.write_all_at(&block, at).is_ok() {
        at += block.len() as u64;
    }
    send_signal(child.0.id(), CONTINUE);
    let output = child.wait();
    assert_eq!(output.code, Some(code(ErrorKind::DiskFull)), "{}", output.stderr);
    assert!(output.stderr.contains("hint:"), "{}", output.stderr);
    assert!(!data.join("global/pg_control").exists());
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let (ready, space) = with_tablespace();
    let backup = ready.take_backup();
    let room = Scratch::new("room");
    let (new, wal, fast) = (room.path().join("new"), room.path().join("wal"), room.path().join("fast"));
    let (map, waldir) = (mapping(&space, &fast), wal.display().to_string());
    let options = ["--tablespace", &map, "--waldir", &waldir, "--jobs", "3", "--dry-run"];
    let before = state(room.path());
    let text = run_ok(&mut restore(&ready, "latest", &new, &options));
    let json = run_ok(restore(&ready, "latest", &new, &options).args(["--format", "json"]));
    assert_eq!(state(room.path()), before);
    assert_eq!(ready.server.psql("SELECT 1"), "1", "the original is not touched");

    let path = |path: &Path| path.display().to_string();
    for part in
        [&backup, &path(&new), &path(&wal), &path(&fast), &path(&space), "3 threads", "to be created", "free"]
    {
        assert!(text.contains(part), "\"{part}\" expected: {text}");
    }
    let plan: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(plan["backup"], *backup);
    assert_eq!(plan["data_directory"], path(&new));
    assert_eq!(plan["wal_directory"], path(&wal));
    assert_eq!(plan["tablespaces"][0]["from"], path(&space));
    assert_eq!(plan["tablespaces"][0]["to"], path(&fast));
    assert_eq!(plan["jobs"], 3);
    let free = plan["filesystems"][0]["free_bytes"].as_u64().expect("bytes");
    let needed = plan["filesystems"][0]["needed_bytes"].as_u64().expect("bytes");
    assert!(needed > 20 << 20 && free > needed, "{json}");

    // What would be refused is refused in a dry run, too.
    fails_with(&mut restore(&ready, "latest", &new, &["--dry-run"]), code(ErrorKind::TargetNotEmpty));
    run_ok(&mut restore(&ready, "latest", &new, &options[..6]));
    assert!(new.join("global/pg_control").is_file() && wal.is_dir() && fast.is_dir());
}

/// pgark in the background.
struct Background(std::process::Child);

struct Ended {
    /// None when a signal ended it.
    code: Option<i32>,
    stderr: String,
}

impl Background {
    #[track_caller]
    fn start(pgark: &mut Command) -> Background {
        Background(pgark.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("pgark"))
    }

    #[track_caller]
    fn wait(self) -> Ended {
        let output = self.0.wait_with_output().expect("pgark");
        Ended { code: output.status.code(), stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

/// Ends a restore with a signal when it has written its first files; as long as it is there it keeps others away.
#[track_caller]
fn end_midway(ready: &Ready, backup: &str, data: &Path, map: &str, signal: Signal) -> Ended {
    let child = Background::start(&mut restore(ready, backup, data, &["--jobs", "1", "--tablespace", map]));
    wait_until("the first files", LONG, || data.join("base/1").is_dir() || data.join("PG_VERSION").exists());
    send_signal(child.0.id(), STOP);
    for options in [&["--tablespace", map][..], &["--tablespace", map, "--replace"]] {
        let output = fails_with(&mut restore(ready, backup, data, options), code(ErrorKind::Busy));
        let process = format!("is at work (process {})", child.0.id());
        assert!(output.stderr.contains(&process) && !output.stderr.contains("did not finish"), "{output}");
    }
    send_signal(child.0.id(), signal);
    send_signal(child.0.id(), CONTINUE);
    child.wait()
}

#[test]
fn a_restore_that_is_killed_leaves_nothing_that_a_server_starts_from() {
    let (ready, space) = with_tablespace();
    ready.server.pgbench(&["-i", "-q", "-s", "15"]);
    let backup = ready.take_backup();
    let room = Scratch::new("room");
    let (data, fast) = (room.path().join("data"), room.path().join("fast"));
    let map = mapping(&space, &fast);
    let kinds = [(KILL, None), (INTERRUPT, Some(code(ErrorKind::Cancelled)))];
    for (signal, expected) in kinds {
        let ended = end_midway(&ready, &backup, &data, &map, signal);
        assert_eq!(ended.code, expected, "it was faster than the signal, or: {}", ended.stderr);
        let left = format!("\"{}\", \"{}\"", data.display(), fast.display());
        assert!(expected.is_none() || ended.stderr.contains(&left), "all that is left: {}", ended.stderr);
        assert!(!data.join("global/pg_control").exists(), "no server may start from this");
        assert!(data.join("pg_ark_restore.unfinished").is_file());
        let started = Cluster::open_restored_with(ready.server.pg(), &data).try_start();
        assert!(!started.success(), "{started}");

        // The next one says what this is and what may be removed; that is all it takes.
        let mut again = restore(&ready, &backup, &data, &["--tablespace", &map]);
        let words = ["did not finish", "pg_ark_restore.unfinished", "can be removed"];
        refused(&mut again, ErrorKind::TargetNotEmpty, &words, &[room.path()]);
        fs::remove_dir_all(&data).expect("the data directory");
        if fast.exists() {
            fs::remove_dir_all(&fast).expect("the tablespace");
        }
    }
    run(&mut restore(&ready, &backup, &data, &["--tablespace", &map])).ok();
    let copy = Cluster::open_restored_with(ready.server.pg(), &data);
    copy.start();
    assert_same_data(&ready.server.checksums(), &copy.checksums());
}

/// Changes one byte of a file.
#[track_caller]
fn damage(file: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).expect("a stored object");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)
        .and_then(|()| file.write_all_at(&[byte[0] ^ 0x10], at))
        .expect("one byte");
}

#[test]
fn damage_in_the_repository_is_found_and_no_server_starts_from_it() {
    let (ready, space) = with_tablespace();
    let backup = ready.take_backup();
    let folder = ready.backup_folder(&backup);
    let room = Scratch::new("room");
    let oid =
        names_below(&folder).into_iter().find(|name| name.starts_with("16") && name.ends_with(".tar.zst"));
    let tablespace = oid.expect("the tablespace's archive");
    let objects = ["base.tar.zst", "pg_wal.tar.zst", "backup_manifest", "backup.json", &tablespace];
    for (number, name) in objects.into_iter().enumerate() {
        let (data, fast) =
            (room.path().join(format!("data{number}")), room.path().join(format!("fast{number}")));
        let (path, map) = (folder.join(name), mapping(&space, &fast));
        // The middle of JSON is in a number or a name, of an archive in a frame.
        let middle = fs::metadata(&path).expect("the object").len() / 2;
        damage(&path, middle);
        let output = fails_with(
            &mut restore(&ready, &backup, &data, &["--tablespace", &map]),
            code(ErrorKind::Corrupt),
        );
        assert!(!data.join("global/pg_control").exists(), "{name}: {output}");
        assert!(output.stderr.contains(name) || output.stderr.contains(&backup), "what is damaged: {output}");
        damage(&path, middle);
    }
    // Without its index an archive takes longer, and is whole.
    fs::remove_file(folder.join("base.tar.zst.index")).expect("the index");
    let (data, map) = (room.path().join("data"), mapping(&space, &room.path().join("fast")));
    let output = run(&mut restore(&ready, &backup, &data, &["--tablespace", &map]));
    assert!(output.success(), "{output}");
    fs::remove_dir_all(&data).expect("the data directory");
    fs::remove_dir_all(room.path().join("fast")).expect("the tablespace");
    // A lost volume is damage.
    fs::remove_file(folder.join("pg_wal.tar.zst")).expect("the WAL");
    let lost =
        fails_with(&mut restore(&ready, &backup, &data, &["--tablespace", &map]), code(ErrorKind::Corrupt));
    assert!(lost.stderr.contains("pg_wal.tar.zst"), "{lost}");
}

/// A backup with transactions between its start and its end.
fn with_transactions() -> (Ready, String) {
    let ready = ready(Cluster::builder());
    ready.server.pgbench(&["-i", "-q", "-s", "1"]);
    let running = ready.start_slow(16384);
    ready.server.pgbench(&["-n", "-t", "20"]);
    ready.wait_for_end(&running);
    (ready, running.backup)
}

/// The value behind a label in lines `Label:  value`.
fn field<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no \"{label}\" in:\n{text}")).trim()
}

#[test]
fn a_started_server_is_reported_for_people_and_for_programs() {
    let (ready, backup) = with_transactions();
    let server = &ready.server;
    let times = |earlier: &str, later: &str| {
        let sql = format!("SELECT '{earlier}'::timestamptz <= '{later}'::timestamptz AND '{later}' <= now()");
        assert_eq!(server.psql(&sql), "t", "{earlier} {later}");
    };
    let began = server.psql(&format!(
        "SELECT started_at - '1 min'::interval FROM ark.list_backups() WHERE backup = '{backup}'"
    ));
    server.destroy();
    let output: Output = run(&mut restore(&ready, &backup, server.data(), &["--start"]));
    let text = output.clone().ok();
    let stop = server.psql(&format!("SELECT ark.show('{backup}') ->> 'stop_lsn'"));
    times(&began, field(&text, "Interrupted at"));
    times(field(&text, "Interrupted at"), field(&text, "Last transaction"));
    assert!(field(&text, "Timeline").starts_with("2 "), "{text}");
    assert_eq!(field(&text, "Known end of WAL"), stop, "{text}");
    assert!(field(&text, "Complete").starts_with("yes"), "{text}");
    let pid = server.pid().expect("a server").to_string();
    assert!(field(&text, "Ready").contains(&pid), "{text}");
    assert!(output.stderr.contains("Restored"), "talk goes to stderr: {output}");
    server.balances().assert_consistent();
    let auto = fs::read_to_string(server.data().join("postgresql.auto.conf")).expect("postgresql.auto.conf");
    assert!(!auto.contains("restore_command") && !server.data().join("recovery.signal").exists(), "{auto}");

    server.destroy();
    let json = run(restore(&ready, &backup, server.data(), &["--start"]).args(["--format", "json"])).ok();
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let started = &report["started"];
    assert_eq!(report["plan"]["backup"], *backup);
    assert_eq!(started["timeline"], 2);
    assert_eq!(started["pid"], server.pid().expect("a server"));
    assert_eq!(started["stop_lsn"], *stop);
    let text = |name: &str| started[name].as_str().unwrap_or_else(|| panic!("{name}: {json}")).to_string();
    times(&text("interrupted_at"), &text("last_transaction_at"));
}

#[test]
fn a_server_that_does_not_start_is_told_with_its_log() {
    let ready = ready(Cluster::builder());
    // It runs with its old setting; no server starts with this one.
    ready.server.configure(&["max_connections = 'many'"]);
    let backup = ready.take_backup();
    let room = Scratch::new("room");
    let data = room.path().join("data");
    let mut pgark = restore(&ready, &backup, &data, &["--start", "--port", "61234"]);
    let output = fails_with(&mut pgark, code(ErrorKind::RecoveryFailed));
    assert!(output.stderr.contains("max_connections") && output.stderr.contains("hint:"), "{output}");
    assert!(data.join("global/pg_control").is_file(), "the restore itself is complete");
}

#[test]
fn pgark_needs_nothing_but_the_repository() {
    let (ready, space) = with_tablespace();
    let backup = ready.take_backup();
    let original = ready.server.checksums();
    let pg = ready.server.pg().clone();
    let room = Scratch::new("room");
    let program = room.path().join("pgark");
    fs::copy(pgark_of(&pg), &program).expect("a copy of pgark");
    chown_to_server(&program);
    let (data, map) = (room.path().join("data"), mapping(&space, &room.path().join("fast")));
    ready.server.destroy();
    // No PATH, no PostgreSQL: its programs are hidden behind an empty file system.
    let script = r#"
        set -e
        for folder in "$BINDIR" /usr/lib/postgresql; do
            if [ -d "$folder" ]; then mount -t tmpfs none "$folder"; fi
        done
        test ! -e "$BINDIR/postgres"
        exec setpriv --reuid=postgres --regid=postgres --init-groups env -i "$@"
    "#;
    let alone = |arguments: &[&str]| {
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "/bin/sh", "-c", script, "sh"]).current_dir("/").env("BINDIR", pg.bindir());
        command.arg(format!("PGARK_REPO={}", ready.repo.url())).arg(&program).args(arguments);
        run(&mut command)
    };
    let (data_text, list) = (data.display().to_string(), alone(&["list"]));
    assert!(list.stdout.contains(&backup), "{list}");
    assert!(alone(&["show", "latest"]).ok().contains("complete"));
    alone(&["check"]).ok();
    let options = ["restore", "--pgdata", &data_text, "--tablespace", &map];
    let refused = alone(&[&options[..], &["--start"]].concat());
    assert_eq!(refused.code(), code(ErrorKind::Unsupported), "{refused}");
    assert!(!data.exists());
    let restored = alone(&options);
    assert!(restored.stderr.contains("warning:") && restored.success(), "{restored}");
    let copy = Cluster::open_restored_with(&pg, &data);
    copy.start();
    assert_same_data(&original, &copy.checksums());
}

#[test]
fn exit_codes_in_the_help_are_the_table() {
    let pg = pg_ark_testkit::Pg::find();
    let help = run(command(pgark_of(&pg)).arg("--help")).ok();
    for kind in ErrorKind::ALL {
        let line = format!("{:>2}  {}", kind.exit_code(), kind.meaning());
        assert!(help.contains(&line), "\"{line}\" expected:\n{help}");
    }
}
