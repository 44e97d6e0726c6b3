//! The example of `docs/rules.md`, as its reader would try it: a whole alert rule, over a shipped schema.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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

/// Twice 10 minutes of a meter, the first of them above +7 % of its nominal voltage.
const READINGS: &str = r#"{"meter_id":"M1","ts":"2026-03-02T00:01:00Z","u_a_v":240}
{"meter_id":"M1","ts":"2026-03-02T00:11:00Z","u_a_v":220}
"#;

/// The one block of SQL of the page.
fn example() -> Result<String> {
    let page = fs::read_to_string(tree::root()?.join("docs/rules.md"))?;
    let mut blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = blocks.next().context("the page has no example")?;
    ensure!(
        blocks.next().is_none(),
        "the page has another example: say here what it gives, or put it into docs/sql.md"
    );
    Ok(example.to_owned())
}

#[test]
fn the_first_rule_runs_and_says_what_it_is_there_for() -> Result<()> {
    let folder = JobFolder::new("reference")?;
    folder.write("wattline.toml", JOB)?;
    folder.write("meters.csv", "meter_id,nominal_v\nM1,220\n")?;
    folder.write("readings.ndjson", READINGS)?;
    folder.write("sql/overvoltage.sql", &example()?)?;
    folder.answer(&["check"])?;
    folder.run_until_end(RUN_LIMIT)?;
    let alerts = folder.query("SELECT entity_id, status FROM alerts ORDER BY revision")?;
    let told = |status: &str| json!({"entity_id": "M1", "status": status});
    assert_eq!(alerts, [told("open"), told("resolved")]);
    Ok(())
}
