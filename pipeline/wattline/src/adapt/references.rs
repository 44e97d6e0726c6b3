//! Reference tables that change while a job runs: seen by their stamps, read again, and compiled into new programs.
//!
//! Tables that are topics are read for the first time when a job is built, so that no event is joined to an empty one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use wattline_connect::kafka::register::{Register, RegisterConfig};
use wattline_connect::reference::reference_stamp;
use wattline_runtime::port::{Freshness, References, ReferencesSeen};
use wattline_sql::{ReferenceTable, RuleFile, RuleSet, UserFunctions};

use crate::assets::BUILTIN;
use crate::config;
use crate::job::{RunPrograms, kafka_properties};
use crate::project::{LoadedStream, Project, catalog, for_rules, read_reference, reference_options};

/// The tables of a project, and the rules that join to them.
#[derive(Debug)]
pub(crate) struct ReferenceFiles {
    folder: PathBuf,
    configured: BTreeMap<String, config::Reference>,
    streams: Vec<LoadedStream>,
    functions: UserFunctions,
    rule_files: Vec<RuleFile>,
    rules: RuleSet,
    versions: BTreeMap<String, String>,
    /// The tables that are topics.
    registers: BTreeMap<String, Register>,
    stamps: BTreeMap<String, Stamp>,
    /// What was wrong at the last look: it is told once.
    told: Vec<String>,
    run: RunPrograms,
}

/// When a table was last written, and what tells that it was written again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    changed_ms: i64,
    state: String,
}

impl ReferenceFiles {
    /// `None` if the project has no reference tables. Blocks while it finds the topics.
    ///
    /// # Errors
    /// If a topic is not there, or no broker answers.
    pub(crate) fn of(project: &Project, run: RunPrograms) -> anyhow::Result<Option<Self>> {
        let configured = project.config.reference.iter();
        let configured: BTreeMap<_, _> = configured.map(|(name, of)| (name.clone(), of.get_ref().clone())).collect();
        let mut registers = BTreeMap::new();
        for (name, reference) in &configured {
            let (Some(topic), Some(kafka)) = (&reference.topic, &project.config.kafka) else { continue };
            let register = Register::connect(RegisterConfig {
                bootstrap_servers: kafka.bootstrap_servers.clone(),
                properties: kafka_properties(kafka)?,
                topic: topic.clone(),
                timeout: kafka.connect_timeout.duration(),
            })?;
            registers.insert(name.clone(), register);
        }
        Ok((!configured.is_empty()).then(|| Self {
            folder: project.folder.clone(),
            configured,
            streams: project.streams.clone(),
            functions: project.functions.clone(),
            rule_files: project.rule_files.clone(),
            rules: project.rules.clone(),
            versions: project.references.clone(),
            // The first look reads all tables: they may have changed since the project was loaded.
            stamps: BTreeMap::new(),
            registers,
            told: Vec::new(),
            run,
        }))
    }

    /// Whether some tables are topics, which nobody has read yet.
    pub(crate) fn awaits_first_look(&self) -> bool {
        !self.registers.is_empty() && self.stamps.is_empty()
    }

    /// Looks at a table without making rows of it.
    fn stamp(&mut self, name: &str) -> Result<Stamp, wattline_connect::Error> {
        if let Some(register) = self.registers.get_mut(name) {
            register.read_to_end()?;
            return Ok(Stamp { changed_ms: register.changed_ms(), state: register.version() });
        }
        let path = self.configured.get(name).and_then(|reference| reference.path.clone()).unwrap_or_default();
        if path.starts_with(BUILTIN) {
            return Ok(Stamp { changed_ms: i64::MAX, state: "comes with the program".to_owned() });
        }
        let stamp = reference_stamp(&self.folder.join(path))?;
        Ok(Stamp { changed_ms: stamp.changed_ms, state: stamp.size.to_string() })
    }

    fn read(
        &self,
        name: &str,
        reference: &config::Reference,
    ) -> Result<(ReferenceTable, String), wattline_connect::Error> {
        match self.registers.get(name) {
            Some(register) => Ok(for_rules(name, register.table(&reference_options(name, reference))?)),
            None => read_reference(&self.folder, name, reference),
        }
    }

    /// The tables as they are, if one of them has another version.
    fn read_changed(&mut self, seen: &mut ReferencesSeen) -> Option<Vec<(ReferenceTable, String)>> {
        let mut stamps = BTreeMap::new();
        for name in self.configured.keys().cloned().collect::<Vec<_>>() {
            match self.stamp(&name) {
                Ok(stamp) => {
                    stamps.insert(name, stamp);
                }
                Err(error) => seen.problems.push(format!("reference table `{name}`: {error}")),
            }
        }
        for (name, reference) in &self.configured {
            // A table that is not there is as old as it was when it was last seen.
            let stamp = stamps.get(name).or_else(|| self.stamps.get(name));
            if let (Some(within), Some(stamp)) = (reference.fresh_within, stamp) {
                let (table, changed_ms) = (name.clone(), stamp.changed_ms);
                seen.freshness.push(Freshness { table, changed_ms, within_ms: within.0 });
            }
        }
        if stamps.len() < self.configured.len() {
            return None;
        }
        if stamps == self.stamps {
            return None;
        }
        let mut tables = Vec::with_capacity(self.configured.len());
        for (name, reference) in &self.configured {
            match self.read(name, reference) {
                Ok(table) => tables.push(table),
                Err(error) => {
                    // A file that is being written is whole at one of the next looks.
                    seen.problems.push(format!("reference table `{name}`: {error}"));
                    return None;
                }
            }
        }
        self.stamps = stamps;
        tables.iter().any(|(table, version)| self.versions.get(&table.name) != Some(version)).then_some(tables)
    }

    /// The same rules over other tables.
    fn compile(&self, tables: Vec<(ReferenceTable, String)>) -> Result<(RuleSet, BTreeMap<String, String>), String> {
        let mut catalog = catalog(&self.functions).map_err(|error| error.to_string())?;
        for stream in &self.streams {
            catalog.add_stream(stream.for_rules()).map_err(|error| error.to_string())?;
        }
        let mut versions = BTreeMap::new();
        for (table, version) in tables {
            versions.insert(table.name.clone(), version);
            catalog.add_reference(table).map_err(|error| error.to_string())?;
        }
        let rules = RuleSet::compile(&catalog, &self.rule_files).map_err(|mistakes| {
            let messages: BTreeSet<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
            let messages: Vec<&str> = messages.into_iter().collect();
            format!("with the new reference tables the rules have mistakes: {}", messages.join("; "))
        })?;
        let of = |rules: &RuleSet| -> Vec<String> {
            let states = rules.states().iter().map(|state| state.fingerprint.clone());
            rules.rules().iter().map(|rule| rule.fingerprint.clone()).chain(states).collect()
        };
        if of(&rules) != of(&self.rules) {
            let message =
                "the columns of a reference table have changed, and with them what rules mean: restart the job";
            return Err(message.to_owned());
        }
        Ok((rules, versions))
    }
}

impl References for ReferenceFiles {
    fn look(&mut self) -> ReferencesSeen {
        let mut seen = ReferencesSeen::default();
        let tables = self.read_changed(&mut seen);
        let known = std::mem::replace(&mut self.told, seen.problems.clone());
        if known == seen.problems {
            seen.problems.clear();
        }
        let Some(tables) = tables else { return seen };
        match self.compile(tables) {
            Err(problem) => seen.problems.push(problem),
            Ok((rules, versions)) => {
                self.versions.clone_from(&versions);
                seen.reloaded = Some(self.run.programs(&rules, versions));
                self.rules = rules;
            }
        }
        seen
    }
}
