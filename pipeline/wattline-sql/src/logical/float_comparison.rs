//! Comparisons of floating-point values are made in floating point.
//!
//! A number literal with a point is an exact decimal here, and DataFusion compares a float with a decimal as decimals. That
//! fails at run time for NaN, for infinities and beyond 15 digits, and one odd value would quarantine the rule. So the decimal
//! side is made a float instead: what no float comes near to is compared as well, and nothing can fail. Who wants decimals
//! says so: `CAST(x AS DECIMAL(12, 6)) > 235.4`.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;

/// Stands before DataFusion's coercion of types.
#[derive(Debug)]
pub(crate) struct FloatComparison;

impl AnalyzerRule for FloatComparison {
    fn name(&self) -> &str {
        "float_comparison"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(rewrite(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })
        })
        .map(|plan| plan.data)
    }
}

/// An expression that no plan holds, with its comparisons of floats made as floats.
pub(super) fn with_float_comparisons(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(rewrite(expr, schema)?.data)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| compare_as_floats(expr, schema))
}

fn compare_as_floats(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let type_of = |expr: &Expr| expr.get_type(schema).ok();
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (of_left, of_right) = (type_of(&left), type_of(&right));
            let (left, right) = match (is_float(&of_left), is_float(&of_right)) {
                (true, false) if is_decimal(&of_right) => (left, Box::new(as_float(*right))),
                (false, true) if is_decimal(&of_left) => (Box::new(as_float(*left)), right),
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_float(&type_of(&expr)) => {
            let bound =
                |bound: Box<Expr>| if is_decimal(&type_of(&bound)) { Box::new(as_float(*bound)) } else { bound };
            Transformed::yes(Expr::Between(Between { expr, negated, low: bound(low), high: bound(high) }))
        }
        Expr::InList(InList { expr, list, negated }) if is_float(&type_of(&expr)) => {
            let item = |item: Expr| if is_decimal(&type_of(&item)) { as_float(item) } else { item };
            Transformed::yes(Expr::InList(InList { expr, list: list.into_iter().map(item).collect(), negated }))
        }
        other => Transformed::no(other),
    })
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_float(data_type: &Option<DataType>) -> bool {
    data_type.as_ref().is_some_and(DataType::is_floating)
}

fn is_decimal(data_type: &Option<DataType>) -> bool {
    data_type.as_ref().is_some_and(DataType::is_decimal)
}

/// A literal becomes the float next to it at once.
fn as_float(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(value, metadata) => match value.cast_to(&DataType::Float64) {
            Ok(value @ ScalarValue::Float64(_)) => Expr::Literal(value, metadata.clone()),
            _ => cast(expr, DataType::Float64),
        },
        _ => cast(expr, DataType::Float64),
    }
}
