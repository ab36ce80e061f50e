//! Promise 6 by sabotage: whatever is done to whichever object of a repository, `pgark verify` reports it and names it,
//! and a restore stops with it before it calls itself done. What makes reading faster and no more may be lost: then a
//! restore says so and gives what it always gave.
//!
//! `PG_ARK_DAMAGE=kinds` restores after every kind of damage, not after one for each object; `all` also flips more bits.

use crate::archiving::{archive_now, archiving, wait_archived};
use crate::support::{Ready, names_below, pgark};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::{
    Checksums, Cluster, Output, Repo, Scratch, StopMode, assert_same_data, chown_to_server, command, run,
    run_ok,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One bit is another; the number chooses it.
    Flip(u64),
    Cut,
    Zero,
    Delete,
    Swap,
}

const KINDS: [Kind; 5] = [Kind::Flip(0), Kind::Cut, Kind::Zero, Kind::Delete, Kind::Swap];
const FLIPS: u64 = 100;
const BLOCK: usize = 512;

fn wants(values: &[&str]) -> bool {
    std::env::var("PG_ARK_DAMAGE").is_ok_and(|value| values.contains(&&value[..]))
}

/// A server with two tablespaces and an archive of two timelines, a backup with WAL of its own, one without, and one of dumps.
struct Story {
    ready: Ready,
    with_wal: String,
    archived: String,
    logical: String,
    data: Checksums,
    objects: Vec<String>,
}

impl Story {
    fn new() -> Story {
        let ready =
            archiving(Cluster::builder().wal_segment_mb(1).external_config().conf("autovacuum = off"));
        let server = &ready.server;
        server.psql("UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'");
        server.psql("DROP DATABASE template0");
        for space in ["one", "two"] {
            server.create_tablespace(space);
            server.psql(&format!(
                "CREATE TABLE {space} TABLESPACE {space} AS SELECT n FROM generate_series(1, 2000) n"
            ));
        }
        let with_wal = ready.try_backup("include_wal => true, wait => true").expect("a backup");
        let archived = ready.take_backup();
        let logical = ready.try_backup("kind => 'logical', wait => true").expect("a logical backup");
        server.psql("INSERT INTO one SELECT n FROM generate_series(1, 9000) n");
        archive_now(&ready);
        server.stop(StopMode::Fast);
        fs::write(server.data().join("standby.signal"), "").expect("a file");
        server.start();
        server.promote();
        wait_archived(&ready, "00000002.history");
        server.psql("INSERT INTO two SELECT n FROM generate_series(1, 9000) n");
        archive_now(&ready);
        archive_now(&ready);
        let data = server.checksums();
        server.stop(StopMode::Fast);
        let mut objects = names_below(ready.repo.path());
        // Room that is given up on a full disk: it holds nothing that damage could take.
        objects.retain(|object| !object.contains("/reserve/"));
        Story { ready, with_wal, archived, logical, data, objects }
    }

    /// The backup that an object belongs to.
    fn backup_of(&self, object: &str) -> Option<&str> {
        let named = |backup: &&&String| object.contains(&format!("/backups/{backup}/"));
        [&self.with_wal, &self.archived, &self.logical].iter().find(named).map(|backup| backup.as_str())
    }

    /// Another object that this one is taken for, with another content: of the same name, else of the same kind, else any.
    fn other(&self, object: &str) -> &str {
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_string();
        let kind = |path: &str| name(path).split_once('.').map(|(_, end)| end.to_string());
        let content = |path: &str| fs::read(self.ready.repo.path().join(path)).expect("an object");
        let mut others: Vec<&String> =
            self.objects.iter().filter(|path| content(path) != content(object)).collect();
        others.sort_by_key(|path| (name(path) != name(object), kind(path) != kind(object)));
        others.first().expect("another object")
    }
}

/// A copy of the repository that is damaged and healed again, and a place to restore to.
struct Bench<'a> {
    story: &'a Story,
    copy: Repo,
    room: Scratch,
    port: usize,
    /// What a restore of a backup gives.
    whole: BTreeMap<String, Tree>,
}

/// Every file of a restored backup: its path, size and a hash of its content.
type Tree = Vec<(String, usize, u64)>;

impl<'a> Bench<'a> {
    fn new(story: &'a Story, port: usize) -> Bench<'a> {
        let copy = Repo::new();
        let mut link = command("cp");
        run_ok(link.arg("-al").arg(story.ready.repo.path().join(".")).arg(copy.path()));
        let mut bench = Bench { story, copy, room: Scratch::new("damage"), port, whole: BTreeMap::new() };
        for backup in [&story.with_wal, &story.archived] {
            run(&mut bench.restore(backup)).ok();
            let tree = bench.restored();
            bench.whole.insert(backup.clone(), tree);
        }
        bench
    }

    fn pgark(&self) -> Command {
        pgark(self.story.ready.server.pg(), &self.copy)
    }

    /// Puts an object in the place of another, or removes it.
    fn put(&self, object: &str, bytes: Option<&[u8]>) {
        let path = self.copy.path().join(object);
        drop(fs::remove_file(&path));
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).expect("an object");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            chown_to_server(&path);
        }
    }

    fn read(&self, object: &str) -> Vec<u8> {
        fs::read(self.story.ready.repo.path().join(object)).expect("an object")
    }

    /// Damages an object; returns the objects that are not as they were.
    fn damage<'b>(&self, object: &'b str, kind: Kind) -> Vec<&'b str>
    where
        'a: 'b,
    {
        let bytes = self.read(object);
        let mut damaged = bytes.clone();
        match kind {
            Kind::Flip(choice) => {
                let bit = hash(&(object, choice)) as usize % (bytes.len() * 8);
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
            Kind::Cut => damaged.truncate(bytes.len() - bytes.len().min(BLOCK) / 2 - 1),
            Kind::Zero => {
                let from = (bytes.len() / 2).saturating_sub(BLOCK / 2);
                damaged[from..].iter_mut().take(BLOCK).for_each(|byte| *byte = 0);
            }
            Kind::Delete => {
                self.put(object, None);
                return vec![object];
            }
            Kind::Swap => {
                let other = self.story.other(object);
                self.put(other, Some(&bytes));
                self.put(object, Some(&self.read(other)));
                return vec![object, other];
            }
        }
        assert_ne!(bytes, damaged, "{object} {kind:?}");
        self.put(object, Some(&damaged));
        vec![object]
    }

    fn heal(&self, objects: &[&str]) {
        for object in objects {
            self.put(object, None);
            let original = self.story.ready.repo.path().join(object);
            fs::hard_link(original, self.copy.path().join(object)).expect("a link");
        }
    }

    /// `pgark restore BACKUP` into the room, which is emptied.
    fn restore(&self, backup: &str) -> Command {
        let folder = self.room.path().join("restored");
        drop(fs::remove_dir_all(&folder));
        let folder = self.room.folder("restored");
        let mut pgark = self.pgark();
        pgark.args(["restore", backup, "--config", "pgdata", "--pgdata"]).arg(folder.join("data"));
        for (number, location) in self.story.ready.tablespace_locations().iter().enumerate() {
            let new = folder.join(format!("tablespace {number}"));
            pgark.arg("--tablespace").arg(format!("{}={}", location.display(), new.display()));
        }
        pgark
    }

    fn restored(&self) -> Tree {
        let folder = self.room.path().join("restored");
        let file = |name: String| {
            let bytes = fs::read(folder.join(&name)).expect("a restored file");
            (name, bytes.len(), hash(&bytes))
        };
        names_below(&folder).into_iter().filter(|name| !name.contains("/pg_tblspc/")).map(file).collect()
    }

    /// Damages an object, and looks whether everybody says so; returns what is wrong with what was said.
    fn judge(&self, object: &str, kind: Kind, restore: bool) -> Vec<String> {
        let damaged = self.damage(object, kind);
        let mut faults = self.verified(&damaged);
        if restore && let Err(fault) = self.restored_or_stopped(object, &damaged) {
            faults.push(fault);
        }
        self.heal(&damaged);
        faults.into_iter().map(|fault| format!("{kind:?} of {object}: {fault}")).collect()
    }

    /// Every damaged object must be named by a row, or by the error that keeps the repository from being read.
    fn verified(&self, damaged: &[&str]) -> Vec<String> {
        let output = run(self.pgark().args(["--format", "json", "verify", "--level", "data", "--jobs", "1"]));
        let rows: Vec<Value> = serde_json::from_str(&output.stdout).unwrap_or_default();
        let objects: Vec<&str> = rows.iter().filter_map(|row| row["object"].as_str()).collect();
        let named = |object: &str| {
            let whole = object.trim_end_matches(".zst");
            let by = |row: &&str| {
                let path = row.split(": ").next().unwrap_or_default();
                [object, whole].contains(&path) || object.strip_suffix("/backup.json") == Some(path)
            };
            objects.iter().any(by)
        };
        // Of a repository that cannot be opened nothing else can be told.
        let unread = output.code() == i32::from(ErrorKind::RepositoryNotFound.exit_code());
        let named_by_error = damaged.iter().any(|object| output.stderr.contains(object));
        if unread || rows.is_empty() && output.code() != 0 && named_by_error {
            return Vec::new();
        }
        let codes = [ErrorKind::Corrupt, ErrorKind::WalMissing];
        let mut faults = Vec::new();
        if !codes.iter().any(|kind| i32::from(kind.exit_code()) == output.code()) {
            faults.push(format!("verify: {output}"));
        }
        faults.extend(
            damaged
                .iter()
                .filter(|object| !named(object))
                .map(|object| format!("{object} is not named: {output}")),
        );
        faults
    }

    fn restored_or_stopped(&self, object: &str, damaged: &[&str]) -> Result<(), String> {
        let name = object.rsplit('/').next().unwrap_or_default().trim_end_matches(".zst");
        let needs_start = object.contains("/wal/");
        let backup = self.story.backup_of(object).unwrap_or(&self.story.archived);
        let mut pgark = self.restore(backup);
        if needs_start {
            pgark.args(["--start", "--port", &self.port.to_string()]);
        }
        let output = run(&mut pgark);
        let data = self.room.path().join("restored/data");
        let copy = needs_start.then(|| Cluster::open_restored_with(self.story.ready.server.pg(), &data));
        if !output.success() {
            return told(&output, damaged);
        }
        if let Some(archive) = name.strip_suffix(".index") {
            // The few files of this archive are read as a stream anyway.
            let unread = archive.starts_with("config.");
            if !unread && !output.stderr.contains(&format!("the index of \"{archive}\"")) {
                return Err(format!("the index is not named: {output}"));
            }
        } else if object.ends_with("/cluster.json") {
            // It only tells the order of the systems, and there is one.
        } else if self.story.backup_of(object).is_some() || !needs_start {
            return Err(format!("restored all the same: {output}"));
        }
        match copy {
            Some(copy) => assert_same_data(&self.story.data, &copy.checksums()),
            // What a server made of dumps has other files each time.
            None if backup != self.story.logical && self.whole.get(backup) != Some(&self.restored()) => {
                return Err(format!("gave other files: {output}"));
            }
            None => {}
        }
        Ok(())
    }
}

/// Whether one of the damaged objects is named.
fn told(output: &Output, damaged: &[&str]) -> Result<(), String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().trim_end_matches(".zst").to_string();
    let unread = output.code() == i32::from(ErrorKind::RepositoryNotFound.exit_code());
    let said =
        |name: String| output.stderr.contains(&name) || output.stderr.contains(&name.replace('_', " "));
    match unread || damaged.iter().any(|path| said(name(path))) {
        true => Ok(()),
        false => Err(format!("not named: {output}")),
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn damage_is_loud_in_every_object_of_a_repository() {
    let story = Story::new();
    let all = wants(&["kinds", "all"]);
    let mut kinds = KINDS.to_vec();
    if wants(&["all"]) {
        kinds.extend((1..FLIPS).map(Kind::Flip));
    }
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = |port| {
        let bench = Bench::new(&story, port);
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(object) = story.objects.get(place) else { break };
            let chosen = place % KINDS.len();
            for (number, kind) in kinds.iter().enumerate() {
                let restore = number == chosen || all && number < KINDS.len();
                let found = bench.judge(object, *kind, restore);
                faults.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            }
        }
    };
    std::thread::scope(|scope| {
        [5433, 5434]
            .map(|port| scope.spawn(move || work(port)))
            .map(|thread| thread.join().expect("a thread"))
    });
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(
        faults.is_empty(),
        "{} of {} objects:\n{}",
        faults.len(),
        story.objects.len(),
        faults.join("\n\n")
    );
}
