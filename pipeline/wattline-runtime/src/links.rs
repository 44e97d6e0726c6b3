//! Finding links by their numbers without going through a chain, which keeps a week of them or more.
//!
//! Names sort by number, and a store lists what comes after a name, in order or not. So the newest link is known for certain once
//! everything after some number was listed and is not more than one answer holds; only where to begin is a guess:
//!
//! ```text
//! names of the stored objects say for which link they were written ─▶ h; list what comes after h - 2 ─▶ a few links: the last one is it
//! nothing comes after it (objects of a link that was never put)    ─▶ begin farther back, twice as far each time
//! more than one answer holds (links that name no objects)          ─▶ look farther on, twice as far each time, then halve
//! ```
//! A wrong guess costs requests and nothing else. Deleted or lost links do no harm: what is asked is never whether a link is there,
//! but whether any is behind a number.

use futures::future::try_join_all;
use wattline_core::leftover::{OBJECT_FOLDERS, written_for};
use wattline_core::manifest::Manifest;

use crate::error::Result;
use crate::port::Store;

/// Links that are asked for at once: as many as an S3 service lists with one request.
pub(crate) const PAGE: usize = 1_000;
/// An object may be of a link that was not put, and be the only one behind the newest link.
const HINT_MARGIN: u64 = 2;

/// The number in the name of a link.
pub(crate) fn number_of(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
}

/// Numbers of the first links of a chain behind link `after`, in order.
pub(crate) async fn numbers_after(store: &dyn Store, chain: &str, after: u64, at_most: usize) -> Result<Vec<u64>> {
    let names = store.list_after(&format!("chains/{chain}/"), &Manifest::path(chain, after), at_most).await?;
    Ok(names.iter().filter_map(|name| number_of(name)).collect())
}

/// Number of the newest link of a chain, 0 if it has none.
pub(crate) async fn newest_number(store: &dyn Store, chain: &str) -> Result<u64> {
    let mut from = hint(store, chain).await?.saturating_sub(HINT_MARGIN);
    let mut back = PAGE as u64;
    loop {
        if let Some(newest) = newest_after(store, chain, from).await? {
            return Ok(newest);
        }
        if from == 0 {
            return Ok(0);
        }
        from = from.saturating_sub(back);
        back = back.saturating_mul(2);
    }
}

/// The highest number for which an object of the slot was written.
async fn hint(store: &dyn Store, slot: &str) -> Result<u64> {
    let folders = OBJECT_FOLDERS.map(|folder| format!("{folder}/{slot}/"));
    let names = try_join_all(folders.iter().map(|folder| store.list(folder))).await?;
    Ok(names.iter().flatten().filter_map(|name| written_for(name)).map(|of| of.n).max().unwrap_or_default())
}

/// The newest link behind a number, if there is one.
async fn newest_after(store: &dyn Store, chain: &str, after: u64) -> Result<Option<u64>> {
    let (mut from, mut step) = (after, PAGE as u64);
    // A link that is there, and a number behind which there is none.
    let (mut newest, mut none_behind): (Option<u64>, Option<u64>) = (None, None);
    loop {
        let page = numbers_after(store, chain, from, PAGE).await?;
        match page.iter().max() {
            Some(last) if page.len() < PAGE => return Ok(Some(*last)),
            Some(last) => newest = Some(*last),
            None => none_behind = Some(from),
        }
        let Some(known) = newest else { return Ok(None) };
        from = match none_behind {
            Some(none_behind) if none_behind <= known => return Ok(newest),
            Some(none_behind) => known + (none_behind - known) / 2,
            None => {
                step = step.saturating_mul(2);
                known.saturating_add(step)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::port::Put;

    /// Names, and how often they were listed.
    #[derive(Debug, Default)]
    struct Names {
        names: BTreeSet<String>,
        listed: AtomicUsize,
    }

    #[async_trait]
    impl Store for Names {
        async fn put_if_absent(&self, _path: &str, _body: Bytes) -> Result<Put> {
            unreachable!("it is read only")
        }

        async fn get(&self, _path: &str) -> Result<Option<Bytes>> {
            unreachable!("names are enough")
        }

        async fn list(&self, folder: &str) -> Result<Vec<String>> {
            Ok(self.names.iter().filter(|name| name.starts_with(folder)).cloned().collect())
        }

        async fn list_after(&self, folder: &str, after: &str, at_most: usize) -> Result<Vec<String>> {
            self.listed.fetch_add(1, Ordering::SeqCst);
            let behind = self.names.range(after.to_owned()..).filter(|name| name.as_str() != after);
            Ok(behind.take_while(|name| name.starts_with(folder)).take(at_most).cloned().collect())
        }

        async fn delete(&self, _path: &str) -> Result<()> {
            unreachable!("it is read only")
        }
    }

    impl Names {
        fn of(links: impl Iterator<Item = u64>, objects: &[u64]) -> Self {
            let mut names: BTreeSet<String> = links.map(|n| Manifest::path("0", n)).collect();
            names.extend(objects.iter().map(|n| format!("outbox/0/{n:020}-me.frames")));
            // Of other slots.
            names.extend([Manifest::path("00", 9_999_999), Manifest::path("1", 9_999_999)]);
            names.extend(["outbox/1/00000000000009999999-me.frames".to_owned()]);
            Self { names, listed: AtomicUsize::new(0) }
        }

        async fn newest(&self) -> (u64, usize) {
            self.listed.store(0, Ordering::SeqCst);
            let newest = newest_number(self, "0").await.expect("names");
            (newest, self.listed.load(Ordering::SeqCst))
        }
    }

    #[tokio::test]
    async fn the_newest_link_is_found_by_the_objects_that_were_written_for_it() {
        for (objects, newest) in [([].as_slice(), 0), (&[1], 0)] {
            assert_eq!(Names::of(0..0, objects).newest().await.0, newest);
        }
        let links = || 300_000..=600_000_u64;
        // The object of the newest link, of one that was never put, of one some time before.
        for hint in [600_000, 600_001, 599_200] {
            assert_eq!(Names::of(links(), &[300_000, hint]).newest().await, (600_000, 1), "{hint}");
        }
        let (newest, listed) = Names::of(links(), &[640_000]).newest().await;
        assert!(newest == 600_000 && listed < 30, "{newest} after {listed}");
    }

    #[tokio::test]
    async fn without_a_hint_it_is_found_by_looking_ahead() {
        for count in [1, 2, 999, 1_000, 1_001, 1_999, 2_000, 2_001, 5_000, 600_000_u64] {
            for first in [1, 77_777] {
                let names = Names::of(first..first + count, &[]);
                let (newest, listed) = names.newest().await;
                assert_eq!(newest, first + count - 1, "{count} from {first}");
                assert!(listed <= 30, "{listed} requests for {count} from {first}");
            }
        }
        // Links that are lost, or were put where others were deleted.
        let torn = (1..=1_500).chain(40_000..=40_002).chain(600_000..=603_000).filter(|n| n % 7 != 0);
        assert_eq!(Names::of(torn, &[]).newest().await.0, 603_000);
    }
}
