//! A topic that loses records before they are read, or is made anew: by default the job ends and says what to do; with
//! `on_gap = "record"` it writes down exactly what is gone; a second life of a topic has a name of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::JobFolder;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(60);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
const COULD_NOT_RUN: i32 = 2;

const SCHEMA: &str = r#"{"type":"record","name":"visits","event_time":"at","key":["shop"],"fields":[
    {"name":"shop","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

/// A rule over what is gone.
const LOST: &str = "/*---
id = \"lost\"
kind = \"table\"
---*/
SELECT found_at, record_topic, next_offset - record_offset AS n FROM offset_gaps
";

/// A topic with one partition, and the job that reads it.
struct Visits {
    broker: &'static TestBroker,
    topic: &'static str,
    folder: JobFolder,
    minute: i64,
}

impl Visits {
    fn new(topic: &'static str) -> Result<Self> {
        let broker = TestBroker::shared();
        broker.create_topic(topic, 1, &[])?;
        let folder = JobFolder::new(topic)?;
        folder.write("visits.avsc", SCHEMA)?;
        folder.write("sql/lost.sql", LOST)?;
        let visits = Self { broker, topic, folder, minute: 0 };
        visits.configure("")?;
        Ok(visits)
    }

    fn configure(&self, of_stream: &str) -> Result<()> {
        let text = format!(
            "job = \"{topic}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n[streams.visits]\n\
             schema = \"visits.avsc\"\ntopic = \"{topic}\"\nidle_timeout = \"300 ms\"\n{of_stream}\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n\
             [run]\ntick = \"100 ms\"\ncheckpoint = \"300 ms\"\nfile_age = \"300 ms\"\n",
            topic = self.topic,
            bootstrap = self.broker.bootstrap(),
        );
        self.folder.write("wattline.toml", &text)
    }

    fn produce(&mut self, count: i64) -> Result<()> {
        let mut producer = Producer::connect(&self.broker.bootstrap(), &Default::default())?;
        for _ in 0..count {
            let at_us = 1_772_409_600_000_000 + self.minute * 60_000_000;
            let payload = format!("{{\"shop\":\"s{}\",\"at\":{at_us}}}", self.minute % 3);
            let payload = payload.as_bytes();
            producer.send(&KeyedMessage { topic: self.topic, key: b"s", payload, timestamp_ms: None })?;
            self.minute += 1;
        }
        Ok(producer.flush(FLUSH_LIMIT)?)
    }

    /// Rows of the raw table, and none before it is there.
    fn rows(&self) -> u64 {
        self.folder.count("SELECT count(*) AS n FROM visits").unwrap_or(0)
    }

    /// First, unread and next offset of each gap, in order.
    fn gaps(&self) -> Result<Vec<[i64; 3]>> {
        let rows = self.folder.query("SELECT * FROM offset_gaps ORDER BY record_offset, _offset")?;
        let gap = |row: &Value| {
            ensure!(row["stream"] == "visits" && row["record_topic"] == self.topic, "{row}");
            let number = |name: &str| row[name].as_i64().with_context(|| format!("no `{name}` in {row}"));
            Ok([number("record_offset")?, number("unread_offset")?, number("next_offset")?])
        };
        rows.iter().map(gap).collect()
    }

    /// Reads everything that is there, and is killed when all of it is in the table.
    fn read_and_kill(&self, rows: u64) -> Result<()> {
        let mut running = self.folder.start(&["run"])?;
        wait_until(MOMENT_LIMIT, || Ok((self.rows() == rows).then_some(())))
            .with_context(|| format!("{} rows; it said\n{}", self.rows(), running.log_tail()))?;
        running.kill9()
    }

    /// The job does not run, and says all of these words.
    fn is_refused(&self, words: &[&str]) -> Result<()> {
        let output = self.folder.wattline(&["run", "--until-end"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(COULD_NOT_RUN), "ended with {}; it said\n{said}", output.status);
        let missing: Vec<_> = words.iter().filter(|word| !said.contains(*word)).collect();
        ensure!(missing.is_empty(), "it does not say {missing:?}; it said\n{said}");
        Ok(())
    }

    /// Gone and missing offsets of the lane, as `archive verify` finds them; all is well otherwise.
    fn verified(&self) -> Result<(u64, u64)> {
        let told: Value = serde_json::from_str(&self.folder.answer(&["archive", "verify", "--format", "json"])?)?;
        ensure!(told["problems"].as_array().is_some_and(Vec::is_empty), "{told}");
        let lane = format!("{}[0]", self.topic);
        let lanes = told["lanes"].as_array().context("lanes")?;
        let of_visits = lanes.iter().find(|line| line["table"] == "visits" && line["lane"] == *lane);
        let line = of_visits.with_context(|| format!("no `{lane}` in {told}"))?;
        Ok((line["gone"].as_u64().context("gone")?, line["missing"].as_u64().context("missing")?))
    }
}

#[test]
fn records_that_are_gone_at_the_start_stop_the_job_or_are_recorded_once() -> Result<()> {
    let mut visits = Visits::new("gap-at-start")?;
    visits.produce(100)?;
    visits.read_and_kill(100)?;
    visits.produce(100)?;
    visits.broker.delete_records(visits.topic, 0, 150)?;
    visits.is_refused(&["must continue at offset 100", "begins at 150", "on_gap"])?;

    visits.configure("on_gap = \"record\"")?;
    visits.read_and_kill(150)?;
    ensure!(visits.folder.log().contains("50 offsets are gone"), "{}", visits.folder.log());
    // A further start finds nothing new to record.
    visits.produce(10)?;
    visits.folder.run_until_end(RUN_LIMIT)?;
    ensure!(visits.rows() == 160, "{} rows", visits.rows());
    assert_eq!(visits.gaps()?, [[100, 100, 150]]);
    assert_eq!(visits.folder.lines("SELECT record_topic, n FROM lost")?, [r#"{"n":50,"record_topic":"gap-at-start"}"#]);
    assert_eq!(visits.verified()?, (50, 0));
    Ok(())
}

#[test]
fn records_that_go_while_the_job_is_slow_are_recorded() -> Result<()> {
    let mut visits = Visits::new("gap-in-run")?;
    visits.configure("on_gap = \"record\"")?;
    visits.produce(100)?;
    let mut running = visits.folder.start(&["run"])?;
    wait_until(MOMENT_LIMIT, || Ok((visits.rows() == 100).then_some(())))?;
    // It cannot read for a moment, shorter than its session.
    running.signal("STOP")?;
    let lost = visits.produce(3_000).and_then(|()| visits.broker.delete_records(visits.topic, 0, 2_500));
    running.signal("CONT")?;
    lost?;
    // What had been on its way to the job is read; all else before the first that is left is gone.
    let all = || -> Result<u64> {
        let gone: i64 = visits.gaps().unwrap_or_default().iter().map(|[first, _, next]| next - first).sum();
        Ok(visits.rows() + u64::try_from(gone)?)
    };
    wait_until(MOMENT_LIMIT, || {
        ensure!(running.try_wait()?.is_none(), "the job ended:\n{}", running.log_tail());
        Ok((all()? == 3_100).then_some(()))
    })?;
    running.kill9()?;
    visits.folder.run_until_end(RUN_LIMIT)?;
    let gaps = visits.gaps()?;
    ensure!(gaps.len() == 1 && gaps[0][0] >= 100 && gaps[0][0] == gaps[0][1] && gaps[0][2] == 2_500, "{gaps:?}");
    assert_eq!(all()?, 3_100);
    assert_eq!(visits.verified()?, ((2_500 - gaps[0][0]).unsigned_abs(), 0));
    Ok(())
}

#[test]
fn a_topic_that_was_made_anew_is_read_under_a_name_of_its_own() -> Result<()> {
    let mut visits = Visits::new("gap-anew")?;
    visits.configure("on_gap = \"record\"")?;
    visits.produce(100)?;
    visits.read_and_kill(100)?;
    visits.broker.create_topic_anew(visits.topic, 1)?;
    // More than it had: no offset shows that it is another topic.
    visits.produce(250)?;
    visits.is_refused(&["gap-anew[0]", "deleted and made again", "topic_life"])?;

    visits.configure("on_gap = \"record\"\ntopic_life = 2")?;
    visits.folder.run_until_end(RUN_LIMIT)?;
    let lives = visits.folder.lines("SELECT _topic, count(*) AS n FROM visits GROUP BY 1 ORDER BY 1")?;
    assert_eq!(lives, [r##"{"_topic":"gap-anew","n":100}"##, r##"{"_topic":"gap-anew#2","n":250}"##]);
    assert_eq!(visits.gaps()?, [[0; 3]; 0]);
    assert_eq!(visits.verified()?, (0, 0));
    Ok(())
}
