//! The end of a chain as a backup copies it, and as a restore puts it back.
//!
//! A backup is what a crash would have left at one moment, without what nothing names. The moment is told by the links: the newest
//! link of each chain, all of them the newest at the same time ([`newest_link`] is asked again until no chain has moved). Of a chain
//! the next start needs the links from the newest checkpoint on and the objects that they name ([`read_end`]), and besides the files
//! that the newest epoch has not brought into its tables yet. All links before that one were brought out before it was put.
//!
//! What the job commits after the moment, a restored job commits again, under the same numbers and with what it then finds. Two things
//! outside remember numbers: the tables (`txn`) and the alert topic (the marker). So a restored chain gets an identity of its own
//! ([`reincarnated`]): a number of the chain that was copied, in a table or in the marker, says nothing of it. Its tables are told
//! under the new name what they already have; then the next start finishes what the newest epoch promised, as after any crash. The
//! marker it finds is not its own, so it publishes the alerts of that epoch again, with the same ids.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wattline_core::exchange::{Cut, Sender};
use wattline_core::manifest::{AddedFile, Body, Epoch, FORMAT, Manifest, Restored};

pub use crate::commit::app_id;
use crate::error::{Error, Result};
use crate::links::newest_number;
use crate::port::Store;
use crate::recovery::parse_manifest;
use crate::verify::note_objects;

/// What the next start needs of a chain, if a given link is its newest.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainEnd {
    /// The job.
    pub job: String,
    /// The slot.
    pub slot: String,
    /// Identity of the chain.
    pub incarnation: String,
    /// Number of the newest link.
    pub last_link: u64,
    /// Number of the newest epoch, 0 if there is none.
    pub last_epoch: u64,
    /// The checkpoint that it builds on, 0 if there is none.
    pub checkpoint: u64,
    /// In a job of several slots the last link that told the others something, 0 if none did.
    pub told: u64,
    /// Paths of the links from that checkpoint on, below the job's folder.
    pub links: Vec<String>,
    /// Paths of the objects that they name, the oldest first.
    pub objects: Vec<String>,
    /// Files that the newest epoch adds, by table; a table may have them already.
    pub adds: BTreeMap<String, Vec<AddedFile>>,
}

impl ChainEnd {
    /// Application id of the chain in Delta transactions.
    pub fn app_id(&self) -> String {
        app_id(&self.job, &self.slot, &self.incarnation)
    }

    /// How far the chain goes.
    pub fn cut(&self) -> CutChain {
        CutChain { slot: self.slot.clone(), incarnation: self.incarnation.clone(), told: self.told }
    }
}

/// Number of the newest link of a chain, 0 if it has none. Of a chain whose link `known` was there only those behind it are
/// looked for.
///
/// # Errors
/// If the store does not answer.
pub async fn newest_link(store: &dyn Store, slot: &str, known: Option<u64>) -> Result<u64> {
    let mut newest = match known {
        Some(known) => known,
        None => newest_number(store, slot).await?,
    };
    while newest > 0 && store.get(&Manifest::path(slot, newest + 1)).await?.is_some() {
        newest += 1;
    }
    Ok(newest)
}

/// What the next start needs of a chain whose newest link is `last_link`; `None` if a link that it needs is not there, since
/// the job has deleted it meanwhile, or since it is lost.
///
/// # Errors
/// If the store does not answer, or a link cannot be read.
pub async fn read_end(store: &dyn Store, job: &str, slot: &str, last_link: u64) -> Result<Option<ChainEnd>> {
    let mut newest_first: Vec<Manifest> = Vec::new();
    let mut newest: Option<(u64, u64)> = None;
    let mut n = last_link;
    while n >= newest.map_or(1, |(_, checkpoint)| checkpoint.max(1)) {
        let path = Manifest::path(slot, n);
        let Some(body) = store.get(&path).await? else { return Ok(None) };
        let manifest = parse_manifest(&path, &body)?;
        if let (None, Some(epoch)) = (newest, manifest.epoch()) {
            newest = Some((n, epoch.checkpoint));
        }
        newest_first.push(manifest);
        n -= 1;
    }
    let (last_epoch, checkpoint) = newest.unwrap_or_default();
    let epochs: Vec<(u64, &Epoch)> =
        newest_first.iter().rev().filter_map(|manifest| Some((manifest.n, manifest.epoch()?))).collect();
    let mut objects = Vec::new();
    epochs.iter().for_each(|(n, epoch)| note_objects(&mut objects, *n, epoch));
    Ok(Some(ChainEnd {
        job: job.to_owned(),
        slot: slot.to_owned(),
        incarnation: newest_first.first().map(|manifest| manifest.incarnation.clone()).unwrap_or_default(),
        last_link,
        last_epoch,
        checkpoint,
        told: epochs.last().and_then(|(_, epoch)| epoch.exchange.as_ref()).map_or(0, |exchange| exchange.told),
        links: newest_first.iter().rev().map(|manifest| Manifest::path(slot, manifest.n)).collect(),
        adds: epochs.last().map(|(_, epoch)| epoch.adds.clone()).unwrap_or_default(),
        objects,
    }))
}

/// A chain as a backup has it: its slot, its identity then, and up to where it told the others something. A link that comes to lie
/// behind a seal has told under the number that it was made for, so this is not the number of the last link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutChain {
    /// The slot.
    pub slot: String,
    /// Its identity.
    pub incarnation: String,
    /// The last link that told something, 0 if none did.
    pub told: u64,
}

/// Another link of a slot that had no checkpoint when the backup was made, behind its `last_link`, and its path: it says under which
/// identity the chain goes on, and how far the others go, by `chains`. So the others know the chain, and what they told behind the
/// backup is not taken in. A chain that has such a link ([`Slots::is_restored`]) needs no other.
///
/// # Errors
/// If it cannot be written as text.
pub fn restored_link(
    job: &str,
    (slot, last_link): (&str, u64),
    (incarnation, created_ms): (&str, i64),
    (slots, chains): (&BTreeSet<u32>, &[CutChain]),
) -> Result<(String, Bytes)> {
    let n = last_link + 1;
    let path = Manifest::path(slot, n);
    let mut senders: Vec<Sender> = slots.iter().copied().map(Sender::new).collect();
    cut_off(&mut senders, incarnation, chains);
    let manifest = Manifest {
        format: FORMAT,
        job: job.to_owned(),
        chain: slot.to_owned(),
        incarnation: incarnation.to_owned(),
        n,
        nonce: incarnation.to_owned(),
        created_ms,
        body: Body::Restored(Restored { senders }),
    };
    let text = serde_json::to_vec(&manifest);
    let text = text.map_err(|e| Error::BadManifest { path: path.clone(), reason: e.to_string() })?;
    Ok((path, text.into()))
}

/// What a link says of the slots of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// Those that it knows, its own among them; none in a job of one slot.
    pub known: BTreeSet<u32>,
    /// It is a [`restored_link`].
    pub is_restored: bool,
}

/// Reads the link in `body`; `path` is for messages.
///
/// # Errors
/// If it cannot be read.
pub fn read_slots(path: &str, body: &[u8]) -> Result<Slots> {
    let mut manifest = parse_manifest(path, body)?;
    let known = senders_of(&mut manifest.body).into_iter().flatten().map(|sender| sender.slot).collect();
    Ok(Slots { known, is_restored: matches!(manifest.body, Body::Restored(_)) })
}

/// What a link says of the slots.
fn senders_of(body: &mut Body) -> Option<&mut Vec<Sender>> {
    match body {
        Body::Epoch(epoch) => epoch.exchange.as_mut().map(|exchange| &mut exchange.senders),
        Body::Restored(restored) => Some(&mut restored.senders),
        Body::Seal(_) => None,
    }
}

/// Tells what was heard of the slots that they go on under another identity, from where a backup has them.
fn cut_off(senders: &mut [Sender], incarnation: &str, chains: &[CutChain]) {
    for sender in senders {
        // A slot without a chain had told nothing yet.
        let chain = chains.iter().find(|chain| chain.slot == sender.slot.to_string());
        let (of, last_link) = chain.map_or(("", 0), |chain| (chain.incarnation.as_str(), chain.told));
        sender.cut_off(of, Cut { last_link, incarnation: incarnation.to_owned() });
    }
}

/// The link in `body` as one of a chain with another identity; `path` is for messages. In a job of several slots it knows of the
/// other `chains` how far they go: what they told behind that is said anew.
///
/// # Errors
/// If it cannot be read.
pub fn reincarnated(path: &str, body: &[u8], incarnation: &str, chains: &[CutChain]) -> Result<Bytes> {
    let mut manifest = parse_manifest(path, body)?;
    incarnation.clone_into(&mut manifest.incarnation);
    cut_off(senders_of(&mut manifest.body).map_or(&mut [], |senders| senders), incarnation, chains);
    let text = serde_json::to_vec(&manifest);
    text.map(Bytes::from).map_err(|e| Error::BadManifest { path: path.to_owned(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use wattline_core::manifest::Seal;

    use super::*;
    use crate::port::Put;
    /// Objects in memory.
    #[derive(Debug, Default)]
    struct Objects(Mutex<BTreeMap<String, Bytes>>);

    #[async_trait]
    impl Store for Objects {
        async fn put_if_absent(&self, path: &str, body: Bytes) -> Result<Put> {
            self.0.lock().expect("no panic").insert(path.to_owned(), body);
            Ok(Put::Created)
        }

        async fn get(&self, path: &str) -> Result<Option<Bytes>> {
            Ok(self.0.lock().expect("no panic").get(path).cloned())
        }

        async fn list(&self, folder: &str) -> Result<Vec<String>> {
            let names = self.0.lock().expect("no panic").keys().cloned().collect::<Vec<_>>();
            Ok(names.into_iter().filter(|name| name.starts_with(folder)).collect())
        }

        async fn delete(&self, path: &str) -> Result<()> {
            self.0.lock().expect("no panic").remove(path);
            Ok(())
        }
    }

    impl Objects {
        fn link(&self, n: u64, body: Body) {
            let manifest = Manifest {
                format: FORMAT,
                job: "j".into(),
                chain: "0".into(),
                incarnation: "i".into(),
                n,
                nonce: "me".into(),
                created_ms: 0,
                body,
            };
            let text = serde_json::to_vec(&manifest).expect("a manifest");
            self.0.lock().expect("no panic").insert(Manifest::path("0", n), text.into());
        }

        fn epoch(&self, n: u64, checkpoint: u64, object: &str) {
            let (mut epoch, object) = (Epoch { checkpoint, ..Epoch::default() }, Some(object.to_owned()));
            match checkpoint == n {
                true => epoch.alert_state_object = object,
                false => epoch.rows_object = object,
            }
            self.link(n, Body::Epoch(Box::new(epoch)));
        }
    }

    fn chain() -> Objects {
        let objects = Objects::default();
        objects.epoch(1, 1, "a");
        objects.epoch(2, 1, "b");
        objects.epoch(3, 3, "c");
        objects.epoch(4, 3, "d");
        objects.link(5, Body::Seal(Seal { lanes: Vec::new(), taken_by: "0".into() }));
        objects
    }

    #[tokio::test]
    async fn the_end_of_a_chain_begins_with_the_checkpoint_of_its_newest_epoch() {
        let objects = chain();
        assert_eq!(newest_link(&objects, "0", None).await.expect("an answer"), 5);
        assert_eq!(newest_link(&objects, "0", Some(3)).await.expect("an answer"), 5);
        assert_eq!(newest_link(&objects, "1", None).await.expect("an answer"), 0);
        let end = read_end(&objects, "j", "0", 5).await.expect("an answer").expect("all is there");
        assert_eq!((end.last_link, end.last_epoch, end.checkpoint), (5, 4, 3));
        assert_eq!(end.links, [3, 4, 5].map(|n| Manifest::path("0", n)));
        assert_eq!((end.objects, end.incarnation.as_str()), (vec!["c".to_owned(), "d".to_owned()], "i"));
        // As of an older link, whatever came behind it.
        let end = read_end(&objects, "j", "0", 2).await.expect("an answer").expect("all is there");
        assert_eq!((end.last_epoch, end.checkpoint, end.objects), (2, 1, vec!["a".to_owned(), "b".to_owned()]));
        objects.delete(&Manifest::path("0", 3)).await.expect("an answer");
        assert_eq!(read_end(&objects, "j", "0", 5).await.expect("an answer"), None);
    }

    #[tokio::test]
    async fn a_chain_without_an_epoch_or_a_checkpoint_is_needed_from_its_first_link() {
        let objects = Objects::default();
        objects.link(1, Body::Seal(Seal { lanes: Vec::new(), taken_by: "0".into() }));
        let end = read_end(&objects, "j", "0", 1).await.expect("an answer").expect("all is there");
        assert_eq!((end.last_epoch, end.links.len()), (0, 1));
        objects.epoch(2, 0, "b");
        let end = read_end(&objects, "j", "0", 2).await.expect("an answer").expect("all is there");
        assert_eq!((end.last_epoch, end.checkpoint, end.links.len()), (2, 0, 2));
    }

    #[test]
    fn a_link_of_a_new_identity_says_the_same_of_all_else() {
        let objects = chain();
        let path = Manifest::path("0", 4);
        let body = objects.0.lock().expect("no panic")[&path].clone();
        let (before, after) = (parse_manifest(&path, &body), reincarnated(&path, &body, "new", &[]).expect("a link"));
        let after = parse_manifest(&path, &after).expect("a link");
        assert_eq!(after, Manifest { incarnation: "new".into(), ..before.expect("a link") });
        let other = format!("{{\"format\":{}}}", FORMAT + 1);
        assert!(reincarnated(&path, other.as_bytes(), "new", &[]).is_err());
    }
}
