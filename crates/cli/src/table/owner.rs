//! What an owner sees in a terminal: the state of this PC, why, its limits and its history.

use super::{Look, Tone, seconds, table, text, toned};
use comfy_table::{Cell, CellAlignment};
use gleaner_agent::owner::{
    Entry, LimitsView, Mode, NodeSettings, Overview, SignalView, Why, Work,
};
use gleaner_model::{Bytes, Cpus, Span, Time};
use jiff::tz::TimeZone;

/// How limits are called that may be more than there is.
const CPUS: &str = "cpus while you are active";
const CPUS_MAX: &str = "cpus at any time";
const MEMORY: &str = "memory";
const DISK: &str = "disk";

/// How these tables look: as others do, and in local time.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) look: Look,
    pub(crate) zone: TimeZone,
}

impl Shape {
    pub(crate) fn of_stdout() -> Self {
        Self {
            look: Look::of_stdout(),
            zone: TimeZone::system(),
        }
    }

    fn at(&self, time: Time) -> jiff::Zoned {
        let ms = i64::try_from(time.ms).unwrap_or(i64::MAX);
        let stamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
        stamp.to_zoned(self.zone.clone())
    }

    fn now(&self) -> Time {
        Time {
            ms: u64::try_from(self.look.now.as_millisecond()).unwrap_or(0),
        }
    }

    /// A time of day, with its day where that is not today.
    pub(crate) fn clock(&self, time: Time) -> String {
        let (time, now) = (self.at(time), self.look.now.to_zoned(self.zone.clone()));
        let form = match now.date().duration_since(time.date()).as_hours().abs() {
            0 => "%H:%M",
            1..=144 => "%a %H:%M",
            _ => "%Y-%m-%d %H:%M",
        };
        time.strftime(form).to_string()
    }

    fn stretch(&self, from: Time, to: Option<Time>) -> String {
        let start = self.clock(from);
        match to {
            None => format!("since {start}"),
            Some(to) => {
                let end = self.at(to).strftime("%H:%M").to_string();
                match start.ends_with(&end) {
                    true => start,
                    false => format!("{start}–{end}"),
                }
            }
        }
    }
}

/// The tone of what a PC does.
pub(crate) const fn tone(mode: Mode) -> Tone {
    match mode {
        Mode::Idle => Tone::Plain,
        Mode::Working => Tone::Good,
        Mode::Slowed => Tone::Busy,
        Mode::Paused => Tone::Held,
        Mode::Refused => Tone::Bad,
    }
}

/// What a PC does, in the owner's words.
pub(crate) const fn headline(overview: &Overview) -> &'static str {
    match overview.mode {
        Mode::Idle => "ready, nothing to do",
        Mode::Working => "working",
        Mode::Slowed => "working, slowed for you",
        Mode::Paused if overview.owner_paused => "paused by you",
        Mode::Paused => "paused",
        Mode::Refused => "not working on this PC",
    }
}

/// Processors as people count them.
pub(crate) fn processors(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0")
        .map_or_else(|| text.clone(), str::to_owned)
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// How long it lasts already and, where the owner paused it, when it ends.
pub(crate) fn lasting(overview: &Overview, shape: &Shape) -> String {
    let lasts = format!("for {}", overview.at.since(overview.since));
    match overview.until.filter(|_| overview.owner_paused) {
        Some(until) => format!("{lasts}, until {}", shape.clock(until)),
        None if overview.owner_paused => format!("{lasts}, until `gleaner owner resume`"),
        None => lasts,
    }
}

/// The agents of a PC, a line each.
pub(crate) fn several(agents: &[Overview], look: Look) -> String {
    let mut rows = table(look, &["NODE", "NOW", "RUNNING", "WHY", "DIRECTORY"]);
    for one in agents {
        rows.add_row(vec![
            Cell::new(&one.name),
            toned(headline(one), tone(one.mode)),
            Cell::new(one.running.len()),
            Cell::new(&one.reason),
            Cell::new(&one.data),
        ]);
    }
    text(rows)
}

/// One agent, a fact a line, and what runs.
pub(crate) fn status(overview: &Overview, shape: &Shape) -> String {
    let mut rows = table(shape.look, &["NODE", &overview.name]);
    let mut fact = |name: &str, value: Cell| {
        rows.add_row(vec![Cell::new(name), value]);
    };
    fact("now", toned(headline(overview), tone(overview.mode)));
    fact("why", Cell::new(&overview.reason));
    fact("", Cell::new(lasting(overview, shape)));
    let (cpu, memory, disk) = (&overview.cpu, &overview.memory, &overview.disk);
    let (tasks, you) = (percent(cpu.tasks), percent(cpu.owner));
    let (may, of) = (processors(cpu.allowed), processors(cpu.offered));
    fact(
        "CPU",
        Cell::new(format!(
            "tasks {tasks}, you {you}; tasks may use {may} of {of}"
        )),
    );
    let (used, allowed) = (Bytes(memory.used), Bytes(memory.allowed));
    let left = match (memory.available, memory.total) {
        (Some(left), Some(all)) => format!("; {} of {} left to you", Bytes(left), Bytes(all)),
        _ => String::new(),
    };
    fact(
        "memory",
        Cell::new(format!("{used} of {allowed} allowed{left}")),
    );
    let free = disk
        .free
        .map_or_else(String::new, |free| format!("; {} free", Bytes(free)));
    let (used, allowed) = (Bytes(disk.used), Bytes(disk.allowed));
    fact(
        "disk",
        Cell::new(format!("{used} of {allowed} allowed{free}")),
    );
    let travel = match (overview.network.allowed, overview.network.metered) {
        (true, _) => "",
        (false, Some(true)) => "; nothing travels, the connection costs by the byte",
        (false, _) => "; nothing travels now",
    };
    let today = Bytes(overview.network.today);
    fact("network", Cell::new(format!("{today} today{travel}")));
    let totals = &overview.today;
    fact(
        "today",
        Cell::new(format!(
            "{} tasks, {} of CPU time",
            totals.tasks,
            seconds(totals.cpu_seconds)
        )),
    );
    let reach = if overview.connected {
        "connected"
    } else {
        "cannot be reached"
    };
    fact("pool", Cell::new(format!("{}, {reach}", overview.server)));
    let mut all = text(rows);
    if !overview.running.is_empty() {
        all.push('\n');
        all.push_str(&running(overview, shape.look));
    }
    all
}

fn running(overview: &Overview, look: Look) -> String {
    let mut rows = table(
        look,
        &[
            "TASK", "WHAT", "FOR", "STATE", "SINCE", "CPUS", "CPU TIME", "MEMORY", "DISK",
        ],
    );
    for one in &overview.running {
        rows.add_row(vec![
            Cell::new(one.id.task),
            Cell::new(&one.name),
            Cell::new(&one.user),
            super::state(one.state),
            Cell::new(overview.at.since(one.since)),
            Cell::new(format!(
                "{} of {}",
                processors(one.cpus),
                processors(one.cpus_allowed)
            )),
            Cell::new(seconds(one.cpu_seconds)),
            Cell::new(format!(
                "{} of {}",
                Bytes(one.memory),
                Bytes(one.memory_allowed)
            )),
            Cell::new(Bytes(one.disk)),
        ]);
    }
    text(rows)
}

/// The rule that decides, and each sense with its age.
pub(crate) fn why(why: &Why, shape: &Shape) -> String {
    let mut rows = table(shape.look, &["NODE", &why.name]);
    rows.add_row(vec![
        Cell::new("now"),
        toned(
            format!("{} ({})", why.mode.as_str(), why.rule),
            tone(why.mode),
        ),
    ]);
    rows.add_row(vec![Cell::new("why"), Cell::new(&why.reason)]);
    rows.add_row(vec![Cell::new("since"), Cell::new(shape.clock(why.since))]);
    let policy = format!("{}", why.settings.policy);
    rows.add_row(vec![Cell::new("policy"), Cell::new(policy)]);
    let mut all = text(rows);
    let mut senses = table(shape.look, &["SENSE", "SAYS", "AGE"]);
    for signal in &why.signals {
        senses.add_row(sense(signal));
    }
    all.push('\n');
    all.push_str(&text(senses));
    all
}

fn sense(signal: &SignalView) -> Vec<Cell> {
    let tone = if signal.state == "failed" {
        Tone::Bad
    } else {
        Tone::Plain
    };
    vec![
        Cell::new(&signal.name),
        toned(&signal.says, tone),
        Cell::new(signal.age.map(seconds).unwrap_or_default()),
    ]
}

/// What ran for whom, and when work paused, newest first.
pub(crate) fn history(entries: &[Entry], shape: &Shape) -> String {
    if entries.is_empty() {
        return "nothing ran here and nothing was paused in these days\n".to_owned();
    }
    let header = [
        "WHEN", "WHAT", "FOR", "TASKS", "CPU TIME", "MEMORY", "DISK", "NETWORK",
    ];
    let mut rows = table(shape.look, &header);
    for entry in entries {
        match entry {
            Entry::Work(work) => rows.add_row(work_row(work, shape)),
            Entry::Pause(pause) => {
                let end = pause.to.unwrap_or_else(|| shape.now());
                let words = format!("{}: {}", pause.mode.as_str(), pause.reason);
                rows.add_row(vec![
                    Cell::new(shape.stretch(pause.from, pause.to)),
                    toned(words, tone(pause.mode)),
                    Cell::new(""),
                    Cell::new(""),
                    Cell::new(format!("({})", end.since(pause.from))),
                ])
            }
        };
    }
    text(rows)
}

fn work_row(work: &Work, shape: &Shape) -> Vec<Cell> {
    vec![
        Cell::new(shape.stretch(work.from, Some(work.to))),
        Cell::new(format!("{} (job {})", work.name, work.job)),
        Cell::new(&work.user),
        Cell::new(work.tasks).set_alignment(CellAlignment::Right),
        Cell::new(seconds(work.cpu_seconds)),
        Cell::new(Bytes(work.memory)),
        Cell::new(Bytes(work.disk)),
        Cell::new(Bytes(work.network)),
    ]
}

/// Limits of the owner beside the admin's.
pub(crate) fn limits(limits: &LimitsView, shape: &Shape) -> String {
    let mut rows = table(shape.look, &["LIMIT", "YOURS", "THE ADMIN'S"]);
    let (yours, theirs) = (words(&limits.owner), words(&limits.admin));
    for ((name, yours), (_, theirs)) in yours.into_iter().zip(theirs) {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        rows.add_row(vec![name.to_owned(), shown(yours), shown(theirs)]);
    }
    let offered = &limits.offered;
    let mut shown = format!(
        "{}\n{} offers the pool up to {} CPUs, {} of memory and {} of disk, by the policy {}\n",
        text(rows),
        limits.name,
        processors(offered.cpus),
        Bytes(offered.memory),
        Bytes(offered.disk),
        limits.policy,
    );
    shown.extend(without_effect(limits).into_iter().map(|(name, yours)| {
        format!("your limit of {name}, {yours}, changes nothing: this node never offers as much\n")
    }));
    shown
}

/// Limits of the owner above what there is, which is what somebody gets who took one unit, or one
/// limit, for another.
fn without_effect(limits: &LimitsView) -> Vec<(&'static str, String)> {
    let (owner, offered) = (&limits.owner, &limits.offered);
    let cpus =
        |cpus: Option<Cpus>| cpus.is_some_and(|c| f64::from(c.milli) / 1000.0 > offered.cpus);
    let above = [
        cpus(owner.cpus),
        cpus(owner.cpus_max),
        owner.memory.is_some_and(|most| most.0 > offered.memory),
        owner.disk.is_some_and(|most| most.0 > offered.disk),
    ];
    let names = [CPUS, CPUS_MAX, MEMORY, DISK];
    let named = |name: &str| {
        let mut all = words(owner).into_iter();
        let found = all.find(|(known, _)| *known == name);
        (found.and_then(|(_, value)| value)).unwrap_or_default()
    };
    let above = names.into_iter().zip(above).filter(|(_, above)| *above);
    above.map(|(name, _)| (name, named(name))).collect()
}

fn words(settings: &NodeSettings) -> Vec<(&'static str, Option<String>)> {
    let hours = (!settings.hours.is_empty()).then(|| settings.hours.join(", "));
    let battery = settings
        .battery
        .map(|yes| if yes { "yes" } else { "no" }.to_owned());
    vec![
        ("policy", settings.policy.map(|policy| policy.to_string())),
        ("hours", hours),
        ("battery", battery),
        (CPUS, settings.cpus.map(|cpus| cpus.to_string())),
        (CPUS_MAX, settings.cpus_max.map(|cpus| cpus.to_string())),
        (MEMORY, settings.memory.map(|memory| memory.to_string())),
        (DISK, settings.disk.map(|disk| disk.to_string())),
        (
            "celsius",
            settings.celsius.map(|celsius| format!("{celsius} °C")),
        ),
        ("frozen", settings.frozen.map(|frozen| frozen.to_string())),
    ]
}

/// Whether this PC counts its idle gaps.
pub(crate) fn record(on: bool, gaps: u64, since: Option<Time>, shape: &Shape) -> String {
    let nothing = since.is_none();
    let since = since.map_or_else(String::new, |since| {
        format!(" since {}", shape.clock(since))
    });
    match (on, gaps) {
        (true, _) => format!(
            "the recorder is on: {gaps} idle gaps counted{since}, on this PC only; `gleaner owner \
             record export` prints them\n"
        ),
        (false, _) if nothing => {
            "the recorder is off and has counted nothing; `gleaner owner record on` \
                       begins\n"
                .to_owned()
        }
        (false, _) => format!("the recorder is off; {gaps} idle gaps were counted{since}\n"),
    }
}

/// A length of time without its smaller half.
pub(crate) fn rough(span: Span) -> String {
    match span.ms / 1000 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_agent::owner::Offered;
    use gleaner_model::Policy;

    #[test]
    fn a_limit_above_what_there_is_is_told_to_change_nothing() {
        let shape = Shape {
            look: Look {
                colour: false,
                width: None,
                now: jiff::Timestamp::UNIX_EPOCH,
            },
            zone: TimeZone::UTC,
        };
        let shown = |owner: NodeSettings| {
            let view = LimitsView {
                name: "b12".to_owned(),
                owner,
                admin: NodeSettings::default(),
                policy: Policy::Continuous,
                offered: Offered {
                    cpus: 2.0,
                    memory: 4 << 30,
                    disk: 100 << 30,
                },
            };
            limits(&view, &shape)
        };
        let fits = NodeSettings {
            cpus: Some(Cpus { milli: 2000 }),
            memory: Some(Bytes(4 << 30)),
            ..NodeSettings::default()
        };
        assert!(!shown(fits).contains("changes nothing"));
        let large = shown(NodeSettings {
            cpus: Some(Cpus { milli: 99_000 }),
            disk: Some(Bytes(1 << 50)),
            ..NodeSettings::default()
        });
        assert!(
            large.contains("cpus while you are active, 99, changes nothing"),
            "{large}"
        );
        assert!(large.contains("disk, 1024 TiB, changes nothing"), "{large}");
    }
}
