//! Row patterns over final rows: each row is given out with the matches that it stands for, when they are decided.
//!
//! ```text
//!   partition:  │ looked back at │ done, needed to come to the same │ open │ rows that wait │
//!                                 └ resume                           └ given out up to here
//! ```
//! Rows wait until the watermark has passed them. Then the partitions with new rows, and those whose first open row can
//! have no later rows any more, are scanned again from where the last scan said. What is kept of a partition is bounded by the
//! time bound of the pattern, and by the rows that `prev` looks back at.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::due::Due;
use super::exchange::KeyedStage;
use super::keyed_rows::{All, KeyedRows};
use super::over::{instants_of, sorted_order};
use super::{evaluate_all, record_batch};
use crate::pattern::{Horizon, Resume, RowPattern, scan};

/// A pattern with its partitions and order.
#[derive(Debug)]
pub(crate) struct PatternSpec {
    pub(crate) pattern: Arc<RowPattern>,
    pub(crate) partition: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) partition_schema: SchemaRef,
    pub(crate) order: Vec<PhysicalSortExpr>,
    /// The inputs of the pattern; the first is the time of a row.
    pub(crate) inputs: Vec<Arc<dyn PhysicalExpr>>,
    /// How far past the time of a row the watermark must be, microseconds.
    pub(crate) final_after_us: i64,
    pub(crate) input_schema: SchemaRef,
    /// The columns of the input, then the list of matches.
    pub(crate) schema: SchemaRef,
}

/// What is known of a partition besides its rows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Progress {
    /// Where the next scan begins, among the rows that are kept.
    resume: Resume,
    /// Rows given out, among those that are kept.
    given: usize,
}

/// The rows that are kept for a [`PatternSpec`].
#[derive(Debug)]
pub(crate) struct PatternStage {
    spec: Arc<PatternSpec>,
    rows: KeyedRows<Option<Progress>>,
    /// Partitions to be looked at, by the instant that the horizon must have reached.
    due: Due,
    /// Rows were taken back: which partitions are to be looked at is not known yet.
    restored: bool,
    /// All rows up to this instant have been looked at.
    horizon_us: i64,
}

impl PatternStage {
    fn take_in(&mut self, input: &RecordBatch) -> Result<()> {
        self.find_restored()?;
        let input = record_batch(&self.spec.input_schema, input.columns().to_vec(), input.num_rows())?;
        let keys = evaluate_all(&self.spec.partition, &input)?;
        let times = instants_of(&self.spec.inputs[0], &input)?;
        for (key, time_us) in self.rows.push(&keys, &input, std::iter::repeat(()))?.iter().zip(times.values()) {
            self.due.note(*time_us, *key);
        }
        Ok(())
    }

    fn give_rows(&mut self, watermark_us: i64) -> Result<Option<RecordBatch>> {
        self.find_restored()?;
        let over = watermark_us == END_OF_TIME;
        // Rows at this instant are final, rows after it are not.
        self.horizon_us = if over { END_OF_TIME } else { watermark_us.saturating_sub(self.spec.final_after_us) };
        let keys = self.due.take_until(self.horizon_us);
        let mut given = Vec::new();
        for key in keys {
            given.extend(self.give_key(key)?);
        }
        if over {
            self.rows.clear();
        } else if let Some(numbers) = self.rows.compact_if_worth()? {
            self.due.renumber(&numbers);
        }
        if given.is_empty() {
            return Ok(None);
        }
        Ok(Some(concat_batches(&self.spec.schema, &given)?))
    }

    fn give_key(&mut self, key: usize) -> Result<Option<RecordBatch>> {
        let spec = Arc::clone(&self.spec);
        let before = self.rows.memory_mut(key).take().unwrap_or_default();
        let numbers: Vec<u32> = self.rows.rows_of(key).collect();
        let rows = self.rows.gather(&numbers)?;
        let order = sorted_order(&rows, &vec![0; rows.num_rows()], &spec.order)?;
        let rows = take_record_batch(&rows, &order)?;
        let times = instants_of(&spec.inputs[0], &rows)?;
        let ripe = times.values().partition_point(|us| *us <= self.horizon_us);
        let ready = rows.slice(0, ripe);
        let inputs =
            spec.inputs.iter().map(|expr| expr.evaluate(&ready)?.into_array(ripe)).collect::<Result<Vec<_>>>()?;
        let horizon = if self.horizon_us == END_OF_TIME { Horizon::End } else { Horizon::At(self.horizon_us) };
        let scanned = scan(&spec.pattern, &times.values()[..ripe], &inputs, before.resume, horizon)?;
        let output = match scanned.done > before.given {
            true => {
                let of_given = before.given - before.resume.row..scanned.done - before.resume.row;
                let mut columns = rows.slice(before.given, scanned.done - before.given).columns().to_vec();
                columns.push(Arc::new(scanned.lists.slice(of_given.start, of_given.len())));
                Some(record_batch(&spec.schema, columns, scanned.done - before.given)?)
            }
            false => None,
        };
        let given = scanned.done.max(before.given);
        let dropped = scanned.resume.row.saturating_sub(spec.pattern.rows_before());
        let progress = Progress {
            resume: Resume { row: scanned.resume.row - dropped, matches: scanned.resume.matches },
            given: given - dropped,
        };
        self.rows.keep(key, order.values()[dropped..].iter().map(|row| numbers[*row as usize]));
        let forgets = numbers.len() == dropped && !spec.pattern.counts_matches();
        *self.rows.memory_mut(key) = (!forgets).then_some(progress);
        if given < ripe {
            // Open for want of rows: decided at the latest when there can be none.
            self.due.note(times.value(given).saturating_add(spec.pattern.bound_us), key);
        }
        Ok(output)
    }

    fn find_restored(&mut self) -> Result<()> {
        if std::mem::take(&mut self.restored) { self.find_due() } else { Ok(()) }
    }

    fn find_due(&mut self) -> Result<()> {
        self.due = Due::default();
        let bound_us = self.spec.pattern.bound_us;
        let mut times: Vec<i64> = Vec::new();
        for rows in self.rows.held() {
            times.extend(instants_of(&self.spec.inputs[0], rows)?.values());
        }
        for (key, progress) in self.rows.memories().iter().enumerate() {
            // Kept in order up to where they were looked at.
            for row in self.rows.rows_of(key).skip(progress.unwrap_or_default().given) {
                let time_us = times[row as usize];
                let looked_at = time_us <= self.horizon_us;
                self.due.note(if looked_at { time_us.saturating_add(bound_us) } else { time_us }, key);
            }
        }
        Ok(())
    }
}

impl KeyedStage for PatternStage {
    type Spec = PatternSpec;

    fn new(spec: Arc<PatternSpec>) -> Self {
        let rows = KeyedRows::new(Arc::clone(&spec.input_schema), Arc::clone(&spec.partition_schema));
        Self { spec, rows, due: Due::default(), restored: false, horizon_us: BEFORE_TIME }
    }

    fn has_keys(spec: &PatternSpec) -> bool {
        !spec.partition.is_empty()
    }

    fn keys(spec: &PatternSpec, _side: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        evaluate_all(&spec.partition, rows)
    }

    fn push(&mut self, _side: usize, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        self.take_in(rows)?;
        Ok(Vec::new())
    }

    /// The rows that are decided at the watermark.
    fn give(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        Ok(self.give_rows(watermark_us)?.into_iter().collect())
    }

    fn due_us(&mut self) -> Result<Option<i64>> {
        self.find_restored()?;
        Ok(self.due.first_us().map(|first_us| first_us.saturating_add(self.spec.final_after_us)))
    }

    /// Rows in the order of their partitions, and what is known of each partition.
    fn take(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        let partition_schema = Arc::clone(&self.spec.partition_schema);
        let All { keys, memories, rows, .. } = self.rows.take()?;
        (self.due, self.restored) = (Due::default(), false);
        let mut fields: Vec<Arc<Field>> = partition_schema.fields().iter().cloned().collect();
        let known: Vec<Progress> = memories.into_iter().map(Option::unwrap_or_default).collect();
        let count = |of: &dyn Fn(&Progress) -> usize| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(known.iter().map(|progress| of(progress) as u64)))
        };
        let matches = Int64Array::from_iter_values(known.iter().map(|progress| progress.resume.matches));
        for (name, data_type) in [("row", DataType::UInt64), ("given", DataType::UInt64), ("matches", DataType::Int64)]
        {
            fields.push(Arc::new(Field::new(format!("progress_{name}"), data_type, false)));
        }
        let mut columns = keys;
        columns.extend([count(&|of| of.resume.row), count(&|of| of.given), Arc::new(matches) as ArrayRef]);
        let progress = record_batch(&Arc::new(Schema::new(fields)), columns, known.len())?;
        Ok(vec![(0, rows), (1, progress)])
    }

    fn keys_of_part(spec: &PatternSpec, part: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        match part {
            0 => evaluate_all(&spec.partition, rows),
            _ => Ok(rows.columns()[..spec.partition.len()].to_vec()),
        }
    }

    fn restore(&mut self, part: usize, state: &RecordBatch, given_us: i64) -> Result<()> {
        self.restored = true;
        if given_us != BEFORE_TIME {
            self.horizon_us = given_us.saturating_sub(self.spec.final_after_us);
        }
        if part == 0 {
            let rows = record_batch(&self.spec.input_schema, state.columns().to_vec(), state.num_rows())?;
            let keys = evaluate_all(&self.spec.partition, &rows)?;
            self.rows.push(&keys, &rows, std::iter::repeat(()))?;
            return Ok(());
        }
        let (keys, progress) = state.columns().split_at(self.spec.partition.len());
        let [row, given, matches] = progress else {
            return Err(internal_datafusion_err!("the state of a row pattern has {} columns", state.num_columns()));
        };
        let (row, given) = (row.as_primitive::<UInt64Type>(), given.as_primitive::<UInt64Type>());
        let matches = matches.as_primitive::<Int64Type>();
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let numbers = self.rows.number(keys, state.num_rows())?.to_vec();
        for (at, key) in numbers.into_iter().enumerate() {
            let resume = Resume { row: number(row.value(at)), matches: matches.value(at) };
            *self.rows.memory_mut(key) = Some(Progress { resume, given: number(given.value(at)) });
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.due.bytes()
    }
}
