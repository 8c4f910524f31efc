//! Runs segments: lets an owner live while the right tasks run, and takes the figures of both.

use super::guests::{Manner, Ours, Peers};
use super::owner::{Answer, Lived, Order, owner_args};
use super::plan::{Beside, Kind, Mix, Model, Rule, Step};
use super::proc::{self, Machine};
use super::rules::{Boinc, Condor};
use super::spare::{Spare, held_back_s, spare};
use super::trace::{OWNER, Tracer, Waits, waits};
use super::work::Record;
use super::{Options, Stop};
use crate::{BenchError, Doing as _};
use gleaner_engine_process::cgroup::Backend;
use gleaner_engine_process::priority::{Place, Stand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The first milliseconds of a segment are dropped: caches and averages settle.
const DROP_MS: u64 = 400;
/// A segment in which programs of others used more CPUs than this is not counted.
pub(crate) const OTHERS_MAX: f64 = 0.15;
/// Nor is one in which the host took more than this share of the CPUs.
pub(crate) const STEAL_MAX: f64 = 0.02;
/// Seconds between two looks of HTCondor.
const CONDOR_LOOK_S: f64 = 5.0;
/// In every owner's mix something is pressed or clicked at least each second.
const INPUT_GAP_S: f64 = 1.0;
/// Longest uninterrupted sleep, in nanoseconds: Ctrl-C is heard after it.
const NAP_NS: u64 = 250_000_000;

/// What one segment gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    /// Its round, from 0.
    pub round: u32,
    /// The owner.
    pub mix: Mix,
    /// What ran beside.
    pub beside: Beside,
    /// Whether the rule let tasks run.
    pub ran: bool,
    /// Whether nobody else disturbed it.
    pub quiet: bool,
    /// Length of the counted window in seconds.
    pub window_s: f64,
    /// CPU seconds that the owner used in it.
    pub owner_s: f64,
    /// CPU seconds that the tasks used.
    pub tasks_s: f64,
    /// CPU seconds that nobody used.
    pub idle_s: f64,
    /// CPUs that programs of others kept busy.
    pub others_cpus: f64,
    /// Share of the CPUs that the host took.
    pub steal: f64,
    /// Units of work that the tasks did.
    pub progress: u64,
    /// Seconds that the owner's threads were runnable without a CPU.
    pub run_delay_s: f64,
    /// Major page faults of the owner.
    pub major_faults: u64,
    /// Who held the CPU meanwhile, where a tracer could tell.
    pub waits: Option<Waits>,
    /// Why CPUs were idle, where a tracer could tell.
    pub spare: Option<Spare>,
    /// Seconds for which our tasks were held back by a bound on their CPU time, where the kernel
    /// tells.
    pub held_back_s: Option<f64>,
    /// From due to done in milliseconds, event by event.
    #[serde(skip)]
    pub late_ms: BTreeMap<Model, Vec<f64>>,
}

/// The owner's process as the benchmark sees it.
#[derive(Debug)]
struct Owner {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Owner {
    /// Starts it, to be placed and calibrated later.
    fn start(program: &Path, dir: &Path) -> Result<Self, BenchError> {
        let name = dir.join(OWNER);
        symlink(program, &name).doing("name the owner")?;
        let mut child = Command::new(&name)
            .args(owner_args(dir))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .doing("start the owner")?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Broken("the owner has no pipes".to_owned()));
        };
        let mut owner = Self {
            child,
            orders,
            answers: BufReader::new(answers),
        };
        match owner.hear()? {
            Answer::Ready => Ok(owner),
            other @ (Answer::Begins(_) | Answer::Over(_) | Answer::Failed(_)) => {
                Err(BenchError::Broken(format!("the owner says {other:?}")))
            }
        }
    }

    fn hear(&mut self) -> Result<Answer, BenchError> {
        let mut line = String::new();
        self.answers.read_line(&mut line).doing("hear the owner")?;
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(why)) => Err(BenchError::Broken(format!("the owner cannot: {why}"))),
            Ok(answer) => Ok(answer),
            Err(_) => Err(BenchError::Broken("the owner ended early".to_owned())),
        }
    }

    /// Begins a segment; gives its start.
    fn begin(&mut self, order: &Order) -> Result<u64, BenchError> {
        let text = serde_json::to_string(order)
            .map_err(|error| BenchError::Broken(format!("order: {error}")))?;
        writeln!(self.orders, "{text}").doing("tell the owner")?;
        match self.hear()? {
            Answer::Begins(at) => Ok(at),
            other @ (Answer::Ready | Answer::Over(_) | Answer::Failed(_)) => {
                Err(BenchError::Broken(format!("the owner says {other:?}")))
            }
        }
    }

    fn end(&mut self) -> Result<Lived, BenchError> {
        match self.hear()? {
            Answer::Over(lived) => Ok(*lived),
            other @ (Answer::Ready | Answer::Begins(_) | Answer::Failed(_)) => {
                Err(BenchError::Broken(format!("the owner says {other:?}")))
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Everything that takes part. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Session {
    owner: Owner,
    peers: Peers,
    ours: Ours,
    tracer: Result<Tracer, String>,
    // Outlives the owner.
    _place: Place,
    boinc: BTreeMap<(Mix, Kind), (Boinc, f64)>,
    condor: BTreeMap<(Mix, Kind), (Condor, f64)>,
    /// Share of the CPUs that all but tasks used lately, by owner.
    busy: BTreeMap<Mix, f64>,
    segment_us: u64,
    stop: Stop,
}

impl Session {
    /// Starts the owner and every task, frozen, in `dir`.
    pub(crate) fn start(
        options: &Options,
        dir: &Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self, BenchError> {
        let home = dir.join("owner");
        fs::create_dir(&home).doing("make a directory for the owner")?;
        // Before the engine looks for groups: that may move a plain user's processes.
        let owner = Owner::start(&options.program, &home)?;
        let mut ours = Ours::new(&options.program, dir)?;
        let mut place = Place::new(Stand::Owner);
        let pid = i32::try_from(owner.child.id()).unwrap_or(0);
        place.put(ours.backend(), &[pid]);
        let mut peers = Peers::new(dir, &options.program)?;
        for kind in options.choice.all_kinds() {
            say(&format!("starting {} tasks", kind.text()));
            ours.add(kind, &options.program, &options.stop)?;
        }
        for mix in &options.choice.mixes {
            for kind in options.choice.kinds_of(*mix) {
                for manner in options.choice.rules.iter().filter_map(|r| Manner::of(*r)) {
                    peers.add(kind, manner, ours.backend(), &options.stop)?;
                }
            }
        }
        Ok(Self {
            owner,
            peers,
            ours,
            tracer: Tracer::new(dir).map_err(|error| error.to_string()),
            _place: place,
            boinc: BTreeMap::new(),
            condor: BTreeMap::new(),
            busy: BTreeMap::new(),
            segment_us: options.segment_ms * 1000,
            stop: options.stop.clone(),
        })
    }

    pub(crate) fn backend(&self) -> &Backend {
        self.ours.backend()
    }

    pub(crate) fn ours(&self) -> &Ours {
        &self.ours
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref().ok()
    }

    /// Why no tracer listens.
    pub(crate) fn deaf(&self) -> Option<&str> {
        self.tracer.as_ref().err().map(String::as_str)
    }

    /// What a rule decides for this segment.
    fn decides(&mut self, step: &Step) -> bool {
        let Beside::Tasks(kind, rule) = step.beside else {
            return false;
        };
        match rule {
            Rule::Gleaner | Rule::Nice19 | Rule::SchedIdle => true,
            // A segment stands for the time between two of its looks at the load.
            Rule::Boinc => {
                let others = self.busy.get(&step.mix).copied().unwrap_or(0.0);
                let (boinc, now_s) = self.boinc.entry((step.mix, kind)).or_default();
                *now_s += Boinc::SAMPLE_S;
                boinc.sample(*now_s, others)
            }
            Rule::Condor => {
                let load = self.busy.get(&step.mix).copied().unwrap_or(0.0);
                let slot = self.condor.entry((step.mix, kind));
                let (condor, now_s) = slot.or_insert((Condor::Unclaimed, 0.0));
                *now_s += CONDOR_LOOK_S;
                *condor = condor.step(*now_s, INPUT_GAP_S, load);
                condor.runs()
            }
        }
    }

    /// Runs one segment.
    pub(crate) fn segment(&mut self, round: u32, step: &Step) -> Result<Segment, BenchError> {
        self.stop.check()?;
        let ran = self.decides(step);
        let guests = match step.beside {
            Beside::Tasks(kind, rule) if ran => Some((kind, Manner::of(rule))),
            Beside::None | Beside::NoneAgain | Beside::Tasks(..) => None,
        };
        let mut outputs = self.resume(step.mix, guests)?;
        let window = self.window(step, &mut outputs);
        // Frozen again whatever happened in between.
        let frozen = self.freeze(guests);
        let (lived, before, after) = window?;
        frozen?;
        let heard = match &self.tracer {
            Ok(tracer) => {
                let text = tracer.heard()?;
                Some((waits(&text), spare(&text)))
            }
            Err(_) => None,
        };
        let segment = assemble(step, &lived, &before, &after);
        let busy = (segment.owner_s / segment.window_s + segment.others_cpus) / cpus_f();
        self.busy.insert(step.mix, busy);
        Ok(Segment {
            round,
            ran,
            waits: heard.map(|(waits, _)| waits),
            spare: heard.map(|(_, spare)| spare),
            late_ms: lived.late_ms,
            ..segment
        })
    }

    fn resume(
        &self,
        mix: Mix,
        guests: Option<(Kind, Option<Manner>)>,
    ) -> Result<Vec<File>, BenchError> {
        match guests {
            None => Ok(Vec::new()),
            Some((kind, None)) => {
                self.ours.allow(mix != Mix::Away);
                self.ours.resume(&[kind], &self.stop)?;
                self.ours.outputs(kind)
            }
            Some((kind, Some(manner))) => {
                self.peers.resume(kind, manner)?;
                self.peers.outputs(kind, manner)
            }
        }
    }

    fn freeze(&self, guests: Option<(Kind, Option<Manner>)>) -> Result<(), BenchError> {
        match guests {
            None => Ok(()),
            Some((kind, None)) => self.ours.pause(&[kind], &self.stop),
            Some((kind, Some(manner))) => self.peers.pause(kind, manner),
        }
    }

    /// The counted part of a segment.
    fn window(
        &mut self,
        step: &Step,
        outputs: &mut [File],
    ) -> Result<(Lived, Snapshot, Snapshot), BenchError> {
        let order = Order {
            mix: step.mix,
            seed: step.seed,
            length_us: self.segment_us,
            drop_us: DROP_MS * 1000,
        };
        let begin_ns = self.owner.begin(&order)?;
        self.sleep_until(begin_ns + DROP_MS * 1_000_000)?;
        if let Ok(tracer) = &self.tracer {
            tracer.start()?;
        }
        let before = self.snapshot(outputs)?;
        self.sleep_until(begin_ns + self.segment_us * 1000)?;
        let after = self.snapshot(outputs)?;
        if let Ok(tracer) = &self.tracer {
            tracer.stop()?;
        }
        Ok((self.owner.end()?, before, after))
    }

    fn snapshot(&self, outputs: &mut [File]) -> Result<Snapshot, BenchError> {
        let records: Vec<Record> = outputs.iter_mut().filter_map(Record::read).collect();
        Ok(Snapshot {
            machine: Machine::now()?,
            cpu_s: proc::seconds(records.iter().map(|record| record.cpu_ns).sum()),
            progress: records.iter().map(|record| record.progress).sum(),
            held_back_s: self.backend().cpu_parent().and_then(held_back_s),
        })
    }

    fn sleep_until(&self, ns: u64) -> Result<(), BenchError> {
        while proc::now_ns() < ns {
            self.stop.check()?;
            proc::sleep_until(ns.min(proc::now_ns() + NAP_NS));
        }
        Ok(())
    }
}

/// PC and tasks at one moment.
struct Snapshot {
    machine: Machine,
    cpu_s: f64,
    progress: u64,
    held_back_s: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "a number of CPUs")]
pub(crate) fn cpus_f() -> f64 {
    proc::cpus() as f64
}

/// All that follows from the two snapshots and the owner's own account.
fn assemble(step: &Step, lived: &Lived, before: &Snapshot, after: &Snapshot) -> Segment {
    let window_s = after.machine.at_s - before.machine.at_s;
    let idle_s = after.machine.idle_s - before.machine.idle_s;
    let steal_s = after.machine.steal_s - before.machine.steal_s;
    let tasks_s = (after.cpu_s - before.cpu_s).max(0.0);
    // The owner's own window is the same but for some microseconds.
    let owner_s = lived.cpu_s * window_s / lived.window_s.max(1e-9);
    let others_s = cpus_f() * window_s - idle_s - steal_s - tasks_s - owner_s;
    let (others_cpus, steal) = (others_s / window_s, steal_s / (cpus_f() * window_s));
    Segment {
        round: 0,
        mix: step.mix,
        beside: step.beside,
        ran: false,
        quiet: others_cpus <= OTHERS_MAX && steal <= STEAL_MAX,
        window_s,
        owner_s,
        tasks_s,
        idle_s,
        others_cpus,
        steal,
        progress: after.progress.saturating_sub(before.progress),
        run_delay_s: lived.run_delay_s,
        major_faults: lived.major_faults,
        waits: None,
        spare: None,
        held_back_s: before
            .held_back_s
            .zip(after.held_back_s)
            .map(|(before, after)| (after - before).max(0.0)),
        late_ms: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(at_s: f64, idle_s: f64, cpu_s: f64) -> Snapshot {
        Snapshot {
            machine: Machine {
                at_s,
                idle_s,
                steal_s: 0.0,
            },
            cpu_s,
            progress: 10,
            held_back_s: Some(cpu_s),
        }
    }

    #[test]
    fn what_nobody_accounts_for_is_others() {
        let step = Step {
            mix: Mix::Desk,
            beside: Beside::None,
            seed: 1,
        };
        let lived = Lived {
            cpu_s: 1.0,
            window_s: 2.0,
            ..Lived::default()
        };
        // Two seconds: the owner had one CPU second, the tasks half of one, others a quarter.
        let idle_s = cpus_f() * 2.0 - 1.75;
        let segment = assemble(
            &step,
            &lived,
            &snapshot(0.0, 0.0, 0.0),
            &snapshot(2.0, idle_s, 0.5),
        );
        assert!((segment.others_cpus - 0.125).abs() < 1e-9, "{segment:?}");
        assert!(segment.quiet);
        assert_eq!(segment.held_back_s, Some(0.5));
        let busy = assemble(
            &step,
            &lived,
            &snapshot(0.0, 0.0, 0.0),
            &snapshot(2.0, idle_s - 0.1, 0.5),
        );
        assert!(!busy.quiet, "{busy:?}");
    }
}
