//! Bytes into columns: the records of a stream, typed by its schema, as one Arrow batch.
//!
//! ```text
//!   schemas/<stream>.avsc ──▶ StreamSchema ─┐
//!   mapping (wattline.toml) ─▶ Mapping ─────┴─▶ JsonDecoder | AvroDecoder | CsvDecoder | ColumnDecoder
//!                                                     │
//!   block of raw records ─────────────────────────────┴─▶ Decoded { batch, dead letters, unknown fields }
//! ```
//!
//! Three laws of this crate. An event is typed exactly or refused: nothing is rounded, clamped or guessed unless the
//! mapping says so. A refused event never affects its neighbours. What an event becomes does not depend on how the
//! records are cut into blocks. Time guards, lateness and the system columns are not decided here but in the lane.

mod avro;
mod column;
mod columns;
mod csv;
mod dead_letter;
mod eight;
mod error;
mod instant;
mod json;
mod limits;
mod mapping;
mod names;
mod number;
mod records;
mod rows;
mod scan;
mod schema;
mod shift;

pub use avro::{AvroDecoder, Framing, SchemaFiles, SchemaName, SchemaUnknown, WriterSchemas};
pub use columns::ColumnDecoder;
pub use csv::CsvDecoder;
pub use dead_letter::{DeadLetter, Reason};
pub use error::Error;
pub use json::JsonDecoder;
pub use limits::Limits;
pub use mapping::{Constant, Factor, Mapping, MappingProblem};
pub use records::Records;
pub use rows::Decoded;
pub use schema::{Field, FieldType, SchemaProblem, StreamSchema};
pub use shift::{Later, Shift, ShiftBy};
