//! Long work shows itself: a bar on a terminal, plain lines elsewhere, nothing where output is for
//! programs. Always on standard error.

use crate::out;
use gleaner_api::JobView;
use gleaner_client::Progress;
use gleaner_model::{Bytes, JobState, Span};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Least time between two plain lines of one state; it grows with the time waited, so that a log
/// of a day has some hundred lines and not twenty thousand.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The growth: a line each time the wait so far has grown by this part of itself.
const LINE_PART: u32 = 30;
/// How often a bar redraws while nothing happens, so that its time goes on.
const TICK: Duration = Duration::from_millis(200);
/// Least time between two answers for a bar, and for lines of a job that has not begun: one with thousands
/// of tasks a second changes all the time, and nobody reads faster.
const PACE: Duration = Duration::from_millis(200);
/// Fewer seconds than this say nothing about a rate.
const RATE_AFTER_SECONDS: f64 = 0.5;

/// How much a command shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A bar or lines, as standard error is.
    Progress,
    /// Nothing.
    Nothing,
}

/// A job's progress.
#[derive(Debug)]
pub(crate) struct JobProgress {
    way: Way,
    started: Instant,
    /// Tasks that were over when we began to watch: they say nothing about the rate.
    over_before: Option<u64>,
}

#[derive(Debug)]
enum Way {
    Silent,
    Bar(ProgressBar),
    Lines {
        last: Option<Instant>,
        state: Option<JobState>,
    },
}

impl JobProgress {
    pub(crate) fn new(shown: Shown) -> Self {
        let way = match shown {
            Shown::Nothing => Way::Silent,
            Shown::Progress if out::is_watched() => {
                let bar = bar();
                bar.enable_steady_tick(TICK);
                Way::Bar(bar)
            }
            Shown::Progress => Way::Lines {
                last: None,
                state: None,
            },
        };
        Self {
            way,
            started: Instant::now(),
            over_before: None,
        }
    }

    /// Shows where the job is.
    pub(crate) fn update(&mut self, job: &JobView) {
        let over = over(job);
        let before = *self.over_before.get_or_insert(over);
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = Rate::of(
            over - before.min(over),
            job.task_count - over.min(job.task_count),
            seconds,
        );
        match &mut self.way {
            Way::Silent => {}
            Way::Bar(bar) => {
                bar.set_length(job.task_count);
                bar.set_position(over);
                bar.set_message(bar_text(job, &rate));
            }
            Way::Lines { last, state } => {
                let every = line_every(self.started);
                let changed = *state != Some(job.state);
                if changed || last.is_none_or(|last| last.elapsed() >= every) {
                    out::say(line_text(job, &rate));
                    *last = Some(Instant::now());
                    *state = Some(job.state);
                }
            }
        }
    }

    /// How soon there is use for what changed in a job in this state. That it is over is told at
    /// once.
    pub(crate) fn pace(&self, state: JobState) -> Duration {
        match &self.way {
            Way::Silent => Duration::MAX,
            Way::Lines { last, .. } if state == JobState::Running => {
                let since = last.map_or(Duration::ZERO, |last| last.elapsed());
                let due = line_every(self.started).saturating_sub(since);
                // Another state is told before.
                due.clamp(PACE, LINE_EVERY)
            }
            Way::Bar(_) | Way::Lines { .. } => PACE,
        }
    }

    /// Says a sentence without disturbing the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.way {
            Way::Silent => {}
            Way::Bar(bar) => bar.suspend(|| out::say(text)),
            Way::Lines { .. } => out::say(text),
        }
    }

    /// Takes the bar away, so that what follows stands alone.
    pub(crate) fn finish(&self) {
        if let Way::Bar(bar) = &self.way {
            bar.finish_and_clear();
        }
    }
}

impl Drop for JobProgress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:16} {percent:>3} % {wide_msg}") {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar
}

/// Least time between two lines to somebody who waits since then.
fn line_every(started: Instant) -> Duration {
    LINE_EVERY.max(started.elapsed() / LINE_PART)
}

/// Tasks that are over.
fn over(job: &JobView) -> u64 {
    job.tasks.done + job.tasks.failed + job.tasks.cancelled
}

/// Tasks a second and time left, where there is enough to tell.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    per_second: Option<f64>,
    left: Option<Span>,
}

impl Rate {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most a million tasks; a time left is positive and shown in whole seconds"
    )]
    fn of(done: u64, left: u64, seconds: f64) -> Self {
        if done == 0 || seconds < RATE_AFTER_SECONDS {
            return Self {
                per_second: None,
                left: None,
            };
        }
        let per_second = done as f64 / seconds;
        Self {
            per_second: Some(per_second),
            left: (left > 0).then(|| Span::seconds((left as f64 / per_second).ceil() as u64)),
        }
    }

    fn per_second_text(&self) -> Option<String> {
        self.per_second
            .map(|rate| format!("{}/s", few_digits(rate)))
    }

    fn left_text(&self) -> Option<String> {
        self.left.map(|left| format!("{left} left"))
    }
}

/// What stands beside the bar: what matters first, because a narrow terminal cuts the end off.
fn bar_text(job: &JobView, rate: &Rate) -> String {
    let state = if job.state == JobState::Running {
        String::new()
    } else {
        format!(" {}", job.state)
    };
    let mut parts = vec![format!(
        "job {}{state}: {}/{} done",
        job.id, job.tasks.done, job.task_count
    )];
    parts.extend(counted(job.tasks.failed, "failed"));
    parts.extend(rate.left_text());
    parts.extend(rate.per_second_text());
    parts.extend(counted(job.tasks.running, "running"));
    parts.extend(counted(job.tasks.cancelled, "cancelled"));
    parts.join(", ")
}

fn line_text(job: &JobView, rate: &Rate) -> String {
    let mut parts = vec![format!(
        "job {} {}: {} of {} done",
        job.id, job.state, job.tasks.done, job.task_count
    )];
    parts.extend(counted(job.tasks.running, "running"));
    parts.extend(counted(job.tasks.failed, "failed"));
    parts.extend(counted(job.tasks.cancelled, "cancelled"));
    parts.extend(rate.per_second_text());
    parts.extend(rate.left_text());
    parts.join(", ")
}

/// `3 failed`, where there are any.
fn counted(count: u64, word: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {word}"))
}

/// Three digits are enough for a rate.
fn few_digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Shows a transfer while `work` goes on: by a bar on a terminal, by a line now and then elsewhere,
/// where short ones say nothing.
pub(crate) async fn transfer<T>(
    shown: Shown,
    verb: &str,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> T {
    if shown == Shown::Nothing {
        return work.await;
    }
    let bar = out::is_watched().then(bar);
    let started = Instant::now();
    let mut told = started;
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                return result;
            }
            () = tokio::time::sleep(TICK) => {}
        }
        if let Some(bar) = &bar {
            bar.set_length(progress.bytes_total().max(1));
            bar.set_position(progress.bytes_moved());
            bar.set_message(moved_text(verb, progress));
        } else if told.elapsed() >= line_every(started) {
            told = Instant::now();
            let total = Bytes(progress.bytes_total());
            out::say(format!("{} of {total}", moved_text(verb, progress)));
        }
    }
}

fn moved_text(verb: &str, progress: &Progress) -> String {
    let moved = Bytes(progress.bytes_moved());
    format!("{verb}: {}, {moved}", files(progress.files_moved()))
}

/// `1 file`, `2 files`.
pub(crate) fn files(count: u64) -> String {
    format!("{count} {}", if count == 1 { "file" } else { "files" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn who_shows_little_asks_seldom() {
        let progress = |way| JobProgress {
            way,
            started: Instant::now(),
            over_before: None,
        };
        let silent = progress(Way::Silent);
        assert_eq!(silent.pace(JobState::Running), Duration::MAX);
        let lines = |last| progress(Way::Lines { last, state: None });
        assert_eq!(lines(None).pace(JobState::Waiting), PACE);
        assert_eq!(lines(None).pace(JobState::Running), LINE_EVERY);
        let just_now = lines(Some(Instant::now())).pace(JobState::Running);
        assert!(just_now > PACE && just_now <= LINE_EVERY);
        let long_ago = Instant::now().checked_sub(2 * LINE_EVERY);
        assert_eq!(lines(long_ago).pace(JobState::Running), PACE);
        let bar = progress(Way::Bar(ProgressBar::hidden()));
        assert_eq!(bar.pace(JobState::Running), PACE);
    }

    #[test]
    fn a_line_tells_counts_rate_and_time_left() {
        let job = samples::job();
        for (done, left, seconds, expected) in [
            (
                0,
                28,
                10.0,
                "job 7 running: 12 of 40 done, 3 running, 1 failed",
            ),
            (
                12,
                27,
                0.1,
                "job 7 running: 12 of 40 done, 3 running, 1 failed",
            ),
            (
                12,
                27,
                4.0,
                "job 7 running: 12 of 40 done, 3 running, 1 failed, 3.00/s, 9.0 s left",
            ),
            (
                1200,
                0,
                1.0,
                "job 7 running: 12 of 40 done, 3 running, 1 failed, 1200/s",
            ),
        ] {
            assert_eq!(line_text(&job, &Rate::of(done, left, seconds)), expected);
        }
    }

    #[test]
    fn a_bar_has_what_matters_in_eighty_columns() {
        let job = samples::job();
        let shown = bar_text(&job, &Rate::of(12, 27, 4.0));
        assert_eq!(
            shown,
            "job 7: 12/40 done, 1 failed, 9.0 s left, 3.00/s, 3 running"
        );
        let mut paused = job;
        paused.state = JobState::Paused;
        let shown = bar_text(&paused, &Rate::of(0, 27, 4.0));
        assert!(shown.starts_with("job 7 paused: 12/40 done, "), "{shown}");
    }

    #[test]
    fn one_file_is_no_files() {
        assert_eq!([0, 1, 2].map(files), ["0 files", "1 file", "2 files"]);
        let moved = moved_text("sending", &Progress::default());
        assert_eq!(moved, "sending: 0 files, 0 B");
    }

    #[test]
    fn rates_keep_three_digits() {
        for (value, text) in [(0.123, "0.12"), (12.34, "12.3"), (1234.5, "1234")] {
            assert_eq!(few_digits(value), text);
        }
    }
}
