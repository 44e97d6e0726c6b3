//! Stages with so many keys that they have many lanes, in threads and on disk: the same rows as plain DataFusion.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};

use super::equivalence::{Cut, Lane, by_stream, in_batch, run, sorted};
use super::fleet::{Lcg, compile, lane, rule};
use super::shapes::PATIENT;
use crate::{RuleFile, RuleSet};

const ROWS: usize = 30_000;

fn rules() -> Vec<RuleFile> {
    vec![
        rule(
            "over",
            PATIENT,
            "SELECT meter_id, ts, lag(u_a_v) OVER w AS before, count(*) OVER w AS n, sum(energy_imp_kwh) OVER w AS kwh\n\
             FROM meter_readings WINDOW w AS (PARTITION BY meter_id ORDER BY ts)",
        ),
        rule(
            "sessions",
            PATIENT,
            "SELECT meter_id, window_start, window_end, count(*) AS n\n\
             FROM SESSION(meter_readings, ts, INTERVAL '30 minutes', meter_id) GROUP BY meter_id, window_start, window_end",
        ),
        rule(
            "pairs",
            PATIENT,
            "SELECT a.meter_id, a.ts, b.ts AS later, b.seq_no FROM meter_readings a LEFT JOIN meter_readings b\n\
             ON b.meter_id = a.meter_id AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL '20 minutes'",
        ),
        rule(
            "rises",
            PATIENT,
            "SELECT meter_id, at, low, high FROM meter_readings MATCH_RECOGNIZE (\n\
             PARTITION BY meter_id ORDER BY ts MEASURES first(ts) AS at, first(a.u_a_v) AS low, last(b.u_a_v) AS high\n\
             AFTER MATCH SKIP PAST LAST ROW PATTERN (a b)\n\
             DEFINE a AS a.u_a_v < 220, b AS b.u_a_v > 220 AND b.ts <= a.ts + INTERVAL '1 hour')",
        ),
        rule(
            "days",
            PATIENT,
            "SELECT meter_id, window_start, window_end, max(n) AS most, sum(n) AS all_n FROM TUMBLE(\n\
             (SELECT meter_id, window_start AS at, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes')\n\
              GROUP BY meter_id, window_start), at, INTERVAL '1 day') GROUP BY meter_id, window_start, window_end",
        ),
    ]
}

/// Windows that overlap, over the windows of a subquery: what was given must stay given when a lane moves.
fn overlapping() -> Vec<RuleFile> {
    let of = |id: &str, table: &str| {
        let sql = format!(
            "SELECT meter_id, window_start, window_end, sum(n) AS n, count(*) AS parts FROM {table}(\n\
             (SELECT meter_id, window_start AS at, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes')\n\
              GROUP BY meter_id, window_start), at, INTERVAL '20 minutes', INTERVAL '4 hours') GROUP BY meter_id, window_start, window_end"
        );
        rule(id, "kind = \"table\"\ndelay = \"3 minutes\"", &sql)
    };
    vec![of("hop", "HOP"), of("cumulate", "CUMULATE")]
}

#[test]
fn overlapping_windows_of_a_stage_come_once_wherever_it_lies() {
    let set = compile(&overlapping());
    let mut random = Lcg(12);
    let lanes: Vec<Lane> =
        (0..2).map(|number| Lane { stream: "meter_readings", rows: many_meters(number, 4_000, &mut random) }).collect();
    let cuts = [
        Cut { workers: 1, batch_max: 700, restore: true, memory: None },
        Cut { workers: 2, batch_max: 500, restore: false, memory: Some(0) },
        Cut { workers: 2, batch_max: 900, restore: true, memory: Some(200 << 10) },
    ];
    compare(&set, &lanes, &cuts, &mut random);
}

/// Readings of thousands of meters.
fn many_meters(partition: i32, rows: usize, random: &mut Lcg) -> RecordBatch {
    let meters = rows as u64 / 5;
    let ids = StringArray::from_iter_values((0..rows).map(|_| format!("meter {}", random.below(meters))));
    let rows = lane(partition, rows, random);
    let columns = std::iter::once(Arc::new(ids) as ArrayRef).chain(rows.columns()[1..].iter().cloned());
    RecordBatch::try_new(rows.schema(), columns.collect()).expect("the schema of the fleet")
}

#[test]
fn a_stage_of_many_lanes_gives_what_one_lane_gives() {
    let set = compile(&rules());
    let mut random = Lcg(11);
    let lanes: Vec<Lane> =
        (0..2).map(|number| Lane { stream: "meter_readings", rows: many_meters(number, ROWS, &mut random) }).collect();
    let cuts = [
        Cut { workers: 1, batch_max: 20_000, restore: false, memory: None },
        Cut { workers: 2, batch_max: 12_000, restore: true, memory: Some(8 << 20) },
        Cut { workers: 2, batch_max: 16_000, restore: true, memory: Some(1 << 20) },
    ];
    compare(&set, &lanes, &cuts, &mut random);
}

/// What each cut gives is what batch gives, and that is a lot.
fn compare(set: &RuleSet, lanes: &[Lane], cuts: &[Cut], random: &mut Lcg) {
    let expected = in_batch(set, &by_stream(lanes));
    for cut in cuts {
        let got = run(set, lanes, cut, random);
        for (rule, (got, expected)) in set.rules().iter().zip(got.into_iter().zip(&expected)) {
            assert!(expected.len() > 1_000, "rule {} has {} rows to compare", rule.header.id, expected.len());
            assert!(&sorted(got) == expected, "rule {} with memory {:?}", rule.header.id, cut.memory);
        }
    }
}
