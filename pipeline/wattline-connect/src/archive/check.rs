//! Whether the files of a table are what its log says: there, of that size, whole, with as many rows.
//!
//! Reads the log, one listing of the table's folder and the footer of each live file; of the pages nothing, which costs as much as
//! a query over all columns. Reads only, and may do so beside the job that writes the table.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use wattline_core::problem::{Advice, Problem, Problems};

use super::Archive;
use super::log::LiveFile;
use super::maintain::tombstones;
use super::table::Table;
use crate::error::Result;

/// Files whose footers are read at the same time.
const FOOTERS_AT_ONCE: usize = 16;
/// What is read of a file's end at first: most footers are smaller.
const FOOTER_BYTES: u64 = 64 << 10;

const FILE_DAMAGED: Advice = Advice {
    means: "queries over this date fail or give too few rows, and merging the table stops at this file",
    action: "bring the file back from a backup, to the same path",
};
const ROWS_DIFFER: Advice = Advice {
    means: "counts that are taken from statistics are wrong; the file is not the one that was committed",
    action: "bring the file back from a backup, to the same path",
};

/// What the files of a table are.
#[derive(Debug, Clone, Default)]
pub struct FilesReport {
    /// Version of the table.
    pub version: u64,
    /// When the table was made, milliseconds since the epoch, if its log says so.
    pub made_ms: Option<i64>,
    /// Its live files.
    pub files: u64,
    /// Rows in them, by their footers.
    pub rows: u64,
    /// Their size in bytes, by the log.
    pub bytes: u64,
    /// Files of which the log does not say how many rows they have; another engine wrote them.
    pub uncounted: u64,
    /// Paths of the live files, relative to the table.
    pub live: BTreeSet<String>,
    /// Paths of the files that the log remembers to have removed.
    pub removed: BTreeSet<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// What became of looking at a file: its rows, or what is wrong with it.
type Looked = std::result::Result<u64, (String, Advice)>;

impl Archive {
    /// Looks at every file of the newest version of a table.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable), the store's answer, or a log that is not readable. A file that is not
    /// as the log says is a problem and no error.
    pub async fn check_files(&self, table: &str) -> Result<FilesReport> {
        let table = self.table(table)?;
        let state = table.current(|log| (log.version, log.metadata["createdTime"].as_i64(), log.files.clone())).await?;
        let (version, made_ms, live) = state.ok_or_else(|| table.unknown())?;
        // After the live ones: a file that is replaced meanwhile is among the one or the other.
        let removed = tombstones(&table).await?.into_keys().collect();
        let objects = table.root.list("").await?;
        let sizes: BTreeMap<String, u64> = objects.into_iter().map(|object| (object.path, object.size_bytes)).collect();
        let mut report = FilesReport { version, made_ms, removed, files: live.len() as u64, ..FilesReport::default() };
        let mut problems = Problems::of(format!("table `{}`", table.name));
        {
            let (table, sizes) = (&table, &sizes);
            let looks = live.iter().map(|(path, file)| look_at(table, path, file, sizes.get(path).copied()));
            let mut looks = std::pin::pin!(futures::stream::iter(looks).buffered(FOOTERS_AT_ONCE));
            while let Some(looked) = looks.next().await {
                match looked? {
                    Ok(rows) => report.rows += rows,
                    Err((what, advice)) => problems.add(what, advice),
                }
            }
        }
        report.bytes = live.values().map(|file| file.size_bytes).sum();
        report.uncounted = live.values().filter(|file| file.rows.is_none()).count() as u64;
        report.live = live.into_keys().collect();
        report.problems = problems.finish();
        Ok(report)
    }
}

/// Compares one file with what the log says of it; `size` is that of the object, if there is one.
async fn look_at(table: &Table, path: &str, file: &LiveFile, size: Option<u64>) -> Result<Looked> {
    let Some(size) = size else {
        return Ok(Err((format!("file `{path}` is in the log, and is not there"), FILE_DAMAGED)));
    };
    if size != file.size_bytes {
        let what = format!("file `{path}` has {size} bytes, the log says {}", file.size_bytes);
        return Ok(Err((what, FILE_DAMAGED)));
    }
    let rows = match rows_of(table, path, size).await? {
        Ok(rows) => rows,
        Err(reason) => return Ok(Err((format!("the footer of file `{path}` cannot be read: {reason}"), FILE_DAMAGED))),
    };
    Ok(match file.rows {
        Some(said) if said != rows => Err((format!("file `{path}` has {rows} rows, the log says {said}"), ROWS_DIFFER)),
        _ => Ok(rows),
    })
}

/// The number of rows by the footer, or why it cannot be read.
async fn rows_of(table: &Table, path: &str, size: u64) -> Result<std::result::Result<u64, String>> {
    if size == 0 {
        return Ok(Err("it is empty".to_owned()));
    }
    let mut wanted = FOOTER_BYTES.min(size);
    loop {
        let Some(tail) = table.root.get_range(path, size - wanted..size).await? else {
            return Ok(Err("it is not there".to_owned()));
        };
        let mut reader = ParquetMetaDataReader::new();
        let read = reader.try_parse_sized(&tail, size).and_then(|()| reader.finish());
        match read {
            Ok(metadata) => {
                let rows = u64::try_from(metadata.file_metadata().num_rows());
                return Ok(rows.map_err(|_negative| "its number of rows is negative".to_owned()));
            }
            Err(ParquetError::NeedMoreData(needed)) if needed as u64 > wanted => wanted = size.min(needed as u64),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
}
