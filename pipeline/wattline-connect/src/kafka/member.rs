//! A consumer that is a member of a group, and how it ends.
//!
//! The binding closes a consumer that is dropped. One whose client has come to a fatal error, as when another process has taken its
//! place, cannot be closed and need not be; the binding then logs an error that says just that. It would be the last line that an
//! operator reads, below the one that tells him what to do. So such a consumer is dropped where nobody listens.

use std::fmt;
use std::ops::Deref;

use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::subscriber::{NoSubscriber, with_default};

use super::context::SourceContext;

/// A consumer that is closed when it is dropped, without a word if it cannot be.
pub(crate) struct Member(Option<BaseConsumer<SourceContext>>);

impl Member {
    pub(crate) fn new(consumer: BaseConsumer<SourceContext>) -> Self {
        Self(Some(consumer))
    }
}

impl Deref for Member {
    type Target = BaseConsumer<SourceContext>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("the consumer is there until it is dropped")
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").finish_non_exhaustive()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(consumer) = self.0.take() else { return };
        if consumer.client().fatal_error().is_some() {
            with_default(NoSubscriber::default(), || drop(consumer));
        }
    }
}
