//! A shipped rule changed on yesterday's events, command by command as docs/rules.md has them, over the bundled sample.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::scratch::Scratch;
use crate::tree;

const RULE: &str = "pq_low_power_factor";

/// Exit status, and what it prints.
fn wattline(args: &[&str], folder: &Path) -> Result<(bool, String)> {
    let output = Command::new(tree::wattline()?).args(args).current_dir(folder).output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status.success(), text))
}

fn good(args: &[&str], folder: &Path) -> Result<String> {
    let (is_good, text) = wattline(args, folder)?;
    ensure!(is_good, "wattline {args:?}: {text}");
    Ok(text)
}

/// The sample job with few of its rules, so that it is soon done.
fn job(scratch: &Scratch) -> Result<()> {
    let folder = scratch.join("grid");
    good(&["init", "--sample", "grid"], scratch.path())?;
    let config = fs::read_to_string(folder.join("wattline.toml"))?;
    let kept = [
        RULE,
        "pq_voltage_windows",
        "pq_voltage_deviation",
        "pq_current_unbalance",
        "tx_missing_step",
        "dv_out_of_range",
    ];
    let is_kept = |line: &&str| {
        !line.contains("\"builtin:") || line.contains("schema = ") || kept.iter().any(|id| line.contains(id))
    };
    let config: Vec<&str> = config.lines().filter(is_kept).collect();
    fs::write(folder.join("wattline.toml"), config.join("\n")).context("cannot write the configuration")
}

#[test]
fn a_shipped_rule_is_changed_tried_and_put_in_place() -> Result<()> {
    let scratch = Scratch::new("recipe")?;
    job(&scratch)?;
    let folder = &scratch.join("grid");
    good(&["run", "--until-end"], folder)?;
    let (sql, cases) = (format!("{RULE}.sql"), format!("{RULE}.test.toml"));
    let shipped = good(&["rules", "show", RULE, "--builtin", "--sql"], folder)?;
    fs::write(folder.join(&sql), &shipped)?;
    fs::write(folder.join(&cases), good(&["rules", "show", RULE, "--builtin", "--cases"], folder)?)?;
    good(&["test", &sql], folder)?;

    let changed = shipped.replacen("{ limit = 0.85", "{ limit = 0.99", 1);
    ensure!(changed != shipped, "the header of the rule is not as this test knows it:\n{shipped}");
    fs::write(folder.join(&sql), &changed)?;
    let (passed, told) = wattline(&["test", &sql], folder)?;
    ensure!(!passed && told.contains("batch and stream:"), "the copy is tried, and no case knows its limit: {told}");
    let told = good(&["rules", "diff", RULE, &sql], folder)?;
    let judged = told.lines().find(|line| line.contains("judged otherwise")).context(told.clone())?;
    ensure!(!judged.contains(" 0 judged otherwise"), "{told}");
    ensure!(told.contains("firing false -> true"), "{told}");
    let told = good(&["rules", "diff", RULE, &sql, "--from", "1999-01-01", "--to", "1999-01-02"], folder)?;
    ensure!(told.contains("no rows in this stretch; `meter_readings` has events from 20"), "{told}");
    let windows = "builtin:power_quality/pq_voltage_windows";
    let told = good(&["rules", "diff", windows, "pq_voltage_windows", "--of", "pq_voltage_deviation"], folder)?;
    ensure!(told.contains(" 0 judged otherwise, 0 changed otherwise, 0 only before, 0 only after"), "{told}");
    let (compared, told) = wattline(&["rules", "diff", RULE, &sql, "--of", "tx_missing_step"], folder)?;
    ensure!(!compared && told.contains("does not read"), "{told}");

    fs::write(folder.join("sql").join(&sql), shipped.replacen("below 0.85", "under 0.85", 1))?;
    fs::rename(folder.join(&cases), folder.join("sql").join(&cases))?;
    fs::remove_file(folder.join(&sql))?;
    let told = good(&["check"], folder)?;
    ensure!(told.contains(&format!("sql/{sql} takes the place of builtin:power_quality/{sql}")), "{told}");
    let told = good(&["test"], folder)?;
    ensure!(
        told.contains("tx_missing_step::") && told.ends_with(" 0 failed\n"),
        "shipped cases have their own delay: {told}"
    );
    let told = good(&["alerts", "list", "--open", "--rule", "pq_current_unbalance", "--format", "csv"], folder)?;
    ensure!(told.lines().count() > 1 && told.contains("pq_current_unbalance"), "{told}");
    Ok(())
}

#[test]
fn what_two_streams_would_share_is_refused() -> Result<()> {
    let scratch = Scratch::new("shared")?;
    job(&scratch)?;
    let folder = &scratch.join("grid");
    let config = fs::read_to_string(folder.join("wattline.toml"))?;
    let other = "[streams.other]\nschema = \"builtin:meter_readings\"\nfiles = \"data/meter-readings/readings.*\"\n";
    fs::write(folder.join("wattline.toml"), format!("{config}\n{other}"))?;
    let (passed, told) = wattline(&["check"], folder)?;
    ensure!(!passed && told.contains("WL-1117"), "{told}");
    fs::write(folder.join("wattline.toml"), config.replace("    \"sql\",", "    \"sqll\","))?;
    let (passed, told) = wattline(&["check"], folder)?;
    ensure!(!passed && told.contains("there is no `sqll`"), "{told}");
    Ok(())
}
