//! What the walk found, as findings.

use super::super::Subject;
use super::super::files::{FileCheck, Verdict};
use super::super::record;
use super::super::wal::{Needed, WalMembers};
use super::{Damage, Walk};
use crate::postgres::control_file::CONTROL_FILE;
use crate::repository::record::{ArchiveContent, ArchiveRecord};
use crate::stored::faults::Fault;
use crate::stored::index::Frame;
use crate::verify::findings::Finding;
use pg_ark_contract::Error;
use pg_ark_contract::rows::Severity;

impl<'a> Walk<'a> {
    pub(super) fn missing_files(&self) {
        let expected = &self.books.expected;
        for number in (0..self.seen.len()).filter(|number| self.seen.get(*number) == Some(&false)) {
            let path = expected.path(number);
            let archive = self.subject.archive_of(path);
            if archive.is_some_and(|archive| self.unknown.contains(&archive)) {
                continue;
            }
            let name = archive.and_then(|number| self.subject.record.archives.get(number));
            let name = name.map_or("base.tar", |archive| &archive.name);
            self.subject
                .findings
                .add(Finding::fault(self.subject.path(name), &Fault::file_missing()).file(path));
        }
    }

    pub(super) fn missing_wal(&mut self) {
        let archives = &self.subject.record.archives;
        let Some(wal) = self.wal.take() else { return };
        let at = archives.iter().position(|archive| archive.content == ArchiveContent::Wal);
        // Without the archive the record is wrong, which is told; of an unknown one nothing can be said.
        let Some(archive) = at.filter(|at| !self.unknown.contains(at)).and_then(|at| archives.get(at)) else {
            return;
        };
        for (file, what) in wal.finish() {
            let finding = Finding::new(Severity::Error, self.subject.path(&archive.name), what);
            let hint = "Recovery of this backup needs it. Restore another backup.";
            self.subject.findings.add(finding.hint(hint).file(file.as_bytes()));
        }
    }

    pub(super) fn note_damage(&mut self, archive: usize, frame: &Frame, fault: Fault, touched: Vec<Vec<u8>>) {
        let to = frame.offset.saturating_add(u64::from(frame.stored));
        let whole = self.books.volumes.contains(&(archive, frame.volume));
        let adjoins = |damage: &&mut Damage| {
            let same = damage.archive == archive && damage.volume == frame.volume;
            same && (whole || damage.to == frame.offset && damage.fault.detail == fault.detail)
        };
        if let Some(damage) = self.damage.last_mut().filter(|damage| adjoins(damage)) {
            let again = touched.first().is_some_and(|file| damage.last.as_ref() == Some(file));
            damage.files += touched.len() as u64 - u64::from(again);
            damage.last = touched.last().cloned().or(damage.last.take());
            damage.to = to;
            let detail = fault.detail.unwrap_or_default();
            damage.fault = Fault::frames(damage.from, to, &detail);
            if damage.file.is_none() {
                damage.file = touched.into_iter().next();
            }
            return;
        }
        let (files, last) = (touched.len() as u64, touched.last().cloned());
        let file = touched.into_iter().next();
        let damage =
            Damage { archive, volume: frame.volume, from: frame.offset, to, fault, file, last, files };
        self.damage.push(damage);
    }

    pub(super) fn tar_is_damaged(&mut self, error: &Error, start: u64, end: u64) {
        let next = self.current.as_ref().map_or(0, |current| current.next);
        let from = self.current.as_ref().and_then(|c| c.places.as_ref()?.get(next)).map_or(end, |p| p.at);
        let touched = self.pass_over(from.max(start), end);
        if let Some(archive) = self.archive() {
            let mut finding = Finding::new(Severity::Error, self.subject.path(&archive.name), &error.message);
            if let Some(file) = touched.first() {
                finding = finding.file(file);
                finding.more = (touched.len() as u64).saturating_sub(1);
            }
            self.subject.findings.add(finding.hint("Restore another backup."));
        }
        self.lose();
    }

    pub(super) fn archive(&self) -> Option<&'a ArchiveRecord> {
        self.subject.record.archives.get(self.current.as_ref()?.number)
    }

    pub(super) fn tell_archive(&self, what: String) {
        if let Some(archive) = self.archive() {
            let finding = Finding::new(Severity::Error, self.subject.path(&archive.name), what);
            self.subject.findings.add(finding.hint("Restore another backup."));
        }
    }

    pub(super) fn tell_file(&self, path: &[u8], fault: &Fault) {
        if let Some(archive) = self.archive() {
            self.subject.findings.add(Finding::fault(self.subject.path(&archive.name), fault).file(path));
        }
    }

    pub(super) fn index_is_wrong(&mut self, what: String) {
        if let Some(index) = self.archive().and_then(|archive| archive.index.as_ref()) {
            self.subject.tell_index(&index.name, &what);
        }
        if let Some(current) = &mut self.current {
            current.index_is_wrong = true;
        }
    }
}

/// What the last worker of a file tells about it.
pub fn tell(subject: &Subject<'_>, file: &FileCheck, verdict: Verdict, wal: Option<&Needed>) {
    let Some(archive) = subject.record.archives.get(file.archive) else { return };
    let path = subject.path(&archive.name);
    let fault = |fault: &Fault| subject.findings.add(Finding::fault(&path, fault).file(&file.path));
    if !verdict.is_right {
        return fault(&Fault::file_changed());
    }
    match (archive.content, wal) {
        (ArchiveContent::Wal, Some(needed)) => {
            if let Some(found) = WalMembers::ended(needed, &file.path, &verdict.kept) {
                fault(&found);
            }
        }
        (ArchiveContent::Base, _) if file.path == CONTROL_FILE.as_bytes() => {
            if let Some(found) = record::control_fault(subject.record, &verdict.kept) {
                fault(&found);
            }
        }
        _ => {}
    }
    record::tell_pages(subject, &path, &file.path, &verdict.damaged);
}
