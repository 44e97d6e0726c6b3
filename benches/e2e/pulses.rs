//! Watches the topic of alerts for the newest window that is out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::kafka_broker::TestBroker;

const POLL_WAIT: Duration = Duration::from_millis(20);

/// How far in event time results are out.
#[derive(Debug, Default)]
pub(crate) struct Pulses {
    newest_end_ms: AtomicU64,
}

impl Pulses {
    /// End of the newest window that was told, milliseconds since the epoch; 0 before the first.
    pub(crate) fn newest_end_ms(&self) -> u64 {
        self.newest_end_ms.load(Ordering::Relaxed)
    }

    /// Reads what is committed, until `stop`.
    pub(crate) fn watch(&self, broker: &TestBroker, topic: &str, partitions: i32, stop: &AtomicBool) -> Result<()> {
        let consumer: BaseConsumer = broker
            .client_config()
            .set("group.id", "bench-pulses")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        while !stop.load(Ordering::Relaxed) {
            let Some(message) = consumer.poll(POLL_WAIT) else { continue };
            let message = message?;
            let alert: Value =
                serde_json::from_slice(message.payload().unwrap_or_default()).context("an alert is no JSON")?;
            if let Some(end) = alert.get("window_end").and_then(Value::as_str) {
                let end_ns = u64::try_from(string_to_timestamp_nanos(end)?)?;
                self.newest_end_ms.fetch_max(end_ns / 1_000_000, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
