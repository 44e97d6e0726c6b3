//! Patience with the outside: an operation that may succeed later is tried again, visibly and without end.
//!
//! Sinks come after the commit point or are the commit point itself, so giving up would only mean to start the
//! process again and do the same. While an operation waits, buffers fill, and the source is paused: that is the
//! whole backpressure.

use std::future::Future;
use std::time::Duration;

use wattline_core::error::Retry;

use crate::error::Result;
use crate::events::Retrying;
use crate::progress::Progress;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Runs an operation until it succeeds or fails for good.
pub(crate) async fn until_done<T, F, Fut>(what: &str, progress: &Progress, mut operation: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut wait = FIRST_WAIT;
    loop {
        match operation().await {
            Ok(done) => {
                if wait > FIRST_WAIT {
                    progress.note_trouble(None);
                }
                return Ok(done);
            }
            Err(error) if error.retry() == Retry::Backoff => {
                Retrying { what, error: &error, wait }.emit();
                progress.note_trouble(Some(format!("{what}: {error}")));
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            Err(error) => return Err(error),
        }
    }
}
