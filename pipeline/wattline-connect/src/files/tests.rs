//! Tests of the file source on files made on the spot.

use std::io::Write;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::*;

/// Everything a source says, as short text: `name:offset=payload`.
fn read_all(config: FileSourceConfig, from: i64) -> Result<Vec<String>> {
    let mut source = FileSource::open(config, Arc::new(|| 42))?;
    for lane in source.lanes().to_vec() {
        source.start(&lane, from)?;
    }
    let mut said = Vec::new();
    loop {
        let events = source.poll()?;
        if events.is_empty() {
            return Ok(said);
        }
        for event in events {
            describe(&event, &mut said);
        }
    }
}

fn short(lane: &LaneId) -> &str {
    lane.topic.rsplit('/').next().unwrap_or_default()
}

fn describe(event: &SourceEvent, said: &mut Vec<String>) {
    match event {
        SourceEvent::Records(block) => {
            for k in 0..block.len() {
                let text = String::from_utf8_lossy(block.payload(k)).into_owned();
                said.push(format!("{}:{}={text}", short(&block.lane), block.offsets[k]));
            }
        }
        SourceEvent::Columns { lane, first_offset, fetched_at_ms: 42, batch } => {
            said.push(format!("{}:{first_offset}+{}", short(lane), batch.num_rows()));
        }
        SourceEvent::Header { lane, line } => {
            said.push(format!("{} header {}", short(lane), String::from_utf8_lossy(line)))
        }
        SourceEvent::Oversized { lane, offset, length_bytes, head } => {
            said.push(format!("{}:{offset} oversized {length_bytes} {}", short(lane), head.len()));
        }
        SourceEvent::Ended { lane, next_offset } => said.push(format!("{} ended {next_offset}", short(lane))),
        other => panic!("a file source does not say {other:?}"),
    }
}

fn write(dir: &TempDir, name: &str, bytes: &[u8]) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).expect("test file");
    path.to_string_lossy().into_owned()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn lines_are_numbered_and_blank_ones_counted_but_skipped() {
    let dir = TempDir::new().expect("temp dir");
    let text = b"\xEF\xBB\xBF{\"a\":1}\r\n\n  \n{\"a\":2}\n{\"a\":3}";
    let expected = |name: &str| {
        [":0={\"a\":1}", ":3={\"a\":2}", ":4={\"a\":3}", " ended 5"].map(|rest| format!("{name}{rest}")).to_vec()
    };
    let plain = write(&dir, "p.ndjson", text);
    assert_eq!(read_all(FileSourceConfig::new(plain), 0).expect("plain"), expected("p.ndjson"));
    let packed = write(&dir, "g.jsonl.gz", &gzip(text));
    assert_eq!(read_all(FileSourceConfig::new(packed), 0).expect("gzip"), expected("g.jsonl.gz"));
    let zst = write(&dir, "z.json.zst", &zstd::encode_all(&text[..], 3).expect("in memory"));
    assert_eq!(read_all(FileSourceConfig::new(zst), 0).expect("zstd"), expected("z.json.zst"));
}

#[test]
fn reading_resumes_at_a_record_number() {
    let dir = TempDir::new().expect("temp dir");
    let path = write(&dir, "a.ndjson", b"0\n\n2\n3\n");
    assert_eq!(
        read_all(FileSourceConfig::new(path), 2).expect("read"),
        ["a.ndjson:2=2", "a.ndjson:3=3", "a.ndjson ended 4"]
    );
    let path = write(&dir, "b.csv", b"x,y\n1,2\n3,4\n");
    assert_eq!(
        read_all(FileSourceConfig::new(path), 1).expect("read"),
        ["b.csv header x,y", "b.csv:1=3,4", "b.csv ended 2"]
    );
}

#[test]
fn a_quoted_value_may_span_lines() {
    let dir = TempDir::new().expect("temp dir");
    let path = write(&dir, "a.csv", b"id,note\r\n1,\"two\nlines, and \"\"quotes\"\"\"\r\n2,plain\r\n");
    let expected =
        ["a.csv header id,note", "a.csv:0=1,\"two\nlines, and \"\"quotes\"\"\"", "a.csv:1=2,plain", "a.csv ended 2"];
    assert_eq!(read_all(FileSourceConfig::new(path), 0).expect("read"), expected);
}

#[test]
fn a_record_above_the_limit_is_reported_and_reading_goes_on() {
    let dir = TempDir::new().expect("temp dir");
    let long = "x".repeat(50);
    for (name, text, expected) in [
        (
            "a.ndjson",
            format!("ok\n{long}\nok\n"),
            ["a.ndjson:0=ok", "a.ndjson:1 oversized 51 12", "a.ndjson:2=ok", "a.ndjson ended 3"],
        ),
        (
            "b.ndjson",
            format!("1234567890\nok\n{long}"),
            ["b.ndjson:0=1234567890", "b.ndjson:1=ok", "b.ndjson:2 oversized 50 12", "b.ndjson ended 3"],
        ),
    ] {
        let mut config = FileSourceConfig::new(write(&dir, name, text.as_bytes()));
        config.record_bytes_max = 10;
        assert_eq!(read_all(config, 0).expect("read"), expected, "{name}");
    }
    // A quote that is never closed costs the records up to the limit, not the file.
    let mut config = FileSourceConfig::new(write(&dir, "c.csv", format!("h\n1\n\"{}", "2345\n".repeat(4)).as_bytes()));
    config.record_bytes_max = 10;
    let said = read_all(config, 0).expect("read");
    assert_eq!(said[..3], ["c.csv header h", "c.csv:0=1", "c.csv:1 oversized 16 12"], "{said:?}");
    assert_eq!(said[3..], ["c.csv:2=2345", "c.csv ended 3"]);
}

#[test]
fn files_take_turns_in_sorted_order() {
    let dir = TempDir::new().expect("temp dir");
    for name in ["b", "a", "c"] {
        write(&dir, &format!("{name}.ndjson"), b"1\n2\n");
    }
    let mut config = FileSourceConfig::new(dir.path().join("*.ndjson").to_string_lossy());
    config.block_records_max = 1;
    let order = |config: FileSourceConfig| -> String {
        let said = read_all(config, 0).expect("read");
        said.iter().filter(|line| line.contains('=')).filter_map(|line| line.chars().next()).collect()
    };
    assert_eq!(order(config.clone()), "abcabc");
    config.open_files_max = 2;
    assert_eq!(order(config), "ababcc");
}

#[test]
fn parquet_comes_as_columns_and_resumes_at_a_row() {
    let dir = TempDir::new().expect("temp dir");
    let path = dir.path().join("a.parquet");
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from_iter_values(0..10))]).expect("batch");
    let mut writer = ArrowWriter::try_new(File::create(&path).expect("file"), schema, None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let mut config = FileSourceConfig::new(path.to_string_lossy());
    config.block_records_max = 4;
    assert_eq!(
        read_all(config.clone(), 0).expect("read"),
        ["a.parquet:0+4", "a.parquet:4+4", "a.parquet:8+2", "a.parquet ended 10"]
    );
    assert_eq!(read_all(config, 7).expect("read"), ["a.parquet:7+3", "a.parquet ended 10"]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = TempDir::new().expect("temp dir");
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let packed = gzip("0123456789\n".repeat(100_000).as_bytes());
    write(&dir, "cut.ndjson.gz", &packed[..packed.len() / 2]);
    write(&dir, "bad.parquet", b"PAR1 no");
    write(&dir, "what.xyz", b"1\n");
    for (pattern, expected) in [
        (at("none.ndjson"), "does not exist"),
        (at("none*.ndjson"), "no file matches"),
        (at("***"), "is not a file pattern"),
        (at("what.xyz"), "the format of"),
        (at("bad.parquet"), "cannot be read as parquet at row 0"),
        (at("cut.ndjson.gz"), "cannot be unpacked after record"),
        (dir.path().to_string_lossy().into_owned(), "the format of"),
    ] {
        let error = read_all(FileSourceConfig::new(pattern.clone()), 0).expect_err("must fail").to_string();
        assert!(error.contains(expected), "{pattern}: {error}");
    }
}
