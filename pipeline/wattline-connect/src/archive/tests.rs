//! The archive on a local folder: idempotence, order of rows, growth of the schema, merging, foreign writers.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::*;

const DAY_US: i64 = 86_400_000_000;
/// 2026-03-02T00:00:00Z.
const MONDAY_US: i64 = 1_772_409_600_000_000;

pub(super) fn open(folder: &std::path::Path) -> Archive {
    Archive::open(ObjectRoot::open(folder.to_str().unwrap(), &BTreeMap::new()).unwrap())
}

fn readings_schema(extra: &[&str]) -> SchemaRef {
    let confidential = std::collections::HashMap::from([("confidential".to_owned(), "true".to_owned())]);
    let mut fields = vec![
        Field::new("meter_id", DataType::Utf8, false).with_metadata(confidential),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("p_kw", DataType::Float64, true),
        Field::new("n", DataType::Int64, false),
    ];
    fields.extend(extra.iter().map(|name| Field::new(*name, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

pub(super) fn spec(extra: &[&str]) -> TableSpec {
    TableSpec {
        name: "readings".to_owned(),
        schema: readings_schema(extra),
        time_column: Some("ts".to_owned()),
        sort_by: vec!["meter_id".to_owned(), "ts".to_owned()],
        description: "meter readings".to_owned(),
    }
}

/// Rows `from..to` of 7 meters, a reading every 10 minutes from Monday on, in an order that is not the table's.
pub(super) fn readings(from: i64, to: i64) -> RecordBatch {
    let rows: Vec<i64> = (from..to).rev().collect();
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|n| format!("M{}", n % 7))));
    let times = rows.iter().map(|n| MONDAY_US + n / 7 * 600_000_000);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    let power: ArrayRef =
        Arc::new(Float64Array::from_iter(rows.iter().map(|n| (n % 3 != 0).then_some(*n as f64 / 4.0))));
    let numbers: ArrayRef = Arc::new(Int64Array::from(rows));
    RecordBatch::try_new(readings_schema(&[]), vec![ids, times, power, numbers]).unwrap()
}

pub(super) fn naming(epoch: u64) -> FileNaming {
    FileNaming { chain: "job/slot 0".to_owned(), epoch, part: 0, nonce: format!("n{epoch}") }
}

pub(super) async fn numbers(archive: &Archive) -> Vec<i64> {
    let batches = archive.read_table("readings").await.unwrap();
    let mut numbers: Vec<i64> = Vec::new();
    for batch in &batches {
        numbers.extend(batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().values());
    }
    numbers.sort_unstable();
    numbers
}

fn file_rows(path: &str) -> Vec<(String, i64)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let (ids, times) = (
            batch.column(0).as_string::<i32>().clone(),
            batch.column(1).as_primitive::<TimestampMicrosecondType>().clone(),
        );
        rows.extend((0..batch.num_rows()).map(|row| (ids.value(row).to_owned(), times.value(row))));
    }
    rows
}

#[test]
fn a_dictionary_is_for_values_that_come_again() {
    let layout = Layout {
        schema: readings_schema(&[]),
        time_column: Some("ts".to_owned()),
        sort_by: vec!["meter_id".to_owned(), "ts".to_owned()],
    };
    let (rows, mut encodings) = (2_000, BTreeMap::new());
    // `n` never comes twice, `p_kw` of these rows takes one of four values.
    let few: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|n| f64::from(n % 4))));
    let mut columns = readings(0, i64::from(rows)).columns().to_vec();
    columns[2] = few;
    let batch = RecordBatch::try_new(readings_schema(&[]), columns).unwrap();
    let encoded = encode_sorted(&layout, &[batch], |file| {
        for column in file.metadata.row_group(0).columns() {
            let has_dictionary = column.dictionary_page_offset().is_some();
            encodings.insert(column.column_path().string(), has_dictionary);
        }
        true
    });
    encoded.unwrap();
    assert!(encodings["meter_id"] && encodings["p_kw"] && !encodings["n"], "{encodings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_split_sorted_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    archive.ensure_table(spec(&[])).await.unwrap();
    let adds = archive.write_files("readings", vec![readings(0, 900), readings(900, 1500)], &naming(1)).await.unwrap();
    assert_eq!(
        adds.iter().map(|add| add.event_date.as_deref()).collect::<Vec<_>>(),
        [Some("2026-03-02"), Some("2026-03-03")]
    );
    assert_eq!(adds[0].path, "event_date=2026-03-02/part-job_slot_0-1-0-0-n1.parquet");
    assert_eq!(adds.iter().map(|add| add.rows).collect::<Vec<_>>(), [144 * 7, 1500 - 144 * 7]);
    assert!(archive.files("readings").await.unwrap().is_empty(), "nothing is visible before the commit");

    let stats: Value = serde_json::from_str(&adds[0].stats).unwrap();
    assert_eq!(stats["numRecords"], 1008);
    assert_eq!(stats["minValues"]["meter_id"], "M0");
    assert_eq!(stats["maxValues"]["ts"], "2026-03-02T23:50:00.000000Z");
    assert_eq!(stats["minValues"]["n"], 0);
    assert_eq!(stats["nullCount"]["p_kw"], 336);

    assert_eq!(
        archive.commit("readings", &adds, &[], "chain-1", 1).await.unwrap(),
        Committed::Done { table_version: 1 }
    );
    let files = archive.files("readings").await.unwrap();
    assert_eq!(files.len(), 2);
    for file in &files {
        let rows = file_rows(file);
        assert!(rows.is_sorted(), "{file}");
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
        assert_eq!(reader.metadata().row_group(0).sorting_columns().unwrap().len(), 2);
        assert!(reader.metadata().file_metadata().key_value_metadata().is_none(), "no Arrow schema in the footer");
    }
    assert_eq!(numbers(&archive).await, (0..1500).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_idempotent_per_application_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    archive.ensure_table(spec(&[])).await.unwrap();
    for epoch in 1..=3 {
        let adds = archive
            .write_files("readings", vec![readings(10 * epoch, 10 * epoch + 10)], &naming(epoch.unsigned_abs()))
            .await
            .unwrap();
        assert!(matches!(archive.commit("readings", &adds, &[], "a", epoch).await.unwrap(), Committed::Done { .. }));
        assert_eq!(archive.commit("readings", &adds, &[], "a", epoch).await.unwrap(), Committed::AlreadyThere);
        // A successor with no memory of the table comes to the same answer from the log.
        assert_eq!(
            open(folder.path()).commit("readings", &adds, &[], "a", epoch).await.unwrap(),
            Committed::AlreadyThere
        );
    }
    assert_eq!(archive.txn_version("readings", "a").await.unwrap(), Some(3));
    assert_eq!(archive.txn_version("readings", "b").await.unwrap(), None);
    assert_eq!(archive.commit("readings", &[], &[], "b", 1).await.unwrap(), Committed::Done { table_version: 4 });
    assert_eq!(numbers(&archive).await, (10..40).collect::<Vec<_>>());
    let info = archive.list().await.unwrap();
    assert_eq!((info[0].version, info[0].files, info[0].rows), (4, 3, 30));
    assert!(archive.commit("nothing", &[], &[], "a", 1).await.unwrap_err().to_string().contains("`nothing`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_in_several_processes_all_get_through() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).ensure_table(spec(&[])).await.unwrap();
    let writers = (0..4_i64).map(|who| {
        let archive = open(folder.path());
        tokio::spawn(async move {
            for n in 1..=10 {
                let from = who * 1000 + n * 10;
                let files = naming((who * 100 + n).unsigned_abs());
                let adds = archive.write_files("readings", vec![readings(from, from + 10)], &files).await.unwrap();
                let first = archive.commit("readings", &adds, &[], &format!("w{who}"), n).await.unwrap();
                assert!(matches!(first, Committed::Done { .. }));
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    let archive = open(folder.path());
    assert_eq!(numbers(&archive).await.len(), 400);
    assert_eq!(archive.list().await.unwrap()[0].version, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_grows_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let other = open(folder.path());
    archive.ensure_table(spec(&[])).await.unwrap();
    let old = archive.write_files("readings", vec![readings(0, 10)], &naming(1)).await.unwrap();
    archive.commit("readings", &old, &[], "a", 1).await.unwrap();
    archive.ensure_table(spec(&["q_kvar"])).await.unwrap();
    let new = archive.write_files("readings", vec![readings(10, 20)], &naming(2)).await.unwrap();
    archive.commit("readings", &new, &[], "a", 2).await.unwrap();
    // A writer that knew the table before it grew still fits.
    other.ensure_table(spec(&[])).await.unwrap();
    let late = other.write_files("readings", vec![readings(20, 30)], &naming(3)).await.unwrap();
    other.commit("readings", &late, &[], "b", 1).await.unwrap();
    let batches = archive.read_table("readings").await.unwrap();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 30);
    assert!(batches.iter().all(|batch| batch.column_by_name("q_kvar").unwrap().null_count() == batch.num_rows()));
    let dates = batches[0].column_by_name("event_date").unwrap();
    assert_eq!(arrow::compute::cast(dates, &DataType::Date32).unwrap().as_primitive::<Date32Type>().value(0), 20_514);

    let mut clash = spec(&[]);
    clash.schema = Arc::new(Schema::new(vec![
        Field::new("meter_id", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
    ]));
    let text = archive.ensure_table(clash).await.unwrap_err().to_string();
    assert!(text.contains("`readings`") && text.contains("`meter_id`") && text.contains("Int64"), "{text}");
    let mut lost = spec(&[]);
    lost.sort_by = vec!["device_id".to_owned()];
    assert!(archive.ensure_table(lost).await.unwrap_err().to_string().contains("`device_id`"));
    let log = std::fs::read_to_string(folder.path().join("readings/_delta_log/00000000000000000000.json")).unwrap();
    assert!(log.contains(r#"\"confidential\":\"true\""#), "field metadata is kept: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_keeps_rows_and_order() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    archive.ensure_table(spec(&[])).await.unwrap();
    for epoch in 0..60 {
        let adds = archive
            .write_files("readings", vec![readings(50 * epoch, 50 * epoch + 50)], &naming(epoch.unsigned_abs()))
            .await
            .unwrap();
        archive.commit("readings", &adds, &[], "a", epoch).await.unwrap();
    }
    let before = archive.files("readings").await.unwrap();
    let policy = MaintainPolicy::default();
    let report = archive.maintain("readings", &policy).await.unwrap();
    assert_eq!(report.files_merged, before.len(), "{report:?}");
    assert_eq!(report.checkpoint_version, Some(63));
    assert_eq!(report.files_vacuumed, 0, "replaced files stay for readers of older versions");
    let after = archive.files("readings").await.unwrap();
    assert_eq!(after.len(), 3);
    for file in &after {
        let rows = file_rows(file);
        assert!(rows.is_sorted() && rows.len() >= 900, "{file}: {}", rows.len());
    }
    assert_eq!(numbers(&archive).await, (0..3000).collect::<Vec<_>>());
    // From the checkpoint, a newcomer sees the same, transactions included.
    let newcomer = open(folder.path());
    assert_eq!(newcomer.txn_version("readings", "a").await.unwrap(), Some(59));
    assert_eq!(newcomer.list().await.unwrap(), archive.list().await.unwrap());
    assert_eq!(newcomer.maintain("readings", &policy).await.unwrap(), MaintainReport::default());

    let at_once = MaintainPolicy { file_retention: Duration::ZERO, vacuum_every: Duration::ZERO, ..policy };
    assert_eq!(newcomer.maintain("readings", &at_once).await.unwrap().files_vacuumed, before.len());
    assert!(before.iter().all(|file| !std::path::Path::new(file).exists()));
    assert_eq!(numbers(&newcomer).await, (0..3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undated_rows_and_undated_tables() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    let mut flat = spec(&[]);
    flat.name = "flat".to_owned();
    flat.time_column = None;
    archive.ensure_table(flat).await.unwrap();
    let adds = archive.write_files("flat", vec![readings(0, 3000)], &naming(1)).await.unwrap();
    assert_eq!(adds.len(), 1);
    archive.commit("flat", &adds, &[], "a", 1).await.unwrap();
    archive.ensure_table(spec(&[])).await.unwrap();
    let rows = readings(0, 4);
    let mut columns = rows.columns().to_vec();
    let times = [None, Some(MONDAY_US - 1), Some(MONDAY_US + DAY_US), Some(-1)];
    columns[1] = Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"));
    let fields: Vec<Field> =
        rows.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let adds = archive.write_files("readings", vec![rows], &naming(1)).await.unwrap();
    let dates: Vec<Option<&str>> = adds.iter().map(|add| add.event_date.as_deref()).collect();
    assert_eq!(dates, [None, Some("1969-12-31"), Some("2026-03-01"), Some("2026-03-03")]);
    archive.commit("readings", &adds, &[], "a", 1).await.unwrap();
    assert_eq!(numbers(&archive).await, [0, 1, 2, 3]);
    assert_eq!(archive.table_names().await.unwrap(), ["flat", "readings"]);
    assert_eq!(archive.providers().await.unwrap().len(), 2);
    let empty = archive.write_files("readings", vec![], &naming(2)).await.unwrap();
    assert!(empty.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_another_order_are_not_merged() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    for epoch in 0..16 {
        let mut wanted = spec(&[]);
        if epoch < 8 {
            wanted.sort_by = vec!["ts".to_owned()];
        }
        archive.ensure_table(wanted).await.unwrap();
        let rows = readings(10 * epoch, 10 * epoch + 10);
        let adds = archive.write_files("readings", vec![rows], &naming(epoch.unsigned_abs())).await.unwrap();
        archive.commit("readings", &adds, &[], "a", epoch).await.unwrap();
    }
    let policy = MaintainPolicy { merge_files_min: 4, ..MaintainPolicy::default() };
    let report = archive.maintain("readings", &policy).await.unwrap();
    assert_eq!((report.files_merged, report.files_written), (8, 1), "{report:?}");
    assert_eq!(archive.maintain("readings", &policy).await.unwrap().files_merged, 0);
    assert_eq!(archive.files("readings").await.unwrap().len(), 9);
    assert_eq!(numbers(&archive).await, (0..160).collect::<Vec<_>>());
}

/// A put whose answer was lost finds its own object, recognises it and goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_is_not_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    archive.ensure_table(spec(&[])).await.unwrap();
    let adds = archive.write_files("readings", vec![readings(0, 10)], &naming(1)).await.unwrap();
    let change = Change {
        operation: "WRITE",
        adds: &adds,
        removes: &[],
        data_change: true,
        txn: Some(("a", 1)),
        metadata: None,
    };
    let table = archive.table("readings").unwrap();
    let landed = table.current(|log| log.commit_bytes("readings", &change, "mine", 0)).await.unwrap().unwrap().unwrap();
    assert!(log::is_own(&landed, "mine") && !log::is_own(&landed, "other"));
    table.root.put_if_absent(&log::commit_path(1), landed.into()).await.unwrap();
    assert_eq!(archive.commit("readings", &adds, &[], "a", 1).await.unwrap(), Committed::AlreadyThere);
    assert_eq!(archive.commit("readings", &[], &[], "a", 2).await.unwrap(), Committed::Done { table_version: 2 });
    assert_eq!(numbers(&archive).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_not_what_the_log_says_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    archive.ensure_table(spec(&[])).await.unwrap();
    let adds = archive.write_files("readings", vec![readings(0, 1500)], &naming(1)).await.unwrap();
    archive.commit("readings", &adds, &[], "a", 1).await.unwrap();
    let report = archive.check_files("readings").await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((report.version, report.files, report.rows, report.uncounted), (1, 2, 1500, 0));
    assert!(report.live.contains(&adds[0].path) && report.removed.is_empty());
    assert!(report.made_ms.is_some() && archive.is_own("readings").await.unwrap());

    let [first, second]: [String; 2] = archive.files("readings").await.unwrap().try_into().unwrap();
    let (whole, other) = (std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    let told = async |bytes: Option<&[u8]>| {
        match bytes {
            Some(bytes) => std::fs::write(&first, bytes).unwrap(),
            None => std::fs::remove_file(&first).unwrap(),
        }
        let problems = open(folder.path()).check_files("readings").await.unwrap().problems;
        std::fs::write(&first, &whole).unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].place, "table `readings`");
        problems[0].what.clone()
    };
    assert!(told(None).await.ends_with("is not there"));
    assert!(told(Some(&whole[..whole.len() - 1])).await.contains("bytes, the log says"));
    let mut damaged = whole.clone();
    let magic = damaged.len() - 4;
    damaged[magic..].copy_from_slice(b"RAP1");
    assert!(told(Some(&damaged)).await.contains("the footer of file"));

    // Another file, with a log that gives its size.
    let log = folder.path().join("readings/_delta_log/00000000000000000001.json");
    let text = std::fs::read_to_string(&log).unwrap();
    let (size, other_size) = (format!("\"size\":{},", whole.len()), format!("\"size\":{},", other.len()));
    assert!(text.contains(&size), "{text}");
    std::fs::write(&log, text.replace(&size, &other_size)).unwrap();
    assert!(told(Some(&other)).await.contains("rows, the log says 1008"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_leaves_alone_what_is_young_or_promised() {
    let folder = tempfile::tempdir().unwrap();
    let archive = open(folder.path());
    archive.ensure_table(spec(&[])).await.unwrap();
    let adds = archive.write_files("readings", vec![readings(0, 900)], &naming(1)).await.unwrap();
    archive.commit("readings", &adds, &[], "a", 1).await.unwrap();
    let promised = archive.write_files("readings", vec![readings(0, 10)], &naming(2)).await.unwrap().remove(0).path;
    let stray = archive.write_files("readings", vec![readings(10, 20)], &naming(3)).await.unwrap().remove(0).path;
    let promises = std::collections::BTreeSet::from([promised.clone()]);
    let policy = MaintainPolicy::default();
    let at_once = MaintainPolicy { file_retention: Duration::ZERO, ..policy.clone() };
    let exists = |path: &str| folder.path().join("readings").join(path).exists();
    let vacuum = async |policy: &MaintainPolicy, dry_run: bool| -> Vec<String> {
        let objects = archive.vacuum("readings", policy, &promises, dry_run).await.unwrap();
        objects.into_iter().map(|object| object.path).collect()
    };
    assert_eq!(vacuum(&policy, false).await, [""; 0], "all are young");
    assert_eq!(vacuum(&at_once, true).await, [stray.as_str()]);
    assert!(exists(&stray), "a dry run deletes nothing");
    assert_eq!(vacuum(&at_once, false).await, [stray.as_str()]);
    assert!(!exists(&stray) && exists(&promised) && adds.iter().all(|add| exists(&add.path)));

    // A file that the table had and gave up is a promise no more.
    let change = archive.write_files("readings", vec![readings(20, 30)], &naming(4)).await.unwrap();
    archive.commit("readings", &change, std::slice::from_ref(&adds[0].path), "a", 2).await.unwrap();
    let kept = std::collections::BTreeSet::from([adds[0].path.clone(), promised]);
    let gone = archive.vacuum("readings", &at_once, &kept, false).await.unwrap();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0].path == adds[0].path && !exists(&adds[0].path));
}
