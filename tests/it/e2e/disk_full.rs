//! A disk that is full: the job says so, waits, and goes on by itself once there is room; nothing is lost and nothing is there twice.
//!
//! The disk is full for each file that grows beyond a limit, which every user can set and take away for a running process. To make
//! a small file system would need more rights than a test has everywhere.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::job::JobFolder;
use super::memory::{PER_DAY, SCHEMA};
use crate::child_process::{ChildProcess, wait_until};

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// How long the disk stays full after the job has said so.
const FULL_FOR: Duration = Duration::from_secs(1);
/// Blocks of 512 bytes: more than a file of events or of state changes has, less than what memory does not hold.
const FULL_FOR_STATE: u32 = 2_048;
/// Less than a file of events has, more than a link or a commit.
const FULL_FOR_EVENTS: u32 = 128;

/// A job over a file with a reading of each device; gives the sum of their values.
fn job(purpose: &str, devices: u64, keep: bool) -> Result<(JobFolder, u64)> {
    let folder = JobFolder::new(purpose)?;
    folder.write("readings.avsc", SCHEMA)?;
    folder.write("sql/per_day.sql", PER_DAY)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{purpose}\"\n[run]\nmemory = \"64 MB\"\nscratch = \".\"\n[streams.readings]\n\
             schema = \"readings.avsc\"\nfiles = \"readings.ndjson\"\nkeep = {keep}\n[rules]\npaths = [\"sql\"]\n\
             [archive]\nurl = \"archive\"\n"
        ),
    )?;
    let (mut lines, mut total) = (String::new(), 0);
    for event in 0..devices {
        let (device, value) = (event * 7_919 % devices, event * 2_654_435_761 % 100_000);
        let at_us = 1_772_409_600_000_000 + event * 150_000;
        writeln!(lines, "{{\"device\":\"D{device:07}\",\"at\":{at_us},\"value\":{value}}}")?;
        total += value;
    }
    folder.write("readings.ndjson", &lines)?;
    Ok((folder, total))
}

/// What a job says whose disk is full: of state that memory does not hold, of stored state, of files of tables. Which it meets first
/// is a matter of how much there is of each.
const SAID: [&str; 3] = ["putting state on disk failed, trying again", "writing `state/", "writing files of table `"];

/// Waits until the job says that the disk is full, makes room after a while, and waits for its good end.
fn fill_and_make_room(folder: &JobFolder, mut running: ChildProcess) -> Result<()> {
    let says_so = || SAID.iter().any(|word| folder.log().contains(word));
    wait_until(MOMENT_LIMIT, || {
        ensure!(running.try_wait()?.is_none(), "the job ended:\n{}", running.log_tail());
        Ok(says_so().then_some(()))
    })
    .with_context(|| format!("it does not say {SAID:?}; it said\n{}", folder.log()))?;
    std::thread::park_timeout(FULL_FOR);
    ensure!(running.try_wait()?.is_none(), "the job did not wait:\n{}", running.log_tail());
    JobFolder::make_room(&running)?;
    let status = running.wait(RUN_LIMIT)?;
    ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
    Ok(())
}

fn windows_are_whole(folder: &JobFolder, devices: u64, total: u64) -> Result<()> {
    let per_day = "SELECT CAST(count(*) AS BIGINT) AS n, CAST(sum(readings) AS BIGINT) AS r, CAST(sum(total) AS BIGINT) AS t \
                   FROM per_day";
    let rows = folder.lines(per_day)?;
    ensure!(rows == [format!("{{\"n\":{devices},\"r\":{devices},\"t\":{total}}}")], "{rows:?}");
    Ok(())
}

#[test]
fn state_waits_for_room_on_its_disk() -> Result<()> {
    let devices = 250_000;
    let (folder, total) = job("full-scratch", devices, false)?;
    let running = folder.start_on_full_disk(FULL_FOR_STATE, &["run"])?;
    fill_and_make_room(&folder, running)?;
    windows_are_whole(&folder, devices, total)
}

#[test]
fn tables_wait_for_room_in_their_folder() -> Result<()> {
    let devices = 60_000;
    let (folder, total) = job("full-archive", devices, true)?;
    let running = folder.start_on_full_disk(FULL_FOR_EVENTS, &["run"])?;
    fill_and_make_room(&folder, running)?;
    ensure!(folder.count("SELECT count(*) AS n FROM readings")? == devices);
    ensure!(folder.count("SELECT count(DISTINCT _offset) AS n FROM readings")? == devices);
    windows_are_whole(&folder, devices, total)?;
    let said = folder.answer(&["archive", "verify"])?;
    ensure!(said.contains("all is well"), "{said}");
    Ok(())
}
