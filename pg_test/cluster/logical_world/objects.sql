-- One database with every kind of object that pg_dump knows, as far as no other library is needed.
-- Runs in a database whose owner is alice. What a version does not have is left out by its number.
SELECT current_setting('server_version_num')::int >= 160000 AS v16, current_setting('server_version_num')::int >= 170000 AS v17,
       current_setting('server_version_num')::int >= 180000 AS v18,
       (SELECT count(*) > 10 FROM pg_collation WHERE collprovider = 'i') AS icu, getdatabaseencoding() = 'UTF8' AS utf8 \gset
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET search_path = public;

-- Schemas, default privileges before the objects that they touch.
CREATE SCHEMA "odd ""one" AUTHORIZATION alice;
CREATE SCHEMA empty;
CREATE SCHEMA types;
COMMENT ON SCHEMA "odd ""one" IS 'nothing; DROP SCHEMA public; --';
GRANT USAGE ON SCHEMA "odd ""one", types TO readers WITH GRANT OPTION;
GRANT CREATE ON SCHEMA public TO PUBLIC;
REVOKE USAGE ON SCHEMA empty FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE alice IN SCHEMA "odd ""one" GRANT SELECT, INSERT ON TABLES TO readers WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE alice REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO "bob's";
ALTER DEFAULT PRIVILEGES IN SCHEMA types GRANT USAGE ON TYPES TO readers;
ALTER DEFAULT PRIVILEGES FOR ROLE "bob's" GRANT USAGE ON SCHEMAS TO alice;

-- Types.
CREATE DOMAIN types.posint AS int NOT NULL DEFAULT 1 CONSTRAINT positive CHECK (VALUE > 0);
ALTER DOMAIN types.posint ADD CONSTRAINT small CHECK (VALUE < 1000000) NOT VALID;
COMMENT ON DOMAIN types.posint IS 'more than nothing';
COMMENT ON CONSTRAINT positive ON DOMAIN types.posint IS 'at least 1';
CREATE TYPE types.mood AS ENUM ('sad', 'it''s "ok"', 'happy');
ALTER TYPE types.mood ADD VALUE 'bored' BEFORE 'sad';
ALTER TYPE types.mood ADD VALUE 'so-so' AFTER 'sad';
COMMENT ON TYPE types.mood IS 'how one feels';
CREATE TYPE types.pair AS (a int, "b c" text COLLATE "C", d numeric(10,2)[]);
COMMENT ON COLUMN types.pair."b c" IS 'second';
CREATE FUNCTION types.float_diff(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT RETURN $1 - $2;
CREATE TYPE types.floatspan AS RANGE (subtype = float8, subtype_diff = types.float_diff, multirange_type_name = types.floatspans);
CREATE TYPE types.odd;
SET client_min_messages = warning;
CREATE FUNCTION types.odd_in(cstring) RETURNS types.odd LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION types.odd_out(types.odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE types.odd (INPUT = types.odd_in, OUTPUT = types.odd_out, LIKE = pg_catalog.text, CATEGORY = 'O', DEFAULT = 'none', COLLATABLE = true);
CREATE TYPE types.shell;
GRANT USAGE ON TYPE types.mood TO "bob's" WITH GRANT OPTION;
REVOKE USAGE ON TYPE types.pair FROM PUBLIC;

-- Collations, conversions.
CREATE COLLATION types.plain FROM "C";
\if :utf8
CREATE COLLATION types.by_libc (provider = libc, lc_collate = 'C', lc_ctype = 'C.UTF-8');
\if :icu
  CREATE COLLATION types.phone (provider = icu, locale = 'de-u-co-phonebk');
  CREATE COLLATION types.no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  COMMENT ON COLLATION types.no_case IS 'ä = Ä';
  CREATE TABLE names (name text COLLATE types.no_case PRIMARY KEY, phone text COLLATE types.phone);
  INSERT INTO names VALUES ('Müller', 'Mueller'), ('ärger', 'Ärger');
  CREATE INDEX names_phone ON names (phone COLLATE types.phone DESC NULLS LAST);
\endif
CREATE CONVERSION types.again FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON CONVERSION types.again IS 'as the one that is there';
\endif

-- Functions of every form.
CREATE FUNCTION types.double(i int) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE LEAKPROOF COST 7 AS 'SELECT 2 * i';
CREATE FUNCTION types.atomic(i int DEFAULT 5, VARIADIC rest int[] DEFAULT '{1,2}') RETURNS int LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT i + sum(r)::int FROM unnest(rest) r;
END;
CREATE FUNCTION types.outs(IN a int, OUT b int, INOUT c text DEFAULT 'c''s "default" \ $$ ') LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, 'odd "one' SET work_mem = '8MB' AS $body$
BEGIN
  -- A comment with $$ dollars $$ and 'quotes'.
  b := a + 1; c := c || E'\ttab';
END $body$;
CREATE FUNCTION types.many(n int) RETURNS TABLE (i int, t text) LANGUAGE plpgsql ROWS 17 AS $$
BEGIN RETURN QUERY SELECT g, g::text FROM generate_series(1, n) g; END $$;
CREATE PROCEDURE "odd ""one".work(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; COMMIT; END $$;
CREATE FUNCTION types.polymorphic(anyelement, anyarray) RETURNS anyelement LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, $2[1])';
COMMENT ON FUNCTION types.double IS 'twice';
COMMENT ON PROCEDURE "odd ""one".work IS 'commits';
ALTER FUNCTION types.double OWNER TO alice;
REVOKE EXECUTE ON FUNCTION types.double FROM PUBLIC;
GRANT EXECUTE ON FUNCTION types.double TO readers;
GRANT EXECUTE ON PROCEDURE "odd ""one".work TO "bob's";

CREATE FUNCTION types.compare_backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT btint4cmp($2, $1)';
CREATE FUNCTION types.pair_to_int(types.pair) RETURNS int LANGUAGE sql IMMUTABLE STRICT RETURN ($1).a;
CREATE FUNCTION types.pair_internal(internal) RETURNS internal LANGUAGE internal IMMUTABLE STRICT AS 'byteain';
CREATE TYPE types.typed_row AS (id int, v int);

-- Aggregates, operators, casts, operator classes, languages, access methods.
CREATE AGGREGATE types.product(int) (sfunc = int4mul, stype = int, initcond = '1', parallel = safe, combinefunc = int4mul);
CREATE AGGREGATE types.middle(float8 ORDER BY anyelement)
  (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra);
COMMENT ON AGGREGATE types.product(int) IS 'of all';
CREATE FUNCTION types.mod_eq(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 10 = $2 % 10';
CREATE OPERATOR types.=%= (FUNCTION = types.mod_eq, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(types.=%=), RESTRICT = eqsel);
CREATE OPERATOR types.!! (FUNCTION = factorial, RIGHTARG = int8);
COMMENT ON OPERATOR types.=%= (int, int) IS 'equal in the last digit';
CREATE OPERATOR FAMILY types.ints USING btree;
CREATE OPERATOR CLASS types.backwards FOR TYPE int USING btree FAMILY types.ints AS
  OPERATOR 1 > , OPERATOR 2 >= , OPERATOR 3 = , OPERATOR 4 <= , OPERATOR 5 < , FUNCTION 1 types.compare_backwards(int, int);
ALTER OPERATOR FAMILY types.ints USING btree ADD OPERATOR 1 > (int2, int2);
CREATE CAST (types.pair AS int) WITH FUNCTION types.pair_to_int(types.pair) AS ASSIGNMENT;
CREATE CAST (types.odd AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (types.mood AS types.odd) WITH INOUT;
COMMENT ON CAST (types.pair AS int) IS 'its first';
CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD heap_too IS 'as heap';
CREATE FUNCTION types.handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION types.inline(internal) RETURNS void LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION types.validator(oid) RETURNS void LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE LANGUAGE sql_too HANDLER types.handler INLINE types.inline VALIDATOR types.validator;
COMMENT ON LANGUAGE sql_too IS 'plpgsql';
GRANT USAGE ON LANGUAGE plpgsql TO readers WITH GRANT OPTION;
CREATE TRANSFORM FOR types.pair LANGUAGE sql_too (FROM SQL WITH FUNCTION types.pair_internal(internal));

-- Tables: columns of every kind, constraints, storage, names.
CREATE TABLE customer (
  id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5 MAXVALUE 100000 CACHE 3 CYCLE) PRIMARY KEY,
  code int GENERATED BY DEFAULT AS IDENTITY,
  number serial,
  name text NOT NULL COLLATE "C" DEFAULT 'it''s E''\\ a name',
  feels types.mood DEFAULT 'so-so',
  amount types.posint,
  "both" types.pair,
  span types.floatspan,
  spans types.floatspans DEFAULT '{[0,1),[2,3)}',
  odd types.odd,
  shown text GENERATED ALWAYS AS (upper(name) || '!') STORED,
  born date CHECK (born > '1900-01-01'),
  gone int,
  CONSTRAINT "odd ""check" CHECK (length(name) < 100000 AND name <> '') NO INHERIT,
  UNIQUE NULLS NOT DISTINCT (code, born),
  EXCLUDE USING gist (span WITH &&) WHERE (id > 1000) DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.3, toast.autovacuum_enabled = false);
ALTER TABLE customer DROP COLUMN gone;
ALTER TABLE customer ADD COLUMN late timestamptz DEFAULT '2020-02-03 04:05:06.789+02';
ALTER TABLE customer ALTER COLUMN name SET STORAGE EXTERNAL, ALTER COLUMN name SET STATISTICS 500, ALTER COLUMN shown SET COMPRESSION pglz,
  ALTER COLUMN late SET (n_distinct = -0.5);
ALTER TABLE customer OWNER TO alice;
COMMENT ON TABLE customer IS 'who buys
on two lines';
COMMENT ON COLUMN customer.name IS 'Grosse "quoted" \n 100%';
COMMENT ON CONSTRAINT "odd ""check" ON customer IS 'short';
INSERT INTO customer (name, feels, amount, "both", span, odd, born)
  SELECT 'n' || i, (enum_range(NULL::types.mood))[1 + i % 5], 1 + i, ROW(i, 'b' || i, ARRAY[i, NULL, 1.5])::types.pair,
         types.floatspan(i, i + 0.5), CASE WHEN i % 3 > 0 THEN ('o' || i)::types.odd END, date '2000-01-01' + i
    FROM generate_series(1, 500) i;
SELECT setval('customer_number_seq', 4711, true), setval('customer_code_seq', 815, false), nextval('customer_id_seq');

CREATE TABLE "odd ""one"."table, with; 'all' \ $1 %s" ("a b" int PRIMARY KEY, """" text, "select" text, "e\t" text);
INSERT INTO "odd ""one"."table, with; 'all' \ $1 %s" VALUES (1, E'\\.', E'tab\there', E'\b\f\n\r\v\\N'), (2, NULL, '', '\N'),
  (3, E'\x01\x02\x7f', '"""', E'line\nline\r\nline'), (4, '--', '/*', '\restrict \q');
COMMENT ON COLUMN "odd ""one"."table, with; 'all' \ $1 %s"."e\t" IS E'-- no comment\n\\q';
\if :utf8
  CREATE TABLE "größe €" ("naïve" text, "日本" text);
  INSERT INTO "größe €" VALUES ('é', '日本語'), (U&'e\0301', U&'\+01F600'), (chr(1114111), chr(133) || chr(8232) || chr(65279));
  COMMENT ON TABLE "größe €" IS 'über';
\endif
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE UNLOGGED TABLE unlogged_one AS SELECT i, i::text AS t FROM generate_series(1, 50) i;
CREATE TABLE every_type (b bool, i2 int2, i8 int8, n numeric, f4 float4, f8 float8, m money, c "char", ch char(7), vc varchar(9), t text,
  by bytea, d date, tm time, tz timetz, ts timestamp(3), tstz timestamptz, iv interval, u uuid, j json, jb jsonb, jp jsonpath, ip inet,
  net cidr, mac macaddr8, bits bit(5), vbits varbit, p point, l line, poly polygon, ci circle, tsv tsvector, tsq tsquery, r int4range,
  mr datemultirange, o oid, rc regclass, a int[], aa text[][], lsn pg_lsn, snap pg_snapshot, name name);
INSERT INTO every_type VALUES (true, -32768, -9223372036854775808, 'NaN', '-Infinity', 1.7976931348623157e308, '-12.34', '\377', 'ch', 'vc', E'\\t',
  '\x00ff5c27220a0d', '-infinity', '24:00', '00:00:00.000001+15:59', '0044-03-15 BC', 'infinity', '-1 year 2 mons -3 days 04:05:06.789', '00000000-0000-0000-0000-000000000000',
  '{"a":  1, "a":"\\x"}', '{"z":[1,null,{"b":"\\"}]}', '$.a[*] ? (@ > 1)', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03:04:05', '10101', '1',
  '(1e-300,1e300)', '{1,2,3}', '((0,0),(1,1),(2,0))', '<(0,0),1>', '''it''''s'':1A b:2', '!a & (b | c:*)', 'empty', '{[2020-01-01,2021-01-01),[2022-01-01,)}',
  4294967295, 'customer', '[-1:1]={1,NULL,3}', '{{"a,b","c\"d"},{NULL,"NULL"}}', '16/B374D848', '10:20:10,14,15', 'n');
INSERT INTO every_type DEFAULT VALUES;
INSERT INTO every_type (n, f4, f8) VALUES (repeat('9', 1000)::numeric + 0.1, 1e-45, 'NaN'), (-0.000, '-0', '-0'), ('Infinity', 0.1, 0.1);
-- Values that go to the toast table: some that compress, some that do not.
CREATE TABLE toasted (id int PRIMARY KEY, small text, big text, bin bytea) WITH (toast_tuple_target = 256);
INSERT INTO toasted SELECT i, repeat('x' || i, i), (SELECT string_agg(md5(i::text || g), '') FROM generate_series(1, 100 * i) g),
  (SELECT string_agg(decode(md5(g::text || i), 'hex'), '') FROM generate_series(1, 50 * i) g) FROM generate_series(1, 40) i;
CREATE TABLE other_am (i int) USING heap_too;
INSERT INTO other_am SELECT generate_series(1, 10);
CREATE TABLE typed OF types.typed_row (PRIMARY KEY (id), v WITH OPTIONS DEFAULT 7);
INSERT INTO typed VALUES (1), (2);
CREATE TABLE on_fast (id int PRIMARY KEY USING INDEX TABLESPACE "cold & ""slow""", t text) TABLESPACE fast;
INSERT INTO on_fast SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
CREATE INDEX on_fast_t ON on_fast (t) TABLESPACE pg_default;
ALTER TABLE on_fast CLUSTER ON on_fast_pkey;
CREATE TABLE replica (id int NOT NULL UNIQUE, t text);
ALTER TABLE replica REPLICA IDENTITY USING INDEX replica_id_key;
ALTER TABLE nothing REPLICA IDENTITY FULL;
-- Two tables that need each other.
CREATE TABLE hen (id int PRIMARY KEY, egg int);
CREATE TABLE egg (id int PRIMARY KEY, hen int REFERENCES hen ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hen ADD CONSTRAINT hen_egg FOREIGN KEY (egg) REFERENCES egg MATCH FULL DEFERRABLE;
BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO hen VALUES (1, 1), (2, NULL), (500, NULL); INSERT INTO egg VALUES (1, 1); COMMIT;
ALTER TABLE hen ADD CONSTRAINT not_yet CHECK (id < 100) NOT VALID;
\if :v18
  CREATE TABLE of_18 (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, r int4range, CONSTRAINT lax CHECK (a > 0) NOT ENFORCED);
  INSERT INTO of_18 VALUES (-1, DEFAULT, '[1,5)');
\endif
\if :v17
  GRANT MAINTAIN ON TABLE customer TO readers;
\endif

-- Inheritance, partitions of all kinds.
CREATE TABLE parent (id int PRIMARY KEY, t text DEFAULT 'p', CHECK (id > 0));
CREATE TABLE child (more int DEFAULT 3, t text DEFAULT 'c') INHERITS (parent);
CREATE TABLE grandchild (CHECK (more > 1)) INHERITS (child, nothing);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child (id) VALUES (3);
INSERT INTO grandchild VALUES (4, 'g', 9);
CREATE TABLE sale (id int, day date NOT NULL, region text DEFAULT 'eu', n int GENERATED ALWAYS AS (id + 1) STORED, PRIMARY KEY (id, day, region))
  PARTITION BY RANGE (day);
CREATE TABLE sale_2024 PARTITION OF sale FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (region);
CREATE TABLE sale_2024_eu PARTITION OF sale_2024 FOR VALUES IN ('eu', NULL, 'it''s') TABLESPACE fast;
CREATE TABLE sale_2024_rest PARTITION OF sale_2024 DEFAULT PARTITION BY HASH (id);
CREATE TABLE sale_2024_rest_0 PARTITION OF sale_2024_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE sale_2024_rest_1 PARTITION OF sale_2024_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1) WITH (fillfactor = 50);
CREATE TABLE sale_later (region text NOT NULL DEFAULT 'other', day date NOT NULL, junk int, id int NOT NULL, n int GENERATED ALWAYS AS (id + 1) STORED);
ALTER TABLE sale_later DROP COLUMN junk;
ALTER TABLE sale ATTACH PARTITION sale_later FOR VALUES FROM ('2025-01-01') TO (MAXVALUE);
CREATE TABLE sale_default PARTITION OF sale DEFAULT;
ALTER TABLE ONLY sale SET TABLESPACE fast;
CREATE INDEX sale_day ON sale (day, region) INCLUDE (id);
CREATE INDEX sale_only ON ONLY sale (n);
CREATE INDEX sale_default_n ON sale_default (n);
ALTER INDEX sale_only ATTACH PARTITION sale_default_n;
INSERT INTO sale SELECT i, date '2023-12-01' + i * 2, (ARRAY['eu', 'us', 'as', 'it''s'])[1 + i % 4] FROM generate_series(1, 400) i;
CREATE TABLE refund (id int, day date, region text, FOREIGN KEY (id, day, region) REFERENCES sale) PARTITION BY HASH (id);
CREATE TABLE refund_0 PARTITION OF refund FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO refund SELECT id, day, region FROM sale WHERE id % 50 = 0;
CREATE TABLE by_expression (t text) PARTITION BY RANGE (lower(t) COLLATE "C" text_pattern_ops);
CREATE TABLE by_expression_1 PARTITION OF by_expression FOR VALUES FROM (MINVALUE) TO ('m');
COMMENT ON TABLE sale_2024 IS 'a part';
COMMENT ON INDEX sale_day IS 'by day';

-- Indexes, sequences, statistics objects.
CREATE INDEX customer_lower ON customer USING btree (lower(name) DESC NULLS LAST, (amount % 10)) INCLUDE (born) WITH (fillfactor = 60) WHERE amount > 10;
CREATE INDEX customer_backwards ON customer (code types.backwards);
CREATE INDEX customer_brin ON customer USING brin (born) WITH (pages_per_range = 4, autosummarize = on);
CREATE INDEX customer_hash ON customer USING hash (name);
CREATE INDEX customer_gist ON customer USING gist (span);
CREATE INDEX customer_gin ON customer USING gin (to_tsvector('english', name)) WITH (fastupdate = off);
CREATE INDEX customer_spgist ON customer USING spgist (name) TABLESPACE fast;
ALTER INDEX customer_lower ALTER COLUMN 2 SET STATISTICS 321;
CREATE UNIQUE INDEX "odd ""index" ON customer ((("both").a));
COMMENT ON INDEX "odd ""index" IS 'of a field';
CREATE SEQUENCE down AS smallint INCREMENT -3 MINVALUE -900 MAXVALUE 900 START 900 CACHE 5 CYCLE;
CREATE SEQUENCE fresh OWNED BY replica.id;
CREATE UNLOGGED SEQUENCE unlogged_too;
SELECT nextval('down'), nextval('down'), nextval('unlogged_too');
COMMENT ON SEQUENCE down IS 'counts down';
GRANT USAGE ON SEQUENCE down TO alice WITH GRANT OPTION;
CREATE STATISTICS types.dependent (dependencies, ndistinct, mcv) ON born, feels FROM customer;
CREATE STATISTICS by_expression_stat ON (amount % 7), lower(name) FROM customer;
ALTER STATISTICS types.dependent SET STATISTICS 77;
COMMENT ON STATISTICS types.dependent IS 'they go together';

-- Views, materialised views, rules.
CREATE VIEW happy WITH (security_barrier = true, security_invoker = true) AS SELECT id, name, amount FROM customer WHERE feels = 'happy' WITH CASCADED CHECK OPTION;
ALTER VIEW happy ALTER COLUMN name SET DEFAULT 'happy default';
CREATE RECURSIVE VIEW countdown (n) AS VALUES (10) UNION ALL SELECT n - 1 FROM countdown WHERE n > 0;
CREATE VIEW "odd ""one"."a view" ("x y", z) AS
  WITH q AS MATERIALIZED (SELECT row_number() OVER (PARTITION BY feels ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) r, * FROM customer)
  SELECT r, CASE WHEN q.odd IS NULL THEN 'none' ELSE q.odd::text END FROM q JOIN LATERAL (SELECT max(i) FROM types.many(3)) m ON true
   WHERE name LIKE 'n%' AND q.code OPERATOR(types.=%=) ANY (ARRAY[1, 2]::int[]) GROUP BY GROUPING SETS ((r, odd), ());
CREATE VIEW uses_key AS SELECT c.id, c.name, count(*) FROM customer c LEFT JOIN hen h ON h.id = c.id GROUP BY c.id;
COMMENT ON VIEW happy IS 'a part of them';
COMMENT ON COLUMN happy.name IS 'name of one';
CREATE MATERIALIZED VIEW per_mood WITH (fillfactor = 80) TABLESPACE fast AS SELECT feels, count(*) n, sum(amount) total FROM customer GROUP BY feels ORDER BY feels;
CREATE UNIQUE INDEX per_mood_feels ON per_mood (feels);
CREATE MATERIALIZED VIEW on_top AS SELECT max(n) FROM per_mood;
CREATE MATERIALIZED VIEW not_yet AS SELECT 1 AS one WITH NO DATA;
COMMENT ON MATERIALIZED VIEW per_mood IS 'counted';
CREATE RULE shadow AS ON INSERT TO hen DO ALSO INSERT INTO nothing DEFAULT VALUES;
CREATE RULE "odd ""rule" AS ON UPDATE TO happy DO INSTEAD (UPDATE customer SET name = new.name WHERE id = old.id; NOTIFY changed, 'happy');
COMMENT ON RULE shadow ON hen IS 'too';
ALTER TABLE hen DISABLE RULE shadow;

-- Triggers that would spoil the data if they fired while it is loaded.
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fired: %', TG_NAME; END $$;
CREATE TRIGGER spoil_rows BEFORE INSERT OR UPDATE OF name ON customer FOR EACH ROW WHEN (new.name = 'bad') EXECUTE FUNCTION spoil('arg', 'it''s \ "x"');
CREATE TRIGGER spoil_all BEFORE INSERT OR DELETE OR TRUNCATE ON every_type EXECUTE FUNCTION spoil();
CREATE TRIGGER spoil_always AFTER INSERT ON toasted REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION spoil();
ALTER TABLE toasted ENABLE ALWAYS TRIGGER spoil_always;
CREATE CONSTRAINT TRIGGER later AFTER UPDATE ON egg FROM hen DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spoil();
CREATE TRIGGER of_view INSTEAD OF DELETE ON happy FOR EACH ROW EXECUTE FUNCTION spoil();
CREATE TRIGGER off BEFORE INSERT ON typed FOR EACH ROW EXECUTE FUNCTION spoil();
ALTER TABLE typed DISABLE TRIGGER off;
CREATE TRIGGER parts AFTER DELETE ON sale FOR EACH ROW EXECUTE FUNCTION spoil();
ALTER TABLE sale_default ENABLE REPLICA TRIGGER parts;
COMMENT ON TRIGGER spoil_rows ON customer IS 'no bad ones';
CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN IF TG_TAG = 'DROP TABLE' THEN RAISE EXCEPTION 'guarded'; END IF; END $$;
CREATE EVENT TRIGGER guarded ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION guard();
CREATE EVENT TRIGGER off_now ON sql_drop EXECUTE FUNCTION guard();
ALTER EVENT TRIGGER off_now DISABLE;
COMMENT ON EVENT TRIGGER guarded IS 'careful';

-- Row security, privileges.
ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
ALTER TABLE customer FORCE ROW LEVEL SECURITY;
ALTER TABLE replica ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON customer FOR SELECT TO "bob's" USING (name = current_user OR id IN (SELECT hen.id FROM hen));
CREATE POLICY "odd ""policy" ON customer AS RESTRICTIVE FOR INSERT WITH CHECK (amount < 10);
CREATE POLICY everyone ON replica USING (true) WITH CHECK (t <> 'x');
COMMENT ON POLICY own ON customer IS 'only oneself';
GRANT SELECT (id, name), UPDATE (name) ON customer TO readers WITH GRANT OPTION;
GRANT INSERT, REFERENCES ON customer TO "bob's";
SET ROLE readers; GRANT SELECT (id) ON customer TO "$(touch hacked); select"; RESET ROLE;
GRANT ALL ON hen TO PUBLIC;
REVOKE DELETE ON egg FROM postgres;
GRANT SELECT ON per_mood, happy TO PUBLIC;
GRANT TRIGGER, TRUNCATE ON sale_2024 TO alice;
SET ROLE alice; CREATE TABLE "odd ""one".by_default (i int); RESET ROLE;
REVOKE ALL ON pg_stats FROM PUBLIC;
GRANT SELECT (rolname) ON pg_authid TO readers;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC;

-- Text search.
CREATE TEXT SEARCH DICTIONARY types.simple_en (TEMPLATE = simple, STOPWORDS = english, ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION types.ours (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION types.ours ALTER MAPPING FOR asciiword, word WITH types.simple_en, english_stem;
ALTER TEXT SEARCH CONFIGURATION types.ours DROP MAPPING FOR email;
CREATE TEXT SEARCH PARSER types.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE types.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
COMMENT ON TEXT SEARCH CONFIGURATION types.ours IS 'our own';

-- What is elsewhere.
CREATE FUNCTION types.fdw_validator(text[], oid) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FOREIGN DATA WRAPPER nowhere VALIDATOR types.fdw_validator OPTIONS (debug 'it''s \ "on"');
CREATE SERVER "odd ""server" TYPE 't' VERSION '1.2' FOREIGN DATA WRAPPER nowhere OPTIONS (host 'a b', "odd ""option" 'x=y');
CREATE USER MAPPING FOR alice SERVER "odd ""server" OPTIONS ("user" 'remote', password 'it''s secret');
CREATE USER MAPPING FOR PUBLIC SERVER "odd ""server";
CREATE FOREIGN TABLE far (id int OPTIONS (column_name 'the id') NOT NULL, t text DEFAULT 'x', CHECK (id > 0)) SERVER "odd ""server" OPTIONS (table_name 'a.b');
COMMENT ON FOREIGN TABLE far IS 'not here';
COMMENT ON SERVER "odd ""server" IS 'nobody answers';
GRANT USAGE ON FOREIGN DATA WRAPPER nowhere TO alice;
GRANT USAGE ON FOREIGN SERVER "odd ""server" TO readers WITH GRANT OPTION;
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert, truncate');
CREATE PUBLICATION part FOR TABLE replica WHERE (id > 10 AND id % 2 = 0), ONLY parent, TABLES IN SCHEMA types WITH (publish_via_partition_root = true);
CREATE PUBLICATION columns FOR TABLE replica (id) WITH (publish = 'update');
CREATE PUBLICATION of_nothing;
COMMENT ON PUBLICATION part IS 'not all';
CREATE SUBSCRIPTION "odd ""sub" CONNECTION 'host=nowhere dbname=''a b'' password=secret' PUBLICATION "a b", c
  WITH (connect = false, slot_name = 'the_slot', binary = true, synchronous_commit = 'local');
CREATE SUBSCRIPTION slotless CONNECTION 'host=nowhere' PUBLICATION c WITH (connect = false, slot_name = NONE);
COMMENT ON SUBSCRIPTION slotless IS 'waits';

-- Large objects: of one page, of many, empty, with holes, with owner, comment and privileges.
SELECT lo_from_bytea(20001, 'one'), lo_create(20003), lo_create(20004),
       lo_from_bytea(20002, (SELECT string_agg(decode(md5(g::text), 'hex'), '') FROM generate_series(1, 20000) g));
SELECT lo_put(20004, 3000000, '\x00ff');
SELECT count(lo_from_bytea(30000 + i, decode(md5(i::text), 'hex'))) FROM generate_series(1, 1500) i;
ALTER LARGE OBJECT 20001 OWNER TO alice;
GRANT SELECT ON LARGE OBJECT 20002 TO readers WITH GRANT OPTION;
GRANT UPDATE ON LARGE OBJECT 20002 TO PUBLIC;
COMMENT ON LARGE OBJECT 20002 IS 'it''s large';
