use super::super::fixture::{Fixture, Recipe};
use super::*;

fn member(path: &str) -> ConfigMember {
    ConfigMember { path: path.into(), mode: 0o755, content: Some(b"x".to_vec()) }
}

/// Where the members would go, and what would be told.
fn planned(paths: &[&str], wanted: ConfigChoice, target: Target<'_>) -> Result<(ConfigChoice, Vec<String>)> {
    let record = Fixture::new(&Recipe::default()).record;
    let members: Vec<ConfigMember> = paths.iter().map(|path| member(path)).collect();
    let places = vec![OldPlace { action: Action::Write, writable: true }; members.len()];
    let mut warnings = Vec::new();
    let plan = plan(&record, &members, &places, wanted, target, &mut warnings)?;
    Ok((plan.choice, warnings))
}

#[test]
fn promise_7_root_puts_configuration_back_only_below_etc_postgresql_unasked() {
    use ConfigChoice::{Auto, Original, Pgdata};
    let root = Target { data: Path::new("/data"), moved: false, is_root: true, owned: true };
    let debian = ["/etc/postgresql/15/main/postgresql.conf", "/etc/postgresql/15/main/pg_hba.conf"];
    assert_eq!(planned(&debian, Auto, root).unwrap(), (Original, vec![]));
    assert_eq!(planned(&[], Auto, root).unwrap(), (Original, vec![]));
    for hostile in
        ["/etc/profile.d/x.sh", "/etc/postgresql", "/etc/postgresql-common/psqlrc", "/etc/postgresqlx/y"]
    {
        let (choice, warnings) = planned(&[debian[0], hostile], Auto, root).unwrap();
        assert_eq!(choice, Pgdata, "{hostile}");
        assert!(warnings[0].contains(hostile) && warnings[0].contains("--config original"), "{warnings:?}");
        assert_eq!(planned(&[hostile], Original, root).unwrap().0, Original, "asked for");
        assert_eq!(planned(&[hostile], Auto, Target { is_root: false, ..root }).unwrap(), (Original, vec![]));
    }
    assert_eq!(planned(&debian, Auto, Target { moved: true, ..root }).unwrap().0, Pgdata);
    let nobody = Target { owned: false, ..root };
    assert_eq!(planned(&debian, Auto, nobody).unwrap().0, Pgdata);
    assert_eq!(planned(&debian, Original, nobody).unwrap_err().kind, ErrorKind::PermissionDenied);
}

#[test]
fn what_stands_at_the_old_place() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    std::fs::write(dir.join("same"), "x").unwrap();
    std::fs::write(dir.join("other"), "y").unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.join("dangling")).unwrap();
    let look = |name: &str| old_place(&member(&dir.join(name).display().to_string()), true);
    assert_eq!(look("same").action, Action::Same);
    assert_eq!(look("other").action, Action::KeepOther);
    assert_eq!(look("dangling").action, Action::KeepOther);
    assert_eq!(look("new"), OldPlace { action: Action::Write, writable: true });
    assert!(!look("dangling/new").writable, "root follows no link");
    assert_eq!(old_place(&member("/dev/zero"), true).action, Action::KeepOther, "and is not read");
}
