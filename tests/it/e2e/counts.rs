//! Two million readings, sixty thousand samples, thirty thousand transactions: everything is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use wattline_sim::{Class, Devices, Meters, Transactions};

use super::job::JobFolder;
use super::oracle::{AlertKey, Oracle};
use super::traffic::{Made, PARTITIONS, Traffic};
use crate::kafka_broker::TestBroker;
use crate::readers::{TableToRead, read_tables};

const RUN_LIMIT: Duration = Duration::from_secs(600);
const POLL_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn counts_are_exact_and_every_reader_sees_them() -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = Traffic::new(
        "counts",
        20_260_302,
        Meters { meters: 100_000, readings: 2_000_000 },
        Devices { devices: 500, samples: 60_000 },
        Transactions { steps: 30_000 },
    );
    traffic.create_topics(broker)?;
    let made = traffic.produce(&broker.bootstrap(), |_sent| {})?;
    let folder = JobFolder::new("counts")?;
    traffic.configure(&folder, &broker.bootstrap(), "")?;
    let (_, took) = folder.run_until_end(RUN_LIMIT)?;
    eprintln!("2,090,000 records in {:.1} s", took.as_secs_f64());
    records_are_accounted_for(&folder, &traffic, &made)?;
    rules_said_what_they_must(&folder, &traffic)?;
    alerts_are_published_once(&folder, broker, &traffic)?;
    every_reader_counts_the_same(&folder)
}

/// Produced = raw rows + dead letters, by partition; late ones are marked; refused ones have their reason.
pub(super) fn records_are_accounted_for(folder: &JobFolder, traffic: &Traffic, made: &Made) -> Result<()> {
    for stream in traffic.streams() {
        let (name, topic, delay_ms) = (stream.name, &stream.topic, stream.delay_ms);
        let rows = folder.query(&format!(
            "SELECT _partition AS lane, count(*) AS rows, count(*) FILTER (WHERE _lateness_ms > {delay_ms}) AS late,
                count(*) FILTER (WHERE _lateness_ms > 0) AS behind FROM {name} WHERE _topic = '{topic}' GROUP BY 1"
        ))?;
        let found: BTreeMap<u64, [u64; 3]> = rows
            .iter()
            .map(|row| Ok((number(row, "lane")?, [number(row, "rows")?, number(row, "late")?, number(row, "behind")?])))
            .collect::<Result<_>>()?;
        let expected: BTreeMap<u64, [u64; 3]> = (0..)
            .zip(&made[name])
            .map(|(lane, counts)| {
                let late = counts.of(Class::Late);
                (lane, [counts.accepted(), late, late + counts.of(Class::OutOfOrder)])
            })
            .collect();
        assert_eq!(found, expected, "rows, late rows and displaced rows of `{name}` by partition");

        let rows = folder.query(&format!(
            "SELECT reason, count(*) AS records FROM dead_letters WHERE stream = '{name}' GROUP BY 1"
        ))?;
        let found: BTreeMap<String, u64> =
            rows.iter().map(|row| Ok((text(row, "reason")?, number(row, "records")?))).collect::<Result<_>>()?;
        let all = made[name].iter().fold(wattline_sim::Counts::default(), wattline_sim::Counts::with);
        let expected: BTreeMap<String, u64> =
            all.refused_by_reason().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        assert_eq!(found, expected, "dead letters of `{name}` by reason");
        offsets_are_whole(folder, stream.name, topic)?;
    }
    assert_eq!(folder.count("SELECT count(*) AS n FROM rule_errors")?, 0, "rules failed");
    Ok(())
}

/// Every offset of every partition is there once, as a row or as a dead letter.
fn offsets_are_whole(folder: &JobFolder, table: &str, topic: &str) -> Result<()> {
    let identity = "_topic, _partition, _offset, _index";
    let of_record = "record_topic, record_partition, record_offset, record_index";
    let rows = folder.query(&format!(
        "SELECT _partition AS lane, count(*) AS records, count(DISTINCT _offset) AS offsets, min(_offset) AS first,
            max(_offset) AS last, max(_index) AS index FROM (SELECT {identity} FROM {table}
            UNION ALL SELECT {of_record} FROM dead_letters) all_records WHERE _topic = '{topic}' GROUP BY 1"
    ))?;
    assert_eq!(rows.len(), usize::try_from(PARTITIONS)?, "partitions of `{topic}`: {rows:?}");
    for row in &rows {
        let records = number(row, "records")?;
        let whole = number(row, "offsets")? == records
            && number(row, "first")? == 0
            && number(row, "last")? + 1 == records
            && number(row, "index")? == 0;
        ensure!(whole, "offsets of `{topic}` are not each there once: {row}");
    }
    Ok(())
}

/// Every table rule and every alert rule equals plain DataFusion over the raw table.
pub(super) fn rules_said_what_they_must(folder: &JobFolder, traffic: &Traffic) -> Result<()> {
    let oracle = Oracle::new(folder, traffic)?;
    oracle.tables_equal()?;
    oracle.alerts_equal()
}

/// The alert topic, read committed, holds each revision once and is the alerts table.
pub(super) fn alerts_are_published_once(folder: &JobFolder, broker: &TestBroker, traffic: &Traffic) -> Result<()> {
    let published = committed_messages(broker, &traffic.alert_topic)?;
    let mut ids = BTreeSet::new();
    for (key, payload) in &published {
        let alert: Value = serde_json::from_slice(payload).context("an alert is no JSON")?;
        assert_eq!(text(&alert, "fingerprint")?, *key, "an alert's key is its fingerprint");
        let id = AlertKey { fingerprint: key.clone(), revision: number(&alert, "revision")? };
        ensure!(ids.insert(id.clone()), "published twice: {id:?}");
    }
    let rows = folder.query("SELECT fingerprint, revision FROM alerts")?;
    let kept: BTreeSet<AlertKey> = rows
        .iter()
        .map(|row| Ok(AlertKey { fingerprint: text(row, "fingerprint")?, revision: number(row, "revision")? }))
        .collect::<Result<_>>()?;
    assert_eq!(kept.len(), rows.len(), "an alert stands twice in its table");
    ensure!(!kept.is_empty(), "the traffic is meant to raise alerts");
    let differing: Vec<_> = kept.symmetric_difference(&ids).take(5).collect();
    ensure!(differing.is_empty(), "{} in the table, {} published; such as {differing:?}", kept.len(), ids.len());
    Ok(())
}

/// Key and payload of every message that a careful consumer sees.
pub(super) fn committed_messages(broker: &TestBroker, topic: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let consumer: BaseConsumer = broker
        .client_config()
        .set("group.id", format!("{topic}-reader"))
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let mut open: BTreeSet<i32> = (0..PARTITIONS).collect();
    let mut messages = Vec::new();
    while !open.is_empty() {
        match consumer.poll(POLL_LIMIT) {
            None => anyhow::bail!("no answer from `{topic}` for {} s", POLL_LIMIT.as_secs()),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(message) => {
                let message = message?;
                let key = String::from_utf8(message.key().unwrap_or_default().to_vec())?;
                messages.push((key, message.payload().unwrap_or_default().to_vec()));
            }
        }
    }
    Ok(messages)
}

/// DuckDB, Polars, the deltalake package and `wattline query` agree on every table.
pub(super) fn every_reader_counts_the_same(folder: &JobFolder) -> Result<()> {
    let tables: Value = serde_json::from_str(&folder.answer(&["archive", "list", "--format", "json"])?)?;
    let names: Vec<String> = tables
        .as_array()
        .context("`archive list` gives no array")?
        .iter()
        .map(|t| text(t, "name"))
        .collect::<Result<_>>()?;
    let mut to_read = Vec::new();
    for name in &names {
        let files = folder.answer(&["archive", "files", name])?.lines().map(Into::into).collect();
        to_read.push(TableToRead { name: name.clone(), folder: folder.archive().join(name), files });
    }
    let seen = read_tables(&to_read)?;
    let counts: Vec<String> =
        names.iter().map(|name| format!("SELECT '{name}' AS name, count(*) AS rows FROM {name}")).collect();
    for row in folder.query(&counts.join(" UNION ALL "))? {
        let (name, rows) = (text(&row, "name")?, number(&row, "rows")?);
        let engines = seen.get(&name).with_context(|| format!("no reader read `{name}`"))?;
        ensure!(rows == 0 || engines.contains_key("duckdb"), "`{name}` has rows but no files");
        for (engine, counted) in engines {
            assert_eq!(counted.rows, rows, "rows of `{name}` by {engine}");
        }
    }
    let listed: u64 = tables.as_array().into_iter().flatten().filter_map(|t| t.get("files")?.as_u64()).sum();
    let parquet = format!("{}/**/*.parquet", folder.archive().display());
    let present = glob::glob(&parquet)?.flatten().filter(|path| fs::metadata(path).is_ok()).count();
    ensure!(present as u64 >= listed, "{listed} files are listed, {present} are there");
    Ok(())
}

/// A number of a JSON object.
pub(super) fn number(row: &Value, name: &str) -> Result<u64> {
    row.get(name).and_then(Value::as_u64).with_context(|| format!("no number `{name}` in {row}"))
}

/// A text of a JSON object.
pub(super) fn text(row: &Value, name: &str) -> Result<String> {
    row.get(name).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no text `{name}` in {row}"))
}
