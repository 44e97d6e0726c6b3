//! The promises every store must keep, as one function that any test can point at any root.

use bytes::Bytes;

use super::{ObjectRoot, Put};
use crate::error::Result;

/// Asserts what the commit protocol needs of a store: create once, read back, list, delete, nested roots, and of many
/// concurrent creators exactly one winner. Leaves nothing behind. For tests.
///
/// # Errors
/// Whatever the store answers where it should not fail.
///
/// # Panics
/// When a promise is broken.
pub async fn store_contract(root: &ObjectRoot) -> Result<()> {
    root.probe().await?;
    let base = format!("contract-{}", uuid::Uuid::new_v4());
    let room = root.child(&base);
    create_read_delete(&room).await?;
    listing(&room).await?;
    one_winner(&room).await?;
    for object in room.list("").await? {
        room.delete(&object.path).await?;
    }
    assert!(room.list("").await?.is_empty(), "deleted objects are still listed");
    Ok(())
}

async fn create_read_delete(room: &ObjectRoot) -> Result<()> {
    assert_eq!(room.get("a/1").await?, None, "an object that was never put is read");
    assert_eq!(room.put_if_absent("a/1", Bytes::from_static(b"one")).await?, Put::Created);
    assert_eq!(room.put_if_absent("a/1", Bytes::from_static(b"two")).await?, Put::Exists);
    assert_eq!(room.get("a/1").await?.as_deref(), Some(b"one".as_slice()), "a refused put changed the object");
    room.delete("a/1").await?;
    room.delete("a/1").await?;
    assert_eq!(room.get("a/1").await?, None, "a deleted object is read");
    assert_eq!(room.put_if_absent("a/1", Bytes::new()).await?, Put::Created, "a name is free after delete");
    assert_eq!(room.get("a/1").await?.as_deref(), Some(b"".as_slice()));
    let large = Bytes::from(vec![7_u8; 3 << 20]);
    room.put("data/large-0", large.clone()).await?;
    assert_eq!(room.get("data/large-0").await?, Some(large));
    Ok(())
}

async fn listing(room: &ObjectRoot) -> Result<()> {
    for name in ["b/2", "b/10", "b/1", "bb/1"] {
        assert_eq!(room.put_if_absent(name, Bytes::from_static(b"x")).await?, Put::Created);
    }
    let names: Vec<String> = room.list("b").await?.into_iter().map(|object| object.path).collect();
    assert_eq!(names, ["b/1", "b/10", "b/2"], "a listing is by whole path segments, sorted");
    assert!(room.list("nothing/here").await?.is_empty());
    let nested = room.child("b").list("").await?;
    assert_eq!(nested.first().map(|object| (object.path.as_str(), object.size_bytes)), Some(("1", 1)));
    assert_eq!(room.folders().await?, ["a", "b", "bb", "data"]);
    assert_eq!(room.filled_folders().await?, ["a", "b", "bb", "data"]);
    assert_eq!(room.list_after("b", "b/1", 9).await?, ["b/10", "b/2"], "what comes after a name, without it");
    assert_eq!(room.list_after("b", "b/0", 2).await?, ["b/1", "b/10"], "the first ones, and no more");
    assert_eq!(room.list_after("b/", "b/11", 9).await?, ["b/2"], "the name need not be there");
    assert!(room.list_after("b", "b/2", 9).await?.is_empty(), "other folders are none of it");
    assert!(room.list_after("nothing/here", "nothing/here/1", 9).await?.is_empty());
    Ok(())
}

async fn one_winner(room: &ObjectRoot) -> Result<()> {
    let tries = (0..16_u8)
        .map(|who| async move { room.put_if_absent("race/1", Bytes::from(vec![who; 64])).await.map(|put| (who, put)) });
    let outcomes = futures::future::try_join_all(tries).await?;
    let winners: Vec<u8> = outcomes.into_iter().filter(|(_, put)| *put == Put::Created).map(|(who, _)| who).collect();
    assert_eq!(winners.len(), 1, "exactly one concurrent creator must win");
    assert_eq!(room.get("race/1").await?, Some(Bytes::from(vec![winners[0]; 64])));
    Ok(())
}
