//! Functions that follow the values of one key in the order of time: `f(x, …) OVER (PARTITION BY meter_id ORDER BY ts)`.
//!
//! | call | gives | kept of each key |
//! |---|---|---|
//! | `ewma(x, alpha)` | the exponentially weighted mean, this value with weight `alpha`; begins with the first value | 1 number |
//! | `ewma_z(x, alpha)` | how many standard deviations the value is off the weighted mean of those before it | 3 numbers |
//! | `cusum_high(x, target, slack)`, `cusum_low(…)` | the sum of what values were above (below) `target` by more than `slack`, never below 0 (E. S. Page, 1954) | 1 number |
//! | `page_hinkley(x, slack)` | the same of what values were above their own mean so far by more than `slack` | 4 numbers |
//! | `hampel_z(x, n)` | how many robust standard deviations (1.4826 MAD) the value is off the median of the last `n`, itself among them | n numbers, at most 1,024 |
//! | `seasonal_z(x, ts, alpha)` | as `ewma_z`, against values of the same hour of the week in UTC | 504 numbers |
//! | `holt_winters(x, ts, alpha, beta, gamma, season_hours, slot_minutes)` | what level, trend and season so far forecast for the value; nothing in the first season: [`holt_winters`] | 5 numbers and one of each slot, at most 1,029 |
//! | `spectral_residual(x, n)` | how much the value stands out from what repeats in the last `n`: [`spectral_residual`] | n numbers, at most 1,024 |
//! | `anomaly_score(x, ts)` | how unusual the value is, 0 to 1, an anomaly from 0.5 on: [`anomaly`] | 1,059 numbers |
//!
//! They are aggregates whose result is that of the last value, and whose state is numbers: so a stream keeps them up as it does any
//! running aggregate. A value that is NULL, NaN or infinite has no result and changes nothing. Two states cannot be merged into one, so there is no GROUP BY
//! of them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimestampMicrosecondType};
use datafusion::common::cast::{as_binary_array, as_float64_array};
use datafusion::common::{ScalarValue, exec_err, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::catalog::event_time_type;

mod anomaly;
mod holt_winters;
mod spectral_residual;

use anomaly::Detector;

/// Values that `hampel_z` keeps at most.
const HAMPEL_MAX: usize = 1_024;
/// Makes the median of distances of a normal distribution its standard deviation.
const MAD_TO_SIGMA: f64 = 1.4826;
const HOUR_US: i64 = 3_600_000_000;
const HOURS_OF_WEEK: usize = 168;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Ewma,
    EwmaZ,
    CusumHigh,
    CusumLow,
    PageHinkley,
    HampelZ,
    SeasonalZ,
    HoltWinters,
    SpectralResidual,
    AnomalyScore,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Ewma,
        Self::EwmaZ,
        Self::CusumHigh,
        Self::CusumLow,
        Self::PageHinkley,
        Self::HampelZ,
        Self::SeasonalZ,
        Self::HoltWinters,
        Self::SpectralResidual,
        Self::AnomalyScore,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ewma => "ewma",
            Self::EwmaZ => "ewma_z",
            Self::CusumHigh => "cusum_high",
            Self::CusumLow => "cusum_low",
            Self::PageHinkley => "page_hinkley",
            Self::HampelZ => "hampel_z",
            Self::SeasonalZ => "seasonal_z",
            Self::HoltWinters => "holt_winters",
            Self::SpectralResidual => "spectral_residual",
            Self::AnomalyScore => "anomaly_score",
        }
    }

    fn arguments(self) -> Vec<DataType> {
        let float = DataType::Float64;
        match self {
            Self::Ewma | Self::EwmaZ | Self::PageHinkley | Self::HampelZ | Self::SpectralResidual => vec![float; 2],
            Self::CusumHigh | Self::CusumLow => vec![float; 3],
            Self::SeasonalZ => vec![float.clone(), event_time_type(), float],
            Self::HoltWinters => [vec![float.clone(), event_time_type()], vec![float; 5]].concat(),
            Self::AnomalyScore => vec![float, event_time_type()],
        }
    }

    /// Takes in a value and gives its result, NaN for none; `memory` is empty before the first one.
    fn step(self, memory: &mut Memory, x: f64, more: &Arguments) -> Result<f64> {
        let memory = match memory {
            Memory::Numbers(numbers) => numbers,
            Memory::Detector(detector) => return Ok(detector.update(more.1, x)),
        };
        match self {
            Self::Ewma => {
                let alpha = more.share(self, 0)?;
                match memory.first_mut() {
                    Some(mean) => *mean += alpha * (x - *mean),
                    None => memory.push(x),
                }
                Ok(memory[0])
            }
            Self::EwmaZ => {
                let alpha = more.share(self, 0)?;
                memory.resize(Weighted::NUMBERS, 0.0);
                Ok(Weighted(memory).z(x, alpha))
            }
            Self::CusumHigh => cusum(memory, x - more.0[0] - more.0[1]),
            Self::CusumLow => cusum(memory, more.0[0] - x - more.0[1]),
            Self::PageHinkley => {
                memory.resize(4, 0.0);
                let [count, mean, sum, lowest] = &mut memory[..] else { return Ok(0.0) };
                *count += 1.0;
                *mean += (x - *mean) / *count;
                *sum += x - *mean - more.0[0];
                *lowest = lowest.min(*sum);
                Ok(*sum - *lowest)
            }
            Self::HampelZ => hampel_z(memory, x, more.count(self, 1, HAMPEL_MAX)?),
            Self::SeasonalZ => {
                let alpha = more.share(self, 0)?;
                memory.resize(HOURS_OF_WEEK * Weighted::NUMBERS, 0.0);
                let slot = more.hour_of_week() * Weighted::NUMBERS;
                Ok(Weighted(&mut memory[slot..slot + Weighted::NUMBERS]).z(x, alpha))
            }
            Self::HoltWinters => holt_winters::step(memory, x, more),
            Self::SpectralResidual => spectral_residual::step(memory, x, more),
            Self::AnomalyScore => Err(internal_datafusion_err!("the memory of anomaly_score is a detector")),
        }
    }
}

/// What is kept of a key.
#[derive(Debug)]
enum Memory {
    Numbers(Vec<f64>),
    Detector(Box<Detector>),
}

impl Memory {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::AnomalyScore => Self::Detector(Box::default()),
            _ => Self::Numbers(Vec::new()),
        }
    }

    fn numbers(&mut self) -> Vec<f64> {
        match self {
            Self::Numbers(numbers) => numbers.clone(),
            Self::Detector(detector) => {
                let mut numbers = Vec::new();
                detector.visit(&mut |number| numbers.push(*number));
                numbers
            }
        }
    }

    fn set(&mut self, stored: Vec<f64>) {
        match self {
            Self::Numbers(numbers) => *numbers = stored,
            Self::Detector(detector) => {
                let mut stored = stored.into_iter();
                detector.visit(&mut |number| *number = stored.next().unwrap_or_default());
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.capacity() * size_of::<f64>(),
            Self::Detector(_) => size_of::<Detector>(),
        }
    }
}

/// The names of all functions of this kind.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    Kind::ALL.into_iter().map(Kind::name)
}

/// The arguments behind the value: numbers, and the time if there is one.
struct Arguments(Vec<f64>, i64);

impl Arguments {
    fn share(&self, kind: Kind, at: usize) -> Result<f64> {
        match self.0[at] {
            alpha if alpha > 0.0 && alpha <= 1.0 => Ok(alpha),
            alpha => exec_err!("the weight of {} is {alpha}; it is above 0 and at most 1", kind.name()),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "in bounds"
    )]
    fn count(&self, kind: Kind, min: usize, max: usize) -> Result<usize> {
        match self.0[0] {
            count if count >= min as f64 && count <= max as f64 => Ok(count as usize),
            count => exec_err!("{} is of {count} values; it can be of {min} to {max}", kind.name()),
        }
    }

    fn hour_of_week(&self) -> usize {
        let hour = self.1.div_euclid(HOUR_US).rem_euclid(HOURS_OF_WEEK as i64);
        usize::try_from(hour).unwrap_or_default()
    }
}

/// Exponentially weighted mean and variance, behind whether there are any.
struct Weighted<'a>(&'a mut [f64]);

impl Weighted<'_> {
    const NUMBERS: usize = 3;

    /// The distance from the mean so far in standard deviations so far, 0 where there are none; then takes the value in.
    fn z(self, x: f64, alpha: f64) -> f64 {
        let [known, mean, variance] = self.0 else { return 0.0 };
        if *known == 0.0 {
            (*known, *mean) = (1.0, x);
            return 0.0;
        }
        let d = x - *mean;
        let z = if *variance > 0.0 { d / variance.sqrt() } else { 0.0 };
        *mean += alpha * d;
        *variance = (1.0 - alpha) * (*variance + alpha * d * d);
        z
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the other steps")]
fn cusum(memory: &mut Vec<f64>, excess: f64) -> Result<f64> {
    memory.resize(1, 0.0);
    memory[0] = (memory[0] + excess).max(0.0);
    Ok(memory[0])
}

#[expect(clippy::unnecessary_wraps, reason = "as the other steps")]
fn hampel_z(memory: &mut Vec<f64>, x: f64, count: usize) -> Result<f64> {
    memory.push(x);
    let more = memory.len().saturating_sub(count);
    memory.drain(..more);
    let mut values = memory.clone();
    let middle = median(&mut values);
    values.iter_mut().for_each(|value| *value = (*value - middle).abs());
    let sigma = MAD_TO_SIGMA * median(&mut values);
    Ok(if sigma > 0.0 { (x - middle) / sigma } else { 0.0 })
}

/// The median of at least one value.
fn median(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let is_odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp);
    match lower {
        Some(lower) if !is_odd => f64::midpoint(lower, *upper),
        _ => *upper,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Running {
    kind: Kind,
    signature: Signature,
}

pub(super) fn all() -> impl Iterator<Item = Running> {
    Kind::ALL
        .into_iter()
        .map(|kind| Running { kind, signature: Signature::exact(kind.arguments(), Volatility::Immutable) })
}

impl AggregateUDFImpl for Running {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        super::refuse_distinct(self.name(), &args)?;
        Ok(Box::new(State { kind: self.kind, memory: Memory::new(self.kind), is_new: true, value: None }))
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Field::new("memory", DataType::Binary, true).into()])
    }
}

#[derive(Debug)]
struct State {
    kind: Kind,
    memory: Memory,
    /// Whether no value was taken in.
    is_new: bool,
    value: Option<f64>,
}

impl Accumulator for State {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let values = as_float64_array(&columns[0])?;
        for row in 0..values.len() {
            self.value = None;
            let x = values.value(row);
            if values.is_null(row) || !x.is_finite() {
                continue;
            }
            let mut more = Arguments(Vec::with_capacity(2), 0);
            for column in &columns[1..] {
                if column.is_null(row) {
                    return exec_err!("an argument of {} beside its value is NULL", self.kind.name());
                }
                match column.as_primitive_opt::<TimestampMicrosecondType>() {
                    Some(times) => more.1 = times.value(row),
                    None => more.0.push(as_float64_array(column)?.value(row)),
                }
            }
            self.is_new = false;
            self.value = Some(self.kind.step(&mut self.memory, x, &more)?).filter(|result| !result.is_nan());
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in as_binary_array(&states[0])?.iter().flatten().filter(|state| !state.is_empty()) {
            if !self.is_new {
                return exec_err!("{} follows rows in order, and two of its states are not one", self.kind.name());
            }
            let (numbers, rest) = state.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(internal_datafusion_err!("a state of {} is no list of numbers", self.kind.name()));
            }
            self.memory.set(numbers.iter().map(|number| f64::from_le_bytes(*number)).collect());
            self.is_new = false;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let numbers = if self.is_new { Vec::new() } else { self.memory.numbers() };
        Ok(vec![ScalarValue::Binary(Some(numbers.iter().flat_map(|number| number.to_le_bytes()).collect()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.memory.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To six decimals.
    fn of(kind: Kind, values: &[f64], more: &[f64]) -> Vec<f64> {
        let mut memory = Memory::new(kind);
        let more = Arguments(more.to_vec(), 0);
        let step = |x: &f64| (kind.step(&mut memory, *x, &more).unwrap() * 1e6).round() / 1e6;
        values.iter().map(step).collect()
    }

    #[test]
    fn values_are_weighed_by_age() {
        assert_eq!(of(Kind::Ewma, &[10.0, 20.0, 10.0], &[0.5]), [10.0, 15.0, 12.5]);
        let z = of(Kind::EwmaZ, &[10.0, 10.5, 9.8, 10.1, 10.4, 16.0], &[0.2]);
        assert_eq!(z, [0.0, 0.0, -1.5, 0.278543, 1.792386, 26.412523]);
        assert!(Kind::Ewma.step(&mut Memory::new(Kind::Ewma), 1.0, &Arguments(vec![1.5], 0)).is_err());
    }

    #[test]
    fn small_excesses_add_up() {
        let values = [10.0, 11.0, 12.0, 11.5, 12.2, 13.0, 12.5];
        assert_eq!(of(Kind::CusumHigh, &values, &[10.0, 0.5]), [0.0, 0.5, 2.0, 3.0, 4.7, 7.2, 9.2]);
        assert_eq!(of(Kind::CusumLow, &values, &[12.0, 0.5]), [1.5, 2.0, 1.5, 1.5, 0.8, 0.0, 0.0]);
        // Means 1, 1, 2; sums -0.5, -1, 1.5 - ... above their lowest.
        assert_eq!(of(Kind::PageHinkley, &[1.0, 1.0, 4.0], &[0.5]), [0.0, 0.0, 1.5]);
    }

    #[test]
    fn one_value_does_not_move_the_median() {
        let values = [5.1, 5.0, 5.3, 4.9, 5.2, 5.1, 5.0, 5.2, 12.4];
        assert_eq!(of(Kind::HampelZ, &values, &[9.0])[8], 49.237825);
        assert_eq!(of(Kind::HampelZ, &[1.0, 1.0, 9.0], &[2.0])[2], 0.674491);
    }

    #[test]
    fn hours_of_the_week_are_apart() {
        let mut memory = Memory::new(Kind::SeasonalZ);
        let mut z =
            |hour: i64, x: f64| Kind::SeasonalZ.step(&mut memory, x, &Arguments(vec![0.5], hour * HOUR_US)).unwrap();
        assert_eq!([z(1, 10.0), z(2, 90.0), z(169, 12.0)], [0.0; 3]);
        assert_eq!(z(1 + 2 * 168, 13.0), 2.0, "mean 11, variance 1");
        assert_eq!(z(-166, 92.0), 0.0, "before 1970 too");
    }
}
