//! Functions of the domain that SQL cannot say well.
//!
//! They are plain DataFusion functions over `Float64`, vectorised over whole columns; integers and decimals
//! are coerced. NULL in, NULL out. A measure of the positive sequence that is zero (no voltage at all) has
//! no unbalance: NULL, never a division by zero.
//!
//! | function | result |
//! |---|---|
//! | `voltage_unbalance_pct(ua_v, ua_deg, ub_v, ub_deg, uc_v, uc_deg)` | 100·\|U2\|/\|U1\|, negative over positive sequence, from phasors (GB/T 15543, IEC 61000-4-30) |
//! | `zero_sequence_unbalance_pct(ua_v, ua_deg, ub_v, ub_deg, uc_v, uc_deg)` | 100·\|U0\|/\|U1\| |
//! | `voltage_unbalance_line_pct(uab_v, ubc_v, uca_v)` | the negative-sequence ratio from three line-to-line rms values, no angles needed |
//! | `date_bin(interval, instant [, origin])` | start of the fixed-size bin, in the unit of the instant |
//! | `rms_mean(x)` | √(mean of squares): how rms values are averaged over time (IEC 61000-4-30, 4.4) |

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

mod date_bin;
mod rms_mean;
mod unbalance;

pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let unbalance = unbalance::all().into_iter().map(ScalarUDF::from);
    unbalance.chain([date_bin()]).map(Arc::new).collect()
}

/// The start of the time bin of an instant.
pub(crate) fn date_bin() -> ScalarUDF {
    ScalarUDF::from(date_bin::DateBin::new())
}

pub(crate) fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::from(rms_mean::RmsMean::new()))]
}
