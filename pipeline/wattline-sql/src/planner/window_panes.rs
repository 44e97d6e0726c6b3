//! HOP and CUMULATE as folds over panes.
//!
//! ```text
//! Aggregate by window_start                    Aggregate by window_start
//!   Unnest window_start               ═▶         Projection hop_pane(slide, size, ts) AS window_start
//!     Projection hop_starts(…) AS window_start
//! ```
//! An event of ten minutes' windows that begin every ten seconds is in sixty of them, and one of the morning is in nearly all that cumulate
//! up to a day. All windows are made of panes as wide as the largest interval that divides slide and size: an event is added to its pane,
//! and the panes of a window are merged when it is final. The same with `cumulate_ends`, whose windows are named by their ends. Only where nothing
//! but the groups of the aggregate asks for the window: an aggregate over `ts - window_start` needs each of them.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator, Projection, Unnest};

use crate::functions::{cumulate_pane, hop_pane, largest_common_us};
use crate::logical::{instant_us, interval_us, resolve};
use crate::operators::{Overlap, PanedWindows};

/// Panes from the begin of one window to the next above which windows by themselves are fewer.
const PANES_PER_STEP_MAX: i64 = 4;
const LISTS: [&str; 2] = ["hop_starts", "cumulate_ends"];
const PANES: [&str; 2] = ["hop_pane", "cumulate_pane"];

/// The input of the aggregate with panes in place of windows; `None` if it must stay as it is. `bin` is what the rows are grouped by,
/// `own` are the groups that are no function of the window.
pub(super) fn with_panes(aggregate: &Aggregate, bin: &Expr, own: &[Expr]) -> Result<Option<LogicalPlan>> {
    let input = aggregate.input.as_ref();
    let asks = |expr: &Expr| mentions_window(&resolve(input, expr));
    // A group of several windows has an event once for each of them.
    if !is_window(&resolve(input, bin)) {
        return Ok(None);
    }
    if own.iter().any(asks) {
        return Ok(None);
    }
    let mut asked = false;
    for expr in &aggregate.aggr_expr {
        expr.apply(|part| {
            asked |= matches!(part, Expr::Column(_)) && asks(part);
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    if asked { Ok(None) } else { replaced(input) }
}

/// Whether the rows of this input of an aggregate are in panes: those of another aggregate are in windows, though they come from panes.
/// A filter by a subquery has become a join since the panes were put in.
pub(super) fn holds_panes(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) if projection.expr.iter().any(is_pane) => true,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Join(_) => {
            plan.inputs().into_iter().any(holds_panes)
        }
        _ => false,
    }
}

fn is_pane(expr: &Expr) -> bool {
    let is_pane = |expr: &Expr| matches!(expr, Expr::ScalarFunction(of) if PANES.contains(&of.func.name()));
    expr.exists(|expr| Ok(is_pane(expr))).unwrap_or(false)
}

/// What the lowered grouping says of panes.
pub(super) fn paned_windows(resolved: &Expr) -> Option<PanedWindows> {
    let mut paned = None;
    let walked = resolved.apply(|expr| {
        if let Expr::ScalarFunction(ScalarFunction { func, args }) = expr
            && let [step, size, _, origin @ ..] = &args[..]
        {
            let origin_us = origin.first().map_or(Some(0), instant_us);
            let overlap = origin_us.and_then(|origin_us| match func.name() {
                "hop_pane" => Some(Overlap::Hop { origin_us }),
                "cumulate_pane" => Some(Overlap::Cumulate { origin_us }),
                _ => None,
            });
            let sizes = interval_us(step).zip(interval_us(size)).zip(overlap);
            paned = paned.or(sizes.map(|((step_us, size_us), overlap)| {
                let pane_us = largest_common_us(step_us, size_us);
                PanedWindows { pane_us, step_us, size_us, overlap }
            }));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "walking an expression does not fail");
    paned
}

/// Whether this tells windows apart: what names them, or that moved there and back.
fn is_window(resolved: &Expr) -> bool {
    match resolved {
        Expr::Alias(alias) => is_window(&alias.expr),
        Expr::ScalarFunction(of) => LISTS.contains(&of.func.name()),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right }) => {
            interval_us(right).is_some() && is_window(left)
        }
        _ => false,
    }
}

fn mentions_window(resolved: &Expr) -> bool {
    let is_list = |expr: &Expr| matches!(expr, Expr::ScalarFunction(of) if LISTS.contains(&of.func.name()));
    resolved.exists(|expr| Ok(is_list(expr))).unwrap_or(true)
}

fn replaced(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Unnest(unnest) => pane_of(unnest),
        LogicalPlan::Filter(filter) if mentions_window(&resolve(&filter.input, &filter.predicate)) => Ok(None),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            let below = plan.inputs().into_iter().next().map(replaced).transpose()?.flatten();
            below.map(|below| plan.with_new_exprs(plan.expressions(), vec![below])).transpose()
        }
        _ => Ok(None),
    }
}

/// The projection with the pane in place of the list that was unnested.
fn pane_of(unnest: &Unnest) -> Result<Option<LogicalPlan>> {
    let (LogicalPlan::Projection(projection), [(list, _)], []) =
        (unnest.input.as_ref(), &unnest.list_type_columns[..], &unnest.struct_type_columns[..])
    else {
        return Ok(None);
    };
    let Expr::ScalarFunction(ScalarFunction { func, args }) = projection.expr[*list].clone().unalias() else {
        return Ok(None);
    };
    let (Some(step_us), Some(size_us)) = (args.first().and_then(interval_us), args.get(1).and_then(interval_us)) else {
        return Ok(None);
    };
    let has_known_grid = args.get(3).is_none_or(|origin| instant_us(origin).is_some());
    if step_us <= 0 || size_us <= step_us || !has_known_grid {
        return Ok(None);
    }
    let panes_per_step = step_us / largest_common_us(step_us, size_us);
    let pane = match func.name() {
        "hop_starts" if panes_per_step <= PANES_PER_STEP_MAX => hop_pane(),
        "cumulate_ends" if panes_per_step == 1 => cumulate_pane(),
        _ => return Ok(None),
    };
    let mut exprs = projection.expr.clone();
    exprs[*list] = pane.call(args).alias(unnest.schema.field(*list).name());
    Ok(Some(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?)))
}
