//! The options that `run` and `map` share: a job file's keys on the command line.

use crate::out::Failure;
pub(crate) use gleaner_model::verbatim;
use gleaner_model::{Bytes, Cpus, EngineChoice, JobHead, JobSpec, LimitSpec, Span, TaskSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Options of a task.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TaskOptions {
    /// A file the task needs; its name there is the one the command uses, or choose it: NAME=FILE
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Vec<String>,
    /// Files that come home; a glob relative to where the command starts
    #[arg(long, short, value_name = "GLOB")]
    pub(crate) output: Vec<String>,
    /// Root file system instead of the node's own programs
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// What contains the task: process, vm, wasm or auto
    #[arg(long, value_parser = engine)]
    pub(crate) engine: Option<EngineChoice>,
    /// Environment variable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Processors [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<Cpus>,
    /// Memory, as in 512MiB [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
    /// Scratch space, as in 10GiB [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<Bytes>,
    /// Wall time without pauses, as in 30min [default: 24h]
    #[arg(long, value_name = "SPAN")]
    pub(crate) time: Option<Span>,
    /// Name of the job [default: the command's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where results go [default: ./results-<JOB>]
    #[arg(long, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,
    /// One JSON object on standard output when it is over, nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Only submit, and print the job's id
    #[arg(long, short)]
    pub(crate) detach: bool,
}

/// Keys of a job file, and what stands for them on the command line.
const KEYS: [(&str, &str); 12] = [
    ("limits.cpus", "--cpus"),
    ("limits.memory", "--memory"),
    ("limits.disk", "--disk"),
    ("limits.time", "--time"),
    ("task.inputs.", "--input "),
    ("task.inputs", "--input"),
    ("task.outputs", "--output"),
    ("task.env.", "--env "),
    ("task.engine", "--engine"),
    ("task.image", "--image"),
    ("sweep.file: ", ""),
    ("sweep.line: ", ""),
];

/// A failure in the words of who wrote options and no job file.
pub(crate) fn in_options(failure: Failure) -> Failure {
    let replaced = |text: String, (key, option): &(&str, &str)| text.replace(key, option);
    let message = KEYS.iter().fold(failure.message, replaced);
    Failure { message, ..failure }
}

pub(super) fn engine(word: &str) -> Result<EngineChoice, String> {
    EngineChoice::from_word(word).ok_or_else(|| "write process, vm, wasm or auto".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl TaskOptions {
    /// The job that these options and a command make. `written` turns what stands on the command
    /// line into what stands in a job file, where braces mean something.
    pub(crate) fn spec(
        &self,
        command: &[String],
        written: &dyn Fn(&str) -> String,
    ) -> Result<JobSpec, Failure> {
        let mut inputs = BTreeMap::new();
        for input in &self.input {
            let (name, path) = named_input(input, command)?;
            if inputs.insert(written(&name), written(&path)).is_some() {
                return Err(Failure::usage(format!(
                    "two --input files are named {name}; choose names: --input NAME=FILE"
                )));
            }
        }
        let env = self
            .env
            .iter()
            .map(|(name, value)| (name.clone(), written(value)));
        Ok(JobSpec {
            job: JobHead {
                name: self.name.clone().unwrap_or_default(),
                ..JobHead::default()
            },
            task: TaskSpec {
                command: command.iter().map(|word| written(word)).collect(),
                engine: self.engine,
                deterministic: false,
                image: self.image.clone(),
                inputs,
                outputs: self.output.iter().map(|glob| written(glob)).collect(),
                env: env.collect(),
                stdin: None,
                checkpoint: None,
                checkpoint_files: Vec::new(),
            },
            limits: LimitSpec {
                cpus: self.cpus,
                memory: self.memory,
                disk: self.disk,
                time: self.time,
                ..LimitSpec::default()
            },
            require: Default::default(),
            sweep: Default::default(),
            retry: Default::default(),
            verify: Default::default(),
            collect: Default::default(),
        })
    }
}

/// Name in the sandbox, and path here. A path that the command names as it is keeps its name, so
/// that a command that works here works there; else its last part is its name.
fn named_input(input: &str, command: &[String]) -> Result<(String, String), Failure> {
    if let Some((name, path)) = input.split_once('=')
        && !name.is_empty()
        && !name.contains('/')
        && !Path::new(input).exists()
    {
        return Ok((name.to_owned(), path.to_owned()));
    }
    let path = Path::new(input);
    let inside = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if inside && command.iter().any(|word| word.contains(input)) {
        return Ok((input.to_owned(), input.to_owned()));
    }
    match path.file_name().and_then(std::ffi::OsStr::to_str) {
        Some(name) => Ok((name.to_owned(), input.to_owned())),
        None => Err(Failure::usage(format!(
            "--input {input}: has no file name; write --input NAME=FILE"
        ))),
    }
}

/// `{}` becomes `{axis}`; `{{` stays an escape.
pub(crate) fn with_axis(text: &str, axis: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        written.push_str(&rest[..at]);
        let tail = &rest[at..];
        let (shown, used) = if tail.starts_with("{{") {
            ("{{".to_owned(), 2)
        } else if tail.starts_with("{}") {
            (format!("{{{axis}}}"), 2)
        } else {
            ("{".to_owned(), 1)
        };
        written.push_str(&shown);
        rest = &tail[used..];
    }
    written.push_str(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_named_as_the_command_names_them() {
        let command = ["cat".to_owned(), "data/in.txt".to_owned()];
        for (input, name, path) in [
            ("data/in.txt", "data/in.txt", "data/in.txt"),
            ("data/other.txt", "other.txt", "data/other.txt"),
            ("/abs/x.txt", "x.txt", "/abs/x.txt"),
            ("../up.txt", "up.txt", "../up.txt"),
            ("n=data/in.txt", "n", "data/in.txt"),
        ] {
            let found = named_input(input, &command).unwrap();
            assert_eq!(found, (name.to_owned(), path.to_owned()), "{input}");
        }
        assert_eq!(named_input("..", &command).unwrap_err().code, 2);
    }

    #[test]
    fn who_wrote_no_job_file_hears_of_options() {
        for (said, told) in [
            (
                "task.inputs.a.txt: there is no file a.txt",
                "--input a.txt: there is no file a.txt",
            ),
            ("sweep.file: no file matches `x*`", "no file matches `x*`"),
            (
                "have fewer; lower limits.cpus, or add",
                "have fewer; lower --cpus, or add",
            ),
            (
                "task.outputs: \"[x\" is no glob",
                "--output: \"[x\" is no glob",
            ),
            ("exit code 3", "exit code 3"),
        ] {
            let failure = in_options(Failure::new(125, said));
            assert_eq!((failure.message.as_str(), failure.code), (told, 125));
        }
    }

    #[test]
    fn braces_mean_the_axis_in_map_and_nothing_in_run() {
        for (text, mapped) in [
            ("{}", "{file}"),
            ("a{}b{}c", "a{file}b{file}c"),
            ("{{}", "{{}"),
            ("{print $1}", "{print $1}"),
            ("{", "{"),
        ] {
            assert_eq!(with_axis(text, "file"), mapped);
        }
        let template = gleaner_model::Template::parse(&verbatim("{index} {{x}} {}"), &|_| true);
        assert_eq!(template.fill(&|_| None).unwrap(), "{index} {{x}} {}");
    }
}
