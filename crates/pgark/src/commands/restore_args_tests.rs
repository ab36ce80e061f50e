//! Tests of which options fit which backup.

use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;

fn wish(line: &str) -> Result<Wish> {
    let words = ["pgark", "restore"].into_iter().chain(line.split_whitespace());
    match Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}")).command {
        Command::Restore(arguments) => arguments.wish(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mappings() {
    assert_eq!(parse_mapping("/a=/b").unwrap(), ("/a".to_string(), PathBuf::from("/b")));
    assert_eq!(parse_mapping("/a\\=b=/c\\=d").unwrap(), ("/a=b".to_string(), PathBuf::from("/c=d")));
    for bad in ["", "/a", "=/b", "/a="] {
        assert!(parse_mapping(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_name_and_the_destination_decide_the_kind() {
    let Wish::Physical(request) = wish("--pgdata /d").unwrap() else { panic!() };
    assert_eq!((&request.backup[..], request.action), ("latest", TargetAction::Promote));
    let Wish::Fresh(request) = wish("20261122T020000Z-logical --pgdata /d -d a --database b").unwrap() else {
        panic!()
    };
    assert_eq!(
        (&request.backup[..], &request.databases[..]),
        ("20261122T020000Z-logical", &["a".to_string(), "b".into()][..])
    );
    let Wish::Fresh(request) = wish("latest-logical --pgdata /d --start --port 5433 -T /a=/b").unwrap()
    else {
        panic!()
    };
    assert!(request.start && request.port == Some(5433) && request.tablespaces.len() == 1);
    let Wish::Into(request) = wish("--into dbname=x -d a -t s.t --as u --clean").unwrap() else { panic!() };
    assert_eq!((&request.backup[..], request.database.as_deref()), (LATEST, Some("a")));
    assert!(request.clean && request.rename.as_deref() == Some("u") && request.tables == ["s.t"]);
}

#[test]
fn there_is_one_destination() {
    for line in ["", "latest", "--pgdata /d --into x", "--dry-run"] {
        let words = ["pgark", "restore"].into_iter().chain(line.split_whitespace());
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn options_of_another_kind_are_refused_and_named() {
    let refused = |line: &str, named: &str| {
        let error = wish(line).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{line}");
        assert!(error.message.contains(named), "{line}: {error}");
        assert!(error.hint.is_some(), "{line}");
    };
    for option in ["--database a", "--schema a", "--table a", "--as a", "--clean"] {
        let name = option.split(' ').next().unwrap();
        refused(&format!("--pgdata /d {option}"), name);
        refused(&format!("20261122T020000Z-full --pgdata /d {option}"), name);
        match name {
            "--database" => drop(wish(&format!("latest-logical --pgdata /d {option}")).unwrap()),
            _ => refused(&format!("latest-logical --pgdata /d {option}"), name),
        }
    }
    let of_wal = [
        "--waldir /w",
        "--replace",
        "--keep-wal /w",
        "--target latest",
        "--target-time 2026-11-22T13:30:00Z",
        "--target-lsn 0/1",
        "--target-xid 1000",
        "--target-name x",
        "--target-lsn 0/1 --exclusive",
        "--standby",
        "--target-timeline latest",
        "--target-action promote",
    ];
    for option in of_wal {
        let name = option.split(' ').find(|word| word.starts_with("--")).unwrap();
        refused(&format!("latest-logical --pgdata /d {option}"), name);
        refused(&format!("--into x {option}"), name);
        wish(&format!("--pgdata /d {option}")).unwrap();
    }
    refused("latest-logical --pgdata /d --start --analyze", "--analyze");
    for option in ["--tablespace /a=/b", "--config skip", "--start", "--archive-mode off", "--port 1"] {
        refused(&format!("--into x {option}"), option.split(' ').next().unwrap());
        wish(&format!("latest-logical --pgdata /d {option}")).unwrap();
    }
    refused("latest --into x", "\"latest\"");
    refused("20261122T020000Z-full --into x", "physical");
    refused("--into x -d a -d b", "one --database");
}
