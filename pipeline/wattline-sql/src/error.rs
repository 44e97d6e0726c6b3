//! What can go wrong in this crate once rules are compiled; mistakes of rules are [`crate::Diagnostic`]s instead.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use wattline_core::error::{Kind, Retry};

/// A failure that is not the mistake of one rule file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A reference table could not be read by the planner.
    #[error("reference table `{table}` cannot be loaded: {source}; check its schema and its rows")]
    Reference {
        /// The table, or the part of a query over it.
        table: String,
        /// What DataFusion said.
        #[source]
        source: Box<DataFusionError>,
    },
    /// A stream, reference table or rule is named twice.
    #[error("`{name}` names both {first} and {second}: rename one of them")]
    NameTaken {
        /// The name.
        name: String,
        /// What had it first.
        first: &'static str,
        /// What wants it too.
        second: &'static str,
    },
    /// A function that a program brings along has a name that is taken.
    #[error("there is a function `{name}` already: give yours another name")]
    FunctionTaken {
        /// The name.
        name: String,
    },
    /// A stream's declaration does not fit its schema.
    #[error("stream `{stream}` {problem}")]
    Stream {
        /// The stream.
        stream: String,
        /// What does not fit, as the rest of a sentence.
        problem: String,
    },
    /// No rule of that id.
    #[error("there is no rule `{rule}`; run `wattline check` to list the rules")]
    UnknownRule {
        /// The id asked for.
        rule: String,
    },
    /// A query over batches failed.
    #[error("query failed: {source}")]
    Query {
        /// What DataFusion said.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The state of a rule does not have the shape its plan asks for.
    #[error("state of rule `{rule}` does not fit its plan: {source}; it was written by another version of the rule")]
    State {
        /// The rule's id.
        rule: String,
        /// What DataFusion said.
        #[source]
        source: Box<DataFusionError>,
    },
    /// State that memory does not hold could not be put on disk, or read from there.
    #[error("{source}; the folder is `[run] scratch` in the configuration")]
    Scratch {
        /// It could not be put there, and is still in memory.
        is_kept: bool,
        /// What the disk said.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The thread that plans the rules could not be started or ended in a panic.
    #[error("the planner could not run: {reason}")]
    Planner {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whose move this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Reference { .. }
            | Self::NameTaken { .. }
            | Self::FunctionTaken { .. }
            | Self::Stream { .. }
            | Self::UnknownRule { .. } => Kind::Invalid,
            Self::Query { .. } => Kind::Data,
            Self::Scratch { .. } => Kind::Unavailable,
            Self::State { .. } | Self::Planner { .. } => Kind::Internal,
        }
    }

    /// Whether the same call may succeed later: only if the disk did not take something, as all else is a function of its input,
    /// or lost.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Reference { .. }
            | Self::NameTaken { .. }
            | Self::FunctionTaken { .. }
            | Self::Stream { .. }
            | Self::UnknownRule { .. }
            | Self::Query { .. }
            | Self::State { .. }
            | Self::Planner { .. } => Retry::Never,
            Self::Scratch { is_kept: true, .. } => Retry::Backoff,
            Self::Scratch { is_kept: false, .. } => Retry::AfterRestore,
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(source: DataFusionError) -> Self {
        Self::Query { source: Box::new(source) }
    }
}

impl From<ArrowError> for Error {
    fn from(source: ArrowError) -> Self {
        Self::Query { source: Box::new(source.into()) }
    }
}
