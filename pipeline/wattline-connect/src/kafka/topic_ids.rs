//! What a cluster calls its topics: one that was deleted and made again has another id, whatever offsets it has come to.
//!
//! The binding has no call for this. The question is put by the client of the consumer, and takes one round trip. Brokers before
//! 2.8 have no ids; then nothing is known, and only offsets can show that a topic is another one. Ids of different clusters cannot
//! be compared: a topic that was moved with its offsets is the same one there. So the name of a log is that of its cluster and the id.
#![allow(unsafe_code, reason = "the binding cannot describe topics")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::context::SourceContext;

/// Between the name of the cluster, which has none, and the id.
const SEPARATOR: char = '/';

/// Room for what the library says of an option that it refuses.
const TEXT_BYTES: usize = 128;

/// Whether these names are known to be those of different logs.
pub(super) fn is_another(known: &str, found: &str) -> bool {
    let cluster = |name: &str| name.split_once(SEPARATOR).map(|(cluster, _)| cluster.to_owned());
    known != found && cluster(known) == cluster(found)
}

/// The names of the logs of topics, with their clusters; without those of topics that have no id.
///
/// # Errors
/// If no broker answers in time.
pub(super) fn names_of_logs(
    consumer: &BaseConsumer<SourceContext>,
    topics: &BTreeSet<String>,
    timeout: Duration,
) -> KafkaResult<BTreeMap<String, String>> {
    let Some(cluster) = consumer.client().fetch_cluster_id(timeout) else { return Ok(BTreeMap::new()) };
    let ids = topic_ids(consumer, topics, timeout)?.into_iter();
    Ok(ids.map(|(topic, id)| (topic, format!("{cluster}{SEPARATOR}{id}"))).collect())
}

/// The ids of topics by their names; without those that have none.
fn topic_ids(
    consumer: &BaseConsumer<SourceContext>,
    topics: &BTreeSet<String>,
    timeout: Duration,
) -> KafkaResult<BTreeMap<String, String>> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let question = Question::new(consumer, &names, timeout_ms);
    question.ask(consumer, timeout_ms).map(|answer| answer.ids())
}

/// What a question is made of; all of it is ours.
struct Question {
    topics: *mut sys::rd_kafka_TopicCollection_t,
    options: *mut sys::rd_kafka_AdminOptions_t,
    queue: *mut sys::rd_kafka_queue_t,
}

impl Question {
    fn new(consumer: &BaseConsumer<SourceContext>, names: &[CString], timeout_ms: i32) -> Self {
        let client = consumer.client().native_ptr();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let mut text: [c_char; TEXT_BYTES] = [0; TEXT_BYTES];
        // SAFETY: the client is alive; the library copies the names, and aborts rather than return null when memory is out.
        unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = sys::rd_kafka_AdminOptions_new(client, operation);
            // A time that is refused leaves the usual one, after which nobody waits for the answer.
            sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text.as_mut_ptr(), text.len());
            Self { topics, options, queue: sys::rd_kafka_queue_new(client) }
        }
    }

    fn ask(&self, consumer: &BaseConsumer<SourceContext>, timeout_ms: i32) -> KafkaResult<Answer> {
        // SAFETY: the client and all parts of the question are alive.
        let event = unsafe {
            sys::rd_kafka_DescribeTopics(consumer.client().native_ptr(), self.topics, self.options, self.queue);
            sys::rd_kafka_queue_poll(self.queue, timeout_ms)
        };
        if event.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        let answer = Answer(event);
        // SAFETY: the event is ours.
        let code = unsafe { sys::rd_kafka_event_error(answer.0) };
        match code {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(answer),
            code => Err(KafkaError::AdminOp(code.into())),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // SAFETY: made by us, destroyed once.
        unsafe {
            sys::rd_kafka_TopicCollection_destroy(self.topics);
            sys::rd_kafka_AdminOptions_destroy(self.options);
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// What the broker said.
struct Answer(*mut sys::rd_kafka_event_t);

impl Answer {
    fn ids(&self) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::new();
        let mut count = 0;
        // SAFETY: the event is ours; what it is made of lives as long as it does.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.0);
            if result.is_null() {
                return ids;
            }
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            for at in 0..count {
                let topic = *topics.add(at);
                let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                let bits =
                    (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id));
                // An old broker, or a topic that is not there.
                if bits != (0, 0) {
                    let text = |of: *const c_char| CStr::from_ptr(of).to_string_lossy().into_owned();
                    let name = text(sys::rd_kafka_TopicDescription_name(topic));
                    ids.insert(name, text(sys::rd_kafka_Uuid_base64str(id)));
                }
            }
        }
        ids
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: given to us, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_within_one_cluster() {
        assert!(is_another("c1/aa", "c1/b/b"));
        assert!(!is_another("c1/a/a", "c1/a/a"));
        assert!(!is_another("c1/aa", "c2/bb"));
    }
}
