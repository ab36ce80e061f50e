//! SQL that makes room: what `--clean` drops, inside the transaction that restores.
//!
//! Nothing that is not named is ever dropped: where other objects depend on what goes, PostgreSQL refuses, or the last statement
//! does, and all stays as it was.

use super::existing::{literal, qualified};
use crate::logical::toc::Entry;

/// Drops tables and the like, if they are there; of those of one kind, which may refer to each other, all at once.
pub fn of_tables<'a>(entries: impl Iterator<Item = &'a Entry> + Clone, rename: Option<&str>) -> String {
    // What reads others goes first.
    ["MATERIALIZED VIEW", "VIEW", "FOREIGN TABLE", "TABLE", "SEQUENCE"]
        .into_iter()
        .filter_map(|kind| {
            let of_kind = entries.clone().filter(|entry| entry.kind == kind);
            let names: Vec<String> =
                of_kind.map(|e| qualified(e.schema.as_deref(), rename.unwrap_or(&e.name))).collect();
            (!names.is_empty()).then(|| format!("DROP {kind} IF EXISTS {};\n", names.join(", ")))
        })
        .collect()
}

/// What is outside of the schemas `$1` and would be missed: everything that `DROP ... CASCADE` can reach.
const OUTSIDE: &str = "
  SELECT x.classid, x.objid, x.objsubid FROM (
    SELECT 'pg_class'::regclass::oid, c.oid, 0, c.relnamespace FROM pg_class c WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S')
    UNION ALL SELECT 'pg_class'::regclass, a.attrelid, a.attnum, c.relnamespace FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'm', 'f', 'p', 'c')
    UNION ALL SELECT 'pg_proc'::regclass, oid, 0, pronamespace FROM pg_proc
    UNION ALL SELECT 'pg_type'::regclass, oid, 0, typnamespace FROM pg_type
    UNION ALL SELECT 'pg_constraint'::regclass, oid, 0, connamespace FROM pg_constraint
    UNION ALL SELECT 'pg_operator'::regclass, oid, 0, oprnamespace FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, 0, opcnamespace FROM pg_opclass
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, 0, cfgnamespace FROM pg_ts_config
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 0, stxnamespace FROM pg_statistic_ext
    UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, 0, c.relnamespace FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid
    UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, 0, c.relnamespace FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    UNION ALL SELECT 'pg_trigger'::regclass, t.oid, 0, c.relnamespace FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    UNION ALL SELECT 'pg_policy'::regclass, p.oid, 0, c.relnamespace FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, 0, c.relnamespace FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    UNION ALL SELECT 'pg_extension'::regclass, oid, 0, 0 FROM pg_extension
    UNION ALL SELECT 'pg_event_trigger'::regclass, oid, 0, 0 FROM pg_event_trigger
    UNION ALL SELECT 'pg_cast'::regclass, oid, 0, 0 FROM pg_cast
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 0, 0 FROM pg_foreign_server
    UNION ALL SELECT 'pg_language'::regclass, oid, 0, 0 FROM pg_language
  ) AS x(classid, objid, objsubid, schema) LEFT JOIN pg_namespace n ON n.oid = x.schema
  WHERE n.nspname IS NULL OR n.nspname <> ALL (schemas) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// Empties schemas. What an extension put there stays. Fails when anything outside of them would go, too.
pub fn of_schemas(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let body = format!(
        "DECLARE schemas text[] := ARRAY[{}]::text[]; item record; lost text;
BEGIN
  SET LOCAL search_path = pg_catalog, pg_temp;
  CREATE TEMPORARY TABLE pg_ark_outside ON COMMIT DROP AS
    SELECT *, pg_describe_object(classid, objid, objsubid) AS words FROM ({OUTSIDE}) o;
  FOR item IN SELECT DISTINCT d.classid, d.objid FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
      WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n' AND n.nspname = ANY (schemas)
        AND d.classid <> 'pg_extension'::regclass
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.deptype) = (d.classid, d.objid, 'e'))
  LOOP
    -- What went with another is no object any more and has no name.
    SELECT i.* INTO item FROM pg_identify_object(item.classid, item.objid, 0) i;
    IF item.identity IS NOT NULL THEN
      EXECUTE format('DROP %s %s CASCADE', CASE
        WHEN item.type IN ('function', 'procedure', 'aggregate') THEN 'ROUTINE'
        WHEN item.type = 'statistics object' THEN 'STATISTICS' ELSE item.type END, item.identity);
    END IF;
  END LOOP;
  SELECT string_agg(b.words, ', ') INTO lost FROM (SELECT * FROM pg_temp.pg_ark_outside b WHERE NOT EXISTS (
    SELECT FROM ({OUTSIDE}) o WHERE (o.classid, o.objid, o.objsubid) = (b.classid, b.objid, b.objsubid)) LIMIT 20) b;
  IF lost IS NOT NULL THEN
    RAISE EXCEPTION 'other objects depend on schema %', array_to_string(schemas, ', ') USING DETAIL = lost;
  END IF;
  DROP TABLE pg_temp.pg_ark_outside;
END",
        names.join(", ")
    );
    format!("DO {};\nSET LOCAL search_path = '';\n", literal(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_refer_to_each_other_go_together() {
        let entry = |kind: &str, name: &str| Entry {
            kind: kind.into(),
            name: name.into(),
            schema: Some("s".into()),
            ..Entry::default()
        };
        let all = [entry("TABLE", "a"), entry("VIEW", "v"), entry("TABLE", "b\"c"), entry("INDEX", "i")];
        let expected =
            "DROP VIEW IF EXISTS \"s\".\"v\";\nDROP TABLE IF EXISTS \"s\".\"a\", \"s\".\"b\"\"c\";\n";
        assert_eq!(of_tables(all.iter(), None), expected);
        assert_eq!(of_tables(all[..1].iter(), Some("n")), "DROP TABLE IF EXISTS \"s\".\"n\";\n");
    }
}
