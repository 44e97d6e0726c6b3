//! Other rules for a job of several slots: two processes run from one folder, a third from another, as on two machines.
//!
//! The rule that is changed gives nothing from the first process that has the change to the last, and no window twice; those that
//! stay give what they would have given.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wattline_connect::kafka::admin::Producer;

use super::job::{JobFolder, VISITS};
use super::reload::{ALERT, SHOPS, TABLE, produce, rule};
use crate::child_process::{ChildProcess, wait_until};
use crate::kafka_broker::TestBroker;

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const TOPIC: &str = "slots-apply-visits";

/// A machine of the job, with files of its own.
fn machine(purpose: &str, broker: &TestBroker, archive: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(purpose)?;
    folder.write("visits.avsc", VISITS)?;
    folder.write("sql/stays.sql", &rule("stays", TABLE, "count(*) AS visits, sum(amount) AS total"))?;
    folder.write("sql/warns.sql", &rule("warns", ALERT, "count(*) AS measured, count(*) > 1 AS firing"))?;
    folder.write("sql/other.sql", &rule("other", TABLE, "count(*) AS visits"))?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"slots-apply\"\n[kafka]\nbootstrap_servers = \"{}\"\n[kafka.properties]\n\"session.timeout.ms\" = 6000\n\
             [run]\nslots = 3\ntick = \"100 ms\"\ncheckpoint = \"500 ms\"\nfile_age = \"500 ms\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{TOPIC}\"\nidle_timeout = \"1 second\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"{archive}\"\n",
            broker.bootstrap()
        ),
    )?;
    Ok(folder)
}

/// Writes the changed rule.
fn change(folder: &JobFolder) -> Result<()> {
    folder.write("sql/other.sql", &rule("other", TABLE, "count(*) + 100 AS visits"))
}

/// `apply` ends with that status and says all of these.
fn apply(folder: &JobFolder, args: &[&str], status: i32, says: &[&str]) -> Result<()> {
    let all: Vec<&str> = ["apply"].into_iter().chain(args.iter().copied()).collect();
    let output = folder.wattline(&all)?;
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(
        output.status.code() == Some(status) && says.iter().all(|part| said.contains(part)),
        "`{all:?}` was to end with {status} and say {says:?}; it ended with {} and said\n{said}\nthe job said\n{}",
        output.status,
        folder.log()
    );
    Ok(())
}

fn reach(folder: &JobFolder, table: &str, from: &str, rows: u64) -> Result<()> {
    let sql = format!("SELECT count(*) AS n FROM {table} WHERE window_start >= '2026-03-02T{from}:00Z'");
    // The table is there from the first start of its rule on.
    let found = || folder.count(&sql).unwrap_or(0);
    wait_until(MOMENT_LIMIT, || Ok((found() >= rows).then_some(())))
        .with_context(|| format!("{} rows of `{table}`; the job said\n{}", found(), folder.log()))
}

/// Each process runs a slot.
fn start(here: &JobFolder, there: &JobFolder) -> Result<[ChildProcess; 3]> {
    let running = [here.start(&["run"])?, here.start(&["run"])?, there.start(&["run"])?];
    let given = |folder: &JobFolder| folder.log().matches("gives this process slots").count();
    wait_until(MOMENT_LIMIT, || Ok((given(here) >= 2 && given(there) >= 1).then_some(())))
        .with_context(|| format!("the processes said\n{}\nand\n{}", here.log(), there.log()))?;
    Ok(running)
}

fn all_run_on(running: &mut [ChildProcess]) -> Result<()> {
    for process in running {
        ensure!(process.try_wait()?.is_none(), "a process ended:\n{}", process.log_tail());
    }
    Ok(())
}

/// The rules that stayed have all of it, the changed one each window once, before and after the change.
fn each_rule_said_what_it_must(folder: &JobFolder) -> Result<()> {
    let differing = "SELECT count(*) AS n FROM (SELECT shop, window_start, visits, total FROM stays EXCEPT ALL SELECT shop, \
        window_start, count(*), sum(amount) FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start)";
    assert_eq!(folder.count(differing)?, 0, "the rule that stayed");
    assert_eq!(folder.count("SELECT count(*) AS n FROM stays")?, u64::from(SHOPS) * 30);
    assert_eq!(folder.count("SELECT count(*) AS n FROM visits")?, u64::from(SHOPS) * 60);
    let alerts = folder.lines("SELECT status, count(*) AS n FROM alerts GROUP BY 1")?;
    assert_eq!(alerts, [r#"{"n":12,"status":"open"}"#], "each shop's alert opened once and stayed open");
    let twice = "SELECT count(*) AS n FROM (SELECT shop, window_start FROM other GROUP BY 1, 2 HAVING count(*) > 1)";
    assert_eq!(folder.count(twice)?, 0, "windows of the changed rule come twice");
    // The window in which the change fell is of neither text.
    let of_each = folder.lines("SELECT visits, count(*) AS n FROM other GROUP BY 1 ORDER BY 1")?;
    assert_eq!(of_each, [r#"{"n":84,"visits":2}"#, r#"{"n":264,"visits":102}"#]);
    Ok(())
}

#[test]
fn slots_of_two_machines_take_other_rules_by_apply() -> Result<()> {
    let broker = TestBroker::shared();
    broker.create_topic(TOPIC, 3, &[])?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let here = machine("slots-apply", broker, "archive")?;
    let there = machine("slots-apply-there", broker, &here.archive().display().to_string())?;
    apply(&here, &[], 2, &["no process of job `slots-apply`"])?;

    produce(&mut producer, TOPIC, 0..8)?;
    let mut running = start(&here, &there)?;
    reach(&here, "stays", "00:00", u64::from(SHOPS) * 7)?;
    reach(&here, "other", "00:00", u64::from(SHOPS) * 7)?;

    // A mistake asks nobody; what only the processes can know has all their slots go on as before.
    here.write("sql/wrong.sql", &rule("wrong", TABLE, "sum(amont) AS total"))?;
    apply(&here, &[], 1, &["amont"])?;
    std::fs::remove_file(here.path().join("sql/wrong.sql"))?;
    here.write("sql/other.sql", &rule("other", TABLE, "'many' AS visits"))?;
    apply(&here, &[], 1, &["goes on with the rules that it had", "cannot begin with them", "visits"])?;
    all_run_on(&mut running)?;

    change(&here)?;
    apply(&here, &["--here"], 0, &["1 changed (other)", "all slots of the processes of this folder run these rules"])?;
    // The files there are as they were: its slot begins again, and the others run what is no more in these files.
    let wait = ["--wait", "12 seconds"];
    apply(&there, &wait, 1, &["no rule computes anything else than before", "other rules in slot"])?;
    change(&there)?;
    apply(&there, &[], 0, &["1 changed (other)", "all 3 slots of job `slots-apply` run these rules"])?;
    all_run_on(&mut running)?;

    produce(&mut producer, TOPIC, 8..30)?;
    reach(&here, "stays", "02:00", u64::from(SHOPS) * 17)?;
    for process in &mut running {
        let status = process.terminate(MOMENT_LIMIT)?;
        ensure!(status.success(), "a process ended with {status}:\n{}", process.log_tail());
    }
    here.run_until_end(MOMENT_LIMIT)?;
    each_rule_said_what_it_must(&here)?;
    here.answer(&["archive", "verify"]).map(drop)
}
