//! `mask(text, first, last)`: the first and last so many characters, and a `*` for each one between.
//!
//! For names, phone numbers and addresses in results that more people read than the raw tables. A text that would be shown
//! whole, or nearly (fewer than two characters hidden), is masked whole. NULL in, NULL out.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::cast::{as_int64_array, as_string_array};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// Fewer hidden characters than this would hide nothing.
const HIDDEN_MIN: usize = 2;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Mask {
    signature: Signature,
}

impl Mask {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Mask {
    fn name(&self) -> &str {
        "mask"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types.len() {
            3 => Ok(vec![DataType::Utf8, DataType::Int64, DataType::Int64]),
            other => {
                plan_err!("mask takes a text and the numbers of characters to show at both ends, not {other} values")
            }
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = as_string_array(&arrays[0])?;
        let (first, last) = (as_int64_array(&arrays[1])?, as_int64_array(&arrays[2])?);
        let rows = texts.iter().zip(first).zip(last);
        let masked: StringArray = rows.map(|((text, first), last)| Some(masked(text?, first?, last?))).collect();
        Ok(ColumnarValue::Array(Arc::new(masked) as ArrayRef))
    }
}

fn masked(text: &str, first: i64, last: i64) -> String {
    let characters = text.chars().count();
    let shown = |count: i64| usize::try_from(count).unwrap_or(0);
    let (first, last) = (shown(first), shown(last));
    let is_hidden = |at: usize| at >= first && at + last < characters;
    let whole = first.saturating_add(last).saturating_add(HIDDEN_MIN) > characters;
    text.chars().enumerate().map(|(at, character)| if whole || is_hidden(at) { '*' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_shown_and_short_texts_are_not() {
        assert_eq!(masked("13812345678", 3, 4), "138****5678");
        assert_eq!(masked("王小明", 1, 0), "王**");
        assert_eq!(masked("王明", 1, 0), "**");
        assert_eq!(masked("12345678", 3, 4), "********");
        assert_eq!(masked("", 3, 4), "");
        assert_eq!(masked("secret", -1, 0), "******");
        assert_eq!(masked("secret", i64::MAX, i64::MAX), "******");
    }
}
