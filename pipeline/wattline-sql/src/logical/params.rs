//! `$name` in the query becomes the value from the header, in the syntax tree and before planning.
//!
//! Replacing in the tree rather than binding plan parameters lets a parameter stand wherever a literal may
//! (also in `INTERVAL $window`), keeps its place for error messages, and makes the digits of the header the
//! digits of the literal.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Interval, Query, Spanned, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::refusal::span_in;
use crate::diagnostic::{Diagnostic, code, nearest};
use crate::rule_file::{ParamValue, RuleFile, RuleHeader};

/// Replaces all parameters; reports unknown ones as errors and unused ones as warnings.
pub(crate) fn replace_params(query: &mut Query, header: &RuleHeader, file: &RuleFile) -> Vec<Diagnostic> {
    let mut replacer = Replacer { header, file, used: BTreeSet::new(), diagnostics: Vec::new() };
    let _continued = VisitMut::visit(query, &mut replacer);
    let Replacer { used, mut diagnostics, .. } = replacer;
    for (name, param) in header.params.iter().filter(|(name, _)| !used.contains(*name)) {
        diagnostics.push(
            Diagnostic::warning(code::PARAM_UNUSED, &file.path, format!("the query does not use `${name}`"))
                .at(param.span.clone())
                .help(format!("write `${name}` where the value belongs, or remove it from `params`")),
        );
    }
    diagnostics
}

struct Replacer<'a> {
    header: &'a RuleHeader,
    file: &'a RuleFile,
    used: BTreeSet<String>,
    diagnostics: Vec<Diagnostic>,
}

impl Replacer<'_> {
    /// `INTERVAL 15` would be 15 seconds, which nobody means.
    fn refuse_bare_interval(&mut self, expr: &Expr) {
        let Expr::Interval(Interval { value, leading_field: None, .. }) = expr else { return };
        let Expr::Value(ValueWithSpan { value: Value::Placeholder(text), .. }) = value.as_ref() else { return };
        let name = text.trim_start_matches('$');
        let Some(param) = self.header.params.get(name) else { return };
        if let ParamValue::Number(digits) = &param.value {
            let message = format!("`INTERVAL ${name}` is of {digits}, without a unit");
            let mistake = Diagnostic::error(code::PARAM_UNIT, &self.file.path, message).at(param.span.clone());
            self.diagnostics.push(mistake.help(format!("write `{name} = \"{digits} minutes\"`, or what it is of")));
        }
    }
}

impl VisitorMut for Replacer<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.refuse_bare_interval(expr);
        let Expr::Value(ValueWithSpan { value: Value::Placeholder(text), .. }) = expr else {
            return ControlFlow::Continue(());
        };
        let name = text.trim_start_matches('$').to_owned();
        let Some(param) = self.header.params.get(&name) else {
            let help = nearest(&name, self.header.params.keys().map(String::as_str)).map_or_else(
                || format!("add it to the header: `params = {{ {name} = … }}`"),
                |right| format!("write `${right}`"),
            );
            let message = format!("there is no parameter `${name}`");
            self.diagnostics.push(
                Diagnostic::error(code::PARAM_UNKNOWN, &self.file.path, message)
                    .at(span_in(&self.file.text, expr.span()))
                    .help(help),
            );
            return ControlFlow::Continue(());
        };
        self.used.insert(name);
        let span = expr.span();
        let literal = |value| Expr::Value(ValueWithSpan { value, span });
        *expr = match &param.value {
            ParamValue::Text(text) => literal(Value::SingleQuotedString(text.clone())),
            ParamValue::Boolean(value) => literal(Value::Boolean(*value)),
            ParamValue::Number(digits) => match digits.strip_prefix('-') {
                None => literal(Value::Number(digits.clone(), false)),
                Some(positive) => Expr::Nested(Box::new(Expr::UnaryOp {
                    op: UnaryOperator::Minus,
                    expr: Box::new(literal(Value::Number(positive.to_owned(), false))),
                })),
            },
        };
        ControlFlow::Continue(())
    }
}
