//! `pgark prune`: removes what the retention rules do not keep, or tells what that would be.

use super::verify_archive::{counted, names};
use crate::cli::{Cli, Format};
use crate::{output, talk};
use clap::Args;
use pg_ark_contract::conversation::Event;
use pg_ark_contract::retention::{Policy, PruneObject, PruneRow, Verdict};
use pg_ark_contract::settings::RETENTION_COUNT_MAX;
use pg_ark_contract::units::human_bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use pg_ark_engine::repository::Cluster;
use pg_ark_engine::retention;
use pg_ark_engine::session::Session;
use std::sync::Arc;

/// Examples below the help.
pub const EXAMPLES: &str = "Examples:
  What would go, and why does the rest stay?
    pgark --repo file:///backups prune --dry-run
  Remove it:
    pgark --repo file:///backups prune
  What if every moment of the last 30 days and a backup of each of 12 months were kept?
    pgark --repo file:///backups prune --dry-run --window 30d --monthly 12
  How much would be freed, for programs:
    pgark --repo file:///backups --format json prune --dry-run \\
        | jq '[.[] | select(.verdict == \"drop\").bytes] | add'

A rule that is not named is as the server last pruned with it (pg_ark.retention_*). Every rule
keeps; what no rule keeps goes. Whatever they say, these stay: pinned backups, parents of what
stays, running backups, the newest good backup, and the WAL that all of them need. Killed at any
moment and run again, it ends in the same state. While a backup runs it is refused (9).

It looks at all servers that the cluster has had; --system-identifier is refused.";

/// Arguments of `pgark prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Every moment of this time stays restorable: 7d, 36h, 2w
    #[arg(long, value_name = "TIME", value_parser = parse_window)]
    pub window: Option<u64>,
    /// How many of the newest full backups stay
    #[arg(long, value_name = "N", value_parser = count())]
    pub min_full: Option<u32>,
    /// Of how many days the newest backup stays
    #[arg(long, value_name = "N", value_parser = count())]
    pub daily: Option<u32>,
    /// Of how many weeks, from Monday
    #[arg(long, value_name = "N", value_parser = count())]
    pub weekly: Option<u32>,
    /// Of how many months
    #[arg(long, value_name = "N", value_parser = count())]
    pub monthly: Option<u32>,
    /// Of how many years
    #[arg(long, value_name = "N", value_parser = count())]
    pub yearly: Option<u32>,
    /// Time zone of days, weeks, months and years: UTC, Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
}

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::from(RETENTION_COUNT_MAX))
}

/// `7d`, `36h`, `90min`, `2w` in seconds.
fn parse_window(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        // As pg_ark.retention_window takes it.
        "" if digits.parse() == Ok(0) => 1,
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("write a number and its unit (s, min, h, d, w), for example 7d".to_string()),
    };
    let seconds = digits.parse::<u32>().ok().map(|number| u64::from(number) * unit);
    seconds
        .filter(|seconds| *seconds <= 100 * 366 * 86_400)
        .ok_or_else(|| format!("\"{digits}\" is no whole number, or the time is longer than a hundred years"))
}

impl PruneArgs {
    fn names_a_rule(&self) -> bool {
        let counts = [self.min_full, self.daily, self.weekly, self.monthly, self.yearly];
        self.window.is_some() || self.timezone.is_some() || counts.iter().any(Option::is_some)
    }

    /// Whether nothing is left that somebody else would have to say; without periods the zone is nothing.
    fn names_every_rule(&self) -> bool {
        let periods = [self.daily, self.weekly, self.monthly, self.yearly];
        let zone = self.timezone.is_some() || periods.iter().all(|count| *count == Some(0));
        self.window.is_some() && self.min_full.is_some() && periods.iter().all(Option::is_some) && zone
    }

    /// What the server said, unless the options leave nothing open.
    fn stored(&self, cluster: &Cluster) -> Result<Option<Policy>> {
        if self.names_every_rule() {
            return Ok(None);
        }
        match retention::policy_store::load(cluster) {
            Ok(stored) => Ok(stored.map(|stored| stored.policy)),
            Err(e) if e.kind == ErrorKind::Corrupt => Err(e.hint(
                "Name every rule (--window, --min-full, --daily, --weekly, --monthly, --yearly, --timezone), or let the server write the file anew: SELECT * FROM ark.prune(false).",
            )),
            Err(e) => Err(e),
        }
    }

    /// What is kept: what the options say, and for the rest what `stored` says.
    fn policy(&self, stored: Option<Policy>) -> Result<Policy> {
        let Some(base) = stored.or_else(|| self.names_a_rule().then(Policy::default)) else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "nobody has said what is to be kept: the server has not pruned this cluster yet",
            )
            .hint("Name the rules, for example --window 7d --min-full 2, or let the server prune once: SELECT * FROM ark.prune(false)."));
        };
        Ok(Policy {
            window: self.window.unwrap_or(base.window),
            min_full: self.min_full.unwrap_or(base.min_full),
            daily: self.daily.unwrap_or(base.daily),
            weekly: self.weekly.unwrap_or(base.weekly),
            monthly: self.monthly.unwrap_or(base.monthly),
            yearly: self.yearly.unwrap_or(base.yearly),
            timezone: self.timezone.clone().unwrap_or(base.timezone),
        })
    }
}

/// Prints the verdict on everything that is stored; without `--dry-run`, what it drops is gone.
pub fn run(cli: &Cli, cluster: &Cluster, arguments: &PruneArgs, format: Format) -> Result<()> {
    if cli.system_identifier.is_some() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "prune looks at all servers that the cluster has had: after an upgrade the old one's backups are the way back",
        )
        .hint("Leave --system-identifier out."));
    }
    let policy = arguments.policy(arguments.stored(cluster)?)?;
    let session = Arc::new(Session::new(|event| {
        if let Event::Warning { message, .. } = event {
            talk::warn(&message);
        }
    }));
    talk::stop_session(&session)?;
    let rows = retention::prune(cluster, &policy, !arguments.dry_run, &session)?;
    match format {
        Format::Json => output::json(&rows)?,
        Format::Text if rows.is_empty() => {
            talk::say(&format!("cluster \"{}\" has nothing that could be removed", cluster.name()));
        }
        Format::Text => {
            output::lines(&text(&rows))?;
            talk::say(&format!("\nkept: {}\n{}", rules(&policy, &rows), summary(&rows, arguments.dry_run)));
        }
    }
    Ok(())
}

/// The rules in words.
fn rules(policy: &Policy, rows: &[PruneRow]) -> String {
    let mut rules = vec![format!("every moment of {}", length(policy.window))];
    let count = usize::try_from(policy.min_full).unwrap_or(usize::MAX);
    let has_logical =
        rows.iter().any(|row| row.kind == PruneObject::Backup && row.object.ends_with("-logical"));
    let as_many = if has_logical && count > 0 { ", and as many logical ones" } else { "" };
    rules.push(format!("the newest {}{as_many}", counted(count, "full backup")));
    let periods =
        [(policy.daily, "day"), (policy.weekly, "week"), (policy.monthly, "month"), (policy.yearly, "year")];
    let periods: Vec<String> = periods
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| counted(usize::try_from(count).unwrap_or(usize::MAX), what))
        .collect();
    if !periods.is_empty() {
        rules.push(format!("one backup of each of {} ({})", periods.join(", "), policy.timezone));
    }
    rules.join("; ")
}

/// `7 days`, `36 hours`, `90 minutes`.
fn length(seconds: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (size, what) =
        units.into_iter().find(|(size, _)| seconds.is_multiple_of(*size)).unwrap_or((1, "second"));
    counted(usize::try_from(seconds / size).unwrap_or(usize::MAX), what)
}

/// What went, or would.
fn summary(rows: &[PruneRow], dry_run: bool) -> String {
    let dropped = || rows.iter().filter(|row| row.verdict == Verdict::Drop);
    let kinds = [
        (PruneObject::Backup, "backup"),
        (PruneObject::Wal, "range of WAL"),
        (PruneObject::History, "timeline history"),
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .map(|(kind, what)| (dropped().filter(|row| row.kind == kind).count(), what))
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| match (count, what) {
            (1, _) => format!("1 {what}"),
            (_, "range of WAL") => format!("{count} ranges of WAL"),
            (_, "timeline history") => format!("{count} timeline histories"),
            _ => format!("{count} {what}s"),
        })
        .collect();
    let bytes = dropped().filter_map(|row| row.bytes).fold(0, u64::saturating_add);
    match (parts.is_empty(), dry_run) {
        (true, _) => "nothing to remove".to_string(),
        (false, true) => format!("would be removed: {}, {}", parts.join(", "), human_bytes(bytes)),
        (false, false) => format!("removed: {}, {}", parts.join(", "), human_bytes(bytes)),
    }
}

/// A table; one for each system identifier when there are several.
fn text(rows: &[PruneRow]) -> String {
    let mut systems: Vec<u64> = Vec::new();
    for row in rows {
        if !systems.contains(&row.system_identifier) {
            systems.push(row.system_identifier);
        }
    }
    let one = |system: &u64| {
        let rows: Vec<&PruneRow> = rows.iter().filter(|row| row.system_identifier == *system).collect();
        match systems.len() {
            1 => table(&rows),
            _ => format!("System identifier {system}:\n{}", table(&rows)),
        }
    };
    systems.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

fn table(rows: &[&PruneRow]) -> String {
    let cells = |row: &&PruneRow| {
        [
            row.verdict.as_str().to_string(),
            row.kind.as_str().to_string(),
            object(row),
            row.bytes.map_or_else(String::new, human_bytes),
        ]
    };
    let lines: Vec<([String; 4], &str)> = rows.iter().map(|row| (cells(row), &row.rule[..])).collect();
    output::told(&["VERDICT", "KIND", "OBJECT", "SIZE", "RULE"], &lines)
}

/// The object's name; of a range the first name whole, and of the last what differs.
fn object(row: &PruneRow) -> String {
    match row.object.split_once("..") {
        Some((first, last)) if row.kind == PruneObject::Wal => names(first, last),
        _ => row.object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: PruneObject, object: &str, verdict: Verdict, rule: &str) -> PruneRow {
        PruneRow {
            object: object.into(),
            kind,
            verdict,
            rule: rule.into(),
            bytes: Some(1000),
            system_identifier: 7,
            timeline: None,
            start_lsn: None,
            end_lsn: None,
        }
    }

    fn nothing() -> PruneArgs {
        PruneArgs {
            dry_run: false,
            window: None,
            min_full: None,
            daily: None,
            weekly: None,
            monthly: None,
            yearly: None,
            timezone: None,
        }
    }

    #[test]
    fn windows_are_read_and_told() {
        for (text, seconds, told) in [
            ("7d", 604_800, "7 days"),
            ("1d", 86_400, "1 day"),
            ("36h", 129_600, "36 hours"),
            ("2w", 1_209_600, "14 days"),
            ("90min", 5400, "90 minutes"),
            ("61s", 61, "61 seconds"),
            ("0", 0, "0 days"),
        ] {
            assert_eq!(parse_window(text), Ok(seconds), "{text}");
            assert_eq!(length(seconds), told);
        }
        for bad in
            ["", "7", "d", "-1d", "1.5d", "7 d", "7D", "7m", "99999999999d", "4294967295w", "größer", "7ü"]
        {
            assert!(parse_window(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_is_said_by_options_else_by_the_server() {
        let stored = Policy { window: 1, monthly: 12, timezone: "Europe/Berlin".into(), ..Policy::default() };
        assert_eq!(nothing().policy(Some(stored.clone())).unwrap(), stored);
        let error = nothing().policy(None).unwrap_err();
        assert!(error.kind == ErrorKind::InvalidArgument && error.hint.is_some(), "{error}");
        let weekly = PruneArgs { weekly: Some(4), ..nothing() };
        assert_eq!(weekly.policy(Some(stored.clone())).unwrap(), Policy { weekly: 4, ..stored });
        assert_eq!(weekly.policy(None).unwrap(), Policy { weekly: 4, ..Policy::default() });
        let zero = PruneArgs { window: Some(0), min_full: Some(0), ..nothing() };
        assert_eq!(zero.policy(None).unwrap().window, 0);
    }

    #[test]
    fn the_rules_are_told_in_words() {
        assert_eq!(rules(&Policy::default(), &[]), "every moment of 7 days; the newest 2 full backups");
        let more = Policy {
            min_full: 1,
            daily: 1,
            monthly: 12,
            timezone: "Europe/Berlin".into(),
            ..Policy::default()
        };
        let told = "every moment of 7 days; the newest 1 full backup; one backup of each of 1 day, 12 months (Europe/Berlin)";
        let rows = [row(PruneObject::Backup, "20261122T020000Z-logical", Verdict::Keep, "window")];
        assert_eq!(rules(&more, &[]), told);
        assert!(
            rules(&Policy::default(), &rows).ends_with("the newest 2 full backups, and as many logical ones")
        );
    }

    #[test]
    fn tables_keep_their_width_and_lose_nothing() {
        let rule = "pinned: ".to_string() + &"word ".repeat(40);
        let rows = [
            row(PruneObject::Backup, "20261122T020000Z-full", Verdict::Keep, rule.trim()),
            row(
                PruneObject::Wal,
                "000000010000000000000004..000000010000000000000009",
                Verdict::Drop,
                "no backup needs it",
            ),
            row(PruneObject::History, "00000002.history", Verdict::Drop, "no backup needs it"),
        ];
        let shown = text(&rows);
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
        assert_eq!(shown.matches("word").count(), 40);
        let columns = "drop     wal      000000010000000000000004..09  1000 bytes  no backup needs it";
        assert!(shown.lines().any(|line| line == columns), "{shown}");
        assert_eq!(summary(&rows, true), "would be removed: 1 range of WAL, 1 timeline history, 2.0 kB");
        assert_eq!(summary(&rows[..1], false), "nothing to remove");
        let mut two = rows.to_vec();
        two[2].system_identifier = 8;
        assert!(text(&two).contains("\n\nSystem identifier 8:\nVERDICT "), "{}", text(&two));
    }
}
