//! Questions about real data, `tests/answers`, whose answers are counted a second time without wattline.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::scratch::Scratch;
use crate::tree;

const QUESTIONS_MIN: usize = 36;

fn python(script: &str, args: &[&Path], options: &[&str]) -> Result<Output> {
    let script = tree::root()?.join("tests/answers").join(script);
    Ok(Command::new(tree::python()?).arg(script).args(args).args(options).output()?)
}

#[test]
fn rules_and_queries_give_what_is_counted_without_them() -> Result<()> {
    let job = Scratch::copy_of("answers", &tree::root()?.join("tests/answers"))?;
    let counted = python("recount.py", &[&job.join("data"), &job.join("reference")], &[])?;
    ensure!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    let [expected, counted]: [Value; 2] =
        [serde_json::from_slice(&fs::read(job.join("expected.json"))?)?, serde_json::from_slice(&counted.stdout)?];
    ensure!(expected == counted, "expected.json is not what recount.py counts");
    ensure!(expected.as_object().context("no answers")?.len() >= QUESTIONS_MIN, "questions are gone");
    let asked = python("check.py", &[&tree::wattline()?, job.path()], &["--replay"])?;
    let told = [asked.stdout, asked.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(asked.status.success(), "{told}");
    Ok(())
}

#[test]
fn the_cases_of_its_rules_pass() -> Result<()> {
    let job = tree::root()?.join("tests/answers");
    let tested = Command::new(tree::wattline()?).arg("test").current_dir(job).output()?;
    ensure!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    Ok(())
}
