//! `wattline archive list|files`, and the way to an archive for every command that reads one.

use std::process::ExitCode;

use anyhow::{Result, bail};
use wattline_connect::archive::Archive;
use wattline_connect::store::ObjectRoot;

use crate::cli::{ArchiveCommand, ArchiveFilesArgs, ArchiveListArgs, ArchivePlace, OutputFormat};
use crate::table_text::{bytes, grouped, table};
use crate::{config, job, report};

pub(super) async fn run(command: ArchiveCommand) -> Result<ExitCode> {
    match command {
        ArchiveCommand::List(args) => list(&args).await,
        ArchiveCommand::Files(args) => files(&args).await,
        ArchiveCommand::Verify(args) => super::verify::run(&args).await,
        ArchiveCommand::Vacuum(args) => super::vacuum::run(&args).await,
    }
}

/// Opens the archive that the command line or the configuration names; it must exist.
pub(super) async fn open(place: &ArchivePlace) -> Result<Archive> {
    let path = &place.config.config;
    let root = match &place.archive {
        Some(url) if !path.is_file() => ObjectRoot::open(url, &std::collections::BTreeMap::new())?,
        given => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                anyhow::anyhow!(
                    "configuration `{}` cannot be read ({error}): name it with --config, or the archive with --archive",
                    path.display()
                )
            })?;
            let mut config = config::parse(&path.display().to_string(), &text).map_err(|mistakes| {
                anyhow::anyhow!(
                    "configuration `{}` has {}: see `wattline check`",
                    path.display(),
                    report::count(&mistakes)
                )
            })?;
            let folder = path.parent().map(std::path::Path::to_owned).unwrap_or_default();
            match given {
                Some(url) => {
                    config.archive.url.clone_from(url);
                    job::archive_root(&config, std::path::Path::new(""))?
                }
                None => job::archive_root(&config, &folder)?,
            }
        }
    };
    if let Some(folder) = root.folder()
        && !folder.is_dir()
    {
        bail!("there is no archive at `{}`: start the job first with `wattline run`", folder.display());
    }
    Ok(Archive::open(root))
}

async fn list(args: &ArchiveListArgs) -> Result<ExitCode> {
    let tables = open(&args.place).await?.list().await?;
    if args.format == OutputFormat::Json {
        let each = |t: &wattline_connect::archive::TableInfo| {
            serde_json::json!({"name": t.name, "version": t.version, "files": t.files, "rows": t.rows, "bytes": t.bytes,
                "first_event_date": t.first_event_date, "last_event_date": t.last_event_date})
        };
        report::print(&format!("{}\n", tables.iter().map(each).collect::<serde_json::Value>()));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = tables
        .iter()
        .map(|t| {
            vec![
                t.name.clone(),
                grouped(t.rows),
                grouped(t.files),
                bytes(t.bytes),
                t.first_event_date.clone().unwrap_or_default(),
                t.last_event_date.clone().unwrap_or_default(),
            ]
        })
        .collect();
    report::print(&table(&["table", "rows", "files", "size", "first date", "last date"], &rows));
    Ok(ExitCode::SUCCESS)
}

async fn files(args: &ArchiveFilesArgs) -> Result<ExitCode> {
    let archive = open(&args.place).await?;
    let names = archive.table_names().await?;
    if !names.contains(&args.table) {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let help =
            config::nearest(&args.table, &known).unwrap_or_else(|| format!("the archive has: {}", known.join(", ")));
        report::print_error(&format!("error: the archive has no table `{}`; {help}\n", args.table));
        return Ok(report::answer_is_no());
    }
    let files = archive.files(&args.table).await?;
    match args.format {
        OutputFormat::Json => report::print(&format!("{}\n", serde_json::json!(files))),
        OutputFormat::Text => files.iter().for_each(|file| report::print(&format!("{file}\n"))),
    }
    Ok(ExitCode::SUCCESS)
}
