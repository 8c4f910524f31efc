//! `gleaner logs TASK`: what a task wrote, raw.

use crate::out::{self, Failure, Outcome};
use crate::session::Session;
use crate::watch::Interrupt;
use futures_util::StreamExt as _;
use gleaner_model::{JobId, TaskId};

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

async fn copy(session: &Session, task: TaskId, name: &str, follow: bool) -> Result<(), Failure> {
    let mut stream = session.client.logs(task, name, 0, follow).await?;
    while let Some(part) = stream.next().await {
        out::print_bytes(&part?)?;
    }
    Ok(())
}
