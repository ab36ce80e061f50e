//! Fuzz target: hostile bytes for the reader "retention_policy".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("retention_policy", bytes));
