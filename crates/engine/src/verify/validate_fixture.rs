//! A repository for tests: the golden backup, stored again with another codec, smaller frames and volumes.

use crate::backup::archive::{ArchiveWriter, EncodedFrame};
use crate::codec::frame::{Encoder, stream};
use crate::postgres::manifest::{Manifest, ManifestWriter, crc32c_bytes};
use crate::repository::record::{ArchiveContent, ArchiveRecord, ObjectRecord};
use crate::repository::{Cluster, Record, Repository};
use crate::stored::tar_reader::{Kind, Member, Sink, TarReader};
use crate::verify::backup::places::listed_path;
use crate::verify::{Request, Watch, validate};
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::FindingRow;
use pg_ark_contract::settings::{Checksum, Compression};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Hears nothing.
pub(crate) struct Deaf;

impl Watch for Deaf {
    fn check(&self) -> pg_ark_contract::Result<()> {
        Ok(())
    }
}

/// The files of a tar: path, first byte of the content, size.
#[derive(Default)]
pub(crate) struct Files(pub Vec<(Vec<u8>, usize, usize)>);

impl Sink for Files {
    fn member(&mut self, member: Member) -> pg_ark_contract::Result<()> {
        if member.kind == Kind::File {
            self.0.push((member.path, member.content_at as usize, member.size as usize));
        }
        Ok(())
    }
    fn content(&mut self, _: u64, _: Range<usize>) -> pg_ark_contract::Result<()> {
        Ok(())
    }
}

pub(crate) fn files_of(tar: &[u8]) -> Vec<(Vec<u8>, usize, usize)> {
    let mut files = Files::default();
    TarReader::new().feed(tar, &mut files).unwrap();
    files.0
}

/// How a backup is stored.
pub(crate) struct Form {
    pub compression: &'static str,
    pub checksum: Checksum,
    pub frame: usize,
    pub volume_size: u64,
}

impl Default for Form {
    fn default() -> Self {
        Form { compression: "zstd:1", checksum: Checksum::Crc32c, frame: 50_000, volume_size: 1 << 40 }
    }
}

/// A repository with one backup.
pub(crate) struct Stored {
    _dir: tempfile::TempDir,
    pub cluster: Cluster,
    pub folder: String,
    pub record: Record,
    form: Form,
}

impl Stored {
    pub(crate) fn new(form: Form) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/zstd");
        let golden =
            Repository::open(&format!("file://{}", golden.display())).unwrap().cluster("main").unwrap();
        let (mut record, from) = golden.backup(&golden.backups().unwrap()[0].backup).unwrap();
        let from = golden.storage().folder().join(from);
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let (repository, _) = Repository::open_or_create(&url).unwrap();
        let mut cluster = repository.cluster("main").unwrap();
        let system = record.system_identifier.parse().unwrap();
        cluster.remember_system(system, record.server_version_num).unwrap();
        let folder = cluster.backup_folder(system, &record.backup);
        let tars: Vec<_> = record
            .archives
            .iter()
            .map(|archive| {
                let bytes = std::fs::read(from.join(&archive.name)).unwrap();
                let mut tar = Vec::new();
                let codec = record.compression.codec;
                stream(codec, &bytes[..]).unwrap().read_to_end(&mut tar).unwrap();
                (archive.content, tar)
            })
            .collect();
        let manifest = std::fs::read(from.join("backup_manifest")).unwrap();
        record.compression = form.compression.parse().unwrap();
        record.checksum = form.checksum;
        record.unsealed = false;
        let archives = std::mem::take(&mut record.archives);
        let mut stored = Stored { _dir: dir, cluster, folder, record, form };
        for ((content, tar), old) in tars.iter().zip(&archives) {
            let stem = old.name.split('.').next().unwrap();
            let archive = stored.store(stem, *content, tar);
            stored.record.archives.push(archive);
        }
        stored.put_manifest(&manifest);
        if stored.form.checksum == Checksum::Sha256 {
            stored.make_manifest();
        }
        stored
    }

    pub(crate) fn store(&self, stem: &str, content: ArchiveContent, tar: &[u8]) -> ArchiveRecord {
        let compression: Compression = self.form.compression.parse().unwrap();
        let (storage, size) = (self.cluster.storage(), self.form.volume_size);
        let mut writer =
            ArchiveWriter::new(storage, &self.folder, stem, content, compression.codec, size).unwrap();
        let mut encoder = Encoder::new(compression).unwrap();
        let files = files_of(tar);
        for (number, raw) in tar.chunks(self.form.frame).enumerate() {
            let stored = encoder.encode(raw).unwrap();
            let crc = crc32c::crc32c(&stored);
            writer.append(EncodedFrame { stored, crc, raw: raw.len() }).unwrap();
            let start = number * self.form.frame;
            for (path, at, size) in files.iter().filter(|f| (start..start + raw.len()).contains(&f.1)) {
                writer.note_file(path, at - start, *size as u64).unwrap();
            }
        }
        writer.finish().unwrap()
    }

    /// The tar of an archive.
    pub(crate) fn tar(&self, archive: &ArchiveRecord) -> Vec<u8> {
        let mut stored = Vec::new();
        for volume in &archive.volumes {
            stored.extend(std::fs::read(self.object(&volume.name)).unwrap());
        }
        let mut tar = Vec::new();
        stream(self.record.compression.codec, &stored[..]).unwrap().read_to_end(&mut tar).unwrap();
        tar
    }

    /// Changes the tar of an archive and all that vouches for it.
    pub(crate) fn change_tar(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let at = self.record.archives.iter().position(|a| a.name.starts_with(name)).unwrap();
        let old = self.record.archives[at].clone();
        let mut tar = self.tar(&old);
        change(&mut tar);
        let stem = old.name.split('.').next().unwrap();
        self.record.archives[at] = self.store(stem, old.content, &tar);
        self.save();
    }

    /// Makes a manifest that agrees with the archives.
    pub(crate) fn make_manifest(&mut self) {
        let tars: Vec<_> = self.record.archives.iter().map(|a| (a.content, self.tar(a))).collect();
        let old = std::fs::read(self.object("backup_manifest")).unwrap();
        let (manifest, files, bytes) = manifest_of(&old, &tars, self.form.checksum);
        (self.record.files, self.record.data_bytes) = (files, bytes);
        self.put_manifest(&manifest);
    }

    pub(crate) fn put_manifest(&mut self, manifest: &[u8]) {
        self.cluster.storage().put(&format!("{}/backup_manifest", self.folder), manifest.to_vec()).unwrap();
        self.record.manifest = Some(ObjectRecord {
            name: "backup_manifest".into(),
            size: manifest.len() as u64,
            crc32c: format!("{:08x}", crc32c::crc32c(manifest)),
        });
        self.save();
    }

    pub(crate) fn save(&mut self) {
        self.record.stored_bytes = crate::backup::finish::objects(&self.record).map(|o| o.size).sum();
        self.record.save(self.cluster.storage(), &self.folder).unwrap();
    }

    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.cluster.storage().folder().join(&self.folder).join(name)
    }

    /// Path in the repository.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    pub(crate) fn rows(&self, backup: bool, level: Level, jobs: usize) -> Vec<FindingRow> {
        let backup = backup.then(|| self.record.backup.clone());
        validate(&self.cluster, &Request { backup, level, jobs }, &Deaf).unwrap()
    }

    /// What is found in the backup at level data, as `object: finding`.
    pub(crate) fn told(&self) -> Vec<String> {
        let rows = self.rows(true, Level::Data, 2);
        let prefix = format!("{}/", self.folder);
        let line = |row: FindingRow| {
            format!("{} {}: {}", row.severity.as_str(), row.object.trim_start_matches(&prefix), row.finding)
        };
        rows.into_iter().map(line).collect()
    }
}

type Tars = [(ArchiveContent, Vec<u8>)];

/// A manifest of what is in the tars, for the WAL that `old` names. Returns it, the files and their bytes.
fn manifest_of(old: &[u8], tars: &Tars, checksum: Checksum) -> (Vec<u8>, u64, u64) {
    let old = Manifest::read(old, |_| Ok(())).unwrap();
    let (mut out, mut files, mut bytes) = (Vec::new(), 0, 0);
    let mut writer = ManifestWriter::new(&mut out, old.version, 0).unwrap();
    for (content, tar) in tars {
        for (path, at, size) in files_of(tar) {
            let Some(path) = listed_path(*content, &path) else { continue };
            let content = &tar[at..at + size];
            let (name, sum) = match checksum {
                Checksum::Crc32c => ("CRC32C", crc32c_bytes(crc32c::crc32c(content)).to_vec()),
                Checksum::Sha256 => ("SHA256", Sha256::digest(content).to_vec()),
            };
            writer.file(&path, size as u64, 0, Some((name, &sum))).unwrap();
            (files, bytes) = (files + 1, bytes + size as u64);
        }
    }
    writer.wal_ranges(&old.wal_ranges).unwrap();
    writer.finish().unwrap();
    (out, files, bytes)
}
