//! The statistics that a Delta commit carries for each file, taken from the Parquet footer that was just written.
//!
//! Readers skip files by them, so a bound may be wide but never wrong: strings are bounded by their truncated prefix
//! (the writer rounds upper bounds up), decimals beyond 15 digits and columns with a row group of unknown bounds (only
//! NaN) get no bounds. As Delta asks, the first 32 leaf columns count; the sort columns and the lateness are
//! added because queries filter by them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, DecimalType, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
};
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Leaf columns that get statistics by their position, the number Delta's own writers use.
const INDEXED_COLUMNS: usize = 32;
/// Decimals up to so many digits survive the way through a JSON number.
const DECIMAL_DIGITS_EXACT: u8 = 15;

/// The `stats` JSON of one file. `also` names columns beyond the first 32 that get bounds too.
pub(super) fn delta_stats(schema: &Schema, metadata: &ParquetMetaData, also: &[&str]) -> Result<String> {
    let (mut lows, mut highs, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (position, field) in schema.fields().iter().enumerate() {
        let wanted = position < INDEXED_COLUMNS || also.contains(&field.name().as_str());
        if !wanted || field.data_type().is_nested() {
            continue;
        }
        let bounds = column_bounds(schema, field.name(), metadata).map_err(|source| Error::Parquet {
            path: "statistics of a new file".to_owned(),
            source: Box::new(source),
        })?;
        nulls.insert(field.name().clone(), json!(bounds.nulls));
        if let Some((low, high)) = bounds.low.zip(bounds.high) {
            lows.insert(field.name().clone(), low);
            highs.insert(field.name().clone(), high);
        }
    }
    let rows = metadata.file_metadata().num_rows();
    Ok(json!({ "numRecords": rows, "minValues": lows, "maxValues": highs, "nullCount": nulls }).to_string())
}

struct Bounds {
    nulls: u64,
    low: Option<Value>,
    high: Option<Value>,
}

fn column_bounds(schema: &Schema, column: &str, metadata: &ParquetMetaData) -> parquet::errors::Result<Bounds> {
    let converter = StatisticsConverter::try_new(column, schema, metadata.file_metadata().schema_descr())?;
    let groups = metadata.row_groups();
    let nulls_of = converter.row_group_null_counts(groups)?;
    let (lows, highs) = (converter.row_group_mins(groups)?, converter.row_group_maxes(groups)?);
    let known = groups.iter().enumerate().all(|(i, group)| {
        let all_null = nulls_of.is_valid(i) && i64::try_from(nulls_of.value(i)) == Ok(group.num_rows());
        all_null || (lows.is_valid(i) && highs.is_valid(i))
    });
    let nulls = nulls_of.iter().flatten().sum();
    if !known {
        return Ok(Bounds { nulls, low: None, high: None });
    }
    Ok(Bounds { nulls, low: extreme(&lows, false), high: extreme(&highs, true) })
}

/// Least or greatest of the row groups' bounds as the JSON that Delta reads for the type; `None` if it has none.
fn extreme(values: &ArrayRef, greatest: bool) -> Option<Value> {
    fn of<T: ArrowPrimitiveType>(values: &ArrayRef, greatest: bool) -> Option<T::Native>
    where
        T::Native: arrow::array::ArrowNativeTypeOp,
    {
        let values = values.as_primitive::<T>();
        if greatest { max(values) } else { min(values) }
    }
    match values.data_type() {
        DataType::Int8 => of::<Int8Type>(values, greatest).map(|v| json!(v)),
        DataType::Int16 => of::<Int16Type>(values, greatest).map(|v| json!(v)),
        DataType::Int32 => of::<Int32Type>(values, greatest).map(|v| json!(v)),
        DataType::Int64 => of::<Int64Type>(values, greatest).map(|v| json!(v)),
        DataType::Float32 => of::<Float32Type>(values, greatest).filter(|v| v.is_finite()).map(|v| json!(v)),
        DataType::Float64 => of::<Float64Type>(values, greatest).filter(|v| v.is_finite()).map(|v| json!(v)),
        DataType::Decimal128(precision, scale) if *precision <= DECIMAL_DIGITS_EXACT => {
            let text = Decimal128Type::format_decimal(of::<Decimal128Type>(values, greatest)?, *precision, *scale);
            text.parse::<f64>().ok().map(|v| json!(v))
        }
        DataType::Date32 => {
            date32_to_datetime(of::<Date32Type>(values, greatest)?).map(|at| json!(at.date().to_string()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            timestamp_us_to_datetime(of::<TimestampMicrosecondType>(values, greatest)?)
                .map(|at| json!(at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()))
        }
        DataType::Utf8 => {
            let values = values.as_string::<i32>();
            if greatest { max_string(values) } else { min_string(values) }.map(|v| json!(v))
        }
        _ => None,
    }
}
