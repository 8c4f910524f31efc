//! Each rule that can keep a task waiting, in order.

use crate::pool::{BAD, GIB, OK, Pool, attempt, hello, job};
use gleaner_core::{Event, Explanation, MergeKind, NodeWish, Rule, Target};
use gleaner_model::{Bytes, Engine, EngineChoice, JobId, NodeId, Reason};

fn why(pool: &Pool, job: u64) -> Explanation {
    let explained = pool.state.explain(JobId(job)).expect("a job");
    assert!(
        explained.text.len() > 20 && !explained.text.contains("  "),
        "{}",
        explained.text
    );
    explained
}

/// The rule, how many nodes fail it, and a word of its sentence.
fn expect(pool: &Pool, job: u64, rule: Rule, failing: u32, word: &str) {
    let found = why(pool, job);
    assert_eq!(
        (found.rule, found.failing),
        (Some(rule), failing),
        "{}",
        found.text
    );
    assert!(found.text.contains(word), "{}", found.text);
    let counted = found.counts.iter().find(|(counted, _)| *counted == rule);
    assert!(counted.is_none_or(|(_, count)| *count == failing));
}

#[test]
fn rules_about_the_job_come_first() {
    let mut pool = Pool::with_nodes(&[1]);
    assert_eq!(pool.state.explain(JobId(1)), None);
    let mut new = job(1, 2);
    new.merge = MergeKind::Command;
    pool.submit(new);
    pool.step(Event::PauseJob(JobId(1)));
    expect(&pool, 1, Rule::Paused, 0, "gleaner resume 1");
    pool.step(Event::ResumeJob(JobId(1)));
    pool.end(1, attempt(1, 0, 1), OK);
    expect(&pool, 1, Rule::Dependency, 0, "1 of 2 done");
    pool.end(1, attempt(1, 1, 1), OK);
    assert_eq!(why(&pool, 1).rule, None);
    pool.step(Event::Cancel(Target::Job(JobId(1))));
    expect(&pool, 1, Rule::JobOver, 0, "gleaner retry 1");
}

#[test]
fn without_nodes_it_says_how_to_get_one() {
    let mut pool = Pool::new();
    pool.submit(job(1, 1));
    expect(&pool, 1, Rule::NoNodes, 0, "gleaner agent");
}

#[test]
fn each_rule_about_nodes_is_named_with_what_to_do() {
    let mut pool = Pool::with_nodes(&[2, 2]);
    let mut ask = |change: &dyn Fn(&mut gleaner_core::Need)| {
        let mut new = job(1, 1);
        change(&mut new.need);
        pool.submit(new).0.0
    };
    let table = [
        (
            ask(&|n| n.engine = EngineChoice::Wasm),
            Rule::Engine,
            "`wasm`",
        ),
        (
            ask(&|n| n.arch = Some("riscv64".into())),
            Rule::Arch,
            "riscv64",
        ),
        (
            ask(&|n| drop(n.labels.insert("room".into(), "b12".into()))),
            Rule::Labels,
            "room=b12",
        ),
        (
            ask(&|n| n.cpus.milli = 3000),
            Rule::Cpus,
            "fewer than 3 CPUs (most: 2)",
        ),
        (
            ask(&|n| n.memory = Bytes(100 * GIB)),
            Rule::Memory,
            "100 GiB",
        ),
        (
            ask(&|n| n.disk = Bytes(100 * GIB)),
            Rule::Disk,
            "most: 64 GiB",
        ),
    ];
    for (job, rule, word) in table {
        expect(&pool, job, rule, 2, word);
    }
}

#[test]
fn a_job_with_an_image_goes_where_images_are_taken() {
    let mut pool = Pool::new();
    let mut old = hello(1, 2);
    old.images = false;
    pool.step(Event::Hello(old));
    let mut new = job(1, 1);
    new.need.image = true;
    let (job, bundles) = pool.submit(new);
    assert!(bundles.is_empty(), "{bundles:?}");
    expect(&pool, job.0, Rule::Image, 1, "take no images");
    let bundles = pool.step(Event::Hello(hello(2, 2)));
    assert!(!bundles.is_empty(), "a node that takes them gets the task");
}

#[test]
fn a_guest_has_one_processor_however_many_the_node_has() {
    let mut pool = Pool::new();
    let mut big = hello(1, 8);
    big.engines.push(Engine::Vm);
    pool.step(Event::Hello(big));
    let mut ask = |milli| {
        let mut new = job(1, 1);
        (new.need.engine, new.need.cpus.milli) = (EngineChoice::Vm, milli);
        pool.submit(new)
    };
    let (job, bundles) = ask(2000);
    assert!(bundles.is_empty(), "{bundles:?}");
    let (_, bundles) = ask(1000);
    assert_eq!(bundles.len(), 1);
    expect(&pool, job.0, Rule::Cpus, 1, "fewer than 2 CPUs (most: 1)");
}

#[test]
fn the_rule_is_the_one_after_which_no_node_is_left() {
    let mut pool = Pool::with_nodes(&[2, 2, 2]);
    pool.step(Event::Wish(NodeId(1), NodeWish::Drain));
    let mut new = job(1, 1);
    new.need.memory = Bytes(100 * GIB);
    pool.submit(new);
    // Node 1 drains, but were it not, it would be too small as well.
    expect(&pool, 1, Rule::Memory, 3, "3 of 3 nodes");
    let found = why(&pool, 1);
    assert!(found.counts.contains(&(Rule::NodeState, 1)));
    assert_eq!((found.nodes, found.waiting), (3, 1));
}

#[test]
fn states_of_nodes_are_counted_out() {
    let mut pool = Pool::with_nodes(&[1, 1, 1, 1]);
    pool.step(Event::Wish(NodeId(1), NodeWish::Drain));
    pool.step(Event::Wish(NodeId(2), NodeWish::Pause));
    pool.step(Event::Gone(NodeId(3)));
    let mut refused = hello(4, 1);
    refused.refused = Some("share of a contended core is 12 %".into());
    pool.step(Event::Hello(refused));
    pool.submit(job(1, 1));
    expect(
        &pool,
        1,
        Rule::NodeState,
        4,
        "1 disconnected, 1 paused, 1 draining, 1 refused",
    );
}

#[test]
fn no_program_tried_elsewhere_and_busy() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.submit(job(1, 1));
    expect(&pool, 2, Rule::Busy, 1, "no room");
    pool.end(
        1,
        attempt(1, 0, 1),
        Reason::NoProgram {
            program: "vina".into(),
        },
    );
    expect(&pool, 1, Rule::NoProgram, 1, "lack the program");
    // A second node comes with work of its own; what failed on the first waits for it.
    let mut pool = Pool::with_nodes(&[1, 1]);
    pool.submit(job(1, 2));
    pool.end(1, attempt(1, 0, 1), BAD);
    let found = why(&pool, 1);
    assert_eq!(found.rule, Some(Rule::Busy));
    assert!(
        found.counts.contains(&(Rule::TriedElsewhere, 1)),
        "{:?}",
        found.counts
    );
}
