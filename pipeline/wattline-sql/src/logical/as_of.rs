//! Joins to versioned reference tables see the version that was valid at the event's time.
//!
//! A reference table with columns `valid_from` and `valid_to` holds versions. Where such a table meets a
//! stream in a join, the condition `valid_from <= t AND t < valid_to` (null bounds are open) joins the ON
//! clause; t is the event time, or `window_end` once the stream has been aggregated. A query that itself
//! constrains these columns is left alone. Done on the shared plan, so batch and stream agree by construction.
//!
//! EXISTS and IN (SELECT …) over such a table look at the same version: the condition goes into the subquery, above the table.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema, ScalarValue, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Subquery, lit};

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
        LogicalPlan::Filter(filter) if contains_stream(&filter.input) => match listed_as_of(filter, &constrained) {
            Ok(filter) => Ok(filter),
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
        let valid = valid_at(&table, &time);
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

/// A filter whose subqueries see the versions of the rows that it filters.
fn listed_as_of(
    mut filter: Filter,
    constrained: &[Option<TableReference>],
) -> Result<Transformed<LogicalPlan>, Refusal> {
    let input = Arc::clone(&filter.input);
    let mut refusal = None;
    let mut changed = false;
    let mut seen = |subquery: Subquery| {
        if contains_stream(&subquery.subquery) {
            return subquery;
        }
        match subquery_as_of(&subquery, &input, constrained) {
            Ok(Some(subquery)) => {
                changed = true;
                subquery
            }
            Ok(None) => subquery,
            Err(problem) => {
                refusal.get_or_insert(problem);
                subquery
            }
        }
    };
    let predicate = filter.predicate.clone().transform_up(|expr| {
        Ok(Transformed::yes(match expr {
            Expr::Exists(exists) => Expr::Exists(Exists { subquery: seen(exists.subquery), ..exists }),
            Expr::InSubquery(of) => Expr::InSubquery(InSubquery { subquery: seen(of.subquery), ..of }),
            other => other,
        }))
    });
    match (refusal, predicate) {
        (Some(refusal), _) => Err(refusal),
        (None, Ok(predicate)) if changed => {
            filter.predicate = predicate.data;
            Ok(Transformed::yes(LogicalPlan::Filter(filter)))
        }
        (None, _) => Ok(Transformed::no(LogicalPlan::Filter(filter))),
    }
}

/// The subquery with the versions of the outer row's time; `None` if it has no versions to choose from.
fn subquery_as_of(
    subquery: &Subquery,
    outer: &LogicalPlan,
    constrained: &[Option<TableReference>],
) -> Result<Option<Subquery>, Refusal> {
    let tables = named_scans(&subquery.subquery);
    let chosen = |table: &&TableReference| !constrained.contains(&Some((*table).clone()));
    let Some(first) = tables.iter().find(chosen) else { return Ok(None) };
    if combines_rows(&subquery.subquery) {
        return Err(Refusal::new(
            code::AS_OF,
            Anchor::Subquery,
            format!("`{first}` is versioned, and a subquery that aggregates it does not know of which time"),
            "name `valid_from` and `valid_to` in its WHERE, or join the table",
        ));
    }
    let time = time_of(outer).ok_or_else(|| no_time(&Some(first.clone())))?;
    let schema = outer.schema();
    let mut columns = subquery.outer_ref_columns.clone();
    let time = time.transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) => match schema.field_from_column(&column) {
                Ok(field) => {
                    let outer = Expr::OuterReferenceColumn(Arc::clone(field), column);
                    columns.push(outer.clone());
                    Transformed::yes(outer)
                }
                Err(_) => Transformed::no(Expr::Column(column)),
            },
            other => Transformed::no(other),
        })
    });
    let Ok(Transformed { data: time, .. }) = time else { return Ok(None) };
    let plan = subquery.subquery.as_ref().clone().transform_down(|node| {
        // One filter, and not one above the other: of two that are taken out, the columns of one would be forgotten.
        let (table, below, predicate) = match &node {
            LogicalPlan::Filter(filter) => (scan_name(&filter.input), filter.input.as_ref(), Some(&filter.predicate)),
            other => (scan_name(other), other, None),
        };
        let Some(table) = table.filter(|table| chosen(&table)) else { return Ok(Transformed::no(node)) };
        let valid = valid_at(&Some(table), &time);
        let valid = predicate.into_iter().fold(valid, |valid, predicate| predicate.clone().and(valid));
        let plan = LogicalPlanBuilder::from(below.clone()).filter(valid)?.build()?;
        Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump))
    });
    let Ok(plan) = plan else { return Ok(None) };
    Ok(Some(Subquery { subquery: Arc::new(plan.data), outer_ref_columns: columns, ..subquery.clone() }))
}

/// The name of a versioned table, if the node is that table.
fn scan_name(plan: &LogicalPlan) -> Option<TableReference> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let schema = scan.source.schema();
            let is_versioned = schema.column_with_name(FROM).is_some() && schema.column_with_name(TO).is_some();
            is_versioned.then(|| scan.table_name.clone())
        }
        LogicalPlan::SubqueryAlias(alias) => scan_name(&alias.input).map(|_| alias.alias.clone()),
        _ => None,
    }
}

/// The versioned tables of a plan, by the names under which it reads them.
fn named_scans(plan: &LogicalPlan) -> Vec<TableReference> {
    match scan_name(plan) {
        Some(table) => vec![table],
        None => plan.inputs().into_iter().flat_map(named_scans).collect(),
    }
}

/// Whether a row of the plan is made of several rows.
fn combines_rows(plan: &LogicalPlan) -> bool {
    let combines = matches!(
        plan,
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Limit(_) | LogicalPlan::Window(_)
    );
    combines || plan.inputs().into_iter().any(combines_rows)
}

/// That a version is valid at a time.
fn valid_at(table: &Option<TableReference>, time: &Expr) -> Expr {
    let column = |name: &str| Expr::Column(Column::new(table.clone(), name));
    let from = column(FROM).is_null().or(column(FROM).lt_eq(time.clone()));
    let to = column(TO).is_null().or(time.clone().lt(column(TO)));
    from.and(to)
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
