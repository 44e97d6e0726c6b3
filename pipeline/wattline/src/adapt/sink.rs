//! The alert topic behind the port of the runtime.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wattline_connect::kafka::alerts::{AlertMessage, AlertPublisher, Outcome};
use wattline_core::alert::AlertRecord;
use wattline_core::error::{Kind, Retry};
use wattline_runtime::{Error, Result, alerting, port};

use super::port_error;

/// Publishes alerts in transactions; the client blocks, so it works on threads for blocking calls.
pub(crate) struct AlertTopic {
    publisher: Arc<Mutex<AlertPublisher>>,
    job: String,
}

impl std::fmt::Debug for AlertTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlertTopic").field("job", &self.job).finish_non_exhaustive()
    }
}

impl AlertTopic {
    pub(crate) fn new(publisher: AlertPublisher, job: &str) -> Self {
        Self { publisher: Arc::new(Mutex::new(publisher)), job: job.to_owned() }
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut AlertPublisher) -> wattline_connect::Result<T> + Send + 'static,
    ) -> Result<T> {
        let publisher = Arc::clone(&self.publisher);
        let joined =
            tokio::task::spawn_blocking(move || call(&mut publisher.lock().unwrap_or_else(PoisonError::into_inner)));
        match joined.await {
            Ok(outcome) => outcome.map_err(port_error),
            Err(panicked) => Err(Error::Port {
                what: "the alert publisher panicked".to_owned(),
                kind: Kind::Internal,
                retry: Retry::Never,
                source: Box::new(panicked),
            }),
        }
    }
}

#[async_trait]
impl port::AlertSink for AlertTopic {
    async fn publish(&self, records: &[AlertRecord], marker: &str, n: u64) -> Result<()> {
        let messages: Vec<AlertMessage> = records
            .iter()
            .map(|record| AlertMessage {
                key: record.fingerprint.clone(),
                headers: alerting::headers(record, &self.job),
                payload: alerting::payload(record),
            })
            .collect();
        let wanted = marker.to_owned();
        self.call(move |publisher| {
            loop {
                match publisher.publish(&messages, &wanted, n)? {
                    Outcome::Published => return Ok(()),
                    // Nobody knows whether the transaction was committed: the marker does.
                    Outcome::Unknown if publisher.last_marker()?.as_deref() == Some(wanted.as_str()) => return Ok(()),
                    Outcome::Unknown => {}
                }
            }
        })
        .await
    }

    async fn last_marker(&self) -> Result<Option<String>> {
        self.call(AlertPublisher::last_marker).await
    }
}
