//! What a process holds of the machine, and what its job holds in the archive, at a moment.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// The kernel tells times of processes in hundredths of a second, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holdings {
    pub(crate) rss_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// User and system time since its start.
    pub(crate) cpu_seconds: f64,
}

/// Objects of one kind, and their size.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Objects {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

pub(crate) fn of_process(pid: u32) -> Result<Holdings> {
    let process = Path::new("/proc").join(pid.to_string());
    let read = |name: &str| {
        let path = process.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let status = read("status")?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.with_context(|| format!("the kernel does not tell `{name}` of process {pid}"))
    };
    // The name before it may hold blanks: fields are counted from its closing bracket.
    let stat = read("stat")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    Ok(Holdings {
        rss_bytes: number("VmRSS:")? * 1024,
        descriptors: fs::read_dir(process.join("fd"))?.count() as u64,
        threads: number("Threads:")?,
        cpu_seconds: times.iter().sum::<f64>() / TICKS_PER_SECOND,
    })
}

/// The objects below a folder, by the first folder below it. What goes while it is counted does not count.
pub(crate) fn objects_below(folder: &Path) -> Result<BTreeMap<String, Objects>> {
    let mut kinds = BTreeMap::new();
    for entry in entries(folder)? {
        let mut objects = Objects::default();
        add(&entry, &mut objects)?;
        kinds.insert(entry.file_name().to_string_lossy().into_owned(), objects);
    }
    Ok(kinds)
}

fn add(entry: &fs::DirEntry, objects: &mut Objects) -> Result<()> {
    match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => entries(&entry.path())?.iter().try_for_each(|entry| add(entry, objects)),
        Ok(metadata) => {
            objects.count += 1;
            objects.bytes += metadata.len();
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot look at `{}`", entry.path().display())),
    }
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.collect::<Result<_, _>>()?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list `{}`", folder.display())),
    }
}
