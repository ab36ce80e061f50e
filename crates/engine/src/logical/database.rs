//! One database: what it says of itself, and what `pg_dump --format=custom` writes of it, stored byte by byte.

use super::connection::is_crowded;
use super::facts::{self, Inside};
use super::progress::DatabaseProgress;
use super::query::Server;
use super::remarks::{self, Remarks};
use super::room::{self, Room};
use super::run::Dumping;
use super::silence::Silence;
use super::toc;
use super::volumes::Volumes;
use crate::repository::catalog;
use crate::repository::layout;
use crate::repository::logical_record::DatabaseRecord;
use crate::session::Session;
use bytes::Bytes;
use pg_ark_contract::Result;
use pg_ark_contract::settings::{Codec, Compression};

/// Bytes at the head of a dump among which its database's OID is.
const HEAD: usize = 4 << 10;
/// Since this major version pg_dump knows `--statistics` and leaves them out otherwise.
const WITH_STATISTICS: u32 = 18;
/// Since this one, zstd and lz4 (compress_io.c).
const WITH_CODECS: u32 = 16;
/// What it says of a codec that it was built without (`parse_compress_specification`, common/compression.c).
const NOT_BUILT: &str = "does not support compression";
/// Every version knows gzip; its lowest level is the fastest.
const FASTEST: Compression = Compression { codec: Codec::Gzip, level: 1 };

/// Why a database is not dumped that is not the one that was chosen.
const REPLACED: &str =
    "it was dropped or renamed, and another of its name was created, after the backup had begun";

/// What came of a database.
pub enum Outcome {
    /// It is stored.
    Dumped(Box<DatabaseRecord>),
    /// Nothing of it is stored, and why.
    Failed(String),
}

/// Dumps and stores a database.
///
/// # Errors
/// What is no fault of this database: what the store said, the order to stop.
pub fn dump(
    dumping: &Dumping<'_>,
    database: &DatabaseRecord,
    progress: &DatabaseProgress<'_>,
) -> Result<Outcome> {
    Silence::with(dumping, database, |silence| dump_heard(dumping, database, progress, silence))
}

fn dump_heard(
    dumping: &Dumping<'_>,
    database: &DatabaseRecord,
    progress: &DatabaseProgress<'_>,
    silence: &Silence,
) -> Result<Outcome> {
    let started_at = catalog::now();
    let mut inside = match asked(dumping, || facts::inside(&dumping.server, &database.name))? {
        Ok(inside) => inside,
        Err(reason) => return Ok(Outcome::Failed(reason)),
    };
    if inside.oid != database.oid {
        return Ok(Outcome::Failed(REPLACED.to_string()));
    }
    let sizes = std::mem::take(&mut inside.sizes);
    progress.tables(sizes, inside.large_object_bytes);
    let name = layout::dump_name(&database.name);
    let mut volumes = Volumes::new(dumping.storage, dumping.folder, name, dumping.task.volume_size);
    let dump = Dump { dumping, database, progress, silence, is_verbose: !inside.line_feeds };
    if let Some(reason) = dump.store(&mut volumes)? {
        volumes.discard()?;
        return Ok(Outcome::Failed(reason));
    }
    if inside.unlogged > 0 {
        dumping.session.warn(
            format!(
                "database \"{}\": {} unlogged tables and sequences are in the dump without their content, which a standby does not have",
                database.name, inside.unlogged
            ),
            Some("Take the backup on the primary when that matters.".to_string()),
        );
    }
    let Inside { extensions, tables, large_objects, lc_monetary, .. } = inside;
    Ok(Outcome::Dumped(Box::new(DatabaseRecord {
        volumes: volumes.finish()?,
        started_at,
        finished_at: catalog::now(),
        extensions,
        tables,
        large_objects,
        lc_monetary,
        statistics: dumping.server.programs.major >= WITH_STATISTICS,
        ..database.clone()
    })))
}

/// What a database answers, or why it does not.
fn asked<T>(dumping: &Dumping<'_>, ask: impl FnMut() -> Result<T>) -> Result<std::result::Result<T, String>> {
    let mut refusal = None;
    let mut ask = ask;
    let answer = room::patiently(dumping.session, || match ask() {
        Ok(answer) => Ok(Some(answer)),
        Err(e) if is_crowded(&e.to_string()) => Err(e),
        Err(e) => {
            refusal = Some(e.to_string().replace('\n', "; "));
            Ok(None)
        }
    })?;
    dumping.session.check()?;
    Ok(answer.ok_or_else(|| refusal.unwrap_or_default()))
}

struct Dump<'a> {
    dumping: &'a Dumping<'a>,
    database: &'a DatabaseRecord,
    progress: &'a DatabaseProgress<'a>,
    silence: &'a Silence,
    /// Its chatter quotes names as they are: one with a line feed could speak for it.
    is_verbose: bool,
}

impl Dump<'_> {
    /// Stores it; gives the reason when that failed.
    fn store(&self, volumes: &mut Volumes<'_>) -> Result<Option<String>> {
        let mut room = Room::new(self.dumping.session);
        loop {
            match self.run(volumes)? {
                // It has written nothing.
                Some(reason) if room.wait(&reason)? => {}
                ended => return Ok(ended),
            }
        }
    }

    fn run(&self, volumes: &mut Volumes<'_>) -> Result<Option<String>> {
        let Dump { dumping, database, progress, silence, is_verbose } = *self;
        let server = &dumping.server;
        let mut command = dumping.command("pg_dump")?;
        command.arg("--format=custom").args(is_verbose.then_some("--verbose"));
        command.arg(argument(server.programs.major, dumping.compression));
        if server.programs.major >= WITH_STATISTICS {
            command.arg("--statistics");
        }
        command.arg(format!("--dbname={}", server.connection.to(&database.name)));
        let mut remarks = Remarks::new(dumping.session, format!("database \"{}\"", database.name));
        let mut head = Vec::new();
        let mut take = |bytes: Bytes| {
            silence.heard();
            dumping.admit(bytes.len())?;
            progress.read(bytes.len() as u64);
            let room = HEAD.saturating_sub(head.len());
            head.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
            volumes.append(bytes)
        };
        let ended = server.keeper.read(command, &mut take, &mut |line| {
            silence.heard();
            progress.line(line);
            remarks.line(line);
        })?;
        remarks.end();
        Ok(match (ended.success, toc::database_oid(&head)) {
            (false, _) => Some(remarks::reason("pg_dump", &ended)),
            (true, None) => {
                Some("what pg_dump wrote does not begin as a dump in its custom format does".to_string())
            }
            // It connected after the database was asked who it is.
            (true, Some(oid)) if oid != database.oid => Some(REPLACED.to_string()),
            (true, Some(_)) => None,
        })
    }
}

/// The compression that the server's pg_dump does: the wanted one, or gzip where it does not know that. Before 16 it knows gzip
/// alone; later versions may have been built without the others.
///
/// # Errors
/// The order to stop; `Io` when pg_dump cannot be started.
pub fn compression(server: &Server<'_>, wanted: Compression, session: &Session) -> Result<Compression> {
    let fitting = known(server.programs.major, wanted);
    if server.programs.major < WITH_CODECS || !matches!(fitting.codec, Codec::Zstd | Codec::Lz4) {
        return Ok(fitting);
    }
    // It judges the compression before it connects, which it cannot.
    let mut command = server.keeper.command(&server.programs.path("pg_dump"), server.access)?;
    command.args(["--format=custom", "--no-password", "--dbname=host=/nonexistent"]);
    command.arg(argument(server.programs.major, fitting));
    let (_, ended) = server.keeper.output(command, 1 << 20)?;
    if !ended.errors.iter().any(|line| line.contains(NOT_BUILT)) {
        return Ok(fitting);
    }
    session.warn(
        format!("the server's pg_dump was built without {wanted}: its dumps are compressed with gzip"),
        Some("Set pg_ark.compression to gzip:1, or install programs that were built with it.".to_string()),
    );
    Ok(FASTEST)
}

/// What a version knows at all.
fn known(major: u32, wanted: Compression) -> Compression {
    match wanted.codec {
        Codec::Zstd | Codec::Lz4 if major < WITH_CODECS => FASTEST,
        _ => wanted,
    }
}

/// The argument for pg_dump of this major version.
fn argument(major: u32, compression: Compression) -> String {
    match compression.codec {
        Codec::Gzip | Codec::None if major < WITH_CODECS => format!("--compress={}", compression.level),
        _ => format!("--compress={compression}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_what_the_version_knows() {
        for (major, wanted, expected, shown) in [
            (15, "zstd:3", "--compress=1", "gzip:1"),
            (15, "lz4", "--compress=1", "gzip:1"),
            (15, "gzip:7", "--compress=7", "gzip:7"),
            (15, "none", "--compress=0", "none"),
            (16, "zstd:3", "--compress=zstd:3", "zstd:3"),
            (17, "lz4", "--compress=lz4", "lz4"),
            (18, "gzip:7", "--compress=gzip:7", "gzip:7"),
            (18, "none", "--compress=none", "none"),
        ] {
            let known = known(major, wanted.parse().unwrap());
            assert_eq!(
                (argument(major, known), known.to_string()),
                (expected.into(), shown.into()),
                "{major} {wanted}"
            );
        }
    }
}
