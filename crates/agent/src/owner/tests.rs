//! The desk and its socket against a watch made by hand, which obeys at once.

use super::desk::{Bell, Furniture};
use super::overview::Identity;
use super::protocol::ASK_BYTES_MAX;
use super::*;
use crate::watch::status::{Allowance, Allowed, Order, Running, Shares, Status};
use gleaner_harvest::{Brain, Cause, OwnerWish, Sample, Settings};
use gleaner_model::{
    AttemptState, Bytes, Cpus, JobId, NodeState, Signal, Span, TaskId, Time, Verdict,
};
use gleaner_sense::OwnTime;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// A watch that carries out what it is told.
#[derive(Debug, Clone)]
pub(super) struct Obedient {
    pub(super) status: watch::Sender<Status>,
    pub(super) heard: Arc<Mutex<Vec<Order>>>,
    pub(super) admin: Arc<Mutex<Vec<Settings>>>,
}

impl Bell for Obedient {
    fn order(&self, order: Order) {
        if let Order::Wish(wish) = order {
            let paused = matches!(wish, OwnerWish::Pause { .. });
            self.status.send_modify(|status| {
                status.wish = Some(wish).filter(|_| paused);
                (status.state, status.decision.verdict, status.decision.cause) = match wish {
                    OwnerWish::Pause { until } => {
                        let cause = Cause::OwnerPause { until, left: None };
                        (NodeState::Paused, Verdict::Pause, cause)
                    }
                    OwnerWish::Resume => (NodeState::Online, Verdict::Run, Cause::Free),
                };
                status.reason = if paused {
                    status.decision.cause.to_string()
                } else {
                    String::new()
                };
            });
        }
        self.heard.lock().unwrap().push(order);
    }

    fn admin(&self, settings: Settings) {
        self.admin.lock().unwrap().push(settings);
    }

    fn offer(&self, memory: Option<Bytes>, disk: Option<Bytes>) -> Offered {
        Offered {
            cpus: 4.0,
            memory: memory.map_or(8 << 30, |memory| memory.0),
            disk: disk.map_or(100 << 30, |disk| disk.0),
        }
    }
}

/// A PC of four processors with one task that runs on all it may.
pub(super) fn status() -> Status {
    let now = wall::now();
    let mut decision = Brain::new(Cpus { milli: 4000 }, Settings::default(), now)
        .decision()
        .clone();
    (decision.verdict, decision.cause) = (Verdict::Run, Cause::Free);
    let job = JobId(7);
    Status {
        at: now,
        state: NodeState::Online,
        reason: String::new(),
        decision,
        sample: Sample {
            at: now,
            input: Signal::Seen {
                value: now - Span::seconds(90),
                at: now,
            },
            heat: Signal::Failed { since: now },
            ..Sample::default()
        },
        sources: Vec::new(),
        running: vec![Running {
            attempt: TaskId::new(job, 3).attempt(1),
            job,
            name: String::new(),
            user: String::new(),
            state: AttemptState::Running,
            since: now - Span::seconds(300),
            cpus: 1.0,
            cpu_seconds: 290.5,
            memory: Bytes(500 << 20),
            disk: Bytes(3 << 20),
            network: Bytes(0),
            allowed: Allowed {
                cpus: Cpus::ONE,
                memory: Bytes(1 << 30),
                disk: Bytes(1 << 30),
                disk_io: None,
                net_io: None,
            },
        }],
        allowance: Allowance {
            cpus: Cpus { milli: 4000 },
            memory: Bytes(8 << 30),
            io_permille: 1000,
            transfers: true,
        },
        shares: Shares {
            owner: 120,
            harvested: 700,
            idle: 180,
        },
        settings: Settings::default(),
        owner_settings: gleaner_harvest::OwnerSettings::default(),
        wish: None,
    }
}

/// An owner's side that works, in a directory of its own.
pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    pub(super) desk: Arc<Desk>,
    pub(super) bell: Obedient,
    pub(super) guests: guests::Guests,
    pub(super) stop: CancellationToken,
}

impl Place {
    pub(super) fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    pub(super) fn in_dir(dir: tempfile::TempDir) -> Self {
        let (sender, receiver) = watch::channel(status());
        let bell = Obedient {
            status: sender,
            heard: Arc::default(),
            admin: Arc::default(),
        };
        let (guests, stop) = (guests::Guests::default(), CancellationToken::new());
        let furniture = Furniture {
            identity: Identity {
                id: "ab".repeat(16),
                name: "desk-4".to_owned(),
                server: "https://pool.example:8421".to_owned(),
                data: dir.path().display().to_string(),
            },
            home: dir.path().to_owned(),
            status: receiver,
            bell: Box::new(bell.clone()),
            guests: guests.clone(),
            own: OwnTime::Nothing,
            base: Settings::default(),
            page_port: 0,
        };
        let desk = Arc::new(Desk::open(furniture, stop.clone()).unwrap());
        Self {
            dir,
            desk,
            bell,
            guests,
            stop,
        }
    }

    /// A place whose socket listens in its own directory only.
    fn listening() -> Self {
        let place = Self::new();
        let path = place.dir.path().join("owner.sock");
        let bound = socket::bind_at(path).unwrap();
        let (desk, stop) = (Arc::clone(&place.desk), place.stop.clone());
        tokio::spawn(socket::serve(bound, desk, stop));
        place
    }

    fn agent(&self) -> Agent {
        Agent::in_directory(self.dir.path())
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("owner.sock")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }
}

/// What blocks, beside the runtime that answers it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn ask(place: &Place, ask: Ask) -> Answer {
    let agent = place.agent();
    blocking(move || agent.ask(&ask)).await.unwrap()
}

#[tokio::test]
async fn an_owner_sees_pauses_and_resumes_over_the_socket() {
    let place = Place::listening();
    place.guests.named(JobId(7), "screening", "ada");
    let Answer::Status(now) = ask(&place, Ask::Status).await else {
        panic!("no status");
    };
    assert_eq!(
        (now.mode, now.running.len(), now.name.as_str()),
        (Mode::Working, 1, "desk-4")
    );
    let one = &now.running[0];
    assert_eq!(
        (one.name.as_str(), one.user.as_str(), one.memory),
        ("screening", "ada", 500 << 20)
    );

    let until = Some(wall::now() + Span::seconds(3600));
    let Answer::Status(paused) = ask(&place, Ask::Pause { until }).await else {
        panic!("no status");
    };
    assert_eq!((paused.mode, paused.owner_paused), (Mode::Paused, true));
    assert_eq!(paused.until.map(|at| at.ms), until.map(|at| at.ms));
    let Answer::Status(again) = ask(&place, Ask::Resume).await else {
        panic!("no status");
    };
    assert_eq!((again.mode, again.owner_paused), (Mode::Working, false));

    let Answer::History(entries) = ask(&place, Ask::History { days: 1 }).await else {
        panic!("no history");
    };
    let [Entry::Pause(pause)] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert!(
        pause.to.is_some() && pause.reason.contains("asked for a pause"),
        "{pause:?}"
    );
}

#[tokio::test]
async fn a_pause_in_the_past_is_a_wrong_question() {
    let place = Place::listening();
    let agent = place.agent();
    let until = Some(Time { ms: 1000 });
    let refused = blocking(move || agent.ask(&Ask::Pause { until }))
        .await
        .unwrap_err();
    let AskError::Refused(refusal) = refused else {
        panic!("{refused}");
    };
    assert!(
        refusal.usage && refusal.sentence.contains("ended already"),
        "{refusal:?}"
    );
    assert_eq!(
        place.bell.heard.lock().unwrap().len(),
        1,
        "only the settings at start"
    );
}

#[tokio::test]
async fn why_tells_every_sense_and_how_old_its_word_is() {
    let place = Place::listening();
    let Answer::Why(why) = ask(&place, Ask::Why).await else {
        panic!("no reason");
    };
    assert!(
        !why.rule.is_empty() && why.reason.ends_with(char::is_alphanumeric),
        "{why:?}"
    );
    let signal = |name: &str| {
        why.signals
            .iter()
            .find(|one| one.name.starts_with(name))
            .unwrap()
    };
    assert_eq!(signal("keyboard").says, "last used 1 min 30 s ago");
    assert!(signal("keyboard").age.is_some());
    assert_eq!(
        (
            signal("heat").state.as_str(),
            signal("power").state.as_str()
        ),
        ("failed", "absent")
    );
}

#[tokio::test]
async fn limits_are_kept_and_only_stricter_ones_are_taken() {
    let place = Place::listening();
    let keeper = tokio::spawn(Arc::clone(&place.desk).keep());
    let admin = NodeSettings::from_toml("cpus = 2\nmemory = \"4GiB\"").unwrap();
    place.guests.welcomed(serde_json::to_vec(&admin).unwrap());
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while place.bell.admin.lock().unwrap().len() < 2 {
        assert!(
            std::time::Instant::now() < deadline,
            "the admin is not heard"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        place.bell.admin.lock().unwrap()[1].active_cpus,
        Some(Cpus { milli: 2000 })
    );

    let limits = NodeSettings::from_toml("cpus = 1\nmemory = \"1GiB\"\nhours = [\"sat-sun\"]");
    let limits = limits.unwrap();
    let set = Ask::SetLimits {
        limits: limits.clone(),
    };
    let Answer::Limits(view) = ask(&place, set).await else {
        panic!("no limits");
    };
    assert_eq!(
        (&view.owner, &view.admin, view.offered.memory),
        (&limits, &admin, 1 << 30)
    );
    let last = place.bell.heard.lock().unwrap().last().cloned();
    assert_eq!(last, Some(Order::Settings(limits.as_owner())));

    let looser = Ask::SetLimits {
        limits: NodeSettings::from_toml("cpus = 3").unwrap(),
    };
    let agent = place.agent();
    let refused = blocking(move || agent.ask(&looser))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("2 CPUs"), "{refused}");

    // What was said holds after a restart, before any server answers.
    place.stop.cancel();
    keeper.await.unwrap();
    let Place { dir, desk, .. } = place;
    drop(desk);
    let place = Place::in_dir(dir);
    let Answer::Limits(view) = place.desk.answer(Ask::Limits).await else {
        panic!("no limits");
    };
    assert_eq!((view.owner, view.admin), (limits.clone(), admin));
    assert_eq!(
        place.bell.heard.lock().unwrap()[0],
        Order::Settings(limits.as_owner())
    );
}

/// The watch keeps what it knows, and the pool is offered next to nothing.
#[tokio::test]
async fn limits_that_cannot_be_read_loosen_nothing() {
    for rot in [
        "",
        "{\"memory\": tw",
        "{\"memory\": 1}",
        "a disk that fails",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("owner-limits.json");
        match rot {
            "a disk that fails" => std::fs::create_dir(&file).unwrap(),
            text => std::fs::write(&file, text).unwrap(),
        }
        let place = Place::in_dir(dir);
        assert_eq!(*place.bell.heard.lock().unwrap(), [], "{rot}");
        let Answer::Limits(view) = place.desk.answer(Ask::Limits).await else {
            panic!("no limits");
        };
        assert_eq!(
            (view.offered.memory, view.offered.disk),
            (16 << 20, 1 << 20)
        );
    }
}

#[tokio::test]
async fn nonsense_is_answered_and_hurts_nobody() {
    let place = Place::listening();
    let long = vec![b'x'; ASK_BYTES_MAX + 10];
    let questions: [&[u8]; 6] = [
        b"\n",
        b"\0\xff\xfe garbage\n",
        b"{\"ask\":\"everything\"}\n",
        b"{\"ask\":\"pause\",\"until\":\"noon\"}\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &long,
    ];
    for question in questions {
        let mut stream = place.connect();
        let question = question.to_vec();
        let text = blocking(move || {
            stream.write_all(&question).unwrap();
            let mut text = Vec::new();
            // Whoever sends more than is read may hear of a reset after the answer.
            let _reset = stream.read_to_end(&mut text);
            String::from_utf8(text).unwrap()
        })
        .await;
        let Ok(Answer::Refused(refusal)) = serde_json::from_str(&text) else {
            panic!("{text}");
        };
        assert!(refusal.usage, "{refusal:?}");
    }
    assert!(matches!(ask(&place, Ask::Status).await, Answer::Status(_)));
}

#[tokio::test]
async fn a_thousand_connections_that_say_nothing_are_bounded_and_pass() {
    let place = Place::listening();
    let path = place.dir.path().join("owner.sock");
    let silent = blocking(move || {
        let mut silent = Vec::new();
        for _ in 0..1000 {
            // A full queue is waited for: the agent takes them one after the other.
            silent.push(UnixStream::connect(&path).unwrap());
        }
        silent
    })
    .await;
    // Most of them were told that they are too many; none of them keeps the owner out for long.
    let refused = blocking(move || {
        let mut refused = 0;
        for mut stream in silent {
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            refused += usize::from(text.contains("too many"));
        }
        refused
    })
    .await;
    assert!(refused > 900, "{refused}");
    assert!(matches!(ask(&place, Ask::Status).await, Answer::Status(_)));
}

#[tokio::test]
async fn a_client_that_never_reads_holds_nobody_up() {
    let place = Place::listening();
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut stream = place.connect();
        stream
            .write_all(b"{\"ask\":\"history\",\"days\":30}\n")
            .unwrap();
        deaf.push(stream);
    }
    assert!(matches!(ask(&place, Ask::Status).await, Answer::Status(_)));
    drop(deaf);
}

#[tokio::test]
async fn what_ran_is_summed_for_whom_and_survives_a_restart() {
    let place = Place::new();
    place
        .bell
        .status
        .send_modify(|status| status.running.clear());
    place.guests.named(JobId(9), "primes", "bob");
    let usage = gleaner_model::Usage {
        cpu_seconds: 12.5,
        memory_peak: 1 << 20,
        read_bytes: 10,
        written_bytes: 20,
        ..gleaner_model::Usage::default()
    };
    for index in 0..3 {
        place
            .guests
            .ended(TaskId::new(JobId(9), index).attempt(1), &usage);
    }
    let keeper = tokio::spawn(Arc::clone(&place.desk).keep());
    place.stop.cancel();
    keeper.await.unwrap();
    let Place { dir, desk, .. } = place;
    drop(desk);
    let place = Place::in_dir(dir);
    let Answer::History(entries) = place.desk.answer(Ask::History { days: 2 }).await else {
        panic!("no history");
    };
    let [Entry::Work(work)] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!(
        (work.name.as_str(), work.user.as_str(), work.tasks),
        ("primes", "bob", 3)
    );
    assert_eq!((work.cpu_seconds, work.disk), (37.5, 90));
    // Attempts that an earlier agent left are known by name.
    assert_eq!(place.guests.name(JobId(9)).user, "bob");
}

#[test]
fn an_admins_wish_is_told_where_nothing_else_stops_tasks() {
    let (working, mut idle) = (status(), status());
    idle.running.clear();
    let battery = Cause::Battery { charge: None };
    let paused = judged((NodeState::Paused, ""), Verdict::Pause, battery, 0);
    for (status, wish, mode, rule) in [
        (&working, None, Mode::Working, "free"),
        (&working, Some("pause"), Mode::Paused, "admin"),
        (&working, Some("drain"), Mode::Working, "admin"),
        (&idle, Some("drain"), Mode::Paused, "admin"),
        (&working, Some("evict"), Mode::Paused, "admin"),
        (&paused, Some("pause"), Mode::Paused, "battery"),
    ] {
        let found = overview::judge(status, 4.0, wish);
        assert_eq!((found.mode, found.rule.as_str()), (mode, rule), "{wish:?}");
        assert_eq!(found.reason.contains("admin"), rule == "admin", "{found:?}");
    }
}

/// A status with this state, reason and decision.
fn judged(said: (NodeState, &str), verdict: Verdict, cause: Cause, milli: u32) -> Status {
    let mut status = status();
    (status.state, status.reason) = (said.0, said.1.to_owned());
    (status.decision.verdict, status.decision.cause) = (verdict, cause);
    status.allowance.cpus = Cpus { milli };
    status
}

#[test]
fn the_strictest_says_what_the_pc_does_and_why() {
    let battery = Cause::Battery { charge: Some(40) };
    let active = Cause::Active { cpus: Cpus::ONE };
    let online = (NodeState::Online, "");
    let stale = (NodeState::Paused, "paused: on battery (41 %)");
    let full = (NodeState::Paused, "the disk of /var is full");
    let unfit = (NodeState::Refused, "tasks do not yield");
    let (run, pause) = (Verdict::Run, Verdict::Pause);
    for (status, mode, rule) in [
        (
            judged(online, run, Cause::Free, 4000),
            Mode::Working,
            "free",
        ),
        (judged(online, run, active, 1000), Mode::Slowed, "active"),
        (judged(stale, pause, battery, 0), Mode::Paused, "battery"),
        (judged(full, run, Cause::Free, 4000), Mode::Paused, "disk"),
        (
            judged(unfit, run, Cause::Free, 4000),
            Mode::Refused,
            "self-test",
        ),
        // The state follows the decision within moments.
        (judged(online, pause, battery, 0), Mode::Paused, "battery"),
        (judged(stale, run, Cause::Free, 4000), Mode::Working, "free"),
    ] {
        let found = (overview::mode(&status, 4.0), overview::rule(&status));
        assert_eq!(found, (mode, rule.to_owned()), "{status:?}");
        let sentence = overview::sentence(&status);
        assert!(sentence.starts_with(char::is_uppercase), "{sentence}");
        assert!(!sentence.contains("aused: "), "{sentence}");
        assert_eq!(
            rule == "disk",
            sentence.ends_with("/var is full"),
            "{sentence}"
        );
    }
}

#[test]
fn a_directory_too_deep_for_a_socket_is_none() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let _guard = runtime.enter();
    let bound = socket::bind_at(deep.join("owner.sock")).unwrap();
    assert!(deep.join("owner.sock").exists());
    drop(bound);
    assert!(!deep.join("owner.sock").exists());
}
