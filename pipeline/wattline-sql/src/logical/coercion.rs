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
//! its result, and would tell another one after the cast is folded. A number with an exponent is a float.
//!
//! In PARTITION BY the two zeros of floats are one, and an aggregate over a frame that moves is computed of the rows in it
//! ([`framed`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{InList, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, Operator, Projection, Subquery, Union,
    WindowFunctionDefinition, cast, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::intervals::constant_interval;
use crate::functions::framed;

/// Stands before DataFusion's coercion of types.
#[derive(Debug)]
pub(crate) struct Coercions;

impl AnalyzerRule for Coercions {
    fn name(&self) -> &str {
        "coercions"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Types above what changed may change with it.
        let mut has_changed = false;
        plan.transform_up_with_subqueries(|node| {
            let node = match node {
                LogicalPlan::Union(union) => {
                    has_changed = true;
                    return Ok(Transformed::yes(union_of_floats(&union)?));
                }
                LogicalPlan::Join(join) => LogicalPlan::Join(on_floats(join)),
                other => other,
            };
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            let names = NamePreserver::new(&node);
            let rewritten = node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(rewrite(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })?;
            has_changed |= rewritten.transformed;
            if has_changed { rewritten.map_data(LogicalPlan::recompute_schema) } else { Ok(rewritten) }
        })
        .map(|plan| plan.data)
    }
}

/// A union with its decimals as floats where another input has floats.
fn union_of_floats(union: &Union) -> Result<LogicalPlan> {
    let types_at = |at: usize| union.inputs.iter().map(move |input| Some(input.schema().field(at).data_type().clone()));
    let width = union.schema.fields().len();
    let is_mixed: Vec<bool> =
        (0..width).map(|at| types_at(at).any(|of| is_float(&of)) && types_at(at).any(|of| is_decimal(&of))).collect();
    let mut inputs = Vec::with_capacity(union.inputs.len());
    for input in &union.inputs {
        let column = |at: usize| {
            let (qualifier, field) = input.schema().qualified_field(at);
            let column = Expr::Column(Column::from((qualifier, field)));
            let asked = is_mixed[at] && is_decimal(&Some(field.data_type().clone()));
            if asked { as_float(column).alias_qualified(qualifier.cloned(), field.name()) } else { column }
        };
        inputs.push(match is_mixed.contains(&true) {
            true => {
                let columns: Vec<Expr> = (0..width).map(column).collect();
                Arc::new(LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(input))?))
            }
            false => Arc::clone(input),
        });
    }
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
}

/// A join with the decimals of USING as floats where the other side has floats.
fn on_floats(mut join: Join) -> Join {
    let (left, right) = (join.left.schema(), join.right.schema());
    for (of_left, of_right) in &mut join.on {
        let types = [of_left.get_type(left).ok(), of_right.get_type(right).ok()];
        let decimal = match (is_float(&types[0]), is_float(&types[1])) {
            (true, false) if is_decimal(&types[1]) => of_right,
            (false, true) if is_decimal(&types[0]) => of_left,
            _ => continue,
        };
        *decimal = as_float(decimal.clone());
        // What USING means for the columns of the query is settled by now.
        join.join_constraint = JoinConstraint::On;
    }
    join
}

/// An expression that no plan holds, with its types made one.
pub(super) fn with_coercions(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(rewrite(expr, schema)?.data)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        compare_as_floats(expr, schema)?
            .transform_data(|expr| choose_as_floats(expr, schema))?
            .transform_data(|expr| Ok(with_plain_literals(expr)))?
            .transform_data(|expr| Ok(windowed(expr, schema)))?
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
        Expr::Between(Between { expr, negated, low, high }) if is_mixed([&*expr, &*low, &*high], schema) => {
            let [expr, low, high] = [expr, low, high].map(|part| Box::new(as_float_beside(*part, schema)));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) if is_mixed([&*expr].into_iter().chain(&list), schema) => {
            let list = list.into_iter().map(|item| as_float_beside(item, schema)).collect();
            Transformed::yes(Expr::InList(InList { expr: Box::new(as_float_beside(*expr, schema)), list, negated }))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let (of_value, field) = (type_of(&expr), subquery.subquery.schema().qualified_field(0));
            let of_listed = Some(field.1.data_type().clone());
            let (expr, subquery) = match (is_float(&of_value), is_float(&of_listed)) {
                (true, false) if is_decimal(&of_listed) => {
                    let column = as_float(Expr::Column(Column::from(field)));
                    let column = column.alias_qualified(field.0.cloned(), field.1.name());
                    let plan = Projection::try_new(vec![column], Arc::clone(&subquery.subquery))?;
                    (expr, Subquery { subquery: Arc::new(LogicalPlan::Projection(plan)), ..subquery })
                }
                (false, true) if is_decimal(&of_value) => (Box::new(as_float(*expr)), subquery),
                _ => return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated }))),
            };
            Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated }))
        }
        other => Transformed::no(other),
    })
}

/// Functions that give one of their arguments, or all of them in a list.
const CHOICES: [&str; 8] = ["coalesce", "greatest", "ifnull", "least", "make_array", "nullif", "nvl", "nvl2"];

fn choose_as_floats(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let as_one = |choice: Expr| as_float_beside(choice, schema);
    Ok(match expr {
        Expr::ScalarFunction(mut call) if CHOICES.contains(&call.func.name()) && is_mixed(&call.args, schema) => {
            call.args = call.args.into_iter().map(as_one).collect();
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::Case(mut case) => {
            let whens = case.when_then_expr.iter().map(|(when, _)| when);
            let compares = case.expr.is_some() && is_mixed(whens.chain(&case.expr).map(Box::as_ref), schema);
            let thens = case.when_then_expr.iter().map(|(_, then)| then);
            let chooses = is_mixed(thens.chain(&case.else_expr).map(Box::as_ref), schema);
            let as_one_if = |asked: bool, expr: Box<Expr>| if asked { Box::new(as_one(*expr)) } else { expr };
            case.expr = case.expr.map(|expr| as_one_if(compares, expr));
            let both = case.when_then_expr.into_iter();
            let both = both.map(|(when, then)| (as_one_if(compares, when), as_one_if(chooses, then)));
            case.when_then_expr = both.collect();
            case.else_expr = case.else_expr.map(|other| as_one_if(chooses, other));
            Transformed::new_transformed(Expr::Case(case), compares || chooses)
        }
        other => Transformed::no(other),
    })
}

/// Literals of the types that are worked with.
fn with_plain_literals(expr: Expr) -> Transformed<Expr> {
    match expr {
        // Written with an exponent it is no exact number, and a scale below 0 is more than the optimiser can count with.
        Expr::Literal(ScalarValue::Decimal128(_, _, scale), _) if scale < 0 => Transformed::yes(as_float(expr)),
        Expr::ScalarFunction(mut call) if ["round", "trunc"].contains(&call.func.name()) => {
            let places = match call.args.get(1) {
                Some(Expr::Literal(ScalarValue::Int64(Some(places)), _)) => i32::try_from(*places).ok(),
                _ => None,
            };
            let Some(places) = places else { return Transformed::no(Expr::ScalarFunction(call)) };
            call.args[1] = lit(places);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        other => Transformed::no(other),
    }
}

/// A zero is a zero, whatever its sign: partitions go by the order of floats, in which there are two. And an aggregate over a frame
/// that moves is of the rows in the frame.
fn windowed(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::WindowFunction(mut function) = expr else { return Transformed::no(expr) };
    let is_float = |expr: &Expr| is_float(&expr.get_type(schema).ok());
    let params = &mut function.params;
    let mut changed = params.partition_by.iter().any(is_float);
    let partition = std::mem::take(&mut params.partition_by).into_iter();
    params.partition_by = partition.map(|key| if is_float(&key) { key + lit(0.0_f64) } else { key }).collect();
    if let WindowFunctionDefinition::AggregateUDF(udaf) = &function.fun
        && !params.window_frame.start_bound.is_unbounded()
    {
        let framed = framed(udaf, params.args.iter().any(is_float), params.distinct);
        changed |= !Arc::ptr_eq(&framed, udaf);
        function.fun = WindowFunctionDefinition::AggregateUDF(framed);
    }
    Transformed::new_transformed(Expr::WindowFunction(function), changed)
}

/// Whether floats and decimals meet.
fn is_mixed<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> bool {
    let types: Vec<_> = exprs.into_iter().map(|expr| expr.get_type(schema).ok()).collect();
    types.iter().any(is_float) && types.iter().any(is_decimal)
}

/// A decimal among floats as one of them.
fn as_float_beside(expr: Expr, schema: &DFSchema) -> Expr {
    if is_decimal(&expr.get_type(schema).ok()) { as_float(expr) } else { expr }
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

/// A constant interval as so much time.
fn as_duration(expr: Expr, unit: TimeUnit) -> Result<Box<Expr>> {
    let help = "compare instants instead: `b.ts > a.ts + INTERVAL '1 month'`";
    let Some(interval) = constant_interval(&expr)? else {
        return match &expr {
            Expr::Literal(_, metadata) => Ok(Box::new(Expr::Literal(ScalarValue::Null, metadata.clone()))),
            _ => plan_err!("a difference of instants is compared with an interval that is no literal: {help}"),
        };
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
    Ok(Box::new(Expr::Literal(duration, None)))
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
