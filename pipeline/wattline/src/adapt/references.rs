//! Reference tables that change while a job runs: seen by their stamps, read again, and compiled into new programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use wattline_connect::reference::{ReferenceStamp, reference_stamp};
use wattline_runtime::port::{Freshness, References, ReferencesSeen, Reloaded};
use wattline_sql::{Catalog, ReferenceTable, RuleFile, RuleSet};

use crate::config;
use crate::job::{lane_programs, merged_program, programs};
use crate::project::{LoadedStream, Project, read_reference};

/// The tables of a project, and the rules that join to them.
#[derive(Debug)]
pub(crate) struct ReferenceFiles {
    folder: PathBuf,
    configured: BTreeMap<String, config::Reference>,
    streams: Vec<LoadedStream>,
    rule_files: Vec<RuleFile>,
    rules: RuleSet,
    versions: BTreeMap<String, String>,
    stamps: BTreeMap<String, ReferenceStamp>,
    /// What was wrong at the last look: it is told once.
    told: Vec<String>,
    workers: usize,
}

impl ReferenceFiles {
    /// `None` if the project has no reference tables.
    pub(crate) fn of(project: &Project, workers: usize) -> Option<Self> {
        let configured = project.config.reference.iter();
        let configured: BTreeMap<_, _> = configured.map(|(name, of)| (name.clone(), of.get_ref().clone())).collect();
        (!configured.is_empty()).then(|| Self {
            folder: project.folder.clone(),
            configured,
            streams: project.streams.clone(),
            rule_files: project.rule_files.clone(),
            rules: project.rules.clone(),
            versions: project.references.clone(),
            // The first look reads all tables: they may have changed since the project was loaded.
            stamps: BTreeMap::new(),
            told: Vec::new(),
            workers,
        })
    }

    /// The tables as they are, if one of them has another version.
    fn read_changed(&mut self, seen: &mut ReferencesSeen) -> Option<Vec<(ReferenceTable, String)>> {
        let mut stamps = BTreeMap::new();
        for (name, reference) in &self.configured {
            match reference_stamp(&self.folder.join(&reference.path)) {
                Ok(stamp) => {
                    stamps.insert(name.clone(), stamp);
                }
                Err(error) => {
                    seen.problems.push(format!("reference table `{name}`: {error}"));
                    return None;
                }
            }
        }
        for (name, reference) in &self.configured {
            if let (Some(within), Some(stamp)) = (reference.fresh_within, stamps.get(name)) {
                let (table, changed_ms) = (name.clone(), stamp.changed_ms);
                seen.freshness.push(Freshness { table, changed_ms, within_ms: within.0 });
            }
        }
        if stamps == self.stamps {
            return None;
        }
        let mut tables = Vec::with_capacity(self.configured.len());
        for (name, reference) in &self.configured {
            match read_reference(&self.folder, name, reference) {
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
        let mut catalog = Catalog::new();
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
                let names: Arc<[String]> = self.streams.iter().map(|stream| stream.name.clone()).collect();
                self.versions.clone_from(&versions);
                seen.reloaded = Some(Reloaded {
                    versions,
                    lane_programs: lane_programs(&rules, &names, self.workers),
                    final_program: merged_program(&rules),
                    programs: programs(&rules, &names),
                });
                self.rules = rules;
            }
        }
        seen
    }
}
