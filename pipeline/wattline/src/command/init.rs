//! `wattline init`: a starter project that runs as it is.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cli::InitArgs;
use crate::{assets, report};

pub(super) fn run(args: &InitArgs) -> Result<ExitCode> {
    let folder = &args.folder;
    let taken =
        folder.exists() && std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()).unwrap_or(true);
    if taken {
        bail!("`{}` exists and is not an empty folder: name another one", folder.display());
    }
    let files = assets::starter();
    for (below, body) in &files {
        write(&folder.join(below), body)?;
    }
    let shown = folder.display();
    report::print(&format!(
        "made a starter project in {shown}: {} files\n\n  cd {shown}\n  wattline check      # what is wrong, and where\n  wattline test       # the tests beside the rules\n  wattline run        # reads data/, writes archive/\n  wattline query \"SELECT * FROM alerts\"\n\nThen read wattline.toml: it is the manual of itself.\n",
        files.len()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Writes a file and the folders above it.
pub(super) fn write(path: &Path, body: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| {
            format!("folder `{}` cannot be made: choose a place where you may write", parent.display())
        })?;
    }
    std::fs::write(path, body)
        .with_context(|| format!("file `{}` cannot be written: choose a place where you may write", path.display()))
}
