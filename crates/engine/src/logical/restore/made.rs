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

/// Comes first. Not by the environment, which a change of user would lose; and nothing but errors is told.
const BEGIN: &str = "SET client_encoding = 'UTF8';\nSET search_path = pg_catalog, pg_temp;\nSET client_min_messages = error;\n";
/// Most lines of the server's words that are kept.
const MAX_WORDS: usize = 50;
/// psql's status when it could not connect, or not go on (`EXIT_BADCONN`, src/bin/psql/settings.h).
const NO_CONNECTION: i32 = 2;

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

/// The statements that give database `fresh` the name `name`, and the one that had it, if one had, the name in `replaced`: for one
/// transaction. A template must stop being one before it can be dropped.
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
/// `ServerNotReady` when it did not get its name: then nothing was changed, unless the connection broke. The order to stop.
pub fn exchange_with(
    server: &Server<'_>,
    through: &str,
    fresh: &str,
    exchange: &str,
    properties: &[String],
) -> Result<Vec<String>> {
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let text = script(&mark, fresh, exchange, properties);
    let mut command = server.keeper.command(&server.programs.path("psql"), server.access)?;
    server.connection.prepare(&mut command);
    // No arguments: there may be more settings than they can hold, and settings may be secrets.
    command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]);
    command.arg(format!("--dbname={}", server.connection.to(through)));
    let mut said = Said { mark, ..Said::default() };
    let ended = server.keeper.feed(command, &mut text.as_bytes(), &mut |line| said.line(line));
    if said.is_done {
        // An order to stop that came meanwhile is for what follows.
        return Ok(said.failed);
    }
    let ended = ended?;
    let words = if said.words.is_empty() { format!("it {}", ended.status) } else { said.words.join("\n") };
    match ended.code {
        Some(0) => Err(Error::new(ErrorKind::ServerNotReady, "the server undid the transaction")
            .detail(said.failed.join("\n"))),
        Some(NO_CONNECTION) => Err(server.connection.refused(through, &words)),
        _ => Err(Error::new(ErrorKind::ServerNotReady, "the server refused to exchange the databases")
            .detail(words)),
    }
}

/// What psql is to run. Whatever stands in a property, psql sees a literal only: neither commands nor variables of its own. What
/// failed, and whether `fresh` has its name, comes behind `mark` in stderr, as all that a [`Keeper`](crate::logical::child::Keeper)
/// tells of who is fed.
fn script(mark: &str, fresh: &str, exchange: &str, properties: &[String]) -> String {
    let mut text = format!("{BEGIN}BEGIN;\n{exchange};\n\\set ON_ERROR_STOP 0\n\\set ON_ERROR_ROLLBACK on\n");
    for sql in properties {
        let body = format!("BEGIN EXECUTE {}; END", literal(sql));
        text.push_str(&format!(
            "DO {};\n\\if :ERROR\n\\warn {mark} failed :LAST_ERROR_MESSAGE\n\\warn {mark} end\n\\endif\n",
            literal(&body)
        ));
    }
    let fresh = literal(fresh);
    text.push_str(&format!(
        "\\set ON_ERROR_STOP 1\nCOMMIT;\n\
         SELECT CASE WHEN EXISTS (SELECT FROM pg_database WHERE datname = {fresh}) THEN 'undone' ELSE 'done' END AS pg_ark_end \\gset\n\
         \\warn {mark} :pg_ark_end\n"
    ));
    text
}

/// What psql said of an exchange.
#[derive(Default)]
struct Said {
    mark: String,
    /// Properties that failed, each by its message.
    failed: Vec<String>,
    /// The lines that follow belong to the last of them.
    open: bool,
    /// The server's words since then.
    words: Vec<String>,
    is_done: bool,
}

impl Said {
    fn line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix(self.mark.as_str()) {
            // What was said before was of a property.
            self.words.clear();
            let message = rest.strip_prefix(" failed").map(|message| message.trim_start().to_string());
            self.open = message.is_some();
            self.failed.extend(message);
            self.is_done = rest == " done";
        } else if let Some(last) = self.failed.last_mut().filter(|_| self.open) {
            last.push_str(&format!("\n{line}"));
        } else if self.words.len() < MAX_WORDS {
            // psql:<stdin>:12: ERROR:  ...
            let place = line.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(": "));
            self.words.push(place.map_or(line, |(_, said)| said).to_string());
        }
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
    fn psql_reads_no_command_of_its_own_in_a_property() {
        let hostile = "COMMENT ON DATABASE x IS 'a\\';\n\\! id\n:ERROR'".to_string();
        let text = script("m", "f", "X", &[hostile]);
        let inside = "DO E'BEGIN EXECUTE E''COMMENT ON DATABASE x IS ''''a\\\\\\\\'''';";
        assert!(text.contains(inside), "{text}");
        assert!(text.contains("BEGIN;\nX;\n\\set ON_ERROR_STOP 0\n"), "{text}");
        assert!(text.ends_with("AS pg_ark_end \\gset\n\\warn m :pg_ark_end\n"), "{text}");
    }

    #[test]
    fn what_fails_is_heard_and_what_stops_an_exchange_too() {
        let heard = |lines: &[&str]| {
            let mut said = Said { mark: "m".into(), ..Said::default() };
            lines.iter().for_each(|line| said.line(line));
            said
        };
        let error = "psql:<stdin>:9: ERROR:  role \"a\" does not exist";
        let (failed, refused) = ("m failed role \"a\"", "psql:<stdin>:5: ERROR:  must be owner: x");
        let said = heard(&[error, failed, "does not", "m end", error, failed, "m end", "m done"]);
        assert_eq!(
            (said.failed, said.is_done),
            (vec!["role \"a\"\ndoes not".into(), "role \"a\"".into()], true)
        );
        let said = heard(&[refused, "DETAIL:  y"]);
        assert_eq!(
            (said.words, said.is_done),
            (vec!["ERROR:  must be owner: x".into(), "DETAIL:  y".into()], false)
        );
        let said = heard(&[error, failed, "m end", refused, "m undone"]);
        assert!(said.words.is_empty() && !said.is_done && said.failed.len() == 1);
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
                other.contains(
                    &"ALTER DATABASE \"new\" SET \"search_path\" TO E'$user', E'a, \"b'".to_string()
                ),
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
