//! Whether something stays as it is: the medians of the second and of the last quarter of a run, side by side.
//!
//! Medians, as each measure has peaks that mean nothing (a correction at work, a merge). In the first quarter everything is new.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub(crate) const RSS: &str = "resident memory, bytes";
pub(crate) const DESCRIPTORS: &str = "open descriptors";
pub(crate) const THREADS: &str = "threads";
pub(crate) const CPU: &str = "processor seconds so far";
pub(crate) const OBJECTS: &str = "objects of the job";
pub(crate) const OBJECT_BYTES: &str = "objects of the job, bytes";

/// How much a measure may grow: by a share of what it was, and by so much for each process. Others are told, and not judged.
const LIMITS: [(&str, f64, f64); 5] = [
    (RSS, 0.1, 16.0 * 1_048_576.0),
    (DESCRIPTORS, 0.0, 8.0),
    (THREADS, 0.0, 4.0),
    (OBJECTS, 0.1, 20.0),
    (OBJECT_BYTES, 0.1, 4.0 * 1_048_576.0),
];

/// What was found at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Seconds since the begin of the run.
    pub(crate) at_s: f64,
    /// By measure; what was not found is not there.
    pub(crate) values: BTreeMap<String, f64>,
}

impl Sample {
    /// The measures that are judged, for whoever looks on.
    pub(crate) fn line(&self) -> String {
        let each = |(name, ..): (&str, f64, f64)| format!("{name} {}", shown(name, self.value(name)));
        format!("minute {:.0}: {}", self.at_s / 60.0, LIMITS.map(each).join("; "))
    }

    fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or_default()
    }
}

/// What became of a measure.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    measure: String,
    second_quarter: f64,
    last_quarter: f64,
    /// `None` if it is not judged.
    at_most: Option<f64>,
}

impl Verdict {
    pub(crate) fn is_flat(&self) -> bool {
        self.at_most.is_none_or(|most| self.last_quarter <= most)
    }

    pub(crate) fn line(&self) -> String {
        let shown = |value| shown(&self.measure, value);
        format!(
            "{:<28} {:>14} {:>14} {:>14}",
            self.measure,
            shown(self.second_quarter),
            shown(self.last_quarter),
            self.at_most.map_or_else(|| "-".to_owned(), shown),
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "measure": self.measure,
            "second_quarter": self.second_quarter,
            "last_quarter": self.last_quarter,
            "at_most": self.at_most,
        })
    }
}

/// Compares the quarters of a run of `run_s` seconds.
pub(crate) fn compare(samples: &[Sample], run_s: f64, processes: usize) -> Result<Vec<Verdict>> {
    let quarter = |from: f64, to: f64| -> Vec<&Sample> {
        samples.iter().filter(|sample| (from..=to).contains(&(sample.at_s / run_s))).collect()
    };
    // The last sample is taken a moment after the end.
    let (second, last) = (quarter(0.25, 0.5), quarter(0.75, 2.0));
    let measures: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.values.keys()).collect();
    let judged = |name: &&String| LIMITS.iter().position(|(of, ..)| of == name).unwrap_or(LIMITS.len());
    let mut measures: Vec<&String> = measures.into_iter().collect();
    measures.sort_by_key(judged);
    let each = |name: &String| {
        let of = |samples: &[&Sample]| median(samples.iter().map(|sample| sample.value(name)).collect());
        let (second_quarter, last_quarter) = (of(&second)?, of(&last)?);
        let limit = LIMITS.iter().find(|(of, ..)| of == name);
        let at_most = limit.map(|(_, share, slack)| second_quarter * (1.0 + share) + slack * processes as f64);
        Ok(Verdict { measure: name.clone(), second_quarter, last_quarter, at_most })
    };
    measures.into_iter().map(each).collect()
}

/// The verdicts for people.
pub(crate) fn table(verdicts: &[Verdict]) -> String {
    let mut lines =
        vec![format!("{:<28} {:>14} {:>14} {:>14}", "median of the", "2nd quarter", "last quarter", "at most")];
    lines.extend(verdicts.iter().map(Verdict::line));
    lines.join("\n")
}

/// The medians of each minute.
pub(crate) fn by_minute(samples: &[Sample]) -> Result<Vec<Value>> {
    let mut minutes: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        minutes.entry((sample.at_s / 60.0) as u64).or_default().push(sample);
    }
    let each = |(minute, samples): (u64, Vec<&Sample>)| {
        let names: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.values.keys()).collect();
        let of = |name: &&String| median(samples.iter().map(|sample| sample.value(name)).collect());
        let medians =
            names.into_iter().map(|name| Ok((name.clone(), of(&name)?))).collect::<Result<BTreeMap<_, _>>>()?;
        Ok(json!({ "minute": minute, "medians": medians }))
    };
    minutes.into_iter().map(each).collect()
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("the run is too short to compare its quarters")
}

fn shown(measure: &str, value: f64) -> String {
    if measure.ends_with("bytes") { format!("{:.1} MiB", value / 1_048_576.0) } else { format!("{value:.0}") }
}
