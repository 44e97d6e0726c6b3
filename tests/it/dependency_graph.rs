//! Who depends on whom, as Cargo itself resolves it.
//!
//! Cargo's JSON is read here by hand. The crate made for it, `cargo_metadata`, switches on a feature of `serde_json` that nothing
//! else uses; with it every dependency above `serde_json`, the engine included, would be compiled once for tests and once more for
//! the program ([`features_changed_by_tests`] watches over that).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::tree;

/// The resolved packages of this workspace and of everything below it.
#[derive(Debug)]
pub(crate) struct DependencyGraph {
    names: BTreeMap<String, String>,
    members: Vec<String>,
    /// Package → the packages that end up in a build of it; those of its tests are left out.
    edges: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None, `build` or `dev`.
    kind: Option<String>,
}

impl DependencyGraph {
    /// Asks Cargo; fails if `Cargo.lock` is not up to date.
    pub(crate) fn load() -> Result<Self> {
        let json = cargo(&["metadata", "--format-version", "1"])?;
        let metadata: Metadata = serde_json::from_str(&json).context("`cargo metadata` answers in another form")?;
        let in_build = |dep: &Dependency| dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
        let targets = |node: Node| node.deps.into_iter().filter(in_build).map(|dep| dep.pkg).collect();
        Ok(Self {
            names: metadata.packages.into_iter().map(|package| (package.id, package.name)).collect(),
            members: metadata.workspace_members,
            edges: metadata.resolve.nodes.into_iter().map(|node| (node.id.clone(), targets(node))).collect(),
        })
    }

    /// The names of the members of the workspace.
    pub(crate) fn members(&self) -> BTreeSet<&str> {
        self.members.iter().map(|id| self.name(id)).collect()
    }

    /// What `member` names in its own manifest.
    pub(crate) fn direct(&self, member: &str) -> Result<BTreeSet<&str>> {
        Ok(self.edges_of(self.id(member)?)?.iter().map(|id| self.name(id)).collect())
    }

    /// Everything in a build of `member`, however deep.
    pub(crate) fn reached(&self, member: &str) -> Result<BTreeSet<&str>> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&String> = self.edges_of(self.id(member)?)?.iter().collect();
        while let Some(id) = open.pop() {
            if reached.insert(id) {
                open.extend(self.edges_of(id)?);
            }
        }
        Ok(reached.into_iter().map(|id| self.name(id)).collect())
    }

    fn id(&self, member: &str) -> Result<&str> {
        let id = self.members.iter().find(|id| self.name(id) == member);
        id.map(String::as_str).with_context(|| format!("no package `{member}` in the workspace"))
    }

    fn name(&self, id: &str) -> &str {
        self.names.get(id).map_or("", String::as_str)
    }

    fn edges_of(&self, id: &str) -> Result<&[String]> {
        self.edges.get(id).map(Vec::as_slice).with_context(|| format!("`{id}` is not resolved"))
    }
}

/// Packages that are compiled twice, because a dependency of tests switches on features which the program does not use.
pub(crate) fn features_changed_by_tests() -> Result<Vec<String>> {
    let of_program = features("normal,build")?;
    let with_tests = features("normal,build,dev")?;
    let changed =
        of_program.iter().filter(|(package, features)| with_tests.get(*package).is_some_and(|all| all != *features));
    Ok(changed.map(|(package, features)| format!("{package}: {features:?} and {:?}", with_tests[package])).collect())
}

/// Package with version → the feature sets that it is compiled with.
fn features(edges: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = cargo(&["tree", "--workspace", "--prefix", "none", "--format", "{p}|{f}", "--edges", edges])?;
    let mut features: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (package, enabled) in text.lines().filter_map(|line| line.split_once('|')) {
        features.entry(package.to_owned()).or_default().insert(enabled.trim_end_matches(" (*)").to_owned());
    }
    Ok(features)
}

fn cargo(args: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO")).args(args).arg("--locked").current_dir(tree::root()?).output()?;
    ensure!(output.status.success(), "`cargo {}`: {}", args[0], String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).context("Cargo's answer is not UTF-8")
}
