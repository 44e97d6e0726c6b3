//! Which record is in order, out of order, late or broken, and the clock of each lane that makes this exact.

use std::collections::BTreeMap;

use crate::random::Random;

/// How far a late record lies at most beyond the delay.
const LATE_BEYOND_MS: i64 = 600_000;
/// One in so many displaced records lies exactly on the border: the delay itself, or one millisecond more.
const ON_BORDER_OF: u64 = 16;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Not before the highest time of its lane.
    InOrder,
    /// Before it, by no more than the delay.
    OutOfOrder,
    /// Before it, by more than the delay.
    Late,
    /// Cannot be accepted.
    Broken(Defect),
}

/// How a record is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// The JSON ends in the middle.
    CutJson,
    /// A number field holds a word.
    WrongType,
    /// The event time is missing.
    NoTime,
    /// A byte that is not UTF-8.
    NotUtf8,
    /// An event time of another century.
    FarFuture,
}

impl Defect {
    /// Every defect; each is equally frequent.
    pub const ALL: [Self; 5] = [Self::CutJson, Self::WrongType, Self::NoTime, Self::NotUtf8, Self::FarFuture];

    /// The reason under which wattline keeps such a record in `dead_letters`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::CutJson => "not_json",
            Self::WrongType => "wrong_type",
            Self::NoTime => "missing_field",
            Self::NotUtf8 => "invalid_utf8",
            Self::FarFuture => "too_far_ahead",
        }
    }
}

/// How many records are displaced or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disorder {
    /// Broken records, per 10,000.
    pub broken: u64,
    /// Out of order within the delay, per 10,000.
    pub out_of_order: u64,
    /// Late beyond the delay, per 10,000.
    pub late: u64,
    /// The delay, in milliseconds.
    pub delay_ms: i64,
}

impl Disorder {
    /// 1 % broken, 2 % out of order within the delay, 0.5 % late.
    #[must_use]
    pub fn usual(delay_ms: i64) -> Self {
        Self { broken: 100, out_of_order: 200, late: 50, delay_ms }
    }

    /// Everything in order and whole.
    #[must_use]
    pub fn none() -> Self {
        Self { broken: 0, out_of_order: 0, late: 0, delay_ms: 0 }
    }

    /// Decides what the next record of a lane is, and its event time.
    pub(crate) fn decide(&self, random: &mut Random, nominal_ms: i64, reached_ms: &mut Option<i64>) -> (Class, i64) {
        let draw = random.below(10_000);
        if draw < self.broken {
            let defect = Defect::ALL[random.below(Defect::ALL.len() as u64) as usize];
            return (Class::Broken(defect), nominal_ms);
        }
        let Some(reached) = *reached_ms else {
            *reached_ms = Some(nominal_ms);
            return (Class::InOrder, nominal_ms);
        };
        let draw = draw - self.broken;
        let on_border = random.chance(1, ON_BORDER_OF);
        if draw < self.out_of_order && self.delay_ms > 0 {
            let behind = if on_border { self.delay_ms } else { random.between(1, self.delay_ms) };
            return (Class::OutOfOrder, reached - behind);
        }
        if (self.out_of_order..self.out_of_order + self.late).contains(&draw) {
            let beyond = if on_border { 1 } else { random.between(1, LATE_BEYOND_MS) };
            return (Class::Late, reached - self.delay_ms - beyond);
        }
        let time = nominal_ms.max(reached);
        *reached_ms = Some(time);
        (Class::InOrder, time)
    }
}

/// How many records of each class were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    classes: BTreeMap<Class, u64>,
}

impl Counts {
    pub(crate) fn note(&mut self, class: Class) {
        *self.classes.entry(class).or_default() += 1;
    }

    /// Records of one class.
    #[must_use]
    pub fn of(&self, class: Class) -> u64 {
        self.classes.get(&class).copied().unwrap_or_default()
    }

    /// All records.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.classes.values().sum()
    }

    /// Records that must be accepted, late ones included.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.of(Class::InOrder) + self.of(Class::OutOfOrder) + self.of(Class::Late)
    }

    /// Records that must be refused, by the reason that must be given.
    #[must_use]
    pub fn refused_by_reason(&self) -> BTreeMap<&'static str, u64> {
        let broken = Defect::ALL.map(|defect| (defect.reason(), self.of(Class::Broken(defect))));
        broken.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// The counts of both.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for (class, count) in &other.classes {
            *self.classes.entry(*class).or_default() += count;
        }
        self
    }
}
