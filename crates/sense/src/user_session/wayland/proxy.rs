//! The objects of a compositor that we know, and what their events mean. Numbers of requests and
//! events are those of the protocols' descriptions (`wayland.xml`, `ext-idle-notify-v1.xml`,
//! `idle.xml`, `wlr-foreign-toplevel-management-unstable-v1.xml`).

use super::socket::{Message, Word, request};
use Word::{Number, Text};
use std::collections::BTreeSet;
use std::time::Duration;

const DISPLAY: u32 = 1;
const REGISTRY: u32 = 2;
const SYNC: u32 = 3;
/// First number for what we make ourselves.
const FIRST: u32 = 4;

const SEAT: &str = "wl_seat";
const NOTIFIER: &str = "ext_idle_notifier_v1";
const OLD_NOTIFIER: &str = "org_kde_kwin_idle";
const WINDOWS: &str = "zwlr_foreign_toplevel_manager_v1";

/// Request of a window's handle that gives it back.
const WINDOW_DESTROY: u16 = 7;

/// States of a window: in front, and filling the screen.
const ACTIVATED: u32 = 2;
const FULL_SCREEN: u32 = 3;

/// Most windows that are followed; more are given back at once.
const WINDOWS_MAX: usize = 1024;

/// What an event means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    /// A seat of that name.
    Seat(u32),
    /// All that there is has been told.
    Done,
    /// By the number of the watch.
    Idle(u32),
    Resumed(u32),
    /// A window; one too many is given back with the request.
    Window(Option<Vec<u8>>),
    FullScreen(u32, bool),
    /// A window closed; the request gives its number back.
    Closed(u32, Vec<u8>),
    /// The compositor ends the connection.
    Broken,
}

/// A global object: its name and its version.
type Global = Option<(u32, u32)>;

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Objects {
    made: u32,
    notifier: Global,
    old_notifier: Global,
    windows: Global,
    /// Our number of the notifier, once bound.
    bound: Option<u32>,
    watches: BTreeSet<u32>,
    window_manager: Option<u32>,
    handles: BTreeSet<u32>,
}

impl Objects {
    pub(super) fn get_registry(&self) -> Vec<u8> {
        request(DISPLAY, 1, &[Number(REGISTRY)])
    }

    pub(super) fn sync(&self) -> Vec<u8> {
        request(DISPLAY, 0, &[Number(SYNC)])
    }

    fn make(&mut self) -> u32 {
        self.made += 1;
        FIRST + self.made - 1
    }

    fn bind(&mut self, name: u32, interface: &str, version: u32) -> (u32, Vec<u8>) {
        let number = self.make();
        let words = [
            Number(name),
            Text(interface),
            Number(version),
            Number(number),
        ];
        (number, request(REGISTRY, 0, &words))
    }

    /// Requests that watch a seat's idleness; none where the compositor does not tell.
    pub(super) fn watch(&mut self, seat: u32, idle: Duration) -> Option<Vec<u8>> {
        let millis = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        let (name, interface, version) = match (self.notifier, self.old_notifier) {
            (Some((name, version)), _) => (name, NOTIFIER, version.min(2)),
            (None, Some((name, _))) => (name, OLD_NOTIFIER, 1),
            (None, None) => return None,
        };
        let notifier = match self.bound {
            Some(number) => number,
            None => {
                let (number, bind) = self.bind(name, interface, version);
                bytes.extend(bind);
                self.bound = Some(number);
                number
            }
        };
        let (seat, bind) = self.bind(seat, SEAT, 1);
        bytes.extend(bind);
        let watch = self.make();
        self.watches.insert(watch);
        bytes.extend(match (interface, version) {
            (OLD_NOTIFIER, _) => {
                request(notifier, 0, &[Number(watch), Number(seat), Number(millis)])
            }
            // From version 2 on one can ask for what people do, whatever a film player inhibits.
            (_, 2) => request(notifier, 2, &[Number(watch), Number(millis), Number(seat)]),
            _ => request(notifier, 1, &[Number(watch), Number(millis), Number(seat)]),
        });
        Some(bytes)
    }

    /// Requests that follow windows' states; empty where the compositor does not tell.
    pub(super) fn watch_windows(&mut self) -> Vec<u8> {
        let Some((name, version)) = self.windows else {
            return Vec::new();
        };
        // Full screen is told from version 2 on.
        let (number, bind) = self.bind(name, WINDOWS, version.min(2));
        self.window_manager = Some(number);
        bind
    }

    pub(super) fn event(&mut self, message: &Message) -> Event {
        let known = match (message.object, message.event) {
            (DISPLAY, 0) => return Event::Broken,
            (REGISTRY, 0) => self.global(message),
            (SYNC, 0) => Some(Event::Done),
            (watch, event) if self.watches.contains(&watch) => match event {
                0 => Some(Event::Idle(watch)),
                1 => Some(Event::Resumed(watch)),
                _ => None,
            },
            (manager, 0) if self.window_manager == Some(manager) => self.window(message),
            (window, 4) if self.handles.contains(&window) => state(message),
            (window, 6) if self.handles.remove(&window) => {
                Some(Event::Closed(window, request(window, WINDOW_DESTROY, &[])))
            }
            // Titles and names of programs among them.
            _ => None,
        };
        known.unwrap_or(Event::Nothing)
    }

    fn global(&mut self, message: &Message) -> Option<Event> {
        let name = message.number(0)?;
        let version = message.number(message.after_text(1)?)?;
        match message.text(1)? {
            SEAT => return Some(Event::Seat(name)),
            NOTIFIER => self.notifier = Some((name, version)),
            OLD_NOTIFIER => self.old_notifier = Some((name, version)),
            WINDOWS => self.windows = Some((name, version)),
            _ => {}
        }
        None
    }

    fn window(&mut self, message: &Message) -> Option<Event> {
        let window = message.number(0)?;
        if self.handles.len() >= WINDOWS_MAX {
            return Some(Event::Window(Some(request(window, WINDOW_DESTROY, &[]))));
        }
        self.handles.insert(window);
        Some(Event::Window(None))
    }
}

fn state(message: &Message) -> Option<Event> {
    let states: Vec<u32> = message.numbers(0)?.collect();
    let full = states.contains(&FULL_SCREEN) && states.contains(&ACTIVATED);
    Some(Event::FullScreen(message.object, full))
}
