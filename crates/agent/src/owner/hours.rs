//! Hours of the week as people write them: `mon-fri 18:00-08:00`, `sat-sun`, `22:00-06:00`.

use gleaner_harvest::Hours;

/// Minutes of a day and of a week.
const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;

/// Most hours in one setting: each day of the week in three pieces.
pub(crate) const HOURS_MAX: usize = 32;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// How to write them, for messages.
const EXAMPLE: &str = "write days, times or both, as in \"mon-fri 18:00-08:00\", \"sat-sun\" or \
                       \"22:00-06:00\"";

/// Reads a text; one interval a day, which may run past midnight.
///
/// # Errors
/// A sentence, where it is not understood.
pub(crate) fn parse(text: &str) -> Result<Vec<Hours>, String> {
    let bad = || format!("{text:?} are no hours; {EXAMPLE}");
    let lower = text.trim().to_ascii_lowercase();
    let mut words = lower.split_whitespace();
    let (first, second) = (words.next().ok_or_else(bad)?, words.next());
    if words.next().is_some() {
        return Err(bad());
    }
    let (days, times) = match second {
        Some(times) => (days(first), span(times)),
        None if first.contains(':') => (days("mon-sun"), span(first)),
        None => (days(first), Some((0, DAY))),
    };
    let (days, (from, to)) = days.zip(times).ok_or_else(bad)?;
    let hours = days.into_iter().map(|day| {
        let start = day * DAY + from;
        // An end before its beginning is on the next day.
        let end = if to > from {
            day * DAY + to
        } else {
            (day + 1) * DAY + to
        };
        Hours {
            from: start,
            to: if end > WEEK { end - WEEK } else { end },
        }
    });
    Ok(hours.collect())
}

fn days(text: &str) -> Option<Vec<u16>> {
    let day = |word: &str| {
        // `monday` is as good as `mon`.
        let short = word.get(..3)?;
        let at = DAYS.iter().position(|name| *name == short)?;
        u16::try_from(at).ok()
    };
    let mut found = Vec::new();
    for part in text.split(',') {
        match part {
            "daily" | "always" => found.extend(0..7),
            "weekdays" => found.extend(0..5),
            "weekend" | "weekends" => found.extend(5..7),
            part => match part.split_once('-') {
                None => found.push(day(part)?),
                Some((first, last)) => {
                    let (first, last) = (day(first)?, day(last)?);
                    // From Saturday to Monday passes Sunday.
                    let count = (last + 7 - first) % 7;
                    found.extend((0..=count).map(|step| (first + step) % 7));
                }
            },
        }
    }
    found.sort_unstable();
    found.dedup();
    (!found.is_empty()).then_some(found)
}

fn span(text: &str) -> Option<(u16, u16)> {
    let minute = |word: &str| {
        let (hour, minute) = word.split_once(':')?;
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    // A beginning at 24:00 is the next day's; an empty span is nobody's wish.
    (from < DAY && from != to).then_some((from, to))
}

/// Every minute of the week that some hours hold; all where there are none.
pub(crate) fn minutes(hours: &[Hours]) -> Vec<bool> {
    let mut week = vec![hours.is_empty(); usize::from(WEEK)];
    for hours in hours {
        for (at, inside) in (0..WEEK).zip(&mut week) {
            *inside |= if hours.from < hours.to {
                (hours.from..hours.to).contains(&at)
            } else {
                at >= hours.from || at < hours.to
            };
        }
    }
    week
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(text: &str) -> usize {
        let hours = parse(text).unwrap();
        minutes(&hours).into_iter().filter(|inside| *inside).count()
    }

    #[test]
    fn hours_are_read_as_people_write_them() {
        for (text, first, count, all) in [
            ("mon-fri 18:00-08:00", (1080, 1920), 5, 5 * 14 * 60),
            ("sat-sun", (7200, 8640), 2, 2 * 1440),
            ("weekend", (7200, 8640), 2, 2 * 1440),
            ("22:00-06:00", (1320, 1800), 7, 7 * 8 * 60),
            ("Wednesday 00:00-24:00", (2880, 4320), 1, 1440),
            ("sat-mon 12:00-13:00", (720, 780), 3, 180),
            ("tue,thu 9:30-17:00", (2010, 2460), 2, 2 * 450),
        ] {
            let hours = parse(text).unwrap();
            assert_eq!((hours[0].from, hours[0].to), first, "{text}");
            assert_eq!((hours.len(), total(text)), (count, all), "{text}");
        }
        // Sunday night passes the end of the week.
        let night = parse("sun 22:00-06:00").unwrap();
        assert_eq!((night[0].from, night[0].to), (6 * DAY + 1320, 360));
        assert_eq!(total("sun 22:00-06:00"), 480);
    }

    #[test]
    fn what_is_not_understood_is_told_with_an_example() {
        for text in [
            "",
            "noon",
            "mon-fri",
            "mo 8:00-9:00",
            "mon 25:00-26:00",
            "mon 8-9",
            "8:00-8:00",
            "mon 8:00-9:00 please",
            "24:00-8:00",
            "éé 8:00-9:00",
        ] {
            match parse(text) {
                Ok(_) => assert_eq!(text, "mon-fri"),
                Err(sentence) => assert!(sentence.contains("mon-fri 18:00-08:00"), "{sentence}"),
            }
        }
    }
}
