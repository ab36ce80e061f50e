//! Whole databases into a running server: each is made, filled, and given its settings, privileges and comment.

use super::existing::{Target, identifier};
use super::into_plan::DatabaseStep;
use super::load::{Job, Load};
use super::made;
use super::report::Problem;
use super::scratch;
use crate::logical::child::Keeper;
use crate::logical::contents::toc_of;
use crate::logical::query::Server;
use crate::logical::stored::Dump;
use crate::logical::toc::Toc;
use crate::repository::Storage;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use pg_ark_contract::{Error, ErrorKind, Result};

/// Databases that every server has, and the one to be connected to while each is dropped and made.
const ALWAYS: [(&str, &str); 2] = [("postgres", "template1"), ("template1", "postgres")];

/// What a database of the backup is when nobody ever used it.
pub fn is_empty(toc: &Toc) -> bool {
    toc.entries.iter().all(|entry| {
        let is_usual =
            matches!(entry.name.as_str(), "public" | "SCHEMA public" | "plpgsql" | "EXTENSION plpgsql");
        entry.is_about_dump() || entry.is_of_database() || is_usual && entry.schema.is_none()
    })
}

/// Whether every server has a database of this name.
pub fn is_always_there(name: &str) -> bool {
    ALWAYS.iter().any(|(always, _)| *always == name)
}

/// The database to be connected to while `name` is dropped or made: `usual` unless it is that one.
pub fn through<'a>(name: &str, usual: &'a str) -> &'a str {
    match ALWAYS.iter().find(|(always, _)| *always == name) {
        Some((_, other)) => other,
        None if name == usual => "postgres",
        None => usual,
    }
}

/// A backup and where it goes.
#[derive(Clone, Copy)]
pub struct Whole<'a> {
    /// How dumps come into the server.
    pub load: Load<'a>,
    /// The store.
    pub storage: &'a Storage,
    /// Folder of the backup.
    pub folder: &'a str,
    /// What the backup holds.
    pub record: &'a LogicalRecord,
    /// The server.
    pub target: &'a Target,
    /// The database that is usually connected to.
    pub usual: &'a str,
    /// Connections at once.
    pub jobs: usize,
}

impl Whole<'_> {
    /// Restores databases one after another, each by several connections where its dump allows that. One that cannot even be
    /// made is a problem when there are others.
    ///
    /// # Errors
    /// `ServerNotReady` when the only one cannot be made; as [`Load::run`]. What was made and not finished is dropped.
    pub fn run(&self, steps: &[DatabaseStep]) -> Result<(Vec<String>, Vec<Problem>)> {
        let (mut done, mut problems) = (Vec::new(), Vec::new());
        for step in steps {
            let Some(record) = self.record.database(&step.name) else { continue };
            match self.one(step, record) {
                Ok(found) => {
                    problems.extend(found);
                    done.push(step.target.clone());
                }
                Err(error) if error.kind == ErrorKind::ServerNotReady && steps.len() > 1 => {
                    let said = error.detail.map_or_else(String::new, |detail| format!(": {detail}"));
                    let message = format!("it is not there at all: {}{said}", error.message);
                    problems.push(Problem { database: Some(step.target.clone()), message });
                }
                Err(error) => return Err(error),
            }
        }
        Ok((done, problems))
    }

    fn one(&self, step: &DatabaseStep, record: &DatabaseRecord) -> Result<Vec<Problem>> {
        let server = &self.load.server;
        let through = through(&step.target, self.usual);
        let toc = toc_of(self.storage, self.folder, record)?;
        // What replaces another is made first: when the server cannot make it, the other is still there.
        let fresh = if step.replaces { scratch::new_name() } else { step.target.clone() };
        let (sql, mut problems) = made::create(&fresh, record, self.target);
        problems.iter_mut().for_each(|problem| problem.database = Some(step.target.clone()));
        server.run(through, &sql).map_err(|error| cannot("created", &step.target, error))?;
        if step.replaces
            && let Err(error) = self.replace(step, &fresh, through)
        {
            self.remove(&fresh, through);
            return Err(cannot("dropped", &step.target, error));
        }
        let dump = Dump::of(self.storage, self.folder, record);
        let options = [];
        let job = Job { name: &step.target, connect: &step.target, options: &options, jobs: self.jobs };
        let filled = self.load.run(&dump, &job).and_then(|mut found| {
            let properties = made::properties(&step.target, record, &toc);
            found.extend(made::apply(server, through, &step.target, &properties)?);
            Ok(found)
        });
        match filled {
            Ok(found) => problems.extend(found),
            Err(error) => {
                self.remove(&step.target, through);
                return Err(error);
            }
        }
        Ok(problems)
    }

    /// Drops the old one and gives its name to the new one.
    fn replace(&self, step: &DatabaseStep, fresh: &str, through: &str) -> Result<()> {
        let server = &self.load.server;
        let is_template = self.target.database(&step.target).is_some_and(|there| there.is_template);
        for sql in made::drop(&step.target, is_template) {
            server.run(through, &sql)?;
        }
        let (fresh, name) = (identifier(fresh), identifier(&step.target));
        server.run(through, &format!("ALTER DATABASE {fresh} RENAME TO {name}"))
    }

    /// Half a database is nobody's, and would be in the way of the next try.
    fn remove(&self, name: &str, through: &str) {
        let removed = Keeper::with(&|| Ok(()), |keeper| {
            let server = Server { keeper, ..self.load.server };
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
            server.run(through, &sql)
        });
        if removed.is_err() {
            self.load
                .watch
                .warn(&format!("database \"{name}\" is not complete and could not be dropped again"));
        }
    }
}

fn cannot(what: &str, name: &str, error: Error) -> Error {
    if error.kind != ErrorKind::ServerNotReady {
        return error;
    }
    Error { message: format!("database \"{name}\" could not be {what}"), ..error }
        .hint("Mend what the server says, then run the same command again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_database_is_known_and_a_used_one_is_not() {
        for (version, bytes, _) in crate::logical::golden_dumps::GOLDEN {
            let mut toc = Toc::read(&mut &**bytes).unwrap();
            assert!(!is_empty(&toc), "{version}");
            toc.entries.retain(|entry| entry.is_about_dump() || entry.is_of_database());
            assert!(is_empty(&toc), "{version}");
        }
        assert_eq!((through("postgres", "x"), through("template1", "x")), ("template1", "postgres"));
        assert_eq!((through("x", "x"), through("y", "x")), ("postgres", "x"));
    }
}
