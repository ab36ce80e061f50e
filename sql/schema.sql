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

-- Refuses a library of another version: a session keeps the one that it loaded, and shared_preload_libraries the one that
-- was there when the server started, whatever files came since.

DO $$
DECLARE
    wanted pg_catalog.text;
    loaded pg_catalog.text := 'an older one';
BEGIN
    SELECT e.extversion INTO STRICT wanted FROM pg_catalog.pg_extension e
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_ark';
    BEGIN
        CREATE FUNCTION @extschema@.loaded_version() RETURNS pg_catalog.text VOLATILE LANGUAGE c
            AS 'MODULE_PATHNAME', 'library_version_wrapper';
        loaded := @extschema@.loaded_version();
        DROP FUNCTION @extschema@.loaded_version();
    EXCEPTION WHEN undefined_function THEN
        NULL; -- A library that does not say its version.
    END;
    IF loaded OPERATOR(pg_catalog.<>) wanted THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('the SQL of pg_ark has version %s, the library that is loaded %s', wanted, loaded),
            HINT = 'Reconnect, or restart the server when pg_ark is in shared_preload_libraries, then try again. If that '
                'does not help, run scripts/install for this server.';
    END IF;
END $$;
