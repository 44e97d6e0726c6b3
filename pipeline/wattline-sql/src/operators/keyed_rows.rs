//! Rows kept by key: what stages that look at several rows of one key have in common.
//!
//! ```text
//! key ─table─▶ number of the key ─▶ first row ─▶ next ─▶ … ─▶ last row   (numbers of rows, in the order of arrival)
//!                       └─▶ what else is known of the key         └─▶ what else is known of the row
//! ```
//! When most of the rows that are held belong to nobody any more, what is left is copied together, and keys of which nothing is known
//! are forgotten. So memory follows what is kept, not what ever came.

use std::fmt;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::row_store::RowStore;
use super::spill::without_spare_bytes;

/// Rows, and keys, below which copying together is not worth it. Tests do it all the time.
pub(super) const COMPACT_MIN: usize = if cfg!(test) { 8 } else { 8 * 1024 };
/// No row.
const NONE: u32 = u32::MAX;

/// Rows by key. `K` is what a stage knows of a key besides, and the default if it knows nothing; `R` what it knows of a row.
pub(crate) struct KeyedRows<K = (), R = ()> {
    key_schema: SchemaRef,
    /// `None` without key columns: then there is one key.
    table: Option<Box<dyn GroupValues>>,
    store: RowStore,
    /// For each row that is held the next one of its key.
    next: Vec<u32>,
    notes: Vec<R>,
    chains: Vec<Chain>,
    memories: Vec<K>,
    live: usize,
    /// Keys that there were after the last copying.
    keys_before: usize,
    numbers: Vec<usize>,
}

/// The rows of a key.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
}

const EMPTY: Chain = Chain { first: NONE, last: NONE };

/// Everything that was kept.
#[derive(Debug)]
pub(crate) struct All<K, R> {
    /// The keys in the order of their numbers.
    pub(crate) keys: Vec<ArrayRef>,
    /// What was known of each of them.
    pub(crate) memories: Vec<K>,
    /// The rows of the first key, in their order, then those of the next.
    pub(crate) rows: RecordBatch,
    /// What was known of each of them.
    pub(crate) notes: Vec<R>,
}

impl<K, R> fmt::Debug for KeyedRows<K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRows").field("keys", &self.chains.len()).field("rows", &self.live).finish()
    }
}

impl<K: Clone + Default + PartialEq, R: Copy> KeyedRows<K, R> {
    /// For rows of `schema` by keys of `key_schema`.
    pub(crate) fn new(schema: SchemaRef, key_schema: SchemaRef) -> Self {
        Self {
            key_schema,
            table: None,
            store: RowStore::new(schema),
            next: Vec::new(),
            notes: Vec::new(),
            chains: Vec::new(),
            memories: Vec::new(),
            live: 0,
            keys_before: 0,
            numbers: Vec::new(),
        }
    }

    /// Rows kept.
    pub(crate) fn rows(&self) -> usize {
        self.live
    }

    /// Memory held.
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.next.capacity() * size_of::<u32>() + self.notes.capacity() * size_of::<R>();
        let keys = self.chains.capacity() * size_of::<Chain>() + self.memories.capacity() * size_of::<K>();
        let numbers = self.numbers.capacity() * size_of::<usize>();
        self.store.bytes() + rows + keys + numbers + self.table.as_ref().map_or(0, |table| table.size())
    }

    /// The number of each key, for those that are new too.
    pub(crate) fn number(&mut self, keys: &[ArrayRef], rows: usize) -> Result<&[usize]> {
        self.numbers.clear();
        if self.key_schema.fields().is_empty() {
            self.numbers.resize(rows, 0);
        } else {
            let table = match self.table.take() {
                Some(table) => table,
                None => new_group_values(SchemaRef::clone(&self.key_schema), &GroupOrdering::None)?,
            };
            self.table.insert(table).intern(keys, &mut self.numbers)?;
        }
        let known = self.numbers.iter().max().map_or(0, |highest| highest + 1).max(self.chains.len());
        self.chains.resize(known, EMPTY);
        self.memories.resize(known, K::default());
        Ok(&self.numbers)
    }

    /// Adds rows, each with what is known of it; `keys` are their key columns. Returns the number of each row's key.
    pub(crate) fn push(
        &mut self,
        keys: &[ArrayRef],
        batch: &RecordBatch,
        notes: impl IntoIterator<Item = R>,
    ) -> Result<&[usize]> {
        self.number(keys, batch.num_rows())?;
        let first = self.store.push(batch)?;
        self.next.resize(self.store.rows(), NONE);
        self.notes.extend(notes.into_iter().take(batch.num_rows()));
        for (row, key) in (first..).zip(&self.numbers) {
            self.chains[*key].append(row, &mut self.next);
        }
        self.live += batch.num_rows();
        Ok(&self.numbers)
    }

    /// How many keys have a number.
    pub(crate) fn keys(&self) -> usize {
        self.chains.len()
    }

    /// The number that the next row will have.
    pub(crate) fn next_row(&self) -> u32 {
        u32::try_from(self.store.rows()).unwrap_or(NONE)
    }

    /// The numbers of a key's rows.
    pub(crate) fn rows_of(&self, key: usize) -> impl Iterator<Item = u32> + '_ {
        let some = |row: u32| (row != NONE).then_some(row);
        std::iter::successors(some(self.chains[key].first), move |row| some(self.next[*row as usize]))
    }

    /// What else is known of a key.
    pub(crate) fn memory_mut(&mut self, key: usize) -> &mut K {
        &mut self.memories[key]
    }

    /// What else is known of each key.
    pub(crate) fn memories(&self) -> &[K] {
        &self.memories
    }

    /// What else is known of a row.
    pub(crate) fn note(&self, row: u32) -> R {
        self.notes[row as usize]
    }

    /// What else is known of a row.
    pub(crate) fn note_mut(&mut self, row: u32) -> &mut R {
        &mut self.notes[row as usize]
    }

    /// Of the rows of a key only these stay, in this order.
    pub(crate) fn keep(&mut self, key: usize, rows: impl IntoIterator<Item = u32>) {
        self.live -= self.rows_of(key).count();
        let mut chain = EMPTY;
        for row in rows {
            self.next[row as usize] = NONE;
            chain.append(row, &mut self.next);
            self.live += 1;
        }
        self.chains[key] = chain;
    }

    /// The rows with these numbers.
    pub(crate) fn gather(&self, rows: &[u32]) -> Result<RecordBatch> {
        self.store.gather(rows)
    }

    /// All rows that are held, in the order of their numbers; some are no longer kept.
    pub(crate) fn held(&self) -> &[RecordBatch] {
        self.store.batches()
    }

    /// Takes out everything.
    pub(crate) fn take(&mut self) -> Result<All<K, R>> {
        let kept: Vec<u32> = self.kept_keys().collect();
        let rows: Vec<u32> = kept.iter().flat_map(|key| self.rows_of(*key as usize)).collect();
        let notes = match self.notes.is_empty() {
            true => Vec::new(),
            false => rows.iter().map(|row| self.note(*row)).collect(),
        };
        let memories = kept.iter().map(|key| self.memories[*key as usize].clone()).collect();
        let numbers = UInt32Array::from(kept);
        let keys = match self.table.take() {
            Some(mut table) => table.emit(EmitTo::All)?,
            None => RecordBatch::new_empty(SchemaRef::clone(&self.key_schema)).columns().to_vec(),
        };
        let keys = keys.iter().map(|key| take(key, &numbers, None)).collect::<std::result::Result<_, _>>()?;
        let rows = without_spare_bytes(&self.store.gather(&rows)?)?;
        self.clear();
        Ok(All { keys, memories, rows, notes })
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.store.clear();
        (self.table, self.live, self.keys_before) = (None, 0, 0);
        (self.next, self.notes, self.numbers) = (Vec::new(), Vec::new(), Vec::new());
        (self.chains, self.memories) = (Vec::new(), Vec::new());
    }

    /// Copies what is kept together if that is worth it; then gives for each key the number that it has now.
    pub(crate) fn compact_if_worth(&mut self) -> Result<Option<Vec<Option<u32>>>> {
        let held = self.store.rows();
        let mut is_worth = held >= COMPACT_MIN && self.live * 2 < held;
        if !is_worth && self.chains.len() >= 2 * self.keys_before.max(COMPACT_MIN) {
            // Keys may come and go without a row.
            is_worth = self.kept_keys().count() * 2 < self.chains.len();
            self.keys_before = self.chains.len();
        }
        if !is_worth {
            return Ok(None);
        }
        let kept: Vec<u32> = self.kept_keys().collect();
        let rows_of_keys: Vec<usize> = kept.iter().map(|key| self.rows_of(*key as usize).count()).collect();
        let mut numbers = vec![None; self.chains.len()];
        let All { keys, memories, rows, notes } = self.take()?;
        let mut row = self.store.push(&rows)?;
        (self.next, self.notes, self.live) = (vec![NONE; rows.num_rows()], notes, rows.num_rows());
        // Not in the order in which they are given, if the hashes of some are equal.
        let new = self.number(&keys, memories.len())?.to_vec();
        for (((old, new), memory), count) in kept.into_iter().zip(new).zip(memories).zip(rows_of_keys) {
            numbers[old as usize] = u32::try_from(new).ok();
            self.memories[new] = memory;
            for _row in 0..count {
                self.chains[new].append(row, &mut self.next);
                row += 1;
            }
        }
        self.keys_before = self.chains.len();
        Ok(Some(numbers))
    }

    /// Those with rows, or of which something is known.
    fn kept_keys(&self) -> impl Iterator<Item = u32> + '_ {
        let nothing = K::default();
        let keys = (0_u32..).zip(self.chains.iter().zip(&self.memories));
        keys.filter(move |(_, (chain, memory))| chain.first != NONE || **memory != nothing).map(|(key, _)| key)
    }
}

impl Chain {
    fn append(&mut self, row: u32, next: &mut [u32]) {
        match self.first {
            NONE => self.first = row,
            _ => next[self.last as usize] = row,
        }
        self.last = row;
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
    }

    fn batch(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
    }

    fn values(column: &ArrayRef) -> Vec<i64> {
        column.as_primitive::<Int64Type>().values().to_vec()
    }

    /// Rows 0, 1, 2 … of the keys 0, 1 and 2 in turns; the note of a row is its value.
    fn filled(rows: i64) -> KeyedRows<Option<u32>, i64> {
        let mut kept = KeyedRows::new(schema(), schema());
        for begin in (0..rows).step_by(1_000) {
            let range = begin..rows.min(begin + 1_000);
            let keys = batch(range.clone().map(|n| n % 3));
            kept.push(keys.columns(), &batch(range.clone()), range).unwrap();
        }
        kept
    }

    #[test]
    fn rows_of_a_key_stay_in_order_and_with_their_notes_when_others_go() {
        let mut kept = filled(30_000);
        let mut of_one: Vec<u32> = kept.rows_of(1).filter(|row| row % 2 == 0).collect();
        of_one.reverse();
        kept.keep(0, []);
        kept.keep(1, of_one.iter().copied());
        kept.keep(2, [29_999]);
        *kept.memory_mut(2) = Some(7);
        assert_eq!(kept.rows(), 5_001);
        let numbers = kept.compact_if_worth().unwrap().unwrap();
        assert_eq!(numbers, [None, Some(0), Some(1)], "nothing is known of key 0");
        assert_eq!((kept.rows(), kept.memories()), (5_001, &[None, Some(7)][..]));
        let rows: Vec<u32> = kept.rows_of(0).collect();
        let notes: Vec<i64> = rows.iter().map(|row| kept.note(*row)).collect();
        assert_eq!(notes, of_one.iter().map(|row| i64::from(*row)).collect::<Vec<_>>());
        assert_eq!(values(kept.gather(&rows).unwrap().column(0)), notes);
        assert!(kept.compact_if_worth().unwrap().is_none());
    }

    #[test]
    fn keys_that_have_come_and_gone_without_rows_are_forgotten() {
        let mut kept: KeyedRows<(), ()> = KeyedRows::new(schema(), schema());
        for begin in (0..100_000).step_by(1_000) {
            let keys = batch(begin..begin + 1_000);
            kept.number(keys.columns(), 1_000).unwrap();
            kept.compact_if_worth().unwrap();
        }
        assert!(kept.keys() <= 2 * COMPACT_MIN, "{} keys", kept.keys());
    }

    /// NULL leaves the hash of a row as it is, so two of these keys have one hash; the second of them gets its number after all others
    /// of a batch.
    #[test]
    fn keys_with_one_hash_stay_apart_when_others_go() {
        let text = |values: [Option<&str>; 4]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
        let keys = [
            text([Some("gone"), Some("s"), Some("s"), Some("s")]),
            text([None, Some("A"), None, Some("B")]),
            text([None, None, Some("A"), Some("1")]),
        ];
        let fields = ["x", "y", "z"].map(|name| Field::new(name, DataType::Utf8, true));
        let mut kept: KeyedRows<Option<u32>> = KeyedRows::new(schema(), Arc::new(Schema::new(fields.to_vec())));
        let some = |begin, rows| keys.iter().map(|key| key.slice(begin, rows)).collect::<Vec<_>>();
        let mut before = kept.push(&some(0, 3), &batch(0..3), repeat(())).unwrap().to_vec();
        before.extend(kept.push(&some(3, 1), &batch(3..4), repeat(())).unwrap());
        before.iter().zip(0..).for_each(|(key, n)| *kept.memory_mut(*key) = Some(n));
        *kept.memory_mut(before[0]) = None;
        kept.keep(before[0], []);
        for n in (4..).step_by(4) {
            if kept.compact_if_worth().unwrap().is_some() {
                break;
            }
            let numbers = kept.push(&keys, &batch(n..n + 4), repeat(())).unwrap().to_vec();
            numbers[1..].iter().for_each(|key| kept.keep(*key, kept.rows_of(*key).take(1).collect::<Vec<_>>()));
            kept.keep(numbers[0], []);
        }
        let numbers = kept.push(&keys, &batch(100..104), repeat(())).unwrap().to_vec();
        for (n, key) in (0..).zip(numbers).skip(1) {
            let rows: Vec<u32> = kept.rows_of(key).collect();
            assert_eq!(values(kept.gather(&rows).unwrap().column(0)), [n, 100 + n]);
            assert_eq!(kept.memory_mut(key).map(i64::from), Some(n));
        }
    }

    #[test]
    fn what_is_taken_out_is_by_key_and_nothing_stays() {
        let mut kept = filled(7);
        kept.keep(1, [4]);
        let All { keys, memories, rows, notes } = kept.take().unwrap();
        assert_eq!((values(&keys[0]), memories), (vec![0, 1, 2], vec![None; 3]));
        assert_eq!(values(rows.column(0)), [0, 3, 6, 4, 2, 5]);
        assert_eq!(notes, [0, 3, 6, 4, 2, 5]);
        assert_eq!((kept.rows(), kept.keys()), (0, 0));
        kept.push(batch([9]).columns(), &batch([1]), [1]).unwrap();
        assert_eq!(kept.rows_of(0).collect::<Vec<_>>(), [0]);
    }
}
