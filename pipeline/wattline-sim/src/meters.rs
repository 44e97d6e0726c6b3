//! Readings of a fleet of meters, one a minute from each, spread evenly over the minute.
//!
//! Three phases at 220 V. In a few percent of the 10-minute windows a meter stands outside +7 / -10 %, in some of
//! them beyond +15 / -20 %; which windows is a function of meter and time alone, so an out-of-order reading tells
//! the same story as the readings around it. A few meters lose a phase now and then, or report what cannot be.

use crate::START_MS;
use crate::generator::Subject;
use crate::random::{Random, mix};
use crate::text::{digits, number_field};

const INTERVAL_MS: u64 = 60_000;
const WINDOW_MS: i64 = 600_000;
const NOMINAL_MV: i64 = 220_000;
/// Share of the windows outside the limits, per 1,000.
const OUTSIDE_PER_MILLE: u64 = 30;
/// Every so many meters is a monitor that also reports the angles of its phasors.
const MONITOR_EVERY: u64 = 64;

/// A fleet of meters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meters {
    /// Number of meters, at least 1.
    pub meters: u64,
    /// Number of readings of all meters together.
    pub readings: u64,
}

impl Meters {
    /// Appends the id of a meter.
    pub(crate) fn write_id(meter: u64, out: &mut Vec<u8>) {
        out.push(b'M');
        digits(out, meter, 7);
    }

    /// How far the supply of a meter lies from nominal in the window of an instant, in millivolts.
    fn shift_mv(meter: u64, time_ms: i64) -> i64 {
        let window = time_ms.div_euclid(WINDOW_MS).unsigned_abs();
        let draw = mix(meter.wrapping_mul(0x1_0000_0001).wrapping_add(window << 20));
        if draw % 1_000 >= OUTSIDE_PER_MILLE {
            return 2_000;
        }
        match (draw >> 32) % 4 {
            0 => 36_000,
            1 => -27_000,
            _ => 19_000,
        }
    }
}

impl Subject for Meters {
    const TIME_FIELD: &'static str = "ts";

    fn records(&self) -> u64 {
        self.readings
    }

    fn nominal_ms(&self, n: u64) -> i64 {
        let (round, meter) = (n / self.meters, n % self.meters);
        START_MS + (round * INTERVAL_MS + meter * INTERVAL_MS / self.meters).cast_signed()
    }

    fn write_key(&self, n: u64, out: &mut Vec<u8>) {
        Self::write_id(n % self.meters, out);
    }

    fn write_fields(&self, n: u64, time_ms: i64, random: &mut Random, out: &mut Vec<u8>) {
        let (round, meter) = (n / self.meters, n % self.meters);
        let noise = random.next_u64();
        let wobble = |shift: u32, width: i64| ((noise >> shift) & 0xff).cast_signed() * width / 256 - width / 2;
        let supply_mv = NOMINAL_MV + Self::shift_mv(meter, time_ms);
        let current_ma = 6_000 + (mix(meter) % 4_000).cast_signed();
        out.extend_from_slice(b"{\"meter_id\":\"");
        Self::write_id(meter, out);
        out.extend_from_slice(b"\",\"interval_s\":60");
        number_field(out, "u_a_v", supply_mv + wobble(0, 3_000), 3);
        if meter % 500 != 7 || !noise.is_multiple_of(10) {
            number_field(out, "u_b_v", supply_mv + wobble(8, 3_000), 3);
        }
        number_field(out, "u_c_v", supply_mv + wobble(16, 3_000), 3);
        let heavy_ma = if mix(meter).is_multiple_of(50) { 3_000 } else { 0 };
        number_field(out, "i_a_a", current_ma + heavy_ma + wobble(24, 400), 3);
        number_field(out, "i_b_a", current_ma + wobble(32, 400), 3);
        number_field(out, "i_c_a", current_ma + wobble(40, 400), 3);
        number_field(out, "p_kw", supply_mv * current_ma / 1_000_000 * 3 * 95 / 100, 3);
        number_field(out, "q_kvar", supply_mv * current_ma / 1_000_000 * 3 * 31 / 100, 3);
        number_field(out, "pf", if noise.is_multiple_of(20_011) { 1_020 } else { 951 }, 3);
        number_field(out, "freq_hz", 50_000 + wobble(48, 60), 3);
        number_field(out, "energy_imp_kwh", 10_000_000 + (meter * 977 % 5_000_000 + round * 650).cast_signed(), 4);
        if meter.is_multiple_of(MONITOR_EVERY) {
            number_field(out, "ua_deg", 0, 2);
            number_field(out, "ub_deg", -12_000 + wobble(4, 400), 2);
            number_field(out, "uc_deg", 12_000 + wobble(12, 400), 2);
        }
    }

    fn number_field(&self) -> &'static str {
        "q_a_kvar"
    }
}
