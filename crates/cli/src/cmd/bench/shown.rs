//! What a person sees while a benchmark runs: a bar that knows the time left, and an end on Ctrl-C
//! that leaves nothing behind. What is being measured is the benchmark's business.

use crate::daemon::signalled;
use crate::out::{self, Failure};
use crate::session::block_on;
use gleaner_bench::{BenchError, Progress, Stop};
use gleaner_model::Span;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Least time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Runs a benchmark to its end, or tells it to stop when this program is told to; nothing where
/// it stopped.
pub(super) fn watched<R: Send + 'static>(
    stop: Stop,
    work: impl FnOnce(&mut dyn FnMut(Progress)) -> Result<R, BenchError> + Send + 'static,
) -> Result<Option<R>, Failure> {
    block_on(async move {
        let mut work = tokio::task::spawn_blocking(move || {
            let mut shown = Shown::new();
            work(&mut |progress| shown.update(&progress))
        });
        let report = tokio::select! {
            report = &mut work => report,
            () = told_to_stop() => {
                out::say("gleaner: putting everything away");
                stop.tell();
                work.await
            }
        };
        match report.map_err(|problem| Failure::new(out::REFUSED, problem.to_string()))? {
            Ok(report) => Ok(Some(report)),
            Err(BenchError::Interrupted) => Ok(None),
            Err(problem) => Err(Failure::new(out::REFUSED, problem.to_string())),
        }
    })
}

/// Ctrl-C, SIGTERM, or the end of the terminal: nothing must stay behind either way.
async fn told_to_stop() {
    let hung_up = async {
        match signal(SignalKind::hangup()) {
            Ok(mut hangup) => {
                hangup.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signalled() => {}
        () = hung_up => {}
    }
}

/// A bar on a terminal, now and then a line elsewhere.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    said: Option<(Instant, bool)>,
}

impl Shown {
    pub(super) fn new() -> Self {
        let bar = out::is_watched().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:16} {percent:>3} % {wide_msg}") {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar
        });
        Self { bar, said: None }
    }

    pub(super) fn update(&mut self, progress: &Progress) {
        let counted = progress.total > 0;
        let left = progress.left.map_or_else(String::new, |left| {
            format!(", {} left", Span::seconds(left.as_secs()))
        });
        let text = format!("{}{left}", progress.what);
        match &self.bar {
            Some(bar) => {
                bar.set_length(u64::from(progress.total.max(1)));
                bar.set_position(u64::from(progress.done));
                bar.set_message(text);
                bar.tick();
            }
            None => {
                let due = self
                    .said
                    .is_none_or(|(at, before)| before != counted || at.elapsed() >= LINE_EVERY);
                if due || !counted {
                    let of = match counted {
                        true => format!("{} %, ", progress.done * 100 / progress.total),
                        false => String::new(),
                    };
                    out::say(format!("bench: {of}{text}"));
                    self.said = Some((Instant::now(), counted));
                }
            }
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
