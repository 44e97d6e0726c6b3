//! Events per second of one core, for jobs that differ in their rules: Kafka → decode → rules → Delta tables.
//!
//! What is measured is data: `benches/speed/scenarios.toml` says what is in the topic, which rules run over it, what the archive must
//! hold afterwards, and what is asked for. The processor time is that of the whole process of `wattline run --until-end`, start and
//! last commit included, as the kernel tells it (`wait4`); that of the broker and of the bench is not in it. Scenarios take turns, as
//! many rounds as wanted, and the median of each counts: a machine that is shared is not the same from one minute to the next. A round in
//! which the archive does not hold what it must fails the bench.

#[path = "../../tests/it/child_process.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the tests, which use more of it")]
mod child_process;
mod hand_over;
#[path = "../../tests/it/kafka_broker.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod kafka_broker;
mod machine;
#[expect(dead_code, reason = "shared with other benches, which use more of it")]
mod measured_child;
mod results;
#[path = "../../tests/it/scratch.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod scratch;
mod speed_job;
mod thread_times;
#[path = "../../tests/it/tree.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod tree;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::kafka_broker::TestBroker;
use crate::results::say;
use crate::speed_job::{Measured, Scenario, Topic};

const USAGE: &str = "options: --only NAME[,NAME…], --runs N, --events N (instead of what a scenario says), --out FILE";

struct Settings {
    only: Vec<String>,
    runs: usize,
    events: Option<u64>,
    out: Option<String>,
}

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    let scenarios = scenarios(&settings)?;
    let program = tree::wattline()?;
    let broker = TestBroker::start()?;
    let mut topics: BTreeMap<String, Topic> = BTreeMap::new();
    for scenario in &scenarios {
        let name = scenario.topic();
        if let Entry::Vacant(place) = topics.entry(name.clone()) {
            let topic = place.insert(speed_job::produce(&broker, scenario)?);
            say(&format!("{name}: {} readings, {:.0} MB", topic.events, topic.bytes as f64 / 1e6));
        }
    }
    let mut measured: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for run in 1..=settings.runs {
        for scenario in &scenarios {
            let topic = topics.get(&scenario.topic()).context("every scenario has its topic")?;
            let of = speed_job::measure(&program, &broker, scenario, topic, run)
                .with_context(|| format!("scenario `{}`, round {run}", scenario.name))?;
            say(&format!("round {run}, {}: {}", scenario.name, of.line()));
            measured.entry(scenario.name.as_str()).or_default().push(of);
        }
    }
    report(&settings, &scenarios, &measured)
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings { only: Vec::new(), runs: 3, events: None, out: None };
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = || value.parse::<u64>().with_context(|| format!("`{value}` is no number; {USAGE}"));
        match name.as_str() {
            "--only" => settings.only = value.split(',').map(str::to_owned).collect(),
            "--runs" => settings.runs = usize::try_from(number()?.max(1))?,
            "--events" => settings.events = Some(number()?.max(1)),
            "--out" => settings.out = Some(value),
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    Ok(settings)
}

/// The wanted ones, and those that they are compared with.
fn scenarios(settings: &Settings) -> Result<Vec<Scenario>> {
    let mut all = speed_job::read_scenarios()?;
    let is_known = |name: &String| all.iter().any(|scenario| scenario.name == *name);
    if let Some(unknown) = settings.only.iter().find(|name| !is_known(name)) {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        bail!("there is no scenario `{unknown}`; there are {}", names.join(", "));
    }
    if !settings.only.is_empty() {
        let wanted = all.iter().filter(|scenario| settings.only.contains(&scenario.name));
        let names: Vec<String> =
            wanted.flat_map(|scenario| scenario.against.iter().chain([&scenario.name])).cloned().collect();
        all.retain(|scenario| names.contains(&scenario.name));
    }
    if let Some(events) = settings.events {
        all.iter_mut().for_each(|scenario| *scenario = scenario.over(events));
    }
    Ok(all)
}

/// The round with the median processor time.
fn median(rounds: &[Measured]) -> Result<Measured> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.cpu_us_per_event().total_cmp(&b.cpu_us_per_event()));
    sorted.get(sorted.len() / 2).cloned().context("nothing was measured")
}

fn report(settings: &Settings, scenarios: &[Scenario], measured: &BTreeMap<&str, Vec<Measured>>) -> Result<()> {
    let rounds = |name: &str| measured.get(name).map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<Value> = Vec::new();
    say("\nmedians:");
    for scenario in scenarios {
        let of = median(rounds(&scenario.name))?;
        let against = scenario.against.as_ref().map(|other| median(rounds(other))).transpose()?;
        let times = against.map(|other| of.cpu_us_per_event() / other.cpu_us_per_event());
        let verdicts = scenario.verdicts(&of, times);
        say(&format!("{:<12} {}{verdicts}", scenario.name, of.line()));
        say(&format!("{:<12} ns of an event: {}", "", of.parts_line()));
        let all: Vec<Value> = rounds(&scenario.name).iter().map(Measured::json).collect();
        found.push(json!({
            "scenario": scenario.name,
            "what": scenario.what,
            "events": of.events,
            "meters": scenario.meters,
            "partitions": scenario.partitions,
            "median": of.json(),
            "rounds": all,
            "bar_events_per_core_s": scenario.bar,
            "against": scenario.against,
            "times": times,
            "times_at_most": scenario.times,
            "peak_mb_at_most": scenario.peak_mb,
        }));
    }
    let what = "events per second of processor time, from Kafka to Delta tables, by what the rules are";
    say(&format!("report: {}", results::write("speed", settings.out.as_deref(), what, json!({ "scenarios": found }))?));
    Ok(())
}
