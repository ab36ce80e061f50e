//! Tests that run inside a server, each in a transaction that is rolled back: API, settings, permissions.
//! Tests that need servers of their own are in `cluster/`.
//!
//! * [`api`]: names, columns and defaults that users rely on.
//! * [`settings`]: the server's settings agree with the contract's catalogue.
//! * [`permissions`]: who may call what.
//! * [`engine`]: the conversation, with programs that behave badly.
//! * [`bad_input`]: SQLSTATE and hint of what is refused before anything is touched.

mod api;
mod bad_input;
mod engine;
mod permissions;
mod settings;

/// Called by the test framework before the server starts.
pub fn setup(_options: Vec<&str>) {}

/// Settings of the server under test: deliberately without `shared_preload_libraries`.
pub fn postgresql_conf_options() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(any(test, feature = "pg_test"))]
mod help {
    use pgrx::prelude::*;

    /// What a statement raises.
    #[derive(Debug)]
    pub struct Raised {
        pub state: String,
        pub message: String,
        pub hint: String,
    }

    const CATCH: &str = r#"
CREATE OR REPLACE FUNCTION pg_temp.raised(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE state text; message text; hint text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN json_build_array(state, message, hint)::text;
END $$"#;

    /// Runs `statement`, which must fail.
    pub fn raised(statement: &str) -> Raised {
        Spi::run(CATCH).expect("plpgsql is there");
        let found = Spi::get_one_with_args::<String>("SELECT pg_temp.raised($1)", &[statement.into()])
            .expect("the helper runs")
            .unwrap_or_else(|| panic!("did not fail: {statement}"));
        let (state, message, hint) = serde_json::from_str(&found).expect("three texts");
        Raised { state, message, hint }
    }

    /// The first column of the first row, as text.
    pub fn text(query: &str) -> String {
        Spi::get_one::<String>(query).expect("the query runs").expect("it gives a value")
    }
}
