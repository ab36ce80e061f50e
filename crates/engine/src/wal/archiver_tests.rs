//! Tests of the archiver.
