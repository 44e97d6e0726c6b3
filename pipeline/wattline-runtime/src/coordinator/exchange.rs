//! The exchange between slots: see [`wattline_core::exchange`] for the protocol.
//!
//! In a job of several slots nothing that the lanes hand over stays with the slot that reads them: deltas and rows of alert rules go
//! into the outbox, also those for the slot itself, and come back by the inbox. Rows of table rules that need no state go into
//! their table at once, unless the rule is one that is given its past: its home says when they are results.
//!
//! ```text
//! lanes ─▶ tell() ─▶ outbox object ─▶ link n ─▶ roll forward: send ─▶ inbox of the home ─▶ take_message() ─▶ merge, fold
//! ```
//! What is final by the slot's own watermark is told each tick, everything else with a checkpoint. A slot that starts reads its lanes
//! again from the checkpoint on, and has partial state anew of which a part was told by the ticks since: all that was final by what
//! was told ([`SharedProgress::told_us`]). No record behind the last link can add to that, so the workers drop it before they
//! hand anything over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use wattline_core::exchange::{
    ArchivedLane, Close, FORMAT, Head, Judgement, Place, Positions, Reached, Sender, home_of,
};
use wattline_core::lane::watermark_us;
use wattline_core::late::LateStretches;
use wattline_core::manifest::{self, LaneSection, SharedProgress};
use wattline_core::record::LaneId;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::backfill::Piece;
use super::{Coordinator, RulePlan, StatePlan, held_bytes};
use crate::error::{Error, Result};
use crate::events;
use crate::frames;
use crate::port::{ExchangeSink, RuleRows, SlotMessage, StateDelta};
use crate::recovery::Past;
use crate::retry::until_done;
use crate::table;
use crate::threads::aside;

/// Number of the stream that an inbox feeds: none of the job's, none of the system's.
pub(crate) const INBOX: usize = usize::MAX;
/// Its name in manifests.
pub(crate) const INBOX_STREAM: &str = "_inbox";

const DIGEST_BYTES: usize = 32;

/// Where a slot stands among the others, and how it reaches them.
#[derive(Debug)]
pub struct ExchangePlan {
    /// Which slot of how many.
    pub place: Place,
    /// The lane by which messages come; one of the sources has it.
    pub inbox: LaneId,
    /// Where messages go.
    pub sink: std::sync::Arc<dyn ExchangeSink>,
    /// Rows in memory that make up one message, about, in bytes.
    pub message_bytes: usize,
}

/// What a worker found in the inbox, with its offset.
#[derive(Debug)]
pub(crate) struct InboxMessage {
    pub(crate) offset: i64,
    pub(crate) payload: Bytes,
}

/// What a slot has of the others.
pub(super) struct Exchange {
    plan: ExchangePlan,
    /// The home of each rule.
    homes: Vec<u32>,
    /// The homes of the rules of each state.
    homes_of_states: Vec<BTreeSet<u32>>,
    /// Rules whose results wait for closed files: those that late events correct, and those that share a state with one.
    awaits_files: Vec<bool>,
    /// By their number.
    senders: Vec<Sender>,
    /// Rows that no link has told yet, by the slot that they are for.
    outbox: BTreeMap<u32, Vec<(String, RecordBatch)>>,
    /// The last link that told something, and what it said of the slot.
    told: u64,
    told_positions: Option<Positions>,
    /// How many records the lanes had taken in then.
    told_records: i64,
    /// How many rules waited for slots when it was said last.
    told_awaited: usize,
    /// By stream, the time that this slot's lanes had reached when they last handed over what was final.
    least_us: Vec<i64>,
    /// Sources that have said which lanes they have, and how many there are, also when they have been stopped.
    heard: BTreeSet<usize>,
    sources: usize,
    /// The objects with the messages of the links from the checkpoint on.
    outbox_objects: Vec<String>,
    /// There are rules that are given their past, and may need a level link.
    needs_level: bool,
    /// The last link that told something was not level, or of another process.
    owes_level: bool,
    /// Streams whose rules had come to the end of the input before this process: nothing can be added to their results.
    ended_streams: BTreeSet<usize>,
}

impl Exchange {
    pub(super) fn new(
        plan: ExchangePlan,
        sources: usize,
        rules: &[RulePlan],
        states: &[StatePlan],
        past: &Past,
    ) -> Self {
        let of = plan.place.of;
        let homes: Vec<u32> = rules.iter().map(|rule| home_of(&rule.id, of)).collect();
        let homes_of = |state: &StatePlan| state.rules.iter().map(|rule| homes[*rule]).collect();
        let has_ended =
            |rule: &RulePlan| past.rules.get(&rule.fingerprint).is_some_and(|of| of.final_until_us == END_OF_TIME);
        let known = |slot: u32| past.senders.iter().find(|sender| sender.slot == slot).cloned();
        let senders = (0..of).map(|slot| known(slot).unwrap_or_else(|| Sender::new(slot))).collect();
        Self {
            homes_of_states: states.iter().map(homes_of).collect(),
            awaits_files: rules_that_await_files(rules, states, |rule| homes[rule] == plan.place.slot),
            homes,
            senders,
            outbox: BTreeMap::new(),
            told: past.told,
            told_positions: None,
            told_records: 0,
            told_awaited: 0,
            least_us: Vec::new(),
            heard: BTreeSet::new(),
            sources,
            outbox_objects: past.outboxes.clone(),
            needs_level: rules.iter().any(|rule| rule.backfill.is_some()),
            owes_level: true,
            ended_streams: rules.iter().filter(|rule| has_ended(rule)).flat_map(|rule| rule.streams.clone()).collect(),
            plan,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.plan.place
    }

    pub(super) fn slot(&self) -> u32 {
        self.plan.place.slot
    }

    /// Whether there is no more to come of a stream.
    pub(super) fn had_ended(&self, stream: usize) -> bool {
        self.ended_streams.contains(&stream)
    }

    pub(super) fn is_inbox(&self, lane: &LaneId) -> bool {
        self.plan.inbox == *lane
    }

    pub(super) fn is_home_of(&self, rule: usize) -> bool {
        self.homes[rule] == self.slot()
    }

    /// Whether results of a rule wait until what they were made of is in closed files.
    pub(super) fn awaits_files(&self, rule: usize) -> bool {
        self.awaits_files[rule]
    }

    /// What was told by each slot.
    pub(super) fn senders(&self) -> &[Sender] {
        &self.senders
    }

    fn push(&mut self, to: u32, name: String, batch: &RecordBatch) {
        self.outbox.entry(to).or_default().push((name, batch.clone()));
    }

    /// The lowest time that all slots have told of a stream.
    pub(super) fn least_us(&self, stream: &str, archived: bool) -> i64 {
        let told = |sender: &Sender| match archived {
            true => sender.positions.archived_us(stream),
            false => sender.positions.least_us(stream),
        };
        self.senders.iter().map(told).min().unwrap_or(BEFORE_TIME)
    }

    /// How far the other slots have come in a stream, each.
    pub(super) fn others_us(&self, stream: &str) -> impl Iterator<Item = i64> {
        let others = self.senders.iter().filter(|sender| sender.slot != self.slot());
        others.map(move |sender| sender.positions.least_us(stream))
    }

    /// Where lanes of all slots stand that have rows in closed files.
    pub(super) fn archived_lanes(&self) -> impl Iterator<Item = &ArchivedLane> {
        self.senders.iter().flat_map(|sender| &sender.positions.lanes)
    }

    /// What link `n` says.
    pub(super) fn section(&self, outbox: Option<String>, n: u64) -> manifest::Exchange {
        let told = if outbox.is_some() { n } else { self.told };
        manifest::Exchange { outbox, told, senders: self.senders.clone() }
    }

    pub(super) fn note_heard(&mut self, source: usize) {
        self.heard.insert(source);
    }
}

/// The messages of one link, before it has its number.
pub(super) struct Outgoing {
    parts: Vec<OutgoingPart>,
    positions: Positions,
}

/// What is told to one slot.
struct OutgoingPart {
    to: u32,
    rows: Vec<(String, RecordBatch)>,
    close: Close,
}

impl Coordinator {
    /// Hands over partial state: to the merged program, or to the homes of its rules. What is `kept` is an increment of the stored state.
    pub(super) fn take_delta(&mut self, delta: StateDelta, kept: bool) -> Result<()> {
        let Some(exchange) = &mut self.exchange else {
            self.merge(&delta)?;
            if kept {
                self.uncommitted.deltas.push(delta);
            }
            return Ok(());
        };
        let name = format!("state/{}/{}", delta.final_at_us, self.states[delta.state].fingerprint);
        for home in exchange.homes_of_states[delta.state].clone() {
            exchange.push(home, name.clone(), &delta.batch);
        }
        Ok(())
    }

    /// Hands over rows of rules without state: those of alert rules, and of rules that are given their past, go to their homes.
    pub(super) fn take_lane_rows(&mut self, rows: Vec<RuleRows>) -> Result<()> {
        let Some(exchange) = &mut self.exchange else { return self.take_rows(rows, false) };
        let is_told = |rule: &RulePlan| rule.alert.is_some() || rule.backfill.is_some();
        let (told, own): (Vec<_>, Vec<_>) = rows.into_iter().partition(|of| is_told(&self.rules[of.rule]));
        for RuleRows { rule, batch, identity } in told.iter().filter(|of| of.batch.num_rows() > 0) {
            // Rules of one text have one fingerprint, and alerts and tables of their own.
            let (home, RulePlan { id, fingerprint, alert, .. }) = (exchange.homes[*rule], &self.rules[*rule]);
            exchange.push(home, format!("rows/{fingerprint}/{id}"), batch);
            if let Some(identity) = identity.as_ref().filter(|_| alert.is_some()) {
                exchange.push(home, format!("identity/{fingerprint}/{id}"), identity);
            }
        }
        self.take_rows(own, false)
    }

    /// Before the workers are asked for what is final: up to here they will have told everything.
    pub(super) fn note_own_reached(&mut self) {
        let streams = 0..self.streams.len() + self.system.len();
        let least_us = streams.map(|stream| self.own_reached_us(stream)).collect();
        if let Some(exchange) = &mut self.exchange {
            exchange.least_us = least_us;
        }
    }

    /// Up to where this slot has handed over what it has of a rule.
    pub(super) fn handed_over_us(&self, rule: usize) -> i64 {
        let plan = &self.rules[rule];
        let least_us = self.exchange.as_ref().map(|of| plan.streams.iter().map(|stream| of.least_us[*stream]).min());
        watermark_us(least_us.flatten().unwrap_or(BEFORE_TIME), plan.delay_ms)
    }

    /// Where the lanes of this slot stand in each stream of the job, those of the system too.
    fn own_positions(&self, exchange: &Exchange, sections: &[LaneSection]) -> Positions {
        let streams = exchange.least_us.iter().enumerate().map(|(stream, least_us)| {
            let (name, least_us) = (self.name_of_stream(stream), *least_us);
            let of_stream = || sections.iter().filter(|section| section.stream == name);
            let archived = |section: &LaneSection| match section.ended && section.archive == section.published {
                true => END_OF_TIME,
                false => section.resume_reached_us,
            };
            // What the system says of itself is no matter of files.
            let archived_us = of_stream().map(archived).fold(least_us, i64::min);
            let most_us = of_stream().map(|section| section.reached_us).max();
            (name, Reached { least_us, archived_us, most_us: most_us.unwrap_or(BEFORE_TIME) })
        });
        let is_of_job = |section: &&LaneSection| section.stream != INBOX_STREAM;
        let lane = |section: &LaneSection| ArchivedLane {
            lane: section.lane.clone(),
            stream: section.stream.clone(),
            since: section.since,
            archive: section.archive,
        };
        Positions { streams: streams.collect(), lanes: sections.iter().filter(is_of_job).map(lane).collect() }
    }

    /// Whether the next link has something to tell.
    ///
    /// How far a slot has come is told with each tick in which its lanes brought something; a slot where all is silent tells it with its
    /// checkpoints.
    pub(super) fn has_to_tell(&self, checkpoint: bool) -> bool {
        let Some(exchange) = &self.exchange else { return false };
        // What the lanes handed over is told with the link that says so of them.
        if !exchange.outbox.is_empty() {
            return true;
        }
        let Some(told) = &exchange.told_positions else { return self.all_sources_heard() };
        if checkpoint && exchange.needs_level && exchange.owes_level && self.is_level() {
            return true;
        }
        let own = self.streams.len();
        let matters = |stream: usize| stream.checked_sub(own).is_none_or(|which| self.system[which].is_read());
        let has_come_on = |(stream, least_us): (usize, &i64)| {
            let is_told = *least_us <= told.least_us(&self.name_of_stream(stream));
            !is_told && (*least_us == END_OF_TIME || matters(stream))
        };
        let is_silent = exchange.told_records == self.records_taken();
        (checkpoint || !is_silent) && exchange.least_us.iter().enumerate().any(has_come_on)
    }

    /// Whether a checkpoint is level now: no lane reads again what was published before.
    fn is_level(&self) -> bool {
        let assigned = self.lanes.values().filter(|status| status.stream != INBOX);
        let dormant = self.dormant.values().map(|(section, _)| section);
        // A lane of the past that feeds no stream any more has nothing to read again.
        let feeds = |section: &&LaneSection| self.streams.iter().any(|stream| stream.lanes.matches(&section.lane));
        assigned.into_iter().all(|status| status.processed >= status.section.published)
            && dormant.filter(feeds).all(|section| section.archive >= section.published)
    }

    /// How many records the lanes of this slot have taken in, by their offsets.
    fn records_taken(&self) -> i64 {
        self.lanes.values().filter(|status| status.stream != INBOX).map(|status| status.processed).sum()
    }

    /// Takes out what this link is to tell, if it tells something.
    pub(super) fn outgoing(&mut self, sections: &[LaneSection], checkpoint: bool) -> Option<Outgoing> {
        let is_due = self.has_to_tell(checkpoint) || (checkpoint && self.has_archived(sections));
        if !is_due {
            return None;
        }
        let positions = self.own_positions(self.exchange.as_ref()?, sections);
        for rule in 0..self.rules.len() {
            let told_us = self.handed_over_us(rule);
            if let Some(shared) = &mut self.progress_of_rules[rule].shared {
                shared.told_us = shared.told_us.max(told_us);
            }
        }
        let late = if checkpoint { self.take_late() } else { Vec::new() };
        let (records, is_level) = (self.records_taken(), checkpoint && self.is_level());
        let exchange = self.exchange.as_mut()?;
        exchange.told_records = records;
        exchange.owes_level = !is_level;
        let introduces = exchange.told_positions.is_none();
        let mut parts = Vec::new();
        for to in 0..exchange.plan.place.of {
            let of_receiver = || (0..self.rules.len()).filter(|rule| exchange.homes[*rule] == to);
            let fingerprint = |rule: usize| self.rules[rule].fingerprint.clone();
            let active = |rule: usize| (fingerprint(rule), self.progress_of_rules[rule].active_from_us);
            let failed = |rule: usize| {
                let in_lanes = self.progress_of_rules[rule].quarantined.iter().filter(|q| q.lane.is_some());
                in_lanes.map(move |of| (fingerprint(rule), of.clone()))
            };
            let close = Close {
                positions: positions.clone(),
                rules: introduces.then(|| of_receiver().map(active).collect()),
                quarantined: of_receiver().flat_map(failed).collect(),
                late: late
                    .iter()
                    .filter(|(rule, _)| exchange.homes[*rule] == to)
                    .cloned()
                    .map(|(rule, late)| (fingerprint(rule), late))
                    .collect(),
                is_level,
            };
            let rows = exchange.outbox.remove(&to).unwrap_or_default();
            parts.push(OutgoingPart { to, rows, close });
        }
        exchange.outbox.clear();
        Some(Outgoing { parts, positions })
    }

    /// Whether rows of the lanes have come into closed files that the others do not know of.
    fn has_archived(&self, sections: &[LaneSection]) -> bool {
        let Some(told) = self.exchange.as_ref().and_then(|of| of.told_positions.as_ref()) else { return false };
        let known = |section: &LaneSection| told.lanes.iter().find(|of| of.lane == section.lane);
        let of_job = sections.iter().filter(|section| section.stream != INBOX_STREAM);
        of_job.into_iter().any(|section| known(section).is_none_or(|known| known.archive != section.archive))
    }

    fn take_late(&mut self) -> Vec<(usize, LateStretches)> {
        let take = |(rule, progress): (usize, &mut manifest::RuleProgress)| {
            let late = std::mem::take(&mut progress.shared.as_mut()?.late);
            (!late.is_empty()).then_some((rule, late))
        };
        self.progress_of_rules.iter_mut().enumerate().filter_map(take).collect()
    }

    /// Writes the messages of the next link into an object; gives its path.
    pub(super) async fn write_outbox(&mut self, outgoing: Outgoing) -> Result<String> {
        let Some(exchange) = &mut self.exchange else { return Ok(String::new()) };
        let (n, before) = (self.chain.next, exchange.told);
        let (from, most) = (exchange.slot(), exchange.plan.message_bytes);
        let incarnation = self.chain.incarnation.clone();
        exchange.told_positions = Some(outgoing.positions);
        let what = || "writing the outbox".to_owned();
        let written = aside(&*self.threads, what, move || {
            let mut messages = Vec::new();
            for OutgoingPart { to, rows, close } in outgoing.parts {
                let mut groups = in_groups(rows, most);
                let last = groups.len() - 1;
                for (part, rows) in groups.drain(..).enumerate() {
                    let head = Head {
                        format: FORMAT,
                        from,
                        incarnation: incarnation.clone(),
                        n,
                        part: u32::try_from(part).unwrap_or(u32::MAX),
                        before,
                        close: (part == last).then(|| close.clone()),
                    };
                    messages.push(SlotMessage { to, payload: write_message(&head, &rows)? });
                }
            }
            Ok::<_, Error>(write_messages(&messages))
        });
        let body = written.await??;
        let path = self.chain.object_path("outbox", "frames");
        self.chain.put_object(&path, body).await?;
        Ok(path)
    }

    /// Sends what a link tells.
    pub(super) async fn send_outbox(&mut self, epoch: &manifest::Epoch) -> Result<()> {
        let (Some(exchange), Some(said)) = (&mut self.exchange, &epoch.exchange) else { return Ok(()) };
        exchange.told = said.told;
        let Some(path) = &said.outbox else { return Ok(()) };
        let store = &self.chain.store;
        let body = until_done(&format!("reading `{path}`"), &self.progress, || store.get(path)).await?;
        let body = body.ok_or_else(|| Error::BadObject { path: path.clone(), reason: "it does not exist".into() })?;
        let messages = read_messages(path, &body)?;
        let sink = &exchange.plan.sink;
        until_done("telling the other slots", &self.progress, || sink.send(&messages)).await?;
        if !exchange.outbox_objects.contains(path) {
            exchange.outbox_objects.push(path.clone());
        }
        Ok(())
    }

    /// The objects of the links before this checkpoint, which were sent before it was put. They stay until then as others do: a
    /// backup copies what its moment needs, and that takes longer than a tick.
    pub(super) fn outboxes_to_delete(&mut self, epoch: &manifest::Epoch) -> Vec<String> {
        let Some(exchange) = &mut self.exchange else { return Vec::new() };
        let now = epoch.exchange.as_ref().and_then(|of| of.outbox.as_ref());
        let all = std::mem::take(&mut exchange.outbox_objects);
        let (kept, sent): (Vec<String>, Vec<String>) = all.into_iter().partition(|path| Some(path) == now);
        exchange.outbox_objects = kept;
        sent
    }

    /// What it means that the inbox cannot be read on; of a lane of a stream the error says it itself.
    pub(super) fn of_inbox(&self, error: Error) -> Error {
        let is_inbox = |lane: &LaneId| self.exchange.as_ref().is_some_and(|exchange| exchange.is_inbox(lane));
        match error {
            Error::OffsetLost { lane, wanted, first } if is_inbox(&lane) => {
                Error::InboxLost { lane, wanted, found: format!("the topic begins at {first}") }
            }
            Error::OffsetsUsedAgain { lane, wanted, found } if is_inbox(&lane) => {
                Error::InboxLost { lane, wanted, found }
            }
            error => error,
        }
    }

    /// Takes in what a worker has of the inbox.
    pub(super) fn take_inbox(&mut self, messages: &[InboxMessage]) -> Result<()> {
        let inbox = self.lanes.values().find(|status| status.stream == INBOX);
        let published = inbox.map_or(0, |status| status.replay.published);
        for message in messages {
            self.take_message(message, published)?;
            self.progress.buffered_bytes.fetch_sub(message.payload.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes in what the inbox brought. What `was_out` has come of it is out: of that, only state is taken.
    fn take_message(&mut self, message: &InboxMessage, published: i64) -> Result<()> {
        let was_out = message.offset < published;
        let (head, rows) = read_message(message.offset, &message.payload)?;
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        let Some(sender) = exchange.senders.iter_mut().find(|sender| sender.slot == head.from) else {
            return Err(bad_message(
                message.offset,
                format!("it comes from slot {}, which the job does not have", head.from),
            ));
        };
        match sender.judge(&head) {
            Judgement::Known => return Ok(()),
            Judgement::Gap => {
                return Err(Error::InboxLost {
                    lane: exchange.plan.inbox.clone(),
                    wanted: message.offset,
                    found: format!(
                        "slot {} tells there of its link {}, while what it told between link {} and that is not in the topic",
                        head.from, head.n, sender.n
                    ),
                });
            }
            Judgement::Take => sender.note(&head),
        }
        self.take_told_rows((message.offset, head.from), rows, was_out)?;
        if let Some(close) = head.close {
            self.take_close(head.from, &close, was_out);
        }
        Ok(())
    }

    fn take_told_rows(
        &mut self,
        (offset, from): (i64, u32),
        rows: Vec<(String, RecordBatch)>,
        was_out: bool,
    ) -> Result<()> {
        let mut of_rules: Vec<RuleRows> = Vec::new();
        for (name, batch) in rows {
            let parts: Vec<&str> = name.split('/').collect();
            match parts[..] {
                ["state", final_at_us, fingerprint] => {
                    let final_at_us = final_at_us.parse().map_err(|_e| bad_message(offset, format!("`{name}`")))?;
                    // Of a rule that this slot does not know (yet), nothing can be made.
                    let Some(state) = self.states.iter().position(|of| of.fingerprint == fingerprint) else { continue };
                    let bytes = held_bytes(&batch);
                    let delta = StateDelta { state, final_at_us, batch };
                    self.merge(&delta)?;
                    self.keep_told(from, &Piece::State(delta.clone()));
                    self.progress.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.uncommitted.letter_bytes += bytes;
                    self.uncommitted.deltas.push(delta);
                }
                ["rows", fingerprint, id] => {
                    let is_it = |of: &RulePlan| of.fingerprint == fingerprint && of.id == id;
                    let Some(rule) = self.rules.iter().position(is_it) else { continue };
                    of_rules.push(RuleRows { rule, batch, identity: None });
                }
                // It comes right after its rows.
                ["identity", fingerprint, id] => {
                    let is_it = |of: &RulePlan| of.fingerprint == fingerprint && of.id == id;
                    if let Some(rows) = of_rules.last_mut().filter(|of| is_it(&self.rules[of.rule])) {
                        rows.identity = Some(batch);
                    }
                }
                _ => return Err(bad_message(offset, format!("it holds `{name}`, which is nothing that slots tell"))),
            }
        }
        // Of a rule that waits for its past nothing was out.
        of_rules.iter().for_each(|rows| self.keep_told(from, &Piece::Rows(rows.clone())));
        if was_out { Ok(()) } else { self.take_rows(of_rules, false) }
    }

    fn take_close(&mut self, from: u32, close: &Close, was_out: bool) {
        let known = |fingerprint: &str| {
            let rules = self.rules.iter().enumerate();
            rules.filter(|(_, rule)| rule.fingerprint == fingerprint).map(|(rule, _)| rule).collect::<Vec<_>>()
        };
        let failed: Vec<_> =
            close.quarantined.iter().flat_map(|(of, q)| known(of).into_iter().map(move |rule| (rule, q))).collect();
        let late: Vec<_> =
            close.late.iter().flat_map(|(of, late)| known(of).into_iter().map(move |rule| (rule, late))).collect();
        if let Some(rules) = &close.rules {
            for rule in (0..self.rules.len()).filter(|rule| !self.is_elsewhere(*rule)).collect::<Vec<_>>() {
                self.note_introduced(rule, from, rules.get(&self.rules[rule].fingerprint).copied());
            }
        }
        for (rule, quarantine) in failed {
            let quarantined = &mut self.progress_of_rules[rule].quarantined;
            if !quarantined.iter().any(|known| known.lane == quarantine.lane) {
                quarantined.push(quarantine.clone());
            }
        }
        if !was_out {
            for (rule, late) in late {
                let joins_us = self.rules[rule].joins_us();
                self.progress_of_rules[rule].late.add_all(late, joins_us);
            }
        }
        self.note_told(from, close);
    }

    /// A slot has said which rules it runs. One that does not run the rule is waited for; when all run it, it begins.
    fn note_introduced(&mut self, rule: usize, from: u32, from_us: Option<i64>) {
        let progress = &mut self.progress_of_rules[rule];
        let Some(shared) = &mut progress.shared else { return };
        let awaited = shared.awaits.iter().position(|slot| *slot == from);
        match (awaited, from_us) {
            (None, None) => shared.awaits.push(from),
            (Some(at), Some(from_us)) => {
                shared.awaits.remove(at);
                progress.active_from_us = progress.active_from_us.max(from_us);
                let begins = shared.awaits.is_empty();
                let began_us = self.began_before_us(rule);
                // One that waits begins with its past.
                if begins && began_us != BEFORE_TIME && !self.waits(rule) {
                    self.final_program.leave_out(rule, began_us);
                }
            }
            (None, Some(_)) | (Some(_), None) => {}
        }
    }

    /// All lanes of this slot have ended: tells the others so, and goes on until all have nothing more to tell. The streams of the
    /// system end one after the other, as a rule over one may fail and add to the next.
    pub(super) async fn all_slots_ended(&mut self) -> Result<bool> {
        if self.exchange.is_none() {
            return Ok(true);
        }
        let own = self.streams.len();
        self.tick(true, false).await?;
        for (which, end) in (own..own + self.system.len()).enumerate() {
            if !self.have_all_ended(0..end) {
                return Ok(false);
            }
            self.system[which].end();
        }
        Ok(self.have_all_ended(0..own + self.system.len()) && self.know_all_pasts())
    }

    /// Whether all slots have come to the end in these streams.
    pub(super) fn have_all_ended(&self, streams: std::ops::Range<usize>) -> bool {
        let Some(exchange) = &self.exchange else { return true };
        let names: Vec<String> = streams.map(|stream| self.name_of_stream(stream)).collect();
        exchange.senders.iter().all(|sender| sender.positions.has_ended(names.iter().map(String::as_str)))
    }

    pub(super) fn name_of_stream(&self, stream: usize) -> String {
        match self.streams.get(stream) {
            Some(plan) => plan.name.clone(),
            None => table::system_streams()[stream - self.streams.len()].name.to_owned(),
        }
    }

    /// Says which rules wait for slots; at a checkpoint, so that it is not said of what begins at once.
    pub(super) fn note_awaited_slots(&mut self) {
        let shared = |rule: &usize| self.progress_of_rules[*rule].shared.as_ref();
        let waiting: Vec<usize> = (0..self.rules.len()).filter(|rule| self.awaits_slots(*rule)).collect();
        let told = self.exchange.as_mut().map(|exchange| std::mem::replace(&mut exchange.told_awaited, waiting.len()));
        if waiting.is_empty() || told == Some(waiting.len()) {
            return;
        }
        let rules: Vec<&str> = waiting.iter().map(|rule| self.rules[*rule].id.as_str()).collect();
        let slots: BTreeSet<u32> = waiting.iter().filter_map(shared).flat_map(|of| of.awaits.iter().copied()).collect();
        events::SlotsAwaited { rules: &rules, slots: &slots.into_iter().collect::<Vec<_>>() }.emit();
    }

    /// Whether every source has said which lanes it has.
    pub(super) fn all_sources_heard(&self) -> bool {
        self.exchange.as_ref().is_none_or(|exchange| exchange.heard.len() == exchange.sources)
    }
}

/// A state has one watermark for all its rules, and a rule one for all its states.
fn rules_that_await_files(rules: &[RulePlan], states: &[StatePlan], is_here: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut awaits: Vec<bool> = rules.iter().map(|rule| rule.correction.is_some()).collect();
    loop {
        let before = awaits.clone();
        for state in states {
            let here = || state.rules.iter().copied().filter(|rule| is_here(*rule));
            if here().any(|rule| awaits[rule]) {
                here().for_each(|rule| awaits[rule] = true);
            }
        }
        if awaits == before {
            return awaits;
        }
    }
}

/// What a rule begins with that this slot did not have: its home waits for the slots that do not run it yet.
pub(super) fn first_progress(place: Place, rule: &RulePlan, senders: &[Sender]) -> SharedProgress {
    let runs = |slot: u32| senders.iter().any(|of| of.slot == slot && of.rules.contains_key(&rule.fingerprint));
    let is_home = place.is_home_of(&rule.id);
    let awaits = (0..place.of).filter(|slot| is_home && !runs(*slot)).collect();
    SharedProgress { told_us: BEFORE_TIME, late: LateStretches::default(), awaits, awaits_past: false }
}

/// What the slots had told of a rule before it came to its home was left alone: the highest time that they had reached by then.
pub(super) fn told_before_us(rule: &RulePlan, names: &[String], senders: &[Sender]) -> Option<i64> {
    let from_us = |sender: &Sender| sender.rules.get(&rule.fingerprint).copied();
    let reached =
        senders.iter().flat_map(|sender| rule.streams.iter().map(|stream| sender.positions.most_us(&names[*stream])));
    reached.chain(senders.iter().filter_map(from_us)).max()
}

/// Divides rows into messages of about this size, at least one. An identity stays with its rows.
fn in_groups(rows: Vec<(String, RecordBatch)>, most_bytes: usize) -> Vec<Vec<(String, RecordBatch)>> {
    let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut rows = rows.into_iter().peekable();
    while let Some((name, batch)) = rows.next() {
        let identity = rows.next_if(|(next, _)| next.starts_with("identity/"));
        let each = |batch: &RecordBatch| batch.get_array_memory_size();
        let all_bytes = each(&batch) + identity.iter().map(|(_, batch)| each(batch)).sum::<usize>();
        let pieces = all_bytes.div_ceil(most_bytes.max(1)).clamp(1, batch.num_rows().max(1));
        let piece_rows = batch.num_rows().div_ceil(pieces).max(1);
        for from in (0..batch.num_rows()).step_by(piece_rows) {
            let count = piece_rows.min(batch.num_rows() - from);
            if bytes > 0 && bytes + all_bytes / pieces > most_bytes {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += all_bytes / pieces;
            group.push((name.clone(), batch.slice(from, count)));
            group.extend(identity.iter().map(|(name, batch)| (name.clone(), batch.slice(from, count))));
        }
    }
    groups.push(group);
    groups
}

fn write_message(head: &Head, rows: &[(String, RecordBatch)]) -> Result<Bytes> {
    let head = serde_json::to_vec(head).map_err(|e| bad_message(-1, e.to_string()))?;
    let rows = frames::write(rows)?;
    let mut out = Vec::with_capacity(4 + head.len() + rows.len());
    out.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&rows);
    Ok(Bytes::from(out))
}

/// The format of a message, which all versions say.
#[derive(serde::Deserialize)]
struct AnyFormat {
    format: u32,
}

type Message = (Head, Vec<(String, RecordBatch)>);

fn read_message(offset: i64, payload: &[u8]) -> Result<Message> {
    let bad = |reason: &str| bad_message(offset, reason.to_owned());
    let (len, rest) = payload.split_first_chunk::<4>().ok_or_else(|| bad("it is too short"))?;
    let (head, rows) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(|| bad("it is cut off"))?;
    let AnyFormat { format } = serde_json::from_slice(head).map_err(|e| bad_message(offset, e.to_string()))?;
    if format != FORMAT {
        return Err(bad_message(offset, format!("its format is {format}, this version of wattline reads {FORMAT}")));
    }
    let head = serde_json::from_slice(head).map_err(|e| bad_message(offset, e.to_string()))?;
    Ok((head, frames::read(&format!("message {offset} of the inbox"), &Bytes::copy_from_slice(rows))?))
}

fn bad_message(offset: i64, reason: String) -> Error {
    Error::BadObject { path: format!("message {offset} of the inbox"), reason }
}

/// One object for all messages of a link: receiver, length and bytes of each, and a digest at the end.
fn write_messages(messages: &[SlotMessage]) -> Bytes {
    let mut out = Vec::new();
    for SlotMessage { to, payload } in messages {
        out.extend_from_slice(&to.to_le_bytes());
        out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(payload);
    }
    let digest = Sha256::digest(&out);
    out.extend_from_slice(&digest);
    Bytes::from(out)
}

pub(crate) fn read_messages(path: &str, object: &Bytes) -> Result<Vec<SlotMessage>> {
    let bad = |reason: &str| Error::BadObject { path: path.to_owned(), reason: reason.to_owned() };
    let content_len = object.len().checked_sub(DIGEST_BYTES).ok_or_else(|| bad("it is too short"))?;
    if Sha256::digest(&object[..content_len]).as_slice() != &object[content_len..] {
        return Err(bad("its checksum does not match"));
    }
    let mut messages = Vec::new();
    let mut at = 0;
    while at < content_len {
        let (to, rest) = object[at..content_len].split_first_chunk::<4>().ok_or_else(|| bad("a message is cut off"))?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("a message is cut off"))?;
        let (to, len) = (u32::from_le_bytes(*to), u32::from_le_bytes(*len) as usize);
        if rest.len() < len {
            return Err(bad("a message is cut off"));
        }
        messages.push(SlotMessage { to, payload: object.slice(at + 8..at + 8 + len) });
        at += 8 + len;
    }
    Ok(messages)
}

#[cfg(test)]
mod tests;
