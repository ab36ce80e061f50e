//! What bad input gets, before anything is touched: its SQLSTATE, and a hint that says what to do.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::help::{Program, Raised, raised, text};
    use crate::postgres::guc;
    use pgrx::prelude::*;

    fn refused(statement: &str, state: &str, hint: &str) -> Raised {
        let error = raised(statement);
        assert_eq!(error.state, state, "{error:?}");
        assert!(error.hint.contains(hint), "{error:?}");
        error
    }

    #[pg_test]
    fn nothing_works_without_a_repository() {
        for call in [
            "ark.backup_start()",
            "ark.list_backups()",
            "ark.show('x')",
            "ark.backup_stop('x')",
            "ark.verify_archive(deep => true)",
            "ark.verify_archive(NULL)",
            "ark.recovery_windows()",
            "ark.validate()",
            "ark.validate('20261122T020000Z-full', 'pages')",
        ] {
            refused(&format!("SELECT {call}"), "55000", "ark.enable");
        }
    }

    #[pg_test]
    fn a_backup_has_a_name() {
        for name in ["NULL", "''"] {
            refused(&format!("SELECT ark.show({name})"), "22023", "ark.list_backups");
            refused(&format!("SELECT ark.backup_stop({name})"), "22023", "ark.list_backups");
        }
    }

    #[pg_test]
    fn validate_takes_a_level_and_a_name_that_can_be() {
        for level in ["'all'", "'DATA'", "''"] {
            refused(&format!("SELECT * FROM ark.validate(level => {level})"), "22023", "pages");
        }
        let long = "repeat('x', 100000)";
        for name in ["''", "'x'", "'..'", "'20261122T020000Z-full/../x'", "E'20261122T020000Z-full\n'", long]
        {
            refused(&format!("SELECT * FROM ark.validate({name})"), "22023", "ark.list_backups");
        }
    }

    #[pg_test]
    fn an_unknown_kind_lists_the_known_ones() {
        for kind in ["'differential'", "'FULL'", "''", "NULL"] {
            let error = refused(&format!("SELECT ark.backup_start(kind => {kind})"), "22023", "incremental");
            assert!(error.message.contains("unknown kind"), "{error:?}");
        }
    }

    #[pg_test]
    fn a_backup_without_wal_needs_an_archive() {
        guc::apply_here(c"pg_ark.repository", "file:///nowhere");
        let program = Program::new("exit 1");
        guc::apply_here(c"pg_ark.engine_path", &program.0.display().to_string());
        let error = refused("SELECT ark.backup_start(include_wal => false)", "55000", "ark.check");
        assert!(error.message.contains("does not archive"), "{error:?}");
    }

    #[pg_test]
    fn a_kind_of_a_later_version_says_so() {
        refused("SELECT ark.backup_start('incremental')", "0A000", "full");
    }

    #[pg_test]
    fn what_a_logical_backup_dumps_is_judged_before_anything_is_touched() {
        for (arguments, message, hint) in [
            ("databases => '{postgres}'", "full has no databases", "kind => 'logical'"),
            (
                "exclude_databases => '{postgres}'",
                "full has no exclude_databases",
                "Leave exclude_databases out",
            ),
            ("skip_failed => true", "full has no skip_failed", "Leave skip_failed out"),
            ("'logical', include_wal => true", "holds no WAL", "Leave include_wal out"),
            ("'logical', databases => '{}'", "databases: it names no database", "ARRAY["),
            ("'logical', exclude_databases => '{}'", "exclude_databases: it names no", "ARRAY["),
            ("'logical', databases => '{postgres,NULL}'", "null or empty", "ARRAY["),
            ("'logical', exclude_databases => ARRAY['']", "null or empty", "ARRAY["),
            ("'logical', databases => '{template0}'", "names template0", "Leave it out"),
            ("'logical', exclude_databases => '{template0}'", "names template0", "Leave it out"),
            (
                "'logical', databases => '{postgres,b}', exclude_databases => '{a,postgres}'",
                "both name \"postgres\"",
                "one of them",
            ),
        ] {
            let error = refused(&format!("SELECT ark.backup_start({arguments})"), "22023", hint);
            assert!(error.message.contains(message), "{arguments}: {error:?}");
        }
        guc::apply_here(c"pg_ark.repository", "file:///nowhere");
        let program = Program::new("exit 1");
        guc::apply_here(c"pg_ark.engine_path", &program.0.display().to_string());
        for (arguments, message) in [
            ("databases => '{postgres,Postgres}'", "there is no database \"Postgres\""),
            ("exclude_databases => ARRAY['a','b\"']", "there are no databases \"a\", \"b\\\"\""),
        ] {
            let call = format!("SELECT ark.backup_start('logical', {arguments})");
            let error = refused(&call, "22023", "pg_database");
            assert!(error.message.contains(message), "{arguments}: {error:?}");
        }
    }

    #[pg_test]
    fn a_label_is_one_short_line() {
        let unseen = ["E'line\\u2028'", "E'paragraph\\u2029'", "E'\\u202Eturned'", "E'\\u2066turned'"];
        let long_or_more = ["repeat('x', 1025)", "repeat('é', 513)", "E'two\\nlines'", "E'bell\\x07'"];
        for label in long_or_more.into_iter().chain(unseen) {
            refused(&format!("SELECT ark.backup_start(label => {label})"), "22023", "one line");
        }
        // Long enough, so the next thing that is missing is found.
        refused("SELECT ark.backup_start(label => repeat('x', 1024))", "55000", "ark.enable");
    }

    #[pg_test]
    fn protect_is_refused_where_jobs_cannot_be_made() {
        let error =
            refused("SELECT ark.enable('file:///nowhere', protect => true)", "55000", "pg_ark.database");
        assert!(error.message.contains("\"postgres\""), "{error:?}");
        refused("SELECT ark.enable('nonsense', protect => true)", "22023", "file:///");
        assert_eq!(text("SELECT current_setting('pg_ark.repository')"), "");
    }

    #[pg_test]
    fn null_is_the_default_of_validate() {
        // Past the arguments the next thing that is missing is found.
        refused("SELECT ark.validate(NULL, NULL)", "55000", "ark.enable");
    }

    #[pg_test]
    fn a_repository_is_a_url() {
        for url in [
            "NULL",
            "''",
            "'/var/backups'",
            "'file://'",
            "'://x'",
            "E'file:///a\\nb'",
            "'file:///a%0Ab'",
            "'file:///%7f'",
        ] {
            refused(&format!("SELECT ark.enable({url})"), "22023", "file:///");
        }
    }
}
