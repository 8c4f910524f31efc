//! The owner: a process of normal priority in a session of its own, which does fixed work at fixed
//! times and tells how late each piece was done.
//!
//! Timers are absolute and open loop: an event that comes late because the one before took long
//! counts from its due time, as a person counts. It must not know what runs beside it. Orders
//! come as lines of JSON on standard input, answers go to standard output; it ends with its
//! parent.

mod events;
mod work;

pub(crate) use events::FRAME_US;

use super::plan::{Mix, Model};
use super::proc;
use crate::{BenchError, Doing as _};
use events::{Event, events};
use rustix::thread::ClockId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::mpsc::{Sender, channel};
use work::{Saver, Steps};

/// The hidden first argument that makes the `gleaner` program an owner.
const CALL: &str = "__owner";
/// Time between an order and the first event, for the threads to start, in nanoseconds.
const LEAD_NS: u64 = 20_000_000;

/// A segment to live through.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Order {
    /// What to do.
    pub(crate) mix: Mix,
    /// When.
    pub(crate) seed: u64,
    /// How long, in microseconds.
    pub(crate) length_us: u64,
    /// Events of the first microseconds are not counted.
    pub(crate) drop_us: u64,
}

/// What the owner says, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// It is ready to be placed, calibrated after the first order.
    Ready,
    /// A segment begins at this time of the monotonic clock, in nanoseconds.
    Begins(u64),
    /// A segment is over.
    Over(Box<Lived>),
    /// It cannot.
    Failed(String),
}

/// How a segment went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lived {
    /// Milliseconds from due to done, event by event.
    pub(crate) late_ms: BTreeMap<Model, Vec<f64>>,
    /// CPU seconds of the owner in the counted window.
    pub(crate) cpu_s: f64,
    /// Length of the counted window in seconds.
    pub(crate) window_s: f64,
    /// Seconds that its threads were runnable and not running.
    pub(crate) run_delay_s: f64,
    /// Major page faults.
    pub(crate) major_faults: u64,
}

/// Whether the program was started to be an owner.
#[must_use]
pub fn is_owner_call(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == CALL)
}

/// The arguments that make it one, with its files in `dir`.
pub(crate) fn owner_args(dir: &Path) -> [OsString; 2] {
    [CALL.into(), dir.as_os_str().to_owned()]
}

/// The life of an owner.
#[must_use]
pub fn owner_main(args: &[OsString]) -> ExitCode {
    let Some(dir) = args.get(2).map(PathBuf::from) else {
        return ExitCode::from(2);
    };
    match live(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent may be gone; then nobody wants to know.
            let _unheard = say(&Answer::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn live(dir: &Path) -> Result<(), BenchError> {
    proc::die_with_parent()?;
    rustix::process::setsid().doing("start a session")?;
    say(&Answer::Ready)?;
    let mut owner = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.doing("hear an order")?;
        let order: Order = serde_json::from_str(&line)
            .map_err(|error| BenchError::Broken(format!("order {line:?}: {error}")))?;
        if owner.is_none() {
            owner = Some(Owner::new(dir)?);
        }
        if let Some(owner) = &mut owner {
            let lived = owner.live(&order)?;
            say(&Answer::Over(Box::new(lived)))?;
        }
    }
    Ok(())
}

fn say(answer: &Answer) -> Result<(), BenchError> {
    let text = serde_json::to_string(answer)
        .map_err(|error| BenchError::Broken(format!("answer: {error}")))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").doing("answer")?;
    out.flush().doing("answer")
}

/// An owner with everything it works with.
struct Owner {
    steps: BTreeMap<Model, Steps>,
    builders: Vec<Steps>,
    saver: Saver,
}

impl Owner {
    fn new(dir: &Path) -> Result<Self, BenchError> {
        let steps: BTreeMap<Model, Steps> = [Model::Keys, Model::Frames, Model::Renders]
            .into_iter()
            .map(|model| (model, Steps::calibrated(model)))
            .collect();
        let builder = Steps::calibrated(Model::Compile);
        let builders = (0..proc::cpus()).map(|_| builder.another()).collect();
        Ok(Self {
            steps,
            builders,
            saver: Saver::new(dir)?,
        })
    }

    /// Lives through a segment: a thread for each thing it does, and this one that counts.
    fn live(&mut self, order: &Order) -> Result<Lived, BenchError> {
        let begin_ns = proc::now_ns() + LEAD_NS;
        say(&Answer::Begins(begin_ns))?;
        let models = order.mix.models();
        let workers = match models.contains(&Model::Compile) {
            true => self.builders.len(),
            false => 0,
        };
        let (results, late_ms) = channel();
        let stage = Stage {
            order,
            clock: Clock {
                begin_ns,
                end_ns: begin_ns + order.length_us * 1000,
                drop_us: order.drop_us,
            },
            counted: Barrier::new(models.len() + workers + 1),
            turn: Barrier::new(workers + 1),
            results,
        };
        let mut lived = std::thread::scope(|scope| {
            let stage = &stage;
            for (model, steps) in &mut self.steps {
                if models.contains(model) {
                    scope.spawn(|| stage.play(*model, |event| steps.work(event.work_us)));
                }
            }
            if models.contains(&Model::Saves) {
                scope.spawn(|| stage.save(&mut self.saver));
            }
            for builder in self.builders.iter_mut().take(workers) {
                scope.spawn(|| stage.build(builder));
            }
            if workers > 0 {
                scope.spawn(|| {
                    stage.play(Model::Compile, |_| {
                        stage.turn.wait();
                        stage.turn.wait();
                    });
                });
            }
            stage.clock.count(&stage.counted)
        })?;
        drop(stage);
        lived.late_ms = late_ms.iter().collect();
        Ok(lived)
    }
}

/// What the threads of one segment share.
struct Stage<'a> {
    order: &'a Order,
    clock: Clock,
    /// Threads end only after they were counted: an ended one takes its figures with it.
    counted: Barrier,
    /// The builders begin and end each compile together.
    turn: Barrier,
    results: Sender<(Model, Vec<f64>)>,
}

impl Stage<'_> {
    fn events(&self, model: Model) -> Vec<Event> {
        events(model, self.order.seed, self.order.length_us)
    }

    /// The life of a thread that does all events of one model.
    fn play(&self, model: Model, work: impl FnMut(&Event)) {
        let late_ms = self.clock.run(&self.events(model), work);
        // The receiver lives as long as this scope.
        let _heard = self.results.send((model, late_ms));
        self.counted.wait();
    }

    /// The same for saves. One that fails would look fast, so it counts as endless.
    fn save(&self, saver: &mut Saver) {
        let mut failed = false;
        let mut late_ms = self.clock.run(&self.events(Model::Saves), |_| {
            failed |= saver.save().is_err();
        });
        if failed {
            late_ms.fill(f64::MAX);
        }
        let _heard = self.results.send((Model::Saves, late_ms));
        self.counted.wait();
    }

    /// The life of one builder.
    fn build(&self, builder: &mut Steps) {
        for event in self.events(Model::Compile) {
            self.turn.wait();
            builder.work(event.work_us);
            self.turn.wait();
        }
        self.counted.wait();
    }
}

/// The times of one segment.
#[derive(Debug, Clone, Copy)]
struct Clock {
    begin_ns: u64,
    end_ns: u64,
    drop_us: u64,
}

impl Clock {
    /// Does each event at its time, or at once where that is over; gives the milliseconds from
    /// due to done of those that count.
    fn run(self, events: &[Event], mut work: impl FnMut(&Event)) -> Vec<f64> {
        let mut late_ms = Vec::new();
        for event in events {
            let due_ns = self.begin_ns + event.due_us * 1000;
            proc::sleep_until(due_ns);
            work(event);
            if event.due_us >= self.drop_us {
                late_ms.push(millis(proc::now_ns().saturating_sub(due_ns)));
            }
        }
        late_ms
    }

    /// Counts what the process used in the window.
    fn count(self, counted: &Barrier) -> Result<Lived, BenchError> {
        proc::sleep_until(self.begin_ns + self.drop_us * 1000);
        let before = Counters::now();
        proc::sleep_until(self.end_ns);
        let after = Counters::now();
        counted.wait();
        let (before, after) = (before?, after?);
        Ok(Lived {
            late_ms: BTreeMap::new(),
            cpu_s: after.cpu_s - before.cpu_s,
            window_s: after.at_s - before.at_s,
            run_delay_s: after.run_delay_s - before.run_delay_s,
            major_faults: after.major_faults.saturating_sub(before.major_faults),
        })
    }
}

fn millis(ns: u64) -> f64 {
    proc::seconds(ns) * 1000.0
}

/// What this process has used.
struct Counters {
    at_s: f64,
    cpu_s: f64,
    run_delay_s: f64,
    major_faults: u64,
}

impl Counters {
    fn now() -> Result<Self, BenchError> {
        let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
        Ok(Self {
            at_s: proc::seconds(proc::now_ns()),
            cpu_s: proc::seconds(proc::nanos(time)),
            run_delay_s: proc::own_run_delay_s()?,
            major_faults: proc::own_major_faults()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_event_counts_from_its_due_time() {
        let begin_ns = proc::now_ns();
        let clock = Clock {
            begin_ns,
            end_ns: begin_ns + 50_000_000,
            drop_us: 0,
        };
        let event = |due_ms: u64| Event {
            due_us: due_ms * 1000,
            work_us: 1,
        };
        // The first takes 30 ms, so the second, due after 10, is at least 20 late.
        let mut first = true;
        let late = clock.run(&[event(0), event(10)], |_| {
            if std::mem::take(&mut first) {
                proc::sleep_until(begin_ns + 30_000_000);
            }
        });
        assert!(late[0] >= 30.0, "{late:?}");
        assert!(late[1] >= 20.0, "{late:?}");
    }

    #[test]
    fn timers_wait_for_their_time_and_the_first_part_is_dropped() {
        let begin_ns = proc::now_ns();
        let clock = Clock {
            begin_ns,
            end_ns: begin_ns + 40_000_000,
            drop_us: 15_000,
        };
        let all: Vec<Event> = [10_000, 20_000, 30_000]
            .map(|due_us| Event { due_us, work_us: 1 })
            .into();
        let mut done = Vec::new();
        let late = clock.run(&all, |_| done.push(proc::now_ns() - begin_ns));
        assert_eq!((late.len(), done.len()), (2, 3));
        assert!(done[2] >= 30_000_000);
    }

    #[test]
    fn an_owner_lives_through_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let mut owner = Owner::new(dir.path()).unwrap();
        for mix in [Mix::Desk, Mix::Work, Mix::Save, Mix::Away] {
            let order = Order {
                mix,
                seed: 3,
                length_us: 300_000,
                drop_us: 100_000,
            };
            let lived = owner.live(&order).unwrap();
            let models: Vec<Model> = lived.late_ms.keys().copied().collect();
            assert_eq!(models.len(), mix.models().len());
            // The first look at the counters may come late on a busy PC, so the window is shorter.
            assert!(lived.window_s > 0.0, "{lived:?}");
            for (model, late) in &lived.late_ms {
                let due = events(*model, 3, 300_000);
                let counted = due.iter().filter(|event| event.due_us >= 100_000).count();
                assert_eq!(late.len(), counted, "{model}");
            }
        }
    }
}
