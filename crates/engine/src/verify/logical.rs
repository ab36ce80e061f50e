//! One complete logical backup, read and proved.
//!
//! 1. The record in itself, and its objects by name and size. That is all of level `record`.
//! 2. Every dump is read once: its checksum is compared with the record's while `pg_restore` reads the table of contents and
//!    expands everything. So are the globals and the configuration files.
//!
//! Without a `pg_restore` that knows the dumps, their checksums must do: a warning says so. What `pg_restore` writes is thrown
//! away.

use super::backup::{Books, Subject, frames, record, wal};
use super::findings::Finding;
use super::loose::of_error;
use crate::codec::frame;
use crate::logical::child::{Ended, Keeper};
use crate::logical::programs::Programs;
use crate::logical::stored::{self, Dump};
use crate::repository::layout;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::stored::expected::Expected;
use crate::stored::faults::Fault;
use crate::stored::objects::ObjectReader;
use pg_ark_contract::conversation::Level;
use pg_ark_contract::rows::Severity;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of text that are expanded at a time.
const CHUNK: usize = 256 << 10;
/// Most letters of what a program said that are shown.
const MAX_SAID: usize = 500;
const UNREADABLE: &str = "Its bytes are what was stored, so it was broken from the beginning. Restore another backup, and take a new one.";

/// Looks at the backup.
///
/// # Errors
/// What the store or the watch said. Damage of what is stored is a finding.
pub fn look(subject: &Subject<'_>) -> Result<()> {
    record::consistent(subject);
    // Whatever it names then is not of this backup, and that is told.
    let Ok(logical) = stored::check(subject.record) else { return Ok(()) };
    let mut volumes = record::objects(subject)?;
    if subject.level != Level::Record {
        let books = Books {
            expected: Expected::default(),
            has_manifest: false,
            wal: None,
            volumes: volumes.keys().copied().collect(),
        };
        frames::read(subject, &books, &mut volumes)?;
        content(subject, logical)?;
    }
    for ((number, volume), fault) in volumes {
        subject.tell_volume(number, volume, &fault);
    }
    Ok(())
}

/// Globals and dumps.
fn content(subject: &Subject<'_>, logical: &LogicalRecord) -> Result<()> {
    let programs = match Programs::for_restore(None, subject.record.server_version_num / 10_000) {
        Ok(programs) => Some(programs),
        Err(error) => {
            let what = format!("its dumps were not expanded, only their checksums were looked at: {error}");
            let finding = Finding::new(Severity::Warning, subject.path(layout::RECORD), what);
            subject.findings.add(finding.hint(error.hint.unwrap_or_default()));
            None
        }
    };
    let halted = AtomicBool::new(false);
    let stop = || match halted.load(Ordering::Relaxed) {
        true => Err(Error::new(ErrorKind::Cancelled, "another thread failed")),
        false => subject.watch.check(),
    };
    Keeper::with(&stop, |keeper| {
        let reader = Reader { subject, keeper, stop: &stop, programs: programs.as_ref() };
        reader.globals(logical)?;
        reader.dumps(logical, &halted)
    })
}

struct Reader<'a> {
    subject: &'a Subject<'a>,
    keeper: &'a Keeper<'a>,
    stop: &'a (dyn Fn() -> Result<()> + Sync),
    programs: Option<&'a Programs>,
}

impl Reader<'_> {
    /// Every dump, the largest first. `halted` ends what the other threads do.
    fn dumps(&self, logical: &LogicalRecord, halted: &AtomicBool) -> Result<()> {
        let mut databases: Vec<&DatabaseRecord> = logical.databases.iter().collect();
        databases.sort_by_key(|database| std::cmp::Reverse(self.dump_of(database).size()));
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.subject.jobs.clamp(1, databases.len().max(1)) {
                scope.spawn(|| {
                    while let Some(database) = databases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.dump(&self.dump_of(database)) {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            halted.store(true, Ordering::Relaxed);
                            return;
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn dump_of<'d>(&'d self, database: &'d DatabaseRecord) -> Dump<'d> {
        Dump::of(self.subject.storage, self.subject.folder, database)
    }

    fn dump(&self, dump: &Dump<'_>) -> Result<()> {
        match self.programs.filter(|_| !self.knows_fault(dump)) {
            Some(programs) => self.expand(dump, programs),
            None => self.volumes(dump, 0),
        }
    }

    /// Whether a volume is missing or has another size.
    fn knows_fault(&self, dump: &Dump<'_>) -> bool {
        dump.volumes().iter().any(|volume| self.subject.findings.knows(&dump.path_of(volume)))
    }

    /// Reads the volumes from number `from` on for their checksums alone.
    fn volumes(&self, dump: &Dump<'_>, from: usize) -> Result<()> {
        let mut watch = |bytes| {
            self.subject.watch.advance(bytes);
            (self.stop)()
        };
        for volume in dump.volumes().iter().skip(from) {
            let path = dump.path_of(volume);
            if self.subject.findings.knows(&path) {
                self.subject.watch.advance(volume.size);
                continue;
            }
            match dump.fault(volume, &mut watch) {
                Ok(fault) => {
                    fault.iter().for_each(|fault| self.subject.findings.add(Finding::fault(&path, fault)))
                }
                Err(error) => self.subject.tolerate(error, |error| of_error(path, error))?,
            }
        }
        Ok(())
    }

    /// Lets `pg_restore` read the dump, and compares checksums on the way.
    fn expand(&self, dump: &Dump<'_>, programs: &Programs) -> Result<()> {
        // The beginning is read twice, and counts once.
        let mut listing = Proved { counts: false, ..self.proved(dump) };
        let mut ended = self.pg_restore(programs, "--list", &mut listing);
        let mut proved = self.proved(dump);
        if listing.error.is_some() {
            proved = listing;
        } else if matches!(ended, Ok(Ended { success: true, .. })) {
            ended = self.pg_restore(programs, "--file=-", &mut proved);
        }
        if let Err(error) = &ended
            && !wal::is_own(error)
        {
            return ended.map(drop);
        }
        if !self.drain(dump, proved)? {
            return Ok(());
        }
        match ended {
            Ok(ended) if ended.success => {}
            Ok(ended) => self.tell_unreadable(dump, &format!("pg_restore cannot read it: {}", said(&ended))),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn pg_restore(&self, programs: &Programs, what: &str, input: &mut (dyn Read + Send)) -> Result<Ended> {
        let mut command = self.keeper.command(&programs.path("pg_restore"), None)?;
        command.args(["--format=custom", what]);
        self.keeper.feed(command, input, &mut |_| {})
    }

    /// The globals must expand to what they were.
    fn globals(&self, logical: &LogicalRecord) -> Result<()> {
        let dump = Dump::globals(self.subject.storage, self.subject.folder, logical);
        if self.knows_fault(&dump) {
            return self.volumes(&dump, 0);
        }
        let mut proved = self.proved(&dump);
        let expanded = self.expanded(logical, &mut proved);
        if !self.drain(&dump, proved)? {
            return Ok(());
        }
        match expanded {
            Ok(bytes) if bytes == logical.globals_bytes => {}
            Ok(_) => self.tell_unreadable(
                &dump,
                &format!("does not expand to the {} bytes of the record", logical.globals_bytes),
            ),
            Err(error) => self.tell_unreadable(&dump, &format!("does not decode: {error}")),
        }
        Ok(())
    }

    /// Bytes of the text, as far as one past what they should be.
    fn expanded(&self, logical: &LogicalRecord, proved: &mut Proved<'_>) -> std::io::Result<u64> {
        let text = frame::stream(self.subject.record.compression.codec, proved)?;
        let mut text = text.take(logical.globals_bytes.saturating_add(1));
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        loop {
            match text.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes += count as u64,
            }
        }
    }

    fn proved<'d>(&'d self, dump: &Dump<'d>) -> Proved<'d> {
        Proved { objects: dump.reader(), reader: self, error: None, counts: true }
    }

    /// Reads what nobody read, and tells which volume is not what was stored. Whether all of them are.
    fn drain(&self, dump: &Dump<'_>, mut proved: Proved<'_>) -> Result<bool> {
        let mut buffer = vec![0; CHUNK];
        while proved.error.is_none() {
            if matches!(proved.read(&mut buffer), Ok(0)) {
                return Ok(true);
            }
        }
        let Some(error) = proved.error.take() else { return Ok(true) };
        let at = proved.objects.current();
        let Some(volume) = dump.volumes().get(at) else { return Err(error) };
        self.subject.tolerate(error, |error| match error.kind {
            ErrorKind::Corrupt => Finding::fault(dump.path_of(volume), &Fault::changed()),
            _ => of_error(dump.path_of(volume), error),
        })?;
        self.volumes(dump, at + 1)?;
        Ok(false)
    }

    fn tell_unreadable(&self, dump: &Dump<'_>, what: &str) {
        let Some(first) = dump.volumes().first() else { return };
        self.subject.findings.add(Finding::new(Severity::Error, dump.path_of(first), what).hint(UNREADABLE));
    }
}

/// What a program said, in one line that steers no terminal.
fn said(ended: &Ended) -> String {
    ended.said().replace('\n', "; ").chars().take(MAX_SAID).flat_map(char::escape_debug).collect()
}

/// The volumes of a dump; keeps the first error, which `std::io` and whoever reads may lose.
struct Proved<'a> {
    objects: ObjectReader<'a>,
    reader: &'a Reader<'a>,
    error: Option<Error>,
    /// Whoever watches hears of what is read.
    counts: bool,
}

impl Read for Proved<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.error.is_some() {
            return Ok(0);
        }
        let read = (self.reader.stop)().map_err(std::io::Error::other);
        match read.and_then(|()| self.objects.read(buf)) {
            Ok(count) => {
                if self.counts {
                    self.reader.subject.watch.advance(count as u64);
                }
                Ok(count)
            }
            Err(error) => {
                let error = crate::stored::objects::unwrap_io("could not read a dump", error);
                let io = std::io::Error::other(error.clone());
                self.error = Some(error);
                Err(io)
            }
        }
    }
}

#[cfg(test)]
#[path = "logical_tests.rs"]
mod tests;
