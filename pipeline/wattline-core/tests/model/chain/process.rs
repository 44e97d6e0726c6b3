//! What a process does with the answers of the store: reading the chain, taking lanes, putting links.

use std::collections::BTreeMap;

use wattline_core::chain::{
    AfterRefusedPut, Generation, NextGeneration, ResumePoint, decide_after_refused_put, decide_generation,
    decide_resume, decide_seal, is_own_generation,
};
use wattline_core::manifest::Manifest;
use wattline_core::record::LaneId;

use super::world::{Body, CHAIN, LANES, Link, World, lane_id, nonce_of};
use super::{Next, Nonce, Phase, Process, Protocol, Shortcut};

impl Protocol {
    /// As `read_past`.
    pub(super) fn read(&self, world: &World, nonce: Nonce) -> Next {
        let mut next = world.clone();
        let mut newest_first: Vec<Manifest> = Vec::new();
        for n in (1..=world.links.len()).rev() {
            newest_first.push(world.manifest(n));
            let resume = decide_resume(newest_first.iter());
            let is_enough = matches!(resume, ResumePoint::Epoch { checkpoint, .. } if n as u64 <= checkpoint);
            if is_enough || self.shortcut == Shortcut::NewestLinkOnly {
                break;
            }
        }
        let process = next.process(nonce);
        process.next = world.links.len() as u8 + 1;
        process.phase = Phase::Run;
        let ResumePoint::Epoch { last, checkpoint } = decide_resume(newest_first.iter()) else { return Ok(next) };
        let has_state = |of: &Manifest| of.n == checkpoint && of.epoch().is_some_and(|of| of.checkpoint == checkpoint);
        if checkpoint > 0 && !newest_first.iter().any(has_state) {
            return Err(format!("link {last} builds on {checkpoint}, and there is no state of it"));
        }
        if let Body::Epoch(epoch) = &world.links[last as usize - 1].body {
            process.sections.clone_from(&epoch.sections);
            process.raw_from = epoch.sections.clone().map(|section| section.state);
        }
        process.checkpoint = checkpoint as u8;
        if self.bounds.brings_out && self.shortcut != Shortcut::NotBroughtOut {
            process.phase = Phase::Table { n: last as u8, is_past: true };
        }
        Ok(next)
    }

    /// As `Chain::next_generation`.
    pub(super) fn list(&self, world: &World, process: &Process, lane: usize) -> u8 {
        if self.shortcut == Shortcut::GenerationFromLinks {
            return process.sections[lane].generation + 1;
        }
        let newest = world.owners[lane].last().map(|nonce| generation(lane, world.owners[lane].len() as u8, *nonce));
        match decide_generation(newest.as_ref(), CHAIN) {
            NextGeneration::Take(generation) => generation as u8,
            NextGeneration::OfAnotherChain => unreachable!("there is one chain"),
        }
    }

    /// As `Chain::take`, of one lane and, if it was the last one, the seal.
    pub(super) fn put_generation(&self, world: &World, nonce: Nonce, lane: usize, of: u8) -> Next {
        let mut next = world.clone();
        match world.owners[lane].get(usize::from(of) - 1) {
            None => next.owners[lane].push(nonce),
            Some(winner) if is_own_generation(&generation(lane, of, *winner), &nonce_of(nonce)) => {}
            Some(_) if self.shortcut == Shortcut::GenerationShared => {}
            Some(_) => {
                next.end(nonce);
                return Ok(next);
            }
        }
        let process = next.process(nonce);
        let Phase::PutGeneration { mut left, mut taken, .. } = process.phase.clone() else { return Ok(next) };
        (process.held[lane], taken[lane]) = (of, of);
        left &= left - 1;
        if left > 0 {
            process.phase = Phase::List { left, taken };
            return Ok(next);
        }
        let pairs: Vec<(LaneId, u64)> =
            (0..LANES).filter(|lane| taken[*lane] > 0).map(|lane| (lane_id(lane), taken[lane].into())).collect();
        match decide_seal(&pairs, CHAIN).filter(|_| self.shortcut != Shortcut::NoSeal) {
            Some(seal) => {
                let of = |lane| seal.lanes.iter().find(|(id, _)| *id == lane_id(lane)).map_or(0, |(_, of)| *of as u8);
                process.phase = Phase::PutSeal { taken, seal: std::array::from_fn(of) };
            }
            None => {
                process.phase = Phase::Run;
                next.note_taken(nonce, taken);
            }
        }
        Ok(next)
    }

    /// As `Chain::append`, one turn of its loop.
    pub(super) fn put_link(&self, world: &World, nonce: Nonce, link: &Link) -> Next {
        let mut next = world.clone();
        let n = next.process(nonce).next;
        let held = &next.process(nonce).held;
        let held: BTreeMap<LaneId, u64> =
            (0..LANES).filter(|lane| held[*lane] > 0).map(|lane| (lane_id(lane), held[lane].into())).collect();
        if usize::from(n) > world.links.len() {
            next.commit(link.clone(), self.bounds.brings_out)?;
            return Ok(self.after_commit(next, nonce, link));
        }
        let is_own = world.links[usize::from(n) - 1].nonce == nonce;
        let decided =
            match (decide_after_refused_put(&world.manifest(n.into()), &nonce_of(nonce), &held), self.shortcut) {
                (_, Shortcut::RefusalIsLostAck) => AfterRefusedPut::Committed,
                (AfterRefusedPut::Committed, Shortcut::LostAckIsFence) => AfterRefusedPut::ChainTaken,
                (AfterRefusedPut::Fenced(_), Shortcut::SealPassedOver) => AfterRefusedPut::TryNext,
                (AfterRefusedPut::ChainTaken, Shortcut::EpochPassedOver) => AfterRefusedPut::TryNext,
                (AfterRefusedPut::ChainTaken, Shortcut::PutOverwrites) => {
                    next.links[usize::from(n) - 1] = link.clone();
                    AfterRefusedPut::Committed
                }
                (decided, _) => decided,
            };
        match decided {
            AfterRefusedPut::Committed => Ok(self.after_commit(next, nonce, link)),
            AfterRefusedPut::TryNext => {
                let process = next.process(nonce);
                process.next += 1;
                if let Phase::PutEpoch(epoch) = &mut process.phase
                    && self.shortcut != Shortcut::CheckpointNotRenumbered
                {
                    epoch.renumber(n);
                }
                Ok(next)
            }
            AfterRefusedPut::Fenced(_) | AfterRefusedPut::ChainTaken if is_own => {
                Err(format!("process {nonce} ends because of link {n}, which is its own"))
            }
            AfterRefusedPut::Fenced(_) | AfterRefusedPut::ChainTaken => {
                next.end(nonce);
                Ok(next)
            }
        }
    }

    pub(super) fn after_commit(&self, mut next: World, nonce: Nonce, link: &Link) -> World {
        let process = next.process(nonce);
        let n = process.next;
        process.next += 1;
        let phase = std::mem::replace(&mut process.phase, Phase::Run);
        if let Phase::PutSeal { taken, .. } = phase {
            next.note_taken(nonce, taken);
        } else if let Body::Epoch(epoch) = &link.body {
            process.sections.clone_from(&epoch.sections);
            if epoch.checkpoint == n {
                process.checkpoint = n;
                process.raw_from = epoch.sections.clone().map(|section| section.state);
            }
            if self.bounds.brings_out {
                process.phase = Phase::Table { n, is_past: false };
            }
        }
        next
    }
}

fn generation(lane: usize, generation: u8, nonce: Nonce) -> Generation {
    Generation { lane: lane_id(lane), generation: generation.into(), chain: CHAIN.into(), nonce: nonce_of(nonce) }
}
