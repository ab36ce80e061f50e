//! Rules, for people.

use super::backups::Rule;
use super::facts::Facts;
use super::needs::Why;
use crate::retention::model::BackupState;
use chrono::SecondsFormat;
use pg_ark_contract::Timeline;
use pg_ark_contract::conversation::BackupKind;

/// Names that are told before the rest is counted.
const NAMES: usize = 3;

/// Why a backup is kept, or why not.
pub fn backup(facts: &Facts<'_>, index: usize, rules: &[Rule]) -> String {
    if rules.is_empty() {
        return dropped(facts, index).into();
    }
    let mut rules = rules.to_vec();
    rules.sort();
    let words: Vec<String> = rules.iter().map(|rule| kept(facts, index, *rule)).collect();
    words.join("; ")
}

fn dropped(facts: &Facts<'_>, index: usize) -> &'static str {
    match facts.backup(index).state {
        BackupState::Failed => "failed",
        BackupState::Expiring => "its removal has begun",
        BackupState::Good if facts.is_good(index) => "older than the window",
        _ => "older than the window, and not usable",
    }
}

fn kept(facts: &Facts<'_>, index: usize, rule: Rule) -> String {
    let backup = facts.backup(index);
    match rule {
        Rule::Running => "running".into(),
        Rule::Unreadable => "its record cannot be read".into(),
        Rule::Pinned => match backup.pinned.as_deref().unwrap_or_default() {
            "" => "pinned".into(),
            reason => format!("pinned: {reason}"),
        },
        Rule::Window => match backup.stopped_at {
            None => "window: when it stopped is not known".into(),
            Some(time) if time > facts.now => "window: it stopped in the future".into(),
            Some(_) if facts.judged_at < facts.now => {
                let at = facts.judged_at.to_rfc3339_opts(SecondsFormat::Secs, true);
                format!(
                    "window: nothing is known of a long time after {at}, and no backup has stood for a day since"
                )
            }
            Some(_) => "window".into(),
        },
        Rule::Base => "reaches the window's beginning".into(),
        Rule::BrokenBase => {
            let why = match &backup.state {
                BackupState::Broken(why) => why,
                _ => "its parent cannot be restored",
            };
            format!("would reach the window's beginning if it were whole: {why}")
        }
        Rule::NewestGood => "newest good backup".into(),
        Rule::NewestOfLiving => "newest good backup of an older system that wrote inside the window".into(),
        Rule::NewestClean => "newest undamaged backup".into(),
        Rule::NewestDump { place, others } => {
            let name = backup.databases.get(place).map(|name| name.escape_debug().to_string());
            let name = name.unwrap_or_default();
            let more = if others > 0 { format!(" and {others} more") } else { String::new() };
            match facts.is_good(index) {
                true => format!("newest good dump of database \"{name}\"{more}"),
                false => format!("no good backup has a dump of database \"{name}\"{more}"),
            }
        }
        Rule::CountOfDatabase(1) => "the newest logical backup that holds one of its databases".into(),
        Rule::CountOfDatabase(count) => {
            format!("one of the newest {count} logical backups that hold one of its databases")
        }
        Rule::Count(count) => {
            let kind = if backup.kind == BackupKind::Logical { "logical" } else { "full" };
            match count {
                1 => format!("the newest {kind} backup"),
                count => format!("one of the newest {count} {kind} backups"),
            }
        }
        Rule::Period(name) => name.into(),
        Rule::LostHistory(timeline) => lost_history(timeline),
        Rule::NothingGood => "no backup is good".into(),
        Rule::FailedLately => "failed lately".into(),
        Rule::Parent { of, others: 0 } => format!("parent of {}", facts.backup(of).backup),
        Rule::Parent { of, others } => format!("parent of {} and {others} more", facts.backup(of).backup),
    }
}

/// Why segments are kept.
pub fn wal(facts: &Facts<'_>, why: &Why) -> String {
    let name = |index: &usize| &facts.backup(*index).backup[..];
    match why {
        Why::From(index) => format!("from {} on", name(index)),
        Why::StartToStop { of, count } => {
            let mut names = of.iter().map(name).collect::<Vec<_>>().join(", ");
            if *count > of.len() {
                names += &format!(" and {} more", count - of.len());
            }
            format!("start to stop of {names}")
        }
        Why::Unknown(index) => match &facts.backup(*index).state {
            BackupState::Unreadable => format!("the record of {} cannot be read", name(index)),
            BackupState::Running => format!("{} is running", name(index)),
            _ => format!("where {} begins is not known", name(index)),
        },
        Why::LostHistory(timeline) => lost_history(*timeline),
        Why::NothingGood => "no good backup yet".into(),
        Why::Living => "an older system wrote inside the window, and nothing leads here".into(),
        Why::Newer => "newer than the newest backup".into(),
    }
}

/// Why everything of a system is kept.
pub fn lost_history(timeline: Timeline) -> String {
    format!("the history of timeline {timeline} is not in the archive: nobody knows what leads to it")
}

/// Adds a backup to those that are told.
pub fn tell(told: &mut Vec<usize>, index: usize) {
    if told.len() < NAMES {
        told.push(index);
    }
}

/// Why nothing keeps segments, or a history, of a system: whether any of its backups is kept.
pub fn unneeded(any_kept: bool) -> &'static str {
    if any_kept { "no backup needs it" } else { "no backup of its system is kept" }
}
