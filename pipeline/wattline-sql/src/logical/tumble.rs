//! `TUMBLE(table, time, INTERVAL '…' [, origin])` as a table factor.
//!
//! It is a projection: all columns of the table, `window_start = date_bin(interval, time, origin)` and
//! `window_end = window_start + interval`, both half-open bounds. Planned from the syntax tree, so that the
//! first argument may be a stream, a rule, a common table expression or a subquery, and the second a column.

use datafusion::common::{Diagnostic, Span, plan_datafusion_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::col;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, Spanned, TableFactor,
};

use crate::functions::date_bin;

/// Stands between what is wrong and what to write in the messages of this module.
pub(super) const TUMBLE_HELP: &str = ": instead, ";
const USAGE: &str = "write `TUMBLE(stream, ts, INTERVAL '10 minutes')`";

#[derive(Debug)]
pub(super) struct TumblePlanner;

impl RelationPlanner for TumblePlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let span = relation.span();
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } if is_tumble(&name) => {
                let plan = plan_tumble(args.args, context).map_err(|error| match error {
                    DataFusionError::Plan(_) => {
                        let message = error.to_string();
                        error.with_diagnostic(Diagnostic::new_error(message, Span::try_from_sqlparser_span(span)))
                    }
                    other => other,
                })?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation { plan, alias })))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn is_tumble(name: &ObjectName) -> bool {
    matches!(&name.0[..], [ObjectNamePart::Identifier(ident)] if ident.value.eq_ignore_ascii_case("tumble"))
}

fn plan_tumble(args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let mut exprs = Vec::with_capacity(args.len());
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr),
            other => return Err(plan_datafusion_err!("`{other}` is no argument of TUMBLE{TUMBLE_HELP}{USAGE}")),
        }
    }
    let mut exprs = exprs.into_iter();
    let (Some(table), Some(time), Some(size), origin, None) =
        (exprs.next(), exprs.next(), exprs.next(), exprs.next(), exprs.next())
    else {
        return Err(plan_datafusion_err!(
            "TUMBLE takes a table, its event time, an interval and perhaps an origin{TUMBLE_HELP}{USAGE}"
        ));
    };
    let input = context.plan(table_factor(table)?)?;
    let time = context.sql_to_expr(time, input.schema())?;
    let size = context.sql_to_expr(size, input.schema())?;
    if !matches!(size, Expr::Literal(..)) {
        return Err(plan_datafusion_err!("the third argument of TUMBLE is no interval literal{TUMBLE_HELP}{USAGE}"));
    }
    let mut bin_args = vec![size.clone(), time];
    if let Some(origin) = origin {
        bin_args.push(context.sql_to_expr(origin, input.schema())?);
    }
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let bin = date_bin().call(bin_args).alias("window_start");
    let end = (col("window_start") + size).alias("window_end");
    LogicalPlanBuilder::from(input)
        .project(columns.iter().cloned().chain([bin]))?
        .project(columns.iter().cloned().chain([col("window_start"), end]))?
        .build()
}

fn table_factor(expr: ast::Expr) -> Result<TableFactor> {
    let name = match expr {
        ast::Expr::Identifier(ident) => vec![ident],
        ast::Expr::CompoundIdentifier(parts) => parts,
        ast::Expr::Subquery(subquery) => {
            return Ok(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None });
        }
        other => return Err(plan_datafusion_err!("`{other}` is no table for TUMBLE{TUMBLE_HELP}{USAGE}")),
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
