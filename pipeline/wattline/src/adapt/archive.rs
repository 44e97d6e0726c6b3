//! The Delta archive and the object store behind the ports of the runtime.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use wattline_connect::archive::{AddFile, Archive, FileNaming, MaintainPolicy, TableSpec};
use wattline_connect::store::{self, ObjectRoot};
use wattline_core::manifest::AddedFile;
use wattline_runtime::port::{self, Batches, FileTag, Put, TableRange};
use wattline_runtime::{Result, table};

use super::port_error;

/// Manifests, state and pending rows below `_wattline/<job>` of the archive.
#[derive(Debug)]
pub(crate) struct JobStore(pub(crate) ObjectRoot);

impl JobStore {
    /// The slots that have a chain. The links are not gone through: a chain keeps many.
    pub(crate) async fn slots(&self) -> wattline_connect::Result<Vec<String>> {
        self.0.child("chains").filled_folders().await
    }
}

/// Folder of the archive that holds the jobs; its name keeps it apart from tables.
pub(crate) const JOBS_FOLDER: &str = "_wattline";

#[async_trait]
impl port::Store for JobStore {
    async fn put_if_absent(&self, path: &str, body: Bytes) -> Result<Put> {
        match self.0.put_if_absent(path, body).await.map_err(port_error)? {
            store::Put::Created => Ok(Put::Created),
            store::Put::Exists => Ok(Put::Exists),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.0.get(path).await.map_err(port_error)
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let objects = self.0.list(folder).await.map_err(port_error)?;
        Ok(objects.into_iter().map(|object| object.path).collect())
    }

    async fn list_after(&self, folder: &str, after: &str, at_most: usize) -> Result<Vec<String>> {
        self.0.list_after(folder, after, at_most).await.map_err(port_error)
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.0.delete(path).await.map_err(port_error)
    }
}

/// The tables.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) archive: Archive,
    pub(crate) maintain: MaintainPolicy,
}

#[async_trait]
impl port::Archive for Tables {
    async fn ensure_table(&self, spec: &table::TableSpec) -> Result<()> {
        self.archive.ensure_table(archive_spec(spec)).await.map_err(port_error)
    }

    async fn write_files(&self, table: &str, batches: Vec<RecordBatch>, tag: &FileTag) -> Result<Vec<AddedFile>> {
        let naming = FileNaming { chain: tag.chain.clone(), epoch: tag.n, part: tag.part, nonce: tag.nonce.clone() };
        let files = self.archive.write_files(table, batches, &naming).await.map_err(port_error)?;
        Ok(files.into_iter().map(added).collect())
    }

    async fn commit(&self, table: &str, files: &[AddedFile], app_id: &str, version: u64) -> Result<()> {
        let adds: Vec<AddFile> = files.iter().cloned().map(add_file).collect();
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        self.archive.commit(table, &adds, &[], app_id, version).await.map(|_committed| ()).map_err(port_error)
    }

    async fn read_range(&self, range: &TableRange<'_>) -> Result<Batches> {
        let rows = self.archive.read_range(range.table, range.columns, range.time, range.between_us).await;
        Ok(rows.map_err(port_error)?.map(|batch| batch.map_err(port_error)).boxed())
    }

    async fn maintain(&self, table: &str) -> Result<()> {
        self.archive.maintain(table, &self.maintain).await.map(|_report| ()).map_err(port_error)
    }
}

/// A table of the job as the archive is told of it.
pub(crate) fn archive_spec(spec: &table::TableSpec) -> TableSpec {
    TableSpec {
        name: spec.name.clone(),
        schema: spec.schema.clone(),
        time_column: Some(spec.event_time.clone()),
        sort_by: spec.sort_by.clone(),
        description: spec.description.clone(),
    }
}

pub(crate) fn added(file: AddFile) -> AddedFile {
    AddedFile {
        path: file.path,
        size_bytes: file.size_bytes,
        event_date: file.event_date,
        rows: file.rows,
        stats: file.stats,
        modified_ms: file.modified_ms,
    }
}

pub(crate) fn add_file(file: AddedFile) -> AddFile {
    AddFile {
        path: file.path,
        size_bytes: file.size_bytes,
        event_date: file.event_date,
        rows: file.rows,
        stats: file.stats,
        modified_ms: file.modified_ms,
    }
}
