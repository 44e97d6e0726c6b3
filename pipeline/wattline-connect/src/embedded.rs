//! A Kafka-protocol broker inside this process, for the demo and for tests that need no real cluster.
//!
//! It is librdkafka's mock cluster: real sockets, real protocol, the same client code as in production. It proves
//! nothing about exactly-once (offsets in transactions are thrown away, rolled-back records stay visible) and keeps
//! only 5 MiB or 100,000 record batches of a partition, dropping the oldest without a word. So it is fed by a
//! [`Feeder`], which stays a safe distance ahead of what the consumer reports through [`Progress`]. It knows no static members of
//! groups: one that comes back is another one to it, and waits for the session of the first.
#![allow(unsafe_code, reason = "the binding does not offer the mock's rebalance delay")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, Producer as _};
use wattline_core::record::LaneId;

use crate::error::{Error, Result};
use crate::kafka::admin::{KeyedMessage, Producer, partition_of_key};
use crate::kafka::context::ProducerReports;
use crate::kafka::{Properties, refused_config};

/// Bytes a partition may be ahead of its consumer: well below the 5 MiB that the broker keeps.
const AHEAD_BYTES_MAX: usize = 2 << 20;
/// Messages a partition may be ahead; each may be a batch of its own, of which the broker keeps 100,000.
const AHEAD_MESSAGES_MAX: usize = 40_000;
/// What a record costs in the log beside key and payload, generously.
const RECORD_OVERHEAD_BYTES: usize = 80;
/// A feeder that waits this long without any progress gives up.
const STALL: Duration = Duration::from_secs(60);
/// How often a waiting feeder serves its producer.
const SERVE: Duration = Duration::from_millis(20);

/// The broker; it lives as long as this value.
pub struct EmbeddedBroker {
    host: BaseProducer<ProducerReports>,
    topics: Mutex<BTreeMap<String, i32>>,
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl EmbeddedBroker {
    /// Starts a broker on a free port of the loopback interface.
    ///
    /// # Errors
    /// [`Error::Property`] if the client library cannot start it.
    pub fn start() -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set("client.id", "wattline-embedded");
        let host: BaseProducer<ProducerReports> =
            config.create_with_context(ProducerReports::default()).map_err(refused_config)?;
        // SAFETY: the mock belongs to `host` and lives as long as it; the call stores one number.
        unsafe {
            let mock = sys::rd_kafka_handle_mock_cluster(host.client().native_ptr());
            if !mock.is_null() {
                // Members of a group need not wait the usual 3 s for others.
                sys::rd_kafka_mock_group_initial_rebalance_delay_ms(mock, 0);
            }
        }
        let broker = Self { host, topics: Mutex::new(BTreeMap::new()) };
        broker.cluster()?;
        Ok(broker)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`Error::Kafka`] if it exists already or the name is not valid.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.cluster()?
            .create_topic(name, partitions, 1)
            .map_err(|source| Error::Kafka { doing: format!("creating topic `{name}`"), source })?;
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), partitions);
        Ok(())
    }

    /// The address for clients.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster().map(|cluster| cluster.bootstrap_servers()).unwrap_or_default()
    }

    /// A feeder for the topics created so far. There must be one feeder only, and nobody else may produce to its topics.
    ///
    /// # Errors
    /// [`Error::Property`] if its producer cannot be opened.
    pub fn feeder(&self, progress: Progress) -> Result<Feeder> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let producer = Producer::connect(&self.bootstrap_servers(), &Properties::new())?;
        Ok(Feeder { producer, progress, topics, ahead: HashMap::new(), sent: 0 })
    }

    pub(crate) fn cluster(&self) -> Result<MockCluster<'_, ProducerReports>> {
        self.host
            .client()
            .mock_cluster()
            .ok_or_else(|| Error::ClientDead { reason: "the embedded broker did not start".to_owned() })
    }
}

/// How far the consumer of an embedded broker has come; shared by consumer and feeder.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next_offsets: HashMap<LaneId, i64>,
    stopped: bool,
}

impl Progress {
    /// Nothing processed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All records of a lane before `next_offset` are processed and need not be kept by the broker.
    pub fn processed(&self, lane: &LaneId, next_offset: i64) {
        self.state().next_offsets.insert(lane.clone(), next_offset);
        self.shared.moved.notify_all();
    }

    /// The consumer takes no more; a waiting feeder returns.
    pub fn stop(&self) {
        self.state().stopped = true;
        self.shared.moved.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offset up to which a lane is processed, or `None` if the consumer has stopped.
    fn next_offset(&self, lane: &LaneId) -> Option<i64> {
        let state = self.state();
        (!state.stopped).then(|| state.next_offsets.get(lane).copied().unwrap_or(0))
    }

    fn wait(&self) {
        let state = self.state();
        drop(self.shared.moved.wait_timeout(state, SERVE));
    }
}

/// What the broker must still keep of one partition.
#[derive(Debug, Default)]
struct Ahead {
    /// Sizes of the messages after `first_offset`.
    sizes: VecDeque<usize>,
    first_offset: i64,
    bytes: usize,
}

impl Ahead {
    fn forget_before(&mut self, next_offset: i64) {
        while self.first_offset < next_offset
            && let Some(size) = self.sizes.pop_front()
        {
            self.bytes -= size;
            self.first_offset += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= AHEAD_BYTES_MAX || self.sizes.len() >= AHEAD_MESSAGES_MAX
    }
}

/// Feeds an embedded broker no faster than its consumer reads.
#[derive(Debug)]
pub struct Feeder {
    producer: Producer,
    progress: Progress,
    topics: BTreeMap<String, i32>,
    ahead: HashMap<LaneId, Ahead>,
    sent: u64,
}

impl Feeder {
    /// Sends one message to the partition of its key, waiting while that partition is too far ahead. Returns `false`
    /// without sending once the consumer has stopped.
    ///
    /// # Errors
    /// [`Error::TopicMissing`] for a topic that was not created, [`Error::FeederStalled`] after a minute without
    /// progress, [`Error::Kafka`] if a message cannot be delivered.
    pub fn send(&mut self, message: &KeyedMessage<'_>) -> Result<bool> {
        let partitions = *self.topics.get(message.topic).ok_or_else(|| Error::TopicMissing {
            topic: message.topic.to_owned(),
            bootstrap_servers: "the embedded broker".to_owned(),
        })?;
        let partition = partition_of_key(message.key, partitions);
        let lane = LaneId::new(message.topic, partition);
        if !self.wait_for_room(&lane)? {
            return Ok(false);
        }
        self.producer.send_to(message, Some(partition))?;
        let size = message.key.len() + message.payload.len() + RECORD_OVERHEAD_BYTES;
        let ahead = self.ahead.entry(lane).or_default();
        ahead.sizes.push_back(size);
        ahead.bytes += size;
        self.sent += 1;
        Ok(true)
    }

    /// Waits until all is acknowledged and returns how many messages were sent.
    ///
    /// # Errors
    /// [`Error::Kafka`] if a message cannot be delivered.
    pub fn finish(mut self) -> Result<u64> {
        self.producer.flush(STALL)?;
        Ok(self.sent)
    }

    fn wait_for_room(&mut self, lane: &LaneId) -> Result<bool> {
        let Some(ahead) = self.ahead.get_mut(lane) else {
            return Ok(self.progress.next_offset(lane).is_some());
        };
        let (mut since, mut seen) = (Instant::now(), ahead.first_offset);
        loop {
            let Some(next_offset) = self.progress.next_offset(lane) else { return Ok(false) };
            ahead.forget_before(next_offset);
            if !ahead.is_full() {
                return Ok(true);
            }
            if ahead.first_offset > seen {
                (since, seen) = (Instant::now(), ahead.first_offset);
            }
            if since.elapsed() >= STALL {
                return Err(Error::FeederStalled { lane: lane.clone(), waited: STALL });
            }
            self.producer.serve();
            self.progress.wait();
        }
    }
}
