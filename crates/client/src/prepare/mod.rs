//! From a job file to a submission: finds every local file that the job needs, hashes them,
//! uploads what the server lacks, and hands the job in.
//!
//! The server splits the job; here an axis is only expanded as far as paths of inputs need it.

mod axes;
mod download;
mod hash;
mod hints;

use crate::blobs::{self, Source};
use crate::{Client, ClientError, JobFileError, Progress};
use axes::Axes;
use gleaner_api::{JobView, check_patterns};
use gleaner_model::{
    Axis, BlobRef, Digest, FileEntry, JobSpec, Merge, SpecError, Submission, Sweep,
};
use hash::Hashed;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Most local files that `inputs` of one job may name. Jobs with more files than this have them
/// on an axis, where they cost one line each.
const INPUT_FILES_MAX: usize = 100_000;

/// Folders that every node has from its own system: a program there is used, not sent, because
/// it would not find its libraries and data from elsewhere.
const SYSTEM_FOLDERS: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];

/// A job with everything found and hashed, ready to hand in.
#[derive(Debug)]
pub struct Prepared {
    /// What will be sent.
    pub submission: Submission,
    /// What looks like a slip of the pen, in sentences.
    pub warnings: Vec<String>,
    sources: Sources,
}

/// The bytes behind a submission.
#[derive(Debug, Default)]
pub struct Sources {
    blobs: BTreeMap<BlobRef, Source>,
    // Downloads are removed when this goes.
    downloads: Vec<tempfile::TempPath>,
}

impl Sources {
    /// How many different files there are.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.blobs.len()
    }
}

impl Prepared {
    /// The bytes behind it.
    #[must_use]
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }
}

/// An error at a dotted key; the job file's name and line are put to it by
/// [`crate::JobFile::locate`].
fn at(key: impl Into<String>, problem: impl Into<String>) -> ClientError {
    JobFileError {
        file: PathBuf::new(),
        line: None,
        key: Some(key.into()),
        problem: problem.into(),
    }
    .into()
}

/// Finds and hashes everything that `spec` names; relative paths start from `base`. `progress`
/// counts what was read and downloaded.
///
/// # Errors
/// [`ClientError::JobFile`] at the key whose file is missing, unreadable or has an unusable name.
pub async fn prepare(
    mut spec: JobSpec,
    base: &Path,
    progress: &Progress,
) -> Result<Prepared, ClientError> {
    let warnings = hints::near_names(&spec);
    check_patterns(&spec)?;
    let base = std::path::absolute(base).map_err(|problem| {
        ClientError::Settings(format!(
            "the folder that you are in cannot be found ({problem}): where it was removed, change \
             to another"
        ))
    })?;
    let axes = find_axes(&spec.sweep, &base).await?;
    let mut wanted = Wanted::default();
    wanted.inputs(&spec, &axes, &base)?;
    wanted.programs(&mut spec, &axes, &base)?;
    axes.check_names(&wanted.sandbox_names)?;
    let mut sources = Sources::default();
    let mut files = Vec::new();
    for url in &wanted.urls {
        let (blob, path) = download::download(url, progress)
            .await
            .map_err(|e| at("task.inputs", e))?;
        sources.blobs.insert(blob, Source::File(path.to_path_buf()));
        sources.downloads.push(path);
        files.push(FileEntry {
            name: url.clone(),
            blob,
            mode: 0o644,
        });
    }
    let paths = wanted.paths.values().map(|(path, _)| path.clone());
    let hashed = hash::all(paths.chain(axes.paths()).collect(), progress).await;
    for (name, (path, key)) in &wanted.paths {
        let found = usable(&hashed, path, key)?;
        sources.blobs.insert(found.blob, Source::File(path.clone()));
        files.push(FileEntry {
            name: name.clone(),
            blob: found.blob,
            mode: found.mode,
        });
    }
    let axis_blobs = axis_blobs(&axes, &spec.sweep, &hashed, &mut sources)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Prepared {
        submission: Submission {
            spec,
            files,
            axes: axis_blobs,
        },
        warnings,
        sources,
    })
}

/// Looks at folders, which blocks; the caller may have an interrupt to heed.
async fn find_axes(sweep: &Sweep, base: &Path) -> Result<Axes, ClientError> {
    let (sweep, base) = (sweep.clone(), base.to_path_buf());
    let find = tokio::task::spawn_blocking(move || Axes::find(&sweep, &base));
    find.await
        .map_err(|problem| at("sweep", problem.to_string()))?
}

/// Uploads what the server lacks and hands the job in.
///
/// # Errors
/// As every call of [`Client`]; a refusal names its key.
pub async fn submit(
    client: &Client,
    prepared: &Prepared,
    progress: &Progress,
) -> Result<JobView, ClientError> {
    if !prepared.sources.blobs.is_empty() {
        blobs::upload(client, &prepared.sources.blobs, progress).await?;
    }
    client.submit(&prepared.submission).await
}

fn usable<'h>(hashed: &'h Hashed, path: &Path, key: &str) -> Result<&'h hash::Found, ClientError> {
    match hashed.get(path) {
        Some(Ok(found)) => Ok(found),
        Some(Err(problem)) => Err(at(key, format!("{}: {problem}", path.display()))),
        None => Err(at(key, format!("{}: was not read", path.display()))),
    }
}

/// The blob that stands for each axis that needs one.
fn axis_blobs(
    axes: &Axes,
    sweep: &Sweep,
    hashed: &Hashed,
    sources: &mut Sources,
) -> Result<BTreeMap<String, BlobRef>, ClientError> {
    let mut blobs = BTreeMap::new();
    for (name, axis) in &sweep.axes {
        let key = format!("sweep.{name}");
        match axis {
            Axis::Range(..) | Axis::List(_) => {}
            Axis::Files(_) => {
                let mut lines = Vec::new();
                for (value, path) in axes.files(name) {
                    let found = usable(hashed, path, &key)?;
                    sources.blobs.insert(found.blob, Source::File(path.clone()));
                    let entry = FileEntry {
                        name: value.clone(),
                        blob: found.blob,
                        mode: found.mode,
                    };
                    serde_json::to_writer(&mut lines, &entry)
                        .map_err(|e| at(key.as_str(), e.to_string()))?;
                    lines.push(b'\n');
                }
                let blob = BlobRef {
                    digest: Digest(*blake3::hash(&lines).as_bytes()),
                    size: lines.len() as u64,
                };
                sources.blobs.insert(blob, Source::Memory(lines.into()));
                blobs.insert(name.clone(), blob);
            }
            Axis::Lines(_) | Axis::Split(_) => {
                for (_, path) in axes.files(name) {
                    let found = usable(hashed, path, &key)?;
                    sources.blobs.insert(found.blob, Source::File(path.clone()));
                    blobs.insert(name.clone(), found.blob);
                }
            }
        }
    }
    Ok(blobs)
}

/// What has to be found besides the axes.
#[derive(Debug, Default)]
struct Wanted {
    /// Path as the job file has it -> path on this PC, and the key that asked for it.
    paths: BTreeMap<String, (PathBuf, String)>,
    urls: BTreeSet<String>,
    /// Names in the sandbox without placeholders, for finding two files of one name.
    sandbox_names: BTreeSet<String>,
}

impl Wanted {
    fn inputs(&mut self, spec: &JobSpec, axes: &Axes, base: &Path) -> Result<(), ClientError> {
        for (name, source) in &spec.task.inputs {
            let key = format!("task.inputs.{name}");
            check_name(name).map_err(|problem| at(key.as_str(), problem))?;
            self.sandbox_names.insert(name.clone());
            self.source(&key, source, axes, base)?;
        }
        if let Some(Merge::Command(merge)) = &spec.collect.merge {
            for (name, source) in &merge.inputs {
                let key = format!("collect.merge.inputs.{name}");
                check_name(name).map_err(|problem| at(key.as_str(), problem))?;
                self.source(&key, source, axes, base)?;
            }
        }
        Ok(())
    }

    fn source(
        &mut self,
        key: &str,
        source: &str,
        axes: &Axes,
        base: &Path,
    ) -> Result<(), ClientError> {
        let filled = axes.expand(source).map_err(|e| at(key, e.problem))?;
        for text in filled {
            if text.starts_with("blake3:") {
                text.parse::<Digest>().map_err(|e| at(key, e.to_string()))?;
            } else if text.starts_with("https://") {
                self.urls.insert(text);
            } else if text.starts_with("http://") {
                let problem =
                    format!("{text}: plain http can be changed on its way; write https://");
                return Err(at(key, problem));
            } else if let Entry::Vacant(new) = self.paths.entry(text) {
                let path = base.join(new.key());
                check_file(&path).map_err(|problem| at(key, problem))?;
                new.insert((path, key.to_owned()));
            }
            if self.paths.len() + self.urls.len() > INPUT_FILES_MAX {
                let problem = format!(
                    "names more than {INPUT_FILES_MAX} files; use a `files` axis or an archive"
                );
                return Err(at(key, problem));
            }
        }
        Ok(())
    }

    /// A program with a slash in its name that exists here goes along.
    fn programs(
        &mut self,
        spec: &mut JobSpec,
        axes: &Axes,
        base: &Path,
    ) -> Result<(), ClientError> {
        let has_image = spec.task.image.is_some();
        self.program(
            "task.command",
            &mut spec.task.command,
            axes,
            (base, has_image),
        )?;
        if let Some(command) = &mut spec.verify.command {
            self.program("verify.command", command, axes, (base, has_image))?;
        }
        if let Some(Merge::Command(merge)) = &mut spec.collect.merge {
            self.program(
                "collect.merge.command",
                &mut merge.command,
                axes,
                (base, has_image),
            )?;
        }
        Ok(())
    }

    fn program(
        &mut self,
        key: &str,
        command: &mut [String],
        axes: &Axes,
        (base, has_image): (&Path, bool),
    ) -> Result<(), ClientError> {
        let Some(program) = command.first_mut().filter(|program| program.contains('/')) else {
            return Ok(());
        };
        let in_system = SYSTEM_FOLDERS
            .iter()
            .any(|folder| Path::new(&**program).starts_with(folder));
        if program.starts_with('/') && (in_system || has_image) {
            return Ok(());
        }
        let filled = axes.expand(program).map_err(|e| at(key, e.problem))?;
        for text in filled {
            let path = base.join(&text);
            if !path.is_file() {
                continue;
            }
            let inside = Path::new(&text)
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            let mut name = text.clone();
            if !inside {
                // It lies above or beside the job's folder, and in the sandbox nothing does.
                let file_name = path.file_name().and_then(std::ffi::OsStr::to_str);
                let Some(file_name) = file_name else {
                    return Err(at(key, format!("{}: has no usable name", path.display())));
                };
                if text != *program {
                    let problem = format!(
                        "{text}: a program named through an axis must lie beside the job file"
                    );
                    return Err(at(key, problem));
                }
                name = format!("./{file_name}");
                program.clone_from(&name);
            }
            self.paths.insert(name, (path, key.to_owned()));
        }
        Ok(())
    }
}

/// A name that can travel: one line of text without control characters.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a file needs a name".into());
    }
    if name.chars().any(char::is_control) {
        return Err(format!(
            "{name:?} holds a line break or another control character; rename the file"
        ));
    }
    Ok(())
}

fn check_file(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Err(format!(
            "there is no file {shown}; paths are relative to the job file, and without one to \
             where you are"
        )),
        Err(problem) => Err(format!("cannot read {shown}: {problem}")),
        Ok(about) if about.is_dir() => Err(format!(
            "{shown} is a directory; name its files one by one, or send an archive"
        )),
        Ok(about) if !about.is_file() => Err(format!("{shown} is not a regular file")),
        Ok(_) => Ok(()),
    }
}

impl From<SpecError> for ClientError {
    fn from(wrong: SpecError) -> Self {
        at(wrong.key, wrong.problem)
    }
}

#[cfg(test)]
mod tests;
