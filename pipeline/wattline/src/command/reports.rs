//! `wattline reports`: questions that are asked of the archive again and again, as SQL that comes with the program.
//!
//! A report is a file in `sql/reports`: a header in a comment, as rules have it, then one SELECT over the tables of rules and streams and the
//! reference tables of the job. What the dialect allows of it runs in DuckDB over the Parquet files too.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wattline_connect::archive::Archive;
use wattline_sql::{RuleFile, UserFunctions};

use crate::cli::{OutputFormat, ReportsCommand, ReportsListArgs, ReportsRunArgs, ReportsShowArgs};
use crate::table_text::table;
use crate::{assets, config, report};

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
    let mut out = String::new();
    for name in tables_of(&report) {
        out.push_str(&view_of(&archive, &args.place, &name).await?);
    }
    report::print(&format!("{out}{};\n", report.sql.trim_end_matches(';')));
    Ok(ExitCode::SUCCESS)
}

/// A table of the archive, or a reference table in a CSV file, as DuckDB sees it.
async fn view_of(archive: &Archive, place: &crate::cli::ArchivePlace, name: &str) -> Result<String> {
    let quoted = |path: &String| format!("'{}'", path.replace('\'', "''"));
    if let Ok(files) = archive.files(name).await {
        let files: Vec<String> = files.iter().map(quoted).collect();
        return Ok(match files.is_empty() {
            true => String::new(),
            false => format!(
                "CREATE VIEW {name} AS SELECT * FROM read_parquet([{}], union_by_name = true);\n",
                files.join(", ")
            ),
        });
    }
    let Some(path) = crate::project::reference_file(&place.config.config, name) else {
        bail!("neither the archive nor the job has a table `{name}` in files");
    };
    Ok(format!("CREATE VIEW {name} AS SELECT * FROM read_csv({});\n", quoted(&path.display().to_string())))
}

async fn answer(args: &ReportsRunArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let report = find(&args.report)?;
    super::query::answer(&report.sql, &args.place, args.format, functions).await
}
