//! What the owner can look up later: what ran for whom, when work paused and why, and how the
//! day went, minute by minute. Nothing of the owner's is in it but how busy the PC was.
//!
//! One file of JSON lines that only grows until it is written anew without what is old. A tail
//! that a crash cut off is dropped at the next start; every line before it counts. Lines about
//! the same hour or pause replace each other, the last one holds.

use super::guests::Tally;
use super::protocol::{Entry, Mode, Pause, Slot, Totals, Work};
use gleaner_model::{JobId, Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file in the agent's directory.
const FILE: &str = "owner-history.jsonl";

/// How long work and pauses are kept.
const KEPT: Span = Span::seconds(30 * 24 * 3600);

/// How long the minutes of the timeline are kept: today and yesterday.
const MINUTES_KEPT: Span = Span::seconds(48 * 3600);

/// Most lines about work, pauses and minutes: with about 200, 150 and 60 bytes each, the file
/// stays below 3 MB.
const WORK_MAX: usize = 8000;
const PAUSES_MAX: usize = 5000;
const MINUTES_MAX: usize = 2 * 24 * 60;

/// The file is written anew when it has grown to this many bytes.
const FILE_BYTES_MAX: u64 = 6 << 20;

/// Longest line; whatever is longer was not written by us.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Milliseconds of an hour, the unit in which work is summed, and of a minute.
const HOUR_MS: u64 = 3_600_000;
pub(crate) const MINUTE_MS: u64 = 60_000;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "line")]
enum Line {
    Work(Work),
    Pause(Pause),
    Minute(Minute),
}

/// One minute of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Minute {
    /// Its number since 1970.
    at: u64,
    #[serde(flatten)]
    slot: Slot,
}

/// The history of a node.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// By the hour's number since 1970.
    work: BTreeMap<(u64, JobId), Work>,
    pauses: BTreeMap<Time, Pause>,
    /// When the pause began that lasts. It need not be the last one: clocks are set back.
    lasting: Option<Time>,
    minutes: BTreeMap<u64, Slot>,
    /// Lines that are not in the file yet.
    fresh: Vec<Line>,
    /// Whether one of them must not be lost: a pause, or a job not seen in this hour.
    urgent: bool,
    /// A write broke off, maybe within a line: the next one writes all anew.
    torn: bool,
}

impl Ledger {
    /// Opens or makes the history in a directory. A pause that an earlier agent left open ended
    /// with it.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub(crate) fn open(dir: &Path, now: Time) -> io::Result<Self> {
        let path = dir.join(FILE);
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true).mode(0o600);
        let file = options.open(&path)?;
        let mut ledger = Self {
            bytes: file.metadata()?.len(),
            path,
            file,
            work: BTreeMap::new(),
            pauses: BTreeMap::new(),
            lasting: None,
            minutes: BTreeMap::new(),
            fresh: Vec::new(),
            urgent: false,
            torn: false,
        };
        ledger.load()?;
        ledger.forget(now);
        // Whatever the file had that cannot be read goes; the next line begins a line.
        ledger.rewrite()?;
        Ok(ledger)
    }

    fn load(&mut self) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(&self.path)?);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            if bytes.len() <= LINE_BYTES_MAX
                && let Ok(line) = serde_json::from_slice(&bytes)
            {
                self.insert(line);
            }
        }
    }

    fn insert(&mut self, line: Line) {
        match line {
            Line::Work(work) => {
                self.work.insert((work.from.ms / HOUR_MS, work.job), work);
            }
            Line::Pause(pause) => {
                if pause.to.is_none() {
                    self.lasting = Some(pause.from);
                } else if self.lasting == Some(pause.from) {
                    self.lasting = None;
                }
                self.pauses.insert(pause.from, pause);
            }
            Line::Minute(minute) => {
                self.minutes.insert(minute.at, minute.slot);
            }
        }
    }

    /// Whether something is not in the file that should not wait.
    pub(crate) const fn is_urgent(&self) -> bool {
        self.urgent
    }

    fn note(&mut self, line: Line) {
        self.urgent |= matches!(line, Line::Pause(_));
        self.insert(line.clone());
        self.fresh.push(line);
    }

    /// Names of jobs, as far as the history knows them: those that an earlier agent left run on.
    pub(crate) fn names(&self) -> impl Iterator<Item = (JobId, &str, &str)> {
        self.work
            .values()
            .map(|work| (work.job, work.name.as_str(), work.user.as_str()))
    }

    /// Adds what was done for a job since the last time.
    pub(crate) fn worked(&mut self, now: Time, job: JobId, names: (&str, &str), tally: &Tally) {
        let new = || Work {
            job,
            name: names.0.to_owned(),
            user: names.1.to_owned(),
            from: now,
            to: now,
            tasks: 0,
            cpu_seconds: 0.0,
            memory: 0,
            disk: 0,
            network: 0,
        };
        let known = self.work.get(&(now.ms / HOUR_MS, job));
        self.urgent |= known.is_none();
        let mut work = known.cloned().unwrap_or_else(new);
        if work.user.is_empty() {
            (work.name, work.user) = (names.0.to_owned(), names.1.to_owned());
        }
        work.to = now;
        work.tasks += tally.tasks;
        // Milliseconds are enough, and shorter in the file.
        work.cpu_seconds = ((work.cpu_seconds + tally.cpu_seconds) * 1000.0).round() / 1000.0;
        work.memory = work.memory.max(tally.memory);
        work.disk = work.disk.saturating_add(tally.disk);
        work.network = work.network.saturating_add(tally.network);
        self.note(Line::Work(work));
    }

    /// A minute is over.
    pub(crate) fn minute(&mut self, minute: u64, slot: Slot) {
        self.note(Line::Minute(Minute { at: minute, slot }));
    }

    /// What the PC does may have changed: ends the pause that lasted, begins one where it pauses
    /// now. A pause is told by its rule: the figures in its reason change all the time. What is said
    /// of its end, or of what to do, is of its first moment only and not kept.
    pub(crate) fn changed(&mut self, now: Time, mode: Mode, (rule, reason): (&str, &str)) {
        let lasting = self.lasting.and_then(|from| self.pauses.get(&from));
        if let Some(lasting) = lasting {
            if lasting.mode == mode && lasting.rule == rule {
                return;
            }
            self.close_open_pause(now);
        }
        if matches!(mode, Mode::Paused | Mode::Refused) {
            self.note(Line::Pause(Pause {
                from: now,
                to: None,
                mode,
                rule: rule.to_owned(),
                reason: kept(reason).chars().take(500).collect(),
            }));
        }
    }

    /// Writes what is new, and the whole file anew where it has grown too large or broke off.
    ///
    /// # Errors
    /// Where the disk will not have it. However long that lasts, nothing piles up, and the next
    /// write has it all.
    pub(crate) fn flush(&mut self, now: Time) -> io::Result<()> {
        if self.fresh.is_empty() && !self.torn {
            return Ok(());
        }
        if !self.torn {
            self.torn = true;
            self.append()?;
            self.torn = false;
        }
        if self.torn || self.bytes > FILE_BYTES_MAX {
            self.fresh.clear();
            self.forget(now);
            self.rewrite()?;
        }
        (self.urgent, self.torn) = (false, false);
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        // Lines about the same hour replace each other: the last one is enough.
        let mut last: BTreeMap<(u64, JobId), usize> = BTreeMap::new();
        for (at, line) in self.fresh.iter().enumerate() {
            if let Line::Work(work) = line {
                last.insert((work.from.ms / HOUR_MS, work.job), at);
            }
        }
        let mut text = Vec::new();
        for (at, line) in self.fresh.iter().enumerate() {
            let replaced = match line {
                Line::Work(work) => last.get(&(work.from.ms / HOUR_MS, work.job)) != Some(&at),
                Line::Pause(_) | Line::Minute(_) => false,
            };
            if !replaced {
                serde_json::to_writer(&mut text, line)?;
                text.push(b'\n');
            }
        }
        self.fresh.clear();
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Drops what is old, and the oldest of what is too much.
    fn forget(&mut self, now: Time) {
        let (old, old_minute) = (now - KEPT, (now - MINUTES_KEPT).ms / MINUTE_MS);
        self.work.retain(|_, work| work.to >= old);
        self.pauses
            .retain(|_, pause| pause.to.unwrap_or(now) >= old);
        self.minutes.retain(|minute, _| *minute >= old_minute);
        while self.work.len() > WORK_MAX {
            self.work.pop_first();
        }
        while self.pauses.len() > PAUSES_MAX {
            self.pauses.pop_first();
        }
        while self.minutes.len() > MINUTES_MAX {
            self.minutes.pop_first();
        }
    }

    /// Beside and renamed: a crash leaves the old file or the new one.
    fn rewrite(&mut self) -> io::Result<()> {
        let lines = (self.work.values().cloned().map(Line::Work))
            .chain(self.pauses.values().cloned().map(Line::Pause))
            .chain(self.minutes.iter().map(|(at, slot)| {
                Line::Minute(Minute {
                    at: *at,
                    slot: *slot,
                })
            }));
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        let beside = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.bytes = text.len() as u64;
        self.fresh.clear();
        Ok(())
    }

    /// Ends the pause that lasts. One that does when the history is opened began under an agent that
    /// is gone.
    pub(crate) fn close_open_pause(&mut self, at: Time) {
        let lasting = self.lasting.and_then(|from| self.pauses.get(&from));
        if let Some(pause) = lasting {
            let ended = Pause {
                to: Some(at.max(pause.from)),
                ..pause.clone()
            };
            self.note(Line::Pause(ended));
        }
    }

    /// Work and pauses since then, newest first. Work is summed a day, which `day` numbers.
    pub(crate) fn since(&self, from: Time, day: impl Fn(Time) -> i64) -> Vec<Entry> {
        let mut days: BTreeMap<(i64, JobId), Work> = BTreeMap::new();
        let used = |work: &&Work| work.tasks > 0 || work.cpu_seconds > 0.0 || work.network > 0;
        for work in self
            .work
            .values()
            .filter(|work| work.to >= from)
            .filter(used)
        {
            days.entry((day(work.from), work.job))
                .and_modify(|sum| add(sum, work))
                .or_insert_with(|| work.clone());
        }
        let pauses = self
            .pauses
            .values()
            .filter(|pause| pause.to.is_none_or(|to| to >= from));
        let mut entries: Vec<Entry> = days
            .into_values()
            .map(Entry::Work)
            .chain(pauses.cloned().map(Entry::Pause))
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.from()));
        entries
    }

    /// All work since then together.
    pub(crate) fn totals(&self, from: Time) -> Totals {
        let mut totals = Totals::default();
        for work in self.work.values().filter(|work| work.from >= from) {
            totals.tasks += work.tasks;
            totals.cpu_seconds += work.cpu_seconds;
            totals.disk += work.disk;
            totals.network += work.network;
        }
        totals
    }

    /// Slots of so many minutes from a start on, until `now`.
    pub(crate) fn slots(&self, start: Time, now: Time, minutes: u64) -> Vec<Option<Slot>> {
        let (first, last) = (start.ms / MINUTE_MS, now.ms / MINUTE_MS);
        let mut slots = Vec::new();
        let mut at = first;
        while at <= last {
            let seen: Vec<&Slot> = self
                .minutes
                .range(at..at + minutes)
                .map(|seen| seen.1)
                .collect();
            slots.push(mean(&seen));
            at += minutes;
        }
        slots
    }
}

fn mean(slots: &[&Slot]) -> Option<Slot> {
    let count = u64::try_from(slots.len()).ok().filter(|count| *count > 0)?;
    let mean = |part: fn(&Slot) -> u16| {
        let sum: u64 = slots.iter().map(|slot| u64::from(part(slot))).sum();
        u16::try_from(sum / count).unwrap_or(u16::MAX)
    };
    Some(Slot {
        owner: mean(|slot| slot.owner),
        tasks: mean(|slot| slot.tasks),
        paused: mean(|slot| slot.paused),
    })
}

fn add(sum: &mut Work, work: &Work) {
    sum.from = sum.from.min(work.from);
    sum.to = sum.to.max(work.to);
    sum.tasks += work.tasks;
    sum.cpu_seconds += work.cpu_seconds;
    sum.memory = sum.memory.max(work.memory);
    sum.disk += work.disk;
    sum.network += work.network;
}

/// The reason without what follows from it.
fn kept(reason: &str) -> &str {
    reason.split("; ").next().unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * HOUR_MS;

    fn at(day: u64, hour: u64) -> Time {
        Time {
            ms: (20_000 + day) * DAY_MS + hour * HOUR_MS,
        }
    }

    fn tally(tasks: u64, cpu_seconds: f64) -> Tally {
        Tally {
            tasks,
            cpu_seconds,
            memory: 1 << 20,
            disk: 10,
            network: 1,
        }
    }

    fn day(time: Time) -> i64 {
        i64::try_from(time.ms / DAY_MS).unwrap()
    }

    #[test]
    fn a_pause_is_remembered_without_what_was_to_come() {
        for (reason, remembered) in [
            (
                "You asked for a pause; it ends in 59 min 59 s",
                "You asked for a pause",
            ),
            (
                "You asked for a pause, until you resume",
                "You asked for a pause, until you resume",
            ),
            ("", ""),
        ] {
            assert_eq!(kept(reason), remembered);
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_a_cut_tail_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), at(0, 9)).unwrap();
        ledger.worked(at(0, 9), JobId(1), ("render", "ada"), &tally(3, 1.5));
        ledger.worked(at(0, 9), JobId(1), ("render", "ada"), &tally(1, 0.5));
        ledger.worked(at(0, 11), JobId(1), ("render", "ada"), &tally(1, 2.0));
        ledger.changed(at(0, 12), Mode::Paused, ("battery", "on battery"));
        ledger.flush(at(0, 12)).unwrap();
        drop(ledger);
        let path = dir.path().join(FILE);
        let mut text = fs::read(&path).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 3);
        text.extend_from_slice(b"\0\xff garbage\n{\"line\":\"work\",\"job\":2,\"na");
        fs::write(&path, text).unwrap();

        let mut ledger = Ledger::open(dir.path(), at(0, 13)).unwrap();
        ledger.close_open_pause(at(0, 12));
        let entries = ledger.since(at(0, 0), day);
        let [Entry::Pause(pause), Entry::Work(work)] = &entries[..] else {
            panic!("{entries:?}");
        };
        assert_eq!(
            (pause.reason.as_str(), pause.to),
            ("on battery", Some(at(0, 12)))
        );
        assert_eq!(
            (work.tasks, work.cpu_seconds, work.memory),
            (5, 4.0, 1 << 20)
        );
        assert_eq!((work.from, work.to), (at(0, 9), at(0, 11)));
        assert_eq!(ledger.names().next(), Some((JobId(1), "render", "ada")));
        // And a line after the cut one is whole.
        ledger.worked(at(0, 14), JobId(2), ("dock", "bob"), &tally(1, 1.0));
        ledger.flush(at(0, 14)).unwrap();
        let ledger = Ledger::open(dir.path(), at(0, 15)).unwrap();
        assert_eq!(ledger.totals(at(0, 0)).tasks, 6);
        assert_eq!(ledger.totals(at(0, 13)).tasks, 1);
    }

    #[test]
    fn it_forgets_what_is_old_and_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), at(0, 0)).unwrap();
        for hour in 0..24 * 60 {
            let now = at(0, hour);
            for job in 0..20 {
                ledger.worked(
                    now,
                    JobId(job),
                    ("screening of a library", "ada"),
                    &tally(9, 9.0),
                );
            }
            ledger.changed(now, Mode::Paused, ("in-use", "the owner uses this PC"));
            ledger.changed(now + Span::seconds(60), Mode::Working, ("free", ""));
            ledger.minute(
                now.ms / MINUTE_MS,
                Slot {
                    owner: 5,
                    tasks: 900,
                    paused: 0,
                },
            );
            ledger.flush(now).unwrap();
        }
        let size = fs::metadata(dir.path().join(FILE)).unwrap().len();
        assert!(size <= FILE_BYTES_MAX + (1 << 20), "{size}");
        let ledger = Ledger::open(dir.path(), at(60, 0)).unwrap();
        assert!(ledger.work.len() <= WORK_MAX && ledger.minutes.len() <= 48);
        assert!(
            ledger
                .since(at(0, 0), day)
                .iter()
                .all(|entry| entry.from() >= at(29, 0))
        );
        assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() < 3 << 20);
    }

    #[test]
    fn a_disk_that_was_full_for_days_costs_no_memory_and_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), at(0, 0)).unwrap();
        ledger.worked(at(0, 0), JobId(1), ("render", "ada"), &tally(1, 1.0));
        ledger.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        ledger.flush(at(0, 0)).unwrap_err();
        // And so is whatever it is written to next.
        let beside = ledger.path.with_extension("new");
        fs::create_dir(&beside).unwrap();
        for hour in 0..100 {
            ledger.worked(at(0, hour), JobId(1), ("render", "ada"), &tally(1, 1.0));
            ledger.changed(at(0, hour), Mode::Paused, ("disk", &hour.to_string()));
            ledger.flush(at(0, hour)).unwrap_err();
            assert!(ledger.is_urgent() && ledger.fresh.is_empty());
        }
        fs::remove_dir(&beside).unwrap();
        ledger.flush(at(0, 101)).unwrap();
        assert!(!ledger.is_urgent());
        let ledger = Ledger::open(dir.path(), at(0, 102)).unwrap();
        assert_eq!(
            (ledger.totals(at(0, 0)).tasks, ledger.pauses.len()),
            (101, 1)
        );
    }

    #[test]
    fn a_pause_has_one_cause_and_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), at(0, 0)).unwrap();
        for (hour, mode, reason) in [
            (1, Mode::Working, ""),
            (2, Mode::Paused, "on battery"),
            (3, Mode::Paused, "on battery (40 %)"),
            (4, Mode::Paused, "you paused it"),
            (5, Mode::Idle, ""),
            (6, Mode::Refused, "tasks do not yield here"),
        ] {
            let rule = reason.split(' ').take(2).collect::<Vec<_>>().join(" ");
            ledger.changed(at(0, hour), mode, (&rule, reason));
        }
        let pauses: Vec<_> = ledger
            .since(at(0, 0), day)
            .into_iter()
            .map(|entry| match entry {
                Entry::Pause(pause) => (pause.from, pause.to),
                Entry::Work(_) => panic!("no work"),
            })
            .collect();
        let expected = [
            (at(0, 6), None),
            (at(0, 4), Some(at(0, 5))),
            (at(0, 2), Some(at(0, 4))),
        ];
        assert_eq!(pauses, expected);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_pause_of_every_look() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), at(9, 0)).unwrap();
        let owner = ("owner-pause", "you asked for a pause");
        ledger.changed(at(9, 1), Mode::Paused, ("battery", "on battery"));
        // A week back, under a pause that lasts.
        for hour in 0..20 {
            ledger.changed(at(2, hour), Mode::Paused, owner);
        }
        ledger.changed(at(2, 20), Mode::Working, ("free", ""));
        ledger.changed(at(2, 21), Mode::Paused, owner);
        ledger.flush(at(2, 21)).unwrap();
        drop(ledger);
        // The next agent ends what this one left, and no other.
        let mut ledger = Ledger::open(dir.path(), at(2, 22)).unwrap();
        ledger.close_open_pause(at(2, 22));
        let pauses: Vec<_> = ledger
            .pauses
            .values()
            .map(|one| (one.from, one.to))
            .collect();
        let expected = [
            (at(2, 0), Some(at(2, 20))),
            (at(2, 21), Some(at(2, 22))),
            // No pause ends before it begins.
            (at(9, 1), Some(at(9, 1))),
        ];
        assert_eq!(pauses, expected);
    }

    #[test]
    fn slots_are_means_and_a_time_nobody_saw_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), at(0, 0)).unwrap();
        let first = at(0, 0).ms / MINUTE_MS;
        let slot = |owner| Slot {
            owner,
            tasks: 10,
            paused: 0,
        };
        ledger.minute(first, slot(100));
        ledger.minute(first + 1, slot(300));
        ledger.minute(first + 11, slot(7));
        let slots = ledger.slots(at(0, 0), at(0, 0) + Span::seconds(14 * 60), 5);
        assert_eq!(slots, [Some(slot(200)), None, Some(slot(7))]);
    }
}
