//! The Kafka source: group membership decides which lanes are ours, the caller decides where each begins.
//!
//! ```text
//! poll ─┬─ group events ──▶ Assigned / Revoked / Trouble
//!       ├─ started lanes ─▶ watermarks asked, position checked ──▶ fetching, or OffsetLost
//!       └─ one batch of messages ──▶ Records per lane, CaughtUp, Ended
//! ```
//! Kafka's committed offsets are not read: the position of a lane is the caller's, from its manifests. A position
//! that the log does not have stops the lane with [`SourceEvent::OffsetLost`]; nothing is ever reset silently. Whenever a lane
//! is located, the cluster is asked for the id of its topic: one that was deleted and made again has another, though it may have grown
//! past the position. (So it is asked when the lane is started, and when its topic or its position is gone while it is read. A topic that
//! is deleted and made again between two fetches, and has grown past the position by then, is not noticed until the next start.)
//!
//! A slot joins as a static member: a process that comes back takes the place of the one before it, at once, and two that run at
//! the same time show themselves. The broker gives the one that comes back what the other had, also if the topics, or their
//! partitions, are other ones now. Then nobody is told of these lanes: the group is left, and joined anew.
//!
//! In a job of several slots ([`Share`]) a source joins no group: the partitions of a slot follow from their numbers. It asks for
//! them from time to time, and says so of new ones. The inbox of the slot is a lane among them that has no end.
//!
//! One thread drives a source. Memory is bounded by `queued.max.messages.kbytes` (64 MiB unless set) plus one batch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Message, Timestamp};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use wattline_core::exchange::Place;
use wattline_core::record::LaneId;

use super::context::{Notice, SourceContext};
use super::fetch::{FetchQueue, Fetched, FetchedKind};
pub use super::lanes::Position;
use super::lanes::{LaneTable, Phase, RawRecord};
use super::member::Member;
use super::topic_ids::{is_another, names_of_logs};
use super::topics::Cluster;
use super::{GROUP_PROTOCOL, INSTANCE_ID, Properties, Reserved, client_config, is_of_member, refused_config};
use crate::error::{Error, Result};
use crate::source::{ClockMs, SourceEvent, Trouble};

/// Longest wait in one place, so that group events are served in time.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// How long one question about a partition may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a question that was not answered.
const QUESTION_PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether a topic has more partitions, where no group says so.
const PARTITIONS_EVERY: Duration = Duration::from_secs(10);
/// Events of the main queue served in one poll.
const GROUP_EVENTS_MAX: usize = 64;

/// Where we differ from librdkafka's defaults; the user may differ again.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "wattline"),
    // A process that died without a word gives its lanes up after this.
    ("session.timeout.ms", "10000"),
    // A partition that was added is found within this; the library takes five minutes.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("fetch.wait.max.ms", "100"),
    // The library rests for a second once its queue is full; ours is empty again in a tenth of that.
    ("fetch.queue.backoff.ms", "5"),
    // A batch that was damaged on its way must not be taken for data.
    ("check.crcs", "true"),
];

/// A process slot, which its group knows as `wattline-<job>-<slot>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMember {
    /// Name of the job.
    pub job: String,
    /// Name of the slot within the job.
    pub slot: String,
}

impl SlotMember {
    fn instance_id(&self) -> String {
        format!("wattline-{}-{}", self.job, self.slot)
    }
}

/// What one slot of several reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Which slot of how many.
    pub place: Place,
    /// The partition by which other slots reach it.
    pub inbox: LaneId,
}

/// How to read Kafka.
#[derive(Debug, Clone)]
pub struct KafkaSourceConfig {
    /// Addresses of brokers, comma-separated.
    pub bootstrap_servers: String,
    /// Consumer group that shares out the lanes.
    pub group_id: String,
    /// Topics to read.
    pub topics: Vec<String>,
    /// The slot that is to be a static member of the group. Further properties may name the member otherwise, or have none with
    /// an empty `group.instance.id`.
    pub member: Option<SlotMember>,
    /// Which partitions are read, without a group; all that the group gives if absent.
    pub share: Option<Share>,
    /// Further librdkafka properties.
    pub properties: Properties,
    /// Bounded mode: a lane ends at the end its partition had when the lane was started.
    pub until_end: bool,
    /// How long to wait for a broker at the start.
    pub connect_timeout: Duration,
    /// Most messages taken in one poll.
    pub batch_records_max: usize,
    /// A block is closed when it has reached this size.
    pub block_bytes_max: usize,
}

impl KafkaSourceConfig {
    /// Reads `topics` for ever, with the default limits.
    pub fn new(bootstrap_servers: impl Into<String>, group_id: impl Into<String>, topics: Vec<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            group_id: group_id.into(),
            topics,
            member: None,
            share: None,
            properties: Properties::new(),
            until_end: false,
            connect_timeout: Duration::from_secs(10),
            batch_records_max: 8192,
            block_bytes_max: 4 << 20,
        }
    }

    /// The name of the static member, if there is to be one.
    fn instance_id(&self) -> Option<String> {
        if self.share.is_some() {
            return None;
        }
        let own = self.properties.get(INSTANCE_ID).cloned();
        own.or_else(|| self.member.as_ref().map(SlotMember::instance_id)).filter(|id| !id.is_empty())
    }

    fn reserved(&self) -> [Reserved; 6] {
        let offsets = "offsets belong to wattline's manifests, not to the consumer group";
        [
            Reserved::new("group.id", &self.group_id, "the consumer group has a setting of its own"),
            Reserved::new("enable.auto.commit", "false", offsets),
            Reserved::new("enable.auto.offset.store", "false", offsets),
            Reserved::new(
                "auto.offset.reset",
                "error",
                "a lost position must stop the lane; the start position has a setting of its own",
            ),
            Reserved::new("enable.partition.eof", "true", "idle lanes are recognised by it"),
            // By the newer one a static member that died blocks the one that comes back, until its session is over.
            Reserved::new(
                GROUP_PROTOCOL,
                "classic",
                "a process that is started again takes its place in the group at once, which the classic protocol alone allows",
            ),
        ]
    }
}

/// A connected source. See the module for how it is driven.
pub struct KafkaSource {
    fetch: FetchQueue,
    consumer: Arc<Member>,
    lanes: LaneTable,
    partitions: Vec<(String, i32)>,
    group_id: String,
    member: Option<SlotMember>,
    instance_id: Option<String>,
    share: Option<Share>,
    /// The group counts this process in. In between, what is committed would be that of a member that is no more: the broker takes such
    /// a static member for one whose place another process has taken.
    is_counted_in: bool,
    /// In a job of several slots: when to look for partitions again.
    look_again_at: Instant,
    /// The first lanes that the group gives are still to come, and may be those of a process that read something else.
    doubts_first: bool,
    until_end: bool,
    clock: ClockMs,
    held: bool,
    ask_again_at: Option<Instant>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("lanes", &self.lanes)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Opens the client, checks that a broker answers and that the topics exist, and joins the group.
    ///
    /// # Errors
    /// [`Error::NoBroker`], [`Error::TopicMissing`], [`Error::TopicForbidden`], or a refused property.
    pub fn connect(config: KafkaSourceConfig, clock: ClockMs) -> Result<Self> {
        let instance_id = config.instance_id();
        let mut properties = config.properties.clone();
        // Without a group of its own it need not know how the group of the slots is shared out.
        let joins_none = config.share.is_some();
        properties.retain(|name, _| name != INSTANCE_ID && !(joins_none && is_of_member(name)));
        let mut defaults: Vec<(&str, &str)> = DEFAULTS.to_vec();
        defaults.extend(instance_id.as_deref().map(|id| (INSTANCE_ID, id)));
        let client = client_config(&config.bootstrap_servers, &defaults, &properties, &config.reserved())?;
        let consumer: BaseConsumer<SourceContext> =
            client.create_with_context(SourceContext::default()).map_err(refused_config)?;
        let consumer = Arc::new(Member::new(consumer));
        let cluster = Cluster::new(&config.bootstrap_servers, config.connect_timeout);
        let partitions = config
            .topics
            .iter()
            .map(|topic| cluster.partition_count(&consumer, topic).map(|count| (topic.clone(), count)));
        let partitions = partitions.collect::<Result<Vec<_>>>()?;
        if config.share.is_none() {
            subscribe(&consumer, &partitions)?;
        }
        Ok(Self {
            fetch: FetchQueue::new(Arc::clone(&consumer), config.batch_records_max),
            consumer,
            lanes: LaneTable::new(config.block_bytes_max),
            partitions,
            group_id: config.group_id,
            member: config.member,
            doubts_first: instance_id.is_some(),
            instance_id,
            is_counted_in: config.share.is_some(),
            share: config.share,
            look_again_at: Instant::now(),
            until_end: config.until_end,
            clock,
            held: false,
            ask_again_at: None,
        })
    }

    /// The topics with their partition counts when the source was opened.
    pub fn partitions(&self) -> &[(String, i32)] {
        &self.partitions
    }

    /// Waits at most `max_wait` (and at most 200 ms in one place) for something to say.
    ///
    /// # Errors
    /// [`Error::MemberFenced`] or [`Error::ClientDead`] if the client cannot go on. All else comes as [`SourceEvent::Trouble`].
    pub fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>> {
        let mut events = Vec::new();
        self.lanes.begin_poll((self.clock)());
        let wait = max_wait.min(WAIT_MAX);
        let idle = self.held || (!self.lanes.any_running() && !self.lanes.any_starting());
        self.serve_group(if idle { wait } else { Duration::ZERO }, &mut events)?;
        self.look_for_partitions(&mut events);
        self.begin_started(&mut events);
        if self.held {
            return Ok(events);
        }
        if self.lanes.any_running() {
            let wait = if events.is_empty() { wait } else { Duration::ZERO };
            self.fetch_batch(wait, &mut events);
        } else if !idle && events.is_empty() {
            // A started lane waits for an answer of the broker.
            self.serve_group(wait, &mut events)?;
        }
        Ok(events)
    }

    /// Names the position at which an assigned lane begins (or begins again after [`SourceEvent::OffsetLost`]), and the log
    /// that it was read from before, if that is known; the next poll acts on it. Start all lanes of an assignment before polling: with the default (eager) assignors each
    /// poll with newly started lanes makes all others fetch anew.
    ///
    /// # Errors
    /// [`Error::NotAssigned`] if the lane has been revoked meanwhile.
    pub fn start(&mut self, lane: &LaneId, position: Position, log: Option<&str>) -> Result<()> {
        let known = self.lanes.get_mut(lane).ok_or_else(|| Error::NotAssigned { lane: lane.clone() })?;
        known.phase = Phase::Starting(position);
        known.log = log.map(str::to_owned);
        known.until = None;
        Ok(())
    }

    /// Holds all records back, or lets them flow again. What was fetched ahead stays in the client's queue, whose size
    /// is bounded; the group is served all the while.
    ///
    /// The client's own pause is not used: it drops what was fetched ahead and, with batches taken from a queue,
    /// was seen to resume one record too far.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The end of each fetched partition as the last fetch reported it; no round trip.
    pub fn high_watermarks(&self) -> Vec<(LaneId, i64)> {
        let running = self.lanes.iter().filter(|lane| lane.fetched);
        running.filter_map(|lane| self.high_watermark(&lane.id).map(|high| (lane.id.clone(), high))).collect()
    }

    /// Records between the next one of a lane and the end of its partition, as far as known; no round trip.
    pub fn lag(&self, lane: &LaneId) -> Option<i64> {
        let next = self.lanes.get(lane).filter(|known| known.fetched)?.next;
        Some((self.high_watermark(lane)? - next).max(0))
    }

    /// The sum of [`KafkaSource::lag`] over all lanes; `None` until something is known.
    pub fn total_lag(&self) -> Option<u64> {
        self.lanes.iter().filter_map(|lane| self.lag(&lane.id)).map(i64::unsigned_abs).reduce(|a, b| a + b)
    }

    /// Tells the group how far lanes have come, so that the usual tools show their lag. Asynchronous; nothing in wattline
    /// reads it back.
    ///
    /// # Errors
    /// [`Error::Kafka`] if the client does not take the request.
    pub fn commit(&self, positions: &[(LaneId, i64)], metadata: &str) -> Result<()> {
        if positions.is_empty() || !self.is_counted_in {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (lane, next_offset) in positions {
            let mut element = list.add_partition(&lane.topic, lane.partition);
            element.set_offset(Offset::Offset(*next_offset)).map_err(|source| Error::Kafka {
                doing: format!("committing offset {next_offset} of `{lane}`"),
                source,
            })?;
            element.set_metadata(metadata);
        }
        self.consumer
            .commit(&list, CommitMode::Async)
            .map_err(|source| Error::Kafka { doing: "committing offsets to the group".to_owned(), source })
    }

    /// The offsets that the group has for these lanes, with their metadata; one round trip.
    ///
    /// # Errors
    /// [`Error::Kafka`] if the broker does not answer.
    pub fn committed(&self, lanes: &[LaneId]) -> Result<Vec<(LaneId, i64, String)>> {
        let mut list = TopicPartitionList::new();
        for lane in lanes {
            list.add_partition(&lane.topic, lane.partition);
        }
        let list = self
            .consumer
            .committed_offsets(list, QUESTION_TIMEOUT)
            .map_err(|source| Error::Kafka { doing: "reading the group's offsets".to_owned(), source })?;
        let known = list.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                Some((LaneId::new(element.topic(), element.partition()), offset, element.metadata().to_owned()))
            }
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
        });
        Ok(known.collect())
    }

    fn high_watermark(&self, lane: &LaneId) -> Option<i64> {
        self.fetch.cached_watermarks(&lane.topic, lane.partition).map(|(_, high)| high)
    }

    /// Polls the main queue: rebalances run inside, complaints land in the inbox.
    fn serve_group(&mut self, max_wait: Duration, events: &mut Vec<SourceEvent>) -> Result<()> {
        let mut wait = max_wait;
        for _ in 0..GROUP_EVENTS_MAX {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    // A partition whose forwarding was cut just now.
                    let slot = self.lanes.slot(usize::MAX, message.partition(), || message.topic().to_owned());
                    if let Some(slot) = slot {
                        let record = borrowed_record(&message);
                        self.lanes.record(slot, &record, events);
                    }
                    self.lanes.forget_keys();
                }
                // The context has put its words into the inbox. Whether it is the end the client alone knows: no error of a
                // consumer is marked as fatal.
                Some(Err(_)) => {
                    if let Some((code, reason)) = self.consumer.client().fatal_error() {
                        return Err(self.dead(code, reason));
                    }
                }
            }
            wait = Duration::ZERO;
        }
        for notice in self.consumer.context().take() {
            match notice {
                Notice::Assigned(lanes) => {
                    if std::mem::take(&mut self.doubts_first) && self.is_outdated(&lanes) {
                        tracing::info!(
                            group = self.group_id,
                            "the group gives what an earlier process read: joining it anew"
                        );
                        self.consumer.unsubscribe();
                        subscribe(&self.consumer, &self.partitions)?;
                        continue;
                    }
                    self.is_counted_in = true;
                    self.lanes.assign(&lanes);
                    events.push(SourceEvent::Assigned(lanes));
                }
                Notice::Revoked(mut lanes) => {
                    self.is_counted_in = false;
                    // Of those that nobody was told of, nobody need be told that they are gone.
                    lanes.retain(|lane| self.lanes.get(lane).is_some());
                    self.lanes.revoke(&lanes);
                    if !lanes.is_empty() {
                        events.push(SourceEvent::Revoked(lanes));
                    }
                }
                Notice::Trouble(trouble) => events.push(SourceEvent::Trouble(trouble)),
            }
        }
        Ok(())
    }

    /// Finds the partitions of the slot; says all of them at first, even if there are none, and new ones later.
    fn look_for_partitions(&mut self, events: &mut Vec<SourceEvent>) {
        let Some(share) = &self.share else { return };
        if Instant::now() < self.look_again_at {
            return;
        }
        let is_first = self.lanes.get(&share.inbox).is_none();
        let mut found: Vec<LaneId> = if is_first { vec![share.inbox.clone()] } else { Vec::new() };
        for (topic, count) in &mut self.partitions {
            match partition_count(&self.consumer, topic) {
                Ok(now) => *count = now.max(*count),
                Err(error) => {
                    let message = format!("the partitions of `{topic}` cannot be asked for: {error}");
                    events.push(SourceEvent::Trouble(Trouble { message, all_brokers_down: false }));
                    self.look_again_at = Instant::now() + QUESTION_PAUSE;
                    return;
                }
            }
            let of_slot = (0..*count).filter(|partition| share.place.reads(*partition));
            found.extend(of_slot.map(|partition| LaneId::new(topic.as_str(), partition)));
        }
        found.retain(|lane| self.lanes.get(lane).is_none());
        self.look_again_at = Instant::now() + PARTITIONS_EVERY;
        if !found.is_empty() {
            self.lanes.add(&found);
            events.push(SourceEvent::Assigned(found));
        }
    }

    /// Whether these lanes are not all that there are, or those of other topics. Of a group with several members a part is no
    /// sign of that, but to join it anew does no harm either.
    fn is_outdated(&self, given: &[LaneId]) -> bool {
        let count_of = |lane: &LaneId| {
            self.partitions.iter().find(|(topic, _)| *lane.topic == **topic).map(|(_, partitions)| *partitions)
        };
        let all: i64 = self.partitions.iter().map(|(_, partitions)| i64::from(*partitions)).sum();
        let known = given.iter().filter(|lane| count_of(lane).is_some_and(|partitions| lane.partition < partitions));
        let foreign = given.iter().any(|lane| count_of(lane).is_none());
        foreign || i64::try_from(known.count()).unwrap_or(i64::MAX) < all
    }

    /// Why the client cannot go on.
    fn dead(&self, code: RDKafkaErrorCode, reason: String) -> Error {
        match (code, &self.member, &self.instance_id) {
            (RDKafkaErrorCode::FencedInstanceId, Some(SlotMember { job, slot }), Some(instance_id)) => {
                Error::MemberFenced {
                    job: job.clone(),
                    slot: slot.clone(),
                    group: self.group_id.clone(),
                    instance_id: instance_id.clone(),
                }
            }
            _ => Error::ClientDead { reason },
        }
    }

    /// Locates the started lanes and begins fetching those whose position the log has.
    fn begin_started(&mut self, events: &mut Vec<SourceEvent>) {
        if !self.lanes.any_starting() || self.ask_again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.ask_again_at = None;
        let Some(logs) = self.logs_of_started(events) else { return };
        let mut changed = Vec::new();
        for lane in self.lanes.iter_mut() {
            let Phase::Starting(position) = lane.phase else { continue };
            let (low, high, wanted) = match locate(&self.consumer, &lane.id, position) {
                Ok(found) => found,
                Err(error) => {
                    let message = format!("`{}` cannot be located: {error}", lane.id);
                    events.push(SourceEvent::Trouble(Trouble { message, all_brokers_down: false }));
                    if position == Position::Latest {
                        // What comes until it can be located comes after the start.
                        lane.phase = Phase::Starting(Position::Timestamp((self.clock)()));
                    }
                    self.ask_again_at = Some(Instant::now() + QUESTION_PAUSE);
                    break;
                }
            };
            let log = logs.get(&*lane.id.topic);
            let is_another = log.zip(lane.log.as_ref()).is_some_and(|(log, known)| is_another(known, log));
            lane.next = wanted;
            let is_inbox = self.share.as_ref().is_some_and(|share| share.inbox == lane.id);
            let ends = self.until_end && !is_inbox;
            lane.until = ends.then_some(high);
            changed.push(lane.id.clone());
            if wanted < low || wanted > high || is_another {
                lane.phase = Phase::Silent;
                events.push(SourceEvent::OffsetLost {
                    lane: lane.id.clone(),
                    wanted,
                    first: low,
                    end: high,
                    is_another,
                });
                continue;
            }
            if let Some(log) = log.filter(|log| lane.log.as_ref() != Some(*log)) {
                lane.log = Some(log.clone());
                events.push(SourceEvent::Log { lane: lane.id.clone(), log: log.clone() });
            }
            if ends && wanted >= high {
                lane.phase = Phase::Ended;
                events.push(SourceEvent::Ended { lane: lane.id.clone(), next_offset: wanted });
            } else {
                lane.phase = Phase::Running;
                // From now on this is where the lane goes on: it may be revoked before the client has met its end.
                if wanted == high && matches!(position, Position::Latest | Position::Timestamp(_)) {
                    events.push(SourceEvent::CaughtUp { lane: lane.id.clone(), next_offset: wanted });
                }
            }
        }
        if changed.is_empty() {
            return;
        }
        if let Err(source) = self.apply_assignment(&changed) {
            let message = format!("the lanes could not be started: {source}");
            events.push(SourceEvent::Trouble(Trouble { message, all_brokers_down: false }));
            for id in &changed {
                if let Some(slot) = self.lanes.get_mut(id).filter(|lane| lane.phase == Phase::Running) {
                    slot.phase = Phase::Starting(Position::Offset(slot.next));
                }
            }
            self.ask_again_at = Some(Instant::now() + QUESTION_PAUSE);
        }
    }

    /// The names of the logs of started lanes, by topic; `None` if they have to be asked for again, as some lane must not go on without.
    fn logs_of_started(&mut self, events: &mut Vec<SourceEvent>) -> Option<BTreeMap<String, String>> {
        let started = || self.lanes.iter().filter(|lane| matches!(lane.phase, Phase::Starting(_)));
        let topics: BTreeSet<String> = started().map(|lane| lane.id.topic.to_string()).collect();
        match names_of_logs(&self.consumer, &topics, QUESTION_TIMEOUT) {
            Ok(logs) => Some(logs),
            Err(error) if started().all(|lane| lane.log.is_none()) => {
                tracing::debug!(%error, "the ids of topics are not known");
                Some(BTreeMap::new())
            }
            Err(error) => {
                let message = format!("the ids of topics cannot be asked for: {error}");
                events.push(SourceEvent::Trouble(Trouble { message, all_brokers_down: false }));
                self.ask_again_at = Some(Instant::now() + QUESTION_PAUSE);
                None
            }
        }
    }

    /// Tells the client which partitions to fetch from where.
    fn apply_assignment(&mut self, changed: &[LaneId]) -> rdkafka::error::KafkaResult<()> {
        for lane in self.lanes.iter().filter(|lane| lane.phase == Phase::Running) {
            self.fetch.forward(&lane.id.topic, lane.id.partition);
        }
        if matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            let old: Vec<LaneId> = self
                .lanes
                .iter()
                .filter(|lane| lane.fetched && changed.contains(&lane.id))
                .map(|lane| lane.id.clone())
                .collect();
            if !old.is_empty() {
                self.consumer.incremental_unassign(&list_of(&old))?;
            }
            let fresh = self.positions(|lane| changed.contains(lane))?;
            self.consumer.incremental_assign(&fresh)?;
        } else {
            let all = self.positions(|_| true)?;
            self.consumer.assign(&all)?;
        }
        // The answer comes after all partitions were stopped, so forwarding set now is not cut any more.
        self.consumer.assignment()?;
        for lane in self.lanes.iter_mut() {
            lane.fetched = lane.phase == Phase::Running;
            if lane.fetched {
                self.fetch.forward(&lane.id.topic, lane.id.partition);
            }
        }
        Ok(())
    }

    fn positions(&self, wanted: impl Fn(&LaneId) -> bool) -> rdkafka::error::KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for lane in self.lanes.iter().filter(|lane| lane.phase == Phase::Running && wanted(&lane.id)) {
            list.add_partition_offset(&lane.id.topic, lane.id.partition, Offset::Offset(lane.next))?;
        }
        Ok(list)
    }

    fn fetch_batch(&mut self, max_wait: Duration, events: &mut Vec<SourceEvent>) {
        let Self { fetch, lanes, ask_again_at, .. } = self;
        fetch.take(max_wait, |fetched| take_in(lanes, ask_again_at, &fetched, events));
        let finished = self.lanes.take_finished();
        if !finished.is_empty()
            && let Err(error) = self.consumer.pause(&list_of(&finished))
        {
            // Only costs fetching in vain: the lane table drops what comes.
            tracing::debug!(%error, "an ended lane could not be paused");
        }
    }
}

/// Sorts one message into the lane table.
fn take_in(
    lanes: &mut LaneTable,
    ask_again_at: &mut Option<Instant>,
    fetched: &Fetched<'_>,
    events: &mut Vec<SourceEvent>,
) {
    let slot = lanes.slot(fetched.topic_key, fetched.partition, || fetched.topic());
    match (&fetched.kind, slot) {
        (FetchedKind::Record { timestamp_ms, log_append_time, payload }, Some(slot)) => {
            let record = RawRecord {
                offset: fetched.offset,
                timestamp_ms: *timestamp_ms,
                log_append_time: *log_append_time,
                payload,
            };
            lanes.record(slot, &record, events);
        }
        (FetchedKind::EndOfPartition, Some(slot)) => lanes.end_of_partition(slot, fetched.offset, events),
        // Of a lane that was revoked while this was on its way.
        (FetchedKind::Record { .. } | FetchedKind::EndOfPartition, None) => {}
        (FetchedKind::Failed { code, reason }, slot) => {
            let lane = slot.map(|slot| lanes.lane(slot).id.to_string());
            if *code == RDKafkaErrorCode::AutoOffsetReset {
                // The position left the log: locating the lane again tells by how much.
                if slot.and_then(|slot| lanes.relocate(slot)).is_some() {
                    *ask_again_at = Some(Instant::now());
                }
                return;
            }
            if is_of_topic(*code) && slot.and_then(|slot| lanes.relocate(slot)).is_some() {
                // The topic is gone, and may come back as another one.
                *ask_again_at = Some(Instant::now() + QUESTION_PAUSE);
            }
            let message = match lane {
                Some(lane) => format!("`{lane}`: {code}: {reason}"),
                None => format!("{code}: {reason}"),
            };
            events.push(SourceEvent::Trouble(Trouble {
                message,
                all_brokers_down: *code == RDKafkaErrorCode::AllBrokersDown,
            }));
        }
    }
}

/// Whether a partition could not be read because its topic is not there.
fn is_of_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopicId
    )
}

fn borrowed_record<'a>(message: &'a rdkafka::message::BorrowedMessage<'_>) -> RawRecord<'a> {
    let (timestamp_ms, log_append_time) = match message.timestamp() {
        Timestamp::NotAvailable => (-1, false),
        Timestamp::CreateTime(ms) => (ms, false),
        Timestamp::LogAppendTime(ms) => (ms, true),
    };
    RawRecord {
        offset: message.offset(),
        timestamp_ms,
        log_append_time,
        payload: message.payload().unwrap_or_default(),
    }
}

/// Joins the group, unless the consumer is in it already, with these topics.
fn subscribe(consumer: &BaseConsumer<SourceContext>, partitions: &[(String, i32)]) -> Result<()> {
    let topics: Vec<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    consumer
        .subscribe(&topics)
        .map_err(|source| Error::Kafka { doing: format!("subscribing to `{}`", topics.join("`, `")), source })
}

fn partition_count(consumer: &BaseConsumer<SourceContext>, topic: &str) -> rdkafka::error::KafkaResult<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), QUESTION_TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.map_or(0, |found| i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)))
}

fn list_of(lanes: &[LaneId]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for lane in lanes {
        list.add_partition(&lane.topic, lane.partition);
    }
    list
}

/// Asks for the bounds of a partition and turns a position into an offset.
fn locate(
    consumer: &BaseConsumer<SourceContext>,
    lane: &LaneId,
    position: Position,
) -> rdkafka::error::KafkaResult<(i64, i64, i64)> {
    let (low, high) = consumer.fetch_watermarks(&lane.topic, lane.partition, QUESTION_TIMEOUT)?;
    let wanted = match position {
        Position::Offset(offset) => offset,
        Position::Earliest => low,
        Position::Latest => high,
        Position::Timestamp(timestamp_ms) => {
            let mut question = TopicPartitionList::new();
            question.add_partition_offset(&lane.topic, lane.partition, Offset::Offset(timestamp_ms))?;
            let answer = consumer.offsets_for_times(question, QUESTION_TIMEOUT)?;
            match answer.elements().first().map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset.clamp(low, high),
                Some(_) | None => high,
            }
        }
    };
    Ok((low, high, wanted))
}

#[cfg(test)]
mod tests;
