//! A repository on a disk without a free byte: it can be pruned, above all then.

use crate::archiving::switch_wal;
use crate::support::{fails_with, names_below, pgark_of};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::{Cluster, LONG, Tmpfs, command, file_url, run, wait_until};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn pgark(server: &Cluster, disk: &Tmpfs, arguments: &[&str]) -> Command {
    let mut pgark = command(pgark_of(server.pg()));
    pgark.args(["--repo", &file_url(disk.path()), "--cluster", "main", "--format", "json"]).args(arguments);
    pgark
}

/// Takes what is left of the disk, but for what others are faster to take.
fn fill(disk: &Tmpfs) {
    let mut eater =
        File::options().create(true).append(true).open(disk.path().join("eater")).expect("a file");
    for size in [1 << 20, 4096, 1] {
        while eater.write_all(&vec![1; size]).is_ok() {}
    }
}

fn reserve(disk: &Tmpfs) -> usize {
    std::fs::read_dir(disk.path().join("main/reserve")).map_or(0, Iterator::count)
}

fn names(disk: &Path) -> Vec<String> {
    names_below(disk).into_iter().filter(|name| !name.contains('#')).collect()
}

fn complete(server: &Cluster, disk: &Tmpfs) -> Vec<String> {
    let rows: Value = serde_json::from_str(&run(&mut pgark(server, disk, &["list"])).ok()).expect("JSON");
    let rows = rows.as_array().expect("rows").iter().filter(|row| row["status"] == "complete");
    rows.map(|row| row["backup"].as_str().expect("a name").to_string()).collect()
}

#[test]
fn promise_4_a_repository_without_a_free_byte_is_pruned_and_loses_no_way_back() {
    let disk = Tmpfs::new(128 << 20);
    let builder = Cluster::builder().wal_segment_mb(1);
    let server = builder.conf("archive_mode = on").conf("archive_library = 'pg_ark'").start();
    server.psql(&format!(
        "CREATE EXTENSION IF NOT EXISTS pg_ark; SELECT * FROM ark.enable('{}')",
        file_url(disk.path())
    ));
    let backup = || server.psql("SELECT ark.backup_start(wait => true)");
    let backups = [backup(), backup(), backup()];
    assert_eq!(reserve(&disk), 8, "made by the backups");
    let keep = |count| ["prune", "--window", "1s", "--min-full", count];
    wait_until("backups outside the window", LONG, || {
        let dry = [&keep("1")[..], &["--dry-run"]].concat();
        run(&mut pgark(&server, &disk, &dry)).ok().matches("\"drop\"").count() >= 2
    });

    // The archiver wants every byte that becomes free.
    fill(&disk);
    let segment = switch_wal(&server);
    wait_until("an archiver without room", LONG, || {
        fill(&disk);
        server.psql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t"
    });
    fill(&disk);
    run(&mut pgark(&server, &disk, &keep("2"))).ok();
    assert_eq!(complete(&server, &disk), backups[1..]);
    let done = server.data().join(format!("pg_wal/archive_status/{segment}.done"));
    wait_until("the archiver goes on", LONG, || done.is_file());
    assert_eq!(reserve(&disk), 8, "made again");
    run(&mut pgark(&server, &disk, &["verify-archive"])).ok();

    // Without a reserve it says what is missing, and takes nothing away.
    std::fs::remove_dir_all(disk.path().join("main/reserve")).expect("the reserve");
    fill(&disk);
    let before = names(disk.path());
    let output = fails_with(&mut pgark(&server, &disk, &keep("1")), ErrorKind::DiskFull.exit_code().into());
    assert!(output.stderr.contains("some kilobytes"), "{output}");
    assert_eq!(names(disk.path()), before);

    std::fs::remove_file(disk.path().join("eater")).expect("its file");
    run(&mut pgark(&server, &disk, &keep("1"))).ok();
    assert_eq!(complete(&server, &disk), backups[2..]);
    run(&mut pgark(&server, &disk, &["verify"])).ok();
}
