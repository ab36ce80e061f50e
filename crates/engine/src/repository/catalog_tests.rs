//! Tests of the catalog: what is found, what is damaged, and what must hide nothing else.

use super::*;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as Answer,
};
use std::sync::Arc;

#[test]
fn a_repository_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a/b", dir.path().display());
    assert_eq!(Repository::open(&url).unwrap_err().kind, ErrorKind::RepositoryNotFound);
    let (first, created) = Repository::open_or_create(&url).unwrap();
    assert!(created);
    let (second, created) = Repository::open_or_create(&url).unwrap();
    assert!(!created);
    assert_eq!(first.id(), second.id());
    second.probe().unwrap();
    assert!(!second.cluster("main").unwrap().exists());
    assert!(second.cluster("../x").is_err());
}

#[test]
fn a_system_that_the_clusters_record_lost_is_found_by_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let (repository, _) = Repository::open_or_create(&url).unwrap();
    let mut cluster = repository.cluster("main").unwrap();
    cluster.remember_system(7, 150_018).unwrap();
    for folder in ["main/9/backups", "main/07", "main/notes", "old/11"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    assert_eq!(repository.cluster("main").unwrap().systems, [9, 7]);
    assert_eq!(repository.clusters().unwrap(), ["main", "old"]);
    let mut old = repository.cluster("old").unwrap();
    old.remember_system(11, 150_018).unwrap();
    assert!(dir.path().join("old/cluster.json").exists());
}

#[test]
fn records_are_sealed_and_keep_what_they_do_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let (repository, _) = Repository::open_or_create(&url).unwrap();
    let mut cluster = repository.cluster("main").unwrap();
    let seals = |cluster: &Cluster| cluster.seals().map(|(_, seal)| seal.unwrap());
    assert_eq!(seals(&cluster), [Some(Seal::Sealed), None]);
    let old = r#"{"format": 1, "new": 1, "systems": [{"system_identifier": "6", "server_version_num": 150000,
        "first_seen": "2026-11-22T02:00:00Z", "newer": 2}]}"#;
    let path = dir.path().join("main/cluster.json");
    repository.storage().put("main/cluster.json", old).unwrap();
    assert_eq!(seals(&cluster), [Some(Seal::Sealed), Some(Seal::Unsealed)]);
    cluster.remember_system(7, 150_018).unwrap();
    assert_eq!(seals(&cluster), [Some(Seal::Sealed); 2]);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"new\": 1") && text.contains("\"newer\": 2"), "{text}");
    for (file, other) in [("main/cluster.json", "150018"), ("pgark.json", "format\": 1")] {
        let path = dir.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(other, &other.replace('1', "3"))).unwrap();
        let error = match Repository::open(&url).and_then(|open| open.cluster("main")) {
            Ok(mut cluster) => {
                assert_eq!(cluster.remember_system(8, 150_018).unwrap_err().kind, ErrorKind::Corrupt);
                cluster.damage().cloned().unwrap()
            }
            Err(error) => error,
        };
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(error.message.contains(file) && error.hint.unwrap().contains("crc32c"));
        let damaged = cluster.seals().into_iter().filter(|(_, seal)| seal.is_err());
        assert_eq!(damaged.map(|(path, _)| path).collect::<Vec<_>>(), [file]);
        std::fs::write(&path, text).unwrap();
    }
}

fn copy_golden(to: &Path) -> Repository {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/zstd");
    for entry in walkdir::WalkDir::new(&golden).into_iter().filter_map(|e| e.ok()) {
        let target = to.join(entry.path().strip_prefix(&golden).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    Repository::open(&format!("file://{}", to.display())).unwrap()
}

#[test]
fn a_record_that_cannot_be_read_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let repository = copy_golden(dir.path());
    let cluster = repository.cluster("main").unwrap();
    let folder = cluster.backup_folder(cluster.systems()[0], "20260101T000000Z-full");
    for content in [&b"{\"format\": 1, \"backup\""[..], b"{\"format\": 2}"] {
        repository.storage().put(&format!("{folder}/backup.json"), content).unwrap();
        let backups = cluster.backups().unwrap();
        assert_eq!(backups.len(), 2);
        assert_eq!(backups[0].status, BackupStatus::Failed);
        assert!(backups[0].unreadable.is_some() && backups[0].error.is_some());
        assert_eq!(backups[0].started_at, "2026-01-01T00:00:00Z");
        assert_eq!(backups[1].status, BackupStatus::Complete);
        assert!(cluster.backup(&backups[0].backup).is_err());
    }
}

#[test]
fn a_copy_in_another_system_is_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let repository = copy_golden(dir.path());
    let system = repository.cluster("main").unwrap().systems()[0];
    let cluster = repository.cluster("main").unwrap();
    let name = cluster.backups().unwrap()[0].backup.clone();
    let (own, copy) = (cluster.backup_folder(system, &name), cluster.backup_folder(77, &name));
    let bytes = repository.storage().get(&format!("{own}/backup.json"), 1 << 20).unwrap().unwrap();
    repository.storage().put(&format!("{copy}/backup.json"), bytes.clone()).unwrap();
    let cluster = repository.cluster("main").unwrap().only_system(77).unwrap();
    let found = cluster.backups().unwrap();
    assert!(found.len() == 1 && found[0].unreadable.is_some() && found[0].system_identifier == "77");
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("  ,")).collect();
    let odd = lines.join("\n").replace(&format!("\"{system}\""), "\"x\"");
    repository.storage().put(&format!("{own}/backup.json"), odd).unwrap();
    let found = repository.cluster("main").unwrap().only_system(system).unwrap().backups().unwrap();
    assert_eq!(found.iter().filter(|record| record.unreadable.is_some()).count(), 1);
    assert_eq!(found.len(), 1);
}

#[test]
fn one_record_that_cannot_be_reached_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let repository = copy_golden(dir.path());
    let cluster = repository.cluster("main").unwrap();
    let folder = cluster.backup_folder(cluster.systems()[0], &cluster.backups().unwrap()[0].backup);
    let path = dir.path().join(folder).join("backup.json");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    let other = cluster.backup_folder(cluster.systems()[0], "20300101T000000Z-full");
    Record::begun("20300101T000000Z-full".into(), "main", cluster.systems()[0])
        .save(repository.storage(), &other)
        .unwrap();
    let found = cluster.backups().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found.iter().filter(|record| record.unreadable.is_some()).count(), 1);
}

#[test]
fn a_cluster_record_that_is_damaged_costs_its_order_alone() {
    let dir = tempfile::tempdir().unwrap();
    let repository = copy_golden(dir.path());
    let system = repository.cluster("main").unwrap().systems()[0];
    std::fs::create_dir_all(dir.path().join("main/9/backups")).unwrap();
    repository.storage().put("main/cluster.json", &b"{}"[..]).unwrap();
    let mut cluster = repository.cluster("main").unwrap();
    assert_eq!(cluster.systems(), [9, system]);
    assert_eq!(cluster.damage().unwrap().kind, ErrorKind::Corrupt);
    assert_eq!(cluster.backups().unwrap().len(), 1);
    let error = crate::restore::request::newest_system(&cluster).unwrap_err();
    assert!(error.hint.unwrap().contains("--system-identifier"));
    assert_eq!(cluster.remember_system(10, 150_018).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn a_repository_without_its_record_says_how_to_get_it_back() {
    let dir = tempfile::tempdir().unwrap();
    copy_golden(dir.path());
    let url = format!("file://{}", dir.path().display());
    std::fs::remove_file(dir.path().join(layout::REPOSITORY)).unwrap();
    for error in [Repository::open(&url).unwrap_err(), Repository::open_or_create(&url).unwrap_err()] {
        assert!(error.message.contains("pgark.json\" is missing"), "{error}");
        let (_, made) = error.hint.as_ref().and_then(|hint| hint.split_once("content: ")).unwrap();
        std::fs::write(dir.path().join(layout::REPOSITORY), made).unwrap();
        assert_eq!(Repository::open(&url).unwrap().cluster("main").unwrap().backups().unwrap().len(), 1);
        std::fs::remove_file(dir.path().join(layout::REPOSITORY)).unwrap();
    }
}

#[test]
fn two_servers_cannot_share_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let repository = copy_golden(dir.path());
    let mut cluster = repository.cluster("main").unwrap();
    let old = cluster.systems()[0];
    cluster.remember_system(7, 150_018).unwrap();
    cluster.remember_system(7, 150_018).unwrap();
    assert_eq!(cluster.remember_system(old, 150_018).unwrap_err().kind, ErrorKind::ForeignCluster);
    let name = cluster.backups().unwrap()[0].backup.clone();
    let copy = cluster.backup_folder(7, &name);
    let record = cluster.backup(&name).unwrap().0;
    record.save(repository.storage(), &copy).unwrap();
    assert_eq!(cluster.backup(&name).unwrap_err().kind, ErrorKind::InvalidArgument);
    assert!(cluster.clone().only_system(old).unwrap().backup(&name).is_ok());
    assert_eq!(cluster.only_system(8).unwrap_err().kind, ErrorKind::InvalidArgument);
}

#[test]
fn other_folders_and_newer_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    std::fs::write(dir.path().join("thesis.txt"), b"x").unwrap();
    assert_eq!(Repository::open_or_create(&url).unwrap_err().kind, ErrorKind::RepositoryUnusable);
    std::fs::write(dir.path().join(layout::REPOSITORY), br#"{"format": 2}"#).unwrap();
    assert_eq!(Repository::open_or_create(&url).unwrap_err().kind, ErrorKind::FormatTooNew);
    std::fs::write(dir.path().join(layout::REPOSITORY), b"nonsense").unwrap();
    assert_eq!(Repository::open(&url).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn inside_the_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pgdata = dir.path().join("data");
    std::fs::create_dir(&pgdata).unwrap();
    let url = format!("file://{}/x/y", pgdata.display());
    let storage = Storage::open(&url).unwrap();
    assert_eq!(refuse_inside(&storage, &pgdata).unwrap_err().kind, ErrorKind::RepositoryUnusable);
    let beside = Storage::open(&format!("file://{}/data2", dir.path().display())).unwrap();
    refuse_inside(&beside, &pgdata).unwrap();
}

/// What a writer that was killed left goes when it is old by the store's clock; what a living one writes stays.
#[test]
fn what_dead_writers_left_goes() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let (repository, _) = Repository::open_or_create(&url).unwrap();
    let mut cluster = repository.cluster("main").unwrap();
    cluster.remember_system(7, 150_018).unwrap();
    let other = tempfile::tempdir().unwrap();
    let log = "main/7/wal/00000001/00000000";
    let places = ["main", "main/7", "main/7/pins", "main/7/wal", "main/7/wal/00000001", log];
    std::fs::create_dir_all(dir.path().join(log)).unwrap();
    std::fs::create_dir_all(dir.path().join("main/7/pins")).unwrap();
    let link = dir.path().join("main/7/wal/00000002");
    std::os::unix::fs::symlink(other.path(), link).unwrap();
    let old = std::time::SystemTime::now() - STALE - Duration::from_secs(60);
    let write = |folder: &Path, name: &str, time: std::time::SystemTime| {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        file.set_modified(time).unwrap();
    };
    for folder in places {
        write(&dir.path().join(folder), "index.jsonl#1", old);
        write(&dir.path().join(folder), "index.jsonl", old);
        write(&dir.path().join(folder), "lease.json.x#2", std::time::SystemTime::now());
    }
    write(other.path(), "index.jsonl#1", old);
    write(dir.path(), "probe-old", old);
    write(dir.path(), "probe-new", std::time::SystemTime::now());
    repository.sweep(&cluster, 7);
    for folder in places {
        let there = |name: &str| dir.path().join(folder).join(name).exists();
        let found = ["index.jsonl#1", "index.jsonl", "lease.json.x#2"].map(there);
        assert_eq!(found, [false, true, true], "{folder}");
    }
    assert!(other.path().join("index.jsonl#1").exists(), "what a link leads to may be anybody's");
    assert!(!dir.path().join("probe-old").exists() && dir.path().join("probe-new").exists());
}

/// A store whose clock is behind that of this host.
#[derive(Debug)]
struct Behind(Arc<dyn ObjectStore>, chrono::TimeDelta);

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Behind")
    }
}

impl ObjectStore for Behind {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, Answer<PutResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.put_opts(location, payload, options)
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b ObjectPath,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Answer<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b ObjectPath,
        options: GetOptions,
    ) -> BoxFuture<'c, Answer<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            let mut found = self.0.get_opts(location, options).await?;
            found.meta.last_modified -= self.1;
            Ok(found)
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Answer<ObjectPath>>,
    ) -> BoxStream<'static, Answer<ObjectPath>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Answer<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(
        &'a self,
        prefix: Option<&'b ObjectPath>,
    ) -> BoxFuture<'c, Answer<ListResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b ObjectPath,
        to: &'d ObjectPath,
        options: CopyOptions,
    ) -> BoxFuture<'c, Answer<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.0.copy_opts(from, to, options)
    }
}

#[test]
fn a_host_whose_clock_is_wrong_takes_nothing_from_a_living_writer() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    std::fs::create_dir(dir.path().join("x")).unwrap();
    let staged = dir.path().join("x/index.jsonl#1");
    // Just written, by the store's clock; more than two hours old by that of the host.
    let hours = Duration::from_secs(7200);
    let time = std::time::SystemTime::now() - hours - Duration::from_secs(60);
    std::fs::File::create(&staged).unwrap().set_modified(time).unwrap();
    let behind =
        storage.clone().wrapped(|inner| Arc::new(Behind(inner, chrono::TimeDelta::from_std(hours).unwrap())));
    behind.sweep("x", STALE, |_| false);
    assert!(staged.exists());
    storage.sweep("x", STALE, |_| false);
    assert!(!staged.exists());
}
