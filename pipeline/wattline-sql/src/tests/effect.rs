//! Rules that are in force for a time give what they would give without it, cut to that time.

use wattline_core::time::END_OF_TIME;

use super::fleet::{Lcg, compile, lane, rule};
use super::shapes::PATIENT;
use crate::RuleFile;
use crate::test_run::text_rows;

const FROM: &str = "2026-03-02T00:02:00Z";
const TO: &str = "2026-03-02T00:05:00Z";

/// Rows of the only rule, as text, in order.
fn rows_of(file: RuleFile) -> Vec<String> {
    let set = compile(&[file]);
    let (mut worker, mut program) = (set.lane_program(), set.final_program());
    let output = worker.push(0, "meter_readings", &lane(0, 600, &mut Lcg(7)));
    let mut rows = output.rows;
    for delta in worker.seal().expect("seals") {
        program.merge(&delta).expect("merges");
    }
    rows.extend(program.advance(&vec![END_OF_TIME; set.states().len()]).expect("advances").rows);
    let mut lines: Vec<String> = rows.iter().flat_map(|rows| text_rows(&rows.batch).expect("printable")).collect();
    lines.sort();
    lines
}

#[test]
fn a_rule_judges_what_begins_while_it_is_in_force() {
    let windows = "SELECT window_start AS began, window_start, window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY window_start, window_end";
    let events = "SELECT ts AS began, ts, meter_id FROM meter_readings";
    for sql in [windows, events] {
        let header = format!("{PATIENT}\neffective_from = \"{FROM}\"\neffective_to = \"2026-03-02T08:05:00+08:00\"");
        let (all, cut) = (rows_of(rule("all", PATIENT, sql)), rows_of(rule("cut", &header, sql)));
        let began =
            |line: &&String| line.split(' ').next().and_then(|cell| cell.strip_prefix("began=")).map(str::to_owned);
        let within = |line: &&String| began(line).is_some_and(|began| (FROM..TO).contains(&began.as_str()));
        let expected: Vec<String> = all.iter().filter(within).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{sql}: something is cut, and something left");
        assert_eq!(cut, expected, "{sql}");
    }
}
