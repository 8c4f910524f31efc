//! `/metrics`: counts in the Prometheus text format 0.0.4. No names of users, jobs or nodes.

use crate::driver::View;
use crate::shared::Shared;
use gleaner_model::{JobState, NodeState};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the state adds to the counters.
pub(crate) struct Gauges {
    nodes: Vec<(&'static str, u64)>,
    jobs: Vec<(&'static str, u64)>,
    running: u64,
    ready: u64,
}

pub(crate) fn gauges(view: &View<'_>) -> Gauges {
    let ((nodes, _), jobs) = (view.state.count_nodes(), view.state.jobs());
    let of_state = |state: NodeState| nodes.get(&state).copied().unwrap_or(0);
    let of_job = |state: JobState| jobs.iter().filter(|job| job.state == state).count() as u64;
    Gauges {
        nodes: NodeState::ALL
            .iter()
            .map(|s| (s.as_str(), of_state(*s)))
            .collect(),
        jobs: JobState::ALL
            .iter()
            .map(|s| (s.as_str(), of_job(*s)))
            .collect(),
        running: jobs.iter().map(|job| job.counts.running).sum(),
        ready: jobs.iter().map(|job| job.counts.ready).sum(),
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) {
        self.head(name, "counter", help);
        let _infallible = writeln!(self.0, "{name} {}", value.load(Ordering::Relaxed));
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        let _infallible = writeln!(self.0, "{name} {value}");
    }

    fn states(&mut self, name: &str, help: &str, states: &[(&str, u64)]) {
        self.head(name, "gauge", help);
        for (state, count) in states {
            let _infallible = writeln!(self.0, "{name}{{state=\"{state}\"}} {count}");
        }
    }
}

pub(crate) fn page(shared: &Shared, gauges: Option<&Gauges>) -> String {
    let mut page = Page(String::new());
    let c = shared.driver.counters();
    page.counter(
        "gleaner_events_total",
        "Events that the brain handled.",
        &c.events,
    );
    page.counter("gleaner_commits_total", "Batches made durable.", &c.commits);
    page.counter(
        "gleaner_failed_commits_total",
        "Batches that were not.",
        &c.failed_commits,
    );
    page.counter("gleaner_rows_total", "Rows made durable.", &c.rows);
    page.counter(
        "gleaner_dispatched_total",
        "Tasks sent to nodes.",
        &c.dispatched,
    );
    page.counter(
        "gleaner_tasks_over_total",
        "Tasks done, failed or cancelled.",
        &c.done,
    );
    page.counter(
        "gleaner_links_cut_total",
        "Agents cut for not reading.",
        &c.links_cut,
    );
    page.gauge(
        "gleaner_queue_messages",
        "Messages waiting for the driver.",
        shared.driver.queued() as u64,
    );
    let trouble = u64::from(shared.driver.trouble().is_some());
    page.gauge("gleaner_trouble", "1 while new work is refused.", trouble);
    if let Some(gauges) = gauges {
        page.states("gleaner_nodes", "Nodes by state.", &gauges.nodes);
        page.states("gleaner_jobs", "Jobs by state.", &gauges.jobs);
        page.gauge("gleaner_tasks_running", "Tasks on nodes.", gauges.running);
        page.gauge(
            "gleaner_tasks_ready",
            "Tasks that could be matched.",
            gauges.ready,
        );
    }
    page.0
}
