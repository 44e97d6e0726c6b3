//! `hop_pane(slide, size, instant [, origin])` and `cumulate_pane(step, size, instant [, origin])`: the pane of an instant, where
//! windows that overlap are folds over panes. Panes are as wide as the largest interval that divides both; one of HOP is named by its start, one
//! of CUMULATE by its end, as their windows are.
//!
//! Never written in a query: the planner puts them in place of `hop_starts` and `cumulate_ends` and their UNNEST, so that an event is
//! added to one pane instead of to each window that holds it.

use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::date_bin::DateBin;
use super::{interval_us, largest_common_us};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WindowPane {
    by_end: bool,
    bin: DateBin,
    signature: Signature,
}

impl WindowPane {
    pub(super) fn new(by_end: bool) -> Self {
        Self { by_end, bin: DateBin::new(), signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for WindowPane {
    fn name(&self) -> &str {
        if self.by_end { "cumulate_pane" } else { "hop_pane" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [step, _, rest @ ..] = arg_types else {
            return plan_err!("{} takes two intervals and an instant", self.name());
        };
        let mut types = self.bin.coerce_types(&[std::slice::from_ref(step), rest].concat())?;
        types.insert(1, types[0].clone());
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[2].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let size = args.args.remove(1);
        args.arg_fields.remove(1);
        let rows = args.number_rows;
        let (ColumnarValue::Scalar(step), ColumnarValue::Scalar(size)) = (&args.args[0], &size) else {
            return exec_err!("the intervals of {} are no literals", self.name());
        };
        let (Some(step_us), Some(size_us)) = (interval_us(step), interval_us(size)) else {
            return exec_err!("the intervals of {} have months", self.name());
        };
        let pane_us = largest_common_us(step_us, size_us);
        let pane = IntervalMonthDayNano::new(0, 0, pane_us.saturating_mul(1_000));
        args.args[0] = ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(pane)));
        let starts = self.bin.invoke_with_args(args)?;
        if !self.by_end {
            return Ok(starts);
        }
        let starts = starts.into_array(rows)?;
        let starts = starts.as_primitive::<TimestampMicrosecondType>();
        let ends: TimestampMicrosecondArray = starts.unary(|start| start.saturating_add(pane_us));
        Ok(ColumnarValue::Array(Arc::new(ends.with_data_type(starts.data_type().clone()))))
    }
}
