//! A program with functions of its own: its rules are checked, tested and run like any, and a name that is taken is refused.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::job::JobFolder;
use crate::tree;

const RUN_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn rules_use_functions_that_a_program_brings_along() -> Result<()> {
    let project = tree::root()?.join("tests/own_functions");
    let folder = JobFolder::of_program(tree::example("own_functions")?, "own-functions")?;
    let files = [
        "wattline.toml",
        "feeder_loads.avsc",
        "feeder_loads.ndjson",
        "sql/phase_shares.sql",
        "sql/phase_shares.test.toml",
    ];
    for file in files {
        folder.write(file, &fs::read_to_string(project.join(file))?)?;
    }
    folder.answer(&["check"])?;
    let tested = folder.answer(&["test"])?;
    assert!(tested.contains("one phase carries half"), "{tested}");
    folder.run_until_end(RUN_LIMIT)?;
    let rows = folder.lines("SELECT feeder, phase, spread_a, share FROM phase_shares ORDER BY feeder, phase")?;
    assert_eq!(
        rows,
        [
            r#"{"feeder":"F1","phase":"a","share":0.5,"spread_a":40.0}"#,
            r#"{"feeder":"F1","phase":"b","share":0.25,"spread_a":20.0}"#,
            r#"{"feeder":"F1","phase":"c","share":0.25,"spread_a":20.0}"#,
            r#"{"feeder":"F2","phase":"a","share":1.0,"spread_a":0.0}"#,
        ]
    );
    let archived =
        folder.query("SELECT spread(current_a) AS spread_a, max(per_unit(current_a, 200)) AS pu FROM feeder_loads")?;
    assert_eq!(archived[0].to_string(), r#"{"pu":0.6,"spread_a":95.0}"#);

    // The program as it is shipped does not know them.
    let shipped = JobFolder::new("without-functions")?;
    for file in files {
        shipped.write(file, &fs::read_to_string(project.join(file))?)?;
    }
    let refused = String::from_utf8(shipped.wattline(&["check"])?.stderr)?;
    assert!(refused.contains("WL-2105") && refused.contains("per_unit"), "{refused}");
    Ok(())
}
