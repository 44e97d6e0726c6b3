//! A job as configured, read and compiled: schemas, mappings, reference tables, rules.
//!
//! Loading reports every mistake of every file at once. What a mistake makes impossible (a rule over a stream
//! whose schema cannot be read) is left out rather than reported a second time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::array::Array;
use toml::Spanned;
use wattline_connect::kafka::register::empty_register;
use wattline_connect::reference::{ReferenceOptions, load_reference};
use wattline_runtime::stream_schema;
use wattline_runtime::table::{AUDIT_TABLES, SystemStream, system_streams, system_tables};
use wattline_sql::diagnostic::code;
use wattline_sql::{
    Catalog, CompiledRule, Delivery, Diagnostic, ReferenceTable, RuleFile, RuleSet, Severity, Stream, UserFunctions,
    rule_of,
};

use crate::assets::{self, BUILTIN};
use crate::config::{self, Config};
use crate::rule_paths::RulePaths;

mod streams;

pub(crate) use streams::{LoadedStream, Payload, file_format, instant_us};

impl Project {
    /// Names of all streams by their number: those of the configuration, then those that every job has.
    pub(crate) fn stream_names(&self) -> Vec<String> {
        let own = self.streams.iter().map(|stream| stream.name.clone());
        own.chain(system_streams().map(|stream| stream.name.to_owned())).collect()
    }
}

/// What rules may name in every job: functions, and the streams in which a job says something of itself.
pub(crate) fn catalog(functions: &UserFunctions) -> Result<Catalog, wattline_sql::Error> {
    let mut catalog = Catalog::with_functions(functions)?;
    for SystemStream { name, event_time, schema } in system_streams() {
        catalog.add_stream(Stream {
            name: name.to_owned(),
            schema: stream_schema(&schema),
            event_time: event_time.to_owned(),
            key: Vec::new(),
            delay_ms: 0,
        })?;
    }
    Ok(catalog)
}

/// The types that the configuration states.
pub(crate) fn reference_options(name: &str, reference: &config::Reference) -> ReferenceOptions {
    let mut types = reference.types.clone();
    types.extend(reference.strings.iter().map(|column| (column.clone(), "string".to_owned())));
    let known = assets::known_tables().get(name).map(|table| table.columns.clone()).unwrap_or_default();
    if reference.topic.is_some() && !types.is_empty() {
        // Of a topic the types are all that says which columns there are.
        known.into_iter().for_each(|(column, of)| {
            types.entry(column).or_insert(of);
        });
        return ReferenceOptions { types, ..ReferenceOptions::default() };
    }
    ReferenceOptions { types, known }
}

/// Reads a reference table; gives it with its version. A topic is not read before a job runs: only its columns are known.
pub(crate) fn read_reference(
    folder: &Path,
    name: &str,
    reference: &config::Reference,
) -> Result<(ReferenceTable, String), wattline_connect::Error> {
    let options = reference_options(name, reference);
    let carried = reference.path.as_deref().and_then(|path| path.strip_prefix(BUILTIN));
    let table = match (&reference.path, &reference.topic) {
        (None, Some(topic)) => empty_register(topic, &options)?,
        (Some(path), _) if carried.is_some() => {
            wattline_connect::reference::read_reference(path, &carried_rows(path)?, &options)?
        }
        (path, _) => load_reference(&folder.join(path.as_deref().unwrap_or_default()), &options)?,
    };
    Ok(for_rules(name, table))
}

/// Rows of a table that comes with the program.
fn carried_rows(path: &str) -> Result<Cow<'static, [u8]>, wattline_connect::Error> {
    let name = path.strip_prefix(BUILTIN).filter(|name| assets::known_tables().get(*name).is_some_and(|of| of.shipped));
    let rows = name.and_then(assets::table_rows);
    rows.ok_or_else(|| wattline_connect::Error::NoSuchFile { path: PathBuf::from(path) })
}

/// A table as rules see it, with its version.
pub(crate) fn for_rules(name: &str, table: wattline_connect::reference::ReferenceTable) -> (ReferenceTable, String) {
    (ReferenceTable { name: name.to_owned(), schema: table.schema, batches: vec![table.batch] }, table.version)
}

/// A loaded project.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) config: Config,
    /// Folder of the configuration; relative paths start here.
    pub(crate) folder: PathBuf,
    pub(crate) streams: Vec<LoadedStream>,
    /// What rules may use beside the functions of wattline.
    pub(crate) functions: UserFunctions,
    pub(crate) rules: RuleSet,
    /// Version of each reference table, a hash of its content.
    pub(crate) references: BTreeMap<String, String>,
    /// Rule files and their tests, by the path shown in messages.
    pub(crate) rule_files: Vec<RuleFile>,
    pub(crate) tests: BTreeMap<String, String>,
    /// Shipped rules of the folders that the job names which read what it does not have: by that, the rules.
    pub(crate) left_out: BTreeMap<String, Vec<String>>,
    /// Files of the job that take the place of shipped rules with the same id: by the path of the file, that of the rule.
    pub(crate) replaced: BTreeMap<String, String>,
    /// What is suspicious but not refused.
    pub(crate) warnings: Vec<Diagnostic>,
    /// Texts of all files that diagnostics may point into.
    pub(crate) texts: Texts,
}

/// File texts by the path shown in messages.
pub(crate) type Texts = BTreeMap<String, String>;

/// Why a project could not be loaded.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) texts: Texts,
}

/// Reads and compiles a project.
pub(crate) fn load(path: &Path, functions: &UserFunctions) -> Result<Project, Refused> {
    let shown = path.display().to_string();
    let mut loader = Loader::new(folder_of(path), functions);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let help = "make a starter project with `wattline init <folder>`, or name the file with `--config`";
            let message = format!("configuration `{shown}` cannot be read: {error}");
            loader.diagnostics.push(Diagnostic::error("WL-1100", &shown, message).help(help));
            return Err(loader.refused());
        }
    };
    load_text(loader, &shown, text)
}

/// Compiles a configuration that is not a file; relative paths start in `folder`.
pub(crate) fn load_in(folder: &Path, name: &str, text: String) -> Result<Project, Refused> {
    let loader = Loader::new(folder.to_owned(), &UserFunctions::default());
    load_text(loader, name, text)
}

/// The reference tables of a job that can be read, and those that come with the program; none of topics.
pub(crate) fn reference_tables(path: &Path) -> Vec<ReferenceTable> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let configured =
        config::parse(&path.display().to_string(), &text).map(|config| config.reference).unwrap_or_default();
    let mut references: BTreeMap<String, config::Reference> =
        configured.into_iter().map(|(name, of)| (name, of.into_inner())).collect();
    for (name, _) in assets::known_tables().iter().filter(|(_, table)| table.shipped) {
        references.entry(name.clone()).or_insert_with(|| config::Reference::of_path(format!("{BUILTIN}{name}")));
    }
    let folder = folder_of(path);
    let files = references.iter().filter(|(_, reference)| reference.topic.is_none());
    files.filter_map(|(name, reference)| Some(read_reference(&folder, name, reference).ok()?.0)).collect()
}

/// The project of all shipped rules: every shipped stream, with a delay of 2 minutes, and every table that they read, with its example.
///
/// # Errors
/// If there is no room for temporary files.
pub(crate) fn shipped() -> anyhow::Result<Result<Project, Refused>> {
    let folder = tempfile::tempdir()?;
    let mut text = "job = \"shipped\"\n[archive]\nurl = \"archive\"\n".to_owned();
    for stream in assets::schema_names() {
        text.push_str(&format!(
            "[streams.{stream}]\nschema = \"{BUILTIN}{stream}\"\nfiles = \"none/*.ndjson\"\ndelay = \"2 minutes\"\n"
        ));
    }
    for (name, table) in assets::known_tables().iter().filter(|(_, table)| !table.shipped) {
        debug_assert!(!table.says.is_empty(), "it is said what a row is");
        std::fs::write(folder.path().join(format!("{name}.csv")), assets::table_rows(name).unwrap_or_default())?;
        text.push_str(&format!("[reference.{name}]\npath = \"{name}.csv\"\n"));
    }
    Ok(load_in(folder.path(), "shipped.toml", text))
}

/// The folder of the configuration, absolute: lanes of files are named by their paths, however the file is named.
fn folder_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    parent.canonicalize().unwrap_or_else(|_missing| parent.to_owned())
}

fn load_text(mut loader: Loader, shown: &str, text: String) -> Result<Project, Refused> {
    loader.texts.insert(shown.to_owned(), text.clone());
    let config = match config::parse(shown, &text) {
        Ok(config) => config,
        Err(mistakes) => {
            loader.diagnostics.extend(mistakes);
            return Err(loader.refused());
        }
    };
    loader.check_names(shown, &config);
    let mut catalog = match catalog(&loader.functions) {
        Ok(catalog) => catalog,
        Err(error) => {
            loader.diagnostics.push(Diagnostic::error("WL-1150", shown, error.to_string()));
            return Err(loader.refused());
        }
    };
    let mut config = config;
    let RulePaths { rule_files, tests, left_out, replaced } = loader.rule_files(shown, &mut config);
    let streams = loader.streams(shown, &config, &mut catalog);
    loader.check_sources(shown, &streams, &config);
    let references = loader.references(shown, &config, &mut catalog);
    let compiled = RuleSet::compile(&catalog, &rule_files);
    let rules = match compiled {
        Ok(rules) => rules,
        Err(mistakes) => {
            // What reads a table that could not be loaded is right for all we know.
            let is_loaded =
                |name: &String| streams.iter().any(|stream| stream.name == *name) || references.contains_key(name);
            let configured = config.streams.keys().chain(config.reference.keys());
            let broken: Vec<String> =
                configured.filter(|name| !is_loaded(name)).map(|name| format!("`{name}`")).collect();
            let follows = |mistake: &Diagnostic| {
                mistake.code == code::UNKNOWN_TABLE && broken.iter().any(|name| mistake.message.ends_with(name))
            };
            loader.diagnostics.extend(mistakes.into_iter().filter(|mistake| !follows(mistake)));
            return Err(loader.refused());
        }
    };
    loader.check_table_names(&rules);
    loader.check_table_keys(&rules);
    loader.check_kept_streams(&rules, &streams);
    loader.check_late_streams(&rules);
    loader.check_backfills(&rules, &streams);
    loader.check_deliveries(&rules, config.run.slots);
    if !loader.diagnostics.is_empty() {
        return Err(loader.refused());
    }
    let Loader { folder, texts, functions, mut warnings, .. } = loader;
    warnings.extend(rules.warnings().iter().cloned());
    Ok(Project {
        config,
        folder,
        streams,
        functions,
        rules,
        references,
        rule_files,
        tests,
        left_out,
        replaced,
        warnings,
        texts,
    })
}

impl Project {
    /// The same with the rule of one file in the place of the project's rule of that id, if it has one.
    ///
    /// # Errors
    /// Every mistake that the rules then have.
    pub(crate) fn with_rule(&self, path: &str, text: String) -> Result<RuleSet, Refused> {
        RuleSet::compile(self.rules.catalog(), &self.files_with(path, text.clone())).map_err(|diagnostics| {
            let mut texts = self.texts.clone();
            texts.insert(path.to_owned(), text);
            Refused { diagnostics, texts }
        })
    }

    /// The rule files, one of them in the place of that with its id.
    pub(crate) fn files_with(&self, path: &str, text: String) -> Vec<RuleFile> {
        let mut files = self.rule_files.clone();
        files.retain(|file| rule_of(&file.path) != rule_of(path));
        files.push(RuleFile { path: path.to_owned(), text });
        files
    }

    /// The rules that read a rule, directly or through others.
    pub(crate) fn readers(&self, id: &str) -> Vec<String> {
        let mut found = vec![id.to_owned()];
        let mut at = 0;
        while let Some(read) = found.get(at).cloned() {
            for file in &self.rule_files {
                let Some(reader) = rule_of(&file.path) else { continue };
                if !found.iter().any(|known| known == reader) && file.tables_read().contains(&read) {
                    found.push(reader.to_owned());
                }
            }
            at += 1;
        }
        found.split_off(1)
    }
}

/// Whether that is the name of a table of wattline itself.
fn is_own_table(name: &str) -> bool {
    AUDIT_TABLES.contains(&name) || system_tables().iter().any(|table| table.name == name)
}

struct Loader {
    diagnostics: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    texts: Texts,
    folder: PathBuf,
    functions: UserFunctions,
}

impl Loader {
    fn new(folder: PathBuf, functions: &UserFunctions) -> Self {
        Self {
            diagnostics: Vec::new(),
            warnings: Vec::new(),
            texts: Texts::new(),
            folder,
            functions: functions.clone(),
        }
    }

    fn refused(self) -> Refused {
        Refused { diagnostics: self.diagnostics, texts: self.texts }
    }

    fn mistake(
        &mut self,
        code: &'static str,
        file: &str,
        span: std::ops::Range<usize>,
        message: String,
        help: Option<String>,
    ) {
        let span = (!span.is_empty()).then_some(span);
        self.diagnostics.push(Diagnostic::error(code, file, message).at(span).help_if(help));
    }

    fn check_names(&mut self, file: &str, config: &Config) {
        let job = config.job.get_ref();
        let good =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        for name in [job, &config.slot] {
            if !good(name) {
                let message = format!("`{name}` cannot name a job or slot");
                let help = "use letters, digits, `-` and `_`".to_owned();
                self.mistake("WL-1102", file, config.job.span(), message, Some(help));
            }
        }
        if config.streams.is_empty() {
            let help = "add a section `[streams.meter_readings]` with `schema` and `topic` or `files`".to_owned();
            self.mistake("WL-1103", file, 0..0, "the job reads no stream".to_owned(), Some(help));
        }
        let topics = config.streams.values().any(|stream| stream.get_ref().topic.is_some());
        let alerts = config.alerts.as_ref().is_some_and(|alerts| alerts.topic.is_some());
        let registers = config.reference.values().any(|reference| reference.get_ref().topic.is_some());
        if config.kafka.is_none() && (topics || alerts || registers) {
            let help = "add a section `[kafka]` with `bootstrap_servers = \"host:9092\"`".to_owned();
            self.mistake("WL-1104", file, 0..0, "a topic is named, but no Kafka".to_owned(), Some(help));
        }
        self.check_slots(file, config);
    }

    /// What several processes share out among them are partitions of topics.
    fn check_slots(&mut self, file: &str, config: &Config) {
        if config.run.slots == 0 {
            let help = "write how many slots the job is divided into, 1 if one process runs it".to_owned();
            self.mistake("WL-1105", file, 0..0, "a job of no slots has nothing to run".to_owned(), Some(help));
        }
        if config.run.slots <= 1 {
            return;
        }
        for (name, stream) in config.streams.iter().filter(|(_, stream)| stream.get_ref().topic.is_none()) {
            let message = format!("stream `{name}` reads files, which slots cannot share out among them");
            let help = "leave out `slots` in `[run]`, or give the stream a `topic`".to_owned();
            self.mistake("WL-1105", file, stream.span(), message, Some(help));
        }
    }

    /// A rule's table may not be one that the job has anyway.
    fn check_table_names(&mut self, rules: &RuleSet) {
        for rule in rules.rules().iter().filter(|rule| is_own_table(&rule.header.id)) {
            let message = format!("`{}` is a table of wattline itself", rule.header.id);
            let help = "give the rule another id".to_owned();
            self.mistake("WL-1141", &rule.path, rule.header.span_of("id"), message, Some(help));
        }
    }

    /// Files cannot be sorted by a list or a struct.
    fn check_table_keys(&mut self, rules: &RuleSet) {
        for rule in rules.rules() {
            let is_nested = |name: &&String| {
                rule.output_schema.field_with_name(name).is_ok_and(|field| field.data_type().is_nested())
            };
            let Some(name) = rule.header.key.iter().find(is_nested) else { continue };
            let message = format!("rows cannot be sorted by `{name}`, which is a list or a struct");
            let help = "leave it out of `key`".to_owned();
            self.mistake("WL-1143", &rule.path, rule.header.span_of("key"), message, Some(help));
        }
    }

    /// Late events correct results out of the raw tables: these must be kept.
    fn check_kept_streams(&mut self, rules: &RuleSet, streams: &[LoadedStream]) {
        for rule in rules.rules().iter().filter(|rule| rule.reach_us.is_some()) {
            let dropped = streams.iter().find(|stream| !stream.config.keep && rule.streams.contains(&stream.name));
            let Some(stream) = dropped else { continue };
            let message = format!(
                "late events correct the results of rule `{}`, but stream `{}` keeps no events",
                rule.header.id, stream.name
            );
            let help = format!("remove `keep = false` from stream `{}`, or `late` from the rule", stream.name);
            self.mistake("WL-1142", &rule.path, rule.header.span_of("late"), message, Some(help));
        }
    }

    /// The past of a rule is computed from the raw tables: these must be kept, and hold all that rules have seen. Rules that compute the
    /// same keep rows together: these are of a past, or not.
    fn check_backfills(&mut self, rules: &RuleSet, streams: &[LoadedStream]) {
        for rule in rules.rules().iter().filter(|rule| rule.header.backfill_ms.is_some()) {
            let is_same = |other: &&CompiledRule| {
                other.fingerprint == rule.fingerprint && other.header.backfill_ms != rule.header.backfill_ms
            };
            if let Some(other) = rules.rules().iter().find(is_same).filter(|_| rule.has_stages()) {
                let (id, other) = (&rule.header.id, &other.header.id);
                let message = format!("rules `{id}` and `{other}` compute the same, but are not given the same past");
                let help = format!("give `{other}` the same `backfill`, or keep one of the two");
                self.mistake("WL-1145", &rule.path, rule.header.span_of("backfill"), message, Some(help));
            }
            let dropped = streams.iter().find(|stream| !stream.config.keep && rule.streams.contains(&stream.name));
            let own = system_streams().into_iter().find(|stream| rule.streams.iter().any(|of| of == stream.name));
            let (why, help) = match (dropped, own) {
                (Some(stream), _) => (
                    format!("stream `{}` keeps no events", stream.name),
                    format!("remove `keep = false` from stream `{}`, or `backfill` from the rule", stream.name),
                ),
                (None, Some(stream)) => (
                    format!("the table `{}` does not have yet all that rules have seen", stream.name),
                    "remove `backfill`; `wattline replay` shows what the rule says of the past".to_owned(),
                ),
                (None, None) => continue,
            };
            let message = format!("the past of rule `{}` cannot be computed: {why}", rule.header.id);
            self.mistake("WL-1145", &rule.path, rule.header.span_of("backfill"), message, Some(help));
        }
    }

    /// What a job says of itself is dated anew after a crash: an alert that was told early would get another id. Of several slots, from
    /// when on a new rule gives rows is decided by checkpoints, and rows come with links: none is certain before.
    fn check_deliveries(&mut self, rules: &RuleSet, slots: u32) {
        for rule in rules.rules().iter().filter(|rule| rule.header.delivery == Delivery::LowLatency) {
            let stream = system_streams().into_iter().find(|stream| rule.streams.iter().any(|of| of == stream.name));
            let by_event = rule.is_final_at_once() && rule.firing_column.is_none();
            let (why, help) = match stream {
                Some(stream) => (
                    format!("reads `{}`, whose rows have no lasting identity before they are committed", stream.name),
                    "remove `delivery`",
                ),
                None if slots > 1 && !by_event => (
                    format!(
                        "waits for what all {slots} slots of the job have read, which they tell with their commits"
                    ),
                    "remove `delivery`, leave out `slots` in `[run]`, or select single events with WHERE, without `firing`, windows and joins of streams",
                ),
                None => continue,
            };
            let message = format!("rule `{}` {why}", rule.header.id);
            self.mistake("WL-1146", &rule.path, rule.header.span_of("delivery"), message, Some(help.to_owned()));
        }
    }

    /// What a job says of itself is never late.
    fn check_late_streams(&mut self, rules: &RuleSet) {
        for rule in rules.rules().iter().filter(|rule| rule.reach_us.is_some()) {
            let stream = system_streams().into_iter().find(|stream| rule.streams.iter().any(|of| of == stream.name));
            let Some(stream) = stream else { continue };
            let message = format!(
                "rule `{}` reads `{}`, and results that come of it cannot be corrected",
                rule.header.id, stream.name
            );
            let help = "remove `late`: its rows are never late".to_owned();
            self.mistake("WL-1144", &rule.path, rule.header.span_of("late"), message, Some(help));
        }
    }

    /// A column that shipped rules know and the table lacks is NULL, which is right if it is not there and not if it is misspelt.
    fn warn_of_misspelt(&mut self, file: &str, span: std::ops::Range<usize>, table: &ReferenceTable) {
        let Some(known) = assets::known_tables().get(&table.name) else { return };
        let is_empty = |name: &&str| {
            let columns = table.batches.iter().map(|batch| batch.column_by_name(name));
            let mut columns = columns.flatten().filter(|column| !column.is_empty());
            columns.all(|column| column.null_count() == column.len())
        };
        let lacking: Vec<&str> = known.columns.keys().map(String::as_str).filter(is_empty).collect();
        let own = table.schema.fields().iter().map(|field| field.name().as_str());
        for name in own.filter(|name| !known.columns.contains_key(*name) && !name.starts_with("valid_")) {
            let Some(help) = config::nearest(name, &lacking) else { continue };
            let message = format!("reference table `{}`: shipped rules do not know its column `{name}`", table.name);
            let span = (!span.is_empty()).then(|| span.clone());
            self.warnings.push(Diagnostic::warning("WL-1133", file, message).at(span).help(help));
        }
    }

    fn references(&mut self, file: &str, config: &Config, catalog: &mut Catalog) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for (name, spanned) in &config.reference {
            let reference = spanned.get_ref();
            if reference.path.is_some() == reference.topic.is_some() {
                let message = format!("reference table `{name}` needs either `path` or `topic`");
                self.mistake("WL-1131", file, spanned.span(), message, None);
                continue;
            }
            if reference.topic.is_some() && reference.types.is_empty() && reference.strings.is_empty() {
                let message = format!("reference table `{name}` is a topic, and its columns are not said");
                let help =
                    "name them with their types: `types = { meter_id = \"string\", nominal_v = \"decimal(9,1)\" }`";
                self.mistake("WL-1132", file, spanned.span(), message, Some(help.to_owned()));
                continue;
            }
            let loaded = read_reference(&self.folder, name, reference);
            let added = loaded.map_err(|e| e.to_string()).and_then(|(table, version)| {
                versions.insert(name.clone(), version);
                self.warn_of_misspelt(file, spanned.span(), &table);
                catalog.add_reference(table).map_err(|e| e.to_string())
            });
            if let Err(message) = added {
                self.mistake("WL-1130", file, spanned.span(), format!("reference table `{name}`: {message}"), None);
            }
        }
        versions
    }

    /// Finds the rules, and names in the configuration the tables of the program that they read and the job does not name.
    fn rule_files(&mut self, file: &str, config: &mut Config) -> RulePaths {
        let found = RulePaths::find(config, &self.folder, |span, message, help| {
            self.diagnostics.push(Diagnostic::error("WL-1140", file, message).at(span).help_if(help));
        });
        let read: BTreeSet<String> = found.rule_files.iter().flat_map(RuleFile::tables_read).collect();
        for (name, _) in assets::known_tables().iter().filter(|(_, table)| table.shipped) {
            if read.contains(name) && !config.reference.contains_key(name) && !config.streams.contains_key(name) {
                let carried = config::Reference::of_path(format!("{BUILTIN}{name}"));
                config.reference.insert(name.clone(), Spanned::new(0..0, carried));
            }
        }
        self.texts.extend(found.rule_files.iter().map(|file| (file.path.clone(), file.text.clone())));
        self.texts.extend(found.tests.clone());
        found
    }
}

/// Whether any of the diagnostics refuses the project.
pub(crate) fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}
