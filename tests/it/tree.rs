//! Where things are: the checkout, Cargo's target folder, the Python of the tests, the program under test.
//!
//! Found from what Cargo tells at compile time, so the tests run from any working directory and with any target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The checkout: the nearest folder above the manifest that holds `Cargo.lock`.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    root.map(Path::to_owned).with_context(|| format!("no `Cargo.lock` above `{}`", manifest.display()))
}

/// Cargo's target folder: the parent of its folder for the data of tests.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR"));
    data.parent().map(Path::to_owned).context("Cargo's folder for the data of tests has no parent")
}

/// The interpreter that has the readers and the S3 server.
pub(crate) fn python() -> Result<PathBuf> {
    let python = target_folder()?.join("venv/bin/python");
    ensure!(python.exists(), "`{}` does not exist; run `scripts/test setup`", python.display());
    Ok(python)
}

/// The `wattline` program of this build.
pub(crate) fn wattline() -> Result<PathBuf> {
    let program = match option_env!("CARGO_BIN_EXE_wattline") {
        Some(program) => PathBuf::from(program),
        // target/<profile>/deps/it-<hash> → target/<profile>/wattline
        None => std::env::current_exe()?.ancestors().nth(2).context("no folder above the tests")?.join("wattline"),
    };
    ensure!(program.exists(), "`{}` does not exist; run `cargo build --workspace`", program.display());
    Ok(program)
}

/// An example program of this build.
pub(crate) fn example(name: &str) -> Result<PathBuf> {
    let program = wattline()?;
    let program = program.parent().context("the program is in no folder")?.join("examples").join(name);
    ensure!(program.exists(), "`{}` does not exist; run `cargo build --workspace --examples`", program.display());
    Ok(program)
}
