//! A producer with a steady rate, in the time of the machine: its records are made as they become due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::hand_over::send;
use crate::kafka_broker::TestBroker;

const FLUSH_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the clock.
const PAUSE: Duration = Duration::from_millis(20);

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    OnTime,
    Late,
    /// No decoder can read it.
    Broken,
}

/// How many records were sent, all acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    pub(crate) records: u64,
    pub(crate) late: u64,
    pub(crate) broken: u64,
}

impl Sent {
    pub(crate) fn count(&mut self, kind: Kind) {
        self.records += 1;
        self.late += u64::from(kind == Kind::Late);
        self.broken += u64::from(kind == Kind::Broken);
    }
}

/// Sends `rate` records a second until `stop`. `make` is given the number of a record and the time in ms, writes the payload and
/// says to which partition it goes and what it is. A producer that was held up catches up.
pub(crate) fn produce(
    broker: &TestBroker,
    topic: &str,
    rate: u64,
    stop: &AtomicBool,
    mut make: impl FnMut(u64, u64, &mut String) -> (i32, Kind),
) -> Result<Sent> {
    let producer = connect(broker)?;
    let started = Instant::now();
    let mut sent = Sent::default();
    let mut payload = String::new();
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        let now_ms = now_ms()?;
        while sent.records < due {
            payload.clear();
            let (partition, kind) = make(sent.records, now_ms, &mut payload);
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
            send(&producer, record.payload(payload.as_bytes()))?;
            sent.count(kind);
        }
        producer.poll(Duration::ZERO);
        thread::park_timeout(PAUSE);
    }
    flush(&producer)?;
    Ok(sent)
}

/// A producer that neither loses nor repeats a record.
pub(crate) fn connect(broker: &TestBroker) -> Result<BaseProducer> {
    let mut config = broker.client_config();
    config.set("enable.idempotence", "true").set("compression.type", "lz4").set("linger.ms", "20");
    Ok(config.create()?)
}

/// Waits until the broker has everything.
pub(crate) fn flush(producer: &BaseProducer) -> Result<()> {
    producer.flush(FLUSH_LIMIT)?;
    ensure!(producer.in_flight_count() == 0, "{} records were not acknowledged", producer.in_flight_count());
    Ok(())
}

/// Milliseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "events bear the time at which they are made")]
pub(crate) fn now_ms() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
