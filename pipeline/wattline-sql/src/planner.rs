//! From a logical plan over one stream to a [`StreamPlan`]: operators of the lane, a window, operators after it.
//!
//! ```text
//! analysed plan ─window keys─▶ ─optimise─▶ chain of nodes ─lower─▶ columns │ lane ops │ window │ tail ops
//! ```
//! Only optimiser rules that keep the chain a chain are used: no empty relations, no split of distinct
//! aggregates, no limits. The reference side of a join is run once by DataFusion and kept in memory.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::diagnostic::code;
use crate::logical::{Anchor, Refusal, contains_stream, resolve, streams_of};
use crate::operators::{AggregateSpec, Aggregated, Operator, RefJoin, RefJoinKind, compact_columns, nullable};

mod reference;
mod window_keys;

pub(crate) use reference::{References, block_on};

/// Why a plan does not run on a stream.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A shape we refuse.
    Refused(Box<Refusal>),
    /// DataFusion cannot plan it.
    Failed(DataFusionError),
}

impl From<DataFusionError> for Problem {
    fn from(error: DataFusionError) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// A rule ready to run.
#[derive(Debug)]
pub(crate) struct StreamPlan {
    /// The stream's columns that the rule reads, as positions in its schema.
    pub(crate) columns: Vec<usize>,
    /// Steps before the window, or all steps of a stateless rule.
    pub(crate) lane: Vec<Operator>,
    pub(crate) window: Option<Arc<AggregateSpec>>,
    /// The text of the plan up to the window, which says what its state means.
    pub(crate) window_text: Option<String>,
    /// Steps after the window.
    pub(crate) tail: Vec<Operator>,
    /// The optimised plan, for `explain` and the fingerprint.
    pub(crate) optimized: LogicalPlan,
}

/// Type coercion and checks of DataFusion.
pub(crate) fn analyze(session: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    session.analyzer().execute_and_check(plan, session.config_options(), |_, _| {})
}

/// Lowers an analysed plan.
pub(crate) fn lower(
    session: &SessionState,
    plan: LogicalPlan,
    references: &mut References,
) -> std::result::Result<StreamPlan, Problem> {
    check_streams(&plan)?;
    let plan = window_keys::reduce(plan)?;
    let optimized = optimize(session, plan)?;
    let mut lowering = Lowering {
        session,
        references,
        columns: Vec::new(),
        lane: Vec::new(),
        window: None,
        window_text: None,
        tail: Vec::new(),
    };
    lowering.walk(&optimized)?;
    let Lowering { columns, lane, window, window_text, tail, .. } = lowering;
    Ok(StreamPlan { columns, lane, window, window_text, tail, optimized })
}

fn check_streams(plan: &LogicalPlan) -> std::result::Result<(), Refusal> {
    match streams_of(plan).len() {
        1 => Ok(()),
        0 => Err(Refusal::new(
            code::NO_STREAM,
            Anchor::From,
            "the query reads no stream, so nothing would ever start it",
            "read a stream or a rule over a stream in FROM, or make it a view",
        )),
        _ => Err(Refusal::new(
            code::STREAM_JOIN,
            Anchor::Join(None),
            "the query reads streams more than once, and joins of streams need a time bound",
            "read one stream and join reference tables to it; compare streams in the archive with `wattline query`",
        )),
    }
}

fn optimize(session: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    let context = OptimizerContext::new_with_config_options(Arc::clone(session.config_options()))
        .without_query_execution_start_time()
        .with_skip_failing_rules(false);
    Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {})
}

struct Lowering<'a> {
    session: &'a SessionState,
    references: &'a mut References,
    columns: Vec<usize>,
    lane: Vec<Operator>,
    window: Option<Arc<AggregateSpec>>,
    window_text: Option<String>,
    tail: Vec<Operator>,
}

impl Lowering<'_> {
    fn walk(&mut self, plan: &LogicalPlan) -> std::result::Result<(), Problem> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let all = || (0..scan.source.schema().fields().len()).collect();
                self.columns = scan.projection.clone().unwrap_or_else(all);
                Ok(())
            }
            LogicalPlan::SubqueryAlias(alias) => self.walk(&alias.input),
            LogicalPlan::Projection(projection) => {
                self.walk(&projection.input)?;
                let exprs = self.physical_all(&projection.expr, projection.input.schema())?;
                if !is_identity(&exprs, projection.input.schema().fields().len()) {
                    self.push(Operator::Project { exprs, schema: nullable(projection.schema.as_arrow()) });
                }
                Ok(())
            }
            LogicalPlan::Filter(filter) => {
                self.walk(&filter.input)?;
                let predicate = self.physical(&filter.predicate, filter.input.schema())?;
                self.push(Operator::Filter(predicate));
                Ok(())
            }
            LogicalPlan::Join(join) => self.lower_join(join),
            LogicalPlan::Aggregate(aggregate) => self.lower_aggregate(aggregate),
            other => Err(unsupported(other).into()),
        }
    }

    fn push(&mut self, operator: Operator) {
        if self.window.is_some() {
            self.tail.push(operator);
        } else {
            self.lane.push(operator);
        }
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> std::result::Result<Arc<dyn PhysicalExpr>, Problem> {
        if has_scalar_subquery(expr) {
            return Err(Refusal::new(
                code::SUBQUERY,
                Anchor::Query,
                "a subquery as a value is not kept up to date on a stream",
                "join the reference table instead: `JOIN limits l ON l.kind = r.kind`",
            )
            .into());
        }
        let context = PhysicalPlanningContext::default();
        Ok(create_physical_expr(expr, schema, self.session.execution_props(), &context)?)
    }

    fn physical_all(
        &self,
        exprs: &[Expr],
        schema: &DFSchema,
    ) -> std::result::Result<Vec<Arc<dyn PhysicalExpr>>, Problem> {
        exprs.iter().map(|expr| self.physical(expr, schema)).collect()
    }

    fn lower_join(&mut self, join: &Join) -> std::result::Result<(), Problem> {
        let stream_is_left = contains_stream(&join.left);
        let kind = join_kind(join, stream_is_left)?;
        let (stream, table) = if stream_is_left { (&join.left, &join.right) } else { (&join.right, &join.left) };
        self.walk(stream)?;
        let (stream_on, table_on): (Vec<Expr>, Vec<Expr>) = join
            .on
            .iter()
            .map(
                |(left, right)| {
                    if stream_is_left { (left.clone(), right.clone()) } else { (right.clone(), left.clone()) }
                },
            )
            .unzip();
        let stream_keys = self.physical_all(&stream_on, stream.schema())?;
        let table_keys = self.physical_all(&table_on, table.schema())?;
        let both = join.left.schema().join(join.right.schema())?;
        let condition = match &join.filter {
            Some(filter) => Some(compact_columns(self.physical(filter, &both)?)?),
            None => None,
        };
        let null_matches_null = join.null_equality == NullEquality::NullEqualsNull;
        let table = self.references.table(self.session, table, &table_on, &table_keys, null_matches_null)?;
        let schema = nullable(join.schema.as_arrow());
        self.push(Operator::RefJoin(Arc::new(RefJoin { table, kind, stream_keys, condition, stream_is_left, schema })));
        Ok(())
    }

    fn lower_aggregate(&mut self, aggregate: &Aggregate) -> std::result::Result<(), Problem> {
        let streams = streams_of(&aggregate.input);
        let bin = aggregate
            .group_expr
            .first()
            .and_then(|group| window_keys::bin_of_group(&resolve(&aggregate.input, group), &streams))
            .ok_or_else(window_keys::unbounded)?;
        self.walk(&aggregate.input)?;
        if self.window.is_some() {
            return Err(window_keys::nested().into());
        }
        let input = aggregate.input.schema();
        let groups = self.physical_all(&aggregate.group_expr, input)?;
        let mut aggregates = Vec::with_capacity(aggregate.aggr_expr.len());
        for expr in &aggregate.aggr_expr {
            let context = PhysicalPlanningContext::default();
            let lowered =
                LoweredAggregateBuilder::new(expr, input, input.as_arrow(), self.session.execution_props(), &context)
                    .build()?;
            let mut args = lowered.aggregate.expressions();
            args.extend(lowered.aggregate.order_bys().iter().map(|order| Arc::clone(&order.expr)));
            aggregates.push(Aggregated { function: lowered.aggregate, args, filter: lowered.filter });
        }
        self.window_text = Some(LogicalPlan::Aggregate(aggregate.clone()).display_indent_schema().to_string());
        let output_schema = nullable(aggregate.schema.as_arrow());
        let key_fields = output_schema.fields()[1..groups.len()].to_vec();
        self.window = Some(Arc::new(AggregateSpec {
            bin: Arc::clone(&groups[0]),
            size_us: bin.size_us,
            keys: groups[1..].to_vec(),
            key_schema: Arc::new(Schema::new(key_fields)),
            aggregates,
            output_schema,
        }));
        Ok(())
    }
}

fn is_identity(exprs: &[Arc<dyn PhysicalExpr>], width: usize) -> bool {
    exprs.len() == width
        && exprs
            .iter()
            .enumerate()
            .all(|(at, expr)| expr.downcast_ref::<PhysicalColumn>().is_some_and(|column| column.index() == at))
}

fn has_scalar_subquery(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;

    expr.exists(|node| {
        Ok(matches!(node, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    })
    .unwrap_or(false)
}

fn join_kind(join: &Join, stream_is_left: bool) -> std::result::Result<RefJoinKind, Refusal> {
    let table = if stream_is_left { &join.right } else { &join.left };
    let name = table.schema().iter().find_map(|(qualifier, _)| qualifier.map(|q| q.table().to_owned()));
    let refuse = |code, message: &str, help: &str| Err(Refusal::new(code, Anchor::Join(name.clone()), message, help));
    match (join.join_type, stream_is_left) {
        (JoinType::Inner, _) => Ok(RefJoinKind::Inner),
        (JoinType::Left, true) | (JoinType::Right, false) => Ok(RefJoinKind::KeepStream),
        (JoinType::LeftSemi, true) | (JoinType::RightSemi, false) => Ok(RefJoinKind::Semi),
        (JoinType::LeftAnti, true) if join.null_aware => refuse(
            code::SUBQUERY,
            "NOT IN keeps no row at all once the subquery has a NULL",
            "write `NOT EXISTS (SELECT 1 FROM … WHERE …)`",
        ),
        (JoinType::LeftAnti, true) | (JoinType::RightAnti, false) => Ok(RefJoinKind::Anti),
        _ => refuse(
            code::PRESERVED_REFERENCE,
            "this join keeps rows of the reference table that no event matches, and that is known only at the end",
            "put the stream on the kept side: `FROM stream LEFT JOIN reference ON …`",
        ),
    }
}

fn unsupported(plan: &LogicalPlan) -> Refusal {
    let shape = match plan {
        LogicalPlan::Unnest(_) => "UNNEST",
        LogicalPlan::Union(_) => "UNION",
        LogicalPlan::Window(_) => "OVER",
        LogicalPlan::Distinct(_) => "DISTINCT",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Values(_) => "VALUES",
        LogicalPlan::Subquery(_) => "a lateral subquery",
        _ => "this query",
    };
    Refusal::new(
        code::UNSUPPORTED,
        Anchor::Query,
        format!("{shape} does not run on a stream"),
        "use SELECT, WHERE, JOIN to reference tables, and GROUP BY in a TUMBLE window",
    )
}

/// Collects the rows of a plan without streams, as one batch.
pub(crate) fn collect(session: &SessionState, plan: &LogicalPlan) -> Result<RecordBatch> {
    let schema = nullable(plan.schema().as_arrow());
    let batches = block_on(async {
        let physical = session.create_physical_plan(plan).await?;
        datafusion::physical_plan::collect(physical, session.task_ctx()).await
    })
    .map_err(|error| DataFusionError::External(Box::new(error)))??;
    let batches = batches
        .into_iter()
        .map(|batch| crate::operators::record_batch(&schema, batch.columns().to_vec(), batch.num_rows()))
        .collect::<Result<Vec<_>>>()?;
    Ok(concat_batches(&schema, &batches)?)
}
