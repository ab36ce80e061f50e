--
-- PostgreSQL database cluster dump
--

\restrict qBdpAaLpZYS1RpryH5MY7fn3ekxeLKTazMxqmBJhr4Oe21vcs1tdvqjTTeLlW9n

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

--
-- Roles
--

CREATE ROLE clerk;
ALTER ROLE clerk WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE "größe";
ALTER ROLE "größe" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;

--
-- User Configurations
--


--
-- Role memberships
--

GRANT clerk TO "größe" GRANTED BY postgres;






\unrestrict qBdpAaLpZYS1RpryH5MY7fn3ekxeLKTazMxqmBJhr4Oe21vcs1tdvqjTTeLlW9n

--
-- PostgreSQL database cluster dump complete
--

