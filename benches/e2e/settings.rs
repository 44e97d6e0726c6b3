//! What is measured, from the command line.

use anyhow::{Context, Result, bail};
use wattline_sim::Meters;

/// How much lateness the rules tolerate.
pub(crate) const DELAY_MS: i64 = 120_000;

const USAGE: &str = "options: --readings N --meters N --runs N --rules PATH[,PATH…] --memory SIZE --compression none|lz4|zstd --out FILE";

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) readings: u64,
    pub(crate) meters: u64,
    pub(crate) runs: usize,
    /// As in `[rules] paths` of a configuration.
    pub(crate) rules: Vec<String>,
    /// As `[run] memory` of a configuration.
    pub(crate) memory: String,
    pub(crate) compression: String,
    /// Where the report goes; the target folder if absent.
    pub(crate) out: Option<String>,
}

/// The rules that are run: alerts and tables over readings, with windows of minutes, quarters of an hour and days.
const RULES: [&str; 14] = [
    "integrity/readings/rd_daily_energy",
    "integrity/readings/rd_demand_windows",
    "integrity/readings/rd_line_loss",
    "integrity/readings/rd_out_of_range",
    "integrity/readings/rd_register_mismatch",
    "integrity/readings/rd_unknown_meter",
    "integrity/readings/rd_voltage_missing",
    "power_quality/pq_current_unbalance",
    "power_quality/pq_low_power_factor",
    "power_quality/pq_voltage_deviation",
    "power_quality/pq_voltage_qualification",
    "power_quality/pq_voltage_unbalance",
    "power_quality/pq_voltage_unbalance_windows",
    "power_quality/pq_voltage_windows",
];

impl Settings {
    /// Reads the options; `cargo bench` adds a `--bench` of its own.
    pub(crate) fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut settings = Self {
            readings: 3_000_000,
            meters: 100_000,
            runs: 3,
            rules: RULES.map(|rule| format!("builtin:{rule}")).to_vec(),
            memory: "2 GB".to_owned(),
            compression: "lz4".to_owned(),
            out: None,
        };
        while let Some(name) = args.next() {
            if name == "--bench" {
                continue;
            }
            let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
            let number = || value.parse::<u64>().with_context(|| format!("`{value}` is no number; {USAGE}"));
            match name.as_str() {
                "--readings" => settings.readings = number()?,
                "--meters" => settings.meters = number()?.max(1),
                "--runs" => settings.runs = usize::try_from(number()?.max(1))?,
                "--rules" => settings.rules = value.split(',').map(str::to_owned).collect(),
                "--memory" => settings.memory = value,
                "--compression" => settings.compression = value,
                "--out" => settings.out = Some(value),
                _ => bail!("`{name}` is no option; {USAGE}"),
            }
        }
        Ok(settings)
    }

    pub(crate) fn meters(&self) -> Meters {
        Meters { meters: self.meters, readings: self.readings }
    }
}
