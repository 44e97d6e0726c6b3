//! Reads tables with the engines that users have, through `tests/python/readers.py`.
//!
//! The point of plain formats is that others read them; only others can show that.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::tree;

/// A Delta table and its live files as `wattline archive files` names them.
#[derive(Debug, Serialize)]
pub(crate) struct TableToRead {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// Empty means that DuckDB, which reads by this list, leaves the table out.
    pub(crate) files: Vec<PathBuf>,
}

/// What one engine saw of one table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Seen {
    pub(crate) rows: u64,
    /// Sorted by name; the partition column included.
    pub(crate) columns: Vec<String>,
}

/// Table → engine (`duckdb`, `polars`, `deltalake`) → what it saw.
pub(crate) type SeenByEngine = BTreeMap<String, BTreeMap<String, Seen>>;

/// Reads every table with every engine.
///
/// # Errors
/// With the engine's own message if one of them cannot read one of the tables.
pub(crate) fn read_tables(tables: &[TableToRead]) -> Result<SeenByEngine> {
    let mut child = Command::new(tree::python()?)
        .arg(tree::root()?.join("tests/python/readers.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    let request = serde_json::to_vec(&serde_json::json!({ "tables": tables }))?;
    child.stdin.take().context("Python has no standard input")?.write_all(&request)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "a reader failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the readers' answer is no JSON of the expected form")
}
