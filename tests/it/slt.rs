//! Suites of SQL, run by the whole program over files: those in the format of sqllogictest, and the reference page.
//!
//! A suite (`tests/slt/*.slt`, `docs/sql.md`) says what a job reads, asks queries, and says what they give:
//!
//! - `CREATE TABLE s (…) WITH (event_time = 'at', delay = '1 minute')` is a stream; without `event_time` it is a reference table.
//! - `INSERT INTO s VALUES …` are its events, in the order in which they arrive.
//! - `CREATE VIEW v AS …` is a view, a `query` is a table rule, with more of its header in a comment `/*--- late = "update" ---*/`.
//! - `statement error WL-…` is a rule that `check` refuses with that code.
//!
//! How the page writes the same is said in `slt/page.rs`.
//!
//! The queries of a suite are rules of one job, or of several if they are many, which runs to the end of its files. Rows are
//! compared as sets of text, however a query says they are sorted: rows of a stream have no order. Suites of others run as they
//! are, put beside these, as long as their queries select an event time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
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

mod page;

const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Queries of one job: whoever asks for the rows of one opens the tables of all.
const JOB_QUERIES_MAX: usize = 12;

/// What a suite says, one after the other.
#[derive(Debug)]
enum Record {
    /// Tables, their rows, views.
    Statements(String),
    Query {
        sql: String,
        /// The names of the columns, if the suite says them.
        columns: Option<Vec<String>>,
        rows: Vec<String>,
    },
    /// A rule, and the texts that `check` says of it.
    Refused { sql: String, says: Vec<String> },
}

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
    text: String,
    columns: Option<Vec<String>>,
    rows: Vec<String>,
}

/// A rule that is refused.
#[derive(Debug)]
struct Refused {
    place: String,
    id: String,
    text: String,
    says: Vec<String>,
}

#[derive(Debug, Default)]
struct Suite {
    tables: BTreeMap<String, Table>,
    /// Rule files by id.
    views: BTreeMap<String, String>,
    queries: Vec<Query>,
    refused: Vec<Refused>,
}

impl Suite {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let name = path.strip_prefix(tree::root()?)?.display();
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        let mut suite = Self::default();
        for (line, record) in if is_page { page::records(&text) } else { records(&text) } {
            let place = format!("{name}:{line}");
            record.and_then(|record| suite.take(record, place.clone())).with_context(|| place)?;
        }
        Ok(suite)
    }

    fn take(&mut self, record: Record, place: String) -> Result<()> {
        match record {
            Record::Statements(sql) => {
                let statements = Parser::parse_sql(&GenericDialect {}, &sql)?;
                ensure!(!statements.is_empty(), "no statement");
                statements.into_iter().try_for_each(|statement| self.execute(statement))?;
            }
            Record::Query { sql, columns, rows } => {
                let (id, text) = rule(&format!("q{:02}", self.queries.len()), "table", &sql)?;
                self.queries.push(Query { place, id, text, columns, rows: sorted(rows) });
            }
            Record::Refused { sql, says } => {
                let (id, text) = rule(&format!("e{:02}", self.refused.len()), "table", &sql)?;
                self.refused.push(Refused { place, id, text, says });
            }
        }
        Ok(())
    }

    fn execute(&mut self, statement: Statement) -> Result<()> {
        match statement {
            Statement::CreateTable(create) => {
                self.tables.insert(create.name.to_string(), Table::of(&create)?);
            }
            Statement::CreateView(view) => {
                let (id, text) = rule(&view.name.to_string(), "view", &view.query.to_string())?;
                self.views.insert(id, text);
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

    /// A job over the tables with the views and the given rules.
    fn folder<'a>(&'a self, name: &str, rules: impl Iterator<Item = (&'a String, &'a String)>) -> Result<JobFolder> {
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
        for (id, text) in self.views.iter().chain(rules) {
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

/// The records of a suite in the format of sqllogictest, each with the line where it begins.
fn records(text: &str) -> Vec<(usize, Result<Record>)> {
    let until_halt = stretches(text).into_iter().take_while(|(_, record)| !record.starts_with("halt"));
    until_halt.map(|(line, record)| (line, record_of(&record))).collect()
}

fn record_of(text: &str) -> Result<Record> {
    let (head, body) = text.split_once('\n').context("a record without a body")?;
    let words: Vec<&str> = head.split_whitespace().collect();
    Ok(match words[..] {
        ["statement", "ok"] => Record::Statements(body.to_owned()),
        ["statement", "error", code] => Record::Refused { sql: body.to_owned(), says: vec![code.to_owned()] },
        ["query", ..] => {
            let (sql, rows) = body.split_once("\n----").unwrap_or((body, ""));
            Record::Query { sql: sql.to_owned(), columns: None, rows: lines(rows) }
        }
        _ => bail!("`{head}` is not known here"),
    })
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What stands between blank lines, without comments, each with the line where it begins.
fn stretches(text: &str) -> Vec<(usize, String)> {
    let mut stretches: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (line, content) in (1..).zip(text.lines()).filter(|(_, content)| !content.starts_with('#')) {
        match stretches.last_mut().filter(|_| is_open) {
            _ if content.trim().is_empty() => is_open = false,
            Some((_, stretch)) => *stretch = format!("{stretch}\n{content}"),
            None => {
                is_open = true;
                stretches.push((line, content.to_owned()));
            }
        }
    }
    stretches
}

/// A rule's id and file: a header of its own, and what a comment at the beginning of the query adds to it or says instead.
fn rule(id: &str, kind: &str, sql: &str) -> Result<(String, String)> {
    let (said, query) = match sql.trim_start().strip_prefix("/*---").and_then(|rest| rest.split_once("---*/")) {
        Some((header, query)) => (header.trim(), query),
        None => ("", sql),
    };
    let header: toml::Table = said.parse()?;
    let own = [("id", id), ("kind", kind)].into_iter().filter(|(key, _)| !header.contains_key(*key));
    let own: String = own.map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
    let id = header.get("id").and_then(toml::Value::as_str).unwrap_or(id);
    Ok((id.to_owned(), format!("/*---\n{own}{said}\n---*/\n{query}\n")))
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    let plain = |row: &String| row.split_whitespace().collect::<Vec<_>>().join(" ");
    rows.iter_mut().for_each(|row| *row = plain(row));
    rows.sort();
    rows
}

/// The names and values of a JSON object in their order, the values as they are spelled.
struct Cells(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, String)>;

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
                        cells.push((name, if plain == "null" { "NULL".to_owned() } else { plain }));
                    }
                }
                Ok(cells)
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

impl Query {
    /// What the query gave, if it is not what the suite says.
    fn wrong(&self, folder: &JobFolder) -> Result<Option<String>> {
        let text = folder.answer(&["query", "--format", "json", &format!("SELECT * FROM {}", self.id)])?;
        let given: Vec<Cells> = text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
        let names = given.first().map(|row| row.0.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        let values = |row: Cells| row.0.into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(" ");
        let rows = sorted(given.into_iter().map(values).collect());
        let Query { place, columns, rows: expected, .. } = self;
        if let (Some(columns), Some(names)) = (columns, &names)
            && columns != names
        {
            return Ok(Some(format!("{place}\nexpected the columns {columns:?}\ngot {names:?}")));
        }
        let told = |rows: &[String]| rows.join("\n  ");
        Ok((rows != *expected).then(|| format!("{place}\nexpected\n  {}\ngot\n  {}", told(expected), told(&rows))))
    }
}

impl Refused {
    /// What `check` said of the rule, if it is not what the suite says.
    fn wrong(&self, suite: &Suite, name: &str) -> Result<Option<String>> {
        let Refused { place, id, text, says } = self;
        let folder = suite.folder(&format!("{name}-{id}"), [(id, text)].into_iter())?;
        let checked = folder.wattline(&["check"])?;
        let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        let as_said = !checked.status.success() && says.iter().all(|text| said.contains(text));
        Ok((!as_said).then(|| format!("{place}\nexpected\n  {}\ngot\n{said}", says.join("\n  "))))
    }
}

/// Runs queries of a suite as one job; gives what is wrong with them.
fn run_job(suite: &Suite, name: &str, queries: &[Query]) -> Result<Vec<String>> {
    let folder = suite.folder(name, queries.iter().map(|query| (&query.id, &query.text)))?;
    folder.run_until_end(RUN_LIMIT)?;
    ensure!(folder.count("SELECT count(*) AS n FROM dead_letters")? == 0, "events were refused");
    ensure!(folder.count("SELECT count(*) AS n FROM rule_errors")? == 0, "rules failed");
    queries.iter().filter_map(|query| query.wrong(&folder).transpose()).collect()
}

/// Runs a suite; gives the number of its cases.
fn run(path: &Path) -> Result<usize> {
    let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?;
    let suite = Suite::read(path)?;
    ensure!(!suite.queries.is_empty(), "the suite asks nothing");
    let jobs = at_once(suite.queries.chunks(JOB_QUERIES_MAX), |queries| run_job(&suite, name, queries));
    let mut wrong = jobs.into_iter().collect::<Result<Vec<_>>>()?.concat();
    for refused in &suite.refused {
        wrong.extend(refused.wrong(&suite, name)?);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(suite.queries.len() + suite.refused.len())
}

/// Does the work for each item, for all of them at the same time.
fn at_once<I: Send, T: Send>(items: impl Iterator<Item = I>, work: impl Fn(I) -> Result<T> + Sync) -> Vec<Result<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        running.into_iter().map(|done| done.join().unwrap_or_else(|_| Err(anyhow!("the work panicked")))).collect()
    })
}

#[test]
fn suites_give_what_they_say() -> Result<()> {
    let folder = tree::root()?.join("tests/slt");
    let mut suites: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    suites.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    suites.sort();
    let results = at_once(suites.iter(), |path| run(path));
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

#[test]
fn the_reference_page_gives_what_it_says() -> Result<()> {
    let cases = run(&tree::root()?.join("docs/sql.md"))?;
    ensure!(cases > 90, "only {cases} examples were run");
    Ok(())
}
