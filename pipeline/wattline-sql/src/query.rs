//! Ad-hoc SQL over tables, for people: the rules' dialect, settings and functions, without the rules' limits.
//!
//! The caller registers tables (the archive's Delta tables) in the context of [`query_context`]; [`query`]
//! plans a text through the same road as rules, so that `TUMBLE` and exact number literals work here too.
//! Queries may sort, limit, nest and use the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::TableSource;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::{Spanned, Statement};

use crate::catalog::{settings, with_functions};
use crate::diagnostic::{Diagnostic, code};
use crate::logical::{Anchors, Scope, parse, parse_mistake, planning_mistakes, span_in};
use crate::rule_file::RuleFile;

/// What messages call the text of a query.
const FILE: &str = "query";

/// A context without tables.
#[must_use]
pub fn query_context() -> SessionContext {
    let builder = SessionStateBuilder::new().with_default_features().with_config(settings(SessionConfig::new()));
    SessionContext::new_with_state(with_functions(builder).build())
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
