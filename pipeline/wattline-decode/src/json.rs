//! JSON records into columns.
//!
//! One pass over the bytes: each member goes from the scanner straight into its column, no tree and no allocation
//! between. A message to be exploded is checked as a whole first, because the fields around the array may follow it;
//! then they are remembered by their place in the text and written into each event that does not give them itself.
//!
//! Two ways lead from a member to its column, and both give the same:
//! - The *short way* is for what payloads nearly always look like. The name is guessed from the member before it, and compared
//!   as it was written the last time, with all bytes around it ([`names`](crate::names)). The value is read eight bytes at a
//!   time by the type of its column (`usual`): plain numbers, strings without escapes, instants whose date and zone were
//!   those of the last one. UTF-8 is checked for many records at once (`checked`).
//! - The *long way* is for everything else: the scanner, a hash lookup for the name, and the conversions of the column. It is
//!   also the only one that refuses anything: where the short way does not apply, it leaves no trace.
//!
//! `differential` holds the short way to the long one, and both to `arrow-json`, over random schemas and records.
//!
//! Every value is checked, also where no rule reads its column: whether a record is a dead letter must not depend on the rules.
//!
//! ```text
//!   { "head": "C7", "readings": [ {"meter_id": "M1", …}, {"meter_id": "M2", "head": "C8"} ], "ts": … }
//!       └── around ──┐               event 0: own fields, then head=C7, ts
//!                    └──────────     event 1: own fields (its head overlays), then ts
//! ```
//!
//! Invariants: what becomes of an event depends on its message alone, never on the others of the block; and the text
//! that a message writes is bounded by [`EXPANSION_MAX`] times its size, so that a small message with long fields around
//! many events cannot fill the memory.

mod checked;
mod usual;
mod value;

use std::sync::Arc;

use checked::Checked;
pub(crate) use value::write_cell;
use value::{Context, Written, write_any_value};

use crate::dead_letter::{Reason, Refusal};
use crate::error::Error;
use crate::instant::DayMemory;
use crate::limits::Limits;
use crate::mapping::Mapping;
use crate::names::{Names, Target, Trail};
use crate::records::Records;
use crate::rows::{Decoded, Rows};
use crate::scan::{Cursor, Fault, Malformed};
use crate::schema::StreamSchema;

/// How many bytes of text an exploded message may write for each byte it has, …
const EXPANSION_MAX: usize = 16;
/// … beyond this many.
const EXPANSION_FREE_BYTES: usize = 64 << 10;

/// Decodes JSON records of one stream. Keeps its buffers and its guesses from block to block.
#[derive(Debug)]
pub struct JsonDecoder {
    reader: Reader,
    explodes: bool,
}

#[derive(Debug)]
struct Reader {
    limits: Limits,
    /// Whether names are guessed and usual values taken the short way; tests compare with and without.
    shortcuts: bool,
    rows: Rows,
    names: Names,
    scratch: String,
    days: DayMemory,
    /// Fields of the objects around the events and where their values start; inner objects last.
    around: Vec<(usize, usize)>,
}

/// An exploded message on its way: which one, which event is next, and how much text it may write.
struct Message<'a> {
    text: &'a str,
    record: u32,
    next_index: i32,
    text_bytes_max: usize,
}

/// Why a message is refused as a whole.
enum Rejected {
    Malformed(Malformed),
    Refused(Refusal),
}

impl From<Malformed> for Rejected {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl JsonDecoder {
    /// A decoder for one stream.
    ///
    /// # Errors
    /// [`Error::Mapping`] with every mistake of the mapping.
    pub fn new(schema: Arc<StreamSchema>, mapping: &Mapping, limits: Limits) -> Result<Self, Error> {
        let problems = mapping.validate(&schema);
        if !problems.is_empty() {
            return Err(Error::Mapping { stream: schema.name.clone(), problems });
        }
        let names = Names::new(&schema, mapping);
        let reader = Reader {
            limits,
            shortcuts: true,
            rows: Rows::new(schema, mapping, limits),
            names,
            scratch: String::new(),
            days: DayMemory::default(),
            around: Vec::new(),
        };
        Ok(Self { reader, explodes: mapping.explode.is_some() })
    }

    /// Decodes a block: every event of it is a row of the batch or a dead letter.
    pub fn decode(&mut self, block: Records<'_>) -> Decoded {
        let mut checked = Checked::new(block.bytes);
        let mut start = 0;
        for (record, payload) in block.iter() {
            let end = start + payload.len();
            if let Err(rejected) = self.decode_record(record, payload, checked.text(start, end)) {
                self.reader.rows.bury(refusal(rejected), record, 0);
            }
            start = end;
        }
        self.reader.rows.finish(self.reader.names.take_unknown())
    }

    /// `text` is the payload, if that is known to be text.
    #[inline]
    fn decode_record(&mut self, record: u32, payload: &[u8], text: Option<&str>) -> Result<(), Rejected> {
        let limits = self.reader.limits;
        let text = match text.filter(|text| text.starts_with('{') && text.len() <= limits.record_bytes_max) {
            Some(text) => text,
            None => readable(payload, &limits).map_err(Rejected::Refused)?,
        };
        let mut cursor = Cursor::new(text);
        cursor.skip_space();
        if self.explodes {
            return self.decode_message(cursor, text, record, limits);
        }
        if cursor.peek() != Some(b'{') {
            return Err(not_an_object(cursor, limits.depth_max));
        }
        self.reader.rows.begin();
        let event = self.reader.names.root(0);
        self.reader.object(&mut cursor, event, limits.depth_max)?;
        cursor.end()?;
        self.reader.rows.end(record, 0);
        Ok(())
    }

    fn decode_message(
        &mut self,
        mut cursor: Cursor<'_>,
        text: &str,
        record: u32,
        limits: Limits,
    ) -> Result<(), Rejected> {
        let mut check = cursor.clone();
        check.skip_value(limits.depth_max)?;
        check.end()?;
        let text_bytes_max =
            self.reader.rows.text_bytes() + text.len().saturating_mul(EXPANSION_MAX) + EXPANSION_FREE_BYTES;
        let mut message = Message { text, record, next_index: 0, text_bytes_max };
        let mark = self.reader.rows.mark();
        self.reader.around.clear();
        let walked = self.reader.walk(&mut cursor, 0, &mut message);
        if walked.is_err() {
            self.reader.rows.rewind(mark);
        }
        walked
    }
}

impl Reader {
    /// Reads an event, or an object inside one, from its `{` to behind its `}`; writes the fields it finds.
    fn object(&mut self, cursor: &mut Cursor<'_>, object: usize, depth: u8) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or_else(|| cursor.fault(Fault::Depth))?;
        let (text, mut at) = (cursor.text(), cursor.at);
        let mut trail = self.names.start(object);
        let mut separator = b'{';
        loop {
            let start = at;
            let guess = if self.shortcuts { self.names.guess(trail, separator, text.as_bytes(), at) } else { None };
            let target = if let Some((target, after, value)) = guess {
                trail = after;
                at = after_space(text.as_bytes(), value);
                target
            } else {
                // Copies, so that what the short way needs can stay in registers.
                let (mut reader, mut after) = (Cursor::at(text, at), trail);
                let target = self.name(&mut reader, object, &mut after, separator)?;
                (at, trail) = (reader.at, after);
                let Some(target) = target else {
                    cursor.at = at;
                    return Ok(());
                };
                target
            };
            separator = b',';
            at = match target {
                Target::Field(field) => self.field(text, at, field, depth)?,
                _ => self.no_field(Cursor::at(text, at), target, start, depth)?,
            };
        }
    }

    /// Reads the value of a member that is no field; returns where it ends. `start` is where the comma or brace before it is.
    fn no_field(
        &mut self,
        mut cursor: Cursor<'_>,
        target: Target,
        start: usize,
        depth: u8,
    ) -> Result<usize, Malformed> {
        match target {
            Target::Object(inside) if cursor.peek() == Some(b'{') => self.object(&mut cursor, inside, depth)?,
            Target::Object(_) => self.no_object(&mut cursor, start, depth)?,
            Target::Field(_) | Target::Events | Target::Ignored | Target::Unknown(_) => cursor.skip_value(depth)?,
        }
        Ok(cursor.at)
    }

    /// Reads what separates two members, and the name of the second, up to its value; `None` if the object ends instead.
    fn name(
        &mut self,
        cursor: &mut Cursor<'_>,
        object: usize,
        trail: &mut Trail,
        separator: u8,
    ) -> Result<Option<Target>, Malformed> {
        let is_tight = cursor.peek() == Some(separator);
        let start = cursor.at + 1;
        let more = if separator == b'{' { cursor.open(b'}') } else { cursor.next_member(b'}')? };
        if !more {
            return Ok(None);
        }
        let name = cursor.name()?;
        let written = if is_tight { cursor.since(start).as_bytes() } else { &[] };
        Ok(Some(self.names.resolve(object, trail, name.resolve(&mut self.scratch), written)))
    }

    /// Reads the value of a field; returns where it ends.
    #[inline(always)]
    fn field(&mut self, text: &str, at: usize, field: usize, depth: u8) -> Result<usize, Malformed> {
        if self.rows.is_refused() {
            return skipped(text, at, depth);
        }
        let Some((column, treatment)) = self.rows.claim(field) else {
            return skipped(text, at, depth);
        };
        if self.shortcuts
            && let Some((zone, end)) = column.write_usual(text.as_bytes(), at, treatment, &mut self.days)
        {
            self.rows.note_zone(field, zone);
            return Ok(end);
        }
        self.any_value(Cursor::at(text, at), field, depth)
    }

    /// The value of a field that has been claimed, in whatever way it is written.
    fn any_value(&mut self, mut cursor: Cursor<'_>, field: usize, depth: u8) -> Result<usize, Malformed> {
        let (column, treatment) = self.rows.claimed(field);
        let days = self.shortcuts.then_some(&mut self.days);
        let mut context = Context { limits: &self.limits, scratch: &mut self.scratch, days, depth };
        let start = cursor.at;
        match write_any_value(&mut cursor, column, treatment, &mut context)? {
            Ok(Written::Value(zone)) => self.rows.note_zone(field, zone),
            Ok(Written::Null) => {}
            Err(unfit) => self.rows.refuse_value(field, unfit, cursor.since(start)),
        }
        Ok(cursor.at)
    }

    /// Where the mapping reaches into an object there is none: null is no fields, anything else a wrong type.
    /// `start` is where its comma or brace is.
    fn no_object(&mut self, cursor: &mut Cursor<'_>, start: usize, depth: u8) -> Result<(), Malformed> {
        if cursor.peek() != Some(b'n') {
            let mut before = cursor.clone();
            before.at = start;
            before.skip_space();
            before.at += 1;
            before.skip_space();
            let name = before.name()?.raw;
            let detail = format!("`{name}` is not an object, and the mapping reaches into it");
            self.rows.refuse(Refusal::new(Reason::WrongType, detail));
        }
        cursor.skip_value(depth)
    }

    /// Walks down the explode path, past this value; `level` objects lie around it. The text has been checked before.
    fn walk(&mut self, cursor: &mut Cursor<'_>, level: usize, message: &mut Message<'_>) -> Result<(), Rejected> {
        match cursor.peek() {
            Some(b'[') => {
                let mut more = cursor.open(b']');
                while more {
                    self.walk(cursor, level, message)?;
                    more = cursor.next_member(b']')?;
                }
                Ok(())
            }
            Some(b'{') if level == self.names.levels() => self.event(cursor, message),
            Some(b'{') => self.walk_object(cursor, level, message),
            _ => {
                cursor.skip_value(u8::MAX)?;
                self.no_event(message, Refusal::new(Reason::NotAnObject, "an event is a JSON object"))
            }
        }
    }

    /// Remembers the fields of an object around the events, then walks on to them.
    fn walk_object(
        &mut self,
        cursor: &mut Cursor<'_>,
        level: usize,
        message: &mut Message<'_>,
    ) -> Result<(), Rejected> {
        let before = self.around.len();
        let mut events = None;
        self.gather(cursor, self.names.root(level), before, &mut events)?;
        match events {
            Some(at) => self.walk(&mut Cursor::at(message.text, at), level + 1, message)?,
            None => {
                let detail = "the array that `explode` names is absent or null";
                self.no_event(message, Refusal::new(Reason::MissingField, detail))?;
            }
        }
        self.around.truncate(before);
        Ok(())
    }

    fn gather(
        &mut self,
        cursor: &mut Cursor<'_>,
        object: usize,
        before: usize,
        events: &mut Option<usize>,
    ) -> Result<(), Rejected> {
        let mut trail = self.names.start(object);
        let mut more = cursor.open(b'}');
        while more {
            let name = cursor.name()?;
            let target = self.names.resolve(object, &mut trail, name.resolve(&mut self.scratch), b"");
            let start = cursor.at;
            match target {
                Target::Object(inside) if cursor.peek() == Some(b'{') => self.gather(cursor, inside, before, events)?,
                Target::Object(_) if cursor.peek() != Some(b'n') => {
                    let detail = format!("`{}` is not an object, and the mapping reaches into it", name.raw);
                    return Err(Rejected::Refused(Refusal::new(Reason::WrongType, detail)));
                }
                Target::Field(field) => {
                    if self.around[before..].iter().any(|(other, _)| *other == field) {
                        return Err(occurs_twice(name.raw));
                    }
                    self.around.push((field, start));
                    cursor.skip_value(u8::MAX)?;
                }
                Target::Events if events.is_some() => return Err(occurs_twice(name.raw)),
                Target::Events => {
                    *events = (cursor.peek() != Some(b'n')).then_some(start);
                    cursor.skip_value(u8::MAX)?;
                }
                Target::Object(_) | Target::Ignored | Target::Unknown(_) => cursor.skip_value(u8::MAX)?,
            }
            more = cursor.next_member(b'}')?;
        }
        Ok(())
    }

    /// Writes one event of a message: its own fields, then those around it that it does not give.
    fn event(&mut self, cursor: &mut Cursor<'_>, message: &mut Message<'_>) -> Result<(), Rejected> {
        let index = self.next_index(message)?;
        self.rows.begin();
        self.object(cursor, self.names.root(self.names.levels()), u8::MAX)?;
        for at in (0..self.around.len()).rev() {
            let (field, start) = self.around[at];
            if !self.rows.is_seen(field) {
                self.field(message.text, start, field, u8::MAX)?;
            }
        }
        self.rows.end(message.record, index);
        if !self.around.is_empty() && self.rows.text_bytes() > message.text_bytes_max {
            let detail = format!("the events of the message repeat more than {EXPANSION_MAX} times its text");
            return Err(Rejected::Refused(Refusal::new(Reason::TooLarge, detail)));
        }
        Ok(())
    }

    fn no_event(&mut self, message: &mut Message<'_>, refusal: Refusal) -> Result<(), Rejected> {
        let index = self.next_index(message)?;
        self.rows.begin();
        self.rows.bury(refusal, message.record, index);
        Ok(())
    }

    fn next_index(&mut self, message: &mut Message<'_>) -> Result<i32, Rejected> {
        let index = message.next_index;
        let events_max = self.limits.events_max;
        if usize::try_from(index).map_or(true, |index| index >= events_max) {
            let detail = format!("the message has more than {events_max} events");
            return Err(Rejected::Refused(Refusal::new(Reason::TooLarge, detail)));
        }
        message.next_index += 1;
        Ok(index)
    }
}

/// The record as text, if it is small enough, not empty and UTF-8.
pub(crate) fn readable<'a>(payload: &'a [u8], limits: &Limits) -> Result<&'a str, Refusal> {
    if payload.len() > limits.record_bytes_max {
        let detail = format!("{} bytes, the limit is {}", payload.len(), limits.record_bytes_max);
        return Err(Refusal::new(Reason::TooLarge, detail));
    }
    if payload.is_empty() || payload.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::new(Reason::Empty, "the record has no content"));
    }
    std::str::from_utf8(payload)
        .map_err(|error| Refusal::new(Reason::InvalidUtf8, format!("byte {} is not UTF-8", error.valid_up_to())))
}

/// Where the value at `at` ends, which nobody wants.
fn skipped(text: &str, at: usize, depth: u8) -> Result<usize, Malformed> {
    let mut cursor = Cursor::at(text, at);
    cursor.skip_value(depth)?;
    Ok(cursor.at)
}

/// Where, from `at` on, something else than white space stands.
#[inline(always)]
fn after_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

fn refusal(rejected: Rejected) -> Refusal {
    match rejected {
        Rejected::Refused(refusal) => refusal,
        Rejected::Malformed(malformed) => {
            let reason = if malformed.what == Fault::Depth { Reason::TooDeep } else { Reason::NotJson };
            Refusal::new(reason, format!("byte {}: {}", malformed.at, malformed.what.describe()))
        }
    }
}

fn not_an_object(mut cursor: Cursor<'_>, depth: u8) -> Rejected {
    let is_array = cursor.peek() == Some(b'[');
    if let Err(malformed) = cursor.skip_value(depth).and_then(|()| cursor.end()) {
        return Rejected::Malformed(malformed);
    }
    let hint = if is_array { "; if each element is an event, set `explode = \".\"` in the mapping" } else { "" };
    Rejected::Refused(Refusal::new(Reason::NotAnObject, format!("an event is a JSON object{hint}")))
}

fn occurs_twice(name: &str) -> Rejected {
    Rejected::Refused(Refusal::new(Reason::DuplicateField, format!("`{name}` occurs twice around the events")))
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
