//! Tests of the threads that store.
