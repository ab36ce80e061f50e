//! Cases that PostgreSQL's own recovery tests hold (src/test/recovery/t: 002, 020, 023, 025, 028, 042, 043), with our
//! archive module in place of `cp` to the archive and `pgark wal-get` in place of `cp` from it.

use crate::archiving::{
    archive_command, archive_now, archiving, object, restore_command, switch_wal, wait_archived,
};
use crate::support::Ready;
use pg_ark_testkit::{Builder, Cluster, LONG, Scratch, StopMode, chown_to_server, run_ok, wait_until};
use std::os::unix::fs::FileExt;
use std::path::Path;

const QUICK: &str = "wal_retrieve_retry_interval = '100ms'";

/// A base backup of a server, taken before the case begins.
struct Base {
    folder: Scratch,
}

impl Base {
    fn of(server: &Cluster) -> Base {
        let folder = Scratch::new("base");
        let data = folder.path().join("data");
        run_ok(server.client("pg_basebackup").args(["-X", "none", "-c", "fast", "-N", "-D"]).arg(data));
        Base { folder }
    }

    fn copy_of(data: &Path) -> Base {
        let folder = Scratch::new("base");
        run_ok(pg_ark_testkit::command("cp").arg("-a").arg(data).arg(folder.path().join("data")));
        Base { folder }
    }

    /// A server that recovers from this copy and the archive; not started.
    fn recover(&self, ready: &Ready, signal: &str, settings: &[&str]) -> Recovering {
        let folder = Scratch::new("pg");
        let data = folder.path().join("data");
        run_ok(pg_ark_testkit::command("cp").arg("-a").arg(self.folder.path().join("data")).arg(&data));
        run_ok(pg_ark_testkit::command("touch").arg(data.join(signal)));
        let server = Cluster::open_restored_with(ready.server.pg(), &data);
        server.configure(&[&restore_command(ready.server.pg(), &ready.repo), QUICK]);
        server.configure(settings);
        Recovering { server, _folder: folder }
    }
}

struct Recovering {
    server: Cluster,
    // Last, so that the folder goes after the server.
    _folder: Scratch,
}

impl Recovering {
    fn started(self) -> Recovering {
        self.server.start();
        self
    }

    #[track_caller]
    fn wait_until_primary(&self) {
        wait_until("the end of recovery", LONG, || self.server.psql("SELECT pg_is_in_recovery()") == "f");
    }

    #[track_caller]
    fn wait_for_replay(&self, lsn: &str) {
        let query = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
        wait_until(&format!("replay of {lsn}"), LONG, || self.server.psql(&query) == "t");
    }
}

fn builder() -> Builder {
    Cluster::builder().conf("autovacuum = off").conf("max_prepared_transactions = 10")
}

/// A line that makes a standby stream from a server.
fn conninfo(server: &Cluster) -> String {
    format!(
        "primary_conninfo = 'host=''{}'' port={} user=postgres application_name=s'",
        server.socket_dir().display(),
        server.port()
    )
}

#[test]
fn case_002_a_standby_lives_on_the_archive_and_timelines_come_from_it() {
    let ready = archiving(builder());
    let base = Base::of(&ready.server);
    let done = |standby: &Recovering, name: &str| standby.server.data().join(name).exists();
    let standby = base
        .recover(
            &ready,
            "standby.signal",
            &[
                "archive_cleanup_command = 'echo done > cleanup.done'",
                "recovery_end_command = 'echo done > end.done'",
            ],
        )
        .started();
    ready.server.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a");
    ready.server.psql("CHECKPOINT");
    let lsn = ready.server.psql("SELECT pg_current_wal_lsn()");
    archive_now(&ready);
    ready.server.psql("INSERT INTO t VALUES (generate_series(1001, 2000))");
    standby.wait_for_replay(&lsn);
    assert_eq!(standby.server.psql("SELECT count(*) FROM t"), "1000");
    standby.server.psql("CHECKPOINT");
    assert!(done(&standby, "cleanup.done") && !done(&standby, "end.done"));
    standby.server.promote();
    wait_archived(&ready, "00000002.history");
    wait_until("the end command", LONG, || done(&standby, "end.done"));

    let second = base
        .recover(&ready, "standby.signal", &["recovery_end_command = 'echo x > missing_dir/x'"])
        .started();
    second.server.promote();
    let log = second.server.log();
    assert!(log.contains("restored log file \"00000002.history\" from archive"), "{log}");
    for left in ["RECOVERYHISTORY", "RECOVERYXLOG"] {
        assert!(!done(&second, &format!("pg_wal/{left}")), "{left} is left");
    }
    wait_until("a warning", LONG, || second.server.log().contains("recovery_end_command"));
    wait_archived(&ready, "00000003.history");
}

#[test]
fn case_020_what_is_ready_stays_ready_until_it_is_stored() {
    let ready = archiving(builder());
    archive_now(&ready);
    let server = &ready.server;
    let status = |server: &Cluster, name: &str, end: &str| {
        server.data().join(format!("pg_wal/archive_status/{name}.{end}")).exists()
    };
    // The repository is out of reach.
    let away = ready.repo.path().with_extension("away");
    std::fs::rename(ready.repo.path(), &away).expect("the repository moves");
    server.psql("CREATE TABLE mine AS SELECT generate_series(1, 10) AS x");
    let first = switch_wal(server);
    server.psql("CHECKPOINT");
    let failed = "SELECT last_failed_wal FROM pg_stat_archiver";
    wait_until("a failure", LONG, || server.psql(failed) == first);
    assert!(status(server, &first, "ready") && !status(server, &first, "done"));
    assert!(!ready.repo.path().exists(), "nothing may be written where the repository is not");
    server.stop(StopMode::Immediate);
    let base = Base::copy_of(server.data());
    server.start();
    assert!(status(server, &first, "ready"), "a crash must not lose what waits");
    std::fs::rename(&away, ready.repo.path()).expect("the repository comes back");
    wait_until("the segment in the archive", LONG, || status(server, &first, "done"));
    assert!(object(&ready, &first).is_some() && !status(server, &first, "ready"));

    let mut lsn = String::new();
    let second = {
        server.psql("INSERT INTO mine SELECT generate_series(10, 20)");
        server.psql("CHECKPOINT");
        lsn.push_str(&server.psql("SELECT pg_current_wal_lsn()"));
        archive_now(&ready)
    };
    // With archive_mode = on a standby forgets what waited, with always it stores it: equal content is accepted.
    let on = base.recover(&ready, "standby.signal", &["archive_mode = on"]).started();
    on.wait_for_replay(&lsn);
    on.server.psql("CHECKPOINT");
    assert!(!status(&on.server, &first, "ready") && !status(&on.server, &second, "ready"));
    assert!(status(&on.server, &second, "done"));
    let always = base.recover(&ready, "standby.signal", &["archive_mode = always"]).started();
    always.wait_for_replay(&lsn);
    always.server.psql("CHECKPOINT");
    wait_until("equal content is accepted", LONG, || {
        !status(&always.server, &first, "ready") && status(&always.server, &second, "done")
    });
    assert_eq!(always.server.psql("SELECT failed_count FROM pg_stat_archiver"), "0");
}

#[test]
fn case_023_a_prepared_transaction_survives_recovery_to_a_name() {
    let ready = archiving(builder());
    let base = Base::of(&ready.server);
    ready.server.psql("CREATE TABLE foo (i int)");
    ready.server.psql("BEGIN; INSERT INTO foo VALUES (1); PREPARE TRANSACTION 'fooinsert'");
    ready.server.psql("SELECT pg_create_restore_point('rp')");
    ready.server.psql("INSERT INTO foo VALUES (2)");
    archive_now(&ready);
    let target = ["recovery_target_name = 'rp'", "recovery_target_action = 'promote'"];
    let copy = base.recover(&ready, "recovery.signal", &target).started();
    copy.wait_until_primary();
    copy.server.psql("COMMIT PREPARED 'fooinsert'");
    assert_eq!(copy.server.psql("SELECT i FROM foo"), "1");
    copy.server.psql("INSERT INTO foo VALUES (3)");
    copy.server.psql("CHECKPOINT");
    copy.server.stop(StopMode::Immediate);
    copy.server.start();
    assert_eq!(copy.server.psql("SELECT count(*) FROM foo"), "2");
}

#[test]
fn case_025_a_history_file_alone_in_the_archive_is_no_fault() {
    // Only history files are archived, by a command that drops the rest as no real one may.
    let ready = archiving(builder().conf("wal_keep_size = '128MB'"));
    let command = archive_command(ready.server.pg(), &ready.repo).replace(
        "archive_command = '",
        "archive_command = 'case %f in *.history) true ;; *) exit 0 ;; esac; ",
    );
    ready.server.configure(&["archive_library = ''", &command]);
    ready.server.restart();
    std::fs::remove_dir_all(crate::archiving::wal_folder(&ready).unwrap_or_default()).ok();
    let standby = ready.server.create_standby(&[QUICK]);
    let base = Base::of(&standby);
    ready.server.psql("CREATE TABLE before_promotion ()");
    ready.server.wait_for_standby(&standby);
    standby.promote();
    wait_archived(&ready, "00000002.history");
    let last = standby.psql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    switch_wal(&standby);
    let archived = "SELECT last_archived_wal FROM pg_stat_archiver";
    wait_until("the archiver", LONG, || standby.psql(archived) >= last);
    let cascade = base.recover(&ready, "standby.signal", &["recovery_target_timeline = 'latest'"]);
    // What pg_basebackup -R wrote for the standby is read last.
    std::fs::write(cascade.server.data().join("postgresql.auto.conf"), conninfo(&standby))
        .expect("a setting");
    let cascade = cascade.started();
    standby.psql("CREATE TABLE tab_int AS SELECT 1 AS a");
    standby.wait_for_standby(&cascade.server);
    assert_eq!(cascade.server.psql("SELECT count(*) FROM tab_int"), "1");
}

#[test]
fn case_028_a_target_lies_in_a_segment_of_a_later_timeline() {
    let ready = archiving(builder());
    let base = Base::of(&ready.server);
    ready.server.psql("CREATE TABLE foo (i int)");
    ready.server.psql("INSERT INTO foo VALUES (1)");
    ready.server.psql("SELECT pg_create_restore_point('rp')");
    ready.server.psql("INSERT INTO foo VALUES (2)");
    let standby = ready.server.create_standby(&["archive_mode = always"]);
    ready.server.wait_for_standby(&standby);
    assert_eq!(standby.psql("SELECT max(i) FROM foo"), "2");
    ready.server.stop(StopMode::Immediate);
    standby.promote();
    let segment = standby.psql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    switch_wal(&standby);
    standby.stop(StopMode::Fast);
    assert!(object(&ready, &segment).is_some() && segment.starts_with("00000002"), "{segment}");
    let same_on_one = format!("00000001{}", &segment[8..]);
    assert!(object(&ready, &same_on_one).is_none(), "the primary never archived it");

    let target = ["recovery_target_name = 'rp'", "recovery_target_action = 'promote'", "archive_mode = on"];
    let copy = base.recover(&ready, "recovery.signal", &target).started();
    copy.wait_until_primary();
    assert_eq!(copy.server.psql("SELECT max(i) FROM foo"), "1");
    copy.server.psql("INSERT INTO foo VALUES (3)");
    let archiver = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'archiver'";
    wait_until("an archiver", LONG, || copy.server.psql(archiver) == "1");
    copy.server.stop(StopMode::Fast);
    assert!(object(&ready, "00000003.history").is_some());
    let last = base.recover(&ready, "recovery.signal", &["archive_mode = off"]).started();
    last.wait_until_primary();
    assert_eq!(last.server.psql("SELECT max(i) FROM foo"), "3");
}

#[test]
fn case_042_recovery_begins_where_the_label_says() {
    let ready = archiving(builder());
    let mut session = ready.server.session();
    session.ask("SELECT pg_backup_start('test label', true)");
    let base = Base::copy_of(ready.server.data());
    let data = base.folder.path().join("data");
    for file in ["postmaster.pid", "postmaster.opts", "global/pg_control"] {
        std::fs::remove_file(data.join(file)).expect(file);
    }
    for folder in ["pg_wal/archive_status", "pg_wal"] {
        for entry in std::fs::read_dir(data.join(folder)).expect("pg_wal").flatten() {
            if entry.path().is_file() {
                std::fs::remove_file(entry.path()).expect("a WAL file");
            }
        }
    }
    ready.server.psql("CREATE TABLE canary (id int)");
    archive_now(&ready);
    ready.server.psql("CHECKPOINT");
    let control = "global/pg_control";
    run_ok(
        pg_ark_testkit::command("cp")
            .arg("-a")
            .arg(ready.server.data().join(control))
            .arg(data.join(control)),
    );
    let label = session.ask("SELECT labelfile FROM pg_backup_stop()");
    std::fs::write(data.join("backup_label"), label + "\n").expect("the label");
    chown_to_server(&data.join("backup_label"));
    let copy = base.recover(&ready, "recovery.signal", &["archive_mode = off"]).started();
    copy.wait_until_primary();
    assert_eq!(copy.server.psql("SELECT count(*) FROM pg_class WHERE relname = 'canary'"), "1");
    let log = copy.server.log();
    assert!(log.contains("restored log file"), "{log}");
}

#[test]
fn case_043_a_segment_that_ends_in_half_a_record_is_stored_and_handed_over() {
    let ready = archiving(builder().conf("checkpoint_timeout = '30min'").conf("wal_keep_size = '1GB'"));
    let base = Base::of(&ready.server);
    ready.server.psql("CREATE TABLE t AS SELECT 0");
    // A record that begins near the end of a page and goes on in the next.
    let position = || {
        let text = ready.server.psql("SELECT pg_current_wal_insert_lsn() - '0/0'");
        text.parse::<u64>().expect("a position")
    };
    let emit = |size: u64| {
        ready.server.psql(&format!("SELECT pg_logical_emit_message(true, '', repeat('a', {size}))"));
    };
    emit(0);
    while !(7000..8000).contains(&(position() % 8192)) {
        emit(300);
    }
    let page = position() / 8192 * 8192 + 8192;
    emit(page - position() + 1000);
    assert!(position() > page, "the record crosses into the next page");
    ready.server.stop(StopMode::Immediate);
    let segment = format!("00000001{:08X}{:08X}", page >> 32, (page & 0xFFFF_FFFF) >> 24);
    let path = ready.server.data().join("pg_wal").join(&segment);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the segment");
    file.write_all_at(&[0; 8192], page % (16 << 20)).expect("zeros");
    drop(file);
    let pgark = &mut ready.pgark();
    run_ok(pgark.args(["--cluster", "main", "wal-push"]).arg(&path).current_dir(ready.server.data()));

    let first = base.recover(&ready, "standby.signal", &[]).started();
    let second = base.recover(&ready, "standby.signal", &[]).started();
    for standby in [&first, &second] {
        wait_until("a complaint about the page", LONG, || {
            standby.server.log().contains("invalid magic number 0000")
        });
    }
    first.server.promote();
    first.server.psql("SELECT pg_switch_wal()");
    first.server.psql("INSERT INTO t SELECT generate_series(1, 1000)");
    second.server.configure(&[&conninfo(&first.server)]);
    second.server.reload();
    first.server.wait_for_standby(&second.server);
    assert_eq!(second.server.psql("SELECT count(*) FROM t"), "1001");
}
