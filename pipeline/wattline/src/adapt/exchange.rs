//! The topic by which slots reach each other, behind the port of the runtime.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wattline_connect::kafka::exchange::ExchangeSender;
use wattline_core::error::{Kind, Retry};
use wattline_runtime::port::{ExchangeSink, SlotMessage};
use wattline_runtime::{Error, Result};

use super::port_error;

/// Sends to inboxes; the client blocks, so it works on threads for blocking calls.
#[derive(Debug)]
pub(crate) struct Inboxes(Arc<Mutex<ExchangeSender>>);

impl Inboxes {
    pub(crate) fn new(sender: ExchangeSender) -> Self {
        Self(Arc::new(Mutex::new(sender)))
    }
}

#[async_trait]
impl ExchangeSink for Inboxes {
    async fn send(&self, messages: &[SlotMessage]) -> Result<()> {
        let (sender, messages) = (Arc::clone(&self.0), messages.to_vec());
        let sent = tokio::task::spawn_blocking(move || {
            let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            sender.send(messages.iter().map(|message| (message.to, message.payload.as_ref())))
        });
        match sent.await {
            Ok(outcome) => outcome.map_err(port_error),
            Err(panicked) => Err(Error::Port {
                what: "telling the other slots panicked".to_owned(),
                kind: Kind::Internal,
                retry: Retry::Never,
                source: Box::new(panicked),
            }),
        }
    }
}
