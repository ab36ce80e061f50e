//! Clusters as Debian makes them, with configuration in /etc/postgresql: one command brings back all of it.

use crate::support::{Ready, enabled, pgark_of};
use pg_ark_testkit::{Cluster, Output, Pg, Repo, Scratch, assert_same_data, run, run_ok};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const VERSION: &str = "15";

/// One of the programs of postgresql-common, run as root, as an administrator does.
fn tool(name: &str) -> Command {
    let path = Path::new("/usr/bin").join(name);
    assert!(path.is_file(), "there is no {path:?}: install postgresql-common");
    let mut command = Command::new(path);
    command.env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

/// A cluster of pg_createcluster; dropping it removes everything.
struct Debian {
    name: String,
    pg: Pg,
}

impl Debian {
    /// Makes and starts one, with settings in a file below conf.d and a port that is not the default.
    #[track_caller]
    fn create(what: &str, settings: &str) -> Debian {
        let uid = run_ok(Command::new("id").arg("-u"));
        assert_eq!(uid.trim(), "0", "pg_createcluster wants root: run the tests as root");
        let pg_config = PathBuf::from(format!("/usr/lib/postgresql/{VERSION}/bin/pg_config"));
        // pg_createcluster takes the first port that no cluster has in its configuration.
        static PORTS: Mutex<()> = Mutex::new(());
        let _alone = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        let debian = Debian { name: format!("ark_{what}_{}", std::process::id()), pg: Pg::at(&pg_config) };
        let mut create = tool("pg_createcluster");
        create.args([VERSION, &debian.name, "--start-conf=manual", "--", "-A", "trust", "-N", "-k"]);
        run_ok(&mut create);
        let extra = debian.config().join("conf.d/50-own.conf");
        let settings = format!("work_mem = '7MB'\nlisten_addresses = ''\nfsync = off\n{settings}\n");
        fs::write(&extra, settings).expect("a conf.d file");
        // A restore gives nothing to root, so that root's own file would come back as the server's.
        let owner = fs::metadata(debian.config()).expect("the configuration").uid();
        std::os::unix::fs::chown(&extra, Some(owner), None).expect("the server's user");
        debian.ctl("start").ok();
        debian
    }

    fn config(&self) -> PathBuf {
        Path::new("/etc/postgresql").join(VERSION).join(&self.name)
    }

    fn data(&self) -> PathBuf {
        Path::new("/var/lib/postgresql").join(VERSION).join(&self.name)
    }

    fn ctl(&self, action: &str) -> Output {
        run(tool("pg_ctlcluster").args([VERSION, &self.name, action]))
    }

    /// The columns of pg_lsclusters for this cluster: version, name, port, status, owner, data directory, log.
    #[track_caller]
    fn listed(&self) -> Vec<String> {
        let list = run_ok(tool("pg_lsclusters").arg("--no-header"));
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let found = list.lines().map(words).find(|words| words.get(1) == Some(&self.name));
        found.unwrap_or_else(|| panic!("{} is not listed:\n{list}", self.name))
    }

    /// The running server, with a repository.
    #[track_caller]
    fn enabled(&self) -> Ready {
        enabled(Cluster::open_restored_with(&self.pg, &self.data()), Repo::new())
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        // Only what is whole can be dropped by Debian's program; a test may have failed in between.
        let _ = run(tool("pg_dropcluster").args(["--stop", VERSION, &self.name]));
        for folder in [self.config(), self.data()] {
            let _ = fs::remove_dir_all(folder);
        }
        let _ = fs::remove_file(format!("/var/log/postgresql/postgresql-{VERSION}-{}.log", self.name));
    }
}

/// Every file of a folder with its content, mode and owner.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>, u32, u32)> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("configuration");
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        } else {
            found.push((path.clone(), fs::read(&path).expect("a file"), meta.mode() & 0o7777, meta.uid()));
        }
    }
    found.sort();
    found
}

/// pgark as root, as an administrator runs it after the machine was lost.
fn pgark_as_root(ready: &Ready) -> Command {
    let mut pgark = Command::new(pgark_of(ready.server.pg()));
    pgark.current_dir("/").arg("--repo").arg(ready.repo.url());
    pgark
}

#[test]
fn one_command_brings_a_debian_cluster_back() {
    let debian = Debian::create("back", "");
    let ready = debian.enabled();
    let server = &ready.server;
    let port = server.port();
    server.pgbench(&["-i", "-q", "-s", "1"]);
    server.psql("ALTER SYSTEM SET maintenance_work_mem = '77MB'");
    let (original, configuration) = (server.checksums(), files(&debian.config()));
    assert!(configuration.len() >= 6, "{configuration:?}");
    let backup = ready.take_backup();

    debian.ctl("stop").ok();
    fs::remove_dir_all(debian.data()).expect("the data directory");
    fs::remove_dir_all(debian.config()).expect("the configuration");
    let mut pgark = pgark_as_root(&ready);
    assert!(ready.repo.path().join(format!("{VERSION}-{}", debian.name)).is_dir(), "named like the cluster");
    let output = run(pgark.args(["restore", &backup, "--start", "--pgdata"]).arg(debian.data()));
    let text = output.to_string();
    output.ok();

    let listed = debian.listed();
    assert_eq!(listed[2..5], [port.to_string(), "online".into(), "postgres".into()], "{listed:?}\n{text}");
    assert_eq!(Path::new(&listed[5]), debian.data());
    assert_eq!(files(&debian.config()), configuration, "content, modes and owners");
    let server = Cluster::open_restored_with(&debian.pg, &debian.data());
    assert_eq!(server.port(), port);
    assert_same_data(&original, &server.checksums());
    assert_eq!(server.psql("SHOW work_mem"), "7MB");
    assert_eq!(server.psql("SHOW maintenance_work_mem"), "77MB");
    assert_eq!(Path::new(&server.psql("SHOW config_file")), debian.config().join("postgresql.conf"));

    // Debian's tools run it as if nothing had happened.
    debian.ctl("restart").ok();
    assert_eq!(debian.listed()[3], "online");
    assert_eq!(server.psql("SELECT count(*) FROM ark.list_backups()"), "1");
    server.psql("SELECT ark.backup_start(wait => true)");
}

#[test]
fn a_debian_cluster_is_copied_with_its_configuration_inside() {
    // Debian's key is for a group that the test kit does not give to what it starts.
    let debian = Debian::create("copy", "ssl = off");
    let ready = debian.enabled();
    ready.server.pgbench(&["-i", "-q", "-s", "1"]);
    let original = ready.server.checksums();
    let backup = ready.take_backup();
    let scratch = Scratch::new("copy");
    let data = scratch.path().join("data");
    let mut pgark = ready.pgark();
    run(pgark.args(["restore", &backup, "--config", "pgdata", "--pgdata"]).arg(&data)).ok();

    // Beside the original, which goes on.
    let copy = Cluster::open_restored_with(&debian.pg, &data);
    copy.start();
    assert_same_data(&original, &copy.checksums());
    assert_eq!(copy.psql("SHOW work_mem"), "7MB", "conf.d came along");
    assert_eq!(Path::new(&copy.psql("SHOW config_file")), data.join("postgresql.conf"));
    assert_eq!(Path::new(&copy.psql("SHOW data_directory")), data);
    for setting in ["hba_file", "ident_file", "external_pid_file"] {
        let value = copy.psql(&format!("SHOW {setting}"));
        assert!(
            value.is_empty() || Path::new(&value).starts_with(&data),
            "{setting} leads to the original: {value}"
        );
    }
    assert_eq!(debian.listed()[3], "online");
    assert_same_data(&original, &ready.server.checksums());
}
