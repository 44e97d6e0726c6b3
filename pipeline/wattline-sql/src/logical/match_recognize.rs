//! `MATCH_RECOGNIZE` in FROM.
//!
//! ```text
//! input ─▶ window function match_recognize[…](ts, inputs) OVER (PARTITION BY … ORDER BY ts) AS list of matches
//!       ─▶ UNNEST that list ─▶ projection: measures, and the columns of the partition (ONE ROW) or all columns (ALL ROWS)
//! ```
//! The expressions of DEFINE and MEASURES are taken apart before they are planned: what they say about rows of the match
//! (`a.price`, `last(b.ts)`, `prev(price)`, `count(b.*)`, `classifier()`) becomes a reference, the rest an expression over
//! references. Without a match a row has an empty list, so it leaves no row behind.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, plan_datafusion_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, WindowUDF};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::prelude::col;
use datafusion::sql::sqlparser::ast::{
    self, AfterMatchSkip, EmptyMatchesMode, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart,
    Spanned, TableFactor, VisitMut, VisitorMut,
};

use super::coercion::with_coercions;
use super::window_tables::placed;
use crate::functions::MatchRows;
use crate::pattern::bound::{TIME_INPUT, bound_of, limits_in};
use crate::pattern::{
    End, Formula, Program, Reference, RowPattern, RowReference, RowsPerMatch, Skip, Symbols, normalized,
};

/// Stands between what is wrong and what to write in the messages of this module.
pub(super) const PATTERN_HELP: &str = ": for a pattern, ";

/// The column that holds the matches until they are taken apart.
const MATCHES: &str = "__matches";
/// Stands in an expression for its reference of that number.
const REFERENCE: &str = "__of_match_";

#[derive(Debug)]
pub(super) struct PatternPlanner {
    session: Arc<SessionState>,
}

impl PatternPlanner {
    pub(super) fn new(session: Arc<SessionState>) -> Self {
        Self { session }
    }
}

fn wrong(what: impl std::fmt::Display, help: &str) -> DataFusionError {
    plan_datafusion_err!("{what}{PATTERN_HELP}{help}")
}

impl RelationPlanner for PatternPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let span = relation.span();
        let TableFactor::MatchRecognize {
            table,
            partition_by,
            order_by,
            measures,
            rows_per_match,
            after_match_skip,
            pattern,
            symbols: definitions,
            alias,
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let text = format!(
            "MEASURES {} {} {} PATTERN ({pattern}) DEFINE {}",
            comma_separated(&measures),
            rows_per_match.as_ref().unwrap_or(&ast::RowsPerMatch::OneRow),
            after_match_skip.as_ref().unwrap_or(&AfterMatchSkip::PastLastRow),
            comma_separated(&definitions),
        );
        let clauses = Clauses { text, measures, rows_per_match, after_match_skip, pattern, definitions };
        let plan = context.plan(*table).and_then(|input| {
            let partition = partition_by
                .into_iter()
                .map(|expr| context.sql_to_expr(expr, input.schema()))
                .collect::<Result<Vec<_>>>()?;
            let mut order = Vec::with_capacity(order_by.len());
            for by in order_by {
                let asc = by.options.asc.unwrap_or(true);
                let expr = context.sql_to_expr(by.expr, input.schema())?;
                order.push(expr.sort(asc, by.options.nulls_first.unwrap_or(!asc)));
            }
            plan_pattern(&self.session, input, partition, order, clauses, context)
        });
        let plan = plan.map_err(|error| placed(error, span))?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation { plan, alias })))
    }
}

fn comma_separated(parts: &[impl ToString]) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The clauses that say what a match is and what it gives.
struct Clauses {
    text: String,
    measures: Vec<ast::Measure>,
    rows_per_match: Option<ast::RowsPerMatch>,
    after_match_skip: Option<AfterMatchSkip>,
    pattern: ast::MatchRecognizePattern,
    definitions: Vec<ast::SymbolDefinition>,
}

fn plan_pattern(
    session: &SessionState,
    input: LogicalPlan,
    partition: Vec<Expr>,
    order: Vec<datafusion::logical_expr::SortExpr>,
    clauses: Clauses,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let Some(time) = order.first().filter(|first| first.asc).map(|first| first.expr.clone()) else {
        return Err(wrong(
            "a row pattern goes by the event time, and this one has no ascending ORDER BY",
            "write `ORDER BY ts` with the event time of the stream",
        ));
    };
    let (program, symbols) = Program::compile(&clauses.pattern).map_err(|(what, help)| wrong(what, help))?;
    let mut formulas = Formulas { session, context, input: &input, symbols: &symbols, inputs: vec![time.clone()] };

    let mut defines: Vec<Option<Formula>> = (0..symbols.len()).map(|_| None).collect();
    let mut limits = vec![Vec::new(); symbols.len()];
    for ast::SymbolDefinition { symbol: name, definition } in clauses.definitions {
        let Some(symbol) = symbols.position(&normalized(&name)) else {
            return Err(wrong(
                format_args!("DEFINE speaks of `{name}`, which PATTERN does not have"),
                "use the symbols of PATTERN",
            ));
        };
        let (condition, formula) = formulas.formula(definition)?;
        if formula.data_type()? != DataType::Boolean {
            return Err(wrong(format_args!("the condition of `{name}` is not true or false"), "write a comparison"));
        }
        let reference_of =
            |column: &str| formula.references.get(column.strip_prefix(REFERENCE)?.parse::<usize>().ok()?);
        limits[symbol] = limits_in(&condition, symbol, &reference_of);
        defines[symbol] = Some(formula);
    }
    let bound_us = bound_of(&program, &limits).map_err(|symbol| {
        let (name, time) = (&symbols.written()[symbol], written_time(&time));
        wrong(
            format_args!("nothing bounds how long after the first row of a match a row of `{name}` may come, so rows would be kept for ever"),
            &format!("add `{name}.{time} <= first({time}) + INTERVAL '1 hour'` to its DEFINE"),
        )
    })?;

    let rows = rows_per_match(clauses.rows_per_match.as_ref())?;
    let mut measures = Vec::with_capacity(clauses.measures.len());
    for ast::Measure { expr, alias } in clauses.measures {
        let (_, formula) = formulas.formula(expr)?;
        let name = normalized(&alias);
        measures.push((Arc::new(Field::new(name, formula.data_type()?, true)), formula));
    }
    let skip = skip_of(clauses.after_match_skip, &symbols, &program)?;
    let args = formulas.inputs;
    let (first, later) = program.places();
    let first_row = first.iter().next().copied().filter(|symbol| first.len() == 1 && !later.contains(symbol));
    let depends = |(symbol, define): (usize, &Option<Formula>)| {
        define.as_ref().is_some_and(|define| define.depends_on_path(symbol, first_row))
    };
    let path_free = !defines.iter().enumerate().any(depends);
    let pattern = Arc::new(RowPattern {
        text: clauses.text,
        symbols: symbols.written().to_vec(),
        program,
        defines,
        measures,
        rows,
        skip,
        path_free,
        bound_us,
    });
    relation(input, &time, partition, order, args, &pattern)
}

/// The event time as DEFINE would name it.
fn written_time(time: &Expr) -> &str {
    match time {
        Expr::Column(column) => &column.name,
        _ => "ts",
    }
}

/// The plan around the window function.
fn relation(
    input: LogicalPlan,
    time: &Expr,
    partition: Vec<Expr>,
    order: Vec<datafusion::logical_expr::SortExpr>,
    args: Vec<Expr>,
    pattern: &Arc<RowPattern>,
) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = match pattern.rows {
        RowsPerMatch::One => partition.clone(),
        RowsPerMatch::All { .. } => input.schema().columns().into_iter().map(Expr::Column).collect(),
    };
    let function = WindowFunction::new(Arc::new(WindowUDF::from(MatchRows::new(Arc::clone(pattern)))), args);
    let matches = Expr::from(function).partition_by(partition).order_by(order).build()?.alias(MATCHES);
    let places = pattern.program.places();
    let listed = LogicalPlanBuilder::from(input).window(vec![matches])?;
    let unnested = listed.unnest_column(Column::new_unqualified(MATCHES))?;
    let measures = pattern.measures.iter().map(|(field, formula)| {
        let is_start = pattern.rows == RowsPerMatch::One && is_time_of_first_row(formula, &places);
        // The row that stands for a match is its first, so this is the event time that windows may go by.
        let value = if is_start { time.clone() } else { get_field(col(MATCHES), field.name().as_str()) };
        value.alias(field.name())
    });
    unnested.project(columns.into_iter().chain(measures))?.build()
}

/// Whether a measure is the event time of the first row of the match, and nothing else.
fn is_time_of_first_row(formula: &Formula, (first, later): &(BTreeSet<usize>, BTreeSet<usize>)) -> bool {
    let [Reference::Row(row)] = &formula.references[..] else { return false };
    let is_plain = formula.expr.downcast_ref::<datafusion::physical_expr::expressions::Column>().is_some();
    let always_first = |symbol: usize| first.len() == 1 && first.contains(&symbol);
    let of_first = match (row.of, row.end) {
        (None, end) => end == End::First,
        (Some(of), End::First) => always_first(of),
        (Some(of), End::Last) => always_first(of) && !later.contains(&of),
    };
    is_plain && of_first && row.input == TIME_INPUT && (row.nth, row.back) == (0, 0)
}

fn rows_per_match(clause: Option<&ast::RowsPerMatch>) -> Result<RowsPerMatch> {
    Ok(match clause {
        None | Some(ast::RowsPerMatch::OneRow) => RowsPerMatch::One,
        // No pattern that matches nothing is let through, so there are no empty matches to show or omit.
        Some(ast::RowsPerMatch::AllRows(None | Some(EmptyMatchesMode::Show | EmptyMatchesMode::Omit))) => {
            RowsPerMatch::All { unmatched: false }
        }
        Some(ast::RowsPerMatch::AllRows(Some(EmptyMatchesMode::WithUnmatched))) => {
            RowsPerMatch::All { unmatched: true }
        }
    })
}

fn skip_of(clause: Option<AfterMatchSkip>, symbols: &Symbols, program: &Program) -> Result<Skip> {
    let position = |name: &Ident| {
        symbols.position(&normalized(name)).ok_or_else(|| {
            wrong(
                format_args!("AFTER MATCH SKIP goes to `{name}`, which PATTERN does not have"),
                "use a symbol of PATTERN",
            )
        })
    };
    let required = |name: &Ident, symbol: usize| match program.can_go_on_without(symbol) {
        false => Ok(symbol),
        true => Err(wrong(
            format_args!(
                "AFTER MATCH SKIP goes to `{name}`, but a match need not have a row of it behind its first row"
            ),
            "go to a symbol that PATTERN requires there, or write `AFTER MATCH SKIP PAST LAST ROW`",
        )),
    };
    Ok(match clause {
        None | Some(AfterMatchSkip::PastLastRow) => Skip::PastLastRow,
        Some(AfterMatchSkip::ToNextRow) => Skip::ToNextRow,
        Some(AfterMatchSkip::ToFirst(name)) => {
            let symbol = position(&name)?;
            if program.places().0.contains(&symbol) {
                return Err(wrong(
                    format_args!(
                        "AFTER MATCH SKIP TO FIRST {name} would find the same match again: a match can begin with it"
                    ),
                    "write `AFTER MATCH SKIP TO NEXT ROW`",
                ));
            }
            Skip::ToFirst(required(&name, symbol)?)
        }
        Some(AfterMatchSkip::ToLast(name)) => Skip::ToLast(required(&name, position(&name)?)?),
    })
}

/// Takes expressions apart; gathers the inputs that all of them need.
struct Formulas<'a, 'c> {
    session: &'a SessionState,
    context: &'c mut dyn RelationPlannerContext,
    input: &'a LogicalPlan,
    symbols: &'a Symbols,
    inputs: Vec<Expr>,
}

impl Formulas<'_, '_> {
    /// The expression over references as it is written, and ready to be evaluated.
    fn formula(&mut self, mut expr: ast::Expr) -> Result<(Expr, Formula)> {
        let mut apart = Apart { formulas: self, references: Vec::new() };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut apart) {
            return Err(error);
        }
        let (references, types): (Vec<Reference>, Vec<DataType>) = apart.references.into_iter().unzip();
        // A column in front keeps a row a row when there is no reference.
        let mut fields = vec![Field::new(format!("{REFERENCE}row"), DataType::Boolean, false)];
        fields.extend(
            (0..).zip(&types).map(|(at, of): (usize, _)| Field::new(format!("{REFERENCE}{at}"), of.clone(), true)),
        );
        let schema = DFSchema::from_unqualified_fields(fields.into(), Default::default())?;
        let planned = with_coercions(self.context.sql_to_expr(expr, &schema)?, &schema)?;
        // Some functions run only as what the simplifier makes of them.
        let simplify = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(self.session.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(simplify);
        let simple = simplifier.simplify(simplifier.coerce(planned.clone(), &schema)?)?;
        let physical = self.session.create_physical_expr(simple, &schema)?;
        Ok((planned, Formula { references, schema: Arc::clone(schema.inner()), expr: physical }))
    }

    /// The number of an input, which is added if it is new.
    fn input(&mut self, expr: Expr) -> Result<usize> {
        let schema = self.input.schema();
        let expr = with_coercions(expr, schema)?.rewrite(&mut TypeCoercionRewriter::new(schema))?.data;
        Ok(self.inputs.iter().position(|known| *known == expr).unwrap_or_else(|| {
            self.inputs.push(expr);
            self.inputs.len() - 1
        }))
    }

    fn row(&mut self, expr: ast::Expr, end: End, nth: usize, back: usize) -> Result<(Reference, DataType)> {
        let (expr, of) = self.strip(expr)?;
        let planned = self.context.sql_to_expr(expr, self.input.schema())?;
        let input = self.input(planned)?;
        let data_type = self.inputs[input].get_type(self.input.schema())?;
        Ok((Reference::Row(RowReference { input, of, end, nth, back }), data_type))
    }

    /// `last(b.price, 1)`, `prev(…)`, or a plain expression, which speaks of the last row.
    fn navigation(&mut self, expr: ast::Expr, back: usize) -> Result<(Reference, DataType)> {
        let Some((name, args)) = call_of(&expr) else { return self.row(expr, End::Last, 0, back) };
        match (name.as_str(), &args[..]) {
            ("prev", [what, rest @ ..]) => {
                let steps = count_of(&name, rest, 1)?;
                self.navigation(what.clone(), back + steps)
            }
            ("first", [what, rest @ ..]) => {
                let nth = count_of(&name, rest, 0)?;
                self.row(what.clone(), End::First, nth, back)
            }
            ("last", [what, rest @ ..]) => {
                let nth = count_of(&name, rest, 0)?;
                self.row(what.clone(), End::Last, nth, back)
            }
            _ => self.row(expr, End::Last, 0, back),
        }
    }

    fn aggregate(&mut self, expr: ast::Expr) -> Result<(Reference, DataType)> {
        let (expr, of) = self.strip(expr)?;
        let planned = self.context.sql_to_expr(expr, self.input.schema())?.unalias();
        let planned = with_coercions(planned, self.input.schema())?;
        let planned = planned.rewrite(&mut TypeCoercionRewriter::new(self.input.schema()))?.data;
        let Expr::AggregateFunction(AggregateFunction { func, mut params }) = planned else {
            return Err(wrong(
                format_args!("`{planned}` is no aggregate"),
                "write an aggregate over rows of the match",
            ));
        };
        if !params.order_by.is_empty() {
            return Err(wrong(
                format_args!("`{}` has an order of its own", func.name()),
                "leave ORDER BY out: the rows of a match come in the order of the pattern",
            ));
        }
        let args = params.args.iter().map(|arg| self.input(arg.clone())).collect::<Result<Vec<_>>>()?;
        let filter = params.filter.take().map(|filter| self.input(*filter)).transpose()?;
        let name = |at: usize| format!("{REFERENCE}{at}");
        let field = |(at, input): (usize, &Expr)| Ok(Field::new(name(at), input.get_type(self.input.schema())?, true));
        let fields = self.inputs.iter().enumerate().map(field).collect::<Result<Vec<_>>>()?;
        let schema = DFSchema::from_unqualified_fields(fields.into(), Default::default())?;
        params.args = args.iter().map(|at| Expr::Column(Column::new_unqualified(name(*at)))).collect();
        let call = Expr::AggregateFunction(AggregateFunction { func, params });
        let (planning, props) = (PhysicalPlanningContext::default(), self.session.execution_props());
        let lowered = LoweredAggregateBuilder::new(&call, &schema, schema.as_arrow(), props, &planning).build()?;
        let data_type = lowered.aggregate.field().data_type().clone();
        Ok((Reference::Aggregate { function: lowered.aggregate, args, filter, of }, data_type))
    }

    /// The expression without its symbol, and that symbol.
    fn strip(&self, mut expr: ast::Expr) -> Result<(ast::Expr, Option<usize>)> {
        let mut strip = Strip { symbols: self.symbols, of: Vec::new() };
        let walked = VisitMut::visit(&mut expr, &mut strip);
        debug_assert!(walked.is_continue(), "nothing stops this walk");
        strip.of.sort_unstable();
        strip.of.dedup();
        match strip.of[..] {
            [] => Ok((expr, None)),
            [of] => Ok((expr, of)),
            _ => Err(wrong(
                format_args!("`{expr}` mixes rows of several symbols in one place"),
                "speak of one symbol in each `first`, `last`, `prev` and aggregate: `last(a.x) + last(b.x)`",
            )),
        }
    }
}

/// Replaces what speaks of the match by references.
struct Apart<'f, 'a, 'c> {
    formulas: &'f mut Formulas<'a, 'c>,
    references: Vec<(Reference, DataType)>,
}

impl Apart<'_, '_, '_> {
    fn reference(&mut self, expr: &ast::Expr) -> Result<Option<(Reference, DataType)>> {
        let is_column = matches!(expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_));
        let Some((name, _)) = call_of(expr) else {
            return if is_column { self.formulas.navigation(expr.clone(), 0).map(Some) } else { Ok(None) };
        };
        Ok(Some(match name.as_str() {
            "first" | "last" | "prev" => self.formulas.navigation(expr.clone(), 0)?,
            "next" => {
                return Err(wrong(
                    "`next` looks at rows that have not come yet",
                    "put the later row into the pattern as a symbol of its own",
                ));
            }
            "classifier" => (Reference::Classifier, DataType::Utf8),
            "match_number" => (Reference::MatchNumber, DataType::Int64),
            name if self.formulas.session.aggregate_functions().contains_key(name) => {
                self.formulas.aggregate(expr.clone())?
            }
            _ => return Ok(None),
        }))
    }
}

impl VisitorMut for Apart<'_, '_, '_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        match self.reference(expr) {
            Err(error) => return ControlFlow::Break(error),
            Ok(None) => {}
            Ok(Some(reference)) => {
                *expr = ast::Expr::Identifier(Ident::new(format!("{REFERENCE}{}", self.references.len())));
                self.references.push(reference);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Takes the symbols off the columns, and notes them; columns without a symbol are those of any row.
struct Strip<'a> {
    symbols: &'a Symbols,
    of: Vec<Option<usize>>,
}

impl VisitorMut for Strip<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        match expr {
            ast::Expr::Identifier(_) => self.of.push(None),
            ast::Expr::CompoundIdentifier(parts) => {
                let of = parts.first().and_then(|first| self.symbols.position(&normalized(first)));
                self.of.push(of);
                if let ([_, name], Some(_)) = (&parts[..], of) {
                    *expr = ast::Expr::Identifier(name.clone());
                }
            }
            // `count(a.*)`
            ast::Expr::Function(ast::Function { args: FunctionArguments::List(list), .. }) => {
                for arg in &mut list.args {
                    if let FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) = arg
                        && let [ObjectNamePart::Identifier(name)] = &name.0[..]
                        && let Some(of) = self.symbols.position(&normalized(name))
                    {
                        self.of.push(Some(of));
                        *arg = FunctionArg::Unnamed(FunctionArgExpr::Wildcard);
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The lower-case name and the plain arguments of a call.
fn call_of(expr: &ast::Expr) -> Option<(String, Vec<ast::Expr>)> {
    let ast::Expr::Function(function) = expr else { return None };
    let [ObjectNamePart::Identifier(name)] = &function.name.0[..] else { return None };
    let args = match &function.args {
        FunctionArguments::List(list) => list
            .args
            .iter()
            .filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            })
            .collect(),
        FunctionArguments::None | FunctionArguments::Subquery(_) => Vec::new(),
    };
    Some((name.value.to_lowercase(), args))
}

/// How many rows `first`, `last` and `prev` go.
fn count_of(name: &str, args: &[ast::Expr], default: usize) -> Result<usize> {
    match args {
        [] => Ok(default),
        [ast::Expr::Value(value)] => match &value.value {
            ast::Value::Number(number, _) => Some(number.to_string()),
            _ => None,
        }
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| wrong(format_args!("`{name}` goes a number of rows"), &format!("write `{name}(x, 2)`"))),
        _ => Err(wrong(format_args!("`{name}` takes a value and a number of rows"), &format!("write `{name}(x, 2)`"))),
    }
}
