//! Rules over what a job says of itself: refused records and failed rules, in bounded input and while the clock goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::JobFolder;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);

const SCHEMA: &str = r#"{"type":"record","name":"readings","event_time":"at","key":["device"],"fields":[
    {"name":"device","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"value","type":"long"}]}"#;

/// Good ones of two devices, with a zero at which a rule fails and a window in which the sum of one device is zero; three
/// that are no readings.
const READINGS: &str = r#"{"device":"A","at":"2026-03-02T00:00:00Z","value":5}
{"device":"B","at":"2026-03-02T00:01:00Z","value":7}
not a reading
{"device":"A","at":"2026-03-02T00:02:00Z","value":0}
{"device":"A","at":"2026-03-02T00:03:00Z","value":"much"}
{"device":"A","at":"2026-03-02T00:04:00Z","value":-5}
{"device":"A","at":"2026-03-02T00:05:00Z","value":0}
{"at":"2026-03-02T00:06:00Z","value":1}
{"device":"B","at":"2026-03-02T01:00:00Z","value":3}
"#;

/// The rules by id.
const RULES: [(&str, &str); 8] = [
    ("inverse", "SELECT device, at, 100 / value AS inverse FROM readings"),
    (
        "ratio",
        "SELECT device, window_start, window_end, 100 / sum(value) AS ratio
         FROM TUMBLE(readings, at, INTERVAL '1 hour') GROUP BY device, window_start, window_end",
    ),
    ("letters", "SELECT refused_at, stream, reason, CAST(raw AS VARCHAR) AS raw, record_offset FROM dead_letters"),
    (
        "reasons",
        "SELECT reason, window_start, window_end, count(*) AS n, min(record_ts) AS first, max(detail) AS detail
         FROM TUMBLE(dead_letters, refused_at, INTERVAL '1 day') GROUP BY reason, window_start, window_end",
    ),
    (
        "failing",
        "SELECT rule_id, window_start, window_end, count(*) AS n, count(record_offset) AS stopped
         FROM TUMBLE(rule_errors, failed_at, INTERVAL '1 day') GROUP BY rule_id, window_start, window_end",
    ),
    (
        "faults",
        "SELECT kind, window_start, window_end, count(*) AS n FROM TUMBLE(
             (SELECT refused_at AS at, 'refused' AS kind FROM dead_letters
              UNION ALL SELECT failed_at AS at, rule_id AS kind FROM rule_errors), at, INTERVAL '1 day')
         GROUP BY kind, window_start, window_end",
    ),
    // They are told of their own failures, if they are not stopped by them; this one shares the windows of `failing`.
    (
        "narrow",
        "SELECT rule_id, window_start, window_end, 100 / (count(*) - 1) AS x
         FROM TUMBLE(rule_errors, failed_at, INTERVAL '1 day') GROUP BY rule_id, window_start, window_end",
    ),
    ("careless", "SELECT failed_at, rule_id, 1 / (length(rule_id) - 5) AS x FROM rule_errors"),
];

fn write_rules(folder: &JobFolder) -> Result<()> {
    folder.write("readings.avsc", SCHEMA)?;
    for (id, sql) in RULES {
        folder.write(&format!("sql/{id}.sql"), &format!("/*---\nid = \"{id}\"\nkind = \"table\"\n---*/\n{sql}\n"))?;
    }
    Ok(())
}

/// Without what the archive adds, in order.
fn sorted(rows: Vec<Value>) -> Vec<String> {
    let strip = |mut row: Value| {
        if let Some(columns) = row.as_object_mut() {
            columns.remove("event_date");
        }
        row.to_string()
    };
    let mut rows: Vec<String> = rows.into_iter().map(strip).collect();
    rows.sort();
    rows
}

#[test]
fn rules_over_refused_records_and_failed_rules_are_what_batch_says() -> Result<()> {
    let folder = JobFolder::new("system-streams")?;
    write_rules(&folder)?;
    folder.write("readings.ndjson", READINGS)?;
    folder.write(
        "wattline.toml",
        "job = \"system\"\n[streams.readings]\nschema = \"readings.avsc\"\nfiles = \"readings.ndjson\"\n\
         [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n",
    )?;
    folder.run_until_end(RUN_LIMIT)?;

    let errors = folder.query("SELECT rule_id, record_offset, _offset FROM rule_errors ORDER BY _offset")?;
    let told: Vec<(&str, Option<u64>)> =
        errors.iter().map(|row| (row["rule_id"].as_str().unwrap_or_default(), row["record_offset"].as_u64())).collect();
    let expected = [("inverse", Some(3)), ("ratio", None), ("careless", Some(1)), ("narrow", None)];
    assert_eq!(told, expected, "what failed, and where");
    assert_eq!(folder.count("SELECT count(*) AS n FROM dead_letters")?, 3);
    let on_time = "(SELECT * FROM rule_errors WHERE _lateness_ms = 0)";
    for (id, sql) in RULES.iter().filter(|(id, _)| expected.iter().all(|(failed, _)| failed != id)) {
        let batch = sorted(folder.query(&sql.replace("rule_errors", on_time))?);
        ensure!(!batch.is_empty(), "`{id}` has nothing to say");
        assert_eq!(sorted(folder.query(&format!("SELECT * FROM {id}"))?), batch, "`{id}`");
    }
    // It had seen one error before the one at which it failed.
    assert_eq!(folder.count("SELECT count(*) AS n FROM careless WHERE rule_id = 'inverse'")?, 1);
    assert_eq!(folder.count("SELECT count(*) AS n FROM careless")?, 1);
    Ok(())
}

#[test]
fn windows_over_refused_records_close_by_the_clock_and_survive_a_kill() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "system-streams";
    broker.create_topic(topic, 2, &[])?;
    let folder = JobFolder::new(topic)?;
    folder.write("readings.avsc", SCHEMA)?;
    folder.write("names.csv", "reason,name\nnot_json,no text\n")?;
    folder.write(
        "sql/named.sql",
        "/*---\nid = \"named\"\nkind = \"table\"\n---*/\nSELECT refused_at, n.name, record_offset FROM dead_letters d\n\
         JOIN names n ON n.reason = d.reason\n",
    )?;
    folder.write(
        "sql/refused.sql",
        "/*---\nid = \"refused\"\nkind = \"table\"\n---*/\nSELECT reason, window_start, window_end, count(*) AS n\n\
         FROM TUMBLE(dead_letters, refused_at, INTERVAL '3 seconds') GROUP BY reason, window_start, window_end\n",
    )?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{topic}\"\n[kafka]\nbootstrap_servers = \"{}\"\n[streams.readings]\nschema = \"readings.avsc\"\n\
             topic = \"{topic}\"\n[reference.names]\npath = \"names.csv\"\n[rules]\npaths = [\"sql\"]\n\
             [archive]\nurl = \"archive\"\n[run]\ntick = \"200 ms\"\ncheckpoint = \"1 second\"\n\
             file_age = \"1 second\"\nreferences = \"200 ms\"\n",
            broker.bootstrap()
        ),
    )?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let mut send_bad = |count: usize| -> Result<()> {
        for number in 0..count {
            let (key, payload) = (number.to_string(), b"not a reading".as_slice());
            producer.send(&KeyedMessage { topic, key: key.as_bytes(), payload, timestamp_ms: None })?;
        }
        Ok(producer.flush(FLUSH_LIMIT)?)
    };
    let letters = || folder.count("SELECT count(*) AS n FROM dead_letters").unwrap_or_default();
    let counted = || folder.count("SELECT coalesce(sum(n), 0) AS n FROM refused").unwrap_or_default();

    // The window closes though nothing more comes.
    send_bad(40)?;
    let mut running = folder.start(&["run"])?;
    wait_until(RUN_LIMIT, || Ok((counted() == 40).then_some(())))?;
    // The programs that come with another version of a reference table know these streams too.
    folder.write("names.csv", "reason,name\nnot_json,not JSON\n")?;
    wait_until(RUN_LIMIT, || {
        Ok(folder.log().contains("a reference table has changed: rules join to it").then_some(()))
    })?;
    // Killed with rows that are published and a window that is open, most likely.
    send_bad(30)?;
    wait_until(RUN_LIMIT, || Ok((letters() == 70).then_some(())))?;
    running.kill9()?;
    send_bad(20)?;
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!((letters(), counted()), (90, 90), "refused records, and what the rule says of them");
    let named = |name: &str| folder.count(&format!("SELECT count(*) AS n FROM named WHERE name = '{name}'"));
    assert_eq!((named("no text")?, named("not JSON")?), (40, 50), "joined as of the change");
    let again =
        "SELECT count(*) AS n FROM (SELECT reason, window_start FROM refused GROUP BY 1, 2 HAVING count(*) > 1)";
    assert_eq!(folder.count(again)?, 0, "windows that were given twice");
    Ok(())
}
