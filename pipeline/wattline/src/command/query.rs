//! `wattline query`: SQL over the tables of the archive.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use wattline_sql::UserFunctions;
use wattline_sql::query::{query, query_context, register_current};

use crate::cli::{QueryArgs, QueryFormat};
use crate::report;

pub(super) async fn run(args: QueryArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let archive = super::archive::open(&args.place).await?;
    let session = query_context(functions)?;
    for (name, provider) in archive.providers().await? {
        session.register_table(name.as_str(), provider).with_context(|| format!("opening table `{name}`"))?;
    }
    register_current(&session).await?;
    let frame = match query(&session, &args.sql).await {
        Ok(frame) => frame,
        Err(mistakes) => {
            let texts = mistakes.iter().map(|mistake| (mistake.file.clone(), args.sql.clone())).collect();
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
            report::print(&format(&batches, args.format)?);
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
