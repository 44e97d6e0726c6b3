//! State larger than memory: a window of one day over millions of devices, by a program that may use less than it keeps.
//!
//! Writes files of readings, each device once and every fourth a second time much later, in an order that has nothing to do
//! with their names; runs `wattline run` over it with a memory budget and one of two rules, a window or a window function that
//! keeps a row of each device for ever; and compares every row of the result with what plain DataFusion gives for the same SQL
//! over the archive. The peak is what the kernel tells of the process (`wait4`).

mod measured_child;
#[path = "../../tests/it/scratch.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod scratch;
#[path = "../../tests/it/tree.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod tree;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::scratch::Scratch;

const USAGE: &str = "options: --rule window | over, --devices N, --memory SIZE (as `[run] memory` of a configuration)";
/// Has no divisor in common with any number of devices below it: their order is spread over all names.
const STEP: u64 = 2_147_483_647;
/// Each is a lane.
const FILES: u64 = 2;
/// 2026-03-02T00:00:00Z.
const DAY_BEGIN_US: u64 = 1_772_409_600_000_000;
const DAY_US: u64 = 86_400_000_000;

const SCHEMA: &str = r#"{"type":"record","name":"readings","event_time":"at","key":["device"],"fields":[
    {"name":"device","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"value","type":["null","long"]}]}"#;

/// What is run, and how it is judged.
struct Rule {
    name: &'static str,
    sql: &'static str,
    /// Counts the rows of `result` that plain DataFusion does not give, and the other way round.
    differences: &'static str,
    /// Rows of the result for so many devices and events.
    rows: fn(u64, u64) -> u64,
}

const RULES: [Rule; 2] = [
    Rule {
        name: "window",
        sql: "/*---
id = \"result\"
kind = \"table\"
---*/
SELECT device, window_start, window_end, count(*) AS readings, sum(value) AS total, max(value) AS highest
FROM TUMBLE(readings, at, INTERVAL '1 day') GROUP BY device, window_start, window_end
",
        differences: "SELECT count(*) AS n FROM (
    SELECT device, window_start, count(*) AS readings, sum(value) AS total, max(value) AS highest
    FROM TUMBLE(readings, at, INTERVAL '1 day') GROUP BY device, window_start
) b FULL JOIN result r ON r.device = b.device AND r.window_start = b.window_start
WHERE (b.readings IS DISTINCT FROM r.readings) OR (b.total IS DISTINCT FROM r.total) OR (b.highest IS DISTINCT FROM r.highest)",
        rows: |devices, _events| devices,
    },
    Rule {
        name: "over",
        sql: "/*---
id = \"result\"
kind = \"table\"
---*/
SELECT device, at, value, lag(at) OVER w AS before, sum(value) OVER w AS so_far
FROM readings WINDOW w AS (PARTITION BY device ORDER BY at)
",
        differences: "SELECT count(*) AS n FROM (
    SELECT device, at, lag(at) OVER w AS before, sum(value) OVER w AS so_far
    FROM readings WINDOW w AS (PARTITION BY device ORDER BY at)
) b FULL JOIN result r ON r.device = b.device AND r.at = b.at
WHERE (b.device IS NULL) OR (b.before IS DISTINCT FROM r.before) OR (b.so_far IS DISTINCT FROM r.so_far)",
        rows: |_devices, events| events,
    },
];

fn main() -> Result<()> {
    let Settings { rule, devices, memory } = settings(std::env::args().skip(1))?;
    let program = tree::wattline()?;
    let folder = Scratch::new("state")?;
    write_job(folder.path(), &memory, &rule)?;
    let events = write_readings(folder.path(), devices)?;
    say(&format!("{events} readings of {devices} devices, rule `{}`, memory = \"{memory}\"", rule.name));
    let usage = measured_child::run(&program, &["run"], folder.path())?;
    let count = |sql: &str| measured_child::count(&program, folder.path(), sql);
    let (rows, due) = (count("SELECT count(*) AS n FROM result")?, (rule.rows)(devices, events));
    ensure!(rows == due, "{events} readings of {devices} devices gave {rows} rows");
    let differences = count(rule.differences)?;
    ensure!(differences == 0, "{differences} rows differ from those of plain DataFusion");
    say(&format!(
        "{rows} rows, all as plain DataFusion gives them; {:.0} s, {:.1} CPU s per million readings, peak {:.0} MiB",
        usage.wall_seconds,
        usage.cpu_seconds / (events as f64 / 1e6),
        usage.peak_bytes as f64 / f64::from(1 << 20),
    ));
    Ok(())
}

struct Settings {
    rule: Rule,
    devices: u64,
    memory: String,
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let (mut name_of_rule, mut devices, mut memory) = ("window".to_owned(), 20_000_000, "1 GB".to_owned());
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        match name.as_str() {
            "--rule" => name_of_rule = value,
            "--devices" => devices = value.parse().with_context(|| format!("`{value}` is no number; {USAGE}"))?,
            "--memory" => memory = value,
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    ensure!((1..STEP).contains(&devices), "from 1 to {} devices, and not {devices}", STEP - 1);
    let rule = RULES.into_iter().find(|rule| rule.name == name_of_rule);
    let rule = rule.with_context(|| format!("`{name_of_rule}` is no rule; {USAGE}"))?;
    Ok(Settings { rule, devices, memory })
}

fn write_job(folder: &Path, memory: &str, rule: &Rule) -> Result<()> {
    fs::write(folder.join("readings.avsc"), SCHEMA)?;
    fs::create_dir(folder.join("sql"))?;
    fs::write(folder.join("sql/result.sql"), rule.sql)?;
    let config = format!(
        "job = \"state\"\n[run]\nmemory = \"{memory}\"\nscratch = \".\"\n\
         [streams.readings]\nschema = \"readings.avsc\"\nfiles = \"readings-*.ndjson\"\n\
         [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n"
    );
    fs::write(folder.join("wattline.toml"), config).context("cannot write the configuration")
}

/// Gives the number of readings.
fn write_readings(folder: &Path, devices: u64) -> Result<u64> {
    let events = devices + devices / 4;
    let create = |number: u64| File::create(folder.join(format!("readings-{number}.ndjson")));
    let mut files =
        (0..FILES).map(|number| Ok(BufWriter::with_capacity(1 << 20, create(number)?))).collect::<Result<Vec<_>>>()?;
    for event in 0..events {
        let device = event % devices * STEP % devices;
        let at_us = DAY_BEGIN_US + DAY_US / events * event;
        let value = event.wrapping_mul(2_654_435_761) % 10_000;
        let file = &mut files[usize::try_from(event % FILES)?];
        writeln!(file, "{{\"device\":\"D{device:011}\",\"at\":{at_us},\"value\":{value}}}")?;
    }
    files.iter_mut().try_for_each(Write::flush)?;
    Ok(events)
}

/// Prints a line; a reader that is gone is no reason to fail.
fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or_default();
}
