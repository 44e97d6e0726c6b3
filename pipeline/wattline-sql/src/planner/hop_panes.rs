//! HOP as folds over panes.
//!
//! ```text
//! Aggregate by window_start                    Aggregate by window_start
//!   Unnest window_start               ═▶         Projection hop_pane(slide, size, ts) AS window_start
//!     Projection hop_starts(…) AS window_start
//! ```
//! An event of ten minutes' windows that begin every ten seconds is in sixty of them. If the slide divides the size, all
//! windows are made of panes as wide as the slide: the lanes add the event to its pane, and the process merges the panes of a
//! window when it is final. Only where the aggregate is the first thing above the lanes, and nothing but its groups asks for
//! the window: an aggregate over `ts - window_start` needs each of them.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, Unnest};

use crate::functions::hop_pane;
use crate::logical::{contains_stream, interval_us, resolve};
use crate::operators::Hops;

const LIST: &str = "hop_starts";
const PANE: &str = "hop_pane";

/// The input of the aggregate with panes in place of windows; `None` if it must stay as it is. `own` are the groups that are
/// no function of the window.
pub(super) fn with_panes(aggregate: &Aggregate, own: &[&Expr]) -> Result<Option<LogicalPlan>> {
    let input = aggregate.input.as_ref();
    let asks = |expr: &Expr| mentions_window(&resolve(input, expr));
    if own.iter().any(|expr| asks(expr)) || !runs_in_lanes(input) {
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

/// What the lowered grouping says of panes.
pub(super) fn hops_of(resolved: &Expr) -> Option<Hops> {
    let mut hops = None;
    let walked = resolved.apply(|expr| {
        if let Expr::ScalarFunction(ScalarFunction { func, args }) = expr
            && func.name() == PANE
            && let [slide, size, ..] = &args[..]
        {
            hops = interval_us(slide).zip(interval_us(size)).map(|(slide_us, size_us)| Hops { slide_us, size_us });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "walking an expression does not fail");
    hops
}

fn mentions_window(resolved: &Expr) -> bool {
    let is_list = |expr: &Expr| matches!(expr, Expr::ScalarFunction(of) if of.func.name() == LIST);
    resolved.exists(|expr| Ok(is_list(expr))).unwrap_or(true)
}

/// Whether everything below is done row by row as events arrive.
fn runs_in_lanes(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => plan.inputs().into_iter().all(runs_in_lanes),
        LogicalPlan::Join(join) => match (contains_stream(&join.left), contains_stream(&join.right)) {
            (true, false) => runs_in_lanes(&join.left),
            (false, true) => runs_in_lanes(&join.right),
            _ => false,
        },
        _ => false,
    }
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
    let (Some(slide_us), Some(size_us)) = (args.first().and_then(interval_us), args.get(1).and_then(interval_us))
    else {
        return Ok(None);
    };
    if func.name() != LIST || slide_us <= 0 || size_us <= slide_us || size_us % slide_us != 0 {
        return Ok(None);
    }
    let mut exprs = projection.expr.clone();
    exprs[*list] = hop_pane().call(args).alias(unnest.schema.field(*list).name());
    Ok(Some(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?)))
}
