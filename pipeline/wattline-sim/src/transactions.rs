//! Business cases of three steps each, one after the other: bills with their payment, and claims with their approval.
//!
//! Some bills are not energy times tariff, some are paid twice, some claims are paid without their final approval.
//! The amounts are computed here in integers, so that a bill meant to be right is right to the cent.

use crate::START_MS;
use crate::generator::Subject;
use crate::random::{Random, mix};
use crate::reference::{PRICE_TEN_THOUSANDTHS, TIER_KWH};
use crate::text::{digits, number_field, text_field};

const INTERVAL_MS: u64 = 7_000;
const STEPS: u64 = 3;

/// A number of steps of business cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transactions {
    /// Number of steps of all cases together.
    pub steps: u64,
}

impl Transactions {
    fn write_id(case: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(if is_bill(case) { b"B-" } else { b"D-" });
        digits(out, case, 7);
    }
}

fn is_bill(case: u64) -> bool {
    case.is_multiple_of(2)
}

impl Subject for Transactions {
    const TIME_FIELD: &'static str = "event_ts";

    fn records(&self) -> u64 {
        self.steps
    }

    fn nominal_ms(&self, n: u64) -> i64 {
        START_MS + (n * INTERVAL_MS).cast_signed()
    }

    fn write_key(&self, n: u64, out: &mut Vec<u8>) {
        Self::write_id(n / STEPS, out);
    }

    fn write_fields(&self, n: u64, _time_ms: i64, _random: &mut Random, out: &mut Vec<u8>) {
        let (case, step) = (n / STEPS, n % STEPS);
        out.extend_from_slice(b"{\"case_id\":\"");
        Self::write_id(case, out);
        out.push(b'"');
        if is_bill(case) {
            write_bill_step(case, step, out);
        } else {
            write_claim_step(case, step, out);
        }
        number_field(out, "seq_no", step.cast_signed(), 0);
    }

    fn number_field(&self) -> &'static str {
        "t1_kwh"
    }
}

fn write_bill_step(case: u64, step: u64, out: &mut Vec<u8>) {
    let kwh_ten_thousandths = (mix(case) % 6_000_000).cast_signed();
    let wrong_cents = if mix(case).is_multiple_of(40) { 251 } else { 0 };
    let paid_twice = mix(case).is_multiple_of(50);
    let (process, name): (&[u8], &[u8]) = match step {
        0 => (b"billing", b"bill_issued"),
        1 => (b"payment", b"payment_received"),
        _ if paid_twice => (b"payment", b"payment_received"),
        _ => (b"billing", b"bill_closed"),
    };
    text_field(out, "process_type", process);
    text_field(out, "step", name);
    out.extend_from_slice(b",\"bill_id\":\"");
    Transactions::write_id(case, out);
    out.push(b'"');
    text_field(out, "tariff_id", b"residential");
    if step == 0 {
        number_field(out, "kwh", kwh_ten_thousandths, 4);
    } else {
        out.extend_from_slice(b",\"payment_id\":\"P-");
        digits(out, case * STEPS + step, 8);
        out.push(b'"');
    }
    number_field(out, "amount", amount_cents(kwh_ten_thousandths) - wrong_cents, 2);
}

/// Energy times tariff, rounded half up to a cent once at the end; both factors have four digits after the point.
fn amount_cents(kwh_ten_thousandths: i64) -> i64 {
    let [tier1, tier2] = TIER_KWH.map(|kwh| kwh * 10_000);
    let [price1, price2, price3] = PRICE_TEN_THOUSANDTHS;
    let exact = kwh_ten_thousandths.min(tier1) * price1
        + (kwh_ten_thousandths.min(tier2) - tier1).max(0) * price2
        + (kwh_ten_thousandths - tier2).max(0) * price3;
    (exact + 500_000) / 1_000_000
}

fn write_claim_step(case: u64, step: u64, out: &mut Vec<u8>) {
    let skipped = mix(case).is_multiple_of(33);
    let name: &[u8] = match step {
        0 => b"Declaration SUBMITTED by EMPLOYEE",
        1 if skipped => b"Declaration APPROVED by ADMINISTRATION",
        1 => b"Declaration FINAL_APPROVED by SUPERVISOR",
        _ => b"Payment Handled",
    };
    text_field(out, "process_type", b"domestic");
    text_field(out, "step", name);
    number_field(out, "amount", (mix(case) % 100_000).cast_signed(), 2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_follow_the_tiers() {
        assert_eq!(amount_cents(2_100_000), 11_094); // 210 kWh * 0.5283 = 110.943
        assert_eq!(amount_cents(4_000_000), 22_082); // + 190 kWh * 0.5783 = 220.820
        assert_eq!(amount_cents(4_100_000), 22_910); // + 10 kWh * 0.8283 = 229.103
    }
}
