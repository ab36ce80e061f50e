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
             wal_included boolean, damaged_pages bigint, error text)"
        );
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
                 wait boolean DEFAULT false",
                "text",
            ),
            ("backup_stop", "backup text", "boolean"),
            ("show", "backup text", "jsonb"),
            ("check", "", "TABLE(item text, status text, detail text, hint text)"),
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
