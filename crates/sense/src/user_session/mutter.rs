//! GNOME's compositor: it has no protocol of its own for idleness, but tells it over the session's
//! message bus (`org.gnome.Mutter.IdleMonitor`).

use super::Desk;
use crate::bus::{Bus, Peer, Value};
use crate::moment::Moment;
use crate::thread::Stop;
use std::time::Duration;

const MONITOR: Peer<'static> = Peer {
    name: "org.gnome.Mutter.IdleMonitor",
    path: "/org/gnome/Mutter/IdleMonitor/Core",
    interface: "org.gnome.Mutter.IdleMonitor",
};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Asks until the stop, or until the connection is lost.
pub(super) fn run(stop: &Stop, desk: &Desk, address: &str) {
    let Ok(mut bus) = Bus::connect(address, stop) else {
        return;
    };
    while let Ok(answer) = bus.call(MONITOR, "GetIdletime", &[]) {
        let idle = answer.first().and_then(Value::number);
        let Some(idle) = idle.and_then(|idle| u64::try_from(idle).ok()) else {
            return;
        };
        desk.used(Moment::now().before(Duration::from_millis(idle)));
        if !stop.wait(EVERY) {
            return;
        }
    }
}
