//! `pgark verify-archive`: what the archive holds, what it lacks, what in it is damaged.

use super::windows::moment;
use crate::cli::{Format, VerifyArchiveArgs};
use crate::progress::Reading;
use crate::{output, talk};
use pg_ark_contract::rows::{ArchiveRow, ArchiveStatus};
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::repository::Cluster;
use pg_ark_engine::verify::{self, Depth};

const HEAD: [&str; 6] = ["TLI", "STATUS", "COUNT", "FROM (UTC)", "TO (UTC)", "SEGMENTS"];

/// Prints a row for each range, gap and fault, and fails when there is a fault.
pub fn run(cluster: &Cluster, arguments: &VerifyArchiveArgs, format: Format) -> Result<()> {
    let depth = match arguments.deep {
        true => Depth::Everything(arguments.jobs.map_or(0, usize::from)),
        false => Depth::Names,
    };
    let reading = Reading::new("reading WAL")?;
    let rows = verify::archive_rows(cluster, None, depth, &reading);
    reading.finish();
    let rows = rows?;
    match format {
        Format::Json => output::json(&rows)?,
        Format::Text if rows.is_empty() => {
            talk::say(&format!("the archive of cluster \"{}\" is empty", cluster.name()));
        }
        Format::Text => output::lines(&text(&rows))?,
    }
    judge(&rows)
}

/// The error for what was found: damage counts more than gaps.
fn judge(rows: &[ArchiveRow]) -> Result<()> {
    let count = |is: &dyn Fn(ArchiveStatus) -> bool| rows.iter().filter(|row| is(row.status)).count();
    let gaps = count(&|status| status == ArchiveStatus::Gap);
    let faults = count(&ArchiveStatus::is_fault);
    let (kind, what) = match (faults - gaps, gaps) {
        (0, 0) => return Ok(()),
        (0, gaps) => (ErrorKind::WalMissing, counted(gaps, "gap")),
        (faults, 0) => (ErrorKind::Corrupt, counted(faults, "fault")),
        (faults, gaps) => {
            (ErrorKind::Corrupt, format!("{} and {}", counted(faults, "fault"), counted(gaps, "gap")))
        }
    };
    let hint = match kind {
        ErrorKind::WalMissing => {
            "Recovery cannot pass a gap. Look for the segments on the server and its standbys and store them with pgark wal-push; \
             else take a backup now: it begins a new recovery window."
        }
        _ => {
            "Get what is damaged back from a copy of the repository. pgark windows shows what can be recovered."
        }
    };
    Err(Error::new(kind, format!("the archive has {what}")).hint(hint))
}

/// `1 gap`, `2 gaps`.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A table, and below it what was found in words.
fn text(rows: &[ArchiveRow]) -> String {
    let table = output::table(&HEAD, &rows.iter().map(cells).collect::<Vec<_>>());
    let detail = |row: &ArchiveRow| {
        let detail = row.detail.as_ref()?;
        let place = row.first_segment.as_ref().map_or_else(String::new, |name| format!("{name}: "));
        Some(output::indented(&format!("{} {place}{detail}", row.status.as_str()), 4))
    };
    let details: Vec<String> = rows.iter().filter_map(detail).collect();
    match details.is_empty() {
        true => table,
        false => format!("{table}\n\n{}", details.join("\n")),
    }
}

fn cells(row: &ArchiveRow) -> Vec<String> {
    let time = |time: &Option<String>| time.as_deref().map_or_else(String::new, moment);
    vec![
        row.timeline.map_or_else(String::new, |timeline| timeline.to_string()),
        row.status.as_str().to_string(),
        if row.segments > 0 { row.segments.to_string() } else { String::new() },
        time(&row.start_time),
        time(&row.end_time),
        match (&row.first_segment, &row.last_segment) {
            (Some(first), Some(last)) => names(first, last),
            _ => String::new(),
        },
    ]
}

/// The first name whole, of the last one what differs: `000000010000000000000003..08`.
pub fn names(first: &str, last: &str) -> String {
    let equal = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    match last.get(equal.min(last.len().saturating_sub(2))..) {
        Some(differs) if first != last => format!("{first}..{differs}"),
        _ => first.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_contract::Timeline;

    fn row(status: ArchiveStatus, detail: Option<&str>) -> ArchiveRow {
        ArchiveRow {
            timeline: Some(Timeline(1)),
            first_segment: Some("000000010000000000000004".into()),
            last_segment: Some("000000010000000000000009".into()),
            start_lsn: Some("0/4000000".parse().unwrap()),
            end_lsn: Some("0/A000000".parse().unwrap()),
            start_time: Some("2026-11-22T02:00:00.000001Z".into()),
            end_time: None,
            segments: 6,
            status,
            detail: detail.map(Into::into),
        }
    }

    #[test]
    fn what_is_found_decides_the_exit_code() {
        use ArchiveStatus::{Damaged, Gap, NoHistory, Ok, Pruned, Stranger};
        let code = |found: &[ArchiveStatus]| {
            let rows: Vec<_> = found.iter().map(|status| row(*status, None)).collect();
            judge(&rows).err().map_or(0, |error| error.kind.exit_code())
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[Ok, Ok]), 0);
        assert_eq!(code(&[Pruned, Ok]), 0, "retention did it");
        assert_eq!(code(&[Pruned, Gap]), 19);
        assert_eq!(code(&[Ok, Gap, Gap]), 19);
        for fault in [Damaged, Stranger, NoHistory] {
            assert_eq!(code(&[Ok, fault]), 13);
            assert_eq!(code(&[Gap, fault]), 13);
        }
        let message = judge(&[row(Gap, None), row(Damaged, None), row(Gap, None)]).unwrap_err().message;
        assert_eq!(message, "the archive has 1 fault and 2 gaps");
    }

    #[test]
    fn tables_keep_their_width_and_lose_nothing() {
        let why = "x".repeat(200);
        let text = text(&[row(ArchiveStatus::Ok, None), row(ArchiveStatus::Damaged, Some(&why))]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[..3].iter().all(|line| line.chars().count() <= 100), "{text}");
        let columns = "1    ok       6      2026-11-22 02:00:00            000000010000000000000004..09";
        assert_eq!(lines[1], columns);
        assert_eq!(
            names("000000010000000000000FFF", "000000010000000100000000"),
            "000000010000000000000FFF..100000000"
        );
        assert_eq!(lines.last().copied(), Some(&format!("damaged 000000010000000000000004: {why}")[..]));
    }
}
