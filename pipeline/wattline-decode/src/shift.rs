//! Instants that are meant later than they are written.
//!
//! A reading of an interval bears the instant at which the interval ends. Head ends that stamp its start are put right here, before
//! anything goes by time: `shift = { ts = "15 minutes" }` for a stream, and where sources of both kinds share one,
//! `shift = { ts = { by = "source", values = { "head-end 3" = "15 minutes" } } }`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde::de::{self, Deserialize, Deserializer};
use wattline_core::time::parse_duration_ms;

use crate::mapping::Mapping;
use crate::schema::StreamSchema;

/// How much later an instant is than the payload says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(
    untagged,
    expecting = "a duration such as \"15 minutes\", or `{ by = \"source\", values = { \"head-end 3\" = \"15 minutes\" } }`"
)]
pub enum Shift {
    /// Of every event.
    All(Later),
    /// Of some events; others stay as they are.
    By(ShiftBy),
}

/// How much later the instants of those events are whose field has one of these values.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShiftBy {
    /// A text field of the stream.
    pub by: String,
    /// Value → shift; of an enum, values that it has.
    pub values: BTreeMap<String, Later>,
}

/// A duration, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later(i64);

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ms = parse_duration_ms(&text).map_err(de::Error::custom)?;
        ms.checked_mul(1_000).map(Self).ok_or_else(|| de::Error::custom(format!("`{text}` is too long")))
    }
}

/// The shifts of a stream, by position.
#[derive(Debug)]
pub(crate) struct Shifts(Vec<(usize, Of)>);

#[derive(Debug)]
enum Of {
    All(i64),
    By { field: usize, values: BTreeMap<String, Later> },
}

impl Shifts {
    /// Those of a mapping that fits the schema.
    pub(crate) fn new(mapping: &Mapping, schema: &StreamSchema) -> Self {
        let of = |(name, shift): (&String, &Shift)| {
            let of = match shift {
                Shift::All(later) => Of::All(later.0),
                Shift::By(ShiftBy { by, values }) => Of::By { field: schema.index_of(by)?, values: values.clone() },
            };
            Some((schema.index_of(name)?, of))
        };
        Self(mapping.shift.iter().filter_map(of).collect())
    }

    pub(crate) fn apply(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.0.is_empty() {
            return Ok(batch);
        }
        let mut columns = batch.columns().to_vec();
        for (at, of) in &self.0 {
            columns[*at] = match of {
                Of::All(us) => later(&columns[*at], |_row| *us),
                Of::By { field, values } => {
                    let texts = batch.column(*field).as_string::<i32>();
                    let of_row = |row: usize| (!texts.is_null(row)).then(|| values.get(texts.value(row))).flatten();
                    later(&columns[*at], |row| of_row(row).map_or(0, |later| later.0))
                }
            };
        }
        RecordBatch::try_new(batch.schema(), columns)
    }
}

fn later(instants: &ArrayRef, shift_us: impl Fn(usize) -> i64) -> ArrayRef {
    let instants = instants.as_primitive::<TimestampMicrosecondType>();
    let shifted = instants.values().iter().enumerate().map(|(row, us)| us.saturating_add(shift_us(row))).collect();
    let shifted = PrimitiveArray::<TimestampMicrosecondType>::new(shifted, instants.nulls().cloned());
    Arc::new(shifted.with_data_type(instants.data_type().clone()))
}
