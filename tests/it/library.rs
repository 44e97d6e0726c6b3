//! The shipped rules: their cases pass, their pages are current, and they say what a stranger would ask.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::scratch::Scratch;
use crate::tree;

/// Ways in which checks of this field are often wrong, and the cases that show that the shipped rules are not.
const TRAPS: [(&str, &[&str]); 17] = [
    ("a limit compared in binary floats", &["pq_voltage_deviation::235.4 V on 220 V is inside"]),
    (
        "unbalance from magnitudes without angles",
        &["pq_voltage_unbalance_windows::factor from phasors; the magnitudes alone say something else"],
    ),
    (
        "the arithmetic mean of rms values",
        &["pq_voltage_unbalance_windows::the window is the root of the mean of squares, not the mean"],
    ),
    (
        "long-term flicker of fewer than twelve values",
        &["pq_flicker::eleven values, or a flagged one, give no verdict and leave an open alert open"],
    ),
    (
        "outage counted as time within the limits",
        &["pq_voltage_qualification::outage is not run time: 6 of 7 samples with supply are inside"],
    ),
    (
        "one lost phase taken for an interruption",
        &["pq_supply_events::an interruption only if all phases are lost at once"],
    ),
    (
        "flagged intervals that count",
        &[
            "pq_voltage_line::flagged intervals and outages say nothing and leave an open alert open; 50 % still is a deviation",
        ],
    ),
    (
        "an estimated percentile near its limit",
        &["pq_unbalance_week::the 95 % value of a whole week is 4.82 %, and the limit 2 %"],
    ),
    (
        "today's transformer ratio for yesterday's reading",
        &[
            "pq_voltage_line::the ratio of the voltage transformer is the one at the time of the reading; 35 kV and unregistered meters have no row",
        ],
    ),
    (
        "rollover, rollback and exchange taken for one another",
        &[
            "rd_register_rollback::a rollover is none; from exactly nine tenths, or to exactly one tenth, it is a rollback; the number of digits is that of the meter",
            "rd_register_rollback::an exchange between the two readings is none; the other registers are watched too",
        ],
    ),
    (
        "a missing value taken for zero",
        &["rd_tariff_registers::a missing register is not taken as zero, a zero one counts"],
    ),
    (
        "silence that needs an event to be noticed",
        &["dv_silent::exactly three periods are inside, a second more fires, the next answer resolves"],
    ),
    (
        "readings that come days late",
        &["tx_bill_readings::a reading that comes days late is compared, and a right bill was no alert"],
    ),
    (
        "power factor: unrounded, or of one direction",
        &[
            "pq_power_factor_month::the quotient is rounded half up before the table is asked",
            "tx_amount_two_part::adjustments of the three standards, reactive energy of both directions",
        ],
    ),
    (
        "tiers that begin anew, prices that change within a period",
        &[
            "tx_amount_tiered::2,400 kWh before and 300 now cost 173.07, whether the bill says so or the bills of the year do",
            "tx_amount_tiered::prices change in the middle of the period: split by time, or by the reading at the change",
        ],
    ),
    (
        "days of UTC for local ones",
        &[
            "pq_voltage_qualification::23:59:59 and 00:00:00 local time are two days",
            "pq_voltage_windows::an instant on the border belongs to the window that begins there",
        ],
    ),
    (
        "the reading of midnight in the day that it does not close",
        &["rd_interval_sum::exactly the tolerance is inside, more fires, a good day resolves"],
    ),
];

const CASES_MIN: usize = 900;
const RULES_MIN: usize = 230;

fn wattline(args: &[&str], folder: &Path) -> Result<(bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_wattline")).args(args).current_dir(folder).output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status.success(), text))
}

#[test]
fn every_case_passes_and_no_trap_catches() -> Result<()> {
    let (passed, text) = wattline(&["test", "--builtin"], &tree::root()?)?;
    ensure!(passed, "{text}");
    let name = |line: &str| Some(line.strip_prefix("PASS ")?.rsplit_once("  ")?.0.to_owned());
    let cases: BTreeSet<String> = text.lines().filter_map(name).collect();
    ensure!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    for (trap, shown_by) in TRAPS {
        for case in shown_by {
            ensure!(cases.contains(*case), "{trap}: there is no case `{case}`");
        }
    }
    Ok(())
}

#[test]
fn pages_are_those_of_the_rules() -> Result<()> {
    let root = tree::root()?;
    let scratch = Scratch::new("pages")?;
    let (written, text) = wattline(&["rules", "pages", ".", "--builtin"], scratch.path())?;
    ensure!(written, "{text}");
    let names = |folder: &Path| -> Result<BTreeSet<String>> {
        let entries = fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let kept = root.join("docs/rules");
    let (made, there) = (names(scratch.path())?, names(&kept)?);
    ensure!(made.len() > RULES_MIN, "only {} pages", made.len());
    let help = "write them anew: `rm -r docs/rules; wattline rules pages docs/rules --builtin`";
    ensure!(made == there, "pages of other rules: {:?}; {help}", made.symmetric_difference(&there).collect::<Vec<_>>());
    for name in made {
        let (now, then) = (fs::read_to_string(scratch.path().join(&name))?, fs::read_to_string(kept.join(&name))?);
        ensure!(now == then, "docs/rules/{name} is not what the rule says; {help}");
    }
    Ok(())
}

/// A job with every shipped stream and every table that the rules read.
fn whole_job() -> Result<String> {
    let root = tree::root()?;
    let mut job = "job = \"all\"\n[archive]\nurl = \"archive\"\n".to_owned();
    for entry in fs::read_dir(root.join("schemas"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(stream) = name.strip_suffix(".avsc") {
            job.push_str(&format!(
                "[streams.{stream}]\nschema = \"builtin:{stream}\"\nfiles = \"none/*\"\ndelay = \"2 minutes\"\n"
            ));
        }
    }
    let tables: toml::Table = toml::from_str(&fs::read_to_string(root.join("sql/reference/tables.toml"))?)?;
    for (name, table) in &tables {
        let path = root.join(format!("sql/reference/{name}.csv"));
        ensure!(path.is_file(), "there are no rows of `{name}`");
        if table.get("shipped").and_then(toml::Value::as_bool) != Some(true) {
            job.push_str(&format!("[reference.{name}]\npath = \"{}\"\n", path.display()));
        }
    }
    Ok(job)
}

#[test]
fn every_rule_is_governed() -> Result<()> {
    let scratch = Scratch::new("governed")?;
    fs::write(scratch.path().join("wattline.toml"), whole_job()?)?;
    let (clean, text) = wattline(&["check", "--strict"], scratch.path())?;
    ensure!(clean, "{text}");
    let told = text.lines().last().context("nothing is said")?;
    let rules: usize =
        told.split(", ").nth(1).and_then(|part| part.split(' ').next()?.parse().ok()).context(told.to_owned())?;
    ensure!(rules >= RULES_MIN && !text.contains("left out"), "{text}");
    Ok(())
}

#[test]
fn a_job_has_the_rules_that_it_has_streams_and_tables_for() -> Result<()> {
    let scratch = Scratch::new("some")?;
    let job = "job = \"some\"\n[archive]\nurl = \"archive\"\n[streams.meter_events]\nschema = \"builtin:meter_events\"\nfiles = \"none/*\"\n";
    fs::write(scratch.path().join("wattline.toml"), job)?;
    let (clean, text) = wattline(&["check"], scratch.path())?;
    ensure!(clean && text.contains("left out, as the job has no `pq_points`: "), "{text}");
    ensure!(text.lines().last().is_some_and(|told| !told.contains(" 0 rules")), "{text}");
    let named = format!("{job}[rules]\npaths = [\"builtin:power_quality/pq_flicker\"]\n");
    fs::write(scratch.path().join("wattline.toml"), named)?;
    let (clean, text) = wattline(&["check"], scratch.path())?;
    ensure!(!clean && text.contains("WL-2103"), "a rule that is named has to run: {text}");
    Ok(())
}
