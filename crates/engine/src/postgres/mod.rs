//! PostgreSQL's on-disk formats: bytes in, values out. No I/O of its own, no panic on any input.
//!
//! * [`control_file`]: `global/pg_control`: identity, layout and state of a cluster.
//! * [`data_directory`]: which files a backup takes, leaves out, or keeps as empty directories.
//! * [`relation_file`]: what the name of a relation's file says.
//! * [`page`]: page checksums.
//! * [`heap_tuple`]: the rows in the pages of a table; [`system_catalog`]: those that name things.
//! * [`wal_segment`]: names and first pages of WAL files.
//! * [`wal_record`]: the records in them, and what recovery targets look for.
//! * [`timeline`]: timeline history files.
//! * [`backup_label`]: `backup_label` and `tablespace_map`.
//! * [`manifest`]: `backup_manifest`, writing and reading.
//!
//! A *page* (or block) is 8 KiB unless the server was built otherwise; a *segment* is a file of at most 1 GiB of a
//! relation, or a WAL file. Each module names the PostgreSQL source that defines its format. Layouts are those of
//! little-endian 64-bit machines; a control file from another machine is refused. `tests/postgres_oracle.rs` compares
//! all this with PostgreSQL's own tools.

mod bytes;
mod wal_event;
#[cfg(test)]
pub(crate) mod wal_fixture;
mod wal_page;
mod wal_reader;

pub mod backup_label;
pub mod control_file;
pub mod data_directory;
pub mod heap_tuple;
pub mod manifest;
pub mod page;
pub mod relation_file;
pub mod system_catalog;
pub mod timeline;
pub mod wal_record;
pub mod wal_segment;
