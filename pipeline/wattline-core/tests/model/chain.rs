//! One slot whose processes crash, are paused, taken for dead and replaced, and go on later.
//!
//! A process does what the runtime does, in its order: it takes the publisher of alerts over (`AlertPublisher::connect`), reads the
//! chain (`read_past`), brings out what its newest epoch owes (`roll_forward_past`), takes lanes, in one call or one by one
//! (`Chain::take`), and then cuts epochs, each a tick or a checkpoint, puts them (`Chain::append`) and brings them out
//! (`roll_forward`). A step is one request to what is shared. A pause needs no step: whoever does nothing for long is paused.
//!
//! A request may be *silent*: its sender does not hear of it, and sends it again; the first one arrives at any time from then on, even
//! after its sender has died, or never. That is the lost acknowledgement, the late put of a dead process, and the failed request.
//!
//! What has to hold (`World::commit`, `World::bring_into_table`, `World::publish`): the results of each record are in one link of the
//! chain, and its raw row in the files of one; whoever has taken a lane is not disturbed by those who had it before, and nobody commits
//! behind the seal of his lane; no process ends because of a link of its own; what links promise is in the table and in the topic,
//! once and in order, each before the next link; and `ChainCheck`, the check of `archive verify`, finds nothing wrong with the chain.
//! From each state some order of steps without faults leads to the end.

use wattline_core::chain::{self, are_alerts_out};

use crate::search::{Label, Model, Step, holds, is_caught};
use world::{Body, CHAIN, Epoch, INCARNATION, JOB, LANES, Link, Request, Section, World};

mod process;
mod world;

/// More processes than any schedule of these bounds needs.
const LIVES_MAX: usize = 12;

/// What is left out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortcut {
    Nothing,
    /// A lane is taken by its generation alone.
    NoSeal,
    /// The seal is put without a generation that was agreed on before.
    GenerationFromLinks,
    /// Whoever meets another's generation holds it too.
    GenerationShared,
    /// Every refused put is taken for another's.
    LostAckIsFence,
    /// Every refused put is taken for one's own.
    RefusalIsLostAck,
    /// An owner goes on behind the seal of its lane.
    SealPassedOver,
    /// An owner goes on behind the epoch of another.
    EpochPassedOver,
    /// The store puts over what is there.
    PutOverwrites,
    /// A start looks at the newest link only, be it a seal.
    NewestLinkOnly,
    /// A checkpoint that had to take the next number names the one before.
    CheckpointNotRenumbered,
    /// A tick moves the position from which a start reads again.
    TickMovesState,
    /// A start leaves alone what the newest epoch owes.
    NotBroughtOut,
    /// A start publishes the alerts of the newest epoch without asking for the marker.
    MarkerNotAsked,
    /// Only the very marker of a link says that its alerts are out.
    MarkerMustBeEqual,
}

/// How large the world is.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    lanes: usize,
    /// Records of each lane.
    records: u8,
    /// How often a process dies.
    crashes: u8,
    /// How often one is started while another one runs, or is paused.
    takeovers: u8,
    /// Requests whose sender does not hear of them.
    silences: u8,
    /// Whether there are tables and alerts.
    brings_out: bool,
}

#[derive(Debug)]
struct Protocol {
    bounds: Bounds,
    shortcut: Shortcut,
}

/// What a process has in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Process {
    phase: Phase,
    /// Number of the next link.
    next: u8,
    /// The last checkpoint.
    checkpoint: u8,
    /// Generation of each lane that it holds, else 0.
    held: [u8; LANES],
    /// Each lane as the last link has it.
    sections: [Section; LANES],
    /// From where on it has the raw rows of each lane that are not in files.
    raw_from: [u8; LANES],
}

/// What a process does next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
enum Phase {
    Connect,
    Read,
    Table {
        n: u8,
        is_past: bool,
    },
    AskMarker {
        n: u8,
    },
    Publish {
        n: u8,
    },
    /// It did not hear what became of its alerts.
    Reopen {
        n: u8,
    },
    Run,
    /// The lanes still to be taken by this call, one bit each, and the generations of those that are.
    List {
        left: u8,
        taken: [u8; LANES],
    },
    PutGeneration {
        left: u8,
        taken: [u8; LANES],
        generation: u8,
    },
    PutSeal {
        taken: [u8; LANES],
        seal: [u8; LANES],
    },
    PutEpoch(Epoch),
    /// Dead.
    #[default]
    Ended,
}

type Next = Result<World, String>;
/// Which process, by its nonce.
type Nonce = u8;

fn step(who: (&'static str, u8), what: (&'static str, Option<u8>), next: Next) -> Step<World> {
    Step { label: Label { who, what }, is_fault: false, next }
}

fn fault(who: (&'static str, u8), what: (&'static str, Option<u8>), next: Next) -> Step<World> {
    Step { is_fault: true, ..step(who, what, next) }
}

fn by_process(nonce: Nonce, what: &'static str, which: Option<u8>, next: Next) -> Step<World> {
    step(("process", nonce), (what, which), next)
}

impl Model for Protocol {
    type State = World;

    fn start(&self) -> World {
        World::default()
    }

    fn is_end(&self, world: &World) -> bool {
        let Some((n, epoch)) = world.last_epoch(world.links.len()) else { return false };
        let all = |section: &Section| section.published == self.bounds.records && section.state == section.published;
        let is_out = !self.bounds.brings_out || (world.table == n && world.alerts == n);
        is_out && epoch.sections[..self.bounds.lanes].iter().all(all)
    }

    fn steps(&self, world: &World) -> Vec<Step<World>> {
        let mut steps = self.starts(world);
        for (at, request) in world.under_way.iter().enumerate() {
            let which = ("arrives late", Some(request.number()));
            steps.push(fault(("request of process", request.nonce()), which, self.arrive(world, at)));
        }
        for (process, nonce) in world.processes.iter().zip(1..) {
            if process.phase == Phase::Ended {
                continue;
            }
            if world.crashes < self.bounds.crashes {
                let mut next = world.clone();
                next.crashes += 1;
                next.end(nonce);
                steps.push(fault(("process", nonce), ("dies", None), Ok(next)));
            }
            steps.extend(self.steps_of(world, nonce));
        }
        steps
    }
}

impl Protocol {
    /// A process is started where none is, or beside others.
    fn starts(&self, world: &World) -> Vec<Step<World>> {
        let is_alone = world.processes.iter().all(|process| process.phase == Phase::Ended);
        let may_start = if is_alone { !self.is_end(world) } else { world.takeovers < self.bounds.takeovers };
        if !may_start || world.processes.len() >= LIVES_MAX {
            return Vec::new();
        }
        let mut next = world.clone();
        next.takeovers += u8::from(!is_alone);
        let phase = if self.bounds.brings_out { Phase::Connect } else { Phase::Read };
        next.processes.push(Process { phase, ..Process::default() });
        let nonce = next.processes.len() as u8;
        let steps = self.steps_of(&next, nonce);
        steps.into_iter().map(|step| Step { is_fault: !is_alone, ..step }).collect()
    }

    /// A request whose sender did not hear of it.
    fn arrive(&self, world: &World, at: usize) -> Next {
        let mut next = world.clone();
        match next.under_way.remove(at) {
            Request::Link(n, link) if usize::from(n) > next.links.len() => next.commit(link, self.bounds.brings_out)?,
            Request::Generation { lane, generation, nonce } if usize::from(generation) > next.owners[lane].len() => {
                next.owners[lane].push(nonce);
            }
            Request::Link(..) | Request::Generation { .. } => {}
        }
        Ok(next)
    }

    fn steps_of(&self, world: &World, nonce: Nonce) -> Vec<Step<World>> {
        let process = &world.processes[usize::from(nonce) - 1];
        let at = |next: World, phase: Phase| Ok(next.at(nonce, phase));
        let put = |what, which, request: Request| {
            let outcome = match &request {
                Request::Link(_, link) => self.put_link(world, nonce, link),
                Request::Generation { lane, generation, .. } => self.put_generation(world, nonce, *lane, *generation),
            };
            let silent = self.is_silent(world).map(|mut next| {
                next.under_way.push(request);
                next.under_way.sort_unstable();
                fault(("process", nonce), ("is not answered when it puts", Some(which)), Ok(next))
            });
            silent.into_iter().chain([by_process(nonce, what, Some(which), outcome)]).collect()
        };
        match &process.phase {
            Phase::Ended => Vec::new(),
            Phase::Connect => {
                let next = World { publisher: nonce, ..world.clone() };
                vec![by_process(nonce, "starts and takes the publisher over", None, at(next, Phase::Read))]
            }
            Phase::Read => vec![by_process(nonce, "reads the chain", None, self.read(world, nonce))],
            Phase::Table { n, is_past } => {
                let after = if *is_past { Phase::AskMarker { n: *n } } else { Phase::Publish { n: *n } };
                let next = world.clone().bring_into_table(*n).map(|next| next.at(nonce, after));
                vec![by_process(nonce, "commits to the table link", Some(*n), next)]
            }
            Phase::AskMarker { n } => {
                let is_out = self.is_out(world, *n);
                let next = at(world.clone(), if is_out { Phase::Run } else { Phase::Publish { n: *n } });
                vec![by_process(nonce, "asks for the marker before link", Some(*n), next)]
            }
            Phase::Publish { n } => self.publish(world, nonce, *n),
            Phase::Reopen { n } => {
                let next = World { publisher: nonce, ..world.clone() };
                vec![by_process(nonce, "opens its publisher anew", None, at(next, Phase::AskMarker { n: *n }))]
            }
            Phase::Run => self.run(world, nonce, process),
            Phase::List { left, taken } => {
                let lane = left.trailing_zeros() as usize;
                let listed = self.list(world, process, lane);
                let phase = Phase::PutGeneration { left: *left, taken: *taken, generation: listed };
                vec![by_process(nonce, "lists the generations of lane", Some(lane as u8), at(world.clone(), phase))]
            }
            Phase::PutGeneration { left, generation, .. } => {
                let lane = left.trailing_zeros() as usize;
                put("puts generation", *generation, Request::Generation { lane, generation: *generation, nonce })
            }
            Phase::PutSeal { seal, .. } => {
                let link = Link { nonce, body: Body::Seal(*seal) };
                put("puts a seal as link", process.next, Request::Link(process.next, link))
            }
            Phase::PutEpoch(epoch) => {
                let link = Link { nonce, body: Body::Epoch(epoch.clone()) };
                let what =
                    if epoch.checkpoint == process.next { "puts a checkpoint as link" } else { "puts a tick as link" };
                put(what, process.next, Request::Link(process.next, link))
            }
        }
    }

    fn is_silent(&self, world: &World) -> Option<World> {
        let more = world.silences < self.bounds.silences;
        more.then(|| World { silences: world.silences + 1, ..world.clone() })
    }

    fn is_out(&self, world: &World, n: u8) -> bool {
        let marker = |n: u8| chain::marker(JOB, INCARNATION, CHAIN, n.into());
        let last = (world.alerts > 0).then(|| marker(world.alerts));
        match self.shortcut {
            Shortcut::MarkerNotAsked => false,
            Shortcut::MarkerMustBeEqual => last == Some(marker(n)),
            _ => are_alerts_out(last.as_deref(), &marker(n)),
        }
    }

    /// As a transaction: out with its marker or not at all; if the answer does not come, the process opens its publisher anew.
    fn publish(&self, world: &World, nonce: Nonce, n: u8) -> Vec<Step<World>> {
        let is_fenced = world.publisher != nonce;
        let published = || world.clone().publish(n);
        let mut steps = Vec::new();
        if let Some(silent) = self.is_silent(world) {
            let reopens = |next: World| next.at(nonce, Phase::Reopen { n });
            let what = ("is not answered, and nothing comes of its alerts of link", Some(n));
            steps.push(fault(("process", nonce), what, Ok(reopens(silent.clone()))));
            if !is_fenced {
                let what = ("is not answered when it publishes the alerts of link", Some(n));
                steps.push(fault(("process", nonce), what, silent.publish(n).map(reopens)));
            }
        }
        let mut ended = world.clone();
        ended.end(nonce);
        let next = if is_fenced { Ok(ended) } else { published().map(|next| next.at(nonce, Phase::Run)) };
        steps.push(by_process(nonce, "publishes the alerts of link", Some(n), next));
        steps
    }

    /// A process that has nothing half done takes lanes or cuts an epoch.
    fn run(&self, world: &World, nonce: Nonce, process: &Process) -> Vec<Step<World>> {
        let mut steps = Vec::new();
        let free = (0..self.bounds.lanes).filter(|lane| process.held[*lane] == 0).fold(0_u8, |of, lane| of | 1 << lane);
        for left in (1..1_u8 << self.bounds.lanes).filter(|left| left & !free == 0) {
            steps.extend(self.steps_of(&world.clone().at(nonce, Phase::List { left, taken: [0; LANES] }), nonce));
        }
        let held = |lane: &usize| process.held[*lane] > 0;
        let has_more = |lane: usize| process.sections[lane].published < self.bounds.records;
        let is_behind = |lane: usize| process.sections[lane].state < process.sections[lane].published;
        for is_checkpoint in [false, true] {
            if !(0..LANES).filter(held).any(|lane| has_more(lane) || (is_checkpoint && is_behind(lane))) {
                continue;
            }
            let epoch = self.cut(process, is_checkpoint);
            steps.extend(self.steps_of(&world.clone().at(nonce, Phase::PutEpoch(epoch)), nonce));
        }
        steps
    }

    /// One more record of each lane that is held, and that has one. Lanes that are not are named as they were.
    fn cut(&self, process: &Process, is_checkpoint: bool) -> Epoch {
        let mut epoch = Epoch {
            checkpoint: if is_checkpoint { process.next } else { process.checkpoint },
            sections: process.sections.clone(),
            held: process.held,
            published_from: process.sections.clone().map(|section| section.published),
            raw_from: process.raw_from,
        };
        for lane in (0..LANES).filter(|lane| process.held[*lane] > 0) {
            let section = &mut epoch.sections[lane];
            section.generation = process.held[lane];
            section.published = (section.published + 1).min(self.bounds.records);
            if is_checkpoint || self.shortcut == Shortcut::TickMovesState {
                section.state = section.published;
            }
        }
        epoch
    }
}

/// One lane, three processes at once.
const THREE: Bounds = Bounds { lanes: 1, records: 2, crashes: 0, takeovers: 2, silences: 1, brings_out: false };
/// One lane, processes that die with requests under way.
const DYING: Bounds = Bounds { lanes: 1, records: 2, crashes: 1, takeovers: 1, silences: 2, brings_out: false };
/// Lanes that come to different processes of one slot, one by one.
const TWO_LANES: Bounds = Bounds { lanes: 2, records: 1, crashes: 1, takeovers: 1, silences: 0, brings_out: false };
/// Tables and alerts.
const OUTPUTS: Bounds = Bounds { lanes: 1, records: 2, crashes: 1, takeovers: 1, silences: 1, brings_out: true };

fn caught(bounds: Bounds, shortcuts: &[Shortcut]) {
    for shortcut in shortcuts {
        is_caught(&format!("{shortcut:?}"), &Protocol { bounds, shortcut: *shortcut });
    }
}

#[test]
fn a_lane_has_one_owner_in_every_order_of_steps() {
    for (name, bounds, states_min) in [
        ("chain, three processes", THREE, 60_000),
        ("chain, processes that die", DYING, 110_000),
        ("chain, two lanes", TWO_LANES, 180_000),
    ] {
        holds(name, &Protocol { bounds, shortcut: Shortcut::Nothing }, states_min);
    }
}

#[test]
fn what_a_link_promises_comes_out_once_in_every_order_of_steps() {
    holds("chain, tables and alerts", &Protocol { bounds: OUTPUTS, shortcut: Shortcut::Nothing }, 95_000);
}

#[test]
fn no_step_of_taking_a_lane_can_be_left_out() {
    use Shortcut::*;
    caught(DYING, &[NoSeal, GenerationShared, SealPassedOver, NewestLinkOnly]);
    caught(OUTPUTS, &[GenerationFromLinks]);
}

#[test]
fn no_rule_of_putting_a_link_can_be_left_out() {
    use Shortcut::*;
    caught(DYING, &[LostAckIsFence, RefusalIsLostAck, EpochPassedOver, TickMovesState]);
    caught(TWO_LANES, &[CheckpointNotRenumbered]);
    caught(OUTPUTS, &[PutOverwrites]);
}

#[test]
fn no_rule_of_bringing_a_link_out_can_be_left_out() {
    use Shortcut::*;
    caught(OUTPUTS, &[NotBroughtOut, MarkerNotAsked, MarkerMustBeEqual]);
}
