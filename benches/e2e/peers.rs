//! wattline next to other stream processors: the same topic, the same query, the same machine, in turns.
//!
//! The programs are in `benches/peers/`, one Java file each, with the settings that were best here; `scripts/bench peers` fetches what they
//! need and compiles them. Each reads the topic from its beginning to its end, in one process, exactly once with a commit every ten seconds as
//! wattline does, and writes the result. The processor time is that of the whole process, as the kernel tells it. A JVM that starts and
//! compiles what it runs takes seconds for that, so each job is run over a topic of a tenth of the events too, and what the events between
//! the two cost is told besides. A result that is wrong fails the bench.

#[path = "../../tests/it/child_process.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the tests, which use more of it")]
mod child_process;
mod hand_over;
#[path = "../../tests/it/kafka_broker.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod kafka_broker;
mod machine;
mod measured_child;
mod peer;
mod peers_report;
mod results;
#[path = "../../tests/it/scratch.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod scratch;
#[expect(dead_code, reason = "shared with the bench of scenarios, which uses more of it")]
mod speed_job;
mod thread_times;
#[path = "../../tests/it/tree.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod tree;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::kafka_broker::TestBroker;
use crate::measured_child::Usage;
use crate::peer::{PEERS, Peer};
use crate::results::say;
use crate::speed_job::Scenario;

const USAGE: &str = "options: --only NAME[,NAME…], --runs N, --events N, --out FILE, --docs yes";
const WATTLINE: &str = "wattline";
/// How many times fewer events the small topic has.
const SMALLER: u64 = 10;

struct Settings {
    only: Vec<String>,
    runs: usize,
    events: u64,
    out: Option<String>,
    docs: bool,
}

/// A job over the whole topic and over the small one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) events: u64,
    pub(crate) whole: Usage,
    pub(crate) small: Usage,
}

impl Round {
    /// Of the whole process.
    pub(crate) fn events_per_core_s(&self) -> f64 {
        self.events as f64 / self.whole.cpu_seconds
    }

    /// Of what the events cost that the small topic does not have.
    pub(crate) fn without_start(&self) -> f64 {
        let more = self.events - self.events / SMALLER;
        more as f64 / (self.whole.cpu_seconds - self.small.cpu_seconds).max(f64::EPSILON)
    }
}

/// All rounds, by job and engine.
pub(crate) type Found = BTreeMap<(&'static str, &'static str), Vec<Round>>;

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    let program = tree::wattline()?;
    let broker = TestBroker::start()?;
    let jobs = [scenario("raw", &settings)?, scenario("tumble", &settings)?];
    let mut topics = Vec::new();
    for events in [settings.events, settings.events / SMALLER] {
        let of = jobs[0].over(events);
        topics.push((of.topic(), speed_job::produce(&broker, &of)?));
        say(&format!("{}: {events} readings", of.topic()));
    }
    let mut found = Found::new();
    for run in 1..=settings.runs {
        for (job, scenario) in ["raw", "tumble"].into_iter().zip(&jobs) {
            let mut of_wattline = Vec::new();
            for (_, topic) in &topics {
                let scenario = scenario.over(topic.events);
                of_wattline.push(speed_job::measure(&program, &broker, &scenario, topic, run)?.usage);
            }
            note(&mut found, (job, WATTLINE), &of_wattline, settings.events)?;
            for peer in PEERS.iter().filter(|peer| peer.jobs.contains(&job) && settings.wants(peer)) {
                let measured = topics.iter().map(|(name, topic)| peer.measure(&broker, job, (name, topic)));
                let of_peer: Vec<Usage> = measured.collect::<Result<_>>().with_context(|| peer.title.to_owned())?;
                note(&mut found, (job, peer.title), &of_peer, settings.events)?;
            }
        }
    }
    report(&settings, &found)
}

impl Settings {
    fn wants(&self, peer: &Peer) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == peer.name)
    }
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings { only: Vec::new(), runs: 3, events: 3_000_000, out: None, docs: false };
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = || value.parse::<u64>().with_context(|| format!("`{value}` is no number; {USAGE}"));
        match name.as_str() {
            "--only" => settings.only = value.split(',').map(str::to_owned).collect(),
            "--runs" => settings.runs = usize::try_from(number()?.max(1))?,
            "--events" => settings.events = number()?.max(SMALLER),
            "--out" => settings.out = Some(value),
            "--docs" => settings.docs = value == "yes",
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    if let Some(unknown) = settings.only.iter().find(|name| !PEERS.iter().any(|peer| peer.name == **name)) {
        bail!("there is no peer `{unknown}`; there are {}", PEERS.map(|peer| peer.name).join(", "));
    }
    Ok(settings)
}

/// A job of the bench of scenarios, over the topic of this one.
fn scenario(name: &str, settings: &Settings) -> Result<Scenario> {
    let of = speed_job::read_scenarios()?.into_iter().find(|scenario| scenario.name == name);
    let of = of.with_context(|| format!("there is no scenario `{name}`"))?;
    Ok(of.over(settings.events))
}

fn note(found: &mut Found, (job, engine): (&'static str, &'static str), usages: &[Usage], events: u64) -> Result<()> {
    let [whole, small] = usages else { bail!("{} runs, not two", usages.len()) };
    let round = Round { events, whole: *whole, small: *small };
    say(&format!(
        "{job}, {engine}: {:.0} events/s of a core, {:.0} without the start, {:.1} s, peak {:.0} MiB",
        round.events_per_core_s(),
        round.without_start(),
        whole.wall_seconds,
        whole.peak_bytes as f64 / 1_048_576.0
    ));
    found.entry((job, engine)).or_default().push(round);
    Ok(())
}

/// The round with the median processor time.
pub(crate) fn median(rounds: &[Round]) -> Option<Round> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.whole.cpu_seconds.total_cmp(&b.whole.cpu_seconds));
    sorted.get(sorted.len() / 2).copied()
}

fn report(settings: &Settings, found: &Found) -> Result<()> {
    let table = peers_report::markdown(found, settings.runs)?;
    say(&format!("\n{table}"));
    let rounds = found.iter().flat_map(|((job, engine), rounds)| {
        rounds.iter().map(move |round| {
            json!({
                "job": job, "engine": engine, "events": round.events,
                "cpu_seconds": round.whole.cpu_seconds, "cpu_seconds_of_a_tenth": round.small.cpu_seconds,
                "wall_seconds": round.whole.wall_seconds, "peak_bytes": round.whole.peak_bytes,
            })
        })
    });
    let what = "events per second of processor time of wattline and of other stream processors, the same jobs over the same topic";
    let found_json = json!({ "rounds": rounds.collect::<Vec<_>>() });
    say(&format!("report: {}", results::write("peers", settings.out.as_deref(), what, found_json)?));
    if settings.docs {
        peers_report::write_docs(&table, found)?;
    }
    Ok(())
}
