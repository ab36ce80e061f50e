//! The repository outlives the tool: backups are restored with public tools alone.

use crate::support::{Ready, ready};
use pg_ark_testkit::{Cluster, Scratch, assert_same_data, command, run};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Unpacks every archive of a backup as the README says, links tablespaces to new folders.
pub fn restore(folder: &Path, decoder: &str, suffix: &str, scratch: &Scratch) -> std::path::PathBuf {
    let data = scratch.folder("data");
    let script = r#"
        set -euf
        unpack() { # ARCHIVE FOLDER: volumes continue in ARCHIVE.0001, ...
            set +f; cat "$1" $(ls "$1".[0-9]* 2>/dev/null) | eval "$DECODER" | tar x -C "$2"; set -f
        }
        cd "$BACKUP"
        unpack base.tar$SUFFIX "$DATA"
        unpack pg_wal.tar$SUFFIX "$DATA/pg_wal"
        : > "$SCRATCH/map"
        while read -r oid location; do
            mkdir -m 0700 "$SCRATCH/$oid"
            unpack "$oid.tar$SUFFIX" "$SCRATCH/$oid"
            ln -sfn "$SCRATCH/$oid" "$DATA/pg_tblspc/$oid" # the archive holds a link to the old place
            echo "$oid $SCRATCH/$oid" >> "$SCRATCH/map"
        done < "$DATA/tablespace_map"
    "#;
    let mut shell = command("/bin/sh");
    shell.arg("-c").arg(script).env("BACKUP", folder).env("DATA", &data).env("SCRATCH", scratch.path());
    run(shell.env("DECODER", decoder).env("SUFFIX", suffix)).ok();
    data
}

fn flip_a_byte(file: &Path) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(file).expect("a restored file");
    let mut byte = [0];
    let at = SeekFrom::Start(100);
    file.seek(at).and_then(|_| file.read_exact(&mut byte)).expect("read a byte");
    file.seek(at).and_then(|_| file.write_all(&[byte[0] ^ 1])).expect("write a byte");
}

/// Takes a backup with these settings, restores it by hand, lets pg_verifybackup judge it, starts it, compares.
#[track_caller]
fn restored_by_hand(settings: &str, decoder: &str, suffix: &str, volumes: bool) {
    let ready: Ready = ready(Cluster::builder());
    let server = &ready.server;
    server.create_tablespace("fast");
    server.pgbench(&["-i", "-q", "-s", "2", "--tablespace=fast"]);
    let original = server.checksums();
    let backup = server.psql(&format!("{settings}; SELECT ark.backup_start(wait => true)"));
    let folder = ready.backup_folder(&backup);
    assert_eq!(folder.join(format!("base.tar{suffix}.0001")).is_file(), volumes, "volumes of {folder:?}");

    let scratch = Scratch::new("by_hand");
    let data = restore(&folder, decoder, suffix, &scratch);
    let verify =
        || run(server.pg().tool("pg_verifybackup").arg("-m").arg(folder.join("backup_manifest")).arg(&data));
    verify().ok();
    let victim = data.join("global/pg_filenode.map");
    flip_a_byte(&victim);
    let damaged = verify();
    assert!(!damaged.success() && damaged.stderr.contains("pg_filenode.map"), "{damaged}");
    flip_a_byte(&victim);

    fs::copy(scratch.path().join("map"), data.join("tablespace_map")).expect("the new map");
    let copy = Cluster::open_restored_with(server.pg(), &data);
    copy.start();
    assert_same_data(&original, &copy.checksums());
    copy.balances().assert_consistent();
    copy.amcheck();
}

#[test]
fn a_restore_by_hand_works_with_zstd() {
    restored_by_hand("SET pg_ark.compression = 'zstd:3'", "zstd -d", ".zst", false);
}

#[test]
fn a_restore_by_hand_works_with_lz4() {
    restored_by_hand("SET pg_ark.compression = 'lz4'", "lz4 -d", ".lz4", false);
}

#[test]
fn a_restore_by_hand_works_with_gzip() {
    restored_by_hand(
        "SET pg_ark.compression = 'gzip:1'; SET pg_ark.checksum = 'sha256'",
        "gzip -d",
        ".gz",
        false,
    );
}

#[test]
fn a_restore_by_hand_works_without_compression_and_with_volumes() {
    restored_by_hand("SET pg_ark.compression = 'none'; SET pg_ark.volume_size = '8MB'", "cat", "", true);
}
