//! Metrics of terminals and servers: one temperature a minute from each, and how many readings it collected.
//!
//! The temperature leaves its limits now and then for single samples; some devices collect too little.

use crate::START_MS;
use crate::generator::Subject;
use crate::random::{Random, mix};
use crate::text::{digits, number_field, text_field};

const INTERVAL_MS: u64 = 60_000;

/// A number of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// Number of devices, at least 1.
    pub devices: u64,
    /// Number of samples of all devices together.
    pub samples: u64,
}

impl Devices {
    /// Appends the id of a device.
    pub(crate) fn write_id(device: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"terminal-");
        digits(out, device, 5);
    }
}

impl Subject for Devices {
    const TIME_FIELD: &'static str = "ts";

    fn records(&self) -> u64 {
        self.samples
    }

    fn nominal_ms(&self, n: u64) -> i64 {
        let (round, device) = (n / self.devices, n % self.devices);
        START_MS + (round * INTERVAL_MS + device * INTERVAL_MS / self.devices).cast_signed()
    }

    fn write_key(&self, n: u64, out: &mut Vec<u8>) {
        Self::write_id(n % self.devices, out);
    }

    fn write_fields(&self, n: u64, _time_ms: i64, random: &mut Random, out: &mut Vec<u8>) {
        let device = n % self.devices;
        out.extend_from_slice(b"{\"device_id\":\"");
        Self::write_id(device, out);
        out.push(b'"');
        text_field(out, "metric_name", b"temperature");
        let high = random.chance(1, 100);
        number_field(out, "value", if high { 8_300 } else { 4_000 } + random.between(-500, 500), 2);
        text_field(out, "unit", b"Cel");
        text_field(out, "device_type", b"terminal");
        number_field(out, "collect_expected", 100, 0);
        number_field(out, "collect_ok", if mix(device).is_multiple_of(20) { 97 } else { 100 }, 0);
    }

    fn number_field(&self) -> &'static str {
        "cpu_pct"
    }
}
