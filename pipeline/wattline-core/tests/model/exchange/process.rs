//! What a process does with its chain, its outboxes and its inbox.

use std::collections::BTreeMap;

use wattline_core::chain::{AfterRefusedPut, ResumePoint, decide_after_refused_put, decide_resume};
use wattline_core::exchange::Judgement;
use wattline_core::manifest::Manifest;

use super::world::{Body, Epoch, Heard, Link, World, inbox_of};
use super::{Next, Phase, Process, Protocol, Shortcut, Who, fault, step};
use crate::search::Step;

impl Protocol {
    /// As `read_past`.
    pub(super) fn read(&self, world: &World, (slot, nonce): Who) -> World {
        let of = &world.slots[slot];
        let mut newest_first: Vec<Manifest> = Vec::new();
        for n in (1..=of.links.len()).rev() {
            newest_first.push(of.manifest(slot, n));
            let resume = decide_resume(newest_first.iter());
            if matches!(resume, ResumePoint::Epoch { checkpoint, .. } if n as u64 <= checkpoint) {
                break;
            }
        }
        let mut process = Process { phase: Phase::Take, next: of.links.len() as u8 + 1, ..Process::default() };
        if let ResumePoint::Epoch { last, checkpoint } = decide_resume(newest_first.iter())
            && let Some(newest) = of.epoch(last as u8)
        {
            let stored = of.epoch(checkpoint as u8).cloned().unwrap_or_default();
            let heard = if self.shortcut == Shortcut::HeardAsOfNewestLink { &newest.heard } else { &stored.heard };
            process.at = if self.shortcut == Shortcut::InboxFromPublished { newest.published } else { stored.state };
            process.was_out = newest.published;
            process.epoch = Epoch {
                heard: heard.clone(),
                merged: stored.merged,
                given_from: newest.given,
                outbox: None,
                ..newest.clone()
            };
            let since = of.epochs().filter(|(n, epoch)| u64::from(*n) >= checkpoint && epoch.outbox.is_some());
            process.outboxes = since.map(|(n, _)| n).collect();
            if newest.outbox.is_some() && self.shortcut != Shortcut::NotSentAgain {
                process.phase = Phase::Send { n: last as u8, next: 0 };
            }
        }
        let mut next = world.clone();
        *next.process(slot, nonce) = process;
        next
    }

    /// One message. If a process does not hear whether it came, it sends all of them again.
    pub(super) fn send(&self, world: &World, who: Who, n: u8, at: u8) -> Vec<Step<World>> {
        let (slot, nonce) = who;
        let Some(outbox) = world.slots[slot].epoch(n).and_then(|epoch| epoch.outbox.as_ref()) else {
            return Vec::new();
        };
        if at == 0 && !outbox.is_there {
            let mut next = world.clone();
            next.end(slot, nonce);
            return vec![step(who, "ends, as there is no outbox of link", Some(n), Ok(next))];
        }
        let mut outbox = outbox.clone();
        let process = &world.slots[slot].processes[usize::from(nonce) - 1];
        if self.shortcut == Shortcut::SentUnderNewNumber && process.generation == 0 {
            outbox.n = process.next;
        }
        let messages = outbox.messages(slot, &self.bounds.parts);
        let (to, message) = messages[usize::from(at)].clone();
        let mut steps = Vec::new();
        if let Some(silent) = self.is_silent(world) {
            let again = silent.at(slot, nonce, Phase::Send { n, next: 0 });
            let mut arrived = again.clone();
            arrived.slots[to].inbox.push(message.clone());
            steps.push(fault(who, "is not answered, and nothing comes of a message of link", Some(n), Ok(again)));
            steps.push(fault(who, "is not answered when it sends a message of link", Some(n), Ok(arrived)));
        }
        let mut next = world.clone();
        next.slots[to].inbox.push(message);
        let process = next.process(slot, nonce);
        process.phase = match usize::from(at) + 1 < messages.len() {
            true => Phase::Send { n, next: at + 1 },
            false => self.after_roll_forward(process, n),
        };
        steps.push(step(who, "sends a message of link", Some(n), Ok(next)));
        steps
    }

    fn after_roll_forward(&self, process: &Process, n: u8) -> Phase {
        if process.generation == 0 {
            Phase::Take
        } else if process.epoch.checkpoint == n && process.outboxes.iter().any(|of| *of != n) {
            Phase::CleanUp { n }
        } else {
            Phase::Run
        }
    }

    /// Deletes the outboxes that were sent before this checkpoint.
    pub(super) fn clean_up(&self, world: &World, (slot, nonce): Who, n: u8) -> Next {
        let mut next = world.clone().at(slot, nonce, Phase::Run);
        let outboxes = std::mem::take(&mut next.process(slot, nonce).outboxes);
        let (kept, sent): (Vec<u8>, Vec<u8>) = outboxes.into_iter().partition(|of| *of == n);
        next.process(slot, nonce).outboxes = kept;
        for of in sent {
            next.delete_outbox(slot, of, &self.bounds.parts)?;
        }
        Ok(next)
    }

    /// A new generation, and the seal.
    pub(super) fn take(&self, world: &World, (slot, nonce): Who) -> Next {
        let mut next = world.clone();
        next.slots[slot].generations += 1;
        let generation = next.slots[slot].generations;
        let process = next.process(slot, nonce);
        (process.generation, process.phase) = (generation, Phase::Run);
        if generation == 1 {
            return Ok(next);
        }
        loop {
            let n = next.process(slot, nonce).next;
            if usize::from(n) > next.slots[slot].links.len() {
                next.commit(slot, Link { nonce, body: Body::Seal(generation) }, &self.bounds.parts)?;
                next.process(slot, nonce).next += 1;
                return Ok(next);
            }
            match decide_after_refused(&next, (slot, nonce), n) {
                AfterRefusedPut::TryNext => next.process(slot, nonce).next += 1,
                AfterRefusedPut::Committed => return Err(format!("process {nonce} has put link {n}, a seal, before")),
                AfterRefusedPut::Fenced(_) | AfterRefusedPut::ChainTaken => {
                    next.end(slot, nonce);
                    return Ok(next);
                }
            }
        }
    }

    /// As `take_message`.
    pub(super) fn receive(&self, world: &World, (slot, nonce): Who) -> Next {
        let mut next = world.clone();
        let at = next.process(slot, nonce).at;
        let message = next.slots[slot].inbox[usize::from(at)].clone();
        let process = next.process(slot, nonce);
        process.at += 1;
        let was_out = at < process.was_out && self.shortcut != Shortcut::GivenAgain;
        let from = usize::from(message.from);
        let mut sender = process.epoch.heard[from].sender(message.from);
        let mut head = message.head();
        if self.shortcut == Shortcut::PartsNotNumbered {
            (head.part, head.close) = (0, Some(Default::default()));
        }
        let judged = if self.shortcut == Shortcut::NumbersPassedOver { Judgement::Take } else { sender.judge(&head) };
        match judged {
            Judgement::Known => return Ok(next),
            Judgement::Gap => return Err(format!("slot {slot} finds that something is gone before message {at}")),
            Judgement::Take => sender.note(&head),
        }
        process.epoch.heard[from] = Heard::of(&sender);
        let known = if was_out {
            &mut [&mut process.epoch.merged][..]
        } else {
            &mut [&mut process.epoch.merged, &mut process.epoch.given]
        };
        for known in known {
            if known[from] != message.number {
                let (number, known) = (message.number, known[from]);
                return Err(format!("slot {slot} takes message {number} of slot {from} in, and had {known}"));
            }
            known[from] += 1;
        }
        Ok(next)
    }

    /// As `Chain::append`, one turn of its loop.
    pub(super) fn put_epoch(&self, world: &World, who: Who, epoch: &Epoch) -> Vec<Step<World>> {
        let (slot, nonce) = who;
        let n = world.slots[slot].processes[usize::from(nonce) - 1].next;
        let link = Link { nonce, body: Body::Epoch(epoch.clone()) };
        let mut steps = Vec::new();
        if let Some(mut silent) = self.is_silent(world) {
            silent.slots[slot].under_way.push((n, link.clone()));
            silent.slots[slot].under_way.sort_unstable();
            steps.push(fault(who, "is not answered when it puts link", Some(n), Ok(silent)));
        }
        let put = |mut next: World| -> Next {
            if usize::from(n) > next.slots[slot].links.len() {
                next.commit(slot, link, &self.bounds.parts)?;
                return self.after_commit(next, who, epoch);
            }
            match decide_after_refused(&next, who, n) {
                AfterRefusedPut::Committed => self.after_commit(next, who, epoch),
                AfterRefusedPut::TryNext => Err(format!("a seal of slot {slot}, link {n}, is older than its owner")),
                AfterRefusedPut::Fenced(_) | AfterRefusedPut::ChainTaken => {
                    next.end(slot, nonce);
                    Ok(next)
                }
            }
        };
        let what = if epoch.checkpoint == n { "puts a checkpoint as link" } else { "puts a tick as link" };
        steps.push(step(who, what, Some(n), put(world.clone())));
        steps
    }

    fn after_commit(&self, mut next: World, (slot, nonce): Who, epoch: &Epoch) -> Next {
        let process = next.process(slot, nonce);
        let n = process.next;
        process.next += 1;
        process.epoch = Epoch { outbox: None, given_from: epoch.given, ..epoch.clone() };
        if epoch.outbox.is_some() {
            process.outboxes.push(n);
        }
        process.phase = match (&epoch.outbox, self.shortcut) {
            (Some(outbox), _) if !outbox.is_there => Phase::WriteLate { n },
            (None, _) | (Some(_), Shortcut::SentBeforeLink) => self.after_roll_forward(process, n),
            (Some(_), _) => Phase::Send { n, next: 0 },
        };
        if self.shortcut == Shortcut::DeletedWithLink {
            next.delete_outbox(slot, n, &self.bounds.parts)?;
        }
        Ok(next)
    }

    pub(super) fn send_early(&self, world: &World, who: Who, epoch: &Epoch, at: u8) -> Vec<Step<World>> {
        let (slot, nonce) = who;
        let Some(outbox) = &epoch.outbox else { return Vec::new() };
        let messages = outbox.messages(slot, &self.bounds.parts);
        let (to, message) = messages[usize::from(at)].clone();
        let phase = match usize::from(at) + 1 < messages.len() {
            true => Phase::SendEarly { epoch: epoch.clone(), next: at + 1 },
            false => Phase::PutEpoch(epoch.clone()),
        };
        let mut next = world.clone().at(slot, nonce, phase);
        next.slots[to].inbox.push(message);
        vec![step(who, "sends a message of what is to be link", Some(outbox.n), Ok(next))]
    }
}

fn decide_after_refused(world: &World, (slot, nonce): Who, n: u8) -> AfterRefusedPut {
    let of = &world.slots[slot];
    let generation = of.processes[usize::from(nonce) - 1].generation;
    let held = BTreeMap::from([(inbox_of(slot), u64::from(generation))]);
    decide_after_refused_put(&of.manifest(slot, n.into()), &nonce.to_string(), &held)
}
