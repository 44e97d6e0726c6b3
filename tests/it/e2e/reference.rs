//! The examples of `docs/rules.md`, as their reader would try them: whole rules and whole queries, over the shipped schemas.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::job::JobFolder;
use crate::tree;

const RUN_LIMIT: Duration = Duration::from_secs(60);

const JOB: &str = r#"
job = "reference"
[streams.meter_readings]
schema = "builtin:meter_readings"
files = "readings.ndjson"
[streams.business_transactions]
schema = "builtin:business_transactions"
files = "transactions.ndjson"
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

/// A case that comes to its contract in time, and one that comes to it a second too late.
const TRANSACTIONS: &str = r#"{"case_id":"A","process_type":"new","step":"apply","event_ts":"2026-03-01T00:00:00Z"}
{"case_id":"B","process_type":"new","step":"apply","event_ts":"2026-03-01T00:00:00Z"}
{"case_id":"A","process_type":"new","step":"survey","event_ts":"2026-03-02T00:00:00Z"}
{"case_id":"A","process_type":"new","step":"contract","event_ts":"2026-03-31T00:00:00Z"}
{"case_id":"B","process_type":"new","step":"contract","event_ts":"2026-03-31T00:00:01Z"}
"#;

/// The blocks of SQL that stand for themselves; fragments begin with FROM.
fn examples() -> Result<Vec<String>> {
    let page = fs::read_to_string(tree::root()?.join("docs/rules.md"))?;
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    Ok(blocks.filter(|block| !block.starts_with("FROM ")).map(str::to_owned).collect())
}

#[test]
fn examples_of_the_reference_run_and_say_what_they_are_there_for() -> Result<()> {
    let folder = JobFolder::new("reference")?;
    folder.write("wattline.toml", JOB)?;
    folder.write("meters.csv", "meter_id,nominal_v\nM1,220\n")?;
    folder.write("readings.ndjson", READINGS)?;
    folder.write("transactions.ndjson", TRANSACTIONS)?;
    let examples = examples()?;
    ensure!(examples.len() == 2, "the page has {} whole examples: say here what the new one gives", examples.len());
    for example in examples {
        let id = if example.contains("MATCH_RECOGNIZE") { "contracts" } else { "overvoltage" };
        let header = format!("/*---\nid = \"{id}\"\nkind = \"table\"\n---*/\n");
        let text = if example.starts_with("/*---") { example } else { header + &example };
        folder.write(&format!("sql/{id}.sql"), &text)?;
    }
    folder.answer(&["check"])?;
    folder.run_until_end(RUN_LIMIT)?;
    let contracts = folder.query("SELECT case_id, applied_at, last_step FROM contracts")?;
    assert_eq!(contracts, [json!({"case_id": "A", "applied_at": "2026-03-01T00:00:00Z", "last_step": "survey"})]);
    let alerts = folder.query("SELECT entity_id, status FROM alerts ORDER BY revision")?;
    let told = |status: &str| json!({"entity_id": "M1", "status": status});
    assert_eq!(alerts, [told("open"), told("resolved")]);
    Ok(())
}
