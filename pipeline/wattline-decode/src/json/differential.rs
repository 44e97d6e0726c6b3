//! Random records of random schemas, valid and invalid: the short way must give what the long way gives, and what `arrow-json` reads.
//!
//! *Short against long.* One decoder guesses names and takes usual values the short way; another does neither, so that each name
//! is looked up and each value goes through the scanner. Both see the same blocks, so that guesses carry over from one record to
//! the next. Everything must be equal: values, row numbers, dead letters with their words, counts of unknown names.
//!
//! *Against `arrow-json`.* A record is *strict* if it is made of forms that both read alike; then `arrow-json` must accept it, and
//! every value must be equal. The forms in which the two differ on purpose, because this crate guesses and rounds nothing or
//! because head ends write them, are:
//!
//! | form | here | `arrow-json` |
//! |---|---|---|
//! | a member twice | refused | the last one counts |
//! | more digits than a decimal keeps, `1.5` for an integer | refused | rounded, cut off |
//! | `1e400` for a float | refused | infinite |
//! | `01`, `1.`, control characters in a string | refused, it is not JSON | read |
//! | an instant without a zone | refused | UTC |
//! | an instant as a number | milliseconds or microseconds, by magnitude | microseconds |
//! | a number for a text, a text for a number or a boolean | read | refused, or read in other forms |
//! | a symbol that an enum does not have | refused | is a text there |
//!
//! `WATTLINE_RANDOM_CASES` runs more than the usual number of records, `WATTLINE_RANDOM_SEED` begins with another seed.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Schema, TimestampMicrosecondType};
use wattline_sim::Random;

use super::*;
use crate::schema::FieldType;

const CASES: u64 = 20_000;
const RECORDS: u64 = 40;
const NAMES: [&str; 12] = [
    "v",
    "va",
    "vb",
    "u_a_v",
    "energy_imp_kwh",
    "q1234567",
    "q12345678",
    "x9",
    "name_of_more_than_thirty_two_bytes_in_all",
    "a_b",
    "k",
    "kind",
];

/// A record on its way to be spoiled.
struct Made {
    members: Vec<(String, String)>,
    strict: bool,
}

struct Maker {
    random: Random,
    schema: Arc<StreamSchema>,
    /// The order of members that most records of the set have.
    order: Vec<usize>,
    separators: (&'static str, &'static str),
}

fn one_of<'t>(random: &mut Random, texts: &[&'t str]) -> &'t str {
    texts[random.below(texts.len() as u64) as usize]
}

fn digits(random: &mut Random, most: u64) -> String {
    (0..=random.below(most)).map(|_| char::from(b'0' + random.below(10) as u8)).collect()
}

fn schema(random: &mut Random) -> Arc<StreamSchema> {
    const TYPES: [&str; 14] = [
        r#""string""#,
        r#""int""#,
        r#""long""#,
        r#""float""#,
        r#""double""#,
        r#""double""#,
        r#""boolean""#,
        r#"{"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}"#,
        r#"{"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 0}"#,
        r#"{"type": "long", "logicalType": "timestamp-micros"}"#,
        r#"{"type": "int", "logicalType": "date"}"#,
        r#"{"type": "array", "items": "float"}"#,
        r#"{"type": "map", "values": ["null", "string"]}"#,
        "enum",
    ];
    let mut fields = vec![
        r#"{"name": "id", "type": "string"}"#.to_owned(),
        r#"{"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}}"#.to_owned(),
    ];
    if random.chance(1, 2) {
        fields.push(r#"{"name": "tz_offset_min", "type": ["null", "int"]}"#.to_owned());
    }
    for (at, name) in NAMES.iter().enumerate() {
        if random.chance(1, 3) {
            continue;
        }
        let written = match one_of(random, &TYPES) {
            "enum" => format!(r#"{{"type": "enum", "name": "e{at}", "symbols": ["a", "bb", "interval"]}}"#),
            other => other.to_owned(),
        };
        let written = if random.chance(1, 8) { written } else { format!(r#"["null", {written}]"#) };
        let place = random.below(fields.len() as u64 + 1) as usize;
        fields.insert(place, format!(r#"{{"name": "{name}", "type": {written}}}"#));
    }
    let text = format!(
        r#"{{"type": "record", "name": "s", "event_time": "ts", "key": ["id"], "fields": [{}]}}"#,
        fields.join(", ")
    );
    Arc::new(StreamSchema::parse(&text, "s").unwrap())
}

fn mapping(random: &mut Random, schema: &StreamSchema) -> Mapping {
    let mut text = String::new();
    if random.chance(1, 4) {
        text += "explode = '.'\n";
    }
    if random.chance(1, 3) {
        text += "ignore = ['zz']\nrename = { 'head.id' = 'id', time = 'ts' }\n";
    }
    let numeric = schema.fields.iter().find(|field| field.field_type.is_numeric());
    if let Some(field) = numeric.filter(|_| random.chance(1, 3)) {
        text += &format!("scale = {{ {} = {} }}\n", field.name, one_of(random, &["0.1", "1000", "2.5e-3"]));
    }
    let decimal = schema.fields.iter().find(|field| matches!(field.field_type, FieldType::Decimal { .. }));
    if let Some(field) = decimal.filter(|_| random.chance(1, 3)) {
        text += &format!("round = ['{}']\n", field.name);
    }
    toml::from_str(&text).unwrap()
}

impl Maker {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let schema = schema(&mut random);
        let mut order: Vec<usize> = (0..schema.fields.len()).collect();
        shuffle(&mut order, &mut random);
        let separators = [(",", ":"), (", ", ": "), (",\n  ", " : "), (" ,", ":\t")];
        let separators = separators[random.below(separators.len() as u64) as usize];
        Self { random, schema, order, separators }
    }

    /// The bytes of a record, and whether it is strict.
    fn record(&mut self) -> (Vec<u8>, bool) {
        let mut made = self.members();
        let random = &mut self.random;
        if random.chance(1, 5) {
            shuffle(&mut made.members, random);
        }
        match random.below(12) {
            0 => {
                let at = random.below(made.members.len() as u64) as usize;
                made.members.remove(at);
                made.strict = false;
            }
            1 => {
                let at = random.below(made.members.len() as u64) as usize;
                let again = made.members[at].clone();
                let place = random.below(made.members.len() as u64 + 1) as usize;
                made.members.insert(place, again);
                made.strict = false;
            }
            2 | 3 => {
                let name = one_of(random, &["zz", "new", "head", "time", "x\\ty", "näme"]);
                let value =
                    one_of(random, &["1", "null", "{}", r#"{"id": "H", "x": [1, {"y": "\u00e9"}]}"#, "[[]]", "\"\""]);
                let place = random.below(made.members.len() as u64 + 1) as usize;
                made.members.insert(place, (name.to_owned(), value.to_owned()));
                made.strict &= name != "head" && name != "time";
            }
            _ => {}
        }
        let mut text = self.written(&made.members);
        if self.random.chance(1, 6) {
            made.strict = false;
            self.spoil(&mut text);
        }
        (text, made.strict)
    }

    fn members(&mut self) -> Made {
        let mut made = Made { members: Vec::new(), strict: true };
        for at in self.order.clone() {
            let field = self.schema.fields[at].clone();
            if !field.required && self.random.chance(1, 6) {
                continue;
            }
            let (value, strict) = if !field.required && self.random.chance(1, 10) {
                ("null".to_owned(), true)
            } else {
                self.value(&field.field_type)
            };
            made.strict &= strict;
            made.members.push((field.name, value));
        }
        made
    }

    fn written(&mut self, members: &[(String, String)]) -> Vec<u8> {
        let random = &mut self.random;
        let (comma, colon) = if random.chance(1, 10) { (" , ", "\n:") } else { self.separators };
        let mut text = one_of(random, &["{", "{", "{ ", "\n{"]).to_owned();
        for (at, (name, value)) in members.iter().enumerate() {
            text += if at > 0 { comma } else { "" };
            if random.chance(1, 60) {
                let escaped: String = name.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                text += &format!("\"{escaped}\"");
            } else {
                text += &format!("\"{name}\"");
            }
            text += colon;
            text += value;
        }
        text += one_of(random, &["}", "}", " }", "}\n"]);
        text.into_bytes()
    }

    /// A value of a field, and whether both readers take it alike.
    fn value(&mut self, field_type: &FieldType) -> (String, bool) {
        let random = &mut self.random;
        if random.chance(1, 40) {
            let odd = [
                "true", "null", "[]", "{}", "\"\"", "\"x\"", "1e5", "-", "\"1.5\"", "00", "1.", "1e400", "nul",
                "\"a\"b",
            ];
            return (one_of(random, &odd).to_owned(), false);
        }
        let sign = if random.chance(1, 4) { "-" } else { "" };
        match field_type {
            FieldType::Boolean => (one_of(random, &["true", "false"]).to_owned(), true),
            FieldType::Int32 => match random.below(8) {
                0 => (format!("{sign}{}", digits(random, 24)), false),
                1 => (format!("{}.0", random.below(100)), true),
                _ => (format!("{sign}{}", random.below(1 << 31)), true),
            },
            FieldType::Int64 => match random.below(8) {
                0 => (format!("{sign}{}", digits(random, 24)), false),
                1 => (format!("{sign}{}e2", random.below(1_000)), true),
                _ => (format!("{sign}{}", random.next_u64() >> random.between(1, 63)), true),
            },
            FieldType::Float32 | FieldType::Float64 => match random.below(10) {
                0 => {
                    (format!("{sign}{}.{}e{}", random.below(1_000), digits(random, 30), random.between(-30, 30)), true)
                }
                1 => (format!("{sign}0.{}", digits(random, 40)), true),
                2 => (format!("{sign}{}", random.next_u64()), true),
                3 => (format!("{sign}{}", digits(random, 20)), false),
                _ => (format!("{sign}{}.{}", random.below(100_000), digits(random, 4)), true),
            },
            FieldType::Decimal { scale, .. } => match random.below(6) {
                0 => (format!("{sign}{}.{}", random.below(1 << 30), digits(random, 24)), false),
                1 => (format!("\"{sign}{}\"", random.below(1_000)), true),
                _ if *scale == 0 => (format!("{sign}{}", random.below(100_000)), true),
                _ => (format!("{sign}{}.{}", random.next_u64() >> 24, digits(random, 4)), true),
            },
            FieldType::Text => (text_value(random), true),
            FieldType::Symbol(_) => (format!("\"{}\"", one_of(random, &["a", "bb", "interval"])), true),
            FieldType::Instant => instant_value(random),
            FieldType::Date => (
                format!("\"20{:02}-{:02}-{:02}\"", random.below(100), random.between(1, 12), random.between(1, 28)),
                true,
            ),
            FieldType::List { .. } => {
                let items: Vec<String> =
                    (0..random.below(6)).map(|_| format!("{}.{}", random.below(100), digits(random, 3))).collect();
                (format!("[{}]", items.join(one_of(random, &[",", ", "]))), true)
            }
            FieldType::Map { .. } => {
                let entries: Vec<String> =
                    (0..random.below(4)).map(|key| format!("\"k{key}\":{}", text_value(random))).collect();
                (format!("{{{}}}", entries.join(",")), true)
            }
        }
    }

    /// Damages the bytes, which mostly leaves no record, and sometimes another one.
    fn spoil(&mut self, text: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(text.len() as u64) as usize;
        match random.below(7) {
            0 => text.truncate(at),
            1 => text[at] ^= 1 << random.below(8),
            2 => text[at] = random.below(256) as u8,
            3 => text.insert(
                at,
                one_of(random, &[" ", "\"", "\\", "0", "-", ".", "e", ",", "{", "}", "\n", "\u{1}"]).as_bytes()[0],
            ),
            4 => drop(text.remove(at)),
            5 => text.extend_from_slice(one_of(random, &["x", "{}", "]", "\0", ","]).as_bytes()),
            _ => {
                let end = (at + random.below(12) as usize).min(text.len());
                let piece = text[at..end].to_vec();
                let to = random.below(text.len() as u64) as usize;
                text.splice(to..to, piece);
            }
        }
    }
}

fn text_value(random: &mut Random) -> String {
    let pieces =
        ["M", "abc", "é", "漢字", "😀", r"\n", r"\u00e9", r#"\""#, r"\\", r"\ud83d\ude00", " ", "12345678", "/", r"\/"];
    let text: String = (0..random.below(6)).map(|_| one_of(random, &pieces)).collect();
    format!("\"{text}\"")
}

fn instant_value(random: &mut Random) -> (String, bool) {
    let date = format!("20{:02}-{:02}-{:02}", random.between(25, 26), random.between(1, 2), random.between(1, 3));
    let clock = format!("{:02}:{:02}:{:02}", random.below(24), random.below(60), random.below(60));
    let fraction = one_of(random, &["", "", ".000", ".5", ".123456", ".1234567", ".999999999"]);
    let zone = one_of(random, &["Z", "+08:00", "+08:00", "-03:30", "+00:00"]);
    match random.below(16) {
        0 => (format!("{}", random.next_u64() >> 13), false),
        1 => (format!("\"{date} {clock}{fraction}{zone}\""), true),
        2 => (format!("\"{date}T{clock}{fraction}\""), false),
        3 => (
            format!(
                "\"{date}T{clock}{}\"",
                one_of(random, &["z", "+0800", "+08", "+24:00", ".Z", "+08:00 ", "ZZ", "\\u005a"])
            ),
            false,
        ),
        4 => {
            let odd = [
                "2026-02-29T00:00:00Z",
                "2026-13-01T00:00:00Z",
                "0000-01-01T00:00:00Z",
                "2026-01-01T24:00:00Z",
                "2016-12-31T23:59:60Z",
                "9999-12-31T23:59:59.999999Z",
                "2026-01-01t00:00:00Z",
                " 2026-01-01T00:00:00Z",
            ];
            (format!("\"{}\"", one_of(random, &odd)), false)
        }
        _ => (format!("\"{date}T{clock}{fraction}{zone}\""), true),
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last as u64 + 1) as usize);
    }
}

/// The setting of that name, if there is one.
#[expect(clippy::disallowed_methods, reason = "how long a random test runs is for whoever runs it")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The schema with an offset in place of a zone, as `arrow-json` can read it.
fn peer_schema(schema: &Schema) -> Arc<Schema> {
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("+00:00".into()));
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(..) => Arc::new(field.as_ref().clone().with_data_type(utc.clone())),
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn decode(decoder: &mut JsonDecoder, records: &[Vec<u8>]) -> Decoded {
    let mut ends = Vec::new();
    for record in records {
        ends.push(ends.last().copied().unwrap_or(0) + u32::try_from(record.len()).unwrap());
    }
    decoder.decode(Records { bytes: &records.concat(), ends: &ends })
}

/// Runs a set of records through both ways; the numbers of accepted and of refused ones.
fn short_equals_long(seed: u64) -> (usize, usize) {
    let mut maker = Maker::new(seed);
    let mapping = mapping(&mut maker.random, &maker.schema);
    let limits = Limits { depth_max: 6, list_items_max: 4, record_bytes_max: 1_500, ..Limits::default() };
    let new = || JsonDecoder::new(Arc::clone(&maker.schema), &mapping, limits).unwrap();
    let (mut short, mut long) = (new(), new());
    long.reader.shortcuts = false;
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..2 {
        let records: Vec<Vec<u8>> = (0..RECORDS / 2).map(|_| maker.record().0).collect();
        let (ours, theirs) = (decode(&mut short, &records), decode(&mut long, &records));
        let shown = || records.iter().map(|record| String::from_utf8_lossy(record)).collect::<Vec<_>>().join("\n");
        assert_eq!(ours, theirs, "seed {seed}, mapping {mapping:?}:\n{}", shown());
        accepted += ours.record.len();
        refused += ours.dead_letters.len();
    }
    (accepted, refused)
}

#[test]
fn the_short_way_gives_what_the_long_way_gives() {
    let (wanted, first) =
        (setting("WATTLINE_RANDOM_CASES").unwrap_or(CASES), setting("WATTLINE_RANDOM_SEED").unwrap_or(1));
    let (mut accepted, mut refused) = (0, 0);
    for seed in first..first + wanted.div_ceil(RECORDS) {
        let (more, fewer) = short_equals_long(seed);
        accepted += more;
        refused += fewer;
    }
    println!("{accepted} records accepted, {refused} refused");
    let each = usize::try_from(wanted).unwrap() / 5;
    assert!(accepted > each && refused > each, "{accepted} accepted, {refused} refused: too few of one kind");
}

#[test]
fn strict_records_are_what_arrow_json_reads() {
    let (wanted, first) =
        (setting("WATTLINE_RANDOM_CASES").unwrap_or(CASES), setting("WATTLINE_RANDOM_SEED").unwrap_or(1));
    let mut compared = 0;
    for seed in first..first + wanted.div_ceil(RECORDS) {
        let mut maker = Maker::new(seed);
        let schema = Arc::clone(&maker.schema);
        let records: Vec<Vec<u8>> =
            (0..RECORDS).map(|_| maker.record()).filter(|(_, strict)| *strict).map(|(record, _)| record).collect();
        let mut decoder = JsonDecoder::new(Arc::clone(&schema), &Mapping::default(), Limits::default()).unwrap();
        let ours = decode(&mut decoder, &records);
        assert_eq!(ours.dead_letters, [], "seed {seed}");
        let peer = peer_schema(&schema.arrow);
        let mut reader = arrow::json::ReaderBuilder::new(Arc::clone(&peer))
            .with_batch_size(RECORDS as usize + 1)
            .build_decoder()
            .unwrap();
        for record in &records {
            let read =
                reader.decode(record).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(record)));
            assert_eq!(read, record.len());
        }
        let theirs = reader.flush().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let theirs = theirs.unwrap_or_else(|| RecordBatch::new_empty(peer));
        assert_equal(&ours.batch, &theirs, seed);
        compared += records.len();
    }
    println!("{compared} records compared");
    assert!(compared > usize::try_from(wanted).unwrap() / 5, "only {compared} records are strict");
}

fn assert_equal(ours: &RecordBatch, theirs: &RecordBatch, seed: u64) {
    for (field, (ours, theirs)) in ours.schema().fields().iter().zip(ours.columns().iter().zip(theirs.columns())) {
        if field.name() == crate::rows::TZ_OFFSET_MIN {
            // Filled from the text of the event time where the record does not give it.
            let (ours, theirs) = (ours.as_primitive::<Int32Type>(), theirs.as_primitive::<Int32Type>());
            assert!(
                ours.iter().zip(theirs.iter()).all(|(ours, theirs)| theirs.is_none() || ours == theirs),
                "seed {seed}"
            );
        } else if let Some(ours) = ours.as_primitive_opt::<TimestampMicrosecondType>() {
            let theirs = theirs.as_primitive::<TimestampMicrosecondType>();
            assert!(ours.iter().eq(theirs.iter()), "seed {seed}, `{}`: {ours:?}, {theirs:?}", field.name());
        } else {
            assert_eq!(ours.as_ref(), theirs.as_ref(), "seed {seed}, `{}`", field.name());
        }
    }
}
