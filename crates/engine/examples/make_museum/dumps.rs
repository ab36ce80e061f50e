//! Ways in which a logical backup can be broken: the golden one is put beside the two others, then changed.

use crate::names;
use crate::recipes::{DEEP, Recipe, damage};
use pg_ark_testkit::forge::Forge;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Every exhibit's name and how it is made, in the `system` folder of a repository.
pub fn all(system: &str) -> Vec<(String, Recipe)> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1_logical");
    let record = names(&golden).into_iter().find(|name| name.ends_with("/backup.json")).expect("a record");
    let from = golden.join(&record).parent().expect("a folder").to_path_buf();
    let folder = format!("{system}/backups/{}", from.file_name().expect("a name").to_string_lossy());
    let id = system.rsplit('/').next().expect("a system identifier").to_string();
    let put = move |root: &Path, folder: &str| {
        for name in names(&from) {
            let to = root.join(folder).join(&name);
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            fs::copy(from.join(&name), to).expect("a copy");
        }
        let forge = Forge::open(&root.join(folder));
        let mut record = forge.record();
        record["system_identifier"] = json!(id);
        forge.put_record(&record);
    };
    let then = |name: &str, change: Recipe| -> (String, Recipe) {
        let (put, folder) = (put.clone(), folder.clone());
        let recipe = move |root: &Path| {
            put(root, &folder);
            change(root);
        };
        (name.to_string(), Box::new(recipe))
    };
    let mut recipes = vec![then("logical_whole", Box::new(|_| {}))];
    let objects = [
        ("logical_dump", "app.dump", "template1.dump"),
        ("logical_globals", "globals.sql.zst", "config.tar.zst"),
        ("logical_config", "config.tar.zst", "postgres.dump"),
        ("logical_record", "backup.json", "app.dump"),
    ];
    for (name, object, other) in objects {
        let (object, other) = (format!("{folder}/{object}"), format!("{folder}/{other}"));
        let ways = damage(name, object, other).into_iter();
        recipes.extend(ways.map(|(name, change)| then(&name, change)));
    }
    for (name, change) in records() {
        let at = folder.clone();
        let on_record = move |root: &Path| {
            let forge = Forge::open(&root.join(&at));
            let mut record = forge.record();
            change(&mut record);
            forge.put_record(&record);
        };
        recipes.push(then(name, Box::new(on_record)));
    }
    recipes
}

type Change = (&'static str, fn(&mut Value));

fn app(record: &mut Value) -> &mut Value {
    &mut record["logical"]["databases"][1]
}

fn records() -> [Change; 11] {
    [
        ("logical_names_lead_outside", |record| {
            app(record)["volumes"][0]["name"] = json!("../../../../../pgark.json");
        }),
        ("logical_name_is_absolute", |record| app(record)["volumes"][0]["name"] = json!("/etc/passwd")),
        ("logical_dump_is_anothers", |record| app(record)["volumes"][0]["name"] = json!("postgres.dump")),
        ("logical_volumes_out_of_order", |record| {
            let mut second = app(record)["volumes"][0].clone();
            second["name"] = json!("app.dump.0002");
            app(record)["volumes"].as_array_mut().expect("volumes").push(second);
        }),
        ("logical_database_twice", |record| {
            let again = app(record).clone();
            record["logical"]["databases"].as_array_mut().expect("databases").push(again);
        }),
        ("logical_database_without_a_name", |record| app(record)["name"] = json!("")),
        ("logical_sizes_overflow", |record| {
            app(record)["volumes"][0]["size"] = json!(u64::MAX);
            app(record)["data_bytes"] = json!(u64::MAX);
            record["logical"]["globals_bytes"] = json!(u64::MAX);
        }),
        ("logical_without_dumps", |record| drop(record.as_object_mut().expect("it").remove("logical"))),
        ("logical_named_full", |record| record["kind"] = json!("full")),
        ("logical_with_wal", |record| {
            record["start_lsn"] = json!("0/1D00028");
            record["stop_lsn"] = json!("0/1D00100");
            record["timeline"] = json!(1);
        }),
        ("logical_deep", |record| {
            let deep = (0..DEEP / 40).fold(json!([]), |inner, _| json!([inner]));
            record["logical"]["databases"] = deep;
        }),
    ]
}
