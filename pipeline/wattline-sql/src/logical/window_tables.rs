//! Window table functions in FROM: `TUMBLE`, `HOP`, `CUMULATE`, `SESSION`.
//!
//! | call | windows |
//! |---|---|
//! | `TUMBLE(table, time, size [, origin])` | one after the other, all of one size |
//! | `TUMBLE(table, time, size, 'zone' [, first_date])` | local days or months of a time zone |
//! | `HOP(table, time, slide, size [, origin])` | one of `size` begins every `slide`; a row is in each that holds it |
//! | `CUMULATE(table, time, step, size [, origin])` | those of `size`, and their beginnings in steps |
//! | `SESSION(table, time, gap [, key …])` | a key's rows without a pause of `gap` |
//!
//! Each gives all columns of the table, `window_start` and `window_end`, half-open. They are plain projections over
//! functions that also run in batch, with an UNNEST where a row is in several windows and window functions for sessions.
//! Planned from the syntax tree, so that the first argument may be a stream, a rule, a common table expression or a
//! subquery, and the second any column.
//!
//! Windows whose size differs (CUMULATE, local time) are computed by their end, from which their beginning follows: the end
//! says when they are final.

use datafusion::common::{Column, Diagnostic, ScalarValue, Span, plan_datafusion_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowUDF, lit};
use datafusion::prelude::col;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, Spanned, TableFactor,
};
use datafusion::sql::sqlparser::tokenizer;

use crate::functions::{
    check_local_windows, cumulate_ends, date_bin, hop_starts, local_bin_end, local_bin_start, session_end,
    session_start,
};

/// Stands between what is wrong and what to write in the messages of this module.
pub(super) const WINDOW_TABLE_HELP: &str = ": instead, ";

const START: &str = "window_start";
const END: &str = "window_end";

#[derive(Debug)]
pub(super) struct WindowTablePlanner;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WindowTable {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl WindowTable {
    fn of(name: &ObjectName) -> Option<Self> {
        let [ObjectNamePart::Identifier(name)] = &name.0[..] else { return None };
        match name.value.to_ascii_lowercase().as_str() {
            "tumble" => Some(Self::Tumble),
            "hop" => Some(Self::Hop),
            "cumulate" => Some(Self::Cumulate),
            "session" => Some(Self::Session),
            _ => None,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => "write `TUMBLE(stream, ts, INTERVAL '10 minutes')`",
            Self::Hop => "write `HOP(stream, ts, INTERVAL '5 minutes', INTERVAL '10 minutes')`, slide before size",
            Self::Cumulate => "write `CUMULATE(stream, ts, INTERVAL '1 hour', INTERVAL '1 day')`, step before size",
            Self::Session => "write `SESSION(stream, ts, INTERVAL '30 minutes', meter_id)`",
        }
    }

    fn wrong(self, what: impl std::fmt::Display) -> DataFusionError {
        plan_datafusion_err!("{what}{WINDOW_TABLE_HELP}{}", self.usage())
    }
}

impl RelationPlanner for WindowTablePlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let span = relation.span();
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } if WindowTable::of(&name).is_some() => {
                let table = WindowTable::of(&name).unwrap_or(WindowTable::Tumble);
                let plan = plan_table(table, args.args, context).map_err(|error| placed(error, span))?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation { plan, alias })))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// The mistake with the place of its relation in the text.
pub(super) fn placed(error: DataFusionError, span: tokenizer::Span) -> DataFusionError {
    match error {
        DataFusionError::Plan(_) => {
            let message = error.to_string();
            error.with_diagnostic(Diagnostic::new_error(message, Span::try_from_sqlparser_span(span)))
        }
        other => other,
    }
}

fn plan_table(
    table: WindowTable,
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let mut exprs = Vec::with_capacity(args.len());
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr),
            other => return Err(table.wrong(format_args!("`{other}` is no argument of a window"))),
        }
    }
    let mut exprs = exprs.into_iter();
    let (Some(source), Some(time)) = (exprs.next(), exprs.next()) else {
        return Err(table.wrong("a window takes a table, its event time and an interval"));
    };
    let input = context.plan(table_factor(table, source)?)?;
    if let Some(taken) = input.schema().fields().iter().find(|field| [START, END].contains(&field.name().as_str())) {
        let name = taken.name();
        return Err(plan_datafusion_err!(
            "the table already has a column `{name}`{WINDOW_TABLE_HELP}give it another name in a subquery: `SELECT {name} AS inner_{name}, …`"
        ));
    }
    let time = context.sql_to_expr(time, input.schema())?;
    let rest = exprs.map(|expr| context.sql_to_expr(expr, input.schema())).collect::<Result<Vec<_>>>()?;
    match (table, &rest[..]) {
        (WindowTable::Tumble, [size, zone, first @ ..]) if is_text(zone) && first.len() <= 1 => {
            local_windows(input, time, literal(table, size)?, zone, first)
        }
        (WindowTable::Tumble, [size, origin @ ..]) if origin.len() <= 1 => {
            tumble(input, time, literal(table, size)?, origin)
        }
        (WindowTable::Hop, [slide, size, origin @ ..]) if origin.len() <= 1 => {
            hop(input, time, literal(table, slide)?, literal(table, size)?, origin)
        }
        (WindowTable::Cumulate, [step, size, origin @ ..]) if origin.len() <= 1 => {
            cumulate(input, time, literal(table, step)?, literal(table, size)?, origin)
        }
        (WindowTable::Session, [gap, keys @ ..]) => session(input, &time, literal(table, gap)?, keys),
        _ => Err(table.wrong("these are not the arguments of the window")),
    }
}

fn literal(table: WindowTable, expr: &Expr) -> Result<&Expr> {
    match expr {
        Expr::Literal(value, _) if value.data_type().is_numeric() => {
            Err(table.wrong(format_args!("`{value}` is a number and no interval")))
        }
        Expr::Literal(..) => Ok(expr),
        other => Err(table.wrong(format_args!("`{other}` is no interval literal"))),
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)), _))
}

fn columns_of(input: &LogicalPlan) -> Vec<Expr> {
    input.schema().columns().into_iter().map(Expr::Column).collect()
}

/// All columns, `window_start` as it is, and `window_end` behind it.
fn with_end(input: LogicalPlan, columns: &[Expr], size: &Expr) -> Result<LogicalPlan> {
    let end = (col(START) + size.clone()).alias(END);
    LogicalPlanBuilder::from(input).project(columns.iter().cloned().chain([col(START), end]))?.build()
}

/// All columns, `window_start` computed from an instant just before the end, and `window_end` as it is.
fn with_start(input: LogicalPlan, columns: &[Expr], start: impl FnOnce(Expr) -> Expr) -> Result<LogicalPlan> {
    let within = col(END) - lit(ScalarValue::new_interval_mdn(0, 0, 1_000));
    let start = start(within).alias(START);
    LogicalPlanBuilder::from(input).project(columns.iter().cloned().chain([start, col(END)]))?.build()
}

fn tumble(input: LogicalPlan, time: Expr, size: &Expr, origin: &[Expr]) -> Result<LogicalPlan> {
    let columns = columns_of(&input);
    let start = date_bin().call([vec![size.clone(), time], origin.to_vec()].concat()).alias(START);
    let binned = LogicalPlanBuilder::from(input).project(columns.iter().cloned().chain([start]))?.build()?;
    with_end(binned, &columns, size)
}

fn local_windows(input: LogicalPlan, time: Expr, size: &Expr, zone: &Expr, first: &[Expr]) -> Result<LogicalPlan> {
    let literals = [Some(size), Some(zone), first.first()].map(|expr| match expr {
        Some(Expr::Literal(value, _)) => Some(value),
        _ => None,
    });
    if let [Some(size), Some(zone), first] = literals {
        check_local_windows(size, zone, first).map_err(|error| {
            plan_datafusion_err!(
                "{}{WINDOW_TABLE_HELP}write `TUMBLE(stream, ts, INTERVAL '1 day', 'Europe/Berlin')`",
                error.message()
            )
        })?;
    }
    let columns = columns_of(&input);
    let args = |instant: Expr| [vec![size.clone(), instant, zone.clone()], first.to_vec()].concat();
    let end = local_bin_end().call(args(time)).alias(END);
    let binned = LogicalPlanBuilder::from(input).project(columns.iter().cloned().chain([end]))?.build()?;
    with_start(binned, &columns, |within| local_bin_start().call(args(within)))
}

fn hop(input: LogicalPlan, time: Expr, slide: &Expr, size: &Expr, origin: &[Expr]) -> Result<LogicalPlan> {
    let columns = columns_of(&input);
    let starts = hop_starts().call([vec![slide.clone(), size.clone(), time], origin.to_vec()].concat()).alias(START);
    let listed = LogicalPlanBuilder::from(input).project(columns.iter().cloned().chain([starts]))?;
    let unnested = listed.unnest_column(Column::new_unqualified(START))?.build()?;
    with_end(unnested, &columns, size)
}

fn cumulate(input: LogicalPlan, time: Expr, step: &Expr, size: &Expr, origin: &[Expr]) -> Result<LogicalPlan> {
    let columns = columns_of(&input);
    let ends = cumulate_ends().call([vec![step.clone(), size.clone(), time], origin.to_vec()].concat()).alias(END);
    let listed = LogicalPlanBuilder::from(input).project(columns.iter().cloned().chain([ends]))?;
    let unnested = listed.unnest_column(Column::new_unqualified(END))?.build()?;
    with_start(unnested, &columns, |within| date_bin().call([vec![size.clone(), within], origin.to_vec()].concat()))
}

fn session(input: LogicalPlan, time: &Expr, gap: &Expr, keys: &[Expr]) -> Result<LogicalPlan> {
    let columns = columns_of(&input);
    let edge = |function: WindowUDF, name: &str| {
        let call = WindowFunction::new(std::sync::Arc::new(function), vec![time.clone(), gap.clone()]);
        let call =
            Expr::from(call).partition_by(keys.to_vec()).order_by(vec![time.clone().sort(true, false)]).build()?;
        Ok::<_, DataFusionError>(call.alias(name))
    };
    let edges = vec![edge(session_start(), START)?, edge(session_end(), END)?];
    LogicalPlanBuilder::from(input).window(edges)?.project(columns.into_iter().chain([col(START), col(END)]))?.build()
}

fn table_factor(table: WindowTable, expr: ast::Expr) -> Result<TableFactor> {
    let name = match expr {
        ast::Expr::Identifier(ident) => vec![ident],
        ast::Expr::CompoundIdentifier(parts) => parts,
        ast::Expr::Subquery(subquery) => {
            return Ok(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None });
        }
        other => return Err(table.wrong(format_args!("`{other}` is no table"))),
    };
    Ok(TableFactor::Table {
        name: ObjectName(name.into_iter().map(ObjectNamePart::Identifier).collect()),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    })
}
