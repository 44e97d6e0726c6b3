//! From a logical plan over a stream to a [`StreamPlan`]: what the lanes do, and the steps over what is final.
//!
//! ```text
//! analysed plan ─window keys─▶ ─optimise─▶ tree of nodes ─lower─▶ feeds (columns │ lane steps │ hold) + tree of stages
//! ```
//! Below its first stage that needs rows in order or whole, a branch of the plan runs in the lanes, on rows as they
//! arrive: that is a [`Feed`]. What a feed holds until it is final, a window's groups or the rows themselves, is merged over
//! all lanes; the rest of the plan is a tree of [`Node`]s over final rows.
//!
//! Only optimiser rules that keep the tree readable are used: no empty relations, no split of distinct
//! aggregates, no limits. The reference side of a join is run once by DataFusion and kept in memory.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
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

use crate::catalog::{Stream, StreamSource};
use crate::diagnostic::code;
use crate::logical::{
    Anchor, Refusal, all_streams_of, contains_stream, has_subquery, hold_back_us, resolve, streams_of, time_bin_of,
};
use crate::operators::{
    AggregateSpec, Aggregated, Operator, OverSpec, PatternSpec, RefJoin, RefJoinKind, SessionSpec, StreamJoinSpec,
    Unnest, compact_columns, nullable, with_quick_casts,
};

mod grouping_sets;
mod over;
mod pattern;
mod reference;
mod stream_join;
mod window_keys;
mod window_panes;

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
    /// What it takes from its streams; at least one.
    pub(crate) feeds: Vec<Feed>,
    /// What it makes of them; the only feed itself for a rule that is done in the lanes.
    pub(crate) root: Node,
    /// The optimised plan, for `explain` and the fingerprint.
    pub(crate) optimized: LogicalPlan,
}

/// A branch of the plan that runs in the lanes of one stream.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The stream.
    pub(crate) stream: String,
    /// Position of its event time in its schema.
    pub(crate) time_column: usize,
    /// The stream's columns that the branch reads, as positions in its schema.
    pub(crate) columns: Vec<usize>,
    pub(crate) steps: Vec<Operator>,
    pub(crate) hold: Hold,
    /// The rows that it gives.
    pub(crate) schema: SchemaRef,
    /// The text of the branch, which says what its state means.
    pub(crate) text: String,
}

/// What a feed keeps until it is final.
#[derive(Debug, Clone)]
pub(crate) enum Hold {
    /// Nothing: its rows are final at once.
    Nothing,
    /// The groups of open windows.
    Windows(Arc<AggregateSpec>),
    /// The rows, to give them out in the order of event time.
    Rows,
}

/// A step over final rows.
#[derive(Debug)]
pub(crate) enum Node {
    /// What a feed gives, by its number.
    Feed(usize),
    /// Steps without state.
    Steps(Box<Node>, Vec<Operator>),
    /// Windows over final rows.
    Windows(Box<Node>, Arc<AggregateSpec>),
    /// Window functions (`OVER`).
    Over(Box<Node>, Arc<OverSpec>),
    /// Sessions.
    Sessions(Box<Node>, Arc<SessionSpec>),
    /// Row patterns (`MATCH_RECOGNIZE`).
    Patterns(Box<Node>, Arc<PatternSpec>),
    /// A join of two flows.
    Join(Box<Node>, Box<Node>, Arc<StreamJoinSpec>),
    /// The rows of all inputs.
    Union(Vec<Node>, SchemaRef),
}

impl StreamPlan {
    /// How far before the moment at which it is final a row may reach back in event time; `None` for a rule that keeps
    /// nothing but rows in order.
    pub(crate) fn span_us(&self) -> Option<i64> {
        self.root.span_us(&self.feeds)
    }

    /// Whether it keeps something over rows that are final.
    pub(crate) fn has_stages(&self) -> bool {
        self.root.has_stages()
    }

    /// Whether its rows are final at once, each with the event that it is of.
    pub(crate) fn is_final_at_once(&self) -> bool {
        matches!((&self.root, &self.feeds[..]), (Node::Feed(_), [Feed { hold: Hold::Nothing, .. }]))
    }

    /// How far apart in event time two events can be that share a result, microseconds; else the step that has no bound.
    pub(crate) fn reach_us(&self) -> std::result::Result<i64, &'static str> {
        self.root.reach_us(&self.feeds)
    }
}

impl Node {
    fn has_stages(&self) -> bool {
        match self {
            Self::Feed(_) => false,
            Self::Steps(input, _) => input.has_stages(),
            Self::Union(inputs, _) => inputs.iter().any(Self::has_stages),
            Self::Windows(..) | Self::Over(..) | Self::Sessions(..) | Self::Patterns(..) | Self::Join(..) => true,
        }
    }

    fn span_us(&self, feeds: &[Feed]) -> Option<i64> {
        match self {
            Self::Feed(feed) => match &feeds[*feed].hold {
                Hold::Windows(spec) => Some(spec.size_us.max(spec.final_after_us)),
                Hold::Nothing | Hold::Rows => None,
            },
            Self::Steps(input, _) => input.span_us(feeds),
            Self::Windows(input, spec) => {
                let own_us = spec.size_us.max(spec.final_after_us);
                Some(input.span_us(feeds).unwrap_or(0).saturating_add(own_us))
            }
            Self::Sessions(input, spec) => Some(input.span_us(feeds).unwrap_or(0).saturating_add(spec.gap_us)),
            Self::Over(input, spec) => {
                let own_us = spec.final_after_us.saturating_add(spec.keep.within_us.unwrap_or(0));
                Some(input.span_us(feeds).unwrap_or(0).saturating_add(own_us))
            }
            Self::Patterns(input, spec) => {
                Some(input.span_us(feeds).unwrap_or(0).saturating_add(spec.pattern.bound_us))
            }
            Self::Join(left, right, spec) => {
                let inputs_us = left.span_us(feeds).max(right.span_us(feeds)).unwrap_or(0);
                Some(inputs_us.saturating_add(spec.left.kept_us.max(spec.right.kept_us).max(0)))
            }
            Self::Union(inputs, _) => inputs.iter().filter_map(|input| input.span_us(feeds)).max(),
        }
    }

    fn reach_us(&self, feeds: &[Feed]) -> std::result::Result<i64, &'static str> {
        let beyond = |input: &Self, own_us: i64| Ok(input.reach_us(feeds)?.saturating_add(own_us));
        match self {
            Self::Feed(feed) => Ok(match &feeds[*feed].hold {
                Hold::Windows(spec) => spec.size_us.max(spec.final_after_us),
                Hold::Nothing | Hold::Rows => 0,
            }),
            Self::Steps(input, _) => input.reach_us(feeds),
            Self::Windows(input, spec) => beyond(input, spec.size_us.max(spec.final_after_us)),
            Self::Sessions(..) => Err("a session may last any length of time"),
            Self::Over(input, spec) => match spec.reach_us {
                Some(own_us) => beyond(input, own_us),
                None => Err("a window function that goes by rows reaches back any length of time"),
            },
            Self::Patterns(..) => Err("where a match of a pattern may begin depends on all matches before it"),
            Self::Join(left, right, spec) => {
                let own_us = spec.left.kept_us.max(spec.right.kept_us).max(0).saturating_mul(2);
                let inputs_us = left.reach_us(feeds)?.max(right.reach_us(feeds)?);
                Ok(inputs_us.saturating_add(own_us))
            }
            Self::Union(inputs, _) => inputs.iter().try_fold(0, |reach_us, of| Ok(of.reach_us(feeds)?.max(reach_us))),
        }
    }

    /// Whether each of its rows is final with one event, or one window.
    pub(crate) fn goes_by_one_instant(&self) -> bool {
        match self {
            Self::Feed(_) | Self::Windows(..) => true,
            Self::Steps(input, _) | Self::Over(input, _) => input.goes_by_one_instant(),
            Self::Sessions(..) | Self::Patterns(..) | Self::Join(..) | Self::Union(..) => false,
        }
    }

    /// Whether anything above the feeds keeps state.
    pub(crate) fn keeps_state(&self) -> bool {
        match self {
            Self::Feed(_) => false,
            Self::Steps(input, _) => input.keeps_state(),
            Self::Windows(..) | Self::Over(..) | Self::Sessions(..) | Self::Patterns(..) | Self::Join(..) => true,
            Self::Union(inputs, _) => inputs.iter().any(Self::keeps_state),
        }
    }
}

/// Type coercion and checks of DataFusion. An outer join whose missing rows WHERE drops is an inner one from here on, so that the
/// times in its rows are known to be there.
pub(crate) fn analyze(session: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = session.analyzer().execute_and_check(plan, session.config_options(), |_, _| {})?;
    match Shape::of(&plan)?.outer_join {
        true => apply(session, plan, vec![Arc::new(EliminateOuterJoin::new())]),
        false => Ok(plan),
    }
}

/// Lowers an analysed plan. `in_order`: rows that would be final at once wait, to come out in the order of event time.
pub(crate) fn lower(
    session: &SessionState,
    plan: LogicalPlan,
    in_order: bool,
    references: &Mutex<References>,
) -> std::result::Result<StreamPlan, Problem> {
    check_streams(&plan)?;
    check_values(&plan)?;
    let plan = window_keys::reduce(grouping_sets::expand(plan)?)?;
    let optimized = optimize(session, plan)?;
    let mut lowering = Lowering { session, references, feeds: Vec::new() };
    let root = match lowering.lower(&optimized)? {
        Part::Lane(lane) => {
            let hold = if in_order { Hold::Rows } else { Hold::Nothing };
            lowering.hold(lane, hold, &optimized)
        }
        Part::Final(node) => node,
    };
    Ok(StreamPlan { feeds: lowering.feeds, root, optimized })
}

fn check_streams(plan: &LogicalPlan) -> std::result::Result<(), Refusal> {
    if !all_streams_of(plan).is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        code::NO_STREAM,
        Anchor::From,
        "the query reads no stream, so nothing would ever start it",
        "read a stream or a rule over a stream in FROM, or make it a view",
    ))
}

/// Before aggregates are looked at: one in a subquery has no window, but that is not what is wrong.
fn check_values(plan: &LogicalPlan) -> std::result::Result<(), Refusal> {
    let (mut as_value, mut beside) = (false, false);
    let walked = plan.apply_with_subqueries(|node| {
        // In ON they are conditions as well.
        let is_condition = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                as_value |= matches!(expr, Expr::ScalarSubquery(of) if contains_stream(&of.subquery));
                beside |= !is_condition && matches!(expr, Expr::Exists(_) | Expr::InSubquery(_));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(walked.is_ok(), "walking a plan does not fail");
    match (as_value, beside) {
        (true, _) => Err(subquery_as_value()),
        (false, true) => Err(subquery_outside_where()),
        (false, false) => Ok(()),
    }
}

fn subquery_as_value() -> Refusal {
    Refusal::new(
        code::SUBQUERY,
        Anchor::Subquery,
        "a subquery as a value is not kept up to date on a stream",
        "join it instead: `JOIN limits l ON l.kind = r.kind`, or windows by `a.window_start = b.window_start`",
    )
}

fn subquery_outside_where() -> Refusal {
    Refusal::new(
        code::SUBQUERY,
        Anchor::Subquery,
        "EXISTS and IN (SELECT …) stand in WHERE, alone or within AND, OR and CASE, and nowhere else",
        "as a column, join what it looks for: `LEFT JOIN (SELECT DISTINCT kind FROM limits) l ON l.kind = r.kind`, and ask `l.kind IS NOT NULL`",
    )
}

/// What of a plan some optimiser rules are there for. A rule that has nothing to do still rebuilds the whole plan, and there are
/// hundreds of plans to check.
#[derive(Default)]
struct Shape {
    subquery: bool,
    outer_join: bool,
    /// A join without columns that are equal.
    cross_join: bool,
    join: bool,
}

impl Shape {
    fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut shape = Self::default();
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                shape.subquery |= has_subquery(expr);
                Ok(TreeNodeRecursion::Continue)
            })?;
            if let LogicalPlan::Join(join) = node {
                shape.outer_join |= matches!(join.join_type, JoinType::Left | JoinType::Right | JoinType::Full);
                shape.cross_join |= join.on.is_empty();
                shape.join = true;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(shape)
    }
}

/// Each rule as often as there is work for it: subqueries become joins, and these get the equalities of ON; what WHERE says goes down to
/// where it can be known, and is simplified there, which may make inner joins of outer ones and let it go on. What is computed
/// twice is looked for, and what nobody asks for left out, in the end.
fn optimize(session: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut shape = Shape::of(&plan)?;
    let mut plan = plan;
    if shape.subquery || shape.join {
        let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
        if shape.subquery {
            rules.push(Arc::new(DecorrelatePredicateSubquery::new()));
        }
        rules.push(Arc::new(ExtractEquijoinPredicate::new()));
        plan = apply(session, plan, rules)?;
        shape = Shape::of(&plan)?;
    }
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
    if shape.cross_join {
        rules.push(Arc::new(EliminateCrossJoin::new()));
    }
    rules.push(Arc::new(PushDownFilter::new()));
    rules.push(Arc::new(SimplifyExpressions::new()));
    rules.push(Arc::new(EliminateDuplicatedExpr::new()));
    if shape.outer_join {
        rules.push(Arc::new(EliminateOuterJoin::new()));
    }
    if shape.join {
        rules.push(Arc::new(ExtractEquijoinPredicate::new()));
        rules.push(Arc::new(PushDownFilter::new()));
    }
    rules.push(Arc::new(CommonSubexprEliminate::new()));
    rules.push(Arc::new(OptimizeProjections::new()));
    apply(session, plan, rules)
}

/// Runs each rule once.
fn apply(
    session: &SessionState,
    plan: LogicalPlan,
    rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
) -> Result<LogicalPlan> {
    let context = OptimizerContext::new_with_config_options(Arc::clone(session.config_options()))
        .with_max_passes(1)
        .without_query_execution_start_time()
        .with_skip_failing_rules(false);
    Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {})
}

struct Lowering<'a> {
    session: &'a SessionState,
    references: &'a Mutex<References>,
    feeds: Vec<Feed>,
}

/// A lowered branch.
enum Part {
    /// Rows as they arrive.
    Lane(Lane),
    /// Rows that are final.
    Final(Node),
}

/// A branch that runs in the lanes.
struct Lane {
    stream: String,
    time_column: usize,
    columns: Vec<usize>,
    steps: Vec<Operator>,
}

impl Part {
    fn with(self, step: Operator) -> Self {
        match self {
            Self::Lane(mut lane) => {
                lane.steps.push(step);
                Self::Lane(lane)
            }
            Self::Final(Node::Steps(input, mut steps)) => {
                steps.push(step);
                Self::Final(Node::Steps(input, steps))
            }
            Self::Final(node) => Self::Final(Node::Steps(Box::new(node), vec![step])),
        }
    }
}

impl Lowering<'_> {
    fn lower(&mut self, plan: &LogicalPlan) -> std::result::Result<Part, Problem> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let Some(source) = StreamSource::of(&scan.source) else { return Err(unsupported(plan).into()) };
                let Stream { name, schema, event_time, .. } = &source.stream;
                let columns = scan.projection.clone().unwrap_or_else(|| (0..schema.fields().len()).collect());
                let time_column = schema.index_of(event_time).map_err(DataFusionError::from)?;
                Ok(Part::Lane(Lane { stream: name.clone(), time_column, columns, steps: Vec::new() }))
            }
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                let exprs = self.physical_all(&projection.expr, projection.input.schema())?;
                if is_identity(&exprs, projection.input.schema().fields().len()) {
                    return Ok(input);
                }
                Ok(input.with(Operator::Project { exprs, schema: nullable(projection.schema.as_arrow()) }))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.lower(&filter.input)?;
                let predicate = self.physical(&filter.predicate, filter.input.schema())?;
                Ok(input.with(Operator::Filter(predicate)))
            }
            LogicalPlan::Join(join) => self.lower_join(join),
            LogicalPlan::Aggregate(aggregate) => self.lower_aggregate(aggregate).map(Part::Final),
            LogicalPlan::Window(window) => self.lower_window(window).map(Part::Final),
            LogicalPlan::Unnest(unnest) => {
                let input = self.lower(&unnest.input)?;
                Ok(input.with(Operator::Unnest(Arc::new(lower_unnest(unnest)?))))
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| self.lower_final(input));
                let inputs = inputs.collect::<std::result::Result<_, _>>()?;
                Ok(Part::Final(Node::Union(inputs, nullable(union.schema.as_arrow()))))
            }
            other => Err(unsupported(other).into()),
        }
    }

    /// The branch as final rows: rows that arrive wait until the watermark has passed them.
    fn lower_final(&mut self, plan: &LogicalPlan) -> std::result::Result<Node, Problem> {
        Ok(match self.lower(plan)? {
            Part::Lane(lane) => self.hold(lane, Hold::Rows, plan),
            Part::Final(node) => node,
        })
    }

    /// Ends a branch of the lanes.
    fn hold(&mut self, lane: Lane, hold: Hold, plan: &LogicalPlan) -> Node {
        let schema = nullable(plan.schema().as_arrow());
        let text = plan.display_indent_schema().to_string();
        let Lane { stream, time_column, columns, steps } = lane;
        self.feeds.push(Feed { stream, time_column, columns, steps, hold, schema, text });
        Node::Feed(self.feeds.len() - 1)
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> std::result::Result<Arc<dyn PhysicalExpr>, Problem> {
        if has_subquery(expr) {
            let is_value = expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_))))?;
            return Err(if is_value { subquery_as_value() } else { subquery_outside_where() }.into());
        }
        let context = PhysicalPlanningContext::default();
        let planned = create_physical_expr(expr, schema, self.session.execution_props(), &context)?;
        Ok(with_quick_casts(planned)?)
    }

    fn physical_all(
        &self,
        exprs: &[Expr],
        schema: &DFSchema,
    ) -> std::result::Result<Vec<Arc<dyn PhysicalExpr>>, Problem> {
        exprs.iter().map(|expr| self.physical(expr, schema)).collect()
    }

    fn lower_join(&mut self, join: &Join) -> std::result::Result<Part, Problem> {
        let stream_is_left = contains_stream(&join.left);
        if stream_is_left && contains_stream(&join.right) {
            return self.lower_stream_join(join).map(Part::Final);
        }
        let kind = join_kind(join, stream_is_left)?;
        let (stream, table) = if stream_is_left { (&join.left, &join.right) } else { (&join.right, &join.left) };
        let input = self.lower(stream)?;
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
        let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        let table = references.table(self.session, table, &table_on, &table_keys, null_matches_null)?;
        let schema = nullable(join.schema.as_arrow());
        let join = RefJoin::new(table, kind, stream_keys, condition, stream_is_left, schema);
        Ok(input.with(Operator::RefJoin(Arc::new(join))))
    }

    fn lower_aggregate(&mut self, aggregate: &Aggregate) -> std::result::Result<Node, Problem> {
        let streams = streams_of(&aggregate.input);
        let group = aggregate.group_expr.first().ok_or_else(window_keys::unbounded)?;
        let window = Some(resolve(&aggregate.input, group));
        let paned = window.as_ref().filter(|_| window_panes::holds_panes(&aggregate.input));
        let paned = paned.and_then(window_panes::paned_windows);
        let bin = window.and_then(|window| time_bin_of(&window, &streams)).ok_or_else(window_keys::unbounded)?;
        let part = self.lower(&aggregate.input)?;
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
            let args = args.into_iter().map(with_quick_casts).collect::<Result<_>>()?;
            aggregates.push(Aggregated { function: lowered.aggregate, args, filter: lowered.filter });
        }
        let output_schema = nullable(aggregate.schema.as_arrow());
        let key_fields = output_schema.fields()[1..groups.len()].to_vec();
        let spec = Arc::new(AggregateSpec {
            bin: Arc::clone(&groups[0]),
            size_us: bin.size_us,
            paned,
            final_after_us: bin
                .final_after_us()
                .saturating_add(hold_back_us(&aggregate.input, group).ok_or_else(window_keys::unbounded)?),
            keys: groups[1..].to_vec(),
            key_schema: Arc::new(Schema::new(key_fields)),
            aggregates,
            output_schema,
        });
        spec.check()?;
        Ok(match part {
            Part::Lane(lane) => self.hold(lane, Hold::Windows(spec), &LogicalPlan::Aggregate(aggregate.clone())),
            Part::Final(node) => Node::Windows(Box::new(node), spec),
        })
    }
}

fn is_identity(exprs: &[Arc<dyn PhysicalExpr>], width: usize) -> bool {
    exprs.len() == width
        && exprs
            .iter()
            .enumerate()
            .all(|(at, expr)| expr.downcast_ref::<PhysicalColumn>().is_some_and(|column| column.index() == at))
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
        (JoinType::LeftMark, true) => Ok(RefJoinKind::Mark),
        _ => refuse(
            code::PRESERVED_REFERENCE,
            "this join keeps rows of the reference table that no event matches, and that is known only at the end",
            "put the stream on the kept side: `FROM stream LEFT JOIN reference ON …`",
        ),
    }
}

fn lower_unnest(unnest: &datafusion::logical_expr::Unnest) -> std::result::Result<Unnest, Refusal> {
    let mut lists: Vec<usize> = unnest.list_type_columns.iter().map(|(at, _)| *at).collect();
    lists.dedup();
    let simple = unnest.list_type_columns.iter().all(|(_, list)| list.depth == 1);
    if !simple || lists.len() != unnest.list_type_columns.len() {
        return Err(Refusal::new(
            code::UNSUPPORTED,
            Anchor::Query,
            "UNNEST of lists in lists does not run on a stream",
            "take one level apart at a time, in subqueries",
        ));
    }
    Ok(Unnest {
        lists,
        structs: unnest.struct_type_columns.clone(),
        nulls: unnest.options.null_handling,
        schema: nullable(unnest.schema.as_arrow()),
    })
}

fn unsupported(plan: &LogicalPlan) -> Refusal {
    let shape = match plan {
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
        "use SELECT, WHERE, JOIN to reference tables, GROUP BY in a TUMBLE window, OVER by event time, UNION ALL",
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
