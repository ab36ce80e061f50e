-- What the databases share: roles, tablespaces, the databases themselves, parameters.
-- psql variables: room, a folder whose subfolders "fast", "cold & slow" and "base" exist and are empty.
SET client_encoding = 'UTF8';
SELECT current_setting('server_version_num')::int >= 160000 AS v16, getdatabaseencoding() = 'UTF8' AS utf8 \gset
SELECT count(*) > 10 AS icu FROM pg_collation WHERE collprovider = 'i' \gset

CREATE ROLE owners NOLOGIN;
CREATE ROLE readers NOLOGIN NOINHERIT;
CREATE ROLE "Group with ""quotes"" and 'apostrophes'" ROLE readers;
SET password_encryption = 'scram-sha-256';
CREATE ROLE alice LOGIN PASSWORD 'scram'' secret' VALID UNTIL '2031-02-03 04:05:06+00' CONNECTION LIMIT 7 IN ROLE owners;
SET password_encryption = 'md5';
CREATE ROLE "bob's" LOGIN PASSWORD 'md5 secret' CREATEDB CREATEROLE BYPASSRLS REPLICATION;
RESET password_encryption;
\if :utf8
  CREATE ROLE "größe €/%s\ -x" SUPERUSER NOLOGIN;
\endif
CREATE ROLE "$(touch hacked); select" LOGIN VALID UNTIL 'infinity';
COMMENT ON ROLE alice IS 'line one
line two; it''s "quoted" \ and größer';
GRANT readers TO alice WITH ADMIN OPTION;
SET ROLE alice;
GRANT readers TO "bob's";
RESET ROLE;
GRANT pg_read_all_data, pg_signal_backend TO "bob's";
\if :v16
  GRANT owners TO "bob's" WITH INHERIT FALSE, SET FALSE, ADMIN TRUE;
  CREATE ROLE heir IN ROLE owners;
  GRANT owners TO heir WITH INHERIT TRUE, SET FALSE;
\endif
ALTER ROLE alice SET work_mem = '7MB';
ALTER ROLE alice SET search_path = "$user", 'odd "one', public;
ALTER ROLE "bob's" SET application_name = E'it''s \\ 100% "bob"';
ALTER ROLE ALL SET statement_timeout = '1h';
ALTER ROLE ALL SET search_path = "$user", public, 'odd "one, two';
ALTER ROLE ALL SET "My.all" = E'it''s \\ x, "y"';
ALTER ROLE postgres SET log_min_duration_statement = '12345ms';
ALTER ROLE postgres PASSWORD 'the superuser has one';

\set location :room '/fast'
CREATE TABLESPACE fast OWNER alice LOCATION :'location' WITH (seq_page_cost = 0.5, random_page_cost = 0.75);
\set location :room '/cold & slow'
CREATE TABLESPACE "cold & ""slow""" LOCATION :'location';
\set location :room '/base'
CREATE TABLESPACE base_space LOCATION :'location';
COMMENT ON TABLESPACE fast IS 'NVMe, it''s fast';
GRANT CREATE ON TABLESPACE fast TO readers WITH GRANT OPTION;
GRANT CREATE ON TABLESPACE "cold & ""slow""" TO PUBLIC;

CREATE DATABASE shop OWNER alice TABLESPACE base_space CONNECTION LIMIT 42;
COMMENT ON DATABASE shop IS 'the main one; it''s big';
REVOKE ALL ON DATABASE shop FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE shop TO readers WITH GRANT OPTION;
GRANT CREATE ON DATABASE shop TO "bob's";
ALTER DATABASE shop SET work_mem = '9MB';
ALTER DATABASE shop SET search_path = public, 'odd "one', pg_catalog;
ALTER DATABASE shop SET statement_timeout = '20s';
ALTER ROLE alice IN DATABASE shop SET "my.setting" = E'a ''b'' "c" \\ d, e';
ALTER ROLE "bob's" IN DATABASE shop SET maintenance_work_mem = '33MB';

-- Nobody can write there unless told to: neither can a restore that is not careful.
CREATE DATABASE "read only";
ALTER DATABASE "read only" SET default_transaction_read_only = on;
CREATE DATABASE empty;
CREATE DATABASE pattern IS_TEMPLATE true;
CREATE DATABASE "closed to most" CONNECTION LIMIT 0;
CREATE DATABASE "C locale" TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C';
CREATE DATABASE latin TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'LATIN1';
CREATE DATABASE ascii TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'SQL_ASCII';
\if :icu
  CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE-u-co-phonebk' LOCALE 'C' ENCODING 'UTF8';
\endif
-- What other databases are made from is restored too.
COMMENT ON DATABASE template1 IS 'ours';
ALTER DATABASE template1 SET log_statement = 'none';
GRANT SET, ALTER SYSTEM ON PARAMETER work_mem, log_statement TO readers;
GRANT SET ON PARAMETER "my.parameter" TO "bob's" WITH GRANT OPTION;

ALTER SYSTEM SET log_autovacuum_min_duration = '7s';
ALTER SYSTEM SET work_mem = '5MB';
ALTER SYSTEM SET log_line_prefix = E'%m [%p] it''s "odd" \\ ';
