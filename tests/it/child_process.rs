//! A program run as a child that cannot outlive this test process, however this process ends.
//!
//! Dropping is not enough: statics are never dropped, and a killed test runner drops nothing. `PR_SET_PDEATHSIG` is a trap here,
//! since it fires when the *thread* that started the child ends, and each test has its own thread. So a small shell stands
//! between: it starts the program, prints its process id and watches its own standard input, whose other end this process holds.
//! When that pipe closes, for whatever reason, the shell kills the program.
//!
//! ```text
//! test process ──pipe──▶ sh (cat; kill -9) ──▶ program ──▶ log file
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Keeps the pipe on descriptor 3, because a shell gives its background jobs an empty standard input.
const WATCHER: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >>"$CHILD_LOG" 2>&1 &
program=$!
echo "$program"
exec >/dev/null 2>&1
( cat <&3; kill -9 "$program" ) &
watcher=$!
exec 3<&-
wait "$program"
status=$?
kill "$watcher"
exit "$status"
"#;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 40;

/// A running program; killed on drop.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    name: String,
    shell: Child,
    /// Held open for as long as the program may live.
    leash: Option<ChildStdin>,
    pid: u32,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts `program` with `args` in `folder`; its output is appended to `log`.
    pub(crate) fn start<A: AsRef<OsStr>>(program: &Path, args: &[A], folder: &Path, log: &Path) -> Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let mut shell = Command::new("sh")
            .args(["-c", WATCHER, "sh"])
            .arg(program)
            .args(args)
            .current_dir(folder)
            .env("CHILD_LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `sh` for `{name}`"))?;
        let leash = shell.stdin.take();
        let answer = shell.stdout.take().context("the shell has no standard output")?;
        let mut line = String::new();
        BufReader::new(answer).read_line(&mut line).with_context(|| format!("no process id for `{name}`"))?;
        let pid = line.trim().parse().with_context(|| format!("`{}` is no process id", line.trim()))?;
        Ok(Self { name, shell, leash, pid, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The status if the program has ended.
    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.shell.try_wait().with_context(|| format!("cannot ask for the state of `{}`", self.name))
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Errors
    /// If it still runs after `limit`; it goes on running then.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let log = self.log.clone();
        wait_until(limit, || self.try_wait())
            .with_context(|| format!("`{name}` has not ended; its log ends with\n{}", log_tail(&log)))
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(limit)
    }

    /// Sends SIGKILL and waits until the process is gone: nothing is flushed, nothing is closed in order.
    pub(crate) fn kill9(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.wait(Duration::from_secs(10)).map(|_| ())
    }

    /// The last lines that the program wrote.
    pub(crate) fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let status =
            Command::new("kill").args(["-s", signal, &self.pid.to_string()]).status().context("cannot run `kill`")?;
        ensure!(status.success(), "cannot send SIG{signal} to `{}` ({}): {status}", self.name, self.pid);
        Ok(())
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        drop(self.leash.take());
        if let Err(error) = self.shell.wait() {
            eprintln!("cannot wait for the end of `{}`: {error}", self.name);
        }
    }
}

/// Asks `ready` again and again until it has an answer.
///
/// # Errors
/// The error of `ready`, or that `limit` is over.
pub(crate) fn wait_until<T>(limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ready()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("not ready after {} s", limit.as_secs());
        }
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

fn log_tail(log: &Path) -> String {
    let Ok(text) = fs::read(log) else {
        return format!("(no log at `{}`)", log.display());
    };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[test]
fn a_child_dies_with_its_leash() -> Result<()> {
    let scratch = crate::scratch::Scratch::new("leash")?;
    let log = scratch.join("log");
    let child = ChildProcess::start(Path::new("sleep"), &["600"], scratch.path(), &log)?;
    let pid = child.pid().to_string();
    ensure!(alive(&pid)?, "the child did not start");
    drop(child);
    wait_until(Duration::from_secs(5), || Ok((!alive(&pid)?).then_some(())))
}

#[test]
fn a_child_tells_its_exit_status_and_keeps_its_log() -> Result<()> {
    let scratch = crate::scratch::Scratch::new("status")?;
    let log = scratch.join("log");
    File::create(&log)?;
    let mut child = ChildProcess::start(Path::new("sh"), &["-c", "echo said; exit 7"], scratch.path(), &log)?;
    let status = child.wait(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(7));
    assert_eq!(child.log_tail(), "said");
    Ok(())
}

#[cfg(test)]
fn alive(pid: &str) -> Result<bool> {
    let status = Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status()?;
    Ok(status.success())
}
