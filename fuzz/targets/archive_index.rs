//! Fuzz target: hostile bytes for the reader "archive_index".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("archive_index", bytes));
