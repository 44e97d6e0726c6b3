//! What `[rules] paths` of a configuration give: rule files and their cases, of folders and of the program.
//!
//! Of a folder of shipped rules a job has those for which it has the streams and tables. A file of its own takes the place of the
//! shipped rule with the same id.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use wattline_runtime::table::system_streams;
use wattline_sql::{RuleFile, rule_of};

use crate::assets::{self, BUILTIN};
use crate::config::{self, Config};

/// What the paths give.
#[derive(Default)]
pub(crate) struct RulePaths {
    pub(crate) rule_files: Vec<RuleFile>,
    /// Texts of cases by path.
    pub(crate) tests: BTreeMap<String, String>,
    /// Shipped rules that read what the job does not have: by that, the rules.
    pub(crate) left_out: BTreeMap<String, Vec<String>>,
    /// By the path of a file of the job, the shipped rule whose place it takes.
    pub(crate) replaced: BTreeMap<String, String>,
}

impl RulePaths {
    /// Reads all of them; tells of each path that gives nothing where it stands, what is wrong and what helps.
    pub(crate) fn find(
        config: &Config,
        folder: &Path,
        mut refuse: impl FnMut(Range<usize>, String, Option<String>),
    ) -> Self {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let mut of_folders: BTreeSet<String> = BTreeSet::new();
        for entry in &config.rules.paths {
            let path = entry.get_ref();
            let outcome = match path.strip_prefix(BUILTIN) {
                Some(below) => builtin_files(below),
                None => files_below(path, folder),
            };
            match outcome {
                Ok(files) => {
                    if path.starts_with(BUILTIN) && !files.contains_key(&format!("{path}.sql")) {
                        of_folders.extend(files.keys().cloned());
                    }
                    found.extend(files);
                }
                Err((message, help)) => refuse(entry.span(), message, help),
            }
        }
        let replaced = replace(&mut found);
        of_folders.retain(|path| found.contains_key(path));
        let left_out = leave_out(&mut found, &of_folders, config);
        let (tests, rules): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.into_iter().partition(|(path, _)| path.ends_with(".test.toml"));
        let rule_files = rules.into_iter().map(|(path, text)| RuleFile { path, text }).collect();
        Self { rule_files, tests, left_out, replaced }
    }
}

fn id_of(path: &str) -> Option<&str> {
    rule_of(path).filter(|_| path.ends_with(".sql"))
}

/// Takes out shipped rules, and their cases, that have the id of a rule of the job.
fn replace(found: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
    let shipped: BTreeMap<String, String> = found
        .keys()
        .filter(|path| path.starts_with(BUILTIN))
        .filter_map(|path| Some((id_of(path)?.to_owned(), path.clone())))
        .collect();
    let own = found.keys().filter(|path| !path.starts_with(BUILTIN));
    let replaced: BTreeMap<String, String> =
        own.filter_map(|path| Some((path.clone(), shipped.get(id_of(path)?)?.clone()))).collect();
    for path in replaced.values() {
        found.remove(path);
        found.remove(&test_of(path));
    }
    replaced
}

/// Where the cases of a rule file stand.
pub(crate) fn test_of(path: &str) -> String {
    format!("{}.test.toml", path.strip_suffix(".sql").unwrap_or(path))
}

/// Takes out the rules `of_folders` that read what neither the job nor the program has, or what was taken out.
fn leave_out(
    found: &mut BTreeMap<String, String>,
    of_folders: &BTreeSet<String>,
    config: &Config,
) -> BTreeMap<String, Vec<String>> {
    let reads: BTreeMap<String, BTreeSet<String>> = of_folders
        .iter()
        .filter(|path| path.ends_with(".sql"))
        .map(|path| (path.clone(), RuleFile { path: path.clone(), text: found[path].clone() }.tables_read()))
        .collect();
    let shipped = assets::known_tables().iter().filter(|(_, table)| table.shipped).map(|(name, _)| name.clone());
    let own = config.streams.keys().chain(config.reference.keys()).cloned();
    let system = system_streams().map(|stream| stream.name.to_owned());
    let tables: BTreeSet<String> = shipped.chain(own).chain(system).collect();
    let mut left_out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let rules: BTreeSet<&str> = found.keys().filter_map(|path| id_of(path)).collect();
        let missing = reads.iter().filter(|(path, _)| found.contains_key(*path)).find_map(|(path, reads)| {
            let missing = reads.iter().find(|name| !tables.contains(*name) && !rules.contains(name.as_str()))?;
            Some((path.clone(), missing.clone()))
        });
        let Some((path, missing)) = missing else { return left_out };
        found.remove(&path);
        found.remove(&test_of(&path));
        left_out.entry(missing).or_default().extend(id_of(&path).map(str::to_owned));
    }
}

type Files = Result<BTreeMap<String, String>, (String, Option<String>)>;

fn builtin_files(below: &str) -> Files {
    let all = assets::rule_files();
    let wanted = |path: &str| {
        below.is_empty()
            || path
                .strip_prefix(below)
                .is_some_and(|rest| rest.starts_with('/') || matches!(rest, ".sql" | ".test.toml"))
    };
    let found: BTreeMap<String, String> = all
        .iter()
        .filter(|(path, _)| wanted(path))
        .map(|(path, text)| (format!("{BUILTIN}{path}"), text.clone()))
        .collect();
    if found.is_empty() {
        let known: Vec<&str> = all.keys().filter_map(|path| path.strip_suffix(".sql")).collect();
        return Err((format!("there is no shipped rule or folder `{below}`"), config::nearest(below, &known)));
    }
    Ok(found)
}

fn files_below(path: &str, folder: &Path) -> Files {
    let shown = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let whole = folder.join(path);
    let fail = |error: std::io::Error| (format!("`{path}` cannot be read: {error}"), None);
    if !whole.exists() {
        let help = "write a folder or a file beside the configuration, or `builtin:` and a shipped one".to_owned();
        return Err((format!("there is no `{path}`"), Some(help)));
    }
    let mut found = BTreeMap::new();
    let mut open = vec![whole];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(fail)? {
                open.push(entry.map_err(fail)?.path());
            }
            continue;
        }
        let name = path.to_string_lossy().into_owned();
        if name.ends_with(".sql") || name.ends_with(".test.toml") {
            let read = std::fs::read_to_string(&path);
            let text = read.map_err(|error| (format!("`{}` cannot be read: {error}", shown(&path)), None))?;
            found.insert(shown(&path), text);
            let test = PathBuf::from(test_of(&name));
            if name.ends_with(".sql") && test.is_file() {
                open.push(test);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_rules_are_found_by_folder_and_by_name() {
        assert!(builtin_files("").is_ok_and(|all| all.len() > 20));
        assert!(builtin_files("power_quality/pq_voltage_windows").is_ok_and(|one| one.len() == 2));
        let (_, help) = builtin_files("power_quality/pq_voltage_window").expect_err("no such rule");
        assert_eq!(help.as_deref(), Some("did you mean `power_quality/pq_voltage_windows`?"));
    }

    #[test]
    fn a_rule_of_the_job_takes_the_place_of_a_shipped_one() {
        let text = |path: &str| (path.to_owned(), String::new());
        let mut found: BTreeMap<String, String> = [
            "builtin:power_quality/pq_load.sql",
            "builtin:power_quality/pq_load.test.toml",
            "builtin:power_quality/pq_load_rate.sql",
            "sql/pq_load.sql",
        ]
        .map(text)
        .into();
        let replaced = replace(&mut found);
        assert_eq!(replaced, [("sql/pq_load.sql".to_owned(), "builtin:power_quality/pq_load.sql".to_owned())].into());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["builtin:power_quality/pq_load_rate.sql", "sql/pq_load.sql"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (message, _) = files_below("sqll", folder.path()).expect_err("no such folder");
        assert_eq!(message, "there is no `sqll`");
        assert!(files_below(".", folder.path()).is_ok_and(|none| none.is_empty()));
    }
}
