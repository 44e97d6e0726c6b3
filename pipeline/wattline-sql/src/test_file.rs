//! `<rule>.test.toml`: given rows, expected rows, beside the rule.
//!
//! ```toml
//! [[test]]
//! name = "235.4 V on 220 V is exactly +7 % and no violation"
//! expect = [{ meter_id = "M1", dev_pct = 7.0, firing = false }]
//! alerts = []
//! [test.given]
//! meter_readings = [{ meter_id = "M1", ts = "2026-03-02T00:00:00Z", u_a_v = 235.4 }]
//! [test.reference]
//! meters = """
//! meter_id,un_v
//! M1,220"""
//! ```
//! Given rows are a list of tables, or one text of CSV (header line first) or NDJSON. Expected rows may leave
//! columns out; a number is compared at the digits that are written, so `7.0` accepts 7.04 and refuses 7.06;
//! the text `null` stands for NULL.
//!
//! Rows arrive in the order of their event time, however they are grouped in the file, so none is late.
//! `arrival = "as_given"` lets them arrive as written, on one lane, and so shows what the rule's delay does; `delay = "2 minutes"` says
//! what that is, unless the rule does, whatever the streams of the job have.
//!
//! `shows = ["firing", "boundary"]` says which [kinds](CaseKind) of case it is, so that one can ask which kinds a rule lacks.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use wattline_core::time::parse_duration_ms;

use crate::catalog::Catalog;
use crate::diagnostic::{Diagnostic, code, nearest};

const KEYS: [&str; 8] = ["name", "shows", "arrival", "delay", "given", "reference", "expect", "alerts"];

/// The cases of one test file.
#[derive(Debug, Clone, PartialEq)]
pub struct TestFile {
    /// In the order of the file.
    pub cases: Vec<TestCase>,
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    /// What it shows.
    pub name: String,
    /// Kinds of case that it is, as far as the file says.
    pub shows: Vec<CaseKind>,
    /// Whether rows arrive as written rather than in the order of their event time.
    pub as_given: bool,
    /// Lateness that rules tolerate unless their header says otherwise, milliseconds; that of the streams if `None`.
    pub delay_ms: Option<i64>,
    /// Rows by stream, as JSON objects.
    pub given: BTreeMap<String, Vec<Value>>,
    /// Reference tables that replace the configured ones, as CSV text.
    pub reference: BTreeMap<String, String>,
    /// Rows the rule gives, in any order; `None` if the case does not say.
    pub expect: Option<Vec<ExpectedRow>>,
    /// Alerts after the lifecycle; `None` if the case does not say.
    pub alerts: Option<Vec<ExpectedRow>>,
}

/// What a case shows of its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CaseKind {
    /// A violation: an alert opens, or a row is given.
    Firing,
    /// No violation, if only just.
    Quiet,
    /// A value, a count or an instant exactly on the limit.
    Boundary,
    /// What is not there: NULL, absent rows, an entity that no register knows.
    Missing,
    /// An event that comes late.
    Late,
    /// An alert resolves.
    Resolved,
}

impl CaseKind {
    /// In the order in which one writes them.
    pub const ALL: [Self; 6] = [Self::Firing, Self::Quiet, Self::Boundary, Self::Missing, Self::Late, Self::Resolved];

    /// As it is written in a test file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Quiet => "quiet",
            Self::Boundary => "boundary",
            Self::Missing => "missing",
            Self::Late => "late",
            Self::Resolved => "resolved",
        }
    }
}

/// Expected values by column.
pub type ExpectedRow = BTreeMap<String, Expected>;

/// An expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// A number as written.
    Number(String),
    /// A text, an instant, or `null`.
    Text(String),
    /// A boolean.
    Boolean(bool),
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(text) | Self::Text(text) => f.write_str(text),
            Self::Boolean(value) => write!(f, "{value}"),
        }
    }
}

impl TestFile {
    /// Reads a test file; the catalog says which columns of CSV rows are numbers.
    ///
    /// # Errors
    /// Every mistake of the file.
    pub fn parse(path: &str, text: &str, catalog: &Catalog) -> Result<Self, Vec<Diagnostic>> {
        let document = DeTable::parse(text)
            .map_err(|error| vec![Diagnostic::error(code::TEST_FILE, path, error.message()).at(error.span())])?;
        let mut reader = Reader { path, catalog, diagnostics: Vec::new() };
        let mut cases = Vec::new();
        for (key, value) in document.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("test", DeValue::Array(tests)) => cases.extend(tests.iter().filter_map(|test| reader.case(test))),
                (name, _) => reader.refuse(key.span(), format!("unknown key `{name}`"), "write `[[test]]`"),
            }
        }
        if cases.is_empty() && reader.diagnostics.is_empty() {
            reader.refuse(0..0, "the file holds no test", "start one with `[[test]]` and `name = \"…\"`");
        }
        if reader.diagnostics.is_empty() { Ok(Self { cases }) } else { Err(reader.diagnostics) }
    }
}

struct Reader<'a> {
    path: &'a str,
    catalog: &'a Catalog,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn refuse(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(code::TEST_FILE, self.path, message).at(span).help(help));
    }

    fn case(&mut self, test: &Spanned<DeValue<'_>>) -> Option<TestCase> {
        let DeValue::Table(table) = test.get_ref() else {
            self.refuse(test.span(), "a test is a table", "write `[[test]]`");
            return None;
        };
        let mut case = TestCase {
            name: String::new(),
            shows: Vec::new(),
            as_given: false,
            delay_ms: None,
            given: BTreeMap::new(),
            reference: BTreeMap::new(),
            expect: None,
            alerts: None,
        };
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("name", DeValue::String(name)) => case.name = name.to_string(),
                ("shows", kinds) => case.shows = self.kinds(value.span(), kinds),
                ("arrival", DeValue::String(order)) if order == "as_given" || order == "by_time" => {
                    case.as_given = order == "as_given";
                }
                ("delay", DeValue::String(text)) if parse_duration_ms(text).is_ok() => {
                    case.delay_ms = parse_duration_ms(text).ok();
                }
                ("arrival", _) => {
                    self.refuse(value.span(), "`arrival` has two values", "write \"by_time\" or \"as_given\"");
                }
                ("given", DeValue::Table(streams)) => case.given = self.given(streams),
                ("reference", DeValue::Table(tables)) => case.reference = self.reference(tables),
                ("expect", rows) => case.expect = self.rows(value.span(), rows),
                ("alerts", rows) => case.alerts = self.rows(value.span(), rows),
                (name, _) => {
                    let help = nearest(name, KEYS).map_or_else(
                        || format!("the keys are {}", KEYS.join(", ")),
                        |right| format!("write `{right}`; a text, a table or a list as the guide shows"),
                    );
                    self.refuse(key.span(), format!("`{name}` does not fit here"), help);
                }
            }
        }
        if case.name.is_empty() {
            self.refuse(test.span(), "the test has no name", "add `name = \"what it shows\"`");
        }
        self.check_kinds(test.span(), &case);
        Some(case)
    }

    fn kinds(&mut self, span: Range<usize>, value: &DeValue<'_>) -> Vec<CaseKind> {
        let kind = |item: &Spanned<DeValue<'_>>| {
            let name = item.get_ref().as_str()?;
            CaseKind::ALL.into_iter().find(|kind| kind.name() == name)
        };
        let kinds = value.as_array().and_then(|items| items.iter().map(kind).collect());
        kinds.unwrap_or_else(|| {
            let names = CaseKind::ALL.map(CaseKind::name).join(", ");
            self.refuse(span, "`shows` is a list of kinds of case", format!("the kinds are {names}"));
            Vec::new()
        })
    }

    /// A case has to expect what it says it shows.
    fn check_kinds(&mut self, span: Range<usize>, case: &TestCase) {
        let has_alert = |status: &str| {
            let is = |alert: &ExpectedRow| alert.get("status") == Some(&Expected::Text(status.to_owned()));
            case.alerts.iter().flatten().any(is)
        };
        let fires = |row: &ExpectedRow| row.get("firing") != Some(&Expected::Boolean(false));
        for kind in &case.shows {
            let (holds, wanted) = match kind {
                CaseKind::Firing => (
                    has_alert("open") || (case.alerts.is_none() && case.expect.iter().flatten().any(fires)),
                    "expect an alert with `status = \"open\"`, or, of a rule without alerts, a row",
                ),
                CaseKind::Resolved => (has_alert("resolved"), "expect an alert with `status = \"resolved\"`"),
                CaseKind::Late => {
                    (case.as_given, "write `arrival = \"as_given\"` and rows in the order of their arrival")
                }
                CaseKind::Quiet | CaseKind::Boundary | CaseKind::Missing => continue,
            };
            if !holds {
                self.refuse(span.clone(), format!("the case does not show `{}`", kind.name()), wanted);
            }
        }
    }

    fn given(&mut self, streams: &DeTable<'_>) -> BTreeMap<String, Vec<Value>> {
        let mut given = BTreeMap::new();
        for (name, value) in streams {
            let stream = name.get_ref().to_string();
            let Some(schema) = self.catalog.stream(&stream).map(|stream| stream.schema.clone()) else {
                let names: Vec<&str> = self.catalog.streams().map(|stream| stream.name.as_str()).collect();
                let help = format!("the streams are {}", names.join(", "));
                self.refuse(name.span(), format!("there is no stream `{stream}`"), help);
                continue;
            };
            match rows_of(value.get_ref(), &schema) {
                Ok(rows) => {
                    given.insert(stream, rows);
                }
                Err(problem) => {
                    self.refuse(value.span(), problem, "write a list of tables, or a text of CSV or NDJSON");
                }
            }
        }
        given
    }

    fn reference(&mut self, tables: &DeTable<'_>) -> BTreeMap<String, String> {
        let mut reference = BTreeMap::new();
        for (name, value) in tables {
            let table = name.get_ref().to_string();
            let known = self.catalog.references().any(|known| known.name == table);
            match value.get_ref() {
                DeValue::String(csv) if known => {
                    reference.insert(table, csv.to_string());
                }
                DeValue::String(_) => {
                    let names: Vec<&str> = self.catalog.references().map(|known| known.name.as_str()).collect();
                    let help = format!("the reference tables are {}", names.join(", "));
                    self.refuse(name.span(), format!("there is no reference table `{table}`"), help);
                }
                _ => self.refuse(value.span(), "a reference table is a text of CSV", "write `meters = \"\"\"…\"\"\"`"),
            }
        }
        reference
    }

    fn rows(&mut self, span: Range<usize>, value: &DeValue<'_>) -> Option<Vec<ExpectedRow>> {
        let rows = value.as_array().map(|rows| rows.iter().map(|row| expected_row(row.get_ref())).collect());
        let rows: Option<Option<Vec<ExpectedRow>>> = rows;
        rows.flatten().or_else(|| {
            self.refuse(span, "expected rows are a list of tables", "write `expect = [{ meter_id = \"M1\" }]`");
            None
        })
    }
}

fn expected_row(value: &DeValue<'_>) -> Option<ExpectedRow> {
    value
        .as_table()?
        .iter()
        .map(|(name, value)| {
            let expected = match value.get_ref() {
                DeValue::Integer(number) => Expected::Number(number.as_str().replace('_', "")),
                DeValue::Float(number) => Expected::Number(number.as_str().replace('_', "")),
                DeValue::Boolean(value) => Expected::Boolean(*value),
                DeValue::String(text) => Expected::Text(text.to_string()),
                DeValue::Datetime(instant) => Expected::Text(instant.to_string()),
                DeValue::Array(_) | DeValue::Table(_) => return None,
            };
            Some((name.get_ref().to_string(), expected))
        })
        .collect()
}

fn rows_of(value: &DeValue<'_>, schema: &SchemaRef) -> Result<Vec<Value>, String> {
    match value {
        DeValue::Array(rows) => rows
            .iter()
            .map(|row| match row.get_ref() {
                DeValue::Table(_) => json_of(row.get_ref()),
                other => Err(format!("a row is a table, not {}", other.type_str())),
            })
            .collect(),
        DeValue::String(text) if text.trim_start().starts_with('{') => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).map_err(|error| format!("`{line}` is not JSON: {error}")))
            .collect(),
        DeValue::String(text) => csv_rows(text, schema),
        other => Err(format!("given rows cannot be {}", other.type_str())),
    }
}

fn json_of(value: &DeValue<'_>) -> Result<Value, String> {
    let number = |digits: &str| {
        serde_json::from_str::<Value>(&digits.replace('_', "")).map_err(|error| format!("`{digits}`: {error}"))
    };
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(digits) => number(digits.as_str())?,
        DeValue::Float(digits) => number(digits.as_str())?,
        DeValue::Datetime(instant) => Value::String(instant.to_string()),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| json_of(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let fields = table.iter().map(|(name, value)| Ok((name.get_ref().to_string(), json_of(value.get_ref())?)));
            Value::Object(fields.collect::<Result<Map<_, _>, String>>()?)
        }
    })
}

/// Plain CSV: no quotes, empty means absent; the schema says which columns are numbers and booleans.
fn csv_rows(text: &str, schema: &SchemaRef) -> Result<Vec<Value>, String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            if cells.len() != names.len() {
                return Err(format!("`{line}` has {} cells and the header {}", cells.len(), names.len()));
            }
            let mut row = Map::new();
            for (name, cell) in names.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
                let typed = schema.field_with_name(name).map(|field| field.data_type());
                let plain = typed.is_ok_and(|t| t.is_numeric() || *t == arrow::datatypes::DataType::Boolean);
                let value = plain.then(|| serde_json::from_str(cell).ok()).flatten();
                row.insert((*name).to_owned(), value.unwrap_or_else(|| Value::String(cell.to_owned())));
            }
            Ok(Value::Object(row))
        })
        .collect()
}
