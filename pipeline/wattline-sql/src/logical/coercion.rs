//! Types that meet are made one as rules mean it, before DataFusion does.
//!
//! Floating-point values are compared in floating point, and what is chosen among them (`coalesce(x, 0.0)`, CASE, a list) is one. A number literal with a point is an exact decimal here, and DataFusion compares a float with a decimal as decimals. That
//! fails at run time for NaN, for infinities and beyond 15 digits, and one odd value would quarantine the rule. So the decimal
//! side is made a float instead: what no float comes near to is compared as well, and nothing can fail. Who wants decimals
//! says so: `CAST(x AS DECIMAL(12, 6)) > 235.4`.
//!
//! The difference of two instants is compared with an interval as a length of time. DataFusion makes an interval of it, and
//! compares months before days before nanoseconds: a difference of two days, all nanoseconds, would be less than
//! `INTERVAL '1 day'`. So the interval is made a duration; one of months has no length and is refused.
//!
//! The places of `round(x, 6)` are made of the type that the function takes at once: it looks at the literal to tell the scale of
//! its result, and would tell another one after the cast is folded.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast, lit};
use datafusion::optimizer::AnalyzerRule;

/// Stands before DataFusion's coercion of types.
#[derive(Debug)]
pub(crate) struct Coercions;

impl AnalyzerRule for Coercions {
    fn name(&self) -> &str {
        "coercions"
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

/// An expression that no plan holds, with its types made one.
pub(super) fn with_coercions(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(rewrite(expr, schema)?.data)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        compare_as_floats(expr, schema)?
            .transform_data(|expr| choose_as_floats(expr, schema))?
            .transform_data(|expr| compare_as_durations(expr, schema))
    })
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

/// Functions that give one of their arguments, or all of them in a list.
const CHOICES: [&str; 8] = ["coalesce", "greatest", "ifnull", "least", "make_array", "nullif", "nvl", "nvl2"];

fn choose_as_floats(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let type_of = |expr: &Expr| expr.get_type(schema).ok();
    let is_mixed = |choices: &[&Expr]| {
        let is = |kind: fn(&Option<DataType>) -> bool| choices.iter().any(|choice| kind(&type_of(choice)));
        is(is_float) && is(is_decimal)
    };
    let as_one = |choice: Expr| if is_decimal(&type_of(&choice)) { as_float(choice) } else { choice };
    Ok(match expr {
        Expr::ScalarFunction(mut call)
            if CHOICES.contains(&call.func.name()) && is_mixed(&call.args.iter().collect::<Vec<_>>()) =>
        {
            call.args = call.args.into_iter().map(as_one).collect();
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::ScalarFunction(mut call) if ["round", "trunc"].contains(&call.func.name()) => {
            let places = match call.args.get(1) {
                Some(Expr::Literal(ScalarValue::Int64(Some(places)), _)) => i32::try_from(*places).ok(),
                _ => None,
            };
            let Some(places) = places else { return Ok(Transformed::no(Expr::ScalarFunction(call))) };
            call.args[1] = lit(places);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::Case(mut case) => {
            let thens = case.when_then_expr.iter().map(|(_, then)| then);
            if !is_mixed(&thens.chain(&case.else_expr).map(Box::as_ref).collect::<Vec<_>>()) {
                return Ok(Transformed::no(Expr::Case(case)));
            }
            let thens = case.when_then_expr.into_iter();
            case.when_then_expr = thens.map(|(when, then)| (when, Box::new(as_one(*then)))).collect();
            case.else_expr = case.else_expr.map(|other| Box::new(as_one(*other)));
            Transformed::yes(Expr::Case(case))
        }
        other => Transformed::no(other),
    })
}

fn compare_as_durations(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let unit_of = |expr: &Expr| match expr.get_type(schema) {
        Ok(DataType::Duration(unit)) => Some(unit),
        _ => None,
    };
    let is_interval = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Interval(_)));
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left, right) = match (unit_of(&left), unit_of(&right)) {
                (Some(unit), None) if is_interval(&right) => (left, as_duration(*right, unit)?),
                (None, Some(unit)) if is_interval(&left) => (as_duration(*left, unit)?, right),
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_interval(&low) || is_interval(&high) => {
            let Some(unit) = unit_of(&expr) else {
                return Ok(Transformed::no(Expr::Between(Between { expr, negated, low, high })));
            };
            let bound = |bound: Box<Expr>| if is_interval(&bound) { as_duration(*bound, unit) } else { Ok(bound) };
            Transformed::yes(Expr::Between(Between { expr, negated, low: bound(low)?, high: bound(high)? }))
        }
        other => Transformed::no(other),
    })
}

/// An interval literal as so much time.
fn as_duration(expr: Expr, unit: TimeUnit) -> Result<Box<Expr>> {
    let help = "compare instants instead: `b.ts > a.ts + INTERVAL '1 month'`";
    let Expr::Literal(value, metadata) = &expr else {
        return plan_err!("a difference of instants is compared with `{expr}`, which is no interval literal: {help}");
    };
    let ScalarValue::IntervalMonthDayNano(Some(interval)) =
        value.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano))?
    else {
        return Ok(Box::new(Expr::Literal(ScalarValue::Null, metadata.clone())));
    };
    if interval.months != 0 {
        return plan_err!("a difference of instants is compared with months, which have no one length: {help}");
    }
    let days_ns = i64::from(interval.days).checked_mul(24 * 3_600 * 1_000_000_000);
    let Some(ns) = days_ns.and_then(|ns| ns.checked_add(interval.nanoseconds)) else {
        return plan_err!("a difference of instants is compared with an interval of more than 292 years: {help}");
    };
    let duration = match unit {
        TimeUnit::Second => ScalarValue::DurationSecond(Some(ns.div_euclid(1_000_000_000))),
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond(Some(ns.div_euclid(1_000_000))),
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond(Some(ns.div_euclid(1_000))),
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond(Some(ns)),
    };
    Ok(Box::new(Expr::Literal(duration, metadata.clone())))
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
