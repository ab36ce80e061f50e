//! Folders and links in the data directory without which a server does not start, or not as it was.

use super::Walk;
use crate::stored::names;
use crate::stored::tar_reader::{Kind, Member};
use crate::verify::findings::Finding;
use pg_ark_contract::rows::Severity;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folders that initdb makes and that may be empty (`subdirs`, initdb.c), but for `pg_wal`, which a restore makes, and
/// those of statistics, which the server does without.
pub(crate) const NEEDED: [&str; 15] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
    "pg_twophase",
    "pg_xact",
];

/// What was seen of them.
#[derive(Debug, Default)]
pub struct Tops {
    folders: BTreeSet<&'static str>,
    /// Targets of links, by the tablespace.
    links: BTreeMap<u32, Vec<u8>>,
}

impl Tops {
    /// Takes note of a member of the data directory's archive.
    pub fn saw(&mut self, member: &Member) {
        match &member.kind {
            Kind::Directory => {
                let needed = NEEDED.iter().find(|needed| needed.as_bytes() == member.path);
                self.folders.extend(needed);
            }
            Kind::Link(target) => {
                let path = names::safe_path(&member.path).ok();
                if let Some(oid) = path.as_deref().and_then(names::tablespace_link) {
                    self.links.insert(oid, target.clone());
                }
            }
            Kind::File => {}
        }
    }
}

impl Walk<'_> {
    /// Tells what of them was not there; every header was seen.
    pub(super) fn tell_tops(&self) {
        let expected = &self.books.expected;
        // initdb leaves files there: a data directory without them is none that a server could use.
        let is_whole = (0..expected.len()).any(|number| expected.path(number).starts_with(b"pg_multixact/"));
        let is_lacking = |needed: &&str| is_whole && !self.tops.folders.contains(needed);
        let lacking: Vec<&str> = NEEDED.into_iter().filter(is_lacking).collect();
        if !lacking.is_empty() {
            self.tell_archive(format!("lacks folders that the server needs: {}", lacking.join(", ")));
        }
        for tablespace in &self.subject.record.tablespaces {
            let what = match self.tops.links.get(&tablespace.oid) {
                Some(target) if target == Path::new(&tablespace.path).as_os_str().as_encoded_bytes() => {
                    continue;
                }
                Some(_) => "leads elsewhere than the record says",
                None => "is missing",
            };
            let Some(archive) = self.archive() else { return };
            let what = format!("the link of tablespace {} {what}", tablespace.oid);
            let hint =
                "Nothing is lost: a restore makes the link as the record says. Look who changed the backup.";
            let finding = Finding::new(Severity::Warning, self.subject.path(&archive.name), what);
            self.subject.findings.add(finding.hint(hint));
        }
    }
}
