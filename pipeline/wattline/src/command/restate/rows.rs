//! The rows of a rule's table that hold now, and which of them a restatement changes.
//!
//! Rows are told apart by all columns but floating-point ones, as `<table>_current` does. Where rows alike in these differ in
//! number or in a float, all of them are withdrawn and all that should be are inserted: so the view, which takes the newest rows
//! of a kind, gives exactly those. Floats that are equal but for the order of a sum are equal.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, ident, lit};
use wattline_connect::archive::Archive;
use wattline_core::record::column;
use wattline_sql::query::{holds_floats, query_context, register_current};
use wattline_sql::{CompiledRule, UserFunctions};

/// By how much of the larger one two floats may differ that were summed in another order.
const RELATIVE_ERROR: f64 = 1e-9;
/// The same near zero.
const ABSOLUTE_ERROR: f64 = 1e-12;

/// Which rows are restated, by their event time in microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from_us: i64,
    /// The last instant.
    pub(super) until_us: i64,
    /// The end as it was asked for.
    pub(super) to_us: i64,
}

/// The rows of a table that hold now.
pub(super) struct Out {
    /// With all columns of the table, but for those that say what a row is.
    pub(super) full: RecordBatch,
    /// In the columns of the rule; those that the table lacks are null.
    pub(super) rows: RecordBatch,
    /// Whether it has the columns `_change` and `_revision`.
    pub(super) has_change: bool,
    /// The highest revision of the whole table.
    pub(super) revision: i64,
}

/// Reads the rows of the rule's table that hold now and lie in the period.
pub(super) async fn rows_out(archive: &Archive, rule: &CompiledRule, period: &Period) -> Result<Out> {
    let table = &rule.header.id;
    if !archive.table_names().await?.contains(table) {
        let none = RecordBatch::new_empty(Arc::clone(&rule.output_schema));
        return Ok(Out { full: none.clone(), rows: none, has_change: false, revision: 0 });
    }
    let session = query_context(&UserFunctions::default())?;
    session.register_table(table.as_str(), archive.provider(table).await?)?;
    register_current(&session).await?;
    let current = format!("{table}_current");
    let has_change = session.table_exist(current.as_str())?;
    let holding = if has_change { current.as_str() } else { table.as_str() };
    let frame = session.table(holding).await?;
    let time = || ident(rule.output_schema.field(rule.event_time_column).name());
    let instant = |us: i64| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
    let within = time().gt_eq(instant(period.from_us)).and(time().lt_eq(instant(period.until_us)));
    let not_of_rule = [column::CHANGE, column::REVISION, column::EVENT_DATE];
    let names = frame.schema().fields().iter().map(|field| field.name().clone());
    let columns: Vec<Expr> = names.filter(|name| !not_of_rule.contains(&name.as_str())).map(ident).collect();
    let frame = frame.filter(within)?.select(columns)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.with_context(|| format!("the rows of table `{table}`"))?;
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    let full = concat_batches(&schema, &batches)?;
    let revision = if has_change { newest_revision(&session, table).await? } else { 1 };
    Ok(Out { rows: in_columns_of(rule, &full)?, full, has_change, revision })
}

async fn newest_revision(session: &datafusion::prelude::SessionContext, table: &str) -> Result<i64> {
    let frame = session.table(table).await?.aggregate(Vec::new(), vec![max(ident(column::REVISION))])?;
    let batches = frame.collect().await?;
    let newest = batches.first().map(|batch| cast(batch.column(0), &DataType::Int64)).transpose()?;
    // Rows of a time when nothing corrected the rule have none.
    Ok(newest.and_then(|column| column.as_primitive::<Int64Type>().iter().next().flatten()).unwrap_or(1))
}

fn in_columns_of(rule: &CompiledRule, full: &RecordBatch) -> Result<RecordBatch> {
    let column = |field: &Arc<arrow::datatypes::Field>| match full.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), full.num_rows())),
    };
    let columns: Vec<ArrayRef> = rule.output_schema.fields().iter().map(column).collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(&rule.output_schema), columns)?)
}

/// Which rows differ.
pub(super) struct Changes {
    /// Rows of what is out that hold no more.
    pub(super) withdrawn: UInt32Array,
    /// Rows of what should be that are to come.
    pub(super) inserted: UInt32Array,
    /// Rows that are the same.
    pub(super) alike: usize,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.withdrawn.is_empty() && self.inserted.is_empty()
    }
}

/// Compares the rows of two batches of the same columns.
pub(super) fn changes(out: &RecordBatch, should: &RecordBatch) -> Result<Changes> {
    let schema = out.schema();
    let (floating, exact): (Vec<usize>, Vec<usize>) =
        (0..schema.fields().len()).partition(|at| holds_floats(schema.field(*at).data_type()));
    let fields = exact.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let keys = |batch: &RecordBatch| {
        let columns: Vec<ArrayRef> = exact.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        converter.convert_columns(&columns)
    };
    let (mut groups, mut key_numbers) = (Vec::<[Vec<u32>; 2]>::new(), HashMap::<Box<[u8]>, usize>::new());
    for (side, batch) in [out, should].into_iter().enumerate() {
        // Without an exact column all rows are of one kind, and the converter knows no number of rows.
        let keys = if exact.is_empty() { None } else { Some(keys(batch)?) };
        for row in 0..batch.num_rows() {
            let key = keys.as_ref().map_or(&[][..], |keys| keys.row(row).data());
            let group = match key_numbers.get(key) {
                Some(group) => *group,
                None => {
                    key_numbers.insert(key.into(), groups.len());
                    groups.push([Vec::new(), Vec::new()]);
                    groups.len() - 1
                }
            };
            groups[group][side].push(u32::try_from(row)?);
        }
    }
    let (mut withdrawn, mut inserted, mut alike) = (Vec::new(), Vec::new(), 0);
    for [olds, news] in groups {
        if are_alike((out, &olds), (should, &news), &floating) {
            alike += olds.len();
        } else {
            withdrawn.extend(olds);
            inserted.extend(news);
        }
    }
    withdrawn.sort_unstable();
    inserted.sort_unstable();
    Ok(Changes { withdrawn: withdrawn.into(), inserted: inserted.into(), alike })
}

/// Whether rows whose exact columns are the same are the same in the others too.
fn are_alike((out, olds): (&RecordBatch, &[u32]), (should, news): (&RecordBatch, &[u32]), floating: &[usize]) -> bool {
    if olds.len() != news.len() {
        return false;
    }
    let mut news = news.to_vec();
    olds.iter().all(|old| {
        let near = |new: &u32| floating.iter().all(|at| is_near((out.column(*at), *old), (should.column(*at), *new)));
        let found = news.iter().position(near);
        found.map(|at| news.swap_remove(at)).is_some()
    })
}

fn is_near((a, old): (&ArrayRef, u32), (b, new): (&ArrayRef, u32)) -> bool {
    let (old, new) = (old as usize, new as usize);
    let value = |of: &ArrayRef, row: usize| -> Option<Option<f64>> {
        let value = match of.data_type() {
            DataType::Float64 => of.as_primitive::<Float64Type>().value(row),
            DataType::Float32 => f64::from(of.as_primitive::<Float32Type>().value(row)),
            _ => return None,
        };
        Some(of.is_valid(row).then_some(value))
    };
    match (value(a, old), value(b, new)) {
        (Some(Some(a)), Some(Some(b))) => {
            let is_summed_otherwise = || (a - b).abs() <= ABSOLUTE_ERROR.max(RELATIVE_ERROR * a.abs().max(b.abs()));
            a.to_bits() == b.to_bits() || (a.is_finite() && b.is_finite() && is_summed_otherwise())
        }
        (Some(None), Some(None)) => true,
        (None, None) => *a.slice(old, 1) == *b.slice(new, 1),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};

    use super::*;

    fn rows(of: &[(&str, Option<f64>)]) -> RecordBatch {
        let names = StringArray::from_iter_values(of.iter().map(|(name, _)| name));
        let values = Float64Array::from_iter(of.iter().map(|(_, value)| *value));
        RecordBatch::try_from_iter([("name", Arc::new(names) as ArrayRef), ("value", Arc::new(values) as ArrayRef)])
            .expect("a batch")
    }

    fn told(out: &[(&str, Option<f64>)], should: &[(&str, Option<f64>)]) -> (Vec<u32>, Vec<u32>, usize) {
        let changes = changes(&rows(out), &rows(should)).expect("an answer");
        (changes.withdrawn.values().to_vec(), changes.inserted.values().to_vec(), changes.alike)
    }

    #[test]
    fn only_rows_that_differ_are_changed() {
        let out = [("a", Some(1.0)), ("b", Some(2.0)), ("c", None)];
        assert_eq!(told(&out, &out), (vec![], vec![], 3));
        let should = [("c", None), ("b", Some(2.5)), ("d", Some(4.0))];
        assert_eq!(told(&out, &should), (vec![0, 1], vec![1, 2], 1));
        assert_eq!(told(&[], &out), (vec![], vec![0, 1, 2], 0));
    }

    #[test]
    fn a_sum_in_another_order_is_the_same() {
        let (one, other) = (0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1);
        assert!(one != other, "they differ in the last digit");
        assert_eq!(told(&[("a", Some(one))], &[("a", Some(other))]).2, 1);
        assert_eq!(told(&[("a", Some(f64::NAN))], &[("a", Some(f64::NAN))]).2, 1);
        assert_eq!(told(&[("a", Some(1.0))], &[("a", None)]), (vec![0], vec![0], 0));
        assert_eq!(told(&[("a", Some(1.0))], &[("a", Some(f64::INFINITY))]), (vec![0], vec![0], 0));
    }

    #[test]
    fn of_rows_alike_in_all_but_floats_all_are_written_again() {
        let out = [("a", Some(1.0)), ("a", Some(2.0)), ("b", Some(1.0))];
        let should = [("b", Some(1.0)), ("a", Some(2.0)), ("a", Some(3.0))];
        assert_eq!(told(&out, &should), (vec![0, 1], vec![1, 2], 1));
        assert_eq!(told(&out, &[("a", Some(2.0)), ("a", Some(1.0)), ("b", Some(1.0))]).2, 3, "whatever their order");
    }
}
