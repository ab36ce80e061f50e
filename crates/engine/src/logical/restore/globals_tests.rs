use super::*;

const TEXT: &str = "SET default_transaction_read_only = off;\nSET standard_conforming_strings = off;\n\
    CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\nCREATE ROLE a;\nALTER ROLE a WITH PASSWORD 'x';\n\
    CREATE ROLE \"B b\";\nCREATE ROLE c;\nALTER ROLE a SET work_mem TO '1MB';\nGRANT a TO \"B b\" GRANTED BY postgres;\n\
    GRANT a TO c;\nCOMMENT ON ROLE a IS 'x';\n\
    CREATE TABLESPACE fast OWNER a LOCATION '/old/fast';\nALTER TABLESPACE fast SET (random_page_cost='1');\n\
    GRANT ALL ON TABLESPACE fast TO a;\nCREATE TABLESPACE slow OWNER a LOCATION E'/old/sl\\\\ow';\n\
    CREATE TABLESPACE inside OWNER a LOCATION 'pg_tblspc/16400';\n";

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn tablespaces_go_elsewhere_and_the_first_role_is_there() {
    let places = [("fast".to_string(), "/new/it's".to_string())].into();
    let rules = Rules { created: set(&["postgres"]), places, ..Rules::default() };
    let script = script(TEXT.as_bytes(), &rules).unwrap();
    let text = String::from_utf8(script.text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        !lines.contains(&"CREATE ROLE postgres;") && lines.contains(&"ALTER ROLE postgres WITH SUPERUSER;")
    );
    assert!(lines.contains(&"CREATE TABLESPACE fast OWNER a LOCATION E'/new/it''s';"), "{lines:?}");
    assert!(lines.contains(&"CREATE TABLESPACE slow OWNER a LOCATION E'/old/sl\\\\ow';"), "{lines:?}");
    assert!(lines.contains(&"CREATE TABLESPACE inside OWNER a LOCATION E'';"), "{lines:?}");
    assert!(!text.contains("strings = off"));
    assert_eq!(script.roles, ["a", "B b", "c"]);
    assert_eq!(script.tablespaces, ["fast", "slow", "inside"]);
    assert!(script.left_out.is_empty());
}

#[test]
fn what_is_there_stays_as_it_is() {
    let rules = Rules {
        in_use: true,
        kept_roles: set(&["a", "B b"]),
        kept_tablespaces: set(&["fast"]),
        ..Rules::default()
    };
    let script = script(TEXT.as_bytes(), &rules).unwrap();
    let text = String::from_utf8(script.text).unwrap();
    assert_eq!(script.left_out, ["role \"a\"", "role \"B b\"", "tablespace \"fast\""]);
    assert_eq!(script.roles, ["postgres", "c"]);
    assert_eq!(script.tablespaces, ["slow", "inside"]);
    assert!(!text.contains("ROLE a") && !text.contains("fast"), "{text}");
    assert!(text.contains("GRANT a TO c;"), "a new role becomes a member");
}

#[test]
fn promise_5_a_server_in_use_gains_new_things_and_nothing_else() {
    const TEXT: &str = "CREATE ROLE bob;\nALTER ROLE bob WITH SUPERUSER;\nCREATE ROLE newone;\nALTER ROLE newone WITH SUPERUSER;\n\
        GRANT newone TO bob;\nGRANT newone TO other;\nGRANT bob TO newone;\nGRANT SET ON PARAMETER work_mem TO bob;\n\
        GRANT SET ON PARAMETER work_mem TO PUBLIC;\nGRANT SET ON PARAMETER work_mem TO newone;\n\
        ALTER ROLE other WITH SUPERUSER;\nCOMMENT ON ROLE other IS 'x';\nGRANT ALL ON TABLESPACE other TO newone;\n\
        ALTER ROLE ALL SET work_mem TO '3MB';\n";
    let rules = Rules { in_use: true, kept_roles: set(&["bob"]), ..Rules::default() };
    let into = script(TEXT.as_bytes(), &rules).unwrap();
    let text = String::from_utf8(into.text.strip_prefix(BEGIN).unwrap().to_vec()).unwrap();
    assert_eq!(
        text,
        "CREATE ROLE newone;\nALTER ROLE newone WITH SUPERUSER;\nGRANT bob TO newone;\nGRANT SET ON PARAMETER work_mem TO newone;\n"
    );
    let expected = [
        "role \"bob\"",
        "membership of role \"bob\" in role \"newone\"",
        "membership of role \"other\" in role \"newone\"",
        "right of role \"bob\" to parameter \"work_mem\"",
        "right of role \"public\" to parameter \"work_mem\"",
        "role \"other\"",
        "tablespace \"other\"",
        "settings of all roles",
    ];
    assert_eq!(into.left_out, expected);
    // A new cluster gets everything.
    let fresh = script(TEXT.as_bytes(), &Rules::default()).unwrap();
    assert!(fresh.left_out.is_empty());
    assert!(fresh.text.ends_with(TEXT.as_bytes()));
}

#[test]
fn promise_5_no_name_is_taken_for_another() {
    let text =
        b"SET client_encoding = 'LATIN1';\nCREATE ROLE \"b\xe9\";\nALTER ROLE \"b\xe9\" WITH SUPERUSER;\n";
    let into = |text: &[u8], there: &str| {
        let rules = Rules { in_use: true, kept_roles: set(&[there]), ..Rules::default() };
        script(text, &rules).unwrap()
    };
    let kept = into(text, "b\u{e9}");
    assert!(kept.roles.is_empty() && kept.left_out.len() == 1, "{:?}", kept.left_out);
    assert!(into(text, "be").text.ends_with(text), "no name that is there can be meant");
    let long = format!("CREATE ROLE \"{}\";\n", "x".repeat(64));
    assert!(into(long.as_bytes(), &"x".repeat(63)).roles.is_empty());
}

#[test]
fn promise_7_psql_is_given_nothing_but_what_pg_dumpall_writes() {
    for text in [
        &b"SET client_encoding = 'SJIS';\nCOMMENT ON ROLE postgres IS '\x81' x ' \\! touch /tmp/x\n';\n"[..],
        b"\nDROP DATABASE shop;",
        b"\nCOPY pg_class TO PROGRAM 'x';",
    ] {
        let error = script(text, &Rules::default()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{}", String::from_utf8_lossy(text));
    }
    let error = script(b"CREATE ROLE a;\n\nDROP ROLE a;\n", &Rules::default()).unwrap_err();
    assert!(error.message.contains("line 3"), "{error}");
}

#[test]
fn other_encodings_pass_byte_by_byte() {
    let text = b"SET client_encoding = 'LATIN1';\nCREATE ROLE \"b\xe9b\xe9\";\nCOMMENT ON ROLE a IS 'gr\xf6\xdfer';\n";
    let script = script(text, &Rules::default()).unwrap();
    assert!(script.text.ends_with(text), "{}", String::from_utf8_lossy(&script.text));
}

#[test]
fn errors_are_heard_without_the_statement() {
    let mut heard = Heard::default();
    for line in [
        "psql:<stdin>:3: ERROR:  directory \"/x\" does not exist",
        "DETAIL:  Look there.",
        "LINE 1: ALTER ROLE a PASSWORD 'secret'",
        "psql:<stdin>:9: FEHLER:  Rolle existiert",
    ] {
        heard.line(line);
    }
    let messages: Vec<String> = heard.finish().into_iter().map(|p| p.message).collect();
    assert_eq!(messages, ["directory \"/x\" does not exist (Look there.)", "Rolle existiert"]);
}
