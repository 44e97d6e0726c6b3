//! Files as a bounded source: one lane per file, records numbered from 0.
//!
//! A pattern is resolved once, when the source is opened, into a list sorted by path. Files are read in turns, a block
//! from each, so that files that hold the same period in parts (one per device, one per region) come in roughly the
//! order of events. At most `open_files_max` files are open at once; later ones wait until one ends, and since a lane
//! that has not begun holds the watermark of its stream, windows close late but never wrongly.
//!
//! The text of a path, as given or matched, is the name of its lane: it must stay the same (and the file unchanged)
//! from one run to the next for reading to resume where it stopped. Resuming reads the file from its start and skips.
//!
//! Memory: one block, and per open file a buffer of 64 KiB plus the window of its compression (at most 128 MiB for
//! zstd files made with `--ultra` or `--long`, 8 MiB ordinarily). Unpacking is streaming, so a small file that unpacks
//! to a huge one costs time and not memory.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use wattline_core::record::LaneId;

use crate::error::{Error, Result};
use crate::source::{ClockMs, SourceEvent};

mod columns;
mod text;

use columns::ColumnFile;
use text::TextFile;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON value per line.
    Ndjson,
    /// Comma-separated values with a header line; a quoted value may hold line ends.
    Csv,
    /// Parquet.
    Parquet,
}

/// How text is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// How to read files.
#[derive(Debug, Clone)]
pub struct FileSourceConfig {
    /// A path, or a pattern with `*`, `?`, `[…]` or `**`.
    pub pattern: String,
    /// The format, if names do not tell it. Compression always follows from the name.
    pub format: Option<FileFormat>,
    /// A longer record is not handed over but reported as [`SourceEvent::Oversized`].
    pub record_bytes_max: usize,
    /// Most records in a block.
    pub block_records_max: usize,
    /// A block is closed when it has reached this size.
    pub block_bytes_max: usize,
    /// Most files open at once.
    pub open_files_max: usize,
}

impl FileSourceConfig {
    /// Reads what `pattern` matches, with the default limits.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            format: None,
            record_bytes_max: 1 << 20,
            block_records_max: 8192,
            block_bytes_max: 4 << 20,
            open_files_max: 64,
        }
    }
}

/// The files of one stream.
pub struct FileSource {
    config: FileSourceConfig,
    lanes: Vec<LaneId>,
    files: Vec<Slot>,
    turn: usize,
    clock: ClockMs,
}

/// One file and how far it is.
struct Slot {
    path: PathBuf,
    format: FileFormat,
    compression: Compression,
    paused: bool,
    stage: Stage,
}

enum Stage {
    /// Not started by the caller.
    Silent,
    /// To be opened at this offset.
    Waiting(i64),
    Text(Box<TextFile>),
    Columns(Box<ColumnFile>),
    Ended,
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("config", &self.config).field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl FileSource {
    /// Finds the files and checks that each can be opened.
    ///
    /// # Errors
    /// [`Error::NoSuchFile`], [`Error::NoMatch`], [`Error::Pattern`], [`Error::UnknownFormat`], [`Error::File`].
    pub fn open(config: FileSourceConfig, clock: ClockMs) -> Result<Self> {
        let mut files = Vec::new();
        for path in find(&config.pattern)? {
            let (named, compression) = format_of(&path);
            let format = config.format.or(named).ok_or_else(|| Error::UnknownFormat { path: path.clone() })?;
            open_file(&path)?;
            files.push(Slot { path, format, compression, paused: false, stage: Stage::Silent });
        }
        let lanes = files.iter().map(|file| LaneId::new(file.path.to_string_lossy(), 0)).collect();
        Ok(Self { config, lanes, files, turn: 0, clock })
    }

    /// One lane per file, sorted by path.
    pub fn lanes(&self) -> &[LaneId] {
        &self.lanes
    }

    /// Begins a lane at a record number: 0, or the `next_offset` up to which it was read before.
    ///
    /// # Errors
    /// [`Error::NotAssigned`] if there is no such file in this source.
    pub fn start(&mut self, lane: &LaneId, next_offset: i64) -> Result<()> {
        self.slot(lane)?.stage = Stage::Waiting(next_offset);
        Ok(())
    }

    /// Leaves a lane out of the turns.
    ///
    /// # Errors
    /// [`Error::NotAssigned`] if there is no such file in this source.
    pub fn pause(&mut self, lane: &LaneId) -> Result<()> {
        self.slot(lane)?.paused = true;
        Ok(())
    }

    /// Takes a lane back into the turns.
    ///
    /// # Errors
    /// [`Error::NotAssigned`] if there is no such file in this source.
    pub fn resume(&mut self, lane: &LaneId) -> Result<()> {
        self.slot(lane)?.paused = false;
        Ok(())
    }

    /// The next block of the file whose turn it is; nothing if every started lane has ended or is paused.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Corrupt`], [`Error::ParquetInput`]: the lane then ends without [`SourceEvent::Ended`].
    pub fn poll(&mut self) -> Result<Vec<SourceEvent>> {
        let mut open =
            self.files.iter().filter(|file| matches!(file.stage, Stage::Text(_) | Stage::Columns(_))).count();
        for step in 0..self.files.len() {
            let index = (self.turn + step) % self.files.len();
            let file = &mut self.files[index];
            if file.paused {
                continue;
            }
            if let Stage::Waiting(next_offset) = file.stage
                && open < self.config.open_files_max.max(1)
            {
                let lane = self.lanes[index].clone();
                file.stage = Stage::Ended;
                file.stage = open_stage(file, lane, next_offset, &self.config)?;
                open += 1;
            }
            let block = match &mut file.stage {
                Stage::Text(text) => text.next_block(&self.config, (self.clock)()),
                Stage::Columns(columns) => columns.next_batch((self.clock)()),
                Stage::Silent | Stage::Waiting(_) | Stage::Ended => continue,
            };
            self.turn = index + 1;
            let ended = !matches!(&block, Ok(events) if !matches!(events.last(), Some(SourceEvent::Ended { .. })));
            if ended {
                file.stage = Stage::Ended;
            }
            return block;
        }
        Ok(Vec::new())
    }

    fn slot(&mut self, lane: &LaneId) -> Result<&mut Slot> {
        let index = self.lanes.iter().position(|known| known == lane);
        match index {
            Some(index) => Ok(&mut self.files[index]),
            None => Err(Error::NotAssigned { lane: lane.clone() }),
        }
    }
}

fn open_stage(file: &Slot, lane: LaneId, next_offset: i64, config: &FileSourceConfig) -> Result<Stage> {
    Ok(match file.format {
        FileFormat::Parquet => {
            Stage::Columns(Box::new(ColumnFile::open(&file.path, lane, next_offset, config.block_records_max)?))
        }
        FileFormat::Csv | FileFormat::Ndjson => {
            let with_header = file.format == FileFormat::Csv;
            Stage::Text(Box::new(TextFile::open(&file.path, file.compression, with_header, lane, next_offset)?))
        }
    })
}

fn open_file(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::NoSuchFile { path: path.to_owned() },
        _ => Error::File { doing: "open", path: path.to_owned(), source },
    })?;
    let about = file.metadata().map_err(|source| Error::File { doing: "examine", path: path.to_owned(), source })?;
    if about.is_dir() {
        let reason = "it is a directory: name the files in it, such as `directory/*.ndjson`";
        return Err(Error::Pattern { pattern: path.to_string_lossy().into_owned(), reason });
    }
    Ok(file)
}

/// The files of a path or pattern, sorted. A path without a pattern is not looked for.
///
/// # Errors
/// [`Error::NoMatch`], [`Error::Pattern`], [`Error::File`].
pub fn find(pattern: &str) -> Result<Vec<PathBuf>> {
    let literal = Path::new(pattern);
    if !pattern.contains(['*', '?', '[']) || literal.exists() {
        return Ok(vec![literal.to_owned()]);
    }
    let matches =
        glob::glob(pattern).map_err(|error| Error::Pattern { pattern: pattern.to_owned(), reason: error.msg })?;
    let mut paths = Vec::new();
    for found in matches {
        let path = found.map_err(|error| Error::File {
            doing: "list",
            path: error.path().to_owned(),
            source: error.into(),
        })?;
        if !path.is_dir() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Error::NoMatch { pattern: pattern.to_owned() });
    }
    paths.sort();
    Ok(paths)
}

/// The format that the endings of a name say, if they do.
pub fn format_by_name(path: &Path) -> Option<FileFormat> {
    format_of(path).0
}

/// What the endings of a name say.
fn format_of(path: &Path) -> (Option<FileFormat>, Compression) {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let (stem, compression) = match name.rsplit_once('.') {
        Some((stem, "gz" | "gzip")) => (stem, Compression::Gzip),
        Some((stem, "zst" | "zstd")) => (stem, Compression::Zstd),
        Some(_) | None => (name.as_str(), Compression::Plain),
    };
    let format = match stem.rsplit_once('.').map(|(_, ending)| ending) {
        Some("ndjson" | "jsonl" | "json") => Some(FileFormat::Ndjson),
        Some("csv") => Some(FileFormat::Csv),
        Some("parquet") if compression == Compression::Plain => Some(FileFormat::Parquet),
        Some(_) | None => None,
    };
    (format, compression)
}

#[cfg(test)]
mod tests;
