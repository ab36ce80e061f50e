//! What the archive module makes of engines that behave well and badly. The archiver itself is a process of its own,
//! which the cluster tests have; here its callback runs in a session.

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::help::Program;
    use crate::postgres::guc;
    use crate::{archive_module, last_failure};
    use pg_ark_contract::ErrorKind;
    use pgrx::prelude::*;
    use std::time::{Duration, Instant};

    const SEGMENT: &str = "000000010000000000000001";

    /// The conversation up to the first file, and what takes the name out of a line.
    const BEGIN: &str = r#"
echo started >> "$0.starts"
read -r job; hello; echo '"ready"'
name() { line=${1#*'"file":"'}; echo "${line%%'"'*}"; }
archived() { echo "{\"archived\":{\"file\":\"$1\"}}"; }
failed() { echo "{\"archive_failed\":{\"file\":\"$1\",\"error\":{\"kind\":\"disk_full\",\"message\":\"full\",\"hint\":\"free\"}}}"; }
"#;

    /// An engine for the archive module of this session.
    struct Archiver(Program);

    impl Archiver {
        fn new(script: &str) -> Archiver {
            // One at a time: they share the file that tells the last failure.
            Spi::run("SELECT pg_advisory_xact_lock(1)").expect("a lock");
            let program = Program::new(&format!("{BEGIN}{script}"));
            guc::apply_here(c"pg_ark.repository", "file:///nowhere");
            guc::apply_here(c"pg_ark.engine_path", &program.0.display().to_string());
            Archiver(program)
        }

        fn starts(&self) -> usize {
            std::fs::read_to_string(self.starts_file()).unwrap_or_default().lines().count()
        }

        fn starts_file(&self) -> String {
            format!("{}.starts", self.0.0.display())
        }
    }

    impl Drop for Archiver {
        fn drop(&mut self) {
            archive_module::close();
            let _ = std::fs::remove_file(self.starts_file());
            let _ = std::fs::remove_file(pg_ark_contract::archiver::LAST_FAILURE_PATH);
        }
    }

    #[pg_test]
    fn one_engine_stores_file_after_file() {
        let archiver = Archiver::new(r#"while read -r line; do archived "$(name "$line")"; done"#);
        for file in [SEGMENT, "00000002.history", "000000010000000000000002.partial"] {
            assert!(archive_module::archive(file), "{file}");
        }
        assert_eq!(archiver.starts(), 1);
        archive_module::close();
        let own = std::process::id().to_string();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).expect("Linux");
        assert_eq!(children.trim(), "", "nothing runs after the archiver's end");
    }

    #[pg_test]
    fn a_failure_is_kept_until_a_file_is_stored() {
        let archiver = Archiver::new(
            r#"read -r line; failed "$(name "$line")"; while read -r line; do archived "$(name "$line")"; done"#,
        );
        assert!(!archive_module::archive(SEGMENT));
        let failure = last_failure::read().expect("a file that says why");
        assert_eq!((failure.file.as_str(), failure.error.kind), (SEGMENT, ErrorKind::DiskFull));
        assert!(failure.at.starts_with("20") && failure.at.ends_with('Z'), "{}", failure.at);
        assert!(archive_module::archive(SEGMENT));
        assert_eq!(last_failure::read(), None);
        assert_eq!(archiver.starts(), 1, "the engine is kept");
    }

    #[pg_test]
    fn answers_for_other_files_are_none() {
        let other =
            r#"read -r line; archived 000000010000000000000002; failed "$(name "$line")"; read -r end"#;
        let _archiver = Archiver::new(other);
        assert!(!archive_module::archive(SEGMENT));
    }

    #[pg_test]
    fn an_engine_that_dies_is_started_again_at_once_and_then_less_often() {
        let archiver = Archiver::new("read -r line; kill -9 $$");
        assert!(!archive_module::archive(SEGMENT));
        assert_eq!(archiver.starts(), 2);
        assert!(!archive_module::archive(SEGMENT), "too early");
        assert_eq!(archiver.starts(), 2);
        assert_eq!(last_failure::read().map(|failure| failure.error.kind), Some(ErrorKind::EngineDied));
    }

    #[pg_test]
    fn one_death_is_not_a_failure() {
        let archiver = Archiver::new(
            r#"read -r line; [ $(wc -l < "$0.starts") = 1 ] && kill -9 $$; archived "$(name "$line")"; read -r end"#,
        );
        assert!(archive_module::archive(SEGMENT));
        assert_eq!(archiver.starts(), 2);
    }

    #[pg_test]
    fn an_engine_that_cannot_work_says_why() {
        let archiver = Archiver::new(
            r#"echo '{"failed":{"error":{"kind":"repository_not_found","message":"no repository"}}}'"#,
        );
        assert!(!archive_module::archive(SEGMENT));
        assert_eq!(archiver.starts(), 1);
        let failure = last_failure::read().expect("a file that says why");
        assert_eq!(failure.error.message, "no repository");
    }

    #[pg_test]
    fn nothing_that_an_engine_says_raises() {
        for script in ["echo nonsense", r#"echo '{"done":{"answer":"abandoned"}}'"#, "exit 3", "exec sleep 0"]
        {
            let _archiver = Archiver::new(script);
            assert!(!archive_module::archive(SEGMENT), "{script}");
        }
    }

    #[pg_test]
    fn changed_settings_start_another_engine() {
        let archiver = Archiver::new(r#"while read -r line; do archived "$(name "$line")"; done"#);
        assert!(archive_module::archive(SEGMENT));
        for change in ["pg_ark.jobs = 3", "pg_ark.compression = 'lz4'"] {
            Spi::run(&format!("SET LOCAL {change}")).expect("a setting");
            assert!(archive_module::archive(SEGMENT), "{change}");
        }
        assert_eq!(archiver.starts(), 3);
        guc::apply_here(c"pg_ark.repository", "file:///elsewhere");
        assert!(archive_module::archive(SEGMENT));
        assert_eq!(archiver.starts(), 4);
    }

    #[pg_test]
    fn a_program_that_is_gone_is_missed_when_it_is_needed() {
        let archiver = Archiver::new(r#"while read -r line; do archived "$(name "$line")"; done"#);
        assert_eq!(archive_module::missing(), None);
        assert!(archive_module::archive(SEGMENT));
        std::fs::remove_file(&archiver.0.0).expect("the program");
        assert_eq!(archive_module::missing(), None, "one is running");
        assert!(archive_module::archive(SEGMENT));
        archive_module::close();
        assert_eq!(archive_module::missing().map(|error| error.kind), Some(ErrorKind::EngineMissing));
        assert!(!archive_module::archive(SEGMENT));
        guc::apply_here(c"pg_ark.repository", "");
        assert_eq!(archive_module::missing().map(|error| error.kind), Some(ErrorKind::RepositoryUnset));
    }

    #[pg_test]
    fn status_does_not_wait_for_ever() {
        let _archiver = Archiver::new("exec sleep 60");
        let asked = Instant::now();
        let health = Spi::get_one::<String>("SELECT health FROM ark.status").expect("a row").expect("a text");
        assert!(health.contains("too long"), "{health}");
        assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    }
}
