use super::super::course::Point;
use super::*;
use crate::repository::Repository;
use pg_ark_contract::{Lsn, Timeline};
use std::os::unix::fs::PermissionsExt;

const ACCESS: Access = Access { owner: None, group_access: false };

pub fn plan(target: Target) -> RecoveryPlan {
    RecoveryPlan {
        target,
        given: None,
        exclusive: false,
        action: TargetAction::Promote,
        standby: false,
        timeline: Timeline(3),
        timelines: "1,3".into(),
        wal_included: false,
        first_segment: None,
        last_segment: None,
        segments: 0,
        stop: None,
        end: Point { lsn: Lsn(0), time: None },
        restore_command: NO_ARCHIVE.into(),
        program: None,
        analyze: false,
        archive_mode: ArchiveMode::Keep,
        port: None,
        wal_keep_size: None,
    }
}

fn written(data: &Path, plan: &RecoveryPlan) -> String {
    prepare(data, plan, &ACCESS).unwrap();
    std::fs::read_to_string(data.join(AUTO_CONF)).unwrap()
}

#[test]
fn the_block_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(AUTO_CONF);
    std::fs::write(&path, "work_mem = '8MB'").unwrap();
    std::fs::write(dir.path().join(STANDBY_SIGNAL), "").unwrap();
    assert!(prepare(dir.path(), &plan(Target::Latest), &ACCESS).unwrap());
    assert!(!prepare(dir.path(), &plan(Target::Latest), &ACCESS).unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("restore_command = 'false'").count(), 1, "{text}");
    assert!(text.contains("recovery_target_timeline = '3'"), "{text}");
    assert!(dir.path().join(SIGNAL).exists() && !dir.path().join(STANDBY_SIGNAL).exists());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text.contains("allow_in_place_tablespaces"), "{text}");
    std::fs::create_dir_all(dir.path().join("pg_tblspc/16384")).unwrap();
    assert!(written(dir.path(), &plan(Target::Latest)).contains("allow_in_place_tablespaces = on"));
    clean_up(dir.path(), &ACCESS).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "work_mem = '8MB'\n");
    clean_up(dir.path(), &ACCESS).unwrap();
}

#[test]
fn a_target_clears_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let time = super::super::target::parse_time("2026-11-22 14:30:00.5+01").unwrap();
    for (target, line) in [
        (Target::Immediate, "recovery_target = 'immediate'"),
        (Target::Time(time), "recovery_target_time = '2026-11-22 13:30:00.500000+00'"),
        (Target::Lsn(Lsn(0x1_0000_0028)), "recovery_target_lsn = '1/28'"),
        (Target::Xid(4711), "recovery_target_xid = '4711'"),
        (Target::Name("it's \\ 1".into()), "recovery_target_name = 'it''s \\\\ 1'"),
    ] {
        let text = written(dir.path(), &plan(target));
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
        assert_eq!(
            text.lines().filter(|l| l.starts_with("recovery_target") && l.ends_with("= ''")).count(),
            4
        );
        let at = |line: &str| text.lines().position(|found| found == line).unwrap();
        let empty = text.lines().filter(|line| line.starts_with("recovery_target") && line.ends_with("= ''"));
        assert!(empty.into_iter().all(|empty| at(empty) < at(line)), "{text}");
        assert!(text.contains("recovery_target_inclusive = 'on'\nrecovery_target_action = 'promote'\n"));
        // It would pause for ever where max_connections was raised behind the backup.
        assert!(text.contains("hot_standby = off\n"), "{text}");
    }
    let stopping = RecoveryPlan { exclusive: true, action: TargetAction::Pause, ..plan(Target::Xid(5)) };
    let text = written(dir.path(), &stopping);
    assert!(text.contains("recovery_target_inclusive = 'off'\nrecovery_target_action = 'pause'\n"), "{text}");
    assert!(text.contains("hot_standby = on\n") && !text.contains("hot_standby = off"));
}

#[test]
fn a_standby_follows_every_timeline() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(SIGNAL), "").unwrap();
    let text = written(dir.path(), &RecoveryPlan { standby: true, ..plan(Target::Latest) });
    assert!(text.contains("recovery_target_timeline = 'latest'") && !text.contains("apply_delay"), "{text}");
    assert!(!text.contains("hot_standby"), "{text}");
    assert!(dir.path().join(STANDBY_SIGNAL).exists() && !dir.path().join(SIGNAL).exists());
}

#[test]
fn a_copy_does_not_archive_even_when_recovery_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let copy = RecoveryPlan { archive_mode: ArchiveMode::Off, ..plan(Target::Latest) };
    written(dir.path(), &copy);
    assert_eq!(written(dir.path(), &copy).matches("archive_mode = off").count(), 1);
    clean_up(dir.path(), &ACCESS).unwrap();
    let text = || std::fs::read_to_string(dir.path().join(AUTO_CONF)).unwrap();
    assert_eq!(text(), "# pg_ark copy: begin\narchive_mode = off\n# pg_ark copy: end\n");
    written(dir.path(), &RecoveryPlan { port: Some(5499), ..copy });
    clean_up(dir.path(), &ACCESS).unwrap();
    assert_eq!(text(), "# pg_ark copy: begin\narchive_mode = off\nport = 5499\n# pg_ark copy: end\n");
}

#[test]
fn the_command_survives_the_shell_and_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/it's%2050%25", dir.path().display());
    let (repository, _) = Repository::open_or_create(&url).unwrap();
    let cluster = repository.cluster("main").unwrap();
    let command = command(Path::new("/opt/pg ark/pgark"), &cluster, 7).unwrap();
    assert!(command.starts_with("'/opt/pg ark/pgark' --repo "), "{command}");
    assert!(command.ends_with(" --cluster main --system-identifier 7 wal-get \"%f\" \"%p\""), "{command}");
    let quoted = format!("it'\\''s{}", "%2050%25".replace('%', "%%"));
    assert!(command.contains(&quoted), "{command}");
    assert!(for_setting(&command).contains("it''\\\\''''s"), "{}", for_setting(&command));
}

#[test]
fn a_block_without_end_is_left_alone() {
    let text = format!("a\n{BLOCK_BEGIN}\nb\n");
    assert_eq!(without_block(text.as_bytes(), BLOCK_BEGIN, BLOCK_END), None);
}
