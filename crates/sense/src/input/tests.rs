//! Devices that come, go, flood and refuse. Pipes stand for event devices: they are waited for
//! and read in the same way, and the events in them are as a kernel records them.

use super::*;
use crate::slot::SourceState;
use crate::{SenseConfig, Sensors};
use gleaner_model::{Signal, Time};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// Long enough for any loaded PC.
const PATIENCE: Duration = Duration::from_secs(60);

const NOW: Time = Time { ms: 1_000_000_000 };

struct Pc {
    _root: tempfile::TempDir,
    dev: PathBuf,
    sensors: Sensors,
    events: Receiver<SenseEvent>,
}

fn event(kind: u16, code: u16) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
    bytes[18..20].copy_from_slice(&code.to_ne_bytes());
    bytes[20] = 1;
    bytes
}

const KEY: u16 = 1;
const SEPARATOR: u16 = 0;

/// A device, and our end of it.
fn plug(dev: &Path, name: &str) -> File {
    let path = dev.join("input").join(name);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

impl Pc {
    fn new(before: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dev = root.path().to_owned();
        fs::create_dir(dev.join("input")).unwrap();
        before(&dev);
        let config = SenseConfig {
            dev: Some(dev.clone()),
            ..SenseConfig::nothing()
        };
        let (sender, events) = channel();
        let sink = Arc::new(move |event| {
            let _over = sender.send(event);
        });
        let sensors = Sensors::start(config, sink);
        Self {
            _root: root,
            dev,
            sensors,
            events,
        }
    }

    fn input(&self) -> Signal<Time> {
        self.sensors.sample(NOW).input
    }

    fn state(&self) -> SourceState {
        let reports = self.sensors.sources();
        reports
            .iter()
            .find(|source| source.name == "input")
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

    /// Waits for the next touch; slower words may come between.
    fn touched(&self) {
        let end = Instant::now() + PATIENCE;
        while self.events.recv_timeout(PATIENCE).unwrap() != SenseEvent::Input {
            assert!(Instant::now() < end);
        }
    }
}

#[test]
fn a_pc_without_devices_has_none() {
    let pc = Pc::new(|_| {});
    pc.until("absent", |pc| pc.state() == SourceState::Absent);
    assert_eq!(pc.input(), Signal::Absent);
}

#[test]
fn a_key_is_told_at_once_and_its_time_kept() {
    let mut keyboard = None;
    let pc = Pc::new(|dev| keyboard = Some(plug(dev, "event0")));
    let mut keyboard = keyboard.unwrap();
    pc.until("seen", |pc| pc.state() == SourceState::Seen);
    keyboard.write_all(&event(KEY, 30)).unwrap();
    pc.touched();
    let Signal::Seen { value, at } = pc.input() else {
        panic!("{:?}", pc.input());
    };
    assert!(value <= at && at <= NOW);
}

#[test]
fn what_programs_cause_is_not_input() {
    let mut keyboard = None;
    let pc = Pc::new(|dev| keyboard = Some(plug(dev, "event0")));
    let mut keyboard = keyboard.unwrap();
    pc.until("seen", |pc| pc.state() == SourceState::Seen);
    keyboard.write_all(&event(SEPARATOR, 0)).unwrap();
    keyboard.write_all(&event(0x11, 1)).unwrap();
    keyboard.write_all(&event(KEY, 30)).unwrap();
    pc.touched();
    assert_eq!(
        pc.events
            .try_iter()
            .filter(|e| *e == SenseEvent::Input)
            .count(),
        0
    );
}

#[test]
fn devices_come_and_go() {
    let pc = Pc::new(|_| {});
    pc.until("absent", |pc| pc.state() == SourceState::Absent);
    let mut mouse = plug(&pc.dev, "event7");
    pc.until("plugged in", |pc| pc.state() == SourceState::Seen);
    mouse.write_all(&event(2, 0)).unwrap();
    pc.touched();
    fs::remove_file(pc.dev.join("input/event7")).unwrap();
    drop(mouse);
    let mut keyboard = plug(&pc.dev, "event8");
    keyboard.write_all(&event(KEY, 30)).unwrap();
    pc.touched();
    fs::remove_file(pc.dev.join("input/event8")).unwrap();
    drop(keyboard);
    let none = |pc: &Pc| pc.sensors.sources().iter().any(|s| s.detail == "0 devices");
    pc.until("all gone", none);
    assert_eq!(
        pc.state(),
        SourceState::Seen,
        "the last input is still known"
    );
}

#[test]
fn a_flood_is_told_ten_times_a_second_at_most() {
    let mut device = None;
    let pc = Pc::new(|dev| device = Some(plug(dev, "event0")));
    let device = device.unwrap();
    pc.until("seen", |pc| pc.state() == SourceState::Seen);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = {
        let done = done.clone();
        rustix::fs::fcntl_setfl(&device, rustix::fs::OFlags::NONBLOCK).unwrap();
        std::thread::spawn(move || {
            let mut device = device;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                if device.write_all(&event(KEY, 30)).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        })
    };
    pc.touched();
    let start = Instant::now();
    for _ in 0..10 {
        pc.touched();
    }
    // Ten more touches are ten holds apart, however slow or fast the PC is.
    assert!(start.elapsed() >= HOLD * 9, "{:?}", start.elapsed());
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    flood.join().unwrap();
}

#[test]
fn a_device_that_may_not_be_read_is_a_failure_with_a_fix() {
    // A socket cannot be opened like a device, by root either.
    let pc = Pc::new(|dev| {
        let _socket = std::os::unix::net::UnixListener::bind(dev.join("input/event0")).unwrap();
    });
    let refused = |pc: &Pc| {
        let reports = pc.sensors.sources();
        let input = reports
            .iter()
            .find(|source| source.name == "input")
            .unwrap();
        input.state == SourceState::Failed && input.detail.contains("event0")
    };
    pc.until("failed", refused);
    assert!(matches!(pc.input(), Signal::Failed { .. }));
}

#[test]
fn denied_is_told_with_what_to_do() {
    let board = Board::new(Arc::new(|_| {}));
    let dev = PathBuf::from("/dev");
    let reader = Reader {
        devices: Vec::new(),
        denied: vec![("event3".to_owned(), io::ErrorKind::PermissionDenied.into())],
        last: Moment::now(),
        ever: false,
        dev: &dev,
        sys: None,
    };
    reader.tell(&board);
    let report = board.input.report(Moment::now());
    assert_eq!(report.state, SourceState::Failed);
    assert!(report.fix.unwrap().contains("usermod -aG input"));
}
