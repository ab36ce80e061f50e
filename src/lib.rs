//! pg_ark extension.
