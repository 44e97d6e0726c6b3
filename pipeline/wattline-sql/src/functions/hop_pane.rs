//! `hop_pane(slide, size, instant [, origin])`: the start of the pane of an instant, where windows of `size` that begin every
//! `slide` are folds over panes of `slide`.
//!
//! Never written in a query: the planner puts it in place of `hop_starts` and its UNNEST where the lanes aggregate, so
//! that an event is added to one pane instead of to each window that holds it.

use arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::date_bin::DateBin;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HopPane {
    bin: DateBin,
    signature: Signature,
}

impl HopPane {
    pub(super) fn new() -> Self {
        Self { bin: DateBin::new(), signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for HopPane {
    fn name(&self) -> &str {
        "hop_pane"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [slide, _, rest @ ..] = arg_types else { return plan_err!("hop_pane takes two intervals and an instant") };
        let mut types = self.bin.coerce_types(&[std::slice::from_ref(slide), rest].concat())?;
        types.insert(1, types[0].clone());
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[2].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.remove(1);
        args.arg_fields.remove(1);
        self.bin.invoke_with_args(args)
    }
}
