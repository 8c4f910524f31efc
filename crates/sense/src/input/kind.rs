//! Which event devices people use. Buttons of the case, screens' hot keys, loudspeakers and
//! motion sensors have event devices too: the first make a PC without a keyboard look as if it
//! had one, the last one never rests.

use std::fs;
use std::path::Path;

/// Keys of devices that nobody types on: power, sleep, wake-up, suspend, and what screens and
/// their buses report (Linux, `include/uapi/linux/input-event-codes.h`).
const OF_THE_CASE: &[u32] = &[116, 142, 143, 205, 224, 225, 227, 241, 242, 243, 244, 245];

/// Bit of a device's properties that says it senses motion of the PC itself.
const ACCELEROMETER: u32 = 6;

/// Whether people use the device, by what the kernel lists of its abilities; readable for
/// everybody. A device that nobody can tell about counts.
pub(super) fn of_people(sys: &Path, name: &str) -> bool {
    let device = sys.join("class/input").join(name).join("device");
    let bits = |file: &str| {
        fs::read_to_string(device.join(file))
            .ok()
            .map(|text| bits(&text))
    };
    let Some(keys) = bits("capabilities/key") else {
        return true;
    };
    let some = |file: &str| bits(file).is_some_and(|bits| !bits.is_empty());
    let moved = bits("properties").is_some_and(|bits| bits.contains(&ACCELEROMETER));
    let typed = keys.iter().any(|key| !OF_THE_CASE.contains(key));
    !moved && (typed || some("capabilities/rel") || some("capabilities/abs"))
}

/// Numbers of the bits set in a mask as the kernel prints it: words in hexadecimal, highest first.
fn bits(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for (base, word) in (0..).step_by(64).zip(text.split_whitespace().rev()) {
        let word = u64::from_str_radix(word, 16).unwrap_or_default();
        found.extend(
            (0..64)
                .filter(|bit| word >> bit & 1 == 1)
                .map(|bit| base + bit),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_from_the_right() {
        assert_eq!(bits("10000000000000 0"), [116]);
        assert_eq!(bits("0"), [] as [u32; 0]);
        assert_eq!(bits("nothing"), [] as [u32; 0]);
        assert_eq!(bits("1 3"), [0, 1, 64]);
    }

    /// As laptops list their devices: key, rel, abs, properties.
    #[test]
    fn devices_of_real_laptops() {
        let table = [
            ("power button", "10000000000000 0", "0", "0", "0", false),
            ("sleep button", "4000 0 0", "0", "0", "0", false),
            ("lid switch", "0", "0", "0", "0", false),
            ("video bus", "3e000b00000000 0 0 0", "0", "0", "0", false),
            ("loudspeaker", "0", "0", "0", "0", false),
            ("headphone jack", "0", "0", "0", "0", false),
            ("freefall sensor", "0", "0", "7", "40", false),
            (
                "keyboard",
                "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe",
                "0",
                "0",
                "0",
                true,
            ),
            ("mouse", "ff0000 0 0 0 0", "1943", "0", "0", true),
            (
                "touchpad",
                "e520 10000 0 0 0 0",
                "0",
                "2e0800000000003",
                "5",
                true,
            ),
            (
                "touch screen",
                "400 0 0 0 0 0",
                "0",
                "3273800000000003",
                "2",
                true,
            ),
            (
                "gamepad",
                "7cdb000000000000 0 0 0 0",
                "0",
                "3003f",
                "0",
                true,
            ),
            (
                "hot keys",
                "18000000000 0 0 70000 2000000000000000 0",
                "0",
                "0",
                "0",
                true,
            ),
        ];
        for (name, key, rel, abs, properties, expected) in table {
            let sys = tempfile::tempdir().unwrap();
            let device = sys.path().join("class/input/event3/device");
            fs::create_dir_all(device.join("capabilities")).unwrap();
            fs::write(device.join("capabilities/key"), key).unwrap();
            fs::write(device.join("capabilities/rel"), rel).unwrap();
            fs::write(device.join("capabilities/abs"), abs).unwrap();
            fs::write(device.join("properties"), properties).unwrap();
            assert_eq!(of_people(sys.path(), "event3"), expected, "{name}");
        }
    }

    #[test]
    fn an_unknown_device_counts() {
        let sys = tempfile::tempdir().unwrap();
        assert!(of_people(sys.path(), "event3"));
    }
}
