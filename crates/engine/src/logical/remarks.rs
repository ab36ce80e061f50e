//! What pg_dump and pg_dumpall remark: warnings of their own, and notices of the server that libpq prints.
//!
//! Their own have the form `pg_dump: warning: ...`, with lines `detail` and `hint` after them (`pg_log_generic_v`,
//! common/logging.c); the server's are `WARNING:  ...`, `DETAIL:  ...`, `HINT:  ...` (`pqBuildErrorMessage3`,
//! fe-protocol3.c).

use super::child::Ended;
use crate::session::Session;

/// Most warnings that are passed on of one program.
const MAX: usize = 20;

/// Passes warnings on to the session.
pub struct Remarks<'a> {
    session: &'a Session,
    /// What the program works on: `database "app"`.
    subject: String,
    last: Option<(String, Option<String>)>,
    count: usize,
}

impl<'a> Remarks<'a> {
    /// Of the program that works on `subject`.
    pub fn new(session: &'a Session, subject: String) -> Self {
        Remarks { session, subject, last: None, count: 0 }
    }

    /// Hears a line.
    pub fn line(&mut self, line: &str) {
        match (word(line), &mut self.last) {
            (Some((Word::Warning, text)), _) => {
                self.tell();
                self.last = Some((text.to_string(), None));
            }
            (Some((Word::Detail, text)), Some((message, _))) => {
                message.push_str(": ");
                message.push_str(text);
            }
            (Some((Word::Hint, text)), Some((_, hint))) => *hint = Some(text.to_string()),
            _ => self.tell(),
        }
    }

    /// The program has ended.
    pub fn end(mut self) {
        self.tell();
        if self.count > MAX {
            let more = self.count - MAX;
            self.session.warn(format!("{}: {more} more warnings are in no record", self.subject), None);
        }
    }

    fn tell(&mut self) {
        let Some((message, hint)) = self.last.take() else { return };
        self.count += 1;
        if self.count <= MAX {
            self.session.warn(format!("{}: {message}", self.subject), hint);
        }
    }
}

/// Why a program failed: its errors and what belongs to them in one line, without warnings; how it ended when it said
/// nothing.
pub fn reason(program: &str, ended: &Ended) -> String {
    let mut is_error = true;
    let mut said = Vec::new();
    for line in &ended.errors {
        match word(line) {
            Some((Word::Warning, _)) => is_error = false,
            Some((Word::Error, text)) => {
                is_error = true;
                said.push(text);
            }
            Some((Word::Detail | Word::Hint, text)) if is_error => said.push(text),
            None if is_error => said.push(line),
            _ => {}
        }
    }
    match said.is_empty() {
        true => format!("{program} {}", ended.status),
        false => said.iter().map(|line| line.trim()).collect::<Vec<_>>().join("; "),
    }
}

#[derive(Clone, Copy)]
enum Word {
    Error,
    Warning,
    Detail,
    Hint,
}

fn word(line: &str) -> Option<(Word, &str)> {
    let own = [
        ("error: ", Word::Error),
        ("warning: ", Word::Warning),
        ("detail: ", Word::Detail),
        ("hint: ", Word::Hint),
    ];
    let servers = [
        ("ERROR:  ", Word::Error),
        ("WARNING:  ", Word::Warning),
        ("DETAIL:  ", Word::Detail),
        ("HINT:  ", Word::Hint),
    ];
    let (words, rest) = match line.split_once(": ") {
        Some(("pg_dump" | "pg_dumpall", rest)) => (own, rest),
        _ => (servers, line),
    };
    words.iter().find_map(|(start, word)| rest.strip_prefix(start).map(|text| (*word, text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::conversation::Event;
    use std::sync::{Arc, Mutex};

    fn told(lines: &[&str]) -> Vec<(String, Option<String>)> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let session = Session::new(move |event| {
            if let Event::Warning { message, hint } = event {
                sink.lock().unwrap().push((message, hint));
            }
        });
        let mut remarks = Remarks::new(&session, "database \"x\"".into());
        lines.iter().for_each(|line| remarks.line(line));
        remarks.end();
        told.lock().unwrap().clone()
    }

    #[test]
    fn warnings_are_passed_on_with_what_belongs_to_them() {
        let told = told(&[
            "pg_dump: last built-in OID is 16383",
            "pg_dump: warning: circular foreign keys:",
            "pg_dump: detail: t",
            "pg_dump: hint: Use a full dump.",
            "pg_dump: detail: ",
            "WARNING:  database \"x\" has a collation version mismatch",
            "DETAIL:  2.31 is not 2.36.",
            "pg_dump: hint-less",
            "HINT:  of nothing",
            "pg_dump: error: no warning",
        ]);
        let expected = [
            ("database \"x\": circular foreign keys:: t: ", Some("Use a full dump.")),
            ("database \"x\": database \"x\" has a collation version mismatch: 2.31 is not 2.36.", None),
        ];
        assert_eq!(told, expected.map(|(m, h)| (m.to_string(), h.map(str::to_string))));
    }

    #[test]
    fn a_reason_is_what_its_errors_say() {
        let because = |lines: &[&str]| {
            let errors = lines.iter().map(|line| line.to_string()).collect();
            reason(
                "pg_dump",
                &Ended { success: false, code: None, status: "was killed by signal 9".into(), errors },
            )
        };
        assert_eq!(because(&[]), "pg_dump was killed by signal 9");
        let lines = [
            "WARNING:  old collation",
            "DETAIL:  not this",
            "pg_dump: error: Dumping \"t\" failed.",
            "pg_dump: detail: Error message from server: ERROR:  invalid page",
            "CONTEXT:  here",
            "pg_dump: warning: something else",
            "pg_dump: hint: nor this",
        ];
        let said = "Dumping \"t\" failed.; Error message from server: ERROR:  invalid page; CONTEXT:  here";
        assert_eq!(because(&lines), said);
        assert_eq!(because(&lines[..2]), "pg_dump was killed by signal 9");
    }

    #[test]
    fn many_are_counted() {
        let lines = vec!["pg_dump: warning: again"; MAX + 5];
        let told = told(&lines);
        assert_eq!(told.len(), MAX + 1);
        assert!(told[MAX].0.contains("5 more warnings"), "{told:?}");
    }
}
