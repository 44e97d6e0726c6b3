//! A rule that is given its past while others run goes on as if it had been there from the beginning.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::equivalence::{Lane, Reached, by_stream, in_batch, sorted};
use super::fleet::{Lcg, catalog, compile, lane, rule};
use super::shapes::{more_shapes, shapes};
use crate::diagnostic::code;
use crate::test_run::text_rows;
use crate::{FinalProgram, RuleFile, RuleRows, RuleSet, explain};

/// Rows of each rule as text.
type Rows = Vec<Vec<String>>;

fn take(rows: &mut Rows, given: Vec<RuleRows>, wanted: impl Fn(usize) -> bool) {
    for of in given.into_iter().filter(|of| wanted(of.rule)) {
        rows[of.rule].extend(text_rows(&of.batch).expect("printable"));
    }
}

/// All that one watermark makes final.
fn advance(program: &mut FinalProgram, watermarks_us: &[i64]) -> Vec<RuleRows> {
    let mut rows = Vec::new();
    loop {
        let output = program.advance(watermarks_us).expect("advances");
        assert_eq!((output.errors, output.stopped), (vec![], vec![]));
        rows.extend(output.rows);
        if !output.more {
            return rows;
        }
        program.relieve().expect("spills");
    }
}

/// The first and the second part of each lane, and what its lanes have reached with the first.
fn parts(lanes: &[Lane], random: &mut Lcg) -> (Vec<Lane>, Vec<Lane>, Vec<i64>) {
    let (mut past, mut present, mut reached) = (Vec::new(), Vec::new(), Vec::new());
    for Lane { stream, rows } in lanes {
        let at = rows.num_rows() / 3 + usize::try_from(random.below(rows.num_rows() as u64 / 3)).expect("small");
        let first = rows.slice(0, at);
        let times = first.column_by_name("ts").unwrap_or_else(|| first.column(1));
        let times = times.as_primitive::<TimestampMicrosecondType>().values();
        reached.push(times.iter().copied().fold(BEFORE_TIME, i64::max));
        past.push(Lane { stream, rows: first });
        present.push(Lane { stream, rows: rows.slice(at, rows.num_rows() - at) });
    }
    (past, present, reached)
}

/// The rules that are `held` over the past by themselves; what they hold goes into the program.
fn give_past(
    set: &RuleSet,
    program: &mut FinalProgram,
    held: &BTreeSet<usize>,
    past: &[Lane],
    reached: &Reached,
    rows: &mut Rows,
) {
    let mut renewed = BTreeSet::new();
    for &rule in held {
        let watermark_us = reached.watermark(&set.rules()[rule]);
        let (mut lanes, single) = set.programs_of(rule);
        let mut single = single.with_memory(64 << 10, &std::env::temp_dir());
        for Lane { stream, rows: all } in past {
            let output = lanes.push(0, stream, all);
            assert_eq!(output.errors, []);
            take(rows, output.rows, |of| of == rule);
        }
        for delta in lanes.seal().expect("seals") {
            single.merge(&delta).expect("merges");
            single.relieve().expect("spills");
        }
        let numbers = set.states_of(rule);
        assert_eq!(numbers.len(), lanes.first_final_us().len(), "each state has a number among all");
        take(rows, advance(&mut single, &vec![watermark_us; numbers.len()]), |of| of == rule);

        let is_own = |state: usize| set.states()[state].rules.iter().all(|of| held.contains(of));
        let fill: Vec<usize> = numbers.iter().copied().filter(|of| is_own(*of) && renewed.insert(*of)).collect();
        fill.iter().for_each(|state| program.renew(*state, watermark_us));
        program.go_on(rule, watermark_us);
        for stage in single.dump_stages().expect("dumps") {
            let stage = stage.expect("dumps");
            if stage.rule == rule && stage.batch.num_rows() > 0 {
                program.restore_stage(&stage).expect("restores");
            }
        }
        for delta in single.dump().expect("dumps") {
            let mut delta = delta.expect("dumps");
            delta.state = numbers[delta.state];
            if fill.contains(&delta.state) {
                program.restore(&delta).expect("restores");
            }
        }
    }
}

/// All rules over the lanes; some come in between, and are given what was before.
fn run(set: &RuleSet, lanes: &[Lane], held: &BTreeSet<usize>, random: &mut Lcg) -> Rows {
    let mut rows: Rows = vec![Vec::new(); set.rules().len()];
    let mut workers = [set.lane_program(), set.lane_program()];
    let mut program = set.final_program();
    held.iter().for_each(|rule| program.hold(*rule));
    let (past, present, reached_us) = parts(lanes, random);
    let reached = Reached::of(lanes, &reached_us);
    for (is_past, part) in [(true, &past), (false, &present)] {
        for (number, Lane { stream, rows: all }) in part.iter().enumerate() {
            let output = workers[number % 2].push(u32::try_from(number).expect("small"), stream, all);
            assert_eq!(output.errors, []);
            take(&mut rows, output.rows, |of| !(is_past && held.contains(&of)));
        }
        for delta in workers.iter_mut().flat_map(|worker| worker.seal().expect("seals")) {
            let is_heard = set.states()[delta.state].rules.iter().any(|of| !(is_past && held.contains(of)));
            if is_heard {
                program.merge(&delta).expect("merges");
            }
        }
        let ended = Reached::of(lanes, &vec![END_OF_TIME; lanes.len()]);
        let watermarks_us = if is_past { reached.watermarks(set) } else { ended.watermarks(set) };
        take(&mut rows, advance(&mut program, &watermarks_us), |_| true);
        if is_past {
            assert!(held.iter().all(|rule| rows[*rule].is_empty()), "a rule that is held gives nothing");
            give_past(set, &mut program, held, &past, &reached, &mut rows);
        }
    }
    assert_eq!(program.state_rows(), 0, "nothing is kept at the end of time");
    rows
}

fn compare(files: &[RuleFile]) {
    let set = compile(files);
    for seed in 0..2 {
        let mut random = Lcg(70 + seed);
        let lanes: Vec<Lane> = (0..5)
            .map(|number| match number {
                0..3 => Lane { stream: "meter_readings", rows: lane(number, 160, &mut random) },
                _ => Lane { stream: "other_readings", rows: lane(number - 3, 90, &mut random) },
            })
            .collect();
        let expected = in_batch(&set, &by_stream(&lanes));
        for odd in [0, 1] {
            let held: BTreeSet<usize> = (0..set.rules().len()).filter(|rule| rule % 2 == odd).collect();
            let got = run(&set, &lanes, &held, &mut random);
            for (number, (got, expected)) in got.into_iter().zip(&expected).enumerate() {
                let (id, held) = (&set.rules()[number].header.id, held.contains(&number));
                assert_eq!(&sorted(got), expected, "rule {id}, seed {seed}, given its past: {held}");
            }
        }
    }
}

#[test]
fn a_rule_that_comes_later_and_is_given_its_past_gives_what_batch_gives() {
    compare(&shapes());
}

#[test]
fn rules_of_orders_and_stages_and_types_can_be_given_their_past() {
    compare(&more_shapes());
}

#[test]
fn a_backfill_is_explained_and_refused_for_views() {
    let sql = "SELECT ts, u_a_v FROM meter_readings";
    let set = compile(&[rule("late_comer", "kind = \"table\"\nbackfill = \"30 days\"", sql)]);
    let text = explain::explain(&set, "late_comer").expect("known");
    assert!(text.contains("  backfill   30 days of the archive"), "{text}");
    let view = rule("seen", "kind = \"view\"\nbackfill = \"1 day\"", sql);
    let refused = RuleSet::compile(&catalog(), std::slice::from_ref(&view)).expect_err("a view has no past");
    let places: Vec<_> = refused.iter().map(|of| (of.code, of.span.clone().map_or("", |at| &view.text[at]))).collect();
    assert_eq!(places, [(code::BACKFILL, "backfill")]);
}
