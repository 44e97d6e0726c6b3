//! A row pattern as a window function: for each row the list of matches that it stands for.
//!
//! Made by `MATCH_RECOGNIZE`, never called by name: the pattern is part of the function. Its arguments are the event time
//! and the inputs of its formulas. See [`crate::pattern`].

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimestampMicrosecondType};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowFunctionDefinition, WindowUDFImpl};

use crate::pattern::{Horizon, Resume, RowPattern, scan};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct MatchRows {
    pattern: Arc<RowPattern>,
    /// Says all of the pattern, since plans are compared and fingerprinted by their text.
    name: String,
    signature: Signature,
}

impl MatchRows {
    pub(crate) fn new(pattern: Arc<RowPattern>) -> Self {
        let name = format!("match_recognize[{pattern}]");
        Self { pattern, name, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// The pattern behind a window function, if it is one.
    pub(crate) fn pattern_of(function: &WindowFunction) -> Option<&Arc<RowPattern>> {
        match &function.fun {
            WindowFunctionDefinition::WindowUDF(of) => of.inner().downcast_ref::<Self>().map(|of| &of.pattern),
            WindowFunctionDefinition::AggregateUDF(_) => None,
        }
    }
}

impl WindowUDFImpl for MatchRows {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), self.pattern.list_type(), true)))
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator { pattern: Arc::clone(&self.pattern) }))
    }
}

#[derive(Debug)]
struct Evaluator {
    pattern: Arc<RowPattern>,
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let Some(times) = values.first().and_then(|time| time.as_primitive_opt::<TimestampMicrosecondType>()) else {
            return exec_err!("the first argument of a row pattern is no timestamp in microseconds");
        };
        let scanned = scan(&self.pattern, times.values(), values, Resume::default(), Horizon::End)?;
        Ok(Arc::new(scanned.lists))
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}
