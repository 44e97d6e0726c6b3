//! Window functions on a stream: which rows of a partition a later row can still reach, and when a row is final.
//!
//! | partition and frame | kept | a row is final |
//! |---|---|---|
//! | PARTITION BY names a time window | the rows of open windows | with its window; any function and frame |
//! | ORDER BY event time, ROWS n PRECEDING, `lag(x, n)` | the last n rows | when the watermark has passed it |
//! | …, RANGE interval PRECEDING | the rows of that interval | when the watermark has passed it |
//! | …, RANGE interval FOLLOWING | | that interval later |
//! | …, from UNBOUNDED PRECEDING, `row_number()`, `rank()` | a count or the state of the aggregate | when the watermark has passed it |
//! | `last_value(x) IGNORE NULLS`, `lag(x) IGNORE NULLS` | the last value | when the watermark has passed it |
//!
//! Everything else would have to wait for rows that may never come, and is refused.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::first_last::{first_value_udaf, last_value_udaf};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlan, SortExpr, Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
    lit,
};
use datafusion::physical_expr::aggregate::{LoweredAggregate, LoweredAggregateBuilder};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_planner::create_window_expr;

use super::{Lowering, Node, Problem};
use crate::diagnostic::code;
use crate::functions::{MatchRows, gap_us, number_in_order};
use crate::logical::{
    Anchor, Refusal, find_time_bins, interval_us, is_event_time, is_session, lag_in, resolve, streams_of,
};
use crate::operators::{Aggregated, Counted, Keep, Operator, OverFunction, OverSpec, SessionSpec, Until, nullable};

/// Functions with the same partitions and order, by their places in the node.
struct Group {
    partition: Vec<Expr>,
    order: Vec<SortExpr>,
    places: Vec<usize>,
}

impl Lowering<'_> {
    /// The functions of a node have one order, and those of a session come alone.
    pub(super) fn lower_window(&mut self, window: &Window) -> Result<Node, Problem> {
        let functions = window.window_expr.iter().map(window_function).collect::<Result<Vec<_>, _>>()?;
        if let Some(pattern) = functions.iter().find_map(|function| MatchRows::pattern_of(function)) {
            self.lower_pattern(window, functions[0], pattern)
        } else if functions.iter().any(|function| is_session(function)) {
            self.lower_session(window, &functions)
        } else {
            self.lower_over(window)
        }
    }

    fn lower_session(&mut self, window: &Window, functions: &[&WindowFunction]) -> Result<Node, Problem> {
        let node = self.lower_final(&window.input)?;
        let input = window.input.schema();
        let first = &functions[0].params;
        let same = |function: &&WindowFunction| {
            is_session(function)
                && function.params.args == first.args
                && function.params.partition_by == first.partition_by
        };
        let [time, Expr::Literal(gap, _)] = &first.args[..] else { return Err(session_of_what().into()) };
        let lag = lag_in(&window.input, time);
        let (Some(lag_us), true) = (lag, functions.iter().all(same)) else { return Err(session_of_what().into()) };
        let keys = self.physical_all(&first.partition_by, input)?;
        Ok(Node::Sessions(
            Box::new(node),
            Arc::new(SessionSpec {
                time: self.physical(time, input)?,
                lag_us,
                key_schema: key_schema(&keys, input.as_arrow())?,
                keys,
                gap_us: gap_us(gap)?,
                is_end: functions.iter().map(|function| function.fun.name() == "session_end").collect(),
                input_schema: nullable(input.as_arrow()),
                schema: nullable(window.schema.as_arrow()),
            }),
        ))
    }

    /// One stage for each combination of partitions and order, then the columns in the order of the plan.
    fn lower_over(&mut self, window: &Window) -> Result<Node, Problem> {
        let mut node = self.lower_final(&window.input)?;
        let mut groups: Vec<Group> = Vec::new();
        for (place, expr) in window.window_expr.iter().enumerate() {
            let function = window_function(expr)?;
            let (partition, order) = (&function.params.partition_by, &function.params.order_by);
            match groups.iter_mut().find(|group| group.partition == *partition && group.order == *order) {
                Some(group) => group.places.push(place),
                None => groups.push(Group { partition: partition.clone(), order: order.clone(), places: vec![place] }),
            }
        }
        let width = window.input.schema().fields().len();
        let mut fields: Vec<Arc<Field>> = window.input.schema().fields().iter().cloned().collect();
        for group in &groups {
            let input_schema = nullable(&Schema::new(fields.clone()));
            fields.extend(group.places.iter().map(|place| Arc::clone(&window.schema.fields()[width + place])));
            let schema = nullable(&Schema::new(fields.clone()));
            let mut spec = self.over_spec(window, group)?;
            (spec.input_schema, spec.schema) = (input_schema, schema);
            node = Node::Over(Box::new(node), Arc::new(spec));
        }
        if groups.len() < 2 {
            return Ok(node);
        }
        let given: Vec<usize> = groups.iter().flat_map(|group| group.places.iter().copied()).collect();
        let column = |at: usize| {
            let place = given.iter().position(|place| *place == at).unwrap_or_default();
            (width + place, window.schema.field(width + at).name().as_str())
        };
        let inputs = (0..width).map(|at| (at, window.schema.field(at).name().as_str()));
        let exprs = inputs
            .chain((0..given.len()).map(column))
            .map(|(at, name)| Arc::new(super::PhysicalColumn::new(name, at)) as Arc<dyn PhysicalExpr>)
            .collect();
        let schema = nullable(window.schema.as_arrow());
        Ok(Node::Steps(Box::new(node), vec![Operator::Project { exprs, schema }]))
    }

    fn over_spec(&self, window: &Window, group: &Group) -> Result<OverSpec, Problem> {
        let input = window.input.schema();
        let ready = Ready::of(&window.input, group)?;
        let mut functions = Vec::with_capacity(group.places.len());
        let mut keep = Keep::default();
        let mut ahead_us = 0;
        for place in &group.places {
            let expr = &window.window_expr[*place];
            let function = window_function(expr)?;
            let reach = if ready.whole { Reach::Partition } else { reach(function)? };
            functions.push(match reach {
                Reach::Partition => OverFunction::Framed(self.window_expr(expr, function, &window.input)?),
                Reach::Rows { kept, ahead_us: ahead } => {
                    keep = keep.and(kept);
                    ahead_us = ahead_us.max(ahead);
                    OverFunction::Framed(self.window_expr(expr, function, &window.input)?)
                }
                Reach::Count(what) => OverFunction::Counted(what),
                Reach::Start(until) => {
                    OverFunction::Running { aggregate: self.running(function, &window.input)?, until }
                }
            });
        }
        let partition = self.physical_all(&group.partition, input)?;
        let order = self.physical_order(&group.order, input)?;
        let functions_of = group.places.iter().filter_map(|place| window_function(&window.window_expr[*place]).ok());
        let number = functions_of.filter_map(|function| number_in_order(function.params.args.first()?)).next();
        let ties: Vec<SortExpr> = number.map(|number| number.clone().sort(true, true)).into_iter().collect();
        let sort = [order.clone(), self.physical_order(&ties, input)?].concat();
        Ok(OverSpec {
            partition_schema: key_schema(&partition, input.as_arrow())?,
            partition,
            order,
            sort,
            instant: self.physical(&ready.instant, input)?,
            final_after_us: ready.final_after_us.saturating_add(ahead_us),
            reach_us: if ready.whole { ready.size_us } else { reach_within(&functions, keep, ahead_us) },
            carried_widths: functions
                .iter()
                .map(OverFunction::carried_width)
                .collect::<datafusion::error::Result<_>>()?,
            functions,
            keep,
            input_schema: nullable(input.as_arrow()),
            schema: nullable(window.schema.as_arrow()),
        })
    }

    pub(super) fn physical_order(
        &self,
        order: &[SortExpr],
        input: &DFSchema,
    ) -> Result<Vec<PhysicalSortExpr>, Problem> {
        let each = |sort: &SortExpr| {
            let options = arrow::compute::SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            Ok(PhysicalSortExpr { expr: self.physical(&sort.expr, input)?, options })
        };
        order.iter().map(each).collect()
    }

    /// What the function refuses, DISTINCT above all, is better known before the first event: so it is made once here.
    fn window_expr(
        &self,
        expr: &Expr,
        function: &WindowFunction,
        input: &LogicalPlan,
    ) -> Result<Arc<dyn WindowExpr>, Problem> {
        let context = PhysicalPlanningContext::default();
        let planned = create_window_expr(expr, input.schema(), self.session.execution_props(), &context)?;
        planned.create_window_fn().map_err(|error| not_made(function, &error))?;
        Ok(planned)
    }

    /// The aggregate of a window function by itself.
    fn lowered(
        &self,
        udaf: &Arc<AggregateUDF>,
        function: &WindowFunction,
        input: &LogicalPlan,
    ) -> Result<LoweredAggregate, Problem> {
        let params = &function.params;
        let is_lag = function.fun.name() == "lag";
        let args = if is_lag { &params.args[..1] } else { &params.args[..] };
        let expr = Expr::AggregateFunction(AggregateFunction::new_udf(
            Arc::clone(udaf),
            args.to_vec(),
            params.distinct,
            params.filter.clone(),
            Vec::new(),
            params.null_treatment,
        ));
        let context = PhysicalPlanningContext::default();
        let (schema, props) = (input.schema(), self.session.execution_props());
        Ok(LoweredAggregateBuilder::new(&expr, schema, schema.as_arrow(), props, &context).build()?)
    }

    /// The aggregate behind a frame that begins with the partition.
    fn running(&self, function: &WindowFunction, input: &LogicalPlan) -> Result<Aggregated, Problem> {
        let Some(udaf) = as_aggregate(function) else { return Err(from_the_first_row(function).into()) };
        let params = &function.params;
        let lowered = self.lowered(&udaf, function, input)?;
        // What keeps every value it has seen would keep all of them for ever.
        let keeps_values = |field: &FieldRef| field.data_type().is_nested();
        if params.distinct || lowered.aggregate.state_fields()?.iter().any(keeps_values) {
            return Err(from_the_first_row(function).into());
        }
        let args = lowered.aggregate.expressions();
        Ok(Aggregated { function: lowered.aggregate, args, filter: lowered.filter })
    }
}

pub(super) fn key_schema(keys: &[Arc<dyn PhysicalExpr>], input: &Schema) -> datafusion::error::Result<SchemaRef> {
    let field =
        |(at, key): (usize, &Arc<dyn PhysicalExpr>)| Ok(Field::new(format!("key_{at}"), key.data_type(input)?, true));
    Ok(Arc::new(Schema::new(keys.iter().enumerate().map(field).collect::<datafusion::error::Result<Vec<_>>>()?)))
}

fn window_function(expr: &Expr) -> Result<&WindowFunction, Problem> {
    match expr {
        Expr::WindowFunction(function) => Ok(function),
        Expr::Alias(alias) => window_function(&alias.expr),
        other => Err(Problem::Failed(datafusion::common::internal_datafusion_err!("`{other}` is no window function"))),
    }
}

/// When the rows of a group are final.
struct Ready {
    instant: Expr,
    final_after_us: i64,
    /// The partition is a window: it is final as a whole.
    whole: bool,
    /// How long that window is, microseconds.
    size_us: Option<i64>,
}

impl Ready {
    fn of(input: &LogicalPlan, group: &Group) -> Result<Self, Refusal> {
        let streams = streams_of(input);
        for expr in &group.partition {
            let resolved = resolve(input, expr);
            if let Some(lag_us) = lag_in(input, expr) {
                let size_us = match is_event_time(&resolved, &streams) {
                    true => Some(0),
                    false => find_time_bins(&resolved, &streams).iter().map(|bin| bin.size_us).max(),
                };
                let final_after_us = lag_us.saturating_add(1);
                return Ok(Self { instant: expr.clone(), final_after_us, whole: true, size_us });
            }
        }
        let ascending = group.order.first().filter(|order| order.asc);
        let lag = ascending.and_then(|order| lag_in(input, &order.expr));
        match (ascending, lag) {
            (Some(order), Some(lag_us)) => {
                let final_after_us = lag_us.saturating_add(1);
                Ok(Self { instant: order.expr.clone(), final_after_us, whole: false, size_us: None })
            }
            _ => Err(not_in_time_order(&streams)),
        }
    }
}

/// How far apart rows can be of which one decides about the other, if only their times say so.
fn reach_within(functions: &[OverFunction], keep: Keep, ahead_us: i64) -> Option<i64> {
    let is_by_time = functions.iter().all(|function| matches!(function, OverFunction::Framed(_)));
    let within_us = keep.within_us.unwrap_or(0).saturating_add(ahead_us);
    (is_by_time && keep.first == 0 && keep.last == 0).then_some(within_us)
}

/// What of its partition a function needs.
enum Reach {
    /// All of it, and all of it is there.
    Partition,
    /// Rows before it that are kept, and rows that follow it in time.
    Rows { kept: Keep, ahead_us: i64 },
    /// The number of rows before it.
    Count(Counted),
    /// The state of the aggregate over all rows up to this one.
    Start(Until),
}

fn reach(function: &WindowFunction) -> Result<Reach, Refusal> {
    let name = function.fun.name().to_owned();
    let WindowFunctionDefinition::WindowUDF(_) = &function.fun else { return frame_reach(function) };
    match name.as_str() {
        "row_number" => Ok(Reach::Count(Counted::RowNumber)),
        "rank" => Ok(Reach::Count(Counted::Rank)),
        "dense_rank" => Ok(Reach::Count(Counted::DenseRank)),
        "lag" if !ignores_nulls(function) => match function.params.args.get(1).map(number) {
            None => Ok(Reach::Rows { kept: Keep { last: 1, ..Keep::default() }, ahead_us: 0 }),
            Some(Some(last)) => Ok(Reach::Rows { kept: Keep { last, ..Keep::default() }, ahead_us: 0 }),
            Some(None) => Err(ahead(function)),
        },
        "lag" if is_plain_lag(function) => Ok(Reach::Start(Until::Before)),
        "lag" => Err(over_nulls(function)),
        "first_value" | "last_value" | "nth_value" => frame_reach(function),
        _ => Err(ahead(function)),
    }
}

fn ignores_nulls(function: &WindowFunction) -> bool {
    function.params.null_treatment == Some(NullTreatment::IgnoreNulls)
}

/// Whether it asks for the row before, and for nothing in its place.
fn is_plain_lag(function: &WindowFunction) -> bool {
    let args = &function.params.args;
    let is_null = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if value.is_null());
    args.get(1).is_none_or(|offset| number(offset) == Some(1)) && args.get(2).is_none_or(is_null)
}

/// A window function as the aggregate of the rows up to the current one that gives the same.
fn as_aggregate(function: &WindowFunction) -> Option<Arc<AggregateUDF>> {
    match &function.fun {
        WindowFunctionDefinition::AggregateUDF(udaf) => Some(Arc::clone(udaf)),
        WindowFunctionDefinition::WindowUDF(_) if !ignores_nulls(function) => None,
        WindowFunctionDefinition::WindowUDF(udwf) => match udwf.name() {
            "first_value" => Some(first_value_udaf()),
            "last_value" | "lag" => Some(last_value_udaf()),
            _ => None,
        },
    }
}

fn number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Literal(value, _) => bound(value),
        _ => None,
    }
}

fn bound(value: &ScalarValue) -> Option<usize> {
    match value.cast_to(&arrow::datatypes::DataType::UInt64).ok()? {
        ScalarValue::UInt64(Some(rows)) => usize::try_from(rows).ok(),
        _ => None,
    }
}

fn frame_reach(function: &WindowFunction) -> Result<Reach, Refusal> {
    let frame = &function.params.window_frame;
    let ahead_us = match (&frame.end_bound, frame.units) {
        (WindowFrameBound::CurrentRow | WindowFrameBound::Preceding(_), _) => 0,
        (WindowFrameBound::Following(bound), WindowFrameUnits::Range) if !bound.is_null() => {
            interval_us(&lit(bound.clone())).ok_or_else(|| ahead(function))?
        }
        (WindowFrameBound::Following(_), _) => return Err(ahead(function)),
    };
    match (&frame.start_bound, frame.units) {
        (_, WindowFrameUnits::Groups) => Err(groups(function)),
        (WindowFrameBound::Preceding(bound), units) if bound.is_null() => {
            let until = match (&frame.end_bound, units) {
                (WindowFrameBound::CurrentRow, WindowFrameUnits::Rows) => Until::Row,
                (WindowFrameBound::CurrentRow, _) => Until::Peers,
                (WindowFrameBound::Preceding(rows), WindowFrameUnits::Rows) if self::bound(rows) == Some(1) => {
                    Until::Before
                }
                _ => return Err(from_the_first_row(function)),
            };
            match as_aggregate(function) {
                Some(_) => Ok(Reach::Start(until)),
                None => {
                    let first = first_rows(function).ok_or_else(|| from_the_first_row(function))?;
                    // The row itself is the last of its frame, so nothing before it matters.
                    let last = usize::from(until == Until::Before);
                    Ok(Reach::Rows { kept: Keep { first, last, ..Keep::default() }, ahead_us: 0 })
                }
            }
        }
        (WindowFrameBound::Preceding(rows), WindowFrameUnits::Rows) => match bound(rows) {
            Some(last) => Ok(Reach::Rows { kept: Keep { last, ..Keep::default() }, ahead_us }),
            None => Err(ahead(function)),
        },
        (WindowFrameBound::Preceding(value), WindowFrameUnits::Range) => match interval_us(&lit(value.clone())) {
            Some(within_us) => {
                Ok(Reach::Rows { kept: Keep { within_us: Some(within_us), ..Keep::default() }, ahead_us })
            }
            None => Err(ahead(function)),
        },
        // Peers come together; with rows that follow, those of the look-ahead are still there.
        (WindowFrameBound::CurrentRow, _) => Ok(Reach::Rows { kept: Keep::default(), ahead_us }),
        (WindowFrameBound::Following(_), WindowFrameUnits::Range) => {
            Ok(Reach::Rows { kept: Keep::default(), ahead_us })
        }
        (WindowFrameBound::Following(_), WindowFrameUnits::Rows) => Err(ahead(function)),
    }
}

/// The rows at the beginning of a partition that answer the function for ever.
fn first_rows(function: &WindowFunction) -> Option<usize> {
    if ignores_nulls(function) {
        return None;
    }
    match function.fun.name() {
        "first_value" => Some(1),
        "last_value" => Some(0),
        "nth_value" => function.params.args.get(1).and_then(number),
        _ => None,
    }
}

fn refuse(function: Option<&WindowFunction>, message: String, help: &str) -> Refusal {
    Refusal::new(code::OVER, Anchor::Over(function.map(|function| function.fun.name().to_owned())), message, help)
}

fn session_of_what() -> Refusal {
    refuse(
        None,
        "sessions are those of the event time, with a gap that is a literal, and come alone in their OVER".to_owned(),
        "write `FROM SESSION(stream, ts, INTERVAL '30 minutes', key)`",
    )
}

pub(super) fn not_in_time_order(streams: &[&crate::catalog::StreamSource]) -> Refusal {
    let time = streams.first().map_or("ts", |source| source.stream.event_time.as_str());
    refuse(
        None,
        "an OVER clause goes neither by event time nor by the rows of a time window, so its rows would never be final"
            .to_owned(),
        &format!("write `OVER (PARTITION BY … ORDER BY {time})`, or put `window_start` of a TUMBLE into PARTITION BY"),
    )
}

fn ahead(function: &WindowFunction) -> Refusal {
    refuse(
        Some(function),
        format!(
            "`{}` looks at rows after the current one, and nothing says when the last of them has come",
            function.fun.name()
        ),
        "use `lag`, a frame like `ROWS 5 PRECEDING` or `RANGE BETWEEN CURRENT ROW AND INTERVAL '1 hour' FOLLOWING`, or put `window_start` of a TUMBLE into PARTITION BY",
    )
}

fn over_nulls(function: &WindowFunction) -> Refusal {
    refuse(
        Some(function),
        format!("`{}` that ignores NULLs may look back over any number of rows", function.fun.name()),
        "write `lag(x) IGNORE NULLS`, or say how far: `last_value(x) IGNORE NULLS OVER (… ROWS BETWEEN 10 PRECEDING AND 1 PRECEDING)`; or leave the NULLs out with WHERE in a subquery",
    )
}

fn from_the_first_row(function: &WindowFunction) -> Refusal {
    refuse(
        Some(function),
        format!(
            "the frame of `{}` begins with the first row there ever was, and all rows would have to be kept",
            function.fun.name()
        ),
        "begin it with `ROWS 5 PRECEDING` or `RANGE INTERVAL '1 hour' PRECEDING`; one that begins with the first row ends at CURRENT ROW or `ROWS … 1 PRECEDING`, of an aggregate that does not keep its values",
    )
}

fn groups(function: &WindowFunction) -> Refusal {
    refuse(
        Some(function),
        format!("the frame of `{}` counts GROUPS of equal times", function.fun.name()),
        "write ROWS or RANGE",
    )
}

/// The function takes no DISTINCT, or an argument is out of its range.
fn not_made(function: &WindowFunction, error: &DataFusionError) -> Refusal {
    let name = function.fun.name();
    let said = error.find_root().message().lines().next().unwrap_or_default().to_owned();
    let help = match function.params.distinct {
        true => "write it without DISTINCT, or read the values from a subquery in which each comes once",
        false => "correct its arguments",
    };
    let message = format!("`{name}` cannot be computed over these rows: {said}");
    Refusal::new(code::PLANNING, Anchor::Over(Some(name.to_owned())), message, help)
}
