//! The schemas of a registry, for decoders that cannot go on without them.
//!
//! A record that names a schema which nobody can show now is no bad record: the worker that has it waits, its queue fills, and the source is
//! held back, as with any sink that is away. The message of the status line says what is waited for.
//!
//! A schema that was shown once is never asked for again, by no process of the job: it is kept below the job's folder before the first
//! record is read by it, by the registry's address and its number. So what was accepted can be read again, whatever the registry has by then, and also
//! while it is away. A schema that the registry does not have is asked for again by the next process; which records were refused for it is in the links.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use wattline_connect::schema_registry::{Found, SchemaRegistry, SchemaRegistryConfig};
use wattline_connect::store::ObjectRoot;
use wattline_decode::{SchemaName, SchemaUnknown, WriterSchemas};
use wattline_runtime::progress::Progress;

use crate::adapt::archive::JOBS_FOLDER;
use crate::config;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether the job is to end.
const LOOK: Duration = Duration::from_millis(100);

/// How long an answer is waited for.
#[derive(Debug)]
pub(crate) enum Patience {
    /// Until the job is to end.
    Job { progress: Arc<Progress>, shutdown: watch::Receiver<bool> },
    /// One answer.
    None,
}

/// A registry that is asked until it answers. Not from a thread of the tasks.
pub(crate) struct RegistrySchemas {
    registry: SchemaRegistry,
    /// Where schemas are kept.
    kept: ObjectRoot,
    handle: Handle,
    patience: Patience,
    known: Mutex<HashMap<u32, Arc<str>>>,
}

impl fmt::Debug for RegistrySchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySchemas").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// The registry of a job that runs, if it has one; `archive` is the root of its archive.
pub(crate) fn of_job(
    config: &config::Config,
    archive: &ObjectRoot,
    progress: &Arc<Progress>,
    shutdown: &watch::Receiver<bool>,
) -> Result<Option<Arc<dyn WriterSchemas>>> {
    open(config, archive, Patience::Job { progress: Arc::clone(progress), shutdown: shutdown.clone() })
}

/// Opens the registry of a job, if it has one. Nothing is asked yet.
pub(crate) fn open(
    config: &config::Config,
    archive: &ObjectRoot,
    patience: Patience,
) -> Result<Option<Arc<dyn WriterSchemas>>> {
    let Some(config::SchemaRegistry { url, username, password }) = &config.schema_registry else { return Ok(None) };
    let reveal = |value: &Option<config::Scalar>| value.as_ref().map(config::Scalar::reveal).transpose();
    let login = reveal(username).and_then(|name| Ok(name.zip(reveal(password)?)));
    let login = login.map_err(|why| anyhow!("[schema_registry]: {why}"))?;
    let registry = SchemaRegistry::new(SchemaRegistryConfig { url: url.get_ref().clone(), login })?;
    let kept = archive.child(JOBS_FOLDER).child(config.job.get_ref()).child("schemas").child(&folder_of(url.get_ref()));
    Ok(Some(Arc::new(RegistrySchemas::new(registry, kept, patience))))
}

/// An address as the name of a folder: another registry gives other schemas the same numbers.
fn folder_of(url: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    url.trim_end_matches('/').chars().map(|c| if is_plain(c) { c.to_ascii_lowercase() } else { '-' }).collect()
}

impl RegistrySchemas {
    /// Asks with the runtime of the caller.
    fn new(registry: SchemaRegistry, kept: ObjectRoot, patience: Patience) -> Self {
        Self { registry, kept, handle: Handle::current(), patience, known: Mutex::default() }
    }

    async fn ask(&self, number: u32) -> std::result::Result<Found, String> {
        let mut wait = FIRST_WAIT;
        loop {
            let error = match self.ask_once(number).await {
                Ok(found) => break Ok(found),
                Err(error) => error.to_string(),
            };
            let Patience::Job { progress, shutdown } = &self.patience else { break Err(error) };
            tracing::warn!(error, wait_ms = wait.as_millis(), "asking for schema {number} failed, trying again");
            progress.note_trouble(Some(format!("asking for schema {number}: {error}")));
            let mut waited = Duration::ZERO;
            while waited < wait {
                if *shutdown.borrow() {
                    return Err(error);
                }
                tokio::time::sleep(LOOK).await;
                waited += LOOK;
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn ask_once(&self, number: u32) -> wattline_connect::Result<Found> {
        let path = format!("{number}.avsc");
        if let Some(text) = self.kept.get(&path).await?.and_then(|kept| String::from_utf8(kept.to_vec()).ok()) {
            return Ok(Found::Avro(text));
        }
        let found = self.registry.schema(number).await?;
        if let Found::Avro(text) = &found {
            self.kept.put_if_absent(&path, Bytes::from(text.clone())).await?;
        }
        Ok(found)
    }
}

impl WriterSchemas for RegistrySchemas {
    #[expect(
        clippy::disallowed_methods,
        reason = "decoders have threads of their own, which have nothing to do without the schema"
    )]
    fn schema(&self, name: SchemaName) -> std::result::Result<Option<Arc<str>>, SchemaUnknown> {
        let SchemaName::Number(number) = name else { return Ok(None) };
        // Whoever else wants one waits for the same registry.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = known.get(&number) {
            return Ok(Some(Arc::clone(text)));
        }
        match self.handle.block_on(self.ask(number)) {
            Ok(Found::Avro(text)) => Ok(Some(Arc::clone(known.entry(number).or_insert(text.into())))),
            // As a text that is no schema, so that its records say why they are refused.
            Ok(Found::Other(kind)) => Ok(Some(format!("{{\"type\":\"a schema of {kind}\"}}").into())),
            Ok(Found::Nothing) => Ok(None),
            Err(reason) => Err(SchemaUnknown { schema: name, reason }),
        }
    }
}
