//! Who may call what: nothing for PUBLIC, reading for pg_monitor, the rest for whom the owner chooses.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::help::{raised, text};
    use pgrx::prelude::*;

    const CALLS: [&str; 18] = [
        "SELECT ark.enable('file:///nowhere')",
        "SELECT ark.backup_start()",
        "SELECT ark.backup_stop('x')",
        "SELECT ark.schedule('x', '@daily')",
        "SELECT ark.unschedule('x')",
        "SELECT ark.prune()",
        "SELECT ark.pin('x')",
        "SELECT ark.unpin('x')",
        "SELECT ark.list_backups()",
        "SELECT ark.show('x')",
        "SELECT ark.verify_archive()",
        "SELECT ark.recovery_windows()",
        "SELECT ark.validate()",
        "SELECT ark.job_runs()",
        "SELECT name FROM ark.jobs",
        "SELECT name FROM ark.metrics",
        "SELECT health FROM ark.status",
        "SELECT ark.check()",
    ];

    fn become_role(grant: &str) {
        Spi::run(&format!("CREATE ROLE ark_test_role; {grant}; SET LOCAL ROLE ark_test_role"))
            .expect("a role");
    }

    #[pg_test]
    fn a_plain_role_may_do_nothing() {
        become_role("SELECT 1");
        for call in CALLS {
            assert_eq!(raised(call).state, "42501", "{call}");
        }
    }

    #[pg_test]
    fn public_has_no_right_on_any_function() {
        let open = text(
            "SELECT count(*)::text FROM pg_proc WHERE pronamespace = 'ark'::regnamespace \
             AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0))",
        );
        assert_eq!(open, "0");
    }

    #[pg_test]
    fn pg_monitor_may_read_and_nothing_else() {
        become_role("GRANT pg_monitor TO ark_test_role");
        assert_eq!(text("SELECT status FROM ark.check() WHERE item = 'version'"), "ok");
        assert_eq!(text("SELECT status FROM ark.check() WHERE item = 'caller'"), "warning");
        assert_eq!(text("SELECT count(*)::text FROM ark.status WHERE health LIKE 'pg_ark.repository%'"), "1");
        assert_eq!(text("SELECT count(*)::text FROM ark.jobs"), "0");
        // Let through, then stopped by what is missing: the repository.
        for call in &CALLS[8..14] {
            assert_eq!(raised(call).state, "55000", "{call}");
        }
        for call in &CALLS[..8] {
            assert_eq!(raised(call).state, "42501", "{call}");
        }
    }

    #[pg_test]
    fn backups_can_be_granted_and_the_configuration_cannot() {
        become_role(
            "GRANT USAGE ON SCHEMA ark TO ark_test_role; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ark TO ark_test_role",
        );
        assert_eq!(raised("SELECT ark.backup_start()").state, "55000");
        assert_eq!(raised("SELECT ark.backup_stop('x')").state, "55000");
        let error = raised("SELECT ark.enable('file:///nowhere')");
        assert_eq!(error.state, "42501");
        assert!(error.hint.contains("superuser"), "{error:?}");
    }

    #[pg_test]
    fn where_backups_go_is_not_for_everyone() {
        become_role("SELECT 1");
        for setting in ["pg_ark.repository", "pg_ark.engine_path"] {
            assert_eq!(raised(&format!("SHOW {setting}")).state, "42501", "{setting}");
        }
    }

    #[pg_test]
    fn choices_of_a_backup_are_for_superusers() {
        become_role("SELECT 1");
        assert_eq!(raised("SET pg_ark.compression = 'none'").state, "42501");
        assert_eq!(raised("SET pg_ark.jobs = 4").state, "42501");
    }
}
