//! Records of several writers, good and damaged, by hand: what each must become, and that a damaged one harms nobody else.

use std::sync::Mutex;

use arrow::array::{Float64Array, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;
use wattline_sim::avro::{framed, write_bytes, write_long};

use super::*;

const STREAM: &str = r#"{"type":"record","name":"readings","event_time":"ts","key":["meter"],"fields":[
    {"name":"meter","type":"string"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"u","type":["null","double"]},
    {"name":"kwh","type":["null",{"type":"bytes","logicalType":"decimal","precision":18,"scale":4}]},
    {"name":"kind","type":["null",{"type":"enum","name":"kind","symbols":["interval","freeze"]}]},
    {"name":"lat","type":["null","double"]}]}"#;

/// As an older head end writes it: another order, a name of its own, milliseconds, a record inside, one field too many.
const WRITER: &str = r#"{"type":"record","name":"Reading","fields":[
    {"name":"when","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"firmware","type":"string"},
    {"name":"meter","type":"string"},
    {"name":"u","type":"double"},
    {"name":"position","type":["null",{"type":"record","name":"Position","fields":[
        {"name":"lat","type":"double"},{"name":"lon","type":"double"}]}]},
    {"name":"kwh","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":4}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["freeze","interval","odd"]}}]}"#;

/// Knows what it was told, and counts questions.
#[derive(Debug, Default)]
struct Registry {
    texts: BTreeMap<u32, &'static str>,
    asked: Mutex<Vec<SchemaName>>,
}

impl WriterSchemas for Registry {
    fn schema(&self, name: SchemaName) -> Result<Option<Arc<str>>, SchemaUnknown> {
        self.asked.lock().unwrap().push(name);
        match name {
            SchemaName::Number(99) => Err(SchemaUnknown { schema: name, reason: "nobody answers".to_owned() }),
            SchemaName::Number(number) => Ok(self.texts.get(&number).map(|text| Arc::from(*text))),
            SchemaName::Fingerprint(_) => Ok(None),
        }
    }
}

fn stream() -> Arc<StreamSchema> {
    Arc::new(StreamSchema::parse(STREAM, "test").unwrap())
}

fn mapping() -> Mapping {
    toml::from_str(r#"rename = { when = "ts", "position.lat" = "lat" }"#).unwrap()
}

fn decoder(registry: &Arc<Registry>) -> AvroDecoder {
    let schemas = Arc::clone(registry) as Arc<dyn WriterSchemas>;
    AvroDecoder::new(stream(), &mapping(), Limits::default(), (Framing::Confluent, schemas)).unwrap()
}

fn registry() -> Arc<Registry> {
    let texts = [(7, WRITER), (8, r#"{"type":"record","name":"Other","fields":[{"name":"x","type":"int"}]}"#)];
    Arc::new(Registry { texts: texts.into(), asked: Mutex::default() })
}

/// A record of [`WRITER`].
fn record(number: u32, ms: i64, meter: &str, u: f64, lat: Option<f64>, kind: i64) -> Vec<u8> {
    let mut out = framed(number);
    write_long(ms, &mut out);
    write_bytes(b"1.0", &mut out);
    write_bytes(meter.as_bytes(), &mut out);
    out.extend(u.to_le_bytes());
    write_long(i64::from(lat.is_some()), &mut out);
    if let Some(lat) = lat {
        out.extend([lat, 8.5].map(f64::to_le_bytes).concat());
    }
    write_bytes(&123_456_i64.to_be_bytes(), &mut out);
    write_long(kind, &mut out);
    out
}

fn decode(decoder: &mut AvroDecoder, payloads: &[Vec<u8>]) -> Decoded {
    let bytes = payloads.concat();
    let end = |sum: &mut usize, payload: &Vec<u8>| {
        *sum += payload.len();
        Some(u32::try_from(*sum).unwrap())
    };
    let ends: Vec<u32> = payloads.iter().scan(0, end).collect();
    decoder.decode(Records { bytes: &bytes, ends: &ends }).unwrap()
}

fn reasons(decoded: &Decoded) -> Vec<(u32, Reason)> {
    decoded.dead_letters.iter().map(|letter| (letter.record, letter.reason)).collect()
}

#[test]
fn a_writer_with_another_order_other_names_and_a_record_inside_is_read_by_name_and_mapping() {
    let registry = registry();
    let good =
        [record(7, 1_772_409_600_000, "M1", 230.5, Some(48.25), 1), record(7, 1_772_409_600_001, "M2", -0.0, None, 0)];
    let decoded = decode(&mut decoder(&registry), &good);
    assert_eq!(decoded.dead_letters, []);
    assert_eq!(decoded.batch.schema(), stream().arrow);
    assert_eq!(decoded.record, [0, 1]);
    let column = |name: &str| Arc::clone(decoded.batch.column_by_name(name).unwrap());
    assert_eq!(column("meter").as_string::<i32>(), &StringArray::from(vec!["M1", "M2"]));
    let times = vec![1_772_409_600_000_000, 1_772_409_600_001_000];
    assert_eq!(*column("ts"), TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    assert_eq!(*column("lat"), Float64Array::from(vec![Some(48.25), None]));
    assert_eq!(column("kind").as_string::<i32>(), &StringArray::from(vec!["interval", "freeze"]));
    let kwh = column("kwh");
    assert_eq!(kwh.as_primitive::<arrow::datatypes::Decimal128Type>().value_as_string(0), "12.3456");
    let unknown: Vec<(&str, u64)> = decoded.unknown_fields.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(unknown, [("firmware", 2), ("position.lon", 2)]);
}

#[test]
fn a_bad_record_is_refused_alone_with_what_is_wrong() {
    let registry = registry();
    let good = |n: i64| record(7, n, "M", 1.0, None, 0);
    let mut with_more = good(2);
    with_more.push(0);
    let mut twice = good(3);
    twice.extend(good(3));
    let mut not_text = good(4);
    let at = not_text.windows(2).position(|two| two == [2, b'M']).unwrap();
    not_text[at + 1] = 0xff;
    let payloads = [
        good(0),
        good(1)[..20].to_vec(),
        with_more,
        twice,
        not_text,
        b"{\"meter\":1}".to_vec(),
        Vec::new(),
        record(7, 5, "M", f64::NAN, None, 0),
        record(7, 6, "M", 1.0, None, 2),
        record(7, 7, "M", 1.0, None, 3),
        framed(8),
        framed(1_000),
        vec![0, 0, 0],
        good(8),
    ];
    let decoded = decode(&mut decoder(&registry), &payloads);
    assert_eq!(decoded.record, [0, 13]);
    let expected = [
        (1, Reason::NotAvro),
        (2, Reason::NotAvro),
        (3, Reason::NotAvro),
        (4, Reason::NotAvro),
        (5, Reason::NotAvro),
        (6, Reason::Empty),
        (7, Reason::OutOfRange),
        (8, Reason::UnknownSymbol),
        (9, Reason::NotAvro),
        (10, Reason::UnknownSchema),
        (11, Reason::UnknownSchema),
        (12, Reason::NotAvro),
    ];
    assert_eq!(reasons(&decoded), expected, "{:#?}", decoded.dead_letters);
    let detail = |record: u32| &decoded.dead_letters.iter().find(|letter| letter.record == record).unwrap().detail;
    assert!(detail(11).contains("there is no schema 1000 of the registry"), "{}", detail(11));
    assert!(detail(10).contains("required"), "{}", detail(10));
}

#[test]
fn each_schema_is_asked_for_once_and_one_that_cannot_be_known_stops_the_block() {
    let registry = registry();
    let mut decoder = decoder(&registry);
    for n in 0..3 {
        decode(&mut decoder, &[record(7, n, "M", 1.0, None, 0), framed(1_000), record(7, n, "M", 1.0, None, 0)]);
    }
    assert_eq!(*registry.asked.lock().unwrap(), [7, 1_000].map(SchemaName::Number));
    let payload = framed(99);
    let ends = [u32::try_from(payload.len()).unwrap()];
    let unknown = decoder.decode(Records { bytes: &payload, ends: &ends }).unwrap_err();
    assert_eq!(unknown.to_string(), "schema 99 of the registry is not known: nobody answers");
}

#[test]
fn a_record_that_names_its_schema_by_fingerprint_is_read_with_that_of_a_file() {
    let files = SchemaFiles::new(&[STREAM, WRITER]).unwrap();
    let Ok(Fingerprint::Rabin(fingerprint)) =
        AvroSchema::new(WRITER.to_owned()).fingerprint(FingerprintAlgorithm::Rabin)
    else {
        panic!("it has one")
    };
    let mut payload = [&[0xC3, 0x01][..], &fingerprint.to_le_bytes()].concat();
    payload.extend(&record(0, 5, "M1", 1.0, None, 0)[5..]);
    let schemas = (Framing::SingleObject, Arc::new(files) as Arc<dyn WriterSchemas>);
    let mut decoder = AvroDecoder::new(stream(), &mapping(), Limits::default(), schemas).unwrap();
    let other = [&[0xC3, 0x01][..], &[9; 8]].concat();
    let decoded = decode(&mut decoder, &[payload, other]);
    assert_eq!((decoded.record.as_slice(), reasons(&decoded)), (&[0][..], vec![(1, Reason::UnknownSchema)]));
    assert!(SchemaFiles::new(&[STREAM, "{"]).is_err_and(|(number, _)| number == 1));
}

#[test]
fn items_without_bytes_and_exploded_records_are_refused() {
    let bomb = r#"{"type":"record","name":"Bomb","fields":[
        {"name":"meter","type":"string"},{"name":"when","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"many","type":["null",{"type":"array","items":{"type":"record","name":"E","fields":[{"name":"n","type":"null"}]}}]}]}"#;
    let registry = Arc::new(Registry { texts: [(1, bomb)].into(), asked: Mutex::default() });
    let decoded = decode(&mut decoder(&registry), &[framed(1)]);
    assert_eq!(reasons(&decoded), [(0, Reason::UnknownSchema)]);
    assert!(decoded.dead_letters[0].detail.contains("items without bytes"), "{:?}", decoded.dead_letters);
    let mapping: Mapping = toml::from_str(r#"explode = "all""#).unwrap();
    let schemas = (Framing::Confluent, registry as Arc<dyn WriterSchemas>);
    let error = AvroDecoder::new(stream(), &mapping, Limits::default(), schemas).unwrap_err();
    assert!(error.to_string().contains("an Avro record is one event"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever was done to the bytes: each record is a row or a dead letter, the same however the records are cut into blocks.
    #[test]
    fn damaged_records_harm_nobody_else(
        damage in prop::collection::vec((0_usize..12, 0_usize..64, any::<u8>(), 0_u8..4), 0..12),
        block in 1_usize..12,
    ) {
        let registry = registry();
        let mut payloads: Vec<Vec<u8>> =
            (0..12).map(|n| record(7, n, "M1", 1.5, (n % 2 == 0).then_some(1.0), n % 2)).collect();
        let mut is_damaged = [false; 12];
        for (number, at, byte, how) in damage {
            let payload = &mut payloads[number];
            is_damaged[number] = true;
            match how {
                0 => payload.truncate(at),
                1 => payload.insert(at.min(payload.len()), byte),
                2 => payload.extend([byte; 3]),
                _ => { if let Some(place) = payload.get_mut(at) { *place = byte; } }
            }
        }
        let whole = decode(&mut decoder(&registry), &payloads);
        let mut rows: Vec<u32> = whole.record.clone();
        rows.extend(whole.dead_letters.iter().map(|letter| letter.record));
        rows.sort_unstable();
        prop_assert_eq!(rows, (0..12).collect::<Vec<u32>>());
        for (number, _) in (0_u32..).zip(is_damaged).filter(|(_, is_damaged)| !is_damaged) {
            prop_assert!(whole.record.contains(&number));
        }
        let mut one_by_one = decoder(&registry);
        let parts: Vec<Decoded> = payloads.chunks(block).map(|part| decode(&mut one_by_one, part)).collect();
        let batches: Vec<RecordBatch> = parts.iter().map(|part| part.batch.clone()).collect();
        prop_assert_eq!(concat_batches(&stream().arrow, &batches).unwrap(), whole.batch);
        let letters: Vec<Reason> = parts.iter().flat_map(|part| part.dead_letters.iter().map(|l| l.reason)).collect();
        prop_assert_eq!(letters, whole.dead_letters.iter().map(|l| l.reason).collect::<Vec<_>>());
    }
}
