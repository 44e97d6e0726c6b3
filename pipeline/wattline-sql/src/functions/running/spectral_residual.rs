//! `spectral_residual(x, n)`: how much the newest value stands out from what repeats in the last `n` (H. Ren et al., "Time-series anomaly
//! detection service at Microsoft", KDD 2019).
//!
//! ```text
//! last n − 5 values, 5 extrapolated ─FFT─▶ ln amplitude − its mean of 3 neighbours, phase kept ─inverse─▶ |saliency|
//! result = (saliency of the newest − mean of the 21 before) / that mean
//! ```
//! The published threshold is 3. What follows the newest is extrapolated from those before it, since the transform takes both ends for neighbours.
//! 0 until there are `n − 5` values, and while they are all the same.

use std::cell::RefCell;

use datafusion::error::Result;
use rustfft::FftPlannerScalar;
use rustfft::num_complex::Complex64;

use super::{Arguments, Kind};

const N_MIN: usize = 32;
const N_MAX: usize = 1_024;
const EXTRAPOLATED: usize = 5;
/// Values whose slopes to the one before the newest are extrapolated.
const SLOPES: usize = 5;
const COMPARED: usize = 21;

thread_local! {
    /// Without vector instructions, whose use differs between machines.
    static PLANNER: RefCell<FftPlannerScalar<f64>> = RefCell::new(FftPlannerScalar::new());
}

pub(super) fn step(memory: &mut Vec<f64>, x: f64, more: &Arguments) -> Result<f64> {
    let n = more.count(Kind::SpectralResidual, N_MIN, N_MAX)?;
    memory.push(x);
    let surplus = memory.len().saturating_sub(n - EXTRAPOLATED);
    memory.drain(..surplus);
    let is_flat = memory.iter().all(|value| *value == memory[0]);
    if memory.len() < n - EXTRAPOLATED || is_flat {
        return Ok(0.0);
    }
    let saliency = saliency(memory);
    let newest = memory.len() - 1;
    let before = &saliency[newest - COMPARED..newest];
    let mean = before.iter().sum::<f64>() / COMPARED as f64;
    Ok(if mean > 0.0 { (saliency[newest] - mean) / mean } else { 0.0 })
}

/// Of each value, and of those extrapolated.
fn saliency(values: &[f64]) -> Vec<f64> {
    let last = values.len() - 2;
    let slope = |back: usize| (values[last] - values[last - back]) / back as f64;
    let mean_slope = (1..=SLOPES).map(slope).sum::<f64>() / SLOPES as f64;
    let next = values[last + 1 - SLOPES] + mean_slope * SLOPES as f64;
    let mut wave: Vec<Complex64> =
        values.iter().copied().chain([next; EXTRAPOLATED]).map(|value| Complex64::new(value, 0.0)).collect();
    let n = wave.len();
    PLANNER.with_borrow_mut(|planner| planner.plan_fft_forward(n)).process(&mut wave);
    let logs: Vec<f64> = wave.iter().map(|of| (of.norm() + f64::EPSILON).ln()).collect();
    for (k, of) in wave.iter_mut().enumerate() {
        let mean = (logs[(k + n - 1) % n] + logs[k] + logs[(k + 1) % n]) / 3.0;
        *of = Complex64::from_polar((logs[k] - mean).exp(), of.arg());
    }
    PLANNER.with_borrow_mut(|planner| planner.plan_fft_inverse(n)).process(&mut wave);
    wave.iter().map(|of| of.norm() / n as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>, n: f64) -> Vec<f64> {
        let mut memory = Memory::new(Kind::SpectralResidual);
        let more = Arguments(vec![n], 0);
        values.into_iter().map(|x| Kind::SpectralResidual.step(&mut memory, x, &more).unwrap()).collect()
    }

    /// A wave of 12 values, 10 high, and what looks like noise.
    fn wave(k: usize) -> f64 {
        50.0 + 10.0 * (k as f64 * std::f64::consts::TAU / 12.0).sin() + ((k * 5) % 7) as f64 / 5.0
    }

    #[test]
    fn a_spike_within_the_range_of_a_wave_stands_out() {
        let usual = of((0..153).map(wave), 128.0);
        assert_eq!(usual[..122], [0.0; 122]);
        assert!(usual.iter().all(|score| *score < 3.0), "{usual:?}");
        // At the foot of the wave, where no limit would see it.
        let spike = of((0..154).map(|k| if k == 153 { wave(k) + 12.0 } else { wave(k) }), 128.0)[153];
        assert!(spike > 3.0, "{spike}");
    }

    #[test]
    fn nothing_is_said_of_what_never_changes() {
        assert_eq!(of([7.0; 100], 32.0), [0.0; 100]);
        let more = Arguments(vec![8.0], 0);
        assert!(Kind::SpectralResidual.step(&mut Memory::new(Kind::SpectralResidual), 1.0, &more).is_err());
    }
}
