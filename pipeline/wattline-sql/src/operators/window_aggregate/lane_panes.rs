//! The open windows of one state in one worker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::cast::as_uint32_array;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::key_numbers::NumberedGroups;
use super::{AggregateSpec, KeyNumbers, Partial, pop_until, rows_by_window};

/// Partial aggregates by window and number of the key.
pub(crate) struct LanePanes {
    spec: Arc<AggregateSpec>,
    panes: BTreeMap<i64, Pane>,
    groups: Vec<usize>,
}

/// The groups of one window.
struct Pane {
    groups: NumberedGroups,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl fmt::Debug for LanePanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanePanes").field("windows", &self.panes.len()).field("rows", &self.rows()).finish()
    }
}

impl LanePanes {
    pub(crate) fn new(spec: Arc<AggregateSpec>) -> Self {
        Self { spec, panes: BTreeMap::new(), groups: Vec::new() }
    }

    /// What to aggregate.
    pub(crate) fn spec(&self) -> &Arc<AggregateSpec> {
        &self.spec
    }

    /// Number of groups in all open windows.
    pub(crate) fn rows(&self) -> usize {
        self.panes.values().map(|pane| pane.groups.len()).sum()
    }

    /// Memory held by the open windows.
    pub(crate) fn bytes(&self) -> usize {
        let of_pane = |pane: &Pane| {
            pane.groups.bytes() + pane.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
        };
        self.panes.values().map(of_pane).sum()
    }

    /// The lowest watermark that completes an open window, microseconds since the epoch.
    pub(crate) fn first_final_us(&self) -> Option<i64> {
        self.panes.first_key_value().map(|(start, _)| self.spec.complete_at(*start))
    }

    /// Adds evaluated rows, whose keys have these numbers, to their windows. Without group columns every number is 0.
    pub(crate) fn update(&mut self, partial: &Partial, numbers: &UInt32Array) -> Result<()> {
        for (start, rows) in rows_by_window(&partial.starts) {
            let Some(rows) = rows else {
                self.update_window(start, numbers, &partial.args)?;
                continue;
            };
            let numbers = take(numbers, &rows, None)?;
            let args = partial.take(&rows)?.args;
            self.update_window(start, as_uint32_array(&numbers)?, &args)?;
        }
        Ok(())
    }

    fn update_window(
        &mut self,
        start: i64,
        numbers: &UInt32Array,
        args: &[(Vec<ArrayRef>, Option<BooleanArray>)],
    ) -> Result<()> {
        use std::collections::btree_map::Entry;

        let pane = match self.panes.entry(start) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Pane { groups: NumberedGroups::default(), accumulators: self.spec.new_accumulators()? })
            }
        };
        pane.groups.find(numbers.values(), &mut self.groups);
        for (accumulator, (args, mask)) in pane.accumulators.iter_mut().zip(args) {
            accumulator.update_batch(args, &self.groups, mask.as_ref(), pane.groups.len())?;
        }
        Ok(())
    }

    /// Takes out the windows that end at or before the watermark as state rows, each with its end.
    pub(crate) fn drain_until(
        &mut self,
        watermark_us: i64,
        mut keys: Option<&mut KeyNumbers>,
    ) -> Result<Vec<(i64, RecordBatch)>> {
        let mut drained = Vec::new();
        while let Some((start, mut pane)) = pop_until(&mut self.panes, &self.spec, watermark_us) {
            let rows = pane.groups.len();
            let keys = match &mut keys {
                Some(keys) => keys.keys(&pane.groups.into_numbers())?,
                None => Vec::new(),
            };
            let state = self.spec.state_rows(start, keys, &mut pane.accumulators, (EmitTo::All, rows))?;
            drained.push((self.spec.needed_until(start), state));
        }
        Ok(drained)
    }
}
