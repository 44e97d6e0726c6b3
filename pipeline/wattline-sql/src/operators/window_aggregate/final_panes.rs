//! The open windows of one state in the process, merged from all workers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::row::{RowConverter, SortField};
use datafusion::common::cast::as_int64_array;
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::{AggregateSpec, Hops, Partial, pop_until, rows_by_window, take_all};
use crate::catalog::event_time_type;
use crate::operators::record_batch;

/// Aggregates by window and key.
pub(crate) struct FinalPanes {
    spec: Arc<AggregateSpec>,
    panes: BTreeMap<i64, Pane>,
    /// State rows of panes that are complete and in windows that are not final yet; see [`Hops`].
    complete: BTreeMap<i64, Vec<RecordBatch>>,
    groups: Vec<usize>,
}

/// The groups of one window.
struct Pane {
    /// `None` if the window itself is the only group.
    table: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl fmt::Debug for FinalPanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinalPanes").field("windows", &self.panes.len()).field("rows", &self.rows()).finish()
    }
}

impl FinalPanes {
    pub(crate) fn new(spec: Arc<AggregateSpec>) -> Self {
        Self { spec, panes: BTreeMap::new(), complete: BTreeMap::new(), groups: Vec::new() }
    }

    pub(crate) fn spec(&self) -> &Arc<AggregateSpec> {
        &self.spec
    }

    /// Number of groups in all open windows.
    pub(crate) fn rows(&self) -> usize {
        let complete: usize = self.complete.values().flatten().map(RecordBatch::num_rows).sum();
        complete + self.panes.values().map(Pane::len).sum::<usize>()
    }

    /// Memory held by the open windows.
    pub(crate) fn bytes(&self) -> usize {
        let of_pane = |pane: &Pane| {
            let table = pane.table.as_ref().map_or(0, |table| table.size());
            table + pane.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
        };
        let complete: usize = self.complete.values().flatten().map(RecordBatch::get_array_memory_size).sum();
        complete + self.panes.values().map(of_pane).sum::<usize>()
    }

    /// Adds state rows, except those of windows that were final at `final_at_us`.
    pub(crate) fn merge(&mut self, state: &RecordBatch, final_at_us: i64) -> Result<()> {
        let widths = self.widths()?;
        let expected = 1 + self.spec.keys.len() + widths.iter().sum::<usize>();
        if state.num_columns() != expected {
            return Err(internal_datafusion_err!("state has {} columns and not {expected}", state.num_columns()));
        }
        let starts = as_int64_array(state.column(0))?.clone();
        for (start, rows) in rows_by_window(&starts) {
            if self.spec.final_at(start) <= final_at_us {
                continue;
            }
            let columns = match &rows {
                Some(rows) => take_all(&state.columns()[1..], rows)?,
                None => state.columns()[1..].to_vec(),
            };
            let count = rows.as_ref().map_or(starts.len(), Array::len);
            pane_at(&mut self.panes, &self.spec, start)?.merge(
                &self.spec,
                &columns,
                count,
                &widths,
                &mut self.groups,
            )?;
        }
        Ok(())
    }

    /// How many state columns each aggregate has.
    fn widths(&self) -> Result<Vec<usize>> {
        self.spec.aggregates.iter().map(|aggregate| Ok(aggregate.function.state_fields()?.len())).collect()
    }

    /// Adds rows of an earlier stage, evaluated.
    pub(crate) fn update(&mut self, partial: &Partial) -> Result<()> {
        for (start, rows) in rows_by_window(&partial.starts) {
            let taken;
            let (part, count) = match &rows {
                None => (partial, partial.starts.len()),
                Some(rows) => {
                    taken = partial.take(rows)?;
                    (&taken, rows.len())
                }
            };
            let pane = pane_at(&mut self.panes, &self.spec, start)?;
            let groups = pane.intern(&part.keys, count, &mut self.groups)?;
            for (accumulator, (args, mask)) in pane.accumulators.iter_mut().zip(&part.args) {
                accumulator.update_batch(args, &self.groups, mask.as_ref(), groups)?;
            }
        }
        Ok(())
    }

    /// Closes every window that the watermark makes final and that was not at `given_us`: one batch per window in order of
    /// time, rows in order of their group columns.
    pub(crate) fn close_until(&mut self, given_us: i64, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        if let Some(hops) = self.spec.hops {
            return self.close_hops(hops, given_us, watermark_us);
        }
        let mut closed = Vec::new();
        while let Some((start, pane)) = pop_until(&mut self.panes, &self.spec, watermark_us) {
            closed.push(pane.close(&self.spec, start)?);
        }
        Ok(closed)
    }

    /// Merges the panes of each window that is final now.
    fn close_hops(&mut self, hops: Hops, given_us: i64, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        let Hops { slide_us, size_us } = hops;
        while let Some((start, mut pane)) = pop_until(&mut self.panes, &self.spec, watermark_us) {
            let rows = pane.len();
            let keys = pane.emit_keys()?;
            let (_, state) = self.spec.state_rows(start, keys, &mut pane.accumulators, rows)?;
            self.complete.entry(start).or_default().push(state);
        }
        let widths = self.widths()?;
        let mut closed = Vec::new();
        let mut next = i64::MIN;
        while let Some((&first, _)) = self.complete.first_key_value() {
            // The windows that hold the first pane, less those that were given before or just now.
            let earliest = first.saturating_sub(size_us - slide_us);
            let given = given_us.saturating_sub(self.spec.final_at(earliest)).div_euclid(slide_us).saturating_add(1);
            let mut start = earliest.saturating_add(given.max(0).saturating_mul(slide_us)).max(next);
            while start <= first && self.spec.final_at(start) <= watermark_us {
                let mut window = new_pane(&self.spec)?;
                for state in self.complete.range(start..start.saturating_add(size_us)).flat_map(|(_, states)| states) {
                    let columns = &state.columns()[1..];
                    window.merge(&self.spec, columns, state.num_rows(), &widths, &mut self.groups)?;
                }
                closed.push(window.close(&self.spec, start)?);
                start = start.saturating_add(slide_us);
            }
            next = start;
            if start <= first {
                break;
            }
            self.complete.remove(&first);
        }
        Ok(closed)
    }

    /// Takes out all windows as state rows, each with its end.
    pub(crate) fn drain(&mut self) -> Result<Vec<(i64, RecordBatch)>> {
        let mut drained = Vec::new();
        for (start, mut pane) in std::mem::take(&mut self.panes) {
            let rows = pane.len();
            let keys = pane.emit_keys()?;
            drained.push(self.spec.state_rows(start, keys, &mut pane.accumulators, rows)?);
        }
        for (start, states) in std::mem::take(&mut self.complete) {
            drained.extend(states.into_iter().map(|state| (self.spec.final_at(start), state)));
        }
        Ok(drained)
    }
}

impl Pane {
    /// Adds the state columns of so many rows, keys first.
    fn merge(
        &mut self,
        spec: &AggregateSpec,
        columns: &[ArrayRef],
        rows: usize,
        widths: &[usize],
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        let (keys, mut states) = columns.split_at(spec.keys.len());
        let known = self.intern(keys, rows, groups)?;
        for (accumulator, width) in self.accumulators.iter_mut().zip(widths) {
            let (state, rest) = states.split_at(*width);
            accumulator.merge_batch(state, groups, known)?;
            states = rest;
        }
        Ok(())
    }

    /// The rows of the window that begins at `start`.
    fn close(mut self, spec: &AggregateSpec, start: i64) -> Result<RecordBatch> {
        let rows = self.len();
        let keys = self.emit_keys()?;
        let order = sorted_order(&keys)?;
        let starts = Int64Array::from(vec![start; rows]);
        let mut columns: Vec<ArrayRef> = vec![arrow::compute::cast(&starts, &event_time_type())?];
        columns.extend(keys);
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        if let Some(order) = order {
            columns = take_all(&columns, &order)?;
        }
        record_batch(&spec.output_schema, columns, rows)
    }

    fn len(&self) -> usize {
        self.table.as_ref().map_or(1, |table| table.len())
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize, groups: &mut Vec<usize>) -> Result<usize> {
        groups.clear();
        match &mut self.table {
            Some(table) => table.intern(keys, groups)?,
            None => groups.resize(rows, 0),
        }
        Ok(self.len())
    }

    fn emit_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.table.as_mut().map_or_else(|| Ok(Vec::new()), |table| table.emit(EmitTo::All))
    }
}

/// The window's groups; a window exists only once it has a row.
fn pane_at<'a>(panes: &'a mut BTreeMap<i64, Pane>, spec: &AggregateSpec, start: i64) -> Result<&'a mut Pane> {
    use std::collections::btree_map::Entry;

    Ok(match panes.entry(start) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(new_pane(spec)?),
    })
}

fn new_pane(spec: &AggregateSpec) -> Result<Pane> {
    let schema = Arc::clone(&spec.key_schema);
    let keyed = !spec.keys.is_empty();
    let table = keyed.then(|| new_group_values(schema, &GroupOrdering::None)).transpose()?;
    Ok(Pane { table, accumulators: spec.new_accumulators()? })
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
