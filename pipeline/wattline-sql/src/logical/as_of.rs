//! Joins to versioned reference tables see the version that was valid at the event's time.
//!
//! A reference table with columns `valid_from` and `valid_to` holds versions. Where such a table meets a
//! stream in a join, the condition `valid_from <= t AND t < valid_to` (null bounds are open) joins the ON
//! clause; t is the event time, or `window_end` once the stream has been aggregated. A query that itself
//! constrains these columns is left alone. Done on the shared plan, so batch and stream agree by construction.

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, lit};

use super::lineage::{is_event_time, lag_us};
use super::{Anchor, Refusal, contains_stream, resolve_column, streams_of};
use crate::diagnostic::code;

const FROM: &str = "valid_from";
const TO: &str = "valid_to";

/// Adds the validity condition to every join that needs it.
///
/// # Errors
/// A [`Refusal`] if a versioned table is joined where no event time is visible, or hides its versions.
pub(crate) fn join_as_of_event_time(plan: LogicalPlan) -> Result<LogicalPlan, Refusal> {
    let constrained = constrained_tables(&plan);
    let mut refusal = None;
    let rewritten = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match as_of(join, &constrained) {
            Ok(join) => Ok(join),
            Err(problem) => {
                refusal.get_or_insert(problem);
                Err(DataFusionError::Plan(String::new()))
            }
        },
        other => Ok(Transformed::no(other)),
    });
    match (rewritten, refusal) {
        (_, Some(refusal)) => Err(refusal),
        (Ok(rewritten), None) => Ok(rewritten.data),
        (Err(_), None) => Ok(plan),
    }
}

fn as_of(mut join: Join, constrained: &[Option<TableReference>]) -> Result<Transformed<LogicalPlan>, Refusal> {
    let (stream, reference) = match (contains_stream(&join.left), contains_stream(&join.right)) {
        (true, false) => (&join.left, &join.right),
        (false, true) => (&join.right, &join.left),
        _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
    };
    let mut added: Option<Expr> = None;
    for table in versioned_tables(reference) {
        if constrained.contains(&table) {
            continue;
        }
        let time = time_of(stream).ok_or_else(|| no_time(&table))?;
        let column = |name: &str| Expr::Column(Column::new(table.clone(), name));
        let from = column(FROM).is_null().or(column(FROM).lt_eq(time.clone()));
        let to = column(TO).is_null().or(time.lt(column(TO)));
        let valid = from.and(to);
        added = Some(match added {
            Some(others) => others.and(valid),
            None => valid,
        });
    }
    if added.is_none() && hides_versions(reference) {
        return Err(Refusal::new(
            code::AS_OF,
            Anchor::Join(None),
            "the joined subquery hides `valid_from` and `valid_to` of a versioned reference table",
            "select both columns in the subquery, or join the table itself",
        ));
    }
    let Some(added) = added else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
    join.filter = Some(match join.filter.take() {
        Some(filter) => filter.and(added),
        None => added,
    });
    Ok(Transformed::yes(LogicalPlan::Join(join)))
}

fn no_time(table: &Option<TableReference>) -> Refusal {
    let name = table.as_ref().map_or_else(|| "the table".to_owned(), |table| format!("`{}`", table.table()));
    Refusal::new(
        code::AS_OF,
        Anchor::Join(table.as_ref().map(|table| table.table().to_owned())),
        format!("{name} is versioned, but neither the event time nor `window_end` is visible where it is joined"),
        "select the event time (after a window: `window_end`, also in GROUP BY) in the query that is joined",
    )
}

/// The qualifiers under which a plan shows both version columns.
fn versioned_tables(plan: &LogicalPlan) -> Vec<Option<TableReference>> {
    let schema = plan.schema();
    let mut tables: Vec<Option<TableReference>> = schema
        .iter()
        .filter(|(_, field)| field.name() == FROM)
        .map(|(qualifier, _)| qualifier.cloned())
        .filter(|qualifier| schema.has_column(&Column::new(qualifier.clone(), TO)))
        .collect();
    tables.dedup();
    tables
}

fn hides_versions(plan: &LogicalPlan) -> bool {
    if let LogicalPlan::TableScan(scan) = plan {
        let schema = scan.source.schema();
        return schema.column_with_name(FROM).is_some() && schema.column_with_name(TO).is_some();
    }
    let shown = !versioned_tables(plan).is_empty();
    !shown && constrained_tables(plan).is_empty() && plan.inputs().into_iter().any(hides_versions_below)
}

fn hides_versions_below(plan: &LogicalPlan) -> bool {
    !versioned_tables(plan).is_empty() || hides_versions(plan)
}

/// The qualifiers of version columns that some filter or join condition of the query mentions.
fn constrained_tables(plan: &LogicalPlan) -> Vec<Option<TableReference>> {
    let mut tables = Vec::new();
    let walked = plan.apply_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_)) {
            node.apply_expressions(|expr| {
                for column in expr.column_refs() {
                    if column.name == FROM || column.name == TO {
                        tables.push(column.relation.clone());
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "walking a plan does not fail");
    tables
}

/// The instant of a row of `plan`: its event time, or the end of its window.
fn time_of(plan: &LogicalPlan) -> Option<Expr> {
    let (index, lag_us) = instant_of(plan)?;
    let column = Expr::Column(plan.schema().columns()[index].clone());
    if lag_us <= 0 {
        return Some(column);
    }
    // The start of a window of one size: its end says when.
    let resolved = resolve_column(plan, &plan.schema().columns()[index]);
    if !matches!(&resolved, Expr::ScalarFunction(of) if ["date_bin", "hop_starts"].contains(&of.func.name())) {
        return None;
    }
    let size = ScalarValue::new_interval_mdn(0, 0, lag_us.checked_add(1)?.checked_mul(1_000)?);
    Some(column + lit(size))
}

/// The output column that says when: event time, else window end, else window start.
pub(crate) fn time_of_output(plan: &LogicalPlan) -> Option<usize> {
    instant_of(plan).map(|(index, _)| index)
}

/// The event time, else the instant that lags least behind the watermark; with its lag in microseconds.
fn instant_of(plan: &LogicalPlan) -> Option<(usize, i64)> {
    let streams = streams_of(plan);
    let resolved: Vec<Expr> = plan.schema().columns().iter().map(|column| resolve_column(plan, column)).collect();
    if let Some(index) = resolved.iter().position(|expr| is_event_time(expr, &streams)) {
        return Some((index, 0));
    }
    let lags = resolved.iter().enumerate().filter_map(|(index, expr)| Some((index, lag_us(expr, &streams)?)));
    lags.min_by_key(|(_, lag_us)| *lag_us)
}
