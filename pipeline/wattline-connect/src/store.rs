//! Where everything durable lives: one folder, or one prefix of an S3-compatible bucket.
//!
//! The commit protocol leans on a single primitive, *put if absent*: of all who try to create an object, one
//! succeeds, and when it has been told so the object survives a power cut. S3 offers it as a conditional put. On a
//! local disk we build it ourselves (`store/durable.rs`), because `object_store`'s file back end does not fsync. Both are
//! `object_store::ObjectStore`s, so that the Delta log and its checkpoints go through the very same code.
//!
//! A lost acknowledgement: on S3 a put whose answer was lost is retried inside `object_store` and then finds its own
//! object, so [`Put::Exists`] does not prove that another writer won. Callers put a nonce into what they write, read
//! the object on `Exists` and compare.
//!
//! Paths given to [`ObjectRoot`] are relative to its location, `/`-separated, and never begin with `/`.

mod contract;
mod durable;
mod probe;

pub use contract::store_contract;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use url::Url;

use crate::error::{Error, Result};
use durable::DurableLocal;

/// Folder below a local root that holds files being written; never part of a listing that means data.
pub(crate) const STAGING: &str = "_staging";

/// What came of a put-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object did not exist and is now durable.
    Created,
    /// An object of that name exists; nothing was written. It may be our own (see the module's page).
    Exists,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Path relative to the root that was listed.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Last modification by the store's clock, milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// A folder or a bucket prefix under which all objects of one archive live. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ObjectRoot {
    store: Arc<dyn ObjectStore>,
    /// Path of this root inside `store`.
    prefix: Path,
    url: Url,
    /// What the user wrote, for messages.
    location: String,
    /// The folder, for a local root.
    folder: Option<PathBuf>,
    /// Endpoint of the service, if one is given: buckets of two services may have one name.
    endpoint: Option<String>,
    /// Whether listings are in the order of the names.
    lists_in_order: bool,
}

impl ObjectRoot {
    /// Names a root without touching it.
    ///
    /// `location` is a folder (`./archive`, `/var/lib/wattline`, `file:///…`) or `s3://bucket/prefix`. `options` are
    /// for S3 and are named as in `object_store` (`endpoint`, `region`, `allow_http`, `access_key_id`,
    /// `secret_access_key`, …); what is not given comes from the usual `AWS_*` environment variables.
    ///
    /// # Errors
    /// [`Error::StoreSettings`] for an unknown scheme, option or value.
    pub fn open(location: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        match location.split_once("://") {
            Some(("file", _)) => {
                let folder = Url::parse(location)
                    .ok()
                    .and_then(|url| url.to_file_path().ok())
                    .ok_or_else(|| settings(location, "write it as `file:///absolute/folder`"))?;
                Self::open_local(location, &folder)
            }
            Some(("s3" | "s3a", _)) => Self::open_s3(location, options),
            Some((scheme, _)) => Err(settings(
                location,
                &format!("scheme `{scheme}` is not supported: use a folder or `s3://bucket/prefix`"),
            )),
            None => Self::open_local(location, FilePath::new(location)),
        }
    }

    fn open_local(location: &str, folder: &FilePath) -> Result<Self> {
        let folder = resolve(folder).map_err(|source| settings(location, &source.to_string()))?;
        let prefix = Path::from_absolute_path(&folder).map_err(|source| settings(location, &source.to_string()))?;
        let url = Url::from_directory_path(&folder)
            .map_err(|()| settings(location, "the path cannot be written as a URL: choose another folder"))?;
        Ok(Self {
            store: Arc::new(DurableLocal::new(folder.join(STAGING))),
            prefix,
            url,
            location: location.to_owned(),
            folder: Some(folder),
            endpoint: None,
            lists_in_order: false,
        })
    }

    fn open_s3(location: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        let mut url = Url::parse(location).map_err(|source| settings(location, &source.to_string()))?;
        let bucket = url
            .host_str()
            .ok_or_else(|| settings(location, "the bucket is missing: write `s3://bucket/prefix`"))?
            .to_owned();
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retries());
        for (name, value) in options {
            let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(|_unknown| {
                settings(
                    location,
                    &format!(
                        "unknown option `{name}`: use `endpoint`, `region`, `allow_http`, `access_key_id`, \
                         `secret_access_key`, `session_token` or another option of `object_store`"
                    ),
                )
            })?;
            builder = builder.with_config(key, value);
        }
        let is_directory_bucket = builder.get_config_value(&AmazonS3ConfigKey::S3Express);
        let lists_in_order = is_directory_bucket.is_none_or(|set| set == "false");
        let store = builder.build().map_err(|source| settings(location, &source.to_string()))?;
        let prefix = Path::from_url_path(url.path()).map_err(|source| settings(location, &source.to_string()))?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let endpoint = options.iter().find(|(name, _)| name.eq_ignore_ascii_case("endpoint"));
        let endpoint = endpoint.map(|(_, endpoint)| endpoint.clone());
        let location = location.to_owned();
        Ok(Self { store: Arc::new(store), prefix, url, location, folder: None, endpoint, lists_in_order })
    }

    /// The root of everything below `name` (one or more path segments).
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(name.split('/').filter(|part| !part.is_empty())).push("");
        }
        Self {
            store: Arc::clone(&self.store),
            prefix: self.resolve_path(name),
            url,
            location: format!("{}/{name}", self.location.trim_end_matches('/')),
            folder: self.folder.as_ref().map(|folder| folder.join(name)),
            endpoint: self.endpoint.clone(),
            lists_in_order: self.lists_in_order,
        }
    }

    /// What the user wrote to name this root.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The folder of a local root; `None` on an object store.
    #[must_use]
    pub fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    /// The URL of this root; its path ends with `/`.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Path of this root inside [`Self::store`].
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The whole store (bucket or file system), for readers that take full paths.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Creates `path` with `bytes` unless it exists. On return of `Created` the object is durable.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses; the object may then exist or not.
    pub async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<Put> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.resolve_path(path), bytes.into(), options).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(source) => Err(self.failed("create", path, source)),
        }
    }

    /// Writes a data object whose name is unique (it carries a nonce); durable on return. Repeating it is harmless.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&self.resolve_path(path), bytes.into()).await;
        put.map(|_| ()).map_err(|source| self.failed("write", path, source))
    }

    /// The content of `path`, or `None` if there is no such object.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let read = async { self.store.get(&self.resolve_path(path)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("read", path, source)),
        }
    }

    /// The bytes of `path` within `range`, or `None` if there is no such object.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses, or the object does not have these bytes.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        match self.store.get_range(&self.resolve_path(path), range).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("read", path, source)),
        }
    }

    /// Size and time of `path`, or `None` if there is no such object.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn info(&self, path: &str) -> Result<Option<ObjectInfo>> {
        match self.store.head(&self.resolve_path(path)).await {
            Ok(meta) => Ok(Some(ObjectInfo {
                path: path.to_owned(),
                size_bytes: meta.size,
                modified_ms: meta.last_modified.timestamp_millis(),
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("look for", path, source)),
        }
    }

    /// All objects below `prefix` (whole path segments; empty for all), sorted by path.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let base = self.prefix.clone();
        let at = self.resolve_path(prefix);
        let mut found: Vec<ObjectInfo> = self
            .store
            .list(Some(&at))
            .map_ok(|meta| ObjectInfo {
                path: relative(&base, &meta.location),
                size_bytes: meta.size,
                modified_ms: meta.last_modified.timestamp_millis(),
            })
            .try_collect()
            .await
            .map_err(|source| self.failed("list", prefix, source))?;
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Paths of objects below `prefix` that come after the path `after`, sorted: the first ones, at most so many. An S3 service
    /// begins there, whatever comes before; on a disk the folder is read.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn list_after(&self, prefix: &str, after: &str, at_most: usize) -> Result<Vec<String>> {
        let (base, at) = (self.prefix.clone(), self.resolve_path(prefix));
        let names = self.store.list_with_offset(Some(&at), &self.resolve_path(after));
        let names = names.map_ok(|meta| relative(&base, &meta.location));
        // Only these list in order.
        let listed: std::result::Result<Vec<String>, object_store::Error> = match self.lists_in_order {
            true => names.take(at_most).try_collect().await,
            false => names.try_collect().await,
        };
        let mut listed = listed.map_err(|source| self.failed("list", prefix, source))?;
        listed.sort_unstable();
        listed.truncate(at_most);
        Ok(listed)
    }

    /// Names of the folders directly below this root that hold an object, sorted.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn filled_folders(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.folders().await? {
            // On a disk, folders outlive what was in them.
            let first = self.store.list(Some(&self.resolve_path(&name))).try_next().await;
            if first.map_err(|source| self.failed("list", &name, source))?.is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Names of the folders (common prefixes) directly below this root, sorted.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn folders(&self) -> Result<Vec<String>> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix)).await;
        let listed = listed.map_err(|source| self.failed("list", "", source))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Whether there is no object below this root but what the check at start and writers leave.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn is_empty(&self) -> Result<bool> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix)).await;
        let listed = listed.map_err(|source| self.failed("list", "", source))?;
        let is_ours = |path: &Path| path.filename().is_some_and(|name| name == STAGING || name == probe::FOLDER);
        for folder in listed.common_prefixes.iter().filter(|path| !is_ours(path)) {
            // On a disk, folders outlive what was in them.
            let first = self.store.list(Some(folder)).try_next().await;
            if first.map_err(|source| self.failed("list", "", source))?.is_some() {
                return Ok(false);
            }
        }
        Ok(listed.objects.is_empty())
    }

    /// Whether `other` is this root, or lies within it, by their URLs.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && other.url.as_str().starts_with(self.url.as_str())
    }

    /// Deletes `path`; an object that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Store`] when the store does not answer or refuses.
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.store.delete(&self.resolve_path(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("delete", path, source)),
        }
    }

    /// Creates the folder if needed and proves that the store keeps its promise: a second create of one name fails.
    ///
    /// Call it once at start, before anything is written.
    ///
    /// # Errors
    /// [`Error::StoreRefused`] with what to do: the parent folder is missing, no permission, no such bucket, wrong
    /// keys, or a store without conditional puts.
    pub async fn probe(&self) -> Result<()> {
        probe::probe(self).await
    }

    /// A path that was listed is taken as it is: other programs put encoded characters into names.
    fn resolve_path(&self, path: &str) -> Path {
        let path = Path::parse(path).unwrap_or_else(|_odd| Path::from(path));
        self.prefix.parts().chain(path.parts()).collect()
    }

    fn failed(&self, operation: &'static str, path: &str, source: object_store::Error) -> Error {
        Error::Store {
            operation,
            path: format!("{}/{path}", self.location.trim_end_matches('/')),
            source: Box::new(source),
        }
    }
}

/// A few quick tries against hiccups; an outage is for the caller, who can say so and wait.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

fn relative(base: &Path, location: &Path) -> String {
    location.prefix_match(base).map_or_else(|| location.to_string(), |parts| parts.collect::<Path>().to_string())
}

fn settings(location: &str, detail: &str) -> Error {
    Error::StoreSettings { location: location.to_owned(), detail: detail.to_owned() }
}

/// Absolute form of `folder`, links resolved as far as it exists, so that one folder has one URL.
fn resolve(folder: &FilePath) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(folder)?;
    if let Ok(found) = absolute.canonicalize() {
        return Ok(found);
    }
    match (absolute.parent().map(FilePath::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(absolute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(folder: &FilePath) -> ObjectRoot {
        ObjectRoot::open(folder.to_str().unwrap(), &BTreeMap::new()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn local_folder_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        store_contract(&local(folder.path())).await.unwrap();
        let odd = folder.path().join("päth with % and #1 spaces");
        std::fs::create_dir(&odd).unwrap();
        store_contract(&local(&odd)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_creators_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let root = local(folder.path());
        for round in 0..20 {
            let path = format!("chains/0/{round}");
            let tries = (0..8).map(|who: u8| {
                let (root, path) = (root.clone(), path.clone());
                tokio::spawn(async move { (who, root.put_if_absent(&path, vec![who; 1000].into()).await.unwrap()) })
            });
            let outcomes = futures::future::join_all(tries).await;
            let winners: Vec<u8> = outcomes
                .into_iter()
                .map(|done| done.unwrap())
                .filter(|(_, put)| *put == Put::Created)
                .map(|(who, _)| who)
                .collect();
            assert_eq!(winners.len(), 1);
            assert_eq!(root.get(&path).await.unwrap().unwrap(), vec![winners[0]; 1000]);
        }
        assert_eq!(std::fs::read_dir(folder.path().join(STAGING)).unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn probe_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let fresh = folder.path().join("archive");
        local(&fresh).probe().await.unwrap();
        assert!(fresh.is_dir());
        let lost = local(&folder.path().join("no/such/archive")).probe().await.unwrap_err().to_string();
        assert!(lost.contains("does not exist") && lost.contains("mkdir -p"), "{lost}");
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let not_a_folder = local(&file).probe().await.unwrap_err().to_string();
        assert!(not_a_folder.contains("is not a folder"), "{not_a_folder}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_listed_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = local(folder.path());
        assert!(root.is_empty().await.unwrap());
        root.probe().await.unwrap();
        assert!(root.is_empty().await.unwrap(), "the probe leaves nothing that counts");
        std::fs::create_dir(folder.path().join("city=New%20York")).unwrap();
        std::fs::write(folder.path().join("city=New%20York/a b.parquet"), "x").unwrap();
        let listed = root.list("").await.unwrap();
        let listed: Vec<_> = listed.iter().filter(|object| object.path.starts_with("city")).collect();
        assert_eq!(listed.len(), 1);
        assert_eq!(root.get(&listed[0].path).await.unwrap().as_deref(), Some(b"x".as_slice()));
        assert!(!root.is_empty().await.unwrap());
        assert!(root.holds(&root.child("backups")) && root.holds(&root) && !root.child("backups").holds(&root));
    }

    #[test]
    fn wrong_locations_are_refused() {
        let none = BTreeMap::new();
        assert!(ObjectRoot::open("gs://bucket/x", &none).unwrap_err().to_string().contains("`gs`"));
        let options = BTreeMap::from([("endpont".to_owned(), "x".to_owned())]);
        assert!(ObjectRoot::open("s3://bucket/x", &options).unwrap_err().to_string().contains("`endpont`"));
    }
}
