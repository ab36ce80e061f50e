//! The repository that is whole: of a real server, with backups cut down to a few files.

use pg_ark_testkit::forge::{Forge, Member};
use pg_ark_testkit::{Cluster, LONG, Repo, StopMode, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// What the archives of a backup keep: one of each kind.
const KEPT: [&str; 10] = [
    "PG_VERSION",
    "backup_label",
    "tablespace_map",
    "base/5/PG_VERSION",
    "base/5/112",
    "base/5/pg_filenode.map",
    "global/1213",
    "global/pg_control",
    "pg_multixact/offsets/0000",
    "pg_xact/0000",
];

/// Two tablespaces, an archive of two timelines, a backup with WAL of its own and one without.
pub fn make(folder: &Path) {
    let repo = Repo::new();
    // WAL that begins with the backups, in segments that are mostly empty.
    let builder = Cluster::builder().wal_segment_mb(1).conf("autovacuum = off").conf("wal_recycle = off");
    let server = builder.conf("full_page_writes = off").start();
    server.psql("CREATE EXTENSION pg_ark");
    server.psql(&format!("SELECT * FROM ark.enable('{}')", repo.url()));
    for space in ["one", "two"] {
        server.create_tablespace(space);
        server.psql(&format!(
            "CREATE TABLE {space} TABLESPACE {space} AS SELECT n FROM generate_series(1, 100) n"
        ));
    }
    // Until no segment is left that initdb wrote and the server took for another.
    for _ in 0..20 {
        switch(&server);
        server.psql("CHECKPOINT");
    }
    server.configure(&["archive_mode = on", "archive_library = 'pg_ark'"]);
    server.restart();
    server.psql("SELECT ark.backup_start(include_wal => true, wait => true)");
    server.psql("SELECT ark.backup_start(wait => true)");
    switch(&server);
    server.stop(StopMode::Fast);
    fs::write(server.data().join("standby.signal"), "").expect("a file");
    server.start();
    server.promote();
    switch(&server);
    let last = switch(&server);
    let done = server.data().join(format!("pg_wal/archive_status/{last}.done"));
    wait_until("the last segment in the archive", LONG, || done.is_file());
    server.stop(StopMode::Fast);
    cut_down(repo.path());
    super::copy_tree(repo.path(), folder);
}

fn switch(server: &Cluster) -> String {
    server.psql("INSERT INTO one VALUES (0)");
    server.psql("SELECT pg_walfile_name(pg_switch_wal())")
}

/// Takes most files out of the backups.
fn cut_down(repository: &Path) {
    for name in super::names(repository).iter().filter(|name| name.ends_with("/backup.json")) {
        let forge = Forge::open(repository.join(name).parent().expect("a folder"));
        let record = forge.record();
        let mut kept = Vec::new();
        for archive in record["archives"].as_array().expect("archives") {
            let (name, content) = (archive["name"].as_str().expect("a name"), &archive["content"]);
            let mut members = forge.archive(name);
            if *content != "wal" {
                members.retain(|member| is_kept(member, content));
                let files = members.iter().filter(|member| member.kind == b'0');
                kept.extend(files.map(|member| path_in_manifest(member, content)));
            }
            forge.put_archive(name, &members);
        }
        cut_manifest(&forge, &kept);
    }
}

fn is_kept(member: &Member, content: &Value) -> bool {
    let path = String::from_utf8_lossy(&member.path);
    let below_one_database = !path.contains("base/1/") && !path.contains("base/4/");
    content.is_object() || KEPT.contains(&&*path) || member.kind != b'0' && below_one_database
}

fn path_in_manifest(member: &Member, content: &Value) -> String {
    let path = String::from_utf8_lossy(&member.path);
    match content["tablespace"].as_u64() {
        Some(oid) => format!("pg_tblspc/{oid}/{path}"),
        None => path.into_owned(),
    }
}

/// Leaves lines of these files in the manifest, and mends what the record says about them.
fn cut_manifest(forge: &Forge, kept: &[String]) {
    let text = String::from_utf8(forge.manifest()).expect("UTF-8");
    let (head, rest) = text.split_once("\"Files\": [").expect("files");
    let (files, tail) = rest.split_once("],").expect("the end of the files");
    let lines = files.lines().map(|line| line.trim_end_matches(','));
    let is_kept = |line: &&str| kept.iter().any(|path| line.contains(&format!("\"Path\": \"{path}\"")));
    let lines: Vec<&str> = lines.filter(is_kept).collect();
    forge.put_summed_manifest(&format!("{head}\"Files\": [\n{}\n],{tail}", lines.join(",\n")));
    let size = |line: &&str| line.split_once("\"Size\": ")?.1.split(',').next()?.trim().parse::<u64>().ok();
    let mut record = forge.record();
    record["files"] = json!(lines.len());
    record["data_bytes"] = json!(lines.iter().filter_map(size).sum::<u64>());
    forge.put_record(&record);
}
