-- bootstrap
-- Refuses a schema that somebody else made or may create in: functions beside those of pg_ark, with other arguments, would
-- be run by a superuser who calls pg_ark's. One that holds anything at all was not made for pg_ark.

DO $$
DECLARE
    schema pg_catalog.pg_namespace;
    maker pg_catalog.pg_roles;
    stranger pg_catalog.text;
    creator pg_catalog.text;
BEGIN
    SELECT n.* INTO STRICT schema FROM pg_catalog.pg_namespace n
        WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@';
    SELECT r.* INTO STRICT maker FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) schema.nspowner;
    -- Whatever lies in a schema depends on it, as does the extension that is being created.
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) INTO stranger FROM pg_catalog.pg_depend d
        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
        AND d.refobjid OPERATOR(pg_catalog.=) schema.oid
        AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1;
    SELECT coalesce(r.rolname::pg_catalog.text, 'PUBLIC') INTO creator
        FROM pg_catalog.aclexplode(schema.nspacl) a
        LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) a.grantee
        WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE' AND NOT coalesce(r.rolsuper, false) LIMIT 1;
    IF NOT maker.rolsuper OR stranger IS NOT NULL OR creator IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = pg_catalog.format('schema "%s" was not made for pg_ark', '@extschema@'),
            DETAIL = pg_catalog.format('It belongs to role "%s"%s%s.', maker.rolname,
                coalesce(', holds ' OPERATOR(pg_catalog.||) stranger, ''),
                coalesce(', lets ' OPERATOR(pg_catalog.||) creator OPERATOR(pg_catalog.||) ' create in it', '')),
            HINT = 'Look at what it holds and who may create in it (\dn+, \ddp), drop it, and create the extension again: '
                'it makes the schema itself.';
    END IF;
END $$;

-- pg_ark::api::backup::backup_start
CREATE  FUNCTION "backup_start"(
	"kind" text DEFAULT 'full', /* Option < Text > */
	"label" text DEFAULT NULL, /* Option < Text > */
	"fast" bool DEFAULT true, /* Option < bool > */
	"wait" bool DEFAULT false, /* Option < bool > */
	"include_wal" bool DEFAULT NULL /* Option < bool > */
) RETURNS TEXT /* String */
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'backup_start_wrapper';

-- pg_ark::api::backup::backup_stop
CREATE  FUNCTION "backup_stop"(
	"backup" text /* Option < Text > */
) RETURNS bool /* bool */
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'backup_stop_wrapper';

-- pg_ark::api::check::check
CREATE  FUNCTION "check"() RETURNS TABLE (
	"item" text,  /* Text */
	"status" text,  /* Text */
	"detail" text,  /* Text */
	"hint" text  /* Option < Text > */
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'check_wrapper';

-- pg_ark::api::enable::enable
CREATE  FUNCTION "enable"(
	"repository" text, /* Option < Text > */
	"protect" bool DEFAULT false /* Option < bool > */
) RETURNS TABLE (
	"item" text,  /* Text */
	"status" text,  /* Text */
	"hint" text  /* Option < Text > */
)
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'enable_wrapper';

-- pg_ark::api::list::list_backups
CREATE  FUNCTION "list_backups"() RETURNS TABLE (
	"backup" TEXT,  /* String */
	"kind" TEXT,  /* String */
	"status" TEXT,  /* String */
	"parent" TEXT,  /* Option < String > */
	"label" text,  /* Option < Text > */
	"pinned" bool,  /* bool */
	"started_at" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"finished_at" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"start_lsn" pg_lsn,  /* Option < PgLsn > */
	"stop_lsn" pg_lsn,  /* Option < PgLsn > */
	"timeline" INT,  /* Option < i32 > */
	"server_version" INT,  /* i32 */
	"data_bytes" bigint,  /* Option < i64 > */
	"stored_bytes" bigint,  /* Option < i64 > */
	"wal_included" bool,  /* bool */
	"damaged_pages" bigint,  /* i64 */
	"error" text  /* Option < Text > */
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'list_backups_wrapper';

-- pg_ark::api::wal::recovery_windows
CREATE  FUNCTION "recovery_windows"() RETURNS TABLE (
	"backup" text,  /* Text */
	"timelines" text,  /* Text */
	"from_time" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"to_time" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"from_lsn" pg_lsn,  /* PgLsn */
	"to_lsn" pg_lsn,  /* PgLsn */
	"note" text  /* Text */
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'recovery_windows_wrapper';

-- pg_ark::api::status::server_status
CREATE  FUNCTION "server_status"() RETURNS TABLE (
	"repository" text,  /* Option < Text > */
	"cluster" text,  /* Text */
	"last_backup" text,  /* Option < Text > */
	"last_backup_at" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"damaged_pages" bigint,  /* Option < i64 > */
	"last_clean_backup" text,  /* Option < Text > */
	"last_clean_backup_at" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"archive_mode" text,  /* Text */
	"archived_by" text,  /* Text */
	"archive_lag_segments" bigint,  /* i64 */
	"archive_lag_bytes" bigint,  /* Option < i64 > */
	"rpo_seconds" bigint,  /* Option < i64 > */
	"rpo_bytes" bigint,  /* Option < i64 > */
	"last_archived_segment" text,  /* Option < Text > */
	"last_archived_at" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"last_failed_segment" text,  /* Option < Text > */
	"last_failed_at" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"last_failure" text,  /* Option < Text > */
	"health" text  /* Text */
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'server_status_wrapper';

-- requires:
--   server_status

-- ark.status: one row that says how well this server is protected, made for a glance and for monitoring.

CREATE VIEW @extschema@.status AS
SELECT repository,
       cluster,
       last_backup,
       last_backup_at,
       clock_timestamp() - last_backup_at AS last_backup_age,
       damaged_pages,
       last_clean_backup,
       last_clean_backup_at,
       archive_mode,
       archived_by,
       archive_lag_segments,
       archive_lag_bytes,
       rpo_seconds,
       rpo_bytes,
       last_archived_segment,
       last_archived_at,
       last_failed_segment,
       last_failed_at,
       last_failure,
       health
FROM @extschema@.server_status();

COMMENT ON VIEW @extschema@.status IS
    'how well this server is protected: last backup, archive lag, what would be lost now, health';
COMMENT ON COLUMN @extschema@.status.damaged_pages IS
    'pages of the last backup whose checksum failed at the source: list_backups, show and the server log name them';
COMMENT ON COLUMN @extschema@.status.last_clean_backup IS
    'the last backup without damaged pages';
COMMENT ON COLUMN @extschema@.status.archived_by IS
    'who archives the WAL: archive_library or archive_command (pg_ark''s), other, both, unset, off';
COMMENT ON COLUMN @extschema@.status.archive_lag_segments IS
    'finished segments that wait to be archived';
COMMENT ON COLUMN @extschema@.status.archive_lag_bytes IS
    'WAL since the end of the newest stored segment';
COMMENT ON COLUMN @extschema@.status.rpo_seconds IS
    'age of the newest stored commit when something was written since, else 0';
COMMENT ON COLUMN @extschema@.status.rpo_bytes IS
    'WAL that would be lost if this server were gone now';
COMMENT ON COLUMN @extschema@.status.last_failure IS
    'why the last segment could not be archived; null when archiving works';
COMMENT ON COLUMN @extschema@.status.health IS
    'ok, or what is wrong';

-- pg_ark::api::list::show
CREATE  FUNCTION "show"(
	"backup" text /* Option < Text > */
) RETURNS jsonb /* Document */
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'show_wrapper';

-- pg_ark::api::validate::validate
CREATE  FUNCTION "validate"(
	"backup" text DEFAULT NULL, /* Option < Text > */
	"level" text DEFAULT 'data' /* Option < Text > */
) RETURNS TABLE (
	"backup" text,  /* Option < Text > */
	"severity" text,  /* Text */
	"object" text,  /* Text */
	"finding" text,  /* Text */
	"hint" text  /* Option < Text > */
)
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'validate_wrapper';

-- pg_ark::api::wal::verify_archive
CREATE  FUNCTION "verify_archive"(
	"deep" bool DEFAULT false /* Option < bool > */
) RETURNS TABLE (
	"timeline" INT,  /* Option < i32 > */
	"first_segment" text,  /* Option < Text > */
	"last_segment" text,  /* Option < Text > */
	"start_lsn" pg_lsn,  /* Option < PgLsn > */
	"end_lsn" pg_lsn,  /* Option < PgLsn > */
	"start_time" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"end_time" timestamp with time zone,  /* Option < TimestampWithTimeZone > */
	"segments" bigint,  /* i64 */
	"status" text,  /* Text */
	"detail" text  /* Option < Text > */
)
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'verify_archive_wrapper';

-- finalize
-- Rights. Nothing is granted to PUBLIC: what reads goes to pg_monitor, the rest belongs to the owner of the
-- extension, who may GRANT EXECUTE.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @extschema@ FROM PUBLIC;
REVOKE ALL ON SCHEMA @extschema@ FROM PUBLIC;

GRANT USAGE ON SCHEMA @extschema@ TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.list_backups() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.show(text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.check() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.validate(text, text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.verify_archive(boolean) TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.recovery_windows() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.server_status() TO pg_monitor;
GRANT SELECT ON @extschema@.status TO pg_monitor;

COMMENT ON FUNCTION @extschema@.enable(text, boolean) IS
    'creates or opens the repository and sets pg_ark.repository for the whole server';
COMMENT ON FUNCTION @extschema@.backup_start(text, text, boolean, boolean, boolean) IS
    'starts a backup in the background and returns its name';
COMMENT ON FUNCTION @extschema@.backup_stop(text) IS
    'cancels a running backup; false when it does not run';
COMMENT ON FUNCTION @extschema@.list_backups() IS
    'backups of this cluster in the repository, oldest first';
COMMENT ON FUNCTION @extschema@.show(text) IS
    'the record of one backup';
COMMENT ON FUNCTION @extschema@.check() IS
    'is this server able to back itself up, and what is missing';
COMMENT ON FUNCTION @extschema@.validate(text, text) IS
    'what of the stored backups is not as it should be, one row each; no row: all is well';
COMMENT ON FUNCTION @extschema@.verify_archive(boolean) IS
    'ranges of stored WAL without holes, gaps, damage and strangers, one row each';
COMMENT ON FUNCTION @extschema@.recovery_windows() IS
    'from which moment to which this cluster can be restored';
COMMENT ON FUNCTION @extschema@.server_status() IS
    'the row of the view status';

