//! Backups between two folders: what is copied, what a backup that died leaves, what is pruned, what comes back.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const DATA: &str = "readings/event_date=2026-03-02/part-0-1-0-0-a.parquet";
const LOG: &str = "readings/_delta_log/00000000000000000001.json";

struct Place {
    _folders: (tempfile::TempDir, tempfile::TempDir),
    archive: ObjectRoot,
    backups: Backups,
}

fn root(folder: &Path) -> ObjectRoot {
    ObjectRoot::open(folder.to_str().unwrap(), &BTreeMap::new()).unwrap()
}

fn place() -> Place {
    let folders = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (archive, backups) = (root(folders.0.path()), Backups::open(root(folders.1.path())));
    Place { _folders: folders, archive, backups }
}

fn pinned() -> Pinned {
    Pinned { pinned_ms: 1, archive: "archive".to_owned(), chains: Vec::new(), tables: Vec::new() }
}

impl Place {
    async fn put(&self, path: &str, text: &str) {
        self.archive.put(path, Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
    }

    async fn all(&self) -> Vec<ToCopy> {
        let is_named_once = |path: &str| path.ends_with(".parquet");
        let objects = self.archive.list("").await.unwrap();
        let objects = objects.into_iter().filter(|object| !object.path.starts_with('_'));
        objects.map(|object| ToCopy { is_named_once: is_named_once(&object.path), object }).collect()
    }

    /// Copies all that is in the archive; gives how many objects were not there.
    async fn copy(&self, run: &Run) -> (Vec<Entry>, u64) {
        let copied = AtomicU64::new(0);
        let on_object = |_bytes: u64, was_copied: bool| {
            copied.fetch_add(u64::from(was_copied), Ordering::SeqCst);
        };
        let (entries, gone) = run.copy(&self.archive, &self.all().await, &on_object).await.unwrap();
        assert_eq!(gone, [""; 0]);
        (entries, copied.into_inner())
    }

    async fn back_up(&self) -> Snapshot {
        let run = self.backups.begin("me").await.unwrap();
        let (entries, _) = self.copy(&run).await;
        run.finish(pinned(), entries).await.unwrap()
    }

    async fn restore(&self, snapshot: &Snapshot, to: &ObjectRoot) -> Result<Restoring> {
        let restoring = self.backups.begin_restore(snapshot, to, "new").await?;
        let entries = self.backups.list_of(snapshot).await?;
        self.backups.restore(&entries, to, &|_, _| Ok(None), &|_, _| {}).await?;
        self.backups.end_restore(to).await?;
        Ok(restoring)
    }
}

async fn text(root: &ObjectRoot, path: &str) -> String {
    String::from_utf8(root.get(path).await.unwrap().unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_copies_what_is_new_and_both_come_back() {
    let place = place();
    place.put(DATA, "rows").await;
    place.put(LOG, "one").await;
    let first = place.back_up().await;
    assert_eq!((first.number, first.objects, first.copied_objects, first.bytes), (1, 2, 2, 7));
    // Another archive of the same origin has another object under the name of the log.
    place.archive.delete(LOG).await.unwrap();
    std::thread::park_timeout(std::time::Duration::from_millis(20));
    place.put(LOG, "two").await;
    place.put("readings/more.parquet", "more rows").await;
    let second = place.back_up().await;
    assert_eq!((second.number, second.objects, second.copied_objects, second.copied_bytes), (2, 3, 2, 12));
    assert_eq!(place.backups.snapshots().await.unwrap(), [first.clone(), second.clone()]);

    for (snapshot, log, objects) in [(&first, "one", 2), (&second, "two", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let to = root(folder.path());
        place.restore(snapshot, &to).await.unwrap();
        assert_eq!((text(&to, DATA).await.as_str(), text(&to, LOG).await.as_str()), ("rows", log));
        let listed = to.list("").await.unwrap();
        assert_eq!(listed.iter().filter(|object| !object.path.starts_with('_')).count(), objects);
        let refused = place.restore(snapshot, &to).await.unwrap_err().to_string();
        assert!(refused.contains("it is not empty"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_died_is_finished_by_the_next_and_makes_no_snapshot_any_more() {
    let place = place();
    place.put(DATA, "rows").await;
    let slow = place.backups.begin("slow").await.unwrap();
    let (entries, copied) = place.copy(&slow).await;
    assert_eq!((slow.number(), copied), (1, 1));
    assert!(place.backups.snapshots().await.unwrap().is_empty());

    let next = place.backups.begin("next").await.unwrap();
    let (of_next, copied) = place.copy(&next).await;
    assert_eq!((next.number(), copied, of_next[0].run), (2, 0, 1), "what the first one copied is taken over");
    let overtaken = slow.finish(pinned(), entries).await.unwrap_err();
    assert!(matches!(overtaken, Error::BackupOvertaken { number: 1, by: 2 }), "{overtaken}");
    let second = next.finish(pinned(), of_next).await.unwrap();
    assert_eq!(place.backups.snapshots().await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(place.back_up().await.number, 3);

    // The seal outlives all pruning, and so does what a kept snapshot names.
    let third = place.backups.snapshots().await.unwrap().pop().unwrap();
    let pruned = place.backups.prune(&third, 1).await.unwrap();
    assert_eq!((pruned.snapshots, pruned.objects), (vec![2], 0));
    assert!(matches!(place.backups.head(1).await.unwrap(), Some(HeadBody::Sealed { by: 2 })));
    let folder = tempfile::tempdir().unwrap();
    place.restore(&third, &root(folder.path())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_leaves_what_kept_snapshots_and_later_backups_have() {
    let place = place();
    place.put(DATA, "rows").await;
    place.put("readings/old.parquet", "old").await;
    place.back_up().await;
    place.archive.delete("readings/old.parquet").await.unwrap();
    let second = place.back_up().await;
    place.put("readings/new.parquet", "new").await;
    let later = place.backups.begin("later").await.unwrap();
    let (entries, copied) = place.copy(&later).await;
    assert_eq!(copied, 1);
    let pruned = place.backups.prune(&second, 1).await.unwrap();
    assert_eq!(pruned, Pruned { snapshots: vec![1], objects: 1, bytes: 3 });
    let third = later.finish(pinned(), entries).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = root(folder.path());
    place.restore(&third, &to).await.unwrap();
    assert_eq!(text(&to, "readings/new.parquet").await, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_died_is_taken_up_and_damage_is_told() {
    let place = place();
    place.put(DATA, "rows").await;
    place.put(LOG, "one").await;
    let first = place.back_up().await;
    place.put("readings/more.parquet", "more").await;
    let second = place.back_up().await;
    let folder = tempfile::tempdir().unwrap();
    let to = root(folder.path());
    let copied = object_path(1, LOG);
    let whole = place.backups.root.get(&copied).await.unwrap().unwrap();
    place.backups.root.put(&copied, Bytes::from_static(b"ONE")).await.unwrap();
    let damaged = place.restore(&first, &to).await.unwrap_err().to_string();
    assert!(damaged.contains(LOG) && damaged.contains("its checksum is another"), "{damaged}");
    assert_eq!(unfinished_restore(&to).await.unwrap().unwrap().snapshot, 1);
    let refused = place.restore(&second, &to).await.unwrap_err().to_string();
    assert!(refused.contains("a restore of snapshot 1") && refused.contains("restore that one again"), "{refused}");

    place.backups.root.put(&copied, whole).await.unwrap();
    let again = place.backups.begin_restore(&first, &to, "newer").await.unwrap();
    assert_eq!(again.incarnation, "new", "the identity of the first try");
    place.restore(&first, &to).await.unwrap();
    assert_eq!(unfinished_restore(&to).await.unwrap(), None);
    assert_eq!(text(&to, LOG).await, "one");
    place.backups.root.put(&list_path(1), Bytes::from_static(b"x")).await.unwrap();
    let damaged = place.backups.list_of(&first).await.unwrap_err().to_string();
    assert!(damaged.contains("is not what was written"), "{damaged}");
}
