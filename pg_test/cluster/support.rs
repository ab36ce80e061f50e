//! The steps that tests share: a server that can back itself up, a backup, its loss, its restore.

use pg_ark_testkit::process::{INTERRUPT, is_reaped, send_signal};
use pg_ark_testkit::{
    Builder, Cluster, LONG, Output, Pg, Repo, SHORT, Scratch, SqlError, command, holds_within, run,
    wait_until,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running server with the extension and a repository.
pub struct Ready {
    pub server: Cluster,
    pub repo: Repo,
}

/// Starts a server with pg_ark in database `postgres` and a new repository.
#[track_caller]
pub fn ready(builder: Builder) -> Ready {
    ready_with(builder, Repo::new())
}

/// [`ready`] with a repository that exists.
#[track_caller]
pub fn ready_with(builder: Builder, repo: Repo) -> Ready {
    enabled(builder.start(), repo)
}

/// [`ready`] with a server that runs.
#[track_caller]
pub fn enabled(server: Cluster, repo: Repo) -> Ready {
    assert_installed(server.pg());
    server.psql("CREATE EXTENSION pg_ark");
    server.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    Ready { server, repo }
}

#[track_caller]
fn assert_installed(pg: &Pg) {
    let program = pgark_of(pg);
    assert!(
        program.is_file(),
        "there is no {program:?}: run scripts/install --pg-config ... for this server"
    );
}

/// The installed program, which the server starts too. Not a build in target/: the versions of both must agree.
pub fn pgark_of(pg: &Pg) -> PathBuf {
    pg.bindir().join("pgark")
}

impl Ready {
    /// Takes a full backup; returns its name when it is complete.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn take_backup(&self) -> String {
        self.try_backup("wait => true").unwrap_or_else(|error| panic!("the backup failed: {error}"))
    }

    /// Calls `ark.backup_start` with these arguments.
    pub fn try_backup(&self, arguments: &str) -> Result<String, SqlError> {
        self.server.try_psql(&format!("SELECT ark.backup_start({arguments})"))
    }

    /// Columns of one backup's row of `ark.list_backups()`; empty when it is not listed.
    #[track_caller]
    pub fn backup_row(&self, columns: &str, backup: &str) -> String {
        self.server.psql(&format!("SELECT {columns} FROM ark.list_backups() WHERE backup = '{backup}'"))
    }

    /// Starts a backup that reads `rate` kB per second and returns once it copies files.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start_slow(&self, rate: u32) -> Running {
        let start = format!("SET pg_ark.max_rate = {rate}; SELECT ark.backup_start()");
        let backup = self.server.psql(&start);
        self.wait_for_phase("streaming database files");
        Running { worker: self.worker(), engine: self.engine(), backup }
    }

    /// Waits until a backup that was started ends.
    ///
    /// # Panics
    /// When it does not become complete.
    #[track_caller]
    pub fn wait_for_end(&self, running: &Running) {
        let status = || self.backup_row("status", &running.backup);
        wait_until("the end of the backup", LONG, || status() != "running");
        assert_eq!(self.backup_row("status, error", &running.backup), "complete|");
    }

    /// Waits until the running backup is in this phase of `pg_stat_progress_basebackup`.
    #[track_caller]
    pub fn wait_for_phase(&self, phase: &str) {
        wait_until(phase, LONG, || {
            self.server.psql("SELECT phase FROM pg_stat_progress_basebackup") == phase
        });
    }

    /// PID of the background worker of the running backup.
    #[track_caller]
    pub fn worker(&self) -> u32 {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_ark backup'";
        self.server.psql(query).parse().expect("one worker")
    }

    /// PID of the engine of the running backup; sessions and the scheduler have others, for as long as they ask something.
    #[track_caller]
    pub fn engine(&self) -> u32 {
        let (worker, engines) = (self.worker(), self.server.processes("pgark engine"));
        let of_backup: Vec<u32> = engines.iter().filter(|p| p.parent == worker).map(|p| p.pid).collect();
        let [engine] = of_backup[..] else { panic!("one engine of {worker}: {engines:?}") };
        engine
    }

    /// Fails unless the backup's record says `failed` with `reason` in its error, nothing but the record is left in
    /// its folder, no lease, and nothing in the server.
    #[track_caller]
    pub fn assert_failed(&self, backup: &str, reason: &str) {
        self.assert_nothing_left_behind();
        let row = self.backup_row("status, error", backup);
        assert!(row.starts_with("failed|") && row.contains(reason), "\"{reason}\" expected: {row}");
        let folder = self.backup_folder(backup);
        assert_eq!(names_below(&folder), ["backup.json"], "in {folder:?}");
        self.assert_no_lease();
    }

    /// Fails when a lease is left in the repository.
    #[track_caller]
    pub fn assert_no_lease(&self) {
        let left = names_below(self.repo.path());
        // Half a file of a writer that was killed is nobody's.
        let is_lease = |name: &String| name.contains("/lease.json") && !name.contains('#');
        assert!(!left.iter().any(is_lease), "{left:?}");
    }

    /// Fails unless the server can be backed up, also by hand, and stops at once: no backup mode was left.
    #[track_caller]
    pub fn assert_works(&self) {
        let backup = self.take_backup();
        assert_eq!(self.backup_row("status, error", &backup), "complete|");
        self.server.psql("SELECT pg_backup_start('by hand', true); SELECT lsn FROM pg_backup_stop(false)");
        let postmaster = self.server.pid().expect("a server");
        send_signal(postmaster, INTERRUPT);
        wait_until("a fast shutdown", SHORT, || is_reaped(postmaster));
    }

    /// `pgark --repo URL`, to be run as the server's OS user; PostgreSQL's programs are on its PATH.
    pub fn pgark(&self) -> Command {
        pgark(self.server.pg(), &self.repo)
    }

    /// Folder of a backup in the repository.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn backup_folder(&self, backup: &str) -> PathBuf {
        let id = self.server_identifier();
        let found = std::fs::read_dir(self.repo.path())
            .expect("the repository")
            .flatten()
            .map(|cluster| cluster.path().join(&id).join("backups").join(backup))
            .find(|folder| folder.is_dir());
        found.unwrap_or_else(|| panic!("backup {backup} has no folder in {:?}", self.repo.path()))
    }

    /// The system identifier, read from the repository so that it works when the server is gone.
    #[track_caller]
    fn server_identifier(&self) -> String {
        let is_number =
            |name: &OsStr| name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        let clusters = std::fs::read_dir(self.repo.path()).expect("the repository").flatten();
        let mut names = clusters
            .filter_map(|cluster| std::fs::read_dir(cluster.path()).ok())
            .flat_map(|folder| folder.flatten().map(|entry| entry.file_name()))
            .filter(|name| is_number(name));
        let first = names.next().expect("a system identifier in the repository");
        first.to_string_lossy().into_owned()
    }

    /// Restores to where the server was; use it after [`Cluster::destroy`]. Start the server with its own handle.
    ///
    /// # Panics
    /// When pgark fails.
    #[track_caller]
    pub fn restore_in_place(&self, backup: &str) {
        let data = self.server.data().to_path_buf();
        run(self.pgark().arg("restore").arg(backup).arg("--pgdata").arg(data)).ok();
    }

    /// Restores beside the server, tablespaces and all, and starts the copy.
    ///
    /// # Panics
    /// When pgark fails or the copy does not start.
    #[track_caller]
    pub fn restore_beside(&self, backup: &str) -> Restored {
        let copy = self.restore_beside_stopped(backup, &[]);
        copy.server.start();
        copy
    }

    /// Restores beside the server with more options of `pgark restore`, and does not start the copy.
    ///
    /// # Panics
    /// When pgark fails.
    #[track_caller]
    pub fn restore_beside_stopped(&self, backup: &str, options: &[&OsStr]) -> Restored {
        let folder = Scratch::new("restored");
        let data = folder.path().join("data");
        let mut pgark = self.pgark();
        pgark.arg("restore").arg(backup).arg("--pgdata").arg(&data).args(options);
        for (number, location) in self.tablespace_locations().iter().enumerate() {
            let mut mapping = location.clone().into_os_string();
            mapping.push("=");
            mapping.push(folder.path().join(format!("tablespace {number}")));
            pgark.arg("--tablespace").arg(mapping);
        }
        run(&mut pgark).ok();
        Restored { server: Cluster::open_restored_with(self.server.pg(), &data), folder }
    }

    /// Where the server's tablespaces are. In-place ones move with the data directory and are left out.
    pub fn tablespace_locations(&self) -> Vec<PathBuf> {
        let links = std::fs::read_dir(self.server.data().join("pg_tblspc")).into_iter().flatten().flatten();
        links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect()
    }

    /// Fails when a backup leaves a slot, a progress row, a worker or an engine behind. They go soon after the answer.
    #[track_caller]
    pub fn assert_nothing_left_behind(&self) {
        let server = &self.server;
        let left = "SELECT 'slot ' || slot_name FROM pg_replication_slots \
                    UNION ALL SELECT 'progress of ' || pid FROM pg_stat_progress_basebackup \
                    UNION ALL SELECT 'worker ' || pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_ark%' \
                    AND backend_type <> 'pg_ark scheduler'";
        let clean = holds_within(SHORT, || server.psql(left).is_empty() && server.pids("pgark").is_empty());
        assert!(clean, "left behind: {} {:?}", server.psql(left), server.processes("pgark"));
    }
}

/// `pgark --repo URL` of an installation, to be run as the server's OS user.
pub fn pgark(pg: &Pg, repo: &Repo) -> Command {
    let mut pgark = command(pgark_of(pg));
    let path = std::env::join_paths([pg.bindir(), Path::new("/usr/bin"), Path::new("/bin")]).expect("a PATH");
    pgark.env("PATH", path).arg("--repo").arg(repo.url());
    pgark
}

/// A backup that copies files.
pub struct Running {
    pub backup: String,
    /// PID of the background worker.
    pub worker: u32,
    /// PID of the engine.
    pub engine: u32,
}

/// Paths of all files below a folder, relative to it, sorted.
#[track_caller]
pub fn names_below(folder: &Path) -> Vec<String> {
    fn collect(folder: &Path, root: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => collect(&path, root, names),
                false => names.push(path.strip_prefix(root).expect("below").display().to_string()),
            }
        }
    }
    let mut names = Vec::new();
    collect(folder, folder, &mut names);
    names.sort();
    names
}

/// Files of a repository that exist only while somebody works on it: leases, probes, files that are being written.
#[track_caller]
pub fn strays(repository: &Path) -> Vec<String> {
    let passing = |name: &String| ["lease.json", "probe-", "#"].iter().any(|part| name.contains(part));
    names_below(repository).into_iter().filter(passing).collect()
}

/// A restored copy. The server is stopped before its folder goes.
pub struct Restored {
    pub server: Cluster,
    pub folder: Scratch,
}

/// Runs pgark and expects this exit code (see the README's table); returns its output.
#[track_caller]
pub fn fails_with(pgark: &mut Command, code: i32) -> Output {
    let output = run(pgark);
    assert_eq!(output.code(), code, "{output}");
    assert!(output.stderr.contains("error:"), "no error is told: {output}");
    output
}
