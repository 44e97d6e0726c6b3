//! What a query must be for its alerts to be told before they are committed: whoever computes it again must give the same rows, and
//! the rows of a condition must become final in the order of their times.
//!
//! The rows that a watermark makes final are the same whenever it comes. Two things may still differ from one run to the next:
//!
//! - the last digits of what is added up from floating-point values, as workers add in another order: also a limit that it is held
//!   against, and so the whole alert;
//! - of a condition, which rows its lifecycle has seen when it meets a row: all that became final before. If that is not by the time of
//!   the row, it depends on where rounds were cut.
//!
//! Rows come out of a plan once the watermark is a constant past an instant in them ([`released_by`]): the event time where rows wait
//! for it alone, the window where they are of one. If that instant is also the time of the alert, up to a constant, they come in order.
//! Only plans are followed for which that is easily seen; what else may be so is refused all the same.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Window, WindowFunctionDefinition,
};

use super::lineage::{
    contains_stream, grouped, interval_us, is_event_time, is_session, lag_us, resolve, resolve_column, streams_of,
    time_bin_of,
};

/// Aggregates that give the same for the same values, in whatever order these come.
const EXACT: [&str; 12] = [
    "count",
    "min",
    "max",
    "median",
    "percentile_cont",
    "gb_percentile_95",
    "nearest_rank_percentile",
    "first_value",
    "last_value",
    "nth_value",
    "array_agg",
    "string_agg",
];

/// The name of an aggregate of the plan whose result depends, in the last digit, on the order in which it meets its values.
pub(crate) fn inexact_aggregate(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        let input = match node {
            LogicalPlan::Aggregate(of) => &of.input,
            LogicalPlan::Window(of) => &of.input,
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if found.is_none() {
                    found = inexact(expr, input.schema());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(walked.is_ok(), "walking a plan does not fail");
    found
}

fn inexact(expr: &Expr, schema: &DFSchema) -> Option<String> {
    let (name, args) = match expr {
        Expr::AggregateFunction(of) => (of.func.name(), &of.params.args),
        Expr::WindowFunction(of) => match &of.fun {
            WindowFunctionDefinition::AggregateUDF(func) => (func.name(), &of.params.args),
            WindowFunctionDefinition::WindowUDF(_) => return None,
        },
        _ => return None,
    };
    let is_such = !EXACT.contains(&name) && args.iter().any(|arg| is_inexact(name, arg, schema));
    is_such.then(|| name.to_owned())
}

/// Whole numbers that are averaged are floating-point values on the way, and their sum is exact.
fn is_inexact(name: &str, arg: &Expr, schema: &DFSchema) -> bool {
    let data_type = |expr: &Expr| expr.get_type(schema).ok();
    let is_whole = |expr: &Expr| data_type(expr).is_some_and(|of| of.is_integer());
    match arg {
        Expr::Cast(cast) if ["sum", "avg"].contains(&name) && is_whole(&cast.expr) => false,
        _ => data_type(arg).is_none_or(|of| holds_floats(&of)),
    }
}

fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds_floats(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        other => other.is_floating(),
    }
}

/// Whether rows become final in the order of this column, all that have one value at once.
pub(crate) fn comes_in_order_of(plan: &LogicalPlan, column: usize) -> bool {
    let Some(column) = plan.schema().columns().into_iter().nth(column) else { return false };
    released_by(plan).is_some_and(|instant| instant == unshifted(resolve_column(plan, &column)))
}

/// The instant, resolved and up to a constant, that the watermark must have passed for a row of the plan to come.
fn released_by(plan: &LogicalPlan) -> Option<Expr> {
    match plan {
        LogicalPlan::Projection(of) => released_by(&of.input),
        LogicalPlan::Filter(of) => released_by(&of.input),
        LogicalPlan::SubqueryAlias(of) => released_by(&of.input),
        // Of a join to a reference table the rows of the stream are final by themselves.
        LogicalPlan::Join(of) => match (contains_stream(&of.left), contains_stream(&of.right)) {
            (true, false) => released_by(&of.left),
            (false, true) => released_by(&of.right),
            _ => None,
        },
        LogicalPlan::TableScan(_) => {
            let streams = streams_of(plan);
            let columns = plan.schema().columns();
            let mut resolved = columns.iter().map(|column| resolve_column(plan, column));
            resolved.find(|expr| is_event_time(expr, &streams))
        }
        LogicalPlan::Aggregate(of) => {
            let streams = streams_of(&of.input);
            let groups = grouped(of).into_iter().map(|group| unshifted(resolve(&of.input, group)));
            let mut bins = groups.filter(|group| time_bin_of(group, &streams).is_some());
            // Windows that begin together and end one after the other have two.
            let first = bins.next()?;
            bins.all(|other| other == first).then_some(first)
        }
        LogicalPlan::Window(of) => released_by(&of.input).filter(|instant| goes_by(of, instant)),
        _ => None,
    }
}

/// Whether all instants that a window function waits for are this one.
fn goes_by(window: &Window, instant: &Expr) -> bool {
    let (input, streams) = (&window.input, streams_of(&window.input));
    let is_same = |expr: &Expr| unshifted(resolve(input, expr)) == *instant;
    window.window_expr.iter().all(|expr| {
        let Expr::WindowFunction(function) = expr.clone().unalias() else { return false };
        let mut partitions = function.params.partition_by.iter();
        let by_instants = partitions.all(|expr| lag_us(&resolve(input, expr), &streams).is_none() || is_same(expr));
        let mut order = function.params.order_by.iter().take(1);
        by_instants && order.all(|order| is_same(&order.expr)) && !is_session(&function)
    })
}

/// An instant without the constant that it is moved by.
fn unshifted(resolved: Expr) -> Expr {
    match resolved {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) if interval_us(&right).is_some() => *left,
        other => other,
    }
}
