//! Reduces the GROUP BY of a window to its time bin and the keys that are not functions of it.
//!
//! `GROUP BY meter_id, window_start, window_end` has one real key. The aggregate is rewritten to group by
//! (bin, meter_id), and a projection above computes the other window columns once per result row instead of
//! once per event. This is also where an aggregate without a time bin is found and refused.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator, Projection, lit};

use super::{Problem, window_panes};
use crate::catalog::StreamSource;
use crate::diagnostic::code;
use crate::functions::date_bin;
use crate::logical::{
    Anchor, Refusal, TimeBin, as_bin_of, contains_stream, find_time_bins, interval_us, lag_us, resolve, streams_of,
};

const BIN: &str = "__window_start";

pub(super) fn unbounded() -> Refusal {
    Refusal::new(
        code::UNBOUNDED_AGGREGATE,
        Anchor::Group,
        "this aggregation (or DISTINCT) has no time window, so its groups would be kept for ever and never be final",
        "read `FROM TUMBLE(stream, ts, INTERVAL '10 minutes')` and add `window_start, window_end` to GROUP BY",
    )
}

fn not_event_time(streams: &[&StreamSource]) -> Refusal {
    let time = streams.first().map_or("ts", |source| source.stream.event_time.as_str());
    Refusal::new(
        code::TUMBLE,
        Anchor::Group,
        format!("the window is not a fixed interval of the stream's event time `{time}`, so it would never be final"),
        format!(
            "write `TUMBLE(stream, {time}, INTERVAL '10 minutes')`, with days, hours, minutes or seconds, or with months and a zone: `INTERVAL '1 month', 'UTC'`"
        ),
    )
}

fn has_date_bin(resolved: &Expr) -> bool {
    let is_bin = |expr: &Expr| matches!(expr, Expr::ScalarFunction(function) if function.func.name() == "date_bin");
    resolved.exists(|expr| Ok(is_bin(expr))).unwrap_or(false)
}

/// Rewrites every aggregate over a stream.
pub(super) fn reduce(plan: LogicalPlan) -> Result<LogicalPlan, Problem> {
    let mut problem = None;
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) if contains_stream(&aggregate.input) => match reduce_aggregate(aggregate) {
            Ok(plan) => Ok(Transformed::yes(plan)),
            Err(found) => {
                problem = Some(found);
                Err(DataFusionError::Plan(String::new()))
            }
        },
        other => Ok(Transformed::no(other)),
    });
    match problem {
        Some(problem) => Err(problem),
        None => Ok(rewritten?.data),
    }
}

enum Key {
    /// The bin itself.
    Bin,
    /// The bin plus a constant.
    Shifted(Expr),
    /// Another function of the bin alone.
    Derived(Expr),
    /// Not a function of the bin.
    Own,
}

impl Key {
    fn of(resolved: &Expr, bin: &TimeBin) -> Self {
        if *resolved == bin.expr {
            return Self::Bin;
        }
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) = resolved
            && **left == bin.expr
            && interval_us(right).is_some()
        {
            return Self::Shifted(right.as_ref().clone());
        }
        let over_bin = resolved.clone().transform_down(|expr| {
            let column = Expr::Column(Column::new_unqualified(BIN));
            let replaced = if expr == bin.expr { Some(column) } else { as_bin_of(&expr, bin, column) };
            Ok(match replaced {
                Some(replaced) => Transformed::new(replaced, true, TreeNodeRecursion::Jump),
                None => Transformed::no(expr),
            })
        });
        match over_bin {
            Ok(derived)
                if derived.transformed && derived.data.column_refs().iter().all(|column| column.name == BIN) =>
            {
                Self::Derived(derived.data)
            }
            _ => Self::Own,
        }
    }
}

fn reduce_aggregate(mut aggregate: Aggregate) -> Result<LogicalPlan, Problem> {
    // What is named twice is one column of the schema.
    let mut named = Vec::with_capacity(aggregate.group_expr.len());
    aggregate.group_expr.retain(|expr| {
        let is_new = !named.contains(expr);
        named.push(expr.clone());
        is_new
    });
    let streams = streams_of(&aggregate.input);
    let resolved: Vec<Expr> = aggregate.group_expr.iter().map(|expr| resolve(&aggregate.input, expr)).collect();
    let bins: Vec<TimeBin> = resolved.iter().flat_map(|expr| find_time_bins(expr, &streams)).collect();
    if bins.is_empty()
        && let Some(at) = resolved.iter().position(|expr| lag_us(expr, &streams).is_some())
    {
        // Grouped by an instant: groups that are near in time are kept together.
        let near = date_bin().call(vec![lit(near_interval()), aggregate.group_expr[at].clone().unalias()]);
        let keys: Vec<Key> = resolved.iter().map(|_key| Key::Own).collect();
        return rebuild(aggregate, &keys, Some(near));
    }
    if bins.is_empty() {
        let problem = if resolved.iter().any(has_date_bin) { not_event_time(&streams) } else { unbounded() };
        return Err(problem.into());
    }
    // Windows over windows: grouped by both, rows belong to the inner one, of which the outer is a function. Of windows that have
    // nothing to do with each other one says when the group is final, and the other is a key.
    let holds_bin = |expr: &Expr| !find_time_bins(expr, &streams).is_empty();
    let grouped = bins.iter().filter_map(|bin| {
        let keys: Vec<Key> = resolved.iter().map(|expr| Key::of(expr, bin)).collect();
        keys.iter().any(|key| matches!(key, Key::Bin | Key::Shifted(_))).then_some(keys)
    });
    let mut grouped: Vec<Vec<Key>> = grouped.collect();
    let is_whole =
        |keys: &Vec<Key>| keys.iter().zip(&resolved).all(|(key, expr)| !matches!(key, Key::Own) || !holds_bin(expr));
    let at = grouped.iter().position(is_whole).unwrap_or(0);
    if at >= grouped.len() {
        return Err(not_the_window().into());
    }
    let keys = grouped.swap_remove(at);
    rebuild(aggregate, &keys, None)
}

fn not_the_window() -> Refusal {
    Refusal::new(
        code::UNSUPPORTED,
        Anchor::Group,
        "GROUP BY names something computed from a time window, and not the window itself",
        "add `window_start, window_end` to GROUP BY; or make larger windows of it: `TUMBLE((SELECT …, window_start AS at FROM …), at, INTERVAL '1 day')`",
    )
}

fn near_interval() -> ScalarValue {
    ScalarValue::new_interval_mdn(0, 0, 1_000_000_000)
}

fn rebuild(aggregate: Aggregate, keys: &[Key], bin: Option<Expr>) -> Result<LogicalPlan, Problem> {
    let find = |wanted: fn(&Key) -> bool| keys.iter().position(wanted);
    let bin_expr = match (find(|key| matches!(key, Key::Bin)), find(|key| matches!(key, Key::Shifted(_)))) {
        _ if let Some(bin) = bin => bin,
        (Some(at), _) => aggregate.group_expr[at].clone().unalias(),
        (None, Some(at)) => match &keys[at] {
            Key::Shifted(shift) => aggregate.group_expr[at].clone().unalias() - shift.clone(),
            Key::Bin | Key::Derived(_) | Key::Own => return Err(unbounded().into()),
        },
        (None, None) => return Err(unbounded().into()),
    };
    let schema = aggregate.schema.clone();
    let mut group_expr = vec![bin_expr.alias(BIN)];
    let mut outputs = Vec::with_capacity(schema.fields().len());
    for ((at, key), group) in keys.iter().enumerate().zip(&aggregate.group_expr) {
        let (qualifier, field) = schema.qualified_field(at);
        let bin = Expr::Column(Column::new_unqualified(BIN));
        let function_of_bin = match key {
            Key::Bin => bin,
            Key::Shifted(shift) => bin + shift.clone(),
            Key::Derived(derived) => derived.clone(),
            Key::Own => {
                group_expr.push(group.clone());
                outputs.push(Expr::Column(Column::from((qualifier, field))));
                continue;
            }
        };
        outputs.push(function_of_bin.alias_qualified(qualifier.cloned(), field.name()));
    }
    for at in keys.len()..schema.fields().len() {
        outputs.push(Expr::Column(Column::from(schema.qualified_field(at))));
    }
    let input = match window_panes::with_panes(&aggregate, &group_expr[0], &group_expr[1..])? {
        Some(panes) => Arc::new(panes),
        None => Arc::clone(&aggregate.input),
    };
    let reduced = Aggregate::try_new(input, group_expr, aggregate.aggr_expr)?;
    let projection = Projection::try_new(outputs, LogicalPlan::Aggregate(reduced).into())?;
    Ok(LogicalPlan::Projection(projection))
}
