//! What the S3 server must do for the commit protocol: create an object only if there is none, and let exactly one of many win.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use wattline_connect::store::{ObjectRoot, store_contract};

use crate::s3_server::S3Server;

const RIVALS: usize = 16;
const ROUNDS: usize = 10;

#[tokio::test]
async fn an_object_is_created_once() -> Result<()> {
    let server = S3Server::start()?;
    let store = server.store()?;
    let name = Path::from("chains/0/1");
    let first = store.put_opts(&name, "first".into(), PutOptions::from(PutMode::Create)).await?;
    let second = store.put_opts(&name, "second".into(), PutOptions::from(PutMode::Create)).await;
    ensure!(matches!(second, Err(Error::AlreadyExists { .. })), "the second create was answered with {second:?}");
    ensure!(store.get(&name).await?.bytes().await? == "first", "the second create replaced the first");

    let stale = UpdateVersion { e_tag: Some("\"stale\"".to_owned()), version: None };
    let refused = store.put_opts(&name, "third".into(), PutOptions::from(PutMode::Update(stale))).await;
    ensure!(
        matches!(refused, Err(Error::Precondition { .. })),
        "an update of another version was answered with {refused:?}"
    );
    store.put_opts(&name, "fourth".into(), PutOptions::from(PutMode::Update(first.into()))).await?;
    Ok(())
}

#[tokio::test]
async fn a_bucket_keeps_the_contract_of_a_store() -> Result<()> {
    let server = S3Server::start()?;
    let options = [
        ("endpoint", server.endpoint()),
        ("region", S3Server::REGION.to_owned()),
        ("access_key_id", S3Server::KEY.to_owned()),
        ("secret_access_key", S3Server::KEY.to_owned()),
        ("allow_http", "true".to_owned()),
    ];
    let options: BTreeMap<String, String> = options.map(|(name, value)| (name.to_owned(), value)).into();
    let root = ObjectRoot::open(&format!("s3://{}/contract", S3Server::BUCKET), &options)?;
    Ok(store_contract(&root).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_creators_wins() -> Result<()> {
    let server = S3Server::start()?;
    let store = server.store()?;
    for round in 0..ROUNDS {
        let name = Path::from(format!("chains/0/{round}"));
        let puts = (0..RIVALS).map(|_| store.put_opts(&name, "mine".into(), PutOptions::from(PutMode::Create)));
        let winners = join_all(puts).await.into_iter().filter(Result::is_ok).count();
        ensure!(winners == 1, "round {round}: {winners} of {RIVALS} creators won");
    }
    Ok(())
}
