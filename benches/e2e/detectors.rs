//! What the running functions cost: rows per second and core, and bytes of state for each key.
//!
//! A rule `f(value, …) OVER (PARTITION BY device ORDER BY at)` is compiled as any rule is and fed, on one lane, with a value a minute
//! of each device: a daily wave with noise and a spike now and then. Measured is the processor time of both stages of the engine,
//! from decoded rows to result rows; reading, decoding and writing are not in it. `lag` is there to show what following a key costs by
//! itself. Every row of every result is compared with what plain DataFusion gives for the same SQL.

mod cpu;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use wattline_sim::{Random, START_MS};
use wattline_sql::{Catalog, RuleFile, RuleSet, Stream, oracle};

use crate::cpu::cpu_seconds;

const USAGE: &str = "options: --devices N, --values N (of each device)";
const BATCH_ROWS: usize = 8_192;
const MINUTE_US: i64 = 60_000_000;
const DELAY_MS: i64 = 120_000;

/// What is measured: name and SQL of the function.
const FUNCTIONS: [(&str, &str); 11] = [
    ("lag", "lag(value) OVER w"),
    ("ewma", "ewma(value, 0.1) OVER w"),
    ("ewma_z", "ewma_z(value, 0.1) OVER w"),
    ("cusum_high", "cusum_high(value, 55, 2) OVER w"),
    ("page_hinkley", "page_hinkley(value, 1) OVER w"),
    ("hampel_z of 61", "hampel_z(value, 61) OVER w"),
    ("seasonal_z", "seasonal_z(value, at, 0.25) OVER w"),
    ("holt_winters of 96", "holt_winters(value, at, 0.2, 0.01, 0.2, 24, 15) OVER w"),
    ("spectral_residual of 64", "spectral_residual(value, 64) OVER w"),
    ("spectral_residual of 256", "spectral_residual(value, 256) OVER w"),
    ("anomaly_score", "anomaly_score(value, at) OVER w"),
];

fn main() -> Result<()> {
    let (devices, values) = settings(std::env::args().skip(1))?;
    let batches = readings(devices, values)?;
    let rows = devices * values;
    say(&format!("{devices} devices, {values} values each"));
    say("function                    rows/s/core   state bytes/key");
    for (name, function) in FUNCTIONS {
        let set = compile(function)?;
        let (cpu_seconds, state_bytes, result) = run(&set, &batches)?;
        let streams = BTreeMap::from([("readings".to_owned(), batches.clone())]);
        let plain = oracle::run_rule_blocking(&set, "result", &streams)?;
        ensure!(result.num_rows() == rows, "{name}: {rows} values gave {} rows", result.num_rows());
        ensure!(in_order(&result)? == in_order(&plain)?, "{name}: the result is not that of plain DataFusion");
        say(&format!("{name:<26} {:>12.0} {:>17}", rows as f64 / cpu_seconds, state_bytes / devices));
    }
    Ok(())
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<(usize, usize)> {
    let (mut devices, mut values) = (200, 4_320);
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = value.parse().with_context(|| format!("`{value}` is no number; {USAGE}"))?;
        match name.as_str() {
            "--devices" => devices = number,
            "--values" => values = number,
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    ensure!(devices > 0 && values > 0, "at least one value of one device; {USAGE}");
    Ok((devices, values))
}

fn schema() -> SchemaRef {
    let time = wattline_sql::catalog::event_time_type();
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let int = |name: &str| Field::new(name, DataType::Int32, false);
    Arc::new(Schema::new(vec![
        Field::new("device", DataType::Utf8, false),
        Field::new("at", time, false),
        Field::new("value", DataType::Float64, true),
        Field::new("_topic", topic, false),
        int("_partition"),
        Field::new("_offset", DataType::Int64, false),
        int("_index"),
        Field::new("_lateness_ms", DataType::Int64, false),
    ]))
}

/// Batches in the order of time.
fn readings(devices: usize, values: usize) -> Result<Vec<RecordBatch>> {
    let mut random = Random::new(7);
    let names: Vec<String> = (0..devices).map(|device| format!("D{device:07}")).collect();
    let value = |minute: usize, device: usize, random: &mut Random| {
        let day = (minute % 1_440) as f64 / 1_440.0 * std::f64::consts::TAU;
        let spike = if random.chance(1, 2_000) { 40.0 } else { 0.0 };
        50.0 + 10.0 * (day + device as f64).sin() + random.between(-1_000, 1_000) as f64 / 500.0 + spike
    };
    let each: Vec<(usize, usize)> =
        (0..values).flat_map(|minute| (0..devices).map(move |device| (minute, device))).collect();
    let mut offset = 0;
    let batch = |rows: &[(usize, usize)]| {
        let at = |minute: usize| i64::try_from(minute).map(|minute| START_MS * 1_000 + minute * MINUTE_US);
        let count = rows.len();
        let times = rows.iter().map(|(minute, _)| at(*minute)).collect::<Result<Vec<_>, _>>()?;
        let topic = Arc::new(StringArray::from(vec!["readings"]));
        let first = offset;
        offset += i64::try_from(count)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, device)| &names[*device]))),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|(minute, device)| value(*minute, *device, &mut random)),
            )),
            Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from_value(0, count), topic)?),
            Arc::new(Int32Array::from_value(0, count)),
            Arc::new(Int64Array::from_iter_values(first..offset)),
            Arc::new(Int32Array::from_value(0, count)),
            Arc::new(Int64Array::from_value(0, count)),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    };
    each.chunks(BATCH_ROWS).map(batch).collect()
}

fn compile(function: &str) -> Result<RuleSet> {
    let mut catalog = Catalog::new();
    catalog.add_stream(Stream {
        name: "readings".to_owned(),
        schema: schema(),
        event_time: "at".to_owned(),
        key: vec!["device".to_owned()],
        delay_ms: DELAY_MS,
    })?;
    let text = format!(
        "/*---\nid = \"result\"\nkind = \"table\"\n---*/\n\
         SELECT device, at, {function} AS result FROM readings WINDOW w AS (PARTITION BY device ORDER BY at)"
    );
    let file = RuleFile { path: "result.sql".to_owned(), text };
    RuleSet::compile(&catalog, &[file]).map_err(|mistakes| anyhow::anyhow!("{function}: {mistakes:?}"))
}

/// Processor seconds, bytes of state once all values are in, and the result.
fn run(set: &RuleSet, batches: &[RecordBatch]) -> Result<(f64, usize, RecordBatch)> {
    let (mut lane, mut last) = (set.lane_program(), set.final_program());
    let mut results = Vec::new();
    let started = cpu_seconds();
    for (round, batch) in batches.iter().enumerate() {
        results.extend(lane.push(0, "readings", batch).rows);
        for delta in lane.seal()? {
            last.merge(&delta)?;
        }
        let is_last = round + 1 == batches.len();
        let reached_us = batch["at"].as_any().downcast_ref::<TimestampMicrosecondArray>().context("no times")?;
        let reached_us = reached_us.values().last().copied().unwrap_or_default();
        let watermark_us = if is_last { reached_us + 1 } else { reached_us - DELAY_MS * 1_000 };
        loop {
            let output = last.advance(&vec![watermark_us; set.states().len()])?;
            ensure!(output.errors.is_empty() && output.stopped.is_empty(), "the rule failed: {:?}", output.errors);
            results.extend(output.rows);
            if !output.more {
                break;
            }
        }
    }
    let cpu_seconds = cpu_seconds() - started;
    let results: Vec<RecordBatch> = results.into_iter().map(|rows| rows.batch).collect();
    Ok((cpu_seconds, last.state_bytes(), concat_batches(&set.rules()[0].output_schema, &results)?))
}

fn in_order(rows: &RecordBatch) -> Result<RecordBatch> {
    let by = |at: usize| SortColumn { values: Arc::clone(rows.column(at)), options: None };
    let order: UInt32Array = lexsort_to_indices(&[by(0), by(1)], None)?;
    Ok(take_record_batch(rows, &order)?)
}

/// Prints a line; a reader that is gone is no reason to fail.
fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or_default();
}
