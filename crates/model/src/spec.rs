//! A job as its user writes it. Unknown keys are errors; defaults are filled in here, once.

use crate::words::words;
use crate::{BlobRef, Bytes, Cpus, Limits, Rate, Span, Sweep};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Most tasks that one job may split into.
pub const MAX_TASKS: u64 = 1_000_000;

/// A job file is well-formed but cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct SpecError {
    /// Dotted key in the job file.
    pub key: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

words!(
    /// What contains an attempt.
    Engine {
        /// A Linux program in namespaces.
        Process = "process",
        /// A guest OS.
        Vm = "vm",
        /// WebAssembly.
        Wasm = "wasm",
    }
);

words!(
    /// What a job asks for as its engine.
    EngineChoice {
        /// A Linux program in namespaces.
        Process = "process",
        /// A guest OS.
        Vm = "vm",
        /// WebAssembly.
        Wasm = "wasm",
        /// A guest OS where the job loses little by it, a process where it would lose much: what
        /// its first tasks used decides.
        Auto = "auto",
    }
);

impl EngineChoice {
    /// The engine that was asked for; none where several will do.
    #[must_use]
    pub const fn one(self) -> Option<Engine> {
        match self {
            Self::Process => Some(Engine::Process),
            Self::Vm => Some(Engine::Vm),
            Self::Wasm => Some(Engine::Wasm),
            Self::Auto => None,
        }
    }

    /// Whether attempts may run on this engine.
    #[must_use]
    pub const fn allows(self, engine: Engine) -> bool {
        matches!(
            (self, engine),
            (Self::Process | Self::Auto, Engine::Process)
                | (Self::Vm | Self::Auto, Engine::Vm)
                | (Self::Wasm, Engine::Wasm)
        )
    }
}

words!(
    /// What costs more in a node's guests than in its processes.
    GuestPrice {
        /// Next to nothing: the processor runs guests by itself.
        Little = "little",
        /// Whatever asks the kernel: system calls, page faults, forks.
        Calls = "calls",
        /// Everything: each instruction is translated, or nobody knows.
        Everything = "everything",
    }
);

/// A whole job file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Name, priority and tags.
    #[serde(default)]
    pub job: JobHead,
    /// What each task does.
    pub task: TaskSpec,
    /// Which nodes will do.
    #[serde(default)]
    pub require: Require,
    /// The axes over which the job splits, by name.
    #[serde(default)]
    pub sweep: Sweep,
    /// What an attempt may use.
    #[serde(default)]
    pub limits: LimitSpec,
    /// How often to try.
    #[serde(default)]
    pub retry: Retry,
    /// How results are checked.
    #[serde(default)]
    pub verify: Verify,
    /// What becomes of the results.
    #[serde(default)]
    pub collect: Collect,
}

/// `[job]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobHead {
    /// Shown in listings; the command's name where empty.
    pub name: String,
    /// Higher goes first within the user's share.
    pub priority: i32,
    /// Free text, kept and shown.
    pub tags: BTreeMap<String, String>,
}

/// `[task]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// What contains it; the pool's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineChoice>,
    /// Whether clocks, chance and the bits of NaNs shall be the same in every run; for
    /// WebAssembly alone.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub deterministic: bool,
    /// Root file system; the host's userland where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Name in the sandbox = path, `https://` address or `blake3:` digest.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Files that come home; globs allowed.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Environment, besides PATH, HOME, TMPDIR and LANG.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Name in the sandbox of the file that is standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// How often to save the running attempt: the whole guest, or where `checkpoint_files` are
    /// named, these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Span>,
    /// Files by which the program saves itself; globs allowed. It says that it has by exit code
    /// [`crate::CHECKPOINT_EXIT_CODE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoint_files: Vec<String>,
}

/// `[require]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Require {
    /// Machine architecture as `uname -m` says it; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Labels that the node must carry.
    pub labels: BTreeMap<String, String>,
}

/// `[limits]` as written; what is absent has the default of [`Limits`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSpec {
    /// CPU bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Scratch and /tmp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Disk bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_io: Option<Rate>,
    /// Major faults a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_faults: Option<u32>,
    /// Wall time without pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Span>,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<Span>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Output files and streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Bytes>,
    /// Only `false` for now: loopback.
    pub network: bool,
    /// Network bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_io: Option<Rate>,
}

impl LimitSpec {
    /// The limits with every default filled in.
    #[must_use]
    pub fn resolve(&self) -> Limits {
        let default = Limits::default();
        Limits {
            cpus: self.cpus.unwrap_or(default.cpus),
            memory: self.memory.unwrap_or(default.memory),
            disk: self.disk.unwrap_or(default.disk),
            time: self.time.unwrap_or(default.time),
            processes: self.processes.unwrap_or(default.processes),
            output: self.output.unwrap_or(default.output),
            cpu_time: self.cpu_time,
            disk_io: self.disk_io,
            page_faults: self.page_faults,
            net_io: self.net_io,
        }
    }
}

/// `[retry]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Most failed attempts of a task.
    pub attempts: u32,
    /// Most evictions of a task.
    pub max_evictions: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            max_evictions: 100,
        }
    }
}

/// `[verify]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// Nodes that must agree on a result.
    pub replicas: u32,
    /// A judge of results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            replicas: 1,
            command: None,
        }
    }
}

/// `[collect]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collect {
    /// How the results become one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

/// How results become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Merge {
    /// `{ concat = FILE, from = OUTPUT }`: in task order.
    Concat(Concat),
    /// `{ command = […] }`: a task of its own, after all others. Every output of task 7 is its
    /// input `7/NAME`; an argument `{outputs}` becomes all of them in task order.
    Command(MergeCommand),
}

/// Every key of both shapes, so that a wrong one is named instead of "no variant matched".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeKeys {
    concat: Option<String>,
    from: Option<String>,
    command: Option<Vec<String>>,
    inputs: Option<BTreeMap<String, String>>,
    outputs: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let keys = MergeKeys::deserialize(from)?;
        let command_keys =
            keys.command.is_some() || keys.inputs.is_some() || keys.outputs.is_some();
        match (keys.concat, keys.from, keys.command) {
            (Some(concat), Some(from), None) if !command_keys => {
                Ok(Self::Concat(Concat { concat, from }))
            }
            (None, None, Some(command)) => Ok(Self::Command(MergeCommand {
                command,
                inputs: keys.inputs.unwrap_or_default(),
                outputs: keys.outputs.unwrap_or_default(),
            })),
            _ => Err(de::Error::custom(
                "write either { concat = \"all.txt\", from = \"stdout\" } or { command = [\"program\", \"{outputs}\"] }",
            )),
        }
    }
}

/// `merge = { concat = "all.txt", from = "stdout" }`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// Name of the merged file.
    pub concat: String,
    /// Which output of each task; may be `stdout`.
    pub from: String,
}

/// `merge = { command = […], outputs = […] }`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeCommand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Further inputs, as in `[task]`.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The merged files; its stdout where empty.
    #[serde(default)]
    pub outputs: Vec<String>,
}

/// One file that a submission brings: a local path of the job file, or a value of a `files` axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The path as the job file has it (placeholders filled in), or the name in the sandbox.
    pub name: String,
    /// Its content.
    #[serde(flatten)]
    pub blob: BlobRef,
    /// Permission bits; an executable stays one.
    pub mode: u32,
}

/// What a client sends: the job as written, and the blobs that stand for its local files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The job as written.
    pub spec: JobSpec,
    /// Every local path that `inputs` can name, uploaded before. `command[0]` stands here too
    /// when it has a slash and exists at the user's.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// For each `files` axis a blob of one JSON [`FileEntry`] a line; for each `lines` and
    /// `split` axis the file itself.
    #[serde(default)]
    pub axes: BTreeMap<String, BlobRef>,
}
