use super::super::access::Owner;
use super::super::request::ConfigChoice;
use super::super::watch::Silent;
use super::*;
use crate::restore::config::ConfigFile;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// As root, everything for nobody; otherwise for whoever runs the test.
fn access() -> Access {
    let root = rustix::process::geteuid().is_root();
    let owner = root.then_some(Owner { uid: 65534, gid: 65534, user: None });
    Access { owner, group_access: false }
}

fn member(path: PathBuf, mode: u32, content: &str) -> ConfigMember {
    ConfigMember { path, mode, content: Some(content.as_bytes().to_vec()) }
}

fn put_back(members: &[ConfigMember], watch: &dyn Watch) -> Result<()> {
    let file =
        |m: &ConfigMember| ConfigFile { from: m.path.clone(), to: m.path.clone(), action: Action::Write };
    let files = members.iter().map(file).collect();
    let plan = ConfigPlan { choice: ConfigChoice::Original, files, main: None };
    apply(&plan, members, Path::new("/data"), &access(), watch, "/data")
}

#[test]
fn promise_7_nothing_that_comes_back_is_roots_or_can_be_executed() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().canonicalize().unwrap().join("etc");
    let modes = [(0o755, 0o644), (0o777, 0o644), (0o640, 0o640), (0o600, 0o600), (0o4755, 0o644), (0, 0o600)];
    let path = |mode: u32| etc.join(format!("15/main/{mode:o}.conf"));
    let members: Vec<ConfigMember> =
        modes.iter().map(|(mode, _)| member(path(*mode), *mode, "x = 1\n")).collect();
    put_back(&members, &Silent).unwrap();
    let owner = access().owner.map_or(rustix::process::geteuid().as_raw(), |owner| owner.uid);
    for (mode, expected) in modes {
        let meta = path(mode).metadata().unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (expected, owner), "{mode:o}");
    }
    for folder in [etc.clone(), etc.join("15"), etc.join("15/main")] {
        let meta = folder.metadata().unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (0o755, owner), "{folder:?}");
    }
    put_back(&members, &Silent).unwrap_err();
}

#[test]
fn promise_7_root_follows_no_link_out_of_place() {
    if access().owner.is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(dir.join("etc")).unwrap();
    std::fs::create_dir(dir.join("cron.d")).unwrap();
    symlink(dir.join("cron.d"), dir.join("etc/15")).unwrap();
    symlink(dir.join("cron.d/made"), dir.join("etc/dangling.conf")).unwrap();
    for path in ["etc/15/x", "etc/15/below/x", "etc/dangling.conf"] {
        put_back(&[member(dir.join(path), 0o644, "x")], &Silent).unwrap_err();
    }
    assert_eq!(std::fs::read_dir(dir.join("cron.d")).unwrap().count(), 0);
}

#[test]
fn included_folders_are_made_only_beside_what_the_plan_showed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let text = format!(
        "include_dir 'conf.d'\ninclude_dir '../../elsewhere'\ninclude_dir = '{}/far.service.d'\n",
        dir.display()
    );
    let heard = crate::restore::tests::Listener::default();
    put_back(&[member(dir.join("etc/main/postgresql.conf"), 0o644, &text)], &heard).unwrap();
    assert!(dir.join("etc/main/conf.d").is_dir());
    assert!(!dir.join("elsewhere").exists() && !dir.join("far.service.d").exists());
    let warnings = heard.0.into_inner().unwrap();
    assert_eq!(warnings.iter().filter(|w| w.contains("which is not there")).count(), 2, "{warnings:?}");
}
