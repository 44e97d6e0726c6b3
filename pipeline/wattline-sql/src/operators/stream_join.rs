//! Joins of two flows of final rows whose times lie within a bound of each other.
//!
//! ```text
//!   left  ──▶ pairs with the right rows that are there ──▶ kept until no right row to come can match it
//!   right ──▶ pairs with the left rows that are there  ──▶ kept until no left row to come can match it
//! ```
//! A pair comes out as soon as both of its rows are final. A row that found no partner comes out, where the join keeps such
//! rows, when the watermark has passed the last moment at which one could have come: that is how "no payment within three
//! days" becomes known without any event. Rows are kept by the columns of the equalities in ON; all other conditions, the
//! time bound too, are evaluated on the candidate pairs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{JoinType, exec_err, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use wattline_core::time::END_OF_TIME;

use super::due::Due;
use super::exchange::KeyedStage;
use super::keyed_rows::{All, KeyedRows};
use super::{evaluate_all, record_batch};

/// Candidate pairs evaluated at once.
const PAIRS_MAX: usize = 65_536;

/// One input of a join.
#[derive(Debug)]
pub(crate) struct JoinSide {
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The instant that the bound is about.
    pub(crate) time: Arc<dyn PhysicalExpr>,
    /// How far past its time the watermark must be, so that no row to come on the other side can match a row; microseconds.
    pub(crate) kept_us: i64,
    pub(crate) schema: SchemaRef,
}

/// What to join.
#[derive(Debug)]
pub(crate) struct StreamJoinSpec {
    pub(crate) kind: JoinType,
    pub(crate) left: JoinSide,
    pub(crate) right: JoinSide,
    pub(crate) key_schema: SchemaRef,
    pub(crate) null_matches_null: bool,
    /// The rest of ON over the columns of both sides, left first.
    pub(crate) condition: Option<Arc<dyn PhysicalExpr>>,
    pub(crate) both_schema: SchemaRef,
    pub(crate) schema: SchemaRef,
}

impl StreamJoinSpec {
    fn gives_pairs(&self) -> bool {
        matches!(self.kind, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
    }

    /// What becomes of the rows of one side on their own.
    fn alone(&self, is_left: bool) -> Alone {
        match (self.kind, is_left) {
            (JoinType::Left | JoinType::Full, true) | (JoinType::Right | JoinType::Full, false) => Alone::Unmatched,
            (JoinType::LeftAnti, true) | (JoinType::RightAnti, false) => Alone::Unmatched,
            (JoinType::LeftSemi, true) | (JoinType::RightSemi, false) => Alone::FirstMatch,
            (JoinType::LeftMark, true) => Alone::Marked,
            _ => Alone::Never,
        }
    }

    fn side(&self, is_left: bool) -> &JoinSide {
        if is_left { &self.left } else { &self.right }
    }
}

/// When a row comes out without its partner's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alone {
    Never,
    FirstMatch,
    Unmatched,
    /// In any case, with a last column that says whether it found a partner.
    Marked,
}

/// What is remembered of a kept row.
#[derive(Debug, Clone, Copy)]
struct Note {
    time_us: i64,
    matched: bool,
}

/// The kept rows of one side.
#[derive(Debug)]
struct Kept {
    rows: KeyedRows<(), Note>,
    /// Keys by the watermark at which a row of theirs is of no use any more.
    due: Due,
}

impl Kept {
    /// Gives the number of each row's key.
    fn push(&mut self, side: &JoinSide, keys: &[ArrayRef], rows: &RecordBatch, notes: &[Note]) -> Result<&[usize]> {
        let numbers = self.rows.push(keys, rows, notes.iter().copied())?;
        for (key, note) in numbers.iter().zip(notes) {
            self.due.note(note.time_us.saturating_add(side.kept_us), *key);
        }
        Ok(numbers)
    }

    /// Marks a row as matched; true if it was not before.
    fn mark(&mut self, row: u32) -> bool {
        !std::mem::replace(&mut self.rows.note_mut(row).matched, true)
    }
}

/// The numbers of two rows, left first.
type Pair = (u32, u32);

/// The rows of both sides that may still find a partner.
#[derive(Debug)]
pub(crate) struct StreamJoinStage {
    spec: Arc<StreamJoinSpec>,
    left: Kept,
    right: Kept,
}

impl StreamJoinStage {
    fn kept_mut(&mut self, is_left: bool) -> &mut Kept {
        if is_left { &mut self.left } else { &mut self.right }
    }

    fn take_in(&mut self, is_left: bool, batch: &RecordBatch, given: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let side = spec.side(is_left);
        let batch = record_batch(&side.schema, batch.columns().to_vec(), batch.num_rows())?;
        let keys = evaluate_all(&side.keys, &batch)?;
        let times = times_of(side, &batch)?;
        let notes: Vec<Note> = times.into_iter().map(|time_us| Note { time_us, matched: false }).collect();
        let can_match: Vec<bool> = (0..batch.num_rows())
            .map(|row| spec.null_matches_null || keys.iter().all(|key| key.is_valid(row)))
            .collect();
        let first_row = self.kept_mut(is_left).rows.next_row();
        self.kept_mut(is_left).push(side, &keys, &batch, &notes)?;
        let others = self.kept_mut(!is_left).rows.number(&keys, batch.num_rows())?.to_vec();
        let mut pairs: Vec<Pair> = Vec::new();
        for ((own, other), can_match) in (first_row..).zip(others).zip(can_match) {
            if !can_match {
                continue;
            }
            let partners: Vec<u32> = self.kept_mut(!is_left).rows.rows_of(other).collect();
            for partner in partners {
                pairs.push(if is_left { (own, partner) } else { (partner, own) });
                if pairs.len() == PAIRS_MAX {
                    self.match_pairs(&std::mem::take(&mut pairs), given)?;
                }
            }
        }
        self.match_pairs(&pairs, given)
    }

    /// Gives out the pairs that meet the condition, and rows that have found their first partner.
    fn match_pairs(&mut self, pairs: &[Pair], given: &mut Vec<RecordBatch>) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let spec = Arc::clone(&self.spec);
        let (left, right): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
        let both = [self.left.rows.gather(&left)?.columns(), self.right.rows.gather(&right)?.columns()].concat();
        let both = record_batch(&spec.both_schema, both, pairs.len())?;
        let mask = match &spec.condition {
            None => BooleanArray::from(vec![true; pairs.len()]),
            Some(condition) => as_boolean_array(&condition.evaluate(&both)?.into_array(pairs.len())?)?.clone(),
        };
        if spec.gives_pairs() {
            let matched = arrow::compute::filter_record_batch(&both, &mask)?;
            given.push(record_batch(&spec.schema, matched.columns().to_vec(), matched.num_rows())?);
        }
        for is_left in [true, false] {
            if spec.alone(is_left) == Alone::Never {
                continue;
            }
            let mut first = Vec::new();
            for (at, (left, right)) in pairs.iter().enumerate() {
                let row = if is_left { *left } else { *right };
                let matches = mask.is_valid(at) && mask.value(at);
                if matches && self.kept_mut(is_left).mark(row) {
                    first.push(row);
                }
            }
            let mark = match spec.alone(is_left) {
                Alone::FirstMatch => None,
                Alone::Marked => Some(true),
                Alone::Never | Alone::Unmatched => continue,
            };
            if !first.is_empty() {
                let rows = self.kept_mut(is_left).rows.gather(&first)?;
                given.push(marked(&spec, &rows, mark)?);
            }
        }
        Ok(())
    }

    /// Drops the rows that no row to come can match, and gives out those that stayed alone.
    fn drop_dead(&mut self, is_left: bool, watermark_us: i64) -> Result<Option<RecordBatch>> {
        let spec = Arc::clone(&self.spec);
        let kept_us = spec.side(is_left).kept_us;
        let kept = self.kept_mut(is_left);
        let is_dead = |note: Note| watermark_us == END_OF_TIME || note.time_us.saturating_add(kept_us) <= watermark_us;
        let mut alone = Vec::new();
        for key in kept.due.take_until(watermark_us) {
            let (dead, live): (Vec<u32>, Vec<u32>) =
                kept.rows.rows_of(key).partition(|row| is_dead(kept.rows.note(*row)));
            alone.extend(dead.into_iter().filter(|row| !kept.rows.note(*row).matched));
            kept.rows.keep(key, live);
        }
        let mark = match spec.alone(is_left) {
            Alone::Unmatched => None,
            Alone::Marked => Some(false),
            Alone::Never | Alone::FirstMatch => return Ok(None),
        };
        if alone.is_empty() {
            return Ok(None);
        }
        let rows = kept.rows.gather(&alone)?;
        if !spec.gives_pairs() {
            return marked(&spec, &rows, mark).map(Some);
        }
        let nulls = |side: &JoinSide| -> Vec<ArrayRef> {
            side.schema.fields().iter().map(|field| new_null_array(field.data_type(), rows.num_rows())).collect()
        };
        let columns = match is_left {
            true => [rows.columns().to_vec(), nulls(&spec.right)].concat(),
            false => [nulls(&spec.left), rows.columns().to_vec()].concat(),
        };
        Ok(Some(record_batch(&spec.schema, columns, rows.num_rows())?))
    }
}

impl KeyedStage for StreamJoinStage {
    type Spec = StreamJoinSpec;

    fn new(spec: Arc<StreamJoinSpec>) -> Self {
        let kept = |side: &JoinSide| Kept {
            rows: KeyedRows::new(Arc::clone(&side.schema), Arc::clone(&spec.key_schema)),
            due: Due::default(),
        };
        let (left, right) = (kept(&spec.left), kept(&spec.right));
        Self { spec, left, right }
    }

    fn has_keys(spec: &StreamJoinSpec) -> bool {
        !spec.left.keys.is_empty()
    }

    fn keys(spec: &StreamJoinSpec, side: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        evaluate_all(&spec.side(side == 0).keys, rows)
    }

    /// The pairs that new rows make, and those that needed a partner only.
    fn push(&mut self, side: usize, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let mut given = Vec::new();
        self.take_in(side == 0, rows, &mut given)?;
        Ok(given)
    }

    /// The rows that are known to stay alone.
    fn give(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>> {
        let mut given = Vec::new();
        for is_left in [true, false] {
            given.extend(self.drop_dead(is_left, watermark_us)?);
        }
        for kept in [&mut self.left, &mut self.right] {
            if let Some(numbers) = kept.rows.compact_if_worth()? {
                kept.due.renumber(&numbers);
            }
        }
        Ok(given)
    }

    fn due_us(&mut self) -> Result<Option<i64>> {
        Ok([&self.left, &self.right].into_iter().filter_map(|kept| kept.due.first_us()).min())
    }

    /// The kept rows of each side with a last column that says which have found a partner.
    fn take(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        let spec = Arc::clone(&self.spec);
        let mut parts = Vec::new();
        for (part, kept, side) in [(0, &mut self.left, &spec.left), (1, &mut self.right, &spec.right)] {
            kept.due = Due::default();
            let All { rows, notes, .. } = kept.rows.take()?;
            let matched: BooleanArray = notes.iter().map(|note| Some(note.matched)).collect();
            let columns = [rows.columns().to_vec(), vec![Arc::new(matched) as ArrayRef]].concat();
            parts.push((part, record_batch(&dumped_schema(side), columns, rows.num_rows())?));
        }
        Ok(parts)
    }

    fn keys_of_part(spec: &StreamJoinSpec, part: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        evaluate_all(&spec.side(part == 0).keys, rows)
    }

    fn restore(&mut self, part: usize, state: &RecordBatch, _given_us: i64) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let side = spec.side(part == 0);
        let (rows, matched) = state.columns().split_at(side.schema.fields().len());
        let matched = matched.first().ok_or_else(|| internal_datafusion_err!("the state of a join lacks a column"))?;
        let matched = as_boolean_array(matched)?;
        let rows = concat_batches(&side.schema, &[record_batch(&side.schema, rows.to_vec(), state.num_rows())?])?;
        let times = times_of(side, &rows)?;
        let notes = times.into_iter().zip(matched.values()).map(|(time_us, matched)| Note { time_us, matched });
        let notes: Vec<Note> = notes.collect();
        let keys = evaluate_all(&side.keys, &rows)?;
        self.kept_mut(part == 0).push(side, &keys, &rows, &notes)?;
        Ok(())
    }

    fn rows(&self) -> usize {
        self.left.rows.rows() + self.right.rows.rows()
    }

    fn bytes(&self) -> usize {
        [&self.left, &self.right].into_iter().map(|kept| kept.rows.bytes() + kept.due.bytes()).sum()
    }
}

/// Rows of one side as the join gives them, with the mark if it has one.
fn marked(spec: &StreamJoinSpec, rows: &RecordBatch, mark: Option<bool>) -> Result<RecordBatch> {
    let mark = mark.map(|mark| Arc::new(BooleanArray::from(vec![mark; rows.num_rows()])) as ArrayRef);
    let columns = rows.columns().iter().cloned().chain(mark).collect();
    record_batch(&spec.schema, columns, rows.num_rows())
}

fn dumped_schema(side: &JoinSide) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = side.schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__matched", DataType::Boolean, false)));
    Arc::new(Schema::new(fields))
}

fn times_of(side: &JoinSide, rows: &RecordBatch) -> Result<Vec<i64>> {
    let values = side.time.evaluate(rows)?.into_array(rows.num_rows())?;
    let values = values.as_primitive_opt::<TimestampMicrosecondType>();
    let values = values.ok_or_else(|| internal_datafusion_err!("the time of a join is no timestamp"))?;
    if values.null_count() > 0 {
        return exec_err!("a row has no time, so nothing says how long it is kept for a partner");
    }
    Ok(values.values().to_vec())
}
