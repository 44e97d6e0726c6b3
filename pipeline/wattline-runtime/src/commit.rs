//! The commit point: putting the next link of the chain, and taking lanes.
//!
//! The decisions are `wattline_core::chain`; this file performs them against a [`Store`]. A link that was put is looked after before
//! anything of it comes out: an owner that slept for longer than links are kept may find a number free that was used before
//! (see there). A death between the two leaves a link that others go on from, or one that lies before the chain and counts for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wattline_core::chain::{
    self, AfterPut, AfterRefusedPut, Generation, NextGeneration, Sight, decide_after_put, decide_after_refused_put,
    decide_generation, decide_seal,
};
use wattline_core::error::{Kind, Retry};
use wattline_core::manifest::{Body, Epoch, FORMAT, Manifest};
use wattline_core::record::LaneId;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::links::numbers_after;
use crate::port::{Put, Store};
use crate::progress::Progress;
use crate::recovery::parse_manifest;
use crate::retry::until_done;

/// Application id of a chain in Delta transactions.
pub fn app_id(job: &str, slot: &str, incarnation: &str) -> String {
    format!("wattline/{job}/{slot}/{incarnation}")
}

/// The end of the chain that this process owns.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) job: String,
    pub(crate) slot: String,
    pub(crate) incarnation: String,
    pub(crate) nonce: String,
    /// Number of the next link.
    pub(crate) next: u64,
    /// Number of the last link that this process has put.
    pub(crate) last_own: Option<u64>,
    /// Lanes held and their generations.
    pub(crate) held: BTreeMap<LaneId, u64>,
    /// Generations that were replaced before those of the last owner.
    pub(crate) replaced: Vec<String>,
}

impl Chain {
    /// Application id of this chain in Delta transactions.
    pub(crate) fn app_id(&self) -> String {
        app_id(&self.job, &self.slot, &self.incarnation)
    }

    /// What is remembered with the alerts of epoch `n`.
    pub(crate) fn marker(&self, n: u64) -> String {
        chain::marker(&self.job, &self.incarnation, &self.slot, n)
    }

    /// A name that no other object has.
    pub(crate) fn object_path(&self, folder: &str, extension: &str) -> String {
        format!("{folder}/{}/{:020}-{}.{extension}", self.slot, self.next, self.nonce)
    }

    /// Writes an object that the next link will name.
    pub(crate) async fn put_object(&self, path: &str, body: Bytes) -> Result<()> {
        until_done(&format!("writing `{path}`"), &self.progress, || async {
            // The name carries number and nonce: if it exists, an earlier try of this very write made it.
            self.store.put_if_absent(path, body.clone()).await.map(|_put| ())
        })
        .await
    }

    /// Commits an epoch; gives its number.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another process took the lanes or the chain.
    pub(crate) async fn commit(&mut self, epoch: Epoch) -> Result<u64> {
        self.append(Body::Epoch(Box::new(epoch))).await
    }

    async fn append(&mut self, mut body: Body) -> Result<u64> {
        loop {
            let manifest = Manifest {
                format: FORMAT,
                job: self.job.clone(),
                chain: self.slot.clone(),
                incarnation: self.incarnation.clone(),
                n: self.next,
                nonce: self.nonce.clone(),
                created_ms: self.clock.now_ms(),
                body: body.clone(),
            };
            let path = Manifest::path(&self.slot, self.next);
            let text = serde_json::to_vec(&manifest)
                .map_err(|e| Error::BadManifest { path: path.clone(), reason: e.to_string() })?;
            let text = Bytes::from(text);
            let what = format!("putting manifest `{path}`");
            let put = until_done(&what, &self.progress, || self.store.put_if_absent(&path, text.clone())).await?;
            let n = self.next;
            if put == Put::Created {
                return self.stand_behind(n).await;
            }
            // One that is gone again was deleted by others, who have gone on.
            let Some(winner) = self.find(n).await? else { return Err(self.fenced_off()) };
            match decide_after_refused_put(&winner, &self.nonce, &self.held) {
                AfterRefusedPut::Committed => return self.stand_behind(n).await,
                AfterRefusedPut::TryNext => {
                    self.next += 1;
                    chain::renumber(&mut body, n);
                }
                AfterRefusedPut::Fenced(lanes) => return Err(self.fenced(&lanes)),
                AfterRefusedPut::ChainTaken => return Err(self.fenced_off()),
            }
        }
    }

    /// Makes sure that link `n`, which this process has put, is the next one of the chain.
    async fn stand_behind(&mut self, n: u64) -> Result<u64> {
        let decision = match self.last_own {
            Some(last) => {
                let found = self.find(last).await?;
                decide_after_put(Sight::LastOwn(found.as_ref().map(|link| link.nonce.as_str())), &self.nonce)
            }
            None => {
                let (what, store) = (format!("looking behind link {n}"), self.store.as_ref());
                let behind = until_done(&what, &self.progress, || numbers_after(store, &self.slot, n, 1)).await?;
                decide_after_put(Sight::Behind(!behind.is_empty()), &self.nonce)
            }
        };
        match decision {
            AfterPut::Committed => (self.last_own, self.next) = (Some(n), n + 1),
            AfterPut::Overtaken => return Err(self.fenced_off()),
        }
        Ok(n)
    }

    /// A link of the chain, if it is there.
    async fn find(&self, n: u64) -> Result<Option<Manifest>> {
        let path = Manifest::path(&self.slot, n);
        let what = format!("reading manifest `{path}`");
        let body = until_done(&what, &self.progress, || self.store.get(&path)).await?;
        body.map(|body| parse_manifest(&path, &body)).transpose()
    }

    fn fenced_off(&self) -> Error {
        self.fenced(&self.held.keys().cloned().collect::<Vec<LaneId>>())
    }

    fn fenced(&self, lanes: &[LaneId]) -> Error {
        let shown: Vec<String> = lanes.iter().take(8).map(LaneId::to_string).collect();
        let more = if lanes.len() > shown.len() { " …" } else { "" };
        Error::Fenced { job: self.job.clone(), slot: self.slot.clone(), lanes: shown.join(", ") + more }
    }

    /// Takes lanes: a new generation of each, then one seal in the chain of their previous owner.
    ///
    /// # Errors
    /// If a lane belongs to another slot, or another process takes it at the same time.
    pub(crate) async fn take(&mut self, lanes: &[LaneId]) -> Result<()> {
        let mut taken = Vec::new();
        for lane in lanes {
            let what = format!("taking lane {lane}");
            let (generation, replaced) = until_done(&what, &self.progress, || self.next_generation(lane)).await?;
            let body =
                Generation { lane: lane.clone(), generation, chain: self.slot.clone(), nonce: self.nonce.clone() };
            let path = Generation::path(lane, generation);
            let text = serde_json::to_vec(&body)
                .map_err(|e| Error::BadManifest { path: path.clone(), reason: e.to_string() })?;
            let text = Bytes::from(text);
            let put = until_done(&what, &self.progress, || self.store.put_if_absent(&path, text.clone())).await?;
            if put == Put::Exists {
                let winner = until_done(&what, &self.progress, || self.read_generation(&path)).await?;
                if !chain::is_own_generation(&winner, &self.nonce) {
                    return Err(self.fenced(std::slice::from_ref(lane)));
                }
            }
            self.held.insert(lane.clone(), generation);
            self.replaced.extend(replaced);
            taken.push((lane.clone(), generation));
        }
        if let Some(seal) = decide_seal(&taken, &self.slot) {
            self.append(Body::Seal(seal)).await?;
        }
        Ok(())
    }

    /// The generation under which a lane is to be taken, and those that nobody asks for any more.
    async fn next_generation(&self, lane: &LaneId) -> Result<(u64, Vec<String>)> {
        let mut names = self.store.list(&format!("{}/", Generation::folder(lane))).await?;
        let newest = match names.pop() {
            Some(newest) => Some(self.read_generation(&newest).await?),
            None => None,
        };
        match decide_generation(newest.as_ref(), &self.slot) {
            NextGeneration::Take(generation) => Ok((generation, names)),
            NextGeneration::OfAnotherChain => Err(Error::Port {
                what: format!(
                    "lane {lane} belongs to slot `{}` of job `{}`, this process is slot `{}`: start it with that slot",
                    newest.map(|owner| owner.chain).unwrap_or_default(),
                    self.job,
                    self.slot
                ),
                kind: Kind::Invalid,
                retry: Retry::Never,
                source: "lane of another slot".into(),
            }),
        }
    }

    async fn read_generation(&self, path: &str) -> Result<Generation> {
        let bad = |reason: String| Error::BadManifest { path: path.to_owned(), reason };
        let body = self.store.get(path).await?.ok_or_else(|| bad("it does not exist".into()))?;
        serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))
    }
}
