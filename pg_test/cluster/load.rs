//! Backups while everything happens to the server that a backup can get wrong. Each round is backed up, restored
//! beside the server that goes on, started, and checked by properties that hold at every moment.

use crate::support::{Ready, ready};
use pg_ark_testkit::{Cluster, LONG, Scratch, Workload, wait_until};
use std::path::PathBuf;

/// Rounds when `PG_ARK_LOAD_ROUNDS` does not say.
const ROUNDS: usize = 20;

/// One row after the other, without gaps: the n-th is committed before the next is begun.
const JOURNAL: &str =
    "INSERT INTO journal SELECT coalesce(max(i), 0) + 1, md5(random()::text) FROM journal;\n";

/// Tables come, grow, are rewritten, emptied and go.
const TABLES: &str = r"
DROP TABLE IF EXISTS churn_:client_id;
CREATE TABLE churn_:client_id TABLESPACE fast AS SELECT i, md5(i::text) AS t FROM generate_series(1, 3000) i;
CREATE INDEX ON churn_:client_id (i);
INSERT INTO churn_:client_id SELECT i, md5(i::text) FROM generate_series(3001, 9000) i;
DELETE FROM churn_:client_id WHERE i % 3 = 0;
VACUUM FULL churn_:client_id;
TRUNCATE churn_:client_id;
INSERT INTO churn_:client_id SELECT i, 'again' FROM generate_series(1, 2000) i;
VACUUM churn_:client_id;
ALTER TABLE churn_:client_id SET TABLESPACE pg_default;
VACUUM FULL pgbench_tellers;
DROP TABLE churn_:client_id;
";

/// Databases come and go, copied through WAL and as files.
const DATABASES: &str = r"
DROP DATABASE IF EXISTS passing_:client_id;
CREATE DATABASE passing_:client_id STRATEGY wal_log;
DROP DATABASE passing_:client_id;
CREATE DATABASE passing_:client_id STRATEGY file_copy TABLESPACE fast;
DROP DATABASE passing_:client_id;
";

/// Everything that writes. It goes on over all rounds.
struct Load {
    _scripts: Scratch,
    running: Vec<Workload>,
}

impl Load {
    fn start(server: &Cluster) -> Load {
        let scripts = Scratch::new("load");
        let script = |name: &str, text: &str| -> PathBuf {
            let path = scripts.path().join(name);
            std::fs::write(&path, text).expect("a script");
            path
        };
        // Without limits the writers would leave the backup nothing of a small machine.
        let start = |script: &str, clients: &str, rate: &str| {
            let script = if script.is_empty() { vec![] } else { vec!["-f", script] };
            let limits = ["-n", "-T", "3600", "-c", clients, "-R", rate];
            server.pgbench_background(&[&limits[..], &script].concat())
        };
        let tables = script("tables", TABLES).display().to_string();
        let databases = script("databases", DATABASES).display().to_string();
        let journal = script("journal", JOURNAL).display().to_string();
        let running = vec![
            start("", "4", "150"),
            start(&tables, "2", "8"),
            start(&databases, "1", "2"),
            start(&journal, "1", "50"),
        ];
        Load { _scripts: scripts, running }
    }

    #[track_caller]
    fn assert_running(&mut self) {
        for workload in &mut self.running {
            assert!(workload.is_running(), "a client was disconnected: {}", workload.log());
        }
    }

    #[track_caller]
    fn stop(mut self, server: &Cluster) {
        // The first waits until no session of any of them is left.
        let first = self.running.swap_remove(0);
        self.running.clear();
        first.stop(server);
    }
}

fn journal(server: &Cluster) -> u64 {
    server.psql("SELECT coalesce(max(i), 0) FROM journal").parse().expect("a number")
}

/// `rate` is in kB per second, 0 for no limit.
#[track_caller]
fn round(ready: &Ready, rate: u32) {
    let server = &ready.server;
    let (before, transactions) = (journal(server), server.balances().transactions);
    let backup = server.psql(&format!("SET pg_ark.max_rate = {rate}; SELECT ark.backup_start(wait => true)"));
    let after = journal(server);
    assert_eq!(ready.backup_row("damaged_pages", &backup), "0");

    let copy = ready.restore_beside(&backup);
    copy.server.balances().assert_consistent();
    assert!(copy.server.balances().transactions >= transactions, "a committed transaction is missing");
    let kept = journal(&copy.server);
    assert!((before..=after).contains(&kept), "row {kept} is the last, {before} was, {after} would be");
    let gaps = copy.server.psql("SELECT count(*), count(DISTINCT i) FROM journal");
    assert_eq!(gaps, format!("{kept}|{kept}"), "rows 1 to {kept} are there, once each");
    assert_eq!(copy.server.psql("SELECT count(*), sum(i), max(t) FROM still"), "20000|200010000|still");
    copy.server.amcheck();
    drop(copy);
    std::fs::remove_dir_all(ready.backup_folder(&backup)).expect("remove the backup");
}

#[test]
fn backups_under_load_are_whole_round_after_round() {
    let rounds = std::env::var("PG_ARK_LOAD_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |text| text.parse().expect("PG_ARK_LOAD_ROUNDS is a number"));
    let ready = ready(Cluster::builder().conf("max_wal_size = '2GB'").conf("autovacuum_naptime = '1s'"));
    let server = &ready.server;
    server.create_tablespace("fast");
    server.pgbench(&["-i", "-q", "-s", "2"]);
    server.psql(
        "CREATE TABLE journal (i bigint PRIMARY KEY, t text);
         CREATE TABLE still AS SELECT i, 'still' AS t FROM generate_series(1, 20000) i",
    );
    let mut load = Load::start(server);
    wait_until("the load", LONG, || journal(server) > 20 && server.balances().transactions > 20);
    for number in 1..=rounds {
        let began = std::time::Instant::now();
        // Every other one takes its time, so that more happens between the first file and the last.
        round(&ready, if number % 2 == 0 { 32 << 10 } else { 0 });
        load.assert_running();
        println!("round {number} of {rounds}: {:.1} s", began.elapsed().as_secs_f64());
    }
    load.stop(server);
    ready.assert_nothing_left_behind();
    server.balances().assert_consistent();
}
