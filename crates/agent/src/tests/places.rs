//! Attempts that fill the PC have a processor each.

use super::engine::FakeEngine;
use super::watch::{FakeSensors, scene};
use super::{bundle, id, until};
use crate::config::AgentConfig;
use crate::watch::heard::Sensed;
use gleaner_model::{AttemptId, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who of those that have not ended is where.
fn places(engine: &FakeEngine) -> BTreeMap<AttemptId, u32> {
    let mut places = BTreeMap::new();
    let ended = engine.ended();
    let moves = engine.placed().into_iter();
    for (attempt, cpu) in moves.filter(|(attempt, _)| !ended.contains(attempt)) {
        match cpu {
            Some(cpu) => places.insert(attempt, cpu),
            None => places.remove(&attempt),
        };
    }
    places
}

fn each_its_own(first: u32, second: u32) -> BTreeMap<AttemptId, u32> {
    BTreeMap::from([(id(first), 0), (id(second), 1)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_attempts_on_two_processors_have_one_each_while_both_run() {
    let sensors = Arc::new(FakeSensors::with_clock());
    let mut scene = scene(&sensors, |_| {}).await;
    let now = || places(&scene.engine);
    until("both have a place", || {
        sensors.pass(Span { ms: 100 });
        now() == each_its_own(0, 1)
    })
    .await;
    // A sleep is a pause: who wakes up is where it was.
    sensors.say(Sensed::Sleeping(true));
    until("all are held", || scene.engine.held() == Some(true)).await;
    sensors.pass(Span::seconds(5));
    sensors.say(Sensed::Sleeping(false));
    until("all go on", || {
        sensors.pass(Span { ms: 100 });
        scene.engine.held() == Some(false)
    })
    .await;
    let moves = scene.engine.placed().into_iter();
    let places: BTreeSet<_> = moves.filter(|(_, cpu)| cpu.is_some()).collect();
    assert_eq!(places.len(), 2, "nobody had another");
    // One ends: the other may run wherever its owner leaves room.
    scene.engine.end(id(0));
    scene.server.ended(id(0)).await;
    until("the other is free", || {
        sensors.pass(Span { ms: 100 });
        now().is_empty()
    })
    .await;
    let mut next = bundle(&["wait"], &[], 1);
    next.tasks[0].index = 2;
    scene.grant(next).await;
    until("the next has a place beside it", || {
        sensors.pass(Span { ms: 100 });
        now() == each_its_own(1, 2)
    })
    .await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_part_of_the_pc_is_the_owners_nobody_is_placed() {
    let sensors = Arc::new(FakeSensors::with_clock());
    let half = |config: &mut AgentConfig| {
        std::fs::create_dir_all(&config.data).unwrap();
        let limits = config.data.join("owner-limits.json");
        std::fs::write(limits, r#"{"cpus_max":0.5}"#).unwrap();
    };
    let scene = scene(&sensors, half).await;
    until("they run", || scene.engine.starts().len() == 2).await;
    for _ in 0..20 {
        let before = sensors.looked();
        sensors.pass(Span { ms: 100 });
        until("somebody looked", || sensors.looked() > before).await;
    }
    assert_eq!(scene.engine.placed(), []);
    scene.agent.stop().await.unwrap();
}
