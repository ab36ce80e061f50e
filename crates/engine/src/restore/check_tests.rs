use super::*;
use crate::restore::facts::resolve;
use crate::restore::fixture::{Fixture, Recipe};
use crate::restore::prepare;

fn request(fixture: &Fixture) -> Request {
    Request {
        backup: "latest".into(),
        pgdata: fixture.path("data"),
        tablespaces: vec![("/old/fast".into(), fixture.path("fast"))],
        ..Default::default()
    }
}

/// The kind of refusal after `change`, and that nothing was created.
fn refused(change: impl FnOnce(&Fixture, &mut Request)) -> ErrorKind {
    let fixture = Fixture::new(&Recipe::default());
    let mut request = request(&fixture);
    change(&fixture, &mut request);
    let error = prepare(&fixture.cluster, &request).unwrap_err();
    assert!(error.hint.is_some(), "{error}");
    error.kind
}

#[test]
fn a_good_request_is_planned() {
    let fixture = Fixture::new(&Recipe::default());
    let plan = prepare(&fixture.cluster, &request(&fixture)).unwrap().plan;
    assert_eq!(plan.tablespaces[0].to, fixture.path("fast"));
    assert_eq!(plan.filesystems.len(), 1);
    assert!(plan.filesystems[0].needed_bytes > plan.write_bytes);
    assert!(!fixture.path("data").exists());
}

#[test]
fn tablespace_mappings_are_checked() {
    use ErrorKind::InvalidArgument;
    assert_eq!(refused(|f, r| r.tablespaces.push(("/unknown".into(), f.path("x")))), InvalidArgument);
    assert_eq!(refused(|f, r| r.tablespaces.push(("/old/fast/".into(), f.path("x")))), InvalidArgument);
    assert_eq!(refused(|_, r| r.tablespaces[0].1 = "relative".into()), InvalidArgument);
    assert_eq!(refused(|f, r| r.tablespaces[0].1 = f.path("data/inside")), InvalidArgument);
    assert_eq!(refused(|f, r| r.tablespaces[0].1 = f.path("repository/inside")), InvalidArgument);
    let fixture = Fixture::new(&Recipe::default());
    let request = Request { tablespaces: vec![("/unknown".into(), "/x".into())], ..request(&fixture) };
    let error = prepare(&fixture.cluster, &request).unwrap_err();
    assert_eq!(error.hint.unwrap(), "It has \"/old/fast\".");
}

#[test]
fn targets_are_checked() {
    use ErrorKind::{InvalidArgument, TargetNotEmpty};
    let fill = |path: &Path| {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("x"), "x").unwrap();
    };
    assert_eq!(refused(|f, _| fill(&f.path("data"))), TargetNotEmpty);
    assert_eq!(refused(|f, _| fill(&f.path("fast"))), TargetNotEmpty);
    assert_eq!(
        refused(|f, r| {
            fill(&f.path("wal"));
            r.waldir = Some(f.path("wal"));
        }),
        TargetNotEmpty
    );
    assert_eq!(refused(|f, _| std::fs::write(f.path("data"), "x").unwrap()), TargetNotEmpty);
    assert_eq!(refused(|_, r| r.waldir = Some("relative".into())), InvalidArgument);
    assert_eq!(refused(|f, r| r.waldir = Some(f.path("data/pg_wal"))), InvalidArgument);
    assert_eq!(refused(|f, r| r.waldir = Some(f.path("fast"))), InvalidArgument);
    assert_eq!(refused(|f, r| r.pgdata = f.path("repository/x")), InvalidArgument);
    assert_eq!(refused(|f, r| r.pgdata = f.dir.path().to_path_buf()), InvalidArgument);
    assert_eq!(refused(|f, r| r.pgdata = f.path("absent/../../x")), InvalidArgument);
    assert_eq!(
        refused(|f, _| std::os::unix::fs::symlink(f.path("nowhere"), f.path("data")).unwrap()),
        InvalidArgument
    );
}

#[test]
fn names_that_no_server_works_with_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let odd = |bytes: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
    let said = |change: &dyn Fn(&Fixture, &mut Request)| {
        let fixture = Fixture::new(&Recipe::default());
        let mut request = request(&fixture);
        change(&fixture, &mut request);
        let error = prepare(&fixture.cluster, &request).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
        error.message
    };
    assert!(said(&|f, r| r.pgdata = f.path("a\nb")).contains("/a\\nb\" has a line feed"));
    let through_a_link = said(&|f, r| {
        std::fs::create_dir(f.path("a\nb")).unwrap();
        std::os::unix::fs::symlink(f.path("a\nb"), f.path("plain")).unwrap();
        r.pgdata = f.path("plain/data");
    });
    assert!(through_a_link.contains("/a\\nb/data\" has a line feed"), "{through_a_link}");
    assert!(
        said(&|f, r| r.pgdata = f.dir.path().join(odd(b"\xff")))
            .contains("/\\xff\" has a name that is not UTF-8")
    );
    assert!(said(&|f, r| r.tablespaces[0].1 = f.dir.path().join(odd(b"\xff"))).contains("not UTF-8"));
    assert!(said(&|f, r| r.waldir = Some(f.dir.path().join(odd(b"\xfe")))).contains("not UTF-8"));
}

#[test]
fn a_restore_that_runs_is_not_told_as_one_that_did_not_finish() {
    use crate::restore::hold;
    for replace in [false, true] {
        let fixture = Fixture::new(&Recipe::default());
        let request = Request { replace, ..request(&fixture) };
        let data = fixture.path("data");
        let access = crate::restore::access::Access { owner: None, group_access: false };
        let held = hold::take(&data, false, &access).unwrap();
        let mut marker = crate::restore::marker::Marker::new("b", "", vec![data.clone()]);
        marker.system_identifier = Some(fixture.record.system_identifier.clone());
        std::fs::write(data.join(MARKER), marker.json().unwrap()).unwrap();
        let error = prepare(&fixture.cluster, &request).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Busy, "replace: {replace}: {error}");
        drop(held);
        match replace {
            true => drop(prepare(&fixture.cluster, &request).unwrap()),
            false => {
                let error = prepare(&fixture.cluster, &request).unwrap_err();
                assert_eq!(error.kind, ErrorKind::TargetNotEmpty, "{error}");
                assert!(error.hint.unwrap().contains("did not finish"));
            }
        }
    }
}

#[test]
fn a_running_server_is_refused() {
    let facts = |server| {
        let fixture = Fixture::new(&Recipe::default());
        let request = request(&fixture);
        let mut facts =
            Facts::collect(&request, &[], &[], fixture.cluster.storage().folder(), Path::new("/old"))
                .unwrap();
        facts.server = server;
        targets(&request, &facts)
    };
    facts(None).unwrap();
    assert_eq!(facts(Some(1)).unwrap_err().kind, ErrorKind::ServerRunning);
}

#[test]
fn space_is_summed_for_each_file_system() {
    let fixture = Fixture::new(&Recipe::default());
    let mut first = Folder::look(&fixture.path("a")).unwrap();
    let second = Folder::look(&fixture.path("b")).unwrap();
    first.free = 1000;
    let both = filesystems(&[(&first, 600), (&second, 300)]);
    assert_eq!((both.len(), both[0].needed_bytes), (1, 945));
    space(&both).unwrap();
    let error = space(&filesystems(&[(&first, 600), (&second, 400)])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotEnoughSpace);
    assert_eq!(error.detail.unwrap(), "1050 bytes needed, 1000 bytes free.");
    first.device += 1;
    assert_eq!(filesystems(&[(&first, u64::MAX), (&second, 1)]).len(), 2);
    assert!(resolve(Path::new("/a/./b")).unwrap().ends_with("a/b"));
}
