//! Identifiers as text: decoded, quoted where PostgreSQL would quote them.

use std::fmt::Write;

/// Key words that may not be a name as they are: all of `parser/kwlist.h` of PostgreSQL 15 to 18 that are not
/// `UNRESERVED_KEYWORD` in one of them; sorted.
#[rustfmt::skip]
const KEY_WORDS: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization",
    "between", "bigint", "binary", "bit", "boolean", "both", "case", "cast", "char", "character", "check",
    "coalesce", "collate", "collation", "column", "concurrently", "constraint", "create", "cross",
    "current_catalog", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "dec", "decimal", "default", "deferrable", "desc", "distinct",
    "do", "else", "end", "except", "exists", "extract", "false", "fetch", "float", "for", "foreign",
    "freeze", "from", "full", "grant", "greatest", "group", "grouping", "having", "ilike", "in",
    "initially", "inner", "inout", "int", "integer", "intersect", "interval", "into", "is", "isnull",
    "join", "json", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg",
    "json_query", "json_scalar", "json_serialize", "json_table", "json_value", "lateral", "leading",
    "least", "left", "like", "limit", "localtime", "localtimestamp", "merge_action", "national", "natural",
    "nchar", "none", "normalize", "not", "notnull", "null", "nullif", "numeric", "offset", "on", "only",
    "or", "order", "out", "outer", "overlaps", "overlay", "placing", "position", "precision", "primary",
    "real", "references", "returning", "right", "row", "select", "session_user", "setof", "similar",
    "smallint", "some", "substring", "symmetric", "system_user", "table", "tablesample", "then", "time",
    "timestamp", "to", "trailing", "treat", "trim", "true", "union", "unique", "user", "using", "values",
    "varchar", "variadic", "verbose", "when", "where", "window", "with", "xmlattributes", "xmlconcat",
    "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot", "xmlserialize",
    "xmltable",
];

/// `pg_enc` of mb/pg_wchar.h.
const LATIN1: u32 = 8;

/// A name of a database with this encoding as text. Bytes that are not text there are replaced, so that whatever a
/// damaged page holds can be shown.
pub fn decode(name: &[u8], encoding: u32) -> String {
    match encoding {
        LATIN1 => name.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}

/// The name as `quote_ident` shows it (utils/adt/ruleutils.c, `quote_identifier`), but on one line: control
/// characters are shown as escapes.
pub fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && KEY_WORDS.binary_search(&name).is_err();
    if plain {
        return name.to_string();
    }
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for c in name.chars() {
        match c {
            '"' => text.push_str("\"\""),
            c if c.is_control() => {
                let _ = write!(text, "{}", c.escape_default());
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must_be() {
        for (name, expected) in [
            ("orders", "orders"),
            ("_a1", "_a1"),
            ("1a", "\"1a\""),
            ("Orders", "\"Orders\""),
            ("größe", "\"größe\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a.b", "\"a.b\""),
            ("select", "\"select\""),
            ("xmltable", "\"xmltable\""),
            ("begin", "begin"),
            ("", "\"\""),
            ("a\u{1b}[2J\n", "\"a\\u{1b}[2J\\n\""),
        ] {
            assert_eq!(quoted(name), expected);
        }
        assert!(KEY_WORDS.is_sorted());
    }

    #[test]
    fn bytes_become_text() {
        assert_eq!(decode("größe".as_bytes(), 6), "größe");
        assert_eq!(decode(b"gr\xf6\xdfe", 8), "größe");
        assert_eq!(decode(b"gr\xf6\xdfe", 6), "gr\u{fffd}\u{fffd}e");
    }
}
