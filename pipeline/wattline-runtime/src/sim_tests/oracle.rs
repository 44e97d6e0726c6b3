//! What the tables and the alert topic must hold in the end, computed from the script and from the raw table.
//!
//! Which events are refused because of the clock may depend on the process that read them first; therefore each
//! event must be in the raw table or among the dead letters, never in both, never twice, and the rules are judged
//! by the SQL predicate of the first law: the raw rows whose lateness is within the rule's delay.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use wattline_core::alert::{AlertRecord, AlertRow, Lifecycle, Source};
use wattline_core::lane::LaneClock;
use wattline_core::record::column;

use super::rules::{self, BIG, DELAYS_MS, HEAVY, Pane, SPIKE, SUMS, SYSTEM_WINDOW_US, Total, WINDOW_US};
use super::script::{AHEAD_OF_ALL_MS, AHEAD_OF_SOME_MS, Event, Script};
use super::world::World;
use crate::table::{ALERTS, DEAD_LETTERS, OFFSET_GAPS, RULE_ERRORS};

/// Partition, offset, index.
type Identity = (i32, i64, i32);

/// A row of the raw table.
#[derive(Debug, Clone)]
struct Accepted {
    event: Event,
    lateness_ms: i64,
}

/// Ends of the lanes at which the input had ended before: windows are computed for each part alone.
pub(super) type Ends = Vec<i64>;

/// Asserts everything; `context` names the run in messages.
pub(super) fn check(world: &World, script: &Script, parts: &[Ends], context: &str) {
    let accepted = raw_rows(world, "readings", context);
    check_every_event_once(world, script, &accepted, context);
    check_lateness(script, &accepted, context);
    check_big(world, &accepted, &[], context);
    let part_of = |id: &Identity| parts.iter().position(|ends| id.1 < ends[id.0 as usize]).expect("a part");
    let windows_within = |delay_ms: i64| -> BTreeMap<(usize, Pane), Total> {
        let mut all: BTreeMap<(usize, Pane), Total> = BTreeMap::new();
        for (id, row) in accepted.iter().filter(|(_, row)| row.lateness_ms <= delay_ms) {
            let pane = (rules::window_start_us(row.event.event_us), row.event.key.clone());
            let total = all.entry((part_of(id), pane)).or_default();
            *total = (total.0 + row.event.value, total.1 + 1);
        }
        all
    };
    let windows = |rule: usize| -> Vec<(Pane, Total)> {
        windows_within(DELAYS_MS[rule]).into_iter().map(|((_, pane), total)| (pane, total)).collect()
    };
    let mut sums: Vec<_> = world.rows("sums").iter().flat_map(rules::totals).collect();
    let mut expected = windows(SUMS);
    let unlucky: Vec<_> = expected.extract_if(.., |(_, total)| rules::is_unlucky(*total)).collect();
    check_system_streams(world, &unlucky, parts.len(), context);
    sums.sort();
    expected.sort();
    assert_eq!(sums, expected, "{context}: windows");
    check_running(world, &windows_within(DELAYS_MS[rules::RUNNING]), context);
    check_corrected_tables(world, &accepted, &windows_within(i64::MAX), context);
    check_corrected_alerts(world, &windows_within(i64::MAX), context);
    check_alerts(world, &accepted, windows(HEAVY), context);
}

/// Asserts what holds although offsets are gone: each record is in a table, or in one gap that says so; gives how many are in gaps.
pub(super) fn check_with_gaps(world: &World, script: &Script, context: &str) -> usize {
    let accepted = raw_rows(world, "readings", context);
    let of_record = |batch| identities_in(batch, ["record_partition", "record_offset", "record_index"]);
    let refused: Vec<Identity> = world.rows(DEAD_LETTERS).iter().flat_map(of_record).collect();
    let once: BTreeSet<Identity> = refused.iter().copied().collect();
    assert_eq!(once.len(), refused.len(), "{context}: dead letters that are there twice");
    let mut gaps: Vec<(i32, i64, i64)> = Vec::new();
    for batch in world.rows(OFFSET_GAPS) {
        let partitions = batch.column_by_name("record_partition").expect("a column").as_primitive::<Int32Type>();
        let [first, unread, next] =
            ["record_offset", "unread_offset", "next_offset"].map(|name| rules::longs(&batch, name));
        for k in 0..batch.num_rows() {
            assert!(first[k] < next[k] && (first[k]..=next[k]).contains(&unread[k]), "{context}: {first:?} {next:?}");
            gaps.push((partitions.value(k), first[k], next[k]));
        }
    }
    gaps.sort_unstable();
    let apart = |two: &[(i32, i64, i64)]| two[0].0 != two[1].0 || two[0].2 <= two[1].1;
    assert!(gaps.windows(2).all(apart), "{context}: offsets are gone twice: {gaps:?}");
    let mut gone = 0;
    for lane in &script.lanes {
        for record in &lane.records {
            let partition = lane.id.partition;
            let is_gone =
                gaps.iter().any(|(of, first, next)| *of == partition && (*first..*next).contains(&record.offset));
            gone += usize::from(is_gone);
            for index in 0..record.events.len().max(1) {
                let id = (partition, record.offset, i32::try_from(index).expect("few events"));
                let (row, letter) = (accepted.contains_key(&id), once.contains(&id));
                // A letter is out with its tick, a row with the checkpoint that the gap came before.
                let is_right = if is_gone { !row } else { row != letter };
                assert!(is_right, "{context}: {id:?}: gone {is_gone}, row {row}, letter {letter}; {gaps:?}");
            }
        }
    }
    check_big(world, &accepted, gaps.as_slice(), context);
    gone
}

/// Late events included, whenever they came.
fn check_corrected_tables(
    world: &World,
    accepted: &BTreeMap<Identity, Accepted>,
    windows: &BTreeMap<(usize, Pane), Total>,
    context: &str,
) {
    let mut expected: BTreeMap<(Pane, Total), i64> = BTreeMap::new();
    for ((_, pane), total) in windows {
        *expected.entry((pane.clone(), *total)).or_default() += 1;
    }
    assert_eq!(net(world, "mended", rules::totals, context), expected, "{context}: corrected windows");
    let due = accepted.iter().filter(|(_, row)| row.event.value > rules::BIG_ABOVE);
    let expected: BTreeMap<Identity, i64> = due.map(|(id, _)| (*id, 1)).collect();
    assert_eq!(net(world, "every", identities, context), expected, "{context}: corrected rows");
}

/// The rows of a corrected table that were not taken back, and how often each is there.
fn net<K: Ord + std::fmt::Debug>(
    world: &World,
    table: &str,
    rows_of: impl Fn(&RecordBatch) -> Vec<K>,
    context: &str,
) -> BTreeMap<K, i64> {
    let mut changes: Vec<(i64, i64, K)> = Vec::new();
    for batch in world.rows(table) {
        let (kinds, revisions) = (rules::text(&batch, column::CHANGE), rules::longs(&batch, column::REVISION));
        let of_change = |kind: &str| if kind == "insert" { 1 } else { -1 };
        let each = rows_of(&batch).into_iter().enumerate();
        changes.extend(each.map(|(k, row)| (revisions[k], of_change(kinds.value(k)), row)));
    }
    // By revision, and within one first what is taken back: nothing is taken back that was not there.
    changes.sort();
    let mut net: BTreeMap<K, i64> = BTreeMap::new();
    for (revision, change, row) in changes {
        let count = net.entry(row).or_default();
        *count += change;
        assert!(*count >= 0, "{context}: `{table}` takes back in revision {revision} what it had not");
    }
    net.retain(|_, count| *count != 0);
    net
}

/// Each revision once, and the newest says how the last window of its key stands with all late events in it.
fn check_corrected_alerts(world: &World, windows: &BTreeMap<(usize, Pane), Total>, context: &str) {
    let mut last: BTreeMap<&str, bool> = BTreeMap::new();
    let mut by_time: Vec<(usize, i64, &str, bool)> = windows
        .iter()
        .map(|((part, (start, key)), (sum, _))| (*part, *start, key.as_str(), *sum > rules::HEAVY_ABOVE))
        .collect();
    by_time.sort_unstable();
    by_time.into_iter().for_each(|(_, _, key, fires)| {
        last.insert(key, fires);
    });
    let mut told: BTreeMap<String, BTreeMap<i64, String>> = BTreeMap::new();
    for batch in world.rows(ALERTS) {
        let (rule, entity) = (rules::text(&batch, "rule_id"), rules::text(&batch, "entity_id"));
        let (status, revision) = (rules::text(&batch, "status"), rules::longs(&batch, "revision"));
        for k in (0..batch.num_rows()).filter(|k| rule.value(*k) == "tidied") {
            let of_entity = told.entry(entity.value(k).to_owned()).or_default();
            let before = of_entity.insert(revision[k], status.value(k).to_owned());
            assert!(
                before.is_none(),
                "{context}: revision {} of {} is twice in the table",
                revision[k],
                entity.value(k)
            );
        }
    }
    for (key, fires) in last {
        let newest = told.get(key).map(|revisions| {
            assert!(revisions.keys().copied().eq(1..=revisions.len() as i64), "{context}: revisions of {key}");
            revisions.values().next_back().is_some_and(|status| status != "resolved")
        });
        assert_eq!(newest.unwrap_or(false), fires, "{context}: corrected alert of {key}: {told:?}");
    }
}

/// Rules over the system streams say what their tables hold, and these hold each dead letter and each error once.
fn check_system_streams(world: &World, unlucky: &[(Pane, Total)], parts: usize, context: &str) {
    let mut messages: Vec<String> = Vec::new();
    for batch in world.rows(RULE_ERRORS) {
        messages.extend(rules::text(&batch, "message").iter().flatten().map(|message| said(message).to_owned()));
    }
    let letters = numbers_of(world, DEAD_LETTERS);
    let mut expected: Vec<String> = unlucky.iter().map(|(pane, _)| rules::bad_luck(pane)).collect();
    // Each slot has a lane of its own, in which the rule fails by itself.
    expected.extend(letters.iter().filter(|(_, number)| *number == rules::BREAKS_AT).map(|_| rules::BROKEN.to_owned()));
    messages.sort();
    expected.sort();
    assert_eq!(messages, expected, "{context}: rule errors");
    for (table, time, key, rule) in
        [(DEAD_LETTERS, "refused_at", "reason", "refusals"), (RULE_ERRORS, "failed_at", "rule_id", "failures")]
    {
        let mut numbers: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        let mut expected: BTreeMap<Pane, Vec<i64>> = BTreeMap::new();
        for batch in world.rows(table) {
            let (times, keys) = (rules::longs(&batch, time), rules::text(&batch, key));
            let (offsets, lateness) = (rules::longs(&batch, column::OFFSET), rules::longs(&batch, column::LATENESS_MS));
            let lanes = topics(&batch);
            for k in 0..batch.num_rows() {
                let of_lane = numbers.entry(lanes.value(k).to_owned()).or_default();
                assert!(of_lane.insert(offsets[k]), "{context}: number {} is twice in `{table}`", offsets[k]);
                assert_eq!(lateness[k], 0, "{context}: a row of `{table}` is late");
                let start_us = times[k].div_euclid(SYSTEM_WINDOW_US) * SYSTEM_WINDOW_US;
                expected.entry((start_us, keys.value(k).to_owned())).or_default().push(1);
            }
        }
        for numbers in numbers.values() {
            assert!(
                numbers.iter().copied().eq(0..numbers.len() as i64),
                "{context}: numbers of `{table}`: {numbers:?}"
            );
        }
        let mut got: BTreeMap<Pane, Vec<i64>> = BTreeMap::new();
        for (pane, (count, _)) in world.rows(rule).iter().flat_map(rules::totals) {
            got.entry(pane).or_default().push(count);
        }
        assert!(parts > 1 || got.values().all(|counts| counts.len() == 1), "{context}: `{rule}` gave a window twice");
        let sums = |counts: BTreeMap<Pane, Vec<i64>>| -> BTreeMap<Pane, i64> {
            counts.into_iter().map(|(pane, counts)| (pane, counts.into_iter().sum())).collect()
        };
        assert_eq!(sums(got), sums(expected), "{context}: windows over `{table}`");
    }
    assert_eq!(numbers_of(world, "letters"), letters, "{context}: rows of the rule over dead letters");
    if parts == 1 {
        let whole: Vec<_> = letters.into_iter().filter(|(_, number)| *number < rules::BREAKS_AT).collect();
        assert_eq!(numbers_of(world, "brittle"), whole, "{context}: rows of the rule before it failed");
    }
}

/// What a rule says when it fails. In SQL it takes that for a number, and the message quotes what is none.
fn said(message: &str) -> &str {
    message.split('\'').nth(1).unwrap_or(message)
}

fn topics(batch: &RecordBatch) -> StringArray {
    let column = batch.column_by_name(column::TOPIC).expect("an identity column");
    cast(column, &DataType::Utf8).expect("text").as_string().clone()
}

/// Lane and offset of a table's rows, in order.
fn numbers_of(world: &World, table: &str) -> Vec<(String, i64)> {
    let rows = world.rows(table);
    let mut numbers: Vec<(String, i64)> = rows
        .iter()
        .flat_map(|batch| {
            let topics = topics(batch);
            let lanes = topics.iter().flatten().map(str::to_owned);
            lanes.zip(rules::longs(batch, column::OFFSET).to_vec()).collect::<Vec<_>>()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn check_running(world: &World, expected: &BTreeMap<(usize, Pane), Total>, context: &str) {
    let mut totals: BTreeMap<(usize, &str), Total> = BTreeMap::new();
    let mut expected: Vec<(Pane, Total)> = expected
        .iter()
        .map(|((part, pane), window)| {
            let total = totals.entry((*part, &pane.1)).or_default();
            *total = (total.0 + window.0, total.1 + window.1);
            (pane.clone(), *total)
        })
        .collect();
    let mut running: Vec<_> = world.rows("running").iter().flat_map(rules::totals).collect();
    running.sort();
    expected.sort();
    assert_eq!(running, expected, "{context}: running totals");
}

fn raw_rows(world: &World, table: &str, context: &str) -> BTreeMap<Identity, Accepted> {
    let mut rows = BTreeMap::new();
    for batch in world.rows(table) {
        let ids = identities(&batch);
        let (times, values) = (rules::longs(&batch, "ts"), rules::longs(&batch, "value"));
        let (keys, lateness) = (rules::text(&batch, "key"), rules::longs(&batch, column::LATENESS_MS));
        for (k, id) in ids.into_iter().enumerate() {
            let event = Event { event_us: times[k], key: keys.value(k).to_owned(), value: values[k] };
            let before = rows.insert(id, Accepted { event, lateness_ms: lateness[k] });
            assert!(before.is_none(), "{context}: event {id:?} is twice in `{table}`");
        }
    }
    rows
}

fn identities(batch: &RecordBatch) -> Vec<Identity> {
    identities_in(batch, [column::PARTITION, column::OFFSET, column::INDEX])
}

fn identities_in(batch: &RecordBatch, columns: [&str; 3]) -> Vec<Identity> {
    let [partition, offset, index] = columns.map(|name| batch.column_by_name(name).expect("an identity column"));
    let (partition, index) = (partition.as_primitive::<Int32Type>(), index.as_primitive::<Int32Type>());
    let offset = offset.as_primitive::<Int64Type>();
    (0..batch.num_rows()).map(|k| (partition.value(k), offset.value(k), index.value(k))).collect()
}

fn check_every_event_once(world: &World, script: &Script, accepted: &BTreeMap<Identity, Accepted>, context: &str) {
    let mut refused = BTreeSet::new();
    let of_record = |batch| identities_in(batch, ["record_partition", "record_offset", "record_index"]);
    for id in world.rows(DEAD_LETTERS).iter().flat_map(of_record) {
        assert!(refused.insert(id), "{context}: {id:?} is twice among the dead letters");
    }
    let mut seen = 0;
    for lane in &script.lanes {
        for record in &lane.records {
            if record.events.is_empty() {
                assert!(refused.contains(&(lane.id.partition, record.offset, 0)), "{context}: malformed record lost");
                seen += 1;
            }
            for (index, event) in record.events.iter().enumerate() {
                let id = (lane.id.partition, record.offset, i32::try_from(index).expect("few events"));
                let row = accepted.get(&id);
                assert!(row.is_none_or(|row| row.event == *event), "{context}: {id:?} changed");
                assert_ne!(row.is_some(), refused.contains(&id), "{context}: {id:?} must be in exactly one table");
                match event.event_us / 1_000 {
                    AHEAD_OF_ALL_MS => assert!(row.is_none(), "{context}: {id:?} is ahead of every clock"),
                    AHEAD_OF_SOME_MS => {}
                    _ => assert!(row.is_some(), "{context}: {id:?} was refused without need"),
                }
                seen += 1;
            }
        }
    }
    assert_eq!(seen, accepted.len() + refused.len(), "{context}: rows that no record explains");
}

/// Lateness as the order of offsets gives it; advances can only add to it, and only where there may be some.
fn check_lateness(script: &Script, accepted: &BTreeMap<Identity, Accepted>, context: &str) {
    for lane in &script.lanes {
        let mut clock = LaneClock::default();
        let rows = (lane.id.partition, i64::MIN, 0)..=(lane.id.partition, i64::MAX, i32::MAX);
        for (id, row) in accepted.range(rows) {
            let lateness_ms = clock.observe(row.event.event_us);
            if script.may_be_advanced(lane) {
                assert!(row.lateness_ms >= lateness_ms, "{context}: lateness of {id:?} is too small");
            } else {
                assert_eq!(row.lateness_ms, lateness_ms, "{context}: lateness of {id:?}");
            }
        }
    }
}

/// What came of records that are gone now may be out.
fn check_big(world: &World, accepted: &BTreeMap<Identity, Accepted>, gaps: &[(i32, i64, i64)], context: &str) {
    let is_there = |id: &Identity| !gaps.iter().any(|(of, first, next)| *of == id.0 && (*first..*next).contains(&id.1));
    let big: Vec<Identity> = raw_rows(world, "big", context).into_keys().filter(is_there).collect();
    let due = |row: &Accepted| row.event.value > rules::BIG_ABOVE && row.lateness_ms <= DELAYS_MS[BIG];
    let expected: Vec<Identity> = accepted.iter().filter(|(_, row)| due(row)).map(|(id, _)| *id).collect();
    assert_eq!(big, expected, "{context}: rows of the stateless rule");
}

fn check_alerts(world: &World, accepted: &BTreeMap<Identity, Accepted>, heavy: Vec<(Pane, Total)>, context: &str) {
    let mut lifecycle = Lifecycle::default();
    let mut expected = Vec::new();
    let mut tell = |rule: &str, row| {
        let record: Option<AlertRecord> = lifecycle.fold(&rules::alert_rule(rule), row);
        expected.extend(record.map(|record| (record.id(), record.status.as_str())));
    };
    let due = |row: &Accepted| row.event.value > rules::SPIKE_ABOVE && row.lateness_ms <= DELAYS_MS[SPIKE];
    for ((partition, offset, index), row) in accepted.iter().filter(|(_, row)| due(row)) {
        let source = Source { topic: "readings".into(), partition: *partition, offset: *offset, index: *index };
        tell("spike", alert_row(&row.event.key, row.event.event_us, None, Some(source)));
    }
    for ((start, key), (sum, _)) in heavy {
        tell("heavy", alert_row(&key, start + WINDOW_US, Some(sum > rules::HEAVY_ABOVE), None));
    }
    let mut expected: Vec<(String, String)> =
        expected.into_iter().map(|(id, status)| (id, status.to_owned())).collect();
    expected.sort();
    let (mut in_table, mut told) = alerts_in_table(world);
    in_table.sort();
    assert_eq!(in_table, expected, "{context}: table of alerts");
    told.sort();
    let (published, early) = world.look(|memory| (memory.published.clone(), memory.told_early.clone()));
    let mut published: Vec<(String, String)> =
        published.into_iter().map(|(id, status)| (id, status.to_owned())).collect();
    published.sort();
    // What is told early may be told again, and says the same.
    published.dedup_by(|a, b| a == b && early.contains_key(&a.0));
    let payloads = world.look(|memory| memory.payloads.clone());
    let unlike = payloads.iter().filter(|(_, payloads)| payloads.len() > 1).map(|(id, payloads)| {
        (id, payloads.iter().map(|payload| String::from_utf8_lossy(payload)).collect::<Vec<_>>())
    });
    assert_eq!(unlike.collect::<Vec<_>>(), [], "{context}: alerts of one id that say different things");
    assert_eq!(published, told, "{context}: published alerts");
}

/// Id and status.
type AlertLine = (String, String);

/// The alerts of the rules that are judged here, and those of all rules that must be published.
fn alerts_in_table(world: &World) -> (Vec<AlertLine>, Vec<AlertLine>) {
    let (mut in_table, mut told) = (Vec::new(), Vec::new());
    let mut past: BTreeMap<String, BTreeMap<i64, AlertLine>> = BTreeMap::new();
    for batch in world.rows(ALERTS) {
        let (ids, statuses) = (rules::text(&batch, "alert_id"), rules::text(&batch, "status"));
        let (rule_ids, fingerprints) = (rules::text(&batch, "rule_id"), rules::text(&batch, "fingerprint"));
        let backfilled = batch.column_by_name("backfilled").expect("a column of the table").as_boolean();
        for (k, revision) in rules::longs(&batch, "revision").iter().enumerate() {
            let (rule, row) = (rule_ids.value(k), (ids.value(k).to_owned(), statuses.value(k).to_owned()));
            if rule != "tidied" && !rule.starts_with(rules::BEFORE) {
                in_table.push(row.clone());
            }
            if !backfilled.value(k) {
                told.push(row);
            } else if rule != "spike" {
                // Of a condition the newest record of its past is told, if it is open then.
                past.entry(fingerprints.value(k).to_owned()).or_default().insert(*revision, row);
            }
        }
    }
    let newest = past.into_values().filter_map(|mut of_alert| of_alert.pop_last());
    told.extend(newest.map(|(_, row)| row).filter(|(_, status)| status != "resolved"));
    (in_table, told)
}

fn alert_row(key: &str, event_us: i64, firing: Option<bool>, source: Option<Source>) -> AlertRow {
    AlertRow {
        entity: vec![("key".into(), key.into())],
        event_us,
        firing,
        severity: None,
        measured: None,
        limit_low: None,
        limit_high: None,
        unit: None,
        window_us: None,
        evidence: String::new(),
        source,
    }
}
