//! UTF-8 checked for many records at once.
//!
//! Checking has a price for each call and next to none for each byte, so the bytes of a block are checked some thousand at a
//! time, ahead of the records. A record that is not in what was found good is left to its own check, which says what is wrong.

/// Bytes that are checked at once; few enough to be still in the fastest memory when they are read.
const AHEAD: usize = 8 << 10;

/// The bytes of a block and the piece of them that is known to be text.
pub(super) struct Checked<'a> {
    bytes: &'a [u8],
    text: &'a str,
    /// Where the text begins in the bytes.
    start: usize,
}

impl<'a> Checked<'a> {
    /// Nothing is checked yet.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, text: "", start: 0 }
    }

    /// The bytes from `start` to `end` as text, if they are found to be that. Records are asked for in their order.
    #[inline]
    pub(super) fn text(&mut self, start: usize, end: usize) -> Option<&'a str> {
        if end > self.start + self.text.len() {
            self.look_ahead(start, end);
        }
        self.text.get(start.checked_sub(self.start)?..end - self.start)
    }

    fn look_ahead(&mut self, start: usize, end: usize) {
        let ahead = &self.bytes[start..self.bytes.len().min(end.max(start + AHEAD))];
        let good = match std::str::from_utf8(ahead) {
            Ok(text) => Ok(text),
            Err(error) => std::str::from_utf8(&ahead[..error.valid_up_to()]),
        };
        self.text = good.unwrap_or_default();
        self.start = start;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_text_is_what_each_check_finds(
            pieces in proptest::collection::vec(prop_oneof![
                8 => "[a-zé漢]{0,40}".prop_map(String::into_bytes),
                2 => "[a-z漢]{2000,5000}".prop_map(String::into_bytes),
                1 => proptest::collection::vec(any::<u8>(), 0..4),
            ], 0..40),
        ) {
            let bytes = pieces.concat();
            let mut checked = Checked::new(&bytes);
            let mut start = 0;
            for piece in &pieces {
                let end = start + piece.len();
                let own = std::str::from_utf8(piece).ok();
                let found = checked.text(start, end);
                prop_assert!(found == own || found.is_none(), "{:?}, not {:?}", found, own);
                start = end;
            }
            if std::str::from_utf8(&bytes).is_ok() && bytes.len() <= AHEAD {
                prop_assert_eq!(Checked::new(&bytes).text(0, bytes.len()), std::str::from_utf8(&bytes).ok());
            }
        }
    }
}
