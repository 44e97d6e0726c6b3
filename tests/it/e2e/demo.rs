//! The README's first command: `wattline demo` ends well and in time, everything bundled is in its tables, and every reader
//! sees them.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::counts::every_reader_counts_the_same;
use super::job::JobFolder;
use crate::child_process::ChildProcess;
use crate::scratch::Scratch;
use crate::tree;

/// Less than a minute after the build is what the README's reader is told.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_demo_ends_in_time_and_every_reader_sees_its_tables() -> Result<()> {
    let (folder, log) = (JobFolder::new("demo")?, Scratch::new("demo-log")?);
    let job = folder.path().display().to_string();
    let said = log.join("demo.log");
    let mut demo = ChildProcess::start(&tree::wattline()?, &["demo", "--folder", &job], log.path(), &said)?;
    let status = demo.wait(LIMIT)?;
    let text = std::fs::read_to_string(&said)?;
    ensure!(status.success(), "the demo ended with {status}:\n{text}");
    for shown in ["wattline query", "duckdb", "polars", "pq_voltage_deviation", "tx_missing_step"] {
        ensure!(text.contains(shown), "the demo's summary says nothing of `{shown}`:\n{text}");
    }
    for (table, rows) in [("meter_readings", 216_000), ("device_metrics", 63_064), ("business_transactions", 55_739)] {
        assert_eq!(folder.count(&format!("SELECT count(*) AS n FROM {table}"))?, rows, "{table}");
    }
    assert_eq!(folder.count("SELECT count(*) AS n FROM dead_letters")?, 0);
    assert_eq!(folder.count("SELECT count(*) AS n FROM rule_errors")?, 0);
    every_reader_counts_the_same(&folder)
}
