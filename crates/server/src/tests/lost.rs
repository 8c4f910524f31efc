//! A pool whose files went astray: it says so, and does not begin anew in silence.

use super::pool::TestPool;
use crate::{ServerConfig, start};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

fn config(data: &Path) -> ServerConfig {
    ServerConfig::new(data.to_owned(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_file_is_named_and_nothing_is_made_in_its_place() {
    let pool = TestPool::start().await;
    let data = pool.dir.path().join("data");
    let names = || -> Vec<_> {
        let all = fs::read_dir(&data).unwrap().flatten();
        let mut names: Vec<_> = all.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    // What was committed is read by other connections too.
    let _jobs: serde_json::Value = pool.client.get("/api/v1/jobs").await;
    pool.server.shutdown().await.unwrap();
    // Who copies that one file of a pool at rest has all of it.
    assert!(!data.join("store.sqlite-wal").exists(), "{:?}", names());
    let before = names();
    for lost in ["store.sqlite", "ca.key", "ca.pem"] {
        let kept = pool.dir.path().join("kept");
        fs::rename(data.join(lost), &kept).unwrap();
        let Err(refused) = start(config(&data)).await else {
            panic!("started without {lost}")
        };
        let sentence = refused.to_string();
        assert!(sentence.contains(lost), "{sentence}");
        assert!(sentence.contains("from a copy"), "{sentence}");
        fs::rename(&kept, data.join(lost)).unwrap();
    }
    for made in ["store.sqlite-shm", "store.sqlite-wal"] {
        let _not_made = fs::remove_file(data.join(made));
    }
    assert_eq!(names(), before);
    start(config(&data))
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_was_killed_is_gone_through_again() {
    let pool = TestPool::start().await;
    let data = pool.dir.path().join("data");
    pool.server.shutdown().await.unwrap();
    // In the order in which a first start makes them.
    for until in [1, 2, 3, 4] {
        let again = tempfile::tempdir().unwrap();
        let made = ["ca.key", "ca.pem", "admin.token", "node.token"];
        for name in made.split_at(until).0 {
            fs::copy(data.join(name), again.path().join(name)).unwrap();
        }
        let server = start(config(again.path())).await.unwrap();
        server.shutdown().await.unwrap();
    }
}
