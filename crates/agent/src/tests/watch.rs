//! The owner comes first: what sensors say reaches engine, server and attempts, in this order.

use super::engine::FakeEngine;
use super::server::FakeServer;
use super::{Agent, Scene, bundle, id, until};
use crate::config::AgentConfig;
use crate::watch::keep::Keep;
use crate::watch::sensing::{Sensed, SensedSink, Sensing};
use crate::watch::status::Source;
use gleaner_harvest::{OwnerWish, Sample};
use gleaner_model::{Policy, Signal, Time};
use gleaner_wire::v1::agent_message::Kind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Sensors that say what the test wants.
#[derive(Debug, Default)]
pub(super) struct FakeSensors {
    sample: Mutex<Sample>,
    sink: Mutex<Option<SensedSink>>,
    sleeps: Mutex<u32>,
}

impl FakeSensors {
    pub(super) fn begin(&self, sink: SensedSink) {
        *self.sink.lock().unwrap() = Some(sink);
    }

    fn say(&self, event: Sensed) {
        self.sink.lock().unwrap().as_ref().unwrap().send(event);
    }
}

impl Sensing for FakeSensors {
    fn sample(&self, now: Time) -> Sample {
        Sample {
            at: now,
            ..*self.sample.lock().unwrap()
        }
    }

    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    fn ready_to_sleep(&self) {
        *self.sleeps.lock().unwrap() += 1;
    }
}

/// An agent that senses what the test says, with two attempts that run.
async fn scene(sensors: &Arc<FakeSensors>, change: impl FnOnce(&mut AgentConfig)) -> Scene {
    let mut server = FakeServer::start(false).await;
    let engine = Arc::new(FakeEngine::new());
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::sensing(&server, &engine, data.path(), (change, sensors));
    server.hello().await;
    let scene = Scene {
        server,
        engine,
        data,
        agent,
    };
    scene.grant(bundle(&["wait"], &[], 2)).await;
    scene
}

/// The next beat that says this state; its reason.
async fn beat(server: &mut FakeServer, state: &str) -> String {
    let wanted = |kind: &Kind| {
        let Kind::Beat(beat) = kind else { return None };
        (beat.state == state).then(|| beat.reason.clone())
    };
    server.hear(wanted).await
}

async fn told(server: &mut FakeServer, state: &str) {
    let wanted = |kind: &Kind| {
        let Kind::Progress(told) = kind else {
            return None;
        };
        (told.state == state).then_some(())
    };
    server.hear(wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owners_touch_freezes_all_at_once_then_each_and_the_server_hears_why() {
    let sensors = Arc::new(FakeSensors::default());
    let screensaver = |config: &mut AgentConfig| config.policy = Policy::Screensaver;
    let mut scene = scene(&sensors, screensaver).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    assert_eq!(scene.engine.held(), Some(false));
    sensors.say(Sensed::Input);
    until("all are held", || scene.engine.held() == Some(true)).await;
    let reason = beat(&mut scene.server, "paused").await;
    assert!(!reason.is_empty());
    told(&mut scene.server, "paused").await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleep_is_a_pause_that_is_ready_before_the_pc_sleeps() {
    let sensors = Arc::new(FakeSensors::default());
    let mut scene = scene(&sensors, |_| {}).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    sensors.say(Sensed::Sleeping(true));
    until("it may sleep", || *sensors.sleeps.lock().unwrap() == 1).await;
    assert_eq!(scene.engine.held(), Some(true), "before it was allowed");
    beat(&mut scene.server, "paused").await;
    sensors.say(Sensed::Sleeping(false));
    until("all go on", || scene.engine.held() == Some(false)).await;
    beat(&mut scene.server, "online").await;
    scene.engine.end(id(0));
    scene.server.ended(id(0)).await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_sense_of_people_fails_the_pc_counts_as_in_use() {
    let sensors = Arc::new(FakeSensors::default());
    let failed = || Signal::Failed {
        since: Time { ms: 1 },
    };
    *sensors.sample.lock().unwrap() = Sample {
        input: failed(),
        terminal: failed(),
        desktop: failed(),
        sessions: Signal::Failed {
            since: Time { ms: 1 },
        },
        ..Sample::default()
    };
    let idle_after = |config: &mut AgentConfig| config.policy = Policy::IdleAfter;
    let mut scene = scene(&sensors, idle_after).await;
    let reason = beat(&mut scene.server, "paused").await;
    assert!(!reason.is_empty());
    // What was granted before these beats would have started by now.
    for _ in 0..2 {
        beat(&mut scene.server, "paused").await;
    }
    assert_eq!(scene.engine.starts().len(), 0);
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owners_pause_outlives_the_agent() {
    let sensors = Arc::new(FakeSensors::default());
    let pause = |config: &mut AgentConfig| {
        std::fs::create_dir_all(&config.data).unwrap();
        let endless = OwnerWish::Pause { until: None };
        Keep::new(&config.data).keep_wish(endless).unwrap();
    };
    let mut scene = scene(&sensors, pause).await;
    beat(&mut scene.server, "paused").await;
    scene.agent.stop().await.unwrap();
    scene.agent = Agent::sensing(
        &scene.server,
        &scene.engine,
        scene.data.path(),
        (|_: &mut AgentConfig| {}, &sensors),
    );
    scene.server.hello().await;
    scene.grant(bundle(&["wait"], &[], 2)).await;
    beat(&mut scene.server, "paused").await;
    // What was granted before these beats would have started by now.
    for _ in 0..2 {
        beat(&mut scene.server, "paused").await;
    }
    assert_eq!(scene.engine.starts().len(), 0);
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_hangs_ends_the_beats() {
    let sensors = Arc::new(FakeSensors::default());
    let scene = scene(&sensors, |_| {}).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    until("beats come", || scene.engine.beats() > 0).await;
    scene.engine.hang();
    sensors.say(Sensed::Sleeping(true));
    // Shims freeze their attempts when three beats are missing.
    let mut last = scene.engine.beats();
    loop {
        tokio::time::sleep(Duration::from_millis(3200)).await;
        let now = scene.engine.beats();
        if std::mem::replace(&mut last, now) == now {
            break;
        }
    }
    scene.engine.go_on();
    until("beats come again", || scene.engine.beats() > last).await;
    scene.agent.stop().await.unwrap();
}
