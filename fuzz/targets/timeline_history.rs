//! Fuzz target: hostile bytes for the reader "timeline_history".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("timeline_history", bytes));
