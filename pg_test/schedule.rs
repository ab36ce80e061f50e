//! The schedule as SQL sees it: what `ark.schedule` writes, what it refuses, and what `ark.jobs` shows.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::help::{Program, Raised, raised, text};
    use crate::postgres::guc;
    use pg_ark_contract::ErrorKind;
    use pg_ark_contract::conversation::LogicalChoice;
    use pgrx::prelude::*;

    /// An engine that takes every cron text, and looks at nothing.
    const TAKES_ALL: &str = r#"read -r job; hello
        echo '{"done":{"answer":{"instants":{"next":["2030-01-02T03:04:00Z","2030-01-03T03:04:00Z"],"timezone":"Europe/Berlin"}}}}'"#;

    /// The tests' own database is the one with the jobs.
    fn here() {
        guc::apply_here(c"pg_ark.database", &text("SELECT current_database()::text"));
    }

    fn engine(script: &str) -> Program {
        let program = Program::new(script);
        guc::apply_here(c"pg_ark.engine_path", &program.0.display().to_string());
        program
    }

    fn refused(statement: &str, state: &str, hint: &str) -> Raised {
        let error = raised(statement);
        assert_eq!(error.state, state, "{statement}: {error:?}");
        assert!(error.hint.contains(hint), "{statement}: {error:?}");
        error
    }

    fn nothing_is_written() {
        assert_eq!(text("SELECT count(*)::text FROM ark.job"), "0");
    }

    #[pg_test]
    fn a_job_is_made_and_removed() {
        here();
        let _engine = engine(TAKES_ALL);
        let next = text(
            "SELECT (ark.schedule('nightly', '4 3 * * *', label => 'of the night', timezone => 'europe/berlin') \
             AT TIME ZONE 'UTC')::text",
        );
        assert_eq!(next, "2030-01-02 03:04:00");
        let row = text(
            "SELECT row_to_json(j)::text FROM (SELECT name, kind, cron, timezone, enabled, time_limit, label, level, \
             deep, clock_timestamp() - since < interval '1 min' AND date_trunc('second', since) = since AS fresh \
             FROM ark.job) j",
        );
        assert_eq!(
            row,
            r#"{"name":"nightly","kind":"full","cron":"4 3 * * *","timezone":"Europe/Berlin","enabled":true,"time_limit":"1 day","label":"of the night","level":null,"deep":false,"fresh":true}"#
        );
        assert_eq!(text("SELECT ark.unschedule('nightly')::text"), "true");
        assert_eq!(text("SELECT ark.unschedule('nightly')::text"), "false");
        nothing_is_written();
    }

    #[pg_test]
    fn every_kind_can_be_scheduled_with_what_belongs_to_it() {
        here();
        let _engine = engine(TAKES_ALL);
        for call in [
            "'a', '@daily'",
            "'b', '@daily', 'incremental', label => 'x'",
            "'c', '@hourly', 'prune'",
            "'d', '@weekly', 'verify', level => 'pages'",
            "'e', '@weekly', kind => 'verify_archive', deep => true",
            "'f', '@daily', time_limit => NULL, enabled => NULL, timezone => NULL",
            "'größe 2', '@daily', time_limit => '90 min'",
            "'h', '@daily', 'logical', label => 'x'",
            "'i', '@daily', 'logical', databases => '{postgres,template1}', skip_failed => true",
            "'j', '@daily', 'logical', exclude_databases => '{template1}'",
        ] {
            Spi::run(&format!("SELECT ark.schedule({call})")).expect("a job");
        }
        let rows = text(
            "SELECT string_agg(concat_ws(' ', name, kind, level, deep, enabled, time_limit), '; ' ORDER BY name) FROM ark.job",
        );
        assert_eq!(
            rows,
            "a full f t 1 day; b incremental f t 1 day; c prune f t 1 day; d verify pages f t 1 day; \
             e verify_archive t t 1 day; f full f t 1 day; größe 2 full f t 01:30:00; h logical f t 1 day; \
             i logical f t 1 day; j logical f t 1 day"
        );
        let read = crate::jobs::read().expect("the table");
        assert_eq!(read.len(), 10);
        assert_eq!((read[6].name.as_str(), read[6].time_limit), ("größe 2", 5_400));
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let named = Some(names(&["postgres", "template1"]));
        assert_eq!(read[7].logical, LogicalChoice::default());
        assert_eq!(
            read[8].logical,
            LogicalChoice { databases: named, skip_failed: true, ..LogicalChoice::default() }
        );
        assert_eq!(read[9].logical.exclude_databases, names(&["template1"]));
        // A row that was written by hand hides no other.
        for row in ["databases = '{}'", "databases = '{a,NULL}'", "exclude_databases = '{NULL}'"] {
            let error = raised(&format!("UPDATE ark.job SET {row}"));
            assert_eq!(error.state, "23514", "{row}: {error:?}");
        }
    }

    #[pg_test]
    fn moments_count_from_the_change_of_a_schedule() {
        here();
        let _engine = engine(TAKES_ALL);
        Spi::run("SELECT ark.schedule('a', '@daily')").expect("a job");
        let old = "UPDATE ark.job SET since = '2020-01-01'";
        for (change, kept) in [
            ("'@daily'", true),
            ("'@daily', label => 'x', time_limit => '2 h'", true),
            ("'@daily', enabled => false", true),
            ("'@daily', enabled => false", true),
            ("'@daily'", false), // Switched on again: what passed meanwhile was never due.
            ("'@hourly'", false),
        ] {
            Spi::run(old).expect("an old job");
            Spi::run(&format!("SELECT ark.schedule('a', {change})")).expect("a change");
            let is_old = text("SELECT (since = '2020-01-01')::text FROM ark.job");
            assert_eq!(is_old, kept.to_string(), "{change}");
        }
        assert_eq!(text("SELECT concat(count(*), min(cron), min(label)) FROM ark.job"), "1@hourly");
    }

    #[pg_test]
    fn a_job_that_is_not_enabled_has_no_next_run() {
        here();
        let _engine = engine(TAKES_ALL);
        let next = text("SELECT coalesce(ark.schedule('a', '@daily', enabled => false)::text, 'none')");
        assert_eq!(next, "none");
    }

    #[pg_test]
    fn arguments_that_cannot_be_are_refused_before_anything_is_written() {
        here();
        let _engine = engine(TAKES_ALL);
        let long = "repeat('x', 64)";
        for name in [
            "NULL",
            "''",
            "'.'",
            "'..'",
            "'../x'",
            "'a/b'",
            "' a'",
            "'a '",
            "E'a\\nb'",
            "'a#1'",
            "E'a\\u202Eb'",
            long,
        ] {
            refused(&format!("SELECT ark.schedule({name}, '@daily')"), "22023", "");
            // A row that somebody wrote by hand can be removed whatever its name.
            if name != "NULL" {
                assert_eq!(text(&format!("SELECT ark.unschedule({name})::text")), "false");
            }
        }
        refused("SELECT ark.unschedule(NULL)", "22023", "");
        for (arguments, hint) in [
            ("'a', NULL", "five fields"),
            ("'a', ''", "five fields"),
            ("'a', '@daily', NULL", "verify_archive"),
            ("'a', '@daily', ''", "verify_archive"),
            ("'a', '@daily', 'FULL'", "verify_archive"),
            ("'a', '@daily', E'x\\ny'", "verify_archive"),
            ("'a', '@daily', repeat('x', 100000)", "verify_archive"),
            ("'a', '@daily', label => E'two\\nlines'", "one line"),
            ("'a', '@daily', label => repeat('x', 1025)", "one line"),
            ("'a', '@daily', 'prune', label => 'x'", "Leave label out"),
            ("'a', '@daily', level => 'data'", "Leave level out"),
            ("'a', '@daily', 'verify', level => 'all'", "pages"),
            ("'a', '@daily', 'verify', deep => true", "Leave deep out"),
            ("'a', '@daily', deep => false", "Leave deep out"),
            ("'a', '@daily', databases => '{postgres}'", "Leave databases out"),
            ("'a', '@daily', 'prune', exclude_databases => '{postgres}'", "Leave exclude_databases out"),
            ("'a', '@daily', 'incremental', skip_failed => false", "Leave skip_failed out"),
            ("'a', '@daily', 'logical', databases => '{}'", "ARRAY["),
            ("'a', '@daily', 'logical', databases => '{no_such}'", "pg_database"),
            ("'a', '@daily', 'logical', exclude_databases => '{no_such}'", "pg_database"),
            (
                "'a', '@daily', 'logical', databases => '{postgres}', exclude_databases => '{postgres}'",
                "one of",
            ),
            ("'a', '@daily', time_limit => '0'", "a day"),
            ("'a', '@daily', time_limit => '-1 day'", "a day"),
            ("'a', '@daily', time_limit => '400 days'", "a day"),
        ] {
            refused(&format!("SELECT ark.schedule({arguments})"), "22023", hint);
        }
        nothing_is_written();
    }

    #[pg_test]
    fn what_the_engine_refuses_is_not_written() {
        here();
        let _engine = engine(
            r#"read -r job; hello; echo '{"failed":{"error":{"kind":"invalid_argument","message":"bad","hint":"do"}}}'"#,
        );
        refused("SELECT ark.schedule('a', 'x')", "22023", "do");
        nothing_is_written();
        let _dead = engine("hello; kill -9 $$");
        refused("SELECT ark.schedule('a', '@daily')", "58000", "log");
        nothing_is_written();
    }

    #[pg_test]
    fn cron_texts_and_zones_are_judged_by_the_engine() {
        here();
        for (arguments, hint) in [
            ("'a', 'every night'", ""),
            ("'a', '* * * *'", ""),
            ("'a', '61 * * * *'", ""),
            ("'a', '0 0 30 2 *'", ""),
            ("'a', repeat('*', 100000)", ""),
            ("'a', '@daily', timezone => 'Middle/Earth'", ""),
            ("'a', '@daily', timezone => ''", ""),
            ("'a', '@daily', timezone => '../../etc/passwd'", ""),
        ] {
            let error = refused(&format!("SELECT ark.schedule({arguments})"), "22023", hint);
            assert!(!error.hint.is_empty(), "{error:?}");
        }
        nothing_is_written();
        let next = text("SELECT (ark.schedule('a', '*/5 * * * *') - now() < interval '6 min')::text");
        assert_eq!(next, "true");
        assert_eq!(text("SELECT timezone FROM ark.job"), "UTC");
    }

    #[pg_test]
    fn jobs_belong_to_one_database() {
        let _engine = engine(TAKES_ALL);
        for call in ["ark.schedule('a', '@daily')", "ark.unschedule('a')"] {
            let error = refused(&format!("SELECT {call}"), "55000", "pg_ark.database");
            assert!(error.message.contains("\"postgres\""), "{error:?}");
        }
        Spi::run("INSERT INTO ark.job (name, kind, cron, timezone) VALUES ('a', 'full', '@daily', 'UTC')")
            .expect("the owner may write");
        let row = text("SELECT concat_ws('|', name, next_run, last_error) FROM ark.jobs");
        assert_eq!(row, "a|the scheduler looks at database \"postgres\" alone");
    }

    #[pg_test]
    fn jobs_are_shown_without_a_repository() {
        here();
        assert_eq!(text("SELECT count(*)::text FROM ark.jobs"), "0", "no engine is needed for none");
        let _engine = engine("exit 1");
        Spi::run(
            "INSERT INTO ark.job (name, kind, cron, timezone, enabled) VALUES ('a', 'full', '@daily', 'UTC', true), \
             ('b', 'prune', 'nonsense', 'nowhere', false)",
        )
        .expect("the owner may write");
        let rows = text(
            "SELECT string_agg(concat_ws('|', name, kind, cron, timezone, enabled), '; ' ORDER BY name) FROM ark.jobs \
             WHERE next_run IS NULL AND failures IS NULL AND last_status IS NULL AND last_error LIKE '%engine%'",
        );
        assert_eq!(rows, "a|full|@daily|UTC|t; b|prune|nonsense|nowhere|f");
    }

    #[pg_test]
    fn the_state_of_a_job_is_the_engines() {
        here();
        let _engine = engine(
            r#"read -r job; hello; echo '{"done":{"answer":{"agenda":{"wake_at":null,"error":null,"jobs":[{"name":"a",
"error":null,"due":null,"next_run":"2030-01-02T03:04:00Z","failures":2,"running":null,"last_run":{"job":"a",
"due_at":"2026-01-01T00:00:00Z","attempt":2,"kind":"full","status":"failed","started_at":"2026-01-01T00:00:01Z",
"finished_at":"2026-01-01T00:00:02Z","host":"h","backup":null,"result":null,"error":{"kind":"disk_full",
"message":"full"}}},{"name":"b","error":null,"due":null,"next_run":"2030-01-02T03:04:00Z","failures":0,"running":null,
"last_run":null}]}}}}' | tr -d '\n'; echo"#,
        );
        guc::apply_here(c"pg_ark.repository", "file:///nowhere");
        Spi::run(
            "SET LOCAL timezone = 'UTC'; INSERT INTO ark.job (name, kind, cron, timezone, enabled) \
             VALUES ('a', 'full', '@daily', 'UTC', true), ('b', 'prune', '@daily', 'UTC', false)",
        )
        .expect("the owner may write");
        let rows = text(
            "SELECT string_agg(concat_ws('|', name, next_run, last_run, last_status, last_error, failures), '; ' \
             ORDER BY name) FROM ark.jobs",
        );
        assert_eq!(
            rows, "a|2030-01-02 03:04:00+00|2026-01-01 00:00:01+00|failed|full|2; b|0",
            "a job that is not enabled has no next run"
        );
    }

    #[pg_test]
    fn runs_are_asked_for_in_reasonable_numbers() {
        for arguments in ["max_runs => 0", "max_runs => -1", "max_runs => 2147483647"] {
            refused(&format!("SELECT ark.job_runs({arguments})"), "22023", "100");
        }
        for name in ["''", "'../x'", "E'a\\nb'"] {
            refused(&format!("SELECT ark.job_runs({name})"), "22023", "letters");
        }
        for call in ["ark.job_runs()", "ark.job_runs(NULL, NULL)", "ark.job_runs('never was')"] {
            refused(&format!("SELECT {call}"), "55000", "ark.enable");
        }
    }

    #[pg_test]
    fn a_row_that_cannot_be_is_refused_by_the_table() {
        for (column, value) in [
            ("kind", "'weekly'"),
            ("since", "'infinity'"),
            ("time_limit", "'0'"),
            ("time_limit", "'2 years'"),
            ("level", "'all'"),
            ("cron", "NULL"),
        ] {
            let columns = ["name", "kind", "cron", "timezone"].into_iter().filter(|name| *name != column);
            let columns: Vec<_> = columns.collect();
            let values = columns.iter().map(|name| if *name == "kind" { "'full'" } else { "'x'" });
            let values: Vec<_> = values.collect();
            let (columns, values) = (columns.join(", "), values.join(", "));
            let insert = format!("INSERT INTO ark.job ({columns}, {column}) VALUES ({values}, {value})");
            assert!(raised(&insert).state.starts_with("23"), "{insert}");
        }
    }

    #[pg_test]
    fn a_table_that_is_not_the_extensions_is_not_read() {
        here();
        Spi::run(
            "ALTER EXTENSION pg_ark DROP TABLE ark.job; ALTER TABLE ark.job RENAME TO job_was; \
             CREATE FUNCTION public.trap() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'run as a superuser'; END $$; \
             CREATE VIEW ark.job AS SELECT public.trap() AS name",
        )
        .expect("a stranger's view");
        let error = crate::jobs::read().expect_err("it is not ours");
        assert_eq!(error.kind, ErrorKind::ServerNotReady, "{error:?}");
        assert!(error.hint.is_some(), "{error:?}");
    }

    #[pg_test]
    fn what_a_session_creates_is_not_used() {
        here();
        let _engine = engine(TAKES_ALL);
        Spi::run(
            "CREATE TEMP TABLE job (name text); CREATE TEMP TABLE pg_extension (oid oid, extname name); \
             CREATE TEMP TABLE pg_depend (objid oid); CREATE SCHEMA evil; \
             CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$; \
             CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$; \
             CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$; \
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same); \
             SET LOCAL search_path = pg_temp, evil, pg_catalog",
        )
        .expect("traps");
        Spi::run("SELECT ark.schedule('a', '@daily'); SELECT ark.schedule('a', '@hourly')").expect("a job");
        Spi::run("SELECT * FROM ark.jobs; SELECT ark.unschedule('a')").expect("no trap is stepped into");
    }

    #[pg_test]
    fn a_schedule_can_be_granted_without_the_table() {
        here();
        let _engine = engine(TAKES_ALL);
        Spi::run(
            "CREATE ROLE ark_test_role; GRANT USAGE ON SCHEMA ark TO ark_test_role; \
             GRANT EXECUTE ON FUNCTION ark.schedule, ark.unschedule TO ark_test_role; SET LOCAL ROLE ark_test_role",
        )
        .expect("a role");
        assert_eq!(text("SELECT (ark.schedule('a', '@daily') IS NOT NULL)::text"), "true");
        for write in [
            "INSERT INTO ark.job (name) VALUES ('x')",
            "DELETE FROM ark.job",
            "UPDATE ark.job SET kind = 'prune'",
        ] {
            assert_eq!(raised(write).state, "42501", "{write}");
        }
        assert_eq!(raised("SELECT * FROM ark.jobs").state, "42501");
        assert_eq!(raised("SELECT ark.server_jobs()").state, "42501");
        assert_eq!(text("SELECT ark.unschedule('a')::text"), "true");
    }

    #[pg_test]
    fn a_check_goes_on_without_the_right_to_see_jobs() {
        Spi::run(
            "CREATE ROLE ark_test_role; GRANT USAGE ON SCHEMA ark TO ark_test_role; \
             GRANT EXECUTE ON FUNCTION ark.check, ark.server_jobs TO ark_test_role; SET LOCAL ROLE ark_test_role",
        )
        .expect("a role");
        assert_eq!(text("SELECT status FROM ark.check() WHERE item = 'jobs'"), "warning");
        let error = raised("SELECT ark.server_jobs()");
        assert!(error.state == "42501" && error.hint.contains("pg_monitor"), "{error:?}");
    }

    #[pg_test]
    fn check_says_what_is_missing_until_a_server_backs_itself_up() {
        let row = |item: &str| {
            text(&format!("SELECT status || ' ' || hint FROM ark.check() WHERE item = '{item}'"))
        };
        assert!(
            row("scheduler").starts_with("warning") && row("scheduler").contains("shared_preload_libraries")
        );
        assert!(row("jobs").contains("ark.schedule('daily full'"));
        assert!(row("retention").contains("ark.schedule('prune'"));
        assert!(row("pg_ark.database").starts_with("warning"), "the tests' database is another");
        assert_eq!(text("SELECT status FROM ark.check() WHERE item = 'pg_ark.timezone'"), "ok");
        guc::apply_here(c"pg_ark.timezone", "Middle/Earth");
        assert!(row("pg_ark.timezone").starts_with("error"));
    }
}
