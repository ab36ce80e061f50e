//! Fuzz target: hostile bytes for the reader "run_record".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("run_record", bytes));
