//! How long a job with a large state is away when it is killed (`kill -9`), and how long when another process takes over.
//!
//! A job is fed until what its last checkpoint has stored of open windows and of rows by key has the wanted size in the store. Then
//! events keep coming in. Part one kills the one process and starts it again at once. Part two shares the job between two processes
//! of two slots, kills one, and leaves the rest to the other one. Both are measured several times.
//!
//! ```text
//! kill -9 ─▶ process gone ─▶ start ──▶ first link ──▶ first new alert in its topic      part one: seconds since the start
//! kill -9 ──▶ session timeout ──▶ every slot has put a link ──▶ first new alert         part two: seconds since the kill
//! ```
//! An alert is new if its window, of one second, ended after the kill: nobody can have computed it before. So a second of event time,
//! the delay of the stream (a second) and a tick (a second) are in the figure. In the end every record must be in the raw table
//! once, every alert in its topic once, and `archive verify` has nothing to say.

mod accounts;
mod chains;
#[path = "../../tests/it/child_process.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests, which use more of it")]
mod child_process;
mod hand_over;
#[allow(dead_code, reason = "shared with other benches, which use more of it")]
mod holdings;
#[path = "../../tests/it/kafka_broker.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod kafka_broker;
mod machine;
#[allow(dead_code, reason = "shared with other benches, which use more of it")]
mod measured_child;
mod pulses;
mod recovery_job;
mod recovery_part;
mod results;
#[path = "../../tests/it/scratch.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod scratch;
#[allow(dead_code, reason = "shared with other benches, which use more of it")]
mod steady;
#[path = "../../tests/it/tree.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod tree;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::kafka_broker::TestBroker;
use crate::recovery_job::{PARTITIONS, TOPIC};
use crate::recovery_part::Part;
use crate::results::say;
use crate::steady::Sent;

const USAGE: &str = "options: --runs N, --state-mb N, --rate N (events a second), --memory-gb N (of each slot), \
                     --only restart | takeover, --group-protocol classic | consumer, --out FILE";
/// Of the group of slots, whichever its protocol: what the broker of the bench allows at the least.
const SESSION_TIMEOUT_S: u64 = 6;

pub(crate) struct Settings {
    pub(crate) runs: usize,
    pub(crate) state_bytes: u64,
    pub(crate) rate: u64,
    pub(crate) memory_gb: u64,
    only: Option<String>,
    group_protocol: String,
    out: Option<String>,
}

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    let broker = TestBroker::start()?;
    broker.create_topic(TOPIC, PARTITIONS, &[])?;
    let is_wanted = |part: &str| settings.only.as_deref().is_none_or(|only| only == part);
    // What is in the topic: the second job reads from its beginning what was produced for the first.
    let (mut devices, mut sent) = (0, Sent::default());
    let mut found = Map::new();
    found.insert(
        "settings".to_owned(),
        json!({
            "runs": settings.runs,
            "state_bytes": settings.state_bytes,
            "events_per_s": settings.rate,
            "partitions": PARTITIONS,
            "memory_gb_of_each_slot": settings.memory_gb,
            "group_protocol": settings.group_protocol,
        }),
    );
    if is_wanted("restart") {
        let part = Part::new(&broker, &settings, "restart", 1, "")?;
        found.insert("restart".to_owned(), part.run(&mut devices, &mut sent)?);
    }
    if is_wanted("takeover") {
        let session = match settings.group_protocol.as_str() {
            "consumer" => "\"group.protocol\" = \"consumer\"".to_owned(),
            _ => format!("\"session.timeout.ms\" = {}", SESSION_TIMEOUT_S * 1_000),
        };
        let part = Part::new(&broker, &settings, "takeover", 2, &session)?;
        let mut takeover = part.run(&mut devices, &mut sent)?;
        if let Some(takeover) = takeover.as_object_mut() {
            takeover.insert("session_timeout_s".to_owned(), json!(SESSION_TIMEOUT_S));
        }
        say(&format!(
            "the session timeout of the group is {SESSION_TIMEOUT_S} s, its protocol `{}`",
            settings.group_protocol
        ));
        found.insert("takeover".to_owned(), takeover);
    }
    let what =
        "how long a job with a large state is away after kill -9: started again, and taken over by another process";
    say(&format!("report: {}", results::write("recovery", settings.out.as_deref(), what, Value::Object(found))?));
    Ok(())
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings {
        runs: 5,
        state_bytes: 1 << 30,
        rate: 2_000,
        memory_gb: 16,
        only: None,
        group_protocol: "classic".to_owned(),
        out: None,
    };
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = || value.parse::<u64>().with_context(|| format!("`{value}` is no number; {USAGE}"));
        match (name.as_str(), value.as_str()) {
            ("--runs", _) => settings.runs = usize::try_from(number()?.max(1))?,
            ("--state-mb", _) => settings.state_bytes = number()?.max(1) << 20,
            ("--rate", _) => settings.rate = number()?.max(100),
            ("--memory-gb", _) => settings.memory_gb = number()?.max(1),
            ("--only", "restart" | "takeover") => settings.only = Some(value),
            ("--group-protocol", "classic" | "consumer") => settings.group_protocol = value,
            ("--out", _) => settings.out = Some(value),
            _ => bail!("`{name} {value}` is no option; {USAGE}"),
        }
    }
    Ok(settings)
}
