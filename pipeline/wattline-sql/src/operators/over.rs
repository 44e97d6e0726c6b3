//! Window functions (`OVER`) over final rows.
//!
//! Rows wait until the watermark has passed them, or the window that is their partition. Then the rows of each partition
//! that has new ones are put in order, and its functions are evaluated by DataFusion's own window expressions over the rows
//! that are kept of it and the new ones. What is kept is what a later row can reach: the last rows of a ROWS frame or `lag`,
//! those within a RANGE frame, nothing of a partition that is a window. What reaches back to the first row of a partition
//! is carried as a count or as the state of an accumulator.
//!
//! ```text
//!   partition:  │ kept rows │ rows that are final now │ rows that wait │
//!                 evaluated with them ──▶ given out        (only a frame that looks ahead sees them)
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{SortColumn, concat, lexsort_to_indices, partition, take, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{ScalarValue, exec_err, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::due::Due;
use super::exchange::KeyedStage;
use super::keyed_rows::{All, COMPACT_MIN, KeyedRows};
use super::row_store::RowStore;
use super::spill::without_spare_bytes;
use super::window_aggregate::Aggregated;
use super::{evaluate_all, record_batch};

/// Window functions with the same partitions and order.
#[derive(Debug)]
pub(crate) struct OverSpec {
    pub(crate) partition: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) partition_schema: SchemaRef,
    pub(crate) order: Vec<PhysicalSortExpr>,
    /// The order, and what goes on where rows are equal in it.
    pub(crate) sort: Vec<PhysicalSortExpr>,
    /// The instant that decides when a row is final: its event time, or the window that is its partition.
    pub(crate) instant: Arc<dyn PhysicalExpr>,
    /// How far past it the watermark must be, microseconds.
    pub(crate) final_after_us: i64,
    pub(crate) functions: Vec<OverFunction>,
    /// For each function how many columns its state has that is carried from one row to the next.
    pub(crate) carried_widths: Vec<usize>,
    pub(crate) keep: Keep,
    /// How far apart in time two rows can be of which one decides about the other, microseconds; `None` if there is no bound.
    pub(crate) reach_us: Option<i64>,
    pub(crate) input_schema: SchemaRef,
    /// The columns of the input, then those of the functions.
    pub(crate) schema: SchemaRef,
}

/// A window function, by how it is kept up.
#[derive(Debug)]
pub(crate) enum OverFunction {
    /// Over what is kept of the partition and the new rows.
    Framed(Arc<dyn WindowExpr>),
    /// By counting from the first row of the partition.
    Counted(Counted),
    /// An aggregate from the first row of the partition on.
    Running { aggregate: Aggregated, until: Until },
}

/// The last row of a frame that begins with the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The one before the row.
    Before,
    Row,
    /// The last one that is equal to it in order.
    Peers,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    RowNumber,
    Rank,
    DenseRank,
}

/// Which rows of a partition are kept when they have been given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Keep {
    /// The first ones.
    pub(crate) first: usize,
    /// The last ones.
    pub(crate) last: usize,
    /// Those no older than this, microseconds.
    pub(crate) within_us: Option<i64>,
}

impl Keep {
    /// Everything that either needs.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            first: self.first.max(other.first),
            last: self.last.max(other.last),
            within_us: self.within_us.max(other.within_us),
        }
    }

    /// Of rows with these times in order, which are kept when those before `ripe` are out and later ones come after `horizon_us`.
    fn chooses(self, times: &[i64], ripe: usize, horizon_us: i64) -> impl Fn(usize) -> bool {
        let oldest_us = self.within_us.map(|within_us| horizon_us.saturating_add(1).saturating_sub(within_us));
        move |at| {
            at >= ripe
                || at < self.first
                || at + self.last >= ripe
                || oldest_us.is_some_and(|oldest_us| times[at] >= oldest_us)
        }
    }
}

/// Rows that are evaluated together.
const ROWS_AT_ONCE: usize = 8 * 1024;

/// Bytes of carried states, those that nothing needs any more among them, from which these are looked for. A few can be large.
const COPY_BYTES_MIN: usize = 1 << 20;

/// The rows that are kept and carried for an [`OverSpec`].
#[derive(Debug)]
pub(crate) struct OverStage {
    spec: Arc<OverSpec>,
    /// Known of a partition besides: the number of the row that is carried of it.
    rows: KeyedRows<Option<u32>>,
    carried: CarriedRows,
    /// Partitions with rows that wait, by the watermark at which they are final.
    waiting: Due,
    /// Everything final at this watermark was given out.
    given_us: i64,
}

/// What is carried of each partition: for each function that counts or runs the columns of its state.
#[derive(Debug, Default)]
struct CarriedRows {
    /// `None` as long as nothing was carried: then it is not known of which types the columns are.
    store: Option<RowStore>,
    live: usize,
}

/// The states of the functions behind a partition's last row that was given out; columns of one row, or none at the beginning.
type Carried<'a> = &'a [ArrayRef];

impl OverStage {
    fn give_rows(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        let ready = self.waiting.take_until(watermark_us);
        let given_us = std::mem::replace(&mut self.given_us, watermark_us);
        let mut output = Vec::new();
        let mut ready = &ready[..];
        while !ready.is_empty() {
            let (some, rest) = ready.split_at(self.how_many_at_once(ready));
            output.push(self.evaluate(some, given_us, watermark_us)?);
            ready = rest;
        }
        if watermark_us == END_OF_TIME {
            self.rows.clear();
            self.carried.clear();
        } else if let Some(numbers) = self.rows.compact_if_worth()? {
            self.waiting.renumber(&numbers);
        }
        Ok(output)
    }

    fn take_in(&mut self, input: &RecordBatch) -> Result<()> {
        let input = record_batch(&self.spec.input_schema, input.columns().to_vec(), input.num_rows())?;
        let keys = evaluate_all(&self.spec.partition, &input)?;
        let instants = instants_of(&self.spec.instant, &input)?;
        let (given_us, after_us) = (self.given_us, self.spec.final_after_us);
        for (key, instant) in self.rows.push(&keys, &input, std::iter::repeat(()))?.iter().zip(instants.values()) {
            // Rows that are taken back may have been given out.
            if given_us == BEFORE_TIME || !is_final(*instant, after_us, given_us) {
                self.waiting.note(instant.saturating_add(after_us), *key);
            }
        }
        Ok(())
    }

    /// How many of these partitions, at least one, are evaluated together: columns are made of one array for each, and each has some
    /// hundred bytes even if it has one value.
    fn how_many_at_once(&self, ready: &[usize]) -> usize {
        let mut rows = 0;
        let fits = |key: &&usize| {
            rows += self.rows.rows_of(**key).count();
            rows <= ROWS_AT_ONCE
        };
        ready.iter().take_while(fits).count().max(1)
    }

    /// Evaluates the functions for the new final rows of some partitions.
    fn evaluate(&mut self, ready: &[usize], given_us: i64, watermark_us: i64) -> Result<RecordBatch> {
        let spec = Arc::clone(&self.spec);
        let mut numbers: Vec<u32> = Vec::new();
        let mut ordinals: Vec<u32> = Vec::new();
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(ready.len());
        for (ordinal, key) in (0_u32..).zip(ready) {
            let start = numbers.len();
            numbers.extend(self.rows.rows_of(*key));
            ordinals.resize(numbers.len(), ordinal);
            ranges.push(start..numbers.len());
        }
        let rows = self.rows.gather(&numbers)?;
        let order = sorted_order(&rows, &ordinals, &spec.sort)?;
        let rows = take_record_batch(&rows, &order)?;
        let instants = instants_of(&spec.instant, &rows)?;
        let carried_before: Vec<Option<u32>> = ready.iter().map(|key| self.rows.memory_mut(*key).take()).collect();
        let mut carried = self.carried.take_out(&carried_before)?;
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(ready.len()); spec.functions.len()];
        let mut next: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(ready.len()); spec.carried_widths.iter().sum()];
        let mut given: Vec<u32> = Vec::with_capacity(rows.num_rows());
        let over = watermark_us == END_OF_TIME;
        for (key, range) in ready.iter().zip(ranges) {
            // In the order of time, so these are three stretches; all rows of a partition that is a window are in one.
            let times = &instants.values()[range.clone()];
            let old = match given_us {
                BEFORE_TIME => 0,
                given_us => times.partition_point(|us| is_final(*us, spec.final_after_us, given_us)),
            };
            let ripe = times.partition_point(|us| is_final(*us, spec.final_after_us, watermark_us));
            let part = rows.slice(range.start, range.len());
            let fresh = Fresh { part: &part, new: old..ripe };
            let before = carried.next().flatten();
            fresh.evaluate(&spec, before.as_deref().unwrap_or_default(), &mut columns, &mut next)?;
            given.extend((range.start + old..range.start + ripe).map(|at| u32::try_from(at).unwrap_or(u32::MAX)));
            if !over {
                let keeps = spec.keep.chooses(times, ripe, watermark_us.saturating_sub(spec.final_after_us));
                let kept = (0..range.len()).filter(|at| keeps(*at));
                self.rows.keep(*key, kept.map(|at| numbers[order.value(range.start + at) as usize]));
            }
        }
        if !over {
            self.carry(ready, next)?;
        }
        let given = take_record_batch(&rows, &UInt32Array::from(given))?;
        let mut output = given.columns().to_vec();
        for parts in &columns {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            output.push(concat(&parts)?);
        }
        record_batch(&spec.schema, output, given.num_rows())
    }

    /// Carries a row of states for each of these partitions.
    fn carry(&mut self, keys: &[usize], states: Vec<Vec<ScalarValue>>) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        let columns = states.into_iter().map(ScalarValue::iter_to_array).collect::<Result<Vec<_>>>()?;
        let first = self.carried.push(columns, keys.len())?;
        for (number, key) in (first..).zip(keys) {
            *self.rows.memory_mut(*key) = Some(number);
        }
        if self.carried.is_worth_copying() {
            let kept: Vec<u32> = self.rows.memories().iter().flatten().copied().collect();
            self.carried.copy_together(&kept)?;
            let mut next = 0..;
            for key in 0..self.rows.keys() {
                let carried = self.rows.memory_mut(key);
                *carried = carried.and_then(|_old| next.next());
            }
        }
        Ok(())
    }
}

/// Whether a row of that instant is final at the watermark, which must be so far past it.
fn is_final(instant_us: i64, after_us: i64, watermark_us: i64) -> bool {
    watermark_us == END_OF_TIME || instant_us.saturating_add(after_us) <= watermark_us
}

impl CarriedRows {
    fn push(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<u32> {
        let fields = (0..).zip(&columns).map(|(at, column)| state_field(at, column));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = record_batch(&schema, columns, rows)?;
        self.live += rows;
        self.store.get_or_insert_with(|| RowStore::new(schema)).push(&batch)
    }

    fn gather(&self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(match &self.store {
            Some(store) => store.gather(numbers)?.columns().to_vec(),
            None => Vec::new(),
        })
    }

    /// The states with these numbers, one after the other.
    fn take_out(&mut self, numbers: &[Option<u32>]) -> Result<impl Iterator<Item = Option<Vec<ArrayRef>>> + use<>> {
        let known: Vec<u32> = numbers.iter().flatten().copied().collect();
        let columns = self.gather(&known)?;
        self.live -= known.len();
        let mut rows = 0..known.len();
        let is_known: Vec<bool> = numbers.iter().map(Option::is_some).collect();
        Ok(is_known.into_iter().map(move |is_known| {
            let row = if is_known { rows.next()? } else { return None };
            Some(columns.iter().map(|column| column.slice(row, 1)).collect())
        }))
    }

    fn is_worth_copying(&self) -> bool {
        let Some(store) = &self.store else { return false };
        let is_much = store.rows() >= COMPACT_MIN || store.bytes() >= COPY_BYTES_MIN;
        is_much && self.live * 2 < store.rows()
    }

    /// Only these stay, with numbers from 0.
    fn copy_together(&mut self, kept: &[u32]) -> Result<()> {
        if let Some(store) = &mut self.store {
            let rows = without_spare_bytes(&store.gather(kept)?)?;
            store.clear();
            store.push(&rows)?;
        }
        Ok(())
    }

    fn clear(&mut self) {
        (self.store, self.live) = (None, 0);
    }

    fn bytes(&self) -> usize {
        self.store.as_ref().map_or(0, RowStore::bytes)
    }
}

impl KeyedStage for OverStage {
    type Spec = OverSpec;

    fn new(spec: Arc<OverSpec>) -> Self {
        let rows = KeyedRows::new(Arc::clone(&spec.input_schema), Arc::clone(&spec.partition_schema));
        Self { spec, rows, carried: CarriedRows::default(), waiting: Due::default(), given_us: BEFORE_TIME }
    }

    fn has_keys(spec: &OverSpec) -> bool {
        !spec.partition.is_empty()
    }

    fn keys(spec: &OverSpec, _side: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        evaluate_all(&spec.partition, rows)
    }

    fn push(&mut self, _side: usize, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        self.take_in(rows)?;
        Ok(Vec::new())
    }

    fn give(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        self.give_rows(watermark_us)
    }

    fn due_us(&mut self) -> Result<Option<i64>> {
        Ok(self.waiting.first_us())
    }

    /// Rows, and what is carried by key.
    fn take(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        let All { keys, memories, rows, .. } = self.rows.take()?;
        let (with, numbers): (Vec<u32>, Vec<u32>) =
            (0_u32..).zip(memories).filter_map(|(key, carried)| Some((key, carried?))).unzip();
        let states = self.carried.gather(&numbers)?;
        self.carried.clear();
        self.waiting = Due::default();
        let with = UInt32Array::from(with);
        let keys = keys.iter().map(|key| take(key, &with, None)).collect::<std::result::Result<Vec<_>, _>>()?;
        let of_keys = self.spec.partition_schema.fields().iter().cloned();
        let of_states = (0..).zip(&states).map(|(at, state)| state_field(at, state));
        let schema = Arc::new(Schema::new(of_keys.chain(of_states).collect::<Vec<_>>()));
        let carried = record_batch(&schema, [keys, states].concat(), numbers.len())?;
        Ok(vec![(0, rows), (1, carried)])
    }

    fn keys_of_part(spec: &OverSpec, part: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        match part {
            0 => evaluate_all(&spec.partition, rows),
            _ => Ok(rows.columns()[..spec.partition.len()].to_vec()),
        }
    }

    fn restore(&mut self, part: usize, state: &RecordBatch, given_us: i64) -> Result<()> {
        self.given_us = given_us;
        if part == 0 {
            return self.take_in(state);
        }
        let (keys, states) = state.columns().split_at(self.spec.partition.len());
        let numbers = self.rows.number(keys, state.num_rows())?.to_vec();
        let first = self.carried.push(states.to_vec(), state.num_rows())?;
        for (number, key) in (first..).zip(numbers) {
            *self.rows.memory_mut(key) = Some(number);
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.carried.bytes() + self.waiting.bytes()
    }
}

fn state_field(at: usize, state: &ArrayRef) -> Arc<Field> {
    Arc::new(Field::new(format!("state_{at}"), state.data_type().clone(), true))
}

impl OverFunction {
    /// Columns of the state that is carried.
    pub(crate) fn carried_width(&self) -> Result<usize> {
        Ok(match self {
            Self::Framed(_) => 0,
            Self::Counted(_) => 2,
            Self::Running { aggregate, .. } => aggregate.function.state_fields()?.len(),
        })
    }
}

/// The rows of one partition in order, and which of them are to be given out.
struct Fresh<'a> {
    part: &'a RecordBatch,
    new: Range<usize>,
}

impl Fresh<'_> {
    /// Adds the values of the new rows to the columns, and the states behind them to `next`.
    fn evaluate(
        &self,
        spec: &OverSpec,
        carried: Carried<'_>,
        columns: &mut [Vec<ArrayRef>],
        next: &mut [Vec<ScalarValue>],
    ) -> Result<()> {
        let mut begin = 0;
        for ((function, width), column) in spec.functions.iter().zip(&spec.carried_widths).zip(columns) {
            let of_function = begin..begin + width;
            begin += width;
            let before = carried.get(of_function.clone()).unwrap_or_default();
            let (values, after) = match function {
                OverFunction::Framed(expr) => {
                    (expr.evaluate(self.part)?.slice(self.new.start, self.new.len()), Vec::new())
                }
                OverFunction::Counted(what) => self.count(*what, &spec.order, before)?,
                OverFunction::Running { aggregate, until } => self.run(aggregate, *until, &spec.order, before)?,
            };
            column.push(values);
            next[of_function].iter_mut().zip(after).for_each(|(states, state)| states.push(state));
        }
        Ok(())
    }

    /// Stretches of new rows with equal order.
    fn peers(&self, order: &[PhysicalSortExpr]) -> Result<Vec<Range<usize>>> {
        let new = self.part.slice(self.new.start, self.new.len());
        if order.is_empty() || new.num_rows() == 0 {
            return Ok(std::iter::once(0..new.num_rows()).collect());
        }
        let columns =
            order.iter().map(|expr| Ok(expr.evaluate_to_sort_column(&new)?.values)).collect::<Result<Vec<_>>>()?;
        Ok(partition(&columns)?.ranges())
    }

    fn count(
        &self,
        what: Counted,
        order: &[PhysicalSortExpr],
        before: Carried<'_>,
    ) -> Result<(ArrayRef, Vec<ScalarValue>)> {
        let count = |at: usize| before.get(at).map_or(0, |count| count.as_primitive::<UInt64Type>().value(0));
        let (mut rows, mut distinct) = (count(0), count(1));
        let mut values = Vec::with_capacity(self.new.len());
        for peers in self.peers(order)? {
            distinct += u64::from(!peers.is_empty());
            let first = rows + 1;
            for _peer in peers {
                rows += 1;
                values.push(match what {
                    Counted::RowNumber => rows,
                    Counted::Rank => first,
                    Counted::DenseRank => distinct,
                });
            }
        }
        let after = vec![ScalarValue::UInt64(Some(rows)), ScalarValue::UInt64(Some(distinct))];
        Ok((Arc::new(UInt64Array::from(values)), after))
    }

    fn run(
        &self,
        aggregate: &Aggregated,
        until: Until,
        order: &[PhysicalSortExpr],
        before: Carried<'_>,
    ) -> Result<(ArrayRef, Vec<ScalarValue>)> {
        let new = self.part.slice(self.new.start, self.new.len());
        let rows = new.num_rows();
        let mut accumulator = aggregate.function.create_accumulator()?;
        if !before.is_empty() {
            accumulator.merge_batch(before)?;
        }
        let args = aggregate.args.iter().map(|arg| arg.evaluate(&new)?.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let mask = match &aggregate.filter {
            Some(filter) => Some(as_boolean_array(&filter.evaluate(&new)?.into_array(rows)?)?.clone()),
            None => None,
        };
        let steps = match until {
            Until::Before | Until::Row => (0..rows).map(|row| row..row + 1).collect(),
            Until::Peers => self.peers(order)?,
        };
        let mut values = Vec::with_capacity(rows);
        for step in steps {
            if until == Until::Before {
                values.push(accumulator.evaluate()?);
                update(accumulator.as_mut(), &args, mask.as_ref(), &step)?;
            } else {
                update(accumulator.as_mut(), &args, mask.as_ref(), &step)?;
                let value = accumulator.evaluate()?;
                values.extend(step.map(|_row| value.clone()));
            }
        }
        let column = match values.is_empty() {
            true => arrow::array::new_empty_array(aggregate.function.field().data_type()),
            false => ScalarValue::iter_to_array(values)?,
        };
        Ok((column, accumulator.state()?))
    }
}

fn update(
    accumulator: &mut dyn Accumulator,
    args: &[ArrayRef],
    mask: Option<&arrow::array::BooleanArray>,
    rows: &Range<usize>,
) -> Result<()> {
    let mut args: Vec<ArrayRef> = args.iter().map(|arg| arg.slice(rows.start, rows.len())).collect();
    if let Some(mask) = mask {
        let mask = mask.slice(rows.start, rows.len());
        args = args.iter().map(|arg| arrow::compute::filter(arg, &mask)).collect::<std::result::Result<_, _>>()?;
        if mask.true_count() == 0 {
            return Ok(());
        }
    }
    accumulator.update_batch(&args)
}

/// Positions by (partition, order, arrival).
pub(super) fn sorted_order(rows: &RecordBatch, ordinals: &[u32], order: &[PhysicalSortExpr]) -> Result<UInt32Array> {
    let plain = |values: ArrayRef| SortColumn { values, options: None };
    let mut columns = vec![plain(Arc::new(UInt32Array::from(ordinals.to_vec())))];
    for expr in order {
        columns.push(expr.evaluate_to_sort_column(rows)?);
    }
    let arrival = UInt32Array::from_iter_values(0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX));
    columns.push(plain(Arc::new(arrival)));
    Ok(lexsort_to_indices(&columns, None)?)
}

pub(super) fn instants_of(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<Int64Array> {
    let values = expr.evaluate(rows)?.into_array(rows.num_rows())?;
    let values = values
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| internal_datafusion_err!("the time of a row is {} and no timestamp", values.data_type()))?;
    if values.null_count() > 0 {
        return exec_err!("a row has no time, so nothing says when it is final");
    }
    Ok(Int64Array::new(values.values().clone(), None))
}
