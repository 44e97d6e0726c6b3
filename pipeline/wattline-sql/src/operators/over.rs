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

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{SortColumn, concat, lexsort_to_indices, partition, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{ScalarValue, exec_err, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::exchange::KeyedStage;
use super::keyed_rows::{All, KeyedRows, Place};
use super::window_aggregate::Aggregated;
use super::{evaluate_all, record_batch};

/// Window functions with the same partitions and order.
#[derive(Debug)]
pub(crate) struct OverSpec {
    pub(crate) partition: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) partition_schema: SchemaRef,
    pub(crate) order: Vec<PhysicalSortExpr>,
    /// The instant that decides when a row is final: its event time, or the window that is its partition.
    pub(crate) instant: Arc<dyn PhysicalExpr>,
    /// How far past it the watermark must be, microseconds.
    pub(crate) final_after_us: i64,
    pub(crate) functions: Vec<OverFunction>,
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
    /// An aggregate from the first row of the partition on; `by_peers`: rows of equal order come in together.
    Running { aggregate: Aggregated, by_peers: bool },
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
}

impl OverSpec {
    fn carries(&self) -> bool {
        self.functions.iter().any(|function| !matches!(function, OverFunction::Framed(_)))
    }
}

/// What is carried of a partition for one function: the state of an accumulator, or counts.
type Carried = Vec<Vec<ScalarValue>>;
/// Memory of it, about.
const CARRIED_BYTES: usize = 192;

/// The rows that are kept and carried for an [`OverSpec`].
#[derive(Debug)]
pub(crate) struct OverStage {
    spec: Arc<OverSpec>,
    rows: KeyedRows<Carried>,
    /// Partitions with rows that wait, by the instant of the row.
    waiting: BTreeMap<i64, Vec<usize>>,
    /// Rows were taken back: those that wait are not known yet.
    restored: bool,
    /// Everything final at this watermark was given out.
    given_us: i64,
}

impl OverStage {
    fn new(spec: Arc<OverSpec>) -> Self {
        let rows = KeyedRows::new(Arc::clone(&spec.input_schema), Arc::clone(&spec.partition_schema));
        Self { spec, rows, waiting: BTreeMap::new(), restored: false, given_us: BEFORE_TIME }
    }

    fn give_rows(&mut self, watermark_us: i64) -> Result<Option<RecordBatch>> {
        self.find_restored()?;
        let mut ready = self.take_ready(watermark_us);
        let given_us = std::mem::replace(&mut self.given_us, watermark_us);
        ready.sort_unstable();
        ready.dedup();
        let output = match ready.is_empty() {
            true => None,
            false => Some(self.evaluate(&ready, given_us, watermark_us)?),
        };
        if watermark_us == END_OF_TIME {
            self.rows.clear();
        } else if self.rows.compact_if_worth()? {
            self.find_waiting()?;
        }
        Ok(output)
    }

    fn take_in(&mut self, input: &RecordBatch) -> Result<()> {
        self.find_restored()?;
        let input = record_batch(&self.spec.input_schema, input.columns().to_vec(), input.num_rows())?;
        let keys = evaluate_all(&self.spec.partition, &input)?;
        let instants = instants_of(&self.spec.instant, &input)?;
        for (key, instant) in self.rows.push(&keys, &input)?.iter().zip(instants.values()) {
            let waiting = self.waiting.entry(*instant).or_default();
            if waiting.last() != Some(key) {
                waiting.push(*key);
            }
        }
        Ok(())
    }

    fn is_final(&self, instant_us: i64, watermark_us: i64) -> bool {
        watermark_us == END_OF_TIME || instant_us.saturating_add(self.spec.final_after_us) <= watermark_us
    }

    /// The partitions with rows that are final.
    fn take_ready(&mut self, watermark_us: i64) -> Vec<usize> {
        let mut ready = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            let final_at_us = first.key().saturating_add(self.spec.final_after_us);
            if watermark_us != END_OF_TIME && final_at_us > watermark_us {
                break;
            }
            ready.extend(first.remove());
        }
        ready
    }

    /// Evaluates the functions for the new final rows of some partitions.
    fn evaluate(&mut self, ready: &[usize], given_us: i64, watermark_us: i64) -> Result<RecordBatch> {
        let spec = Arc::clone(&self.spec);
        let mut places: Vec<Place> = Vec::new();
        let mut ordinals: Vec<u32> = Vec::new();
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(ready.len());
        for (ordinal, key) in (0_u32..).zip(ready) {
            let start = places.len();
            places.extend(&self.rows.entry_mut(*key).places);
            ordinals.resize(places.len(), ordinal);
            ranges.push(start..places.len());
        }
        let rows = self.rows.gather(&places)?;
        let order = sorted_order(&rows, &ordinals, &spec.order)?;
        let rows = take_record_batch(&rows, &order)?;
        let instants = instants_of(&spec.instant, &rows)?;
        let sorted_place = |at: usize| places[order.value(at) as usize];
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(ready.len()); spec.functions.len()];
        let mut given: Vec<u32> = Vec::with_capacity(rows.num_rows());
        for (key, range) in ready.iter().zip(ranges) {
            // In the order of time, so these are three stretches; all rows of a partition that is a window are in one.
            let times = &instants.values()[range.clone()];
            let old = match given_us {
                BEFORE_TIME => 0,
                given_us => times.partition_point(|us| self.is_final(*us, given_us)),
            };
            let ripe = times.partition_point(|us| self.is_final(*us, watermark_us));
            let part = rows.slice(range.start, range.len());
            let fresh = Fresh { part: &part, new: old..ripe };
            let carried = self.rows.entry_mut(*key).memory.take();
            let carried = fresh.evaluate(&spec.functions, &spec.order, carried, &mut columns)?;
            given.extend((range.start + old..range.start + ripe).map(|at| u32::try_from(at).unwrap_or(u32::MAX)));
            let oldest_us = spec.keep.within_us.map(|within_us| {
                watermark_us.saturating_sub(spec.final_after_us).saturating_add(1).saturating_sub(within_us)
            });
            let keeps = |at: usize| {
                at >= ripe
                    || at < spec.keep.first
                    || at + spec.keep.last >= ripe
                    || oldest_us.is_some_and(|oldest_us| times[at] >= oldest_us)
            };
            let over = watermark_us == END_OF_TIME;
            let kept = (0..range.len()).filter(|at| !over && keeps(*at)).map(|at| sorted_place(range.start + at));
            self.rows.keep(*key, kept.collect());
            self.rows.entry_mut(*key).memory = carried.filter(|_| !over);
        }
        let given = take_record_batch(&rows, &UInt32Array::from(given))?;
        let mut output = given.columns().to_vec();
        for parts in &columns {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            output.push(concat(&parts)?);
        }
        record_batch(&spec.schema, output, given.num_rows())
    }

    fn find_restored(&mut self) -> Result<()> {
        if std::mem::take(&mut self.restored) { self.find_waiting() } else { Ok(()) }
    }

    fn find_waiting(&mut self) -> Result<()> {
        self.waiting.clear();
        let rows = self.rows.all()?.rows;
        let keys = evaluate_all(&self.spec.partition, &rows)?;
        let instants = instants_of(&self.spec.instant, &rows)?;
        let numbers = self.rows.number(&keys, rows.num_rows())?.to_vec();
        for (key, instant) in numbers.into_iter().zip(instants.values()) {
            if self.given_us == BEFORE_TIME || !self.is_final(*instant, self.given_us) {
                self.waiting.entry(*instant).or_default().push(key);
            }
        }
        Ok(())
    }
}

impl KeyedStage for OverStage {
    type Spec = OverSpec;

    fn new(spec: Arc<OverSpec>) -> Self {
        Self::new(spec)
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
        Ok(self.give_rows(watermark_us)?.into_iter().collect())
    }

    fn due_us(&mut self) -> Result<Option<i64>> {
        self.find_restored()?;
        Ok(self.waiting.keys().next().map(|first_us| first_us.saturating_add(self.spec.final_after_us)))
    }

    /// Rows, and what is carried by key.
    fn dump(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        let (carries, partition_schema) = (self.spec.carries(), Arc::clone(&self.spec.partition_schema));
        let All { keys, entries, rows } = self.rows.all()?;
        let mut parts = vec![(0, rows)];
        if carries {
            let kept: Vec<u32> =
                (0_u32..).zip(entries).filter(|(_, entry)| entry.memory.is_some()).map(|(at, _)| at).collect();
            let mut fields: Vec<Arc<Field>> = partition_schema.fields().iter().cloned().collect();
            let kept_keys = UInt32Array::from(kept.clone());
            let mut columns = keys
                .iter()
                .map(|key| arrow::compute::take(key, &kept_keys, None))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let carried: Vec<&Carried> = entries.iter().filter_map(|entry| entry.memory.as_ref()).collect();
            let widths: Vec<usize> = carried.first().map_or(Vec::new(), |of| of.iter().map(Vec::len).collect());
            for (function, width) in widths.into_iter().enumerate() {
                for at in 0..width {
                    let column = ScalarValue::iter_to_array(carried.iter().map(|of| of[function][at].clone()))?;
                    fields.push(Arc::new(Field::new(format!("f{function}_{at}"), column.data_type().clone(), true)));
                    columns.push(column);
                }
            }
            parts.push((1, record_batch(&Arc::new(Schema::new(fields)), columns, kept.len())?));
        }
        self.find_waiting()?;
        self.restored = false;
        Ok(parts)
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
            let rows = record_batch(&self.spec.input_schema, state.columns().to_vec(), state.num_rows())?;
            let keys = evaluate_all(&self.spec.partition, &rows)?;
            self.rows.push(&keys, &rows)?;
            self.restored = true;
            return Ok(());
        }
        let (keys, states) = state.columns().split_at(self.spec.partition.len());
        let widths = self.spec.functions.iter().map(OverFunction::carried_width).collect::<Result<Vec<_>>>()?;
        let numbers = self.rows.number(keys, state.num_rows())?.to_vec();
        for (row, key) in numbers.into_iter().enumerate() {
            let mut rest = states;
            let mut carried = Vec::with_capacity(widths.len());
            for width in &widths {
                let (of_function, others) = rest.split_at((*width).min(rest.len()));
                rest = others;
                carried.push(
                    of_function
                        .iter()
                        .map(|column| ScalarValue::try_from_array(column, row))
                        .collect::<Result<Vec<_>>>()?,
                );
            }
            self.rows.entry_mut(key).memory = Some(carried);
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        let carried =
            self.spec.functions.iter().filter(|function| !matches!(function, OverFunction::Framed(_))).count();
        self.rows.bytes() + self.rows.keys() * carried * CARRIED_BYTES
    }
}

impl OverFunction {
    fn carried_width(&self) -> Result<usize> {
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
    fn evaluate(
        &self,
        functions: &[OverFunction],
        order: &[PhysicalSortExpr],
        carried: Option<Carried>,
        columns: &mut [Vec<ArrayRef>],
    ) -> Result<Option<Carried>> {
        let mut next: Carried = Vec::with_capacity(functions.len());
        let mut carries = false;
        for (at, (function, column)) in functions.iter().zip(columns).enumerate() {
            let before = carried.as_ref().map(|carried| carried[at].as_slice()).filter(|before| !before.is_empty());
            let (values, after) = match function {
                OverFunction::Framed(expr) => {
                    (expr.evaluate(self.part)?.slice(self.new.start, self.new.len()), Vec::new())
                }
                OverFunction::Counted(what) => self.count(*what, order, before)?,
                OverFunction::Running { aggregate, by_peers } => self.run(aggregate, *by_peers, order, before)?,
            };
            carries |= !matches!(function, OverFunction::Framed(_));
            column.push(values);
            next.push(after);
        }
        Ok(carries.then_some(next))
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
        before: Option<&[ScalarValue]>,
    ) -> Result<(ArrayRef, Vec<ScalarValue>)> {
        let count = |at: usize| match before.and_then(|before| before.get(at)) {
            Some(ScalarValue::UInt64(Some(count))) => *count,
            _ => 0,
        };
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
        by_peers: bool,
        order: &[PhysicalSortExpr],
        before: Option<&[ScalarValue]>,
    ) -> Result<(ArrayRef, Vec<ScalarValue>)> {
        let new = self.part.slice(self.new.start, self.new.len());
        let rows = new.num_rows();
        let mut accumulator = aggregate.function.create_accumulator()?;
        if let Some(before) = before {
            let state = before.iter().map(|value| value.to_array()).collect::<Result<Vec<_>>>()?;
            accumulator.merge_batch(&state)?;
        }
        let args = aggregate.args.iter().map(|arg| arg.evaluate(&new)?.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let mask = match &aggregate.filter {
            Some(filter) => Some(as_boolean_array(&filter.evaluate(&new)?.into_array(rows)?)?.clone()),
            None => None,
        };
        let steps = if by_peers { self.peers(order)? } else { (0..rows).map(|row| row..row + 1).collect() };
        let mut values = Vec::with_capacity(rows);
        for step in steps {
            update(accumulator.as_mut(), &args, mask.as_ref(), &step)?;
            let value = accumulator.evaluate()?;
            values.extend(step.map(|_row| value.clone()));
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
