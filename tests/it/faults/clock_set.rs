//! The clock of the machine is set, by hours, forward and back, while a job runs and while it is dead: what goes by the clock never goes back, and
//! what goes by the times of events does not notice.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wattline_runtime::clock::{Clock, SystemClock};

use super::feed::Feed;
use super::ledger::{Difference, Ledger};
use super::rounds;
use super::subject::{Place, Subject, alerts_are_out_once, difference};
use crate::child_process::wait_until;
use crate::e2e::job::{JobFolder, VISITS};
use crate::kafka_broker::TestBroker;

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;
/// How long the clock stays as it was set.
const STAY: Duration = Duration::from_millis(100);
/// Where it is set to, in turn.
const OFFSETS_MS: [i64; 6] = [-3 * HOUR_MS, 26 * HOUR_MS, 0, -HOUR_MS, 8 * HOUR_MS, -8 * HOUR_MS];
const CLOCK: [&str; 2] = ["--clock-offset", "clock"];

const WENT_BACK: &str =
    "SELECT count(*) AS n FROM (SELECT refused_at, lag(refused_at) OVER (ORDER BY _offset) AS before
    FROM dead_letters) WHERE refused_at < before";

/// Sets the clock of the job of a folder, by as much against the one of the machine.
fn set_clock(folder: &JobFolder, offset_ms: i64) -> Result<()> {
    folder.write("clock.new", &offset_ms.to_string())?;
    fs::rename(folder.path().join("clock.new"), folder.path().join("clock")).context("the clock cannot be set")
}

fn set_it_again_and_again(job: &str, ledger: &Ledger) -> Result<Subject> {
    let subject = Subject::new(job, Place::Folder)?;
    set_clock(&subject.folder, 0)?;
    let mut running = subject.start(&CLOCK)?;
    let mut until_links = |links: usize| {
        wait_until(MOMENT_LIMIT, || {
            ensure!(running.try_wait()?.is_none(), "the job ended early:\n{}", running.log_tail());
            Ok((subject.folder.manifests() >= links).then_some(()))
        })
    };
    until_links(1)?;
    set_clock(&subject.folder, 3 * HOUR_MS)?;
    until_links(3)?;
    running.kill9()?;
    // The next process finds itself six hours earlier.
    let mut times = 2;
    set_clock(&subject.folder, OFFSETS_MS[0])?;
    let mut offsets = OFFSETS_MS.into_iter().cycle().skip(1);
    let mut set = Instant::now();
    let recovery = subject.finish_beside(subject.start(&CLOCK)?, &mut || {
        if set.elapsed() >= STAY {
            set_clock(&subject.folder, offsets.next().unwrap_or_default())?;
            set = Instant::now();
            times += 1;
        }
        Ok(())
    })?;
    ensure!(subject.folder.count(WENT_BACK)? == 0, "the time at which records were refused goes back");
    ledger.note(job, times, &difference(&subject)?, recovery.as_slice());
    Ok(subject)
}

#[test]
fn a_clock_that_is_set_changes_nothing_of_the_past() -> Result<()> {
    let ledger = Ledger::new(
        19,
        "a clock that is set by hours, forward and back, while the job reads what was recorded, and dies",
    );
    let mut subjects = Vec::new();
    for round in 0..rounds(1, 20)? {
        subjects.push(set_it_again_and_again(&format!("clock-{round}"), &ledger)?);
    }
    alerts_are_out_once(&subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}

const RULE: &str = "/*---\nid = \"counts\"\nkind = \"table\"\ndelay = \"10 seconds\"\n---*/
SELECT shop, window_start, window_end, count(*) AS visits
FROM TUMBLE(visits, at, INTERVAL '2 seconds') GROUP BY shop, window_start, window_end\n";
const DIFFERENT: &str = "SELECT count(*) AS n FROM (SELECT shop, window_start, count(*) AS visits
    FROM TUMBLE(visits, at, INTERVAL '2 seconds') GROUP BY shop, window_start) b
    FULL JOIN counts c ON c.shop = b.shop AND c.window_start = b.window_start WHERE b.visits IS DISTINCT FROM c.visits";
/// Within the delay of the rule, or so late that no window took it.
const ROWS: &str = "SELECT shop || ' ' || CAST(_offset AS VARCHAR) ||
    CASE WHEN _lateness_ms > 10000 THEN ' late' ELSE ' in time' END AS line FROM visits
    UNION ALL SELECT 'refused ' || CAST(record_offset AS VARCHAR) AS line FROM dead_letters";
/// Between two records of a partition that is not silent.
const PAUSE: Duration = Duration::from_millis(100);

/// Two partitions of what happens now.
struct Live {
    feed: Feed,
    sent: [u64; 2],
}

impl Live {
    /// Sends a record to each of some partitions again and again.
    fn send(&mut self, partitions: &[u32], times: u32) -> Result<()> {
        for _ in 0..times {
            for partition in partitions {
                let at_us = SystemClock.now_ms() * 1_000;
                let payload = format!("{{\"shop\":\"s{partition}\",\"at\":{at_us},\"amount\":\"1.00\"}}");
                self.feed.send(*partition, Some(payload.as_bytes()), None)?;
                self.sent[*partition as usize] += 1;
            }
            self.feed.flush()?;
            std::thread::park_timeout(PAUSE);
        }
        Ok(())
    }

    fn expected(&self) -> Vec<String> {
        let of =
            |partition: usize| (0..self.sent[partition]).map(move |offset| format!("s{partition} {offset} in time"));
        let mut lines: Vec<String> = of(0).chain(of(1)).collect();
        lines.sort_unstable();
        lines
    }
}

fn live_job(job: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(job)?;
    folder.write("visits.avsc", VISITS)?;
    folder.write("sql/counts.sql", RULE)?;
    let bootstrap = TestBroker::shared().bootstrap();
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{job}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n\
             [run]\ntick = \"50 ms\"\ncheckpoint = \"200 ms\"\nfile_age = \"200 ms\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{job}\"\nidle_timeout = \"1 second\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\nurl = \"archive\"\n"
        ),
    )?;
    set_clock(&folder, 0)?;
    Ok(folder)
}

/// One partition is silent when the clock is set hours ahead, and speaks again before it is set back.
fn set_it_while_a_partition_is_silent(job: &str, ledger: &Ledger) -> Result<()> {
    let mut live = Live { feed: Feed::to(TestBroker::shared(), job, 2)?, sent: [0; 2] };
    let folder = live_job(job)?;
    let mut running = folder.start(&["run", CLOCK[0], CLOCK[1]])?;
    live.send(&[0, 1], 10)?;
    wait_until(MOMENT_LIMIT, || Ok((folder.count("SELECT count(*) AS n FROM visits").unwrap_or(0) > 0).then_some(())))?;
    live.send(&[0, 1], 10)?;
    // Long enough that the partition is advanced as a silent one.
    live.send(&[0], 15)?;
    set_clock(&folder, 3 * HOUR_MS)?;
    live.send(&[0], 20)?;
    live.send(&[0, 1], 10)?;
    live.send(&[0], 15)?;
    set_clock(&folder, 0)?;
    live.send(&[0], 15)?;
    live.send(&[0, 1], 10)?;
    let status = running.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
    folder.run_until_end(MOMENT_LIMIT)?;
    ensure!(folder.log().contains("was set forward by"), "nothing is said of the clock:\n{}", folder.log());
    let mut found = Vec::new();
    for row in folder.query(ROWS)? {
        found.push(row["line"].as_str().context("a line is a text")?.to_owned());
    }
    found.sort_unstable();
    ledger.note(job, 2, &Difference::between(&live.expected(), &found), &[]);
    ensure!(folder.count(DIFFERENT)? == 0, "windows lack events that came in time");
    Ok(())
}

#[test]
fn a_clock_that_is_set_does_not_drag_a_silent_partition_along() -> Result<()> {
    let ledger = Ledger::new(
        20,
        "a clock that is set three hours ahead and back again while a partition is silent and another is not",
    );
    for round in 0..rounds(1, 50)? {
        set_it_while_a_partition_is_silent(&format!("clock-live-{round}"), &ledger)?;
    }
    ledger.close()
}
