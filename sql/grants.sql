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
GRANT EXECUTE ON FUNCTION @extschema@.server_metrics() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.server_jobs() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.job_runs(text, integer) TO pg_monitor;
GRANT SELECT ON @extschema@.status TO pg_monitor;
GRANT SELECT ON @extschema@.metrics TO pg_monitor;
GRANT SELECT ON @extschema@.jobs TO pg_monitor;
GRANT SELECT ON @extschema@.job TO pg_monitor;

COMMENT ON FUNCTION @extschema@.enable(text, boolean) IS
    'creates or opens the repository and sets pg_ark.repository for the whole server';
COMMENT ON FUNCTION @extschema@.backup_start(text, text, boolean, boolean, boolean, text[], text[], boolean) IS
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
