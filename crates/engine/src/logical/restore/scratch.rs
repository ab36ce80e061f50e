//! A database for the time of one restore: what gets another name is restored there, renamed, and dumped from there.
//!
//! It is dropped whatever happens. Only a killed `pgark` leaves one behind; a client that sits in it tells the next one that
//! this is not so.

use super::existing::{Target, TargetDatabase, identifier, literal, plain};
use super::into_plan::ObjectsStep;
use super::load::Load;
use super::made;
use super::objects::{self, Objects, Taken};
use super::report::Problem;
use crate::logical::child::Keeper;
use crate::logical::query::Server;
use crate::logical::stored::Dump;
use crate::logical::toc::Entry;
use crate::repository::logical_record::DatabaseRecord;
use bytes::Bytes;
use pg_ark_contract::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How its name begins.
const PREFIX: &str = "pg_ark_scratch_";
/// Letters that a long name and one that was made of it share at least.
const LONG: usize = 20;
/// Pieces of a dump that wait for their reader.
const WAITING: usize = 2;

/// What is renamed.
#[derive(Debug, Clone)]
pub struct Renaming<'a> {
    /// What is taken of the dump.
    pub objects: &'a Objects,
    /// The table, when it is no schema.
    pub table: Option<&'a Entry>,
    /// The name that it gets.
    pub name: &'a str,
    /// The database of the backup.
    pub record: &'a DatabaseRecord,
    /// The database to connect to, to make and drop others.
    pub through: &'a str,
}

/// A name that no other database has.
pub fn new_name() -> String {
    format!("{PREFIX}{}", uuid::Uuid::new_v4().simple())
}

/// Drops what killed restores left; databases with a client in them are somebody's.
///
/// # Errors
/// As [`Server::json`].
pub fn sweep(load: &Load<'_>, target: &Target, through: &str) -> Result<()> {
    let server = &load.server;
    let is_left = |database: &TargetDatabase| {
        let id = database.name.strip_prefix(PREFIX);
        let is_ours = id.is_some_and(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        is_ours && database.sessions.is_empty()
    };
    if !target.databases.iter().any(is_left) {
        return Ok(());
    }
    // Nobody is in one for a moment when it is made or gets its name: what is left is left at both looks.
    let now = Target::ask(server, through)?;
    let left = target
        .databases
        .iter()
        .filter(|database| is_left(database) && now.database(&database.name).is_some_and(is_left));
    for database in left {
        // Somebody else may be faster, or may just have begun.
        let name = &database.name;
        match server.run(through, &format!("DROP DATABASE IF EXISTS {}", identifier(name))) {
            Err(error) if error.kind != ErrorKind::ServerNotReady => return Err(error),
            Err(error) => {
                let said = plain(error).detail.unwrap_or_default();
                load.watch.warn(&format!(
                    "database \"{name}\", which a restore left that was killed, could not be dropped: {said}"
                ));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Restores, renames, and brings it where it belongs.
///
/// # Errors
/// `ServerNotReady` with the server's words when something failed: the database that it goes into is as it was, or the error
/// names what it got. As [`Load::run`].
pub fn run(
    load: &Load<'_>,
    dump: &Dump<'_>,
    target: &Target,
    renaming: &Renaming<'_>,
) -> Result<Vec<Problem>> {
    let server = &load.server;
    let name = new_name();
    let record =
        DatabaseRecord { owner: target.user.clone(), tablespace: String::new(), ..renaming.record.clone() };
    let (sql, _) = made::create(&name, &record, target);
    let made = server.run(renaming.through, &sql);
    // A server that refused has nothing to drop; of a psql that was stopped nobody knows.
    let refused = made.as_ref().is_err_and(|error| error.kind == ErrorKind::ServerNotReady);
    let result = made
        .map_err(|error| told(error, &renaming.objects.step))
        .and_then(|()| held(server, &name, || through(load, dump, &name, renaming)));
    // Also when the work was stopped: nothing stops this.
    let dropped = Keeper::with(&|| Ok(()), |keeper| {
        let server = Server { keeper, ..*server };
        server.run(renaming.through, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(&name)))
    });
    if let (Err(error), false) = (dropped, refused) {
        let said = error.detail.unwrap_or(error.message);
        load.watch.warn(&format!(
            "database \"{name}\" is left on the server and of no use to anybody; drop it: {said}"
        ));
    }
    result
}

/// Does `work` while a session sits in the database, which tells other restores that it is in use.
///
/// # Errors
/// Those of `work`.
pub fn held<T>(server: &Server<'_>, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (stay, end) = sync_channel::<Bytes>(0);
    std::thread::scope(|scope| {
        scope.spawn(|| hold(server, name, end));
        let result = work();
        drop(stay);
        result
    })
}

/// Sits in the database until `end`.
fn hold(server: &Server<'_>, name: &str, end: Receiver<Bytes>) {
    let command = server.keeper.command(&server.programs.path("psql"), server.access).map(|mut command| {
        server.connection.prepare(&mut command);
        command.args(["--no-psqlrc", "--quiet", "--file=-"]);
        command.arg(format!("--dbname={}", server.connection.to(name)));
        command
    });
    if let Ok(command) = command {
        // Without it everything still works; another restore might take the database for a left one.
        let _ = server.keeper.feed(command, &mut Pieces { from: end, rest: Bytes::new() }, &mut |_| {});
    }
}

fn through(load: &Load<'_>, dump: &Dump<'_>, name: &str, renaming: &Renaming<'_>) -> Result<Vec<Problem>> {
    let Renaming { objects, .. } = renaming;
    let step = &objects.step;
    let taken = |list| Taken { list: Some(list), options: &objects.options, drop: None };
    objects::transaction(load, &mut dump.reader(), name, &objects.toc, &taken(&objects.list))
        .map_err(|error| told(error, step))?;
    rename(&load.server, name, renaming).map_err(|error| told(error, step))?;
    let (names, statistics) = dumped(&load.server, name, renaming)?;
    if !objects.also.is_empty() {
        objects::transaction(load, &mut dump.reader(), &step.target, &objects.toc, &taken(&objects.also))?;
    }
    carry(load, name, &names, renaming).map_err(|error| stays(error, step))?;
    made::apply(&load.server, &step.target, &step.target, &statistics)
}

/// Says what was brought along before it failed, in a transaction of its own.
fn stays(mut error: Error, step: &ObjectsStep) -> Error {
    if step.also.is_empty() {
        return error;
    }
    let also = step.also.join(", ");
    error.message.push_str(&format!("; but what it needs is there now, and stays: {also}"));
    if error.kind == ErrorKind::ServerNotReady {
        let hint = "All else is as it was. Mend the cause and run the same command again: what is there now is found there. Or drop it.";
        return error.hint(hint);
    }
    error
}

fn told(error: Error, step: &ObjectsStep) -> Error {
    if error.kind != ErrorKind::ServerNotReady {
        return error;
    }
    let message = format!(
        "nothing was restored into database \"{}\": what is to be renamed could not be restored beside it",
        step.target
    );
    Error { message, ..plain(error) }
        .hint("What was made beside it is dropped again. Mend the cause and run the same command again.")
}

/// Gives a table, and all whose names are those of the schema, other names: what begins with the old one begins with the new.
/// A name that the server had made of a long one has the old one's beginning only (`makeObjectName`, indexcmds.c): as there,
/// what gets too long is cut at letters where it is longest, and numbered when it is taken.
fn rename(server: &Server<'_>, database: &str, renaming: &Renaming<'_>) -> Result<()> {
    let Some(table) = renaming.table else {
        let old = renaming.objects.step.schemas.first().map(String::as_str).unwrap_or_default();
        let sql = format!("ALTER SCHEMA {} RENAME TO {}", identifier(old), identifier(renaming.name));
        return server.run(database, &sql);
    };
    let body = format!(
        "DECLARE old text := {old}; new text := {new}; top oid; item record; family oid[];
  most int := current_setting('max_identifier_length')::int; head text; tail text; shared int; number int; front text; back text; chosen text;
BEGIN
  SELECT c.oid INTO STRICT top FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = {schema} AND c.relname = old;
  SELECT array_agg(relid::oid) || top INTO family FROM pg_partition_tree(top::regclass);
  FOR item IN
    SELECT DISTINCT ON (o.place, o.oid) o.* FROM (
      SELECT 1 AS place, 'TABLE' AS kind, c.oid, c.relname AS was, c.oid AS owner FROM pg_class c WHERE c.oid = ANY (family)
      UNION ALL SELECT 2, 'SEQUENCE', s.oid, s.relname, d.refobjid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (family)
          AND d.deptype IN ('a', 'i') AND s.relkind = 'S'
      UNION ALL SELECT 3, 'INDEX', c.oid, c.relname, i.indrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = ANY (family)
      UNION ALL SELECT 4, 'STATISTICS', x.oid, x.stxname, x.stxrelid FROM pg_statistic_ext x WHERE x.stxrelid = ANY (family)
      UNION ALL SELECT 5, 'CONSTRAINT', k.oid, k.conname, k.conrelid FROM pg_constraint k WHERE k.conrelid = ANY (family)
        AND k.contype IN ('c', 'f', 'n') AND k.coninhcount = 0 AND k.conparentid = 0 AND starts_with(k.conname, old || '_')
        -- PostgreSQL renames it in partitions, too, where it has another name (from 18 on).
        AND (k.contype <> 'n' OR NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = k.conrelid))
    ) o ORDER BY o.place, o.oid
  LOOP
    CONTINUE WHEN item.was = new;
    head := new;
    IF item.was = old THEN tail := '';
    ELSIF starts_with(item.was, old || '_') THEN tail := substr(item.was, length(old) + 1);
    ELSE
      SELECT coalesce(max(i), 0) INTO shared FROM generate_series(1, length(item.was)) i WHERE left(item.was, i) = left(old, i) AND i <= length(old);
      tail := '_' || CASE WHEN octet_length(item.was) >= most - 3 AND shared >= {LONG} THEN ltrim(substr(item.was, shared + 1), '_') ELSE item.was END;
    END IF;
    number := 0;
    LOOP
      front := head; back := tail;
      WHILE octet_length(front || back || CASE number WHEN 0 THEN '' ELSE number::text END) > most LOOP
        IF octet_length(front) > octet_length(back) THEN front := left(front, -1); ELSE back := left(back, -1); END IF;
      END LOOP;
      chosen := front || back || CASE number WHEN 0 THEN '' ELSE number::text END;
      EXIT WHEN item.was = chosen OR tail = '' OR NOT CASE item.kind
        WHEN 'CONSTRAINT' THEN EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = item.owner AND k.conname = chosen)
        WHEN 'STATISTICS' THEN EXISTS (SELECT FROM pg_statistic_ext x WHERE x.stxname = chosen)
        ELSE EXISTS (SELECT FROM pg_class c WHERE c.relname = chosen) OR EXISTS (SELECT FROM pg_type t WHERE t.typname = chosen)
          OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = item.owner AND k.conname = chosen) END;
      number := number + 1;
    END LOOP;
    CONTINUE WHEN item.was = chosen;
    IF item.kind = 'CONSTRAINT' THEN
      EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', item.owner::regclass, item.was, chosen);
    ELSIF item.kind = 'STATISTICS' THEN
      EXECUTE format('ALTER STATISTICS %s RENAME TO %I', (SELECT i.identity FROM pg_identify_object('pg_statistic_ext'::regclass, item.oid, 0) i), chosen);
    ELSE
      EXECUTE format('ALTER %s %s RENAME TO %I', item.kind, item.oid::regclass, chosen);
    END IF;
  END LOOP;
END",
        old = literal(&table.name),
        new = literal(renaming.name),
        schema = literal(table.schema.as_deref().unwrap_or_default()),
    );
    server.run(database, &format!("DO {}", literal(&body)))
}

/// Patterns for pg_dump: the schema, or the table and its partitions. And their extended statistics, which pg_dump takes along
/// with schemas only.
fn dumped(
    server: &Server<'_>,
    database: &str,
    renaming: &Renaming<'_>,
) -> Result<(Vec<OsString>, Vec<String>)> {
    let Some(table) = renaming.table else {
        return Ok((vec![format!("--schema={}", identifier(renaming.name)).into()], Vec::new()));
    };
    let sql = format!(
        "WITH family AS (SELECT p.oid FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace,
           LATERAL (SELECT relid::oid FROM pg_partition_tree(t.oid::regclass) UNION SELECT t.oid) p(oid)
           WHERE n.nspname = {} AND t.relname = {})
         SELECT jsonb_build_array(
           (SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, c.relname)), '[]') FROM family
             JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace),
           (SELECT coalesce(jsonb_agg(pg_get_statisticsobjdef(s.oid)), '[]') FROM family
             JOIN pg_statistic_ext s ON s.stxrelid = family.oid))::text",
        literal(table.schema.as_deref().unwrap_or_default()),
        literal(renaming.name)
    );
    let (names, statistics): (Vec<(String, String)>, Vec<String>) = server.json(database, &sql)?;
    let pattern = |(schema, name): &(String, String)| {
        format!("--table={}.{}", identifier(schema), identifier(name)).into()
    };
    Ok((names.iter().map(pattern).collect(), statistics))
}

/// Dumps from the scratch database straight into the one that it is for.
fn carry(load: &Load<'_>, scratch: &str, patterns: &[OsString], renaming: &Renaming<'_>) -> Result<()> {
    let Server { keeper, programs, connection, access } = load.server;
    let mut command = keeper.command(&programs.path("pg_dump"), access)?;
    connection.prepare(&mut command);
    command.args(["--format=custom", "--compress=0"]).args(patterns);
    // The patterns are UTF-8; without an encoding of its own a database takes bytes as they are.
    if renaming.record.locale.encoding != "SQL_ASCII" {
        command.arg("--encoding=UTF8");
    }
    command.arg(format!("--dbname={}", connection.to(scratch)));
    let objects = renaming.objects;
    let (to, from) = sync_channel::<Bytes>(WAITING);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read(keeper, command, &to));
        let mut pieces = Pieces { from, rest: Bytes::new() };
        let taken = Taken { list: None, options: &objects.options, drop: objects.drop.as_deref() };
        let target = &objects.step.target;
        let result = objects::transaction(load, &mut pieces, target, &objects.toc, &taken);
        // Who still writes hears that nobody reads.
        std::mem::drop(pieces);
        let dumped = reader.join().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "a thread of the restore ended without an answer"))
        });
        match (&result, dumped) {
            (Err(error), Err(why)) if error.kind == ErrorKind::Corrupt => Err(why),
            (Ok(()), Err(why)) => Err(why),
            _ => result,
        }
    })
}

/// Hands on what a program writes.
fn read(keeper: &Keeper<'_>, command: std::process::Command, to: &SyncSender<Bytes>) -> Result<()> {
    let closed = |_| Error::new(ErrorKind::Cancelled, "the restore was cancelled");
    let ended = keeper.read(command, &mut |bytes| to.send(bytes).map_err(closed), &mut |_| {})?;
    match ended.success {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::ServerNotReady, "what was renamed could not be dumped")
            .detail(ended.said())),
    }
}

/// Reads what another thread sends.
struct Pieces {
    from: Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            // Who sent has ended: so does the stream.
            self.rest = self.from.recv().unwrap_or_default();
        }
        let count = buf.len().min(self.rest.len());
        let part = self.rest.split_to(count);
        if let Some(place) = buf.get_mut(..count) {
            place.copy_from_slice(&part);
        }
        Ok(count)
    }
}
