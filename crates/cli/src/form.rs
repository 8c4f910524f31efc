//! The forms that every listing has beside its table.

/// How a listing shows itself.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Form {
    /// One array of objects (a command about one thing: one object)
    #[arg(long)]
    pub(crate) json: bool,
    /// Ids only
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
}
