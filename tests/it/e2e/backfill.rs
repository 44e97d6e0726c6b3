//! Rules that are new to a job with a past, and are given it: by a restart, by `wattline apply`, in several slots, through kills.
//!
//! Whatever happens, the results of each are in the end what its query gives over all events of the archive, each row once.
//! What was computed from the archive is marked, and of its alerts only those are published that were open when the rule joined.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::counts::{committed_messages, text};
use super::job::{JobFolder, VISITS};
use super::traffic::PARTITIONS;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
const SHOPS: u32 = 12;

const WINDOWS: &str = "SELECT shop, window_start, window_end, count(*) AS visits, sum(amount) AS total \
    FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end";
/// Of the same windows, so that it has the state of these.
const KNOWN: &str = "SELECT shop, window_start, window_end, total FROM (SELECT shop, window_start, window_end, \
    count(*) AS visits, sum(amount) AS total FROM TUMBLE(visits, at, INTERVAL '10 minutes') \
    GROUP BY shop, window_start, window_end) WHERE visits > 0";
const LARGE: &str = "SELECT shop, at, amount FROM visits WHERE amount > 7";
const STEPS: &str = "SELECT shop, at, amount, step FROM (SELECT shop, at, amount, \
    amount - lag(amount) OVER (PARTITION BY shop ORDER BY at) AS step FROM visits) WHERE step IS NOT NULL";
const STAYS: &str = "SELECT shop, window_start, window_end, count(*) AS visits \
    FROM SESSION(visits, at, INTERVAL '2 minutes') GROUP BY shop, window_start, window_end";
const BUSY: &str = "SELECT shop, window_start, window_end, count(*) AS measured, count(*) > 2 AS firing \
    FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end";

/// The rules that come later: a window that another rule has too, one that late events correct, rows as they are, rows in
/// order, sessions, an alert.
const LATE_COMERS: [(&str, &str, &str); 6] = [
    ("tens", "kind = \"table\"", WINDOWS),
    ("mended", "kind = \"table\"\nlate = \"update\"", WINDOWS),
    ("large", "kind = \"table\"", LARGE),
    ("steps", "kind = \"table\"", STEPS),
    ("stays", "kind = \"table\"", STAYS),
    ("busy", "kind = \"alert\"\nentity = \"shop\"", BUSY),
];

fn rule(id: &str, header: &str, sql: &str) -> String {
    format!("/*---\nid = \"{id}\"\n{header}\ndelay = \"1 minute\"\n---*/\n{sql}\n")
}

/// A job that has one rule.
fn job_over(broker: &TestBroker, name: &str) -> Result<JobFolder> {
    job_with(broker, name, "tick = \"50 ms\"")
}

/// The same, with other settings of `[run]`.
fn job_with(broker: &TestBroker, name: &str, run: &str) -> Result<JobFolder> {
    broker.create_topic(name, PARTITIONS, &[])?;
    broker.create_topic(&format!("{name}-alerts"), PARTITIONS, &[])?;
    let folder = JobFolder::new(name)?;
    folder.write("visits.avsc", VISITS)?;
    folder.write("sql/known.sql", &rule("known", "kind = \"table\"", KNOWN))?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{name}\"\n[kafka]\nbootstrap_servers = \"{}\"\n[kafka.properties]\n\"session.timeout.ms\" = 6000\n\
             [alerts]\ntopic = \"{name}-alerts\"\n[run]\n{run}\ncheckpoint = \"300 ms\"\nfile_age = \"300 ms\"\ncorrection = \"300 ms\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{name}\"\nidle_timeout = \"1 second\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n",
            broker.bootstrap()
        ),
    )?;
    Ok(folder)
}

fn add_late_comers(folder: &JobFolder) -> Result<()> {
    for (id, header, sql) in LATE_COMERS {
        folder.write(&format!("sql/{id}.sql"), &rule(id, &format!("{header}\nbackfill = \"30 days\""), sql))?;
    }
    Ok(())
}

/// Two visits of each shop in ten minutes, three in every third of them, and one that comes an hour late.
fn produce(producer: &mut Producer, topic: &str, windows: Range<u32>) -> Result<()> {
    for window in windows {
        let visits = |shop: u32| if (window + shop).is_multiple_of(3) { 3 } else { 2 };
        let on_time =
            (0..SHOPS).flat_map(|shop| (0..visits(shop)).map(move |k| (window * 10 + k * 3 + shop % 2, shop)));
        let mut all: Vec<(u32, u32)> = on_time.collect();
        all.sort_unstable();
        let is_late = |shop: &u32| window > 8 && (window * shop) % 7 == 3;
        all.extend((0..SHOPS).filter(is_late).map(|shop| (window * 10 - 55, shop)));
        for (minute, shop) in all {
            let (shop, hour, left) = (format!("s{shop}"), minute / 60, minute % 60);
            let amount = (minute * 37 + window) % 10;
            let payload = format!(
                "{{\"shop\":\"{shop}\",\"at\":\"2026-03-02T{hour:02}:{left:02}:00Z\",\"amount\":\"{amount}.50\"}}"
            );
            let (key, payload) = (shop.as_bytes(), payload.as_bytes());
            producer.send(&KeyedMessage { topic, key, payload, timestamp_ms: None })?;
        }
    }
    Ok(producer.flush(FLUSH_LIMIT)?)
}

/// Waits until the rule has rows of windows of that hour or later.
fn reaches(folder: &JobFolder, table: &str, hour: u32) -> Result<()> {
    let sql = format!("SELECT count(*) AS n FROM {table} WHERE window_end > '2026-03-02T{hour:02}:00:00Z'");
    // The table is there from the first start of its rule on.
    wait_until(MOMENT_LIMIT, || Ok((folder.count(&sql).unwrap_or(0) > 0).then_some(())))
        .with_context(|| format!("`{table}` does not reach hour {hour}; the job said\n{}", folder.log()))
}

/// Each table holds what its query gives over the events of the archive, and each row once; some are of the past, and of so many
/// tables some of the stream.
fn results_are_those_of_all_events(folder: &JobFolder, live_tables: usize) -> Result<()> {
    let mut has_live = 0;
    for (id, header, sql) in LATE_COMERS.into_iter().filter(|(id, ..)| *id != "busy") {
        let is_corrected = header.contains("update");
        let table = if is_corrected { format!("{id}_current") } else { id.to_owned() };
        let events = if is_corrected { "visits" } else { "(SELECT * FROM visits WHERE _lateness_ms <= 60000)" };
        let sql = sql.replace("FROM visits", &format!("FROM {events}")).replace("(visits,", &format!("({events},"));
        let columns = match id {
            "tens" | "mended" => "shop, window_start, window_end, visits, total",
            "large" => "shop, at, amount",
            "steps" => "shop, at, amount, step",
            _ => "shop, window_start, window_end, visits",
        };
        let batch = format!("({sql})");
        for (more, less) in [(&table, &batch), (&batch, &table)] {
            let differing = folder
                .lines(&format!("SELECT {columns} FROM {more} EXCEPT ALL SELECT {columns} FROM {less} LIMIT 5"))?;
            ensure!(differing.is_empty(), "only in {more}: {differing:#?}\nthe job said\n{}", folder.log());
        }
        let marked = folder.count(&format!("SELECT count(*) AS n FROM {id} WHERE _backfilled_at IS NOT NULL"))?;
        let live = folder.count(&format!("SELECT count(*) AS n FROM {id} WHERE _backfilled_at IS NULL"))?;
        ensure!(marked > 0, "`{id}` has no rows of the past");
        has_live += usize::from(live > 0);
    }
    ensure!(has_live >= live_tables, "only {has_live} rules have gone on with the stream");
    ensure!(folder.count("SELECT count(*) AS n FROM visits WHERE _lateness_ms > 60000")? > 3, "nothing was late");
    ensure!(folder.count("SELECT count(*) AS n FROM rule_errors")? == 0, "a rule failed");
    Ok(())
}

/// The alerts are those of the windows in order; of the past only those are published that were open at its end.
fn alerts_are_those_of_all_events(folder: &JobFolder, broker: &TestBroker, topic: &str) -> Result<()> {
    let windows = BUSY.replace("(visits,", "((SELECT * FROM visits WHERE _lateness_ms <= 60000),");
    let expected = folder.lines(&format!(
        "SELECT shop, window_end, firing FROM (SELECT shop, window_end, firing, lag(firing) OVER (PARTITION BY shop ORDER BY \
         window_end) AS was FROM ({windows})) WHERE firing <> coalesce(was, false) ORDER BY shop, window_end"
    ))?;
    let told = folder.lines(
        "SELECT entity_id AS shop, event_ts AS window_end, status <> 'resolved' AS firing FROM alerts WHERE rule_id = 'busy' \
         ORDER BY 1, 2",
    )?;
    assert_eq!(told, expected, "alerts of all windows");
    let ids = |sql: &str| -> Result<BTreeSet<String>> {
        folder.query(sql)?.iter().map(|row| text(row, "alert_id")).collect()
    };
    let past = ids("SELECT alert_id FROM alerts WHERE backfilled")?;
    let due = ids(
        "SELECT alert_id FROM (SELECT alert_id, status, backfilled, row_number() OVER (PARTITION BY fingerprint, \
         backfilled ORDER BY revision DESC) AS n FROM alerts) WHERE NOT backfilled OR (n = 1 AND status <> 'resolved')",
    )?;
    let mut published = BTreeSet::new();
    for (_, payload) in committed_messages(broker, topic)? {
        let alert: Value = serde_json::from_slice(&payload)?;
        let id = text(&alert, "alert_id")?;
        ensure!(alert["backfilled"] == Value::Bool(past.contains(&id)), "{alert}");
        ensure!(published.insert(id.clone()), "published twice: {id}");
    }
    assert_eq!(published, due, "published alerts");
    ensure!(past.difference(&published).count() > 10, "next to nothing of the past was left untold: {}", past.len());
    ensure!(past.intersection(&published).count() > 0, "no alert was open at the end of the past");
    Ok(())
}

#[test]
fn rules_that_are_new_after_a_restart_have_their_past() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "backfill-restart";
    let folder = job_over(broker, topic)?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    produce(&mut producer, topic, 0..40)?;
    let mut running = folder.start(&["run"])?;
    reaches(&folder, "known", 6)?;
    let status = running.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());

    add_late_comers(&folder)?;
    let checked = folder.answer(&["check"])?;
    ensure!(checked.contains("tens is given 30 days of the archive"), "{checked}");
    let explained = folder.answer(&["explain", "steps"])?;
    ensure!(explained.contains("backfill   30 days of the archive"), "{explained}");
    let mut running = folder.start(&["run"])?;
    wait_until(MOMENT_LIMIT, || Ok((folder.log().matches("has its past and joins").count() == 6).then_some(())))
        .with_context(|| format!("six rules join; the job said\n{}", folder.log()))?;
    produce(&mut producer, topic, 40..60)?;
    reaches(&folder, "tens", 9)?;
    let status = running.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
    produce(&mut producer, topic, 60..70)?;
    folder.run_until_end(RUN_LIMIT)?;

    results_are_those_of_all_events(&folder, LATE_COMERS.len() - 1)?;
    alerts_are_those_of_all_events(&folder, broker, &format!("{topic}-alerts"))?;
    ensure!(folder.log().matches("has its past and joins").count() == 6, "a known rule was given its past again");
    folder.answer(&["archive", "verify"]).map(drop)
}

#[test]
fn rules_that_are_applied_to_a_running_job_have_their_past_through_kills() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "backfill-apply";
    let folder = job_over(broker, topic)?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    produce(&mut producer, topic, 0..40)?;
    let mut running = folder.start(&["run"])?;
    reaches(&folder, "known", 6)?;
    add_late_comers(&folder)?;
    let told = folder.answer(&["apply"])?;
    ensure!(told.contains("6 added"), "{told}");
    produce(&mut producer, topic, 40..50)?;
    // At once, whatever it is doing; then in the middle of joining.
    running.kill9()?;
    let mut running = folder.start(&["run"])?;
    wait_until(MOMENT_LIMIT, || Ok(folder.log().contains("has its past and joins").then_some(())))
        .with_context(|| format!("a rule joins; the job said\n{}", folder.log()))?;
    running.kill9()?;
    produce(&mut producer, topic, 50..60)?;
    let mut running = folder.start(&["run"])?;
    reaches(&folder, "tens", 9)?;
    running.kill9()?;
    produce(&mut producer, topic, 60..70)?;
    folder.run_until_end(RUN_LIMIT)?;

    results_are_those_of_all_events(&folder, LATE_COMERS.len() - 1)?;
    alerts_are_those_of_all_events(&folder, broker, &format!("{topic}-alerts"))?;
    folder.answer(&["archive", "verify"]).map(drop)
}

/// How often a rule has joined.
fn joined(folder: &JobFolder) -> usize {
    folder.log().matches("has its past and joins").count()
}

#[test]
fn rules_that_are_new_to_several_slots_have_their_past_through_kills() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "backfill-slots";
    let folder = job_with(broker, topic, "slots = 3\ntick = \"100 ms\"")?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    produce(&mut producer, topic, 0..40)?;
    let mut first = folder.start(&["run"])?;
    let mut second = folder.start(&["run"])?;
    reaches(&folder, "known", 6)?;
    for running in [&mut second, &mut first] {
        let status = running.terminate(MOMENT_LIMIT)?;
        ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
    }
    add_late_comers(&folder)?;
    let mut first = folder.start(&["run"])?;
    let mut second = folder.start(&["run"])?;
    produce(&mut producer, topic, 40..50)?;
    // In the middle of joining, each once.
    wait_until(MOMENT_LIMIT, || Ok((joined(&folder) >= 1).then_some(())))
        .with_context(|| format!("a rule joins; the job said\n{}", folder.log()))?;
    second.kill9()?;
    let before = joined(&folder);
    wait_until(MOMENT_LIMIT, || Ok((joined(&folder) >= (before + 2).min(6)).then_some(())))
        .with_context(|| format!("other rules join; the job said\n{}", folder.log()))?;
    first.kill9()?;
    produce(&mut producer, topic, 50..60)?;
    let mut first = folder.start(&["run"])?;
    let mut second = folder.start(&["run"])?;
    for (id, ..) in LATE_COMERS.iter().filter(|(id, ..)| ["tens", "stays"].contains(id)) {
        reaches(&folder, id, 9)?;
    }
    second.kill9()?;
    let status = first.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "the job ended with {status}:\n{}", first.log_tail());
    produce(&mut producer, topic, 60..70)?;
    folder.run_until_end(RUN_LIMIT)?;

    ensure!(joined(&folder) >= 6, "six rules join:\n{}", folder.log());
    // Kills may hold up one of them until all is past.
    results_are_those_of_all_events(&folder, 1)?;
    alerts_are_those_of_all_events(&folder, broker, &format!("{topic}-alerts"))?;
    folder.answer(&["archive", "verify"]).map(drop)
}

#[test]
fn a_rule_that_comes_when_all_files_are_read_has_their_past_and_no_more_than_is_asked() -> Result<()> {
    let folder = JobFolder::new("backfill-files")?;
    folder.write("visits.avsc", VISITS)?;
    let visits = |days: Range<u32>| -> String {
        let line = |day| format!("{{\"shop\":\"a\",\"at\":\"2026-03-{day:02}T08:00:00Z\",\"amount\":\"1.00\"}}\n");
        days.map(line).collect()
    };
    folder.write("in/1.ndjson", &visits(1..21))?;
    let config = "job = \"b\"\n[streams.visits]\nschema = \"visits.avsc\"\nfiles = \"in/*\"\n[rules]\npaths = [\"sql\"]\n\
        [archive]\nurl = \"archive\"\n";
    folder.write("wattline.toml", config)?;
    folder.write("sql/known.sql", &rule("known", "kind = \"table\"", LARGE))?;
    folder.run_until_end(RUN_LIMIT)?;

    // Rules of one text are given their past together.
    let other_text = WINDOWS.replace("count(*) AS visits", "count(*) AS guests");
    folder.write("sql/week.sql", &rule("week", "kind = \"table\"\nbackfill = \"1 week\"", &other_text))?;
    folder.write("sql/year.sql", &rule("year", "kind = \"table\"\nbackfill = \"365 days\"", WINDOWS))?;
    folder.write("sql/plain.sql", &rule("plain", "kind = \"table\"", WINDOWS))?;
    folder.run_until_end(RUN_LIMIT)?;
    let days = |table: &str| folder.count(&format!("SELECT count(*) AS n FROM {table}"));
    assert_eq!((days("week")?, days("year")?, days("plain")?), (8, 20, 0));

    // What comes now, all have once; and nothing of the past comes again.
    folder.write("in/2.ndjson", &visits(21..24))?;
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!((days("week")?, days("year")?, days("plain")?), (11, 23, 3));

    // Two rules that follow the same keys together cannot have two pasts.
    let following = "SELECT shop, at, lag(amount) OVER (PARTITION BY shop ORDER BY at) AS before FROM visits";
    folder.write("sql/one.sql", &rule("one", "kind = \"table\"\nbackfill = \"1 week\"", following))?;
    folder.write("sql/two.sql", &rule("two", "kind = \"table\"", following))?;
    let refused = folder.wattline(&["check"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("`two` the same `backfill`"), "{refused:?}");
    folder.write("sql/two.sql", &rule("two", "kind = \"table\"\nbackfill = \"1 week\"", following))?;
    ensure!(folder.wattline(&["check"])?.status.success(), "both have the same past");

    // Without raw events there is no past.
    folder.write("wattline.toml", &config.replace("files = \"in/*\"\n", "files = \"in/*\"\nkeep = false\n"))?;
    let refused = folder.wattline(&["check"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("WL-1145"), "{refused:?}");
    Ok(())
}
