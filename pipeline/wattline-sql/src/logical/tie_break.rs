//! What depends on the order of rows that are equal in that order is made deterministic.
//!
//! Two events may carry the same time. Going on with topic, partition, offset and index where ORDER BY ends makes the result a
//! function of the events, not of the order in which lanes delivered them. Where rows do not show the identity of their event, or
//! several rows are of one event (the windows of HOP, the pairs of a join, both sides of a UNION ALL), the order goes on with what
//! the rows say:
//!
//! | | by | ties that are left |
//! |---|---|---|
//! | an ordered aggregate, `first_value(x ORDER BY t)` | its arguments | give the same result |
//! | a window function that looks at the order of rows (`row_number`, `lag`, ROWS frames) or a pattern | the columns that anything above asks for | are the same row |
//!
//! A RANGE frame and `rank` mean rows of equal order, and stay as they are.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Projection, SortExpr, Window, WindowFrameUnits,
    WindowFunctionDefinition, cast,
};

use super::{contains_stream, resolve_column};

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

fn has_subquery(expr: &Expr) -> bool {
    let is_subquery = |expr: &Expr| {
        matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
    };
    expr.exists(|expr| Ok(is_subquery(expr))).unwrap_or(true)
}

fn rewrite(plan: LogicalPlan, wanted: &Wanted) -> Result<LogicalPlan> {
    let mut of_inputs = wanted.of_inputs(&plan).into_iter();
    let plan = plan.map_children(|input| {
        let wanted = of_inputs.next().unwrap_or_else(|| Wanted::all(&input));
        Ok(Transformed::yes(rewrite(input, &wanted)?))
    })?;
    let plan = plan.data.map_subqueries(|subquery| Ok(Transformed::yes(break_ties(subquery)?)))?;
    match plan.data {
        LogicalPlan::Aggregate(aggregate) if contains_stream(&aggregate.input) => extend(aggregate),
        LogicalPlan::Window(window) if contains_stream(&window.input) => extend_window(window, wanted),
        other => Ok(other),
    }
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

fn extend_window(window: Window, wanted: &Wanted) -> Result<LogicalPlan> {
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
            Expr::WindowFunction(mut function) if looks_at_order(&function) => {
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

fn looks_at_order(function: &WindowFunction) -> bool {
    let frame = &function.params.window_frame;
    match &function.fun {
        WindowFunctionDefinition::AggregateUDF(_) => {
            let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
            frame.units == WindowFrameUnits::Rows && !is_whole
        }
        WindowFunctionDefinition::WindowUDF(of) => {
            let of_equals = ["rank", "dense_rank", "percent_rank", "cume_dist", "session_start", "session_end"]
                .contains(&of.name());
            let single = frame.units == WindowFrameUnits::Range && !frame.can_accept_multi_orderby();
            !of_equals && !single
        }
    }
}

/// The order in which rows of equal order come to an aggregate.
fn argument_order(function: &AggregateFunction, input: &LogicalPlan) -> Vec<SortExpr> {
    let identity = identity_order(input);
    if has_row_per_event(input)
        && let Some(identity) = identity
    {
        return identity;
    }
    let args = function.params.args.iter().filter(|arg| !arg.column_refs().is_empty());
    let args = args.filter_map(|arg| order_by(arg.clone(), input));
    identity.into_iter().flatten().chain(args).collect()
}

fn extend(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let names = schema.iter().skip(schema.fields().len() - aggr_expr.len()).map(|(_, field)| field.name().clone());
    let each = |(expr, name): (Expr, String)| {
        let extended = expr.transform_up(|expr| match expr {
            // DISTINCT leaves no ties, and the order of an ordered set is its argument.
            Expr::AggregateFunction(mut function)
                if !function.params.order_by.is_empty()
                    && !function.params.distinct
                    && !function.func.supports_within_group_clause() =>
            {
                let more = argument_order(&function, &input);
                let changed = go_on(&mut function.params.order_by, more);
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
