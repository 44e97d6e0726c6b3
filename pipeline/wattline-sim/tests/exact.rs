//! What the generator says of its records is true: classes, lateness per lane, bytes.

use wattline_sim::{Class, Defect, Devices, Disorder, Generator, Meters, Subject, Transactions};

const DELAY_MS: i64 = 120_000;
const PARTITIONS: usize = 4;

fn partition(key: &[u8]) -> i32 {
    key.iter().fold(0_i32, |sum, byte| (sum * 31 + i32::from(*byte)) % 4_096) % 4
}

/// Replays the records through a lane clock of its own.
fn check<S: Subject>(subject: S) {
    let records = subject.records();
    let mut generator = Generator::new(subject, Disorder::usual(DELAY_MS), 7, PARTITIONS, partition);
    let mut reached = [i64::MIN; PARTITIONS];
    while let Some(record) = generator.next() {
        let lane = &mut reached[usize::try_from(record.partition).expect("partition")];
        let behind = lane.saturating_sub(record.time_ms);
        let text = std::str::from_utf8(record.payload);
        match record.class {
            Class::InOrder => assert!(behind <= 0),
            Class::OutOfOrder => assert!((1..=DELAY_MS).contains(&behind)),
            Class::Late => assert!(behind > DELAY_MS),
            Class::Broken(Defect::NotUtf8) => assert!(text.is_err()),
            Class::Broken(Defect::CutJson) => assert!(!record.payload.ends_with(b"}")),
            Class::Broken(Defect::NoTime) => assert!(!text.expect("text").contains(S::TIME_FIELD)),
            Class::Broken(Defect::WrongType) => assert!(text.expect("text").contains("\"broken\"}")),
            Class::Broken(Defect::FarFuture) => assert!(text.expect("text").contains("\"2099-12-31")),
        }
        if record.class == Class::InOrder {
            *lane = record.time_ms;
        }
    }
    let counts = generator.counts();
    assert_eq!(counts.all(), records);
    assert_eq!(counts.accepted() + counts.refused_by_reason().values().sum::<u64>(), records);
    let near = |count: u64, per_ten_thousand: u64| {
        let wanted = records * per_ten_thousand / 10_000;
        assert!(count.abs_diff(wanted) < wanted / 4, "{count} is far from {wanted}");
    };
    near(records - counts.accepted(), 100);
    near(counts.of(Class::OutOfOrder), 200);
    near(counts.of(Class::Late), 50);
    assert!(generator.counts_by_partition().iter().all(|lane| lane.all() > records / 8));
}

#[test]
fn classes_are_what_they_say() {
    check(Meters { meters: 1_000, readings: 100_000 });
    check(Devices { devices: 100, samples: 100_000 });
    check(Transactions { steps: 100_000 });
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let all = |seed| {
        let subject = Meters { meters: 50, readings: 2_000 };
        let mut generator = Generator::new(subject, Disorder::usual(DELAY_MS), seed, PARTITIONS, partition);
        let mut bytes = Vec::new();
        while let Some(record) = generator.next() {
            bytes.extend_from_slice(record.payload);
        }
        bytes
    };
    assert_eq!(all(1), all(1));
    assert_ne!(all(1), all(2));
}

#[test]
fn a_reading_looks_like_this() {
    let subject = Meters { meters: 10, readings: 2 };
    let mut generator = Generator::new(subject, Disorder::none(), 1, 1, |_key| 0);
    generator.next();
    let record = generator.next().expect("two records");
    let text = std::str::from_utf8(record.payload).expect("text");
    assert_eq!(record.key, b"M0000001");
    assert!(text.starts_with("{\"meter_id\":\"M0000001\",\"interval_s\":60,\"u_a_v\":22"), "{text}");
    assert!(text.ends_with(",\"ts\":\"2026-03-02T00:00:06.000+08:00\"}"), "{text}");
    assert_eq!(text.matches("\":").count(), 14, "{text}");
}
