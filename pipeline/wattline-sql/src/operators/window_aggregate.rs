//! Partial and final aggregation in tumbling windows.
//!
//! One hash table per window start (DataFusion's `GroupValues` and `GroupsAccumulator`s, kept alive across
//! batches) holds the groups of that window; a window's own columns are not part of its key. Workers
//! [`update`](PaneSet::update) and give up a window's groups as state rows when it is final or a snapshot is taken; the
//! final program [`merge`](PaneSet::merge)s them and evaluates a window when the watermark has passed its end.
//!
//! State rows of one window: `window_start_us` Int64, the group columns, the state columns of each accumulator in order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use datafusion::common::cast::{as_boolean_array, as_int64_array};
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::{Chunk, record_batch};
use crate::catalog::event_time_type;

/// What to aggregate.
#[derive(Debug)]
pub(crate) struct AggregateSpec {
    /// The window's start for each input row: `Timestamp(Microsecond, "UTC")`.
    pub(crate) bin: Arc<dyn PhysicalExpr>,
    /// Width of the window.
    pub(crate) size_us: i64,
    /// The other group columns.
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) key_schema: SchemaRef,
    pub(crate) aggregates: Vec<Aggregated>,
    /// Window start, keys, aggregates.
    pub(crate) output_schema: SchemaRef,
}

/// One aggregate function with its arguments.
#[derive(Debug)]
pub(crate) struct Aggregated {
    pub(crate) function: Arc<AggregateFunctionExpr>,
    pub(crate) args: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
}

/// The input of one update, fully evaluated, so that no error can leave half of a batch in the state.
#[derive(Debug)]
pub(crate) struct Partial {
    starts: Int64Array,
    keys: Vec<ArrayRef>,
    args: Vec<(Vec<ArrayRef>, Option<BooleanArray>)>,
}

impl AggregateSpec {
    /// Evaluates group columns and arguments for a chunk.
    fn evaluate(&self, chunk: &Chunk) -> Result<Partial> {
        let rows = chunk.len();
        let eval = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&chunk.batch)?.into_array(rows);
        let bins = eval(&self.bin)?;
        let bins = bins
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| internal_datafusion_err!("window start is {} and no timestamp", bins.data_type()))?;
        Ok(Partial {
            starts: Int64Array::new(bins.values().clone(), None),
            keys: self.keys.iter().map(eval).collect::<Result<_>>()?,
            args: self
                .aggregates
                .iter()
                .map(|aggregate| {
                    let args = aggregate.args.iter().map(eval).collect::<Result<Vec<_>>>()?;
                    let mask = aggregate.filter.as_ref().map(eval).transpose()?;
                    let mask = mask.map(|mask| as_boolean_array(&mask).cloned()).transpose()?;
                    Ok((args, mask))
                })
                .collect::<Result<_>>()?,
        })
    }

    fn new_pane(&self) -> Result<Pane> {
        let groups = if self.keys.is_empty() {
            None
        } else {
            Some(new_group_values(Arc::clone(&self.key_schema), &GroupOrdering::None)?)
        };
        let accumulators = self.aggregates.iter().map(|a| new_accumulator(&a.function)).collect::<Result<_>>()?;
        Ok(Pane { groups, accumulators, single: false })
    }
}

fn new_accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    let function = Arc::clone(function);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// The groups of one window.
struct Pane {
    /// `None` if the window itself is the only group.
    groups: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Whether the only group has a row.
    single: bool,
}

impl Pane {
    fn len(&self) -> usize {
        self.groups.as_ref().map_or(usize::from(self.single), |groups| groups.len())
    }

    fn bytes(&self) -> usize {
        let groups = self.groups.as_ref().map_or(0, |groups| groups.size());
        groups + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize, indices: &mut Vec<usize>) -> Result<usize> {
        indices.clear();
        match &mut self.groups {
            Some(groups) => {
                groups.intern(keys, indices)?;
                Ok(groups.len())
            }
            None => {
                self.single = true;
                indices.resize(rows, 0);
                Ok(1)
            }
        }
    }

    fn emit_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.groups.as_mut().map_or_else(|| Ok(Vec::new()), |groups| groups.emit(EmitTo::All))
    }
}

/// The open windows of one rule.
pub(crate) struct PaneSet {
    spec: Arc<AggregateSpec>,
    panes: BTreeMap<i64, Pane>,
    indices: Vec<usize>,
}

impl fmt::Debug for PaneSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaneSet").field("windows", &self.panes.len()).field("rows", &self.rows()).finish()
    }
}

impl PaneSet {
    pub(crate) fn new(spec: Arc<AggregateSpec>) -> Self {
        Self { spec, panes: BTreeMap::new(), indices: Vec::new() }
    }

    /// Number of groups in all open windows.
    pub(crate) fn rows(&self) -> usize {
        self.panes.values().map(Pane::len).sum()
    }

    /// Memory held by the open windows.
    pub(crate) fn bytes(&self) -> usize {
        self.panes.values().map(Pane::bytes).sum()
    }

    /// Evaluates what [`update`](Self::update) takes.
    pub(crate) fn evaluate(&self, chunk: &Chunk) -> Result<Partial> {
        self.spec.evaluate(chunk)
    }

    /// Adds evaluated rows to their windows.
    pub(crate) fn update(&mut self, partial: &Partial) -> Result<()> {
        for (start, rows) in rows_by_window(&partial.starts) {
            let Some(rows) = rows else {
                self.update_window(start, &partial.keys, &partial.args, partial.starts.len())?;
                continue;
            };
            let keys = take_all(&partial.keys, &rows)?;
            let args = partial
                .args
                .iter()
                .map(|(args, mask)| {
                    let mask = mask.as_ref().map(|mask| take(mask, &rows, None)).transpose()?;
                    let mask = mask.map(|mask| as_boolean_array(&mask).cloned()).transpose()?;
                    Ok((take_all(args, &rows)?, mask))
                })
                .collect::<Result<Vec<_>>>()?;
            self.update_window(start, &keys, &args, rows.len())?;
        }
        Ok(())
    }

    fn update_window(
        &mut self,
        start: i64,
        keys: &[ArrayRef],
        args: &[(Vec<ArrayRef>, Option<BooleanArray>)],
        rows: usize,
    ) -> Result<()> {
        let Self { spec, panes, indices } = self;
        let pane = pane_at(panes, spec, start)?;
        let groups = pane.intern(keys, rows, indices)?;
        for (accumulator, (args, mask)) in pane.accumulators.iter_mut().zip(args) {
            accumulator.update_batch(args, indices, mask.as_ref(), groups)?;
        }
        Ok(())
    }

    /// End of the earliest open window, microseconds since the epoch.
    pub(crate) fn first_end_us(&self) -> Option<i64> {
        self.panes.first_key_value().map(|(start, _)| end_of(*start, self.spec.size_us))
    }

    /// Takes out the windows that end at or before the watermark as state rows, each with its end.
    pub(crate) fn drain_until(&mut self, watermark_us: i64) -> Result<Vec<(i64, RecordBatch)>> {
        let mut drained = Vec::new();
        while let Some((start, mut pane)) = self.pop_until(watermark_us) {
            let rows = pane.len();
            let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![start; rows]))];
            columns.extend(pane.emit_keys()?);
            for accumulator in &mut pane.accumulators {
                columns.extend(accumulator.state(EmitTo::All)?);
            }
            let batch = record_batch(&state_schema(&columns, self.spec.keys.len()), columns, rows)?;
            drained.push((end_of(start, self.spec.size_us), batch));
        }
        Ok(drained)
    }

    /// The earliest window that has a group and ends at or before the watermark.
    fn pop_until(&mut self, watermark_us: i64) -> Option<(i64, Pane)> {
        loop {
            let entry = self.panes.first_entry()?;
            if end_of(*entry.key(), self.spec.size_us) > watermark_us {
                return None;
            }
            let (start, pane) = entry.remove_entry();
            if pane.len() > 0 {
                return Some((start, pane));
            }
        }
    }

    /// Adds state rows, except those of windows that ended at or before `final_at_us`.
    pub(crate) fn merge(&mut self, state: &RecordBatch, final_at_us: i64) -> Result<()> {
        let widths = self
            .spec
            .aggregates
            .iter()
            .map(|aggregate| Ok(aggregate.function.state_fields()?.len()))
            .collect::<Result<Vec<_>>>()?;
        let expected = 1 + self.spec.keys.len() + widths.iter().sum::<usize>();
        if state.num_columns() != expected {
            return Err(internal_datafusion_err!("state has {} columns and not {expected}", state.num_columns()));
        }
        let starts = as_int64_array(state.column(0))?.clone();
        for (start, rows) in rows_by_window(&starts) {
            if end_of(start, self.spec.size_us) <= final_at_us {
                continue;
            }
            let columns = match &rows {
                Some(rows) => take_all(&state.columns()[1..], rows)?,
                None => state.columns()[1..].to_vec(),
            };
            let count = rows.as_ref().map_or(starts.len(), Array::len);
            let (keys, mut states) = columns.split_at(self.spec.keys.len());
            let Self { spec, panes, indices } = self;
            let pane = pane_at(panes, spec, start)?;
            let groups = pane.intern(keys, count, indices)?;
            for (accumulator, width) in pane.accumulators.iter_mut().zip(&widths) {
                let (state, rest) = states.split_at(*width);
                accumulator.merge_batch(state, indices, groups)?;
                states = rest;
            }
        }
        Ok(())
    }

    /// Closes every window that ends at or before the watermark: one batch per window in order of time, rows in
    /// order of their group columns.
    pub(crate) fn close_until(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        let mut closed = Vec::new();
        while let Some((start, mut pane)) = self.pop_until(watermark_us) {
            let rows = pane.len();
            let keys = pane.emit_keys()?;
            let order = sorted_order(&keys)?;
            let starts = Int64Array::from(vec![start; rows]);
            let mut columns: Vec<ArrayRef> = vec![arrow::compute::cast(&starts, &event_time_type())?];
            columns.extend(keys);
            for accumulator in &mut pane.accumulators {
                columns.push(accumulator.evaluate(EmitTo::All)?);
            }
            if let Some(order) = order {
                columns = take_all(&columns, &order)?;
            }
            closed.push(record_batch(&self.spec.output_schema, columns, rows)?);
        }
        Ok(closed)
    }
}

fn pane_at<'a>(panes: &'a mut BTreeMap<i64, Pane>, spec: &AggregateSpec, start: i64) -> Result<&'a mut Pane> {
    use std::collections::btree_map::Entry;

    Ok(match panes.entry(start) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(spec.new_pane()?),
    })
}

fn end_of(start: i64, size_us: i64) -> i64 {
    start.saturating_add(size_us)
}

fn take_all(arrays: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    Ok(arrays.iter().map(|array| take(array, rows, None)).collect::<std::result::Result<_, _>>()?)
}

/// Row numbers per window in order of time; `None` stands for all rows, the common case.
fn rows_by_window(starts: &Int64Array) -> Vec<(i64, Option<UInt32Array>)> {
    let values = starts.values();
    let Some(&first) = values.first() else { return Vec::new() };
    if values.iter().all(|&start| start == first) {
        return vec![(first, None)];
    }
    let mut windows: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    let mut at = 0;
    while at < values.len() {
        let start = values[at];
        let run = values[at..].iter().take_while(|&&value| value == start).count();
        let rows = windows.entry(start).or_default();
        rows.extend((at..at + run).map(|row| u32::try_from(row).unwrap_or(u32::MAX)));
        at += run;
    }
    windows.into_iter().map(|(start, rows)| (start, Some(UInt32Array::from(rows)))).collect()
}

fn sorted_order(keys: &[ArrayRef]) -> Result<Option<UInt32Array>> {
    if keys.is_empty() {
        return Ok(None);
    }
    let converter = RowConverter::new(keys.iter().map(|key| SortField::new(key.data_type().clone())).collect())?;
    let rows = converter.convert_columns(keys)?;
    let mut order: Vec<u32> = (0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX)).collect();
    order.sort_unstable_by(|&a, &b| rows.row(a as usize).cmp(&rows.row(b as usize)));
    Ok(Some(UInt32Array::from(order)))
}

fn state_schema(columns: &[ArrayRef], keys: usize) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let name = match at {
                0 => "window_start_us".to_owned(),
                at if at <= keys => format!("key_{}", at - 1),
                at => format!("state_{}", at - keys - 1),
            };
            Field::new(name, column.data_type().clone(), true)
        })
        .collect();
    Arc::new(Schema::new(fields))
}
