//! Reference tables that change while the job runs: the rules join to the new version, and what is wrong with one is said.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::JobFolder;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(120);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);

const SCHEMA: &str = r#"{"type":"record","name":"sales","event_time":"at","key":["item"],"fields":[
    {"name":"item","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

const PRICED: &str = "/*---
id = \"priced\"
kind = \"table\"
---*/
SELECT s.item, s.at, p.price FROM sales s JOIN prices p ON p.item = s.item
";

const PER_HOUR: &str = "/*---
id = \"per_hour\"
kind = \"table\"
---*/
SELECT s.item, window_start, window_end, sum(p.price) AS total, count(*) AS sold
FROM TUMBLE(sales, at, INTERVAL '1 hour') s JOIN prices p ON p.item = s.item GROUP BY s.item, window_start, window_end
";

/// Sends one message and waits until the broker has it.
fn send(broker: &TestBroker, topic: &str, key: &str, payload: &str) -> Result<()> {
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let (key, payload) = (key.as_bytes(), payload.as_bytes());
    producer.send(&KeyedMessage { topic, key, payload, timestamp_ms: None })?;
    Ok(producer.flush(FLUSH_LIMIT)?)
}

#[test]
fn a_compacted_topic_is_a_reference_table_from_its_beginning_on() -> Result<()> {
    let broker = TestBroker::shared();
    broker.create_topic("sales-of-register", 1, &[])?;
    broker.create_topic("price-register", 3, &[("cleanup.policy", "compact")])?;
    let sell = |minute: u32, item: &str| {
        let sale = format!("{{\"item\":\"{item}\",\"at\":\"2026-03-02T10:{minute:02}:00Z\"}}");
        send(broker, "sales-of-register", item, &sale)
    };
    let price = |item: &str, price: &str| {
        let row = format!("{{\"item\":\"{item}\",\"price\":{price},\"since\":\"2026\"}}");
        send(broker, "price-register", item, &row)
    };
    price("lamp", "4.00")?;
    price("lamp", "5.10")?;
    price("fuse", "1.25")?;
    price("cable", "9")?;
    send(broker, "price-register", "cable", "")?;
    sell(0, "lamp")?;
    sell(1, "cable")?;
    let folder = JobFolder::new("register")?;
    folder.write("sales.avsc", SCHEMA)?;
    folder.write("sql/priced.sql", PRICED)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"register\"\n[kafka]\nbootstrap_servers = \"{}\"\n[run]\ntick = \"100 ms\"\n\
             checkpoint = \"300 ms\"\nfile_age = \"300 ms\"\nreferences = \"200 ms\"\n\
             [streams.sales]\nschema = \"sales.avsc\"\ntopic = \"sales-of-register\"\n\
             [reference.prices]\ntopic = \"price-register\"\ntypes = {{ item = \"string\", price = \"decimal(9,2)\" }}\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n",
            broker.bootstrap()
        ),
    )?;
    folder.answer(&["check"])?;
    let running = folder.start(&["run"])?;
    let sold = |count: u64| {
        // The table is there from the first start on.
        wait_until(MOMENT_LIMIT, || {
            Ok((folder.count("SELECT count(*) AS n FROM priced").unwrap_or(0) == count).then_some(()))
        })
    };
    sold(1).context("the first sale, at the last price before the start")?;
    price("cable", "7.5")?;
    price("lamp", "6")?;
    // Two messages may be two changes: the last one names the ends of all partitions, seven messages in all.
    let messages = || -> u64 {
        let log = folder.log();
        let version = log.rsplit_once("now=\"offsets ").map_or("", |(_, rest)| rest.split('"').next().unwrap_or(""));
        version.split(' ').filter_map(|part| part.split_once(':')?.1.parse::<u64>().ok()).sum()
    };
    wait_until(MOMENT_LIMIT, || Ok((messages() == 7).then_some(())))?;
    sell(2, "cable")?;
    sell(3, "lamp")?;
    sold(3).context("sales at new prices")?;
    drop(running);
    let rows = folder.lines("SELECT item, CAST(price AS VARCHAR) AS price FROM priced ORDER BY at")?;
    assert_eq!(
        rows,
        [
            r#"{"item":"lamp","price":"5.10"}"#,
            r#"{"item":"cable","price":"7.50"}"#,
            r#"{"item":"lamp","price":"6.00"}"#,
        ]
    );
    Ok(())
}

fn prices(price: &str) -> String {
    format!("item,price\nlamp,{price}\n")
}

#[test]
fn a_changed_reference_table_is_joined_from_the_next_epoch_on() -> Result<()> {
    let broker = TestBroker::shared();
    let topic = "sales-with-prices";
    broker.create_topic(topic, 1, &[])?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let mut sell = |minute: u32| -> Result<()> {
        let payload = format!("{{\"item\":\"lamp\",\"at\":\"2026-03-02T10:{minute:02}:00Z\"}}");
        let payload = payload.as_bytes();
        producer.send(&KeyedMessage { topic, key: b"lamp", payload, timestamp_ms: None })?;
        Ok(producer.flush(FLUSH_LIMIT)?)
    };
    let folder = JobFolder::new("references")?;
    folder.write("sales.avsc", SCHEMA)?;
    folder.write("sql/priced.sql", PRICED)?;
    folder.write("sql/per_hour.sql", PER_HOUR)?;
    folder.write("prices.csv", &prices("5"))?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"references\"\n[kafka]\nbootstrap_servers = \"{}\"\n[run]\ntick = \"100 ms\"\n\
             checkpoint = \"300 ms\"\nfile_age = \"300 ms\"\nreferences = \"200 ms\"\n\
             [streams.sales]\nschema = \"sales.avsc\"\ntopic = \"{topic}\"\n\
             [reference.prices]\npath = \"prices.csv\"\nfresh_within = \"3 seconds\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n",
            broker.bootstrap()
        ),
    )?;
    let running = folder.start(&["run"])?;
    let sold = |price: u64| -> Result<()> {
        let sql = format!("SELECT count(*) AS n FROM priced WHERE price = {price}");
        // The table is there from the first start on.
        wait_until(MOMENT_LIMIT, || Ok((folder.count(&sql).unwrap_or(0) == 1).then_some(())))
    };
    sell(0)?;
    sold(5).context("a sale at the first price")?;

    folder.write("prices.csv", &prices("7"))?;
    let says = |text: &str| wait_until(MOMENT_LIMIT, || Ok(folder.log().contains(text).then_some(())));
    says("a reference table has changed: rules join to it")?;
    sell(1)?;
    sold(7).context("a sale at the second price")?;

    folder.write("prices.csv", "item,price\nlamp,")?;
    fs::write(folder.path().join("prices.csv"), "item,price,colour\nlamp,9\n")?;
    says("rules go on with the reference tables that they have")?;
    folder.write("prices.csv", &prices("8"))?;
    wait_until(MOMENT_LIMIT, || {
        let told = folder.log().matches("a reference table has changed: rules join to it").count();
        Ok((told == 2).then_some(()))
    })?;
    sell(2)?;
    sold(8).context("a sale at the third price")?;
    // Nobody has written the table for a while.
    let alerts = "SELECT status, entity_id, explanation FROM alerts ORDER BY revision";
    let stale = || folder.query(alerts).unwrap_or_default();
    wait_until(MOMENT_LIMIT, || Ok((!stale().is_empty()).then_some(())))?;
    let alert = stale().remove(0);
    ensure!(alert["entity_id"] == "prices" && alert["status"] == "open", "{alert}");
    drop(running);

    folder.run_until_end(RUN_LIMIT)?;
    // Each sale was joined once, to the version of its moment, also in a window that was open at both changes.
    let rows = folder.query("SELECT CAST(sold AS BIGINT) AS sold, CAST(total AS BIGINT) AS total FROM per_hour")?;
    assert_eq!(rows.iter().map(Value::to_string).collect::<Vec<_>>(), [r#"{"sold":3,"total":20}"#]);
    Ok(())
}
