use super::*;
use crate::repository::layout;
use crate::retention::policy_store;

/// A repository whose cluster `main` has had these systems, and the job to do `task` there.
#[allow(clippy::type_complexity)] // What each test works with.
fn place(systems: &[u64]) -> (tempfile::TempDir, Cluster, impl Fn(Task) -> (Result<Answer>, Vec<String>)) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let (repository, _) = Repository::open_or_create(&url).unwrap();
    let mut cluster = repository.cluster("main").unwrap();
    systems.iter().for_each(|system| cluster.remember_system(*system, 150_000).unwrap());
    let ask = move |task| {
        let (repository, cluster) = (url.clone(), "main".to_string());
        let job = Job { version: VERSION.into(), parent_pid: 1, repository, cluster, known: false, task };
        let session = Session::new(|_| ());
        (run(&job, &session), session.warnings())
    };
    (dir, cluster, ask)
}

fn prune(system_identifier: Option<u64>, apply: bool) -> Task {
    Task::Prune { policy: Policy::default(), apply, system_identifier }
}

#[test]
fn a_prune_of_a_server_that_is_not_the_clusters_newest_is_refused_and_leaves_no_rules() {
    let (_dir, cluster, ask) = place(&[7, 8]);
    for system in [7, 9] {
        let error = ask(prune(Some(system), true)).0.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ForeignCluster, "{error}");
        assert!(ask(prune(Some(system), false)).0.is_ok(), "to look is allowed");
        assert_eq!(policy_store::load(&cluster).unwrap(), None);
    }
    let (answer, warnings) = ask(prune(Some(8), true));
    assert_eq!((answer.unwrap(), warnings.len()), (Answer::Pruned(Vec::new()), 0));
    assert!(policy_store::load(&cluster).unwrap().is_some());
}

#[test]
fn a_prune_whose_rules_cannot_be_written_down_has_still_done_its_work() {
    let (dir, cluster, ask) = place(&[7]);
    let path = layout::retention(cluster.name());
    std::fs::create_dir_all(dir.path().join(&path).join("in the way")).unwrap();
    let (answer, warnings) = ask(prune(Some(7), true));
    assert_eq!(answer.unwrap(), Answer::Pruned(Vec::new()));
    assert!(matches!(&warnings[..], [one] if one.contains("were not written down")), "{warnings:?}");
}

#[test]
fn opening_checking_and_status_tell_whose_the_cluster_is() {
    let (dir, _, ask) = place(&[7, 8]);
    let data_directory = dir.path().join("data").display().to_string();
    for (system, status) in [(7, CheckStatus::Error), (8, CheckStatus::Ok), (9, CheckStatus::Warning)] {
        let system_identifier = Some(system);
        let opened = ask(Task::Open { data_directory: "/nowhere".into(), system_identifier }).0.unwrap();
        let Answer::Opened { foreign, .. } = opened else { panic!("{opened:?}") };
        assert_eq!(foreign.is_some(), status != CheckStatus::Ok, "{system}");
        let data_directory = data_directory.clone();
        let Ok(Answer::Checks(rows)) = ask(Task::Check { data_directory, system_identifier }).0 else {
            panic!("no checks")
        };
        let row = rows.iter().find(|row| row.item == "cluster").unwrap();
        assert_eq!(row.status, status, "{}", row.detail);
        let (jobs, missed_runs) = (Vec::new(), Default::default());
        let Ok(Answer::Status(row)) = ask(Task::Status { system_identifier, jobs, missed_runs }).0 else {
            panic!("no status")
        };
        assert_eq!(row.foreign.is_some(), status == CheckStatus::Error, "{system}");
    }
}
