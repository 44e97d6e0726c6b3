//! `wattline query`: SQL over the tables of the archive, and the reference tables of the job beside them.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::MemTable;
use wattline_sql::UserFunctions;
use wattline_sql::query::{query, query_context, register_current};

use crate::cli::{ArchivePlace, QueryArgs, QueryFormat};
use crate::{project, report};

pub(super) async fn run(args: QueryArgs, functions: &UserFunctions) -> Result<ExitCode> {
    answer(&args.sql, &args.place, args.format, functions).await
}

/// Runs a query over the tables of an archive and the reference tables of its job, and prints what it gives.
pub(super) async fn answer(
    sql: &str,
    place: &ArchivePlace,
    printed: QueryFormat,
    functions: &UserFunctions,
) -> Result<ExitCode> {
    let archive = super::archive::open(place).await?;
    let session = query_context(functions)?;
    for (name, provider) in archive.providers().await? {
        session.register_table(name.as_str(), provider).with_context(|| format!("opening table `{name}`"))?;
    }
    register_current(&session).await?;
    for table in project::reference_tables(&place.config.config) {
        if !session.table_exist(table.name.as_str())? {
            let rows = MemTable::try_new(table.schema, vec![table.batches])?;
            session.register_table(table.name.as_str(), Arc::new(rows))?;
        }
    }
    let frame = match query(&session, sql).await {
        Ok(frame) => frame,
        Err(mistakes) => {
            let texts = mistakes.iter().map(|mistake| (mistake.file.clone(), sql.to_owned())).collect();
            report::diagnostics(&mistakes, &texts);
            return Ok(report::answer_is_no());
        }
    };
    let schema = Arc::new(frame.schema().as_arrow().clone());
    match frame.collect().await {
        Ok(mut batches) => {
            if batches.is_empty() {
                batches.push(RecordBatch::new_empty(schema));
            }
            report::print(&format(&batches, printed)?);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            report::print_error(&format!("error: {}\n", error.strip_backtrace()));
            Ok(report::answer_is_no())
        }
    }
}

pub(super) fn format(batches: &[RecordBatch], format: QueryFormat) -> Result<String> {
    Ok(match format {
        QueryFormat::Text => format!("{}\n", pretty_format_batches(batches)?),
        QueryFormat::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
            String::from_utf8(writer.into_inner())?
        }
        QueryFormat::Csv => {
            let mut writer = arrow::csv::Writer::new(Vec::new());
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            String::from_utf8(writer.into_inner())?
        }
    })
}
