//! Which entries of a dump belong to a table or a schema. Pure: a table of contents in, numbers out.
//!
//! *Belongs*: what `DROP TABLE` would take along, and so must come back with it: data, indexes, constraints, defaults, sequences
//! that columns own, triggers, rules, policies, statistics, comments, privileges, partitions. *After*: what also needs something
//! that is not selected, as a foreign key to another table does; it is tried at the end, and may fail. *Needs*: types,
//! functions and the like that must be there before.

use crate::logical::toc::{Entry, Toc};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What `--table` finds.
const TABLES: [&str; 5] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"];
/// What has rows and columns, or constraints.
const OWNERS: [&str; 5] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "DOMAIN"];
/// Named after what they belong to: `orders orders_pkey`; `ROW SECURITY` has its table's name alone.
const OF_OWNER: [&str; 8] = [
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
];
/// Belong to whatever they depend on.
const OF_ANYTHING: [&str; 7] = [
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
    "TABLE DATA",
    "SEQUENCE SET",
    "SEQUENCE OWNED BY",
    "STATISTICS DATA",
];
/// Only order the restore, or come with what they belong to: never needed for themselves.
const NO_NEED: [&str; 4] = ["INDEX", "CONSTRAINT", "PUBLICATION", "TABLE DATA"];

/// Numbers of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// What belongs to the selected.
    pub inside: BTreeSet<u32>,
    /// What belongs to it and needs more than that.
    pub after: BTreeSet<u32>,
    /// Data of a selected schema whose table the dump does not have: it belongs to an extension, and stays out.
    pub strangers: BTreeSet<u32>,
}

/// A table of contents whose dependencies can be followed.
pub struct Graph<'a> {
    /// The table of contents.
    pub toc: &'a Toc,
    by_id: BTreeMap<u32, &'a Entry>,
    dependents: BTreeMap<u32, Vec<&'a Entry>>,
}

impl<'a> Graph<'a> {
    /// Follows `toc`.
    pub fn new(toc: &'a Toc) -> Self {
        let mut dependents: BTreeMap<u32, Vec<&Entry>> = BTreeMap::new();
        for entry in &toc.entries {
            for id in entry.depends.iter().collect::<BTreeSet<_>>() {
                dependents.entry(*id).or_default().push(entry);
            }
        }
        Graph { toc, by_id: toc.entries.iter().map(|entry| (entry.id, entry)).collect(), dependents }
    }

    /// The entry of this number.
    pub fn entry(&self, id: u32) -> Option<&'a Entry> {
        self.by_id.get(&id).copied()
    }

    /// The entries of these numbers, in the order of the dump.
    pub fn entries<'b>(&'b self, ids: &'b BTreeSet<u32>) -> impl Iterator<Item = &'a Entry> + 'b {
        self.toc.entries.iter().filter(|entry| ids.contains(&entry.id))
    }

    /// Tables, views and sequences that `text` means: `orders`, `sales.orders`, `"Sales"."a.b"`. Letters count as they are.
    pub fn named(&self, text: &str) -> Vec<&'a Entry> {
        let quoted = unquoted(text);
        let is_meant = |entry: &&Entry| match (&quoted, &entry.schema) {
            (Some((schema, name)), own) => {
                entry.name == *name && schema.as_ref().is_none_or(|schema| Some(schema) == own.as_ref())
            }
            (None, Some(schema)) => {
                let rest = text.strip_prefix(schema.as_str()).and_then(|rest| rest.strip_prefix('.'));
                entry.name == text || rest == Some(&entry.name)
            }
            (None, None) => entry.name == text,
        };
        let tables = self.toc.entries.iter().filter(|entry| is_table(entry));
        tables.filter(is_meant).collect()
    }

    /// Whether the dump knows this schema.
    pub fn has_schema(&self, name: &str) -> bool {
        self.toc
            .entries
            .iter()
            .any(|e| e.schema.as_deref() == Some(name) || e.kind == "SCHEMA" && e.name == name)
    }

    /// What belongs to these tables.
    pub fn tables(&self, ids: &[u32]) -> Selection {
        self.split(self.grown(ids.iter().copied()))
    }

    /// What these schemas hold, and the schemas themselves.
    pub fn schemas(&self, names: &[String]) -> Selection {
        let is_named = |name: Option<&String>| name.is_some_and(|name| names.contains(name));
        let seeds = self.toc.entries.iter().filter(|entry| {
            is_named(entry.schema.as_ref()) || entry.kind == "SCHEMA" && is_named(Some(&entry.name))
        });
        let is_stranger = |entry: &&&Entry| {
            matches!(entry.kind.as_str(), "TABLE DATA" | "SEQUENCE SET")
                && !entry.depends.iter().any(|id| self.by_id.contains_key(id))
        };
        let (strangers, seeds): (Vec<&Entry>, Vec<&Entry>) = seeds.partition(|entry| is_stranger(&entry));
        let mut selection = self.split(self.grown(seeds.into_iter().map(|entry| entry.id)));
        let outside = |id: &u32| {
            let entry = self.entry(*id);
            entry.is_some_and(|e| {
                e.schema.is_some() && !is_named(e.schema.as_ref()) && e.kind != "PUBLICATION TABLE"
            })
        };
        // Partitions that lie elsewhere stay there.
        selection.inside.retain(|id| !outside(id));
        let all = selection.inside.union(&selection.after).copied().collect();
        Selection { strangers: strangers.into_iter().map(|entry| entry.id).collect(), ..self.split(all) }
    }

    /// All that must be there before `ids`, and is not among them.
    pub fn needs(&self, ids: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<u32> = ids.iter().copied().collect();
        while let Some(entry) = todo.pop().and_then(|id| self.entry(id)) {
            for id in &entry.depends {
                let Some(other) = self.entry(*id).filter(|_| !ids.contains(id)) else { continue };
                // A view that groups by a key needs the key.
                let is_needed = !NO_NEED.contains(&other.kind.as_str())
                    || other.kind == "CONSTRAINT" && self.is_of_view(entry);
                if is_needed && !other.is_of_database() && found.insert(*id) {
                    todo.push(*id);
                }
            }
        }
        found
    }

    /// What comes of `ids` that are only needed by what is `selected`: with comments, privileges, values; a sequence stays its
    /// own where the table that owned it is not selected.
    pub fn only_needed(&self, ids: &BTreeSet<u32>, selected: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut all = self.grown(ids.iter().copied());
        let owned = |entry: &Entry| {
            entry.kind == "SEQUENCE OWNED BY" && self.tables_of(entry).any(|id| !selected.contains(&id))
        };
        all.retain(|id| !self.entry(*id).is_some_and(owned));
        all
    }

    /// What a view reads may be said in a rule of its own (`repairViewRuleMultiLoop`, pg_dump_sort.c): without it there is none.
    fn is_of_view(&self, entry: &Entry) -> bool {
        entry.kind == "RULE"
            && self.owner(entry).is_some_and(|view| entry.name == format!("{} _RETURN", view.name))
    }

    /// `ids`, with comments, privileges and all else that belongs to them.
    pub fn grown(&self, ids: impl Iterator<Item = u32>) -> BTreeSet<u32> {
        let (mut set, mut todo) = (BTreeSet::new(), ids.collect::<VecDeque<_>>());
        while let Some(id) = todo.pop_front() {
            let Some(entry) = self.entry(id) else { continue };
            if set.insert(id) {
                let dependents = self.dependents.get(&id).into_iter().flatten();
                todo.extend(dependents.flat_map(|dependent| self.follows(dependent, entry)));
            }
        }
        set
    }

    /// What of `entry` comes along with `of`, on which it depends.
    fn follows(&self, entry: &Entry, of: &Entry) -> Vec<u32> {
        let is_owner = OWNERS.contains(&of.kind.as_str());
        let kind = entry.kind.as_str();
        match kind {
            _ if OF_ANYTHING.contains(&kind) => vec![entry.id],
            _ if OF_OWNER.contains(&kind) && self.owner(entry).is_some_and(|owner| owner.id == of.id) => {
                vec![entry.id]
            }
            "INDEX" | "STATISTICS" | "SEQUENCE" | "PUBLICATION TABLE" if is_owner => vec![entry.id],
            "MATERIALIZED VIEW DATA" if is_owner && entry.name == of.name => vec![entry.id],
            "INDEX ATTACH" => vec![entry.id],
            "TABLE ATTACH" => {
                self.partition(entry).map(|child| child.id).into_iter().chain([entry.id]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The table that a constraint, trigger, policy belongs to: the one that its name begins with. Of a table `a` and a table
    /// `a b` it is the longer name that counts.
    pub fn owner(&self, entry: &Entry) -> Option<&'a Entry> {
        let candidates = entry.depends.iter().filter_map(|id| self.entry(*id));
        let fits = |owner: &&Entry| {
            let rest = entry.name.strip_prefix(owner.name.as_str());
            OWNERS.contains(&owner.kind.as_str())
                && owner.schema == entry.schema
                && rest.is_some_and(|rest| {
                    rest.starts_with(' ') || rest.is_empty() && entry.kind == "ROW SECURITY"
                })
        };
        candidates.filter(fits).max_by_key(|owner| owner.name.len())
    }

    /// The table that becomes a partition.
    fn partition(&self, attach: &Entry) -> Option<&'a Entry> {
        let mut parts = attach.depends.iter().filter_map(|id| self.entry(*id));
        parts.find(|part| part.name == attach.name && part.schema == attach.schema)
    }

    /// Comments on `ids`.
    pub fn comments(&self, ids: &BTreeSet<u32>) -> BTreeSet<u32> {
        let dependents = ids.iter().filter_map(|id| self.dependents.get(id)).flatten();
        dependents.filter(|entry| entry.kind == "COMMENT").map(|entry| entry.id).collect()
    }

    /// The tables that an entry depends on; only a sequence itself tells who owns it.
    fn tables_of<'b>(&'b self, entry: &'b Entry) -> impl Iterator<Item = u32> + 'b {
        let of_sequence = entry
            .depends
            .iter()
            .filter_map(|id| self.entry(*id))
            .filter(|other| entry.kind == "SEQUENCE OWNED BY" && other.kind == "SEQUENCE")
            .flat_map(|sequence| &sequence.depends);
        let is_table = |id: &u32| self.entry(*id).is_some_and(|e| OWNERS.contains(&e.kind.as_str()));
        entry.depends.iter().chain(of_sequence).copied().filter(is_table)
    }

    /// Parts what stands on its own from what needs more.
    fn split(&self, all: BTreeSet<u32>) -> Selection {
        let needs_more = |entry: &Entry| match entry.kind.as_str() {
            "PUBLICATION TABLE" => true,
            "RULE" if self.is_of_view(entry) => false,
            "FK CONSTRAINT" | "TABLE ATTACH" | "INDEX ATTACH" | "POLICY" | "RULE" | "SEQUENCE OWNED BY" => {
                self.tables_of(entry).any(|id| !all.contains(&id))
            }
            _ => false,
        };
        let (mut after, mut inside): (BTreeSet<u32>, BTreeSet<u32>) =
            all.iter().partition(|id| self.entry(**id).is_some_and(needs_more));
        let comments = self.comments(&after);
        inside.retain(|id| !comments.contains(id));
        after.extend(comments.intersection(&all));
        Selection { inside, after, ..Selection::default() }
    }
}

/// Whether `--table` can mean it.
pub fn is_table(entry: &Entry) -> bool {
    TABLES.contains(&entry.kind.as_str())
}

/// Schema and name of a text with double quotes; none for one without.
fn unquoted(text: &str) -> Option<(Option<String>, String)> {
    if !text.contains('"') {
        return None;
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let end = match rest.strip_prefix('"') {
            None => rest.find('.').unwrap_or(rest.len()),
            Some(inside) => {
                let mut letters = inside.char_indices().peekable();
                let mut end = None;
                while let Some((place, letter)) = letters.next() {
                    if letter == '"' && letters.next_if(|(_, next)| *next == '"').is_none() {
                        end = Some(place + 2);
                        break;
                    }
                }
                end?
            }
        };
        let (part, after) = rest.split_at_checked(end)?;
        let inside = part.strip_prefix('"').and_then(|part| part.strip_suffix('"'));
        parts.push(inside.map_or_else(|| part.to_string(), |inside| inside.replace("\"\"", "\"")));
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None if after.is_empty() => break,
            None => return None,
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) => Some((Some(schema), name)),
        Err(parts) => <[String; 1]>::try_from(parts).ok().map(|[name]| (None, name)),
    }
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
