//! What late events change is within the reach of the rule: a part of the archive gives the same difference as all of it.

use std::collections::BTreeMap;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use wattline_core::time::END_OF_TIME;

use super::equivalence::{Lane, by_stream, in_batch, sorted};
use super::fleet::{Lcg, compile, lane, rule};
use super::shapes::shapes;
use crate::diagnostic::code;
use crate::test_run::text_rows;
use crate::{LatePolicy, RuleFile, RuleSet, explain};

/// The rows of one rule, run by itself to the end of time.
fn alone(set: &RuleSet, rule: usize, lanes: &[Lane]) -> Vec<String> {
    let (mut program, mut last) = set.programs_of(rule);
    let mut rows = Vec::new();
    for lane in lanes {
        let output = program.push(0, lane.stream, &lane.rows);
        assert_eq!(output.errors, []);
        rows.extend(output.rows);
    }
    let states = program.first_final_us().len();
    program.seal().expect("seals").iter().for_each(|delta| last.merge(delta).expect("merges"));
    let output = last.advance(&vec![END_OF_TIME; states]).expect("advances");
    assert_eq!((output.errors, output.stopped), (vec![], vec![]));
    rows.extend(output.rows);
    assert!(rows.iter().all(|of| of.rule == rule), "no other rule is run");
    sorted(rows.iter().flat_map(|of| text_rows(&of.batch).expect("printable")).collect())
}

/// The lanes with the events that are wanted, by event time and place among all of the stream's.
fn only(lanes: &[Lane], wanted: impl Fn(i64, usize) -> bool) -> Vec<Lane> {
    let mut place = 0;
    let cut = |lane: &Lane| {
        let times = lane.rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let mask: BooleanArray = times.iter().enumerate().map(|(at, us)| Some(wanted(*us, place + at))).collect();
        place += times.len();
        Lane { stream: lane.stream, rows: filter_record_batch(&lane.rows, &mask).expect("filters") }
    };
    lanes.iter().map(cut).collect()
}

/// How often each row is in one more than in the other.
fn difference(more: Vec<String>, less: Vec<String>) -> BTreeMap<String, i64> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    more.into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
    less.into_iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    counts.retain(|_, count| *count != 0);
    counts
}

fn lanes(random: &mut Lcg) -> Vec<Lane> {
    (0..5)
        .map(|number| match number {
            0..3 => Lane { stream: "meter_readings", rows: lane(number, 160, random) },
            _ => Lane { stream: "other_readings", rows: lane(number - 3, 90, random) },
        })
        .collect()
}

#[test]
fn one_rule_by_itself_gives_what_it_gives_among_all() {
    let set = compile(&shapes());
    let lanes = lanes(&mut Lcg(11));
    let expected = in_batch(&set, &by_stream(&lanes));
    for (number, (rule, expected)) in set.rules().iter().zip(&expected).enumerate() {
        assert_eq!(&alone(&set, number, &lanes), expected, "rule {}", rule.header.id);
    }
}

#[test]
fn late_events_change_nothing_beyond_the_reach_of_a_rule() {
    let set = compile(&shapes());
    let bounded = |rule: &usize| set.rules()[*rule].plan.reach_us().is_ok();
    let rules: Vec<usize> = (0..set.rules().len()).filter(bounded).collect();
    assert!(rules.len() * 2 > set.rules().len(), "most shapes can be corrected: {}", rules.len());
    let (mut changed, mut narrowed) = (0, 0);
    for seed in 0..6 {
        let mut random = Lcg(40 + seed);
        let lanes = lanes(&mut random);
        let total: usize = lanes.iter().map(|lane| lane.rows.num_rows()).sum();
        for rule in &rules {
            let late = usize::try_from(random.below(total as u64)).expect("small");
            let with = alone(&set, *rule, &lanes);
            let without = alone(&set, *rule, &only(&lanes, |_, place| place != late));
            let mut late_us = 0;
            let mut place = 0;
            for lane in &lanes {
                let times = lane.rows.column(1).as_primitive::<TimestampMicrosecondType>();
                if (place..place + times.len()).contains(&late) {
                    late_us = times.value(late - place);
                }
                place += times.len();
            }
            let reach_us = set.rules()[*rule].plan.reach_us().expect("bounded");
            let near = |us: i64| (us - late_us).abs() <= reach_us;
            let part = only(&lanes, |us, _| near(us));
            narrowed += usize::from(part.iter().map(|lane| lane.rows.num_rows()).sum::<usize>() < total);
            let with_part = alone(&set, *rule, &part);
            let without_part = alone(&set, *rule, &only(&lanes, |us, place| place != late && near(us)));
            let expected = difference(with, without);
            changed += usize::from(!expected.is_empty());
            let id = &set.rules()[*rule].header.id;
            assert_eq!(difference(with_part, without_part), expected, "rule {id} seed {seed} reach {reach_us} µs");
        }
    }
    assert!(changed > rules.len() && narrowed > rules.len(), "{changed} changed, {narrowed} narrowed");
}

const UPDATED: &str = "kind = \"table\"\nlate = \"update\"";
const COUNTS: &str = "SELECT meter_id, window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')\n\
                      GROUP BY meter_id, window_end";

fn refused(files: &[RuleFile]) -> (&'static str, String) {
    let mistakes = RuleSet::compile(&super::fleet::catalog(), files).err().unwrap_or_default();
    let [mistake] = &mistakes[..] else { panic!("one mistake and not {mistakes:#?}") };
    assert!(mistake.help.is_some() && mistake.span.is_some(), "{mistake:#?}");
    (mistake.code, mistake.message.clone())
}

#[test]
fn what_late_events_cannot_correct_is_refused_with_the_reason() {
    for (sql, why) in [
        (
            "SELECT meter_id, window_end, count(*) AS n FROM SESSION(meter_readings, ts, INTERVAL '1 minute', meter_id)\n\
             GROUP BY meter_id, window_start, window_end",
            "session",
        ),
        ("SELECT ts, lag(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts) AS before FROM meter_readings", "by rows"),
        ("SELECT ts, sum(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts) AS total FROM meter_readings", "by rows"),
    ] {
        let (code, message) = refused(&[rule("r", UPDATED, sql)]);
        assert!(code == code::LATE_UPDATE && message.contains(why), "{message}");
    }
    let (code, _) = refused(&[rule("r", "kind = \"view\"\nlate = \"update\"", COUNTS)]);
    assert_eq!(code, code::LATE_UPDATE);
    let (code, message) = refused(&[rule("r", "kind = \"table\"\nlate = \"often\"", COUNTS)]);
    assert!(code == code::HEADER_VALUE && message.contains("often"), "{message}");
}

#[test]
fn what_reads_corrected_results_is_corrected_too() {
    let reads = "SELECT meter_id, window_end, n * 2 AS twice FROM counts";
    let counts = rule("counts", UPDATED, COUNTS);
    let (code, message) = refused(&[counts.clone(), rule("twice", "kind = \"table\"", reads)]);
    assert!(code == code::LATE_UPDATE && message.contains("`counts`"), "{message}");
    let view = rule("between", "kind = \"view\"", "SELECT * FROM counts");
    let over_view = rule("twice", "kind = \"table\"", "SELECT meter_id, window_end, n FROM between");
    assert_eq!(refused(&[counts.clone(), view, over_view]).0, code::LATE_UPDATE);
    let set = compile(&[counts, rule("twice", UPDATED, reads)]);
    assert!(set.rules().iter().all(|rule| rule.header.late == LatePolicy::Update));
    assert_eq!(set.rules().iter().map(|rule| rule.reach_us).collect::<Vec<_>>(), [Some(60_000_000); 2]);
    assert!(explain::explain(&set, "twice").expect("known").contains("1 minute before and after"));
}

#[tokio::test]
async fn current_rows_are_those_that_were_not_taken_back() {
    let context = crate::query::query_context(&Default::default()).expect("no function of its own");
    let sql = "SELECT key, n, CAST(mean AS DOUBLE) AS mean, _change, _revision FROM (VALUES ('a', 1, 0.1, 'insert', 1), ('a', 2, 0.2, 'insert', 1), ('a', 2, 0.2, 'retract', 2), \
               ('a', 3, 0.3, 'insert', 2), ('b', 1, 0.5, NULL, NULL), ('b', 1, 0.50000001, 'retract', 2), ('b', 1, 0.6, 'insert', 2), \
               ('c', 1, 0.7, 'insert', 1), ('c', 1, 0.7, 'insert', 1), ('c', 1, 0.7, 'retract', 2)) \
               AS t (key, n, mean, _change, _revision)";
    let frame = context.sql(sql).await.expect("plans");
    context.register_table("results", frame.into_view()).expect("registers");
    crate::query::register_current(&context).await.expect("registers");
    let sql = "SELECT key, n, CAST(mean AS VARCHAR) AS mean, _revision FROM results_current ORDER BY 1, 2";
    let batches = crate::query::query(&context, sql).await.expect("plans").collect().await.expect("runs");
    let rows: Vec<String> = batches.iter().flat_map(|batch| text_rows(batch).expect("printable")).collect();
    assert_eq!(
        rows,
        [
            "key=a n=1 mean=0.1 _revision=1",
            "key=a n=3 mean=0.3 _revision=2",
            "key=b n=1 mean=0.6 _revision=2",
            "key=c n=1 mean=0.7 _revision=1",
        ]
    );
}
