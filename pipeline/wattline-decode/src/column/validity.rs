//! Which rows of a column have a value: the runs of those that have none.
//!
//! Most columns have a value in every row or in none of a block, so a run is kept rather than a bit for each row: noting a value
//! is one addition, and the bits are made when the batch ends.

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::NullBuffer;

/// The rows of a column that have no value.
#[derive(Debug, Default)]
pub(super) struct Validity {
    rows: usize,
    /// Where runs of nulls begin and end; ascending, and no two of them touch.
    gaps: Vec<(usize, usize)>,
}

impl Validity {
    /// Number of rows.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Appends a row with a value.
    #[inline]
    pub(super) fn append_value(&mut self) {
        self.rows += 1;
    }

    /// Appends rows without one.
    pub(super) fn append_nulls(&mut self, count: usize) {
        let start = self.rows;
        self.rows += count;
        match self.gaps.last_mut() {
            Some((_, end)) if *end == start => *end = self.rows,
            _ => self.gaps.push((start, self.rows)),
        }
    }

    /// Forgets the rows from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.rows = self.rows.min(len);
        while self.gaps.pop_if(|(start, _)| *start >= len).is_some() {}
        if let Some((_, end)) = self.gaps.last_mut() {
            *end = len.min(*end);
        }
    }

    /// The bits, `None` if every row has a value; begins anew.
    pub(super) fn finish(&mut self) -> Option<NullBuffer> {
        let rows = std::mem::take(&mut self.rows);
        if self.gaps.is_empty() {
            return None;
        }
        let mut bits = BooleanBufferBuilder::new(rows);
        for (start, end) in self.gaps.drain(..) {
            bits.append_n(start - bits.len(), true);
            bits.append_n(end - start, false);
        }
        bits.append_n(rows - bits.len(), true);
        Some(NullBuffer::new(bits.finish()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_the_bits(steps in proptest::collection::vec((0_u8..4, 1_usize..5), 0..40)) {
            let (mut validity, mut bits) = (Validity::default(), Vec::new());
            for (kind, count) in steps {
                match kind {
                    0 => {
                        validity.append_nulls(count);
                        bits.resize(bits.len() + count, false);
                    }
                    1 => {
                        let len = bits.len().saturating_sub(count);
                        validity.truncate(len);
                        bits.truncate(len);
                    }
                    _ => {
                        validity.append_value();
                        bits.push(true);
                    }
                }
                prop_assert_eq!(validity.len(), bits.len());
            }
            let nulls = validity.finish();
            prop_assert_eq!(nulls.is_some(), bits.contains(&false));
            let made: Vec<bool> = nulls.map_or(vec![true; bits.len()], |nulls| nulls.iter().collect());
            prop_assert_eq!(made, bits);
        }
    }
}
