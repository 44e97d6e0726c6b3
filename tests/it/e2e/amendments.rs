//! Dead letters that are redeemed and periods that are restated: once, wherever the command dies, and beside a job that runs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::{JobFolder, VISITS};
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;
use crate::scratch::Scratch;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
const SHOPS: u32 = 6;

const HOURS: &str = "SELECT shop, window_start, window_end, count(*) AS visits, sum(amount) AS total, \
                     avg(CAST(amount AS DOUBLE)) AS mean
FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end";

const BUSY: &str = "/*---
id = \"busy\"
kind = \"alert\"
entity = \"shop\"
delay = \"1 minute\"
---*/
SELECT shop, window_start, window_end, count(*) > 2 AS firing, count(*) AS measured
FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end
";

/// Six good ones, two of them with an amount that the schema does not hold, and three that stay refused.
const INPUT: &str = r#"{"shop":"north","at":"2026-03-02T08:00:00Z","amount":"1.50"}
{"shop":"north","at":"2026-03-02T08:10:00Z","amount":"2.505"}
{"shop":"south","at":"2026-03-02T08:20:00Z","amount":"7.00"}
not a visit
{"shop":"north","at":"2026-03-02T11:00:00Z","amount":"1.00"}
{"shop":"south","at":"2026-03-02T08:30:00Z","amount":"much"}
{"shop":"south","at":"2026-03-02T09:05:00Z","amount":"4.005"}
{"shop":"north","at":"2999-03-02T09:05:00Z","amount":"1.00"}
{"shop":"north","at":"2026-03-02T08:40:00Z","amount":"5.00"}
"#;

/// A job with one rule that late events correct, one that they do not, and one that gives alerts.
fn configure(folder: &JobFolder, source: &str, more: &str) -> Result<()> {
    folder.write("visits.avsc", VISITS)?;
    let rule = |id: &str, late: &str| {
        format!("/*---\nid = \"{id}\"\nkind = \"table\"\nkey = \"shop\"\ndelay = \"1 minute\"\n{late}---*/\n{HOURS}\n")
    };
    folder.write("sql/hourly.sql", &rule("hourly", "late = \"update\"\n"))?;
    folder.write("sql/plain.sql", &rule("plain", ""))?;
    folder.write("sql/busy.sql", BUSY)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"amend\"\n{more}\n[rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\n{source}\n"
        ),
    )
}

const FILES: &str = "files = \"in/*\"";
/// The fix: amounts are rounded.
const ROUNDED: &str = "mapping = { round = [\"amount\"] }";

/// A job over files that came to its end, with a configuration that is right since.
fn ended_job(purpose: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(purpose)?;
    folder.write("in/a.ndjson", INPUT)?;
    configure(&folder, FILES, "")?;
    folder.run_until_end(RUN_LIMIT)?;
    configure(&folder, &format!("{FILES}\n{ROUNDED}"), "")?;
    Ok(folder)
}

const REDEEM: [&str; 3] = ["replay", "--dead-letters", "--by=tester"];
const RESTATE: [&str; 9] = [
    "replay",
    "hourly",
    "plain",
    "--write",
    "--from=2026-03-02",
    "--to=2026-03-03",
    "--reason=amounts are rounded",
    "--add-columns",
    "--by=tester",
];

fn in_archive<'a>(args: &[&'a str], archive: &'a Path) -> Result<Vec<&'a str>> {
    let archive = archive.to_str().context("a path in UTF-8")?;
    Ok([args, &["--archive", archive]].concat())
}

/// Runs a command in a copy of the archive until it dies at a moment, checks that the copy is whole, and runs it again.
fn die_and_run_again(folder: &JobFolder, args: &[&str], moment: &str) -> Result<Scratch> {
    let copy = Scratch::copy_of("amended", &folder.archive())?;
    let args = in_archive(args, copy.path())?;
    let died = folder.wattline(&[&args[..], &["--crash-at", moment]].concat())?;
    let said = String::from_utf8_lossy(&died.stderr);
    ensure!(died.status.code().is_none(), "it ended with {} and not at the moment:\n{said}", died.status);
    let verify = in_archive(&["archive", "verify"], copy.path())?;
    folder.answer(&verify).context("after the death")?;
    folder.answer(&args).context("the second run")?;
    folder.answer(&verify).context("after the second run")?;
    Ok(copy)
}

fn lines_of(folder: &JobFolder, archive: &Path, sql: &str) -> Result<Vec<String>> {
    let text = folder.answer(&in_archive(&["query", "--format", "csv", sql], archive)?)?;
    Ok(text.lines().skip(1).map(str::to_owned).collect())
}

fn told(folder: &JobFolder, args: &[&str]) -> Result<Value> {
    let text = folder.answer(&[args, &["--format", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("`{text}` is no JSON"))
}

/// Rows, different events among them, letters, and rows of the table of redemptions.
const COUNTS: &str = "SELECT 'a', count(*) FROM visits UNION ALL SELECT 'b', count(DISTINCT _offset) FROM visits \
                      UNION ALL SELECT 'c', count(*) FROM dead_letters UNION ALL SELECT 'd', count(*) FROM redemptions \
                      ORDER BY 1";

#[test]
fn dead_letters_are_redeemed_once_wherever_the_command_dies() -> Result<()> {
    let folder = ended_job("redeem")?;
    let dry = told(&folder, &[&REDEEM[..], &["--dry-run"]].concat())?;
    assert_eq!(dry["streams"]["visits"]["events"], 2, "{dry}");
    assert_eq!((&dry["amendment"], folder.count("SELECT count(*) AS n FROM dead_letters")?), (&Value::Null, 5));
    for moment in [
        "amend-files.after#2",
        "amendment.before",
        "amendment.after",
        "amend-rows.after#1",
        "amend-rows.after#2",
        "amend-letters.before",
        "amend-letters.after",
    ] {
        let copy = die_and_run_again(&folder, &REDEEM, moment).with_context(|| moment.to_owned())?;
        assert_eq!(lines_of(&folder, copy.path(), COUNTS)?, ["a,6", "b,6", "c,3", "d,1"], "{moment}");
    }

    let narrow = told(&folder, &[&REDEEM[..], &["--reason=not_json", "--stream=visits"]].concat())?;
    assert_eq!(narrow["streams"]["visits"]["left"], json!({"not_json": 1}), "{narrow}");
    let done = told(&folder, &REDEEM)?;
    let of_visits = &done["streams"]["visits"];
    assert_eq!((&of_visits["events"], &of_visits["letters_out"]), (&json!(2), &json!(2)), "{done}");
    assert_eq!((&of_visits["left"]["not_json"], &of_visits["left"]["too_far_ahead"]), (&json!(1), &json!(1)), "{done}");
    let identities = "SELECT _topic LIKE '%in/a.ndjson' AS of_file, _partition, _offset, _index, amount, _lateness_ms FROM visits \
                      WHERE _lateness_ms > 1000000000000 ORDER BY _offset";
    let late = i64::MAX;
    assert_eq!(
        lines_of(&folder, &folder.archive(), identities)?,
        [format!("true,0,1,0,2.51,{late}"), format!("true,0,6,0,4.01,{late}")]
    );
    // What is out stays: neither rule has seen them.
    assert_eq!(folder.count("SELECT sum(visits) AS n FROM plain")?, 3);
    assert_eq!(folder.count("SELECT sum(visits) AS n FROM hourly_current")?, 4);
    let again = told(&folder, &REDEEM)?;
    assert_eq!((&again["amendment"], &again["streams"]["visits"]["events"]), (&Value::Null, &json!(0)), "{again}");
    let audit = "SELECT redeemed_by, stream, asked, events, letters_out, letters_left FROM redemptions";
    assert_eq!(lines_of(&folder, &folder.archive(), audit)?, ["tester,visits,all,2,2,3"]);
    folder.answer(&["archive", "verify"])?;
    Ok(())
}

#[test]
fn amendments_come_back_with_a_backup_and_an_unfinished_one_is_finished() -> Result<()> {
    let folder = ended_job("redeem-backup")?;
    let died = folder.wattline(&[&REDEEM[..], &["--crash-at", "amend-rows.after#1"]].concat())?;
    ensure!(died.status.code().is_none(), "it ended with {} and not at the moment", died.status);
    let backups = folder.path().join("backups").display().to_string();
    folder.answer(&["archive", "backup", &backups])?;
    // What the archive goes on with is not in the backup.
    folder.answer(&REDEEM)?;
    folder.answer(&RESTATE)?;
    folder.answer(&["archive", "backup", &backups])?;
    let restored = |at: &str| -> Result<Scratch> {
        let scratch = Scratch::new("redeem-restored")?;
        folder.answer(&in_archive(&["archive", "restore", &backups, "--at", at], scratch.path())?)?;
        folder.answer(&in_archive(&["archive", "verify"], scratch.path())?)?;
        Ok(scratch)
    };
    let first = restored("1")?;
    assert_eq!(lines_of(&folder, first.path(), "SELECT count(*) FROM dead_letters")?, ["5"]);
    folder.answer(&in_archive(&REDEEM, first.path())?)?;
    assert_eq!(lines_of(&folder, first.path(), COUNTS)?, ["a,6", "b,6", "c,3", "d,1"]);
    // The numbers go on where those of the backup end, and each table takes them.
    folder.answer(&in_archive(&RESTATE, first.path())?)?;
    let second = restored("2")?;
    for rule in ["hourly_current", "plain_current"] {
        let expected = lines_of(&folder, &folder.archive(), &hours(rule))?;
        assert_eq!(lines_of(&folder, first.path(), &hours(rule))?, expected, "{rule}");
        assert_eq!(lines_of(&folder, second.path(), &hours(rule))?, expected, "{rule}");
    }
    folder.answer(&in_archive(&["archive", "verify"], first.path())?)?;
    Ok(())
}

#[test]
fn a_record_of_a_csv_file_is_decoded_by_the_header_of_its_file() -> Result<()> {
    let folder = JobFolder::new("redeem-csv")?;
    let input = "amount,shop,at\n1.50,north,2026-03-02T08:00:00Z\n2.505,north,2026-03-02T08:10:00Z\n";
    folder.write("in/a.csv", input)?;
    configure(&folder, FILES, "")?;
    folder.run_until_end(RUN_LIMIT)?;
    configure(&folder, &format!("{FILES}\n{ROUNDED}"), "")?;
    std::fs::rename(folder.path().join("in/a.csv"), folder.path().join("a.csv"))?;
    let without = told(&folder, &REDEEM)?;
    let left = without["streams"]["visits"]["left"].to_string();
    ensure!(without["amendment"].is_null() && left.contains("the header of"), "{without}");
    std::fs::rename(folder.path().join("a.csv"), folder.path().join("in/a.csv"))?;
    assert_eq!(told(&folder, &REDEEM)?["streams"]["visits"]["events"], 1);
    let rows = "SELECT shop, amount, _offset FROM visits ORDER BY _offset";
    assert_eq!(lines_of(&folder, &folder.archive(), rows)?, ["north,1.50,0", "north,2.51,1"]);
    folder.answer(&["archive", "verify"])?;
    Ok(())
}

/// The hours as they hold now, of the rules and of all events.
fn hours(of: &str) -> String {
    format!("SELECT shop, window_start, visits, total, round(mean, 6) FROM {of} ORDER BY shop, window_start")
}

#[test]
fn a_period_is_restated_once_wherever_the_command_dies() -> Result<()> {
    let folder = ended_job("restate")?;
    refusals_name_the_way(&folder)?;
    folder.answer(&REDEEM)?;
    let expected = lines_of(&folder, &folder.archive(), &hours(&format!("({HOURS})")))?;
    ensure!(expected.len() == 4, "{expected:?}");
    let restated =
        "SELECT rule_id, restated_by, reason, rows_changed, rows_withdrawn, rows_added FROM restatements ORDER BY 1";
    let audit = ["hourly,tester,amounts are rounded,1,0,1", "plain,tester,amounts are rounded,1,0,1"];
    for moment in
        ["amend-files.after#2", "amendment.after#1", "amend-rows.after#1", "amendment.before#2", "amend-rows.after#4"]
    {
        let copy = die_and_run_again(&folder, &RESTATE, moment).with_context(|| moment.to_owned())?;
        for rule in ["hourly_current", "plain_current"] {
            assert_eq!(lines_of(&folder, copy.path(), &hours(rule))?, expected, "{moment}: {rule}");
        }
        assert_eq!(lines_of(&folder, copy.path(), restated)?, audit, "{moment}");
    }

    let dry = told(&folder, &[&RESTATE[..], &["--dry-run"]].concat())?;
    assert_eq!((&dry[0]["changed"], &dry[0]["added"], &dry[1]["alike"]), (&json!(1), &json!(1), &json!(2)), "{dry}");
    let table = "SELECT count(*) AS n FROM hourly WHERE _change = 'retract' AND _revision > 2";
    assert_eq!(folder.count(table)?, 0);
    let said = folder.answer(&RESTATE)?;
    ensure!(said.contains("hourly, 2026-03-02") && said.contains("1 changed, 0 withdrawn, 1 added"), "{said}");
    assert_eq!(folder.count(table)?, 1, "the hour that the job had corrected before has revision 3 now");
    let again = told(&folder, &RESTATE)?;
    for rule in again.as_array().context("a list")? {
        assert_eq!(
            (&rule["amendment"], &rule["changed"], &rule["alike"]),
            (&Value::Null, &json!(0), &json!(4)),
            "{rule}"
        );
    }
    // Another run of the job finds its tables with columns that it does not write, and goes on.
    folder.write("in/b.ndjson", "{\"shop\":\"north\",\"at\":\"2026-03-04T08:00:00Z\",\"amount\":\"1.505\"}\n")?;
    folder.run_until_end(RUN_LIMIT)?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM plain_current")?, 5);
    assert_eq!(folder.count("SELECT count(*) AS n FROM plain WHERE _change IS NULL")?, 4);
    folder.answer(&["archive", "verify"])?;
    Ok(())
}

fn is_refused(folder: &JobFolder, args: &[&str], words: &str) -> Result<()> {
    let output = folder.wattline(args)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && said.contains(words), "{args:?} ended with {}:\n{said}", output.status);
    Ok(())
}

fn refusals_name_the_way(folder: &JobFolder) -> Result<()> {
    let period = ["--write", "--from=2026-03-02", "--to=2026-03-03"];
    for (args, words) in [
        (vec!["busy", "--reason=x"], "an alert rule"),
        (vec!["plain"], "--reason"),
        (vec!["plain", "--reason=x"], "--add-columns"),
        (vec!["plian", "--reason=x"], "plain"),
    ] {
        is_refused(folder, &[&["replay"][..], &args, &period].concat(), words)?;
    }
    assert_eq!(folder.count("SELECT count(*) AS n FROM plain")?, 3);
    Ok(())
}

fn visit(shop: u32, hour: u32, minute: u32, amount: &str) -> String {
    format!("{{\"shop\":\"s{shop}\",\"at\":\"2026-03-02T{hour:02}:{minute:02}:00Z\",\"amount\":\"{amount}\"}}")
}

#[test]
fn beside_a_running_job_both_are_done_and_what_it_corrects_is_refused() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "amended-visits";
    broker.create_topic(topic, 2, &[])?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let mut produce = |hour: u32, minute: u32, amount: &str| -> Result<()> {
        for shop in 0..SHOPS {
            let (key, payload) = (format!("s{shop}"), visit(shop, hour, minute, amount));
            let (key, payload) = (key.as_bytes(), payload.as_bytes());
            producer.send(&KeyedMessage { topic, key, payload, timestamp_ms: None })?;
        }
        Ok(producer.flush(FLUSH_LIMIT)?)
    };
    let folder = JobFolder::new("amend-live")?;
    let kafka = format!(
        "[kafka]\nbootstrap_servers = \"{}\"\n[run]\ntick = \"100 ms\"\ncheckpoint = \"300 ms\"\ncorrection = \"300 ms\"\nfile_age = \"300 ms\"",
        broker.bootstrap()
    );
    let source = format!("topic = \"{topic}\"\nidle_timeout = \"300 ms\"");
    configure(&folder, &source, &kafka)?;
    produce(1, 0, "1.00")?;
    produce(1, 10, "2.505")?;
    produce(5, 0, "1.00")?;
    let running = folder.start(&["run"])?;
    let reaches = |sql: &str, wanted: u64| {
        let reached = || Ok((folder.count(sql).unwrap_or_default() >= wanted).then_some(()));
        wait_until(MOMENT_LIMIT, reached)
            .with_context(|| format!("{wanted} by `{sql}`; the job said\n{}", running.log_tail()))
    };
    let shops = u64::from(SHOPS);
    reaches("SELECT count(*) AS n FROM plain", shops)?;
    reaches("SELECT count(*) AS n FROM dead_letters", shops)?;
    configure(&folder, &format!("{source}\n{ROUNDED}"), &kafka)?;
    wait_until(MOMENT_LIMIT, || {
        folder.answer(&REDEEM)?;
        folder.answer(&["archive", "verify"])?;
        Ok((folder.count("SELECT count(*) AS n FROM visits WHERE amount = 2.51")? >= shops).then_some(()))
    })?;

    // A correction of the hour in which they lie does not take them in, and does not take them for what is out.
    produce(1, 20, "3.00")?;
    reaches("SELECT sum(visits) AS n FROM hourly_current", 2 * shops)?;
    let of_job = "SELECT count(*) AS n FROM hourly_current WHERE visits = 2 AND total = 4";
    assert_eq!(folder.count(of_job)?, shops);
    let period =
        ["--write", "--from=2026-03-02T01:30:00Z", "--to=2026-03-02T02:00:00Z", "--reason=rounded", "--add-columns"];
    is_refused(&folder, &[&["replay", "hourly"][..], &period].concat(), "by late events")?;
    let early = ["replay", "plain", "--write", "--from=2026-03-02", "--to=2026-03-03", "--reason=x"];
    is_refused(&folder, &early, "still gives rows")?;

    folder.answer(&[&["replay", "plain"][..], &period].concat())?;
    let hour = "SELECT count(*) AS n FROM plain_current WHERE visits = 3 AND total = 6.51";
    assert_eq!(folder.count(hour)?, shops);
    // The job goes on with a table that has columns it does not write, and a log that others have moved on.
    produce(9, 0, "1.00")?;
    reaches("SELECT count(*) AS n FROM plain_current", 2 * shops)?;
    assert_eq!(folder.count(hour)?, shops);
    folder.answer(&["archive", "verify"])?;
    drop(running);
    folder.run_until_end(RUN_LIMIT)?;
    folder.answer(&["archive", "verify"])?;
    assert_eq!(folder.count("SELECT count(*) AS n FROM visits")?, 5 * shops);
    assert_eq!(folder.count(of_job)?, shops);
    Ok(())
}
