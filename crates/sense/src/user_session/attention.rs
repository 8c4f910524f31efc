//! What the session's message bus says: locked, a game, somebody who asks not to be idle.
//!
//! Every desktop has names of its own for these; whoever is not there is passed over, and nobody
//! is started by being asked.

use super::Desk;
use crate::bus::{Arg, Bus, BusError, Peer, Value};
use crate::thread::Stop;
use std::time::Duration;

/// How often the bus is asked.
const EVERY: Duration = Duration::from_secs(5);

/// What the session's bus says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Says {
    pub(super) locked: bool,
    pub(super) game: bool,
    pub(super) inhibited: bool,
    pub(super) presenting: bool,
}

/// Lock screens. The first name is KDE's and others', the second GNOME's.
const SCREENS: [Peer<'static>; 3] = [
    Peer {
        name: "org.freedesktop.ScreenSaver",
        path: "/org/freedesktop/ScreenSaver",
        interface: "org.freedesktop.ScreenSaver",
    },
    Peer {
        name: "org.gnome.ScreenSaver",
        path: "/org/gnome/ScreenSaver",
        interface: "org.gnome.ScreenSaver",
    },
    Peer {
        name: "org.mate.ScreenSaver",
        path: "/org/mate/ScreenSaver",
        interface: "org.mate.ScreenSaver",
    },
];

/// Where a game asks for all the PC has (Feral `GameMode`).
const GAME: Peer<'static> = Peer {
    name: "com.feralinteractive.GameMode",
    path: "/com/feralinteractive/GameMode",
    interface: "com.feralinteractive.GameMode",
};

const GNOME_SESSION: Peer<'static> = Peer {
    name: "org.gnome.SessionManager",
    path: "/org/gnome/SessionManager",
    interface: "org.gnome.SessionManager",
};

/// GNOME's mask of "do not mark the session as idle".
const GNOME_IDLE: u32 = 8;

const KDE_POWER: Peer<'static> = Peer {
    name: "org.kde.Solid.PowerManagement.PolicyAgent",
    path: "/org/kde/Solid/PowerManagement/PolicyAgent",
    interface: "org.kde.Solid.PowerManagement.PolicyAgent",
};

/// KDE's mask of "do not switch the screen off".
const KDE_SCREEN: u32 = 4;

/// The name that XFCE, MATE and others answer to.
const POWER: Peer<'static> = Peer {
    name: "org.freedesktop.PowerManagement",
    path: "/org/freedesktop/PowerManagement/Inhibit",
    interface: "org.freedesktop.PowerManagement.Inhibit",
};

const XFCE_SETTINGS: Peer<'static> = Peer {
    name: "org.xfce.Xfconf",
    path: "/org/xfce/Xfconf",
    interface: "org.xfce.Xfconf",
};

/// XFCE's presentation mode, as its settings call it.
const XFCE_PRESENTING: [&str; 2] = [
    "xfce4-power-manager",
    "/xfce4-power-manager/presentation-mode",
];

/// Asks until the stop, or until the bus is lost.
pub(super) fn run(stop: &Stop, desk: &Desk, address: &str) {
    let Ok(mut bus) = Bus::connect(address, stop) else {
        return;
    };
    loop {
        match ask(&mut bus) {
            Ok(says) => desk.bus_says(says),
            Err(_) => {
                // Nobody knows from here on; a lock that was never taken back would stay.
                desk.bus_says(Says::default());
                return;
            }
        }
        if !stop.wait(EVERY) {
            return;
        }
    }
}

fn ask(bus: &mut Bus<'_>) -> Result<Says, BusError> {
    let mut says = Says::default();
    for screen in SCREENS {
        says.locked |= yes(bus.call(screen, "GetActive", &[]))?;
    }
    says.game = some(bus.property(GAME, "ClientCount"))?
        .and_then(|count| count.number())
        .is_some_and(|count| count > 0);
    let mask = |mask| [Arg::Number(mask)];
    says.inhibited = yes(bus.call(GNOME_SESSION, "IsInhibited", &mask(GNOME_IDLE)))?
        || yes(bus.call(KDE_POWER, "HasInhibition", &mask(KDE_SCREEN)))?
        || yes(bus.call(POWER, "HasInhibit", &[]))?;
    let setting = XFCE_PRESENTING.map(Arg::Text);
    says.presenting = yes(bus.call(XFCE_SETTINGS, "GetProperty", &setting))?;
    Ok(says)
}

fn yes(answer: Result<Vec<Value>, BusError>) -> Result<bool, BusError> {
    let answer = some(answer)?;
    Ok(answer.is_some_and(|body| body.first().is_some_and(Value::yes)))
}

/// Nothing where the peer is not there, says no, or is busy; an error where the bus is lost.
fn some<T>(answer: Result<T, BusError>) -> Result<Option<T>, BusError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(BusError::NoPeer(_) | BusError::Refused(_) | BusError::Silent) => Ok(None),
        Err(error) => Err(error),
    }
}
