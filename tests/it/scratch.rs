//! Folders for one test, under Cargo's `target/tmp`, gone when the test ends.
//!
//! Not the system's temporary folder: a broker's log or an archive may be larger than a small `/tmp`, and `cargo clean` shall
//! take everything. The name holds the process id, so that folders left by a killed run are swept by the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

static SWEEP: Once = Once::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An empty folder, removed on drop.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates an empty folder whose name starts with `purpose`.
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        SWEEP.call_once(|| sweep(root));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{purpose}.{number}.{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create `{}`", path.display()))?;
        Ok(Self { path })
    }

    /// Creates a folder with all that is in another.
    pub(crate) fn copy_of(purpose: &str, folder: &Path) -> Result<Self> {
        let scratch = Self::new(purpose)?;
        copy_all(folder, scratch.path())?;
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` inside the folder.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove `{}`: {error}", self.path.display());
        }
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &target)?,
            false => fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}

/// Removes folders of processes that are no more. What cannot be read or removed is left for `cargo clean`.
fn sweep(root: &Path) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_string_lossy().rsplit_once('.').and_then(|(_, pid)| pid.parse::<u32>().ok());
        let orphaned = owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        if orphaned && let Err(error) = fs::remove_dir_all(entry.path()) {
            eprintln!("cannot remove `{}`: {error}", entry.path().display());
        }
    }
}
