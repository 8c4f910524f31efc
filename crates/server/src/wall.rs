//! The wall clock.

use gleaner_model::Time;

/// Now; before 1970 it is 1970.
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    Time {
        ms: u64::try_from(ms).unwrap_or(u64::MAX),
    }
}
