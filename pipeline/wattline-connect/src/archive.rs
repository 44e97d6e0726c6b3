//! The archive: Delta tables of events and results, written so that any engine reads them.
//!
//! One folder per table below the archive's root; Delta reader version 1, writer version 2; the type map stands in
//! `archive/schema.rs`. A dated table is partitioned by `event_date`, the UTC date of its time column; rows within
//! a file are sorted. Writing has two steps, because the commit point of an epoch lies between them:
//!
//! ```text
//! batches ── write_files ──▶ data files in the store, AddFile records       (invisible garbage until named)
//!                                    │  the epoch's manifest names the AddFiles: the commit point
//! AddFiles ── commit(app_id, n) ──▶ one Delta version with txn(app_id, n)   (idempotent roll-forward)
//! ```
//!
//! `commit` may be repeated at will: a transaction that the table has is [`Committed::AlreadyThere`]. Versions of one
//! `app_id` must be committed in ascending order. Everything here wants a multi-threaded tokio runtime, because the
//! Delta library blocks in place when it reads a log.
//!
//! Map of the folder: `schema` types, `write` sort and encode, `stats` file statistics, `log` the state and bytes
//! of commits, `table` the protocol of commits, `maintain` and `merge` background work, `take_out` taking rows out, `read` looking at
//! tables, `check` whether their files are what the log says, `pin` a table as a backup copies it.

mod check;
mod log;
mod maintain;
mod merge;
mod pin;
mod read;
mod schema;
mod stats;
mod table;
mod take_out;
#[cfg(test)]
mod tests;
mod write;

pub use check::FilesReport;
pub use maintain::{MaintainPolicy, MaintainReport};
pub use pin::{ChainPin, PinnedTable};
pub use read::TableInfo;
pub(crate) use schema::{conform, table_schema};
pub use take_out::IsOut;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::ObjectRoot;
use log::Change;
use table::{Table, now_ms};
use write::{Encoded, Layout, encode_sorted};

/// Files of one table that are put at the same time: a put mostly waits for the disk or the network.
const FILES_STORED_AT_ONCE: usize = 16;
const DAY_US: i64 = 86_400_000_000;

/// What a table is to be.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Name of the table and of its folder: letters, digits, `_` and `-`, beginning with a letter or digit.
    pub name: String,
    /// Columns; types are mapped as `archive/schema.rs` documents. Field metadata (units, confidentiality tags) is kept.
    pub schema: SchemaRef,
    /// Timestamp column whose UTC date partitions the table as `event_date`; `None` for an unpartitioned table.
    pub time_column: Option<String>,
    /// Columns by which rows are sorted within a file, for example entity and time.
    pub sort_by: Vec<String>,
    /// One sentence for people who find the table.
    pub description: String,
}

/// A data file that stands in the store and may be named by one commit. Serialisable, to travel in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddFile {
    /// Path relative to the table, `/`-separated.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// The file's partition as `YYYY-MM-DD`; `None` in an undated table and for rows without a time.
    pub event_date: Option<String>,
    /// Rows in the file.
    pub rows: u64,
    /// When it was written, milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Delta statistics as JSON text: `numRecords`, `minValues`, `maxValues`, `nullCount`.
    pub stats: String,
}

/// What makes the names of new data files unique: `part-<chain>-<epoch>-<i>-<nonce>.parquet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNaming {
    /// The chain whose manifest will name the files; anything but letters, digits, `_` and `-` becomes `_`.
    pub chain: String,
    /// Number of the epoch.
    pub epoch: u64,
    /// Which call of that epoch it is.
    pub part: u32,
    /// Nonce of the owner; a successor that writes the same epoch has another one.
    pub nonce: String,
}

/// What came of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The files are in the table now.
    Done {
        /// The Delta version that names them.
        table_version: u64,
    },
    /// The table has this transaction, or a later one of the same application; nothing was done.
    AlreadyThere,
}

/// The tables below one root. Cheap to clone; clones share state and locks.
#[derive(Debug, Clone)]
pub struct Archive {
    root: ObjectRoot,
    tables: Arc<Mutex<BTreeMap<String, Arc<Table>>>>,
}

impl Archive {
    /// Names an archive without touching it. Call [`ObjectRoot::probe`] before the first write.
    #[must_use]
    pub fn open(root: ObjectRoot) -> Self {
        Self { root, tables: Arc::default() }
    }

    /// Where the archive lives.
    #[must_use]
    pub fn root(&self) -> &ObjectRoot {
        &self.root
    }

    /// Creates the table, or makes sure that rows of `spec.schema` fit into the one that exists.
    ///
    /// Columns that are new are added (null in older files); columns that the table has and the spec lacks stay.
    ///
    /// # Errors
    /// [`Error::TableSettings`] names the column that cannot be stored or has another type;
    /// [`Error::TableForeign`] if the table is partitioned otherwise or needs a newer protocol.
    pub async fn ensure_table(&self, spec: TableSpec) -> Result<()> {
        self.table(&spec.name)?.ensure(&spec).await
    }

    /// Sorts and writes `batches` into new data files, one or more per UTC date; they are durable on return.
    ///
    /// The batches may lack columns of the table (null) and use other types of the type map. The work is done off the
    /// async threads; memory beyond the batches is bounded by the encoded files under way (each at most 128 MB) and the
    /// sort keys.
    ///
    /// # Errors
    /// [`Error::TableSettings`] for a column that the table does not have, [`Error::UnknownTable`] before
    /// [`Self::ensure_table`], [`Error::Store`] when the store does not answer (files written so far are garbage).
    pub async fn write_files(
        &self,
        table: &str,
        batches: Vec<RecordBatch>,
        naming: &FileNaming,
    ) -> Result<Vec<AddFile>> {
        let table = self.table(table)?;
        let layout = table.current(|log| Arc::clone(&log.layout)).await?.ok_or_else(|| table.unknown())?;
        let (to_store, encoded) = tokio::sync::mpsc::channel::<Encoded>(1);
        let (name, encoder_layout) = (table.name.clone(), Arc::clone(&layout));
        let encoder = tokio::task::spawn_blocking(move || {
            let conformed: Result<Vec<RecordBatch>> =
                batches.iter().map(|batch| conform(&name, &encoder_layout.schema, batch)).collect();
            drop(batches);
            encode_sorted(&encoder_layout, &conformed?, |file| to_store.blocking_send(file).is_ok())
        });
        let received = futures::stream::unfold(encoded, |mut encoded| async { Some((encoded.recv().await?, encoded)) });
        let prefix = format!("{}-{}-{}", sanitized(&naming.chain), naming.epoch, naming.part);
        let (table, layout, prefix, nonce) = (&table, &layout, &prefix, sanitized(&naming.nonce));
        let stored = received.enumerate().map(|(number, file)| {
            let label = format!("{prefix}-{number}-{nonce}");
            async move { store_file(table, layout, file, &label).await }
        });
        let files = stored.buffered(FILES_STORED_AT_ONCE).try_collect().await?;
        encoder.await.map_err(|source| Error::Stopped { work: "encode data files", source })??;
        Ok(files)
    }

    /// Makes `adds` part of the table and takes `removes` (paths) out, in one Delta version carrying
    /// `txn(app_id, version)`. Idempotent; see the module's page.
    ///
    /// # Errors
    /// [`Error::Store`] leaves the outcome unknown: call again. [`Error::FileGone`] if a file to be removed is not in
    /// the table; [`Error::CommitContended`] after a hundred versions of other writers in a row.
    pub async fn commit(
        &self,
        table: &str,
        adds: &[AddFile],
        removes: &[String],
        app_id: &str,
        version: i64,
    ) -> Result<Committed> {
        let operation = if removes.is_empty() { "WRITE" } else { "REPLACE FILES" };
        let txn = Some((app_id, version));
        let change = Change { operation, adds, removes, data_change: true, txn, metadata: None };
        self.table(table)?.commit(&change).await
    }

    /// The highest transaction version of `app_id` in the table; `None` if it never committed.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], or the store's answer.
    pub async fn txn_version(&self, table: &str, app_id: &str) -> Result<Option<i64>> {
        self.table(table)?.txn_version(app_id).await
    }

    fn table(&self, name: &str) -> Result<Arc<Table>> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
            return Err(Error::TableForeign {
                table: name.to_owned(),
                detail: "a table's name is made of letters, digits, `_` and `-` and begins with a letter or digit"
                    .to_owned(),
            });
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.entry(name.to_owned()).or_insert_with(|| Arc::new(Table::new(&self.root, name)));
        Ok(Arc::clone(table))
    }
}

/// Puts one encoded file into the store and describes it.
async fn store_file(table: &Table, layout: &Layout, file: Encoded, label: &str) -> Result<AddFile> {
    let folder = match (&file.event_date, &layout.time_column) {
        (Some(date), _) => format!("{}={date}/", schema::EVENT_DATE),
        (None, Some(_)) => format!("{}=__HIVE_DEFAULT_PARTITION__/", schema::EVENT_DATE),
        (None, None) => String::new(),
    };
    let also: Vec<&str> =
        layout.sort_by.iter().chain(&layout.time_column).map(String::as_str).chain(["_lateness_ms"]).collect();
    let stats = stats::delta_stats(&layout.schema, &file.metadata, &also)?;
    let path = format!("{folder}part-{label}.parquet");
    let size_bytes = file.bytes.len() as u64;
    table.root.put(&path, file.bytes).await?;
    let rows = u64::try_from(file.metadata.file_metadata().num_rows()).unwrap_or_default();
    Ok(AddFile { path, size_bytes, event_date: file.event_date, rows, modified_ms: now_ms(), stats })
}

/// Keeps file names free of anything that a URL or a shell would have to escape.
fn sanitized(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}
