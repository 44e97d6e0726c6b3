//! Lines of text files, plain or packed, as blocks of records.
//!
//! The number of a record is its line for NDJSON, blank lines counted though not handed over, so that a dead letter
//! can be found with any editor. In CSV the record after the header has number 0 and a record may span lines while a
//! quote is open. A quote that is never closed would swallow the rest of the file; the size limit stops it, and reading
//! goes on at the next line.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use wattline_core::record::{LaneId, RecordBlock};

use super::{Compression, FileSourceConfig, open_file};
use crate::error::{Error, Result};
use crate::source::SourceEvent;

const BUFFER_BYTES: usize = 64 << 10;
/// The largest window that is accepted when unpacking zstd: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// What is kept of a record that is too large.
const HEAD_BYTES: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What stands next in a file.
enum Line {
    Record,
    Oversized { length_bytes: u64 },
    End,
}

/// One open text file.
pub(super) struct TextFile {
    lane: LaneId,
    path: PathBuf,
    compressed: bool,
    /// Whether quotes may hide line ends and the first line is a header.
    csv: bool,
    input: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    /// Number of the record that is read next.
    next_record: i64,
    /// Records before this one are skipped.
    first_wanted: i64,
    at_start: bool,
}

impl TextFile {
    pub(super) fn open(
        path: &Path,
        compression: Compression,
        csv: bool,
        lane: LaneId,
        first_wanted: i64,
    ) -> Result<Self> {
        let file = open_file(path)?;
        let unpacked: Box<dyn Read + Send> = match compression {
            Compression::Plain => Box::new(file),
            Compression::Gzip => {
                Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file)))
            }
            Compression::Zstd => Box::new(zstd_reader(file).map_err(|source| Error::File {
                doing: "unpack",
                path: path.to_owned(),
                source,
            })?),
        };
        Ok(Self {
            lane,
            path: path.to_owned(),
            compressed: compression != Compression::Plain,
            csv,
            input: BufReader::with_capacity(BUFFER_BYTES, unpacked),
            line: Vec::new(),
            next_record: 0,
            first_wanted,
            at_start: true,
        })
    }

    /// Reads until a block is full or the file ends.
    pub(super) fn next_block(&mut self, config: &FileSourceConfig, fetched_at_ms: i64) -> Result<Vec<SourceEvent>> {
        let mut events = Vec::new();
        if self.at_start && self.csv {
            self.read_header(config, &mut events)?;
        }
        let mut block = RecordBlock::new(self.lane.clone(), fetched_at_ms);
        while block.len() < config.block_records_max.max(1) && block.bytes.len() < config.block_bytes_max.max(1) {
            let line = self.read_line(config.record_bytes_max)?;
            let offset = self.next_record;
            match line {
                Line::End => {
                    close(block, &mut events);
                    events.push(SourceEvent::Ended { lane: self.lane.clone(), next_offset: offset });
                    return Ok(events);
                }
                Line::Oversized { length_bytes } => {
                    self.next_record += 1;
                    if offset >= self.first_wanted {
                        close(
                            std::mem::replace(&mut block, RecordBlock::new(self.lane.clone(), fetched_at_ms)),
                            &mut events,
                        );
                        let head = self.line[..self.line.len().min(HEAD_BYTES)].to_vec();
                        events.push(SourceEvent::Oversized { lane: self.lane.clone(), offset, length_bytes, head });
                    }
                }
                Line::Record => {
                    self.next_record += 1;
                    if offset >= self.first_wanted && !self.line.trim_ascii().is_empty() {
                        block.push(offset, -1, &self.line);
                    }
                }
            }
        }
        close(block, &mut events);
        Ok(events)
    }

    fn read_header(&mut self, config: &FileSourceConfig, events: &mut Vec<SourceEvent>) -> Result<()> {
        match self.read_line(config.record_bytes_max)? {
            Line::Record => events.push(SourceEvent::Header { lane: self.lane.clone(), line: self.line.clone() }),
            Line::Oversized { .. } => {
                let reason = "its header line is larger than a record may be: is it really CSV?";
                return Err(Error::Pattern { pattern: self.path.to_string_lossy().into_owned(), reason });
            }
            Line::End => {}
        }
        Ok(())
    }

    /// Reads one record into `line`, without its line end.
    fn read_line(&mut self, record_bytes_max: usize) -> Result<Line> {
        self.line.clear();
        let outcome = read_record(&mut self.input, &mut self.line, self.csv, record_bytes_max);
        let line = outcome.map_err(|source| {
            let path = self.path.clone();
            if self.compressed {
                Error::Corrupt { path, record: self.next_record, source }
            } else {
                Error::File { doing: "read", path, source }
            }
        })?;
        if std::mem::take(&mut self.at_start) && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(line)
    }
}

fn close(block: RecordBlock, events: &mut Vec<SourceEvent>) {
    if !block.is_empty() {
        events.push(SourceEvent::Records(block));
    }
}

fn zstd_reader(file: std::fs::File) -> std::io::Result<zstd::stream::read::Decoder<'static, BufReader<std::fs::File>>> {
    let mut reader = zstd::stream::read::Decoder::new(file)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(reader)
}

/// Reads up to the line end that closes a record; `line` never grows beyond the limit and one byte.
fn read_record(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    csv: bool,
    record_bytes_max: usize,
) -> std::io::Result<Line> {
    let mut quotes = 0_usize;
    loop {
        let before = line.len();
        // Room for the line end, which does not count.
        let room = (record_bytes_max + 2).saturating_sub(before);
        let read = Read::take(&mut *input, room as u64).read_until(b'\n', line)?;
        let complete = line.last() == Some(&b'\n');
        if read == 0 && room > 0 {
            trim_line_end(line);
            return Ok(if before == 0 { Line::End } else { Line::Record });
        }
        if csv {
            quotes += line[before..].iter().filter(|byte| **byte == b'"').count();
        }
        let open = csv && quotes % 2 == 1;
        if complete && !open {
            trim_line_end(line);
            return Ok(if line.len() > record_bytes_max { oversized(line, 0) } else { Line::Record });
        }
        if line.len() > record_bytes_max + 1 {
            let rest = if complete { 0 } else { input.skip_until(b'\n')? };
            return Ok(oversized(line, rest as u64));
        }
        if !complete && read < room {
            // The end of the file without a line end.
            return Ok(if line.len() > record_bytes_max { oversized(line, 0) } else { Line::Record });
        }
    }
}

fn oversized(line: &[u8], rest: u64) -> Line {
    Line::Oversized { length_bytes: line.len() as u64 + rest }
}

fn trim_line_end(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
}
