//! The Delta log of one table as this program keeps it in memory, and the bytes of its commits.
//!
//! Appending through a full Delta writer re-reads the table's file list on every commit, which grows with the table.
//! Here the state that a commit depends on (version, metadata, live files, application transactions) is loaded once
//! and then moved forward by the very lines that are committed, ours or another writer's; a commit is one put of one
//! small object. Nothing in this file does I/O.
//!
//! A line that changes the protocol or the metadata is not interpreted: it asks for a fresh load ([`Applied::Reload`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::AddFile;
use super::schema::EVENT_DATE;
use super::write::Layout;
use crate::error::{Error, Result};

/// Who wrote a commit, for people who read the log.
const ENGINE: &str = concat!("wattline/", env!("CARGO_PKG_VERSION"));
/// Our mark in `commitInfo`, by which a writer recognises a commit whose acknowledgement was lost.
const NONCE: &str = "wattlineNonce";

/// One data file of the current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveFile {
    pub(super) size_bytes: u64,
    pub(super) rows: Option<u64>,
    pub(super) event_date: Option<String>,
    /// When it was written, milliseconds since the epoch.
    pub(super) modified_ms: i64,
    /// Another engine wrote it in an order of its own; merging sorted files leaves it alone.
    pub(super) unsorted: bool,
}

/// State of one table at one version.
#[derive(Debug)]
pub(super) struct TableLog {
    pub(super) version: u64,
    pub(super) layout: Arc<Layout>,
    /// The `metaData` action as it stands in the log.
    pub(super) metadata: Value,
    pub(super) files: BTreeMap<String, LiveFile>,
    /// Last transaction per application, as far as it was asked for or seen; `None` means asked and absent.
    pub(super) txns: HashMap<String, Option<i64>>,
}

/// What a commit does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) operation: &'static str,
    pub(super) adds: &'a [AddFile],
    pub(super) removes: &'a [String],
    /// False when rows only move between files.
    pub(super) data_change: bool,
    pub(super) txn: Option<(&'a str, i64)>,
    pub(super) metadata: Option<&'a Value>,
}

/// Whether lines could be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    Followed,
    /// The table's schema, settings or protocol changed: load it anew.
    Reload,
}

/// Name of the log object of `version`.
pub(super) fn commit_path(version: u64) -> String {
    format!("_delta_log/{version:020}.json")
}

/// Whether the commit in `bytes` carries `nonce`.
pub(super) fn is_own(bytes: &[u8], nonce: &str) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.any(|line| line.pointer(&format!("/commitInfo/{NONCE}")).and_then(Value::as_str) == Some(nonce))
}

impl TableLog {
    /// The lines of a commit on top of this state.
    ///
    /// # Errors
    /// [`Error::FileGone`] if a file to be removed is not live.
    pub(super) fn commit_bytes(&self, table: &str, change: &Change<'_>, nonce: &str, now_ms: i64) -> Result<Vec<u8>> {
        let dated = self.layout.time_column.is_some();
        let mut lines = vec![commit_info(change, nonce, now_ms)];
        lines.extend(
            change.txn.map(
                |(app_id, version)| json!({ "txn": { "appId": app_id, "version": version, "lastUpdated": now_ms } }),
            ),
        );
        lines.extend(change.metadata.map(|metadata| json!({ "metaData": metadata })));
        for path in change.removes {
            let file =
                self.files.get(path).ok_or_else(|| Error::FileGone { table: table.to_owned(), path: path.clone() })?;
            lines.push(json!({ "remove": {
                "path": path,
                "deletionTimestamp": now_ms,
                "dataChange": change.data_change,
                "extendedFileMetadata": true,
                "partitionValues": partition_values(dated, file.event_date.as_deref()),
                "size": file.size_bytes,
            }}));
        }
        for add in change.adds {
            lines.push(json!({ "add": {
                "path": add.path,
                "partitionValues": partition_values(dated, add.event_date.as_deref()),
                "size": add.size_bytes,
                "modificationTime": add.modified_ms,
                "dataChange": change.data_change,
                "stats": add.stats,
            }}));
        }
        Ok(join(&lines))
    }

    /// Moves this state to `version` by the lines of its commit.
    pub(super) fn apply(&mut self, table: &str, version: u64, bytes: &[u8]) -> Result<Applied> {
        let mut applied = Applied::Followed;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let line: Line = serde_json::from_slice(line).map_err(|source| unreadable(table, version, &source))?;
            if line.protocol.is_some() || line.metadata.is_some() {
                applied = Applied::Reload;
            }
            if let Some(txn) = line.txn {
                self.txns.insert(txn.app_id, Some(txn.version));
            }
            if let Some(remove) = line.remove {
                self.files.remove(&decoded(&remove.path));
            }
            if let Some(add) = line.add {
                self.files.insert(decoded(&add.path), add.live());
            }
        }
        self.version = version;
        Ok(applied)
    }
}

/// Application and version of all transactions in the lines of a commit.
pub(super) fn transactions(table: &str, version: u64, bytes: &[u8]) -> Result<Vec<(String, i64)>> {
    let mut found = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let line: Line = serde_json::from_slice(line).map_err(|source| unreadable(table, version, &source))?;
        found.extend(line.txn.map(|txn| (txn.app_id, txn.version)));
    }
    Ok(found)
}

/// The lines of a commit that adds nothing, and says of applications which version of theirs the table has.
pub(super) fn transactions_bytes(txns: &BTreeMap<String, i64>, nonce: &str, now_ms: i64) -> Vec<u8> {
    let change =
        Change { operation: "RESTORE", adds: &[], removes: &[], data_change: false, txn: None, metadata: None };
    let mut lines = vec![commit_info(&change, nonce, now_ms)];
    lines.extend(
        txns.iter()
            .map(|(app_id, version)| json!({ "txn": { "appId": app_id, "version": version, "lastUpdated": now_ms } })),
    );
    join(&lines)
}

/// The lines of the first commit of a table.
pub(super) fn creation_bytes(metadata: &Value, nonce: &str, now_ms: i64) -> Vec<u8> {
    let change =
        Change { operation: "CREATE TABLE", adds: &[], removes: &[], data_change: true, txn: None, metadata: None };
    join(&[
        commit_info(&change, nonce, now_ms),
        json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }),
        json!({ "metaData": metadata }),
    ])
}

fn commit_info(change: &Change<'_>, nonce: &str, now_ms: i64) -> Value {
    let mut info = json!({
        "timestamp": now_ms,
        "operation": change.operation,
        "operationParameters": {},
        "isBlindAppend": change.removes.is_empty() && change.metadata.is_none(),
        "engineInfo": ENGINE,
    });
    info[NONCE] = json!(nonce);
    if change.operation == "WRITE" {
        info["operationParameters"] = json!({ "mode": "Append" });
    }
    json!({ "commitInfo": info })
}

fn unreadable(table: &str, version: u64, source: &serde_json::Error) -> Error {
    let detail = format!("version {version} of its log is not readable: {source}: restore that object");
    Error::TableForeign { table: table.to_owned(), detail }
}

fn partition_values(dated: bool, event_date: Option<&str>) -> Value {
    let mut values = Map::new();
    if dated {
        values.insert(EVENT_DATE.to_owned(), event_date.map_or(Value::Null, |date| json!(date)));
    }
    Value::Object(values)
}

fn join(lines: &[Value]) -> Vec<u8> {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let mut bytes = lines.join("\n").into_bytes();
    bytes.push(b'\n');
    bytes
}

/// Paths in the log are URL-encoded; ours contain nothing to encode, other writers' may.
fn decoded(path: &str) -> String {
    Path::from_url_path(path).map_or_else(|_| path.to_owned(), |path| path.to_string())
}

#[derive(Deserialize)]
struct Line {
    add: Option<AddLine>,
    remove: Option<RemoveLine>,
    txn: Option<TxnLine>,
    #[serde(rename = "metaData")]
    metadata: Option<serde::de::IgnoredAny>,
    protocol: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AddLine {
    path: String,
    size: u64,
    #[serde(default)]
    partition_values: HashMap<String, Option<String>>,
    #[serde(default)]
    modification_time: i64,
    stats: Option<String>,
}

#[derive(Deserialize)]
struct RemoveLine {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TxnLine {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatsLine {
    num_records: Option<u64>,
}

impl AddLine {
    fn live(mut self) -> LiveFile {
        let stats = self.stats.as_deref().and_then(|stats| serde_json::from_str::<StatsLine>(stats).ok());
        LiveFile {
            size_bytes: self.size,
            rows: stats.and_then(|stats| stats.num_records),
            event_date: self.partition_values.remove(EVENT_DATE).flatten(),
            modified_ms: self.modification_time,
            unsorted: false,
        }
    }
}
