//! `wattline reports`: questions that are asked of the archive again and again, as SQL that comes with the program.
//!
//! A report is a file in `sql/reports`: a header in a comment, as rules have it, then one SELECT over the tables of rules and streams and the
//! reference tables of the job. What the dialect allows of it runs in DuckDB over the Parquet files too.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use wattline_connect::archive::Archive;
use wattline_sql::{ReferenceTable, RuleFile, UserFunctions};

use crate::cli::{ArchivePlace, OutputFormat, ReportsCommand, ReportsListArgs, ReportsRunArgs, ReportsShowArgs};
use crate::table_text::table;
use crate::{assets, config, project, report};

/// What the header of a report says.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    id: String,
    title: String,
    title_zh: String,
    /// What is asked, for whom, and how to read the answer.
    description: String,
    owner: String,
    /// Whether it runs in DuckDB as it is.
    duckdb: bool,
}

struct Report {
    header: Header,
    sql: String,
}

pub(super) async fn run(command: ReportsCommand, functions: &UserFunctions) -> Result<ExitCode> {
    match command {
        ReportsCommand::List(args) => list(&args),
        ReportsCommand::Show(args) => show(&args).await,
        ReportsCommand::Run(args) => answer(&args, functions).await,
    }
}

fn reports() -> Result<BTreeMap<String, Report>> {
    let mut reports = BTreeMap::new();
    for (path, text) in assets::reports() {
        let header = text.strip_prefix("/*---").and_then(|text| text.split_once("---*/"));
        let Some((header, sql)) = header else { bail!("report `{path}` has no header") };
        let header: Header = toml::from_str(header).with_context(|| format!("the header of report `{path}`"))?;
        reports.insert(header.id.clone(), Report { header, sql: sql.trim().to_owned() });
    }
    Ok(reports)
}

fn find(id: &str) -> Result<Report> {
    let mut reports = reports()?;
    if let Some(report) = reports.remove(id) {
        return Ok(report);
    }
    let known: Vec<&str> = reports.keys().map(String::as_str).collect();
    let help = config::nearest(id, &known).unwrap_or_else(|| format!("there are {}", known.join(", ")));
    bail!("there is no report `{id}`; {help}")
}

fn tables_of(report: &Report) -> Vec<String> {
    let file = RuleFile { path: report.header.id.clone(), text: report.sql.clone() };
    file.tables_read().into_iter().collect()
}

fn list(args: &ReportsListArgs) -> Result<ExitCode> {
    let reports = reports()?;
    if args.format == OutputFormat::Json {
        let each = |report: &Report| {
            let Header { id, title, title_zh, description, owner, duckdb } = &report.header;
            serde_json::json!({"id": id, "title": title, "title_zh": title_zh, "description": description, "owner": owner,
                "duckdb": duckdb, "reads": tables_of(report)})
        };
        let all: serde_json::Value = reports.values().map(each).collect();
        report::print(&format!("{all}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let row =
        |report: &Report| vec![report.header.id.clone(), report.header.title.clone(), tables_of(report).join(", ")];
    let rows: Vec<Vec<String>> = reports.values().map(row).collect();
    report::print(&table(&["report", "asks", "reads"], &rows));
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &ReportsShowArgs) -> Result<ExitCode> {
    let report = find(&args.report)?;
    let Header { title, title_zh, description, duckdb, .. } = &report.header;
    if !args.duckdb {
        let comment: String = description.trim().lines().map(|line| format!("-- {line}\n")).collect();
        report::print(&format!("-- {title}\n-- {title_zh}\n{comment}{}\n", report.sql));
        return Ok(ExitCode::SUCCESS);
    }
    if !duckdb {
        bail!("report `{}` uses functions that DuckDB does not have: `wattline reports run {0}`", args.report);
    }
    let archive = super::archive::open(&args.place).await?;
    let mut out = "SET TimeZone = 'UTC';\n".to_owned();
    for name in tables_of(&report) {
        out.push_str(&view_of(&archive, &args.place, &name).await?);
    }
    report::print(&format!("{out}{};\n", report.sql.trim_end_matches(';')));
    Ok(ExitCode::SUCCESS)
}

/// A table of the archive, or a reference table, as DuckDB sees it.
async fn view_of(archive: &Archive, place: &ArchivePlace, name: &str) -> Result<String> {
    if let Ok(files) = archive.files(name).await {
        let files: Vec<String> = files.iter().map(|path| quoted(path)).collect();
        if !files.is_empty() {
            let files = files.join(", ");
            return Ok(format!(
                "CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}], hive_partitioning = true, union_by_name = true);\n"
            ));
        }
        // A table that nothing was written to has columns all the same.
        let schema = archive.schema(name).await?;
        let columns =
            schema.fields().iter().map(|field| format!("NULL::{} AS {}", duckdb_type(field.data_type()), field.name()));
        let columns: Vec<String> = columns.collect();
        return Ok(format!("CREATE VIEW {name} AS SELECT {} WHERE false;\n", columns.join(", ")));
    }
    let table = project::reference_tables(&place.config.config).into_iter().find(|table| table.name == name);
    let Some(table) = table else { bail!("neither the archive nor the job has a table `{name}`") };
    rows_as_view(&table)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A reference table is small enough to be part of the script.
fn rows_as_view(table: &ReferenceTable) -> Result<String> {
    let fields = table.schema.fields();
    let typed = fields
        .iter()
        .enumerate()
        .map(|(at, field)| format!("CAST(c{at} AS {}) AS {}", duckdb_type(field.data_type()), field.name()));
    let typed: Vec<String> = typed.collect();
    let names: Vec<String> = (0..fields.len()).map(|at| format!("c{at}")).collect();
    let options = FormatOptions::default();
    let mut rows = vec![format!("({})", vec!["NULL"; fields.len()].join(", "))];
    for batch in &table.batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(batch.columns()).map(|(shown, column)| match column.is_null(row) {
                true => "NULL".to_owned(),
                false => quoted(&shown.value(row).to_string()),
            });
            rows.push(format!("({})", cells.collect::<Vec<_>>().join(", ")));
        }
    }
    // The first row is there so that an empty table has columns too.
    Ok(format!(
        "CREATE VIEW {} AS SELECT {} FROM (VALUES {}) AS rows({}) OFFSET 1;\n",
        table.name,
        typed.join(", "),
        rows.join(", "),
        names.join(", ")
    ))
}

fn duckdb_type(of: &DataType) -> String {
    match of {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(..) => "TIMESTAMPTZ".to_owned(),
        DataType::List(item) => format!("{}[]", duckdb_type(item.data_type())),
        DataType::Binary => "BLOB".to_owned(),
        _ => "VARCHAR".to_owned(),
    }
}

async fn answer(args: &ReportsRunArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let report = find(&args.report)?;
    super::query::answer(&report.sql, &args.place, args.format, functions).await
}
