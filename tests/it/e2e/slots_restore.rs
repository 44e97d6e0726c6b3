//! A job that several processes share, restored from a backup, backed up again while it goes on, and restored from that backup and from the
//! first one: each of these archives is brought to its end and is what one undisturbed process gives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::backup::alerts_came_again_with_their_ids;
use super::counts::{records_are_accounted_for, rules_said_what_they_must};
use super::job::JobFolder;
use super::slots::{CLASSIC, SETTINGS, all_go_on, traffic};
use super::traffic::Traffic;
use crate::kafka_broker::TestBroker;

const TEST: &str = "slots-restored";
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// A folder with the configuration of the job; its archive is restored from a backup, if one is named.
fn folder(purpose: &str, traffic: &Traffic, backup: Option<(&str, &str)>) -> Result<JobFolder> {
    let folder = JobFolder::new(purpose)?;
    traffic.configure(&folder, &TestBroker::shared().bootstrap(), &format!("{SETTINGS}{CLASSIC}"))?;
    if let Some((backups, number)) = backup {
        folder.answer(&["archive", "restore", backups, "--at", number])?;
        folder.answer(&["archive", "verify"])?;
    }
    Ok(folder)
}

/// Two processes share the slots; a backup is made beside them, they go on, and both die.
fn run_back_up_and_die(folder: &JobFolder, backups: &str) -> Result<()> {
    let (mut first, mut second) = (folder.start(&["run"])?, folder.start(&["run"])?);
    all_go_on(folder, &mut [&mut first, &mut second])?;
    folder.answer(&["archive", "backup", backups])?;
    all_go_on(folder, &mut [&mut first, &mut second])?;
    first.kill9()?;
    second.kill9()
}

#[test]
fn what_was_restored_twice_and_what_was_restored_again_give_what_one_process_gives() -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = traffic(TEST, 80_000);
    traffic.create_topics(broker)?;
    let original = folder(TEST, &traffic, None)?;
    let backups = original.path().join("backups").display().to_string();
    let hurry = AtomicBool::new(false);
    let (made, twice) = thread::scope(|scope| {
        let producing = scope.spawn(|| traffic.produce_slowly(&broker.bootstrap(), &hurry));
        let restored = || {
            run_back_up_and_die(&original, &backups)?;
            let once = folder("slots-restored-once", &traffic, Some((&backups, "1")))?;
            run_back_up_and_die(&once, &backups)?;
            let twice = folder("slots-restored-twice", &traffic, Some((&backups, "2")))?;
            let (mut first, mut second) = (twice.start(&["run"])?, twice.start(&["run"])?);
            all_go_on(&twice, &mut [&mut first, &mut second])?;
            first.kill9()?;
            second.kill9()?;
            Ok::<_, anyhow::Error>(twice)
        };
        let twice = restored();
        let was_producing = !producing.is_finished();
        hurry.store(true, Ordering::Relaxed);
        let made = producing.join().map_err(|_| anyhow!("the producer panicked"))??;
        let twice = twice?;
        ensure!(was_producing, "the input ended before the last restore");
        Ok::<_, anyhow::Error>((made, twice))
    })?;
    // They share a topic, so one after the other.
    for restored in [twice, folder("slots-restored-again", &traffic, Some((&backups, "1")))?] {
        restored.run_until_end(RUN_LIMIT)?;
        records_are_accounted_for(&restored, &traffic, &made)?;
        rules_said_what_they_must(&restored, &traffic)?;
        alerts_came_again_with_their_ids(&restored, &traffic.alert_topic)?;
        restored.answer(&["archive", "verify"])?;
    }
    Ok(())
}
