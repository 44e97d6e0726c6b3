//! What the processes of a slot share, and what has to hold of it.

use wattline_core::chain::renumber;
use wattline_core::chain_check::ChainCheck;
use wattline_core::manifest::{self, FORMAT, LaneSection, Manifest, Seal};
use wattline_core::record::LaneId;
use wattline_core::time::BEFORE_TIME;

use super::{Nonce, Phase, Process};

pub(super) const LANES: usize = 2;
pub(super) const JOB: &str = "job";
pub(super) const CHAIN: &str = "0";
pub(super) const INCARNATION: &str = "i";

/// Everything that there is.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct World {
    /// Link n is at n - 1.
    pub(super) links: Vec<Link>,
    /// Of each lane, who has put generation 1, 2, …
    pub(super) owners: [Vec<Nonce>; LANES],
    /// Requests that nobody waits for any more.
    pub(super) under_way: Vec<Request>,
    /// The last link that the table has.
    pub(super) table: u8,
    /// The last link whose alerts are out, which is what the marker says.
    pub(super) alerts: u8,
    /// Whose publisher was opened last: all others are fenced off.
    pub(super) publisher: Nonce,
    /// Of each lane, the newest generation whose owner has done all that is to be done before it reads, and who that is.
    pub(super) taken: [(u8, Nonce); LANES],
    /// By their nonce, from 1.
    pub(super) processes: Vec<Process>,
    pub(super) crashes: u8,
    pub(super) takeovers: u8,
    pub(super) silences: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Link {
    pub(super) nonce: Nonce,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Body {
    /// Generation of each lane that is sealed, else 0.
    Seal([u8; LANES]),
    Epoch(Epoch),
}

/// What a link says, and on which memory of its process it rests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Epoch {
    pub(super) checkpoint: u8,
    pub(super) sections: [Section; LANES],
    /// Generation of each lane that its process holds, else 0.
    pub(super) held: [u8; LANES],
    /// Its outputs are those of the records from here on.
    pub(super) published_from: [u8; LANES],
    /// The files of a checkpoint have the raw rows from here on.
    pub(super) raw_from: [u8; LANES],
}

/// Positions of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Section {
    pub(super) generation: u8,
    pub(super) published: u8,
    pub(super) state: u8,
}

/// A put that its sender does not hear of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Request {
    Link(u8, Link),
    Generation { lane: usize, generation: u8, nonce: Nonce },
}

impl Request {
    pub(super) fn nonce(&self) -> Nonce {
        match self {
            Self::Link(_, link) => link.nonce,
            Self::Generation { nonce, .. } => *nonce,
        }
    }

    pub(super) fn number(&self) -> u8 {
        match self {
            Self::Link(n, _) => *n,
            Self::Generation { generation, .. } => *generation,
        }
    }
}

impl Epoch {
    /// As [`renumber`] does it.
    pub(super) fn renumber(&mut self, n: u8) {
        let of = manifest::Epoch { checkpoint: self.checkpoint.into(), ..manifest::Epoch::default() };
        let mut body = manifest::Body::Epoch(Box::new(of));
        renumber(&mut body, n.into());
        if let manifest::Body::Epoch(of) = body {
            self.checkpoint = of.checkpoint as u8;
        }
    }
}

pub(super) fn lane_id(lane: usize) -> LaneId {
    LaneId::new("t", lane as i32)
}

pub(super) fn nonce_of(nonce: Nonce) -> String {
    nonce.to_string()
}

impl World {
    pub(super) fn process(&mut self, nonce: Nonce) -> &mut Process {
        &mut self.processes[usize::from(nonce) - 1]
    }

    /// With a process at its next step.
    pub(super) fn at(mut self, nonce: Nonce, phase: Phase) -> Self {
        self.process(nonce).phase = phase;
        self
    }

    /// The memory of a process is gone.
    pub(super) fn end(&mut self, nonce: Nonce) {
        *self.process(nonce) = Process::default();
    }

    /// The newest epoch among the first links, and its number.
    pub(super) fn last_epoch(&self, links: usize) -> Option<(u8, &Epoch)> {
        self.epochs(links).last()
    }

    fn epochs(&self, links: usize) -> impl DoubleEndedIterator<Item = (u8, &Epoch)> {
        let numbered = self.links[..links].iter().enumerate();
        numbered.filter_map(|(at, link)| match &link.body {
            Body::Epoch(epoch) => Some((at as u8 + 1, epoch)),
            Body::Seal(_) => None,
        })
    }

    /// A link as the store has it.
    pub(super) fn manifest(&self, n: usize) -> Manifest {
        let link = &self.links[n - 1];
        let body = match &link.body {
            Body::Seal(lanes) => {
                let sealed = (0..LANES).filter(|lane| lanes[*lane] > 0);
                let lanes = sealed.map(|lane| (lane_id(lane), lanes[lane].into())).collect();
                manifest::Body::Seal(Seal { lanes, taken_by: CHAIN.into() })
            }
            Body::Epoch(epoch) => manifest::Body::Epoch(Box::new(manifest::Epoch {
                checkpoint: epoch.checkpoint.into(),
                lanes: (0..LANES).filter_map(|lane| epoch.sections[lane].of_manifest(lane)).collect(),
                ..manifest::Epoch::default()
            })),
        };
        Manifest {
            format: FORMAT,
            job: JOB.into(),
            chain: CHAIN.into(),
            incarnation: INCARNATION.into(),
            n: n as u64,
            nonce: nonce_of(link.nonce),
            created_ms: 0,
            body,
        }
    }

    /// A process has taken lanes, and reads from now on.
    pub(super) fn note_taken(&mut self, nonce: Nonce, generations: [u8; LANES]) {
        for (taken, generation) in self.taken.iter_mut().zip(generations) {
            *taken = (*taken).max((generation, if generation > 0 { nonce } else { 0 }));
        }
    }

    /// The store takes the next link.
    pub(super) fn commit(&mut self, link: Link, brings_out: bool) -> Result<(), String> {
        let before = self.links.len();
        let n = before + 1;
        self.links.push(link);
        let mut check = ChainCheck::new(JOB, CHAIN);
        (1..=n).for_each(|n| check.take(n as u64, Some(&self.manifest(n))));
        if let Some(problem) = check.finish().first() {
            return Err(format!("the chain is not true: {problem:?}"));
        }
        let Body::Epoch(epoch) = &self.links[before].body else { return Ok(()) };
        let nonce = self.links[before].nonce;
        let last = self.last_epoch(before);
        if let Some((last, _)) = last.filter(|(last, _)| brings_out && (self.table < *last || self.alerts < *last)) {
            return Err(format!("link {n} is put before link {last} is brought out"));
        }
        let published = |lane: usize| last.map_or(0, |(_, epoch)| epoch.sections[lane].published);
        let mut checkpoints = self.epochs(before).filter(|(n, epoch)| epoch.checkpoint == *n);
        let archived = checkpoints.next_back();
        let archived = |lane: usize| archived.map_or(0, |(_, epoch)| epoch.sections[lane].state);
        for lane in 0..LANES {
            if epoch.published_from[lane] != published(lane) {
                let (from, is) = (epoch.published_from[lane], published(lane));
                return Err(format!("link {n} has the results of lane {lane} from {from} on, and {is} were out"));
            }
            if usize::from(epoch.checkpoint) == n && epoch.raw_from[lane] != archived(lane) {
                let (from, is) = (epoch.raw_from[lane], archived(lane));
                return Err(format!("link {n} has the rows of lane {lane} from {from} on, and {is} were in files"));
            }
        }
        for lane in (0..LANES).filter(|lane| epoch.held[*lane] > 0) {
            let mine = epoch.held[lane];
            let is_sealed = |link: &Link| matches!(&link.body, Body::Seal(sealed) if sealed[lane] > mine);
            if self.links[..before].iter().any(is_sealed) {
                return Err(format!("process {nonce} commits lane {lane} in link {n}, behind the seal"));
            }
            let (generation, owner) = self.taken[lane];
            if (generation, owner) > (mine, nonce) || (generation == mine && owner != nonce) {
                return Err(format!(
                    "process {nonce} commits lane {lane} in link {n}, which process {owner} has taken"
                ));
            }
        }
        Ok(())
    }

    /// The table takes a link, unless it has that one, or a later one.
    pub(super) fn bring_into_table(mut self, n: u8) -> Result<Self, String> {
        if self.table < n {
            if self.epochs(self.links.len()).any(|(of, _)| self.table < of && of < n) {
                return Err(format!("the table takes link {n}, and lacks one before it"));
            }
            self.table = n;
        }
        Ok(self)
    }

    /// The topic takes the alerts of a link.
    pub(super) fn publish(mut self, n: u8) -> Result<Self, String> {
        if n <= self.alerts {
            return Err(format!("the alerts of link {n} are published again, after those of link {}", self.alerts));
        }
        if self.epochs(self.links.len()).any(|(of, _)| self.alerts < of && of < n) {
            return Err(format!("the alerts of link {n} are published, and those of one before it are not"));
        }
        self.alerts = n;
        Ok(self)
    }
}

impl Section {
    /// Of a lane that has begun.
    fn of_manifest(&self, lane: usize) -> Option<LaneSection> {
        let position = |of: u8| i64::from(of);
        (self.generation > 0).then(|| LaneSection {
            lane: lane_id(lane),
            generation: self.generation.into(),
            stream: "s".into(),
            log: None,
            published: position(self.published),
            archive: position(self.state),
            state: position(self.state),
            reached_us: BEFORE_TIME,
            resume_reached_us: BEFORE_TIME,
            since: 0,
            ended: false,
            idle_advances: Vec::new(),
            refused: Vec::new(),
            gaps: Vec::new(),
        })
    }
}
