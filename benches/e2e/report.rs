//! What the rounds gave, for people and as JSON.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::produce::Produced;
use crate::settings::Settings;
use crate::{PARTITIONS, Usage, results};

/// One round: the bare consumer, then the program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) raw_seconds: f64,
    pub(crate) usage: Usage,
}

impl Round {
    /// Events per second of the program over those of the bare consumer.
    fn ratio(&self) -> f64 {
        self.raw_seconds / self.usage.wall_seconds
    }

    fn cpu_seconds_per_million(&self, produced: &Produced) -> f64 {
        self.usage.cpu_seconds / (produced.records as f64 / 1e6)
    }

    pub(crate) fn line(&self, number: usize, produced: &Produced) -> String {
        let records = produced.records as f64;
        format!(
            "round {number}: {:.0} events/s, {:.1} MB/s, {:.2} CPU s per million, peak {:.0} MB; raw {:.0}/s, ratio {:.3}",
            records / self.usage.wall_seconds,
            produced.bytes as f64 / 1e6 / self.usage.wall_seconds,
            self.cpu_seconds_per_million(produced),
            self.usage.peak_bytes as f64 / 1e6,
            records / self.raw_seconds,
            self.ratio(),
        )
    }

    fn json(&self, produced: &Produced) -> Value {
        let records = produced.records as f64;
        json!({
            "raw_seconds": self.raw_seconds,
            "raw_events_per_s": records / self.raw_seconds,
            "wall_seconds": self.usage.wall_seconds,
            "events_per_s": records / self.usage.wall_seconds,
            "mb_per_s": produced.bytes as f64 / 1e6 / self.usage.wall_seconds,
            "cpu_seconds": self.usage.cpu_seconds,
            "cpu_seconds_per_million_events": self.cpu_seconds_per_million(produced),
            "peak_bytes": self.usage.peak_bytes,
            "ratio_to_raw": self.ratio(),
        })
    }
}

/// Prints the round with the median ratio and writes the report.
pub(crate) fn write(settings: &Settings, produced: &Produced, rounds: &[Round]) -> Result<()> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    let median = sorted.get(sorted.len() / 2).context("no round was run")?;
    let what = "Kafka to rules to Delta tables and alerts, end to end, next to a bare consumer of the same topic";
    let found = json!({
        "settings": {
            "readings": settings.readings,
            "meters": settings.meters,
            "partitions": PARTITIONS,
            "rules": settings.rules,
            "memory": settings.memory,
            "compression": settings.compression,
            "bytes_per_event": produced.bytes as f64 / produced.records as f64,
        },
        "median": median.json(produced),
        "rounds": rounds.iter().map(|round| round.json(produced)).collect::<Vec<_>>(),
    });
    let path = results::write("e2e", settings.out.as_deref(), what, found)?;
    let number =
        rounds.iter().position(|round| round.ratio().total_cmp(&median.ratio()).is_eq()).map_or(0, |at| at + 1);
    results::say(&format!("median {}\nreport: {path}", median.line(number, produced)));
    Ok(())
}
