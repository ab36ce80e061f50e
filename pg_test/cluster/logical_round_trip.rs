//! Logical backups bring back everything that a dump can hold: into the same place, beside the original, into a running
//! server, with public tools alone, into a newer version.

use crate::logical_world::{Picture, World, make_spaces, older, world};
use crate::support::{Ready, pgark};
use pg_ark_testkit::{Cluster, Output, Pg, Scratch, command, run, run_ok};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

impl World {
    /// Takes a logical backup; returns its name.
    #[track_caller]
    fn back_up(&self) -> String {
        let backup = self.ready.try_backup("kind => 'logical', wait => true");
        backup.unwrap_or_else(|error| panic!("the backup failed: {error}"))
    }

    /// `--tablespace OLD=NEW` for every tablespace.
    fn mappings(&self, to: &Path) -> Vec<String> {
        let spaces =
            self.ready.server.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace ORDER BY 1");
        let spaces = spaces.lines().filter(|line| !line.is_empty());
        let mapping = |(number, old): (usize, &str)| format!("{old}={}/space {number}", to.display());
        spaces.enumerate().flat_map(|entry| ["--tablespace".to_string(), mapping(entry)]).collect()
    }
}

/// Runs `pgark restore` to its end, which must be a good one without a word about errors.
#[track_caller]
fn restore(ready: &Ready, backup: &str, options: &[&OsStr]) -> Output {
    let output = run(ready.pgark().arg("restore").arg(backup).args(options));
    assert!(output.success(), "{output}");
    assert!(!output.stderr.contains("error:"), "{output}");
    output
}

/// Loses the server with all its disks, restores it in its place and starts it.
#[track_caller]
fn lose_and_restore(world: &World) -> Output {
    let server = &world.ready.server;
    let backup = world.back_up();
    server.destroy();
    let data = server.data().as_os_str();
    restore(&world.ready, &backup, &["--pgdata".as_ref(), data, "--start".as_ref()])
}

/// Fails unless tables of every database have planner statistics: ANALYZE ran.
#[track_caller]
fn assert_analyzed(server: &Cluster) {
    let known = "SELECT count(*) > 100 FROM pg_stats WHERE tablename = 'customer' OR schemaname <> 'public'";
    assert_eq!(server.psql_db("shop", known), "t", "no statistics in shop");
    let extended = "SELECT count(*) FROM pg_statistic_ext_data d JOIN pg_statistic_ext s ON s.oid = d.stxoid";
    assert_ne!(server.psql_db("shop", extended), "0", "no extended statistics");
    assert_ne!(server.psql_db("read only", "SELECT count(*) FROM pg_stats WHERE tablename = 'kept'"), "0");
}

#[test]
fn smoke_everything_comes_back_where_it_was() {
    let world = world(Cluster::builder(), true);
    let server = &world.ready.server;
    let original = Picture::of(server);
    assert!(original.mentions("CREATE SUBSCRIPTION \"odd \"\"sub\""), "the world is not all there");
    let files = ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];
    let read = || files.map(|name| fs::read_to_string(server.data().join(name)).expect(name));
    let configuration = read();
    let jobs = "SELECT name, cron, kind, enabled FROM ark.jobs";
    let scheduled = server.psql(jobs);

    lose_and_restore(&world);
    assert!(server.is_up(), "--start starts it where it was");
    original.assert_equal(&Picture::of(server));
    assert_eq!(configuration, read());
    assert_eq!(scheduled, server.psql(jobs));
    assert_analyzed(server);
    assert_eq!(server.psql("SHOW fsync"), "off", "as its settings say");
    assert_eq!(server.psql("SHOW full_page_writes"), "on", "not as during the load");
    // It is a server like any other: a restart, a second round.
    server.restart();
    lose_and_restore(&world);
    original.assert_equal(&Picture::of(server));
}

#[test]
fn everything_goes_beside_its_original() {
    let world = world(Cluster::builder(), true);
    let original = Picture::of(&world.ready.server);
    let backup = world.back_up();
    let room = Scratch::new("beside");
    let data = room.path().join("data");
    let mappings = world.mappings(room.path());
    let mut options: Vec<&OsStr> =
        vec!["--pgdata".as_ref(), data.as_os_str(), "--jobs".as_ref(), "3".as_ref()];
    options.extend(mappings.iter().map(OsStr::new));
    restore(&world.ready, &backup, &options);
    let copy = Cluster::open_restored_with(world.ready.server.pg(), &data);
    assert!(!copy.is_up(), "only --start starts it");
    copy.start();
    original.assert_equal_elsewhere(&Picture::of(&copy));
    original.assert_equal(&Picture::of(&world.ready.server));
    let spaces =
        copy.psql("SELECT count(*) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '%/space _'");
    assert_eq!(spaces, "3");
    assert!(copy.psql("SHOW archive_mode") == "off", "a copy does not archive into its original's history");
    let systems =
        [&world.ready.server, &copy].map(|s| s.psql("SELECT system_identifier FROM pg_control_system()"));
    assert_ne!(systems[0], systems[1]);
    drop(copy);
}

/// The whole way with a cluster that initdb made with these options.
#[track_caller]
fn comes_back_as(
    options: &[&str],
    change: impl FnOnce(pg_ark_testkit::Builder) -> pg_ark_testkit::Builder,
) -> Cluster {
    let builder = options.iter().fold(Cluster::builder(), |builder, option| builder.initdb_option(option));
    let world = world(change(builder), false);
    let original = Picture::of(&world.ready.server);
    lose_and_restore(&world);
    original.assert_equal(&Picture::of(&world.ready.server));
    world.ready.server
}

#[test]
fn a_latin1_cluster_of_the_c_locale_comes_back() {
    let server = comes_back_as(&["-E", "LATIN1", "--locale=C"], |builder| builder);
    assert_eq!(
        server.psql("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'shop'"),
        "LATIN1"
    );
}

#[test]
fn a_cluster_without_encoding_with_small_segments_and_no_checksums_comes_back() {
    let options = ["-E", "SQL_ASCII", "--locale=C", "--lc-messages=C.UTF-8", "--text-search-config=german"];
    let server = comes_back_as(&options, |builder| builder.checksums(false).wal_segment_mb(1).group_access());
    let shown = server
        .psql("SHOW data_checksums; SHOW wal_segment_size; SHOW data_directory_mode; SHOW server_encoding");
    assert_eq!(shown, "off\n1MB\n0750\nSQL_ASCII");
}

#[test]
fn an_icu_cluster_with_large_segments_comes_back() {
    let server = Pg::find();
    // The only build without ICU is the one of 16 that scripts/postgres-versions unpacks.
    let icu: &[&str] = match server.major() {
        16 => &[],
        _ => &["--locale-provider=icu", "--icu-locale=de-DE-u-co-phonebk"],
    };
    let server = comes_back_as(icu, |builder| builder.wal_segment_mb(64).external_config());
    assert_eq!(server.psql("SHOW wal_segment_size"), "64MB");
    if !icu.is_empty() {
        let provider =
            "SELECT DISTINCT datlocprovider FROM pg_database WHERE datname IN ('postgres', 'template0')";
        assert_eq!(server.psql(provider), "i");
    }
}

#[test]
fn everything_goes_into_an_empty_server() {
    let world = world(Cluster::builder(), true);
    let original = Picture::of(&world.ready.server);
    let backup = world.back_up();
    let password = world.ready.server.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'");
    let superuser = format!(
        "ALTER ROLE postgres PASSWORD '{password}'; ALTER ROLE postgres SET log_min_duration_statement = '12345ms'"
    );
    world.ready.server.destroy();
    make_spaces(&world.room);
    let target = Cluster::builder().start();
    // A role that is there stays as it is, and so does what is set for all: they have to be equal before.
    target.psql(&superuser);
    let for_all =
        include_str!("logical_world/globals.sql").lines().filter(|line| line.starts_with("ALTER ROLE ALL"));
    for_all.for_each(|line| drop(target.psql(line)));
    let conninfo = format!("host='{}' port={} user=postgres", target.socket_dir().display(), target.port());
    let options = ["--into", &conninfo, "--clean"].map(OsStr::new);
    restore(&world.ready, &backup, &options);
    original.assert_equal(&Picture::of(&target));
}

/// Reads a stored object through its decompressor.
fn expanded(folder: &Path, name: &str, program: &str) -> Option<Vec<u8>> {
    let file = folder.join(name);
    let output = command(Path::new("/usr/bin").join(program)).arg("-dc").arg(&file).output().expect(program);
    (file.is_file() && output.status.success()).then_some(output.stdout)
}

/// Restores a stored backup into a server with psql and pg_restore; returns what they complained about.
#[track_caller]
fn by_hand(folder: &Path, target: &Cluster) -> Vec<String> {
    let sql = expanded(folder, "globals.sql.zst", "zstd").expect("the globals");
    let file = target.base().join("globals.sql");
    fs::write(&file, sql).expect("a file");
    // A database whose settings forbid writing wants to be told.
    let options = "-c default_transaction_read_only=off";
    let psql = run(target.client("psql").args(["-X", "-q", "-d", "postgres", "-f"]).arg(&file));
    let mut said: Vec<String> = psql.stderr.lines().map(str::to_string).collect();
    let mut dumps: Vec<PathBuf> =
        fs::read_dir(folder).expect("the backup").flatten().map(|e| e.path()).collect();
    dumps.retain(|path| path.extension().is_some_and(|extension| extension == "dump"));
    assert!(dumps.len() > 3, "{dumps:?}");
    dumps.sort();
    for dump in dumps {
        let name = dump.file_name().expect("a name").to_string_lossy().into_owned();
        let through = if name == "postgres.dump" { "template1" } else { "postgres" };
        let mut pg_restore = target.client("pg_restore");
        pg_restore.args(["--create", "--clean", "--if-exists", "-d", through]).env("PGOPTIONS", options);
        let output = run(pg_restore.arg(&dump));
        said.extend(output.stderr.lines().map(|line| format!("{name}: {line}")));
    }
    said
}

#[test]
fn the_public_tools_alone_bring_everything_back() {
    let world = world(Cluster::builder(), true);
    let original = Picture::of(&world.ready.server);
    let backup = world.back_up();
    let folder = world.ready.backup_folder(&backup);
    world.ready.server.destroy();
    make_spaces(&world.room);
    let target = Cluster::builder().start();
    let said = by_hand(&folder, &target);
    let errors: Vec<&String> =
        said.iter().filter(|line| line.contains("ERROR") || line.contains("error")).collect();
    assert!(errors.len() == 1 && errors[0].ends_with("role \"postgres\" already exists"), "{said:?}");
    original.assert_equal(&Picture::of(&target));
}

/// An older server's backup goes into this version's: on PostgreSQL 15 it is 15's own, `scripts/test versions` runs it on
/// the others. What the newer version makes of a dump is judged by its own pg_restore, run by hand.
#[test]
fn smoke_an_older_servers_backup_goes_into_this_version() {
    let new = Pg::find();
    let builder = Cluster::builder().pg(&older());
    let world = world(builder, true);
    let old = &world.ready.server;
    assert!(old.pg().major() <= new.major());
    // Known to 15, not to 17.
    old.configure(&["old_snapshot_threshold = 1h", "vacuum_defer_cleanup_age = 7", "work_mem = '6MB'"]);
    old.restart();
    let original = Picture::of(old);
    let backup = world.back_up();
    let folder = world.ready.backup_folder(&backup);
    old.destroy();

    make_spaces(&world.room);
    let expected = {
        let target = Cluster::builder().pg(&new).start();
        by_hand(&folder, &target);
        let expected = Picture::of(&target);
        target.destroy();
        expected
    };
    let room = Scratch::new("newer");
    let data = room.path().join("data");
    let mut restore = pgark(&new, &world.ready.repo);
    restore.arg("restore").arg("latest-logical").arg("--pgdata").arg(&data).arg("--bindir").arg(new.bindir());
    let output = run(&mut restore);
    // A build without the extensions of PostgreSQL's own contrib cannot have them: that is told, and the rest comes back.
    let lacks_extensions = output.code() == 31 && output.stderr.contains("is not available");
    assert!(output.success() || lacks_extensions, "{output}");
    let copy = Cluster::open_restored_with(&new, &data);
    copy.start();
    let restored = Picture::of(&copy);
    // Whatever is lacking, it is what the public tools bring.
    expected.assert_equal(&restored);
    if !lacks_extensions {
        original.assert_same_data(&restored);
    }
    assert_analyzed(&copy);
    let settings = fs::read_to_string(data.join("postgresql.conf")).expect("settings");
    // The test's own options of the command line overrule two.
    let wrong = "SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL AND name NOT IN ('unix_socket_directories', 'port')";
    assert_eq!(copy.psql(wrong), "");
    if new.major() >= 17 {
        assert!(output.stderr.contains("old_snapshot_threshold"), "told: {output}");
        assert!(!settings.lines().any(|line| line.starts_with("old_snapshot_threshold")), "{settings}");
    }
    run_ok(copy.client("vacuumdb").args(["--all", "--quiet"]));
}
