//! What the links of a job say, read as anybody may read them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// What the last checkpoints of all slots have stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The number of the checkpoint of each slot.
    pub(crate) checkpoints: Vec<u64>,
    /// Objects with what rules keep: open windows, and rows of stages.
    pub(crate) state_bytes: u64,
    /// Up to where each partition of the topic is in it.
    pub(crate) offsets: Vec<i64>,
}

impl Stored {
    pub(crate) fn covers(&self, ends: &[i64]) -> bool {
        self.offsets.iter().zip(ends).all(|(stored, end)| stored >= end)
    }

    /// Whether every slot has taken a checkpoint since the other one was looked at.
    pub(crate) fn is_after(&self, other: &Self) -> bool {
        self.checkpoints.iter().zip(&other.checkpoints).all(|(now, before)| now > before)
    }
}

/// The folder of a job in its archive.
#[derive(Debug, Clone)]
pub(crate) struct Chains {
    pub(crate) folder: PathBuf,
    pub(crate) slots: usize,
}

impl Chains {
    /// The number of the newest epoch of each slot; 0 if it has none.
    pub(crate) fn newest(&self) -> Result<Vec<u64>> {
        (0..self.slots).map(|slot| Ok(self.newest_of(slot)?.map_or(0, |(number, _)| number))).collect()
    }

    /// What is stored; `None` while some slot has no checkpoint, or if it was replaced while it was looked at.
    pub(crate) fn stored(&self, topic: &str, partitions: i32) -> Result<Option<Stored>> {
        let offsets = vec![0; usize::try_from(partitions)?];
        let mut stored = Stored { checkpoints: Vec::new(), state_bytes: 0, offsets };
        for slot in 0..self.slots {
            let Some((_, newest)) = self.newest_of(slot)? else { return Ok(None) };
            let number = newest.get("checkpoint").and_then(Value::as_u64).context("a link without `checkpoint`")?;
            let Some(checkpoint) = self.epoch(slot, number)? else { return Ok(None) };
            let objects = ["state_objects", "stage_objects"].iter().flat_map(|kind| texts(&checkpoint, kind));
            for object in objects {
                match fs::metadata(self.folder.join(object)) {
                    Ok(metadata) => stored.state_bytes += metadata.len(),
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error).with_context(|| format!("cannot look at `{object}`")),
                }
            }
            stored.checkpoints.push(number);
            for section in checkpoint.get("lanes").and_then(Value::as_array).into_iter().flatten() {
                note_offset(section, topic, &mut stored.offsets);
            }
        }
        Ok(Some(stored))
    }

    /// The newest epoch of a slot: seals are passed over.
    fn newest_of(&self, slot: usize) -> Result<Option<(u64, Value)>> {
        let folder = self.links_of(slot);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot list `{}`", folder.display())),
        };
        let number = |path: PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| number(entry.path())).collect();
        numbers.sort_unstable();
        for number in numbers.into_iter().rev() {
            if let Some(epoch) = self.epoch(slot, number)? {
                return Ok(Some((number, epoch)));
            }
        }
        Ok(None)
    }

    /// What a link says, if it is there and an epoch.
    fn epoch(&self, slot: usize, number: u64) -> Result<Option<Value>> {
        let path = self.links_of(slot).join(format!("{number:020}.json"));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        let link: Value = serde_json::from_str(&text).with_context(|| format!("`{}` is no JSON", path.display()))?;
        Ok(link.pointer("/body/epoch").cloned())
    }

    fn links_of(&self, slot: usize) -> PathBuf {
        self.folder.join(Path::new("chains").join(slot.to_string()))
    }
}

fn texts<'a>(epoch: &'a Value, kind: &str) -> Vec<&'a str> {
    epoch.get(kind).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Takes in how far a lane is stored, if it is one of the topic.
fn note_offset(section: &Value, topic: &str, offsets: &mut [i64]) {
    if section.pointer("/lane/topic").and_then(Value::as_str) != Some(topic) {
        return;
    }
    let partition = section.pointer("/lane/partition").and_then(Value::as_u64);
    let known = partition.and_then(|partition| offsets.get_mut(usize::try_from(partition).ok()?));
    if let (Some(known), Some(state)) = (known, section.get("state").and_then(Value::as_i64)) {
        *known = state;
    }
}
