//! The alert topic behind the port of the runtime.
//!
//! An alert that is larger than the topic takes must not hold up all others for ever: it goes out without its evidence, in the same
//! transaction, and so does every alert that is as large as that one or larger: one search finds all of them.
//!
//! Which message the broker refuses first depends on how messages came into batches, so another process may leave out the evidence
//! of a few more or a few less when it tries the same epoch again. It does so only if nothing of the epoch is out, and what
//! identifies an alert is the same: nobody ever sees both.
//!
//! Alerts of a rule with `delivery = "low_latency"` go out by a publisher of their own. One that is too large for the topic fails
//! there, and goes with the transaction, as all that were to go out with it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wattline_connect::kafka::alerts::{AlertMessage, AlertPublisher, Outcome};
use wattline_connect::kafka::early_alerts::EarlyPublisher;
use wattline_core::alert::AlertRecord;
use wattline_core::chain::are_alerts_out;
use wattline_core::error::{Kind, Retry};
use wattline_runtime::{Error, Result, alerting, port};

use super::port_error;

/// Publishes alerts in transactions; the client blocks, so it works on threads for blocking calls.
pub(crate) struct AlertTopic {
    publisher: Arc<Mutex<AlertPublisher>>,
    early: Arc<Mutex<EarlyPublisher>>,
    job: String,
}

impl std::fmt::Debug for AlertTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlertTopic").field("job", &self.job).finish_non_exhaustive()
    }
}

impl AlertTopic {
    pub(crate) fn new(publisher: AlertPublisher, early: EarlyPublisher, job: &str) -> Self {
        let (publisher, early) = (Arc::new(Mutex::new(publisher)), Arc::new(Mutex::new(early)));
        Self { publisher, early, job: job.to_owned() }
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut AlertPublisher) -> wattline_connect::Result<T> + Send + 'static,
    ) -> Result<T> {
        let publisher = Arc::clone(&self.publisher);
        off_tasks(move || call(&mut publisher.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    fn messages(&self, records: &[AlertRecord]) -> Vec<AlertMessage> {
        let message = |record: &AlertRecord| AlertMessage {
            key: record.fingerprint.clone(),
            headers: alerting::headers(record, &self.job),
            payload: alerting::payload(record),
        };
        records.iter().map(message).collect()
    }

    /// Gives the messages back, and which of them is too large if one is: then nothing is out.
    async fn try_publish(&self, messages: Vec<AlertMessage>, marker: &str, n: u64) -> Result<Tried> {
        let wanted = marker.to_owned();
        self.call(move |publisher| {
            loop {
                match publisher.publish(&messages, &wanted, n) {
                    Ok(Outcome::Published) => return Ok(Tried { messages, refused: None }),
                    // Nobody knows whether the transaction was committed: the marker does.
                    Ok(Outcome::Unknown) if are_alerts_out(publisher.last_marker()?.as_deref(), &wanted) => {
                        return Ok(Tried { messages, refused: None });
                    }
                    Ok(Outcome::Unknown) => {}
                    Err(wattline_connect::Error::AlertTooLarge { topic, key, bytes }) => {
                        return Ok(Tried { messages, refused: Some(TooLarge { topic, key, bytes }) });
                    }
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }
}

/// Makes a call that blocks.
async fn off_tasks<T: Send + 'static>(
    call: impl FnOnce() -> wattline_connect::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome.map_err(port_error),
        Err(panicked) => Err(Error::Port {
            what: "the alert publisher panicked".to_owned(),
            kind: Kind::Internal,
            retry: Retry::Never,
            source: Box::new(panicked),
        }),
    }
}

/// What came of a transaction that was not in doubt.
struct Tried {
    messages: Vec<AlertMessage>,
    refused: Option<TooLarge>,
}

/// A message that the topic does not take.
struct TooLarge {
    topic: String,
    key: String,
    bytes: usize,
}

/// Leaves the evidence out of the messages that are at least as large as the refused one; false if that one does not become
/// smaller. The bound is at most half of the one before, so that few transactions are tried in vain however many sizes there are.
fn leave_evidence_out(
    messages: &mut [AlertMessage],
    records: &[AlertRecord],
    refused: &TooLarge,
    bound_bytes: &mut usize,
) -> bool {
    *bound_bytes = refused.bytes.min(*bound_bytes / 2);
    let mut is_smaller = false;
    for (message, record) in messages.iter_mut().zip(records) {
        if message.payload.len() < *bound_bytes {
            continue;
        }
        let short = alerting::payload_without_evidence(record);
        if short.len() >= message.payload.len() {
            continue;
        }
        let bytes = message.payload.len();
        is_smaller |= message.key == refused.key && bytes == refused.bytes;
        tracing::warn!(
            rule = record.rule_id,
            entity = record.entity_id,
            bytes,
            "topic `{}` does not take an alert of this size: it is published without its evidence, which the table `alerts` has; \
             raise `max.message.bytes` of the topic and `message.max.bytes` in `[kafka.properties]`",
            refused.topic
        );
        message.payload = short;
    }
    is_smaller
}

#[async_trait]
impl port::AlertSink for AlertTopic {
    async fn publish(&self, records: &[AlertRecord], marker: &str, n: u64) -> Result<()> {
        let mut messages = self.messages(records);
        let mut bound_bytes = usize::MAX;
        loop {
            let tried = self.try_publish(messages, marker, n).await?;
            messages = tried.messages;
            let Some(refused) = tried.refused else { return Ok(()) };
            if !leave_evidence_out(&mut messages, records, &refused, &mut bound_bytes) {
                let TooLarge { topic, key, bytes } = refused;
                return Err(port_error(wattline_connect::Error::AlertTooLarge { topic, key, bytes }));
            }
        }
    }

    async fn publish_early(&self, records: &[AlertRecord]) -> Result<()> {
        let (messages, publisher) = (self.messages(records), Arc::clone(&self.early));
        off_tasks(move || publisher.lock().unwrap_or_else(PoisonError::into_inner).publish(&messages)).await
    }

    async fn last_marker(&self) -> Result<Option<String>> {
        self.call(AlertPublisher::last_marker).await
    }
}

#[cfg(test)]
mod tests {
    use wattline_connect::embedded::EmbeddedBroker;
    use wattline_connect::kafka::alerts::AlertPublisherConfig;
    use wattline_core::alert::{Severity, Status};
    use wattline_runtime::port::AlertSink;

    use super::*;

    const LIMIT: usize = 3_000;

    fn record(fingerprint: &str, evidence_bytes: usize, title_bytes: usize) -> AlertRecord {
        AlertRecord {
            fingerprint: fingerprint.to_owned(),
            revision: 1,
            status: Status::Open,
            severity: Severity::Warning,
            rule_id: "pq_events".to_owned(),
            rule_version: "1".to_owned(),
            title: "t".repeat(title_bytes),
            title_zh: None,
            standard: None,
            category: "power_quality".to_owned(),
            entity: vec![("meter_id".to_owned(), "M1".to_owned())],
            entity_id: "M1".to_owned(),
            measured: None,
            limit_low: None,
            limit_high: None,
            unit: None,
            event_us: 0,
            window_us: None,
            first_seen_us: 0,
            last_seen_us: 0,
            resolved_us: None,
            occurrences: 1,
            peak_measured: None,
            evidence: format!("{{\"samples\":\"{}\"}}", "1".repeat(evidence_bytes)),
            source: None,
            runbook: None,
            corrected: false,
            backfilled: false,
        }
    }

    fn topic(broker: &EmbeddedBroker) -> AlertTopic {
        broker.create_topic("alerts", 1).expect("topic");
        let mut config = AlertPublisherConfig::new(broker.bootstrap_servers(), "alerts", "job", "0");
        config.properties.insert("message.max.bytes".to_owned(), LIMIT.to_string());
        let early = EarlyPublisher::new(config.clone());
        AlertTopic::new(AlertPublisher::connect(config).expect("publisher"), early, "job")
    }

    #[tokio::test]
    async fn alerts_that_are_too_large_go_out_without_their_evidence() {
        let broker = EmbeddedBroker::start().expect("embedded broker");
        let sink = topic(&broker);
        let records = [record("a", 10, 10), record("b", LIMIT, 10), record("c", 2 * LIMIT, 10)];
        sink.publish(&records, "job/i/0/1", 1).await.expect("published");
        let error = sink.publish(&[record("d", 10, LIMIT)], "job/i/0/2", 2).await.expect_err("no evidence helps");
        assert!(error.to_string().contains("key `d`"), "{error}");
    }

    #[tokio::test]
    async fn early_alerts_go_out_without_a_transaction_unless_one_is_too_large() {
        let broker = EmbeddedBroker::start().expect("embedded broker");
        let sink = topic(&broker);
        sink.publish_early(&[record("a", 10, 10), record("b", 10, 10)]).await.expect("published");
        assert_eq!(sink.last_marker().await.expect("read"), None, "nothing is remembered of them");
        sink.publish_early(&[record("c", LIMIT, 10)]).await.expect_err("it is too large");
        sink.publish_early(&[record("d", 10, 10)]).await.expect("the next ones are published");
    }

    #[test]
    fn messages_as_large_as_the_refused_one_are_shortened() {
        let records = [record("a", 1_000, 10), record("a", 2_000, 10), record("b", 1_900, 10), record("c", 2_100, 10)];
        let message = |record: &AlertRecord| AlertMessage {
            key: record.fingerprint.clone(),
            headers: Vec::new(),
            payload: alerting::payload(record),
        };
        let whole: Vec<AlertMessage> = records.iter().map(message).collect();
        let mut messages = whole.clone();
        let bytes = whole[1].payload.len();
        let refused = |bytes| TooLarge { topic: "alerts".to_owned(), key: "a".to_owned(), bytes };
        let mut bound_bytes = usize::MAX;
        assert!(leave_evidence_out(&mut messages, &records, &refused(bytes), &mut bound_bytes));
        assert_eq!(bound_bytes, bytes);
        assert_eq!((&messages[0], &messages[2]), (&whole[0], &whole[2]));
        for k in [1, 3] {
            assert_eq!(messages[k].payload, alerting::payload_without_evidence(&records[k]));
        }
        let mut next = messages.clone();
        let refused_next = TooLarge { key: "b".to_owned(), ..refused(whole[2].payload.len()) };
        assert!(leave_evidence_out(&mut next, &records, &refused_next, &mut bound_bytes));
        assert_eq!(bound_bytes, bytes / 2, "the bound falls by half at least");
        assert_eq!(next[2].payload, alerting::payload_without_evidence(&records[2]));
        let bytes = messages[1].payload.len();
        let more = leave_evidence_out(&mut messages, &records, &refused(bytes), &mut bound_bytes);
        assert!(!more, "there is nothing more to leave out");
    }
}
