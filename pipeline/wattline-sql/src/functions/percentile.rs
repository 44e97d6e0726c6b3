//! Exact percentiles as the standards count them, not as a histogram estimates them.
//!
//! `gb_percentile_95(x)`: the 95 % value of GB/T 14549 and GB/T 15543: sorted from the largest, the first 5 % (rounded down)
//! are left out, and the next one is it. `nearest_rank_percentile(x, p)`: the smallest value that at least the share p of
//! all values do not exceed (EN 50160, IEEE 519). `percentile_cont(p) WITHIN GROUP (ORDER BY x)`: between two values in
//! proportion, in place of DataFusion's, which keeps six digits of the proportion. NULLs are left out; no value, NULL.
//!
//! State: all values, 8 bytes each. It is bounded by the window; `state_bytes` of the status shows it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::cast::as_float64_array;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

/// One value in so many is left out at the top.
const GB_LEFT_OUT_OF: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    Gb95,
    NearestRank,
    /// With the share counted from the other end, if the values are in descending order.
    Continuous {
        descending: bool,
    },
}

impl Rule {
    const fn name(self) -> &'static str {
        match self {
            Self::Gb95 => "gb_percentile_95",
            Self::NearestRank => "nearest_rank_percentile",
            Self::Continuous { .. } => "percentile_cont",
        }
    }

    fn check_share(self, share: f64) -> Result<()> {
        let (is_right, low) = match self {
            Self::Continuous { .. } => ((0.0..=1.0).contains(&share), "at least"),
            Self::Gb95 | Self::NearestRank => (share > 0.0 && share <= 1.0, "above"),
        };
        match is_right {
            true => Ok(()),
            false => exec_err!("the share of `{}` is {share}: it is {low} 0 and at most 1", self.name()),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Percentile {
    rule: Rule,
    signature: Signature,
    aliases: Vec<String>,
}

pub(super) fn all() -> [Percentile; 3] {
    [(Rule::Gb95, 1), (Rule::NearestRank, 2), (Rule::Continuous { descending: false }, 2)].map(|(rule, args)| {
        Percentile {
            rule,
            signature: Signature::exact(vec![DataType::Float64; args], Volatility::Immutable),
            aliases: matches!(rule, Rule::Continuous { .. }).then(|| "quantile_cont".to_owned()).into_iter().collect(),
        }
    })
}

fn list_item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, true))
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn supports_within_group_clause(&self) -> bool {
        matches!(self.rule, Rule::Continuous { .. })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let distinct = args.is_distinct && matches!(self.rule, Rule::Continuous { .. });
        if !distinct {
            super::refuse_distinct(self.name(), &args)?;
        }
        let share = args.exprs.get(1).and_then(|share| share.downcast_ref::<Literal>());
        if let Some(ScalarValue::Float64(Some(share))) = share.map(Literal::value) {
            self.rule.check_share(*share)?;
        }
        let descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        let rule = match self.rule {
            Rule::Continuous { .. } => Rule::Continuous { descending },
            rule => rule,
        };
        Ok(Box::new(State { rule, values: Vec::new(), share: None, distinct }))
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Field::new("values", DataType::List(list_item()), true).into(),
            Field::new("share", DataType::Float64, true).into(),
        ])
    }
}

#[derive(Debug)]
struct State {
    rule: Rule,
    values: Vec<f64>,
    /// The second argument, from the first row that gives it.
    share: Option<f64>,
    /// Whether equal values count once.
    distinct: bool,
}

impl State {
    fn note_share(&mut self, shares: &Float64Array) -> Result<()> {
        for share in shares.iter().flatten() {
            self.rule.check_share(share)?;
            if *self.share.get_or_insert(share) != share {
                return exec_err!("the share of `{}` must be the same for all rows", self.rule.name());
            }
        }
        Ok(())
    }

    /// The value at a place in ascending order.
    fn value_at(&mut self, place: usize) -> f64 {
        *self.values.select_nth_unstable_by(place, f64::total_cmp).1
    }

    /// The value at so much of the way from the first to the last.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a window holds far fewer than 2^53 values, and the share is between 0 and 1"
    )]
    fn interpolated(&mut self, share: f64, descending: bool) -> Option<f64> {
        let last = self.values.len().checked_sub(1)?;
        let way = share * last as f64;
        let place = if descending { last as f64 - way } else { way };
        let (below, part) = (place.floor() as usize, place.fract());
        let lower = self.value_at(below);
        if part == 0.0 {
            return Some(lower);
        }
        let upper = self.value_at(below + 1);
        // Of two infinities there is no difference.
        Some(if upper.total_cmp(&lower).is_eq() { lower } else { lower + (upper - lower) * part })
    }

    /// The place of the value in ascending order.
    fn place(&self) -> Option<usize> {
        let values = self.values.len();
        let last = values.checked_sub(1)?;
        match self.rule {
            Rule::Gb95 => Some(last - values / GB_LEFT_OUT_OF),
            Rule::NearestRank => Some(rank(values, self.share?) - 1),
            Rule::Continuous { .. } => None,
        }
    }
}

/// The smallest whole number that is at least share · values, from 1. A product that is whole but for rounding is whole.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a window holds far fewer than 2^53 values, and the share is between 0 and 1"
)]
fn rank(values: usize, share: f64) -> usize {
    let exact = share * values as f64;
    let whole = exact.round();
    let rank = if (exact - whole).abs() < 1e-9 * whole.max(1.0) { whole } else { exact.ceil() };
    (rank as usize).clamp(1, values)
}

impl Accumulator for State {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(as_float64_array(&values[0])?.iter().flatten());
        match values.get(1) {
            Some(shares) => self.note_share(as_float64_array(shares)?),
            None => Ok(()),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        for list in lists.iter().flatten() {
            self.values.extend(list.as_primitive::<Float64Type>().iter().flatten());
        }
        self.note_share(as_float64_array(&states[1])?)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = Float64Array::from(std::mem::take(&mut self.values));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = ListArray::try_new(list_item(), offsets, Arc::new(values), None)?;
        Ok(vec![ScalarValue::List(Arc::new(list)), ScalarValue::Float64(self.share)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = match (self.rule, self.share) {
            (Rule::Continuous { descending }, Some(share)) => {
                if self.distinct {
                    self.values.sort_unstable_by(f64::total_cmp);
                    self.values.dedup_by(|a, b| a.total_cmp(b).is_eq());
                }
                self.interpolated(share, descending)
            }
            _ => self.place().map(|place| self.value_at(place)),
        };
        Ok(ScalarValue::Float64(value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn week() -> Vec<f64> {
        (0..1_008).map(|i| 2.0 + f64::from(i % 100) * 0.03).collect()
    }

    fn of(rule: Rule, values: &[f64], share: Option<f64>) -> Option<f64> {
        // In two parts that are merged, as lanes do it.
        let (a, b) = values.split_at(values.len() / 3);
        let mut whole = State { rule, values: Vec::new(), share: None, distinct: false };
        for part in [a, b] {
            let mut state = State { rule, values: Vec::new(), share: None, distinct: false };
            let mut args: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(part.to_vec()))];
            args.extend(share.map(|share| Arc::new(Float64Array::from(vec![share; part.len()])) as ArrayRef));
            state.update_batch(&args).unwrap();
            let state: Vec<ArrayRef> = state.state().unwrap().iter().map(|value| value.to_array().unwrap()).collect();
            whole.merge_batch(&state).unwrap();
        }
        match whole.evaluate().unwrap() {
            ScalarValue::Float64(value) => value,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_week_of_ten_minute_values() {
        assert_eq!(of(Rule::Gb95, &week(), None).map(|v| (v * 1e6).round() / 1e6), Some(4.82));
        assert_eq!(of(Rule::NearestRank, &week(), Some(0.95)).map(|v| (v * 1e6).round() / 1e6), Some(4.82));
        assert_eq!(of(Rule::NearestRank, &week(), Some(0.99)).map(|v| (v * 1e6).round() / 1e6), Some(4.94));
        assert_eq!(of(Rule::NearestRank, &week(), Some(1.0)), Some(4.97));
    }

    #[test]
    fn between_two_values_in_proportion() {
        let ascending = Rule::Continuous { descending: false };
        let tens: Vec<f64> = (0..144).map(|k| f64::from(k) * 10_000.0).collect();
        assert_eq!(of(ascending, &tens, Some(0.95)), Some(1_358_500.0));
        assert_eq!(of(Rule::Continuous { descending: true }, &[1.0, 2.0, 4.0], Some(0.25)), Some(3.0));
        assert_eq!([0.0, 1.0].map(|share| of(ascending, &[3.0, 1.0, 2.0], Some(share))), [Some(1.0), Some(3.0)]);
        assert_eq!(of(ascending, &[], Some(0.5)), None);
        let infinite = [f64::INFINITY, 1.0, 2.0];
        assert_eq!(of(ascending, &infinite, Some(0.5)), Some(2.0));
        assert_eq!(of(ascending, &[f64::INFINITY; 2], Some(0.5)), Some(f64::INFINITY));
        assert!(of(ascending, &[1.0, f64::NAN], Some(0.5)).is_some_and(f64::is_nan));
        let ten: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!(of(Rule::Continuous { descending: true }, &ten, Some(0.9)), Some(1.0));
    }

    #[test]
    fn few_values_and_none() {
        assert_eq!(of(Rule::Gb95, &[3.0, 1.0, 2.0], None), Some(3.0));
        let twenty: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(of(Rule::Gb95, &twenty, None), Some(19.0));
        assert_eq!(of(Rule::NearestRank, &twenty, Some(0.95)), Some(19.0));
        assert_eq!(of(Rule::Gb95, &[], None), None);
        // 0.07 · 100 is a little more than 7 in binary.
        assert_eq!(rank(100, 0.07), 7);
        assert_eq!(rank(5, 0.01), 1);
    }
}
