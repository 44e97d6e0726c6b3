//! The shipped schemas parse; every mistake of a bad one is found, at its place, with what to write.

use super::*;

fn shipped() -> [(&'static str, &'static str); 3] {
    [
        ("meter_readings", include_str!("../../../../schemas/meter_readings.avsc")),
        ("device_metrics", include_str!("../../../../schemas/device_metrics.avsc")),
        ("business_transactions", include_str!("../../../../schemas/business_transactions.avsc")),
    ]
}

#[test]
fn the_shipped_schemas_parse() {
    for (name, text) in shipped() {
        let schema = StreamSchema::parse(text, name).unwrap();
        assert_eq!(schema.name, name);
        assert_eq!(schema.arrow.fields().len(), schema.fields.len());
        assert_eq!(schema.event_time_field().field_type, FieldType::Instant);
        assert!(schema.fields.iter().all(|field| field.doc.is_some()), "{name}: a field has no doc");
        assert!(schema.key.iter().all(|key| schema.fields[schema.index_of(key).unwrap()].required));
        assert!(schema.index_of("tz_offset_min").is_some());
        let required = schema.fields.iter().filter(|field| field.required).count();
        assert!((2..=4).contains(&required), "{name}: {required} required fields");
    }
}

#[test]
fn confidential_columns_are_tagged() {
    let schema = StreamSchema::parse(shipped()[2].1, "t").unwrap();
    let customer = schema.arrow.field_with_name("customer_id").unwrap();
    assert_eq!(customer.metadata().get("confidential").map(String::as_str), Some("personal"));
    let amount = schema.arrow.field_with_name("amount").unwrap();
    assert_eq!(amount.data_type(), &DataType::Decimal128(18, 2));
}

#[test]
fn types_become_columns() {
    let text = r#"{"type": "record", "name": "s", "event_time": "ts", "key": ["id"], "fields": [
        {"name": "id", "type": "string"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": ["null", {"type": "enum", "name": "k", "symbols": ["a", "b"]}]},
        {"name": "kind_before", "type": ["k", "null"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "h", "type": ["null", {"type": "array", "items": ["null", "float"]}]},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "e", "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}}]}"#;
    let schema = StreamSchema::parse(text, "s").unwrap();
    let types: Vec<String> = schema.arrow.fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types[1], "Timestamp(µs, \"UTC\")");
    assert_eq!(schema.fields[2].field_type, schema.fields[3].field_type);
    assert_eq!((types[4].as_str(), types[7].as_str()), ("Date32", "Decimal128(18, 4)"));
    assert_eq!(schema.fields[5].field_type, FieldType::List { item: Box::new(FieldType::Float32), nullable: true });
    let nullable: Vec<bool> = schema.arrow.fields().iter().map(|field| field.is_nullable()).collect();
    assert_eq!(nullable, [false, false, true, true, false, true, false, false]);
}

#[test]
fn all_mistakes_at_once_with_their_places() {
    let text = "{\"type\": \"record\", \"name\": \"s\", \"event_time\": \"time\", \"key\": [\"meter\"],\n \
                \"fields\": [\n  {\"name\": \"meter_id\", \"type\": \"sting\"},\n  \
                {\"name\": \"meterId\", \"type\": \"string\"},\n  \
                {\"name\": \"t\", \"type\": {\"type\": \"long\", \"logicalType\": \"local-timestamp-micros\"}},\n  \
                {\"name\": \"x\", \"type\": [\"null\", \"int\", \"string\"]},\n  \
                {\"name\": \"y\", \"type\": \"int\", \"default\": 3, \"confidental\": \"personal\"},\n  \
                {\"name\": \"y\", \"type\": \"int\"},\n  \
                {\"name\": \"d\", \"type\": {\"type\": \"bytes\", \"logicalType\": \"decimal\", \"precision\": 99}}]}";
    let problems = StreamSchema::parse(text, "s").unwrap_err();
    let places: Vec<(usize, usize)> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let lines: Vec<usize> = places.iter().map(|place| place.0).collect();
    assert_eq!(lines, [1, 1, 3, 4, 5, 6, 7, 7, 8, 9], "{messages:#?}");
    assert_eq!(places[2], (3, 32));
    assert_eq!(messages[2], "line 3, column 32: type `sting` has no column; did you mean `string`?");
    assert!(messages.iter().any(|message| message.contains("did you mean `confidential`?")));
}

#[test]
fn a_broken_file_says_where() {
    let problems = StreamSchema::parse("{\n  \"type\": \"record\"\n  \"name\"", "s").unwrap_err();
    assert_eq!((problems.len(), problems[0].line, problems[0].column), (1, 3, 3));
    assert_eq!(problems[0].message, "not JSON: expected `,` or `}`");
    assert_eq!(StreamSchema::parse("", "s").unwrap_err().len(), 1);
    assert_eq!(StreamSchema::parse("[]", "s").unwrap_err().len(), 1);
}
