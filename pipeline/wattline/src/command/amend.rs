//! Amendments: how `replay --write` and `replay --dead-letters` change tables beside a job.
//!
//! The protocol, and why each crash point is safe, stands in [`wattline_core::amendment`]. Files are written first and named by
//! nothing; the amendment names them; then each table takes its files, in a commit with a transaction of the amendments' own
//! application id, so that the transactions of the job's chain are left alone. Whoever begins finishes what the last one left.
//!
//! Files of an amendment that was never finished may have been deleted by a vacuum a week later. Then it is void: what it did not
//! bring into a table is as it was before, and the same command finds it again. Its dead letters stay, as their rows are not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arrow::record_batch::RecordBatch;
use wattline_connect::archive::{AddFile, Archive, FileNaming, IsOut};
use wattline_connect::store::{ObjectRoot, Put};
use wattline_core::amendment::{AMENDMENT_FORMAT, AMENDMENTS, Amendment, LetterRows};
use wattline_core::manifest::AddedFile;
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::standing::{Standing, standing};
use wattline_runtime::table::{AUDIT_TABLES, DEAD_LETTERS, TableSpec};

use crate::adapt::archive::{JOBS_FOLDER, add_file, added, archive_spec};
#[cfg(debug_assertions)]
use crate::adapt::crash_points::CrashPoints;
use crate::cli::AmendArgs;
use crate::report;

/// How often a change is computed anew because another was faster.
pub(super) const TRIES_MAX: u32 = 5;
/// How often, and after what pauses, it is looked whether a job has brought its last files into their tables.
const LOOKS_MAX: u32 = 50;
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Moments at which a debug build can be told to die.
#[derive(Debug, Default)]
pub(super) struct Steps {
    #[cfg(debug_assertions)]
    points: Option<Arc<CrashPoints>>,
}

impl Steps {
    #[cfg(debug_assertions)]
    pub(super) fn of(args: &AmendArgs) -> Result<Self> {
        Ok(Self { points: Some(CrashPoints::of(&args.crash)?) })
    }

    #[cfg(not(debug_assertions))]
    pub(super) fn of(_args: &AmendArgs) -> Result<Self> {
        Ok(Self::default())
    }

    #[cfg(debug_assertions)]
    fn come_to(&self, moment: &str) {
        if let Some(points) = &self.points {
            points.come_to(moment);
        }
    }

    #[cfg(not(debug_assertions))]
    fn come_to(&self, _moment: &str) {}
}

/// The amendments of one job.
pub(super) struct Amendments {
    archive: Archive,
    root: ObjectRoot,
    job: String,
    nonce: String,
    steps: Steps,
}

/// The amendment that is being made.
pub(super) struct Next {
    pub(super) n: u64,
    incarnation: String,
    /// Files written so far.
    adds: BTreeMap<String, Vec<AddedFile>>,
    part: u32,
}

/// How far an amendment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Finished,
    /// Some of it is in no table yet.
    Open,
}

impl Amendments {
    pub(super) fn of(archive: &Archive, job: &str, steps: Steps) -> Self {
        let root = archive.root().child(JOBS_FOLDER).child(job);
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        Self { archive: archive.clone(), root, job: job.to_owned(), nonce, steps }
    }

    /// The newest amendment, if there is any.
    pub(super) async fn newest(&self) -> Result<Option<Amendment>> {
        match self.newest_number().await? {
            Some(n) => Ok(Some(self.read(n).await?)),
            None => Ok(None),
        }
    }

    async fn newest_number(&self) -> Result<Option<u64>> {
        let objects = self.root.list(AMENDMENTS.trim_end_matches('/')).await?;
        Ok(objects.iter().filter_map(|object| Amendment::number_of(&object.path)).max())
    }

    /// An amendment by its number.
    pub(super) async fn read(&self, n: u64) -> Result<Amendment> {
        let path = Amendment::path(n);
        let place = || format!("{}/{path}", self.root.location());
        let body = self.root.get(&path).await?.with_context(|| format!("`{}` is gone", place()))?;
        let amendment: Amendment = serde_json::from_slice(&body).with_context(|| {
            format!(
                "`{}` cannot be read: bring it back from a backup, or move it away and run the command again",
                place()
            )
        })?;
        if amendment.format != AMENDMENT_FORMAT {
            bail!(
                "`{}` has format {}, this version of wattline reads {AMENDMENT_FORMAT}: use the version that wrote it",
                place(),
                amendment.format
            );
        }
        Ok(amendment)
    }

    /// Finishes the newest amendment if need be, and begins the next one.
    pub(super) async fn begin(&self) -> Result<Next> {
        self.archive.root().probe().await?;
        let newest = self.newest().await?;
        if let Some(newest) = &newest
            && self.stage(newest).await? == Stage::Open
        {
            report::print_error(&format!("note: amendment {} was not finished: it is finished first\n", newest.n));
            self.roll_forward(newest).await?;
        }
        let first = || uuid::Uuid::new_v4().simple().to_string();
        let (n, incarnation) = newest.map_or_else(|| (1, first()), |newest| (newest.n + 1, newest.incarnation));
        Ok(Next { n, incarnation, adds: BTreeMap::new(), part: 0 })
    }

    /// The newest amendment, if it is not finished.
    pub(super) async fn open(&self) -> Result<Option<Amendment>> {
        match self.newest().await? {
            Some(newest) if self.stage(&newest).await? == Stage::Open => Ok(Some(newest)),
            _ => Ok(None),
        }
    }

    async fn stage(&self, amendment: &Amendment) -> Result<Stage> {
        let letters = (!amendment.letters_out.is_empty()).then(|| DEAD_LETTERS.to_owned());
        for table in amendment.adds.keys().cloned().chain(letters) {
            if !self.has_taken(&table, amendment).await? {
                return Ok(Stage::Open);
            }
        }
        Ok(Stage::Finished)
    }

    /// Whether a table has the amendment; one that was moved away takes nothing any more.
    async fn has_taken(&self, table: &str, amendment: &Amendment) -> Result<bool> {
        match self.archive.txn_version(table, &amendment.app_id()).await {
            Ok(version) => Ok(version >= Some(txn_of(amendment))),
            Err(wattline_connect::Error::UnknownTable { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes rows of a table into files that the amendment will name.
    pub(super) async fn write(&self, next: &mut Next, spec: &TableSpec, batches: Vec<RecordBatch>) -> Result<()> {
        self.archive.ensure_table(archive_spec(spec)).await?;
        let naming =
            FileNaming { chain: "amendment".to_owned(), epoch: next.n, part: next.part, nonce: self.nonce.clone() };
        next.part += 1;
        let files = self.archive.write_files(&spec.name, batches, &naming).await?;
        next.adds.entry(spec.name.clone()).or_default().extend(files.into_iter().map(added));
        self.steps.come_to("amend-files.after");
        Ok(())
    }

    /// Makes the amendment real and brings it into its tables; false if another took the number, and nothing was done.
    pub(super) async fn commit(&self, next: Next, letters_out: Vec<LetterRows>) -> Result<bool> {
        let amendment = Amendment {
            format: AMENDMENT_FORMAT,
            job: self.job.clone(),
            incarnation: next.incarnation,
            n: next.n,
            nonce: self.nonce.clone(),
            created_ms: SystemClock.now_ms(),
            adds: next.adds,
            letters_out,
        };
        let body = serde_json::to_vec(&amendment)?;
        self.steps.come_to("amendment.before");
        if self.root.put_if_absent(&Amendment::path(amendment.n), body.into()).await? == Put::Exists
            && self.read(amendment.n).await?.nonce != self.nonce
        {
            return Ok(false);
        }
        self.steps.come_to("amendment.after");
        self.roll_forward(&amendment).await?;
        Ok(true)
    }

    /// Brings an amendment into its tables: the rows first, then the letters out that they were.
    async fn roll_forward(&self, amendment: &Amendment) -> Result<()> {
        let (app_id, version) = (amendment.app_id(), txn_of(amendment));
        // What says that it was done comes last.
        let (told, changed): (Vec<_>, Vec<_>) =
            amendment.adds.iter().partition(|(table, _)| AUDIT_TABLES.contains(&table.as_str()));
        for (table, files) in changed.into_iter().chain(told) {
            if self.has_taken(table, amendment).await? {
                continue;
            }
            if !self.are_there(table, files).await? {
                report::print_error(&format!(
                    "note: amendment {} was never finished and its files are gone: it is void\n",
                    amendment.n
                ));
                return Ok(());
            }
            let files: Vec<AddFile> = files.iter().cloned().map(add_file).collect();
            self.steps.come_to("amend-rows.before");
            self.archive.commit(table, &files, &[], &app_id, version).await?;
            self.steps.come_to("amend-rows.after");
        }
        if !amendment.letters_out.is_empty() && !self.has_taken(DEAD_LETTERS, amendment).await? {
            let named = amendment.clone();
            let is_out: IsOut = Arc::new(move |topic, offset| named.takes_out(topic, offset));
            self.steps.come_to("amend-letters.before");
            self.archive.take_out(DEAD_LETTERS, &is_out, &app_id, version).await?;
            self.steps.come_to("amend-letters.after");
        }
        Ok(())
    }

    /// Whether its files of a table are all there: of one that was never finished they may be gone.
    pub(super) async fn are_there(&self, table: &str, files: &[AddedFile]) -> Result<bool> {
        let folder = self.archive.root().child(table);
        for file in files {
            if folder.get_range(&file.path, 0..1).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn txn_of(amendment: &Amendment) -> i64 {
    i64::try_from(amendment.n).unwrap_or(i64::MAX)
}

/// The number of the newest amendment of each job of an archive that has any.
pub(super) async fn newest_numbers(archive: &Archive) -> Result<BTreeMap<String, u64>> {
    let mut newest = BTreeMap::new();
    for job in archive.root().child(JOBS_FOLDER).folders().await? {
        if let Some(n) = Amendments::of(archive, &job, Steps::default()).newest_number().await? {
            newest.insert(job, n);
        }
    }
    Ok(newest)
}

/// The newest amendment of each job of an archive, and whether it is not finished.
pub(super) async fn newest_of_all(archive: &Archive) -> Result<Vec<(Amendment, bool)>> {
    let mut all = Vec::new();
    for job in archive.root().child(JOBS_FOLDER).folders().await? {
        let of_job = Amendments::of(archive, &job, Steps::default());
        if let Some(newest) = of_job.newest().await? {
            let is_open = of_job.stage(&newest).await? == Stage::Open;
            all.push((newest, is_open));
        }
    }
    Ok(all)
}

/// Where all slots of an archive stand, once what their newest links add to these tables is in them.
///
/// # Errors
/// If a job was stopped in between, or is held up: its next start brings the files there.
pub(super) async fn settled(archive: &Archive, tables: &BTreeSet<String>) -> Result<Vec<Standing>> {
    let mut look = 0;
    loop {
        look += 1;
        let (mut standings, mut behind) = (Vec::new(), None);
        for of in super::verify::slots_of(archive).await? {
            let Some(standing) = standing(&of.store, &of.job, &of.slot).await? else { continue };
            for table in standing.adds_to.intersection(tables) {
                let taken = archive.txn_version(table, &standing.app_id).await?;
                if taken < Some(i64::try_from(standing.epoch).unwrap_or(i64::MAX)) {
                    behind = Some(format!("link {} of job `{}`, table `{table}`", standing.epoch, standing.job));
                }
            }
            standings.push(standing);
        }
        match behind {
            None => return Ok(standings),
            Some(behind) if look == LOOKS_MAX => bail!(
                "files that were committed are not in their table yet ({behind}): if the job was stopped by force, start it, \
                 which brings them there, and run this again"
            ),
            Some(_) => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
}

/// Who asks, if the command line does not say it.
#[expect(clippy::disallowed_methods, reason = "the user of the session is known to its environment only")]
pub(super) fn user(args: &AmendArgs) -> String {
    let of_session = || ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    args.by.clone().or_else(of_session).filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
