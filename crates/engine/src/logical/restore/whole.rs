//! Whole databases into a running server: each is made, filled, and given its settings, privileges and comment.

use super::existing::{Target, identifier, literal, plain};
use super::into::MAX_NAME;
use super::into_plan::DatabaseStep;
use super::load::{Job, Load};
use super::made;
use super::money;
use super::report::Problem;
use super::scratch;
use crate::logical::child::Keeper;
use crate::logical::contents::toc_of;
use crate::logical::query::Server;
use crate::logical::stored::Dump;
use crate::logical::toc::Toc;
use crate::repository::logical_record::{DatabaseRecord, LogicalRecord};
use crate::repository::{Storage, catalog};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::ffi::OsString;

/// Databases that every server has, and the one to be connected to while each is dropped and made.
const ALWAYS: [(&str, &str); 2] = [("postgres", "template1"), ("template1", "postgres")];
/// The hint of what did not work.
const AGAIN: &str = "Mend what the server says, then run the same command again.";
/// The hint of what would have replaced a database by less than it should be.
const INCOMPLETE: &str = "Mend what the server says, then run the same command again; or put it beside the other with --as NAME and without --clean, to see what it has.";
/// Words of the server, of libpq and of pg_restore about what ends all that follows, or the data of a table.
const FATAL: [&str; 16] = [
    "No space left on device",
    "could not extend file",
    "Check free disk space",
    "out of memory",
    "server closed the connection",
    "no connection to the server",
    "terminating connection",
    "could not connect",
    "killed by signal",
    "COPY failed",
    "canceling statement",
    "too many clients",
    "remaining connection slots",
    "too many connections",
    "reconnection failed",
    "worker process died",
];
/// What a database can lack and still hold all its data: kinds of entries in a dump.
const HARMLESS: [&str; 9] = [
    "ACL",
    "COMMENT",
    "DEFAULT ACL",
    "EVENT TRIGGER",
    "EXTENSION",
    "POLICY",
    "PUBLICATION",
    "SECURITY LABEL",
    "SUBSCRIPTION",
];

/// Letters of a time up to its seconds: `2026-11-23T07:15:42`.
const SECONDS: usize = 19;

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

/// What came of databases.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Those that are there now.
    pub databases: Vec<String>,
    /// Those that were replaced and are kept, by their new names.
    pub kept: Vec<String>,
    /// What could not be restored.
    pub problems: Vec<Problem>,
}

impl Whole<'_> {
    /// Restores databases one after another, each by several connections where its dump allows that. One that cannot even be
    /// made is a problem when there are others, and comes behind those that there were `before`.
    ///
    /// # Errors
    /// `ServerNotReady` when the only one cannot be made; as [`Load::run`]. What was made and not finished is dropped, and what
    /// was to be replaced is as it was.
    pub fn run(&self, steps: &[DatabaseStep], before: Vec<Problem>) -> Result<Done> {
        let mut done = Done { problems: before, ..Done::default() };
        for step in steps {
            let Some(record) = self.record.database(&step.name) else { continue };
            match self.one(step, record, &mut done) {
                Ok(()) => done.databases.push(step.target.clone()),
                Err(error) if error.kind == ErrorKind::ServerNotReady && steps.len() > 1 => {
                    let said = error.detail.map_or_else(String::new, |detail| format!(": {detail}"));
                    let message = format!("it was not restored at all: {}{said}", error.message);
                    done.problems.push(Problem { database: Some(step.target.clone()), message });
                }
                Err(error) => return Err(self.meanwhile(done, error)),
            }
        }
        Ok(done)
    }

    /// What was done before `error` ended the restore stays, and is told.
    fn meanwhile(&self, done: Done, mut error: Error) -> Error {
        for Problem { database, message } in &done.problems {
            let place = database.as_ref().map_or_else(String::new, |name| format!("database {name}: "));
            self.load.watch.warn(&format!("{place}{message}"));
        }
        let names =
            |names: &[String]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let mut said: Vec<String> = error.detail.take().into_iter().collect();
        if !done.databases.is_empty() {
            said.push(format!("restored before, and there now: {}", names(&done.databases)));
        }
        if !done.kept.is_empty() {
            said.push(format!("what they replaced is kept as {}", names(&done.kept)));
        }
        match said.is_empty() {
            true => error,
            false => error.detail(said.join("\n")),
        }
    }

    fn one(&self, step: &DatabaseStep, record: &DatabaseRecord, done: &mut Done) -> Result<()> {
        let server = &self.load.server;
        let through = through(&step.target, self.usual);
        let toc = toc_of(self.storage, self.folder, record)?;
        // It gets its name when it is filled: until then what it replaces is there, whatever happens, and of what was killed
        // the next restore knows that it is nobody's.
        let name = scratch::new_name();
        let (sql, mut problems) = made::create(&name, record, self.target);
        problems.iter_mut().for_each(|problem| problem.database = Some(step.target.clone()));
        let filled = server
            .run(through, &sql)
            .map_err(|e| unchanged(step, cannot("created", step, e)))
            .and_then(|()| {
                let found = scratch::held(server, &name, || self.fill(step, record, &toc, &name))
                    .map_err(|error| unchanged(step, error))?;
                let is_whole = found.iter().all(|problem| is_harmless(&problem.message));
                problems.extend(found);
                let properties = made::properties(&step.target, record, &toc);
                let kept = step.replaces.then(|| kept_name(&step.target)).filter(|_| !is_whole);
                let failed = self.replace(step, &name, kept.as_deref(), &properties)?;
                let problem = |message| Problem { database: Some(step.target.clone()), message };
                problems.extend(failed.into_iter().map(problem));
                Ok(kept)
            });
        match filled {
            Ok(kept) => {
                done.problems.extend(problems);
                done.kept.extend(kept);
                Ok(())
            }
            Err(error) => {
                // Also when it could not be made: a psql that was stopped may have got what it asked for.
                self.remove(&name, through);
                Err(error)
            }
        }
    }

    /// Fills the database `name`.
    fn fill(
        &self,
        step: &DatabaseStep,
        record: &DatabaseRecord,
        toc: &Toc,
        name: &str,
    ) -> Result<Vec<Problem>> {
        let mut options: Vec<OsString> = Vec::new();
        let foreign = made::foreign_owners(toc, self.target);
        let mut problems = Vec::new();
        if !foreign.is_empty() {
            options.push("--no-owner".into());
            let message = format!(
                "role \"{}\" may not give anything to {}: all of it belongs to \"{0}\" now",
                self.target.user,
                foreign.join(", ")
            );
            problems.push(Problem { database: Some(step.target.clone()), message });
        }
        let dump = Dump::of(self.storage, self.folder, record);
        let job = Job { name: &step.target, connect: name, options: &options, jobs: self.jobs };
        let connection = money::connection(self.load.server.connection, record);
        let found = self.load.by(&connection).run(&dump, &job)?;
        let fatal: Vec<&str> = found
            .iter()
            .map(|problem| problem.message.as_str())
            .filter(|said| is_fatal(said))
            .take(5)
            .collect();
        if step.replaces && !fatal.is_empty() {
            let error = Error::new(
                ErrorKind::ServerNotReady,
                format!("database \"{}\" could not be replaced", step.target),
            );
            return Err(error.detail(fatal.join("\n")).hint(INCOMPLETE));
        }
        problems.extend(found);
        Ok(problems)
    }

    /// Gives it its name and its properties in one transaction; from an old one that has the name, which is dropped, or kept
    /// under the name `kept`. Tells what of the properties failed.
    fn replace(
        &self,
        step: &DatabaseStep,
        fresh: &str,
        kept: Option<&str>,
        properties: &[String],
    ) -> Result<Vec<String>> {
        let through = through(&step.target, self.usual);
        let is_template = self.target.database(&step.target).is_some_and(|there| there.is_template);
        // Who kills this program now leaves a database that the next restore removes.
        let old = kept.map_or_else(scratch::new_name, ToString::to_string);
        let replaced = step.replaces.then_some((old.as_str(), is_template));
        let exchange = made::exchange(&step.target, fresh, replaced);
        let failed = made::exchange_with(&self.load.server, through, fresh, &exchange, properties)
            .or_else(|error| self.unheard(step, fresh, &old, error))?;
        if step.replaces && kept.is_none() {
            self.remove(&old, through);
        }
        Ok(failed)
    }

    /// An exchange may be made although its end was not heard: the server knows.
    fn unheard(&self, step: &DatabaseStep, fresh: &str, old: &str, error: Error) -> Result<Vec<String>> {
        let there = if step.replaces { old } else { step.target.as_str() };
        let sql = format!(
            "SELECT to_json(EXISTS (SELECT FROM pg_database WHERE datname = {}) AND NOT EXISTS (SELECT FROM pg_database WHERE datname = {}))::text",
            literal(there),
            literal(fresh)
        );
        // Also when the work was stopped.
        let is_made = Keeper::with(&|| Ok(()), |keeper| {
            let server = Server { keeper, ..self.load.server };
            server.json(through(&step.target, self.usual), &sql)
        });
        let error = cannot("given its name", step, error);
        match is_made {
            Ok(true) => {
                let said = error.detail.unwrap_or(error.message);
                let message =
                    "it got its name, but nobody heard what of its settings, privileges and comment failed";
                Ok(vec![format!("{message}: {said}")])
            }
            Ok(false) => Err(unchanged(step, error)),
            Err(_) if step.replaces => Err(Error {
                message: format!(
                    "{}; the server does not tell whether database \"{}\" is as it was or all of the backup, with the other as \"{old}\" or \"{fresh}\"",
                    error.message, step.target
                ),
                ..error
            }),
            Err(_) => Err(error),
        }
    }

    /// Half a database is nobody's, and would be in the way of the next try.
    fn remove(&self, name: &str, through: &str) {
        let removed = Keeper::with(&|| Ok(()), |keeper| {
            let server = Server { keeper, ..self.load.server };
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
            server.run(through, &sql)
        });
        if let Err(error) = removed {
            let said = plain(error).detail.unwrap_or_default();
            self.load
                .watch
                .warn(&format!("database \"{name}\" is of no use to anybody and could not be dropped; the next restore into this server tries again: {said}"));
        }
    }
}

/// What ends more than one statement: the server, its disk, or the connection. What follows it is missing, too.
fn is_fatal(said: &str) -> bool {
    FATAL.iter().any(|word| said.contains(word))
}

/// Whether a database that had this problem holds all its data. Roles are missing where a server is another one.
fn is_harmless(said: &str) -> bool {
    let kind = |kind: &&str| said.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '));
    let is_role =
        (said.starts_with("role \"") || said.contains(": role \"")) && said.ends_with("\" does not exist");
    is_role || HARMLESS.iter().any(kind)
}

/// The name under which a database is kept that was replaced by less than all of the backup: `shop_before_20261123_071542`, in
/// UTC, and cut as the server cuts names.
fn kept_name(name: &str) -> String {
    let now = catalog::now();
    let digits = now.chars().take(SECONDS).filter(|letter| !matches!(letter, '-' | ':'));
    let digits: String = digits.map(|letter| if letter == 'T' { '_' } else { letter }).collect();
    let end = format!("_before_{digits}");
    let fits = |at: &usize| name.is_char_boundary(*at);
    let most = (0..=name.len().min(MAX_NAME.saturating_sub(end.len()))).rev().find(fits).unwrap_or(0);
    format!("{}{end}", name.get(..most).unwrap_or_default())
}

fn cannot(what: &str, step: &DatabaseStep, error: Error) -> Error {
    if error.kind != ErrorKind::ServerNotReady {
        return error;
    }
    let message = format!("database \"{}\" could not be {what}", step.target);
    Error { message, ..plain(error) }.hint(AGAIN)
}

/// Says that nothing is lost.
fn unchanged(step: &DatabaseStep, mut error: Error) -> Error {
    if step.replaces {
        error.message.push_str(&format!("; database \"{}\" is as it was", step.target));
    }
    error
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
        for said in [
            "TABLE DATA t: COPY failed: server closed the connection unexpectedly",
            "No space left on device",
        ] {
            assert!(is_fatal(said));
        }
        assert!(!is_fatal("role \"x\" does not exist"));
        for said in [
            "role \"alice\" does not exist",
            "ACL TABLE orders alice: no",
            "TABLE orders alice: role \"alice\" does not exist",
            "COMMENT x: no",
        ] {
            assert!(is_harmless(said), "{said}");
        }
        for said in
            ["TABLE DATA public orders alice: no", "ACLS x: no", "INDEX i a: no", "it ended with status 1"]
        {
            assert!(!is_harmless(said), "{said}");
        }
        assert_eq!((through("x", "x"), through("y", "x")), ("postgres", "x"));
        let kept = kept_name(&"ü".repeat(31));
        assert!(
            kept.starts_with(&format!("{}_before_20", "ü".repeat(20))) && kept.len() <= MAX_NAME,
            "{kept}"
        );
    }
}
