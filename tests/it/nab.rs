//! `anomaly_score` over labelled series of the Numenta Anomaly Benchmark, through the program: files, rule, result table; scored by the
//! benchmark's published rules. `benches/nab/README.md` says what the figures mean.
//!
//! `cargo test --workspace --test it nab -- --nocapture` prints them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::e2e::job::JobFolder;
use crate::tree;

/// A row with at least this score is an anomaly, in every series.
const THRESHOLD: f64 = 0.5;
const FOLDS: usize = 5;
const RESAMPLES: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(300);

/// Times of the first and the last row of each window.
type Labels = BTreeMap<String, Vec<(String, String)>>;

#[test]
fn anomalies_are_found_as_often_as_the_readme_says() -> Result<()> {
    let folder = JobFolder::new("nab")?;
    let bench = tree::root()?.join("benches/nab");
    for name in ["anomalies.sql", "series.avsc", "series.ndjson.gz", "wattline.toml"] {
        std::fs::copy(bench.join(name), folder.path().join(name)).with_context(|| name.to_owned())?;
    }
    folder.run_until_end(LIMIT)?;
    let labels: Labels = serde_json::from_str(&std::fs::read_to_string(bench.join("windows.json"))?)?;
    let mut all = Vec::new();
    for (name, windows) in &labels {
        let rows =
            folder.query(&format!("SELECT row, ts, score FROM anomalies WHERE series = '{name}' ORDER BY row"))?;
        let series = Series::new(&rows, windows)?;
        let outcome = series.outcome(THRESHOLD);
        println!("{name:48} {}/{} windows, {} false alarms", outcome.hits, outcome.windows, outcome.false_alarms);
        all.push(series);
    }
    let total = Outcome::of(&all, THRESHOLD);
    ensure!(total.windows == 57, "{} windows", total.windows);
    let readme = std::fs::read_to_string(bench.join("README.md"))?;
    let profiles = [("standard", STANDARD), ("low false-positive rate", LOW_FP), ("low false-negative rate", LOW_FN)];
    for (profile, weights) in profiles {
        let line = format!("| {profile} | {:.2} |", total.normalised(weights));
        println!("{line}");
        ensure!(readme.contains(&line), "`benches/nab/README.md` does not say `{line}`");
    }
    for line in expectations(&all) {
        println!("{line}");
        ensure!(readme.contains(&line), "`benches/nab/README.md` does not say `{line}`");
    }
    Ok(())
}

/// What to expect of series that nobody has seen: the standard score with a threshold that others have chosen, and its spread.
fn expectations(all: &[Series]) -> [String; 2] {
    let candidates: Vec<f64> = (30..=80).step_by(2).map(|percent| f64::from(percent) / 100.0).collect();
    let mut held_out = Outcome::default();
    for fold in 0..FOLDS {
        let is_out = |at: usize| at % FOLDS == fold;
        let score = |threshold: f64| {
            let others = all.iter().enumerate().filter(|(at, _)| !is_out(*at)).map(|(_, series)| series);
            Outcome::of(others, threshold).normalised(STANDARD)
        };
        let best = candidates.iter().copied().max_by(|a, b| score(*a).total_cmp(&score(*b)));
        let threshold = best.unwrap_or(THRESHOLD);
        let out = all.iter().enumerate().filter(|(at, _)| is_out(*at)).map(|(_, series)| series);
        held_out.add(&Outcome::of(out, threshold));
    }
    let mut random = wattline_sim::Random::new(1);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = (0..all.len()).map(|_| &all[usize::try_from(random.below(all.len() as u64)).unwrap_or(0)]);
            Outcome::of(drawn.collect::<Vec<_>>(), THRESHOLD).normalised(STANDARD)
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let [low, high] = [5, 95].map(|percent| resampled[RESAMPLES * percent / 100]);
    [
        format!(
            "| threshold of four fifths of the series, score of the last fifth, five times | {:.2} |",
            held_out.normalised(STANDARD)
        ),
        format!("| nine of ten draws of as many series with replacement | {low:.1} to {high:.1} |"),
    ]
}

/// What a hit, a missed window and a false alarm count.
#[derive(Clone, Copy)]
struct Weights {
    hit: f64,
    miss: f64,
    false_alarm: f64,
}

const STANDARD: Weights = Weights { hit: 1.0, miss: 1.0, false_alarm: 0.11 };
const LOW_FP: Weights = Weights { hit: 1.0, miss: 1.0, false_alarm: 0.22 };
const LOW_FN: Weights = Weights { hit: 1.0, miss: 2.0, false_alarm: 0.11 };

struct Series {
    scores: Vec<f64>,
    /// First and last row of each window.
    windows: Vec<(usize, usize)>,
}

impl Series {
    fn new(rows: &[Value], windows: &[(String, String)]) -> Result<Self> {
        let time = |row: &Value| row["ts"].as_str().map(str::to_owned).context("a row without time");
        let times = rows.iter().map(time).collect::<Result<Vec<_>>>()?;
        let place = |(from, to): &(String, String)| {
            let first = times.iter().position(|time| time >= from).context("no row in a window")?;
            let last = times.iter().rposition(|time| time <= to).context("no row in a window")?;
            Ok((first, last))
        };
        let windows = windows.iter().map(place).collect::<Result<_>>()?;
        let scores = rows.iter().map(|row| row["score"].as_f64().context("a row without score"));
        Ok(Self { scores: scores.collect::<Result<_>>()?, windows })
    }

    /// The first 15 %, at most 750 rows, are not scored; of a window its earliest detection is.
    fn outcome(&self, threshold: f64) -> Outcome {
        let probation = (self.scores.len() * 15 / 100).min(750);
        let mut outcome = Outcome { windows: self.windows.len(), ..Outcome::default() };
        let mut is_hit = vec![false; self.windows.len()];
        for row in (probation..self.scores.len()).filter(|row| self.scores[*row] >= threshold) {
            match self.windows.iter().position(|(first, last)| (*first..=*last).contains(&row)) {
                Some(window) if is_hit[window] => {}
                Some(window) => {
                    let (first, last) = self.windows[window];
                    let place = -rows(last - row + 1) / rows(last - first + 1);
                    is_hit[window] = true;
                    outcome.hits += 1;
                    outcome.hit_weight += scaled_sigmoid(place) / scaled_sigmoid(-1.0);
                }
                None => {
                    outcome.false_alarms += 1;
                    outcome.false_weight += self.false_weight(row);
                }
            }
        }
        outcome
    }

    /// A false alarm soon after a window costs less.
    fn false_weight(&self, row: usize) -> f64 {
        let Some((first, last)) = self.windows.iter().rev().find(|(_, last)| *last < row) else { return -1.0 };
        let distance = rows(row - last) / rows(last - first);
        if distance > 3.0 { -1.0 } else { scaled_sigmoid(distance) }
    }
}

fn rows(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn scaled_sigmoid(x: f64) -> f64 {
    2.0 / (1.0 + (5.0 * x).exp()) - 1.0
}

#[derive(Debug, Default)]
struct Outcome {
    windows: usize,
    hits: usize,
    hit_weight: f64,
    false_alarms: usize,
    false_weight: f64,
}

impl Outcome {
    fn of<'a>(series: impl IntoIterator<Item = &'a Series>, threshold: f64) -> Self {
        let mut total = Self::default();
        series.into_iter().for_each(|series| total.add(&series.outcome(threshold)));
        total
    }

    fn add(&mut self, other: &Self) {
        self.windows += other.windows;
        self.hits += other.hits;
        self.hit_weight += other.hit_weight;
        self.false_alarms += other.false_alarms;
        self.false_weight += other.false_weight;
    }

    /// 0 for no detection at all, 100 for each window found with its first row and no false alarm.
    fn normalised(&self, weights: Weights) -> f64 {
        let missed = rows(self.windows - self.hits);
        let raw = weights.hit * self.hit_weight - weights.miss * missed + weights.false_alarm * self.false_weight;
        let null = -weights.miss * rows(self.windows);
        100.0 * (raw - null) / (weights.hit * rows(self.windows) - null)
    }
}

#[test]
fn nothing_scores_0_and_the_first_rows_of_all_windows_100() -> Result<()> {
    let windows = vec![(20, 29), (60, 79)];
    let of = |rows: &[usize]| {
        let scores = (0..100).map(|row| if rows.contains(&row) { THRESHOLD } else { 0.0 }).collect();
        Series { scores, windows: windows.clone() }.outcome(THRESHOLD)
    };
    for weights in [STANDARD, LOW_FP, LOW_FN] {
        assert!(of(&[]).normalised(weights).abs() < 1e-9);
        assert!((of(&[20, 25, 60]).normalised(weights) - 100.0).abs() < 1e-9);
    }
    assert_eq!(of(&[5, 14, 15, 50]).false_alarms, 2, "not in the probation");
    assert!(of(&[20, 60, 99]).normalised(STANDARD) < of(&[20, 60, 80]).normalised(STANDARD));
    Ok(())
}
