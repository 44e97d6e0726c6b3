//! The program as a person meets it who makes a mistake, or stops it at the wrong moment: each time it says what to do.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wattline_sim::{Devices, Meters, Transactions};

use super::counts::{alerts_are_published_once, records_are_accounted_for, rules_said_what_they_must};
use super::job::JobFolder;
use super::traffic::Traffic;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

/// Nobody listens there.
const DEAD_BROKER: &str = "127.0.0.1:1";
const SIGINT: u32 = 2;
const SIGTERM: u32 = 15;
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_IS_NO: i32 = 1;
const COULD_NOT_RUN: i32 = 2;

const FILE_JOB: &str = r#"
job = "mistakes"
[streams.meter_readings]
schema = "builtin:meter_readings"
files = "readings.ndjson"
[rules]
paths = ["sql"]
[archive]
url = "archive"
"#;

const READING: &str = r#"{"meter_id":"M1","ts":"2026-03-02T00:00:00+08:00","u_a_v":220.5}"#;

const RULE: &str = "/*---
id = \"high\"
kind = \"alert\"
title = \"Voltage high\"
entity = \"meter_id\"
---*/
SELECT meter_id, ts, u_a_v AS measured FROM meter_readings WHERE u_a_v > 240
";

fn file_job(purpose: &str, config: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(purpose)?;
    folder.write("readings.ndjson", &format!("{READING}\n"))?;
    folder.write("sql/high.sql", RULE)?;
    folder.write("wattline.toml", config)?;
    Ok(folder)
}

/// The program ended with this status and said all of these words on standard error.
fn expect(output: &Output, status: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(status), "ended with {}, not {status}; it said\n{said}", output.status);
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(*word)).collect();
    ensure!(missing.is_empty(), "it does not say {missing:?}; it said\n{said}");
    ensure!(!said.contains("panicked"), "it panicked:\n{said}");
    Ok(())
}

#[test]
fn the_job_of_these_tests_is_right() -> Result<()> {
    let folder = file_job("right", FILE_JOB)?;
    expect(&folder.wattline(&["run"])?, 0, &[])?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM meter_readings")?, 1);
    Ok(())
}

#[test]
fn an_unknown_key_is_answered_with_the_right_name() -> Result<()> {
    let folder = file_job("key", &FILE_JOB.replace("[rules]", "dealy = \"2 minutes\"\n[rules]"))?;
    for command in ["check", "run"] {
        expect(&folder.wattline(&[command])?, ANSWER_IS_NO, &["wattline.toml:6", "dealy", "`delay`"])?;
    }
    Ok(())
}

#[test]
fn wrong_sql_is_shown_in_its_place() -> Result<()> {
    let folder = file_job("sql", FILE_JOB)?;
    folder.write("sql/high.sql", &RULE.replace("SELECT meter_id", "SELECT metre_id"))?;
    folder.write("sql/typo.sql", &RULE.replace("\"high\"", "\"typo\"").replace("WHERE", "WHERE AND"))?;
    for command in ["check", "run"] {
        let words = ["high.sql:7", "metre_id", "meter_id", "typo.sql:7"];
        expect(&folder.wattline(&[command])?, ANSWER_IS_NO, &words)?;
    }
    ensure!(!folder.archive().exists(), "an archive was made for a job that cannot run");
    Ok(())
}

#[test]
fn a_missing_broker_is_named() -> Result<()> {
    let config = FILE_JOB.replace("files = \"readings.ndjson\"", "topic = \"readings\"");
    let kafka = format!("[kafka]\nbootstrap_servers = \"{DEAD_BROKER}\"\nconnect_timeout = \"2 seconds\"\n");
    let folder = file_job("broker", &format!("{config}{kafka}"))?;
    let started = Instant::now();
    expect(&folder.wattline(&["run"])?, COULD_NOT_RUN, &[DEAD_BROKER, "correct the broker address"])?;
    ensure!(started.elapsed() < Duration::from_secs(20), "the answer took {:?}", started.elapsed());
    Ok(())
}

#[test]
fn a_missing_topic_is_named() -> Result<()> {
    let broker = TestBroker::shared();
    let config = FILE_JOB.replace("files = \"readings.ndjson\"", "topic = \"no-such-topic\"");
    let kafka = format!("[kafka]\nbootstrap_servers = \"{}\"\nconnect_timeout = \"5 seconds\"\n", broker.bootstrap());
    let folder = file_job("topic", &format!("{config}{kafka}"))?;
    expect(&folder.wattline(&["run", "--until-end"])?, COULD_NOT_RUN, &["no-such-topic"])
}

#[test]
fn an_archive_that_cannot_be_written_is_named() -> Result<()> {
    let at = |url: &str| FILE_JOB.replace("\"archive\"", &format!("\"{url}\""));
    // Tests may run as root, whom no permission stops: a file in the way and a folder that takes no files stop everyone.
    let folder = file_job("occupied", &at("occupied"))?;
    folder.write("occupied", "a file")?;
    expect(&folder.wattline(&["run"])?, COULD_NOT_RUN, &["occupied"])?;
    let folder = file_job("proc", &at("/proc/wattline"))?;
    expect(&folder.wattline(&["run"])?, COULD_NOT_RUN, &["/proc/wattline"])?;
    Ok(())
}

#[test]
fn a_missing_parent_folder_is_not_made_up() -> Result<()> {
    let folder = file_job("nested", &FILE_JOB.replace("\"archive\"", "\"not/yet/there\""))?;
    expect(&folder.wattline(&["run"])?, COULD_NOT_RUN, &["not/yet` does not exist", "mkdir -p"])?;
    fs::create_dir_all(folder.path().join("not/yet"))?;
    expect(&folder.wattline(&["run"])?, 0, &[])
}

#[test]
fn a_query_without_archive_or_with_a_wrong_name_is_answered() -> Result<()> {
    let folder = file_job("query", FILE_JOB)?;
    expect(&folder.wattline(&["query", "SELECT 1"])?, COULD_NOT_RUN, &["archive", "wattline run"])?;
    folder.answer(&["run"])?;
    expect(&folder.wattline(&["query", "SELECT * FROM meter_reading"])?, ANSWER_IS_NO, &["meter_reading"])?;
    expect(&folder.wattline(&["archive", "files", "meter_reading"])?, ANSWER_IS_NO, &["meter_readings"])
}

/// Three topics on the shared broker, small traffic.
fn small_traffic(test: &str, readings: u64) -> Traffic {
    let devices = Devices { devices: 20, samples: readings / 20 };
    Traffic::new(test, 5, Meters { meters: 500, readings }, devices, Transactions { steps: readings / 20 })
}

#[test]
fn empty_topics_end_at_once() -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = small_traffic("empty", 0);
    traffic.create_topics(broker)?;
    let folder = JobFolder::new("empty")?;
    traffic.configure(&folder, &broker.bootstrap(), "")?;
    let (said, took) = folder.run_until_end(Duration::from_secs(60))?;
    ensure!(said.contains("0 events"), "{said}");
    ensure!(took < Duration::from_secs(30), "no input took {took:?}");
    assert_eq!(folder.count("SELECT count(*) AS n FROM meter_readings")?, 0);
    Ok(())
}

#[test]
fn a_second_process_of_the_same_slot_is_told_so() -> Result<()> {
    let broker = TestBroker::shared();
    let start = |test: &str| -> Result<_> {
        let traffic = Traffic { job: "same-slot".to_owned(), ..small_traffic(test, 20_000) };
        traffic.create_topics(broker)?;
        traffic.produce(&broker.bootstrap(), |_sent| {})?;
        let folder = JobFolder::new(test)?;
        traffic.configure(&folder, &broker.bootstrap(), "[run]\ntick = \"100 ms\"\ncheckpoint = \"1 second\"")?;
        let running = folder.start(&["run"])?;
        Ok((folder, running))
    };
    let (first_folder, mut first) = start("first")?;
    wait_until(Duration::from_secs(60), || Ok((first_folder.manifests() >= 2).then_some(())))?;
    let (second_folder, _second) = start("second")?;
    wait_until(Duration::from_secs(60), || Ok((second_folder.manifests() >= 2).then_some(())))?;
    // The first may have nothing more to tell; what it notices at the latest is its next alert.
    Traffic { job: "same-slot".to_owned(), seed: 6, ..small_traffic("first", 20_000) }
        .produce(&broker.bootstrap(), |_sent| {})?;
    let status = first.wait(Duration::from_secs(60))?;
    let said = first_folder.log();
    ensure!(status.code() == Some(COULD_NOT_RUN), "ended with {status}; it said\n{said}");
    // By the group, or by the publisher of alerts, whichever notices first.
    ensure!(said.contains("another process") && said.contains("slot"), "it said\n{said}");
    Ok(())
}

#[test]
fn an_interrupt_while_connecting_ends_the_program() -> Result<()> {
    let config = FILE_JOB.replace("files = \"readings.ndjson\"", "topic = \"readings\"");
    let kafka = format!("[kafka]\nbootstrap_servers = \"{DEAD_BROKER}\"\nconnect_timeout = \"5 minutes\"\n");
    let folder = file_job("connecting", &format!("{config}{kafka}"))?;
    let running = folder.start_bare(&["run"])?;
    running.wait_for_handler(SIGINT)?;
    let (status, said, _) = running.end_by("INT", DRAIN_LIMIT)?;
    ensure!(status.code() == Some(COULD_NOT_RUN), "ended with {status}; it said\n{said}");
    ensure!(said.contains("nothing was read"), "it said\n{said}");
    Ok(())
}

/// Stops a running job; what it had read is committed, and the next start takes the rest.
fn stopped_by(signal: &str, number: u32) -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = small_traffic(&format!("stopped-by-{}", signal.to_lowercase()), 60_000);
    traffic.create_topics(broker)?;
    let made = traffic.produce(&broker.bootstrap(), |_sent| {})?;
    let folder = JobFolder::new("stopped")?;
    traffic.configure(&folder, &broker.bootstrap(), "[run]\ntick = \"100 ms\"\ncheckpoint = \"1 second\"")?;
    let mut running = folder.start_bare(&["run"])?;
    running.wait_for_handler(number)?;
    running.wait_until(Duration::from_secs(60), || folder.manifests() >= 2)?;
    let (status, said, took) = running.end_by(signal, DRAIN_LIMIT + Duration::from_secs(2))?;
    ensure!(status.success(), "ended with {status} after {took:?}; it said\n{said}");
    ensure!(took < DRAIN_LIMIT, "the drain took {took:?}");
    ensure!(said.contains("stopped after"), "it said\n{said}");
    ensure!(folder.count("SELECT count(*) AS n FROM meter_readings")? > 0, "what was read was not committed");
    folder.run_until_end(Duration::from_secs(120))?;
    records_are_accounted_for(&folder, &traffic, &made)?;
    rules_said_what_they_must(&folder, &traffic)?;
    alerts_are_published_once(&folder, broker, &traffic)
}

#[test]
fn an_interrupt_drains() -> Result<()> {
    stopped_by("INT", SIGINT)
}

#[test]
fn a_termination_drains() -> Result<()> {
    stopped_by("TERM", SIGTERM)
}
