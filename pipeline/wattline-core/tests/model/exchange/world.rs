//! What two slots and their processes share, and what has to hold of it.

use wattline_core::exchange::{Close, FORMAT, Head, Sender};
use wattline_core::manifest::{self, Manifest, Seal};
use wattline_core::record::LaneId;

use super::{Nonce, Phase, Process};

pub(super) const SLOTS: usize = 2;
const INCARNATION: &str = "i";

/// How many messages a record of one slot (first index) is to another (second index), 0 if it tells it nothing.
pub(super) type Parts = [[u8; SLOTS]; SLOTS];

/// Everything that there is.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct World {
    pub(super) slots: [Slot; SLOTS],
    pub(super) crashes: u8,
    pub(super) takeovers: u8,
    pub(super) silences: u8,
}

#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Slot {
    /// Link n is at n - 1.
    pub(super) links: Vec<Link>,
    /// How many processes have taken it.
    pub(super) generations: u8,
    /// By offset.
    pub(super) inbox: Vec<Message>,
    /// Links whose put nobody waits for any more, with their numbers.
    pub(super) under_way: Vec<(u8, Link)>,
    /// By their nonce, from 1.
    pub(super) processes: Vec<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Link {
    pub(super) nonce: Nonce,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Body {
    Seal(u8),
    Epoch(Epoch),
}

/// What a link says.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Epoch {
    pub(super) checkpoint: u8,
    /// How many of the slot's own records it has told.
    pub(super) read: u8,
    pub(super) outbox: Option<Outbox>,
    /// The last link that told something.
    pub(super) told: u8,
    /// Positions of the inbox.
    pub(super) published: u8,
    pub(super) state: u8,
    /// By sender: what was taken in,
    pub(super) heard: [Heard; SLOTS],
    /// how many messages are in the state, which counts if this is a checkpoint,
    pub(super) merged: [u8; SLOTS],
    /// and which are given out with this link: from, and up to.
    pub(super) given_from: [u8; SLOTS],
    pub(super) given: [u8; SLOTS],
}

/// The object with the messages of a link. Each link tells one record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Outbox {
    pub(super) n: u8,
    pub(super) before: u8,
    pub(super) record: u8,
    pub(super) is_there: bool,
}

/// What stays the same in a [`Sender`] is left away.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Heard {
    pub(super) n: u8,
    pub(super) next_part: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Message {
    pub(super) from: u8,
    pub(super) n: u8,
    pub(super) part: u8,
    pub(super) before: u8,
    pub(super) closes: bool,
    /// Which one it is, among all that the sender ever tells this receiver.
    pub(super) number: u8,
}

impl Heard {
    pub(super) fn sender(&self, slot: u8) -> Sender {
        let mut sender = Sender::new(slot.into());
        sender.n = self.n.into();
        sender.next_part = self.next_part.map(u32::from);
        if self.n > 0 {
            INCARNATION.clone_into(&mut sender.incarnation);
        }
        sender
    }

    pub(super) fn of(sender: &Sender) -> Self {
        Self { n: sender.n as u8, next_part: sender.next_part.map(|part| part as u8) }
    }
}

impl Message {
    pub(super) fn head(&self) -> Head {
        Head {
            format: FORMAT,
            from: self.from.into(),
            incarnation: INCARNATION.into(),
            n: self.n.into(),
            part: self.part.into(),
            before: self.before.into(),
            close: self.closes.then(Close::default),
        }
    }
}

impl Outbox {
    /// Its messages, in their order, each with its receiver.
    pub(super) fn messages(&self, from: usize, parts: &Parts) -> Vec<(usize, Message)> {
        let to_each = parts[from].iter().enumerate();
        let messages = to_each.flat_map(|(to, parts)| {
            (0..*parts).map(move |part| {
                let (closes, number) = (part + 1 == *parts, self.record * parts + part);
                (to, Message { from: from as u8, n: self.n, part, before: self.before, closes, number })
            })
        });
        messages.collect()
    }
}

pub(super) fn inbox_of(slot: usize) -> LaneId {
    LaneId::new("inbox", slot as i32)
}

impl World {
    pub(super) fn process(&mut self, slot: usize, nonce: Nonce) -> &mut Process {
        &mut self.slots[slot].processes[usize::from(nonce) - 1]
    }

    pub(super) fn at(mut self, slot: usize, nonce: Nonce, phase: Phase) -> Self {
        self.process(slot, nonce).phase = phase;
        self
    }

    /// The memory of a process is gone.
    pub(super) fn end(&mut self, slot: usize, nonce: Nonce) {
        *self.process(slot, nonce) = Process::default();
    }

    /// A link is taken by the store: each message is given out once and in order, and the state has what was taken in.
    pub(super) fn commit(&mut self, slot: usize, link: Link, parts: &Parts) -> Result<(), String> {
        let of = &self.slots[slot];
        let n = of.links.len() + 1;
        if let Body::Epoch(epoch) = &link.body {
            let before = of.epochs().last().map_or([0; SLOTS], |(_, epoch)| epoch.given);
            if epoch.given_from != before {
                let from = epoch.given_from;
                return Err(format!("link {n} of slot {slot} gives out from {from:?} on, and {before:?} were out"));
            }
            for (from, to_each) in parts.iter().enumerate() {
                let Some(heard) = self.slots[from].told_until(&epoch.heard[from], to_each[slot]) else {
                    return Err(format!("link {n} of slot {slot} has taken in what no link of slot {from} tells"));
                };
                if epoch.merged[from] != heard {
                    let merged = epoch.merged[from];
                    return Err(format!(
                        "link {n} of slot {slot} has heard {heard} messages of slot {from}, and its state has {merged}"
                    ));
                }
            }
        }
        self.slots[slot].links.push(link);
        self.slots[slot].forget();
        Ok(())
    }

    /// An outbox is deleted: no inbox may lack what it holds.
    pub(super) fn delete_outbox(&mut self, slot: usize, n: u8, parts: &Parts) -> Result<(), String> {
        let Body::Epoch(Epoch { outbox: Some(outbox), .. }) = &mut self.slots[slot].links[usize::from(n) - 1].body
        else {
            return Ok(());
        };
        outbox.is_there = false;
        let messages = outbox.messages(slot, parts);
        match messages.iter().find(|(to, message)| !self.slots[*to].inbox.contains(message)) {
            Some((to, _)) => {
                Err(format!("the outbox of link {n} of slot {slot} is deleted, and inbox {to} lacks some of it"))
            }
            None => Ok(()),
        }
    }
}

impl Slot {
    pub(super) fn epochs(&self) -> impl DoubleEndedIterator<Item = (u8, &Epoch)> {
        self.links.iter().enumerate().filter_map(|(at, link)| match &link.body {
            Body::Epoch(epoch) => Some((at as u8 + 1, epoch)),
            Body::Seal(_) => None,
        })
    }

    pub(super) fn epoch(&self, n: u8) -> Option<&Epoch> {
        match &self.links.get(usize::from(n.checked_sub(1)?))?.body {
            Body::Epoch(epoch) => Some(epoch),
            Body::Seal(_) => None,
        }
    }

    /// Of links that no start reads any more only what they told matters: states that differ in nothing else are one.
    fn forget(&mut self) {
        let Some((last, checkpoint)) = self.epochs().last().map(|(n, epoch)| (n, epoch.checkpoint)) else { return };
        for (link, n) in self.links.iter_mut().zip(1..) {
            if let Body::Epoch(epoch) = &mut link.body
                && n != last
                && n != checkpoint
            {
                *epoch = Epoch { outbox: epoch.outbox.take(), ..Epoch::default() };
            }
        }
    }

    /// Whether the object with what a link tells is there.
    pub(super) fn set_outbox(&mut self, n: u8, is_there: bool) {
        if let Body::Epoch(Epoch { outbox: Some(outbox), .. }) = &mut self.links[usize::from(n) - 1].body {
            outbox.is_there = is_there;
        }
    }

    /// How many messages of this slot are those up to what was heard of it; `None` if no link told that.
    fn told_until(&self, heard: &Heard, parts: u8) -> Option<u8> {
        let mut outboxes = self.epochs().filter_map(|(_, epoch)| epoch.outbox.as_ref());
        match heard.n {
            0 => Some(0),
            n => outboxes.find(|of| of.n == n).map(|of| of.record * parts + heard.next_part.unwrap_or(parts)),
        }
    }

    /// A link as the store has it; what it says of the exchange is left away.
    pub(super) fn manifest(&self, slot: usize, n: usize) -> Manifest {
        let link = &self.links[n - 1];
        let body = match &link.body {
            Body::Seal(generation) => {
                let lanes = vec![(inbox_of(slot), u64::from(*generation))];
                manifest::Body::Seal(Seal { lanes, taken_by: slot.to_string() })
            }
            Body::Epoch(epoch) => {
                let of = manifest::Epoch { checkpoint: epoch.checkpoint.into(), ..manifest::Epoch::default() };
                manifest::Body::Epoch(Box::new(of))
            }
        };
        Manifest {
            format: manifest::FORMAT,
            job: "job".into(),
            chain: slot.to_string(),
            incarnation: INCARNATION.into(),
            n: n as u64,
            nonce: link.nonce.to_string(),
            created_ms: 0,
            body,
        }
    }
}
