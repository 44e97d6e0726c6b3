//! Redemption: which events of a record that was refused may still go into the raw table, and which of its dead letters leave.
//!
//! A record is decoded again with the schema and the mapping of now. What was refused as a whole (its one letter has index 0)
//! may give any number of events; of a record with many events some may have been accepted when it came, and some of the rest
//! may be refused again. Whatever becomes of it, each event of the record has to be a row or a letter, and one of the two:
//!
//! ```text
//! an event that is … now   has a letter     has none
//! accepted, not a row yet  row, letter out  row, if none of the record is one; else it is left alone
//! a row already            letter out       nothing
//! refused                  letter stays     the whole record stays: there is no letter that would keep it
//! ```
//! An event that the record had before and has no more keeps its letter. So the same records give the same answer, however
//! often they are asked, and an answer that was carried out gives nothing to do.

use std::collections::BTreeSet;

/// The lateness of a redeemed event: more than any rule tolerates, so that what was published without it stays what a query over
/// the events within the delay gives. No event that came by itself has it.
pub const REDEEMED_LATENESS_MS: i64 = i64::MAX;

/// The events of one record, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Those that have a dead letter.
    pub letters: BTreeSet<i32>,
    /// Those that are rows of the raw table.
    pub rows: BTreeSet<i32>,
    /// Those that are accepted now.
    pub accepted: BTreeSet<i32>,
    /// Those that are refused now; 0 if the record is refused as a whole.
    pub refused: BTreeSet<i32>,
}

/// What becomes of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redeemed {
    /// Events that become rows.
    pub rows: BTreeSet<i32>,
    /// Letters that leave: their events are rows.
    pub letters_out: BTreeSet<i32>,
}

/// Decides what becomes of a record that was decoded again.
pub fn decide_redemption(record: &RefusedRecord) -> Redeemed {
    let RefusedRecord { letters, rows, accepted, refused } = record;
    // One that is a row and refused by the settings of now is a row all the same.
    if refused.iter().any(|index| !letters.contains(index) && !rows.contains(index)) {
        return Redeemed::default();
    }
    let is_new = |index: &i32| !rows.contains(index) && (rows.is_empty() || letters.contains(index));
    let new: BTreeSet<i32> = accepted.iter().copied().filter(is_new).collect();
    let is_row = |index: &i32| rows.contains(index) || new.contains(index);
    let letters_out = letters.iter().copied().filter(is_row).collect();
    Redeemed { rows: new, letters_out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(letters: &[i32], rows: &[i32], accepted: &[i32], refused: &[i32]) -> RefusedRecord {
        let set = |of: &[i32]| of.iter().copied().collect();
        RefusedRecord { letters: set(letters), rows: set(rows), accepted: set(accepted), refused: set(refused) }
    }

    fn decided(record: &RefusedRecord) -> (Vec<i32>, Vec<i32>) {
        let Redeemed { rows, letters_out } = decide_redemption(record);
        (rows.into_iter().collect(), letters_out.into_iter().collect())
    }

    #[test]
    fn a_record_that_was_refused_as_a_whole_gives_all_its_events() {
        assert_eq!(decided(&record(&[0], &[], &[0, 1, 2], &[])), (vec![0, 1, 2], vec![0]));
        assert_eq!(decided(&record(&[0], &[], &[], &[0])), (vec![], vec![]), "refused again");
        assert_eq!(decided(&record(&[0], &[], &[1, 2], &[0])), (vec![1, 2], vec![]), "its first event still is");
        assert_eq!(decided(&record(&[0], &[], &[0, 2], &[1])), (vec![], vec![]), "event 1 would be in neither table");
        assert_eq!(decided(&record(&[0], &[], &[], &[])), (vec![], vec![]), "no event comes of it");
    }

    #[test]
    fn of_a_record_that_was_accepted_in_part_the_rest_is_taken() {
        assert_eq!(decided(&record(&[1, 3], &[0, 2], &[0, 1, 2, 3], &[])), (vec![1, 3], vec![1, 3]));
        assert_eq!(decided(&record(&[1, 3], &[0, 2], &[0, 1, 2], &[3])), (vec![1], vec![1]));
        assert_eq!(decided(&record(&[1], &[0], &[0, 1, 2], &[])), (vec![1], vec![1]), "event 2 was none when it came");
        assert_eq!(
            decided(&record(&[5], &[0], &[0], &[])),
            (vec![], vec![]),
            "event 5 is gone: its letter is all there is"
        );
    }

    #[test]
    fn an_event_that_is_a_row_already_only_loses_its_letter() {
        assert_eq!(decided(&record(&[0], &[0], &[0], &[])), (vec![], vec![0]));
        assert_eq!(decided(&record(&[0], &[0], &[], &[0])), (vec![], vec![0]));
    }

    proptest! {
        #[test]
        fn nothing_is_there_twice_and_nothing_is_lost(
            letters in prop::collection::btree_set(0_i32..6, 1..5),
            rows in prop::collection::btree_set(0_i32..6, 0..5),
            verdicts in prop::collection::vec(any::<bool>(), 0..6),
        ) {
            let of = |wanted: bool| (0..).zip(&verdicts).filter(|(_, is)| **is == wanted).map(|(index, _)| index).collect();
            let record = RefusedRecord { letters, rows, accepted: of(true), refused: of(false) };
            let Redeemed { rows: new, letters_out } = decide_redemption(&record);
            prop_assert!(new.is_disjoint(&record.rows));
            let rows_after: BTreeSet<i32> = record.rows.union(&new).copied().collect();
            let letters_after: BTreeSet<i32> = record.letters.difference(&letters_out).copied().collect();
            // A letter whose event was a row before is the only one that may have been both; it is none any more.
            prop_assert!(rows_after.is_disjoint(&letters_after) || new.is_empty());
            let before: BTreeSet<i32> = record.rows.union(&record.letters).copied().collect();
            let after: BTreeSet<i32> = rows_after.union(&letters_after).copied().collect();
            prop_assert!(before.is_subset(&after));
            let again = RefusedRecord { letters: letters_after, rows: rows_after, ..record };
            if !again.letters.is_empty() && !new.is_empty() {
                prop_assert!(decide_redemption(&again).rows.is_empty());
            }
        }
    }
}
