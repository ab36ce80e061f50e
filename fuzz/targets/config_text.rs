//! Fuzz target: hostile bytes for the reader "config_text".

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_ark_fuzz::readers::run("config_text", bytes));
