//! A table as a backup copies it: at the version that holds what pinned links promised, and nothing of later ones.
//!
//! ```text
//! versions of the log      v₀ ───────────── v ─────── v + 1 ──────── …
//!                          │  looked at     │         │  carries txn(chain, n) with n behind the pinned epoch,
//!                          │  before the    │         └─ or one of a chain that began after the pin
//!                          │  links were    └─ this one is pinned
//!                          └─ so it holds nothing behind them
//! ```
//! The versions between are read one by one. Merges, new columns and commits of other programs are taken along up to the first commit
//! of a link that was not pinned. If the links were all the newest ones at one moment, what was in the table at that moment lies
//! before this commit; so all links but the newest of a chain are in it as a whole, and the newest is in it or waits for the next start.
//!
//! A version is the newest checkpoint of the log up to it and the commits behind that one. `_last_checkpoint` is a hint that may be
//! missing, and names another version soon: it is left out. Data files are the live ones of the version and those that wait. Of a table
//! that another program made it is not known who needs which file: all of them are taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use deltalake_core::DeltaTable;

use super::log::{commit_path, is_own, transactions, transactions_bytes};
use super::table::{Table, now_ms};
use super::{AddFile, Archive};
use crate::error::{Error, Result};
use crate::store::{ObjectInfo, Put};

const LOG: &str = "_delta_log";
/// Application ids of chains begin with it.
const CHAINS: &str = "wattline/";

/// How far a chain got that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainPin {
    /// Its application id in transactions.
    pub app_id: String,
    /// Number of its newest epoch; 0 if it has none.
    pub epoch: i64,
    /// The files that this epoch adds, by table.
    pub adds: BTreeMap<String, Vec<AddFile>>,
}

/// A table at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedTable {
    /// Its name.
    pub table: String,
    /// The version.
    pub version: u64,
    /// For each pinned chain the last epoch that the version holds, if it holds any.
    pub txns: BTreeMap<String, i64>,
    /// Objects of the log; paths are relative to the archive.
    pub log: Vec<ObjectInfo>,
    /// Data files; paths are relative to the archive.
    pub files: Vec<ObjectInfo>,
    /// Whether the names of its files are unique; not so if another program made the table.
    pub is_own: bool,
}

impl Archive {
    /// The newest version in the log of each table. A listing of each log; nothing is read.
    ///
    /// # Errors
    /// The store's answer.
    pub async fn log_versions(&self) -> Result<BTreeMap<String, u64>> {
        let mut versions = BTreeMap::new();
        for name in self.root().folders().await? {
            let Ok(table) = self.table(&name) else { continue };
            let objects = table.root.list(LOG).await?;
            let newest = objects.iter().filter_map(|object| Some(LogName::of(&object.path)?.version())).max();
            versions.extend(newest.map(|version| (name, version)));
        }
        Ok(versions)
    }

    /// The table as of the pinned chains. `since` is a version that it had before any of them was looked at, `None` if it was not
    /// there. Gives nothing if the table came only with a link that is not pinned.
    ///
    /// # Errors
    /// [`Error::ArchiveDamaged`] for an object that must be there and is not; a log that is not readable; the store's answer.
    pub async fn pin_table(&self, name: &str, since: Option<u64>, pins: &[ChainPin]) -> Result<Option<PinnedTable>> {
        let table = self.table(name)?;
        let Some(version) = pinned_version(&table, since, pins).await? else { return Ok(None) };
        let is_own = self.is_own(name).await?;
        let objects = table.root.list("").await?;
        let log = log_of_version(&table, &objects, version)?;
        let (txns, files) = match is_own {
            true => own_files(&table, &objects, version, pins).await?,
            false => (BTreeMap::new(), objects.into_iter().filter(|object| !is_of_log(&object.path)).collect()),
        };
        let below = |objects: Vec<ObjectInfo>| -> Vec<ObjectInfo> {
            let moved = |object: ObjectInfo| ObjectInfo { path: format!("{name}/{}", object.path), ..object };
            objects.into_iter().map(moved).collect()
        };
        Ok(Some(PinnedTable { table: name.to_owned(), version, txns, log: below(log), files: below(files), is_own }))
    }

    /// Commits to a table that was restored at `version` which epochs of which chains it has, under the names that the chains have
    /// now. Repeating it with the same nonce does nothing.
    ///
    /// # Errors
    /// [`Error::RestoreRefused`] if another program has written to the table meanwhile; the store's answer.
    pub async fn tell_transactions(
        &self,
        table: &str,
        version: u64,
        txns: &BTreeMap<String, i64>,
        nonce: &str,
    ) -> Result<()> {
        let table = self.table(table)?;
        let path = commit_path(version + 1);
        let bytes = transactions_bytes(txns, nonce, now_ms());
        if table.root.put_if_absent(&path, bytes.into()).await? == Put::Created {
            return Ok(());
        }
        let found = table.root.get(&path).await?;
        if found.is_some_and(|found| is_own(&found, nonce)) {
            return Ok(());
        }
        let detail =
            format!("something writes to table `{}`: stop it, empty the archive, and restore again", table.name);
        Err(Error::RestoreRefused { location: self.root().location().to_owned(), detail })
    }
}

/// The last version from `since` on that holds nothing behind the pins.
async fn pinned_version(table: &Table, since: Option<u64>, pins: &[ChainPin]) -> Result<Option<u64>> {
    let is_beyond = |(app_id, version): &(String, i64)| match pins.iter().find(|pin| pin.app_id == *app_id) {
        Some(pin) => *version > pin.epoch,
        // A chain that was not there when the pins were made.
        None => app_id.starts_with(CHAINS),
    };
    let mut pinned = since;
    loop {
        let next = pinned.map_or(0, |version| version + 1);
        let Some(bytes) = table.root.get(&commit_path(next)).await? else { return Ok(pinned) };
        if transactions(&table.name, next, &bytes)?.iter().any(is_beyond) {
            return Ok(pinned);
        }
        pinned = Some(next);
    }
}

/// Transactions of the pinned chains, and the objects with live files and with those that wait.
async fn own_files(
    table: &Table,
    objects: &[ObjectInfo],
    version: u64,
    pins: &[ChainPin],
) -> Result<(BTreeMap<String, i64>, Vec<ObjectInfo>)> {
    let mut delta = DeltaTable::new(Arc::clone(&table.log_store));
    delta.load_version(version).await.map_err(|source| table.failed("load its log", source))?;
    let state = delta.snapshot().map_err(|source| table.failed("load its log", source))?;
    let size_of = |size: i64| u64::try_from(size).unwrap_or_default();
    let mut wanted: BTreeMap<String, u64> =
        state.log_data().iter().map(|file| (file.path().into_owned(), size_of(file.size()))).collect();
    let mut txns = BTreeMap::new();
    for pin in pins {
        let taken = state.transaction_version(table.log_store.as_ref(), &pin.app_id).await;
        let taken = taken.map_err(|source| table.failed("read its transactions", source))?;
        if taken.is_none_or(|taken| taken < pin.epoch) {
            let waiting = pin.adds.get(&table.name).into_iter().flatten();
            wanted.extend(waiting.map(|file| (file.path.clone(), file.size_bytes)));
        }
        txns.extend(taken.map(|taken| (pin.app_id.clone(), taken)));
    }
    let there: HashMap<&str, &ObjectInfo> = objects.iter().map(|object| (object.path.as_str(), object)).collect();
    let damaged = |path: &str, detail: String| Error::ArchiveDamaged { path: format!("{}/{path}", table.name), detail };
    let mut files = Vec::with_capacity(wanted.len());
    for (path, size_bytes) in wanted {
        let object = there.get(path.as_str()).copied().ok_or_else(|| damaged(&path, "is not there".to_owned()))?;
        if object.size_bytes != size_bytes {
            let detail = format!("has {} bytes, its table says {size_bytes}", object.size_bytes);
            return Err(damaged(&path, detail));
        }
        files.push(object.clone());
    }
    Ok((txns, files))
}

fn is_of_log(path: &str) -> bool {
    path.strip_prefix(LOG).is_some_and(|rest| rest.starts_with('/'))
}

/// The newest checkpoint up to `version`, and the commits from it on.
fn log_of_version(table: &Table, objects: &[ObjectInfo], version: u64) -> Result<Vec<ObjectInfo>> {
    let mut commits: BTreeMap<u64, &ObjectInfo> = BTreeMap::new();
    let mut checkpoints: BTreeMap<(u64, u64), Vec<&ObjectInfo>> = BTreeMap::new();
    for object in objects {
        match LogName::of(&object.path) {
            Some(LogName::Commit(of)) if of <= version => {
                commits.insert(of, object);
            }
            Some(LogName::Checkpoint { version: of, parts }) if of <= version => {
                checkpoints.entry((of, parts)).or_default().push(object);
            }
            _ => {}
        }
    }
    let is_whole = |(key, found): &(&(u64, u64), &Vec<&ObjectInfo>)| found.len() as u64 == key.1;
    let checkpoint = checkpoints.iter().rev().find(is_whole);
    let first = checkpoint.map_or(0, |((of, _), _)| *of);
    let has_first = commits.contains_key(&first) || checkpoint.is_some();
    let missing: BTreeSet<u64> = (first + 1..=version).filter(|of| !commits.contains_key(of)).collect();
    if let Some(missing) = missing.first().copied().or((!has_first).then_some(first)) {
        let path = format!("{}/{}", table.name, commit_path(missing));
        return Err(Error::ArchiveDamaged { path, detail: format!("is not there: version {version} needs it") });
    }
    let parts = checkpoint.into_iter().flat_map(|(_, parts)| parts.iter().copied());
    Ok(parts.chain(commits.range(first..).map(|(_, object)| *object)).cloned().collect())
}

/// What an object of a log is, by its name; what readers can do without is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogName {
    Commit(u64),
    Checkpoint { version: u64, parts: u64 },
}

impl LogName {
    fn of(path: &str) -> Option<Self> {
        let name = path.strip_prefix(LOG)?.strip_prefix('/')?;
        let parts: Vec<&str> = name.split('.').collect();
        let number = |text: &str| text.parse::<u64>().ok();
        match parts.as_slice() {
            [version, "json"] => number(version).map(Self::Commit),
            [version, "checkpoint", "parquet"] => Some(Self::Checkpoint { version: number(version)?, parts: 1 }),
            [version, "checkpoint", part, parts, "parquet"] => {
                number(part)?;
                Some(Self::Checkpoint { version: number(version)?, parts: number(parts)? })
            }
            _ => None,
        }
    }

    fn version(self) -> u64 {
        match self {
            Self::Commit(version) | Self::Checkpoint { version, .. } => version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{naming, numbers, open, readings, spec};
    use super::*;

    const CHAIN: &str = "wattline/j/0/i";

    fn pin(epoch: i64, adds: &[AddFile]) -> ChainPin {
        let adds = BTreeMap::from([("readings".to_owned(), adds.to_vec())]);
        ChainPin { app_id: CHAIN.to_owned(), epoch, adds }
    }

    async fn written(archive: &Archive, epoch: u64) -> Vec<AddFile> {
        let from = i64::try_from(epoch).unwrap() * 100;
        archive.write_files("readings", vec![readings(from, from + 10)], &naming(epoch)).await.unwrap()
    }

    /// Puts the pinned objects into another folder, as a restore does.
    async fn copied(from: &Archive, pinned: &PinnedTable, folder: &std::path::Path) -> Archive {
        let to = open(folder);
        for object in pinned.log.iter().chain(&pinned.files) {
            let bytes = from.root().get(&object.path).await.unwrap().unwrap();
            to.root().put(&object.path, bytes).await.unwrap();
        }
        to
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_table_is_pinned_at_the_version_that_holds_the_link() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = open(folder.path());
        archive.ensure_table(spec(&[])).await.unwrap();
        let since = archive.log_versions().await.unwrap()["readings"];
        let mut adds = Vec::new();
        for epoch in 1..=3 {
            adds.push(written(&archive, epoch).await);
            archive.commit("readings", &adds[epoch as usize - 1], &[], CHAIN, epoch as i64).await.unwrap();
        }
        let waiting = written(&archive, 4).await;
        let at = async |epoch: i64, adds: &[AddFile]| {
            archive.pin_table("readings", Some(since), &[pin(epoch, adds)]).await.unwrap().unwrap()
        };
        let second = at(2, &adds[1]).await;
        assert_eq!((second.version, &second.txns), (since + 2, &BTreeMap::from([(CHAIN.to_owned(), 2)])));
        assert_eq!((second.files.len(), second.log.len(), second.is_own), (2, 3, true));
        let fourth = at(4, &waiting).await;
        assert_eq!((fourth.version, fourth.files.len(), fourth.txns[CHAIN]), (since + 3, 4, 3));
        // A chain that began after the pin ends the version, whatever the pins say.
        archive.commit("readings", &waiting, &[], "wattline/new/0/x", 1).await.unwrap();
        assert_eq!(at(4, &waiting).await.version, since + 3);

        let restored = copied(&archive, &second, other.path()).await;
        assert_eq!(numbers(&restored).await, (100..110).chain(200..210).collect::<Vec<i64>>());
        let told = BTreeMap::from([("wattline/j/0/new".to_owned(), 2)]);
        for _ in 0..2 {
            restored.tell_transactions("readings", second.version, &told, "nonce").await.unwrap();
        }
        assert_eq!(restored.txn_version("readings", "wattline/j/0/new").await.unwrap(), Some(2));
        let refused = restored.tell_transactions("readings", second.version, &told, "other").await.unwrap_err();
        assert!(refused.to_string().contains("something writes to table `readings`"), "{refused}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_that_was_cleaned_is_pinned_from_its_checkpoint_on() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let archive = open(folder.path());
        archive.ensure_table(spec(&[])).await.unwrap();
        for epoch in 1..=2 {
            let adds = written(&archive, epoch).await;
            archive.commit("readings", &adds, &[], CHAIN, epoch as i64).await.unwrap();
        }
        let policy = super::super::MaintainPolicy { checkpoint_every: 1, ..Default::default() };
        archive.maintain("readings", &policy).await.unwrap();
        let adds = written(&archive, 3).await;
        archive.commit("readings", &adds, &[], CHAIN, 3).await.unwrap();
        for version in 0..2 {
            archive.root().delete(&format!("readings/{}", commit_path(version))).await.unwrap();
        }
        let pinned = archive.pin_table("readings", Some(2), &[pin(3, &adds)]).await.unwrap().unwrap();
        let names: Vec<&str> = pinned.log.iter().filter_map(|object| object.path.rsplit('/').next()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].ends_with("02.checkpoint.parquet") && names[2].ends_with("03.json"), "{names:?}");
        let restored = copied(&archive, &pinned, other.path()).await;
        assert_eq!(numbers(&restored).await, numbers(&archive).await);
        assert_eq!(restored.txn_version("readings", CHAIN).await.unwrap(), Some(3));

        let file = pinned.files[0].path.clone();
        archive.root().delete(&file).await.unwrap();
        let damaged = archive.pin_table("readings", Some(2), &[pin(3, &adds)]).await.unwrap_err().to_string();
        assert!(damaged.contains(&file) && damaged.contains("is not there"), "{damaged}");
    }

    #[test]
    fn names_of_a_log_are_told_apart() {
        let cases = [
            ("_delta_log/00000000000000000007.json", Some(LogName::Commit(7))),
            ("_delta_log/00000000000000000050.checkpoint.parquet", Some(LogName::Checkpoint { version: 50, parts: 1 })),
            (
                "_delta_log/00000000000000000050.checkpoint.0000000001.0000000002.parquet",
                Some(LogName::Checkpoint { version: 50, parts: 2 }),
            ),
            ("_delta_log/00000000000000000050.checkpoint.2b5e0f5a-1b1c.parquet", None),
            ("_delta_log/_last_checkpoint", None),
            ("_delta_log/00000000000000000007.crc", None),
            ("part-0.parquet", None),
        ];
        for (path, expected) in cases {
            assert_eq!(LogName::of(path), expected, "{path}");
        }
    }
}
