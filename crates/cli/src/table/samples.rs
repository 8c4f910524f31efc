//! Views as a server would give them, for tests of what is shown.

use crate::table::Look;
use crate::table::owner::Shape;
use gleaner_agent::owner::{
    CpuView, DiskView, Entry, MemoryView, Mode, NetworkView, Overview, Pause, RunningView, Totals,
    Work,
};
use gleaner_api::{AttemptView, JobView, NodeView, TaskCounts, TaskDetail, TaskView, TokenView};
use gleaner_model::{
    AttemptId, AttemptRecord, AttemptState, JobId, JobState, LimitKind, LimitRecord, NodeState,
    Reason, TaskId, TaskState, Time, Usage,
};
use std::collections::BTreeMap;

pub(crate) fn job() -> JobView {
    JobView {
        id: JobId(7),
        name: "screening".into(),
        state: JobState::Running,
        reason: String::new(),
        user: "ana".into(),
        priority: 0,
        tags: [("project".to_owned(), "hiv".to_owned())].into(),
        image: None,
        task_count: 40,
        tasks: TaskCounts {
            ready: 24,
            running: 3,
            done: 12,
            failed: 1,
            ..TaskCounts::default()
        },
        submitted: "2026-01-02T03:00:00Z".into(),
        started: Some("2026-01-02T03:00:01Z".into()),
        ended: None,
        cpu_seconds: 812.44,
        checkpoints: 0,
        revision: 99,
    }
}

pub(crate) fn task() -> TaskView {
    TaskView {
        id: TaskId {
            job: JobId(7),
            index: 3,
        },
        name: "ligand=a.pdbqt seed=4".into(),
        state: TaskState::Failed,
        reason: "limit memory passed".into(),
        node: Some("b12-03".into()),
        attempts: 3,
        exit_code: None,
        cpu_seconds: 12.5,
        wall_seconds: 13.0,
        checkpoints: 0,
        checkpoint: None,
        went_on_from: None,
    }
}

pub(crate) fn task_ended(reason: Reason) -> TaskDetail {
    let attempt = AttemptId {
        task: task().id,
        number: 3,
    };
    TaskDetail {
        task: task(),
        attempts_made: vec![AttemptView {
            id: attempt.to_string(),
            state: reason.state().to_string(),
            node: "b12-03".into(),
            reason: reason.to_string(),
            record: Some(AttemptRecord {
                attempt,
                reason,
                engine: Some(gleaner_model::Engine::Vm),
                started: Some("1970-01-01T00:00:01Z".into()),
                ended: "1970-01-01T00:00:14Z".into(),
                wall_seconds: 13.0,
                paused_seconds: 0.0,
                usage: Usage {
                    cpu_seconds: 12.5,
                    memory_peak: 1 << 30,
                    ..Usage::default()
                },
                limits: vec![LimitRecord {
                    limit: LimitKind::Memory,
                    value: 1_073_741_824.0,
                    peak: 1_073_741_824.0,
                    at: Some("1970-01-01T00:00:13.9Z".into()),
                    action: "ended".into(),
                }],
                refused_calls: [("ptrace".to_owned(), 2)].into(),
                degraded: Vec::new(),
                outputs: Vec::new(),
                went_on_from: None,
                checkpoints: 0,
            }),
        }],
    }
}

pub(crate) fn node() -> NodeView {
    NodeView {
        id: 2,
        name: "b12-03".into(),
        state: NodeState::Online,
        reason: String::new(),
        arch: "x86_64".into(),
        engines: vec!["process".into()],
        labels: BTreeMap::from([("room".to_owned(), "b12".to_owned())]),
        cpus: 4.0,
        cpus_used: 3.0,
        memory: 8 << 30,
        memory_used: 3 << 30,
        disk: 100 << 30,
        running: 3,
        tasks_done: 12,
        seen: Some("2026-01-02T03:03:59Z".into()),
        version: "0.1.0".into(),
    }
}

pub(crate) fn token() -> TokenView {
    TokenView {
        id: "4".into(),
        kind: "node".into(),
        name: "b12-03".into(),
        state: "valid".into(),
        created: "2026-01-01T03:00:00Z".into(),
        secret: None,
    }
}

/// A table for a file, at a fixed time.
pub(crate) fn shape() -> Shape {
    Shape {
        look: Look {
            colour: false,
            width: None,
            now: "2026-01-02T03:04:00Z".parse().unwrap(),
        },
        zone: jiff::tz::TimeZone::UTC,
    }
}

fn ms(text: &str) -> Time {
    let stamp: jiff::Timestamp = text.parse().unwrap();
    Time {
        ms: u64::try_from(stamp.as_millisecond()).unwrap(),
    }
}

pub(crate) fn overview() -> Overview {
    Overview {
        id: "ab".repeat(16),
        name: "desk-4".into(),
        state: NodeState::Online,
        mode: Mode::Working,
        reason: "Nothing else needs the PC".into(),
        since: ms("2026-01-02T02:59:00Z"),
        owner_paused: false,
        until: None,
        at: ms("2026-01-02T03:04:00Z"),
        server: "https://pool.example:8421".into(),
        connected: true,
        data: "/var/lib/gleaner".into(),
        version: "0.1.0".into(),
        cpu: CpuView {
            offered: 4.0,
            allowed: 4.0,
            owner: 0.12,
            tasks: 0.7,
            idle: 0.18,
        },
        memory: MemoryView {
            used: 500 << 20,
            allowed: 8 << 30,
            available: Some(9 << 30),
            total: Some(16 << 30),
        },
        disk: DiskView {
            used: 300 << 20,
            allowed: 100 << 30,
            free: Some(200 << 30),
            speed: 1.0,
        },
        network: NetworkView {
            today: 12 << 20,
            allowed: true,
            metered: None,
        },
        running: vec![RunningView {
            id: TaskId::new(JobId(7), 3).attempt(1),
            job: JobId(7),
            name: "screening".into(),
            user: "ada".into(),
            state: AttemptState::Running,
            since: ms("2026-01-02T02:59:00Z"),
            cpus: 1.0,
            cpus_allowed: 1.0,
            cpu_seconds: 290.5,
            memory: 500 << 20,
            memory_allowed: 1 << 30,
            disk: 3 << 20,
            network: 0,
        }],
        today: Totals {
            tasks: 12,
            cpu_seconds: 4000.0,
            disk: 0,
            network: 12 << 20,
        },
    }
}

/// Two hours of one job, and what kept it waiting in between.
pub(crate) fn history() -> Vec<Entry> {
    let work = |from: &str, to: &str| {
        Entry::Work(Work {
            job: JobId(7),
            name: "screening".into(),
            user: "ada".into(),
            from: ms(from),
            to: ms(to),
            tasks: 3,
            cpu_seconds: 120.0,
            memory: 500 << 20,
            disk: 0,
            network: 0,
        })
    };
    vec![
        work("2026-01-02T03:00:00.5Z", "2026-01-02T03:04:00Z"),
        Entry::Pause(Pause {
            from: ms("2026-01-02T02:10:00Z"),
            to: Some(ms("2026-01-02T03:00:00Z")),
            mode: Mode::Paused,
            rule: "owner".into(),
            reason: "you paused it".into(),
        }),
        work("2026-01-02T02:00:00Z", "2026-01-02T02:10:00Z"),
    ]
}
