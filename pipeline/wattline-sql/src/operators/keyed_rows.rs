//! Rows kept by key: what stages that look at several rows of one key have in common.
//!
//! Rows come in batches and stay in them; of each key only the places of its rows are kept, in the order of arrival.
//! When most of the rows that are held belong to nobody any more, what is left is copied together, and keys without rows are
//! forgotten. So memory follows the rows that are kept, not those that ever came.

use std::fmt;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take};
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Rows below which copying together is not worth it.
const COMPACT_ROWS_MIN: usize = 8_192;

/// Batch and row within it.
pub(crate) type Place = (u32, u32);

/// Rows by key; `T` is what else a stage remembers of a key.
pub(crate) struct KeyedRows<T> {
    schema: SchemaRef,
    key_schema: SchemaRef,
    /// `None` without key columns: then there is one key.
    table: Option<Box<dyn GroupValues>>,
    entries: Vec<Entry<T>>,
    batches: Vec<RecordBatch>,
    held: usize,
    live: usize,
    numbers: Vec<usize>,
}

/// What is kept of one key.
#[derive(Debug, Default)]
pub(crate) struct Entry<T> {
    pub(crate) places: Vec<Place>,
    pub(crate) memory: Option<T>,
}

/// Everything that is kept.
pub(crate) struct All<'a, T> {
    /// The keys in the order of their numbers.
    pub(crate) keys: Vec<ArrayRef>,
    /// What is kept of each of them.
    pub(crate) entries: &'a [Entry<T>],
    pub(crate) rows: RecordBatch,
}

impl<T> fmt::Debug for KeyedRows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRows").field("keys", &self.entries.len()).field("rows", &self.live).finish()
    }
}

impl<T> KeyedRows<T> {
    /// For rows of `schema` by keys of `key_schema`.
    pub(crate) fn new(schema: SchemaRef, key_schema: SchemaRef) -> Self {
        Self {
            schema,
            key_schema,
            table: None,
            entries: Vec::new(),
            batches: Vec::new(),
            held: 0,
            live: 0,
            numbers: Vec::new(),
        }
    }

    /// Rows kept.
    pub(crate) fn rows(&self) -> usize {
        self.live
    }

    /// Memory held.
    pub(crate) fn bytes(&self) -> usize {
        let rows: usize = self.batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let keys =
            self.entries.capacity() * size_of::<Entry<T>>() + self.table.as_ref().map_or(0, |table| table.size());
        // What a stage notes of when rows are due is about as much as their places.
        rows + keys + 3 * self.held * size_of::<Place>()
    }

    /// The number of each key, for those that are new too.
    pub(crate) fn number(&mut self, keys: &[ArrayRef], rows: usize) -> Result<&[usize]> {
        self.numbers.clear();
        if self.key_schema.fields().is_empty() {
            self.numbers.resize(rows, 0);
        } else {
            if self.table.is_none() {
                let schema = SchemaRef::clone(&self.key_schema);
                self.table = Some(new_group_values(schema, &GroupOrdering::None)?);
            }
            if let Some(table) = &mut self.table {
                table.intern(keys, &mut self.numbers)?;
            }
        }
        let known = self.numbers.iter().max().map_or(0, |highest| highest + 1);
        while self.entries.len() < known {
            self.entries.push(Entry { places: Vec::new(), memory: None });
        }
        Ok(&self.numbers)
    }

    /// Adds rows; `keys` are their key columns. Returns the number of each row's key.
    pub(crate) fn push(&mut self, keys: &[ArrayRef], batch: &RecordBatch) -> Result<&[usize]> {
        let rows = batch.num_rows();
        self.number(keys, rows)?;
        let number = u32::try_from(self.batches.len()).unwrap_or(u32::MAX);
        for (row, key) in (0_u32..).zip(&self.numbers) {
            self.entries[*key].places.push((number, row));
        }
        self.batches.push(batch.clone());
        self.held += rows;
        self.live += rows;
        Ok(&self.numbers)
    }

    /// How many keys have a number.
    pub(crate) fn keys(&self) -> usize {
        self.entries.len()
    }

    /// The first number of the places that the next batch will have.
    pub(crate) fn next_batch(&self) -> u32 {
        u32::try_from(self.batches.len()).unwrap_or(u32::MAX)
    }

    /// What is kept of a key.
    pub(crate) fn entry(&self, key: usize) -> &Entry<T> {
        &self.entries[key]
    }

    /// What is kept of a key.
    pub(crate) fn entry_mut(&mut self, key: usize) -> &mut Entry<T> {
        &mut self.entries[key]
    }

    /// Puts other places for the rows of a key.
    pub(crate) fn keep(&mut self, key: usize, places: Vec<Place>) {
        let entry = &mut self.entries[key];
        self.live = self.live + places.len() - entry.places.len();
        entry.places = places;
    }

    /// The rows at these places.
    pub(crate) fn gather(&self, places: &[Place]) -> Result<RecordBatch> {
        if places.is_empty() {
            return Ok(RecordBatch::new_empty(SchemaRef::clone(&self.schema)));
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let places: Vec<(usize, usize)> = places.iter().map(|(batch, row)| (*batch as usize, *row as usize)).collect();
        Ok(interleave_record_batch(&batches, &places)?)
    }

    /// Everything that is kept, with the rows copied together.
    pub(crate) fn all(&mut self) -> Result<All<'_, T>> {
        self.compact()?;
        let rows = match self.batches.first() {
            Some(rows) => rows.clone(),
            None => RecordBatch::new_empty(SchemaRef::clone(&self.schema)),
        };
        let keys = self.take_keys()?;
        self.number_again(&keys)?;
        Ok(All { keys, entries: &self.entries, rows })
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(SchemaRef::clone(&self.schema), SchemaRef::clone(&self.key_schema));
    }

    /// Copies what is kept together if that is worth it; true if the numbers of the keys have changed.
    pub(crate) fn compact_if_worth(&mut self) -> Result<bool> {
        let worth = self.held >= COMPACT_ROWS_MIN && self.live * 2 < self.held;
        if worth {
            self.compact()?;
        }
        Ok(worth)
    }

    /// All keys in the order of their numbers, and forgets them.
    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        match self.table.take() {
            Some(mut table) => table.emit(EmitTo::All),
            None => Ok(RecordBatch::new_empty(SchemaRef::clone(&self.key_schema)).columns().to_vec()),
        }
    }

    /// Numbers distinct keys from 0.
    fn number_again(&mut self, keys: &[ArrayRef]) -> Result<()> {
        if keys.first().is_some_and(|key| !key.is_empty()) {
            let mut table = new_group_values(SchemaRef::clone(&self.key_schema), &GroupOrdering::None)?;
            table.intern(keys, &mut self.numbers)?;
            self.table = Some(table);
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        let kept: Vec<u32> = (0_u32..)
            .zip(&self.entries)
            .filter(|(_, entry)| !entry.places.is_empty() || entry.memory.is_some())
            .map(|(number, _)| number)
            .collect();
        let numbers = UInt32Array::from(kept.clone());
        let keys = self.take_keys()?;
        let keys = keys.iter().map(|key| take(key, &numbers, None)).collect::<std::result::Result<Vec<_>, _>>()?;
        self.number_again(&keys)?;
        let mut entries: Vec<Option<Entry<T>>> = std::mem::take(&mut self.entries).into_iter().map(Some).collect();
        self.entries = kept.iter().filter_map(|number| entries[*number as usize].take()).collect();
        let places: Vec<Place> = self.entries.iter().flat_map(|entry| entry.places.iter().copied()).collect();
        let rows = self.gather(&places)?;
        for (row, place) in (0_u32..).zip(self.entries.iter_mut().flat_map(|entry| &mut entry.places)) {
            *place = (0, row);
        }
        (self.held, self.live) = (rows.num_rows(), rows.num_rows());
        self.batches = if rows.num_rows() > 0 { vec![rows] } else { Vec::new() };
        Ok(())
    }
}
