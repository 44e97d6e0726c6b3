//! Whether the links of a chain agree with each other, and the tables with the links: pure judgement, link by link.
//!
//! What is held true is what the protocol promises (see `ARCHITECTURE.md`, the commit protocol and the invariants): numbers
//! without a gap; a checkpoint that is there; positions of lanes and streams that never go back, and never lie beyond what
//! is published; a link that is put only after the one before it was brought out. A chain may be long, so [`ChainCheck`] takes
//! one link after the other and keeps positions only.
//!
//! Links before the checkpoint are deleted when they are old, the oldest first. So a chain may begin at any number, and
//! an old link may build on a checkpoint that is gone; the newest may not.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Body, Epoch, LaneSection, Manifest, Seal};
use crate::problem::{Advice, Problem, Problems};
use crate::record::LaneId;
use crate::system_log::SystemSection;

const RESTORE: &str =
    "restore the archive as a whole from a backup; else go on with a new job name and an archive of its own";

const FOREIGN: Advice = Advice {
    means: "the object is not what its name says: it was copied or changed by hand, and nothing it says can be relied upon",
    action: RESTORE,
};
const GAP: Advice = Advice {
    means: "what these links committed cannot be told any more; a start that needs them does not find its state",
    action: RESTORE,
};
const NO_CHECKPOINT: Advice =
    Advice { means: "a start from here would not find the state of the rules as it was then", action: RESTORE };
const GOES_BACK: Advice = Advice {
    means: "records between the two positions were committed twice: their rows and results may be in the tables twice",
    action: "look for them with a query over `_offset`; if there are such rows, restore the archive from a backup",
};
const BEYOND: Advice = Advice {
    means: "a start from here would leave out records whose results are not out",
    action: "keep the archive as it is and report this; restore it from a backup to go on",
};
const GAP_AHEAD: Advice = Advice {
    means: "a start from here would find these offsets gone a second time, and say so twice",
    action: "keep the archive as it is and report this; restore it from a backup to go on",
};
const NOT_BROUGHT_OUT: Advice = Advice {
    means: "rows that are committed are missing in the table: its log lacks commits that it had",
    action: "do not vacuum, as the files may still be there; restore the archive as a whole from a backup",
};
const LOST: Advice = Advice {
    means: "rows that are committed are missing in the table: a version of its log was replaced or changed by hand",
    action: "do not vacuum, as the files may still be there; restore the table's log from a backup",
};

/// The check of one chain.
#[derive(Debug)]
pub struct ChainCheck {
    job: String,
    slot: String,
    problems: Problems,
    /// Identity of the chain, and the first link that says it.
    incarnation: Option<(String, u64)>,
    first: Option<u64>,
    last: Option<u64>,
    /// Links that are there and could not be read.
    unreadable: BTreeSet<u64>,
    newest_checkpoint: Option<u64>,
    /// The newest epoch and the checkpoint that it builds on.
    epoch: Option<(u64, u64)>,
    lanes: BTreeMap<LaneId, LanePast>,
    system: BTreeMap<String, (u64, SystemSection)>,
}

/// What the links so far say of a lane.
#[derive(Debug, Default)]
struct LanePast {
    /// As of the last epoch that names it, with its number.
    positions: Option<(u64, Positions)>,
    /// The generation under which it was taken last.
    sealed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Positions {
    generation: u64,
    published: i64,
    archive: i64,
    state: i64,
}

/// What a chain is called in messages.
pub fn chain_place(job: &str, slot: &str) -> String {
    format!("chain `{job}/{slot}`")
}

impl ChainCheck {
    /// Begins the check of the chain of a slot.
    pub fn new(job: &str, slot: &str) -> Self {
        Self {
            job: job.to_owned(),
            slot: slot.to_owned(),
            problems: Problems::of(chain_place(job, slot)),
            incarnation: None,
            first: None,
            last: None,
            unreadable: BTreeSet::new(),
            newest_checkpoint: None,
            epoch: None,
            lanes: BTreeMap::new(),
            system: BTreeMap::new(),
        }
    }

    /// Takes the next link, whose name says that its number is `n`; `None` if it is there and cannot be read. Numbers ascend.
    pub fn take(&mut self, n: u64, link: Option<&Manifest>) {
        self.first.get_or_insert(n);
        if let Some(last) = self.last.replace(n)
            && n > last + 1
        {
            let missing = match n - last {
                2 => format!("link {} is missing", last + 1),
                _ => format!("links {} to {} are missing", last + 1, n - 1),
            };
            self.problems.add(missing, GAP);
        }
        let Some(manifest) = link else {
            self.unreadable.insert(n);
            return;
        };
        self.check_identity(n, manifest);
        match &manifest.body {
            Body::Epoch(epoch) => self.take_epoch(n, epoch),
            Body::Seal(seal) => self.take_seal(n, seal),
            Body::Restored(_) => {}
        }
    }

    /// What is wrong with the chain.
    pub fn finish(mut self) -> Vec<Problem> {
        if let (Some(first), Some((n, checkpoint))) = (self.first, self.epoch)
            && checkpoint < first
            && (checkpoint, first) != (0, 1)
        {
            let what =
                format!("epoch {n} builds on checkpoint {checkpoint}, which is gone: the chain begins at link {first}");
            self.problems.add(what, NO_CHECKPOINT);
        }
        self.problems.finish()
    }

    fn check_identity(&mut self, n: u64, manifest: &Manifest) {
        if (manifest.job.as_str(), manifest.chain.as_str()) != (self.job.as_str(), self.slot.as_str()) {
            let what = format!("link {n} says that it belongs to job `{}`, slot `{}`", manifest.job, manifest.chain);
            self.problems.add(what, FOREIGN);
        }
        if manifest.n != n {
            self.problems.add(format!("link {n} says that it is link {}", manifest.n), FOREIGN);
        }
        match &self.incarnation {
            None => self.incarnation = Some((manifest.incarnation.clone(), n)),
            Some((incarnation, before)) if *incarnation != manifest.incarnation => {
                let what = format!(
                    "link {n} is of a chain that began as `{}`, link {before} of one that began as `{incarnation}`",
                    manifest.incarnation
                );
                self.problems.add(what, FOREIGN);
            }
            Some(_) => {}
        }
    }

    fn take_epoch(&mut self, n: u64, epoch: &Epoch) {
        self.check_checkpoint(n, epoch.checkpoint);
        for section in &epoch.lanes {
            self.take_lane(n, section);
        }
        for section in &epoch.system {
            self.take_system(n, section);
        }
    }

    fn check_checkpoint(&mut self, n: u64, named: u64) {
        self.epoch = Some((n, named));
        if named == n || self.newest_checkpoint == Some(named) {
            self.newest_checkpoint = Some(named);
            return;
        }
        let is_before_all = self.newest_checkpoint.is_none() && self.first.is_some_and(|first| named < first);
        if is_before_all {
            return;
        }
        if !self.unreadable.contains(&named) {
            let newest = match self.newest_checkpoint {
                Some(newest) => format!("the last one before it is {newest}"),
                None => "there is none before it".to_owned(),
            };
            self.problems.add(
                format!("epoch {n} builds on {named}, which is no checkpoint of this chain: {newest}"),
                NO_CHECKPOINT,
            );
        }
        // Once is enough: the epochs after it name the same one.
        self.newest_checkpoint = Some(named);
    }

    fn take_lane(&mut self, n: u64, section: &LaneSection) {
        let lane = &section.lane;
        for (name, position) in [("archive", section.archive), ("state", section.state)] {
            if position > section.published {
                let what = format!(
                    "epoch {n}, lane {lane}: `{name}` is {position}, beyond `published`, {}",
                    section.published
                );
                self.problems.add(what, BEYOND);
            }
        }
        if let Some(gap) = section.gaps.iter().find(|gap| gap.first >= gap.next || gap.next > section.state) {
            let what = format!(
                "epoch {n}, lane {lane}: offsets {} to {} are said to be gone, and `state` is {}",
                gap.first,
                gap.next - 1,
                section.state
            );
            self.problems.add(what, GAP_AHEAD);
        }
        let positions = Positions {
            generation: section.generation,
            published: section.published,
            archive: section.archive,
            state: section.state,
        };
        let past = self.lanes.entry(lane.clone()).or_default();
        let Some((before, was)) = past.positions.replace((n, positions)) else { return };
        if positions.generation < was.generation {
            let what = format!(
                "lane {lane}: `generation` goes back from {} in epoch {before} to {} in epoch {n}",
                was.generation, positions.generation
            );
            self.problems.add(what, GOES_BACK);
        }
        let offsets = [
            ("published", was.published, positions.published),
            ("archive", was.archive, positions.archive),
            ("state", was.state, positions.state),
        ];
        for (name, was, is) in offsets {
            if is < was {
                let what = format!("lane {lane}: `{name}` goes back from {was} in epoch {before} to {is} in epoch {n}");
                self.problems.add(what, GOES_BACK);
            }
        }
    }

    fn take_system(&mut self, n: u64, section: &SystemSection) {
        let stream = &section.stream;
        if section.state > section.next {
            let what =
                format!("epoch {n}, stream `{stream}`: `state` is {}, beyond `next`, {}", section.state, section.next);
            self.problems.add(what, BEYOND);
        }
        let Some((before, was)) = self.system.insert(stream.clone(), (n, section.clone())) else { return };
        for (name, was, is) in [("next", was.next, section.next), ("state", was.state, section.state)] {
            if is < was {
                let what =
                    format!("stream `{stream}`: `{name}` goes back from {was} in epoch {before} to {is} in epoch {n}");
                self.problems.add(what, GOES_BACK);
            }
        }
    }

    /// A lane is taken under a generation that no link before names. An epoch after it may still have the older one, if the
    /// process that took the lane ended before it read from it.
    fn take_seal(&mut self, n: u64, seal: &Seal) {
        for (lane, generation) in &seal.lanes {
            let past = self.lanes.entry(lane.clone()).or_default();
            let named = past.positions.map_or(0, |(_, positions)| positions.generation).max(past.sealed);
            if *generation <= named {
                let what =
                    format!("seal {n}, lane {lane}: taken under generation {generation}, after generation {named}");
                self.problems.add(what, GOES_BACK);
            }
            past.sealed = past.sealed.max(*generation);
        }
    }
}

/// A file that a link adds to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Number of the link.
    pub n: u64,
    /// When the link was put, milliseconds since the epoch.
    pub created_ms: i64,
    /// Path relative to the table.
    pub path: String,
}

/// What a table says of files and of the links of one chain.
#[derive(Debug, Clone, Copy)]
pub struct TableSight<'a> {
    /// The last link whose files its log has taken.
    pub taken: Option<i64>,
    /// The files of its newest version, looked for after `taken`.
    pub live: &'a BTreeSet<String>,
    /// Files that it had and its log remembers to have removed, looked for after `live`.
    pub removed: &'a BTreeSet<String>,
    /// Files that were removed since then are remembered, milliseconds since the epoch.
    pub remembers_since_ms: i64,
    /// When it was made, milliseconds since the epoch: a table that was moved away does not have its files in the next one.
    pub made_ms: Option<i64>,
}

/// Whether a table has the files that the links of a chain name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesVerdict {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Files of the newest link that the next start will bring into the table.
    pub waiting: usize,
    /// Files that it does not have, of links that are older than the table.
    pub older: usize,
}

/// Judges the files that the links of a chain add to one table. `newest` is the number of its last link.
pub fn judge_files(place: &str, table: &str, named: &[NamedFile], newest: u64, sight: &TableSight<'_>) -> FilesVerdict {
    let mut problems = Problems::of(place);
    let mut missing: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let (mut waiting, mut older) = (0, 0);
    for file in named.iter().filter(|file| !sight.live.contains(&file.path)) {
        let is_taken = sight.taken.is_some_and(|taken| i64::try_from(file.n).is_ok_and(|n| n <= taken));
        if !is_taken && file.n == newest {
            waiting += 1;
        } else if sight.made_ms.is_some_and(|made_ms| file.created_ms < made_ms) {
            older += 1;
        } else if !is_taken {
            missing.entry(file.n).or_default().push(&file.path);
        } else if file.created_ms >= sight.remembers_since_ms && !sight.removed.contains(&file.path) {
            let what = format!(
                "epoch {} added `{}` to table `{table}`, whose log neither has it nor removed it",
                file.n, file.path
            );
            problems.add(what, LOST);
        }
    }
    if let (Some((first, files)), Some((last, _))) = (missing.first_key_value(), missing.last_key_value()) {
        let count: usize = missing.values().map(Vec::len).sum();
        let taken = sight.taken.map_or_else(|| "nothing".to_owned(), |taken| format!("what is up to {taken}"));
        let example = files.first().copied().unwrap_or_default();
        let what = format!(
            "epochs {first} to {last} add files to table `{table}` that it does not have: {count}, such as `{example}`; of this chain its log has taken {taken}"
        );
        problems.add(what, NOT_BROUGHT_OUT);
    }
    FilesVerdict { problems: problems.finish(), waiting, older }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gap::Gap;
    use crate::manifest::FORMAT;

    fn lane() -> LaneId {
        LaneId::new("readings", 3)
    }

    fn link(n: u64, body: Body) -> Manifest {
        Manifest {
            format: FORMAT,
            job: "j".into(),
            chain: "0".into(),
            incarnation: "i".into(),
            n,
            nonce: "me".into(),
            created_ms: 0,
            body,
        }
    }

    /// An epoch with one lane: (published, archive, state) and its generation.
    fn epoch(n: u64, checkpoint: u64, (published, archive, state): (i64, i64, i64), generation: u64) -> Manifest {
        let section = LaneSection {
            lane: lane(),
            generation,
            stream: "readings".into(),
            log: None,
            published,
            archive,
            state,
            reached_us: 0,
            resume_reached_us: 0,
            since: 0,
            ended: false,
            idle_advances: Vec::new(),
            refused: Vec::new(),
            gaps: Vec::new(),
        };
        let system = SystemSection { stream: "dead_letters".into(), next: published, state, reached_us: 0 };
        let epoch = Epoch { checkpoint, lanes: vec![section], system: vec![system], ..Epoch::default() };
        link(n, Body::Epoch(Box::new(epoch)))
    }

    fn seal(n: u64, generation: u64) -> Manifest {
        link(n, Body::Seal(Seal { lanes: vec![(lane(), generation)], taken_by: "0".into() }))
    }

    fn told(links: &[Manifest]) -> Vec<String> {
        let mut check = ChainCheck::new("j", "0");
        links.iter().for_each(|link| check.take(link.n, Some(link)));
        check.finish().into_iter().map(|problem| problem.what).collect()
    }

    #[test]
    fn a_chain_that_keeps_its_promises_has_no_problem() {
        let ticks_first = [epoch(1, 0, (5, 0, 0), 1), epoch(2, 0, (6, 0, 0), 1), epoch(3, 3, (6, 6, 6), 1)];
        assert_eq!(told(&ticks_first), [""; 0]);
        // After a crash the checkpoint of a lane that re-reads lies behind what is published, and a seal may come to nothing.
        let restarted = [
            epoch(7, 4, (9, 4, 4), 1),
            epoch(8, 8, (20, 20, 20), 1),
            epoch(9, 8, (30, 20, 20), 1),
            seal(10, 2),
            epoch(11, 8, (30, 20, 20), 1),
            seal(12, 3),
            epoch(13, 13, (30, 25, 25), 3),
        ];
        assert_eq!(told(&restarted), [""; 0]);
        assert_eq!(told(&[]), [""; 0]);
    }

    #[test]
    fn gaps_are_told_and_what_they_take_with_them() {
        let well = epoch(1, 1, (5, 5, 5), 1);
        assert_eq!(told(&[well.clone(), epoch(3, 3, (6, 6, 6), 1)]), ["link 2 is missing"]);
        let texts = told(&[well.clone(), epoch(5, 3, (6, 6, 6), 1), epoch(6, 3, (6, 6, 6), 1)]);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[0], "links 2 to 4 are missing");
        assert!(
            texts[1]
                .starts_with("epoch 5 builds on 3, which is no checkpoint of this chain: the last one before it is 1")
        );
        // The first ones go with the years; not the checkpoint of the newest epoch.
        let texts = told(&[epoch(5, 3, (6, 6, 6), 1), seal(6, 2)]);
        assert_eq!(texts, ["epoch 5 builds on checkpoint 3, which is gone: the chain begins at link 5"]);
        // Of a link that cannot be read it is not known whether it was a checkpoint.
        let mut check = ChainCheck::new("j", "0");
        check.take(1, Some(&well));
        check.take(2, None);
        check.take(3, Some(&epoch(3, 2, (6, 6, 6), 1)));
        assert!(check.finish().is_empty());
    }

    #[test]
    fn positions_that_go_back_or_too_far_are_told() {
        let first = epoch(1, 1, (10, 8, 8), 2);
        let texts = told(&[first.clone(), epoch(2, 2, (9, 7, 8), 1)]);
        for words in
            ["`generation` goes back from 2 in epoch 1 to 1", "`published` goes back from 10", "`archive` goes back"]
        {
            assert!(texts.iter().any(|text| text.contains(words)), "{words}: {texts:?}");
        }
        assert!(texts.iter().any(|text| text.contains("stream `dead_letters`: `next` goes back from 10")), "{texts:?}");
        let texts = told(&[epoch(1, 1, (10, 11, 10), 1)]);
        assert_eq!(texts, ["epoch 1, lane readings[3]: `archive` is 11, beyond `published`, 10"]);
        let texts = told(&[first, seal(2, 2)]);
        assert_eq!(texts, ["seal 2, lane readings[3]: taken under generation 2, after generation 2"]);
    }

    #[test]
    fn offsets_that_are_gone_lie_before_the_place_where_the_lane_resumes() {
        let with_gap = |first: i64, next: i64| {
            let mut link = epoch(1, 1, (10, 8, 8), 1);
            let Body::Epoch(epoch) = &mut link.body else { panic!("an epoch") };
            epoch.lanes[0].gaps = vec![Gap { first, next }];
            link
        };
        assert_eq!(told(&[with_gap(3, 8)]), [""; 0]);
        let texts = told(&[with_gap(3, 9)]);
        assert_eq!(texts, ["epoch 1, lane readings[3]: offsets 3 to 8 are said to be gone, and `state` is 8"]);
        assert_eq!(told(&[with_gap(5, 5)]).len(), 1);
    }

    #[test]
    fn links_of_another_chain_are_told() {
        let mut other = epoch(2, 2, (5, 5, 5), 1);
        (other.chain, other.n, other.incarnation) = ("1".into(), 7, "x".into());
        let mut check = ChainCheck::new("j", "0");
        check.take(1, Some(&epoch(1, 1, (5, 5, 5), 1)));
        check.take(2, Some(&other));
        let problems = check.finish();
        let texts: Vec<&str> = problems.iter().map(|problem| problem.what.as_str()).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert_eq!(texts[0], "link 2 says that it belongs to job `j`, slot `1`");
        assert_eq!((texts[1], problems[0].place.as_str()), ("link 2 says that it is link 7", "chain `j/0`"));
    }

    #[test]
    fn files_are_in_the_table_or_were_removed_or_wait_for_the_next_start() {
        let file = |n: u64, path: &str| NamedFile { n, created_ms: 1_000, path: path.to_owned() };
        let named = [file(3, "live"), file(3, "merged"), file(5, "late"), file(6, "newest")];
        let (live, removed) = (BTreeSet::from(["live".to_owned()]), BTreeSet::from(["merged".to_owned()]));
        let judge = |taken: Option<i64>, remembers_since_ms: i64, named: &[NamedFile]| {
            let sight = TableSight { taken, live: &live, removed: &removed, remembers_since_ms, made_ms: Some(1_000) };
            let verdict = judge_files("chain `j/0`", "t", named, 6, &sight);
            (verdict.problems.into_iter().map(|problem| problem.what).collect::<Vec<_>>(), verdict.waiting)
        };
        assert_eq!(judge(Some(3), 0, &named[..2]), (vec![], 0));
        assert_eq!(judge(Some(5), 0, &[file(6, "newest")]), (vec![], 1));
        // Removed so long ago that the log has forgotten it.
        assert_eq!(judge(Some(6), 2_000, &named), (vec![], 0));
        let (texts, waiting) = judge(Some(3), 0, &named);
        assert_eq!((texts.len(), waiting), (1, 1));
        assert!(
            texts[0].contains("epochs 5 to 5 add files to table `t` that it does not have: 1")
                && texts[0].contains("`late`"),
            "{texts:?}"
        );
        assert!(judge(None, 0, &named).0[0].contains("has taken nothing"));
        let (texts, _) = judge(Some(6), 500, &named);
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("`late`") && texts[0].contains("neither has it nor removed it"), "{texts:?}");
    }

    #[test]
    fn a_table_that_was_made_anew_need_not_have_the_files_of_older_links() {
        let file = |n: u64, created_ms: i64| NamedFile { n, created_ms, path: format!("file-{n}") };
        let named = [file(3, 1_000), file(4, 1_999), file(5, 2_000), file(6, 2_500)];
        let (live, removed) = (BTreeSet::from(["file-5".to_owned()]), BTreeSet::new());
        let judge = |taken: Option<i64>, named: &[NamedFile], newest: u64| {
            let sight =
                TableSight { taken, live: &live, removed: &removed, remembers_since_ms: 0, made_ms: Some(2_000) };
            judge_files("chain `j/0`", "t", named, newest, &sight)
        };
        assert_eq!(judge(None, &named[..3], 5), FilesVerdict { older: 2, ..FilesVerdict::default() });
        assert_eq!(judge(Some(5), &named[..3], 5), FilesVerdict { older: 2, ..FilesVerdict::default() });
        assert_eq!(judge(Some(5), &named, 6), FilesVerdict { waiting: 1, older: 2, ..FilesVerdict::default() });
        assert_eq!(judge(Some(6), &named, 6).problems.len(), 1);
    }
}
