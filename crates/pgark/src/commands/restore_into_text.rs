//! What `pgark restore` tells of a logical backup that goes into a running server.

use super::restore_words::quoted;
use crate::output;
use pg_ark_contract::units::human_bytes;
use pg_ark_engine::logical::restore::{DatabaseStep, IntoPlan, LogicalRestored, ObjectsStep};

/// Where values begin: behind the longest name.
const VALUES: usize = "Restored into:".len() + 2;

/// The first version that takes statistics from a dump.
const WITH_STATISTICS: u32 = 18;

/// The plan.
pub fn plan_text(plan: &IntoPlan) -> String {
    let list = |names: &[String]| some(names.join(", "));
    let server = format!("PostgreSQL {}, as role {}", plan.server_version, plan.user);
    let mut pairs = vec![
        ("Backup", Some(format!("{}, begun {} UTC", plan.backup, output::time(&plan.taken_at)))),
        ("Dumped from", Some(format!("PostgreSQL {}", plan.dumped_version))),
        ("Restored into", Some(server)),
        ("Programs", Some(plan.programs.clone())),
        ("Reads", Some(human_bytes(plan.dump_bytes))),
    ];
    if let Some(globals) = &plan.globals {
        pairs.push(("Roles", list(&globals.roles)));
        pairs.push(("Tablespaces", list(&globals.tablespaces)));
        pairs.push(("Stay as is", list(&globals.kept)));
    }
    pairs.extend(plan.databases.iter().map(|step| ("Database", Some(database_text(step)))));
    pairs.extend(plan.objects.iter().flat_map(object_pairs));
    pairs.extend(plan.skipped.iter().map(|why| ("Not restored", Some(why.clone()))));
    for (_, value) in &mut pairs {
        *value = value.take().map(|text| broken(&text));
    }
    let mut text = output::pairs(&pairs);
    for warning in &plan.warnings {
        text.push_str(&format!("\nwarning: {}", output::indented(warning, 9)));
    }
    text
}

fn database_text(step: &DatabaseStep) -> String {
    let name = if step.name == step.target { String::new() } else { format!(" as {}", step.target) };
    let there = if step.replaces { "; the one that is there is dropped" } else { "" };
    format!("{}{name}{there}", step.name)
}

fn object_pairs(step: &ObjectsStep) -> Vec<(&'static str, Option<String>)> {
    let renamed = step.rename.as_ref().map_or_else(String::new, |name| format!(" as {name}"));
    let list = |names: &[String]| some(names.join(", "));
    let named = |name: &String| Some(format!("{name}{renamed}"));
    let database = match step.name == step.target {
        true => step.name.clone(),
        false => format!("{}, of database {} in the backup", step.target, step.name),
    };
    let mut pairs = vec![("Into database", Some(database))];
    pairs.extend(step.schemas.iter().map(|schema| ("Schema", named(schema))));
    pairs.extend(step.tables.iter().map(|table| ("Table", named(table))));
    pairs.push(("Dropped first", list(&step.replaced)));
    pairs.push(("Goes with it", list(&step.goes_with)));
    pairs.push(("Also", list(&step.also)));
    pairs.push(("Tried at last", list(&step.afterwards)));
    pairs.push(("Left out", list(&step.left_out)));
    pairs
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Lines that stay within their width; [`output::pairs`] puts them below each other.
fn broken(text: &str) -> String {
    output::wrapped(text, VALUES).lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

/// What was done.
pub fn restored_text(plan: &IntoPlan, restored: &LogicalRestored, seconds: f64) -> String {
    let noun = if restored.databases.len() == 1 { "database" } else { "databases" };
    let mut made = Vec::new();
    if !restored.databases.is_empty() {
        made.push(format!("{noun} {}", restored.databases.join(", ")));
    }
    made.extend(restored.objects.iter().cloned());
    let bytes = human_bytes(plan.dump_bytes);
    let what = if made.is_empty() { "nothing".to_string() } else { made.join(", ") };
    let mut text = format!("Restored in {seconds:.1} s from {bytes} of dumps: {what}.");
    for name in &restored.kept {
        text.push_str(&format!(
            " What was replaced by less than all of the backup is kept as {name}: drop it when nobody needs it."
        ));
    }
    output::wrapped(&text, 0)
}

/// How to gather statistics, which no dump before PostgreSQL 18 holds. `come_along` are the databases that bring theirs.
pub fn next_text(plan: &IntoPlan, restored: &LogicalRestored, come_along: &[String]) -> Option<String> {
    let without = |step: &&DatabaseStep| {
        restored.databases.contains(&step.target)
            && !(plan.server_version >= WITH_STATISTICS && come_along.contains(&step.name))
    };
    let databases: Vec<String> = plan
        .databases
        .iter()
        .filter(without)
        .map(|step| format!("vacuumdb --analyze-in-stages --dbname={}", quoted(&step.target)))
        .collect();
    let tables = plan
        .objects
        .as_ref()
        .filter(|_| !restored.objects.is_empty())
        .map(|step| format!("vacuumdb --analyze-only --dbname={}", quoted(&step.target)));
    let commands: Vec<String> = databases.into_iter().chain(tables).collect();
    (!commands.is_empty()).then(|| format!("Gather statistics with\n  {}", commands.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ark_engine::logical::restore::GlobalsStep;

    fn plan() -> IntoPlan {
        IntoPlan {
            backup: "20261122T020000Z-logical".into(),
            taken_at: "2026-11-22T02:00:00Z".into(),
            dumped_version: "15.20".into(),
            server_version: 17,
            user: "postgres".into(),
            programs: "pg_restore (PostgreSQL) 17.2".into(),
            dump_bytes: 4_300_000,
            ..IntoPlan::default()
        }
    }

    #[test]
    fn a_whole_backup_is_told_within_100_columns() {
        let roles = (0..40).map(|n| format!("role_{n}")).collect();
        let globals = GlobalsStep { roles, kept: vec!["role \"postgres\"".into()], ..GlobalsStep::default() };
        let shop = DatabaseStep { name: "shop".into(), target: "old".into(), replaces: true };
        let plan = IntoPlan {
            globals: Some(globals),
            databases: vec![shop],
            warnings: vec!["look".into()],
            ..plan()
        };
        let text = plan_text(&plan);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(text.matches("role_").count(), 40);
        assert!(text.contains("\nDatabase:       shop as old; the one that is there is dropped\n"), "{text}");
        assert!(text.contains("\nStay as is:     role \"postgres\"\n"), "{text}");
        assert!(text.ends_with("\nwarning: look"), "{text}");
    }

    #[test]
    fn a_table_under_another_name_is_told() {
        let objects = ObjectsStep {
            name: "shop".into(),
            target: "shop".into(),
            tables: vec!["public.orders".into()],
            rename: Some("orders_old".into()),
            also: vec!["TYPE public color".into()],
            ..ObjectsStep::default()
        };
        let text = plan_text(&IntoPlan { objects: Some(objects), ..plan() });
        assert!(text.contains("\nTable:          public.orders as orders_old\n"), "{text}");
        assert!(
            text.contains("\nInto database:  shop\n")
                && text.ends_with("\nAlso:           TYPE public color"),
            "{text}"
        );
        let restored =
            LogicalRestored { objects: vec!["public.orders_old".into()], ..LogicalRestored::default() };
        let done = restored_text(&plan(), &restored, 1.25);
        assert_eq!(done, "Restored in 1.2 s from 4.1 MB of dumps: public.orders_old.");
    }

    #[test]
    fn statistics_that_did_not_come_along_are_asked_for() {
        let step =
            |name: &str| DatabaseStep { name: name.into(), target: format!("{name} 2"), replaces: false };
        let mut plan = IntoPlan { databases: vec![step("a"), step("b"), step("c")], ..plan() };
        let restored =
            LogicalRestored { databases: vec!["a 2".into(), "b 2".into()], ..LogicalRestored::default() };
        let told = |plan: &IntoPlan| next_text(plan, &restored, &["a".to_string()]).unwrap();
        let one = |name: &str| format!("\n  vacuumdb --analyze-in-stages --dbname='{name} 2'");
        assert_eq!(told(&plan), format!("Gather statistics with{}{}", one("a"), one("b")));
        plan.server_version = 18;
        assert_eq!(told(&plan), format!("Gather statistics with{}", one("b")));
    }
}
