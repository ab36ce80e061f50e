//! Selections from the tables of contents of real dumps.

use super::*;
use crate::logical::golden_dumps::GOLDEN;

/// Lines `KIND schema.name`, sorted.
fn shown(graph: &Graph<'_>, ids: &BTreeSet<u32>) -> Vec<String> {
    let mut lines: Vec<String> =
        graph.entries(ids).map(|entry| format!("{} {}", entry.kind, entry.full_name())).collect();
    lines.sort();
    lines
}

fn in_every_version(test: impl Fn(&Graph<'_>)) {
    for (version, bytes, _) in GOLDEN {
        let toc = Toc::read(&mut &**bytes).unwrap();
        eprintln!("version {version}");
        test(&Graph::new(&toc));
    }
}

fn only(graph: &Graph<'_>, text: &str) -> u32 {
    let found = graph.named(text);
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    found[0].id
}

#[test]
fn a_table_brings_all_that_is_its_own() {
    in_every_version(|graph| {
        let selection = graph.tables(&[only(graph, "sales.orders")]);
        let inside = [
            "ACL sales.COLUMN orders.t",
            "ACL sales.TABLE orders",
            "COMMENT sales.COLUMN orders.t",
            "COMMENT sales.CONSTRAINT orders_pkey ON orders",
            "COMMENT sales.TABLE orders",
            "COMMENT sales.TRIGGER tr ON orders",
            "CONSTRAINT sales.orders orders_pkey",
            "DEFAULT sales.orders no",
            "INDEX sales.ot",
            "ROW SECURITY sales.orders",
            "RULE sales.orders ru",
            "SEQUENCE OWNED BY sales.orders_no_seq",
            "SEQUENCE SET sales.orders_id_seq",
            "SEQUENCE SET sales.orders_no_seq",
            "SEQUENCE sales.orders_id_seq",
            "SEQUENCE sales.orders_no_seq",
            "STATISTICS sales.st",
            "TABLE DATA sales.orders",
            "TABLE sales.orders",
            "TRIGGER sales.orders tr",
        ];
        assert_eq!(shown(graph, &selection.inside), inside);
        let after = [
            "FK CONSTRAINT sales.orders orders_c_fkey",
            "POLICY sales.orders po",
            "PUBLICATION TABLE sales.pub orders",
        ];
        assert_eq!(shown(graph, &selection.after), after);
        let needs = ["DOMAIN sales.pos", "FUNCTION sales.tf()", "SCHEMA sales", "TYPE sales.mood"];
        assert_eq!(shown(graph, &graph.needs(&selection.inside)), needs);
    });
}

#[test]
fn names_that_begin_alike_are_told_apart() {
    in_every_version(|graph| {
        let selection = graph.tables(&[only(graph, "sales.order")]);
        let inside = ["CONSTRAINT sales.order order_pkey", "TABLE DATA sales.order", "TABLE sales.order"];
        assert_eq!(shown(graph, &selection.inside), inside);
        assert!(selection.after.is_empty());
        let both = graph.tables(&[only(graph, "order"), only(graph, "\"order items\"")]);
        assert!(shown(graph, &both.inside).contains(&"FK CONSTRAINT sales.order items items fk".to_string()));
        assert!(both.after.is_empty());
    });
}

#[test]
fn a_partitioned_table_brings_its_partitions_and_a_partition_comes_alone() {
    in_every_version(|graph| {
        let selection = graph.tables(&[only(graph, "ev")]);
        let inside = [
            "CONSTRAINT public.ev ev_pkey",
            "CONSTRAINT public.ev1 ev1_pkey",
            "INDEX ATTACH public.ev1_id_idx",
            "INDEX ATTACH public.ev1_pkey",
            "INDEX public.ev1_id_idx",
            "INDEX public.ev_id_idx",
            "TABLE ATTACH public.ev1",
            "TABLE DATA public.ev1",
            "TABLE public.ev",
            "TABLE public.ev1",
        ];
        assert_eq!(shown(graph, &selection.inside), inside);
        assert!(selection.after.is_empty());
        let selection = graph.tables(&[only(graph, "ev1")]);
        let inside = [
            "CONSTRAINT public.ev1 ev1_pkey",
            "INDEX public.ev1_id_idx",
            "TABLE DATA public.ev1",
            "TABLE public.ev1",
        ];
        assert_eq!(shown(graph, &selection.inside), inside);
        let after =
            ["INDEX ATTACH public.ev1_id_idx", "INDEX ATTACH public.ev1_pkey", "TABLE ATTACH public.ev1"];
        assert_eq!(shown(graph, &selection.after), after);
    });
}

#[test]
fn a_schema_brings_what_it_holds() {
    in_every_version(|graph| {
        let selection = graph.schemas(&["sales".to_string()]);
        let inside = shown(graph, &selection.inside);
        assert!(
            inside.contains(&"SCHEMA sales".to_string())
                && inside.contains(&"FUNCTION sales.tf()".to_string())
        );
        assert!(
            inside.contains(&"DEFAULT ACL sales.DEFAULT PRIVILEGES FOR TABLES".to_string()),
            "{inside:?}"
        );
        assert!(inside.iter().all(|line| line.contains(" sales")), "{inside:?}");
        assert_eq!(shown(graph, &selection.after), ["PUBLICATION TABLE sales.pub orders"]);
        assert!(graph.needs(&selection.inside).is_empty());
        assert!(graph.has_schema("sales") && graph.has_schema("public") && !graph.has_schema("sale"));
    });
}

#[test]
fn a_view_needs_what_it_reads() {
    in_every_version(|graph| {
        let selection = graph.tables(&[only(graph, "mv")]);
        let inside =
            ["INDEX public.mv_id_idx", "MATERIALIZED VIEW DATA public.mv", "MATERIALIZED VIEW public.mv"];
        assert_eq!(shown(graph, &selection.inside), inside);
        let needs = shown(graph, &graph.needs(&selection.inside));
        assert!(needs.contains(&"TABLE sales.orders".to_string()), "{needs:?}");
    });
}

#[test]
fn names_are_found_as_they_are() {
    in_every_version(|graph| {
        for text in ["hos;t\nile x", "public.hos;t\nile x", "\"hos;t\nile x\"", "public.\"hos;t\nile x\""] {
            only(graph, text);
        }
        for text in [
            "Orders",
            "orders ",
            "\"sales.orders\"",
            "\"sales\".",
            "\"",
            "a.b.c",
            "",
            "public.orders",
            "\"a\"\"b",
        ] {
            assert!(graph.named(text).is_empty(), "{text}");
        }
    });
    assert_eq!(unquoted("\"a.b\".\"c\"\"d\""), Some((Some("a.b".into()), "c\"d".into())));
    assert_eq!(unquoted("a.\"b\""), Some((Some("a".into()), "b".into())));
    assert_eq!(unquoted("a.b"), None);
}

#[test]
fn a_sequence_is_owned_only_beside_its_table() {
    in_every_version(|graph| {
        let (table, sequence) = (only(graph, "sales.orders"), only(graph, "orders_no_seq"));
        let owned = "SEQUENCE OWNED BY sales.orders_no_seq".to_string();
        let alone = graph.tables(&[sequence]);
        assert!(!shown(graph, &alone.inside).contains(&owned));
        assert_eq!(shown(graph, &alone.after), [owned.as_str()]);
        assert!(shown(graph, &graph.tables(&[table, sequence]).inside).contains(&owned));
        let sequence = BTreeSet::from([sequence]);
        let needed = shown(graph, &graph.only_needed(&sequence, &BTreeSet::new()));
        assert_eq!(needed, ["SEQUENCE SET sales.orders_no_seq", "SEQUENCE sales.orders_no_seq"]);
        assert!(shown(graph, &graph.only_needed(&sequence, &BTreeSet::from([table]))).contains(&owned));
    });
}
