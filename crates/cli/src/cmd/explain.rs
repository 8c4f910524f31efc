//! `gleaner explain J`: why a job waits.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::session::Session;
use crate::table::{self, Look};
use gleaner_api::ExplainView;
use gleaner_model::{JobId, JobState};
use serde::Serialize;

/// What `--json` prints: the job as listings call it, and why it waits.
#[derive(Debug, Serialize)]
struct Explained {
    name: String,
    state: JobState,
    #[serde(flatten)]
    why: ExplainView,
}

/// The rule of a job that is over.
pub(super) const JOB_OVER: &str = "job-over";

/// Say which rule keeps a job's tasks waiting, and how many nodes fail it
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
        let why = session.client.explain(self.job).await?;
        if self.form.json {
            let job = session.client.job(self.job).await?;
            let (name, state) = (job.name, job.state);
            out::json(&Explained { name, state, why })?;
            return Ok(0);
        }
        if self.form.quiet {
            out::line(why.rule.as_deref().unwrap_or(""))?;
            return Ok(0);
        }
        out::line(&why.sentence)?;
        if let Some(engine) = &why.engine {
            out::line(engine)?;
        }
        let failing: Vec<_> = why
            .rules
            .iter()
            .filter(|rule| rule.nodes_failing > 0)
            .collect();
        // What no longer waits is kept by no rule, whatever nodes would say of it.
        let waits = why.rule.as_deref().is_some_and(|rule| rule != JOB_OVER);
        if waits && !failing.is_empty() {
            let mut rows = table::table(Look::of_stdout(), &["RULE", "NODES FAILING"]);
            for rule in failing {
                rows.add_row(vec![
                    rule.rule.clone(),
                    format!("{} of {}", rule.nodes_failing, why.nodes),
                ]);
            }
            out::print(&format!("\n{}", table::text(rows)))?;
        }
        Ok(0)
    }
}
