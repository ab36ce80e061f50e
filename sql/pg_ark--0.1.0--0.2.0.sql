-- From 0.1.0 to 0.2.0: scheduled jobs, retention, metrics, and more columns of what there was.
--
-- Statements are those that a new installation runs; a test compares the two, object by object.

-- A library that was loaded before the files came lacks the functions: it is told before anything is touched.

DO $$
BEGIN
    CREATE FUNCTION @extschema@.loaded_version() RETURNS pg_catalog.text VOLATILE LANGUAGE c
        AS 'MODULE_PATHNAME', 'library_version_wrapper';
    DROP FUNCTION @extschema@.loaded_version();
EXCEPTION WHEN undefined_function THEN
    RAISE EXCEPTION USING
        ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = 'the library of pg_ark that is loaded is older than version 0.2.0 of its SQL',
        HINT = 'Reconnect, or restart the server when pg_ark is in shared_preload_libraries, then try again. If that does '
            'not help, run scripts/install for this server.';
END $$;

-- The view loses its function for a moment and keeps its columns, so that views of users on it stay.

CREATE OR REPLACE VIEW @extschema@.status AS
SELECT NULL::text AS repository,
       NULL::text AS cluster,
       NULL::text AS last_backup,
       NULL::timestamp with time zone AS last_backup_at,
       NULL::interval AS last_backup_age,
       NULL::bigint AS damaged_pages,
       NULL::text AS last_clean_backup,
       NULL::timestamp with time zone AS last_clean_backup_at,
       NULL::text AS archive_mode,
       NULL::text AS archived_by,
       NULL::bigint AS archive_lag_segments,
       NULL::bigint AS archive_lag_bytes,
       NULL::bigint AS rpo_seconds,
       NULL::bigint AS rpo_bytes,
       NULL::text AS last_archived_segment,
       NULL::timestamp with time zone AS last_archived_at,
       NULL::text AS last_failed_segment,
       NULL::timestamp with time zone AS last_failed_at,
       NULL::text AS last_failure,
       NULL::text AS health;

DROP FUNCTION @extschema@.server_status();

DROP FUNCTION @extschema@.list_backups();

CREATE FUNCTION @extschema@."job_runs"(
    "name" text DEFAULT NULL,
    "max_runs" INT DEFAULT 100
) RETURNS TABLE (
    "job" text,
    "kind" text,
    "due_at" timestamp with time zone,
    "attempt" INT,
    "status" text,
    "started_at" timestamp with time zone,
    "finished_at" timestamp with time zone,
    "host" text,
    "backup" text,
    "result" text,
    "error" text
)
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'job_runs_wrapper';

CREATE FUNCTION @extschema@."library_version"() RETURNS TEXT
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'library_version_wrapper';

CREATE FUNCTION @extschema@."list_backups"() RETURNS TABLE (
    "backup" TEXT,
    "kind" TEXT,
    "status" TEXT,
    "parent" TEXT,
    "label" text,
    "pinned" bool,
    "started_at" timestamp with time zone,
    "finished_at" timestamp with time zone,
    "start_lsn" pg_lsn,
    "stop_lsn" pg_lsn,
    "timeline" INT,
    "server_version" INT,
    "data_bytes" bigint,
    "stored_bytes" bigint,
    "wal_included" bool,
    "damaged_pages" bigint,
    "error" text,
    "pin_reason" text,
    "contents" text
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'list_backups_wrapper';

CREATE FUNCTION @extschema@."pin"(
    "backup" text,
    "reason" text DEFAULT NULL
) RETURNS bool
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'pin_wrapper';

CREATE FUNCTION @extschema@."prune"(
    "dry_run" bool DEFAULT true
) RETURNS TABLE (
    "object" text,
    "kind" text,
    "verdict" text,
    "rule" text,
    "bytes" bigint
)
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'prune_wrapper';

CREATE FUNCTION @extschema@."schedule"(
    "name" text,
    "cron" text,
    "kind" text DEFAULT 'full',
    "timezone" text DEFAULT NULL,
    "label" text DEFAULT NULL,
    "time_limit" interval DEFAULT '1 day',
    "enabled" bool DEFAULT true,
    "level" text DEFAULT NULL,
    "deep" bool DEFAULT NULL,
    "databases" text[] DEFAULT NULL,
    "exclude_databases" text[] DEFAULT NULL,
    "skip_failed" bool DEFAULT NULL
) RETURNS timestamp with time zone
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'schedule_wrapper';

CREATE FUNCTION @extschema@."server_jobs"() RETURNS TABLE (
    "name" text,
    "kind" text,
    "cron" text,
    "timezone" text,
    "enabled" bool,
    "next_run" timestamp with time zone,
    "running_since" timestamp with time zone,
    "last_run" timestamp with time zone,
    "last_status" text,
    "last_result" text,
    "last_error" text,
    "failures" INT
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'server_jobs_wrapper';

CREATE FUNCTION @extschema@."server_metrics"() RETURNS TABLE (
    "name" text,
    "labels" jsonb,
    "value" double precision
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'server_metrics_wrapper';

CREATE FUNCTION @extschema@."server_status"() RETURNS TABLE (
    "repository" text,
    "cluster" text,
    "last_backup" text,
    "last_backup_at" timestamp with time zone,
    "damaged_pages" bigint,
    "last_clean_backup" text,
    "last_clean_backup_at" timestamp with time zone,
    "archive_mode" text,
    "archived_by" text,
    "archive_lag_segments" bigint,
    "archive_lag_bytes" bigint,
    "rpo_seconds" bigint,
    "rpo_bytes" bigint,
    "last_archived_segment" text,
    "last_archived_at" timestamp with time zone,
    "last_failed_segment" text,
    "last_failed_at" timestamp with time zone,
    "last_failure" text,
    "health" text,
    "healthy" bool,
    "recovery_window_from" timestamp with time zone,
    "recovery_window_to" timestamp with time zone,
    "next_run" timestamp with time zone,
    "next_job" text,
    "last_error" text,
    "last_error_at" timestamp with time zone,
    "backups" bigint,
    "backup_bytes" bigint,
    "free_bytes" bigint,
    "pruned_at" timestamp with time zone,
    "last_logical_backup" text,
    "last_logical_backup_at" timestamp with time zone
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'server_status_wrapper';

CREATE FUNCTION @extschema@."unpin"(
    "backup" text
) RETURNS bool
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'unpin_wrapper';

CREATE FUNCTION @extschema@."unschedule"(
    "name" text
) RETURNS bool
VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'unschedule_wrapper';

-- ark.backup_start has more arguments. Those who were granted the old one get the new one.

CREATE FUNCTION @extschema@."backup_start"(
    "kind" text DEFAULT 'full',
    "label" text DEFAULT NULL,
    "fast" bool DEFAULT true,
    "wait" bool DEFAULT false,
    "include_wal" bool DEFAULT NULL,
    "databases" text[] DEFAULT NULL,
    "exclude_databases" text[] DEFAULT NULL,
    "skip_failed" bool DEFAULT false
) RETURNS TEXT
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'start_backup_wrapper';

REVOKE ALL ON FUNCTION @extschema@.backup_start(text, text, bool, bool, bool, text[], text[], bool) FROM PUBLIC;

DO $$
DECLARE
    granted pg_catalog.record;
BEGIN
    FOR granted IN
        SELECT a.grantee, r.rolname, a.is_grantable FROM pg_catalog.pg_proc p
            CROSS JOIN pg_catalog.aclexplode(p.proacl) a
            LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) a.grantee
            WHERE p.oid OPERATOR(pg_catalog.=)
                '@extschema@.backup_start(text, text, bool, bool, bool)'::pg_catalog.regprocedure
            AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION @extschema@.backup_start(text, text, bool, bool, bool, '
            'text[], text[], bool) TO %s%s',
            CASE WHEN granted.rolname IS NULL THEN 'PUBLIC' ELSE pg_catalog.quote_ident(granted.rolname) END,
            CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $$;

DROP FUNCTION @extschema@.backup_start(text, text, bool, bool, bool);

CREATE OR REPLACE VIEW @extschema@.status AS
SELECT repository,
       cluster,
       last_backup,
       last_backup_at,
       greatest(clock_timestamp(), last_backup_at) - last_backup_at AS last_backup_age,
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
       health,
       healthy,
       recovery_window_from,
       recovery_window_to,
       next_run,
       next_job,
       last_error,
       last_error_at,
       backups,
       backup_bytes,
       free_bytes,
       pruned_at,
       last_logical_backup,
       last_logical_backup_at
FROM @extschema@.server_status();

COMMENT ON COLUMN @extschema@.status.healthy IS
    'health is ok';
COMMENT ON COLUMN @extschema@.status.recovery_window_from IS
    'every moment from then to recovery_window_to can be restored; ark.recovery_windows() says all of it';
COMMENT ON COLUMN @extschema@.status.recovery_window_to IS
    'time of the last commit in the archive that can be restored';
COMMENT ON COLUMN @extschema@.status.next_run IS
    'when the next scheduled job is due, another attempt at a failed run included';
COMMENT ON COLUMN @extschema@.status.next_job IS
    'which job that is';
COMMENT ON COLUMN @extschema@.status.last_error IS
    'what failed last and is not over: a backup, a run of a job, archiving';
COMMENT ON COLUMN @extschema@.status.backups IS
    'complete backups in the repository';
COMMENT ON COLUMN @extschema@.status.backup_bytes IS
    'their stored size, without the archived WAL';
COMMENT ON COLUMN @extschema@.status.free_bytes IS
    'what is free where the repository is';
COMMENT ON COLUMN @extschema@.status.pruned_at IS
    'when retention last removed what it does not keep';
COMMENT ON COLUMN @extschema@.status.last_logical_backup IS
    'the last logical backup; last_backup and what follows from it are about the others';

-- ark.job: what this server is to do, and when. Written by ark.schedule and ark.unschedule, read by the scheduler, which
-- runs the jobs of the database named by pg_ark.database alone. How runs went is kept in the repository, not here.
--
-- A dump of the database takes the rows along, and a standby has them from its primary: so a server that is promoted
-- goes on with the same schedule.

CREATE TABLE @extschema@.job (
    name pg_catalog.text COLLATE "C" PRIMARY KEY,
    kind pg_catalog.text NOT NULL
        CHECK (kind IN ('full', 'incremental', 'logical', 'prune', 'verify', 'verify_archive')),
    cron pg_catalog.text NOT NULL,
    timezone pg_catalog.text NOT NULL,
    enabled pg_catalog.bool NOT NULL DEFAULT true,
    since pg_catalog.timestamptz NOT NULL DEFAULT now() CHECK (isfinite(since)),
    time_limit pg_catalog.interval NOT NULL DEFAULT '1 day'
        CHECK (time_limit >= '1 second'::pg_catalog.interval AND time_limit <= '366 days'::pg_catalog.interval),
    label pg_catalog.text,
    level pg_catalog.text CHECK (level IN ('record', 'data', 'pages')),
    deep pg_catalog.bool NOT NULL DEFAULT false,
    databases pg_catalog.text[]
        CHECK (pg_catalog.array_position(databases, NULL) IS NULL AND pg_catalog.cardinality(databases) > 0),
    exclude_databases pg_catalog.text[]
        CHECK (pg_catalog.array_position(exclude_databases, NULL) IS NULL),
    skip_failed pg_catalog.bool NOT NULL DEFAULT false
);

SELECT pg_catalog.pg_extension_config_dump('@extschema@.job', '');

COMMENT ON TABLE @extschema@.job IS
    'scheduled jobs of this server, in the database named by pg_ark.database; ark.schedule writes it, ark.jobs shows it';
COMMENT ON COLUMN @extschema@.job.since IS
    'moments up to this one were never due: when the job was made, or its schedule changed';
COMMENT ON COLUMN @extschema@.job.time_limit IS
    'a run that takes longer is ended';
COMMENT ON COLUMN @extschema@.job.label IS
    'label of the backups that it takes';
COMMENT ON COLUMN @extschema@.job.level IS
    'for kind verify: record, data or pages';
COMMENT ON COLUMN @extschema@.job.deep IS
    'for kind verify_archive: read every segment and follow its records';
COMMENT ON COLUMN @extschema@.job.databases IS
    'for kind logical: the databases that are dumped; null: all of them';
COMMENT ON COLUMN @extschema@.job.exclude_databases IS
    'for kind logical: databases that are left out';
COMMENT ON COLUMN @extschema@.job.skip_failed IS
    'for kind logical: the backup becomes complete without databases that could not be dumped, and names them';

CREATE VIEW @extschema@.jobs AS
SELECT name,
       kind,
       cron,
       timezone,
       enabled,
       next_run,
       running_since,
       last_run,
       last_status,
       last_result,
       last_error,
       failures
FROM @extschema@.server_jobs();

COMMENT ON VIEW @extschema@.jobs IS
    'scheduled jobs: when each is due, and how its last run went';
COMMENT ON COLUMN @extschema@.jobs.timezone IS
    'the fields of cron count in this time zone';
COMMENT ON COLUMN @extschema@.jobs.next_run IS
    'when it is due, another attempt at a failed run included; null when it is not enabled';
COMMENT ON COLUMN @extschema@.jobs.running_since IS
    'when the attempt began that goes on now';
COMMENT ON COLUMN @extschema@.jobs.last_run IS
    'when the attempt began that ended last';
COMMENT ON COLUMN @extschema@.jobs.last_status IS
    'done or failed';
COMMENT ON COLUMN @extschema@.jobs.last_error IS
    'why it failed, or why nothing can be said';
COMMENT ON COLUMN @extschema@.jobs.failures IS
    'attempts that failed since the last that did not; null while the repository cannot be asked';

-- ark.metrics: the numbers behind ark.status and ark.jobs, one row each, as an exporter for Prometheus wants them.

CREATE VIEW @extschema@.metrics AS
SELECT name,
       labels,
       value
FROM @extschema@.server_metrics();

COMMENT ON VIEW @extschema@.metrics IS
    'numbers about backups, archive and jobs for monitoring; what is not known has no row';
COMMENT ON COLUMN @extschema@.metrics.name IS
    'as Prometheus names metrics; times are seconds since 1970';
COMMENT ON COLUMN @extschema@.metrics.labels IS
    'job and kind for those about a job';

-- Rights, as sql/grants.sql gives them.

REVOKE ALL ON FUNCTION @extschema@.job_runs(text, INT) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.library_version() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.list_backups() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.pin(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prune(bool) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.schedule(text, text, text, text, text, interval, bool, text, bool, text[], text[], bool)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.server_jobs() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.server_metrics() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.server_status() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.unpin(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.unschedule(text) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION @extschema@.list_backups() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.server_status() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.server_metrics() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.server_jobs() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.job_runs(text, integer) TO pg_monitor;
GRANT SELECT ON @extschema@.metrics TO pg_monitor;
GRANT SELECT ON @extschema@.jobs TO pg_monitor;
GRANT SELECT ON @extschema@.job TO pg_monitor;

COMMENT ON FUNCTION @extschema@.backup_start(text, text, boolean, boolean, boolean, text[], text[], boolean) IS
    'starts a backup in the background and returns its name';
COMMENT ON FUNCTION @extschema@.list_backups() IS
    'backups of this cluster in the repository, oldest first';
COMMENT ON FUNCTION @extschema@.server_status() IS
    'the row of the view status';
COMMENT ON FUNCTION @extschema@.server_metrics() IS
    'the rows of the view metrics';
COMMENT ON FUNCTION @extschema@.library_version() IS
    'version of the library that this session uses';
COMMENT ON FUNCTION @extschema@.schedule(text, text, text, text, text, interval, boolean, text, boolean, text[], text[],
    boolean) IS
    'makes a scheduled job or replaces the one of that name; returns when it is due next';
COMMENT ON FUNCTION @extschema@.unschedule(text) IS
    'removes a scheduled job; false when there is none of that name';
COMMENT ON FUNCTION @extschema@.server_jobs() IS
    'the rows of the view jobs';
COMMENT ON FUNCTION @extschema@.job_runs(text, integer) IS
    'attempts at scheduled jobs, newest first, with what came of each';
COMMENT ON FUNCTION @extschema@.prune(boolean) IS
    'what retention keeps and drops, and the rule behind it; removes nothing unless dry_run => false';
COMMENT ON FUNCTION @extschema@.pin(text, text) IS
    'keeps a backup until it is unpinned; false when it was pinned so already';
COMMENT ON FUNCTION @extschema@.unpin(text) IS
    'takes the pin of a backup away; false when it had none';
