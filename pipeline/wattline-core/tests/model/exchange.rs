//! Two slots that tell each other, each with processes that crash, are paused, taken for dead and replaced, and go on later.
//!
//! Each slot reads records of its own and tells every receiver of each in one or more messages. As in the runtime, a process reads
//! its chain (`read_past`), sends the outbox of its newest epoch again (`roll_forward_past`), takes its slot (`Chain::take`, in one
//! step here: `chain.rs` has it in all its steps), and then takes messages in (`take_message`), cuts epochs, puts them, sends what
//! they tell (`send_outbox`), and after a checkpoint deletes the outboxes before it (`outboxes_to_delete`).
//!
//! What has to hold: each message is given out by one link, and in its order; the state that a checkpoint stores has it once; none is
//! missed (`Judgement::Gap` never comes); no outbox is deleted before the inboxes have it. From each state the end can be reached.

use crate::search::{Label, Model, Step, holds, is_caught};
use world::{Epoch, Outbox, Parts, SLOTS, World};

mod process;
mod world;

/// More processes of one slot than any schedule of these bounds needs.
const LIVES_MAX: usize = 6;

/// What is left out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortcut {
    Nothing,
    /// What a link tells is sent before it is put.
    SentBeforeLink,
    /// The outbox is written after the link that names it.
    WrittenAfterLink,
    /// A start leaves alone what the newest epoch tells.
    NotSentAgain,
    /// A start sends it under a number of its own.
    SentUnderNewNumber,
    /// Whatever comes is taken in.
    NumbersPassedOver,
    /// Messages of one link have one number.
    PartsNotNumbered,
    /// A message says that the link before it told something, whether it did or not.
    BeforeIsAnyLink,
    /// What is read again is given out again.
    GivenAgain,
    /// A start knows from the newest link, not from the checkpoint, what was taken in.
    HeardAsOfNewestLink,
    /// A start reads its inbox from where the newest link has published it, not from where the state ends.
    InboxFromPublished,
    /// An outbox is deleted as soon as its link is there.
    DeletedWithLink,
}

/// How large the world is.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Records of each slot.
    records: [u8; SLOTS],
    parts: Parts,
    /// How often a process dies.
    crashes: u8,
    /// How often one is started while another one of its slot runs, or is paused.
    takeovers: u8,
    /// Requests whose sender does not hear of them.
    silences: u8,
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
    /// Under which it holds its slot, 0 before.
    generation: u8,
    /// The next message of the inbox.
    at: u8,
    /// Of messages before this one, what comes of them is out.
    was_out: u8,
    /// As the next link would say it; `checkpoint`, `published`, `state` and `given_from` as the last one did.
    epoch: Epoch,
    /// Links whose outboxes are there.
    outboxes: Vec<u8>,
}

/// What a process does next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
enum Phase {
    Read,
    /// The next message of what link `n` tells.
    Send {
        n: u8,
        next: u8,
    },
    Take,
    Run,
    PutEpoch(Epoch),
    CleanUp {
        n: u8,
    },
    /// Of a link that is not there yet.
    SendEarly {
        epoch: Epoch,
        next: u8,
    },
    WriteLate {
        n: u8,
    },
    /// Dead.
    #[default]
    Ended,
}

type Next = Result<World, String>;
/// Which process of a slot.
type Nonce = u8;
/// Which process: slot and nonce.
type Who = (usize, Nonce);

fn step((slot, nonce): Who, what: &'static str, which: Option<u8>, next: Next) -> Step<World> {
    let who = (["slot 0, process", "slot 1, process"][slot], nonce);
    Step { label: Label { who, what: (what, which) }, is_fault: false, next }
}

fn fault(who: Who, what: &'static str, which: Option<u8>, next: Next) -> Step<World> {
    Step { is_fault: true, ..step(who, what, which, next) }
}

impl Model for Protocol {
    type State = World;

    fn start(&self) -> World {
        World::default()
    }

    fn is_end(&self, world: &World) -> bool {
        let Bounds { records, parts, .. } = &self.bounds;
        (0..SLOTS).all(|slot| {
            let all = |epoch: &Epoch| {
                let given = (0..SLOTS).all(|from| epoch.given[from] == records[from] * parts[from][slot]);
                given && epoch.read == records[slot]
            };
            world.slots[slot].epochs().last().map_or(all(&Epoch::default()), |(_, epoch)| all(epoch))
        })
    }

    fn steps(&self, world: &World) -> Vec<Step<World>> {
        let mut steps = Vec::new();
        for (slot, of) in world.slots.iter().enumerate() {
            steps.extend(self.starts(world, slot));
            for (at, (n, link)) in of.under_way.iter().enumerate() {
                steps.push(fault(
                    (slot, link.nonce),
                    "had put what arrives late, as link",
                    Some(*n),
                    self.arrive(world, slot, at),
                ));
            }
            for (process, nonce) in of.processes.iter().zip(1..) {
                if process.phase == Phase::Ended {
                    continue;
                }
                if world.crashes < self.bounds.crashes {
                    let mut next = world.clone();
                    next.crashes += 1;
                    next.end(slot, nonce);
                    steps.push(fault((slot, nonce), "dies", None, Ok(next)));
                }
                steps.extend(self.steps_of(world, (slot, nonce)));
            }
        }
        steps
    }
}

impl Protocol {
    /// A process is started where none is, or beside others.
    fn starts(&self, world: &World, slot: usize) -> Vec<Step<World>> {
        let processes = &world.slots[slot].processes;
        let is_alone = processes.iter().all(|process| process.phase == Phase::Ended);
        let may_start = if is_alone { !self.is_end(world) } else { world.takeovers < self.bounds.takeovers };
        if !may_start || processes.len() >= LIVES_MAX {
            return Vec::new();
        }
        let mut next = world.clone();
        next.takeovers += u8::from(!is_alone);
        next.slots[slot].processes.push(Process { phase: Phase::Read, ..Process::default() });
        let nonce = next.slots[slot].processes.len() as u8;
        let steps = self.steps_of(&next, (slot, nonce));
        steps.into_iter().map(|step| Step { is_fault: !is_alone, ..step }).collect()
    }

    /// A link whose sender did not hear of it.
    fn arrive(&self, world: &World, slot: usize, at: usize) -> Next {
        let mut next = world.clone();
        let (n, link) = next.slots[slot].under_way.remove(at);
        if usize::from(n) > next.slots[slot].links.len() {
            next.commit(slot, link, &self.bounds.parts)?;
        }
        Ok(next)
    }

    fn steps_of(&self, world: &World, who: Who) -> Vec<Step<World>> {
        let (slot, nonce) = who;
        let process = &world.slots[slot].processes[usize::from(nonce) - 1];
        match &process.phase {
            Phase::Ended => Vec::new(),
            Phase::Read => vec![step(who, "starts and reads the chain", None, Ok(self.read(world, who)))],
            Phase::Send { n, next } => self.send(world, who, *n, *next),
            Phase::Take => vec![step(who, "takes its slot", None, self.take(world, who))],
            Phase::Run => self.run(world, who, process),
            Phase::PutEpoch(epoch) => self.put_epoch(world, who, epoch),
            Phase::CleanUp { n } => {
                vec![step(who, "deletes outboxes before link", Some(*n), self.clean_up(world, who, *n))]
            }
            Phase::SendEarly { epoch, next } => self.send_early(world, who, epoch, *next),
            Phase::WriteLate { n } => {
                let mut written = world.clone().at(slot, nonce, Phase::Send { n: *n, next: 0 });
                written.slots[slot].set_outbox(*n, true);
                vec![step(who, "writes the outbox of link", Some(*n), Ok(written))]
            }
        }
    }

    fn is_silent(&self, world: &World) -> Option<World> {
        let more = world.silences < self.bounds.silences;
        more.then(|| World { silences: world.silences + 1, ..world.clone() })
    }

    /// A process that has nothing half done takes a message in or cuts an epoch.
    fn run(&self, world: &World, who: Who, process: &Process) -> Vec<Step<World>> {
        let (slot, nonce) = who;
        let mut steps = Vec::new();
        if usize::from(process.at) < world.slots[slot].inbox.len() {
            steps.push(step(who, "takes in what is in its inbox at", Some(process.at), self.receive(world, who)));
        }
        let has_more = process.epoch.read < self.bounds.records[slot];
        let has_news = process.epoch.given != process.epoch.given_from;
        for (tells, is_checkpoint) in [(true, false), (true, true), (false, false), (false, true)] {
            let is_due = if tells { has_more } else { has_news || (is_checkpoint && process.at > process.epoch.state) };
            if !is_due {
                continue;
            }
            let epoch = self.cut(process, tells, is_checkpoint);
            let phase = match (self.shortcut, tells) {
                (Shortcut::SentBeforeLink, true) => Phase::SendEarly { epoch, next: 0 },
                _ => Phase::PutEpoch(epoch),
            };
            steps.extend(self.steps_of(&world.clone().at(slot, nonce, phase), who));
        }
        steps
    }

    fn cut(&self, process: &Process, tells: bool, is_checkpoint: bool) -> Epoch {
        let (n, mut epoch) = (process.next, process.epoch.clone());
        epoch.published = epoch.published.max(process.at);
        if is_checkpoint {
            (epoch.checkpoint, epoch.state) = (n, process.at);
        }
        if tells {
            let before = if self.shortcut == Shortcut::BeforeIsAnyLink { n - 1 } else { epoch.told };
            let is_there = self.shortcut != Shortcut::WrittenAfterLink;
            epoch.outbox = Some(Outbox { n, before, record: epoch.read, is_there });
            epoch.told = n;
            epoch.read += 1;
        }
        epoch
    }
}

/// Slot 0 tells slot 1 of so many records, in so many messages each.
const fn one_tells(records: u8, parts: u8) -> Bounds {
    Bounds { records: [records, 0], parts: [[0, parts], [0, 0]], crashes: 0, takeovers: 0, silences: 0 }
}

/// Two processes of a slot at once.
const BESIDE: Bounds = Bounds { takeovers: 1, ..one_tells(2, 2) };
/// The same, and one dies.
const BESIDE_AND_DYING: Bounds = Bounds { crashes: 1, takeovers: 1, ..one_tells(2, 1) };
/// Messages of one link that come from several processes.
const PARTS: Bounds = Bounds { crashes: 1, takeovers: 1, ..one_tells(1, 2) };
/// Answers that do not come.
const SILENT: Bounds = Bounds { crashes: 1, silences: 1, ..one_tells(2, 1) };
/// Each tells both.
const BOTH_TELL: Bounds = Bounds { records: [1, 1], parts: [[1, 1], [1, 1]], ..one_tells(1, 1) };
/// One tells both, and a process of it, or of the other, dies.
const ITSELF_TOO: Bounds = Bounds { parts: [[1, 1], [0, 0]], crashes: 1, takeovers: 1, ..one_tells(1, 1) };
/// Each tells the other.
const EACH_OTHER: Bounds = Bounds { records: [1, 1], parts: [[0, 1], [1, 0]], crashes: 1, takeovers: 0, silences: 0 };

fn caught(bounds: Bounds, shortcuts: &[Shortcut]) {
    for shortcut in shortcuts {
        is_caught(&format!("{shortcut:?}"), &Protocol { bounds, shortcut: *shortcut });
    }
}

#[test]
fn what_a_slot_tells_is_taken_in_once_in_every_order_of_steps() {
    for (name, bounds, states_min) in [
        ("exchange, processes beside each other", BESIDE, 155_000),
        ("exchange, processes that die", BESIDE_AND_DYING, 85_000),
        ("exchange, messages of one link", PARTS, 57_000),
        ("exchange, answers that do not come", SILENT, 21_000),
        ("exchange, each tells both", BOTH_TELL, 8_000),
        ("exchange, one tells both", ITSELF_TOO, 100_000),
        ("exchange, each tells the other", EACH_OTHER, 6_800),
    ] {
        holds(name, &Protocol { bounds, shortcut: Shortcut::Nothing }, states_min);
    }
}

#[test]
fn no_rule_of_telling_can_be_left_out() {
    use Shortcut::*;
    caught(
        SILENT,
        &[SentBeforeLink, WrittenAfterLink, NotSentAgain, SentUnderNewNumber, BeforeIsAnyLink, DeletedWithLink],
    );
}

#[test]
fn no_rule_of_taking_in_can_be_left_out() {
    use Shortcut::*;
    caught(PARTS, &[PartsNotNumbered]);
    caught(SILENT, &[NumbersPassedOver, GivenAgain, HeardAsOfNewestLink, InboxFromPublished]);
}
