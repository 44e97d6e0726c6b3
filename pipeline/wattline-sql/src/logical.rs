//! From the text of one query to one logical plan: the only road, for streaming, batch, tests and `query`.
//!
//! ```text
//! text ─parse─▶ AST ─params─▶ AST ─SqlToRel (TUMBLE, MATCH_RECOGNIZE, views)─▶ plan ─DISTINCT, as-of joins, tie breaks─▶ plan
//! ```
//! Views and other rules are inlined by name, so a rule that reads a rule is one plan over one stream.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{TableReference, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::sql::planner::{NullOrdering, ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Query, Statement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

mod as_of;
mod coercion;
mod date_trunc;
mod distinct;
mod early;
mod effect;
mod held_back;
mod intervals;
mod lineage;
mod match_recognize;
mod mistakes;
mod named_subqueries;
mod named_windows;
mod params;
mod refusal;
mod tie_break;
mod time_bound;
mod view;
mod window_tables;

pub(crate) use as_of::{join_as_of_event_time, time_of_output};
pub(crate) use coercion::Coercions;
pub(crate) use date_trunc::TruncatedDates;
pub(crate) use distinct::spell_out_distinct;
pub(crate) use early::{comes_in_order_of, inexact_aggregate};
pub(crate) use effect::within_effect;
pub(crate) use held_back::{hold_back_us, lag_in};
pub(crate) use intervals::ConstantIntervals;
pub(crate) use lineage::{
    TimeBin, all_streams_of, as_bin_of, contains_aggregate, contains_stream, find_time_bins, has_subquery, instant_us,
    interval_us, is_event_time, is_session, lag_us, resolve, resolve_column, streams_of, time_bin_of,
};
use match_recognize::PatternPlanner;
pub(crate) use mistakes::{parse_mistake, planning_mistakes};
pub(crate) use named_subqueries::NamedSubqueries;
use named_windows::replace_named_windows;
pub(crate) use params::replace_params;
pub(crate) use refusal::{Anchor, Anchors, Refusal, span_in};
pub(crate) use tie_break::break_ties;
pub(crate) use time_bound::{duration_us, join_bound_of, shifted};
use view::ViewSource;
use window_tables::WindowTablePlanner;

/// Parses a text that may hold comments and one or more statements.
pub(crate) fn parse(text: &str) -> std::result::Result<Vec<Statement>, ParserError> {
    Parser::new(&GenericDialect {}).try_with_sql(text)?.parse_statements()
}

/// The tables a query names, without its own common table expressions, lower-cased as the planner does.
pub(crate) fn tables_of(query: &Query) -> BTreeSet<String> {
    struct Tables {
        names: BTreeSet<String>,
        own: BTreeSet<String>,
    }
    impl Visitor for Tables {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
            self.own.extend(ctes.map(|cte| cte.alias.name.value.to_lowercase()));
            ControlFlow::Continue(())
        }

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args, .. } = factor {
                match args {
                    None => {
                        self.names.insert(name.to_string().to_lowercase());
                    }
                    Some(args) => {
                        if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(table)))) =
                            args.args.first()
                        {
                            self.names.insert(table.value.to_lowercase());
                        }
                    }
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut tables = Tables { names: BTreeSet::new(), own: BTreeSet::new() };
    let _continued = query.visit(&mut tables);
    tables.names.difference(&tables.own).cloned().collect()
}

/// Names and functions that a query is planned against.
pub(crate) struct Scope {
    session: Arc<SessionState>,
    tables: BTreeMap<String, Arc<dyn TableSource>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
}

impl Scope {
    pub(crate) fn new(session: Arc<SessionState>, tables: BTreeMap<String, Arc<dyn TableSource>>) -> Self {
        let patterns = PatternPlanner::new(Arc::clone(&session));
        Self { session, tables, relation_planners: vec![Arc::new(WindowTablePlanner), Arc::new(patterns)] }
    }

    /// Makes a planned rule readable under its id.
    pub(crate) fn add_view(&mut self, name: &str, plan: LogicalPlan) {
        self.tables.insert(name.to_owned(), Arc::new(ViewSource::new(plan)));
    }

    pub(crate) fn table_names(&self) -> Vec<&str> {
        self.tables.keys().map(String::as_str).collect()
    }

    pub(crate) fn plan(&self, mut query: Query) -> Result<LogicalPlan> {
        replace_named_windows(&mut query);
        let options = ParserOptions {
            parse_float_as_decimal: true,
            enable_ident_normalization: true,
            support_varchar_with_length: true,
            enable_options_value_normalization: false,
            collect_spans: true,
            map_string_types_to_utf8view: false,
            default_null_ordering: NullOrdering::NullsMax,
        };
        SqlToRel::new_with_options(self, options).sql_statement_to_plan(Statement::Query(Box::new(query)))
    }
}

impl ContextProvider for Scope {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let plain = matches!(name, TableReference::Bare { .. });
        let source = self.tables.get(name.table()).filter(|_| plain);
        source.cloned().ok_or_else(|| plan_datafusion_err!("table '{name}' not found"))
    }

    fn get_table_function_source(
        &self,
        name: &str,
        _args: Vec<datafusion::logical_expr::Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        Err(plan_datafusion_err!("table function '{name}' not found"))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.session.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.session.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.session.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.session.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.session.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn create_cte_work_table(&self, name: &str, _schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Err(plan_datafusion_err!("recursive query '{name}' cannot run on a stream"))
    }

    fn options(&self) -> &ConfigOptions {
        self.session.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.session.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.session.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.session.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.session.window_functions().keys().cloned().collect()
    }
}
