//! The bundled sample through the whole program, from files into tables: the answers of `data/sample/expected.json`.
//!
//! The rules alone are held to all of those answers elsewhere; here several of them hold the way there: files, mapping,
//! decoding, reference tables, windows, tables, and reading back. Once into a folder, once into an S3 server.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::counts::text;
use super::job::JobFolder;
use super::oracle::demo_rules;
use crate::s3_server::S3Server;
use crate::tree;

const RUN_LIMIT: Duration = Duration::from_secs(240);

/// Answers of the sample by id.
fn expected() -> Result<BTreeMap<String, Value>> {
    let file = fs::read_to_string(tree::root()?.join("data/sample/expected.json"))?;
    let all: Value = serde_json::from_str(&file)?;
    let answers = all.get("answers").and_then(Value::as_array).context("no answers")?;
    answers.iter().map(|each| Ok((text(each, "id")?, each.get("answer").cloned().unwrap_or_default()))).collect()
}

/// The demo's job over files: its mappings and reference tables, with `files` in place of topics.
fn configure(folder: &JobFolder, streams: &[(&str, &str)], rules: &[String], archive: &str) -> Result<()> {
    let root = tree::root()?;
    let demo = fs::read_to_string(root.join("pipeline/wattline/assets/demo.toml"))?;
    let mut job = format!("job = \"sample\"\n[rules]\npaths = {rules:?}\n[archive]\n{archive}\n");
    let sample = root.join("data/sample/reference/").display().to_string();
    for section in demo.split("\n[").skip(1) {
        let name = section.split(']').next().unwrap_or_default();
        let stream = name.strip_prefix("streams.").map(|rest| rest.split('.').next().unwrap_or(rest));
        let chosen = streams.iter().find(|(known, _)| Some(*known) == stream);
        if chosen.is_none() && !name.starts_with("reference.") {
            continue;
        }
        let files = chosen.map(|(_, files)| format!("files = \"{files}\"")).unwrap_or_default();
        let lines = section.lines().map(|line| if line.starts_with("topic = ") { files.as_str() } else { line });
        let lines: Vec<String> = lines.map(|line| line.replace("reference/", &sample)).collect();
        job.push_str(&format!("[{}\n", lines.join("\n")));
    }
    folder.write("wattline.toml", &job)
}

/// The rows of a query as a JSON object: the first column names what the others say.
fn by_name(folder: &JobFolder, sql: &str) -> Result<Value> {
    let mut found = serde_json::Map::new();
    for row in folder.query(sql)? {
        let mut row = row.as_object().context("a row is no object")?.clone();
        let name = row.remove("name").context("no `name`")?;
        let only = if row.len() == 1 { row.values().next().cloned() } else { None };
        found.insert(name.as_str().unwrap_or_default().to_owned(), only.unwrap_or_else(|| row.into()));
    }
    Ok(found.into())
}

/// Equal up to how a number is written: 12 and 12.0 are the same.
fn same(id: &str, expected: &Value, found: &Value) -> Result<()> {
    let equal = match (expected, found) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            ensure!(a.len() == b.len(), "`{id}`: {} entries expected, {} found", a.len(), b.len());
            return a.iter().zip(b).try_for_each(|(a, b)| same(id, a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            ensure!(a.keys().eq(b.keys()), "`{id}`: names differ: {:?}, {:?}", a.keys(), b.keys());
            return a.iter().try_for_each(|(name, a)| same(&format!("{id} {name}"), a, &b[name]));
        }
        (a, b) => a == b,
    };
    ensure!(equal, "`{id}`: {expected} expected, {found} found");
    Ok(())
}

#[test]
fn sample_reproduces_the_pinned_answers() -> Result<()> {
    let folder = JobFolder::new("sample")?;
    let sample = tree::root()?.join("data/sample");
    for file in ["transactions.ndjson.gz", "bills.ndjson"] {
        fs::create_dir_all(folder.path().join("transactions"))?;
        fs::copy(sample.join(file), folder.path().join("transactions").join(file))?;
    }
    let at = |file: &str| sample.join(file).display().to_string();
    let streams = [
        ("meter_readings", at("readings.ndjson.gz")),
        ("device_metrics", at("device_metrics.ndjson.gz")),
        ("business_transactions", "transactions/*".to_owned()),
    ];
    let streams: Vec<(&str, &str)> = streams.iter().map(|(name, files)| (*name, files.as_str())).collect();
    configure(&folder, &streams, &demo_rules()?, "url = \"archive\"")?;
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM rule_errors")?, 0);
    assert_eq!(folder.count("SELECT count(*) AS n FROM dead_letters")?, 0);

    let expected = expected()?;
    for (id, sql) in BY_NAME {
        same(id, &expected[*id], &by_name(&folder, sql)?)?;
    }
    for (id, sql) in ONE_ROW {
        let rows = folder.query(sql)?;
        ensure!(rows.len() == 1, "`{id}`: {} rows", rows.len());
        same(id, &expected[*id], &rows[0])?;
    }
    for (id, sql) in LISTS {
        let rows = folder.query(sql)?;
        let rows: Vec<Value> = rows.iter().filter_map(|row| row.get("entry").cloned()).collect();
        same(id, &expected[*id], &rows.into())?;
    }
    Ok(())
}

const BY_NAME: &[(&str, &str)] = &[
    (
        "voltage_windows_230",
        "SELECT name, count(*) AS windows, count(*) FILTER (WHERE over) AS over, count(*) FILTER (WHERE under) AS under FROM (
            SELECT concat(meter_id, '/a') AS name, over_a AS over, under_a AS under FROM pq_voltage_windows WHERE samples_a > 0
            UNION ALL SELECT concat(meter_id, '/b'), over_b, under_b FROM pq_voltage_windows WHERE samples_b > 0
            UNION ALL SELECT concat(meter_id, '/c'), over_c, under_c FROM pq_voltage_windows WHERE samples_c > 0
        ) phases GROUP BY name",
    ),
    (
        "voltage_qualification_230",
        "SELECT meter_id AS name, sum(samples) AS samples, sum(outside_high + outside_low) AS out,
            round(100 * (1 - CAST(sum(outside_high + outside_low) AS DOUBLE) / sum(samples)), 9) AS rate_pct
            FROM pq_voltage_qualification GROUP BY meter_id",
    ),
    (
        "daily_energy_lv",
        "SELECT meter_id AS name, CAST(energy_kwh AS DOUBLE) AS kwh FROM rd_daily_energy WHERE meter_id LIKE 'LV-%'",
    ),
    (
        "device_series",
        "SELECT device_id AS name, sum(samples) AS samples, sum(samples - instants) AS repeated
            FROM dv_series_hours GROUP BY device_id",
    ),
];

const ONE_ROW: &[(&str, &str)] = &[
    (
        "line_loss",
        "SELECT CAST(supplied_kwh AS DOUBLE) AS supplied_kwh, CAST(sold_kwh AS DOUBLE) AS sold_kwh,
            CAST(loss_kwh AS DOUBLE) AS loss_kwh, loss_pct, meters_supply, meters_sold
            FROM rd_line_loss WHERE feeder = 'LVTest'",
    ),
    (
        "process_steps",
        "SELECT sum(events) AS events, count(DISTINCT step) AS steps FROM tx_steps_daily
        WHERE process_type = 'domestic'",
    ),
];

const LISTS: &[(&str, &str)] =
    &[("missing_step", "SELECT entity_id AS entry FROM alerts WHERE rule_id = 'tx_missing_step' ORDER BY 1")];

#[test]
fn an_s3_archive_holds_the_same_rows() -> Result<()> {
    let server = S3Server::start()?;
    let folder = JobFolder::new("s3-sample")?;
    let bills = tree::root()?.join("data/sample/bills.ndjson").display().to_string();
    let archive = server.archive_settings("wattline");
    let rules: Vec<String> = demo_rules()?.into_iter().filter(|rule| rule.contains("/tx_")).collect();
    configure(&folder, &[("business_transactions", &bills)], &rules, &archive)?;
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM business_transactions")?, 111);
    let found = folder.query(
        "SELECT rule_id, entity_id FROM alerts WHERE rule_id IN ('tx_amount_mismatch', 'tx_double_payment') ORDER BY 1",
    )?;
    let expected = [
        json!({"rule_id": "tx_amount_mismatch", "entity_id": "B-2026-03-017"}),
        json!({"rule_id": "tx_double_payment", "entity_id": "B-2026-03-023"}),
    ];
    assert_eq!(found, expected);
    // A second run finds its place in the chain and takes nothing twice.
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM business_transactions")?, 111);
    Ok(())
}
