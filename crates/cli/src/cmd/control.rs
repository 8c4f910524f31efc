//! `gleaner cancel`, `pause`, `resume`, `retry` and `delete`: steering jobs and tasks.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::session::Session;
use gleaner_api::Accepted;
use gleaner_model::{JobId, TaskId};
use serde::Serialize;

/// A job or one of its tasks.
#[derive(Debug, Clone, Copy)]
enum Target {
    Job(JobId),
    Task(TaskId),
}

fn target(text: &str) -> Result<Target, String> {
    if text.contains('.') {
        return text
            .parse()
            .map(Target::Task)
            .map_err(|problem| format!("{problem}"));
    }
    text.parse()
        .map(Target::Job)
        .map_err(|problem| format!("{problem}"))
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(job) => write!(f, "job {job}"),
            Self::Task(task) => write!(f, "task {task}"),
        }
    }
}

/// Cancel a job or a task; running attempts end
#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    /// J or J.INDEX
    #[arg(value_name = "J", value_parser = target)]
    id: Target,
    #[command(flatten)]
    form: Form,
}

/// Pause a job: what runs goes on, nothing new starts
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    #[arg(value_name = "J")]
    id: JobId,
    #[command(flatten)]
    form: Form,
}

/// Let a paused job go on
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    #[arg(value_name = "J")]
    id: JobId,
    #[command(flatten)]
    form: Form,
}

/// Give failed and cancelled tasks a fresh set of tries
#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    /// J or J.INDEX
    #[arg(value_name = "J", value_parser = target)]
    id: Target,
    #[command(flatten)]
    form: Form,
}

/// Delete a job that is over: its results, records and files on the server go
///
/// `gleaner fetch J` brings the results home before. A job that is not over is cancelled first.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    #[arg(value_name = "J")]
    id: JobId,
    #[command(flatten)]
    form: Form,
}

impl CancelArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        steer(session, self.id, ("cancel", "cancelled"), self.form).await
    }
}

impl PauseArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        steer(
            session,
            Target::Job(self.id),
            ("pause", "held back"),
            self.form,
        )
        .await
    }
}

impl ResumeArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        steer(
            session,
            Target::Job(self.id),
            ("resume", "let go on"),
            self.form,
        )
        .await
    }
}

impl RetryArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        steer(session, self.id, ("retry", "given new tries"), self.form).await
    }
}

impl DeleteArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let accepted = session.client.delete_job(self.id).await?;
        tell(Target::Job(self.id), "deleted", accepted, self.form)
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Steered {
    id: String,
    touched: u64,
}

async fn steer(
    session: &Session,
    target: Target,
    (verb, past): (&str, &str),
    form: Form,
) -> Outcome {
    let accepted = match target {
        Target::Job(job) => session.client.control_job(job, verb).await?,
        Target::Task(task) => session.client.control_task(task, verb).await?,
    };
    tell(target, past, accepted, form)
}

/// Says what became of how many tasks.
fn tell(target: Target, past: &str, accepted: Accepted, form: Form) -> Outcome {
    let Accepted { touched } = accepted;
    let id = match target {
        Target::Job(job) => job.to_string(),
        Target::Task(task) => task.to_string(),
    };
    if form.json {
        out::json(&Steered { id, touched })?;
    } else if form.quiet {
        out::line(id)?;
    } else {
        let tasks = if touched == 1 { "task" } else { "tasks" };
        out::line(format!("{target}: {touched} {tasks} {past}"))?;
    }
    Ok(0)
}
