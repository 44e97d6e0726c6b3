//! scratch
use super::tests::*;
use super::*;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scratch_readers() {
    let location = std::env::var("SCRATCH").unwrap_or("/tmp/d-archive".into());
    let options: BTreeMap<String, String> = [
        ("endpoint", "http://127.0.0.1:5055"),
        ("region", "us-east-1"),
        ("allow_http", "true"),
        ("access_key_id", "x"),
        ("secret_access_key", "y"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    let options = if let Ok(e) = std::env::var("SCRATCH_ENDPOINT") {
        let mut o = options;
        o.insert("endpoint".into(), e);
        o
    } else {
        options
    };
    let root = ObjectRoot::open(&location, &options).unwrap();
    let t = std::time::Instant::now();
    if let Err(e) = root.probe().await {
        println!("PROBE {:?}: {e}", t.elapsed());
        return;
    }
    crate::store::store_contract(&root).await.unwrap();
    let archive = Archive::open(root);
    archive.ensure_table(spec(&[])).await.unwrap();
    for epoch in 0..60 {
        let adds = archive
            .write_files("readings", vec![readings(50 * epoch, 50 * epoch + 50)], &naming(epoch.unsigned_abs()))
            .await
            .unwrap();
        archive.commit("readings", &adds, &[], "a", epoch).await.unwrap();
        if epoch == 30 {
            archive.ensure_table(spec(&["q_kvar"])).await.unwrap();
        }
    }
    println!("{:?}", archive.maintain("readings", &MaintainPolicy::default()).await.unwrap());
    println!("{:?} {:?}", archive.list().await.unwrap(), archive.files("readings").await.unwrap());
    assert_eq!(numbers(&archive).await, (0..3000).collect::<Vec<_>>());
    let ctx = datafusion::prelude::SessionContext::new();
    for (n, p) in archive.providers().await.unwrap() {
        ctx.register_table(n, p).unwrap();
    }
    let out = ctx.sql("select event_date, arrow_typeof(event_date), arrow_typeof(meter_id), count(*), max(n) from readings where event_date >= '2026-03-03' and meter_id = 'M1' group by 1,2,3 order by 1").await.unwrap().collect().await.unwrap();
    println!("{}", arrow::util::pretty::pretty_format_batches(&out).unwrap_or_else(|_| panic!()));
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scratch_speed() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(ObjectRoot::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap());
    archive.ensure_table(spec(&[])).await.unwrap();
    let batches: Vec<_> = (0..100).map(|i| readings(i * 10_000, i * 10_000 + 10_000)).collect();
    let t = std::time::Instant::now();
    let adds = archive.write_files("readings", batches, &naming(1)).await.unwrap();
    println!("1 M rows in {:?}, {} files", t.elapsed(), adds.len());
    let t = std::time::Instant::now();
    for v in 0..300 {
        archive.commit("readings", if v == 0 { &adds } else { &[] }, &[], "a", v).await.unwrap();
    }
    println!("300 commits {:?}", t.elapsed());
}
