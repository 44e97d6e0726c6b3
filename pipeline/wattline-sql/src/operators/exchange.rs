//! The exchange in front of a stage that looks at several rows of one key.
//!
//! ```text
//!                          ┌─▶ second-stage lane 0: what the stage keeps of its keys ─┐
//! final rows ─hash of key──┼─▶ second-stage lane 1                                    ├─▶ rows that the watermark makes final
//!                          └─▶ …          (on disk, if memory does not hold it)       ─┘
//! ```
//! Rows arrive here from all lanes of the first stage, by whatever their key was there. A second-stage lane has all rows of a key
//! and works on its own: several at a time, each in a thread. A stage begins with one of them and has more as what it keeps grows; a
//! stage without key columns has one for ever.
//!
//! What a lane keeps may lie in a scratch file. Rows for it are then appended to the file, and the file is read when the watermark
//! makes something final: only as many lanes are in memory at once as there are threads. What a lane keeps of one key, and what
//! it gives for one watermark, must fit. What the disk does not take, as it is full, stays in memory: an advance goes on with it, and gives
//! what it has as a part, so that whoever drives it can wait for room before more of it comes into memory ([`Exchanged::take_put_off`]).
//!
//! Between two advances nothing is on its way: whoever takes a snapshot then finds every row in a lane.

use std::fmt;
use std::mem;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::spill::{Run, RunWriter, Scratch, in_own_buffers, in_slices, is_of_writing, without_spare_bytes};

/// Into so many each lane is split.
const SPLIT: usize = 8;
/// Most lanes of a stage: each may be an open file. With so many, as many as there are threads fit into the share of memory
/// though all together have hundreds of times as much.
const LANES_MAX: usize = 512;
/// Memory of the only lane of a stage at which it is split, so that several threads have work.
const SPLIT_BYTES: usize = 8 << 20;
/// Memory of a lane below which it is not split, however small the share is.
const SPLIT_BYTES_MIN: usize = 16 << 10;
/// Which part of the share a lane may have before all are split, and which part all lanes together may have that stay in memory.
const LANE_SHARE: usize = 8;
const REST_SHARE: usize = 4;
/// Rows below which another thread is not worth it.
const THREAD_ROWS: usize = 8 * 1024;
/// Not the seed of the hash tables in the lanes: all keys of a lane have some bits of this hash in common.
const SEED: u64 = 0x6c61_6e65;

/// A stage that keeps rows, or what became of them, by key: what one second-stage lane does.
pub(crate) trait KeyedStage: fmt::Debug + Send + Sized {
    /// What the stage does.
    type Spec: fmt::Debug + Send + Sync;

    /// Without anything kept.
    fn new(spec: Arc<Self::Spec>) -> Self;

    /// Whether there are key columns; else all rows belong together.
    fn has_keys(spec: &Self::Spec) -> bool;

    /// Rows as they are taken in. Messages of rows that cannot be computed go to `failures`.
    fn prepare(_spec: &Self::Spec, rows: RecordBatch, _failures: &mut Vec<String>) -> Result<Vec<RecordBatch>> {
        Ok(vec![rows])
    }

    /// The key columns of rows that are taken in; of a stage with several inputs the same for all.
    fn keys(spec: &Self::Spec, side: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>>;

    /// Takes rows of one input in. Gives out what needs no watermark.
    fn push(&mut self, side: usize, rows: &RecordBatch) -> Result<Vec<RecordBatch>>;

    /// Gives out what the watermark makes final.
    fn give(&mut self, watermark_us: i64) -> Result<Vec<RecordBatch>>;

    /// The lowest watermark at which [`give`](Self::give) finds something to do; `None` if there is none.
    fn due_us(&mut self) -> Result<Option<i64>>;

    /// Takes out everything that is kept, in numbered parts.
    fn take(&mut self) -> Result<Vec<(usize, RecordBatch)>>;

    /// The key columns of a part of what [`take`](Self::take) gives.
    fn keys_of_part(spec: &Self::Spec, part: usize, rows: &RecordBatch) -> Result<Vec<ArrayRef>>;

    /// Takes a part back, as it was when everything final at `given_us` had been given out. Parts of one key come in the order of
    /// their numbers, each perhaps in several batches.
    fn restore(&mut self, part: usize, rows: &RecordBatch, given_us: i64) -> Result<()>;

    /// Rows kept.
    fn rows(&self) -> usize;

    /// Memory held.
    fn bytes(&self) -> usize;
}

/// Rows that a stage has given, or a part of them.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) batches: Vec<RecordBatch>,
    /// The rest comes with the next call.
    pub(crate) more: bool,
}

/// A part of what a stage keeps.
#[derive(Debug, Clone)]
pub(crate) enum KeptPart {
    InMemory(RecordBatch),
    OnDisk(Run),
}

/// An [`Exchange`] of any stage.
pub(crate) trait Exchanged: fmt::Debug + Send {
    /// Takes rows of one input in.
    fn push(&mut self, side: usize, rows: RecordBatch, failures: &mut Vec<String>) -> Result<()>;

    /// Brings what was taken in to its lanes, and gives out what the watermark makes final, or some more than `part_rows` of it: then
    /// it is to be called again with the same watermark. Without a watermark there is more to be taken in first.
    fn advance(&mut self, watermark_us: Option<i64>, part_rows: usize) -> Result<Given>;

    /// What is kept, in numbered parts; it stays.
    fn dump(&mut self) -> Result<Vec<(usize, KeptPart)>>;

    /// Takes a part back, as it was when everything final at `given_us` had been given out.
    fn restore(&mut self, part: usize, rows: &RecordBatch, given_us: i64) -> Result<()>;

    /// Puts what is kept on disk. All states together have a share of so many bytes of memory. What the disk does not take stays.
    fn spill(&mut self, scratch: &Scratch, share_bytes: usize) -> Result<()>;

    /// Whether the disk did not take something since this was last asked.
    fn take_put_off(&mut self) -> bool;

    /// Rows kept.
    fn rows(&self) -> usize;

    /// Memory held.
    fn bytes(&self) -> usize;

    /// Memory that [`spill`](Self::spill) can give back.
    fn bytes_to_spill(&self) -> usize;
}

/// A stage, spread over second-stage lanes by key.
pub(crate) struct Exchange<S: KeyedStage> {
    spec: Arc<S::Spec>,
    lanes: Vec<Lane<S>>,
    /// Everything final at this watermark is out.
    given_us: i64,
    /// The first lane that has not given what the watermark makes final to which the lanes are going.
    next: usize,
    /// Where lanes go again that were on disk, and the share of all states.
    disk: Option<(Scratch, usize)>,
    /// The disk did not take something.
    put_off: bool,
    hashes: Vec<u64>,
}

/// All keys with some bits of their hash in common.
struct Lane<S> {
    kept: Kept<S>,
    /// Rows that came since the last advance, each with its input.
    pending: Vec<(usize, RecordBatch)>,
    /// The file that it came from, emptied: to make a new one takes longer.
    file: Option<RunWriter>,
    /// What is in memory has given everything final at this watermark, which is ahead of the stage's while others have not.
    given_us: i64,
    /// The disk did not take something of it.
    put_off: bool,
}

enum Kept<S> {
    InMemory(S),
    OnDisk(DiskLane),
}

/// What a lane keeps, on disk.
struct DiskLane {
    writer: RunWriter,
    parts: Vec<(usize, KeptPart)>,
    /// Rows that came later, each with its input.
    inputs: Vec<(usize, Run)>,
    due_us: Option<i64>,
    rows: usize,
    /// Memory that it took.
    bytes: usize,
}

/// Where lanes are going.
#[derive(Debug, Clone, Copy)]
struct Turn<'a> {
    watermark_us: Option<i64>,
    given_us: i64,
    /// Where lanes go that were on disk, unless they have become as little as this.
    disk: Option<(&'a Scratch, usize)>,
}

impl<S: KeyedStage> fmt::Debug for Exchange<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_disk = self.lanes.iter().filter(|lane| matches!(lane.kept, Kept::OnDisk(_))).count();
        f.debug_struct("Exchange").field("lanes", &self.lanes.len()).field("on_disk", &on_disk).finish_non_exhaustive()
    }
}

impl<S: KeyedStage> Exchange<S> {
    pub(crate) fn new(spec: Arc<S::Spec>) -> Self {
        let lanes = vec![Lane::new(&spec)];
        Self { spec, lanes, given_us: BEFORE_TIME, next: 0, disk: None, put_off: false, hashes: Vec::new() }
    }

    /// The rows of each of so many lanes that has some.
    fn by_lane(&mut self, lanes: usize, keys: &[ArrayRef], rows: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
        if lanes == 1 || keys.is_empty() {
            return Ok(vec![(0, rows.clone())]);
        }
        self.hashes.clear();
        self.hashes.resize(rows.num_rows(), 0);
        create_hashes(keys, &RandomState::with_seed(SEED), &mut self.hashes)?;
        let mut numbers: Vec<Vec<u32>> = vec![Vec::new(); lanes];
        for (row, hash) in (0_u32..).zip(&self.hashes) {
            numbers[usize::try_from(hash % lanes as u64).unwrap_or_default()].push(row);
        }
        let filled = numbers.into_iter().enumerate().filter(|(_, numbers)| !numbers.is_empty());
        let taken =
            |(lane, numbers)| Ok((lane, without_spare_bytes(&take_record_batch(rows, &UInt32Array::from(numbers))?)?));
        filled.map(taken).collect()
    }

    fn part_by_lane(&mut self, lanes: usize, part: usize, rows: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
        let keys = if lanes > 1 { S::keys_of_part(&self.spec, part, rows)? } else { Vec::new() };
        self.by_lane(lanes, &keys, rows)
    }

    /// Splits all lanes if one has grown too large, and nothing is on its way.
    fn split_if_worth(&mut self) -> Result<()> {
        let most = match &self.disk {
            Some((_, share_bytes)) => (share_bytes / LANE_SHARE).max(SPLIT_BYTES_MIN),
            None if self.lanes.len() == 1 => SPLIT_BYTES,
            None => return Ok(()),
        };
        let may_split = S::has_keys(&self.spec) && self.lanes.len() < LANES_MAX;
        let is_on_its_way = |lane: &Lane<S>| {
            !lane.pending.is_empty() || matches!(&lane.kept, Kept::OnDisk(disk) if !disk.inputs.is_empty())
        };
        if !may_split || self.next > 0 || self.lanes.iter().any(is_on_its_way) {
            return Ok(());
        }
        if self.lanes.iter().any(|lane| lane.whole_bytes() > most) { self.split() } else { Ok(()) }
    }

    /// Lane n of m becomes lanes n, n + m, n + 2 m, …; those of a lane on disk go there. These come first, and stay where they are until all
    /// of them are in the new ones: if the disk is full, nothing has changed.
    fn split(&mut self) -> Result<()> {
        let count = self.lanes.len() * SPLIT;
        let mut lanes: Vec<Lane<S>> = (0..count).map(|_| Lane::new(&self.spec)).collect();
        for (number, lane) in self.lanes.iter().enumerate() {
            debug_assert!(lane.pending.is_empty(), "lane {number} has rows that nobody would bring to the new lanes");
        }
        for number in 0..self.lanes.len() {
            let Kept::OnDisk(disk) = &self.lanes[number].kept else { continue };
            let parts = disk.load::<S>(&self.spec, self.given_us)?.take()?;
            let touched = self.spread(parts, &mut lanes)?;
            if let Some((scratch, share_bytes)) = &self.disk {
                let rest_bytes = share_bytes / REST_SHARE / count;
                for lane in touched {
                    lanes[lane].put_back(scratch, rest_bytes)?;
                }
            }
        }
        for lane in mem::take(&mut self.lanes) {
            let Kept::InMemory(mut stage) = lane.kept else { continue };
            let parts = stage.take()?;
            drop(stage);
            self.spread(parts, &mut lanes)?;
        }
        self.lanes = lanes;
        Ok(())
    }

    /// Brings what a lane kept to lanes that are in memory; says which have got some.
    fn spread(&mut self, parts: Vec<(usize, RecordBatch)>, lanes: &mut [Lane<S>]) -> Result<Vec<usize>> {
        let mut touched = Vec::new();
        for (part, rows) in parts.into_iter().filter(|(_, rows)| rows.num_rows() > 0) {
            for (lane, rows) in self.part_by_lane(lanes.len(), part, &rows)? {
                if let Kept::InMemory(stage) = &mut lanes[lane].kept {
                    stage.restore(part, &rows, self.given_us)?;
                    lanes[lane].given_us = self.given_us;
                    touched.push(lane);
                }
            }
        }
        Ok(touched)
    }

    /// Brings some lanes to where they are going, in threads if that is worth it; rows come in the order of the lanes.
    fn run(&mut self, lanes: Range<usize>, watermark_us: Option<i64>) -> Result<Vec<RecordBatch>> {
        let rest_bytes = |share_bytes: usize| share_bytes / REST_SHARE / self.lanes.len();
        let disk = self.disk.as_ref().map(|(scratch, share_bytes)| (scratch, rest_bytes(*share_bytes)));
        let turn = Turn { watermark_us, given_us: self.given_us, disk };
        let range = lanes.clone();
        let (spec, lanes) = (&self.spec, &mut self.lanes[lanes]);
        let rows: usize = lanes.iter().map(|lane| lane.work_rows(watermark_us)).sum();
        let threads = threads().min(1 + rows / THREAD_ROWS).min(lanes.len()).max(1);
        let run_all = |lanes: &mut [Lane<S>]| -> Result<Vec<RecordBatch>> {
            let given = lanes.iter_mut().map(|lane| lane.run(spec, turn)).collect::<Result<Vec<_>>>()?;
            Ok(given.into_iter().flatten().collect())
        };
        let given: Vec<Result<Vec<RecordBatch>>> = match threads {
            1 => vec![run_all(lanes)],
            _ => std::thread::scope(|scope| {
                let chunks = lanes.chunks_mut(lanes.len().div_ceil(threads));
                let running: Vec<_> = chunks.map(|lanes| scope.spawn(|| run_all(lanes))).collect();
                let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
                joined.map(|given| given.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            }),
        };
        for lane in &mut self.lanes[range] {
            self.put_off |= mem::take(&mut lane.put_off);
        }
        Ok(given.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

impl<S: KeyedStage> Exchanged for Exchange<S> {
    fn push(&mut self, side: usize, rows: RecordBatch, failures: &mut Vec<String>) -> Result<()> {
        for rows in S::prepare(&self.spec, rows, failures)?.into_iter().filter(|rows| rows.num_rows() > 0) {
            let keys = if self.lanes.len() > 1 { S::keys(&self.spec, side, &rows)? } else { Vec::new() };
            for (lane, rows) in self.by_lane(self.lanes.len(), &keys, &rows)? {
                self.lanes[lane].pending.push((side, rows));
            }
        }
        Ok(())
    }

    fn advance(&mut self, watermark_us: Option<i64>, part_rows: usize) -> Result<Given> {
        let lanes = self.lanes.len();
        let Some(to_us) = watermark_us else {
            return Ok(Given { batches: self.run(0..lanes, None)?, more: true });
        };
        let mut batches = Vec::new();
        let mut rows = 0;
        // What is in memory anyway may go at once.
        let some_on_disk = self.lanes.iter().any(|lane| matches!(lane.kept, Kept::OnDisk(_)));
        let at_once = if some_on_disk { threads() } else { lanes };
        while self.next < lanes {
            let until = lanes.min(self.next + at_once);
            let given = self.run(self.next..until, watermark_us)?;
            self.next = until;
            rows += given.iter().map(RecordBatch::num_rows).sum::<usize>();
            batches.extend(given);
            if (rows > part_rows || self.put_off) && self.next < lanes {
                return Ok(Given { batches, more: true });
            }
        }
        (self.next, self.given_us) = (0, to_us);
        if !self.put_off {
            let split = self.split_if_worth();
            self.put_off = put_off(split)?;
        }
        Ok(Given { batches, more: false })
    }

    fn dump(&mut self) -> Result<Vec<(usize, KeptPart)>> {
        debug_assert!(self.next == 0, "lanes that are not at the same watermark would give their rows again");
        let mut dumped = Vec::new();
        for lane in &mut self.lanes {
            match &mut lane.kept {
                Kept::InMemory(stage) => {
                    for (part, rows) in stage.take()?.into_iter().filter(|(_, rows)| rows.num_rows() > 0) {
                        stage.restore(part, &rows, self.given_us)?;
                        dumped.push((part, KeptPart::InMemory(rows)));
                    }
                }
                Kept::OnDisk(disk) => {
                    dumped.extend(disk.parts.iter().cloned());
                }
            }
        }
        Ok(dumped)
    }

    fn restore(&mut self, part: usize, rows: &RecordBatch, given_us: i64) -> Result<()> {
        self.given_us = self.given_us.max(given_us);
        // What stays is a part of what was read at once, and must not hold on to all of it.
        let rows = &in_own_buffers(rows)?;
        for (lane, rows) in self.part_by_lane(self.lanes.len(), part, rows)? {
            match &mut self.lanes[lane].kept {
                Kept::InMemory(stage) => {
                    stage.restore(part, &rows, given_us)?;
                    self.lanes[lane].given_us = given_us;
                }
                Kept::OnDisk(disk) => self.put_off |= disk.take_back(part, &rows)?,
            }
        }
        Ok(())
    }

    fn spill(&mut self, scratch: &Scratch, share_bytes: usize) -> Result<()> {
        if !S::has_keys(&self.spec) {
            return Ok(());
        }
        self.disk = Some((scratch.clone(), share_bytes));
        self.split_if_worth()?;
        let rest_bytes = share_bytes / REST_SHARE / self.lanes.len();
        self.lanes.iter_mut().try_for_each(|lane| lane.put_back(scratch, rest_bytes))
    }

    fn take_put_off(&mut self) -> bool {
        mem::take(&mut self.put_off)
    }

    fn rows(&self) -> usize {
        let pending = |lane: &Lane<S>| lane.pending.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
        self.lanes.iter().map(|lane| lane.kept_rows() + pending(lane)).sum()
    }

    fn bytes(&self) -> usize {
        let pending = |lane: &Lane<S>| lane.pending.iter().map(|(_, rows)| rows.get_array_memory_size()).sum::<usize>();
        let kept = |lane: &Lane<S>| match &lane.kept {
            Kept::InMemory(stage) => stage.bytes(),
            Kept::OnDisk(disk) => disk.bytes_in_memory(),
        };
        self.lanes.iter().map(|lane| kept(lane) + pending(lane)).sum()
    }

    fn bytes_to_spill(&self) -> usize {
        if S::has_keys(&self.spec) { self.bytes() } else { 0 }
    }
}

impl<S: KeyedStage> Lane<S> {
    fn new(spec: &Arc<S::Spec>) -> Self {
        Self {
            kept: Kept::InMemory(S::new(Arc::clone(spec))),
            pending: Vec::new(),
            file: None,
            given_us: BEFORE_TIME,
            put_off: false,
        }
    }

    fn kept_rows(&self) -> usize {
        match &self.kept {
            Kept::InMemory(stage) => stage.rows(),
            Kept::OnDisk(disk) => disk.rows + disk.inputs.iter().map(|(_, run)| run.rows).sum::<usize>(),
        }
    }

    /// Memory that it has, or would have.
    fn whole_bytes(&self) -> usize {
        match &self.kept {
            Kept::InMemory(stage) => stage.bytes(),
            Kept::OnDisk(disk) => disk.bytes,
        }
    }

    /// Rows that there may be something to do with.
    fn work_rows(&self, watermark_us: Option<i64>) -> usize {
        let all = watermark_us == Some(END_OF_TIME) || matches!(self.kept, Kept::OnDisk(_));
        let kept = if all { self.kept_rows() } else { 0 };
        kept + self.pending.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>()
    }

    fn run(&mut self, spec: &Arc<S::Spec>, turn: Turn<'_>) -> Result<Vec<RecordBatch>> {
        let pending = mem::take(&mut self.pending);
        let mut given = Vec::new();
        match (&mut self.kept, turn.watermark_us) {
            (Kept::InMemory(stage), watermark_us) => {
                for (side, rows) in &pending {
                    given.extend(stage.push(*side, rows)?);
                }
                if let Some(watermark_us) = watermark_us {
                    given.extend(stage.give(watermark_us)?);
                    self.given_us = watermark_us;
                }
            }
            (Kept::OnDisk(disk), None) => {
                self.pending = pending;
                self.put_off = put_off(disk.settle(&mut self.pending))?;
            }
            (Kept::OnDisk(disk), Some(watermark_us)) => {
                if pending.is_empty() && !disk.is_due(watermark_us) {
                    return Ok(given);
                }
                let mut stage = disk.load::<S>(spec, turn.given_us)?;
                for (side, run) in &disk.inputs {
                    for rows in run.batches()? {
                        given.extend(stage.push(*side, &rows?)?);
                    }
                }
                for (side, rows) in &pending {
                    given.extend(stage.push(*side, rows)?);
                }
                given.extend(stage.give(watermark_us)?);
                self.given_us = watermark_us;
                if let Kept::OnDisk(disk) = mem::replace(&mut self.kept, Kept::InMemory(stage)) {
                    self.file = disk.into_empty_file();
                }
                if let Some((scratch, rest_bytes)) = turn.disk {
                    let put_back = self.put_back(scratch, rest_bytes);
                    self.put_off = put_off(put_back)?;
                }
            }
        }
        Ok(given)
    }

    /// Puts what is in memory on disk, unless it is little.
    fn put_back(&mut self, scratch: &Scratch, rest_bytes: usize) -> Result<()> {
        match &mut self.kept {
            Kept::InMemory(stage) if stage.bytes() > rest_bytes => self.spill(scratch),
            Kept::InMemory(_) => {
                self.file = None;
                Ok(())
            }
            Kept::OnDisk(disk) => disk.settle(&mut self.pending),
        }
    }

    fn spill(&mut self, scratch: &Scratch) -> Result<()> {
        let Kept::InMemory(stage) = &mut self.kept else { return Ok(()) };
        let (bytes, rows, due_us) = (stage.bytes(), stage.rows(), stage.due_us()?);
        let parts: Vec<_> = stage.take()?.into_iter().filter(|(_, rows)| rows.num_rows() > 0).collect();
        if parts.is_empty() {
            return Ok(());
        }
        match write_parts(self.file.take(), scratch, &parts) {
            Ok((writer, parts)) => {
                self.kept = Kept::OnDisk(DiskLane { writer, parts, inputs: Vec::new(), due_us, rows, bytes });
                Ok(())
            }
            Err(error) => {
                parts.iter().try_for_each(|(part, rows)| stage.restore(*part, rows, self.given_us))?;
                Err(error)
            }
        }
    }
}

/// Writes parts into a file, an empty one or a new one.
fn write_parts(
    file: Option<RunWriter>,
    scratch: &Scratch,
    parts: &[(usize, RecordBatch)],
) -> Result<(RunWriter, Vec<(usize, KeptPart)>)> {
    let mut writer = match file {
        Some(file) => file,
        None => RunWriter::new(scratch, 0)?,
    };
    let mut written = Vec::with_capacity(parts.len());
    for (part, rows) in parts {
        written.push((*part, KeptPart::OnDisk(writer.write_all(&rows.schema(), in_slices(rows))?)));
    }
    Ok((writer, written))
}

/// Whether the disk did not take something, which then stays in memory until there is room.
fn put_off(written: Result<()>) -> Result<bool> {
    match written {
        Err(error) if is_of_writing(&error) => Ok(true),
        written => written.map(|()| false),
    }
}

impl DiskLane {
    fn is_due(&self, watermark_us: i64) -> bool {
        watermark_us == END_OF_TIME
            || !self.inputs.is_empty()
            || self.due_us.is_some_and(|due_us| due_us <= watermark_us)
    }

    fn load<S: KeyedStage>(&self, spec: &Arc<S::Spec>, given_us: i64) -> Result<S> {
        let mut stage = S::new(Arc::clone(spec));
        for (part, kept) in &self.parts {
            match kept {
                KeptPart::InMemory(rows) => stage.restore(*part, rows, given_us)?,
                KeptPart::OnDisk(run) => {
                    for rows in run.batches()? {
                        stage.restore(*part, &rows?, given_us)?;
                    }
                }
            }
        }
        Ok(stage)
    }

    /// The file without what was in it, unless a snapshot still reads that. One that cannot be emptied is not used again.
    fn into_empty_file(self) -> Option<RunWriter> {
        drop((self.parts, self.inputs));
        self.writer.emptied().unwrap_or_default()
    }

    /// Writes what is in memory, and rows that came since the last advance.
    fn settle(&mut self, pending: &mut Vec<(usize, RecordBatch)>) -> Result<()> {
        for (_, kept) in &mut self.parts {
            if let KeptPart::InMemory(rows) = kept {
                *kept = KeptPart::OnDisk(self.writer.write_all(&rows.schema(), in_slices(rows))?);
            }
        }
        while let Some((side, rows)) = pending.first() {
            self.append(*side, rows)?;
            pending.remove(0);
        }
        Ok(())
    }

    fn bytes_in_memory(&self) -> usize {
        let each = |(_, kept): &(usize, KeptPart)| match kept {
            KeptPart::InMemory(rows) => rows.get_array_memory_size(),
            KeptPart::OnDisk(_) => 0,
        };
        self.parts.iter().map(each).sum()
    }

    fn append(&mut self, side: usize, rows: &RecordBatch) -> Result<()> {
        let run = self.writer.write_all(&rows.schema(), in_slices(rows))?;
        self.inputs.push((side, run));
        Ok(())
    }

    /// A part of a snapshot; what is due then is known when all of it is read. Says whether the disk did not take it.
    fn take_back(&mut self, part: usize, rows: &RecordBatch) -> Result<bool> {
        let (kept, put_off) = match self.writer.write_all(&rows.schema(), in_slices(rows)) {
            Ok(run) => (KeptPart::OnDisk(run), false),
            Err(error) if is_of_writing(&error) => (KeptPart::InMemory(rows.clone()), true),
            Err(error) => return Err(error),
        };
        (self.due_us, self.rows) = (Some(BEFORE_TIME), self.rows + rows.num_rows());
        self.bytes += rows.get_array_memory_size();
        self.parts.push((part, kept));
        Ok(put_off)
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
