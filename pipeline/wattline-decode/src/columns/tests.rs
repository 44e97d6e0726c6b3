//! Typed columns: taken over, converted or refused, row by row.

use arrow::array::{
    AsArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{Decimal128Type, Float64Type, Int32Type, TimestampMicrosecondType};

use super::*;

fn schema() -> Arc<StreamSchema> {
    Arc::new(StreamSchema::parse(include_str!("../../../../schemas/meter_readings.avsc"), "m").unwrap())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn decode(mapping: &str, input: &RecordBatch) -> Result<Decoded, Error> {
    let mapping = toml::from_str(mapping).unwrap();
    let mut decoder = ColumnDecoder::new(schema(), &mapping, Limits::default(), input.schema_ref())?;
    Ok(decoder.decode(input))
}

fn ids(count: usize) -> ArrayRef {
    Arc::new((0..count).map(|k| Some(format!("M{k}"))).collect::<StringArray>())
}

fn instants(count: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(0..count).with_timezone("UTC"))
}

#[test]
fn columns_of_the_right_type_are_not_copied() {
    let voltage: ArrayRef = Arc::new(Float64Array::from(vec![Some(235.4), None, Some(1.0)]));
    let input = batch(vec![("meter_id", ids(3)), ("ts", instants(3)), ("u_a_v", Arc::clone(&voltage))]);
    let decoded = decode("", &input).unwrap();
    assert_eq!(decoded.dead_letters, []);
    assert_eq!(decoded.batch.schema_ref(), &schema().arrow);
    let kept = decoded.batch["u_a_v"].as_primitive::<Float64Type>().values().inner().as_ptr();
    assert_eq!(kept, voltage.as_primitive::<Float64Type>().values().inner().as_ptr());
}

#[test]
fn instants_are_shifted_as_in_json() {
    let source: ArrayRef = Arc::new(StringArray::from(vec![Some("north"), None, Some("south")]));
    let input = batch(vec![("meter_id", ids(3)), ("ts", instants(3)), ("source", source)]);
    let decoded = decode("shift.ts = { by = 'source', values = { south = '1 minute' } }", &input).unwrap();
    assert_eq!(decoded.batch["ts"].as_primitive::<TimestampMicrosecondType>().values(), &[0, 1, 60_000_002]);
}

#[test]
fn other_types_are_converted_exactly_or_refused() {
    let input = batch(vec![
        (
            "meter_id",
            Arc::new(
                vec![Some("a"), Some("b"), None, Some("d"), Some("e"), Some("f")]
                    .into_iter()
                    .collect::<DictionaryArray<Int32Type>>(),
            ),
        ),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3, 4, i64::MAX, 6]).with_timezone("+08:00"))),
        ("energy_imp_kwh", Arc::new(Float64Array::from(vec![0.0054, 12.5, 1.0, 0.00543, 1.0, 1.0]))),
        (
            "energy_exp_kwh",
            Arc::new(Decimal128Array::from(vec![12_345_000, 1, 0, 0, 0, 0]).with_precision_and_scale(20, 6).unwrap()),
        ),
        ("u_a_v", Arc::new(Float32Array::from(vec![235.4, 1.5, 1.0, 1.0, 1.0, f32::NAN]))),
        ("seq_no", Arc::new(UInt64Array::from(vec![1, 2, 3, 4, 5, u64::MAX]))),
        ("interval_s", Arc::new(StringArray::from(vec!["900", "60", "1", "1", "1", "1"]))),
        ("colour", Arc::new(StringArray::from(vec!["x"; 6]))),
        (
            "u_h",
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(vec![
                Some(vec![Some(1.5)]),
                None,
                None,
                None,
                None,
                None,
            ])),
        ),
    ]);
    let decoded = decode("", &input).unwrap();
    assert_eq!(decoded.record, [0]);
    let dead: Vec<_> = decoded.dead_letters.iter().map(|dead| (dead.record, dead.reason)).collect();
    assert_eq!(
        dead,
        [
            (1, Reason::NotExact),
            (2, Reason::MissingField),
            (3, Reason::NotExact),
            (4, Reason::OutOfRange),
            (5, Reason::OutOfRange),
        ]
    );
    assert_eq!(decoded.batch["u_a_v"].as_primitive::<Float64Type>().value(0), 235.4);
    assert_eq!(decoded.batch["energy_imp_kwh"].as_primitive::<Decimal128Type>().value(0), 54);
    assert_eq!(decoded.batch["energy_exp_kwh"].as_primitive::<Decimal128Type>().value(0), 123_450);
    assert_eq!(decoded.batch["ts"].as_primitive::<TimestampMicrosecondType>().value(0), 1_000);
    assert_eq!(decoded.unknown_fields.get("colour"), Some(&6));
}

#[test]
fn mapping_applies_to_columns_too() {
    let input = batch(vec![
        ("Meter", ids(2)),
        ("time", Arc::new(StringArray::from(vec!["2026-03-02T00:00:00+08:00", "2026-03-02T00:00:00Z"]))),
        ("u_a_v", Arc::new(Int64Array::from(vec![2354, 2200]))),
        ("energy_imp_kwh", Arc::new(Float64Array::from(vec![0.00545, 1.0]))),
        ("interval_s", Arc::new(Int64Array::from(vec![None, Some(60)]))),
    ]);
    let mapping = "round = ['energy_imp_kwh']\n[rename]\nMeter = 'meter_id'\ntime = 'ts'\n[scale]\nu_a_v = 0.1\n\
                   [constants]\ninterval_s = 900\nsource = 'file'\n";
    let decoded = decode(mapping, &input).unwrap();
    assert_eq!(decoded.dead_letters, []);
    assert_eq!(decoded.batch["u_a_v"].as_primitive::<Float64Type>().values(), &[235.4, 220.0]);
    assert_eq!(decoded.batch["energy_imp_kwh"].as_primitive::<Decimal128Type>().value(0), 55);
    assert_eq!(decoded.batch["interval_s"].as_primitive::<Int32Type>().values(), &[900, 60]);
    assert_eq!(decoded.batch["tz_offset_min"].as_primitive::<Int32Type>().values(), &[480, 0]);
    assert_eq!(decoded.batch["source"].as_string::<i32>().value(1), "file");
}

#[test]
fn what_no_row_could_satisfy_is_an_error_at_the_start() {
    let message = |columns| decode("", &batch(columns)).unwrap_err().to_string();
    let zoneless: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]));
    assert!(message(vec![("meter_id", ids(1)), ("ts", zoneless)]).contains("without zone"));
    assert!(message(vec![("meter_id", ids(1))]).contains("required"));
    assert!(message(vec![("meter_id", ids(1)), ("ts", instants(1)), ("u_a_v", instants(1))]).contains("cannot become"));
}

#[test]
fn an_empty_batch_stays_empty() {
    let input = batch(vec![("meter_id", ids(0)), ("ts", instants(0))]);
    let decoded = decode("", &input).unwrap();
    assert_eq!((decoded.batch.num_rows(), decoded.record.len()), (0, 0));
}
