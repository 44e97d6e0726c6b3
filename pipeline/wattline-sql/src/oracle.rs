//! The same rules by plain DataFusion over whole batches: what streaming must equal.
//!
//! A compiled rule keeps its analysed logical plan; here the stream scan in it is replaced by a table of
//! given batches, cut to the rule's delay, and the plan runs through DataFusion's own optimiser and
//! execution. `wattline test`, the property tests and `query` use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use crate::catalog::StreamSource;
use crate::error::Error;
use crate::lane_program::within_delay;
use crate::operators::{nullable, record_batch};
use crate::planner::block_on;
use crate::rule_set::RuleSet;

/// Runs a rule over all events of its stream, at the end of time. Row order is not defined.
///
/// `streams` holds batches in the streams' schemas, system columns included; late rows are left out here.
///
/// # Errors
/// [`Error::UnknownRule`]; [`Error::Query`] if the query fails at run time.
pub async fn run_rule(
    set: &RuleSet,
    rule: &str,
    streams: &BTreeMap<String, Vec<RecordBatch>>,
) -> Result<RecordBatch, Error> {
    let (_, compiled) = set.rule(rule).ok_or_else(|| Error::UnknownRule { rule: rule.to_owned() })?;
    let plan = read_batches(compiled.logical.clone(), streams, compiled.delay_ms)?;
    let session = set.catalog().session();
    let physical = session.create_physical_plan(&plan).await?;
    let batches = datafusion::physical_plan::collect(physical, session.task_ctx()).await?;
    let schema = nullable(plan.schema().as_arrow());
    let batches = batches
        .into_iter()
        .map(|batch| record_batch(&schema, batch.columns().to_vec(), batch.num_rows()))
        .collect::<PlanResult<Vec<_>>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// As [`run_rule`], on a thread of its own, for callers that are not async.
///
/// # Errors
/// As [`run_rule`].
pub fn run_rule_blocking(
    set: &RuleSet,
    rule: &str,
    streams: &BTreeMap<String, Vec<RecordBatch>>,
) -> Result<RecordBatch, Error> {
    block_on(run_rule(set, rule, streams))?
}

fn read_batches(
    plan: LogicalPlan,
    streams: &BTreeMap<String, Vec<RecordBatch>>,
    delay_ms: i64,
) -> PlanResult<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let Some(source) = StreamSource::of(&scan.source) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let given = streams.get(&source.stream.name).map_or(&[][..], Vec::as_slice);
        let on_time =
            given.iter().map(|batch| Ok(within_delay(batch, delay_ms)?.batch)).collect::<PlanResult<Vec<_>>>()?;
        let table = MemTable::try_new(Arc::clone(&source.stream.schema), vec![on_time])?;
        let source = provider_as_source(Arc::new(table));
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    })?;
    Ok(rewritten.data)
}
