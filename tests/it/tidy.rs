//! The rules of the house that no compiler holds: who may see whom, what every file has, what the documents promise.
//!
//! Crate borders are checked on Cargo's own resolution, so a forbidden crate is found however deep it hides. All offences are
//! collected and named at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::dependency_graph::{DependencyGraph, features_changed_by_tests};
use crate::tree;

const LINES_MAX: usize = 800;
/// In two pieces, so that this file is not found by itself.
const OPEN_ENDS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];

/// What a crate must not see. A name ending in `*` stands for all names with that beginning.
struct Border {
    name: &'static str,
    /// Members of the workspace it may use; every other one is forbidden.
    members: &'static [&'static str],
    /// Forbidden at any depth.
    never: &'static [&'static str],
    /// Forbidden as a dependency of its own; another dependency may bring it along.
    not_itself: &'static [&'static str],
}

const BORDERS: &[Border] = &[
    Border {
        name: "wattline-core",
        members: &[],
        never: &[
            "tokio*",
            "datafusion*",
            "arrow*",
            "parquet",
            "rdkafka*",
            "object_store",
            "deltalake*",
            "futures*",
            "async-*",
            "rand*",
            "chrono",
            "tracing*",
        ],
        not_itself: &[],
    },
    Border {
        name: "wattline-decode",
        members: &["wattline-core"],
        never: &["datafusion*", "rdkafka*", "object_store", "deltalake*", "tokio*"],
        not_itself: &[],
    },
    Border {
        name: "wattline-sql",
        members: &["wattline-core"],
        never: &["rdkafka*", "deltalake*"],
        not_itself: &["object_store"],
    },
    Border { name: "wattline-connect", members: &["wattline-core"], never: &[], not_itself: &[] },
    Border {
        name: "wattline-runtime",
        members: &["wattline-core"],
        never: &["datafusion*", "rdkafka*", "deltalake*"],
        not_itself: &[],
    },
    Border {
        name: "wattline-sim",
        members: &["wattline-core", "wattline-runtime"],
        never: &["datafusion*"],
        not_itself: &[],
    },
    Border {
        name: "wattline",
        members: &["wattline-core", "wattline-decode", "wattline-sql", "wattline-connect", "wattline-runtime"],
        never: &[],
        not_itself: &[],
    },
    Border {
        name: "wattline-bench",
        members: &["wattline-sim"],
        never: &["datafusion*", "deltalake*"],
        not_itself: &[],
    },
];

#[test]
fn crates_see_only_what_they_may() -> Result<()> {
    let graph = DependencyGraph::load()?;
    let mut offences = Vec::new();
    for member in graph.members() {
        let Some(border) = BORDERS.iter().find(|border| border.name == member) else {
            offences.push(format!("`{member}` has no entry in the table of borders"));
            continue;
        };
        let all = graph.reached(member)?;
        let foreign = all.iter().filter(|name| name.starts_with("wattline") && !border.members.contains(name));
        let hidden = all.iter().filter(|name| matches_any(border.never, name));
        offences.extend(foreign.chain(hidden).map(|name| format!("`{member}` sees `{name}`")));
        let direct = graph.direct(member)?;
        let own = direct.iter().filter(|name| matches_any(border.not_itself, name));
        offences.extend(own.map(|name| format!("`{member}` depends on `{name}` itself")));
    }
    report("crates beyond their border", offences)
}

#[test]
fn the_border_check_can_fail() -> Result<()> {
    let graph = DependencyGraph::load()?;
    let all = graph.reached("wattline")?;
    ensure!(
        all.iter().any(|name| matches_any(&["datafusion*"], name)),
        "the binary's own engine is not found: {all:?}"
    );
    ensure!(!matches_any(&["arrow*", "parquet"], "parquet-variant"));
    Ok(())
}

#[test]
fn tests_and_program_share_one_build() -> Result<()> {
    report("packages that are compiled twice, for the program and for its tests", features_changed_by_tests()?)
}

#[test]
fn versions_live_in_the_root() -> Result<()> {
    let root = tree::root()?;
    let mut offences = Vec::new();
    let workspace: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let versions =
        workspace.get("workspace").and_then(|table| table.get("dependencies")).and_then(toml::Value::as_table);
    for (name, entry) in versions.context("the root has no `[workspace.dependencies]`")? {
        let version = entry.as_str().or_else(|| entry.get("version").and_then(toml::Value::as_str));
        if version.is_some_and(|version| version.contains('*')) {
            offences.push(format!("`{name}` takes any version in the root"));
        }
    }
    let manifests = ["pipeline/*/Cargo.toml", "tests/*/Cargo.toml", "benches/**/Cargo.toml"];
    for manifest in manifests.iter().map(|pattern| files(&root, pattern)).collect::<Result<Vec<_>>>()?.concat() {
        let package: toml::Table = fs::read_to_string(&manifest)?.parse()?;
        let inherits = |entry: &toml::Value| entry.get("workspace").and_then(toml::Value::as_bool) == Some(true);
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = package.get(kind).and_then(toml::Value::as_table).into_iter().flatten();
            let own = entries.filter(|(_, entry)| !inherits(entry));
            offences.extend(
                own.map(|(name, _)| format!("{}: `{name}` is not `{name}.workspace = true`", manifest.display())),
            );
        }
        if !package.get("lints").is_some_and(inherits) {
            offences.push(format!("{}: no `[lints] workspace = true`", manifest.display()));
        }
    }
    report("manifests that go their own way", offences)
}

#[test]
fn every_source_file_says_what_it_is_and_stays_readable() -> Result<()> {
    let root = tree::root()?;
    let mut offences = Vec::new();
    let sources = ["pipeline/**/*.rs", "tests/**/*.rs", "benches/**/*.rs"];
    for source in sources.iter().map(|pattern| files(&root, pattern)).collect::<Result<Vec<_>>>()?.concat() {
        let text = fs::read_to_string(&source)?;
        let name = source.strip_prefix(&root)?.display();
        if !text.starts_with("//! ") {
            offences.push(format!("{name} does not open with `//!`: what is it, and why is it so?"));
        }
        if OPEN_ENDS.iter().any(|word| text.contains(word)) {
            offences.push(format!("{name} leaves something for later: do it, or file it"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            offences.push(format!("{name} has {lines} lines; split it by idea, {LINES_MAX} is the limit"));
        }
        if source.file_name().is_some_and(|name| name == "mod.rs") {
            offences.push(format!("{name}: use `<module>.rs` beside the folder"));
        }
    }
    report("untidy source files", offences)
}

#[test]
fn every_rule_has_its_test() -> Result<()> {
    let root = tree::root()?;
    let rules: BTreeSet<PathBuf> =
        files(&root, "sql/**/*.sql")?.into_iter().map(|file| file.with_extension("")).collect();
    let tests = files(&root, "sql/**/*.test.toml")?;
    let tested: BTreeSet<PathBuf> = tests.into_iter().map(|file| file.with_extension("").with_extension("")).collect();
    ensure!(!rules.is_empty(), "there is no rule under `sql/`");
    // A view has no result of its own: the rules that read it have the cases.
    let is_view = |rule: &&PathBuf| {
        fs::read_to_string(root.join(rule.with_extension("sql")))
            .is_ok_and(|text| text.lines().any(|line| line.split('=').map(str::trim).eq(["kind", "\"view\""])))
    };
    // Reports are compared with answers: see `reports.rs`.
    let is_report = |rule: &&PathBuf| rule.components().any(|part| part.as_os_str() == "reports");
    let untested = rules
        .difference(&tested)
        .filter(|rule| !is_view(rule) && !is_report(rule))
        .map(|rule| format!("{}.sql has no .test.toml", rule.display()));
    let orphans = tested.difference(&rules).map(|rule| format!("{}.test.toml has no .sql", rule.display()));
    report("rules and tests that do not pair", untested.chain(orphans).collect())
}

#[test]
fn documents_name_files_that_exist() -> Result<()> {
    let root = tree::root()?;
    let mut offences = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(document)).with_context(|| format!("no `{document}`"))?;
        let spans = text.split('`').skip(1).step_by(2);
        for span in spans.filter(|span| is_path_of_the_tree(span)) {
            if !root.join(span.trim_end_matches('/')).exists() {
                offences.push(format!("{document} names `{span}`"));
            }
        }
    }
    report("paths that do not exist", offences)
}

#[test]
fn documents_name_commands_that_exist() -> Result<()> {
    let root = tree::root()?;
    let text = fs::read_to_string(root.join("README.md")).context("no `README.md`")?;
    let output = Command::new(tree::wattline()?).arg("--help").output().context("cannot run `wattline --help`")?;
    ensure!(output.status.success(), "`wattline --help` ends with {}", output.status);
    let help = String::from_utf8(output.stdout)?;
    let known: BTreeSet<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    let named = wattline_commands(&text);
    ensure!(named.contains("demo"), "the README does not show `demo`: {named:?}");
    let unknown = named.iter().filter(|command| !known.contains(command.as_str()));
    report("commands that `wattline --help` does not list", unknown.map(|command| format!("`{command}`")).collect())
}

/// The words that follow `wattline` or `cargo run … --` in the fenced blocks of a document.
fn wattline_commands(text: &str) -> BTreeSet<String> {
    let fenced = text.split("```").skip(1).step_by(2).flat_map(str::lines);
    let after = |line: &str| {
        let line = line.trim_start().trim_start_matches("$ ");
        let rest =
            if line.starts_with("cargo run ") { line.split_once(" -- ")?.1 } else { line.strip_prefix("wattline ")? };
        let word = rest.split_whitespace().next()?;
        (!word.starts_with(['-', '<', '['])).then(|| word.to_owned())
    };
    fenced.filter_map(after).collect()
}

/// Whether a code span of a document means a file or folder of this tree.
fn is_path_of_the_tree(span: &str) -> bool {
    const FOLDERS: [&str; 8] = ["pipeline/", "tests/", "sql/", "schemas/", "benches/", "deploy/", "scripts/", ".ci/"];
    let pattern = span.contains(['*', '<', '{', ' ', '…']);
    !pattern && FOLDERS.iter().any(|folder| span.starts_with(folder))
}

fn matches_any(patterns: &[&str], name: &str) -> bool {
    let matches = |pattern: &&str| pattern.strip_suffix('*').map_or(name == *pattern, |start| name.starts_with(start));
    patterns.iter().any(matches)
}

fn files(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let pattern = root.join(pattern);
    let paths = glob::glob(pattern.to_str().context("the path of the checkout is not UTF-8")?)?;
    Ok(paths.collect::<Result<_, _>>()?)
}

fn report(what: &str, offences: Vec<String>) -> Result<()> {
    ensure!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
    Ok(())
}
