//! A backup of a job that commits, brought back after the job had gone on: what follows is what an undisturbed run has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::counts::{committed_messages, number, text};
use super::job::JobFolder;
use super::traffic::PARTITIONS;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;
use crate::s3_server::S3Server;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
const REST: Duration = Duration::from_millis(25);
const ANSWER_IS_NO: i32 = 1;
/// Minutes of visits; every so many one is late or cannot be read.
const MINUTES: u32 = 24 * 60;
const LATE_EVERY: u32 = 50;
const BROKEN_EVERY: u32 = 97;

const SCHEMA: &str = r#"{"type":"record","name":"visits","event_time":"at","key":["shop"],"fields":[
    {"name":"shop","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

/// Name, header and query of the rules: a window, one that late events correct, a condition, rows in order.
const RULES: [(&str, &str, &str); 4] = [
    (
        "hourly",
        "kind = \"table\"",
        "SELECT shop, window_start, window_end, count(*) AS visits \
         FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end",
    ),
    (
        "mended",
        "kind = \"table\"\nlate = \"update\"",
        "SELECT shop, window_start, window_end, count(*) AS visits \
         FROM TUMBLE(visits, at, INTERVAL '20 minutes') GROUP BY shop, window_start, window_end",
    ),
    (
        "even",
        "kind = \"alert\"\nentity = \"shop\"",
        "SELECT shop, window_start, window_end, count(*) AS measured, date_part('minute', window_start) % 20 = 0 AS firing \
         FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end",
    ),
    (
        "since_last",
        "kind = \"table\"",
        "SELECT shop, at, lag(at) OVER (PARTITION BY shop ORDER BY at) AS last_at FROM visits",
    ),
];

/// Everything that a job has in its tables, as far as it does not depend on when it ran.
const RESULTS: [&str; 6] = [
    "SELECT 'visits' AS part, shop, at, _partition, _offset, _lateness_ms FROM visits",
    "SELECT 'hourly' AS part, shop, window_start, visits FROM hourly",
    "SELECT 'mended' AS part, shop, window_start, visits FROM mended_current",
    "SELECT 'since_last' AS part, shop, at, last_at FROM since_last",
    "SELECT 'alerts' AS part, alert_id, status, entity_id, event_ts, occurrences FROM alerts",
    "SELECT 'dead_letters' AS part, reason, record_partition, record_offset FROM dead_letters",
];

fn job(purpose: &str, name: &str, topic: &str, alert_topic: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(purpose)?;
    folder.write("visits.avsc", SCHEMA)?;
    for (id, header, sql) in RULES {
        folder.write(
            &format!("sql/{id}.sql"),
            &format!("/*---\nid = \"{id}\"\n{header}\ndelay = \"1 minute\"\n---*/\n{sql}\n"),
        )?;
    }
    let bootstrap = TestBroker::shared().bootstrap();
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{name}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n[alerts]\ntopic = \"{alert_topic}\"\n\
             [run]\ntick = \"100 ms\"\ncheckpoint = \"300 ms\"\nfile_age = \"500 ms\"\ncorrection = \"300 ms\"\nmaintenance = \"1 second\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{topic}\"\nidle_timeout = \"10 minutes\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n"
        ),
    )?;
    Ok(folder)
}

/// A visit a minute in each of three shops, slowly until `hurry`.
fn produce(topic: &str, hurry: &AtomicBool) -> Result<()> {
    let mut producer = Producer::connect(&TestBroker::shared().bootstrap(), &BTreeMap::new())?;
    for minute in 0..MINUTES {
        for shop in ["s0", "s1", "s2"] {
            let is_late = minute % LATE_EVERY == LATE_EVERY - 1;
            let at = if is_late { minute - 45 } else { minute };
            let end = if minute % BROKEN_EVERY == BROKEN_EVERY - 1 { "" } else { "}" };
            let payload = format!("{{\"shop\":\"{shop}\",\"at\":\"2026-03-02T{:02}:{:02}:00Z\"{end}", at / 60, at % 60);
            let (key, payload) = (shop.as_bytes(), payload.as_bytes());
            producer.send(&KeyedMessage { topic, key, payload, timestamp_ms: None })?;
        }
        if !hurry.load(Ordering::Relaxed) {
            producer.flush(FLUSH_LIMIT)?;
            std::thread::park_timeout(REST);
        }
    }
    producer.flush(FLUSH_LIMIT)?;
    Ok(())
}

fn results(folder: &JobFolder) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for sql in RESULTS {
        let rows = folder.lines(sql)?;
        ensure!(rows.len() > 10, "next to nothing from `{sql}`: {rows:?}");
        lines.extend(rows);
    }
    lines.sort_unstable();
    Ok(lines)
}

fn equal(found: &[String], expected: &[String], what: &str) -> Result<()> {
    let first = found.iter().zip(expected).find(|(found, expected)| found != expected);
    ensure!(found == expected, "{what}: {} rows, not {}; first difference: {first:?}", found.len(), expected.len());
    Ok(())
}

fn json(folder: &JobFolder, args: &[&str]) -> Result<Value> {
    let args: Vec<&str> = args.iter().copied().chain(["--format", "json"]).collect();
    Ok(serde_json::from_str(&folder.answer(&args)?)?)
}

/// What the program says when the answer is no.
fn refused(folder: &JobFolder, args: &[&str]) -> Result<String> {
    let output = folder.wattline(args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(ANSWER_IS_NO), "`{args:?}` ended with {}:\n{said}", output.status);
    Ok(said)
}

/// Two backups of the job while it commits, with one that dies in between.
fn back_up_beside_the_job(folder: &JobFolder) -> Result<()> {
    let mut running = folder.start(&["run"])?;
    let links = |more: usize| wait_until(MOMENT_LIMIT, || Ok((folder.manifests() > more).then_some(())));
    links(8).context("some links")?;
    let first = json(folder, &["archive", "backup", "backups"])?;
    let after_first = folder.manifests();
    assert_eq!(number(&first["snapshot"], "number")?, 1, "{first}");
    links(after_first + 5).context("more links")?;
    folder.start(&["archive", "backup", "backups"])?.kill9()?;
    let before_second = folder.manifests();
    let second = json(folder, &["archive", "backup", "backups"])?;
    links(before_second).with_context(|| format!("no link beside a backup:\n{}", running.log_tail()))?;
    let (first, second) = (&first["snapshot"], &second["snapshot"]);
    ensure!(second["chains"][0]["last_link"].as_u64() > first["chains"][0]["last_link"].as_u64(), "{first} {second}");
    ensure!(number(second, "copied_objects")? < number(second, "objects")?, "nothing was there already: {second}");
    running.kill9()
}

#[test]
fn a_job_goes_on_from_a_backup_as_if_nothing_had_been() -> Result<()> {
    let broker = TestBroker::shared();
    let (topic, alert_topic, control_topic) = ("backup-visits", "backup-alerts", "backup-control-alerts");
    broker.create_topic(topic, 2, &[])?;
    for topic in [alert_topic, control_topic] {
        broker.create_topic(topic, PARTITIONS, &[])?;
    }
    let folder = job("backup", "backup", topic, alert_topic)?;
    let hurry = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce(topic, &hurry));
        let backed_up = back_up_beside_the_job(&folder);
        let was_producing = !producing.is_finished();
        hurry.store(true, Ordering::Relaxed);
        producing.join().map_err(|_panic| anyhow!("the producer panicked"))??;
        backed_up?;
        ensure!(was_producing, "the input ended before the second backup");
        Ok(())
    })?;
    let control = job("backup-control", "backup-control", topic, control_topic)?;
    control.run_until_end(RUN_LIMIT)?;
    let expected = results(&control)?;
    folder.run_until_end(RUN_LIMIT)?;
    equal(&results(&folder)?, &expected, "the job that was backed up")?;

    let backups = folder.path().join("backups").display().to_string();
    let restored = job("backup-restored", "backup", topic, alert_topic)?;
    let said = restored.answer(&["archive", "restore", &backups, "--at", "1"])?;
    ensure!(said.contains("backup 1 of ") && said.contains("chain backup/0 goes on behind link "), "{said}");
    let said = refused(&restored, &["archive", "restore", &backups])?;
    ensure!(said.contains("it is not empty"), "{said}");
    let rows_of_backup = restored.count("SELECT count(*) AS n FROM visits")?;
    ensure!(rows_of_backup > 0 && rows_of_backup < folder.count("SELECT count(*) AS n FROM visits")?);
    restored.answer(&["archive", "verify"])?;
    restored.run_until_end(RUN_LIMIT)?;
    restored.answer(&["archive", "verify"])?;
    equal(&results(&restored)?, &expected, "the job that went on from its backup")?;
    alerts_came_again_with_their_ids(&restored, alert_topic)?;
    only_the_newest_is_kept(&folder, &restored)
}

/// Every alert of the table is in the topic; what is there more than once is the same, byte by byte.
pub(super) fn alerts_came_again_with_their_ids(restored: &JobFolder, topic: &str) -> Result<()> {
    let published = committed_messages(TestBroker::shared(), topic)?;
    let mut by_id: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (_, payload) in &published {
        let alert: Value = serde_json::from_slice(payload)?;
        by_id.entry(text(&alert, "alert_id")?).or_default().insert(payload.clone());
    }
    let differing: Vec<&String> = by_id.iter().filter(|(_, said)| said.len() > 1).map(|(id, _)| id).collect();
    ensure!(differing.is_empty(), "alerts of one id that say different things: {differing:?}");
    ensure!(published.len() > by_id.len(), "nothing came again after the restore");
    let rows = restored.query("SELECT alert_id FROM alerts")?;
    let kept: BTreeSet<String> = rows.iter().map(|row| text(row, "alert_id")).collect::<Result<_>>()?;
    ensure!(kept.len() == rows.len() && kept.iter().eq(by_id.keys()), "alert topic and alerts table differ");
    Ok(())
}

/// The restored job goes on with the backups of the first one, which give way.
fn only_the_newest_is_kept(folder: &JobFolder, restored: &JobFolder) -> Result<()> {
    let backups = folder.path().join("backups").display().to_string();
    let list = json(restored, &["archive", "backup", &backups, "--list"])?;
    let before: Vec<u64> =
        list.as_array().into_iter().flatten().map(|of| number(of, "number")).collect::<Result<_>>()?;
    ensure!(before.len() == 2 && before[0] == 1, "{list}");
    let third = json(restored, &["archive", "backup", &backups, "--keep", "1"])?;
    assert_eq!(third["pruned"]["snapshots"].as_array().map(Vec::len), Some(2), "{third}");
    let again = job("backup-again", "backup", "backup-visits", "backup-alerts")?;
    let said = refused(&again, &["archive", "restore", &backups, "--at", "1"])?;
    ensure!(said.contains("there is no backup 1"), "{said}");
    again.answer(&["archive", "restore", &backups])?;
    again.answer(&["archive", "verify"])?;
    equal(&results(&again)?, &results(restored)?, "the newest backup")
}

const FILES: &str = "job = \"backup-files\"
[streams.visits]
schema = \"visits.avsc\"
files = \"IN/*\"
[rules]
paths = [\"sql\"]
[archive]
url = \"archive\"
";

/// Three shops, an hour of a day.
fn day(day: u32) -> String {
    let visit =
        |minute: u32| format!("{{\"shop\":\"s{}\",\"at\":\"2026-03-{day:02}T08:{minute:02}:00Z\"}}\n", minute % 3);
    (0..60).map(visit).collect()
}

#[test]
fn a_backup_on_another_store_brings_back_a_job_over_files() -> Result<()> {
    let server = S3Server::start()?;
    let section = server.archive_settings("backups").replace("[archive.options]", "[backup.options]");
    let input = JobFolder::new("backup-input")?;
    let config = FILES.replace("IN", &input.path().join("in").display().to_string());
    let make = |purpose: &str| -> Result<JobFolder> {
        let folder = JobFolder::new(purpose)?;
        folder.write("visits.avsc", SCHEMA)?;
        let (id, header, sql) = RULES[0];
        folder.write(&format!("sql/{id}.sql"), &format!("/*---\nid = \"{id}\"\n{header}\n---*/\n{sql}\n"))?;
        folder.write("wattline.toml", &format!("{config}[backup]\n{section}"))?;
        Ok(folder)
    };
    let sql = "SELECT shop, at, _topic, _offset, _lateness_ms FROM visits ORDER BY _topic, _offset";
    let hourly = "SELECT shop, window_start, visits FROM hourly ORDER BY window_start, shop";

    input.write("in/a.ndjson", &day(2))?;
    let (first, control) = (make("backup-files")?, make("backup-files-control")?);
    refused(&first, &["archive", "backup", "--list"]).context("no backup yet is an answer")?;
    first.run_until_end(RUN_LIMIT)?;
    first.answer(&["archive", "backup"])?;
    let damaged = first.archive().join("visits");
    let inside = first.wattline(&["archive", "backup", &damaged.display().to_string()])?;
    ensure!(inside.status.code() == Some(2), "{inside:?}");

    let restored = make("backup-files-restored")?;
    restored.answer(&["archive", "restore"])?;
    restored.answer(&["archive", "verify"])?;
    control.run_until_end(RUN_LIMIT)?;
    input.write("in/b.ndjson", &day(3))?;
    for folder in [&restored, &control] {
        folder.run_until_end(RUN_LIMIT)?;
        folder.answer(&["archive", "verify"])?;
    }
    for sql in [sql, hourly] {
        let rows = control.lines(sql)?;
        ensure!(rows.len() >= 6, "{rows:?}");
        equal(&restored.lines(sql)?, &rows, sql)?;
    }

    // An archive of which a part is missing is no archive: no job starts on it, and the check says so.
    let half = make("backup-files-half")?;
    let mark = "{\"source\":\"s3://x\",\"snapshot\":1,\"list_sha256\":\"x\",\"incarnation\":\"i\"}";
    half.write("archive/_restore/unfinished.json", mark)?;
    let said = half.wattline(&["run", "--until-end"])?;
    let said = (said.status.code(), String::from_utf8_lossy(&said.stderr).into_owned());
    ensure!(said.0 == Some(2) && said.1.contains("restored in part only, from backup 1"), "{said:?}");
    let said = refused(&half, &["archive", "restore"])?;
    ensure!(said.contains("has begun there and not come to its end"), "{said}");
    Ok(())
}
