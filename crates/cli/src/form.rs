//! The forms that every listing has beside its table, and every order beside its sentence.

use crate::out::{self, Failure};
use serde::Serialize;

/// How a command shows what it has to say.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Form {
    /// One array of objects (a command about one thing: one object)
    #[arg(long)]
    pub(crate) json: bool,
    /// Ids only
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

/// What `--json` prints of an order that was carried out.
#[derive(Debug, Serialize)]
struct Done<'d> {
    id: &'d str,
    state: &'d str,
}

impl Form {
    /// Says that something is `state` from now on.
    pub(crate) fn done(
        self,
        id: &str,
        state: &str,
        sentence: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match (self.json, self.quiet) {
            (true, _) => out::json(&Done { id, state }),
            (false, true) => out::line(id),
            (false, false) => {
                out::say(sentence());
                Ok(())
            }
        }
    }
}
