//! What the engine alone makes of decoded rows: rows per second of a core that go through predicates and into windows.
//!
//! Rules are compiled as any are, and batches of readings, a value a minute of each meter, are pushed into the first stage of the engine on one
//! lane. Measured is the processor time of that: finding rows, keys and groups, and updating aggregates. What windows hold in the end is
//! merged and counted, and so are the rows that predicates let through; a wrong number fails the bench.
//!
//! Meters that come in the same order each time are a fleet that is read in rounds; `shuffled` are the same rows in an order that is another
//! each round.

mod cpu;

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::array::{StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use wattline_core::time::END_OF_TIME;
use wattline_sim::{Random, START_MS};
use wattline_sql::{Catalog, RuleFile, RuleSet, Stream};

use crate::cpu::cpu_seconds;

const USAGE: &str = "options: --rows N (2000000), --rounds N (3), --only TEXT";
const BATCH_ROWS: usize = 4_096;
const MINUTE_US: i64 = 60_000_000;

/// Name, meters, whether their order changes, and the rules: windows, and predicates that few rows pass.
const CASES: [(&str, usize, bool, usize, usize); 6] = [
    ("ten minutes, 100 k meters", 100_000, false, 1, 0),
    ("ten minutes, 100 k meters, shuffled", 100_000, true, 1, 0),
    ("ten minutes, 1 M meters", 1_000_000, false, 1, 0),
    ("ten minutes, 1 M meters, shuffled", 1_000_000, true, 1, 0),
    ("ten range checks", 100_000, false, 0, 10),
    ("a hundred range checks", 100_000, false, 0, 100),
];

fn main() -> Result<()> {
    let (rows, rounds, only) = settings(std::env::args().skip(1))?;
    say(&format!("{rows} rows, medians of {rounds} rounds"));
    say("case                                   rows/s of a core   ns a row");
    for (name, meters, is_shuffled, windows, checks) in CASES {
        if !name.contains(&only) {
            continue;
        }
        let set = compile(windows, checks)?;
        let batches = readings(rows, meters, is_shuffled)?;
        let mut found: Vec<f64> = (0..rounds).map(|_| run(&set, &batches, rows)).collect::<Result<_>>()?;
        found.sort_by(f64::total_cmp);
        let seconds = found.get(found.len() / 2).context("nothing was measured")?;
        say(&format!("{name:<38} {:>16.0} {:>10.0}", rows as f64 / seconds, seconds * 1e9 / rows as f64));
    }
    Ok(())
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<(usize, usize, String)> {
    let (mut rows, mut rounds, mut only) = (2_000_000, 3, String::new());
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = || value.parse().with_context(|| format!("`{value}` is no number; {USAGE}"));
        match name.as_str() {
            "--rows" => rows = number()?,
            "--rounds" => rounds = number()?,
            "--only" => only = value,
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    ensure!(rows > 0 && rounds > 0, "at least one row and round; {USAGE}");
    Ok((rows, rounds, only))
}

fn schema() -> SchemaRef {
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let int = |name: &str| Field::new(name, DataType::Int32, false);
    let long = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![
        Field::new("meter_id", DataType::Utf8, false),
        Field::new("ts", wattline_sql::catalog::event_time_type(), false),
        Field::new("u_a_v", DataType::Float64, true),
        Field::new("_topic", topic, false),
        int("_partition"),
        long("_offset"),
        int("_index"),
        long("_lateness_ms"),
    ]))
}

/// Batches in the order of time; voltages between 200 and 260 V.
fn readings(rows: usize, meters: usize, is_shuffled: bool) -> Result<Vec<RecordBatch>> {
    let mut random = Random::new(7);
    let names: Vec<String> = (0..meters).map(|meter| format!("M{meter:07}")).collect();
    let mut order: Vec<usize> = (0..meters).collect();
    let mut each = Vec::with_capacity(rows);
    for row in 0..rows {
        let at = row % meters;
        if at == 0 && is_shuffled {
            (1..meters).for_each(|at| order.swap(at, random.below(at as u64 + 1) as usize));
        }
        each.push((order[at], i64::try_from(row)? * MINUTE_US / i64::try_from(meters)?));
    }
    let mut offset = 0;
    let batch = |rows: &[(usize, i64)]| {
        let count = rows.len();
        let first = offset;
        offset += i64::try_from(count)?;
        let times = rows.iter().map(|(_, since_us)| START_MS * 1_000 + since_us).collect::<Vec<_>>();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(meter, _)| &names[*meter]))),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|_| random.between(20_000, 26_000) as f64 / 100.0),
            )),
            Arc::new(DictionaryArray::<Int32Type>::try_new(
                Int32Array::from_value(0, count),
                Arc::new(StringArray::from(vec!["readings"])),
            )?),
            Arc::new(Int32Array::from_value(0, count)),
            Arc::new(Int64Array::from_iter_values(first..offset)),
            Arc::new(Int32Array::from_value(0, count)),
            Arc::new(Int64Array::from_value(0, count)),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    };
    each.chunks(BATCH_ROWS).map(batch).collect()
}

fn compile(windows: usize, checks: usize) -> Result<RuleSet> {
    let mut catalog = Catalog::new();
    catalog.add_stream(Stream {
        name: "readings".to_owned(),
        schema: schema(),
        event_time: "ts".to_owned(),
        key: vec!["meter_id".to_owned()],
        delay_ms: 5_000,
    })?;
    let file = |id: String, sql: String| RuleFile {
        text: format!("/*---\nid = \"{id}\"\nkind = \"table\"\n---*/\n{sql}"),
        path: format!("{id}.sql"),
    };
    let window = |number: usize| {
        let sql = "SELECT meter_id, window_start, window_end, count(*) AS events, avg(u_a_v) AS u_avg, min(u_a_v) AS u_min, \
                   max(u_a_v) AS u_max FROM TUMBLE(readings, ts, INTERVAL '10 minutes') GROUP BY meter_id, window_start, window_end";
        file(format!("window_{number}"), sql.to_owned())
    };
    let check = |number: usize| {
        let high = 259.9 + number as f64 / 1_000.0;
        file(
            format!("check_{number}"),
            format!("SELECT meter_id, ts, u_a_v FROM readings WHERE u_a_v NOT BETWEEN 200.0 AND {high}"),
        )
    };
    let files: Vec<RuleFile> = (0..windows).map(window).chain((0..checks).map(check)).collect();
    RuleSet::compile(&catalog, &files).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))
}

/// Processor seconds of the first stage.
fn run(set: &RuleSet, batches: &[RecordBatch], rows: usize) -> Result<f64> {
    let (mut lane, mut last) = (set.lane_program(), set.final_program());
    let (mut seconds, mut passed) = (0.0, vec![0; set.rules().len()]);
    for batch in batches {
        let started = cpu_seconds();
        let output = lane.push(0, "readings", batch);
        seconds += cpu_seconds() - started;
        ensure!(output.errors.is_empty(), "a rule failed: {:?}", output.errors);
        output.rows.iter().for_each(|of| passed[of.rule] += of.batch.num_rows());
    }
    for delta in lane.seal()? {
        last.merge(&delta)?;
    }
    let output = last.advance(&vec![END_OF_TIME; set.states().len()])?;
    if set.states().is_empty() {
        let volts =
            batches.iter().flat_map(|batch| batch["u_a_v"].as_primitive::<arrow::datatypes::Float64Type>().values());
        let expected = volts.filter(|volts| **volts > 259.9).count();
        ensure!(passed.first() == Some(&expected), "{passed:?} rows passed, and {expected} are out of range");
        return Ok(seconds);
    }
    let counted: i64 = output.rows.iter().flat_map(|of| of.batch["events"].as_primitive::<Int64Type>().values()).sum();
    ensure!(counted == i64::try_from(rows)?, "the windows hold {counted} of {rows} rows");
    Ok(seconds)
}

/// Prints a line; a reader that is gone is no reason to fail.
fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or_default();
}
