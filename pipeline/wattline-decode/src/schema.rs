//! The schema of a stream, read from an Avro schema file.
//!
//! One file types every payload format: Avro's own binary form, JSON, CSV and Parquet. Beyond Avro a record says
//! `event_time` (the field that orders the stream) and `key` (the fields that name the entity); a field may say `unit`
//! and `confidential`.
//!
//! | Avro | column |
//! |---|---|
//! | boolean, int, long, float, double | Boolean, Int32, Int64, Float32, Float64 |
//! | string, enum | Utf8 |
//! | bytes with `decimal` | Decimal128(precision, scale) |
//! | long with `timestamp-micros`, `timestamp-millis` | Timestamp(microsecond, UTC) |
//! | int with `date` | Date32 |
//! | array of one of these | List |
//! | map of string | Map(Utf8, Utf8) |
//! | union of null and one of these | the same, nullable |
//!
//! Everything else is refused with what to write instead. Lists and map entries carry the inner names that the Delta
//! readers use (`element`, `key_value`), so that no batch is cast on its way to the archive.

mod json_tree;
mod parse;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, SchemaRef, TimeUnit};

/// The typed shape of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSchema {
    /// Name of the stream's record.
    pub name: String,
    /// What an event of the stream is.
    pub doc: Option<String>,
    /// Where the schema was read from.
    pub origin: String,
    /// The fields, in the order of the columns.
    pub fields: Vec<Field>,
    /// The Arrow schema: required fields are not nullable; field metadata has `doc`, `unit`, `confidential`.
    pub arrow: SchemaRef,
    /// Index of the field that holds the event time.
    pub event_time: usize,
    /// Names of the fields that name the entity.
    pub key: Vec<String>,
}

/// One field of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub field_type: FieldType,
    /// Whether every event must have it.
    pub required: bool,
    /// What it means.
    pub doc: Option<String>,
    /// Its unit of measure.
    pub unit: Option<String>,
    /// Why it must not be shown to everyone, such as `personal`.
    pub confidential: Option<String>,
}

/// The type of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldType {
    /// True or false.
    Boolean,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// 32-bit float.
    Float32,
    /// 64-bit float.
    Float64,
    /// Exact decimal.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// Text.
    Text,
    /// One of these texts.
    Symbol(Arc<[Box<str>]>),
    /// Microseconds since the epoch, UTC.
    Instant,
    /// Days since the epoch.
    Date,
    /// A list.
    List {
        /// Type of its items: never a list or map.
        item: Box<FieldType>,
        /// Whether an item may be null.
        nullable: bool,
    },
    /// Texts by text.
    Map {
        /// Whether a value may be null.
        nullable: bool,
    },
}

/// One mistake in a schema file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaProblem {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The bytes of the file that are wrong.
    pub span: Range<usize>,
}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl StreamSchema {
    /// Reads a schema file; `origin` is its path or name.
    ///
    /// # Errors
    /// All mistakes of the file at once, in the order of their places.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Vec<SchemaProblem>> {
        parse::parse(text, origin)
    }

    /// Index of a field by its name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The field that holds the event time.
    pub fn event_time_field(&self) -> &Field {
        &self.fields[self.event_time]
    }

    /// The name among the fields that is nearest to a wrong one.
    pub(crate) fn nearest(&self, wrong: &str) -> Option<&str> {
        nearest(wrong, self.fields.iter().map(|field| field.name.as_str()))
    }
}

impl FieldType {
    /// The Arrow type of its column.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::Text | Self::Symbol(_) => DataType::Utf8,
            Self::Instant => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::List { item, nullable } => {
                DataType::List(Arc::new(ArrowField::new("element", item.arrow(), *nullable)))
            }
            Self::Map { nullable } => {
                let key = ArrowField::new("key", DataType::Utf8, false);
                let value = ArrowField::new("value", DataType::Utf8, *nullable);
                let entry = DataType::Struct(vec![key, value].into());
                DataType::Map(Arc::new(ArrowField::new("key_value", entry, false)), false)
            }
        }
    }

    /// Whether values are numbers, so that they can be scaled.
    pub fn is_numeric(&self) -> bool {
        matches!(self, Self::Int32 | Self::Int64 | Self::Float32 | Self::Float64 | Self::Decimal { .. })
    }
}

impl Field {
    fn arrow(&self) -> ArrowField {
        let tags = [("doc", &self.doc), ("unit", &self.unit), ("confidential", &self.confidential)];
        let metadata: HashMap<String, String> =
            tags.into_iter().filter_map(|(tag, value)| Some((tag.to_owned(), value.clone()?))).collect();
        ArrowField::new(&self.name, self.field_type.arrow(), !self.required).with_metadata(metadata)
    }
}

/// The candidate that someone who wrote `wrong` most likely meant.
pub(crate) fn nearest<'c>(wrong: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(wrong, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
