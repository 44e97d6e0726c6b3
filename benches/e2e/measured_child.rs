//! Runs the program and asks the kernel what it used: wall time, processor time, peak memory.
#![allow(unsafe_code, reason = "the standard library has no wait that tells resource usage")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// What one process used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) wall_seconds: f64,
    /// User and system time of all its threads.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_bytes: u64,
}

/// Runs a program to its good end.
pub(crate) fn run(program: &Path, args: &[&str], folder: &Path) -> Result<Usage> {
    run_seen(program, args, folder, |_process| Ok(()))
}

/// As [`run`], and tells the number of its process when it has begun.
pub(crate) fn run_seen(
    program: &Path,
    args: &[&str],
    folder: &Path,
    begun: impl FnOnce(u32) -> Result<()>,
) -> Result<Usage> {
    let log = folder.join("program.log");
    let file = File::create(&log)?;
    let started = Instant::now();
    let child = Command::new(program).args(args).current_dir(folder).stdout(file.try_clone()?).stderr(file).spawn()?;
    let pid = libc::pid_t::try_from(child.id())?;
    begun(child.id())?;
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call, and `pid` is a child that nobody else waits for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let wall_seconds = started.elapsed().as_secs_f64();
    ensure!(waited == pid, "cannot wait for `{}`: {}", program.display(), std::io::Error::last_os_error());
    ensure!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "`{} {}` failed:\n{}",
        program.display(),
        args.join(" "),
        fs::read_to_string(&log).unwrap_or_default()
    );
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Usage {
        wall_seconds,
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
    })
}

/// The one number that a query over the archive in `folder` gives.
pub(crate) fn count(program: &Path, folder: &Path, sql: &str) -> Result<u64> {
    let output = Command::new(program).args(["query", "--format", "json", sql]).current_dir(folder).output()?;
    ensure!(output.status.success(), "`{sql}`: {}", String::from_utf8_lossy(&output.stderr));
    let row: serde_json::Value = serde_json::from_slice(&output.stdout).context("the answer is no JSON")?;
    row.get("n").and_then(serde_json::Value::as_u64).with_context(|| format!("`{sql}` gave {row}"))
}
