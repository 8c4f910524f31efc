//! Whether the connection costs by the byte: `NetworkManager`'s word. Which network it is, nobody
//! asks.

use crate::board::Board;
use crate::bus::{Bus, BusError, Peer};
use crate::moment::Moment;
use crate::thread::Stop;
use std::time::Duration;

const MANAGER: Peer<'static> = Peer {
    name: "org.freedesktop.NetworkManager",
    path: "/org/freedesktop/NetworkManager",
    interface: "org.freedesktop.NetworkManager",
};

/// How often it is asked although it said nothing.
const EVERY: Duration = Duration::from_secs(10);

/// How long it must be silent before it is asked again; wireless networks chatter.
const SETTLE: Duration = Duration::from_millis(250);

/// "Yes" and "yes, as far as one can guess" (`NMMetered`).
const METERED: [i128; 2] = [1, 3];

/// Asks and listens until the stop, or until the connection is lost.
pub(crate) fn run(stop: &Stop, board: &Board, address: &str) {
    match listen(stop, board, address) {
        Ok(()) | Err(BusError::Stopped) => {}
        Err(error @ (BusError::NoBus | BusError::NoPeer(_))) => {
            board.changed(board.metered.absent(&error.to_string()));
        }
        Err(error) => {
            let fix = "see systemctl status dbus NetworkManager";
            board.changed(board.metered.failed(&error.to_string(), Some(fix)));
        }
    }
}

fn listen(stop: &Stop, board: &Board, address: &str) -> Result<(), BusError> {
    let mut bus = Bus::connect(address, stop)?;
    bus.listen(&format!(
        "type='signal',member='PropertiesChanged',path='{}'",
        MANAGER.path
    ))?;
    loop {
        let answer = bus.property(MANAGER, "Metered")?;
        let number = answer.number().ok_or(BusError::Nonsense("no number"))?;
        let metered = METERED.contains(&number);
        board.metered.describe(match metered {
            true => "costs by the byte",
            false => "does not cost by the byte",
        });
        board.changed(board.metered.seen(metered, Moment::now()));
        if bus.next(EVERY)?.is_some() {
            bus.settle(SETTLE)?;
        }
    }
}
