//! Real clusters and repositories for tests.
