//! The shipped rules: their cases pass, their pages are current, and they say what a stranger would ask.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::scratch::Scratch;
use crate::tree;

/// Ways in which checks of this field are often wrong, and the cases that show that the shipped rules are not. One more, a source that
/// stamps the start of its intervals, is a matter of the stream: [`who_stamps_the_start_of_an_interval_is_put_right`].
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

const CASES_MIN: usize = 1000;
const RULES_MIN: usize = 230;

fn wattline(args: &[&str], folder: &Path) -> Result<(bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_wattline")).args(args).current_dir(folder).output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status.success(), text))
}

/// Kinds of case that a rule cannot have, and why.
const CANNOT_SHOW: [(&str, &str, &str); 9] = [
    ("rd_meter_swap", "resolved", "each pair of service point and meter gives one row ever"),
    ("op_failed_rules", "late", "rows of a table of the system come in order"),
    ("op_many_rules_fail", "late", "rows of a table of the system come in order"),
    ("op_pipeline_days", "late", "rows of a table of the system come in order"),
    ("op_refused_new", "late", "rows of a table of the system come in order"),
    ("op_refused_records", "late", "rows of a table of the system come in order"),
    ("op_refused_steadily", "late", "rows of a table of the system come in order"),
    ("op_failed_rules", "quiet", "every row is a violation"),
    ("op_refused_new", "quiet", "every first refusal is one"),
];

/// The rules of a folder below `sql`: id, whether they give alerts, whether they judge good rows too.
fn rules_of(folder: &Path, found: &mut Vec<(String, bool, bool)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rules_of(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "sql") {
            let text = fs::read_to_string(&path)?;
            let (header, query) = text.split_once("---*/").with_context(|| path.display().to_string())?;
            let is_of = |kind: &str| {
                header.lines().any(|line| line.starts_with("kind ") && line.ends_with(&format!("\"{kind}\"")))
            };
            let id = path.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
            if is_of("alert") || is_of("table") {
                found.push((id, is_of("alert"), query.contains("firing")));
            }
        }
    }
    Ok(())
}

#[test]
fn every_case_passes_no_trap_catches_and_every_rule_has_every_kind() -> Result<()> {
    let root = tree::root()?;
    let (passed, text) = wattline(&["test", "--builtin", "--format", "json"], &root)?;
    let cases: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
    let failed: Vec<&Value> = cases.iter().filter(|case| case["passed"] != true).collect();
    ensure!(passed && failed.is_empty(), "{failed:#?}");
    ensure!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let of_case = |case: &Value, name: &str| case[name].as_str().map(str::to_owned).unwrap_or_default();
    let names: BTreeSet<String> =
        cases.iter().map(|case| format!("{}::{}", of_case(case, "rule"), of_case(case, "test"))).collect();
    for (trap, shown_by) in TRAPS {
        for case in shown_by {
            ensure!(names.contains(*case), "{trap}: there is no case `{case}`");
        }
    }
    let mut shown = BTreeSet::new();
    for case in &cases {
        let kinds = case["shows"].as_array().into_iter().flatten().filter_map(Value::as_str);
        shown.extend(kinds.map(|kind| (of_case(case, "rule"), kind.to_owned())));
    }
    let mut rules = Vec::new();
    for area in ["power_quality", "integrity", "anomaly", "operations", "security"] {
        rules_of(&root.join("sql").join(area), &mut rules)?;
    }
    ensure!(rules.len() >= RULES_MIN, "only {} rules", rules.len());
    for (id, gives_alerts, judges) in rules {
        let kinds = ["firing", "boundary", "missing", "late"].into_iter();
        let kinds = kinds.chain(gives_alerts.then_some("quiet")).chain((gives_alerts && judges).then_some("resolved"));
        for kind in kinds {
            let excused = CANNOT_SHOW.iter().any(|(rule, cannot, _why)| *rule == id && *cannot == kind);
            ensure!(
                excused != shown.contains(&(id.clone(), kind.to_owned())),
                "`{id}`: a case {} `shows = [\"{kind}\"]`",
                if excused { "has, and CANNOT_SHOW says it cannot, " } else { "lacks" }
            );
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

#[test]
fn the_page_of_an_own_rule_says_where_its_file_is() -> Result<()> {
    let scratch = Scratch::new("own-page")?;
    let job = "job = \"own\"\n[archive]\nurl = \"archive\"\n[rules]\npaths = [\"sql\"]\n\
               [streams.meter_readings]\nschema = \"builtin:meter_readings\"\nfiles = \"none/*\"\n";
    let rule = "/*---\nid = \"high\"\nkind = \"alert\"\ntitle = \"Voltage high\"\nentity = \"meter_id\"\n---*/\n\
                SELECT meter_id, ts, u_a_v AS measured FROM meter_readings WHERE u_a_v > 240\n";
    fs::create_dir_all(scratch.join("sql/voltage"))?;
    fs::write(scratch.join("wattline.toml"), job)?;
    fs::write(scratch.join("sql/voltage/high.sql"), rule)?;
    let (written, text) = wattline(&["rules", "pages", "pages"], scratch.path())?;
    ensure!(written, "{text}");
    let page = fs::read_to_string(scratch.join("pages/high.md"))?;
    for part in ["In `sql/voltage/high.sql`, change", "`wattline test sql/voltage/high.sql` tries it"] {
        ensure!(page.contains(part), "it does not say {part}:\n{page}");
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

/// Two days of hourly readings and an hour, of one meter whose head end stamps the end of each hour and of one whose head end stamps its
/// start.
fn hourly_readings() -> String {
    let mut lines = String::new();
    for hour in 1..=49_i64 {
        for (meter, source, stamped) in [("M1", "north", hour), ("M2", "south", hour - 1)] {
            // Local days begin at 16:00 UTC; the register moves by more each hour.
            let ts_ms = 1_772_380_800_000 + stamped * 3_600_000;
            let register = hour * (hour + 1) / 2;
            lines.push_str(&format!(
                "{{\"meter_id\":\"{meter}\",\"ts\":{ts_ms},\"source\":\"{source}\",\"interval_s\":3600,\"interval_imp_kwh\":{hour},\"energy_imp_kwh\":{register}}}\n"
            ));
        }
    }
    lines
}

#[test]
fn who_stamps_the_start_of_an_interval_is_put_right() -> Result<()> {
    let verdicts = |mapping: &str| -> Result<Vec<String>> {
        let scratch = Scratch::new("stamps")?;
        fs::write(scratch.path().join("readings.ndjson"), hourly_readings())?;
        let installations = tree::root()?.join("sql/reference/meter_installations.csv");
        let job = format!(
            "job = \"stamps\"\n[archive]\nurl = \"archive\"\n[rules]\npaths = [\"builtin:integrity/readings/rd_interval_sum\"]\n\
             [streams.meter_readings]\nschema = \"builtin:meter_readings\"\nfiles = \"readings.ndjson\"\ndelay = \"2 hours\"\n{mapping}\n\
             [reference.meter_installations]\npath = \"{}\"\n",
            installations.display()
        );
        fs::write(scratch.path().join("wattline.toml"), job)?;
        let (ran, text) = wattline(&["run", "--until-end"], scratch.path())?;
        ensure!(ran, "{text}");
        let rows = wattline(&["replay", "rd_interval_sum", "--format", "json"], scratch.path())?.1;
        let rows = rows.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().context(rows.clone())?;
        Ok(rows
            .iter()
            .map(|row| format!("{} {} kWh {}", row["meter_id"], row["measured"], row["local_date"]))
            .collect())
    };
    let shift = "mapping.shift.ts = { by = \"source\", values = { south = \"1 hour\" } }";
    // 25 + … + 48 kWh, and the hours from 2 to 25 and from 26 to 49 where starts are taken for ends.
    assert_eq!(verdicts(shift)?, [r#""M1" 876.0 kWh "2026-03-03""#, r#""M2" 876.0 kWh "2026-03-03""#]);
    let wrong = [r#""M1" 876.0 kWh "2026-03-03""#, r#""M2" 324.0 kWh "2026-03-02""#, r#""M2" 900.0 kWh "2026-03-03""#];
    assert_eq!(verdicts("")?, wrong);
    Ok(())
}
