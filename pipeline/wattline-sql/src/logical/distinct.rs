//! `SELECT DISTINCT` and `DISTINCT ON` are spelled out as the aggregates that they are.
//!
//! Done on the shared plan, so that what holds for GROUP BY holds for them: a window bounds what is kept, and
//! `DISTINCT ON (…) … ORDER BY` breaks ties by the event's identity.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, plan_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Aggregate, Distinct, DistinctOn, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::logical_expr::{ExprFunctionExt, expr_rewriter::normalize_cols};

use super::contains_stream;

/// Rewrites every DISTINCT over a stream.
///
/// # Errors
/// What DataFusion says if a plan cannot be rebuilt.
pub(crate) fn spell_out_distinct(session: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Distinct(Distinct::All(input)) if contains_stream(&input) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, columns, Vec::new())?)))
        }
        LogicalPlan::Distinct(Distinct::On(on)) if contains_stream(&on.input) => {
            Ok(Transformed::yes(first_of_each(session, on)?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// `first_value(each column ORDER BY …) … GROUP BY` the expressions of ON, which stand for themselves.
fn first_of_each(session: &SessionState, on: DistinctOn) -> Result<LogicalPlan> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, schema } = on;
    let first_value = session.aggregate_functions().get("first_value");
    let first_value = first_value.ok_or_else(|| plan_datafusion_err!("there is no function first_value"))?;
    let order = sort_expr.unwrap_or_default();
    let groups = normalize_cols(on_expr, &input)?;
    let selected = normalize_cols(select_expr, &input)?;
    let mut firsts = Vec::new();
    let mut places = Vec::with_capacity(selected.len());
    for expr in selected {
        let plain = expr.clone().unalias();
        if let Some(group) = groups.iter().position(|group| *group == plain) {
            places.push(group);
            continue;
        }
        places.push(groups.len() + firsts.len());
        let first = first_value.call(vec![expr]);
        firsts.push(if order.is_empty() { first } else { first.order_by(order.clone()).build()? });
    }
    let firsts = normalize_cols(firsts, &input)?;
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(input, groups, firsts)?);
    let outputs = places.into_iter().zip(schema.iter()).map(|(at, (qualifier, field))| {
        Expr::Column(Column::from(plan.schema().qualified_field(at))).alias_qualified(qualifier.cloned(), field.name())
    });
    let outputs: Vec<Expr> = outputs.collect();
    LogicalPlanBuilder::from(plan).project(outputs)?.build()
}
