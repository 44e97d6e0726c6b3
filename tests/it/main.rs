//! Everything that needs real components or the whole tree, as one test binary: linking the engine is dear, so it is linked once.
//!
//! [`kafka_broker`], [`s3_server`] and [`readers`] start the real things (Apache Kafka, an S3 server, DuckDB, Polars and the
//! `deltalake` package) as children of this process; each has a test that shows what it promises. A component that cannot be
//! started fails its test: nothing here is skipped. [`kafka_proxy`] stands between a client and the broker. [`slt`] runs the suites in
//! `tests/slt`. `scripts/test setup` fetches what they need.

mod answers;
mod child_process;
mod dependency_graph;
mod e2e;
mod faults;
mod kafka_broker;
mod kafka_broker_tests;
mod kafka_proxy;
mod library;
mod nab;
mod readers;
mod readers_tests;
mod recipe;
mod reports;
mod s3_server;
mod s3_server_tests;
mod scratch;
mod slt;
mod streams;
mod tidy;
mod tree;
mod worked;

/// A setting of a longer run, from the environment.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
