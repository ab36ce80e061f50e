//! Two servers with one repository: one writer at a time, whoever dies, and readers that never wait.

use crate::support::{Ready, fails_with, names_below, ready};
use pg_ark_testkit::process::{KILL, STOP, descendants, is_alive, is_reaped, send_signal};
use pg_ark_testkit::{Cluster, LONG, SHORT, as_server_user, assert_same_data, holds_within, run, wait_until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

/// A primary that can back itself up, and a standby with the same settings.
fn pair() -> (Ready, Cluster) {
    let ready = ready(Cluster::builder().conf("wal_keep_size = '256MB'"));
    ready.server.pgbench(&["-i", "-q", "-s", "1"]);
    let standby = ready.server.create_standby(&[]);
    ready.server.wait_for_standby(&standby);
    (ready, standby)
}

/// Columns of a backup's row as `server` sees it.
#[track_caller]
fn row(server: &Cluster, columns: &str, backup: &str) -> String {
    server.psql(&format!("SELECT {columns} FROM ark.list_backups() WHERE backup = '{backup}'"))
}

/// Starts a backup of `server` that takes long; returns its name.
#[track_caller]
fn start_slow(server: &Cluster) -> String {
    let backup = server.psql("SET pg_ark.max_rate = 1024; SELECT ark.backup_start()");
    wait_until("a backup that copies", LONG, || {
        server.psql("SELECT phase FROM pg_stat_progress_basebackup") == "streaming database files"
    });
    backup
}

#[track_caller]
fn assert_failed_and_cleared(ready: &Ready, backup: &str) {
    let row = row(&ready.server, "status, error", backup);
    assert!(row.starts_with("failed|") && row.contains("is gone"), "{row}");
    assert_eq!(names_below(&ready.backup_folder(backup)), ["backup.json"]);
    ready.assert_no_lease();
}

/// Files of the lease.
fn tickets(ready: &Ready) -> Vec<PathBuf> {
    let names = names_below(ready.repo.path()).into_iter().filter(|name| name.contains("/lease.json"));
    names.map(|name| ready.repo.path().join(name)).collect()
}

#[test]
fn of_two_servers_that_are_told_at_once_one_wins() {
    let (ready, standby) = pair();
    // So slow that the later one begins before the earlier one ends, however busy the machine is.
    let start = "SET pg_ark.max_rate = 5120; SELECT ark.backup_start(wait => true)";
    for _ in 0..3 {
        let (one, other) = (ready.server.psql_background(start), standby.psql_background(start));
        let (won, lost) = match (one.wait(), other.wait()) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            (Ok(one), Ok(other)) => panic!("both ran at the same time: {one:?} {other:?}"),
            (Err(one), Err(other)) => panic!("neither: {one}\n{other}"),
        };
        let host = run(&mut Command::new("hostname")).ok();
        assert_eq!(lost.sqlstate(), "55006", "{lost}");
        for part in [won.rows.trim(), host.trim(), "since"] {
            assert!(lost.message().contains(part), "\"{part}\" expected: {lost}");
        }
        assert_eq!(row(&standby, "status", won.rows.trim()), "complete");
    }
    assert_eq!(ready.server.psql("SELECT count(DISTINCT status) FROM ark.list_backups()"), "1");
    ready.assert_no_lease();
}

#[test]
fn readers_do_not_wait_for_a_writer() {
    let (ready, standby) = pair();
    let original = ready.server.checksums();
    let first = ready.take_backup();
    let running = start_slow(&standby);
    assert_eq!(row(&ready.server, "status", &first), "complete");
    assert_eq!(row(&ready.server, "status", &running), "running");
    let list = run(ready.pgark().arg("list")).ok();
    assert!(list.contains(&first) && list.contains(&running), "{list}");
    run(ready.pgark().args(["verify", &first])).ok();
    run(ready.pgark().arg("verify")).ok();
    assert_same_data(&original, &ready.restore_beside(&first).server.checksums());
    let refused = fails_with(ready.pgark().args(["restore", &running, "--pgdata", "/tmp/never made"]), 8);
    assert!(refused.stderr.contains("running"), "{refused}");
    assert_eq!(row(&standby, "status", &running), "running", "it was not disturbed");

    // Who may not stop it is told who may.
    let stop = format!("SELECT ark.backup_stop('{running}')");
    let error = ready.server.try_psql(&stop).expect_err("the primary does not run it");
    assert!(error.message().contains("another server") && error.hint().contains("there"), "{error}");
    assert_eq!(standby.psql(&stop), "t");
    wait_until("the end of the backup", LONG, || row(&standby, "status", &running) == "failed");
    ready.take_backup();
}

/// Kills processes as a power failure does: none of them notices the end of another.
fn cut_power(root: u32) {
    let mut pids = vec![root];
    pids.extend(descendants(root).iter().map(|process| process.pid));
    for signal in [STOP, KILL] {
        for pid in &pids {
            send_signal(*pid, signal);
        }
    }
    wait_until("their end", SHORT, || pids.iter().all(|pid| !is_alive(*pid) || is_reaped(*pid)));
}

#[test]
fn who_dies_with_its_server_is_cleared_away_by_the_other() {
    let (ready, standby) = pair();
    let first = ready.take_backup();
    let dead = start_slow(&standby);
    let error = ready.try_backup("").expect_err("the standby holds the lease");
    assert!(error.message().contains(&dead), "{error}");
    cut_power(standby.pid().expect("a standby"));
    assert_eq!(tickets(&ready).len(), 1, "it left its lease");
    assert!(row(&ready.server, "status, error", &dead).starts_with("failed|"), "readers know at once");
    // At once: on this machine the dead are known.
    let next = ready.take_backup();
    assert_failed_and_cleared(&ready, &dead);
    for backup in [&first, &next] {
        assert_eq!(row(&ready.server, "status", backup), "complete");
    }
}

/// A server in a process namespace of its own: for the lease that is another machine.
struct Elsewhere {
    unshare: Child,
}

impl Elsewhere {
    #[track_caller]
    fn start(server: &Cluster) -> Self {
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "/usr/bin/setpriv"]);
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.arg(server.pg().bindir().join("postgres")).arg("-D").arg(server.data());
        let log = std::fs::File::create(server.log_path()).expect("a log");
        let unshare = command.current_dir("/tmp").stdout(Stdio::null()).stderr(log).spawn();
        let server_is_up = || server.try_psql("SELECT 1").is_ok();
        let elsewhere = Elsewhere { unshare: unshare.expect("unshare (util-linux)") };
        assert!(holds_within(LONG, server_is_up), "the server does not start: {}", server.log());
        elsewhere
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        cut_power(self.unshare.id());
        let _ = self.unshare.wait();
    }
}

/// Lets a file seem so much older, by the store's clock.
fn age(file: &Path, minutes: u64) {
    let time = SystemTime::now() - Duration::from_secs(60 * minutes);
    let mut touch = Command::new("touch");
    let stamp = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    run(as_server_user(touch.arg("-d").arg(format!("@{stamp}")).arg(file))).ok();
}

#[test]
fn who_dies_on_another_machine_is_given_time_and_then_cleared_away() {
    let (ready, standby) = pair();
    let first = ready.take_backup();
    standby.stop(pg_ark_testkit::StopMode::Fast);
    let elsewhere = Elsewhere::start(&standby);
    let dead = start_slow(&standby);
    let busy = |ready: &Ready| {
        let error = ready.try_backup("").expect_err("another machine holds the lease");
        assert_eq!(error.sqlstate(), "55006", "{error}");
        assert!(error.message().contains(&dead) && error.hint().contains("minutes"), "{error}");
    };
    busy(&ready);
    // A living holder is not old: it renews its lease, whatever clocks say meanwhile.
    let [ticket] = &tickets(&ready)[..] else { panic!("one lease") };
    let renewed = || ticket.metadata().and_then(|meta| meta.modified()).expect("its time");
    age(ticket, 60);
    let old = renewed();
    wait_until("a renewal", LONG, || renewed() != old);
    busy(&ready);
    drop(elsewhere);
    // Nobody here can know that it is dead.
    assert_eq!(row(&ready.server, "status", &dead), "running");
    busy(&ready);
    assert_eq!(tickets(&ready).len(), 1);
    age(ticket, 20);
    assert!(row(&ready.server, "status, error", &dead).starts_with("failed|"));
    let next = ready.take_backup();
    assert_failed_and_cleared(&ready, &dead);
    for backup in [&first, &next] {
        assert_eq!(row(&ready.server, "status", backup), "complete");
        run(ready.pgark().args(["verify", backup])).ok();
    }
}
