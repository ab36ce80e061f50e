//! What each logical backup holds: they are one class, and yet none stands for another that holds another database.
//!
//! What the newest good one holds or lacks are the databases of the server now. Each of them counts by itself, and what
//! a kept one lacks is held by another that is kept; so a database that was dropped on the server is not kept for ever.

use super::backups::{newest, newest_first};
use super::facts::{Facts, is_complete};
use crate::retention::model::StoredBackup;
use std::collections::{BTreeMap, BTreeSet};

/// A dump: its backup, and its place among the databases of that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dump {
    pub backup: usize,
    pub place: usize,
}

/// Where the last dump of each database is.
pub struct Holders<'a> {
    /// The newest good one; the first name is that of a system, or of none for all.
    good: BTreeMap<(Option<u64>, &'a str), Dump>,
    /// Of a database of which no good backup has one: those of complete ones. Which of their dumps is not whole is not
    /// known.
    broken: BTreeMap<&'a str, Vec<Dump>>,
}

impl<'a> Holders<'a> {
    /// Of these backups, oldest first.
    pub fn of(facts: &Facts<'a>, logical: &[usize]) -> Holders<'a> {
        let mut holders = Holders { good: BTreeMap::new(), broken: BTreeMap::new() };
        for index in newest_first(facts, logical).into_iter().filter(|index| facts.is_good(*index)) {
            let backup = facts.backup(index);
            for (place, name) in backup.databases.iter().enumerate() {
                for system in [Some(backup.system), None] {
                    holders.good.entry((system, name)).or_insert(Dump { backup: index, place });
                }
            }
        }
        for &index in logical.iter().filter(|index| is_complete(facts.backup(**index))) {
            for (place, name) in facts.backup(index).databases.iter().enumerate() {
                if !holders.good.contains_key(&(None, name)) {
                    holders.broken.entry(name).or_default().push(Dump { backup: index, place });
                }
            }
        }
        holders
    }

    /// Of its own system before any other's: two servers can have been given one cluster name.
    fn find(&self, system: u64, name: &'a str) -> &[Dump] {
        let good = self.good.get(&(Some(system), name)).or_else(|| self.good.get(&(None, name)));
        good.map(std::slice::from_ref).or(self.broken.get(name).map(Vec::as_slice)).unwrap_or_default()
    }

    /// The dumps of what `kept` backups lack, and of what those lack in turn, parents included.
    pub fn needed(&self, facts: &Facts<'a>, kept: Vec<usize>) -> BTreeSet<Dump> {
        let mut seen: BTreeSet<usize> = kept.iter().copied().collect();
        let mut asked: BTreeSet<(u64, &str)> = BTreeSet::new();
        let (mut todo, mut needed) = (kept, BTreeSet::new());
        while let Some(index) = todo.pop() {
            let backup = facts.backup(index);
            let mut reach = facts.parents(index).to_vec();
            for name in lacked(backup).filter(|name| asked.insert((backup.system, name))) {
                let found = self.find(backup.system, name);
                reach.extend(found.iter().map(|dump| dump.backup));
                needed.extend(found.iter().copied());
            }
            todo.extend(reach.into_iter().filter(|index| seen.insert(*index)));
        }
        needed
    }
}

/// What a complete backup lacks.
fn lacked(backup: &StoredBackup) -> impl Iterator<Item = &str> {
    let names = if is_complete(backup) { &backup.lacks[..] } else { &[] };
    names.iter().map(String::as_str)
}

/// The good backups, oldest first, that hold each database which the newest of `good` holds or lacks; each list once.
pub fn histories(facts: &Facts<'_>, good: &[usize]) -> BTreeSet<Vec<usize>> {
    let Some(&newest) = newest(facts, good) else { return BTreeSet::new() };
    let newest = facts.backup(newest);
    let names: BTreeSet<&String> = newest.databases.iter().chain(&newest.lacks).collect();
    let mut holders: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    for &index in good {
        let own: BTreeSet<&String> = facts.backup(index).databases.iter().collect();
        for name in own.into_iter().filter(|name| names.contains(name)) {
            holders.entry(name).or_default().push(index);
        }
    }
    holders.into_values().collect()
}
