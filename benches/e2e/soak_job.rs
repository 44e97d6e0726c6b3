//! The job of the soak and what it reads: samples of meters, in the time of the machine.
//!
//! All that the job keeps by key has a bound, or nothing could be flat: meters come and go, but within an eighth of the run all of
//! them have been there, and those whose alerts open are always the same ones.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::steady::Kind;

pub(crate) const TABLE: &str = "samples";

/// Meters that there are.
const METERS: u64 = 20_000;
/// Meters that send at a time.
const ACTIVE: u64 = 2_000;
/// One in so many has values that open alerts, in one of three windows.
const TROUBLED: u64 = 40;
/// Rules tolerate so much.
const DELAY_MS: u64 = 10_000;
const LATE_MS: u64 = 180_000;
const WINDOW_MS: u64 = 10_000;

const SCHEMA: &str = r#"{"type":"record","name":"samples","event_time":"at","key":["meter"],"fields":[
    {"name":"meter","type":"string"},
    {"name":"feeder","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"value","type":"double"}]}"#;

/// Id, header and query of each rule.
const RULES: [(&str, &str, &str); 6] = [
    (
        "means",
        "kind = \"table\"",
        "SELECT meter, window_start, window_end, count(*) AS samples, avg(value) AS mean
FROM TUMBLE(samples, at, INTERVAL '10 seconds') GROUP BY meter, window_start, window_end",
    ),
    (
        "feeders",
        "kind = \"table\"\nlate = \"update\"",
        "SELECT feeder, window_start, window_end, count(*) AS samples, max(value) AS highest
FROM TUMBLE(samples, at, INTERVAL '1 minute') GROUP BY feeder, window_start, window_end",
    ),
    (
        "steps",
        "kind = \"table\"",
        "SELECT meter, at, step FROM (
    SELECT meter, at, value - lag(value) OVER (PARTITION BY meter ORDER BY at) AS step FROM samples
) s WHERE abs(step) > 80",
    ),
    (
        "too_high",
        "kind = \"alert\"\nentity = \"meter\"",
        "SELECT meter, window_start, window_end, avg(value) > 100 AS firing, avg(value) AS measured
FROM TUMBLE(samples, at, INTERVAL '10 seconds') GROUP BY meter, window_start, window_end",
    ),
    (
        "jump",
        "kind = \"alert\"\nentity = \"meter\"",
        "SELECT meter, at, abs(value - lag(value) OVER (PARTITION BY meter ORDER BY at)) > 80 AS firing FROM samples",
    ),
    (
        "spike",
        "kind = \"alert\"\nentity = \"meter\"",
        "SELECT meter, at, value AS measured FROM samples WHERE value > 400",
    ),
];

/// What differs from run to run.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) bootstrap: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) alerts: &'a str,
    pub(crate) slots: usize,
    pub(crate) memory: &'a str,
    pub(crate) run_s: u64,
}

pub(crate) fn write(folder: &Path, setup: &Setup<'_>) -> Result<()> {
    fs::write(folder.join("samples.avsc"), SCHEMA)?;
    fs::create_dir(folder.join("sql"))?;
    for (id, header, query) in RULES {
        let text = format!("/*---\nid = \"{id}\"\n{header}\n---*/\n{query}\n");
        fs::write(folder.join(format!("sql/{id}.sql")), text)?;
    }
    let Setup { bootstrap, topic, alerts, slots, memory, run_s } = setup;
    // What is superseded is gone long before the second quarter of the run begins.
    let retention_s = (run_s / 10).clamp(10, 120);
    let config = format!(
        "job = \"soak\"
[run]
slots = {slots}
memory = \"{memory}\"
scratch = \".\"
tick = \"1 second\"
checkpoint = \"10 seconds\"
file_age = \"20 seconds\"
correction = \"30 seconds\"
manifest_retention = \"{retention_s} seconds\"
maintenance = \"15 seconds\"
[kafka]
bootstrap_servers = \"{bootstrap}\"
[streams.{TABLE}]
schema = \"samples.avsc\"
topic = \"{topic}\"
delay = \"{DELAY_MS} ms\"
[rules]
paths = [\"sql\"]
[archive]
url = \"archive\"
[alerts]
topic = \"{alerts}\"
"
    );
    fs::write(folder.join("wattline.toml"), config).context("cannot write the configuration")
}

/// Writes record number `number` of a run of `run_s` seconds; gives its partition and what it is.
pub(crate) fn sample(number: u64, now_ms: u64, run_s: u64, partitions: u64, text: &mut String) -> (i32, Kind) {
    let round_ms = (run_s * 1_000 / 8).max(1);
    let first = now_ms % round_ms * METERS / round_ms;
    let meter = (first + number % ACTIVE) % METERS;
    let partition = i32::try_from(meter % partitions).unwrap_or_default();
    // Prime numbers, so that it hits other meters every time.
    let kind = match number {
        number if number % 499 == 7 => Kind::Broken,
        number if number % 199 == 11 => Kind::Late,
        _ => Kind::OnTime,
    };
    let behind_ms = number * 7_919 % 2_000 + if kind == Kind::Late { LATE_MS } else { 0 };
    let is_high = meter.is_multiple_of(TROUBLED) && (now_ms / WINDOW_MS + meter / TROUBLED).is_multiple_of(3);
    let value = match number {
        number if number % 10_007 == 5 => 500,
        number if is_high => 150 + number % 7,
        number => 50 + number % 7,
    };
    let (feeder, at) = (meter % 100, now_ms - behind_ms);
    text.push_str(&format!(
        "{{\"meter\":\"M{meter:05}\",\"feeder\":\"F{feeder:02}\",\"at\":{at},\"value\":{value}.5}}"
    ));
    if kind == Kind::Broken {
        text.truncate(text.len() / 2);
    }
    (partition, kind)
}
