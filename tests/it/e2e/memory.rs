//! Windows and stages that are larger than the memory they may have: on disk while they are open, across a kill, and whole in the end.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::job::JobFolder;
use crate::child_process::wait_until;

const DEVICES: u64 = 400_000;
const READINGS: u64 = DEVICES + DEVICES / 4;
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const RUN_LIMIT: Duration = Duration::from_secs(180);

const CONFIG: &str = "job = \"memory\"
[run]
memory = \"64 MB\"
scratch = \".\"
[streams.readings]
schema = \"readings.avsc\"
files = \"readings-*.ndjson\"
[rules]
paths = [\"sql\"]
[archive]
url = \"archive\"
";

pub(super) const SCHEMA: &str = r#"{"type":"record","name":"readings","event_time":"at","key":["device"],"fields":[
    {"name":"device","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"value","type":"long"}]}"#;

pub(super) const PER_DAY: &str = "/*---
id = \"per_day\"
kind = \"table\"
---*/
SELECT device, window_start, window_end, count(*) AS readings, sum(value) AS total
FROM TUMBLE(readings, at, INTERVAL '1 day') GROUP BY device, window_start, window_end
";

/// A stage over the windows: it must wait until all parts of one are there.
const RANKED: &str = "/*---
id = \"ranked\"
kind = \"table\"
---*/
SELECT *, row_number() OVER (PARTITION BY window_start, window_end ORDER BY total DESC, device) AS rank
FROM per_day QUALIFY rank <= 10
";

/// A stage that keeps a row of each device for ever.
const PAUSES: &str = "/*---
id = \"pauses\"
kind = \"table\"
---*/
SELECT device, at, value, lag(at) OVER (PARTITION BY device ORDER BY at) AS before FROM readings
";

const DIFFERENT: &str = "SELECT count(*) AS n FROM (
    SELECT device, window_start, count(*) AS readings, sum(value) AS total
    FROM TUMBLE(readings, at, INTERVAL '1 day') GROUP BY device, window_start
) b FULL JOIN per_day p ON p.device = b.device AND p.window_start = b.window_start
WHERE (b.readings IS DISTINCT FROM p.readings) OR (b.total IS DISTINCT FROM p.total)";

const DIFFERENT_PAUSES: &str = "SELECT count(*) AS n FROM (
    SELECT device, at, lag(at) OVER (PARTITION BY device ORDER BY at) AS before FROM readings
) b FULL JOIN pauses p ON p.device = b.device AND p.at = b.at
WHERE (b.device IS NULL) OR (p.device IS NULL) OR (b.before IS DISTINCT FROM p.before)";

/// Lines of two files whose times go side by side; each device comes once, every fourth a second time later.
fn readings(file: u64) -> String {
    let mut lines = String::new();
    for event in (file..READINGS).step_by(2) {
        let device = event % DEVICES * 7_919 % DEVICES;
        let at_us = 1_772_409_600_000_000 + event * 150_000;
        let value = event * 2_654_435_761 % 100_000;
        writeln!(lines, "{{\"device\":\"D{device:07}\",\"at\":{at_us},\"value\":{value}}}").expect("text takes text");
    }
    lines
}

#[test]
fn state_larger_than_memory_survives_a_kill_and_is_whole() -> Result<()> {
    let folder = JobFolder::new("memory")?;
    folder.write("wattline.toml", CONFIG)?;
    folder.write("readings.avsc", SCHEMA)?;
    folder.write("sql/per_day.sql", PER_DAY)?;
    folder.write("sql/ranked.sql", RANKED)?;
    folder.write("sql/pauses.sql", PAUSES)?;
    folder.write("readings-0.ndjson", &readings(0))?;
    folder.write("readings-1.ndjson", &readings(1))?;
    folder.answer(&["check"])?;

    let mut running = folder.start(&["run"])?;
    wait_until(MOMENT_LIMIT, || Ok((folder.manifests() >= 2).then_some(())))?;
    ensure!(running.try_wait()?.is_none(), "the input ended before the kill");
    running.kill9()?;
    folder.run_until_end(RUN_LIMIT)?;

    ensure!(folder.count("SELECT count(*) AS n FROM readings")? == READINGS);
    ensure!(folder.count("SELECT count(*) AS n FROM per_day")? == DEVICES);
    ensure!(folder.count(DIFFERENT)? == 0, "{} rows are not those of plain DataFusion", folder.count(DIFFERENT)?);
    ensure!(folder.count("SELECT count(*) AS n FROM pauses")? == READINGS);
    ensure!(folder.count(DIFFERENT_PAUSES)? == 0, "{} pauses are wrong", folder.count(DIFFERENT_PAUSES)?);
    let top =
        "SELECT count(*) AS n FROM (SELECT device, row_number() OVER (ORDER BY total DESC, device) AS rank FROM per_day
               QUALIFY rank <= 10) b JOIN ranked r ON r.device = b.device AND r.rank = b.rank";
    ensure!(folder.count("SELECT count(*) AS n FROM ranked")? == 10 && folder.count(top)? == 10);
    Ok(())
}
