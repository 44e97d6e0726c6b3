//! Joins a stream's rows to a reference table held in memory.
//!
//! The table side of the query is collected once by DataFusion and hashed by its equality keys. Rules that need
//! the same rows share the table; rules that need other columns by the same keys share the hash table ([`KeyIndexes`]), and
//! the rules of a batch share the answer to the same question ([`Lookups`]). A probe looks up whole key columns, then
//! evaluates the rest of the ON clause (validity bounds above all) on the candidate pairs only, reading only the columns
//! that the condition names. Output order: the stream's rows in their order, the matches of one row in the table's order.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use hashbrown::HashMap;

use super::{Chunk, record_batch};

mod validity;

use validity::{Instanced, Settled, Validity};

/// Candidate pairs per step of a join without keys.
const PAIRS_MAX: usize = 262_144;

/// What becomes of a stream row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefJoinKind {
    /// Kept once per match.
    Inner,
    /// Kept once per match, or once with nulls.
    KeepStream,
    /// Kept if there is a match.
    Semi,
    /// Kept if there is no match.
    Anti,
    /// Kept once, with a last column that says whether there is a match.
    Mark,
}

/// The rows of a reference side and where each key stands.
#[derive(Debug)]
pub(crate) struct RefTable {
    batch: RecordBatch,
    index: Option<Arc<KeyIndex>>,
}

/// The hash tables of a rule set, by the key columns that they were made from, and the columns that rules have in common.
#[derive(Debug, Default)]
pub(crate) struct KeyIndexes {
    known: Vec<(Vec<ArrayRef>, Arc<KeyIndex>)>,
    columns: Vec<ArrayRef>,
}

impl KeyIndexes {
    /// The column, or an equal one that another table has already.
    fn shared(&mut self, column: &ArrayRef) -> ArrayRef {
        if let Some(known) = self.columns.iter().find(|known| *known == column) {
            return Arc::clone(known);
        }
        self.columns.push(Arc::clone(column));
        Arc::clone(column)
    }
}

/// Matches that were found for columns of the batch in hand. Holds on to the columns: none of them can be freed and
/// another take its place in memory while the answers are kept.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    found: RefCell<Vec<Found>>,
}

/// A question that was asked, and its answer.
#[derive(Debug)]
struct Found {
    index: Arc<KeyIndex>,
    keys: Vec<ArrayRef>,
    condition: Option<Condition>,
    pairs: Pairs,
}

/// The rest of an ON clause over the columns that it reads.
#[derive(Debug, Clone)]
struct Condition {
    expr: Arc<dyn PhysicalExpr>,
    inputs: Vec<ArrayRef>,
}

impl Condition {
    fn is_same(&self, other: &Self) -> bool {
        self.expr.as_ref() == other.expr.as_ref() && same_arrays(&self.inputs, &other.inputs)
    }
}

/// Whether these are the very same arrays, not only equal ones.
fn same_arrays(a: &[ArrayRef], b: &[ArrayRef]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b) || a.to_data().ptr_eq(&b.to_data()))
}

impl Lookups {
    /// Pairs of equal keys that meet the condition; `narrow` evaluates it.
    fn pairs(
        &self,
        index: &Arc<KeyIndex>,
        keys: &[ArrayRef],
        condition: Option<Condition>,
        narrow: impl FnOnce(Pairs) -> Result<Pairs>,
    ) -> Result<Pairs> {
        let answer = |condition: Option<&Condition>| {
            let is_same = |found: &&Found| {
                Arc::ptr_eq(&found.index, index)
                    && same_arrays(&found.keys, keys)
                    && match (&found.condition, condition) {
                        (None, None) => true,
                        (Some(a), Some(b)) => a.is_same(b),
                        _ => false,
                    }
            };
            self.found.borrow().iter().find(is_same).map(|found| found.pairs.clone())
        };
        if let Some(pairs) = answer(condition.as_ref()) {
            return Ok(pairs);
        }
        let keep = |condition, pairs: &Pairs| {
            let (index, keys) = (Arc::clone(index), keys.to_vec());
            self.found.borrow_mut().push(Found { index, keys, condition, pairs: pairs.clone() });
        };
        let candidates = match answer(None) {
            Some(candidates) => candidates,
            None => {
                let candidates = candidates_by_key(index, keys)?;
                keep(None, &candidates);
                candidates
            }
        };
        if condition.is_none() {
            return Ok(candidates);
        }
        let pairs = narrow(candidates)?;
        keep(condition, &pairs);
        Ok(pairs)
    }
}

#[derive(Debug)]
pub(crate) struct KeyIndex {
    converter: Option<RowConverter>,
    null_matches_null: bool,
    ranges: HashMap<Vec<u8>, (u32, u32)>,
    rows: Vec<u32>,
}

/// Key columns as bytes: text as it is, everything else in Arrow's row format.
enum EncodedKeys<'a> {
    Text(&'a arrow::array::StringArray),
    Rows(Rows),
}

impl EncodedKeys<'_> {
    fn bytes(&self, row: usize) -> &[u8] {
        match self {
            Self::Text(array) => array.value(row).as_bytes(),
            Self::Rows(rows) => rows.row(row).data(),
        }
    }
}

impl RefTable {
    /// Hashes the rows by `keys`; without keys every row is a candidate.
    pub(crate) fn new(
        batch: RecordBatch,
        keys: &[Arc<dyn PhysicalExpr>],
        null_matches_null: bool,
        indexes: &mut KeyIndexes,
    ) -> Result<Self> {
        let columns = batch.columns().iter().map(|column| indexes.shared(column)).collect();
        let batch = record_batch(&batch.schema(), columns, batch.num_rows())?;
        if keys.is_empty() {
            return Ok(Self { batch, index: None });
        }
        let arrays = evaluate_keys(keys, &batch)?;
        let same = |(of, index): &&(Vec<ArrayRef>, Arc<KeyIndex>)| {
            index.null_matches_null == null_matches_null && *of == arrays
        };
        if let Some((_, index)) = indexes.known.iter().find(same) {
            return Ok(Self { batch, index: Some(Arc::clone(index)) });
        }
        let index = Arc::new(KeyIndex::new(&arrays, null_matches_null)?);
        indexes.known.push((arrays, Arc::clone(&index)));
        Ok(Self { batch, index: Some(index) })
    }

    pub(crate) fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }
}

impl KeyIndex {
    fn new(arrays: &[ArrayRef], null_matches_null: bool) -> Result<Self> {
        let text = arrays.len() == 1 && *arrays[0].data_type() == DataType::Utf8 && !null_matches_null;
        let converter = if text {
            None
        } else {
            Some(RowConverter::new(arrays.iter().map(|a| SortField::new(a.data_type().clone())).collect())?)
        };
        let mut index = Self { converter, null_matches_null, ranges: HashMap::new(), rows: Vec::new() };
        let mut groups: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
        let encoded = index.encode(arrays)?;
        for row in 0..arrays[0].len() {
            if index.can_match(arrays, row) {
                let number = u32::try_from(row).unwrap_or(u32::MAX);
                groups.entry_ref(encoded.bytes(row)).or_default().push(number);
            }
        }
        drop(encoded);
        for (key, rows) in groups {
            let start = u32::try_from(index.rows.len()).unwrap_or(u32::MAX);
            index.ranges.insert(key, (start, u32::try_from(rows.len()).unwrap_or(u32::MAX)));
            index.rows.extend(rows);
        }
        Ok(index)
    }

    fn encode<'a>(&self, arrays: &'a [ArrayRef]) -> Result<EncodedKeys<'a>> {
        Ok(match &self.converter {
            None => EncodedKeys::Text(arrays[0].as_string::<i32>()),
            Some(converter) => EncodedKeys::Rows(converter.convert_columns(arrays)?),
        })
    }

    fn can_match(&self, arrays: &[ArrayRef], row: usize) -> bool {
        self.null_matches_null || arrays.iter().all(|array| array.is_valid(row))
    }
}

/// A join of the stream's rows to a [`RefTable`].
#[derive(Debug)]
pub(crate) struct RefJoin {
    pub(crate) table: Arc<RefTable>,
    pub(crate) kind: RefJoinKind,
    pub(crate) stream_keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The rest of the ON clause, over the columns listed beside it (numbered left side first).
    pub(crate) condition: Option<(Arc<dyn PhysicalExpr>, Vec<usize>)>,
    pub(crate) stream_is_left: bool,
    /// Columns of the left side, then of the right side (semi and anti: of the stream only; mark: and the mark).
    pub(crate) schema: SchemaRef,
    /// When all versions of the table are valid, if the condition asks for that; known from the first batch on.
    settled: OnceLock<Settled>,
}

impl RefJoin {
    pub(crate) fn new(
        table: Arc<RefTable>,
        kind: RefJoinKind,
        stream_keys: Vec<Arc<dyn PhysicalExpr>>,
        condition: Option<(Arc<dyn PhysicalExpr>, Vec<usize>)>,
        stream_is_left: bool,
        schema: SchemaRef,
    ) -> Self {
        Self { table, kind, stream_keys, condition, stream_is_left, schema, settled: OnceLock::new() }
    }

    /// Joins all rows of a chunk.
    pub(crate) fn run(&self, chunk: &Chunk, lookups: &Lookups) -> Result<Chunk> {
        let rows = chunk.len();
        let step = match &self.table.index {
            Some(_) => rows,
            None => (PAIRS_MAX / self.table.num_rows().max(1)).max(1),
        };
        let mut pairs = Pairs::default();
        let mut start = 0;
        while start < rows {
            let len = step.min(rows - start);
            pairs.append(self.match_rows(&chunk.batch, start, len, lookups)?);
            start += len;
        }
        self.assemble(chunk, pairs)
    }

    fn match_rows(&self, batch: &RecordBatch, start: usize, len: usize, lookups: &Lookups) -> Result<Pairs> {
        let Some(index) = &self.table.index else {
            return self.narrow(batch, candidates_all(start, len, self.table.num_rows()));
        };
        let keys = evaluate_keys(&self.stream_keys, batch)?;
        let condition = self.condition.as_ref().map(|(expr, columns)| Condition {
            expr: Arc::clone(expr),
            inputs: columns.iter().map(|column| Arc::clone(self.source_of(*column, batch).1)).collect(),
        });
        lookups.pairs(index, &keys, condition, |candidates| self.narrow(batch, candidates))
    }

    /// The pairs that meet the rest of the ON clause.
    fn narrow(&self, batch: &RecordBatch, candidates: Pairs) -> Result<Pairs> {
        let Some((condition, columns)) = &self.condition else { return Ok(candidates) };
        if candidates.stream.is_empty() {
            return Ok(candidates);
        }
        let candidates = match self.valid_pairs(batch, condition, columns, candidates) {
            Ok(valid) => return Ok(valid),
            Err(candidates) => candidates,
        };
        let stream = UInt32Array::from(candidates.stream);
        let table = UInt32Array::from(candidates.table);
        let mut fields = Vec::with_capacity(columns.len());
        let mut arrays = Vec::with_capacity(columns.len());
        for &column in columns {
            let (from_stream, source) = self.source_of(column, batch);
            fields.push(Field::new(format!("c{column}"), source.data_type().clone(), true));
            arrays.push(take(source, if from_stream { &stream } else { &table }, None)?);
        }
        let pairs = record_batch(&Arc::new(Schema::new(fields)), arrays, stream.len())?;
        let mask = condition.evaluate(&pairs)?.into_array(stream.len())?;
        let mask = as_boolean_array(&mask)?;
        let kept = |rows: &UInt32Array| {
            (0..mask.len()).filter(|&i| mask.is_valid(i) && mask.value(i)).map(|i| rows.value(i)).collect()
        };
        Ok(Pairs { stream: kept(&stream), table: kept(&table) })
    }

    /// The pairs whose version was valid, if that is what the condition asks; else the candidates again.
    fn valid_pairs(
        &self,
        batch: &RecordBatch,
        condition: &Arc<dyn PhysicalExpr>,
        columns: &[usize],
        candidates: Pairs,
    ) -> std::result::Result<Pairs, Pairs> {
        let Some(Validity { from, to, at }) = Validity::of(condition) else { return Err(candidates) };
        let [(false, from), (false, to), (true, at)] = [from, to, at].map(|at| self.source_of(columns[at], batch))
        else {
            return Err(candidates);
        };
        let Some(instants) = Instanced::new(from, to, at) else { return Err(candidates) };
        if self.settled.get_or_init(|| Settled::of(&instants)).covers(&instants) {
            return Ok(candidates);
        }
        let pairs = candidates.stream.iter().zip(&candidates.table);
        let valid = pairs.filter(|(stream, table)| instants.is_valid(**stream as usize, **table as usize));
        let mut kept = Pairs::with_capacity(candidates.stream.len());
        for (&stream, &table) in valid {
            kept.stream.push(stream);
            kept.table.push(table);
        }
        Ok(kept)
    }

    /// A column of the pairs, numbered left side first: whether it is the stream's, and the whole column it is taken from.
    fn source_of<'a>(&'a self, column: usize, batch: &'a RecordBatch) -> (bool, &'a ArrayRef) {
        let (from_stream, index) = self.side_of(column, batch.num_columns());
        (from_stream, if from_stream { batch.column(index) } else { self.table.batch.column(index) })
    }

    fn side_of(&self, column: usize, stream_columns: usize) -> (bool, usize) {
        let left = if self.stream_is_left { stream_columns } else { self.table.batch.num_columns() };
        match column.checked_sub(left) {
            None => (self.stream_is_left, column),
            Some(index) => (!self.stream_is_left, index),
        }
    }

    fn mark(&self, chunk: &Chunk, pairs: &Pairs) -> Result<Chunk> {
        let mut marks = vec![false; chunk.len()];
        for row in &pairs.stream {
            marks[*row as usize] = true;
        }
        let marks = Arc::new(BooleanArray::from(marks)) as ArrayRef;
        let columns = chunk.batch.columns().iter().cloned().chain([marks]).collect();
        Ok(Chunk { batch: record_batch(&self.schema, columns, chunk.len())?, rows: chunk.rows.clone() })
    }

    fn assemble(&self, chunk: &Chunk, pairs: Pairs) -> Result<Chunk> {
        let (stream, table): (Vec<u32>, Option<UInt32Array>) = match self.kind {
            RefJoinKind::Inner => (pairs.stream, Some(UInt32Array::from(pairs.table))),
            RefJoinKind::KeepStream => {
                let (stream, table) = pairs.with_unmatched(chunk.len());
                (stream, Some(table))
            }
            RefJoinKind::Semi => (pairs.matched(), None),
            RefJoinKind::Anti => (pairs.unmatched(chunk.len()), None),
            RefJoinKind::Mark => return self.mark(chunk, &pairs),
        };
        let unchanged = stream.len() == chunk.len() && stream.iter().enumerate().all(|(at, &row)| at == row as usize);
        let stream = UInt32Array::from(stream);
        let take_stream = |array: &ArrayRef| if unchanged { Ok(Arc::clone(array)) } else { take(array, &stream, None) };
        let stream_columns =
            chunk.batch.columns().iter().map(take_stream).collect::<std::result::Result<Vec<_>, _>>()?;
        let columns = match &table {
            None => stream_columns,
            Some(table) => {
                let taken = self.table.batch.columns().iter().map(|array| take(array, table, None));
                let table_columns = taken.collect::<std::result::Result<Vec<_>, _>>()?;
                if self.stream_is_left {
                    [stream_columns, table_columns].concat()
                } else {
                    [table_columns, stream_columns].concat()
                }
            }
        };
        let rows = match (&chunk.rows, unchanged) {
            (rows, true) => rows.clone(),
            (None, false) => Some(stream.clone()),
            (Some(rows), false) => {
                Some(UInt32Array::from_iter_values(stream.values().iter().map(|&i| rows.value(i as usize))))
            }
        };
        Ok(Chunk { batch: record_batch(&self.schema, columns, stream.len())?, rows })
    }
}

/// Matching row numbers, sorted by the stream's row.
#[derive(Debug, Clone, Default)]
struct Pairs {
    stream: Vec<u32>,
    table: Vec<u32>,
}

impl Pairs {
    fn with_capacity(pairs: usize) -> Self {
        Self { stream: Vec::with_capacity(pairs), table: Vec::with_capacity(pairs) }
    }

    fn append(&mut self, other: Self) {
        if self.stream.is_empty() {
            *self = other;
        } else {
            self.stream.extend(other.stream);
            self.table.extend(other.table);
        }
    }

    fn with_unmatched(self, rows: usize) -> (Vec<u32>, UInt32Array) {
        let mut stream = Vec::with_capacity(rows.max(self.stream.len()));
        let mut table = Vec::with_capacity(rows.max(self.stream.len()));
        let mut at = 0;
        for row in 0..u32::try_from(rows).unwrap_or(u32::MAX) {
            let first = at;
            while at < self.stream.len() && self.stream[at] == row {
                stream.push(row);
                table.push(Some(self.table[at]));
                at += 1;
            }
            if at == first {
                stream.push(row);
                table.push(None);
            }
        }
        (stream, UInt32Array::from(table))
    }

    fn matched(mut self) -> Vec<u32> {
        self.stream.dedup();
        self.stream
    }

    fn unmatched(self, rows: usize) -> Vec<u32> {
        let mut matched = self.stream.into_iter().peekable();
        (0..u32::try_from(rows).unwrap_or(u32::MAX))
            .filter(|row| {
                let mut found = false;
                while matched.next_if_eq(row).is_some() {
                    found = true;
                }
                !found
            })
            .collect()
    }
}

fn candidates_by_key(index: &KeyIndex, keys: &[ArrayRef]) -> Result<Pairs> {
    let encoded = index.encode(keys)?;
    let rows = keys[0].len();
    let mut pairs = Pairs::with_capacity(rows);
    for row in 0..rows {
        if !index.can_match(keys, row) {
            continue;
        }
        if let Some(&(start, len)) = index.ranges.get(encoded.bytes(row)) {
            let number = u32::try_from(row).unwrap_or(u32::MAX);
            for &matched in &index.rows[start as usize..(start + len) as usize] {
                pairs.stream.push(number);
                pairs.table.push(matched);
            }
        }
    }
    Ok(pairs)
}

fn candidates_all(start: usize, len: usize, table_rows: usize) -> Pairs {
    let number = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    let stream = (start..start + len).flat_map(|row| std::iter::repeat_n(number(row), table_rows)).collect();
    let table = (0..len).flat_map(|_| 0..number(table_rows)).collect();
    Pairs { stream, table }
}

fn evaluate_keys(keys: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    keys.iter()
        .map(|key| {
            let array = key.evaluate(batch)?.into_array(batch.num_rows())?;
            Ok(match array.data_type() {
                DataType::Dictionary(_, value) => cast(&array, value)?,
                DataType::Utf8View | DataType::LargeUtf8 => cast(&array, &DataType::Utf8)?,
                _ => array,
            })
        })
        .collect()
}

/// The expression over only the columns it names, and the numbers of those columns.
pub(crate) fn compact_columns(expr: Arc<dyn PhysicalExpr>) -> Result<(Arc<dyn PhysicalExpr>, Vec<usize>)> {
    let mut columns = Vec::new();
    let rewritten = expr.transform_up(|node| {
        let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
        let at = columns.iter().position(|&index| index == column.index()).unwrap_or_else(|| {
            columns.push(column.index());
            columns.len() - 1
        });
        Ok(Transformed::yes(Arc::new(Column::new(column.name(), at)) as Arc<dyn PhysicalExpr>))
    })?;
    Ok((rewritten.data, columns))
}
