//! What all producers share: handing messages to the client, and waiting until the broker has them.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::context::ProducerReports;

/// One serving of delivery reports; a delivery is noticed within this.
pub(crate) const SERVE: Duration = Duration::from_millis(2);

/// Hands over a message; while the client's queue is full it waits, until the deadline.
pub(crate) fn enqueue<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
    producer: &BaseProducer<ProducerReports>,
    mut record: BaseRecord<'_, K, P>,
    deadline: Instant,
) -> KafkaResult<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < deadline => {
                record = back;
                producer.poll(SERVE);
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Waits until the broker has all that was handed over, or one message failed, or the deadline has come.
pub(crate) fn await_delivered(producer: &BaseProducer<ProducerReports>, deadline: Instant) -> KafkaResult<()> {
    let reports = producer.client().context();
    while producer.in_flight_count() > 0 && !reports.has_failed_delivery() && Instant::now() < deadline {
        producer.poll(SERVE);
    }
    if let Some(failed) = reports.take_failed_delivery() {
        return Err(failed.error);
    }
    match producer.in_flight_count() {
        0 => Ok(()),
        _ => Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)),
    }
}
