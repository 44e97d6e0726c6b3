//! Kafka and files behind the port of the runtime.

use std::time::Duration;

use wattline_connect::files::FileSource;
use wattline_connect::kafka::source::KafkaSource;
use wattline_connect::{kafka, source};
use wattline_core::record::LaneId;
use wattline_runtime::Result;
use wattline_runtime::port::{self, Position, SourceEvent};

use super::port_error;

/// Topics.
pub(crate) struct Topics(pub(crate) KafkaSource);

impl port::Source for Topics {
    fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>> {
        Ok(self.0.poll(max_wait).map_err(port_error)?.into_iter().map(carry).collect())
    }

    fn start(&mut self, lane: &LaneId, position: Position) -> Result<()> {
        let position = match position {
            Position::Offset(offset) => kafka::source::Position::Offset(offset),
            Position::Earliest => kafka::source::Position::Earliest,
            Position::Latest => kafka::source::Position::Latest,
            Position::Timestamp(ms) => kafka::source::Position::Timestamp(ms),
        };
        self.0.start(lane, position).map_err(port_error)
    }

    fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.0.hold(paused);
        Ok(())
    }

    fn report_published(&mut self, positions: &[(LaneId, i64)]) {
        if let Err(error) = self.0.commit(positions, "") {
            tracing::warn!("offsets for lag monitors could not be committed: {error}");
        }
    }

    fn lag(&self) -> Option<u64> {
        self.0.total_lag()
    }
}

/// Files of one stream. All of them are assigned at the first poll.
pub(crate) struct Files {
    source: FileSource,
    assigned: bool,
    paused: bool,
}

impl Files {
    pub(crate) fn new(source: FileSource) -> Self {
        Self { source, assigned: false, paused: false }
    }
}

impl port::Source for Files {
    fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>> {
        if !self.assigned {
            self.assigned = true;
            return Ok(vec![SourceEvent::Assigned(self.source.lanes().to_vec())]);
        }
        let events = if self.paused { Vec::new() } else { self.source.poll().map_err(port_error)? };
        if events.is_empty() {
            idle(max_wait);
        }
        Ok(events.into_iter().map(carry).collect())
    }

    fn start(&mut self, lane: &LaneId, position: Position) -> Result<()> {
        let next_offset = match position {
            Position::Offset(offset) => offset,
            Position::Earliest => 0,
            Position::Latest | Position::Timestamp(_) => {
                return Err(super::invalid("files start at `earliest`: change `start` of the stream".to_owned()));
            }
        };
        self.source.start(lane, next_offset).map_err(port_error)
    }

    fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.paused = paused;
        Ok(())
    }

    fn report_published(&mut self, _positions: &[(LaneId, i64)]) {}

    fn lag(&self) -> Option<u64> {
        None
    }
}

/// Waits where there is nothing to poll.
#[expect(clippy::disallowed_methods, reason = "the thread of a file source has nothing else to do while it is paused")]
fn idle(wait: Duration) {
    std::thread::sleep(wait);
}

fn carry(event: source::SourceEvent) -> SourceEvent {
    match event {
        source::SourceEvent::Assigned(lanes) => SourceEvent::Assigned(lanes),
        source::SourceEvent::Revoked(lanes) => SourceEvent::Revoked(lanes),
        source::SourceEvent::Records(block) => SourceEvent::Records(block),
        source::SourceEvent::Columns { lane, first_offset, fetched_at_ms, batch } => {
            SourceEvent::Columns { lane, first_offset, fetched_at_ms, batch }
        }
        source::SourceEvent::Header { lane, line } => SourceEvent::Header { lane, line },
        source::SourceEvent::Oversized { lane, offset, length_bytes, head } => {
            SourceEvent::Oversized { lane, offset, length_bytes, head }
        }
        source::SourceEvent::CaughtUp { lane, next_offset } => SourceEvent::CaughtUp(lane, next_offset),
        source::SourceEvent::Ended { lane, next_offset } => SourceEvent::Ended(lane, next_offset),
        source::SourceEvent::OffsetLost { lane, wanted, first, .. } => SourceEvent::OffsetLost { lane, wanted, first },
        source::SourceEvent::Trouble(trouble) => SourceEvent::Trouble(trouble.message),
    }
}
