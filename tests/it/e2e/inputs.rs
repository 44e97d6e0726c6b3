//! The same readings in every form that a source can have, and the ways to begin: what is in the tables must not differ.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::JobFolder;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
const METERS: usize = 5;
const MINUTES: usize = 120;
/// 2026-03-02T00:00:00Z.
const START_MS: i64 = 1_772_409_600_000;
const MINUTE_MS: i64 = 60_000;

const RULE: &str = "/*---
id = \"means\"
kind = \"table\"
title = \"Mean voltage of each meter in 10 minutes\"
---*/
SELECT meter_id, window_start, count(*) AS samples, avg(u_a_v) AS mean_v, max(u_b_v) AS highest_v
FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes')
GROUP BY meter_id, window_start, window_end
";

/// A reading: meter, instant in milliseconds, voltages; the second is sometimes missing.
fn readings() -> impl Iterator<Item = (String, i64, f64, Option<f64>)> {
    (0..MINUTES).flat_map(|minute| {
        (0..METERS).map(move |meter| {
            let ts_ms = START_MS + i64::try_from(minute).unwrap_or(0) * MINUTE_MS;
            let volts = 220.0 + (minute * 7 + meter * 3) as f64 % 16.0 / 4.0;
            (format!("M{meter}"), ts_ms, volts, (minute % 3 != meter % 3).then_some(volts + 0.5))
        })
    })
}

fn json((meter, ts_ms, a, b): &(String, i64, f64, Option<f64>)) -> String {
    let b = b.map_or_else(String::new, |b| format!(",\"u_b_v\":{b}"));
    format!("{{\"meter_id\":\"{meter}\",\"ts\":{ts_ms},\"u_a_v\":{a}{b}}}")
}

fn ndjson() -> String {
    readings().map(|reading| json(&reading) + "\n").collect()
}

/// One message per minute with the readings of all meters, and the instant around them.
fn exploded() -> String {
    let all: Vec<_> = readings().collect();
    let message = |minute: &[(String, i64, f64, Option<f64>)]| {
        let inner =
            minute.iter().map(|r| json(r).replace(&format!("\"ts\":{},", r.1), "")).collect::<Vec<_>>().join(",");
        format!("{{\"at\":{},\"data\":[{inner}]}}\n", minute[0].1)
    };
    all.chunks(METERS).map(message).collect()
}

fn csv() -> String {
    let line = |(meter, ts_ms, a, b): (String, i64, f64, Option<f64>)| {
        format!("{meter};{ts_ms};{a};{}\n", b.map_or_else(String::new, |b| b.to_string()))
    };
    std::iter::once("meter_id;ts;u_a_v;u_b_v\n".to_owned()).chain(readings().map(line)).collect()
}

fn write_parquet(path: &std::path::Path) -> Result<()> {
    let all: Vec<_> = readings().collect();
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("meter_id", DataType::Utf8, false),
        Field::new("ts", instant, false),
        Field::new("u_a_v", DataType::Float64, false),
        Field::new("u_b_v", DataType::Float64, true),
    ]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(StringArray::from_iter_values(all.iter().map(|r| &r.0))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(all.iter().map(|r| r.1 * 1_000)).with_timezone("UTC")),
            Arc::new(Float64Array::from_iter_values(all.iter().map(|r| r.2))),
            Arc::new(all.iter().map(|r| r.3).collect::<Float64Array>()),
        ],
    )?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

/// Runs a job over the files of a folder; gives the rows of the raw table and of the rule as text.
fn outcome(form: &str, mapping: &str, write: impl Fn(&JobFolder) -> Result<()>) -> Result<(u64, Vec<Value>)> {
    let folder = JobFolder::new(form)?;
    fs::create_dir_all(folder.path().join("in"))?;
    write(&folder)?;
    folder.write("sql/means.sql", RULE)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{form}\"\n[streams.meter_readings]\nschema = \"builtin:meter_readings\"\nfiles = \"in/*\"\n{mapping}\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n"
        ),
    )?;
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM dead_letters")?, 0, "{form}");
    let rows = folder.query("SELECT meter_id, window_start, samples, mean_v, highest_v FROM means ORDER BY 1, 2")?;
    Ok((folder.count("SELECT count(*) AS n FROM meter_readings")?, rows))
}

#[test]
fn every_form_of_the_same_readings_gives_the_same_tables() -> Result<()> {
    let text = |name: &'static str, text: String| move |folder: &JobFolder| folder.write(&format!("in/{name}"), &text);
    let expected = outcome("plain", "", text("a.ndjson", ndjson()))?;
    assert_eq!(expected.0, (METERS * MINUTES) as u64);
    assert_eq!(expected.1.len(), METERS * MINUTES / 10);

    let gz = outcome("gz", "", |folder| {
        let mut file = GzEncoder::new(File::create(folder.path().join("in/a.ndjson.gz"))?, Compression::fast());
        file.write_all(ndjson().as_bytes())?;
        file.finish().map(|_file| ()).context("gzip")
    })?;
    assert_eq!(gz, expected, "gzip");
    let zst = outcome("zst", "", |folder| {
        let packed = zstd::encode_all(ndjson().as_bytes(), 1)?;
        fs::write(folder.path().join("in/a.ndjson.zst"), packed).context("zstd")
    })?;
    assert_eq!(zst, expected, "zstd");
    assert_eq!(outcome("csv", "", text("a.csv", csv()))?, expected, "CSV");
    let parquet = outcome("parquet", "", |folder| write_parquet(&folder.path().join("in/a.parquet")))?;
    assert_eq!(parquet, expected, "Parquet");
    let mapping = "[streams.meter_readings.mapping]\nexplode = \"data\"\nrename = { at = \"ts\" }";
    assert_eq!(outcome("explode", mapping, text("a.ndjson", exploded()))?, expected, "exploded");
    Ok(())
}

/// Produces readings whose Kafka timestamps are their event times.
fn produce(broker: &TestBroker, topic: &str, minutes: std::ops::Range<usize>) -> Result<()> {
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    for reading in readings().skip(minutes.start * METERS).take(minutes.len() * METERS) {
        let payload = json(&reading);
        let (key, payload) = (reading.0.as_bytes(), payload.as_bytes());
        producer.send(&KeyedMessage { topic, key, payload, timestamp_ms: Some(reading.1) })?;
    }
    producer.flush(FLUSH_LIMIT)?;
    Ok(())
}

fn topic_job(broker: &TestBroker, topic: &str, start: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(topic)?;
    folder.write("sql/means.sql", RULE)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{topic}\"\n[kafka]\nbootstrap_servers = \"{}\"\n[streams.meter_readings]\n\
             schema = \"builtin:meter_readings\"\ntopic = \"{topic}\"\nstart = \"{start}\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n\
             [run]\ntick = \"200 ms\"\ncheckpoint = \"1 second\"\n",
            broker.bootstrap()
        ),
    )?;
    Ok(folder)
}

#[test]
fn a_lane_without_a_past_begins_where_it_is_told() -> Result<()> {
    let broker = TestBroker::shared();
    broker.create_topic("start-at", 2, &[])?;
    produce(broker, "start-at", 0..100)?;
    let folder = topic_job(broker, "start-at", "2026-03-02T00:40:00Z")?;
    folder.run_until_end(RUN_LIMIT)?;
    let first = folder.query("SELECT count(*) AS n, min(ts) AS first FROM meter_readings")?;
    ensure!(first[0]["n"] == (60 * METERS) as u64, "from the given instant on: {first:?}");

    broker.create_topic("start-latest", 2, &[])?;
    produce(broker, "start-latest", 0..50)?;
    let folder = topic_job(broker, "start-latest", "latest")?;
    let mut running = folder.start_bare(&["run"])?;
    running.wait_until(RUN_LIMIT, || folder.manifests() > 0)?;
    produce(broker, "start-latest", 50..60)?;
    let rows = || folder.count("SELECT count(*) AS n FROM meter_readings").unwrap_or_default();
    running.wait_until(RUN_LIMIT, || rows() >= (10 * METERS) as u64)?;
    let (status, said, _took) = running.end_by("TERM", RUN_LIMIT)?;
    ensure!(status.success(), "ended with {status}: {said}");
    assert_eq!(folder.count("SELECT count(*) AS n FROM meter_readings")?, (10 * METERS) as u64, "only what came later");
    // A lane with a past goes on from it.
    produce(broker, "start-latest", 60..70)?;
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM meter_readings")?, (20 * METERS) as u64);
    Ok(())
}
