//! `holt_winters(x, ts, alpha, beta, gamma, season_hours, slot_minutes)`: what level, trend and season so far forecast for this value
//! (Holt 1957, Winters 1960; additive).
//!
//! ```text
//! forecast = level + h · trend + season[slot]              h: slots since the value before, at least 1
//! level'   = alpha (x − season[slot]) + (1 − alpha) (level + h · trend)
//! trend'   = beta (level' − level) / h + (1 − beta) trend
//! season'  = gamma (x − level') + (1 − gamma) season[slot]
//! ```
//! A slot is a part of the season by the clock in UTC, so missing values shift nothing. The first season gives level and season, and has
//! no forecasts; of several values in one slot of it the last counts half. How unusual a value is, is told by its error: `ewma_z(x - forecast, 0.1)`.

use datafusion::common::exec_err;
use datafusion::error::Result;

use super::{Arguments, Kind};

const SLOTS_MAX: usize = 1_024;
const MINUTE_US: f64 = 60e6;
/// Numbers before the season: first time, last time, values of the first season, level, trend.
const HEAD: usize = 5;

struct Weights {
    alpha: f64,
    beta: f64,
    gamma: f64,
}

/// How the season is cut.
struct Cut {
    season_us: f64,
    slot_us: f64,
    slots: usize,
}

/// What is known once the first season is over.
struct State<'a> {
    level: &'a mut f64,
    trend: &'a mut f64,
    /// How far the value's slot is off the level; NaN if it never had a value.
    of_slot: &'a mut f64,
}

/// The forecast for a value, NaN if there is none; then takes the value in.
pub(super) fn step(memory: &mut Vec<f64>, x: f64, more: &Arguments) -> Result<f64> {
    let kind = Kind::HoltWinters;
    let weights = Weights { alpha: more.share(kind, 0)?, beta: more.share(kind, 1)?, gamma: more.share(kind, 2)? };
    let cut = Cut::new(more.0[3], more.0[4])?;
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 2255, and near enough after")]
    let ts_us = more.1 as f64;
    if memory.len() != HEAD + cut.slots {
        memory.clear();
        memory.extend([ts_us, ts_us, 0.0, 0.0, 0.0]);
        memory.resize(HEAD + cut.slots, f64::NAN);
    }
    let [first_us, last_us, learnt, level, trend, season @ ..] = &mut memory[..] else { return Ok(f64::NAN) };
    let slot = cut.slot(ts_us);
    if ts_us - *first_us < cut.season_us {
        *learnt += 1.0;
        *level += (x - *level) / *learnt;
        season[slot] = if season[slot].is_nan() { x } else { f64::midpoint(season[slot], x) };
        *last_us = ts_us;
        return Ok(f64::NAN);
    }
    if *learnt > 0.0 {
        *learnt = 0.0;
        season.iter_mut().for_each(|of_slot| *of_slot -= *level);
    }
    let h = ((ts_us - *last_us) / cut.slot_us).max(1.0);
    *last_us = ts_us;
    Ok(State { level, trend, of_slot: &mut season[slot] }.step(x, h, &weights))
}

impl Cut {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "in bounds"
    )]
    fn new(season_hours: f64, slot_minutes: f64) -> Result<Self> {
        let slots = season_hours * 60.0 / slot_minutes;
        if slot_minutes > 0.0 && slots >= 2.0 && slots <= SLOTS_MAX as f64 && slots.fract() == 0.0 {
            let season_us = season_hours * 60.0 * MINUTE_US;
            return Ok(Self { season_us, slot_us: slot_minutes * MINUTE_US, slots: slots as usize });
        }
        exec_err!(
            "holt_winters has a season of {season_hours} hours in slots of {slot_minutes} minutes; it can have 2 to {SLOTS_MAX} whole slots"
        )
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below the number of slots")]
    fn slot(&self, ts_us: f64) -> usize {
        ((ts_us.rem_euclid(self.season_us) / self.slot_us) as usize).min(self.slots - 1)
    }
}

impl State<'_> {
    fn step(self, x: f64, h: f64, weights: &Weights) -> f64 {
        let base = *self.level + h * *self.trend;
        if self.of_slot.is_nan() {
            *self.of_slot = x - base;
            return f64::NAN;
        }
        let forecast = base + *self.of_slot;
        let level = base + weights.alpha * (x - forecast);
        *self.trend += weights.beta * ((level - *self.level) / h - *self.trend);
        *self.level = level;
        *self.of_slot += weights.gamma * (x - level - *self.of_slot);
        forecast
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    /// Forecasts for a value an hour, in seasons of 4 hours in slots of one; `None` is no value.
    fn of(values: &[Option<f64>]) -> Vec<Option<f64>> {
        let mut memory = Memory::new(Kind::HoltWinters);
        let step = |(hour, x): (usize, &Option<f64>)| {
            let more = Arguments(vec![0.5, 0.1, 0.2, 4.0, 60.0], HOUR_US * i64::try_from(hour).unwrap());
            let forecast = Kind::HoltWinters.step(&mut memory, (*x)?, &more).unwrap();
            (!forecast.is_nan()).then(|| (forecast * 1e6).round() / 1e6)
        };
        values.iter().enumerate().map(step).collect()
    }

    #[test]
    fn forecasts_are_those_of_the_formulas() {
        // Level 10, season 0, 10, 0, -10. 12 is 2 off: level 11, trend 0.1, season 0.2 for its slot. 22 is 22 - 21.1 off: level 11.55,
        // trend 0.1 * 0.55 + 0.9 * 0.1 = 0.145, season 10.09.
        let forecasts = of(&[10.0, 20.0, 10.0, 0.0, 12.0, 22.0, 12.0].map(Some));
        assert_eq!(forecasts, [None, None, None, None, Some(10.0), Some(21.1), Some(11.695)]);
    }

    #[test]
    fn missing_values_shift_nothing() {
        let mut values: Vec<Option<f64>> = (0..40).map(|k| Some(f64::from(k % 4) * 10.0)).collect();
        (values[21], values[22]) = (None, None);
        let off = |(x, forecast): (&Option<f64>, Option<f64>)| Some((x.as_ref()? - forecast?).abs());
        let errors: Vec<f64> = values.iter().zip(of(&values)).filter_map(off).collect();
        assert_eq!(errors, [0.0; 34]);
    }

    #[test]
    fn a_slot_that_the_first_season_lacks_is_learnt_later() {
        let forecasts = of(&[
            Some(10.0),
            None,
            Some(10.0),
            Some(10.0),
            Some(10.0),
            Some(15.0),
            Some(10.0),
            Some(10.0),
            Some(10.0),
            Some(15.0),
        ]);
        assert_eq!(forecasts[4..], [Some(10.0), None, Some(10.0), Some(10.0), Some(10.0), Some(15.0)]);
    }

    #[test]
    fn a_season_has_whole_slots() {
        let more = Arguments(vec![0.5, 0.1, 0.2, 4.0, 7.0], 0);
        assert!(Kind::HoltWinters.step(&mut Memory::new(Kind::HoltWinters), 1.0, &more).is_err());
    }
}
