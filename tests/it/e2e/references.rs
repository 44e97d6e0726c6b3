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
