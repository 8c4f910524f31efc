//! The other end of the owner's socket: finds the agents of this PC and asks them. Blocking, for
//! the command line.

use super::protocol::{ANSWER_BYTES_MAX, Answer, Ask, Overview};
use super::socket::{AGENTS_MAX, NAME, shared_directory, shared_path, short};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an agent may take to answer: it may be busy, and its PC too.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// Why an agent cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No agent listens where it was looked for.
    #[error(
        "no agent of gleaner runs here ({looked}); start one with `gleaner agent`, or name its \
         directory with --data DIR"
    )]
    NoAgent {
        /// Where it was looked for.
        looked: String,
    },
    /// There are several, and nobody said which is meant.
    #[error("several agents run here: {}; say which with --node NAME", names.join(", "))]
    Several {
        /// Their names.
        names: Vec<String>,
    },
    /// None of them has this name.
    #[error("no agent here is called {name:?}; there are {}", names.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// Theirs.
        names: Vec<String>,
    },
    /// More than one has it: agents of several pools may.
    #[error(
        "several agents here are called {name:?}, in {}; say which with --data DIR",
        directories.join(" and ")
    )]
    Namesakes {
        /// The name.
        name: String,
        /// Where each of them works.
        directories: Vec<String>,
    },
    /// The agent says no.
    #[error("{}", .0.sentence)]
    Refused(super::protocol::Refusal),
    /// The connection broke.
    #[error("the agent does not answer: {0}")]
    Broken(#[from] io::Error),
}

impl AskError {
    /// The same, where `looked` directories were looked at: in one alone, the asker's own agent was
    /// not found because nobody knows where.
    fn beside(mut self, looked: usize) -> Self {
        if let Self::Refused(refusal) = &mut self
            && looked < 2
        {
            refusal
                .sentence
                .push_str("; an agent of your own is named by --data DIR");
        }
        self
    }
}

/// An agent of this PC, by its socket.
#[derive(Debug, Clone)]
pub struct Agent {
    path: PathBuf,
}

impl Agent {
    /// The agent that works in a directory.
    #[must_use]
    pub fn in_directory(data: &Path) -> Self {
        Self {
            path: data.join(format!("{NAME}.sock")),
        }
    }

    /// The only agent of this PC, or the one with this name.
    ///
    /// # Errors
    /// Where there is none, or it is not clear which one is meant.
    pub fn find(name: Option<&str>) -> Result<Self, AskError> {
        let found = Self::list()?;
        let known: Vec<Known<'_>> = found
            .iter()
            .map(|(_, one)| [&*one.name, &*one.id, &*one.data])
            .collect();
        let at = meant(&known, name)?;
        found
            .into_iter()
            .nth(at)
            .map(|one| one.0)
            .ok_or_else(strange)
    }

    /// Every agent of this PC that answers us, with its status.
    ///
    /// # Errors
    /// Where there is none, or none that answers.
    pub fn list() -> Result<Vec<(Self, Overview)>, AskError> {
        let mut dirs: Vec<PathBuf> = shared_directory().into_iter().collect();
        // A plain user may be an owner of the service's agent.
        dirs.push("/run/gleaner".into());
        dirs.dedup();
        if std::env::var_os("GLEANER_RUN").is_some() {
            dirs.truncate(1);
        }
        let (mut found, mut trouble) = (Vec::new(), None);
        for dir in &dirs {
            for number in 1..=AGENTS_MAX {
                let path = shared_path(dir, number);
                if !path.exists() {
                    continue;
                }
                let agent = Self { path };
                match agent.status() {
                    Ok(overview) => found.push((agent, overview)),
                    // A dead agent leaves its socket.
                    Err(AskError::NoAgent { .. }) => {}
                    Err(error) => trouble = Some(error.beside(dirs.len())),
                }
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let looked = dirs.iter().map(|dir| dir.display().to_string());
        Err(trouble.unwrap_or_else(|| AskError::NoAgent {
            looked: looked.collect::<Vec<_>>().join(", "),
        }))
    }

    /// Asks for the status.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn status(&self) -> Result<Overview, AskError> {
        let Answer::Status(overview) = self.ask(&Ask::Status)? else {
            return Err(strange());
        };
        Ok(*overview)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Where the agent is not there, does not answer, or says no.
    pub fn ask(&self, ask: &Ask) -> Result<Answer, AskError> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        let mut question = serde_json::to_vec(ask).map_err(io::Error::from)?;
        question.push(b'\n');
        // Who is refused is told before they ask, and the connection closes: the answer counts.
        let asked = stream.write_all(&question);
        let mut text = Vec::new();
        let most = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
        let heard = stream.take(most).read_to_end(&mut text);
        if text.is_empty() {
            asked?;
            heard?;
        }
        match serde_json::from_slice(&text) {
            Ok(Answer::Refused(refusal)) => Err(AskError::Refused(refusal)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(strange()),
        }
    }

    fn connect(&self) -> Result<UnixStream, AskError> {
        let (path, _dir) = short(&self.path).map_err(|error| self.absent(error))?;
        UnixStream::connect(path).map_err(|error| self.absent(error))
    }

    fn absent(&self, error: io::Error) -> AskError {
        let dead = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        match dead.contains(&error.kind()) {
            true => AskError::NoAgent {
                looked: self.path.display().to_string(),
            },
            false => AskError::Broken(error),
        }
    }
}

/// Name, id and directory of an agent.
type Known<'k> = [&'k str; 3];

/// Which of them is meant: the only one, or the only one with this name or id.
fn meant(known: &[Known<'_>], name: Option<&str>) -> Result<usize, AskError> {
    let all = |at: usize| known.iter().map(|one| one[at].to_owned()).collect();
    let Some(name) = name else {
        return match known {
            [_] => Ok(0),
            _ => Err(AskError::Several { names: all(0) }),
        };
    };
    let named = known.iter().enumerate();
    let named: Vec<(usize, &Known<'_>)> = named.filter(|one| one.1[..2].contains(&name)).collect();
    match &named[..] {
        [(at, _)] => Ok(*at),
        [] => Err(AskError::Unknown {
            name: name.to_owned(),
            names: all(0),
        }),
        several => Err(AskError::Namesakes {
            name: name.to_owned(),
            directories: several.iter().map(|one| one.1[2].to_owned()).collect(),
        }),
    }
}

fn strange() -> AskError {
    AskError::Broken(io::Error::other(
        "its answer makes no sense; is it of another version?",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_meant_has_to_be_clear() {
        let two = [["node-1", "aa", "/one"], ["node-2", "bb", "/two"]];
        let namesakes = [["node-1", "aa", "/one"], ["node-1", "bb", "/two"]];
        assert_eq!(meant(&two[..1], None).unwrap(), 0);
        assert_eq!(meant(&two, Some("node-2")).unwrap(), 1);
        assert_eq!(meant(&namesakes, Some("bb")).unwrap(), 1);
        for (known, name, said) in [
            (&two, None, "node-1, node-2; say which with --node NAME"),
            (&two, Some("b12"), "no agent here is called \"b12\""),
            (
                &namesakes,
                Some("node-1"),
                "in /one and /two; say which with --data DIR",
            ),
        ] {
            let problem = meant(known, name).unwrap_err().to_string();
            assert!(problem.contains(said), "{name:?}: {problem}");
        }
    }

    #[test]
    fn who_is_refused_by_another_users_agent_hears_how_to_name_their_own() {
        use crate::owner::protocol::Refusal;
        let said = |looked| {
            let refused = AskError::Refused(Refusal::no("you are no owner"));
            refused.beside(looked).to_string()
        };
        assert!(said(1).ends_with("named by --data DIR"));
        assert_eq!(said(2), "you are no owner");
    }
}
