//! Sessions: stretches of events of one key without a pause of `gap` or more.
//!
//! `session_start(instant, gap)` and `session_end(instant, gap)` are window functions, to be used with
//! `OVER (PARTITION BY key ORDER BY instant)`: the time of the first event of the row's session, and that of its last
//! plus the gap. Sessions are half-open like all windows: an event exactly `gap` after the last one begins the next.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};

use super::interval_us;

/// Which end of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Edge {
    Start,
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    edge: Edge,
    signature: Signature,
}

impl Session {
    pub(super) fn new(edge: Edge) -> Self {
        Self { edge, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl WindowUDFImpl for Session {
    fn name(&self) -> &str {
        match self.edge {
            Edge::Start => "session_start",
            Edge::End => "session_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [DataType::Timestamp(_, zone), _] = arg_types else {
            return plan_err!("{} takes an instant and an interval", self.name());
        };
        let instant = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
        Ok(vec![instant, DataType::Interval(IntervalUnit::MonthDayNano)])
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = args.get_input_field(0).map_or(DataType::Null, |field| field.data_type().clone());
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator { edge: self.edge }))
    }
}

#[derive(Debug)]
struct Evaluator {
    edge: Edge,
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let instants = values[0].as_primitive::<TimestampMicrosecondType>();
        let gap_us = match rows {
            0 => 1,
            _ => gap_us(&ScalarValue::try_from_array(&values[1], 0)?)?,
        };
        let mut edges = Vec::with_capacity(rows);
        for session in sessions(instants.values(), gap_us) {
            let edge = match self.edge {
                Edge::Start => instants.value(session.start),
                Edge::End => instants.value(session.end - 1).saturating_add(gap_us),
            };
            edges.extend(session.map(|_row| edge));
        }
        Ok(Arc::new(TimestampMicrosecondArray::from(edges).with_data_type(instants.data_type().clone())))
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}

/// The stretches of instants, in order of time, without a pause of `gap_us` or more.
pub(crate) fn sessions(instants: &[i64], gap_us: i64) -> Vec<Range<usize>> {
    let mut sessions = Vec::new();
    let mut start = 0;
    for at in 1..=instants.len() {
        if at == instants.len() || instants[at].saturating_sub(instants[at - 1]) >= gap_us {
            sessions.push(start..at);
            start = at;
        }
    }
    sessions
}

/// The microseconds of a gap.
pub(crate) fn gap_us(gap: &ScalarValue) -> Result<i64> {
    match interval_us(gap) {
        Some(us) if us > 0 => Ok(us),
        Some(_) => exec_err!("the gap of a session is not positive"),
        None => exec_err!("the gap of a session is no interval without months: write `INTERVAL '30 minutes'`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_the_gap_begins_a_new_session() {
        assert_eq!(sessions(&[0, 9, 19, 20, 29, 39], 10), [0..2, 2..5, 5..6]);
        assert_eq!(sessions(&[5, 5, 5], 1).len(), 1);
        assert_eq!(sessions(&[], 1).len(), 0);
    }
}
