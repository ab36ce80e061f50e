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
