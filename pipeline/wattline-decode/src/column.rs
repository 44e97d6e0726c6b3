//! One growing column: typed storage, conversion into it, undo.
//!
//! Conversion from text, number or boolean lives here and only here, so a value means the same in JSON, CSV, Parquet and
//! the mapping's constants.
//!
//! A column is padded lazily: a row that says nothing about it costs nothing, the nulls are appended when the next
//! value arrives or the batch ends. Of the seventy columns of a wide reading a payload fills fifteen; the others are never
//! touched, and share one array of nulls from batch to batch. Undoing a refused row is a truncation.

mod validity;
mod write;

pub(crate) use write::{Zone, wrong_type};

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int32Array, Int64Array, ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Fields};
use arrow::error::ArrowError;

use validity::Validity;

use crate::dead_letter::Reason;
use crate::number::{Exact, Shape};
use crate::schema::FieldType;

/// What a column does to a number on its way in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Treatment {
    /// Multiplies every number. Boxed: it is rare, and asking for it must cost one comparison on every value.
    pub(crate) factor: Option<Box<Exact>>,
    /// Digits beyond the scale are rounded, not refused.
    pub(crate) round: bool,
}

/// A value that cannot be stored: why, and what would have been right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// Why.
    pub(crate) reason: Reason,
    /// What the column takes, in words that end "… is not".
    pub(crate) wanted: &'static str,
}

/// Text storage: what a `StringArray` is made of.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

/// The storage of a column, by type.
#[derive(Debug)]
pub(crate) enum Values {
    Boolean(BooleanBufferBuilder),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: i8 },
    Text(Texts),
    Symbol { texts: Texts, symbols: Arc<[Box<str>]> },
    Instant(Vec<i64>),
    Date(Vec<i32>),
    List { ends: Vec<i32>, items: Box<Column> },
    Map { ends: Vec<i32>, keys: Texts, values: Box<Column> },
}

/// One growing column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) values: Values,
    data_type: DataType,
    /// Whether a null may stand here (matters for the items of lists and maps).
    pub(crate) nullable: bool,
    validity: Validity,
    /// Of the number written last.
    pub(crate) shape: Shape,
    spare: Option<ArrayRef>,
}

impl Texts {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn last(&self) -> i32 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Appends a text; refused if the column would outgrow 32-bit offsets.
    #[inline]
    pub(crate) fn push(&mut self, text: &str) -> Result<(), Unfit> {
        let end = i32::try_from(self.bytes.len() + text.len())
            .map_err(|_overflow| Unfit { reason: Reason::TooLarge, wanted: "small enough for one batch" })?;
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(end);
        Ok(())
    }

    /// Appends a text that lies in `source`; `None`, and nothing appended, if the column would outgrow 32-bit offsets.
    ///
    /// Short texts are copied as so many bytes as fit in a register, whatever their length, and cut to it.
    #[inline]
    pub(crate) fn push_part(&mut self, source: &[u8], start: usize, end: usize) -> Option<()> {
        let kept = self.bytes.len() + (end - start);
        let last = i32::try_from(kept).ok()?;
        match source[start..].first_chunk::<16>() {
            Some(chunk) if end - start <= 16 => {
                self.bytes.extend_from_slice(chunk);
                self.bytes.truncate(kept);
            }
            _ => self.bytes.extend_from_slice(&source[start..end]),
        }
        self.ends.push(last);
        Some(())
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(usize::try_from(self.last()).unwrap_or(0));
    }

    /// Whether one of the texts from `start` on equals `text`.
    fn contains_from(&self, start: usize, text: &str) -> bool {
        let begin = |k: usize| if k == 0 { 0 } else { self.ends[k - 1] as usize };
        (start..self.len()).any(|k| &self.bytes[begin(k)..self.ends[k] as usize] == text.as_bytes())
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Vec<u8>) {
        (offsets(renew(&mut self.ends)), renew(&mut self.bytes))
    }
}

impl Column {
    /// An empty column.
    pub(crate) fn new(field_type: &FieldType, nullable: bool) -> Self {
        Self {
            values: Values::new(field_type),
            data_type: field_type.arrow(),
            nullable,
            validity: Validity::default(),
            shape: Shape::default(),
            spare: None,
        }
    }

    /// Number of rows so far, padding not included.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.validity.len()
    }

    /// Pads with nulls up to `row`, so that the next value becomes that row's.
    #[inline]
    pub(crate) fn pad_to(&mut self, row: usize) {
        let missing = row - self.len();
        if missing > 0 {
            self.values.pad(missing);
            self.validity.append_nulls(missing);
        }
    }

    /// Forgets row `len` and what follows, and any half-written value.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.validity.truncate(len);
    }

    /// Bytes of text and list items so far; the growth between two calls is what a message made of itself.
    pub(crate) fn text_bytes(&self) -> usize {
        match &self.values {
            Values::Text(texts) | Values::Symbol { texts, .. } => texts.bytes.len(),
            Values::List { items, .. } => items.text_bytes() + items.len() * size_of::<i32>(),
            Values::Map { keys, values, .. } => keys.bytes.len() + values.text_bytes(),
            Values::Boolean(_)
            | Values::Int32(_)
            | Values::Int64(_)
            | Values::Float32(_)
            | Values::Float64(_)
            | Values::Decimal { .. }
            | Values::Instant(_)
            | Values::Date(_) => 0,
        }
    }

    /// Ends the batch at `rows` rows and starts the next one.
    pub(crate) fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        if self.len() == 0 {
            return Ok(self.all_null(rows));
        }
        self.pad_to(rows);
        let nulls = self.validity.finish();
        Ok(match &mut self.values {
            Values::Boolean(bits) => Arc::new(BooleanArray::new(bits.finish(), nulls)),
            Values::Int32(values) => Arc::new(Int32Array::try_new(renew(values).into(), nulls)?),
            Values::Int64(values) => Arc::new(Int64Array::try_new(renew(values).into(), nulls)?),
            Values::Float32(values) => Arc::new(Float32Array::try_new(renew(values).into(), nulls)?),
            Values::Float64(values) => Arc::new(Float64Array::try_new(renew(values).into(), nulls)?),
            Values::Decimal { values, precision, scale } => Arc::new(
                Decimal128Array::try_new(renew(values).into(), nulls)?.with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Text(texts) | Values::Symbol { texts, .. } => {
                let (offsets, bytes) = texts.take();
                Arc::new(StringArray::try_new(offsets, bytes.into(), nulls)?)
            }
            Values::Instant(values) => {
                Arc::new(TimestampMicrosecondArray::try_new(renew(values).into(), nulls)?.with_timezone("UTC"))
            }
            Values::Date(values) => Arc::new(Date32Array::try_new(renew(values).into(), nulls)?),
            Values::List { ends, items } => {
                let DataType::List(field) = &self.data_type else {
                    return Err(ArrowError::SchemaError(format!("`{}` is not a list", self.data_type)));
                };
                let items_count = items.len();
                Arc::new(ListArray::try_new(
                    Arc::clone(field),
                    offsets(std::mem::take(ends)),
                    items.finish(items_count)?,
                    nulls,
                )?)
            }
            Values::Map { ends, keys, values } => {
                let DataType::Map(field, _) = &self.data_type else {
                    return Err(ArrowError::SchemaError(format!("`{}` is not a map", self.data_type)));
                };
                let DataType::Struct(entry_fields) = field.data_type() else {
                    return Err(ArrowError::SchemaError(format!("`{field}` is not a map entry")));
                };
                let entries = finish_entries(entry_fields, keys, values)?;
                Arc::new(MapArray::try_new(Arc::clone(field), offsets(std::mem::take(ends)), entries, nulls, false)?)
            }
        })
    }

    fn all_null(&mut self, rows: usize) -> ArrayRef {
        if let Some(spare) = self.spare.as_ref().filter(|spare| spare.len() >= rows) {
            return spare.slice(0, rows);
        }
        let nulls = new_null_array(&self.data_type, rows);
        self.spare = Some(Arc::clone(&nulls));
        nulls
    }
}

impl Values {
    fn new(field_type: &FieldType) -> Self {
        match field_type {
            FieldType::Boolean => Self::Boolean(BooleanBufferBuilder::new(0)),
            FieldType::Int32 => Self::Int32(Vec::new()),
            FieldType::Int64 => Self::Int64(Vec::new()),
            FieldType::Float32 => Self::Float32(Vec::new()),
            FieldType::Float64 => Self::Float64(Vec::new()),
            FieldType::Decimal { precision, scale } => {
                Self::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            FieldType::Text => Self::Text(Texts::default()),
            FieldType::Symbol(symbols) => Self::Symbol { texts: Texts::default(), symbols: Arc::clone(symbols) },
            FieldType::Instant => Self::Instant(Vec::new()),
            FieldType::Date => Self::Date(Vec::new()),
            FieldType::List { item, nullable } => {
                Self::List { ends: Vec::new(), items: Box::new(Column::new(item, *nullable)) }
            }
            FieldType::Map { nullable } => Self::Map {
                ends: Vec::new(),
                keys: Texts::default(),
                values: Box::new(Column::new(&FieldType::Text, *nullable)),
            },
        }
    }

    fn pad(&mut self, count: usize) {
        match self {
            Self::Boolean(bits) => bits.append_n(count, false),
            Self::Int32(values) | Self::Date(values) => values.resize(values.len() + count, 0),
            Self::Int64(values) | Self::Instant(values) => values.resize(values.len() + count, 0),
            Self::Float32(values) => values.resize(values.len() + count, 0.0),
            Self::Float64(values) => values.resize(values.len() + count, 0.0),
            Self::Decimal { values, .. } => values.resize(values.len() + count, 0),
            Self::Text(texts) | Self::Symbol { texts, .. } => {
                let last = texts.last();
                texts.ends.resize(texts.ends.len() + count, last);
            }
            Self::List { ends, .. } | Self::Map { ends, .. } => {
                let last = ends.last().copied().unwrap_or(0);
                ends.resize(ends.len() + count, last);
            }
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Self::Boolean(bits) => bits.truncate(len),
            Self::Int32(values) | Self::Date(values) => values.truncate(len),
            Self::Int64(values) | Self::Instant(values) => values.truncate(len),
            Self::Float32(values) => values.truncate(len),
            Self::Float64(values) => values.truncate(len),
            Self::Decimal { values, .. } => values.truncate(len),
            Self::Text(texts) | Self::Symbol { texts, .. } => texts.truncate(len),
            Self::List { ends, items } => {
                ends.truncate(len);
                items.truncate(last_end(ends));
            }
            Self::Map { ends, keys, values } => {
                ends.truncate(len);
                keys.truncate(last_end(ends));
                values.truncate(last_end(ends));
            }
        }
    }
}

/// Takes the values and leaves room for as many and some more: the next batch is likely to be about as long as this one, and
/// one value too many would copy all of them into twice the room.
fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len() + values.len() / 8);
    std::mem::replace(values, next)
}

fn last_end(ends: &[i32]) -> usize {
    ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
}

/// Offsets from ends: a zero in front.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut all = Vec::with_capacity(ends.len() + 1);
    all.push(0);
    all.extend_from_slice(&ends);
    OffsetBuffer::new(all.into())
}

fn finish_entries(fields: &Fields, keys: &mut Texts, values: &mut Column) -> Result<StructArray, ArrowError> {
    let count = keys.len();
    let (key_offsets, key_bytes) = keys.take();
    let keys: ArrayRef = Arc::new(StringArray::try_new(key_offsets, key_bytes.into(), None)?);
    StructArray::try_new(fields.clone(), vec![keys, values.finish(count)?], None)
}
