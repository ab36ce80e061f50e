//! Fuzz target: hostile bytes for the reader "wal_index".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("wal_index", bytes));
