//! A prune by the rules of a policy that is struck at every call: what is kept can be restored at every stop, and the next
//! prune ends the work.

use crate::scene::{Original, Scene};
use crate::sweep::{WRITING, sweep};
use crate::{nothing, restore, validate};
use chrono::{DateTime, TimeDelta, Utc};
use pg_ark_contract::Result;
use pg_ark_contract::retention::{Policy, PruneRow, Verdict};
use pg_ark_contract::rows::{BackupStatus, Severity};
use pg_ark_engine::repository::{Cluster, Storage};
use pg_ark_engine::retention;
use pg_ark_engine::session::Session;
use std::fs;
use std::sync::OnceLock;

/// Three backups, the newest without WAL of its own, and older WAL that none of them needs.
fn original() -> &'static (Original, String) {
    static ORIGINAL: OnceLock<(Original, String)> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let original = Original::new();
        let storage = || Storage::open(&crate::scene::url(&original.repository())).unwrap();
        let pg_wal = fs::read_dir(original.data().join("pg_wal")).unwrap().flatten();
        let mut older: Vec<String> = pg_wal
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|n| n.len() == 24)
            .collect();
        older.retain(|name| *name < original.segments[0]);
        older.sort();
        older.iter().for_each(|name| original.push(storage(), name).unwrap());
        original.back_up(storage(), true).unwrap();
        let newest = original.back_up(storage(), false).unwrap();
        pg_ark_testkit::chown_tree_to_server(&original.repository());
        (original, newest)
    })
}

/// When nothing is inside the window any more, and clocks did not jump.
fn later() -> DateTime<Utc> {
    static NOW: OnceLock<DateTime<Utc>> = OnceLock::new();
    *NOW.get_or_init(|| Utc::now() + TimeDelta::hours(20))
}

fn prune(cluster: &Cluster) -> Result<Vec<PruneRow>> {
    let policy = Policy { window: 3600, min_full: 1, ..Policy::default() };
    retention::prune_at(cluster, &policy, true, later(), &Session::new(|_| ()))
}

/// Fails unless every complete backup is whole, and the newest can be restored.
#[track_caller]
fn assert_kept(scene: &Scene, case: &str) {
    let newest = &original().1;
    let cluster = scene.cluster();
    let records = cluster.backups().unwrap_or_else(|e| panic!("{case}: {e}"));
    let complete = records.iter().filter(|record| record.status == BackupStatus::Complete);
    let complete: Vec<&str> = complete.map(|record| &record.backup[..]).collect();
    assert!(complete.contains(&&newest[..]), "{case}: {complete:?}");
    for backup in complete {
        let rows = validate(&cluster, Some(backup)).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert!(rows.is_empty(), "{case}: {backup}: {rows:?}");
    }
    let target = scene.dir.path().join("kept");
    let _ = fs::remove_dir_all(&target);
    restore(&cluster, "latest", &target).unwrap_or_else(|e| panic!("{case}: {e:?}"));
    assert!(target.join("global/pg_control").exists(), "{case}");
    let errors = validate(&cluster, None).unwrap_or_else(|e| panic!("{case}: {e}"));
    let errors: Vec<_> = errors.iter().filter(|row| row.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{case}: {errors:?}");
}

#[test]
fn promise_4_a_prune_that_is_struck_anywhere_leaves_what_it_keeps_restorable() {
    let (original, newest) = original();
    let work = |scene: &Scene| prune(&scene.sabotaged_cluster()?);
    let judge = |scene: &Scene, result: Result<Vec<PruneRow>>, case: &str| {
        assert_kept(scene, case);
        // A record that the store did not give once holds more back.
        if let (Ok(rows), "nothing was struck") = (&result, case) {
            let dropped =
                |kind: &str| rows.iter().any(|row| row.kind.as_str() == kind && row.verdict == Verdict::Drop);
            assert!(dropped("backup") && dropped("wal"), "{case}: {rows:#?}");
        }
        prune(&scene.cluster()).unwrap_or_else(|e| panic!("{case}, then {e:?}"));
        let left: Vec<String> =
            scene.cluster().backups().unwrap().into_iter().map(|record| record.backup).collect();
        assert_eq!(&left, std::slice::from_ref(newest), "{case}");
        let backups = scene.folder.join(format!("main/{}/backups", original.system()));
        assert_eq!(fs::read_dir(backups).unwrap().count(), 1, "{case}");
        assert_kept(scene, case);
    };
    sweep(original, &WRITING, &nothing, &work, &judge);
}
