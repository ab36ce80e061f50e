//! Readers of a repository's own objects: each is put into a small repository and read as the programs do.

use super::formats::assert_showable;
use super::samples::{BACKUP, SYSTEM, golden};
use pg_ark_contract::SegmentSize;
use pg_ark_contract::schedule::{JobKind, JobSpec, MissedRuns, RunId, RunOutcome};
use pg_ark_engine::codec::frame::{MAX_FRAME, MAX_STORED_FRAME};
use pg_ark_engine::repository::record::{ArchiveRecord, ObjectRecord};
use pg_ark_engine::repository::{Record, Repository, Storage, lease as leases};
use pg_ark_engine::retention;
use pg_ark_engine::retention::model::Stored;
use pg_ark_engine::retention::policy_store::StoredPolicy;
use pg_ark_engine::schedule;
use pg_ark_engine::stored::index::{self as archive_indexes, FilePlace};
use pg_ark_engine::wal::index::Index;
use pg_ark_engine::wal::survey::Look;
use pg_ark_engine::wal::{Archive, Pruned};
use std::path::{Path, PathBuf};

/// A repository of one backup whose objects are replaced one by one.
struct Place {
    folder: tempfile::TempDir,
}

thread_local! {
    static PLACE: Place = Place::new();
}

impl Place {
    /// In memory, where the system has such a place.
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = match tempfile::tempdir_in(memory) {
            Ok(folder) => folder,
            Err(_) => tempfile::tempdir().unwrap(),
        };
        let place = Place { folder };
        for name in ["pgark.json", "main/cluster.json"] {
            place.write(name, &golden(name));
        }
        place.write(&place.backup("backup.json"), &golden("backup.json"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn backup(&self, name: &str) -> String {
        format!("main/{SYSTEM}/backups/{BACKUP}/{name}")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    fn storage(&self) -> Storage {
        Storage::open(&self.url()).unwrap()
    }

    /// Reads all records as a listing does.
    fn list(&self) -> Option<Vec<Record>> {
        let repository = Repository::open(&self.url()).inspect_err(assert_showable).ok()?;
        let _ = repository.clusters().inspect_err(assert_showable);
        let cluster = repository.cluster("main").inspect_err(assert_showable).ok()?;
        let _ = cluster.backup(BACKUP).inspect_err(assert_showable);
        cluster.backups().inspect_err(assert_showable).ok()
    }
}

/// `backup.json`.
pub fn record(bytes: &[u8]) {
    PLACE.with(|place| {
        let name = place.backup("backup.json");
        place.write(&name, bytes);
        let records = place.list();
        place.write(&name, &golden("backup.json"));
        for record in records.expect("a damaged record hides nothing") {
            let row = record.row();
            assert_eq!(row.backup, BACKUP, "a record tells no other backup's name");
            if let Some(why) = &record.unreadable {
                assert_showable(why);
                continue;
            }
            // It can be written again, and says the same then.
            record.save(&place.storage(), "again/20261122T140921Z-full").unwrap();
            let again = Record::load(&place.storage(), "again/20261122T140921Z-full").unwrap().unwrap();
            assert_eq!(
                again.row(),
                Record { status: again.status, error: again.error.clone(), ..record }.row()
            );
        }
    });
}

/// `pgark.json`.
pub fn repository_record(bytes: &[u8]) {
    replaced("pgark.json", bytes);
}

/// `cluster.json`.
pub fn cluster_record(bytes: &[u8]) {
    replaced("main/cluster.json", bytes);
}

fn replaced(name: &str, bytes: &[u8]) {
    PLACE.with(|place| {
        place.write(name, bytes);
        let _ = place.list();
        place.write(name, &golden(name));
    });
}

/// `lease.json`, while a backup's record says that it runs.
pub fn lease(bytes: &[u8]) {
    PLACE.with(|place| {
        let running =
            String::from_utf8(golden("backup.json")).unwrap().replace("\"complete\"", "\"running\"");
        place.write(&place.backup("backup.json"), running.as_bytes());
        let path = format!("main/{SYSTEM}/lease.json");
        place.write(&path, bytes);
        let _ = place.list();
        let _ = leases::read(&place.storage(), &path).inspect_err(assert_showable);
        let cluster =
            Repository::open(&place.url()).and_then(|repository| repository.cluster("main")).unwrap();
        let _ = cluster.release_dead_leases().inspect_err(assert_showable);
        let _ = std::fs::remove_file(place.path(&path));
        place.write(&place.backup("backup.json"), &golden("backup.json"));
    });
}

/// The object of an attempt at a job.
pub fn run_record(bytes: &[u8]) {
    let (system, name) = (SYSTEM.parse().unwrap(), "20261122T020000Z.1.json");
    let job = JobSpec {
        name: "daily".into(),
        kind: JobKind::Full,
        cron: "0 2 * * *".into(),
        timezone: "UTC".into(),
        enabled: true,
        since: "2026-11-20T00:00:00Z".into(),
        time_limit: 3600,
        label: None,
        level: None,
        deep: false,
        logical: Default::default(),
    };
    PLACE.with(|place| {
        place.write(&format!("main/{SYSTEM}/jobs/daily/{name}"), bytes);
        let cluster = Repository::open(&place.url()).unwrap().cluster("main").unwrap();
        let now = "2026-11-22T02:30:00Z".parse().unwrap();
        let agenda = schedule::agenda(Ok(cluster.clone()), system, &[job], MissedRuns::Once, now);
        assert!(
            agenda.error.is_none() && agenda.jobs.iter().all(|state| state.error.is_none()),
            "{agenda:?}"
        );
        for row in agenda.jobs.into_iter().flat_map(|state| state.running.into_iter().chain(state.last_run)) {
            assert_eq!(
                (&row.id.job[..], &row.id.due_at[..], row.id.attempt),
                ("daily", "2026-11-22T02:00:00Z", 1)
            );
        }
        let rows = schedule::runs(&cluster, Some(system), None, 10).unwrap();
        assert!(rows.len() <= 1);
        let outcome = RunOutcome { backup: None, result: None, error: None };
        let run = RunId { job: "daily".into(), due_at: "2026-11-22T02:00:00Z".into(), attempt: 1 };
        match schedule::end(&cluster, system, &run, &outcome) {
            // It can be written again.
            Ok(()) => assert_eq!(schedule::runs(&cluster, Some(system), None, 10).unwrap().len(), 1),
            Err(error) => assert_showable(&error),
        }
        let _ = std::fs::remove_dir_all(place.path(&format!("main/{SYSTEM}/jobs")));
    });
}

/// The index of an archive, with a record that fits it.
pub fn archive_index(bytes: &[u8]) {
    PLACE.with(|place| {
        place.write("index/base.tar.zst.index", bytes);
        let record: Record = serde_json::from_slice(&golden("backup.json")).unwrap();
        let base = record.archives.iter().find(|archive| archive.name == "base.tar.zst").unwrap();
        let crc32c = format!("{:08x}", crc32c::crc32c(bytes));
        let index = ObjectRecord { name: "base.tar.zst.index".into(), size: bytes.len() as u64, crc32c };
        let archive = ArchiveRecord { index: Some(index), ..base.clone() };
        let mut files = 0;
        let mut on_file = |place: FilePlace| {
            files += place.file.len();
            Ok(())
        };
        let loaded =
            archive_indexes::load_files(&place.storage(), "index", &archive, Some(&mut on_file)).unwrap();
        assert!(files <= 3 * bytes.len());
        let frames = match loaded {
            Ok(frames) => frames,
            Err(why) => {
                assert!(!why.contains(char::is_control) && why.len() < 1000, "unescaped: {why:?}");
                return;
            }
        };
        let mut at = 0;
        for frame in &frames {
            assert!(frame.raw as usize <= MAX_FRAME && frame.stored as usize <= MAX_STORED_FRAME);
            assert_eq!((frame.volume, frame.offset), (0, at));
            at += u64::from(frame.stored);
        }
        assert_eq!(at, archive.volumes[0].size);
        assert_eq!(frames.iter().map(|frame| u64::from(frame.raw)).sum::<u64>(), archive.tar_bytes);
    });
}

/// The index of a folder of the archive.
pub fn wal_index(bytes: &[u8]) {
    PLACE.with(|place| {
        for log in ["00000000", "FFFFFFFF"] {
            let path = format!("main/{SYSTEM}/wal/00000001/{log}/index.jsonl");
            place.write(&path, bytes);
            let (storage, size) = (place.storage(), SegmentSize::new(1 << 20).unwrap());
            let index = Index::load(&storage, &path, size).inspect_err(assert_showable);
            if let Ok(index) = index {
                index.save(&storage, &path).unwrap();
                let again = Index::load(&storage, &path, size).unwrap();
                assert!(again.iter().eq(index.iter()), "{index:?} {again:?}");
                assert!(again.files().eq(index.files()), "{index:?} {again:?}");
                for told in index.problems().0 {
                    assert!(!told.contains(char::is_control) && told.len() < 1000, "unescaped: {told:?}");
                }
            }
            let _ = std::fs::remove_dir_all(place.path(&format!("main/{SYSTEM}/wal")));
        }
    });
}

/// A pin: whatever it holds, its backup is pinned.
pub fn pin(bytes: &[u8]) {
    PLACE.with(|place| {
        let path = format!("main/{SYSTEM}/pins/{BACKUP}.json");
        place.write(&path, bytes);
        let records = place.list().expect("a damaged pin hides nothing");
        assert!(records.iter().all(|record| record.pinned), "{records:?}");
        let cluster = Repository::open(&place.url()).unwrap().cluster("main").unwrap();
        let stored = retention::gather::gather(&cluster, &|| Ok(())).unwrap();
        assert!(stored.backups.iter().all(|backup| backup.pinned.is_some()), "{stored:?}");
        assert!(retention::unpin(&cluster, BACKUP).unwrap());
        assert!(place.list().unwrap().iter().all(|record| !record.pinned));
    });
}

/// What retention removed.
pub fn pruned(bytes: &[u8]) {
    let size = SegmentSize::new(1 << 20).unwrap();
    if let Ok(pruned) = Pruned::parse(bytes, "pruned.json", size).inspect_err(assert_showable) {
        for (timeline, runs) in &pruned.segments {
            let first = runs.first().expect("no timeline without runs");
            assert!(first.first <= first.last && pruned.holds(*timeline, first.last), "{pruned:?}");
        }
    }
    PLACE.with(|place| {
        place.write(&format!("main/{SYSTEM}/wal/pruned.json"), bytes);
        let cluster = Repository::open(&place.url()).unwrap().cluster("main").unwrap();
        let archive = Archive::of(&cluster, SYSTEM.parse().unwrap());
        let look = Look::take(&archive, &|| Ok(())).expect("it hinders nobody");
        look.pruned.iter().for_each(assert_showable);
        // Without it nobody knows what to note: nothing is removed then.
        let _ = retention::gather::gather(&cluster, &|| Ok(())).inspect_err(assert_showable);
        let _ = std::fs::remove_dir_all(place.path(&format!("main/{SYSTEM}/wal")));
    });
}

/// What a server keeps.
pub fn retention_policy(bytes: &[u8]) {
    let read = StoredPolicy::parse(bytes, "retention.json").inspect_err(assert_showable);
    let Ok(stored) = read else { return };
    // Whatever it asks for, a plan is made, or refused with a reason.
    let now = stored.pruned_at;
    let _ = retention::plan::plan(&Stored::default(), &stored.policy, now).inspect_err(assert_showable);
}
