//! How far a slot has come and what of it is not in the tables yet, for whoever changes tables beside it.
//!
//! Reads only. A job that runs deletes links and objects that it needs no more, so what is gone is looked for again from the end
//! of the chain; what it says is true of the moment of the last look, and positions only grow.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use wattline_core::manifest::{LaneSection, Manifest, RuleProgress};

use crate::commit::app_id;
use crate::error::{Error, Result};
use crate::port::Store;
use crate::recovery::{parse_manifest, read_past};
use crate::verify::newest_epoch;

/// How often a chain is read that moves on meanwhile.
const LOOKS_MAX: u32 = 20;
/// Links that are followed in one look.
const LINKS_MAX: u32 = 64;

/// Where the newest epoch of a slot stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The job.
    pub job: String,
    /// The slot.
    pub slot: String,
    /// Number of the newest epoch.
    pub epoch: u64,
    /// Application id of the chain in Delta transactions.
    pub app_id: String,
    /// The tables to which the newest epoch adds files; only those of the newest may not be in their tables yet.
    pub adds_to: BTreeSet<String>,
    /// The lanes of the slot, those of the past too.
    pub lanes: Vec<LaneSection>,
    /// The rules, by fingerprint.
    pub rules: Vec<(String, RuleProgress)>,
    /// Rows that are published and in no file yet, by table.
    pub waiting: Vec<(String, RecordBatch)>,
    /// The input had ended and all that came of it is out: another run gives rows of new input alone.
    pub had_ended: bool,
}

/// Reads where a slot stands; `None` if it has committed nothing.
///
/// # Errors
/// If the store does not answer, or the end of the chain cannot be read.
pub async fn standing(store: &dyn Store, job: &str, slot: &str) -> Result<Option<Standing>> {
    let mut looks = 1;
    let past = loop {
        match read_past(store, slot).await {
            // A job that runs has deleted it, unless it is lost.
            Err(Error::BadManifest { .. } | Error::BadObject { .. }) if looks < LOOKS_MAX => looks += 1,
            read => break read?,
        }
    };
    let had_ended = past.had_ended();
    let Some(newest) = past.last_epoch else { return Ok(None) };
    let adds_to = newest.epoch().map(|epoch| epoch.adds.keys().cloned().collect()).unwrap_or_default();
    Ok(Some(Standing {
        job: job.to_owned(),
        slot: slot.to_owned(),
        epoch: newest.n,
        app_id: app_id(job, slot, &newest.incarnation),
        adds_to,
        lanes: past.lanes.into_values().map(|(section, _)| section).collect(),
        rules: past.rules.into_iter().collect(),
        waiting: past.pending,
        had_ended,
    }))
}

/// Which rules a slot runs, by its newest epoch.
///
/// A chain has the links of a day or so, and to list it takes long: that is done once, and from there it is followed link by link.
#[derive(Debug)]
pub struct RulesOfSlot {
    slot: String,
    read_to: u64,
    newest: Option<RulesLink>,
}

/// An epoch, and the rules that it was computed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesLink {
    /// Number of the link.
    pub n: u64,
    /// Revision of the rules, as [`rules_revision`](crate::rules_revision) has it.
    pub revision: String,
}

impl RulesOfSlot {
    /// Begins behind a link: what is before it does not count.
    #[must_use]
    pub fn behind(slot: &str, n: u64) -> Self {
        Self { slot: slot.to_owned(), read_to: n, newest: None }
    }

    /// Begins at the end of the chain.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn at_end(store: &dyn Store, slot: &str) -> Result<Self> {
        let newest = newest_epoch(store, slot).await?;
        let newest = newest.as_ref().and_then(link_of);
        Ok(Self { slot: slot.to_owned(), read_to: newest.as_ref().map_or(0, |link| link.n), newest })
    }

    /// The newest epoch.
    ///
    /// # Errors
    /// If the store does not answer, or a link cannot be read.
    pub async fn look(&mut self, store: &dyn Store) -> Result<Option<&RulesLink>> {
        for _ in 0..LINKS_MAX {
            let path = Manifest::path(&self.slot, self.read_to + 1);
            let Some(body) = store.get(&path).await? else { break };
            self.newest = link_of(&parse_manifest(&path, &body)?).or(self.newest.take());
            self.read_to += 1;
        }
        Ok(self.newest.as_ref())
    }
}

fn link_of(manifest: &Manifest) -> Option<RulesLink> {
    manifest.epoch().map(|epoch| RulesLink { n: manifest.n, revision: epoch.rules_revision.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use wattline_core::manifest::{Body, Epoch, FORMAT, Seal};

    use super::*;
    use crate::port::Put;

    /// A chain in memory, which counts how often it is listed.
    #[derive(Debug, Default)]
    struct Links {
        objects: Mutex<BTreeMap<String, Bytes>>,
        listed: Mutex<u32>,
    }

    impl Links {
        fn put(&self, n: u64, body: Body) {
            let manifest = Manifest {
                format: FORMAT,
                job: "j".into(),
                chain: "3".into(),
                incarnation: "i".into(),
                n,
                nonce: "me".into(),
                created_ms: 0,
                body,
            };
            let text = serde_json::to_vec(&manifest).expect("a manifest");
            self.objects.lock().expect("no panic").insert(Manifest::path("3", n), text.into());
        }

        fn epoch(&self, n: u64, revision: &str) {
            self.put(n, Body::Epoch(Box::new(Epoch { rules_revision: revision.into(), ..Epoch::default() })));
        }

        fn seal(&self, n: u64) {
            self.put(n, Body::Seal(Seal { lanes: Vec::new(), taken_by: "3".into() }));
        }
    }

    #[async_trait]
    impl Store for Links {
        async fn put_if_absent(&self, _path: &str, _body: Bytes) -> Result<Put> {
            Ok(Put::Exists)
        }

        async fn get(&self, path: &str) -> Result<Option<Bytes>> {
            Ok(self.objects.lock().expect("no panic").get(path).cloned())
        }

        async fn list(&self, folder: &str) -> Result<Vec<String>> {
            *self.listed.lock().expect("no panic") += 1;
            let names = self.objects.lock().expect("no panic").keys().cloned().collect::<Vec<_>>();
            Ok(names.into_iter().filter(|name| name.starts_with(folder)).collect())
        }

        async fn delete(&self, _path: &str) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_rules_of_a_slot_are_those_of_its_newest_epoch() {
        let links = Links::default();
        let link = |n: u64, revision: &str| Some(RulesLink { n, revision: revision.into() });
        let mut from_end = RulesOfSlot::at_end(&links, "3").await.expect("an answer");
        let listed = *links.listed.lock().expect("no panic");
        assert_eq!(from_end.look(&links).await.expect("an answer"), None);
        links.epoch(1, "old");
        links.epoch(2, "old");
        let mut behind = RulesOfSlot::behind("3", 2);
        assert_eq!(from_end.look(&links).await.expect("an answer").cloned(), link(2, "old"));
        assert_eq!(behind.look(&links).await.expect("an answer"), None, "that was before");
        links.seal(3);
        assert_eq!(behind.look(&links).await.expect("an answer"), None, "a seal runs nothing");
        links.epoch(4, "new");
        links.seal(5);
        for of in [&mut from_end, &mut behind] {
            assert_eq!(of.look(&links).await.expect("an answer").cloned(), link(4, "new"));
        }
        assert_eq!(*links.listed.lock().expect("no panic"), listed, "chains are long");
        let mut late = RulesOfSlot::at_end(&links, "3").await.expect("an answer");
        assert_eq!(late.look(&links).await.expect("an answer").cloned(), link(4, "new"));
    }
}
