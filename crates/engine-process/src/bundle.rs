//! A bundle on disk: what its shim is told, and where its files lie.
//!
//! ```text
//! DIR/bundles/LEASE/bundle.json     what the shim needs to know
//!                   socket          where a new agent finds the shim
//!                   shim.log        the shim's last words
//!                   journal         what was asked of the shim, and how it ended
//!                   discarded       attempts that the agent has no more use for
//!                   cages/BAY/    scratch, owned by the task's user id
//!                   runs/BAY/     stdout, stderr
//! ```
//! A bay is one attempt's from its start until it is discarded, then another's: a new inode
//! costs a file system more than the rest of a short task, above all where inodes of that
//! moment were just given back.
//!
//! Nothing here is reachable by a task: DIR belongs to the agent alone, and a cage is shown its
//! own scratch directory only.

use gleaner_engine::{AttemptSpec, Ending, ImageFile};
use gleaner_model::{AttemptId, LeaseId};
use rustix::net::SocketAddrUnix;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Names one bay of a bundle; see the module.
pub(crate) type Bay = u32;

/// What the program that runs a guest's kernel needs of its cage that no other program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GuestNeeds {
    /// To trace the processes that it makes, and programs in shared memory: user-mode Linux.
    #[default]
    Tracing,
    /// The device of the processor's own virtualisation.
    Device,
    /// Nothing: it simulates the whole machine.
    Nothing,
}

/// What a shim is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    pub(crate) lease: LeaseId,
    /// The first of the host's user ids for this bundle; none for a plain user's own.
    pub(crate) uid_first: Option<u32>,
    /// Time between the agent's beats, in milliseconds.
    pub(crate) beat_ms: u64,
    /// How long the lease is taken to last until the first beat says, in milliseconds.
    pub(crate) lease_left_ms: u64,
    /// Whether attempts end when the agent is gone: nobody will adopt them.
    #[serde(default)]
    pub(crate) ends_with_agent: bool,
    /// Further directories of the host that tasks may read.
    pub(crate) read_only: Vec<PathBuf>,
    /// A program to be shown at [`crate::PROGRAM_PATH`].
    #[serde(default)]
    pub(crate) program: Option<PathBuf>,
    /// What a guest is made of, where the cages hold guests.
    #[serde(default)]
    pub(crate) guest: Option<PathBuf>,
    /// Device and number of that directory, which its cages show for as long as there are any:
    /// another one of the same name is not seen in them.
    #[serde(default)]
    pub(crate) guest_dir: Option<(u64, u64)>,
    /// What their kernels need.
    #[serde(default)]
    pub(crate) guest_needs: GuestNeeds,
    /// The node of the device that they need, on the host.
    #[serde(default)]
    pub(crate) device: Option<PathBuf>,
    /// The root that its tasks bring, and where it is unpacked where it cannot be mounted.
    #[serde(default)]
    pub(crate) image: Option<ImageFile>,
    #[serde(default)]
    pub(crate) images: PathBuf,
    /// The parent of all groups of tasks, and what this bundle's begin with.
    pub(crate) group_parent: String,
    /// The agent's own part of that parent.
    #[serde(default)]
    pub(crate) group_domain: Option<String>,
    pub(crate) group_prefix: String,
    /// How groups are made here, as the agent found out: a `Backend`, which only one of the same
    /// version needs to understand.
    #[serde(default)]
    pub(crate) groups: serde_json::Value,
}

impl Bundle {
    pub(crate) fn cages(&self) -> PathBuf {
        self.dir.join("cages")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.dir.join("runs")
    }

    pub(crate) fn scratch(&self, bay: Bay) -> PathBuf {
        self.cages().join(bay.to_string())
    }

    pub(crate) fn run(&self, bay: Bay) -> PathBuf {
        self.runs().join(bay.to_string())
    }

    /// Copies of the files by which a running attempt saves itself.
    pub(crate) fn saved(&self, bay: Bay) -> PathBuf {
        self.run(bay).join("saved")
    }

    /// Where these copies are made.
    pub(crate) fn saving(&self, bay: Bay) -> PathBuf {
        self.run(bay).join("saving")
    }

    /// Where the shim writes down what it was asked and how that ended.
    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Where the agent writes down what it has no more use for.
    pub(crate) fn discarded(&self) -> PathBuf {
        self.dir.join("discarded")
    }

    pub(crate) fn file(dir: &Path) -> PathBuf {
        dir.join("bundle.json")
    }
}

/// Writes JSON so that a reader finds the whole or nothing, whenever we are killed.
pub(crate) fn write_whole<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, serde_json::to_vec(value)?)?;
    fs::rename(part, path)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// One line of the journal. An end has the form of the message that tells the agent of it.
#[derive(Debug, Serialize)]
pub(crate) enum Line<'a> {
    Start { bay: Bay, spec: &'a AttemptSpec },
}

#[derive(Debug, Deserialize)]
enum Read {
    Start {
        bay: Bay,
        spec: Box<AttemptSpec>,
    },
    Ended {
        attempt: AttemptId,
        ending: Box<Ending>,
    },
}

/// Opens a file that only grows.
pub(crate) fn open_lines(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// Adds a line by one call to the kernel: it is there whole whenever we are killed. It begins
/// with an end of line too, so that one which a full disk has cut short spoils no other.
pub(crate) fn add_line<T: Serialize>(lines: &File, line: &T) -> io::Result<()> {
    add_text(lines, &serde_json::to_vec(line)?)
}

/// The same with a line that is JSON already.
pub(crate) fn add_text(lines: &File, line: &[u8]) -> io::Result<()> {
    let end = b"\n".as_slice();
    let whole = [end, line, end].map(IoSlice::new);
    let length = line.len() + 2;
    match { lines }.write_vectored(&whole)? {
        written if written == length => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The lines that can be read. What is no line of ours was cut short and is taken for nothing.
fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read(path).unwrap_or_default();
    let all = text.split(|byte| *byte == b'\n');
    all.filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// What a bundle's files tell of one attempt that is not discarded.
#[derive(Debug, PartialEq)]
pub(crate) struct Past {
    pub(crate) bay: Bay,
    pub(crate) spec: AttemptSpec,
    pub(crate) ending: Option<Ending>,
}

/// Every attempt of a bundle that is not discarded.
pub(crate) fn past(bundle: &Bundle) -> BTreeMap<AttemptId, Past> {
    let mut all: BTreeMap<AttemptId, Past> = BTreeMap::new();
    for line in lines::<Read>(&bundle.journal()) {
        match line {
            Read::Start { bay, spec } => {
                // Whoever had the bay before was discarded, or it would not be free.
                all.retain(|_, past| past.bay != bay);
                let past = Past {
                    bay,
                    spec: *spec,
                    ending: None,
                };
                all.insert(past.spec.attempt, past);
            }
            Read::Ended { attempt, ending } => {
                if let Some(past) = all.get_mut(&attempt) {
                    past.ending = Some(*ending);
                }
            }
        }
    }
    for attempt in lines::<AttemptId>(&bundle.discarded()) {
        all.remove(&attempt);
    }
    all
}

/// Makes a directory that only we can look into.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Calls `use_it` with the address of the bundle's socket. Its path may be longer than an address can
/// hold, so it is named by way of the open directory.
pub(crate) fn with_address<T>(
    dir: &Path,
    use_it: impl FnOnce(&SocketAddrUnix) -> io::Result<T>,
) -> io::Result<T> {
    let open = File::open(dir)?;
    let path = format!("/proc/self/fd/{}/socket", open.as_raw_fd());
    use_it(&SocketAddrUnix::new(path)?)
}

#[cfg(test)]
impl Bundle {
    /// One in this directory that asks for nothing.
    pub(crate) fn bare(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            lease: LeaseId(1),
            uid_first: None,
            beat_ms: 1000,
            lease_left_ms: 1000,
            ends_with_agent: false,
            read_only: Vec::new(),
            program: None,
            guest: None,
            guest_dir: None,
            guest_needs: GuestNeeds::default(),
            device: None,
            image: None,
            images: PathBuf::new(),
            group_parent: String::new(),
            group_domain: None,
            groups: serde_json::Value::Null,
            group_prefix: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FromShim;
    use gleaner_model::{JobId, TaskId};

    fn spec(index: u32) -> AttemptSpec {
        let attempt = TaskId::new(JobId(1), index).attempt(1);
        AttemptSpec::bare(attempt, LeaseId(1), vec!["true".to_owned()])
    }

    #[test]
    fn the_past_is_what_was_asked_and_not_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::bare(dir.path());
        assert!(past(&bundle).is_empty());
        let journal = open_lines(&bundle.journal()).unwrap();
        let ending = crate::host::adopt::lost_ending("gone");
        for (index, bay) in [(1, 0), (2, 1), (3, 2), (4, 0)] {
            let spec = spec(index);
            add_line(&journal, &Line::Start { bay, spec: &spec }).unwrap();
            // A full disk cuts a line short; the next is whole all the same.
            (&journal).write_all(b"\n{\"End\":{\"atte").unwrap();
            if index == 2 {
                let attempt = spec.attempt;
                let line = FromShim::Ended {
                    attempt,
                    ending: Box::new(ending.clone()),
                };
                add_line(&journal, &line).unwrap();
            }
        }
        let discarded = open_lines(&bundle.discarded()).unwrap();
        add_line(&discarded, &spec(3).attempt).unwrap();
        let past: Vec<_> = past(&bundle).into_values().collect();
        // 1 lost its bay to 4, and 3 is discarded.
        let found: Vec<_> = past
            .iter()
            .map(|past| {
                (
                    past.spec.attempt.task.index,
                    past.bay,
                    past.ending.is_some(),
                )
            })
            .collect();
        assert_eq!(found, [(2, 1, true), (4, 0, false)]);
    }
}
