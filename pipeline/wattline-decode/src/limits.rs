//! How large a record may be and what it may hold: what keeps a hostile payload from costing more than its bytes.

/// Bounds of what a decoder accepts; beyond them a record becomes a dead letter with reason `too_large` or `too_deep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a record.
    pub record_bytes_max: usize,
    /// Levels of arrays and objects inside each other.
    pub depth_max: u8,
    /// Items of a list, entries of a map.
    pub list_items_max: usize,
    /// Events of one message.
    pub events_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { record_bytes_max: 1 << 20, depth_max: 32, list_items_max: 1_024, events_max: 10_000 }
    }
}
