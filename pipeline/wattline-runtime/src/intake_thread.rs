//! The thread of a source: polls, routes blocks to the workers, holds the source back when they are full.
//!
//! The thread never blocks on a full worker for long: it keeps the blocks it has, pauses the source and goes on
//! polling, so that the client library keeps its place in the consumer group however long a sink is away. It wakes up as
//! soon as a worker has room; a worker that is full does not keep blocks from the others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError, TrySendError};
use tokio::sync::mpsc;
use wattline_core::gap::{AfterLoss, LogBounds, OnGap, decide_after_loss};
use wattline_core::record::LaneId;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::port::{Position, Source, SourceEvent};
use crate::progress::Progress;
use crate::threads::{Part, Turn};
use crate::worker::{LaneNumber, WorkerMessage};

const POLL_WAIT: Duration = Duration::from_millis(50);
/// How long a full worker is waited for between two polls.
const ROOM_WAIT: Duration = Duration::from_millis(20);

/// What the coordinator tells a source.
#[derive(Debug)]
pub(crate) enum SourceCommand {
    /// Let a lane flow to a worker.
    Start(LaneId, Route),
    /// These positions are published.
    Published(Vec<(LaneId, i64)>),
    /// End.
    Stop,
}

/// What a source tells the coordinator.
#[derive(Debug)]
pub(crate) enum SourceNotice {
    /// Lanes to be taken.
    Assigned(usize, Vec<LaneId>),
    /// Something that cannot heal.
    Failed(Error),
}

/// Where a lane's records go, and how far they were handed over.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) number: LaneNumber,
    pub(crate) worker: usize,
    /// Where the lane continues if the source loses it and gets it back.
    pub(crate) position: Position,
    /// The log that it is read from, if that is known.
    pub(crate) log: Option<String>,
    /// What its stream wants if offsets are gone.
    pub(crate) on_gap: OnGap,
}

/// A source and its connections.
pub(crate) struct Intake {
    pub(crate) number: usize,
    pub(crate) source: Box<dyn Source>,
    pub(crate) workers: Vec<Sender<WorkerMessage>>,
    pub(crate) commands: Receiver<SourceCommand>,
    pub(crate) notices: mpsc::Sender<SourceNotice>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) buffered_bytes_max: u64,
    pub(crate) state_bytes_max: u64,
    pub(crate) routes: HashMap<LaneId, Route>,
    pub(crate) held: VecDeque<(usize, WorkerMessage)>,
    pub(crate) paused: bool,
}

/// Works until told to stop.
impl Part for Intake {
    fn turn(&mut self, waits: bool) -> Turn {
        self.serve(waits).unwrap_or_else(|error| {
            // A coordinator that is gone has its own error.
            self.notify(SourceNotice::Failed(error)).unwrap_or_default();
            Turn::Over
        })
    }
}

impl Intake {
    fn serve(&mut self, waits: bool) -> Result<Turn> {
        let mut done = Turn::Nothing;
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => break,
                // A coordinator that was given up before it could say so.
                Err(TryRecvError::Disconnected) => return Ok(Turn::Over),
            };
            done = Turn::Done;
            match command {
                SourceCommand::Start(lane, route) => {
                    self.routes.insert(lane.clone(), route);
                    self.start(&lane)?;
                }
                SourceCommand::Published(positions) => self.source.report_published(&positions),
                SourceCommand::Stop => return Ok(Turn::Over),
            }
        }
        self.forward_held()?;
        let waits = waits && !self.await_room()?;
        for event in self.source.poll(if waits { POLL_WAIT } else { Duration::ZERO })? {
            done = Turn::Done;
            if self.take(event)?.is_none() {
                return Ok(Turn::Over);
            }
        }
        if let Some(lag) = self.source.lag() {
            self.progress.lag.store(i64::try_from(lag).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
        Ok(done)
    }

    /// Hands over what waits, in order for each worker, then pauses or resumes the source accordingly.
    fn forward_held(&mut self) -> Result<()> {
        let crowded = self.is_crowded();
        if !crowded {
            let mut full = vec![false; self.workers.len()];
            for (worker, message) in std::mem::take(&mut self.held) {
                let refused = if full[worker] { Some(message) } else { self.offer(worker, message)? };
                if let Some(message) = refused {
                    full[worker] = true;
                    self.held.push_back((worker, message));
                }
            }
        }
        let hold = !self.held.is_empty() || crowded;
        if hold != self.paused {
            self.source.set_paused(hold)?;
            self.paused = hold;
            self.progress.stalled.store(hold, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Raw rows or partial state in memory are at their limit.
    fn is_crowded(&self) -> bool {
        self.progress.buffered_bytes.load(Ordering::Relaxed) > self.buffered_bytes_max
            || self.progress.state_bytes.load(Ordering::Relaxed) > self.state_bytes_max
    }

    /// Gives a worker a message, or the message back if it has no room.
    fn offer(&self, worker: usize, message: WorkerMessage) -> Result<Option<WorkerMessage>> {
        match self.workers[worker].try_send(message) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(message)) => Ok(Some(message)),
            Err(TrySendError::Disconnected(_)) => Err(gone(worker)),
        }
    }

    /// Waits a moment for the worker of the first block that waits; true if the workers were the reason to wait.
    fn await_room(&mut self) -> Result<bool> {
        if self.is_crowded() {
            return Ok(false);
        }
        let Some((worker, message)) = self.held.pop_front() else { return Ok(false) };
        match self.workers[worker].send_timeout(message, ROOM_WAIT) {
            Ok(()) => self.forward_held()?,
            Err(SendTimeoutError::Timeout(message)) => self.held.push_front((worker, message)),
            Err(SendTimeoutError::Disconnected(_)) => return Err(gone(worker)),
        }
        Ok(true)
    }

    /// Routes one event; `None` if the coordinator is gone.
    fn take(&mut self, event: SourceEvent) -> Result<Option<()>> {
        let fetched_at_ms = self.clock.now_ms();
        match event {
            SourceEvent::Assigned(lanes) => {
                let fresh = self.take_back(lanes)?;
                return Ok(self.notify(SourceNotice::Assigned(self.number, fresh)));
            }
            // Nobody else can commit these lanes without sealing this chain; until then they are ours, and if the
            // group gives them back they go on where they stopped.
            SourceEvent::Revoked(lanes) => crate::events::LanesRevoked { lanes: &lanes }.emit(),
            SourceEvent::Records(block) => {
                let lane = block.lane.clone();
                let next = block.offsets.last().map(|offset| offset + 1);
                self.send(&lane, |number| WorkerMessage::Records(number, block))?;
                self.note_handed(&lane, next);
            }
            SourceEvent::Columns { lane, first_offset, fetched_at_ms, batch } => {
                let next = first_offset + i64::try_from(batch.num_rows()).unwrap_or(0);
                self.send(&lane, |lane| WorkerMessage::Columns { lane, first_offset, fetched_at_ms, batch })?;
                self.note_handed(&lane, Some(next));
            }
            SourceEvent::Header { lane, line } => self.send(&lane, |number| WorkerMessage::Header(number, line))?,
            SourceEvent::Oversized { lane, offset, length_bytes, head } => {
                self.send(&lane, |lane| WorkerMessage::Oversized { lane, offset, length_bytes, head, fetched_at_ms })?;
                self.note_handed(&lane, Some(offset + 1));
            }
            SourceEvent::CaughtUp(lane, next) => {
                self.send(&lane, |number| WorkerMessage::Reached(number, next))?;
                // A lane that began at its end has begun there: not at the end that it has when it comes back.
                self.note_handed(&lane, Some(next));
            }
            SourceEvent::Ended(lane, next) => {
                self.send(&lane, |number| WorkerMessage::Ended(number, next))?;
                self.note_handed(&lane, Some(next));
            }
            SourceEvent::Log(lane, log) => {
                if let Some(route) = self.routes.get_mut(&lane) {
                    route.log = Some(log.clone());
                }
                self.send(&lane, |number| WorkerMessage::Log(number, log))?;
            }
            SourceEvent::OffsetLost { lane, wanted, log } => self.take_loss(lane, wanted, log)?,
            SourceEvent::Trouble(message) => {
                crate::events::SourceTrouble { message: &message }.emit();
                self.progress.note_trouble(Some(message));
            }
        }
        Ok(Some(()))
    }

    /// Restarts lanes that the source had before; gives the others.
    fn take_back(&mut self, lanes: Vec<LaneId>) -> Result<Vec<LaneId>> {
        let (known, fresh): (Vec<LaneId>, Vec<LaneId>) =
            lanes.into_iter().partition(|lane| self.routes.contains_key(lane));
        for lane in known {
            self.start(&lane)?;
        }
        Ok(fresh)
    }

    fn start(&mut self, lane: &LaneId) -> Result<()> {
        match self.routes.get(lane) {
            Some(route) => self.source.start(lane, route.position, route.log.as_deref()),
            None => Ok(()),
        }
    }

    /// Goes on behind offsets that are gone, if that is what the stream wants. The worker is told in the order of the records.
    fn take_loss(&mut self, lane: LaneId, wanted: i64, log: LogBounds) -> Result<()> {
        let on_gap = self.routes.get(&lane).map_or(OnGap::Stop, |route| route.on_gap);
        match decide_after_loss(on_gap, wanted, log) {
            AfterLoss::Record(gap) => {
                self.send(&lane, |number| WorkerMessage::Gap(number, gap))?;
                self.note_handed(&lane, Some(gap.next));
                self.start(&lane)
            }
            AfterLoss::Stop => Err(Error::OffsetLost { lane, wanted, first: log.first }),
            AfterLoss::UsedAgain => {
                let found = match log.is_another {
                    true => "the topic was deleted and made again".to_owned(),
                    false => format!("the log ends at {}: the topic was made again, or its end was cut off", log.end),
                };
                Err(Error::OffsetsUsedAgain { lane, wanted, found })
            }
        }
    }

    fn note_handed(&mut self, lane: &LaneId, next: Option<i64>) {
        if let (Some(route), Some(next)) = (self.routes.get_mut(lane), next) {
            route.position = Position::Offset(next);
        }
    }

    fn notify(&self, notice: SourceNotice) -> Option<()> {
        match self.notices.try_send(notice) {
            Ok(()) => Some(()),
            Err(mpsc::error::TrySendError::Full(notice)) => self.notices.blocking_send(notice).ok(),
            Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    fn send(&mut self, lane: &LaneId, message: impl FnOnce(LaneNumber) -> WorkerMessage) -> Result<()> {
        let Some((number, worker)) = self.routes.get(lane).map(|route| (route.number, route.worker)) else {
            return Ok(());
        };
        let message = message(number);
        if matches!(message, WorkerMessage::Records(..)) {
            self.progress.note_trouble(None);
        }
        self.held.push_back((worker, message));
        self.forward_held()
    }
}

fn gone(worker: usize) -> Error {
    Error::ThreadGone { thread: format!("worker {worker}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Started = Arc<Mutex<Vec<(LaneId, Position)>>>;

    /// Notes where lanes are started.
    struct Silent(Started);

    impl Source for Silent {
        fn poll(&mut self, _max_wait: Duration) -> Result<Vec<SourceEvent>> {
            Ok(Vec::new())
        }

        fn start(&mut self, lane: &LaneId, position: Position, _log: Option<&str>) -> Result<()> {
            self.0.lock().expect("no panic before").push((lane.clone(), position));
            Ok(())
        }

        fn set_paused(&mut self, _paused: bool) -> Result<()> {
            Ok(())
        }

        fn report_published(&mut self, _positions: &[(LaneId, i64)]) {}

        fn lag(&self) -> Option<u64> {
            None
        }
    }

    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now_ms(&self) -> i64 {
            0
        }
    }

    /// An intake whose source is silent, with the queue of its only worker.
    fn intake(started: &Started) -> (Intake, Receiver<WorkerMessage>, mpsc::Receiver<SourceNotice>) {
        let (worker, queue) = crossbeam_channel::bounded(8);
        let (_commands, received) = crossbeam_channel::bounded(8);
        let (notices, noticed) = mpsc::channel(8);
        let intake = Intake {
            number: 0,
            source: Box::new(Silent(Arc::clone(started))),
            workers: vec![worker],
            commands: received,
            notices,
            progress: Arc::new(Progress::default()),
            clock: Arc::new(Still),
            buffered_bytes_max: u64::MAX,
            state_bytes_max: u64::MAX,
            routes: HashMap::new(),
            held: VecDeque::new(),
            paused: false,
        };
        (intake, queue, noticed)
    }

    fn route(number: LaneNumber, position: Position, on_gap: OnGap) -> Route {
        Route { number, worker: 0, position, log: None, on_gap }
    }

    #[test]
    fn a_silent_lane_that_comes_back_goes_on_where_it_began() {
        let started = Started::default();
        let (mut intake, _queue, _noticed) = intake(&started);
        let lanes: Vec<LaneId> = (0..3).map(|partition| LaneId::new("readings", partition)).collect();
        let begun = [Position::Latest, Position::Timestamp(5), Position::Latest];
        for (number, (lane, position)) in (0..).zip(lanes.iter().zip(begun)) {
            intake.routes.insert(lane.clone(), route(number, position, OnGap::Stop));
        }
        // The last one was not located before it went.
        for (lane, next) in lanes.iter().zip([7, 8]) {
            intake.take(SourceEvent::CaughtUp(lane.clone(), next)).expect("a worker with room");
        }
        intake.take(SourceEvent::Revoked(lanes.clone())).expect("only noted");
        intake.take(SourceEvent::Assigned(lanes.clone())).expect("started again");
        let expected = [Position::Offset(7), Position::Offset(8), Position::Latest];
        let expected: Vec<(LaneId, Position)> = lanes.into_iter().zip(expected).collect();
        assert_eq!(*started.lock().expect("no panic before"), expected);
    }

    #[test]
    fn a_lane_goes_on_behind_a_gap_if_its_stream_wants_that() {
        let started = Started::default();
        let (mut intake, queue, _noticed) = intake(&started);
        let (patient, strict) = (LaneId::new("patient", 0), LaneId::new("strict", 0));
        intake.routes.insert(patient.clone(), route(0, Position::Offset(40), OnGap::Record));
        intake.routes.insert(strict.clone(), route(1, Position::Offset(40), OnGap::Stop));
        let mut lose = |lane: &LaneId, wanted: i64, log: LogBounds| {
            intake.take(SourceEvent::OffsetLost { lane: lane.clone(), wanted, log }).map(drop)
        };
        let log = LogBounds { first: 100, end: 200, is_another: false };
        lose(&patient, 40, log).expect("goes on");
        assert_eq!(*started.lock().expect("no panic before"), [(patient.clone(), Position::Offset(100))]);
        let told = queue.try_recv();
        assert!(matches!(told, Ok(WorkerMessage::Gap(0, gap)) if (gap.first, gap.next) == (40, 100)));

        let said = |error: Error| (error.retry(), error.to_string());
        let (retry, stopped) = said(lose(&strict, 40, log).expect_err("stops"));
        assert!(stopped.contains("strict[0]") && stopped.contains("on_gap"), "{stopped}");
        assert_eq!(retry, wattline_core::error::Retry::Never);
        let (_, cut) = said(lose(&patient, 201, log).expect_err("stops"));
        assert!(cut.contains("the log ends at 200") && cut.contains("topic_life"), "{cut}");
        let (_, anew) = said(lose(&patient, 150, LogBounds { is_another: true, ..log }).expect_err("stops"));
        assert!(anew.contains("deleted and made again") && anew.contains("topic_life"), "{anew}");
        assert!(queue.try_recv().is_err(), "the worker hears of nothing that stops the job");
    }
}
