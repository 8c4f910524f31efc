//! `gleaner submit`: hands a job file in; with `--wait` stays until the results are here.

use crate::out::{self, Failure, Outcome};
use crate::progress::{self, JobProgress, Shown};
use crate::session::Session;
use crate::watch::{self, Interrupt};
use gleaner_api::JobView;
use gleaner_client::{ClientError, Prepared, Progress, read_job_file};
use gleaner_model::{Bytes, JobSpec, JobState};
use std::path::{Path, PathBuf};

/// Submit a job file and print the job's id
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job file, TOML or JSON; or a submit file of HTCondor (.sub), a job description of OurGrid
    /// (.jdf). Its paths are relative to it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Wait until it is over and fetch the results
    #[arg(long, short)]
    wait: bool,
    /// Where results go [default: ./results-<JOB>]
    #[arg(long, value_name = "DIR", requires = "wait")]
    results: Option<PathBuf>,
    #[command(flatten)]
    form: crate::form::Form,
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let file = read_job_file(&self.file)?;
        let shown = if self.form.json || self.form.quiet {
            Shown::Nothing
        } else {
            Shown::Progress
        };
        let located = |problem: ClientError| Failure::from(file.locate(problem));
        let mut interrupt = Interrupt::listen();
        let prepared = prepare(file.spec.clone(), &file.base, shown, &mut interrupt).await?;
        let mut prepared = prepared.map_err(located)?;
        prepared.warnings.extend(file.warnings.iter().cloned());
        let job = hand_in(session, &prepared, shown, &mut interrupt, located).await?;
        let after = After {
            wait: self.wait,
            json: self.form.json,
            quiet: self.form.quiet,
            results: self.results,
        };
        after.go_on(session, job, interrupt).await
    }
}

/// Finds and reads what a job needs. The outer error is an interrupt's.
pub(crate) async fn prepare(
    spec: JobSpec,
    base: &Path,
    shown: Shown,
    interrupt: &mut Interrupt,
) -> Result<Result<Prepared, ClientError>, Failure> {
    let reading = Progress::default();
    let prepare = Box::pin(gleaner_client::prepare(spec, base, &reading));
    let prepare = progress::transfer(shown, "reading", &reading, prepare);
    interrupt.before_sending(prepare).await
}

/// Warns, uploads, submits. `told` puts the server's refusal into words.
pub(crate) async fn hand_in(
    session: &Session,
    prepared: &Prepared,
    shown: Shown,
    interrupt: &mut Interrupt,
    told: impl Fn(ClientError) -> Failure,
) -> Result<JobView, Failure> {
    for warning in &prepared.warnings {
        out::say(format!("warning: {warning}"));
    }
    let sending = Progress::default();
    let submit = gleaner_client::submit(&session.client, prepared, &sending);
    let submit = progress::transfer(shown, "sending", &sending, submit);
    let (job, interrupted) = interrupt.heeds(submit).await?;
    let job = job.map_err(told)?;
    match interrupted {
        true => Err(watch::detached(job.id)),
        false => Ok(job),
    }
}

/// What happens once a job is in.
#[derive(Debug)]
pub(crate) struct After {
    pub(crate) wait: bool,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) results: Option<PathBuf>,
}

impl After {
    /// Prints the id; or waits, fetches, and says how it went.
    pub(crate) async fn go_on(
        self,
        session: &Session,
        job: JobView,
        mut interrupt: Interrupt,
    ) -> Outcome {
        if !self.wait {
            if self.json {
                out::json(&job)?;
            } else {
                out::line(job.id.to_string())?;
            }
            return Ok(0);
        }
        let id = job.id;
        tokio::select! {
            outcome = self.to_the_end(session, job) => outcome,
            () = interrupt.came() => Err(watch::detached(id)),
        }
    }

    async fn to_the_end(&self, session: &Session, job: JobView) -> Outcome {
        let client = &session.client;
        let shown = if self.json || self.quiet {
            Shown::Nothing
        } else {
            Shown::Progress
        };
        let mut progress = JobProgress::new(shown);
        progress.say(&format!(
            "job {} ({}): {} {}",
            job.id,
            job.name,
            job.task_count,
            if job.task_count == 1 { "task" } else { "tasks" }
        ));
        let job = watch::until_over(client, job, &mut progress).await?;
        let folder = super::fetch::folder(self.results.as_deref(), job.id);
        let moved = Progress::default();
        let fetching = gleaner_client::fetch(client, job.id, &folder, &moved);
        let fetched = progress::transfer(shown, "fetching", &moved, fetching).await;
        watch::explain_failures(client, &job).await;
        let fetched = fetched.map_err(|problem| not_home(&job, problem))?;
        if self.json {
            out::json(&job)?;
        } else if self.quiet {
            out::line(job.id.to_string())?;
        } else {
            let files = match fetched.files + fetched.kept {
                0 => "no result files".to_owned(),
                count => {
                    let (files, bytes) = (progress::files(count), Bytes(fetched.bytes));
                    format!("{files} ({bytes}) in {}", folder.display())
                }
            };
            out::line(format!("job {} is {}: {files}", job.id, job.state))?;
        }
        if job.state == JobState::Cancelled {
            out::say(format!("job {} was cancelled", job.id));
        }
        Ok(watch::exit_code(job.state))
    }
}

/// The job is over and its results are safe, only not here.
fn not_home(job: &JobView, problem: ClientError) -> Failure {
    let failure = Failure::from(problem);
    let message = format!(
        "{}; job {} is {}, and `gleaner fetch {} DIR` brings its results",
        failure.message, job.id, job.state, job.id
    );
    Failure::new(failure.code, message)
}
