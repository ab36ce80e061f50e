//! kill -9 at random moments: backup, restore, wal-push, archiver, verify, and now and then the whole server.
//!
//! What holds after each kill: a backup that says `complete` restores and is what its manifest says; a segment that the
//! server was told is archived is there and equal; a killed restore does not start and can be repeated; what is left
//! is known, hinders nobody and is cleared by the next run. `scripts/torture` does each 200 times.

use crate::archiving::{archive_now, archiving, object, switch_wal};
use crate::support::{Ready, names_below, ready, strays};
use pg_ark_testkit::process::{KILL, descendants, is_alive, is_reaped, send_signal};
use pg_ark_testkit::{
    Chance, Checksums, Cluster, LONG, SHORT, Scratch, StopMode, assert_same_data, command, holds_within,
    kill_after, passes, rounds, run, run_ok, wait_until,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Rounds of each test where nobody asks for more.
const ROUNDS: usize = 8;

/// What happened how often.
#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn tell(&self, of: &str, chance: &Chance) {
        let parts: Vec<String> = self.0.iter().map(|(what, count)| format!("{count} {what}")).collect();
        println!("torture of {of} (seed {}): {}", chance.seed(), parts.join(", "));
    }
}

/// How long something takes undisturbed: what was seen, the newest weighing most, because the machine has other work.
struct Pace(Duration);

impl Pace {
    /// The quickest of three.
    fn of(mut what: impl FnMut()) -> Pace {
        let mut time = || {
            let start = Instant::now();
            what();
            start.elapsed()
        };
        let first = time();
        Pace(first.min(time()).min(time()))
    }

    /// It was faster than the kill.
    fn learn(&mut self, took: Duration) {
        self.0 = (self.0 * 2 + took) / 3;
    }

    /// It was killed: late kills that all come in time come too early.
    fn was_killed(&mut self, at: Duration) {
        if at > self.0 * 4 / 5 {
            self.0 = self.0 * 11 / 10;
        }
    }

    /// Kills a child at a moment of its work; returns its status when it was faster.
    fn kill(&mut self, child: &mut Child, chance: &mut Chance) -> Option<ExitStatus> {
        let start = Instant::now();
        let moment = chance.moment(self.0);
        let status = kill_after(child, moment);
        match status {
            Some(_) => self.learn(start.elapsed()),
            None => self.was_killed(moment),
        }
        status
    }
}

/// pgark in the background, its output thrown away.
fn spawn(pgark: &mut Command) -> Child {
    pgark.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgark")
}

/// Names and sizes of all that a repository holds for good.
fn content(repository: &Path) -> BTreeMap<String, u64> {
    let passing = strays(repository);
    let size = |name: &String| fs::metadata(repository.join(name)).map_or(0, |meta| meta.len());
    let kept = names_below(repository).into_iter().filter(|name| !passing.contains(name));
    kept.map(|name| (name.clone(), size(&name))).collect()
}

/// Fails unless a folder holds what the backup's manifest says, which pg_verifybackup finds in it.
#[track_caller]
fn assert_restored(ready: &Ready, data: &Path) {
    run_ok(ready.server.pg().tool("pg_verifybackup").args(["-n", "-i", "postgresql.conf"]).arg(data));
    assert!(!data.join("pg_ark_restore.unfinished").exists(), "the marker is left in {data:?}");
}

/// Fails unless a complete backup restores.
#[track_caller]
fn assert_restorable(ready: &Ready, backup: &str) {
    let copy = ready.restore_beside_stopped(backup, &[]);
    assert_restored(ready, copy.server.data());
}

/// Starts a restored copy and compares what it holds.
#[track_caller]
fn assert_starts(server: &Cluster, original: &Checksums) {
    server.start();
    assert_same_data(original, &server.checksums());
    server.stop(StopMode::Immediate);
}

/// A server with a table of its own.
fn server_with_data() -> Ready {
    let ready = ready(Cluster::builder());
    ready.server.psql("CREATE TABLE t AS SELECT n, md5(n::text) AS filler FROM generate_series(1, 20000) n");
    ready
}

/// Who is killed while a backup runs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Engine,
    Worker,
    Server,
}

/// Kills at the moment; false when the backup was faster.
fn strike(ready: &Ready, victim: Victim, engine: u32) -> bool {
    let server = &ready.server;
    match victim {
        Victim::Engine => send_signal(engine, KILL),
        Victim::Worker => server.pids("pg_ark backup").iter().any(|worker| send_signal(*worker, KILL)),
        Victim::Server => {
            let postmaster = server.pid().expect("a server");
            let family = descendants(postmaster);
            send_signal(postmaster, KILL);
            for process in &family {
                send_signal(process.pid, KILL);
            }
            let gone = || is_reaped(postmaster) && family.iter().all(|process| !is_alive(process.pid));
            wait_until("the end of a killed server", SHORT, gone);
            true
        }
    }
}

/// How far the backup was whose folder this is.
fn stage(folder: &Path) -> &'static str {
    let names = names_below(folder);
    let has = |name: &str| names.iter().any(|known| known == name);
    match fs::read_to_string(folder.join("backup.json")) {
        Ok(record) if record.contains("\"complete\"") => "after complete",
        _ if has("backup_manifest") => "with a manifest",
        _ if has("base.tar.zst") => "with its data",
        _ if names.iter().any(|name| name.starts_with("base.tar.zst")) => "copying",
        Ok(_) => "with a record",
        Err(_) => "before its record",
    }
}

/// Names of backups by status.
fn backups(ready: &Ready, status: &str) -> BTreeSet<String> {
    let query = format!("SELECT backup FROM ark.list_backups() WHERE status = '{status}'");
    ready.server.psql(&query).lines().map(str::to_string).collect()
}

/// Folder of backups in the repository, by name.
fn folders(ready: &Ready) -> BTreeMap<String, PathBuf> {
    let systems = fs::read_dir(ready.repo.path().join("main")).into_iter().flatten().flatten();
    let folders = systems.filter_map(|system| fs::read_dir(system.path().join("backups")).ok()).flatten();
    folders.flatten().map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect()
}

/// The engine of a backup that was just asked for; none when the server is done already.
fn engine_at_birth(ready: &Ready, is_over: &mut dyn FnMut() -> bool) -> Option<u32> {
    let postmaster = ready.server.pid()?;
    let mut found = None;
    passes(SHORT, || {
        let engines = descendants(postmaster).into_iter().filter(|p| p.title.contains("pgark engine"));
        found = engines.map(|process| process.pid).next();
        found.is_some() || is_over()
    });
    found
}

/// One backup with a kill in it; returns the phase in which it hit.
fn kill_a_backup(
    ready: &Ready,
    victim: Victim,
    (pace, chance): (&mut Pace, &mut Chance),
    known: &BTreeSet<String>,
) -> Option<String> {
    let mut session = ready.server.psql_background("SELECT ark.backup_start(wait => true)");
    let engine = engine_at_birth(ready, &mut || !session.is_running())?;
    // Names have seconds, so what comes before the record may be one of waiting: that gets a quarter of the kills.
    let early = chance.below(4) == 0;
    let begun = || folders(ready).keys().any(|name| !known.contains(name));
    let in_time = match early {
        true => {
            passes(chance.moment(Duration::from_secs(1)), || !is_alive(engine) || begun()) || is_alive(engine)
        }
        false => {
            passes(SHORT, || begun() || !is_alive(engine));
            let start = Instant::now();
            let moment = chance.moment(pace.0);
            let in_time = passes(moment, || !is_alive(engine));
            match in_time {
                true => pace.was_killed(moment),
                false => pace.learn(start.elapsed()),
            }
            in_time
        }
    };
    let hit = in_time && strike(ready, victim, engine);
    let folders = folders(ready);
    let phase = folders.iter().find(|(name, _)| !known.contains(*name)).map(|(_, folder)| stage(folder));
    let answer = session.wait();
    if let Err(error) = &answer {
        let says = error.to_string();
        let expected = ["signal 9", "connection", "crash of another server process", "server closed"];
        assert!(hit && expected.iter().any(|part| says.contains(part)), "{victim:?} was killed: {says}");
    }
    if victim == Victim::Server && hit {
        ready.server.start();
    }
    wait_until("the server's recovery", LONG, || ready.server.try_psql("SELECT 1").is_ok());
    ready.assert_nothing_left_behind();
    if let Ok(answer) = answer {
        assert!(backups(ready, "complete").contains(&answer.rows), "{} is not complete", answer.rows);
        return None;
    }
    Some(format!("{victim:?} killed {}", phase.unwrap_or("before its folder")))
}

#[test]
fn killed_backups_never_lie_and_hinder_no_other() {
    let ready = server_with_data();
    let original = ready.server.checksums();
    let mut pace = Pace::of(|| {
        ready.take_backup();
    });
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    let (mut kills, rounds) = (0, rounds(ROUNDS));
    for round in 1.. {
        assert!(round < 4 * rounds + 20, "backups are faster than kills");
        let victim = match chance.below(100) {
            0..80 => Victim::Engine,
            80..90 => Victim::Worker,
            _ => Victim::Server,
        };
        let known: BTreeSet<String> = folders(&ready).into_keys().collect();
        match kill_a_backup(&ready, victim, (&mut pace, &mut chance), &known) {
            Some(phase) => {
                kills += 1;
                tally.count(phase);
            }
            None => tally.count("completed first"),
        }
        assert_eq!(backups(&ready, "running"), BTreeSet::new());
        // What says complete is, and stays.
        let complete = backups(&ready, "complete");
        complete
            .iter()
            .filter(|name| !known.contains(*name))
            .for_each(|name| assert_restorable(&ready, name));
        assert!(complete.len() >= 3);
        if kills >= rounds {
            break;
        }
    }
    // Whatever was left: the next run needs no help, and clears it.
    let last = ready.take_backup();
    for (name, folder) in folders(&ready) {
        if ready.backup_row("status", &name) != "complete" {
            assert_eq!(names_below(&folder), ["backup.json"], "in {folder:?}");
        }
    }
    assert_old_strays_go(&ready, || true);
    assert_starts(&ready.restore_beside_stopped(&last, &[]).server, &original);
    tally.tell("backup", &chance);
}

/// Fails when a server could be started from a folder in which a restore was killed, unless all of it is there.
#[track_caller]
fn assert_not_startable(ready: &Ready, data: &Path, try_it: bool) -> &'static str {
    if data.join("global/pg_control").exists() {
        // Named last: all else is there, and the marker goes right after.
        run_ok(ready.server.pg().tool("pg_verifybackup").args(["-n", "-i", "postgresql.conf"]).arg(data));
        return "killed when all was there";
    }
    if try_it && data.is_dir() {
        let copy = Cluster::open_restored_with(ready.server.pg(), data);
        assert!(!copy.try_start().success(), "a half restored server started");
    }
    match data.join("pg_ark_restore.unfinished").exists() {
        true if data.join("global/pg_control.pg_ark").exists() => "killed with pg_control held back",
        true => "killed while unpacking",
        false => "killed before anything was written",
    }
}

fn restore(ready: &Ready, backup: &str, data: &Path, options: &[&str]) -> Command {
    let mut pgark = ready.pgark();
    pgark.args(["restore", backup, "--pgdata"]).arg(data).args(options);
    pgark
}

#[test]
fn killed_restores_do_not_start_and_can_be_repeated() {
    let ready = server_with_data();
    let original = ready.server.checksums();
    let backup = ready.take_backup();
    let before = content(ready.repo.path());
    let mut pace = Pace::of(|| assert_restorable_quick(&ready, &backup));
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    let rounds = rounds(ROUNDS);
    let mut place = Scratch::new("killed");
    let mut kills = 0;
    for round in 1.. {
        assert!(round < 4 * rounds + 20, "restores are faster than kills");
        let data = place.path().join("data");
        let options: &[&str] = if data.exists() { &["--replace"] } else { &[] };
        let mut child = spawn(&mut restore(&ready, &backup, &data, options));
        match pace.kill(&mut child, &mut chance) {
            Some(status) => {
                assert!(status.success(), "restore over a killed one: {status}");
                assert_restored(&ready, &data);
                tally.count("completed first");
            }
            None => {
                kills += 1;
                tally.count(assert_not_startable(&ready, &data, chance.below(8) == 0));
            }
        }
        assert_eq!(content(ready.repo.path()), before, "a restore changed the repository");
        match chance.below(6) {
            // Elsewhere, as if the place were given up.
            0 => place = Scratch::new("killed"),
            1 => {
                run(&mut restore(&ready, &backup, &data, &["--replace"])).ok();
                assert_restored(&ready, &data);
            }
            _ => {}
        }
        if kills >= rounds {
            break;
        }
    }
    let data = place.path().join("data");
    run(&mut restore(&ready, &backup, &data, &["--replace"])).ok();
    // WAL that no archive has is kept each time; an unfinished folder of that is removed by the next restore.
    let beside = fs::read_dir(place.path()).expect("the place").flatten();
    let names: Vec<String> = beside.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let known = |name: &String| {
        name == "data" || name.starts_with("data.saved-wal-") && !name.ends_with(".unfinished")
    };
    assert!(names.iter().all(known), "{names:?}");
    assert_starts(&Cluster::open_restored_with(ready.server.pg(), &data), &original);
    tally.tell("restore", &chance);
}

#[track_caller]
fn assert_restorable_quick(ready: &Ready, backup: &str) {
    let place = Scratch::new("quick");
    run(&mut restore(ready, backup, &place.path().join("data"), &[])).ok();
}

#[test]
fn killed_restores_over_a_dead_server_lose_none_of_its_wal() {
    let small = Cluster::builder().wal_segment_mb(1).conf("archive_mode = on");
    let ready = ready(small.conf("archive_command = '/bin/false'"));
    let server = &ready.server;
    server.psql("CREATE TABLE told AS SELECT n FROM generate_series(1, 30000) n");
    ready.take_backup();
    // In no archive: pg_wal alone has it.
    server.psql("INSERT INTO told SELECT generate_series(30001, 60000)");
    server.kill9();
    let (pristine, data) = (server.base().join("pristine"), server.data().to_path_buf());
    run_ok(command("mv").arg(&data).arg(&pristine));
    let fresh = || {
        for entry in fs::read_dir(server.base()).expect("a folder").flatten() {
            if entry.file_name().to_string_lossy().starts_with("data") {
                fs::remove_dir_all(entry.path()).expect("the last round's");
            }
        }
        run_ok(command("cp").arg("-a").arg(&pristine).arg(&data));
    };
    let replace = || restore(&ready, "latest", &data, &["--replace"]);
    let mut pace = Pace::of(|| {
        fresh();
        run(&mut replace()).ok();
    });
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    let rounds = rounds(ROUNDS).div_ceil(4);
    for round in 0..rounds {
        fresh();
        for _ in 0..=chance.below(3) {
            let mut child = spawn(&mut replace());
            match pace.kill(&mut child, &mut chance) {
                Some(status) => {
                    assert!(status.success(), "round {round}: {status}");
                    tally.count("completed first");
                }
                None => tally.count("killed"),
            }
        }
        run(&mut replace()).ok();
        server.start();
        wait_until("the end of recovery", LONG, || server.psql("SELECT pg_is_in_recovery()") == "f");
        assert_eq!(server.psql("SELECT count(*), max(n) FROM told"), "60000|60000", "round {round}");
        server.stop(StopMode::Immediate);
    }
    tally.tell("restore over a dead server", &chance);
}

/// What a stored segment holds.
#[track_caller]
fn decoded(object: &Path) -> Vec<u8> {
    let output = command("zstd").args(["-d", "-c", "-q"]).arg(object).output().expect("zstd");
    assert!(output.status.success(), "{object:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Fails unless the archive holds what pg_wal holds under this name. Whatever has a name there must be whole.
#[track_caller]
fn assert_stored(ready: &Ready, segment: &str) {
    let stored = object(ready, segment).unwrap_or_else(|| panic!("{segment} was told and is not stored"));
    let original = fs::read(ready.server.data().join("pg_wal").join(segment)).expect("a kept segment");
    assert!(decoded(&stored) == original, "{segment} is stored differently");
}

/// Fills some segments; returns their names, oldest first.
fn fill_segments(server: &Cluster, count: u64) -> Vec<String> {
    let fill = "SELECT pg_logical_emit_message(false, 'fill', repeat(md5(random()::text), 20000))";
    let segment = || {
        server.psql(fill);
        switch_wal(server)
    };
    (0..count).map(|_| segment()).collect()
}

/// What would be an archive_command, and keeps every segment.
fn archiving_server(archives: bool) -> Ready {
    let small = Cluster::builder().wal_segment_mb(1).conf("wal_keep_size = '4GB'");
    match archives {
        true => archiving(small),
        false => ready(small.conf("archive_mode = on").conf("archive_command = '/bin/false'")),
    }
}

#[test]
fn killed_wal_push_leaves_nothing_that_is_not_whole() {
    let ready = archiving_server(false);
    let push = |segment: &str| {
        let mut pgark = ready.pgark();
        let path = ready.server.data().join("pg_wal").join(segment);
        pgark.args(["--cluster", "main", "wal-push"]).arg(path);
        pgark
    };
    let first = fill_segments(&ready.server, 3);
    let mut segments = first.iter();
    let mut pace = Pace::of(|| drop(run(&mut push(segments.next().expect("three"))).ok()));
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    let mut told: BTreeSet<String> = first.into_iter().collect();
    let (mut waiting, rounds, mut kills) = (Vec::new(), rounds(ROUNDS), 0);
    for round in 1.. {
        assert!(round < 6 * rounds + 20, "wal-push is faster than kills");
        if waiting.is_empty() {
            waiting = fill_segments(&ready.server, 1 + chance.below(3));
            waiting.reverse();
        }
        let segment = waiting.last().expect("a segment").clone();
        let mut child = spawn(&mut push(&segment));
        match pace.kill(&mut child, &mut chance) {
            Some(status) => {
                assert!(status.success(), "after kills: {status}");
                tally.count("completed first");
                assert_stored(&ready, &segment);
                told.insert(segment);
                waiting.pop();
            }
            None => {
                kills += 1;
                match object(&ready, &segment) {
                    Some(_) => {
                        tally.count("killed with the segment stored");
                        assert_stored(&ready, &segment);
                        waiting.pop();
                    }
                    None => tally.count("killed before the segment was stored"),
                }
            }
        }
        if kills >= rounds {
            break;
        }
    }
    waiting.iter().for_each(|segment| drop(run(&mut push(segment)).ok()));
    told.iter().chain(&waiting).for_each(|segment| assert_stored(&ready, segment));
    run(ready.pgark().args(["verify-archive", "--deep"])).ok();
    assert_old_strays_go(&ready, || run(&mut push(&fill_segments(&ready.server, 1)[0])).success());
    tally.tell("wal-push", &chance);
}

/// Fails unless what killed writers left goes when it is old: the next backup clears its own folders, the next segment
/// those of the archive.
#[track_caller]
fn assert_old_strays_go(ready: &Ready, next: impl FnOnce() -> bool) {
    for stray in strays(ready.repo.path()) {
        run_ok(command("/usr/bin/touch").args(["-d", "2 hours ago"]).arg(ready.repo.path().join(stray)));
    }
    assert!(next(), "the next run fails");
    ready.take_backup();
    assert_eq!(strays(ready.repo.path()), Vec::<String>::new());
}

/// Segments that the server was told are stored.
fn done(server: &Cluster) -> BTreeSet<String> {
    let names = names_below(&server.data().join("pg_wal/archive_status"));
    let done = names.iter().filter_map(|name| name.strip_suffix(".done"));
    done.filter(|name| name.len() == 24).map(str::to_string).collect()
}

#[test]
fn killed_archivers_and_servers_were_never_told_too_much() {
    let ready = archiving_server(true);
    let server = &ready.server;
    let pace = Pace::of(|| drop(archive_now(&ready)));
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    let mut checked = BTreeSet::new();
    let (rounds, mut kills) = (rounds(ROUNDS), 0);
    for round in 1.. {
        assert!(round < 6 * rounds + 20, "archiving is faster than kills");
        let segments = fill_segments(server, 1 + chance.below(2));
        passes(chance.moment(pace.0), || false);
        let archivers = server.pids("archiver");
        let (victim, hit) = match chance.below(20) {
            0 => ("the server", strike(&ready, Victim::Server, 0)),
            1..=3 => ("the archiver", archivers.iter().any(|pid| send_signal(*pid, KILL))),
            _ => ("its engine", server.pids("pgark engine").iter().any(|pid| send_signal(*pid, KILL))),
        };
        let when = match segments.iter().all(|segment| done(server).contains(segment)) {
            true => "when all was told",
            false => "with work left",
        };
        if hit {
            kills += 1;
            tally.count(format!("{victim} killed {when}"));
        }
        if victim == "the server" {
            server.start();
        }
        wait_until("the server's recovery", LONG, || server.try_psql("SELECT 1").is_ok());
        for segment in done(server) {
            if checked.insert(segment.clone()) {
                assert_stored(&ready, &segment);
            }
        }
        if kills >= rounds {
            break;
        }
    }
    let last = archive_now(&ready);
    wait_until("all that waited", LONG, || done(server).contains(&last));
    done(server).iter().for_each(|segment| assert_stored(&ready, segment));
    run(ready.pgark().args(["verify-archive", "--deep"])).ok();
    // A new engine looks at the folder anew.
    server.restart();
    assert_old_strays_go(&ready, || !archive_now(&ready).is_empty());
    tally.tell("archiver", &chance);
}

#[test]
fn killed_verifies_leave_no_trace() {
    let ready = archiving_server(true);
    ready.take_backup();
    archive_now(&ready);
    // Its engine writes indexes a while after the segments.
    ready.server.stop(StopMode::Fast);
    let before = content(ready.repo.path());
    let commands: [&[&str]; 3] =
        [&["verify", "--level", "pages"], &["verify"], &["verify-archive", "--deep"]];
    let verify = |number: usize| {
        let mut pgark = ready.pgark();
        pgark.args(commands[number]);
        pgark
    };
    let mut paces = [0, 1, 2].map(|number| Pace::of(|| drop(run(&mut verify(number)).ok())));
    let (mut chance, mut tally) = (Chance::new(), Tally::default());
    let (rounds, mut kills) = (rounds(ROUNDS), 0);
    for round in 1.. {
        assert!(round < 6 * rounds + 20, "verify is faster than kills");
        let number = chance.below(3) as usize;
        let what = commands[number].join(" ");
        let mut child = spawn(&mut verify(number));
        match paces[number].kill(&mut child, &mut chance) {
            Some(status) => {
                assert!(status.success(), "{what}: {status}");
                tally.count(format!("{what}: completed first"));
            }
            None => {
                kills += 1;
                tally.count(format!("{what}: killed"));
            }
        }
        assert_eq!(content(ready.repo.path()), before, "verify changed the repository");
        assert_eq!(strays(ready.repo.path()), Vec::<String>::new(), "verify left something");
        if kills >= rounds {
            break;
        }
    }
    // The same asked of the server: the engine dies, the session is told, nothing else happens.
    ready.server.start();
    let mut session = ready.server.session();
    session.ask("SELECT 1");
    session.send("SELECT * FROM ark.validate(level => 'pages')");
    if let Some(engine) = engine_at_birth(&ready, &mut || !session.is_running()) {
        let killed = !ready.server.pids("pgark engine").is_empty() && send_signal(engine, KILL);
        tally.count(if killed { "ark.validate: killed" } else { "ark.validate: completed first" });
    }
    drop(session);
    assert!(holds_within(SHORT, || ready.server.try_psql("SELECT 1").is_ok()));
    run(&mut verify(0)).ok();
    ready.take_backup();
    tally.tell("verify", &chance);
}
