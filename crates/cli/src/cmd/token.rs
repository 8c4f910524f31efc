//! `gleaner token new|list|revoke`.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::session::Session;
use crate::table::{self, Look};
use clap::builder::NonEmptyStringValueParser;
use gleaner_api::NewToken;

/// Make, list and revoke tokens of users and nodes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a token and print it: it is shown this once
    New {
        /// Whom it is for
        #[arg(long, value_enum, default_value = "user")]
        kind: Kind,
        /// The user it stands for, or a name to know the node's token by
        #[arg(long)]
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// List tokens, without their secrets
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Make a token worthless
    Revoke {
        /// Its id in the listing
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Submits jobs, and steers their own
    User,
    /// Runs an agent
    Node,
    /// Steers everybody's jobs, nodes and tokens too
    Admin,
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let client = &session.client;
        match self.verb {
            Verb::New { kind, name, form } => {
                let kind = match kind {
                    Kind::User => "user",
                    Kind::Node => "node",
                    Kind::Admin => "admin",
                };
                let token = client
                    .new_token(&NewToken {
                        kind: kind.into(),
                        name,
                    })
                    .await?;
                if form.json {
                    out::json(&token)?;
                } else if form.quiet {
                    out::line(token.secret.as_deref().unwrap_or(""))?;
                } else {
                    out::line(token.secret.as_deref().unwrap_or(""))?;
                    out::say(format!(
                        "keep it in a file that only its owner can read: it is not shown again; \
                         `gleaner token revoke {}` ends it",
                        token.id
                    ));
                }
            }
            Verb::List { form } => {
                let tokens = client.tokens().await?;
                if form.json {
                    out::json(&tokens)?;
                } else if form.quiet {
                    let ids: String = tokens.iter().map(|t| format!("{}\n", t.id)).collect();
                    out::print(&ids)?;
                } else {
                    out::print(&table::tokens::list(&tokens, Look::of_stdout()))?;
                }
            }
            Verb::Revoke { id, form } => {
                client.revoke_token(&id).await?;
                form.done(&id, "revoked", || format!("token {id} is revoked"))?;
            }
        }
        Ok(0)
    }
}
