//! The condition of nearly every join to a versioned table, `(from IS NULL OR from <= t) AND (to IS NULL OR t < to)`, as
//! two comparisons of numbers per pair: nothing is gathered first. Recognised in the planned expression; whatever has
//! another shape is evaluated as it stands.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNullExpr};

type Instants = PrimitiveArray<TimestampMicrosecondType>;

/// A recognised condition, by the numbers of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) at: usize,
}

impl Validity {
    /// The condition's three columns, if it has this shape.
    pub(super) fn of(condition: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let both = condition.downcast_ref::<BinaryExpr>().filter(|both| *both.op() == Operator::And)?;
        let (a, b) = (Bound::of(both.left())?, Bound::of(both.right())?);
        let (from, to) = if a.is_lower { (a, b) } else { (b, a) };
        let fits = from.is_lower && !to.is_lower && from.at == to.at;
        fits.then_some(Self { from: from.bound, to: to.bound, at: from.at })
    }
}

/// `bound IS NULL OR bound <= at`, or `bound IS NULL OR at < bound`.
struct Bound {
    bound: usize,
    at: usize,
    is_lower: bool,
}

impl Bound {
    fn of(expr: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let either = expr.downcast_ref::<BinaryExpr>().filter(|either| *either.op() == Operator::Or)?;
        let (open, compared) = match either.left().downcast_ref::<IsNullExpr>() {
            Some(open) => (open, either.right()),
            None => (either.right().downcast_ref::<IsNullExpr>()?, either.left()),
        };
        let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
        let bound = column(open.arg())?;
        let compared = compared.downcast_ref::<BinaryExpr>()?;
        let (left, right) = (column(compared.left())?, column(compared.right())?);
        let (at, is_lower) = match compared.op() {
            Operator::LtEq if left == bound => (right, true),
            Operator::GtEq if right == bound => (left, true),
            Operator::Lt if right == bound => (left, false),
            Operator::Gt if left == bound => (right, false),
            _ => return None,
        };
        Some(Self { bound, at, is_lower })
    }
}

/// Instants to compare; `None` if one of the columns holds something else.
pub(super) struct Instanced<'a> {
    from: &'a Instants,
    to: &'a Instants,
    at: &'a Instants,
}

impl<'a> Instanced<'a> {
    pub(super) fn new(from: &'a ArrayRef, to: &'a ArrayRef, at: &'a ArrayRef) -> Option<Self> {
        let is_same = from.data_type() == at.data_type() && to.data_type() == at.data_type();
        let instants = |array: &'a ArrayRef| array.as_primitive_opt::<TimestampMicrosecondType>();
        Some(Self { from: instants(from)?, to: instants(to)?, at: instants(at)? }).filter(|_| is_same)
    }

    /// Whether the version in `table_row` was valid at the instant of `stream_row`. Without an instant only a version
    /// without bounds is.
    pub(super) fn is_valid(&self, stream_row: usize, table_row: usize) -> bool {
        let Self { from, to, at } = self;
        let known = at.is_valid(stream_row);
        let instant = at.value(stream_row);
        (from.is_null(table_row) || (known && from.value(table_row) <= instant))
            && (to.is_null(table_row) || (known && instant < to.value(table_row)))
    }
}

/// The time in which all versions of a table are valid: where nothing has been replaced for a while, that is all of it from the
/// last change on, and no version needs to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    from_us: i64,
    until_us: i64,
}

impl Settled {
    /// Of all rows of a table.
    pub(super) fn of(instants: &Instanced<'_>) -> Self {
        Self {
            from_us: instants.from.iter().flatten().max().unwrap_or(i64::MIN),
            until_us: instants.to.iter().flatten().min().unwrap_or(i64::MAX),
        }
    }

    /// Whether every row of the stream lies in it.
    pub(super) fn covers(self, instants: &Instanced<'_>) -> bool {
        let lies_in = |us: &i64| self.from_us <= *us && *us < self.until_us;
        instants.at.null_count() == 0 && instants.at.values().iter().all(lies_in)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, RecordBatch, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{Expr, col};
    use datafusion::prelude::SessionContext;

    use super::*;

    fn batch() -> RecordBatch {
        let values = [None, Some(1), Some(2), Some(3)];
        let mut columns: [Vec<Option<i64>>; 3] = Default::default();
        for from in values {
            for to in values {
                for at in values {
                    [from, to, at].into_iter().zip(&mut columns).for_each(|(value, column)| column.push(value));
                }
            }
        }
        let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let field = |name: &str| Field::new(name, kind.clone(), true);
        let schema = Arc::new(Schema::new(vec![field("f"), field("t"), field("at")]));
        let columns = columns
            .map(|values| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) });
        RecordBatch::try_new(schema, columns.to_vec()).unwrap()
    }

    fn physical(expr: Expr) -> Arc<dyn PhysicalExpr> {
        let schema = DFSchema::try_from(batch().schema()).unwrap();
        SessionContext::new().create_physical_expr(expr, &schema).unwrap()
    }

    #[test]
    fn the_shape_is_recognised_and_means_what_the_expression_says() {
        let from = || col("f").is_null().or(col("f").lt_eq(col("at")));
        let to = || col("t").is_null().or(col("at").lt(col("t")));
        let other_from = col("at").gt_eq(col("f")).or(col("f").is_null());
        let batch = batch();
        for condition in [from().and(to()), to().and(from()), other_from.and(to())] {
            let condition = physical(condition);
            let Validity { from, to, at } = Validity::of(&condition).unwrap();
            assert_eq!((from, to, at), (0, 1, 2));
            let told = Instanced::new(batch.column(0), batch.column(1), batch.column(2)).unwrap();
            let rows = batch.num_rows();
            let expected = condition.evaluate(&batch).unwrap().into_array(rows).unwrap();
            let expected: &BooleanArray = expected.as_boolean();
            for row in 0..rows {
                let evaluated = expected.is_valid(row) && expected.value(row);
                assert_eq!(told.is_valid(row, row), evaluated, "row {row}");
            }
        }
    }

    #[test]
    fn while_all_versions_are_valid_none_is_looked_at() {
        let instants =
            |values: &[Option<i64>]| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values.to_vec())) };
        let (from, to) = (instants(&[None, Some(10), Some(4)]), instants(&[Some(20), None, Some(30)]));
        let covers = |at: &[Option<i64>]| {
            let at = instants(at);
            let told = Instanced::new(&from, &to, &at).unwrap();
            let valid = |row: usize| (0..3).all(|version| told.is_valid(row, version));
            let covers = Settled::of(&told).covers(&told);
            assert!(!covers || (0..at.len()).all(valid));
            covers
        };
        assert!(covers(&[Some(10), Some(19)]));
        assert!(!covers(&[Some(10), Some(20)]));
        assert!(!covers(&[Some(9)]));
        assert!(!covers(&[Some(15), None]));
    }

    #[test]
    fn other_shapes_are_left_to_the_expression() {
        let from = || col("f").is_null().or(col("f").lt_eq(col("at")));
        let to = || col("t").is_null().or(col("at").lt(col("t")));
        let at_the_end = col("t").is_null().or(col("at").lt_eq(col("t")));
        for condition in [from().and(at_the_end), from().or(to()), from().and(from()), from()] {
            assert_eq!(Validity::of(&physical(condition)), None);
        }
    }
}
