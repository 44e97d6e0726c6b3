//! Which Arrow types an archive table may have, how they are written in a Delta schema, and how batches get there.
//!
//! Tables stay at reader version 1 so that every engine reads them. That leaves no unsigned integers and no zoneless
//! timestamps, and one string type:
//!
//! | batch column (Arrow) | table column (Arrow) | Delta |
//! |---|---|---|
//! | Boolean | Boolean | `boolean` |
//! | Int8, Int16, Int32, Int64 | the same | `byte`, `short`, `integer`, `long` |
//! | UInt8, UInt16, UInt32 | Int16, Int32, Int64 | `short`, `integer`, `long` |
//! | UInt64 | Decimal128(20, 0) | `decimal(20,0)` |
//! | Float16, Float32 / Float64 | Float32 / Float64 | `float` / `double` |
//! | Decimal32, 64, 128(p, s) with 0 ≤ s ≤ p | Decimal128(p, s) | `decimal(p,s)` |
//! | Utf8, LargeUtf8, Utf8View | Utf8 | `string` |
//! | Binary, LargeBinary, BinaryView, FixedSizeBinary | Binary | `binary` |
//! | Date32, Date64 | Date32 | `date` |
//! | Timestamp(any unit, any zone or none) | Timestamp(µs, UTC) | `timestamp` |
//! | Dictionary(_, T) | as T | as T |
//! | List, LargeList of T; Struct of T…; Map of K to V | the same of the mapped types | `array`, `struct`, `map` |
//!
//! A zoneless timestamp is taken as UTC, in which all event time is reckoned. Everything else (time of day, intervals,
//! durations, Null) is refused by name. All columns are nullable in the table: a column that is never null today
//! may be absent in an older file or in tomorrow's rule.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Name of the partition column that every dated table has.
pub(crate) const EVENT_DATE: &str = "event_date";

/// What Delta forbids in column names at these protocol versions.
const NAME_FORBIDDEN: [char; 10] = [' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// The table's form of `schema`: mapped types, all columns nullable, metadata kept.
pub(crate) fn table_schema(table: &str, schema: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if field.name() == EVENT_DATE {
            return Err(refused(
                table,
                EVENT_DATE,
                "this name belongs to the partition column: call the column otherwise",
            ));
        }
        if field.name().is_empty() || field.name().contains(NAME_FORBIDDEN) {
            let detail = "other engines cannot read a column of this name: give it a plain one with `AS`";
            return Err(refused(table, field.name(), detail));
        }
        if fields.iter().any(|seen| seen.name().eq_ignore_ascii_case(field.name())) {
            return Err(refused(
                table,
                field.name(),
                "two columns have this name (upper and lower case count as one): rename one",
            ));
        }
        fields.push(table_field(table, field)?);
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn table_field(table: &str, field: &Field) -> Result<Field> {
    let data_type = table_type(table, field.name(), field.data_type())?;
    Ok(Field::new(field.name(), data_type, true).with_metadata(field.metadata().clone()))
}

fn table_type(table: &str, column: &str, data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64 => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s)
            if *s >= 0 && u8::try_from(*s).is_ok_and(|scale| scale <= *p) =>
        {
            DataType::Decimal128(*p, *s)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => table_type(table, column, values)?,
        DataType::List(item) | DataType::LargeList(item) => DataType::List(Arc::new(table_field(table, item)?)),
        DataType::Struct(fields) => {
            let fields: Result<Vec<Field>> = fields.iter().map(|field| table_field(table, field)).collect();
            DataType::Struct(fields?.into())
        }
        DataType::Map(entries, _) if map_fields(entries).is_some() => map_type(table, column, entries)?,
        other => {
            return Err(refused(
                table,
                column,
                &format!("type {other} cannot be stored: cast it, for example to VARCHAR, BIGINT, DOUBLE or TIMESTAMP"),
            ));
        }
    })
}

/// Key and value of a map's entries.
fn map_fields(entries: &Field) -> Option<(&Field, &Field)> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Some((&fields[0], &fields[1])),
        _ => None,
    }
}

/// A map as Delta has it: keys are never null, values may be.
fn map_type(table: &str, column: &str, entries: &Field) -> Result<DataType> {
    let Some((key, value)) = map_fields(entries) else {
        return Err(refused(table, column, "a map needs keys and values"));
    };
    let key = Field::new("key", table_type(table, column, key.data_type())?, false);
    let value = Field::new("value", table_type(table, column, value.data_type())?, true);
    let entries = Field::new("key_value", DataType::Struct(vec![key, value].into()), false);
    Ok(DataType::Map(Arc::new(entries), false))
}

/// The `schemaString` of the Delta log for a table schema, with [`EVENT_DATE`] after its columns if it is partitioned.
pub(crate) fn delta_schema(schema: &Schema, partitioned: bool) -> Value {
    let mut fields: Vec<Value> = schema.fields().iter().map(|field| delta_field(field)).collect();
    if partitioned {
        let doc = json!({ "comment": "UTC date of the event time; the partition" });
        fields.push(json!({ "name": EVENT_DATE, "type": "date", "nullable": true, "metadata": doc }));
    }
    json!({ "type": "struct", "fields": fields })
}

/// One column as the Delta log writes it; field metadata (units, confidentiality tags) goes along.
pub(crate) fn delta_field(field: &Field) -> Value {
    json!({
        "name": field.name(),
        "type": delta_type(field.data_type()),
        "nullable": true,
        "metadata": field.metadata(),
    })
}

/// Covers every type that [`table_type`] gives; another is written by its Arrow name, which no reader takes.
fn delta_type(data_type: &DataType) -> Value {
    match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int16 => json!("short"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal128(p, s) => json!(format!("decimal({p},{s})")),
        DataType::Binary => json!("binary"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(_, _) => json!("timestamp"),
        DataType::List(item) => {
            json!({ "type": "array", "elementType": delta_type(item.data_type()), "containsNull": true })
        }
        DataType::Struct(fields) => {
            let fields: Vec<Value> = fields.iter().map(|field| delta_field(field)).collect();
            json!({ "type": "struct", "fields": fields })
        }
        DataType::Utf8 => json!("string"),
        DataType::Map(entries, _) if map_fields(entries).is_some() => {
            let types =
                map_fields(entries).map(|(key, value)| (delta_type(key.data_type()), delta_type(value.data_type())));
            let (key, value) = types.unwrap_or_default();
            json!({ "type": "map", "keyType": key, "valueType": value, "valueContainsNull": true })
        }
        other => json!(other.to_string()),
    }
}

/// What a table must gain so that rows of `wanted` fit, or the column that forbids it.
///
/// Columns that the table has and `wanted` lacks stay and are written as null.
pub(crate) fn columns_to_add(table: &str, existing: &Schema, wanted: &Schema) -> Result<Vec<Field>> {
    let mut missing = Vec::new();
    for field in wanted.fields() {
        match existing.fields().iter().find(|have| have.name().eq_ignore_ascii_case(field.name())) {
            None => missing.push(field.as_ref().clone()),
            Some(have) if have.name() == field.name() && same_type(have.data_type(), field.data_type()) => {}
            Some(have) => {
                let (is, will_be) = (have.data_type(), field.data_type());
                return Err(refused(
                    table,
                    field.name(),
                    &format!(
                        "the table has `{}` of type {is}, new rows bring type {will_be}: {}",
                        have.name(),
                        instead_of_another_type(is, will_be)
                    ),
                ));
            }
        }
    }
    Ok(missing)
}

/// What to do instead. Readers at version 1 know one type of a column for all files of a table, so a wider one does not fit either.
fn instead_of_another_type(is: &DataType, will_be: &DataType) -> &'static str {
    if is_wider(will_be, is) {
        "the column of a table cannot be widened, as its readers know one type for all files. Keep the old type, and values \
         beyond it are refused one by one, or give the wider values another name: in a schema add a field of the wider type, \
         make the old one optional and set `rename` in the mapping; in a rule write another name after AS"
    } else {
        "cast the column to the old type, give it another name, or write to another table"
    }
}

/// Whether a type holds all that another one holds, and more.
fn is_wider(wide: &DataType, narrow: &DataType) -> bool {
    let bits = |of: &DataType| match of {
        DataType::Int8 => 8,
        DataType::Int16 => 16,
        DataType::Int32 => 32,
        DataType::Int64 => 64,
        _ => 0,
    };
    match (narrow, wide) {
        (DataType::Float32, DataType::Float64) => true,
        (DataType::Decimal128(p, s), DataType::Decimal128(wide_p, wide_s)) => {
            let whole = |p: u8, s: i8| i16::from(p) - i16::from(s);
            wide_s >= s && whole(*wide_p, *wide_s) >= whole(*p, *s)
        }
        _ => bits(narrow) > 0 && bits(wide) > bits(narrow),
    }
}

/// Equal but for names of list items, nullability and metadata, which a table does not keep.
fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_type(a.data_type(), b.data_type()),
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && same_type(a.data_type(), b.data_type()))
        }
        (DataType::Map(a, _), DataType::Map(b, _)) => match (map_fields(a), map_fields(b)) {
            (Some((ak, av)), Some((bk, bv))) => {
                same_type(ak.data_type(), bk.data_type()) && same_type(av.data_type(), bv.data_type())
            }
            _ => false,
        },
        (a, b) => a == b,
    }
}

/// `batch` in the table's columns, order and types; absent columns become null. Copies only what must be cast.
///
/// # Errors
/// [`Error::TableSettings`] for a column that the table does not have or a value that does not fit.
pub(crate) fn conform(table: &str, schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    for field in batch.schema_ref().fields() {
        if schema.column_with_name(field.name()).is_none() {
            return Err(refused(
                table,
                field.name(),
                "the table has no such column: call `ensure_table` with the new schema first",
            ));
        }
    }
    let columns: Result<Vec<ArrayRef>> = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => {
                cast(column, field.data_type()).map_err(|source| refused(table, field.name(), &source.to_string()))
            }
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns?, &options)
        .map_err(|source| Error::Columns { operation: "conform a batch to its table", source: Box::new(source) })
}

fn refused(table: &str, column: &str, detail: &str) -> Error {
    Error::TableSettings { table: table.to_owned(), column: column.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Int32Array, StringArray, TimestampSecondArray, UInt64Array};

    use super::*;

    #[test]
    fn types_are_mapped_and_refused_by_name() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8View));
        let schema = Schema::new(vec![
            Field::new("a", dictionary, false),
            Field::new("b", DataType::UInt64, false),
            Field::new("c", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        ]);
        let mapped = table_schema("t", &schema).unwrap();
        let types: Vec<String> =
            mapped.fields().iter().map(|field| delta_type(field.data_type()).to_string()).collect();
        assert_eq!(types, ["\"string\"", "\"decimal(20,0)\"", "\"timestamp\""]);
        let bad = Schema::new(vec![Field::new("span", DataType::Duration(TimeUnit::Second), true)]);
        assert!(table_schema("t", &bad).unwrap_err().to_string().contains("`span`"));
        let unnamed = Schema::new(vec![Field::new("count(*)", DataType::Int64, false)]);
        assert!(table_schema("t", &unnamed).unwrap_err().to_string().contains("`count(*)`"));
        let twice = Schema::new(vec![Field::new("x", DataType::Int8, true), Field::new("X", DataType::Int8, true)]);
        assert!(table_schema("t", &twice).unwrap_err().to_string().contains("`X`"));
    }

    #[test]
    fn batches_conform() {
        let target = table_schema(
            "t",
            &Schema::new(vec![
                Field::new("id", DataType::Utf8, false),
                Field::new("n", DataType::UInt64, true),
                Field::new("ts", DataType::Timestamp(TimeUnit::Second, None), true),
                Field::new("later", DataType::Float64, true),
            ]),
        )
        .unwrap();
        let batch = RecordBatch::try_from_iter([
            ("ts", Arc::new(TimestampSecondArray::from(vec![1, 2])) as ArrayRef),
            ("id", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef),
            ("n", Arc::new(UInt64Array::from(vec![u64::MAX, 1])) as ArrayRef),
        ])
        .unwrap();
        let conformed = conform("t", &target, &batch).unwrap();
        assert_eq!(conformed.schema(), target);
        assert_eq!(conformed.column(3).null_count(), 2);
        let foreign = RecordBatch::try_from_iter([("zz", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(conform("t", &target, &foreign).unwrap_err().to_string().contains("`zz`"));
    }

    #[test]
    fn evolution_adds_and_refuses() {
        let old = Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)]);
        let new = Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("c", DataType::Utf8, true)]);
        let added = columns_to_add("t", &old, &new).unwrap();
        assert_eq!(added.iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["c"]);
        let clash = Schema::new(vec![Field::new("b", DataType::Int32, true)]);
        let text = columns_to_add("t", &old, &clash).unwrap_err().to_string();
        assert!(text.contains("`b`") && text.contains("Int32"), "{text}");
    }

    #[test]
    fn a_wider_type_is_refused_with_the_way_around_it() {
        let refusal = |old: DataType, new: DataType| {
            let schema = |of| Schema::new(vec![Field::new("a", of, true)]);
            columns_to_add("t", &schema(old), &schema(new)).unwrap_err().to_string()
        };
        let decimal = DataType::Decimal128;
        for (old, new, is_wider) in [
            (DataType::Int32, DataType::Int64, true),
            (DataType::Float32, DataType::Float64, true),
            (decimal(12, 2), decimal(14, 4), true),
            (decimal(12, 2), decimal(12, 4), false),
            (DataType::Int64, DataType::Int32, false),
            (DataType::Utf8, DataType::Int64, false),
        ] {
            let text = refusal(old, new);
            assert_eq!(text.contains("cannot be widened"), is_wider, "{text}");
        }
    }
}
