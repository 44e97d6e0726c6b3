//! What goes between rules and the runtime: rows, state deltas, failures.

use arrow::array::RecordBatch;

/// Output rows of one rule.
#[derive(Debug, Clone)]
pub struct RuleRows {
    /// Index into [`RuleSet::rules`](crate::RuleSet::rules).
    pub rule: usize,
    /// Rows in the rule's output schema.
    pub batch: RecordBatch,
    /// Row by row the event each row came from: `_topic` Utf8, `_partition` Int32, `_offset` Int64, `_index` Int32.
    /// `None` for rows of a window.
    pub identity: Option<RecordBatch>,
}

/// A rule that failed on a row. All other rules go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFailure {
    /// Index into [`RuleSet::rules`](crate::RuleSet::rules).
    pub rule: usize,
    /// The lane in which the rule is now quarantined; `None` if a final row could not be computed: that row
    /// is left out, the rule goes on.
    pub lane: Option<u32>,
    /// Row number in the batch that was pushed.
    pub row: Option<usize>,
    /// Kafka partition of the failing event.
    pub partition: Option<i32>,
    /// Offset of the failing event. Events before it are processed, this one and later ones are not.
    pub offset: Option<i64>,
    /// What failed.
    pub message: String,
}

/// What a lane's program made of one batch.
#[derive(Debug, Clone, Default)]
pub struct LaneOutput {
    /// Rows of stateless rules.
    pub rows: Vec<RuleRows>,
    /// Rules that failed.
    pub errors: Vec<RuleFailure>,
}

/// State rows: partial results of one window, or condition rows that wait for the watermark.
///
/// A plain batch without dictionaries of its own making: it goes through Arrow IPC as it is.
#[derive(Debug, Clone)]
pub struct StateDelta {
    /// Index into [`RuleSet::states`](crate::RuleSet::states).
    pub state: usize,
    /// The watermark that makes all of it final, microseconds since the epoch: the end of the window, the end of time for
    /// condition rows.
    pub final_at_us: i64,
    /// The rows.
    pub batch: RecordBatch,
}

/// What the stages of one rule keep over final rows: one part of it.
#[derive(Debug, Clone)]
pub struct StageState {
    /// Index into [`RuleSet::rules`](crate::RuleSet::rules).
    pub rule: usize,
    /// Up to which watermark the stages had taken rows in, microseconds since the epoch.
    pub taken_us: i64,
    /// Which stage, and which part of its state.
    pub part: usize,
    /// The rows.
    pub batch: RecordBatch,
}

/// What became final.
#[derive(Debug, Clone, Default)]
pub struct FinalOutput {
    /// Final rows: windows in order of time, in a window in order of its group columns; condition rows in order
    /// of (event time, identity).
    pub rows: Vec<RuleRows>,
    /// Rows that could not be computed.
    pub errors: Vec<RuleFailure>,
    /// Rules that failed as a whole, with what failed: nothing more comes from them.
    pub stopped: Vec<(usize, String)>,
    /// This is a part of it: the rest comes with the next call.
    pub more: bool,
}

impl FinalOutput {
    /// Whether there is nothing in it to be taken in.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.errors.is_empty() && self.stopped.is_empty()
    }
}
