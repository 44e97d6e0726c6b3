//! The open windows of one state in the process, merged from all workers.
//!
//! A window's groups are in a hash table, and in sorted runs if memory had to be given back ([`FinalPanes::spill`]). When such a
//! window is final, the runs and the table are merged by key, and its rows are given in parts.
//!
//! States whose keys have the same types number them together ([`SharedKeyNumbers`]): a key that comes for all of them is hashed once, is in memory
//! once, and is put in order once when their windows end.
//!
//! What a snapshot gives back is left as it came, so that a restart takes no longer than reading it: it comes into the tables little by
//! little ([`FinalPanes::take_in`]), or when its window is needed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{take, take_record_batch};
use datafusion::common::cast::as_int64_array;
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use wattline_core::time::BEFORE_TIME;

use super::hop_fold::HopFold;
use super::key_numbers::{KeyNumbers, NumberedGroups, SharedKeyNumbers, SortedKeys};
use super::{AggregateSpec, Overlap, PanedWindows, Partial, rows_by_window, take_all};
use crate::catalog::event_time_type;
use crate::operators::exchange::KeyedStage;
use crate::operators::spill::{Merged, RUNS_MAX, Run, RunWriter, Scratch, filled_bytes, is_of_writing, key_order};
use crate::operators::{Chunk, halving, record_batch};

/// Aggregates by window and key.
pub(crate) struct FinalPanes {
    spec: Arc<AggregateSpec>,
    /// Of windows that begin from now on; without them each window has a table of its own.
    numbers: Option<SharedKeyNumbers>,
    panes: BTreeMap<i64, Pane>,
    /// State rows of panes that are complete and in windows that are not final yet; see [`PanedWindows`].
    complete: BTreeMap<i64, Vec<RecordBatch>>,
    /// What of a window, or of a pane, is on disk.
    runs: BTreeMap<i64, Vec<Run>>,
    /// State rows that were restored and are in no table yet, of windows or panes that are not complete.
    restored: BTreeMap<i64, Vec<RecordBatch>>,
    /// Memory of these.
    restored_bytes: usize,
    closing: Option<Closing>,
    /// What is carried from one window that hops to the next.
    fold: Option<HopFold>,
    /// Windows that overlap and begin before this have been given.
    given_until: i64,
    /// What was final at this watermark had been given when the state was taken back.
    restored_us: i64,
    groups: Vec<usize>,
}

/// What became final, or a part of it.
#[derive(Debug)]
pub(crate) struct Closed {
    /// In order of time, and of the group columns within a window.
    pub(crate) batches: Vec<RecordBatch>,
    /// Call again for the rest.
    pub(crate) more: bool,
}

/// A window whose groups come from disk.
#[derive(Debug)]
struct Closing {
    start: i64,
    merged: Merged,
    part_rows: usize,
    /// The groups that have come and were not given.
    pane: Pane,
}

/// The groups of one window.
struct Pane {
    groups: Groups,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

enum Groups {
    /// The window itself is the only one.
    One,
    /// They are found by their keys.
    Keyed(Box<dyn GroupValues>),
    /// They are found by the numbers of their keys.
    Numbered(NumberedGroups, SharedKeyNumbers),
}

impl fmt::Debug for Pane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pane").field("groups", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for FinalPanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinalPanes").field("windows", &self.panes.len()).field("rows", &self.rows()).finish()
    }
}

impl FinalPanes {
    pub(crate) fn new(spec: Arc<AggregateSpec>) -> Self {
        Self {
            spec,
            numbers: None,
            panes: BTreeMap::new(),
            complete: BTreeMap::new(),
            runs: BTreeMap::new(),
            restored: BTreeMap::new(),
            restored_bytes: 0,
            closing: None,
            fold: None,
            given_until: i64::MIN,
            restored_us: BEFORE_TIME,
            groups: Vec::new(),
        }
    }

    /// Numbers the keys of windows that begin from now on together with others.
    pub(crate) fn number_with(&mut self, numbers: &SharedKeyNumbers) {
        self.numbers = Some(Arc::clone(numbers));
    }

    /// The groups of the largest window whose keys have these numbers.
    pub(crate) fn most_numbered(&self, numbers: &SharedKeyNumbers) -> usize {
        let of_pane = |pane: &Pane| match &pane.groups {
            Groups::Numbered(groups, of) if Arc::ptr_eq(of, numbers) => groups.len(),
            _ => 0,
        };
        self.panes.values().map(of_pane).max().unwrap_or_default()
    }

    /// Number of groups in all open windows; one that is partly on disk, or was restored, counts there and here.
    pub(crate) fn rows(&self) -> usize {
        let as_rows: usize =
            self.complete.values().chain(self.restored.values()).flatten().map(RecordBatch::num_rows).sum();
        let runs: usize = self.runs.values().flatten().map(|run| run.rows).sum();
        as_rows + runs + self.panes.values().map(Pane::len).sum::<usize>()
    }

    /// Memory held by the open windows.
    pub(crate) fn bytes(&self) -> usize {
        let complete: usize = self.complete.values().flatten().map(RecordBatch::get_array_memory_size).sum();
        complete
            + self.restored_bytes
            + self.fold.as_ref().map_or(0, HopFold::bytes)
            + self.panes.values().map(Pane::bytes).sum::<usize>()
    }

    /// Adds state rows, except those of windows that were final at `final_at_us`.
    pub(crate) fn merge(&mut self, state: &RecordBatch, final_at_us: i64) -> Result<()> {
        let widths = self.widths()?;
        check_width(&self.spec, &widths, state)?;
        let starts = as_int64_array(state.column(0))?.clone();
        for (start, rows) in rows_by_window(&starts) {
            if self.spec.needed_until(start) <= final_at_us {
                continue;
            }
            let columns = match &rows {
                Some(rows) => take_all(&state.columns()[1..], rows)?,
                None => state.columns()[1..].to_vec(),
            };
            let count = rows.as_ref().map_or(starts.len(), Array::len);
            pane_at(&mut self.panes, (&self.spec, self.numbers.as_ref()), start)?.merge(
                &self.spec,
                &columns,
                count,
                &widths,
                &mut self.groups,
            )?;
        }
        Ok(())
    }

    /// As [`merge`](Self::merge), of a snapshot: the rows come into the tables later.
    pub(crate) fn restore_later(&mut self, state: &RecordBatch, final_at_us: i64) -> Result<()> {
        check_width(&self.spec, &self.widths()?, state)?;
        for (start, rows) in rows_by_window(as_int64_array(state.column(0))?) {
            if self.spec.needed_until(start) > final_at_us {
                let rows = rows.map_or_else(|| Ok(state.clone()), |rows| take_record_batch(state, &rows))?;
                self.restored_bytes += filled_bytes(&rows);
                self.restored.entry(start).or_default().push(rows);
            }
        }
        Ok(())
    }

    /// Brings restored rows into the tables of their windows, about so many at most, and says how many.
    pub(crate) fn take_in(&mut self, rows_max: usize) -> Result<usize> {
        let mut taken = 0;
        while taken < rows_max
            && let Some(start) = self.restored.keys().next()
        {
            taken += self.take_in_of(*start, rows_max - taken)?;
        }
        Ok(taken)
    }

    fn take_in_of(&mut self, start: i64, rows_max: usize) -> Result<usize> {
        let Some(mut states) = self.restored.remove(&start) else { return Ok(0) };
        let (widths, pane) = (self.widths()?, pane_at(&mut self.panes, (&self.spec, self.numbers.as_ref()), start)?);
        let mut taken = 0;
        while taken < rows_max
            && let Some(mut state) = states.pop()
        {
            let left = state.num_rows().saturating_sub(rows_max - taken);
            if left > 0 {
                states.push(state.slice(0, left));
                state = state.slice(left, state.num_rows() - left);
            }
            pane.merge(&self.spec, &state.columns()[1..], state.num_rows(), &widths, &mut self.groups)?;
            self.restored_bytes = self.restored_bytes.saturating_sub(filled_bytes(&state));
            taken += state.num_rows();
        }
        if !states.is_empty() {
            self.restored.insert(start, states);
        }
        Ok(taken)
    }

    /// How many state columns each aggregate has.
    fn widths(&self) -> Result<Vec<usize>> {
        self.spec.aggregates.iter().map(|aggregate| Ok(aggregate.function.state_fields()?.len())).collect()
    }

    /// Adds rows of an earlier stage, evaluated.
    fn update(&mut self, partial: &Partial) -> Result<()> {
        for (start, rows) in rows_by_window(&partial.starts) {
            let taken;
            let (part, count) = match &rows {
                None => (partial, partial.starts.len()),
                Some(rows) => {
                    taken = partial.take(rows)?;
                    (&taken, rows.len())
                }
            };
            let pane = pane_at(&mut self.panes, (&self.spec, self.numbers.as_ref()), start)?;
            let groups = pane.intern(&part.keys, count, &mut self.groups)?;
            for (accumulator, (args, mask)) in pane.accumulators.iter_mut().zip(&part.args) {
                accumulator.update_batch(args, &self.groups, mask.as_ref(), groups)?;
            }
        }
        Ok(())
    }

    /// Closes every window that the watermark makes final and that was not at `given_us`: a batch for each, or, of a window
    /// that is on disk, several one by one.
    /// After `part_rows` or a few more the rest waits for the next call.
    pub(crate) fn close_until(&mut self, given_us: i64, watermark_us: i64, part_rows: usize) -> Result<Closed> {
        self.complete_panes(watermark_us)?;
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut rows = 0;
        loop {
            if rows > part_rows {
                return Ok(Closed { batches, more: true });
            }
            if let Some(mut closing) = self.closing.take() {
                let (batch, is_over) = self.close_part(&mut closing)?;
                batches.extend(batch);
                if !is_over {
                    self.closing = Some(closing);
                }
                return Ok(Closed { batches, more: true });
            }
            let Some(start) = self.next_final(given_us, watermark_us) else {
                return Ok(Closed { batches, more: false });
            };
            let window = match self.close_window(start) {
                // What was taken out is given; the next call begins where the disk was full.
                Err(error) if is_of_writing(&error) && !batches.is_empty() => {
                    return Ok(Closed { batches, more: true });
                }
                window => window?,
            };
            rows += window.as_ref().map_or(0, RecordBatch::num_rows);
            batches.extend(window);
        }
    }

    /// Panes to which no event comes any more become state rows, from which each window is made that holds them.
    fn complete_panes(&mut self, watermark_us: i64) -> Result<()> {
        if self.spec.paned.is_none() {
            return Ok(());
        }
        let spec = Arc::clone(&self.spec);
        let is_complete = |start: i64| spec.complete_at(start) <= watermark_us;
        while let Some(start) = self.restored.keys().copied().next().filter(|start| is_complete(*start)) {
            self.take_in_of(start, usize::MAX)?;
        }
        while let Some(entry) = self.panes.first_entry().filter(|entry| is_complete(*entry.key())) {
            let (start, pane) = entry.remove_entry();
            let (_, state) = pane.into_state(&self.spec, start)?;
            self.complete.entry(start).or_default().push(state);
        }
        for start in self.runs.keys().copied().take_while(|start| is_complete(*start)) {
            self.complete.entry(start).or_default();
        }
        Ok(())
    }

    /// The earliest window that is to be given.
    fn next_final(&mut self, given_us: i64, watermark_us: i64) -> Option<i64> {
        let Some(paned) = self.spec.paned else {
            let starts = [self.panes.keys().next(), self.runs.keys().next(), self.restored.keys().next()];
            let start = *starts.into_iter().flatten().min()?;
            return (self.spec.final_at(start) <= watermark_us).then_some(start);
        };
        loop {
            let first = *self.complete.keys().next()?;
            // The windows that hold the first pane, less those that were given before or just now.
            let (earliest, last, step_us) = (paned.first_window(first), paned.last_window(first), paned.step_us);
            let given = given_us.saturating_sub(self.spec.final_at(earliest)).div_euclid(step_us).saturating_add(1);
            let start = earliest.saturating_add(given.max(0).saturating_mul(step_us)).max(self.given_until);
            if start <= last {
                return (self.spec.final_at(start) <= watermark_us).then_some(start);
            }
            self.complete.remove(&first);
            self.runs.remove(&first);
        }
    }

    /// The rows of a window; `None` if it is on disk and [`Self::closing`] from now on. If the disk does not take what is to be merged
    /// there, nothing has changed.
    fn close_window(&mut self, start: i64) -> Result<Option<RecordBatch>> {
        let given_until = self.given_until;
        let closed = self.take_window(start);
        if closed.is_err() {
            self.given_until = given_until;
        }
        closed
    }

    fn take_window(&mut self, start: i64) -> Result<Option<RecordBatch>> {
        let (mut runs, mut states) = (Vec::new(), Vec::new());
        match self.spec.paned {
            None => {
                self.take_in_of(start, usize::MAX)?;
                runs.extend(self.runs.remove(&start).into_iter().flatten());
                if let Some(pane) = self.panes.remove(&start) {
                    if runs.is_empty() {
                        return pane.close(&self.spec, start).map(Some);
                    }
                    states.push(pane.into_state(&self.spec, start)?.1);
                }
            }
            Some(paned) => {
                let panes = paned.panes_of(start);
                runs.extend(self.runs.range(panes.clone()).flat_map(|(_, runs)| runs).cloned());
                states = match HopFold::is_worth(&self.spec, &paned) && runs.is_empty() {
                    true => self.folded(start, &paned)?,
                    false => self.complete.range(panes).flat_map(|(_, states)| states).cloned().collect(),
                };
                self.given_until = start.saturating_add(paned.step_us);
            }
        }
        let mut pane = new_pane(&self.spec)?;
        let Some(part_rows) = runs.first().map(Run::part_rows) else {
            let widths = self.widths()?;
            for state in &states {
                pane.merge(&self.spec, &state.columns()[1..], state.num_rows(), &widths, &mut self.groups)?;
            }
            if let Some(paned @ PanedWindows { overlap: Overlap::Cumulate { .. }, .. }) = self.spec.paned
                && states.len() > 1
            {
                // The next of these windows goes on from here.
                let (_, state) = pane.into_state(&self.spec, start)?;
                self.complete.retain(|at, _| !paned.panes_of(start).contains(at));
                pane = new_pane(&self.spec)?;
                pane.merge(&self.spec, &state.columns()[1..], state.num_rows(), &widths, &mut self.groups)?;
                self.complete.insert(start, vec![state]);
            }
            return pane.close(&self.spec, start).map(Some);
        };
        let (runs, states) = self.few_to_merge(start, runs, states)?;
        let merged = Merged::new(self.spec.keys.len(), runs, states)?;
        self.closing = Some(Closing { start, merged, part_rows, pane });
        Ok(None)
    }

    /// The same rows in runs of which not too many are open at once. A window that the next ones go on from is made one run,
    /// which takes the place of its panes.
    fn few_to_merge(
        &mut self,
        start: i64,
        mut runs: Vec<Run>,
        states: Vec<RecordBatch>,
    ) -> Result<(Vec<Run>, Vec<RecordBatch>)> {
        let Some(paned) = self.spec.paned else { return Ok((runs, states)) };
        let is_kept = matches!(paned.overlap, Overlap::Cumulate { .. }) && runs.len() + states.len() > 1;
        let Some(first) = runs.first().filter(|_| is_kept || runs.len() > RUNS_MAX) else { return Ok((runs, states)) };
        let mut writer = RunWriter::new(first.scratch(), self.spec.keys.len())?;
        while runs.len() > RUNS_MAX {
            let some = runs.drain(..RUNS_MAX).collect();
            runs.push(self.condensed(start, some, Vec::new(), &mut writer)?);
        }
        if !is_kept {
            return Ok((runs, states));
        }
        let whole = self.condensed(start, runs, states, &mut writer)?;
        let panes = paned.panes_of(start);
        self.complete.retain(|at, _| !panes.contains(at));
        self.runs.retain(|at, _| !panes.contains(at));
        self.complete.insert(start, Vec::new());
        self.runs.insert(start, vec![whole.clone()]);
        Ok((vec![whole], Vec::new()))
    }

    /// The state rows of a window that hops, in two parts.
    fn folded(&mut self, start: i64, paned: &PanedWindows) -> Result<Vec<RecordBatch>> {
        let (spec, widths, mut groups) = (Arc::clone(&self.spec), self.widths()?, Vec::new());
        let mut merge = |states: &[RecordBatch]| -> Result<RecordBatch> {
            let mut pane = new_pane(&spec)?;
            for state in states {
                pane.merge(&spec, &state.columns()[1..], state.num_rows(), &widths, &mut groups)?;
            }
            Ok(pane.into_state(&spec, start)?.1)
        };
        self.fold.get_or_insert_default().window(start, paned, &self.complete, &mut merge)
    }

    /// The next rows of a window on disk, and whether they are the last.
    fn close_part(&mut self, closing: &mut Closing) -> Result<(Option<RecordBatch>, bool)> {
        let widths = self.widths()?;
        let Closing { start, merged, part_rows, pane } = closing;
        while pane.len() <= *part_rows {
            let Some(state) = merged.next().transpose()? else {
                return Ok((Some(pane.emit(&self.spec, *start, EmitTo::All)?), true));
            };
            pane.merge(&self.spec, &state.columns()[1..], state.num_rows(), &widths, &mut self.groups)?;
        }
        // The last group may go on in what comes next.
        let whole = EmitTo::First(pane.len() - 1);
        Ok((Some(pane.emit(&self.spec, *start, whole)?), false))
    }

    /// Whether memory can be given back to any purpose.
    pub(crate) fn can_spill(&self) -> bool {
        !self.spec.keys.is_empty()
    }

    /// Puts all groups into runs; a state without group columns, one group a window, stays where it is. What the disk does not take
    /// stays too.
    pub(crate) fn spill(&mut self, scratch: &Scratch) -> Result<()> {
        if !self.can_spill() {
            return Ok(());
        }
        self.fold = None;
        let mut writer = RunWriter::new(scratch, self.spec.keys.len())?;
        while let Some(start) =
            [self.panes.keys().next(), self.restored.keys().next()].into_iter().flatten().min().copied()
        {
            self.take_in_of(start, usize::MAX)?;
            let Some(pane) = self.panes.remove(&start) else { continue };
            let (_, state) = pane.into_state(&self.spec, start)?;
            if state.num_rows() == 0 {
                continue;
            }
            match writer.write(&state) {
                Ok(run) => self.runs.entry(start).or_default().push(run),
                Err(error) => {
                    self.take_back(start, &state)?;
                    return Err(error);
                }
            }
        }
        for (start, states) in &mut self.complete {
            while let Some(state) = states.last() {
                if state.num_rows() > 0 {
                    let run = writer.write(state)?;
                    self.runs.entry(*start).or_default().push(run);
                }
                states.pop();
            }
        }
        let many: Vec<i64> =
            self.runs.iter().filter(|(_, runs)| runs.len() > RUNS_MAX).map(|(start, _)| *start).collect();
        for start in many {
            let runs = self.runs.get(&start).cloned().unwrap_or_default();
            let condensed = self.condensed(start, runs, Vec::new(), &mut writer)?;
            self.runs.insert(start, vec![condensed]);
        }
        Ok(())
    }

    /// The groups of a window that was taken out.
    fn take_back(&mut self, start: i64, state: &RecordBatch) -> Result<()> {
        let widths = self.widths()?;
        let pane = pane_at(&mut self.panes, (&self.spec, self.numbers.as_ref()), start)?;
        pane.merge(&self.spec, &state.columns()[1..], state.num_rows(), &widths, &mut self.groups)
    }

    /// One run of several and of rows in memory, with each group once.
    fn condensed(&self, start: i64, runs: Vec<Run>, states: Vec<RecordBatch>, writer: &mut RunWriter) -> Result<Run> {
        let (spec, widths, mut groups) = (&self.spec, self.widths()?, Vec::new());
        let part_rows = runs.first().map_or(1, Run::part_rows);
        let mut merged = Merged::new(spec.keys.len(), runs, states)?;
        let schema = merged.schema();
        let mut pane = Some(new_pane(spec)?);
        let mut next = move || -> Result<Option<RecordBatch>> {
            let Some(open) = &mut pane else { return Ok(None) };
            while open.len() <= part_rows {
                let Some(state) = merged.next().transpose()? else {
                    let last = pane.take().map(|last| last.into_state(spec, start)).transpose()?;
                    return Ok(last.map(|(_, state)| state));
                };
                open.merge(spec, &state.columns()[1..], state.num_rows(), &widths, &mut groups)?;
            }
            // The last group may go on in what comes next.
            let whole = EmitTo::First(open.len() - 1);
            open.emit_state(spec, start, whole).map(Some)
        };
        writer.write_all(&schema, std::iter::from_fn(move || next().transpose()))
    }

    /// Takes out all windows that are in memory as state rows, each with its end.
    pub(crate) fn drain(&mut self) -> Result<Vec<(i64, RecordBatch)>> {
        let mut drained: Vec<_> = self.restored().collect();
        (self.restored, self.restored_bytes) = (BTreeMap::new(), 0);
        drained.extend(self.drain_tables()?);
        Ok(drained)
    }

    /// What was restored and is in no table yet, each with the end of its window.
    pub(crate) fn restored(&self) -> impl Iterator<Item = (i64, RecordBatch)> {
        let of_window = |(start, states): (&i64, &Vec<RecordBatch>)| {
            let end = self.spec.needed_until(*start);
            states.clone().into_iter().map(move |state| (end, state))
        };
        self.restored.iter().flat_map(of_window)
    }

    /// As [`drain`](Self::drain), without what is [`restored`](Self::restored).
    pub(crate) fn drain_tables(&mut self) -> Result<Vec<(i64, RecordBatch)>> {
        let mut drained = Vec::new();
        while let Some((start, pane)) = self.panes.pop_first() {
            drained.push(pane.into_state(&self.spec, start)?);
        }
        for (start, states) in std::mem::take(&mut self.complete) {
            drained.extend(states.into_iter().map(|state| (self.spec.needed_until(start), state)));
        }
        Ok(drained)
    }

    /// What is on disk, each with the end of its window.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (i64, &Run)> {
        self.runs.iter().flat_map(|(start, runs)| runs.iter().map(|run| (self.spec.needed_until(*start), run)))
    }
}

/// Windows over final rows.
impl KeyedStage for FinalPanes {
    type Spec = AggregateSpec;

    fn new(spec: Arc<AggregateSpec>) -> Self {
        Self::new(spec)
    }

    fn has_keys(spec: &AggregateSpec) -> bool {
        !spec.keys.is_empty()
    }

    /// Group columns and arguments, evaluated.
    fn prepare(spec: &AggregateSpec, rows: RecordBatch, failures: &mut Vec<String>) -> Result<Vec<RecordBatch>> {
        let mut prepared = Vec::new();
        halving(Chunk::whole(rows), failures, |chunk| {
            prepared.push(spec.evaluate(&chunk)?);
            Ok(())
        });
        prepared.into_iter().map(Partial::into_rows).collect()
    }

    fn keys(spec: &AggregateSpec, _side: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        Ok(rows.columns()[1..=spec.keys.len()].to_vec())
    }

    fn push(&mut self, _side: usize, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        self.update(&Partial::from_rows(&self.spec, rows)?)?;
        Ok(Vec::new())
    }

    fn give(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        Ok(self.close_until(self.restored_us, watermark_us, usize::MAX)?.batches)
    }

    fn due_us(&mut self) -> Result<Option<i64>> {
        let complete = self.complete.keys().next().map(|pane| {
            let first = self.spec.paned.map_or(*pane, |paned| paned.first_window(*pane));
            self.spec.final_at(first.max(self.given_until))
        });
        let open = self.panes.keys().next().map(|start| self.spec.complete_at(*start));
        Ok(complete.into_iter().chain(open).min())
    }

    fn take(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        Ok(self.drain()?.into_iter().map(|(_, state)| (0, state)).collect())
    }

    fn keys_of_part(spec: &AggregateSpec, _part: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        Ok(rows.columns()[1..=spec.keys.len()].to_vec())
    }

    fn restore(&mut self, _part: usize, rows: &RecordBatch, given_us: i64) -> Result<()> {
        self.restored_us = self.restored_us.max(given_us);
        self.merge(rows, BEFORE_TIME)
    }

    fn rows(&self) -> usize {
        self.rows()
    }

    fn bytes(&self) -> usize {
        self.bytes()
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

    /// The rows of the window that begins at `start`, in order of their group columns.
    fn close(mut self, spec: &AggregateSpec, start: i64) -> Result<RecordBatch> {
        match self.groups {
            Groups::One => self.emit(spec, start, EmitTo::All),
            Groups::Keyed(_) => {
                let rows = self.emit(spec, start, EmitTo::All)?;
                let order = key_order(&rows.columns()[1..=spec.keys.len()])?;
                Ok(take_record_batch(&rows, &order)?)
            }
            Groups::Numbered(groups, numbers) => {
                let SortedKeys { order, keys } = locked(&numbers).sorted(&groups.into_numbers())?;
                let mut columns = vec![starts(start, order.len())?];
                columns.extend(keys);
                for accumulator in &mut self.accumulators {
                    columns.push(take(&accumulator.evaluate(EmitTo::All)?, &order, None)?);
                }
                record_batch(&spec.output_schema, columns, order.len())
            }
        }
    }

    /// Takes the rows of some groups out, in the order in which they came.
    fn emit(&mut self, spec: &AggregateSpec, start: i64, which: EmitTo) -> Result<RecordBatch> {
        let rows = match which {
            EmitTo::All => self.len(),
            EmitTo::First(rows) => rows,
        };
        let mut columns = vec![starts(start, rows)?];
        columns.extend(self.emit_keys(which)?);
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(which)?);
        }
        record_batch(&spec.output_schema, columns, rows)
    }

    /// The state rows of the window that begins at `start`, with its end.
    fn into_state(mut self, spec: &AggregateSpec, start: i64) -> Result<(i64, RecordBatch)> {
        let state = self.emit_state(spec, start, EmitTo::All)?;
        Ok((spec.needed_until(start), state))
    }

    /// Takes the state rows of some groups out, in the order in which they came.
    fn emit_state(&mut self, spec: &AggregateSpec, start: i64, which: EmitTo) -> Result<RecordBatch> {
        let rows = match which {
            EmitTo::All => self.len(),
            EmitTo::First(rows) => rows,
        };
        let keys = self.emit_keys(which)?;
        spec.state_rows(start, keys, &mut self.accumulators, (which, rows))
    }

    /// Takes the keys of some groups out; of numbered ones, of all.
    fn emit_keys(&mut self, which: EmitTo) -> Result<Vec<ArrayRef>> {
        match &mut self.groups {
            Groups::One => Ok(Vec::new()),
            Groups::Keyed(table) => table.emit(which),
            Groups::Numbered(groups, numbers) => locked(numbers).keys(&std::mem::take(groups).into_numbers()),
        }
    }

    /// Without the keys that have numbers: others have them too.
    fn bytes(&self) -> usize {
        let groups = match &self.groups {
            Groups::One => 0,
            Groups::Keyed(table) => table.size(),
            Groups::Numbered(groups, _) => groups.bytes(),
        };
        groups + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }

    fn len(&self) -> usize {
        match &self.groups {
            Groups::One => 1,
            Groups::Keyed(table) => table.len(),
            Groups::Numbered(groups, _) => groups.len(),
        }
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize, found: &mut Vec<usize>) -> Result<usize> {
        found.clear();
        match &mut self.groups {
            Groups::One => found.resize(rows, 0),
            Groups::Keyed(table) => table.intern(keys, found)?,
            Groups::Numbered(groups, numbers) => {
                let numbers = locked(numbers).of(keys)?;
                groups.find(numbers.values(), found);
            }
        }
        Ok(self.len())
    }
}

fn locked(numbers: &SharedKeyNumbers) -> MutexGuard<'_, KeyNumbers> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The column of window starts.
fn starts(start: i64, rows: usize) -> Result<ArrayRef> {
    Ok(arrow::compute::cast(&Int64Array::from(vec![start; rows]), &event_time_type())?)
}

fn check_width(spec: &AggregateSpec, widths: &[usize], state: &RecordBatch) -> Result<()> {
    let expected = 1 + spec.keys.len() + widths.iter().sum::<usize>();
    if state.num_columns() != expected {
        return Err(internal_datafusion_err!("state has {} columns and not {expected}", state.num_columns()));
    }
    Ok(())
}

/// The window's groups; a window exists only once it has a row.
fn pane_at<'a>(
    panes: &'a mut BTreeMap<i64, Pane>,
    (spec, numbers): (&AggregateSpec, Option<&SharedKeyNumbers>),
    start: i64,
) -> Result<&'a mut Pane> {
    use std::collections::btree_map::Entry;

    Ok(match panes.entry(start) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(match numbers {
            Some(numbers) if !spec.keys.is_empty() => Pane {
                groups: Groups::Numbered(NumberedGroups::default(), Arc::clone(numbers)),
                accumulators: spec.new_accumulators()?,
            },
            _ => new_pane(spec)?,
        }),
    })
}

fn new_pane(spec: &AggregateSpec) -> Result<Pane> {
    let schema = Arc::clone(&spec.key_schema);
    let groups = match spec.keys.is_empty() {
        true => Groups::One,
        false => Groups::Keyed(new_group_values(schema, &GroupOrdering::None)?),
    };
    Ok(Pane { groups, accumulators: spec.new_accumulators()? })
}
