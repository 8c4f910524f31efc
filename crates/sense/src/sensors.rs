//! All sources together: started, asked, stopped.

use crate::board::Board;
use crate::event::EventSink;
use crate::slot::{OFF, Slot, SourceReport};
use crate::thread::{Stop, Threads};
use crate::{SenseConfig, desktops, disk, hardware, input, kernel, logind, network, terminal};
use gleaner_model::{Sample, Time};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The running sources. Dropping them stops all within a second.
#[derive(Debug)]
pub struct Sensors {
    board: Arc<Board>,
    _threads: Option<Threads>,
}

/// How often it is looked whether all sources have spoken.
const FIRST_LOOK: Duration = Duration::from_millis(20);

impl Sensors {
    /// Starts every source of the configuration, each in a thread of its own; returns before any
    /// has spoken. Until then it counts as failed.
    #[must_use]
    pub fn start(config: SenseConfig, events: EventSink) -> Self {
        let board = Arc::new(Board::new(events));
        let threads = Stop::new().map(|stop| {
            let mut start = Start {
                board: &board,
                threads: Threads::new(stop),
            };
            start.people(&config);
            start.machine(&config);
            start.threads
        });
        Self {
            board,
            // Without even an event counter no source can start: all stay failed.
            _threads: threads.ok(),
        }
    }

    /// Starts every source, waits until each has spoken or the time is over, and stops them.
    #[must_use]
    pub fn look_once(config: SenseConfig, within: Duration) -> Vec<SourceReport> {
        let sensors = Self::start(config, Arc::new(|_| {}));
        let end = Instant::now() + within;
        while !sensors.board.all_spoke() && Instant::now() < end {
            std::thread::sleep(FIRST_LOOK);
        }
        sensors.sources()
    }

    /// The last words of all sources. Never blocks. `now` is the caller's clock; every time in
    /// the sample is on it.
    #[must_use]
    pub fn sample(&self, now: Time) -> Sample {
        self.board.sample(now)
    }

    /// How each source does, for people.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceReport> {
        self.board.reports()
    }

    /// Tasks are frozen: the PC may sleep now. To be called after [`crate::SenseEvent::Sleeping`].
    pub fn ready_to_sleep(&self) {
        self.board.ready_to_sleep.store(true, Ordering::SeqCst);
    }
}

/// The start of all threads.
struct Start<'a> {
    board: &'a Arc<Board>,
    threads: Threads,
}

impl Start<'_> {
    /// Sources about people.
    fn people(&mut self, config: &SenseConfig) {
        match config.dev.clone() {
            None => {
                self.board.input.absent(OFF);
                self.board.terminal.absent(OFF);
            }
            Some(dev) => {
                let (board, sys, nodes) = (self.board.clone(), config.sys.clone(), dev.clone());
                let input = move |stop: &Stop| input::run(stop, &board, &nodes, sys.as_deref());
                self.spawn("input", input, |board| &board.input);
                let board = self.board.clone();
                let terminal = move |stop: &Stop| terminal::run(stop, &board, &dev);
                self.spawn("terminals", terminal, |board| &board.terminal);
            }
        }
        match config.session_socket.clone() {
            None => {
                self.board.desktops.absent(OFF);
                self.board.attention.absent(OFF);
            }
            Some(socket) => {
                let board = self.board.clone();
                let desktops = move |stop: &Stop| desktops::run(stop, &board, &socket);
                self.spawn("desktops", desktops, |board| &board.desktops);
            }
        }
        self.buses(config);
    }

    /// Sources on the system's message bus; each has a connection of its own, so that one that
    /// hangs does not hold up the other.
    fn buses(&mut self, config: &SenseConfig) {
        let Some(address) = config.system_bus.clone() else {
            self.board.logins.absent(OFF);
            self.board.metered.absent(OFF);
            return;
        };
        let (board, bus, delay) = (self.board.clone(), address.clone(), config.delay_sleep);
        let logins = move |stop: &Stop| logind::run(stop, &board, &bus, delay);
        self.spawn("logind", logins, |board| &board.logins);
        let board = self.board.clone();
        let network = move |stop: &Stop| network::run(stop, &board, &address);
        self.spawn("network", network, |board| &board.metered);
    }

    /// Sources about the machine.
    fn machine(&mut self, config: &SenseConfig) {
        match config.proc.clone() {
            None => {
                self.board.load.absent(OFF);
                self.board.delay.absent(OFF);
                self.board.pressure.absent(OFF);
                self.board.memory.absent(OFF);
                self.board.sleeping.absent(OFF);
            }
            Some(proc) => {
                let sources = kernel::Sources::new(proc, config.groups.clone(), config.own.clone());
                let board = self.board.clone();
                let kernel = {
                    let sources = sources.clone();
                    move |stop: &Stop| kernel::run(stop, &board, &sources)
                };
                self.spawn("kernel", kernel, |board| &board.load);
                let board = self.board.clone();
                let canary = move |stop: &Stop| kernel::delay::run(stop, &board, &sources);
                self.spawn("delay", canary, |board| &board.delay);
            }
        }
        match config.sys.clone() {
            None => {
                self.board.power.absent(OFF);
                self.board.heat.absent(OFF);
            }
            Some(sys) => {
                let (board, tree) = (self.board.clone(), sys.clone());
                let power = move |stop: &Stop| hardware::power::run(stop, &board, &tree);
                self.spawn("power", power, |board| &board.power);
                let board = self.board.clone();
                let heat = move |stop: &Stop| hardware::heat::run(stop, &board, &sys);
                self.spawn("heat", heat, |board| &board.heat);
            }
        }
        match config.disk.clone() {
            None => {
                self.board.disk_free.absent(OFF);
            }
            Some(path) => {
                let board = self.board.clone();
                let disk = move |stop: &Stop| disk::run(stop, &board, &path);
                self.spawn("disk", disk, |board| &board.disk_free);
            }
        }
    }

    /// A thread for one source; where it falls over, that slot says so.
    fn spawn<T: Copy + PartialEq + 'static>(
        &mut self,
        name: &str,
        work: impl Fn(&Stop) + Send + 'static,
        slot: impl Fn(&Board) -> &Slot<T> + Send + Sync + 'static,
    ) {
        let board = self.board.clone();
        let fell = move |why: &str| {
            slot(&board).failed(why, None);
        };
        self.threads.spawn(name, work, fell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::SourceState;
    use gleaner_model::Signal;

    const NOW: Time = Time { ms: 1_000_000_000 };

    #[test]
    fn nothing_asked_for_is_absent() {
        let sensors = Sensors::start(SenseConfig::nothing(), Arc::new(|_| {}));
        let sources = sensors.sources();
        assert!(
            sources
                .iter()
                .all(|source| source.state == SourceState::Absent)
        );
        assert_eq!(sensors.sample(NOW).load, Signal::Absent);
    }

    #[test]
    fn this_pc_says_what_it_can_and_stops() {
        let config = SenseConfig {
            disk: Some("/".into()),
            ..SenseConfig::this_pc()
        };
        let sensors = Sensors::start(config, Arc::new(|_| {}));
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let sample = sensors.sample(NOW);
            let seen = [
                sample.load.value().is_some(),
                sample
                    .memory
                    .value()
                    .is_some_and(|memory| memory.total.0 > 0),
                sample.disk_free.value().is_some(),
                sample.sleeping.value() == Some(&false),
            ];
            if seen == [true; 4] {
                break;
            }
            assert!(Instant::now() < end, "{:#?}", sensors.sources());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn trees_that_are_not_there_are_failures_or_absent_but_never_words() {
        let empty = tempfile::tempdir().unwrap();
        let config = SenseConfig {
            proc: Some(empty.path().join("proc")),
            sys: Some(empty.path().join("sys")),
            dev: Some(empty.path().join("dev")),
            disk: Some(empty.path().join("disk")),
            ..SenseConfig::nothing()
        };
        let sensors = Sensors::start(config, Arc::new(|_| {}));
        let end = Instant::now() + Duration::from_secs(60);
        while !sensors.board.all_spoke() {
            assert!(Instant::now() < end, "{:#?}", sensors.sources());
            std::thread::sleep(Duration::from_millis(5));
        }
        let sample = sensors.sample(NOW);
        assert!(matches!(sample.load, Signal::Failed { .. }));
        assert!(matches!(sample.memory, Signal::Failed { .. }));
        assert!(matches!(sample.disk_free, Signal::Failed { .. }));
        assert_eq!(sample.power, Signal::Absent);
        assert_eq!(sample.heat, Signal::Absent);
        assert_eq!(sample.input, Signal::Absent);
    }
}
