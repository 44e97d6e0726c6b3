//! One Delta table: loading its log, creating it, letting its schema grow, and committing to it.
//!
//! All commits of this process to a table go through one lock, so that in-process writers (the appender, compaction)
//! never race; against other processes a commit is a put-if-absent of the next version. When that version exists, its
//! lines are applied first, and with them its transactions, metadata and protocol, before the next number is tried: a
//! commit is therefore always checked against the very state it follows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::log::{Applied, Change, LiveFile, TableLog, commit_path, creation_bytes, is_own};
use super::schema::{EVENT_DATE, columns_to_add, delta_field, delta_schema, table_schema};
use super::write::Layout;
use super::{Committed, TableSpec};
use crate::error::{Error, Result};
use crate::store::{ObjectRoot, Put};

/// Versions of other writers that one commit follows before it gives up.
const COMMIT_TRIES: u32 = 100;
/// After so long without a look at the log it is loaded anew: expired log objects may be gone, and a put below a
/// cleaned-up version would succeed and be lost.
const FOLLOW_AGE_MAX: Duration = Duration::from_secs(3600);
const TIME_COLUMN: &str = "wattline.timeColumn";
/// Every table that this program makes has it, if only empty.
pub(super) const SORT_BY: &str = "wattline.sortBy";

/// A table of the archive; its state is loaded on first use.
pub(super) struct Table {
    pub(super) name: String,
    pub(super) root: ObjectRoot,
    pub(super) log_store: LogStoreRef,
    state: Mutex<Option<Loaded>>,
    pub(super) vacuumed: std::sync::Mutex<Option<Instant>>,
}

struct Loaded {
    log: TableLog,
    looked: Instant,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn new(archive: &ObjectRoot, name: &str) -> Self {
        let root = archive.child(name);
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(root.store(), root.prefix().clone()));
        // Not by URL scheme: the library knows no S3 by itself, and only this store's puts are durable on disk.
        let log_store = default_logstore(prefixed, root.store(), root.url(), &StorageConfig::default());
        Self { name: name.to_owned(), root, log_store, state: Mutex::new(None), vacuumed: std::sync::Mutex::new(None) }
    }

    /// The newest version as the Delta library sees it, for scans, checkpoints and clean-up.
    pub(super) async fn delta(&self) -> Result<DeltaTable> {
        let mut table = DeltaTable::new(Arc::clone(&self.log_store));
        table.load().await.map_err(|source| self.failed("load its log", source))?;
        Ok(table)
    }

    pub(super) async fn exists(&self) -> Result<bool> {
        let found = self.log_store.is_delta_table_location().await;
        found.map_err(|source| self.failed("look for its log", source))
    }

    /// Runs `read` on the newest state; `None` if there is no such table.
    pub(super) async fn current<T>(&self, read: impl FnOnce(&mut TableLog) -> T) -> Result<Option<T>> {
        let mut guard = self.state.lock().await;
        if !self.refresh(&mut guard).await? {
            return Ok(None);
        }
        Ok(guard.as_mut().map(|loaded| read(&mut loaded.log)))
    }

    /// Creates the table, or lets its schema grow by the columns that `spec` adds.
    pub(super) async fn ensure(&self, spec: &TableSpec) -> Result<()> {
        let layout = Arc::new(layout_of(spec)?);
        let mut guard = self.state.lock().await;
        if !self.refresh(&mut guard).await? {
            self.create(spec, &layout).await?;
            self.refresh(&mut guard).await?;
        }
        for _ in 0..COMMIT_TRIES {
            let Some(loaded) = guard.as_mut() else { break };
            let have = &loaded.log.layout;
            if have.time_column.is_some() != layout.time_column.is_some() {
                let detail = "its partitioning differs: name another table, or move the old one away".to_owned();
                return Err(Error::TableForeign { table: self.name.clone(), detail });
            }
            let missing = columns_to_add(&self.name, &have.schema, &layout.schema)?;
            if missing.is_empty() {
                let schema = Arc::clone(&have.schema);
                let (time_column, sort_by) = (layout.time_column.clone(), layout.sort_by.clone());
                loaded.log.layout = Arc::new(Layout { schema, time_column, sort_by });
                return Ok(());
            }
            let metadata = with_columns(&self.name, &loaded.log.metadata, missing.iter().map(delta_field).collect())?;
            let change = Change {
                operation: "ADD COLUMN",
                adds: &[],
                removes: &[],
                data_change: true,
                txn: None,
                metadata: Some(&metadata),
            };
            self.try_commit(&mut guard, &change, &uuid::Uuid::new_v4().to_string()).await?;
            self.refresh(&mut guard).await?;
        }
        Err(Error::CommitContended { table: self.name.clone(), attempts: COMMIT_TRIES })
    }

    /// Version 0. Another process may be faster: then its table is taken and compared.
    async fn create(&self, spec: &TableSpec, layout: &Layout) -> Result<()> {
        let now_ms = now_ms();
        let dated = layout.time_column.is_some();
        let mut configuration = json!({
            "delta.checkpointInterval": "50",
            "delta.logRetentionDuration": "interval 7 days",
            "delta.deletedFileRetentionDuration": "interval 7 days",
        });
        configuration[SORT_BY] = json!(layout.sort_by.join(","));
        if let Some(time_column) = &layout.time_column {
            configuration[TIME_COLUMN] = json!(time_column);
        }
        let partition_columns: &[&str] = if dated { &[EVENT_DATE] } else { &[] };
        let metadata = json!({
            "id": uuid::Uuid::new_v4().to_string(),
            "name": spec.name,
            "description": spec.description,
            "format": { "provider": "parquet", "options": {} },
            "schemaString": delta_schema(&layout.schema, dated).to_string(),
            "partitionColumns": partition_columns,
            "configuration": configuration,
            "createdTime": now_ms,
        });
        let bytes = creation_bytes(&metadata, &uuid::Uuid::new_v4().to_string(), now_ms);
        self.root.put_if_absent(&commit_path(0), bytes.into()).await.map(|_| ())
    }

    /// Commits `change` on the newest version, once: see [`Archive::commit`](super::Archive::commit).
    pub(super) async fn commit(&self, change: &Change<'_>) -> Result<Committed> {
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut guard = self.state.lock().await;
        self.require(&mut guard).await?;
        for _ in 0..COMMIT_TRIES {
            if let Some((app_id, version)) = change.txn
                && self.txn_of(&mut guard, app_id).await? >= Some(version)
            {
                return Ok(Committed::AlreadyThere);
            }
            if let Some(table_version) = self.try_commit(&mut guard, change, &nonce).await? {
                return Ok(Committed::Done { table_version });
            }
        }
        Err(Error::CommitContended { table: self.name.clone(), attempts: COMMIT_TRIES })
    }

    /// The last transaction of `app_id` at the newest version.
    pub(super) async fn txn_version(&self, app_id: &str) -> Result<Option<i64>> {
        let mut guard = self.state.lock().await;
        self.require(&mut guard).await?;
        self.refresh(&mut guard).await?;
        self.txn_of(&mut guard, app_id).await
    }

    /// One try at the next version; `None` if another writer took it, whose lines are then applied.
    async fn try_commit(&self, guard: &mut Guard<'_>, change: &Change<'_>, nonce: &str) -> Result<Option<u64>> {
        let Some(loaded) = guard.as_mut() else { return Err(self.unknown()) };
        let version = loaded.log.version + 1;
        let bytes = Bytes::from(loaded.log.commit_bytes(&self.name, change, nonce, now_ms())?);
        let path = commit_path(version);
        let outcome = match self.root.put_if_absent(&path, bytes.clone()).await? {
            Put::Created => Some((version, bytes)),
            Put::Exists => {
                self.root.get(&path).await?.filter(|found| is_own(found, nonce)).map(|found| (version, found))
            }
        };
        match outcome {
            Some((version, bytes)) => {
                self.follow(guard, version, &bytes).await?;
                Ok(Some(version))
            }
            None => {
                self.refresh(guard).await?;
                Ok(None)
            }
        }
    }

    /// Brings the state to the newest version; false if there is no table.
    async fn refresh(&self, guard: &mut Guard<'_>) -> Result<bool> {
        let fresh = guard.as_ref().is_some_and(|loaded| loaded.looked.elapsed() < FOLLOW_AGE_MAX);
        if !fresh {
            **guard = self.load(guard.take()).await?;
        }
        while let Some(next) = guard.as_ref().map(|loaded| loaded.log.version + 1) {
            match self.root.get(&commit_path(next)).await? {
                Some(bytes) => self.follow(guard, next, &bytes).await?,
                None => break,
            }
        }
        if let Some(loaded) = guard.as_mut() {
            loaded.looked = Instant::now();
        }
        Ok(guard.is_some())
    }

    async fn require(&self, guard: &mut Guard<'_>) -> Result<()> {
        let loaded = guard.as_ref().is_some_and(|loaded| loaded.looked.elapsed() < FOLLOW_AGE_MAX);
        if loaded || self.refresh(guard).await? { Ok(()) } else { Err(self.unknown()) }
    }

    async fn follow(&self, guard: &mut Guard<'_>, version: u64, bytes: &[u8]) -> Result<()> {
        let Some(loaded) = guard.as_mut() else { return Err(self.unknown()) };
        let applied = loaded.log.apply(&self.name, version, bytes)?;
        loaded.looked = Instant::now();
        if applied == Applied::Reload {
            **guard = self.load(guard.take()).await?;
        }
        Ok(())
    }

    /// The table at its newest version; the layout in `before` (time and sort columns of this run) is kept.
    async fn load(&self, before: Option<Loaded>) -> Result<Option<Loaded>> {
        if !self.exists().await? {
            return Ok(None);
        }
        let table = self.delta().await?;
        let state = table.snapshot().map_err(|source| self.failed("load its log", source))?;
        let protocol = state.protocol();
        if protocol.min_reader_version() > 1 || protocol.min_writer_version() > 2 {
            let detail = format!(
                "it needs reader version {} and writer version {}, this program keeps tables at 1 and 2: write to another \
                 table, or drop the features that raised them",
                protocol.min_reader_version(),
                protocol.min_writer_version()
            );
            return Err(Error::TableForeign { table: self.name.clone(), detail });
        }
        let metadata = serde_json::to_value(state.metadata()).map_err(|source| self.foreign(&source.to_string()))?;
        let mut layout = self.layout_in(&metadata, &state.snapshot().arrow_schema())?;
        if let Some(before) = &before {
            layout.sort_by.clone_from(&before.log.layout.sort_by);
        }
        let files: BTreeMap<String, LiveFile> = state
            .log_data()
            .iter()
            .map(|file| {
                let live = LiveFile {
                    size_bytes: u64::try_from(file.size()).unwrap_or_default(),
                    rows: file.num_records().and_then(|rows| u64::try_from(rows).ok()),
                    event_date: file.partition_values_map().remove(EVENT_DATE).flatten(),
                    modified_ms: file.modification_time(),
                    unsorted: false,
                };
                (file.path().into_owned(), live)
            })
            .collect();
        let log =
            TableLog { version: state.version(), layout: Arc::new(layout), metadata, files, txns: HashMap::new() };
        Ok(Some(Loaded { log, looked: Instant::now() }))
    }

    fn layout_in(&self, metadata: &Value, schema: &arrow::datatypes::Schema) -> Result<Layout> {
        let setting = |key: &str| metadata["configuration"][key].as_str().filter(|text| !text.is_empty());
        let partitions: Vec<&str> =
            metadata["partitionColumns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let time_column = match (partitions.as_slice(), setting(TIME_COLUMN)) {
            ([EVENT_DATE], Some(column)) => Some(column.to_owned()),
            ([], _) => None,
            _ => return Err(self.foreign("its partitioning is not by event date: name another table")),
        };
        let fields: Vec<_> =
            schema.fields().iter().filter(|field| !partitions.contains(&field.name().as_str())).cloned().collect();
        let data = table_schema(&self.name, &arrow::datatypes::Schema::new(fields))?;
        let sort_by = setting(SORT_BY).map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default();
        Ok(Layout { schema: data, time_column, sort_by })
    }

    /// Scanning the log for one application costs milliseconds, so it is done once; commits keep the answer current.
    async fn txn_of(&self, guard: &mut Guard<'_>, app_id: &str) -> Result<Option<i64>> {
        let Some(loaded) = guard.as_mut() else { return Err(self.unknown()) };
        if let Some(known) = loaded.log.txns.get(app_id) {
            return Ok(*known);
        }
        let mut table = DeltaTable::new(Arc::clone(&self.log_store));
        let scanned = async {
            table.load_version(loaded.log.version).await?;
            table.snapshot()?.transaction_version(self.log_store.as_ref(), app_id).await
        };
        let found = scanned.await.map_err(|source| self.failed("read its transactions", source))?;
        loaded.log.txns.insert(app_id.to_owned(), found);
        Ok(found)
    }

    pub(super) fn failed(&self, operation: &'static str, source: DeltaTableError) -> Error {
        Error::Delta { table: self.name.clone(), operation, source: Box::new(source) }
    }

    pub(super) fn unknown(&self) -> Error {
        let archive = self.root.location().trim_end_matches(&self.name).trim_end_matches('/').to_owned();
        Error::UnknownTable { archive, table: self.name.clone() }
    }

    fn foreign(&self, detail: &str) -> Error {
        Error::TableForeign { table: self.name.clone(), detail: detail.to_owned() }
    }
}

type Guard<'a> = MutexGuard<'a, Option<Loaded>>;

fn layout_of(spec: &TableSpec) -> Result<Layout> {
    let refused = |column: &str, detail: &str| Error::TableSettings {
        table: spec.name.clone(),
        column: column.to_owned(),
        detail: detail.to_owned(),
    };
    let schema = table_schema(&spec.name, &spec.schema)?;
    if let Some(time_column) = &spec.time_column {
        match schema.field_with_name(time_column).map(|field| field.data_type().clone()) {
            Ok(arrow::datatypes::DataType::Timestamp(_, _)) => {}
            Ok(other) => {
                return Err(refused(
                    time_column,
                    &format!("the time column must be a timestamp, not {other}: cast it"),
                ));
            }
            Err(_) => return Err(refused(time_column, "the time column is not among the columns: select it")),
        }
    }
    for column in &spec.sort_by {
        match schema.field_with_name(column) {
            Ok(field) if !field.data_type().is_nested() => {}
            Ok(_) => {
                return Err(refused(column, "rows cannot be sorted by a nested column: leave it out of `sort_by`"));
            }
            Err(_) => return Err(refused(column, "the sort column is not among the columns: select it")),
        }
    }
    Ok(Layout { schema, time_column: spec.time_column.clone(), sort_by: spec.sort_by.clone() })
}

/// The `metaData` action with `added` columns before the partition column.
fn with_columns(table: &str, metadata: &Value, added: Vec<Value>) -> Result<Value> {
    let broken = || Error::TableForeign {
        table: table.to_owned(),
        detail: "its schema in the log is not readable: restore the log".to_owned(),
    };
    let text = metadata["schemaString"].as_str().ok_or_else(broken)?;
    let mut schema: Value = serde_json::from_str(text).map_err(|_unreadable| broken())?;
    let fields = schema["fields"].as_array_mut().ok_or_else(broken)?;
    let end = fields.iter().position(|field| field["name"] == EVENT_DATE).unwrap_or(fields.len());
    fields.splice(end..end, added);
    let mut changed = metadata.clone();
    changed["schemaString"] = json!(schema.to_string());
    Ok(changed)
}

/// Wall clock in milliseconds since the Unix epoch, for the log's own time stamps.
#[expect(
    clippy::disallowed_methods,
    reason = "Delta wants wall times in its log; only the age of garbage is decided by them"
)]
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
