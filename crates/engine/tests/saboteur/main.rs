//! What if the store fails at the n-th call? For every n: nothing false is complete, nothing true is lost, and the next
//! attempt works.

mod prune;
mod scene;
mod sweep;

use pg_ark_contract::conversation::{Event, Level, Phase};
use pg_ark_contract::rows::{ArchiveRow, BackupStatus, FindingRow, Severity};
use pg_ark_contract::{ErrorKind, Result};
use pg_ark_engine::jobs;
use pg_ark_engine::repository::{Cluster, Repository};
use pg_ark_engine::restore::{self, ConfigChoice, watch::Silent};
use pg_ark_engine::session::Session;
use pg_ark_engine::verify::{self, Depth};
use pg_ark_engine::wal::get::{self, Answer};
use scene::{Original, Scene};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use sweep::{READING, WRITING, sweep};

fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(Original::new)
}

fn nothing(_: &Scene) {}

fn validate(cluster: &Cluster, backup: Option<&str>) -> Result<Vec<FindingRow>> {
    let request = verify::Request { backup: backup.map(ToString::to_string), level: Level::Data, jobs: 1 };
    verify::validate(cluster, &request, &Session::new(|_| ()))
}

/// Restores into `target`, which must not be there.
fn restore(cluster: &Cluster, backup: &str, target: &Path) -> Result<()> {
    let request = restore::Request {
        backup: backup.to_string(),
        pgdata: target.to_path_buf(),
        config: ConfigChoice::Skip,
        jobs: 1,
        // Nothing is started: any program that the server's user can run will do.
        program: Some("/bin/true".into()),
        ..restore::Request::default()
    };
    let prepared = restore::prepare(cluster, &request)?;
    restore::run(cluster.storage(), &prepared, &Silent).map(drop)
}

/// Fails unless the folder holds what the data directory does.
#[track_caller]
fn assert_restored(target: &Path, case: &str) {
    for part in ["base", "global", "pg_xact"] {
        for entry in walkdir::WalkDir::new(original().data().join(part)).into_iter().flatten() {
            if !entry.file_type().is_file() || entry.file_name().to_string_lossy().contains("internal.init") {
                continue;
            }
            let below = entry.path().strip_prefix(original().data()).unwrap();
            let found = fs::read(target.join(below)).unwrap_or_else(|e| panic!("{case}: {below:?}: {e}"));
            assert!(found == fs::read(entry.path()).unwrap(), "{case}: {below:?} differs");
        }
    }
}

/// Fails unless every backup that the list calls complete is whole, the earlier one among them; returns how many.
#[track_caller]
fn assert_sound(scene: &Scene, case: &str) -> usize {
    let cluster = scene.cluster();
    let mut complete = Vec::new();
    for record in cluster.backups().unwrap_or_else(|e| panic!("{case}: {e}")) {
        assert!(record.unreadable.is_none(), "{case}: {:?}", record.unreadable);
        match record.status {
            BackupStatus::Complete => complete.push(record.backup),
            BackupStatus::Failed => {}
            BackupStatus::Running => panic!("{case}: {} runs for ever", record.backup),
        }
    }
    assert!(complete.contains(&original().backup), "{case}: the earlier backup is lost");
    for backup in &complete {
        let rows = validate(&cluster, Some(backup)).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert!(rows.is_empty(), "{case}: {backup}: {rows:?}");
        if *backup != original().backup {
            let target = scene.dir.path().join(format!("proof of {backup}"));
            let _ = fs::remove_dir_all(&target);
            restore(&cluster, backup, &target).unwrap_or_else(|e| panic!("{case}: {e:?}"));
            assert_restored(&target, case);
        }
    }
    for segment in &original().segments {
        assert_eq!(segment_of(scene, segment, "proof").ok(), Some(Answer::Delivered), "{case}: {segment}");
        assert_is_segment(scene, segment, "proof", case);
    }
    complete.len()
}

fn judge_backup(scene: &Scene, result: Result<String>, case: &str) {
    let complete = assert_sound(scene, case);
    if result.is_ok() {
        assert_eq!(complete, 2, "{case}");
    }
    // The next attempt works, and clears up what this one left.
    let next = original().back_up(scene.sound(), true).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
    assert_eq!(assert_sound(scene, case), complete + 1, "{case}");
    assert_clean(scene, case);
    assert_ne!(next, original().backup);
}

/// Fails when something lies in the folder of a failed backup, or a lease is left.
#[track_caller]
fn assert_clean(scene: &Scene, case: &str) {
    let cluster = scene.cluster();
    for record in cluster.backups().unwrap() {
        let folder = scene.folder.join(cluster.backup_folder(original().system(), &record.backup));
        if record.status == BackupStatus::Failed {
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{case}: in {folder:?}");
        }
    }
    let beside = fs::read_dir(scene.folder.join(format!("main/{}", original().system()))).unwrap().flatten();
    let leases: Vec<_> =
        beside.filter(|e| e.file_name().to_string_lossy().starts_with("lease.json")).collect();
    // Half a ticket of a writer that died is ignored, and swept when it is old.
    assert!(leases.iter().all(|e| e.file_name().to_string_lossy().contains('#')), "{case}: {leases:?}");
}

#[test]
fn backups_with_their_wal() {
    let work = |scene: &Scene| original().back_up(scene.sabotaged(), true);
    sweep(original(), &WRITING, &nothing, &work, &judge_backup);
}

#[test]
fn backups_whose_wal_is_archived() {
    let work = |scene: &Scene| original().back_up(scene.sabotaged(), false);
    sweep(original(), &WRITING[..2], &nothing, &work, &judge_backup);
}

#[test]
fn a_backup_whose_lease_is_lost_at_the_last_moment_is_not_complete() {
    let scene = original().scene();
    let folder = scene.folder.join(format!("main/{}", original().system()));
    let lose = move |event: Event| {
        let Event::Progress { phase: Phase::Finish, .. } = event else { return };
        // Somebody took it for dead.
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("lease.json") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    };
    let error = original().back_up_telling(scene.sound(), true, lose).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy, "{error}");
    assert!(error.message.contains("was lost"), "{error}");
    assert_eq!(assert_sound(&scene, "its lease was lost"), 1);
    assert_clean(&scene, "its lease was lost");
    original().back_up(scene.sound(), true).unwrap();
    assert_eq!(assert_sound(&scene, "after that"), 2);
}

/// A writer that died leaves a record that says `running`, objects, and nobody who holds the lease.
fn leave_a_dead_writer(scene: &Scene) {
    let cluster = scene.cluster();
    let backup = "20200101T000000Z-full";
    let folder = cluster.backup_folder(original().system(), backup);
    let (mut record, from) = cluster.backup(&original().backup).unwrap();
    record.backup = backup.to_string();
    record.status = BackupStatus::Running;
    record.finished_at = None;
    record.save(cluster.storage(), &folder).unwrap();
    for name in ["base.tar.zst", "backup_manifest"] {
        fs::copy(scene.folder.join(&from).join(name), scene.folder.join(&folder).join(name)).unwrap();
    }
    fs::write(scene.folder.join(&folder).join("pg_wal.tar.zst#1"), b"half").unwrap();
}

#[test]
fn clearing_up_after_a_dead_writer() {
    let abandon = |scene: &Scene| jobs::abandon(&scene.sabotaged_cluster()?, None, "it died");
    let judge = |scene: &Scene, result: Result<()>, case: &str| {
        if result.is_err() {
            assert_eq!(assert_sound(scene, case), 1, "{case}");
            jobs::abandon(&scene.cluster(), None, "again").unwrap_or_else(|e| panic!("{case}, then {e:?}"));
        }
        assert_eq!(assert_sound(scene, case), 1, "{case}");
        // What an interrupted clearing left, the next backup removes.
        original().back_up(scene.sound(), true).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
        assert_clean(scene, case);
    };
    sweep(original(), &WRITING, &leave_a_dead_writer, &abandon, &judge);
    // A backup clears up too, before it begins.
    let work = |scene: &Scene| original().back_up(scene.sabotaged(), true);
    sweep(original(), &WRITING[..1], &leave_a_dead_writer, &work, &judge_backup);
}

fn remove_last_segments(scene: &Scene) {
    let wal = scene.folder.join(format!("main/{}/wal", original().system()));
    fs::remove_dir_all(wal.join("00000001")).unwrap();
}

fn is_stored(scene: &Scene, segment: &str) -> bool {
    scene_archive(scene).find(segment).unwrap().is_some()
}

fn scene_archive(scene: &Scene) -> pg_ark_engine::wal::Archive {
    pg_ark_engine::wal::Archive::of(&scene.cluster(), original().system())
}

#[test]
fn pushing_wal() {
    let [first, second, ..] = &original().segments[..] else { panic!("segments") };
    let work = |scene: &Scene| {
        original().push(scene.sabotaged(), first)?;
        original().push(scene.sabotaged(), second)
    };
    let judge = |scene: &Scene, result: Result<()>, case: &str| {
        let stored = |segment: &str| {
            let there = is_stored(scene, segment);
            if there {
                assert_eq!(segment_of(scene, segment, "stored").ok(), Some(Answer::Delivered), "{case}");
                assert_is_segment(scene, segment, "stored", case);
            }
            there
        };
        let there = (stored(first), stored(second));
        if result.is_ok() {
            assert_eq!(there, (true, true), "{case}: told as archived, and not there");
        }
        assert!(there.0 || !there.1, "{case}: a gap");
        for segment in &original().segments {
            original().push(scene.sound(), segment).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
        }
        assert_eq!(assert_sound(scene, case), 1);
    };
    sweep(original(), &WRITING, &remove_last_segments, &work, &judge);
}

fn get_with(
    scene: &Scene,
    name: &str,
    to: &str,
    open: &(dyn Fn() -> Result<(String, Cluster)> + Sync),
) -> Result<Answer> {
    let destination = scene.dir.path().join(to);
    let _ = fs::remove_file(&destination);
    get::get(&get::Request {
        data: scene.dir.path().to_path_buf(),
        name,
        destination,
        system_identifier: Some(original().system()),
        spool: None,
        spool_bytes: 0,
        jobs: 1,
        origin: Vec::new(),
        open,
        start: &|| (),
    })
}

/// Fetches a WAL file from the sound repository.
fn segment_of(scene: &Scene, name: &str, to: &str) -> Result<Answer> {
    get_with(scene, name, to, &|| {
        let repository = Repository::on(scene.sound())?;
        Ok((repository.id().to_string(), repository.cluster("main")?))
    })
}

#[track_caller]
fn assert_is_segment(scene: &Scene, name: &str, to: &str, case: &str) {
    let content = fs::read(original().data().join("pg_wal").join(name)).unwrap();
    assert!(fs::read(scene.dir.path().join(to)).unwrap() == content, "{case}: {name} differs");
}

#[test]
fn getting_wal() {
    let [first, .., last] = &original().segments[..] else { panic!("segments") };
    let after = format!("00000001{:08X}{:08X}", 0, u32::from_str_radix(&last[16..], 16).unwrap() + 1);
    for (name, right) in [
        (first, Answer::Delivered),
        (last, Answer::Delivered),
        (&after, Answer::Absent),
        (&"00000002.history".to_string(), Answer::Absent),
    ] {
        let open = |scene: &Scene| {
            let repository = Repository::on(scene.sabotaged())?;
            Ok((repository.id().to_string(), repository.cluster("main")?))
        };
        let work = |scene: &Scene| get_with(scene, name, "got", &|| open(scene));
        let judge = |scene: &Scene, result: Result<Answer>, case: &str| {
            match result {
                Ok(answer) => assert_eq!(answer, right, "{case}: {name}"),
                Err(e) => assert!(e.kind.wal_get_exit_code() > 125, "{case}: {name}: {e}"),
            }
            if right == Answer::Delivered {
                let there = scene.dir.path().join("got").exists();
                if there {
                    assert_is_segment(scene, name, "got", case);
                }
            }
            assert_eq!(segment_of(scene, name, "again").ok(), Some(right), "{case}: {name}");
        };
        sweep(original(), &READING, &nothing, &work, &judge);
    }
}

#[test]
fn restoring() {
    let work =
        |scene: &Scene| restore(&scene.sabotaged_cluster()?, "latest", &scene.dir.path().join("restored"));
    let judge = |scene: &Scene, result: Result<()>, case: &str| {
        let target = scene.dir.path().join("restored");
        match result {
            Ok(()) => assert_restored(&target, case),
            Err(_) => {
                assert!(!target.join("global/pg_control").exists(), "{case}: a server would start from it");
                let _ = fs::remove_dir_all(&target);
                restore(&scene.cluster(), "latest", &target).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
                assert_restored(&target, case);
            }
        }
    };
    sweep(original(), &READING, &nothing, &work, &judge);
}

#[test]
fn listing() {
    let work = |scene: &Scene| scene.sabotaged_cluster()?.backups();
    let judge = |_: &Scene, result: Result<Vec<pg_ark_engine::repository::Record>>, case: &str| {
        let Ok(records) = result else { return };
        let [one] = &records[..] else { panic!("{case}: {} backups", records.len()) };
        assert_eq!(one.backup, original().backup, "{case}");
        // What cannot be read is told with its reason.
        let told = one.unreadable.as_ref().is_some_and(|why| why.to_string().contains("Input/output error"));
        assert!(told || one.status == BackupStatus::Complete, "{case}: {one:?}");
    };
    sweep(original(), &READING, &nothing, &work, &judge);
}

#[test]
fn verifying() {
    let work = |scene: &Scene| validate(&scene.sabotaged_cluster()?, None);
    // Whole: a fault of the store is no damage.
    let whole = |scene: &Scene, result: Result<Vec<FindingRow>>, case: &str| {
        if case == "nothing was struck" {
            assert_eq!(result.unwrap(), [], "{case}");
        } else if let Ok(rows) = &result {
            let told = rows.iter().any(|row| row.finding.contains("Input/output error"));
            assert!(rows.is_empty() || told, "{case}: {rows:?}");
        }
        assert_eq!(assert_sound(scene, case), 1);
    };
    sweep(original(), &READING, &nothing, &work, &whole);
    // Damaged: no fault of the store hides that.
    let damage = |scene: &Scene| {
        let cluster = scene.cluster();
        let folder = cluster.backup_folder(original().system(), &original().backup);
        let object = scene.folder.join(folder).join("base.tar.zst");
        let mut bytes = fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(object, bytes).unwrap();
    };
    let damaged = |_: &Scene, result: Result<Vec<FindingRow>>, case: &str| {
        if let Ok(rows) = result {
            assert!(rows.iter().any(|row| row.severity == Severity::Error), "{case}: all is said to be well");
        }
    };
    sweep(original(), &READING, &damage, &work, &damaged);
}

#[test]
fn looking_at_the_archive() {
    let session = || Session::new(|_| ());
    let rows = |cluster: Cluster, depth| verify::archive_rows(&cluster, None, depth, &session());
    for deep in [false, true] {
        let depth = || if deep { Depth::Everything(1) } else { Depth::Names };
        let right = rows(original().scene().cluster(), depth()).unwrap();
        let work = |scene: &Scene| rows(scene.sabotaged_cluster()?, depth());
        let judge = |_: &Scene, result: Result<Vec<ArchiveRow>>, case: &str| match result {
            // What cannot be read is told with its reason; what can be read is as it was.
            Ok(rows) if rows != right => assert!(
                rows.iter().any(|row| row.detail.as_ref().is_some_and(|d| d.contains("Input/output error"))),
                "{case}: {rows:?}"
            ),
            Ok(_) => {}
            Err(e) => assert_ne!(e.kind, ErrorKind::Corrupt, "{case}: a fault is no damage"),
        };
        sweep(original(), &READING, &nothing, &work, &judge);
    }
    let right = verify::windows_of(&original().scene().cluster(), None, &session()).unwrap();
    let work = |scene: &Scene| verify::windows_of(&scene.sabotaged_cluster()?, None, &session());
    let judge = |_: &Scene, result: Result<verify::Windows>, case: &str| {
        if let Ok(found) = result {
            let told = found.remarks.iter().any(|remark| remark.contains("Input/output error"));
            assert!(told || found.rows == right.rows, "{case}: {found:?}");
        }
    };
    sweep(original(), &READING, &nothing, &work, &judge);
}
