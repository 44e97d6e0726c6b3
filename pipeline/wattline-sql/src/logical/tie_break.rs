//! `first_value(x ORDER BY t)` and its kin are made deterministic by the event's identity.
//!
//! Two events may carry the same time. Appending topic, partition, offset and index to the ORDER BY of the
//! aggregate makes its result a function of the events, not of the order in which lanes delivered them.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, SortExpr, cast};

use super::{contains_stream, resolve_column};

const IDENTITY: [&str; 4] = ["_topic", "_partition", "_offset", "_index"];

/// Extends every ordered aggregate directly over a stream; leaves others as they are.
///
/// # Errors
/// What DataFusion says if a plan cannot be rebuilt.
pub(crate) fn break_ties_by_identity(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) if contains_stream(&aggregate.input) => extend(aggregate),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

fn extend(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let identity: Vec<Expr> = IDENTITY
        .iter()
        .filter_map(|name| {
            aggregate.input.schema().columns().into_iter().find(|column| {
                column.name == *name
                    && matches!(resolve_column(&aggregate.input, column), Expr::Column(Column { name: source, .. }) if source == *name)
            })
        })
        .map(|column| {
            let topic = column.name == IDENTITY[0];
            let column = Expr::Column(column);
            if topic { cast(column, arrow::datatypes::DataType::Utf8) } else { column }
        })
        .collect();
    if identity.len() < IDENTITY.len() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let schema = aggregate.schema.clone();
    let mut changed = false;
    let aggr_expr = aggregate
        .aggr_expr
        .into_iter()
        .map(|expr| {
            let extended = expr.transform_up(|expr| match expr {
                Expr::AggregateFunction(mut function) if !function.params.order_by.is_empty() => {
                    let ties = identity.iter().map(|column| SortExpr::new(column.clone(), true, true));
                    function.params.order_by.extend(ties);
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
