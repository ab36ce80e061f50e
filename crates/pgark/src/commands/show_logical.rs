//! What `pgark show` tells of a logical backup: its databases, and what no dump takes along.

use super::verify_archive::counted;
use crate::output;
use pg_ark_contract::units::human_bytes;
use pg_ark_engine::repository::logical_record::{
    DatabaseRecord, LocaleRecord, LogicalRecord, LogicalTablespace, SettingRecord, SlotRecord,
    SubscriptionRecord,
};
use pg_ark_engine::repository::record::ObjectRecord;

/// Where further lines of an entry begin.
const INDENT: usize = 4;

/// The part of the record in lists with titles; each begins with a line break.
pub fn text(logical: &LogicalRecord) -> String {
    let databases = &logical.databases;
    let settings = |d: &DatabaseRecord| d.settings.iter().map(|s| setting(&d.name, s)).collect::<Vec<_>>();
    let privileges = |d: &DatabaseRecord| d.privileges.as_ref().map(|acl| format!("{}: {acl}", d.name));
    let missing = logical.missing.iter().map(|m| format!("{}: {}", m.name, m.reason));
    let lists: [(&str, Vec<String>); 8] = [
        ("Databases", databases.iter().map(database).collect()),
        ("Missing databases", missing.collect()),
        ("Databases that were left out", logical.left_out.clone()),
        ("Settings of databases", databases.iter().flat_map(settings).collect()),
        ("Privileges on databases", databases.iter().filter_map(privileges).collect()),
        ("Tablespaces", logical.tablespaces.iter().map(tablespace).collect()),
        (
            "Replication slots, which no dump takes along",
            logical.replication_slots.iter().map(slot).collect(),
        ),
        (
            "Subscriptions, restored without their state",
            logical.subscriptions.iter().map(subscription).collect(),
        ),
    ];
    lists.iter().map(|(title, lines)| list(title, lines)).collect()
}

/// How the dumps were made.
pub fn made_by(logical: &LogicalRecord) -> String {
    format!("{}, compression {}", logical.pg_dump, logical.dump_compression)
}

/// What `initdb` is told.
pub fn initdb(logical: &LogicalRecord) -> String {
    format!("superuser {}, {}", logical.initdb.username, locale(&logical.initdb.locale))
}

fn list(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = lines.iter().map(|line| output::wrapped(line, INDENT)).collect();
    format!("\n{title}:\n  {}", lines.join("\n  "))
}

fn database(d: &DatabaseRecord) -> String {
    let stored = d.volumes.iter().map(|volume: &ObjectRecord| volume.size).fold(0, u64::saturating_add);
    let count = |count: u64, what: &str| counted(usize::try_from(count).unwrap_or(usize::MAX), what);
    let mut parts = vec![format!(
        "{}  {} in {}, {}",
        d.name,
        human_bytes(d.data_bytes),
        human_bytes(stored),
        count(d.tables, "table")
    )];
    let more = [
        (d.large_objects > 0).then(|| count(d.large_objects, "large object")),
        (d.volumes.len() > 1).then(|| counted(d.volumes.len(), "volume")),
        Some(format!("owner {}", d.owner)),
        Some(locale(&d.locale)),
        (d.tablespace != "pg_default" && !d.tablespace.is_empty())
            .then(|| format!("tablespace {}", d.tablespace)),
        d.is_template.then(|| "a template".to_string()),
        (d.connection_limit >= 0).then(|| format!("at most {} connections", d.connection_limit)),
        d.statistics.then(|| "with statistics".to_string()),
    ];
    parts.extend(more.into_iter().flatten());
    let mut text = parts.join(", ");
    if !d.extensions.is_empty() {
        let named: Vec<String> = d.extensions.iter().map(|e| format!("{} {}", e.name, e.version)).collect();
        text.push_str(&format!("; extensions: {}", named.join(", ")));
    }
    text
}

fn locale(l: &LocaleRecord) -> String {
    let names = match l.collate == l.ctype {
        true => l.collate.clone(),
        false => format!("{} {}", l.collate, l.ctype),
    };
    match &l.locale {
        Some(locale) => format!("{} {} {locale} ({names})", l.encoding, l.provider),
        None => format!("{} {names}", l.encoding),
    }
}

fn setting(database: &str, s: &SettingRecord) -> String {
    let role = s.role.as_ref().map_or_else(String::new, |role| format!(", role {role}"));
    format!("{database}{role}: {} = {}", s.name, s.value)
}

fn tablespace(t: &LogicalTablespace) -> String {
    let place = if t.location.is_empty() { "in the data directory" } else { &t.location };
    format!("{}  {place}  {}, owner {}", t.name, human_bytes(t.data_bytes), t.owner)
}

fn slot(s: &SlotRecord) -> String {
    let plugin = s.plugin.as_ref().map_or_else(String::new, |plugin| format!(" ({plugin})"));
    let database = s.database.as_ref().map_or_else(String::new, |database| format!(", database {database}"));
    let phases = if s.two_phase { ", two-phase" } else { "" };
    format!("{}  {}{plugin}{database}{phases}", s.name, s.kind)
}

fn subscription(s: &SubscriptionRecord) -> String {
    let state = if s.enabled { "was enabled" } else { "was disabled" };
    let slot = s.slot.as_ref().map_or_else(String::new, |slot| format!(", slot {slot}"));
    format!("{}  database {}, {state}{slot}, publications: {}", s.name, s.database, s.publications.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_engine::repository::logical_record::{ExtensionRecord, InitdbRecord, MissingDatabase};

    #[test]
    fn everything_is_told_within_100_columns() {
        let c = LocaleRecord {
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            ..LocaleRecord::default()
        };
        let extension = |n: usize| ExtensionRecord {
            name: format!("extension_{n}"),
            version: "1.0".into(),
            schema: "public".into(),
        };
        let shop = DatabaseRecord {
            name: "my shop".into(),
            data_bytes: 31_000_000,
            tables: 1,
            large_objects: 2,
            owner: "alice".into(),
            locale: c.clone(),
            tablespace: "fast".into(),
            connection_limit: -1,
            settings: vec![SettingRecord {
                role: Some("bob".into()),
                name: "work_mem".into(),
                value: "64MB".into(),
            }],
            extensions: (0..12).map(extension).collect(),
            ..DatabaseRecord::default()
        };
        let logical = LogicalRecord {
            pg_dump: "pg_dump (PostgreSQL) 15.20".into(),
            dump_compression: "gzip:1".into(),
            databases: vec![shop],
            missing: vec![MissingDatabase {
                name: "locked".into(),
                reason: "it allows no connections".into(),
            }],
            initdb: InitdbRecord { username: "postgres".into(), locale: c, ..InitdbRecord::default() },
            replication_slots: vec![SlotRecord {
                name: "s".into(),
                kind: "logical".into(),
                plugin: Some("pgoutput".into()),
                database: Some("my shop".into()),
                two_phase: false,
            }],
            subscriptions: vec![SubscriptionRecord {
                name: "sub".into(),
                database: "my shop".into(),
                enabled: true,
                slot: None,
                publications: vec!["p".into(), "q".into()],
            }],
            ..LogicalRecord::default()
        };
        let shown = text(&logical);
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], "Databases:");
        assert!(
            lines[2].starts_with(
                "  my shop  30 MB in 0 bytes, 1 table, 2 large objects, owner alice, UTF8 C, tablespace fast"
            ),
            "{shown}"
        );
        assert!(shown.contains("extension_11 1.0"), "{shown}");
        for line in [
            "Missing databases:\n  locked: it allows no connections\n",
            "\n  my shop, role bob: work_mem = 64MB\n",
            "\n  s  logical (pgoutput), database my shop\n",
            "\n  sub  database my shop, was enabled, publications: p, q",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        assert_eq!(initdb(&logical), "superuser postgres, UTF8 C");
    }
}
