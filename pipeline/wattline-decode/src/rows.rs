//! The rows of one batch under construction: one row at a time, written field by field, kept or undone as a whole.
//!
//! A row is refused at its first misfit, but its reader goes on to the end of the record, since "not JSON at all" outranks
//! "a wrong value": what a record is called must not depend on the order of its fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::column::{Column, Treatment, Unfit};
use crate::dead_letter::{DeadLetter, Reason, Refusal, excerpt};
use crate::limits::Limits;
use crate::mapping::{Constant, Mapping};
use crate::schema::{FieldType, StreamSchema};
use crate::shift::Shifts;

/// Name of the field that is filled with the zone of the event time's text.
pub(crate) const TZ_OFFSET_MIN: &str = "tz_offset_min";

/// What a block of records became.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The accepted events; its schema is exactly that of the stream.
    pub batch: RecordBatch,
    /// For each row, the record of the block it came from (for typed columns, the row).
    pub record: Vec<u32>,
    /// For each row, the position of the event in its record: 0 without `explode`.
    pub index: Vec<i32>,
    /// The refused events, in the order of the records.
    pub dead_letters: Vec<DeadLetter>,
    /// How often each name that neither schema nor mapping knows was seen.
    pub unknown_fields: BTreeMap<String, u64>,
}

/// The rows of the batch under construction.
#[derive(Debug)]
pub(crate) struct Rows {
    schema: Arc<StreamSchema>,
    slots: Vec<Slot>,
    shifts: Shifts,
    constants: Vec<(usize, Constant)>,
    required: Vec<usize>,
    /// Where the zone of the event time goes.
    tz_offset: Option<usize>,
    limits: Limits,
    stamp: u64,
    zone: Option<i32>,
    refusal: Option<Refusal>,
    record: Vec<u32>,
    index: Vec<i32>,
    dead_letters: Vec<DeadLetter>,
}

/// What belongs to one field.
#[derive(Debug)]
struct Slot {
    column: Column,
    treatment: Treatment,
    /// The stamp of the row that last mentioned it.
    seen: u64,
}

/// A place to come back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    rows: usize,
    dead_letters: usize,
}

impl Rows {
    /// No rows yet.
    pub(crate) fn new(schema: Arc<StreamSchema>, mapping: &Mapping, limits: Limits) -> Self {
        let fields = &schema.fields;
        let tz_offset = schema
            .index_of(TZ_OFFSET_MIN)
            .filter(|index| matches!(fields[*index].field_type, FieldType::Int32 | FieldType::Int64));
        let constants = mapping
            .constants
            .iter()
            .filter_map(|(name, constant)| Some((schema.index_of(name)?, constant.clone())))
            .collect();
        Self {
            slots: fields
                .iter()
                .map(|field| Slot {
                    column: Column::new(&field.field_type, !field.required),
                    treatment: mapping.treatment(&field.name),
                    seen: 0,
                })
                .collect(),
            shifts: Shifts::new(mapping, &schema),
            constants,
            required: (0..fields.len()).filter(|index| fields[*index].required).collect(),
            tz_offset,
            limits,
            stamp: 0,
            zone: None,
            refusal: None,
            record: Vec::new(),
            index: Vec::new(),
            dead_letters: Vec::new(),
            schema,
        }
    }

    /// The limits of the decoder.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Begins a row.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.stamp += 1;
        self.zone = None;
        self.refusal = None;
    }

    /// Whether the row is already refused, so that its values need no typing.
    #[inline]
    pub(crate) fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// Whether the row has mentioned the field.
    #[inline]
    pub(crate) fn is_seen(&self, field: usize) -> bool {
        self.slots[field].seen == self.stamp
    }

    /// Makes the column of a field ready for this row's value. `None` refuses the row: the field has been given before.
    #[inline]
    pub(crate) fn claim(&mut self, field: usize) -> Option<(&mut Column, &Treatment)> {
        if self.slots[field].seen == self.stamp {
            self.refuse_second(field);
            return None;
        }
        let slot = &mut self.slots[field];
        slot.seen = self.stamp;
        slot.column.pad_to(self.record.len());
        Some((&mut slot.column, &slot.treatment))
    }

    #[cold]
    fn refuse_second(&mut self, field: usize) {
        let detail = format!("`{}` occurs twice", self.schema.fields[field].name);
        self.refuse(Refusal::new(Reason::DuplicateField, detail));
    }

    /// The column of a field that has been claimed.
    pub(crate) fn claimed(&mut self, field: usize) -> (&mut Column, &Treatment) {
        let slot = &mut self.slots[field];
        (&mut slot.column, &slot.treatment)
    }

    /// Takes note of the zone in which an instant was written.
    #[inline]
    pub(crate) fn note_zone(&mut self, field: usize, zone: Option<i32>) {
        if field == self.schema.event_time {
            self.zone = zone;
        }
    }

    /// Refuses the row; the first refusal counts.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    /// Refuses the row because of one value.
    #[cold]
    pub(crate) fn refuse_value(&mut self, field: usize, unfit: Unfit, value: &str) {
        let name = &self.schema.fields[field].name;
        let detail = format!("`{name}`: `{}` is not {}", excerpt(value), unfit.wanted);
        self.refuse(Refusal::new(unfit.reason, detail));
    }

    /// Ends a row: fills constants and the zone, checks the required fields, keeps the row or writes its dead letter.
    #[inline]
    pub(crate) fn end(&mut self, record: u32, index: i32) {
        if self.refusal.is_none() {
            self.complete();
        }
        match self.refusal.take() {
            None => {
                self.record.push(record);
                self.index.push(index);
            }
            Some(refusal) => {
                self.undo();
                self.dead_letters.push(refusal.at(record, index));
            }
        }
    }

    /// Refuses a whole record, or an event that never became a row.
    pub(crate) fn bury(&mut self, refusal: Refusal, record: u32, index: i32) {
        self.undo();
        self.dead_letters.push(refusal.at(record, index));
    }

    /// Where we are, to come back if the rest of a message is bad.
    pub(crate) fn mark(&self) -> Mark {
        Mark { rows: self.record.len(), dead_letters: self.dead_letters.len() }
    }

    /// Forgets all rows and dead letters since a mark.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.record.truncate(mark.rows);
        self.index.truncate(mark.rows);
        self.dead_letters.truncate(mark.dead_letters);
        self.undo();
    }

    /// Bytes of text and lists in the batch so far.
    pub(crate) fn text_bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.column.text_bytes()).sum()
    }

    /// Ends the batch and begins the next.
    ///
    /// # Panics
    /// If the columns do not fit the schema they were made from, which is a bug of this crate.
    pub(crate) fn finish(&mut self, unknown_fields: BTreeMap<String, u64>) -> Decoded {
        let rows = self.record.len();
        let columns: Result<Vec<_>, _> = self.slots.iter_mut().map(|slot| slot.column.finish(rows)).collect();
        let batch = columns
            .and_then(|columns| RecordBatch::try_new(Arc::clone(&self.schema.arrow), columns))
            .and_then(|batch| self.shifts.apply(batch))
            .expect("columns are made from the schema and checked row by row");
        Decoded {
            batch,
            record: std::mem::take(&mut self.record),
            index: std::mem::take(&mut self.index),
            dead_letters: std::mem::take(&mut self.dead_letters),
            unknown_fields,
        }
    }

    fn complete(&mut self) {
        let row = self.record.len();
        for at in 0..self.constants.len() {
            let field = self.constants[at].0;
            if self.slots[field].column.len() <= row {
                self.slots[field].column.pad_to(row);
                if let Err(unfit) = self.constants[at].1.write(&mut self.slots[field].column, &self.limits) {
                    self.refuse_value(field, unfit, "the constant");
                }
            }
        }
        if let (Some(field), Some(offset_min)) = (self.tz_offset, self.zone)
            && self.slots[field].column.len() <= row
        {
            self.slots[field].column.pad_to(row);
            let exact = crate::number::Exact::integer(i128::from(offset_min));
            if let Err(unfit) = self.slots[field].column.write_exact(exact, &Treatment::default()) {
                self.refuse_value(field, unfit, "the zone");
            }
        }
        for at in 0..self.required.len() {
            let field = self.required[at];
            if self.slots[field].column.len() <= row {
                let state = if self.is_seen(field) { "null" } else { "absent" };
                let detail = format!("`{}` is {state} and every event must have it", self.schema.fields[field].name);
                self.refuse(Refusal::new(Reason::MissingField, detail));
            }
        }
    }

    /// Forgets what the row under construction has written.
    fn undo(&mut self) {
        let row = self.record.len();
        for slot in &mut self.slots {
            slot.column.truncate(row);
        }
    }
}
