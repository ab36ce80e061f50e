//! Rights that the server gives on whatever is made (`ALTER DEFAULT PRIVILEGES`): a dump does not say that a table has none.

use super::existing::literal;
use crate::logical::query::Server;
use pg_ark_contract::Result;

/// Functions are for everybody from the beginning (`acldefault`, acl.c): that is no news.
const GIVEN: &str = "
SELECT coalesce(jsonb_agg(format('default privileges of role %I%s give rights on what is made, also where the original had taken them back: %s',
    session_user, coalesce(' in schema ' || quote_ident(n.nspname), ''), a.defaclacl::text) ORDER BY n.nspname NULLS FIRST, a.defaclobjtype), '[]')::text
  FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace
  WHERE a.defaclrole = (SELECT r.oid FROM pg_roles r WHERE r.rolname = session_user)
    AND (n.oid IS NULL OR n.nspname IN (SELECT jsonb_array_elements_text({schemas}::jsonb)))
    AND EXISTS (SELECT FROM aclexplode(a.defaclacl) e WHERE e.grantee <> a.defaclrole AND (e.grantee <> 0 OR a.defaclobjtype IN ('r', 'S')))";

/// What the user should know of them before anything is made in `schemas` of `database`.
///
/// # Errors
/// As [`Server::json`].
pub fn by_default(server: &Server<'_>, database: &str, schemas: &[&str]) -> Result<Vec<String>> {
    let schemas = literal(&serde_json::json!(schemas).to_string());
    server.json(database, &GIVEN.replace("{schemas}", &schemas))
}
