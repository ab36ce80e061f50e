//! Hostile bytes for pg_ark's readers: [`readers`] is what the fuzz targets run, and the engine's own tests too.

pub mod readers;
