-- ark.status: one row that says how well this server is protected, made for a glance and for monitoring.

CREATE VIEW @extschema@.status AS
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
