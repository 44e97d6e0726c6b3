//! The search for matches in one partition, its rows in order.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, StructArray, new_null_array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};
use datafusion::common::exec_err;
use datafusion::error::Result;

use super::formula::{Conditions, Path, joined};
use super::program::Step;
use super::{RowPattern, RowsPerMatch, Skip};

/// Steps that the matcher may try from one start. Where conditions depend on the path, `(a | b)+ c` has as many paths as
/// there are ways to write its rows with two letters.
const TRIES_MAX: usize = 10_000_000;

/// Up to which instant all rows are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Horizon {
    /// All rows up to and at this instant, microseconds; later ones may come.
    At(i64),
    /// All rows there will ever be.
    End,
}

/// Where a scan begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Resume {
    /// The first row that a match may begin with; those before it are looked back at.
    pub(crate) row: usize,
    /// Matches before it.
    pub(crate) matches: i64,
}

/// What a scan has found.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// Rows before this one are done: no later row changes what they give.
    pub(crate) done: usize,
    /// Where the next scan must begin to come to the same.
    pub(crate) resume: Resume,
    /// The matches that each row stands for, a list of measures for each row from the scan's first to `done`.
    pub(crate) lists: ListArray,
}

enum Outcome {
    Match(Vec<(usize, bool)>),
    None,
    Undecided,
}

/// Searches the rows of one partition. `times_us` are their instants, in ascending order; `inputs` are the columns that
/// the formulas take, in the order of the pattern's inputs.
pub(crate) fn scan(
    pattern: &RowPattern,
    times_us: &[i64],
    inputs: &[ArrayRef],
    from: Resume,
    horizon: Horizon,
) -> Result<Scanned> {
    let rows = times_us.len();
    let mut search =
        Search { pattern, times_us, inputs, horizon, conditions: Conditions::new(&pattern.defines, inputs, rows) };
    let mut cursor = from.row;
    let mut matches = from.matches;
    let mut entries: Vec<Entry> = Vec::new();
    let mut covered = vec![false; rows];
    // Of each match its first row, the row behind its last, and the matches before it.
    let mut spans: Vec<(usize, usize, i64)> = Vec::new();
    while cursor < rows {
        let path = match search.from(cursor, matches + 1)? {
            Outcome::Undecided => break,
            Outcome::None => {
                cursor += 1;
                continue;
            }
            Outcome::Match(path) => path,
        };
        let end = cursor + path.len();
        spans.push((cursor, end, matches));
        matches += 1;
        covered[cursor..end].fill(true);
        let symbols: Vec<usize> = path.iter().map(|(symbol, _)| *symbol).collect();
        match pattern.rows {
            RowsPerMatch::One => entries.push(search.measure(cursor, cursor, &symbols, matches)?),
            RowsPerMatch::All { .. } => {
                for at in (0..path.len()).filter(|at| !path[*at].1) {
                    entries.push(search.measure(cursor + at, cursor, &symbols[..=at], matches)?);
                }
            }
        }
        cursor = next_start(pattern, cursor, &symbols);
    }
    if pattern.rows == (RowsPerMatch::All { unmatched: true }) {
        entries.extend((from.row..cursor).filter(|row| !covered[*row]).map(|row| Entry { row, values: None }));
    }
    entries.retain(|entry| entry.row < cursor);
    entries.sort_by_key(|entry| entry.row);
    let again = match pattern.rows {
        RowsPerMatch::One => None,
        RowsPerMatch::All { .. } => spans.into_iter().find(|(_, end, _)| *end > cursor),
    };
    let resume = again.map_or(Resume { row: cursor, matches }, |(row, _, matches)| Resume { row, matches });
    Ok(Scanned { done: cursor, resume, lists: lists_of(pattern, &entries, from.row..cursor)? })
}

/// The measures of one match at one row; `None` for a row without a match.
struct Entry {
    row: usize,
    values: Option<Vec<ArrayRef>>,
}

struct Search<'a> {
    pattern: &'a RowPattern,
    times_us: &'a [i64],
    inputs: &'a [ArrayRef],
    horizon: Horizon,
    conditions: Conditions<'a>,
}

impl Search<'_> {
    /// Whether a later row could still belong to a match that begins here.
    fn is_open(&self, start: usize) -> bool {
        match self.horizon {
            Horizon::End => false,
            Horizon::At(us) => us < self.times_us[start].saturating_add(self.pattern.bound_us),
        }
    }

    /// The first match, in the order of preference, that begins at `start`.
    fn from(&mut self, start: usize, number: i64) -> Result<Outcome> {
        let steps = &self.pattern.program.steps;
        let mut symbols: Vec<usize> = Vec::new();
        let mut excluded: Vec<bool> = Vec::new();
        let mut other_ways: Vec<(usize, usize)> = vec![(0, 0)];
        let mut tries = 0;
        // A place in the program with so many rows taken: where that has led nowhere, it does so again.
        let mut been: HashSet<(usize, usize)> = HashSet::new();
        while let Some((mut at, len)) = other_ways.pop() {
            symbols.truncate(len);
            excluded.truncate(len);
            loop {
                tries += 1;
                if tries > TRIES_MAX {
                    return exec_err!(
                        "the pattern tried {TRIES_MAX} ways from one row without a result: make its DEFINE more selective"
                    );
                }
                if self.pattern.path_free && !been.insert((at, symbols.len())) {
                    break;
                }
                match steps[at] {
                    Step::Done => return Ok(Outcome::Match(symbols.into_iter().zip(excluded).collect())),
                    Step::Goto(to) => at = to,
                    Step::Either(first, second) => {
                        other_ways.push((second, symbols.len()));
                        at = first;
                    }
                    Step::Row { symbol, excluded: is_excluded } => {
                        if start + symbols.len() >= self.times_us.len() {
                            if self.is_open(start) {
                                return Ok(Outcome::Undecided);
                            }
                            break;
                        }
                        symbols.push(symbol);
                        excluded.push(is_excluded);
                        let names = &self.pattern.symbols;
                        if !self.conditions.fits(Path { start, symbols: &symbols, names, number })? {
                            break;
                        }
                        at += 1;
                    }
                }
            }
        }
        Ok(Outcome::None)
    }

    fn measure(&self, row: usize, start: usize, symbols: &[usize], number: i64) -> Result<Entry> {
        let path = Path { start, symbols, names: &self.pattern.symbols, number };
        let values = self.pattern.measures.iter().map(|(_, formula)| formula.evaluate(self.inputs, path));
        Ok(Entry { row, values: Some(values.collect::<Result<_>>()?) })
    }
}

/// Where the search goes on behind a match.
fn next_start(pattern: &RowPattern, start: usize, symbols: &[usize]) -> usize {
    let found = match pattern.skip {
        Skip::PastLastRow => None,
        Skip::ToNextRow => Some(1),
        Skip::ToFirst(symbol) => symbols.iter().position(|of| *of == symbol),
        Skip::ToLast(symbol) => symbols.iter().rposition(|of| *of == symbol),
    };
    debug_assert!(found != Some(0), "planning refuses to go on at the row at which a match begins");
    start + found.filter(|at| *at > 0).unwrap_or(symbols.len())
}

fn lists_of(pattern: &RowPattern, entries: &[Entry], rows: std::ops::Range<usize>) -> Result<ListArray> {
    let mut offsets: Vec<i32> = Vec::with_capacity(rows.len() + 1);
    offsets.push(0);
    let mut at = 0;
    for row in rows {
        at += entries[at..].iter().take_while(|entry| entry.row == row).count();
        offsets.push(i32::try_from(at).unwrap_or(i32::MAX));
    }
    let mut columns = Vec::with_capacity(pattern.measures.len());
    for (number, (field, _)) in pattern.measures.iter().enumerate() {
        let null = new_null_array(field.data_type(), 1);
        let value =
            |entry: &Entry| entry.values.as_ref().map_or_else(|| Arc::clone(&null), |of| Arc::clone(&of[number]));
        columns.push(joined(&entries.iter().map(value).collect::<Vec<_>>(), field.data_type())?);
    }
    let fields = pattern.measure_fields();
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true));
    let structs = StructArray::try_new_with_length(fields, columns, None, entries.len())?;
    Ok(ListArray::try_new(item, OffsetBuffer::new(ScalarBuffer::from(offsets)), Arc::new(structs), None)?)
}
