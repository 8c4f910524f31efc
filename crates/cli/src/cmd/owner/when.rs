//! Until when: `1h`, `30min`, `until 18:00`, `until tomorrow`.

use gleaner_model::{Span, Time};
use jiff::ToSpan as _;
use jiff::Zoned;

/// How to write it, for messages.
const EXAMPLE: &str = "write how long, as in 1h or 30min, or until when, as in \"until 18:00\" or \
                       \"until tomorrow\", or nothing at all for until you resume";

/// The hour at which tomorrow begins for "until tomorrow": the same as on the page.
const MORNING: (i8, i8) = (8, 0);

/// Longest pause with an end; longer is until one resumes.
const LONGEST: Span = Span::seconds(366 * 24 * 3600);

/// When a pause of these words ends; none where it has no end.
pub(super) fn until(words: &[String]) -> Result<Option<Time>, String> {
    from(&Zoned::now(), words)
}

fn from(now: &Zoned, words: &[String]) -> Result<Option<Time>, String> {
    let joined = words.join(" ");
    let text = joined.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || format!("{text:?} is no time for a pause; {EXAMPLE}");
    if let Some(end) = text.strip_prefix("until ") {
        return moment(now, end.trim()).map(Some).ok_or_else(bad);
    }
    let span: Span = text.parse().map_err(|_| bad())?;
    if span.ms == 0 || span > LONGEST {
        return Err(bad());
    }
    Ok(Some(time(now) + span))
}

/// The next time that a clock shows this.
fn moment(now: &Zoned, text: &str) -> Option<Time> {
    let ((hour, minute), tomorrow) = match text {
        "tomorrow" => (MORNING, true),
        text => {
            let (hour, minute) = text.split_once(':')?;
            ((hour.parse().ok()?, minute.parse().ok()?), false)
        }
    };
    let at = |day: &Zoned| {
        let built = day.with().hour(hour).minute(minute).second(0);
        built.subsec_nanosecond(0).build().ok()
    };
    let next = || at(&now.checked_add(1.day()).ok()?);
    match at(now).filter(|today| today > now && !tomorrow) {
        Some(today) => Some(time(&today)),
        None => next().map(|next| time(&next)),
    }
}

fn time(at: &Zoned) -> Time {
    Time {
        ms: u64::try_from(at.timestamp().as_millisecond()).unwrap_or(0),
    }
}

/// RFC 3339 in UTC.
pub(super) fn text(time: Time) -> String {
    let ms = i64::try_from(time.ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |stamp| stamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    #[test]
    fn pauses_are_written_as_people_say_them() {
        let now = at("2026-03-10T16:20:30[Europe/Berlin]");
        for (words, end) in [
            ("1h", "2026-03-10T17:20:30[Europe/Berlin]"),
            ("30min", "2026-03-10T16:50:30[Europe/Berlin]"),
            ("30 min", "2026-03-10T16:50:30[Europe/Berlin]"),
            ("until 18:00", "2026-03-10T18:00:00[Europe/Berlin]"),
            ("until 9:30", "2026-03-11T09:30:00[Europe/Berlin]"),
            ("until tomorrow", "2026-03-11T08:00:00[Europe/Berlin]"),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(from(&now, &words), Ok(Some(time(&at(end)))), "{words:?}");
        }
        assert_eq!(from(&now, &[]), Ok(None));
    }

    #[test]
    fn what_is_not_understood_is_told_with_an_example() {
        let now = at("2026-03-10T16:20:30[Europe/Berlin]");
        for words in [
            "soon",
            "until",
            "until noon",
            "until 25:00",
            "0min",
            "5000d",
            "-1h",
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let said = from(&now, &words).unwrap_err();
            assert!(said.contains("until 18:00"), "{words:?}: {said}");
        }
    }
}
