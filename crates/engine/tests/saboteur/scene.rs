//! What the sweeps work on: the data directory of a real server, trimmed, what that server said when it was backed up,
//! and a repository that holds an earlier backup and the server's WAL.

use pg_ark_contract::conversation::{ArchiveTask, BackupKind, BackupTask, Event, Reply};
use pg_ark_contract::settings::{Checksum, Compression};
use pg_ark_contract::{Bytes, Lsn, Result, Timeline};
use pg_ark_engine::backup;
use pg_ark_engine::postgres::control_file::{CONTROL_FILE, ControlFile};
use pg_ark_engine::repository::{Cluster, Repository, Storage};
use pg_ark_engine::session::Session;
use pg_ark_engine::wal::archiver;
use pg_ark_testkit::saboteur::{Plan, Saboteur};
use pg_ark_testkit::{Scratch, StopMode};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of databases that are kept: the largest would only cost time.
const KEPT_SIZE: u64 = 24 << 10;
/// So many of each database.
const KEPT_FILES: usize = 12;

/// Data directory, conversation and repository.
pub struct Original {
    scratch: Scratch,
    /// Paths of the segments that the backup needs, in their order.
    pub segments: Vec<String>,
    /// Name of the earlier backup.
    pub backup: String,
    task: BackupTask,
    replies: Vec<Reply>,
}

impl Original {
    pub fn new() -> Self {
        let scratch = Scratch::new("saboteur");
        let server = pg_ark_testkit::Cluster::builder()
            .wal_segment_mb(1)
            // Nothing is archived, so nothing leaves pg_wal.
            .conf("archive_mode = on")
            .conf("archive_command = '/bin/false'")
            .start();
        let mut session = server.session();
        let start = session.ask("SELECT pg_backup_start('saboteur', true)");
        session.ask("CREATE TABLE t AS SELECT generate_series(1, 10) AS i; SELECT pg_switch_wal()");
        session.ask("INSERT INTO t SELECT generate_series(11, 20); SELECT pg_switch_wal()");
        let stop = session.ask(
            "SELECT lsn || '|' || encode(convert_to(labelfile, 'UTF8'), 'hex') \
             FROM pg_backup_stop(wait_for_archive => false)",
        );
        let (stop, label) = stop.lines().last().unwrap().split_once('|').unwrap();
        let version = session.ask("SELECT current_setting('server_version_num')").parse().unwrap();
        drop(session);
        server.stop(StopMode::Fast);
        let data = scratch.path().join("data");
        copy(server.data(), &data, &mut |path| is_kept(path, server.data()));
        let control = ControlFile::parse(&fs::read(data.join(CONTROL_FILE)).unwrap()).unwrap();
        let (start, stop): (Lsn, Lsn) = (start.parse().unwrap(), stop.parse().unwrap());
        let timeline = Timeline(1);
        let size = control.wal_segment_size;
        let numbers = size.segment_of(start)..=size.last_segment_before(stop);
        let name = |number| format!("00000001{:08X}{:08X}", number >> 12, number & 0xFFF);
        let original = Original {
            segments: numbers.map(name).collect(),
            backup: String::new(),
            task: task(&data, version, control.system_identifier),
            replies: vec![
                Reply::BackupStarted { start_lsn: start, timeline },
                Reply::BackupStopped {
                    stop_lsn: stop,
                    timeline,
                    backup_label: unhex(label),
                    tablespace_map: Bytes::default(),
                },
            ],
            scratch,
        };
        original.fill()
    }

    /// Makes the repository: an earlier backup, and the segments.
    fn fill(mut self) -> Self {
        let folder = self.scratch.path().join("repository");
        Repository::open_or_create(&url(&folder)).unwrap();
        let storage = Storage::open(&url(&folder)).unwrap();
        assert!(self.segments.len() >= 3, "{:?}", self.segments);
        for segment in &self.segments {
            assert!(self.data().join("pg_wal").join(segment).is_file(), "{segment}");
            self.push(storage.clone(), segment).unwrap();
        }
        for name in names(&self.data().join("pg_wal")).filter(|name| name.ends_with(".backup")) {
            self.push(storage.clone(), &name).unwrap();
        }
        self.backup = self.back_up(storage, true).unwrap();
        pg_ark_testkit::chown_tree_to_server(&folder);
        self
    }

    pub fn data(&self) -> &Path {
        Path::new(&self.task.data_directory)
    }

    /// The repository that scenes are copies of.
    pub fn repository(&self) -> PathBuf {
        self.scratch.path().join("repository")
    }

    pub fn system(&self) -> u64 {
        self.task.system_identifier
    }

    /// Takes a backup; the server's part is played from memory.
    pub fn back_up(&self, storage: Storage, include_wal: bool) -> Result<String> {
        self.back_up_telling(storage, include_wal, |_| ())
    }

    /// As [`Self::back_up`]; `hear` hears the engine's events as they come.
    pub fn back_up_telling(
        &self,
        storage: Storage,
        include_wal: bool,
        hear: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<String> {
        let session = Session::new(hear);
        self.replies.iter().for_each(|reply| session.deliver(reply.clone()));
        let task = BackupTask { include_wal, ..self.task.clone() };
        backup::run(storage, "main", &task, &session).map(|row| row.backup)
    }

    /// Stores a segment as `pgark wal-push` does.
    pub fn push(&self, storage: Storage, segment: &str) -> Result<()> {
        let session = Session::new(|_| ());
        let task = ArchiveTask {
            data_directory: self.task.data_directory.clone(),
            server_version_num: self.task.server_version_num,
            compression: Compression::default(),
            jobs: 1,
        };
        let route = archiver::open_on(storage, "main", &task, &session)?;
        archiver::push(&route, segment, &session)
    }

    /// A copy of the repository, with a saboteur before it.
    pub fn scene(&self) -> Scene {
        let dir = tempfile::tempdir_in(self.scratch.path()).unwrap();
        like(self.data(), dir.path());
        let folder = dir.path().join("repository");
        copy(&self.scratch.path().join("repository"), &folder, &mut |_| true);
        Scene { dir, folder, plan: Plan::new() }
    }
}

/// A repository of its own, with a saboteur.
pub struct Scene {
    pub dir: tempfile::TempDir,
    pub folder: PathBuf,
    pub plan: Arc<Plan>,
}

impl Scene {
    /// The repository through the saboteur.
    pub fn sabotaged(&self) -> Storage {
        let (plan, gate) = (Arc::clone(&self.plan), Arc::clone(&self.plan));
        self.sound()
            .wrapped(|store| Saboteur::before(store, plan))
            .gated(move |call, path| gate.pass(call, &path.display().to_string()))
    }

    /// The repository as it is.
    pub fn sound(&self) -> Storage {
        Storage::open(&url(&self.folder)).unwrap()
    }

    /// The cluster through the saboteur.
    pub fn sabotaged_cluster(&self) -> Result<Cluster> {
        Repository::on(self.sabotaged())?.cluster("main")
    }

    pub fn cluster(&self) -> Cluster {
        Repository::on(self.sound()).unwrap().cluster("main").unwrap()
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

fn task(data: &Path, version: u32, system: u64) -> BackupTask {
    BackupTask {
        kind: BackupKind::Full,
        label: None,
        data_directory: data.display().to_string(),
        server_version_num: version,
        server_version: format!("{}.{}", version / 10_000, version % 10_000),
        system_identifier: system,
        in_recovery: false,
        config_files: Vec::new(),
        server_settings: Vec::new(),
        compression: Compression::default(),
        checksum: Checksum::Crc32c,
        jobs: 1,
        max_rate: 0,
        volume_size: 64 << 30,
        include_wal: true,
        archive_wait: 0,
        logical: None,
    }
}

fn is_kept(path: &Path, data: &Path) -> bool {
    let below = path.strip_prefix(data).unwrap();
    if !below.starts_with("base") || !path.is_file() {
        return true;
    }
    // The first few of each folder, in the order of their names.
    let mut beside: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
    beside.retain(|entry| entry.metadata().is_ok_and(|meta| meta.len() <= KEPT_SIZE));
    beside.sort_by_key(fs::DirEntry::file_name);
    beside.iter().take(KEPT_FILES).any(|entry| entry.path() == *path)
}

/// Copies a folder with its owners: a restore gives the server's user what it restores, and wants it to read the WAL.
fn copy(from: &Path, to: &Path, is_kept: &mut dyn FnMut(&Path) -> bool) {
    fs::create_dir(to).unwrap();
    like(from, to);
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target, is_kept);
        } else if is_kept(&entry.path()) {
            fs::copy(entry.path(), &target).unwrap();
            like(&entry.path(), &target);
        }
    }
}

/// Gives `path` the owner of `model`; a folder also its permissions.
fn like(model: &Path, path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(model).unwrap();
    std::os::unix::fs::chown(path, Some(meta.uid()), Some(meta.gid())).unwrap();
    if meta.is_dir() {
        fs::set_permissions(path, meta.permissions()).unwrap();
    }
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<char> = text.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    Bytes(digits.chunks(2).map(byte).collect())
}

pub fn url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}
