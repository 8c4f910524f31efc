//! Desktops: an X server without a screen, a Wayland compositor without one, and GNOME's way by a
//! mock.

use crate::bus::Bus;
use crate::pc::{PATIENCE, Pc, Running, until};
use gleaner_sense::user_session::{Displays, run};
use gleaner_sense::{SenseEvent, SourceState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    AtomEnum, ConnectionExt as _, CreateWindowAux, PropMode, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// A user without rights, in every distribution.
const NOBODY: u32 = 65534;

/// The process of a desktop, in a thread; says when it ended.
fn session(pc: &Pc, displays: Displays) -> Receiver<()> {
    let (sender, ended) = channel();
    let socket = pc.socket();
    std::thread::spawn(move || {
        run(&[socket], &displays).unwrap();
        let _over = sender.send(());
    });
    ended
}

/// An X server and its display's name.
fn x_server() -> (Running, String) {
    let mut command = Command::new("Xvfb");
    command.args([
        "-displayfd",
        "1",
        "-nolisten",
        "tcp",
        "-ac",
        "-screen",
        "0",
        "640x480x24",
    ]);
    let mut server = Running::start(command.stdout(Stdio::piped()));
    let mut line = String::new();
    let output = server.0.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    (server, format!(":{}", line.trim()))
}

#[test]
fn an_x_display_is_sensed_and_its_end_noticed() {
    let (server, name) = x_server();
    let pc = Pc::new(None);
    let displays = Displays {
        x11: Some(name.clone()),
        ..Displays::default()
    };
    let ended = session(&pc, displays);
    pc.until("idle", |pc| {
        pc.idle().is_some_and(|idle| idle >= Duration::from_secs(3))
    });
    press(&name);
    pc.event(SenseEvent::Input);
    pc.until("used", |pc| {
        pc.idle().is_some_and(|idle| idle < Duration::from_secs(3))
    });
    assert_eq!(pc.sample().sessions.value().map(|s| s.people), Some(1));

    let (display, screen) = RustConnection::connect(Some(&name)).unwrap();
    let root = display.setup().roots[screen].root;
    let window = full_screen_window(&display, root);
    pc.until("full screen", |pc| {
        pc.sample().attention.value().is_some_and(|a| a.full_screen)
    });
    display.destroy_window(window).unwrap();
    display.flush().unwrap();
    pc.until("a window closed", |pc| {
        pc.sample()
            .attention
            .value()
            .is_some_and(|a| !a.full_screen)
    });
    drop(display);
    drop(server);
    ended.recv_timeout(PATIENCE).unwrap();
    pc.until("gone", |pc| {
        pc.source("desktop").state == SourceState::Absent
    });
}

fn press(display: &str) {
    let mut command = Command::new("xdotool");
    let status = command.args(["key", "a"]).env("DISPLAY", display).status();
    assert!(status.unwrap().success());
}

/// What a window manager writes down of a window in front that fills the screen.
fn full_screen_window(display: &RustConnection, root: Window) -> Window {
    let atom = |name: &str| {
        let cookie = display.intern_atom(false, name.as_bytes()).unwrap();
        cookie.reply().unwrap().atom
    };
    let window = display.generate_id().unwrap();
    let class = WindowClass::INPUT_OUTPUT;
    let aux = CreateWindowAux::new();
    let created = display.create_window(0, window, root, 0, 0, 64, 48, 0, class, 0, &aux);
    created.unwrap().check().unwrap();
    let states = [atom("_NET_WM_STATE_FULLSCREEN")];
    let (state, active) = (atom("_NET_WM_STATE"), atom("_NET_ACTIVE_WINDOW"));
    let replace = PropMode::REPLACE;
    let set = display.change_property32(replace, window, state, AtomEnum::ATOM, &states);
    set.unwrap().check().unwrap();
    let set = display.change_property32(replace, root, active, AtomEnum::WINDOW, &[window]);
    set.unwrap().check().unwrap();
    window
}

#[test]
fn an_x_server_that_hangs_cannot_tell() {
    let (server, name) = x_server();
    let pc = Pc::new(None);
    let displays = Displays {
        x11: Some(name),
        ..Displays::default()
    };
    let ended = session(&pc, displays);
    pc.until("seen", |pc| pc.source("desktop").state == SourceState::Seen);
    server.signal(rustix::process::Signal::STOP);
    pc.until("cannot tell", |pc| {
        pc.source("desktop").state == SourceState::Failed
    });
    server.signal(rustix::process::Signal::CONT);
    pc.until("seen again", |pc| {
        pc.source("desktop").state == SourceState::Seen
    });
    drop(server);
    ended.recv_timeout(PATIENCE).unwrap();
}

/// A compositor without a screen, and its socket.
fn sway(folder: &Path) -> (Running, PathBuf) {
    let mut mode = std::fs::metadata(folder).unwrap().permissions();
    mode.set_mode(0o700);
    std::fs::set_permissions(folder, mode).unwrap();
    let config = folder.join("sway.conf");
    std::fs::write(
        &config,
        "xwayland disable\nfor_window [app_id=\".*\"] fullscreen enable\n",
    )
    .unwrap();
    let mut command = Command::new("sway");
    command.arg("--config").arg(config);
    command.env("XDG_RUNTIME_DIR", folder);
    command.env("WLR_BACKENDS", "headless");
    command.env("WLR_LIBINPUT_NO_DEVICES", "1");
    command.env("WLR_RENDERER", "pixman");
    command.env_remove("WAYLAND_DISPLAY").env_remove("DISPLAY");
    if rustix::process::geteuid().is_root() {
        // It refuses to run as root.
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY).env("HOME", folder);
    }
    let running = Running::start(command.stdout(Stdio::null()));
    let socket = folder.join("wayland-1");
    until("a compositor", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    (running, socket)
}

#[test]
fn a_wayland_compositor_is_sensed_and_its_end_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (compositor, socket) = sway(folder.path());
    let pc = Pc::new(None);
    let displays = Displays {
        wayland: Some(socket),
        ..Displays::default()
    };
    let ended = session(&pc, displays);
    pc.until("idle", |pc| {
        pc.idle().is_some_and(|idle| idle >= Duration::from_secs(3))
    });
    let mut typing = Command::new("wtype");
    typing
        .arg("a")
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("WAYLAND_DISPLAY", "wayland-1");
    assert!(typing.status().unwrap().success());
    pc.event(SenseEvent::Input);
    pc.until("used", |pc| {
        pc.idle().is_some_and(|idle| idle < Duration::from_secs(3))
    });
    let mut window = Command::new("foot");
    window
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("WAYLAND_DISPLAY", "wayland-1")
        .args(["sleep", "3600"]);
    let window = Running::start(window.stdout(Stdio::null()));
    pc.until("full screen", |pc| {
        pc.sample().attention.value().is_some_and(|a| a.full_screen)
    });
    drop(window);
    pc.until("a window closed", |pc| {
        pc.sample()
            .attention
            .value()
            .is_some_and(|a| !a.full_screen)
    });
    drop(compositor);
    ended.recv_timeout(PATIENCE).unwrap();
    pc.until("gone", |pc| {
        pc.source("desktop").state == SourceState::Absent
    });
}

/// A compositor that knows a seat and nothing of idleness, as GNOME's.
fn silent_compositor(folder: &Path) -> PathBuf {
    let path = folder.join("wayland-0");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The end of the list of globals is all it says, once the list was asked for.
            let mut requests = [0; 24];
            if stream.read_exact(&mut requests).is_ok() {
                let words: [u32; 3] = [3, 12 << 16, 0];
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let _gone = stream.write_all(&bytes);
                kept.push(stream);
            }
        }
    });
    path
}

#[test]
fn gnome_tells_by_the_message_bus() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start();
    let name = "org.gnome.Mutter.IdleMonitor";
    let path = "/org/gnome/Mutter/IdleMonitor/Core";
    let _mutter = bus.mock(&["--session", name, path, name], name);
    let idletime = |ms: u32| {
        bus.drive(&format!(
            "mock('{path}', '{name}').AddMethod('{name}', 'GetIdletime', '', 't', 'ret = dbus.UInt64({ms})')"
        ));
    };
    idletime(600_000);
    let pc = Pc::new(None);
    let displays = Displays {
        wayland: Some(silent_compositor(folder.path())),
        bus: Some(bus.address()),
        ..Displays::default()
    };
    session(&pc, displays);
    pc.until("idle", |pc| {
        pc.idle()
            .is_some_and(|idle| idle >= Duration::from_secs(600))
    });
    idletime(10);
    pc.event(SenseEvent::Input);
    pc.until("used", |pc| {
        pc.idle().is_some_and(|idle| idle < Duration::from_secs(60))
    });
}

#[test]
fn games_locks_and_films_are_told_by_the_sessions_bus() {
    let (_server, display) = x_server();
    let bus = Bus::start();
    let pc = Pc::new(None);
    let displays = Displays {
        x11: Some(display),
        bus: Some(bus.address()),
        ..Displays::default()
    };
    session(&pc, displays);
    pc.until("nothing special", |pc| {
        pc.sample().attention.value().is_some_and(|a| !a.game)
            && pc
                .sample()
                .sessions
                .value()
                .is_some_and(|s| !s.locked && !s.idle_inhibited)
    });
    let game = "com.feralinteractive.GameMode";
    let game_path = "/com/feralinteractive/GameMode";
    let _game = bus.mock(&["--session", game, game_path, game], game);
    bus.drive(&format!(
        "mock('{game_path}').AddProperty('{game}', 'ClientCount', dbus.Int32(1))"
    ));
    pc.until("a game", |pc| {
        pc.sample().attention.value().is_some_and(|a| a.game)
    });
    let screen = "org.gnome.ScreenSaver";
    let _screen = bus.mock(&["--session", "--template", "gnome_screensaver"], screen);
    bus.drive(
        "dbus.Interface(bus.get_object('org.gnome.ScreenSaver', '/org/gnome/ScreenSaver'), \
         'org.gnome.ScreenSaver').SetActive(True)",
    );
    pc.until("locked", |pc| {
        pc.sample().sessions.value().is_some_and(|s| s.locked)
    });
    let power = "org.freedesktop.PowerManagement";
    let power_path = "/org/freedesktop/PowerManagement/Inhibit";
    let interface = "org.freedesktop.PowerManagement.Inhibit";
    let _power = bus.mock(&["--session", power, power_path, interface], power);
    bus.drive(&format!(
        "mock('{power_path}').AddMethod('{interface}', 'HasInhibit', '', 'b', 'ret = True')"
    ));
    pc.until("a film", |pc| {
        pc.sample()
            .sessions
            .value()
            .is_some_and(|s| s.idle_inhibited)
    });
}
