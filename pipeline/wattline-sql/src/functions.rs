//! Functions of the domain that SQL cannot say well.
//!
//! They are plain DataFusion functions, vectorised over whole columns: measured values are `Float64`, registers and money
//! exact decimals; other numbers are coerced. NULL in, NULL out. A measure of the positive sequence that is zero (no voltage at all) has
//! no unbalance: NULL, never a division by zero.
//!
//! | function | result |
//! |---|---|
//! | `voltage_unbalance_pct(ua_v, ua_deg, ub_v, ub_deg, uc_v, uc_deg)` | 100·\|U2\|/\|U1\|, negative over positive sequence, from phasors (GB/T 15543, IEC 61000-4-30) |
//! | `zero_sequence_unbalance_pct(ua_v, ua_deg, ub_v, ub_deg, uc_v, uc_deg)` | 100·\|U0\|/\|U1\| |
//! | `voltage_unbalance_line_pct(uab_v, ubc_v, uca_v)` | the negative-sequence ratio from three line-to-line rms values, no angles needed |
//! | `date_bin(interval, instant [, origin])` | start of the fixed-size bin, in the unit of the instant |
//! | `local_bin_start(interval, instant, zone [, first_date])`, `local_bin_end(…)` | the bin of local days or months |
//! | `hop_starts(slide, size, instant [, origin])`, `cumulate_ends(step, size, instant [, origin])` | the windows of an instant, as a list |
//! | `session_start(instant, gap)`, `session_end(instant, gap)` | window functions: the session of a row |
//! | `rms_mean(x)` | √(mean of squares): how rms values are averaged over time (IEC 61000-4-30, 4.4) |
//! | `gb_percentile_95(x)`, `nearest_rank_percentile(x, p)` | exact percentiles as GB/T 14549 and as EN 50160 and IEEE 519 count them |
//! | `percentile_cont(p) WITHIN GROUP (ORDER BY x)` | the percentile between two values in exact proportion, in place of DataFusion's |
//! | `min(x)`, `max(x)` | DataFusion's, with floats in their total order: NaN above all numbers |
//! | `plt(pst)` | long-term flicker of twelve short-term values (IEC 61000-4-15) |
//! | `register_delta_kwh(previous, current, digits)` | energy between two readings of a register, over its end |
//! | `tiered_amount(kwh_before, kwh, limits, prices)` | amount under a tariff of tiers |
//! | `add_working_days(date, days, holidays [, worked])`, `working_days_between(from, to, holidays [, worked])` | deadlines in working days |
//! | `mask(text, first, last)` | a text with its middle hidden |

use std::sync::Arc;

use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{AggregateUDF, Expr, ScalarUDF, WindowUDF};

mod date_bin;
mod extremes;
mod framed;
mod in_order;
mod local_bin;
mod mask;
mod match_rows;
mod percentile;
mod power_mean;
mod register_delta;
mod running;
mod session;
mod tiered_amount;
mod unbalance;
mod window_lists;
mod window_pane;
mod working_days;

pub(crate) use framed::framed;
pub(crate) use local_bin::check_local_windows;
pub(crate) use match_rows::MatchRows;
pub(crate) use running::names as running_functions;
pub(crate) use session::{gap_us, sessions};

pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let unbalance = unbalance::all().into_iter().map(ScalarUDF::from);
    let windows = [date_bin(), local_bin_start(), local_bin_end(), hop_starts(), cumulate_ends()];
    let days = working_days::all().into_iter().map(ScalarUDF::from);
    let others = [
        ScalarUDF::from(register_delta::RegisterDelta::new()),
        ScalarUDF::from(tiered_amount::TieredAmount::new()),
        ScalarUDF::from(mask::Mask::new()),
    ];
    unbalance.chain(windows).chain(days).chain(others).map(Arc::new).collect()
}

pub(crate) fn window_functions() -> Vec<Arc<WindowUDF>> {
    [session_start(), session_end()].map(Arc::new).to_vec()
}

/// Its first argument, in the order that the second numbers.
pub(crate) fn in_order() -> ScalarUDF {
    ScalarUDF::from(in_order::InOrder::new())
}

/// The number in `in_order(x, n)`.
pub(crate) fn number_in_order(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == in_order::IN_ORDER => args.get(1),
        _ => None,
    }
}

/// A list or a struct as bytes in the order of the values.
pub(crate) fn sort_key() -> ScalarUDF {
    ScalarUDF::from(in_order::SortKey::new())
}

/// The local midnight at which the bin of an instant begins.
pub(crate) fn local_bin_start() -> ScalarUDF {
    ScalarUDF::from(local_bin::LocalBin::new(local_bin::Edge::Start))
}

/// The local midnight at which the bin of an instant ends.
pub(crate) fn local_bin_end() -> ScalarUDF {
    ScalarUDF::from(local_bin::LocalBin::new(local_bin::Edge::End))
}

/// The starts of the hopping windows of an instant.
pub(crate) fn hop_starts() -> ScalarUDF {
    ScalarUDF::from(window_lists::WindowList::new(window_lists::Kind::HopStarts))
}

/// The start of the pane of an instant, of which hopping windows are made.
pub(crate) fn hop_pane() -> ScalarUDF {
    ScalarUDF::from(window_pane::WindowPane::new(false))
}

/// The end of the pane of an instant, of which cumulating windows are made.
pub(crate) fn cumulate_pane() -> ScalarUDF {
    ScalarUDF::from(window_pane::WindowPane::new(true))
}

/// The ends of the cumulating windows of an instant.
pub(crate) fn cumulate_ends() -> ScalarUDF {
    ScalarUDF::from(window_lists::WindowList::new(window_lists::Kind::CumulateEnds))
}

/// The time of the first event of a session.
pub(crate) fn session_start() -> WindowUDF {
    WindowUDF::from(session::Session::new(session::Edge::Start))
}

/// The end of a session.
pub(crate) fn session_end() -> WindowUDF {
    WindowUDF::from(session::Session::new(session::Edge::End))
}

/// The start of the time bin of an instant.
pub(crate) fn date_bin() -> ScalarUDF {
    ScalarUDF::from(date_bin::DateBin::new())
}

pub(crate) fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    let percentiles = percentile::all().into_iter().map(AggregateUDF::from);
    let means = power_mean::all().into_iter().map(AggregateUDF::from);
    let extremes = extremes::all().into_iter().map(AggregateUDF::from);
    let running = running::all().map(AggregateUDF::from);
    percentiles.chain(means).chain(extremes).chain(running).map(Arc::new).collect()
}

/// Our aggregates take every value: one that comes twice counts twice.
fn refuse_distinct(name: &str, args: &AccumulatorArgs<'_>) -> Result<()> {
    if args.is_distinct { plan_err!("{name}(DISTINCT …) is not known: it takes every value") } else { Ok(()) }
}

/// The largest interval that divides both, which are above 0.
pub(crate) fn largest_common_us(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { largest_common_us(b, a % b) }
}

/// The microseconds of an interval without months; `None` if it has months, or parts of a microsecond.
pub(crate) fn interval_us(interval: &ScalarValue) -> Option<i64> {
    match interval {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            let days_us = i64::from(interval.days).checked_mul(86_400_000_000)?;
            (interval.nanoseconds % 1_000 == 0).then(|| days_us.checked_add(interval.nanoseconds / 1_000)).flatten()
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            let ms = i64::from(interval.days).checked_mul(86_400_000)?.checked_add(i64::from(interval.milliseconds))?;
            ms.checked_mul(1_000)
        }
        _ => None,
    }
}
