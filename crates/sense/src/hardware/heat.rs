//! How hot processor and case are, and whether a processor slowed down to cool (Linux,
//! `Documentation/driver-api/thermal/sysfs-api.rst`, `Documentation/hwmon/sysfs-interface.rst`).

use super::{devices, number, word};
use crate::board::Board;
use crate::moment::Moment;
use crate::thread::Stop;
use gleaner_model::Heat;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often sensors are read; a case warms up in tens of seconds.
const EVERY: Duration = Duration::from_secs(5);

/// What a processor or a case can be: everything else is a sensor that is not connected.
const PLAUSIBLE: std::ops::RangeInclusive<i64> = -40..=150;

/// Temperatures at which a PC may protect itself; firmware lists nonsense as well.
const PROTECTS: std::ops::RangeInclusive<i64> = 60..=130;

/// Drivers of processors' own sensors.
const DRIVERS: &[&str] = &[
    "coretemp",
    "k8temp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "soc_thermal",
];

/// Parts of names of zones that are of the processor or the case; radios, disks and chargers have
/// zones as well, and are often hotter for reasons of their own.
const ZONES: &[&str] = &[
    "cpu",
    "x86_pkg",
    "acpitz",
    "soc",
    "package",
    "core",
    "thermal-fan",
];

/// Most inputs of one driver; each core has one.
const INPUTS_MAX: u32 = 130;

/// Most trip points of one zone.
const TRIPS_MAX: u32 = 16;

/// Reads until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, sys: &Path) {
    let mut throttled = None;
    loop {
        let count = throttles(sys);
        let slowed = throttled.is_some_and(|before| count > before);
        throttled = Some(count);
        match look(sys) {
            Ok(Some((celsius, critical))) => {
                let before = board.heat.value();
                let heat = Heat {
                    celsius,
                    critical,
                    throttled: slowed,
                };
                board.heat.describe(&format!("{celsius} °C"));
                board.heat.seen(heat, Moment::now());
                board.changed(before.is_some_and(|before| before.throttled != slowed));
            }
            Ok(None) => board.changed(board.heat.absent("no temperature of processor or case")),
            Err(error) => {
                let detail = format!("sensors cannot be read: {error}");
                board.changed(board.heat.failed(&detail, None));
            }
        }
        if !stop.wait(EVERY) {
            return;
        }
    }
}

/// A sensor and where it protects the PC, in degrees Celsius.
type Reading = (i16, Option<i16>);

/// The hottest sensor. One that does not say where it protects the PC takes the lowest of the
/// others.
fn look(sys: &Path) -> io::Result<Option<Reading>> {
    let mut found = Vec::new();
    let mut broken = false;
    for zone in devices(&sys.join("class/thermal"))? {
        let kind = word(&zone.join("type")).unwrap_or_default().to_lowercase();
        if ZONES.iter().any(|part| kind.contains(part)) {
            let reading = celsius(&zone.join("temp"));
            broken |= reading.is_none();
            found.extend(reading.map(|value| (value, trip(&zone))));
        }
    }
    for driver in devices(&sys.join("class/hwmon"))? {
        let name = word(&driver.join("name")).unwrap_or_default();
        if DRIVERS.contains(&name.as_str()) {
            let before = found.len();
            found.extend((1..=INPUTS_MAX).filter_map(|input| {
                let value = celsius(&driver.join(format!("temp{input}_input")))?;
                let critical = number(&driver.join(format!("temp{input}_crit")));
                Some((value, critical.and_then(protects)))
            }));
            broken |= found.len() == before;
        }
    }
    let lowest = found.iter().filter_map(|(_, critical)| *critical).min();
    match found.into_iter().max() {
        Some((value, critical)) => Ok(Some((value, critical.or(lowest)))),
        None if broken => Err(io::ErrorKind::InvalidData.into()),
        None => Ok(None),
    }
}

/// A temperature from a file in thousandths of a degree.
fn celsius(path: &Path) -> Option<i16> {
    let degrees = number(path)? / 1000;
    PLAUSIBLE
        .contains(&degrees)
        .then(|| i16::try_from(degrees).ok())
        .flatten()
}

fn protects(millidegrees: i64) -> Option<i16> {
    let degrees = millidegrees / 1000;
    PROTECTS
        .contains(&degrees)
        .then(|| i16::try_from(degrees).ok())
        .flatten()
}

/// Where a zone protects the PC.
fn trip(zone: &Path) -> Option<i16> {
    (0..TRIPS_MAX)
        .filter(|trip| {
            word(&zone.join(format!("trip_point_{trip}_type"))).as_deref() == Some("critical")
        })
        .filter_map(|trip| number(&zone.join(format!("trip_point_{trip}_temp"))))
        .filter_map(protects)
        .min()
}

/// How often processors have slowed down to cool since boot.
fn throttles(sys: &Path) -> i64 {
    let processors = devices(&sys.join("devices/system/cpu")).unwrap_or_default();
    let counts = processors.iter().flat_map(|processor| {
        ["core_throttle_count", "package_throttle_count"]
            .map(|file| number(&processor.join("thermal_throttle").join(file)))
    });
    counts.flatten().fold(0, i64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    type Files = &'static [(&'static str, &'static str)];

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        sys
    }

    #[test]
    fn sensors_of_real_pcs() {
        let table: &[(&str, Files, Option<Reading>)] = &[
            ("a virtual machine", &[], None),
            (
                "a laptop",
                &[
                    ("class/thermal/thermal_zone0/type", "acpitz"),
                    ("class/thermal/thermal_zone0/temp", "25000"),
                    ("class/thermal/thermal_zone0/trip_point_0_type", "critical"),
                    ("class/thermal/thermal_zone0/trip_point_0_temp", "128000"),
                    ("class/thermal/thermal_zone1/type", "iwlwifi_1"),
                    ("class/thermal/thermal_zone1/temp", "71000"),
                    ("class/thermal/thermal_zone2/type", "x86_pkg_temp"),
                    ("class/thermal/thermal_zone2/temp", "63000"),
                    ("class/hwmon/hwmon4/name", "coretemp"),
                    ("class/hwmon/hwmon4/temp1_input", "64000"),
                    ("class/hwmon/hwmon4/temp1_crit", "100000"),
                    ("class/hwmon/hwmon4/temp2_input", "61000"),
                    ("class/hwmon/hwmon5/name", "nvme"),
                    ("class/hwmon/hwmon5/temp1_input", "79850"),
                ],
                Some((64, Some(100))),
            ),
            (
                "a tower whose sensor has no limit",
                &[
                    ("class/hwmon/hwmon0/name", "k10temp"),
                    ("class/hwmon/hwmon0/temp1_input", "48875"),
                    ("class/hwmon/hwmon1/name", "nct6775"),
                    ("class/hwmon/hwmon1/temp1_input", "127500"),
                ],
                Some((48, None)),
            ),
            (
                "a small board",
                &[
                    ("class/thermal/thermal_zone0/type", "cpu-thermal"),
                    ("class/thermal/thermal_zone0/temp", "55017"),
                    ("class/thermal/thermal_zone0/trip_point_0_type", "passive"),
                    ("class/thermal/thermal_zone0/trip_point_0_temp", "75000"),
                    ("class/thermal/thermal_zone0/trip_point_1_type", "critical"),
                    ("class/thermal/thermal_zone0/trip_point_1_temp", "90000"),
                ],
                Some((55, Some(90))),
            ),
            (
                "nonsense beside sense",
                &[
                    ("class/thermal/thermal_zone0/type", "acpitz"),
                    ("class/thermal/thermal_zone0/temp", "-273200"),
                    ("class/thermal/thermal_zone0/trip_point_0_type", "critical"),
                    ("class/thermal/thermal_zone0/trip_point_0_temp", "0"),
                    ("class/thermal/thermal_zone1/type", "acpitz"),
                    ("class/thermal/thermal_zone1/temp", "41000"),
                ],
                Some((41, None)),
            ),
        ];
        for (name, files, expected) in table {
            assert_eq!(look(tree(files).path()).unwrap(), *expected, "{name}");
        }
    }

    #[test]
    fn a_sensor_that_cannot_be_read_is_a_failure() {
        let sys = tree(&[("class/thermal/thermal_zone0/type", "x86_pkg_temp")]);
        look(sys.path()).unwrap_err();
    }

    #[test]
    fn slowing_down_is_counted_over_all_processors() {
        let sys = tree(&[
            (
                "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
                "3",
            ),
            (
                "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count",
                "4",
            ),
            (
                "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count",
                "5",
            ),
            ("devices/system/cpu/online", "0-1"),
        ]);
        assert_eq!(throttles(sys.path()), 12);
    }
}
