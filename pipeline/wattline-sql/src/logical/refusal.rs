//! A shape of query that is refused, before it is known where in the file it stands.
//!
//! Checks on a logical plan know the operator, not the text; the syntax tree knows the places. A [`Refusal`]
//! names an [`Anchor`], and [`Anchors`] (collected once per query) turns it into a byte range.

use std::ops::{ControlFlow, Range};

use datafusion::common::Span as PlanSpan;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr, Spanned, TableFactor, Visit,
    Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::diagnostic::{Diagnostic, byte_offset};
use crate::rule_file::RuleFile;

/// A refused shape.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: String,
    pub(crate) anchor: Anchor,
}

/// What a refusal is about.
#[derive(Debug, Clone)]
pub(crate) enum Anchor {
    /// The select list and all after it.
    Query,
    /// The first table.
    From,
    /// The join at which this table name or alias is brought in, else the first join.
    Join(Option<String>),
    /// GROUP BY, else the first aggregate.
    Group,
    /// The first window function of that name, else the first of any.
    Over(Option<String>),
    /// The first subquery outside FROM.
    Subquery,
    /// The output column of that name, or else at that position of the select list.
    Output(String, usize),
}

impl Refusal {
    pub(crate) fn new(code: &'static str, anchor: Anchor, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), anchor }
    }

    pub(crate) fn into_diagnostic(self, file: &RuleFile, anchors: &Anchors) -> Diagnostic {
        Diagnostic::error(self.code, &file.path, self.message).at(anchors.place(&self.anchor)).help(self.help)
    }
}

/// The places of a query's clauses.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    query: Option<Range<usize>>,
    from: Option<Range<usize>>,
    joins: Vec<(String, Range<usize>)>,
    group: Option<Range<usize>>,
    over: Vec<(String, Range<usize>)>,
    subquery: Option<Range<usize>>,
    /// Subqueries in ON.
    in_on: Vec<Range<usize>>,
    outputs: Vec<(String, Range<usize>)>,
}

struct Collector<'a> {
    text: &'a str,
    anchors: &'a mut Anchors,
}

impl Visitor for Collector<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.anchors.add_select(select, self.text);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Exists { subquery, .. } | Expr::InSubquery { subquery, .. } | Expr::Subquery(subquery) = expr {
            let place = span_in(self.text, subquery.span());
            self.anchors.subquery = self.anchors.subquery.take().or(place);
        }
        if let Expr::Function(function) = expr
            && function.over.is_some()
            && let Some(span) = span_in(self.text, expr.span())
        {
            self.anchors.over.push((function.name.to_string().to_lowercase(), span));
        }
        ControlFlow::Continue(())
    }
}

fn condition_of(join: &JoinOperator) -> Option<&Expr> {
    use JoinOperator::{
        Anti, FullOuter, Inner, Join, Left, LeftAnti, LeftOuter, LeftSemi, Right, RightAnti, RightOuter, RightSemi,
        Semi,
    };
    match join {
        Join(on) | Inner(on) | Left(on) | LeftOuter(on) | Right(on) | RightOuter(on) | FullOuter(on) | Semi(on)
        | LeftSemi(on) | RightSemi(on) | Anti(on) | LeftAnti(on) | RightAnti(on) => match on {
            JoinConstraint::On(condition) => Some(condition),
            _ => None,
        },
        _ => None,
    }
}

impl Anchors {
    pub(crate) fn of(query: &Query, text: &str) -> Self {
        let mut anchors = Self { query: span_in(text, query.span()), ..Self::default() };
        let _continued = query.visit(&mut Collector { text, anchors: &mut anchors });
        if let SetExpr::Select(select) = query.body.as_ref() {
            anchors.add_outputs(select, text);
        }
        anchors
    }

    /// Whether a place is within a subquery in ON.
    pub(crate) fn is_in_on(&self, place: &Range<usize>) -> bool {
        self.in_on.iter().any(|subquery| subquery.start <= place.start && place.end <= subquery.end)
    }

    fn add_select(&mut self, select: &Select, text: &str) {
        let from = select.from.first().and_then(|from| span_in(text, from.relation.span()));
        self.from = self.from.take().or(from);
        for from in &select.from {
            let joined = from.joins.iter().map(|join| &join.relation);
            for relation in std::iter::once(&from.relation).chain(joined) {
                if let Some(span) = span_in(text, relation.span()) {
                    self.joins.push((name_of(relation), span));
                }
            }
            for condition in from.joins.iter().filter_map(|join| condition_of(&join.join_operator)) {
                let mut within = Self::default();
                let mut collector = Collector { text, anchors: &mut within };
                let _continued = condition.visit(&mut collector);
                self.in_on.extend(within.subquery);
            }
        }
        if let GroupByExpr::Expressions(exprs, _) = &select.group_by
            && !exprs.is_empty()
        {
            let span = span_in(text, Span::union_iter(exprs.iter().map(Spanned::span)));
            self.group = self.group.take().or(span);
        }
    }

    fn add_outputs(&mut self, select: &Select, text: &str) {
        for item in &select.projection {
            let (name, span) = match item {
                SelectItem::ExprWithAlias { expr: _, alias } => (alias.value.clone(), item.span()),
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => (name.value.clone(), item.span()),
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                    (parts.last().map(|part| part.value.clone()).unwrap_or_default(), item.span())
                }
                _ => (item.to_string(), item.span()),
            };
            if let Some(span) = span_in(text, span) {
                self.outputs.push((name.to_lowercase(), span));
            }
        }
    }

    pub(crate) fn place(&self, anchor: &Anchor) -> Option<Range<usize>> {
        let found = match anchor {
            Anchor::Query => None,
            Anchor::From => self.from.clone(),
            Anchor::Join(name) => name
                .as_ref()
                .and_then(|name| self.joins.iter().rev().find(|(joined, _)| joined == name))
                .or_else(|| self.joins.get(1))
                .map(|(_, span)| span.clone()),
            Anchor::Group => self.group.clone(),
            Anchor::Over(name) => {
                let named = self.over.iter().find(|(of, _)| name.as_ref() == Some(of));
                named.or_else(|| self.over.first()).map(|(_, span)| span.clone())
            }
            Anchor::Subquery => self.subquery.clone(),
            Anchor::Output(name, at) => {
                let named = self.outputs.iter().find(|(output, _)| output == name);
                named.or_else(|| self.outputs.get(*at)).map(|(_, span)| span.clone())
            }
        };
        found.or_else(|| self.from.clone()).or_else(|| self.query.clone())
    }
}

fn name_of(relation: &TableFactor) -> String {
    let (name, alias) = match relation {
        TableFactor::Table { name, alias, .. } => (name.to_string(), alias.as_ref()),
        TableFactor::Derived { alias, .. } => (String::new(), alias.as_ref()),
        _ => (String::new(), None),
    };
    alias.map_or(name, |alias| alias.name.value.clone()).to_lowercase()
}

/// The byte range of a syntax tree's span; `None` if the parser left it empty.
pub(crate) fn span_in(text: &str, span: Span) -> Option<Range<usize>> {
    let start = byte_offset(text, span.start.line, span.start.column)?;
    let end = byte_offset(text, span.end.line, span.end.column)?;
    Some(balance(text, start..end.max(start)))
}

/// The byte range of a planner's span.
pub(crate) fn plan_span_in(text: &str, span: PlanSpan) -> Option<Range<usize>> {
    let start = byte_offset(text, span.start.line, span.start.column)?;
    let end = byte_offset(text, span.end.line, span.end.column)?;
    Some(balance(text, start..end.max(start)))
}

/// Widens a range to the parentheses that belong to it: the parser's spans leave out a call's closing one, a
/// subquery's opening one, the word CAST, and all arguments of a table function.
pub(super) fn balance(text: &str, mut range: Range<usize>) -> Range<usize> {
    let called = text[range.end..].starts_with('(');
    let depth = |range: &Range<usize>| {
        text[range.clone()].chars().fold((0_i32, 0_i32), |(depth, lowest), c| {
            let depth = depth + i32::from(c == '(') - i32::from(c == ')');
            (depth, lowest.min(depth))
        })
    };
    if called {
        range.end += 1;
    }
    let (mut open, lowest) = depth(&range);
    if lowest < 0
        && let Some(before) = text[..range.start].rfind('(')
        && text[before + 1..range.start].trim().is_empty()
    {
        let name = text[..before].trim_end_matches(|c: char| c.is_alphanumeric() || c == '_');
        range.start = name.len();
        open += 1;
    }
    if open > 0 {
        for (at, c) in text[range.end..].char_indices() {
            open += i32::from(c == '(') - i32::from(c == ')');
            if open == 0 {
                return range.start..range.end + at + 1;
            }
        }
    }
    range
}
