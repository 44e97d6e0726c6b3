//! CSV records into columns (RFC 4180, with the delimiter that the header uses).
//!
//! A record is split in place: a cell is a slice of the record unless it holds doubled quotes. An empty cell is null;
//! `""` is the empty text. Numbers, instants and booleans are read exactly as JSON strings are; lists and maps are written
//! in a cell as JSON.
//!
//! A record must have as many cells as the header: one that has not is refused, never shifted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::dead_letter::{Reason, Refusal, excerpt};
use crate::error::Error;
use crate::json::{readable, write_cell};
use crate::limits::Limits;
use crate::mapping::Mapping;
use crate::records::Records;
use crate::rows::{Decoded, Rows};
use crate::schema::{StreamSchema, nearest};

/// Delimiters that a header may use, the likeliest first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Decodes CSV records of one stream; the header has been read before.
#[derive(Debug)]
pub struct CsvDecoder {
    rows: Rows,
    columns: Vec<Column>,
    delimiter: u8,
    cells: Vec<Cell>,
    /// Cells with doubled quotes, resolved.
    resolved: String,
}

#[derive(Debug)]
struct Column {
    name: String,
    target: ColumnTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnTarget {
    Field(usize),
    Ignored,
    Unknown,
}

/// A cell: where its text is, and whether it was quoted (then empty is not null).
#[derive(Debug, Clone)]
struct Cell {
    range: Range<usize>,
    in_resolved: bool,
    quoted: bool,
}

impl CsvDecoder {
    /// A decoder for one stream; `header` is the first line of the file.
    ///
    /// # Errors
    /// [`Error::Mapping`] with every mistake of the mapping, [`Error::Header`] if a required field has no column or two
    /// columns are one field.
    pub fn new(schema: Arc<StreamSchema>, mapping: &Mapping, limits: Limits, header: &str) -> Result<Self, Error> {
        let mut problems = mapping.validate(&schema);
        if mapping.explode.is_some() {
            problems.push(crate::mapping::MappingProblem {
                key: "explode".to_owned(),
                message: "a CSV record is one event".to_owned(),
                help: Some("remove `explode`".to_owned()),
            });
        }
        if !problems.is_empty() {
            return Err(Error::Mapping { stream: schema.name.clone(), problems });
        }
        let fail = |what: String| Error::Header { stream: schema.name.clone(), what };
        let header = header.strip_prefix('\u{feff}').unwrap_or(header);
        let delimiter = delimiter_of(header);
        let mut cells = Vec::new();
        let mut resolved = String::new();
        split(trim_line(header), delimiter, &mut cells, &mut resolved).map_err(|what| fail(what.to_owned()))?;
        let names = cells.iter().map(|cell| cell.text(trim_line(header), &resolved).trim().to_owned());
        let columns: Vec<Column> =
            names.map(|name| Column { target: target_of(&schema, mapping, &name), name }).collect();
        check_columns(&schema, mapping, &columns).map_err(fail)?;
        Ok(Self { rows: Rows::new(schema, mapping, limits), columns, delimiter, cells, resolved })
    }

    /// Decodes a block of records, one line (or quoted lines) each: every record is a row of the batch or a dead letter.
    pub fn decode(&mut self, block: Records<'_>) -> Decoded {
        let mut events = 0;
        for (record, payload) in block.iter() {
            match self.decode_record(record, payload) {
                Ok(()) => events += 1,
                Err(refusal) => {
                    self.rows.begin();
                    self.rows.bury(refusal, record, 0);
                }
            }
        }
        let unknown = self.columns.iter().filter(|column| column.target == ColumnTarget::Unknown && events > 0);
        let unknown_fields: BTreeMap<String, u64> = unknown.map(|column| (excerpt(&column.name), events)).collect();
        self.rows.finish(unknown_fields)
    }

    fn decode_record(&mut self, record: u32, payload: &[u8]) -> Result<(), Refusal> {
        let limits = *self.rows.limits();
        let line = trim_line(readable(payload, &limits)?);
        split(line, self.delimiter, &mut self.cells, &mut self.resolved)
            .map_err(|what| Refusal::new(Reason::NotCsv, what))?;
        if self.cells.len() != self.columns.len() {
            let detail = format!("{} cells, the header has {}", self.cells.len(), self.columns.len());
            return Err(Refusal::new(Reason::NotCsv, detail));
        }
        self.rows.begin();
        for (column, cell) in self.columns.iter().zip(&self.cells) {
            let ColumnTarget::Field(field) = column.target else { continue };
            let text = cell.text(line, &self.resolved);
            if text.is_empty() && !cell.quoted {
                continue;
            }
            let Some((column, treatment)) = self.rows.claim(field) else { break };
            match write_cell(column, text, treatment, &limits) {
                Ok(zone) => self.rows.note_zone(field, zone),
                Err(unfit) => {
                    self.rows.refuse_value(field, unfit, text);
                    break;
                }
            }
        }
        self.rows.end(record, 0);
        Ok(())
    }
}

impl Cell {
    fn text<'a>(&self, line: &'a str, resolved: &'a str) -> &'a str {
        let source = if self.in_resolved { resolved } else { line };
        &source[self.range.clone()]
    }
}

fn target_of(schema: &StreamSchema, mapping: &Mapping, name: &str) -> ColumnTarget {
    if mapping.ignore.contains(name) {
        return ColumnTarget::Ignored;
    }
    let canonical = mapping.rename.get(name).map_or(name, String::as_str);
    schema.index_of(canonical).map_or(ColumnTarget::Unknown, ColumnTarget::Field)
}

fn check_columns(schema: &StreamSchema, mapping: &Mapping, columns: &[Column]) -> Result<(), String> {
    for (index, field) in schema.fields.iter().enumerate() {
        let mut sources = columns.iter().filter(|column| column.target == ColumnTarget::Field(index));
        match (sources.next(), sources.next()) {
            (Some(one), Some(other)) => {
                return Err(format!(
                    "columns `{}` and `{}` are both the field `{}`; ignore one in the mapping",
                    one.name, other.name, field.name
                ));
            }
            (None, _) if field.required && !mapping.constants.contains_key(&field.name) => {
                let unknown = columns.iter().filter(|column| column.target == ColumnTarget::Unknown);
                let near = nearest(&field.name, unknown.map(|column| column.name.as_str()));
                let near = near.unwrap_or("name in the file");
                return Err(format!(
                    "no column is the required field `{0}`; write `rename = {{ \"{near}\" = \"{0}\" }}` in the mapping",
                    field.name
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn delimiter_of(header: &str) -> u8 {
    let count = |delimiter: u8| header.bytes().filter(|b| *b == delimiter).count();
    DELIMITERS.into_iter().rev().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

fn trim_line(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Splits a record into cells.
fn split(line: &str, delimiter: u8, cells: &mut Vec<Cell>, resolved: &mut String) -> Result<(), &'static str> {
    cells.clear();
    resolved.clear();
    let bytes = line.as_bytes();
    let mut at = 0;
    loop {
        let end = if bytes.get(at) == Some(&b'"') {
            split_quoted(line, at + 1, cells, resolved)?
        } else {
            let length = bytes[at..].iter().position(|b| *b == delimiter).unwrap_or(bytes.len() - at);
            cells.push(Cell { range: at..at + length, in_resolved: false, quoted: false });
            at + length
        };
        match bytes.get(end) {
            None => return Ok(()),
            Some(b) if *b == delimiter => at = end + 1,
            Some(_) => return Err("text after the closing quote of a cell"),
        }
    }
}

/// Takes a quoted cell whose text starts at `start`; returns where it ends, behind the closing quote.
fn split_quoted(line: &str, start: usize, cells: &mut Vec<Cell>, resolved: &mut String) -> Result<usize, &'static str> {
    let resolved_from = resolved.len();
    let mut doubled = false;
    let mut from = start;
    loop {
        let Some(length) = line[from..].find('"') else {
            return Err("a quoted cell does not end");
        };
        let quote = from + length;
        if line.as_bytes().get(quote + 1) == Some(&b'"') {
            doubled = true;
            resolved.push_str(&line[from..=quote]);
            from = quote + 2;
            continue;
        }
        let range = if doubled {
            resolved.push_str(&line[from..quote]);
            resolved_from..resolved.len()
        } else {
            start..quote
        };
        cells.push(Cell { range, in_resolved: doubled, quoted: true });
        return Ok(quote + 1);
    }
}

#[cfg(test)]
mod tests;
