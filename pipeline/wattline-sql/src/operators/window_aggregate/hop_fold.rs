//! Windows that hop over many panes, each merged from two parts instead of from all of its panes.
//!
//! ```text
//!   panes       │ 1 │ 2 │ 3 │ 4 │ 5 │ 6 │ 7 │
//!   front: what each window has up to the boundary      back: what came since
//!   window 1…4  [1 2 3 4]      │
//!   window 2…5    [2 3 4]      │ [5]
//!   window 3…6      [3 4]      │ [5 6]
//!   window 4…7        [4]      │ [5 6 7]
//!   window 5…8                 └ the boundary moves to the end of it, and the front is merged anew, from the last pane to the first
//! ```
//! A pane is merged once into the back and once into the front, whatever the number of windows that hold it. The parts are state rows beside
//! the panes, which stay: they can be dropped at any time.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::{AggregateSpec, Overlap, PanedWindows};

/// Panes of a window below which it is merged from them all.
const PANES_MIN: i64 = 6;

/// What is carried from one window to the next.
#[derive(Debug, Default)]
pub(super) struct HopFold {
    /// Of each window to come that begins before the boundary the state up to it, if it has any, by the window's start.
    front: BTreeMap<i64, Option<RecordBatch>>,
    /// The state from the boundary to `until`.
    back: Option<RecordBatch>,
    until: i64,
}

/// Merges state rows of panes; each group is in the result once.
pub(super) type Merge<'a> = &'a mut dyn FnMut(&[RecordBatch]) -> Result<RecordBatch>;

impl HopFold {
    /// Not if a state holds all values of its group: that of the front would hold them once for each window.
    pub(super) fn is_worth(spec: &AggregateSpec, paned: &PanedWindows) -> bool {
        let is_small = || {
            spec.aggregates.iter().all(|aggregate| {
                aggregate
                    .function
                    .state_fields()
                    .is_ok_and(|fields| fields.iter().all(|field| !field.data_type().is_nested()))
            })
        };
        matches!(paned.overlap, Overlap::Hop { .. }) && paned.size_us / paned.pane_us >= PANES_MIN && is_small()
    }

    pub(super) fn bytes(&self) -> usize {
        self.front.values().flatten().chain(&self.back).map(RecordBatch::get_array_memory_size).sum()
    }

    /// The state rows of the window that begins at `start`, in two parts; later windows are asked for later. All of its panes are complete.
    pub(super) fn window(
        &mut self,
        start: i64,
        paned: &PanedWindows,
        panes: &BTreeMap<i64, Vec<RecordBatch>>,
        merge: Merge<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let end = start.saturating_add(paned.size_us);
        let states = |from: i64, to: i64| -> Vec<RecordBatch> {
            panes.range(from..to).flat_map(|(_, of)| of).cloned().collect()
        };
        self.front = self.front.split_off(&start);
        if self.front.contains_key(&start) {
            let new = states(self.until, end);
            if !new.is_empty() {
                self.back = Some(merge(&[self.back.take().into_iter().collect(), new].concat())?);
            }
        } else {
            self.back = None;
            let (mut from, mut to) = (paned.last_window(end.saturating_sub(1)), end);
            let mut front: Option<RecordBatch> = None;
            while from >= start {
                let new = states(from, to);
                if !new.is_empty() {
                    front = Some(merge(&[front.take().into_iter().collect(), new].concat())?);
                }
                self.front.insert(from, front.clone());
                (from, to) = (from.saturating_sub(paned.step_us), from);
            }
        }
        self.until = end;
        Ok(self.front.get(&start).into_iter().flatten().chain(&self.back).cloned().collect())
    }
}
