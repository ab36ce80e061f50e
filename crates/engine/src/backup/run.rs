//! One backup from beginning to end.

use super::archive::ArchiveWriter;
use super::archived::{self, Needed};
use super::begin::{self, Begun};
use super::books::Books;
use super::copy::Copier;
use super::member::Attributes;
use super::progress::Progress;
use super::read::ReadRules;
use super::serial::SerialWriter;
use super::wal::{self, WalSource};
use super::walk::{Found, Root, Walk};
use super::{config, finish};
use crate::postgres::backup_label::{BACKUP_LABEL, TABLESPACE_MAP, parse_tablespace_map};
use crate::postgres::control_file::CONTROL_FILE;
use crate::postgres::data_directory::version_directory;
use crate::postgres::page::PageCheck;
use crate::repository::Storage;
use crate::repository::layout;
use crate::repository::lease::{HeldLease, RENEW_EVERY};
use crate::repository::record::{ArchiveContent, Record, TablespaceRecord};
use crate::session::{BackupStopped, Session};
use crate::wal::Archive;
use crate::wal::store::Source;
use pg_ark_contract::conversation::{BackupTask, Event, Phase};
use pg_ark_contract::rows::BackupRow;
use pg_ark_contract::{Error, ErrorKind, Lsn, Result, Timeline};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Takes a backup.
///
/// # Errors
/// What went wrong. The record then says `failed` and why, nothing else of it is left, and the lease is released.
pub fn run(storage: Storage, cluster: &str, task: &BackupTask, session: &Session) -> Result<BackupRow> {
    let begun = begin::begin(storage, cluster, task, session)?;
    attend(&begun, session, || Work { begun: &begun, task, session }.run())
}

/// Does the work of a backup that has begun: its start is told, its lease renewed, and its failure written down.
///
/// # Errors
/// Those of `work`. The record then says `failed` and why, and nothing else of the backup is left.
pub fn attend(begun: &Begun, session: &Session, work: impl FnOnce() -> Result<Record>) -> Result<BackupRow> {
    session.emit(Event::Started { backup: begun.record.backup.clone() });
    let (alive, end) = channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| renew_lease(&begun.lease, end, session));
        let result = work();
        drop(alive);
        result
    });
    match result {
        Ok(record) => Ok(record.row()),
        Err(e) => {
            let storage = begun.cluster.storage();
            if let Some(vanished) = vanished(begun) {
                storage.remove_remains(&begun.folder);
                return Err(vanished.detail(e));
            }
            let mut record = begun.record.clone();
            record.error = Some(e.to_string());
            if let Err(second) = finish::mark_failed(storage, &begun.folder, record) {
                eprintln!("pgark: could not mark backup \"{}\" as failed: {second}", begun.record.backup);
            }
            Err(e)
        }
    }
}

/// The error when somebody removed the repository meanwhile: then nothing is written that would look like one.
fn vanished(begun: &Begun) -> Option<Error> {
    let url = begun.cluster.storage().url();
    let gone = matches!(begun.cluster.storage().size(layout::REPOSITORY), Ok(None));
    gone.then(|| {
        Error::new(
            ErrorKind::RepositoryNotFound,
            format!("repository \"{url}\" vanished while backup \"{}\" was written", begun.record.backup),
        )
        .hint("Find out who removed it, then create it again with ark.enable.")
    })
}

/// Keeps the lease until the other end of `end` is dropped. A lost lease stops the backup.
fn renew_lease(lease: &HeldLease, end: Receiver<()>, session: &Session) {
    while end.recv_timeout(Duration::from_secs(RENEW_EVERY)) == Err(RecvTimeoutError::Timeout) {
        // A store that fails for a moment is no reason; a lease that somebody else may take is.
        if let Err(e) = lease.renew()
            && (matches!(e.kind, ErrorKind::Busy | ErrorKind::Corrupt) || lease.is_expired())
        {
            session.stop(e);
            return;
        }
    }
}

/// How long a DROP TABLESPACE may take between its two last steps.
const DROP_TIME: Duration = Duration::from_secs(1);

struct Work<'a> {
    begun: &'a Begun,
    task: &'a BackupTask,
    session: &'a Session,
}

/// Where the backup starts, as pg_backup_start said.
#[derive(Clone, Copy)]
struct Start {
    lsn: Lsn,
    timeline: Timeline,
}

impl Work<'_> {
    fn run(&self) -> Result<Record> {
        let before = self.tablespaces()?;
        let mut total = self.size_of(self.base(&before))?;
        for (_, root) in &before {
            total += self.size_of(root.clone())?;
        }
        let progress = Progress::new(self.session, total, before.len() as u32 + 1, self.task.max_rate);
        progress.tell(Phase::Estimate);
        let (lsn, timeline) = self.session.start_backup()?;
        let start = Start { lsn, timeline };
        // Looked at again: WAL knows of tablespaces that are made from now on, but not of any made before.
        let tablespaces = self.tablespaces()?;
        let mut record = self.begun.record.clone();
        record.start_lsn = Some(lsn);
        record.timeline = Some(timeline);
        record.save(self.begun.cluster.storage(), &self.begun.folder)?;
        std::thread::scope(|scope| {
            // Whoever fails first stops the other; the first reason counts.
            let wal = scope.spawn(|| self.follow_wal(start).inspect_err(|e| self.session.stop(e.clone())));
            let copied = self
                .copy_data(record, &tablespaces, start, &progress)
                .inspect_err(|e| self.session.stop(e.clone()));
            if copied.is_ok() {
                progress.tell(Phase::Wal);
            }
            let wal = wal.join().unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Internal, "the thread that follows WAL panicked"))
            });
            let (Ok(wal), Ok((mut record, books, stopped))) = (wal, copied) else {
                self.session.check()?;
                return Err(Error::new(ErrorKind::Internal, "a backup failed without a reason"));
            };
            record.archives.extend(wal.map(ArchiveWriter::finish).transpose()?);
            self.store_config(&mut record)?;
            if !self.task.include_wal {
                self.wait_for_archive(start, stopped.stop_lsn, &progress)?;
            }
            progress.tell(Phase::Finish);
            self.session.check()?;
            record.warnings = self.session.warnings();
            let range = (start.timeline, start.lsn, stopped.stop_lsn);
            finish::complete(self.begun, record, books, range)
        })
    }

    /// Tablespaces outside the data directory: the links in `pg_tblspc`, as (OID, root of a walk).
    fn tablespaces(&self) -> Result<Vec<(u32, Root)>> {
        let folder = self.begun.data_directory.join("pg_tblspc");
        let failed = |e: &std::io::Error| Error::io(format!("could not read \"{}\"", folder.display()), e);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let Some(oid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if !entry.file_type().map_err(|e| failed(&e))?.is_symlink() {
                continue;
            }
            let target = match std::fs::read_link(entry.path()) {
                Ok(target) => target,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(&e)),
            };
            let only = version_directory(self.server_major(), self.begun.control.catalog_version);
            if !self.is_there(&entry.path(), &target.join(&only))? {
                continue;
            }
            found.push((
                oid,
                Root {
                    disk: target,
                    logical: format!("pg_tblspc/{oid}"),
                    only: Some(only),
                    links: Vec::new(),
                    server_major: self.server_major(),
                },
            ));
        }
        found.sort_by_key(|(oid, _)| *oid);
        Ok(found)
    }

    /// Whether the tablespace at `link` has its folder; an error where only the folder is gone: its file system is not
    /// mounted, and without it the backup would seem complete.
    fn is_there(&self, link: &Path, folder: &Path) -> Result<bool> {
        if folder.is_dir() {
            return Ok(true);
        }
        // DROP TABLESPACE removes the folder first, then the link.
        self.session.pause(DROP_TIME)?;
        if link.symlink_metadata().is_err() {
            return Ok(false);
        }
        if folder.is_dir() {
            return Ok(true);
        }
        Err(Error::new(ErrorKind::ServerNotReady, format!("tablespace folder \"{}\" is missing", folder.display()))
            .hint("Mount its file system or bring the folder back; or drop the tablespace when it is lost for good."))
    }

    fn size_of(&self, root: Root) -> Result<u64> {
        let mut sum = 0;
        for found in Walk::new(root, None)? {
            if let Found::File(file) = found? {
                sum += file.size;
            }
            self.session.check()?;
        }
        Ok(sum)
    }

    /// The archive of WAL, when it goes into the backup.
    fn follow_wal(&self, start: Start) -> Result<Option<ArchiveWriter>> {
        let source = WalSource {
            folder: self.begun.data_directory.join("pg_wal"),
            start: start.lsn,
            timeline: start.timeline,
            segment_size: self.begun.control.wal_segment_size,
            system_identifier: self.begun.control.system_identifier,
            server_major: self.server_major(),
        };
        if !self.task.include_wal {
            return wal::watch(&source, self.session).map(|()| None);
        }
        let archive = self.archive("pg_wal", ArchiveContent::Wal)?;
        wal::copy(&source, archive, self.task.compression, self.session).map(Some)
    }

    fn wait_for_archive(&self, start: Start, stop: Lsn, progress: &Progress<'_>) -> Result<()> {
        let control = &self.begun.control;
        let archive = Archive::of(&self.begun.cluster, control.system_identifier);
        let needed = Needed {
            start: start.lsn,
            stop,
            timeline: start.timeline,
            source: Source {
                folder: self.begun.data_directory.join("pg_wal"),
                segment_size: control.wal_segment_size,
                server_major: Some(self.server_major()),
            },
            data_directory: self.begun.data_directory.clone(),
            from_standby: self.task.in_recovery,
        };
        let patience = Duration::from_secs(u64::from(self.task.archive_wait));
        archived::wait(&archive, &needed, patience, self.session, &|| progress.tell(Phase::Wal))
    }

    /// Tablespaces, then the data directory, pg_control, and after pg_backup_stop the label.
    fn copy_data(
        &self,
        mut record: Record,
        tablespaces: &[(u32, Root)],
        start: Start,
        progress: &Progress<'_>,
    ) -> Result<(Record, Books, BackupStopped)> {
        let manifest = format!("{}/{}", self.begun.folder, layout::MANIFEST);
        let upload = self.begun.cluster.storage().upload(&manifest)?;
        let system = self.begun.control.system_identifier;
        let mut books = Books::new(upload, self.server_major(), system, self.task.checksum)?
            .with_names(&self.begun.data_directory);
        let copier = self.copier(start, progress);
        for (oid, root) in tablespaces {
            let archive = self.archive(&oid.to_string(), ArchiveContent::Tablespace(*oid))?;
            let walk = Walk::new(root.clone(), Some(self.session))?;
            let bytes_before = books.data_bytes;
            let (archive, after) = copier.copy(walk, archive, books)?;
            books = after;
            let writer = SerialWriter::new(archive, self.task.compression, self.session)?;
            record.archives.push(writer.end()?.finish()?);
            record.tablespaces.push(TablespaceRecord {
                oid: *oid,
                path: root.disk.to_string_lossy().into_owned(),
                data_bytes: books.data_bytes - bytes_before,
            });
            progress.tablespace_done();
        }
        let archive = self.archive("base", ArchiveContent::Base)?;
        let walk = Walk::new(self.base(tablespaces), Some(self.session))?;
        let (archive, mut books) = copier.copy(walk, archive, books)?;
        let mut writer = SerialWriter::new(archive, self.task.compression, self.session)?;
        let (_, control) = begin::read_control_file(&self.begun.data_directory, self.session)?;
        self.last_member(CONTROL_FILE, &control, &mut writer, &mut books)?;
        progress.tablespace_done();
        let stopped = self.session.stop_backup()?;
        self.last_member(BACKUP_LABEL, &stopped.backup_label, &mut writer, &mut books)?;
        if !stopped.tablespace_map.is_empty() {
            self.last_member(TABLESPACE_MAP, &stopped.tablespace_map, &mut writer, &mut books)?;
        }
        record.archives.push(writer.end()?.finish()?);
        self.dropped_tablespaces(&mut record, &stopped)?;
        self.new_tablespaces(&mut record)?;
        Ok((record, books, stopped))
    }

    /// Tablespaces that pg_backup_start saw and that were dropped before we looked: recovery makes their links and
    /// replays their end, so they need an archive, if an empty one.
    fn dropped_tablespaces(&self, record: &mut Record, stopped: &BackupStopped) -> Result<()> {
        for entry in parse_tablespace_map(&stopped.tablespace_map)? {
            if record.tablespaces.iter().any(|t| t.oid == entry.oid) {
                continue;
            }
            let archive = self.archive(&entry.oid.to_string(), ArchiveContent::Tablespace(entry.oid))?;
            let writer = SerialWriter::new(archive, self.task.compression, self.session)?;
            record.archives.push(writer.end()?.finish()?);
            record.tablespaces.push(TablespaceRecord { oid: entry.oid, path: entry.path, data_bytes: 0 });
        }
        Ok(())
    }

    /// Tablespaces that came since pg_backup_start: they are in the WAL alone, and with them their places.
    fn new_tablespaces(&self, record: &mut Record) -> Result<()> {
        for (oid, root) in self.tablespaces()? {
            if record.tablespaces.iter().any(|t| t.oid == oid) {
                continue;
            }
            let path = root.disk.to_string_lossy().into_owned();
            self.session.warn(
                format!("a tablespace was created at \"{path}\" while the backup was taken"),
                Some("Recovery will create it there again. A backup taken now can put it elsewhere.".into()),
            );
            record.new_tablespaces.push(path);
        }
        Ok(())
    }

    fn copier<'b>(&'b self, start: Start, progress: &'b Progress<'b>) -> Copier<'b> {
        let control = &self.begun.control;
        let pages = control
            .has_page_checksums()
            .then_some(PageCheck { block_size: control.block_size, start_lsn: start.lsn });
        let jobs = match self.task.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs as usize,
        };
        Copier {
            jobs,
            compression: self.task.compression,
            rules: ReadRules {
                pages,
                block_size: control.block_size,
                relation_segment_blocks: control.relation_segment_blocks,
                checksum: self.task.checksum,
            },
            session: self.session,
            progress,
        }
    }

    fn last_member(
        &self,
        path: &str,
        content: &[u8],
        writer: &mut SerialWriter<'_>,
        books: &mut Books,
    ) -> Result<()> {
        let home = &self.begun.record.data_directory;
        // Group access as the data directory has it (pg_file_create_mode, common/file_perm.h).
        let mode = if home.mode & 0o050 == 0o050 { 0o640 } else { 0o600 };
        let mtime = chrono::Utc::now().timestamp();
        let attributes = Attributes { mode, uid: home.uid, gid: home.gid, mtime };
        writer.file(path.as_bytes(), content.len() as u64, attributes, &mut &content[..], path)?;
        books.enter_whole(path, content, mtime)
    }

    fn store_config(&self, record: &mut Record) -> Result<()> {
        let files = config::plan(&self.task.config_files, &self.begun.data_directory);
        if files.is_empty() {
            return Ok(());
        }
        let archive = self.archive("config", ArchiveContent::Config)?;
        let (archive, stored) = config::store(&files, archive, self.task.compression, self.session)?;
        record.archives.push(archive.finish()?);
        record.config_files = stored;
        Ok(())
    }

    fn archive(&self, stem: &str, content: ArchiveContent) -> Result<ArchiveWriter> {
        let storage = self.begun.cluster.storage();
        let codec = self.task.compression.codec;
        ArchiveWriter::new(storage, &self.begun.folder, stem, content, codec, self.task.volume_size)
    }

    fn base(&self, tablespaces: &[(u32, Root)]) -> Root {
        Root {
            disk: self.begun.data_directory.clone(),
            logical: String::new(),
            only: None,
            links: tablespaces.iter().map(|(oid, _)| *oid).collect(),
            server_major: self.server_major(),
        }
    }

    fn server_major(&self) -> u32 {
        self.task.server_version_num / 10_000
    }
}
