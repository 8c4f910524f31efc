//! A pool for tests: steps the brain, checks every invariant after each step, keeps the book of
//! rows, and restarts from it beside the living state to see that nothing would be lost.

use gleaner_core::{
    Action, AttemptEnd, Book, Bundle, Event, Held, JobView, KernelUse, MergeKind, Need, NewJob,
    NodeHello, NodeOffer, NodeReport, Reply, Row, State, TaskView,
};
use gleaner_model::{
    AttemptId, AttemptState, Bytes, Cpus, Engine, EngineChoice, GuestPrice, JobId, NodeId,
    NodeState, Reason, Retry, Span, TaskId, TaskState, Time, UserId,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) struct Pool {
    pub(crate) state: State,
    pub(crate) book: Book,
    pub(crate) now: Time,
    granted: BTreeSet<AttemptId>,
    done: BTreeSet<TaskId>,
}

pub(crate) fn need(cpus: u32) -> Need {
    Need {
        cpus: Cpus { milli: cpus * 1000 },
        memory: Bytes(GIB),
        disk: Bytes(GIB),
        engine: EngineChoice::Process,
        image: false,
        arch: None,
        labels: BTreeMap::new(),
        saves: false,
    }
}

pub(crate) fn job(user: u32, count: u32) -> NewJob {
    NewJob {
        user: UserId(user),
        name: format!("of user {user}"),
        priority: 0,
        count,
        need: need(1),
        retry: Retry::default(),
        merge: MergeKind::None,
        body: vec![1, 2, 3],
    }
}

pub(crate) fn hello(node: u32, cpus: u32) -> NodeHello {
    NodeHello {
        node: NodeId(node),
        name: format!("pc{node}"),
        cpus: Cpus { milli: cpus * 1000 },
        memory: Bytes(64 * GIB),
        disk: Bytes(64 * GIB),
        arch: "x86_64".into(),
        engines: vec![Engine::Process],
        images: true,
        labels: BTreeMap::new(),
        machine: None,
        guests: GuestPrice::Everything,
        refused: None,
        held: Vec::new(),
    }
}

/// What [`hello`] says of what the node offers.
pub(crate) fn offer(node: u32, cpus: u32) -> NodeOffer {
    hello(node, cpus).offer()
}

pub(crate) fn online(node: u32) -> Event {
    Event::Beat(NodeReport {
        node: NodeId(node),
        state: NodeState::Online,
        reason: String::new(),
    })
}

pub(crate) fn attempt(job: u64, index: u32, number: u32) -> AttemptId {
    TaskId::new(JobId(job), index).attempt(number)
}

pub(crate) fn ended(node: u32, attempt: AttemptId, reason: Reason) -> Event {
    Event::Ended(AttemptEnd {
        node: NodeId(node),
        attempt,
        reason,
        cpu_seconds: 1.0,
        busy_seconds: 60.0,
        kernel: Some(KernelUse::default()),
        record: vec![7],
        saved: None,
    })
}

pub(crate) const OK: Reason = Reason::Exit { code: 0 };
pub(crate) const BAD: Reason = Reason::Exit { code: 1 };

pub(crate) fn held(attempt: AttemptId, state: AttemptState) -> Held {
    Held { attempt, state }
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            state: State::new(),
            book: Book::new(),
            now: Time { ms: 1_000_000 },
            granted: BTreeSet::new(),
            done: BTreeSet::new(),
        }
    }

    /// A pool with nodes 1, 2, … of these many processors.
    pub(crate) fn with_nodes(cpus: &[u32]) -> Self {
        let mut pool = Self::new();
        for (node, cpus) in (1..).zip(cpus) {
            pool.step(Event::Hello(hello(node, *cpus)));
        }
        pool
    }

    pub(crate) fn later(&mut self, seconds: u64) {
        self.now = self.now + Span::seconds(seconds);
    }

    /// One step, and everything that must hold after any step.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let shown = format!("{event:?}");
        let actions = self.state.step(self.now, event);
        self.note(&actions);
        if let Err(broken) = self.state.check() {
            panic!("{broken}, after {shown}");
        }
        self.compare_restart(&shown);
        actions
    }

    fn note(&mut self, actions: &[Action]) {
        let first_other = actions.iter().position(|a| !matches!(a, Action::Write(_)));
        let rows_after = actions
            .iter()
            .skip(first_other.unwrap_or(actions.len()))
            .any(|action| matches!(action, Action::Write(_)));
        assert!(!rows_after, "a row behind another action: {actions:?}");
        for action in actions {
            match action {
                Action::Write(row) => {
                    self.book.apply(row);
                    if let Row::Attempt(end) = row
                        && end.task_over == Some(TaskState::Done)
                    {
                        let task = end.attempt.task;
                        assert!(self.done.insert(task), "{task} counted twice");
                    }
                }
                Action::Dispatch(bundle) => {
                    for attempt in attempts(bundle) {
                        assert!(self.granted.insert(attempt), "{attempt} granted twice");
                    }
                }
                _ => {}
            }
        }
    }

    /// What a server that died now would come back with.
    pub(crate) fn restarted(&self) -> (State, Vec<Action>) {
        State::restore(self.book.snapshot(), self.now)
    }

    fn compare_restart(&self, after: &str) {
        let (other, _) = self.restarted();
        if let Err(broken) = other.check() {
            panic!("restart: {broken}, after {after}");
        }
        let ids = |state: &State| -> Vec<JobId> { state.jobs().iter().map(|j| j.id).collect() };
        assert_eq!(ids(&self.state), ids(&other), "after {after}");
        assert_eq!(self.state.last_job(), other.last_job(), "after {after}");
        for job in self.state.jobs() {
            let its = other.job(job.id).expect("the job is back");
            assert_eq!(job, its, "restart after {after}");
            let last = u32::try_from(job.counts.total()).unwrap();
            for index in 0..last.min(300) {
                let task = TaskId::new(job.id, index);
                let (mine, its) = (self.state.task(task).unwrap(), other.task(task).unwrap());
                assert_eq!(durable(mine, &job), durable(its, &job), "after {after}");
            }
        }
        let wishes = |state: &State| -> Vec<_> {
            let nodes = state.nodes().into_iter();
            let wished = nodes.filter(|node| node.wish.is_some());
            wished.map(|node| (node.id, node.wish)).collect()
        };
        assert_eq!(wishes(&self.state), wishes(&other), "after {after}");
    }

    /// The server dies and comes back from its rows.
    pub(crate) fn restart(&mut self) -> Vec<Action> {
        let (state, actions) = self.restarted();
        self.state = state;
        self.note(&actions);
        actions
    }

    pub(crate) fn submit(&mut self, job: NewJob) -> (JobId, Vec<Bundle>) {
        let actions = self.step(Event::Submit(job));
        let id = actions.iter().find_map(|action| match action {
            Action::Reply(Reply::Submitted(id)) => Some(*id),
            _ => None,
        });
        (id.expect("submitted"), bundles(&actions))
    }

    pub(crate) fn job(&self, job: u64) -> JobView {
        self.state.job(JobId(job)).expect("a job")
    }

    pub(crate) fn task(&self, job: u64, index: u32) -> TaskView {
        self.state
            .task(TaskId::new(JobId(job), index))
            .expect("a task")
    }

    pub(crate) fn task_state(&self, job: u64, index: u32) -> TaskState {
        self.task(job, index).state
    }

    pub(crate) fn end(&mut self, node: u32, attempt: AttemptId, reason: Reason) -> Vec<Action> {
        self.step(ended(node, attempt, reason))
    }
}

/// Of a task what survives a restart.
fn durable(mut task: TaskView, job: &JobView) -> TaskView {
    task.reason = None;
    if let Some((_, _, state)) = &mut task.running {
        *state = AttemptState::Leased;
    }
    if job.state.is_over() {
        (task.failures, task.evictions, task.losses) = (0, 0, 0);
    }
    task
}

pub(crate) fn bundles(actions: &[Action]) -> Vec<Bundle> {
    let bundle = |action: &Action| match action {
        Action::Dispatch(bundle) => Some(bundle.clone()),
        _ => None,
    };
    actions.iter().filter_map(bundle).collect()
}

pub(crate) fn attempts(bundle: &Bundle) -> Vec<AttemptId> {
    let task = |(index, number): &(u32, u32)| TaskId::new(bundle.job, *index).attempt(*number);
    bundle.tasks.iter().map(task).collect()
}

pub(crate) fn revoked(actions: &[Action]) -> Vec<(u32, AttemptId)> {
    let told = |action: &Action| match action {
        Action::Revoke { node, attempts } => {
            attempts.iter().map(|attempt| (node.0, *attempt)).collect()
        }
        _ => Vec::new(),
    };
    actions.iter().flat_map(told).collect()
}

pub(crate) fn acknowledged(actions: &[Action]) -> Vec<AttemptId> {
    let told = |action: &Action| match action {
        Action::Acknowledge { attempts, .. } => attempts.clone(),
        _ => Vec::new(),
    };
    actions.iter().flat_map(told).collect()
}

pub(crate) fn reply(actions: &[Action]) -> Reply {
    let replies: Vec<&Reply> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Reply(reply) => Some(reply),
            _ => None,
        })
        .collect();
    assert_eq!(replies.len(), 1, "{actions:?}");
    replies[0].clone()
}

/// The words of a refusal.
pub(crate) fn refusal(actions: &[Action]) -> String {
    match reply(actions) {
        Reply::Refused(refusal) => refusal.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn rows(actions: &[Action]) -> Vec<Row> {
    let row = |action: &Action| match action {
        Action::Write(row) => Some(row.clone()),
        _ => None,
    };
    actions.iter().filter_map(row).collect()
}
