//! The globals' text cut into statements. Pure: bytes in, statements out.
//!
//! psql would obey a backslash command anywhere outside of quotes, and run programs for it. So nothing reaches psql but whole
//! statements made of what `pg_dumpall --globals-only` writes: words, quoted names, literals and signs. Where this reader and
//! psql's (psqlscan.l) could disagree about the end of a literal, or this and the server about a name, the text is refused.

use pg_ark_contract::{Error, ErrorKind, Result};
use std::ops::Range;

/// Lines for psql itself that pg_dumpall writes. They are dropped: the first two guard against what is refused here anyway.
const DROPPED: [&str; 3] = ["\\restrict", "\\unrestrict", "\\connect"];

/// A word of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A keyword or a plain name, folded to lower case as the server does.
    Plain(String),
    /// A name in double quotes, without them.
    Quoted(String),
    /// A literal, without its quotes.
    Literal(String),
    /// Anything else.
    Sign(u8),
}

/// A statement with its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands in the text, without its semicolon.
    pub range: Range<usize>,
    /// Its words and where each stands.
    pub words: Vec<(Word, Range<usize>)>,
}

impl Statement {
    /// Whether the words from number `at` on are these keywords.
    pub fn says(&self, at: usize, keywords: &[&str]) -> bool {
        (at..).zip(keywords).all(
            |(at, keyword)| matches!(self.words.get(at), Some((Word::Plain(word), _)) if word == keyword),
        )
    }

    /// Number of the first word behind these keywords.
    pub fn behind(&self, keywords: &[&str]) -> Option<usize> {
        (0..self.words.len()).find(|at| self.says(*at, keywords)).map(|at| at + keywords.len())
    }

    /// The name that word number `at` is.
    pub fn name(&self, at: usize) -> Option<&str> {
        match self.words.get(at)? {
            (Word::Plain(name) | Word::Quoted(name), _) => Some(name),
            _ => None,
        }
    }
}

/// Cuts a text into its statements.
///
/// # Errors
/// `Corrupt` for what pg_dumpall does not write.
pub fn statements(text: &[u8]) -> Result<Vec<Statement>> {
    let mut reader = Reader { text, at: 0 };
    let mut all = Vec::new();
    while let Some(statement) = reader.statement()? {
        all.push(statement);
    }
    Ok(all)
}

/// The error for what stands at byte `at` of the text.
pub fn strange(text: &[u8], at: usize, what: &str) -> Error {
    let line = text.iter().take(at).filter(|b| **b == b'\n').count() + 1;
    let message = format!("line {line} of the globals {what}, which pg_dumpall does not write");
    Error::new(ErrorKind::Corrupt, message).hint(
        "Somebody changed it. Restore another backup, or look at the text of the globals and run it by hand.",
    )
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn line(&mut self) -> &[u8] {
        let begin = self.at;
        let length = self.rest().iter().position(|b| *b == b'\n').unwrap_or(self.rest().len());
        self.at += length;
        self.text.get(begin..self.at).unwrap_or_default()
    }

    fn strange(&self, what: &str) -> Error {
        strange(self.text, self.at, what)
    }

    /// Skips blanks and comments.
    fn skip(&mut self) {
        loop {
            match self.peek() {
                Some(b) if b.is_ascii_whitespace() => self.at += 1,
                Some(b'-') if self.rest().starts_with(b"--") => drop(self.line()),
                _ => return,
            }
        }
    }

    fn statement(&mut self) -> Result<Option<Statement>> {
        let mut words: Vec<(Word, Range<usize>)> = Vec::new();
        loop {
            self.skip();
            let begin = self.at;
            let Some(byte) = self.peek() else {
                return match words.is_empty() {
                    true => Ok(None),
                    false => Err(self.strange("is an unfinished statement")),
                };
            };
            if byte == b'\\' && words.is_empty() {
                let line = String::from_utf8_lossy(self.line()).into_owned();
                // Two commands may stand on one line.
                let known = DROPPED.iter().any(|known| line.split_whitespace().next() == Some(known));
                if !known || line.matches('\\').count() > 1 {
                    self.at = begin;
                    return Err(self.strange("has a command for psql"));
                }
                continue;
            }
            if byte == b';' {
                self.at += 1;
                match words.first() {
                    Some((_, first)) => {
                        return Ok(Some(Statement { range: first.start..begin, words }));
                    }
                    None => continue,
                }
            }
            let word = self.word(byte, words.last())?;
            words.push((word, begin..self.at));
        }
    }

    fn word(&mut self, byte: u8, last: Option<&(Word, Range<usize>)>) -> Result<Word> {
        let begins = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b >= 0x80;
        match byte {
            b'"' => Ok(Word::Quoted(self.quoted(b'"', false)?)),
            b'\'' => {
                let escapes = match last {
                    // The server joins literals, and what escapes in the first does in the second.
                    Some((Word::Literal(_), _)) => return Err(self.strange("has a literal in two parts")),
                    Some((Word::Plain(word), range)) => word == "e" && range.end == self.at,
                    _ => false,
                };
                Ok(Word::Literal(self.quoted(b'\'', escapes)?))
            }
            b'\\' => Err(self.strange("has a command for psql")),
            b'$' => Err(self.strange("has a literal in dollar signs")),
            b'/' if self.rest().starts_with(b"/*") => Err(self.strange("has a comment between /* and */")),
            b if begins(b) => {
                let begin = self.at;
                while self.peek().is_some_and(|b| begins(b) || b.is_ascii_digit() || b == b'$') {
                    self.at += 1;
                }
                let word = self.text.get(begin..self.at).unwrap_or_default();
                // The server may fold letters that this does not; pg_dumpall puts such names in quotes.
                match std::str::from_utf8(word) {
                    Ok(word) if word.is_ascii() => Ok(Word::Plain(word.to_ascii_lowercase())),
                    _ => Err(self.strange("has a name without quotes")),
                }
            }
            other => {
                self.at += 1;
                // psql of one version takes 1E'...' for a number and a literal, that of another for 1 and E'...'.
                match other.is_ascii_digit() && self.peek().is_some_and(begins) {
                    true => Err(self.strange("has a number that ends in a letter")),
                    false => Ok(Word::Sign(other)),
                }
            }
        }
    }

    /// What stands between two quotes, a doubled one being part of it.
    fn quoted(&mut self, quote: u8, escapes: bool) -> Result<String> {
        let mut value = Vec::new();
        self.at += 1;
        loop {
            let Some(byte) = self.peek() else { return Err(self.strange("has an open quote")) };
            self.at += 1;
            match byte {
                b if b == quote && self.peek() == Some(quote) => {
                    self.at += 1;
                    value.push(quote);
                }
                b if b == quote => return Ok(String::from_utf8_lossy(&value).into_owned()),
                b'\\' if escapes => {
                    value.extend(self.peek());
                    self.at += 1;
                }
                other => value.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<String> {
        let statements = statements(text.as_bytes()).unwrap();
        statements.into_iter().map(|s| text[s.range].to_string()).collect()
    }

    #[test]
    fn statements_are_cut_where_the_server_cuts_them() {
        let text = "--\n-- Roles; and 'more\n--\n\\restrict aBc\n\nCREATE ROLE a;\n;ALTER ROLE a WITH PASSWORD 'x;''\\';\n\
                    COMMENT ON ROLE \"b;\"\"c\" IS E'it\\'s; \\\\';CREATE ROLE d$e;\n\\unrestrict aBc\n";
        let expected = [
            "CREATE ROLE a",
            "ALTER ROLE a WITH PASSWORD 'x;''\\'",
            "COMMENT ON ROLE \"b;\"\"c\" IS E'it\\'s; \\\\'",
            "CREATE ROLE d$e",
        ];
        assert_eq!(cut(text), expected);
        let statement = &statements(text.as_bytes()).unwrap()[2];
        assert!(statement.says(0, &["comment", "on", "role"]));
        assert_eq!(statement.behind(&["on", "role"]).and_then(|at| statement.name(at)), Some("b;\"c"));
        assert_eq!(statement.words.last().unwrap().0, Word::Literal("it's; \\".into()));
        assert_eq!(cut(""), Vec::<String>::new());
    }

    #[test]
    fn promise_7_nothing_of_the_globals_is_a_command_for_psql() {
        let hostile = [
            "\\! touch /tmp/x\n",
            "\\restrict a \\! touch /tmp/x\n",
            "SELECT 1 \\! touch /tmp/x\n;",
            "SELECT $$ ' $$ \\! touch /tmp/x\n';",
            "SELECT /* ' */ \\! x ';",
            "SELECT E'a'\n'b\\' \\! x ';",
            "SELECT 1E'\\' \\! x ';",
            "CREATE ROLE a",
            "CREATE ROLE \"a;",
            "CREATE ROLE \u{e9};",
            "COMMENT ON ROLE a IS 'x",
            "COMMENT ON ROLE a IS E'x\\",
        ];
        for text in hostile {
            assert_eq!(statements(text.as_bytes()).unwrap_err().kind, ErrorKind::Corrupt, "{text}");
        }
        let error = statements(b"CREATE ROLE a;\n\n\\! x\n").unwrap_err();
        assert!(error.message.contains("line 3"), "{error}");
    }
}
