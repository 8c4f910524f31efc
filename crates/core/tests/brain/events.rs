//! Each event once, in its plain form, and each action once, by its name.

use crate::pool::{
    BAD, GIB, OK, Pool, acknowledged, attempt, attempts, bundles, held, hello, job, need, offer,
    online, refusal, reply, revoked, rows,
};
use gleaner_core::{
    Action, Event, LEASE, MergeKind, NodeOffer, NodeReport, NodeWish, Reply, Row, Target,
};
use gleaner_model::{
    AttemptState, Bytes, Engine, EngineChoice, JobId, JobState, NodeId, NodeState, TaskId,
    TaskState,
};

fn job_target(id: u64) -> Target {
    Target::Job(JobId(id))
}

#[test]
fn event_submit_stores_the_job_once_and_grants_it_where_there_is_room() {
    let mut pool = Pool::with_nodes(&[2]);
    let actions = pool.step(Event::Submit(job(1, 5)));
    assert_eq!(reply(&actions), Reply::Submitted(JobId(1)));
    let rows = rows(&actions);
    assert!(matches!(&rows[0], Row::NewJob(JobId(1), _, new) if new.body == [1, 2, 3]));
    assert!(
        rows.iter()
            .any(|row| matches!(row, Row::Job(row) if row.state == JobState::Running))
    );
    let bundles = bundles(&actions);
    assert_eq!(bundles.len(), 1);
    assert_eq!(
        (bundles[0].tasks.clone(), bundles[0].width),
        (vec![(0, 1), (1, 1)], 2)
    );
    let counts = pool.job(1).counts;
    assert_eq!((counts.ready, counts.running), (3, 2));
}

#[test]
fn event_cancel_of_a_job_calls_everything_back() {
    let mut pool = Pool::with_nodes(&[2]);
    pool.submit(job(1, 5));
    pool.end(1, attempt(1, 0, 1), OK);
    let actions = pool.step(Event::Cancel(job_target(1)));
    assert_eq!(reply(&actions), Reply::Accepted(4));
    let told = revoked(&actions);
    assert_eq!(told, [(1, attempt(1, 1, 1)), (1, attempt(1, 2, 1))]);
    let view = pool.job(1);
    assert_eq!(
        (view.state, view.counts.done, view.counts.cancelled),
        (JobState::Cancelled, 1, 4)
    );
    assert_eq!(pool.state.node(NodeId(1)).unwrap().leased, 0);
}

#[test]
fn event_cancel_of_a_task_leaves_the_others() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 3));
    for index in [0, 1] {
        let actions = pool.step(Event::Cancel(Target::Task(TaskId::new(JobId(1), index))));
        assert_eq!(revoked(&actions), [(1, attempt(1, index, 1))]);
        assert_eq!(bundles(&actions)[0].tasks, [(index + 1, 1)]);
        assert_eq!(pool.task_state(1, index), TaskState::Cancelled);
    }
    pool.end(1, attempt(1, 2, 1), OK);
    let view = pool.job(1);
    assert_eq!(view.state, JobState::Cancelled);
    assert_eq!(view.reason, "2 of 3 tasks cancelled, 1 done");
}

#[test]
fn event_pause_job_lets_running_tasks_end_and_starts_no_new_one() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 3));
    let actions = pool.step(Event::PauseJob(JobId(1)));
    assert_eq!(reply(&actions), Reply::Accepted(2));
    assert_eq!(pool.job(1).state, JobState::Paused);
    assert_eq!(pool.task_state(1, 1), TaskState::Waiting);
    let actions = pool.end(1, attempt(1, 0, 1), OK);
    assert_eq!(bundles(&actions), []);
}

#[test]
fn event_resume_job_goes_on_where_it_stood() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 2));
    pool.step(Event::PauseJob(JobId(1)));
    pool.end(1, attempt(1, 0, 1), OK);
    let actions = pool.step(Event::ResumeJob(JobId(1)));
    assert_eq!(reply(&actions), Reply::Accepted(1));
    assert_eq!(bundles(&actions)[0].tasks, [(1, 1)]);
    assert_eq!(pool.job(1).state, JobState::Running);
}

#[test]
fn event_retry_of_a_job_that_is_over_gives_fresh_tries_under_new_numbers() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 2));
    for number in 1..=3 {
        pool.end(1, attempt(1, 0, number), BAD);
        // The task that failed goes first.
    }
    assert_eq!(pool.task_state(1, 0), TaskState::Failed);
    pool.end(1, attempt(1, 1, 1), OK);
    let view = pool.job(1);
    assert_eq!(view.state, JobState::Failed);
    assert_eq!(view.reason, "1 of 2 tasks failed; task 1.0: exit code 1");
    let actions = pool.step(Event::Retry(job_target(1)));
    assert_eq!(reply(&actions), Reply::Accepted(1));
    assert_eq!(bundles(&actions)[0].tasks, [(0, 4)]);
    assert_eq!(pool.task(1, 0).failures, 0);
    pool.end(1, attempt(1, 0, 4), BAD);
    assert_eq!(pool.task_state(1, 0), TaskState::Running);
    pool.end(1, attempt(1, 0, 5), OK);
    assert_eq!(pool.job(1).state, JobState::Done);
}

#[test]
fn event_retry_of_a_task_forgives_while_the_job_goes_on() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 3));
    for number in 1..=3 {
        pool.end(1, attempt(1, 0, number), BAD);
    }
    let task = TaskId::new(JobId(1), 0);
    let actions = pool.step(Event::Retry(Target::Task(task)));
    assert!(rows(&actions).contains(&Row::Forgiven(JobId(1), vec![(0, 3)])));
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    let actions = pool.end(1, attempt(1, 1, 1), OK);
    assert_eq!(bundles(&actions)[0].tasks, [(0, 4)]);
}

#[test]
fn event_hello_makes_a_node_known_and_gives_it_work() {
    let mut pool = Pool::new();
    pool.submit(job(1, 8));
    let actions = pool.step(Event::Hello(hello(3, 4)));
    assert_eq!(bundles(&actions)[0].tasks.len(), 4);
    let node = pool.state.node(NodeId(3)).unwrap();
    assert_eq!(
        (node.state, node.cpus_used.milli, node.running),
        (NodeState::Online, 4000, 4)
    );
}

#[test]
fn event_hello_without_a_leased_attempt_takes_it_back_at_once() {
    let mut pool = Pool::with_nodes(&[2]);
    pool.submit(job(1, 2));
    let mut again = hello(1, 2);
    again.held = vec![held(attempt(1, 1, 1), AttemptState::Running)];
    let actions = pool.step(Event::Hello(again));
    // Never received: granted again at once, under a new number, and no loss.
    assert_eq!(bundles(&actions)[0].tasks, [(0, 2)]);
    assert_eq!(pool.task(1, 0).losses, 0);
    let (_, _, state) = pool.task(1, 1).running.unwrap();
    assert_eq!(state, AttemptState::Running);
}

#[test]
fn event_hello_with_strange_attempts_has_them_revoked() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.end(1, attempt(1, 0, 1), OK);
    let mut again = hello(1, 1);
    let strange = [attempt(1, 0, 1), attempt(1, 0, 7), attempt(9, 0, 1)];
    again.held = strange.map(|a| held(a, AttemptState::Running)).to_vec();
    // One that is over has a report still to come: it is acknowledged then.
    again
        .held
        .push(held(attempt(8, 0, 1), AttemptState::Finished));
    let actions = pool.step(Event::Hello(again));
    assert_eq!(revoked(&actions), strange.map(|a| (1, a)));
}

#[test]
fn event_offer_opens_what_the_hello_did_not_and_moves_nothing() {
    type Ask = fn(&mut gleaner_core::Need);
    type Change = fn(&mut NodeOffer);
    let table: [(&str, Ask, Change); 6] = [
        ("cpus", |n| n.cpus.milli = 5000, |o| o.cpus.milli = 8000),
        (
            "memory",
            |n| n.memory = Bytes(65 * GIB),
            |o| o.memory = Bytes(80 * GIB),
        ),
        (
            "disk",
            |n| n.disk = Bytes(65 * GIB),
            |o| o.disk = Bytes(80 * GIB),
        ),
        (
            "engine",
            |n| n.engine = EngineChoice::Wasm,
            |o| o.engines.push(Engine::Wasm),
        ),
        (
            "machine",
            |n| n.saves = true,
            |o| o.machine = Some("m".into()),
        ),
        (
            "not refused",
            |_| {},
            |o| assert!(o.refused.is_none(), "as it was"),
        ),
    ];
    for (what, ask, change) in table {
        let mut pool = Pool::with_nodes(&[4]);
        // Under way to the node, and begun there.
        pool.submit(job(1, 2));
        let running = attempt(1, 0, 1);
        pool.step(Event::Progress(NodeId(1), running, AttemptState::Running));
        let mut less = offer(1, 4);
        less.refused = Some("too busy".into());
        assert_eq!(revoked(&pool.step(Event::Offer(less))), []);
        let mut new = job(1, 1);
        ask(&mut new.need);
        let (_, none) = pool.submit(new);
        assert_eq!(none, [], "{what}");
        let mut more = offer(1, 4);
        change(&mut more);
        // The first job's tasks keep what they have; what is left may be too little at first.
        let actions = pool.step(Event::Offer(more));
        let mut granted = bundles(&actions);
        assert_eq!(revoked(&actions), [], "{what}");
        for index in 0..2 {
            let (now, _, _) = pool.task(1, index).running.expect(what);
            assert_eq!(now, attempt(1, index, 1), "{what}");
            granted.extend(bundles(&pool.end(1, now, OK)));
        }
        assert_eq!(granted.len(), 1, "{what}: {granted:?}");
    }
}

#[test]
fn event_offer_of_less_lets_what_runs_end_and_gives_no_more() {
    let mut pool = Pool::with_nodes(&[2]);
    pool.submit(job(1, 4));
    let mut less = offer(1, 2);
    (less.memory, less.engines) = (Bytes(1), Vec::new());
    let actions = pool.step(Event::Offer(less));
    assert_eq!((revoked(&actions), bundles(&actions)), (vec![], vec![]));
    for index in 0..2 {
        assert_eq!(bundles(&pool.end(1, attempt(1, index, 1), OK)), []);
        assert_eq!(pool.task_state(1, index), TaskState::Done);
    }
    assert_eq!(pool.task_state(1, 2), TaskState::Ready);
    assert_eq!(bundles(&pool.step(Event::Offer(offer(1, 2)))).len(), 1);
}

#[test]
fn event_offer_before_any_hello_is_ignored() {
    let mut pool = Pool::new();
    assert_eq!(pool.step(Event::Offer(offer(5, 1))), []);
    assert_eq!(pool.state.nodes(), []);
}

#[test]
fn event_beat_renews_every_lease_of_the_node() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    for _ in 0..5 {
        pool.later(LEASE.ms / 1000 - 1);
        pool.step(online(1));
        pool.step(Event::Tick);
    }
    assert_eq!(pool.task_state(1, 0), TaskState::Running);
}

#[test]
fn event_beat_says_that_the_node_takes_no_work() {
    for state in [NodeState::Paused, NodeState::Refused] {
        let mut pool = Pool::with_nodes(&[2]);
        let reason = "the owner plays".to_owned();
        pool.step(Event::Beat(NodeReport {
            node: NodeId(1),
            state,
            reason,
        }));
        let (_, bundles) = pool.submit(job(1, 1));
        assert_eq!(bundles, []);
        let node = pool.state.node(NodeId(1)).unwrap();
        assert_eq!(
            (node.state, node.reason.as_str()),
            (state, "the owner plays")
        );
        let actions = pool.step(online(1));
        assert_eq!(crate::pool::bundles(&actions).len(), 1);
    }
}

#[test]
fn event_beat_of_a_frozen_node_gives_back_what_only_queues_there() {
    let mut pool = Pool::with_nodes(&[2]);
    pool.submit(job(1, 2));
    let running = attempt(1, 0, 1);
    pool.step(Event::Progress(NodeId(1), running, AttemptState::Running));
    pool.step(Event::Hello(hello(2, 2)));
    let reason = String::new();
    let report = NodeReport {
        node: NodeId(1),
        state: NodeState::Paused,
        reason,
    };
    let actions = pool.step(Event::Beat(report));
    assert_eq!(revoked(&actions), [(1, attempt(1, 1, 1))]);
    assert_eq!(bundles(&actions)[0].node, NodeId(2));
    assert_eq!(pool.task(1, 0).running.unwrap().1, NodeId(1));
}

#[test]
fn event_beat_before_any_hello_is_ignored() {
    let mut pool = Pool::new();
    assert_eq!(pool.step(online(5)), []);
    assert_eq!(pool.state.nodes(), []);
}

#[test]
fn event_beat_after_silence_brings_the_attempts_back() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.later(31);
    pool.step(Event::Tick);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    pool.step(online(1));
    // The same attempt goes on.
    let (running, node, _) = pool.task(1, 0).running.unwrap();
    assert_eq!((running, node), (attempt(1, 0, 1), NodeId(1)));
    assert_eq!(pool.task(1, 0).losses, 0);
}

#[test]
fn event_gone_stops_grants_but_not_leases() {
    let mut pool = Pool::with_nodes(&[2]);
    pool.submit(job(1, 1));
    pool.step(Event::Gone(NodeId(1)));
    assert_eq!(pool.task_state(1, 0), TaskState::Running);
    let (_, bundles) = pool.submit(job(1, 1));
    assert_eq!(bundles, []);
    assert!(!pool.state.node(NodeId(1)).unwrap().connected);
}

#[test]
fn event_wish_is_stored_sent_and_shown() {
    for (wish, state) in [
        (NodeWish::Pause, NodeState::Paused),
        (NodeWish::Drain, NodeState::Draining),
        (NodeWish::Evict, NodeState::Draining),
    ] {
        let mut pool = Pool::with_nodes(&[2]);
        let actions = pool.step(Event::Wish(NodeId(1), wish));
        assert!(actions.contains(&Action::Wish {
            node: NodeId(1),
            wish
        }));
        assert!(rows(&actions).iter().any(|row| matches!(row, Row::Node(_))));
        assert_eq!(reply(&actions), Reply::Accepted(1));
        let node = pool.state.node(NodeId(1)).unwrap();
        assert_eq!(node.state, state);
        assert!(
            node.reason.contains("gleaner node N resume"),
            "{}",
            node.reason
        );
        let (_, none) = pool.submit(job(1, 1));
        assert_eq!(none, []);
        // It hears of it again when it comes back, also after the server's restart.
        pool.restart();
        let actions = pool.step(Event::Hello(hello(1, 2)));
        let told = |action: &Action| match action {
            Action::Wish { wish, .. } => Some(*wish),
            _ => None,
        };
        let told: Vec<_> = actions.iter().filter_map(told).collect();
        let kept = if wish == NodeWish::Evict {
            NodeWish::Drain
        } else {
            wish
        };
        assert_eq!(told, [kept]);
        assert_eq!(bundles(&actions), []);
        let actions = pool.step(Event::Wish(NodeId(1), NodeWish::Resume));
        assert_eq!(bundles(&actions).len(), 1);
    }
}

#[test]
fn event_progress_is_shown_and_not_stored() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    let one = attempt(1, 0, 1);
    for state in [
        AttemptState::Fetching,
        AttemptState::Running,
        AttemptState::Paused,
    ] {
        assert_eq!(pool.step(Event::Progress(NodeId(1), one, state)), []);
        assert_eq!(pool.task(1, 0).running, Some((one, NodeId(1), state)));
    }
    // Of an attempt that nobody granted: the node is told to stop it.
    let other = attempt(1, 0, 2);
    let actions = pool.step(Event::Progress(NodeId(1), other, AttemptState::Running));
    assert_eq!(revoked(&actions), [(1, other)]);
}

#[test]
fn event_ended_stores_the_end_and_grants_the_next() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 2));
    let actions = pool.end(1, attempt(1, 0, 1), OK);
    let over = rows(&actions).into_iter().find_map(|row| match row {
        Row::Attempt(row) => Some(row),
        _ => None,
    });
    let over = over.unwrap();
    assert_eq!(
        (over.state, over.task_over),
        (AttemptState::Finished, Some(TaskState::Done))
    );
    assert_eq!((over.record, over.counts), (vec![7], false));
    assert_eq!(acknowledged(&actions), [attempt(1, 0, 1)]);
    assert_eq!(bundles(&actions)[0].tasks, [(1, 1)]);
    pool.end(1, attempt(1, 1, 1), OK);
    assert_eq!(pool.job(1).state, JobState::Done);
}

#[test]
fn event_merged_ends_the_job_either_way() {
    for (failed, state) in [
        (None, JobState::Done),
        (Some("disk full"), JobState::Failed),
    ] {
        let mut pool = Pool::with_nodes(&[1]);
        let mut new = job(1, 1);
        new.merge = MergeKind::Concat;
        pool.submit(new);
        let actions = pool.end(1, attempt(1, 0, 1), OK);
        assert!(actions.contains(&Action::Merge { job: JobId(1) }));
        assert_eq!(pool.job(1).state, JobState::Running);
        let failed = failed.map(str::to_owned);
        pool.step(Event::Merged {
            job: JobId(1),
            failed,
        });
        let view = pool.job(1);
        assert_eq!((view.state, view.merged), (state, state == JobState::Done));
        // A second answer changes nothing.
        assert_eq!(
            pool.step(Event::Merged {
                job: JobId(1),
                failed: None
            }),
            []
        );
        if state == JobState::Failed {
            assert!(view.reason.contains("disk full"), "{}", view.reason);
            let actions = pool.step(Event::Retry(job_target(1)));
            assert!(actions.contains(&Action::Merge { job: JobId(1) }));
        }
    }
}

#[test]
fn event_tick_ends_the_leases_of_silent_nodes() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.later(29);
    assert_eq!(pool.step(Event::Tick), []);
    pool.later(1);
    let rows = rows(&pool.step(Event::Tick));
    assert!(rows.iter().any(|row| matches!(row, Row::LeaseOver(_))));
    let lost = |row: &Row| matches!(row, Row::Attempt(row) if row.state == AttemptState::Lost);
    assert!(rows.iter().any(lost));
    assert_eq!(
        pool.state.node(NodeId(1)).unwrap().state,
        NodeState::Offline
    );
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
}

#[test]
fn action_write_comes_before_every_other_action_of_its_step() {
    let mut pool = Pool::with_nodes(&[1]);
    let actions = pool.step(Event::Submit(job(1, 1)));
    let write = |action: &Action| matches!(action, Action::Write(_));
    let rows = actions.iter().take_while(|a| write(a)).count();
    assert!(
        rows >= 3 && !actions[rows..].iter().any(write),
        "{actions:?}"
    );
}

#[test]
fn action_reply_answers_each_users_event_once() {
    let mut pool = Pool::new();
    let task = Target::Task(TaskId::new(JobId(1), 0));
    for event in [
        Event::Submit(job(1, 1)),
        Event::PauseJob(JobId(1)),
        Event::ResumeJob(JobId(1)),
        Event::Cancel(task),
        Event::Retry(task),
        Event::Wish(NodeId(1), NodeWish::Pause),
    ] {
        let actions = pool.step(event);
        let replies = actions.iter().filter(|a| matches!(a, Action::Reply(_)));
        assert_eq!(replies.count(), 1);
    }
}

#[test]
fn action_dispatch_matches_its_durable_lease() {
    let mut pool = Pool::with_nodes(&[3]);
    let actions = pool.step(Event::Submit(job(1, 9)));
    let bundle = bundles(&actions).remove(0);
    let lease = rows(&actions).into_iter().find_map(|row| match row {
        Row::Lease(row) => Some(row),
        _ => None,
    });
    let lease = lease.unwrap();
    let indices: Vec<u32> = bundle.tasks.iter().map(|(index, _)| *index).collect();
    assert_eq!(lease.tasks.iter().collect::<Vec<_>>(), indices);
    assert_eq!(
        (lease.lease, lease.node, lease.job),
        (bundle.lease, bundle.node, bundle.job)
    );
    assert_eq!((lease.width, lease.numbers.len()), (bundle.width, 0));
    assert_eq!(attempts(&bundle)[0], attempt(1, 0, 1));
}

#[test]
fn action_revoke_goes_to_the_node_that_runs_it() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    pool.submit(job(1, 2));
    let actions = pool.step(Event::Cancel(job_target(1)));
    assert_eq!(
        revoked(&actions),
        [(1, attempt(1, 0, 1)), (2, attempt(1, 1, 1))]
    );
}

#[test]
fn action_acknowledge_answers_every_report() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    let known = attempt(1, 0, 1);
    for report in [known, known, attempt(1, 5, 1), attempt(77, 0, 1)] {
        let actions = pool.end(1, report, OK);
        assert_eq!(acknowledged(&actions), [report]);
    }
}

#[test]
fn action_wish_is_not_sent_to_a_node_that_is_not_connected() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.step(Event::Gone(NodeId(1)));
    let actions = pool.step(Event::Wish(NodeId(1), NodeWish::Drain));
    assert!(!actions.iter().any(|a| matches!(a, Action::Wish { .. })));
}

#[test]
fn action_wish_tells_each_node_at_its_hello_also_that_there_is_none() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.step(Event::Wish(NodeId(1), NodeWish::Pause));
    pool.step(Event::Gone(NodeId(1)));
    pool.step(Event::Wish(NodeId(1), NodeWish::Resume));
    let actions = pool.step(Event::Hello(hello(1, 1)));
    let wish = NodeWish::Resume;
    assert!(actions.contains(&Action::Wish {
        node: NodeId(1),
        wish
    }));
}

#[test]
fn action_merge_comes_once_and_again_after_a_restart() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 2);
    new.merge = MergeKind::Concat;
    new.need = need(1);
    pool.submit(new);
    let merge = Action::Merge { job: JobId(1) };
    assert!(!pool.end(1, attempt(1, 0, 1), OK).contains(&merge));
    assert!(pool.end(1, attempt(1, 1, 1), OK).contains(&merge));
    assert!(!pool.step(Event::Tick).contains(&merge));
    assert!(pool.restart().contains(&merge));
}

#[test]
fn action_changed_names_each_job_once() {
    let mut pool = Pool::with_nodes(&[1]);
    let actions = pool.step(Event::Submit(job(1, 2)));
    let changed = actions
        .iter()
        .filter(|a| matches!(a, Action::Changed { job: JobId(1) }));
    assert_eq!(changed.count(), 1);
    assert_eq!(pool.step(online(1)), []);
}

#[test]
fn refusals_say_what_is_wrong() {
    let mut pool = Pool::with_nodes(&[1]);
    let none = Target::Task(TaskId::new(JobId(1), 0));
    let nowhere = Target::Task(TaskId::new(JobId(1), 9));
    let (mut empty, mut huge, mut idle) = (job(1, 0), job(1, 1_000_001), job(1, 1));
    (empty.count, huge.count, idle.need.cpus.milli) = (0, 1_000_001, 0);
    let table = [
        (Event::Submit(empty), "no task"),
        (Event::Submit(huge), "at most 1000000"),
        (Event::Submit(idle), "limits.cpus"),
        (
            Event::Cancel(job_target(1)),
            "no job 1; `gleaner jobs` lists them",
        ),
        (Event::Cancel(none), "no job 1"),
        (Event::PauseJob(JobId(1)), "no job 1"),
        (Event::ResumeJob(JobId(1)), "no job 1"),
        (Event::Retry(job_target(1)), "no job 1"),
        (
            Event::Wish(NodeId(9), NodeWish::Pause),
            "no node 9; `gleaner nodes` lists them",
        ),
    ];
    for (event, words) in table {
        let text = refusal(&pool.step(event.clone()));
        assert!(text.contains(words), "{event:?}: {text}");
    }
    pool.submit(job(1, 2));
    let table = [
        (
            Event::Cancel(nowhere),
            "job 1 has no task 9; its tasks are 0 to 1",
        ),
        (Event::Retry(nowhere), "no task 9"),
        (
            Event::Retry(none),
            "task 1.0 is running; only failed or cancelled",
        ),
        (Event::Retry(job_target(1)), "no failed or cancelled task"),
        (Event::ResumeJob(JobId(1)), "job 1 is not paused"),
    ];
    for (event, words) in table {
        let text = refusal(&pool.step(event.clone()));
        assert!(text.contains(words), "{event:?}: {text}");
    }
    pool.step(Event::PauseJob(JobId(1)));
    assert!(refusal(&pool.step(Event::PauseJob(JobId(1)))).contains("paused already"));
    pool.step(Event::Cancel(none));
    assert!(refusal(&pool.step(Event::Cancel(none))).contains("task 1.0 is cancelled already"));
    pool.step(Event::Cancel(job_target(1)));
    for event in [Event::Cancel(job_target(1)), Event::PauseJob(JobId(1))] {
        assert!(refusal(&pool.step(event)).contains("job 1 is cancelled already"));
    }
}
