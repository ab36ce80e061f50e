//! What a drop would take along, asked of the server that it is done in. One walk over `pg_depend` answers both before anything
//! is touched and again inside the transaction that drops.
//!
//! The walk goes where `DROP ... CASCADE` goes (`findDependentObjects`, dependency.c): to all that depends on a thing, and from a
//! part to what it is a part of. What it reaches is *inside* when it belongs to a relation that was named or lies in a schema
//! that was named. Of a kind of object that is not known here nothing is taken for inside.

use super::existing::literal;
use crate::logical::query::Server;
use pg_ark_contract::Result;
use serde::Deserialize;

/// Most things that are told one by one.
const MOST: usize = 30;

/// What is to be dropped.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Relations: schema, name.
    pub tables: Vec<(String, String)>,
    /// Schemas that are emptied.
    pub schemas: Vec<String>,
    /// The schemas themselves are dropped, too.
    pub with_schemas: bool,
}

/// What it would take along.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Reached {
    /// What neither was named nor belongs to it.
    pub outside: Vec<String>,
    /// The named relations that exist and what belongs to them: partitions, sequences, indexes.
    pub relations: Vec<Relation>,
    /// Triggers, policies, privileges and the like of these.
    pub parts: Vec<Part>,
    /// What publications lose.
    pub publications: Vec<Part>,
}

/// A relation that goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `relkind` (pg_class.h).
    pub kind: char,
    /// It was named itself.
    pub named: bool,
    /// It has no life of its own: indexes, sequences of identity columns.
    pub part: bool,
    /// What it is, for people.
    pub words: String,
}

/// Something that is known by the words of a dump's table of contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Part {
    /// `TRIGGER`, `POLICY`, `ACL`, ...
    pub kind: String,
    /// Schema.
    pub schema: String,
    /// `orders stamps`.
    pub name: String,
    /// What it is, for people.
    pub words: String,
}

/// The common part of both questions; ends with the relation `judged`, whose column `inside` says it.
const WALK: &str = "
WITH RECURSIVE space AS (SELECT oid FROM pg_namespace WHERE nspname = ANY ({schemas}::text[])),
named AS (SELECT c.oid FROM jsonb_array_elements({tables}::jsonb) w JOIN pg_namespace n ON n.nspname = w->>0
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w->>1 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')),
family AS (SELECT oid FROM named UNION SELECT x.oid FROM family f, LATERAL (
  SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = f.oid AND c.relispartition AND c.relkind IN ('r', 'p', 'f')
  UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = f.oid
  UNION ALL SELECT reltoastrelid FROM pg_class WHERE oid = f.oid AND reltoastrelid <> 0
  UNION ALL SELECT d.objid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid WHERE d.classid = 'pg_class'::regclass
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = f.oid AND d.deptype IN ('a', 'i') AND s.relkind = 'S') x(oid)),
reach AS (
  SELECT 'pg_class'::regclass::oid AS classid, oid AS objid, 0 AS objsubid FROM named
  UNION SELECT d.classid, d.objid, 0 FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n'
    AND d.refobjid IN (SELECT oid FROM space) AND d.classid <> 'pg_extension'::regclass
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.deptype) = (d.classid, d.objid, 'e'))
  UNION SELECT x.* FROM reach r, LATERAL (
    SELECT d.classid, d.objid, d.objsubid FROM pg_depend d
      WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND (r.objsubid = 0 OR d.refobjsubid = r.objsubid)
        -- Extensions are never inside: what is theirs need not be told.
        AND r.classid <> 'pg_extension'::regclass
    UNION ALL SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_depend d
      WHERE d.classid = r.classid AND d.objid = r.objid AND (r.objsubid = 0 OR d.objsubid = r.objsubid) AND d.deptype IN ('i', 'e')) x),
part AS (SELECT r.*, CASE r.classid
    WHEN 'pg_class'::regclass THEN r.objid
    WHEN 'pg_constraint'::regclass THEN (SELECT nullif(conrelid, 0) FROM pg_constraint WHERE oid = r.objid)
    WHEN 'pg_trigger'::regclass THEN (SELECT coalesce(nullif(k.conrelid, 0), t.tgrelid) FROM pg_trigger t
      LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint WHERE t.oid = r.objid)
    WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = r.objid)
    WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = r.objid)
    WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = r.objid)
    WHEN 'pg_statistic_ext'::regclass THEN (SELECT stxrelid FROM pg_statistic_ext WHERE oid = r.objid)
    WHEN 'pg_type'::regclass THEN (SELECT nullif(coalesce(nullif(t.typrelid, 0), e.typrelid), 0) FROM pg_type t
      LEFT JOIN pg_type e ON e.typarray = t.oid WHERE t.oid = r.objid) END AS rel
  FROM reach r WHERE r.classid NOT IN ('pg_publication_rel'::regclass, 'pg_publication_namespace'::regclass)),
home AS (SELECT p.*, CASE
    WHEN p.rel IS NOT NULL AND p.classid <> 'pg_statistic_ext'::regclass THEN (SELECT relnamespace FROM pg_class WHERE oid = p.rel)
    WHEN p.classid = 'pg_constraint'::regclass THEN (SELECT connamespace FROM pg_constraint WHERE oid = p.objid)
    WHEN p.classid = 'pg_type'::regclass THEN (SELECT typnamespace FROM pg_type WHERE oid = p.objid)
    ELSE (SELECT min(n.refobjid) FROM pg_depend n WHERE n.classid = p.classid AND n.objid = p.objid
      AND n.refclassid = 'pg_namespace'::regclass AND n.deptype = 'n') END AS space FROM part p),
judged AS (SELECT h.*, h.rel IN (SELECT oid FROM family) IS TRUE OR h.classid <> 'pg_extension'::regclass
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.deptype) = (h.classid, h.objid, 'e'))
    AND CASE WHEN h.space IS NOT NULL THEN h.space IN (SELECT oid FROM space)
      -- What has no schema belongs to all that it goes with.
      ELSE (SELECT coalesce(bool_and(n.refobjid IN (SELECT oid FROM space) IS TRUE), false) FROM pg_depend o LEFT JOIN pg_depend n
        ON n.classid = o.refclassid AND n.objid = o.refobjid AND n.refclassid = 'pg_namespace'::regclass AND n.deptype = 'n'
        WHERE o.classid = h.classid AND o.objid = h.objid AND o.deptype IN ('a', 'i')) END AS inside FROM home h),
outside AS (SELECT pg_describe_object(classid, objid, objsubid) AS words, classid <> 'pg_class'::regclass AS minor FROM judged j
  WHERE NOT inside AND NOT (classid = 'pg_type'::regclass AND rel IS NOT NULL)
    AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.oid = j.objid AND j.classid = 'pg_trigger'::regclass AND t.tgisinternal)
    AND NOT EXISTS (SELECT FROM pg_rewrite w WHERE w.oid = j.objid AND j.classid = 'pg_rewrite'::regclass AND w.rulename = '_RETURN')
    AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = j.rel AND c.relnamespace = 'pg_toast'::regnamespace)),
relation AS (SELECT c.oid, n.nspname, c.relname, c.relkind, c.oid IN (SELECT oid FROM named) AS named,
    c.relkind IN ('i', 'I') OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
      AND d.objid = c.oid AND d.deptype = 'i') AS part, c.relnamespace IN (SELECT oid FROM space) AS inside,
    pg_describe_object('pg_class'::regclass, c.oid, 0) AS words
  FROM family f JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.oid <> 'pg_toast'::regnamespace)";

/// What the dump may bring again, in its own words, and what publications lose.
const ANSWER: &str = "
, parts(kind, nspname, name, words) AS (
  SELECT 'TRIGGER', r.nspname, r.relname || ' ' || t.tgname, pg_describe_object('pg_trigger'::regclass, t.oid, 0)
    FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal AND t.tgparentid = 0
  UNION ALL SELECT 'POLICY', r.nspname, r.relname || ' ' || p.polname, pg_describe_object('pg_policy'::regclass, p.oid, 0)
    FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
  UNION ALL SELECT 'RULE', r.nspname, r.relname || ' ' || w.rulename, pg_describe_object('pg_rewrite'::regclass, w.oid, 0)
    FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE w.rulename <> '_RETURN'
  UNION ALL SELECT CASE k.contype WHEN 'f' THEN 'FK CONSTRAINT' ELSE 'CONSTRAINT' END, r.nspname, r.relname || ' ' || k.conname,
      pg_describe_object('pg_constraint'::regclass, k.oid, 0)
    FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid WHERE k.contype IN ('p', 'u', 'x', 'f') AND k.conparentid = 0
  UNION ALL SELECT 'INDEX', r.nspname, r.relname, r.words FROM relation r JOIN pg_class c ON c.oid = r.oid WHERE r.relkind IN ('i', 'I')
    AND NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = r.oid AND k.contype IN ('p', 'u', 'x'))
  UNION ALL SELECT 'STATISTICS', n.nspname, s.stxname, pg_describe_object('pg_statistic_ext'::regclass, s.oid, 0)
    FROM relation r JOIN pg_statistic_ext s ON s.stxrelid = r.oid JOIN pg_namespace n ON n.oid = s.stxnamespace
  UNION ALL SELECT 'ROW SECURITY', r.nspname, r.relname, 'row security of ' || r.words
    FROM relation r JOIN pg_class c ON c.oid = r.oid WHERE c.relrowsecurity
  UNION ALL SELECT 'ACL', r.nspname, CASE r.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || r.relname, 'privileges on ' || r.words
    FROM relation r JOIN pg_class c ON c.oid = r.oid WHERE EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner)
  UNION ALL SELECT 'ACL', r.nspname, 'COLUMN ' || r.relname || '.' || a.attname, 'privileges on column ' || a.attname || ' of ' || r.words
    FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
  UNION ALL SELECT 'SCHEMA', n.nspname, '', 'privileges on schema ' || n.nspname FROM pg_namespace n
    WHERE {with_schemas} AND n.oid IN (SELECT oid FROM space) AND EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee <> n.nspowner)
  UNION ALL SELECT 'SCHEMA', n.nspname, '', pg_describe_object('pg_default_acl'::regclass, a.oid, 0) FROM pg_default_acl a
    JOIN pg_namespace n ON n.oid = a.defaclnamespace WHERE {with_schemas} AND n.oid IN (SELECT oid FROM space)),
lost(kind, nspname, name, words) AS (
  SELECT 'PUBLICATION TABLE', n.nspname, p.pubname || ' ' || c.relname, format('publication %I of the server loses %I.%I: ALTER PUBLICATION %1$I ADD TABLE %2$I.%3$I',
      p.pubname, n.nspname, c.relname) || coalesce(' (' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
      WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])) || ')', '') || coalesce(' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')', '')
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN (SELECT oid FROM family) OR n.oid IN (SELECT oid FROM space)
  UNION ALL SELECT 'SCHEMA', n.nspname, p.pubname, format('publication %I of the server loses schema %I: ALTER PUBLICATION %1$I ADD TABLES IN SCHEMA %2$I', p.pubname, n.nspname)
    FROM pg_publication_namespace r JOIN pg_publication p ON p.oid = r.pnpubid JOIN pg_namespace n ON n.oid = r.pnnspid
    WHERE {with_schemas} AND n.oid IN (SELECT oid FROM space)
  UNION ALL SELECT 'SUBSCRIPTION TABLE', n.nspname, s.subname || ' ' || c.relname, format('subscription %I of the server gets %I.%I no longer: '
      'ALTER SUBSCRIPTION %1$I REFRESH PUBLICATION, WITH (copy_data = false) to keep the restored rows', s.subname, n.nspname, c.relname)
    FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid JOIN pg_class c ON c.oid = r.srrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN (SELECT oid FROM family) OR n.oid IN (SELECT oid FROM space))
SELECT jsonb_build_object(
  'outside', (SELECT coalesce(jsonb_agg(words), '[]') FROM (SELECT words FROM outside ORDER BY minor, words LIMIT {most}) o),
  'relations', (SELECT coalesce(jsonb_agg(jsonb_build_object('schema', nspname, 'name', relname, 'kind', relkind, 'named', named,
    'part', part OR inside, 'words', words) ORDER BY nspname, relname), '[]') FROM relation),
  'parts', (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'schema', nspname, 'name', name, 'words', words) ORDER BY words), '[]') FROM parts),
  'publications', (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'schema', nspname, 'name', name, 'words', words) ORDER BY words), '[]') FROM lost))::text";

/// Asks what dropping `named` would take along in `database`.
///
/// # Errors
/// As [`Server::json`].
pub fn ask(server: &Server<'_>, database: &str, named: &Named) -> Result<Reached> {
    server.json(database, &filled(&[WALK, ANSWER].concat(), named, &[]))
}

/// Holds the tables, so that nobody adds to them.
const LOCKS: &str = "DECLARE item record; lost text;
BEGIN
  SET LOCAL search_path = pg_catalog, pg_temp;
  FOR item IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')
    AND (n.nspname = ANY ({schemas}::text[])
      OR EXISTS (SELECT FROM jsonb_array_elements({tables}::jsonb) w WHERE n.nspname = w->>0 AND c.relname = w->>1))
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e') ORDER BY c.oid
  LOOP
    BEGIN
      EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', item.oid::regclass);
    EXCEPTION WHEN insufficient_privilege OR undefined_table OR syntax_error THEN
      -- An owner without rights may still drop it; what is gone has a number for a name and needs no lock.
      NULL;
    END;
  END LOOP;";

/// Judges what is there now.
const REFUSAL: &str = "
  SELECT string_agg(words, ', ') INTO lost FROM (SELECT words FROM outside UNION SELECT words FROM relation r
    WHERE NOT r.named AND NOT r.part AND NOT r.inside
      AND NOT EXISTS (SELECT FROM jsonb_array_elements({brought}::jsonb) w WHERE r.nspname = w->>0 AND r.relname = w->>1) LIMIT {most}) l;
  IF lost IS NOT NULL THEN
    RAISE EXCEPTION '--clean would drop what was not named' USING DETAIL = lost;
  END IF;
END";

/// A block that fails when `named` would take along what was not named and is not among `brought`: schemas and names. It locks
/// the tables first: what others added to them meanwhile is there by then, and nothing comes after.
pub fn guard(named: &Named, brought: &[(String, String)]) -> String {
    format!("DO {};\n", literal(&filled(&[LOCKS, WALK, REFUSAL].concat(), named, brought)))
}

/// The template with its values; what stands in a value is no place for another.
fn filled(template: &str, named: &Named, brought: &[(String, String)]) -> String {
    let pairs = |pairs: &[(String, String)]| literal(&serde_json::json!(pairs).to_string());
    let (mut sql, mut rest) = (String::new(), template);
    while let Some((before, (place, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        sql.push_str(before);
        sql.push_str(&match place {
            "tables" => pairs(&named.tables),
            "brought" => pairs(brought),
            "most" => MOST.to_string(),
            "with_schemas" => named.with_schemas.to_string(),
            _ => {
                let names: Vec<String> = named.schemas.iter().map(|name| literal(name)).collect();
                format!("ARRAY[{}]", names.join(", "))
            }
        });
        rest = after;
    }
    sql + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_once() {
        let named = Named {
            tables: vec![("s".into(), "{schemas}'".into())],
            schemas: vec!["{tables}".into()],
            with_schemas: true,
        };
        let brought = [("{most}".to_string(), "b".to_string())];
        let sql = filled("{tables} {schemas} {brought} {most} {with_schemas};", &named, &brought);
        assert_eq!(sql, "E'[[\"s\",\"{schemas}''\"]]' ARRAY[E'{tables}'] E'[[\"{most}\",\"b\"]]' 30 true;");
    }
}
