//! How far apart in time the two rows of a join can be.
//!
//! Read from ON (or from WHERE, which the optimiser moves there): comparisons between an instant of the left side and one
//! of the right, each perhaps shifted by an interval. `b.ts BETWEEN a.ts AND a.ts + INTERVAL '1 hour'` says that the
//! difference is between nothing and an hour; equality of two windows that it is nothing.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator};

use super::held_back::lag_in;
use super::lineage::{interval, interval_us, resolve};

/// The right instant less the left one lies between these, microseconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JoinBound {
    pub(crate) left: Column,
    pub(crate) right: Column,
    pub(crate) lowest_us: i64,
    pub(crate) highest_us: i64,
}

/// What is known so far of two instants.
struct Found {
    left: Column,
    right: Column,
    lowest_us: Option<i64>,
    highest_us: Option<i64>,
}

/// For each side of a join, its instant of the bound and how far past it the watermark is when the last of the rows with it
/// comes; `None` without a bound.
pub(super) fn join_moments(join: &Join) -> Option<[(Column, i64); 2]> {
    let JoinBound { left, right, lowest_us, highest_us } = join_bound_of(join)?;
    let lag_of = |plan: &LogicalPlan, column: &Column| lag_in(plan, &Expr::Column(column.clone()));
    let (left_lag_us, right_lag_us) = (lag_of(&join.left, &left)?, lag_of(&join.right, &right)?);
    // A row waits for the last partner that there can be, and comes no sooner than it would alone.
    let left_us = highest_us.saturating_add(right_lag_us).max(left_lag_us).saturating_add(1);
    let right_us = left_lag_us.saturating_sub(lowest_us).max(right_lag_us).saturating_add(1);
    Some([(left, left_us), (right, right_us)])
}

/// The bound between two instants of the sides, if the join states one.
pub(crate) fn join_bound_of(join: &Join) -> Option<JoinBound> {
    let mut bounds: Vec<Found> = Vec::new();
    for (left, right) in &join.on {
        compare(join, left, Operator::Eq, right, &mut bounds);
    }
    for conjunct in join.filter.iter().flat_map(split_conjunction) {
        match conjunct {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => compare(join, left, *op, right, &mut bounds),
            Expr::Between(between) if !between.negated => {
                compare(join, &between.low, Operator::LtEq, &between.expr, &mut bounds);
                compare(join, &between.expr, Operator::LtEq, &between.high, &mut bounds);
            }
            _ => {}
        }
    }
    bounds.into_iter().find_map(|Found { left, right, lowest_us, highest_us }| {
        Some(JoinBound { left, right, lowest_us: lowest_us?, highest_us: highest_us? })
    })
}

/// Takes one comparison into account.
fn compare(join: &Join, a: &Expr, op: Operator, b: &Expr, bounds: &mut Vec<Found>) {
    if let (Some((later, earlier)), Some(us)) = (difference(a), duration_us(b)) {
        return compare(join, later, op, &(earlier.clone() + interval(us)), bounds);
    }
    if let (Some(us), Some((later, earlier))) = (duration_us(a), difference(b)) {
        return compare(join, &(earlier.clone() + interval(us)), op, later, bounds);
    }
    if let (Operator::Eq, Some((a, size_us)), Some((b, other_us))) = (op, binned(a), binned(b))
        && size_us == other_us
    {
        // Instants of one bin are less than its size apart.
        compare(join, a, Operator::LtEq, &(b.clone() + interval(size_us)), bounds);
        return compare(join, b, Operator::LtEq, &(a.clone() + interval(size_us)), bounds);
    }
    let (Some((a, a_us)), Some((b, b_us))) = (shifted(a), shifted(b)) else { return };
    let is_left = |column: &Column| join.left.schema().has_column(column);
    let is_right = |column: &Column| join.right.schema().has_column(column);
    // left + x op right + y
    let (left, right, x_us, y_us, op) = if is_left(&a) && is_right(&b) {
        (a, b, a_us, b_us, op)
    } else if is_left(&b) && is_right(&a) {
        let Some(op) = op.swap() else { return };
        (b, a, b_us, a_us, op)
    } else {
        return;
    };
    let has_time = |plan: &LogicalPlan, column: &Column| lag_in(plan, &Expr::Column(column.clone())).is_some();
    if !has_time(&join.left, &left) || !has_time(&join.right, &right) {
        return;
    }
    let ((left, left_us), (right, right_us)) = (from_start(&join.left, left), from_start(&join.right, right));
    let shift_us = x_us.checked_add(left_us).and_then(|us| us.checked_sub(y_us)?.checked_sub(right_us));
    let Some(shift_us) = shift_us else { return };
    let at = bounds.iter().position(|bound| bound.left == left && bound.right == right).unwrap_or_else(|| {
        bounds.push(Found { left, right, lowest_us: None, highest_us: None });
        bounds.len() - 1
    });
    let bound = &mut bounds[at];
    if matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq) {
        bound.lowest_us = bound.lowest_us.max(Some(shift_us));
    }
    if matches!(op, Operator::Eq | Operator::Gt | Operator::GtEq) {
        bound.highest_us = Some(bound.highest_us.map_or(shift_us, |highest_us| highest_us.min(shift_us)));
    }
}

/// The instant of a bin of fixed size, and that size.
fn binned(expr: &Expr) -> Option<(&Expr, i64)> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == "date_bin" => {
            let [size, instant, ..] = &call.args[..] else { return None };
            Some((instant, interval_us(size)?))
        }
        _ => None,
    }
}

/// The two instants of a difference.
fn difference(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => Some((left, right)),
        _ => None,
    }
}

/// The microseconds of a literal length of time.
pub(crate) fn duration_us(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::DurationMicrosecond(us), _) => *us,
        Expr::Literal(ScalarValue::DurationNanosecond(ns), _) => ns.map(|ns| ns.div_euclid(1_000)),
        _ => None,
    }
}

/// An end of a window as its start plus the size, if the plan has both: `ts >= window_start AND ts < window_end` is one bound.
fn from_start(plan: &LogicalPlan, column: Column) -> (Column, i64) {
    let resolved = |column: &Column| resolve(plan, &Expr::Column(column.clone()));
    if let Expr::BinaryExpr(BinaryExpr { left: start, op: Operator::Plus, right }) = resolved(&column)
        && let Some(us) = interval_us(&right)
        && let Some(start) = plan.schema().columns().into_iter().find(|column| resolved(column) == *start)
    {
        return (start, us);
    }
    (column, 0)
}

/// A column plus a constant interval.
pub(crate) fn shifted(expr: &Expr) -> Option<(Column, i64)> {
    match expr {
        Expr::Column(column) => Some((column.clone(), 0)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            if let Some(us) = interval_us(right) {
                return shifted(left).and_then(|(column, shift)| Some((column, shift.checked_add(us)?)));
            }
            let us = interval_us(left)?;
            shifted(right).and_then(|(column, shift)| Some((column, shift.checked_add(us)?)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            let us = interval_us(right)?;
            shifted(left).and_then(|(column, shift)| Some((column, shift.checked_sub(us)?)))
        }
        _ => None,
    }
}
