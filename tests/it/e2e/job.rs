//! Runs the `wattline` program in a folder of its own, as a person or a service manager would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::child_process::{ChildProcess, wait_until};
use crate::scratch::Scratch;
use crate::{setting, tree};

/// The schema of a small stream: who visited which shop when, and what was spent.
pub(crate) const VISITS: &str = r#"{"type":"record","name":"visits","event_time":"at","key":["shop"],"fields":[
    {"name":"shop","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}}]}"#;

/// A folder with a configuration, reference tables and an archive.
#[derive(Debug)]
pub(crate) struct JobFolder {
    scratch: Scratch,
    program: PathBuf,
}

impl JobFolder {
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        Self::of_program(tree::wattline()?, purpose)
    }

    /// A folder in which another program is run.
    pub(crate) fn of_program(program: PathBuf, purpose: &str) -> Result<Self> {
        Ok(Self { scratch: Scratch::new(purpose)?, program })
    }

    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.scratch.join("archive")
    }

    /// Writes a file, and its folder if need be.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.scratch.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.path());
        Ok(command)
    }

    /// Runs the program to its end, whatever that is.
    pub(crate) fn wattline(&self, args: &[&str]) -> Result<Output> {
        self.command(args)?.output().with_context(|| format!("cannot run `wattline {}`", args.join(" ")))
    }

    /// Runs the program to its good end and gives what it printed.
    pub(crate) fn answer(&self, args: &[&str]) -> Result<String> {
        let output = self.wattline(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`wattline {}` ended with {}:\n{said}", args.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs the job until its input ends; gives what it said and how long it took.
    pub(crate) fn run_until_end(&self, limit: Duration) -> Result<(String, Duration)> {
        let started = Instant::now();
        let mut running = self.start(&["run", "--until-end"])?;
        let status = running.wait(limit)?;
        let log = self.log();
        ensure!(status.success(), "`wattline run --until-end` ended with {status}:\n{}", running.log_tail());
        Ok((log, started.elapsed()))
    }

    /// Starts the program; what it says is appended to the folder's log.
    pub(crate) fn start(&self, args: &[&str]) -> Result<ChildProcess> {
        ChildProcess::start(&self.program, args, self.path(), &self.scratch.join("wattline.log"))
    }

    /// Starts the program that `WATTLINE_OTHER_PROGRAM` names, one of another version perhaps; this one if none is named.
    pub(crate) fn start_other(&self, args: &[&str]) -> Result<ChildProcess> {
        let other = setting("WATTLINE_OTHER_PROGRAM").map_or_else(|| self.program.clone(), PathBuf::from);
        ensure!(other.is_absolute(), "WATTLINE_OTHER_PROGRAM: `{}` is no absolute path", other.display());
        ensure!(other.exists(), "WATTLINE_OTHER_PROGRAM: `{}` does not exist", other.display());
        ChildProcess::start(&other, args, self.path(), &self.scratch.join("wattline.log"))
    }

    /// Starts the program on a disk that is full as soon as a file has more than so many blocks of 512 bytes.
    pub(crate) fn start_on_full_disk(&self, blocks: u32, args: &[&str]) -> Result<ChildProcess> {
        // A write beyond the limit then fails, and does not end the program.
        let limited = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$@\"");
        let program = self.program.display().to_string();
        let all: Vec<&str> = ["-c", &limited, "sh", &program].into_iter().chain(args.iter().copied()).collect();
        ChildProcess::start(Path::new("sh"), &all, self.path(), &self.scratch.join("wattline.log"))
    }

    /// Makes room on the disk of a program that was started so.
    pub(crate) fn make_room(running: &ChildProcess) -> Result<()> {
        let pid = running.pid().to_string();
        let made = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
        ensure!(made.context("cannot run `prlimit`, which is of util-linux")?.success(), "the limit stays");
        Ok(())
    }

    /// Everything that programs started with [`JobFolder::start`] said.
    pub(crate) fn log(&self) -> String {
        fs::read(self.scratch.join("wattline.log"))
            .map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// The rows of a query, as JSON objects.
    pub(crate) fn query(&self, sql: &str) -> Result<Vec<Value>> {
        let text = self.answer(&["query", "--format", "json", sql])?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("`{line}` is no JSON"))).collect()
    }

    /// The rows of a query, each as the text of its JSON object.
    pub(crate) fn lines(&self, sql: &str) -> Result<Vec<String>> {
        Ok(self.query(sql)?.iter().map(Value::to_string).collect())
    }

    /// The one number that a query gives.
    pub(crate) fn count(&self, sql: &str) -> Result<u64> {
        let rows = self.query(sql)?;
        let number = rows.first().and_then(|row| row.as_object()?.values().next()?.as_u64());
        number.with_context(|| format!("`{sql}` gave {rows:?}"))
    }

    /// Number of manifests that the job has committed and not yet retired.
    pub(crate) fn manifests(&self) -> usize {
        let pattern = self.archive().join("_wattline/**/chains/**/*");
        glob::glob(&pattern.display().to_string())
            .map_or(0, |paths| paths.flatten().filter(|path| path.is_file()).count())
    }

    /// Number of commits in the log of a table.
    pub(crate) fn table_commits(&self, table: &str) -> usize {
        let pattern = self.archive().join(table).join("_delta_log/*.json");
        glob::glob(&pattern.display().to_string()).map_or(0, |paths| paths.flatten().count())
    }

    /// Starts the program without a shell in between, so that every signal reaches it.
    pub(crate) fn start_bare(&self, args: &[&str]) -> Result<Bare> {
        let log = self.scratch.join("bare.log");
        let file = File::create(&log)?;
        let child = self.command(args)?.stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Bare { child, log })
    }
}

/// A running program that takes signals; killed on drop.
#[derive(Debug)]
pub(crate) struct Bare {
    child: Child,
    log: PathBuf,
}

impl Bare {
    /// Waits until the program handles the signal with this number instead of dying of it.
    pub(crate) fn wait_for_handler(&self, signal: u32) -> Result<()> {
        let status = format!("/proc/{}/status", self.child.id());
        wait_until(Duration::from_secs(20), || {
            let text = fs::read_to_string(&status)?;
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
            Ok((mask >> (signal - 1) & 1 == 1).then_some(()))
        })
    }

    /// Waits until `ready`, for as long as the program runs.
    pub(crate) fn wait_until(&mut self, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let waited = wait_until(limit, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the program ended by itself with {status}");
            }
            Ok(ready().then_some(()))
        });
        waited.with_context(|| format!("it said\n{}", self.said()))
    }

    /// Sends a signal and waits for the end; gives the status, what was said, and how long the end took.
    pub(crate) fn end_by(mut self, signal: &str, limit: Duration) -> Result<(ExitStatus, String, Duration)> {
        let sent = Instant::now();
        let told = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status()?;
        ensure!(told.success(), "cannot send SIG{signal}");
        let status = wait_until(limit, || Ok(self.child.try_wait()?))
            .with_context(|| format!("still running after SIG{signal}; it said\n{}", self.said()))?;
        Ok((status, self.said(), sent.elapsed()))
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // A program that has ended cannot be killed, which is as well.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) && self.child.kill().is_ok() {
            self.child.wait().map(|_status| ()).unwrap_or_default();
        }
    }
}
