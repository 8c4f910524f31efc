//! `gleaner run`: one task here and now, as if the command ran here.

use super::submit;
use super::task_options::{TaskOptions, verbatim};
use crate::out::{self, Failure, Outcome};
use crate::progress::{self, JobProgress, Shown};
use crate::session::Session;
use crate::watch::{self, Interrupt};
use gleaner_api::{JobView, TaskDetail};
use gleaner_client::{Client, ClientError, Progress};
use gleaner_model::{JobId, Reason, TaskId, TaskState};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Exit code for what is gleaner's fault, as `timeout`, `env` and container tools have it.
const OURS: u8 = 125;
/// Exit code for a limit, as `timeout` has it.
const LIMIT: u8 = 124;
/// A task that has not started after this long gets its reason looked up.
const EXPLAIN_AFTER: Duration = Duration::from_millis(1500);
/// How often to look again.
const EXPLAIN_EVERY: Duration = Duration::from_secs(2);
/// Rules that no waiting helps against while the nodes are the same.
const HOPELESS: &[&str] = &[
    "no-program",
    "engine",
    "arch",
    "labels",
    "cpus",
    "memory",
    "disk",
];

/// Run one task: its output here, its outputs fetched, its exit code
///
/// Words after `--` go to the task as they are. Without --output nothing is left behind; with it,
/// results lie in ./results-<JOB>/0/.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: TaskOptions,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Ran {
    #[serde(flatten)]
    task: TaskDetail,
    /// Our own exit code.
    code: u8,
    /// Where the results are.
    results: PathBuf,
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let mut interrupt = Interrupt::listen();
        // A command that cannot be meant never becomes a task, whose codes could be confused with it.
        let handed_in = self.hand_in(session, &mut interrupt).await;
        let job = handed_in.map_err(|failure| match failure.code {
            out::USAGE => failure,
            _ => ours(failure),
        })?;
        self.see(session, job, interrupt).await.map_err(ours)
    }

    /// Submits the task.
    async fn hand_in(
        &self,
        session: &Session,
        interrupt: &mut Interrupt,
    ) -> Result<JobView, Failure> {
        let client = &session.client;
        let mut spec = self.options.spec(&self.command, &verbatim)?;
        // Output streams as it comes, so a second try would print it twice.
        spec.retry.attempts = 1;
        let shown = if self.options.json {
            Shown::Nothing
        } else {
            Shown::Progress
        };
        let prepared = submit::prepare(spec, Path::new("."), shown, interrupt).await??;
        let sending = Progress::default();
        let submit = gleaner_client::submit(client, &prepared, &sending);
        let submit = progress::transfer(shown, "sending", &sending, submit);
        let (job, interrupted) = interrupt.heeds(submit).await?;
        let job = job?;
        match interrupted {
            true => Err(cancelled(client, job.id).await),
            false => Ok(job),
        }
    }

    /// Stays with the task until it is over.
    async fn see(self, session: &Session, job: JobView, mut interrupt: Interrupt) -> Outcome {
        let (client, id) = (&session.client, job.id);
        if self.options.detach {
            return detached(&job, self.options.json);
        }
        let detail = tokio::select! {
            detail = Box::pin(self.follow(client, job)) => match detail {
                Ok(detail) => detail,
                Err(failure) => {
                    if failure.is_closed_pipe() {
                        // As a program that runs here would end when nobody reads it any more.
                        cancel(client, id).await;
                    }
                    return Err(failure);
                }
            },
            () = interrupt.came() => return Err(cancelled(client, id).await),
        };
        tokio::select! {
            outcome = self.settle(client, id, detail) => outcome,
            () = interrupt.came() => Err(watch::unfetched(id)),
        }
    }

    /// Streams the task's output until it is over.
    async fn follow(&self, client: &Client, job: JobView) -> Result<TaskDetail, Failure> {
        let id = job.id;
        let task = TaskId { job: id, index: 0 };
        let mut quiet = JobProgress::new(Shown::Nothing);
        let over = watch::until_over(client, job, &mut quiet);
        let streams = async {
            if self.options.json {
                return Ok(());
            }
            let err = |bytes: &[u8]| {
                out::say_bytes(bytes);
                Ok(())
            };
            tokio::try_join!(
                super::logs::follow(client, task, "stdout", out::print_bytes),
                super::logs::follow(client, task, "stderr", err),
            )
            .map(drop)
        };
        // Ends early when our own output is closed; else when both are through.
        let ended = async { tokio::try_join!(async { Ok(over.await?) }, streams) };
        tokio::select! {
            ended = ended => drop(ended?),
            hopeless = watch_for_hopeless(client, task) => {
                cancel(client, id).await;
                return Err(Failure::new(OURS, hopeless));
            }
        }
        Ok(client.task(task).await?)
    }

    async fn settle(&self, client: &Client, id: JobId, detail: TaskDetail) -> Outcome {
        let (code, sentence) = verdict(&detail);
        let folder = super::fetch::folder(self.options.results.as_deref(), id);
        let wants_files = !self.options.output.is_empty() || self.options.json;
        if wants_files {
            let fetched = gleaner_client::fetch(client, id, &folder, &Progress::default()).await;
            match fetched {
                Ok(_) => {}
                Err(problem) if code == 0 => return Err(problem.into()),
                // The task's own failure matters more.
                Err(problem) => out::say(problem.to_string()),
            }
        }
        if self.options.json {
            out::json(&Ran {
                task: detail,
                code,
                results: folder,
            })?;
        }
        if let Some(sentence) = sentence {
            out::say(format!("gleaner: {sentence}"));
        }
        Ok(code)
    }
}

/// A task may end with any code, so what is ours needs one of its own.
fn ours(failure: Failure) -> Failure {
    match failure.code {
        0 | out::INTERRUPTED => failure,
        _ => Failure::new(OURS, failure.message),
    }
}

fn detached(job: &JobView, json: bool) -> Outcome {
    if json {
        out::json(job)?;
    } else {
        out::line(job.id.to_string())?;
    }
    Ok(0)
}

async fn cancelled(client: &Client, id: JobId) -> Failure {
    let message = match client.control_job(id, "cancel").await {
        Ok(_) => format!("job {id} is cancelled"),
        Err(problem) => not_cancelled(id, &problem),
    };
    Failure::new(out::INTERRUPTED, message)
}

async fn cancel(client: &Client, id: JobId) {
    if let Err(problem) = client.control_job(id, "cancel").await {
        out::say(not_cancelled(id, &problem));
    }
}

fn not_cancelled(id: JobId, problem: &ClientError) -> String {
    format!("job {id} could not be cancelled: {problem}; `gleaner cancel {id}` tries again")
}

/// Ends with a sentence when no node could ever run the task; says once why it waits otherwise.
async fn watch_for_hopeless(client: &Client, task: TaskId) -> String {
    let mut said = String::new();
    tokio::time::sleep(EXPLAIN_AFTER).await;
    loop {
        if let Ok(why) = client.explain(task.job).await
            && let Some(rule) = &why.rule
        {
            let nobody = why.nodes > 0 && why.nodes_failing == why.nodes;
            if nobody && HOPELESS.contains(&rule.as_str()) {
                return why.sentence;
            }
            if said != *rule && rule != super::explain::JOB_OVER {
                out::say(format!("gleaner: waiting: {}", why.sentence));
                said.clone_from(rule);
            }
        }
        tokio::time::sleep(EXPLAIN_EVERY).await;
    }
}

/// Our exit code for how the task ended, and a sentence where the code alone does not say it.
fn verdict(detail: &TaskDetail) -> (u8, Option<String>) {
    let record = detail
        .attempts_made
        .last()
        .and_then(|attempt| attempt.record.as_ref());
    let Some(record) = record else {
        let code = match (detail.task.state, detail.task.exit_code) {
            (TaskState::Done, _) => return (0, None),
            (TaskState::Failed, Some(code)) if code != 0 => return (exit_byte(code), None),
            _ => OURS,
        };
        let reason = match detail.task.reason.as_str() {
            "" => format!("the task is {}", detail.task.state),
            reason => reason.to_owned(),
        };
        return (code, Some(reason));
    };
    match &record.reason {
        Reason::Exit { code } => (exit_byte(*code), None),
        Reason::Signal { signal } => {
            let code = u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX);
            (code, Some(record.reason.to_string()))
        }
        Reason::Limit { limit } => {
            let held = record.limits.iter().find(|held| held.limit == *limit);
            let shown = |value| crate::table::of_limit(*limit, value);
            let figures =
                held.map(|held| format!(" ({} of {})", shown(held.peak), shown(held.value)));
            let sentence = format!(
                "limit {limit} passed{}; raise it, or let the task do less",
                figures.unwrap_or_default()
            );
            (LIMIT, Some(sentence))
        }
        Reason::Integrity { .. }
        | Reason::NoProgram { .. }
        | Reason::Output { .. }
        | Reason::Fetch { .. }
        | Reason::Engine { .. }
        | Reason::Cancelled
        | Reason::Evicted { .. }
        | Reason::Lost { .. }
        | Reason::Checkpointed { .. }
        | Reason::Unrestored { .. } => (OURS, Some(record.reason.to_string())),
    }
}

/// The eight bits that an exit code has.
fn exit_byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(OURS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;
    use gleaner_model::LimitKind;

    #[test]
    fn the_exit_code_says_how_the_task_ended() {
        for (reason, code) in [
            (Reason::Exit { code: 0 }, 0),
            (Reason::Exit { code: 3 }, 3),
            (Reason::Exit { code: 125 }, 125),
            (Reason::Signal { signal: 9 }, 137),
            (Reason::Signal { signal: 15 }, 143),
            (
                Reason::Limit {
                    limit: LimitKind::Memory,
                },
                124,
            ),
            (
                Reason::NoProgram {
                    program: "x".into(),
                },
                125,
            ),
            (Reason::Output { detail: "x".into() }, 125),
            (Reason::Cancelled, 125),
        ] {
            let shown = reason.to_string();
            let (found, sentence) = verdict(&samples::task_ended(reason));
            assert_eq!(found, code, "{shown}");
            assert_eq!(
                sentence.is_none(),
                shown.starts_with("exit code"),
                "{shown}"
            );
        }
        let mut none = samples::task_ended(Reason::Cancelled);
        none.attempts_made.clear();
        none.task.state = TaskState::Cancelled;
        assert_eq!(verdict(&none).0, OURS);
        none.task.state = TaskState::Done;
        assert_eq!(verdict(&none).0, 0);
    }
}
