//! The decoders of a stream: JSON or Avro, unless a lane announced a header, typed columns for columnar files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use wattline_core::error::{Kind, Retry};
use wattline_core::record::{LaneId, RecordBlock};
use wattline_decode::{
    AvroDecoder, ColumnDecoder, CsvDecoder, Framing, JsonDecoder, Limits, Mapping, Reason, Records, StreamSchema,
    WriterSchemas,
};
use wattline_runtime::port::{self, Decoded, Refused};

use crate::project::{LoadedStream, Payload};

/// Decodes everything that one worker reads of one stream.
pub(crate) struct StreamDecoder {
    schema: Arc<StreamSchema>,
    mapping: Mapping,
    limits: Limits,
    payload: PayloadDecoder,
    csv: HashMap<LaneId, CsvDecoder>,
    columns: HashMap<LaneId, ColumnDecoder>,
}

/// What records are that come without a header.
enum PayloadDecoder {
    Json(Box<JsonDecoder>),
    Avro(Box<AvroDecoder>),
}

impl StreamDecoder {
    /// A decoder for a stream; `registry` has the schemas of records that name them by number.
    ///
    /// # Errors
    /// If the mapping does not fit the schema; `check` reports the same with its place.
    pub(crate) fn new(
        stream: &LoadedStream,
        registry: Option<&Arc<dyn WriterSchemas>>,
    ) -> Result<Self, wattline_decode::Error> {
        let (schema, mapping, limits) = (Arc::clone(&stream.schema), stream.mapping.clone(), stream.limits());
        let avro = |schemas| AvroDecoder::new(Arc::clone(&schema), &mapping, limits, schemas);
        let payload = match (&stream.payload, registry) {
            (Payload::Avro(files), None) => {
                let files = Arc::clone(files) as Arc<dyn WriterSchemas>;
                PayloadDecoder::Avro(Box::new(avro((Framing::SingleObject, files))?))
            }
            (Payload::Avro(_), Some(registry)) => {
                PayloadDecoder::Avro(Box::new(avro((Framing::Confluent, Arc::clone(registry)))?))
            }
            (Payload::Json, _) => {
                PayloadDecoder::Json(Box::new(JsonDecoder::new(Arc::clone(&schema), &mapping, limits)?))
            }
        };
        Ok(Self { schema, mapping, limits, payload, csv: HashMap::new(), columns: HashMap::new() })
    }
}

impl port::Decoder for StreamDecoder {
    fn decode(&mut self, block: &RecordBlock) -> wattline_runtime::Result<Decoded> {
        let records = Records { bytes: &block.bytes, ends: &block.ends };
        let decoded = match (self.csv.get_mut(&block.lane), &mut self.payload) {
            (Some(csv), _) => csv.decode(records),
            (None, PayloadDecoder::Json(json)) => json.decode(records),
            (None, PayloadDecoder::Avro(avro)) => {
                avro.decode(records).map_err(|unknown| wattline_runtime::Error::Port {
                    what: format!("reading `{}`", block.lane),
                    kind: Kind::Unavailable,
                    retry: Retry::AfterRestore,
                    source: Box::new(unknown),
                })?
            }
        };
        Ok(carry(decoded, |_record| None))
    }

    fn set_header(&mut self, lane: &LaneId, line: &[u8]) -> Result<(), String> {
        let header = std::str::from_utf8(line).map_err(|_e| "the header line is not UTF-8".to_owned())?;
        let decoder = CsvDecoder::new(Arc::clone(&self.schema), &self.mapping, self.limits, header);
        self.csv.insert(lane.clone(), decoder.map_err(|e| e.to_string())?);
        Ok(())
    }

    fn decode_columns(&mut self, lane: &LaneId, batch: &RecordBatch) -> Decoded {
        if !self.columns.contains_key(lane) {
            match ColumnDecoder::new(Arc::clone(&self.schema), &self.mapping, self.limits, &batch.schema()) {
                Ok(decoder) => {
                    self.columns.insert(lane.clone(), decoder);
                }
                Err(error) => return refuse_all(&self.schema, batch, &error.to_string()),
            }
        }
        match self.columns.get_mut(lane) {
            Some(decoder) => carry(decoder.decode(batch), |row| Some(row_text(batch, row))),
            None => refuse_all(&self.schema, batch, "the columns do not fit the schema"),
        }
    }
}

fn carry(decoded: wattline_decode::Decoded, raw: impl Fn(usize) -> Option<String>) -> Decoded {
    let refused = decoded
        .dead_letters
        .into_iter()
        .map(|letter| Refused {
            record: letter.record,
            index: letter.index,
            reason: letter.reason.code(),
            detail: letter.detail,
            raw: raw(letter.record as usize),
            is_by_others: letter.reason == Reason::UnknownSchema,
        })
        .collect();
    Decoded {
        batch: decoded.batch,
        record: decoded.record,
        index: decoded.index,
        refused,
        unknown_fields: decoded.unknown_fields,
    }
}

/// A file whose columns cannot be the stream's: every row is refused with the reason.
fn refuse_all(schema: &StreamSchema, batch: &RecordBatch, detail: &str) -> Decoded {
    let refused = (0..batch.num_rows())
        .map(|row| Refused {
            record: u32::try_from(row).unwrap_or(u32::MAX),
            index: 0,
            reason: "wrong_type",
            detail: detail.to_owned(),
            raw: Some(row_text(batch, row)),
            is_by_others: false,
        })
        .collect();
    Decoded {
        batch: RecordBatch::new_empty(schema.arrow.clone()),
        record: Vec::new(),
        index: Vec::new(),
        refused,
        unknown_fields: BTreeMap::new(),
    }
}

/// A row as text, for its dead letter.
fn row_text(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default();
    let cell = |(field, column): (&Arc<arrow::datatypes::Field>, &Arc<dyn Array>)| {
        let value = ArrayFormatter::try_new(column.as_ref(), &options).map(|f| f.value(row).to_string());
        format!("{}={}", field.name(), value.unwrap_or_default())
    };
    batch.schema().fields().iter().zip(batch.columns()).map(cell).collect::<Vec<_>>().join(" ")
}
