//! What depends on the order of rows that are equal in that order is made deterministic.
//!
//! Two events may carry the same time. Going on with topic, partition, offset and index where ORDER BY ends makes the result a
//! function of the events, not of the order in which lanes delivered them. Where rows do not show the identity of their event, or
//! several rows are of one event (the windows of HOP, the pairs of a join, both sides of a UNION ALL), the order goes on with what
//! the rows say:
//!
//! | | by | ties that are left |
//! |---|---|---|
//! | ordered aggregates, `first_value(x ORDER BY t)` | the arguments of all of them in one GROUP BY | give the same result |
//! | a window function that looks at the order of rows (`row_number`, `lag`, ROWS frames) or a pattern | the columns that anything above asks for | are the same row |
//! | one that looks at the order of peers in a frame of RANGE or GROUPS (`last_value`, `array_agg`) | the same, by a `row_number` below it ([`in_order`]) | are the same row |
//!
//! What a RANGE frame and `rank` mean are rows of equal order: their ORDER BY stays as it is.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, plan_err};
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprFunctionExt, ExprSchemable, Join, JoinType, LogicalPlan, Projection, SortExpr, Window,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, cast,
};

use super::{contains_stream, has_subquery, resolve_column};
use crate::functions::{MatchRows, in_order, number_in_order, running_functions, sort_key};

const IDENTITY: [&str; 4] = ["_topic", "_partition", "_offset", "_index"];

/// Extends every ordered aggregate and window function over a stream, so that its result depends on the rows alone.
///
/// # Errors
/// What DataFusion says if a plan cannot be rebuilt.
pub(crate) fn break_ties(plan: LogicalPlan) -> Result<LogicalPlan> {
    let wanted = Wanted::all(&plan);
    rewrite(plan, &wanted)
}

/// Which columns of a plan are asked for by what is above it, by their places.
#[derive(Debug, Clone)]
struct Wanted(Vec<bool>);

impl Wanted {
    fn all(plan: &LogicalPlan) -> Self {
        Self(vec![true; plan.schema().fields().len()])
    }

    fn none(plan: &LogicalPlan) -> Self {
        Self(vec![false; plan.schema().fields().len()])
    }

    /// With what `exprs` over the output of `plan` need.
    fn and<'a>(mut self, plan: &LogicalPlan, exprs: impl IntoIterator<Item = &'a Expr>) -> Self {
        for expr in exprs {
            if has_subquery(expr) {
                return Self::all(plan);
            }
            for column in expr.column_refs() {
                if let Some(at) = plan.schema().maybe_index_of_column(column) {
                    self.0[at] = true;
                }
            }
        }
        self
    }

    /// What a plan needs of its inputs.
    fn of_inputs(&self, plan: &LogicalPlan) -> Vec<Self> {
        match plan {
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let exprs = expr.iter().zip(&self.0).filter_map(|(expr, wanted)| wanted.then_some(expr));
                vec![Self::none(input).and(input, exprs)]
            }
            LogicalPlan::Filter(filter) => vec![self.clone().and(&filter.input, [&filter.predicate])],
            LogicalPlan::SubqueryAlias(_) => vec![self.clone()],
            LogicalPlan::Window(Window { input, window_expr, .. }) => {
                let through = self.0[..input.schema().fields().len()].to_vec();
                vec![Self(through).and(input, window_expr)]
            }
            LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, .. }) => {
                vec![Self::none(input).and(input, group_expr.iter().chain(aggr_expr))]
            }
            LogicalPlan::Join(join) => self.of_sides(join).to_vec(),
            _ => plan.inputs().into_iter().map(Self::all).collect(),
        }
    }

    fn of_sides(&self, join: &Join) -> [Self; 2] {
        let width = join.left.schema().fields().len();
        let (left, right) = match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => (self.clone(), Self::none(&join.right)),
            JoinType::RightSemi | JoinType::RightAnti => (Self::none(&join.left), self.clone()),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                (Self(self.0[..width].to_vec()), Self(self.0[width..].to_vec()))
            }
            JoinType::LeftMark | JoinType::RightMark => (Self::all(&join.left), Self::all(&join.right)),
        };
        let on = |side: &LogicalPlan, wanted: Self| {
            wanted.and(side, join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter))
        };
        [on(&join.left, left), on(&join.right, right)]
    }
}

fn rewrite(plan: LogicalPlan, wanted: &Wanted) -> Result<LogicalPlan> {
    // From above, so that what an order goes on with is asked for below.
    let plan = match plan {
        LogicalPlan::Aggregate(aggregate) if contains_stream(&aggregate.input) => extend(aggregate)?,
        LogicalPlan::Window(window) if contains_stream(&window.input) => extend_window(window, wanted)?,
        other => other,
    };
    rewrite_below(plan, wanted)
}

fn rewrite_below(plan: LogicalPlan, wanted: &Wanted) -> Result<LogicalPlan> {
    let mut of_inputs = wanted.of_inputs(&plan).into_iter();
    let plan = plan.map_children(|input| {
        let wanted = of_inputs.next().unwrap_or_else(|| Wanted::all(&input));
        Ok(Transformed::yes(rewrite(input, &wanted)?))
    })?;
    Ok(plan.data.map_subqueries(|subquery| Ok(Transformed::yes(break_ties(subquery)?)))?.data)
}

/// The identity of the event behind a row, as an order; `None` if the plan does not show it.
fn identity_order(input: &LogicalPlan) -> Option<Vec<SortExpr>> {
    let columns = input.schema().columns();
    let of_event = |name: &str| {
        let is_source = |column: &Column| matches!(resolve_column(input, column), Expr::Column(Column { name: source, .. }) if source == name);
        let column = columns.iter().find(|column| column.name == name && is_source(column))?;
        order_by(Expr::Column(column.clone()), input)
    };
    IDENTITY.into_iter().map(of_event).collect()
}

/// Ascending order by an expression; `None` if it has a type without order.
fn order_by(expr: Expr, input: &LogicalPlan) -> Option<SortExpr> {
    let expr = match expr.get_type(input.schema()).ok()? {
        DataType::Dictionary(_, values) => cast(expr, *values),
        DataType::Map(..) | DataType::Union(..) | DataType::Null => return None,
        nested if nested.is_nested() => sort_key().call(vec![expr]),
        _ => expr,
    };
    Some(SortExpr::new(expr, true, true))
}

/// Whether no two rows of the plan are of one event.
fn has_row_per_event(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Window(_) => plan.inputs().into_iter().all(has_row_per_event),
        _ => false,
    }
}

/// Goes on with `more`, without what the order has already; whether that changed it.
fn go_on(order: &mut Vec<SortExpr>, more: impl IntoIterator<Item = SortExpr>) -> bool {
    let known = order.len();
    for sort in more {
        if order.iter().all(|known| known.expr != sort.expr) {
            order.push(sort);
        }
    }
    order.len() > known
}

/// The order in which rows of equal order come to a window function.
fn row_order(window: &Window, wanted: &Wanted) -> Vec<SortExpr> {
    let input = &window.input;
    let identity = identity_order(input);
    if has_row_per_event(input)
        && let Some(identity) = identity
    {
        return identity;
    }
    let wanted = wanted.of_inputs(&LogicalPlan::Window(window.clone())).remove(0);
    let columns = input.schema().columns().into_iter().zip(wanted.0).filter(|(_, wanted)| *wanted);
    let columns = columns.filter_map(|(column, _)| order_by(Expr::Column(column), input));
    identity.into_iter().flatten().chain(columns).collect()
}

/// What a window function needs so that ties do not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Its ORDER BY can go on.
    Order,
    /// Its ORDER BY says which rows are peers, and stays.
    OrderOfPeers,
}

fn need_of(function: &WindowFunction) -> Need {
    let frame = &function.params.window_frame;
    let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    let by_rows = frame.units == WindowFrameUnits::Rows;
    let name = function.fun.name();
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(_) if MatchRows::pattern_of(function).is_some() => Need::Order,
        WindowFunctionDefinition::WindowUDF(_) if NUMBERS.contains(&name) => Need::Order,
        _ if VALUES.contains(&name) || running_functions().any(|running| running == name) => {
            // The first row of all is the first among its peers.
            let is_first = name == "first_value"
                && frame.start_bound.is_unbounded()
                && matches!(frame.end_bound, WindowFrameBound::CurrentRow)
                && function.params.null_treatment != Some(NullTreatment::IgnoreNulls);
            if by_rows || is_whole || is_first { Need::Order } else { Need::OrderOfPeers }
        }
        WindowFunctionDefinition::AggregateUDF(_) if by_rows && !is_whole => Need::Order,
        WindowFunctionDefinition::AggregateUDF(_) | WindowFunctionDefinition::WindowUDF(_) => Need::Nothing,
    }
}

/// Window functions that number rows, or look at another by its number.
const NUMBERS: [&str; 4] = ["row_number", "ntile", "lag", "lead"];
/// Those, and aggregates, that depend on the order of the rows in their frame.
const VALUES: [&str; 5] = ["first_value", "last_value", "nth_value", "array_agg", "string_agg"];
const PEERS: &str = "__in_order";

fn extend_window(window: Window, wanted: &Wanted) -> Result<LogicalPlan> {
    let functions = || window.window_expr.iter().filter_map(function_of);
    if functions().any(|function| need_of(function) == Need::OrderOfPeers) && !functions().any(has_order_of_peers) {
        return order_peers(window, wanted);
    }
    let more = row_order(&window, wanted);
    let schema = Arc::clone(&window.schema);
    let width = window.input.schema().fields().len();
    let names = schema.iter().skip(width).map(|(_, field)| field.name().clone());
    // Functions of one node have one order, so those whose order stays get a node of their own.
    let (mut extended, mut others) = (Vec::new(), Vec::new());
    let mut places = Vec::new();
    let mut changed = false;
    for (expr, name) in window.window_expr.iter().cloned().zip(names) {
        match expr.unalias() {
            Expr::WindowFunction(mut function) if need_of(&function) == Need::Order => {
                let constant = function.params.partition_by.clone();
                let more = more.iter().filter(|sort| !constant.contains(&sort.expr)).cloned();
                changed |= go_on(&mut function.params.order_by, more);
                places.push((true, extended.len()));
                extended.push(Expr::WindowFunction(function).alias(name));
            }
            other => {
                places.push((false, others.len()));
                others.push(if other.schema_name().to_string() == name { other } else { other.alias(name) });
            }
        }
    }
    if !changed {
        return Ok(LogicalPlan::Window(window));
    }
    let first = extended.len();
    let plan = LogicalPlan::Window(Window::try_new(extended, window.input)?);
    if others.is_empty() {
        return Ok(plan);
    }
    let plan = LogicalPlan::Window(Window::try_new(others, Arc::new(plan))?);
    let inputs = (0..width).map(|at| Expr::Column(Column::from(plan.schema().qualified_field(at))));
    let functions = places.into_iter().map(|(is_extended, at)| {
        let at = width + if is_extended { at } else { first + at };
        Expr::Column(Column::from(plan.schema().qualified_field(at)))
    });
    let outputs: Vec<Expr> = inputs.chain(functions).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(plan))?))
}

fn function_of(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => function_of(&alias.expr),
        _ => None,
    }
}

fn has_order_of_peers(function: &WindowFunction) -> bool {
    function.params.args.first().is_some_and(|arg| number_in_order(arg).is_some())
}

/// Numbers the rows of each partition below a node, and names the numbers in the functions that look at the order of peers.
fn order_peers(window: Window, wanted: &Wanted) -> Result<LogicalPlan> {
    let Some(first) = window.window_expr.iter().find_map(function_of) else {
        return Ok(LogicalPlan::Window(window));
    };
    let WindowFunctionParams { partition_by, order_by, .. } = &first.params;
    let mut order = order_by.clone();
    go_on(&mut order, row_order(&window, wanted).into_iter().filter(|sort| !partition_by.contains(&sort.expr)));
    let number = Expr::from(WindowFunction::new(row_number_udwf(), vec![]));
    let number = number.partition_by(partition_by.clone()).order_by(order).build()?.alias(PEERS);
    let numbered = LogicalPlan::Window(Window::try_new(vec![number], Arc::clone(&window.input))?);
    let width = window.input.schema().fields().len();
    let names = window.schema.iter().skip(width).map(|(_, field)| field.name().clone());
    let functions = window.window_expr.iter().cloned().zip(names).map(|(expr, name)| match expr.unalias() {
        Expr::WindowFunction(mut function) if need_of(&function) == Need::OrderOfPeers => {
            if let Some(arg) = function.params.args.first_mut() {
                *arg = in_order().call(vec![arg.clone(), Expr::Column(Column::new_unqualified(PEERS))]);
            }
            Expr::WindowFunction(function).alias(name)
        }
        other => other.alias(name),
    });
    let plan = LogicalPlan::Window(Window::try_new(functions.collect(), Arc::new(numbered))?);
    let kept = (0..plan.schema().fields().len()).filter(|at| *at != width);
    let outputs: Vec<Expr> = kept.map(|at| Expr::Column(Column::from(plan.schema().qualified_field(at)))).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(plan))?))
}

/// The order in which rows of equal order come to ordered aggregates.
fn argument_order(ordered: &[AggregateFunction], input: &LogicalPlan) -> Vec<SortExpr> {
    let identity = identity_order(input);
    if has_row_per_event(input)
        && let Some(identity) = identity
    {
        return identity;
    }
    let args = ordered.iter().flat_map(|function| &function.params.args).filter(|arg| !arg.column_refs().is_empty());
    let args = args.filter_map(|arg| order_by(arg.clone(), input));
    identity.into_iter().flatten().chain(args).collect()
}

/// Whether ties matter to an aggregate: not to those whose order is that of their only argument.
fn has_ties(function: &AggregateFunction) -> bool {
    let by_argument = function.params.distinct && !["first_value", "last_value"].contains(&function.func.name());
    !function.params.order_by.is_empty() && !by_argument && !function.func.supports_within_group_clause()
}

fn extend(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let mut ordered = Vec::new();
    for expr in &aggr_expr {
        expr.apply(|expr| {
            ordered.extend(match expr {
                Expr::AggregateFunction(function) if has_ties(function) => Some(function.clone()),
                _ => None,
            });
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    // DataFusion sorts once for all that cannot do without, and says so at run time.
    let mut strings = ordered.iter().filter(|function| function.func.name() == "string_agg");
    if let Some(first) = strings.next()
        && strings.any(|other| other.params.order_by != first.params.order_by)
    {
        return plan_err!(
            "two `string_agg` of one GROUP BY have different ORDER BY: write `array_to_string(array_agg(x ORDER BY y), ',')` for one of them"
        );
    }
    // One order for all: rows that are told together are of one row, and DataFusion sorts once.
    let more = argument_order(&ordered, &input);
    let names = schema.iter().skip(schema.fields().len() - aggr_expr.len()).map(|(_, field)| field.name().clone());
    let each = |(expr, name): (Expr, String)| {
        let extended = expr.transform_up(|expr| match expr {
            Expr::AggregateFunction(mut function) if has_ties(&function) => {
                let changed = go_on(&mut function.params.order_by, more.iter().cloned());
                Ok(Transformed::new_transformed(Expr::AggregateFunction(function), changed))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let renamed = extended.transformed && extended.data.schema_name().to_string() != name;
        Ok(if renamed { extended.data.alias(name) } else { extended.data })
    };
    let aggr_expr = aggr_expr.into_iter().zip(names).map(each).collect::<Result<_>>()?;
    Ok(LogicalPlan::Aggregate(Aggregate::try_new_with_schema(input.clone(), group_expr, aggr_expr, schema)?))
}
