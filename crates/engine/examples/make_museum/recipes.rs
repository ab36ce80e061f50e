//! The ways to be broken: what [`all`] gives is done to a copy of the whole repository.

use crate::names;
use pg_ark_testkit::forge::{Forge, Member, frame};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Breaks the repository in a folder.
pub type Recipe = Box<dyn Fn(&Path)>;

/// The archive that hostile members go into.
const BASE: &str = "base.tar.zst";
/// How far a frame of few bytes expands.
const BOMB: usize = 64 << 20;
/// Deeper than any record; JSON readers that call themselves for each level end here.
pub const DEEP: usize = 4000;

/// Every exhibit's name and how it is made.
pub fn all(whole: &Path) -> Vec<(String, Recipe)> {
    let place = Place::of(whole);
    let mut recipes = Vec::new();
    for (name, object) in place.objects() {
        let other = place.other(&object);
        recipes.extend(damage(&name, object, other));
    }
    recipes.extend(records(&place));
    recipes.extend(archives(&place));
    recipes.extend(manifests(&place));
    recipes.extend(wal(&place));
    recipes.extend(crate::dumps::all(&place.system));
    recipes
}

/// Where things are.
#[derive(Clone)]
struct Place {
    whole: PathBuf,
    names: Vec<String>,
    /// Folder of the system identifier.
    system: String,
    /// The backup with WAL of its own, and the one without.
    backups: [String; 2],
    segments: Vec<String>,
}

impl Place {
    fn of(whole: &Path) -> Place {
        let names: Vec<String> = names(whole).into_iter().collect();
        let records = names.iter().filter_map(|name| name.strip_suffix("/backup.json"));
        let backups: Vec<String> = records.map(ToString::to_string).collect();
        let system = backups[0].split("/backups/").next().expect("a system").to_string();
        let is_segment = |name: &&String| {
            name.contains("/wal/00000001/") && name.ends_with(".zst") && !name.contains(".partial")
        };
        let segments = names.iter().filter(is_segment).cloned().collect();
        Place {
            whole: whole.to_path_buf(),
            system,
            backups: backups.try_into().expect("two backups"),
            segments,
            names,
        }
    }

    /// One object of each kind, under a short name.
    fn objects(&self) -> Vec<(String, String)> {
        let [backup, _] = &self.backups;
        let mut objects: Vec<(String, String)> = vec![
            ("repository".into(), "pgark.json".into()),
            ("cluster".into(), "main/cluster.json".into()),
            ("segment".into(), self.segments[2].clone()),
            ("history".into(), format!("{}/wal/00000002.history", self.system)),
        ];
        let kinds = [
            ("record", "backup.json"),
            ("base", BASE),
            ("base_index", "base.tar.zst.index"),
            ("wal_of_backup", "pg_wal.tar.zst"),
            ("manifest", "backup_manifest"),
        ];
        objects.extend(kinds.map(|(name, object)| (name.to_string(), format!("{backup}/{object}"))));
        let is_space = |name: &&String| {
            name.starts_with(&**backup) && name.contains("/16") && name.ends_with(".tar.zst")
        };
        objects.extend(self.names.iter().find(is_space).map(|name| ("tablespace".to_string(), name.clone())));
        for (name, end) in [
            ("backup_history", ".backup"),
            ("partial", ".partial.zst"),
            ("wal_index", "00000000/index.jsonl"),
        ] {
            let found = self.names.iter().find(|path| path.ends_with(end));
            objects.push((name.to_string(), found.expect("an object").clone()));
        }
        objects
    }

    /// An object of the same name, else of the same kind, else any, with another content.
    fn other(&self, object: &str) -> String {
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_string();
        let kind = |path: &str| name(path).split_once('.').map(|(_, end)| end.to_string());
        let content = |path: &str| fs::read(self.whole.join(path)).expect("an object");
        let mut others: Vec<&String> =
            self.names.iter().filter(|path| content(path) != content(object)).collect();
        others.sort_by_key(|path| (name(path) != name(object), kind(path) != kind(object)));
        others.first().expect("another object").to_string()
    }
}

fn recipe(name: impl Into<String>, change: impl Fn(&Path) + 'static) -> (String, Recipe) {
    (name.into(), Box::new(change))
}

/// One bit another, the tail gone, a block of zeros, nothing there, another in its place.
pub fn damage(name: &str, object: String, other: String) -> Vec<(String, Recipe)> {
    let change = |how: &str, change: fn(&mut Vec<u8>)| {
        let object = object.clone();
        recipe(format!("{name}_{how}"), move |root| {
            let mut bytes = fs::read(root.join(&object)).expect("an object");
            change(&mut bytes);
            fs::write(root.join(&object), bytes).expect("an object");
        })
    };
    let removed = object.clone();
    vec![
        change("flipped", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }),
        change("cut", |bytes| bytes.truncate(bytes.len() * 2 / 3)),
        change("zeroed", |bytes| {
            let (third, end) = (bytes.len() / 3, bytes.len() * 2 / 3);
            bytes[third..end].fill(0);
        }),
        recipe(format!("{name}_missing"), move |root| {
            fs::remove_file(root.join(&removed)).expect("an object")
        }),
        recipe(format!("{name}_swapped"), move |root| {
            let (one, two) = (root.join(&object), root.join(&other));
            let (first, second) = (fs::read(&one).expect("an object"), fs::read(&two).expect("an object"));
            fs::write(one, second).and_then(|()| fs::write(two, first)).expect("objects");
        }),
    ]
}

/// Changes the record of the first backup, and seals it.
fn on_record(place: &Place, name: &str, change: impl Fn(&mut Value) + 'static) -> (String, Recipe) {
    let folder = place.backups[0].clone();
    recipe(name, move |root| {
        let forge = Forge::open(&root.join(&folder));
        let mut record = forge.record();
        change(&mut record);
        forge.put_record(&record);
    })
}

fn records(place: &Place) -> Vec<(String, Recipe)> {
    let [first, second] = place.backups.clone();
    let (folder, deep) = (first.clone(), first.clone());
    vec![
        recipe("record_of_another_backup", move |root| {
            drop(fs::copy(root.join(&second).join("backup.json"), root.join(&first).join("backup.json")));
        }),
        recipe("record_missing_and_nothing_else", move |root| {
            for name in names(&root.join(&folder)).iter().filter(|name| *name != "backup_manifest") {
                fs::remove_file(root.join(&folder).join(name)).expect("an object");
            }
        }),
        recipe("record_deep", move |root| {
            let text = format!("{{\"format\": 1, \"backup\": {}{}}}", "[".repeat(DEEP), "]".repeat(DEEP));
            fs::write(root.join(&deep).join("backup.json"), text).expect("a record");
        }),
        on_record(place, "record_sizes_overflow", |record| {
            record["archives"][0]["volumes"][0]["size"] = json!(u64::MAX);
            record["archives"][0]["tar_bytes"] = json!(u64::MAX);
            record["stored_bytes"] = json!(u64::MAX);
        }),
        on_record(place, "record_sizes_do_not_add_up", |record| {
            record["stored_bytes"] = json!(1);
            record["files"] = json!(1);
            record["data_bytes"] = json!(1);
        }),
        on_record(place, "record_names_lead_outside", |record| {
            record["archives"][0]["volumes"][0]["name"] = json!("../../../../pgark.json");
        }),
        on_record(place, "record_without_an_archive", |record| {
            record["archives"]
                .as_array_mut()
                .expect("archives")
                .retain(|archive| archive["content"] == "base");
        }),
        on_record(place, "record_has_an_archive_twice", |record| {
            let again = record["archives"][0].clone();
            record["archives"].as_array_mut().expect("archives").push(again);
        }),
        on_record(place, "record_of_another_server", |record| {
            record["system_identifier"] = json!("7000000000000000001")
        }),
        on_record(place, "record_segment_size_zero", |record| record["wal_segment_size"] = json!(0)),
        on_record(place, "record_of_a_newer_format", |record| record["format"] = json!(2)),
        on_record(place, "parent_missing", |record| {
            record["kind"] = json!("incremental");
            record["parent"] = json!("20261121T000000Z-full");
        }),
        on_record(place, "pages_damaged_at_the_source", |record| {
            record["damaged_pages"] = json!(1);
            record["damage"] = json!([{"path": "base/5/112", "blocks": [0], "damaged_pages": 1}]);
        }),
    ]
}

/// Changes the members of an archive of the first backup, and mends all that vouches for it.
fn on_members(
    place: &Place,
    archive: &'static str,
    name: &str,
    change: impl Fn(&mut Vec<Member>) + 'static,
) -> (String, Recipe) {
    let folder = place.backups[0].clone();
    recipe(name, move |root| {
        let forge = Forge::open(&root.join(&folder));
        let mut members = forge.archive(archive);
        change(&mut members);
        forge.put_archive(archive, &members);
    })
}

/// Changes a file of the first backup, of which the manifest then says that it is right.
fn on_file(place: &Place, name: &str, path: &'static str, change: fn(&mut Vec<u8>)) -> (String, Recipe) {
    let folder = place.backups[0].clone();
    recipe(name, move |root| {
        let forge = Forge::open(&root.join(&folder));
        let mut members = forge.archive(BASE);
        let member = members.iter_mut().find(|member| member.path == path.as_bytes()).expect("a member");
        // The four bytes in memory order (backup/backup_manifest.c).
        let sum = |bytes: &[u8]| format!("{:08x}", crc32c::crc32c(bytes).swap_bytes());
        let before = sum(&member.content);
        change(&mut member.content);
        let after = sum(&member.content);
        forge.put_archive(BASE, &members);
        let text = String::from_utf8(forge.manifest()).expect("UTF-8");
        assert!(text.contains(&before), "{before} in {text}");
        forge.put_summed_manifest(&text.replace(&before, &after));
    })
}

fn archives(place: &Place) -> Vec<(String, Recipe)> {
    let (first, lying) = (place.backups[0].clone(), place.backups[0].clone());
    let hostile = |name: &str, path: &'static [u8], kind: u8, link: &'static [u8]| {
        on_members(place, BASE, name, move |members| members.insert(0, Member::new(path, kind, link, b"")))
    };
    vec![
        hostile("tar_traversal", b"../../outside", b'0', b""),
        hostile("tar_absolute", b"/tmp/pg_ark_museum_outside", b'0', b""),
        hostile("tar_device", b"device", b'3', b""),
        hostile("tar_fifo", b"fifo", b'6', b""),
        hostile("tar_hard_link", b"passwd", b'1', b"/etc/passwd"),
        hostile("tar_symbolic_link", b"base/5", b'2', b"/tmp"),
        hostile("tar_link_of_an_unknown_tablespace", b"pg_tblspc/99999", b'2', b"/tmp"),
        hostile("tar_empty_name", b"", b'0', b""),
        on_members(place, BASE, "tar_duplicate", |members| {
            let again = members.iter().find(|member| member.path == b"PG_VERSION").expect("a member").clone();
            members.insert(0, again);
        }),
        on_members(place, BASE, "tar_file_that_the_manifest_does_not_list", |members| {
            members.insert(0, Member::new(b"stranger", b'0', b"", b"hello\n"));
        }),
        on_members(place, BASE, "tar_lacks_a_file", |members| {
            members.retain(|member| member.path != b"PG_VERSION")
        }),
        on_members(place, BASE, "tar_file_of_another_content", |members| {
            members.iter_mut().find(|member| member.path == b"PG_VERSION").expect("a member").content =
                b"14\n".to_vec();
        }),
        on_file(place, "control_file_of_another_server", "global/pg_control", |bytes| {
            bytes[..8].copy_from_slice(&7_000_000_000_000_000_001u64.to_le_bytes());
        }),
        on_file(place, "page_damaged_before_the_backup", "base/5/112", |bytes| bytes[5000] ^= 1),
        on_members(place, "pg_wal.tar.zst", "wal_of_backup_is_garbage", |members| {
            members.iter_mut().find(|member| member.path.len() == 24).expect("a segment").content.fill(b'w');
        }),
        on_members(place, "pg_wal.tar.zst", "wal_of_backup_lacks_a_segment", |members| {
            members.retain(|member| member.path.len() != 24);
        }),
        recipe("frame_expands_without_end", move |root| {
            let bomb = frame(&vec![0; BOMB]);
            replace_volume(&root.join(&first), &bomb);
        }),
        recipe("index_lies", move |root| {
            let forge = Forge::open(&root.join(&lying));
            let path = root.join(&lying).join("base.tar.zst.index");
            let text = fs::read_to_string(&path).expect("an index").replace("\"at\":", "\"at\":1");
            fs::write(&path, &text).expect("an index");
            let mut record = forge.record();
            for archive in record["archives"].as_array_mut().expect("archives") {
                if archive["name"] == BASE {
                    archive["index"]["size"] = json!(text.len());
                    archive["index"]["crc32c"] = json!(format!("{:08x}", crc32c::crc32c(text.as_bytes())));
                }
            }
            forge.put_record(&record);
        }),
    ]
}

/// Puts other bytes in the place of `base.tar`, of which the record says that they are right, and no index.
fn replace_volume(folder: &Path, bytes: &[u8]) {
    let forge = Forge::open(folder);
    fs::write(folder.join(BASE), bytes).expect("an object");
    let mut record = forge.record();
    for archive in record["archives"].as_array_mut().expect("archives") {
        if archive["name"] == BASE {
            let crc = format!("{:08x}", crc32c::crc32c(bytes));
            archive["volumes"][0] = json!({"name": BASE, "size": bytes.len(), "crc32c": crc});
            archive["index"] = Value::Null;
        }
    }
    drop(fs::remove_file(folder.join("base.tar.zst.index")));
    forge.put_record(&record);
}

/// Changes the text of the first backup's manifest; its own checksum is mended.
fn on_manifest(place: &Place, name: &str, from: &'static str, to: &'static str) -> (String, Recipe) {
    let folder = place.backups[0].clone();
    recipe(format!("manifest_{name}"), move |root| {
        let forge = Forge::open(&root.join(&folder));
        let text = String::from_utf8(forge.manifest()).expect("UTF-8");
        assert!(text.contains(from), "{from} in {text}");
        forge.put_summed_manifest(&text.replacen(from, to, 1));
    })
}

fn manifests(place: &Place) -> Vec<(String, Recipe)> {
    let deep = format!("\"Files\": [{}{}],\n\"Files\": [", "[".repeat(DEEP), "]".repeat(DEEP));
    let deep: &'static str = deep.leak();
    let version = "\"Path\": \"PG_VERSION\"";
    vec![
        on_manifest(place, "deep", "\"Files\": [", deep),
        on_manifest(place, "unknown_version", "Manifest-Version\": 1", "Manifest-Version\": 9876599"),
        on_manifest(place, "path_leads_outside", version, "\"Path\": \"../PG_VERSION\""),
        on_manifest(place, "path_is_absolute", version, "\"Path\": \"/PG_VERSION\""),
        on_manifest(place, "path_twice", version, "\"Path\": \"base/5/PG_VERSION\""),
        on_manifest(place, "both_paths", version, "\"Path\": \"PG_VERSION\", \"Encoded-Path\": \"1234\""),
        on_manifest(place, "path_of_odd_digits", version, "\"Encoded-Path\": \"123\""),
        on_manifest(place, "no_path", version, "\"Oops\": 1"),
        on_manifest(place, "size_overflows", "\"Size\": 3,", "\"Size\": 99999999999999999999999,"),
        on_manifest(place, "size_is_no_number", "\"Size\": 3,", "\"Size\": \"x\","),
        on_manifest(place, "unknown_algorithm", "\"CRC32C\"", "\"Oops\""),
        on_manifest(
            place,
            "short_checksum",
            "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"",
            "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0",
        ),
        on_manifest(place, "no_timeline", "\"Timeline\":", "\"Oops\":"),
        on_manifest(place, "no_lsn", "\"Start-LSN\": \"0/", "\"Start-LSN\": \"oops/"),
    ]
}

fn wal(place: &Place) -> Vec<(String, Recipe)> {
    let wal = format!("{}/wal", place.system);
    let (gap, foreign, bomb) =
        (place.segments[1].clone(), place.segments[2].clone(), place.segments[2].clone());
    let (history, index, file) = (wal.clone(), wal.clone(), wal);
    let folder = format!("{}/backups/20261121T000000Z-full", place.system);
    let backup = place.backups[0].clone();
    vec![
        recipe("gap_in_the_wal", move |root| fs::remove_file(root.join(&gap)).expect("a segment")),
        recipe("segment_of_another_server", move |root| {
            let path = root.join(&foreign);
            let mut bytes = zstd::stream::decode_all(&fs::read(&path).expect("a segment")[..]).expect("zstd");
            // xlp_sysid of XLogLongPageHeaderData (access/xlog_internal.h).
            bytes[24..32].copy_from_slice(&7_000_000_000_000_000_001u64.to_le_bytes());
            fs::write(path, frame(&bytes)).expect("a segment");
        }),
        recipe("segment_expands_without_end", move |root| {
            fs::write(root.join(&bomb), frame(&vec![0; BOMB])).expect("a segment");
        }),
        recipe("history_is_nonsense", move |root| {
            fs::write(root.join(&history).join("00000002.history"), "nonsense\n").expect("a history");
        }),
        recipe("wal_index_lies", move |root| {
            let path = root.join(&index).join("00000001/00000000/index.jsonl");
            let text = fs::read_to_string(&path).expect("an index");
            fs::write(path, text.replace("\"commits\":", "\"commits\":9")).expect("an index");
        }),
        recipe("strangers", move |root| {
            let places: [PathBuf; 3] = [
                root.join("notes.txt"),
                root.join(&backup).join("notes.txt"),
                root.join(&file).join("notes.txt"),
            ];
            places.iter().for_each(|path| fs::write(path, "x").expect("a file"));
        }),
        recipe("folder_without_record", move |root| {
            fs::create_dir_all(root.join(&folder)).expect("a folder");
            fs::write(root.join(&folder).join(BASE), "x").expect("an object");
        }),
    ]
}
