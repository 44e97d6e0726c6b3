//! The check at start: can we write there, and does a second create of one name fail?
//!
//! A store that overwrites silently (an old S3 clone without conditional puts, a network share without hard links)
//! would let two processes commit the same epoch; refusing to start is the only safe answer.

use std::io::ErrorKind;

use bytes::Bytes;

use super::{ObjectRoot, Put};
use crate::error::{Error, Result};

/// Where the objects of the check are, for a moment.
pub(super) const FOLDER: &str = "_probe";

pub(super) async fn probe(root: &ObjectRoot) -> Result<()> {
    create_folder(root)?;
    let path = format!("{FOLDER}/{}", uuid::Uuid::new_v4());
    let first = root.put_if_absent(&path, Bytes::from_static(b"first")).await.map_err(|error| explain(root, &error))?;
    let second =
        root.put_if_absent(&path, Bytes::from_static(b"second")).await.map_err(|error| explain(root, &error))?;
    let kept = root.get(&path).await.map_err(|error| explain(root, &error))?;
    root.delete(&path).await.map_err(|error| explain(root, &error))?;
    if (first, second) != (Put::Created, Put::Exists) || kept.as_deref() != Some(b"first".as_slice()) {
        return Err(refused(
            root,
            "the store let a second writer create an object that exists, so commits would not be safe: use a local \
             disk, or an S3 service that honours `If-None-Match: *` on put",
        ));
    }
    Ok(())
}

fn create_folder(root: &ObjectRoot) -> Result<()> {
    let Some(folder) = root.folder() else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    let created = match std::fs::create_dir(folder) {
        // Another process was faster.
        Err(source) if source.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        created => created,
    };
    created.map_err(|source| {
        let parent = folder.parent().unwrap_or(folder).display();
        match source.kind() {
            ErrorKind::NotFound => refused(
                root,
                &format!("the folder `{parent}` does not exist: `mkdir -p {parent}`, or choose another path"),
            ),
            ErrorKind::PermissionDenied => refused(
                root,
                &format!(
                    "no permission to create it in `{parent}`: grant this user write access, or choose another path"
                ),
            ),
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                refused(root, "it is not a folder: remove the file, or choose another path")
            }
            _ => refused(root, &format!("it cannot be created: {source}")),
        }
    })
}

/// Turns a failed first contact into what the user can do about it.
fn explain(root: &ObjectRoot, error: &Error) -> Error {
    let Error::Store { source, .. } = error else { return refused(root, &error.to_string()) };
    let text = chain(source.as_ref());
    let local = root.folder().is_some();
    let advice = match source.as_ref() {
        object_store::Error::PermissionDenied { .. } if local => "no permission to write: grant this user write access",
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            "no permission to write: check the keys and that they may put, get, list and delete"
        }
        object_store::Error::NotFound { .. } => "the bucket does not exist: create it, or choose another location",
        _ if text.contains("NoSuchBucket") => "the bucket does not exist: create it, or choose another location",
        _ if text.contains("AccessDenied")
            || text.contains("SignatureDoesNotMatch")
            || text.contains("InvalidAccessKeyId") =>
        {
            "the store refuses the keys: check `access_key_id`, `secret_access_key` and `region`"
        }
        _ if local => "writing there failed: the file system must allow hard links and fsync, and have space left",
        _ => "the store does not answer as an S3 service should: check `endpoint`, `region` and `allow_http`",
    };
    // The rest of a store's answer is an XML page.
    let first_line = text.lines().next().unwrap_or_default();
    refused(root, &format!("{advice} ({first_line})"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

fn refused(root: &ObjectRoot, detail: &str) -> Error {
    Error::StoreRefused { location: root.location().to_owned(), detail: detail.to_owned() }
}
