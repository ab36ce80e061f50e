//! Roles and tablespaces: what the globals consist of, and whether that changed while databases were dumped.
//!
//! Globals come first, so that what hinders them shows at once; a dump that takes hours may then name roles that were made
//! later. So both ends are compared, and the globals are dumped again when they differ.

use super::facts::from_hex;
use super::query::Server;
use pg_ark_contract::{Error, ErrorKind, Result};
use serde::Deserialize;
use std::collections::HashSet;

/// Names byte by byte, as no conversion would leave them. A row that was changed has another `xmin`.
const QUESTION: &str = "
SET client_encoding = 'SQL_ASCII';
SELECT jsonb_build_object(
  'encoding', getdatabaseencoding(),
  'print', (SELECT md5(coalesce(string_agg(line, ',' ORDER BY line COLLATE \"C\"), '')) FROM (
      SELECT 'role ' || oid || ' ' || xmin FROM pg_authid
      UNION ALL SELECT 'member ' || roleid || ' ' || member || ' ' || grantor || ' ' || xmin FROM pg_auth_members
      UNION ALL SELECT 'space ' || oid || ' ' || xmin FROM pg_tablespace
      UNION ALL SELECT 'setting ' || setrole || ' ' || xmin FROM pg_db_role_setting WHERE setdatabase = 0
      UNION ALL SELECT 'parameter ' || oid || ' ' || xmin FROM pg_parameter_acl) AS lines(line)),
  'roles', (SELECT coalesce(jsonb_agg(jsonb_build_array(oid::int8, encode(namesend(rolname), 'hex')) ORDER BY oid), '[]')
      FROM pg_authid),
  'tablespaces', (SELECT coalesce(jsonb_agg(jsonb_build_array(oid::int8, encode(namesend(spcname), 'hex')) ORDER BY oid), '[]')
      FROM pg_tablespace)
)::text";

/// What globals consist of, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Principals {
    /// Of the database that was asked.
    encoding: String,
    /// Differs when any of it was changed.
    print: String,
    /// OIDs and names, in hexadecimal digits.
    roles: Vec<(u32, String)>,
    tablespaces: Vec<(u32, String)>,
}

impl Principals {
    /// Asks in `database`.
    ///
    /// # Errors
    /// As [`Server::json`].
    pub fn ask(server: &Server<'_>, database: &str) -> Result<Principals> {
        server.json(database, QUESTION)
    }

    /// pg_dumpall asks a database of encoding UTF8 by name, which that refuses for a name of another encoding.
    ///
    /// # Errors
    /// `Unsupported` that names the first such role or tablespace.
    pub fn check_names(&self) -> Result<()> {
        if self.encoding != "UTF8" {
            return Ok(());
        }
        let roles = self.roles.iter().map(|(_, name)| ("role", "ROLE", name));
        let spaces = self.tablespaces.iter().map(|(_, name)| ("tablespace", "TABLESPACE", name));
        for (noun, keyword, name) in roles.chain(spaces) {
            if let Err(shown) = from_hex(name) {
                let message = format!("the name of {noun} \"{shown}\" is no UTF-8: globals cannot be dumped");
                return Err(Error::new(ErrorKind::Unsupported, message).hint(format!(
                    "Rename it with ALTER {keyword} ... RENAME TO ..., from a database of the encoding that the name was given in."
                )));
            }
        }
        Ok(())
    }

    /// True when nothing was changed.
    pub fn is_same(&self, now: &Principals) -> bool {
        self.print == now.print
    }

    /// What each name has become that is no more.
    pub fn gone(&self, now: &Principals) -> Vec<String> {
        let mut all = gone("role", &self.roles, &now.roles);
        all.extend(gone("tablespace", &self.tablespaces, &now.tablespaces));
        all
    }
}

fn gone(noun: &str, before: &[(u32, String)], now: &[(u32, String)]) -> Vec<String> {
    let names: HashSet<&str> = now.iter().map(|(_, name)| name.as_str()).collect();
    let gone = before.iter().filter(|(_, name)| !names.contains(name.as_str()));
    gone.map(|(oid, name)| match now.iter().find(|(other, _)| other == oid) {
        Some((_, new)) => format!("{noun} \"{}\" was renamed to \"{}\"", shown(name), shown(new)),
        None => format!("{noun} \"{}\" was dropped", shown(name)),
    })
    .collect()
}

fn shown(name: &str) -> String {
    from_hex(name).unwrap_or_else(|shown| shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(roles: &[(u32, &str)], print: &str) -> Principals {
        let roles = roles.iter().map(|(oid, name)| (*oid, name.to_string())).collect();
        Principals { encoding: "UTF8".into(), print: print.into(), roles, ..Principals::default() }
    }

    #[test]
    fn what_is_gone_is_named() {
        let before = of(&[(1, "61"), (2, "62"), (3, "63"), (4, "64")], "x");
        let now = of(&[(1, "61"), (3, "78"), (5, "64"), (6, "65")], "y");
        // Another of the same name is as good.
        assert_eq!(before.gone(&now), ["role \"b\" was dropped", "role \"c\" was renamed to \"x\""]);
        assert!(!before.is_same(&now) && before.is_same(&before));
        assert!(before.gone(&before).is_empty());
    }

    #[test]
    fn a_name_without_an_encoding_is_named() {
        let mut bad = of(&[(1, "61"), (2, "72e9")], "x");
        let error = bad.check_names().unwrap_err();
        assert!(error.message.contains("role \"r\\xe9\"") && error.hint.is_some(), "{error}");
        // There it is a name.
        bad.encoding = "LATIN1".into();
        bad.check_names().unwrap();
        of(&[(1, "c3a9")], "x").check_names().unwrap();
    }
}
