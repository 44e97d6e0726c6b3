//! An S3 server as a child of the test process, for the archive and the put-if-absent store.
//!
//! In memory, from the Python environment of `scripts/test setup`; it chooses its own free port. Conditional puts are atomic
//! there, as on S3 itself: `tests/python/s3_server.py` says how.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use object_store::aws::{AmazonS3, AmazonS3Builder};

use crate::child_process::{ChildProcess, wait_until};
use crate::scratch::Scratch;
use crate::tree;

const START_LIMIT: Duration = Duration::from_secs(60);

/// A server with one empty bucket; killed on drop, and its objects with it.
#[derive(Debug)]
pub(crate) struct S3Server {
    _process: ChildProcess,
    _scratch: Scratch,
    port: u16,
}

impl S3Server {
    pub(crate) const BUCKET: &'static str = "archive";
    /// Any key is taken; this one is both id and secret.
    pub(crate) const KEY: &'static str = "test";
    pub(crate) const REGION: &'static str = "us-east-1";

    /// Starts a server and waits until its bucket exists.
    ///
    /// # Errors
    /// With the end of its log if it ends or is not ready within a minute.
    pub(crate) fn start() -> Result<Self> {
        let scratch = Scratch::new("s3")?;
        let log = scratch.join("s3.log");
        let script = tree::root()?.join("tests/python/s3_server.py");
        let args = [script.as_os_str(), OsStr::new(Self::BUCKET)];
        let mut process = ChildProcess::start(&tree::python()?, &args, scratch.path(), &log)?;
        let port = wait_until(START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("the S3 server ended with {status}");
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            Ok(text.lines().find_map(|line| line.strip_prefix("port ")?.parse().ok()))
        })
        .with_context(|| format!("no S3 server; its log ends with\n{}", process.log_tail()))?;
        Ok(Self { _process: process, _scratch: scratch, port })
    }

    /// The `endpoint` setting of a client.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client of the bucket.
    pub(crate) fn store(&self) -> Result<AmazonS3> {
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_bucket_name(Self::BUCKET)
            .with_region(Self::REGION)
            .with_access_key_id(Self::KEY)
            .with_secret_access_key(Self::KEY)
            .build()
            .context("cannot make a client of the S3 server")
    }
}
