//! Readers that take their whole input at once: PostgreSQL's own files, names, and text.

use pg_ark_contract::{Error, Lsn, SegmentSize, Timeline};
use pg_ark_engine::postgres::backup_label::{BackupLabel, format_tablespace_map, parse_tablespace_map};
use pg_ark_engine::postgres::control_file::ControlFile;
use pg_ark_engine::postgres::data_directory;
use pg_ark_engine::postgres::manifest::{ManifestFile, ManifestReader, ManifestWriter};
use pg_ark_engine::postgres::page::{PageCheck, checksum};
use pg_ark_engine::postgres::relation_file::{self, RelationFile};
use pg_ark_engine::postgres::timeline::{TimelineHistory, timeline_of_history_file};
use pg_ark_engine::postgres::wal_segment::{self, SegmentName};
use pg_ark_engine::repository::layout;
use pg_ark_engine::restore::config_text::{self, Include};
use pg_ark_engine::schedule::cron::Schedule;
use pg_ark_engine::stored::names as stored_names;
use pg_ark_engine::wal::archive::WalFile;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Component, Path};

/// A message is a line that a terminal can show: nothing in it comes unescaped from what was read.
pub fn assert_showable(error: &Error) {
    let parts = [Some(&error.message), error.detail.as_ref(), error.hint.as_ref()];
    for text in parts.into_iter().flatten() {
        assert!(!text.contains(|c: char| c.is_control()), "unescaped: {text:?}");
        assert!(text.len() < 8192, "a message of {} bytes", text.len());
    }
}

/// A source that gives a few bytes at a time.
struct Drops<'a>(&'a [u8], usize);

impl Read for Drops<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 % 13 + 1;
        let len = self.1.min(buf.len()).min(self.0.len());
        buf[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

/// `backup_manifest`, as it is, and with its checksum put right.
pub fn manifest(bytes: &[u8]) {
    manifest_as_it_is(bytes);
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let end = body.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let sum: String = Sha256::digest(&bytes[..end]).iter().map(|b| format!("{b:02x}")).collect();
    let mended = [&bytes[..end], format!("\"Manifest-Checksum\": \"{sum}\"}}\n").as_bytes()].concat();
    manifest_as_it_is(&mended);
}

fn manifest_as_it_is(bytes: &[u8]) {
    let whole = read_manifest(bytes);
    let drops = read_manifest(Drops(bytes, 0));
    assert_eq!(whole.is_ok(), drops.is_ok());
    let Ok((files, manifest)) = whole else { return };
    assert_eq!(drops.ok().map(|(same, _)| same), Some(files.clone()));
    assert_eq!(manifest.files, files.len() as u64);
    for file in &files {
        let path = Path::new(std::ffi::OsStr::new(std::str::from_utf8(&file.path).unwrap_or("x")));
        assert!(path.components().all(|c| matches!(c, Component::Normal(_))), "{path:?}");
    }
    // What was read can be written, and reads the same.
    let identifier = manifest.system_identifier.unwrap_or(0);
    let mut writer = ManifestWriter::new(Vec::new(), manifest.version, identifier).unwrap();
    for file in &files {
        let sum = file.checksum.as_ref().map(|(algorithm, sum)| (algorithm.name(), &sum[..]));
        writer.file(&file.path, file.size, file.modified.unwrap_or(0), sum).unwrap();
    }
    if writer.wal_ranges(&manifest.wal_ranges).is_ok() && !manifest.wal_ranges.is_empty() {
        let (again, _) = read_manifest(&writer.finish().unwrap()[..]).unwrap();
        let plain = |files: &[ManifestFile]| -> Vec<_> {
            files.iter().map(|f| (f.path.clone(), f.size, f.checksum.clone())).collect()
        };
        assert_eq!(plain(&again), plain(&files));
    }
}

type Listed = (Vec<ManifestFile>, pg_ark_engine::postgres::manifest::Manifest);

fn read_manifest(input: impl Read) -> Result<Listed, Error> {
    let read = || {
        let mut reader = ManifestReader::new(input)?;
        let mut files = Vec::new();
        while let Some(file) = reader.next_file()? {
            files.push(file);
        }
        Ok((files, reader.finish()?))
    };
    read().inspect_err(assert_showable)
}

/// `00000002.history`.
pub fn timeline_history(bytes: &[u8]) {
    for timeline in [2, 7, u32::MAX].map(Timeline) {
        let history = match TimelineHistory::parse(timeline, bytes) {
            Ok(history) => history,
            Err(error) => {
                assert_showable(&error);
                continue;
            }
        };
        assert!(history.entries.iter().all(|entry| entry.timeline < timeline));
        for lsn in [0, 1, 1 << 24, u64::MAX].map(Lsn) {
            let on = history.timeline_of(lsn);
            assert!(history.contains(on));
            let _ = (history.end_of(on), history.reaches(on, lsn));
            let _ = history.wal_ranges(on, lsn, Lsn(u64::MAX)).inspect_err(assert_showable);
            let _ = history.wal_ranges(Timeline(1), Lsn(0), lsn);
        }
        let again = TimelineHistory::parse(timeline, history.to_string().as_bytes()).unwrap();
        assert_eq!(again, history);
    }
}

/// A cron text, and after the end of its line the name of a time zone.
pub fn cron(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (cron, zone) = text.split_once('\n').unwrap_or((&text, "UTC"));
    for now in ["2026-10-25T00:59:59Z", "2026-03-08T06:59:59Z", "2028-02-28T23:59:59Z"] {
        let now = now.parse().unwrap();
        match Schedule::chosen(cron, zone, now) {
            Ok(schedule) => {
                let next = schedule.next(now).unwrap();
                assert!(next > now && schedule.last(next) == Some(next));
                assert!(schedule.last(now).is_none_or(|last| last <= now));
            }
            Err(error) => assert_showable(&error),
        }
    }
}

/// `backup_label`, and the backup history file.
pub fn backup_label(bytes: &[u8]) {
    match BackupLabel::parse(bytes) {
        Ok(label) => assert!(wal_segment::is_segment(&label.start_file)),
        Err(error) => assert_showable(&error),
    }
}

/// `tablespace_map`.
pub fn tablespace_map(bytes: &[u8]) {
    match parse_tablespace_map(bytes) {
        Ok(entries) => {
            let written = format_tablespace_map(&entries);
            assert_eq!(parse_tablespace_map(written.as_bytes()).unwrap(), entries);
        }
        Err(error) => assert_showable(&error),
    }
}

/// `global/pg_control`, as it is, and with its checksum put right.
pub fn pg_control(bytes: &[u8]) {
    let mut mended = bytes.to_vec();
    for at in [288, 292] {
        if let Some(sum) = bytes.get(..at).map(crc32c::crc32c)
            && let Some(place) = mended.get_mut(at..at + 4)
        {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        for bytes in [bytes, &mended] {
            match ControlFile::parse(bytes) {
                Ok(control) => {
                    assert!(control.block_size.is_power_of_two() && control.relation_segment_blocks > 0);
                    assert!(control.checkpoint_timeline.0 > 0);
                    let _ = control.server_major();
                }
                Err(error) => assert_showable(&error),
            }
        }
    }
}

/// Names of files and folders, and paths.
pub fn names(bytes: &[u8]) {
    if let Ok(path) = stored_names::safe_path(bytes).inspect_err(assert_showable) {
        assert!(path.components().all(|c| matches!(c, Component::Normal(_))), "{path:?}");
        assert!(Path::new("/x").join(&path).starts_with("/x"));
        let _ = (stored_names::tablespace_link(&path), stored_names::tablespace_of(&path));
        let _ = stored_names::in_version_folder(&path);
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = data_directory::judge(&text, |_| bytes.len().is_multiple_of(2));
    let _ = (relation_file::is_temporary(&text), data_directory::is_needed(&text));
    if let Some(file) = RelationFile::parse(&text) {
        assert!(text.ends_with(&file.file_name()));
        let _ = file.first_block(131_072);
    }
    for size in [1 << 20, 16 << 20, 1 << 30].map(|bytes| SegmentSize::new(bytes).unwrap()) {
        if let Some(name) = SegmentName::parse(&text, size) {
            assert_eq!(name.file_name(size), text);
            assert!(name.start(size) <= name.next().start(size));
        }
    }
    let _ = (WalFile::of(&text), timeline_of_history_file(&text), layout::is_backup_name(&text));
    let _ = layout::check_cluster_name(&text).inspect_err(assert_showable);
    let _ = text.parse::<Lsn>();
    let _ = text.parse::<pg_ark_contract::settings::Compression>();
}

/// Data pages: the first bytes say how they are looked at.
pub fn pages(bytes: &[u8]) {
    let (Some((block, rest)), Some(lsn)) = (bytes.split_first_chunk::<4>(), bytes.get(4..12)) else { return };
    let block = u32::from_le_bytes(*block);
    let start_lsn = Lsn(u64::from_le_bytes(lsn.try_into().unwrap()));
    for block_size in [0, 1, 8, 512, 8192, block, u32::MAX] {
        let mut damaged = Vec::new();
        PageCheck { block_size, start_lsn }.damaged(rest, block, &mut damaged);
        assert!(damaged.len() <= rest.len() / (block_size.max(1) as usize));
    }
    let _ = checksum(rest, block);
}

/// Configuration files that move: whatever a line includes is found again by what it is rewritten to.
pub fn config_text(bytes: &[u8]) {
    let (from, to) = (Path::new("/etc/postgresql"), Path::new("/data"));
    let moved = |_: Include, path: &Path| Some(Path::new("/data/in").join(path.strip_prefix("/").ok()?));
    let _ = config_text::included_folders(bytes, from);
    let (out, _) = config_text::rewrite(bytes, from, to, &moved);
    let includes = |bytes: &[u8]| -> Vec<(Include, std::path::PathBuf)> {
        let lines = bytes.split_inclusive(|b| *b == b'\n').map(String::from_utf8_lossy);
        lines.filter_map(|line| config_text::include(&line)).map(|(kind, path)| (kind, path.into())).collect()
    };
    let wanted: Vec<_> = includes(bytes)
        .into_iter()
        .map(|(kind, path)| {
            let old = config_text::normal(&from.join(path));
            (kind, moved(kind, &old).unwrap_or(old))
        })
        .collect();
    let found: Vec<_> =
        includes(&out).into_iter().map(|(kind, path)| (kind, config_text::normal(&to.join(path)))).collect();
    assert_eq!(found, wanted, "{}", String::from_utf8_lossy(&out));
}
