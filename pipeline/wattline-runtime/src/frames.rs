//! One object for many batches: pending rows of an epoch, state of the rules.
//!
//! Format: `WLF1`, a little-endian u32 length, a JSON header `[{"name": …, "len": …}, …]`, then as many Arrow
//! IPC streams with LZ4 buffers, one after the other: what lies in memory is written without conversion. The
//! SHA-256 of all bytes before it ends the object: a torn object is recognised, not misread.
//!
//! The header is filled up with spaces so that every stream begins at a multiple of eight bytes: what could not be compressed is
//! then not copied when it is read, and columns go on in the memory of the object.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const MAGIC: &[u8; 4] = b"WLF1";
const DIGEST_BYTES: usize = 32;
const ALIGNMENT: usize = 8;

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    len: usize,
}

/// Writes named batches into one object. Batches of one name may differ in schema.
///
/// # Errors
/// [`Error::Arrow`] if a batch cannot be written as Arrow IPC.
pub fn write(frames: &[(String, RecordBatch)]) -> Result<Bytes> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME));
    let options = options.map_err(Error::arrow("frames"))?;
    let mut bodies = Vec::new();
    let mut entries = Vec::with_capacity(frames.len());
    for (name, batch) in frames {
        let start = bodies.len();
        let writer = StreamWriter::try_new_with_options(&mut bodies, &batch.schema(), options.clone());
        let mut writer = writer.map_err(Error::arrow(name))?;
        writer.write(batch).and_then(|()| writer.finish()).map_err(Error::arrow(name))?;
        entries.push(Entry { name: name.clone(), len: bodies.len() - start });
    }
    let mut header = serde_json::to_vec(&entries).map_err(|e| damaged("frames", &e))?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let header_len = u32::try_from(header.len()).map_err(|e| damaged("frames", &e))?;
    let mut out = Vec::with_capacity(8 + header.len() + bodies.len() + DIGEST_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&header_len.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&bodies);
    let digest = Sha256::digest(&out);
    out.extend_from_slice(&digest);
    Ok(Bytes::from(out))
}

/// Reads an object back; `path` is for messages.
///
/// # Errors
/// [`Error::BadObject`] if the object is torn or not of this format.
pub fn read(path: &str, object: &Bytes) -> Result<Vec<(String, RecordBatch)>> {
    let bad = |reason: &str| Error::BadObject { path: path.to_owned(), reason: reason.to_owned() };
    let content_len = object.len().checked_sub(DIGEST_BYTES).ok_or_else(|| bad("it is too short"))?;
    let (content, digest) = object.split_at(content_len);
    if Sha256::digest(content).as_slice() != digest {
        return Err(bad("its checksum does not match"));
    }
    let rest = content.strip_prefix(MAGIC).ok_or_else(|| bad("it is not a frames object"))?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("it has no header"))?;
    let header_len = u32::from_le_bytes(*len) as usize;
    let header = rest.get(..header_len).ok_or_else(|| bad("its header is cut off"))?;
    let entries: Vec<Entry> = serde_json::from_slice(header).map_err(|e| damaged(path, &e))?;
    let (mut start, mut frames) = (content_len - rest.len() + header_len, Vec::new());
    for entry in entries {
        let end = start.checked_add(entry.len).filter(|end| *end <= content_len);
        let end = end.ok_or_else(|| bad("a frame is cut off"))?;
        let (mut stream, mut decoder) = (Buffer::from(object.slice(start..end)), StreamDecoder::new());
        while let Some(batch) = decoder.decode(&mut stream).map_err(|e| damaged(path, &e))? {
            frames.push((entry.name.clone(), batch));
        }
        decoder.finish().map_err(|e| damaged(path, &e))?;
        start = end;
    }
    Ok(frames)
}

fn damaged(path: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::BadObject { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn sample() -> Vec<(String, RecordBatch)> {
        let a = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as _)]).expect("batch");
        let b = RecordBatch::try_from_iter([("s", Arc::new(StringArray::from(vec!["x"])) as _)]).expect("batch");
        vec![("a".into(), a.clone()), ("b".into(), b), ("a".into(), a)]
    }

    #[test]
    fn frames_round_trip() {
        let frames = sample();
        assert_eq!(read("p", &write(&frames).expect("write")).expect("read"), frames);
        assert!(read("p", &write(&[]).expect("write")).expect("read").is_empty());
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let object = write(&sample()).expect("write");
        for at in [0, 5, 20, object.len() / 2, object.len() - 1] {
            let mut torn = object.to_vec();
            torn[at] ^= 1;
            assert!(read("p", &torn.into()).is_err(), "flipped byte {at}");
            assert!(read("p", &object.slice(..at)).is_err(), "cut at {at}");
        }
    }
}
