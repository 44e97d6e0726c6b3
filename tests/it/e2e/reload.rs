//! Other rules for a job that runs: those that stay go on as if nothing had been, mistakes change nothing, alerts of rules that go are resolved.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::{JobFolder, VISITS};
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
pub(super) const SHOPS: u32 = 12;

pub(super) fn rule(id: &str, header: &str, columns: &str) -> String {
    format!(
        "/*---\nid = \"{id}\"\n{header}\ndelay = \"1 minute\"\n---*/\nSELECT shop, window_start, window_end, {columns}\n\
         FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end\n"
    )
}

pub(super) const TABLE: &str = "kind = \"table\"";
pub(super) const ALERT: &str = "kind = \"alert\"\nentity = \"shop\"";

/// Two visits of each shop in every ten minutes from one to another.
pub(super) fn produce(producer: &mut Producer, topic: &str, windows: std::ops::Range<u32>) -> Result<()> {
    for (window, shop, k) in windows.flat_map(|w| (0..SHOPS).flat_map(move |s| (0..2).map(move |k| (w, s, k)))) {
        let (shop, minute) = (format!("s{shop}"), window * 10 + k);
        let (hour, minute) = (minute / 60, minute % 60);
        let payload = format!(
            "{{\"shop\":\"{shop}\",\"at\":\"2026-03-02T{hour:02}:{minute:02}:00Z\",\"amount\":\"{window}.{k}0\"}}"
        );
        let (key, payload) = (shop.as_bytes(), payload.as_bytes());
        producer.send(&KeyedMessage { topic, key, payload, timestamp_ms: None })?;
    }
    Ok(producer.flush(FLUSH_LIMIT)?)
}

fn is_refused(folder: &JobFolder, why: &str) -> Result<()> {
    let refused = folder.wattline(&["apply"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1) && said.contains(why),
        "not refused for `{why}`: {refused:?}; the job said\n{}",
        folder.log()
    );
    Ok(())
}

/// A job with a table, an alert and another table over a topic.
fn job_over(broker: &TestBroker, topic: &str) -> Result<JobFolder> {
    let folder = JobFolder::new("reload")?;
    folder.write("visits.avsc", VISITS)?;
    folder.write("sql/stays.sql", &rule("stays", TABLE, "count(*) AS visits, sum(amount) AS total"))?;
    folder.write("sql/goes.sql", &rule("goes", ALERT, "count(*) AS measured, count(*) > 1 AS firing"))?;
    folder.write("sql/other.sql", &rule("other", TABLE, "count(*) AS visits"))?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"reload\"\n[kafka]\nbootstrap_servers = \"{}\"\n\
             [run]\ntick = \"50 ms\"\ncheckpoint = \"300 ms\"\nfile_age = \"300 ms\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{topic}\"\nidle_timeout = \"1 second\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n",
            broker.bootstrap()
        ),
    )?;
    Ok(folder)
}

/// The rule that stayed has all of it, the changed one both of its texts, and the alerts of the one that went are resolved.
fn each_rule_said_what_it_must(folder: &JobFolder) -> Result<()> {
    let differing = "SELECT count(*) AS n FROM (SELECT shop, window_start, visits, total FROM stays EXCEPT ALL SELECT shop, \
        window_start, count(*), sum(amount) FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start)";
    assert_eq!(folder.count(differing)?, 0, "the rule that stayed");
    assert_eq!(folder.count("SELECT count(*) AS n FROM stays")?, u64::from(SHOPS) * 30);
    assert_eq!(folder.count("SELECT count(*) AS n FROM visits")?, u64::from(SHOPS) * 60);
    let other = folder.lines("SELECT DISTINCT visits FROM other ORDER BY 1")?;
    assert_eq!(other, [r#"{"visits":2}"#, r#"{"visits":102}"#]);
    let alerts = folder.lines("SELECT status, title, count(*) AS n FROM alerts GROUP BY 1, 2 ORDER BY 1")?;
    assert_eq!(
        alerts,
        [
            r#"{"n":12,"status":"open","title":"goes"}"#,
            r#"{"n":12,"status":"resolved","title":"The rule is no longer run"}"#
        ]
    );
    Ok(())
}

#[test]
fn a_running_job_takes_other_rules_and_refuses_wrong_ones() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "reload-visits";
    broker.create_topic(topic, 3, &[])?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let folder = job_over(broker, topic)?;
    let nobody = folder.wattline(&["apply", "--wait", "1 second"])?;
    ensure!(nobody.status.code() == Some(2), "nobody could answer: {nobody:?}");

    produce(&mut producer, topic, 0..8)?;
    let mut running = folder.start(&["run"])?;
    let rows_of = |table: &str, from: u32| {
        let sql = format!("SELECT count(*) AS n FROM {table} WHERE window_start >= '2026-03-02T0{from}:00:00Z'");
        // The table is there from the first start of its rule on.
        folder.count(&sql).unwrap_or(0)
    };
    let reach = |table: &str, from: u32, rows: u64| {
        wait_until(MOMENT_LIMIT, || Ok((rows_of(table, from) >= rows).then_some(())))
            .with_context(|| format!("{} rows of `{table}`; the job said\n{}", rows_of(table, from), folder.log()))
    };
    reach("stays", 0, u64::from(SHOPS) * 7)?;

    // A mistake is told to who applies, and the job goes on.
    folder.write("sql/wrong.sql", &rule("wrong", TABLE, "sum(amont) AS total"))?;
    let refused = folder.wattline(&["apply"])?;
    ensure!(refused.status.code() == Some(1), "a wrong rule was applied: {refused:?}");
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("amont"), "{refused:?}");
    running.signal("HUP")?;
    wait_until(MOMENT_LIMIT, || Ok(folder.log().contains("goes on with the rules that it has").then_some(())))?;

    std::fs::remove_file(folder.path().join("sql/wrong.sql"))?;

    // What only the job can know: where its archive is, and that a table does not take another type.
    let config = std::fs::read_to_string(folder.path().join("wattline.toml"))?;
    folder.write("wattline.toml", &config.replace("url = \"archive\"", "url = \"elsewhere\""))?;
    is_refused(&folder, "the archive has changed")?;
    folder.write("wattline.toml", &config)?;
    folder.write("sql/other.sql", &rule("other", TABLE, "'many' AS visits"))?;
    is_refused(&folder, "visits")?;
    ensure!(running.try_wait()?.is_none(), "the process ended:\n{}", running.log_tail());
    std::fs::remove_file(folder.path().join("sql/goes.sql"))?;
    folder.write("sql/other.sql", &rule("other", TABLE, "count(*) + 100 AS visits"))?;
    folder.write("sql/added.sql", &rule("added", TABLE, "max(amount) AS top"))?;
    let told = folder.answer(&["apply"])?;
    ensure!(told.contains("1 added (added), 1 removed (goes), 1 changed (other)"), "{told}");
    ensure!(running.try_wait()?.is_none(), "the process ended:\n{}", running.log_tail());

    // By a signal, without an answer.
    folder.write("sql/later.sql", &rule("later", TABLE, "min(amount) AS least"))?;
    running.signal("HUP")?;
    wait_until(MOMENT_LIMIT, || Ok(folder.log().contains("1 added (later)").then_some(())))?;

    produce(&mut producer, topic, 8..30)?;
    reach("added", 2, u64::from(SHOPS) * 17)?;
    let status = running.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
    folder.run_until_end(MOMENT_LIMIT)?;

    each_rule_said_what_it_must(&folder)
}
