//! The tables that say who changed others from outside of a job: restatements of results, redemptions of dead letters.
//!
//! A row is written with the change that it speaks of, in one amendment ([`wattline_core::amendment`]), so there is one for each
//! change and none without. The tables are made with their first row.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::{TableSpec, batch, instant, micros, strings, text};
use crate::error::Result;

/// Name of the table of restatements.
pub const RESTATEMENTS: &str = "restatements";
/// Name of the table of redemptions.
pub const REDEMPTIONS: &str = "redemptions";
/// Names of the tables that amendments write beside those that they change.
pub const AUDIT_TABLES: [&str; 2] = [RESTATEMENTS, REDEMPTIONS];

/// Who changes what, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amended {
    /// The clock, microseconds since the epoch.
    pub at_us: i64,
    /// Who asked for it.
    pub by: String,
    /// The job.
    pub job: String,
    /// Number of the amendment.
    pub amendment: u64,
}

/// Results of a rule that were computed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restatement {
    /// Who and when.
    pub amended: Amended,
    /// Why, in the words of who asked.
    pub reason: String,
    /// The rule, and which of its versions.
    pub rule_id: String,
    /// What its header says.
    pub rule_version: String,
    /// Hash of its plan.
    pub fingerprint: String,
    /// Beginning and end of the period, microseconds since the epoch.
    pub between_us: (i64, i64),
    /// The revision of the rows that were written.
    pub revision: i64,
    /// Rows as they were before.
    pub alike: u64,
    /// Rows of which there was another version.
    pub changed: u64,
    /// Rows that there are no more.
    pub withdrawn: u64,
    /// Rows that there were not.
    pub added: u64,
}

/// Dead letters of a stream that were decoded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// Who and when.
    pub amended: Amended,
    /// The stream.
    pub stream: String,
    /// Which letters were asked for.
    pub asked: String,
    /// Events that became rows.
    pub events: u64,
    /// Events that were rows already.
    pub already_rows: u64,
    /// Letters that left.
    pub letters_out: u64,
    /// Letters that stayed.
    pub letters_left: u64,
}

fn long(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

fn restatement_fields() -> Vec<Field> {
    vec![
        instant("restated_at", false),
        text("restated_by", false),
        text("reason", false),
        text("rule_id", false),
        text("rule_version", false),
        text("rule_fingerprint", false),
        instant("from_ts", false),
        instant("to_ts", false),
        long("revision"),
        long("rows_alike"),
        long("rows_changed"),
        long("rows_withdrawn"),
        long("rows_added"),
        text("job", false),
        long("amendment"),
    ]
}

fn redemption_fields() -> Vec<Field> {
    vec![
        instant("redeemed_at", false),
        text("redeemed_by", false),
        text("stream", false),
        text("asked", false),
        long("events"),
        long("events_already_rows"),
        long("letters_out"),
        long("letters_left"),
        text("job", false),
        long("amendment"),
    ]
}

/// What the archive must know of the table of restatements.
pub fn restatements_table() -> TableSpec {
    spec(RESTATEMENTS, "results that were computed again: who, when, why, how many", restatement_fields(), "rule_id")
}

/// What the archive must know of the table of redemptions.
pub fn redemptions_table() -> TableSpec {
    spec(REDEMPTIONS, "dead letters that were decoded again: who, when, how many", redemption_fields(), "stream")
}

fn spec(name: &str, description: &str, fields: Vec<Field>, first: &str) -> TableSpec {
    let event_time = fields[0].name().clone();
    TableSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        schema: Arc::new(Schema::new(fields)),
        sort_by: vec![first.to_owned(), event_time.clone()],
        event_time,
    }
}

fn count(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn number(of: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![of]))
}

fn word(of: &str) -> ArrayRef {
    strings(std::iter::once(Some(of)))
}

fn time(us: i64) -> ArrayRef {
    micros(std::iter::once(Some(us)))
}

/// The row of a restatement.
///
/// # Errors
/// [`Error::Arrow`](crate::Error::Arrow) if the batch cannot be built.
pub fn restatement_batch(of: &Restatement) -> Result<RecordBatch> {
    let columns = vec![
        time(of.amended.at_us),
        word(&of.amended.by),
        word(&of.reason),
        word(&of.rule_id),
        word(&of.rule_version),
        word(&of.fingerprint),
        time(of.between_us.0),
        time(of.between_us.1),
        number(of.revision),
        number(count(of.alike)),
        number(count(of.changed)),
        number(count(of.withdrawn)),
        number(count(of.added)),
        word(&of.amended.job),
        number(count(of.amended.amendment)),
    ];
    batch(RESTATEMENTS, restatement_fields(), columns)
}

/// The row of a redemption.
///
/// # Errors
/// [`Error::Arrow`](crate::Error::Arrow) if the batch cannot be built.
pub fn redemption_batch(of: &Redemption) -> Result<RecordBatch> {
    let columns = vec![
        time(of.amended.at_us),
        word(&of.amended.by),
        word(&of.stream),
        word(&of.asked),
        number(count(of.events)),
        number(count(of.already_rows)),
        number(count(of.letters_out)),
        number(count(of.letters_left)),
        word(&of.amended.job),
        number(count(of.amended.amendment)),
    ];
    batch(REDEMPTIONS, redemption_fields(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_their_tables() {
        let amended = Amended { at_us: 1, by: "me".into(), job: "grid".into(), amendment: 3 };
        let restatement = Restatement {
            amended: amended.clone(),
            reason: "meters were exchanged".into(),
            rule_id: "hourly".into(),
            rule_version: "1".into(),
            fingerprint: "f".into(),
            between_us: (0, 5),
            revision: 2,
            alike: 9,
            changed: 1,
            withdrawn: 2,
            added: 3,
        };
        let redemption = Redemption {
            amended,
            stream: "visits".into(),
            asked: "all".into(),
            events: 7,
            already_rows: 0,
            letters_out: 7,
            letters_left: 1,
        };
        let rows = [
            (restatements_table(), restatement_batch(&restatement).expect("a row")),
            (redemptions_table(), redemption_batch(&redemption).expect("a row")),
        ];
        for (spec, row) in rows {
            assert!(AUDIT_TABLES.contains(&spec.name.as_str()));
            assert_eq!((row.schema(), row.num_rows()), (spec.schema, 1));
        }
    }
}
