//! The whole server on a disk that gets full. Needs a small file system, which only root can
//! mount; the driver's own tests cover the same with a store that says so.

use super::agent::{FakeAgent, hello};
use super::merges::{made, told};
use super::pool::{PATIENCE, TestPool};
use reqwest::StatusCode;
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Unmounts when it goes, also after a failed assertion.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(path: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(path);
        let done = mount.output().ok()?.status.success();
        done.then_some(Self(path))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Lazily: a failed test may leave files open.
        let unmounted = Command::new("umount").arg("-l").arg(self.0).output();
        assert!(unmounted.is_ok_and(|done| done.status.success()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_all_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let Some(_mounted) = Mounted::new(&path) else {
        return;
    };
    let pool = TestPool::start_in(dir).await;
    let submission = json!({ "spec": { "task": { "command": ["echo", "x".repeat(100_000)] } } });
    let (status, _) = pool.client.post("/api/v1/jobs", &submission).await;
    assert_eq!(status, StatusCode::CREATED);
    let mut ballast = File::create(path.join("ballast")).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    let mut refused = 0;
    for _ in 0..5 {
        let (status, answer) = pool.client.post("/api/v1/jobs", &submission).await;
        if status != StatusCode::CREATED {
            assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{answer}");
            assert!(
                answer["error"].as_str().unwrap().contains("full"),
                "{answer}"
            );
            refused += 1;
        }
    }
    assert!(refused > 0);
    // An agent that comes before the server has noticed is not sent away.
    let room = async {
        drop(ballast);
        std::fs::remove_file(path.join("ballast")).unwrap();
    };
    let held = FakeAgent::connect_as(&pool, hello("held"));
    let (held, ()) = tokio::join!(held, room);
    assert!(held.is_ok(), "{:?}", held.err());
    let recovered = async {
        loop {
            let (status, _) = pool.client.post("/api/v1/jobs", &submission).await;
            if status == StatusCode::CREATED {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered)
        .await
        .expect("it goes on when there is space");
    // What was acknowledged is there, what was refused is not, after a restart too.
    let accepted = 5 - refused + 2;
    let pool = pool.restart().await;
    let jobs: Vec<gleaner_api::JobView> = pool.client.get("/api/v1/jobs").await;
    assert_eq!(jobs.len(), accepted);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_leaves_room_on_the_disk_and_goes_on_when_there_is_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let Some(_mounted) = Mounted::new(&path) else {
        return;
    };
    let pool = TestPool::start_in(dir).await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let mut ballast = File::create(path.join("ballast")).unwrap();
    let free = || {
        let disk = rustix::fs::statvfs(&path).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    while free() > 1_500_000 {
        ballast.write_all(&[1; 4096]).unwrap();
    }
    // The outputs fit and what is merged of them does not.
    let contents = [vec![b'a'; 400_000], vec![b'b'; 400_000]];
    let job = made(&pool, &mut agent, &contents).await;
    let seen = told(&pool, job, "a merge may take").await;
    assert!(seen.reason.contains("full"), "{}", seen.reason);
    assert!(free() > 100_000, "{}", free());
    drop(ballast);
    std::fs::remove_file(path.join("ballast")).unwrap();
    pool.client.wait_done(job).await;
    let files = pool.client.results(job).await.files;
    let merged = files.iter().find(|file| file.name == "all").unwrap();
    assert_eq!(merged.blob.size, 800_000);
    pool.server.shutdown().await.unwrap();
}
