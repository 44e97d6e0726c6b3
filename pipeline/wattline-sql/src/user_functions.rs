//! Functions that a program brings along, beside those of DataFusion and of wattline.
//!
//! They are DataFusion's own kinds of function, so what is written for it elsewhere works here too. The engine asks of them what it
//! asks of any: the same arguments give the same value (volatile ones are refused in rules), and an aggregate's state can be merged, as it
//! travels between workers and in checkpoints. Rules know a function by its name; so does stored state: one that means something
//! else gets another name.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use crate::error::Error;

/// Scalar, aggregate and window functions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct UserFunctions {
    scalar: Vec<Arc<ScalarUDF>>,
    aggregate: Vec<Arc<AggregateUDF>>,
    window: Vec<Arc<WindowUDF>>,
}

impl UserFunctions {
    /// Adds a scalar function.
    pub fn add_scalar(&mut self, function: ScalarUDF) {
        self.scalar.push(Arc::new(function));
    }

    /// Adds an aggregate function.
    pub fn add_aggregate(&mut self, function: AggregateUDF) {
        self.aggregate.push(Arc::new(function));
    }

    /// Adds a window function. In rules it runs where its whole partition is known: over windows that PARTITION BY names.
    pub fn add_window(&mut self, function: WindowUDF) {
        self.window.push(Arc::new(function));
    }

    /// Puts the functions beside those of a session.
    pub(crate) fn extend(&self, builder: &mut SessionStateBuilder) {
        builder.scalar_functions().get_or_insert_default().extend(self.scalar.iter().cloned());
        builder.aggregate_functions().get_or_insert_default().extend(self.aggregate.iter().cloned());
        builder.window_functions().get_or_insert_default().extend(self.window.iter().cloned());
    }

    /// That no function takes the place of another one.
    pub(crate) fn check(&self, session: &SessionState) -> Result<(), Error> {
        let known = session.scalar_functions().keys().chain(session.aggregate_functions().keys());
        let mut taken: BTreeSet<String> = known.chain(session.window_functions().keys()).cloned().collect();
        for name in self.names() {
            if !taken.insert(name.clone()) {
                return Err(Error::FunctionTaken { name });
            }
        }
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        let own = |name: &str, aliases: &[String]| std::iter::once(name.to_owned()).chain(aliases.to_vec());
        let scalar = self.scalar.iter().flat_map(|function| own(function.name(), function.aliases()));
        let aggregate = self.aggregate.iter().flat_map(|function| own(function.name(), function.aliases()));
        let window = self.window.iter().flat_map(|function| own(function.name(), function.aliases()));
        scalar.chain(aggregate).chain(window).collect()
    }
}
