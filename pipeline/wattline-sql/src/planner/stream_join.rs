//! Joins of two flows of events. How far apart in time the two rows of a pair can be says how long each is kept; without a
//! bound rows would have to be kept for ever, and the join is refused.
//!
//! | join | a row is final |
//! |---|---|
//! | a pair | when both of its rows are |
//! | a left row with a mark (EXISTS in a larger condition) | when its first partner is, else as one without |
//! | a left row without partner (LEFT, FULL, NOT EXISTS) | when the watermark has passed the last time at which one could come |

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::{Expr, Join};

use super::over::key_schema;
use super::{Lowering, Node, Problem};
use crate::diagnostic::code;
use crate::logical::{Anchor, Refusal, join_bound_of, lag_in};
use crate::operators::{JoinSide, StreamJoinSpec, nullable};

impl Lowering<'_> {
    pub(super) fn lower_stream_join(&mut self, join: &Join) -> Result<Node, Problem> {
        let supported = matches!(
            join.join_type,
            JoinType::Inner
                | JoinType::Left
                | JoinType::Right
                | JoinType::Full
                | JoinType::LeftMark
                | JoinType::LeftSemi
                | JoinType::RightSemi
                | JoinType::LeftAnti
                | JoinType::RightAnti
        );
        if !supported || join.null_aware {
            return Err(unbounded(join).into());
        }
        let bound = join_bound_of(join).ok_or_else(|| unbounded(join))?;
        let (lowest_us, highest_us) = (bound.lowest_us, bound.highest_us);
        let (left_time, right_time) = (Expr::Column(bound.left), Expr::Column(bound.right));
        let left_lag_us = lag_in(&join.left, &left_time).ok_or_else(|| unbounded(join))?;
        let right_lag_us = lag_in(&join.right, &right_time).ok_or_else(|| unbounded(join))?;
        let (left, right) = (self.lower_final(&join.left)?, self.lower_final(&join.right)?);
        let both = join.left.schema().join(join.right.schema())?;
        let condition = join.filter.as_ref().map(|filter| self.physical(filter, &both)).transpose()?;
        let (left_on, right_on): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let left_keys = self.physical_all(&left_on, join.left.schema())?;
        let right_keys = self.physical_all(&right_on, join.right.schema())?;
        let spec = StreamJoinSpec {
            kind: join.join_type,
            key_schema: key_schema(&left_keys, join.left.schema().as_arrow())?,
            // A left row at l matches right rows up to l + highest; they have come at that plus their lag.
            left: JoinSide {
                keys: left_keys,
                time: self.physical(&left_time, join.left.schema())?,
                kept_us: highest_us.saturating_add(right_lag_us).saturating_add(1),
                schema: nullable(join.left.schema().as_arrow()),
            },
            right: JoinSide {
                keys: right_keys,
                time: self.physical(&right_time, join.right.schema())?,
                kept_us: left_lag_us.saturating_sub(lowest_us).saturating_add(1),
                schema: nullable(join.right.schema().as_arrow()),
            },
            null_matches_null: join.null_equality == NullEquality::NullEqualsNull,
            condition,
            both_schema: nullable(&Schema::new(both.fields().clone())),
            schema: nullable(join.schema.as_arrow()),
        };
        Ok(Node::Join(Box::new(left), Box::new(right), Arc::new(spec)))
    }
}

fn unbounded(join: &Join) -> Refusal {
    let name = join.right.schema().iter().find_map(|(qualifier, _)| qualifier.map(|of| of.table().to_owned()));
    Refusal::new(
        code::STREAM_JOIN,
        Anchor::Join(name),
        "a join of streams needs a bound on how far apart in time the two rows can be, from both sides",
        "add one to ON: `AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '1 hour'`, or `a.window_start = b.window_start`",
    )
}
