//! Fills the topic with readings of a fleet of meters, a few percent of them broken, displaced or late.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use wattline_sim::{Disorder, Generator};

use crate::hand_over::send;
use crate::kafka_broker::TestBroker;
use crate::settings::{DELAY_MS, Settings};

const SEED: u64 = 1;
const SERVE_EVERY: u64 = 4_096;
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// What is in the topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Produced {
    pub(crate) records: u64,
    /// Records that are whole.
    pub(crate) accepted: u64,
    /// Payloads without keys, before compression.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

pub(crate) fn produce(broker: &TestBroker, topic: &str, partitions: i32, settings: &Settings) -> Result<Produced> {
    let producer: BaseProducer = broker
        .client_config()
        .set("acks", "all")
        .set("linger.ms", "20")
        .set("compression.type", &settings.compression)
        .set("queue.buffering.max.messages", "500000")
        .create()?;
    let lanes = usize::try_from(partitions)?;
    let by_last_digits =
        |key: &[u8]| key.iter().rev().take(2).fold(0, |sum, digit| sum + i32::from(*digit)) % partitions;
    let mut generator = Generator::new(settings.meters(), Disorder::usual(DELAY_MS), SEED, lanes, by_last_digits);
    let started = Instant::now();
    let (mut records, mut bytes) = (0, 0);
    while let Some(record) = generator.next() {
        bytes += record.payload.len() as u64;
        send(&producer, BaseRecord::to(topic).partition(record.partition).key(record.key).payload(record.payload))?;
        records += 1;
        if records % SERVE_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(FLUSH_LIMIT)?;
    let accepted = generator.counts().accepted();
    ensure!(producer.in_flight_count() == 0, "{} records were not acknowledged", producer.in_flight_count());
    Ok(Produced { records, accepted, bytes, seconds: started.elapsed().as_secs_f64() })
}
