//! Where the processes of a job of several slots are asked for other rules, each at a desk of its own.
//!
//! Several processes may run from one folder, so none may take what another one is asked. A desk is `.wattline/<job>-slots/<process
//! id>-<drawn>`; in it the process holds a lock on the file `alive` for as long as it lives, and no longer, however it ends. The desk is
//! made under another name, which is changed once the lock is held: so a desk without lock is always one of a process that is gone, and
//! whoever meets it takes it away. Who waits for an answer sees by the lock that none will come.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{DRAFT, Desk};
use crate::config::Config;

const ALIVE: &str = "alive";

/// The desk of this process, which goes with it.
#[derive(Debug)]
pub(super) struct OwnDesk {
    desk: Desk,
    /// Its lock says that the process lives.
    _alive: File,
}

/// The desk of a process.
#[derive(Debug)]
pub(crate) struct ProcessDesk {
    /// As the system numbers processes.
    pub(crate) process: String,
    /// Where it is asked and answers.
    pub(crate) desk: Desk,
}

impl OwnDesk {
    /// # Errors
    /// If files cannot be made or locked beside the configuration.
    pub(super) fn open(folder: &Path, config: &Config) -> Result<Self> {
        // Those of the dead go.
        living(folder, config);
        let name = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let all = desks_of(folder, config);
        let (draft, desk) = (all.join(format!("{name}{DRAFT}")), all.join(&name));
        fs::create_dir_all(&draft).with_context(|| format!("cannot make `{}`", draft.display()))?;
        let locked = File::create(draft.join(ALIVE)).and_then(|alive| alive.lock().map(|()| alive));
        let locked = locked.and_then(|alive| fs::rename(&draft, &desk).map(|()| alive));
        match locked {
            Ok(alive) => Ok(Self { desk: Desk { folder: desk }, _alive: alive }),
            Err(error) => {
                fs::remove_dir_all(&draft).unwrap_or_default();
                Err(error).with_context(|| format!("cannot make `{}`", desk.display()))
            }
        }
    }

    pub(super) fn desk(&self) -> Desk {
        self.desk.clone()
    }
}

impl Drop for OwnDesk {
    fn drop(&mut self) {
        // What stays is taken away by the next one.
        fs::remove_dir_all(&self.desk.folder).unwrap_or_default();
    }
}

impl ProcessDesk {
    /// Whether the process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        is_alive(&self.desk.folder)
    }
}

/// The processes of the folder that run slots of the job.
pub(crate) fn living(folder: &Path, config: &Config) -> Vec<ProcessDesk> {
    let entries = fs::read_dir(desks_of(folder, config)).into_iter().flatten().flatten();
    let (mut desks, mut dead) = (Vec::new(), Vec::new());
    for entry in entries {
        let (name, folder) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if name.ends_with(DRAFT) {
            continue;
        }
        if !is_alive(&folder) {
            dead.push(folder);
            continue;
        }
        let process = name.split('-').next().unwrap_or_default().to_owned();
        desks.push(ProcessDesk { process, desk: Desk { folder } });
    }
    // Whoever may not do it leaves it to the next one.
    dead.iter().for_each(|folder| fs::remove_dir_all(folder).unwrap_or_default());
    desks.sort_by(|a, b| a.desk.folder.cmp(&b.desk.folder));
    desks
}

fn desks_of(folder: &Path, config: &Config) -> PathBuf {
    folder.join(".wattline").join(format!("{}-slots", config.job.get_ref()))
}

/// What cannot be told counts as alive: its answer is waited for, and not for ever.
fn is_alive(desk: &Path) -> bool {
    match File::open(desk.join(ALIVE)) {
        Ok(alive) => alive.try_lock_shared().is_err(),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_asked_as_long_as_it_lives() {
        let folder = tempfile::tempdir().expect("a folder");
        let config: Config = toml::from_str("job = \"j\"\n[archive]\nurl = \"archive\"\n").expect("a configuration");
        let folder = folder.path();
        assert_eq!(living(folder, &config).len(), 0);
        let (first, second) = (OwnDesk::open(folder, &config), OwnDesk::open(folder, &config));
        let (first, second) = (first.expect("a desk"), second.expect("a desk"));
        let asked = living(folder, &config);
        assert_eq!(asked.len(), 2);
        asked.iter().for_each(|of| of.desk.ask("r").expect("asked"));
        assert_eq!([first.desk().take_requests(), second.desk().take_requests()], [["r"], ["r"]]);
        drop(first);
        assert_eq!(living(folder, &config).len(), 1);
        assert_eq!(asked.iter().filter(|of| of.is_alive()).count(), 1);

        // A process that was killed leaves its desk, and one that ended may have been asked all the same.
        let killed = desks_of(folder, &config).join("17-a");
        fs::create_dir_all(&killed).and_then(|()| File::create(killed.join(ALIVE))).expect("a file");
        let late = desks_of(folder, &config).join("18-b");
        Desk { folder: late.clone() }.ask("r").expect("asked");
        assert_eq!(living(folder, &config).len(), 1);
        assert!(!killed.exists() && !late.exists(), "desks of the dead stay");
    }
}
