//! A process among others of another version: what has another format is refused with both numbers, and never misread.
//!
//! Other versions are played by what they would leave: a link, and a message to an inbox, each of a format that is yet to come. That
//! versions which go together share a job is shown by `slots`, with a program of another version if there is one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::{JobFolder, VISITS};
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const JOB: &str = "upgrade";
const TOPIC: &str = "upgrade-visits";
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
/// Of messages to come.
const LATER: u32 = 9_000;

const HOURLY: &str = "/*---
id = \"hourly\"
kind = \"table\"
---*/
SELECT shop, window_start, window_end, count(*) AS visits
FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end
";

fn configure(folder: &JobFolder, broker: &TestBroker) -> Result<()> {
    folder.write("visits.avsc", VISITS)?;
    folder.write("sql/hourly.sql", HOURLY)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{JOB}\"\n[kafka]\nbootstrap_servers = \"{}\"\n[kafka.properties]\n\"session.timeout.ms\" = 6000\n\
             [run]\nslots = 2\ntick = \"200 ms\"\ncheckpoint = \"500 ms\"\n[streams.visits]\nschema = \"visits.avsc\"\n\
             topic = \"{TOPIC}\"\n[rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n",
            broker.bootstrap()
        ),
    )
}

fn produce_visits(broker: &TestBroker) -> Result<()> {
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    for k in 0..40 {
        let (shop, minute) = (format!("s{}", k % 8), k % 60);
        let payload = format!("{{\"shop\":\"{shop}\",\"at\":\"2026-03-02T08:{minute:02}:00Z\",\"amount\":\"1.25\"}}");
        let (key, payload) = (shop.as_bytes(), payload.as_bytes());
        producer.send(&KeyedMessage { topic: TOPIC, key, payload, timestamp_ms: None })?;
    }
    Ok(producer.flush(FLUSH_LIMIT)?)
}

/// The newest link of slot 0. Names of links have as many digits, whatever their number.
fn newest_link(folder: &JobFolder) -> Result<Option<PathBuf>> {
    let pattern = folder.archive().join(format!("_wattline/{JOB}/chains/0/*.json"));
    Ok(glob::glob(&pattern.display().to_string())?.flatten().max())
}

/// The job runs, puts a link, and stops in order.
fn goes_on(folder: &JobFolder) -> Result<()> {
    let before = newest_link(folder)?;
    let mut running = folder.start(&["run"])?;
    wait_until(MOMENT_LIMIT, || {
        let ended = running.try_wait()?;
        ensure!(ended.is_none(), "the job ended by itself with {ended:?}:\n{}", running.log_tail());
        Ok((newest_link(folder)? > before).then_some(()))
    })
    .with_context(|| format!("no link behind {before:?}:\n{}", folder.log()))?;
    let status = running.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "ended with {status}:\n{}", running.log_tail());
    Ok(())
}

/// The program ends by itself, and says why.
fn is_refused(folder: &JobFolder, reason: &str) -> Result<()> {
    let mut running = folder.start(&["run"])?;
    let status = running.wait(MOMENT_LIMIT)?;
    ensure!(status.code() == Some(2), "ended with {status}:\n{}", running.log_tail());
    ensure!(folder.log().contains(reason), "it does not say `{reason}`:\n{}", running.log_tail());
    Ok(())
}

#[test]
fn what_has_a_format_that_is_yet_to_come_is_refused_and_left_alone() -> Result<()> {
    let broker = TestBroker::shared();
    broker.create_topic(TOPIC, 2, &[])?;
    produce_visits(broker)?;
    let folder = JobFolder::new(JOB)?;
    configure(&folder, broker)?;
    goes_on(&folder)?;

    let newest = newest_link(&folder)?.context("a link")?;
    let mut link: Value = serde_json::from_str(&fs::read_to_string(&newest)?)?;
    let format = link["format"].as_u64().context("a format")?;
    let number = link["n"].as_u64().context("a number")? + 1;
    link["format"] = json!(format + 1);
    link["n"] = json!(number);
    link["body"] = json!({ "steps": [] });
    let later = newest.with_file_name(format!("{number:020}.json"));
    fs::write(&later, link.to_string())?;
    is_refused(&folder, &format!("its format is {}, this version of wattline reads {format}", format + 1))?;
    ensure!(newest_link(&folder)?.as_ref() == Some(&later), "something was put behind a link that was not understood");
    ensure!(serde_json::from_str::<Value>(&fs::read_to_string(&later)?)? == link, "the link was changed");

    // Its version is gone again, and took its link along.
    fs::remove_file(&later)?;
    goes_on(&folder)?;
    folder.answer(&["archive", "verify"])?;

    let head = json!({ "format": LATER, "from": "slot 1", "steps": [] }).to_string();
    let message = [&u32::try_from(head.len())?.to_le_bytes()[..], head.as_bytes(), &b"rows"[..]].concat();
    let producer: BaseProducer = broker.client_config().create()?;
    let exchange = format!("wattline-{JOB}-exchange");
    let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&exchange).partition(0).payload(message.as_slice());
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(FLUSH_LIMIT)?;
    is_refused(&folder, &format!("its format is {LATER}, this version of wattline reads"))?;
    folder.answer(&["archive", "verify"]).map(drop)
}
