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
