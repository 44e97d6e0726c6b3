//! The payloads that are measured: readings of the simulated fleet, and the same readings written in other ways.
//!
//! A reading is a flat object of 14 members whose texts hold no comma, so it is taken apart by commas. Whatever the way of
//! writing, the values are the same; only then can one answer be the oracle of all.

use anyhow::{Context, Result, ensure};
use wattline_decode::Records;
use wattline_sim::{Disorder, Generator, Meters, Random};

const SEED: u64 = 1;
const METERS: u64 = 10_000;
const BLOCK_RECORDS: usize = 8_192;

/// A way of writing readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// As the fleet writes them: no spaces, always the same order of members.
    AsIs,
    /// With a space after each colon and comma, as the `json` module of Python does.
    Spaced,
    /// The members of each reading in an order of its own.
    Shuffled,
    /// With three members that no schema knows, one of them an object.
    Unknown,
    /// With the names and units that [`MAPPING`] translates.
    Foreign,
}

/// The mapping of [`Writing::Foreign`].
pub(crate) const MAPPING: &str = "ignore = ['fw']\n[rename]\n'head.meter' = 'meter_id'\ntime = 'ts'\nva = 'u_a_v'\n\
                                  vb = 'u_b_v'\nvc = 'u_c_v'\nwh = 'energy_imp_kwh'\n[scale]\nenergy_imp_kwh = 0.001\n";

/// Records one after the other, as sources hand them over.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<u32>,
}

impl Block {
    pub(crate) fn records(&self) -> Records<'_> {
        Records { bytes: &self.bytes, ends: &self.ends }
    }
}

/// The readings in blocks.
pub(crate) fn blocks(readings: u64, writing: Writing) -> Result<Vec<Block>> {
    let fleet = Meters { meters: METERS, readings };
    let mut generator = Generator::new(fleet, Disorder::none(), SEED, 1, |_key: &[u8]| 0);
    let mut random = Random::new(SEED);
    let mut blocks = Vec::new();
    let mut block = Block::default();
    while let Some(record) = generator.next() {
        write(std::str::from_utf8(record.payload)?, writing, &mut random, &mut block.bytes)?;
        block.ends.push(u32::try_from(block.bytes.len())?);
        if block.ends.len() == BLOCK_RECORDS {
            blocks.push(std::mem::take(&mut block));
        }
    }
    if !block.ends.is_empty() {
        blocks.push(block);
    }
    ensure!(!blocks.is_empty(), "there are no readings");
    Ok(blocks)
}

fn write(reading: &str, writing: Writing, random: &mut Random, out: &mut Vec<u8>) -> Result<()> {
    if writing == Writing::AsIs {
        out.extend_from_slice(reading.as_bytes());
        return Ok(());
    }
    let inside = reading.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).context("no object")?;
    let mut members: Vec<String> = inside.split(',').map(str::to_owned).collect();
    let mut separator = ",";
    match writing {
        Writing::AsIs => {}
        Writing::Spaced => {
            members = members.iter().map(|member| member.replacen(':', ": ", 1)).collect();
            separator = ", ";
        }
        Writing::Shuffled => {
            for last in (1..members.len()).rev() {
                let other = usize::try_from(random.below(last as u64 + 1))?;
                members.swap(last, other);
            }
        }
        Writing::Unknown => {
            members.insert(2, r#""head":{"vendor":"x","lines":[1,2,3]}"#.to_owned());
            members.insert(9, r#""rssi_dbm":-71"#.to_owned());
            members.push(r#""firmware":"2.14.0""#.to_owned());
        }
        Writing::Foreign => members = members.iter().map(|member| foreign(member)).collect::<Result<_>>()?,
    }
    out.push(b'{');
    out.extend_from_slice(members.join(separator).as_bytes());
    out.push(b'}');
    Ok(())
}

/// The member as a head end with names and units of its own writes it.
fn foreign(member: &str) -> Result<String> {
    let (name, value) = member.split_once(':').context("no member")?;
    Ok(match name.trim_matches('"') {
        "meter_id" => format!(r#""head":{{"meter":{value}}},"fw":3"#),
        "ts" => format!(r#""time":{value}"#),
        "u_a_v" => format!(r#""va":{value}"#),
        "u_b_v" => format!(r#""vb":{value}"#),
        "u_c_v" => format!(r#""vc":{value}"#),
        "energy_imp_kwh" => {
            let (whole, fraction) = value.split_once('.').filter(|(_, f)| f.len() == 4).context("no energy")?;
            format!(r#""wh":{whole}{}.{}"#, &fraction[..3], &fraction[3..])
        }
        _ => member.to_owned(),
    })
}
