//! `gleaner nodes` and `gleaner node N [pause|resume|drain|evict]`.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::session::Session;
use crate::table::{self, Look};
use clap::builder::NonEmptyStringValueParser;

/// List the nodes of the pool
#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    form: Form,
}

/// Show a node, or steer it
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// Its name or number
    #[arg(value_name = "N", value_parser = NonEmptyStringValueParser::new())]
    node: String,
    /// What it should do
    #[arg(value_enum)]
    verb: Option<Verb>,
    #[command(flatten)]
    form: Form,
}

/// What a node can be told.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Verb {
    /// Freeze its tasks and take no more
    Pause,
    /// Work again
    Resume,
    /// Take no more and let its tasks end
    Drain,
    /// Give its tasks back now
    Evict,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::Evict => "evict",
        }
    }
}

impl NodesArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let nodes = session.client.nodes().await?;
        if self.form.json {
            out::json(&nodes)?;
        } else if self.form.quiet {
            let ids: String = nodes.iter().map(|node| format!("{}\n", node.id)).collect();
            out::print(&ids)?;
        } else {
            out::print(&table::nodes::list(&nodes, Look::of_stdout()))?;
        }
        Ok(0)
    }
}

impl NodeArgs {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        if let Some(verb) = self.verb {
            session
                .client
                .control_node(&self.node, verb.as_str())
                .await?;
        }
        let node = session.client.node(&self.node).await?;
        if self.form.json {
            out::json(&node)?;
        } else if self.form.quiet {
            out::line(node.id.to_string())?;
        } else {
            out::print(&table::nodes::one(&node, Look::of_stdout()))?;
        }
        Ok(0)
    }
}
