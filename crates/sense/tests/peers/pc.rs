//! A PC of a test: sensors, the programs they sense, and waiting for words.

use gleaner_model::{Sample, Time};
use gleaner_sense::{SenseConfig, SenseEvent, Sensors, SourceReport};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Long enough for any loaded PC.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const NOW: Time = Time { ms: 1_000_000_000 };

/// A program that ends with the test.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        Self(
            child.unwrap_or_else(|error| {
                panic!("{name}: {error}; cargo xtask test sense installs it")
            }),
        )
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) struct Pc {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) sensors: Sensors,
    pub(crate) events: Receiver<SenseEvent>,
}

impl Pc {
    /// Sensors for a bus, and a socket for desktops.
    pub(crate) fn new(system_bus: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SenseConfig {
            proc: Some(PathBuf::from("/proc")),
            system_bus,
            session_socket: Some(folder.path().join("session.sock")),
            delay_sleep: true,
            ..SenseConfig::nothing()
        };
        let (sender, events) = channel();
        let sink = Arc::new(move |event| {
            let _over = sender.send(event);
        });
        Self {
            folder,
            sensors: Sensors::start(config, sink),
            events,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("session.sock")
    }

    pub(crate) fn sample(&self) -> Sample {
        self.sensors.sample(NOW)
    }

    pub(crate) fn source(&self, name: &str) -> SourceReport {
        let sources = self.sensors.sources();
        sources
            .into_iter()
            .find(|source| source.name == name)
            .unwrap()
    }

    pub(crate) fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "{what}: {:#?} {:#?}",
                self.sensors.sources(),
                self.sample()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn event(&self, expected: SenseEvent) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            if event.unwrap_or_else(|_| panic!("no {expected:?}")) == expected {
                return;
            }
        }
    }

    /// How long ago the desktops were last used.
    pub(crate) fn idle(&self) -> Option<Duration> {
        let at = *self.sample().desktop.value()?;
        Some(Duration::from_millis(NOW.since(at).ms))
    }
}

/// The distribution's Python, which has the mocks; another in the PATH has not.
pub(crate) fn python() -> Command {
    Command::new(match Path::new("/usr/bin/python3").exists() {
        true => "/usr/bin/python3",
        false => "python3",
    })
}
