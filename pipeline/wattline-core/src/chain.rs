//! Who may commit: decisions about chains, generations and seals.
//!
//! A lane is taken in two steps. The taker creates `lanes/<topic>/<partition>/<generation>` (put-if-absent),
//! which names its chain; then it puts a *seal* of that lane as the next link of the previous owner's chain.
//! From the seal on the previous owner cannot commit the lane: its next put meets the seal, and
//! [`decide_after_refused_put`] tells it to let go. A put whose acknowledgement was lost meets its own nonce
//! and is good. The taker continues from what the chain says before the seal.
//!
//! What a link promises is brought out after it, and before the next one: files into tables, which remember its number, and
//! alerts into a topic, which keeps a marker with it ([`are_alerts_out`]). So a successor can tell what is out.
//!
//! Invariant: committed slices of a lane form one line; each starts where the last committed one ended.
//!
//! **Old links** before the newest checkpoint are deleted, so a number that was used may be free again, and an owner that wakes up
//! after longer than links are kept finds its next number free. Its put succeeds, though others have gone on behind a seal that is
//! no more. Clocks do not tell it how long it slept: that of a machine which was suspended, or brought back from an image, says so
//! when it pleases. The chain does, since links are deleted in an order ([`decide_deletable`]): those of one process after those of
//! the process before it. So as long as the last link that a process has put is there, none of a later process has ever been
//! deleted, and a number behind it that is free was never used. A process looks for that link after each put and before
//! anything of the new one comes out ([`decide_after_put`]); the first time, when it has put none, it looks whether there are
//! others behind its link: the newest links are never deleted.
//!
//! ```text
//! owner A   …  7 8                          sleeps                            puts 9: created. Is its 8 there? No: 9 is none of the chain
//! others           9 (seal) 10 11 … 50 000     delete … 7, 8, then 9, 10 …
//! ```
//! So no owner has to take its lanes anew for having been silent: a quiet one finds its last link where it was.
//!
//! `tests/model` goes through all orders of the steps of several processes, with these decisions, and shows that each is needed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::{Body, Manifest, Seal};
use crate::record::LaneId;

/// The object that says which chain holds a lane under a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The lane.
    pub lane: LaneId,
    /// Counts the owners of the lane from 1.
    pub generation: u64,
    /// The chain of this owner.
    pub chain: String,
    /// The nonce of the process that took it.
    pub nonce: String,
}

impl Generation {
    /// Folder of the generation objects of a lane, below the job's folder.
    pub fn folder(lane: &LaneId) -> String {
        format!("lanes/{}/{}", escape(&lane.topic), lane.partition)
    }

    /// Path of the object that records this generation.
    pub fn path(lane: &LaneId, generation: u64) -> String {
        format!("{}/{generation:020}.json", Self::folder(lane))
    }
}

/// Topics may be file paths; in object names everything but `[A-Za-z0-9._-]` becomes `=XX`.
fn escape(topic: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(topic.len());
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            name.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(name, "={byte:02X}").unwrap_or_default();
        }
    }
    name
}

/// Under which generation a process takes a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextGeneration {
    /// This one: nobody had it, as far as is known.
    Take(u64),
    /// None: the lane belongs to another chain.
    OfAnotherChain,
}

/// Decides under which generation a process of `chain` takes a lane, of which `newest` is the newest generation.
pub fn decide_generation(newest: Option<&Generation>, chain: &str) -> NextGeneration {
    match newest {
        None => NextGeneration::Take(1),
        Some(newest) if newest.chain == chain => NextGeneration::Take(newest.generation + 1),
        Some(_) => NextGeneration::OfAnotherChain,
    }
}

/// Whether a generation that could not be put is this process's own: the acknowledgement was lost. Else another process has
/// taken the lane at the same time.
pub fn is_own_generation(winner: &Generation, nonce: &str) -> bool {
    winner.nonce == nonce
}

/// The seal that tells earlier owners of lanes, taken by a process of `chain`, to let go; none if nobody had them before.
pub fn decide_seal(taken: &[(LaneId, u64)], chain: &str) -> Option<Seal> {
    let lanes: Vec<(LaneId, u64)> = taken.iter().filter(|(_, generation)| *generation > 1).cloned().collect();
    (!lanes.is_empty()).then(|| Seal { lanes, taken_by: chain.to_owned() })
}

/// What a process does after its put of link `n` was refused because `n` exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterRefusedPut {
    /// The link is its own: the acknowledgement was lost, the epoch is committed.
    Committed,
    /// The link seals lanes that this process does not hold: try again at the next number.
    TryNext,
    /// These lanes were taken by another process: let go of them.
    Fenced(Vec<LaneId>),
    /// Another process commits epochs to this chain: let go of everything.
    ChainTaken,
}

/// Reads the winner of a race for a link.
///
/// `held` maps the lanes of this process to the generation under which it holds them.
pub fn decide_after_refused_put(winner: &Manifest, nonce: &str, held: &BTreeMap<LaneId, u64>) -> AfterRefusedPut {
    if winner.nonce == nonce {
        return AfterRefusedPut::Committed;
    }
    match &winner.body {
        Body::Epoch(_) | Body::Restored(_) => AfterRefusedPut::ChainTaken,
        Body::Seal(seal) => {
            let lost: Vec<LaneId> = seal
                .lanes
                .iter()
                .filter(|(lane, generation)| held.get(lane).is_some_and(|mine| generation > mine))
                .map(|(lane, _)| lane.clone())
                .collect();
            if lost.is_empty() { AfterRefusedPut::TryNext } else { AfterRefusedPut::Fenced(lost) }
        }
    }
}

/// Makes what was to be link `n` ready to be link `n + 1`: a checkpoint names itself.
pub fn renumber(body: &mut Body, n: u64) {
    if let Body::Epoch(epoch) = body
        && epoch.checkpoint == n
    {
        epoch.checkpoint = n + 1;
    }
}

/// What is remembered with the alerts of link `n`.
pub fn marker(job: &str, incarnation: &str, chain: &str, n: u64) -> String {
    format!("{job}/{incarnation}/{chain}/{n}")
}

/// Whether the alerts that go with the marker `wanted` are out, by the marker of the last ones that are.
///
/// A later link of the same chain says so too: it was put after they were out. A process that comes late must not publish them
/// again behind those of its successor, and set the marker back.
pub fn are_alerts_out(last: Option<&str>, wanted: &str) -> bool {
    fn read(marker: &str) -> Option<(&str, u64)> {
        let (chain, n) = marker.rsplit_once('/')?;
        Some((chain, n.parse().ok()?))
    }
    match (last.and_then(read), read(wanted)) {
        (Some((chain, last)), Some((of, wanted))) => chain == of && last >= wanted,
        _ => false,
    }
}

/// What is seen of a chain after a link was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight<'a> {
    /// The nonce in the last link that this process put before it; none if there is no such link any more.
    LastOwn(Option<&'a str>),
    /// This process had put none. Whether there are links behind the new one.
    Behind(bool),
}

/// What a process makes of its link being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPut {
    /// The link is the next one of the chain.
    Committed,
    /// Others have gone on: from the link, or without it. Let go of everything, and bring nothing of it out.
    Overtaken,
}

/// Judges a link that its process has put: whether the number was free, or free again. `nonce` is that of the process.
///
/// A link that others have gone on without stays where it is, before the chain ([`decide_strays`]). To take it away would be
/// to trust that the last one was deleted and not lost; then the next start must find that out, from this one.
pub fn decide_after_put(sight: Sight<'_>, nonce: &str) -> AfterPut {
    match sight {
        Sight::LastOwn(Some(found)) if found == nonce => AfterPut::Committed,
        Sight::Behind(false) => AfterPut::Committed,
        Sight::LastOwn(_) | Sight::Behind(true) => AfterPut::Overtaken,
    }
}

/// A link that may be old enough to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldLink {
    /// The nonce of the process that put it.
    pub nonce: String,
    /// When it was put, milliseconds since the epoch.
    pub created_ms: i64,
}

/// How many of the oldest links of a chain may be deleted now, in any order among each other: those of one process that are older than
/// the horizon. Given are links before the newest checkpoint in the order of their numbers; `None` for one that is gone.
pub fn decide_deletable(oldest_first: &[Option<OldLink>], horizon_ms: i64) -> usize {
    let owner = oldest_first.iter().flatten().next().map(|link| link.nonce.as_str());
    let may_go = |link: &OldLink| link.created_ms < horizon_ms && Some(link.nonce.as_str()) == owner;
    oldest_first.iter().take_while(|link| link.as_ref().is_none_or(may_go)).count()
}

/// Links that are deleted at the same time. If that ends halfway, no more than these are left before a gap.
pub const DELETED_AT_ONCE: usize = 16;

/// Whether a gap in the numbers of a chain is none: what lies before it is left of links that were being deleted, or was put by
/// an owner that woke up too late. `before` counts all links before the gap, `next` is the number
/// behind it.
pub fn is_left_of_old_links(before: usize, next: u64, checkpoint: u64) -> bool {
    before <= DELETED_AT_ONCE && next <= checkpoint
}

/// How many of the oldest links of a chain are not part of it any more (see [`is_left_of_old_links`]). `numbers` ascend.
pub fn decide_strays(numbers: &[u64], checkpoint: u64) -> usize {
    let gaps = numbers.windows(2).enumerate().filter(|(_, pair)| pair[1] != pair[0] + 1);
    let ends = gaps.map(|(at, pair)| (at + 1, pair[1]));
    ends.take_while(|(before, next)| is_left_of_old_links(*before, *next, checkpoint))
        .last()
        .map_or(0, |(before, _)| before)
}

/// What the end of a chain tells its next owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePoint {
    /// Nothing was ever committed.
    Beginning,
    /// Continue from this epoch, rebuilding from this checkpoint (0: from the first epoch).
    Epoch {
        /// The last committed epoch.
        last: u64,
        /// The checkpoint it builds on.
        checkpoint: u64,
    },
}

/// Finds where to resume among the links of a chain, given newest first.
pub fn decide_resume<'a>(newest_first: impl Iterator<Item = &'a Manifest>) -> ResumePoint {
    for manifest in newest_first {
        if let Some(epoch) = manifest.epoch() {
            return ResumePoint::Epoch { last: manifest.n, checkpoint: epoch.checkpoint };
        }
    }
    ResumePoint::Beginning
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Epoch, FORMAT};

    fn link(nonce: &str, body: Body) -> Manifest {
        Manifest {
            format: FORMAT,
            job: "j".into(),
            chain: "0".into(),
            incarnation: "i".into(),
            n: 4,
            nonce: nonce.into(),
            created_ms: 0,
            body,
        }
    }

    #[test]
    fn the_winner_of_a_race_is_read_by_nonce_then_by_what_it_says() {
        let lane = LaneId::new("readings", 3);
        let held = BTreeMap::from([(lane.clone(), 2)]);
        let epoch = || Body::Epoch(Box::<Epoch>::default());
        let seal = |generation| Body::Seal(Seal { lanes: vec![(lane.clone(), generation)], taken_by: "1".into() });
        let cases = [
            (link("me", epoch()), AfterRefusedPut::Committed),
            (link("you", epoch()), AfterRefusedPut::ChainTaken),
            (link("you", seal(3)), AfterRefusedPut::Fenced(vec![lane.clone()])),
            (link("you", seal(2)), AfterRefusedPut::TryNext),
        ];
        for (winner, expected) in cases {
            assert_eq!(decide_after_refused_put(&winner, "me", &held), expected);
        }
    }

    #[test]
    fn a_marker_speaks_for_all_links_of_its_chain_up_to_its_own() {
        let wanted = marker("j", "i", "0", 9);
        let said = |last: &str| are_alerts_out(Some(last), &wanted);
        assert_eq!(["j/i/0/8", "j/i/0/9", "j/i/0/10"].map(said), [false, true, true]);
        // Of another slot, after a restore, of another job, and none that a job has set.
        assert_eq!(["j/i/1/9", "j/r/0/9", "k/i/0/9", "", "9"].map(said), [false; 5]);
        assert!(!are_alerts_out(None, &wanted));
    }

    #[test]
    fn seals_at_the_end_of_a_chain_are_skipped_when_resuming() {
        let seal = link("a", Body::Seal(Seal { lanes: vec![], taken_by: "0".into() }));
        let epoch = link("b", Body::Epoch(Box::new(Epoch { checkpoint: 2, ..Epoch::default() })));
        assert_eq!(decide_resume([&seal, &epoch].into_iter()), ResumePoint::Epoch { last: 4, checkpoint: 2 });
        assert_eq!(decide_resume([&seal].into_iter()), ResumePoint::Beginning);
    }

    #[test]
    fn a_link_counts_while_the_last_one_of_its_process_is_there() {
        let cases = [
            (Sight::LastOwn(Some("me")), AfterPut::Committed),
            (Sight::LastOwn(None), AfterPut::Overtaken),
            // Another one that woke up too late.
            (Sight::LastOwn(Some("you")), AfterPut::Overtaken),
            (Sight::Behind(false), AfterPut::Committed),
            (Sight::Behind(true), AfterPut::Overtaken),
        ];
        for (sight, expected) in cases {
            assert_eq!(decide_after_put(sight, "me"), expected, "{sight:?}");
        }
    }

    #[test]
    fn links_of_one_process_go_before_those_of_the_next() {
        let old = |nonce: &str, created_ms| Some(OldLink { nonce: nonce.to_owned(), created_ms });
        assert_eq!(decide_deletable(&[], 10), 0);
        assert_eq!(decide_deletable(&[old("a", 8), old("a", 9), old("a", 10)], 10), 2);
        assert_eq!(decide_deletable(&[old("a", 8), None, old("a", 9), old("b", 9)], 10), 3);
        assert_eq!(decide_deletable(&[None, None, old("b", 10)], 10), 2);
        // It came between two links of another one.
        assert_eq!(decide_deletable(&[old("a", 1), old("b", 1), old("a", 1)], 10), 1);
    }

    /// Whatever order a deletion takes, and wherever it ends: whoever wakes up is not believed.
    #[test]
    fn whoever_wakes_up_where_links_were_deleted_is_told_so() {
        // Who put which link. `a` and `b` began at once. The last ones of `b`, `a` and `c` are at 3, 5 and 9.
        let owners = ["a", "a", "a", "b", "a", "a", "c", "c", "c", "c", "d", "d"];
        let mut links: Vec<Option<OldLink>> =
            owners.iter().map(|nonce| Some(OldLink { nonce: (*nonce).to_owned(), created_ms: 0 })).collect();
        let checkpoint = owners.len();
        loop {
            let from = links.iter().take_while(|link| link.is_none()).count();
            let count = decide_deletable(&links[from..checkpoint - 1], 1);
            if count == 0 {
                break;
            }
            // Any part of what goes together may be gone when somebody looks.
            for gone in 0..1_u32 << count {
                let mut now = links.clone();
                (0..count).filter(|at| gone >> at & 1 == 1).for_each(|at| now[from + at] = None);
                for last in [3, 5, 9] {
                    let finds_one_free = now[last + 1..].iter().any(Option::is_none);
                    let sight = Sight::LastOwn(now[last].as_ref().map(|link| link.nonce.as_str()));
                    let believes = decide_after_put(sight, owners[last]) == AfterPut::Committed;
                    assert!(!(finds_one_free && believes), "{} behind {last}: {now:?}", owners[last]);
                }
            }
            links[from..from + count].fill(None);
        }
        assert_eq!(links.iter().flatten().count(), 1, "all before the checkpoint are gone");
    }

    #[test]
    fn what_is_left_before_a_gap_is_no_part_of_the_chain() {
        let run = |from: u64, to: u64| (from..=to).collect::<Vec<u64>>();
        assert_eq!(decide_strays(&[], 9), 0);
        assert_eq!(decide_strays(&run(3, 9), 9), 0);
        assert_eq!(decide_strays(&[2, 5, 6, 7, 8], 8), 1);
        assert_eq!(decide_strays(&[2, 4, 5, 9, 10, 11], 10), 3);
        // A start needs these.
        assert_eq!(decide_strays(&[2, 5, 6, 7, 8], 4), 0);
        // That is more than a deletion leaves.
        let mut lost = run(1, DELETED_AT_ONCE as u64 + 1);
        lost.extend(run(100, 120));
        assert_eq!(decide_strays(&lost, 110), 0);
    }

    #[test]
    fn lane_folders_keep_file_paths_apart() {
        assert_eq!(Generation::folder(&LaneId::new("a/b c.gz", 0)), "lanes/a=2Fb=20c.gz/0");
    }
}
