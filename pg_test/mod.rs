//! Tests that run inside a server, each in a transaction that is rolled back: API, settings, permissions.
//! Tests that need servers of their own are in `cluster/`.
//!
//! * [`archiver`]: what the archive module makes of engines that behave well and badly.
//! * [`api`]: names, columns and defaults that users rely on.
//! * [`settings`]: the server's settings agree with the contract's catalogue.
//! * [`permissions`]: who may call what.
//! * [`engine`]: the conversation, with programs that behave badly.
//! * [`schedule`]: scheduled jobs. * [`retention`]: what is kept, and pins.
//! * [`bad_input`]: SQLSTATE and hint of what is refused before anything is touched.

mod api;
mod archiver;
mod bad_input;
mod engine;
mod permissions;
mod retention;
mod schedule;
mod settings;

/// Called by the test framework before the server starts.
pub fn setup(_options: Vec<&str>) {}

/// Settings of the server under test: deliberately without `shared_preload_libraries`.
pub fn postgresql_conf_options() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(any(test, feature = "pg_test"))]
mod help {
    use pg_ark_contract::VERSION;
    use pgrx::prelude::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// An engine that runs `script`, in which `hello` greets; removed at the end of the test.
    pub struct Program(pub PathBuf);

    impl Program {
        pub fn new(script: &str) -> Program {
            let name = format!("pg_ark_test_{}_{}", std::process::id(), script.len());
            let path = std::env::temp_dir().join(name);
            let text = format!(
                "#!/bin/sh\nhello() {{ echo '{{\"hello\":{{\"version\":\"{VERSION}\"}}}}'; }}\n{script}\n"
            );
            std::fs::write(&path, text).expect("a script");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("its mode");
            Program(path)
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

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
