//! Segments that were stored torn: what the index says about a million of them, without parsing a million lines.

use super::index::MAX_INDEX;
use super::moments::{Moments, is_damage};
use crate::postgres::wal_record::WalReader;
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::{ErrorKind, Result, Timeline};

/// What an index says of such a segment, among other things: `"whole":false`.
pub(super) const MAY_BREAK: &[u8] = b"false";
/// Segments that break off that are told; an archive that has more is beyond counting.
const MAX_BREAKS: usize = 64;

impl Moments<'_> {
    /// Segments whose records break off before their end: those of which the index says so, when reading them says the
    /// same. At most a few.
    ///
    /// # Errors
    /// What the store said.
    pub fn breaks(&mut self, names: impl Iterator<Item = SegmentName>) -> Result<Vec<(SegmentName, String)>> {
        let mut found = Vec::new();
        let mut folder = None;
        for name in names {
            let key = self.key(name);
            let may_break = match folder {
                Some((known, may_break)) if known == key => may_break,
                _ => self.may_break(key)?,
            };
            folder = Some((key, may_break));
            if !may_break || self.known(name)?.is_none_or(|summary| summary.whole) {
                continue;
            }
            let mut reader = WalReader::new(name.start(self.size), self.size, false);
            let read = self.read(name, &mut |bytes| reader.feed(bytes, &mut |_| {}));
            match (read, reader.stopped()) {
                (Err(e), _) if !is_damage(&e) => return Err(e),
                (Err(e), _) => found.push((name, e.message)),
                (Ok(()), Some(stop)) => {
                    found.push((name, format!("its records end at {}: {}", stop.lsn, stop.why)));
                }
                (Ok(()), None) => {}
            }
            if found.len() >= MAX_BREAKS {
                break;
            }
        }
        Ok(found)
    }

    /// Whether an index can say that a segment breaks off. A million lines are searched much faster than parsed.
    fn may_break(&self, (timeline, log): (Timeline, u32)) -> Result<bool> {
        if let Some(known) = self.may_break.get(&(timeline, log)) {
            return Ok(*known);
        }
        self.check()?;
        let path = self.archive.index_path(timeline, log);
        match self.archive.storage().get(&path, MAX_INDEX) {
            Ok(bytes) => {
                Ok(bytes.is_some_and(|bytes| bytes.windows(MAY_BREAK.len()).any(|word| word == MAY_BREAK)))
            }
            Err(e) if e.kind == ErrorKind::Corrupt => Ok(false),
            Err(e) => Err(e),
        }
    }
}
