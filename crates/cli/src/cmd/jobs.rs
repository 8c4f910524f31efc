//! `gleaner jobs` and `gleaner job J`.

use crate::args::Form;
use crate::out::{self, Outcome};
use crate::session::Session;
use crate::table::{self, Look};
use gleaner_client::JobQuery;
use gleaner_model::JobId;

/// List jobs, newest first, finished ones too
#[derive(Debug, clap::Args)]
pub(crate) struct JobsArgs {
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    #[command(flatten)]
    form: Form,
}

/// Show one job
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    #[arg(value_name = "J")]
    job: JobId,
    #[command(flatten)]
    form: Form,
}

impl JobsArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let query = JobQuery {
            before: None,
            limit: self.limit,
        };
        let jobs = session.client.jobs(&query).await?;
        if self.form.json {
            out::json(&jobs)?;
        } else if self.form.quiet {
            let ids: String = jobs.iter().map(|job| format!("{}\n", job.id)).collect();
            out::print(&ids)?;
        } else {
            out::print(&table::jobs::list(&jobs, Look::of_stdout()))?;
        }
        Ok(0)
    }
}

impl JobArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let job = session.client.job(self.job, None).await?;
        if self.form.json {
            out::json(&job)?;
        } else if self.form.quiet {
            out::line(job.id.to_string())?;
        } else {
            out::print(&table::jobs::one(&job, Look::of_stdout()))?;
        }
        Ok(0)
    }
}
