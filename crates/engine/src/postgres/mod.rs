//! PostgreSQL's on-disk formats: bytes in, values out, no I/O, no panic.
