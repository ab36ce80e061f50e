//! Promise 3, absent means proven absent: real recoveries with `restore_command = 'pgark wal-get ...'`. Every fault stops
//! recovery with its reason in the server's log, the same recovery goes on when it is mended, and only the end of the archive
//! ends it. And what is fetched ahead: it stays within its bound and ends with the recovery.

use crate::archiving::{archive_now, archiving, object, restore_command, wait_archived, wal_folder};
use crate::support::{Ready, names_below};
use pg_ark_testkit::process::{self, KILL, send_signal};
use pg_ark_testkit::{Cluster, LONG, SHORT, Scratch, StopMode, Tmpfs, command, run_ok, wait_until};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Segments that every story archives after its base backup.
const SEGMENTS: i32 = 12;

/// A server that is gone, its base backup, and its archive.
struct Story {
    ready: Ready,
    base: Scratch,
    /// Names of the archived segments, one row was inserted in each.
    segments: Vec<String>,
}

impl Story {
    fn new() -> Story {
        let ready = archiving(Cluster::builder().wal_segment_mb(1).conf("autovacuum = off"));
        ready.server.psql("CREATE TABLE t (i int)");
        let base = Scratch::new("base");
        let copy = base.path().join("data");
        run_ok(ready.server.client("pg_basebackup").args(["-X", "none", "-c", "fast", "-N", "-D"]).arg(copy));
        let segments = (1..=SEGMENTS).map(|i| add_row(&ready, i)).collect();
        Story { ready, base, segments }
    }

    /// A segment in the middle.
    fn middle(&self) -> &str {
        &self.segments[self.segments.len() / 2]
    }

    fn object(&self, name: &str) -> PathBuf {
        object(&self.ready, name).expect("an object of the archive")
    }

    fn wal_folder(&self) -> PathBuf {
        wal_folder(&self.ready).expect("an archive")
    }

    /// A copy that recovers from the archive; not started.
    fn recovery(&self, signal: &str, settings: &[&str]) -> Recovery {
        let folder = Scratch::new("pg");
        let data = folder.path().join("data");
        run_ok(command("cp").arg("-a").arg(self.base.path().join("data")).arg(&data));
        run_ok(command("touch").arg(data.join(signal)));
        let server = Cluster::open_restored_with(self.ready.server.pg(), &data);
        server.configure(&[
            &restore_command(self.ready.server.pg(), &self.ready.repo),
            "wal_retrieve_retry_interval = '100ms'",
            "archive_mode = off",
        ]);
        server.configure(settings);
        Recovery { server, _folder: folder }
    }

    /// As `restore_command`, with these options.
    fn with_options(&self, options: &str) -> String {
        let line = restore_command(self.ready.server.pg(), &self.ready.repo);
        line.replace("wal-get", &format!("wal-get {options}"))
    }
}

/// Inserts a row and archives its segment; returns the segment's name.
fn add_row(ready: &Ready, i: i32) -> String {
    ready.server.psql(&format!("INSERT INTO t VALUES ({i})"));
    archive_now(ready)
}

struct Recovery {
    server: Cluster,
    // Last, so that the folder goes after the server.
    _folder: Scratch,
}

impl Recovery {
    /// The server must not start, and its log must say why.
    #[track_caller]
    fn stops(&self, words: &[&str]) {
        let before = self.server.log().len();
        // A server that can be read counts as started.
        let _ = self.server.try_start();
        wait_until("the end of the server", LONG, || self.server.pid().is_none() || self.is_open());
        let log = self.server.log().split_off(before);
        assert!(self.server.pid().is_none(), "it was opened with what was there:\n{log}");
        for word in ["FATAL:  could not restore file", "error: wal-get "].iter().chain(words) {
            assert!(log.contains(word), "\"{word}\" expected:\n{log}");
        }
        assert!(self.server.data().join("recovery.signal").exists(), "recovery goes on with the next start");
    }

    /// The server recovers to the end of the archive.
    #[track_caller]
    fn finishes(&self, last: i32) {
        self.server.start();
        self.wait_until_open();
        let rows = self.server.psql("SELECT count(*), count(DISTINCT i), max(i) FROM t");
        assert_eq!(rows, format!("{last}|{last}|{last}"));
        self.spool_goes();
    }

    fn is_open(&self) -> bool {
        self.server.try_psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    }

    #[track_caller]
    fn wait_until_open(&self) {
        wait_until("the end of recovery", LONG, || self.is_open());
    }

    /// What was fetched ahead, and what was being handed over, goes.
    #[track_caller]
    fn spool_goes(&self) {
        let wal = self.server.data().join("pg_wal");
        wait_until("the end of the spool", SHORT, || !wal.join(".pg_ark_spool").exists());
        wait_until("the end of its process", SHORT, || ahead_of(&self.server).is_empty());
        assert!(!wal.join(".RECOVERYXLOG.pg_ark").exists());
    }

    /// Sizes of the segments in the spool, also of those that are being fetched.
    fn spooled(&self) -> Vec<u64> {
        let folder = self.server.data().join("pg_wal/.pg_ark_spool");
        let spools = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = spools.flat_map(|spool| fs::read_dir(spool.path()).into_iter().flatten().flatten());
        let is_wal = |name: &str| name.len() >= 24;
        files
            .filter(|f| f.file_name().to_str().is_some_and(is_wal))
            .filter_map(|f| Some(f.metadata().ok()?.len()))
            .collect()
    }
}

/// Processes that fetch ahead for a server: they are no children of it.
fn ahead_of(server: &Cluster) -> Vec<process::Process> {
    let mine = |pid: u32| process::works_in(pid, server.data());
    let ahead = |p: &process::Process| p.title.contains("wal-get --ahead") && mine(p.pid);
    process::all().into_iter().filter(ahead).collect()
}

#[test]
fn absent_means_proven_absent_and_the_end_of_the_archive_is_the_end_of_recovery() {
    let story = Story::new();
    // The last segment is there, in part: a promotion would have left it so.
    let recovery = story.recovery("recovery.signal", &[]);
    recovery.finishes(SEGMENTS);
    assert!(!recovery.server.log().contains("error: "), "{}", recovery.server.log());
    // Without anything fetched ahead, and with a spool of its own place.
    let none = story.recovery("recovery.signal", &[&story.with_options("--spool-size 0")]);
    none.finishes(SEGMENTS);
    let room = Scratch::new("spool");
    let line = story.with_options(&format!("--spool {} --jobs 1", room.folder("s").display()));
    let elsewhere = story.recovery("recovery.signal", &[&line]);
    elsewhere.finishes(SEGMENTS);
    wait_until("the end of the spool", SHORT, || names_below(room.path()).is_empty());
}

#[test]
fn absent_means_proven_absent_not_a_repository_that_is_gone_or_closed() {
    let story = Story::new();
    // Or it stores something, and makes folders for that, while they are away.
    story.ready.server.stop(StopMode::Fast);
    let recovery = story.recovery("recovery.signal", &[]);
    let path = story.ready.repo.path().to_path_buf();
    let away = path.with_file_name("away");
    fs::rename(&path, &away).expect("rename");
    recovery.stops(&["there is no repository", "exit code 205", "hint: "]);
    fs::create_dir(&path).expect("what an unmounted disk leaves");
    recovery.stops(&["there is no repository"]);
    fs::remove_dir(&path).expect("the empty folder");
    fs::rename(&away, &path).expect("rename");
    let wal = story.wal_folder();
    let hidden = wal.with_file_name("hidden");
    fs::rename(&wal, &hidden).expect("rename");
    recovery.stops(&["there is no WAL of system identifier", "exit code 205"]);
    fs::rename(&hidden, &wal).expect("rename");
    for folder in [&wal, &wal.join("00000001"), &wal.join("00000001/00000000"), &path] {
        fs::set_permissions(folder, Permissions::from_mode(0o0)).expect("chmod");
        recovery.stops(&["Permission denied", "exit code 211"]);
        fs::set_permissions(folder, Permissions::from_mode(0o700)).expect("chmod");
    }
    recovery.finishes(SEGMENTS);
}

#[test]
fn absent_means_proven_absent_not_a_damaged_or_lost_segment() {
    let story = Story::new();
    let object = story.object(story.middle());
    let whole = fs::read(&object).expect("an object");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let faults: [(&[u8], &str); 4] = [
        (&flipped, "exit code 213"),
        (&whole[..whole.len() / 2], "exit code 213"),
        (b"", "exit code 213"),
        (b"nonsense", "exit code 213"),
    ];
    let recovery = story.recovery("recovery.signal", &[]);
    for (bytes, code) in faults {
        fs::write(&object, bytes).expect("an object");
        recovery.stops(&[story.middle(), "is damaged", code]);
    }
    fs::remove_file(&object).expect("an object");
    recovery.stops(&["is missing", "The archive has a later segment", "exit code 219"]);
    // A segment of another name, which is sound in itself.
    let other = story.object(&story.segments[1]);
    run_ok(command("cp").arg(&other).arg(&object));
    recovery.stops(&[story.middle(), "its first page is the one of"]);
    fs::write(&object, &whole).expect("an object");
    recovery.finishes(SEGMENTS);

    let line = story.with_options("--system-identifier 7");
    let recovery = story.recovery("recovery.signal", &[&line]);
    recovery.stops(&["system identifier", "exit code 225"]);
    recovery.server.configure(&[&restore_command(story.ready.server.pg(), &story.ready.repo)]);
    recovery.finishes(SEGMENTS);
}

#[test]
fn absent_means_proven_absent_not_a_lost_history() {
    let story = Story::new();
    let fork = story.recovery("recovery.signal", &["archive_mode = on"]);
    story.ready.server.stop(StopMode::Fast);
    fork.finishes(SEGMENTS);
    fork.server.psql(&format!("INSERT INTO t VALUES ({})", SEGMENTS + 1));
    let last = fork.server.psql("SELECT pg_walfile_name(pg_switch_wal())");
    wait_archived(&story.ready, "00000002.history");
    wait_archived(&story.ready, &last);
    let recovery = story.recovery("recovery.signal", &[]);
    let history = story.object("00000002.history");
    let away = history.with_extension("away");
    fs::rename(&history, &away).expect("rename");
    recovery.stops(&["00000002.history\" is missing", "exit code 219"]);
    fs::write(&history, "nonsense").expect("a history");
    recovery.stops(&["00000002.history is damaged", "exit code 213"]);
    fs::rename(&away, &history).expect("rename");
    recovery.finishes(SEGMENTS + 1);
    assert_eq!(recovery.server.psql("SELECT timeline_id FROM pg_control_checkpoint()"), "3");
    // Recovery along timeline 1 ends where timeline 2 begins, though that goes on.
    let old = story.recovery("recovery.signal", &["recovery_target_timeline = 'current'"]);
    let last_of_1 = story.object(story.segments.last().expect("segments"));
    let hidden = last_of_1.with_extension("away");
    fs::rename(&last_of_1, &hidden).expect("rename");
    old.stops(&["is missing"]);
    fs::rename(&hidden, &last_of_1).expect("rename");
    old.finishes(SEGMENTS);
}

#[test]
fn absent_means_proven_absent_not_the_first_of_several_histories() {
    let story = Story::new();
    story.ready.server.stop(StopMode::Fast);
    // Timelines 2 and 3 both leave timeline 1 at its end.
    for (i, history) in [(1, "00000002.history"), (2, "00000003.history")] {
        let target = "recovery_target_timeline = 'current'";
        let fork = story.recovery("recovery.signal", &["archive_mode = on", target]);
        fork.finishes(SEGMENTS);
        wait_archived(&story.ready, history);
        if i == 2 {
            fork.server.psql(&format!("INSERT INTO t VALUES ({})", SEGMENTS + 1));
            let last = fork.server.psql("SELECT pg_walfile_name(pg_switch_wal())");
            wait_archived(&story.ready, &last);
        }
        fork.server.stop(StopMode::Fast);
    }
    let history = story.object("00000002.history");
    let away = story.ready.repo.path().with_extension("history");
    fs::rename(&history, &away).expect("rename");
    let recovery = story.recovery("recovery.signal", &[]);
    recovery.stops(&["00000002.history\" is missing", "numbers are given in order", "exit code 219"]);
    // The way out of the hint needs the lost file no more; nothing else takes it for absent.
    let settings = recovery.server.data().join("postgresql.auto.conf");
    let before = fs::read_to_string(&settings).expect("settings");
    fs::write(&settings, format!("{before}\nrecovery_target_timeline = '3'\n")).expect("settings");
    recovery.finishes(SEGMENTS + 1);
    assert_eq!(recovery.server.psql("SELECT timeline_id FROM pg_control_checkpoint()"), "4");
}

#[test]
fn absent_means_proven_absent_not_a_full_disk_or_a_dead_program() {
    let story = Story::new();
    let disk = Tmpfs::new(2 << 20);
    let recovery = story.recovery("recovery.signal", &[]);
    let wal = recovery.server.data().join("pg_wal");
    let place = disk.path().join("wal");
    run_ok(command("mv").arg(&wal).arg(&place));
    run_ok(command("ln").arg("-s").arg(&place).arg(&wal));
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![0; (2 << 20) - (1 << 19)]).expect("a filler");
    recovery.stops(&["No space left on device", "exit code 210"]);
    assert!(!names_below(&place).iter().any(|name| name.contains("RECOVERYXLOG")), "half a file is left");
    disk.resize(256 << 20);
    recovery.finishes(SEGMENTS);

    // Killed in the middle, again and again: at once, which no program outruns, then a little later each time.
    let bomb = story.ready.server.base().join("bomb");
    let line = restore_command(story.ready.server.pg(), &story.ready.repo);
    let (name, called) = line.split_once(" = '").expect("a setting");
    let file = bomb.display();
    let guard =
        format!("{name} = 'if [ -e {file} ]; then t=\"timeout -s KILL $(cat {file})\"; fi; $t {called}");
    let recovery = story.recovery("recovery.signal", &[&guard]);
    for delay in ["0.0001", "0.002", "0.004", "0.008"] {
        fs::write(&bomb, delay).expect("a file");
        let _ = recovery.server.try_start();
        wait_until("an end", LONG, || recovery.server.pid().is_none() || recovery.is_open());
        if recovery.server.pid().is_some() {
            break;
        }
    }
    assert!(recovery.server.log().contains("Killed") || recovery.server.log().contains("exit code 137"));
    if recovery.server.pid().is_some() {
        recovery.server.stop(StopMode::Fast);
    }
    fs::remove_file(&bomb).expect("the file");
    recovery.finishes(SEGMENTS);
}

#[test]
fn absent_means_proven_absent_but_a_standby_waits_and_catches_up() {
    let story = Story::new();
    let path = story.ready.repo.path().to_path_buf();
    let away = path.with_file_name("away");
    let standby = story.recovery("standby.signal", &[]);
    standby.server.start();
    let rows = || standby.server.try_psql("SELECT count(*) FROM t").unwrap_or_default();
    wait_until("the standby", LONG, || rows() == SEGMENTS.to_string());
    story.ready.server.stop(StopMode::Fast);
    fs::rename(&path, &away).expect("rename");
    wait_until("the fault in the log", LONG, || standby.server.log().contains("there is no repository"));
    assert_eq!(standby.server.psql("SELECT pg_is_in_recovery()"), "t");
    fs::rename(&away, &path).expect("rename");
    story.ready.server.start();
    add_row(&story.ready, SEGMENTS + 1);
    // A gap is waited for too: the segment may be on its way.
    let lost = add_row(&story.ready, SEGMENTS + 2);
    let last = (SEGMENTS + 2).to_string();
    wait_until("the standby", LONG, || rows() == last);
    assert_eq!(standby.server.psql("SELECT pg_is_in_recovery()"), "t");
    let again = story.recovery("standby.signal", &[]);
    let object = story.object(&lost);
    let hidden = object.with_extension("away");
    fs::rename(&object, &hidden).expect("rename");
    add_row(&story.ready, SEGMENTS + 3);
    again.server.start();
    wait_until("the gap in the log", LONG, || again.server.log().contains("The archive has a later segment"));
    fs::rename(&hidden, &object).expect("rename");
    let rows = || again.server.try_psql("SELECT count(*) FROM t").unwrap_or_default();
    let last = (SEGMENTS + 3).to_string();
    wait_until("the standby", LONG, || rows() == last);
}

/// Stops a recovery in its middle, which fetches four segments ahead. PostgreSQL's own reading ahead would ask for all.
fn paused(story: &Story) -> Recovery {
    let target = format!("recovery_target_lsn = '{}'", lsn_of(story.middle()));
    let bound = story.with_options("--spool-size 4MB");
    let recovery = story.recovery(
        "recovery.signal",
        &[&target, "recovery_target_action = pause", "recovery_prefetch = off", &bound],
    );
    recovery.server.start();
    wait_until("the pause", LONG, || {
        recovery.server.psql("SELECT pg_get_wal_replay_pause_state()") == "paused"
    });
    recovery
}

/// Where a segment of 1 MB begins.
fn lsn_of(segment: &str) -> String {
    let (log, low) = (&segment[8..16], u64::from_str_radix(&segment[16..], 16).expect("a number"));
    format!("{}/{:X}", log.trim_start_matches('0').parse::<u32>().unwrap_or(0), (low << 20) + 0x100)
}

#[test]
fn what_is_fetched_ahead_stays_within_its_bound_and_ends_with_its_server() {
    let story = Story::new();
    let recovery = paused(&story);
    let whole = |sizes: &[u64]| sizes.iter().filter(|size| **size == 1 << 20).count();
    wait_until("four segments", SHORT, || {
        let sizes = recovery.spooled();
        assert!(sizes.len() <= 4, "{sizes:?}");
        whole(&sizes) == 4
    });
    let [process] = &ahead_of(&recovery.server)[..] else { panic!("one process fetches ahead") };
    let postmaster = recovery.server.pid().expect("a server");
    assert!(!process::descendants(postmaster).iter().any(|child| child.pid == process.pid));
    recovery.server.kill9();
    recovery.spool_goes();

    // Killed itself, it leaves its spool; the next recovery does not use that and removes it.
    recovery.server.start();
    wait_until("the pause", LONG, || {
        recovery.server.psql("SELECT pg_get_wal_replay_pause_state()") == "paused"
    });
    wait_until("four segments", SHORT, || whole(&recovery.spooled()) == 4);
    let [process] = &ahead_of(&recovery.server)[..] else { panic!("one process fetches ahead") };
    send_signal(process.pid, KILL);
    wait_until("its end", SHORT, || !process::is_alive(process.pid));
    assert_eq!(whole(&recovery.spooled()), 4);
    poison(&recovery.server.data().join("pg_wal/.pg_ark_spool"));
    recovery.server.kill9();
    recovery.server.configure(&["recovery_target_lsn = ''"]);
    recovery.finishes(SEGMENTS);
}

#[test]
fn a_process_that_dies_is_missed_by_nobody() {
    let story = Story::new();
    let recovery = story.recovery("recovery.signal", &[]);
    let mut killed = 0;
    // Later nobody might come who misses the last one: its spool is there until the next recovery then.
    let restored = format!("restored log file \"{}\"", story.middle());
    let mut kill = || {
        if !recovery.server.log().contains(&restored) {
            killed += ahead_of(&recovery.server).iter().filter(|p| send_signal(p.pid, KILL)).count();
        }
    };
    std::thread::scope(|scope| {
        let start = scope.spawn(|| recovery.server.try_start().success());
        wait_until("the start", LONG, || {
            kill();
            start.is_finished()
        });
        assert!(start.join().expect("pg_ctl"), "{}", recovery.server.log());
    });
    wait_until("the end of recovery", LONG, || {
        kill();
        recovery.is_open()
    });
    assert!(killed > 0, "there was none to kill");
    assert_eq!(recovery.server.psql("SELECT count(*) FROM t"), SEGMENTS.to_string());
    recovery.spool_goes();
}

/// Replaces what is in a spool by pages that look right and are not.
fn poison(base: &Path) {
    for spool in fs::read_dir(base).expect("spools").flatten() {
        for file in fs::read_dir(spool.path()).expect("a spool").flatten() {
            if file.metadata().is_ok_and(|meta| meta.len() == 1 << 20) {
                let mut bytes = fs::read(file.path()).expect("a segment");
                bytes[8192..].fill(0xFF);
                fs::write(file.path(), bytes).expect("a segment");
            }
        }
    }
}
