//! Which slots of a job this process runs: as its consumer group says.
//!
//! The group reads the topic by which slots reach each other; whoever gets a partition runs the slot of that number. Nothing is
//! read here, the group only decides who should run what. That two processes never both commit for a slot is a matter of
//! the chains, whatever the group says.
//!
//! ```text
//! Taken(slots)    run them
//! Leave(slots)    stop them, then say so: until then the group waits, and nobody else begins with them
//! Lost(slots)     the group has given them to others already
//! ```
//! The group is cooperative: slots that stay are not disturbed when others move. It is so by the classic protocol, with the assignor
//! that is set here, and by the newer one (`group.protocol = consumer`, KIP-848), where the broker shares out and says how long
//! it waits for a silent member. Either tells what is to be given up before anybody else is given it.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::context::forward_log;
use super::exchange::ExchangeConfig;
use super::{GROUP_PROTOCOL, INSTANCE_ID, Properties, Reserved, client_config, refused_config};
use crate::error::{Error, Result};

/// Longest wait for the group in one place.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Longest that slots may take to stop before the group gives them away all the same.
const LEAVE_MAX: Duration = Duration::from_secs(60);
/// What members say by the classic protocol, and the broker by the newer one: there the library refuses clients that say it.
const OF_CLASSIC: [&str; 3] = ["heartbeat.interval.ms", "partition.assignment.strategy", "session.timeout.ms"];

/// What the group says.
#[derive(Debug)]
pub enum SlotEvent {
    /// These slots are to be run here.
    Taken(Vec<u32>),
    /// These are to be stopped; the group waits until it is told that they are.
    Leave(Vec<u32>, Left),
    /// These were given to others.
    Lost(Vec<u32>),
    /// The group cannot be reached, or complains.
    Trouble(String),
}

/// Says that slots were stopped, when it is dropped.
#[derive(Debug)]
pub struct Left(#[expect(dead_code, reason = "its end is what is waited for")] SyncSender<()>);

/// How to join the group.
#[derive(Debug, Clone)]
pub struct SlotGroupConfig {
    /// The topic with a partition for each slot.
    pub exchange: ExchangeConfig,
    /// The group.
    pub group_id: String,
}

struct Context {
    /// Where events go.
    events: Mutex<tokio::sync::mpsc::Sender<SlotEvent>>,
}

impl Context {
    fn is_heard(&self) -> bool {
        !self.events.lock().unwrap_or_else(PoisonError::into_inner).is_closed()
    }
}

impl Context {
    fn tell(&self, event: SlotEvent) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = match event {
            // A flood of complaints says nothing new.
            SlotEvent::Trouble(_) => events.try_send(event).is_ok(),
            event => events.blocking_send(event).is_ok(),
        };
        tracing::trace!(told, "the group of slots has something to say");
    }
}

fn slots_of(partitions: &TopicPartitionList) -> Vec<u32> {
    partitions.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        forward_log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let message = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        self.tell(SlotEvent::Trouble(message));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let slots = slots_of(partitions);
        let acknowledged = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let acknowledged = hold(consumer, partitions);
            if !slots.is_empty() {
                self.tell(SlotEvent::Taken(slots));
            }
            acknowledged
        } else {
            if consumer.assignment_lost() {
                self.tell(SlotEvent::Lost(slots));
            } else if !slots.is_empty() {
                let (left, wait): (SyncSender<()>, Receiver<()>) = sync_channel(0);
                self.tell(SlotEvent::Leave(slots, Left(left)));
                // It ends with an error when the other side is dropped, which is what is waited for.
                wait.recv_timeout(LEAVE_MAX).unwrap_or_default();
            }
            consumer.incremental_unassign(partitions)
        };
        if let Err(error) = acknowledged {
            self.tell(SlotEvent::Trouble(format!("the group could not be answered: {error}")));
        }
    }
}

/// Takes partitions without reading them.
fn hold(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> rdkafka::error::KafkaResult<()> {
    let mut held = TopicPartitionList::new();
    for element in partitions.elements() {
        held.add_partition_offset(element.topic(), element.partition(), Offset::End)?;
    }
    consumer.incremental_assign(&held)?;
    if held.count() > 0 {
        consumer.pause(&held)?;
    }
    Ok(())
}

/// The place of a process in the group.
pub struct SlotGroup {
    consumer: BaseConsumer<Context>,
}

impl fmt::Debug for SlotGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotGroup").finish_non_exhaustive()
    }
}

impl SlotGroup {
    /// Joins; what the group says goes to `events` while [`serve`](Self::serve) is called.
    ///
    /// Neither this nor `serve` may be called by an async task: they wait until somebody takes what the group says.
    ///
    /// # Errors
    /// A refused property, or [`Error::Kafka`].
    pub fn join(config: &SlotGroupConfig, events: tokio::sync::mpsc::Sender<SlotEvent>) -> Result<Self> {
        let ExchangeConfig { bootstrap_servers, properties, topic, .. } = &config.exchange;
        let mut defaults = vec![
            ("client.id", "wattline"),
            // Nothing is read: this is only for what comes before the partitions are paused.
            ("queued.max.messages.kbytes", "1024"),
        ];
        let mut reserved = vec![
            Reserved::new("group.id", &config.group_id, "the consumer group has a setting of its own"),
            Reserved::new("enable.auto.commit", "false", "offsets belong to wattline's manifests"),
        ];
        if properties.get(GROUP_PROTOCOL).is_none_or(|protocol| protocol == "classic") {
            // A process that died without a word gives its slots up after this.
            defaults.push(("session.timeout.ms", "10000"));
            let strategy = "partition.assignment.strategy";
            reserved.push(Reserved::new(strategy, "cooperative-sticky", "slots move one by one"));
        } else if let Some(name) = OF_CLASSIC.iter().find(|name| properties.contains_key(**name)) {
            let reason = "with `group.protocol = consumer` the broker says it";
            return Err(Error::ReservedProperty { name: (*name).to_owned(), reason });
        }
        // All processes have one configuration: of two with one name, each would push the other out.
        let mut properties: Properties = properties.clone();
        properties.remove(INSTANCE_ID);
        let client = client_config(bootstrap_servers, &defaults, &properties, &reserved)?;
        let context = Context { events: Mutex::new(events) };
        let consumer: BaseConsumer<Context> = client.create_with_context(context).map_err(refused_config)?;
        consumer
            .subscribe(&[topic])
            .map_err(|source| Error::Kafka { doing: format!("subscribing to `{topic}`"), source })?;
        Ok(Self { consumer })
    }

    /// Whether anybody listens to what the group says.
    pub fn is_heard(&self) -> bool {
        self.consumer.context().is_heard()
    }

    /// Keeps the place in the group for a moment.
    ///
    /// # Errors
    /// [`Error::ClientDead`] if the client cannot go on.
    pub fn serve(&self) -> Result<()> {
        if let Some(Err(_)) = self.consumer.poll(POLL_WAIT)
            && let Some((_, reason)) = self.consumer.client().fatal_error()
        {
            return Err(Error::ClientDead { reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(properties: &[(&str, &str)]) -> Option<String> {
        let exchange = ExchangeConfig {
            bootstrap_servers: "127.0.0.1:1".to_owned(),
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            topic: "slots".to_owned(),
            slots: 2,
            connect_timeout: Duration::from_secs(1),
            send_timeout: Duration::from_secs(1),
        };
        let (events, _heard) = tokio::sync::mpsc::channel(1);
        let joined = SlotGroup::join(&SlotGroupConfig { exchange, group_id: "group".to_owned() }, events);
        joined.err().map(|error| error.to_string())
    }

    #[test]
    fn either_protocol_is_taken_with_what_belongs_to_it() {
        assert_eq!(refusal(&[("session.timeout.ms", "6000")]), None);
        assert_eq!(refusal(&[("group.protocol", "classic"), ("heartbeat.interval.ms", "1000")]), None);
        assert_eq!(refusal(&[("group.protocol", "consumer"), ("group.remote.assignor", "uniform")]), None);
        for name in OF_CLASSIC {
            let said = refusal(&[("group.protocol", "consumer"), (name, "6000")]).expect("a refusal");
            assert!(said.contains(name) && said.contains("the broker says it"), "{said}");
        }
        let said = refusal(&[("partition.assignment.strategy", "range")]).expect("a refusal");
        assert!(said.contains("slots move one by one"), "{said}");
        let said = refusal(&[("group.protocol", "newest")]).expect("a refusal");
        assert!(said.contains("`group.protocol`"), "{said}");
    }
}
