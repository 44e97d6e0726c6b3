//! Avro records into columns.
//!
//! A record begins with the name of the schema that it was written with:
//!
//! | [`Framing`] | first bytes | the name | where its schema is |
//! |---|---|---|---|
//! | `Confluent` | `00` | a number, four bytes, highest first | in a schema registry |
//! | `SingleObject` | `C3 01` | the fingerprint of its canonical form (CRC-64-AVRO), eight bytes, lowest first | in a file |
//!
//! Whoever wrote may have had an older or a newer schema than the stream has: fields are matched by name, or by the mapping, which
//! may also reach into records (`"position.lat"`); a field that the writer lacks is null, one that the stream lacks is skipped and counted.
//! Types that differ are converted value by value as those of columnar files ([`ColumnDecoder`]): exactly, or the record is refused.
//!
//! ```text
//!   block ──▶ runs of records with one schema ──▶ arrow-avro, only the columns that are wanted ──▶ ColumnDecoder ──▶ Decoded
//!                                                    │ fails somewhere in the run
//!                                                    └─▶ each half of it by itself, down to the record that is bad
//! ```
//! arrow-avro says that a batch is bad, and not which record: hence the halves. A record is good if it is exactly one value of its
//! schema, without a byte behind it. What becomes of one depends on it and its schema alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::Value;

use crate::columns::ColumnDecoder;
use crate::dead_letter::{DeadLetter, Reason, Refusal, excerpt};
use crate::error::Error;
use crate::limits::Limits;
use crate::mapping::{Mapping, MappingProblem};
use crate::records::Records;
use crate::rows::Decoded;
use crate::schema::StreamSchema;

/// Schemas that are known at a time; the one that was not used for longest is forgotten.
const WRITERS_MAX: usize = 64;

/// How records name the schema that they were written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its number in a schema registry.
    Confluent,
    /// By its fingerprint.
    SingleObject,
}

/// The name of a schema in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaName {
    /// Its number in a schema registry.
    Number(u32),
    /// CRC-64-AVRO of its canonical form.
    Fingerprint(u64),
}

/// Where schemas are found by their names.
pub trait WriterSchemas: Send + Sync + fmt::Debug {
    /// The text of a schema, or `None` if nobody has registered one of that name. Takes as long as it takes to know.
    ///
    /// # Errors
    /// [`SchemaUnknown`] if that cannot be known any more: what has read so far is to stop.
    fn schema(&self, name: SchemaName) -> Result<Option<Arc<str>>, SchemaUnknown>;
}

/// Nobody can say which schema it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{schema} is not known: {reason}")]
pub struct SchemaUnknown {
    /// Which one.
    pub schema: SchemaName,
    /// Why.
    pub reason: String,
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "schema {number} of the registry"),
            Self::Fingerprint(fingerprint) => write!(f, "the schema with fingerprint {fingerprint:016x}"),
        }
    }
}

/// The schemas of files, by fingerprint.
#[derive(Debug, Default)]
pub struct SchemaFiles {
    texts: HashMap<u64, Arc<str>>,
}

impl SchemaFiles {
    /// The schemas with these texts.
    ///
    /// # Errors
    /// The number of the text that is no Avro schema, and why.
    pub fn new(texts: &[&str]) -> Result<Self, (usize, String)> {
        let mut known = HashMap::new();
        for (number, text) in texts.iter().enumerate() {
            let fingerprint = AvroSchema::new((*text).to_owned()).fingerprint(FingerprintAlgorithm::Rabin);
            match fingerprint {
                Ok(Fingerprint::Rabin(fingerprint)) => known.insert(fingerprint, Arc::from(*text)),
                Ok(other) => return Err((number, format!("its fingerprint is {other:?}"))),
                Err(error) => return Err((number, error.to_string())),
            };
        }
        Ok(Self { texts: known })
    }
}

impl WriterSchemas for SchemaFiles {
    fn schema(&self, name: SchemaName) -> Result<Option<Arc<str>>, SchemaUnknown> {
        Ok(match name {
            SchemaName::Fingerprint(fingerprint) => self.texts.get(&fingerprint).cloned(),
            SchemaName::Number(_) => None,
        })
    }
}

impl Framing {
    /// The name at the begin of a record.
    fn name_of(self, payload: &[u8]) -> Option<SchemaName> {
        match self {
            Self::Confluent => {
                let (number, _body) = payload.strip_prefix(&[0])?.split_first_chunk()?;
                Some(SchemaName::Number(u32::from_be_bytes(*number)))
            }
            Self::SingleObject => {
                let (fingerprint, _body) = payload.strip_prefix(&[0xC3, 0x01])?.split_first_chunk()?;
                Some(SchemaName::Fingerprint(u64::from_le_bytes(*fingerprint)))
            }
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Confluent => "a record begins with a byte of 0 and the four bytes of a schema's number",
            Self::SingleObject => "a record begins with the bytes C3 01 and the eight bytes of a schema's fingerprint",
        }
    }
}

/// Decodes Avro records of one stream.
#[derive(Debug)]
pub struct AvroDecoder {
    schema: Arc<StreamSchema>,
    mapping: Mapping,
    limits: Limits,
    framing: Framing,
    schemas: Arc<dyn WriterSchemas>,
    /// By name, each with the number of the run that used it last.
    writers: HashMap<SchemaName, (u64, Writer)>,
    runs: u64,
}

/// What is known of a schema that records are written with.
#[derive(Debug)]
enum Writer {
    Usable(Box<Usable>),
    /// Its records are refused.
    Unusable(Refusal),
}

/// Reads what was written with one schema.
#[derive(Debug)]
struct Usable {
    store: SchemaStore,
    /// The fields that are wanted, if not all are.
    projection: Option<Vec<usize>>,
    /// `None` after a failure, which leaves it with half a record.
    decoder: Option<Decoder>,
    columns: ColumnDecoder,
    /// Records that the mapping reaches into.
    opened: Vec<String>,
    unknown: Vec<String>,
}

/// The rows and refusals of a block on their way.
#[derive(Debug, Default)]
struct Parts {
    batches: Vec<RecordBatch>,
    record: Vec<u32>,
    dead_letters: Vec<DeadLetter>,
    unknown_fields: BTreeMap<String, u64>,
}

impl AvroDecoder {
    /// A decoder for one stream.
    ///
    /// # Errors
    /// [`Error::Mapping`] with every mistake of the mapping.
    pub fn new(
        schema: Arc<StreamSchema>,
        mapping: &Mapping,
        limits: Limits,
        (framing, schemas): (Framing, Arc<dyn WriterSchemas>),
    ) -> Result<Self, Error> {
        let mut problems = mapping.validate(&schema);
        problems.extend(Self::mapping_problems(mapping));
        if !problems.is_empty() {
            return Err(Error::Mapping { stream: schema.name.clone(), problems });
        }
        let mapping = mapping.clone();
        Ok(Self { schema, mapping, limits, framing, schemas, writers: HashMap::new(), runs: 0 })
    }

    /// What a mapping says that Avro records cannot be given.
    #[must_use]
    pub fn mapping_problems(mapping: &Mapping) -> Vec<MappingProblem> {
        let explode = mapping.explode.as_ref().map(|_path| MappingProblem {
            key: "explode".to_owned(),
            message: "an Avro record is one event".to_owned(),
            help: Some("remove `explode`".to_owned()),
        });
        explode.into_iter().collect()
    }

    /// Decodes a block: every record of it is a row of the batch or a dead letter.
    ///
    /// # Errors
    /// [`SchemaUnknown`] if nobody can say which schema a record was written with: nothing is known of the block then.
    ///
    /// # Panics
    /// If columns do not fit the schema they were made from, which is a bug of this crate.
    pub fn decode(&mut self, block: Records<'_>) -> Result<Decoded, SchemaUnknown> {
        let mut parts = Parts::default();
        let mut run: Vec<(u32, &[u8])> = Vec::with_capacity(block.len());
        let mut name_of_run = None;
        for (record, payload) in block.iter() {
            match self.name_of(payload) {
                Ok(name) => {
                    if let Some(before) = name_of_run.filter(|before| *before != name) {
                        self.decode_run(before, &run, &mut parts)?;
                        run.clear();
                    }
                    name_of_run = Some(name);
                    run.push((record, payload));
                }
                Err(refusal) => parts.dead_letters.push(refusal.at(record, 0)),
            }
        }
        if let Some(name) = name_of_run {
            self.decode_run(name, &run, &mut parts)?;
        }
        Ok(parts.finish(&self.schema.arrow))
    }

    fn name_of(&self, payload: &[u8]) -> Result<SchemaName, Refusal> {
        if payload.is_empty() {
            return Err(Refusal::new(Reason::Empty, "the record has no bytes"));
        }
        if payload.len() > self.limits.record_bytes_max {
            let detail = format!("the record has {} bytes, more than {}", payload.len(), self.limits.record_bytes_max);
            return Err(Refusal::new(Reason::TooLarge, detail));
        }
        self.framing.name_of(payload).ok_or_else(|| Refusal::new(Reason::NotAvro, self.framing.wanted()))
    }

    fn decode_run(&mut self, name: SchemaName, run: &[(u32, &[u8])], parts: &mut Parts) -> Result<(), SchemaUnknown> {
        self.runs += 1;
        if !self.writers.contains_key(&name) {
            let writer = self.writer(name)?;
            if self.writers.len() >= WRITERS_MAX
                && let Some(oldest) = self.writers.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| *name)
            {
                self.writers.remove(&oldest);
            }
            self.writers.insert(name, (self.runs, writer));
        }
        match self.writers.get_mut(&name) {
            Some((used, Writer::Usable(usable))) => {
                *used = self.runs;
                usable.decode(run, parts);
            }
            Some((_, Writer::Unusable(refusal))) => {
                parts.dead_letters.extend(run.iter().map(|(record, _)| refusal.clone().at(*record, 0)));
            }
            None => {}
        }
        Ok(())
    }

    fn writer(&self, name: SchemaName) -> Result<Writer, SchemaUnknown> {
        let Some(text) = self.schemas.schema(name)? else {
            return Ok(Writer::Unusable(Refusal::new(Reason::UnknownSchema, format!("there is no {name}"))));
        };
        let usable = Usable::new(name, &text, (&self.schema, &self.mapping, self.limits));
        Ok(match usable {
            Ok(usable) => Writer::Usable(Box::new(usable)),
            Err(what) => {
                Writer::Unusable(Refusal::new(Reason::UnknownSchema, format!("{name} cannot be read: {what}")))
            }
        })
    }
}

impl Usable {
    fn new(
        name: SchemaName,
        text: &str,
        (schema, mapping, limits): (&Arc<StreamSchema>, &Mapping, Limits),
    ) -> Result<Self, String> {
        let tree: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        if has_items_without_bytes(&tree) {
            return Err(
                "it has an array of items without bytes, of which a few bytes can say that there are billions".into()
            );
        }
        let names = field_names(&tree).ok_or("it is not a record")?;
        let is_inside = |path: &String, field: &str| path.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'));
        let is_opened = |field: &str| mapping.rename.keys().any(|path| is_inside(path, field));
        let is_wanted = |field: &str| {
            let is_field = mapping.rename.contains_key(field) || schema.index_of(field).is_some();
            (is_field && !mapping.ignore.contains(field)) || is_opened(field)
        };
        let (projection, others): (Vec<usize>, Vec<usize>) =
            (0..names.len()).partition(|number| is_wanted(names[*number]));
        let projection = (!others.is_empty()).then_some(projection);
        let unknown = others.into_iter().map(|number| names[number]).filter(|name| !mapping.ignore.contains(*name));
        let unknown = unknown.map(excerpt).collect();
        let opened: Vec<String> = names.iter().filter(|name| is_opened(name)).map(|name| (*name).to_owned()).collect();
        let (algorithm, fingerprint) = match name {
            SchemaName::Number(number) => (FingerprintAlgorithm::Id, Fingerprint::Id(number)),
            SchemaName::Fingerprint(number) => (FingerprintAlgorithm::Rabin, Fingerprint::Rabin(number)),
        };
        let mut store = SchemaStore::new_with_type(algorithm);
        store.set(fingerprint, AvroSchema::new(text.to_owned())).map_err(|error| error.to_string())?;
        let decoder = build(&store, projection.as_deref())?;
        let flat = flat_schema(&decoder.schema(), &opened);
        let columns = ColumnDecoder::new(Arc::clone(schema), mapping, limits, &flat).map_err(|e| e.to_string())?;
        Ok(Self { store, projection, decoder: Some(decoder), columns, opened, unknown })
    }

    fn decode(&mut self, run: &[(u32, &[u8])], parts: &mut Parts) {
        match self.attempt(run) {
            Ok(batch) => self.keep(run, &batch, parts),
            Err(what) => match run {
                [(record, _)] => {
                    let refusal = Refusal::new(Reason::NotAvro, format!("not one record of its schema: {what}"));
                    parts.dead_letters.push(refusal.at(*record, 0));
                }
                _ => {
                    let (first, second) = run.split_at(run.len() / 2);
                    self.decode(first, parts);
                    self.decode(second, parts);
                }
            },
        }
    }

    /// All records, or none.
    fn attempt(&mut self, run: &[(u32, &[u8])]) -> Result<RecordBatch, String> {
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => build(&self.store, self.projection.as_deref())?,
        };
        for (_, payload) in run {
            let room = decoder.capacity();
            let read = decoder.decode(payload).map_err(|error| error.to_string())?;
            if read != payload.len() || decoder.capacity() + 1 != room {
                return Err(format!("{} bytes do not make one", payload.len()));
            }
        }
        let batch = decoder.flush().map_err(|error| error.to_string())?.ok_or("there is none")?;
        self.decoder = Some(decoder);
        Ok(batch)
    }

    fn keep(&mut self, run: &[(u32, &[u8])], batch: &RecordBatch, parts: &mut Parts) {
        let flat = flat_batch(batch, &self.opened).expect("columns are taken out of records of the same length");
        let decoded = self.columns.decode(&flat);
        let place = |row: u32| run[row as usize].0;
        parts.record.extend(decoded.record.into_iter().map(place));
        let letters = decoded.dead_letters.into_iter();
        parts.dead_letters.extend(letters.map(|letter| DeadLetter { record: place(letter.record), ..letter }));
        parts.batches.push(decoded.batch);
        for (name, count) in decoded.unknown_fields {
            *parts.unknown_fields.entry(name).or_default() += count;
        }
        for name in &self.unknown {
            *parts.unknown_fields.entry(name.clone()).or_default() += run.len() as u64;
        }
    }
}

impl Parts {
    fn finish(mut self, schema: &SchemaRef) -> Decoded {
        let batch = match &self.batches[..] {
            [one] => one.clone(),
            several => concat_batches(schema, several).expect("batches of one schema"),
        };
        self.dead_letters.sort_by_key(|letter| letter.record);
        Decoded {
            batch,
            index: vec![0; self.record.len()],
            record: self.record,
            dead_letters: self.dead_letters,
            unknown_fields: self.unknown_fields,
        }
    }
}

fn build(store: &SchemaStore, projection: Option<&[usize]>) -> Result<Decoder, String> {
    // A run is one batch, however long it is.
    let builder = ReaderBuilder::new().with_batch_size(usize::MAX >> 1).with_writer_schema_store(store.clone());
    let builder = store.fingerprints().into_iter().fold(builder, ReaderBuilder::with_active_fingerprint);
    let builder = match projection {
        Some(projection) => builder.with_projection(projection.to_vec()),
        None => builder,
    };
    builder.build_decoder().map_err(|error| error.to_string())
}

fn field_names(tree: &Value) -> Option<Vec<&str>> {
    let fields = tree.get("fields").filter(|_| tree.get("type") == Some(&Value::from("record")))?;
    fields.as_array()?.iter().map(|field| field.get("name")?.as_str()).collect()
}

/// Whether an array somewhere has items that take no byte.
fn has_items_without_bytes(tree: &Value) -> bool {
    let is_array = tree.get("type") == Some(&Value::from("array"));
    let items = tree.get("items").filter(|_| is_array);
    items.is_some_and(takes_no_byte)
        || match tree {
            Value::Array(all) => all.iter().any(has_items_without_bytes),
            Value::Object(members) => members.values().any(has_items_without_bytes),
            _ => false,
        }
}

fn takes_no_byte(of: &Value) -> bool {
    match of {
        Value::String(name) => name == "null",
        Value::Object(members) => match members.get("type") {
            Some(Value::String(kind)) if kind == "record" => {
                let fields = members.get("fields").and_then(Value::as_array);
                let of_field = |field: &Value| field.get("type").is_some_and(takes_no_byte);
                fields.is_some_and(|fields| fields.iter().all(of_field))
            }
            Some(Value::String(kind)) if kind == "fixed" => members.get("size").and_then(Value::as_u64) == Some(0),
            Some(inner) => takes_no_byte(inner),
            None => false,
        },
        _ => false,
    }
}

/// The columns, with those of opened records in place of the records, named by their paths.
fn flat_schema(schema: &ArrowSchema, opened: &[String]) -> ArrowSchema {
    fn add(field: &ArrowField, path: &str, is_nullable: bool, flat: &mut Vec<ArrowField>) {
        match field.data_type() {
            DataType::Struct(inner) => {
                let each = |inner: &Arc<ArrowField>| {
                    add(inner, &format!("{path}.{}", inner.name()), is_nullable || inner.is_nullable(), flat);
                };
                inner.iter().for_each(each);
            }
            data_type => flat.push(ArrowField::new(path, data_type.clone(), is_nullable)),
        }
    }
    let mut flat = Vec::new();
    for field in schema.fields() {
        match opened.contains(field.name()) {
            true => add(field, field.name(), field.is_nullable(), &mut flat),
            false => flat.push(field.as_ref().clone()),
        }
    }
    ArrowSchema::new(flat)
}

fn flat_batch(batch: &RecordBatch, opened: &[String]) -> Result<RecordBatch, ArrowError> {
    fn add(array: &ArrayRef, around: Option<&NullBuffer>, flat: &mut Vec<ArrayRef>) -> Result<(), ArrowError> {
        let nulls = NullBuffer::union(around, array.nulls());
        match array.as_struct_opt() {
            Some(record) => record.columns().iter().try_for_each(|inner| add(inner, nulls.as_ref(), flat))?,
            None => flat.push(make_array(array.to_data().into_builder().nulls(nulls).build()?)),
        }
        Ok(())
    }
    if opened.is_empty() {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let mut flat = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        match opened.contains(field.name()) {
            true => add(column, None, &mut flat)?,
            false => flat.push(Arc::clone(column)),
        }
    }
    RecordBatch::try_new(Arc::new(flat_schema(&schema, opened)), flat)
}

#[cfg(test)]
mod tests;
