//! `gleaner fetch J [DIR]`: brings a job's results here.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::progress::{self, Shown};
use crate::session::Session;
use crate::watch::{self, Interrupt};
use gleaner_client::Progress;
use gleaner_model::{Bytes, JobId};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Fetch a job's results: DIR/<INDEX>/<name>, merged files in DIR
///
/// What is there already is checked and left alone, so a fetch that was broken off goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job
    #[arg(value_name = "J")]
    job: JobId,
    /// Where to [default: ./results-<J>]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Fetch {
    id: JobId,
    name: String,
    state: gleaner_model::JobState,
    results: PathBuf,
    files: u64,
    bytes: u64,
    kept: u64,
}

/// Where results go.
pub(crate) fn folder(asked: Option<&Path>, job: JobId) -> PathBuf {
    asked.map_or_else(
        || PathBuf::from(format!("results-{job}")),
        Path::to_path_buf,
    )
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        // Ended by a signal it would leave parts of files behind.
        let mut interrupt = Interrupt::listen();
        tokio::select! {
            outcome = self.bring(session) => outcome,
            () = interrupt.came() => Err(watch::unfetched(self.job)),
        }
    }

    async fn bring(&self, session: &Session) -> Outcome {
        let client = &session.client;
        // A job that does not exist must not leave an empty folder.
        let job = client.job(self.job).await?;
        let folder = folder(self.dir.as_deref(), self.job);
        let silent = self.form.json || self.form.quiet;
        let shown = if silent {
            Shown::Nothing
        } else {
            Shown::Progress
        };
        let moved = Progress::default();
        let work = gleaner_client::fetch(client, self.job, &folder, &moved);
        let fetched = progress::transfer(shown, "fetching", &moved, work).await?;
        if self.form.json {
            out::json(&Fetch {
                id: job.id,
                name: job.name,
                state: job.state,
                results: folder,
                files: fetched.files,
                bytes: fetched.bytes,
                kept: fetched.kept,
            })?;
        } else if self.form.quiet {
            out::line(job.id.to_string())?;
        } else {
            match fetched.files + fetched.kept {
                0 => out::say(format!(
                    "nothing to fetch: job {} has no result files",
                    job.id
                )),
                _ => {
                    let were_there = match fetched.kept {
                        0 => String::new(),
                        kept => format!(", {kept} were there"),
                    };
                    out::line(format!(
                        "{} ({}) fetched into {}{were_there}",
                        progress::files(fetched.files),
                        Bytes(fetched.bytes),
                        folder.display(),
                    ))?;
                }
            }
            if !job.state.is_over() {
                out::say(format!("job {} is {}: more may come", job.id, job.state));
            }
        }
        Ok(0)
    }
}
