//! The page as text. Whatever others wrote (names of jobs and users, reasons) goes through
//! [`escape`]; numbers and our own words do not need to.

use super::chart;
use crate::owner::protocol::{Entry, Mode, Overview, Pause, RunningView, Today, Work};
use gleaner_model::{Bytes, Span, Time};
use jiff::tz::TimeZone;
use std::fmt::Write as _;

/// Most rows of the tables of work and of pauses.
const WORK_ROWS: usize = 15;
const PAUSE_ROWS: usize = 8;

/// Pauses offered beside "until I resume": what is sent, and what the button says.
pub(super) const PAUSES: [(&str, &str); 5] = [
    ("900", "15 minutes"),
    ("3600", "1 hour"),
    ("14400", "4 hours"),
    ("tomorrow", "Until tomorrow, 8:00"),
    ("", "Until I resume"),
];

/// Everything that the page shows.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) overview: Overview,
    pub(crate) today: Today,
    pub(crate) history: Vec<Entry>,
}

/// A text in which nothing is markup.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// The whole page.
pub(super) fn page(shown: &Shown, csrf: &str, zone: &TimeZone) -> String {
    let name = escape(&shown.overview.name);
    let mut buttons = String::new();
    for (value, words) in PAUSES {
        // Writing to a text cannot fail.
        let _ = write!(
            buttons,
            "<button name=\"for\" value=\"{value}\">{words}</button>"
        );
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{headline} · {name} · gleaner</title>\
         <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/page.css\">\
         <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\
         <script src=\"/page.js\" defer></script></head><body>\
         <header><strong><span class=\"leaf\" aria-hidden=\"true\">◆</span> gleaner</strong>\
         <span>{name}</span></header>{now}\
         <section class=\"actions\" aria-label=\"Pause or resume\">\
         <form method=\"post\" action=\"/pause\"><span>Pause for</span>\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">{buttons}</form>\
         <form method=\"post\" action=\"/resume\">\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\
         <button class=\"resume\">Resume now</button></form></section>{rest}\
         <footer>This page is on this PC only. Nothing about what you type, run or see is kept or \
         sent; the pool is told whether this PC works and why not. The same in a terminal: \
         <code>gleaner owner status</code>, <code>pause</code>, <code>limits</code>, \
         <code>why</code>, <code>top</code>.</footer></body></html>",
        headline = headline(&shown.overview),
        now = now(&shown.overview, zone),
        rest = rest(shown, zone),
    )
}

/// What changes by itself, for the script that keeps the page fresh.
pub(super) fn live(shown: &Shown, zone: &TimeZone) -> String {
    format!("{}{}", now(&shown.overview, zone), rest(shown, zone))
}

fn headline(overview: &Overview) -> &'static str {
    match overview.mode {
        Mode::Idle => "Ready, nothing to do",
        Mode::Working => "Working",
        Mode::Slowed => "Working, slowed for you",
        Mode::Paused if overview.owner_paused => "Paused by you",
        Mode::Paused => "Paused",
        Mode::Refused => "Not working on this PC",
    }
}

fn now(overview: &Overview, zone: &TimeZone) -> String {
    let lasts = overview.at.since(overview.since);
    let mut small = format!("For {}.", rough(lasts));
    if let Some(until) = overview.until.filter(|_| overview.owner_paused) {
        let _ = write!(
            small,
            " Work goes on at {}.",
            clock(until, overview.at, zone)
        );
    }
    if !overview.connected {
        let _ = write!(
            small,
            " The pool at {} cannot be reached; it is tried again and again.",
            escape(&overview.server)
        );
    }
    let paused = if overview.owner_paused {
        " data-owner-paused=\"yes\""
    } else {
        ""
    };
    let mut reason = escape(&overview.reason);
    if !reason.ends_with(['.', '!', '?']) {
        reason.push('.');
    }
    format!(
        "<div id=\"now\" class=\"state {mode}\"{paused}><span class=\"dot\" aria-hidden=\"true\">\
         </span><div><h1>{headline}</h1><p>{reason}</p><p class=\"small\">{small}</p></div></div>",
        mode = overview.mode.as_str(),
        headline = headline(overview),
    )
}

fn rest(shown: &Shown, zone: &TimeZone) -> String {
    let mut text = "<div id=\"rest\">".to_owned();
    text.push_str(&cards(&shown.overview));
    text.push_str(&today(shown, zone));
    running(&mut text, &shown.overview);
    work(&mut text, shown, zone);
    pauses(&mut text, shown, zone);
    text.push_str("</div>");
    text
}

fn card(title: &str, figure: &str, bar: &str, words: &str) -> String {
    format!(
        "<div class=\"card\"><h3>{title}</h3><div class=\"figure\">{figure}</div>{bar}\
         <p>{words}</p></div>"
    )
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a bar of a thousand steps; 2^53 bytes is 9 PB"
    )]
    let share = if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    };
    share
}

fn cards(overview: &Overview) -> String {
    let (cpu, memory, disk) = (&overview.cpu, &overview.memory, &overview.disk);
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let may_use = match cpu.allowed {
        none if none <= 0.0 => "Tasks may use none of them now.".to_owned(),
        some => format!(
            "Tasks may use {} of {} now, and only what you leave.",
            number(some),
            number(cpu.offered)
        ),
    };
    let processors = card(
        "Processors",
        &format!(
            "{} <small>tasks · {} you</small>",
            percent(cpu.tasks),
            percent(cpu.owner)
        ),
        &chart::parts(&[("owner", cpu.owner), ("tasks", cpu.tasks)]),
        &may_use,
    );
    let free = match (memory.available, memory.total) {
        (Some(free), Some(total)) => {
            format!(
                "Your programs have {} of {} to take.",
                Bytes(free),
                Bytes(total)
            )
        }
        _ => "Tasks never swap.".to_owned(),
    };
    let memory = card(
        "Memory for tasks",
        &format!(
            "{} <small>of {}</small>",
            Bytes(memory.used),
            Bytes(memory.allowed)
        ),
        &chart::parts(&[("tasks", ratio(memory.used, memory.allowed))]),
        &free,
    );
    let left = disk
        .free
        .map_or_else(String::new, |free| format!("{} are free. ", Bytes(free)));
    let speed = match disk.speed {
        full if full >= 0.999 => "Tasks read and write when you do not.".to_owned(),
        slowed => format!("Slowed to {} of full speed.", percent(slowed)),
    };
    let disk = card(
        "Disk for tasks",
        &format!(
            "{} <small>of {}</small>",
            Bytes(disk.used),
            Bytes(disk.allowed)
        ),
        &chart::parts(&[("tasks", ratio(disk.used, disk.allowed))]),
        &format!("{left}{speed}"),
    );
    let travel = match (overview.network.allowed, overview.network.metered) {
        (false, Some(true)) => "Nothing travels: this connection costs by the byte.",
        (false, _) => "Nothing travels now.",
        (true, _) => "Inputs and results of tasks; tasks themselves have no network.",
    };
    let network = card(
        "Network",
        &format!("{} <small>today</small>", Bytes(overview.network.today)),
        "",
        travel,
    );
    format!("<div class=\"cards\">{processors}{memory}{disk}{network}</div>")
}

fn today(shown: &Shown, zone: &TimeZone) -> String {
    let start = shown.today.start;
    let time_of = |minute: u32| {
        let time = start + Span::seconds(u64::from(minute) * 60);
        local(time, zone).strftime("%H:%M").to_string()
    };
    let totals = &shown.overview.today;
    format!(
        "<h2>Today <span class=\"key\"><span><i></i>you</span><span><i class=\"tasks\"></i>tasks\
         </span><span><i class=\"held\"></i>paused</span></span></h2><div class=\"chart\">{}\
         <div class=\"hours\"><span>0:00</span><span>6:00</span><span>12:00</span>\
         <span>18:00</span><span>24:00</span></div></div><p class=\"small\">{}, {} of CPU time \
         that you left.</p>",
        chart::day(&shown.today, time_of),
        counted(totals.tasks, "task"),
        seconds(totals.cpu_seconds),
    )
}

fn running(text: &mut String, overview: &Overview) {
    text.push_str("<h2>Running now</h2>");
    if overview.running.is_empty() {
        text.push_str("<p class=\"none\">Nothing of the pool runs here now.</p>");
        return;
    }
    text.push_str(
        "<table><thead><tr><th>What</th><th>State</th><th class=\"n\">Since</th>\
         <th class=\"n\">CPUs</th><th class=\"n\">CPU time</th><th class=\"n\">Memory</th>\
         <th class=\"n\">Disk</th></tr></thead><tbody>",
    );
    for one in &overview.running {
        running_row(text, one, overview.at);
    }
    text.push_str("</tbody></table>");
}

fn running_row(text: &mut String, one: &RunningView, now: Time) {
    let _ = write!(
        text,
        "<tr><td><b>{}</b><span class=\"small\">{} task {}</span></td><td>{}</td>\
         <td class=\"n\" data-is=\"for\">{}</td><td class=\"n\" data-is=\"CPUs\">{} of {}</td>\
         <td class=\"n\" data-is=\"CPU\">{}</td><td class=\"n\" data-is=\"memory\">{} of {}</td>\
         <td class=\"n\" data-is=\"disk\">{}</td></tr>",
        escape(&one.name),
        whom(&one.user),
        one.id.task,
        one.state,
        rough(now.since(one.since)),
        number(one.cpus),
        number(one.cpus_allowed),
        seconds(one.cpu_seconds),
        Bytes(one.memory),
        Bytes(one.memory_allowed),
        Bytes(one.disk),
    );
}

fn work(text: &mut String, shown: &Shown, zone: &TimeZone) {
    let works: Vec<&Work> = shown
        .history
        .iter()
        .filter_map(|entry| match entry {
            Entry::Work(work) => Some(work),
            Entry::Pause(_) => None,
        })
        .take(WORK_ROWS)
        .collect();
    text.push_str("<h2>This week <span class=\"key\">what ran here, and for whom</span></h2>");
    if works.is_empty() {
        text.push_str("<p class=\"none\">Nothing yet.</p>");
        return;
    }
    text.push_str(
        "<table><thead><tr><th>What</th><th class=\"n\">When</th><th class=\"n\">Tasks</th>\
         <th class=\"n\">CPU time</th><th class=\"n\">Memory</th><th class=\"n\">Disk</th>\
         <th class=\"n\">Network</th></tr></thead><tbody>",
    );
    for work in works {
        let _ = write!(
            text,
            "<tr><td><b>{}</b><span class=\"small\">{} job {}</span></td>\
             <td class=\"n\">{}</td><td class=\"n\" data-is=\"tasks\">{}</td>\
             <td class=\"n\" data-is=\"CPU\">{}</td><td class=\"n\" data-is=\"memory\">{}</td>\
             <td class=\"n\" data-is=\"disk\">{}</td><td class=\"n\" data-is=\"network\">{}</td>\
             </tr>",
            escape(&work.name),
            whom(&work.user),
            work.job,
            span(work.from, Some(work.to), shown.overview.at, zone),
            work.tasks,
            seconds(work.cpu_seconds),
            Bytes(work.memory),
            Bytes(work.disk),
            Bytes(work.network),
        );
    }
    text.push_str("</tbody></table>");
}

fn pauses(text: &mut String, shown: &Shown, zone: &TimeZone) {
    let pauses: Vec<&Pause> = shown
        .history
        .iter()
        .filter_map(|entry| match entry {
            Entry::Pause(pause) => Some(pause),
            Entry::Work(_) => None,
        })
        .take(PAUSE_ROWS)
        .collect();
    if pauses.is_empty() {
        return;
    }
    text.push_str(
        "<h2>Latest pauses</h2><table><thead><tr><th>Why</th><th class=\"n\">When</th>\
         <th class=\"n\">How long</th></tr></thead><tbody>",
    );
    for pause in pauses {
        let end = pause.to.unwrap_or(shown.overview.at);
        let _ = write!(
            text,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\" data-is=\"for\">{}</td></tr>",
            escape(&pause.reason),
            span(pause.from, pause.to, shown.overview.at, zone),
            rough(end.since(pause.from)),
        );
    }
    text.push_str("</tbody></table>");
}

fn whom(user: &str) -> String {
    match user.is_empty() {
        true => String::new(),
        false => format!("for {},", escape(user)),
    }
}

fn counted(count: u64, what: &str) -> String {
    match count {
        0 => format!("No {what}s"),
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    }
}

fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0")
        .map_or_else(|| text.clone(), str::to_owned)
}

/// A length of time as people say it.
fn rough(span: Span) -> String {
    match span.ms / 1000 {
        0 => "a moment".to_owned(),
        s @ 1..60 => format!("{s} s"),
        s @ 60..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a u64 holds"
)]
fn seconds(value: f64) -> String {
    let ms = (value * 1000.0).clamp(0.0, 1e15);
    if ms < 0.5 {
        return "0 s".to_owned();
    }
    Span { ms: ms as u64 }.to_string()
}

fn local(time: Time, zone: &TimeZone) -> jiff::Zoned {
    let ms = i64::try_from(time.ms).unwrap_or(i64::MAX);
    let stamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    stamp.to_zoned(zone.clone())
}

/// A time of day, with its day where that is not today.
fn clock(time: Time, now: Time, zone: &TimeZone) -> String {
    let (time, now) = (local(time, zone), local(now, zone));
    let form = if time.date() == now.date() {
        "%H:%M"
    } else {
        "%a %H:%M"
    };
    time.strftime(form).to_string()
}

fn span(from: Time, to: Option<Time>, now: Time, zone: &TimeZone) -> String {
    let start = clock(from, now, zone);
    let Some(to) = to else {
        return format!("since {start}");
    };
    let end = local(to, zone).strftime("%H:%M").to_string();
    if start.ends_with(&end) {
        start
    } else {
        format!("{start}–{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_becomes_markup() {
        let evil = "<script>alert(\"1\")</script>'&\n";
        assert_eq!(
            escape(evil),
            "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp; "
        );
    }

    #[test]
    fn times_are_local_and_short() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let at = |hour: u64, minute: u64| Time {
            ms: (20_000 * 24 + hour) * 3_600_000 + minute * 60_000,
        };
        assert_eq!(
            span(at(8, 0), Some(at(9, 30)), at(12, 0), &zone),
            "10:00–11:30"
        );
        assert_eq!(span(at(8, 0), Some(at(8, 0)), at(12, 0), &zone), "10:00");
        assert_eq!(span(at(8, 0), None, at(12, 0), &zone), "since 10:00");
        assert_eq!(clock(at(30, 0), at(12, 0), &zone), "Sat 08:00");
        assert_eq!(rough(Span::seconds(3700)), "61 min");
    }
}
