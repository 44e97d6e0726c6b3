//! The loop that turns a subject's plan into records: key, partition, class, payload.

use std::fmt;

use crate::disorder::{Class, Counts, Defect, Disorder};
use crate::random::Random;
use crate::text;

/// 2099-12-31T00:00:00+08:00: no clock reaches it in the lifetime of these tests.
const FAR_FUTURE_MS: i64 = 4_102_329_600_000;

/// What a stream is about: it plans record `n` and writes it.
pub trait Subject {
    /// Field that holds the event time.
    const TIME_FIELD: &'static str;

    /// Number of records.
    fn records(&self) -> u64;

    /// When record `n` happens if nothing delays it; never decreases with `n`. Milliseconds since the epoch.
    fn nominal_ms(&self, n: u64) -> i64;

    /// Appends the message key of record `n`.
    fn write_key(&self, n: u64, out: &mut Vec<u8>);

    /// Appends the JSON object of record `n` without its closing brace, beginning with the key field
    /// (`{"meter_id":"M0000001"`); the event time is not part of it.
    fn write_fields(&self, n: u64, time_ms: i64, random: &mut Random, out: &mut Vec<u8>);

    /// A number field of the stream, for records whose type is wrong.
    fn number_field(&self) -> &'static str;
}

/// One record, borrowed from the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Message key.
    pub key: &'a [u8],
    /// Message payload.
    pub payload: &'a [u8],
    /// Where the key belongs.
    pub partition: i32,
    /// What it is.
    pub class: Class,
    /// Its event time, milliseconds since the epoch; of a broken record the one it would have had.
    pub time_ms: i64,
}

/// Makes the records of one stream in the order in which they are produced.
pub struct Generator<S, P> {
    subject: S,
    partition_of: P,
    disorder: Disorder,
    random: Random,
    next: u64,
    key: Vec<u8>,
    payload: Vec<u8>,
    reached_ms: Vec<Option<i64>>,
    counts: Vec<Counts>,
}

impl<S: fmt::Debug, P> fmt::Debug for Generator<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("subject", &self.subject).field("next", &self.next).finish_non_exhaustive()
    }
}

impl<S: Subject, P: Fn(&[u8]) -> i32> Generator<S, P> {
    /// A generator; `partition_of` says where a key goes and must answer from 0 to below `partitions`.
    #[must_use]
    pub fn new(subject: S, disorder: Disorder, seed: u64, partitions: usize, partition_of: P) -> Self {
        Self {
            subject,
            partition_of,
            disorder,
            random: Random::new(seed),
            next: 0,
            key: Vec::with_capacity(64),
            payload: Vec::with_capacity(512),
            reached_ms: vec![None; partitions],
            counts: vec![Counts::default(); partitions],
        }
    }

    /// The next record, until all are made.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its buffers")]
    pub fn next(&mut self) -> Option<Record<'_>> {
        let n = self.next;
        if n >= self.subject.records() {
            return None;
        }
        self.next += 1;
        self.key.clear();
        self.subject.write_key(n, &mut self.key);
        let partition = (self.partition_of)(&self.key);
        let lane = usize::try_from(partition).unwrap_or_default();
        let nominal_ms = self.subject.nominal_ms(n);
        let (class, time_ms) = self.disorder.decide(&mut self.random, nominal_ms, &mut self.reached_ms[lane]);
        self.counts[lane].note(class);
        self.payload.clear();
        self.write(n, class, time_ms);
        Some(Record { key: &self.key, payload: &self.payload, partition, class, time_ms })
    }

    fn write(&mut self, n: u64, class: Class, time_ms: i64) {
        let Self { subject, random, payload, .. } = self;
        subject.write_fields(n, time_ms, random, payload);
        match class {
            Class::Broken(Defect::NoTime) => {}
            Class::Broken(Defect::FarFuture) => text::instant_field(payload, S::TIME_FIELD, FAR_FUTURE_MS),
            Class::InOrder | Class::OutOfOrder | Class::Late | Class::Broken(_) => {
                text::instant_field(payload, S::TIME_FIELD, time_ms);
            }
        }
        match class {
            Class::Broken(Defect::WrongType) => text::text_field(payload, subject.number_field(), b"broken"),
            Class::Broken(Defect::NotUtf8) => text::text_field(payload, "source", b"line \xff"),
            Class::InOrder | Class::OutOfOrder | Class::Late | Class::Broken(_) => {}
        }
        if class == Class::Broken(Defect::CutJson) {
            payload.truncate(payload.len() - 12);
        } else {
            payload.push(b'}');
        }
    }

    /// What was made so far, all partitions together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.iter().fold(Counts::default(), Counts::with)
    }

    /// What was made so far, by partition.
    #[must_use]
    pub fn counts_by_partition(&self) -> &[Counts] {
        &self.counts
    }
}
