//! A rule file: a TOML header in the first comment, then one SQL query.
//!
//! The header is read as a spanned TOML document and not through serde, so that every mistake in it
//! (unknown key, wrong type, bad duration) is reported at its place and all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use datafusion::sql::sqlparser::ast::Statement;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wattline_core::time::parse_duration_ms;

use crate::diagnostic::{Diagnostic, code, nearest};
use crate::logical::{parse, tables_of};

const OPEN: &str = "/*---";
const CLOSE: &str = "---*/";
const KEYS: [&str; 24] = [
    "id",
    "kind",
    "title",
    "title_zh",
    "severity",
    "entity",
    "standard",
    "clause",
    "effective_from",
    "effective_to",
    "description",
    "owner",
    "version",
    "category",
    "unit",
    "runbook",
    "delay",
    "late",
    "backfill",
    "delivery",
    "params",
    "resolve_after",
    "renotify",
    "key",
];

/// A rule file as it came from disk or from the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// The path to show in messages.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// The id that the path of a rule file, or of its tests, says.
#[must_use]
pub fn rule_of(path: &str) -> Option<&str> {
    let name = path.rsplit(['/', ':']).next()?;
    name.strip_suffix(".sql").or_else(|| name.strip_suffix(".test.toml"))
}

impl RuleFile {
    /// The streams, reference tables and rules that the query names; none if it cannot be read.
    #[must_use]
    pub fn tables_read(&self) -> BTreeSet<String> {
        let statements = parse(&self.text).unwrap_or_default();
        let queries = statements.iter().filter_map(|statement| match statement {
            Statement::Query(query) => Some(tables_of(query)),
            _ => None,
        });
        queries.flatten().collect()
    }
}

/// What a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// Its rows open, update and resolve alerts.
    Alert,
    /// Its rows are a table of the archive.
    Table,
    /// It is only read by other rules.
    View,
}

/// How urgent the alerts of a rule are, unless a row says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleSeverity {
    /// For the record.
    Info,
    /// Someone should look.
    Warning,
    /// Someone must act now.
    Critical,
}

impl RuleSeverity {
    /// The word used in headers, alerts and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What becomes of events that come later than the delay of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LatePolicy {
    /// They are in the raw table, and the results stay as they are.
    Ignore,
    /// They correct the results that were out already.
    Update,
}

/// How the alerts of a rule get to their topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Once, after the tick that they belong to was committed.
    ExactlyOnce,
    /// At least once and always with the same id, as soon as their events are judged.
    LowLatency,
}

/// The value of a parameter, as SQL will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamValue {
    /// A number in the very digits of the header, so that `7.0` is an exact decimal and never a binary float.
    Number(String),
    /// A text.
    Text(String),
    /// A boolean.
    Boolean(bool),
}

impl std::fmt::Display for ParamValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(digits) => f.write_str(digits),
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            Self::Boolean(value) => write!(f, "{value}"),
        }
    }
}

/// A parameter and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// The value.
    pub value: ParamValue,
    /// The place of its name in the header.
    pub span: Range<usize>,
}

/// Everything a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHeader {
    /// The rule's name: also its table's name and what other rules read.
    pub id: String,
    /// Alert, table or view.
    pub kind: RuleKind,
    /// One line for people.
    pub title: String,
    /// The same in Chinese.
    pub title_zh: Option<String>,
    /// Default severity of its alerts.
    pub severity: RuleSeverity,
    /// The output columns that say what the alert is about; empty for tables and views.
    pub entity: Vec<String>,
    /// The standard the rule follows, with its edition, such as `GB/T 12325-2008`; `internal` for one of the house.
    pub standard: Option<String>,
    /// The clause of the standard.
    pub clause: Option<String>,
    /// The rule judges nothing from before this instant, microseconds since the epoch.
    pub effective_from_us: Option<i64>,
    /// The rule judges nothing from this instant on.
    pub effective_to_us: Option<i64>,
    /// Longer text.
    pub description: Option<String>,
    /// Who answers for the rule.
    pub owner: Option<String>,
    /// Version of the rule's meaning; part of its alerts.
    pub version: String,
    /// Grouping of alerts, such as `pq` or `device`.
    pub category: Option<String>,
    /// The unit of `measured` and its limits.
    pub unit: Option<String>,
    /// Where to read what to do.
    pub runbook: Option<String>,
    /// Lateness tolerated, in milliseconds; `None` takes the stream's default.
    pub delay_ms: Option<i64>,
    /// What becomes of later events.
    pub late: LatePolicy,
    /// How much of the archive the rule is given when it is new to a job with a past, milliseconds of event time.
    pub backfill_ms: Option<i64>,
    /// How its alerts get to their topic.
    pub delivery: Delivery,
    /// Values of `$name`.
    pub params: BTreeMap<String, Param>,
    /// Good rows in a row before an open alert resolves.
    pub resolve_after: u32,
    /// An open alert without news is sent again after this many milliseconds.
    pub renotify_ms: Option<i64>,
    /// Columns a table's rows are unique by.
    pub key: Vec<String>,
    /// Places of the header's keys, for later diagnostics.
    pub spans: BTreeMap<String, Range<usize>>,
}

impl RuleHeader {
    /// The place of a header key, or of the opening of the header.
    #[must_use]
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.spans.get(key).cloned().unwrap_or(0..OPEN.len())
    }
}

/// Reads the header of a rule file.
///
/// # Errors
/// Every mistake of the header.
pub(crate) fn parse_header(file: &RuleFile) -> Result<RuleHeader, Vec<Diagnostic>> {
    let body = header_range(file).map_err(|diagnostic| vec![*diagnostic])?;
    let table = match DeTable::parse(&file.text[body.clone()]) {
        Ok(table) => table,
        Err(error) => {
            let span = error.span().map(|span| span.start + body.start..span.end + body.start);
            let message = format!("the header is not TOML: {}", error.message());
            return Err(vec![Diagnostic::error(code::HEADER_SYNTAX, &file.path, message).at(span)]);
        }
    };
    let mut reader = HeaderReader { file, offset: body.start, table: table.get_ref(), diagnostics: Vec::new() };
    reader.refuse_unknown_keys();
    let header = reader.header();
    if reader.diagnostics.is_empty() { Ok(header) } else { Err(reader.diagnostics) }
}

fn header_range(file: &RuleFile) -> Result<Range<usize>, Box<Diagnostic>> {
    let missing =
        |message: &str, span: Range<usize>| {
            Box::new(Diagnostic::error(code::HEADER_MISSING, &file.path, message).at(span).help(
                "start the file with `/*---`, TOML lines such as `id = \"…\"` and `kind = \"alert\"`, then `---*/`",
            ))
        };
    let start = file.text.len() - file.text.trim_start().len();
    if !file.text[start..].starts_with(OPEN) {
        return Err(missing("the rule has no header", start..start));
    }
    let body = start + OPEN.len();
    let end = file.text[body..].find(CLOSE).map(|at| body + at);
    end.map(|end| body..end).ok_or_else(|| missing("the header is not closed by `---*/`", start..body))
}

struct HeaderReader<'a> {
    file: &'a RuleFile,
    offset: usize,
    table: &'a DeTable<'a>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> HeaderReader<'a> {
    fn header(&mut self) -> RuleHeader {
        let spans = self.table.keys().map(|key| (key.get_ref().to_string(), self.shift(key.span()))).collect();
        let id = self.id();
        let kind = self.kind();
        RuleHeader {
            title: self.text("title").unwrap_or_else(|| id.clone()),
            title_zh: self.text("title_zh"),
            severity: self.severity(),
            entity: self.entity(kind),
            standard: self.text("standard"),
            clause: self.text("clause"),
            effective_from_us: self.instant("effective_from"),
            effective_to_us: self.instant("effective_to"),
            description: self.text("description"),
            owner: self.text("owner"),
            version: self.version(),
            category: self.text("category"),
            unit: self.text("unit"),
            runbook: self.text("runbook"),
            delay_ms: self.duration("delay"),
            late: self.late(),
            backfill_ms: self.backfill(),
            delivery: self.delivery(kind),
            params: self.params(),
            resolve_after: self.resolve_after(),
            renotify_ms: self.duration("renotify"),
            key: self.names("key"),
            id,
            kind,
            spans,
        }
    }

    fn shift(&self, span: Range<usize>) -> Range<usize> {
        span.start + self.offset..span.end + self.offset
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn refuse_unknown_keys(&mut self) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !KEYS.contains(&name) {
                let help = nearest(name, KEYS)
                    .map_or_else(|| format!("the keys are {}", KEYS.join(", ")), |right| format!("write `{right}`"));
                let message = format!("the header has no key `{name}`");
                let span = self.shift(key.span());
                self.diagnostics
                    .push(Diagnostic::error(code::HEADER_UNKNOWN_KEY, &self.file.path, message).at(span).help(help));
            }
        }
    }

    fn missing(&mut self, key: &str, example: &str) {
        let message = format!("the header lacks `{key}`");
        let span = self.offset - OPEN.len()..self.offset;
        let diagnostic = Diagnostic::error(code::HEADER_MISSING_KEY, &self.file.path, message);
        self.diagnostics.push(diagnostic.at(span).help(format!("add a line `{example}`")));
    }

    fn wrong(&mut self, key: &str, value: &Spanned<DeValue<'_>>, help: impl Into<String>) {
        let span = self.shift(value.span());
        let text = self.file.text[span.clone()].to_owned();
        let message = format!("{text} is not a value for `{key}`").replace('\n', " ");
        self.diagnostics.push(Diagnostic::error(code::HEADER_VALUE, &self.file.path, message).at(span).help(help));
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.wrong(key, value, format!("write a text: `{key} = \"…\"`"));
                None
            }
        }
    }

    fn id(&mut self) -> String {
        let Some(value) = self.value("id") else {
            self.missing("id", &format!("id = \"{}\"", rule_of(&self.file.path).unwrap_or("pq_voltage_deviation")));
            return String::new();
        };
        let id = self.text("id").unwrap_or_default();
        let plain = id.starts_with(|c: char| c.is_ascii_lowercase())
            && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !plain && value.get_ref().is_str() {
            self.wrong("id", value, "use lower-case letters, digits and `_`, a letter first: it names a table");
        }
        let stem = self.file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".sql"));
        if plain && let Some(stem) = stem.filter(|stem| *stem != id) {
            let span = self.shift(value.span());
            let message = format!("rule `{id}` stands in a file called `{stem}.sql`");
            self.diagnostics.push(
                Diagnostic::error(code::ID_FILE_NAME, &self.file.path, message)
                    .at(span)
                    .help(format!("call the file `{id}.sql` or write `id = \"{stem}\"`")),
            );
        }
        id
    }

    fn kind(&mut self) -> RuleKind {
        let Some(value) = self.value("kind") else {
            self.missing("kind", "kind = \"alert\"");
            return RuleKind::View;
        };
        match value.get_ref().as_str() {
            Some("alert") => RuleKind::Alert,
            Some("table") => RuleKind::Table,
            Some("view") => RuleKind::View,
            _ => {
                self.wrong("kind", value, "write \"alert\", \"table\" or \"view\"");
                RuleKind::View
            }
        }
    }

    fn late(&mut self) -> LatePolicy {
        let Some(value) = self.value("late") else { return LatePolicy::Ignore };
        match value.get_ref().as_str() {
            Some("ignore") => LatePolicy::Ignore,
            Some("update") => LatePolicy::Update,
            _ => {
                self.wrong("late", value, "write \"ignore\" or \"update\"");
                LatePolicy::Ignore
            }
        }
    }

    fn delivery(&mut self, kind: RuleKind) -> Delivery {
        let Some(value) = self.value("delivery") else { return Delivery::ExactlyOnce };
        match value.get_ref().as_str() {
            Some("exactly_once" | "low_latency") if kind != RuleKind::Alert => {
                self.wrong("delivery", value, "remove it: only rules with `kind = \"alert\"` are published");
                Delivery::ExactlyOnce
            }
            Some("exactly_once") => Delivery::ExactlyOnce,
            Some("low_latency") => Delivery::LowLatency,
            _ => {
                self.wrong("delivery", value, "write \"exactly_once\" or \"low_latency\"");
                Delivery::ExactlyOnce
            }
        }
    }

    fn severity(&mut self) -> RuleSeverity {
        let Some(value) = self.value("severity") else { return RuleSeverity::Warning };
        match value.get_ref().as_str() {
            Some("info") => RuleSeverity::Info,
            Some("warning") => RuleSeverity::Warning,
            Some("critical") => RuleSeverity::Critical,
            _ => {
                self.wrong("severity", value, "write \"info\", \"warning\" or \"critical\"");
                RuleSeverity::Warning
            }
        }
    }

    fn entity(&mut self, kind: RuleKind) -> Vec<String> {
        if self.value("entity").is_none() && kind == RuleKind::Alert {
            self.missing("entity", "entity = \"meter_id\"");
        }
        self.names("entity")
    }

    fn names(&mut self, key: &str) -> Vec<String> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let names = match value.get_ref() {
            DeValue::String(name) => Some(vec![name.to_string()]),
            DeValue::Array(items) => {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        names.filter(|names| !names.is_empty()).unwrap_or_else(|| {
            self.wrong(key, value, format!("write a column name or a list: `{key} = [\"meter_id\", \"phase\"]`"));
            Vec::new()
        })
    }

    fn version(&mut self) -> String {
        let Some(value) = self.value("version") else { return "1".to_owned() };
        match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            _ => {
                self.wrong("version", value, "write a text: `version = \"1\"`");
                "1".to_owned()
            }
        }
    }

    fn duration(&mut self, key: &str) -> Option<i64> {
        let value = self.value(key)?;
        match value.get_ref().as_str().map(parse_duration_ms) {
            Some(Ok(ms)) => Some(ms),
            _ => {
                self.wrong(key, value, format!("write a duration: `{key} = \"2 minutes\"`"));
                None
            }
        }
    }

    fn backfill(&mut self) -> Option<i64> {
        let ms = self.duration("backfill")?;
        if ms == 0
            && let Some(value) = self.value("backfill")
        {
            self.wrong("backfill", value, "write how much of the past, such as \"30 days\", or leave it out");
        }
        Some(ms)
    }

    /// An instant, or a day, which begins in UTC.
    fn instant(&mut self, key: &str) -> Option<i64> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str().unwrap_or_default();
        let midnight = format!("{text}T00:00:00Z");
        let text = if text.len() == "2026-01-01".len() { &midnight } else { text };
        let instant = chrono::DateTime::parse_from_rfc3339(text).ok().map(|instant| instant.timestamp_micros());
        if instant.is_none() {
            self.wrong(
                key,
                value,
                format!("write a day or an instant: `{key} = \"2026-01-01\"`, `{key} = \"2026-01-01T00:00:00+08:00\"`"),
            );
        }
        instant
    }

    fn resolve_after(&mut self) -> u32 {
        let Some(value) = self.value("resolve_after") else { return 1 };
        let count = value.get_ref().as_integer().and_then(|number| number.as_str().parse::<u32>().ok());
        count.filter(|count| *count > 0).unwrap_or_else(|| {
            self.wrong("resolve_after", value, "write how many good rows in a row resolve the alert, at least 1");
            1
        })
    }

    fn params(&mut self) -> BTreeMap<String, Param> {
        let Some(value) = self.value("params") else { return BTreeMap::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong("params", value, "write a table: `params = { upper_pct = 7.0 }`");
            return BTreeMap::new();
        };
        let mut params = BTreeMap::new();
        for (name, value) in table {
            let span = self.shift(name.span());
            match param_value(value.get_ref()) {
                Some(value) => {
                    params.insert(name.get_ref().to_string(), Param { value, span });
                }
                None => self.wrong(
                    name.get_ref(),
                    value,
                    "write a number, a text, a boolean, or `{ decimal = \"0.5469\" }`",
                ),
            }
        }
        params
    }
}

fn param_value(value: &DeValue<'_>) -> Option<ParamValue> {
    match value {
        DeValue::String(text) => Some(ParamValue::Text(text.to_string())),
        DeValue::Boolean(value) => Some(ParamValue::Boolean(*value)),
        DeValue::Integer(number) if number.radix() == 10 => number_of(number.as_str()),
        DeValue::Float(number) => number_of(number.as_str()),
        DeValue::Table(table) if table.len() == 1 => {
            let (_, digits) = table.iter().find(|(name, _)| name.get_ref() == "decimal")?;
            number_of(digits.get_ref().as_str()?)
        }
        _ => None,
    }
}

fn number_of(digits: &str) -> Option<ParamValue> {
    let digits = digits.trim_start_matches('+').replace('_', "");
    digits.parse::<f64>().ok().filter(|value| value.is_finite())?;
    let plain = digits.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    plain.then_some(ParamValue::Number(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> RuleFile {
        RuleFile { path: "sql/pq/pq_voltage.sql".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_full_header_is_read() {
        let header = parse_header(&file(
            "/*---\nid = \"pq_voltage\"\nkind = \"alert\"\ntitle = \"Voltage\"\nseverity = \"critical\"\n\
             entity = [\"meter_id\", \"phase\"]\ndelay = \"2 minutes\"\nbackfill = \"30 days\"\ndelivery = \"low_latency\"\nrenotify = \"1 day\"\nresolve_after = 3\n\
             params = { upper_pct = 7.0, lower_pct = -10, name = \"x\", on = true, tier = { decimal = \"0.5469\" } }\n\
             ---*/\nSELECT 1",
        ))
        .expect("valid");
        assert_eq!((header.delay_ms, header.backfill_ms), (Some(120_000), Some(2_592_000_000)));
        assert_eq!(header.renotify_ms, Some(86_400_000));
        assert_eq!(header.delivery, Delivery::LowLatency);
        assert_eq!(header.resolve_after, 3);
        assert_eq!(header.entity, ["meter_id", "phase"]);
        let values: Vec<_> = header.params.iter().map(|(name, param)| format!("{name}={}", param.value)).collect();
        assert_eq!(values, ["lower_pct=-10", "name='x'", "on=true", "tier=0.5469", "upper_pct=7.0"]);
    }

    #[test]
    fn every_mistake_is_reported_at_its_place() {
        let text = "/*---\nid = \"pq_volt\"\nkind = \"alarm\"\nseverty = \"info\"\ndelay = \"soon\"\nbackfill = \"0 s\"\n---*/\nSELECT 1";
        let mistakes = parse_header(&file(text)).expect_err("five mistakes");
        let seen: Vec<_> = mistakes.iter().map(|d| (d.code, &text[d.span.clone().expect("placed")])).collect();
        assert_eq!(
            seen,
            [
                (code::HEADER_UNKNOWN_KEY, "severty"),
                (code::ID_FILE_NAME, "\"pq_volt\""),
                (code::HEADER_VALUE, "\"alarm\""),
                (code::HEADER_VALUE, "\"soon\""),
                (code::HEADER_VALUE, "\"0 s\""),
            ]
        );
        assert_eq!(mistakes[0].help.as_deref(), Some("write `severity`"));
    }

    #[test]
    fn only_alerts_are_delivered_and_in_two_ways() {
        let of = |kind: &str, delivery: &str| {
            let header = format!("id = \"pq_voltage\"\nkind = \"{kind}\"\nentity = \"m\"\ndelivery = \"{delivery}\"");
            parse_header(&file(&format!("/*---\n{header}\n---*/\nSELECT 1")))
        };
        assert_eq!(of("alert", "exactly_once").expect("valid").delivery, Delivery::ExactlyOnce);
        for (kind, delivery) in [("alert", "at_most_once"), ("table", "low_latency"), ("view", "exactly_once")] {
            let mistakes = of(kind, delivery).expect_err("refused");
            let [mistake] = &mistakes[..] else { panic!("{mistakes:?}") };
            assert_eq!(mistake.code, code::HEADER_VALUE, "{kind}, {delivery}");
        }
    }

    #[test]
    fn a_file_without_header_is_refused() {
        assert_eq!(parse_header(&file("SELECT 1")).expect_err("no header")[0].code, code::HEADER_MISSING);
        assert_eq!(parse_header(&file("/*---\nid = 1\n")).expect_err("open")[0].code, code::HEADER_MISSING);
        assert_eq!(parse_header(&file("/*---\nid = \n---*/")).expect_err("toml")[0].code, code::HEADER_SYNTAX);
    }
}
