//! Avro records of a topic whose schemas are in a registry: older and newer writers, a registry that is away, a schema that comes too late.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wattline_connect::kafka::admin::{KeyedMessage, Producer};
use wattline_sim::avro::{framed, write_bytes, write_long};

use super::job::JobFolder;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);

const STREAM: &str = r#"{"type":"record","name":"visits","event_time":"at","key":["shop"],"fields":[
    {"name":"shop","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"paid","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]}]}"#;
/// Fields: when in milliseconds, the shop.
const OLD: &str = r#"{"type":"record","name":"Visit","fields":[
    {"name":"when","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"shop","type":"string"}]}"#;
/// Fields: the shop, when in microseconds, what was paid, something that nobody wants.
const NEW: &str = r#"{"type":"record","name":"Visit","fields":[
    {"name":"shop","type":"string"},{"name":"when","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"paid","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
    {"name":"mood","type":"string"}]}"#;
const BEGIN_MS: i64 = 1_772_409_600_000;

/// A registry with these schemas, which may be away.
#[derive(Debug, Clone)]
struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    schemas: BTreeMap<u32, &'static str>,
    is_away: bool,
    asked: usize,
}

impl Registry {
    fn start(schemas: &[(u32, &'static str)]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let state = State { schemas: schemas.iter().copied().collect(), is_away: true, asked: 0 };
        let registry = Self { address: listener.local_addr()?, state: Arc::new(Mutex::new(state)) };
        let served = registry.clone();
        let serve = move || listener.incoming().flatten().for_each(|stream| served.answer(stream).unwrap_or_default());
        // It waits for requests as long as the tests run.
        thread::Builder::new().name("schema-registry".to_owned()).spawn(serve)?;
        Ok(registry)
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, mut stream: std::net::TcpStream) -> Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        let request = String::from_utf8(request)?;
        let number = request.strip_prefix("GET /schemas/ids/").and_then(|rest| rest.split(' ').next()?.parse().ok());
        let (status, body) = self.with(|state| {
            state.asked += 1;
            match number.and_then(|number: u32| state.schemas.get(&number)) {
                _ if state.is_away => (503, "busy".to_owned()),
                Some(text) => (200, json!({ "schema": text }).to_string()),
                None => (404, json!({ "error_code": 40_403, "message": "Schema not found" }).to_string()),
            }
        });
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        Ok(stream.write_all(body.as_bytes())?)
    }
}

fn old(number: u32, second: i64) -> Vec<u8> {
    let mut out = framed(number);
    write_long(BEGIN_MS + second * 1_000, &mut out);
    write_bytes(format!("old{second}").as_bytes(), &mut out);
    out
}

fn new(second: i64, cents: i16) -> Vec<u8> {
    let mut out = framed(2);
    write_bytes(format!("new{second}").as_bytes(), &mut out);
    write_long((BEGIN_MS + second * 1_000) * 1_000, &mut out);
    write_long(1, &mut out);
    write_bytes(&cents.to_be_bytes(), &mut out);
    write_bytes(b"good", &mut out);
    out
}

/// The texts that a query of one column gives.
fn texts(folder: &JobFolder, sql: &str) -> Result<Vec<String>> {
    let text = |row: &Value| Some(row.as_object()?.values().next()?.as_str()?.to_owned());
    Ok(folder.query(sql)?.iter().filter_map(text).collect())
}

#[test]
fn avro_records_are_read_by_the_schemas_of_a_registry() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "avro-visits";
    broker.create_topic(topic, 1, &[])?;
    let registry = Registry::start(&[(1, OLD), (2, NEW)])?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let mut cut = new(6, 100);
    cut.truncate(12);
    let records =
        [old(1, 0), new(1, 150), old(1, 2), b"{}".to_vec(), old(9, 4), new(5, -1), cut, old(9, 7), new(8, 32_767)];
    let messages = records.iter().map(|payload| KeyedMessage { topic, key: b"s", payload, timestamp_ms: None });
    producer.send_all(messages)?;
    producer.flush(FLUSH_LIMIT)?;

    let folder = JobFolder::new(topic)?;
    folder.write("visits.avsc", STREAM)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{topic}\"\n[kafka]\nbootstrap_servers = \"{}\"\n[schema_registry]\nurl = \"http://{}\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{topic}\"\nformat = \"avro\"\n\
             mapping.rename = {{ when = \"at\" }}\n[rules]\npaths = []\n[archive]\nurl = \"archive\"\n",
            broker.bootstrap(),
            registry.address
        ),
    )?;
    let mut running = folder.start(&["run", "--until-end"])?;
    // It waits, and says for what.
    wait_until(LIMIT, || Ok((registry.with(|state| state.asked) >= 3).then_some(())))?;
    ensure!(running.try_wait()?.is_none(), "it did not wait: {}", running.log_tail());
    let said = running.log_tail();
    ensure!(said.contains("schemas/ids/1") && said.contains("503"), "{said}");
    registry.with(|state| state.is_away = false);
    let status = running.wait(LIMIT)?;
    ensure!(status.success(), "{}", running.log_tail());

    let rows = "SELECT shop || ' ' || CAST(at AS VARCHAR) || ' ' || coalesce(CAST(paid AS VARCHAR), '-') FROM visits ORDER BY at";
    let expected = [
        "old0 2026-03-02T00:00:00Z -",
        "new1 2026-03-02T00:00:01Z 1.50",
        "old2 2026-03-02T00:00:02Z -",
        "new5 2026-03-02T00:00:05Z -0.01",
        "new8 2026-03-02T00:00:08Z 327.67",
    ];
    assert_eq!(texts(&folder, rows)?, expected);
    let letters = "SELECT CAST(record_offset AS VARCHAR) || ' ' || reason FROM dead_letters ORDER BY record_offset";
    assert_eq!(texts(&folder, letters)?, ["3 not_avro", "4 unknown_schema", "6 not_avro", "7 unknown_schema"]);
    ensure!(registry.with(|state| state.asked) < 20, "each schema is asked for once");

    // Whoever forgot to register the third one does it now.
    registry.with(|state| state.schemas.insert(9, OLD));
    folder.answer(&["replay", "--dead-letters", "--by=tester"])?;
    let all = texts(&folder, rows)?;
    assert_eq!((all.len(), all[3].as_str()), (7, "old4 2026-03-02T00:00:04Z -"));
    assert_eq!(texts(&folder, letters)?, ["3 not_avro", "6 not_avro"]);

    // What was read once is read without the registry.
    registry.with(|state| (state.is_away, state.asked) = (true, 0));
    let more = old(9, 9);
    producer.send_all([KeyedMessage { topic, key: b"s", payload: &more, timestamp_ms: None }])?;
    producer.flush(FLUSH_LIMIT)?;
    let status = folder.start(&["run", "--until-end"])?.wait(LIMIT)?;
    ensure!(status.success() && registry.with(|state| state.asked) == 0, "{status}");
    assert_eq!(texts(&folder, rows)?.len(), 8);
    Ok(())
}
