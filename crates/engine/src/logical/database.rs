//! One database: what it says of itself, and what `pg_dump --format=custom` writes of it, stored byte by byte.

use super::facts::{self, Inside};
use super::progress::DatabaseProgress;
use super::remarks::Remarks;
use super::run::Dumping;
use super::volumes::Volumes;
use crate::repository::catalog;
use crate::repository::layout;
use crate::repository::logical_record::DatabaseRecord;
use bytes::Bytes;
use pg_ark_contract::Result;
use pg_ark_contract::settings::{Codec, Compression};

/// What every dump of this format begins with (`WriteHead`, pg_backup_archiver.c).
const MAGIC: &[u8] = b"PGDMP";
/// Since this major version pg_dump knows `--statistics` and leaves them out otherwise.
const WITH_STATISTICS: u32 = 18;
/// Since this one, zstd and lz4 (compress_io.c).
const WITH_CODECS: u32 = 16;

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
    let started_at = catalog::now();
    let inside = match facts::inside(&dumping.server, &database.name) {
        Ok(inside) => inside,
        Err(e) => {
            dumping.session.check()?;
            return Ok(Outcome::Failed(e.to_string()));
        }
    };
    let Inside { extensions, tables, large_objects, large_object_bytes, sizes } = inside;
    progress.tables(sizes, large_object_bytes);
    let name = layout::dump_name(&database.name);
    let mut volumes = Volumes::new(dumping.storage, dumping.folder, name, dumping.task.volume_size);
    if let Some(reason) = store(dumping, database, progress, &mut volumes)? {
        volumes.discard()?;
        return Ok(Outcome::Failed(reason));
    }
    Ok(Outcome::Dumped(Box::new(DatabaseRecord {
        volumes: volumes.finish()?,
        started_at,
        finished_at: catalog::now(),
        extensions,
        tables,
        large_objects,
        statistics: dumping.server.programs.major >= WITH_STATISTICS,
        ..database.clone()
    })))
}

/// Runs pg_dump; gives the reason when it failed.
fn store(
    dumping: &Dumping<'_>,
    database: &DatabaseRecord,
    progress: &DatabaseProgress<'_>,
    volumes: &mut Volumes<'_>,
) -> Result<Option<String>> {
    let server = &dumping.server;
    let mut command = dumping.command("pg_dump")?;
    command.args(["--format=custom", "--verbose"]);
    command.arg(compression(server.programs.major, dumping.task.compression).0);
    if server.programs.major >= WITH_STATISTICS {
        command.arg("--statistics");
    }
    command.arg(format!("--dbname={}", server.connection.to(&database.name)));
    let mut remarks = Remarks::new(dumping.session, format!("database \"{}\"", database.name));
    let mut head = Vec::new();
    let mut take = |bytes: Bytes| {
        dumping.admit(bytes.len())?;
        progress.read(bytes.len() as u64);
        let room = MAGIC.len().saturating_sub(head.len());
        head.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        volumes.append(bytes)
    };
    let ended = server.keeper.read(command, &mut take, &mut |line| {
        progress.line(line);
        remarks.line(line);
    })?;
    remarks.end();
    Ok(match ended.success {
        false if ended.errors.is_empty() => Some(format!("pg_dump {}", ended.status)),
        false => Some(ended.said()),
        true if head != MAGIC => Some("what pg_dump wrote is no dump in its custom format".to_string()),
        true => None,
    })
}

/// The argument for pg_dump of this major version, and what it means. Before 16 there is gzip alone, and its lowest level is
/// what is fastest.
pub fn compression(major: u32, wanted: Compression) -> (String, String) {
    let shown = match wanted.codec {
        Codec::Zstd | Codec::Lz4 if major < WITH_CODECS => "gzip:1".to_string(),
        _ => wanted.to_string(),
    };
    let argument = match (major < WITH_CODECS, shown.strip_prefix("gzip:")) {
        (true, Some(level)) => level.to_string(),
        (true, None) => "0".to_string(),
        (false, _) => shown.clone(),
    };
    (format!("--compress={argument}"), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_what_the_version_knows() {
        for (major, wanted, argument, shown) in [
            (15, "zstd:3", "--compress=1", "gzip:1"),
            (15, "lz4", "--compress=1", "gzip:1"),
            (15, "gzip:7", "--compress=7", "gzip:7"),
            (15, "none", "--compress=0", "none"),
            (16, "zstd:3", "--compress=zstd:3", "zstd:3"),
            (17, "lz4", "--compress=lz4", "lz4"),
            (18, "gzip:7", "--compress=gzip:7", "gzip:7"),
            (18, "none", "--compress=none", "none"),
        ] {
            let wanted: Compression = wanted.parse().unwrap();
            assert_eq!(
                compression(major, wanted),
                (argument.to_string(), shown.to_string()),
                "{major} {wanted}"
            );
        }
    }
}
