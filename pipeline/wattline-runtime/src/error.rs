//! What can go wrong while a job runs, and what the runtime does about it.

use wattline_core::error::{Kind, Retry};
use wattline_core::record::LaneId;

/// An error of a running job.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A component behind a port failed; kind and retry are its own.
    #[error("{what}")]
    Port {
        /// What was being done, and to what.
        what: String,
        /// Whose move it is.
        kind: Kind,
        /// Whether to try again.
        retry: Retry,
        /// The component's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process took lanes of this one.
    #[error(
        "lanes {lanes} were taken by another process with slot `{slot}` of job `{job}`: stop one of the two, or give each its own slot"
    )]
    Fenced {
        /// The job.
        job: String,
        /// The slot of this process.
        slot: String,
        /// The lanes, as text.
        lanes: String,
    },
    /// A manifest cannot be read.
    #[error("manifest `{path}` cannot be read: {reason}; restore it from a backup or start a new job name")]
    BadManifest {
        /// Object path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A stored object is damaged.
    #[error("object `{path}` is damaged: {reason}")]
    BadObject {
        /// Object path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Records that the manifest still needs are gone from the source.
    #[error(
        "lane {lane} must continue at offset {wanted}, but the source begins at {first}: the records between were lost to retention or deleted; set `on_gap = \"record\"` for the stream to write that down and go on, or restore the topic"
    )]
    OffsetLost {
        /// The lane.
        lane: LaneId,
        /// The offset that the manifest names.
        wanted: i64,
        /// The first one there is.
        first: i64,
    },
    /// The source gives offsets that were read before to other records.
    #[error(
        "lane {lane} must continue at offset {wanted}, and {found}: its offsets mean other records now; raise `topic_life` of the stream by one to read it under a name of its own, from where `start` says, or restore the topic"
    )]
    OffsetsUsedAgain {
        /// The lane.
        lane: LaneId,
        /// The offset that the manifest names.
        wanted: i64,
        /// What the source has instead, as part of a sentence.
        found: String,
    },
    /// What slots told this one is gone, and nobody can tell it again.
    #[error(
        "lane {lane} must continue at offset {wanted}, and {found}: what the other slots told this one is gone, and it is told once; restore the archive from a backup whose messages the topic still has, or go on under a new job name with an archive of its own"
    )]
    InboxLost {
        /// The lane of the inbox.
        lane: LaneId,
        /// The offset that the manifest names.
        wanted: i64,
        /// What the topic has instead, as part of a sentence.
        found: String,
    },
    /// The input had ended, results are given up to the end of time, and there is more.
    #[error(
        "the input of this job had ended, and lane {lane} has records from offset {from} on: a job of several slots gives no results behind the end of its input. Go on under a new job name with an archive of its own, without `--until-end` where more is to come"
    )]
    InputHadEnded {
        /// The lane.
        lane: LaneId,
        /// Where its input had ended.
        from: i64,
    },
    /// Arrow refused a batch that this crate built.
    #[error("building a batch for `{what}` failed")]
    Arrow {
        /// The table or stream.
        what: String,
        /// Arrow's error.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// The state of the rules could not be taken out of them.
    #[error("the state of the rules cannot be sealed: {what}; this is a bug, please report it")]
    State {
        /// What went wrong.
        what: String,
    },
    /// A worker or source thread ended without being told to.
    #[error("the {thread} thread ended unexpectedly; this is a bug, please report the log above")]
    ThreadGone {
        /// Which thread.
        thread: String,
    },
}

impl Error {
    /// Whose move it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Port { kind, .. } => *kind,
            Self::InputHadEnded { .. } => Kind::Invalid,
            Self::Fenced { .. } => Kind::Fenced,
            Self::BadManifest { .. }
            | Self::BadObject { .. }
            | Self::OffsetLost { .. }
            | Self::OffsetsUsedAgain { .. }
            | Self::InboxLost { .. } => Kind::Data,
            Self::Arrow { .. } | Self::State { .. } | Self::ThreadGone { .. } => Kind::Internal,
        }
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Port { retry, .. } => *retry,
            Self::Fenced { .. } => Retry::AfterRestore,
            Self::BadManifest { .. }
            | Self::BadObject { .. }
            | Self::OffsetLost { .. }
            | Self::OffsetsUsedAgain { .. }
            | Self::InboxLost { .. }
            | Self::InputHadEnded { .. }
            | Self::Arrow { .. }
            | Self::State { .. }
            | Self::ThreadGone { .. } => Retry::Never,
        }
    }

    pub(crate) fn arrow(what: &str) -> impl FnOnce(arrow::error::ArrowError) -> Self {
        let what = what.to_owned();
        move |source| Self::Arrow { what, source }
    }
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
