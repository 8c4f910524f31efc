//! Following a job to its end by long polls.

use crate::out::{self, Failure};
use crate::progress::JobProgress;
use gleaner_api::JobView;
use gleaner_client::{Client, ClientError, TaskQuery};
use gleaner_model::{JobId, JobState};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// For how long a server may be away before waiting is given up: a restart takes seconds.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(120);
/// Wait between two tries while it is away.
pub(crate) const AWAY_RETRY: Duration = Duration::from_secs(1);
/// Failed tasks that are named one by one.
const FAILED_SHOWN: u32 = 5;
/// How long an interrupted submission may take to end: longer than an answer takes, shorter than
/// anybody waits after Ctrl-C.
const SENT_MAX: Duration = Duration::from_secs(3);

/// Waits until the job is over, showing it as it goes.
pub(crate) async fn until_over(
    client: &Client,
    first: JobView,
    progress: &mut JobProgress,
) -> Result<JobView, ClientError> {
    let mut job = first;
    loop {
        progress.update(&job);
        if job.state.is_over() {
            progress.finish();
            return Ok(job);
        }
        job = patiently(client, &job, progress).await?;
    }
}

/// The next different view of a job, through a restart of the server.
async fn patiently(
    client: &Client,
    job: &JobView,
    progress: &JobProgress,
) -> Result<JobView, ClientError> {
    let mut away: Option<Instant> = None;
    loop {
        let pace = progress.pace(job.state);
        match client.job_after(job.id, job.revision, pace).await {
            Ok(next) => {
                if away.is_some() {
                    progress.say("the server is back");
                }
                return Ok(next);
            }
            Err(problem) if problem.is_passing() => {
                if away.is_none() {
                    progress.say(&format!("{problem}; waiting for it to come back"));
                }
                if away.get_or_insert_with(Instant::now).elapsed() > AWAY_MAX {
                    return Err(problem);
                }
                tokio::time::sleep(AWAY_RETRY).await;
            }
            Err(problem) => return Err(problem),
        }
    }
}

/// Says what failed and where to look, on standard error.
pub(crate) async fn explain_failures(client: &Client, job: &JobView) {
    if !job.reason.is_empty() && job.state != JobState::Done {
        out::say(format!("job {} {}: {}", job.id, job.state, job.reason));
    }
    if job.tasks.failed == 0 {
        return;
    }
    let query = TaskQuery {
        state: Some("failed".into()),
        after: None,
        limit: Some(FAILED_SHOWN),
    };
    // Words about a failure are a courtesy; the exit code says it anyway.
    let Ok(tasks) = client.tasks(job.id, &query).await else {
        return;
    };
    for task in &tasks {
        let name = if task.name.is_empty() {
            String::new()
        } else {
            format!(" ({})", task.name)
        };
        out::say(format!("task {}{name} failed: {}", task.id, task.reason));
    }
    let shown = tasks.len() as u64;
    if job.tasks.failed > shown {
        out::say(format!(
            "and {} more; `gleaner tasks {} --state failed` lists them",
            job.tasks.failed - shown,
            job.id
        ));
    }
    if let Some(task) = tasks.first() {
        out::say(format!(
            "`gleaner logs {}` shows what it wrote, `gleaner retry {}` tries again",
            task.id, job.id
        ));
    }
}

/// The exit code that a job's end asks for.
pub(crate) const fn exit_code(state: JobState) -> u8 {
    match state {
        JobState::Done => 0,
        JobState::Waiting
        | JobState::Running
        | JobState::Paused
        | JobState::Failed
        | JobState::Cancelled => out::TASK_FAILED,
    }
}

/// Ctrl-C or SIGTERM, heard from the moment this exists: made before a job is sent, or an
/// interrupt that comes while the answer is on its way would leave a job that nobody ends.
#[derive(Debug)]
pub(crate) struct Interrupt(Option<[Signal; 2]>);

impl Interrupt {
    pub(crate) fn listen() -> Self {
        let both = signal(SignalKind::interrupt())
            .and_then(|int| Ok([int, signal(SignalKind::terminate())?]));
        Self(both.ok())
    }

    /// Returns when it came. Where no handler can be had the default one ends us, which is what
    /// was asked for.
    pub(crate) async fn came(&mut self) {
        let Some([int, term]) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
    }

    /// Does what comes before a job is sent; an interrupt ends it, and nothing is left anywhere.
    pub(crate) async fn before_sending<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => Ok(done),
            () = self.came() => Err(Failure::new(
                out::INTERRUPTED,
                "interrupted before anything was submitted",
            )),
        }
    }

    /// Sends a job. Says also whether the interrupt came meanwhile: then it has to be known
    /// first whether the job is there. A second interrupt, or a server that does not answer,
    /// ends the wait.
    pub(crate) async fn heeds<T>(
        &mut self,
        sending: impl Future<Output = T>,
    ) -> Result<(T, bool), Failure> {
        tokio::pin!(sending);
        tokio::select! {
            sent = &mut sending => return Ok((sent, false)),
            () = self.came() => {}
        }
        let unknown = "interrupted while sending; `gleaner jobs` shows whether the job is there";
        tokio::select! {
            sent = sending => Ok((sent, true)),
            () = self.came() => Err(Failure::new(out::INTERRUPTED, unknown)),
            () = tokio::time::sleep(SENT_MAX) => Err(Failure::new(out::INTERRUPTED, unknown)),
        }
    }
}

/// What is left to say when the user interrupts a fetch.
pub(crate) fn unfetched(job: JobId) -> Failure {
    Failure::new(
        out::INTERRUPTED,
        format!("interrupted; `gleaner fetch {job} DIR` goes on where this one stopped"),
    )
}

/// What is left to say when the user detaches from a job.
pub(crate) fn detached(job: JobId) -> Failure {
    Failure::new(
        out::INTERRUPTED,
        format!(
            "job {job} goes on without you; `gleaner wait {job}` comes back to it, `gleaner fetch \
             {job}` gets its results, `gleaner cancel {job}` ends it"
        ),
    )
}
