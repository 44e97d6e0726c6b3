//! `min` and `max` of floating-point values that do not depend on the order of rows.
//!
//! DataFusion's accumulators of groups compare with `<`: what a NaN leaves behind depends on whether it came first, and a
//! group of nothing but infinities becomes the largest finite number. A stream has no order that a batch would repeat, so here
//! floats go by their total order, as DataFusion's other accumulators do: NaN is above all numbers. All else is DataFusion's.

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// Both functions.
pub(super) fn all() -> [Extreme; 2] {
    [Extreme::Lowest(Min::new()), Extreme::Highest(Max::new())]
}

/// One of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Extreme {
    Lowest(Min),
    Highest(Max),
}

impl Extreme {
    fn inner(&self) -> &dyn AggregateUDFImpl {
        match self {
            Self::Lowest(min) => min,
            Self::Highest(max) => max,
        }
    }

    fn by_total_order<T>(&self, data_type: &DataType, range: [T::Native; 2]) -> Box<dyn GroupsAccumulator>
    where
        T: ArrowPrimitiveType + Send,
        T::Native: TotalOrder,
    {
        let [lowest, highest] = range;
        match self {
            Self::Lowest(_) => Box::new(
                PrimitiveGroupsAccumulator::<T, _>::new(data_type, |kept: &mut T::Native, new: T::Native| {
                    if new.is_below(*kept) {
                        *kept = new;
                    }
                })
                .with_starting_value(highest),
            ),
            Self::Highest(_) => Box::new(
                PrimitiveGroupsAccumulator::<T, _>::new(data_type, |kept: &mut T::Native, new: T::Native| {
                    if kept.is_below(new) {
                        *kept = new;
                    }
                })
                .with_starting_value(lowest),
            ),
        }
    }
}

trait TotalOrder: Copy {
    fn is_below(self, other: Self) -> bool;
}

impl TotalOrder for f32 {
    fn is_below(self, other: Self) -> bool {
        self.total_cmp(&other).is_lt()
    }
}

impl TotalOrder for f64 {
    fn is_below(self, other: Self) -> bool {
        self.total_cmp(&other).is_lt()
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner().name()
    }

    fn signature(&self) -> &Signature {
        self.inner().signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner().return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.inner().accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match args.return_field.data_type() {
            // The ends of the total order: NaNs with either sign.
            float @ DataType::Float32 => {
                Ok(self.by_total_order::<Float32Type>(float, [f32::from_bits(u32::MAX), f32::from_bits(u32::MAX >> 1)]))
            }
            float @ DataType::Float64 => {
                Ok(self.by_total_order::<Float64Type>(float, [f64::from_bits(u64::MAX), f64::from_bits(u64::MAX >> 1)]))
            }
            _ => self.inner().create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.inner().create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner().order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner().reverse_expr()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner().coerce_types(arg_types)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner().is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        // Statistics of files leave NaN out.
        if args.return_type.is_floating() { None } else { self.inner().value_from_stats(args) }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner().documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner().set_monotonicity(data_type)
    }
}
