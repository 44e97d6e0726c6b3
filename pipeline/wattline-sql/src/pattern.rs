//! Row patterns (`MATCH_RECOGNIZE`): which rows of a partition, in order of time, match a pattern of symbols.
//!
//! ```text
//! PATTERN (a b+ c)  DEFINE b AS price < a.price, …     MEASURES last(b.price) AS lowest, …
//!      │ program.rs        │ formula.rs                       │ formula.rs
//!      └──── scan.rs: from each start the first match in order of preference ────▶ a list of matches per row
//! ```
//! A match is decided at the moment when no later row can change it. The scan of a partition stops at the first start that
//! is not decided yet: one that could use a row which is not there. So what it gives out depends on the rows alone, and a
//! pattern that ends with a definite row is told with that row. `DEFINE` must bound the time from the first row of a
//! match to any other ([`bound`]): past that bound nothing is open, and no row before it is kept.
//!
//! The same scan serves batch (as a window function that gives each row the matches that it stands for, which is then
//! unnested) and streams (over what is kept of a partition), so the two cannot differ.
//!
//! Left out, and refused: anchors `^` and `$` (a stream has no last row), patterns that match no row at all, `next`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};

pub(crate) mod bound;
mod formula;
mod program;
mod scan;

pub(crate) use formula::{End, Formula, Reference, RowReference};
pub(crate) use program::{Program, Symbols, normalized};
pub(crate) use scan::{Horizon, Resume, scan};

/// A row pattern, ready to be matched.
#[derive(Debug)]
pub(crate) struct RowPattern {
    /// The clauses as text; two patterns over the same inputs are the same if this is equal.
    pub(crate) text: String,
    /// The symbols as they are written in PATTERN.
    pub(crate) symbols: Vec<String>,
    pub(crate) program: Program,
    /// For each symbol its condition; without one every row fits.
    pub(crate) defines: Vec<Option<Formula>>,
    pub(crate) measures: Vec<(FieldRef, Formula)>,
    pub(crate) rows: RowsPerMatch,
    pub(crate) skip: Skip,
    /// No condition depends on which symbols the rows before were taken for: then the search goes no way twice.
    pub(crate) path_free: bool,
    /// No row of a match is later than its first row by more than this, microseconds.
    pub(crate) bound_us: i64,
}

/// What a match gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsPerMatch {
    One,
    /// A row for each of its rows; `unmatched`: and one for each row without a match.
    All {
        unmatched: bool,
    },
}

/// Where the search goes on after a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skip {
    PastLastRow,
    ToNextRow,
    ToFirst(usize),
    ToLast(usize),
}

impl RowPattern {
    /// How many rows before the first row of a match its formulas look at.
    pub(crate) fn rows_before(&self) -> usize {
        let formulas = self.defines.iter().flatten().chain(self.measures.iter().map(|(_, formula)| formula));
        formulas.map(Formula::rows_before).max().unwrap_or(0)
    }

    /// Whether anything asks for the number of a match, which must then be known for ever.
    pub(crate) fn counts_matches(&self) -> bool {
        let formulas = self.defines.iter().flatten().chain(self.measures.iter().map(|(_, formula)| formula));
        formulas.flat_map(|formula| &formula.references).any(|of| matches!(of, Reference::MatchNumber))
    }

    /// The matches of a row: a list of the measures.
    pub(crate) fn list_type(&self) -> DataType {
        let item = DataType::Struct(self.measure_fields());
        DataType::List(Arc::new(Field::new_list_field(item, true)))
    }

    pub(crate) fn measure_fields(&self) -> Fields {
        self.measures.iter().map(|(field, _)| Arc::clone(field)).collect()
    }
}

impl PartialEq for RowPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for RowPattern {}

impl Hash for RowPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for RowPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
