//! The reference sides of joins: run once, hashed once, shared by all rules of a rule set.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::collect;
use crate::error::Error;
use crate::operators::{KeyIndexes, RefTable};

/// Hashed reference sides by the text of their plan and keys.
#[derive(Debug, Default)]
pub(crate) struct References {
    tables: HashMap<String, Arc<RefTable>>,
    indexes: KeyIndexes,
}

impl References {
    pub(super) fn table(
        &mut self,
        session: &SessionState,
        plan: &LogicalPlan,
        key_exprs: &[Expr],
        keys: &[Arc<dyn PhysicalExpr>],
        null_matches_null: bool,
    ) -> Result<Arc<RefTable>> {
        let name = format!("{} | {key_exprs:?} | {null_matches_null}", plan.display_indent_schema());
        if let Some(table) = self.tables.get(&name) {
            return Ok(Arc::clone(table));
        }
        let rows = collect(session, plan)?;
        let table = Arc::new(RefTable::new(rows, keys, null_matches_null, &mut self.indexes)?);
        self.tables.insert(name, Arc::clone(&table));
        Ok(table)
    }
}

/// Runs a future to its end on a thread of its own, so that the caller may itself be inside a runtime.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> std::result::Result<T, Error> {
    let failed = |reason: &str| Error::Planner { reason: reason.to_owned() };
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("wattline-plan".to_owned()).spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            Ok::<T, std::io::Error>(runtime.block_on(future))
        });
        let worker = worker.map_err(|error| failed(&error.to_string()))?;
        let done = worker.join().map_err(|_panic| failed("its thread panicked"))?;
        done.map_err(|error| failed(&error.to_string()))
    })
}
