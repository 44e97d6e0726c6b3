//! What becomes of JSON events, good and bad: single cases, arrow-json as the oracle of good ones, and properties.

use std::io::Cursor as Bytes;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Schema, TimestampMicrosecondType};
use proptest::prelude::*;

use super::*;
use crate::dead_letter::DeadLetter;

const SCHEMA: &str = r#"{"type": "record", "name": "s", "event_time": "ts", "key": ["id"], "fields": [
    {"name": "id", "type": "string"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "tz_offset_min", "type": ["null", "int"]},
    {"name": "kwh", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}]},
    {"name": "u_v", "type": ["null", "double"]},
    {"name": "n", "type": ["null", "long"]},
    {"name": "ok", "type": ["null", "boolean"]},
    {"name": "kind", "type": ["null", {"type": "enum", "name": "k", "symbols": ["a", "b"]}]},
    {"name": "h", "type": ["null", {"type": "array", "items": "float"}]},
    {"name": "codes", "type": ["null", {"type": "array", "items": "string"}]},
    {"name": "tags", "type": ["null", {"type": "map", "values": ["null", "string"]}]},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]}]}"#;

fn schema() -> Arc<StreamSchema> {
    Arc::new(StreamSchema::parse(SCHEMA, "s").unwrap())
}

fn decoder(mapping: &str) -> JsonDecoder {
    JsonDecoder::new(schema(), &toml::from_str(mapping).unwrap(), Limits::default()).unwrap()
}

fn decode_all<T: AsRef<[u8]>>(decoder: &mut JsonDecoder, records: &[T]) -> Decoded {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for record in records {
        bytes.extend_from_slice(record.as_ref());
        ends.push(u32::try_from(bytes.len()).unwrap());
    }
    decoder.decode(Records { bytes: &bytes, ends: &ends })
}

/// An event with one more member.
fn with(member: &str) -> String {
    format!(r#"{{"id": "M1", "ts": "2026-03-02T00:00:00+08:00"{}{member}}}"#, if member.is_empty() { "" } else { ", " })
}

/// The rows as text, cells between bars; instants as their count, since naming a zone needs its database.
fn shown(batch: &RecordBatch) -> String {
    let cell = |column: &dyn Array, row: usize| match column.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(instants) => instants.value(row).to_string(),
        None => arrow::util::display::array_value_to_string(column, row).unwrap(),
    };
    let row = |row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join(" | ");
    (0..batch.num_rows()).map(row).collect::<Vec<_>>().join("\n")
}

fn reason_of(mapping: &str, record: impl AsRef<[u8]>) -> Result<(), Reason> {
    let decoded = decode_all(&mut decoder(mapping), &[record]);
    match decoded.dead_letters.first() {
        Some(dead) => Err(dead.reason),
        None => Ok(()),
    }
}

#[test]
fn one_event_of_every_type() {
    let record = r#" { "ts" : 1772380800000, "id" : "M\u00e9\n1", "kwh": 12.5, "u_v": "235.4", "n": 12.0, "ok": false,
        "kind": "b", "h": [1, 2.5, "3"], "codes": [], "tags": {"a": null, "b": "\"x\"", "c": 1.50}, "day": "2026-03-02" } "#;
    let decoded = decode_all(&mut decoder(""), &[record]);
    assert_eq!(decoded.dead_letters, []);
    let batch = &decoded.batch;
    assert_eq!(batch["id"].as_string::<i32>().value(0), "Mé\n1");
    assert_eq!(batch["ts"].as_primitive::<TimestampMicrosecondType>().value(0), 1_772_380_800_000_000);
    assert!(batch["tz_offset_min"].is_null(0));
    assert_eq!(batch["kwh"].as_primitive::<Decimal128Type>().value(0), 125_000);
    assert_eq!(batch["u_v"].as_primitive::<Float64Type>().value(0), 235.4);
    let shown = shown(batch);
    assert!(shown.contains("[1.0, 2.5, 3.0]") && shown.contains("[]"), "{shown}");
    assert!(shown.contains("{a: , b: \"x\", c: 1.50}") && shown.contains("2026-03-02"), "{shown}");
}

#[test]
fn the_zone_of_the_event_time_is_kept() {
    let records = [with(""), with(r#""tz_offset_min": 60"#), with(r#""tz_offset_min": null"#)];
    let decoded = decode_all(&mut decoder(""), &records);
    assert_eq!(decoded.batch["tz_offset_min"].as_primitive::<Int32Type>().values(), &[480, 60, 480]);
}

#[test]
fn each_refusal_has_its_reason() {
    use Reason::*;
    for (record, reason) in [
        (String::new(), Empty),
        (" \n".to_owned(), Empty),
        ("{".to_owned(), NotJson),
        (with("") + "x", NotJson),
        (with("") + &with(""), NotJson),
        ("NaN".to_owned(), NotJson),
        (with(r#""u_v": NaN"#), NotJson),
        (with(r#""u_v": "x", "#), NotJson),
        ("[1]".to_owned(), NotAnObject),
        ("12".to_owned(), NotAnObject),
        ("[".repeat(40) + &"]".repeat(40), TooDeep),
        (with(&format!(r#""zz": {}{}"#, "[".repeat(32), "]".repeat(32))), TooDeep),
        (with(r#""u_v": "x""#), WrongType),
        (with(r#""u_v": """#), WrongType),
        (with(r#""u_v": true"#), WrongType),
        (with(r#""u_v": [1]"#), WrongType),
        (with(r#""u_v": "Infinity""#), WrongType),
        (with(r#""ok": 2"#), WrongType),
        (with(r#""n": 1.5"#), NotExact),
        (with(r#""n": 9223372036854775808"#), OutOfRange),
        (with(r#""u_v": 1e400"#), OutOfRange),
        (with(r#""h": [1e39]"#), OutOfRange),
        (with(r#""h": [1, null]"#), WrongType),
        (with(r#""h": {}"#), WrongType),
        (with(r#""tags": {"a": 1, "a": 2}"#), DuplicateField),
        (with(r#""tags": {"a": {}}"#), WrongType),
        (with(&format!(r#""h": [{}1]"#, "1,".repeat(1_024))), TooLarge),
        (with(r#""kwh": 0.00543"#), NotExact),
        (with(r#""kwh": 100000000000000"#), OutOfRange),
        (with(r#""kind": "c""#), UnknownSymbol),
        (with(r#""day": "2026-02-30""#), WrongType),
        (with(r#""id": "M2""#), DuplicateField),
        (r#"{"id": "M1"}"#.to_owned(), MissingField),
        (r#"{"id": null, "ts": 0}"#.to_owned(), MissingField),
        (r#"{"id": "M1", "ts": "2026-03-02T00:00:00"}"#.to_owned(), MissingZone),
        (r#"{"id": "M1", "ts": "0000-01-01T00:00:00Z"}"#.to_owned(), OutOfRange),
        (r#"{"id": "M1", "ts": 1e30}"#.to_owned(), OutOfRange),
        (with(&format!(r#""zz": "{}""#, "x".repeat(1 << 20))), TooLarge),
    ] {
        assert_eq!(reason_of("", &record), Err(reason), "{}", record.chars().take(200).collect::<String>());
    }
    assert_eq!(reason_of("", b"{\"id\": \"\xff\"}"), Err(InvalidUtf8));
    assert_eq!(reason_of("", with("")), Ok(()));
    assert_eq!(reason_of("", r#"{"id": "", "ts": 0}"#), Ok(()));
    assert_eq!(reason_of("", r#"{"id": 17, "ts": 0}"#), Ok(()));
}

#[test]
fn a_dead_letter_says_which_field_and_value() {
    let decoded = decode_all(&mut decoder(""), &[with(r#""u_v": "abc""#), "[{}]".to_owned()]);
    assert_eq!(decoded.dead_letters[0].detail, "`u_v`: `\"abc\"` is not a number");
    assert!(decoded.dead_letters[1].detail.contains("explode"));
    assert_eq!((decoded.dead_letters[0].record, decoded.dead_letters[1].record), (0, 1));
}

#[test]
fn mapping_renames_scales_rounds_and_fills() {
    let mut decoder = decoder(
        "round = ['kwh']\nignore = ['raw']\n[rename]\n'head.meter' = 'id'\nvoltage = 'u_v'\ntime = 'ts'\n\
         [scale]\nu_v = 0.1\nkwh = '0.001'\n[constants]\nkind = 'a'\nn = 900\nh = '[1, 2]'\n",
    );
    let decoded = decode_all(
        &mut decoder,
        &[
            r#"{"head": {"meter": "M1", "vendor": "x"}, "time": "2026-03-02T00:00:00Z", "voltage": 2354, "kwh": "12345.65", "raw": 1}"#,
            r#"{"head": {"meter": "M2"}, "time": 0, "n": null, "kind": "b", "other": 1, "voltage": 1}"#,
            r#"{"head": 5, "time": 0}"#,
            r#"{"head": null, "time": 0}"#,
        ],
    );
    assert_eq!(decoded.batch["u_v"].as_primitive::<Float64Type>().values(), &[235.4, 0.1]);
    assert_eq!(decoded.batch["kwh"].as_primitive::<Decimal128Type>().value(0), 123_457);
    let shown = shown(&decoded.batch);
    assert_eq!(shown.matches("| 900 |").count(), 2, "{shown}");
    assert_eq!(shown.matches("[1.0, 2.0]").count(), 2, "{shown}");
    let unknown: Vec<_> = decoded.unknown_fields.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(unknown, [("head.vendor", 1), ("other", 1)]);
    let reasons: Vec<_> = decoded.dead_letters.iter().map(|dead| dead.reason).collect();
    assert_eq!(reasons, [Reason::WrongType, Reason::MissingField]);
}

#[test]
fn instants_are_shifted_for_all_or_for_those_who_stamp_the_start() {
    let records = [with(r#""kind": "a""#), with(r#""kind": "b""#), with("")];
    let times = |mapping: &str| {
        let batch = decode_all(&mut decoder(mapping), &records).batch;
        let times = batch["ts"].as_primitive::<TimestampMicrosecondType>().values().to_vec();
        times.into_iter().map(|us| (us - 1_772_380_800_000_000) / 60_000_000).collect::<Vec<_>>()
    };
    assert_eq!(times(""), [0, 0, 0]);
    assert_eq!(times("shift = { ts = '15 minutes' }"), [15, 15, 15]);
    assert_eq!(times("shift.ts = { by = 'kind', values = { b = '15 minutes' } }"), [0, 15, 0]);
}

#[test]
fn explode_overlays_the_fields_around() {
    let mut decoder = decoder("explode = 'blocks.readings'\nrename = { v = 'u_v', 'head.day' = 'day' }");
    let decoded = decode_all(
        &mut decoder,
        &[
            r#"{"head": {"day": "2026-03-02"}, "blocks": [
                {"readings": [{"v": 1}, {"v": "x"}, 7, {"v": 3, "id": "own"}], "n": 1},
                {"n": 2, "readings": [{"v": 4}]}, {"readings": []}, {"readings": null}], "id": "M", "ts": 0}"#,
            r#"{"blocks": [{"readings": [{"v": 1, "id": "a", "ts": 0}]}, {"readings": [{]}]}"#,
        ],
    );
    assert_eq!(decoded.record, [0, 0, 0]);
    assert_eq!(decoded.index, [0, 3, 4]);
    assert_eq!(decoded.batch["u_v"].as_primitive::<Float64Type>().values(), &[1.0, 3.0, 4.0]);
    let ids: Vec<_> = decoded.batch["id"].as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, ["M", "own", "M"]);
    assert_eq!(decoded.batch["day"].null_count(), 0);
    let dead: Vec<_> = decoded.dead_letters.iter().map(|dead| (dead.record, dead.index, dead.reason)).collect();
    assert_eq!(
        dead,
        [(0, 1, Reason::WrongType), (0, 2, Reason::NotAnObject), (0, 5, Reason::MissingField), (1, 0, Reason::NotJson),]
    );
}

#[test]
fn explode_takes_a_message_that_is_an_array() {
    let mut decoder = decoder("explode = '.'");
    let records = [format!("[{}, {}]", with(""), with(r#""n": "x""#)), with(""), "[]".to_owned(), "3".to_owned()];
    let decoded = decode_all(&mut decoder, &records);
    assert_eq!((decoded.record, decoded.index), (vec![0, 1], vec![0, 0]));
    let dead: Vec<_> = decoded.dead_letters.iter().map(|dead| (dead.record, dead.index, dead.reason)).collect();
    assert_eq!(dead, [(0, 1, Reason::WrongType), (3, 0, Reason::NotAnObject)]);
}

#[test]
fn a_message_cannot_grow_beyond_its_limits() {
    let mapping = "explode = 'r'";
    let many = format!(r#"{{"id": "M", "ts": 0, "r": [{}{{}}]}}"#, "{},".repeat(10_000));
    assert_eq!(reason_of(mapping, &many), Err(Reason::TooLarge));
    let wide = format!(r#"{{"id": "{}", "ts": 0, "r": [{}{{}}]}}"#, "x".repeat(100_000), "{},".repeat(100));
    assert_eq!(reason_of(mapping, &wide), Err(Reason::TooLarge));
    let decoded = decode_all(&mut decoder(mapping), &[with(r#""r": [{}]"#), wide, with(r#""r": [{}, {}]"#)]);
    assert_eq!((decoded.record, decoded.dead_letters.len()), (vec![0, 2, 2], 1));
    assert_eq!(decoded.batch.num_rows(), 3);
}

#[test]
fn good_events_equal_what_arrow_json_reads() {
    let records: Vec<String> = (0..500)
        .map(|k: u32| {
            let members = [
                format!(r#""kwh": {}.{:04}"#, k * 7, k),
                format!(r#""u_v": {}"#, f64::from(k) * 0.1),
                format!(r#""n": {}"#, i64::from(k) - 250),
                format!(r#""ok": {}"#, k.is_multiple_of(2)),
                r#""kind": "a""#.to_owned(),
                format!(r#""h": [{}, 2.25]"#, k),
                r#""codes": ["1.4.0", "x\ty"]"#.to_owned(),
                r#""tags": {"a": "b"}"#.to_owned(),
                r#""day": "2026-03-02""#.to_owned(),
                r#""tz_offset_min": 480"#.to_owned(),
            ];
            let present = members
                .iter()
                .enumerate()
                .filter(|(bit, _)| *bit == 9 || (k.wrapping_mul(2_654_435_761) >> bit) & 1 == 1);
            with(&present.map(|(_, member)| member.as_str()).collect::<Vec<_>>().join(", "))
        })
        .collect();
    let ours = decode_all(&mut decoder(""), &records);
    assert_eq!(ours.dead_letters, []);
    let schema = schema();
    let text = records.join("\n");
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("+00:00".into()));
    let fields = schema.arrow.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(..) => Arc::new(field.as_ref().clone().with_data_type(utc.clone())),
        _ => Arc::clone(field),
    });
    let with_offset = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let reader = arrow::json::ReaderBuilder::new(Arc::clone(&with_offset)).with_batch_size(8_192);
    let theirs: Vec<RecordBatch> =
        reader.build(Bytes::new(text.as_bytes())).unwrap().collect::<Result<_, _>>().unwrap();
    let theirs = concat_batches(&with_offset, &theirs).unwrap();
    let instants = |batch: &RecordBatch| batch["ts"].as_primitive::<TimestampMicrosecondType>().values().to_vec();
    assert_eq!(instants(&ours.batch), instants(&theirs));
    for (at, field) in schema.fields.iter().enumerate().filter(|(_, field)| field.name != "ts") {
        assert_eq!(ours.batch.column(at).as_ref(), theirs.column(at).as_ref(), "{}", field.name);
    }
}

/// Records of every kind: whole, broken, mistyped, of any order of members.
fn any_record() -> impl Strategy<Value = Vec<u8>> {
    let member = prop_oneof![
        Just(r#""id": "M1""#.to_owned()),
        Just(r#""ts": "2026-03-02T00:00:00Z""#.to_owned()),
        Just(r#""ts": 1772380800000"#.to_owned()),
        "\"kwh\": -?[0-9]{1,12}(\\.[0-9]{1,5})?",
        "\"u_v\": \"?-?[0-9]{1,5}(\\.[0-9]{1,3})?\"?",
        "\"n\": [0-9]{1,20}",
        Just(r#""h": [1, 2, "x"]"#.to_owned()),
        Just(r#""h": [1, 2]"#.to_owned()),
        Just(r#""tags": {"a": "b", "c": null}"#.to_owned()),
        Just(r#""tags": {"a": [1]}"#.to_owned()),
        Just(r#""codes": ["a", "b"]"#.to_owned()),
        "\"[a-z]{1,3}\": [0-9]",
        Just(r#""ok": nul"#.to_owned()),
        Just(r#""kind": "a""#.to_owned()),
    ];
    let event = proptest::collection::vec(member, 0..6)
        .prop_map(|members| format!("{{\"id\": \"M\", \"ts\": 0, {}}}", members.join(", ")));
    let plain = r#"\{"id": "[a-z]{1,8}", "ts": [0-9]{1,13}, "u_v": [0-9]{1,3}\.[0-9]\}"#;
    prop_oneof![
        4 => plain.prop_map(String::into_bytes),
        4 => event.prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_and_blocks_do_not_matter(records in proptest::collection::vec(any_record(), 0..30), cut in 0_usize..30) {
        let whole = decode_all(&mut decoder(""), &records);
        prop_assert_eq!(whole.record.len() + whole.dead_letters.len(), records.len());
        prop_assert_eq!(whole.batch.num_rows(), whole.record.len());

        let (left, right) = records.split_at(cut.min(records.len()));
        let mut split = decoder("");
        let (first, second) = (decode_all(&mut split, left), decode_all(&mut split, right));
        let joined = concat_batches(&schema().arrow, [&first.batch, &second.batch]).unwrap();
        prop_assert_eq!(&joined, &whole.batch);
        let shift = u32::try_from(left.len()).unwrap();
        let dead: Vec<_> = first.dead_letters.into_iter()
            .chain(second.dead_letters.into_iter().map(|dead| DeadLetter { record: dead.record + shift, ..dead })).collect();
        prop_assert_eq!(dead, whole.dead_letters);
        let mut unknown = first.unknown_fields;
        for (name, count) in second.unknown_fields {
            *unknown.entry(name).or_default() += count;
        }
        prop_assert_eq!(unknown, whole.unknown_fields);
    }

    #[test]
    fn a_bad_event_never_affects_its_neighbours(records in proptest::collection::vec(any_record(), 1..20)) {
        let mut alone = decoder("");
        let singles: Vec<Decoded> = records.iter().map(|record| decode_all(&mut alone, &[record])).collect();
        let together = decode_all(&mut decoder(""), &records);
        let joined = concat_batches(&schema().arrow, singles.iter().map(|single| &single.batch)).unwrap();
        prop_assert_eq!(joined, together.batch);
    }

    #[test]
    fn exploded_events_equal_single_ones(events in proptest::collection::vec(any_record(), 1..12)) {
        let events: Vec<String> = events.into_iter().filter_map(|event| String::from_utf8(event).ok())
            .filter(|event| serde_json::from_str::<serde_json::Value>(event).is_ok()).collect();
        let single = decode_all(&mut decoder(""), &events);
        let message = format!("[{}]", events.join(","));
        let exploded = decode_all(&mut decoder("explode = '.'"), &[message]);
        prop_assert_eq!(&exploded.batch, &single.batch);
        let index: Vec<u32> = exploded.index.iter().map(|index| u32::try_from(*index).unwrap()).collect();
        prop_assert_eq!(index, single.record);
        let reasons = |dead: &[DeadLetter]| dead.iter().map(|dead| dead.reason).collect::<Vec<_>>();
        prop_assert_eq!(reasons(&exploded.dead_letters), reasons(&single.dead_letters));
    }
}
