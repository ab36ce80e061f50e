use super::*;
use proptest::prelude::*;

const FULL: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
CHECKPOINT LOCATION: 0/3000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 13:20:00 UTC
LABEL: nightly: \"a\"
START TIMELINE: 1
";

#[track_caller]
fn refused(text: &str, part: &str) {
    let error = BackupLabel::parse(text.as_bytes()).unwrap_err();
    assert!(error.kind == ErrorKind::Corrupt && error.message.contains(part), "{error}");
}

#[test]
fn every_field_is_read() {
    let expected = BackupLabel {
        start_lsn: Lsn(0x0300_0028),
        start_file: "000000010000000000000003".into(),
        checkpoint: Lsn(0x0300_0060),
        method: Some("streamed".into()),
        from: Some(BackupFrom::Primary),
        start_time: Some("2026-11-22 13:20:00 UTC".into()),
        label: Some("nightly: \"a\"".into()),
        start_timeline: Some(Timeline(1)),
        incremental_from: None,
        stop_lsn: None,
        stop_timeline: None,
    };
    assert_eq!(BackupLabel::parse(FULL.as_bytes()).unwrap(), expected);
    let incremental = format!("{FULL}INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n");
    let label = BackupLabel::parse(incremental.as_bytes()).unwrap();
    assert_eq!(label.incremental_from, Some((Lsn(0x0200_0028), Timeline(1))));
}

#[test]
fn a_backup_history_file_has_the_end_too() {
    let text = FULL
        .replace("CHECKPOINT", "STOP WAL LOCATION: 0/3000100 (file 000000010000000000000003)\nCHECKPOINT")
        + "STOP TIME: 2026-11-22 13:20:03 UTC\nSTOP TIMELINE: 1\n";
    let label = BackupLabel::parse(text.as_bytes()).unwrap();
    assert_eq!((label.stop_lsn, label.stop_timeline), (Some(Lsn(0x0300_0100)), Some(Timeline(1))));
}

#[test]
fn what_postgres_does_not_require_may_be_missing() {
    let text: String = FULL.lines().take(2).map(|line| format!("{line}\n")).collect();
    let label = BackupLabel::parse(text.as_bytes()).unwrap();
    assert_eq!((label.from, label.label, label.start_timeline), (None, None, None));
    let standby = FULL.replace("primary", "standby").replace("LABEL: nightly: \"a\"", "LABEL: ");
    let label = BackupLabel::parse(standby.as_bytes()).unwrap();
    assert_eq!((label.from, label.label.as_deref()), (Some(BackupFrom::Standby), Some("")));
    let latin1 = [FULL.as_bytes(), b"MORE: \xFC\n"].concat();
    assert!(BackupLabel::parse(&latin1).is_ok());
}

#[test]
fn malformed_labels_are_refused() {
    refused("", "first line");
    refused("\nSTART WAL LOCATION: 0/1 (file 000000010000000000000003)\n", "first line");
    refused(&FULL.replace("0/3000028 (", "0/3000028("), "START WAL LOCATION is");
    refused(&FULL.replace("0/3000028", "3000028"), "START WAL LOCATION is");
    refused(&FULL.replace("000003)", "00003)"), "START WAL LOCATION is");
    refused(&FULL.replace("CHECKPOINT", "CHECKPOINTS"), "CHECKPOINT LOCATION is missing");
    refused(&FULL.replace("primary", "nobody"), "BACKUP FROM is \"nobody\"");
    refused(&FULL.replace("TIMELINE: 1", "TIMELINE: 0"), "START TIMELINE is \"0\"");
    refused(&FULL.replace("TIMELINE: 1", "TIMELINE: +1"), "START TIMELINE is \"+1\"");
    refused(&FULL.replace("TIMELINE: 1", "TIMELINE: 2"), "began on timeline 2, but in WAL segment 00000001");
    refused(&format!("{FULL}START TIMELINE: 1\n"), "there twice");
    refused(&format!("{FULL}INCREMENTAL FROM TLI: 1\n"), "only one is there");
}

#[test]
fn the_map_is_escaped_as_postgres_does() {
    let entries = [
        TablespaceEntry { oid: 16400, path: "/srv/a b".into() },
        TablespaceEntry { oid: 16401, path: "/srv/back\\slash\nline\r".into() },
        TablespaceEntry { oid: 16402, path: "relative/é".into() },
    ];
    let text = format_tablespace_map(&entries);
    assert_eq!(text, "16400 /srv/a b\n16401 /srv/back\\\\slash\\\nline\\\r\n16402 relative/é\n");
    assert_eq!(parse_tablespace_map(text.as_bytes()).unwrap(), entries);
    assert_eq!(parse_tablespace_map(b"\r\n16400 /a\r\n\n").unwrap().len(), 1);
    assert_eq!(parse_tablespace_map(b"").unwrap(), []);
}

#[test]
fn malformed_maps_are_refused() {
    for bytes in [
        &b"16400 /a"[..],
        b"16400 /a\\\n",
        b"16400\n",
        b"16400 \n",
        b" /a\n",
        b"x /a\n",
        b"0 /a\n",
        b"+1 /a\n",
        b"4294967296 /a\n",
        b"16400 /a\0b\n",
        b"16400 /a\n16400 /b\n",
    ] {
        let error = parse_tablespace_map(bytes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{bytes:?}: {error}");
    }
    assert_eq!(parse_tablespace_map(b"16400 /\xFF\n").unwrap_err().kind, ErrorKind::Unsupported);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200, new: u8) {
        let _ = (BackupLabel::parse(&bytes), parse_tablespace_map(&bytes));
        let mut label = FULL.as_bytes().to_vec();
        label[at] = new;
        let _ = BackupLabel::parse(&label);
    }

    #[test]
    fn what_is_written_is_read(paths in proptest::collection::vec("/([a-z \\\\\n\r]|\\PC){0,20}", 0..5)) {
        let entries: Vec<TablespaceEntry> = paths
            .into_iter()
            .zip(16400..)
            .map(|(path, oid)| TablespaceEntry { oid, path })
            .collect();
        prop_assert_eq!(parse_tablespace_map(format_tablespace_map(&entries).as_bytes()).unwrap(), entries);
    }
}
