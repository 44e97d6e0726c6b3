//! How long a match can last, as its DEFINE says.
//!
//! A stream can only forget rows if no match that begins with them can go on. So each symbol that a later row of the match
//! can have must state how far that row is from one before it:
//!
//! | in DEFINE of `b` | the row is no later than |
//! |---|---|
//! | `b.ts <= first(ts) + INTERVAL '1 hour'` | an hour after the first row of the match |
//! | `b.ts <= a.ts + INTERVAL '1 hour'` | an hour after `a`, for which the same is asked |
//! | `b.ts <= prev(ts) + INTERVAL '1 hour'` | an hour after the row before; the pattern must have a largest number of rows |
//!
//! `b.ts - a.ts <= INTERVAL '1 hour'`, `<` and BETWEEN say the same.

use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::formula::{End, Reference, RowReference};
use super::program::Program;
use crate::logical::{duration_us, interval_us, shifted};

/// What the time of a row is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    FirstRow,
    Symbol(usize),
    PreviousRow,
}

/// The time of the row is at most that of another row plus so many microseconds.
pub(crate) type Limit = (From, i64);

/// The input that holds the event time.
pub(crate) const TIME_INPUT: usize = 0;

/// The limits that the condition of `symbol` states. `reference_of` gives the reference behind a column of the condition.
pub(crate) fn limits_in<'a>(
    condition: &Expr,
    symbol: usize,
    reference_of: &dyn Fn(&str) -> Option<&'a Reference>,
) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut at_most = |earlier: &Expr, later: &Expr| limits.extend(limit_of(earlier, later, symbol, reference_of));
    for conjunct in split_conjunction(condition) {
        match conjunct {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::LtEq | Operator::Lt, right }) => at_most(left, right),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::GtEq | Operator::Gt, right }) => at_most(right, left),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                at_most(left, right);
                at_most(right, left);
            }
            Expr::Between(between) if !between.negated => at_most(&between.expr, &between.high),
            _ => {}
        }
    }
    limits
}

/// What `low <= high` says of the row of `symbol`.
fn limit_of<'a>(
    low: &Expr,
    high: &Expr,
    symbol: usize,
    reference_of: &dyn Fn(&str) -> Option<&'a Reference>,
) -> Option<Limit> {
    let time_of = |name: &str| match reference_of(name)? {
        Reference::Row(row) if row.input == TIME_INPUT => Some(*row),
        _ => None,
    };
    let ((row, row_us), (other, other_us)) = match low {
        // b.ts - a.ts <= duration
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) if interval_us(right).is_none() => {
            let ((left, left_us), (right, right_us)) = (shifted(left)?, shifted(right)?);
            ((left, left_us), (right, right_us.checked_add(duration_us(high)?)?))
        }
        _ => (shifted(low)?, shifted(high)?),
    };
    let (row, other) = (time_of(&row.name)?, time_of(&other.name)?);
    let is_current = row.of.is_none_or(|of| of == symbol) && row.end == End::Last && row.nth == 0 && row.back == 0;
    if !is_current {
        return None;
    }
    Some((from_of(other, symbol)?, other_us.checked_sub(row_us)?))
}

fn from_of(row: RowReference, symbol: usize) -> Option<From> {
    match (row.of, row.end) {
        (None, End::First) if row.nth == 0 => Some(From::FirstRow),
        (None, End::Last) if row.nth + row.back == 1 => Some(From::PreviousRow),
        // Its own first row is some row of the match; which one only the pattern says.
        (Some(of), _) if of != symbol || (row.end == End::First && row.nth == 0) => Some(From::Symbol(of)),
        _ => None,
    }
}

/// How much later than the first row of a match its other rows can be, microseconds.
///
/// # Errors
/// The symbol whose condition does not bound it.
pub(crate) fn bound_of(program: &Program, limits: &[Vec<Limit>]) -> Result<i64, usize> {
    let (first, later) = program.places();
    let always_first = |symbol: usize| first.len() == 1 && first.contains(&symbol);
    let mut bounds: Vec<Option<i64>> =
        (0..limits.len()).map(|symbol| (!later.contains(&symbol)).then_some(0)).collect();
    // A bound may follow from that of another symbol; each round settles at least one of them or is the last.
    for _round in 0..limits.len() {
        for &symbol in &later {
            let own = limits[symbol].iter().filter_map(|(from, us)| match from {
                From::FirstRow => Some(*us),
                From::Symbol(of) if *of == symbol => always_first(symbol).then_some(*us),
                From::Symbol(of) if !later.contains(of) => Some(*us),
                From::Symbol(of) => bounds[*of]?.checked_add(*us),
                From::PreviousRow => None,
            });
            let best = own.chain(bounds[symbol]).min();
            bounds[symbol] = best;
        }
    }
    // Rows that are bound to the one before them follow the first row, or one that is bound to it.
    let step_of = |symbol: usize| limits[symbol].iter().find(|(from, _)| *from == From::PreviousRow).map(|(_, us)| *us);
    let (mut bound_us, mut step_us): (i64, i64) = (0, 0);
    for &symbol in &later {
        match bounds[symbol] {
            Some(us) => bound_us = bound_us.max(us),
            None => step_us = step_us.max(step_of(symbol).ok_or(symbol)?),
        }
    }
    if step_us == 0 {
        return Ok(bound_us);
    }
    let stepwise = |symbol: &&usize| bounds[**symbol].is_none();
    let steps = program.rows_max().and_then(|rows| i64::try_from(rows.saturating_sub(1)).ok());
    let steps_us = steps.and_then(|steps| step_us.checked_mul(steps)).and_then(|us| us.checked_add(bound_us));
    steps_us.ok_or_else(|| later.iter().find(stepwise).copied().unwrap_or_default())
}
