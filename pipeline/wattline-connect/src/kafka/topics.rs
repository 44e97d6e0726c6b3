//! First contact with a cluster: does a broker answer, and is the topic there?
//!
//! librdkafka itself reports neither: it waits for ever. What it says in passing (connection refused, wrong
//! certificate, wrong password) is collected and becomes the reason of the error.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::context::{Notice, SourceContext};
use crate::error::{Error, Result};

/// A topic made a moment ago may take this long to be known to every broker.
const TOPIC_GRACE: Duration = Duration::from_secs(2);
/// Pause between two looks at a topic that is not there yet.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Polls made to find the reason of a failed contact.
const COMPLAINTS_MAX: usize = 20;
const COMPLAINT_WAIT: Duration = Duration::from_millis(10);

/// A cluster that is being contacted.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    bootstrap_servers: &'a str,
    timeout: Duration,
    deadline: Instant,
}

impl<'a> Cluster<'a> {
    /// Contact must succeed within `timeout` from now.
    pub(crate) fn new(bootstrap_servers: &'a str, timeout: Duration) -> Self {
        Self { bootstrap_servers, timeout, deadline: Instant::now() + timeout }
    }

    /// Number of partitions of a topic that must exist.
    pub(crate) fn partition_count(&self, consumer: &BaseConsumer<SourceContext>, topic: &str) -> Result<i32> {
        let grace = Instant::now() + TOPIC_GRACE;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now()).max(LOOK_PAUSE);
            let metadata =
                consumer.fetch_metadata(Some(topic), left).map_err(|source| self.no_broker(consumer, &source))?;
            if let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) {
                match found.error().map(RDKafkaErrorCode::from) {
                    Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        return Err(Error::TopicForbidden { topic: topic.to_owned() });
                    }
                    None if !found.partitions().is_empty() => {
                        return Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX));
                    }
                    Some(_) | None => {}
                }
            }
            if Instant::now() >= grace {
                let bootstrap_servers = self.bootstrap_servers.to_owned();
                return Err(Error::TopicMissing { topic: topic.to_owned(), bootstrap_servers });
            }
            // Waits, and serves what the client has to say meanwhile.
            drop(consumer.poll(LOOK_PAUSE));
        }
    }

    fn no_broker(&self, consumer: &BaseConsumer<SourceContext>, source: &KafkaError) -> Error {
        let mut reason = source.rdkafka_error_code().map_or_else(|| source.to_string(), |code| code.to_string());
        for _ in 0..COMPLAINTS_MAX {
            // Each poll serves one complaint or line of log, and returns nothing either way.
            drop(consumer.poll(COMPLAINT_WAIT));
            let said = consumer.context().take().into_iter().find_map(|notice| match notice {
                Notice::Trouble(trouble) if !trouble.all_brokers_down => Some(trouble.message),
                Notice::Trouble(_) | Notice::Assigned(_) | Notice::Revoked(_) => None,
            });
            if let Some(said) = said {
                reason = said;
                break;
            }
        }
        Error::NoBroker { bootstrap_servers: self.bootstrap_servers.to_owned(), timeout: self.timeout, reason }
    }
}
