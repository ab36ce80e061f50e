//! Small backups for tests, made by the writers that backups are made with, and then damaged as a test likes.

use crate::backup::archive::{ArchiveWriter, EncodedFrame};
use crate::backup::member::{self, Attributes, Kind};
use crate::codec::frame::Encoder;
use crate::postgres::control_file::{CONTROL_FILE, ControlFile};
use crate::postgres::manifest::{ManifestWriter, crc32c_bytes};
use crate::postgres::wal_segment::{HAS_LONG_HEADER, magic_of};
use crate::repository::record::{ArchiveContent, DataDirectoryRecord, ObjectRecord, TablespaceRecord};
use crate::repository::{Cluster, Record, Repository};
use crate::stored::expected::Expected;
use pg_ark_contract::settings::{Checksum, Compression};
use pg_ark_contract::units::{Lsn, Timeline};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A pg_control of PostgreSQL 15.
const CONTROL: &[u8] = include_bytes!("../postgres/testdata/pg_control.15");

/// OID of the tablespace.
pub const OID: u32 = 16400;

/// A member of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path in the tar.
    pub path: String,
    /// What it is.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
}

/// What a member is.
#[derive(Debug, Clone)]
pub enum What {
    /// A file with this content.
    File(Vec<u8>),
    /// A folder.
    Folder,
    /// A link to this.
    Link(String),
}

/// A file.
pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Entry {
    Entry { path: path.to_string(), what: What::File(content.into()), mode: 0o640 }
}

/// A folder.
pub fn folder(path: &str) -> Entry {
    Entry { path: path.to_string(), what: What::Folder, mode: 0o750 }
}

/// A link.
pub fn link(path: &str, target: &str) -> Entry {
    Entry { path: path.to_string(), what: What::Link(target.to_string()), mode: 0o777 }
}

/// What the backup shall be like.
pub struct Recipe {
    /// Codec and level.
    pub compression: Compression,
    /// Checksum in the manifest.
    pub checksum: Checksum,
    /// Bytes of tar in a frame; small, so that everything spans frames.
    pub frame: usize,
    /// Largest object.
    pub volume_size: u64,
    /// Permission bits of the data directory.
    pub mode: u32,
    /// Members of base.tar.
    pub base: Vec<Entry>,
    /// Members of the tablespace.
    pub tablespace: Vec<Entry>,
    /// Members of config.tar.
    pub config: Vec<Entry>,
    /// Path in the manifest that gets a wrong checksum.
    pub wrong_sum: Option<String>,
    /// A path that is only in the manifest.
    pub only_listed: Option<String>,
    /// A path that the manifest leaves out.
    pub unlisted: Option<String>,
}

impl Default for Recipe {
    fn default() -> Self {
        let large: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
        Recipe {
            compression: Compression::default(),
            checksum: Checksum::Crc32c,
            frame: 50_000,
            volume_size: 1 << 40,
            mode: 0o700,
            base: vec![
                file("PG_VERSION", "15\n"),
                folder("base"),
                folder("base/5"),
                file("base/5/1259", large),
                file("base/5/empty", ""),
                file("größe 1", "name with a space"),
                file(&format!("base/5/{}", "l".repeat(150)), "long name"),
                folder("global"),
                folder("pg_tblspc"),
                folder("pg_wal"),
                folder("pg_wal/archive_status"),
                file("postgresql.conf", "port = 5999\n"),
                link(&format!("pg_tblspc/{OID}"), "/old/fast"),
                file(CONTROL_FILE, CONTROL),
                file("backup_label", "START WAL LOCATION: 0/200028 (file 000000010000000000000002)\n"),
                file("tablespace_map", format!("{OID} /old/fast\n")),
            ],
            tablespace: vec![
                folder("PG_15_202209061"),
                folder("PG_15_202209061/5"),
                file("PG_15_202209061/5/16401", vec![7; 100_000]),
            ],
            config: Vec::new(),
            wrong_sum: None,
            only_listed: None,
            unlisted: None,
        }
    }
}

/// A repository with one backup.
pub struct Fixture {
    /// Removed when dropped.
    pub dir: tempfile::TempDir,
    /// The cluster.
    pub cluster: Cluster,
    /// The backup's folder in the repository.
    pub folder: String,
    /// The record.
    pub record: Record,
}

impl Fixture {
    /// Makes the repository.
    pub fn new(recipe: &Recipe) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/repository", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let system = ControlFile::parse(CONTROL).unwrap().system_identifier;
        let wal = [file("000000010000000000000002", segment(system)), folder("archive_status")];
        let mut cluster = repository.cluster("main").unwrap();
        cluster.remember_system(system, 150_000).unwrap();
        let name = "20261122T020000Z-full";
        let folder = cluster.backup_folder(system, name);
        let mut record = record(name, system, recipe);
        let archive = |stem: &str, content, entries: &[Entry]| {
            let writer = ArchiveWriter::new(
                cluster.storage(),
                &folder,
                stem,
                content,
                recipe.compression.codec,
                recipe.volume_size,
            );
            write(writer.unwrap(), recipe, &tar(entries))
        };
        let oid = OID.to_string();
        record.archives.push(archive(&oid, ArchiveContent::Tablespace(OID), &recipe.tablespace));
        record.archives.push(archive("base", ArchiveContent::Base, &recipe.base));
        record.archives.push(archive("pg_wal", ArchiveContent::Wal, &wal));
        if !recipe.config.is_empty() {
            record.archives.push(archive("config", ArchiveContent::Config, &recipe.config));
        }
        let manifest = manifest(recipe, system);
        cluster.storage().put(&format!("{folder}/backup_manifest"), manifest.clone()).unwrap();
        record.manifest = Some(ObjectRecord {
            name: "backup_manifest".into(),
            size: manifest.len() as u64,
            crc32c: format!("{:08x}", crc32c::crc32c(&manifest)),
        });
        // Recipes may be hostile, and their manifests then are.
        if let Ok(listed) = Expected::load(cluster.storage(), &folder, &record, &mut std::io::sink()) {
            record.files = listed.len() as u64;
            record.data_bytes = (0..listed.len()).map(|number| listed.file(number).size).sum();
        }
        record.stored_bytes = crate::backup::finish::objects(&record).map(|object| object.size).sum();
        record.save(cluster.storage(), &folder).unwrap();
        Fixture { dir, cluster, folder, record }
    }

    /// A path beside the repository.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file of an object.
    pub fn object(&self, name: &str) -> PathBuf {
        self.cluster.storage().folder().join(&self.folder).join(name)
    }

    /// Changes the bytes of an object.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.object(name);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    /// Saves a changed record.
    pub fn change_record(&mut self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
        self.record.save(self.cluster.storage(), &self.folder).unwrap();
    }
}

/// The segment that the backup needs: a first page's header (access/xlog_internal.h), and nothing behind it.
pub fn segment(system: u64) -> Vec<u8> {
    const SIZE: u32 = 1 << 20;
    let mut bytes = vec![0; SIZE as usize];
    bytes[0..2].copy_from_slice(&magic_of(15).unwrap().to_le_bytes());
    bytes[2..4].copy_from_slice(&HAS_LONG_HEADER.to_le_bytes());
    bytes[4] = 1;
    bytes[8..16].copy_from_slice(&0x0020_0000u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&system.to_le_bytes());
    bytes[32..36].copy_from_slice(&SIZE.to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

fn record(name: &str, system: u64, recipe: &Recipe) -> Record {
    let minimal = serde_json::json!({
        "format": 1, "backup": name, "kind": "full", "status": "complete",
        "started_at": "2026-11-22T02:00:00Z", "finished_at": "2026-11-22T02:10:00Z",
        "written_by": "0.1.0", "cluster": "main", "system_identifier": system.to_string(),
        "server_version_num": 150_000, "server_version": "15.0", "wal_segment_size": 1 << 20,
        "block_size": 8192, "data_checksums": true, "compression": recipe.compression,
        "checksum": recipe.checksum, "wal_included": true,
        "data_directory": {"path": "/old/data", "mode": recipe.mode, "uid": 0, "gid": 0, "wal_link": null},
    });
    let mut record: Record = serde_json::from_value(minimal).unwrap();
    record.start_lsn = Some(Lsn(0x0020_0028));
    record.stop_lsn = Some(Lsn(0x0020_0100));
    record.timeline = Some(Timeline(1));
    record.tablespaces = vec![TablespaceRecord { oid: OID, path: "/old/fast".into(), data_bytes: 100_000 }];
    let data =
        DataDirectoryRecord { path: "/old/data".into(), mode: recipe.mode, uid: 0, gid: 0, wal_link: None };
    record.data_directory = data;
    record.config_files = recipe.config.iter().map(|entry| format!("/{}", entry.path)).collect();
    record
}

/// The tar of some members.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        let attributes = Attributes { mode: entry.mode, uid: 0, gid: 0, mtime: 1_700_000_000 };
        let (kind, content) = match &entry.what {
            What::File(content) => (Kind::File(content.len() as u64), &content[..]),
            What::Folder => (Kind::Directory, &b""[..]),
            What::Link(target) => (Kind::Link(target.as_bytes()), &b""[..]),
        };
        tar.extend(member::header(entry.path.as_bytes(), kind, attributes));
        tar.extend(content);
        tar.resize(tar.len() + member::padding(content.len() as u64), 0);
    }
    tar.resize(tar.len() + member::TRAILER, 0);
    tar
}

fn write(
    mut archive: ArchiveWriter,
    recipe: &Recipe,
    tar: &[u8],
) -> crate::repository::record::ArchiveRecord {
    let mut encoder = Encoder::new(recipe.compression).unwrap();
    for raw in tar.chunks(recipe.frame) {
        let stored = encoder.encode(raw).unwrap();
        let crc = crc32c::crc32c(&stored);
        archive.append(EncodedFrame { stored, crc, raw: raw.len() }).unwrap();
    }
    archive.note_file(b"x", 0, 1).unwrap();
    archive.finish().unwrap()
}

fn manifest(recipe: &Recipe, system: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut manifest = ManifestWriter::new(&mut out, 1, system).unwrap();
    let mut listed = std::collections::BTreeSet::new();
    let mut list = |path: &str, content: &[u8]| {
        if recipe.unlisted.as_deref() == Some(path) || !listed.insert(path.to_string()) {
            return;
        }
        let wrong = u8::from(recipe.wrong_sum.as_deref() == Some(path));
        let (name, mut sum) = match recipe.checksum {
            Checksum::Crc32c => ("CRC32C", crc32c_bytes(crc32c::crc32c(content)).to_vec()),
            Checksum::Sha256 => ("SHA256", Sha256::digest(content).to_vec()),
        };
        sum[0] ^= wrong;
        manifest.file(path.as_bytes(), content.len() as u64, 0, Some((name, &sum))).unwrap();
    };
    let plain =
        |path: &str| Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    for entry in &recipe.base {
        if let (What::File(content), true) = (&entry.what, plain(&entry.path)) {
            list(&entry.path, content);
        }
    }
    for entry in &recipe.tablespace {
        if let (What::File(content), true) = (&entry.what, plain(&entry.path)) {
            list(&format!("pg_tblspc/{OID}/{}", entry.path), content);
        }
    }
    recipe.only_listed.iter().for_each(|path| list(path, b"abc"));
    manifest.wal_range(Timeline(1), Lsn(0x0020_0028), Lsn(0x0020_0100)).unwrap();
    manifest.finish().unwrap();
    out
}
