//! Promise 7 on the way to a data directory: whatever a repository holds, a restore writes nothing outside its target, and it
//! says done only when what it wrote is what the backup manifest lists.

use pg_ark_contract::{ErrorKind, Result};
use pg_ark_engine::repository::Repository;
use pg_ark_engine::restore::{self, ConfigChoice, Request, watch::Silent};
use pg_ark_testkit::forge::{Forge, Member};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the tablespace of the golden backups was.
const TABLESPACE: u32 = 16400;
/// Every restore of a golden repository takes a fraction of a second; one that waits for something takes for ever.
const LONGEST: Duration = Duration::from_secs(30);

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

/// A golden repository, things beside it that are nobody's business, and a target.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(codec: &str) -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        for entry in walkdir::WalkDir::new(golden(codec)).into_iter().filter_map(|e| e.ok()) {
            let to = place.path("repository").join(entry.path().strip_prefix(golden(codec)).unwrap());
            match entry.file_type().is_dir() {
                true => fs::create_dir_all(to).unwrap(),
                false => drop(fs::copy(entry.path(), to).unwrap()),
            }
        }
        fs::create_dir_all(place.path("outside/folder")).unwrap();
        fs::write(place.path("outside/precious"), "mine").unwrap();
        fs::create_dir(place.path("target")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Paths of the repository's objects, sorted.
    fn objects(&self) -> Vec<PathBuf> {
        let entries = walkdir::WalkDir::new(self.path("repository")).sort_by_file_name();
        entries.into_iter().flatten().filter(|e| e.file_type().is_file()).map(|e| e.into_path()).collect()
    }

    fn backup(&self) -> PathBuf {
        let record = self.objects().into_iter().find(|path| path.ends_with("backup.json")).unwrap();
        record.parent().unwrap().to_path_buf()
    }

    fn restore(&self, tablespace: &str) -> Result<()> {
        let cluster =
            Repository::open(&format!("file://{}", self.path("repository").display()))?.cluster("main")?;
        let request = Request {
            backup: "latest".into(),
            pgdata: self.path("target/data"),
            tablespaces: vec![(tablespace.into(), self.path("target/ts"))],
            config: ConfigChoice::Skip,
            jobs: 2,
            ..Request::default()
        };
        let prepared = restore::prepare(&cluster, &request)?;
        restore::run(cluster.storage(), &prepared, &Silent).map(drop)
    }

    /// Everything but the target: paths, and what files hold or links lead to.
    fn outside(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = walkdir::WalkDir::new(self.dir.path()).into_iter().flatten();
        let outside = entries.filter(|entry| !entry.path().starts_with(self.path("target")));
        let content = |entry: &walkdir::DirEntry| match entry.file_type() {
            kind if kind.is_file() => fs::read(entry.path()).unwrap(),
            kind if kind.is_symlink() => fs::read_link(entry.path()).unwrap().display().to_string().into(),
            _ => Vec::new(),
        };
        outside.map(|entry| (entry.path().to_path_buf(), content(&entry))).collect()
    }

    /// Whether the target holds what the golden backups hold, file by file.
    fn is_as_expected(&self, expected: &str) -> bool {
        expected.lines().all(|line| {
            let bytes = fs::read(self.path("target/data").join(&line[18..])).unwrap_or_default();
            format!("{:08x} {:>8}", crc32c::crc32c(&bytes), bytes.len()) == line[..17]
        })
    }
}

/// The tablespace's place in the record of a golden repository.
fn tablespace(codec: &str) -> String {
    let cluster =
        Repository::open(&format!("file://{}", golden(codec).display())).unwrap().cluster("main").unwrap();
    cluster.backups().unwrap().pop().unwrap().tablespaces[0].path.clone()
}

#[test]
fn promise_7_a_hostile_tar_writes_nothing_outside_the_target() {
    let tablespace = tablespace("zstd");
    let attacks = |outside: &str| -> Vec<Vec<Member>> {
        let file = |path: &str| Member::new(path.as_bytes(), b'0', b"", b"evil");
        let link = |path: &str, to: &str| Member::new(path.as_bytes(), b'2', to.as_bytes(), b"");
        let special = |kind| vec![Member::new(b"base/5/evil", kind, b"PG_VERSION", b"")];
        let slot = format!("pg_tblspc/{TABLESPACE}");
        vec![
            vec![file("../outside/evil")],
            vec![file("../../outside/evil")],
            vec![file(&format!("{outside}/evil"))],
            vec![file("base/../../../outside/evil")],
            vec![file("base//evil")],
            vec![file("./evil")],
            vec![file(&format!("base/{}", "x".repeat(300)))],
            vec![link("base/6", outside), file("base/6/evil")],
            vec![link("evil", "../../outside"), file("evil/evil")],
            vec![link("pg_wal", outside), file("pg_wal/evil")],
            vec![link("pg_tblspc", outside), file("pg_tblspc/evil")],
            vec![link("pg_tblspc/7", outside), file("pg_tblspc/7/evil")],
            vec![link(&slot, outside), link(&slot, outside)],
            vec![file(&format!("{slot}/evil"))],
            vec![file("base/5/1259")],
            vec![file("PG_VERSION")],
            vec![file("global/pg_control.pg_ark")],
            vec![file("pg_ark_restore.unfinished")],
            vec![file("backup_manifest")],
            vec![file("base/5"), file("base/5/evil")],
            special(b'1'),
            special(b'3'),
            special(b'4'),
            special(b'6'),
            special(b'7'),
            special(b'x'),
            special(b'S'),
        ]
    };
    for archive in ["base.tar.zst", "16400.tar.zst", "pg_wal.tar.zst"] {
        let count = attacks("").len();
        // The manifest lists nothing of pg_wal's archive.
        let ways: &[bool] = match archive {
            "base.tar.zst" => &[false, true],
            "pg_wal.tar.zst" => &[false],
            _ => &[true],
        };
        for (number, listed) in (0..count).flat_map(|number| ways.iter().map(move |listed| (number, *listed)))
        {
            let place = Place::new("zstd");
            let outside = place.path("outside").display().to_string();
            let attack = attacks(&outside).swap_remove(number);
            // In pg_wal's archive any plain new file is welcome: the manifest lists none of them.
            let harmless = archive == "pg_wal.tar.zst" && (13..=19).contains(&number);
            let forge = Forge::open(&place.backup());
            let mut members = forge.archive(archive);
            members.extend(attack.iter().cloned());
            forge.put_archive(archive, &members);
            if listed {
                list(&forge, archive, &attack);
            }
            let before = place.outside();
            let restored = place.restore(&tablespace);
            assert!(place.outside() == before, "{archive}, attack {number}: something outside was changed");
            if let Err(error) = &restored {
                assert_eq!(error.kind, ErrorKind::Corrupt, "{archive}, attack {number}: {error}");
                assert!(!error.to_string().contains(char::is_control), "{error:?}");
                assert!(!place.path("target/data/global/pg_control").exists());
            }
            assert!(restored.is_err() || harmless, "{archive}, attack {number}, listed {listed}");
        }
    }
}

/// Puts the files of an attack into the manifest, so that more than their absence there has to stop them.
fn list(forge: &Forge, archive: &str, attack: &[Member]) {
    let manifest = String::from_utf8(forge.manifest()).unwrap();
    let prefix =
        if archive.starts_with("16400") { format!("pg_tblspc/{TABLESPACE}/") } else { String::new() };
    let mut lines = String::new();
    for member in attack.iter().filter(|member| member.kind == b'0') {
        let path = format!("{prefix}{}", String::from_utf8_lossy(&member.path));
        let (size, time) = (member.content.len(), "2026-11-22 14:09:21 GMT");
        lines.push_str(&format!(
            "{{ \"Path\": \"{path}\", \"Size\": {size}, \"Last-Modified\": \"{time}\" }},\n"
        ));
    }
    forge.put_summed_manifest(&manifest.replacen("\"Files\": [\n", &format!("\"Files\": [\n{lines}"), 1));
}

#[test]
fn promise_7_a_changed_repository_is_restored_as_it_was_or_not_at_all() {
    let expected = fs::read_to_string(golden("expected.txt")).unwrap();
    let tablespace = tablespace("zstd");
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let changes = (0..3usize, any::<u16>(), any::<u16>(), 0..6u8, any::<u8>());
    let ran = runner.run(&changes, |(codec, which, at, what, value)| {
        let place = Place::new(["zstd", "lz4", "gzip"][codec]);
        let objects = place.objects();
        let victim = &objects[usize::from(which) % objects.len()];
        let other = &objects[usize::from(value) % objects.len()];
        let mut bytes = fs::read(victim).unwrap();
        let at = usize::from(at) * bytes.len() / (1 << 16);
        let end = (at + usize::from(value)).min(bytes.len());
        match what {
            0 => bytes[at] ^= 1 << (value % 8),
            1 => bytes.truncate(at),
            2 => bytes[at..end].fill(0),
            3 => drop(bytes.splice(at..at, vec![value; 10]).count()),
            4 => bytes = fs::read(other).unwrap(),
            _ => drop(bytes.drain(at..end).count()),
        }
        fs::write(victim, bytes).unwrap();
        let before = place.outside();
        let restored = place.restore(&tablespace);
        prop_assert!(place.outside() == before, "{victim:?}: something outside was changed");
        match restored {
            Ok(()) => {
                prop_assert!(place.is_as_expected(&expected), "{victim:?}: done, but not what was stored")
            }
            Err(error) => {
                prop_assert!(!error.to_string().contains(char::is_control), "{error:?}");
                prop_assert!(!place.path("target/data/global/pg_control").exists(), "{victim:?}: {error}");
            }
        }
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn promise_7_a_fifo_in_place_of_an_object_is_never_waited_for() {
    let tablespace = tablespace("zstd");
    let names: Vec<PathBuf> = {
        let place = Place::new("zstd");
        let below = |path: PathBuf| path.strip_prefix(place.path("repository")).unwrap().to_path_buf();
        place.objects().into_iter().map(below).collect()
    };
    for name in names {
        let place = Place::new("zstd");
        let object = place.path("repository").join(&name);
        fs::remove_file(&object).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &object, kind, mode, 0).unwrap();
        let begun = Instant::now();
        let restored = place.restore(&tablespace);
        assert!(begun.elapsed() < LONGEST, "{name:?}");
        // Without an index, without configuration, which is left out, and without the record of the cluster's systems
        // where there is but one, a restore can do.
        let spare = name.extension().is_some_and(|e| e == "index")
            || name.to_string_lossy().contains("config.tar")
            || name.ends_with("cluster.json");
        assert!(restored.is_err() || spare, "{name:?}");
    }
}
