//! Processes that report, lie, flood and fall silent.

use super::*;
use crate::slot::SourceState;
use crate::{SenseConfig, Sensors};
use gleaner_model::{Signal, Time};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);
const NOW: Time = Time { ms: 1_000_000_000 };

struct Pc {
    _root: tempfile::TempDir,
    socket: PathBuf,
    sensors: Sensors,
    events: Receiver<SenseEvent>,
}

fn pc() -> Pc {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("run/session.sock");
    let config = SenseConfig {
        session_socket: Some(socket.clone()),
        ..SenseConfig::nothing()
    };
    let (sender, events) = channel();
    let sink = Arc::new(move |event| {
        let _over = sender.send(event);
    });
    Pc {
        _root: root,
        socket,
        sensors: Sensors::start(config, sink),
        events,
    }
}

impl Pc {
    fn state(&self) -> SourceState {
        let reports = self.sensors.sources();
        reports
            .iter()
            .find(|source| source.name == "desktop")
            .unwrap()
            .state
    }

    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.sensors.sources());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn connect(&self) -> UnixStream {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = UnixStream::connect(&self.socket) {
                return stream;
            }
            assert!(Instant::now() < end, "{:?}", self.sensors.sources());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn active(ago: Duration) -> Word {
    Word {
        active: Some(Moment::now().before(ago)),
        ..Word::default()
    }
}

#[test]
fn a_pc_without_desktops_has_none() {
    let pc = pc();
    pc.until("absent", |pc| pc.state() == SourceState::Absent);
    let sample = pc.sensors.sample(NOW);
    assert_eq!(
        (sample.desktop, sample.sessions),
        (Signal::Absent, Signal::Absent)
    );
}

#[test]
fn what_a_desktop_says_is_in_the_sample() {
    let pc = pc();
    let mut desktop = pc.connect();
    let word = Word {
        full_screen: true,
        inhibited: true,
        ..active(Duration::from_secs(40))
    };
    desktop.write_all(word.line().as_bytes()).unwrap();
    pc.until("seen", |pc| pc.state() == SourceState::Seen);
    let sample = pc.sensors.sample(NOW);
    let ago = NOW.since(*sample.desktop.value().unwrap());
    assert!(ago.ms >= 39_999, "{ago:?}");
    let attention = sample.attention.value().unwrap();
    assert!(attention.full_screen && !attention.game);
    // Without a session manager the desktops say who is there.
    let sessions = sample.sessions.value().unwrap();
    assert_eq!((sessions.people, sessions.active), (1, 1));
    assert!(sessions.idle_inhibited && !sessions.locked);
    assert!(
        !pc.events.try_iter().any(|event| event == SenseEvent::Input),
        "that was long ago"
    );
    desktop
        .write_all(active(Duration::ZERO).line().as_bytes())
        .unwrap();
    let end = Instant::now() + PATIENCE;
    while pc.events.recv_timeout(PATIENCE).unwrap() != SenseEvent::Input {
        assert!(Instant::now() < end);
    }
    drop(desktop);
    pc.until("gone", |pc| pc.state() == SourceState::Absent);
}

#[test]
fn one_desktop_does_not_hide_another() {
    let pc = pc();
    let (mut used, mut idle) = (pc.connect(), pc.connect());
    used.write_all(active(Duration::from_secs(1)).line().as_bytes())
        .unwrap();
    let locked = Word {
        locked: true,
        ..active(Duration::from_secs(600))
    };
    idle.write_all(locked.line().as_bytes()).unwrap();
    let both = |pc: &Pc| {
        pc.sensors
            .sources()
            .iter()
            .any(|s| s.detail == "2 desktops report")
    };
    pc.until("both", both);
    let sample = pc.sensors.sample(NOW);
    assert!(NOW.since(*sample.desktop.value().unwrap()).ms < 500_000);
    assert!(!sample.sessions.value().unwrap().locked, "one is in use");
}

#[test]
fn a_desktop_that_cannot_tell_is_a_failure() {
    let pc = pc();
    let mut desktop = pc.connect();
    desktop
        .write_all(Word::default().line().as_bytes())
        .unwrap();
    let failed = |pc: &Pc| {
        pc.sensors
            .sources()
            .iter()
            .any(|s| s.detail.contains("cannot tell"))
    };
    pc.until("failed", failed);
    assert!(matches!(
        pc.sensors.sample(NOW).desktop,
        Signal::Failed { .. }
    ));
}

#[test]
fn nonsense_is_hung_up_on() {
    let pc = pc();
    for nonsense in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![b'x'; LINE_MAX * 8]] {
        let mut desktop = pc.connect();
        // It may be gone before all is written.
        let _partly = desktop.write_all(&nonsense);
        desktop.set_read_timeout(Some(PATIENCE)).unwrap();
        let end = desktop.read(&mut [0; 8]);
        let gone = end.as_ref().is_ok_and(|read| *read == 0)
            || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        assert!(gone);
    }
}

#[test]
fn a_user_has_few_connections() {
    let pc = pc();
    let mut held: Vec<UnixStream> = (0..CLIENTS_A_USER_MAX).map(|_| pc.connect()).collect();
    for desktop in &mut held {
        desktop
            .write_all(active(Duration::ZERO).line().as_bytes())
            .unwrap();
    }
    let all = |pc: &Pc| {
        pc.sensors
            .sources()
            .iter()
            .any(|s| s.detail == "4 desktops report")
    };
    pc.until("all heard", all);
    let mut more = pc.connect();
    more.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(more.read(&mut [0; 8]).unwrap(), 0, "hung up on");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("session.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let first = listen(&socket).unwrap();
    let end = listen(&socket).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::AddrInUse);
    drop(first);
}
