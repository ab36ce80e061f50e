//! Makes golden repositories below `tests/golden`: small ones, of this version of the format, one per codec that is named
//! (none: all). Run it once per version of the format, from a throwaway cluster, and keep what it made for ever:
//!
//! ```text
//! initdb -k --wal-segsize=1 DIR
//! cargo run -p pg_ark_engine --example make_golden -- DIR crates/engine/tests/golden/v1_sealed zstd
//! ```
//!
//! `v1` was made before records and indexes had seals, and has no WAL archive. `v1_logical` holds a logical backup of a running
//! server of PostgreSQL 15, which trusts whoever comes through its socket:
//!
//! ```text
//! cargo run -p pg_ark_engine --example make_golden -- --logical DIR SOCKETS PORT BINDIR crates/engine/tests/golden/v1_logical
//! ```

use pg_ark_contract::conversation::{
    ArchiveTask, BackupKind, BackupTask, Event, LogicalChoice, LogicalTask, Need, Reply,
};
use pg_ark_contract::settings::{Checksum, Compression, VOLUME_SIZE_MIN};
use pg_ark_contract::{Error, Lsn, Timeline};
use pg_ark_engine::backup;
use pg_ark_engine::logical;
use pg_ark_engine::postgres::control_file::{CONTROL_FILE, ControlFile};
use pg_ark_engine::postgres::wal_segment::SegmentName;
use pg_ark_engine::repository::{Repository, Storage};
use pg_ark_engine::session::Session;
use pg_ark_engine::wal::archiver;
use pg_ark_engine::wal::summary::Summarizer;
use std::error::Error as StdError;
use std::fs;
use std::path::Path;
use std::sync::{Arc, mpsc};

/// Files taken from the cluster: one of each kind.
const FILES: [&str; 8] = [
    CONTROL_FILE,
    "PG_VERSION",
    "pg_hba.conf",
    "pg_xact/0000",
    "global/1262",
    "base/5/1259",
    "base/5/1259_fsm",
    "base/5/PG_VERSION",
];

fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|argument| argument == "--logical").is_some() {
        let arguments: Vec<String> = arguments.collect();
        let [cluster, sockets, port, bindir, out] = &arguments[..] else {
            return Err("usage: make_golden --logical CLUSTER SOCKETS PORT BINDIR FOLDER".into());
        };
        fs::create_dir_all(out)?;
        let logical = LogicalTask {
            choice: LogicalChoice::default(),
            socket_directory: sockets.clone(),
            port: port.parse()?,
            user: "postgres".into(),
            bindir: bindir.clone(),
        };
        return dump(Path::new(cluster), &Path::new(out).canonicalize()?, logical);
    }
    let (Some(cluster), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: make_golden CLUSTER FOLDER [CODEC]...".into());
    };
    let codecs: Vec<String> = arguments.collect();
    let work = tempfile::tempdir()?;
    let data = work.path().join("data");
    let tablespace = work.path().join("tablespace");
    trim(Path::new(&cluster), &data, &tablespace)?;
    let out = Path::new(&out);
    for (name, compression, checksum) in [
        ("zstd", "zstd:9", Checksum::Crc32c),
        ("lz4", "lz4", Checksum::Crc32c),
        ("gzip", "gzip:9", Checksum::Sha256),
    ] {
        if !codecs.is_empty() && codecs.iter().all(|codec| codec != name) {
            continue;
        }
        let folder = out.join(name);
        fs::create_dir_all(&folder)?;
        take(&data, &folder.canonicalize()?, compression, checksum)?;
        archive(&data, &folder.canonicalize()?, compression)?;
    }
    fs::write(out.join("expected.txt"), expected(&data, &tablespace)?)?;
    Ok(())
}

/// A data directory with few files, a tablespace, names that are long or not ASCII, and what a backup leaves out.
fn trim(cluster: &Path, data: &Path, tablespace: &Path) -> Result<(), Box<dyn StdError>> {
    for file in FILES {
        let to = data.join(file);
        fs::create_dir_all(to.parent().ok_or("no parent")?)?;
        fs::copy(cluster.join(file), to)?;
    }
    let long = format!("log/{}", "l".repeat(120));
    for (path, content) in [
        ("größe 1/ä b", &b"umlauts\n"[..]),
        (long.as_str(), b"a long name\n"),
        ("base/5/16500", b""),
        ("postmaster.pid", b"1\n"),
        ("base/5/t3_16501", b"temporary\n"),
        ("base/5/16502", b"unlogged\n"),
        ("base/5/16502_init", &[0; 8192]),
    ] {
        let to = data.join(path);
        fs::create_dir_all(to.parent().ok_or("no parent")?)?;
        fs::write(to, content)?;
    }
    fs::create_dir_all(data.join("pg_tblspc"))?;
    fs::create_dir_all(data.join("pg_replslot/gone"))?;
    let control = ControlFile::parse(&fs::read(data.join(CONTROL_FILE))?)?;
    let segment = format!("pg_wal/{}", segment_name(&control));
    fs::create_dir_all(data.join("pg_wal"))?;
    fs::copy(cluster.join(&segment), data.join(&segment))?;
    let inside = tablespace.join(format!("PG_15_{}/5", control.catalog_version));
    fs::create_dir_all(&inside)?;
    fs::copy(cluster.join("base/5/1255"), inside.join("16401"))?;
    std::os::unix::fs::symlink(tablespace, data.join("pg_tblspc/16400"))?;
    Ok(())
}

fn segment_name(control: &ControlFile) -> String {
    let number = control.wal_segment_size.segment_of(control.redo);
    SegmentName { timeline: Timeline(1), number }.file_name(control.wal_segment_size)
}

fn take(
    data: &Path,
    repository: &Path,
    compression: &str,
    checksum: Checksum,
) -> Result<(), Box<dyn StdError>> {
    let url = format!("file://{}", repository.display());
    Repository::open_or_create(&url)?;
    let control = ControlFile::parse(&fs::read(data.join(CONTROL_FILE))?)?;
    let task = BackupTask {
        label: Some(format!("golden {compression}")),
        data_directory: data.display().to_string(),
        system_identifier: control.system_identifier,
        config_files: vec!["/etc/debian_version".into()],
        ..task(compression.parse()?, checksum)
    };
    let (events, incoming) = mpsc::channel();
    let session = Arc::new(Session::new(move |event| drop(events.send(event))));
    let server = Arc::clone(&session);
    let start = control.redo;
    let segment = segment_name(&control);
    std::thread::spawn(move || {
        for event in incoming {
            match event {
                Event::Need(need) => server.deliver(answer(need, start, &segment)),
                Event::Warning { message, .. } => eprintln!("{message}"),
                _ => {}
            }
        }
    });
    let storage = Storage::open(&url)?;
    backup::run(storage, "main", &task, &session).map_err(|e: Error| Box::<dyn StdError>::from(e))?;
    Ok(())
}

/// Stores a logical backup.
fn dump(data: &Path, repository: &Path, logical: LogicalTask) -> Result<(), Box<dyn StdError>> {
    let url = format!("file://{}", repository.display());
    Repository::open_or_create(&url)?;
    let control = ControlFile::parse(&fs::read(data.join(CONTROL_FILE))?)?;
    let config = |name: &str| data.join(name).display().to_string();
    let task = BackupTask {
        kind: BackupKind::Logical,
        label: Some("golden dumps".into()),
        data_directory: data.display().to_string(),
        system_identifier: control.system_identifier,
        config_files: ["pg_hba.conf", "pg_ident.conf"].map(config).into(),
        logical: Some(logical),
        ..task("zstd:9".parse()?, Checksum::Crc32c)
    };
    let session = Session::new(|event| {
        if let Event::Warning { message, .. } = event {
            eprintln!("{message}");
        }
    });
    logical::run::run(Storage::open(&url)?, "main", &task, &session)?;
    Ok(())
}

/// What all have in common.
fn task(compression: Compression, checksum: Checksum) -> BackupTask {
    BackupTask {
        kind: BackupKind::Full,
        label: None,
        data_directory: String::new(),
        server_version_num: 150_020,
        server_version: "15.20".into(),
        system_identifier: 0,
        in_recovery: false,
        config_files: Vec::new(),
        server_settings: vec![("max_connections".into(), "100".into())],
        compression,
        checksum,
        jobs: 2,
        max_rate: 0,
        volume_size: VOLUME_SIZE_MIN,
        include_wal: true,
        archive_wait: 300,
        logical: None,
    }
}

/// Stores WAL: a segment, the backup history that a backup leaves in pg_wal, and a timeline that goes on where the
/// segment's records end: its history and its first segment.
fn archive(data: &Path, repository: &Path, compression: &str) -> Result<(), Box<dyn StdError>> {
    let control = ControlFile::parse(&fs::read(data.join(CONTROL_FILE))?)?;
    let (size, wal) = (control.wal_segment_size, data.join("pg_wal"));
    let name = SegmentName { timeline: Timeline(1), number: size.segment_of(control.redo) };
    let (segment, branch) =
        (name.file_name(size), SegmentName { timeline: Timeline(2), ..name }.file_name(size));
    let bytes = fs::read(wal.join(&segment))?;
    let mut summarizer = Summarizer::new(name, size);
    summarizer.feed(&bytes);
    // A timeline begins with a copy of the segment in which it leaves its parent, whose pages say so.
    fs::write(wal.join(&branch), &bytes)?;
    let backup = format!("{segment}.00000028.backup");
    fs::write(wal.join(&backup), format!("START WAL LOCATION: {} (file {segment})\n", control.redo))?;
    let history = format!("1\t{}\tno recovery target specified\n", summarizer.finish().end);
    fs::write(wal.join("00000002.history"), history)?;
    let task = ArchiveTask {
        data_directory: data.display().to_string(),
        server_version_num: 150_020,
        compression: compression.parse()?,
        jobs: 1,
    };
    let session = Session::new(|event| eprintln!("{event:?}"));
    let route = archiver::open(&format!("file://{}", repository.display()), "main", &task, &session)?;
    for file in [&segment[..], &backup, "00000002.history", &branch] {
        archiver::push(&route, file, &session)?;
    }
    Ok(())
}

fn answer(need: Need, start: Lsn, segment: &str) -> Reply {
    let timeline = Timeline(1);
    match need {
        Need::BackupStart => Reply::BackupStarted { start_lsn: start, timeline },
        Need::BackupStop => Reply::BackupStopped {
            stop_lsn: Lsn(start.0 + 100),
            timeline,
            backup_label: format!(
                "START WAL LOCATION: {start} (file {segment})\nCHECKPOINT LOCATION: {start}\n\
                 BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-22 14:00:00 UTC\nLABEL: golden\n\
                 START TIMELINE: 1\n"
            )
            .into(),
            tablespace_map: "16400 /somewhere\n".into(),
        },
    }
}

/// What a restore must give: path, size and CRC-32C of every file that the backup holds.
fn expected(data: &Path, tablespace: &Path) -> Result<String, Box<dyn StdError>> {
    let mut lines = Vec::new();
    for (root, prefix) in [(data, ""), (tablespace, "pg_tblspc/16400/")] {
        for entry in walkdir::WalkDir::new(root) {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.path().strip_prefix(root)?.display());
            let left_out = ["postmaster.pid", "base/5/t3_16501", "base/5/16502"].contains(&path.as_str())
                || path.starts_with("pg_wal/");
            if entry.file_type().is_file() && !left_out {
                let bytes = fs::read(entry.path())?;
                lines.push(format!("{:08x} {:>8} {path}\n", crc32c::crc32c(&bytes), bytes.len()));
            }
        }
    }
    lines.sort_by(|a, b| a[18..].cmp(&b[18..]));
    Ok(lines.concat())
}
