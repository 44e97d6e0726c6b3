//! Sessions over final rows: waits until the pause after a session is long enough, then gives its rows out with its
//! beginning and end.
//!
//! The pause is long enough when the watermark has reached the last row's time plus the gap: any later row begins a
//! session of its own. Until then all rows of the session are kept, so an entity that never pauses keeps all of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::{exec_err, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;

use super::due::Due;
use super::exchange::KeyedStage;
use super::keyed_rows::KeyedRows;
use super::{evaluate_all, record_batch};
use crate::catalog::event_time_type;
use crate::functions::sessions;

/// What a session is.
#[derive(Debug)]
pub(crate) struct SessionSpec {
    pub(crate) time: Arc<dyn PhysicalExpr>,
    /// How far behind the watermark a row's time may lie, microseconds.
    pub(crate) lag_us: i64,
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) key_schema: SchemaRef,
    pub(crate) gap_us: i64,
    /// For each output column behind those of the input, whether it is the end and not the beginning.
    pub(crate) is_end: Vec<bool>,
    pub(crate) input_schema: SchemaRef,
    pub(crate) schema: SchemaRef,
}

impl SessionSpec {
    /// The watermark at which a session with this last row is over.
    fn over_at(&self, last_us: i64) -> i64 {
        last_us.saturating_add(self.gap_us).saturating_add(self.lag_us)
    }
}

/// The rows of open sessions.
#[derive(Debug)]
pub(crate) struct SessionStage {
    spec: Arc<SessionSpec>,
    rows: KeyedRows,
    /// Keys by the watermark at which their first session may be over.
    due: Due,
}

impl SessionStage {
    fn take_in(&mut self, input: &RecordBatch) -> Result<()> {
        let input = record_batch(&self.spec.input_schema, input.columns().to_vec(), input.num_rows())?;
        let keys = evaluate_all(&self.spec.keys, &input)?;
        let times = self.times_of(&input)?;
        let spec = Arc::clone(&self.spec);
        for (key, time_us) in self.rows.push(&keys, &input, std::iter::repeat(()))?.iter().zip(times.values()) {
            self.due.note(spec.over_at(*time_us), *key);
        }
        Ok(())
    }

    fn times_of(&self, rows: &RecordBatch) -> Result<Int64Array> {
        let values = self.spec.time.evaluate(rows)?.into_array(rows.num_rows())?;
        let values = values.as_primitive_opt::<TimestampMicrosecondType>();
        let values = values.ok_or_else(|| internal_datafusion_err!("the time of a session is no timestamp"))?;
        if values.null_count() > 0 {
            return exec_err!("a row has no time, so it belongs to no session");
        }
        Ok(Int64Array::new(values.values().clone(), None))
    }

    fn give_rows(&mut self, watermark_us: i64) -> Result<Option<RecordBatch>> {
        let keys = self.due.take_until(watermark_us);
        let mut given = Vec::new();
        for key in keys {
            given.extend(self.give_key(key, watermark_us)?);
        }
        if let Some(numbers) = self.rows.compact_if_worth()? {
            self.due.renumber(&numbers);
        }
        if given.is_empty() {
            return Ok(None);
        }
        Ok(Some(concat_batches(&self.spec.schema, &given)?))
    }

    fn give_key(&mut self, key: usize, watermark_us: i64) -> Result<Option<RecordBatch>> {
        let numbers: Vec<u32> = self.rows.rows_of(key).collect();
        let rows = self.rows.gather(&numbers)?;
        let times = self.times_of(&rows)?;
        let mut order: Vec<u32> = (0_u32..).take(rows.num_rows()).collect();
        order.sort_by_key(|row| times.value(*row as usize));
        let sorted: Vec<i64> = order.iter().map(|row| times.value(*row as usize)).collect();
        let sessions = sessions(&sorted, self.spec.gap_us);
        let over = sessions.iter().take_while(|session| self.spec.over_at(sorted[session.end - 1]) <= watermark_us);
        let done = over.map(|session| session.end).last().unwrap_or(0);
        self.rows.keep(key, order[done..].iter().map(|row| numbers[*row as usize]));
        if done == 0 {
            return Ok(None);
        }
        let given = take_record_batch(&rows, &UInt32Array::from(order[..done].to_vec()))?;
        let mut columns = given.columns().to_vec();
        for is_end in &self.spec.is_end {
            let edges = sessions.iter().take_while(|session| session.end <= done).flat_map(|session| {
                let edge = match is_end {
                    true => sorted[session.end - 1].saturating_add(self.spec.gap_us),
                    false => sorted[session.start],
                };
                std::iter::repeat_n(edge, session.len())
            });
            let edges = TimestampMicrosecondArray::from(edges.collect::<Vec<_>>());
            columns.push(Arc::new(edges.with_data_type(event_time_type())));
        }
        Ok(Some(record_batch(&self.spec.schema, columns, done)?))
    }
}

impl KeyedStage for SessionStage {
    type Spec = SessionSpec;

    fn new(spec: Arc<SessionSpec>) -> Self {
        let rows = KeyedRows::new(Arc::clone(&spec.input_schema), Arc::clone(&spec.key_schema));
        Self { spec, rows, due: Due::default() }
    }

    fn has_keys(spec: &SessionSpec) -> bool {
        !spec.keys.is_empty()
    }

    fn keys(spec: &SessionSpec, _side: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        evaluate_all(&spec.keys, rows)
    }

    fn push(&mut self, _side: usize, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        self.take_in(rows)?;
        Ok(Vec::new())
    }

    /// The rows of the sessions that are over at the watermark.
    fn give(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        Ok(self.give_rows(watermark_us)?.into_iter().collect())
    }

    fn due_us(&mut self) -> Result<Option<i64>> {
        Ok(self.due.first_us())
    }

    /// The rows of open sessions.
    fn take(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        self.due = Due::default();
        Ok(vec![(0, self.rows.take()?.rows)])
    }

    fn keys_of_part(spec: &SessionSpec, _part: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        evaluate_all(&spec.keys, rows)
    }

    fn restore(&mut self, _part: usize, rows: &RecordBatch, _given_us: i64) -> Result<()> {
        self.take_in(rows)
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.due.bytes()
    }
}
