//! Is the data the same, is it consistent?

use crate::Cluster;
use std::collections::BTreeMap;

/// Row count and checksum of every permanent table and sequence of every database, by `database schema.table`;
/// tablespaces and roles by their names.
pub type Checksums = BTreeMap<String, String>;

/// Hashes do not depend on the order of rows. Row images are wrapped in ROW(), because a column may be named like
/// the alias. Unlogged tables are left out: recovery empties them.
const TABLES: &str = r"
SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 3;
SELECT format('SELECT %L, count(*), coalesce(sum(hashtextextended(ROW(%s)::text, 0)::numeric), 0) FROM %s t',
              format('%I %I.%I', current_database(), n.nspname, c.relname),
              CASE c.relkind WHEN 'S' THEN :'sequence' ELSE 't.*' END, c.oid::regclass)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'S') AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (c.relkind <> 'm' OR c.relispopulated)
 ORDER BY 1 \gexec
";

const SHARED: &str = r"
SELECT 'tablespace ' || spcname, '', '' FROM pg_tablespace UNION ALL SELECT 'role ' || rolname, '', '' FROM pg_roles
UNION ALL SELECT 'database ' || datname, '', '' FROM pg_database ORDER BY 1
";

/// The four sums of pgbench's tables that every transaction moves by the same amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balances {
    /// Sum of `pgbench_accounts.abalance`.
    pub accounts: i64,
    /// Sum of `pgbench_branches.bbalance`.
    pub branches: i64,
    /// Sum of `pgbench_tellers.tbalance`.
    pub tellers: i64,
    /// Sum of `pgbench_history.delta`.
    pub history: i64,
    /// Rows of `pgbench_history`: transactions since pgbench -i.
    pub transactions: i64,
}

impl Cluster {
    /// Counts and checksums of everything a user has put into this server.
    #[track_caller]
    pub fn checksums(&self) -> Checksums {
        self.checksums_of("t.*")
    }

    /// [`checksums`](Self::checksums) of what a dump takes along: the values of sequences without `log_cnt`, which tells
    /// only how many of them WAL has already.
    #[track_caller]
    pub fn logical_checksums(&self) -> Checksums {
        self.checksums_of("t.last_value, t.is_called")
    }

    #[track_caller]
    fn checksums_of(&self, sequence: &str) -> Checksums {
        let tables = format!("\\set sequence '{sequence}'\n{TABLES}");
        let databases = self.psql("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1");
        let mut text = self.psql(SHARED);
        for database in databases.lines() {
            text.push('\n');
            text.push_str(&self.psql_db(database, &tables));
        }
        let entry = |line: &str| {
            let mut parts = line.rsplitn(3, '|').map(str::to_string);
            let (sum, count) = (parts.next()?, parts.next()?);
            Some((parts.next()?, format!("{count} rows, checksum {sum}")))
        };
        text.lines().filter_map(entry).collect()
    }

    /// The sums of pgbench's tables.
    ///
    /// # Panics
    /// When the tables are not there.
    #[track_caller]
    pub fn balances(&self) -> Balances {
        let text = self.psql(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), \
             (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
             (SELECT count(*) FROM pgbench_history)",
        );
        let numbers: Vec<i64> = text.split('|').map(|part| part.parse().expect("a sum")).collect();
        let &[accounts, branches, tellers, history, transactions] = numbers.as_slice() else {
            panic!("unexpected sums: {text}")
        };
        Balances { accounts, branches, tellers, history, transactions }
    }
}

impl Balances {
    /// Fails unless the four sums are equal: no transaction was restored by half.
    #[track_caller]
    pub fn assert_consistent(&self) {
        let equal = [self.branches, self.tellers, self.history].iter().all(|sum| *sum == self.accounts);
        assert!(equal, "a transaction is there by half: {self:?}");
    }
}

/// Fails with the differences unless both servers hold the same data.
#[track_caller]
pub fn assert_same_data(original: &Checksums, restored: &Checksums) {
    let names: std::collections::BTreeSet<&String> = original.keys().chain(restored.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| original.get(*name) != restored.get(*name))
        .map(|name| format!("{name}: {:?} became {:?}", original.get(name), restored.get(name)))
        .collect();
    assert!(differences.is_empty(), "the data differs:\n{}", differences.join("\n"));
}
