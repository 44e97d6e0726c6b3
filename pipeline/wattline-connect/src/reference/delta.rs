//! A reference table that is a Delta table in a local folder, read whole at its newest version.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::prelude::SessionContext;

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::store::ObjectRoot;

/// The folder of the log in that of a table.
pub(super) const LOG: &str = "_delta_log";

/// Whether there is a Delta table.
pub(super) fn is_table(path: &Path) -> bool {
    path.join(LOG).is_dir()
}

/// All rows, and the number of the version. Runs on a thread of its own: the Delta library wants a runtime whose threads it
/// may block, and callers may be within another.
pub(super) fn read(path: &Path) -> Result<(RecordBatch, u64)> {
    let stopped =
        || Error::File { doing: "read", path: path.to_owned(), source: std::io::Error::other("the reader stopped") };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.map_err(|source| Error::File { doing: "read", path: path.to_owned(), source })?;
            runtime.block_on(read_newest(path))
        });
        reader.join().map_err(|_panic| stopped())?
    })
}

async fn read_newest(path: &Path) -> Result<(RecordBatch, u64)> {
    let none = || Error::NoSuchFile { path: path.to_owned() };
    let (parent, name) = path.parent().zip(path.file_name().and_then(|name| name.to_str())).ok_or_else(none)?;
    let root = ObjectRoot::open(&parent.display().to_string(), &BTreeMap::new())?;
    let (provider, version) = Archive::open(root).versioned_provider(name).await?;
    let unreadable = |source| Error::TableRead { table: name.to_owned(), source: Box::new(source) };
    let rows = async {
        let frame = SessionContext::new().read_table(provider)?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        Ok((schema, frame.collect().await?))
    };
    let (schema, batches) = rows.await.map_err(unreadable)?;
    // A scan may give texts as views.
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    let rows = concat_batches(&schema, &batches)
        .map_err(|source| Error::Columns { operation: "read a reference table", source: Box::new(source) })?;
    Ok((rows, version))
}
