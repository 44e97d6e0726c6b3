//! Where and what was measured: processor, memory, commit.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::tree;

pub(crate) fn describe() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({
        "processor": line_of("/proc/cpuinfo", "model name"),
        "cores": cores,
        "memory": line_of("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
    })
}

/// The commit, and whether the work tree differs from it.
pub(crate) fn commit() -> Value {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .current_dir(tree::root().ok()?)
            .output()
            .ok()
            .filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    json!({ "id": git(&["rev-parse", "HEAD"]), "changed": git(&["status", "--porcelain"]).map(|text| !text.is_empty()) })
}

fn line_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}
