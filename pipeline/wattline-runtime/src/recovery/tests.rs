//! Manifests as they lie in archives: what is read of the format of today, and what is said of another.
//!
//! The two files beside this one are as a version with this format has written them. A change after which they are read as
//! something else, or are written otherwise, is a change of the format: it needs a new number, and new files.

use serde_json::Value;
use wattline_core::alert::{AlertRecord, Severity, Source, Status};
use wattline_core::exchange::{ArchivedLane, Cut, Positions, Reached};
use wattline_core::gap::Gap;
use wattline_core::lane::IdleAdvance;
use wattline_core::late::LateStretches;
use wattline_core::manifest::{
    AddedFile, Body, Correction, Epoch, Exchange, Quarantine, Restored, Seal, SharedProgress,
};
use wattline_core::system_log::SystemSection;

use super::*;

const EPOCH: &str = include_str!("manifest-6-epoch.json");
const SEAL: &str = include_str!("manifest-6-seal.json");
const RESTORED: &str = include_str!("manifest-6-restored.json");

fn lane(partition: i32) -> LaneId {
    LaneId::new("meter-readings", partition)
}

fn section() -> LaneSection {
    LaneSection {
        lane: lane(3),
        generation: 2,
        stream: "meter_readings".into(),
        log: Some("0Wr_Iv2bT1y3nF1rHhpH5w".into()),
        published: 1_200,
        archive: 1_000,
        state: 1_001,
        reached_us: 1_772_323_199_000_001,
        resume_reached_us: 1_772_323_100_000_000,
        since: 7,
        ended: true,
        idle_advances: vec![IdleAdvance { offset: 1_100, reached_us: 1_772_323_150_000_000 }],
        refused: vec![(1_101, 4)],
        gaps: vec![Gap { first: 800, next: 950 }],
    }
}

fn progress() -> RuleProgress {
    let mut late = LateStretches::default();
    late.add((1_772_236_900_000_000, 1_772_236_960_000_000), 0);
    RuleProgress {
        id: "pq_voltage_deviation".into(),
        final_until_us: 1_772_323_080_000_000,
        active_from_us: 1_772_236_800_000_000,
        quarantined: vec![
            Quarantine { lane: Some(lane(0)), offset: 42, message: "divided by zero".into() },
            Quarantine { lane: None, offset: -1, message: "overflow".into() },
        ],
        late,
        correction: Some(Correction { until_us: 1_772_323_000_000_000, revision: 3, offsets: vec![(lane(3), 900)] }),
        shared: Some(SharedProgress {
            told_us: 1_772_323_090_000_000,
            late: LateStretches::default(),
            awaits: vec![2],
            awaits_past: false,
        }),
    }
}

fn file() -> AddedFile {
    AddedFile {
        path: "event_date=2026-03-01/part-17.parquet".into(),
        size_bytes: 4_096,
        event_date: Some("2026-03-01".into()),
        rows: 12,
        stats: r#"{"numRecords":12}"#.into(),
        modified_ms: 1_772_323_200_100,
    }
}

fn state() -> AlertState {
    AlertState {
        rule_id: "pq_voltage_deviation".into(),
        entity_id: "M1|A".into(),
        fingerprint: "c0ffee".into(),
        revision: 2,
        status: Status::Open,
        severity: Severity::Critical,
        first_seen_us: 1_772_323_000_000_000,
        last_seen_us: 1_772_323_060_000_000,
        notified_us: 1_772_323_060_000_000,
        occurrences: 9,
        peak_measured: Some(251.5),
        peak_excess: Some(16.25),
        calm_rows: 1,
    }
}

fn record() -> AlertRecord {
    AlertRecord {
        fingerprint: "c0ffee".into(),
        revision: 2,
        status: Status::Update,
        severity: Severity::Warning,
        rule_id: "pq_voltage_deviation".into(),
        rule_version: "2.1".into(),
        title: "voltage outside limits".into(),
        title_zh: Some("电压偏差越限".into()),
        standard: Some("GB/T 12325-2008, 4.2".into()),
        category: "power_quality".into(),
        entity: vec![("meter_id".into(), "M1".into()), ("phase".into(), "A".into())],
        entity_id: "M1|A".into(),
        measured: Some(236.5),
        limit_low: Some(198.25),
        limit_high: Some(235.5),
        unit: Some("V".into()),
        event_us: 1_772_323_060_000_000,
        window_us: Some((1_772_323_000_000_000, 1_772_323_060_000_000)),
        first_seen_us: 1_772_323_000_000_000,
        last_seen_us: 1_772_323_060_000_000,
        resolved_us: None,
        occurrences: 9,
        peak_measured: Some(251.5),
        evidence: r#"{"meter_id":"M1"}"#.into(),
        source: Some(Source { topic: "meter-readings".into(), partition: 3, offset: 1_199, index: 0 }),
        runbook: Some("https://runbooks.example/voltage".into()),
        corrected: false,
        backfilled: false,
    }
}

fn epoch() -> Epoch {
    Epoch {
        checkpoint: 16,
        rules_revision: "00112233445566aa".into(),
        references: BTreeMap::from([("meters".into(), "9f86d081".into())]),
        lanes: vec![section()],
        waiting: vec![WaitingLane { lane: lane(5), from_ms: 1_772_323_100_000 }],
        system: vec![SystemSection {
            stream: "dead_letters".into(),
            next: 5,
            state: 4,
            reached_us: 1_772_323_200_000_000,
        }],
        rules: BTreeMap::from([("0872e296d6b2e13920eb22484947d0b6".into(), progress())]),
        adds: BTreeMap::from([("alerts".into(), vec![file()])]),
        rows_object: Some("rows/0/17-a81b2c.frames".into()),
        state_objects: vec!["state/0/16-a81b2c.0.frames".into()],
        stage_objects: vec!["stages/0/16-a81b2c.0.frames".into()],
        alert_state_object: Some("alert-state/0/16-a81b2c.json".into()),
        alert_changes: vec![state()],
        alerts: vec![record()],
        exchange: Some(Exchange {
            outbox: Some("outbox/0/17-a81b2c.frames".into()),
            told: 17,
            senders: vec![sender()],
        }),
    }
}

fn sender() -> Sender {
    let reached =
        Reached { least_us: 1_772_323_100_000_000, archived_us: 1_772_323_000_000_000, most_us: 1_772_323_200_000_000 };
    Sender {
        slot: 1,
        n: 21,
        incarnation: "77aa01".into(),
        cut: Some(Cut { last_link: 22, incarnation: "99bb02".into() }),
        later_cuts: Vec::new(),
        next_part: None,
        positions: Positions {
            streams: BTreeMap::from([("meter_readings".into(), reached)]),
            lanes: vec![ArchivedLane { lane: lane(4), stream: "meter_readings".into(), since: 0, archive: 1_100 }],
        },
        rules: BTreeMap::from([("0872e296d6b2e13920eb22484947d0b6".into(), 1_772_236_800_000_000)]),
        is_level: false,
    }
}

fn manifest(n: u64, nonce: &str, created_ms: i64, body: Body) -> Manifest {
    Manifest {
        format: FORMAT,
        job: "billing".into(),
        chain: "0".into(),
        incarnation: "5f0c1d".into(),
        n,
        nonce: nonce.into(),
        created_ms,
        body,
    }
}

#[test]
fn manifests_of_format_6_are_read_and_written_as_ever() {
    assert_eq!(FORMAT, 6, "a new format needs files of its own beside this test");
    let sealed = Seal { lanes: vec![(lane(3), 3)], taken_by: "0".into() };
    let cut = Cut { last_link: 2, incarnation: "99bb02".into() };
    let restored =
        Restored { senders: vec![Sender { incarnation: "77aa01".into(), cut: Some(cut), ..Sender::new(1) }] };
    for (text, expected) in [
        (EPOCH, manifest(17, "a81b2c", 1_772_323_200_123, Body::Epoch(Box::new(epoch())))),
        (SEAL, manifest(18, "b92c3d", 1_772_323_201_123, Body::Seal(sealed))),
        (RESTORED, manifest(1, "99bb02", 1_772_323_202_123, Body::Restored(restored))),
    ] {
        assert_eq!(parse_manifest("m", text.as_bytes()).expect("readable"), expected);
        let stored: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(serde_json::to_value(&expected).expect("JSON"), stored, "what is written has other fields");
    }
}

#[test]
fn a_manifest_of_another_format_is_refused_as_such() {
    for (text, reason) in [
        (r#"{"format": 5, "job": "billing", "lanes": [[0, 17]], "n": "17"}"#, "its format is 5, this version"),
        (r#"{"format": 7, "job": {"name": "billing"}, "n": 17, "body": []}"#, "its format is 7, this version"),
        (r#"{"format": 6, "job": "billing"}"#, "missing field `chain`"),
        (r#"{"job": "billing"}"#, "missing field `format`"),
        ("[]", "invalid length 0"),
    ] {
        let error = parse_manifest("chains/0/17.json", text.as_bytes()).expect_err("refused").to_string();
        assert!(error.contains("`chains/0/17.json`") && error.contains(reason), "{error}");
    }
}
