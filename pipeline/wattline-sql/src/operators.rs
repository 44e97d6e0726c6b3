//! Push-based operators: a [`Chunk`] goes in, a chunk comes out, nothing is re-planned.
//!
//! Filter, project and reference join are stateless; windows, window functions, sessions, patterns, joins and the order buffer keep
//! state and have their own files, `exchange.rs` spreads it by key. All of them work on whole columns.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{FilterBuilder, filter};
use arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;

mod chunk;
mod due;
mod exchange;
mod keyed_rows;
mod order_buffer;
mod over;
mod pattern;
mod ref_join;
mod row_store;
mod session;
mod spill;
mod stream_join;
mod try_decimal;
mod unnest;
mod window_aggregate;

pub(crate) use chunk::{Chunk, nullable, record_batch};
pub(crate) use exchange::{Exchange, Exchanged, Given, KeptPart};
pub(crate) use order_buffer::{InOrder, OrderBuffer, identity_schema};
pub(crate) use over::{Counted, Keep, OverFunction, OverSpec, OverStage, Until};
pub(crate) use pattern::{PatternSpec, PatternStage};
pub(crate) use ref_join::{KeyIndexes, Lookups, RefJoin, RefJoinKind, RefTable, compact_columns};
pub(crate) use session::{SessionSpec, SessionStage};
#[cfg(test)]
pub(crate) use spill::{RUNS_MAX, TestDisk};
pub(crate) use spill::{Run, Scratch, filled_bytes, is_of_scratch, is_of_writing, without_spare_bytes};
pub(crate) use stream_join::{JoinSide, StreamJoinSpec, StreamJoinStage};
pub(crate) use try_decimal::with_quick_casts;
pub(crate) use unnest::Unnest;
pub(crate) use window_aggregate::{
    AggregateSpec, Aggregated, FinalPanes, KeyNumbers, LanePanes, Overlap, PanedWindows, SharedKeyNumbers,
};

/// One stateless step.
#[derive(Debug, Clone)]
pub(crate) enum Operator {
    /// Keeps the rows where the predicate is true.
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes new columns.
    Project { exprs: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef },
    /// Joins to a reference table.
    RefJoin(Arc<RefJoin>),
    /// Takes lists and structs apart.
    Unnest(Arc<Unnest>),
}

impl Operator {
    /// Runs the step. Errors are those of the expressions: overflow, bad cast, division by zero.
    pub(crate) fn run(&self, chunk: Chunk, lookups: &Lookups) -> Result<Chunk> {
        match self {
            Self::Filter(predicate) => keep_where(predicate, chunk),
            Self::Project { exprs, schema } => {
                let rows = chunk.batch.num_rows();
                let columns = evaluate_all(exprs, &chunk.batch)?;
                Ok(Chunk { batch: record_batch(schema, columns, rows)?, rows: chunk.rows })
            }
            Self::RefJoin(join) => join.run(&chunk, lookups),
            Self::Unnest(unnest) => unnest.run(&chunk),
        }
    }
}

/// Runs steps one after the other; an empty chunk ends the walk early.
pub(crate) fn run_all(operators: &[Operator], mut chunk: Chunk, lookups: &Lookups) -> Result<Option<Chunk>> {
    for operator in operators {
        if chunk.batch.num_rows() == 0 {
            return Ok(None);
        }
        chunk = operator.run(chunk, lookups)?;
    }
    Ok((chunk.batch.num_rows() > 0).then_some(chunk))
}

/// The values of expressions over rows.
pub(crate) fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows())).collect()
}

/// Does something that code of others has a part in. A panic there becomes an error: it stops the rule, not the process. What was
/// worked on is of no use after it.
pub(crate) fn without_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        exec_err!("the computation panicked: {}", said.unwrap_or("it did not say why"))
    })
}

/// Does something to rows; if it fails, to halves of them, down to the single rows that fail on their own.
pub(crate) fn halving(rows: Chunk, failures: &mut Vec<String>, mut each: impl FnMut(Chunk) -> Result<()>) {
    let mut pending = vec![rows];
    while let Some(chunk) = pending.pop() {
        let rows = chunk.len();
        match without_panic(|| each(chunk.clone())) {
            Ok(()) => {}
            Err(_) if rows > 1 => {
                pending.push(chunk.slice(rows / 2, rows - rows / 2));
                pending.push(chunk.slice(0, rows / 2));
            }
            Err(error) => failures.push(error.strip_backtrace()),
        }
    }
}

fn keep_where(predicate: &Arc<dyn PhysicalExpr>, chunk: Chunk) -> Result<Chunk> {
    let rows = chunk.batch.num_rows();
    let mask = predicate.evaluate(&chunk.batch)?.into_array(rows)?;
    chunk.keep(as_boolean_array(&mask)?)
}

impl Chunk {
    /// The rows where `mask` is true; null counts as false.
    pub(crate) fn keep(self, mask: &BooleanArray) -> Result<Self> {
        if mask.null_count() == 0 && mask.true_count() == mask.len() {
            return Ok(self);
        }
        let rows = match &self.rows {
            Some(rows) => filter(rows, mask)?,
            None => {
                let numbers = UInt32Array::from_iter_values(0..u32::try_from(mask.len()).unwrap_or(u32::MAX));
                filter(&numbers, mask)?
            }
        };
        let rows = datafusion::common::cast::as_uint32_array(&rows)?.clone();
        let predicate = FilterBuilder::new(mask).optimize().build();
        // Columns without a value go on sharing their array of nulls.
        let keep = |column: &ArrayRef| match column.null_count() == column.len() {
            true => Ok(column.slice(0, rows.len())),
            false => predicate.filter(column),
        };
        let columns = self.batch.columns().iter().map(keep).collect::<std::result::Result<_, _>>()?;
        Ok(Self { batch: record_batch(&self.batch.schema(), columns, rows.len())?, rows: Some(rows) })
    }
}
