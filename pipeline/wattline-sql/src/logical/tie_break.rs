//! What depends on the order of rows with the same time is made deterministic by the event's identity.
//!
//! Two events may carry the same time. Appending topic, partition, offset and index to an ORDER BY makes the result a
//! function of the events, not of the order in which lanes delivered them. That is done for ordered aggregates
//! (`first_value(x ORDER BY t)`) and for window functions that look at the order of rows (`row_number`, `lag`, ROWS frames);
//! a RANGE frame and `rank` mean rows of equal order, and stay as they are.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, Projection, SortExpr, Window, WindowFrameUnits, WindowFunctionDefinition, cast,
};

use super::{contains_stream, resolve_column};

const IDENTITY: [&str; 4] = ["_topic", "_partition", "_offset", "_index"];

/// Extends every ordered aggregate and window function over a stream that sees the identity; leaves others as they are.
///
/// # Errors
/// What DataFusion says if a plan cannot be rebuilt.
pub(crate) fn break_ties_by_identity(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) if contains_stream(&aggregate.input) => extend(aggregate),
        LogicalPlan::Window(window) if contains_stream(&window.input) => extend_window(window),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// The identity of the event behind a row, as an order; `None` if the plan does not show it.
fn identity_order(input: &LogicalPlan) -> Option<Vec<SortExpr>> {
    let columns = input.schema().columns();
    let of_event = |name: &str| {
        let is_source = |column: &Column| matches!(resolve_column(input, column), Expr::Column(Column { name: source, .. }) if source == name);
        let column = columns.iter().find(|column| column.name == name && is_source(column))?;
        let column = Expr::Column(column.clone());
        let column = if name == IDENTITY[0] { cast(column, arrow::datatypes::DataType::Utf8) } else { column };
        Some(SortExpr::new(column, true, true))
    };
    IDENTITY.into_iter().map(of_event).collect()
}

fn extend_window(window: Window) -> Result<Transformed<LogicalPlan>> {
    let Some(identity) = identity_order(&window.input) else {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    };
    let schema = Arc::clone(&window.schema);
    let width = window.input.schema().fields().len();
    let names = schema.iter().skip(width).map(|(_, field)| field.name().clone());
    // Functions of one node have one order, so those whose order stays get a node of their own.
    let (mut extended, mut others) = (Vec::new(), Vec::new());
    let mut places = Vec::new();
    for (expr, name) in window.window_expr.iter().cloned().zip(names) {
        match expr.unalias() {
            Expr::WindowFunction(mut function) if looks_at_order(&function) => {
                function.params.order_by.extend(identity.iter().cloned());
                places.push((true, extended.len()));
                extended.push(Expr::WindowFunction(function).alias(name));
            }
            other => {
                places.push((false, others.len()));
                others.push(if other.schema_name().to_string() == name { other } else { other.alias(name) });
            }
        }
    }
    if extended.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let first = extended.len();
    let plan = LogicalPlan::Window(Window::try_new(extended, window.input)?);
    if others.is_empty() {
        return Ok(Transformed::yes(plan));
    }
    let plan = LogicalPlan::Window(Window::try_new(others, Arc::new(plan))?);
    let inputs = (0..width).map(|at| Expr::Column(Column::from(plan.schema().qualified_field(at))));
    let functions = places.into_iter().map(|(is_extended, at)| {
        let at = width + if is_extended { at } else { first + at };
        Expr::Column(Column::from(plan.schema().qualified_field(at)))
    });
    let outputs: Vec<Expr> = inputs.chain(functions).collect();
    let projection = Projection::try_new(outputs, Arc::new(plan))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

fn looks_at_order(function: &WindowFunction) -> bool {
    let params = &function.params;
    let by_rows = match &function.fun {
        WindowFunctionDefinition::AggregateUDF(_) => params.window_frame.units == WindowFrameUnits::Rows,
        WindowFunctionDefinition::WindowUDF(of) => {
            let of_equals = ["rank", "dense_rank", "percent_rank", "cume_dist", "session_start", "session_end"]
                .contains(&of.name());
            let single =
                params.window_frame.units == WindowFrameUnits::Range && !params.window_frame.can_accept_multi_orderby();
            !of_equals && !single
        }
    };
    by_rows && !params.order_by.is_empty()
}

fn extend(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let Some(identity) = identity_order(&aggregate.input) else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let schema = aggregate.schema.clone();
    let mut changed = false;
    let aggr_expr = aggregate
        .aggr_expr
        .into_iter()
        .map(|expr| {
            let extended = expr.transform_up(|expr| match expr {
                Expr::AggregateFunction(mut function) if !function.params.order_by.is_empty() => {
                    function.params.order_by.extend(identity.iter().cloned());
                    Ok(Transformed::yes(Expr::AggregateFunction(function)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            changed |= extended.transformed;
            Ok(extended.data)
        })
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = schema.iter().skip(aggregate.group_expr.len()).map(|(_, field)| field.name().clone()).collect();
    let aggr_expr = aggr_expr
        .into_iter()
        .zip(names)
        .map(|(expr, name)| if changed && expr.schema_name().to_string() != name { expr.alias(name) } else { expr })
        .collect();
    let rebuilt = Aggregate::try_new(aggregate.input, aggregate.group_expr, aggr_expr)?;
    Ok(Transformed::new_transformed(LogicalPlan::Aggregate(rebuilt), changed))
}
