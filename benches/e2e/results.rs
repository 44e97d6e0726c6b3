//! What a bench found: lines for people, and JSON with the machine and the commit.

use std::fs;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{machine, tree};

/// Prints a line; a reader that is gone is no reason to fail.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or_default();
}

/// Writes the JSON object `found` with what was measured, when, where and of which commit; into `bench/<name>.json` of the
/// target folder unless a file of the tree is named. Gives the path.
pub(crate) fn write(name: &str, out: Option<&str>, what: &str, found: Value) -> Result<String> {
    let mut report = json!({
        "what": what,
        "measured_at_s": now_s()?,
        "machine": machine::describe(),
        "commit": machine::commit(),
    });
    if let (Some(report), Value::Object(found)) = (report.as_object_mut(), found) {
        report.extend(found);
    }
    let path = match out {
        Some(path) => tree::root()?.join(path),
        None => tree::target_folder()?.join(format!("bench/{name}.json")),
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&report)?))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path.display().to_string())
}

#[expect(clippy::disallowed_methods, reason = "a report says when it was measured")]
fn now_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
