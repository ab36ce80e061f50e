//! SQL through psql: answers, errors by SQLSTATE, sessions in the background.

use crate::os::run;
use crate::process::{INTERRUPT, send_signal};
use crate::wait::{LONG, wait_until};
use crate::{Cluster, process};
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A message from the server: `ERROR`, `WARNING`, `NOTICE`, ...
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlMessage {
    /// `ERROR`, `FATAL`, `WARNING`, `NOTICE`, `INFO`, ...
    pub severity: String,
    /// Five characters; empty when psql could not even connect.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// DETAIL, empty when there is none.
    pub detail: String,
    /// HINT, empty when there is none.
    pub hint: String,
}

/// SQL that worked.
#[derive(Debug, Clone)]
pub struct SqlAnswer {
    /// Rows as `psql -At` prints them, without the last newline.
    pub rows: String,
    /// Notices and warnings.
    pub messages: Vec<SqlMessage>,
}

/// SQL that failed.
#[derive(Debug, Clone)]
pub struct SqlError {
    /// The first error.
    pub error: Box<SqlMessage>,
    /// Rows printed before it.
    pub rows: String,
    /// All that psql wrote to stderr.
    pub stderr: String,
}

impl SqlError {
    /// SQLSTATE; empty when psql could not even connect.
    pub fn sqlstate(&self) -> &str {
        &self.error.sqlstate
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.error.message
    }

    /// The hint, empty when there is none.
    pub fn hint(&self) -> &str {
        &self.error.hint
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stderr)
    }
}

const SEVERITIES: [&str; 8] = ["ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO", "LOG", "DEBUG"];

/// Reads what psql with `VERBOSITY=verbose` writes to stderr.
pub(crate) fn parse_messages(stderr: &str) -> Vec<SqlMessage> {
    enum Field {
        Message,
        Detail,
        Hint,
        Other,
    }
    let mut messages: Vec<SqlMessage> = Vec::new();
    let mut field = Field::Other;
    for line in stderr.lines() {
        if let Some(message) = parse_first_line(line) {
            messages.push(message);
            field = Field::Message;
            continue;
        }
        let Some(message) = messages.last_mut() else { continue };
        if let Some(text) = line.strip_prefix("DETAIL:  ") {
            message.detail = text.to_string();
            field = Field::Detail;
        } else if let Some(text) = line.strip_prefix("HINT:  ") {
            message.hint = text.to_string();
            field = Field::Hint;
        } else if ["LOCATION:  ", "CONTEXT:  ", "QUERY:  ", "LINE ", "SCHEMA NAME:  ", "psql:"]
            .iter()
            .any(|start| line.starts_with(start))
        {
            field = Field::Other;
        } else {
            let text = match field {
                Field::Message => &mut message.message,
                Field::Detail => &mut message.detail,
                Field::Hint => &mut message.hint,
                Field::Other => continue,
            };
            text.push('\n');
            text.push_str(line);
        }
    }
    messages
}

/// `psql:<stdin>:1: ERROR:  42P01: relation ...`
fn parse_first_line(line: &str) -> Option<SqlMessage> {
    let rest = match line.strip_prefix("psql:") {
        Some(rest) => rest.split_once(": ").map_or(rest, |(_place, rest)| rest),
        None => line,
    };
    if let Some(message) = line.strip_prefix("psql: error: ") {
        let message = message.to_string();
        return Some(SqlMessage { severity: "FATAL".into(), message, ..SqlMessage::default() });
    }
    let (severity, rest) = rest.split_once(":  ")?;
    if !SEVERITIES.contains(&severity) {
        return None;
    }
    let (sqlstate, message) = rest.split_once(": ").filter(|(state, _)| state.len() == 5)?;
    let (severity, sqlstate) = (severity.to_string(), sqlstate.to_string());
    Some(SqlMessage { severity, sqlstate, message: message.to_string(), ..SqlMessage::default() })
}

fn into_result(success: bool, rows: String, stderr: String) -> Result<SqlAnswer, SqlError> {
    let rows = rows.strip_suffix('\n').map(str::to_string).unwrap_or(rows);
    let messages = parse_messages(&stderr);
    if success {
        return Ok(SqlAnswer { rows, messages });
    }
    let is_error = |message: &&SqlMessage| ["ERROR", "FATAL", "PANIC"].contains(&message.severity.as_str());
    let error = messages.iter().find(is_error).cloned().unwrap_or_else(|| SqlMessage {
        severity: "FATAL".into(),
        message: stderr.trim().to_string(),
        ..SqlMessage::default()
    });
    Err(SqlError { error: Box::new(error), rows, stderr })
}

impl Cluster {
    /// Runs SQL (psql's own commands work too) in database `postgres`; returns rows as `psql -At` prints them.
    ///
    /// # Panics
    /// At the first error, with what psql wrote.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        self.psql_db("postgres", sql)
    }

    /// [`psql`](Self::psql) in another database.
    ///
    /// # Panics
    /// At the first error, with what psql wrote.
    #[track_caller]
    pub fn psql_db(&self, database: &str, sql: &str) -> String {
        match self.query(database, "postgres", sql) {
            Ok(answer) => answer.rows,
            Err(error) => panic!("SQL failed: {sql}\n{error}"),
        }
    }

    /// Runs SQL in database `postgres`; an error comes back with SQLSTATE, message and hint.
    ///
    /// # Errors
    /// When a statement fails or the server cannot be reached.
    pub fn try_psql(&self, sql: &str) -> Result<String, SqlError> {
        self.query("postgres", "postgres", sql).map(|answer| answer.rows)
    }

    /// Runs SQL as a role in a database; notices and warnings come back with the rows.
    ///
    /// # Errors
    /// When a statement fails or the server cannot be reached.
    pub fn query(&self, database: &str, role: &str, sql: &str) -> Result<SqlAnswer, SqlError> {
        // A file as stdin, not -c: each statement is then a transaction of its own.
        let mut script = tempfile::tempfile().expect("could not make a temporary file");
        let write = script.write_all(sql.as_bytes()).and_then(|()| std::io::Seek::rewind(&mut script));
        write.expect("could not write a temporary file");
        let output = run(self.psql_command(database, role).stdin(script));
        into_result(output.success(), output.stdout, output.stderr)
    }

    fn psql_command(&self, database: &str, role: &str) -> Command {
        let mut command = self.client("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-f", "-"]);
        // A name that looks like a connection string would be taken for one.
        let name = database.replace('\\', "\\\\").replace('\'', "\\'");
        command.args(["-U", role, "-d", &format!("dbname='{name}'")]);
        command
    }

    /// Runs SQL in the background, in a session that ends after it.
    #[track_caller]
    pub fn psql_background(&self, sql: &str) -> Session {
        let mut session = self.session();
        session.send(sql);
        session.input = None;
        session
    }

    /// Opens a session in database `postgres` that stays.
    #[track_caller]
    pub fn session(&self) -> Session {
        self.session_as("postgres", "postgres")
    }

    /// Opens a session as a role in a database that stays.
    ///
    /// # Panics
    /// When psql cannot be started.
    #[track_caller]
    pub fn session_as(&self, database: &str, role: &str) -> Session {
        let mut child = self
            .psql_command(database, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("could not start psql");
        let (out, out_thread) = follow(child.stdout.take().expect("piped"));
        let (err, err_thread) = follow(child.stderr.take().expect("piped"));
        let input = child.stdin.take();
        Session { child, input, out, err, readers: vec![out_thread, err_thread], asked: 0 }
    }
}

type Text = Arc<Mutex<String>>;

fn follow(pipe: impl Read + Send + 'static) -> (Text, JoinHandle<()>) {
    let text = Text::default();
    let sink = Arc::clone(&text);
    let thread = std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    (text, thread)
}

fn read(text: &Text) -> String {
    text.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A psql process in the background. Killed when dropped.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    out: Text,
    err: Text,
    readers: Vec<JoinHandle<()>>,
    asked: u32,
}

impl Session {
    /// Sends SQL and does not wait for its answer.
    ///
    /// # Panics
    /// When the session has ended.
    #[track_caller]
    pub fn send(&mut self, sql: &str) {
        let input = self.input.as_mut().expect("the session takes no more input");
        let sent = input.write_all(sql.as_bytes()).and_then(|()| input.write_all(b"\n;\n"));
        sent.and_then(|()| input.flush()).unwrap_or_else(|e| panic!("psql ended: {e}\n{}", read(&self.err)));
    }

    /// Sends SQL and waits for its rows.
    ///
    /// # Panics
    /// When the SQL fails or the session has ended.
    #[track_caller]
    pub fn ask(&mut self, sql: &str) -> String {
        self.asked += 1;
        let from = read(&self.out).len();
        let mark = format!("--- answer {} ends ---\n", self.asked);
        self.send(&format!("{sql}\n;\n\\echo {}", mark.trim_end()));
        wait_until("an answer from psql, or its end", LONG, || {
            read(&self.out).ends_with(&mark) || !self.is_running()
        });
        let text = read(&self.out);
        let Some(answer) = text.get(from..).and_then(|text| text.strip_suffix(&mark)) else {
            panic!("SQL failed: {sql}\n{}", read(&self.err))
        };
        answer.strip_suffix('\n').unwrap_or(answer).to_string()
    }

    /// PID of the server process behind the session.
    #[track_caller]
    pub fn backend_pid(&mut self) -> u32 {
        self.ask("SELECT pg_backend_pid()").parse().expect("a PID")
    }

    /// PID of psql.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Presses Ctrl-C: psql asks the server to cancel the running query.
    pub fn interrupt(&self) {
        send_signal(self.child.id(), INTERRUPT);
    }

    /// True until psql ends: by error, by the end of its input, or because the server closed the connection.
    pub fn is_running(&mut self) -> bool {
        process::is_alive(self.child.id()) && matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed so far.
    pub fn rows_so_far(&self) -> String {
        read(&self.out)
    }

    /// What it has written to stderr so far: notices, warnings, errors.
    pub fn stderr_so_far(&self) -> String {
        read(&self.err)
    }

    /// Ends the input and waits for the end of psql.
    ///
    /// # Errors
    /// When a statement failed.
    ///
    /// # Panics
    /// When psql does not end.
    #[track_caller]
    pub fn wait(mut self) -> Result<SqlAnswer, SqlError> {
        self.input = None;
        wait_until("the end of psql", LONG, || !self.is_running());
        let status = self.child.wait().expect("status of psql");
        for reader in self.readers.drain(..) {
            reader.join().expect("reader of psql's output");
        }
        into_result(status.success(), read(&self.out), read(&self.err))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_with_their_fields() {
        let stderr = "psql:<stdin>:1: NOTICE:  00000: careful\nLOCATION:  exec, pl.c:1\n\
                      psql:<stdin>:2: ERROR:  42P01: relation \"x\" does not exist\nLINE 1: select x\n        ^\n\
                      DETAIL:  one\ntwo\nHINT:  Make it: now.\nLOCATION:  parserOpenTable, parse_relation.c:1395\n";
        let messages = parse_messages(stderr);
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].severity.as_str(), messages[0].message.as_str()), ("NOTICE", "careful"));
        assert_eq!(messages[1].sqlstate, "42P01");
        assert_eq!(messages[1].message, "relation \"x\" does not exist");
        assert_eq!(messages[1].detail, "one\ntwo");
        assert_eq!(messages[1].hint, "Make it: now.");
    }

    #[test]
    fn a_failed_connection_has_a_message_and_no_sqlstate() {
        let error = into_result(false, String::new(), "psql: error: connection to server failed".into());
        let error = error.unwrap_err();
        assert_eq!((error.sqlstate(), error.message()), ("", "connection to server failed"));
    }
}
