//! Stored objects that nothing names any more: which they are, told by their names and by the newest links.
//!
//! A process writes objects for a link before it puts the link, and deletes what its last checkpoint named after the next one. A
//! death before the put, or between a checkpoint and its clean-up, leaves objects behind. Their names say for which link they were
//! written, `<folder>/<slot>/<n>-<nonce>.<…>`, and that is enough to know them:
//!
//! An object for a link at or before the newest checkpoint that is named by no link from that checkpoint on is needed by nobody.
//! - *No start needs it*: it begins at the newest checkpoint, and checkpoints only move on. What a later link carries over from one
//!   before it stands in that checkpoint.
//! - *No owner is still to name it*, asleep or not: the one who wrote it for number `n` can only name it in a link that it puts at `n` or
//!   behind. There is an epoch at or behind `n`, the checkpoint. If that is its own, it has named what it names; if not, it comes to an
//!   end there, or finds that the chain has gone on without it ([`crate::chain::decide_after_put`]).
//! - *A taker* that has read an older end of the chain is in the place of one that reads while the owner makes a checkpoint: what it
//!   misses then, it looks for again from a newer end.
//! - *A backup* copies the objects of its moment at once, and chooses another moment if one of them is gone.
//!
//! So whoever looks for leftovers lists objects first and reads the end of the chain after that: an object that a link has named
//! meanwhile is then known to be named, or is for a link behind the checkpoint. `archive vacuum` deletes only what is a week old besides,
//! by the clock of the store. Nothing here depends on that.
//!
//! Of the generations of a lane only the newest is ever read. Whoever puts one that was deleted before holds no lane by it: its seal, or
//! its first epoch, comes to the links that others have put since.

use std::collections::BTreeSet;

/// Folders of the objects that links name, below that of the job.
pub const OBJECT_FOLDERS: [&str; 5] = ["state", "stages", "rows", "alert-state", "outbox"];

/// Folder of the generations of lanes, below that of the job.
pub const LANES: &str = "lanes";

/// An object by its name: for which link of which slot it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenFor<'a> {
    /// The slot.
    pub slot: &'a str,
    /// Number of the link that was to name it.
    pub n: u64,
}

/// For which link an object was written; `None` if its name is not that of such an object.
pub fn written_for(path: &str) -> Option<WrittenFor<'_>> {
    let mut parts = path.split('/');
    let (folder, slot, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (n, _nonce) = name.split_once('-')?;
    let is_object = OBJECT_FOLDERS.contains(&folder) && parts.next().is_none();
    is_object.then_some(WrittenFor { slot, n: n.parse().ok()? })
}

/// Whether an object is needed by nobody. `named` are the objects that the links of its slot name from the newest `checkpoint` on,
/// read after the object was listed; 0 if there is none.
pub fn is_left_over(path: &str, checkpoint: u64, named: &BTreeSet<String>) -> bool {
    written_for(path).is_some_and(|of| of.n <= checkpoint) && !named.contains(path)
}

/// The generations of lanes that newer ones have replaced. The paths are in order.
pub fn replaced_generations<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let folder = |path: &'a str| path.rsplit_once('/').map(|(folder, _)| folder);
    let is_replaced = |pair: &[&'a str]| folder(pair[0]).is_some() && folder(pair[0]) == folder(pair[1]);
    paths.windows(2).filter(|pair| is_replaced(pair)).map(|pair| pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Generation;
    use crate::record::LaneId;

    #[test]
    fn what_the_checkpoint_does_not_name_is_left_over() {
        let named = BTreeSet::from(["state/0/00000000000000000003-a.0.frames".to_owned()]);
        let cases = [
            ("state/0/00000000000000000003-a.0.frames", false),
            ("state/0/00000000000000000003-b.0.frames", true),
            ("outbox/0/00000000000000000007-a.frames", true),
            ("rows/0/00000000000000000008-a.frames", false),
            ("chains/0/00000000000000000003.json", false),
            ("amendments/00000000000000000003.json", false),
            ("lanes/t-1/0/00000000000000000003.json", false),
            ("state/0/odd", false),
            ("state/0/3-a/b", false),
        ];
        for (path, expected) in cases {
            assert_eq!(is_left_over(path, 7, &named), expected, "{path}");
            assert!(!is_left_over(path, 0, &named), "{path}: without a checkpoint everything is needed");
        }
        assert_eq!(written_for("rows/3/0012-a-b.frames"), Some(WrittenFor { slot: "3", n: 12 }));
    }

    #[test]
    fn of_each_lane_the_newest_generation_stays() {
        let path = |partition, generation| Generation::path(&LaneId::new("t", partition), generation);
        let paths = [path(0, 9), path(0, 10), path(0, 11), path(1, 4), path(2, 1), path(2, 2)];
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        assert_eq!(replaced_generations(&paths), [paths[0], paths[1], paths[4]]);
        assert!(replaced_generations(&[]).is_empty());
    }
}
