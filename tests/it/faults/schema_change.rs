//! The payload of a stream changes while it flows, and the schema after it: what fits is kept, what does not is refused, and rules that
//! do not ask for what changed do not notice.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::feed::Feed;
use super::ledger::{Difference, Ledger};
use super::rounds;
use crate::child_process::{ChildProcess, wait_until};
use crate::e2e::job::JobFolder;
use crate::kafka_broker::TestBroker;

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
/// Records from one change to the next.
const RECORDS: u64 = 300;
/// Of so many records one holds a number that no `int` holds, and the next one a text.
const BEYOND_EVERY: u64 = 50;

/// It asks for nothing that changes.
const RULE: &str = "/*---\nid = \"counts\"\nkind = \"table\"\ndelay = \"1 minute\"\n---*/
SELECT shop, window_start, window_end, count(*) AS visits
FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end\n";
const DIFFERENT: &str = "SELECT count(*) AS n FROM (SELECT shop, window_start, count(*) AS visits
    FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start) b
    FULL JOIN counts c ON c.shop = b.shop AND c.window_start = b.window_start WHERE b.visits IS DISTINCT FROM c.visits";
const ROWS: &str =
    "SELECT 'row ' || CAST(_offset AS VARCHAR) || ' ' || coalesce(CAST(people AS VARCHAR), '-') || ' ' ||
    coalesce(CAST(people_wide AS VARCHAR), '-') || ' ' || coalesce(note, '-') AS line FROM visits
    UNION ALL SELECT 'letter ' || CAST(record_offset AS VARCHAR) || ' ' || reason AS line FROM dead_letters";

/// What the schema says of the number of people, and what it says besides.
#[derive(Debug, Clone, Copy)]
enum Fields {
    Int,
    IntAndNote,
    LongAndNote,
    /// The old field is optional, and the payload's goes to a wider one.
    WideAndNote,
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = r#",{"name":"note","type":["null","string"]}"#;
        match self {
            Self::Int => f.write_str(r#"{"name":"people","type":"int"}"#),
            Self::IntAndNote => write!(f, r#"{{"name":"people","type":"int"}}{note}"#),
            Self::LongAndNote => write!(f, r#"{{"name":"people","type":"long"}}{note}"#),
            Self::WideAndNote => {
                let both = r#"{"name":"people","type":["null","int"]},{"name":"people_wide","type":"long"}"#;
                write!(f, "{both}{note}")
            }
        }
    }
}

fn write_schema(folder: &JobFolder, fields: Fields) -> Result<()> {
    let schema = format!(
        "{{\"type\":\"record\",\"name\":\"visits\",\"event_time\":\"at\",\"key\":[\"shop\"],\"fields\":[\
         {{\"name\":\"shop\",\"type\":\"string\"}},\
         {{\"name\":\"at\",\"type\":{{\"type\":\"long\",\"logicalType\":\"timestamp-micros\"}}}},{fields}]}}"
    );
    folder.write("visits.avsc", &schema)
}

fn write_config(folder: &JobFolder, topic: &str, mapping: &str) -> Result<()> {
    let bootstrap = TestBroker::shared().bootstrap();
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{topic}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n\
             [run]\ntick = \"50 ms\"\ncheckpoint = \"200 ms\"\nfile_age = \"200 ms\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{topic}\"\nidle_timeout = \"1 hour\"\n{mapping}\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n"
        ),
    )
}

/// Which stretch of the records a record is in: each begins with a change of the payload or of the schema.
fn stretch(offset: u64) -> u64 {
    offset / RECORDS
}

/// The number of people as the payload has it.
fn people(offset: u64) -> String {
    match (stretch(offset) >= 3, offset % BEYOND_EVERY) {
        (true, 0) => (3_000_000_000 + offset).to_string(),
        (true, 1) => "\"many\"".to_owned(),
        _ => (offset % 7).to_string(),
    }
}

fn payload(offset: u64) -> String {
    let (minute, second) = (offset / 60, offset % 60);
    let note = if stretch(offset) >= 1 { format!(",\"note\":\"n{offset}\"") } else { String::new() };
    format!(
        "{{\"shop\":\"s{}\",\"at\":\"2026-03-02T00:{minute:02}:{second:02}Z\",\"people\":{}{note}}}",
        offset % 3,
        people(offset)
    )
}

/// What has to come of a record.
fn line(offset: u64) -> String {
    let (people, note) = (people(offset), if stretch(offset) >= 2 { format!("n{offset}") } else { "-".to_owned() });
    match (stretch(offset), offset % BEYOND_EVERY) {
        (3.., 1) => format!("letter {offset} wrong_type"),
        (3, 0) => format!("letter {offset} out_of_range"),
        (4.., _) => format!("row {offset} - {people} {note}"),
        _ => format!("row {offset} {people} - {note}"),
    }
}

/// A job, what feeds it, and how long its changes took.
struct Change {
    folder: JobFolder,
    feed: Feed,
    topic: String,
    running: ChildProcess,
    sent: u64,
    took: Vec<Duration>,
}

impl Change {
    fn start(topic: &str) -> Result<Self> {
        let (folder, feed) = (JobFolder::new(topic)?, Feed::to(TestBroker::shared(), topic, 1)?);
        folder.write("sql/counts.sql", RULE)?;
        write_schema(&folder, Fields::Int)?;
        write_config(&folder, topic, "")?;
        let running = folder.start(&["run"])?;
        Ok(Self { folder, feed, topic: topic.to_owned(), running, sent: 0, took: Vec::new() })
    }

    /// Sends the next stretch and waits until each of its records is in one of the tables.
    fn send(&mut self) -> Result<()> {
        for offset in self.sent..self.sent + RECORDS {
            self.feed.send(0, Some(payload(offset).as_bytes()), None)?;
        }
        self.feed.flush()?;
        self.sent += RECORDS;
        let all = "SELECT (SELECT count(*) FROM visits) + (SELECT count(*) FROM dead_letters) AS n";
        // The tables are there from the first start on.
        let taken = || self.folder.count(all).unwrap_or(0);
        wait_until(MOMENT_LIMIT, || Ok((taken() >= self.sent).then_some(()))).with_context(|| {
            format!("{} of {} records are there; the job said\n{}", taken(), self.sent, self.running.log_tail())
        })
    }

    fn apply(&mut self, fields: Fields, mapping: &str) -> Result<()> {
        write_schema(&self.folder, fields)?;
        write_config(&self.folder, &self.topic, mapping)?;
        let asked = Instant::now();
        let told = self.folder.answer(&["apply"])?;
        self.took.push(asked.elapsed());
        ensure!(told.contains("no rule computes anything else"), "{fields:?}: {told}");
        Ok(())
    }

    fn is_refused(&mut self, fields: Fields, why: [&str; 2]) -> Result<()> {
        write_schema(&self.folder, fields)?;
        let refused = self.folder.wattline(&["apply"])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        let is_told = why.iter().all(|why| said.contains(why));
        ensure!(refused.status.code() == Some(1) && is_told, "not refused for {why:?}: {refused:?}");
        ensure!(self.running.try_wait()?.is_none(), "the job ended:\n{}", self.running.log_tail());
        Ok(())
    }

    fn end(mut self, ledger: &Ledger) -> Result<()> {
        let status = self.running.terminate(MOMENT_LIMIT)?;
        ensure!(status.success(), "the job ended with {status}:\n{}", self.running.log_tail());
        self.folder.run_until_end(MOMENT_LIMIT)?;
        let mut expected: Vec<String> = (0..self.sent).map(line).collect();
        let mut found = Vec::new();
        for row in self.folder.query(ROWS)? {
            found.push(row["line"].as_str().context("a line is a text")?.to_owned());
        }
        expected.sort_unstable();
        found.sort_unstable();
        ledger.note(&self.topic, 4, &Difference::between(&expected, &found), &self.took);
        ensure!(self.folder.count(DIFFERENT)? == 0, "the rule differs from the query over all rows");
        Ok(())
    }
}

#[test]
fn a_schema_that_changes_while_records_flow_costs_nothing() -> Result<()> {
    let fault = "a schema that changes while records flow: a field more, a wider type, values that do not fit";
    let ledger = Ledger::new(18, fault);
    for round in 0..rounds(1, 50)? {
        let mut change = Change::start(&format!("schema-{round}"))?;
        change.send()?;
        // The producers are first: what no schema knows is counted.
        change.send()?;
        change.apply(Fields::IntAndNote, "")?;
        let unknown = format!("visits.note ({RECORDS})");
        ensure!(change.folder.log().contains(&unknown), "the unknown field is not told:\n{}", change.folder.log());
        change.send()?;
        change.is_refused(Fields::LongAndNote, ["`people`", "cannot be widened"])?;
        write_schema(&change.folder, Fields::IntAndNote)?;
        change.send()?;
        change.apply(Fields::WideAndNote, "[streams.visits.mapping]\nrename = { people = \"people_wide\" }")?;
        change.send()?;
        change.end(&ledger)?;
    }
    ledger.close()
}
