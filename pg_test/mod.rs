//! Tests that run inside a server, each in a transaction that is rolled back: API, settings, permissions.
//! Tests that need servers of their own are in `cluster/`.

/// Called by the test framework before the server starts.
pub fn setup(_options: Vec<&str>) {}

/// Settings of the server under test: deliberately without `shared_preload_libraries`.
pub fn postgresql_conf_options() -> Vec<&'static str> {
    Vec::new()
}
