//! Job files: TOML or the same shape in JSON, and errors that say which line, which key, what is
//! wrong and what to write. Those of other systems are read by [`crate::foreign`].

use crate::foreign::{self, htcondor, ourgrid};
use crate::nearest::nearest;
use crate::{ClientError, JobFileError};
use gleaner_model::JobSpec;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Largest job file that is read, in bytes. Long lists belong into a file that `lines` names.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The tables of a job file and their keys, for naming the nearest one.
const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "job", "task", "require", "sweep", "limits", "retry", "verify", "collect",
        ],
    ),
    ("job", &["name", "priority", "tags"]),
    (
        "task",
        &[
            "command",
            "engine",
            "deterministic",
            "image",
            "inputs",
            "outputs",
            "env",
            "stdin",
            "checkpoint",
            "checkpoint_files",
        ],
    ),
    ("require", &["arch", "labels"]),
    (
        "limits",
        &[
            "cpus",
            "memory",
            "disk",
            "disk_io",
            "page_faults",
            "time",
            "cpu_time",
            "processes",
            "output",
            "network",
            "net_io",
        ],
    ),
    ("retry", &["attempts", "max_evictions"]),
    ("verify", &["replicas", "command"]),
    ("collect", &["merge"]),
];

/// A job file that was read, and where it was.
#[derive(Debug, Clone)]
pub struct JobFile {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// The folder that its relative paths start from.
    pub base: PathBuf,
    /// What it says.
    pub spec: JobSpec,
    /// What in it has no effect, in sentences.
    pub warnings: Vec<String>,
    text: String,
    format: Format,
}

/// The language of a job file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Toml,
    Json,
    Submit,
    Jdf,
}

impl Format {
    /// By the name's end, and by the text where that says nothing.
    fn of(path: &Path, text: &str) -> Self {
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("json") => Self::Json,
            Some("toml") => Self::Toml,
            Some("sub" | "submit" | "condor") => Self::Submit,
            Some("jdf") => Self::Jdf,
            _ if text.trim_start().starts_with('{') => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// Reads a job file.
///
/// # Errors
/// [`ClientError::JobFile`] with file, line, key, what is wrong and what to write; [`ClientError::Local`] where
/// the file cannot be read.
pub fn read_job_file(path: &Path) -> Result<JobFile, ClientError> {
    let wrong = |problem: &str| JobFileError {
        file: path.to_path_buf(),
        line: None,
        key: None,
        problem: problem.to_owned(),
    };
    let about = std::fs::metadata(path).map_err(ClientError::local("read", path))?;
    if about.is_dir() {
        return Err(wrong("is a directory; name the job file in it").into());
    }
    // A device or a pipe has no size, and may have no end.
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(ClientError::local("read", path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong("is larger than 16 MiB; put long lists into a file of their own and name it with { lines = \"FILE\" }").into());
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| wrong("is not UTF-8 text; a job file is TOML or JSON"))?;
    let parent = path.parent();
    let base = parent.filter(|parent| !parent.as_os_str().is_empty());
    let base = base.unwrap_or_else(|| Path::new(".")).to_path_buf();
    let format = Format::of(path, &text);
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let (spec, warnings) = match format {
        Format::Toml | Format::Json => (parse(path, &text, format)?, Vec::new()),
        Format::Submit => translated(path, htcondor::read(&text, &name, &base))?,
        Format::Jdf => translated(path, ourgrid::read(&text, &name))?,
    };
    Ok(JobFile {
        path: path.to_path_buf(),
        base,
        spec,
        warnings,
        text,
        format,
    })
}

/// What another system's file says, as a job file of ours.
fn translated(
    path: &Path,
    read: Result<foreign::Read, foreign::Wrong>,
) -> Result<(JobSpec, Vec<String>), JobFileError> {
    let read = read.map_err(|wrong| JobFileError {
        file: path.to_path_buf(),
        line: Some(wrong.line),
        key: None,
        problem: wrong.problem,
    })?;
    // Its lines are nobody's.
    let spec = parse(path, &read.job.to_string(), Format::Json).map_err(|wrong| JobFileError {
        line: None,
        ..wrong
    })?;
    Ok((spec, read.warnings))
}

impl JobFile {
    /// Puts file and line to an error that names a key of this file: the server's, or ours while
    /// looking for its files.
    #[must_use]
    pub fn locate(&self, problem: ClientError) -> ClientError {
        if let ClientError::Refused {
            message,
            key: Some(key),
            ..
        } = problem
        {
            return self.at(key, message).into();
        }
        if let ClientError::JobFile(inner) = &problem
            && inner.line.is_none()
            && let Some(key) = &inner.key
        {
            return self.at(key.clone(), inner.problem.clone()).into();
        }
        problem
    }

    fn at(&self, key: String, problem: String) -> JobFileError {
        JobFileError {
            file: self.path.clone(),
            line: (self.format == Format::Toml)
                .then(|| line_of_key(&self.text, &key))
                .flatten(),
            key: Some(key),
            problem,
        }
    }
}

fn parse(path: &Path, text: &str, format: Format) -> Result<JobSpec, JobFileError> {
    let (found, line) = if format == Format::Json {
        let mut reader = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, JobSpec>(&mut reader) {
            Ok(spec) => match reader.end() {
                Ok(()) => return Ok(spec),
                Err(e) => (Found::new(String::new(), &e.to_string()), Some(e.line())),
            },
            Err(e) => {
                let line = e.inner().line();
                (
                    Found::new(e.path().to_string(), &e.inner().to_string()),
                    Some(line),
                )
            }
        }
    } else {
        match toml::Deserializer::parse(text) {
            Err(e) => (
                Found::new(String::new(), e.message()),
                line_of(text, e.span()),
            ),
            Ok(reader) => match serde_path_to_error::deserialize::<_, JobSpec>(reader) {
                Ok(spec) => return Ok(spec),
                Err(e) => {
                    let line = line_of(text, e.inner().span());
                    (Found::new(e.path().to_string(), e.inner().message()), line)
                }
            },
        }
    };
    let (key, problem) = found.explain();
    Err(JobFileError {
        file: path.to_path_buf(),
        line: line.filter(|line| *line > 0),
        key,
        problem,
    })
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> Option<usize> {
    let start = span?.start.min(text.len());
    // The whole file as a span says nothing about a line.
    (start > 0).then(|| {
        text.as_bytes()[..start]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1
    })
}

/// Where a dotted key stands in a TOML text, by its table's header and its own name; a search by
/// eye rather than a parse, good enough to point at.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let (table, rest) = key.split_once('.').unwrap_or((key, ""));
    let name = rest.split(['.', '[']).next().unwrap_or("");
    let mut inside = false;
    let mut header = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with('[') {
            let title = line.trim_start_matches('[').split(']').next().unwrap_or("");
            inside = title.split('.').next().unwrap_or("").trim() == table;
            if inside {
                header.get_or_insert(number + 1);
            }
        } else if inside && !name.is_empty() {
            let written = line.split('=').next().unwrap_or("").trim();
            if written.trim_matches(['"', '\'']) == name {
                return Some(number + 1);
            }
        }
    }
    header
}

/// An error as the reader of TOML or JSON gave it.
struct Found {
    path: String,
    message: String,
}

impl Found {
    fn new(path: String, message: &str) -> Self {
        // serde_json puts the place into the text; the line stands in front already.
        let message = message.split(" at line ").next().unwrap_or(message);
        // A question mark is a place that has no name: a syntax error, not a key.
        let path = path.trim_end_matches(['.', '?']);
        Self {
            path: path.to_owned(),
            message: message.trim().replace('\n', " "),
        }
    }

    fn explain(self) -> (Option<String>, String) {
        let quoted = |text: &str| text.split('`').nth(1).map(str::to_owned);
        if let Some(rest) = self.message.strip_prefix("unknown field ") {
            let name = quoted(rest).unwrap_or_default();
            let known: Vec<&str> = rest.split('`').skip(3).step_by(2).collect();
            return self.unknown_key(&name, &known);
        }
        if let Some(rest) = self.message.strip_prefix("unknown variant ") {
            let word = quoted(rest).unwrap_or_default();
            let known: Vec<&str> = rest.split('`').skip(3).step_by(2).collect();
            let problem = format!("{word:?} is none of {}", quoted_list(&known));
            return (self.key(), problem);
        }
        if let Some(rest) = self.message.strip_prefix("missing field ") {
            let name = quoted(rest).unwrap_or_default();
            let key = join(&self.path, &name);
            let example = match key.as_str() {
                "task" => "; every job has a table [task] with a command",
                "task.command" => "; write command = [\"program\", \"argument\"]",
                "sweep" => "",
                _ => "; it has no default",
            };
            return (Some(key), format!("is missing{example}"));
        }
        let key = self.key();
        if self.message.ends_with("expected a sequence") {
            return (
                key,
                format!("{}; write a list, as in [\"one\", \"two\"]", self.message),
            );
        }
        (key, self.message)
    }

    fn key(&self) -> Option<String> {
        (!self.path.is_empty()).then(|| self.path.clone())
    }

    fn unknown_key(&self, name: &str, known: &[&str]) -> (Option<String>, String) {
        // The path may or may not end with the unknown key itself.
        let table = self
            .path
            .strip_suffix(name)
            .map_or(self.path.as_str(), |head| head.trim_end_matches('.'));
        let key = join(table, name);
        let elsewhere = KEYS.iter().find(|(other, keys)| {
            *other != table && keys.contains(&name) && !known.contains(&name)
        });
        let nearest = nearest(name, known.iter().copied());
        let problem = match (elsewhere, nearest) {
            (Some((other, _)), _) if !other.is_empty() => {
                format!("unknown key; `{name}` belongs into [{other}]")
            }
            (Some(_), _) => format!("unknown key; [{name}] is a table of its own"),
            (None, Some(near)) => {
                format!(
                    "unknown key; did you mean `{near}`? Known here: {}",
                    quoted_list(known)
                )
            }
            (None, None) => "unknown key; nothing can stand here".to_owned(),
        };
        (Some(key), problem)
    }
}

fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

fn quoted_list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
#[path = "jobfile_tests.rs"]
mod tests;
