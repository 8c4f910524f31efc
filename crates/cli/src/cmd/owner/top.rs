//! `gleaner owner top`: this PC in a terminal, drawn anew every second.
//!
//! [`picture`] is pure: what is known and how large the terminal is, in; lines, out. The rest
//! owns the terminal: raw while this runs, as it was afterwards, however this ends.

use crate::out::{self, Failure, Outcome};
use crate::table::owner::{Shape, headline, lasting, percent, processors, rough, tone};
use crate::table::{Tone, seconds};
use gleaner_agent::owner::{Agent, Answer, Ask, Overview, Slot, Today};
use gleaner_model::{Bytes, Span, Time};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use rustix::time::Timespec;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _};
use std::time::{Duration, Instant};

/// Time between two pictures, and between two looks at the day.
const EVERY: Duration = Duration::from_secs(1);
const DAY_EVERY: Duration = Duration::from_secs(20);

/// The pause of the key `p`.
const PAUSE: Span = Span::seconds(3600);

/// Widest and narrowest picture, in characters.
const WIDTH_MAX: usize = 110;
const WIDTH_MIN: usize = 40;

/// Minutes of a day.
const DAY_MINUTES: usize = 24 * 60;

/// What is shown.
#[derive(Debug, Clone, Default)]
struct Known {
    overview: Option<Overview>,
    today: Option<Today>,
    /// A sentence about the last key, or about an agent that does not answer.
    said: Option<(String, Tone)>,
}

/// How large the terminal is and whether it has colours.
#[derive(Debug, Clone, Copy)]
struct Screen {
    width: usize,
    height: usize,
    colour: bool,
}

/// Watches until `q`.
pub(super) fn run(agent: &Agent) -> Outcome {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal; `gleaner owner status` prints the same once",
        ));
    }
    // Who is no owner is told so in a terminal that is as it was.
    let mut known = Known {
        overview: Some(agent.status()?),
        ..Known::default()
    };
    let terminal = Terminal::take()?;
    let outcome = watch(agent, &mut known);
    drop(terminal);
    outcome
}

fn watch(agent: &Agent, known: &mut Known) -> Outcome {
    let mut day: Option<Instant> = None;
    loop {
        if day.is_none_or(|then| then.elapsed() > DAY_EVERY) {
            day = Some(Instant::now());
            if let Ok(Answer::Today(today)) = agent.ask(&Ask::Today) {
                known.today = Some(today);
            }
        }
        draw(known)?;
        let next = Instant::now() + EVERY;
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            match key(left)? {
                None => {}
                Some(b'q' | b'Q' | 3 | 4 | 27) => return Ok(0),
                Some(b'p' | b'P') => {
                    let until = Some(Time { ms: now_ms() } + PAUSE);
                    act(agent, known, &Ask::Pause { until });
                    draw(known)?;
                }
                Some(b'r' | b'R') => {
                    act(agent, known, &Ask::Resume);
                    draw(known)?;
                }
                Some(_) => {}
            }
        }
        match agent.status() {
            Ok(overview) => {
                known.overview = Some(overview);
                known.said = None;
            }
            Err(problem) => known.said = Some((problem.to_string(), Tone::Bad)),
        }
    }
}

fn act(agent: &Agent, known: &mut Known, ask: &Ask) {
    match agent.ask(ask) {
        Ok(Answer::Status(overview)) => known.overview = Some(*overview),
        Ok(_) => {}
        Err(problem) => known.said = Some((problem.to_string(), Tone::Bad)),
    }
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// The terminal as it was, which it is again when this goes.
struct Terminal(Termios);

impl Terminal {
    fn take() -> Result<Self, Failure> {
        let failed = |problem: rustix::io::Errno| {
            Failure::usage(format!("cannot use this terminal: {problem}"))
        };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        let terminal = Self(before);
        // Another screen, no cursor: what stood in the terminal comes back.
        out::print_bytes(b"\x1b[?1049h\x1b[?25l")?;
        Ok(terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that is gone.
        let _gone = out::print_bytes(b"\x1b[?25h\x1b[?1049l");
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// A key, or none within `wait`.
fn key(wait: Duration) -> Result<Option<u8>, Failure> {
    let stdin = std::io::stdin();
    let mut waits = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(1),
        tv_nsec: wait.subsec_nanos().into(),
    };
    match poll(&mut waits, Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(problem) => return Err(Failure::usage(problem.to_string())),
    }
    let mut byte = [0];
    match std::io::stdin().lock().read(&mut byte) {
        // The terminal is gone, and nobody watches.
        Ok(0) | Err(_) => Ok(Some(b'q')),
        Ok(_) => Ok(Some(byte[0])),
    }
}

fn draw(known: &Known) -> Result<(), Failure> {
    let size = tcgetwinsize(std::io::stdout()).ok();
    let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
    let shape = Shape::of_stdout();
    let screen = Screen {
        width: usize::from(columns).clamp(WIDTH_MIN, WIDTH_MAX),
        height: usize::from(rows).max(8),
        colour: shape.look.colour,
    };
    let mut text = String::from("\x1b[H");
    let lines = picture(known, &shape, screen);
    let last = lines.len().saturating_sub(1);
    for (at, line) in lines.iter().enumerate() {
        text.push_str(line);
        text.push_str(if at == last { "\x1b[K" } else { "\x1b[K\r\n" });
    }
    // Whatever the picture before had below goes.
    text.push_str("\x1b[J");
    out::print_bytes(text.as_bytes())
}

/// A line under construction, which knows how wide it is without its colours.
struct Line {
    text: String,
    width: usize,
    screen: Screen,
}

impl Line {
    const fn new(screen: Screen) -> Self {
        Self {
            text: String::new(),
            width: 0,
            screen,
        }
    }

    /// Adds a text, cut where the screen ends.
    fn add(mut self, text: &str, tone: Tone) -> Self {
        let room = self.screen.width.saturating_sub(self.width);
        let cut: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(room)
            .collect();
        self.width += cut.chars().count();
        let code = match tone {
            Tone::Good => "32",
            Tone::Busy => "36",
            Tone::Held => "33",
            Tone::Bad => "31",
            Tone::Plain => "",
        };
        if self.screen.colour && !code.is_empty() && !cut.is_empty() {
            // Writing to a text cannot fail.
            let _ = write!(self.text, "\x1b[{code}m{cut}\x1b[0m");
        } else {
            self.text.push_str(&cut);
        }
        self
    }

    fn plain(self, text: &str) -> Self {
        self.add(text, Tone::Plain)
    }

    fn bold(mut self, text: &str, tone: Tone) -> Self {
        if !self.screen.colour {
            return self.add(text, tone);
        }
        self.text.push_str("\x1b[1m");
        self = self.add(text, tone);
        self.text.push_str("\x1b[0m");
        self
    }

    /// Spaces up to a column.
    fn to(self, column: usize) -> Self {
        let gap = column.saturating_sub(self.width);
        self.plain(&" ".repeat(gap))
    }

    /// A text that ends where the screen does.
    fn right(self, text: &str) -> Self {
        let column = self.screen.width.saturating_sub(text.chars().count() + 1);
        self.to(column).plain(text)
    }

    fn end(self) -> String {
        self.text
    }
}

/// The whole picture, a line each, as many as there is room for.
fn picture(known: &Known, shape: &Shape, screen: Screen) -> Vec<String> {
    let line = || Line::new(screen);
    let mut lines = Vec::new();
    let Some(overview) = &known.overview else {
        return lines;
    };
    let clock = shape
        .look
        .now
        .to_zoned(shape.zone.clone())
        .strftime("%H:%M:%S")
        .to_string();
    lines.push(
        line()
            .plain(" ")
            .bold("gleaner", Tone::Plain)
            .plain(" · ")
            .plain(&overview.name)
            .right(&clock)
            .end(),
    );
    lines.push(String::new());
    let tone = tone(overview.mode);
    lines.push(line().add(" ● ", tone).bold(headline(overview), tone).end());
    lines.push(line().plain("   ").plain(&overview.reason).end());
    lines.push(line().plain("   ").plain(&lasting(overview, shape)).end());
    lines.push(String::new());
    bars(&mut lines, overview, screen);
    lines.push(String::new());
    if let Some(today) = &known.today {
        day(&mut lines, today, screen);
        lines.push(String::new());
    }
    let keys = line()
        .plain(" ")
        .bold("p", Tone::Plain)
        .plain(" pause 1 h   ")
        .bold("r", Tone::Plain)
        .plain(" resume   ")
        .bold("q", Tone::Plain)
        .plain(" quit");
    let last = match &known.said {
        Some((said, tone)) => line().plain(" ").add(said, *tone).end(),
        None => keys.end(),
    };
    running(&mut lines, overview, screen);
    lines.truncate(screen.height.saturating_sub(2));
    lines.push(String::new());
    lines.push(last);
    lines
}

/// A bar of parts of a whole, in its tones.
fn bar(mut line: Line, width: usize, parts: &[(f64, Tone)]) -> Line {
    let mut left = width;
    for (share, tone) in parts {
        let cells = cells(*share, width).min(left);
        left -= cells;
        let block = if *tone == Tone::Busy { "▒" } else { "█" };
        line = line.add(&block.repeat(cells), *tone);
    }
    line.plain(&"░".repeat(left))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of at most a hundred cells"
)]
fn cells(share: f64, width: usize) -> usize {
    (share.clamp(0.0, 1.0) * width as f64).round() as usize
}

#[expect(clippy::cast_precision_loss, reason = "a bar of a hundred cells")]
fn part(of: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        of as f64 / whole as f64
    }
}

/// Columns before the bars.
const LABEL: usize = 10;

fn bars(lines: &mut Vec<String>, overview: &Overview, screen: Screen) {
    let width = (screen.width / 3).clamp(10, 40);
    let (cpu, memory, disk) = (&overview.cpu, &overview.memory, &overview.disk);
    let label = |text: &str| Line::new(screen).plain(" ").plain(text).to(LABEL);
    let (may, of) = (processors(cpu.allowed), processors(cpu.offered));
    let parts = [(cpu.tasks, Tone::Good), (cpu.owner, Tone::Busy)];
    lines.push(
        bar(label("CPU"), width, &parts)
            .plain("  ")
            .add(&format!("tasks {}", percent(cpu.tasks)), Tone::Good)
            .plain("  ")
            .add(&format!("you {}", percent(cpu.owner)), Tone::Busy)
            .plain(&format!("  tasks may use {may} of {of}"))
            .end(),
    );
    for (name, used, allowed) in [
        ("memory", memory.used, memory.allowed),
        ("disk", disk.used, disk.allowed),
    ] {
        let parts = [(part(used, allowed), Tone::Good)];
        let words = format!("  {} of {} allowed", Bytes(used), Bytes(allowed));
        lines.push(bar(label(name), width, &parts).plain(&words).end());
    }
    let travel = if overview.network.allowed {
        ""
    } else {
        ", nothing travels now"
    };
    let today = Bytes(overview.network.today);
    lines.push(
        label("network")
            .plain(&format!("{today} today{travel}"))
            .end(),
    );
    let pool = match overview.connected {
        true => label("pool").plain(&overview.server),
        false => label("pool").add(
            &format!("{} cannot be reached", overview.server),
            Tone::Held,
        ),
    };
    lines.push(pool.end());
}

/// The day in columns: what tasks used, what the owner used, and pauses.
fn day(lines: &mut Vec<String>, today: &Today, screen: Screen) {
    let width = (screen.width - LABEL - 2).min(96);
    let slot = usize::try_from(today.slot / 60).unwrap_or(1).max(1);
    let column = |at: usize| {
        let (from, to) = (
            at * DAY_MINUTES / width / slot,
            (at + 1) * DAY_MINUTES / width / slot,
        );
        let seen: Vec<Slot> = (from..to.max(from + 1))
            .filter_map(|at| today.slots.get(at).copied().flatten())
            .collect();
        let mean = |of: fn(&Slot) -> u16| {
            let sum: usize = seen.iter().map(|slot| usize::from(of(slot))).sum();
            sum.checked_div(seen.len())
        };
        [
            mean(|slot| slot.tasks),
            mean(|slot| slot.owner),
            mean(|slot| slot.paused),
        ]
    };
    let columns: Vec<[Option<usize>; 3]> = (0..width).map(column).collect();
    let rows = [
        ("tasks", 0, Tone::Good),
        ("you", 1, Tone::Busy),
        ("paused", 2, Tone::Held),
    ];
    for (name, row, tone) in rows {
        let text: String = columns.iter().map(|column| spark(column[row])).collect();
        lines.push(
            Line::new(screen)
                .plain(" ")
                .plain(name)
                .to(LABEL)
                .add(&text, tone)
                .end(),
        );
    }
    let mut scale = Line::new(screen).plain(" today").to(LABEL);
    for hour in ["0", "6", "12", "18"] {
        let at = hour.parse::<usize>().unwrap_or(0) * width / 24;
        scale = scale.to(LABEL + at).plain(hour);
    }
    lines.push(scale.to(LABEL + width - 2).plain("24").end());
}

/// A thousandth as a column; a space where nobody looked.
fn spark(permille: Option<usize>) -> char {
    const COLUMNS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    match permille {
        None => ' ',
        Some(0..20) => '·',
        Some(permille) => COLUMNS[(permille * COLUMNS.len() / 1001).min(COLUMNS.len() - 1)],
    }
}

fn running(lines: &mut Vec<String>, overview: &Overview, screen: Screen) {
    if overview.running.is_empty() {
        lines.push(
            Line::new(screen)
                .plain(" nothing of the pool runs here now")
                .end(),
        );
        return;
    }
    // What the other columns leave.
    let name = screen.width.saturating_sub(62).clamp(12, 36);
    let at = [
        name + 2,
        name + 14,
        name + 23,
        name + 29,
        name + 37,
        name + 50,
    ];
    let row = |words: [&str; 7], tone: Tone, head: bool| {
        let mut line = Line::new(screen).plain(" ");
        for (place, word) in [0].into_iter().chain(at).zip(words) {
            let room = at
                .iter()
                .find(|next| **next > place)
                .map_or(20, |next| next - place - 1);
            let word: String = word.chars().take(room).collect();
            let tone = if place == at[1] { tone } else { Tone::Plain };
            line = line.to(place + 1);
            line = if head {
                line.bold(&word, tone)
            } else {
                line.add(&word, tone)
            };
        }
        line.end()
    };
    let head = [
        "WHAT", "FOR", "STATE", "CPUS", "SINCE", "CPU TIME", "MEMORY",
    ];
    lines.push(row(head, Tone::Plain, true));
    for one in &overview.running {
        let tone = crate::table::tone(one.state.as_str());
        let what = format!("{} {}", one.name, one.id.task);
        let words = [
            &*what,
            &*one.user,
            one.state.as_str(),
            &processors(one.cpus),
            &rough(overview.at.since(one.since)),
            &seconds(one.cpu_seconds),
            &Bytes(one.memory).to_string(),
        ];
        lines.push(row(words, tone, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    fn screen(width: usize, height: usize, colour: bool) -> Screen {
        Screen {
            width,
            height,
            colour,
        }
    }

    fn known() -> Known {
        let slot = |owner, tasks, paused| {
            Some(Slot {
                owner,
                tasks,
                paused,
            })
        };
        let mut slots = vec![None; 48];
        slots.resize(70, slot(300, 600, 0));
        slots.resize(75, slot(700, 0, 1000));
        Known {
            overview: Some(samples::overview()),
            today: Some(Today {
                start: samples::overview().at,
                slot: 600,
                slots,
            }),
            said: None,
        }
    }

    #[test]
    fn the_picture_fits_every_terminal() {
        let shape = samples::shape();
        for (width, height) in [(40, 8), (80, 24), (100, 50), (110, 10)] {
            let lines = picture(&known(), &shape, screen(width, height, false));
            assert!(lines.len() <= height, "{width} {height}: {}", lines.len());
            for line in &lines {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            assert!(lines.last().unwrap().contains("p pause 1 h"), "{lines:?}");
        }
    }

    #[test]
    fn the_picture_shows_now_the_day_and_what_runs() {
        let text = picture(&known(), &samples::shape(), screen(90, 40, false)).join("\n");
        for words in [
            "working",
            "desk-4",
            "tasks 70 %",
            "you 12 %",
            "screening",
            "ada",
            "500 MiB",
            "▅",
            "24",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        let colour = picture(&known(), &samples::shape(), screen(90, 40, true)).join("\n");
        assert!(colour.contains("\x1b[32m") && !text.contains('\x1b'));
    }

    #[test]
    fn an_agent_that_does_not_answer_is_told() {
        let mut known = known();
        known.said = Some(("the agent does not answer".to_owned(), Tone::Bad));
        let lines = picture(&known, &samples::shape(), screen(80, 24, false));
        assert!(lines.last().unwrap().contains("does not answer"));
    }
}
