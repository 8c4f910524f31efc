//! `gleaner jobs` and `gleaner job J`.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::session::Session;
use crate::table::{self, Look};
use gleaner_api::JobView;
use gleaner_client::JobQuery;
use gleaner_model::JobId;

/// Jobs asked for at once.
const PAGE: u32 = 1000;
/// Lines of a table that nobody asked to be longer.
const TABLE_ROWS: u32 = 50;

/// List jobs, newest first, finished ones too
#[derive(Debug, clap::Args)]
pub(crate) struct JobsArgs {
    /// At most so many [default: 50 in a table, else all]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    #[command(flatten)]
    form: Form,
}

/// Show one job
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// The job
    #[arg(value_name = "J")]
    job: JobId,
    #[command(flatten)]
    form: Form,
}

impl JobsArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let jobs = self.jobs(session).await?;
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

impl JobsArgs {
    /// As many as asked for, page by page.
    async fn jobs(&self, session: &Session) -> Result<Vec<JobView>, out::Failure> {
        let programs = self.form.json || self.form.quiet;
        let most = self
            .limit
            .unwrap_or(if programs { u32::MAX } else { TABLE_ROWS });
        let mut jobs: Vec<JobView> = Vec::new();
        loop {
            let left = most - u32::try_from(jobs.len()).unwrap_or(u32::MAX).min(most);
            let query = JobQuery {
                before: jobs.last().map(|job| job.id.0),
                limit: Some(left.min(PAGE)),
            };
            if left == 0 {
                return Ok(jobs);
            }
            let page = session.client.jobs(&query).await?;
            let end = page.len() < usize::try_from(left.min(PAGE)).unwrap_or(usize::MAX);
            jobs.extend(page);
            if end {
                return Ok(jobs);
            }
        }
    }
}

impl JobArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let job = session.client.job(self.job).await?;
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
