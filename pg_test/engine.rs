//! The conversation with the engine, held with small programs that behave well and badly.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::engine::{self, Target};
    use crate::pg_test::help::Program;
    use pg_ark_contract::conversation::{Answer, Task};
    use pg_ark_contract::{Error, ErrorKind, VERSION};
    use pgrx::prelude::*;
    use std::time::{Duration, Instant};

    fn ask(program: &Program, task: Task) -> Result<Answer, Error> {
        let target = Target {
            program: program.0.clone(),
            repository: "file:///nowhere".into(),
            cluster: "main".into(),
        };
        engine::ask(&target, task)
    }

    fn error_of(script: &str) -> Error {
        ask(&Program::new(script), Task::List).expect_err("it should fail")
    }

    #[pg_test]
    fn an_answer_is_an_answer() {
        let program = Program::new(r#"read -r job; hello; echo '{"done":{"answer":{"backups":[]}}}'"#);
        assert_eq!(ask(&program, Task::List), Ok(Answer::Backups(Vec::new())));
    }

    #[pg_test]
    fn ps_shows_how_much_is_verified() {
        let title = || std::fs::read("/proc/self/cmdline").expect("Linux");
        let before = title();
        // The engine ends when its parent's title says what it said.
        let script = r#"read -r job; hello; echo '{"verified":{"done_bytes":1,"total_bytes":4}}'
            until grep -q ' 25 % of 4 bytes verified' /proc/$PPID/cmdline; do sleep 0.05; done
            echo '{"verified":{"done_bytes":18446744073709551615,"total_bytes":1}}'
            until grep -q ' 100 % of 1 bytes verified' /proc/$PPID/cmdline; do sleep 0.05; done
            echo '{"done":{"answer":{"findings":[]}}}'"#;
        let task = Task::Validate {
            backup: None,
            level: pg_ark_contract::conversation::Level::Data,
            system_identifier: None,
            jobs: 0,
            archived: None,
        };
        assert_eq!(ask(&Program::new(script), task), Ok(Answer::Findings(Vec::new())));
        assert_eq!(title(), before);
    }

    #[pg_test]
    fn what_the_engine_refuses_comes_with_its_hint() {
        let error = error_of(
            r#"hello; echo '{"failed":{"error":{"kind":"disk_full","message":"full","hint":"free some"}}}'"#,
        );
        assert_eq!(error, Error::new(ErrorKind::DiskFull, "full").hint("free some"));
    }

    #[pg_test]
    fn another_version_is_refused() {
        let error = error_of(r#"echo '{"hello":{"version":"0.0.0"}}'; read -r job; read -r end"#);
        assert_eq!(error.kind, ErrorKind::VersionMismatch, "{error:?}");
        assert!(error.message.contains("0.0.0") && error.message.contains(VERSION), "{error:?}");
    }

    #[pg_test]
    fn another_program_is_refused_by_name() {
        for script in ["echo usage: something", "exit 3", r#"echo '{"done":{"answer":"abandoned"}}'"#] {
            let error = error_of(script);
            assert_eq!(error.kind, ErrorKind::EngineMissing, "{script}: {error:?}");
            assert!(error.message.contains("pg_ark_test_"), "{error:?}");
            assert!(error.hint.is_some_and(|hint| hint.contains("scripts/install")), "{script}");
        }
    }

    #[pg_test]
    fn an_engine_that_dies_is_told_by_signal_or_status() {
        let error = error_of("hello; kill -9 $$");
        assert_eq!(error.kind, ErrorKind::EngineDied);
        assert!(error.message.contains("signal 9"), "{error:?}");
        let error = error_of("hello; exit 7");
        assert_eq!(error.kind, ErrorKind::EngineDied);
        assert!(error.message.contains("status 7"), "{error:?}");
    }

    #[pg_test]
    fn a_line_that_is_not_understood_ends_the_conversation() {
        assert_eq!(error_of("hello; echo nonsense; sleep 60").kind, ErrorKind::Internal);
    }

    #[pg_test]
    fn a_program_that_will_not_end_is_ended() {
        let started = Instant::now();
        let error = error_of("trap '' TERM INT HUP; hello; echo nonsense; exec sleep 60");
        assert_eq!(error.kind, ErrorKind::Internal);
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }

    #[pg_test]
    fn a_job_larger_than_a_pipe_does_not_block() {
        let task = Task::Abandon { backup: None, reason: "x".repeat(1 << 20) };
        // It talks before it reads, and then answers when it has read the whole line.
        let script = r#"hello; echo '{"warning":{"message":"wait","hint":null}}'
            head -n 1 | wc -c | grep -q '^ *1048' && echo '{"done":{"answer":"abandoned"}}'"#;
        assert_eq!(ask(&Program::new(script), task), Ok(Answer::Abandoned));
        // This one never reads.
        let task = Task::Abandon { backup: None, reason: "x".repeat(1 << 20) };
        let script = r#"hello; echo '{"done":{"answer":"abandoned"}}'"#;
        assert_eq!(ask(&Program::new(script), task), Ok(Answer::Abandoned));
    }

    #[pg_test]
    fn no_child_is_left_behind() {
        let _ = error_of("hello; kill -9 $$");
        let _ = error_of("echo usage");
        let own = std::process::id().to_string();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).expect("Linux");
        assert_eq!(children.trim(), "");
    }
}
