//! What goes to stdout: tables and lines for people, JSON for programs.

use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Serialize;
use std::io::Write;

/// Widest line of a table.
const WIDTH: usize = 100;

/// Prints JSON, indented.
///
/// # Errors
/// When stdout fails; a reader that went away is no failure but ends the process.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Internal, "could not write JSON").detail(e))?;
    lines(&text)
}

/// Text from a repository or a server as a terminal may show it: control characters, and those that turn or break lines,
/// are written as JSON writes them (`\u001b`), so that JSON stays what it is. Line breaks and tabs stay.
pub fn printable(text: &str) -> String {
    let harmful = |c: char| {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || c.is_control() && !matches!(c, '\n' | '\t')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match harmful(c) {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => shown.push(c),
        }
    }
    shown
}

/// Prints text and a newline, made [`printable`].
///
/// # Errors
/// As [`json`].
pub fn lines(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", printable(text)).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // `pgark list | head -1`: the reader has all it wanted.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::io("could not write to stdout", &e)),
    }
}

/// A table in columns; the last column is cut where the line would pass [`WIDTH`] characters.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let heading = head.iter().map(|cell| (*cell).to_string()).collect();
    let cell = |text: &String| printable(text.lines().next().unwrap_or_default());
    let body = rows.iter().map(|row| row.iter().map(cell).collect());
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(body).collect();
    let mut widths = vec![0; head.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().map(|row| line(row, &widths)).collect::<Vec<_>>().join("\n")
}

/// A table whose last column is text of any length: it is wrapped, never cut. A row: its other cells, and that text.
pub fn told<const N: usize>(head: &[&str], rows: &[([String; N], &str)]) -> String {
    let names: Vec<String> = head.iter().map(|cell| (*cell).to_string()).collect();
    let (names, last) = names.split_at(N.min(names.len()));
    let cell = |text: &String| printable(text.lines().next().unwrap_or_default());
    let body = rows.iter().map(|(cells, text)| (cells.iter().map(cell).collect(), printable(text)));
    let heading = (names.to_vec(), last.concat());
    let rows: Vec<(Vec<String>, String)> = std::iter::once(heading).chain(body).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|(cells, _)| cells.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let indent = widths.iter().map(|width| width + 2).sum();
    let line = |(cells, text): &(Vec<String>, String)| {
        let cells: String =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let lines = format!("{cells}{}", wrapped(text, indent));
        lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (number, (cell, width)) in row.iter().zip(widths).enumerate() {
        if number > 0 {
            line.push_str("  ");
        }
        let used = line.chars().count();
        let cell = if number + 1 == row.len() { cut(cell, WIDTH.saturating_sub(used)) } else { cell.clone() };
        line.push_str(&format!("{cell:<width$}"));
    }
    line.trim_end().to_string()
}

/// At most `room` characters of a line.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_string();
    }
    let mut short: String = text.chars().take(room.saturating_sub(3)).collect();
    short.push_str("...");
    short
}

/// Lines `Name:   value`, the values in one column; pairs without a value are left out.
pub fn pairs(pairs: &[(&str, Option<String>)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    let shown = pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let line = |(name, value): (&&str, &String)| {
        format!("{:<width$}  {}", format!("{name}:"), indented(value, width + 2))
    };
    shown.map(line).collect::<Vec<_>>().join("\n")
}

/// Text whose further lines begin with `width` spaces: none may look like a line that pgark wrote itself.
pub fn indented(text: &str, width: usize) -> String {
    text.replace('\n', &format!("\n{:width$}", ""))
}

/// Text that begins behind `width` spaces, with line breaks between words where a line would pass [`WIDTH`] characters. A
/// word is never cut: paths can be copied.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut now = String::new();
        for word in line.split(' ') {
            if !now.is_empty() && width + now.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut now));
            } else if !now.is_empty() {
                now.push(' ');
            }
            now.push_str(word);
        }
        lines.push(now);
    }
    indented(&lines.join("\n"), width)
}

/// `2026-11-22T02:00:00Z` as `2026-11-22 02:00:00`.
pub fn time(text: &str) -> String {
    text.replacen('T', " ", 1).trim_end_matches('Z').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stay_within_their_width() {
        let rows =
            vec![vec!["a".to_string(), "x".repeat(200)], vec!["größer".to_string(), "y\nz".to_string()]];
        let table = table(&["NAME", "NOTE"], &rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "NAME    NOTE");
        assert_eq!(lines[1].chars().count(), WIDTH);
        assert_eq!(lines[2], "größer  y");
    }

    #[test]
    fn terminals_get_no_orders_from_a_repository() {
        let hostile = "\u{1b}[2Jx\r\u{7f}\u{9b}\u{202e}\u{2066}\u{2028}\u{200f}";
        let shown = "\\u001b[2Jx\\u000d\\u007f\\u009b\\u202e\\u2066\\u2028\\u200f";
        assert_eq!(printable(hostile), shown);
        assert_eq!(printable("größe\t日本 🐘\n"), "größe\t日本 🐘\n");
        let json = printable(&serde_json::to_string(hostile).unwrap());
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile, "JSON stays what it is");
        assert_eq!(pairs(&[("A", Some("1\nB: 2".into()))]), "A:  1\n    B: 2");
        let wide = table(&["N"], &[vec!["\u{1b}".repeat(100)]]);
        assert!(wide.lines().all(|line| line.chars().count() <= WIDTH), "{wide}");
    }

    #[test]
    fn long_text_is_wrapped_between_words() {
        let text = format!("{} {} \"/a path/{}\"\nnext", "a".repeat(50), "b".repeat(39), "c".repeat(120));
        let shown = wrapped(&text, 10);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], format!("{} {}", "a".repeat(50), "b".repeat(39)), "100 characters fit");
        assert_eq!(lines[1], "          \"/a");
        assert!(lines[2].trim_start().starts_with("path/ccc") && lines[2].ends_with('"'), "{shown}");
        assert_eq!(lines[3], "          next");
        assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn pairs_without_value_are_left_out() {
        assert_eq!(
            pairs(&[("A", Some("1".into())), ("Long", None), ("B", Some("2".into()))]),
            "A:     1\nB:     2"
        );
    }
}
