//! X displays: idle time by the screen saver extension, full screen by the window manager's word
//! about the active window (Extended Window Manager Hints). Neither titles nor classes are read.

use super::Desk;
use crate::moment::Moment;
use crate::thread::Stop;
use std::time::Duration;
use x11rb::connection::Connection as _;
use x11rb::errors::ReplyError;
use x11rb::protocol::screensaver::ConnectionExt as _;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _, Window};
use x11rb::rust_connection::RustConnection;

/// How often the display is asked; an answer costs it microseconds.
const EVERY: Duration = Duration::from_secs(1);

/// Asks between two looks at full screen: nobody starts a film within the second.
const LOOKS_A_WINDOW: u32 = 2;

/// Most states of a window that are read.
const STATES_MAX: u32 = 64;

/// Asks until the stop; ends the process where the display is gone.
pub(super) fn run(stop: &Stop, desk: &Desk, name: &str) {
    // Whatever ends it, the display is gone or never was.
    let _lost = ask(stop, desk, name);
    desk.end();
}

/// The words of window managers that are asked for.
struct Atoms {
    active: u32,
    state: u32,
    full: u32,
}

fn ask(stop: &Stop, desk: &Desk, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (display, screen) = RustConnection::connect(Some(name))?;
    let roots = &display.setup().roots;
    let root = roots.get(screen).ok_or("no such screen")?.root;
    let atom = |name: &[u8]| -> Result<u32, ReplyError> {
        Ok(display.intern_atom(false, name)?.reply()?.atom)
    };
    let atoms = Atoms {
        active: atom(b"_NET_ACTIVE_WINDOW")?,
        state: atom(b"_NET_WM_STATE")?,
        full: atom(b"_NET_WM_STATE_FULLSCREEN")?,
    };
    for look in 0_u32.. {
        let saver = display.screensaver_query_info(root)?.reply()?;
        let idle = Duration::from_millis(saver.ms_since_user_input.into());
        desk.used(Moment::now().before(idle));
        if look % LOOKS_A_WINDOW == 0 {
            desk.full_screen(full_screen(&display, root, &atoms)?);
        }
        if !stop.wait(EVERY) {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the active window fills the screen.
fn full_screen(display: &RustConnection, root: Window, atoms: &Atoms) -> Result<bool, ReplyError> {
    let active = display
        .get_property(false, root, atoms.active, AtomEnum::WINDOW, 0, 1)?
        .reply()?;
    let window = active.value32().and_then(|mut values| values.next());
    let Some(window) = window.filter(|window| *window != 0) else {
        return Ok(false);
    };
    let states = display
        .get_property(false, window, atoms.state, AtomEnum::ATOM, 0, STATES_MAX)?
        .reply();
    match states {
        Ok(states) => Ok(states
            .value32()
            .is_some_and(|mut states| states.any(|state| state == atoms.full))),
        // The window was closed between the two questions.
        Err(ReplyError::X11Error(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
