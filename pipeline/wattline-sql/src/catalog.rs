//! What rules may name: streams, reference tables, and the functions of the session.
//!
//! One [`Catalog`] owns one DataFusion `SessionState`; streaming, batch queries and rule tests all plan
//! through it, so that the same text means the same plan everywhere. Two settings of it matter for
//! exactness: number literals with a point are decimals, and everything is planned in UTC.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::TableSource;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::prelude::SessionConfig;

use crate::error::Error;
use crate::functions;
use crate::logical::{Coercions, ConstantIntervals, NamedSubqueries, TruncatedDates};
use crate::user_functions::UserFunctions;

/// The columns the runtime appends to every stream batch, in this order.
pub const SYSTEM_COLUMNS: [&str; 5] = ["_topic", "_partition", "_offset", "_index", "_lateness_ms"];

/// A named, typed flow of events.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The name rules use.
    pub name: String,
    /// The columns of its schema, then the [`SYSTEM_COLUMNS`].
    pub schema: SchemaRef,
    /// The event-time column: `Timestamp(Microsecond, "UTC")`, not null.
    pub event_time: String,
    /// The declared key; informational here.
    pub key: Vec<String>,
    /// Lateness tolerated by rules that do not say otherwise, milliseconds.
    pub delay_ms: i64,
}

/// A table that rules join to, whole in memory.
#[derive(Debug, Clone)]
pub struct ReferenceTable {
    /// The name rules use.
    pub name: String,
    /// Its columns; `valid_from` and `valid_to` (`Timestamp(Microsecond, "UTC")`, null = open) make it versioned.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
}

/// Streams, reference tables and functions.
#[derive(Debug, Clone)]
pub struct Catalog {
    streams: BTreeMap<String, Arc<StreamSource>>,
    references: BTreeMap<String, Reference>,
    session: Arc<SessionState>,
}

#[derive(Debug, Clone)]
struct Reference {
    table: ReferenceTable,
    provider: Arc<MemTable>,
}

/// A stream as the planner sees it: a source that no plan can read, only recognise.
#[derive(Debug)]
pub(crate) struct StreamSource {
    pub(crate) stream: Stream,
}

impl TableSource for StreamSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.stream.schema)
    }
}

impl StreamSource {
    pub(crate) fn of(source: &Arc<dyn TableSource>) -> Option<&Self> {
        (source.as_ref() as &dyn Any).downcast_ref::<Self>()
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    /// A catalog with all functions and no tables.
    #[must_use]
    pub fn new() -> Self {
        Self { streams: BTreeMap::new(), references: BTreeMap::new(), session: Arc::new(session().build()) }
    }

    /// A catalog with further functions and no tables.
    ///
    /// # Errors
    /// [`Error::FunctionTaken`] if the name of one is that of another.
    pub fn with_functions(functions: &UserFunctions) -> Result<Self, Error> {
        let plain = Self::new();
        functions.check(&plain.session)?;
        let mut builder = session();
        functions.extend(&mut builder);
        Ok(Self { session: Arc::new(builder.build()), ..plain })
    }

    /// Adds a stream.
    ///
    /// # Errors
    /// [`Error::NameTaken`]; [`Error::Stream`] if the event time or a system column is missing or has another type.
    pub fn add_stream(&mut self, stream: Stream) -> Result<(), Error> {
        self.refuse_taken(&stream.name, "a stream")?;
        let refuse = |problem: String| Err(Error::Stream { stream: stream.name.clone(), problem });
        match stream.schema.column_with_name(&stream.event_time) {
            None => return refuse(format!("has no column `{}` for its event time", stream.event_time)),
            Some((_, field)) if *field.data_type() != event_time_type() => {
                return refuse(format!(
                    "has event time `{}` of type {}: make it a timestamp in microseconds, UTC",
                    stream.event_time,
                    field.data_type()
                ));
            }
            Some(_) => {}
        }
        for name in SYSTEM_COLUMNS {
            if stream.schema.column_with_name(name).is_none() {
                return refuse(format!("lacks the system column `{name}`"));
            }
        }
        self.streams.insert(stream.name.clone(), Arc::new(StreamSource { stream }));
        Ok(())
    }

    /// Adds a reference table.
    ///
    /// # Errors
    /// [`Error::NameTaken`]; [`Error::Reference`] if a batch does not have the table's schema.
    pub fn add_reference(&mut self, table: ReferenceTable) -> Result<(), Error> {
        self.refuse_taken(&table.name, "a reference table")?;
        let provider = MemTable::try_new(Arc::clone(&table.schema), vec![table.batches.clone()])
            .map_err(|source| Error::Reference { table: table.name.clone(), source: Box::new(source) })?;
        self.references.insert(table.name.clone(), Reference { table, provider: Arc::new(provider) });
        Ok(())
    }

    /// The same catalog with other rows in some reference tables: what a rule test overrides.
    ///
    /// # Errors
    /// As [`Self::add_reference`].
    pub fn with_references(&self, tables: Vec<ReferenceTable>) -> Result<Self, Error> {
        let mut catalog = self.clone();
        for table in tables {
            catalog.references.remove(&table.name);
            catalog.add_reference(table)?;
        }
        Ok(catalog)
    }

    /// The same catalog with another delay of the streams that have one.
    #[must_use]
    pub(crate) fn with_delay(&self, delay_ms: i64) -> Self {
        let mut catalog = self.clone();
        for source in catalog.streams.values_mut().filter(|source| source.stream.delay_ms != 0) {
            *source = Arc::new(StreamSource { stream: Stream { delay_ms, ..source.stream.clone() } });
        }
        catalog
    }

    /// All streams, by name.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values().map(|source| &source.stream)
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.get(name).map(|source| &source.stream)
    }

    /// All reference tables, by name.
    pub fn references(&self) -> impl Iterator<Item = &ReferenceTable> {
        self.references.values().map(|reference| &reference.table)
    }

    pub(crate) fn sources(&self) -> BTreeMap<String, Arc<dyn TableSource>> {
        let streams =
            self.streams.iter().map(|(name, stream)| (name.clone(), Arc::clone(stream) as Arc<dyn TableSource>));
        let references = self.references.iter().map(|(name, reference)| {
            (name.clone(), provider_as_source(Arc::clone(&reference.provider) as Arc<dyn TableProvider>))
        });
        streams.chain(references).collect()
    }

    pub(crate) fn session(&self) -> &Arc<SessionState> {
        &self.session
    }

    pub(crate) fn kind_of(&self, name: &str) -> Option<&'static str> {
        if self.streams.contains_key(name) {
            Some("a stream")
        } else {
            self.references.contains_key(name).then_some("a reference table")
        }
    }

    fn refuse_taken(&self, name: &str, second: &'static str) -> Result<(), Error> {
        match self.kind_of(name) {
            Some(first) => Err(Error::NameTaken { name: name.to_owned(), first, second }),
            None => Ok(()),
        }
    }
}

/// The type of every event time.
#[must_use]
pub fn event_time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn session() -> SessionStateBuilder {
    let config = SessionConfig::new().with_target_partitions(1).with_create_default_catalog_and_schema(false);
    with_functions(SessionStateBuilder::new().with_default_features().with_config(settings(config)))
}

/// What makes the same text mean the same in every session.
pub(crate) fn settings(mut config: SessionConfig) -> SessionConfig {
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some("UTC".into());
    config
}

/// DataFusion's functions and wattline's own.
///
/// Types that meet are made one as rules mean it, before DataFusion does. One optimiser rule is left out: it splits `sum(x), count(DISTINCT y)` into two aggregations, and a decimal sum of decimal
/// sums then has a wider type than the plan says, so that the query fails.
pub(crate) fn with_functions(builder: SessionStateBuilder) -> SessionStateBuilder {
    let rules = Optimizer::new().rules.into_iter();
    let rules = rules.filter(|rule| rule.name() != SingleDistinctToGroupBy::new().name()).collect();
    let own: [Arc<dyn AnalyzerRule + Send + Sync>; 3] =
        [Arc::new(NamedSubqueries), Arc::new(TruncatedDates), Arc::new(Coercions)];
    let analyzer = own.into_iter().chain(Analyzer::new().rules).collect();
    let mut builder = builder.with_optimizer_rules(rules).with_analyzer_rules(analyzer);
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(ConstantIntervals));
    builder.scalar_functions().get_or_insert_default().extend(functions::scalar_functions());
    builder.window_functions().get_or_insert_default().extend(functions::window_functions());
    builder.aggregate_functions().get_or_insert_default().extend(functions::aggregate_functions());
    builder
}
