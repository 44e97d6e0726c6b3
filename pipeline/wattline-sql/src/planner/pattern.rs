//! Row patterns on a stream: a stage over final rows in the order of event time.

use std::sync::Arc;

use datafusion::logical_expr::Window;
use datafusion::logical_expr::expr::WindowFunction;

use super::over::{key_schema, not_in_time_order};
use super::{Lowering, Node, Problem};
use crate::logical::{lag_in, streams_of};
use crate::operators::{PatternSpec, nullable};
use crate::pattern::RowPattern;

impl Lowering<'_> {
    /// A pattern is made to stand alone in its node.
    pub(super) fn lower_pattern(
        &mut self,
        window: &Window,
        function: &WindowFunction,
        pattern: &Arc<RowPattern>,
    ) -> Result<Node, Problem> {
        let node = self.lower_final(&window.input)?;
        let input = window.input.schema();
        let params = &function.params;
        let time = params.order_by.first();
        let lag = time.and_then(|time| lag_in(&window.input, &time.expr));
        let Some(lag_us) = lag else { return Err(not_in_time_order(&streams_of(&window.input)).into()) };
        let partition = self.physical_all(&params.partition_by, input)?;
        Ok(Node::Patterns(
            Box::new(node),
            Arc::new(PatternSpec {
                pattern: Arc::clone(pattern),
                partition_schema: key_schema(&partition, input.as_arrow())?,
                partition,
                order: self.physical_order(&params.order_by, input)?,
                inputs: self.physical_all(&params.args, input)?,
                final_after_us: lag_us.saturating_add(1),
                input_schema: nullable(input.as_arrow()),
                schema: nullable(window.schema.as_arrow()),
            }),
        ))
    }
}
