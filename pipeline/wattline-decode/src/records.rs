//! A borrowed block of raw records, as sources hand it over: one buffer and where each record ends in it.

/// Raw records of one lane: record `k` is `bytes[ends[k - 1]..ends[k]]`.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    /// The payloads, one after the other.
    pub bytes: &'a [u8],
    /// Where each record ends; never decreasing.
    pub ends: &'a [u32],
}

impl<'a> Records<'a> {
    /// The payloads with their numbers in the block.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        let mut start = 0;
        (0..).zip(self.ends).map(move |(record, end)| {
            let end = *end as usize;
            let payload = &bytes[start..end];
            start = end;
            (record, payload)
        })
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}
