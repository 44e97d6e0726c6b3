//! Records that nobody can use, between those that are good: each becomes a dead letter with its reason, and nothing around it changes.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::feed::Feed;
use super::ledger::{Difference, Ledger};
use super::rounds;
use super::subject::{FILES, LINES, Place, Setup, Subject, Undisturbed, alerts_are_out_once, is_broken, text_of};
use crate::kafka_broker::TestBroker;

/// Good records between two of the others.
const POISON_EVERY: u32 = 10;
/// Of so many good records one has a header that is larger than the record may be.
const HEADER_EVERY: u32 = 500;
const HEADER_BYTES: usize = 100_000;
/// Above the stream's `record_bytes_max`.
const OVERSIZED_BYTES: usize = 70_000;
const STREAM: &str = "record_bytes_max = \"64 KB\"";

/// A payload, and what is said of it.
struct Poison {
    payload: Option<Vec<u8>>,
    reason: &'static str,
}

fn poisons() -> Vec<Poison> {
    let at = "\"at\":\"2026-03-02T00:00:00Z\"";
    let visit = |rest: &str| format!("{{\"shop\":\"poison\",{at}{rest}}}").into_bytes();
    let deep = format!(",\"amount\":\"1.00\",\"x\":{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let large = format!(",\"amount\":\"1.00\",\"x\":\"{}\"", "y".repeat(OVERSIZED_BYTES));
    let text = |text: &str| text.as_bytes().to_vec();
    let payloads: Vec<(Vec<u8>, &'static str)> = vec![
        (Vec::new(), "empty"),
        (text(" \t "), "empty"),
        (vec![0xff, 0xfe, 0x00], "invalid_utf8"),
        (text("garbage"), "not_json"),
        (vec![0, 1, 2], "not_json"),
        (text("{\"shop\":\"poison\",\"at\":"), "not_json"),
        (visit(",\"amount\":NaN"), "not_json"),
        (text("[1,2]"), "not_an_object"),
        (text("null"), "not_an_object"),
        (visit(&deep), "too_deep"),
        (visit(&large), "too_large"),
        (visit(",\"amount\":\"many\""), "wrong_type"),
        (text("{\"shop\":{\"name\":1},\"at\":\"2026-03-02T00:00:00Z\",\"amount\":\"1.00\"}"), "wrong_type"),
        (visit(""), "missing_field"),
        (visit(",\"amount\":\"99999999999999.00\""), "out_of_range"),
        (visit(",\"amount\":\"1.234\""), "not_exact"),
        (text("{\"shop\":\"poison\",\"at\":\"2026-03-02T00:00:00\",\"amount\":\"1.00\"}"), "missing_zone"),
        (visit(",\"shop\":\"poison\",\"amount\":\"1.00\""), "duplicate_field"),
        (text("{\"shop\":\"poison\",\"at\":\"9999-01-01T00:00:00Z\",\"amount\":\"1.00\"}"), "too_far_ahead"),
        (text("{\"shop\":\"poison\",\"at\":\"1970-01-01T00:00:00Z\",\"amount\":\"1.00\"}"), "too_old"),
    ];
    let tombstone = Poison { payload: None, reason: "empty" };
    let others = payloads.into_iter().map(|(payload, reason)| Poison { payload: Some(payload), reason });
    std::iter::once(tombstone).chain(others).collect()
}

/// Produces the visits with poison between them; gives the lines that its dead letters must come to.
fn produce(topic: &str, every: u32) -> Result<Vec<String>> {
    let feed = Feed::to(TestBroker::shared(), topic, FILES)?;
    let (poisons, header) = (poisons(), vec![b'h'; HEADER_BYTES]);
    let mut letters = Vec::new();
    let mut kinds = poisons.iter().cycle();
    for file in 0..FILES {
        let mut offset = 0;
        for line in 0..LINES {
            let header = line.is_multiple_of(HEADER_EVERY).then_some(header.as_slice());
            feed.send(file, Some(text_of(file, line).trim_end().as_bytes()), header)?;
            if is_broken(line) {
                letters.push(format!("dead_letters not_json {offset}"));
            }
            offset += 1;
            if line.is_multiple_of(every)
                && let Some(Poison { payload, reason }) = kinds.next()
            {
                feed.send(file, payload.as_deref(), None)?;
                letters.push(format!("dead_letters {reason} {offset}"));
                offset += 1;
            }
        }
    }
    feed.flush()?;
    Ok(letters)
}

/// Of the visits, offsets are others than in the files.
fn without_offsets(line: &str) -> String {
    let words = line.split(' ').enumerate();
    let kept = words.filter(|(at, _)| !line.starts_with("visits ") || ![4, 5].contains(at));
    kept.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

#[test]
fn records_that_nobody_can_use_change_nothing_around_them() -> Result<()> {
    let fault = "records between the others that are empty, damaged, oversized, too deep, of wrong types, out of time; enormous headers";
    let ledger = Ledger::new(17, fault);
    let mut subjects = Vec::new();
    for round in 0..rounds(1, 50)? {
        let topic = format!("poison-{round}");
        let letters = produce(&topic, POISON_EVERY)?;
        let setup = Setup { topic: Some(&topic), stream: STREAM, ..Setup::at(Place::Folder) };
        let subject = Subject::with(&topic, &setup)?;
        subject.finish()?;
        let rest = Undisturbed::get()?.lines.iter().filter(|line| !line.starts_with("dead_letters "));
        let mut expected: Vec<String> = rest.map(|line| without_offsets(line)).chain(letters.iter().cloned()).collect();
        let mut found: Vec<String> = subject.lines()?.iter().map(|line| without_offsets(line)).collect();
        expected.sort_unstable();
        found.sort_unstable();
        let poison = letters.len() as u64;
        ledger.note(&topic, poison, &Difference::between(&expected, &found), &[]);
        subjects.push(subject);
    }
    alerts_are_out_once(&subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}

#[test]
fn each_kind_of_poison_has_its_place() -> Result<()> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for poison in poisons() {
        *reasons.entry(poison.reason).or_default() += 1;
    }
    ensure!(reasons.len() == 14, "{reasons:?}");
    ensure!(poisons().len() < (FILES * LINES / POISON_EVERY) as usize, "some kinds are never sent");
    Ok(())
}
