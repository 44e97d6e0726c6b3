//! Shapes of query that are refused from the syntax alone, each with its place and what to write instead.
//!
//! A rule's state must stay bounded and its result must not depend on the order or the moment of arrival.
//! Whatever cannot promise that is refused here or, where only the plan knows, in the planner.

use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArguments, ObjectName, Query, SetExpr, SetOperator, SetQuantifier, Spanned,
    Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::diagnostic::{Diagnostic, code};
use crate::functions::running_functions;
use crate::logical::span_in;
use crate::rule_file::{RuleFile, RuleKind};

/// Functions of the clock; DataFusion calls them stable, as they are within one batch query.
const CLOCK: [&str; 7] =
    ["now", "current_timestamp", "current_date", "current_time", "today", "localtime", "localtimestamp"];
/// Aggregates whose result depends on the order of their input.
const ORDERED: [&str; 5] = ["first_value", "last_value", "nth_value", "array_agg", "string_agg"];

/// All refusals that the syntax tree of one rule shows.
pub(crate) fn check_syntax(query: &Query, kind: RuleKind, file: &RuleFile, session: &SessionState) -> Vec<Diagnostic> {
    let mut check = SyntaxCheck { kind, file, session, diagnostics: Vec::new() };
    let _continued = query.visit(&mut check);
    check.diagnostics
}

struct SyntaxCheck<'a> {
    kind: RuleKind,
    file: &'a RuleFile,
    session: &'a SessionState,
    diagnostics: Vec<Diagnostic>,
}

impl SyntaxCheck<'_> {
    fn refuse(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: &str) {
        let span = span_in(&self.file.text, span);
        self.diagnostics.push(Diagnostic::error(code, &self.file.path, message).at(span).help(help));
    }

    fn check_function(&mut self, function: &Function, span: Span) {
        let name = last_name(&function.name);
        let ordered_inside = match &function.args {
            FunctionArguments::List(list) => list
                .clauses
                .iter()
                .any(|clause| matches!(clause, datafusion::sql::sqlparser::ast::FunctionArgumentClause::OrderBy(_))),
            FunctionArguments::None | FunctionArguments::Subquery(_) => false,
        };
        let volatile = self
            .session
            .scalar_functions()
            .get(&name)
            .is_some_and(|function| function.signature().volatility == Volatility::Volatile);
        if volatile || CLOCK.contains(&name.as_str()) {
            self.refuse(
                code::VOLATILE,
                span,
                format!("`{name}` gives another value on every call, so no run could be repeated"),
                "use the event time of the stream, or a parameter from the header",
            );
        }
        if self.kind == RuleKind::Alert && name.starts_with("approx_") {
            self.refuse(
                code::APPROXIMATE,
                span,
                format!("`{name}` is approximate, and an alert must not depend on an estimate"),
                "use the exact aggregate (`count(DISTINCT x)`, `median(x)`, `percentile_cont(0.95) WITHIN GROUP (ORDER BY x)`), or make it a table rule",
            );
        }
        if running_functions().any(|running| running == name) && function.over.is_none() {
            self.refuse(
                code::ORDER_SENSITIVE,
                span,
                format!("`{name}` follows the rows of one key in the order of time"),
                "write `ewma(x, 0.2) OVER (PARTITION BY meter_id ORDER BY ts)`",
            );
        }
        if ORDERED.contains(&name.as_str()) && function.over.is_none() {
            self.check_ordered(&name, ordered_inside || !function.within_group.is_empty(), span);
        }
    }

    fn check_ordered(&mut self, name: &str, ordered: bool, span: Span) {
        if name == "nth_value" {
            self.refuse(
                code::ORDER_SENSITIVE,
                span,
                format!("`{name}` depends on the order in which lanes deliver events"),
                "use `first_value(x ORDER BY ts)`, or `nth_value(x, 2) OVER (…)`",
            );
        } else if !ordered {
            self.refuse(
                code::ORDER_SENSITIVE,
                span,
                format!("`{name}` without ORDER BY depends on the order in which lanes deliver events"),
                "write the order inside: `array_agg(x ORDER BY ts)`",
            );
        }
    }
}

/// Whether the order says which row of each DISTINCT ON is meant, and not how the result is sorted.
fn picks_by_order(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if matches!(select.distinct, Some(Distinct::On(_))))
}

impl Visitor for SyntaxCheck<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(order_by) = query.order_by.as_ref().filter(|_| !picks_by_order(query)) {
            self.refuse(
                code::ORDER_BY,
                order_by.span(),
                "ORDER BY needs all rows, and a stream never ends",
                "remove it: results are tables, order them when you query them",
            );
        }
        if query.limit_clause.is_some() || query.fetch.is_some() {
            let span = query.limit_clause.as_ref().map_or_else(|| query.span(), Spanned::span);
            self.refuse(
                code::LIMIT,
                span,
                "LIMIT, OFFSET and FETCH need an end, and a stream never ends",
                "filter with WHERE, or HAVING in a window",
            );
        }
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            self.refuse(
                code::UNSUPPORTED,
                with.span(),
                "a recursive query has no bound on a stream",
                "write it without RECURSIVE",
            );
        }
        match query.body.as_ref() {
            SetExpr::Select(_) | SetExpr::Query(_) => {}
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, .. } => {}
            SetExpr::SetOperation { op, .. } => self.refuse(
                code::SET_OPERATION,
                query.body.span(),
                format!("{op} of queries is not kept up to date on a stream"),
                "write UNION ALL, and SELECT DISTINCT in a window around it; or a join with EXISTS or NOT EXISTS",
            ),
            other => {
                let span = other.span();
                self.refuse(code::UNSUPPORTED, span, "a rule is a SELECT", "write `SELECT … FROM stream`");
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.check_function(function, expr.span());
        }
        ControlFlow::Continue(())
    }
}

fn last_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}
