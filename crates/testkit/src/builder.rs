//! How a cluster is made.

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::os::{Scratch, chown_to_server, run_ok};
use crate::tools::Pg;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of a new cluster; [`Cluster::builder`] makes one.
#[derive(Debug, Clone)]
pub struct Builder {
    pg: Option<Pg>,
    name: String,
    checksums: bool,
    wal_segment_mb: Option<u32>,
    group_access: bool,
    external_waldir: bool,
    external_config: bool,
    durable: bool,
    initdb_options: Vec<String>,
    settings: Vec<String>,
    clock: Option<Clock>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Builder {
            pg: None,
            name: "data".into(),
            checksums: true,
            wal_segment_mb: None,
            group_access: false,
            external_waldir: false,
            external_config: false,
            durable: false,
            initdb_options: Vec::new(),
            settings: Vec::new(),
            clock: None,
        }
    }

    /// Uses this installation instead of [`Pg::find`].
    pub fn pg(mut self, pg: &Pg) -> Self {
        self.pg = Some(pg.clone());
        self
    }

    /// Name of the data directory, which may hold spaces and letters outside ASCII. Default: `data`.
    pub fn directory_name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Page checksums on or off. Default: on, whatever the version's own default is.
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// Size of a WAL segment in MB. Default: 16.
    pub fn wal_segment_mb(mut self, megabytes: u32) -> Self {
        self.wal_segment_mb = Some(megabytes);
        self
    }

    /// Lets the group read the data directory (`initdb -g`: modes 0750 and 0640).
    pub fn group_access(mut self) -> Self {
        self.group_access = true;
        self
    }

    /// Puts the WAL into a folder beside the data directory; `pg_wal` is then a link.
    pub fn external_waldir(mut self) -> Self {
        self.external_waldir = true;
        self
    }

    /// Puts postgresql.conf, pg_hba.conf and pg_ident.conf into a folder beside the data directory, as Debian does.
    pub fn external_config(mut self) -> Self {
        self.external_config = true;
        self
    }

    /// Leaves fsync on. Default: off, which is safe as long as the machine itself does not crash.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Any other option of initdb.
    pub fn initdb_option(mut self, option: &str) -> Self {
        self.initdb_options.push(option.into());
        self
    }

    /// A line of postgresql.conf, for instance `work_mem = '1MB'`.
    pub fn conf(mut self, line: &str) -> Self {
        self.settings.push(line.into());
        self
    }

    /// Lets the server, and the engines that it starts, live by a clock that the test moves.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Makes the cluster and starts its server.
    ///
    /// # Panics
    /// When initdb fails or the server does not start.
    #[track_caller]
    pub fn start(self) -> Cluster {
        let cluster = self.create();
        cluster.start();
        cluster
    }

    /// Makes the cluster and does not start its server.
    ///
    /// # Panics
    /// When initdb fails.
    #[track_caller]
    pub fn create(self) -> Cluster {
        let pg = self.pg.clone().unwrap_or_else(Pg::find);
        let scratch = Scratch::new("pg");
        let data = scratch.path().join(&self.name);
        self.initdb(&pg, &data, scratch.path());
        let socket_dir = scratch.folder("s");
        let mut lines = server_lines(&socket_dir);
        if !self.durable {
            lines.push("fsync = off".into());
        }
        lines.extend(self.clock.as_ref().map(|clock| clock.engine_line(&pg)));
        lines.extend(self.settings.iter().cloned());
        let config_dir = if self.external_config {
            let folder = scratch.folder("etc");
            move_config(&data, &folder, &mut lines);
            Some(folder)
        } else {
            None
        };
        append_lines(&config_dir.as_ref().unwrap_or(&data).join("postgresql.conf"), &lines);
        let mut cluster = Cluster::new(pg, scratch, data, config_dir, socket_dir);
        cluster.clock = self.clock;
        cluster
    }

    fn initdb(&self, pg: &Pg, data: &Path, base: &Path) {
        let mut initdb = pg.tool("initdb");
        initdb.arg("-D").arg(data).args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]);
        initdb.arg("--locale=C.UTF-8");
        if self.checksums {
            initdb.arg("--data-checksums");
        } else if pg.major() >= 18 {
            initdb.arg("--no-data-checksums");
        }
        if let Some(megabytes) = self.wal_segment_mb {
            initdb.arg(format!("--wal-segsize={megabytes}"));
        }
        if self.group_access {
            initdb.arg("-g");
        }
        if self.external_waldir {
            initdb.arg("-X").arg(base.join("wal"));
        }
        if let Some(clock) = &self.clock {
            clock.apply(&mut initdb);
        }
        run_ok(initdb.args(&self.initdb_options));
    }
}

/// What every test server needs: no TCP port that could clash, a socket in its own folder, times in UTC.
fn server_lines(socket_dir: &Path) -> Vec<String> {
    vec![
        "listen_addresses = ''".into(),
        format!("unix_socket_directories = '{}'", socket_dir.display()),
        "port = 5432".into(),
        "log_timezone = 'UTC'".into(),
        "timezone = 'UTC'".into(),
        "log_line_prefix = '%m [%p] %b %e '".into(),
        "max_wal_senders = 10".into(),
    ]
}

fn move_config(data: &Path, folder: &Path, lines: &mut Vec<String>) {
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(data.join(name), folder.join(name))
            .unwrap_or_else(|e| panic!("could not move {name}: {e}"));
    }
    let quoted = |path: PathBuf| format!("'{}'", path.display().to_string().replace('\'', "''"));
    lines.push(format!("data_directory = {}", quoted(data.to_path_buf())));
    lines.push(format!("hba_file = {}", quoted(folder.join("pg_hba.conf"))));
    lines.push(format!("ident_file = {}", quoted(folder.join("pg_ident.conf"))));
}

pub(crate) fn append_lines(path: &Path, lines: &[String]) {
    let mut file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap_or_else(|e| panic!("{path:?}: {e}"));
    for line in lines {
        writeln!(file, "{line}").unwrap_or_else(|e| panic!("could not write {path:?}: {e}"));
    }
    drop(file);
    chown_to_server(path);
}
