-- Extensions of the server's own package, as far as this server has them, in a schema of their own, used by tables.
CREATE SCHEMA "ext ""schema";
SELECT format('CREATE EXTENSION %I SCHEMA "ext ""schema"', name) FROM pg_available_extensions
 WHERE name IN ('hstore', 'citext', 'pg_trgm', 'pgcrypto', 'ltree', 'intarray', 'btree_gist', 'btree_gin', 'bloom', 'postgres_fdw', 'file_fdw',
   'unaccent', 'cube', 'isn', 'lo', 'pg_stat_statements', 'tablefunc', 'uuid-ossp') ORDER BY name \gexec
SELECT count(*) FILTER (WHERE extname IN ('hstore', 'citext', 'pg_trgm', 'postgres_fdw', 'lo')) = 5 AS contrib FROM pg_extension \gset
\if :contrib
  SET search_path = public, "ext ""schema";
  CREATE TABLE extended (h hstore, c citext UNIQUE, t text, EXCLUDE USING gist (t WITH =));
  INSERT INTO extended SELECT hstore('k' || i, 'it''s ' || i), 'Name' || i, md5(i::text) FROM generate_series(1, 200) i;
  CREATE INDEX ON extended USING gin (h);
  CREATE INDEX ON extended USING gin (t gin_trgm_ops);
  CREATE INDEX ON extended USING bloom (t) WITH (length = 128);
  CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere', dbname 'x');
  CREATE USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (user 'u', password 'p');
  CREATE FOREIGN TABLE remote_table (i int) SERVER remote OPTIONS (schema_name 's', table_name 't');
  CREATE TABLE managed (object lo);
  CREATE TRIGGER manage BEFORE UPDATE OR DELETE ON managed FOR EACH ROW EXECUTE FUNCTION lo_manage(object);
  GRANT EXECUTE ON FUNCTION similarity(text, text) TO readers;
  REVOKE EXECUTE ON FUNCTION similarity(text, text) FROM PUBLIC;
  COMMENT ON EXTENSION hstore IS 'pairs, with another comment';
  ALTER EXTENSION citext SET SCHEMA public;
\endif
