//! The clock on the wall, as the owner sees it: local days and hours. It may jump, so nothing
//! that runs depends on it; it labels what is shown and kept.

use gleaner_model::{Span, Time};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{ToSpan as _, Zoned};

/// The hour at which "tomorrow" begins: before it nobody wants their PC back.
const MORNING: i8 = 8;

pub(crate) fn now() -> Time {
    time(&Zoned::now())
}

fn time(zoned: &Zoned) -> Time {
    Time {
        ms: u64::try_from(zoned.timestamp().as_millisecond()).unwrap_or(0),
    }
}

fn zoned(time: Time) -> Zoned {
    let ms = i64::try_from(time.ms).unwrap_or(i64::MAX);
    let stamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    stamp.to_zoned(TimeZone::system())
}

/// When today began.
pub(crate) fn midnight() -> Time {
    let now = Zoned::now();
    now.start_of_day()
        .map_or_else(|_| time(&now), |start| time(&start))
}

/// Tomorrow morning.
pub(crate) fn tomorrow_at_eight() -> Time {
    let now = Zoned::now();
    let morning = now.checked_add(1.day()).and_then(|next| {
        next.with()
            .hour(MORNING)
            .minute(0)
            .second(0)
            .subsec_nanosecond(0)
            .build()
    });
    morning.map_or_else(|_| time(&now) + Span::seconds(12 * 3600), |at| time(&at))
}

/// A number that is the same for all times of one local day, and larger for later ones.
pub(crate) fn day(time: Time) -> i64 {
    let date = zoned(time).date();
    i64::from(date.year()) * 512 + i64::from(date.day_of_year())
}

/// Hours since Monday 00:00 local time.
pub(crate) fn hour_of_week(time: Time) -> usize {
    let zoned = zoned(time);
    let days = zoned.weekday().since(Weekday::Monday);
    let hour = i64::from(days) * 24 + i64::from(zoned.hour());
    usize::try_from(hour).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tomorrow_is_after_today() {
        let (now, midnight, tomorrow) = (now(), midnight(), tomorrow_at_eight());
        assert!(midnight <= now && now < tomorrow);
        assert!(tomorrow.since(now) <= Span::seconds(34 * 3600));
        assert!(day(midnight) == day(now) && day(now) < day(tomorrow));
        assert!(hour_of_week(now) < 168);
        assert_eq!(hour_of_week(midnight) % 24, 0);
    }
}
