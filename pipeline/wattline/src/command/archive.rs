//! `wattline archive list|files`, and the way to an archive for every command that reads one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use wattline_connect::archive::Archive;
use wattline_connect::store::ObjectRoot;

use crate::cli::{ArchiveCommand, ArchiveFilesArgs, ArchiveListArgs, ArchivePlace, OutputFormat};
use crate::config::Config;
use crate::table_text::{bytes, grouped, table};
use crate::{config, job, report};

pub(super) async fn run(command: ArchiveCommand) -> Result<ExitCode> {
    match command {
        ArchiveCommand::List(args) => list(&args).await,
        ArchiveCommand::Files(args) => files(&args).await,
        ArchiveCommand::Verify(args) => super::verify::run(&args).await,
        ArchiveCommand::Vacuum(args) => super::vacuum::run(&args).await,
        ArchiveCommand::Backup(args) => Box::pin(super::backup::run(&args)).await,
        ArchiveCommand::Restore(args) => Box::pin(super::restore::run(&args)).await,
    }
}

/// A configuration, and the folder in which it lies.
pub(super) type Configuration = (Config, PathBuf);

/// The configuration that the command line names; `None` if there is no such file.
pub(super) fn configuration(place: &ArchivePlace) -> Result<Option<Configuration>> {
    let path = &place.config.config;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => bail!("configuration `{}` cannot be read ({error}): name it with --config", path.display()),
    };
    let config = config::parse(&path.display().to_string(), &text).map_err(|mistakes| {
        anyhow::anyhow!("configuration `{}` has {}: see `wattline check`", path.display(), report::count(&mistakes))
    })?;
    Ok(Some((config, path.parent().map(Path::to_owned).unwrap_or_default())))
}

/// The archive that the command line or the configuration names, whether it exists or not.
pub(super) fn locate(place: &ArchivePlace, configuration: Option<&Configuration>) -> Result<ObjectRoot> {
    match (&place.archive, configuration) {
        (None, None) => bail!(
            "configuration `{}` does not exist: name it with --config, or the archive with --archive",
            place.config.config.display()
        ),
        (None, Some((config, folder))) => job::archive_root(config, folder),
        (Some(url), None) => Ok(ObjectRoot::open(url, &BTreeMap::new())?),
        (Some(url), Some((config, _))) => {
            let mut config = config.clone();
            config.archive.url.clone_from(url);
            job::archive_root(&config, Path::new(""))
        }
    }
}

/// Opens the archive that the command line or the configuration names; it must exist.
pub(super) async fn open(place: &ArchivePlace) -> Result<Archive> {
    existing(locate(place, configuration(place)?.as_ref())?)
}

/// An archive whose folder exists, if it is one.
pub(super) fn existing(root: ObjectRoot) -> Result<Archive> {
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
