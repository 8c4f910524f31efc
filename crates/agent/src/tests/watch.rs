//! The owner comes first: what sensors say reaches engine, server and attempts, in this order.

use super::engine::FakeEngine;
use super::server::FakeServer;
use super::{Agent, Scene, bundle, id, reason, until};
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::owner::{self, Answer, Ask};
use crate::watch::heard::Sensed;
use crate::watch::keep::Keep;
use crate::watch::sensing::{SensedSink, Sensing};
use crate::watch::status::Source;
use gleaner_harvest::{OwnerWish, Sample};
use gleaner_model::{AttemptState, Checkpoint, Policy, Pressure, Signal, Span, Time};
use gleaner_wire::v1::agent_message::Kind;
use gleaner_wire::v1::{self, server_message};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// Sensors that say what the test wants.
#[derive(Debug, Default)]
pub(super) struct FakeSensors {
    sample: Mutex<Sample>,
    sink: Mutex<Option<SensedSink>>,
    sleeps: Mutex<u32>,
    /// When somebody looked last.
    looked: Mutex<Option<Time>>,
    /// The agent's clock, where it stands still until the test moves it on.
    time: Option<&'static AtomicU64>,
    /// By how much the PC's clock was set back since the agent began.
    set_back: Span,
}

impl FakeSensors {
    pub(super) fn begin(&self, sink: SensedSink) {
        *self.sink.lock().unwrap() = Some(sink);
    }

    /// Sensors of a PC whose clock the test moves.
    pub(super) fn with_clock() -> Self {
        Self {
            time: Some(Box::leak(Box::default())),
            ..Self::default()
        }
    }

    /// Sensors of a PC whose clock was set back by so much since the agent began.
    fn set_back(span: Span) -> Self {
        Self {
            set_back: span,
            ..Self::default()
        }
    }

    pub(super) fn clock(&self) -> Clock {
        let started = || Clock::ahead_by(self.set_back);
        self.time.map_or_else(started, Clock::set_by)
    }

    /// Time passes on the agent's clock, and somebody looks.
    pub(super) fn pass(&self, span: Span) {
        self.time.unwrap().fetch_add(span.ms, Ordering::SeqCst);
        self.say(Sensed::Changed);
    }

    /// When somebody looked last.
    pub(super) fn looked(&self) -> Option<Time> {
        *self.looked.lock().unwrap()
    }

    /// From now on somebody waits for memory for so much of the time, in thousandths.
    fn press(&self, memory: u16) {
        let value = Pressure {
            memory,
            ..Pressure::default()
        };
        // A word is as old as the look that it comes with.
        self.sample.lock().unwrap().pressure = Signal::Seen {
            value,
            at: Time { ms: 0 },
        };
    }

    pub(super) fn say(&self, event: Sensed) {
        self.sink.lock().unwrap().as_ref().unwrap().send(event);
    }
}

impl Sensing for FakeSensors {
    fn sample(&self, now: Time) -> Sample {
        *self.looked.lock().unwrap() = Some(now);
        let mut sample = Sample {
            at: now,
            ..*self.sample.lock().unwrap()
        };
        if let Signal::Seen { at, .. } = &mut sample.pressure {
            *at = now;
        }
        sample
    }

    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    fn processors(&self) -> Vec<u32> {
        vec![0, 1]
    }

    fn ready_to_sleep(&self) {
        *self.sleeps.lock().unwrap() += 1;
    }
}

/// An agent that senses what the test says, with two attempts that run.
pub(super) async fn scene(
    sensors: &Arc<FakeSensors>,
    change: impl FnOnce(&mut AgentConfig),
) -> Scene {
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

fn is_beat(kind: &Kind) -> Option<()> {
    matches!(kind, Kind::Beat(_)).then_some(())
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

/// An agent on a PC whose clock the test moves, with two attempts that run and can be saved.
async fn saving(sensors: &Arc<FakeSensors>) -> Scene {
    let mut server = FakeServer::start(false).await;
    let engine = Arc::new(FakeEngine::that_saves());
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::sensing(&server, &engine, data.path(), (|_| {}, sensors));
    server.hello().await;
    let mut scene = Scene {
        server,
        engine,
        data,
        agent,
    };
    let mut granted = bundle(&["wait"], &[], 2);
    let template = granted.template.as_mut().unwrap();
    template.checkpoint_files = vec!["state".to_owned()];
    template.checkpoint_ms = 600_000;
    scene.grant(granted).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    sensors.pass(Span::seconds(1));
    told(&mut scene.server, "running").await;
    told(&mut scene.server, "running").await;
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pc_sleeps_when_what_can_be_moved_is_saved() {
    let sensors = Arc::new(FakeSensors::with_clock());
    let mut scene = saving(&sensors).await;
    let sleeps = || *sensors.sleeps.lock().unwrap();
    sensors.say(Sensed::Sleeping(true));
    until("both are saved", || scene.engine.saving().len() == 2).await;
    for index in 0..2 {
        assert_eq!((sleeps(), scene.engine.held()), (0, Some(false)));
        scene.engine.save_ends(id(index));
        let wanted = |kind: &Kind| {
            let Kind::Saved(saved) = kind else {
                return None;
            };
            Some(saved.clone())
        };
        let saved = scene.server.hear(wanted).await;
        let checkpoint: Checkpoint = serde_json::from_slice(&saved.checkpoint).unwrap();
        assert_eq!(checkpoint.attempt, id(index));
        // It is of use when it is durable.
        assert_eq!((sleeps(), scene.engine.held()), (0, Some(false)));
        let kept = v1::Kept {
            attempt: saved.attempt,
            taken: checkpoint.taken.ms,
            kept: true,
        };
        scene.server.send(server_message::Kind::Kept(kept)).await;
    }
    until("it may sleep", || sleeps() == 1).await;
    assert_eq!(scene.engine.held(), Some(true), "before it was allowed");
    sensors.say(Sensed::Sleeping(false));
    until("all go on", || {
        sensors.pass(Span::seconds(1));
        scene.engine.held() == Some(false)
    })
    .await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pcs_sleep_does_not_wait_for_ever_for_a_save() {
    let sensors = Arc::new(FakeSensors::with_clock());
    let scene = saving(&sensors).await;
    sensors.say(Sensed::Sleeping(true));
    until("both are saved", || scene.engine.saving().len() == 2).await;
    assert_eq!(*sensors.sleeps.lock().unwrap(), 0);
    sensors.pass(Span::seconds(4));
    until("it may sleep", || *sensors.sleeps.lock().unwrap() == 1).await;
    assert_eq!(scene.engine.held(), Some(true), "before it was allowed");
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_state_or_of_its_reason_waits_for_no_beat() {
    let sensors = Arc::new(FakeSensors::default());
    let mut server = FakeServer::start(false).await;
    // It hears one beat at the beginning and the next in an hour.
    server.want_news_only();
    let engine = Arc::new(FakeEngine::new());
    let data = tempfile::tempdir().unwrap();
    let screensaver = |config: &mut AgentConfig| config.policy = Policy::Screensaver;
    let agent = Agent::sensing(&server, &engine, data.path(), (screensaver, &sensors));
    server.hello().await;
    sensors.say(Sensed::Input);
    let in_use = beat(&mut server, "paused").await;
    // Paused before and after: only the reason is another.
    sensors.say(Sensed::Sleeping(true));
    let asleep = said(&mut server, "sleep").await;
    assert_ne!(in_use, asleep);
    sensors.say(Sensed::Sleeping(false));
    let wanted = |kind: &Kind| {
        let Kind::Beat(beat) = kind else { return None };
        (!beat.reason.contains("sleep")).then(|| beat.state.clone())
    };
    assert_eq!(
        server.hear(wanted).await,
        "paused",
        "somebody was just there"
    );
    agent.stop().await.unwrap();
}

/// The next beat whose reason has this word; the reason.
async fn said(server: &mut FakeServer, word: &str) -> String {
    let wanted = |kind: &Kind| {
        let Kind::Beat(beat) = kind else { return None };
        beat.reason.contains(word).then(|| beat.reason.clone())
    };
    server.hear(wanted).await
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
async fn memory_that_the_owner_needs_comes_from_pages_then_from_the_youngest() {
    let sensors = Arc::new(FakeSensors::with_clock());
    let mut scene = scene(&sensors, |_| {}).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    sensors.press(300);
    sensors.pass(Span::seconds(1));
    beat(&mut scene.server, "paused").await;
    until("pages are asked back", || scene.engine.reclaims() > 0).await;
    assert_eq!(scene.engine.holds(), 2, "nothing is given back yet");
    // Pages were not enough for twenty seconds: the youngest goes, then the next.
    let gone = || scene.engine.ended();
    until("both are given back", || {
        sensors.pass(Span::seconds(1));
        gone().len() == 2
    })
    .await;
    assert_eq!(gone(), [id(1), id(0)]);
    for index in 0..2 {
        let given_back = reason(&scene.server.ended(id(index)).await);
        assert_eq!(given_back.state(), AttemptState::Evicted, "{given_back}");
        assert!(given_back.to_string().contains("memory"), "{given_back}");
    }
    // The owner has what was needed: work begins again.
    sensors.press(0);
    until("nothing is held", || {
        sensors.pass(Span::seconds(1));
        scene.engine.held() == Some(false)
    })
    .await;
    beat(&mut scene.server, "online").await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_frozen_too_long_is_given_back() {
    let sensors = Arc::new(FakeSensors::with_clock());
    let quick = |config: &mut AgentConfig| {
        config.policy = Policy::Screensaver;
        std::fs::create_dir_all(&config.data).unwrap();
        let limits = config.data.join("owner-limits.json");
        std::fs::write(limits, r#"{"frozen":"40s"}"#).unwrap();
    };
    let mut scene = scene(&sensors, quick).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    sensors.say(Sensed::Input);
    until("all are held", || scene.engine.held() == Some(true)).await;
    beat(&mut scene.server, "paused").await;
    let looked = || *sensors.looked.lock().unwrap();
    until("somebody looked", || looked().is_some()).await;
    let late = looked().unwrap() + Span::seconds(30);
    sensors.pass(Span::seconds(15));
    sensors.pass(Span::seconds(15));
    until("somebody looked again", || looked() >= Some(late)).await;
    beat(&mut scene.server, "paused").await;
    assert_eq!(scene.engine.ended(), [], "they keep what they have");
    until("both are given back", || {
        sensors.pass(Span::seconds(1));
        scene.engine.ended().len() == 2
    })
    .await;
    for index in 0..2 {
        let given_back = reason(&scene.server.ended(id(index)).await);
        assert_eq!(given_back.state(), AttemptState::Evicted, "{given_back}");
    }
    scene.gone().await;
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

/// As on a PC that also runs a system which keeps local time in its clock: ours begins hours ahead,
/// and somebody sets the clock right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owners_hour_holds_where_the_clock_was_set_back() {
    let sensors = Arc::new(FakeSensors::set_back(Span::seconds(2 * 3600)));
    let mut scene = scene(&sensors, |_| {}).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = Time {
        ms: u64::try_from(wall.as_millis()).unwrap() + 3_600_000,
    };
    let owner = owner::Agent::in_directory(scene.data.path());
    let ask = move || owner.ask(&Ask::Pause { until: Some(end) });
    let answer = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
    let Answer::Status(now) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((now.owner_paused, now.until), (true, Some(end)));
    until("all are held", || scene.engine.held() == Some(true)).await;
    let why = beat(&mut scene.server, "paused").await;
    assert!(why.contains("asked for a pause"), "{why}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let kept = Keep::new(scene.data.path()).wish(Time {
        ms: u64::try_from(now.as_millis()).unwrap(),
    });
    assert_eq!(kept, Some(OwnerWish::Pause { until: Some(end) }));
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_hangs_ends_the_beats() {
    let sensors = Arc::new(FakeSensors::default());
    let mut scene = scene(&sensors, |_| {}).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    until("beats come", || scene.engine.beats() > 0).await;
    scene.engine.hang();
    sensors.say(Sensed::Sleeping(true));
    // Shims freeze their attempts when three beats are missing. The node's own beats to the
    // server go on, five for each of these: they tell the time.
    let mut last = scene.engine.beats();
    loop {
        scene.server.forget();
        for _ in 0..16 {
            scene.server.hear(is_beat).await;
        }
        let now = scene.engine.beats();
        if std::mem::replace(&mut last, now) == now {
            break;
        }
    }
    scene.engine.go_on();
    until("beats come again", || scene.engine.beats() > last).await;
    scene.agent.stop().await.unwrap();
}
