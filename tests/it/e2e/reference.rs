//! The examples of `docs/rules.md`, as their reader would try them: whole alert rules, over a shipped schema.

use std::fs;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use serde_json::json;

use super::job::JobFolder;
use crate::tree;

const RUN_LIMIT: Duration = Duration::from_secs(60);

const JOB: &str = r#"
job = "reference"
[streams.meter_readings]
schema = "builtin:meter_readings"
files = "readings.ndjson"
[reference.meters]
path = "meters.csv"
[rules]
paths = ["sql"]
[archive]
url = "archive"
"#;

/// Twice 10 minutes of a meter, the first of them above +7 % of its nominal voltage, and a reading of a far future.
const READINGS: &str = r#"{"meter_id":"M1","ts":"2026-03-02T00:01:00Z","u_a_v":240}
{"meter_id":"M1","ts":"2026-03-02T00:11:00Z","u_a_v":220}
{"meter_id":"M1","ts":"2126-03-02T00:11:00Z","u_a_v":220}
"#;

/// The blocks of SQL of the page.
fn examples() -> Result<[String; 3]> {
    let page = fs::read_to_string(tree::root()?.join("docs/rules.md"))?;
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks: Vec<String> = blocks.map(str::to_owned).collect();
    let others = |blocks: Vec<String>| {
        anyhow!("the page has {} examples: say here what they give, or put them into docs/sql.md", blocks.len())
    };
    blocks.try_into().map_err(others)
}

#[test]
fn the_examples_run_and_say_what_they_are_there_for() -> Result<()> {
    let folder = JobFolder::new("reference")?;
    folder.write("wattline.toml", JOB)?;
    folder.write("meters.csv", "meter_id,nominal_v\nM1,220\n")?;
    folder.write("readings.ndjson", READINGS)?;
    let [overvoltage, clocks_ahead, mean_voltage] = examples()?;
    folder.write("sql/overvoltage.sql", &overvoltage)?;
    folder.write("sql/clocks_ahead.sql", &clocks_ahead)?;
    folder.write("sql/mean_voltage.sql", &mean_voltage)?;
    folder.answer(&["check"])?;
    folder.run_until_end(RUN_LIMIT)?;
    let of_rule = |rule: &str| {
        folder.query(&format!(
            "SELECT entity_id, status, measured FROM alerts WHERE rule_id = '{rule}' ORDER BY revision"
        ))
    };
    let told = |status: &str, measured: f64| json!({"entity_id": "M1", "status": status, "measured": measured});
    assert_eq!(of_rule("overvoltage")?, [told("open", 240.0), told("resolved", 220.0)]);
    let ahead = of_rule("clocks_ahead")?;
    ensure!(ahead.len() == 1 && ahead[0]["status"] == "open" && ahead[0]["measured"] == 1.0, "{ahead:?}");
    // A job that is new has no past to give.
    ensure!(folder.count("SELECT count(*) AS n FROM mean_voltage WHERE _backfilled_at IS NULL")? > 0);
    Ok(())
}
