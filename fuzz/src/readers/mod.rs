//! Every reader of bytes that somebody else may have written, as a function that takes any bytes and asserts what must
//! hold for them: no panic, no more output than was promised, and the same from a stream as from the whole.
//!
//! Used by the fuzz targets (`fuzz/targets`), and by the engine's tests (`tests/hostile.rs`, `tests/hostile_cases.rs`), which
//! need no nightly compiler.

pub mod formats;
pub mod samples;
pub mod stored;
pub mod streams;
#[path = "../../../crates/engine/src/postgres/wal_fixture.rs"]
#[allow(dead_code)]
mod wal_fixture;

/// A reader.
pub struct Reader {
    /// Name of its fuzz target.
    pub name: &'static str,
    /// Reads and asserts.
    pub read: fn(&[u8]),
    /// Most bytes that it may hold at any time, whatever the input: beyond `per_byte` bytes for each byte of input.
    pub memory: usize,
    /// See `memory`.
    pub per_byte: usize,
}

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;

const fn reader(name: &'static str, read: fn(&[u8]), memory: usize, per_byte: usize) -> Reader {
    Reader { name, read, memory, per_byte }
}

/// All readers.
pub const READERS: &[Reader] = &[
    reader("record", stored::record, MB, 200),
    reader("repository_record", stored::repository_record, MB, 100),
    reader("cluster_record", stored::cluster_record, MB, 200),
    reader("lease", stored::lease, MB, 100),
    reader("run_record", stored::run_record, MB, 200),
    reader("pin", stored::pin, MB, 200),
    reader("pruned", stored::pruned, MB, 200),
    reader("retention_policy", stored::retention_policy, MB, 100),
    reader("archive_index", stored::archive_index, 4 * MB, 50),
    reader("wal_index", stored::wal_index, MB, 100),
    reader("manifest", formats::manifest, MB, 50),
    reader("timeline_history", formats::timeline_history, MB, 100),
    reader("backup_label", formats::backup_label, MB, 100),
    reader("tablespace_map", formats::tablespace_map, MB, 100),
    reader("pg_control", formats::pg_control, 64 * KB, 10),
    reader("names", formats::names, MB, 100),
    reader("cron", formats::cron, MB, 20),
    reader("pages", formats::pages, MB, 20),
    reader("config_text", formats::config_text, MB, 100),
    reader("tar_reader", streams::tar_reader, MB, 100),
    reader("config_archive", streams::config_archive, MB, 100),
    reader("frame_decode", streams::frame_decode, 24 * MB, 10),
    reader("frame_stream", streams::frame_stream, 24 * MB, 10),
    reader("wal_reader", streams::wal_reader, MB, 100),
    reader("wal_page", streams::wal_page, MB, 100),
];

/// Runs the reader of a target.
pub fn run(name: &str, bytes: &[u8]) {
    let reader = READERS.iter().find(|reader| reader.name == name);
    (reader.unwrap_or_else(|| panic!("there is no reader {name}")).read)(bytes);
}
