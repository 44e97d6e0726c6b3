//! The reference tables of the made-up grid, as CSV text.
//!
//! One meter in a thousand is not in the registry, and one in a thousand is only from the tenth minute on: joins
//! that honour `valid_from` tell them apart.

use std::fmt::Write as _;

use crate::devices::Devices;
use crate::meters::Meters;

/// Monthly tiers of the tariff, in kilowatt hours.
pub const TIER_KWH: [i64; 2] = [210, 400];
/// Prices of the three tiers, in ten-thousandths of a yuan.
pub const PRICE_TEN_THOUSANDTHS: [i64; 3] = [5_283, 5_783, 8_283];

const FROM: &str = "2020-01-01T00:00:00Z";
/// Ten minutes after [`crate::START_MS`].
const FROM_TENTH_MINUTE: &str = "2026-03-01T16:10:00Z";
const SPECIAL_EVERY: u64 = 1_000;

/// The registry of a fleet.
#[must_use]
pub fn meters_csv(fleet: &Meters) -> String {
    let mut out =
        "meter_id,customer_id,phases,transformer,feeder,kind,rated_v,nominal_v,valid_from,valid_to\n".to_owned();
    for meter in 0..fleet.meters {
        let from = match meter % SPECIAL_EVERY {
            999 => continue,
            998 => FROM_TENTH_MINUTE,
            _ => FROM,
        };
        let id = text(|out| Meters::write_id(meter, out));
        let (transformer, feeder) = (meter / 200, meter / 2_000);
        push(&mut out, format_args!("{id},C{meter},abc,TR{transformer},F{feeder},customer,220,220,{from},\n"));
    }
    out
}

/// The registry of devices.
#[must_use]
pub fn devices_csv(devices: &Devices) -> String {
    let mut out = "device_id,device_type,step_s,valid_from,valid_to\n".to_owned();
    for device in 0..devices.devices {
        let id = text(|out| Devices::write_id(device, out));
        push(&mut out, format_args!("{id},terminal,60,{FROM},\n"));
    }
    out
}

/// The limits of the devices.
#[must_use]
pub fn device_limits_csv(devices: &Devices) -> String {
    let mut out = "device_id,metric_name,limit_low,limit_high,unit,valid_from,valid_to\n".to_owned();
    for device in 0..devices.devices {
        let id = text(|out| Devices::write_id(device, out));
        push(&mut out, format_args!("{id},temperature,,75,Cel,{FROM},\n"));
    }
    out
}

/// The tariff.
#[must_use]
pub fn tariffs_csv() -> String {
    let [tier1, tier2] = TIER_KWH;
    let [price1, price2, price3] = PRICE_TEN_THOUSANDTHS.map(|price| format!("0.{price:04}"));
    format!(
        "tariff_id,tier1_kwh,tier2_kwh,price1,price2,price3,valid_from,valid_to\n\
         residential,{tier1},{tier2},{price1},{price2},{price3},{FROM},\n"
    )
}

fn text(write: impl Fn(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn push(out: &mut String, row: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(row).unwrap_or_default();
}
