//! `x IN (SELECT …)` whose column has no table of its own: of a UNION, an aggregate, or another subquery without a name.
//!
//! DataFusion turns IN within OR and CASE into a join with a mark, and takes such a column for two: once as the subquery's, once as that of
//! the alias that it gives to the subquery. So each gets a name.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery};
use datafusion::optimizer::AnalyzerRule;

use super::lineage::has_expression;

const NAME: &str = "__listed";

/// Gives subqueries of IN a name.
#[derive(Debug)]
pub(crate) struct NamedSubqueries;

impl AnalyzerRule for NamedSubqueries {
    fn name(&self) -> &str {
        "named_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // To go through a plan is much cheaper than to make it anew.
        if !has_expression(&plan, |expr| matches!(expr, Expr::InSubquery(_)))? {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(named)?.update_data(|expr| name.restore(expr)))
            })
        })
        .map(|plan| plan.data)
    }
}

fn named(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::InSubquery(InSubquery { expr: value, subquery, negated }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let (qualifier, field) = subquery.subquery.schema().qualified_field(0);
    let is_plain = subquery.outer_ref_columns.is_empty() && qualifier.is_none();
    let subquery = match is_plain {
        true => {
            let column = Expr::Column(Column::new(Some(NAME), field.name()));
            let plan =
                LogicalPlanBuilder::from(Arc::clone(&subquery.subquery)).alias(NAME)?.project([column])?.build()?;
            Subquery { subquery: Arc::new(plan), ..subquery }
        }
        false => subquery,
    };
    Ok(Transformed::new_transformed(Expr::InSubquery(InSubquery { expr: value, subquery, negated }), is_plain))
}
