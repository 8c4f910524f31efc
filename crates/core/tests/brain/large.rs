//! A large pool: what is done for each lease must not look at every task that has ended.

use crate::pool::job;
use gleaner_core::{EndedRow, JobRow, LeaseRow, Snapshot, State, fresh_job_row};
use gleaner_model::{
    AttemptState, IntervalSet, JobId, JobState, LeaseId, NodeId, TaskId, TaskState, Time,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Many times what it takes, and far less than it would take if each looked at all.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn a_restart_with_many_ends_and_many_leases_takes_seconds() {
    let (done, leases) = (400_000, 100_000);
    let now = Time { ms: 5000 };
    let ends = (0..done).map(|index| EndedRow {
        attempt: TaskId::new(JobId(1), index).attempt(1),
        node: NodeId(1),
        state: AttemptState::Finished,
        counts: false,
        no_program: false,
        task_over: Some(TaskState::Done),
    });
    // Half of the leased tasks were lost before: their second attempts are on nodes.
    let again = (0..leases).filter(|at| at % 2 == 0);
    let lost = again.map(|at| EndedRow {
        attempt: TaskId::new(JobId(1), done + at).attempt(1),
        node: NodeId(1),
        state: AttemptState::Lost,
        counts: false,
        no_program: false,
        task_over: None,
    });
    let leased = (0..leases).map(|at| LeaseRow {
        lease: LeaseId(u64::from(at) + 1),
        node: NodeId(at + 1),
        job: JobId(1),
        tasks: IntervalSet::from_range(done + at, done + at + 1),
        numbers: match at % 2 {
            0 => BTreeMap::from([(done + at, 2)]),
            _ => BTreeMap::new(),
        },
        width: 1,
    });
    let row = JobRow {
        state: JobState::Running,
        started: Some(now),
        ..fresh_job_row(JobId(1))
    };
    let snapshot = Snapshot {
        jobs: vec![(JobId(1), now, job(1, 1_000_000), row)],
        leases: leased.collect(),
        ended: ends.chain(lost).collect(),
        ..Snapshot::default()
    };
    let begun = Instant::now();
    let (state, _) = State::restore(snapshot, now);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let counts = state.job(JobId(1)).unwrap().counts;
    assert_eq!(
        (counts.done, counts.running, counts.ready),
        (u64::from(done), u64::from(leases), 500_000)
    );
}
