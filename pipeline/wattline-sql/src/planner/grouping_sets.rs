//! GROUPING SETS, ROLLUP and CUBE are the UNION ALL of one aggregate for each set.
//!
//! Each of them keeps windows of its own; a set without a window is refused like any aggregate without one.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, powerset};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, Union, lit};

use crate::logical::contains_stream;

/// Rewrites every aggregate over a stream that has grouping sets.
pub(super) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) if contains_stream(&aggregate.input) => {
            let sets = match &aggregate.group_expr[..] {
                [Expr::GroupingSet(set)] => sets_of(set)?,
                _ => return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
            };
            Ok(Transformed::yes(union_of(&aggregate, &sets)?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

fn sets_of(set: &GroupingSet) -> Result<Vec<Vec<Expr>>> {
    Ok(match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|count| exprs[..count].to_vec()).collect(),
        GroupingSet::Cube(exprs) => {
            powerset(exprs)?.into_iter().map(|set| set.into_iter().cloned().collect()).collect()
        }
    })
}

/// The inputs of a union have plain names; the columns get those of the aggregate above it.
fn union_of(aggregate: &Aggregate, sets: &[Vec<Expr>]) -> Result<LogicalPlan> {
    let all: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let inputs = sets.iter().map(|set| of_set(aggregate, &all, set).map(Arc::new)).collect::<Result<Vec<_>>>()?;
    let union = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
    let outputs = (0..).zip(aggregate.schema.iter()).map(|(at, (qualifier, field))| {
        Expr::Column(Column::new_unqualified(plain_name(at))).alias_qualified(qualifier.cloned(), field.name())
    });
    Ok(LogicalPlan::Projection(Projection::try_new(outputs.collect(), Arc::new(union))?))
}

fn plain_name(at: usize) -> String {
    format!("__set_{at}")
}

/// The aggregate over one set, with NULL for the expressions that are not in it.
fn of_set(aggregate: &Aggregate, all: &[Expr], set: &[Expr]) -> Result<LogicalPlan> {
    let schema = &aggregate.schema;
    let inner = Aggregate::try_new(Arc::clone(&aggregate.input), set.to_vec(), aggregate.aggr_expr.clone())?;
    let column = |at: usize| Expr::Column(Column::from(inner.schema.qualified_field(at)));
    let mut outputs = Vec::with_capacity(schema.fields().len());
    let mut id: u64 = 0;
    for (at, expr) in all.iter().enumerate() {
        let grouped = set.iter().position(|of| of == expr);
        id = (id << 1) | u64::from(grouped.is_none());
        outputs.push(match grouped {
            Some(at) => column(at),
            None => lit(ScalarValue::try_new_null(schema.field(at).data_type())?),
        });
    }
    outputs.push(lit(ScalarValue::UInt64(Some(id)).cast_to(schema.field(all.len()).data_type())?));
    outputs.extend((0..aggregate.aggr_expr.len()).map(|at| column(set.len() + at)));
    let outputs = outputs.into_iter().enumerate().map(|(at, output)| output.alias(plain_name(at))).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(LogicalPlan::Aggregate(inner)))?))
}
