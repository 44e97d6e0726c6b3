//! Suites of SQL in the format of sqllogictest, run by the whole program over files.
//!
//! A suite (`tests/slt/*.slt`) says what a job reads, asks queries, and says what they give:
//!
//! - `CREATE TABLE s (…) WITH (event_time = 'at', delay = '1 minute')` is a stream; without `event_time` it is a reference table.
//! - `INSERT INTO s VALUES …` are its events, in the order in which they arrive.
//! - `CREATE VIEW v AS …` is a view, a `query` is a table rule, with more of its header in a comment `/*--- late = "update" ---*/`.
//! - `statement error WL-…` is a rule that `check` refuses with that code.
//!
//! All queries of a suite are rules of one job, which runs to the end of its files. Rows are compared as sets of text, however
//! a query says they are sorted: rows of a stream have no order. Suites of others run as they are, put beside these, as long
//! as their queries select an event time.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlparser::ast::{
    ColumnOption, CreateTable, DataType, Expr, SqlOption, Statement, TableObject, UnaryOperator, Value as Literal,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use crate::e2e::job::JobFolder;
use crate::tree;

const RUN_LIMIT: Duration = Duration::from_secs(120);

/// A table of a suite.
#[derive(Debug)]
struct Table {
    columns: Vec<(String, String, bool)>,
    event_time: Option<String>,
    delay: Option<String>,
    /// JSON as it is spelled: a number keeps its digits.
    rows: Vec<Vec<String>>,
}

/// A query and the rows that it shall give.
#[derive(Debug)]
struct Query {
    place: String,
    id: String,
    rows: Vec<String>,
}

#[derive(Debug, Default)]
struct Suite {
    tables: BTreeMap<String, Table>,
    /// Rule files by id.
    rules: BTreeMap<String, String>,
    queries: Vec<Query>,
    /// Rule files that are refused, with the code.
    refused: Vec<(String, String, String)>,
}

impl Suite {
    fn read(path: &std::path::Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let mut suite = Self::default();
        for (line, record) in records(&text) {
            let place = format!("{}:{line}", path.display());
            let (head, body) = record.split_once('\n').with_context(|| format!("{place}: a record without a body"))?;
            let words: Vec<&str> = head.split_whitespace().collect();
            match words[..] {
                ["halt", ..] => break,
                ["statement", "ok"] => suite.take(body).with_context(|| place)?,
                ["statement", "error", code] => {
                    let id = format!("e{:02}", suite.refused.len());
                    suite.refused.push((place, rule(&id, "table", body), code.to_owned()));
                }
                ["query", ..] => {
                    let (sql, rows) = body.split_once("\n----").unwrap_or((body, ""));
                    let id = format!("q{:02}", suite.queries.len());
                    suite.rules.insert(id.clone(), rule(&id, "table", sql));
                    let rows = rows.lines().filter(|row| !row.is_empty()).map(str::to_owned).collect();
                    suite.queries.push(Query { place, id, rows: sorted(rows) });
                }
                _ => bail!("{place}: `{head}` is not known here"),
            }
        }
        Ok(suite)
    }

    fn take(&mut self, sql: &str) -> Result<()> {
        let statement = Parser::parse_sql(&GenericDialect {}, sql)?.pop().context("a statement")?;
        match statement {
            Statement::CreateTable(create) => {
                self.tables.insert(create.name.to_string(), Table::of(&create)?);
            }
            Statement::CreateView(view) => {
                let (id, query) = (view.name.to_string(), view.query.to_string());
                self.rules.insert(id.clone(), rule(&id, "view", &query));
            }
            Statement::Insert(insert) => {
                let TableObject::TableName(name) = &insert.table else { bail!("insert into a table") };
                let table = self.tables.get_mut(&name.to_string()).with_context(|| format!("no table `{name}`"))?;
                let body = insert.source.context("values")?.body;
                let sqlparser::ast::SetExpr::Values(values) = *body else { bail!("insert VALUES") };
                for row in values.rows {
                    table.rows.push(row.content.iter().map(value_of).collect::<Result<_>>()?);
                }
            }
            other => bail!("`{other}` is not known here"),
        }
        Ok(())
    }

    /// A job over the tables with the given rules.
    fn folder<'a>(&self, name: &str, rules: impl Iterator<Item = (&'a str, &'a str)>) -> Result<JobFolder> {
        let folder = JobFolder::new(name)?;
        let mut config = format!("job = \"{name}\"\n[rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n");
        for (table, of) in &self.tables {
            match &of.event_time {
                Some(event_time) => {
                    folder.write(&format!("{table}.avsc"), &of.schema(table, event_time).to_string())?;
                    folder.write(&format!("{table}.ndjson"), &of.events())?;
                    let delay = of.delay.as_ref().map_or_else(String::new, |delay| format!("delay = \"{delay}\"\n"));
                    config += &format!(
                        "[streams.{table}]\nschema = \"{table}.avsc\"\nfiles = \"{table}.ndjson\"\nfuture_bound = \"36500 days\"\n{delay}"
                    );
                }
                None => {
                    folder.write(&format!("{table}.csv"), &of.csv())?;
                    config += &format!("[reference.{table}]\npath = \"{table}.csv\"\n{}", of.reference_types());
                }
            }
        }
        folder.write("wattline.toml", &config)?;
        for (id, text) in rules {
            folder.write(&format!("sql/{id}.sql"), text)?;
        }
        Ok(folder)
    }
}

impl Table {
    fn of(create: &CreateTable) -> Result<Self> {
        let column = |column: &sqlparser::ast::ColumnDef| {
            let required = column.options.iter().any(|option| matches!(option.option, ColumnOption::NotNull));
            Ok((column.name.value.clone(), avro_type(&column.data_type)?, required))
        };
        let options = match &create.table_options {
            sqlparser::ast::CreateTableOptions::With(options) => options.as_slice(),
            _ => &[],
        };
        let option = |name: &str| {
            options.iter().find_map(|option| match option {
                SqlOption::KeyValue { key, value: Expr::Value(value) } if key.value == name => {
                    value.value.clone().into_string()
                }
                _ => None,
            })
        };
        Ok(Self {
            columns: create.columns.iter().map(column).collect::<Result<_>>()?,
            event_time: option("event_time"),
            delay: option("delay"),
            rows: Vec::new(),
        })
    }

    fn schema(&self, name: &str, event_time: &str) -> Value {
        let field = |(name, kind, required): &(String, String, bool)| {
            let kind: Value = serde_json::from_str(kind).unwrap_or_else(|_plain| json!(kind));
            if *required { json!({"name": name, "type": kind}) } else { json!({"name": name, "type": ["null", kind]}) }
        };
        let fields: Vec<Value> = self.columns.iter().map(field).collect();
        json!({"type": "record", "name": name, "event_time": event_time, "fields": fields})
    }

    fn events(&self) -> String {
        let event = |row: &Vec<String>| {
            let fields = self.columns.iter().zip(row).map(|((name, ..), value)| format!("\"{name}\":{value}"));
            format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","))
        };
        self.rows.iter().map(event).collect()
    }

    /// CSV says nothing of decimals.
    fn reference_types(&self) -> String {
        let decimal = |(name, kind, _): &(String, String, bool)| {
            let kind: Value = serde_json::from_str(kind).ok()?;
            (kind["logicalType"] == "decimal")
                .then(|| format!("{name} = \"decimal({},{})\"", kind["precision"], kind["scale"]))
        };
        format!("types = {{ {} }}\n", self.columns.iter().filter_map(decimal).collect::<Vec<_>>().join(", "))
    }

    fn csv(&self) -> String {
        let cell = |value: &String| match value.as_str() {
            "null" => String::new(),
            spelled => serde_json::from_str(spelled).unwrap_or_else(|_no_text| spelled.to_owned()),
        };
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let header = line(self.columns.iter().map(|(name, ..)| name.clone()).collect());
        self.rows.iter().fold(header, |text, row| text + &line(row.iter().map(cell).collect()))
    }
}

fn avro_type(data_type: &DataType) -> Result<String> {
    Ok(match data_type {
        DataType::Varchar(_) | DataType::Text | DataType::String(_) => "string".to_owned(),
        DataType::Int(_) | DataType::Integer(_) => "int".to_owned(),
        DataType::BigInt(_) => "long".to_owned(),
        DataType::Double(_) | DataType::DoublePrecision => "double".to_owned(),
        DataType::Real => "float".to_owned(),
        DataType::Boolean | DataType::Bool => "boolean".to_owned(),
        DataType::Timestamp(..) => json!({"type": "long", "logicalType": "timestamp-micros"}).to_string(),
        DataType::Date => json!({"type": "int", "logicalType": "date"}).to_string(),
        DataType::Decimal(sqlparser::ast::ExactNumberInfo::PrecisionAndScale(precision, scale)) => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}).to_string()
        }
        DataType::Array(sqlparser::ast::ArrayElemTypeDef::SquareBracket(item, _)) => {
            json!({"type": "array", "items": avro_type(item)?}).to_string()
        }
        other => bail!("a column of type {other} is not known here"),
    })
}

/// A literal as JSON.
fn value_of(expr: &Expr) -> Result<String> {
    Ok(match expr {
        Expr::Value(value) => match &value.value {
            Literal::Null => "null".to_owned(),
            Literal::Boolean(flag) => flag.to_string(),
            Literal::Number(digits, _) => digits.to_string(),
            Literal::SingleQuotedString(text) => json!(text).to_string(),
            other => bail!("`{other}` is not known here"),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => format!("-{}", value_of(expr)?),
        Expr::Array(array) => {
            format!("[{}]", array.elem.iter().map(value_of).collect::<Result<Vec<_>>>()?.join(","))
        }
        other => bail!("`{other}` is not known here"),
    })
}

/// The records of a suite, each with the line where it begins: what stands between blank lines, without comments.
fn records(text: &str) -> Vec<(usize, String)> {
    let mut records: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (line, content) in (1..).zip(text.lines()).filter(|(_, content)| !content.starts_with('#')) {
        match records.last_mut().filter(|_| is_open) {
            _ if content.trim().is_empty() => is_open = false,
            Some((_, record)) => *record = format!("{record}\n{content}"),
            None => {
                is_open = true;
                records.push((line, content.to_owned()));
            }
        }
    }
    records
}

/// A rule file: a header of its own, and what a comment at the beginning of the query adds to it.
fn rule(id: &str, kind: &str, sql: &str) -> String {
    let (more, query) = match sql.trim_start().strip_prefix("/*---").and_then(|rest| rest.split_once("---*/")) {
        Some((header, query)) => (header, query),
        None => ("", sql),
    };
    format!("/*---\nid = \"{id}\"\nkind = \"{kind}\"\n{}\n---*/\n{query}\n", more.trim())
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    let plain = |row: &String| row.split_whitespace().collect::<Vec<_>>().join(" ");
    rows.iter_mut().for_each(|row| *row = plain(row));
    rows.sort();
    rows
}

/// The values of a JSON object in their order, as they are spelled.
struct Cells(Vec<String>);

impl<'de> serde::Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut cells = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // The date of the partition is the archive's.
                    if name != "event_date" {
                        let text = value.get();
                        let plain = serde_json::from_str::<String>(text).unwrap_or_else(|_no_text| text.to_owned());
                        cells.push(if plain == "null" { "NULL".to_owned() } else { plain });
                    }
                }
                Ok(cells)
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

fn run(path: &std::path::Path) -> Result<usize> {
    let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?;
    let suite = Suite::read(path)?;
    ensure!(!suite.queries.is_empty(), "the suite asks nothing");
    let rules = || suite.rules.iter().map(|(id, text)| (id.as_str(), text.as_str()));
    let folder = suite.folder(name, rules())?;
    folder.run_until_end(RUN_LIMIT)?;
    ensure!(folder.count("SELECT count(*) AS n FROM dead_letters")? == 0, "events were refused");
    ensure!(folder.count("SELECT count(*) AS n FROM rule_errors")? == 0, "rules failed");
    let mut wrong = Vec::new();
    for query in &suite.queries {
        let text = folder.answer(&["query", "--format", "json", &format!("SELECT * FROM {}", query.id)])?;
        let rows =
            text.lines().map(|line| Ok(serde_json::from_str::<Cells>(line)?.0.join(" "))).collect::<Result<_>>()?;
        let rows = sorted(rows);
        if rows != query.rows {
            wrong.push(format!(
                "{}\nexpected\n  {}\ngot\n  {}",
                query.place,
                query.rows.join("\n  "),
                rows.join("\n  ")
            ));
        }
    }
    for (number, (place, text, code)) in suite.refused.iter().enumerate() {
        let id = format!("e{number:02}");
        let mut rules: Vec<(&str, &str)> = rules().filter(|(_, text)| text.contains("kind = \"view\"")).collect();
        rules.push((&id, text));
        let folder = suite.folder(&format!("{name}-{id}"), rules.into_iter())?;
        let checked = folder.wattline(&["check"])?;
        let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        if checked.status.success() || !said.contains(code.trim()) {
            wrong.push(format!("{place}\nexpected {code}, got\n{said}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(suite.queries.len() + suite.refused.len())
}

#[test]
fn suites_give_what_they_say() -> Result<()> {
    let folder = tree::root()?.join("tests/slt");
    let mut suites: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    suites.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    suites.sort();
    let results: Vec<Result<usize>> = std::thread::scope(|scope| {
        let running: Vec<_> = suites.iter().map(|path| scope.spawn(move || run(path))).collect();
        running.into_iter().map(|suite| suite.join().unwrap_or_else(|_| Err(anyhow!("the suite panicked")))).collect()
    });
    let wrong: Vec<String> = suites
        .iter()
        .zip(&results)
        .filter_map(|(path, result)| result.as_ref().err().map(|error| format!("{}: {error:#}", path.display())))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let cases: usize = results.into_iter().flatten().sum();
    println!("{} suites, {cases} cases", suites.len());
    ensure!(cases > 40, "only {cases} cases were run");
    Ok(())
}
