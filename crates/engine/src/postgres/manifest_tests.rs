use super::*;
use pg_ark_contract::errors::Result;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::io::Read;

fn read(bytes: &[u8]) -> Result<(Manifest, Vec<ManifestFile>)> {
    let mut files = Vec::new();
    let manifest = Manifest::read(bytes, |file| {
        files.push(file);
        Ok(())
    })?;
    Ok((manifest, files))
}

/// Appends the last line with the right checksum to all lines before it.
fn sealed(body: &str) -> Vec<u8> {
    let sum = hex(&Sha256::digest(body.as_bytes()));
    format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
}

/// A manifest with the given fields behind the version.
fn with(fields: &str) -> Vec<u8> {
    sealed(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n{fields},\n"))
}

fn with_file(fields: &str) -> Vec<u8> {
    with(&format!("\"Files\": [ {{ {fields} }} ]"))
}

#[track_caller]
fn refused(bytes: &[u8], part: &str) {
    let error = read(bytes).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    assert!(error.message.contains(part), "expected {part:?}: {error}");
}

fn written(version: u32) -> Vec<u8> {
    let mut writer = ManifestWriter::new(Vec::new(), version, 7_710_990_730_298_811_747).unwrap();
    let crc = crc32c_bytes(crc32c::crc32c(b"123456789"));
    writer.file(b"backup_label", 226, 1_795_354_935, Some(("CRC32C", &crc))).unwrap();
    writer.file(b"base/\"\\\n\x01\x7f/\xC3\xA9", 0, 0, None).unwrap();
    writer.file(b"gr\xFC", 1, -1, Some(("SHA256", &[0xAB; 32]))).unwrap();
    writer.wal_range(Timeline(2), Lsn(0x0300_0000), Lsn(0x1_0000_0000)).unwrap();
    writer.wal_range(Timeline(1), Lsn(0x0200_0028), Lsn(0x0300_0000)).unwrap();
    writer.finish().unwrap()
}

/// Text that PostgreSQL writes for the same values, up to the checksum.
const EXPECTED: &str = concat!(
    "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n",
    "\"System-Identifier\": 7710990730298811747,\n",
    "\"Files\": [\n",
    "{ \"Path\": \"backup_label\", \"Size\": 226, \"Last-Modified\": \"2026-11-22 13:42:15 GMT\", ",
    "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"839206e3\" },\n",
    "{ \"Path\": \"base/\\\"\\\\\\n\\u0001\u{7f}/é\", \"Size\": 0, \"Last-Modified\": \"1970-01-01 00:00:00 GMT\" },\n",
    "{ \"Encoded-Path\": \"6772fc\", \"Size\": 1, \"Last-Modified\": \"1969-12-31 23:59:59 GMT\", ",
    "\"Checksum-Algorithm\": \"SHA256\", ",
    "\"Checksum\": \"abababababababababababababababababababababababababababababababab\" }\n",
    "],\n",
    "\"WAL-Ranges\": [\n",
    "{ \"Timeline\": 2, \"Start-LSN\": \"0/3000000\", \"End-LSN\": \"1/0\" },\n",
    "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/3000000\" }\n",
    "],\n",
);

#[test]
fn the_writer_writes_what_postgres_would() {
    assert_eq!(String::from_utf8(written(2)).unwrap(), String::from_utf8(sealed(EXPECTED)).unwrap());
    let one = EXPECTED
        .replace("Version\": 2", "Version\": 1")
        .replace("\"System-Identifier\": 7710990730298811747,\n", "");
    assert_eq!(String::from_utf8(written(1)).unwrap(), String::from_utf8(sealed(&one)).unwrap());
}

#[test]
fn the_reader_reads_what_the_writer_wrote() {
    let (manifest, files) = read(&written(2)).unwrap();
    assert_eq!((manifest.version, manifest.files), (2, 3));
    assert_eq!(manifest.system_identifier, Some(7_710_990_730_298_811_747));
    assert_eq!(manifest.wal_ranges[1].start, Lsn(0x0200_0028));
    assert_eq!(files[0].checksum, Some((ChecksumAlgorithm::Crc32c, vec![0x83, 0x92, 0x06, 0xE3])));
    assert_eq!((files[0].modified, files[0].size), (Some(1_795_354_935), 226));
    assert_eq!(files[1].path, b"base/\"\\\n\x01\x7f/\xC3\xA9");
    assert_eq!(files[2].path, b"gr\xFC");
    assert_eq!(read(&written(1)).unwrap().0.system_identifier, None);
}

#[test]
fn an_empty_backup_has_a_manifest() {
    let mut writer = ManifestWriter::new(Vec::new(), 1, 0).unwrap();
    writer.wal_range(Timeline(1), Lsn(1), Lsn(2)).unwrap();
    assert_eq!(read(&writer.finish().unwrap()).unwrap().0.files, 0);
}

#[test]
fn the_writer_refuses_misuse() {
    assert_eq!(ManifestWriter::new(Vec::new(), 3, 0).err().unwrap().kind, ErrorKind::Unsupported);
    assert_eq!(
        ManifestWriter::new(Vec::new(), 1, 0).unwrap().finish().unwrap_err().kind,
        ErrorKind::Internal
    );
    let mut writer = ManifestWriter::new(Vec::new(), 1, 0).unwrap();
    assert_eq!(writer.file(b"a\0b", 0, 0, None).unwrap_err().kind, ErrorKind::InvalidArgument);
    writer.wal_range(Timeline(1), Lsn(1), Lsn(2)).unwrap();
    assert_eq!(writer.file(b"a", 0, 0, None).unwrap_err().kind, ErrorKind::Internal);
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(28))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert_eq!(ManifestWriter::new(Full, 1, 0).err().unwrap().kind, ErrorKind::DiskFull);
}

/// The cases of pg_verifybackup's t/005_bad_manifest.pl, in its order, and some of our own.
#[test]
fn bad_manifests_are_refused() {
    refused(b"{\n", "version is not first");
    refused(b"{}\n", "version is not first");
    refused(b"[]\n", "not a JSON object");
    refused(b"{\"not-expected\": 1}\n", "version is not first");
    refused(b"{\"PostgreSQL-Backup-Manifest-Version\": \"phooey\"}\n", "version is not a whole number");
    refused(b"{\"PostgreSQL-Backup-Manifest-Version\": 9876599}\n", "9876599 is not a known version");
    refused(&with("\"Files\": true"), "files are not a list");
    refused(&with("\"Oops\": 1"), "unknown field \"Oops\"");
    refused(&with("\"Files\": {}"), "files are not a list");
    refused(&with_file(""), "no path");
    refused(&with_file(r#""Path": "x", "Encoded-Path": "1234""#), "two paths");
    refused(&with_file(r#""Oops": 1"#), "unknown field \"Oops\"");
    refused(&with_file(r#""Path": "x""#), "no size");
    refused(&with_file(r#""Path": "x", "Size": "Oops""#), "size is not a whole number");
    refused(&with_file(r#""Encoded-Path": "123", "Size": 0"#), "not hexadecimal");
    refused(&with_file(r#""Path": "x", "Size": 0 }, { "Path": "x", "Size": 0"#), "lists \"x\" twice");
    refused(&with_file(r#""Path": "x", "Size": 100, "Checksum": "Oops""#), "without algorithm");
    refused(
        &with_file(r#""Path": "x", "Size": 1, "Checksum-Algorithm": "Oops", "Checksum": "00""#),
        "\"Oops\" is not a checksum algorithm",
    );
    refused(
        &with_file(r#""Path": "x", "Size": 1, "Checksum-Algorithm": "CRC32C", "Checksum": "0""#),
        "malformed checksum",
    );
    let range = |fields: &str| with(&format!("\"WAL-Ranges\": [ {{ {fields} }} ]"));
    refused(&range(r#""Timeline": 1"#), "lacks timeline, start or end");
    refused(&range(r#""Timeline": 1, "Start-LSN": "0/0""#), "lacks timeline, start or end");
    refused(&range(r#""Oops": 1"#), "unknown field \"Oops\"");
    refused(&range(""), "lacks timeline, start or end");
    refused(
        b"{\"PostgreSQL-Backup-Manifest-Version\": 1, \"WAL-Ranges\": [\n{\"Timeline\": 1, \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\"}\n]}\n",
        "no checksum",
    );
    refused(
        &range(r#""Timeline": true, "Start-LSN": "0/0", "End-LSN": "0/0""#),
        "timeline is not a whole number",
    );
    refused(&range(r#""Timeline": 1, "Start-LSN": "oops", "End-LSN": "0/0""#), "\"oops\" is not an LSN");
    refused(&range(r#""Timeline": 1, "Start-LSN": "0/0", "End-LSN": "oops""#), "\"oops\" is not an LSN");
    let sum = "0".repeat(64);
    refused(
        format!(
            "{{\"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [], \"Manifest-Checksum\": \"{sum}\"}}\n"
        )
        .as_bytes(),
        "fewer than 2 lines",
    );
    let mut unended = with("\"Files\": []");
    unended.pop();
    refused(&unended, "last line is not ended");
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz01234567890-";
    for sum in [format!("\"{letters}\""), "null".into(), "\"\"".into()] {
        let text = format!(
            "{{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n\"Manifest-Checksum\": {sum}}}\n"
        );
        assert!(read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for path in ["", "/etc/passwd", "../x", "base/../../x", "base//x", "base/./x", "base/", "x\\u0000y"] {
        refused(&with_file(&format!(r#""Path": "{path}", "Size": 0"#)), "not a path below");
    }
    refused(&with_file(r#""Encoded-Path": "2e2e2f78", "Size": 0"#), "not a path below");
}

#[test]
fn malformed_json_is_refused() {
    for (text, part) in [
        (r#""Path": "x", "Size": 0, "Size": 1"#, "Size is there twice"),
        (r#""Path": "x", "Size": 0,"#, "field name is not a string"),
        (r#""Path" "x", "Size": 0"#, "not valid JSON"),
        (r#""Path": "x" "Size": 0"#, "object is malformed"),
        (r#""Path": "x", "Size": 1.5"#, "not a whole number"),
        (r#""Path": "x", "Size": -1"#, "not a whole number"),
        (r#""Path": "x", "Size": 18446744073709551616"#, "not a whole number"),
        (r#""Path": "x", "Size": nul"#, "not valid JSON"),
        (r#""Path": "\x", "Size": 0"#, "unknown escape"),
        (r#""Path": "\ud800", "Size": 0"#, "surrogate"),
        (r#""Path": "\ud800A", "Size": 0"#, "surrogate"),
        (r#""Path": "\u12g4", "Size": 0"#, "bad \\u escape"),
        ("\"Path\": \"a\tb\", \"Size\": 0", "byte 0x09"),
        (r#""Path": [1], "Size": 0"#, "not a string"),
        ("#", "out of place"),
    ] {
        refused(&with_file(text), part);
    }
    refused(&with("\"Files\": [],\n\"Files\": []"), "Files twice");
    refused(&with("\"Files\": [ 1 ]"), "something else than objects");
    refused(&[with("\"Files\": []"), b"{}\n".to_vec()].concat(), "something follows");
    let not_utf8 =
        [&b"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [ { \"Path\": \"\xFF"[..], b"\"} ]"]
            .concat();
    refused(&not_utf8, "not UTF-8");
}

#[test]
fn every_changed_byte_is_noticed() {
    let sound = written(2);
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 1;
        assert!(read(&changed).is_err(), "byte {at}: {}", String::from_utf8_lossy(&changed));
        assert!(read(&sound[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn memory_stays_bounded() {
    let endless = std::io::repeat(b'x');
    let begin = &b"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [ { \"Path\": \""[..];
    let error = Manifest::read(begin.chain(endless), |_| Ok(())).unwrap_err();
    assert!(error.message.contains("string is too long"), "{error}");
    let ranges = r#"{ "Timeline": 1, "Start-LSN": "0/0", "End-LSN": "0/0" },"#.repeat((1 << 16) + 1);
    refused(&with(&format!("\"WAL-Ranges\": [ {ranges} ]")), "too many WAL ranges");
}

#[test]
fn input_in_small_pieces_reads_the_same() {
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let end = out.len().min(1);
            self.0.read(&mut out[..end])
        }
    }
    let bytes = written(2);
    let files: Result<Vec<ManifestFile>> = ManifestReader::new(Slow(&bytes)).unwrap().collect();
    assert_eq!(files.unwrap(), read(&bytes).unwrap().1);
}

#[test]
fn after_an_error_nothing_succeeds() {
    let bytes = with_file(r#""Path": "x", "Size": 0 }, { "Path": "x", "Size": 0"#);
    let mut reader = ManifestReader::new(&bytes[..]).unwrap();
    let seen: Vec<bool> = reader.by_ref().map(|file| file.is_ok()).collect();
    assert_eq!(seen, [true, false]);
    assert!(reader.next_file().is_err());
    assert!(reader.finish().is_err());
}

#[test]
fn an_error_of_the_caller_ends_reading() {
    let stop = || Error::new(ErrorKind::Cancelled, "stop");
    assert_eq!(Manifest::read(&written(1)[..], |_| Err(stop())).unwrap_err(), stop());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}:,\"\\\\u0-9a-e \n]{0,60}") {
        let _ = (read(&bytes), read(json.as_bytes()), read(&with(&json)), read(&with_file(&json)));
    }

    #[test]
    fn what_is_written_is_read(
        paths in proptest::collection::btree_set(proptest::collection::vec(1u8.., 1..20), 0..8), size: u64, mtime in 0i64..1 << 33
    ) {
        let inside = |path: &&Vec<u8>| path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
        let paths: Vec<&Vec<u8>> = paths.iter().filter(inside).collect();
        let mut writer = ManifestWriter::new(Vec::new(), 2, size).unwrap();
        for path in &paths {
            writer.file(path, size, mtime, Some(("CRC32C", &[1, 2, 3, 4]))).unwrap();
        }
        writer.wal_range(Timeline(1), Lsn(size), Lsn(size)).unwrap();
        let (manifest, files) = read(&writer.finish().unwrap()).unwrap();
        prop_assert_eq!(manifest.system_identifier, Some(size));
        prop_assert_eq!(files.len(), paths.len());
        for (file, path) in files.iter().zip(paths) {
            prop_assert_eq!(&file.path, path);
            prop_assert_eq!((file.size, file.modified), (size, Some(mtime)));
        }
    }
}
