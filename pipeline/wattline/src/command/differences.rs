//! How the rows of two rules differ: what is judged otherwise first, what merely says something else about it after.
//!
//! Rows are matched by what they are about (`entity`, or `key`) and by time. A verdict is a BOOLEAN, `severity`, `verdict` or `state`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value, json};
use wattline_core::time::HumanDuration;
use wattline_sql::{CompiledRule, RuleKind, RuleSet};

use crate::table_text::table;

const VERDICTS: [&str; 3] = ["severity", "verdict", "state"];

/// What a rule gives over a stretch of the archive.
pub(super) struct Replayed {
    pub(super) rules: RuleSet,
    pub(super) id: String,
    pub(super) batch: RecordBatch,
}

impl Replayed {
    pub(super) fn rule(&self) -> Option<&CompiledRule> {
        self.rules.rule(&self.id).map(|(_, rule)| rule)
    }

    /// In how many rows each BOOLEAN column is true.
    fn true_counts(&self) -> BTreeMap<String, usize> {
        let columns = self.batch.schema_ref().fields().iter().zip(self.batch.columns());
        let booleans = columns.filter_map(|(field, column)| Some((field.name(), column.as_boolean_opt()?)));
        booleans.map(|(name, column)| (name.clone(), column.true_count())).collect()
    }

    /// The length of its windows, if all have the same.
    fn window_us(&self) -> Option<i64> {
        let times = |name: &str| self.batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        let (starts, ends) = (times("window_start")?, times("window_end")?);
        let lengths: BTreeSet<i64> =
            starts.values().iter().zip(ends.values()).map(|(start, end)| end - start).collect();
        lengths.first().copied().filter(|_| lengths.len() == 1)
    }
}

/// A row as text, by column.
type Row = BTreeMap<String, String>;

/// A column that differs, and both values.
type ChangedColumn = (String, String, String);

/// Two rows about the same.
struct Change {
    about: Vec<String>,
    columns: Vec<ChangedColumn>,
}

/// How the rows of two rules differ.
pub(super) struct Differences {
    key: Vec<String>,
    /// Columns that say how something is judged.
    verdicts: BTreeSet<String>,
    rows: [usize; 2],
    true_counts: [BTreeMap<String, usize>; 2],
    /// Lengths of the windows, where they are not the same.
    windows_us: Option<[i64; 2]>,
    alike: usize,
    judged_otherwise: Vec<Change>,
    otherwise_changed: Vec<Change>,
    only_old: Vec<Row>,
    only_new: Vec<Row>,
}

/// Compares what two rules give.
///
/// # Errors
/// If the second lacks a column by which rows are matched.
pub(super) fn differences(old: &Replayed, new: &Replayed) -> Result<Differences> {
    let (Some(old_rule), Some(new_rule)) = (old.rule(), new.rule()) else { bail!("a rule is gone") };
    let key = key_of(old_rule);
    if let Some(missing) = key.iter().find(|name| new_rule.output_schema.field_with_name(name).is_err()) {
        bail!("`{}` has no column `{missing}`, by which rows of the two are matched", new_rule.header.id);
    }
    let fields = old_rule.output_schema.fields().iter().chain(new_rule.output_schema.fields());
    let is_verdict = |name: &str, of: &DataType| *of == DataType::Boolean || VERDICTS.contains(&name);
    let verdicts = fields.filter(|field| is_verdict(field.name(), field.data_type()));
    let windows_us = old.window_us().zip(new.window_us()).filter(|(old, new)| old != new);
    let mut found = Differences {
        verdicts: verdicts.map(|field| field.name().clone()).collect(),
        rows: [old.batch.num_rows(), new.batch.num_rows()],
        true_counts: [old.true_counts(), new.true_counts()],
        windows_us: windows_us.map(|(old, new)| [old, new]),
        key,
        alike: 0,
        judged_otherwise: Vec::new(),
        otherwise_changed: Vec::new(),
        only_old: Vec::new(),
        only_new: Vec::new(),
    };
    found.match_rows(&old.batch, &new.batch)?;
    Ok(found)
}

/// The columns that tell rows apart: what they are about, and when.
fn key_of(rule: &CompiledRule) -> Vec<String> {
    let names = |at: &usize| rule.output_schema.field(*at).name().clone();
    let mut key = match rule.header.kind {
        RuleKind::Alert => rule.entity_columns.iter().map(names).collect(),
        _ if rule.header.key.is_empty() => {
            let is_key = |name: &str, of: &DataType| of.is_string() && !VERDICTS.contains(&name);
            let texts = rule.output_schema.fields().iter().filter(|field| is_key(field.name(), field.data_type()));
            texts.map(|field| field.name().clone()).collect()
        }
        _ => rule.header.key.clone(),
    };
    let time = names(&rule.event_time_column);
    for name in ["window_start", &time] {
        if rule.output_schema.field_with_name(name).is_ok() && !key.iter().any(|known| known == name) {
            key.push(name.to_owned());
        }
    }
    key
}

/// Rows by what they are about.
fn rows_by(key: &[String], batch: &RecordBatch) -> Result<BTreeMap<Vec<String>, Vec<Row>>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let columns: Vec<(String, ArrayFormatter<'_>)> = columns
        .map(|(field, column)| Ok((field.name().clone(), ArrayFormatter::try_new(column, &options)?)))
        .collect::<Result<_>>()?;
    let mut rows: BTreeMap<Vec<String>, Vec<Row>> = BTreeMap::new();
    for at in 0..batch.num_rows() {
        let values: Row = columns.iter().map(|(name, column)| (name.clone(), column.value(at).to_string())).collect();
        let about = key.iter().map(|name| values.get(name).cloned().unwrap_or_default()).collect();
        rows.entry(about).or_default().push(values);
    }
    rows.values_mut().for_each(|rows| rows.sort());
    Ok(rows)
}

impl Differences {
    fn match_rows(&mut self, old: &RecordBatch, new: &RecordBatch) -> Result<()> {
        let mut new = rows_by(&self.key, new)?;
        for (about, olds) in rows_by(&self.key, old)? {
            let mut news = new.remove(&about).unwrap_or_default();
            let (mut alike, mut others) = (0, Vec::new());
            for old in olds {
                match news.iter().position(|new| *new == old) {
                    Some(at) => {
                        news.remove(at);
                        alike += 1;
                    }
                    None => others.push(old),
                }
            }
            self.alike += alike;
            let mut news = news.into_iter();
            for old in others {
                let Some(new) = news.next() else {
                    self.only_old.push(old);
                    continue;
                };
                let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                let value = |row: &Row, name: &String| row.get(name).cloned().unwrap_or_else(|| "no column".to_owned());
                let both = names.into_iter().map(|name| (name.clone(), value(&old, name), value(&new, name)));
                let columns: Vec<ChangedColumn> = both.filter(|(_, old, new)| old != new).collect();
                let change = Change { about: about.clone(), columns };
                match &change.columns {
                    columns if columns.is_empty() => self.alike += 1,
                    columns if columns.iter().any(|(name, ..)| self.verdicts.contains(name)) => {
                        self.judged_otherwise.push(change);
                    }
                    _ => self.otherwise_changed.push(change),
                }
            }
            self.only_new.extend(news);
        }
        self.only_new.extend(new.into_values().flatten());
        Ok(())
    }

    /// Rows about the same that differ, rows that are on the first side only, and on the second.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let changed = self.judged_otherwise.len() + self.otherwise_changed.len();
        (changed, self.only_old.len(), self.only_new.len())
    }

    /// For people: counts, then so many rows.
    pub(super) fn text(&self, limit: usize) -> String {
        let count = |name: String, [old, new]: [usize; 2]| vec![name, old.to_string(), new.to_string()];
        let mut counts = vec![count("rows".to_owned(), self.rows)];
        let [old, new] = &self.true_counts;
        let booleans: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let of = |counts: &BTreeMap<String, usize>, name: &String| counts.get(name).copied().unwrap_or_default();
        counts
            .extend(booleans.into_iter().map(|name| count(format!("{name} is true"), [of(old, name), of(new, name)])));
        let mut out = table(&["", "before", "after"], &counts);
        if let Some(lengths_us) = self.windows_us {
            let [old, new] = lengths_us.map(|us| HumanDuration(us / 1_000));
            out.push_str(&format!(
                "\nwindows of {old} before and of {new} after: most rows are about other times, so compare the counts\n"
            ));
        }
        out.push_str(&format!(
            "\n{} alike, {} judged otherwise, {} changed otherwise{}, {} only before, {} only after\n",
            self.alike,
            self.judged_otherwise.len(),
            self.otherwise_changed.len(),
            self.changed_columns(),
            self.only_old.len(),
            self.only_new.len()
        ));
        let only = |mark: &'static str, rows: &[Row]| -> Vec<String> {
            rows.iter().map(|row| format!("{mark} {}\n", self.told(row))).collect()
        };
        let mut lines: Vec<String> = self.judged_otherwise.iter().map(|change| self.line(change)).collect();
        // One of each in turn, so that neither side hides the other.
        let (gone, come) = (only("-", &self.only_old), only("+", &self.only_new));
        let longest = gone.len().max(come.len());
        lines.extend((0..longest).flat_map(|at| [gone.get(at), come.get(at)]).flatten().cloned());
        lines.extend(self.otherwise_changed.iter().map(|change| self.line(change)));
        out.extend(lines.iter().take(limit).cloned());
        if lines.len() > limit {
            out.push_str(&format!("… and {} more: --limit {} shows all\n", lines.len() - limit, lines.len()));
        }
        out
    }

    /// ` (limit_high 85)`: in how many rows which column is another, apart from verdicts.
    fn changed_columns(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, ..) in self.otherwise_changed.iter().flat_map(|change| &change.columns) {
            *counts.entry(name).or_default() += 1;
        }
        let counts: Vec<String> = counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) }
    }

    fn line(&self, change: &Change) -> String {
        let (verdicts, others): (Vec<_>, Vec<_>) =
            change.columns.iter().partition(|(name, ..)| self.verdicts.contains(name));
        let columns = verdicts.into_iter().chain(others).map(|(name, old, new)| format!("{name} {old} -> {new}"));
        let about = self.key.iter().zip(&change.about).map(|(name, value)| format!("{name}={value}"));
        let (about, columns) = (about.collect::<Vec<_>>().join(" "), columns.collect::<Vec<_>>().join(", "));
        format!("~ {about}: {columns}\n")
    }

    /// What a row is about, and how it is judged.
    fn told(&self, row: &Row) -> String {
        let is_told = |name: &str| self.verdicts.contains(name) || name == "measured";
        let of = |name: &String| Some(format!("{name}={}", row.get(name)?));
        let about = self.key.iter().filter_map(of);
        let judged = row.keys().filter(|name| is_told(name) && !self.key.contains(name)).filter_map(of);
        about.chain(judged).collect::<Vec<_>>().join(" ")
    }

    /// For programs: all of it.
    pub(super) fn json(&self) -> Value {
        let change = |change: &Change| {
            let about: Map<String, Value> =
                self.key.iter().zip(&change.about).map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            let columns: Map<String, Value> =
                change.columns.iter().map(|(name, old, new)| (name.clone(), json!([old, new]))).collect();
            json!({"about": about, "columns": columns})
        };
        let [old, new] = &self.true_counts;
        json!({
            "rows": self.rows,
            "true": {"before": old, "after": new},
            "window_seconds": self.windows_us.map(|lengths| lengths.map(|us| us / 1_000_000)),
            "alike": self.alike,
            "judged_otherwise": self.judged_otherwise.iter().map(change).collect::<Vec<_>>(),
            "changed_otherwise": self.otherwise_changed.iter().map(change).collect::<Vec<_>>(),
            "only_old": self.only_old,
            "only_new": self.only_new,
        })
    }
}
