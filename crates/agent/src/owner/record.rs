//! The recorder, off until the owner switches it on: how long this PC idles and at what hours, as
//! counts, in a file on this PC and nowhere else. `gleaner sim --trace` reads what is exported.
//!
//! It looks at the kernel's sums of processor time ten times a second and notes how long the
//! owner's load stayed below or above a bound. While tasks run the load is what is left when their
//! time is taken off: a difference of ticks, so it is taken over half a second, and shorter gaps
//! are not seen then. It never sees what runs, or an input.

use gleaner_model::{BUSY_ABOVE_PERMILLE, Span, Time, USAGE_FORMAT, UsageHistogram, WEEK_HOURS};
use gleaner_sense::OwnTime;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The file in the agent's directory.
const FILE: &str = "owner-usage.json";

/// Time between two looks at the load: as long as the shortest idle gap that is counted.
const LOOK: Duration = Duration::from_millis(100);

/// The same while tasks run: two ticks of error are a fiftieth of it on the smallest PC.
const LOOK_BESIDE_TASKS: Duration = Duration::from_millis(500);

/// A tick of `/proc/stat`, in microseconds: `USER_HZ` is 100 on every platform of Linux.
const TICK_US: u64 = 10_000;

/// Time between two writes of the file: what a crash may lose, and seldom enough for a disk that
/// sleeps.
const WRITE: Duration = Duration::from_secs(300);

/// A look that comes so late says nothing about the time before it: the PC slept.
const LATE: Duration = Duration::from_secs(5);

/// An input so long ago means that nobody uses the PC.
const USED: Span = Span::seconds(60);

/// Most bytes of the file and of the kernel's line.
const FILE_BYTES_MAX: u64 = 1 << 20;
const LINE_BYTES: usize = 256;

/// What is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    on: bool,
    since: Option<Time>,
    usage: Option<UsageHistogram>,
}

/// What the agent knows of the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Time,
    /// Hours since Monday 00:00 local time.
    pub(crate) hour: usize,
    /// What nobody but tasks used, in thousandths.
    pub(crate) idle: u16,
    pub(crate) input: Option<Time>,
    pub(crate) tasks_run: bool,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    kept: Kept,
    /// Whether tasks run, for the thread that looks at the load.
    tasks_run: bool,
    last: Option<Moment>,
    thread: bool,
    own: OwnTime,
}

/// The recorder of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Mutex<Inner>>);

/// A stretch of idle or busy time.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    busy: bool,
    since: Instant,
}

impl Recorder {
    /// Opens what an earlier agent recorded. A file that cannot be read counts as none, and the
    /// recorder as off: nothing is recorded that nobody asked for.
    /// `own` tells the processor time of tasks.
    pub(crate) fn open(dir: &Path, own: OwnTime) -> Self {
        let path = dir.join(FILE);
        let off = Kept {
            on: false,
            since: None,
            usage: None,
        };
        let kept = match read(&path) {
            Ok(kept) => kept.unwrap_or(off),
            Err(error) => {
                tracing::warn!(target: "gleaner::owner", %error, "what was recorded is lost");
                off
            }
        };
        let recorder = Self(Arc::new(Mutex::new(Inner {
            path,
            tasks_run: false,
            last: None,
            thread: false,
            kept,
            own,
        })));
        recorder.look_if_on();
        recorder
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it records, how many gaps it counted, and since when.
    pub(crate) fn state(&self) -> (bool, u64, Option<Time>) {
        let inner = self.lock();
        let gaps = inner
            .kept
            .usage
            .as_ref()
            .map_or(0, |usage| usage.idle_gaps.counts.iter().sum());
        (inner.kept.on, gaps, inner.kept.since)
    }

    /// Switches it. Blocks for the disk.
    pub(crate) fn switch(&self, on: bool, now: Time) -> io::Result<()> {
        {
            let mut inner = self.lock();
            inner.kept.on = on;
            inner.last = None;
            if on && inner.kept.usage.is_none() {
                inner.kept.usage = Some(empty());
                inner.kept.since = Some(now);
            }
            inner.write()?;
        }
        self.look_if_on();
        Ok(())
    }

    /// What was recorded.
    pub(crate) fn export(&self) -> Option<UsageHistogram> {
        self.lock().kept.usage.clone()
    }

    /// Writes what was recorded, where it is on.
    pub(crate) fn keep(&self) {
        let inner = self.lock();
        if inner.kept.on
            && let Err(error) = inner.write()
        {
            tracing::warn!(target: "gleaner::owner", %error, "the record cannot be written");
        }
    }

    /// The agent looked at its senses: the hours are noted from this.
    pub(crate) fn note(&self, moment: Moment) {
        let mut inner = self.lock();
        inner.tasks_run = moment.tasks_run;
        if !inner.kept.on {
            return;
        }
        let Some(last) = inner.last else {
            inner.last = Some(moment);
            return;
        };
        if moment.now < last.now {
            // Somebody set the clock back: from here on.
            inner.last = Some(moment);
            return;
        }
        let seconds = moment.now.since(last.now).ms / 1000;
        if seconds == 0 {
            return;
        }
        let Some(usage) = &mut inner.kept.usage else {
            return;
        };
        if Duration::from_secs(seconds) <= 4 * LATE
            && let Some(hour) = usage.hours.get_mut(moment.hour % WEEK_HOURS)
        {
            hour.on_seconds += seconds;
            hour.idle_permille_seconds += seconds * u64::from(moment.idle.min(1000));
            if moment
                .input
                .is_some_and(|input| moment.now.since(input) <= USED)
            {
                hour.used_seconds += seconds;
            }
        }
        if let (Some(before), Some(input)) = (last.input, moment.input)
            && input > before
        {
            usage.input_gaps.note(input.since(before));
        }
        inner.last = Some(moment);
    }

    /// Starts the thread that looks at the load; it ends when the recorder is switched off or
    /// gone.
    fn look_if_on(&self) {
        let mut inner = self.lock();
        if !inner.kept.on || inner.thread {
            return;
        }
        let weak = Arc::downgrade(&self.0);
        let thread = std::thread::Builder::new().name("gleaner-record".to_owned());
        let started = thread.spawn(move || {
            let mut looker = Looker::default();
            while let Some(inner) = weak.upgrade() {
                let recorder = Self(inner);
                let mut inner = recorder.lock();
                if !inner.kept.on {
                    inner.thread = false;
                    return;
                }
                looker.look(&mut inner);
                drop(inner);
                drop(recorder);
                std::thread::sleep(LOOK);
            }
        });
        match started {
            Ok(_) => inner.thread = true,
            Err(error) => {
                tracing::warn!(target: "gleaner::owner", %error, "gaps are not recorded");
            }
        }
    }
}

impl Inner {
    /// Beside and renamed: a crash leaves the old file or the new one.
    fn write(&self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(&serde_json::to_vec(&self.kept)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

/// Processor time since boot, in ticks.
#[derive(Debug, Clone, Copy)]
struct Sums {
    /// Of owner and tasks.
    busy: u64,
    all: u64,
    tasks: u64,
    at: Instant,
}

/// Sums of processor time and where they come from.
#[derive(Debug, Default)]
struct Looker {
    stat: Option<File>,
    last: Option<Sums>,
    stretch: Option<Stretch>,
    written: Option<Instant>,
}

impl Looker {
    fn look(&mut self, inner: &mut Inner) {
        let now = Instant::now();
        let early = |last: &Sums| now.duration_since(last.at) < LOOK_BESIDE_TASKS;
        if inner.tasks_run && self.last.as_ref().is_some_and(early) {
            return;
        }
        let (last, sums) = (self.last, self.sums(&inner.own));
        self.last = sums;
        let written = *self.written.get_or_insert(now);
        if now.duration_since(written) > WRITE {
            self.written = Some(now);
            if let Err(error) = inner.write() {
                tracing::warn!(target: "gleaner::owner", %error, "the record cannot be written");
            }
        }
        let (Some(sums), Some(last)) = (sums, last) else {
            // Whose time it was is not known: what is going on is cut off here.
            self.stretch = None;
            return;
        };
        if sums.at.duration_since(last.at) > LATE {
            self.stretch = None;
            return;
        }
        let Some(load) = sums.load_since(last) else {
            return;
        };
        let busy = load > u64::from(BUSY_ABOVE_PERMILLE);
        match self.stretch {
            Some(stretch) if stretch.busy != busy => {
                let length = now.duration_since(stretch.since).as_millis();
                let length = Span {
                    ms: u64::try_from(length).unwrap_or(u64::MAX),
                };
                if let Some(usage) = &mut inner.kept.usage {
                    match stretch.busy {
                        true => usage.busy_runs.note(length),
                        false => usage.idle_gaps.note(length),
                    }
                }
                self.stretch = Some(Stretch { busy, since: now });
            }
            Some(_) => {}
            None => self.stretch = Some(Stretch { busy, since: now }),
        }
    }

    fn sums(&mut self, own: &OwnTime) -> Option<Sums> {
        if self.stat.is_none() {
            self.stat = File::open("/proc/stat").ok();
        }
        let mut line = [0; LINE_BYTES];
        let count = self.stat.as_ref()?.read_at(&mut line, 0).ok()?;
        let (busy, all) = sums(&String::from_utf8_lossy(&line[..count]))?;
        let tasks = u64::try_from(own.read()?.as_micros()).ok()? / TICK_US;
        Some(Sums {
            busy,
            all,
            tasks,
            at: Instant::now(),
        })
    }
}

impl Sums {
    /// The owner's load since then in thousandths of all processors; none where no time passed.
    fn load_since(self, before: Self) -> Option<u64> {
        let tasks = self.tasks.saturating_sub(before.tasks);
        let owner = self.busy.saturating_sub(before.busy).saturating_sub(tasks);
        (owner * 1000).checked_div(self.all.saturating_sub(before.all))
    }
}

/// Busy and all ticks of all processors, from the first line of `/proc/stat`.
fn sums(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let [user, nice, system, idle, iowait, irq, softirq, ..] = ticks[..] else {
        return None;
    };
    let busy = user + nice + system + irq + softirq;
    Some((busy, busy + idle + iowait))
}

fn read(path: &Path) -> io::Result<Option<Kept>> {
    use std::io::Read as _;
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    let kept: Kept = serde_json::from_slice(&text)?;
    match kept.usage.as_ref().map(UsageHistogram::check) {
        Some(Err(error)) => Err(io::Error::other(error.to_string())),
        Some(Ok(())) | None => Ok(Some(kept)),
    }
}

fn empty() -> UsageHistogram {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    UsageHistogram {
        format: USAGE_FORMAT,
        processors: u32::try_from(processors).unwrap_or(u32::MAX),
        hours: vec![gleaner_model::HourUse::default(); WEEK_HOURS],
        input_gaps: gleaner_model::Gaps::default(),
        idle_gaps: gleaner_model::Gaps::default(),
        busy_runs: gleaner_model::Gaps::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(second: u64, input: Option<u64>) -> Moment {
        Moment {
            now: Time { ms: second * 1000 },
            hour: 30,
            idle: 900,
            input: input.map(|second| Time { ms: second * 1000 }),
            tasks_run: false,
        }
    }

    #[test]
    fn nothing_is_kept_until_it_is_switched_on_and_what_is_survives() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(dir.path(), OwnTime::Nothing);
        for second in 0..100 {
            recorder.note(moment(second, Some(second)));
        }
        assert_eq!(recorder.state(), (false, 0, None));
        assert!(recorder.export().is_none() && !dir.path().join(FILE).exists());

        recorder.switch(true, Time { ms: 1 }).unwrap();
        for (second, input) in [(0, Some(0)), (10, Some(4)), (20, Some(19)), (90, Some(19))] {
            recorder.note(moment(second, input));
        }
        recorder.switch(false, Time { ms: 2 }).unwrap();
        recorder.note(moment(100, Some(100)));

        let usage = Recorder::open(dir.path(), OwnTime::Nothing)
            .export()
            .unwrap();
        let hour = usage.hours[30];
        // The last look came so late that the PC may have slept before it.
        assert_eq!((hour.on_seconds, hour.used_seconds), (20, 20));
        assert_eq!(hour.idle_permille_seconds, 20 * 900);
        assert_eq!(usage.input_gaps.counts.iter().sum::<u64>(), 2);
        assert_eq!(usage.check(), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(dir.path(), OwnTime::Nothing);
        recorder.switch(true, Time { ms: 1 }).unwrap();
        for second in [90_000, 90_010, 10, 20, 30] {
            recorder.note(moment(second, None));
        }
        let hour = recorder.export().unwrap().hours[30];
        assert_eq!(hour.on_seconds, 30);
    }

    #[test]
    fn a_damaged_file_is_none_and_off() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"{\"on\":true,\"since\":null,\"usa").unwrap();
        assert_eq!(
            Recorder::open(dir.path(), OwnTime::Nothing).state(),
            (false, 0, None)
        );
    }

    #[test]
    fn what_tasks_used_is_not_the_owners() {
        let at = Instant::now();
        let sums = |busy, all, tasks| Sums {
            busy,
            all,
            tasks,
            at,
        };
        let load = |now: Sums| now.load_since(sums(1000, 5000, 300));
        assert_eq!(load(sums(1100, 5100, 400)), Some(0), "tasks took it all");
        assert_eq!(load(sums(1100, 5100, 380)), Some(200));
        // Ticks round: tasks may seem to have had more than was used.
        assert_eq!(load(sums(1000, 5100, 302)), Some(0));
        assert_eq!(load(sums(1000, 5000, 300)), None);
    }

    #[test]
    fn the_kernels_sums_are_read_and_garbage_is_not() {
        let line = "cpu  100 20 30 800 50 5 5 7 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(sums(line), Some((160, 1010)));
        for text in ["", "cpu", "cpu  1 2 3\n", "intr 5", "cpu  a b c d e f g"] {
            assert_eq!(sums(text), None, "{text}");
        }
    }
}
