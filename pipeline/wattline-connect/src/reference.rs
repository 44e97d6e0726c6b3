//! Reference tables (meters, limits, tariffs …) loaded whole from a CSV or Parquet file or a Delta table.
//!
//! A register kept as a compacted topic is read by [`kafka::register`](crate::kafka::register).
//!
//! Rules join events to them, so their types must be exact and their version nameable: a table is its rows plus the
//! SHA-256 of the file's bytes, or the number of the Delta version. CSV columns get the type that the configuration states, else one that *every* value
//! fits (`reference/csv_types.rs`); when in doubt a column stays text, because a wrong number is worse than a cast in a rule.
//!
//! `valid_from` and `valid_to` are always Timestamp(µs, UTC). Strings are Utf8; all columns are nullable; other types
//! follow the archive's type map. The whole table is in memory, so a file is refused above [`FILE_BYTES_MAX`].

mod csv_types;
mod delta;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, StringBuilder, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};

use crate::archive::{conform, table_schema};
use crate::error::{Error, Result};
use csv_types::{infer, loses_digits, parse_type};

/// Largest reference file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Columns with these names bound the validity of a row and are always instants.
const VALIDITY: [&str; 2] = ["valid_from", "valid_to"];

/// How a file is to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferenceOptions {
    /// Column to type: `string`, `bigint`, `double`, `decimal(p,s)`, `boolean`, `date` or `timestamp`.
    pub types: BTreeMap<String, String>,
    /// Columns that are known besides, with their types: they have them unless `types` says otherwise, and are NULL where the
    /// table does not have them.
    pub known: BTreeMap<String, String>,
}

/// A loaded reference table.
#[derive(Debug, Clone)]
pub struct ReferenceTable {
    /// All rows, in the order of the file.
    pub batch: RecordBatch,
    /// Columns of `batch`.
    pub schema: SchemaRef,
    /// SHA-256 of the file's bytes, in hexadecimal, or `delta-` and the number of the version.
    pub version: String,
}

/// When a reference table was last written, and what tells that it was written again without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferenceStamp {
    /// Modification time of the file, or of the newest commit of a Delta table, milliseconds since the epoch.
    pub changed_ms: i64,
    /// Length of the file, or number of objects in the log.
    pub size: u64,
}

/// Looks at a reference table without reading it.
///
/// # Errors
/// [`Error::NoSuchFile`], [`Error::File`].
pub fn reference_stamp(path: &Path) -> Result<ReferenceStamp> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => Error::NoSuchFile { path: path.to_owned() },
        _ => Error::File { doing: "look at", path: path.to_owned(), source },
    };
    if !delta::is_table(path) {
        let metadata = path.metadata().map_err(failed)?;
        let changed_ms = millis(metadata.modified().map_err(failed)?);
        return Ok(ReferenceStamp { changed_ms, size: metadata.len() });
    }
    let mut stamp = ReferenceStamp { changed_ms: 0, size: 0 };
    for entry in path.join(delta::LOG).read_dir().map_err(failed)? {
        let modified =
            entry.and_then(|entry| entry.metadata()).and_then(|metadata| metadata.modified()).map_err(failed)?;
        stamp = ReferenceStamp { changed_ms: stamp.changed_ms.max(millis(modified)), size: stamp.size + 1 };
    }
    Ok(stamp)
}

fn millis(at: std::time::SystemTime) -> i64 {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Loads `path` (`*.csv`, `*.parquet`, or the folder of a Delta table). Blocks; cost is one pass over the file.
///
/// # Errors
/// [`Error::NoSuchFile`], [`Error::File`], [`Error::UnknownFormat`]; [`Error::Reference`] with file, line and column
/// for content that cannot be taken or options that name no column.
pub fn load_reference(path: &Path, options: &ReferenceOptions) -> Result<ReferenceTable> {
    if delta::is_table(path) {
        let (rows, version) = delta::read(path)?;
        let batch = mapped(path, &rows, options)?;
        return Ok(ReferenceTable { schema: batch.schema(), batch, version: format!("delta-{version}") });
    }
    let content = read(path)?;
    let version = version_of(&content);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    let batch = match extension.as_str() {
        "csv" => from_csv(path, &content, options)?,
        "parquet" => from_parquet(path, content, options)?,
        _ => return Err(Error::UnknownFormat { path: path.to_owned() }),
    };
    Ok(ReferenceTable { schema: batch.schema(), batch, version })
}

/// As [`load_reference`], of the text of a CSV file; messages call it `label`.
///
/// # Errors
/// [`Error::Reference`] as for a file.
pub fn read_reference(label: &str, text: &[u8], options: &ReferenceOptions) -> Result<ReferenceTable> {
    let batch = from_csv(Path::new(label), text, options)?;
    Ok(ReferenceTable { schema: batch.schema(), batch, version: version_of(text) })
}

fn version_of(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Bytes> {
    let failed = |doing| move |source| Error::File { doing, path: path.to_owned(), source };
    let file = File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::NoSuchFile { path: path.to_owned() },
        _ => Error::File { doing: "open", path: path.to_owned(), source },
    })?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed("read"))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        let detail = "a reference table may have 1 GiB: leave out rows and columns that no rule needs";
        return Err(refused(path, 1, "", detail));
    }
    Ok(content.into())
}

fn from_csv(path: &Path, content: &[u8], options: &ReferenceOptions) -> Result<RecordBatch> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(content);
    let header = reader.headers().map_err(|error| unreadable(path, content, &error))?.clone();
    check_header(path, &header, options)?;
    let mut lines: Vec<u64> = Vec::new();
    let mut columns: Vec<StringBuilder> = header.iter().map(|_| StringBuilder::new()).collect();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| unreadable(path, content, &error))? {
        lines.push(record.position().map_or(0, |position| line_of(content, position)));
        for (column, value) in columns.iter_mut().zip(&record) {
            column.append_option((!value.is_empty()).then_some(value));
        }
    }
    let mut fields = Vec::with_capacity(header.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(header.len());
    for (name, mut texts) in header.iter().zip(columns) {
        let texts = texts.finish();
        let data_type = match (stated(path, name, options)?, VALIDITY.contains(&name)) {
            (Some(stated), _) => stated,
            (None, true) => instant(),
            (None, false) => infer(name, &texts),
        };
        arrays.push(typed(path, name, &texts, &data_type, &lines)?);
        fields.push(Field::new(name, data_type, true));
    }
    add_known(path, &mut fields, &mut arrays, lines.len(), options)?;
    assemble(Schema::new(fields), arrays, lines.len())
}

/// Adds the known columns that the table does not have. Whether it has versions is for the table to say.
fn add_known(
    path: &Path,
    fields: &mut Vec<Field>,
    arrays: &mut Vec<ArrayRef>,
    rows: usize,
    options: &ReferenceOptions,
) -> Result<()> {
    for name in options.known.keys() {
        let is_there = fields.iter().any(|field| field.name().eq_ignore_ascii_case(name));
        if is_there || VALIDITY.contains(&name.as_str()) {
            continue;
        }
        let data_type = stated(path, name, options)?.unwrap_or(DataType::Utf8);
        arrays.push(new_null_array(&data_type, rows));
        fields.push(Field::new(name, data_type, true));
    }
    Ok(())
}

fn check_header(path: &Path, header: &csv::StringRecord, options: &ReferenceOptions) -> Result<()> {
    let names: Vec<&str> = header.iter().collect();
    if let [only] = names.as_slice()
        && only.contains([';', '\t'])
    {
        return Err(refused(
            path,
            1,
            only,
            "columns must be separated by commas: save the file as comma-separated CSV",
        ));
    }
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(refused(path, 1, &format!("number {}", i + 1), "the header has no name for it: give it one"));
        }
        if names[..i].iter().any(|seen| seen.eq_ignore_ascii_case(name)) {
            return Err(refused(path, 1, name, "the header has this name twice: rename one"));
        }
    }
    unknown_types(path, &names, options)
}

fn unknown_types(path: &Path, names: &[&str], options: &ReferenceOptions) -> Result<()> {
    match options.types.keys().find(|wanted| !names.contains(&wanted.as_str())) {
        None => Ok(()),
        Some(wanted) => {
            let detail = format!("`types` names it, but the file has {}: correct the name", names.join(", "));
            Err(refused(path, 1, wanted, &detail))
        }
    }
}

pub(crate) fn stated(path: &Path, column: &str, options: &ReferenceOptions) -> Result<Option<DataType>> {
    let Some(text) = options.types.get(column).or_else(|| options.known.get(column)) else { return Ok(None) };
    match parse_type(text) {
        Some(DataType::Timestamp(_, _)) => Ok(Some(instant())),
        Some(other) if !VALIDITY.contains(&column) => Ok(Some(other)),
        Some(_) => Err(refused(
            path,
            1,
            column,
            "it bounds the validity of a row and is always a timestamp: leave out its type",
        )),
        None => {
            let detail = format!(
                "type `{text}` is not known: write string, bigint, double, decimal(p,s), boolean, date or timestamp"
            );
            Err(refused(path, 1, column, &detail))
        }
    }
}

/// `texts` as `data_type`; the first value that does not fit is named with its line.
pub(crate) fn typed(
    path: &Path,
    column: &str,
    texts: &StringArray,
    data_type: &DataType,
    lines: &[u64],
) -> Result<ArrayRef> {
    let values = cast_with_options(texts, data_type, &CastOptions { safe: true, ..CastOptions::default() })
        .map_err(|source| refused(path, 1, column, &source.to_string()))?;
    let misfit = (0..texts.len())
        .find(|row| texts.is_valid(*row) && (values.is_null(*row) || loses_digits(texts.value(*row), data_type)));
    match misfit {
        None => Ok(values),
        Some(row) => {
            let detail = format!(
                "`{}` is not {}: correct the value, or state another type for the column",
                texts.value(row),
                csv_types::named(data_type)
            );
            Err(refused(path, lines.get(row).copied().unwrap_or_default(), column, &detail))
        }
    }
}

fn from_parquet(path: &Path, content: Bytes, options: &ReferenceOptions) -> Result<RecordBatch> {
    let broken = |reason: String| Error::ParquetInput { path: path.to_owned(), row: 0, reason };
    let builder = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|source| broken(source.to_string()))?;
    let schema = Arc::clone(builder.schema());
    let reader = builder.build().map_err(|source| broken(source.to_string()))?;
    let batches: std::result::Result<Vec<RecordBatch>, _> = reader.collect();
    let batches = batches.map_err(|source| broken(source.to_string()))?;
    mapped(path, &concat_batches(&schema, &batches).map_err(|source| broken(source.to_string()))?, options)
}

/// Typed rows in the types of reference tables.
fn mapped(path: &Path, rows: &RecordBatch, options: &ReferenceOptions) -> Result<RecordBatch> {
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    unknown_types(path, &names, options)?;
    let label = path.display().to_string();
    let mapped = conform(&label, &table_schema(&label, &schema)?, rows)?;
    let mut fields = Vec::with_capacity(names.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(names.len());
    for (field, values) in mapped.schema_ref().fields().iter().zip(mapped.columns()) {
        let name = field.name().as_str();
        let validity = VALIDITY.contains(&name).then(instant);
        let data_type = stated(path, name, options)?.or(validity).unwrap_or_else(|| field.data_type().clone());
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let values = cast_with_options(values, &data_type, &strict)
            .map_err(|source| refused(path, 1, name, &source.to_string()))?;
        fields.push(field.as_ref().clone().with_data_type(data_type));
        arrays.push(values);
    }
    add_known(path, &mut fields, &mut arrays, mapped.num_rows(), options)?;
    assemble(Schema::new(fields), arrays, mapped.num_rows())
}

pub(crate) fn assemble(schema: Schema, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
        .map_err(|source| Error::Columns { operation: "assemble a reference table", source: Box::new(source) })
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Line of a record, from 1. The reader counts from the end of the record before, so blank lines between are added.
fn line_of(content: &[u8], position: &csv::Position) -> u64 {
    let rest = usize::try_from(position.byte()).ok().and_then(|at| content.get(at..)).unwrap_or_default();
    let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n').count();
    position.line() + blank as u64
}

fn unreadable(path: &Path, content: &[u8], error: &csv::Error) -> Error {
    let line = error.position().map_or(1, |position| line_of(content, position));
    let detail = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!(
                "{len} values where the header has {expected_len} columns: add or remove commas, quote values that contain one"
            )
        }
        csv::ErrorKind::Utf8 { .. } => "the line is not UTF-8 text: save the file as UTF-8".to_owned(),
        _ => error.to_string(),
    };
    refused(path, line, "", &detail)
}

pub(crate) fn refused(path: &Path, line: u64, column: &str, detail: &str) -> Error {
    Error::Reference { path: path.to_owned(), line, column: column.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
    use parquet::arrow::ArrowWriter;

    use super::*;

    type Types = [(&'static str, &'static str)];

    fn load(text: &str, types: &Types) -> Result<ReferenceTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meters.csv");
        std::fs::write(&path, text).unwrap();
        let types = types.iter().map(|(column, name)| ((*column).to_owned(), (*name).to_owned())).collect();
        load_reference(&path, &ReferenceOptions { types, ..ReferenceOptions::default() })
    }

    #[test]
    fn csv_is_typed() {
        let text = "\u{feff}meter_id,rated_v,phases,on,since,code,valid_from,valid_to,note\n\
                    1001,230.0,3,true,2026-01-02,007,2026-01-01T00:00:00+08:00,,\"a, b\"\n\
                    1002,,1,false,2026-01-03,010,2026-01-01,9999-12-31,\n";
        let table = load(text, &[("rated_v", "decimal(9,3)")]).unwrap();
        let types: Vec<String> = table.schema.fields().iter().map(|field| field.data_type().to_string()).collect();
        let utc = "Timestamp(µs, \"UTC\")";
        assert_eq!(types, ["Utf8", "Decimal128(9, 3)", "Int64", "Boolean", "Date32", "Utf8", utc, utc, "Utf8"]);
        assert_eq!(table.batch.column(1).as_primitive::<Decimal128Type>().value(0), 230_000);
        assert!(table.batch.column(1).is_null(1));
        let from = table.batch.column(6).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(from.value(1) - from.value(0), 8 * 3_600_000_000);
        assert_eq!(table.batch.column(8).as_string::<i32>().value(0), "a, b");
        assert_eq!(table.version.len(), 64);
    }

    #[test]
    fn mistakes_name_file_line_and_column() {
        let cases: [(&str, &Types, &str); 8] = [
            ("a,b\n1,2\n3\n", &[], ":3:"),
            ("a,b\n1,x\n", &[("b", "bigint")], ":2: column `b`: `x` is not"),
            ("a,b\n\n1,1.2345\n", &[("b", "decimal(5,2)")], ":3: column `b`: `1.2345`"),
            ("a,a\n1,2\n", &[], "`a`: the header has this name twice"),
            ("a;b\n1;2\n", &[], "commas"),
            ("a\n1\n", &[("b", "bigint")], "`b`: `types` names it"),
            ("a\n1\n", &[("a", "money")], "`money`"),
            ("valid_from\nsoon\n", &[], ":2: column `valid_from`: `soon`"),
        ];
        for (text, types, wanted) in cases {
            let message = load(text, types).unwrap_err().to_string();
            assert!(message.contains("meters.csv:") && message.contains(wanted), "{message}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_delta_table_is_read_at_its_newest_version() {
        let folder = tempfile::tempdir().unwrap();
        let root = crate::store::ObjectRoot::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        let archive = crate::archive::Archive::open(root);
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["M1", "M2"]));
        let batch = RecordBatch::try_from_iter([("meter_id", ids)]).unwrap();
        let spec = crate::archive::TableSpec {
            name: "meters".to_owned(),
            schema: batch.schema(),
            time_column: None,
            sort_by: vec![],
            description: String::new(),
        };
        archive.ensure_table(spec).await.unwrap();
        let path = folder.path().join("meters");
        let load = || {
            let path = path.clone();
            tokio::task::spawn_blocking(move || load_reference(&path, &ReferenceOptions::default()).unwrap())
        };
        let (empty, before) = (load().await.unwrap(), reference_stamp(&path).unwrap());
        assert_eq!(empty.batch.num_rows(), 0);
        let naming = crate::archive::FileNaming { chain: "c".to_owned(), epoch: 1, part: 0, nonce: "n".to_owned() };
        let files = archive.write_files("meters", vec![batch], &naming).await.unwrap();
        archive.commit("meters", &files, &[], "test", 1).await.unwrap();
        let table = load().await.unwrap();
        assert_eq!((table.batch.num_rows(), table.schema.field(0).name().as_str()), (2, "meter_id"));
        assert_ne!(table.version, empty.version);
        assert_ne!(reference_stamp(&path).unwrap(), before);
    }

    #[test]
    fn parquet_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.parquet");
        let ids: ArrayRef = Arc::new(arrow::array::UInt32Array::from(vec![1, 2]));
        let from: ArrayRef = Arc::new(StringArray::from(vec![Some("2026-01-01T00:00:00Z"), None]));
        let batch = RecordBatch::try_from_iter([("id", ids), ("valid_from", from)]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let types = BTreeMap::from([("id".to_owned(), "string".to_owned())]);
        let options = ReferenceOptions { types, ..ReferenceOptions::default() };
        let table = load_reference(&path, &options).unwrap();
        assert_eq!(table.schema.field(0).data_type(), &DataType::Utf8);
        assert_eq!(table.schema.field(1).data_type(), &instant());
        assert!(
            load_reference(&folder.path().join("none.csv"), &options).unwrap_err().to_string().contains("none.csv")
        );
    }

    #[test]
    fn known_columns_have_their_types_and_are_null_where_the_table_lacks_them() {
        let known = [("rated_v", "decimal(9,3)"), ("area", "string"), ("valid_from", "timestamp")];
        let known = known.map(|(name, of)| (name.to_owned(), of.to_owned())).into();
        let options = ReferenceOptions { known, types: BTreeMap::from([("phases".into(), "bigint".into())]) };
        let table = read_reference("meters", b"meter_id,rated_v,phases\nM1,220,3\n", &options).unwrap();
        let fields = table.schema.fields().iter();
        let fields: Vec<(&str, &DataType)> = fields.map(|field| (field.name().as_str(), field.data_type())).collect();
        let rated = DataType::Decimal128(9, 3);
        let expected = [
            ("meter_id", &DataType::Utf8),
            ("rated_v", &rated),
            ("phases", &DataType::Int64),
            ("area", &DataType::Utf8),
        ];
        assert_eq!(fields, expected, "a table without versions stays one");
        assert_eq!(table.batch.column(3).null_count(), 1);
    }
}
