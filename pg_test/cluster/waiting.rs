//! What a caller that waits for its backup hears.

use crate::support::ready;
use pg_ark_testkit::Cluster;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn warnings_of_a_backup_reach_the_client() {
    let ready = ready(Cluster::builder().external_config());
    let secret = ready.server.base().join("etc/start.conf");
    fs::write(&secret, "auto\n").expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("a mode");
    let answer = ready.server.query("postgres", "postgres", "SELECT ark.backup_start(wait => true)");
    let answer = answer.expect("a backup");
    let warnings: Vec<_> = answer.messages.iter().filter(|said| said.severity == "WARNING").collect();
    assert!(warnings.len() == 1 && warnings[0].message.contains("start.conf"), "{answer:?}");
    assert_eq!(ready.backup_row("status", &answer.rows), "complete");
}
