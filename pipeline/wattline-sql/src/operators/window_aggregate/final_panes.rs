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

use super::{AggregateSpec, Partial, pop_until, rows_by_window, take_all};
use crate::catalog::event_time_type;
use crate::operators::record_batch;

/// Aggregates by window and key.
pub(crate) struct FinalPanes {
    spec: Arc<AggregateSpec>,
    panes: BTreeMap<i64, Pane>,
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
        Self { spec, panes: BTreeMap::new(), groups: Vec::new() }
    }

    pub(crate) fn spec(&self) -> &Arc<AggregateSpec> {
        &self.spec
    }

    /// Number of groups in all open windows.
    pub(crate) fn rows(&self) -> usize {
        self.panes.values().map(Pane::len).sum()
    }

    /// Memory held by the open windows.
    pub(crate) fn bytes(&self) -> usize {
        let of_pane = |pane: &Pane| {
            let table = pane.table.as_ref().map_or(0, |table| table.size());
            table + pane.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
        };
        self.panes.values().map(of_pane).sum()
    }

    /// Adds state rows, except those of windows that were final at `final_at_us`.
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
            if self.spec.final_at(start) <= final_at_us {
                continue;
            }
            let columns = match &rows {
                Some(rows) => take_all(&state.columns()[1..], rows)?,
                None => state.columns()[1..].to_vec(),
            };
            let count = rows.as_ref().map_or(starts.len(), Array::len);
            let (keys, mut states) = columns.split_at(self.spec.keys.len());
            let pane = pane_at(&mut self.panes, &self.spec, start)?;
            let groups = pane.intern(keys, count, &mut self.groups)?;
            for (accumulator, width) in pane.accumulators.iter_mut().zip(&widths) {
                let (state, rest) = states.split_at(*width);
                accumulator.merge_batch(state, &self.groups, groups)?;
                states = rest;
            }
        }
        Ok(())
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

    /// Closes every window that the watermark makes final: one batch per window in order of time, rows in
    /// order of their group columns.
    pub(crate) fn close_until(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        let mut closed = Vec::new();
        while let Some((start, mut pane)) = pop_until(&mut self.panes, &self.spec, watermark_us) {
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

    /// Takes out all windows as state rows, each with its end.
    pub(crate) fn drain(&mut self) -> Result<Vec<(i64, RecordBatch)>> {
        let mut drained = Vec::new();
        for (start, mut pane) in std::mem::take(&mut self.panes) {
            let rows = pane.len();
            let keys = pane.emit_keys()?;
            drained.push(self.spec.state_rows(start, keys, &mut pane.accumulators, rows)?);
        }
        Ok(drained)
    }
}

impl Pane {
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
        Entry::Vacant(entry) => {
            let schema = Arc::clone(&spec.key_schema);
            let keyed = !spec.keys.is_empty();
            let table = keyed.then(|| new_group_values(schema, &GroupOrdering::None)).transpose()?;
            entry.insert(Pane { table, accumulators: spec.new_accumulators()? })
        }
    })
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
