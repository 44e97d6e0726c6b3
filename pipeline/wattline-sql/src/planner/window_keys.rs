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
    time_bin_of,
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

/// The bin of the reduced grouping: a bin, or `window_end` taken back by its constant.
pub(super) fn bin_of_group(resolved: &Expr, streams: &[&StreamSource]) -> Option<TimeBin> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = resolved else {
        return time_bin_of(resolved, streams);
    };
    let Expr::BinaryExpr(BinaryExpr { left: bin, op, right: added }) = left.as_ref() else { return None };
    let (added_us, back_us) = (interval_us(added)?, interval_us(right)?);
    let is_undone = match op {
        Operator::Plus => added_us == back_us,
        Operator::Minus => added_us == back_us.saturating_neg(),
        _ => false,
    };
    if is_undone { time_bin_of(bin, streams) } else { None }
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
        if let Expr::BinaryExpr(BinaryExpr { left, op, right }) = resolved
            && **left == bin.expr
            && let Some(us) = interval_us(right)
        {
            match op {
                Operator::Plus => return Self::Shifted(right.as_ref().clone()),
                Operator::Minus => return Self::Shifted(interval(us.saturating_neg())),
                _ => {}
            }
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

fn reduce_aggregate(aggregate: Aggregate) -> Result<LogicalPlan, Problem> {
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
    // Windows over windows: grouped by both, rows belong to the inner one, of which the outer is a function.
    let holds_bin = |expr: &Expr| !find_time_bins(expr, &streams).is_empty();
    let keys = bins.iter().find_map(|bin| {
        let keys: Vec<Key> = resolved.iter().map(|expr| Key::of(expr, bin)).collect();
        let whole = keys.iter().zip(&resolved).all(|(key, expr)| !matches!(key, Key::Own) || !holds_bin(expr));
        let grouped = keys.iter().any(|key| matches!(key, Key::Bin | Key::Shifted(_)));
        (whole && grouped).then_some(keys)
    });
    let Some(keys) = keys else { return Err(not_one_window(&resolved, &bins).into()) };
    rebuild(aggregate, &keys, None)
}

fn not_one_window(resolved: &[Expr], bins: &[TimeBin]) -> Refusal {
    let is_bin = |expr: &&Expr| bins.iter().any(|bin| matches!(Key::of(expr, bin), Key::Bin | Key::Shifted(_)));
    let (message, help) = match resolved.iter().filter(is_bin).count() {
        0 => (
            "GROUP BY names something computed from a time window, and not the window itself",
            "add `window_start, window_end` to GROUP BY; or make larger windows of it: `TUMBLE((SELECT …, window_start AS at FROM …), at, INTERVAL '1 day')`",
        ),
        _ => ("GROUP BY names two different time windows", "keep one window; write another rule for the other"),
    };
    Refusal::new(code::UNSUPPORTED, Anchor::Group, message, help)
}

fn interval(us: i64) -> Expr {
    lit(ScalarValue::new_interval_mdn(0, 0, us.saturating_mul(1_000)))
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
