//! Heads of real dumps of one database, for tests: version, bytes, what `pg_restore --list --verbose` says of them.

macro_rules! golden {
    ($version:literal) => {
        (
            $version,
            include_bytes!(concat!("../../tests/golden/dumps/", $version, ".toc")),
            include_str!(concat!("../../tests/golden/dumps/", $version, ".list")),
        )
    };
}

/// One of each version.
pub const GOLDEN: &[(&str, &[u8], &str)] = &[golden!("15"), golden!("16"), golden!("17"), golden!("18")];
