//! One complete backup, read and proved; a logical one by [`super::logical`].
//!
//! 1. [`record`]: the record in itself, and its objects by name and size. That is all of level record.
//! 2. [`frames`]: every archive, frame by frame and in parallel; an archive whose index cannot be used as a stream.
//!    [`walk`] goes over the tar in order and knows by [`places`] where it can go on behind damage; [`files`] proves
//!    content, [`pages`] their pages.
//! 3. [`wal`]: the WAL that recovery needs.
//!
//! Nothing is read twice. In memory are the manifest, the places of files, and a frame or two for each thread.

pub mod contradictions;
pub mod files;
pub mod frames;
pub mod pages;
pub mod places;
pub mod record;
pub mod wal;
pub mod walk;

use super::Watch;
use super::findings::{Finding, Findings};
use super::logical;
use crate::repository::record::ArchiveContent;
use crate::repository::{Record, Storage, layout};
use crate::stored::expected::Expected;
use crate::stored::faults::Fault;
use crate::wal::archive::Archive;
use pg_ark_contract::conversation::{BackupKind, Level};
use pg_ark_contract::rows::Severity;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// What is looked at, and who hears of it.
pub struct Subject<'a> {
    /// The repository.
    pub storage: &'a Storage,
    /// The name of the cluster.
    pub cluster: &'a str,
    /// The backup's folder in it.
    pub folder: &'a str,
    /// The backup.
    pub record: &'a Record,
    /// How much is read.
    pub level: Level,
    /// Threads.
    pub jobs: usize,
    /// Where findings go.
    pub findings: &'a Findings,
    /// Hears how far it is.
    pub watch: &'a dyn Watch,
}

/// What the archives must hold.
pub struct Books {
    /// What the manifest lists; nothing when it is damaged.
    pub expected: Expected,
    /// The manifest could be read.
    pub has_manifest: bool,
    /// WAL that must be in the backup.
    pub wal: Option<wal::Needed>,
    /// Volumes that are missing or have another size, by the number of the archive and their own.
    pub volumes: BTreeSet<(usize, u32)>,
}

impl Subject<'_> {
    /// Looks at the backup. `archive` has the WAL that it needs and does not have itself; `alone`: nobody looks at the
    /// archive as a whole.
    ///
    /// # Errors
    /// What the store or the watch said. Damage of what is stored is a finding.
    pub fn look(&self, archive: &Archive, alone: bool) -> Result<()> {
        if self.record.kind == BackupKind::Logical {
            return logical::look(self);
        }
        record::tell_source_damage(self);
        record::consistent(self);
        if !record::names_are_plain(self.record) {
            // Whatever it names is not of this backup.
            return Ok(());
        }
        let mut volumes = record::objects(self)?;
        let needed = wal::Needed::of(self.record);
        if self.level == Level::Record {
            for ((number, volume), fault) in volumes {
                self.tell_volume(number, volume, &fault);
            }
        } else {
            let expected = self.manifest()?;
            let books = Books {
                has_manifest: expected.is_some(),
                expected: expected.unwrap_or_default(),
                wal: needed.filter(|_| self.record.wal_included),
                volumes: volumes.keys().copied().collect(),
            };
            frames::read(self, &books, &mut volumes)?;
            for ((number, volume), fault) in volumes {
                self.tell_volume(number, volume, &fault);
            }
        }
        match needed.filter(|_| !self.record.wal_included) {
            Some(needed) if alone => wal::archived(self, archive, &needed),
            Some(needed) if self.level == Level::Record => wal::sizes(self, archive, &needed),
            _ => Ok(()),
        }
    }

    /// Path of an object in the repository.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// Number of the archive that holds a file of the manifest.
    pub fn archive_of(&self, path: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(path).unwrap_or_default();
        let own = text.strip_prefix("pg_tblspc/").and_then(|rest| rest.split_once('/')?.0.parse().ok());
        let at = |content| self.record.archives.iter().position(|archive| archive.content == content);
        own.and_then(|oid| at(ArchiveContent::Tablespace(oid))).or_else(|| at(ArchiveContent::Base))
    }

    /// Tells about an index: it only makes reading faster.
    pub fn tell_index(&self, name: &str, what: &str) {
        let finding = Finding::new(Severity::Warning, self.path(name), what);
        let hint = "Nothing is lost: without its index an archive is restored by one thread, and whole only.";
        self.findings.add(finding.hint(hint));
    }

    /// Makes a finding of an error about what is stored.
    ///
    /// # Errors
    /// The error, when it is about the work; `RepositoryUnusable` when the repository went away.
    pub fn tolerate(&self, error: Error, finding: impl FnOnce(&Error) -> Finding) -> Result<()> {
        if !wal::is_own(&error) {
            return Err(error);
        }
        still_there(self.storage, &error)?;
        self.findings.add(finding(&error));
        Ok(())
    }

    pub(super) fn tell_volume(&self, number: usize, volume: u32, fault: &Fault) {
        let archive = self.record.archives.get(number);
        if let Some(object) = archive.and_then(|archive| archive.volumes.get(volume as usize)) {
            self.findings.add(Finding::fault(self.path(&object.name), fault));
        }
    }

    /// What the manifest lists; none when it cannot be read.
    fn manifest(&self) -> Result<Option<Expected>> {
        let Some(object) = &self.record.manifest else { return Ok(None) };
        let path = self.path(&object.name);
        if self.findings.knows(&path) {
            return Ok(None);
        }
        match Expected::load(self.storage, self.folder, self.record, &mut std::io::sink()) {
            Ok(expected) => {
                self.watch.advance(object.size);
                record::agrees(self, &expected);
                Ok(Some(expected))
            }
            Err(error) if error.kind == ErrorKind::Unsupported => {
                self.findings.add(Finding::new(Severity::Error, path, error.to_string()));
                Ok(None)
            }
            Err(error) => {
                let hint = error.hint.clone().unwrap_or_else(|| "Restore another backup.".into());
                self.tolerate(error, |error| {
                    Finding::new(Severity::Error, path, error.to_string()).hint(hint)
                })?;
                Ok(None)
            }
        }
    }
}

/// Fails when the repository is not there any more.
///
/// # Errors
/// `RepositoryUnusable`, with `error` as its cause.
pub fn still_there(storage: &Storage, error: &Error) -> Result<()> {
    match storage.size(layout::REPOSITORY)? {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::RepositoryUnusable,
            format!("repository \"{}\" went away while it was read", storage.url()),
        )
        .detail(error)
        .hint("Look whether its disk is mounted, then try again.")),
    }
}
