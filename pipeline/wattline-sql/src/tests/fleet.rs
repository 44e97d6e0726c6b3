//! A small seeded fleet: streams, reference tables and random lanes of readings for the tests.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Schema, SchemaRef};

use crate::catalog::event_time_type;
use crate::{Catalog, ReferenceTable, RuleFile, RuleSet, Stream, UserFunctions};

/// 2026-03-02T00:00:00Z in microseconds.
pub(super) const MIDNIGHT_US: i64 = 1_772_409_600_000_000;

/// A 64-bit linear congruential generator: the same seed, the same fleet, on every machine.
#[derive(Debug, Clone)]
pub(super) struct Lcg(pub(super) u64);

impl Lcg {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

pub(super) fn stream_schema() -> SchemaRef {
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("meter_id", DataType::Utf8, false),
        Field::new("ts", event_time_type(), false),
        Field::new("u_a_v", DataType::Float64, true),
        Field::new("energy_imp_kwh", DataType::Decimal128(18, 4), true),
        Field::new("seq_no", DataType::Int64, true),
        Field::new("_topic", topic, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_index", DataType::Int32, false),
        Field::new("_lateness_ms", DataType::Int64, false),
    ]))
}

pub(super) fn catalog() -> Catalog {
    filled(Catalog::new(), &stream_schema())
}

fn filled(mut catalog: Catalog, schema: &SchemaRef) -> Catalog {
    for name in ["meter_readings", "other_readings"] {
        let stream = Stream {
            name: name.to_owned(),
            schema: Arc::clone(schema),
            event_time: "ts".to_owned(),
            key: vec!["meter_id".to_owned()],
            delay_ms: 30_000,
        };
        catalog.add_stream(stream).expect("valid stream");
    }
    catalog.add_reference(meters()).expect("valid table");
    catalog.add_reference(installations()).expect("valid table");
    catalog
}

fn meters() -> ReferenceTable {
    let schema = Arc::new(Schema::new(vec![
        Field::new("meter_id", DataType::Utf8, true),
        Field::new("un_v", DataType::Float64, true),
        Field::new("feeder", DataType::Utf8, true),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("M0"), Some("M1"), Some("M2"), Some("M3"), Some("M3"), None])),
        Arc::new(Float64Array::from(vec![Some(220.0), Some(220.0), None, Some(230.0), Some(231.0), Some(1.0)])),
        Arc::new(StringArray::from(vec!["F1", "F1", "F2", "F2", "F2", "F9"])),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("valid batch");
    ReferenceTable { name: "meters".to_owned(), schema, batches: vec![batch] }
}

/// M0 changes its transformer ratio at 00:10, M1 has one open version, M2 ends at 00:05.
fn installations() -> ReferenceTable {
    let schema = Arc::new(Schema::new(vec![
        Field::new("meter_id", DataType::Utf8, true),
        Field::new("ct_ratio", DataType::Int64, true),
        Field::new("valid_from", event_time_type(), true),
        Field::new("valid_to", event_time_type(), true),
    ]));
    let at = |minutes: i64| Some(MIDNIGHT_US + minutes * 60_000_000);
    let instants = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["M0", "M0", "M1", "M2"])),
        Arc::new(Int64Array::from(vec![20, 40, 1, 80])),
        instants(vec![at(-60), at(10), None, at(0)]),
        instants(vec![at(10), None, None, at(5)]),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("valid batch");
    ReferenceTable { name: "installations".to_owned(), schema, batches: vec![batch] }
}

/// One lane of random readings: mostly in order, some late by up to two minutes, with nulls and equal times.
pub(super) fn lane(partition: i32, rows: usize, random: &mut Lcg) -> RecordBatch {
    let mut clock_us = MIDNIGHT_US;
    let mut highest_us = i64::MIN;
    let (mut ids, mut times, mut volts, mut energy, mut seq, mut late) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        clock_us += i64::try_from(random.below(4)).expect("small") * 1_500_000;
        let behind = if random.below(5) == 0 { random.below(120) } else { 0 };
        let time_us = clock_us - i64::try_from(behind).expect("small") * 1_000_250;
        late.push(if highest_us > time_us { (highest_us - time_us + 999) / 1_000 } else { 0 });
        highest_us = highest_us.max(time_us);
        ids.push(format!("M{}", random.below(5)));
        times.push(time_us);
        let tenths = i32::try_from(random.below(400)).expect("small");
        volts.push((random.below(8) > 0).then(|| 200.0 + f64::from(tenths) / 10.0));
        energy.push((random.below(8) > 0).then(|| i128::from(random.below(1_000_000))));
        seq.push((random.below(4) > 0).then(|| i64::try_from(random.below(6) + row as u64 % 2).expect("small")));
    }
    let count = ids.len();
    let topic: DictionaryArray<Int32Type> = std::iter::repeat_n("meter-readings", count).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(ids)),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Float64Array::from(volts)),
        Arc::new(Decimal128Array::from(energy).with_precision_and_scale(18, 4).expect("fits")),
        Arc::new(Int64Array::from(seq)),
        Arc::new(topic),
        Arc::new(Int32Array::from(vec![partition; count])),
        Arc::new(Int64Array::from_iter_values(0..i64::try_from(count).expect("small"))),
        Arc::new(Int32Array::from(vec![0; count])),
        Arc::new(Int64Array::from(late)),
    ];
    RecordBatch::try_new(stream_schema(), columns).expect("valid batch")
}

/// A rule file from its header lines and query.
pub(super) fn rule(id: &str, header: &str, sql: &str) -> RuleFile {
    let text = format!("/*---\nid = \"{id}\"\n{header}\n---*/\n{sql}\n");
    RuleFile { path: format!("sql/test/{id}.sql"), text }
}

pub(super) fn compile(files: &[RuleFile]) -> RuleSet {
    compile_with(&catalog(), files)
}

pub(super) fn compile_with_functions(functions: &UserFunctions, files: &[RuleFile]) -> RuleSet {
    let catalog = Catalog::with_functions(functions).expect("functions of their own");
    compile_with(&filled(catalog, &stream_schema()), files)
}

/// Streams of some schema: the columns that the queries name, of random types, at random places, among others.
pub(super) struct Fleet {
    schema: SchemaRef,
    /// Whether floats hold what is no usual number.
    wild: bool,
}

impl Fleet {
    pub(super) fn plain() -> Self {
        Self { schema: stream_schema(), wild: false }
    }

    pub(super) fn random(random: &mut Lcg) -> Self {
        let wild = random.below(2) == 0;
        let mut one_of =
            |types: &[DataType]| types[usize::try_from(random.below(types.len() as u64)).expect("small")].clone();
        let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let typed = [
            ("meter_id", one_of(&[DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, text])),
            ("ts", event_time_type()),
            ("u_a_v", one_of(&[DataType::Float64, DataType::Float64, DataType::Float32, DataType::Decimal128(12, 3)])),
            ("energy_imp_kwh", one_of(&[DataType::Decimal128(18, 4), DataType::Decimal128(30, 9), DataType::Float64])),
            (
                "seq_no",
                one_of(&[
                    DataType::Int64,
                    DataType::Int32,
                    DataType::Int8,
                    DataType::UInt8,
                    DataType::UInt32,
                    DataType::UInt64,
                ]),
            ),
            ("other_a", one_of(&[DataType::Boolean, DataType::Date32, DataType::Binary])),
            ("other_b", one_of(&[DataType::Float32, DataType::Int16, DataType::Utf8])),
        ];
        let mut own: Vec<Field> = typed
            .into_iter()
            .map(|(name, data_type)| Field::new(name, data_type, name != "meter_id" && name != "ts"))
            .collect();
        for at in (1..own.len()).rev() {
            own.swap(at, usize::try_from(random.below(at as u64 + 1)).expect("small"));
        }
        let plain = stream_schema();
        let system = plain.fields().iter().skip(5).map(|field| field.as_ref().clone());
        Self { schema: Arc::new(Schema::new(own.into_iter().chain(system).collect::<Vec<_>>())), wild }
    }

    pub(super) fn compile(&self, files: &[RuleFile]) -> RuleSet {
        compile_with(&filled(Catalog::new(), &self.schema), files)
    }

    /// As [`lane`], in the schema of the fleet.
    pub(super) fn lane(&self, partition: i32, rows: usize, random: &mut Lcg) -> RecordBatch {
        let plain = lane(partition, rows, random);
        let column = |field: &Arc<Field>| match (field.name().as_str(), field.data_type()) {
            ("u_a_v", _) if self.wild => {
                cast(&with_oddities(plain.column(2), random), field.data_type()).expect("casts")
            }
            // Means of four digits would lie half-way between two texts, and their last bit would decide.
            ("energy_imp_kwh", DataType::Float64) => {
                let plain = cast(plain.column(3), &DataType::Float64).expect("casts");
                let scaled =
                    plain.as_primitive::<Float64Type>().unary::<_, Float64Type>(|kwh| kwh * std::f64::consts::PI);
                Arc::new(scaled) as ArrayRef
            }
            ("other_a" | "other_b", data_type) => new_null_array(data_type, rows),
            (name, data_type) => cast(plain.column_by_name(name).expect("known"), data_type).expect("casts"),
        };
        let columns = self.schema.fields().iter().map(column).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("valid batch")
    }
}

/// Some of the values replaced by what is hard: NaN, both infinities, zeros of both signs, the smallest and a huge number.
fn with_oddities(volts: &ArrayRef, random: &mut Lcg) -> ArrayRef {
    const ODD: [f64; 7] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MIN_POSITIVE, 1e300];
    let volts = volts.as_primitive::<Float64Type>();
    let odd = |value: Option<f64>, random: &mut Lcg| match random.below(40) {
        at @ 0..7 => value.map(|_| ODD[usize::try_from(at).expect("small")]),
        _ => value,
    };
    Arc::new(volts.iter().map(|value| odd(value, random)).collect::<Float64Array>())
}

fn compile_with(catalog: &Catalog, files: &[RuleFile]) -> RuleSet {
    match RuleSet::compile(catalog, files) {
        Ok(set) => set,
        Err(mistakes) => {
            let texts: Vec<String> = mistakes
                .iter()
                .map(|mistake| {
                    let file = files.iter().find(|file| file.path == mistake.file).expect("known file");
                    mistake.render(&file.text, false)
                })
                .collect();
            panic!("{}", texts.join("\n"))
        }
    }
}
