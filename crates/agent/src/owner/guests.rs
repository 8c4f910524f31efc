//! For whom attempts run here and what they used since anybody asked: the dispatch loop writes,
//! the history reads. Sums a job, so that a thousand short tasks a second cost a few numbers.

use gleaner_model::{AttemptId, JobId, Usage};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Most jobs whose names are known at once; the oldest are forgotten first.
const NAMES_MAX: usize = 4096;

/// Most attempts remembered; far more than an engine holds at once.
const SEEN_MAX: usize = 65_536;

/// Longest name kept, in characters: what a line on a screen has room for.
const NAME_CHARS_MAX: usize = 80;

/// What a job is called, and for whom it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Name {
    pub(crate) job: String,
    pub(crate) user: String,
}

/// What the attempts of one job did since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Tally {
    pub(crate) tasks: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
    pub(crate) network: u64,
}

/// What an attempt was seen to have used, so that nothing is counted twice.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    cpu_seconds: f64,
    disk: u64,
    /// It began under an earlier agent, which counted up to the first look of this one.
    adopted: bool,
}

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<JobId, Name>,
    tallies: BTreeMap<JobId, Tally>,
    seen: BTreeMap<AttemptId, Seen>,
    /// Whether the pool can be reached.
    linked: bool,
    /// What the admin of the pool wants of this node, beside working.
    wish: Option<&'static str>,
    /// What the pool said of the admin's settings, until somebody takes it.
    settings: Option<Vec<u8>>,
}

/// Cheap to clone: all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guests {
    inner: Arc<Mutex<Inner>>,
    welcomed: Arc<Notify>,
    fresh: Arc<Notify>,
}

impl Guests {
    /// Nothing panics while it holds the lock, so what is behind it is always whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool welcomed the node, and said what its admin set.
    pub(crate) fn welcomed(&self, settings: Vec<u8>) {
        self.lock().settings = Some(settings);
        self.welcomed.notify_one();
    }

    /// Waits for a welcome, and gives what the admin set.
    pub(crate) async fn settings(&self) -> Vec<u8> {
        loop {
            if let Some(settings) = self.lock().settings.take() {
                return settings;
            }
            self.welcomed.notified().await;
        }
    }

    /// The admin of the pool paused, drained or emptied this node, or lets it work.
    pub(crate) fn wished(&self, wish: Option<&'static str>) {
        self.lock().wish = wish;
        self.fresh.notify_one();
    }

    pub(crate) fn wish(&self) -> Option<&'static str> {
        self.lock().wish
    }

    /// The connection to the pool is there, or gone.
    pub(crate) fn linked(&self, linked: bool) {
        self.lock().linked = linked;
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.lock().linked
    }

    /// The server said what a job is called and for whom it runs. A job that is new here goes
    /// into the history at once: its attempts may outlive this agent.
    pub(crate) fn named(&self, job: JobId, name: &str, user: &str) {
        if self.know(job, name, user) {
            self.lock().tallies.entry(job).or_default();
            self.fresh.notify_one();
        }
    }

    /// Waits for a job that is new here, or a wish of the admin's.
    pub(crate) async fn news(&self) {
        self.fresh.notified().await;
    }

    /// Remembers a name; says whether it is new.
    pub(crate) fn know(&self, job: JobId, name: &str, user: &str) -> bool {
        let mut inner = self.lock();
        if inner.names.len() >= NAMES_MAX && !inner.names.contains_key(&job) {
            inner.names.pop_first();
        }
        let name = Name {
            job: shown(name),
            user: shown(user),
        };
        inner.names.insert(job, name).is_none()
    }

    pub(crate) fn name(&self, job: JobId) -> Name {
        let unknown = || Name {
            job: format!("job {job}"),
            user: String::new(),
        };
        self.lock().names.get(&job).cloned().unwrap_or_else(unknown)
    }

    /// An attempt that an earlier agent started.
    pub(crate) fn adopted(&self, attempt: AttemptId) {
        let seen = Seen {
            adopted: true,
            ..Seen::default()
        };
        self.lock().seen.insert(attempt, seen);
    }

    /// A look at an attempt that runs.
    pub(crate) fn uses(&self, attempt: AttemptId, usage: &Usage) {
        self.count(attempt, usage);
    }

    /// The last look at an attempt.
    pub(crate) fn ended(&self, attempt: AttemptId, usage: &Usage) {
        self.count(attempt, usage);
        let mut inner = self.lock();
        inner.seen.remove(&attempt);
        inner.tallies.entry(attempt.task.job).or_default().tasks += 1;
    }

    /// Bytes moved over networks for an attempt.
    pub(crate) fn moved(&self, attempt: AttemptId, bytes: u64) {
        if bytes > 0 {
            let mut inner = self.lock();
            inner.tallies.entry(attempt.task.job).or_default().network += bytes;
        }
    }

    fn count(&self, attempt: AttemptId, usage: &Usage) {
        let mut inner = self.lock();
        let disk = usage.read_bytes.saturating_add(usage.written_bytes);
        let now = Seen {
            cpu_seconds: usage.cpu_seconds,
            disk,
            adopted: false,
        };
        if inner.seen.len() >= SEEN_MAX && !inner.seen.contains_key(&attempt) {
            inner.seen.pop_first();
        }
        let before = inner.seen.insert(attempt, now).unwrap_or_default();
        let before = if before.adopted { now } else { before };
        let tally = inner.tallies.entry(attempt.task.job).or_default();
        tally.cpu_seconds += (usage.cpu_seconds - before.cpu_seconds).max(0.0);
        tally.disk += disk.saturating_sub(before.disk);
        tally.memory = tally.memory.max(usage.memory_peak);
    }

    /// What was done since the last call.
    pub(crate) fn take(&self) -> BTreeMap<JobId, Tally> {
        std::mem::take(&mut self.lock().tallies)
    }
}

/// A text of a stranger's as it may stand on a terminal and in a file: one short line.
fn shown(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(NAME_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::TaskId;

    fn usage(cpu_seconds: f64, disk: u64, memory_peak: u64) -> Usage {
        Usage {
            cpu_seconds,
            memory_peak,
            read_bytes: disk,
            written_bytes: 0,
            processes_peak: 1,
            ..Usage::default()
        }
    }

    #[test]
    fn a_new_job_is_in_the_history_before_it_used_anything() {
        let guests = Guests::default();
        assert!(guests.know(JobId(1), "old", "ada"));
        assert!(guests.take().is_empty());
        guests.named(JobId(1), "old", "ada");
        guests.named(JobId(2), "new", "bob");
        assert_eq!(guests.take(), [(JobId(2), Tally::default())].into());
    }

    #[test]
    fn every_second_is_counted_once() {
        let guests = Guests::default();
        let (job, attempt) = (JobId(7), TaskId::new(JobId(7), 0).attempt(1));
        guests.uses(attempt, &usage(2.0, 100, 50));
        guests.uses(attempt, &usage(3.0, 150, 40));
        let first = guests.take()[&job];
        assert_eq!(
            (first.tasks, first.cpu_seconds, first.disk, first.memory),
            (0, 3.0, 150, 50)
        );
        guests.moved(attempt, 10);
        guests.ended(attempt, &usage(5.0, 150, 60));
        let last = guests.take()[&job];
        assert_eq!(
            (last.tasks, last.cpu_seconds, last.disk, last.network),
            (1, 2.0, 0, 10)
        );
        assert!(guests.take().is_empty());
    }

    #[test]
    fn what_an_earlier_agent_counted_is_not_counted_again() {
        let guests = Guests::default();
        let attempt = TaskId::new(JobId(7), 0).attempt(1);
        guests.adopted(attempt);
        guests.uses(attempt, &usage(100.0, 100, 5));
        guests.ended(attempt, &usage(101.0, 100, 5));
        let tally = guests.take()[&JobId(7)];
        assert_eq!((tally.tasks, tally.cpu_seconds), (1, 1.0));
    }

    #[test]
    fn names_are_one_short_line_and_bounded() {
        let guests = Guests::default();
        let long = "x".repeat(500);
        guests.named(JobId(1), &format!("\u{1b}[31mred\n{long}"), "ada");
        let name = guests.name(JobId(1));
        assert!(name.job.starts_with("[31mredxx") && name.job.chars().count() == NAME_CHARS_MAX);
        for job in 2..6000 {
            guests.named(JobId(job), "a", "b");
        }
        assert_eq!(guests.name(JobId(1)).job, "job 1");
        assert_eq!(guests.name(JobId(5999)).job, "a");
    }
}
