//! `archive verify` finds nothing in an archive that is whole, and whatever is damaged by its name; `archive vacuum` takes only
//! what nothing needs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::JobFolder;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_IS_NO: i32 = 1;
const CHECKS_BESIDE_A_JOB: usize = 12;

const SCHEMA: &str = r#"{"type":"record","name":"visits","event_time":"at","key":["shop"],"fields":[
    {"name":"shop","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

const RULE: &str = "/*---
id = \"hourly\"
kind = \"table\"
---*/
SELECT shop, window_start, window_end, count(*) AS visits
FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end
";

const BUSY: &str = "/*---
id = \"busy\"
kind = \"alert\"
entity = \"shop\"
delay = \"1 second\"
---*/
SELECT shop, window_start, window_end, count(*) > 0 AS firing, count(*) AS measured
FROM TUMBLE(visits, at, INTERVAL '1 minute') GROUP BY shop, window_start, window_end
";

const SINCE_LAST: &str = "/*---
id = \"since_last\"
kind = \"table\"
delay = \"1 second\"
---*/
SELECT shop, at, lag(at) OVER (PARTITION BY shop ORDER BY at) AS last_at FROM visits
";

const CONFIG: &str = "job = \"verify\"
[streams.visits]
schema = \"visits.avsc\"
files = \"in/*\"
[rules]
paths = [\"sql\"]
[archive]
url = \"archive\"
";

fn visits(day: u32) -> String {
    let visit =
        |minute: u32| format!("{{\"shop\":\"s{}\",\"at\":\"2026-03-{day:02}T08:{minute:02}:00Z\"}}\n", minute % 3);
    (0..60).map(visit).collect()
}

/// A job that came to its end twice: two files of input, one of them with a line that is no visit.
fn job_that_ran_twice(purpose: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(purpose)?;
    folder.write("visits.avsc", SCHEMA)?;
    folder.write("sql/hourly.sql", RULE)?;
    folder.write("wattline.toml", CONFIG)?;
    folder.write("in/a.ndjson", &format!("{}not a visit\n{}", visits(2), visits(3)))?;
    folder.run_until_end(RUN_LIMIT)?;
    folder.write("in/b.ndjson", &visits(4))?;
    folder.run_until_end(RUN_LIMIT)?;
    Ok(folder)
}

fn paths(pattern: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        glob::glob(pattern.to_str().context("a path in UTF-8")?)?.collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

/// What the check says of an archive that is not whole.
fn told(folder: &JobFolder) -> Result<String> {
    let output = folder.wattline(&["archive", "verify"])?;
    let said = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(ANSWER_IS_NO), "ended with {}:\n{said}\n{errors}", output.status);
    ensure!(said.contains("problem: ") && said.contains("means: ") && said.contains("do: "), "{said}");
    Ok(said)
}

/// What the check says while a file is damaged, or gone. The file is mended afterwards.
fn told_while(folder: &JobFolder, path: &Path, damage: impl FnOnce(&[u8]) -> Option<&[u8]>) -> Result<String> {
    let whole = fs::read(path).with_context(|| format!("no `{}`", path.display()))?;
    match damage(&whole) {
        Some(damaged) => fs::write(path, damaged)?,
        None => fs::remove_file(path)?,
    }
    let said = told(folder);
    fs::write(path, &whole)?;
    said.with_context(|| format!("`{}` was damaged", path.display()))
}

fn expect(said: &str, words: &[&str]) -> Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(*word)).collect();
    ensure!(missing.is_empty(), "it does not say {missing:?}; it said\n{said}");
    Ok(())
}

#[test]
fn an_archive_is_proved_and_every_damage_is_named() -> Result<()> {
    let folder = job_that_ran_twice("verify")?;
    let said = folder.answer(&["archive", "verify"])?;
    expect(&said, &["verify/0", "visits", "hourly", "dead_letters", "all is well"])?;
    everything_adds_up(&folder)?;

    let files = folder.answer(&["archive", "files", "visits"])?;
    let file = Path::new(files.lines().next().context("a live file")?);
    let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
    let said = told_while(&folder, file, |_| None)?;
    expect(&said, &["table `visits`", name, "is not there"])?;
    let said = told_while(&folder, file, |whole| Some(&whole[..whole.len() - 9]))?;
    expect(&said, &["table `visits`", name, "bytes, the log says"])?;

    let job = folder.archive().join("_wattline/verify");
    let links = paths(&job.join("chains/0/*.json"))?;
    ensure!(links.len() >= 3, "an epoch, a seal and an epoch: {links:?}");
    let said = told_while(&folder, &links[1], |_| None)?;
    expect(&said, &["chain `verify/0`", "link 2 is missing"])?;
    let last = links.last().context("a link")?;
    let said = told_while(&folder, last, |whole| Some(&whole[..whole.len() / 2]))?;
    let name = last.file_name().and_then(|name| name.to_str()).context("a name")?;
    expect(&said, &["chain `verify/0`", name, "cannot be read"])?;

    let alerts = paths(&job.join("alert-state/0/*.json"))?;
    let alerts = alerts.last().context("the state of the alerts")?;
    let said = told_while(&folder, alerts, |whole| Some(&whole[..whole.len() - 1]))?;
    expect(&said, &["alert-state/0/", "is damaged"])?;
    let said = told_while(&folder, alerts, |_| None)?;
    expect(&said, &["alert-state/0/", "is not there"])?;

    rows_that_are_there_twice_are_told(&folder)?;
    expect(&folder.answer(&["archive", "verify"])?, &["all is well"])
}

/// Rows and dead letters have every line of the input.
fn everything_adds_up(folder: &JobFolder) -> Result<()> {
    let told: Value = serde_json::from_str(&folder.answer(&["archive", "verify", "--format", "json"])?)?;
    let list = |name: &str| told[name].as_array().cloned().with_context(|| format!("no `{name}` in {told}"));
    ensure!(list("problems")?.is_empty() && list("notes")?.is_empty(), "{told}");
    let mut lanes: Vec<[u64; 5]> = Vec::new();
    for lane in list("lanes")?.iter().filter(|lane| lane["table"] == "visits") {
        let numbers = ["rows", "dead_letters", "offsets", "last", "missing"].map(|name| lane[name].as_u64());
        lanes.push(numbers.map(Option::unwrap_or_default));
    }
    lanes.sort_unstable();
    assert_eq!(lanes, [[60, 0, 60, 59, 0], [120, 1, 121, 120, 0]], "{told}");
    let letters: Vec<_> = list("lanes")?.into_iter().filter(|lane| lane["table"] == "dead_letters").collect();
    ensure!(letters.len() == 1 && letters[0]["rows"] == 1, "{letters:?}");
    Ok(())
}

/// A commit that adds a copy of a file.
fn rows_that_are_there_twice_are_told(folder: &JobFolder) -> Result<()> {
    let table = folder.archive().join("visits");
    let log = table.join("_delta_log");
    let commits = paths(&log.join("*.json"))?;
    let mut add = None;
    for commit in &commits {
        for line in fs::read_to_string(commit)?.lines() {
            let line: Value = serde_json::from_str(line)?;
            add = add.or_else(|| line["add"].is_object().then_some(line));
        }
    }
    let mut add = add.context("no commit adds a file")?;
    let path = add["add"]["path"].as_str().context("a path")?.to_owned();
    let copy = path.replace("part-", "part-copy-");
    fs::copy(table.join(&path), table.join(&copy))?;
    add["add"]["path"] = copy.clone().into();
    let next = log.join(format!("{:020}.json", commits.len()));
    ensure!(!next.exists(), "the commits of the table are not numbered from 0: {commits:?}");
    fs::write(&next, format!("{add}\n"))?;
    let said = told(folder)?;
    fs::remove_file(next)?;
    fs::remove_file(table.join(copy))?;
    expect(&said, &["table `visits`", "rows that are there twice: 60, such as offset "])
}

/// Visits, a minute after the other, until told to stop or nobody listens any more.
fn produce_until(stop: &AtomicBool, bootstrap_servers: &str, topic: &str) -> Result<()> {
    let mut producer = Producer::connect(bootstrap_servers, &Default::default())?;
    for minute in 0..24 * 60 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let at = format!("2026-03-02T{:02}:{:02}:00Z", minute / 60, minute % 60);
        for shop in ["s0", "s1", "s2"] {
            let payload = format!("{{\"shop\":\"{shop}\",\"at\":\"{at}\"}}");
            producer.send(&KeyedMessage {
                topic,
                key: shop.as_bytes(),
                payload: payload.as_bytes(),
                timestamp_ms: None,
            })?;
        }
        producer.flush(FLUSH_LIMIT)?;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn beside_a_job_that_commits_all_the_time_all_is_well() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "verify-visits";
    broker.create_topic(topic, 2, &[])?;
    let folder = JobFolder::new("verify-live")?;
    folder.write("visits.avsc", SCHEMA)?;
    for (name, text) in [("hourly", RULE), ("busy", BUSY), ("since_last", SINCE_LAST)] {
        folder.write(&format!("sql/{name}.sql"), text)?;
    }
    let kafka = format!(
        "[kafka]\nbootstrap_servers = \"{}\"\n[run]\ntick = \"100 ms\"\ncheckpoint = \"200 ms\"\n[streams.visits]",
        broker.bootstrap()
    );
    let config = CONFIG.replace("[streams.visits]", &kafka);
    folder.write(
        "wattline.toml",
        &config.replace("files = \"in/*\"", &format!("topic = \"{topic}\"\nidle_timeout = \"300 ms\"")),
    )?;
    folder.answer(&["check"])?;

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce_until(&stop, &broker.bootstrap(), topic));
        let checked = check_beside_the_job(&folder);
        stop.store(true, Ordering::Relaxed);
        let produced = producing.join().map_err(|_panic| anyhow::anyhow!("the producer panicked"))?;
        checked.and(produced)
    })?;
    expect(&folder.answer(&["archive", "verify"])?, &["all is well"])
}

fn check_beside_the_job(folder: &JobFolder) -> Result<()> {
    let running = folder.start(&["run"])?;
    wait_until(MOMENT_LIMIT, || Ok((folder.manifests() > 20).then_some(()))).context("some links")?;
    let before = folder.manifests();
    for check in 0..CHECKS_BESIDE_A_JOB {
        let output = folder.wattline(&["archive", "verify"])?;
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "check {check} ended with {}:\n{said}\n{errors}", output.status);
    }
    ensure!(folder.manifests() > before, "the job committed nothing meanwhile:\n{}", running.log_tail());
    drop(running);
    Ok(())
}

/// A table as another program makes it, with a file that is old and in no version.
fn table_of_another_program(folder: &JobFolder) -> Result<PathBuf> {
    let schema =
        r#"{\"type\":\"struct\",\"fields\":[{\"name\":\"n\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}"#;
    let commit = format!(
        "{{\"protocol\":{{\"minReaderVersion\":1,\"minWriterVersion\":2}}}}\n{{\"metaData\":{{\"id\":\"5fba94ed-9794-4965-ba6e-6ee3c0d22af9\",\
         \"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\"schemaString\":\"{schema}\",\"partitionColumns\":[],\"configuration\":{{}}}}}}\n"
    );
    let table = folder.archive().join("foreign");
    fs::create_dir_all(table.join("_delta_log"))?;
    fs::write(table.join("_delta_log/00000000000000000000.json"), commit)?;
    let old = table.join("old.parquet");
    fs::write(&old, "garbage")?;
    File::options().write(true).open(&old)?.set_modified(SystemTime::UNIX_EPOCH)?;
    Ok(old)
}

#[test]
fn a_table_that_was_moved_away_is_not_missed_in_the_next_one() -> Result<()> {
    let folder = job_that_ran_twice("verify-anew")?;
    fs::rename(folder.archive().join("visits"), folder.path().join("visits-before"))?;
    folder.write("in/c.ndjson", &visits(5))?;
    folder.run_until_end(RUN_LIMIT)?;
    expect(&folder.answer(&["archive", "verify"])?, &["older than table `visits`, which was made anew", "all is well"])
}

fn set_old(path: &Path) -> Result<()> {
    Ok(File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH)?)
}

#[test]
fn a_vacuum_deletes_what_a_job_has_left_and_no_link_needs() -> Result<()> {
    let folder = job_that_ran_twice("vacuum-job")?;
    let job = folder.archive().join("_wattline/verify");
    let object = |name: &str| -> Result<PathBuf> {
        let path = job.join(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, "garbage")?;
        Ok(path)
    };
    let left = object("state/0/00000000000000000001-dead.0.frames")?;
    let young = object("outbox/0/00000000000000000001-dead.frames")?;
    // An owner may be writing it, however long that takes.
    let of_next = object("rows/0/00000000000000009999-alive.frames")?;
    let lanes = paths(&job.join("lanes/*/0/*.json"))?;
    ensure!(lanes.len() == 3, "two lanes, one of them taken twice: {lanes:?}");
    // What links name is needed, however old it is.
    for path in paths(&job.join("*/0/*"))?.iter().chain(&lanes).filter(|path| **path != young) {
        set_old(path)?;
    }
    expect(&folder.answer(&["archive", "verify"])?, &["stored objects that no link needs: 2", "all is well"])?;
    let said = folder.answer(&["archive", "vacuum", "--dry-run"])?;
    expect(&said, &["_wattline/verify/state/0/00000000000000000001-dead.0.frames", "lanes/", "would be deleted"])?;
    ensure!(left.exists() && lanes.iter().all(|path| path.exists()) && !said.contains("alive"), "{said}");

    let said: Value = serde_json::from_str(&folder.answer(&["archive", "vacuum", "--format", "json"])?)?;
    assert_eq!(said["jobs"].as_array().map(Vec::len), Some(2), "{said}");
    ensure!(!left.exists() && young.exists() && of_next.exists(), "{said}");
    ensure!(lanes.iter().filter(|path| path.exists()).count() == 2, "{said}");
    expect(&folder.answer(&["archive", "verify"])?, &["stored objects that no link needs: 1", "all is well"])?;
    // The job goes on from what is there.
    folder.write("in/c.ndjson", &visits(5))?;
    folder.run_until_end(RUN_LIMIT)?;
    expect(&folder.answer(&["archive", "verify"])?, &["all is well"])
}

#[test]
fn a_vacuum_deletes_what_is_old_and_in_no_table() -> Result<()> {
    let folder = job_that_ran_twice("vacuum")?;
    let table = folder.archive().join("visits");
    let (old, young) = (table.join("event_date=2026-03-02/part-old.parquet"), table.join("part-young.parquet"));
    for path in [&old, &young] {
        fs::write(path, "garbage")?;
    }
    // A file that is live stays, however old it is.
    let live = PathBuf::from(folder.answer(&["archive", "files", "visits"])?.lines().next().context("a live file")?);
    for path in [&old, &live] {
        File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH)?;
    }
    let said = folder.answer(&["archive", "vacuum", "--dry-run"])?;
    expect(&said, &["visits/event_date=2026-03-02/part-old.parquet", "would be deleted"])?;
    ensure!(old.exists() && !said.contains("part-young"), "{said}");

    // Where a link cannot be read it is not known what is needed.
    let links = paths(&folder.archive().join("_wattline/verify/chains/0/*.json"))?;
    let last = links.last().context("a link")?;
    let whole = fs::read(last)?;
    fs::write(last, "{}")?;
    let refused = folder.wattline(&["archive", "vacuum"])?;
    fs::write(last, whole)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(ANSWER_IS_NO) && old.exists(), "ended with {}:\n{said}", refused.status);
    expect(&said, &["nothing was deleted", "archive verify"])?;

    // A job of another version is none of ours, and neither is a table of another program.
    let link = "archive/_wattline/before/chains/0/00000000000000000001.json";
    folder.write(link, "{\"format\":1}")?;
    let foreign = table_of_another_program(&folder)?;
    let said: Value = serde_json::from_str(&folder.answer(&["archive", "vacuum", "--format", "json"])?)?;
    assert_eq!(said["tables"]["visits"].as_array().map(Vec::len), Some(1), "{said}");
    assert_eq!(said["left_alone"], serde_json::json!(["foreign"]), "{said}");
    ensure!(!old.exists() && young.exists() && live.exists() && foreign.exists());
    let said = folder.answer(&["archive", "verify"])?;
    expect(&said, &["chain `before/0`: format 1, this version reads", "not judged", "all is well"])
}
