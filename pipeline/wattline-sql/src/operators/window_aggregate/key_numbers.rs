//! Numbers for group keys, so that many windows find their groups without hashing the key again.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Numbers the distinct keys that come along, from 0. Forgets all of them when told to, which must be when no number is in
/// use any more: so it is bounded by the keys between two snapshots, not by all there ever were.
pub(crate) struct KeyNumbers {
    schema: SchemaRef,
    /// From the first key on.
    table: Option<Box<dyn GroupValues>>,
    /// The keys in the order of their numbers, in parts.
    parts: Vec<Vec<ArrayRef>>,
    /// Answers for the batch in hand. They hold on to the columns, so none can take another's place in memory.
    answers: Vec<(Vec<ArrayRef>, UInt32Array)>,
    scratch: Vec<usize>,
}

impl fmt::Debug for KeyNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyNumbers").field("schema", &self.schema).field("keys", &self.len()).finish()
    }
}

impl KeyNumbers {
    /// For keys of these types.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        Self { schema: Arc::clone(schema), table: None, parts: Vec::new(), answers: Vec::new(), scratch: Vec::new() }
    }

    fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.len())
    }

    /// Whether keys of this schema can be numbered here: names do not matter.
    pub(crate) fn fits(&self, schema: &SchemaRef) -> bool {
        let types =
            |schema: &SchemaRef| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        types(&self.schema) == types(schema)
    }

    /// The number of each key.
    pub(crate) fn of(&mut self, keys: &[ArrayRef]) -> Result<UInt32Array> {
        let same = |known: &[ArrayRef]| known.iter().zip(keys).all(|(a, b)| a.to_data().ptr_eq(&b.to_data()));
        if let Some((_, numbers)) = self.answers.iter().find(|(known, _)| same(known)) {
            return Ok(numbers.clone());
        }
        let known = self.len();
        let table = match &mut self.table {
            Some(table) => table,
            None => self.table.insert(new_group_values(Arc::clone(&self.schema), &GroupOrdering::None)?),
        };
        self.scratch.clear();
        table.intern(keys, &mut self.scratch)?;
        let fresh = table.len() - known;
        u32::try_from(table.len()).map_err(|_| exec_datafusion_err!("more than 4 billion keys between snapshots"))?;
        if fresh > 0 {
            let mut first = vec![u32::MAX; fresh];
            for (row, &number) in self.scratch.iter().enumerate() {
                if let Some(first) = number.checked_sub(known).map(|at| &mut first[at])
                    && *first == u32::MAX
                {
                    *first = u32::try_from(row).unwrap_or(u32::MAX);
                }
            }
            self.parts.push(super::take_all(keys, &UInt32Array::from(first))?);
        }
        let numbers: UInt32Array =
            self.scratch.iter().map(|&number| u32::try_from(number).unwrap_or(u32::MAX)).collect();
        self.answers.push((keys.to_vec(), numbers.clone()));
        Ok(numbers)
    }

    /// Ends the batch in hand.
    pub(crate) fn end_batch(&mut self) {
        self.answers.clear();
    }

    /// The keys of these numbers.
    pub(crate) fn keys(&mut self, numbers: &UInt32Array) -> Result<Vec<ArrayRef>> {
        if self.parts.len() > 1 {
            let column = |at: usize| {
                let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part[at].as_ref()).collect();
                concat(&parts)
            };
            let whole = (0..self.schema.fields().len()).map(column).collect::<std::result::Result<_, _>>()?;
            self.parts = vec![whole];
        }
        let Some(whole) = self.parts.first() else { return Ok(Vec::new()) };
        Ok(whole.iter().map(|column| take(column, numbers, None)).collect::<std::result::Result<_, _>>()?)
    }

    /// Forgets all keys.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(&self.schema);
    }

    /// Memory held, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let parts = self.parts.iter().flatten().map(|column| column.get_array_memory_size()).sum::<usize>();
        self.table.as_ref().map_or(0, |table| table.size()) + parts
    }
}
