//! `gleaner image`: the pool's images, and what guests on this PC are made of.

mod guest;

use crate::form::Form;
use crate::out::{self, Failure, Outcome, REFUSED};
use crate::progress::{self, Shown};
use crate::session::{Session, block_on};
use crate::table::{self, Look};
use clap::builder::NonEmptyStringValueParser;
use gleaner_client::Progress;
use gleaner_image::{BYTES_MAX, ImageError};
use gleaner_model::{BlobRef, Bytes, Digest};
use std::path::{Path, PathBuf};

/// Make, list and remove images: root file systems for tasks, each one file
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make an image of a directory, a tar archive (plain, gzip, zstd), an OCI layout or what
    /// `docker save` wrote, and give it to the pool
    Import {
        /// What jobs will call it; an image of this name is replaced, for jobs submitted later
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// The directory or archive
        source: PathBuf,
        /// Most bytes of all its files [default: 32GiB]
        #[arg(long, value_name = "SIZE", default_value_t = Bytes(BYTES_MAX), hide_default_value = true)]
        max_size: Bytes,
        #[command(flatten)]
        form: Form,
    },
    /// List the pool's images
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Take an image's name away; jobs that were submitted with it keep it
    Remove {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// Build the guest's kernel, first file system and base image from this PC's packages, where
    /// they are missing or older, and try them
    Guest {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    pub(crate) fn run(self, config: Option<PathBuf>) -> Outcome {
        let session = || Session::open(config);
        match self.verb {
            Verb::Guest { json } => guest::run(json),
            Verb::Import {
                name,
                source,
                max_size,
                form,
            } => {
                // Before the work: a pool that is not there is no reason to wait for it.
                let session = session()?;
                let file = tempfile::NamedTempFile::new().map_err(|error| {
                    Failure::new(REFUSED, format!("no temporary file: {error}"))
                })?;
                let (blob, note) = make(&source, max_size, file.as_file())?;
                block_on(import(&session, &name, (file.path(), blob, &note), form))
            }
            Verb::List { form } => {
                let session = session()?;
                block_on(list(&session, form))
            }
            Verb::Remove { name, form } => {
                let session = session()?;
                block_on(async {
                    session.client.remove_image(&name).await?;
                    form.done(&name, "removed", || format!("image {name} is removed"))?;
                    Ok(0)
                })
            }
        }
    }
}

/// Turns a source into an image in `file`. Says what it is, and what it was made of.
fn make(
    source: &Path,
    max_size: Bytes,
    mut file: &std::fs::File,
) -> Result<(BlobRef, String), Failure> {
    let wrong = |error: ImageError| match error {
        // It names the file.
        ImageError::Io { .. } => Failure::usage(error.to_string()),
        ImageError::Entry { .. } | ImageError::Source(_) | ImageError::Foreign(_) => {
            Failure::usage(format!("{}: {error}", source.display()))
        }
    };
    let failed = |error: ImageError| {
        let image = format!(
            "an image of {} cannot be written: {error}",
            source.display()
        );
        Failure::new(REFUSED, image)
    };
    let imported = gleaner_image::import(source, max_size.0).map_err(wrong)?;
    let (size, digest) = imported.tree.write(&mut file).map_err(failed)?;
    for note in &imported.notes {
        out::say(note);
    }
    let base = source.file_name().unwrap_or_default().to_string_lossy();
    let note = format!("{} {base}", imported.kind);
    let note = note.chars().filter(|c| !c.is_control()).take(128).collect();
    let digest = Digest(digest);
    Ok((BlobRef { digest, size }, note))
}

async fn import(
    session: &Session,
    name: &str,
    (file, blob, note): (&Path, BlobRef, &str),
    form: Form,
) -> Outcome {
    let moved = Progress::default();
    let work = session.client.new_image(name, (file, blob), note, &moved);
    let shown = if form.json || form.quiet {
        Shown::Nothing
    } else {
        Shown::Progress
    };
    let image = progress::transfer(shown, "sending", &moved, work).await?;
    if form.json {
        out::json(&image)?;
    } else if form.quiet {
        out::line(&image.id)?;
    } else {
        out::line(format!(
            "{} {} {}",
            image.name,
            image.digest,
            Bytes(image.size)
        ))?;
        out::say(format!(
            "jobs take it with `--image {name}`, or `image = \"{name}\"` in [task]"
        ));
    }
    Ok(0)
}

async fn list(session: &Session, form: Form) -> Outcome {
    let images = session.client.images().await?;
    if form.json {
        out::json(&images)?;
    } else if form.quiet {
        let ids: String = images
            .iter()
            .map(|image| format!("{}\n", image.id))
            .collect();
        out::print(&ids)?;
    } else {
        out::print(&table::images::list(&images, Look::of_stdout()))?;
    }
    Ok(0)
}
