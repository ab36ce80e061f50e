//! Names, columns and defaults that users, tests and documents rely on. Add, don't rename.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::help::text;
    use pgrx::prelude::*;

    fn signature(name: &str) -> (String, String) {
        let of = |what: &str| text(&format!("SELECT {what}('ark.{name}'::regproc)"));
        (of("pg_get_function_arguments"), of("pg_get_function_result"))
    }

    #[pg_test]
    fn list_backups_has_the_columns_of_the_design() {
        let (_, result) = signature("list_backups");
        assert_eq!(
            result,
            "TABLE(backup text, kind text, status text, parent text, label text, pinned boolean, \
             started_at timestamp with time zone, finished_at timestamp with time zone, start_lsn pg_lsn, \
             stop_lsn pg_lsn, timeline integer, server_version integer, data_bytes bigint, stored_bytes bigint, \
             wal_included boolean, damaged_pages bigint, error text, pin_reason text, \
             contents text)"
        );
    }

    #[pg_test]
    fn verify_archive_and_recovery_windows_have_the_columns_of_the_design() {
        let expected = [
            (
                "verify_archive",
                "deep boolean DEFAULT false",
                "TABLE(timeline integer, first_segment text, last_segment text, start_lsn pg_lsn, end_lsn pg_lsn, \
                 start_time timestamp with time zone, end_time timestamp with time zone, segments bigint, \
                 status text, detail text)",
            ),
            (
                "recovery_windows",
                "",
                "TABLE(backup text, timelines text, from_time timestamp with time zone, \
                 to_time timestamp with time zone, from_lsn pg_lsn, to_lsn pg_lsn, note text)",
            ),
        ];
        for (name, arguments, result) in expected {
            assert_eq!(signature(name), (arguments.to_owned(), result.to_owned()), "{name}");
        }
    }

    #[pg_test]
    fn jobs_has_the_columns_of_the_design() {
        let columns = text(
            "SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ', ' ORDER BY attnum) \
             FROM pg_attribute WHERE attrelid = 'ark.jobs'::regclass AND attnum > 0",
        );
        assert_eq!(
            columns,
            "name text, kind text, cron text, timezone text, enabled boolean, next_run timestamp with time zone, \
             running_since timestamp with time zone, last_run timestamp with time zone, last_status text, \
             last_result text, last_error text, failures integer"
        );
    }

    #[pg_test]
    fn a_dump_takes_the_jobs_along() {
        let dumped = text(
            "SELECT concat(extconfig::regclass[]::text, extcondition::text) FROM pg_extension WHERE extname = 'pg_ark'",
        );
        assert_eq!(dumped, "{ark.job}{\"\"}");
    }

    #[pg_test]
    fn status_has_the_columns_of_the_design() {
        let columns = text(
            "SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ', ' ORDER BY attnum) \
             FROM pg_attribute WHERE attrelid = 'ark.status'::regclass AND attnum > 0",
        );
        assert_eq!(
            columns,
            "repository text, cluster text, last_backup text, last_backup_at timestamp with time zone, \
             last_backup_age interval, damaged_pages bigint, last_clean_backup text, \
             last_clean_backup_at timestamp with time zone, archive_mode text, archived_by text, archive_lag_segments bigint, \
             archive_lag_bytes bigint, rpo_seconds bigint, rpo_bytes bigint, last_archived_segment text, \
             last_archived_at timestamp with time zone, last_failed_segment text, \
             last_failed_at timestamp with time zone, last_failure text, health text, healthy boolean, \
             recovery_window_from timestamp with time zone, recovery_window_to timestamp with time zone, \
             next_run timestamp with time zone, next_job text, last_error text, last_error_at timestamp with time zone, \
             backups bigint, backup_bytes bigint, free_bytes bigint, pruned_at timestamp with time zone, \
             last_logical_backup text, last_logical_backup_at timestamp with time zone"
        );
    }

    #[pg_test]
    fn status_answers_on_a_server_where_nothing_is_set_up() {
        let row = text(
            "SELECT json_build_array(count(*), min(archived_by), min(health), count(repository), count(rpo_bytes)) \
             ::text FROM ark.status",
        );
        let health = "pg_ark.repository is not set; archive_mode is off";
        assert_eq!(row, format!(r#"[1, "off", "{health}", 0, 0]"#));
    }

    #[pg_test]
    fn check_says_how_to_archive() {
        let found = text(
            "SELECT string_agg(item || '=' || status || ' ' || hint, E'\\n' ORDER BY item) FROM ark.check() \
             WHERE item LIKE 'archive%'",
        );
        for part in
            ["archive_library=warning", "archive_library = 'pg_ark'", "archive_mode=warning", "restart"]
        {
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[pg_test]
    fn functions_take_and_give_what_the_design_says() {
        let expected = [
            (
                "enable",
                "repository text, protect boolean DEFAULT false",
                "TABLE(item text, status text, hint text)",
            ),
            (
                "backup_start",
                "kind text DEFAULT 'full'::text, label text DEFAULT NULL::text, fast boolean DEFAULT true, \
                 wait boolean DEFAULT false, include_wal boolean DEFAULT NULL::boolean, \
                 databases text[] DEFAULT NULL::text[], exclude_databases text[] DEFAULT NULL::text[], \
                 skip_failed boolean DEFAULT false",
                "text",
            ),
            ("backup_stop", "backup text", "boolean"),
            ("show", "backup text", "jsonb"),
            (
                "validate",
                "backup text DEFAULT NULL::text, level text DEFAULT 'data'::text",
                "TABLE(backup text, severity text, object text, finding text, hint text)",
            ),
            ("check", "", "TABLE(item text, status text, detail text, hint text)"),
            (
                "schedule",
                "name text, cron text, kind text DEFAULT 'full'::text, timezone text DEFAULT NULL::text, \
                 label text DEFAULT NULL::text, time_limit interval DEFAULT '1 day'::interval, \
                 enabled boolean DEFAULT true, level text DEFAULT NULL::text, deep boolean DEFAULT NULL::boolean, \
                 databases text[] DEFAULT NULL::text[], exclude_databases text[] DEFAULT NULL::text[], \
                 skip_failed boolean DEFAULT NULL::boolean",
                "timestamp with time zone",
            ),
            ("unschedule", "name text", "boolean"),
            (
                "job_runs",
                "name text DEFAULT NULL::text, max_runs integer DEFAULT 100",
                "TABLE(job text, kind text, due_at timestamp with time zone, attempt integer, status text, \
                 started_at timestamp with time zone, finished_at timestamp with time zone, host text, \
                 backup text, result text, error text)",
            ),
            (
                "prune",
                "dry_run boolean DEFAULT true",
                "TABLE(object text, kind text, verdict text, rule text, bytes bigint)",
            ),
            ("pin", "backup text, reason text DEFAULT NULL::text", "boolean"),
            ("unpin", "backup text", "boolean"),
        ];
        for (name, arguments, result) in expected {
            assert_eq!(signature(name), (arguments.to_owned(), result.to_owned()), "{name}");
        }
    }

    #[pg_test]
    fn every_function_fixes_its_search_path() {
        let loose = text(
            "SELECT count(*)::text FROM pg_proc WHERE pronamespace = 'ark'::regnamespace \
             AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']",
        );
        assert_eq!(loose, "0");
    }

    #[pg_test]
    fn check_works_on_a_server_where_nothing_is_set_up() {
        let found = text(
            "SELECT string_agg(item || '=' || status, ' ' ORDER BY item) FROM ark.check() \
             WHERE item IN ('version', 'pg_ark.repository', 'wal_level')",
        );
        assert_eq!(found, "pg_ark.repository=error version=ok wal_level=ok");
        let silent = text("SELECT count(*)::text FROM ark.check() WHERE status <> 'ok' AND hint IS NULL");
        assert_eq!(silent, "0", "each finding says what to do");
    }
}
