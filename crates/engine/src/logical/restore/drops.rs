//! SQL that makes room: what `--clean` drops, inside the transaction that restores, behind the block of [`reach`](super::reach)
//! that refuses what was not named.

use super::existing::{literal, qualified};
use super::reach::Relation;

/// How relations are dropped, by `relkind` (pg_class.h); what reads others goes first.
const KINDS: [(&str, &[char]); 5] = [
    ("MATERIALIZED VIEW", &['m']),
    ("VIEW", &['v']),
    ("FOREIGN TABLE", &['f']),
    ("TABLE", &['r', 'p']),
    ("SEQUENCE", &['S']),
];

/// Drops relations that are there; of those of one kind, which may refer to each other, all at once.
pub fn of_tables<'a>(relations: impl Iterator<Item = &'a Relation> + Clone) -> String {
    KINDS
        .into_iter()
        .filter_map(|(kind, letters)| {
            let of_kind = relations.clone().filter(|relation| letters.contains(&relation.kind));
            let names: Vec<String> = of_kind.map(|r| qualified(Some(&r.schema), &r.name)).collect();
            (!names.is_empty()).then(|| format!("DROP {kind} IF EXISTS {};\n", names.join(", ")))
        })
        .collect()
}

/// Empties schemas. What an extension put there stays, and what is a part of something else goes with it.
pub fn of_schemas(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let body = format!(
        "DECLARE item record;
BEGIN
  SET LOCAL search_path = pg_catalog, pg_temp;
  FOR item IN SELECT DISTINCT d.classid, d.objid FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
      WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n' AND n.nspname = ANY (ARRAY[{}]::text[])
        AND d.classid <> 'pg_extension'::regclass
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.objsubid) = (d.classid, d.objid, 0) AND e.deptype IN ('e', 'i'))
  LOOP
    -- What went with another is no object any more and has no name.
    SELECT i.* INTO item FROM pg_identify_object(item.classid, item.objid, 0) i;
    IF item.identity IS NOT NULL THEN
      EXECUTE format('DROP %s %s CASCADE', CASE
        WHEN item.type IN ('function', 'procedure', 'aggregate') THEN 'ROUTINE'
        WHEN item.type = 'statistics object' THEN 'STATISTICS' ELSE item.type END, item.identity);
    END IF;
  END LOOP;
END",
        names.join(", ")
    );
    format!("DO {};\n", literal(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_refer_to_each_other_go_together() {
        let relation = |kind: char, name: &str| Relation {
            kind,
            name: name.into(),
            schema: "s".into(),
            ..Relation::default()
        };
        let all = [relation('p', "a"), relation('v', "v"), relation('r', "b\"c"), relation('i', "i")];
        let expected =
            "DROP VIEW IF EXISTS \"s\".\"v\";\nDROP TABLE IF EXISTS \"s\".\"a\", \"s\".\"b\"\"c\";\n";
        assert_eq!(of_tables(all.iter()), expected);
    }
}
