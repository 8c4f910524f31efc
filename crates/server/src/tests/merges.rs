//! Merges that cannot be done now.

use super::agent::{FakeAgent, ended};
use super::pool::{PATIENCE, TestPool, digest};
use gleaner_api::{ExplainView, JobView};
use gleaner_model::{JobId, JobState, TaskId};
use gleaner_wire::v1::agent_message::Kind as Say;
use reqwest::StatusCode;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks at what happens beside.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn concat(tasks: u32) -> Value {
    json!({
        "task": { "command": ["make"] },
        "sweep": { "n": { "range": [1, tasks] } },
        "collect": { "merge": { "concat": "all", "from": "stdout" } },
    })
}

/// A job of one task for each content, done but for its merge. Contents are blobs of their own.
pub(super) async fn made(pool: &TestPool, agent: &mut FakeAgent, contents: &[Vec<u8>]) -> JobId {
    let parts: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    pool.client.put_blobs(&parts).await;
    let count = u32::try_from(contents.len()).unwrap();
    let job = pool.client.submit(concat(count)).await.id;
    let mut left = contents.len();
    while left > 0 {
        let (bundle, _) = agent.bundle().await;
        for task in &bundle.tasks {
            let content = contents[task.index as usize].clone();
            let id = TaskId::new(JobId(bundle.job), task.index).attempt(task.number);
            let mut report = ended(id, &(0, vec![("stdout".to_owned(), content.clone())]));
            report.inline.clear();
            report.blobs.push(digest(&content).0.to_vec());
            agent.tell(Say::Ended(report)).await;
            left -= 1;
        }
    }
    job
}

/// Looks at a job until what it says of itself is wanted.
pub(super) async fn told(pool: &TestPool, job: JobId, wanted: &str) -> JobView {
    let looking = async {
        loop {
            let seen: JobView = pool.client.get(&format!("/api/v1/jobs/{job}")).await;
            if seen.reason.contains(wanted) {
                return seen;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, looking).await;
    told.unwrap_or_else(|_| panic!("job {job} never says {wanted:?}"))
}

/// A blob that cannot be read, by root either, until it is mended.
pub(super) struct Unreadable {
    path: PathBuf,
    beside: PathBuf,
}

impl Unreadable {
    pub(super) fn new(pool: &TestPool, content: &[u8]) -> Self {
        let hex = digest(content).hex();
        let folder = pool.dir.path().join("data/blobs").join(&hex[..2]);
        let (path, beside) = (folder.join(&hex), folder.join("beside"));
        std::fs::create_dir(&beside).unwrap();
        let spoilt = Self { path, beside };
        spoilt.change_places();
        spoilt
    }

    /// At once: it is never missing in between.
    fn change_places(&self) {
        let (one, other) = (&self.path, &self.beside);
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    }

    pub(super) fn mend(self) {
        self.change_places();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_cannot_be_done_now_says_so_and_keeps_no_other_waiting() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let content = vec![b'x'; 100_000];
    pool.client.put_blobs(&[&content]).await;
    let unreadable = Unreadable::new(&pool, &content);
    let stuck = made_unread(&pool, &mut agent, &content).await;
    let seen = told(&pool, stuck, "cannot be merged yet").await;
    assert_eq!(seen.state, JobState::Running);
    assert!(seen.reason.contains(&format!("gleaner cancel {stuck}")));
    let path_of = format!("/api/v1/jobs/{stuck}/explain");
    let why: ExplainView = pool.client.get(&path_of).await;
    assert_eq!(why.sentence, seen.reason);
    let other = made(&pool, &mut agent, &[b"one".to_vec(), b"two".to_vec()]).await;
    pool.client.wait_done(other).await;
    let merged = pool.client.results(other).await.files;
    let merged = merged.iter().find(|file| file.name == "all").unwrap();
    assert_eq!(pool.client.content(&merged.blob.digest).await, b"onetwo");
    // What was given up is not tried for ever.
    let given_up = made_unread(&pool, &mut agent, &content).await;
    told(&pool, given_up, "cannot be merged yet").await;
    let cancel = format!("/api/v1/jobs/{given_up}/cancel");
    let (status, _) = pool.client.post(&cancel, &json!(null)).await;
    assert_eq!(status, StatusCode::OK);
    let waits = &pool.server.shared.merge_waits;
    let forgotten = async {
        while waits.why(given_up).is_some() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let forgotten = tokio::time::timeout(PATIENCE, forgotten).await;
    assert!(forgotten.is_ok(), "a cancelled job's merge is tried again");
    assert!(waits.why(stuck).is_some());
    // And what can be read again is merged.
    unreadable.mend();
    pool.client.wait_done(stuck).await;
    let merged = pool.client.results(stuck).await.files;
    let merged = merged.iter().find(|file| file.name == "all").unwrap();
    assert_eq!(pool.client.content(&merged.blob.digest).await, content);
    pool.server.shutdown().await.unwrap();
}

/// As [`made`], of one content that is here by its name alone.
async fn made_unread(pool: &TestPool, agent: &mut FakeAgent, content: &[u8]) -> JobId {
    let job = pool.client.submit(concat(1)).await.id;
    let (bundle, _) = agent.bundle().await;
    let id = TaskId::new(job, 0).attempt(bundle.tasks[0].number);
    let mut report = ended(id, &(0, vec![("stdout".to_owned(), content.to_vec())]));
    report.inline.clear();
    report.blobs.push(digest(content).0.to_vec());
    agent.tell(Say::Ended(report)).await;
    job
}
