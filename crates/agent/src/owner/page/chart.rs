//! Drawings for the page: the day as an SVG, and bars. Pure; colours come from the style sheet.

use crate::owner::protocol::{Slot, Today};
use std::fmt::Write as _;

/// Units of the day's drawing: a minute is one wide, and all processors are this high.
const HEIGHT: u32 = 200;
const DAY_MINUTES: u32 = 24 * 60;

/// Height of the strip that shows pauses, under the base line.
const STRIP: u32 = 12;

/// Share of a slot, in thousandths, from which on it counts as paused.
const PAUSED: u16 = 500;

/// The day from midnight to midnight: the owner's use, tasks on top of it, pauses below.
pub(super) fn day(today: &Today, time_of: impl Fn(u32) -> String) -> String {
    let mut svg = String::new();
    let height = HEIGHT + STRIP + 4;
    // Writing to a text cannot fail.
    let _ = write!(
        svg,
        "<svg viewBox=\"0 0 {DAY_MINUTES} {height}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"Use of the processors today\">"
    );
    for hour in [6, 12, 18] {
        let x = hour * 60;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{HEIGHT}\"/>"
        );
    }
    let width = (today.slot / 60).max(1);
    let mut now = 0;
    for (at, slot) in (0..).zip(&today.slots) {
        let x = at * width;
        now = x + width;
        if let Some(slot) = slot
            && x < DAY_MINUTES
        {
            bar(&mut svg, (x, width), slot, &time_of(x));
        }
    }
    let now = now.min(DAY_MINUTES);
    let left = DAY_MINUTES - now;
    let _ = write!(
        svg,
        "<rect class=\"later\" x=\"{now}\" y=\"0\" width=\"{left}\" height=\"{HEIGHT}\"/>\
         <line class=\"base\" x1=\"0\" x2=\"{DAY_MINUTES}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\"/>\
         <line class=\"now\" x1=\"{now}\" x2=\"{now}\" y1=\"0\" y2=\"{height}\"/></svg>"
    );
    svg
}

fn bar(svg: &mut String, (x, width): (u32, u32), slot: &Slot, time: &str) {
    let high = |permille: u16| u32::from(permille.min(1000)) * HEIGHT / 1000;
    let (owner, tasks) = (high(slot.owner), high(slot.tasks));
    let tasks = tasks.min(HEIGHT - owner);
    let percent = |permille: u16| (u32::from(permille) + 5) / 10;
    let _ = write!(
        svg,
        "<g><title>{time}: you {} %, tasks {} %</title>\
         <rect class=\"owner\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{owner}\"/>\
         <rect class=\"tasks\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{tasks}\"/>",
        percent(slot.owner),
        percent(slot.tasks),
        HEIGHT - owner,
        HEIGHT - owner - tasks,
    );
    if slot.paused >= PAUSED {
        let y = HEIGHT + 4;
        let _ = write!(
            svg,
            "<rect class=\"held\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{STRIP}\"/>"
        );
    }
    svg.push_str("</g>");
}

/// A bar of parts, each a class and a share from 0 to 1.
pub(super) fn parts(parts: &[(&str, f64)]) -> String {
    let mut svg = "<svg viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
                   <rect class=\"track\" x=\"0\" y=\"0\" width=\"1000\" height=\"10\"/>"
        .to_owned();
    let mut x = 0.0;
    for (class, share) in parts {
        let share = if share.is_finite() { *share } else { 0.0 };
        let width = (share.clamp(0.0, 1.0) * 1000.0).min(1000.0 - x);
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.0}\" y=\"0\" width=\"{width:.0}\" height=\"10\"/>"
        );
        x += width;
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::Time;

    #[test]
    fn the_day_never_draws_outside_its_frame() {
        let slot = |owner, tasks, paused| {
            Some(Slot {
                owner,
                tasks,
                paused,
            })
        };
        let mut slots = vec![
            slot(1000, 1000, 1000),
            None,
            slot(300, 900, 0),
            slot(0, 65_535, 0),
        ];
        slots.resize(200, slot(100, 100, 100));
        let today = Today {
            start: Time { ms: 0 },
            slot: 600,
            slots,
        };
        let svg = day(&today, |minute| {
            format!("{:02}:{:02}", minute / 60, minute % 60)
        });
        for rect in svg.split("<rect ").skip(1) {
            let number = |key: &str| -> u32 {
                let from = rect.find(&format!(" {key}=\"")).unwrap() + key.len() + 3;
                rect[from..].split('"').next().unwrap().parse().unwrap()
            };
            assert!(number("x") + number("width") <= DAY_MINUTES, "{rect}");
            assert!(
                number("y") + number("height") <= HEIGHT + STRIP + 4,
                "{rect}"
            );
        }
        assert!(svg.contains("<title>00:20: you 30 %, tasks 90 %</title>"));
        assert_eq!(svg.matches("class=\"held\"").count(), 1);
    }

    #[test]
    fn a_bar_is_full_at_most() {
        let svg = parts(&[("owner", 0.7), ("tasks", 0.9), ("tasks", f64::NAN)]);
        assert!(
            svg.contains("width=\"700\"") && svg.contains("width=\"300\""),
            "{svg}"
        );
        assert!(svg.contains("width=\"0\""), "{svg}");
    }
}
