//! Reduces the GROUP BY of a window to its time bin and the keys that are not functions of it.
//!
//! `GROUP BY meter_id, window_start, window_end` has one real key. The aggregate is rewritten to group by
//! (bin, meter_id), and a projection above computes the other window columns once per result row instead of
//! once per event. This is also where an aggregate without a time bin is found and refused.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator, Projection};

use super::Problem;
use crate::catalog::StreamSource;
use crate::diagnostic::code;
use crate::logical::{
    Anchor, Refusal, TimeBin, contains_aggregate, contains_stream, find_time_bin, interval_us, resolve, streams_of,
    time_bin_of,
};

const BIN: &str = "__window_start";

pub(super) fn unbounded() -> Refusal {
    Refusal::new(
        code::UNBOUNDED_AGGREGATE,
        Anchor::Group,
        "this aggregation has no time window, so its groups would be kept for ever and never be final",
        "read `FROM TUMBLE(stream, ts, INTERVAL '10 minutes')` and add `window_start, window_end` to GROUP BY",
    )
}

pub(super) fn nested() -> Refusal {
    Refusal::new(
        code::NESTED_WINDOW,
        Anchor::Group,
        "a window over the result of a window is not supported",
        "aggregate the stream itself in the longer window",
    )
}

fn not_event_time(streams: &[&StreamSource]) -> Refusal {
    let time = streams.first().map_or("ts", |source| source.stream.event_time.as_str());
    Refusal::new(
        code::TUMBLE,
        Anchor::Group,
        format!("the window is not a fixed interval of the stream's event time `{time}`, so it would never be final"),
        format!("write `TUMBLE(stream, {time}, INTERVAL '10 minutes')`, with days, hours, minutes or seconds"),
    )
}

fn has_date_bin(resolved: &Expr) -> bool {
    let is_bin = |expr: &Expr| matches!(expr, Expr::ScalarFunction(function) if function.func.name() == "date_bin");
    resolved.exists(|expr| Ok(is_bin(expr))).unwrap_or(false)
}

/// The bin of the reduced grouping: a bin, or `window_end` taken back by its constant.
pub(super) fn bin_of_group(resolved: &Expr, streams: &[&StreamSource]) -> Option<TimeBin> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = resolved else {
        return time_bin_of(resolved, streams);
    };
    match left.as_ref() {
        Expr::BinaryExpr(BinaryExpr { left: bin, op: Operator::Plus, right: added })
            if interval_us(added).is_some() && interval_us(added) == interval_us(right) =>
        {
            time_bin_of(bin, streams)
        }
        _ => None,
    }
}

/// Rewrites every aggregate over a stream.
pub(super) fn reduce(plan: LogicalPlan) -> Result<LogicalPlan, Problem> {
    let mut problem = None;
    let rewritten = plan.transform_up(|node| match node {
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
    /// Not a function of the bin.
    Own,
}

fn reduce_aggregate(aggregate: Aggregate) -> Result<LogicalPlan, Problem> {
    if contains_aggregate(&aggregate.input) {
        return Err(nested().into());
    }
    let streams = streams_of(&aggregate.input);
    let resolved: Vec<Expr> = aggregate.group_expr.iter().map(|expr| resolve(&aggregate.input, expr)).collect();
    let mut bins: Vec<TimeBin> = resolved.iter().filter_map(|expr| find_time_bin(expr, &streams)).collect();
    bins.dedup();
    let bin = match &bins[..] {
        [] if resolved.iter().any(has_date_bin) => return Err(not_event_time(&streams).into()),
        [] => return Err(unbounded().into()),
        [bin] => bin.clone(),
        _ => {
            return Err(Refusal::new(
                code::UNSUPPORTED,
                Anchor::Group,
                "GROUP BY names two different time windows",
                "keep one window; write another rule for the other",
            )
            .into());
        }
    };
    let keys: Vec<Key> = resolved
        .iter()
        .map(|expr| match expr {
            expr if time_bin_of(expr, &streams).as_ref() == Some(&bin) => Key::Bin,
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right })
                if **left == bin.expr && interval_us(right).is_some() =>
            {
                Key::Shifted(right.as_ref().clone())
            }
            _ => Key::Own,
        })
        .collect();
    rebuild(aggregate, &keys)
}

fn rebuild(aggregate: Aggregate, keys: &[Key]) -> Result<LogicalPlan, Problem> {
    let find = |wanted: fn(&Key) -> bool| keys.iter().position(wanted);
    let bin_expr = match (find(|key| matches!(key, Key::Bin)), find(|key| matches!(key, Key::Shifted(_)))) {
        (Some(at), _) => aggregate.group_expr[at].clone().unalias(),
        (None, Some(at)) => match &keys[at] {
            Key::Shifted(shift) => aggregate.group_expr[at].clone().unalias() - shift.clone(),
            Key::Bin | Key::Own => return Err(unbounded().into()),
        },
        (None, None) => return Err(unbounded().into()),
    };
    let schema = aggregate.schema.clone();
    let mut group_expr = vec![bin_expr.alias(BIN)];
    let mut outputs = Vec::with_capacity(schema.fields().len());
    for ((at, key), group) in keys.iter().enumerate().zip(&aggregate.group_expr) {
        let (qualifier, field) = schema.qualified_field(at);
        let bin = Expr::Column(Column::new_unqualified(BIN));
        outputs.push(match key {
            Key::Bin => bin.alias_qualified(qualifier.cloned(), field.name()),
            Key::Shifted(shift) => (bin + shift.clone()).alias_qualified(qualifier.cloned(), field.name()),
            Key::Own => {
                group_expr.push(group.clone());
                Expr::Column(Column::from((qualifier, field)))
            }
        });
    }
    for at in keys.len()..schema.fields().len() {
        outputs.push(Expr::Column(Column::from(schema.qualified_field(at))));
    }
    let reduced = Aggregate::try_new(aggregate.input, group_expr, aggregate.aggr_expr)?;
    let projection = Projection::try_new(outputs, LogicalPlan::Aggregate(reduced).into())?;
    Ok(LogicalPlan::Projection(projection))
}
