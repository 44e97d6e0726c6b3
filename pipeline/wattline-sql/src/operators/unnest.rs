//! UNNEST: a row for each item of its lists, and a column for each field of its structs.
//!
//! Several lists of a row are walked side by side, as DataFusion does: the longest says how many rows there are, shorter
//! ones go on with NULL. A list that is NULL gives one row with NULL, an empty one gives none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{NullHandling, exec_datafusion_err};
use datafusion::error::Result;

use super::{Chunk, record_batch};

/// Which columns are taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Unnest {
    /// Positions of the lists.
    pub(crate) lists: Vec<usize>,
    /// Positions of the structs.
    pub(crate) structs: Vec<usize>,
    pub(crate) nulls: NullHandling,
    pub(crate) schema: SchemaRef,
}

impl Unnest {
    pub(crate) fn run(&self, chunk: &Chunk) -> Result<Chunk> {
        let columns = chunk.batch.columns();
        let (rows, taken) = match self.lists.is_empty() {
            true => (None, columns.to_vec()),
            false => self.expand(columns, chunk.len())?,
        };
        let mut flat = Vec::with_capacity(self.schema.fields().len());
        for (at, column) in taken.into_iter().enumerate() {
            if self.structs.contains(&at) {
                flat.extend(column.as_struct().columns().iter().cloned());
            } else {
                flat.push(column);
            }
        }
        let len = rows.as_ref().map_or(chunk.len(), Array::len);
        let batch = record_batch(&self.schema, flat, len)?;
        let rows = match (rows, &chunk.rows) {
            (None, known) => known.clone(),
            (Some(rows), None) => Some(rows),
            (Some(rows), Some(known)) => {
                Some(UInt32Array::from_iter_values(rows.values().iter().map(|&row| known.value(row as usize))))
            }
        };
        Ok(Chunk { batch, rows })
    }

    /// The row that each new row comes from, and the columns with the lists replaced by their items.
    fn expand(&self, columns: &[ArrayRef], rows: usize) -> Result<(Option<UInt32Array>, Vec<ArrayRef>)> {
        let lists = self.lists.iter().map(|at| Items::of(&columns[*at])).collect::<Result<Vec<_>>>()?;
        let longest: Vec<usize> =
            (0..rows).map(|row| lists.iter().map(|list| list.rows_of(row, self.nulls)).max().unwrap_or(0)).collect();
        let repeated = (0_u32..).zip(&longest).flat_map(|(row, &count)| std::iter::repeat_n(row, count));
        let repeated: UInt32Array = repeated.collect::<Vec<_>>().into();
        let mut taken = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            taken.push(match self.lists.iter().position(|list| *list == at) {
                None => take(column, &repeated, None)?,
                Some(list) => take(&lists[list].values, &lists[list].places(&longest), None)?,
            });
        }
        Ok((Some(repeated), taken))
    }
}

/// The items of a column of lists.
struct Items {
    values: ArrayRef,
    /// Start and length of each row's items; `None` for a list that is NULL.
    ranges: Vec<Option<(usize, usize)>>,
}

impl Items {
    fn of(column: &ArrayRef) -> Result<Self> {
        match column.data_type() {
            DataType::List(_) => Ok(Self::of_list(column.as_list::<i32>())),
            DataType::LargeList(_) => Ok(Self::of_list(column.as_list::<i64>())),
            DataType::FixedSizeList(_, _) => {
                let list = column.as_fixed_size_list();
                let size = usize::try_from(list.value_length()).unwrap_or(0);
                let range = |row: usize| list.is_valid(row).then_some((row * size, size));
                Ok(Self { values: Arc::clone(list.values()), ranges: (0..list.len()).map(range).collect() })
            }
            other => Err(exec_datafusion_err!("UNNEST of {other}, which is no list")),
        }
    }

    fn of_list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Self {
        let offsets = list.value_offsets();
        let range = |row: usize| {
            let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
            list.is_valid(row).then_some((start, end - start))
        };
        Self { values: Arc::clone(list.values()), ranges: (0..list.len()).map(range).collect() }
    }

    fn rows_of(&self, row: usize, nulls: NullHandling) -> usize {
        match (self.ranges[row], nulls) {
            (None, NullHandling::Drop) => 0,
            (None, NullHandling::Preserve | NullHandling::PreserveAndExpandEmpty) => 1,
            (Some((_, 0)), NullHandling::PreserveAndExpandEmpty) => 1,
            (Some((_, count)), _) => count,
        }
    }

    /// The item of each new row, none beyond the end of a list.
    fn places(&self, longest: &[usize]) -> UInt32Array {
        let of_row = |(row, count): (usize, &usize)| {
            let (start, length) = self.ranges[row].unwrap_or((0, 0));
            (0..*count).map(move |item| if item < length { u32::try_from(start + item).ok() } else { None })
        };
        longest.iter().enumerate().flat_map(of_row).collect()
    }
}
