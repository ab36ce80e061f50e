-- Refuses a schema that somebody else made before: its owner could put functions beside those of pg_ark, with other
-- arguments, and a superuser who calls pg_ark's would run them.

DO $$
DECLARE
    maker pg_catalog.pg_roles;
    stranger pg_catalog.text;
BEGIN
    SELECT r.* INTO STRICT maker FROM pg_catalog.pg_namespace n
        JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
        WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@';
    SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text INTO stranger FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@' LIMIT 1;
    IF NOT maker.rolsuper OR stranger IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = pg_catalog.format('schema "%s" was not made for pg_ark', '@extschema@'),
            DETAIL = pg_catalog.format('It belongs to role "%s"%s.', maker.rolname,
                coalesce(' and holds ' OPERATOR(pg_catalog.||) stranger, '')),
            HINT = 'Look at what it holds, drop it, and create the extension again: it makes the schema itself.';
    END IF;
END $$;
