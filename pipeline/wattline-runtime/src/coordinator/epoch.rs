//! Committing: from what was gathered since the last link to the next link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::time::Instant;
use wattline_core::alert::AlertRecord;
use wattline_core::gap::Gap;
use wattline_core::lane::IdleAdvance;
use wattline_core::manifest::{AddedFile, Epoch, LaneSection, RuleProgress};
use wattline_core::record::LaneId;

use super::{Coordinator, events};
use crate::error::{Error, Result};
use crate::frames;
use crate::intake::Doubt;
use crate::port::{Deltas, FileTag, StageState, StateDelta};
use crate::progress::Progress;
use crate::table::{self, DeadLetter, OffsetGap, RuleError};
use crate::threads::aside;

/// Checkpoints with changes after which one writes the whole state, if they have grown to as much as that; and if not.
const CHANGES_MIN: usize = 8;
const CHANGES_MAX: usize = 64;

/// How large the stored state is.
#[derive(Debug, Default)]
pub(super) struct StateWritten {
    /// Bytes of the last whole state.
    whole_bytes: u64,
    /// Checkpoints since then, and the bytes of their changes.
    changes: usize,
    changes_bytes: u64,
}

impl StateWritten {
    /// After so many checkpoints, of which it is not known how large they were.
    pub(super) fn restored(objects: usize) -> Self {
        Self { changes: objects, ..Self::default() }
    }

    /// Whether the next checkpoint is to write the whole state instead of what changed.
    fn asks_for_whole(&self) -> bool {
        self.changes >= CHANGES_MAX || (self.changes >= CHANGES_MIN && self.changes_bytes >= self.whole_bytes)
    }

    /// What is stored may hold what is not in the state any more.
    pub(super) fn ask_for_whole(&mut self) {
        self.changes = CHANGES_MAX;
    }

    fn note(&mut self, whole: bool, objects: &[StateObject]) {
        let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
        match whole {
            true => *self = Self { whole_bytes: bytes, ..Self::default() },
            false => (self.changes, self.changes_bytes) = (self.changes + 1, self.changes_bytes + bytes),
        }
    }
}

struct StateObject {
    path: String,
    bytes: u64,
}

/// Rows on their way into objects, each batch with the name of what it belongs to.
type NamedRows = Box<dyn Iterator<Item = Result<(String, RecordBatch)>> + Send>;

/// What a checkpoint stores of the state of the rules.
struct StateRows {
    /// All of it, or what changed.
    whole: bool,
    rows: NamedRows,
}

/// What was gathered since the last link of the chain.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    pub(super) results: Vec<(String, RecordBatch)>,
    pub(super) alerts: Vec<AlertRecord>,
    /// Those of them that are to be told before the link and have not been tried.
    pub(super) early: Vec<AlertRecord>,
    /// Ids of those that were told.
    pub(super) told: BTreeSet<String>,
    /// Refused since the last tick.
    pub(super) dead_letters: Vec<DeadLetter>,
    /// Memory that letters held when they were taken in, since the last checkpoint.
    pub(super) letter_bytes: u64,
    /// Failed since the last tick.
    pub(super) rule_errors: Vec<RuleError>,
    /// Rows of system streams, which the rules have seen.
    pub(super) system_rows: Vec<(String, RecordBatch)>,
    /// Results were corrected, or a rule was given its past: the next link must say how far rules are, even if nothing changed.
    pub(super) corrected: bool,
    pub(super) idle_advances: BTreeMap<LaneId, Vec<IdleAdvance>>,
    pub(super) refused: BTreeMap<LaneId, Vec<(i64, i32)>>,
    /// Offsets that are gone, of which the next link has to say so.
    pub(super) gaps: BTreeMap<LaneId, Vec<Gap>>,
    /// The same, found since the last tick.
    pub(super) found_gaps: Vec<OffsetGap>,
    /// What a checkpoint has taken from the workers.
    pub(super) deltas: Vec<StateDelta>,
    /// Published and not in files.
    pub(super) pending: Pending,
    /// Files with results that were too many to wait for the link in memory.
    pub(super) adds: BTreeMap<String, Vec<AddedFile>>,
    /// Calls to the archive for the next link.
    parts: u32,
}

/// Rows that wait for a file, by table.
#[derive(Debug, Default)]
pub(super) struct Pending {
    tables: BTreeMap<String, PendingTable>,
}

#[derive(Debug)]
struct PendingTable {
    batches: Vec<RecordBatch>,
    bytes: u64,
    since: Instant,
}

impl Pending {
    pub(super) fn push(&mut self, table: String, batch: RecordBatch) {
        let entry = self.tables.entry(table).or_insert_with(|| PendingTable {
            batches: Vec::new(),
            bytes: 0,
            since: Instant::now(),
        });
        entry.bytes += held_bytes(&batch);
        entry.batches.push(batch);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.tables.values().map(|pending| pending.bytes).sum()
    }

    /// Takes out the tables that are worth a file, and the largest of the others as long as all together have too many bytes.
    fn take_ripe(
        &mut self,
        ripe: impl Fn(u64, std::time::Duration) -> bool,
        most_bytes: u64,
    ) -> Vec<(String, Vec<RecordBatch>)> {
        let mut largest_first: Vec<(u64, bool, String)> = self
            .tables
            .iter()
            .map(|(name, pending)| (pending.bytes, ripe(pending.bytes, pending.since.elapsed()), name.clone()))
            .collect();
        largest_first.sort_unstable_by(|a, b| b.cmp(a));
        let mut left: u64 = largest_first.iter().filter(|(_, ripe, _)| !ripe).map(|(bytes, ..)| bytes).sum();
        let mut taken = Vec::new();
        for (bytes, ripe, name) in largest_first {
            if !ripe && left <= most_bytes {
                continue;
            }
            left -= if ripe { 0 } else { bytes };
            taken.extend(self.tables.remove(&name).map(|pending| (name, pending.batches)));
        }
        taken
    }

    fn frames(&self) -> Vec<(String, RecordBatch)> {
        let each = |(name, pending): (&String, &PendingTable)| {
            pending.batches.iter().map(|batch| (name.clone(), batch.clone())).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(each).collect()
    }
}

/// The name of a part of what a rule keeps over final rows: `<fingerprint of the rule>/<taken up to, µs>/<part>`.
fn stage_name(fingerprint: &str, stage: &StageState) -> String {
    format!("{fingerprint}/{}/{}", stage.taken_us, stage.part)
}

/// What the name of a part says.
pub(super) fn read_stage_name(name: &str) -> Option<(&str, i64, usize)> {
    let mut parts = name.split('/');
    let read = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(read)
}

/// Rows of a state that are stored as one batch.
const PIECE_ROWS: usize = 64 * 1024;

/// Memory that a batch alone holds. Columns without a value share one array of nulls from batch to batch.
pub(crate) fn held_bytes(batch: &RecordBatch) -> u64 {
    let filled = batch.columns().iter().filter(|column| column.null_count() < column.len());
    filled.map(|column| column.get_array_memory_size() as u64).sum()
}

/// Bytes of the values of a batch, of whatever memory they are a part.
fn filled_bytes(batch: &RecordBatch) -> u64 {
    let of_column = |column: &ArrayRef| {
        let data = column.to_data();
        data.get_slice_memory_size().unwrap_or_else(|_error| data.get_array_memory_size()) as u64
    };
    batch.columns().iter().map(of_column).sum()
}

impl Coordinator {
    /// Whether anything happened since the last checkpoint.
    pub(super) fn worth_a_checkpoint(&self, raw: &BTreeMap<usize, Vec<RecordBatch>>) -> bool {
        let u = &self.uncommitted;
        !raw.is_empty()
            || !u.results.is_empty()
            || !u.alerts.is_empty()
            || !u.system_rows.is_empty()
            || u.corrected
            || !u.adds.is_empty()
            || !u.pending.tables.is_empty()
            || u.idle_advances.values().any(|advances| !advances.is_empty())
            || self.lanes.values().any(|s| s.begun && s.committed_offset != Some(s.section.published))
            || self.lanes.values().any(|s| s.section.ended && !s.ended_committed)
    }

    /// Commits everything gathered as one link and rolls it forward.
    pub(super) async fn commit(&mut self, checkpoint: bool, raw: BTreeMap<usize, Vec<RecordBatch>>) -> Result<()> {
        let started = Instant::now();
        let tag = self.next_tag();
        let alerts = std::mem::take(&mut self.uncommitted.alerts);
        let told_early = std::mem::take(&mut self.uncommitted.told);
        let published_now = self.gather_rows(&alerts)?;
        let mut epoch = Epoch {
            checkpoint: if checkpoint { self.chain.next } else { self.checkpoint_n },
            rules_revision: self.rules_revision.clone(),
            references: self.references.clone(),
            alert_changes: self.lifecycle.take_changes(),
            alerts,
            ..Epoch::default()
        };
        let raw_bytes = raw.values().flatten().map(held_bytes).sum::<u64>();
        if checkpoint {
            let (age, bytes) = (self.settings.file_age, self.settings.file_bytes);
            let ending = self.source_commands.is_empty();
            let is_ripe = |b, a| ending || b >= bytes || a >= age;
            let ripe = self.uncommitted.pending.take_ripe(is_ripe, self.settings.results_bytes / 2);
            let state = self.state_rows()?;
            let whole = state.whole;
            let stages = self.stage_rows()?;
            let pending = self.uncommitted.pending.frames();
            let (adds, state_objects, stage_objects, rows_object, ()) = futures::try_join!(
                self.write_files(raw, ripe, &tag),
                self.write_objects("state", state.rows),
                self.write_objects("stages", stages),
                self.write_frames("rows", pending),
                self.write_alert_state(&mut epoch),
            )?;
            (epoch.adds, epoch.rows_object) = (adds, rows_object);
            epoch.stage_objects = stage_objects.into_iter().map(|object| object.path).collect();
            epoch.state_objects = if whole { Vec::new() } else { self.state_objects.clone() };
            self.state_written.note(whole, &state_objects);
            epoch.state_objects.extend(state_objects.into_iter().map(|object| object.path));
        } else {
            epoch.rows_object = self.write_frames("rows", published_now).await?;
        }
        for (table, files) in std::mem::take(&mut self.uncommitted.adds) {
            epoch.adds.entry(table).or_default().extend(files);
        }
        epoch.lanes = self.sections(checkpoint);
        epoch.waiting = self.still_waiting();
        epoch.system = self.system.iter().map(|of| of.section(checkpoint)).collect();
        epoch.exchange = self.exchange_section(&epoch.lanes, checkpoint).await?;
        // It says what was told.
        epoch.rules = self.known_progress();
        let n = self.chain.commit(epoch.clone()).await?;
        self.after_commit(n, checkpoint, &epoch);
        // Only now are the buffers free: a link names the files with the rows, or they are few.
        let letter_bytes = if checkpoint { std::mem::take(&mut self.uncommitted.letter_bytes) } else { 0 };
        self.progress.buffered_bytes.fetch_sub(raw_bytes + letter_bytes, Ordering::Relaxed);
        let files = epoch.adds.values().map(Vec::len).sum();
        let told = epoch.alerts.len();
        self.roll_forward(n, &epoch, &told_early, false).await?;
        self.early_failed = false;
        if checkpoint {
            self.clean_up(n, &epoch).await;
        }
        events::Committed { n, checkpoint, files, alerts: told, took: started.elapsed() }.emit();
        Ok(())
    }

    /// What the link says of the exchange with other slots; what it tells them is written first.
    async fn exchange_section(
        &mut self,
        lanes: &[LaneSection],
        checkpoint: bool,
    ) -> Result<Option<wattline_core::manifest::Exchange>> {
        let outbox = match self.outgoing(lanes, checkpoint) {
            Some(outgoing) => Some(self.write_outbox(outgoing).await?),
            None => None,
        };
        let n = self.chain.next;
        Ok(self.exchange.as_ref().map(|exchange| exchange.section(outbox, n)))
    }

    /// How far the rules have come, by fingerprint. One that waits for its past is not known yet; in a job of several slots it is,
    /// as one that waits: what its lanes have told of it is told.
    fn known_progress(&self) -> BTreeMap<String, RuleProgress> {
        let known = (0..self.rules.len()).filter(|rule| self.exchange.is_some() || !self.waits(*rule));
        // Of rules of one text, of which some are at home in other slots, those here have more to say.
        let (elsewhere, here): (Vec<usize>, Vec<usize>) = known.partition(|rule| self.is_elsewhere(*rule));
        let progress = |rule: usize| {
            let mut progress = self.progress_of_rules[rule].clone();
            if let Some(shared) = &mut progress.shared {
                shared.awaits_past = self.waits(rule);
            }
            (self.rules[rule].fingerprint.clone(), progress)
        };
        elsewhere.into_iter().chain(here).map(progress).collect()
    }

    /// Names the files of one call to the archive.
    pub(super) fn next_tag(&mut self) -> FileTag {
        let part = self.uncommitted.parts;
        self.uncommitted.parts += 1;
        let (chain, nonce) = (self.settings.slot.clone(), self.settings.nonce.clone());
        FileTag { chain, n: self.chain.next, part, nonce }
    }

    /// Writes results into files before the link that will name them, if there are so many.
    pub(super) async fn write_early(&mut self) -> Result<()> {
        let bytes: u64 = self.uncommitted.results.iter().map(|(_, batch)| held_bytes(batch)).sum();
        if bytes < self.settings.results_bytes {
            return Ok(());
        }
        let mut tables: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
        for (table, batch) in std::mem::take(&mut self.uncommitted.results) {
            tables.entry(table).or_default().push(batch);
        }
        let tag = self.next_tag();
        let adds = self.write_files(BTreeMap::new(), tables.into_iter().collect(), &tag).await?;
        for (table, files) in adds {
            self.uncommitted.adds.entry(table).or_default().extend(files);
        }
        Ok(())
    }

    /// Turns what was gathered into rows of tables, and puts them with the pending ones.
    fn gather_rows(&mut self, alerts: &[AlertRecord]) -> Result<Vec<(String, RecordBatch)>> {
        let mut rows = std::mem::take(&mut self.uncommitted.results);
        if !alerts.is_empty() {
            rows.push((table::ALERTS.to_owned(), table::alert_batch(alerts)?));
        }
        rows.append(&mut self.uncommitted.system_rows);
        for (name, batch) in &rows {
            self.uncommitted.pending.push(name.clone(), batch.clone());
        }
        Ok(rows)
    }

    pub(super) async fn write_files(
        &self,
        raw: BTreeMap<usize, Vec<RecordBatch>>,
        mut tables: Vec<(String, Vec<RecordBatch>)>,
        tag: &FileTag,
    ) -> Result<BTreeMap<String, Vec<AddedFile>>> {
        for (stream, batches) in raw {
            if let Some(spec) = &self.streams[stream].table {
                tables.push((spec.name.clone(), batches));
            }
        }
        let written = tables.into_iter().map(|(name, batches)| async move {
            // A try that fails leaves files that no link names; batches are shared, not copied.
            let what = format!("writing files of table `{name}`");
            let write = || self.archive.write_files(&name, batches.clone(), tag);
            let files = crate::retry::until_done(&what, &self.progress, write).await?;
            Ok::<_, Error>((name, files))
        });
        Ok(try_join_all(written).await?.into_iter().collect())
    }

    /// What a checkpoint stores of the state of the rules: what changed, or all of it from time to time.
    fn state_rows(&mut self) -> Result<StateRows> {
        let whole = self.state_written.asks_for_whole();
        let mut changes = std::mem::take(&mut self.uncommitted.deltas);
        changes.retain(|delta| !self.is_awaited(delta.state));
        let deltas: Deltas = match whole {
            true => self.final_program.dump().map_err(|reason| bad_state("state", reason))?,
            false => Box::new(changes.into_iter().map(Ok)),
        };
        let taken_us: Vec<i64> = (0..self.states.len()).map(|state| self.final_program.taken_us(state)).collect();
        let fingerprints: Vec<String> = self.states.iter().map(|state| state.fingerprint.clone()).collect();
        // What was taken out of the state is out, or part of this epoch, or kept by the stages of a rule.
        let rows = deltas.filter_map(move |delta| match delta {
            Ok(delta) if delta.final_at_us <= taken_us[delta.state] => None,
            Ok(delta) => Some(Ok((fingerprints[delta.state].clone(), delta.batch))),
            Err(reason) => Some(Err(bad_state("state", reason))),
        });
        Ok(StateRows { whole, rows: Box::new(rows) })
    }

    /// What the rules keep over final rows, whole.
    fn stage_rows(&mut self) -> Result<NamedRows> {
        let stages = self.final_program.dump_stages().map_err(|reason| bad_state("stages", reason))?;
        let fingerprints: Vec<String> = self.rules.iter().map(|rule| rule.fingerprint.clone()).collect();
        Ok(Box::new(stages.filter_map(move |stage| match stage {
            Ok(stage) => {
                let fingerprint = &fingerprints[stage.rule];
                // Rules of one text have one fingerprint and keep the same: it is stored once.
                let is_first = fingerprints.iter().position(|of| of == fingerprint) == Some(stage.rule);
                let is_filled = stage.batch.num_rows() > 0;
                (is_first && is_filled).then(|| Ok((stage_name(fingerprint, &stage), stage.batch)))
            }
            Err(reason) => Some(Err(bad_state("stages", reason))),
        })))
    }

    /// Writes rows into as many objects as it takes.
    async fn write_objects(&self, what: &str, rows: NamedRows) -> Result<Vec<StateObject>> {
        let (mut objects, mut frames, mut bytes) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            let (name, batch) = row?;
            // A state may be one batch. Whoever restores it reads objects aside, and takes in a few rows at a time.
            for from in (0..batch.num_rows()).step_by(PIECE_ROWS) {
                let piece = batch.slice(from, PIECE_ROWS.min(batch.num_rows() - from));
                bytes += filled_bytes(&piece);
                frames.push((name.clone(), piece));
                if bytes >= self.settings.object_bytes {
                    bytes = 0;
                    objects.extend(self.write_object(what, objects.len(), std::mem::take(&mut frames)).await?);
                }
            }
        }
        objects.extend(self.write_object(what, objects.len(), frames).await?);
        Ok(objects)
    }

    async fn write_object(
        &self,
        what: &str,
        part: usize,
        rows: Vec<(String, RecordBatch)>,
    ) -> Result<Option<StateObject>> {
        let written = self.put_frames(self.chain.object_path(what, &format!("{part}.frames")), rows).await?;
        Ok(written.map(|(path, bytes)| StateObject { path, bytes }))
    }

    async fn write_alert_state(&self, epoch: &mut Epoch) -> Result<()> {
        epoch.alert_state_object.clone_from(&self.alert_state_object);
        if self.alert_states_changed || !epoch.alert_changes.is_empty() {
            let path = self.chain.object_path("alert-state", "json");
            let body = serde_json::to_vec(&self.lifecycle.snapshot())
                .map_err(|e| Error::BadObject { path: path.clone(), reason: e.to_string() })?;
            self.chain.put_object(&path, Bytes::from(body)).await?;
            epoch.alert_state_object = Some(path);
        }
        Ok(())
    }

    async fn write_frames(&self, what: &str, rows: Vec<(String, RecordBatch)>) -> Result<Option<String>> {
        Ok(self.put_frames(self.chain.object_path(what, "frames"), rows).await?.map(|(path, _bytes)| path))
    }

    /// Writes rows, if there are any, into an object; gives its path and its size.
    async fn put_frames(&self, path: String, rows: Vec<(String, RecordBatch)>) -> Result<Option<(String, u64)>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let body = aside(&*self.threads, || format!("writing `{path}`"), move || frames::write(&rows)).await??;
        let bytes = body.len() as u64;
        self.chain.put_object(&path, body).await?;
        Ok(Some((path, bytes)))
    }

    /// The positions of all lanes; a checkpoint moves the resume offset up to what is processed. That is less than
    /// what is published while a lane re-reads: then the checkpoint repeats the verdicts that are still needed.
    fn sections(&mut self, checkpoint: bool) -> Vec<LaneSection> {
        let mut sections: Vec<LaneSection> = Vec::with_capacity(self.dormant.len() + self.lanes.len());
        for (section, replay) in self.dormant.values() {
            let (idle_advances, refused) = if checkpoint { replay.verdicts() } else { Default::default() };
            sections.push(LaneSection { idle_advances, refused, gaps: Vec::new(), ..section.clone() });
        }
        for (lane, status) in self.lanes.iter().filter(|(_, status)| status.begun) {
            let mut section = status.section.clone();
            section.generation = self.chain.held.get(lane).copied().unwrap_or_default();
            section.idle_advances = self.uncommitted.idle_advances.remove(lane).unwrap_or_default();
            section.refused = self.uncommitted.refused.remove(lane).unwrap_or_default();
            section.gaps = self.uncommitted.gaps.remove(lane).unwrap_or_default();
            if checkpoint {
                (section.archive, section.state) = (status.processed, status.processed);
                section.resume_reached_us = section.reached_us;
                if status.processed < section.published {
                    let (idle_advances, refused) = status.replay.verdicts();
                    section.idle_advances.splice(0..0, idle_advances);
                    section.refused.extend(refused);
                }
            }
            sections.push(section);
        }
        sections
    }

    /// Brings memory in line with the link that now exists.
    fn after_commit(&mut self, n: u64, checkpoint: bool, epoch: &Epoch) {
        for section in &epoch.lanes {
            if let Some(status) = self.lanes.get_mut(&section.lane) {
                status.committed_offset = Some(section.published);
                status.ended_committed = section.ended;
                status.doubt = Doubt::default();
                status.section.archive = section.archive;
                status.section.state = section.state;
                status.section.resume_reached_us = section.resume_reached_us;
            }
        }
        self.system.iter_mut().zip(&epoch.system).for_each(|(of, section)| of.note_committed(section));
        self.alert_states_changed = !checkpoint && (self.alert_states_changed || !epoch.alert_changes.is_empty());
        if checkpoint {
            self.checkpoint_n = n;
            self.checkpoint_first = false;
        }
        for record in &epoch.alerts {
            if self.sample_alerts.len() < super::SAMPLE_ALERTS
                && !self.sample_alerts.iter().any(|known| known.rule_id == record.rule_id)
            {
                self.sample_alerts.push(record.clone());
            }
        }
        self.uncommitted.corrected = false;
        self.uncommitted.parts = 0;
        Progress::add(&self.progress.epochs, 1);
        Progress::add(&self.progress.alerts, epoch.alerts.len());
    }
}

fn bad_state(what: &str, reason: String) -> Error {
    Error::BadObject { path: format!("{what} of the rules"), reason }
}
