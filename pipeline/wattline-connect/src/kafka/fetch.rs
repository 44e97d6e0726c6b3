//! Taking fetched messages out of librdkafka in batches.
//!
//! The safe `poll` of the binding makes one object per message and costs four times as much of the driving
//! thread as the batch call does. Two rules of librdkafka shape this module:
//!
//! * A batch call on the consumer's main queue swallows rebalances, so all partitions are forwarded to a
//!   queue of our own and batches are taken from that one; the main queue is polled for group events only.
//! * All partitions share this queue, so `queued.max.messages.kbytes` bounds the memory of the whole source and
//!   not of each partition.
//!
//! Forwarding a partition is remembered by librdkafka as the application's wish, but stopping a
//! partition cuts it: after every change of the assignment [`FetchQueue::forward`] is called again, which also moves
//! over whatever arrived in between.
#![allow(unsafe_code, reason = "the binding has no safe batch call")]

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::member::Member;

/// Our own queue, to which the queues of all started partitions are forwarded.
pub(crate) struct FetchQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    slots: Vec<*mut sys::rd_kafka_message_t>,
    // Kept so that the client outlives the queue.
    consumer: Arc<Member>,
}

// SAFETY: librdkafka's handles may be used from any thread; `slots` is scratch space that is empty between calls.
unsafe impl Send for FetchQueue {}

/// One message as it lies in librdkafka's memory.
pub(crate) struct Fetched<'a> {
    /// Identity of the topic object, stable while the partition stays assigned.
    pub(crate) topic_key: usize,
    topic: *const sys::rd_kafka_topic_t,
    pub(crate) partition: i32,
    /// Offset of the record, or of the end for [`FetchedKind::EndOfPartition`].
    pub(crate) offset: i64,
    pub(crate) kind: FetchedKind<'a>,
}

pub(crate) enum FetchedKind<'a> {
    Record { timestamp_ms: i64, log_append_time: bool, payload: &'a [u8] },
    EndOfPartition,
    Failed { code: RDKafkaErrorCode, reason: String },
}

impl Fetched<'_> {
    /// Name of the topic; empty if the message concerns none.
    pub(crate) fn topic(&self) -> String {
        if self.topic.is_null() {
            return String::new();
        }
        // SAFETY: the topic object is kept alive by the message that `self` borrows.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.topic)) }.to_string_lossy().into_owned()
    }
}

impl FetchQueue {
    /// A queue that hands out at most `batch_records_max` messages per call.
    pub(crate) fn new(consumer: Arc<Member>, batch_records_max: usize) -> Self {
        // SAFETY: the client is alive; librdkafka aborts rather than return null when memory is out.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).expect("librdkafka never returns a null queue");
        Self { queue, slots: vec![ptr::null_mut(); batch_records_max.max(1)], consumer }
    }

    /// Makes the messages of a partition arrive here, those included that wait in its own queue.
    pub(crate) fn forward(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: the client and our queue are alive; the partition's queue is released right after use, as its
        // contract demands.
        unsafe {
            let own = sys::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), topic.as_ptr(), partition);
            if !own.is_null() {
                sys::rd_kafka_queue_forward(own, self.queue.as_ptr());
                sys::rd_kafka_queue_destroy(own);
            }
        }
    }

    /// Waits for messages, hands each to `sink`, and returns how many there were.
    pub(crate) fn take(&mut self, max_wait: Duration, mut sink: impl FnMut(Fetched<'_>)) -> usize {
        let wait_ms = i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `slots` has room for as many pointers as we say.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), wait_ms, self.slots.as_mut_ptr(), self.slots.len())
        };
        let count = usize::try_from(count).unwrap_or(0);
        for slot in &mut self.slots[..count] {
            let message = OwnedMessage(std::mem::replace(slot, ptr::null_mut()));
            sink(message.view());
        }
        count
    }

    /// First offset and end offset of a partition as the last fetch reported them: no round trip.
    pub(crate) fn cached_watermarks(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        let topic = CString::new(topic).ok()?;
        let (mut low, mut high) = (0_i64, 0_i64);
        // SAFETY: both out-pointers are valid for the call.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
    }
}

impl Drop for FetchQueue {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once, before `consumer` is released.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// A message that is destroyed even if its sink panics.
struct OwnedMessage(*mut sys::rd_kafka_message_t);

impl OwnedMessage {
    fn view(&self) -> Fetched<'_> {
        // SAFETY: librdkafka filled the slot with a message that is ours until destroyed.
        let message = unsafe { &*self.0 };
        Fetched {
            topic_key: message.rkt as usize,
            topic: message.rkt,
            partition: message.partition,
            offset: message.offset,
            kind: self.kind(message),
        }
    }

    fn kind<'a>(&'a self, message: &'a sys::rd_kafka_message_t) -> FetchedKind<'a> {
        use sys::rd_kafka_resp_err_t as code;
        match message.err {
            code::RD_KAFKA_RESP_ERR_NO_ERROR => self.record(message),
            code::RD_KAFKA_RESP_ERR__PARTITION_EOF => FetchedKind::EndOfPartition,
            other => {
                // SAFETY: the text belongs to the message.
                let text = unsafe { sys::rd_kafka_message_errstr(self.0) };
                let reason = if text.is_null() {
                    String::new()
                } else {
                    // SAFETY: a non-null text is zero-terminated.
                    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
                };
                FetchedKind::Failed { code: other.into(), reason }
            }
        }
    }

    fn record<'a>(&'a self, message: &'a sys::rd_kafka_message_t) -> FetchedKind<'a> {
        use sys::rd_kafka_timestamp_type_t as kind;
        let mut source = kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the out-pointer is valid for the call.
        let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(self.0, &raw mut source) };
        let payload = if message.payload.is_null() {
            &[]
        } else {
            // SAFETY: librdkafka guarantees `len` readable bytes while the message lives.
            unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) }
        };
        let log_append_time = matches!(source, kind::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME);
        FetchedKind::Record { timestamp_ms, log_append_time, payload }
    }
}

impl Drop for OwnedMessage {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0) }
    }
}
