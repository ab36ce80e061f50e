//! Fuzz target: hostile bytes for the reader "backup_label".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("backup_label", bytes));
