//! The expressions of DEFINE and MEASURES.
//!
//! An expression speaks of rows of the match (`last(b.price)`, `prev(price)`, `a.ts`), of aggregates over them, and of the
//! match itself. Each of these is a [`Reference`]; what is left is a plain expression over the values of the references. The
//! inputs, what a reference takes from its row, are columns of the partition, computed once for all of its rows.
//!
//! A condition that looks only at the row in question and those a fixed number of rows before it is computed for the
//! whole partition at once. Others depend on what has been matched so far and are computed row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::kernels::window::shift;
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::cast::as_boolean_array;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::operators::record_batch;

/// What a formula takes from the match.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    /// An input of one row.
    Row(RowReference),
    /// An aggregate over the rows of a symbol, or of the whole match so far.
    Aggregate { function: Arc<AggregateFunctionExpr>, args: Vec<usize>, filter: Option<usize>, of: Option<usize> },
    /// The symbol of the current row.
    Classifier,
    /// The number of the match within its partition, from 1.
    MatchNumber,
}

/// An input of one row: `prev(last(b.price, 1), 2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowReference {
    pub(crate) input: usize,
    /// Among the rows of this symbol, or all.
    pub(crate) of: Option<usize>,
    pub(crate) end: End,
    /// So many rows of them inwards.
    pub(crate) nth: usize,
    /// And so many rows of the partition before that.
    pub(crate) back: usize,
}

/// From which end the rows are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    First,
    Last,
}

/// An expression over references.
#[derive(Debug)]
pub(crate) struct Formula {
    pub(crate) references: Vec<Reference>,
    /// A column for each reference, and one in front that keeps a row a row.
    pub(crate) schema: SchemaRef,
    pub(crate) expr: Arc<dyn PhysicalExpr>,
}

/// The match as far as it has come: its last row is the current one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    pub(super) start: usize,
    /// The symbol of each row.
    pub(super) symbols: &'a [usize],
    pub(super) names: &'a [String],
    pub(super) number: i64,
}

impl Formula {
    pub(crate) fn rows_before(&self) -> usize {
        let back = |reference: &Reference| match reference {
            Reference::Row(row) => row.back,
            Reference::Aggregate { .. } | Reference::Classifier | Reference::MatchNumber => 0,
        };
        self.references.iter().map(back).max().unwrap_or(0)
    }

    pub(crate) fn data_type(&self) -> Result<DataType> {
        self.expr.data_type(&self.schema)
    }

    /// Whether the condition of `symbol` depends on which symbols the rows before were taken for, and not only on which rows
    /// they are. `first_row` is the symbol that is always the first row of a match and never another.
    pub(crate) fn depends_on_path(&self, symbol: usize, first_row: Option<usize>) -> bool {
        self.references.iter().any(|reference| match reference {
            Reference::Row(RowReference { of: None, .. }) | Reference::Aggregate { of: None, .. } => false,
            Reference::Row(RowReference { of: Some(of), end, nth, .. }) => {
                let is_first = first_row == Some(*of) && *nth == 0;
                let is_current = *of == symbol && *end == End::Last && *nth == 0;
                !is_first && !is_current
            }
            Reference::Aggregate { of, .. } => *of != first_row,
            Reference::Classifier | Reference::MatchNumber => false,
        })
    }

    /// As the condition of `symbol`, for all rows of the partition at once; `None` if it depends on the match so far.
    pub(super) fn for_all_rows(&self, symbol: usize, inputs: &[ArrayRef], rows: usize) -> Result<Option<BooleanArray>> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(BooleanArray::from(vec![true; rows]))];
        for reference in &self.references {
            let Reference::Row(RowReference { input, of, end: End::Last, nth: 0, back }) = reference else {
                return Ok(None);
            };
            if of.is_some_and(|of| of != symbol) {
                return Ok(None);
            }
            let back = i64::try_from(*back).unwrap_or(i64::MAX);
            columns.push(if back == 0 { Arc::clone(&inputs[*input]) } else { shift(&inputs[*input], back)? });
        }
        let batch = record_batch(&self.schema, columns, rows)?;
        let values = self.expr.evaluate(&batch)?.into_array(rows)?;
        Ok(Some(as_boolean_array(&values)?.clone()))
    }

    /// Whether the condition holds for the last row of the path.
    pub(super) fn holds(&self, inputs: &[ArrayRef], path: Path<'_>) -> Result<bool> {
        let value = self.evaluate(inputs, path)?;
        let value = as_boolean_array(&value)?;
        Ok(value.is_valid(0) && value.value(0))
    }

    /// The value at the last row of the path, as an array of one.
    pub(super) fn evaluate(&self, inputs: &[ArrayRef], path: Path<'_>) -> Result<ArrayRef> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(BooleanArray::from(vec![true]))];
        for (at, reference) in self.references.iter().enumerate() {
            let data_type = self.schema.field(at + 1).data_type();
            columns.push(match reference {
                Reference::Row(row) => match row.find(path) {
                    Some(at) => inputs[row.input].slice(at, 1),
                    None => new_null_array(data_type, 1),
                },
                Reference::Aggregate { function, args, filter, of } => {
                    aggregate(function, args, *filter, &path.rows_of(*of), inputs)?
                }
                Reference::Classifier => {
                    let name = path.symbols.last().map(|symbol| path.names[*symbol].as_str());
                    Arc::new(StringArray::from(vec![name]))
                }
                Reference::MatchNumber => Arc::new(Int64Array::from(vec![path.number])),
            });
        }
        let batch: RecordBatch = record_batch(&self.schema, columns, 1)?;
        self.expr.evaluate(&batch)?.into_array(1)
    }
}

impl RowReference {
    /// The row of the partition; `None` if there is no such row.
    fn find(&self, path: Path<'_>) -> Option<usize> {
        let is_of = |symbol: &usize| self.of.is_none_or(|of| *symbol == of);
        let at = match (self.of, self.end) {
            (None, End::First) => Some(self.nth).filter(|nth| *nth < path.symbols.len()),
            (None, End::Last) => path.symbols.len().checked_sub(self.nth + 1),
            (_, End::First) => {
                let mut of = path.symbols.iter().enumerate().filter(|(_, symbol)| is_of(symbol));
                of.nth(self.nth).map(|(at, _)| at)
            }
            (_, End::Last) => {
                let mut of = path.symbols.iter().enumerate().rev().filter(|(_, symbol)| is_of(symbol));
                of.nth(self.nth).map(|(at, _)| at)
            }
        }?;
        (path.start + at).checked_sub(self.back)
    }
}

impl Path<'_> {
    fn rows_of(&self, of: Option<usize>) -> Vec<u32> {
        let rows = self.symbols.iter().enumerate().filter(|(_, symbol)| of.is_none_or(|of| **symbol == of));
        rows.map(|(at, _)| u32::try_from(self.start + at).unwrap_or(u32::MAX)).collect()
    }
}

fn aggregate(
    function: &Arc<AggregateFunctionExpr>,
    args: &[usize],
    mask: Option<usize>,
    rows: &[u32],
    inputs: &[ArrayRef],
) -> Result<ArrayRef> {
    let rows = UInt32Array::from(rows.to_vec());
    let mut accumulator: Box<dyn Accumulator> = function.create_accumulator()?;
    let mut values = args.iter().map(|arg| take(&inputs[*arg], &rows, None)).collect::<Result<Vec<_>, _>>()?;
    if let Some(mask) = mask {
        let mask = take(&inputs[mask], &rows, None)?;
        let mask = as_boolean_array(&mask)?;
        values = values.iter().map(|arg| filter(arg, mask)).collect::<Result<_, _>>()?;
    }
    if values.first().is_some_and(|values| !values.is_empty()) {
        accumulator.update_batch(&values)?;
    }
    accumulator.evaluate()?.to_array()
}

/// The conditions of all symbols over one partition, computed when they are asked for.
#[derive(Debug)]
pub(super) struct Conditions<'a> {
    defines: &'a [Option<Formula>],
    inputs: &'a [ArrayRef],
    rows: usize,
    for_all_rows: BTreeMap<usize, Option<BooleanArray>>,
}

impl<'a> Conditions<'a> {
    pub(super) fn new(defines: &'a [Option<Formula>], inputs: &'a [ArrayRef], rows: usize) -> Self {
        Self { defines, inputs, rows, for_all_rows: BTreeMap::new() }
    }

    /// Whether the last row of the path fits its symbol.
    pub(super) fn fits(&mut self, path: Path<'_>) -> Result<bool> {
        let Some(&symbol) = path.symbols.last() else { return Ok(false) };
        let Some(condition) = &self.defines[symbol] else { return Ok(true) };
        if !self.for_all_rows.contains_key(&symbol) {
            let computed = condition.for_all_rows(symbol, self.inputs, self.rows)?;
            self.for_all_rows.insert(symbol, computed);
        }
        match &self.for_all_rows[&symbol] {
            Some(fits) => {
                let at = path.start + path.symbols.len() - 1;
                Ok(fits.is_valid(at) && fits.value(at))
            }
            None => condition.holds(self.inputs, path),
        }
    }
}

/// The values of arrays of one, as one array of this type.
pub(super) fn joined(values: &[ArrayRef], data_type: &DataType) -> Result<ArrayRef> {
    let scalars = values.iter().map(|value| ScalarValue::try_from_array(value, 0)).collect::<Result<Vec<_>>>()?;
    match scalars.is_empty() {
        true => Ok(arrow::array::new_empty_array(data_type)),
        false => ScalarValue::iter_to_array(scalars),
    }
}
