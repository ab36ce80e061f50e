//! `ark.prune`, `ark.pin` and `ark.unpin` as SQL sees them.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::help::{Program, raised, text};
    use crate::postgres::guc;
    use pgrx::prelude::*;

    const BACKUP: &str = "20261122T020000Z-full";

    /// An engine that writes down the task and answers.
    fn engine(answer: &str) -> (Program, std::path::PathBuf) {
        let asked = std::env::temp_dir().join(format!("pg_ark_asked_{}", std::process::id()));
        let script = format!(
            "read -r job; printf '%s' \"$job\" >{}; hello; echo '{{\"done\":{{\"answer\":{answer}}}}}'",
            asked.display()
        );
        let program = Program::new(&script);
        guc::apply_here(c"pg_ark.engine_path", &program.0.display().to_string());
        guc::apply_here(c"pg_ark.repository", "file:///nowhere");
        (program, asked)
    }

    fn task(asked: &std::path::Path) -> serde_json::Value {
        let job: serde_json::Value =
            serde_json::from_slice(&std::fs::read(asked).expect("a job")).expect("JSON");
        let _ = std::fs::remove_file(asked);
        job["task"].clone()
    }

    #[pg_test]
    fn nothing_is_removed_that_was_not_asked_for() {
        let (_engine, asked) = engine(r#"{"pruned":[]}"#);
        for (call, apply) in [
            ("ark.prune()", false),
            ("ark.prune(NULL)", false),
            ("ark.prune(true)", false),
            ("ark.prune(dry_run => false)", true),
        ] {
            assert_eq!(text(&format!("SELECT count(*)::text FROM {call}")), "0");
            assert_eq!(task(&asked)["prune"]["apply"], apply, "{call}");
        }
    }

    #[pg_test]
    fn the_settings_are_the_policy() {
        for (name, value) in [
            (c"pg_ark.retention_window", "3d"),
            (c"pg_ark.retention_min_full", "4"),
            (c"pg_ark.retention_daily", "5"),
            (c"pg_ark.retention_weekly", "6"),
            (c"pg_ark.retention_monthly", "7"),
            (c"pg_ark.retention_yearly", "8"),
            (c"pg_ark.timezone", "Europe/Berlin"),
        ] {
            guc::apply_here(name, value);
        }
        let (_engine, asked) = engine(r#"{"pruned":[]}"#);
        text("SELECT count(*)::text FROM ark.prune()");
        let expected = serde_json::json!({"window": 3 * 86_400, "min_full": 4, "daily": 5, "weekly": 6, "monthly": 7,
            "yearly": 8, "timezone": "Europe/Berlin"});
        assert_eq!(task(&asked)["prune"]["policy"], expected);
    }

    #[pg_test]
    fn verdicts_are_rows() {
        let row = r#"{"object":"x","kind":"wal","verdict":"drop","rule":"no backup needs it","bytes":7,"system_identifier":1}"#;
        let more = row.replace(":7,", ":null,").replace("drop", "keep").replace("wal", "backup");
        let (_engine, _asked) = engine(&format!(r#"{{"pruned":[{row},{more}]}}"#));
        let rows = text(
            "SELECT string_agg(concat_ws('|', object, kind, verdict, rule, bytes), '; ') FROM ark.prune()",
        );
        assert_eq!(rows, "x|wal|drop|no backup needs it|7; x|backup|keep|no backup needs it");
    }

    #[pg_test]
    fn a_pin_has_a_reason_or_none() {
        let (_engine, asked) = engine(r#"{"pinned":{"changed":true}}"#);
        for (arguments, reason) in
            [("", None), (", NULL", None), (", ''", None), (", 'before the move'", Some("before the move"))]
        {
            assert_eq!(text(&format!("SELECT ark.pin('{BACKUP}'{arguments})::text")), "true");
            let task = task(&asked);
            assert_eq!(task["pin"]["backup"], BACKUP);
            assert_eq!(task["pin"]["reason"].as_str(), reason, "{arguments}");
        }
        assert_eq!(text(&format!("SELECT ark.unpin('{BACKUP}')::text")), "true");
        assert_eq!(task(&asked)["unpin"]["backup"], BACKUP);
    }

    #[pg_test]
    fn what_was_so_already_is_told() {
        let (_engine, _asked) = engine(r#"{"pinned":{"changed":false}}"#);
        assert_eq!(text(&format!("SELECT ark.pin('{BACKUP}')::text")), "false");
        assert_eq!(text(&format!("SELECT ark.unpin('{BACKUP}')::text")), "false");
    }

    #[pg_test]
    fn names_and_reasons_that_cannot_be_are_refused() {
        for name in ["NULL", "''", "'x'", "'..'", "'20261122T020000Z-full/../x'", "repeat('x', 100000)"] {
            for call in [format!("ark.pin({name})"), format!("ark.unpin({name})")] {
                let error = raised(&format!("SELECT {call}"));
                assert_eq!(error.state, "22023", "{call}: {error:?}");
                assert!(error.hint.contains("ark.list_backups"), "{error:?}");
            }
        }
        for reason in ["E'two\\nlines'", "repeat('x', 1025)", "E'\\u202Eturned'"] {
            let error = raised(&format!("SELECT ark.pin('{BACKUP}', {reason})"));
            assert_eq!(error.state, "22023", "{error:?}");
            assert!(error.message.contains("reason") && error.hint.contains("one line"), "{error:?}");
        }
    }

    #[pg_test]
    fn none_of_it_works_without_a_repository() {
        for call in ["ark.prune()", "ark.prune(false)", "ark.pin('{}')", "ark.unpin('{}')"] {
            let error = raised(&format!("SELECT {}", call.replace("{}", BACKUP)));
            assert_eq!(error.state, "55000", "{error:?}");
            assert!(error.hint.contains("ark.enable"), "{error:?}");
        }
    }
}
