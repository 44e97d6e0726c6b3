//! Where the parts of a job run that are not its coordinator, as an argument: nothing else in this crate begins a thread.
//!
//! The coordinator is an async task and may not block. Sources and workers are [`Part`]s, which go turn by turn; work that takes long
//! is done aside. The real one is [`OsThreads`]; a simulation gives the turns itself, one at a time, in an order that a seed decides,
//! so that a run can be repeated:
//!
//! ```text
//!            OsThreads                                  a simulation
//! begin      a thread: `while part.turn(true) != Over`  keeps the part, gives it turns that do not wait
//! aside      a thread of the pool                       at once, when all workers have emptied their queues
//! ```

use std::fmt;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Which part of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Polls the source of this number.
    Source(usize),
    /// Has lanes; the worker of this number.
    Worker(usize),
}

/// The name of its thread.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(number) => write!(f, "wattline-source-{number}"),
            Self::Worker(number) => write!(f, "wattline-worker-{number}"),
        }
    }
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something was done.
    Done,
    /// There was nothing to do.
    Nothing,
    /// The part has come to its end.
    Over,
}

/// A part of a job that runs beside the coordinator.
pub trait Part: Send {
    /// Does the next thing that there is to do. `waits` says that it may wait for it.
    fn turn(&mut self, waits: bool) -> Turn;
}

/// Has parts run, and work done that may block.
pub trait Threads: Send + Sync + fmt::Debug {
    /// Begins a part, which goes on until it is over.
    ///
    /// # Errors
    /// If there can be no more threads.
    fn begin(&self, role: Role, part: Box<dyn Part>) -> Result<()>;

    /// Has work done that takes long, or waits for a worker to have room.
    fn aside(&self, work: Box<dyn FnOnce() + Send>);
}

/// Threads of the machine: one for each part, those of the async runtime for the rest.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsThreads;

impl Threads for OsThreads {
    fn begin(&self, role: Role, mut part: Box<dyn Part>) -> Result<()> {
        spawn(role.to_string(), move || while part.turn(true) != Turn::Over {})
    }

    fn aside(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }
}

/// Begins a thread of the machine.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(body);
    spawned.map(drop).map_err(|_io| Error::ThreadGone { thread: name })
}

/// Begins work aside; the answer comes when it is done, and never if it panics.
pub(crate) fn begin_aside<T: Send + 'static>(
    threads: &dyn Threads,
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (reply, answer) = oneshot::channel();
    threads.aside(Box::new(move || {
        // Nobody waits any more if the coordinator is gone.
        reply.send(work()).unwrap_or_default();
    }));
    answer
}

/// Has work done aside; `what` names it if it panics.
pub(crate) async fn aside<T: Send + 'static>(
    threads: &dyn Threads,
    what: impl FnOnce() -> String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    begin_aside(threads, work).await.map_err(|_gone| Error::ThreadGone { thread: what() })
}
