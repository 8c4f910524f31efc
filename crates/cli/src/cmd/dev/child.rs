//! A child process of `gleaner dev`: started, looked after, started again when it dies, ended.

use crate::out::{self, Failure, REFUSED};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A child that dies more often than this within [`RESTART_WINDOW`] will not get well by itself.
const RESTARTS_MAX: usize = 5;
/// See [`RESTARTS_MAX`].
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// How long a child may take to end in good order.
const END_WITHIN: Duration = Duration::from_secs(8);
/// Lines of a child's log that are shown when it fails.
const LOG_TAIL_LINES: usize = 12;
/// Most bytes of a log that are read for its tail.
const LOG_TAIL_BYTES: u64 = 16 << 10;

/// How children are started.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    program: PathBuf,
    logs: PathBuf,
    log: Option<OsString>,
}

/// One child.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    words: Vec<String>,
    launch: Launch,
    process: tokio::process::Child,
    restarts: Vec<Instant>,
}

impl Launch {
    pub(super) fn new(logs: &Path, log: Option<&str>) -> std::io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            logs: logs.to_path_buf(),
            log: log.map(OsString::from),
        })
    }

    /// Starts `gleaner WORDS…`, its output going to `NAME.log`.
    pub(super) fn start(&self, name: &str, words: &[&str]) -> Result<Child, Failure> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let process = self.spawn(name, &words, false)?;
        Ok(Child {
            name: name.to_owned(),
            words,
            launch: self.clone(),
            process,
            restarts: Vec::new(),
        })
    }

    fn spawn(
        &self,
        name: &str,
        words: &[String],
        again: bool,
    ) -> Result<tokio::process::Child, Failure> {
        let failed = |problem: std::io::Error| {
            Failure::new(REFUSED, format!("cannot start {name}: {problem}"))
        };
        let file = self.log_file(name);
        let log = match again {
            // What the last one said is why it is started again.
            true => File::options().create(true).append(true).open(&file),
            false => File::create(&file),
        };
        let log = log.map_err(failed)?;
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(words)
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Ctrl-C at the terminal is for us; we tell them.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(log) = &self.log {
            command.arg("--log").arg(log);
        }
        command.spawn().map_err(failed)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

impl Child {
    /// Its next start has `new` where it had `old`.
    pub(super) fn replace_word(&mut self, old: &str, new: &str) {
        for word in self.words.iter_mut().filter(|word| *word == old) {
            new.clone_into(word);
        }
    }

    /// An error with the end of its log, if it has ended.
    pub(super) fn must_run(&mut self) -> Result<(), Failure> {
        match self.process.try_wait() {
            Ok(Some(status)) => Err(self.failed(&format!("ended ({})", how(status)))),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// It is not ready in time.
    pub(super) fn late(&self) -> Failure {
        self.failed("is not ready")
    }

    /// Starts it again if it has ended, a few times.
    pub(super) fn look_after(&mut self) -> Result<(), Failure> {
        let Ok(Some(status)) = self.process.try_wait() else {
            return Ok(());
        };
        self.restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
        if self.restarts.len() >= RESTARTS_MAX {
            return Err(self.failed(&format!("keeps ending ({})", how(status))));
        }
        self.restarts.push(Instant::now());
        out::say(format!(
            "{} ended ({}); starting it again",
            self.name,
            how(status)
        ));
        self.process = self.launch.spawn(&self.name, &self.words, true)?;
        Ok(())
    }

    fn failed(&self, what: &str) -> Failure {
        let file = self.launch.log_file(&self.name);
        Failure::new(
            REFUSED,
            format!(
                "{} {what}; the end of {}:\n{}",
                self.name,
                file.display(),
                tail(&file)
            ),
        )
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended in between.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Tells all to end, and makes sure.
pub(super) async fn end_all(children: &mut [Child]) {
    for child in children.iter() {
        child.signal(rustix::process::Signal::TERM);
    }
    let deadline = tokio::time::Instant::now() + END_WITHIN;
    for child in children {
        let ended = tokio::time::timeout_at(deadline, child.process.wait()).await;
        if ended.is_err() {
            out::say(format!("{} does not end; killing it", child.name));
            // Nothing is left to do where even that fails.
            let _dead = child.process.kill().await;
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn tail(file: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut log = File::open(file)?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.log");
        let lines: Vec<String> = (0..1000).map(|number| format!("line {number}")).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let shown = tail(&file);
        assert_eq!(shown.lines().count(), LOG_TAIL_LINES);
        assert!(shown.ends_with("line 999"));
        assert_eq!(tail(&folder.path().join("none")), "");
    }
}
