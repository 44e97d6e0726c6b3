//! CSV records, and that they mean the same as their JSON twins.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Float64Type};
use proptest::prelude::*;

use super::*;
use crate::json::JsonDecoder;

fn schema() -> Arc<StreamSchema> {
    Arc::new(StreamSchema::parse(include_str!("../../../../schemas/meter_readings.avsc"), "m").unwrap())
}

fn decode(decoder: &mut CsvDecoder, records: &[&str]) -> Decoded {
    let mut ends = Vec::new();
    let mut length = 0;
    for record in records {
        length += record.len();
        ends.push(u32::try_from(length).unwrap());
    }
    decoder.decode(Records { bytes: records.concat().as_bytes(), ends: &ends })
}

fn decoder(mapping: &str, header: &str) -> Result<CsvDecoder, Error> {
    CsvDecoder::new(schema(), &toml::from_str(mapping).unwrap(), Limits::default(), header)
}

#[test]
fn cells_are_typed_by_the_schema() {
    let header = "\u{feff}Meter;ts;u_a_v;energy_imp_kwh;source;u_h;colour\r\n";
    let mut decoder = decoder("rename = { Meter = 'meter_id' }", header).unwrap();
    let decoded = decode(
        &mut decoder,
        &[
            "M1;2026-03-02T00:00:00+08:00;235.4;000123.4500;\"a;\"\"b\"\"\";\"[1,2]\";red\r\n",
            "M2;1772380800000;;;\"\";;\n",
            "M3;0;x;;;;",
            "M4;0",
            ";0;1;;;;",
            "\"M5;0;1;;;;",
            "\"M6\"x;0;1;;;;",
            "",
        ],
    );
    assert_eq!(decoded.record, [0, 1]);
    assert_eq!(decoded.batch["u_a_v"].as_primitive::<Float64Type>().value(0), 235.4);
    assert!(decoded.batch["u_a_v"].is_null(1));
    assert_eq!(decoded.batch["energy_imp_kwh"].as_primitive::<Decimal128Type>().value(0), 1_234_500);
    let source = decoded.batch["source"].as_string::<i32>();
    assert_eq!((source.value(0), source.value(1), source.is_null(1)), ("a;\"b\"", "", false));
    assert_eq!(decoded.batch["u_h"].as_list::<i32>().value(0).len(), 2);
    assert_eq!(decoded.batch["tz_offset_min"].null_count(), 1);
    let reasons: Vec<_> = decoded.dead_letters.iter().map(|dead| dead.reason.code()).collect();
    assert_eq!(reasons, ["wrong_type", "not_csv", "missing_field", "not_csv", "not_csv", "empty"]);
    assert_eq!(decoded.unknown_fields.get("colour"), Some(&4));
}

#[test]
fn a_header_that_cannot_work_is_refused() {
    let message = |mapping, header| decoder(mapping, header).unwrap_err().to_string();
    assert!(message("", "meterid,ts").contains("rename = { \"meterid\" = \"meter_id\" }"));
    assert!(message("rename = { m = 'meter_id' }", "m,meter_id,ts").contains("are both the field `meter_id`"));
    assert!(message("explode = 'r'", "meter_id,ts").contains("explode"));
    assert!(decoder("constants = { meter_id = 'M1' }", "ts").is_ok());
}

proptest! {
    #[test]
    fn a_cell_means_what_a_json_string_means(value in "[-+0-9.eE]{1,8}|[0-9]{1,6}\\.[0-9]{1,6}|true|[a-z]{1,4}", column in prop_oneof![
        Just("u_a_v"), Just("energy_imp_kwh"), Just("interval_s"), Just("pq_flagged"), Just("reading_kind"), Just("source"), Just("demand_ts"),
    ]) {
        let mut csv = decoder("", &format!("meter_id,ts,{column}")).unwrap();
        let from_csv = decode(&mut csv, &[&format!("M1,0,{value}")]);
        let mut json = JsonDecoder::new(schema(), &Mapping::default(), Limits::default()).unwrap();
        let record = format!(r#"{{"meter_id": "M1", "ts": "0", "{column}": "{value}"}}"#).replace(r#""ts": "0""#, r#""ts": 0"#);
        let ends = [u32::try_from(record.len()).unwrap()];
        let from_json = json.decode(Records { bytes: record.as_bytes(), ends: &ends });
        prop_assert_eq!(&from_csv.batch, &from_json.batch);
        let reason = |decoded: &Decoded| decoded.dead_letters.first().map(|dead| dead.reason);
        prop_assert_eq!(reason(&from_csv), reason(&from_json));
    }

    #[test]
    fn never_panics_and_never_loses(records in proptest::collection::vec("\\PC{0,20}|[\",;\n0-9a]{0,20}", 0..10)) {
        let mut decoder = decoder("", "meter_id,ts,u_a_v").unwrap();
        let texts: Vec<&str> = records.iter().map(String::as_str).collect();
        let decoded = decode(&mut decoder, &texts);
        prop_assert_eq!(decoded.record.len() + decoded.dead_letters.len(), records.len());
    }
}
