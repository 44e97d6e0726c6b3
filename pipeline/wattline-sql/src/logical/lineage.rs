//! Where a column comes from: an expression at the top of a plan, rewritten over the columns of its sources.
//!
//! Used to recognise the event time and the time bins of windows behind any number of projections, aliases
//! and joins. Resolution stops at aggregates: their grouping columns go on, their results do not.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::catalog::StreamSource;

/// The relation that stands for "the result of an aggregate" in a resolved expression.
const AGGREGATE: &str = "__aggregate";

/// A time bin of fixed size over the event time of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TimeBin {
    /// Width, microseconds.
    pub(crate) size_us: i64,
    /// The resolved `date_bin(…)`; two bins are the same if this is equal.
    pub(crate) expr: Expr,
}

/// All streams scanned below `plan`.
pub(crate) fn streams_of(plan: &LogicalPlan) -> Vec<&StreamSource> {
    let mut streams = Vec::new();
    collect_streams(plan, &mut streams);
    streams
}

fn collect_streams<'a>(plan: &'a LogicalPlan, streams: &mut Vec<&'a StreamSource>) {
    if let LogicalPlan::TableScan(scan) = plan {
        streams.extend(StreamSource::of(&scan.source));
    }
    for input in plan.inputs() {
        collect_streams(input, streams);
    }
}

/// Whether any stream is scanned below `plan`.
pub(crate) fn contains_stream(plan: &LogicalPlan) -> bool {
    !streams_of(plan).is_empty()
}

/// Whether `plan` aggregates anywhere.
pub(crate) fn contains_aggregate(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Aggregate(_)) || plan.inputs().into_iter().any(contains_aggregate)
}

/// `expr`, valid over the output of `plan`, rewritten over the columns of the plan's sources.
pub(crate) fn resolve(plan: &LogicalPlan, expr: &Expr) -> Expr {
    let rewritten = expr.clone().transform_down(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::new(resolve_column(plan, &column), true, TreeNodeRecursion::Jump),
            Expr::Alias(alias) => Transformed::new(resolve(plan, &alias.expr), true, TreeNodeRecursion::Jump),
            other => Transformed::no(other),
        })
    });
    rewritten.map_or_else(|_infallible| expr.clone(), |rewritten| rewritten.data)
}

/// As [`resolve`], for one column.
pub(crate) fn resolve_column(plan: &LogicalPlan, column: &Column) -> Expr {
    let unresolved = || Expr::Column(Column { spans: Default::default(), ..column.clone() });
    let Ok(index) = plan.schema().index_of_column(column) else { return unresolved() };
    match plan {
        LogicalPlan::Projection(projection) => resolve(&projection.input, &projection.expr[index]),
        LogicalPlan::SubqueryAlias(alias) => {
            resolve_column(&alias.input, &Column::from(alias.input.schema().qualified_field(index)))
        }
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.get(index) {
            Some(group) => resolve(&aggregate.input, group),
            None => Expr::Column(Column::new(Some(AGGREGATE), &column.name)),
        },
        LogicalPlan::Join(join) => {
            let left = join.left.schema();
            let (side, index) = match index.checked_sub(left.fields().len()) {
                None => (&join.left, index),
                Some(index) => (&join.right, index),
            };
            resolve_column(side, &Column::from(side.schema().qualified_field(index)))
        }
        LogicalPlan::Filter(filter) => resolve_column(&filter.input, column),
        LogicalPlan::TableScan(scan) => {
            Expr::Column(Column::new(Some(scan.table_name.clone()), plan.schema().field(index).name().clone()))
        }
        _ => unresolved(),
    }
}

/// Whether a resolved expression is the event time of one of `streams`.
pub(crate) fn is_event_time(resolved: &Expr, streams: &[&StreamSource]) -> bool {
    let Expr::Column(column) = resolved else { return false };
    streams.iter().any(|source| {
        column.name == source.stream.event_time
            && column.relation.as_ref().is_some_and(|relation| relation.table() == source.stream.name)
    })
}

/// The bin that a resolved expression is, if it is `date_bin(fixed interval, event time[, literal])`.
pub(crate) fn time_bin_of(resolved: &Expr, streams: &[&StreamSource]) -> Option<TimeBin> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = resolved else { return None };
    if func.name() != "date_bin" {
        return None;
    }
    let size_us = interval_us(args.first()?)?;
    let origin_is_literal = args.get(2).is_none_or(is_constant);
    let over_event_time = is_event_time(args.get(1)?, streams);
    (size_us > 0 && origin_is_literal && over_event_time).then(|| TimeBin { size_us, expr: resolved.clone() })
}

fn is_constant(expr: &Expr) -> bool {
    expr.column_refs().is_empty() && !expr.is_volatile()
}

/// The first bin inside a resolved expression.
pub(crate) fn find_time_bin(resolved: &Expr, streams: &[&StreamSource]) -> Option<TimeBin> {
    let mut found = None;
    let walked = resolved.apply(|expr| {
        found = time_bin_of(expr, streams);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.ok().and(found)
}

/// The microseconds of an interval literal without months.
pub(crate) fn interval_us(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => {
            let days_us = i64::from(interval.days).checked_mul(86_400_000_000)?;
            (interval.nanoseconds % 1_000 == 0).then(|| days_us.checked_add(interval.nanoseconds / 1_000)).flatten()
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => {
            let ms = i64::from(interval.days).checked_mul(86_400_000)?.checked_add(i64::from(interval.milliseconds))?;
            ms.checked_mul(1_000)
        }
        _ => None,
    }
}
