//! Fuzz target: hostile bytes for the reader "config_archive".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("config_archive", bytes));
