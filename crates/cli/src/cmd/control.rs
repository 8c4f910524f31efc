//! `gleaner cancel`, `pause`, `resume`, `retry` and `delete`: steering jobs and tasks.

use crate::form::Form;
use crate::out::{self, Failure, Outcome};
use crate::session::Session;
use gleaner_api::{Accepted, JobView};
use gleaner_model::{JobId, JobState, TaskId};
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
    /// The job
    #[arg(value_name = "J")]
    id: JobId,
    #[command(flatten)]
    form: Form,
}

/// Let a paused job go on
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The job
    #[arg(value_name = "J")]
    id: JobId,
    #[command(flatten)]
    form: Form,
}

/// Give failed and cancelled tasks a fresh set of tries, with the files that were submitted
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
/// `gleaner fetch J` brings the results home before. A job that is not over is refused: cancel it first.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// The job
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
        // Afterwards nobody knows its name.
        let before = match self.form.json {
            true => Some(session.client.job(self.id).await?),
            false => None,
        };
        let Accepted { touched } = session.client.delete_job(self.id).await?;
        match before {
            Some(job) => out::json(&Steered::job(job, touched))?,
            None => tell(Target::Job(self.id), "deleted", touched, self.form)?,
        }
        Ok(0)
    }
}

/// What `--json` prints: as listings call it, and how many of its tasks were touched.
#[derive(Debug, Serialize)]
struct Steered<I, S> {
    id: I,
    name: String,
    state: S,
    touched: u64,
}

impl Steered<JobId, JobState> {
    fn job(seen: JobView, touched: u64) -> Self {
        Self {
            id: seen.id,
            name: seen.name,
            state: seen.state,
            touched,
        }
    }
}

async fn steer(
    session: &Session,
    target: Target,
    (verb, past): (&str, &str),
    form: Form,
) -> Outcome {
    let client = &session.client;
    let Accepted { touched } = match target {
        Target::Job(job) => client.control_job(job, verb).await?,
        Target::Task(task) => client.control_task(task, verb).await?,
    };
    match target {
        Target::Job(job) if form.json => {
            out::json(&Steered::job(client.job(job).await?, touched))?;
        }
        Target::Task(task) if form.json => {
            let seen = client.task(task).await?.task;
            out::json(&Steered {
                id: seen.id,
                name: seen.name,
                state: seen.state,
                touched,
            })?;
        }
        Target::Job(_) | Target::Task(_) => tell(target, past, touched, form)?,
    }
    Ok(0)
}

/// Says what became of how many tasks.
fn tell(target: Target, past: &str, touched: u64, form: Form) -> Result<(), Failure> {
    if form.quiet {
        return out::line(match target {
            Target::Job(job) => job.to_string(),
            Target::Task(task) => task.to_string(),
        });
    }
    let tasks = if touched == 1 { "task" } else { "tasks" };
    out::line(format!("{target}: {touched} {tasks} {past}"))
}
