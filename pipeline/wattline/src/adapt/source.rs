//! Kafka and files behind the port of the runtime.
//!
//! A topic that was deleted and made again gives offsets a second time. Its second life is read under a name of its own, `topic#2`:
//! no topic of Kafka has a `#` in its name. Everything beyond this file knows that name only (see [`wattline_core::gap`]).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use wattline_connect::files::FileSource;
use wattline_connect::kafka::source::KafkaSource;
use wattline_connect::{kafka, source};
use wattline_core::gap::LogBounds;
use wattline_core::record::LaneId;
use wattline_runtime::Result;
use wattline_runtime::port::{self, Position, SourceEvent};

use super::port_error;

/// The topic of a stream under the name that its lanes have, which tells its lives apart.
pub(crate) fn name_of_life(topic: &str, life: Option<NonZeroU32>) -> String {
    match life.map_or(1, NonZeroU32::get) {
        1 => topic.to_owned(),
        life => format!("{topic}{LIFE_MARK}{life}"),
    }
}

const LIFE_MARK: char = '#';

/// A lane under its name in Kafka.
fn in_kafka(lane: &LaneId) -> LaneId {
    match lane.topic.split_once(LIFE_MARK) {
        Some((topic, _life)) => LaneId::new(topic, lane.partition),
        None => lane.clone(),
    }
}

/// Topics.
pub(crate) struct Topics {
    source: KafkaSource,
    /// Names of topics that are not in their first life.
    lives: BTreeMap<String, Arc<str>>,
}

impl Topics {
    /// `names` are those of the lanes, see [`name_of_life`].
    pub(crate) fn new(source: KafkaSource, names: impl IntoIterator<Item = String>) -> Self {
        let later = names.into_iter().filter_map(|name| {
            let topic = name.split_once(LIFE_MARK)?.0.to_owned();
            Some((topic, name.into()))
        });
        Self { source, lives: later.collect() }
    }

    /// A lane of Kafka under the name that it has everywhere else.
    fn named(&self, lane: LaneId) -> LaneId {
        match self.lives.get(&*lane.topic) {
            Some(name) => LaneId::new(Arc::clone(name), lane.partition),
            None => lane,
        }
    }
}

impl port::Source for Topics {
    fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>> {
        let events = self.source.poll(max_wait).map_err(port_error)?;
        Ok(events.into_iter().map(|event| carry(event, |lane| self.named(lane))).collect())
    }

    fn start(&mut self, lane: &LaneId, position: Position, log: Option<&str>) -> Result<()> {
        let position = match position {
            Position::Offset(offset) => kafka::source::Position::Offset(offset),
            Position::Earliest => kafka::source::Position::Earliest,
            Position::Latest => kafka::source::Position::Latest,
            Position::Timestamp(ms) => kafka::source::Position::Timestamp(ms),
        };
        match self.source.start(&in_kafka(lane), position, log) {
            // The group took it away in this moment; if it gives it back, it says so.
            Err(wattline_connect::Error::NotAssigned { lane }) => {
                tracing::debug!(%lane, "a lane was taken away before it was started");
                Ok(())
            }
            started => started.map_err(port_error),
        }
    }

    fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.source.hold(paused);
        Ok(())
    }

    fn report_published(&mut self, positions: &[(LaneId, i64)]) {
        let positions: Vec<(LaneId, i64)> = positions.iter().map(|(lane, next)| (in_kafka(lane), *next)).collect();
        if let Err(error) = self.source.commit(&positions, "") {
            tracing::warn!("offsets for lag monitors could not be committed: {error}");
        }
    }

    fn lag(&self) -> Option<u64> {
        self.source.total_lag()
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
        Ok(events.into_iter().map(|event| carry(event, |lane| lane)).collect())
    }

    fn start(&mut self, lane: &LaneId, position: Position, _log: Option<&str>) -> Result<()> {
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

/// Turns an event into that of the port, with the name of its lane.
fn carry(event: source::SourceEvent, named: impl Fn(LaneId) -> LaneId) -> SourceEvent {
    let all = |lanes: Vec<LaneId>| lanes.into_iter().map(&named).collect();
    match event {
        source::SourceEvent::Assigned(lanes) => SourceEvent::Assigned(all(lanes)),
        source::SourceEvent::Revoked(lanes) => SourceEvent::Revoked(all(lanes)),
        source::SourceEvent::Records(mut block) => {
            block.lane = named(block.lane);
            SourceEvent::Records(block)
        }
        source::SourceEvent::Columns { lane, first_offset, fetched_at_ms, batch } => {
            SourceEvent::Columns { lane: named(lane), first_offset, fetched_at_ms, batch }
        }
        source::SourceEvent::Header { lane, line } => SourceEvent::Header { lane: named(lane), line },
        source::SourceEvent::Oversized { lane, offset, length_bytes, head } => {
            SourceEvent::Oversized { lane: named(lane), offset, length_bytes, head }
        }
        source::SourceEvent::CaughtUp { lane, next_offset } => SourceEvent::CaughtUp(named(lane), next_offset),
        source::SourceEvent::Ended { lane, next_offset } => SourceEvent::Ended(named(lane), next_offset),
        source::SourceEvent::Log { lane, log } => SourceEvent::Log(named(lane), log),
        source::SourceEvent::OffsetLost { lane, wanted, first, end, is_another } => {
            SourceEvent::OffsetLost { lane: named(lane), wanted, log: LogBounds { first, end, is_another } }
        }
        source::SourceEvent::Trouble(trouble) => SourceEvent::Trouble(trouble.message),
    }
}

#[cfg(test)]
mod tests {
    use wattline_connect::embedded::EmbeddedBroker;
    use wattline_connect::kafka::source::KafkaSourceConfig;
    use wattline_runtime::port::Source;

    use super::*;

    fn topics(broker: &EmbeddedBroker, life: Option<NonZeroU32>) -> Topics {
        broker.create_topic("readings", 1).expect("a topic");
        let config = KafkaSourceConfig::new(broker.bootstrap_servers(), "adapt", vec!["readings".to_owned()]);
        let source = KafkaSource::connect(config, Arc::new(|| 0)).expect("connected");
        Topics::new(source, [name_of_life("readings", life)])
    }

    #[test]
    fn a_lane_that_is_not_there_any_more_is_left_alone() {
        let broker = EmbeddedBroker::start().expect("a broker");
        let mut topics = topics(&broker, None);
        let gone = LaneId::new("readings", 7);
        topics.start(&gone, Position::Offset(3), None).expect("the source goes on");
    }

    #[test]
    fn a_second_life_has_a_name_that_kafka_does_not_know() {
        let broker = EmbeddedBroker::start().expect("a broker");
        let mut topics = topics(&broker, NonZeroU32::new(2));
        let lane = LaneId::new("readings#2", 0);
        let mut told = Vec::new();
        for _ in 0..600 {
            for event in topics.poll(Duration::from_millis(50)).expect("polled") {
                if let SourceEvent::Assigned(lanes) = &event {
                    assert!(lanes.iter().eq([&lane]), "{lanes:?}");
                    topics.start(&lane, Position::Earliest, None).expect("assigned");
                }
                told.push(event);
            }
            if told.iter().any(|event| matches!(event, SourceEvent::CaughtUp(of, 0) if *of == lane)) {
                assert_eq!(in_kafka(&lane), LaneId::new("readings", 0));
                assert_eq!(name_of_life("readings", NonZeroU32::new(1)), "readings");
                return;
            }
        }
        panic!("the lane was not read: {told:?}");
    }
}
