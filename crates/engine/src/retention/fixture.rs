//! A repository for tests of retention: backups whose objects are a few bytes, and real segments of three timelines over
//! two folders.

use super::gather::gather;
use super::model::{BackupState, BackupVerdict, HistoryVerdict, Plan, Stored, StoredBackup, WalVerdict};
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::record::{ArchiveContent, ArchiveRecord, ObjectRecord};
use crate::repository::{Cluster, Record, Repository, Storage};
use crate::session::Session;
use crate::wal::get_fixture::{content, tl};
use crate::wal::index::Index;
use crate::wal::index_line::FileFacts;
use crate::wal::object;
use crate::wal::store_fixture::size;
use crate::wal::summary::Summarizer;
use crate::wal::survey::Run;
use crate::wal::{Archive, store_fixture};
use chrono::{DateTime, Utc};
use pg_ark_contract::conversation::BackupKind;
use pg_ark_contract::retention::{PruneRow, Verdict};
use pg_ark_contract::rows::BackupStatus;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Lsn, Result, Timeline};
use pg_ark_testkit::saboteur::{Plan as Calls, Saboteur};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// System identifier of everything.
pub(super) const SYSTEM: u64 = crate::postgres::wal_fixture::SYSTEM_IDENTIFIER;

/// The backups, by when they were finished. `INCREMENT` is a child of `OLD`; `FAILED` has nothing.
pub(super) const OLD: &str = "20261101T020000Z-full";
pub(super) const INCREMENT: &str = "20261102T020000Z-incremental";
pub(super) const MONTHLY: &str = "20261103T020000Z-full";
pub(super) const FAILED: &str = "20261104T020000Z-full";
pub(super) const WEEKLY: &str = "20261108T020000Z-full";
pub(super) const NEWEST: &str = "20261120T020000Z-full";
/// Those of [`Place::with_dumps`].
pub(super) const OLD_DUMPS: &str = "20261105T030000Z-logical";
pub(super) const NEW_DUMPS: &str = "20261119T030000Z-logical";

/// First and last segment of each backup, with its timeline.
const NEEDED: [(&str, u32, u64, u64); 5] = [
    (OLD, 1, 4089, 4090),
    (INCREMENT, 1, 4091, 4092),
    (MONTHLY, 1, 4094, 4095),
    (WEEKLY, 1, 4097, 4098),
    (NEWEST, 3, 4105, 4105),
];
/// Segments of each timeline: 4096 begins another folder.
pub(super) const SEGMENTS: [(u32, u64, u64); 3] = [(1, 4088, 4099), (2, 4100, 4103), (3, 4104, 4107)];

pub(super) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_400_000, 0).unwrap()
}

/// In memory, where that is possible: sweeps make thousands of repositories.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A repository in a folder of its own.
pub(super) struct Place {
    pub dir: tempfile::TempDir,
    pub calls: Arc<Calls>,
}

impl Place {
    /// A repository with every backup, segment, index and history.
    pub(super) fn new() -> Self {
        let place = Place { dir: scratch(), calls: Calls::new() };
        let (repository, _) = Repository::open_or_create(&place.url()).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(SYSTEM, 170_000).unwrap();
        let archive = Archive::of(&cluster, SYSTEM);
        for (timeline, first, last) in SEGMENTS {
            (first..=last).for_each(|number| store(&archive, timeline, number));
        }
        for (number, left) in [(2, 4100), (3, 4104)] {
            let (name, text) = history(number, left);
            archive.storage().put(&archive.path(&name).unwrap(), text.clone().into_bytes()).unwrap();
            let path = archive.index_beside(&name).unwrap();
            let mut index = Index::load(archive.storage(), &path, size()).unwrap();
            assert!(index.insert_file(&name, FileFacts::of(text.as_bytes())));
            index.save(archive.storage(), &path).unwrap();
        }
        // What a promotion and a backup leave.
        beside(&archive, &format!("{}.partial", tl(1, 4100).file_name(size())), ".zst");
        beside(&archive, &format!("{}.00000028.backup", tl(1, 4089).file_name(size())), "");
        beside(&archive, &format!("{}.00000028.backup", tl(1, 4097).file_name(size())), "");
        for (backup, timeline, first, last) in NEEDED {
            let parent = (backup == INCREMENT).then_some(OLD);
            place.backup(backup, parent, (timeline, first, last));
        }
        let failed = Record {
            status: BackupStatus::Failed,
            finished_at: Some("2026-11-04T02:10:00Z".into()),
            ..Record::begun(FAILED.into(), "main", SYSTEM)
        };
        failed.save(cluster.storage(), &cluster.backup_folder(SYSTEM, FAILED)).unwrap();
        place
    }

    /// The same, with two logical backups.
    pub(super) fn with_dumps() -> Self {
        let place = Place::new();
        place.dumps(OLD_DUMPS);
        place.dumps(NEW_DUMPS);
        place
    }

    /// Stores a complete logical backup.
    fn dumps(&self, backup: &str) {
        let cluster = self.cluster();
        let folder = cluster.backup_folder(SYSTEM, backup);
        let object = |name: &str| object(cluster.storage(), &folder, backup, name);
        let database = |name: &str, volumes: &[&str]| DatabaseRecord {
            name: name.into(),
            volumes: volumes.iter().map(|name| object(name)).collect(),
            ..DatabaseRecord::default()
        };
        let day = &backup[6..8];
        let record = Record {
            kind: BackupKind::Logical,
            status: BackupStatus::Complete,
            started_at: format!("2026-11-{day}T03:00:00Z"),
            finished_at: Some(format!("2026-11-{day}T03:10:00Z")),
            wal_segment_size: size(),
            archives: vec![ArchiveRecord {
                name: "config.tar.zst".into(),
                content: ArchiveContent::Config,
                volumes: vec![object("config.tar.zst")],
                frames: 1,
                tar_bytes: 1,
                index: Some(object("config.tar.zst.index")),
            }],
            logical: Some(LogicalRecord {
                globals: vec![object("globals.sql.zst")],
                databases: vec![
                    database("a/b", &["a%2Fb.dump"]),
                    database("app", &["app.dump", "app.dump.0001"]),
                ],
                ..LogicalRecord::default()
            }),
            stored_bytes: 100,
            ..Record::begun(backup.into(), "main", SYSTEM)
        };
        record.save(cluster.storage(), &folder).unwrap();
    }

    /// The same, in another folder.
    pub(super) fn copy(&self) -> Self {
        let place = Place { dir: scratch(), calls: Calls::new() };
        for entry in walkdir::WalkDir::new(self.dir.path()).min_depth(1).into_iter().flatten() {
            let to = place.dir.path().join(entry.path().strip_prefix(self.dir.path()).unwrap());
            match entry.file_type().is_dir() {
                true => std::fs::create_dir(to).unwrap(),
                false => drop(std::fs::copy(entry.path(), to).unwrap()),
            }
        }
        place
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    pub(super) fn cluster(&self) -> Cluster {
        Repository::open(&self.url()).unwrap().cluster("main").unwrap()
    }

    /// The cluster through the saboteur; he counts from here.
    pub(super) fn sabotaged(&self) -> Result<Cluster> {
        let (plan, gate) = (Arc::clone(&self.calls), Arc::clone(&self.calls));
        let storage = Storage::open(&self.url())?
            .wrapped(|store| Saboteur::before(store, plan))
            .gated(move |call, path| gate.pass(call, &path.display().to_string()));
        Repository::on(storage)?.cluster("main")
    }

    pub(super) fn archive(&self) -> Archive {
        Archive::of(&self.cluster(), SYSTEM)
    }

    /// Where a backup is.
    pub(super) fn folder(&self, backup: &str) -> PathBuf {
        self.dir.path().join(self.cluster().backup_folder(SYSTEM, backup))
    }

    /// Stores a complete backup.
    pub(super) fn backup(
        &self,
        backup: &str,
        parent: Option<&str>,
        (timeline, first, last): (u32, u64, u64),
    ) {
        let cluster = self.cluster();
        let folder = cluster.backup_folder(SYSTEM, backup);
        let object = |name: &str| object(cluster.storage(), &folder, backup, name);
        let day = &backup[6..8];
        let record = Record {
            kind: if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full },
            status: BackupStatus::Complete,
            parent: parent.map(str::to_string),
            started_at: format!("2026-11-{day}T02:00:00Z"),
            finished_at: Some(format!("2026-11-{day}T02:10:00Z")),
            start_lsn: Some(Lsn(size().start_of(first).0 + 40)),
            stop_lsn: Some(Lsn(size().start_of(last).0 + 500)),
            timeline: Some(Timeline(timeline)),
            wal_segment_size: size(),
            archives: vec![ArchiveRecord {
                name: "base.tar.zst".into(),
                content: ArchiveContent::Base,
                volumes: vec![object("base.tar.zst"), object("base.tar.zst.0001")],
                frames: 1,
                tar_bytes: 1,
                index: Some(object("base.tar.zst.index")),
            }],
            manifest: Some(object("backup_manifest")),
            stored_bytes: 100,
            ..Record::begun(backup.into(), "main", SYSTEM)
        };
        record.save(cluster.storage(), &folder).unwrap();
    }

    /// Files and folders below the repository with their content, but for what writers that died leave: tickets and names
    /// with `#`.
    pub(super) fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        let mut tree = BTreeMap::new();
        for entry in walkdir::WalkDir::new(self.dir.path()).min_depth(1).into_iter().flatten() {
            let name = entry.path().strip_prefix(self.dir.path()).unwrap().display().to_string();
            if name.contains('#') || name.contains("lease.json") {
                continue;
            }
            let is_file = entry.file_type().is_file();
            let bytes = if is_file { std::fs::read(entry.path()).unwrap() } else { Vec::new() };
            tree.insert(name, bytes);
        }
        tree
    }

    /// Prunes through the saboteur by [`keeping`].
    pub(super) fn prune_sabotaged(&self, keep: &'static [&'static str]) -> Result<Vec<PruneRow>> {
        prune(&self.sabotaged()?, keep)
    }

    pub(super) fn prune(&self, keep: &'static [&'static str]) -> Result<Vec<PruneRow>> {
        prune(&self.cluster(), keep)
    }

    /// What the backups are, by name.
    pub(super) fn states(&self) -> BTreeMap<String, BackupState> {
        let stored = gather(&self.cluster(), &|| Ok(())).unwrap();
        stored.backups.into_iter().map(|backup| (backup.backup, backup.state)).collect()
    }
}

/// Stores an object that says what it is.
fn object(storage: &Storage, folder: &str, backup: &str, name: &str) -> ObjectRecord {
    let bytes = format!("{name} of {backup}").into_bytes();
    let crc32c = format!("{:08x}", crc32c::crc32c(&bytes));
    let record = ObjectRecord { name: name.into(), size: bytes.len() as u64, crc32c };
    storage.put(&format!("{folder}/{name}"), bytes).unwrap();
    record
}

pub(super) fn prune(cluster: &Cluster, keep: &'static [&'static str]) -> Result<Vec<PruneRow>> {
    let planner = |stored: &Stored| Ok(keeping(stored, keep));
    super::apply::prune_by(cluster, &planner, true, now(), &Session::new(|_| ()))
}

/// Keeps the backups that are named, what is pinned or cannot be judged, and their parents; all WAL from the last that is
/// named on, and from start to stop of the others. Histories above the oldest timeline that is kept, and the newest.
pub(super) fn keeping(stored: &Stored, keep: &[&str]) -> Plan {
    let is_named = |backup: &StoredBackup| {
        let is_known = !matches!(backup.state, BackupState::Failed | BackupState::Expiring);
        is_known && (keep.contains(&&backup.backup[..]) || backup.pinned.is_some())
            || backup.state == BackupState::Unreadable
    };
    let named: Vec<&StoredBackup> = stored.backups.iter().filter(|b| is_named(b)).collect();
    let is_kept = |backup: &StoredBackup| {
        is_named(backup) || named.iter().any(|child| child.parent.as_ref() == Some(&backup.backup))
    };
    let verdict = |keeps: bool| if keeps { Verdict::Keep } else { Verdict::Drop };
    let rule = |keeps: bool| if keeps { "kept" } else { "no backup needs it" }.to_string();
    let mut plan = Plan::default();
    for (index, backup) in stored.backups.iter().enumerate() {
        let keeps = is_kept(backup);
        plan.backups.push(BackupVerdict { index, verdict: verdict(keeps), rule: rule(keeps) });
    }
    let kept: Vec<&StoredBackup> = stored.backups.iter().filter(|b| is_kept(b)).collect();
    let from = kept.iter().filter(|b| keep.last() == Some(&&b.backup[..])).find_map(|b| b.start_lsn);
    for (system, wal) in &stored.wal {
        let size = wal.segment_size;
        let everything = kept.iter().any(|backup| backup.state == BackupState::Unreadable);
        let is_needed = |timeline: Timeline, number: u64| {
            let spans = kept.iter().filter(|b| b.timeline == Some(timeline));
            let mut spans = spans.filter_map(|b| Some((b.start_lsn?, b.stop_lsn?)));
            everything
                || from.is_some_and(|from| number >= size.segment_of(from))
                || spans
                    .any(|(start, stop)| (size.segment_of(start)..=size.segment_of(stop)).contains(&number))
        };
        for (timeline, runs) in &wal.segments {
            for number in runs.iter().flat_map(|run| run.first..=run.last) {
                let keeps = is_needed(*timeline, number);
                match plan.wal.last_mut() {
                    Some(last)
                        if last.timeline == *timeline
                            && last.run.last + 1 == number
                            && last.verdict == verdict(keeps) =>
                    {
                        last.run.last = number;
                    }
                    _ => plan.wal.push(WalVerdict {
                        system: *system,
                        timeline: *timeline,
                        run: Run { first: number, last: number },
                        verdict: verdict(keeps),
                        rule: rule(keeps),
                    }),
                }
            }
        }
        let used = plan.wal.iter().filter(|wal| wal.verdict == Verdict::Keep).map(|wal| wal.timeline).min();
        let oldest = used.unwrap_or(Timeline(u32::MAX));
        let newest = wal.histories.keys().next_back();
        for timeline in wal.histories.keys() {
            let keeps = *timeline >= oldest || Some(timeline) == newest;
            plan.histories.push(HistoryVerdict {
                system: *system,
                timeline: *timeline,
                verdict: verdict(keeps),
                rule: rule(keeps),
            });
        }
    }
    plan
}

/// Stores a segment and its line.
pub(super) fn store(archive: &Archive, timeline: u32, number: u64) {
    let name = tl(timeline, number);
    let bytes = content(timeline, number);
    let mut summarizer = Summarizer::new(name, size());
    summarizer.feed(&bytes);
    let path = archive.index_beside(&name.file_name(size())).unwrap();
    let mut index = Index::load(archive.storage(), &path, size()).unwrap();
    index.insert(name, summarizer.finish());
    index.save(archive.storage(), &path).unwrap();
    let stored =
        object::encode(Compression::default(), &mut &bytes[..], bytes.len() as u64, "test", &mut |_| Ok(()))
            .unwrap();
    let path = format!("{}.zst", archive.path(&name.file_name(size())).unwrap());
    archive.storage().put(&path, stored).unwrap();
}

/// Stores a file beside the segments, and its line.
pub(super) fn beside(archive: &Archive, name: &str, suffix: &str) {
    let bytes = match suffix.is_empty() {
        true => b"a backup history".to_vec(),
        false => store_fixture::segment(4100, 1),
    };
    let path = archive.index_beside(name).unwrap();
    let mut index = Index::load(archive.storage(), &path, size()).unwrap();
    assert!(index.insert_file(name, FileFacts::of(&bytes)));
    index.save(archive.storage(), &path).unwrap();
    let stored = match suffix.is_empty() {
        true => bytes.clone().into(),
        false => {
            let len = bytes.len() as u64;
            object::encode(Compression::default(), &mut &bytes[..], len, "test", &mut |_| Ok(())).unwrap()
        }
    };
    archive.storage().put(&format!("{}{suffix}", archive.path(name).unwrap()), stored).unwrap();
}

fn history(timeline: u32, left: u64) -> (String, String) {
    let line = |parent: u32, left: u64| {
        format!("{parent}\t{}\tno recovery target specified\n", Lsn(size().start_of(left).0 + 96))
    };
    let text = match timeline {
        2 => line(1, left),
        _ => line(1, 4100) + &line(2, left),
    };
    (format!("{timeline:08X}.history"), text)
}

/// Whether `path` is below the folder of a backup.
pub(super) fn below(tree: &BTreeMap<String, Vec<u8>>, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = format!("{}/", folder.file_name().unwrap().to_string_lossy());
    tree.iter().filter(|(path, _)| path.contains(&name)).map(|(a, b)| (a.clone(), b.clone())).collect()
}
