//! What can be wrong before the first event: a schema, a mapping, a header, a column type.
//!
//! Events that cannot be typed are not errors; see [`crate::DeadLetter`].

use wattline_core::error::{Kind, Retry};

use crate::mapping::MappingProblem;
use crate::schema::SchemaProblem;

/// Why a decoder could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A schema file has mistakes.
    #[error("schema `{origin}` has {} mistake(s): {}", problems.len(), first(problems))]
    Schema {
        /// Where the schema came from.
        origin: String,
        /// All of its mistakes.
        problems: Vec<SchemaProblem>,
    },
    /// A mapping does not fit its schema.
    #[error("mapping of stream `{stream}` has {} mistake(s): {}", problems.len(), first(problems))]
    Mapping {
        /// The stream.
        stream: String,
        /// All of its mistakes.
        problems: Vec<MappingProblem>,
    },
    /// The first line of a CSV file does not name the columns.
    #[error("the header of the CSV input of stream `{stream}` cannot be used: {what}")]
    Header {
        /// The stream.
        stream: String,
        /// What is wrong and what to write.
        what: String,
    },
    /// A typed column cannot become a field of the stream.
    #[error("column `{column}` cannot be read as stream `{stream}`: {what}")]
    Column {
        /// The stream.
        stream: String,
        /// The column of the input.
        column: String,
        /// What is wrong and what to do.
        what: String,
    },
}

impl Error {
    /// Whose move it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Schema { .. } | Self::Mapping { .. } => Kind::Invalid,
            Self::Header { .. } | Self::Column { .. } => Kind::Data,
        }
    }

    /// Whether trying again helps: it never does, all of these are functions of their input.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Schema { .. } | Self::Mapping { .. } | Self::Header { .. } | Self::Column { .. } => Retry::Never,
        }
    }
}

fn first<P: std::fmt::Display>(problems: &[P]) -> String {
    problems.first().map_or_else(String::new, ToString::to_string)
}
