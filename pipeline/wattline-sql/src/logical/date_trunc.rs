//! `date_trunc('hour', ts)` is the bin of an instant as `date_bin(INTERVAL '1 hour', ts)` is, and can be grouped by.
//!
//! | | |
//! |---|---|
//! | second, minute, hour, day | `date_bin` |
//! | week | `date_bin` of seven days from a Monday |
//! | month, quarter, year | `local_bin_start` of 1, 3 or 12 months in UTC |

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;

use super::lineage::has_expression;
use crate::catalog::event_time_type;
use crate::functions::{date_bin, local_bin_start};

const DATE_TRUNC: &str = "date_trunc";
/// 1970-01-05, in microseconds.
const A_MONDAY_US: i64 = 4 * 24 * 3_600_000_000;

#[derive(Debug)]
pub(crate) struct TruncatedDates;

impl AnalyzerRule for TruncatedDates {
    fn name(&self) -> &str {
        "truncated_dates"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let is_date_trunc = |expr: &Expr| matches!(expr, Expr::ScalarFunction(of) if of.func.name() == DATE_TRUNC);
        if !has_expression(&plan, is_date_trunc)? {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let binned = expr.transform_up(|expr| {
                    Ok(match binned(&expr, |time| time.get_type(&schema).ok()) {
                        Some(binned) => Transformed::yes(binned),
                        None => Transformed::no(expr),
                    })
                })?;
                Ok(binned.update_data(|expr| name.restore(expr)))
            })
        })
        .map(|plan| plan.data)
    }
}

fn binned(expr: &Expr, type_of: impl Fn(&Expr) -> Option<DataType>) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let [Expr::Literal(part, _), time] = &args[..] else { return None };
    if func.name() != DATE_TRUNC || type_of(time)? != event_time_type() {
        return None;
    }
    let part = part.try_as_str()??.to_lowercase();
    let interval =
        |months, days, seconds: i64| lit(ScalarValue::new_interval_mdn(months, days, seconds * 1_000_000_000));
    let monday = ScalarValue::TimestampMicrosecond(Some(A_MONDAY_US), time_zone());
    let bin = |size: Expr| date_bin().call(vec![size, time.clone()]);
    let months = |months| local_bin_start().call(vec![interval(months, 0, 0), time.clone(), lit("UTC")]);
    Some(match part.as_str() {
        "second" => bin(interval(0, 0, 1)),
        "minute" => bin(interval(0, 0, 60)),
        "hour" => bin(interval(0, 0, 3_600)),
        "day" => bin(interval(0, 1, 0)),
        "week" => date_bin().call(vec![interval(0, 7, 0), time.clone(), lit(monday)]),
        "month" => months(1),
        "quarter" => months(3),
        "year" => months(12),
        _ => return None,
    })
}

fn time_zone() -> Option<std::sync::Arc<str>> {
    match event_time_type() {
        DataType::Timestamp(_, zone) => zone,
        _ => None,
    }
}
