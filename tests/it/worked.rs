//! Worked examples of the field's standards: `tests/worked/examples.jsonl` says what must come out of which values, and
//! `tests/worked/<id>.sql` is the query that says it, as a rule or a report would.
//!
//! A query reads `example`, a table with a row for each record of its id: column `n` numbers them, the others are the inputs. An object
//! is a column for each of its keys, `same_as` brings the inputs of the record that it names. Numbers are DOUBLE, or BIGINT where
//! all records have whole ones; lists that mix numbers and text are of text. Each record is there twice, so that rows which mix are
//! seen. Numbers have to be those of the file, digit by digit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use serde_json::{Map, Value};
use wattline_sql::UserFunctions;

use crate::tree;

const RECORDS: usize = 93;

struct Record {
    id: String,
    inputs: Map<String, Value>,
    outputs: Map<String, Value>,
}

#[tokio::test]
async fn queries_give_what_the_standards_work_out() -> Result<()> {
    let folder = tree::root()?.join("tests/worked");
    let records = records(&std::fs::read_to_string(folder.join("examples.jsonl"))?)?;
    ensure!(records.len() == RECORDS, "there are {} records", records.len());
    let ids: BTreeSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
    let mut wrong = Vec::new();
    for id in ids {
        let of_id: Vec<&Record> = records.iter().filter(|record| record.id == id).collect();
        let path = folder.join(format!("{id}.sql"));
        let sql = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let rows = run(&sql, &given(&of_id, &records)?).await.with_context(|| id.to_owned())?;
        ensure!(rows.len() == 2 * of_id.len(), "{id}: {} rows of {} records", rows.len(), of_id.len());
        for mut row in rows {
            let n = row.remove("n").and_then(|n| n.as_u64()).with_context(|| format!("{id}: no `n`"))?;
            let record = of_id[usize::try_from(n)? % of_id.len()];
            if !is_same(&Value::Object(row.clone()), &Value::Object(record.outputs.clone())) {
                wrong.push(format!(
                    "{id} {n}:\n  got      {}\n  expected {}",
                    Value::Object(row),
                    Value::Object(record.outputs.clone())
                ));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn records(text: &str) -> Result<Vec<Record>> {
    let object = |value: &Value, key: &str| value[key].as_object().cloned().with_context(|| format!("no `{key}`"));
    text.lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line)?;
            let id = value["id"].as_str().context("no id")?.to_owned();
            Ok(Record { id, inputs: object(&value, "inputs")?, outputs: object(&value, "outputs")? })
        })
        .collect()
}

/// The table of the records of one id.
fn given(of_id: &[&Record], all: &[Record]) -> Result<RecordBatch> {
    let rows: Vec<Map<String, Value>> = of_id.iter().map(|record| flat(&record.inputs, all)).collect::<Result<_>>()?;
    let names: BTreeSet<&String> = rows.iter().flat_map(Map::keys).collect();
    let values_of = |name: &str| -> Vec<&Value> { rows.iter().filter_map(|row| row.get(name)).collect() };
    let types: BTreeMap<&String, DataType> = names.iter().map(|name| (*name, type_of(&values_of(name)))).collect();
    let fields = types.iter().map(|(name, data_type)| Field::new(name.as_str(), data_type.clone(), true));
    let schema =
        Arc::new(Schema::new([Field::new("n", DataType::Int64, false)].into_iter().chain(fields).collect::<Vec<_>>()));
    let mut lines = String::new();
    for (n, row) in rows.iter().chain(&rows).enumerate() {
        let mut line: Map<String, Value> =
            row.iter().map(|(name, value)| (name.clone(), of_type(value, &types[name]))).collect();
        line.insert("n".to_owned(), n.into());
        lines += &format!("{}\n", Value::Object(line));
    }
    let mut reader = arrow::json::ReaderBuilder::new(schema).build(lines.as_bytes())?;
    reader.next().context("no rows")?.map_err(Into::into)
}

fn flat(inputs: &Map<String, Value>, all: &[Record]) -> Result<Map<String, Value>> {
    let mut row = Map::new();
    for (name, value) in inputs {
        match value {
            Value::Object(parts) => row.extend(parts.iter().map(|(key, part)| (format!("{name}_{key}"), part.clone()))),
            Value::String(id) if name == "same_as" => {
                let other = all.iter().find(|record| record.id == *id).with_context(|| format!("no record of {id}"))?;
                row.extend(flat(&other.inputs, all)?);
            }
            other => _ = row.insert(name.clone(), other.clone()),
        }
    }
    Ok(row)
}

fn type_of(values: &[&Value]) -> DataType {
    if values.iter().any(|value| value.is_array()) {
        let items: Vec<&Value> = values.iter().filter_map(|value| value.as_array()).flatten().collect();
        let item = match type_of(&items) {
            DataType::Int64 => DataType::Float64,
            other => other,
        };
        return DataType::List(Arc::new(Field::new_list_field(item, true)));
    }
    let mut known = values.iter().filter(|value| !value.is_null());
    if known.clone().all(|value| value.is_i64()) {
        DataType::Int64
    } else if known.clone().all(|value| value.is_number()) {
        DataType::Float64
    } else if known.all(|value| value.is_boolean()) {
        DataType::Boolean
    } else {
        DataType::Utf8
    }
}

/// A number in a list of texts is a text.
fn of_type(value: &Value, data_type: &DataType) -> Value {
    match (value, data_type) {
        (Value::Array(items), DataType::List(item)) => {
            items.iter().map(|value| of_type(value, item.data_type())).collect()
        }
        (Value::Number(number), DataType::Utf8) => Value::String(number.to_string()),
        _ => value.clone(),
    }
}

async fn run(sql: &str, example: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    let context = wattline_sql::query::query_context(&UserFunctions::default())?;
    let table = MemTable::try_new(example.schema(), vec![vec![example.clone()]])?;
    context.register_table("example", Arc::new(table))?;
    let frame = wattline_sql::query::query(&context, sql).await.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    for batch in frame.collect().await? {
        writer.write(&batch)?;
    }
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner())?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn is_same(got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Number(got), Value::Number(expected)) => got.as_f64() == expected.as_f64(),
        (Value::Array(got), Value::Array(expected)) => {
            got.len() == expected.len() && got.iter().zip(expected).all(|(got, expected)| is_same(got, expected))
        }
        (Value::Object(got), Value::Object(expected)) => {
            let is_there = |(key, expected)| got.get(key).is_some_and(|got| is_same(got, expected));
            got.len() == expected.len() && expected.iter().all(is_there)
        }
        _ => got == expected,
    }
}
