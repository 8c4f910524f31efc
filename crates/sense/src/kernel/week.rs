//! The owner's local time, as the minute of the week.

use std::time::{SystemTime, UNIX_EPOCH};

const MINUTES_A_DAY: i32 = 24 * 60;

unsafe extern "C" {
    /// Of the C library (POSIX): takes in the zone anew. The `libc` crate lacks it for Linux.
    safe fn tzset();
}

/// Minutes since Monday 00:00 local time, now.
pub(super) fn minute_now() -> u16 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or_default();
    // SAFETY: all fields are plain numbers or a pointer, for which zero is a value.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // Travellers change the zone while the PC runs; the call looks at the file's time only.
    tzset();
    // SAFETY: both pointers are to live variables of the right types.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    minute(local.tm_wday, local.tm_hour, local.tm_min)
}

/// From the C library's day of the week, in which Sunday is 0.
fn minute(day: i32, hour: i32, minute: i32) -> u16 {
    let days = (day + 6).rem_euclid(7);
    u16::try_from(days * MINUTES_A_DAY + hour * 60 + minute).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_week_begins_on_monday() {
        assert_eq!(minute(1, 0, 0), 0);
        assert_eq!(minute(0, 23, 59), 7 * 24 * 60 - 1);
        assert_eq!(minute(3, 12, 30), 2 * 24 * 60 + 12 * 60 + 30);
        assert!(minute_now() < 7 * 24 * 60);
    }
}
