//! From when and until when a rule is in force: what it gives is cut to that time, in stream and batch alike.
//!
//! A window belongs to the time in which it begins, a row without one to its event time.

use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};

use super::as_of::time_of_output;
use super::lineage::{lag_us, resolve, streams_of};

/// The plan with what is not in force left out; `None` if its rows do not say when they are.
pub(crate) fn within_effect(
    plan: &LogicalPlan,
    from_us: Option<i64>,
    to_us: Option<i64>,
) -> Result<Option<LogicalPlan>> {
    if from_us.is_none() && to_us.is_none() {
        return Ok(Some(plan.clone()));
    }
    let columns = plan.schema().columns();
    let streams = streams_of(plan);
    let is_start = |column: &Expr| lag_us(&resolve(plan, column), &streams).is_some();
    let mut start =
        columns.iter().filter(|column| column.name == "window_start").map(|column| Expr::Column(column.clone()));
    let time = start.find(is_start);
    let time = time.or_else(|| Some(Expr::Column(columns.get(time_of_output(plan)?)?.clone())));
    let Some(time) = time else { return Ok(None) };
    let instant = |us: i64| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
    let mut builder = LogicalPlanBuilder::from(plan.clone());
    if let Some(us) = from_us {
        builder = builder.filter(time.clone().gt_eq(instant(us)))?;
    }
    if let Some(us) = to_us {
        builder = builder.filter(time.lt(instant(us)))?;
    }
    builder.build().map(Some)
}
