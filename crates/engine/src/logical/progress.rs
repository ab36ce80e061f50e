//! How far the dump of a database is.
//!
//! What: pg_dump says which table it begins; the sizes of those that came before it, out of all, are the part that is done.
//! Within a table each byte of dump counts as one of the table, up to its size. The part is scaled to the size of the
//! database, so that its bar ends where the database does, whatever indexes and catalogs take.

use crate::backup::progress::Progress;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// What pg_dump's `--verbose` says before the data of a table (`dumpTableData_copy`, pg_dump.c).
const TABLE: &str = "pg_dump: dumping contents of table \"";
/// And before large objects (`dumpLOs`, pg_dump.c).
const LARGE_OBJECTS: &str = "pg_dump: saving large objects";

/// How far one database is.
pub struct DatabaseProgress<'a> {
    progress: &'a Progress<'a>,
    parts: Mutex<Parts>,
}

impl<'a> DatabaseProgress<'a> {
    /// Of a database of `size` bytes.
    pub fn new(progress: &'a Progress<'a>, size: u64) -> Self {
        DatabaseProgress { progress, parts: Mutex::new(Parts { size, ..Parts::default() }) }
    }

    /// The sizes of tables by `schema.table`, and that of large objects.
    pub fn tables(&self, sizes: Vec<(String, u64)>, large_objects: u64) {
        self.change(|parts| {
            parts.sum = sizes.iter().fold(large_objects, |sum, (_, size)| sum.saturating_add(*size));
            parts.sizes = sizes.into_iter().collect();
            parts.large_objects = large_objects;
        });
    }

    /// Hears a line of pg_dump's.
    pub fn line(&self, line: &str) {
        self.change(|parts| parts.line(line));
    }

    /// Counts bytes of dump.
    pub fn read(&self, bytes: u64) {
        self.change(|parts| parts.read = parts.read.saturating_add(bytes));
    }

    /// The dump is done, or given up.
    pub fn end(&self) {
        self.change(Parts::end);
        self.progress.tablespace_done();
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let news = parts.news();
        drop(parts);
        if news > 0 {
            self.progress.add(news);
        }
    }
}

#[derive(Default)]
struct Parts {
    /// `pg_database_size`.
    size: u64,
    sizes: HashMap<String, u64>,
    large_objects: u64,
    /// Of all parts.
    sum: u64,
    /// Of the parts that are done.
    done: u64,
    /// Of the part that is being dumped.
    current: u64,
    /// Bytes of dump since that began.
    read: u64,
    ended: bool,
    /// Bytes of the database that were told.
    told: u64,
}

impl Parts {
    fn line(&mut self, line: &str) {
        let next = match line.strip_prefix(TABLE).and_then(|rest| rest.strip_suffix('"')) {
            // Each counts once.
            Some(table) => self.sizes.remove(table).unwrap_or_default(),
            None if line.starts_with(LARGE_OBJECTS) => std::mem::take(&mut self.large_objects),
            None => return,
        };
        self.done = self.done.saturating_add(self.current);
        self.current = next;
        self.read = 0;
    }

    fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes of the database that were not told yet.
    fn news(&mut self) -> u64 {
        let done = self.done.saturating_add(self.current.min(self.read));
        let scaled = u128::from(done) * u128::from(self.size) / u128::from(self.sum.max(1));
        let now = match self.ended {
            true => self.size,
            false => u64::try_from(scaled).unwrap_or(self.size).min(self.size),
        };
        let news = now.saturating_sub(self.told);
        self.told += news;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let sizes = [("public.a".to_string(), 100), ("s x.b\"c".to_string(), 300)].into_iter().collect();
        Parts { size: 1000, sizes, large_objects: 100, sum: 500, ..Parts::default() }
    }

    #[test]
    fn tables_count_when_the_next_begins_and_bytes_within_them() {
        let mut parts = parts();
        let mut all = 0;
        for (line, read, expected) in [
            ("pg_dump: reading extensions", 5, 0),
            ("pg_dump: dumping contents of table \"public.a\"", 0, 0),
            ("pg_dump: some chatter", 20, 40),
            ("pg_dump: some chatter", 1000, 200),
            ("pg_dump: dumping contents of table \"s x.b\"c\"", 0, 200),
            ("pg_dump: dumping contents of table \"unknown.table\"", 50, 800),
            ("pg_dump: dumping contents of table \"public.a\"", 50, 800),
            ("pg_dump: saving large objects \"1..2\"", 50, 900),
            ("pg_dump: saving large objects", 50, 1000),
        ] {
            parts.line(line);
            parts.read += read;
            all += parts.news();
            assert_eq!(all, expected, "{line}");
        }
        parts.end();
        assert_eq!(parts.news(), 0);
    }

    #[test]
    fn the_bar_ends_at_the_size_and_never_beyond() {
        let mut parts = Parts { size: 10, ..Parts::default() };
        parts.line("pg_dump: dumping contents of table \"public.a\"");
        parts.read = u64::MAX;
        assert_eq!(parts.news(), 0, "nothing is known of any table");
        parts.end();
        assert_eq!((parts.news(), parts.news()), (10, 0));
        let sizes = [("a.b".to_string(), u64::MAX)].into_iter().collect();
        let mut parts = Parts { size: u64::MAX, sizes, sum: 1, ..Parts::default() };
        parts.line("pg_dump: dumping contents of table \"a.b\"");
        parts.read = u64::MAX;
        assert_eq!(parts.news(), u64::MAX);
    }
}
