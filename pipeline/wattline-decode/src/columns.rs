//! Typed columns (a Parquet row group, say) into the columns of a stream.
//!
//! A column that already has the type of its field is taken over without a copy. Any other goes value by value through
//! the same conversions as text and JSON, so that a decimal with too many digits is refused here too and not rounded by
//! a cast. Rows that do not fit become dead letters; the others keep their order.
//!
//! A timestamp column without a zone is refused as a whole, at the start: it does not say which instants it means.

mod cells;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema};
use arrow::error::ArrowError;

use crate::column::Column;
use crate::dead_letter::{Reason, Refusal, excerpt};
use crate::error::Error;
use crate::limits::Limits;
use crate::mapping::{Constant, Mapping};
use crate::rows::{Decoded, TZ_OFFSET_MIN};
use crate::schema::{FieldType, StreamSchema};
use crate::shift::Shifts;

/// Turns typed batches into batches of one stream.
#[derive(Debug)]
pub struct ColumnDecoder {
    schema: Arc<StreamSchema>,
    mapping: Mapping,
    shifts: Shifts,
    limits: Limits,
    /// For each field, the column of the input it comes from.
    sources: Vec<Option<usize>>,
    unknown: Vec<String>,
}

/// The refusals of a batch: for each row, the first.
struct Refusals {
    by_row: BTreeMap<usize, Refusal>,
}

impl ColumnDecoder {
    /// A decoder for batches with this schema.
    ///
    /// # Errors
    /// [`Error::Mapping`] with every mistake of the mapping; [`Error::Column`] if a column's type cannot become that of its
    /// field, if two columns are one field, or if a required field has none.
    pub fn new(
        schema: Arc<StreamSchema>,
        mapping: &Mapping,
        limits: Limits,
        input: &ArrowSchema,
    ) -> Result<Self, Error> {
        let mut problems = mapping.validate(&schema);
        if mapping.explode.is_some() {
            problems.push(crate::mapping::MappingProblem {
                key: "explode".to_owned(),
                message: "a row of typed columns is one event".to_owned(),
                help: Some("remove `explode`".to_owned()),
            });
        }
        if !problems.is_empty() {
            return Err(Error::Mapping { stream: schema.name.clone(), problems });
        }
        let mut sources = vec![None; schema.fields.len()];
        let mut unknown = Vec::new();
        for (at, column) in input.fields().iter().enumerate() {
            let canonical = mapping.rename.get(column.name()).unwrap_or(column.name());
            let ignored = mapping.ignore.contains(column.name());
            match schema.index_of(canonical).filter(|_| !ignored) {
                Some(field) => {
                    let fail = |what| column_error(&schema, column.name(), what);
                    if sources[field].replace(at).is_some() {
                        return Err(fail(format!(
                            "field `{canonical}` has another column already; ignore one in the mapping"
                        )));
                    }
                    check_type(column, &schema.fields[field].field_type).map_err(fail)?;
                }
                None if !ignored => unknown.push(excerpt(column.name())),
                None => {}
            }
        }
        for (field, source) in schema.fields.iter().zip(&sources) {
            if field.required && source.is_none() && !mapping.constants.contains_key(&field.name) {
                let what =
                    "the field is required and no column has its name; write a `rename` or a constant in the mapping";
                return Err(column_error(&schema, &field.name, what.to_owned()));
            }
        }
        let shifts = Shifts::new(mapping, &schema);
        Ok(Self { schema, mapping: mapping.clone(), shifts, limits, sources, unknown })
    }

    /// Decodes a batch: every row of it is a row of the result or a dead letter.
    ///
    /// # Panics
    /// If the batch has another schema than the decoder was made for.
    pub fn decode(&mut self, input: &RecordBatch) -> Decoded {
        let mut refusals = Refusals { by_row: BTreeMap::new() };
        let columns: Result<Vec<ArrayRef>, ArrowError> =
            (0..self.sources.len()).map(|field| self.field(input, field, &mut refusals)).collect();
        let nullable: Vec<ArrowField> =
            self.schema.arrow.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let batch = columns
            .and_then(|columns| RecordBatch::try_new(Arc::new(ArrowSchema::new(nullable)), columns))
            .and_then(|batch| self.keep_good(batch, &mut refusals))
            .and_then(|batch| self.shifts.apply(batch))
            .expect("columns are made from the schema and checked row by row");
        let rows = 0..u32::try_from(input.num_rows()).unwrap_or(u32::MAX);
        let record: Vec<u32> = rows.filter(|row| !refusals.by_row.contains_key(&(*row as usize))).collect();
        let dead_letters = refusals.by_row.into_iter();
        Decoded {
            index: vec![0; record.len()],
            record,
            batch,
            dead_letters: dead_letters
                .map(|(row, refusal)| refusal.at(u32::try_from(row).unwrap_or(u32::MAX), 0))
                .collect(),
            unknown_fields: self.unknown.iter().map(|name| (name.clone(), input.num_rows() as u64)).collect(),
        }
    }

    fn field(&self, input: &RecordBatch, field: usize, refusals: &mut Refusals) -> Result<ArrayRef, ArrowError> {
        let described = &self.schema.fields[field];
        let column = match self.sources[field] {
            Some(source) => {
                let treatment = self.mapping.treatment(&described.name);
                let array = input.column(source);
                let mut refuse = |row: usize, refusal: Refusal| refusals.refuse(row, refusal);
                cells::convert(array, described, &treatment, &self.limits, &mut refuse)?
            }
            None => new_null_array(&described.field_type.arrow(), input.num_rows()),
        };
        if let Some(constant) = self.mapping.constants.get(&described.name) {
            return fill(&column, described, constant, &self.limits);
        }
        if described.name == TZ_OFFSET_MIN && column.null_count() > 0 {
            return self.fill_zone(input, &column, described);
        }
        Ok(column)
    }

    /// The zone of the event time, where that column is text and the zone is not given.
    fn fill_zone(
        &self,
        input: &RecordBatch,
        column: &ArrayRef,
        described: &crate::schema::Field,
    ) -> Result<ArrayRef, ArrowError> {
        let Some(texts) = self.sources[self.schema.event_time].map(|source| input.column(source)) else {
            return Ok(Arc::clone(column));
        };
        let zones = cells::zones(texts, &described.field_type)?;
        zip(&is_not_null(column)?, column, &zones)
    }

    /// Drops refused rows and those that lack a required field.
    fn keep_good(&self, batch: RecordBatch, refusals: &mut Refusals) -> Result<RecordBatch, ArrowError> {
        for (field, column) in self.schema.fields.iter().zip(batch.columns()) {
            if !field.required || column.null_count() == 0 {
                continue;
            }
            for row in (0..column.len()).filter(|row| column.is_null(*row)) {
                let detail = format!("`{}` is null and every event must have it", field.name);
                refusals.refuse(row, Refusal::new(Reason::MissingField, detail));
            }
        }
        if refusals.by_row.is_empty() {
            return RecordBatch::try_new(Arc::clone(&self.schema.arrow), batch.columns().to_vec());
        }
        let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(!refusals.by_row.contains_key(&row))).collect();
        let kept = filter_record_batch(&batch, &keep)?;
        RecordBatch::try_new(Arc::clone(&self.schema.arrow), kept.columns().to_vec())
    }
}

impl Refusals {
    fn refuse(&mut self, row: usize, refusal: Refusal) {
        self.by_row.entry(row).or_insert(refusal);
    }
}

fn column_error(schema: &StreamSchema, column: &str, what: String) -> Error {
    Error::Column { stream: schema.name.clone(), column: column.to_owned(), what }
}

fn check_type(column: &ArrowField, field_type: &FieldType) -> Result<(), String> {
    let from = column.data_type();
    if let DataType::Timestamp(_, None) = from
        && *field_type == FieldType::Instant
    {
        return Err("it is a timestamp without zone; write the file with instants in UTC (isAdjustedToUTC)".to_owned());
    }
    if cells::is_convertible(from, field_type) {
        return Ok(());
    }
    Err(format!(
        "`{from}` cannot become `{}`; convert the file or ignore the column in the mapping",
        field_type.arrow()
    ))
}

/// The column with a constant where it is null.
fn fill(
    column: &ArrayRef,
    described: &crate::schema::Field,
    constant: &Constant,
    limits: &Limits,
) -> Result<ArrayRef, ArrowError> {
    let mut one = Column::new(&described.field_type, true);
    constant.write(&mut one, limits).map_err(|unfit| ArrowError::CastError(unfit.wanted.to_owned()))?;
    let constant = arrow::array::Scalar::new(one.finish(1)?);
    zip(&is_not_null(column)?, column, &constant)
}

#[cfg(test)]
mod tests;
