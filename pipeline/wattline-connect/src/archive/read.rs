//! Looking at the archive: what tables there are, which files make one up, and its rows through DataFusion.
//!
//! Paths and row counts come from the log, without opening a data file.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionContext, col, ident, lit};
use futures::{Stream, StreamExt};
use serde::Serialize;

use super::log::TableLog;
use super::schema::EVENT_DATE;
use super::table::Table;
use super::{Archive, DAY_US};
use crate::error::{Error, Result};

/// One table as `archive list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Newest Delta version.
    pub version: u64,
    /// Live data files.
    pub files: u64,
    /// Rows in them, by their statistics (files of other writers without statistics count as empty).
    pub rows: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Earliest `event_date`, `None` if the table is undated or empty.
    pub first_event_date: Option<String>,
    /// Latest `event_date`.
    pub last_event_date: Option<String>,
}

impl Archive {
    /// Names of all tables, sorted.
    ///
    /// # Errors
    /// The store's answer.
    pub async fn table_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.root().folders().await? {
            if let Ok(table) = self.table(&name)
                && table.exists().await?
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// All tables with their size, sorted by name.
    ///
    /// # Errors
    /// The store's answer, or a log that is not readable.
    pub async fn list(&self) -> Result<Vec<TableInfo>> {
        let mut infos = Vec::new();
        for name in self.table_names().await? {
            infos.extend(self.table(&name)?.current(|log| info(&name, log)).await?);
        }
        Ok(infos)
    }

    /// The data files of the newest version, sorted: absolute paths in a local archive, URLs otherwise.
    ///
    /// `event_date` is in the path only; DuckDB's `read_parquet` and others take it from there (Hive layout).
    ///
    /// # Errors
    /// [`Error::UnknownTable`], or the store's answer.
    pub async fn files(&self, table: &str) -> Result<Vec<String>> {
        let table = self.table(table)?;
        let paths = table.current(|log| log.files.keys().cloned().collect::<Vec<_>>()).await?;
        let paths = paths.ok_or_else(|| table.unknown())?;
        Ok(paths.iter().map(|path| absolute(&table, path)).collect())
    }

    /// The table's columns without `event_date`.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], or the store's answer.
    pub async fn schema(&self, table: &str) -> Result<SchemaRef> {
        let table = self.table(table)?;
        let schema = table.current(|log| Arc::clone(&log.layout.schema)).await?;
        schema.ok_or_else(|| table.unknown())
    }

    /// Every table as a DataFusion table, at its newest version, with the column `event_date`.
    ///
    /// # Errors
    /// The store's answer, or a log that is not readable.
    pub async fn providers(&self) -> Result<Vec<(String, Arc<dyn TableProvider>)>> {
        let mut providers = Vec::new();
        for name in self.table_names().await? {
            let provider = self.provider(&name).await?;
            providers.push((name, provider));
        }
        Ok(providers)
    }

    /// One table as a DataFusion table, at its newest version, with the column `event_date`.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], the store's answer, or a log that is not readable.
    pub async fn provider(&self, table: &str) -> Result<Arc<dyn TableProvider>> {
        Ok(self.versioned_provider(table).await?.0)
    }

    /// As [`provider`](Self::provider), with the number of the version.
    ///
    /// # Errors
    /// As for [`provider`](Self::provider).
    pub async fn versioned_provider(&self, table: &str) -> Result<(Arc<dyn TableProvider>, u64)> {
        let table = self.table(table)?;
        if !table.exists().await? {
            return Err(table.unknown());
        }
        let delta = table.delta().await?;
        let version = delta.version().unwrap_or_default();
        let scan = delta.table_provider().build().await;
        Ok((Arc::new(scan.map_err(|source| unreadable(&table, source))?), version))
    }

    /// The columns asked for of all rows whose time lies within `between_us` (microseconds, both included), as a stream over
    /// the newest version. Files of other dates are not opened, and of the others only what may hold such rows.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], the store's answer, or a column that the table does not have.
    pub async fn read_range(
        &self,
        table: &str,
        columns: &[String],
        time: &str,
        between_us: (i64, i64),
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + use<>> {
        let provider = self.provider(table).await?;
        let table = self.table(table)?;
        let instant = |us: i64| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
        let day = |us: i64| i32::try_from(us.div_euclid(DAY_US)).unwrap_or(if us < 0 { i32::MIN } else { i32::MAX });
        let date = |us: i64| lit(ScalarValue::Date32(Some(day(us))));
        let (from_us, until_us) = between_us;
        let in_range = col(EVENT_DATE)
            .gt_eq(date(from_us))
            .and(col(EVENT_DATE).lt_eq(date(until_us)))
            .and(ident(time).gt_eq(instant(from_us)))
            .and(ident(time).lt_eq(instant(until_us)));
        let wanted: Vec<_> = columns.iter().map(ident).collect();
        let rows = async {
            SessionContext::new().read_table(provider)?.filter(in_range)?.select(wanted)?.execute_stream().await
        };
        let rows = rows.await.map_err(|source| unreadable(&table, source))?;
        Ok(rows.map(move |batch| batch.map_err(|source| unreadable(&table, source))))
    }

    /// The columns asked for of all rows, as a stream over the newest version.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], the store's answer, or a column that the table does not have.
    pub async fn read_columns(
        &self,
        table: &str,
        columns: &[&str],
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + use<>> {
        let provider = self.provider(table).await?;
        let table = self.table(table)?;
        let wanted: Vec<_> = columns.iter().copied().map(ident).collect();
        let rows = async { SessionContext::new().read_table(provider)?.select(wanted)?.execute_stream().await };
        let rows = rows.await.map_err(|source| unreadable(&table, source))?;
        Ok(rows.map(move |batch| batch.map_err(|source| unreadable(&table, source))))
    }

    /// All rows of a table, in memory; for tests and small tables.
    ///
    /// # Errors
    /// [`Error::UnknownTable`] or [`Error::TableRead`].
    pub async fn read_table(&self, table: &str) -> Result<Vec<RecordBatch>> {
        let provider = self.provider(table).await?;
        let table = self.table(table)?;
        let rows = async { SessionContext::new().read_table(provider)?.collect().await };
        rows.await.map_err(|source| unreadable(&table, source))
    }
}

fn info(name: &str, log: &mut TableLog) -> TableInfo {
    let dates = || log.files.values().filter_map(|file| file.event_date.as_deref());
    TableInfo {
        name: name.to_owned(),
        version: log.version,
        files: log.files.len() as u64,
        rows: log.files.values().filter_map(|file| file.rows).sum(),
        bytes: log.files.values().map(|file| file.size_bytes).sum(),
        first_event_date: dates().min().map(str::to_owned),
        last_event_date: dates().max().map(str::to_owned),
    }
}

fn absolute(table: &Table, path: &str) -> String {
    match table.root.folder() {
        Some(folder) => folder.join(path).display().to_string(),
        None => format!("{}{path}", table.root.url()),
    }
}

fn unreadable(table: &Table, source: DataFusionError) -> Error {
    Error::TableRead { table: table.name.clone(), source: Box::new(source) }
}
