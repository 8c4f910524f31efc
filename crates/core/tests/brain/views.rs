//! What listings ask of the brain: nodes by page, counts of them; and that offers to few nodes do
//! not walk over all that idle.

use crate::pool::{Pool, bundles, hello, job, online};
use gleaner_core::Event;
use gleaner_model::{NodeId, NodeState};
use std::collections::BTreeMap;

#[test]
fn nodes_come_by_number_above_any() {
    let pool = Pool::with_nodes(&[1, 1, 1]);
    for (after, expected) in [
        (0, vec![1, 2, 3]),
        (1, vec![2, 3]),
        (3, vec![]),
        (u32::MAX, vec![]),
    ] {
        let nodes = pool.state.nodes_after(NodeId(after));
        let ids: Vec<u32> = nodes.map(|node| node.id.0).collect();
        assert_eq!(ids, expected, "{after}");
    }
}

#[test]
fn counts_of_nodes_are_those_of_the_listing() {
    let mut pool = Pool::with_nodes(&[1, 1, 1, 1]);
    pool.step(Event::Gone(NodeId(2)));
    pool.later(31);
    pool.step(online(1));
    pool.step(online(3));
    pool.step(Event::Tick);
    let (states, connected) = pool.state.count_nodes();
    let mut listed = BTreeMap::<NodeState, u64>::new();
    for node in pool.state.nodes() {
        *listed.entry(node.state).or_default() += 1;
    }
    assert_eq!(states, listed);
    assert_eq!(states[&NodeState::Offline], 2);
    let up = pool.state.nodes().iter().filter(|n| n.connected).count();
    assert_eq!(connected, up as u64);
}

#[test]
fn new_work_finds_its_nodes_however_many_idle() {
    // Few of many, many of few: whichever set is walked, the same nodes get work.
    for (with, all) in [(2_u32, 9_u32), (8, 9), (9, 9)] {
        let mut pool = Pool::new();
        for node in 1..=all {
            let mut said = hello(node, 1);
            if node > all - with {
                said.labels.insert("room".into(), "b12".into());
            }
            pool.step(Event::Hello(said));
        }
        let mut wanted = job(1, 100);
        wanted.need.labels.insert("room".into(), "b12".into());
        let (_, granted) = pool.submit(wanted);
        let nodes: Vec<u32> = granted.iter().map(|bundle| bundle.node.0).collect();
        let expected: Vec<u32> = (all - with + 1..=all).collect();
        assert_eq!(nodes, expected);
        assert_eq!(bundles(&pool.step(Event::Tick)), []);
    }
}
