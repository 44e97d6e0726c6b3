//! What reading JSON and Avro costs: rows per second of processor time, next to `arrow-json`.
//!
//! Measured are readings of 14 members, as the fleet of `wattline-sim` writes them and written in other ways; the candidates take
//! turns, round after round, in one process and one thread, so that whatever slows the machine slows all of them. A ratio is taken
//! within a round, and the median over the rounds is reported. Before a time counts, every value of every candidate is compared with
//! what `arrow-json` reads.
//!
//! The schema has the 14 fields of the reading. With `shipped schema` it is the whole of `schemas/meter_readings.avsc`, as in a
//! job: the fields that a reading does not have cost an array of nulls for each block.

#![allow(unsafe_code, reason = "the standard library has no processor time")]

mod avro;
#[path = "../../../../benches/e2e/machine.rs"]
mod machine;
mod payloads;
mod peer;
#[path = "../../../../tests/it/tree.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod tree;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use serde_json::{Value, json};
use wattline_decode::{JsonDecoder, Limits, Mapping, StreamSchema};

use crate::payloads::{Block, Writing};

const USAGE: &str = "options: --readings N, --rounds N, --only TEXT (in the name), --out FILE";
const SHIPPED: &str = include_str!("../../../../schemas/meter_readings.avsc");
/// What ratios are taken of.
const PEER: &str = "arrow-json, concatenated";
/// Ends the names of candidates that read into all columns of the shipped schema.
const SHIPPED_SCHEMA: &str = "shipped schema";
const FIELDS: [&str; 14] = [
    "meter_id",
    "ts",
    "interval_s",
    "u_a_v",
    "u_b_v",
    "u_c_v",
    "i_a_a",
    "i_b_a",
    "i_c_a",
    "p_kw",
    "q_kvar",
    "pf",
    "freq_hz",
    "energy_imp_kwh",
];

struct Settings {
    readings: u64,
    rounds: usize,
    only: Option<String>,
    out: Option<PathBuf>,
}

/// Something that is measured: all blocks once, each into a batch.
struct Candidate<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Result<Vec<RecordBatch>> + 'a>,
    /// Nanoseconds of processor time for each row, by round.
    ns: Vec<f64>,
}

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    let narrow_text = narrow_schema()?;
    let narrow = Arc::new(parse(&narrow_text)?);
    let shipped = Arc::new(parse(SHIPPED)?);
    let blocks = |writing| payloads::blocks(settings.readings, writing);
    let as_is = blocks(Writing::AsIs)?;
    let expected = read_by_peer(&narrow, &as_is)?;
    let writings = [
        ("wattline", Writing::AsIs, ""),
        ("wattline, spaces", Writing::Spaced, ""),
        ("wattline, shuffled fields", Writing::Shuffled, ""),
        ("wattline, unknown fields", Writing::Unknown, ""),
        ("wattline, mapping", Writing::Foreign, payloads::MAPPING),
    ];
    let written: Vec<Vec<Block>> = writings.iter().map(|(_, writing, _)| blocks(*writing)).collect::<Result<_>>()?;

    let expected_shipped = read_by_peer(&shipped, &as_is)?;
    let mut candidates = peers(&narrow, &shipped, &as_is, &expected)?;
    for ((name, _, mapping), blocks) in writings.into_iter().zip(&written) {
        candidates.push(ours(name, &narrow, mapping, blocks)?);
    }
    candidates.push(ours("wattline, shipped schema", &shipped, "", &as_is)?);
    let (avro_blocks, mut avro_decoder) = (avro::blocks(&narrow, &expected)?, avro::decoder(&narrow, &narrow_text)?);
    let run = move || avro::decode(&mut avro_decoder, &avro_blocks);
    candidates.push(Candidate { name: "wattline, Avro", run: Box::new(run), ns: Vec::new() });
    if let Some(only) = &settings.only {
        candidates.retain(|candidate| candidate.name.contains(only));
    }
    for candidate in &mut candidates {
        let batches = (candidate.run)()?;
        let expected = if candidate.name.ends_with(SHIPPED_SCHEMA) { &expected_shipped } else { &expected };
        check(&batches, expected).with_context(|| format!("{}: not what arrow-json reads", candidate.name))?;
    }
    for _ in 0..settings.rounds {
        for candidate in &mut candidates {
            let started = cpu_ns()?;
            let batches = (candidate.run)()?;
            let spent = cpu_ns()? - started;
            drop(batches);
            candidate.ns.push(spent / settings.readings as f64);
        }
    }
    report(&settings, &as_is, &candidates)
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings { readings: 24 * 8_192, rounds: 11, only: None, out: None };
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = || value.parse::<u32>().with_context(|| format!("`{value}` is no number; {USAGE}"));
        match name.as_str() {
            "--readings" => settings.readings = u64::from(number()?),
            "--rounds" => settings.rounds = usize::try_from(number()?)?,
            "--only" => settings.only = Some(value),
            "--out" => settings.out = Some(value.into()),
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    ensure!(settings.readings > 0 && settings.rounds > 0, "at least one reading and one round; {USAGE}");
    Ok(settings)
}

fn parse(text: &str) -> Result<StreamSchema> {
    StreamSchema::parse(text, "meter_readings.avsc").map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

/// The shipped schema with the fields that the readings have.
fn narrow_schema() -> Result<String> {
    let mut schema: Value = serde_json::from_str(SHIPPED)?;
    let fields = schema["fields"].as_array_mut().context("a schema without fields")?;
    fields.retain(|field| field["name"].as_str().is_some_and(|name| FIELDS.contains(&name)));
    ensure!(fields.len() == FIELDS.len(), "the shipped schema lacks fields of the readings");
    Ok(schema.to_string())
}

fn read_by_peer(schema: &StreamSchema, blocks: &[Block]) -> Result<Vec<RecordBatch>> {
    let mut decoder = peer::decoder(&peer::schema_of(&schema.arrow), blocks)?;
    blocks.iter().map(|block| peer::concatenated(&mut decoder, block)).collect()
}

fn peers<'a>(
    schema: &StreamSchema,
    shipped: &StreamSchema,
    blocks: &'a [Block],
    expected: &'a [RecordBatch],
) -> Result<Vec<Candidate<'a>>> {
    let schema = peer::schema_of(&schema.arrow);
    let mut wide = peer::decoder(&peer::schema_of(&shipped.arrow), blocks)?;
    let mut one = peer::decoder(&schema, blocks)?;
    let mut all = peer::decoder(&schema, blocks)?;
    let candidate = |name, run| Candidate { name, run, ns: Vec::new() };
    Ok(vec![
        candidate(PEER, Box::new(move || blocks.iter().map(|block| peer::concatenated(&mut all, block)).collect())),
        candidate(
            "arrow-json, one by one",
            Box::new(move || blocks.iter().map(|block| peer::one_by_one(&mut one, block)).collect()),
        ),
        candidate(
            "arrow-json, shipped schema",
            Box::new(move || blocks.iter().map(|block| peer::concatenated(&mut wide, block)).collect()),
        ),
        candidate("builders alone", Box::new(move || expected.iter().map(peer::rebuild).collect())),
    ])
}

fn ours<'a>(
    name: &'static str,
    schema: &Arc<StreamSchema>,
    mapping: &str,
    blocks: &'a [Block],
) -> Result<Candidate<'a>> {
    let mapping: Mapping = toml::from_str(mapping)?;
    let mut decoder = JsonDecoder::new(Arc::clone(schema), &mapping, Limits::default())?;
    let run = move || {
        let mut decode = |block: &Block| {
            let decoded = decoder.decode(block.records());
            ensure!(decoded.dead_letters.is_empty(), "refused: {:?}", decoded.dead_letters.first());
            Ok(decoded.batch)
        };
        blocks.iter().map(&mut decode).collect()
    };
    Ok(Candidate { name, run: Box::new(run), ns: Vec::new() })
}

/// Every value as expected, but for the zone, which is told by the text of `ts`.
fn check(batches: &[RecordBatch], expected: &[RecordBatch]) -> Result<()> {
    ensure!(batches.len() == expected.len(), "{} batches, not {}", batches.len(), expected.len());
    for (batch, expected) in batches.iter().zip(expected) {
        ensure!(batch.num_rows() == expected.num_rows(), "{} rows, not {}", batch.num_rows(), expected.num_rows());
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let other = expected.column_by_name(field.name()).context("a column too many")?;
            let is_equal = match column.as_primitive_opt::<TimestampMicrosecondType>() {
                Some(instants) => instants.iter().eq(other.as_primitive::<TimestampMicrosecondType>()),
                None => column.as_ref() == other.as_ref(),
            };
            let is_zone = || {
                let zones = column.as_primitive_opt::<Int32Type>();
                field.name() == "tz_offset_min" && zones.is_some_and(|zones| zones.iter().all(|zone| zone == Some(480)))
            };
            ensure!(is_equal || is_zone(), "column `{}` differs", field.name());
        }
    }
    Ok(())
}

fn report(settings: &Settings, blocks: &[Block], candidates: &[Candidate<'_>]) -> Result<()> {
    let bytes: usize = blocks.iter().map(|block| block.bytes.len()).sum();
    let record_bytes = bytes as f64 / settings.readings as f64;
    say(&format!(
        "{} readings of {} fields, {record_bytes:.0} bytes each; medians of {} rounds",
        settings.readings,
        FIELDS.len(),
        settings.rounds
    ));
    let peer = candidates.first().context("no candidate has that in its name")?;
    say(&format!("                              rows/s/core   ns/row   × {}", peer.name));
    let mut figures = Vec::new();
    for candidate in candidates {
        let ns = median(candidate.ns.clone())?;
        let ratio = median(peer.ns.iter().zip(&candidate.ns).map(|(peer, own)| peer / own).collect())?;
        say(&format!("{:<28} {:>12.0} {ns:>8.1} {ratio:>14.2}", candidate.name, 1e9 / ns));
        figures.push(json!({ "name": candidate.name, "rows_per_core_s": 1e9 / ns, "ns_per_row": ns, "ratio": ratio }));
    }
    let Some(out) = &settings.out else { return Ok(()) };
    let report = json!({
        "what": "JSON readings into Arrow batches, processor time, next to arrow-json concatenated",
        "machine": machine::describe(),
        "commit": machine::commit(),
        "settings": { "readings": settings.readings, "rounds": settings.rounds, "record_bytes": record_bytes },
        "ratio_to": peer.name,
        "candidates": figures,
    });
    let text = serde_json::to_string_pretty(&report)? + "\n";
    std::fs::write(out, text).with_context(|| format!("cannot write `{}`", out.display()))
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("no round was run")
}

/// User and system time of the process, nanoseconds.
fn cpu_ns() -> Result<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    ensure!(status == 0, "the kernel tells no processor time");
    Ok(time.tv_sec as f64 * 1e9 + time.tv_nsec as f64)
}

/// Prints a line; a reader that is gone is no reason to fail.
fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or_default();
}
