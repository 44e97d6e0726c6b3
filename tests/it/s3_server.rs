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
    scratch: Scratch,
    port: u16,
}

/// What goes wrong with requests, until [`S3Server::heal`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreFaults {
    /// Of a hundred requests, how many are answered with 503 and not carried out.
    pub(crate) refused: u32,
    /// Of a hundred requests, how many are carried out and answered with 500.
    pub(crate) lost_answers: u32,
    /// How long each takes besides, milliseconds.
    pub(crate) slow_ms: u32,
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
        Self::start_with(StoreFaults::default())
    }

    /// Starts a server in trouble.
    ///
    /// # Errors
    /// As for [`S3Server::start`].
    pub(crate) fn start_with(faults: StoreFaults) -> Result<Self> {
        let scratch = Scratch::new("s3")?;
        let log = scratch.join("s3.log");
        let script = tree::root()?.join("tests/python/s3_server.py");
        let healed = scratch.join("healed");
        let StoreFaults { refused, lost_answers, slow_ms } = faults;
        let faults = format!("{refused},{lost_answers},{slow_ms}");
        let args = [script.as_os_str(), OsStr::new(Self::BUCKET), OsStr::new(&faults), healed.as_os_str()];
        let mut process = ChildProcess::start(&tree::python()?, &args, scratch.path(), &log)?;
        let port = wait_until(START_LIMIT, || {
            if let Some(status) = process.try_wait()? {
                bail!("the S3 server ended with {status}");
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            Ok(text.lines().find_map(|line| line.strip_prefix("port ")?.parse().ok()))
        })
        .with_context(|| format!("no S3 server; its log ends with\n{}", process.log_tail()))?;
        Ok(Self { _process: process, scratch, port })
    }

    /// From now on nothing but 503, or no longer so.
    pub(crate) fn set_outage(&self, is_out: bool) -> Result<()> {
        let mark = self.scratch.join("healed.outage");
        let done = if is_out { fs::write(mark, "") } else { fs::remove_file(mark) };
        done.context("cannot tell the S3 server of an outage")
    }

    /// From now on nothing goes wrong.
    pub(crate) fn heal(&self) -> Result<()> {
        fs::write(self.scratch.join("healed"), "").context("cannot heal the S3 server")
    }

    /// What a configuration says below `[archive]` to have its archive here.
    pub(crate) fn archive_settings(&self, folder: &str) -> String {
        format!(
            "url = \"s3://{}/{folder}\"\n[archive.options]\nendpoint = \"{}\"\nregion = \"{}\"\naccess_key_id = \"{key}\"\n\
             secret_access_key = \"{key}\"\nallow_http = true\n",
            Self::BUCKET,
            self.endpoint(),
            Self::REGION,
            key = Self::KEY,
        )
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
