//! The order in which keys come, as a guess at the next one.
//!
//! A fleet reports in rounds, in much the same order each time. So with each key stands the one that followed it last, and a key that is
//! that one again is known by comparing its few bytes, which lie beside those of the key before, instead of by a hash and a look into a
//! table that no cache holds. A wrong guess costs that comparison; then some rows are looked up in the table, and the guesses mended: few at
//! first, and more of them where the order keeps changing.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder, UInt32Array};

/// Rows that are looked up after a wrong guess: at first, and at most.
const FEWEST_ROWS: usize = 16;
const MOST_ROWS: usize = 4 * 1024;
/// Nobody is known to follow.
const NONE: u32 = u32::MAX;

/// Texts by number, and which number followed which.
#[derive(Debug, Default)]
pub(super) struct KeySequence {
    bytes: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
    next: Vec<u32>,
    /// The number that came last.
    last: Option<u32>,
    /// The number of the key without a value.
    null: Option<u32>,
}

impl KeySequence {
    /// The next key, which gets the next number.
    pub(super) fn push(&mut self, key: Option<&str>) {
        if key.is_none() {
            self.null = u32::try_from(self.ends.len()).ok();
        }
        self.bytes.extend_from_slice(key.unwrap_or_default().as_bytes());
        self.ends.push(self.bytes.len());
        self.next.push(NONE);
    }

    /// The key with this number came.
    pub(super) fn note(&mut self, number: u32) {
        if let Some(next) = self.last.and_then(|last| self.next.get_mut(last as usize)) {
            *next = number;
        }
        self.last = Some(number);
    }

    /// Adds the numbers of keys for as long as each is the one that it was guessed to be, and gives the row at which that ended.
    pub(super) fn guess(&mut self, keys: &StringArray, from: usize, numbers: &mut Vec<u32>) -> usize {
        let (offsets, values) = (keys.value_offsets(), keys.value_data());
        let Some(mut last) = self.last else { return from };
        let mut row = from;
        while row < keys.len() {
            let Some(&next) = self.next.get(last as usize) else { break };
            let (Some(known), Some([start, end])) = (self.span(next), offsets.get(row..row + 2)) else { break };
            let key = values.get(*start as usize..*end as usize);
            if self.null == Some(next) || keys.is_null(row) || key != self.bytes.get(known) {
                break;
            }
            numbers.push(next);
            last = next;
            row += 1;
        }
        self.last = Some(last);
        row
    }

    fn span(&self, number: u32) -> Option<Range<usize>> {
        let number = number as usize;
        let end = *self.ends.get(number)?;
        let start = match number {
            0 => 0,
            number => *self.ends.get(number - 1)?,
        };
        Some(start..end)
    }

    /// The texts of these numbers.
    pub(super) fn texts(&self, numbers: &UInt32Array) -> ArrayRef {
        let mut texts = StringBuilder::with_capacity(numbers.len(), self.bytes.len().min(numbers.len() * 16));
        for number in numbers.values() {
            let text = self.span(*number).and_then(|span| std::str::from_utf8(self.bytes.get(span)?).ok());
            texts.append_option(text.filter(|_| self.null != Some(*number)));
        }
        Arc::new(texts.finish())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>() + self.next.capacity() * size_of::<u32>()
    }
}

/// How many rows are looked up next.
#[derive(Debug)]
pub(super) struct LookUps {
    rows: usize,
}

impl LookUps {
    pub(super) fn new() -> Self {
        Self { rows: FEWEST_ROWS }
    }

    /// After so many rows that were guessed.
    pub(super) fn next(&mut self, guessed: usize) -> usize {
        let rows = self.rows;
        self.rows = if guessed > rows { FEWEST_ROWS } else { (rows * 2).min(MOST_ROWS) };
        rows
    }
}
