//! Whether everything that went into a topic came out of the job, once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::kafka_broker::TestBroker;
use crate::measured_child;
use crate::steady::Sent;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A job and its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) program: &'a Path,
    /// Where its configuration is.
    pub(crate) folder: &'a Path,
    pub(crate) broker: &'a TestBroker,
    pub(crate) topic: &'a str,
    pub(crate) partitions: i32,
    /// The raw table.
    pub(crate) table: &'a str,
}

impl Job<'_> {
    /// Runs a command of the program to its good end; gives what it printed.
    pub(crate) fn answer(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(self.program).args(args).current_dir(self.folder).output()?;
        ensure!(
            output.status.success(),
            "`wattline {}` ended with {}:\n{}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The one number that a query gives as `n`.
    pub(crate) fn count(&self, sql: &str) -> Result<u64> {
        measured_child::count(self.program, self.folder, sql)
    }

    /// Every offset of the topic is in the raw table or among the dead letters, and no offset twice.
    pub(crate) fn every_record_is_there_once(&self, sent: &Sent) -> Result<()> {
        let (table, in_topic) = (self.table, self.records_in_topic()?);
        ensure!(in_topic == sent.records, "{} records were produced, {in_topic} are in `{}`", sent.records, self.topic);
        let rows = self.count(&format!("SELECT count(*) AS n FROM {table}"))?;
        let refused = self.count("SELECT count(*) AS n FROM dead_letters")?;
        let failed = self.count("SELECT count(*) AS n FROM rule_errors")?;
        let offsets = self.count(&format!(
            "SELECT count(*) AS n FROM (SELECT _partition, _offset FROM {table} \
             UNION SELECT record_partition, record_offset FROM dead_letters) records"
        ))?;
        ensure!(
            rows + refused == sent.records && refused == sent.broken && offsets == sent.records && failed == 0,
            "{} records of which {} are broken gave {rows} rows, {refused} dead letters, {offsets} different offsets and \
             {failed} rule errors",
            sent.records,
            sent.broken,
        );
        Ok(())
    }

    fn records_in_topic(&self) -> Result<u64> {
        Ok(u64::try_from(self.ends()?.iter().sum::<i64>())?)
    }

    /// Where each partition of the topic ends; all begin at 0.
    pub(crate) fn ends(&self) -> Result<Vec<i64>> {
        let consumer: BaseConsumer = self.broker.client_config().create()?;
        (0..self.partitions)
            .map(|partition| Ok(consumer.fetch_watermarks(self.topic, partition, ANSWER_LIMIT)?.1))
            .collect()
    }

    /// The topic of the alerts has each revision once, as many as their table; gives their number.
    pub(crate) fn alerts_are_out_once(&self, topic: &str) -> Result<u64> {
        let (mut messages, mut revisions) = (0, BTreeSet::new());
        self.read(topic, |payload| {
            let alert: Value = serde_json::from_slice(payload).context("an alert is no JSON")?;
            let told =
                |name: &str| alert.get(name).map(Value::to_string).with_context(|| format!("no `{name}`: {alert}"));
            revisions.insert((told("fingerprint")?, told("revision")?));
            messages += 1;
            Ok(())
        })?;
        let rows = self.count("SELECT count(*) AS n FROM alerts")?;
        let different = revisions.len() as u64;
        ensure!(
            rows == messages && rows == different && rows > 0,
            "{rows} alerts are in their table, {messages} in their topic, {different} of them different"
        );
        Ok(rows)
    }

    /// All messages that a careful consumer sees.
    fn read(&self, topic: &str, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let consumer: BaseConsumer = self
            .broker
            .client_config()
            .set("group.id", "bench-reader")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..self.partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let mut open: BTreeSet<i32> = (0..self.partitions).collect();
        while !open.is_empty() {
            match consumer.poll(ANSWER_LIMIT) {
                None => bail!("no answer from `{topic}` for {} s", ANSWER_LIMIT.as_secs()),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(message) => take(message?.payload().unwrap_or_default())?,
            }
        }
        Ok(())
    }
}
