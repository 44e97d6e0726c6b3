//! A local file system as an object store whose puts survive a power cut.
//!
//! `object_store`'s own back end writes and links without fsync: after a crash of the machine a manifest could be
//! there by name and empty in content. Here a put is: write a staging file, fsync it, then link (create) or rename
//! (overwrite) it to its name, then fsync the folder, and the parents of folders that the put had to create. Linking
//! fails if the name exists, which makes the create atomic. Reading, listing and deleting are left to `object_store`.
//!
//! All staging files live in one folder of the root (same file system, so that links work); files of crashed writers
//! in it are swept when they are a day old. Paths are absolute: the store is the whole file system, as with
//! `LocalFileSystem::new()`, because Delta addresses its files by absolute URL.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// Staging files older than this belong to nobody.
const STAGING_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The local file system with durable puts; see the module's page.
#[derive(Debug, Clone)]
pub(super) struct DurableLocal {
    inner: LocalFileSystem,
    staging: Arc<FilePath>,
}

impl DurableLocal {
    pub(super) fn new(staging: PathBuf) -> Self {
        sweep(&staging);
        Self { inner: LocalFileSystem::new(), staging: staging.into() }
    }

    fn not_supported(&self, operation: &str) -> Error {
        Error::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() }
    }
}

impl std::fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("durable local files")
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(self.not_supported("put if unchanged")),
        };
        let path = self.inner.path_to_filesystem(location)?;
        let staging = Arc::clone(&self.staging);
        let shown = location.to_string();
        tokio::task::spawn_blocking(move || put_durable(&staging, &path, &payload, create))
            .await?
            .map(|()| PutResult { e_tag: None, version: None })
            .map_err(|source| match source.kind() {
                ErrorKind::AlreadyExists if create => Error::AlreadyExists { path: shown, source: source.into() },
                ErrorKind::PermissionDenied => Error::PermissionDenied { path: shown, source: source.into() },
                _ => Error::Generic { store: "local files", source: source.into() },
            })
    }

    /// Nothing of ours writes in parts (the largest object is a data file of bounded size), so no half-durable way in.
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(self.not_supported("multipart upload"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.not_supported("copy"))
    }

    async fn rename_opts(&self, _: &Path, _: &Path, _: RenameOptions) -> Result<()> {
        Err(self.not_supported("rename"))
    }
}

fn put_durable(staging: &FilePath, path: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a file needs a folder"))?;
    create_folders_durable(staging)?;
    let staged = staging.join(uuid::Uuid::new_v4().to_string());
    let outcome = write_synced(&staged, payload).and_then(|()| {
        create_folders_durable(parent)?;
        if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) }
    });
    // Whoever sees the name, even a loser of the race, may act on it only once the name itself is durable.
    let lost_race = matches!(&outcome, Err(error) if error.kind() == ErrorKind::AlreadyExists);
    let synced = if outcome.is_ok() || lost_race { sync_folder(parent) } else { Ok(()) };
    if (create || outcome.is_err())
        && let Err(error) = fs::remove_file(&staged)
    {
        tracing::debug!(path = %staged.display(), %error, "staging file not removed; it is swept when it is a day old");
    }
    outcome.and(synced)
}

fn write_synced(path: &FilePath, payload: &PutPayload) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    for part in payload {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Creates `folder` and what is missing above it, each durable in its parent before anything is put into it.
fn create_folders_durable(folder: &FilePath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folders_durable(parent)?;
        match fs::create_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        sync_folder(parent)?;
    }
    Ok(())
}

#[cfg(unix)]
fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems have no fsync of a folder; the file system's own journal orders the entry.
#[cfg(not(unix))]
fn sync_folder(_: &FilePath) -> io::Result<()> {
    Ok(())
}

/// Removes what crashed writers left; a failure costs only disk space and is met again at the next start.
fn sweep(staging: &FilePath) {
    let Ok(entries) = fs::read_dir(staging) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).map(|at| at.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > STAGING_AGE_MAX)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "staging file not removed");
        }
    }
}
