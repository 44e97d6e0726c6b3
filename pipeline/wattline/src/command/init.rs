//! `wattline init`: a starter project that runs as it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::demo::SAMPLE;
use crate::cli::InitArgs;
use crate::{assets, report};

pub(super) fn run(args: &InitArgs) -> Result<ExitCode> {
    let folder = &args.folder;
    let taken =
        folder.exists() && std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()).unwrap_or(true);
    if taken {
        bail!("`{}` exists and is not an empty folder: name another one", folder.display());
    }
    let files = if args.sample { sample()? } else { assets::starter() };
    for (below, body) in &files {
        write(&folder.join(below), body)?;
    }
    let shown = folder.display();
    if args.sample {
        report::print(&format!(
            "made a project with the bundled sample in {shown}: {} files\n\n  cd {shown}\n  wattline run        # reads data/, writes archive/\n  wattline rules show pq_voltage_deviation\n  wattline alerts list\n",
            files.len()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    report::print(&format!(
        "made a starter project in {shown}: {} files\n\n  cd {shown}\n  wattline check      # what is wrong, and where\n  wattline test       # the tests beside the rules\n  wattline run        # reads data/, writes archive/\n  wattline query \"SELECT * FROM alerts\"\n\nThen read wattline.toml: it is the manual of itself.\n",
        files.len()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The job of the demo, with files where it has topics, and the sample.
fn sample() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for path in assets::sample_paths().into_iter().filter(|path| path.starts_with("reference/")) {
        let rows = sample_file(&path)?;
        files.insert(path, rows);
    }
    for (topic, names, _) in SAMPLE {
        for name in names {
            files.insert(format!("data/{topic}/{name}"), sample_file(name)?);
        }
    }
    let mut config = "# The job of `wattline demo` over files: the shipped rules over the bundled sample.\n".to_owned();
    let demo = assets::demo_config();
    let (_, sections) = demo.split_once("job = ").context("the demo that the program carries names no job")?;
    for section in format!("job = {sections}").replace("\"demo\"", "\"sample\"").split_inclusive("\n\n") {
        if section.starts_with("[kafka]") || section.starts_with("[alerts]") {
            continue;
        }
        for line in section.lines() {
            match line.strip_prefix("topic = \"").and_then(|rest| rest.strip_suffix('"')) {
                Some(topic) => config.push_str(&format!("files = \"data/{topic}/*\"\n")),
                None if line.starts_with("start = ") || line.starts_with("idle_timeout = ") => {}
                None => config.push_str(&format!("{line}\n")),
            }
        }
    }
    // Rules of the job's own.
    let config = config.replace("paths = [\n", "paths = [\n    \"sql\",\n");
    files.insert("wattline.toml".to_owned(), config.into_bytes());
    files.insert(
        "sql/README.md".to_owned(),
        b"Rules of this job; one with the id of a shipped rule takes its place.\n".to_vec(),
    );
    Ok(files)
}

/// A file of the bundled sample.
pub(super) fn sample_file(path: &str) -> Result<Vec<u8>> {
    let file = assets::sample(path).with_context(|| format!("the program lacks the sample file `{path}`"))?;
    Ok(file.into_owned())
}

/// Writes a file and the folders above it.
pub(super) fn write(path: &Path, body: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| {
            format!("folder `{}` cannot be made: choose a place where you may write", parent.display())
        })?;
    }
    std::fs::write(path, body)
        .with_context(|| format!("file `{}` cannot be written: choose a place where you may write", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_whole() {
        let files = sample().expect("the program carries it");
        assert!(files.contains_key("wattline.toml") && files.values().all(|body| !body.is_empty()));
        for (topic, names, _) in SAMPLE {
            assert!(names.iter().all(|name| files.contains_key(&format!("data/{topic}/{name}"))), "{topic}");
        }
        let error = sample_file("no_such_file.csv").expect_err("nobody carries that");
        assert!(error.to_string().contains("`no_such_file.csv`"), "{error}");
    }
}
