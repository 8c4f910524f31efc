//! `gleaner tasks J`: a job's tasks; `gleaner tasks J.INDEX`: one with its attempts.

use crate::form::Form;
use crate::out::{self, Failure, Outcome};
use crate::session::Session;
use crate::table::{self, Look};
use gleaner_api::TaskView;
use gleaner_client::TaskQuery;
use gleaner_model::{JobId, TaskId, TaskState};

/// Tasks asked for at once.
const PAGE: u32 = 1000;
/// Lines of a table that nobody asked to be longer: more scroll away unread.
const TABLE_ROWS: u64 = 1000;

/// List the tasks of a job; J.INDEX shows one task with its attempts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// J or J.INDEX
    #[arg(value_name = "J")]
    id: String,
    /// Only tasks in this state
    #[arg(long, value_parser = state)]
    state: Option<TaskState>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    form: Form,
}

fn state(word: &str) -> Result<TaskState, String> {
    TaskState::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
        format!("write one of {}", words.join(", "))
    })
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        if self.id.contains('.') {
            return self.one(session).await;
        }
        let job: JobId = self
            .id
            .parse()
            .map_err(|problem| Failure::usage(format!("{problem}")))?;
        let default = if self.form.json || self.form.quiet {
            u64::MAX
        } else {
            TABLE_ROWS
        };
        let mut left = self.limit.unwrap_or(default);
        let mut printer = Printer::new(self.form);
        let mut after = None;
        while left > 0 {
            let ask = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
            let query = TaskQuery {
                state: self.state.map(|state| state.to_string()),
                after,
                limit: Some(ask),
            };
            let page = session.client.tasks(job, &query).await?;
            // The server may give less than asked; only an empty page is the end.
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.id.index);
            left -= left.min(page.len() as u64);
            printer.page(&page)?;
        }
        printer.end()?;
        if after.is_none() && !self.form.json && !self.form.quiet && left > 0 {
            let state = self.state.map(|state| format!("is {state}"));
            let state = state.unwrap_or_else(|| "is there".to_owned());
            out::say(format!("no task of job {job} {state}"));
        }
        if left == 0 && self.limit.is_none() {
            out::say(format!(
                "only the first {TABLE_ROWS}; --limit N or --json shows more"
            ));
        }
        Ok(0)
    }

    async fn one(self, session: &Session) -> Outcome {
        let task: TaskId = self
            .id
            .parse()
            .map_err(|problem| Failure::usage(format!("{problem}")))?;
        let detail = session.client.task(task).await?;
        if self.form.json {
            out::json(&detail)?;
        } else if self.form.quiet {
            out::line(task.to_string())?;
        } else {
            out::print(&table::tasks::one(&detail, Look::of_stdout()))?;
        }
        Ok(0)
    }
}

/// Prints pages as they come: a million tasks are never in memory at once.
struct Printer {
    form: Form,
    any: bool,
}

impl Printer {
    const fn new(form: Form) -> Self {
        Self { form, any: false }
    }

    fn page(&mut self, page: &[TaskView]) -> Result<(), Failure> {
        if self.form.quiet {
            let ids: String = page.iter().map(|task| format!("{}\n", task.id)).collect();
            return out::print(&ids);
        }
        if !self.form.json {
            return out::print(&table::tasks::list(page, Look::of_stdout()));
        }
        let mut text = String::new();
        for task in page {
            text.push_str(if self.any { ",\n" } else { "[\n" });
            self.any = true;
            let object = serde_json::to_string(task)
                .map_err(|problem| Failure::new(out::REFUSED, problem.to_string()))?;
            text.push_str(&object);
        }
        // JSON has its own way with what a terminal would obey.
        out::print_bytes(text.as_bytes())
    }

    fn end(&self) -> Result<(), Failure> {
        match (self.form.json, self.any) {
            (true, true) => out::line("\n]"),
            (true, false) => out::line("[]"),
            (false, _) => Ok(()),
        }
    }
}
