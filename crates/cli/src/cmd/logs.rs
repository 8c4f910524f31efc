//! `gleaner logs TASK`: what a task wrote, raw.

use crate::out::{self, Failure, Outcome};
use crate::session::Session;
use crate::watch::{AWAY_MAX, AWAY_RETRY, Interrupt};
use futures_util::StreamExt as _;
use gleaner_client::{Client, ClientError};
use gleaner_model::{JobId, TaskId};
use std::time::Instant;

/// Print what a task wrote: its stdout, then its stderr
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// J.INDEX, or J for a job's first task
    #[arg(value_name = "TASK", value_parser = task)]
    task: TaskId,
    /// Go on until the task is over
    #[arg(long, short)]
    follow: bool,
    /// Only its stdout
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only its stderr
    #[arg(long)]
    stderr: bool,
}

fn task(text: &str) -> Result<TaskId, String> {
    if let Ok(job) = text.parse::<u64>() {
        return Ok(TaskId {
            job: JobId(job),
            index: 0,
        });
    }
    text.parse().map_err(|problem| format!("{problem}"))
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let mut interrupt = Interrupt::listen();
        tokio::select! {
            outcome = self.print(session) => outcome,
            () = interrupt.came() => Ok(out::INTERRUPTED),
        }
    }

    async fn print(&self, session: &Session) -> Outcome {
        let copy = |name: &'static str| copy(session, self.task, name, self.follow);
        if self.stdout {
            copy("stdout").await?;
        } else if self.stderr {
            copy("stderr").await?;
        } else if self.follow {
            // Both as they come; a reader who follows wants to see them now.
            tokio::try_join!(copy("stdout"), copy("stderr"))?;
        } else {
            copy("stdout").await?;
            copy("stderr").await?;
        }
        Ok(0)
    }
}

async fn copy(
    session: &Session,
    task: TaskId,
    name: &str,
    to_the_end: bool,
) -> Result<(), Failure> {
    if to_the_end {
        return follow(&session.client, task, name, out::print_bytes).await;
    }
    let mut stream = session.client.logs(task, name, 0, false).await?;
    while let Some(part) = stream.next().await {
        out::print_bytes(&part?)?;
    }
    Ok(())
}

/// Copies one stream of the task as it comes, through a restart of the server.
pub(super) async fn follow(
    client: &Client,
    task: TaskId,
    name: &str,
    mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut offset = 0;
    let mut away: Option<(Instant, u64)> = None;
    loop {
        match part(client, task, (name, &mut offset), &mut write).await? {
            Ok(()) => return Ok(()),
            Err(problem) if problem.is_passing() => {
                // What came in between says that it was back.
                let since = match away {
                    Some((since, before)) if before == offset => since,
                    _ => Instant::now(),
                };
                away = Some((since, offset));
                if since.elapsed() > AWAY_MAX {
                    return Err(problem.into());
                }
                tokio::time::sleep(AWAY_RETRY).await;
            }
            Err(problem) => return Err(problem.into()),
        }
    }
}

/// As far as one connection goes; our own output that is closed ends it all.
async fn part(
    client: &Client,
    task: TaskId,
    (name, offset): (&str, &mut u64),
    write: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<Result<(), ClientError>, Failure> {
    let mut stream = match client.logs(task, name, *offset, true).await {
        Ok(stream) => stream,
        Err(problem) => return Ok(Err(problem)),
    };
    while let Some(part) = stream.next().await {
        match part {
            Ok(bytes) => {
                *offset += bytes.len() as u64;
                write(&bytes)?;
            }
            Err(problem) => return Ok(Err(problem)),
        }
    }
    Ok(Ok(()))
}
