//! A database on a running server, made from what the record says of it.

use super::existing::{Target, identifier, literal};
use super::report::Problem;
use crate::logical::query::Server;
use crate::logical::toc::{Entry, Toc};
use crate::repository::logical_record::DatabaseRecord;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// Settings of these are lists of names, each in quotes of its own (`variable_is_guc_list_quote`, bin/pg_dump/dumputils.c).
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The statement that makes database `name` as `record` was, and what it leaves out because the server lacks it.
pub fn create(name: &str, record: &DatabaseRecord, target: &Target) -> (String, Vec<Problem>) {
    let locale = &record.locale;
    let mut sql = format!(
        "CREATE DATABASE {} WITH TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        identifier(name),
        literal(&locale.encoding),
        literal(&locale.collate),
        literal(&locale.ctype)
    );
    let mut option = |word: &str, value: &str| sql.push_str(&format!(" {word} {value}"));
    if matches!(locale.provider.as_str(), "icu" | "builtin") {
        option("LOCALE_PROVIDER", &locale.provider);
        let word = if locale.provider == "icu" { "ICU_LOCALE" } else { "BUILTIN_LOCALE" };
        if let Some(locale) = &locale.locale {
            option(word, &literal(locale));
        }
        if let Some(rules) = &locale.icu_rules {
            option("ICU_RULES", &literal(rules));
        }
    } else {
        option("LOCALE_PROVIDER", "libc");
    }
    let mut problems = Vec::new();
    let mut lacks = |what: String| problems.push(Problem { database: Some(name.to_string()), message: what });
    let why = match target.roles.contains(&record.owner) {
        false => "does not exist".to_string(),
        true => format!("is none that \"{}\" may give it to", target.user),
    };
    match target.may_own.contains(&record.owner) {
        true => option("OWNER", &identifier(&record.owner)),
        false => {
            lacks(format!(
                "its owner, role \"{}\", {why}: it belongs to \"{}\" now",
                record.owner, target.user
            ));
        }
    }
    match record.tablespace.as_str() {
        "" | "pg_default" => {}
        space if target.tablespaces.iter().any(|known| known == space) => {
            option("TABLESPACE", &identifier(space));
        }
        space => lacks(format!("tablespace \"{space}\" does not exist: it lies in the default one")),
    }
    (sql, problems)
}

/// The statements that give database `fresh` the name `name`, and the one that had it, if one had, the name in `replaced`. psql
/// sends them at once, which makes them one transaction. A template must stop being one before it can be dropped.
pub fn exchange(name: &str, fresh: &str, replaced: Option<(&str, bool)>) -> String {
    let (name, fresh) = (identifier(name), identifier(fresh));
    let mut sql = String::new();
    if let Some((old, is_template)) = replaced {
        if is_template {
            sql.push_str(&format!("ALTER DATABASE {name} IS_TEMPLATE false; "));
        }
        sql.push_str(&format!("ALTER DATABASE {name} RENAME TO {}; ", identifier(old)));
    }
    sql + &format!("ALTER DATABASE {fresh} RENAME TO {name}")
}

/// Owners of what is in a dump that exist, but that who restores may not give anything to.
pub fn foreign_owners(toc: &Toc, target: &Target) -> Vec<String> {
    let owners: BTreeSet<&String> = toc.entries.iter().map(|entry| &entry.owner).collect();
    let foreign =
        owners.into_iter().filter(|role| target.roles.contains(role) && !target.may_own.contains(role));
    foreign.map(|role| format!("\"{role}\"")).collect()
}

/// Settings, privileges, limits and comment of a database, each a statement of its own, that others need not share its fate:
/// what the dump itself says where the name is the same.
pub fn properties(name: &str, record: &DatabaseRecord, toc: &Toc) -> Vec<String> {
    let is_about = |entry: &&Entry| {
        entry.is_of_database() && !matches!(entry.kind.as_str(), "DATABASE" | "DATABASE PROPERTIES")
    };
    let of_database = toc.entries.iter().filter(is_about);
    let database = identifier(name);
    let mut all: Vec<String> = Vec::new();
    match &record.privileges {
        _ if name == record.name => {
            all.extend(
                of_database.clone().map(|entry| entry.definition.clone()).filter(|sql| !sql.is_empty()),
            );
        }
        Some(privileges) => all.push(grants(name, privileges)),
        None => {}
    }
    for setting in &record.settings {
        let whose = match &setting.role {
            Some(role) => format!("ROLE {} IN DATABASE {database}", identifier(role)),
            None => format!("DATABASE {database}"),
        };
        let value = match LISTS.contains(&setting.name.to_ascii_lowercase().as_str()) {
            // The server has it in the form of a list already.
            true if !setting.value.is_empty() => list(&setting.value),
            _ => literal(&setting.value),
        };
        // Names of extensions' settings have a part before a point.
        let setting = setting.name.split('.').map(identifier).collect::<Vec<_>>().join(".");
        all.push(format!("ALTER {whose} SET {setting} TO {value}"));
    }
    if record.connection_limit != -1 {
        all.push(format!("ALTER DATABASE {database} CONNECTION LIMIT {}", record.connection_limit));
    }
    if record.is_template {
        all.push(format!("ALTER DATABASE {database} IS_TEMPLATE true"));
    }
    if name != record.name {
        all.extend(of_database.filter_map(|entry| comment(entry, &database)));
    }
    all
}

/// Names of a list, cut at commas outside of quotes; a quote in quotes is written twice: `"$user", "a ""b", public`
/// (`SplitGUCList`, varlena.c).
fn list(value: &str) -> String {
    let (mut names, mut name, mut inside) = (Vec::new(), String::new(), false);
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if inside && letters.next_if_eq(&'"').is_some() => name.push('"'),
            '"' => inside = !inside,
            ',' if !inside => names.push(std::mem::take(&mut name)),
            ' ' if !inside => {}
            other => name.push(other),
        }
    }
    names.push(name);
    names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
}

/// Privileges as `pg_database.datacl` shows them, granted by whoever restores.
fn grants(name: &str, privileges: &str) -> String {
    let body = format!(
        "DECLARE item record;
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {name});
  FOR item IN SELECT * FROM aclexplode({privileges}::aclitem[]) LOOP
    EXECUTE format('GRANT %s ON DATABASE %I TO %s%s', item.privilege_type, {name},
      CASE item.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(item.grantee)) END,
      CASE WHEN item.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
  END LOOP;
END",
        name = literal(name),
        privileges = literal(privileges),
    );
    format!("DO {}", literal(&body))
}

/// `COMMENT ON DATABASE old IS '...';` with another name.
fn comment(entry: &Entry, database: &str) -> Option<String> {
    let old = entry.name.strip_prefix("DATABASE ").filter(|_| entry.kind == "COMMENT")?;
    let begins = [old.to_string(), identifier(old)].map(|old| format!("COMMENT ON DATABASE {old} IS "));
    let text = begins.iter().find_map(|begin| entry.definition.strip_prefix(begin.as_str()))?;
    Some(format!("COMMENT ON DATABASE {database} IS {text}"))
}

/// Gives database `fresh` its name by the statements `exchange`, and `properties` with it, in one transaction: nobody meets it
/// without its privileges and settings. What of these fails is told, and the rest goes on.
///
/// # Errors
/// `ServerNotReady` when it did not get its name: then nothing was changed. The order to stop.
pub fn exchange_with(
    server: &Server<'_>,
    through: &str,
    fresh: &str,
    exchange: &str,
    properties: &[String],
) -> Result<Vec<String>> {
    // Not with a backslash in front: psql would take it for a command of its own.
    let properties: Vec<String> = properties.iter().map(|sql| format!("\n{sql}")).collect();
    let done = format!(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_database WHERE datname = {}) THEN 'undone' ELSE 'done' END",
        literal(fresh)
    );
    let mut commands = vec!["BEGIN", exchange, "\\set ON_ERROR_STOP 0", "\\set ON_ERROR_ROLLBACK on"];
    for sql in &properties {
        commands.extend([sql.as_str(), "\\echo :ERROR :LAST_ERROR_MESSAGE"]);
    }
    commands.extend(["\\set ON_ERROR_STOP 1", "COMMIT", &done]);
    let said = server.script(through, &commands)?;
    let mut failed: Vec<String> = Vec::new();
    let (mut is_done, mut is_failed) = (false, false);
    for line in String::from_utf8_lossy(&said).lines() {
        is_done = line == "done";
        match line.split_once(' ') {
            Some(("true", message)) => {
                is_failed = true;
                failed.push(message.to_string());
            }
            Some(("false", _)) => is_failed = false,
            // A message of several lines.
            _ if is_failed => {
                failed.iter_mut().last().into_iter().for_each(|last| last.push_str(&format!("\n{line}")))
            }
            _ => {}
        }
    }
    match is_done {
        true => Ok(failed),
        false => Err(Error::new(ErrorKind::ServerNotReady, "the server undid the transaction")
            .detail(failed.join("\n"))),
    }
}

/// Runs statements one after another through database `through`; what fails is told, and the rest goes on.
///
/// # Errors
/// The order to stop.
pub fn apply(server: &Server<'_>, through: &str, name: &str, statements: &[String]) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for sql in statements {
        // Not with a backslash in front: psql would take it for a command of its own.
        if let Err(error) = server.run(through, &format!("\n{sql}")) {
            if error.kind != ErrorKind::ServerNotReady {
                return Err(error);
            }
            let message = error.detail.unwrap_or(error.message);
            problems.push(Problem { database: Some(name.to_string()), message });
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::logical_record::{LocaleRecord, SettingRecord};

    fn record() -> DatabaseRecord {
        let setting = |role: Option<&str>, name: &str, value: &str| SettingRecord {
            role: role.map(Into::into),
            name: name.into(),
            value: value.into(),
        };
        DatabaseRecord {
            name: "shop".into(),
            owner: "alice".into(),
            tablespace: "fast".into(),
            connection_limit: 7,
            is_template: true,
            settings: vec![
                setting(None, "search_path", "\"$user\", \"a, \"\"b\""),
                setting(Some("b\"ob"), "my.thing", "it's"),
            ],
            privileges: Some("{=c/alice}".into()),
            locale: LocaleRecord {
                encoding: "UTF8".into(),
                provider: "icu".into(),
                collate: "C".into(),
                ctype: "C".into(),
                locale: Some("de".into()),
                ..LocaleRecord::default()
            },
            ..DatabaseRecord::default()
        }
    }

    #[test]
    fn a_database_is_made_as_it_was_as_far_as_the_server_can() {
        let alice = vec!["alice".to_string()];
        let mut target = Target {
            roles: alice.clone(),
            may_own: alice,
            tablespaces: vec!["fast".into()],
            ..Target::default()
        };
        let (sql, problems) = create("new \"one\"", &record(), &target);
        let expected = "CREATE DATABASE \"new \"\"one\"\"\" WITH TEMPLATE template0 ENCODING E'UTF8' LC_COLLATE E'C' LC_CTYPE E'C' \
                        LOCALE_PROVIDER icu ICU_LOCALE E'de' OWNER \"alice\" TABLESPACE \"fast\"";
        assert_eq!((sql.as_str(), problems.len()), (expected, 0));
        (target.may_own, target.user) = (vec![], "bob".into());
        let (sql, problems) = create("new", &record(), &target);
        assert!(!sql.contains("OWNER") && problems[0].message.contains("\"bob\" may give"), "{problems:?}");
        (target.roles, target.tablespaces) = (vec![], vec![]);
        let (sql, problems) = create("new", &record(), &target);
        assert!(!sql.contains("OWNER") && !sql.contains("TABLESPACE") && problems.len() == 2, "{problems:?}");
    }

    #[test]
    fn names_change_at_once() {
        let renamed = "ALTER DATABASE \"shop\" RENAME TO \"o\"; ALTER DATABASE \"f\" RENAME TO \"shop\"";
        assert_eq!(exchange("shop", "f", Some(("o", false))), renamed);
        assert_eq!(exchange("shop", "f", None), "ALTER DATABASE \"f\" RENAME TO \"shop\"");
        let template = format!("ALTER DATABASE \"shop\" IS_TEMPLATE false; {renamed}");
        assert_eq!(exchange("shop", "f", Some(("o", true))), template);
    }

    #[test]
    fn properties_follow_to_another_name() {
        for (version, bytes, _) in crate::logical::golden_dumps::GOLDEN {
            let toc = Toc::read(&mut &**bytes).unwrap();
            let same = properties("shop", &record(), &toc);
            let settings = same.iter().filter(|sql| sql.starts_with("ALTER "));
            assert_eq!((settings.count(), same.len()), (4, 6), "{version}: {same:?}");
            let other = properties("new", &record(), &toc);
            assert!(
                other
                    .contains(&"ALTER DATABASE \"new\" SET \"search_path\" TO E'$user', E'a, \"b'".to_string()),
                "{other:?}"
            );
            assert!(other.contains(
                &"ALTER ROLE \"b\"\"ob\" IN DATABASE \"new\" SET \"my\".\"thing\" TO E'it''s'".to_string()
            ));
            assert_eq!(other.last().unwrap(), "COMMENT ON DATABASE \"new\" IS 'shopping';\n");
            assert!(other.iter().all(|sql| !sql.contains("DATABASE shop")), "{other:?}");
        }
    }
}
