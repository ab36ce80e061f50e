//! What PostgreSQL's own pg_verifybackup tests hold (src/bin/pg_verifybackup/t: 003_corruption, 004_options, 005_bad_manifest,
//! 006_encoding, 007_wal), held against stored backups: the same fault is put into the stored archive or manifest, and all
//! that vouches for it is mended. Three judges must agree on each: `pgark verify`, `pgark restore`, and pg_verifybackup on what
//! tar unpacks.

use crate::by_hand;
use crate::support::{Ready, names_below, pgark, ready};
use pg_ark_contract::ErrorKind;
use pg_ark_testkit::forge::{Forge, Member};
use pg_ark_testkit::{Cluster, Output, Repo, Scratch, command, run, run_ok};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A server with a tablespace, and a backup of it with its WAL.
struct Story {
    ready: Ready,
    backup: String,
    /// Path of the backup's folder in the repository.
    folder: PathBuf,
    /// Name of the tablespace's archive.
    space: String,
}

impl Story {
    fn new() -> Story {
        let ready = ready(Cluster::builder().wal_segment_mb(1).conf("autovacuum = off"));
        let server = &ready.server;
        server.psql("UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'");
        server.psql("DROP DATABASE template0");
        server.create_tablespace("ts1");
        server.psql(
            "CREATE TABLE x1 (a int); INSERT INTO x1 VALUES (111); CREATE TABLE x2 (a int) TABLESPACE ts1",
        );
        let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
        fs::write(server.data().join(odd), "not UTF-8\n").expect("a file");
        pg_ark_testkit::chown_to_server(&server.data().join(odd));
        let backup = ready.take_backup();
        let space = server.psql("SELECT oid || '.tar.zst' FROM pg_tablespace WHERE spcname = 'ts1'");
        let whole = ready.backup_folder(&backup);
        let folder = whole.strip_prefix(ready.repo.path()).expect("inside").to_path_buf();
        Story { ready, backup, folder, space }
    }

    fn copy(&self) -> Copy<'_> {
        let repo = Repo::new();
        run_ok(command("cp").arg("-al").arg(self.ready.repo.path().join(".")).arg(repo.path()));
        Copy {
            forge: Forge::open(&repo.path().join(&self.folder)),
            story: self,
            repo,
            room: Scratch::new("verify"),
        }
    }
}

/// A copy of the repository, in which something is changed.
struct Copy<'a> {
    story: &'a Story,
    repo: Repo,
    forge: Forge,
    room: Scratch,
}

impl Copy<'_> {
    fn folder(&self) -> PathBuf {
        self.repo.path().join(&self.story.folder)
    }

    /// Changes the members of an archive.
    fn members(&self, archive: &str, change: impl FnOnce(&mut Vec<Member>)) {
        let mut members = self.forge.archive(archive);
        change(&mut members);
        self.forge.put_archive(archive, &members);
    }

    /// Changes a file in `base.tar`.
    fn file(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.members("base.tar.zst", |members| {
            let member = members.iter_mut().find(|member| member.path == path.as_bytes());
            change(&mut member.expect("a member").content);
        });
    }

    /// `pgark verify` of the backup: its rows and what else it said.
    fn verify(&self, level: &str) -> (Vec<Value>, Output) {
        let mut pgark = pgark(self.story.ready.server.pg(), &self.repo);
        let output = run(pgark.args(["--format", "json", "verify", &self.story.backup, "--level", level]));
        (serde_json::from_str(&output.stdout).unwrap_or_default(), output)
    }

    fn restore(&self) -> (Output, PathBuf) {
        let folder = self.room.folder("restored");
        let data = folder.join("data");
        let mut pgark = pgark(self.story.ready.server.pg(), &self.repo);
        pgark.args(["restore", &self.story.backup, "--pgdata"]).arg(&data);
        for location in self.story.ready.tablespace_locations() {
            let new = folder.join("ts1");
            pgark.arg("--tablespace").arg(format!("{}={}", location.display(), new.display()));
        }
        (run(&mut pgark), data)
    }

    /// pg_verifybackup of a folder, with the stored manifest.
    fn judge(&self, data: &Path, options: &[&str]) -> Output {
        let mut judge = self.story.ready.server.pg().tool("pg_verifybackup");
        run(judge.args(options).arg("-m").arg(self.folder().join("backup_manifest")).arg(data))
    }

    /// Every judge finds the backup good.
    #[track_caller]
    fn good(&self) {
        for level in ["record", "data", "pages"] {
            let (rows, output) = self.verify(level);
            assert!(output.success() && rows.is_empty(), "{level}: {output}");
        }
        let (output, data) = self.restore();
        output.ok();
        self.judge(&data, &["-i", "tablespace_map"]).ok();
        let scratch = Scratch::new("by_hand");
        self.judge(&by_hand::restore(&self.folder(), "zstd -d", ".zst", &scratch), &[]).ok();
    }

    /// Every judge finds fault with it, `pgark verify` at this level and with all of these words in one row.
    #[track_caller]
    fn bad(&self, name: &str, level: &str, words: &[&str]) {
        self.reported(name, level, words);
        let (output, data) = self.restore();
        assert!(!output.success() && output.stderr.contains("error:"), "{name}: {output}");
        assert!(
            !data.join("PG_VERSION").exists() || data.join("pg_ark_restore.unfinished").exists(),
            "{name}"
        );
        let scratch = Scratch::new("by_hand");
        let theirs = self.judge(&by_hand::restore(&self.folder(), "zstd -d", ".zst", &scratch), &[]);
        assert!(!theirs.success(), "{name}: pg_verifybackup finds nothing: {theirs}");
    }

    #[track_caller]
    fn reported(&self, name: &str, level: &str, words: &[&str]) {
        let (rows, output) = self.verify(level);
        assert_eq!(output.code(), i32::from(ErrorKind::Corrupt.exit_code()), "{name}: {output}");
        let said = |row: &Value| {
            let text = format!("{}: {}", row["object"], row["finding"]);
            words.iter().all(|word| text.contains(word)) && row["severity"] == "error"
        };
        assert!(rows.iter().any(said), "{name}: {words:?} expected of {output}");
    }
}

#[test]
fn pg_verifybackup_003_corruption() {
    let story = Story::new();
    story.copy().good();
    let case = |name: &str, change: &dyn Fn(&Copy<'_>), words: &[&str]| {
        let copy = story.copy();
        change(&copy);
        copy.bad(name, "data", words);
    };
    let extra = |path: &[u8]| Member::new(path, b'0', b"", b"This is an extra file.\n");
    case(
        "extra_file",
        &|copy| copy.members("base.tar.zst", |m| m.insert(0, extra(b"extra_file"))),
        &["extra_file"],
    );
    let add = |members: &mut Vec<Member>| {
        let folder = members.iter().rfind(|member| member.kind == b'5').expect("a folder");
        let path = [folder.path.strip_suffix(b"/").unwrap_or(&folder.path), &b"/extra_ts_file"[..]].concat();
        members.push(extra(&path));
    };
    case("extra_tablespace_file", &|copy| copy.members(&story.space, add), &["extra_ts_file"]);
    let remove = |members: &mut Vec<Member>| members.retain(|member| member.path != b"pg_xact/0000");
    case("missing_file", &|copy| copy.members("base.tar.zst", remove), &["pg_xact/0000", "missing"]);
    case("missing_tablespace", &|copy| copy.members(&story.space, Vec::clear), &["pg_tblspc", "missing"]);
    case(
        "append_to_file",
        &|copy| copy.file("global/pg_control", |file| file.push(b'x')),
        &["global/pg_control", "8193"],
    );
    case("truncate_file", &|copy| copy.file("global/pg_control", Vec::clear), &["global/pg_control", "8192"]);
    case(
        "replace_file",
        &|copy| copy.file("PG_VERSION", |file| file.fill(b'q')),
        &["PG_VERSION", "checksum"],
    );
    let grown = |copy: &Copy<'_>| copy.forge.put_manifest(&[copy.forge.manifest(), b"\n".to_vec()].concat());
    case("bad_manifest", &grown, &["backup_manifest"]);
}

#[test]
fn pg_verifybackup_003_what_cannot_be_opened() {
    let story = Story::new();
    for (name, closed, mode) in [
        ("open_file_fails", "base.tar.zst", 0),
        ("open_directory_fails", "", 0),
        ("search_directory_fails", "", 0o400),
    ] {
        let copy = story.copy();
        let path = copy.folder().join(closed);
        if path.is_file() {
            // Not the original's mode, which a link shares.
            let bytes = fs::read(&path).expect("an object");
            fs::remove_file(&path).and_then(|()| fs::write(&path, bytes)).expect("an object");
        }
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        let (rows, output) = copy.verify("data");
        assert!(!output.success(), "{name}: {output}");
        assert!(format!("{rows:?} {}", output.stderr).contains(&story.backup), "{name}: {output}");
        assert!(!copy.restore().0.success(), "{name}");
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("chmod");
    }
}

#[test]
fn pg_verifybackup_004_options() {
    let story = Story::new();
    let copy = story.copy();
    let (rows, output) = copy.verify("data");
    assert!(output.success() && rows.is_empty() && !output.stderr.contains("error"), "{output}");
    copy.file("PG_VERSION", |file| file.fill(b'q'));
    assert!(copy.verify("record").1.success(), "names and sizes alone do not tell");
    copy.reported("a file of the same size", "data", &["PG_VERSION", "checksum"]);
    copy.members("base.tar.zst", |members| members.retain(|member| !member.path.starts_with(b"pg_xact/0")));
    for problem in ["PG_VERSION", "pg_xact/0000"] {
        copy.reported("two problems", "data", &[problem]);
    }
    let mut pgark = pgark(story.ready.server.pg(), &copy.repo);
    let output = run(pgark.args(["verify", "20200101T000000Z-full"]));
    assert_eq!(output.code(), i32::from(ErrorKind::BackupNotFound.exit_code()), "{output}");
}

/// What 005_bad_manifest.pl gives to pg_verifybackup.
const BAD_MANIFESTS: &[(&str, &str)] = &[
    ("ended unexpectedly", "{\n"),
    ("unexpected object end", "{}\n"),
    ("unexpected array start", "[]\n"),
    ("no version", "{\"not-expected\": 1}\n"),
    ("version is not an integer", "{\"PostgreSQL-Backup-Manifest-Version\": \"phooey\"}\n"),
    ("unknown version", "{\"PostgreSQL-Backup-Manifest-Version\": 9876599}\n"),
    ("no system identifier", "{\"PostgreSQL-Backup-Manifest-Version\": 2, \"Files\": []}\n"),
    ("unexpected scalar", "{V, \"Files\": true}\n"),
    ("unknown field", "{V, \"Oops\": 1}\n"),
    ("unexpected object start", "{V, \"Files\": {}}\n"),
    ("no path", "{V, \"Files\": [{}]}\n"),
    ("two paths", "{V, \"Files\": [{\"Path\": \"x\", \"Encoded-Path\": \"1234\"}]}\n"),
    ("unknown field of a file", "{V, \"Files\": [{\"Oops\": 1}]}\n"),
    ("no size", "{V, \"Files\": [{\"Path\": \"x\"}]}\n"),
    ("size is not an integer", "{V, \"Files\": [{\"Path\": \"x\", \"Size\": \"Oops\"}]}\n"),
    ("path cannot be decoded", "{V, \"Files\": [{\"Encoded-Path\": \"123\", \"Size\": 0}]}\n"),
    ("path twice", "{V, \"Files\": [{\"Path\": \"x\", \"Size\": 0}, {\"Path\": \"x\", \"Size\": 0}]}\n"),
    ("no algorithm", "{V, \"Files\": [{\"Path\": \"x\", \"Size\": 100, \"Checksum\": \"Oops\"}]}\n"),
    (
        "unknown algorithm",
        "{V, \"Files\": [{\"Path\": \"x\", \"Size\": 100, \"Checksum-Algorithm\": \"Oops\", \"Checksum\": \"00\"}]}\n",
    ),
    (
        "malformed checksum",
        "{V, \"Files\": [{\"Path\": \"x\", \"Size\": 100, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0\"}]}\n",
    ),
    ("no start LSN", "{V, \"WAL-Ranges\": [{\"Timeline\": 1}]}\n"),
    ("no end LSN", "{V, \"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"0/0\"}]}\n"),
    ("unknown field of a range", "{V, \"WAL-Ranges\": [{\"Oops\": 1}]}\n"),
    ("no timeline", "{V, \"WAL-Ranges\": [{}]}\n"),
    (
        "ends after the ranges",
        "{V, \"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\"}]}\n",
    ),
    (
        "timeline is not an integer",
        "{V, \"WAL-Ranges\": [{\"Timeline\": true, \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\"}]}\n",
    ),
    (
        "no LSN at the start",
        "{V, \"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"oops\", \"End-LSN\": \"0/0\"}]}\n",
    ),
    (
        "no LSN at the end",
        "{V, \"WAL-Ranges\": [{\"Timeline\": 1, \"Start-LSN\": \"0/0\", \"End-LSN\": \"oops\"}]}\n",
    ),
    ("one line", "{V, \"Files\": [], \"Manifest-Checksum\": null}\n"),
    ("no newline at the end", "{V,\n \"Files\": [],\n \"Manifest-Checksum\": null}"),
    (
        "malformed checksum of its own",
        "{V, \"Files\": [],\n \"Manifest-Checksum\": \"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz01234567890-\"}\n",
    ),
];

#[test]
fn pg_verifybackup_005_bad_manifest() {
    let story = Story::new();
    for (name, text) in BAD_MANIFESTS {
        let copy = story.copy();
        copy.forge.put_manifest(text.replace('V', "\"PostgreSQL-Backup-Manifest-Version\": 1").as_bytes());
        copy.reported(name, "data", &["backup_manifest"]);
        let theirs = copy.judge(copy.room.path(), &[]);
        assert!(!theirs.success(), "{name}: {theirs}");
        let (output, data) = copy.restore();
        assert_eq!(output.code(), i32::from(ErrorKind::Corrupt.exit_code()), "{name}: {output}");
        assert!(output.stderr.contains("manifest"), "{name}: {output}");
        assert!(!data.join("PG_VERSION").exists(), "{name}: {:?}", names_below(&data));
    }
}

#[test]
fn pg_verifybackup_006_encoding() {
    let story = Story::new();
    let copy = story.copy();
    let manifest = String::from_utf8(copy.forge.manifest()).expect("JSON");
    assert!(
        manifest.contains("\"Encoded-Path\": \"636166e9\""),
        "a path that is not UTF-8 is encoded: {manifest}"
    );
    let encoded = |line: &str| match line
        .split_once("\"Path\": \"")
        .and_then(|(head, rest)| Some((head, rest.split_once('"')?)))
    {
        Some((head, (path, rest))) => {
            let hex: String = path.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("{head}\"Encoded-Path\": \"{hex}\"{rest}")
        }
        None => line.to_string(),
    };
    let forced: String = manifest.split_inclusive('\n').map(encoded).collect();
    assert!(forced.matches("Encoded-Path").count() > 100, "{forced}");
    copy.forge.put_summed_manifest(&forced);
    copy.good();
}

#[test]
fn pg_verifybackup_007_wal() {
    let story = Story::new();
    let wal = "pg_wal.tar.zst";
    let segment = |member: &&mut Member| member.path.len() == 24;
    let copy = story.copy();
    copy.members(wal, Vec::clear);
    copy.bad("missing pg_wal", "data", &[wal]);
    let copy = story.copy();
    copy.members(wal, |m| m.iter_mut().find(segment).expect("a segment").content.fill(b'w'));
    copy.bad("garbage of equal length", "data", &[wal, "0000000100000000"]);
    // A record in the middle: only who follows the records finds it.
    let copy = story.copy();
    let record = copy.forge.record();
    let start = record["start_lsn"].as_str().and_then(|lsn| lsn.split_once('/')).expect("an LSN").1;
    let at = usize::from_str_radix(start, 16).expect("hexadecimal") % (1 << 20);
    copy.members(wal, |m| m.iter_mut().find(segment).expect("a segment").content[at + 25] ^= 1);
    copy.reported("a record", "pages", &[wal, "0000000100000000"]);
    let scratch = Scratch::new("by_hand");
    let theirs = copy.judge(&by_hand::restore(&copy.folder(), "zstd -d", ".zst", &scratch), &[]);
    assert!(!theirs.success() && theirs.stderr.contains("WAL parsing failed"), "{theirs}");
}

#[test]
fn pg_verifybackup_007_a_backup_of_a_later_timeline() {
    let mut story = Story::new();
    let server = &story.ready.server;
    server.stop(pg_ark_testkit::StopMode::Fast);
    fs::write(server.data().join("standby.signal"), "").expect("a file");
    server.start();
    server.promote();
    server.psql("SELECT pg_switch_wal()");
    let backup = story.ready.take_backup();
    assert_eq!(story.ready.backup_row("timeline", &backup), "2");
    let whole = story.ready.backup_folder(&backup);
    story.folder = whole.strip_prefix(story.ready.repo.path()).expect("inside").to_path_buf();
    story.backup = backup;
    story.copy().good();
}
