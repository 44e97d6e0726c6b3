//! End-to-end throughput: Kafka → decode → rules → Delta tables and alerts, next to what this machine can merely consume.
//!
//! A rate alone says little about a program: half of it is the machine. So each round consumes the same topic twice, once with
//! a bare librdkafka consumer that looks at nothing, once with `wattline run --until-end` as a child process, and the ratio of
//! the two is the figure to watch. The child's processor time and peak memory come from the kernel (`wait4`). A round counts
//! only if every record is found again in the archive or among the dead letters.
//!
//! ```text
//! generator ──▶ Apache Kafka, 4 partitions ──▶ bare consumer           ┐ per round;
//!                                          └─▶ wattline run --until-end ┘ the median round is reported
//! ```

#[path = "../../tests/it/child_process.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the tests, which use more of it")]
mod child_process;
mod consume;
mod hand_over;
#[path = "../../tests/it/kafka_broker.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod kafka_broker;
mod machine;
mod measured_child;
mod produce;
mod report;
mod results;
#[path = "../../tests/it/scratch.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod scratch;
mod settings;
#[path = "../../tests/it/tree.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod tree;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wattline_sim::reference;

use crate::kafka_broker::TestBroker;
use crate::measured_child::Usage;
use crate::report::Round;
use crate::scratch::Scratch;
use crate::settings::Settings;

const TOPIC: &str = "bench-readings";
const ALERTS: &str = "bench-alerts";
const PARTITIONS: i32 = 4;

fn main() -> Result<()> {
    let settings = Settings::from_args(std::env::args().skip(1))?;
    let program = tree::wattline()?;
    let broker = TestBroker::start()?;
    broker.create_topic(TOPIC, PARTITIONS, &[])?;
    broker.create_topic(ALERTS, PARTITIONS, &[])?;
    let produced = produce::produce(&broker, TOPIC, PARTITIONS, &settings)?;
    results::say(&format!(
        "produced {} records, {:.0} MB, at {:.0}/s",
        produced.records,
        produced.bytes as f64 / 1e6,
        produced.records as f64 / produced.seconds
    ));
    let mut rounds = Vec::new();
    for number in 1..=settings.runs {
        let raw_seconds = consume::consume_all(&broker, TOPIC, PARTITIONS, produced.records)?;
        let folder = Scratch::new("bench")?;
        write_job(folder.path(), &broker, &settings, number)?;
        let usage = measured_child::run(&program, &["run", "--until-end"], folder.path())?;
        check(&program, folder.path(), &produced)?;
        let round = Round { raw_seconds, usage };
        results::say(&round.line(number, &produced));
        rounds.push(round);
    }
    report::write(&settings, &produced, &rounds)
}

/// A configuration of its own for each round, so that none continues the one before.
fn write_job(folder: &Path, broker: &TestBroker, settings: &Settings, round: usize) -> Result<()> {
    fs::create_dir_all(folder.join("reference"))?;
    fs::write(folder.join("reference/meters.csv"), reference::meters_csv(&settings.meters()))?;
    let rules: Vec<String> = settings.rules.iter().map(|path| format!("\"{path}\"")).collect();
    let config = format!(
        "job = \"bench{round}\"
[run]
memory = \"{memory}\"
[kafka]
bootstrap_servers = \"{bootstrap}\"
[streams.meter_readings]
schema = \"builtin:meter_readings\"
topic = \"{TOPIC}\"
delay = \"{delay} ms\"
[rules]
paths = [{rules}]
[reference.meters]
path = \"reference/meters.csv\"
[archive]
url = \"archive\"
[alerts]
topic = \"{ALERTS}\"
",
        memory = settings.memory,
        bootstrap = broker.bootstrap(),
        delay = settings::DELAY_MS,
        rules = rules.join(", "),
    );
    fs::write(folder.join("wattline.toml"), config).context("cannot write the configuration")
}

/// Every record is in the archive: as a row if it was whole, as a dead letter if it was broken.
fn check(program: &Path, folder: &Path, produced: &produce::Produced) -> Result<()> {
    let count = |table: &str| measured_child::count(program, folder, &format!("SELECT count(*) AS n FROM {table}"));
    let (rows, refused, errors) = (count("meter_readings")?, count("dead_letters")?, count("rule_errors")?);
    ensure!(
        rows == produced.accepted && rows + refused == produced.records && errors == 0,
        "{} records of which {} are whole gave {rows} rows, {refused} dead letters and {errors} rule errors",
        produced.records,
        produced.accepted,
    );
    Ok(())
}
