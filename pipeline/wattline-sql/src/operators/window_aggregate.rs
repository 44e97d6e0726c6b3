//! Partial and final aggregation in tumbling windows.
//!
//! ```text
//! worker: LanePanes   rows ─▶ number of their key ─▶ group of the window ─▶ accumulators
//!            │ a window that is final, or all for a snapshot: state rows
//!            ▼
//! process: FinalPanes  merge ─▶ group table of the window ─▶ accumulators ─▶ rows of windows that are over
//! ```
//! DataFusion's `GroupValues` and `GroupsAccumulator`s are kept alive across batches; a window's own columns are not part
//! of its key. In the lanes all states with the same key types share one [`KeyNumbers`]: the text of a key is hashed once
//! per batch, and each window finds its group by a number.
//!
//! Windows that overlap ([`PanedWindows`]) are kept as panes, and each is merged from its panes when it is final; then "window" below means pane,
//! and a pane is kept until the last window that holds it is final. Windows that cumulate are merged one from the other: the panes of one
//! become one pane. Windows that hop over many panes are merged from two parts that are carried from one to the next (`hop_fold.rs`).
//!
//! State rows of one window: `window_start_us` Int64, the group columns, the state columns of each accumulator in order.

mod final_panes;
mod hop_fold;
mod key_numbers;
mod key_sequence;
mod lane_panes;

pub(crate) use final_panes::FinalPanes;
pub(crate) use key_numbers::{KeyNumbers, SharedKeyNumbers};
pub(crate) use lane_panes::LanePanes;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::cast::{as_boolean_array, as_int64_array};
use datafusion::common::{exec_err, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};

use super::{Chunk, record_batch};

/// What to aggregate.
#[derive(Debug)]
pub(crate) struct AggregateSpec {
    /// The window's start for each input row: `Timestamp(Microsecond, "UTC")`.
    pub(crate) bin: Arc<dyn PhysicalExpr>,
    /// Width of the window, microseconds.
    pub(crate) size_us: i64,
    /// For windows that overlap: the bin is a pane of them.
    pub(crate) paned: Option<PanedWindows>,
    /// How far past its start the watermark must be for a window to be final, microseconds.
    pub(crate) final_after_us: i64,
    /// The other group columns.
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) key_schema: SchemaRef,
    pub(crate) aggregates: Vec<Aggregated>,
    /// Window start, keys, aggregates.
    pub(crate) output_schema: SchemaRef,
}

/// Windows that are made of panes of `pane_us`, which divides `step_us` and `size_us`. Panes and windows are named by an instant each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PanedWindows {
    pub(crate) pane_us: i64,
    /// From one window to the next.
    pub(crate) step_us: i64,
    pub(crate) size_us: i64,
    pub(crate) overlap: Overlap,
}

/// How windows overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// One of `size_us` begins every `step_us` from the origin; named by their starts.
    Hop { origin_us: i64 },
    /// They begin every `size_us` from the origin and grow by `step_us`; named by their ends.
    Cumulate { origin_us: i64 },
}

impl PanedWindows {
    /// The first window that holds a pane; the others follow in steps.
    fn first_window(self, pane: i64) -> i64 {
        match self.overlap {
            Overlap::Hop { origin_us } => {
                let earliest = pane.saturating_sub(self.size_us - self.pane_us);
                earliest.saturating_add(origin_us.saturating_sub(earliest).rem_euclid(self.step_us))
            }
            Overlap::Cumulate { .. } => pane,
        }
    }

    /// The last window that holds a pane.
    fn last_window(self, pane: i64) -> i64 {
        match self.overlap {
            Overlap::Hop { origin_us } => pane.saturating_sub(pane.saturating_sub(origin_us).rem_euclid(self.step_us)),
            Overlap::Cumulate { origin_us } => self.begin(pane, origin_us).saturating_add(self.size_us),
        }
    }

    /// The panes of a window.
    fn panes_of(self, window: i64) -> std::ops::Range<i64> {
        match self.overlap {
            Overlap::Hop { .. } => window..window.saturating_add(self.size_us),
            Overlap::Cumulate { origin_us } => {
                self.begin(window, origin_us).saturating_add(1)..window.saturating_add(1)
            }
        }
    }

    /// Where the windows begin of which one has this end.
    fn begin(self, end: i64, origin_us: i64) -> i64 {
        let within = end.saturating_sub(1);
        within.saturating_sub(within.saturating_sub(origin_us).rem_euclid(self.size_us))
    }
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
    /// The group columns.
    pub(crate) keys: Vec<ArrayRef>,
    args: Vec<(Vec<ArrayRef>, Option<BooleanArray>)>,
}

impl AggregateSpec {
    /// Evaluates group columns and arguments for a chunk.
    pub(crate) fn evaluate(&self, chunk: &Chunk) -> Result<Partial> {
        let rows = chunk.len();
        let eval = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&chunk.batch)?.into_array(rows);
        let bins = eval(&self.bin)?;
        let bins = bins
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| internal_datafusion_err!("window start is {} and no timestamp", bins.data_type()))?;
        if bins.null_count() > 0 {
            return exec_err!("a row has no time, so it belongs to no window");
        }
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

    /// Whether the aggregates can be made at all: what they refuse, DISTINCT above all, is better known before the first event.
    pub(crate) fn check(&self) -> Result<()> {
        self.aggregates.iter().try_for_each(|Aggregated { function, .. }| {
            match function.groups_accumulator_supported() {
                true => function.create_groups_accumulator().map(drop),
                // The adapter makes one with the first group only.
                false => function.create_accumulator().map(drop),
            }
        })
    }

    fn new_accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        self.aggregates.iter().map(|aggregate| new_accumulator(&aggregate.function)).collect()
    }

    /// The watermark that makes a window final.
    fn final_at(&self, start: i64) -> i64 {
        start.saturating_add(self.final_after_us)
    }

    /// The watermark from which on no event comes for the window, or the pane.
    fn complete_at(&self, start: i64) -> i64 {
        self.final_at(self.paned.map_or(start, |paned| paned.first_window(start)))
    }

    /// The watermark from which on nobody needs the window, or the pane.
    fn needed_until(&self, start: i64) -> i64 {
        self.final_at(self.paned.map_or(start, |paned| paned.last_window(start)))
    }

    /// The state rows of so many groups of a window.
    fn state_rows(
        &self,
        start: i64,
        keys: Vec<ArrayRef>,
        accumulators: &mut [Box<dyn GroupsAccumulator>],
        (which, rows): (EmitTo, usize),
    ) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![start; rows]))];
        columns.extend(keys);
        for accumulator in accumulators {
            columns.extend(accumulator.state(which)?);
        }
        record_batch(&state_schema(&columns, self.keys.len()), columns, rows)
    }
}

impl Partial {
    /// Only some rows of it.
    fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let args = self
            .args
            .iter()
            .map(|(args, mask)| {
                let mask = mask.as_ref().map(|mask| take(mask, rows, None)).transpose()?;
                let mask = mask.map(|mask| as_boolean_array(&mask).cloned()).transpose()?;
                Ok((take_all(args, rows)?, mask))
            })
            .collect::<Result<_>>()?;
        Ok(Self { starts: Int64Array::from(Vec::<i64>::new()), keys: take_all(&self.keys, rows)?, args })
    }

    /// As rows: start, group columns, and the arguments of each aggregate with its filter behind them.
    fn into_rows(self) -> Result<RecordBatch> {
        let rows = self.starts.len();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.starts)];
        columns.extend(self.keys);
        for (args, mask) in self.args {
            columns.extend(args);
            columns.extend(mask.map(|mask| Arc::new(mask) as ArrayRef));
        }
        let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("c{at}"), column.data_type().clone(), true);
        let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
        record_batch(&Arc::new(schema), columns, rows)
    }

    /// What [`into_rows`](Self::into_rows) made.
    fn from_rows(spec: &AggregateSpec, rows: &RecordBatch) -> Result<Self> {
        let mut columns = rows.columns().iter().cloned();
        let missing = || internal_datafusion_err!("rows for a window lack a column");
        let starts = as_int64_array(&columns.next().ok_or_else(missing)?)?.clone();
        let mut next = |count: usize| -> Result<Vec<ArrayRef>> {
            let taken: Vec<ArrayRef> = columns.by_ref().take(count).collect();
            if taken.len() == count { Ok(taken) } else { Err(missing()) }
        };
        let keys = next(spec.keys.len())?;
        let mut args = Vec::with_capacity(spec.aggregates.len());
        for aggregate in &spec.aggregates {
            let of = next(aggregate.args.len())?;
            let mask = match aggregate.filter {
                Some(_) => next(1)?.first().map(|mask| as_boolean_array(mask).cloned()).transpose()?,
                None => None,
            };
            args.push((of, mask));
        }
        Ok(Self { starts, keys, args })
    }
}

fn new_accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    let function = Arc::clone(function);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// Takes out the earliest window that the watermark completes.
fn pop_until<P>(panes: &mut BTreeMap<i64, P>, spec: &AggregateSpec, watermark_us: i64) -> Option<(i64, P)> {
    let entry = panes.first_entry()?;
    (spec.complete_at(*entry.key()) <= watermark_us).then(|| entry.remove_entry())
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
