//! A register as a compacted topic: the last message of each key is a row of a reference table.
//!
//! The topic is read from its beginning, all partitions, outside of any consumer group, and then from where the last reading
//! came to; nothing is fetched between two readings. A topic that has become shorter was made anew and is read from its
//! beginning again. A message is a JSON object; the columns that the configuration names are taken from its members, others
//! are left alone. A message without a payload takes the row of its key away. The whole table is in memory, so it is refused
//! above [`REGISTER_BYTES_MAX`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{Field, Schema};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, Timestamp};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::value::RawValue;

use super::context::SourceContext;
use super::topics::Cluster;
use super::{Properties, Reserved, client_config, refused_config};
use crate::error::{Error, Result};
use crate::reference::{ReferenceOptions, ReferenceTable, assemble, refused, stated, typed};

/// Most bytes of keys and payloads that a register may have.
pub const REGISTER_BYTES_MAX: usize = 1 << 30;

const POLL_WAIT: Duration = Duration::from_millis(100);
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The end of the topic is what a reading waits for, so a broker need not wait for more.
const DEFAULTS: [(&str, &str); 3] =
    [("client.id", "wattline-register"), ("check.crcs", "true"), ("fetch.wait.max.ms", "10")];

/// Where a register is.
#[derive(Debug, Clone)]
pub struct RegisterConfig {
    /// Addresses of brokers, comma-separated.
    pub bootstrap_servers: String,
    /// Further librdkafka properties.
    pub properties: Properties,
    /// The topic.
    pub topic: String,
    /// How long to wait for a broker, and for the end of the topic.
    pub timeout: Duration,
}

/// A register that has been read so far.
pub struct Register {
    consumer: BaseConsumer<SourceContext>,
    config: RegisterConfig,
    /// For each partition the next offset.
    next: BTreeMap<i32, i64>,
    /// By key: offset and payload of the last message.
    rows: HashMap<Vec<u8>, (i64, Vec<u8>)>,
    bytes: usize,
    changed_ms: i64,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").field("topic", &self.config.topic).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Register {
    /// Opens the client and checks that a broker answers and that the topic exists; nothing is read yet.
    ///
    /// # Errors
    /// [`Error::NoBroker`], [`Error::TopicMissing`], [`Error::TopicForbidden`], or a refused property.
    pub fn connect(config: RegisterConfig) -> Result<Self> {
        let reserved = [
            Reserved::new("enable.auto.commit", "false", "a register is read outside of any group"),
            Reserved::new("enable.partition.eof", "true", "the end of a register is recognised by it"),
            Reserved::new("auto.offset.reset", "earliest", "a register is read whole"),
            Reserved::new("group.id", "wattline-register", "a register is read outside of any group"),
        ];
        // What users set for the group of the source is not meant for a client without one.
        let mut properties = config.properties.clone();
        properties.retain(|name, _| !name.starts_with("group.") && !reserved.iter().any(|ours| ours.name == name));
        let client = client_config(&config.bootstrap_servers, &DEFAULTS, &properties, &reserved)?;
        let consumer: BaseConsumer<SourceContext> =
            client.create_with_context(SourceContext::default()).map_err(refused_config)?;
        let cluster = Cluster::new(&config.bootstrap_servers, config.timeout);
        let partitions = cluster.partition_count(&consumer, &config.topic)?;
        let next = (0..partitions).map(|partition| (partition, 0)).collect();
        Ok(Self { consumer, config, next, rows: HashMap::new(), bytes: 0, changed_ms: 0 })
    }

    /// Reads what has come since the last time, up to the end that the topic has now.
    ///
    /// # Errors
    /// [`Error::Kafka`] if the end is not reached in time; [`Error::Reference`] if the register is too large.
    pub fn read_to_end(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.config.timeout;
        let mut behind = self.behind()?;
        if behind.is_empty() {
            return Ok(());
        }
        // Assigned anew for each reading: an end that is told now is one of this reading, not a left-over of the last.
        let mut assignment = TopicPartitionList::new();
        for partition in behind.keys() {
            let next = self.next.get(partition).copied().unwrap_or(0);
            let from = if next == 0 { Offset::Beginning } else { Offset::Offset(next) };
            assignment
                .add_partition_offset(&self.config.topic, *partition, from)
                .map_err(|source| self.failed(source))?;
        }
        self.consumer.assign(&assignment).map_err(|source| self.failed(source))?;
        let read = self.read_until_ends(&mut behind, deadline);
        self.consumer.unassign().map_err(|source| self.failed(source))?;
        read
    }

    /// The partitions that have messages which were not read, with their ends.
    fn behind(&mut self) -> Result<BTreeMap<i32, i64>> {
        let mut ends = BTreeMap::new();
        let mut shorter = false;
        for (partition, next) in &self.next {
            let bounds = self.consumer.fetch_watermarks(&self.config.topic, *partition, QUESTION_TIMEOUT);
            let (_, end) = bounds.map_err(|source| self.failed(source))?;
            shorter |= end < *next;
            ends.insert(*partition, end);
        }
        if shorter {
            self.rows.clear();
            self.bytes = 0;
            self.next.values_mut().for_each(|next| *next = 0);
        }
        ends.retain(|partition, end| self.next.get(partition).is_some_and(|next| next < end));
        Ok(ends)
    }

    /// A topic that is written without a pause has no end but the one that it had at the beginning.
    fn read_until_ends(&mut self, behind: &mut BTreeMap<i32, i64>, deadline: Instant) -> Result<()> {
        while !behind.is_empty() {
            if Instant::now() >= deadline {
                return Err(self.failed(KafkaError::NoMessageReceived));
            }
            match self.consumer.poll(POLL_WAIT) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let key = message.key().unwrap_or_default().to_vec();
                    let payload = message.payload().filter(|payload| !payload.is_empty()).map(<[u8]>::to_vec);
                    if let Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) = message.timestamp() {
                        self.changed_ms = self.changed_ms.max(ms);
                    }
                    drop(message);
                    self.take(key, offset, payload)?;
                    self.next.insert(partition, offset + 1);
                    if behind.get(&partition).is_some_and(|end| *end <= offset + 1) {
                        behind.remove(&partition);
                    }
                }
                // The end may be a marker of a transaction, or what compaction has left out.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.pass_markers(partition);
                    behind.remove(&partition);
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Markers of transactions stand behind the last message; what an open transaction has written does not count yet.
    fn pass_markers(&mut self, partition: i32) {
        let Ok(positions) = self.consumer.position() else { return };
        let position = positions.find_partition(&self.config.topic, partition).map(|of| of.offset());
        if let (Some(Offset::Offset(position)), Some(next)) = (position, self.next.get_mut(&partition)) {
            *next = (*next).max(position);
        }
    }

    fn failed(&self, source: KafkaError) -> Error {
        Error::Kafka { doing: format!("reading register `{}`", self.config.topic), source }
    }

    fn take(&mut self, key: Vec<u8>, offset: i64, payload: Option<Vec<u8>>) -> Result<()> {
        let size = |key: &[u8], payload: &[u8]| key.len() + payload.len();
        if let Some((_, old)) = self.rows.remove(&key) {
            self.bytes -= size(&key, &old);
        }
        if let Some(payload) = payload {
            self.bytes += size(&key, &payload);
            self.rows.insert(key, (offset, payload));
        }
        if self.bytes > REGISTER_BYTES_MAX {
            let detail = "a register may have 1 GiB: leave out members that no rule needs";
            return Err(refused(self.label(), u64::try_from(offset).unwrap_or(0), "", detail));
        }
        Ok(())
    }

    fn label(&self) -> &Path {
        Path::new(&self.config.topic)
    }

    /// When the last message was written, milliseconds since the epoch.
    #[must_use]
    pub fn changed_ms(&self) -> i64 {
        self.changed_ms
    }

    /// What tells one state of the register from another: the next offset of each partition.
    #[must_use]
    pub fn version(&self) -> String {
        let each = self.next.iter().map(|(partition, next)| format!("{partition}:{next}"));
        format!("offsets {}", each.collect::<Vec<_>>().join(" "))
    }

    /// The rows that there are now, in the columns that `options` gives types, in the order of their offsets.
    ///
    /// # Errors
    /// [`Error::Reference`] with topic, offset and column for a message that is no JSON object or has a value of another type.
    pub fn table(&self, options: &ReferenceOptions) -> Result<ReferenceTable> {
        let mut rows: Vec<&(i64, Vec<u8>)> = self.rows.values().collect();
        rows.sort_unstable();
        let offsets: Vec<u64> = rows.iter().map(|(offset, _)| u64::try_from(*offset).unwrap_or(0)).collect();
        let mut texts: Vec<StringBuilder> = options.types.keys().map(|_| StringBuilder::new()).collect();
        for (at, (_, payload)) in rows.iter().enumerate() {
            let wrong = |column: &str, detail: &str| refused(self.label(), offsets[at], column, detail);
            let members: HashMap<String, &RawValue> = serde_json::from_slice(payload)
                .map_err(|error| wrong("", &format!("the message is no JSON object: {error}")))?;
            for (name, text) in options.types.keys().zip(&mut texts) {
                match members.get(name).map(|value| value.get()) {
                    None | Some("null") => text.append_null(),
                    Some(value) if value.starts_with('"') => {
                        let plain: String =
                            serde_json::from_str(value).map_err(|error| wrong(name, &error.to_string()))?;
                        text.append_value(plain);
                    }
                    Some(value) if value.starts_with(['{', '[']) => {
                        return Err(wrong(name, "a value is a text, a number, true, false or null"));
                    }
                    Some(value) => text.append_value(value),
                }
            }
        }
        let mut fields = Vec::with_capacity(texts.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(texts.len());
        for (name, mut text) in options.types.keys().zip(texts) {
            let Some(data_type) = stated(self.label(), name, options)? else { continue };
            arrays.push(typed(self.label(), name, &text.finish(), &data_type, &offsets)?);
            fields.push(Field::new(name, data_type, true));
        }
        let batch = assemble(Schema::new(fields), arrays, rows.len())?;
        Ok(ReferenceTable { schema: batch.schema(), batch, version: self.version() })
    }
}

/// The table of a register that has not been read: its columns, and no rows.
///
/// # Errors
/// [`Error::Reference`] for a type that is not known.
pub fn empty_register(topic: &str, options: &ReferenceOptions) -> Result<ReferenceTable> {
    let path = Path::new(topic);
    let mut fields = Vec::with_capacity(options.types.len());
    for name in options.types.keys() {
        fields.extend(stated(path, name, options)?.map(|data_type| Field::new(name, data_type, true)));
    }
    let arrays = fields.iter().map(|field| arrow::array::new_empty_array(field.data_type())).collect();
    let batch = assemble(Schema::new(fields), arrays, 0)?;
    Ok(ReferenceTable { schema: batch.schema(), batch, version: "not read".to_owned() })
}

#[cfg(test)]
mod tests;
