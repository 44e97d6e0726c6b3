//! The register against the embedded broker.

use crate::embedded::EmbeddedBroker;
use crate::kafka::admin::{KeyedMessage, Producer};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "prices";

fn price(producer: &mut Producer, item: &str, price: &str) {
    let payload = if price.is_empty() { String::new() } else { format!("{{\"item\":\"{item}\",\"price\":{price}}}") };
    let (key, payload) = (item.as_bytes(), payload.as_bytes());
    producer.send(&KeyedMessage { topic: TOPIC, key, payload, timestamp_ms: None }).expect("sent");
    producer.flush(PATIENCE).expect("delivered");
}

fn register(broker: &EmbeddedBroker) -> Register {
    Register::connect(RegisterConfig {
        bootstrap_servers: broker.bootstrap_servers(),
        properties: Properties::new(),
        topic: TOPIC.to_owned(),
        timeout: PATIENCE,
    })
    .expect("connected")
}

/// The rows, sorted, as `item:price`.
fn rows(register: &Register) -> Vec<String> {
    let types = [("item", "string"), ("price", "string")];
    let types = types.map(|(name, of)| (name.to_owned(), of.to_owned()));
    let options = ReferenceOptions { types: types.into(), ..ReferenceOptions::default() };
    let batch = register.table(&options).expect("a table").batch;
    let [item, price] = [0, 1].map(|at| arrow::array::cast::AsArray::as_string::<i32>(batch.column(at)).clone());
    let mut rows: Vec<String> =
        item.iter().zip(&price).map(|(item, price)| format!("{}:{}", item.unwrap(), price.unwrap())).collect();
    rows.sort();
    rows
}

/// Every reading sees all that was written before it: the end that one reading came to is not the end of the next.
#[test]
fn each_reading_goes_to_the_end_that_there_is_then() {
    let broker = EmbeddedBroker::start().expect("embedded broker");
    broker.create_topic(TOPIC, 3).expect("topic");
    let mut producer = Producer::connect(&broker.bootstrap_servers(), &Properties::new()).expect("producer");
    let mut register = register(&broker);
    register.read_to_end().expect("read");
    assert_eq!(rows(&register), Vec::<String>::new());
    for round in 0..8 {
        for item in ["lamp", "fuse", "cable", "socket"] {
            price(&mut producer, item, &round.to_string());
        }
        if round % 3 == 1 {
            price(&mut producer, "fuse", "");
        }
        register.read_to_end().expect("read");
        let fuse = (round % 3 != 1).then(|| format!("fuse:{round}"));
        let mut expected = vec![format!("cable:{round}"), format!("lamp:{round}"), format!("socket:{round}")];
        expected.splice(1..1, fuse);
        assert_eq!(rows(&register), expected, "round {round}: {register:?}");
        let version = register.version();
        register.read_to_end().expect("read");
        assert_eq!(register.version(), version);
    }
}
