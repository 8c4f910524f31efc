//! Services of the system's message bus, mocked by python-dbusmock on a private bus.

use crate::pc::{Pc, Running, python, until};
use gleaner_model::Signal;
use gleaner_sense::{SenseEvent, SourceState};
use rustix::process::Signal as Kill;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A private bus.
pub(crate) struct Bus {
    folder: tempfile::TempDir,
    daemon: Option<Running>,
}

impl Bus {
    pub(crate) fn start() -> Self {
        let mut bus = Self {
            folder: tempfile::tempdir().unwrap(),
            daemon: None,
        };
        let config = format!(
            "<busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            bus.address()
        );
        fs::write(bus.folder.path().join("bus.conf"), config).unwrap();
        bus.again();
        bus
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Ends the daemon, if it runs, and starts it (again).
    fn again(&mut self) {
        self.end();
        let config = self.folder.path().join("bus.conf");
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg("--config-file").arg(config);
        self.daemon = Some(Running::start(&mut command));
        until("a bus", || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
        });
    }

    fn end(&mut self) {
        self.daemon = None;
        let _gone = fs::remove_file(self.socket());
    }

    fn command(&self, mut command: Command) -> Command {
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        command.env("DBUS_SESSION_BUS_ADDRESS", self.address());
        command
    }

    /// A mocked service, there when this returns.
    pub(crate) fn mock(&self, arguments: &[&str], name: &str) -> Running {
        let mut command = self.command(python());
        command.args(["-m", "dbusmock"]).args(arguments);
        let running = Running::start(command.stdout(Stdio::null()));
        until(name, || {
            self.try_drive(&format!("bus.get_object('{name}', '/')"))
        });
        running
    }

    pub(crate) fn logind(&self) -> Running {
        let running = self.mock(&["--template", "logind"], "org.freedesktop.login1");
        self.drive(&format!(
            "mock('{LOGIN}').AddProperty('{LOGIN_MANAGER}', 'BlockInhibited', 'shutdown:sleep')"
        ));
        running
    }

    /// Runs a line of Python with `bus` and `mock(path)` for the service of that path.
    pub(crate) fn drive(&self, line: &str) {
        assert!(self.try_drive(line), "{line}");
    }

    fn try_drive(&self, line: &str) -> bool {
        let program = format!(
            "import dbus\n\
             bus = dbus.SystemBus()\n\
             def mock(path, name=None):\n    \
                 name = name or '.'.join(path.split('/')[1:4])\n    \
                 return dbus.Interface(bus.get_object(name, path), 'org.freedesktop.DBus.Mock')\n\
             {line}\n"
        );
        let output = self.command(python()).arg("-c").arg(program).output();
        output.is_ok_and(|output| output.status.success())
    }
}

const LOGIN: &str = "/org/freedesktop/login1";
const LOGIN_MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "/org/freedesktop/login1/session/c1";

impl Bus {
    /// A session at the desk.
    fn log_in(&self) {
        self.drive(&format!(
            "mock('{LOGIN}').AddSession('c1', 'seat0', 1000, 'ada', True); \
             mock('{SESSION}').UpdateProperties('org.freedesktop.login1.Session', {{'Type': 'wayland'}})"
        ));
    }

    fn set(&self, property: &str, value: &str) {
        self.drive(&format!(
            "mock('{SESSION}').UpdateProperties('org.freedesktop.login1.Session', {{'{property}': {value}}})"
        ));
    }

    fn prepare_for_sleep(&self, sleeping: &str) {
        self.drive(&format!(
            "mock('{LOGIN}').EmitSignal('{LOGIN_MANAGER}', 'PrepareForSleep', 'b', [{sleeping}])"
        ));
    }

    fn inhibitors(&self) -> String {
        let program = format!(
            "import dbus; b = dbus.SystemBus(); \
             print(dbus.Interface(b.get_object('org.freedesktop.login1', '{LOGIN}'), \
             '{LOGIN_MANAGER}').ListInhibitors())"
        );
        let output = self
            .command(python())
            .arg("-c")
            .arg(program)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn sessions_locks_and_inhibitors() {
    let bus = Bus::start();
    let _logind = bus.logind();
    let pc = Pc::new(Some(bus.address()));
    pc.until("nobody", |pc| {
        pc.sample()
            .sessions
            .value()
            .is_some_and(|s| s.people == 0 && s.locked)
    });
    bus.log_in();
    pc.until("somebody", |pc| {
        let sample = pc.sample();
        let sessions = sample.sessions.value().copied();
        sessions.is_some_and(|s| (s.people, s.active, s.locked) == (1, 1, false))
    });
    // There is a desktop, and nothing in it reports.
    pc.until("a desktop that says nothing", |pc| {
        matches!(pc.sample().desktop, Signal::Failed { .. })
    });
    assert!(pc.source("desktop").fix.unwrap().contains("autostart"));
    bus.set("LockedHint", "True");
    pc.until("locked", |pc| {
        pc.sample().sessions.value().is_some_and(|s| s.locked)
    });
    bus.set("LockedHint", "False");
    bus.drive(&format!(
        "mock('{LOGIN}').UpdateProperties('{LOGIN_MANAGER}', {{'BlockInhibited': 'shutdown:idle'}})"
    ));
    pc.until("a film", |pc| {
        pc.sample()
            .sessions
            .value()
            .is_some_and(|s| s.idle_inhibited && !s.locked)
    });
    bus.set("Remote", "True");
    pc.until("remote", |pc| {
        pc.sample().sessions.value().is_some_and(|s| s.remote == 1)
    });
    bus.set("Class", "'greeter'");
    pc.until("a greeter", |pc| {
        pc.sample().sessions.value().is_some_and(|s| s.people == 0)
    });
}

#[test]
fn the_pc_waits_with_sleep_until_tasks_are_frozen() {
    let bus = Bus::start();
    let _logind = bus.logind();
    let pc = Pc::new(Some(bus.address()));
    until("asked to be waited for", || {
        bus.inhibitors().contains("gleaner")
    });
    bus.prepare_for_sleep("True");
    pc.event(SenseEvent::Sleeping(true));
    pc.until("about to sleep", |pc| {
        pc.sample().sleeping.value() == Some(&true)
    });
    pc.sensors.ready_to_sleep();
    until("let go", || !bus.inhibitors().contains("gleaner"));
    bus.prepare_for_sleep("False");
    pc.event(SenseEvent::Sleeping(false));
    pc.until("awake", |pc| pc.sample().sleeping.value() == Some(&false));
    until("asked again", || bus.inhibitors().contains("gleaner"));
}

#[test]
fn a_metered_network() {
    let bus = Bus::start();
    let name = "org.freedesktop.NetworkManager";
    let pc = Pc::new(Some(bus.address()));
    pc.until("no network manager", |pc| {
        pc.source("network").state == SourceState::Absent
    });
    let manager = "/org/freedesktop/NetworkManager";
    let _mock = bus.mock(&["--system", name, manager, name], name);
    bus.drive(&format!(
        "mock('{manager}').AddProperty('{name}', 'Metered', dbus.UInt32(4))"
    ));
    pc.until("found", |pc| pc.sample().metered.value() == Some(&false));
    bus.drive(&format!(
        "mock('{manager}').UpdateProperties('{name}', {{'Metered': dbus.UInt32(1)}})"
    ));
    pc.until("metered", |pc| pc.sample().metered.value() == Some(&true));
}

#[test]
fn a_bus_that_restarts_is_found_again() {
    let mut bus = Bus::start();
    let logind = bus.logind();
    let pc = Pc::new(Some(bus.address()));
    pc.until("seen", |pc| {
        pc.source("sessions").state == SourceState::Seen
    });
    bus.end();
    drop(logind);
    // It was there: a PC does not lose its session manager for good.
    pc.until("failed", |pc| {
        pc.source("sessions").state == SourceState::Failed
    });
    bus.again();
    let _logind = bus.logind();
    bus.log_in();
    pc.until("seen again", |pc| {
        pc.sample().sessions.value().is_some_and(|s| s.people == 1)
    });
}

#[test]
fn a_service_that_hangs_ages_its_own_word_only() {
    let bus = Bus::start();
    let logind = bus.logind();
    let name = "org.freedesktop.NetworkManager";
    let manager = "/org/freedesktop/NetworkManager";
    let _network = bus.mock(&["--system", name, manager, name], name);
    bus.drive(&format!(
        "mock('{manager}').AddProperty('{name}', 'Metered', dbus.UInt32(2))"
    ));
    let pc = Pc::new(Some(bus.address()));
    pc.until("both", |pc| {
        ["sessions", "network"]
            .iter()
            .all(|name| pc.source(name).state == SourceState::Seen)
    });
    logind.signal(Kill::STOP);
    pc.until("failed", |pc| {
        pc.source("sessions").state == SourceState::Failed
    });
    assert!(pc.source("sessions").detail.contains("no answer"));
    assert_eq!(pc.source("network").state, SourceState::Seen);
    let fresh = |pc: &Pc| pc.source("load").age.is_some_and(|age| age.ms < 5_000);
    pc.until("fresh load", fresh);
    logind.signal(Kill::CONT);
    pc.until("seen again", |pc| {
        pc.source("sessions").state == SourceState::Seen
    });
}

#[test]
fn no_bus_at_all_is_absent() {
    let pc = Pc::new(Some("unix:path=/nowhere/at/all".to_owned()));
    pc.until("absent", |pc| {
        ["sessions", "network"]
            .iter()
            .all(|name| pc.source(name).state == SourceState::Absent)
    });
    assert_eq!(pc.sample().sessions, Signal::Absent);
}

/// Dropping ends all threads soon, whatever they wait for.
#[test]
fn a_bus_that_hangs_does_not_hold_up_the_end() {
    let bus = Bus::start();
    let _logind = bus.logind();
    let pc = Pc::new(Some(bus.address()));
    pc.until("seen", |pc| {
        pc.source("sessions").state == SourceState::Seen
    });
    bus.daemon.as_ref().unwrap().signal(Kill::STOP);
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(pc);
        sender.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(Path::new("/proc/self").exists());
}
