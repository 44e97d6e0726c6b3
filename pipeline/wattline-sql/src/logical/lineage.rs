//! Where a column comes from: an expression at the top of a plan, rewritten over the columns of its sources.
//!
//! Used to recognise the event time and the time bins of windows behind any number of projections, aliases
//! and joins. Resolution stops at aggregates: their grouping columns go on, their results do not.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use crate::catalog::{StreamSource, event_time_type};

/// The relation that stands for "the result of an aggregate" in a resolved expression.
const AGGREGATE: &str = "__aggregate";
/// The relation that stands for "the result of a window function".
const OVER: &str = "__over";

/// A function of the event time that puts rows into windows: `date_bin`, or what HOP and CUMULATE unnest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TimeBin {
    /// Width of a window, microseconds.
    pub(crate) size_us: i64,
    /// The resolved expression; two bins are the same if this is equal.
    pub(crate) expr: Expr,
    lag_us: i64,
}

impl TimeBin {
    /// How far past the value of the bin the watermark must be, so that no row to come has that value; microseconds.
    pub(crate) fn final_after_us(&self) -> i64 {
        self.lag_us.saturating_add(1)
    }
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
        LogicalPlan::Window(window) => match window.input.schema().fields().len() {
            width if index < width => {
                resolve_column(&window.input, &Column::from(window.input.schema().qualified_field(index)))
            }
            _ => Expr::Column(Column::new(Some(OVER), &column.name)),
        },
        LogicalPlan::Union(union) => {
            let of_input =
                |input: &Arc<LogicalPlan>| resolve_column(input, &Column::from(input.schema().qualified_field(index)));
            let mut resolved = union.inputs.iter().map(of_input);
            match resolved.next() {
                Some(first) if resolved.all(|other| other == first) => first,
                _ => unresolved(),
            }
        }
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

/// How far a resolved instant may lie behind the watermark: once the watermark is `w`, no row to come has it below
/// `w - lag`, in microseconds. `None` if it is no function of the event time that we know.
pub(crate) fn lag_us(resolved: &Expr, streams: &[&StreamSource]) -> Option<i64> {
    if is_event_time(resolved, streams) {
        return Some(0);
    }
    match resolved {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            lag_us(left, streams)?.checked_sub(interval_us(right)?)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            lag_us(left, streams)?.checked_add(interval_us(right)?)
        }
        _ => time_bin_of(resolved, streams).map(|bin| bin.lag_us),
    }
}

/// The bin that a resolved expression is, if it is `date_bin(fixed interval, instant[, literal])`.
pub(crate) fn time_bin_of(resolved: &Expr, streams: &[&StreamSource]) -> Option<TimeBin> {
    let grid = Grid::of(resolved)?;
    let mut below = grid.time;
    // A bin of bins on a grid that divides it is the bin of what they bin.
    while let Some(inner) = Grid::of(below).filter(|inner| grid.is_divided_by(inner)) {
        below = inner.time;
    }
    let lag_us = lag_us(below, streams)?.checked_add(grid.size_us)?.checked_sub(1)?;
    Some(TimeBin { size_us: grid.size_us, expr: resolved.clone(), lag_us })
}

/// The equal intervals that a `date_bin` puts instants into.
struct Grid<'a> {
    size_us: i64,
    origin_us: Option<i64>,
    time: &'a Expr,
}

impl<'a> Grid<'a> {
    fn of(resolved: &'a Expr) -> Option<Self> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = resolved else { return None };
        if func.name() != "date_bin" {
            return None;
        }
        let size_us = interval_us(args.first()?)?;
        let origin_us = match args.get(2) {
            None => Some(0),
            Some(origin) if is_constant(origin) => instant_us(origin),
            Some(_) => return None,
        };
        (size_us > 0).then_some(Self { size_us, origin_us, time: args.get(1)? })
    }

    /// Whether every edge of this grid is an edge of the other.
    fn is_divided_by(&self, inner: &Self) -> bool {
        let distance_us = self.origin_us.zip(inner.origin_us).map(|(a, b)| a.wrapping_sub(b));
        self.size_us % inner.size_us == 0 && distance_us.is_some_and(|distance_us| distance_us % inner.size_us == 0)
    }
}

/// The bin `expr` as a function of a finer `bin` of the same instants, which `finer` stands for.
pub(crate) fn as_bin_of(expr: &Expr, bin: &TimeBin, finer: Expr) -> Option<Expr> {
    let (grid, of_bin) = (Grid::of(expr)?, Grid::of(&bin.expr)?);
    if grid.time != of_bin.time || !grid.is_divided_by(&of_bin) {
        return None;
    }
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let mut args = args.clone();
    args[1] = finer;
    Some(Expr::ScalarFunction(ScalarFunction { func: Arc::clone(func), args }))
}

/// The microseconds of an instant literal; `None` for one that is computed.
fn instant_us(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&event_time_type()).ok()? {
            ScalarValue::TimestampMicrosecond(us, _) => us,
            _ => None,
        },
        Expr::Cast(cast) => instant_us(&cast.expr),
        _ => None,
    }
}

fn is_constant(expr: &Expr) -> bool {
    expr.column_refs().is_empty() && !expr.is_volatile()
}

/// All bins inside a resolved expression, outer ones first.
pub(crate) fn find_time_bins(resolved: &Expr, streams: &[&StreamSource]) -> Vec<TimeBin> {
    let mut found = Vec::new();
    let walked = resolved.apply(|expr| {
        found.extend(time_bin_of(expr, streams));
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "walking an expression does not fail");
    found
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
