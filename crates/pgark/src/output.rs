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

/// Prints text and a newline.
///
/// # Errors
/// As [`json`].
pub fn lines(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // `pgark list | head -1`: the reader has all it wanted.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::io("could not write to stdout", &e)),
    }
}

/// A table in columns; the last column is cut where the line would pass [`WIDTH`] characters.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading: Vec<String> = head.iter().map(|cell| (*cell).to_string()).collect();
    let lines: Vec<String> = std::iter::once(&heading).chain(rows).map(|row| line(row, &widths)).collect();
    lines.join("\n")
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

/// One line of at most `room` characters.
fn cut(text: &str, room: usize) -> String {
    let text = text.lines().next().unwrap_or_default();
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
    let lines: Vec<String> =
        shown.map(|(name, value)| format!("{:<width$}  {value}", format!("{name}:"))).collect();
    lines.join("\n")
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
    fn pairs_without_value_are_left_out() {
        assert_eq!(
            pairs(&[("A", Some("1".into())), ("Long", None), ("B", Some("2".into()))]),
            "A:     1\nB:     2"
        );
    }
}
