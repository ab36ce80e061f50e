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
fn a_copy_does_not_archive_or_take_backups_even_when_recovery_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let copy = RecoveryPlan { archive_mode: ArchiveMode::Off, ..plan(Target::Latest) };
    written(dir.path(), &copy);
    assert_eq!(written(dir.path(), &copy).matches("archive_mode = off").count(), 1);
    clean_up(dir.path(), &ACCESS).unwrap();
    let text = || std::fs::read_to_string(dir.path().join(AUTO_CONF)).unwrap();
    assert_eq!(
        text(),
        "# pg_ark copy: begin\narchive_mode = off\npg_ark.repository = ''\n# pg_ark copy: end\n"
    );
    written(dir.path(), &RecoveryPlan { port: Some(5499), ..copy });
    clean_up(dir.path(), &ACCESS).unwrap();
    let own = "archive_mode = off\npg_ark.repository = ''\nport = 5499\n";
    assert_eq!(text(), format!("# pg_ark copy: begin\n{own}# pg_ark copy: end\n"));
    written(
        dir.path(),
        &RecoveryPlan { standby: true, archive_mode: ArchiveMode::Off, ..plan(Target::Latest) },
    );
    clean_up(dir.path(), &ACCESS).unwrap();
    assert_eq!(text(), "# pg_ark copy: begin\narchive_mode = off\n# pg_ark copy: end\n");
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

/// What the server makes of a quoted value in its configuration (`DeescapeQuotedString` in utils/misc/guc-file.l).
fn deescaped(quoted: &str) -> String {
    let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap();
    let mut text = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '\'' => assert_eq!(rest.next(), Some('\''), "a quote that ends the value: {quoted}"),
            '\\' => match rest.next().unwrap() {
                escape if "bfnrt01234567".contains(escape) => panic!("\\{escape} is another sign: {quoted}"),
                plain => {
                    text.push(plain);
                    continue;
                }
            },
            _ => {}
        }
        text.push(c);
    }
    text
}

/// What it gives to the shell (`BuildRestoreCommand` in common/archive.c and `replace_percent_placeholders` in
/// common/percentrepl.c, which refuses unknown signs).
fn replaced(command: &str, file: &str, path: &str) -> String {
    let mut text = String::new();
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '%' { rest.next() } else { None }) {
            ('%', Some('f')) => text.push_str(file),
            ('%', Some('p')) => text.push_str(path),
            ('%', Some('%')) => text.push('%'),
            ('%', other) => panic!("%{other:?}: {command}"),
            _ => text.push(c),
        }
    }
    text
}

/// What arrives at a program behind the server's configuration and the shell.
fn arrives(program: &Path, cluster: &crate::repository::Cluster) -> Vec<String> {
    let setting = for_setting(&command(program, cluster, 7).unwrap());
    assert!(!setting.contains('\n'), "{setting}");
    let line = replaced(&deescaped(&setting), "000000010000000000000001", "pg_wal/RECOVERYXLOG");
    let output = std::process::Command::new("/bin/sh").arg("-c").arg(&line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_string).collect()
}

/// A program that tells its arguments, in a folder of this name.
fn telling(dir: &Path, name: &str) -> PathBuf {
    let folder = dir.join(format!("bin {name}"));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join(format!("pgark {name}"));
    std::fs::write(&program, "#!/bin/sh\nprintf '%s\\0' \"$@\"\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    program
}

fn assert_arrives(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let program = telling(dir.path(), name);
    let in_url = |c: char| match c {
        '%' | '#' | '?' | '\\' => format!("%{:02X}", u32::from(c)),
        _ => c.to_string(),
    };
    let place: String = name.chars().map(in_url).collect();
    let url = format!("file://{}/r {place}.", dir.path().display());
    let (repository, _) = Repository::open_or_create(&url).unwrap();
    let cluster = repository.cluster("a b").unwrap();
    let expected = [
        "--repo",
        cluster.storage().url(),
        "--cluster",
        "a b",
        "--system-identifier",
        "7",
        "wal-get",
        "000000010000000000000001",
        "pg_wal/RECOVERYXLOG",
    ];
    assert_eq!(arrives(&program, &cluster), expected, "{name}");
}

#[test]
fn odd_names_arrive_as_they_are() {
    let odd = [
        "it's",
        "%f%p%r%%%",
        "$(exit 1)`exit 1`",
        "\\n\\",
        "\"",
        "a;exit 1",
        "é 日",
        "~ * ? [x] {a,b} ! #",
        "-x",
    ];
    odd.iter().for_each(|name| assert_arrives(name));
}

#[test]
fn names_that_no_setting_can_hold_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/r", dir.path().display());
    let cluster = Repository::open_or_create(&url).unwrap().0.cluster("main").unwrap();
    let bytes = |bytes: &'static [u8]| Path::new(std::ffi::OsStr::from_bytes(bytes));
    for program in [bytes(b"/opt/a\nb/pgark"), bytes(b"/opt/a\rb/pgark"), bytes(b"/opt/\xE9/pgark")] {
        let error = command(program, &cluster, 7).unwrap_err();
        assert!(error.kind == ErrorKind::InvalidArgument && error.hint.is_some(), "{program:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]
    #[test]
    fn every_name_arrives_as_it_is(name in "[ -.0-~äé日]{1,12}") {
        assert_arrives(&name);
    }
}

#[test]
fn a_block_without_end_is_left_alone() {
    let text = format!("a\n{BLOCK_BEGIN}\nb\n");
    assert_eq!(without_block(text.as_bytes(), BLOCK_BEGIN, BLOCK_END), None);
}
