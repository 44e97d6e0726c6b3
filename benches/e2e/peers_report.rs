//! The comparison as a table and as a chart, for people and for `docs/performance.md`.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use crate::results::say;
use crate::{Found, Round, machine, median, tree};

const DOCS: &str = "docs/performance.md";
const CHART: &str = "docs/performance/peers.svg";
const BEGIN: &str = "<!-- measured: peers -->";
const END: &str = "<!-- end: peers -->";
const WATTLINE: &str = "wattline";
const MIB: f64 = 1_048_576.0;

/// What the jobs are called.
fn title(job: &str) -> &str {
    match job {
        "raw" => "all fields to Parquet",
        _ => "ten minutes by meter",
    }
}

/// How many times the events of a core wattline does, in the median round, as a whole and without the start.
fn times(found: &Found, job: &'static str, of: &Round) -> Option<(f64, f64)> {
    let wattline = median(found.get(&(job, WATTLINE))?)?;
    Some((wattline.events_per_core_s() / of.events_per_core_s(), wattline.without_start() / of.without_start()))
}

pub(crate) fn markdown(found: &Found, runs: usize) -> Result<String> {
    let mut text = String::from(
        "| job | engine | events/s of a core | wattline does | without the start | wattline does | peak MiB |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let mut events = 0;
    for ((job, engine), rounds) in found {
        let of = median(rounds).context("nothing was measured")?;
        events = of.events;
        let (whole, without) = times(found, job, &of).context("wattline was not measured")?;
        let ratio =
            |times: f64| if *engine == WATTLINE { "–".to_owned() } else { format!("{times:.1} times as many") };
        writeln!(
            text,
            "| {} | {engine} | {:.0} | {} | {:.0} | {} | {:.0} |",
            title(job),
            of.events_per_core_s(),
            ratio(whole),
            of.without_start(),
            ratio(without),
            of.whole.peak_bytes as f64 / MIB,
        )?;
    }
    let commit = machine::commit();
    let machine = machine::describe();
    let id: String = commit["id"].as_str().unwrap_or_default().chars().take(7).collect();
    writeln!(
        text,
        "\n{events} readings of 100,000 meters in 4 partitions; medians of {runs} rounds in turns, {}, {} cores, build of `{id}`. \
         Command: `scripts/bench peers --runs {runs} --events {events} --docs yes`.",
        machine["processor"].as_str().unwrap_or("an unknown processor"),
        machine["cores"],
    )?;
    Ok(text)
}

/// Puts the table between its marks, and draws the chart beside it.
pub(crate) fn write_docs(table: &str, found: &Found) -> Result<()> {
    let path = tree::root()?.join(DOCS);
    let text = fs::read_to_string(&path).with_context(|| format!("no `{DOCS}`"))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("`{DOCS}` has no `{BEGIN}`"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("`{DOCS}` has no `{END}`"))?;
    let picture = "![Events per second of a core, by job and engine](performance/peers.svg)";
    fs::write(&path, format!("{before}{BEGIN}\n\n{picture}\n\n{table}\n{END}{after}"))?;
    let chart = tree::root()?.join(CHART);
    fs::create_dir_all(chart.parent().context("the chart has a folder")?)?;
    fs::write(&chart, svg(found)?)?;
    say(&format!("written: {DOCS}, {CHART}"));
    Ok(())
}

const LEFT: f64 = 210.0;
const WIDTH: f64 = 420.0;
const ROW: f64 = 26.0;

/// Bars by job; readable on light and on dark ground.
fn svg(found: &Found) -> Result<String> {
    let of = |rounds: &[Round]| median(rounds).map_or(0.0, |round| round.events_per_core_s());
    let most = found.values().map(|rounds| of(rounds)).fold(1.0, f64::max);
    let (mut bars, mut y, mut last) = (String::new(), 10.0, "");
    for ((job, engine), rounds) in found {
        if *job != last {
            y += 22.0;
            writeln!(bars, "<text x=\"10\" y=\"{y:.0}\" font-weight=\"bold\">{}</text>", title(job))?;
            y += 8.0;
            last = job;
        }
        let rate = of(rounds);
        let (width, middle) = (rate / most * WIDTH, y + 15.0);
        let color = if *engine == WATTLINE { "#2a9d5c" } else { "#8a94a6" };
        writeln!(bars, "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{engine}</text>", LEFT - 8.0)?;
        writeln!(
            bars,
            "<rect x=\"{LEFT:.0}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"20\" rx=\"2\" fill=\"{color}\"/>"
        )?;
        writeln!(bars, "<text x=\"{:.0}\" y=\"{middle:.0}\">{:.0} k</text>", LEFT + width + 6.0, rate / 1_000.0)?;
        y += ROW;
    }
    let height = y + 14.0;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height:.0}\" viewBox=\"0 0 720 {height:.0}\" role=\"img\">\n\
         <title>Events per second of a core</title>\n\
         <style>text {{ font: 13px sans-serif; fill: #333 }} @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}</style>\n\
         {bars}</svg>\n"
    ))
}
