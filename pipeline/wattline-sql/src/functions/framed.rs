//! Aggregates over frames that move, computed of the rows in the frame.
//!
//! DataFusion adds the rows that come into a frame and takes off those that leave. For floats that is not the sum of the frame: what a
//! huge value has drowned is gone when it leaves, a variance may be below zero, and the answer depends on where a batch ends. And
//! not every aggregate can take a row off. So these keep the rows of the frame and are computed anew for each row: exact for any
//! aggregate, in time that grows with the frame.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

/// Aggregates whose answer does not depend on how rows come and go.
const EXACT: [&str; 7] = ["array_agg", "count", "first_value", "last_value", "max", "min", "nth_value"];

/// The aggregate over a moving frame: itself if it is exact, else computed of the rows in the frame.
pub(crate) fn framed(udaf: &Arc<AggregateUDF>, of_floats: bool, is_distinct: bool) -> Arc<AggregateUDF> {
    let is_framed = (udaf.inner().as_ref() as &dyn Any).is::<Framed>();
    let is_sum = ["avg", "sum"].contains(&udaf.name()) && !of_floats;
    let is_exact = EXACT.contains(&udaf.name()) || is_sum;
    if is_framed || (is_exact && !is_distinct) {
        return Arc::clone(udaf);
    }
    Arc::new(AggregateUDF::from(Framed { inner: Arc::clone(udaf) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Framed {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Framed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(arg_fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let of = Call::new(&self.inner, &args);
        // What the aggregate refuses, DISTINCT above all, is refused when the rule is planned and not at its first row.
        of.accumulator().map(drop)?;
        Ok(Box::new(Frame { of, parts: VecDeque::new() }))
    }
}

/// What an accumulator of the aggregate is made from.
#[derive(Debug)]
struct Call {
    udaf: Arc<AggregateUDF>,
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Call {
    fn new(udaf: &Arc<AggregateUDF>, args: &AccumulatorArgs<'_>) -> Self {
        Self {
            udaf: Arc::clone(udaf),
            return_field: Arc::clone(&args.return_field),
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_owned(),
            is_distinct: args.is_distinct,
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        }
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.udaf.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })
    }
}

/// The rows of a frame, as the columns of the arguments.
#[derive(Debug)]
struct Frame {
    of: Call,
    parts: VecDeque<Vec<ArrayRef>>,
}

fn rows(part: &[ArrayRef]) -> usize {
    part.first().map_or(0, |column| column.len())
}

impl Accumulator for Frame {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        if rows(columns) > 0 {
            self.parts.push_back(columns.to_vec());
        }
        Ok(())
    }

    fn retract_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let mut left = rows(columns);
        while left > 0 {
            let Some(first) = self.parts.pop_front() else {
                return internal_err!("a frame lets go of more rows than it has");
            };
            let count = rows(&first);
            if count > left {
                self.parts.push_front(first.iter().map(|column| column.slice(left, count - left)).collect());
            }
            left = left.saturating_sub(count);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut accumulator = self.of.accumulator()?;
        // In one batch: how sums are grouped must not depend on how the rows came.
        let width = self.parts.front().map_or(0, Vec::len);
        let column = |at: usize| {
            let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part[at].as_ref()).collect();
            concat(&parts)
        };
        let columns = (0..width).map(column).collect::<std::result::Result<Vec<_>, _>>()?;
        if width > 0 {
            accumulator.update_batch(&columns)?;
        }
        accumulator.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a frame that moves has no state to merge")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        internal_err!("a frame that moves has no state to merge")
    }

    fn size(&self) -> usize {
        let bytes = |part: &Vec<ArrayRef>| part.iter().map(|column| column.get_array_memory_size()).sum::<usize>();
        size_of_val(self) + self.parts.iter().map(bytes).sum::<usize>()
    }
}
