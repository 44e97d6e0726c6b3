//! The readers are themselves measured: on a table whose rows are known they must agree, and a file left out must show.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::readers::{TableToRead, read_tables};
use crate::scratch::Scratch;
use crate::tree;

/// Five rows on two dates, in two commits.
const WRITE_TABLE: &str = r#"
import sys, pyarrow as pa
from deltalake import DeltaTable, write_deltalake
folder = sys.argv[1]
def rows(dates, first):
    return pa.table({"meter_id": [f"m{first + i}" for i in range(len(dates))], "event_date": dates})
write_deltalake(folder, rows(["2026-03-02", "2026-03-02", "2026-03-03"], 0), partition_by=["event_date"])
write_deltalake(folder, rows(["2026-03-03", "2026-03-04"], 3), mode="append")
print("\n".join(DeltaTable(folder).file_uris()))
"#;

#[test]
fn engines_agree_and_a_missing_file_shows() -> Result<()> {
    let scratch = Scratch::new("readers")?;
    let folder = scratch.join("table");
    fs::create_dir_all(&folder)?;
    let output = Command::new(tree::python()?).args(["-c", WRITE_TABLE]).arg(&folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut files: Vec<_> = String::from_utf8(output.stdout)?.lines().map(Into::into).collect();
    let table = |files| TableToRead { name: "readings".to_owned(), folder: folder.clone(), files };

    let seen = read_tables(&[table(files.clone())])?;
    let engines = seen.get("readings").context("no answer for the table")?;
    assert_eq!(engines.keys().collect::<Vec<_>>(), ["deltalake", "duckdb", "polars"]);
    for (engine, seen) in engines {
        assert_eq!((seen.rows, seen.columns.join(",").as_str()), (5, "event_date,meter_id"), "{engine}");
    }

    files.pop();
    let seen = read_tables(&[table(files)])?;
    ensure!(seen["readings"]["duckdb"].rows < 5, "DuckDB does not read by the list of files: {seen:?}");
    ensure!(
        read_tables(&[TableToRead { name: "none".to_owned(), folder: scratch.join("none"), files: vec![] }]).is_err()
    );
    Ok(())
}
