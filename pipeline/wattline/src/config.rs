//! `wattline.toml`: what a job reads, which rules it runs, where everything goes.
//!
//! Every mistake is reported, not only the first: the file is parsed once into spanned values; what cannot be
//! typed is noted with its place and taken out, and the rest is tried again. Unknown keys are refused with the
//! nearest right name. Values of `[kafka.properties]`, `[archive.options]` and `[backup.options]` may hold secrets as `${env:NAME}` or
//! `${file:/path}`; they are filled in only
//! where they are used, so that neither messages nor logs can show them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use wattline_core::gap::OnGap;
use wattline_core::time::{HumanDuration, parse_duration_ms};
use wattline_decode::Mapping;
use wattline_sql::Diagnostic;

/// A job.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Names everything the job commits.
    pub(crate) job: Spanned<String>,
    /// Names this process within the job.
    #[serde(default = "default_slot")]
    pub(crate) slot: String,
    pub(crate) kafka: Option<Kafka>,
    pub(crate) schema_registry: Option<SchemaRegistry>,
    #[serde(default)]
    pub(crate) streams: BTreeMap<String, Spanned<Stream>>,
    #[serde(default)]
    pub(crate) rules: Rules,
    #[serde(default)]
    pub(crate) reference: BTreeMap<String, Spanned<Reference>>,
    pub(crate) archive: Archive,
    pub(crate) backup: Option<Backup>,
    pub(crate) alerts: Option<Alerts>,
    #[serde(default)]
    pub(crate) run: Run,
}

/// The Kafka cluster.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(crate) bootstrap_servers: String,
    /// Consumer group; `wattline-<job>` if absent.
    pub(crate) group_id: Option<String>,
    #[serde(default = "default_connect_timeout")]
    pub(crate) connect_timeout: HumanTime,
    /// Any librdkafka property.
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, Scalar>,
}

/// Where the schemas are that Avro records name by number.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaRegistry {
    pub(crate) url: Spanned<String>,
    pub(crate) username: Option<Scalar>,
    pub(crate) password: Option<Scalar>,
}

/// One stream.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    /// `builtin:<name>` or the path of an Avro schema file.
    pub(crate) schema: Spanned<String>,
    pub(crate) topic: Option<String>,
    pub(crate) files: Option<Spanned<String>>,
    /// Of files `ndjson`, `csv` or `parquet`, where the name does not tell; of a topic `json` or `avro`.
    pub(crate) format: Option<Spanned<String>>,
    /// Files with schemas that Avro records may name by their fingerprints.
    #[serde(default)]
    pub(crate) writer_schemas: Vec<Spanned<String>>,
    #[serde(default = "default_start")]
    pub(crate) start: Spanned<String>,
    /// What becomes of a topic whose records are gone before they are read.
    pub(crate) on_gap: Option<Spanned<OnGap>>,
    /// Counts how often the topic was made anew.
    pub(crate) topic_life: Option<Spanned<NonZeroU32>>,
    #[serde(default = "default_delay")]
    pub(crate) delay: HumanTime,
    #[serde(default = "default_idle_timeout")]
    pub(crate) idle_timeout: HumanTime,
    #[serde(default = "default_future_bound")]
    pub(crate) future_bound: HumanTime,
    /// Events older than this instant are refused: meters that lost their clock report 1970 or 2000-01-01.
    #[serde(default = "default_oldest")]
    pub(crate) oldest: Spanned<String>,
    /// Whether accepted events are kept in a table of their own.
    #[serde(default = "yes")]
    pub(crate) keep: bool,
    #[serde(default = "default_record_bytes_max")]
    pub(crate) record_bytes_max: HumanSize,
    pub(crate) mapping: Option<Spanned<Mapping>>,
}

/// Which rules are run.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    /// Folders, files, `builtin:` for all shipped rules, or `builtin:<folder>/<rule>`.
    pub(crate) paths: Vec<Spanned<String>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { paths: vec![Spanned::new(0..0, "builtin:".to_owned())] }
    }
}

/// A reference table.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reference {
    /// A file or a Delta table.
    pub(crate) path: Option<String>,
    /// A compacted topic.
    pub(crate) topic: Option<String>,
    /// Column types: of a file where inference does not suffice, of a topic all.
    #[serde(default)]
    pub(crate) types: BTreeMap<String, String>,
    /// Columns that stay text even if they look like numbers.
    #[serde(default)]
    pub(crate) strings: Vec<String>,
    /// How old the table may become before an alert says so.
    pub(crate) fresh_within: Option<HumanTime>,
}

impl Reference {
    /// A table at a path, with nothing said of its columns.
    pub(crate) fn of_path(path: String) -> Self {
        Self { path: Some(path), topic: None, types: BTreeMap::new(), strings: Vec::new(), fresh_within: None }
    }
}

/// Where tables and manifests lie.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archive {
    /// A folder, or `s3://bucket/prefix`.
    pub(crate) url: String,
    /// Options of the object store: `endpoint`, `region`, `access_key_id`, `secret_access_key`, `allow_http`, …
    #[serde(default)]
    pub(crate) options: BTreeMap<String, Scalar>,
}

/// Where backups of the archive go.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    /// A folder outside of the archive, or `s3://bucket/prefix`.
    pub(crate) url: String,
    /// Options of that store, as those of the archive.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, Scalar>,
    /// How many backups are kept; all if absent.
    pub(crate) keep: Option<NonZeroU32>,
}

/// Where alerts go besides their table.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alerts {
    pub(crate) topic: Option<String>,
}

/// How the job is run.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Run {
    /// Into how many slots the job is divided, which any number of processes share.
    pub(crate) slots: u32,
    /// Worker threads, of each slot; 0 means one per core, over all slots.
    pub(crate) workers: usize,
    pub(crate) tick: HumanTime,
    pub(crate) checkpoint: HumanTime,
    /// What the process may use, shared out by [`crate::job`].
    pub(crate) memory: HumanSize,
    /// For what memory does not hold.
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) file_age: HumanTime,
    pub(crate) file_bytes: HumanSize,
    pub(crate) manifest_retention: HumanTime,
    pub(crate) maintenance: HumanTime,
    pub(crate) correction: HumanTime,
    pub(crate) references: HumanTime,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            slots: 1,
            workers: 0,
            tick: HumanTime(1_000),
            checkpoint: HumanTime(30_000),
            memory: HumanSize(2 << 30),
            scratch: None,
            file_age: HumanTime(60_000),
            file_bytes: HumanSize(16 << 20),
            manifest_retention: HumanTime(7 * 86_400_000),
            maintenance: HumanTime(60_000),
            correction: HumanTime(60_000),
            references: HumanTime(10_000),
        }
    }
}

fn default_slot() -> String {
    "0".to_owned()
}
fn default_connect_timeout() -> HumanTime {
    HumanTime(10_000)
}
fn default_start() -> Spanned<String> {
    Spanned::new(0..0, "earliest".to_owned())
}
fn default_delay() -> HumanTime {
    HumanTime(120_000)
}
fn default_idle_timeout() -> HumanTime {
    HumanTime(30_000)
}
fn default_future_bound() -> HumanTime {
    HumanTime(3_600_000)
}
fn default_oldest() -> Spanned<String> {
    Spanned::new(0..0, "2000-01-02T00:00:00Z".to_owned())
}
fn default_record_bytes_max() -> HumanSize {
    HumanSize(1 << 20)
}
fn yes() -> bool {
    true
}

/// A duration written for people, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HumanTime(pub(crate) i64);

impl HumanTime {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0).unwrap_or_default())
    }
}

impl fmt::Display for HumanTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HumanDuration(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for HumanTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration_ms(&text).map(Self).map_err(de::Error::custom)
    }
}

/// A size written for people, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HumanSize(pub(crate) u64);

impl<'de> Deserialize<'de> for HumanSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_size(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is not a size: write a number and a unit, such as `64 MB` or `1 GiB`"))
        })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" | "kib" | "k" => 10,
        "mb" | "mib" | "m" => 20,
        "gb" | "gib" | "g" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// A property value: text, or a number or boolean written without quotes. May hold secrets: never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Scalar(String);

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not shown]")
    }
}

impl Scalar {
    /// A value of the command line.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The value with its secrets filled in.
    pub(crate) fn reveal(&self) -> Result<String, String> {
        fill_secrets(&self.0)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            toml::Value::Integer(number) => Ok(Self(number.to_string())),
            toml::Value::Float(number) => Ok(Self(number.to_string())),
            toml::Value::Boolean(flag) => Ok(Self(flag.to_string())),
            other => Err(de::Error::custom(format!(
                "a property is text, a number or a boolean, not {}: write its name in quotes if it holds dots",
                other.type_str()
            ))),
        }
    }
}

/// Replaces `${env:NAME}` and `${file:/path}`.
fn fill_secrets(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or("`${` without `}`")?;
        out.push_str(&secret(&inner[..end])?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[expect(
    clippy::disallowed_methods,
    reason = "secrets named by the configuration are the one thing read from the environment"
)]
fn secret(reference: &str) -> Result<String, String> {
    match reference.split_once(':') {
        Some(("env", name)) => std::env::var(name)
            .map_err(|_e| format!("environment variable `{name}` is not set: set it before the start")),
        Some(("file", path)) => std::fs::read_to_string(path)
            .map(|text| text.trim_end().to_owned())
            .map_err(|e| format!("secret file `{path}` cannot be read: {e}")),
        _ => Err(format!("`${{{reference}}}` is neither `${{env:NAME}}` nor `${{file:/path}}`")),
    }
}

/// Fills in the secrets of a map of properties.
pub(crate) fn reveal_all(properties: &BTreeMap<String, Scalar>) -> Result<BTreeMap<String, String>, String> {
    properties
        .iter()
        .map(|(name, value)| Ok((name.clone(), value.reveal().map_err(|e| format!("property `{name}`: {e}"))?)))
        .collect()
}

/// Reads a configuration; all mistakes at once.
pub(crate) fn parse(path: &str, text: &str) -> Result<Config, Vec<Diagnostic>> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        return Err(syntax.iter().map(|error| diagnostic(path, error)).collect());
    }
    let whole = document.span();
    let mut table = document.into_inner();
    let mut mistakes = Vec::new();
    loop {
        let value = Spanned::new(whole.clone(), DeValue::Table(table.clone()));
        let error = match Config::deserialize(ValueDeserializer::from(value)) {
            Ok(config) if mistakes.is_empty() => return Ok(config),
            Ok(_) => return Err(mistakes),
            Err(error) => error,
        };
        let removed = error.span().is_some_and(|span| remove(&mut table, &span));
        if !removed && !mistakes.is_empty() && error.message().starts_with("missing field") {
            // What is missing now may be what was taken out.
            return Err(mistakes);
        }
        if !explained(&mistakes, error.message()) {
            mistakes.push(diagnostic(path, &error));
        }
        if !removed {
            return Err(mistakes);
        }
    }
}

/// Whether a field is only missing because its name was misspelt, which was reported already.
fn explained(mistakes: &[Diagnostic], message: &str) -> bool {
    let Some(missing) = message.strip_prefix("missing field ") else { return false };
    mistakes.iter().any(|mistake| mistake.help.as_deref().is_some_and(|help| help.contains(missing)))
}

/// Takes the entry out whose key or value is at this place.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let found =
        table.iter().find(|(key, value)| key.span() == *span || value.span() == *span).map(|(key, _)| key.clone());
    if let Some(key) = found {
        table.remove(&key);
        return true;
    }
    table.iter_mut().any(|(_, value)| match value.get_mut() {
        DeValue::Table(inner) => remove(inner, span),
        _ => false,
    })
}

fn diagnostic(path: &str, error: &toml::de::Error) -> Diagnostic {
    let message = error.message();
    let help = unknown_field(message).and_then(|(wrong, known)| nearest(wrong, &known));
    Diagnostic::error("WL-1101", path, message.to_owned()).at(error.span()).help_if(help)
}

/// Takes serde's message on an unknown field apart.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (wrong, rest) = rest.split_once('`')?;
    Some((wrong, rest.split('`').skip(1).step_by(2).collect()))
}

/// The nearest right name, as a help text.
pub(crate) fn nearest(wrong: &str, known: &[&str]) -> Option<String> {
    // Jaro-Winkler likes common beginnings, the edit distance forgives swapped letters in short names.
    let score = |name: &str| strsim::jaro_winkler(wrong, name).max(strsim::normalized_damerau_levenshtein(wrong, name));
    let (best, score) = known.iter().map(|name| (name, score(name))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (score > 0.6).then(|| format!("did you mean `{best}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
job = "j"
[streams.meter_readings]
schema = "builtin:meter_readings"
files = "*.ndjson"
delay = "2 minutes"
[archive]
url = "archive"
"#;

    #[test]
    fn a_good_file_is_read() {
        let config = parse("wattline.toml", GOOD).expect("good");
        assert_eq!(config.job.get_ref(), "j");
        assert_eq!(config.streams["meter_readings"].get_ref().delay, HumanTime(120_000));
    }

    #[test]
    fn a_place_for_backups_keeps_one_at_least() {
        let with = |keep: u32| {
            format!("{GOOD}[backup]\nurl = \"../backups\"\nkeep = {keep}\n[backup.options]\nregion = \"x\"\n")
        };
        let backup = parse("wattline.toml", &with(3)).expect("good").backup.expect("a section");
        assert_eq!((backup.url.as_str(), backup.keep.map(NonZeroU32::get)), ("../backups", Some(3)));
        let mistakes = parse("wattline.toml", &with(0)).expect_err("none would be kept");
        assert!(mistakes.len() == 1 && mistakes[0].message.contains("nonzero"), "{mistakes:?}");
    }

    #[test]
    fn what_becomes_of_gaps_and_lives_is_said_in_known_words() {
        let with = |line: &str| parse("t", &GOOD.replace("delay = \"2 minutes\"", line));
        let config = with("on_gap = \"record\"\ntopic_life = 2").expect("good");
        let stream = config.streams["meter_readings"].get_ref();
        assert_eq!(stream.on_gap.as_ref().map(Spanned::get_ref), Some(&OnGap::Record));
        assert_eq!(stream.topic_life.as_ref().map(|life| life.get_ref().get()), Some(2));
        for wrong in ["on_gap = \"skip\"", "topic_life = 0"] {
            assert_eq!(with(wrong).expect_err("refused").len(), 1, "{wrong}");
        }
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let text = GOOD.replace("delay = \"2 minutes\"", "dellay = \"x\"\nidle_timeout = \"soon\"") + "ulr = 3\n";
        let mistakes = parse("wattline.toml", &text).expect_err("three mistakes");
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes.iter().all(|m| m.span.is_some()));
        assert!(mistakes.iter().any(|m| m.help.as_deref() == Some("did you mean `delay`?")));
        assert!(mistakes.iter().any(|m| m.help.as_deref() == Some("did you mean `url`?")));
        assert!(mistakes.iter().any(|m| m.message.contains("`soon` is not a duration")));
    }

    #[test]
    fn secrets_are_filled_in_and_never_shown() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("secret");
        std::fs::write(&file, "s3cret\n").expect("write");
        let scalar = Scalar(format!("a-${{file:{}}}-b", file.display()));
        assert_eq!(scalar.reveal().expect("secret"), "a-s3cret-b");
        assert!(!format!("{scalar:?}").contains("file"));
        assert!(Scalar("${env:WATTLINE_NOT_SET}".into()).reveal().is_err());
    }

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(parse_size("64 MB"), Some(64 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("many"), None);
    }
}
