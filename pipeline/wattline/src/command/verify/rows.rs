//! The rows of the tables of events, by the record that each came from: none twice, and how they add up.
//!
//! Rows are accepted events, dead letters the refused ones; together they have every offset of a lane, unless the topic itself
//! has holes (transactions, compaction, an array without events). So an event that is there twice is a problem, and
//! an offset that is not there is told, no more. All columns but the identity are left on the disk; what is kept in memory is a
//! bit an event at most ([`Ledger`]), so that a table is judged as a whole.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use futures::StreamExt;
use serde::Serialize;
use wattline_connect::archive::Archive;
use wattline_core::amendment::Amendment;
use wattline_core::gap::{Gap, merged};
use wattline_core::ledger::{Events, LaneAccount, Ledger};
use wattline_core::problem::{Advice, Problems};
use wattline_core::record::{LaneId, column};
use wattline_runtime::table::{DEAD_LETTERS, OFFSET_GAPS, RULE_ERRORS};
use wattline_runtime::verify::newest_epoch;

use super::{Chain, Findings, note_unreadable};
use crate::command::amend::newest_of_all;
use crate::table_text::{grouped, table};

/// The record of a dead letter, after the stream that it was meant for; then the row of the letter itself.
const OF_LETTER: [&str; 7] =
    ["stream", "record_topic", "record_partition", "record_offset", "record_index", column::TOPIC, column::OFFSET];
/// How often rows are read that are amended meanwhile.
const LOOKS_MAX: u32 = 5;

/// The lane of a gap and its offsets.
const OF_GAP: [&str; 4] = ["record_topic", "record_partition", "record_offset", "next_offset"];

const TWICE: Advice = Advice {
    means: "counts and sums over the table are wrong. A job writes an event once: a file was added by hand, or two jobs, or one \
            under a new name, wrote the same records into one archive",
    action: "find the files of these rows, and take the ones too many out of the table with a Delta program",
};
const BOTH: Advice = Advice {
    means: "one record was accepted and refused: jobs with different settings wrote the same records into one archive",
    action: "decide which is right, and delete the other rows with a Delta program",
};
const AHEAD: Advice = Advice {
    means: "the next start reads these records again, and their rows will be there twice: the chain is older than the table",
    action: "before the next start, bring tables and `_wattline` back from one backup, or go on with a new archive",
};

/// A lane of a table as it is told.
#[derive(Debug, Serialize)]
pub(super) struct LaneLine {
    table: String,
    lane: String,
    rows: u64,
    dead_letters: u64,
    offsets: u64,
    first: i64,
    last: i64,
    /// Offsets that were recorded to be gone.
    gone: u64,
    missing: u64,
    /// The first few stretches of missing offsets.
    holes: Vec<(i64, i64)>,
    #[serde(skip)]
    id: LaneId,
    /// The highest offset that has a row.
    #[serde(skip)]
    last_row: Option<i64>,
}

/// Reads the tables of events whose files are whole.
///
/// An amendment makes rows of letters: rows and letters that were read while one came are read again, and those that one has
/// still to take out are letters no more.
pub(super) async fn check(
    archive: &Archive,
    chains: &[Chain],
    tables: &BTreeMap<String, bool>,
    findings: &mut Findings,
) -> Result<()> {
    let mut amendments = newest_of_all(archive).await?;
    for look in 1..=LOOKS_MAX {
        let mut found = Findings::default();
        check_once(archive, chains, tables, &amendments, &mut found).await?;
        let after = newest_of_all(archive).await?;
        let numbers = |all: &[(Amendment, bool)]| all.iter().map(|(of, _)| of.n).collect::<Vec<_>>();
        if numbers(&after) == numbers(&amendments) || look == LOOKS_MAX {
            findings.lanes.append(&mut found.lanes);
            findings.notes.append(&mut found.notes);
            findings.problems.append(&mut found.problems);
            break;
        }
        amendments = after;
    }
    for (amendment, _) in amendments.iter().filter(|(_, is_open)| *is_open) {
        findings.notes.push(format!(
            "job `{}`: amendment {} is not in all its tables yet: `wattline replay --write` or `--dead-letters`, run again, finishes it",
            amendment.job, amendment.n
        ));
    }
    check_positions(chains, findings).await
}

async fn check_once(
    archive: &Archive,
    chains: &[Chain],
    tables: &BTreeMap<String, bool>,
    amendments: &[(Amendment, bool)],
    findings: &mut Findings,
) -> Result<()> {
    let mut letters = BTreeMap::new();
    if tables.get(DEAD_LETTERS) == Some(&true)
        && let Err(error) = read_letters(archive, amendments, &mut letters).await
    {
        note_unreadable(DEAD_LETTERS, error, findings)?;
    }
    let gaps = recorded_gaps(archive, chains, tables, findings).await?;
    for name in event_tables(chains, tables, findings) {
        let mut ledger = Ledger::default();
        let nameless = match read_events(archive, &name, &mut ledger).await {
            Ok(nameless) => nameless,
            Err(error) => {
                note_unreadable(&name, error, findings)?;
                continue;
            }
        };
        if nameless > 0 {
            findings.notes.push(format!(
                "table `{name}`: {nameless} rows do not say which record they are; another program wrote them"
            ));
        }
        judge(&name, &ledger, letters.get(&name), &gaps, findings);
    }
    Ok(())
}

/// The tables whose rows are events and whose files are whole, as far as the lanes of the chains tell.
fn event_tables(chains: &[Chain], tables: &BTreeMap<String, bool>, findings: &mut Findings) -> Vec<String> {
    let epochs = chains.iter().filter_map(|chain| chain.report.newest.as_ref()?.epoch());
    let mut names: BTreeSet<String> =
        epochs.flat_map(|epoch| &epoch.lanes).map(|section| section.stream.clone()).collect();
    let slots: BTreeSet<&str> = chains.iter().map(|chain| chain.of.slot.as_str()).collect();
    if slots.len() == chains.len() {
        names.extend([DEAD_LETTERS, RULE_ERRORS, OFFSET_GAPS].map(str::to_owned));
    } else {
        // Both count them from zero.
        findings.notes.push(format!(
            "jobs with slots of one name share this archive: rows of `{DEAD_LETTERS}`, `{RULE_ERRORS}` and `{OFFSET_GAPS}` are not told apart"
        ));
    }
    names.retain(|name| tables.contains_key(name));
    let (whole, damaged): (BTreeSet<String>, BTreeSet<String>) =
        names.into_iter().partition(|name| tables.get(name) == Some(&true));
    for name in damaged {
        findings.notes.push(format!("table `{name}`: its rows are not counted, as not all is well with its files"));
    }
    whole.into_iter().collect()
}

/// Takes in the events of a table; gives the number of rows that do not say which event they are.
async fn read_events(archive: &Archive, table: &str, ledger: &mut Ledger) -> Result<u64> {
    let mut rows = std::pin::pin!(archive.read_columns(table, &column::IDENTITY).await?);
    let mut nameless = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let identity = Identity::of(batch.columns())?;
        for row in 0..batch.num_rows() {
            match identity.get(row) {
                Some((topic, partition, offset, index)) => ledger.note(topic, partition, offset, index),
                None => nameless += 1,
            }
        }
    }
    Ok(nameless)
}

/// Takes in the records of all dead letters, by stream, but for those that an amendment is still to take out.
async fn read_letters(
    archive: &Archive,
    amendments: &[(Amendment, bool)],
    letters: &mut BTreeMap<String, Ledger>,
) -> Result<()> {
    let leaving: Vec<&Amendment> = amendments.iter().filter(|(_, is_open)| *is_open).map(|(of, _)| of).collect();
    let mut rows = std::pin::pin!(archive.read_columns(DEAD_LETTERS, &OF_LETTER).await?);
    while let Some(batch) = rows.next().await {
        let batch: RecordBatch = batch?;
        let streams = cast(batch.column(0), &DataType::Utf8)?;
        let (streams, identity) = (streams.as_string::<i32>(), Identity::of(&batch.columns()[1..])?);
        let letter_topics = cast(batch.column(5), &DataType::Utf8)?;
        let letter_offsets = cast(batch.column(6), &DataType::Int64)?;
        let (topics, offsets) = (letter_topics.as_string::<i32>(), letter_offsets.as_primitive::<Int64Type>());
        let leaves = |row: usize| leaving.iter().any(|of| of.takes_out(topics.value(row), offsets.value(row)));
        for row in (0..batch.num_rows()).filter(|row| streams.is_valid(*row) && !leaves(*row)) {
            let Some((topic, partition, offset, index)) = identity.get(row) else { continue };
            let stream = streams.value(row);
            match letters.get_mut(stream) {
                Some(ledger) => ledger.note(topic, partition, offset, index),
                None => letters.entry(stream.to_owned()).or_default().note(topic, partition, offset, index),
            }
        }
    }
    Ok(())
}

/// The offsets of each lane that are recorded to be gone: what the table says, and links whose rows wait for a file.
async fn recorded_gaps(
    archive: &Archive,
    chains: &[Chain],
    tables: &BTreeMap<String, bool>,
    findings: &mut Findings,
) -> Result<BTreeMap<LaneId, Vec<Gap>>> {
    let mut gaps: BTreeMap<LaneId, Vec<Gap>> = BTreeMap::new();
    for (lane, of_links) in chains.iter().flat_map(|chain| &chain.report.gaps) {
        gaps.entry(lane.clone()).or_default().extend(of_links);
    }
    if tables.get(OFFSET_GAPS) == Some(&true)
        && let Err(error) = read_gaps(archive, &mut gaps).await
    {
        note_unreadable(OFFSET_GAPS, error, findings)?;
    }
    Ok(gaps.into_iter().map(|(lane, gaps)| (lane, merged(gaps))).collect())
}

async fn read_gaps(archive: &Archive, gaps: &mut BTreeMap<LaneId, Vec<Gap>>) -> Result<()> {
    let mut rows = std::pin::pin!(archive.read_columns(OFFSET_GAPS, &OF_GAP).await?);
    while let Some(batch) = rows.next().await {
        let batch: RecordBatch = batch?;
        let topics = cast(batch.column(0), &DataType::Utf8)?;
        let partitions = cast(batch.column(1), &DataType::Int32)?;
        let [first, next] = [cast(batch.column(2), &DataType::Int64)?, cast(batch.column(3), &DataType::Int64)?];
        let (topics, partitions) = (topics.as_string::<i32>(), partitions.as_primitive::<Int32Type>());
        let (first, next) = (first.as_primitive::<Int64Type>(), next.as_primitive::<Int64Type>());
        for row in (0..batch.num_rows()).filter(|row| topics.is_valid(*row)) {
            let gap = Gap { first: first.value(row), next: next.value(row) };
            gaps.entry(LaneId::new(topics.value(row), partitions.value(row))).or_default().push(gap);
        }
    }
    Ok(())
}

/// Topic, partition, offset and index of a batch.
struct Identity {
    topic: StringArray,
    partition: Int32Array,
    offset: Int64Array,
    index: Int32Array,
}

impl Identity {
    fn of(columns: &[ArrayRef]) -> Result<Self> {
        Ok(Self {
            topic: cast(&columns[0], &DataType::Utf8)?.as_string::<i32>().clone(),
            partition: cast(&columns[1], &DataType::Int32)?.as_primitive::<Int32Type>().clone(),
            offset: cast(&columns[2], &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            index: cast(&columns[3], &DataType::Int32)?.as_primitive::<Int32Type>().clone(),
        })
    }

    fn get(&self, row: usize) -> Option<(&str, i32, i64, i32)> {
        let is_null = self.topic.is_null(row)
            || self.partition.is_null(row)
            || self.offset.is_null(row)
            || self.index.is_null(row);
        let values =
            || (self.topic.value(row), self.partition.value(row), self.offset.value(row), self.index.value(row));
        (!is_null).then(values)
    }
}

/// Adds up rows and dead letters, lane by lane.
fn judge(
    name: &str,
    rows: &Ledger,
    letters: Option<&Ledger>,
    gaps: &BTreeMap<LaneId, Vec<Gap>>,
    findings: &mut Findings,
) {
    let mut problems = Problems::of(format!("table `{name}`"));
    let lanes: BTreeSet<&LaneId> =
        rows.lanes().chain(letters.into_iter().flat_map(|letters| letters.lanes())).collect();
    let (mut missing, mut example) = (0, None);
    for lane in lanes {
        let (of_rows, of_letters) = (rows.lane(lane), letters.and_then(|letters| letters.lane(lane)));
        if let Some(twice) = of_rows.map(|of| of.twice()).filter(|twice| twice.count > 0) {
            problems.add(format!("lane {lane}: rows that are there twice: {}", shown(twice)), TWICE);
        }
        if let Some(twice) = of_letters.map(|of| of.twice()).filter(|twice| twice.count > 0) {
            let what = format!("lane {lane}: dead letters that are there twice: {}", shown(twice));
            problems.add(what, TWICE);
        }
        if let Some(both) = of_rows.zip(of_letters).map(|(of_rows, of_letters)| of_rows.shared_with(of_letters))
            && both.count > 0
        {
            problems.add(format!("lane {lane}: events that are rows and dead letters: {}", shown(&both)), BOTH);
        }
        let gaps = gaps.get(lane).map_or(&[][..], Vec::as_slice);
        let account = LaneAccount::of(of_rows, of_letters, gaps);
        missing += account.missing;
        example = example.or_else(|| account.holes.first().map(|hole| (lane, *hole)));
        findings.lanes.push(line(name, lane, account, of_rows.and_then(|of| of.last())));
    }
    if let Some((lane, (first, last))) = example {
        findings.notes.push(format!(
            "table `{name}`: offsets that are neither row nor dead letter: {}, such as {first} to {last} of {lane}; topics with \
             transactions or compaction have such holes, letters that wait for a file make some for a minute, and letters that \
             were redeemed leave some in `{DEAD_LETTERS}`",
            grouped(missing)
        ));
    }
    findings.problems.extend(problems.finish());
}

fn line(table: &str, lane: &LaneId, account: LaneAccount, last_row: Option<i64>) -> LaneLine {
    LaneLine {
        table: table.to_owned(),
        lane: lane.to_string(),
        rows: account.rows,
        dead_letters: account.dead_letters,
        offsets: account.offsets,
        first: account.first,
        last: account.last,
        gone: account.gone,
        missing: account.missing,
        holes: account.holes,
        id: lane.clone(),
        last_row,
    }
}

/// How many, and the first few: offset, and the index where it is not the only event of its record.
fn shown(events: &Events) -> String {
    let name = |(offset, index): &(i64, i32)| match index {
        0 => offset.to_string(),
        index => format!("{offset}.{index}"),
    };
    let examples: Vec<String> = events.examples.iter().map(name).collect();
    format!("{}, such as offset {}", grouped(events.count), examples.join(", "))
}

/// No row lies beyond the position up to which its chain says that rows are in files.
async fn check_positions(chains: &[Chain], findings: &mut Findings) -> Result<()> {
    let mut ends: BTreeMap<LaneId, i64> = BTreeMap::new();
    let mut note = |lane: LaneId, end: i64| {
        let known = ends.entry(lane).or_insert(end);
        *known = (*known).max(end);
    };
    for chain in chains {
        let Some(newest) = newest_epoch(&chain.of.store, &chain.of.slot).await? else { continue };
        let Some(epoch) = newest.epoch() else { continue };
        epoch.lanes.iter().for_each(|section| note(section.lane.clone(), section.archive));
        for section in &epoch.system {
            note(LaneId::new(format!("{}/{}", section.stream, chain.of.slot), 0), section.next);
        }
    }
    // How far a chain got that cannot be read is not known.
    let is_all_known = chains.iter().all(|chain| chain.report.other_format.is_none());
    let mut unknown = BTreeSet::new();
    for line in &findings.lanes {
        let Some(last) = line.last_row else { continue };
        match ends.get(&line.id) {
            Some(end) if last >= *end && !is_all_known => {
                unknown.insert(line.table.clone());
            }
            None => {
                unknown.insert(line.table.clone());
            }
            Some(end) if last >= *end => {
                let mut problems = Problems::of(format!("table `{}`", line.table));
                let what = format!("lane {}: rows up to offset {last}, where the chain says {end} is next", line.lane);
                problems.add(what, AHEAD);
                findings.problems.extend(problems.finish());
            }
            Some(_) => {}
        }
    }
    for table in unknown {
        findings
            .notes
            .push(format!("table `{table}`: some of its lanes are in no chain of this archive that could be read"));
    }
    Ok(())
}

/// The lanes for people.
pub(super) fn text(lanes: &[LaneLine]) -> String {
    let rows: Vec<Vec<String>> = lanes
        .iter()
        .map(|of| {
            vec![
                of.table.clone(),
                of.lane.clone(),
                grouped(of.rows),
                grouped(of.dead_letters),
                grouped(of.offsets),
                of.first.to_string(),
                of.last.to_string(),
                grouped(of.gone),
                grouped(of.missing),
            ]
        })
        .collect();
    table(&["table", "lane", "rows", "dead letters", "offsets", "first", "last", "gone", "holes"], &rows)
}
