//! How much later than an instant in them rows come out of the stages of a plan.
//!
//! The watermark says that no event with an earlier time is to come. Rows of a window come when it is over, those of a frame that
//! looks ahead so much later, pairs of a join when both of their rows are there. What is computed of such rows has to wait as long
//! as they may come:
//!
//! ```text
//! watermark ──▶ past the event time ──▶ + lag of an instant in the row ──▶ + how long stages hold the row back
//! ```
//! Each stage lets its rows go at a [`Moment`]: an instant in the row, and how far past it the watermark must be. Another instant of
//! the row is so far from that one as both are from what they have in common: a window, or the event; or, if they are of two events
//! that were joined, as the bounds of the joins let these be apart. Too much is only late; too little would lose rows.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, Window, WindowFrameBound, lit};

use super::lineage::{
    as_if_present, contains_stream, find_time_bins, grouped, interval_us, is_event_time, is_session, lag_us, lead_us,
    resolve, resolve_over, sides_of, streams_of, unmarked, with,
};
use super::time_bound::{join_bound_of, join_moments};
use crate::catalog::StreamSource;
use crate::functions::MatchRows;

/// How far behind the watermark a row of `plan` may come with the instant `expr` of its columns, microseconds; `None` if it is not
/// bounded.
pub(crate) fn lag_in(plan: &LogicalPlan, expr: &Expr) -> Option<i64> {
    lag_us(&resolve(plan, expr), &streams_of(plan))?.checked_add(hold_back_us(plan, expr)?)
}

/// How much longer than `expr` says rows of `plan` are held back, microseconds; `None` if it is not bounded.
pub(crate) fn hold_back_us(plan: &LogicalPlan, expr: &Expr) -> Option<i64> {
    if !contains_stream(plan) {
        return Some(0);
    }
    match plan {
        LogicalPlan::Window(window) => {
            let moments = window.window_expr.iter().map(|expr| moment_of(window, expr));
            let held = moments.map(|moment| held_until_us(plan, &window.input, &moment?, &resolve(plan, expr)));
            held.collect::<Option<Vec<i64>>>()?.into_iter().max()
        }
        LogicalPlan::Aggregate(aggregate) => {
            held_until_us(plan, &aggregate.input, &moment_of_groups(aggregate)?, &resolve(plan, expr))
        }
        LogicalPlan::Join(join) if contains_stream(&join.left) && contains_stream(&join.right) => {
            held_by_join_us(join, plan, &resolve(plan, expr))
        }
        LogicalPlan::Join(join) => {
            let stream = if contains_stream(&join.left) { &join.left } else { &join.right };
            hold_back_us(stream, expr)
        }
        LogicalPlan::Projection(projection) => {
            let below = |at: usize| Some(projection.expr[at].clone().unalias());
            hold_back_us(&projection.input, &over_input(plan, expr, below)?)
        }
        LogicalPlan::Unnest(unnest) => {
            let below = |at: usize| column_at(&unnest.input, *unnest.dependency_indices.get(at)?);
            hold_back_us(&unnest.input, &over_input(plan, expr, below)?)
        }
        _ => {
            let of_input = |input| hold_back_us(input, &over_input(plan, expr, |at| column_at(input, at))?);
            let held = plan.inputs().into_iter().map(of_input);
            held.collect::<Option<Vec<i64>>>()?.into_iter().max().or(Some(0))
        }
    }
}

fn column_at(plan: &LogicalPlan, at: usize) -> Option<Expr> {
    (at < plan.schema().fields().len()).then(|| Expr::Column(Column::from(plan.schema().qualified_field(at))))
}

/// The expression over the output of `plan` with what `below` says in place of its columns.
fn over_input(plan: &LogicalPlan, expr: &Expr, below: impl Fn(usize) -> Option<Expr>) -> Option<Expr> {
    let mut known = true;
    let replaced = expr.clone().transform_down(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let found = plan.schema().maybe_index_of_column(column).and_then(&below);
        known &= found.is_some();
        Ok(Transformed::new(found.unwrap_or(expr), true, TreeNodeRecursion::Jump))
    });
    replaced.ok().map(|replaced| replaced.data).filter(|_| known)
}

/// When rows come out of a step that holds them: once the watermark is `after_us` past the resolved `instant`.
struct Moment {
    instant: Expr,
    after_us: i64,
}

/// When the rows of a window function come: with the window or session that it is partitioned by, else in the order of time.
fn moment_of(window: &Window, expr: &Expr) -> Option<Moment> {
    let input = &window.input;
    let Expr::WindowFunction(function) = expr.clone().unalias() else { return None };
    let at = |expr: &Expr| Some(Moment { instant: resolve(input, expr), after_us: lag_in(input, expr)? });
    if is_session(&function) {
        let is_end = |expr: &Expr| matches!(expr, Expr::WindowFunction(of) if of.fun.name() == "session_end");
        let instant = window.window_expr.iter().map(|expr| resolve_over(window, expr)).find(is_end)?;
        let after_us = lag_in(input, function.params.args.first()?)?.checked_sub(1)?;
        return Some(Moment { instant, after_us });
    }
    // The rows of a pattern come when no later row can change their matches, whatever their partition is.
    let pattern = MatchRows::pattern_of(&function);
    let partitions = if pattern.is_some() { &[][..] } else { &function.params.partition_by[..] };
    if let Some(moment) = partitions.iter().find_map(at) {
        return Some(moment);
    }
    let ahead_us = match (pattern, &function.params.window_frame.end_bound) {
        (Some(pattern), _) => pattern.bound_us,
        (None, WindowFrameBound::Following(bound)) if !bound.is_null() => interval_us(&lit(bound.clone()))?,
        (None, _) => 0,
    };
    let Moment { instant, after_us } = at(&function.params.order_by.first()?.expr)?;
    Some(Moment { instant, after_us: after_us.checked_add(ahead_us)? })
}

/// Groups come with the window that they are of.
fn moment_of_groups(aggregate: &Aggregate) -> Option<Moment> {
    let streams = streams_of(&aggregate.input);
    grouped(aggregate).into_iter().find_map(|group| {
        let instant = resolve(&aggregate.input, group);
        let has_bin = !find_time_bins(&instant, &streams).is_empty();
        Some(Moment { after_us: lag_in(&aggregate.input, group).filter(|_| has_bin)?, instant })
    })
}

/// How much longer than `resolved` says rows of `plan` are held that come at this moment; `input` is what the step reads.
fn held_until_us(plan: &LogicalPlan, input: &LogicalPlan, moment: &Moment, resolved: &Expr) -> Option<i64> {
    let streams = streams_of(plan);
    let known_us = lag_us(resolved, &streams)?;
    let behind_us = match shared_part(&moment.instant, resolved) {
        Some(part) => distance_us(&moment.instant, resolved, &part, &streams)?,
        None => {
            let lead_us = lead_us(&present(&moment.instant), &streams)?;
            lead_us.checked_add(known_us)?.checked_add(apart_us(input)?)?
        }
    };
    Some(moment.after_us.checked_add(behind_us)?.checked_sub(known_us)?.max(0))
}

/// The rows of a join come with the instant of their side.
fn held_by_join_us(join: &Join, plan: &LogicalPlan, resolved: &Expr) -> Option<i64> {
    let moments = join_moments(join)?.map(|(column, after_us)| (resolve(plan, &Expr::Column(column)), after_us));
    let sides = [&join.left, &join.right];
    let of_side = |at: usize, resolved: &Expr| {
        let moment = Moment { instant: present(&moments[at].0), after_us: moments[at].1 };
        let lag_us = lag_us(resolved, &streams_of(plan))?;
        held_until_us(plan, sides[at], &moment, resolved)?.checked_add(lag_us)
    };
    let known_us = lag_us(resolved, &streams_of(plan))?;
    let total_us = match join.join_type {
        JoinType::Full => of_side(0, &side_of(resolved, 0))?.max(of_side(1, &side_of(resolved, 1))?),
        _ => of_side(usize::from(is_of_right(join, plan, resolved)), resolved)?,
    };
    total_us.checked_sub(known_us)
}

/// Whether an instant of a join is of its right side.
fn is_of_right(join: &Join, plan: &LogicalPlan, resolved: &Expr) -> bool {
    let width = match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => return false,
        JoinType::RightSemi | JoinType::RightAnti => return true,
        _ => join.left.schema().fields().len(),
    };
    let times = resolved.column_refs();
    let columns = plan.schema().columns();
    columns[width..].iter().any(|column| {
        let right = resolve(plan, &Expr::Column(column.clone()));
        right.column_refs().iter().any(|right| times.contains(right))
    })
}

/// An instant of either side of a FULL join, as of rows that have the first (0) or the second (1).
fn side_of(resolved: &Expr, at: usize) -> Expr {
    let chosen = resolved.clone().transform_down(|expr| {
        Ok(match sides_of(&expr).map(|sides| present(sides[at])) {
            Some(side) => Transformed::new(side, true, TreeNodeRecursion::Jump),
            None => Transformed::no(expr),
        })
    });
    present(&chosen.map_or_else(|_infallible| resolved.clone(), |chosen| chosen.data))
}

/// Whether an expression is part of another.
fn contains(whole: &Expr, part: &Expr) -> bool {
    whole.exists(|expr| Ok(expr == part)).unwrap_or(false)
}

fn present(resolved: &Expr) -> Expr {
    as_if_present(resolved).unwrap_or_else(|| resolved.clone())
}

/// The largest part of the instant, perhaps all of it, that `resolved` is a function of too.
fn shared_part(instant: &Expr, resolved: &Expr) -> Option<Expr> {
    let mut shared = None;
    let walked = instant.apply(|part| {
        let is_instant = !part.column_refs().is_empty();
        shared = (is_instant && contains(resolved, part)).then(|| part.clone());
        Ok(match (&shared, part) {
            (Some(_), _) => TreeNodeRecursion::Stop,
            // What a session is made of says nothing of when it is over.
            (None, Expr::WindowFunction(_)) => TreeNodeRecursion::Jump,
            (None, _) => TreeNodeRecursion::Continue,
        })
    });
    debug_assert!(walked.is_ok(), "walking an expression does not fail");
    shared
}

/// How far `instant` may lie after `resolved`, both functions of `part`.
fn distance_us(instant: &Expr, resolved: &Expr, part: &Expr, streams: &[&StreamSource]) -> Option<i64> {
    let columns = part.column_refs();
    let mut times = columns.iter().map(|column| unmarked(&Expr::Column((*column).clone())));
    let time = times.find(|time| is_event_time(time, streams))?;
    let relative = |whole: &Expr| with(whole, part, &time);
    lead_us(&relative(instant), streams)?.checked_add(lag_us(&relative(resolved), streams)?)
}

/// How far apart in time two events can be that joins have made one row of; 0 without a join.
fn apart_us(plan: &LogicalPlan) -> Option<i64> {
    plan.inputs().into_iter().try_fold(own_apart_us(plan)?, |sum_us, input| sum_us.checked_add(apart_us(input)?))
}

fn own_apart_us(plan: &LogicalPlan) -> Option<i64> {
    let LogicalPlan::Join(join) = plan else { return Some(0) };
    if !contains_stream(&join.left) || !contains_stream(&join.right) {
        return Some(0);
    }
    let bound = join_bound_of(join)?;
    let mut apart_us = bound.lowest_us.saturating_abs().max(bound.highest_us.saturating_abs());
    for (side, column) in [(&join.left, bound.left), (&join.right, bound.right)] {
        let instant = resolve(side, &Expr::Column(column));
        let (streams, instant) = (streams_of(side), present(&instant));
        let (lead_us, lag_us) = (lead_us(&instant, &streams)?, lag_us(&instant, &streams)?);
        apart_us = apart_us.checked_add(lead_us.saturating_abs().max(lag_us.saturating_abs()))?;
    }
    Some(apart_us)
}
