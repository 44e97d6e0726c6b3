//! One typed column into the column of a field, value by value where the types differ.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, PrimitiveArray,
    StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;

use crate::column::{Column, Treatment, Unfit, wrong_type};
use crate::dead_letter::{Reason, Refusal, excerpt};
use crate::instant::{date_in_range, in_range, parse_instant};
use crate::json::write_cell;
use crate::limits::Limits;
use crate::number::{Exact, Number};
use crate::schema::{Field, FieldType};

/// Takes note of a refused row.
pub(super) type Refuse<'r> = dyn FnMut(usize, Refusal) + 'r;

/// The columns that can be read value by value, brought to one representative of their kind.
enum Cells {
    Text(StringArray),
    Boolean(BooleanArray),
    Integer(Int64Array),
    Decimal(Decimal128Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Instant(TimestampMicrosecondArray),
}

/// Whether columns of a type can become a field; single values may still be refused.
pub(super) fn is_convertible(from: &DataType, field_type: &FieldType) -> bool {
    if *from == field_type.arrow() {
        return true;
    }
    let to_number = field_type.is_numeric();
    match from {
        DataType::Dictionary(_, value) => is_convertible(value, field_type),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Boolean => *field_type == FieldType::Boolean,
        DataType::Timestamp(_, Some(_)) => *field_type == FieldType::Instant,
        from if from.is_integer() => {
            to_number || matches!(field_type, FieldType::Instant | FieldType::Boolean | FieldType::Text)
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => to_number,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => to_number,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
            matches!(field_type, FieldType::List { item: to, .. } if is_convertible(item.data_type(), to))
        }
        DataType::Map(..) => matches!(field_type, FieldType::Map { .. }),
        _ => false,
    }
}

/// The column of a field from a column of the input; the rows whose value does not fit are null in it.
pub(super) fn convert(
    array: &ArrayRef,
    field: &Field,
    treatment: &Treatment,
    limits: &Limits,
    refuse: &mut Refuse<'_>,
) -> Result<ArrayRef, ArrowError> {
    let to = field.field_type.arrow();
    if let DataType::Timestamp(unit, Some(_)) = array.data_type()
        && *array.data_type() != to
        && field.field_type == FieldType::Instant
    {
        let instants: ArrayRef = Arc::new(to_microseconds(array, *unit).with_data_type(to));
        refuse_unfit(&instants, field, refuse);
        return Ok(instants);
    }
    let untreated = treatment.factor.is_none() && !matches!(field.field_type, FieldType::Symbol(_));
    if *array.data_type() == to && untreated {
        refuse_unfit(array, field, refuse);
        return Ok(Arc::clone(array));
    }
    if matches!(field.field_type, FieldType::List { .. } | FieldType::Map { .. }) && array.data_type().is_nested() {
        return convert_nested(array, field, &to, refuse);
    }
    let mut column = Column::new(&field.field_type, true);
    let cells = Cells::new(array)?;
    for row in 0..array.len() {
        if array.is_null(row) {
            continue;
        }
        column.pad_to(row);
        if let Err(unfit) = cells.write(row, &mut column, treatment, limits) {
            column.truncate(row);
            refuse(row, refusal(field, unfit, &cells.show(row)));
        }
    }
    column.finish(array.len())
}

/// The zones of a column of instants, if it is text.
pub(super) fn zones(array: &ArrayRef, field_type: &FieldType) -> Result<ArrayRef, ArrowError> {
    let mut column = Column::new(field_type, true);
    if let Cells::Text(texts) = Cells::new(array)? {
        for (row, text) in texts.iter().enumerate() {
            let offset = text.and_then(|text| parse_instant(text).ok()).and_then(|instant| instant.offset_min);
            let Some(offset_min) = offset else { continue };
            column.pad_to(row);
            if column.write_exact(Exact::integer(i128::from(offset_min)), &Treatment::default()).is_err() {
                column.truncate(row);
            }
        }
    }
    column.finish(array.len())
}

/// A column of the right type may still hold what the other formats cannot say.
fn refuse_unfit(array: &ArrayRef, field: &Field, refuse: &mut Refuse<'_>) {
    match field.field_type {
        FieldType::Float64 => refuse_where::<Float64Type>(array, field, |v| v.is_finite(), refuse),
        FieldType::Float32 => refuse_where::<Float32Type>(array, field, |v| v.is_finite(), refuse),
        FieldType::Instant => {
            refuse_where::<TimestampMicrosecondType>(array, field, |v| in_range(v).is_some(), refuse);
        }
        FieldType::Date => refuse_where::<Date32Type>(array, field, |v| date_in_range(v).is_some(), refuse),
        FieldType::Boolean
        | FieldType::Int32
        | FieldType::Int64
        | FieldType::Decimal { .. }
        | FieldType::Text
        | FieldType::Symbol(_)
        | FieldType::List { .. }
        | FieldType::Map { .. } => {}
    }
}

fn refuse_where<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    field: &Field,
    fits: impl Fn(T::Native) -> bool,
    refuse: &mut Refuse<'_>,
) {
    let values: &PrimitiveArray<T> = array.as_primitive();
    // Nearly always all do, those behind nulls too.
    if values.values().iter().fold(true, |all, value| all & fits(*value)) {
        return;
    }
    for (row, value) in values.iter().enumerate() {
        if let Some(value) = value.filter(|value| !fits(*value)) {
            let unfit = Unfit { reason: Reason::OutOfRange, wanted: "a finite value in range" };
            refuse(row, refusal(field, unfit, &format!("{value:?}")));
        }
    }
}

/// Lists and maps: all at once if every value fits, else row by row.
fn convert_nested(
    array: &ArrayRef,
    field: &Field,
    to: &DataType,
    refuse: &mut Refuse<'_>,
) -> Result<ArrayRef, ArrowError> {
    let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let convert = |array: &dyn Array| arrow::compute::cast_with_options(array, to, &strict);
    if let Ok(converted) = convert(array) {
        return Ok(converted);
    }
    let mut rows = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        let converted = convert(&array.slice(row, 1));
        if converted.is_err() {
            refuse(row, refusal(field, wrong_type("a list or map of the field's type"), "a value inside"));
        }
        rows.push(converted.unwrap_or_else(|_refused| arrow::array::new_null_array(to, 1)));
    }
    let rows: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    arrow::compute::concat(&rows)
}

fn refusal(field: &Field, unfit: Unfit, value: &str) -> Refusal {
    Refusal::new(unfit.reason, format!("`{}`: `{}` is not {}", field.name, excerpt(value), unfit.wanted))
}

impl Cells {
    fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let to = |data_type| cast(array, &data_type);
        Ok(match array.data_type() {
            DataType::Dictionary(_, value) => return Self::new(&cast(array, value)?),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(to(DataType::Utf8)?.as_string().clone())
            }
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::UInt64 => Self::Decimal(to(DataType::Decimal128(20, 0))?.as_primitive().clone()),
            from if from.is_integer() => Self::Integer(to(DataType::Int64)?.as_primitive().clone()),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
                Self::Decimal(to(DataType::Decimal128(38, *scale))?.as_primitive().clone())
            }
            DataType::Float16 | DataType::Float32 => Self::Float32(to(DataType::Float32)?.as_primitive().clone()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().clone()),
            DataType::Timestamp(unit, Some(_)) => Self::Instant(to_microseconds(array, *unit)),
            other => return Err(ArrowError::CastError(format!("`{other}` is not read value by value"))),
        })
    }

    fn write(&self, row: usize, column: &mut Column, treatment: &Treatment, limits: &Limits) -> Result<(), Unfit> {
        match self {
            Self::Text(values) => write_cell(column, values.value(row), treatment, limits).map(drop),
            Self::Boolean(values) => column.write_boolean(values.value(row)),
            Self::Integer(_) | Self::Float32(_) => self.write_number(row, column, treatment),
            Self::Float64(_) => self.write_number(row, column, treatment),
            Self::Decimal(values) => {
                let exact = Exact { digits: values.value(row), exponent: -i32::from(values.scale()) };
                column.write_exact(exact, treatment)
            }
            Self::Instant(values) => column.write_instant_us(values.value(row)),
        }
    }

    /// Numbers by the decimal that a person would write for them: 235.4, also where a float is a little beside it.
    fn write_number(&self, row: usize, column: &mut Column, treatment: &Treatment) -> Result<(), Unfit> {
        let text = self.show(row);
        let number = Number::parse(&text).ok_or(Unfit { reason: Reason::OutOfRange, wanted: "a finite number" })?;
        column.write_number(number, treatment)
    }

    fn show(&self, row: usize) -> String {
        match self {
            Self::Text(values) => values.value(row).to_owned(),
            Self::Boolean(values) => values.value(row).to_string(),
            Self::Integer(values) => values.value(row).to_string(),
            Self::Decimal(values) => values.value_as_string(row),
            Self::Float32(values) => values.value(row).to_string(),
            Self::Float64(values) => values.value(row).to_string(),
            Self::Instant(values) => format!("{} microseconds since 1970", values.value(row)),
        }
    }
}

/// Instants in microseconds, finer ones cut off downwards; beyond 64 bits they become the last instant, which is refused.
fn to_microseconds(array: &ArrayRef, unit: TimeUnit) -> TimestampMicrosecondArray {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().unary(|v| v.saturating_mul(1_000_000)),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().unary(|v| v.saturating_mul(1_000)),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().clone(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().unary(|v| v.div_euclid(1_000)),
    }
}
