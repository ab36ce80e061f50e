//! Nothing that pg_ark writes is for others, whatever the umask: files 0600 and folders 0700 in the repository, what is
//! restored as it was; and nothing of the engine's memory. Every program here begins with umask 0.

use crate::archiving::{archive_command, archive_now, archiving, switch_wal};
use crate::support::{Ready, pgark_of};
use pg_ark_testkit::process::{Signal, send_signal};
use pg_ark_testkit::{
    Cluster, LONG, Output, Repo, SHORT, Scratch, chown_tree_to_server, command, run, run_ok, wait_until,
};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The same command, begun by a shell that hides nothing and limits no core dump.
fn openly(command: &Command) -> Command {
    let mut open = pg_ark_testkit::command("sh");
    open.arg("-c").arg("umask 0; ulimit -c unlimited; exec \"$0\" \"$@\"");
    open.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => open.env(name, value),
            None => open.env_remove(name),
        };
    }
    open.current_dir(command.get_current_dir().unwrap_or(Path::new("/tmp")));
    open
}

/// Everything below a folder, itself included, whose permission bits are others than these of folders and files.
fn unlike(folder: &Path, folders: u32, files: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut rest = vec![folder.to_path_buf()];
    while let Some(path) = rest.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        if meta.is_symlink() {
            continue;
        }
        count += 1;
        let wanted = if meta.is_dir() { folders } else { files };
        if meta.mode() & 0o7777 != wanted {
            wrong.push(format!("{:o} {}", meta.mode() & 0o7777, path.display()));
        }
        if meta.is_dir() {
            rest.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        }
    }
    assert!(count > 1, "nothing is in {folder:?}");
    wrong
}

#[track_caller]
fn assert_private(folder: &Path) {
    assert_eq!(unlike(folder, 0o700, 0o600), Vec::<String>::new(), "open to others");
}

/// Starts the server again by a shell that hides nothing.
#[track_caller]
fn restart_openly(server: &Cluster) {
    if server.pid().is_some() {
        server.stop(pg_ark_testkit::StopMode::Fast);
    }
    let mut start = server.pg().tool("pg_ctl");
    start.args(["start", "-w", "-s", "-t", "300", "-D"]).arg(server.data()).arg("-l").arg(server.log_path());
    run_ok(&mut openly(&start));
}

#[test]
fn what_a_server_stores_is_for_its_user_alone() {
    // Its group may read its data, which says nothing about its backups.
    let builder = Cluster::builder().group_access().wal_segment_mb(1);
    let ready = archiving(builder);
    let server = &ready.server;
    restart_openly(server);
    let fresh = ready.repo.path().join("made/by/enable");
    server.psql(&format!("SELECT * FROM ark.enable('file://{}')", fresh.display()));
    assert_private(&ready.repo.path().join("made"));
    let backup = server.psql("SELECT ark.backup_start(wait => true)");
    switch_wal(server);
    let in_fresh = |part: &str| crate::support::names_below(&fresh).iter().any(|name| name.contains(part));
    wait_until("WAL in the archive", LONG, || in_fresh("/wal/0"));
    assert!(in_fresh(&backup) && in_fresh("cluster.json"));
    // What comes and goes while a backup runs.
    server.psql("CREATE TABLE large AS SELECT g, repeat('x', 200) FROM generate_series(1, 50000) g");
    let slow = server.psql("SET pg_ark.max_rate = 1024; SELECT ark.backup_start()");
    wait_until("a lease", SHORT, || in_fresh("lease.json"));
    assert_private(&fresh);
    assert_eq!(server.psql(&format!("SELECT ark.backup_stop('{slow}')")), "t");
    assert_private(&ready.repo.path().join("made"));
    // Why a segment could not be stored.
    fs::rename(&fresh, ready.repo.path().join("away")).expect("a folder");
    switch_wal(server);
    let failure = server.data().join("pg_stat_tmp/pg_ark_archiver.json");
    wait_until("a reason", LONG, || failure.is_file());
    assert_eq!(failure.metadata().expect("it").mode() & 0o7777, 0o600);
    fs::rename(ready.repo.path().join("away"), &fresh).expect("a folder");
    wait_until("the end of the failure", LONG, || !failure.exists());
}

/// Runs pgark by a shell that hides nothing.
#[track_caller]
fn pgark_openly(ready: &Ready, arguments: &[&str], folder: &Path) -> Output {
    let mut pgark = ready.pgark();
    pgark.args(arguments).current_dir(folder);
    let output = run(&mut openly(&pgark));
    assert!(output.success(), "{output}");
    output
}

#[test]
fn what_a_shell_stores_and_fetches_is_for_its_user_alone() {
    let ready = archiving(Cluster::builder().wal_segment_mb(1));
    ready.take_backup();
    let segments: Vec<String> = (0..6).map(|_| archive_now(&ready)).collect();
    let data = ready.server.data();
    let other = Scratch::new("push");
    let pgark = pgark_of(ready.server.pg());
    let push = |file: &str| {
        let mut push = command(&pgark);
        push.arg("--repo").arg(format!("file://{}", other.path().join("r").display()));
        push.args(["--cluster", "main", "wal-push", &format!("pg_wal/{file}")]).current_dir(data);
        run(&mut openly(&push))
    };
    // It fails, which leaves a note.
    assert!(!push(&segments[5]).success(), "there is no repository yet");
    let note = data.join("pg_stat_tmp/pg_ark_archiver.json");
    assert_eq!(note.metadata().expect("a note").mode() & 0o7777, 0o600);
    ready.server.psql(&format!("SELECT * FROM ark.enable('file://{}/r')", other.path().display()));
    assert!(push(&segments[5]).success());
    assert!(!note.exists());
    assert_private(&other.path().join("r"));

    // A recovery, as far as wal-get can tell.
    let place = Scratch::new("get");
    let spool = place.folder("pg_wal").join(".pg_ark_spool");
    let signal = place.path().join("recovery.signal");
    fs::write(&signal, "").expect("a file");
    place.folder("global");
    for file in ["postmaster.pid", "global/pg_control"] {
        fs::copy(data.join(file), place.path().join(file)).expect("a copy");
    }
    chown_tree_to_server(place.path());
    let to = place.path().join("pg_wal/RECOVERYXLOG");
    for segment in &segments[..2] {
        let arguments = ["--cluster", "main", "wal-get", segment.as_str(), "pg_wal/RECOVERYXLOG"];
        pgark_openly(&ready, &arguments, place.path());
        assert_eq!(to.metadata().expect("a segment").mode() & 0o7777, 0o600);
    }
    let spooled = |name: &str| {
        spool.is_dir() && crate::support::names_below(&spool).iter().any(|path| path.ends_with(name))
    };
    wait_until("segments fetched ahead", SHORT, || spooled(&segments[3]));
    assert_private(&spool);
    fs::remove_file(&signal).expect("the file");
    wait_until("the end of the spool", LONG, || !spooled("lock"));
}

#[test]
fn what_is_restored_is_as_private_as_it_was() {
    for (group, folders, files) in [(false, 0o700, 0o600), (true, 0o750, 0o640)] {
        let builder = Cluster::builder().wal_segment_mb(1).conf("archive_mode = on");
        let builder = if group { builder.group_access() } else { builder };
        let ready = crate::support::ready(builder.conf("archive_command = '/bin/true'"));
        let server = &ready.server;
        server.create_tablespace("other");
        server.psql("CREATE TABLE t TABLESPACE other AS SELECT 1 AS i");
        server.configure(&[&archive_command(server.pg(), &ready.repo)]);
        server.reload();
        let backup = ready.take_backup();
        archive_now(&ready);
        // WAL that the archive does not have: it is saved.
        server.configure(&["archive_command = '/bin/false'"]);
        server.reload();
        wait_until("the new setting", SHORT, || server.psql("SHOW archive_command") == "/bin/false");
        server.psql("INSERT INTO t VALUES (2)");
        switch_wal(server);
        server.kill9();
        let data = server.data().display().to_string();
        let arguments = ["restore", &backup, "--replace", "--pgdata", &data, "--target", "latest"];
        pgark_openly(&ready, &arguments, server.base());
        let mut wrong = unlike(server.data(), folders, files);
        // WAL that came from elsewhere is no less private.
        wrong.retain(|entry| !(entry.starts_with("600 ") && entry.contains("/pg_wal/")));
        assert_eq!(wrong, Vec::<String>::new(), "group access: {group}");
        let tablespace = server.base().join("tablespace other");
        assert_eq!(unlike(&tablespace, folders, files), Vec::<String>::new(), "group access: {group}");
        let saved = saved_wal(server);
        let mut wrong = unlike(&saved, folders, files);
        wrong.retain(|entry| !entry.starts_with("600 "));
        assert_eq!(wrong, Vec::<String>::new(), "group access: {group}");
        server.start();
        assert_eq!(server.psql("SELECT sum(i) FROM t"), "3");
    }
}

/// The folder with what the restore saved, beside the data directory.
#[track_caller]
fn saved_wal(server: &Cluster) -> PathBuf {
    let beside = fs::read_dir(server.base()).expect("a folder").flatten().map(|entry| entry.path());
    let mut saved = beside.filter(|path| path.display().to_string().contains(".saved-wal-"));
    saved.next().unwrap_or_else(|| panic!("nothing was saved in {:?}", server.base()))
}

/// Reads a file as the server's user; what it says when it may not.
fn read_as_server(path: &str) -> Output {
    run(command("cat").arg(path))
}

#[test]
fn nobody_looks_into_the_engine() {
    let ready = crate::support::ready(Cluster::builder());
    let server = &ready.server;
    restart_openly(server);
    server.psql("CREATE TABLE large AS SELECT g, repeat('x', 200) FROM generate_series(1, 50000) g");
    let running = ready.start_slow(1024);
    let proc = format!("/proc/{}", running.engine);
    let text = |file: &str| fs::read_to_string(format!("{proc}/{file}")).expect(file);
    // What everybody sees.
    let title = format!("{} engine", pgark_of(server.pg()).display());
    assert_eq!(text("cmdline").replace('\0', " ").trim_end(), title);
    // What the user of the server could see of any other process of its own.
    let output = read_as_server(&format!("/proc/{}/environ", server.pid().expect("a server")));
    assert!(output.success(), "{output}");
    for file in ["environ", "maps", "mem"] {
        let output = read_as_server(&format!("{proc}/{file}"));
        assert!(output.stderr.contains("Permission denied"), "{file}: {output}");
    }
    // And what root sees there: nothing of the server's.
    if let Ok(environ) = fs::read_to_string(format!("{proc}/environ")) {
        let mut names: Vec<&str> =
            environ.split('\0').filter_map(|one| Some(one.split_once('=')?.0)).collect();
        names.sort_unstable();
        assert_eq!(names, ["LANG", "LC_ALL", "PATH", "TZ"]);
    }
    let limit = text("limits").lines().find(|line| line.starts_with("Max core")).map(str::to_string);
    assert_eq!(limit.expect("a limit").split_whitespace().nth(4), Some("0"));
    // It still knows itself: whoever finds the lease can tell whether its holder lives.
    let names = crate::support::names_below(ready.repo.path());
    let lease = names.iter().find(|name| name.contains("/lease.json"));
    let lease = lease.unwrap_or_else(|| panic!("no lease: {names:?}"));
    let lease = fs::read_to_string(ready.repo.path().join(lease)).expect("a lease");
    assert!(lease.contains("/pid:["), "{lease}");
    // A fault of its own leaves nothing behind either.
    send_signal(running.engine, Signal::ABORT);
    wait_until("the end of the backup", LONG, || ready.backup_row("status", &running.backup) == "failed");
    let cores: Vec<String> =
        crate::support::names_below(server.data()).into_iter().filter(|name| name.contains("core")).collect();
    assert_eq!(cores, Vec::<String>::new());
}

#[test]
fn odd_names_survive_every_shell_on_the_way() {
    // PostgreSQL gives restore_command to a shell, after it has replaced signs in it.
    let name = "it's $(touch broken) `touch broken` %f %p %r %% \"q\" \\ & ; | * ?";
    let ready = crate::archiving::archiving_into(Cluster::builder().wal_segment_mb(1), Repo::named(name));
    let server = &ready.server;
    let programs = Scratch::new("bin");
    let odd = programs.folder("p g'ark $(touch broken) %f \"x\"").join("pg'ark %p");
    fs::copy(pgark_of(server.pg()), &odd).expect("a copy of the program");
    chown_tree_to_server(programs.path());
    server.psql("CREATE TABLE t AS SELECT 1 AS i");
    ready.take_backup();
    server.psql("INSERT INTO t VALUES (2)");
    archive_now(&ready);
    server.destroy();
    let mut restore = command(&odd);
    restore.arg("--repo").arg(ready.repo.url()).args(["restore", "latest", "--start", "--pgdata"]);
    restore.arg(server.data()).arg("--bindir").arg(server.pg().bindir());
    run_ok(&mut restore);
    assert_eq!(server.psql("SELECT sum(i) FROM t"), "3");
    let everywhere = [server.base(), programs.path(), ready.repo.path(), Path::new("/tmp"), Path::new("/")];
    for place in everywhere {
        assert!(!place.join("broken").exists() && !place.join("data/broken").exists(), "{place:?}");
    }
}

#[test]
fn a_repository_that_no_setting_can_name_is_refused() {
    let ready = crate::support::ready(Cluster::builder());
    for name in [&b"r\xE9"[..], b"two\nlines"] {
        let folder = ready.repo.path().join(OsStr::from_bytes(name));
        let url = pg_ark_testkit::file_url(&folder);
        let error = ready.server.try_psql(&format!("SELECT ark.enable('{url}')")).expect_err("no name");
        assert_eq!(error.sqlstate(), "22023", "{error}");
        assert!(!folder.exists(), "{error}");
    }
    ready.take_backup();
}
