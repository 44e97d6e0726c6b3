//! The shipped reports over the archive of a small job, `tests/reports`, whose answers were counted by hand.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::scratch::Scratch;
use crate::tree;

const REPORTS: usize = 17;

fn wattline(args: &[&str], folder: &Path) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_wattline")).args(args).current_dir(folder).output()?;
    ensure!(output.status.success(), "wattline {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What of an answer is the same wherever and whenever the job ran: not the paths of files and what is named after them, nor the day
/// on which records were refused.
fn lasting(report: &str, answer: &str) -> Vec<String> {
    let line = |line: &str| match report {
        "rp_lineage" => {
            let cells = line.split(',').take(8).enumerate().filter(|(at, _)| *at != 1);
            cells.map(|(_, cell)| cell).collect::<Vec<_>>().join(",")
        }
        _ => line.to_owned(),
    };
    let is_refused = |line: &&str| {
        report == "rp_coverage" && line.split(',').nth(10).is_some_and(|refused| !matches!(refused, "0" | "refused"))
    };
    answer.lines().filter(|line| !is_refused(line)).map(line).collect()
}

#[test]
fn reports_give_what_was_counted() -> Result<()> {
    let job = tree::root()?.join("tests/reports");
    let folder = Scratch::copy_of("reports", &job)?;
    wattline(&["run", "--until-end"], folder.path())?;
    let reports: Value = serde_json::from_str(&wattline(&["reports", "list", "--format", "json"], folder.path())?)?;
    let reports: Vec<&str> = reports.as_array().into_iter().flatten().filter_map(|of| of["id"].as_str()).collect();
    ensure!(reports.len() == REPORTS, "{} reports", reports.len());
    let (mut scripts, mut rows) = (BTreeMap::new(), BTreeMap::new());
    let mut wrong = Vec::new();
    for report in &reports {
        let answer = wattline(&["reports", "run", report, "--format", "csv"], folder.path())?;
        let expected = fs::read_to_string(job.join(format!("answers/{report}.csv"))).context((*report).to_owned())?;
        ensure!(expected.lines().count() > 1, "{report} says nothing");
        let (got, expected) = (lasting(report, &answer), lasting(report, &expected));
        if got != expected {
            let first = got.iter().zip(&expected).find(|(got, expected)| got != expected);
            wrong.push(format!("{report}: {} rows and not {}; {first:?}", got.len(), expected.len()));
        }
        scripts.insert(*report, wattline(&["reports", "show", report, "--duckdb"], folder.path())?);
        rows.insert(*report, arrow_csv_rows(&answer));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(
        in_duckdb(&json!({ "scripts": scripts }))? == json!(rows),
        "DuckDB gives other numbers of rows than {rows:?}"
    );
    Ok(())
}

/// Records of a CSV text: texts in quotes may hold line breaks.
fn arrow_csv_rows(text: &str) -> usize {
    let mut quoted = false;
    let ends = text.chars().filter(|c| {
        quoted ^= *c == '"';
        *c == '\n' && !quoted
    });
    ends.count().saturating_sub(1)
}

fn in_duckdb(request: &Value) -> Result<Value> {
    let mut child = Command::new(tree::python()?)
        .arg(tree::root()?.join("tests/python/duckdb_rows.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    child.stdin.take().context("Python has no standard input")?.write_all(request.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "DuckDB: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the answer is no JSON")
}
