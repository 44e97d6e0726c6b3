//! Many rules together: the shipped library over one set of streams, next to one rule and to none.
//!
//! Writes files of meter readings, device metrics and business transactions, and runs `wattline run` over the same files three times:
//! without a rule, with one, and with every shipped rule that these streams and the known tables allow. A round counts only if every
//! whole event is in the archive and no rule failed. Time and memory are what the kernel tells of the process (`wait4`).

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
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use wattline_sim::{Devices, Disorder, Generator, Meters, Subject, Transactions, reference};

use crate::scratch::Scratch;

const USAGE: &str = "options: --events N (readings; half as many metrics, a tenth as many transactions), --runs N";
const DELAY_MS: i64 = 120_000;
const SEED: u64 = 1;
/// Each is a lane.
const FILES: usize = 2;
const ONE: &str = "builtin:integrity/readings/rd_out_of_range";

/// What is run: name and `[rules] paths`.
const RULES: [(&str, Option<&str>); 3] =
    [("no rule", None), ("one rule", Some(ONE)), ("the library", Some("builtin:"))];

fn main() -> Result<()> {
    let (events, runs) = settings(std::env::args().skip(1))?;
    let program = tree::wattline()?;
    let folder = Scratch::new("library")?;
    let meters = Meters { meters: (events / 50).max(1), readings: events };
    let devices = Devices { devices: (events / 200).max(1), samples: events / 2 };
    let whole = [
        ("meter_readings", write(folder.path(), "meter_readings", meters)?),
        ("device_metrics", write(folder.path(), "device_metrics", devices)?),
        ("business_transactions", write(folder.path(), "business_transactions", Transactions { steps: events / 10 })?),
    ];
    write_tables(folder.path(), &meters, &devices)?;
    let all: u64 = whole.iter().map(|(_, accepted)| accepted).sum();
    say(&format!("{all} events of {} meters, {} devices and business cases", meters.meters, devices.devices));
    for run in 1..=runs {
        let mut first = None;
        for (name, paths) in RULES {
            write_job(folder.path(), paths)?;
            let checked = check(&program, folder.path())?;
            let usage = measured_child::run(&program, &["run"], folder.path())?;
            for (table, accepted) in whole {
                let rows =
                    measured_child::count(&program, folder.path(), &format!("SELECT count(*) AS n FROM {table}"))?;
                ensure!(rows == accepted, "{name}: {table} has {rows} rows and not {accepted}");
            }
            let failed = measured_child::count(&program, folder.path(), "SELECT count(*) AS n FROM rule_errors")?;
            ensure!(failed == 0, "{name}: {failed} rules failed");
            let first = *first.get_or_insert(usage.cpu_seconds);
            say(&format!(
                "round {run}, {name}: {checked}; {:.1} s, {:.0} events/s, {:.1} CPU s ({:.2} times), peak {:.0} MiB",
                usage.wall_seconds,
                all as f64 / usage.wall_seconds,
                usage.cpu_seconds,
                usage.cpu_seconds / first,
                usage.peak_bytes as f64 / f64::from(1 << 20),
            ));
        }
    }
    Ok(())
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<(u64, usize)> {
    let (mut events, mut runs) = (500_000, 1);
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = || value.parse::<u64>().with_context(|| format!("`{value}` is no number; {USAGE}"));
        match name.as_str() {
            "--events" => events = number()?.max(100),
            "--runs" => runs = usize::try_from(number()?)?,
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    Ok((events, runs))
}

/// Writes the files of a stream; gives the number of its whole events.
fn write<S: Subject>(folder: &Path, stream: &str, subject: S) -> Result<u64> {
    let by_last_digits = |key: &[u8]| key.iter().rev().take(2).fold(0, |sum, digit| sum + i32::from(*digit)) % 2;
    let create = |number: usize| File::create(folder.join(format!("{stream}-{number}.ndjson")));
    let mut files =
        (0..FILES).map(|number| Ok(BufWriter::with_capacity(1 << 20, create(number)?))).collect::<Result<Vec<_>>>()?;
    let mut generator = Generator::new(subject, Disorder::usual(DELAY_MS), SEED, FILES, by_last_digits);
    while let Some(record) = generator.next() {
        let file = &mut files[usize::try_from(record.partition)?];
        file.write_all(record.payload)?;
        file.write_all(b"\n")?;
    }
    files.iter_mut().try_for_each(Write::flush)?;
    Ok(generator.counts().accepted())
}

/// Registers of the generated fleet; of the other tables the examples that the rules come with.
fn write_tables(folder: &Path, meters: &Meters, devices: &Devices) -> Result<()> {
    let own = [
        ("meters.csv", reference::meters_csv(meters)),
        ("devices.csv", reference::devices_csv(devices)),
        ("device_limits.csv", reference::device_limits_csv(devices)),
        ("tariffs.csv", reference::tariffs_csv()),
    ];
    let reference = folder.join("reference");
    fs::create_dir(&reference)?;
    for entry in fs::read_dir(tree::root()?.join("sql/reference"))? {
        let entry = entry?;
        fs::copy(entry.path(), reference.join(entry.file_name()))?;
    }
    own.iter().try_for_each(|(name, text)| Ok(fs::write(reference.join(name), text)?))
}

fn write_job(folder: &Path, paths: Option<&str>) -> Result<()> {
    let name = paths.map_or("none", |paths| if paths == ONE { "one" } else { "all" });
    let mut job = format!("job = \"{name}\"\n[archive]\nurl = \"archive-{name}\"\n[rules]\n");
    job.push_str(&paths.map_or("paths = []\n".to_owned(), |paths| format!("paths = [\"{paths}\"]\n")));
    for stream in ["meter_readings", "device_metrics", "business_transactions"] {
        job.push_str(&format!(
            "[streams.{stream}]\nschema = \"builtin:{stream}\"\nfiles = \"{stream}-*.ndjson\"\ndelay = \"{DELAY_MS} ms\"\n"
        ));
    }
    // What comes with the program needs no mention.
    let tables: Vec<String> = fs::read_dir(folder.join("reference"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    for table in tables.iter().filter_map(|file| file.strip_suffix(".csv")) {
        job.push_str(&format!("[reference.{table}]\npath = \"reference/{table}.csv\"\n"));
    }
    fs::write(folder.join("wattline.toml"), job)?;
    let archive = folder.join(format!("archive-{name}"));
    if archive.exists() {
        fs::remove_dir_all(archive)?;
    }
    Ok(())
}

/// How many rules there are, and how long checking them takes.
fn check(program: &Path, folder: &Path) -> Result<String> {
    let started = Instant::now();
    let output = Command::new(program).arg("check").current_dir(folder).output()?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let rules = told.lines().last().and_then(|line| line.split(", ").nth(1)).context(told.clone())?;
    Ok(format!("{rules} checked in {seconds:.2} s"))
}

/// Prints a line; a reader that is gone is no reason to fail.
fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or_default();
}
