//! The job of which the recovery is measured: windows of a hundred years and a row of each tenth device, which it keeps for ever, and
//! beside them an alert for each second of event time.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::producer::BaseRecord;

use crate::hand_over::send;
use crate::kafka_broker::TestBroker;
use crate::steady::{self, Kind, Sent};

pub(crate) const TABLE: &str = "events";
pub(crate) const TOPIC: &str = "recovery-events";
pub(crate) const PARTITIONS: i32 = 4;

const SERVE_EVERY: u64 = 4_096;

const SCHEMA: &str = r#"{"type":"record","name":"events","event_time":"at","key":["device"],"fields":[
    {"name":"device","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"a","type":"double"},
    {"name":"b","type":"double"}]}"#;

/// Id, header and query of each rule.
const RULES: [(&str, &str, &str); 3] = [
    (
        "totals",
        "kind = \"table\"",
        "SELECT device, window_start, window_end, count(*) AS events,
    sum(a) AS a_sum, min(a) AS a_min, max(a) AS a_max, stddev_pop(a) AS a_deviation,
    sum(b) AS b_sum, min(b) AS b_min, max(b) AS b_max, stddev_pop(b) AS b_deviation
FROM TUMBLE(events, at, INTERVAL '36500 days') GROUP BY device, window_start, window_end",
    ),
    (
        "steps",
        "kind = \"table\"",
        "SELECT device, at, step FROM (
    SELECT device, at, a - lag(a) OVER (PARTITION BY device ORDER BY at) AS step FROM events WHERE device LIKE '%0'
) s WHERE step > 0.99",
    ),
    (
        "pulse",
        "kind = \"alert\"\nentity = \"what\"",
        "SELECT 'all' AS what, window_start, window_end, count(*) AS measured
FROM TUMBLE(events, at, INTERVAL '1 second') GROUP BY window_start, window_end",
    ),
];

/// What differs between the parts.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) job: &'a str,
    pub(crate) bootstrap: &'a str,
    pub(crate) alerts: &'a str,
    pub(crate) slots: usize,
    pub(crate) memory_gb: u64,
    /// Lines of `[kafka.properties]`.
    pub(crate) properties: &'a str,
}

pub(crate) fn write(folder: &Path, setup: &Setup<'_>) -> Result<()> {
    fs::write(folder.join("events.avsc"), SCHEMA)?;
    fs::create_dir(folder.join("sql"))?;
    for (id, header, query) in RULES {
        let text = format!("/*---\nid = \"{id}\"\n{header}\n---*/\n{query}\n");
        fs::write(folder.join(format!("sql/{id}.sql")), text)?;
    }
    let Setup { job, bootstrap, alerts, slots, memory_gb, properties } = setup;
    let config = format!(
        "job = \"{job}\"
[run]
slots = {slots}
memory = \"{memory_gb} GB\"
scratch = \".\"
manifest_retention = \"5 minutes\"
[kafka]
bootstrap_servers = \"{bootstrap}\"
[kafka.properties]
{properties}
[streams.{TABLE}]
schema = \"events.avsc\"
topic = \"{TOPIC}\"
delay = \"1 second\"
[rules]
paths = [\"sql\"]
[archive]
url = \"archive\"
[alerts]
topic = \"{alerts}\"
"
    );
    fs::write(folder.join("wattline.toml"), config).context("cannot write the configuration")
}

/// Sends one event of each of these devices, as fast as the broker takes them.
pub(crate) fn burst(broker: &TestBroker, devices: Range<u64>) -> Result<Sent> {
    let producer = steady::connect(broker)?;
    let mut sent = Sent::default();
    let mut payload = String::new();
    let mut now_ms = 0;
    for device in devices {
        if sent.records % SERVE_EVERY == 0 {
            producer.poll(Duration::ZERO);
            now_ms = steady::now_ms()?;
        }
        payload.clear();
        let partition = event(device, device, now_ms, &mut payload);
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(TOPIC).partition(partition);
        send(&producer, record.payload(payload.as_bytes()))?;
        sent.count(Kind::OnTime);
    }
    steady::flush(&producer)?;
    Ok(sent)
}

/// Writes an event of any of so many devices; gives its partition.
pub(crate) fn any_event(number: u64, devices: u64, now_ms: u64, text: &mut String) -> (i32, Kind) {
    (event(mixed(number) % devices.max(1), number, now_ms, text), Kind::OnTime)
}

fn event(device: u64, number: u64, now_ms: u64, text: &mut String) -> i32 {
    let fraction = |seed: u64| (mixed(seed) >> 11) as f64 / (1_u64 << 53) as f64;
    let (a, b) = (fraction(number ^ 0xA5A5), fraction(number ^ 0x5A5A_0000));
    text.push_str(&format!("{{\"device\":\"D{device:09}\",\"at\":{now_ms},\"a\":{a},\"b\":{b}}}"));
    i32::try_from(device % u64::from(PARTITIONS.unsigned_abs())).unwrap_or_default()
}

/// A number that has nothing to do with the one it is made of (splitmix64), so that nothing of the state can be packed.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
