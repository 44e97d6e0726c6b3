//! Rules whose keys have the same types number them together: what each gives is what it gives alone, and keys that do not come any more
//! are forgotten.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use wattline_core::time::END_OF_TIME;

use super::fleet::{Lcg, compile, lane, rule};
use crate::test_run::text_rows;
use crate::{FinalProgram, LaneProgram, RuleFile, RuleSet};

const BATCH_ROWS: usize = 100;
const MEMORY_BYTES: usize = 20 << 10;

/// One key that stays and one of which no window sees the groups of another; a window that hops, an aggregate with DISTINCT, a filter.
fn rules() -> Vec<RuleFile> {
    let table = |id, sql| rule(id, "kind = \"table\"\ndelay = \"2 minutes\"", sql);
    vec![
        table(
            "each",
            "SELECT meter_id, ts AS at, window_start, window_end, count(*) AS n, max(u_a_v) AS u\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, ts, window_start, window_end",
        ),
        table(
            "each_again",
            "SELECT meter_id, ts AS at, window_start, window_end, avg(u_a_v) AS u\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '5 minutes') GROUP BY meter_id, ts, window_start, window_end",
        ),
        table(
            "some",
            "SELECT meter_id, ts AS at, window_start, window_end, sum(u_a_v) AS u\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') WHERE u_a_v > 220\n\
             GROUP BY meter_id, ts, window_start, window_end",
        ),
        table(
            "by_meter",
            "SELECT meter_id, window_start, window_end, count(DISTINCT seq_no) AS n\n\
             FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY meter_id, window_start, window_end",
        ),
        table(
            "by_meter_again",
            "SELECT meter_id, window_start, window_end, max(u_a_v) AS u\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start, window_end",
        ),
    ]
}

/// Two workers and the second stage of a job, and what it has given.
struct Running<'a> {
    set: &'a RuleSet,
    workers: Vec<LaneProgram>,
    program: FinalProgram,
    given: BTreeMap<String, Vec<String>>,
}

impl<'a> Running<'a> {
    fn new(set: &'a RuleSet, program: FinalProgram) -> Self {
        Self { set, workers: vec![set.lane_program(), set.lane_program()], program, given: BTreeMap::new() }
    }

    fn advance(&mut self, watermark_us: i64) {
        let watermarks_us = vec![watermark_us; self.set.states().len()];
        let mut deltas = Vec::new();
        for worker in &mut self.workers {
            deltas.extend(worker.close(&watermarks_us).expect("closes"));
            deltas.extend(worker.seal().expect("seals"));
        }
        for delta in deltas {
            self.program.merge(&delta).expect("merges");
            self.program.relieve().expect("spills");
        }
        loop {
            let output = self.program.advance(&watermarks_us).expect("advances");
            assert_eq!((output.stopped, output.errors), (vec![], vec![]));
            for rows in output.rows {
                let id = self.set.rules()[rows.rule].header.id.clone();
                self.given.entry(id).or_default().extend(text_rows(&rows.batch).expect("printable"));
            }
            if !output.more {
                break;
            }
        }
    }
}

/// What the rules give, and the most keys that had a number at once.
fn run(set: &RuleSet, program: FinalProgram) -> (BTreeMap<String, Vec<String>>, usize) {
    let lanes = [lane(0, 4_000, &mut Lcg(9)), lane(1, 4_000, &mut Lcg(10))];
    let mut running = Running::new(set, program);
    let mut most = 0;
    for from in (0..4_000).step_by(BATCH_ROWS) {
        let mut reached_us = i64::MAX;
        for (number, lane) in (0..).zip(&lanes) {
            let batch = lane.slice(from, BATCH_ROWS);
            let pushed = running.workers[number as usize].push(number, "meter_readings", &batch);
            assert_eq!(pushed.errors, []);
            let highest = batch.column(1).as_primitive::<TimestampMicrosecondType>().values().iter().copied().max();
            reached_us = reached_us.min(highest.expect("rows"));
        }
        running.advance(reached_us - 120_000_000);
        most = most.max(running.program.numbered_keys());
        if from == 2_000 {
            // The whole of it is stored now and then, and stays.
            running.program.dump().expect("dumps").for_each(|delta| drop(delta.expect("reads")));
        }
    }
    running.advance(END_OF_TIME);
    assert_eq!(running.program.numbered_keys(), 0, "no window is open");
    (running.given, most)
}

#[test]
fn rules_that_number_their_keys_together_give_what_each_gives_alone() {
    let all = compile(&rules());
    let (together, most) = run(&all, all.final_program());
    assert!((100..3_000).contains(&most), "{most} keys had a number at once, of 8,000 that came");
    let (spilled, _) = run(&all, all.final_program().with_memory(MEMORY_BYTES, &std::env::temp_dir()));
    assert_eq!(spilled, together);
    for file in rules() {
        let set = compile(std::slice::from_ref(&file));
        let (alone, keys) = run(&set, set.final_program());
        assert_eq!(keys, 0, "nobody to share numbers with");
        let [(id, rows)] = &alone.into_iter().collect::<Vec<_>>()[..] else { panic!("one rule") };
        assert!(rows.len() > 100, "`{id}` gave {} rows", rows.len());
        assert_eq!(*rows, together[id], "{id}");
    }
}
