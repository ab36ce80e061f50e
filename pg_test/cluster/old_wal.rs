//! WAL that was not archived when the server died: saved first, fed to recovery, archived afterwards. The second story of
//! every handbook: the data directory is lost, pg_wal survived, and not one acknowledged commit is missing.

use crate::archiving::{archive_command, object, wal_folder};
use crate::support::{Ready, enabled, fails_with, names_below, pgark_of};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::process::{CONTINUE, KILL, STOP, is_alive, is_reaped, send_signal};
use pg_ark_testkit::{
    Builder, Cluster, LONG, Output, Repo, SHORT, Scratch, Tmpfs, chown_tree_to_server, run, run_ok,
    wait_until,
};
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn code(kind: ErrorKind) -> i32 {
    i32::from(kind.exit_code())
}

/// A server with small segments that archives by a command until the file `stop` appears.
struct Story {
    ready: Ready,
    backup: String,
    stop: PathBuf,
}

impl Story {
    #[track_caller]
    fn begin(builder: Builder) -> Story {
        let settings = ["archive_mode = on", "max_wal_size = '256MB'", "archive_command = '/bin/true'"];
        let builder = settings.iter().fold(builder.wal_segment_mb(1), |builder, line| builder.conf(line));
        let ready = enabled(builder.start(), Repo::new());
        let stop = ready.server.base().join("stop");
        let push = archive_command(ready.server.pg(), &ready.repo);
        let guarded = push.replacen("= '", &format!("= 'test ! -e {} && ", stop.display()), 1);
        ready.server.configure(&[&guarded]);
        ready.server.reload();
        wait_until("the new archive_command", SHORT, || {
            ready.server.psql("SHOW archive_command").contains("wal-push")
        });
        ready.server.psql("CREATE TABLE told (client int, number int, filler text)");
        let backup = ready.take_backup();
        Story { ready, backup, stop }
    }

    fn server(&self) -> &Cluster {
        &self.ready.server
    }

    /// Ends archiving: the command fails from now on.
    fn stop_archiving(&self) {
        fs::write(&self.stop, "").expect("a file");
    }

    fn go_on_archiving(&self) {
        fs::remove_file(&self.stop).expect("the file");
    }

    /// Segments and other files that wait for the archiver.
    fn waiting(&self) -> Vec<String> {
        let folder = self.server().data().join("pg_wal/archive_status");
        let mut names: Vec<String> = names_below(&folder)
            .iter()
            .filter_map(|n| n.strip_suffix(".ready").map(str::to_string))
            .collect();
        names.sort();
        names
    }

    /// Commits until so many segments wait, kills the server, returns what the clients were told.
    #[track_caller]
    fn commit_and_die(&self, waiting: usize) -> Vec<(u32, u32)> {
        let clients: Vec<Client> = (0..3).map(|number| Client::start(self.server(), number)).collect();
        wait_until("segments that wait", LONG, || self.waiting().len() >= waiting);
        self.server().kill9();
        let told: Vec<(u32, u32)> = clients.into_iter().flat_map(Client::told).collect();
        assert!(told.len() > 100, "the clients were told of {} commits", told.len());
        told
    }

    /// `pgark restore --pgdata DATA OPTIONS`, to the end of the WAL.
    fn restore(&self, options: &[&str]) -> Command {
        let mut pgark = self.ready.pgark();
        pgark.args(["restore", "--pgdata"]).arg(self.server().data()).args(options);
        pgark
    }

    /// Fails unless every commit that a client was told of is there.
    #[track_caller]
    fn assert_nothing_lost(&self, told: &[(u32, u32)]) {
        let found = self.server().psql("SELECT client || ' ' || number FROM told");
        let found: std::collections::HashSet<&str> = found.lines().collect();
        let lost: Vec<_> =
            told.iter().filter(|(c, n)| !found.contains(format!("{c} {n}").as_str())).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged commits are lost: {lost:?}", lost.len(), told.len());
    }

    /// Fails unless the archive gets timeline 1 without a hole from the backup's start up to `last`.
    #[track_caller]
    fn assert_archived(&self, last: &str) {
        wait_until(&format!("{last} in the archive"), LONG, || object(&self.ready, last).is_some());
        let start = self.server().psql(&format!("SELECT ark.show('{}') ->> 'start_lsn'", self.backup));
        let first = self.server().psql(&format!("SELECT pg_walfile_name('{start}')"));
        let first = format!("00000001{}", &first[8..]);
        let wal = wal_folder(&self.ready).expect("an archive").join("00000001");
        let mut numbers: Vec<u64> = names_below(&wal)
            .iter()
            .filter_map(|path| path.rsplit('/').next()?.strip_suffix(".zst").map(str::to_string))
            .filter(|name| name.len() == 24 && *name >= first && name.as_str() <= last)
            .map(|name| number_of(&name))
            .collect();
        numbers.sort_unstable();
        let expected: Vec<u64> = (number_of(&first)..=number_of(last)).collect();
        assert_eq!(numbers, expected, "the archive has a hole");
    }
}

/// Number of a segment of 1 MB.
fn number_of(name: &str) -> u64 {
    let part = |at: usize| u64::from_str_radix(&name[at..at + 8], 16).expect("a segment's name");
    part(8) * 4096 + part(16)
}

/// psql that commits row after row and writes down each commit that it was told of.
struct Client {
    child: Child,
    output: fs::File,
    number: u32,
}

impl Client {
    #[track_caller]
    fn start(server: &Cluster, number: u32) -> Client {
        let file = |name: &str| {
            let path = server.base().join(format!("client {number} {name}"));
            fs::File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a file")
        };
        let mut script = std::io::BufWriter::new(file("script"));
        for row in 1..200_000 {
            writeln!(script, "INSERT INTO told VALUES ({number}, {row}, repeat('x', 900)) RETURNING number;")
                .expect("a script");
        }
        let mut script = script.into_inner().expect("a script");
        script.rewind().expect("a script");
        let output = file("output");
        let mut psql = server.client("psql");
        psql.args(["-XAtq", "-d", "postgres"]).stdin(script).stderr(Stdio::null());
        psql.stdout(output.try_clone().expect("a second handle"));
        Client { child: psql.spawn().expect("psql"), output, number }
    }

    /// What it was told until its server died.
    #[track_caller]
    fn told(mut self) -> Vec<(u32, u32)> {
        wait_until("the end of psql", LONG, || matches!(self.child.try_wait(), Ok(Some(_))));
        let mut text = String::new();
        self.output.rewind().and_then(|()| self.output.read_to_string(&mut text)).expect("psql's output");
        text.lines().filter_map(|line| Some((self.number, line.parse().ok()?))).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything below a folder: path, inode, size, time of the last change.
fn state(folder: &Path) -> Vec<(PathBuf, u64, u64, i64, i64)> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("a file");
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        }
        found.push((path, meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
    }
    found.sort();
    found
}

/// Folders with saved WAL beside a data directory.
fn saved_folders(data: &Path) -> Vec<PathBuf> {
    let beginning = format!("{}.saved-wal-", data.file_name().expect("a name").to_string_lossy());
    let entries = fs::read_dir(data.parent().expect("a folder")).expect("a folder").flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&beginning))
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    folders
}

#[track_caller]
fn copy_of(folder: &Path, room: &Scratch) -> PathBuf {
    let copy = room.path().join("copy of pg_wal");
    run_ok(Command::new("cp").arg("-r").arg(folder).arg(&copy));
    chown_tree_to_server(&copy);
    copy
}

#[test]
fn nothing_acknowledged_is_lost_when_the_same_place_is_replaced() {
    let story = Story::begin(Cluster::builder());
    story.stop_archiving();
    let told = story.commit_and_die(20);
    let mut waiting = story.waiting();
    waiting.retain(|name| name.len() == 24);
    let (first, last) = (waiting.first().expect("a segment"), waiting.last().expect("a segment"));
    let data = story.server().data();
    // The disaster: the data is damaged, the WAL is not.
    fs::remove_dir_all(data.join("base")).expect("the data");
    fs::remove_file(data.join("PG_VERSION")).expect("a file");
    story.go_on_archiving();
    let plan = run_ok(&mut story.restore(&["--replace", "--dry-run"]));
    for words in ["Removes:", "saves first", "gives to recovery", first.as_str()] {
        assert!(plan.contains(words), "\"{words}\" expected: {plan}");
    }
    let plan = run_ok(story.restore(&["--replace", "--dry-run"]).args(["--format", "json"]));
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    assert!(plan["replaced"]["folders"][0]["files"].as_u64().expect("a number") > 100, "{plan}");
    assert!(plan["old_wal"]["fed"].as_array().expect("names").len() >= 20, "{plan}");
    assert!(saved_folders(data).is_empty(), "a plan writes nothing");

    let output = run(&mut story.restore(&["--replace", "--start"]));
    assert!(output.success(), "{output}");
    let [saved] = &saved_folders(data)[..] else { panic!("one folder with saved WAL") };
    assert!(saved.join(last).is_file() && saved.join("saved.json").is_file());
    let all = format!("{}{}", output.stdout, output.stderr);
    assert!(all.contains(&saved.display().to_string()), "the report names what it saved: {output}");
    story.assert_nothing_lost(&told);
    story.assert_archived(last);
    story.server().amcheck();
}

#[test]
fn nothing_acknowledged_is_lost_when_only_the_wal_disk_survived() {
    let story = Story::begin(Cluster::builder().external_waldir());
    // The archive lags: it fails, goes on, and fails again.
    story.stop_archiving();
    let wal = fs::read_link(story.server().data().join("pg_wal")).expect("a link");
    let mut client = Client::start(story.server(), 9);
    wait_until("segments that wait", LONG, || story.waiting().len() >= 8);
    story.go_on_archiving();
    wait_until("the archive to go on", LONG, || story.waiting().len() < 4);
    story.stop_archiving();
    let told = story.commit_and_die(12);
    let _ = client.child.wait();
    let last = story.waiting().pop().expect("a segment");
    fs::remove_dir_all(story.server().data()).expect("the data directory");
    story.go_on_archiving();
    let waldir = wal.display().to_string();
    // Without --replace the WAL that survived is in nobody's way and nobody's use.
    fails_with(&mut story.restore(&["--waldir", &waldir]), code(ErrorKind::TargetNotEmpty));
    run(&mut story.restore(&["--replace", "--waldir", &waldir, "--start"])).ok();
    assert_eq!(fs::read_link(story.server().data().join("pg_wal")).expect("a link"), wal);
    story.assert_nothing_lost(&told);
    story.assert_archived(&last);
}

#[test]
fn nothing_acknowledged_is_lost_when_pg_wal_was_copied_away() {
    let story = Story::begin(Cluster::builder());
    story.stop_archiving();
    let told = story.commit_and_die(10);
    let last = story.waiting().pop().expect("a segment");
    let room = Scratch::new("room");
    let copy = copy_of(&story.server().data().join("pg_wal"), &room);
    story.server().destroy();
    story.go_on_archiving();
    let before = state(&copy);
    run(&mut story.restore(&["--keep-wal", &copy.display().to_string(), "--start"])).ok();
    assert_eq!(state(&copy), before, "it is only read");
    assert!(saved_folders(story.server().data()).is_empty(), "it is safe where it is");
    story.assert_nothing_lost(&told);
    story.assert_archived(&last);
}

#[test]
fn wal_behind_a_gap_is_refused_and_where_the_loss_is_accepted_kept() {
    let story = Story::begin(Cluster::builder());
    story.server().psql("INSERT INTO told SELECT 7, i, 'x' FROM generate_series(1, 10) i");
    let target = story.server().psql("SELECT pg_current_wal_lsn()");
    story.server().psql("INSERT INTO told VALUES (7, 11, 'x')");
    story.stop_archiving();
    let told = story.commit_and_die(10);
    let mut waiting = story.waiting();
    waiting.retain(|name| name.len() == 24);
    let lost = &waiting[2];
    let wal = story.server().data().join("pg_wal");
    fs::remove_file(wal.join(lost)).expect("a segment");
    story.go_on_archiving();
    // To the end of the WAL: the only server that has the rest would go.
    let before = state(story.server().base());
    let output = fails_with(&mut story.restore(&["--replace", "--start"]), code(ErrorKind::WalMissing));
    assert!(
        output.stderr.contains(lost.as_str()) && output.stderr.contains("--target immediate"),
        "{output}"
    );
    assert_eq!(state(story.server().base()), before, "something was touched");
    let output = run(&mut story.restore(&["--replace", "--start", "--target-lsn", &target]));
    assert!(output.success(), "{output}");
    let warning = output.stderr.lines().find(|line| line.contains("CANNOT be used"));
    let warning = warning.unwrap_or_else(|| panic!("it is not said: {output}"));
    assert!(warning.contains(lost.as_str()) && warning.contains(waiting[3].as_str()), "{warning}");
    let [saved] = &saved_folders(story.server().data())[..] else { panic!("one folder with saved WAL") };
    for name in waiting.iter().filter(|name| *name != lost) {
        assert!(saved.join(name).is_file(), "{name} is not saved");
    }
    assert!(!story.server().data().join("pg_wal").join(&waiting[4]).exists(), "it is not fed");
    // What comes before the target is there.
    let found: usize = story.server().psql("SELECT count(*) FROM told").parse().expect("a number");
    assert!(found >= 10 && found < told.len(), "{found} of {}", told.len());
}

#[test]
fn what_a_promotion_left_of_a_timeline_is_restored() {
    let story = Story::begin(Cluster::builder());
    let standby = story.server().create_standby(&[&archive_command(story.server().pg(), &story.ready.repo)]);
    story.server().psql("INSERT INTO told SELECT 1, i, repeat('x', 900) FROM generate_series(1, 3000) i");
    let full = crate::archiving::switch_wal(story.server());
    wait_until("the last whole segment", LONG, || object(&story.ready, &full).is_some());
    story.server().psql("INSERT INTO told SELECT 2, i, 'x' FROM generate_series(1, 10) i");
    let last = story.server().psql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    story.server().wait_for_standby(&standby);
    story.server().kill9();
    standby.promote();
    let partial = format!("{last}.partial");
    for file in ["00000002.history", &partial] {
        wait_until(&format!("{file} in the archive"), LONG, || object(&story.ready, file).is_some());
    }
    // The new timeline has stored no segment when everything is lost.
    standby.kill9();
    assert!(object(&story.ready, &last).is_none());
    story.server().destroy();
    let output = run(&mut story.restore(&["--start"]));
    assert!(output.success(), "{output}");
    let found = story.server().psql("SELECT count(*) FROM told WHERE client = 2");
    assert_eq!(found, "10", "acknowledged commits are in {partial}: {output}");
    // The archive goes on, with nothing that it refuses.
    let next = crate::archiving::switch_wal(story.server());
    wait_until(&format!("{next} in the archive"), LONG, || object(&story.ready, &next).is_some());
}

#[test]
fn what_the_old_primary_wrote_behind_the_fork_is_told_and_saved() {
    let story = Story::begin(Cluster::builder());
    let standby = story.server().create_standby(&[&archive_command(story.server().pg(), &story.ready.repo)]);
    story.server().wait_for_standby(&standby);
    standby.promote();
    let new = crate::archiving::switch_wal(&standby);
    wait_until(&format!("{new} in the archive"), LONG, || object(&story.ready, &new).is_some());
    standby.kill9();
    // The old primary never heard of it, and its archiving is broken.
    story.stop_archiving();
    story.commit_and_die(6);
    story.go_on_archiving();
    let output = run(&mut story.restore(&["--replace", "--start"]));
    assert!(output.success(), "{output}");
    let warning = output.stderr.lines().find(|line| line.contains("ARE NOT RESTORED"));
    let warning = warning.unwrap_or_else(|| panic!("it is not said: {output}"));
    for words in ["MB", "its last transaction at 20", "saved-wal-", "--target-timeline 1"] {
        assert!(warning.contains(words), "\"{words}\" expected: {warning}");
    }
    assert_eq!(saved_folders(story.server().data()).len(), 1);
}

#[test]
fn never_write_into_what_is_not_ours_damaged_old_wal_with_a_target_behind_the_damage() {
    let story = Story::begin(Cluster::builder());
    story.stop_archiving();
    story.commit_and_die(6);
    let mut waiting = story.waiting();
    waiting.retain(|name| name.len() == 24);
    let path = story.server().data().join("pg_wal").join(&waiting[1]);
    let mut segment = fs::read(&path).expect("a segment");
    segment[500_000..500_008].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&path, segment).expect("a segment");
    story.go_on_archiving();
    let before = state(story.server().base());
    let behind = format!("0/{:X}", number_of(&waiting[1]) * (1 << 20) + 800_000);
    let unreachable = code(ErrorKind::TargetUnreachable);
    fails_with(&mut story.restore(&["--replace", "--target-lsn", &behind]), unreachable);
    assert_eq!(state(story.server().base()), before, "something was touched");
    let ahead = format!("0/{:X}", number_of(&waiting[1]) * (1 << 20) + 300_000);
    run(&mut story.restore(&["--replace", "--target-lsn", &ahead, "--start"])).ok();
}

#[test]
fn never_write_into_what_is_not_ours_the_tablespaces_of_a_copys_running_original() {
    let story = Story::begin(Cluster::builder());
    let space = story.server().create_tablespace("fast");
    story.server().psql("CREATE TABLE there TABLESPACE fast AS SELECT i FROM generate_series(1, 1000) i");
    story.ready.take_backup();
    let room = Scratch::new("room");
    let copy = room.path().join("copy");
    story.server().stop(pg_ark_testkit::StopMode::Fast);
    run_ok(Command::new("cp").arg("-a").arg(story.server().data()).arg(&copy));
    let restore = |options: &[&str]| {
        let mut pgark = story.ready.pgark();
        pgark.args(["restore", "--replace", "--pgdata"]).arg(&copy).args(options);
        pgark
    };
    let before = state(&space);
    let output = fails_with(&mut restore(&[]), code(ErrorKind::TargetNotEmpty));
    assert!(output.stderr.contains("--tablespace"), "{output}");
    story.server().start();
    // Not even when it is named: the original uses it.
    let same = format!("{0}={0}", space.display());
    let output = fails_with(&mut restore(&["--tablespace", &same]), code(ErrorKind::ServerRunning));
    assert!(output.stderr.contains("still uses"), "{output}");
    assert_eq!(story.server().psql("SELECT count(*) FROM there"), "1000");
    let names = |state: &[(PathBuf, u64, u64, i64, i64)]| -> Vec<PathBuf> {
        state.iter().map(|entry| entry.0.clone()).collect()
    };
    assert_eq!(names(&state(&space)), names(&before));
    let other = format!("{}={}", space.display(), room.path().join("fast").display());
    run(&mut restore(&["--tablespace", &other])).ok();
    assert_eq!(story.server().psql("SELECT count(*) FROM there"), "1000");
}

#[test]
fn wal_is_saved_on_a_disk_without_any_room() {
    let disk = Tmpfs::new(1 << 30);
    let story = Story::begin(Cluster::builder());
    story.stop_archiving();
    story.commit_and_die(10);
    let last = story.waiting().pop().expect("a segment");
    let data = disk.path().join("data");
    run_ok(Command::new("cp").arg("-a").arg(story.server().data()).arg(&data));
    story.server().destroy();
    story.go_on_archiving();
    let mut junk = fs::File::create(data.join("base/1/999999")).expect("a file");
    while junk.write_all(&[0; 4096]).is_ok() {}
    drop(junk);
    chown_tree_to_server(&data);
    let mut pgark = story.ready.pgark();
    pgark.args(["restore", "--replace", "--pgdata"]).arg(&data);
    let output = run(&mut pgark);
    assert!(output.success(), "{output}");
    let [saved] = &saved_folders(&data)[..] else { panic!("one folder with saved WAL") };
    assert!(saved.join(&last).is_file() && saved.join("saved.json").is_file(), "{output}");
    assert!(data.join("global/pg_control").is_file() && !data.join("base/1/999999").exists());
}

#[test]
fn never_write_into_what_is_not_ours_another_clusters_place_and_wal() {
    let story = Story::begin(Cluster::builder());
    let other = Cluster::builder().wal_segment_mb(1).start();
    other.kill9();
    let before = state(other.base());
    let room = Scratch::new("room");
    let new = room.path().join("new");
    let restore = |data: &Path, options: &[&str]| {
        let mut pgark = story.ready.pgark();
        pgark.args(["restore", "--pgdata"]).arg(data).args(options);
        pgark
    };
    let foreign = code(ErrorKind::ForeignCluster);
    fails_with(&mut restore(other.data(), &["--replace"]), foreign);
    let wal = other.data().join("pg_wal").display().to_string();
    fails_with(&mut restore(&new, &["--keep-wal", &wal]), foreign);
    // A copy of its WAL without the data directory is as foreign.
    fails_with(&mut restore(&new, &["--replace", "--waldir", &wal]), foreign);
    assert_eq!(state(other.base()), before, "something was touched");

    // The original lives: neither its folder nor its tablespace is replaced.
    let space = story.server().create_tablespace("fast");
    story.server().psql("CREATE TABLE there TABLESPACE fast AS SELECT i FROM generate_series(1, 1000) i");
    story.ready.take_backup();
    fails_with(&mut story.restore(&["--replace"]), code(ErrorKind::ServerRunning));
    let output = fails_with(&mut restore(&new, &["--replace"]), code(ErrorKind::TargetNotEmpty));
    assert!(output.stderr.contains(&space.display().to_string()), "{output}");
    assert!(!new.exists());
    assert_eq!(story.server().psql("SELECT count(*) FROM there"), "1000");
}

#[test]
fn never_write_into_what_is_not_ours_a_process_that_outlived_its_server() {
    let story = Story::begin(Cluster::builder());
    let mut session = story.server().session();
    let backend = session.backend_pid();
    send_signal(backend, STOP);
    let postmaster = story.server().pid().expect("a server");
    send_signal(postmaster, KILL);
    wait_until("the end of the postmaster", SHORT, || is_reaped(postmaster));
    let before = state(&story.server().data().join("base"));
    let output = fails_with(&mut story.restore(&["--replace"]), code(ErrorKind::ServerRunning));
    assert!(output.stderr.contains("still uses"), "{output}");
    // A lost lock file does not hide it.
    fs::remove_file(story.server().data().join("postmaster.pid")).expect("the lock file");
    let output = fails_with(&mut story.restore(&["--replace"]), code(ErrorKind::ServerRunning));
    assert!(output.stderr.contains(&backend.to_string()), "{output}");
    assert_eq!(state(&story.server().data().join("base")), before);
    send_signal(backend, CONTINUE);
    wait_until("the end of the backend", SHORT, || !is_alive(backend));
    wait_until("the end of all others", LONG, || {
        run(&mut story.restore(&["--replace", "--dry-run"])).success()
    });
    run(&mut story.restore(&["--replace", "--start"])).ok();
}

#[test]
fn never_write_into_what_is_not_ours_a_disk_that_is_full_while_wal_is_saved() {
    let disk = Tmpfs::new(1 << 30);
    let story = Story::begin(Cluster::builder().external_waldir());
    story.stop_archiving();
    story.commit_and_die(20);
    let wal = fs::read_link(story.server().data().join("pg_wal")).expect("a link");
    fs::remove_dir_all(story.server().data()).expect("the data directory");
    let before = state(&wal);
    let restore = || {
        let mut pgark = story.ready.pgark();
        pgark.args(["restore", "--replace", "--waldir"]).arg(&wal);
        pgark.arg("--pgdata").arg(disk.path().join("data"));
        pgark
    };
    // There is room for the bytes, and not for so many files.
    let limit = |inodes: u32| {
        let options = format!("remount,nr_inodes={inodes}");
        run_ok(Command::new("mount").args(["-o", &options]).arg(disk.path()));
    };
    limit(12);
    let output = fails_with(&mut restore(), code(ErrorKind::DiskFull));
    assert!(output.stderr.contains("--keep-wal"), "how to go on: {output}");
    assert_eq!(fs::read_dir(disk.path()).expect("the disk").count(), 0, "something was left");
    assert_eq!(state(&wal), before, "something was touched");
    // Too few bytes are told before.
    limit(100_000);
    disk.resize(8 << 20);
    fails_with(&mut restore(), code(ErrorKind::NotEnoughSpace));
    assert_eq!(state(&wal), before, "something was touched");
    disk.resize(1 << 30);
    run(&mut restore()).ok();
}

/// Runs a restore and kills it as soon as the condition holds.
#[track_caller]
fn kill_when(pgark: &mut Command, what: &str, mut condition: impl FnMut() -> bool) {
    let mut child = pgark.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("pgark");
    wait_until(what, LONG, || condition() || matches!(child.try_wait(), Ok(Some(_))));
    send_signal(child.id(), KILL);
    let output = child.wait_with_output().expect("pgark");
    assert_eq!(
        output.status.code(),
        None,
        "{what}: faster than the signal, or {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_restore_that_is_killed_loses_no_saved_wal_and_is_done_again() {
    let story = Story::begin(Cluster::builder());
    story.server().pgbench(&["-i", "-q", "-s", "20"]);
    let space = story.server().create_tablespace("fast");
    story.server().psql("CREATE TABLE there TABLESPACE fast AS SELECT i FROM generate_series(1, 1000) i");
    story.ready.take_backup();
    // Recovery makes this one again, where it is.
    let young = story.server().create_tablespace("young");
    story.server().psql("CREATE TABLE here TABLESPACE young AS SELECT i FROM generate_series(1, 2000) i");
    story.stop_archiving();
    let told = story.commit_and_die(30);
    let last = story.waiting().pop().expect("a segment");
    story.go_on_archiving();
    let data = story.server().data().to_path_buf();
    let marker = data.join("pg_ark_restore.unfinished");
    let restore = || story.restore(&["--replace", "--jobs", "1"]);
    kill_when(&mut restore(), "the saved WAL", || !saved_folders(&data).is_empty());
    let files = || names_below(&data.join("base")).len() + names_below(&space).len();
    let before = files();
    kill_when(&mut restore(), "the clearing", || marker.exists());
    // Either nothing was removed yet, or no server starts from what is left.
    assert!(files() == before || !data.join("global/pg_control").exists(), "{before} files, now {}", files());
    kill_when(&mut restore(), "the first files", || marker.exists() && data.join("backup_manifest").exists());
    kill_when(&mut restore(), "many files", || data.join("base/1/1259").exists() && marker.exists());
    assert!(!data.join("global/pg_control").exists(), "no server may start from this");
    let started = story.server().try_start();
    assert!(!started.success(), "{started}");
    let kept: Vec<PathBuf> =
        saved_folders(&data).into_iter().filter(|folder| folder.join(&last).exists()).collect();
    assert!(!kept.is_empty(), "the saved WAL is gone");
    let output: Output = run(&mut story.restore(&["--replace", "--start"]));
    assert!(output.success(), "{output}");
    assert!(!marker.exists() && kept.iter().all(|folder| folder.join(&last).exists()));
    assert!(!saved_folders(&data).iter().any(|folder| folder.to_string_lossy().ends_with(".unfinished")));
    story.assert_nothing_lost(&told);
    assert_eq!(story.server().psql("SELECT count(*) FROM there"), "1000");
    assert_eq!(story.server().psql("SELECT count(*) FROM here"), "2000");
    assert!(space.is_dir() && young.is_dir());
    story.assert_archived(&last);
    assert!(pgark_of(story.server().pg()).is_file());
}

#[test]
fn a_restore_to_an_earlier_moment_still_saves_and_archives_everything() {
    let story = Story::begin(Cluster::builder());
    story.stop_archiving();
    let target = story.server().psql("SELECT pg_current_wal_lsn()");
    let told = story.commit_and_die(8);
    let last = story.waiting().pop().expect("a segment");
    story.go_on_archiving();
    run(&mut story.restore(&["--replace", "--target-lsn", &target, "--start"])).ok();
    let found: usize = story.server().psql("SELECT count(*) FROM told").parse().expect("a number");
    assert!(found < told.len() / 2, "{found} of {}", told.len());
    // What lies behind the target is not lost: the server archives it.
    story.assert_archived(&last);
}

#[test]
fn nothing_acknowledged_is_lost_in_two_disasters_while_nothing_is_archived() {
    let story = Story::begin(Cluster::builder());
    story.stop_archiving();
    let mut told = story.commit_and_die(8);
    run(&mut story.restore(&["--replace", "--start"])).ok();
    story.assert_nothing_lost(&told);
    let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!(story.server().psql(timeline), "00000002");
    story
        .server()
        .psql("CREATE TABLE second AS SELECT client, max(number) FROM told GROUP BY client; TRUNCATE told");
    // The old timeline's end, the new one's beginning and its history are in pg_wal alone.
    told = story.commit_and_die(story.waiting().len() + 8);
    assert!(story.waiting().contains(&"00000002.history".to_string()), "{:?}", story.waiting());
    let last = story.waiting().into_iter().rfind(|name| name.len() == 24).expect("a segment");
    assert!(last.starts_with("00000002"), "{last}");
    story.go_on_archiving();
    run(&mut story.restore(&["--replace", "--start"])).ok();
    assert_eq!(story.server().psql(timeline), "00000003");
    story.assert_nothing_lost(&told);
    assert_eq!(story.server().psql("SELECT count(*) FROM second"), "3");
    for file in ["00000002.history", "00000003.history", last.as_str()] {
        wait_until(&format!("{file} in the archive"), LONG, || object(&story.ready, file).is_some());
    }
    let gaps = "SELECT count(*) FROM ark.verify_archive() WHERE status <> 'ok'";
    wait_until("an archive without a gap", LONG, || story.server().psql(gaps) == "0");
}

#[test]
fn nothing_acknowledged_is_lost_without_any_archive() {
    let ready = enabled(Cluster::builder().wal_segment_mb(1).start(), Repo::new());
    let server = &ready.server;
    server.psql("CREATE TABLE told (client int, number int, filler text)");
    ready.take_backup();
    let client = Client::start(server, 1);
    wait_until("some segments", LONG, || {
        server.psql("SELECT pg_current_wal_lsn() > pg_switch_wal() - 6000000") == "t"
            && server.psql("SELECT count(*) > 3000 FROM told") == "t"
    });
    server.kill9();
    let told = client.told();
    let mut pgark = ready.pgark();
    pgark.args(["restore", "--replace", "--start", "--pgdata"]).arg(server.data());
    let output = run(&mut pgark);
    assert!(output.success(), "{output}");
    let found: usize = server.psql("SELECT count(*) FROM told").parse().expect("a number");
    assert!(found >= told.len() && told.len() > 2000, "{found} of {}", told.len());
}

#[test]
fn a_gap_in_the_middle_of_the_archive_is_filled_from_the_old_pg_wal() {
    let story = Story::begin(Cluster::builder().conf("wal_keep_size = '512MB'"));
    let wal = wal_folder(&story.ready).expect("an archive").join("00000001");
    let stored = || -> Vec<PathBuf> {
        let names = names_below(&wal);
        names.iter().filter(|name| name.ends_with(".zst")).map(|name| wal.join(name)).collect()
    };
    let client = Client::start(story.server(), 1);
    wait_until("stored segments", LONG, || stored().len() > 8);
    story.server().kill9();
    let (told, stored) = (client.told(), stored());
    let lost = &stored[stored.len() - 3];
    let name = lost.file_stem().expect("a name").to_string_lossy().into_owned();
    fs::remove_file(lost).expect("the object");
    let output = run(&mut story.restore(&["--replace", "--start"]));
    assert!(output.success() && output.stderr.contains(&name), "{output}");
    story.assert_nothing_lost(&told);
    assert!(lost.is_file(), "the archive has it again");
}

#[test]
fn a_standby_reads_what_was_kept_too() {
    let story = Story::begin(Cluster::builder());
    story.stop_archiving();
    let told = story.commit_and_die(8);
    let last = story.waiting().pop().expect("a segment");
    let room = Scratch::new("room");
    let copy = copy_of(&story.server().data().join("pg_wal"), &room);
    story.server().destroy();
    story.go_on_archiving();
    run(&mut story.restore(&["--standby", "--keep-wal", &copy.display().to_string()])).ok();
    story.server().start();
    let rows = "SELECT count(*) FROM told";
    wait_until("the standby to replay", LONG, || {
        story.server().psql(rows).parse::<usize>().is_ok_and(|found| found >= told.len())
    });
    assert_eq!(story.server().psql("SELECT pg_is_in_recovery()"), "t");
    story.server().promote();
    story.assert_nothing_lost(&told);
    story.assert_archived(&last);
}
