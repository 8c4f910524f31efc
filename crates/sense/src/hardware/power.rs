//! Mains or battery, and how full (Linux, `Documentation/ABI/testing/sysfs-class-power`).

use super::{devices, number, word};
use crate::board::Board;
use crate::moment::Moment;
use crate::thread::Stop;
use gleaner_model::Power;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often supplies are looked at: a pulled plug is felt in the charge after minutes.
const EVERY: Duration = Duration::from_secs(5);

/// Looks until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, sys: &Path) {
    let directory = sys.join("class/power_supply");
    loop {
        match look(&directory) {
            Ok(Some(power)) => {
                board.power.describe(&in_words(power));
                board.changed(board.power.seen(power, Moment::now()));
            }
            Ok(None) => board.changed(board.power.absent("no battery and no mains adapter")),
            Err(error) => {
                let detail = format!("{}: {error}", directory.display());
                board.changed(board.power.failed(&detail, None));
            }
        }
        if !stop.wait(EVERY) {
            return;
        }
    }
}

fn in_words(power: Power) -> String {
    let from = if power.mains { "mains" } else { "battery" };
    match power.charge {
        Some(charge) => format!("on {from}, {charge} % charged"),
        None => format!("on {from}"),
    }
}

/// What a battery says that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Out,
    In,
    Unknown,
}

/// What the supplies say together; none where there are none.
fn look(directory: &Path) -> io::Result<Option<Power>> {
    let mut online = Vec::new();
    let mut flows = Vec::new();
    let mut charge = None;
    for supply in devices(directory)? {
        // Batteries of mice and headphones feed only themselves.
        if word(&supply.join("scope")).as_deref() == Some("Device") {
            continue;
        }
        match word(&supply.join("type")).as_deref() {
            Some("Battery" | "UPS") => {
                if number(&supply.join("present")) == Some(0) {
                    continue;
                }
                flows.push(flow(word(&supply.join("status")).as_deref()));
                charge = charge.max(number(&supply.join("capacity")).map(|c| c.clamp(0, 100)));
            }
            // Mains, and every kind of USB.
            Some(_) => online.push(number(&supply.join("online")).is_some_and(|on| on > 0)),
            None => {}
        }
    }
    if online.is_empty() && flows.is_empty() {
        return Ok(None);
    }
    let plugged = online.contains(&true);
    // Some adapters are not listed or wrong; a battery that fills, or is kept full, has a source.
    let fed = !flows.contains(&Flow::Out) && flows.contains(&Flow::In);
    let batteries_rest = online.is_empty() && !flows.contains(&Flow::Out);
    let no_battery = flows.is_empty();
    Ok(Some(Power {
        mains: plugged || fed || batteries_rest || no_battery,
        charge: charge.and_then(|charge| u8::try_from(charge).ok()),
    }))
}

fn flow(status: Option<&str>) -> Flow {
    match status {
        Some("Discharging") => Flow::Out,
        Some("Charging" | "Full" | "Not charging") => Flow::In,
        _ => Flow::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Supplies as real PCs list them: name, then files.
    type Supply = (&'static str, &'static [(&'static str, &'static str)]);

    fn tree(supplies: &[Supply]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, files) in supplies {
            fs::create_dir(root.path().join(name)).unwrap();
            for (file, text) in *files {
                fs::write(root.path().join(name).join(file), format!("{text}\n")).unwrap();
            }
        }
        root
    }

    const AC_ON: Supply = ("AC", &[("type", "Mains"), ("online", "1")]);
    const AC_OFF: Supply = ("AC", &[("type", "Mains"), ("online", "0")]);
    const DRAINING: Supply = (
        "BAT0",
        &[
            ("type", "Battery"),
            ("status", "Discharging"),
            ("capacity", "57"),
            ("present", "1"),
        ],
    );
    const FILLING: Supply = (
        "BAT0",
        &[
            ("type", "Battery"),
            ("status", "Charging"),
            ("capacity", "57"),
        ],
    );
    const SECOND: Supply = (
        "BAT1",
        &[
            ("type", "Battery"),
            ("status", "Not charging"),
            ("capacity", "80"),
        ],
    );
    const MOUSE: Supply = (
        "hidpp_battery_0",
        &[
            ("type", "Battery"),
            ("scope", "Device"),
            ("status", "Discharging"),
            ("capacity", "5"),
        ],
    );
    const USB_C: Supply = ("ucsi-source-psy-1", &[("type", "USB"), ("online", "1")]);
    const EMPTY_BAY: Supply = ("BAT1", &[("type", "Battery"), ("present", "0")]);
    const DUMB: Supply = ("BAT0", &[("type", "Battery"), ("status", "Unknown")]);

    #[test]
    fn supplies_of_real_pcs() {
        let on = |mains, charge| Some(Power { mains, charge });
        let table: &[(&str, &[Supply], Option<Power>)] = &[
            ("a tower", &[], None),
            ("a tower with a wireless mouse", &[MOUSE], None),
            ("a laptop on mains", &[AC_ON, FILLING], on(true, Some(57))),
            (
                "a laptop on battery",
                &[AC_OFF, DRAINING, MOUSE],
                on(false, Some(57)),
            ),
            ("a weak adapter", &[AC_ON, DRAINING], on(true, Some(57))),
            (
                "charged over USB-C",
                &[AC_OFF, USB_C, FILLING],
                on(true, Some(57)),
            ),
            (
                "an adapter that lies",
                &[AC_OFF, FILLING],
                on(true, Some(57)),
            ),
            (
                "two batteries on mains",
                &[AC_ON, FILLING, SECOND],
                on(true, Some(80)),
            ),
            (
                "two batteries, one used",
                &[AC_OFF, DRAINING, SECOND],
                on(false, Some(80)),
            ),
            ("an empty bay", &[AC_ON, EMPTY_BAY], on(true, None)),
            (
                "no adapter listed, draining",
                &[DRAINING],
                on(false, Some(57)),
            ),
            ("no adapter listed, unknown", &[DUMB], on(true, None)),
            ("unplugged, unknown", &[AC_OFF, DUMB], on(false, None)),
        ];
        for (name, supplies, expected) in table {
            assert_eq!(look(tree(supplies).path()).unwrap(), *expected, "{name}");
        }
    }

    #[test]
    fn no_directory_is_no_supply() {
        assert_eq!(look(Path::new("/nowhere/at/all")).unwrap(), None);
    }
}
