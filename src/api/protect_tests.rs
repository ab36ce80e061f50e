use super::*;

fn known(changes: &[(&str, &str)]) -> BTreeMap<String, Known> {
    let mut known: BTreeMap<String, Known> = [
        ("shared_preload_libraries", ""),
        ("wal_level", "replica"),
        ("archive_mode", "off"),
        ("archive_library", ""),
        ("archive_command", ""),
        ("pg_ark.retention_window", "7d"),
    ]
    .map(|(name, value)| {
        (name.into(), Known { now: value.into(), later: value.into(), fixed: false, chosen: false })
    })
    .into();
    for (name, value) in changes {
        let one = known.get_mut(*name).unwrap();
        (one.later, one.chosen) = ((*value).into(), true);
    }
    known
}

fn step(known: &BTreeMap<String, Known>, name: &str) -> Step {
    plan(known).into_iter().find(|(found, _)| *found == name).unwrap().1
}

fn set(values: &[&str]) -> Step {
    Step::Set(values.iter().map(|value| value.to_string()).collect())
}

#[test]
fn a_fresh_server_gets_everything() {
    let steps = plan(&known(&[]));
    let expected = [
        ("shared_preload_libraries", set(&["pg_ark"])),
        ("wal_level", Step::Keep),
        ("archive_library", set(&["pg_ark"])),
        ("archive_mode", set(&["on"])),
        ("pg_ark.retention_window", set(&["7d"])),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn what_was_set_is_kept() {
    let done = known(&[
        ("shared_preload_libraries", "pg_stat_statements, pg_ark"),
        ("archive_mode", "always"),
        ("archive_library", "pg_ark"),
        ("pg_ark.retention_window", "30d"),
    ]);
    assert!(plan(&done).iter().all(|(_, step)| *step == Step::Keep), "{:?}", plan(&done));
    let by_command =
        known(&[("archive_mode", "on"), ("archive_command", "pgark --repo file:///b wal-push %p")]);
    assert_eq!(step(&by_command, "archive_library"), Step::Keep);
}

#[test]
fn libraries_are_appended_and_never_lost() {
    for (list, expected) in [
        ("a", vec!["a", "pg_ark"]),
        ("a, b", vec!["a", "b", "pg_ark"]),
        (" a ,b ", vec!["a", "b", "pg_ark"]),
        ("\"a, b\", c", vec!["a, b", "c", "pg_ark"]),
        ("\"a\"\"b\"", vec!["a\"b", "pg_ark"]),
        ("$libdir/x", vec!["$libdir/x", "pg_ark"]),
        ("not_pg_ark", vec!["not_pg_ark", "pg_ark"]),
    ] {
        assert_eq!(
            step(&known(&[("shared_preload_libraries", list)]), "shared_preload_libraries"),
            set(&expected),
            "{list}"
        );
    }
    for ours in ["pg_ark", "a,pg_ark", "$libdir/pg_ark", "\"pg_ark\"", "pg_ark.so, b"] {
        assert_eq!(
            step(&known(&[("shared_preload_libraries", ours)]), "shared_preload_libraries"),
            Step::Keep,
            "{ours}"
        );
    }
}

#[test]
fn a_list_that_is_none_is_left_to_people() {
    for bad in ["\"a", "a,,b", ",", "a,", "\"a\" b", "\"\""] {
        let known = known(&[("shared_preload_libraries", bad)]);
        let Step::ByHand(hint) = step(&known, "shared_preload_libraries") else { panic!("{bad}") };
        assert!(hint.contains("postgresql.conf"), "{hint}");
    }
}

#[test]
fn another_archiver_is_left_alone() {
    for change in [("archive_command", "cp %p /x/%f"), ("archive_library", "basic_archive")] {
        for mode in ["off", "on"] {
            let known = known(&[change, ("archive_mode", mode)]);
            let steps = plan(&known);
            assert!(
                matches!(step(&known, "archive_library"), Step::ByHand(hint) if hint.contains("Another program"))
            );
            let mode_step = steps.iter().find(|(name, _)| *name == "archive_mode");
            match mode {
                "off" => assert!(
                    matches!(mode_step, Some((_, Step::ByHand(_)))),
                    "it would start the other program"
                ),
                _ => assert_eq!(mode_step, None),
            }
        }
    }
}

#[test]
fn what_stands_on_the_command_line_is_told() {
    for (name, value) in [
        ("shared_preload_libraries", "a"),
        ("wal_level", "minimal"),
        ("archive_mode", "off"),
        ("archive_library", ""),
        ("pg_ark.retention_window", "1d"),
    ] {
        let mut known = known(&[(name, value)]);
        known.get_mut(name).unwrap().fixed = true;
        match step(&known, name) {
            Step::ByHand(hint) => assert!(hint.contains("command line") && hint.contains(name), "{hint}"),
            Step::Keep if name == "pg_ark.retention_window" => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn wal_level_is_raised_and_never_lowered() {
    assert_eq!(step(&known(&[("wal_level", "minimal")]), "wal_level"), set(&["replica"]));
    assert_eq!(step(&known(&[("wal_level", "logical")]), "wal_level"), Step::Keep);
}

#[test]
fn words_for_off() {
    for word in ["off", "OFF", "false", "no", "0"] {
        assert!(is_off(word), "{word}");
    }
    for word in ["on", "always", "true", "1", "yes"] {
        assert!(!is_off(word), "{word}");
    }
}

#[test]
fn the_last_row_says_what_is_left() {
    let (item, status, hint) = left(&["archive_mode"], false);
    assert_eq!((item.as_str(), status.as_str()), ("restart", "to do"));
    assert!(hint.unwrap().starts_with("Restart the server: archive_mode"));
    assert!(left(&["archive_mode"], true).2.unwrap().contains("then restart"));
    assert_eq!(left(&[], false).1, "not needed");
}
