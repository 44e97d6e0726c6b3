//! Arithmetic of interval literals: `2 * INTERVAL '1 day'`, `-(INTERVAL '1 hour')`, `INTERVAL '1 day' + INTERVAL '2 hours'`.
//!
//! DataFusion has no product of an interval, and leaves sums to the optimiser, after the types of what they are compared with were made one.
//! So they are computed as soon as they are read. Parts stay apart: twice a month is two months, and a day is not 24 hours.

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::common::{DFSchema, ScalarValue, plan_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Computes constant intervals while a query is planned.
#[derive(Debug)]
pub(crate) struct ConstantIntervals;

impl ExprPlanner for ConstantIntervals {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let op = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(match combined(&expr.left, op, &expr.right)? {
            Some(interval) => PlannerResult::Planned(Expr::Literal(interval_value(interval), None)),
            None => PlannerResult::Original(expr),
        })
    }
}

/// The value of an expression of interval literals; `None` if it is something else.
///
/// # Errors
/// If it is too large.
pub(crate) fn constant_interval(expr: &Expr) -> Result<Option<IntervalMonthDayNano>> {
    match expr {
        Expr::Literal(value, _) if matches!(value.data_type(), DataType::Interval(_)) => {
            Ok(match value.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano))? {
                ScalarValue::IntervalMonthDayNano(interval) => interval,
                _ => None,
            })
        }
        Expr::Negative(inner) => constant_interval(inner)?.map(|interval| times(interval, -1)).transpose(),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => combined(left, *op, right),
        _ => Ok(None),
    }
}

fn combined(left: &Expr, op: Operator, right: &Expr) -> Result<Option<IntervalMonthDayNano>> {
    let whole = |expr: &Expr| match expr {
        Expr::Literal(value, _) if value.data_type().is_integer() => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(value)) => value,
            _ => None,
        },
        _ => None,
    };
    Ok(match (op, constant_interval(left)?, constant_interval(right)?) {
        (Operator::Plus, Some(left), Some(right)) => Some(sum(left, right)?),
        (Operator::Minus, Some(left), Some(right)) => Some(sum(left, times(right, -1)?)?),
        (Operator::Multiply, Some(interval), None) => whole(right).map(|by| times(interval, by)).transpose()?,
        (Operator::Multiply, None, Some(interval)) => whole(left).map(|by| times(interval, by)).transpose()?,
        _ => None,
    })
}

fn sum(a: IntervalMonthDayNano, b: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let months = a.months.checked_add(b.months);
    let days = a.days.checked_add(b.days);
    let nanoseconds = a.nanoseconds.checked_add(b.nanoseconds);
    made_of(months, days, nanoseconds)
}

fn times(of: IntervalMonthDayNano, by: i64) -> Result<IntervalMonthDayNano> {
    let times = |part: i32| i64::from(part).checked_mul(by).and_then(|part| i32::try_from(part).ok());
    made_of(times(of.months), times(of.days), of.nanoseconds.checked_mul(by))
}

fn made_of(months: Option<i32>, days: Option<i32>, nanoseconds: Option<i64>) -> Result<IntervalMonthDayNano> {
    let parts = months.zip(days).zip(nanoseconds);
    let ((months, days), nanoseconds) = parts
        .ok_or_else(|| plan_datafusion_err!("an interval is too large: more than 292 years, in hours and less"))?;
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

fn interval_value(interval: IntervalMonthDayNano) -> ScalarValue {
    ScalarValue::IntervalMonthDayNano(Some(interval))
}
