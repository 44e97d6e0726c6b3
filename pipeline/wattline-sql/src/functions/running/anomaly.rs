//! `anomaly_score(x, ts)`: how unusual a value is, 0 to 1, for a series of which nothing is known.
//!
//! Four deviations are measured for each value: from the usual one at this time of day, from the usual one at this hour of the week
//! (as it is, and smoothed), and of the level of the last rows from that of the last hundred. Each is turned into a surprise: `-log10` of
//! its tail probability among the earlier deviations of its kind. Their weighted mean is the surprise of the row. A row whose
//! surprise reaches [`THRESHOLD`] is an anomaly, with a score of at least 0.5, unless an event was told less than [`REST_ROWS`] ago,
//! or some as strong have been seen before.
//!
//! One pass, and only the past. Spans are in rows, so that any interval between values will do; only the profiles look at the
//! clock. "Flat" in a comment is how far that constant could be moved, when it was chosen, without changing much how labelled
//! series are scored (`benches/nab`).

use std::f64::consts::LOG10_E;

/// Mean surprise of an anomaly: deviations of all four kinds as are seen once in 10^2 rows. Flat 1.8 to 2.2.
const THRESHOLD: f64 = 2.0;
/// Weights of day, week, smoothed week and level. Equal weights cost one point.
const WEIGHTS: [f64; 4] = [1.0, 1.5, 1.0, 1.0];
/// Limit of one surprise: of a single kind only the week can then raise an alarm. Flat from 8.
const SURPRISE_MAX: f64 = 8.0;
/// Greatest absolute value: the square of a sum of them is still finite.
const VALUE_MAX: f64 = 1e150;

/// Slots of 15 minutes, fine enough for load curves. Flat 10 to 20 minutes.
const DAY_SLOTS: usize = 96;
/// Slots of one hour.
const WEEK_SLOTS: usize = 168;
/// Weight of a new value in its slot of the day: follows within a day at rows of 5 minutes. Flat 0.2 to 0.5.
const DAY_RATE: f64 = 0.4;
/// Weight of a new value in its slot of the week: about the last ten rows of that hour. Flat 0.07 to 0.15.
const WEEK_RATE: f64 = 0.1;
/// Rows over which the deviations of the day and of the smoothed week are averaged. Flat 8 to 12.
const SMOOTH_ROWS: f64 = 10.0;
/// Rows of the short and of the long level. Flat 12 to 25 and 60 to 100.
const SHORT_ROWS: f64 = 15.0;
const LONG_ROWS: f64 = 100.0;

/// Rows before a tail exists: eleven of them lie beyond the quantile.
const WARM_UP: usize = 100;
/// The tail is taken as exponential beyond this quantile. Flat 0.85 to 0.92.
const TAIL_QUANTILE: f64 = 0.88;
/// First of the sorted warm-up rows that is at the quantile.
const AT_QUANTILE: usize = 88;
/// Memory of a tail in rows; 10,000 gives the same.
const TAIL_ROWS: f64 = 20_000.0;
/// The quantile is moved by this over the rows seen. Flat 5 to 15.
const TAIL_GAIN: f64 = 5.0;

/// No alarm before this row, so that tails have learned from some rows.
const FIRST_ALARM: f64 = 150.0;
/// Rows of rest after the first row of an event. Flat 60 to 90.
const REST_ROWS: f64 = 75.0;
/// Rows for which events are remembered: five weeks of 5 minutes. Flat 5,000 to 10,000.
const MEMORY_ROWS: f64 = 10_000.0;
/// An earlier event is as strong as this row if its peak is at least this share of it.
const AS_STRONG: f64 = 0.9;
/// With so many remembered events as strong, this one is usual. 5 costs a point.
const USUAL_EVENTS: usize = 4;
/// Events are more than the rest apart, so no more can be remembered.
const EVENTS_MAX: usize = 134;

const DAY_US: i64 = 86_400_000_000;

/// State of one series. All of it is numbers, which [`Detector::visit`] goes through.
#[derive(Debug, Clone)]
pub(super) struct Detector {
    rows: f64,
    day: Profile<DAY_SLOTS>,
    week: Profile<WEEK_SLOTS>,
    day_mean: Mean,
    week_mean: Mean,
    short: Mean,
    long: Mean,
    day_tail: Tail,
    week_tail: Tail,
    week_up_tail: Tail,
    week_down_tail: Tail,
    level_tail: Tail,
    gate: Gate,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            rows: 0.0,
            day: Profile::new(DAY_US, DAY_RATE),
            week: Profile::new(7 * DAY_US, WEEK_RATE),
            day_mean: Mean::new(SMOOTH_ROWS),
            week_mean: Mean::new(SMOOTH_ROWS),
            short: Mean::new(SHORT_ROWS),
            long: Mean::new(LONG_ROWS),
            day_tail: Tail::default(),
            week_tail: Tail::default(),
            week_up_tail: Tail::default(),
            week_down_tail: Tail::default(),
            level_tail: Tail::default(),
            gate: Gate::default(),
        }
    }
}

impl Detector {
    /// The score of the next value; one that is infinite or absurdly large scores 0 and is not learned.
    pub(super) fn update(&mut self, ts_us: i64, value: f64) -> f64 {
        if value.abs() >= VALUE_MAX {
            return 0.0;
        }
        let surprises = self.surprises(ts_us, value);
        let total: f64 = surprises.iter().zip(WEIGHTS).map(|(surprise, weight)| surprise * weight).sum();
        let surprise = total / WEIGHTS.iter().sum::<f64>();
        let alarm = self.gate.alarm(self.rows, surprise);
        self.rows += 1.0;
        // 0.5 at the threshold; a row without alarm stays below that whatever its surprise.
        let score = 1.0 - (-surprise / THRESHOLD).exp2();
        if alarm { score } else { 0.5 * score }
    }

    /// Surprise of the day, the week, the smoothed week and the level; 0 where not known yet.
    fn surprises(&mut self, ts_us: i64, value: f64) -> [f64; 4] {
        let mut surprises = [0.0; 4];
        let day = self.day.deviation(ts_us, value);
        let day_mean = self.day_mean.add(day.unwrap_or(0.0));
        if day.is_some() {
            surprises[0] = self.day_tail.surprise(day_mean.abs());
        }
        let week = self.week.deviation(ts_us, value);
        let week_mean = self.week_mean.add(week.unwrap_or(0.0));
        if let Some(week) = week {
            surprises[1] = self.week_tail.surprise(week.abs());
            // The smoothed week is skewed by growth: rises and falls have tails of their own.
            let up = self.week_up_tail.surprise(week_mean.max(0.0));
            let down = self.week_down_tail.surprise((-week_mean).max(0.0));
            surprises[2] = up.max(down);
        }
        let long_before = if self.rows == 0.0 { value } else { self.long.value };
        self.long.add(value);
        let level = self.short.add(value) - long_before;
        surprises[3] = self.level_tail.surprise(level.abs());
        surprises
    }

    /// Goes through all numbers of the state, always in one order: to store them, and to set them again.
    pub(super) fn visit(&mut self, number: &mut impl FnMut(&mut f64)) {
        number(&mut self.rows);
        self.day.values.iter_mut().for_each(&mut *number);
        self.week.values.iter_mut().for_each(&mut *number);
        for mean in [&mut self.day_mean, &mut self.week_mean, &mut self.short, &mut self.long] {
            number(&mut mean.value);
            number(&mut mean.rows);
        }
        let tails = [&mut self.day_tail, &mut self.week_tail, &mut self.week_up_tail, &mut self.week_down_tail];
        for tail in tails.into_iter().chain([&mut self.level_tail]) {
            tail.first.iter_mut().for_each(&mut *number);
            [&mut tail.seen, &mut tail.quantile, &mut tail.excess].into_iter().for_each(&mut *number);
        }
        let Gate { events, first, rest, last_alarm } = &mut self.gate;
        [first, rest, last_alarm].into_iter().for_each(&mut *number);
        for event in events {
            number(&mut event.row);
            number(&mut event.peak);
        }
    }
}

/// Distribution of a deviation that is not negative: a tracked quantile, and an exponential tail beyond it.
#[derive(Debug, Clone)]
struct Tail {
    /// What is seen before there is a tail.
    first: [f64; WARM_UP],
    seen: f64,
    quantile: f64,
    /// Mean of what exceeds the quantile.
    excess: f64,
}

impl Default for Tail {
    fn default() -> Self {
        Self { first: [0.0; WARM_UP], seen: 0.0, quantile: 0.0, excess: 0.0 }
    }
}

impl Tail {
    /// `-log10 P(deviation >= d)` judged by the earlier ones; then learns `d`.
    fn surprise(&mut self, d: f64) -> f64 {
        if let Some(place) = index(self.seen).filter(|at| *at < WARM_UP) {
            self.first[place] = d;
            self.seen += 1.0;
            if place + 1 == WARM_UP {
                self.begin();
            }
            return 0.0;
        }
        let at_quantile = -(1.0 - TAIL_QUANTILE).log10();
        let above = d - self.quantile;
        let surprise = if above > 0.0 {
            let excess = self.excess.max(0.05 * self.quantile).max(f64::MIN_POSITIVE);
            at_quantile + above / excess * LOG10_E
        } else if self.quantile > 0.0 {
            at_quantile * d / self.quantile
        } else {
            0.0
        };
        self.learn(above);
        surprise.min(SURPRISE_MAX)
    }

    /// Quantile and mean excess of the first rows.
    fn begin(&mut self) {
        self.first.sort_unstable_by(f64::total_cmp);
        self.quantile = self.first[AT_QUANTILE];
        let beyond = self.first[AT_QUANTILE + 1..].iter();
        let (mut sum, mut count) = (0.0, 0.0);
        for d in beyond {
            sum += d - self.quantile;
            count += 1.0;
        }
        self.excess = sum / count;
    }

    fn learn(&mut self, above: f64) {
        self.seen = (self.seen + 1.0).min(TAIL_ROWS);
        let mut direction = TAIL_QUANTILE - 1.0;
        if above > 0.0 {
            direction = TAIL_QUANTILE;
            let rate = (1.0 / (self.seen * (1.0 - TAIL_QUANTILE))).min(0.5);
            self.excess += rate * (above - self.excess);
        }
        let scale = self.quantile.max(0.5 * self.excess);
        self.quantile = (self.quantile + TAIL_GAIN / self.seen * scale * direction).max(0.0);
    }
}

/// Usual value in each slot of a period.
#[derive(Debug, Clone)]
struct Profile<const SLOTS: usize> {
    /// NaN in a slot that was never seen.
    values: [f64; SLOTS],
    period_us: i64,
    rate: f64,
}

impl<const SLOTS: usize> Profile<SLOTS> {
    fn new(period_us: i64, rate: f64) -> Self {
        Self { values: [f64::NAN; SLOTS], period_us, rate }
    }

    /// Deviation from the value of the slot, `None` in one that was never seen; then learns `value`.
    fn deviation(&mut self, ts_us: i64, value: f64) -> Option<f64> {
        let into_period_us = usize::try_from(ts_us.rem_euclid(self.period_us)).ok()?;
        let period_us = usize::try_from(self.period_us).ok()?;
        let usual = self.values.get_mut(into_period_us / (period_us / SLOTS))?;
        if usual.is_nan() {
            *usual = value;
            return None;
        }
        let deviation = value - *usual;
        *usual += self.rate * deviation;
        Some(deviation)
    }
}

/// Exponentially weighted mean that begins as the plain mean of the first rows.
#[derive(Debug, Clone)]
struct Mean {
    value: f64,
    rows: f64,
    span: f64,
}

impl Mean {
    fn new(span: f64) -> Self {
        Self { value: 0.0, rows: 0.0, span }
    }

    fn add(&mut self, value: f64) -> f64 {
        self.rows = (self.rows + 1.0).min(self.span);
        self.value += (value - self.value) / self.rows;
        self.value
    }
}

/// A run of surprising rows: where it began and its greatest surprise.
#[derive(Debug, Clone, Copy)]
struct Event {
    row: f64,
    peak: f64,
}

/// Decides which surprising rows are told.
#[derive(Debug, Clone)]
struct Gate {
    /// The last events, the newest last; those before `first` are none.
    events: [Event; EVENTS_MAX],
    first: f64,
    /// Rows of rest that are left.
    rest: f64,
    /// Row of the last alarm, long ago if there was none.
    last_alarm: f64,
}

impl Default for Gate {
    fn default() -> Self {
        let none = Event { row: 0.0, peak: 0.0 };
        Self { events: [none; EVENTS_MAX], first: f64::from(134_u8), rest: 0.0, last_alarm: -REST_ROWS }
    }
}

impl Gate {
    fn alarm(&mut self, row: f64, surprise: f64) -> bool {
        let is_resting = self.rest > 0.0;
        self.rest = (self.rest - 1.0).max(0.0);
        if row < FIRST_ALARM || surprise < THRESHOLD {
            return false;
        }
        if is_resting {
            // Within an event only a new peak matters, and only if the event was not told.
            let event = &mut self.events[EVENTS_MAX - 1];
            if surprise <= event.peak {
                return false;
            }
            event.peak = surprise;
            if row - self.last_alarm < REST_ROWS {
                return false;
            }
        } else {
            self.events.copy_within(1.., 0);
            self.events[EVENTS_MAX - 1] = Event { row, peak: surprise };
            self.first = (self.first - 1.0).max(0.0);
            self.rest = REST_ROWS;
        }
        let earlier = &self.events[index(self.first).unwrap_or(0)..EVENTS_MAX - 1];
        let is_similar = |event: &&Event| row - event.row < MEMORY_ROWS && event.peak >= AS_STRONG * surprise;
        let is_unusual = earlier.iter().filter(is_similar).count() < USUAL_EVENTS;
        if is_unusual {
            self.last_alarm = row;
        }
        is_unusual
    }
}

/// A count that is kept as a number among the others.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
fn index(count: f64) -> Option<usize> {
    (0.0..1e9).contains(&count).then_some(count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60_000_000;

    /// A daily load curve with some noise, five minutes apart.
    fn load(row: i64) -> f64 {
        let noise = (row * 7_919 % 101) as f64 / 101.0;
        100.0 + 30.0 * (row as f64 / 288.0 * std::f64::consts::TAU).sin() + 4.0 * noise
    }

    #[test]
    fn a_fall_is_an_anomaly_once_and_the_daily_curve_is_none() {
        let mut detector = Detector::default();
        let mut found = Vec::new();
        for row in 0..288 * 21 {
            let value = if (5_000..5_030).contains(&row) { 5.0 } else { load(row) };
            if detector.update(row * 5 * MINUTE_US, value) >= 0.5 {
                found.push(row);
            }
        }
        assert!(found.iter().any(|row| (5_000..5_010).contains(row)), "{found:?}");
        assert!(found.len() <= 4, "{found:?}");
    }

    #[test]
    fn a_state_that_was_stored_goes_on_as_if_it_had_not_been() {
        let mut detector = Detector::default();
        for row in 0..3_000 {
            detector.update(row * 5 * MINUTE_US, load(row));
        }
        let mut numbers = Vec::new();
        detector.visit(&mut |number| numbers.push(*number));
        let mut restored = Detector::default();
        let mut stored = numbers.iter();
        restored.visit(&mut |number| *number = *stored.next().unwrap());
        assert!(stored.next().is_none());
        for row in 3_000..4_000 {
            let value = if row == 3_500 { 900.0 } else { load(row) };
            let ts_us = row * 5 * MINUTE_US;
            assert_eq!(detector.update(ts_us, value).to_bits(), restored.update(ts_us, value).to_bits(), "row {row}");
        }
        assert!(numbers.len() * 8 <= 16 << 10, "{} bytes", numbers.len() * 8);
    }

    #[test]
    fn nothing_odd_is_learned() {
        let mut detector = Detector::default();
        assert!(detector.update(0, f64::INFINITY) == 0.0 && detector.update(1, -1e200) == 0.0);
        assert_eq!(detector.rows, 0.0);
    }
}
