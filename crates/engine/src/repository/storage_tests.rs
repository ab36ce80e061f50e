use super::*;
use std::time::Duration;

fn storage() -> (tempfile::TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    (dir, storage)
}

#[test]
fn urls_are_checked() {
    for (url, kind) in [
        ("", ErrorKind::RepositoryUnset),
        ("backups", ErrorKind::InvalidArgument),
        ("file://backups", ErrorKind::InvalidArgument),
        ("file:///", ErrorKind::InvalidArgument),
        ("file:///x?y", ErrorKind::InvalidArgument),
        ("ftp://host/x", ErrorKind::InvalidArgument),
        ("s3://bucket/prefix", ErrorKind::Unsupported),
    ] {
        let error = Storage::open(url).unwrap_err();
        assert_eq!(error.kind, kind, "{url}: {error}");
        assert!(error.hint.is_some(), "{url}");
    }
    assert_eq!(Storage::open("file:///with%20space").unwrap().folder(), std::path::Path::new("/with space"));
}

#[test]
fn a_file_is_no_repository() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, b"x").unwrap();
    let error = Storage::open(&format!("file://{}", file.display())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::RepositoryUnusable);
}

#[test]
fn objects_come_back() {
    let (_dir, storage) = storage();
    assert_eq!(storage.get("a/b", 10).unwrap(), None);
    storage.put("a/b", &b"hello"[..]).unwrap();
    assert_eq!(storage.get("a/b", 10).unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(storage.get("a/b", 4).unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(&storage.get_range("a/b", 1, 3).unwrap()[..], b"ell");
    assert_eq!(storage.get_range("a/b", 3, 3).unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(storage.get_range("a/b", 9, 3).unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(storage.get_range("a/c", 0, 3).unwrap_err().kind, ErrorKind::Corrupt);
    assert!(!storage.create("a/b", &b"other"[..]).unwrap());
    assert!(storage.create("a/c", &b"other"[..]).unwrap());
    assert_eq!(storage.folders("").unwrap(), ["a"]);
    let paths: Vec<_> = storage.list("a").unwrap().into_iter().map(|o| (o.path, o.size)).collect();
    assert_eq!(paths, [("a/b".to_string(), 5), ("a/c".to_string(), 5)]);
    storage.delete("a/b").unwrap();
    storage.delete("a/b").unwrap();
}

#[test]
fn a_link_that_leads_nowhere_is_an_error_and_no_file() {
    let (dir, storage) = storage();
    storage.put("a/5/c", &b"x"[..]).unwrap();
    let away = dir.path().join("a/7");
    std::os::unix::fs::symlink(dir.path().join("a/5"), &away).unwrap();
    assert_eq!(storage.folders("a").unwrap(), ["5", "7"]);
    assert_eq!(storage.files("a/7").unwrap(), ["a/7/c"]);
    std::fs::remove_file(&away).unwrap();
    std::os::unix::fs::symlink(dir.path().join("unmounted"), &away).unwrap();
    for error in [storage.folders("a").unwrap_err(), storage.files("a").unwrap_err()] {
        assert!(error.message.contains("a/7\"") && error.hint.is_some(), "{error}");
    }
    // The folder itself is asked for.
    storage.files("a/7").unwrap_err();
    storage.folders("a/7/deeper").unwrap_err();
    storage.size("a/7/cluster.json").unwrap_err();
}

#[test]
fn a_strangers_link_that_leads_nowhere_ends_no_reader() {
    let (dir, storage) = storage();
    storage.put("a/5/backups/20261122T020000Z-full/backup.json", &b"x"[..]).unwrap();
    for stranger in ["lost+found", "a/readme", "a/5/lost+found", "a/5/backups/old", "a/5/wal/lost+found"] {
        let link = dir.path().join(stranger);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("nowhere", link).unwrap();
    }
    assert_eq!(storage.folders("").unwrap(), ["a"]);
    assert_eq!(storage.folders("a").unwrap(), ["5"]);
    assert_eq!(storage.folders("a/5").unwrap(), ["backups", "wal"]);
    assert_eq!(storage.folders("a/5/backups").unwrap(), ["20261122T020000Z-full"]);
    assert_eq!(storage.files("a/5/wal").unwrap(), ["a/5/wal/lost+found"]);
}

#[test]
fn nothing_is_removed_through_a_link() {
    let (dir, storage) = storage();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("thesis"), b"x").unwrap();
    std::fs::create_dir_all(dir.path().join("a")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("a/link")).unwrap();
    storage.remove_all("a/link", &[]).unwrap();
    storage.remove_unborn("a/link", "backup.json");
    storage.remove_all("a", &[]).unwrap();
    assert!(outside.path().join("thesis").exists() && !storage.is_link("a/link"));
}

#[test]
fn only_what_our_own_writer_left_is_unborn() {
    let (dir, storage) = storage();
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    for (folder, file) in [("plan", "plan#2".as_ref()), ("odd", odd), ("two", "backup.json#x".as_ref())] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        std::fs::write(dir.path().join(folder).join("backup.json#1"), b"half").unwrap();
        std::fs::write(dir.path().join(folder).join(file), b"x").unwrap();
        storage.remove_unborn(folder, "backup.json");
        assert!(
            dir.path().join(folder).join(file).exists()
                && dir.path().join(folder).join("backup.json#1").exists()
        );
        std::fs::remove_file(dir.path().join(folder).join(file)).unwrap();
        storage.remove_unborn(folder, "backup.json");
        assert!(!dir.path().join(folder).exists());
    }
}

#[test]
fn an_upload_appears_whole_or_not_at_all() {
    let (dir, storage) = storage();
    let mut upload = storage.upload("x/y").unwrap();
    upload.append(vec![1u8; PART_SIZE]).unwrap();
    upload.append(vec![2u8; 10]).unwrap();
    assert_eq!(storage.size("x/y").unwrap(), None);
    let stored = upload.finish().unwrap();
    assert_eq!(stored.size, PART_SIZE as u64 + 10);
    let bytes = std::fs::read(dir.path().join("x/y")).unwrap();
    assert_eq!(crc32c::crc32c(&bytes), stored.crc32c);

    let mut dropped = storage.upload("x/z").unwrap();
    dropped.append(vec![1u8; PART_SIZE]).unwrap();
    drop(dropped);
    assert_eq!(std::fs::read_dir(dir.path().join("x")).unwrap().count(), 1);

    let mut dead = storage.upload("x/dead").unwrap();
    dead.append(vec![1u8; PART_SIZE]).unwrap();
    std::mem::forget(dead);
    assert_eq!(std::fs::read_dir(dir.path().join("x")).unwrap().count(), 2);
    storage.remove_all("x", &["x/y"]).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("x")).unwrap().count(), 1);
}

#[test]
fn names_that_leave_the_repository_are_refused() {
    let (_dir, storage) = storage();
    assert!(storage.get("../x", 10).is_err());
    assert!(storage.put("a/../../x", &b""[..]).is_err());
}

#[test]
fn names_with_spaces_and_other_letters() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("Sicherung größe 1");
    let url = url::Url::from_directory_path(&root).unwrap();
    let storage = Storage::open(url.as_str()).unwrap();
    assert_eq!(storage.folder(), root);
    storage.put("stand by é/x/b 1", &b"1"[..]).unwrap();
    assert_eq!(storage.folders("").unwrap(), ["stand by é"]);
    assert_eq!(storage.list("stand by é").unwrap()[0].path, "stand by é/x/b 1");
    assert_eq!(storage.get("stand by é/x/b 1", 9).unwrap().unwrap(), b"1");
    let doubled = Storage::open(&url.as_str().replace("Sich", "/Sich")).unwrap();
    assert_eq!(doubled.size("stand by é/x/b 1").unwrap(), Some(1));
}

#[test]
fn promise_7_what_is_no_file_is_refused_and_never_waited_for() {
    let (dir, storage) = storage();
    let at = |name: &str| dir.path().join(name);
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), kind, mode, 0).unwrap();
    std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for name in ["fifo", "link", "zero", "socket"] {
        for error in [
            storage.get(name, 1000).map(drop).unwrap_err(),
            storage.get_range(name, 0, 10).map(drop).unwrap_err(),
            storage.size(name).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Corrupt, "{name}: {error}");
            assert!(error.hint.is_some());
        }
    }
    assert_eq!(storage.files("").unwrap().len(), 4, "they are seen, so they are told");
}

#[test]
fn a_time_beyond_every_calendar_is_damage() {
    // Only some file systems can store such a time.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    storage.put("x", &b"x"[..]).unwrap();
    let far = std::time::UNIX_EPOCH + Duration::from_secs(1 << 62);
    let file = std::fs::File::options().write(true).open(dir.path().join("x")).unwrap();
    let set = file.set_modified(far);
    if set.is_ok() && file.metadata().unwrap().modified().unwrap() == far {
        assert_eq!(storage.size("x").unwrap_err().kind, ErrorKind::Corrupt);
    }
}

#[test]
fn promise_5_nothing_is_listed_or_removed_through_a_link() {
    let (dir, storage) = storage();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("precious"), "mine").unwrap();
    std::fs::write(elsewhere.path().join("x#1"), "mine").unwrap();
    storage.put("b/record", &b"r"[..]).unwrap();
    storage.put("b/deep/object", &b"o"[..]).unwrap();
    let link = |to: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(to, dir.path().join("b").join(name)).unwrap();
    };
    link(elsewhere.path(), "folder");
    link(elsewhere.path(), "folder#2");
    link(&elsewhere.path().join("precious"), "file");
    link(dir.path(), "loop");
    let listed: Vec<String> = storage.list("b").unwrap().into_iter().map(|object| object.path).collect();
    assert_eq!(listed, ["b/deep/object", "b/file", "b/folder", "b/loop", "b/record"]);
    storage.remove_all("b", &["b/record"]).unwrap();
    assert_eq!(std::fs::read(elsewhere.path().join("precious")).unwrap(), b"mine");
    assert!(elsewhere.path().join("x#1").exists());
    assert_eq!(storage.files("b").unwrap(), ["b/record"]);
}
