//! The wall clock, and what a shim says of itself.

use gleaner_model::Time;
use std::time::SystemTime;

/// The wall clock. It may be set back; spans are measured with `Instant`.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time {
        ms: since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }),
    }
}

/// Standard error is `shim.log`.
pub(crate) fn log(text: &str) {
    let line = format!("{} {text}\n", now().ms);
    let _nowhere_to_tell = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}
