//! What a running server has already: asked by SQL, answered by names and numbers.

use crate::logical::query::Server;
use pg_ark_contract::{Error, Result};
use serde::Deserialize;

/// What is asked for at once: a program's argument holds 128 KiB (`MAX_ARG_STRLEN`, linux/binfmts.h).
const MAX_QUESTION: usize = 64 << 10;

/// Whoever is in a database keeps it from another name (`CountOtherDBBackends`, procarray.c), but for autovacuum, which is ended: its
/// workers are nobody's (`pgstat_bestart`, backend_status.c). Parallel workers end with who leads them. Of what kind a session of
/// another role is, only some may know.
const SERVER: &str = "
SELECT jsonb_build_object(
  'version', current_setting('server_version_num')::int / 10000,
  'in_recovery', pg_is_in_recovery(),
  'user', session_user,
  'superuser', r.rolsuper, 'create_database', r.rolcreatedb OR r.rolsuper, 'create_role', r.rolcreaterole OR r.rolsuper,
  'databases', (SELECT jsonb_agg(jsonb_build_object('name', d.datname, 'is_template', d.datistemplate,
      'owned', pg_has_role(current_user, d.datdba, 'USAGE'),
      'sessions', (SELECT coalesce(jsonb_agg(DISTINCT coalesce(a.backend_type, 'session of another role')), '[]')
          FROM pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
          AND a.backend_type IS DISTINCT FROM 'parallel worker'))) FROM pg_database d),
  'roles', (SELECT jsonb_agg(rolname) FROM pg_roles),
  'may_own', (SELECT jsonb_agg(o.rolname) FROM pg_roles o WHERE pg_has_role(session_user, o.oid,
      CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)),
  'tablespaces', (SELECT jsonb_agg(spcname) FROM pg_tablespace))::text
FROM pg_roles r WHERE r.rolname = session_user";

/// `w` is an array of class, schema and name. Functions have their arguments in their names: any of that name counts.
const OBJECTS: &str = "
SELECT coalesce(jsonb_agg(CASE w.w->>0
  WHEN 'schema' THEN EXISTS (SELECT FROM pg_namespace WHERE nspname = w.w->>2)
  WHEN 'filled schema' THEN EXISTS (SELECT FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
      WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n' AND n.nspname = w.w->>2
        AND d.classid <> 'pg_extension'::regclass
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.deptype) = (d.classid, d.objid, 'e')))
  WHEN 'extension' THEN EXISTS (SELECT FROM pg_extension WHERE extname = w.w->>2)
  WHEN 'language' THEN EXISTS (SELECT FROM pg_language WHERE lanname = w.w->>2)
  WHEN 'wrapper' THEN EXISTS (SELECT FROM pg_foreign_data_wrapper WHERE fdwname = w.w->>2)
  WHEN 'server' THEN EXISTS (SELECT FROM pg_foreign_server WHERE srvname = w.w->>2)
  WHEN 'method' THEN EXISTS (SELECT FROM pg_am WHERE amname = w.w->>2)
  WHEN 'publication' THEN EXISTS (SELECT FROM pg_publication WHERE pubname = w.w->>2)
  WHEN 'relation' THEN EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = w.w->>1 AND c.relname = w.w->>2)
  WHEN 'type' THEN EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
      WHERE n.nspname = w.w->>1 AND t.typname = w.w->>2)
  WHEN 'collation' THEN EXISTS (SELECT FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
      WHERE n.nspname = w.w->>1 AND c.collname = w.w->>2)
  WHEN 'function' THEN EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = w.w->>1 AND p.proname = w.w->>2)
  ELSE true END ORDER BY w.place), '[]')::text
FROM jsonb_array_elements(";

/// A running server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Target {
    /// Its major version.
    pub version: u32,
    /// It replays WAL: nothing can be written.
    pub in_recovery: bool,
    /// The role that it knows this program as.
    pub user: String,
    /// What that role may do.
    pub superuser: bool,
    /// It may create databases.
    pub create_database: bool,
    /// It may create roles.
    pub create_role: bool,
    /// Databases that exist.
    pub databases: Vec<TargetDatabase>,
    /// Roles that exist.
    pub roles: Vec<String>,
    /// Those of them that what is restored can be given to.
    pub may_own: Vec<String>,
    /// Tablespaces that exist.
    pub tablespaces: Vec<String>,
}

/// A database of a running server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TargetDatabase {
    /// Name.
    pub name: String,
    /// `datistemplate`.
    pub is_template: bool,
    /// The role that asks may rename and drop it.
    pub owned: bool,
    /// Kinds of sessions in it, this one aside: `client backend`, or what a background worker is called.
    pub sessions: Vec<String>,
}

impl Target {
    /// Asks the server through its database `database`.
    ///
    /// # Errors
    /// As [`Server::json`].
    pub fn ask(server: &Server<'_>, database: &str) -> Result<Target> {
        server.json(database, SERVER)
    }

    /// The database of this name.
    pub fn database(&self, name: &str) -> Option<&TargetDatabase> {
        self.databases.iter().find(|database| database.name == name)
    }
}

/// Something that may exist: its class (`relation`, `schema`, ...), its schema, its name.
pub type Wanted = (&'static str, String, String);

/// Which of `wanted` exist in `database`. A class that is not known counts as existing.
///
/// # Errors
/// As [`Server::json`].
pub fn exist(server: &Server<'_>, database: &str, wanted: &[Wanted]) -> Result<Vec<bool>> {
    let mut answers = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while !rest.is_empty() {
        let mut size = 0;
        let fitting = rest.iter().take_while(|(_, schema, name)| {
            size += 2 * (schema.len() + name.len()) + 40;
            size < MAX_QUESTION
        });
        let (part, more) = rest.split_at(fitting.count().max(1).min(rest.len()));
        let text = serde_json::json!(part).to_string();
        let question = format!("{OBJECTS}{}::jsonb) WITH ORDINALITY AS w(w, place)", literal(&text));
        let found: Vec<bool> = server.json(database, &question)?;
        // An answer of another length would shift what follows.
        answers.extend((0..part.len()).map(|at| found.get(at).copied().unwrap_or(true)));
        rest = more;
    }
    Ok(answers)
}

/// An error whose detail is what the server said of the error itself: neither notices before it nor where in which SQL it was.
pub fn plain(mut error: Error) -> Error {
    if let Some(said) = &error.detail {
        let is_said = |line: &&str| !line.starts_with("NOTICE:") && !line.starts_with("WARNING:");
        let is_where = |line: &&str| {
            line.starts_with("CONTEXT:") || line.starts_with("QUERY:") || line.starts_with("LINE ")
        };
        let lines: Vec<&str> = said.lines().filter(is_said).take_while(|line| !is_where(line)).collect();
        if !lines.is_empty() {
            error.detail = Some(lines.join("\n"));
        }
    }
    error
}

/// A name in double quotes.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema and a name in double quotes.
pub fn qualified(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) => format!("{}.{}", identifier(schema), identifier(name)),
        None => identifier(name),
    }
}

/// A literal that means the same whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_without_what_surrounds_it() {
        let said = "NOTICE:  identifier will be truncated\nERROR:  relation \"a\" already exists\nDETAIL:  x\nCONTEXT:  SQL statement\nPL/pgSQL";
        let error = Error::new(pg_ark_contract::ErrorKind::ServerNotReady, "m").detail(said);
        assert_eq!(plain(error).detail.unwrap(), "ERROR:  relation \"a\" already exists\nDETAIL:  x");
        let error = Error::new(pg_ark_contract::ErrorKind::ServerNotReady, "m").detail("CONTEXT:  x");
        assert_eq!(plain(error).detail.unwrap(), "CONTEXT:  x");
    }

    #[test]
    fn names_and_literals_end_where_they_should() {
        assert_eq!(qualified(Some("a\"b"), "c.d"), "\"a\"\"b\".\"c.d\"");
        assert_eq!(literal("it's \\"), "E'it''s \\\\'");
    }
}
