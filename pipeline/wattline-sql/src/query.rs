//! Ad-hoc SQL over tables, for people: the rules' dialect, settings and functions, without the rules' limits.
//!
//! The caller registers tables (the archive's Delta tables) in the context of [`query_context`]; [`query`]
//! plans a text through the same road as rules, so that `TUMBLE` and exact number literals work here too.
//! Queries may sort, limit, nest and use the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Fields};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::TableSource;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::{Spanned, Statement};
use wattline_core::record::column;

use crate::catalog::{Catalog, settings, with_functions};
use crate::diagnostic::{Diagnostic, code};
use crate::logical::{Anchors, Scope, parse, parse_mistake, planning_mistakes, span_in};
use crate::rule_file::RuleFile;
use crate::user_functions::UserFunctions;

/// What messages call the text of a query.
const FILE: &str = "query";

/// A context with further functions and without tables.
///
/// # Errors
/// [`Error::FunctionTaken`](crate::Error::FunctionTaken) if the name of one is that of another.
pub fn query_context(functions: &UserFunctions) -> Result<SessionContext, crate::Error> {
    functions.check(Catalog::new().session())?;
    let builder = SessionStateBuilder::new().with_default_features().with_config(settings(SessionConfig::new()));
    let mut builder = with_functions(builder);
    functions.extend(&mut builder);
    Ok(SessionContext::new_with_state(builder.build()))
}

/// Beside each table whose results late events correct: `<table>_current`, the rows that are results now.
///
/// A row that was taken back cancels the newest one like it. Floating-point columns do not tell rows apart: computed again, a
/// sum may differ in its last digit.
///
/// # Errors
/// [`Error::Query`](crate::Error::Query) if such a table cannot be read.
pub async fn register_current(context: &SessionContext) -> Result<(), crate::Error> {
    let names = known_tables(context);
    for name in &names {
        let current = format!("{name}_current");
        let table = context.table(TableReference::bare(name.as_str())).await?;
        let fields = table.schema().fields().clone();
        if names.contains(&current) || !fields.iter().any(|field| field.name() == column::CHANGE) {
            continue;
        }
        let view = context.sql(&current_rows(name, &fields)).await?.into_view();
        context.register_table(TableReference::bare(current), view)?;
    }
    Ok(())
}

/// The query behind `<table>_current`. Rows of a time when nothing corrected the rule have no change.
fn current_rows(table: &str, fields: &Fields) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let own = [column::CHANGE, column::REVISION, column::BACKFILLED_AT];
    let columns = fields.iter().filter(|field| !own.contains(&field.name().as_str()));
    let columns: Vec<_> = columns.collect();
    let all: Vec<String> = columns.iter().map(|field| quoted(field.name())).collect();
    let exact = columns.iter().filter(|field| !holds_floats(field.data_type()));
    let exact: Vec<String> = exact.map(|field| quoted(field.name())).collect();
    let partition = if exact.is_empty() { String::new() } else { format!("PARTITION BY {}", exact.join(", ")) };
    let and_change = if exact.is_empty() { "PARTITION BY " } else { ", " };
    let table = quoted(table);
    format!(
        "SELECT {all}, \"_revision\" FROM (\
           SELECT {all}, coalesce(\"_revision\", 1) AS \"_revision\", coalesce(\"_change\", 'insert') AS \"_change\", \
             row_number() OVER ({partition}{and_change}coalesce(\"_change\", 'insert') \
               ORDER BY \"_revision\" DESC NULLS LAST) AS \"_n\", \
             sum(CASE WHEN \"_change\" = 'retract' THEN -1 ELSE 1 END) OVER ({partition}) AS \"_net\" \
           FROM {table}\
         ) WHERE \"_change\" = 'insert' AND \"_n\" <= \"_net\"",
        all = all.join(", "),
    )
}

/// Whether values of a type are floating-point numbers, or hold some: they do not tell rows apart.
#[must_use]
pub fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => holds_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        other => other.is_floating(),
    }
}

/// Plans one SELECT over the context's tables.
///
/// # Errors
/// Its mistakes, with places in `sql`.
pub async fn query(context: &SessionContext, sql: &str) -> Result<DataFrame, Vec<Diagnostic>> {
    let file = RuleFile { path: FILE.to_owned(), text: sql.to_owned() };
    let mut statements = parse(sql).map_err(|error| vec![parse_mistake(&file, &error)])?;
    let select = match (statements.pop(), statements.len()) {
        (Some(Statement::Query(select)), 0) => *select,
        (other, _) => {
            let span = other.and_then(|statement| span_in(sql, statement.span()));
            let mistake = Diagnostic::error(code::SQL_NOT_ONE_QUERY, FILE, "this is not exactly one query");
            return Err(vec![mistake.at(span).help("write one `SELECT …`")]);
        }
    };
    let mut tables: BTreeMap<String, Arc<dyn TableSource>> = BTreeMap::new();
    for name in known_tables(context) {
        if let Ok(provider) = context.table_provider(name.as_str()).await {
            tables.insert(name, provider_as_source(provider));
        }
    }
    let anchors = Anchors::of(&select, sql);
    let scope = Scope::new(Arc::new(context.state()), tables);
    let plan = scope.plan(select).map_err(|error| planning_mistakes(&file, &error, &scope, &anchors))?;
    Ok(DataFrame::new(context.state(), plan))
}

fn known_tables(context: &SessionContext) -> Vec<String> {
    let catalogs = context.catalog_names().into_iter().filter_map(|name| context.catalog(&name));
    let schemas = catalogs.flat_map(|catalog| {
        let names = catalog.schema_names();
        names.into_iter().filter_map(move |name| catalog.schema(&name)).collect::<Vec<_>>()
    });
    schemas.flat_map(|schema| schema.table_names()).collect()
}
