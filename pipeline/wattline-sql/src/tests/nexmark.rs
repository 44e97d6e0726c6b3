//! The Nexmark queries of `benches/nexmark`: streams that have nothing of power in them, and the same law.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};

use super::equivalence::{Cut, Lane, by_stream, in_batch, run, sorted};
use super::fleet::{Lcg, MIDNIGHT_US};
use crate::catalog::event_time_type;
use crate::{Catalog, ReferenceTable, RuleFile, RuleSet, Stream};

const EVENTS: u64 = 3_000;
const LANES: u64 = 2;

/// A column of a stream besides its time: numbers or texts.
#[derive(Debug, Clone)]
enum Values {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
    Times(Vec<i64>),
}

impl Values {
    fn array(&self) -> ArrayRef {
        match self {
            Self::Numbers(values) => Arc::new(Int64Array::from(values.clone())),
            Self::Texts(values) => Arc::new(StringArray::from(values.clone())),
            Self::Times(values) => Arc::new(TimestampMicrosecondArray::from(values.clone()).with_timezone("UTC")),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Numbers(_) => DataType::Int64,
            Self::Texts(_) => DataType::Utf8,
            Self::Times(_) => event_time_type(),
        }
    }

    fn push(&mut self, value: Value) {
        match (self, value) {
            (Self::Numbers(values) | Self::Times(values), Value::Number(value)) => values.push(value),
            (Self::Texts(values), Value::Text(value)) => values.push(value),
            (values, value) => panic!("{value:?} does not go into {values:?}"),
        }
    }
}

#[derive(Debug)]
enum Value {
    Number(i64),
    Text(String),
}

/// The events of one lane so far.
struct Rows {
    columns: Vec<(&'static str, Values)>,
    times_us: Vec<i64>,
}

fn columns_of(stream: &str) -> Vec<(&'static str, Values)> {
    let (number, text) = (|| Values::Numbers(Vec::new()), || Values::Texts(Vec::new()));
    match stream {
        "person" => vec![("id", number()), ("name", text()), ("city", text()), ("state", text())],
        "auction" => vec![
            ("id", number()),
            ("item_name", text()),
            ("expires", Values::Times(Vec::new())),
            ("seller", number()),
            ("category", number()),
        ],
        _ => {
            vec![("auction", number()), ("bidder", number()), ("price", number()), ("channel", text()), ("url", text())]
        }
    }
}

/// The first column, the event time, the other columns, the system columns.
fn schema_of(stream: &str) -> SchemaRef {
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields: Vec<Field> =
        columns_of(stream).iter().map(|(name, values)| Field::new(*name, values.data_type(), true)).collect();
    fields.insert(1, Field::new("date_time", event_time_type(), false));
    for (name, kind) in [
        ("_topic", topic),
        ("_partition", DataType::Int32),
        ("_offset", DataType::Int64),
        ("_index", DataType::Int32),
        ("_lateness_ms", DataType::Int64),
    ] {
        fields.push(Field::new(name, kind, false));
    }
    Arc::new(Schema::new(fields))
}

impl Rows {
    fn of(stream: &str) -> Self {
        Self { columns: columns_of(stream), times_us: Vec::new() }
    }

    fn push(&mut self, time_us: i64, values: Vec<Value>) {
        self.times_us.push(time_us);
        self.columns.iter_mut().zip(values).for_each(|((_, column), value)| column.push(value));
    }

    fn batch(&self, stream: &'static str, partition: i32) -> RecordBatch {
        let rows = self.times_us.len();
        let mut highest_us = i64::MIN;
        let late = self.times_us.iter().map(|time_us| {
            let late_ms = if highest_us > *time_us { (highest_us - time_us + 999) / 1_000 } else { 0 };
            highest_us = highest_us.max(*time_us);
            late_ms
        });
        let late = Int64Array::from_iter_values(late);
        let topic: DictionaryArray<Int32Type> = std::iter::repeat_n(stream, rows).collect();
        let mut columns: Vec<ArrayRef> = self.columns.iter().map(|(_, values)| values.array()).collect();
        columns.insert(1, Arc::new(TimestampMicrosecondArray::from(self.times_us.clone()).with_timezone("UTC")));
        columns.extend([
            Arc::new(topic) as ArrayRef,
            Arc::new(Int32Array::from(vec![partition; rows])),
            Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows).expect("small"))),
            Arc::new(Int32Array::from(vec![0; rows])),
            Arc::new(late),
        ]);
        RecordBatch::try_new(schema_of(stream), columns).expect("valid batch")
    }
}

/// One person, three auctions and 46 bids in fifty events, each up to five seconds behind the one before.
fn lanes(random: &mut Lcg) -> Vec<Lane> {
    const STREAMS: [&str; 3] = ["person", "auction", "bid"];
    let mut rows: BTreeMap<(&str, u64), Rows> = BTreeMap::new();
    for stream in STREAMS {
        (0..LANES).for_each(|lane| {
            rows.insert((stream, lane), Rows::of(stream));
        });
    }
    let mut clock_us = MIDNIGHT_US;
    let (mut people, mut auctions) = (0_u64, 0_u64);
    let number = |value: u64| Value::Number(i64::try_from(value).expect("small"));
    let text = |value: &str| Value::Text(value.to_owned());
    for event in 0..EVENTS {
        clock_us += i64::try_from(random.below(400_000)).expect("small");
        let time_us = clock_us - i64::try_from(random.below(5_000_000)).expect("small");
        let (stream, values) = match event % 50 {
            0 => {
                people += 1;
                let state = ["OR", "ID", "CA", "WA"][usize::try_from(random.below(4)).expect("small")];
                ("person", vec![number(people), text(&format!("person {people}")), text("Town"), text(state)])
            }
            1..=3 => {
                auctions += 1;
                let expires = time_us + i64::try_from(random.below(60_000_000)).expect("small");
                let seller = people - random.below(people.min(3));
                let item = text(&format!("item {auctions}"));
                (
                    "auction",
                    vec![number(auctions), item, Value::Number(expires), number(seller), number(10 + random.below(3))],
                )
            }
            _ => {
                let auction = auctions - random.below(auctions.min(20));
                let channel = ["apple", "Google", "shop"][usize::try_from(random.below(3)).expect("small")];
                let url = format!("https://a.example/{}/b{}/c?channel_id={}&x", auction % 7, event % 5, event % 9);
                // No price comes twice, so that no order is left open.
                let price = 100 + random.below(100) * EVENTS + event;
                ("bid", vec![number(auction), number(1 + random.below(40)), number(price), text(channel), text(&url)])
            }
        };
        let lane = random.below(LANES);
        rows.get_mut(&(stream, lane)).expect("known lane").push(time_us, values);
    }
    let lane = |((stream, lane), rows): ((&'static str, u64), Rows)| Lane {
        stream,
        rows: rows.batch(stream, i32::try_from(lane).expect("small")),
    };
    rows.into_iter().map(lane).collect()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::new();
    for name in ["person", "auction", "bid"] {
        let (name, schema) = (name.to_owned(), schema_of(name));
        let event_time = "date_time".to_owned();
        catalog
            .add_stream(Stream { name, schema, event_time, key: Vec::new(), delay_ms: 10_000 })
            .expect("valid stream");
    }
    let schema = Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("value", DataType::Utf8, false),
    ]));
    let values = (0..20).map(|key| format!("value {key}"));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(0..20)), Arc::new(StringArray::from_iter_values(values))];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("valid batch");
    catalog
        .add_reference(ReferenceTable { name: "side_input".to_owned(), schema, batches: vec![batch] })
        .expect("valid table");
    catalog
}

fn files() -> Vec<RuleFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/nexmark");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of the queries") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let text = std::fs::read_to_string(&path).expect("a text");
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            files.push(RuleFile { path: format!("benches/nexmark/{name}"), text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

#[test]
fn nexmark_on_a_stream_equals_batch() {
    let files = files();
    assert_eq!(files.len(), 20, "the queries of the list");
    let set = RuleSet::compile(&catalog(), &files).unwrap_or_else(|mistakes| {
        let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
        let texts: Vec<String> = mistakes.iter().map(|mistake| mistake.render(text(&mistake.file), false)).collect();
        panic!("{}", texts.join("\n"))
    });
    let mut random = Lcg(20_261_127);
    let lanes = lanes(&mut random);
    let expected = in_batch(&set, &by_stream(&lanes));
    for cut in [
        Cut { workers: 1, batch_max: 8_192, restore: false, memory: Some(0) },
        Cut { workers: 3, batch_max: 7, restore: true, memory: None },
        Cut { workers: 3, batch_max: 1, restore: false, memory: None },
    ] {
        let got = run(&set, &lanes, &cut, &mut random);
        for (rule, (got, expected)) in set.rules().iter().zip(got.into_iter().zip(&expected)) {
            assert!(!expected.is_empty(), "{} has no rows", rule.header.id);
            assert_eq!(&sorted(got), expected, "{}, {} workers", rule.header.id, cut.workers);
        }
    }
}
