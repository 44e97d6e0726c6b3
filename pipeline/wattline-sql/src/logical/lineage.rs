//! Where a column comes from: an expression at the top of a plan, rewritten over the columns of its sources.
//!
//! Used to recognise the event time and the time bins of windows behind any number of projections, aliases
//! and joins. Resolution stops at aggregates: their grouping columns go on, their results do not.

use std::sync::{Arc, LazyLock};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, ScalarValue, TableReference, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarUDF, Union, Unnest, Volatility, Window,
    create_udf, lit,
};

use crate::catalog::{Stream, StreamSource, event_time_type};

/// The relation that stands for "the result of an aggregate" in a resolved expression.
const AGGREGATE: &str = "__aggregate";
/// The relation that stands for "the result of a window function".
const OVER: &str = "__over";
/// Mark what comes from either side of a join of streams: both may be of one stream, and the windows of one are not those of the
/// other.
const SIDES: [char; 2] = ['1', '2'];
/// Marks the elements of a list, once for each list that was taken apart below: the windows of HOP over those of HOP are others.
const ELEMENT: char = '^';
/// Marks the times of a UNION ALL, together with the first column that has them.
const UNION: char = 'U';
/// Marks what an outer join of streams may have made NULL: it is no instant any more.
const ABSENT: char = '?';
/// Marks what a FULL join may have made NULL: then the other side is there.
const ONE_OF_TWO: char = '*';

/// A function of the event time that puts rows into windows: `date_bin`, or what HOP and CUMULATE unnest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TimeBin {
    /// Width of a window, microseconds.
    pub(crate) size_us: i64,
    /// The resolved expression; two bins are the same if this is equal.
    pub(crate) expr: Expr,
    lag_us: i64,
}

impl TimeBin {
    /// How far past the value of the bin the watermark must be, so that no row to come has that value; microseconds.
    pub(crate) fn final_after_us(&self) -> i64 {
        self.lag_us.saturating_add(1)
    }
}

/// All streams scanned below `plan`.
pub(crate) fn streams_of(plan: &LogicalPlan) -> Vec<&StreamSource> {
    let mut streams = Vec::new();
    collect_streams(plan, &mut streams);
    streams
}

/// All streams that `plan` reads, also in subqueries, each once.
pub(crate) fn all_streams_of(plan: &LogicalPlan) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = StreamSource::of(&scan.source)
            && streams.iter().all(|known| known.name != source.stream.name)
        {
            streams.push(source.stream.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "walking a plan does not fail");
    streams
}

fn collect_streams<'a>(plan: &'a LogicalPlan, streams: &mut Vec<&'a StreamSource>) {
    if let LogicalPlan::TableScan(scan) = plan {
        streams.extend(StreamSource::of(&scan.source));
    }
    for input in plan.inputs() {
        collect_streams(input, streams);
    }
}

/// Whether any stream is scanned below `plan`.
pub(crate) fn contains_stream(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => StreamSource::of(&scan.source).is_some(),
        other => other.inputs().into_iter().any(contains_stream),
    }
}

/// Whether a plan has such an expression, also in subqueries.
pub(crate) fn has_expression(plan: &LogicalPlan, is_such: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= is_such(expr);
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

/// Whether an expression asks another query.
pub(crate) fn has_subquery(expr: &Expr) -> bool {
    let is_subquery = |expr: &Expr| {
        matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
    };
    expr.exists(|expr| Ok(is_subquery(expr))).unwrap_or(true)
}

/// Whether `plan` aggregates anywhere.
pub(crate) fn contains_aggregate(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Aggregate(_)) || plan.inputs().into_iter().any(contains_aggregate)
}

/// `expr`, valid over the output of `plan`, rewritten over the columns of the plan's sources.
pub(crate) fn resolve(plan: &LogicalPlan, expr: &Expr) -> Expr {
    let rewritten = expr.clone().transform_down(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::new(resolve_column(plan, &column), true, TreeNodeRecursion::Jump),
            Expr::Alias(alias) => Transformed::new(resolve(plan, &alias.expr), true, TreeNodeRecursion::Jump),
            other => Transformed::no(other),
        })
    });
    let shifted = rewritten.and_then(|resolved| {
        resolved.data.transform_up(|expr| Ok(Transformed::yes(shifted_once(expr)))).map(|shifted| shifted.data)
    });
    shifted.unwrap_or_else(|_infallible| expr.clone())
}

/// An instant moved by constants is moved once, by so many nanoseconds.
fn shifted_once(expr: Expr) -> Expr {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else { return expr };
    let (instant, us) = match (op, interval_us(left), interval_us(right)) {
        (Operator::Plus, None, Some(us)) => (left, us),
        (Operator::Plus, Some(us), None) => (right, us),
        (Operator::Minus, None, Some(us)) => (left, us.saturating_neg()),
        _ => return expr,
    };
    let (instant, us) = match instant.as_ref() {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) if let Some(more_us) = interval_us(right) => {
            (left, us.saturating_add(more_us))
        }
        _ => (instant, us),
    };
    if us == 0 { instant.as_ref().clone() } else { instant.as_ref().clone() + interval(us) }
}

/// As [`resolve`], for one column.
pub(crate) fn resolve_column(plan: &LogicalPlan, column: &Column) -> Expr {
    let unresolved = || Expr::Column(Column { spans: Default::default(), ..column.clone() });
    let Ok(index) = plan.schema().index_of_column(column) else { return unresolved() };
    match plan {
        LogicalPlan::Projection(projection) => resolve(&projection.input, &projection.expr[index]),
        LogicalPlan::SubqueryAlias(alias) => {
            resolve_column(&alias.input, &Column::from(alias.input.schema().qualified_field(index)))
        }
        LogicalPlan::Aggregate(aggregate) => match grouped(aggregate).get(index) {
            Some(group) => resolve(&aggregate.input, group),
            None => Expr::Column(Column::new(Some(AGGREGATE), &column.name)),
        },
        LogicalPlan::Join(join) => {
            let width = match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti => 0,
                _ => join.left.schema().fields().len(),
            };
            let (side, index, is_right) = match index.checked_sub(width) {
                None => (&join.left, index, false),
                Some(_) if join.join_type == JoinType::LeftMark => return unresolved(),
                Some(index) => (&join.right, index, true),
            };
            let resolved = resolve_column(side, &Column::from(side.schema().qualified_field(index)));
            if !contains_stream(&join.left) || !contains_stream(&join.right) {
                return resolved;
            }
            let resolved = marked(resolved, &SIDES[usize::from(is_right)].to_string());
            match (join.join_type, is_right) {
                (JoinType::Full, _) => marked(resolved, &ONE_OF_TWO.to_string()),
                (JoinType::Left, true) | (JoinType::Right, false) => marked(resolved, &ABSENT.to_string()),
                _ => resolved,
            }
        }
        LogicalPlan::Filter(filter) => resolve_column(&filter.input, column),
        LogicalPlan::Window(window) => match window.input.schema().fields().len() {
            width if index < width => {
                resolve_column(&window.input, &Column::from(window.input.schema().qualified_field(index)))
            }
            width => resolve_over(window, &window.window_expr[index - width]),
        },
        LogicalPlan::Unnest(unnest) => match unnest.dependency_indices.get(index) {
            // What a list holds is spoken of as the list: only the windows of an instant are asked for.
            Some(below) => {
                let resolved =
                    resolve_column(&unnest.input, &Column::from(unnest.input.schema().qualified_field(*below)));
                match unnest.list_type_columns.iter().any(|(list, _)| list == below) {
                    true => marked(resolved, &ELEMENT.to_string().repeat(lists_below(unnest))),
                    false => resolved,
                }
            }
            None => unresolved(),
        },
        LogicalPlan::Union(union) => resolve_union(union, index).unwrap_or_else(unresolved),
        LogicalPlan::TableScan(scan) => {
            Expr::Column(Column::new(Some(scan.table_name.clone()), plan.schema().field(index).name().clone()))
        }
        _ => unresolved(),
    }
}

/// A column of a union: the same of the times that its inputs have there. The times of two columns are one time if they are so in
/// each of the inputs.
fn resolve_union(union: &Union, index: usize) -> Option<Expr> {
    let source = union.inputs.iter().find_map(|input| streams_of(input).first().copied())?;
    let of_column = |index: usize| -> Vec<Expr> {
        let of_input =
            |input: &Arc<LogicalPlan>| resolve_column(input, &Column::from(input.schema().qualified_field(index)));
        union.inputs.iter().map(of_input).collect()
    };
    let times_of = |resolved: &[Expr]| -> Option<Vec<Expr>> {
        union.inputs.iter().zip(resolved).map(|(input, resolved)| only_time(resolved, &streams_of(input))).collect()
    };
    let resolved = of_column(index);
    let Some(times) = times_of(&resolved) else {
        let first = resolved.first()?;
        return resolved.iter().all(|other| other == first).then(|| first.clone());
    };
    let first = (0..index).find(|other| times_of(&of_column(*other)).as_ref() == Some(&times)).unwrap_or(index);
    let time = marked(time_column_of(source), &format!("{UNION}{first}"));
    let replaced = resolved.into_iter().zip(times).map(|(resolved, of_input)| with(&resolved, &of_input, &time));
    let mut replaced: Vec<Expr> = replaced.collect();
    replaced.dedup();
    Some(match <[Expr; 1]>::try_from(replaced) {
        Ok([one]) => one,
        Err(several) => Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&ONE_OF), several)),
    })
}

/// Stands in resolved expressions for an instant that is computed in one of several ways: in each input of a union in its own. It is
/// never run.
static ONE_OF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let never = |_args: &[ColumnarValue]| internal_err!("an instant of a union stands for a column");
    Arc::new(create_udf("__one_of", Vec::new(), event_time_type(), Volatility::Immutable, Arc::new(never)))
});

/// The ways in which an instant of a union is computed.
fn ways_of(resolved: &Expr) -> Option<&[Expr]> {
    match resolved {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == ONE_OF.name() => Some(args),
        _ => None,
    }
}

/// The event time that a resolved expression is of, if it is of one and no side that may be absent.
fn only_time(resolved: &Expr, streams: &[&StreamSource]) -> Option<Expr> {
    let mut times = resolved.column_refs().into_iter().map(|column| Expr::Column(column.clone()));
    let first = times.next().filter(|time| is_event_time(time, streams))?;
    times.all(|other| other == first).then_some(first)
}

fn lists_below(unnest: &Unnest) -> usize {
    fn unnests(plan: &LogicalPlan) -> usize {
        let own = usize::from(matches!(plan, LogicalPlan::Unnest(_)));
        own + plan.inputs().into_iter().map(unnests).sum::<usize>()
    }
    1 + unnests(&unnest.input)
}

/// What an aggregate groups by, column by column, also with grouping sets.
pub(super) fn grouped(aggregate: &Aggregate) -> Vec<&Expr> {
    grouping_set_to_exprlist(&aggregate.group_expr).unwrap_or_default()
}

/// A resolved expression whose columns carry a mark more.
fn marked(resolved: Expr, mark: &str) -> Expr {
    let result = resolved.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(Column { relation: Some(relation), name, spans }) => {
                let marks = format!("{}{mark}", relation.schema().unwrap_or_default());
                let relation = Some(TableReference::partial(marks, relation.table()));
                Transformed::yes(Expr::Column(Column { relation, name, spans }))
            }
            other => Transformed::no(other),
        })
    });
    result.map_or(resolved, |marked| marked.data)
}

/// An expression without marks: whatever row it is of, and whether or not that is there.
pub(super) fn unmarked(resolved: &Expr) -> Expr {
    let result = resolved.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(Column { relation: Some(relation), name, spans }) => {
                let relation = Some(TableReference::bare(relation.table()));
                Transformed::yes(Expr::Column(Column { relation, name, spans }))
            }
            other => Transformed::no(other),
        })
    });
    result.map_or_else(|_infallible| resolved.clone(), |unmarked| unmarked.data)
}

/// One side of a FULL join as if it were there; `None` if it is none.
pub(super) fn as_if_present(resolved: &Expr) -> Option<Expr> {
    let mut is_side = true;
    let result = resolved.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(Column { relation: Some(relation), name, spans }) => {
                let marks = relation.schema().unwrap_or_default();
                is_side &= marks.ends_with(ONE_OF_TWO);
                let marks = marks.strip_suffix(ONE_OF_TWO).unwrap_or(marks);
                let relation = match marks.is_empty() {
                    true => TableReference::bare(relation.table()),
                    false => TableReference::partial(marks, relation.table()),
                };
                Transformed::yes(Expr::Column(Column { relation: Some(relation), name, spans }))
            }
            other => Transformed::no(other),
        })
    });
    result.ok().map(|present| present.data).filter(|_| is_side)
}

/// The two instants of which one stands for the other where that is absent, after a FULL join.
pub(super) fn sides_of(resolved: &Expr) -> Option<[&Expr; 2]> {
    let sides = match resolved {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "coalesce" => match &args[..] {
            [first, second] => [first, second],
            _ => return None,
        },
        // The same as the optimiser writes it.
        Expr::Case(case) => match (&case.expr, &case.when_then_expr[..], &case.else_expr) {
            (None, [(when, then)], Some(other)) if **when == then.as_ref().clone().is_not_null() => [&**then, &**other],
            _ => return None,
        },
        _ => return None,
    };
    are_two_sides(sides[0], sides[1]).then_some(sides)
}

/// Whether two instants are those of the two sides of a FULL join.
fn are_two_sides(a: &Expr, b: &Expr) -> bool {
    let of_second = |expr: &Expr| {
        expr.column_refs().iter().all(|column| {
            column.relation.as_ref().and_then(|of| of.schema()).is_some_and(|marks| marks.ends_with("2*"))
        })
    };
    of_second(a) != of_second(b)
}

fn time_column_of(source: &StreamSource) -> Expr {
    Expr::Column(Column::new(Some(source.stream.name.clone()), source.stream.event_time.clone()))
}

/// An expression with `other` in place of a part of it.
pub(super) fn with(whole: &Expr, part: &Expr, other: &Expr) -> Expr {
    let replaced = whole.clone().transform_down(|expr| {
        Ok(match expr == *part {
            true => Transformed::new(other.clone(), true, TreeNodeRecursion::Jump),
            false => Transformed::no(expr),
        })
    });
    replaced.map_or_else(|_infallible| whole.clone(), |replaced| replaced.data)
}

/// The beginning and end of a session say what they are the session of; other window functions are opaque.
pub(super) fn resolve_over(window: &Window, expr: &Expr) -> Expr {
    match expr.clone().unalias() {
        Expr::WindowFunction(mut function) if is_session(&function) => {
            let args = &mut function.params.args;
            args.iter_mut().for_each(|arg| *arg = resolve(&window.input, arg));
            Expr::WindowFunction(function)
        }
        other => Expr::Column(Column::new(Some(OVER), other.schema_name().to_string())),
    }
}

/// Whether a window function is one edge of a session.
pub(crate) fn is_session(function: &WindowFunction) -> bool {
    ["session_start", "session_end"].contains(&function.fun.name())
}

/// Whether a resolved expression is the event time of one of `streams`.
pub(crate) fn is_event_time(resolved: &Expr, streams: &[&StreamSource]) -> bool {
    let Expr::Column(column) = resolved else { return false };
    streams.iter().any(|source| {
        column.name == source.stream.event_time
            && column.relation.as_ref().is_some_and(|relation| {
                relation.table() == source.stream.name
                    && !relation.schema().is_some_and(|marks| marks.contains([ABSENT, ONE_OF_TWO]))
            })
    })
}

/// How far a resolved instant may lie behind the watermark: once the watermark is `w`, no row to come has it below
/// `w - lag`, in microseconds. `None` if it is no function of the event time that we know.
pub(crate) fn lag_us(resolved: &Expr, streams: &[&StreamSource]) -> Option<i64> {
    if is_event_time(resolved, streams) {
        return Some(0);
    }
    match resolved {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            lag_us(left, streams)?.checked_sub(interval_us(right)?)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            lag_us(left, streams)?.checked_add(interval_us(right)?)
        }
        _ if let Some(ways) = ways_of(resolved) => {
            let lags = ways.iter().map(|way| lag_us(way, streams));
            lags.collect::<Option<Vec<i64>>>()?.into_iter().max()
        }
        // The time of whichever side of a FULL join is there.
        _ if let Some([first, second]) = sides_of(resolved) => {
            let lag_us = |side: &Expr| lag_us(&as_if_present(side)?, streams);
            Some(lag_us(first)?.max(lag_us(second)?))
        }
        // A session that is not over yet ends after the watermark; when it began nobody knows.
        Expr::WindowFunction(function) if function.fun.name() == "session_end" => {
            lag_us(function.params.args.first()?, streams)?.checked_sub(1)
        }
        _ => time_bin_of(resolved, streams).map(|bin| bin.lag_us),
    }
}

/// How far a resolved instant may lie ahead of the event time that it is computed from, microseconds.
pub(crate) fn lead_us(resolved: &Expr, streams: &[&StreamSource]) -> Option<i64> {
    if is_event_time(resolved, streams) {
        return Some(0);
    }
    match resolved {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            lead_us(left, streams)?.checked_add(interval_us(right)?)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            lead_us(left, streams)?.checked_sub(interval_us(right)?)
        }
        _ if let Some(ways) = ways_of(resolved) => {
            let leads = ways.iter().map(|way| lead_us(way, streams));
            leads.collect::<Option<Vec<i64>>>()?.into_iter().max()
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let bin = time_bin_of(resolved, streams)?;
            let time = if ["date_bin", "local_bin_end", "local_bin_start"].contains(&func.name()) { 1 } else { 2 };
            let by_end = ["cumulate_ends", "cumulate_pane", "local_bin_end"].contains(&func.name());
            lead_us(args.get(time)?, streams)?.checked_add(if by_end { bin.size_us } else { 0 })
        }
        _ => None,
    }
}

/// The bin that a resolved expression is, if it is `date_bin(fixed interval, instant[, literal])`.
pub(crate) fn time_bin_of(resolved: &Expr, streams: &[&StreamSource]) -> Option<TimeBin> {
    let Some(grid) = Grid::of(resolved) else { return other_bin_of(resolved, streams) };
    let mut below = grid.time;
    // A bin of bins on a grid that divides it is the bin of what they bin.
    while let Some(inner) = Grid::of(below).filter(|inner| grid.is_divided_by(inner)) {
        below = inner.time;
    }
    let lag_us = lag_us(below, streams)?.checked_add(grid.size_us)?.checked_sub(1)?;
    Some(TimeBin { size_us: grid.size_us, expr: resolved.clone(), lag_us })
}

/// The windows of HOP by their start, those of CUMULATE and of local time by their end.
fn other_bin_of(resolved: &Expr, streams: &[&StreamSource]) -> Option<TimeBin> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = resolved else { return None };
    let bin = |size_us: i64, lag_us: i64| Some(TimeBin { size_us, expr: resolved.clone(), lag_us });
    match func.name() {
        "hop_starts" | "hop_pane" => {
            let size_us = interval_us(args.get(1)?)?;
            bin(size_us, lag_us(args.get(2)?, streams)?.checked_add(size_us)?.checked_sub(1)?)
        }
        "cumulate_ends" | "cumulate_pane" => {
            bin(interval_us(args.get(1)?)?, lag_us(args.get(2)?, streams)?.checked_sub(1)?)
        }
        "local_bin_end" => bin(local_size_us(args.first()?)?, lag_us(args.get(1)?, streams)?.checked_sub(1)?),
        "local_bin_start" => {
            let size_us = local_size_us(args.first()?)?;
            bin(size_us, lag_us(args.get(1)?, streams)?.checked_add(size_us)?)
        }
        _ => None,
    }
}

/// The longest that so many local days or months can be, microseconds.
fn local_size_us(expr: &Expr) -> Option<i64> {
    const HOUR_US: i64 = 3_600_000_000;
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(size)), _) = expr else { return None };
    let days = i64::from(size.months).checked_mul(31)?.checked_add(i64::from(size.days))?;
    days.checked_mul(24 * HOUR_US)?.checked_add(3 * HOUR_US)
}

/// The equal intervals that a `date_bin` puts instants into.
struct Grid<'a> {
    size_us: i64,
    origin_us: Option<i64>,
    time: &'a Expr,
}

impl<'a> Grid<'a> {
    fn of(resolved: &'a Expr) -> Option<Self> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = resolved else { return None };
        if func.name() != "date_bin" {
            return None;
        }
        let size_us = interval_us(args.first()?)?;
        let origin_us = match args.get(2) {
            None => Some(0),
            Some(origin) if is_constant(origin) => instant_us(origin),
            Some(_) => return None,
        };
        (size_us > 0).then_some(Self { size_us, origin_us, time: args.get(1)? })
    }

    /// Whether every edge of this grid is an edge of the other.
    fn is_divided_by(&self, inner: &Self) -> bool {
        let distance_us = self.origin_us.zip(inner.origin_us).map(|(a, b)| a.wrapping_sub(b));
        self.size_us % inner.size_us == 0 && distance_us.is_some_and(|distance_us| distance_us % inner.size_us == 0)
    }
}

/// The bin `expr` as a function of a finer `bin` of the same instants, which `finer` stands for.
pub(crate) fn as_bin_of(expr: &Expr, bin: &TimeBin, finer: Expr) -> Option<Expr> {
    let (grid, of_bin) = (Grid::of(expr)?, Grid::of(&bin.expr)?);
    if grid.time != of_bin.time || !grid.is_divided_by(&of_bin) {
        return None;
    }
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let mut args = args.clone();
    args[1] = finer;
    Some(Expr::ScalarFunction(ScalarFunction { func: Arc::clone(func), args }))
}

/// The microseconds of an instant literal; `None` for one that is computed.
pub(crate) fn instant_us(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&event_time_type()).ok()? {
            ScalarValue::TimestampMicrosecond(us, _) => us,
            _ => None,
        },
        Expr::Cast(cast) => instant_us(&cast.expr),
        _ => None,
    }
}

fn is_constant(expr: &Expr) -> bool {
    expr.column_refs().is_empty() && !expr.is_volatile()
}

/// All bins inside a resolved expression, outer ones first.
pub(crate) fn find_time_bins(resolved: &Expr, streams: &[&StreamSource]) -> Vec<TimeBin> {
    let mut found = Vec::new();
    let walked = resolved.apply(|expr| {
        found.extend(time_bin_of(expr, streams));
        // What a session is made of says nothing of when it is over; no group is of only one way.
        let opaque = matches!(expr, Expr::WindowFunction(_)) || ways_of(expr).is_some();
        Ok(if opaque { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walked.is_ok(), "walking an expression does not fail");
    found
}

/// An interval literal of so many microseconds.
pub(crate) fn interval(us: i64) -> Expr {
    lit(ScalarValue::new_interval_mdn(0, 0, us.saturating_mul(1_000)))
}

/// The microseconds of an interval literal without months.
pub(crate) fn interval_us(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => crate::functions::interval_us(value),
        _ => None,
    }
}
