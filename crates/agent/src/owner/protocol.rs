//! What the owner's side of an agent is asked, and what it answers: one JSON object in a line
//! each. The command line, the terminal view and the page speak in these words.
//!
//! Times are RFC 3339, sizes bytes, lengths of time seconds.

use gleaner_harvest::{Relief, Settings};
use gleaner_model::{AttemptId, AttemptState, JobId, NodeState, Policy, Time, Verdict};
use serde::{Deserialize, Serialize};

use super::limits::NodeSettings;

/// Longest question, in bytes; the owner's limits with a long list of hours fit.
pub(crate) const ASK_BYTES_MAX: usize = 16 << 10;

/// Longest answer, in bytes: a month of history of a busy node.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A question or a wish of the owner's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask", deny_unknown_fields)]
pub enum Ask {
    /// What happens now.
    Status,
    /// The rule that decides, and what it saw.
    Why,
    /// What ran for whom, and when work paused.
    History {
        /// How many days back.
        days: u32,
    },
    /// How the day went so far.
    Today,
    /// Run nothing until then; without a time, until [`Ask::Resume`].
    Pause {
        /// When the pause ends.
        #[serde(default, with = "stamp::maybe")]
        until: Option<Time>,
    },
    /// Work again, as the settings say.
    Resume,
    /// The owner's and the admin's limits.
    Limits,
    /// Sets the owner's limits, all of them.
    SetLimits {
        /// The new ones.
        limits: NodeSettings,
    },
    /// Opens the local page, if it is not open, and says its address.
    Page,
    /// Switches the recorder of idle gaps, or asks whether it is on.
    Record {
        /// On or off; only asks where absent.
        #[serde(default)]
        on: Option<bool>,
    },
    /// What the recorder has, for the simulator.
    RecordExport,
}

/// Why an answer is no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A sentence for the owner.
    pub sentence: String,
    /// Whether the question was wrong; else the answer is no.
    #[serde(default)]
    pub usage: bool,
}

impl Refusal {
    pub(crate) fn no(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            usage: false,
        }
    }

    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            usage: true,
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To status, pause and resume.
    Status(Box<Overview>),
    /// To why.
    Why(Box<Why>),
    /// To history, newest first.
    History(Vec<Entry>),
    /// To today.
    Today(Today),
    /// To limits.
    Limits(Box<LimitsView>),
    /// To page: the address with its token.
    Page {
        /// Open it in a browser on this PC.
        url: String,
    },
    /// To record.
    Record {
        /// Whether it records.
        on: bool,
        /// Gaps counted so far.
        gaps: u64,
        /// Since when, where it has anything.
        #[serde(default, with = "stamp::maybe")]
        since: Option<Time>,
    },
    /// To export, as the simulator reads it.
    Histogram(serde_json::Value),
    /// To anything.
    Refused(Refusal),
}

/// What the PC does for the pool, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Ready, and nothing to do.
    Idle,
    /// Tasks run on all that the owner leaves.
    Working,
    /// Tasks run on less, since the owner needs the rest.
    Slowed,
    /// Nothing runs for now.
    Paused,
    /// Nothing runs at all: tasks would be in the owner's way here.
    Refused,
}

impl Mode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Slowed => "slowed",
            Self::Paused => "paused",
            Self::Refused => "refused",
        }
    }
}

/// This PC now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// Who the node is to the pool: 32 hex digits.
    pub id: String,
    /// Its name in the pool.
    pub name: String,
    /// Its state, as the pool is told.
    pub state: NodeState,
    /// The same in the owner's words.
    pub mode: Mode,
    /// Why, as a sentence.
    pub reason: String,
    /// Since when.
    #[serde(with = "stamp")]
    pub since: Time,
    /// Whether the owner paused it.
    pub owner_paused: bool,
    /// When the owner's pause ends; absent where it lasts until they resume.
    #[serde(default, with = "stamp::maybe")]
    pub until: Option<Time>,
    /// When this was put together.
    #[serde(with = "stamp")]
    pub at: Time,
    /// The pool's address.
    pub server: String,
    /// Whether the pool can be reached.
    pub connected: bool,
    /// Where the agent keeps what is its own.
    pub data: String,
    /// The program's version.
    pub version: String,
    /// Processors.
    pub cpu: CpuView,
    /// Memory, in bytes.
    pub memory: MemoryView,
    /// Disk, in bytes.
    pub disk: DiskView,
    /// Networks, in bytes.
    pub network: NetworkView,
    /// What runs, oldest first.
    pub running: Vec<RunningView>,
    /// What was done today.
    pub today: Totals,
}

/// Processors now.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CpuView {
    /// How many there are for tasks when the owner needs none.
    pub offered: f64,
    /// How many tasks may use now.
    pub allowed: f64,
    /// Share of all processors that the owner's programs use, from 0 to 1.
    pub owner: f64,
    /// Share that tasks use.
    pub tasks: f64,
    /// Share that nobody uses.
    pub idle: f64,
}

/// Memory now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryView {
    /// The most that running tasks had.
    pub used: u64,
    /// What tasks may use.
    pub allowed: u64,
    /// What programs could still take; absent where the PC does not say.
    pub available: Option<u64>,
    /// All of it.
    pub total: Option<u64>,
}

/// Disk now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DiskView {
    /// What the agent's directory takes: inputs, scratch and results.
    pub used: u64,
    /// What tasks may use together.
    pub allowed: u64,
    /// What is free.
    pub free: Option<u64>,
    /// Share of full speed at which tasks may read and write, from 0 to 1.
    pub speed: f64,
}

/// Networks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkView {
    /// Bytes moved for tasks today.
    pub today: u64,
    /// Whether inputs and results may travel now.
    pub allowed: bool,
    /// Whether the connection costs by the byte; absent where nobody knows.
    pub metered: Option<bool>,
}

/// Something that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningView {
    /// The attempt.
    pub id: AttemptId,
    /// Its job.
    pub job: JobId,
    /// What the job is called.
    pub name: String,
    /// For whom it runs.
    pub user: String,
    /// `fetching`, `running` or `paused`.
    pub state: AttemptState,
    /// Since when it is here.
    #[serde(with = "stamp")]
    pub since: Time,
    /// Processors in use.
    pub cpus: f64,
    /// Processors it may use.
    pub cpus_allowed: f64,
    /// CPU time so far, in seconds.
    pub cpu_seconds: f64,
    /// Most memory so far.
    pub memory: u64,
    /// Memory it may use.
    pub memory_allowed: u64,
    /// Bytes read from and written to disks so far.
    pub disk: u64,
    /// Bytes over networks so far.
    pub network: u64,
}

/// Sums over some time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Tasks that ended.
    pub tasks: u64,
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Bytes read from and written to disks.
    pub disk: u64,
    /// Bytes moved over networks.
    pub network: u64,
}

/// Why it is as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The node's name in the pool.
    pub name: String,
    /// In the owner's words.
    pub mode: Mode,
    /// The rule that decided, as a word.
    pub rule: String,
    /// The same as a sentence.
    pub reason: String,
    /// What it means for tasks.
    pub verdict: Verdict,
    /// Since when.
    #[serde(with = "stamp")]
    pub since: Time,
    /// Whether tasks give memory back.
    pub relief: Relief,
    /// What each sense says.
    pub signals: Vec<SignalView>,
    /// The settings in force, of admin and owner together.
    pub settings: Settings,
}

/// One sense of the PC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalView {
    /// What it watches.
    pub name: String,
    /// `seen`, `absent` or `failed`.
    pub state: String,
    /// What it says, in words.
    pub says: String,
    /// How old that is, in seconds.
    pub age: Option<f64>,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Entry {
    /// Tasks of one job on one day.
    Work(Work),
    /// A time in which nothing ran though it could have.
    Pause(Pause),
}

impl Entry {
    /// When it began.
    #[must_use]
    pub const fn from(&self) -> Time {
        match self {
            Self::Work(work) => work.from,
            Self::Pause(pause) => pause.from,
        }
    }
}

/// What was done for one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The job.
    pub job: JobId,
    /// What it is called.
    pub name: String,
    /// For whom.
    pub user: String,
    /// First sign of it.
    #[serde(with = "stamp")]
    pub from: Time,
    /// Last sign of it.
    #[serde(with = "stamp")]
    pub to: Time,
    /// Tasks that ended.
    pub tasks: u64,
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Most memory of one task, in bytes.
    pub memory: u64,
    /// Bytes read from and written to disks.
    pub disk: u64,
    /// Bytes moved over networks.
    pub network: u64,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    #[serde(with = "stamp")]
    pub from: Time,
    /// When it ended; absent while it lasts.
    #[serde(default, with = "stamp::maybe")]
    pub to: Option<Time>,
    /// `paused` or `refused`.
    pub mode: Mode,
    /// The rule that decided, as a word.
    pub rule: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// The day so far, in slots of one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Today {
    /// Midnight, local time.
    #[serde(with = "stamp")]
    pub start: Time,
    /// Seconds of a slot.
    pub slot: u32,
    /// One after the other; those that nobody saw (the PC was off) are absent.
    pub slots: Vec<Option<Slot>>,
}

/// One slot of a day: means, in thousandths of all processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// What the owner's programs used.
    pub owner: u16,
    /// What tasks used.
    pub tasks: u16,
    /// In thousandths of the slot, how long nothing was allowed to run.
    pub paused: u16,
}

/// Limits of a node and who set them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitsView {
    /// The node's name in the pool.
    pub name: String,
    /// What the owner set.
    pub owner: NodeSettings,
    /// What the admin set.
    pub admin: NodeSettings,
    /// The policy in force.
    pub policy: Policy,
    /// What the node offers with both, at most.
    pub offered: Offered,
}

/// What a node offers to the pool, at most.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Offered {
    /// Processors.
    pub cpus: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
}

/// Times as RFC 3339 in UTC.
pub(crate) mod stamp {
    use gleaner_model::Time;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// A time in words.
    pub(crate) fn text(time: Time) -> String {
        let ms = i64::try_from(time.ms).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(ms)
            .map_or_else(|_| time.ms.to_string(), |stamp| stamp.to_string())
    }

    fn parse(text: &str) -> Option<Time> {
        let stamp: jiff::Timestamp = text.parse().ok()?;
        let ms = u64::try_from(stamp.as_millisecond()).ok()?;
        Some(Time { ms })
    }

    pub(crate) fn serialize<S: Serializer>(time: &Time, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&text(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no time in RFC 3339")))
    }

    pub(crate) mod maybe {
        use super::{Time, de, parse, text};
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<Time>,
            out: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(text).serialize(out)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Time>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(|text| {
                parse(&text)
                    .ok_or_else(|| de::Error::custom(format!("{text:?} is no time in RFC 3339")))
            })
            .transpose()
        }
    }
}
