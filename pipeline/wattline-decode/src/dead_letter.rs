//! Why an event was refused, and which one.
//!
//! Bad data is not an `Err`: a decoder returns the rows it could type and one dead letter for each event it could not.
//! The codes are written to the archive and read by rules; they never change their meaning.

use std::fmt;

/// Why an event was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The record has no bytes, or only white space.
    Empty,
    /// The record, one of its lists, or the number of its events exceeds a limit.
    TooLarge,
    /// The record is not UTF-8.
    InvalidUtf8,
    /// The record is not one JSON value.
    NotJson,
    /// Arrays and objects are nested beyond the limit.
    TooDeep,
    /// An event is not a JSON object.
    NotAnObject,
    /// The record is not one CSV record with as many cells as the header.
    NotCsv,
    /// The record is not one Avro value of the schema that it names, or names none.
    NotAvro,
    /// The record was written with a schema that nobody has, or that cannot be that of the stream.
    UnknownSchema,
    /// A value is not of the type of its field.
    WrongType,
    /// A required field is absent or null.
    MissingField,
    /// A value is of the right kind but beyond what its type holds.
    OutOfRange,
    /// A number has more digits than its type keeps, and the mapping does not round it.
    NotExact,
    /// An instant is written without a zone.
    MissingZone,
    /// An enum field holds a symbol that the schema does not list.
    UnknownSymbol,
    /// A field occurs twice in one event.
    DuplicateField,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::Empty,
        Self::TooLarge,
        Self::InvalidUtf8,
        Self::NotJson,
        Self::TooDeep,
        Self::NotAnObject,
        Self::NotCsv,
        Self::NotAvro,
        Self::UnknownSchema,
        Self::WrongType,
        Self::MissingField,
        Self::OutOfRange,
        Self::NotExact,
        Self::MissingZone,
        Self::UnknownSymbol,
        Self::DuplicateField,
    ];

    /// The stable code that stands in the archive.
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::NotAnObject => "not_an_object",
            Self::NotCsv => "not_csv",
            Self::NotAvro => "not_avro",
            Self::UnknownSchema => "unknown_schema",
            Self::WrongType => "wrong_type",
            Self::MissingField => "missing_field",
            Self::OutOfRange => "out_of_range",
            Self::NotExact => "not_exact",
            Self::MissingZone => "missing_zone",
            Self::UnknownSymbol => "unknown_symbol",
            Self::DuplicateField => "duplicate_field",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One event that could not be typed. Its bytes are those of record `record` of the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Number of the record in the block (of the row, for typed columns).
    pub record: u32,
    /// Position of the event in its record; 0 if the record as a whole was refused.
    pub index: i32,
    /// Why.
    pub reason: Reason,
    /// Which field and value, in words; at most a few hundred bytes.
    pub detail: String,
}

/// A refusal whose place is not yet known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Refusal {
    /// A refusal.
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Says where it happened.
    pub(crate) fn at(self, record: u32, index: i32) -> DeadLetter {
        DeadLetter { record, index, reason: self.reason, detail: self.detail }
    }
}

/// The beginning of a value, short enough for a message and with no control characters.
pub(crate) fn excerpt(value: &str) -> String {
    const CHARS_MAX: usize = 48;
    let mut short: String =
        value.chars().take(CHARS_MAX).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if value.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_snake_case() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'8')));
    }

    #[test]
    fn an_excerpt_is_short_and_printable() {
        assert_eq!(excerpt("a\nb"), "a\u{fffd}b");
        assert_eq!(excerpt(&"é".repeat(100)).chars().count(), 49);
    }
}
