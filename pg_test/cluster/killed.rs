//! What kills an engine, fills its disk or takes its repository away costs one backup attempt, and nothing else.

use crate::support::{Ready, names_below, ready, ready_with, strays};
use pg_ark_testkit::process::{KILL, STOP, is_alive, send_signal};
use pg_ark_testkit::{
    Cluster, LONG, Repo, SHORT, Scratch, Session, Tmpfs, command, file_url, holds_promptly, holds_within,
    run_ok, wait_until,
};
use std::path::Path;

/// Rounds of [`fifty_kills_cost_fifty_backups_and_nothing_else`].
const KILLS: usize = 50;

/// Numbers that look random and are the same in each run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Kills the engine of a backup that was asked for in the background, so early that it may not have a name yet.
fn kill_at_birth(ready: &Ready, looks: u64) -> Option<String> {
    let session = ready.server.psql_background("SELECT ark.backup_start()");
    let mut engine = None;
    holds_within(SHORT, || {
        engine = ready.server.pids("pgark").first().copied();
        engine.is_some()
    });
    let engine = engine?;
    // Each look at /proc takes some of the engine's life.
    let _ = (0..looks).take_while(|_| is_alive(engine)).count();
    send_signal(engine, KILL);
    match session.wait() {
        Ok(answer) => Some(answer.rows),
        Err(error) => {
            assert_eq!(error.sqlstate(), "58000", "{error}");
            assert!(error.message().contains("signal 9"), "{error}");
            None
        }
    }
}

/// Kills the engine when it has read so many bytes.
fn kill_after(ready: &Ready, client: &mut Session, bytes: u64) -> String {
    let backup = ready.server.psql("SET pg_ark.max_rate = 40960; SELECT ark.backup_start()");
    let [engine] = ready.server.pids("pgark engine")[..] else { return backup };
    let so_far = "SELECT coalesce(max(backup_streamed), 0) FROM pg_stat_progress_basebackup";
    let done = |text: String| text.parse::<u64>().expect("bytes") >= bytes;
    holds_within(LONG, || done(client.ask(so_far)) || !is_alive(engine));
    send_signal(engine, KILL);
    backup
}

#[test]
fn fifty_kills_cost_fifty_backups_and_nothing_else() {
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    let (postmaster, start) = (server.pid(), server.psql("SELECT pg_postmaster_start_time()"));
    let mut client = server.session();
    client.ask("CREATE TEMP TABLE mine AS SELECT 'still here' AS t");
    let size: u64 = client.ask("SELECT sum(pg_database_size(oid)) FROM pg_database").parse().expect("a size");

    let mut numbers = Numbers(0x5eed_2026);
    let (mut killed, mut unborn, mut complete) = (0, 0, 0);
    while killed < KILLS {
        let backup = match numbers.below(4) {
            0 => kill_at_birth(&ready, numbers.below(200)),
            _ => Some(kill_after(&ready, &mut client, numbers.below(size))),
        };
        ready.assert_nothing_left_behind();
        let Some(backup) = backup else {
            unborn += 1;
            killed += 1;
            let running = "SELECT count(*) FROM ark.list_backups() WHERE status = 'running'";
            assert_eq!(client.ask(running), "0");
            ready.assert_no_lease();
            continue;
        };
        if ready.backup_row("status", &backup) == "complete" {
            complete += 1;
            assert!(complete < KILLS, "backups are faster than kills");
            continue;
        }
        killed += 1;
        ready.assert_failed(&backup, "signal 9");
    }
    println!("{killed} killed, {unborn} of them before they had a name; {complete} were too fast");

    assert_eq!(client.ask("SELECT t FROM mine"), "still here", "the client's session");
    assert_eq!(server.pid(), postmaster, "the postmaster");
    assert_eq!(client.ask("SELECT pg_postmaster_start_time()"), start);
    let log = server.log();
    assert!(
        !log.contains("terminating any other active server processes"),
        "the server restarted its sessions"
    );
    let backup = ready.take_backup();
    assert_verified(&ready, &backup);

    // A writer that is killed at the wrong moment leaves a small file that nobody sees, for an hour.
    for stray in strays(ready.repo.path()) {
        run_ok(command("/usr/bin/touch").args(["-d", "2 hours ago"]).arg(ready.repo.path().join(stray)));
    }
    ready.take_backup();
    assert_eq!(strays(ready.repo.path()), Vec::<String>::new());
}

/// Unpacks a backup with public tools and lets pg_verifybackup judge it, its WAL included.
#[track_caller]
fn assert_verified(ready: &Ready, backup: &str) {
    let (folder, scratch) = (ready.backup_folder(backup), Scratch::new("verified"));
    let data = scratch.folder("data");
    let script = "set -e; cd \"$BACKUP\"; zstd -dc base.tar.zst | tar x -C \"$DATA\"; \
                  zstd -dc pg_wal.tar.zst | tar x -C \"$DATA/pg_wal\"";
    let mut shell = command("/bin/sh");
    run_ok(shell.arg("-c").arg(script).env("BACKUP", &folder).env("DATA", &data));
    let mut verify = ready.server.pg().tool("pg_verifybackup");
    run_ok(verify.arg("-m").arg(folder.join("backup_manifest")).arg(&data));
}

#[test]
fn backup_stop_ends_an_engine_that_is_frozen() {
    let ready = ready(Cluster::builder());
    let running = ready.start_slow(1024);
    send_signal(running.engine, STOP);
    let stop = format!("SELECT ark.backup_stop('{}')", running.backup);
    let mut session = ready.server.session();
    session.ask("SELECT 1");
    session.send(&stop);
    let gone = holds_promptly(1, || !is_alive(running.engine));
    assert!(gone, "the frozen engine lives on");
    assert_eq!(session.wait().expect("backup_stop").rows.lines().last(), Some("t"));
    ready.assert_failed(&running.backup, "stopped by ark.backup_stop");
    ready.assert_works();
}

#[test]
fn an_engine_that_dies_before_its_first_word_is_told_by_its_signal() {
    let ready = ready(Cluster::builder());
    let path = ready.server.base().join("engine.sh");
    std::fs::write(&path, "#!/bin/sh\nkill -9 $$\n").expect("a script");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    ready.server.configure(&[&format!("pg_ark.engine_path = '{}'", path.display())]);
    ready.server.reload();
    for call in ["ark.backup_start()", "ark.list_backups()"] {
        let error = ready.server.try_psql(&format!("SELECT {call}")).unwrap_err();
        assert_eq!(error.sqlstate(), "58000", "{error}");
        assert!(error.message().contains("signal 9") && !error.hint().is_empty(), "{error}");
    }
    ready.assert_nothing_left_behind();
    ready.server.configure(&["pg_ark.engine_path = ''"]);
    ready.server.reload();
    assert_eq!(ready.server.psql("SELECT count(*) FROM ark.list_backups()"), "0");
    ready.assert_works();
}

#[test]
fn a_disk_that_fills_up_fails_the_backup_and_nothing_else() {
    let disk = Tmpfs::new(64 << 20);
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.create_tablespace("fast"); // Its archive is finished before the disk is full.
    server.pgbench(&["-i", "-q", "-s", "4", "--tablespace=fast"]);
    server.psql(&format!("SELECT * FROM ark.enable('{}')", file_url(disk.path())));
    let backup = "SET pg_ark.compression = 'none'; SET pg_ark.volume_size = '8MB'; \
                  SELECT ark.backup_start(wait => true)";
    let error = server.try_psql(backup).unwrap_err();
    assert_eq!(error.sqlstate(), "53100", "{error}");
    assert!(error.stderr.contains("No space left"), "{error}");
    assert!(error.hint().contains("Free some space"), "{error}");
    ready.assert_nothing_left_behind();
    let row = server.psql("SELECT status, error FROM ark.list_backups()");
    assert!(row.starts_with("failed|") && row.contains("No space left"), "{row}");
    let left: Vec<_> = names_below(disk.path()).into_iter().filter(|name| !name.ends_with(".json")).collect();
    assert!(left.is_empty(), "left on the full disk: {left:?}");

    disk.resize(256 << 20);
    server.psql(backup);
    assert_eq!(server.psql("SELECT string_agg(status, ' ') FROM ark.list_backups()"), "failed complete");
}

#[test]
fn a_disk_without_room_for_a_word_is_told_and_the_next_backup_clears_up() {
    let disk = Tmpfs::new(48 << 20);
    let ready = ready(Cluster::builder());
    let server = &ready.server;
    server.psql(&format!("SELECT * FROM ark.enable('{}')", file_url(disk.path())));
    server.psql("SET pg_ark.max_rate = 4096; SELECT ark.backup_start()");
    ready.wait_for_phase("streaming database files");
    // Somebody else takes every byte, those that the backup gives back too.
    let mut eater = command("/bin/sh");
    eater
        .arg("-c")
        .arg("while [ -d \"$0\" ]; do cat /dev/zero >> \"$0/eater\"; sleep 0.01; done 2>/dev/null")
        .arg(disk.path());
    let mut eater = eater.spawn().expect("a shell");
    wait_until("the end of the backup", LONG, || {
        server.psql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_ark backup'") == "0"
    });
    ready.assert_nothing_left_behind();
    assert!(server.log().contains("No space left"), "the log says why");
    let row = server.psql("SELECT status FROM ark.list_backups()");
    assert_eq!(row, "failed", "also when that could not be written");
    let _ = eater.kill();
    let _ = eater.wait();

    std::fs::remove_file(disk.path().join("eater")).expect("its file");
    disk.resize(256 << 20);
    server.psql("SELECT ark.backup_start(wait => true)");
    assert_eq!(server.psql("SELECT string_agg(status, ' ') FROM ark.list_backups()"), "failed complete");
    assert_eq!(strays(disk.path()), Vec::<String>::new());
}

#[test]
fn a_repository_that_vanishes_fails_the_backup_and_is_not_made_again() {
    let ready = ready(Cluster::builder());
    let running = ready.start_slow(4096);
    empty(ready.repo.path());
    wait_until("the end of the backup", LONG, || !is_alive(running.engine));
    ready.assert_nothing_left_behind();
    let log = ready.server.log();
    assert!(log.contains(&format!("backup {} failed", running.backup)), "the log names the backup");
    assert_eq!(names_below(ready.repo.path()), Vec::<String>::new(), "half a repository");
    let error = ready.server.try_psql("SELECT * FROM ark.list_backups()").unwrap_err();
    assert_eq!(error.sqlstate(), "58P01", "{error}");
    assert!(error.hint().contains("mount it"), "{error}");
    // A new one is made on purpose only.
    let enable = format!("SELECT * FROM ark.enable('{}')", ready.repo.url());
    let error = ready.server.try_psql(&enable).unwrap_err();
    assert!(error.hint().contains("ALTER SYSTEM RESET pg_ark.repository"), "{error}");
    assert_eq!(names_below(ready.repo.path()), Vec::<String>::new(), "half a repository");
    ready.server.psql("ALTER SYSTEM RESET pg_ark.repository");
    ready.server.reload();
    wait_until("the new setting", LONG, || ready.server.psql("SHOW pg_ark.repository").is_empty());
    ready.server.psql(&enable);
    ready.assert_works();
}

fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).expect("remove a folder");
        } else {
            std::fs::remove_file(&path).expect("remove a file");
        }
    }
}

#[test]
fn the_slot_keeps_the_wal_that_is_needed_and_no_more() {
    let small =
        Cluster::builder().wal_segment_mb(1).conf("max_wal_size = '2MB'").conf("min_wal_size = '2MB'");
    let ready = ready_with(small.conf("wal_keep_size = 0"), Repo::new());
    let server = &ready.server;
    let running = ready.start_slow(1024);
    let mut writer = server.session();
    let restart = "SELECT restart_lsn FROM pg_replication_slots";
    let (begin, mut most) = (writer.ask(restart), 0);
    for round in 0..10 {
        let before = writer.ask("SELECT pg_current_wal_lsn()");
        for _ in 0..4 {
            writer.ask(
                "SELECT pg_logical_emit_message(false, 'test', repeat('x', 600000)); SELECT pg_switch_wal()",
            );
        }
        writer.ask("CHECKPOINT");
        wait_until("the slot to move on", LONG, || {
            writer.ask(&format!("SELECT restart_lsn >= '{before}' FROM pg_replication_slots")) == "t"
        });
        writer.ask("CHECKPOINT");
        most = most.max(
            writer
                .ask("SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")
                .parse()
                .expect("a count"),
        );
        assert!(is_alive(running.engine), "the backup was over before round {round}");
    }
    assert!(most <= 14, "pg_wal held {most} segments of 1 MB while 40 were written");
    let written =
        writer.ask(&format!("SELECT (restart_lsn - '{begin}') / 1048576 >= 36 FROM pg_replication_slots"));
    assert_eq!(written, "t", "the slot moved over most of what was written");
    wait_until("the end of the backup", LONG, || !is_alive(running.engine));
    ready.assert_nothing_left_behind();
    assert_eq!(ready.backup_row("status, error", &running.backup), "complete|");
    assert_verified(&ready, &running.backup);
}
