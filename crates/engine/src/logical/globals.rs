//! The globals: roles, memberships, tablespaces, settings of roles and rights to parameters, as `pg_dumpall --globals-only`
//! writes them; compressed here, frame by frame, since pg_dumpall does not. What `ALTER ROLE ALL SET` set follows, which
//! pg_dumpall leaves out.

use super::remarks::{self, Remarks};
use super::room;
use super::run::Dumping;
use super::volumes::Volumes;
use crate::codec::frame::{Encoder, FRAME_SIZE};
use crate::repository::layout;
use crate::repository::record::ObjectRecord;
use bytes::Bytes;
use pg_ark_contract::settings::Compression;
use pg_ark_contract::{Error, ErrorKind, Result};

/// The last line that pg_dumpall writes (main, pg_dumpall.c).
const LAST: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// Bytes at the end among which it must be.
const TAIL: usize = 4 << 10;

/// The statements that set again what holds for all roles in all databases; each element of a list is a literal of its own,
/// as makeAlterConfigCommand (dumputils.c) writes it. Which settings are such lists: GUC_LIST_QUOTE in guc_tables.c.
const FOR_ALL: &str = r#"
SELECT coalesce(jsonb_agg(format('ALTER ROLE ALL SET %s TO %s;',
           (SELECT string_agg(quote_ident(part), '.' ORDER BY at) FROM regexp_split_to_table(s.name, '[.]') WITH ORDINALITY p(part, at)),
           CASE WHEN lower(s.name) IN ('local_preload_libraries', 'search_path', 'session_preload_libraries', 'shared_preload_libraries',
                                       'temp_tablespaces', 'unix_socket_directories')
             THEN (SELECT coalesce(string_agg(quote_literal(CASE WHEN word[1] IS NULL THEN word[2] ELSE replace(word[1], '""', '"') END), ', '
                       ORDER BY at), quote_literal(''))
                   FROM regexp_matches(s.value, '"((?:[^"]|"")*)"|([^",[:space:]]+)', 'g') WITH ORDINALITY w(word, at))
             ELSE quote_literal(s.value) END) ORDER BY s.at), '[]')::text
  FROM pg_db_role_setting, unnest(setconfig) WITH ORDINALITY e(entry, at),
       LATERAL (SELECT split_part(entry, '=', 1) AS name, substr(entry, strpos(entry, '=') + 1) AS value, at) s
 WHERE setdatabase = 0 AND setrole = 0"#;

/// The stored globals.
pub struct Globals {
    /// Their volumes.
    pub volumes: Vec<ObjectRecord>,
    /// Bytes before they were compressed.
    pub bytes: u64,
}

impl Globals {
    /// Removes what was stored.
    ///
    /// # Errors
    /// What the store said.
    pub fn discard(self, dumping: &Dumping<'_>) -> Result<()> {
        let path = |volume: &ObjectRecord| format!("{}/{}", dumping.folder, volume.name);
        self.volumes.iter().try_for_each(|volume| dumping.storage.delete(&path(volume)))
    }
}

/// Dumps and stores the globals.
///
/// # Errors
/// `DumpFailed` with pg_dumpall's own words; what the store said; the order to stop.
pub fn dump(dumping: &Dumping<'_>) -> Result<Globals> {
    room::patiently(dumping.session, || dump_once(dumping))
}

fn dump_once(dumping: &Dumping<'_>) -> Result<Globals> {
    let (server, asked) = (&dumping.server, dumping.asked);
    let mut command = dumping.command("pg_dumpall")?;
    // The text names the database too, but pg_dumpall chooses one for itself unless told.
    command.args(["--globals-only", "--database", asked]);
    command.arg(format!("--dbname={}", server.connection.to(asked)));
    let name = format!("{}{}", layout::GLOBALS, dumping.task.compression.codec.suffix());
    let volumes = Volumes::new(dumping.storage, dumping.folder, name, dumping.task.volume_size);
    let mut sink = Sink::new(volumes, dumping.task.compression)?;
    let mut remarks = Remarks::new(dumping.session, "the globals".to_string());
    let mut take = |bytes: Bytes| {
        dumping.admit(bytes.len())?;
        sink.take(&bytes)
    };
    let ended = server.keeper.read(command, &mut take, &mut |line| remarks.line(line))?;
    remarks.end();
    if !ended.success {
        return Err(failed(remarks::reason("pg_dumpall", &ended)));
    }
    if !contains(&sink.tail, LAST) {
        return Err(failed(format!("it wrote {} bytes and no end", sink.bytes)));
    }
    let settings: Vec<String> = server.json(asked, FOR_ALL)?;
    if !settings.is_empty() {
        let text = format!(
            "\n-- Settings of all roles, which pg_dumpall leaves out\nSET client_encoding = 'UTF8';\n{}\n",
            settings.join("\n")
        );
        sink.take(text.as_bytes())?;
    }
    sink.finish()
}

fn failed(why: String) -> Error {
    Error::new(ErrorKind::DumpFailed, "could not dump roles and tablespaces with pg_dumpall").detail(why)
}

/// Compresses and stores.
struct Sink<'a> {
    volumes: Volumes<'a>,
    encoder: Encoder,
    frame: Vec<u8>,
    bytes: u64,
    tail: Vec<u8>,
}

impl<'a> Sink<'a> {
    fn new(volumes: Volumes<'a>, compression: Compression) -> Result<Self> {
        let encoder = Encoder::new(compression)?;
        Ok(Sink { volumes, encoder, frame: Vec::new(), bytes: 0, tail: Vec::new() })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.tail.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        // No chunk is larger than a frame.
        self.frame.extend_from_slice(bytes);
        if self.frame.len() >= FRAME_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let stored = self.encoder.encode(&self.frame)?;
        self.frame.clear();
        self.volumes.append(Bytes::from(stored))
    }

    fn finish(mut self) -> Result<Globals> {
        self.flush()?;
        Ok(Globals { volumes: self.volumes.finish()?, bytes: self.bytes })
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::frame;
    use crate::repository::Storage;
    use pg_ark_contract::settings::Codec;
    use std::io::Read;

    #[test]
    fn what_is_taken_comes_back_in_every_codec() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
        let text: Vec<u8> =
            (0..400_000).flat_map(|n: u32| format!("CREATE ROLE r{n};\n").into_bytes()).collect();
        for (codec, level) in [(Codec::Zstd, 3), (Codec::Lz4, 0), (Codec::Gzip, 1), (Codec::None, 0)] {
            let name = format!("{}{}", layout::GLOBALS, codec.suffix());
            let volumes = Volumes::new(&storage, "f", name, 1 << 20);
            let mut sink = Sink::new(volumes, Compression { codec, level }).unwrap();
            text.chunks(100_001).for_each(|chunk| sink.take(chunk).unwrap());
            assert!(text.ends_with(&sink.tail) && sink.tail.len() == TAIL);
            let globals = sink.finish().unwrap();
            assert_eq!(globals.bytes, text.len() as u64);
            let read = |v: &ObjectRecord| storage.get(&format!("f/{}", v.name), 1 << 20).unwrap().unwrap();
            let stored: Vec<u8> = globals.volumes.iter().flat_map(read).collect();
            let mut back = Vec::new();
            frame::stream(codec, &stored[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == text, "{codec:?}");
        }
    }
}
