//! The same rules by plain DataFusion over whole batches: what streaming must equal.
//!
//! A compiled rule keeps its analysed logical plan; here the stream scan in it is replaced by a table of
//! given batches, cut to the rule's delay, and the plan runs through DataFusion's own optimiser and
//! execution. `wattline test`, the property tests and `query` use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, ScalarValue, plan_datafusion_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, cast, lit};
use wattline_core::record::column;

use crate::catalog::{Stream, StreamSource};
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
    collect(set, read_batches(compiled.logical.clone(), streams, compiled.delay_ms)?).await
}

/// Which events of a table a rule is run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// Those within its delay, as on the stream.
    WithinDelay,
    /// Late ones too.
    All,
}

/// Runs a rule over tables that hold the events of its streams, as the archive does: columns in other types are cast, those that a table
/// lacks are NULL. Of each stream only events from `between_us.0` until before `between_us.1` are read.
///
/// # Errors
/// As [`run_rule`], and if a stream has no table.
pub async fn run_rule_over(
    set: &RuleSet,
    rule: &str,
    tables: &BTreeMap<String, Arc<dyn TableProvider>>,
    between_us: (i64, i64),
    events: Events,
) -> Result<RecordBatch, Error> {
    let (_, compiled) = set.rule(rule).ok_or_else(|| Error::UnknownRule { rule: rule.to_owned() })?;
    let delay_ms = match events {
        Events::WithinDelay => compiled.delay_ms,
        Events::All => i64::MAX,
    };
    let rewritten = compiled.logical.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        match StreamSource::of(&scan.source).map(|source| source.stream.clone()) {
            Some(stream) => Ok(Transformed::yes(archived(&scan, &stream, tables, delay_ms, between_us)?)),
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        }
    })?;
    collect(set, rewritten.data).await
}

/// Events of a stream out of its table, as the scan gives them.
fn archived(
    scan: &TableScan,
    stream: &Stream,
    tables: &BTreeMap<String, Arc<dyn TableProvider>>,
    delay_ms: i64,
    (from_us, to_us): (i64, i64),
) -> PlanResult<LogicalPlan> {
    let table = tables.get(&stream.name).ok_or_else(|| plan_datafusion_err!("there is no table `{}`", stream.name))?;
    let held = table.schema();
    let name = &scan.table_name;
    let instant = |us: i64| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let time = column(&stream.event_time);
    let on_time = column(column::LATENESS_MS).lt_eq(lit(delay_ms));
    let columns = scan.projected_schema.fields().iter().map(|field| {
        let value = match held.field_with_name(field.name()) {
            Ok(_) => column(field.name()),
            Err(_) => lit(ScalarValue::Null),
        };
        cast(value, field.data_type().clone()).alias_qualified(Some(name.clone()), field.name())
    });
    LogicalPlanBuilder::scan("archived", provider_as_source(Arc::clone(table)), None)?
        .filter(on_time.and(time.clone().gt_eq(instant(from_us))).and(time.lt(instant(to_us))))?
        .project(columns)?
        .build()
}

async fn collect(set: &RuleSet, plan: LogicalPlan) -> Result<RecordBatch, Error> {
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
