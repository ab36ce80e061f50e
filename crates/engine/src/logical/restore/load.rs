//! One stored dump into a server, by pg_restore; what it could not restore is told, and the rest goes on.

use super::report::Problem;
use crate::logical::child::Ended;
use crate::logical::connection::Connection;
use crate::logical::query::Server;
use crate::logical::stored::Dump;
use crate::restore::Watch;
use bytes::Bytes;
use pg_ark_contract::Result;
use std::ffi::OsString;
use std::io::Read;
use std::process::Command;

/// Most errors of one database that are told one by one.
const MAX_PROBLEMS: usize = 1000;
/// Longest detail of an error that is told, in characters: a server names up to a hundred dependent objects, one on each line
/// (`MAX_REPORTED_DEPS`, dependency.c).
const MAX_DETAIL: usize = 10_000;
/// What else of an error has lines of its own (`pqBuildErrorMessage3`, fe-protocol3.c).
const FIELDS: [&str; 5] = ["HINT:  ", "QUERY:  ", "CONTEXT:  ", "LINE ", "LOCATION:  "];
/// Its status when it met errors, whether it went on or not (`main`, pg_restore.c; `exit_nicely`, pg_backup_utils.c).
const GAVE_UP: i32 = 1;
/// What pg_restore's lines begin with (`pg_log_generic_v`, common/logging.c).
const PREFIX: &str = "pg_restore: ";

/// How dumps come into a server.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The server.
    pub server: Server<'a>,
    /// Hears how much of the dumps is done, in bytes.
    pub watch: &'a dyn Watch,
}

/// One run of pg_restore.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The database that problems are told of.
    pub name: &'a str,
    /// The database to connect to; with `--create` another one than is made.
    pub connect: &'a str,
    /// Options of pg_restore: `--create`, `--clean`, ...
    pub options: &'a [OsString],
    /// Connections at once; more than one only for a dump that is one file.
    pub jobs: usize,
}

impl Load<'_> {
    /// The same by another connection.
    pub fn by<'c>(&'c self, connection: &'c Connection) -> Load<'c> {
        Load { server: Server { connection, ..self.server }, ..*self }
    }

    /// Restores from a dump that was proved before.
    ///
    /// # Errors
    /// `Corrupt` when the dump changed meanwhile; the order to stop; what the store said.
    pub fn run(&self, dump: &Dump<'_>, job: &Job<'_>) -> Result<Vec<Problem>> {
        let Some(path) = dump.path().filter(|_| job.jobs > 1) else {
            return self.feed(&mut dump.reader(), job);
        };
        let mut heard = Heard::default();
        // The server's user need not be able to read the repository; a dump is no program for who reads it.
        let mut command = self.command(job, false)?;
        command.arg(format!("--jobs={}", job.jobs)).arg(path);
        let keeper = self.server.keeper;
        let ended = keeper.read(command, &mut |_: Bytes| Ok(()), &mut |line| heard.line(line))?;
        self.watch.advance(dump.size());
        Ok(heard.of(&ended, job))
    }

    /// Restores from what `dump` gives.
    ///
    /// # Errors
    /// As [`Load::run`].
    pub fn feed(&self, dump: &mut (dyn Read + Send), job: &Job<'_>) -> Result<Vec<Problem>> {
        let mut heard = Heard::default();
        let command = self.command(job, true)?;
        let mut input = Counted { inner: dump, watch: self.watch };
        let ended = self.server.keeper.feed(command, &mut input, &mut |line| heard.line(line))?;
        Ok(heard.of(&ended, job))
    }

    fn command(&self, job: &Job<'_>, as_owner: bool) -> Result<Command> {
        let Server { keeper, programs, connection, access } = self.server;
        let mut command = keeper.command(&programs.path("pg_restore"), access.filter(|_| as_owner))?;
        connection.prepare(&mut command);
        command.arg(format!("--dbname={}", connection.to(job.connect))).args(job.options);
        Ok(command)
    }
}

/// Tells how much of a dump was read.
struct Counted<'a, R> {
    inner: R,
    watch: &'a dyn Watch,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.watch.advance(count as u64);
        Ok(count)
    }
}

/// What pg_restore said (`warn_or_exit_horribly`, pg_backup_archiver.c): the entry of the table of contents, then the error,
/// then the server's details, then the statement, which may hold a password and is not told.
#[derive(Default)]
struct Heard {
    entry: Option<String>,
    messages: Vec<String>,
    more: usize,
    /// Lines that belong to the last error follow.
    open: bool,
    /// The detail of the last error.
    detail: Option<String>,
}

impl Heard {
    fn line(&mut self, line: &str) {
        if let Some(said) = line.strip_prefix(PREFIX) {
            self.close();
            if let Some(entry) = said.strip_prefix("from TOC entry ") {
                // 215; 1259 16396 TABLE orders alice
                self.entry = Some(entry.splitn(4, ' ').nth(3).unwrap_or(entry).to_string());
            } else if let Some(error) = said.strip_prefix("error: ") {
                self.error(error);
            }
        } else if line.starts_with("Command was: ") {
            self.close();
        } else if !self.open {
        } else if let Some(detail) = line.strip_prefix("DETAIL:  ") {
            self.detail = Some(detail.chars().take(MAX_DETAIL).collect());
        } else if FIELDS.iter().any(|field| line.starts_with(field)) {
            self.close();
        } else if let Some(detail) = self.detail.as_mut().filter(|detail| detail.len() < MAX_DETAIL) {
            detail.extend("; ".chars().chain(line.chars()).take(MAX_DETAIL));
        }
    }

    /// No more of the last error comes.
    fn close(&mut self) {
        self.open = false;
        if let (Some(detail), Some(last)) = (self.detail.take(), self.messages.last_mut()) {
            last.push_str(&format!(" ({detail})"));
        }
    }

    fn error(&mut self, said: &str) {
        let text = said.strip_prefix("could not execute query: ").unwrap_or(said);
        let text = text.strip_prefix("ERROR:  ").unwrap_or(text);
        if self.messages.len() == MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        let at = self.entry.take().map(|entry| format!("{entry}: ")).unwrap_or_default();
        self.messages.push(format!("{at}{text}"));
        self.open = true;
    }

    /// Its problems, once pg_restore has ended.
    fn of(self, ended: &Ended, job: &Job<'_>) -> Vec<Problem> {
        let silent = self.messages.is_empty();
        let mut problems = self.finish(job.name);
        // Where it gives up by itself, what it said last is the reason.
        let is_told = ended.code == Some(GAVE_UP) && !silent;
        if !ended.success && !is_told {
            let message = if silent { ended.said() } else { format!("pg_restore {}", ended.status) };
            problems.push(Problem { database: Some(job.name.to_string()), message });
        }
        problems
    }

    fn finish(mut self, database: &str) -> Vec<Problem> {
        self.close();
        let more = (self.more > 0).then(|| format!("{} more errors", self.more));
        let problem = |message| Problem { database: Some(database.to_string()), message };
        self.messages.into_iter().chain(more).map(problem).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_its_time_is_told_whatever_else_was_said() {
        let job = Job { name: "app", connect: "app", options: &[], jobs: 1 };
        let told = |lines: &[&str], status: &str, code: Option<i32>| {
            let mut heard = Heard::default();
            lines.iter().for_each(|line| heard.line(line));
            let errors = Vec::new();
            let ended = Ended { success: code == Some(0), code, status: status.to_string(), errors };
            heard.of(&ended, &job).into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        let role = "pg_restore: error: could not execute query: ERROR:  role \"alice\" does not exist";
        let end = "pg_restore: warning: errors ignored on restore: 1";
        let killed = "was killed by signal 9";
        assert_eq!(told(&[role], killed, None).last().unwrap(), "pg_restore was killed by signal 9");
        assert_eq!(told(&[role, end], "ended with status 1", Some(1)).len(), 1);
        assert_eq!(told(&[], killed, None), ["it was killed by signal 9"]);
        assert!(told(&[], "ended with status 0", Some(0)).is_empty());
    }

    #[test]
    fn every_error_is_heard_with_what_it_is_about_and_without_the_statement() {
        let mut heard = Heard::default();
        for line in [
            "pg_restore: connecting to database for restore",
            "pg_restore: while PROCESSING TOC:",
            "pg_restore: from TOC entry 215; 1259 16396 TABLE orders alice",
            "pg_restore: error: could not execute query: ERROR:  role \"alice\" does not exist",
            "DETAIL:  Nobody is.",
            "view v depends on it",
            "HINT:  Make it.",
            "nothing more",
            "Command was: CREATE SUBSCRIPTION s CONNECTION 'password=x'",
            "DETAIL:  password=x",
            "pg_restore: error: COPY failed for table \"t\": ERROR:  no",
            "pg_restore: warning: errors ignored on restore: 2",
        ] {
            heard.line(line);
        }
        let problems = heard.finish("app");
        assert!(problems.iter().all(|problem| problem.database.as_deref() == Some("app")));
        let messages: Vec<&str> = problems.iter().map(|problem| &problem.message[..]).collect();
        let expected = [
            "TABLE orders alice: role \"alice\" does not exist (Nobody is.; view v depends on it)",
            "COPY failed for table \"t\": ERROR:  no",
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn errors_without_number_are_bounded() {
        let mut heard = Heard::default();
        (0..MAX_PROBLEMS + 5).for_each(|_| heard.line("pg_restore: error: x"));
        let problems = heard.finish("app");
        assert_eq!(
            (problems.len(), &problems[MAX_PROBLEMS].message[..]),
            (MAX_PROBLEMS + 1, "5 more errors")
        );
    }
}
