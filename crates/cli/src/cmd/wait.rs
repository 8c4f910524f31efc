//! `gleaner wait J`: stays until a job is over.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::progress::{JobProgress, Shown};
use crate::session::Session;
use crate::watch::{self, Interrupt};
use gleaner_model::JobId;

/// Wait until a job is over; exits 0 when it is done and 1 when it is not
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job
    #[arg(value_name = "J")]
    job: JobId,
    #[command(flatten)]
    form: Form,
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let mut interrupt = Interrupt::listen();
        tokio::select! {
            outcome = self.to_the_end(session) => outcome,
            () = interrupt.came() => Err(watch::detached(self.job)),
        }
    }

    async fn to_the_end(&self, session: &Session) -> Outcome {
        let silent = self.form.json || self.form.quiet;
        let mut progress = JobProgress::new(if silent {
            Shown::Nothing
        } else {
            Shown::Progress
        });
        let job = session.client.job(self.job).await?;
        let job = watch::until_over(&session.client, job, &mut progress).await?;
        watch::explain_failures(&session.client, &job).await;
        if self.form.json {
            out::json(&job)?;
        } else if self.form.quiet {
            out::line(job.id.to_string())?;
        } else {
            out::line(format!(
                "job {} is {}; `gleaner fetch {}` gets its results",
                job.id, job.state, job.id
            ))?;
        }
        Ok(watch::exit_code(job.state))
    }
}
