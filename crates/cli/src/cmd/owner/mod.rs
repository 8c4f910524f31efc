//! `gleaner owner …`: what the person at a PC sees, stops and sets. It talks to the agents of
//! this PC over their sockets; no server and no token is needed.

mod history;
mod limits;
mod top;
mod when;

use crate::form::Form;
use crate::out::{self, Failure, Outcome, REFUSED, USAGE};
use crate::table::owner as tables;
use crate::table::{Look, owner::Shape};
use gleaner_agent::owner::{Agent, Answer, Ask, AskError, Overview};
use std::path::PathBuf;

/// Exit code when nobody answers.
const NO_ANSWER: u8 = 3;

/// Look at what runs on this PC, pause it, limit it: for whoever sits here
///
/// Works without the server. Owners are root, members of the group gleaner, whoever is logged in
/// at the screen, and the user that the agent runs as.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: Command,
}

/// Behind the options of the command itself.
const LAST: usize = 100;

/// Which agent is meant, and how the answer looks.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// The agent that works in this directory
    #[arg(long, global = true, value_name = "DIR", display_order = LAST)]
    data: Option<PathBuf>,
    /// The agent with this name, where several run here
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "data", display_order = LAST)]
    node: Option<String>,
    /// One JSON object; history: an array
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
    /// Ids only; why: the rule, page: the address
    #[arg(long, short, global = true, conflicts_with = "json", display_order = LAST)]
    quiet: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What happens now, and why
    Status,
    /// Run nothing for a while: 1h, 30min, until 18:00, until tomorrow; else until you resume
    Pause {
        /// For how long
        #[arg(value_name = "FOR", num_args = 0..=2)]
        how_long: Vec<String>,
    },
    /// Let it work again
    Resume,
    Limits(limits::Args),
    /// What ran here and for whom, and when work paused
    History {
        /// How many days back
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=30))]
        days: u32,
    },
    /// The rule that decides now, and what every sense says
    Why,
    /// Open the page of this PC in a browser, or print its address
    Page {
        /// Print the address only
        #[arg(long)]
        print: bool,
    },
    /// Watch in the terminal: p pauses for an hour, r resumes, q leaves
    Top,
    /// Count how long this PC idles and when, on this PC only
    Record {
        /// What to do; without it, say whether it is on
        #[arg(value_enum)]
        verb: Option<RecordVerb>,
    },
}

/// What the recorder can be told.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RecordVerb {
    /// Begin to count
    On,
    /// Stop counting; what was counted stays
    Off,
    /// Print what was counted, for `gleaner sim --trace`
    Export,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        if matches!(self.command, Command::Status) {
            return self.which.status();
        }
        let (form, agent) = (self.which.form(), self.which.agent()?);
        match self.command {
            Command::Status => show(&agent.ask(&Ask::Status)?, form),
            Command::Top => top::run(&agent),
            Command::Pause { how_long } => {
                let until = when::until(&how_long).map_err(Failure::usage)?;
                show(&agent.ask(&Ask::Pause { until })?, form)
            }
            Command::Resume => show(&agent.ask(&Ask::Resume)?, form),
            Command::Limits(args) => show(&args.ask(&agent)?, form),
            Command::History { days } => show(&agent.ask(&Ask::History { days })?, form),
            Command::Why => show(&agent.ask(&Ask::Why)?, form),
            Command::Page { print } => page(&agent.ask(&Ask::Page)?, print, form),
            Command::Record { verb } => {
                let ask = match verb {
                    None => Ask::Record { on: None },
                    Some(RecordVerb::On) => Ask::Record { on: Some(true) },
                    Some(RecordVerb::Off) => Ask::Record { on: Some(false) },
                    Some(RecordVerb::Export) => Ask::RecordExport,
                };
                show(&agent.ask(&ask)?, form)
            }
        }
    }
}

impl Which {
    const fn form(&self) -> Form {
        Form {
            json: self.json,
            quiet: self.quiet,
        }
    }

    fn agent(&self) -> Result<Agent, Failure> {
        match &self.data {
            Some(data) => Ok(Agent::in_directory(data)),
            None => Ok(Agent::find(self.node.as_deref())?),
        }
    }

    /// The one that is meant, or a line for each where several run here.
    fn status(&self) -> Outcome {
        if self.data.is_some() || self.node.is_some() {
            return show(&self.agent()?.ask(&Ask::Status)?, self.form());
        }
        let mut found: Vec<Overview> = Agent::list()?.into_iter().map(|one| one.1).collect();
        if found.len() == 1
            && let Some(only) = found.pop()
        {
            return show(&Answer::Status(Box::new(only)), self.form());
        }
        if self.json {
            out::json(&found)?;
        } else if self.quiet {
            let ids: String = found.iter().map(|one| format!("{}\n", one.id)).collect();
            out::print(&ids)?;
        } else {
            out::print(&tables::several(&found, Look::of_stdout()))?;
            out::say("several agents run here; --node NAME tells more of one");
        }
        Ok(0)
    }
}

impl From<AskError> for Failure {
    fn from(problem: AskError) -> Self {
        let code = match &problem {
            AskError::NoAgent { .. } | AskError::Broken(_) => NO_ANSWER,
            AskError::Several { .. } | AskError::Unknown { .. } | AskError::Namesakes { .. } => {
                USAGE
            }
            AskError::Refused(refusal) if refusal.usage => USAGE,
            AskError::Refused(_) => REFUSED,
        };
        Self::new(code, problem.to_string())
    }
}

/// Prints an answer.
fn show(answer: &Answer, form: Form) -> Outcome {
    let shape = Shape::of_stdout();
    let text = match answer {
        Answer::Refused(refusal) => return Err(Failure::new(REFUSED, refusal.sentence.clone())),
        _ if form.quiet => ids(answer),
        Answer::Today(today) => return object(today),
        Answer::Histogram(histogram) => return object(histogram),
        Answer::Status(overview) if form.json => return object(overview),
        Answer::Why(why) if form.json => return object(why),
        Answer::History(entries) if form.json => return object(&history::rows(entries)?),
        Answer::Limits(limits) if form.json => return object(limits),
        Answer::Record { on, gaps, since } if form.json => {
            return object(&serde_json::json!({
                "on": on, "gaps": gaps, "since": since.map(when::text),
            }));
        }
        Answer::Status(overview) => tables::status(overview, &shape),
        Answer::Why(why) => tables::why(why, &shape),
        Answer::History(entries) => tables::history(entries, &shape),
        Answer::Limits(limits) => tables::limits(limits, &shape),
        Answer::Record { on, gaps, since } => tables::record(*on, *gaps, *since, &shape),
        Answer::Page { url } => format!("{url}\n"),
    };
    out::print(&text)?;
    Ok(0)
}

/// What `--quiet` prints: what another command takes, or a program asks for.
fn ids(answer: &Answer) -> String {
    let line = |text: &str| format!("{text}\n");
    match answer {
        Answer::Status(overview) => line(&overview.id),
        Answer::Why(why) => line(&why.rule),
        Answer::History(entries) => entries.iter().map(|one| line(&history::id(one))).collect(),
        Answer::Limits(limits) => line(&limits.name),
        Answer::Record { on, .. } => line(if *on { "on" } else { "off" }),
        Answer::Page { url } => line(url),
        Answer::Histogram(histogram) => line(&histogram.to_string()),
        Answer::Today(_) | Answer::Refused(_) => String::new(),
    }
}

fn object(value: &impl serde::Serialize) -> Outcome {
    out::json(value)?;
    Ok(0)
}

/// Prints the page's address, and opens it where there is a desktop.
fn page(answer: &Answer, print: bool, form: Form) -> Outcome {
    let Answer::Page { url } = answer else {
        return show(answer, form);
    };
    if form.json {
        return object(&serde_json::json!({ "url": url }));
    }
    out::line(url)?;
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if !print && !form.quiet && desktop {
        // A browser that cannot be started is no failure: the address stands above.
        let opened = std::process::Command::new("xdg-open")
            .arg(url)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        if opened.is_err() {
            out::say("open this address in a browser on this PC");
        }
    }
    Ok(0)
}
