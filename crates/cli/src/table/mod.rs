//! Tables for people: one file a table. Colour means something (good, bad, in between) and only
//! stands on a terminal, unless `--color` or NO_COLOR say otherwise.

pub(crate) mod bench;
pub(crate) mod images;
pub(crate) mod impact;
pub(crate) mod jobs;
pub(crate) mod nodes;
pub(crate) mod overhead;
pub(crate) mod owner;
pub(crate) mod tasks;
pub(crate) mod tokens;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use gleaner_model::{Bytes, LimitKind, Span};
use std::io::IsTerminal as _;

/// Nobody can read a table in fewer columns; lines that the terminal breaks are better then.
const NARROWEST: u16 = 20;

/// How tables look where they go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) colour: bool,
    /// Columns of the terminal, to which long texts are folded; none where there is no terminal.
    pub(crate) width: Option<u16>,
    /// Now, for ages; an argument so that a test has its own.
    pub(crate) now: jiff::Timestamp,
}

impl Look {
    /// As standard output is.
    pub(crate) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        let width = || columns().or_else(|| Table::new().width());
        Self {
            colour: crate::out::has_colour(terminal),
            width: terminal
                .then(width)
                .flatten()
                .filter(|columns| *columns >= NARROWEST),
            now: jiff::Timestamp::now(),
        }
    }
}

/// What a word means to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Busy,
    Held,
    Bad,
    Plain,
}

/// The tone of any state in the pool.
pub(crate) fn tone(state: &str) -> Tone {
    match state {
        "done" | "online" | "finished" | "valid" => Tone::Good,
        "running" | "leased" | "fetching" => Tone::Busy,
        "paused" | "draining" | "waiting" | "lost" | "evicted" => Tone::Held,
        "failed" | "offline" | "refused" | "quarantined" | "revoked" => Tone::Bad,
        _ => Tone::Plain,
    }
}

pub(crate) fn toned(text: impl ToString, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Good => cell.fg(Color::Green),
        Tone::Busy => cell.fg(Color::Cyan),
        Tone::Held => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Plain => cell,
    }
}

/// A state in its tone.
pub(crate) fn state(word: impl ToString) -> Cell {
    let word = word.to_string();
    let tone = tone(&word);
    toned(word, tone)
}

/// A table without lines, which survives being copied and cut by `awk`.
pub(crate) fn table(look: Look, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if look.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if let Some(width) = look.width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        // A table without colours asks no terminal for it.
        table.set_width(width);
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    let header = header
        .iter()
        .map(|word| Cell::new(word).add_attribute(Attribute::Bold));
    table.set_header(header.collect::<Vec<_>>());
    table
}

/// The table as text, without spaces at the ends of its lines.
pub(crate) fn text(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Most characters of a name in a listing on a terminal; what is asked for by itself shows all.
const NAME_WIDTH_MAX: usize = 24;
/// Spaces between two columns.
const GAP: usize = 2;

/// A row of a listing, and why things are as they are with it: a sentence of any length.
pub(crate) type Row<'a> = (Vec<Cell>, &'a str);

/// A listing. In a file each row is a line. So it is on a terminal, where nothing is broken within
/// a word: columns that `spare` numbers are left out, in that order, until the others fit, and
/// reasons too long for a column have lines of their own.
pub(crate) fn listing(look: Look, header: &[&str], rows: Vec<Row<'_>>, spare: &[usize]) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|at| width(header, &rows, at))
        .collect();
    let room = look.width.map_or(usize::MAX, usize::from);
    let mut kept: Vec<usize> = (0..header.len()).collect();
    let used = |kept: &[usize]| kept.iter().map(|at| widths[*at]).sum::<usize>();
    for at in spare {
        if used(&kept) <= room {
            break;
        }
        kept.retain(|column| column != at);
    }
    let longest = rows.iter().map(|(_, reason)| reason.chars().count()).max();
    let fits = longest.is_some_and(|longest| used(&kept) + longest <= room);
    let mut words: Vec<&str> = kept.iter().map(|at| header[*at]).collect();
    words.extend(fits.then_some("REASON"));
    let flat = Look {
        width: None,
        ..look
    };
    let mut shown = table(flat, &words);
    let mut below = Vec::new();
    for (cells, reason) in rows {
        let reason = one_line(reason);
        let mut cells: Vec<Cell> = kept.iter().map(|at| cells[*at].clone()).collect();
        cells.extend(fits.then(|| Cell::new(&reason)));
        shown.add_row(cells);
        below.push(if fits { String::new() } else { reason });
    }
    let mut out = String::new();
    for (number, line) in text(shown).lines().enumerate() {
        out.extend([line, "\n"]);
        let reason = number.checked_sub(1).and_then(|row| below.get(row));
        if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
            out.extend(["    ", reason, "\n"]);
        }
    }
    out
}

/// Characters that a column and the gap behind it take.
fn width(header: &[&str], rows: &[Row<'_>], at: usize) -> usize {
    let cells = rows
        .iter()
        .map(|(cells, _)| cells[at].content().chars().count());
    cells.fold(header[at].len(), usize::max) + GAP
}

/// A text that stays in its row.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A name for a listing.
pub(crate) fn name(look: Look, text: &str) -> Cell {
    let whole = one_line(text);
    let long = look.width.is_some() && whole.chars().count() > NAME_WIDTH_MAX;
    Cell::new(match long {
        true => whole
            .chars()
            .take(NAME_WIDTH_MAX - 1)
            .chain(['…'])
            .collect(),
        false => whole,
    })
}

/// How long ago something was: `3 min 05 s`.
pub(crate) fn ago(look: Look, time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(then) => {
            let seconds = look.now.as_second() - then.as_second();
            Span::seconds(u64::try_from(seconds).unwrap_or(0)).to_string()
        }
        Err(_) => time.to_owned(),
    }
}

/// How long something took or takes: from `start` to `end`, or to now.
pub(crate) fn took(look: Look, start: Option<&str>, end: Option<&str>) -> String {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let Some(start) = start.and_then(parse) else {
        return String::new();
    };
    let end = end.and_then(parse).unwrap_or(look.now);
    let ms = end.as_millisecond() - start.as_millisecond();
    Span {
        ms: u64::try_from(ms).unwrap_or(0),
    }
    .to_string()
}

/// Seconds as a person reads them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a u64 holds; tenths of a second are enough"
)]
pub(crate) fn seconds(value: f64) -> String {
    let ms = (value * 1000.0).clamp(0.0, 1e15);
    if ms < 0.5 {
        return "0".to_owned();
    }
    Span { ms: ms as u64 }.to_string()
}

/// A value or a peak of a limit in its unit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes and times are positive and below 2^63"
)]
pub(crate) fn of_limit(limit: LimitKind, value: f64) -> String {
    match limit {
        LimitKind::Memory | LimitKind::Disk | LimitKind::Output => Bytes(value as u64).to_string(),
        LimitKind::DiskIo | LimitKind::NetIo => format!("{}/s", Bytes(value as u64)),
        LimitKind::Time | LimitKind::CpuTime => seconds(value),
        LimitKind::PageFaults => format!("{value:.0}/s"),
        LimitKind::Cpus | LimitKind::Processes | LimitKind::Network => value.to_string(),
    }
}

/// `used/total` of a size.
pub(crate) fn share(used: u64, total: u64) -> String {
    format!("{} of {}", Bytes(used), Bytes(total))
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
