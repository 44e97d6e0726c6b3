//! `wattline replay --dead-letters`: records that were refused, decoded again with the schemas, mappings and limits of now.
//!
//! ```text
//! dead_letters ─▶ records, each with its letters ─▶ decode, guard ─▶ decide (wattline_core::redemption)
//! raw table   ─▶ which of their events are rows ──────────────────────┘
//!                  └▶ one amendment: rows for the raw tables, letters to take out, a row of `redemptions` for each stream
//! ```
//! An event keeps the identity that its record gives it, so none can come in twice. Its `_lateness_ms` is the largest there is: rules
//! tolerate less, so what is published stays what their queries give over the events within their delay, and a rule that late
//! events correct leaves it out too (the job has passed its offset). A restatement takes it in (`replay --write`).
//!
//! A job may run meanwhile. Only records are looked at that lie before what its newest link says is in closed files, so no row of
//! theirs is still on its way, and no letter of theirs will be written again.
//!
//! | what was refused | is |
//! |---|---|
//! | as too far ahead or too old | judged by the bounds of now and the clock of then: taken if `future_bound` or `oldest` were moved |
//! | as too large, from a topic | decoded again: it is kept whole |
//! | as too large, from a file | left alone: of an oversized line only the beginning is kept |
//! | a row of a Parquet file | left alone: what is kept is a text of it |
//! | a record of a CSV file | decoded again by the header of the file, if that still stands there |

mod decode;
mod letters;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};
use wattline_connect::archive::Archive;
use wattline_core::amendment::LetterRows;
use wattline_core::offset_set::OffsetSet;
use wattline_core::record::LaneId;
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::table::{Amended, DEAD_LETTERS, Redemption, redemption_batch, redemptions_table};

use self::decode::redeem_stream;
use self::letters::{Asked, Records, read_letters};
use super::amend::{Amendments, Next, Steps, TRIES_MAX, settled, user};
use crate::adapt::registry::{self, Patience};
use crate::cli::{QueryFormat, ReplayArgs};
use crate::project::{LoadedStream, Project};
use crate::table_text::{grouped, table};
use crate::{config, job, report};

/// Rows that are gathered before they go into files.
const ROWS_IN_MEMORY_MAX: usize = 200_000;

pub(super) async fn run(args: &ReplayArgs, project: &Project) -> Result<ExitCode> {
    if args.format == QueryFormat::Csv {
        bail!("what became of dead letters is printed as text or json");
    }
    if args.stretch.from.is_some() || args.stretch.to.is_some() {
        bail!("`--from` and `--to` are of a rule's rows: name letters by when they were refused, with `--since`");
    }
    let since_us = args.amend.since.as_deref().map(super::replay::instant).transpose()?;
    let asked = Asked { stream: args.amend.stream.clone(), reason: args.amend.reason.clone(), since_us };
    if let Some(stream) = asked.stream.as_deref().filter(|name| !project.streams.iter().any(|of| of.name == *name)) {
        let known: Vec<&str> = project.streams.iter().map(|of| of.name.as_str()).collect();
        let help = config::nearest(stream, &known).unwrap_or_else(|| format!("it has: {}", known.join(", ")));
        bail!("the job has no stream `{stream}`; {help}");
    }
    let archive = super::archive::open(&args.place).await?;
    if !archive.table_names().await?.iter().any(|name| name == DEAD_LETTERS) {
        bail!("the archive has no table `{DEAD_LETTERS}`: nothing was refused yet");
    }
    let amendments = Amendments::of(&archive, project.config.job.get_ref(), Steps::of(&args.amend)?);
    let redeeming = Redeeming { args, project, archive, amendments, asked };
    let told = Box::pin(redeeming.run()).await?;
    match args.format {
        QueryFormat::Json => report::print(&format!("{}\n", told.json())),
        QueryFormat::Text | QueryFormat::Csv => report::print(&told.text()),
    }
    Ok(ExitCode::SUCCESS)
}

struct Redeeming<'a> {
    args: &'a ReplayArgs,
    project: &'a Project,
    archive: Archive,
    amendments: Amendments,
    asked: Asked,
}

/// What became of the letters of one stream.
#[derive(Debug, Default)]
pub(super) struct OfStream {
    /// Events that become rows.
    pub(super) events: u64,
    /// Letters of events that were rows already.
    pub(super) already_rows: u64,
    /// Letters that leave.
    pub(super) letters_out: u64,
    /// Letters that stay, by why.
    pub(super) left: BTreeMap<String, u64>,
}

/// What came of it.
struct Told {
    streams: BTreeMap<String, OfStream>,
    dry_run: bool,
    amendment: Option<u64>,
}

/// What is written: rows of raw tables, and which letters leave.
pub(super) struct Written<'a> {
    amendments: &'a Amendments,
    /// Absent if nothing is to be written.
    next: Option<Next>,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    letters_out: BTreeMap<String, OffsetSet>,
}

impl Written<'_> {
    /// Takes rows for the raw table of a stream.
    pub(super) async fn take(&mut self, stream: &LoadedStream, rows: RecordBatch) -> Result<()> {
        if self.next.is_none() || rows.num_rows() == 0 {
            return Ok(());
        }
        self.waiting_rows += rows.num_rows();
        self.waiting.push(rows);
        if self.waiting_rows >= ROWS_IN_MEMORY_MAX { self.flush(stream).await } else { Ok(()) }
    }

    pub(super) fn take_out(&mut self, topic: &str, offset: i64) {
        match self.letters_out.get_mut(topic) {
            Some(offsets) => {
                offsets.insert(offset);
            }
            None => {
                let mut offsets = OffsetSet::default();
                offsets.insert(offset);
                self.letters_out.insert(topic.to_owned(), offsets);
            }
        }
    }

    async fn flush(&mut self, stream: &LoadedStream) -> Result<()> {
        let (batches, Some(next)) = (std::mem::take(&mut self.waiting), &mut self.next) else { return Ok(()) };
        self.waiting_rows = 0;
        if batches.is_empty() {
            return Ok(());
        }
        self.amendments.write(next, &job::stream_table(stream), batches).await
    }

    fn letter_rows(&self) -> Vec<LetterRows> {
        let rows = |(topic, offsets): (&String, &OffsetSet)| LetterRows {
            topic: topic.clone(),
            offsets: offsets.runs().collect(),
        };
        self.letters_out.iter().map(rows).collect()
    }
}

impl Redeeming<'_> {
    async fn run(&self) -> Result<Told> {
        let dry_run = self.args.amend.dry_run;
        for _ in 0..TRIES_MAX {
            let next = if dry_run { None } else { Some(self.amendments.begin().await?) };
            let open = if dry_run { self.amendments.open().await? } else { None };
            let archived = self.archived().await?;
            let mut records = read_letters(&self.archive, &self.asked, open.as_ref()).await?;
            let (waiting, letters_out) = (Vec::new(), BTreeMap::new());
            let mut written = Written { amendments: &self.amendments, next, waiting, waiting_rows: 0, letters_out };
            let mut streams = BTreeMap::new();
            for (name, records) in &mut records {
                let told = self.stream(name, records, &archived, &mut written).await;
                streams.insert(name.clone(), told.with_context(|| format!("the dead letters of stream `{name}`"))?);
            }
            let letters_out = written.letter_rows();
            let Some(mut next) = written.next.take().filter(|_| !letters_out.is_empty()) else {
                return Ok(Told { streams, dry_run, amendment: None });
            };
            let n = next.n;
            let audit = streams.iter().map(|(stream, told)| redemption_batch(&self.audit(stream, told, n)));
            let audit = audit.collect::<Result<Vec<_>, _>>()?;
            self.amendments.write(&mut next, &redemptions_table(), audit).await?;
            if self.amendments.commit(next, letters_out).await? {
                return Ok(Told { streams, dry_run, amendment: Some(n) });
            }
        }
        bail!("{TRIES_MAX} other amendments were made meanwhile: run this again when they are done")
    }

    /// Up to which offset the rows of each lane are in closed files, all of them in their tables.
    async fn archived(&self) -> Result<BTreeMap<(String, LaneId), i64>> {
        let mut tables: BTreeSet<String> = self.project.streams.iter().map(|stream| stream.name.clone()).collect();
        tables.insert(DEAD_LETTERS.to_owned());
        let mut archived: BTreeMap<(String, LaneId), i64> = BTreeMap::new();
        for section in settled(&self.archive, &tables).await?.into_iter().flat_map(|standing| standing.lanes) {
            let lane = archived.entry((section.stream, section.lane)).or_insert(i64::MAX);
            *lane = (*lane).min(section.archive);
        }
        Ok(archived)
    }

    async fn stream(
        &self,
        name: &str,
        records: &mut Records,
        archived: &BTreeMap<(String, LaneId), i64>,
        written: &mut Written<'_>,
    ) -> Result<OfStream> {
        let mut told = OfStream::default();
        let Some(stream) = self.project.streams.iter().find(|stream| stream.name == name) else {
            records.leave_all("no such stream in the job", &mut told);
            return Ok(told);
        };
        if !stream.config.keep {
            records.leave_all("the stream keeps no events", &mut told);
            return Ok(told);
        }
        records.leave("not in closed files yet", &mut told, |(lane, offset), _| {
            archived.get(&(name.to_owned(), lane.clone())).is_some_and(|end| *offset >= *end)
        });
        let registry = registry::open(&self.project.config, self.archive.root(), Patience::None)?;
        redeem_stream(&self.archive, (stream, registry.as_ref()), records, &mut told, written).await?;
        written.flush(stream).await?;
        Ok(told)
    }

    fn audit(&self, stream: &str, told: &OfStream, amendment: u64) -> Redemption {
        Redemption {
            amended: Amended {
                at_us: SystemClock.now_ms().saturating_mul(1_000),
                by: user(&self.args.amend),
                job: self.project.config.job.get_ref().clone(),
                amendment,
            },
            stream: stream.to_owned(),
            asked: self.asked.words(),
            events: told.events,
            already_rows: told.already_rows,
            letters_out: told.letters_out,
            letters_left: told.left.values().sum(),
        }
    }
}

impl Told {
    fn text(&self) -> String {
        if self.streams.is_empty() {
            return "no such dead letters\n".to_owned();
        }
        let row = |(name, of): (&String, &OfStream)| {
            let left: u64 = of.left.values().sum();
            let numbers = [of.events, of.letters_out, of.already_rows, left].map(grouped);
            [vec![name.clone()], numbers.to_vec()].concat()
        };
        let rows: Vec<Vec<String>> = self.streams.iter().map(row).collect();
        let header = ["stream", "events accepted", "letters out", "of rows there were", "letters left"];
        let mut out = table(&header, &rows);
        let left = self.streams.iter().flat_map(|(name, of)| of.left.iter().map(move |(why, n)| (name, why, n)));
        let left: Vec<Vec<String>> = left.map(|(name, why, n)| vec![name.clone(), grouped(*n), why.clone()]).collect();
        if !left.is_empty() {
            out.push_str(&format!("\n{}", table(&["stream", "left", "because"], &left)));
        }
        out.push_str(&match (self.dry_run, self.amendment) {
            (true, _) => "\nnothing was changed\n".to_owned(),
            (false, None) => "\nnothing to change\n".to_owned(),
            (false, Some(n)) => format!(
                "\nin the raw tables now (amendment {n}); rules take these events in when a period is restated: \
                 `wattline replay <rule> --write`\n"
            ),
        });
        out
    }

    fn json(&self) -> Value {
        let each = |(name, of): (&String, &OfStream)| {
            let told = json!({"events": of.events, "letters_out": of.letters_out, "already_rows": of.already_rows,
                "left": of.left});
            (name.clone(), told)
        };
        let streams: serde_json::Map<String, Value> = self.streams.iter().map(each).collect();
        json!({"dry_run": self.dry_run, "amendment": self.amendment, "streams": streams})
    }
}
