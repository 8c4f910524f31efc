//! Recorded usage, read from text: three formats.
//!
//! | first line | what it is |
//! |---|---|
//! | `host,epoch_local_s,gap_s,cores,idle_frac,…` | processors and inputs of many PCs, a line each 5 minutes |
//! | `machine,dt_s,state` | log-ins and power of many PCs, a line each change: `U` in use, `A` and `F` free, `O` off |
//! | `{` | one PC's own export: [`UsageHistogram`] as JSON |
//!
//! Times are local; what lies between the lines of a PC that was off is off.

use gleaner_model::UsageHistogram;
use std::collections::BTreeMap;

/// Most lines that are read: twenty years of a thousand PCs.
const LINES_MAX: usize = 50_000_000;

/// A PC that says nothing for this long was off: three samples.
const SILENT_S: u64 = 15 * 60;

/// What the last line before such a silence tells of.
const SAMPLE_S: u64 = 5 * 60;

/// Nobody knows what a PC did that did not change for this long: it counts as off.
const UNKNOWN_S: u64 = 7 * DAY_S;

/// Recordings of many PCs begin where most were seen for this long.
const WINDOW_S: u64 = 28 * DAY_S;

/// Most processors of a recorded PC that are believed.
const CORES_MAX: u32 = 1024;

const DAY_S: u64 = 86_400;

/// What was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Where it came from, for the command that shows a failure again.
    pub name: String,
    pub(crate) recorded: Recorded,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Recorded {
    /// Machines with what was done from each second on, in order.
    Machines(Vec<Machine>),
    /// How one PC is used, as counts.
    Histogram(Box<UsageHistogram>),
}

/// One machine's recording.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// Processors, where the recording tells.
    pub(crate) cores: Option<u32>,
    pub(crate) steps: Vec<Step>,
    /// Where the replay begins and where it begins again, in local seconds since 1970: both at
    /// midnight.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What was done from a second on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) at: u64,
    pub(crate) done: Done,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Done {
    Off,
    /// Nobody is logged in.
    Free,
    /// Somebody is; no more is known.
    Session,
    /// Measured: the load in thousandths, and whether there was input.
    Measured {
        load: u16,
        touching: bool,
    },
}

/// A recording was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Its first line is none of the three.
    #[error(
        "neither a usage export (JSON) nor a table that begins with \"host,epoch_local_s\" or \"machine,dt_s,state\""
    )]
    Format,
    /// One line.
    #[error("line {line}: {what}; correct it or leave it out")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The export.
    #[error("the usage export cannot be read: {0}")]
    Export(String),
    /// Nothing in it.
    #[error("no machine is recorded for any time; record some usage first")]
    Empty,
}

impl Trace {
    /// Reads a recording.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(name: &str, text: &str) -> Result<Self, TraceError> {
        let first = text.lines().next().unwrap_or("").trim();
        let recorded = if text.trim_start().starts_with('{') {
            let usage: UsageHistogram =
                serde_json::from_str(text).map_err(|e| TraceError::Export(e.to_string()))?;
            usage
                .check()
                .map_err(|e| TraceError::Export(e.to_string()))?;
            if usage.hours.iter().all(|hour| hour.on_seconds == 0) {
                return Err(TraceError::Empty);
            }
            Recorded::Histogram(Box::new(usage))
        } else if first.starts_with("host,epoch_local_s,gap_s,cores,idle_frac") {
            Recorded::Machines(samples(text)?)
        } else if first == "machine,dt_s,state" {
            Recorded::Machines(changes(text)?)
        } else {
            return Err(TraceError::Format);
        };
        if matches!(&recorded, Recorded::Machines(machines) if machines.is_empty()) {
            return Err(TraceError::Empty);
        }
        Ok(Self {
            name: name.to_owned(),
            recorded,
        })
    }

    /// Processors of the machine that a PC replays, where the recording tells.
    pub(crate) fn cores(&self, pc: u32) -> Option<u32> {
        match &self.recorded {
            Recorded::Machines(machines) => {
                let machine = machines.get(pc as usize % machines.len().max(1))?;
                machine.cores
            }
            Recorded::Histogram(usage) => Some(usage.processors.clamp(1, CORES_MAX)),
        }
    }

    /// How many PCs were recorded.
    #[must_use]
    pub const fn machines(&self) -> usize {
        match &self.recorded {
            Recorded::Machines(machines) => machines.len(),
            Recorded::Histogram(_) => 1,
        }
    }
}

/// The lines after the first, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let numbered = text.lines().zip(1..).skip(1).take(LINES_MAX);
    numbered
        .filter(|(line, _)| !line.trim().is_empty())
        .map(|(line, number)| (number, line.trim().split(',').collect()))
}

fn field<T: std::str::FromStr>(
    fields: &[&str],
    index: usize,
    line: usize,
    what: &'static str,
) -> Result<T, TraceError> {
    let field = fields.get(index).and_then(|field| field.parse().ok());
    field.ok_or(TraceError::Line { line, what })
}

/// A line each five minutes: each tells of the time before it.
fn samples(text: &str) -> Result<Vec<Machine>, TraceError> {
    let mut hosts: BTreeMap<String, (u32, Vec<Step>)> = BTreeMap::new();
    for (line, fields) in lines(text) {
        let host = fields.first().copied().unwrap_or("").to_owned();
        let at: u64 = field(&fields, 1, line, "no time")?;
        // The first line of a PC has nothing before it.
        let (Ok(gap), Ok(idle)) = (
            field::<u64>(&fields, 2, line, ""),
            field::<f64>(&fields, 4, line, ""),
        ) else {
            continue;
        };
        let keys: u64 = field(&fields, 10, line, "no number of key events")?;
        let moves: u64 = field(&fields, 11, line, "no number of mouse events")?;
        let cores: u32 = field(&fields, 3, line, "no number of processors")?;
        let (most, steps) = hosts.entry(host).or_default();
        *most = cores.clamp(1, CORES_MAX);
        let known = if gap > SILENT_S { SAMPLE_S } else { gap };
        let from = at.saturating_sub(known);
        if steps.last().is_some_and(|step| step.at > from) {
            // Recorders overlap by a second now and then.
            steps.pop();
        }
        if steps.last().is_some_and(|step| step.at > from) {
            let what = "the times of a PC do not grow";
            return Err(TraceError::Line { line, what });
        }
        let load = crate::chance::whole(((1.0 - idle).clamp(0.0, 1.0)) * 1000.0);
        let done = Done::Measured {
            load: u16::try_from(load).unwrap_or(1000),
            touching: keys + moves > 0,
        };
        if steps.last().is_some_and(|step| step.at == from) {
            steps.pop();
        }
        steps.push(Step { at: from, done });
        steps.push(Step {
            at,
            done: Done::Off,
        });
    }
    let machines = hosts.into_values();
    Ok(machines
        .filter_map(|(cores, steps)| whole_days(cores, steps))
        .collect())
}

/// From the first midnight to the last: the replay begins again after whole days.
fn whole_days(cores: u32, steps: Vec<Step>) -> Option<Machine> {
    let first = steps.first()?.at;
    let last = steps.last()?.at;
    Some(Machine {
        cores: Some(cores),
        from: first / DAY_S * DAY_S,
        to: last.div_ceil(DAY_S) * DAY_S,
        steps,
    })
}

/// A line each change. All machines replay the same time, from the Monday on which most of them
/// had been seen and went on to be for four weeks.
fn changes(text: &str) -> Result<Vec<Machine>, TraceError> {
    let mut machines: BTreeMap<u32, Vec<Step>> = BTreeMap::new();
    for (line, fields) in lines(text) {
        let machine: u32 = field(&fields, 0, line, "no number of a machine")?;
        let passed: u64 = field(&fields, 1, line, "no seconds since the line before")?;
        let done = match fields.get(2).copied() {
            Some("U") => Done::Session,
            Some("A" | "F") => Done::Free,
            Some("O") => Done::Off,
            _ => {
                let what = "a state that is none of U, A, F and O";
                return Err(TraceError::Line { line, what });
            }
        };
        let steps = machines.entry(machine).or_default();
        let at = steps
            .last()
            .map_or(0, |step| step.at)
            .saturating_add(passed);
        steps.push(Step { at, done });
    }
    for steps in machines.values_mut() {
        forget_unknown(steps);
    }
    let from = busiest_monday(&machines);
    let seen = machines.into_values().filter(|steps| covers(steps, from));
    Ok(seen
        .map(|steps| Machine {
            cores: None,
            from,
            to: steps
                .last()
                .map_or(from, |step| step.at.div_ceil(DAY_S) * DAY_S),
            steps,
        })
        .collect())
}

/// What lasted too long to be true is off.
fn forget_unknown(steps: &mut [Step]) {
    let mut ends = u64::MAX;
    for step in steps.iter_mut().rev() {
        if ends != u64::MAX && ends - step.at > UNKNOWN_S {
            step.done = Done::Off;
        }
        ends = step.at;
    }
}

/// Whether a machine was seen before this time, and four weeks later or to its end.
fn covers(steps: &[Step], from: u64) -> bool {
    let begins = steps.first().is_some_and(|step| step.at <= from);
    begins && steps.last().is_some_and(|step| step.at >= from + WINDOW_S)
}

fn busiest_monday(machines: &BTreeMap<u32, Vec<Step>>) -> u64 {
    const WEEK_S: u64 = 7 * DAY_S;
    // 1970-01-05 was a Monday.
    const MONDAY_S: u64 = 4 * DAY_S;
    let firsts = machines.values().filter_map(|steps| steps.first());
    let mut best = (0, 0);
    for first in firsts {
        let from = MONDAY_S + first.at.saturating_sub(MONDAY_S).div_ceil(WEEK_S) * WEEK_S;
        let seen = machines
            .values()
            .filter(|steps| covers(steps, from))
            .count();
        if seen > best.0 {
            best = (seen, from);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: &str = "host,epoch_local_s,gap_s,cores,idle_frac,user_frac,load5,mem_total_mib,mem_avail_mib,uptime_s,kb_events,mouse_events
7,1568638503,,4,,,1.39,7901,672,6298,0,0
7,1568638803,300,4,0.8452,0.0611,0.88,7901,753,6598,22,170
7,1568639104,301,4,0.7778,0.0697,1.09,7901,1076,6899,0,0
7,1568649104,10000,4,0.5,0.0697,1.09,7901,1076,6899,0,0
";

    #[test]
    fn samples_tell_of_the_time_before_them_and_silence_is_off() {
        let trace = Trace::parse("t", SAMPLES).unwrap();
        let Recorded::Machines(machines) = &trace.recorded else {
            panic!("{trace:?}");
        };
        let steps: Vec<(u64, Done)> = machines[0].steps.iter().map(|s| (s.at, s.done)).collect();
        let measured = |load, touching| Done::Measured { load, touching };
        assert_eq!(
            steps,
            [
                (1_568_638_503, measured(154, true)),
                (1_568_638_803, measured(222, false)),
                (1_568_639_104, Done::Off),
                (1_568_648_804, measured(500, false)),
                (1_568_649_104, Done::Off),
            ]
        );
        assert_eq!((machines[0].from % DAY_S, machines[0].to % DAY_S), (0, 0));
        assert_eq!(machines[0].to - machines[0].from, DAY_S);
    }

    #[test]
    fn changes_begin_on_a_monday() {
        let text = "machine,dt_s,state\n0,1345629820,O\n0,129,F\n0,7904,U\n0,1379,A\n0,400000,U\n0,9000000,O\n";
        let trace = Trace::parse("t", text).unwrap();
        assert_eq!(trace.machines(), 1);
        let Recorded::Machines(machines) = trace.recorded else {
            panic!("not machines");
        };
        // 1345629820 is a Wednesday in August 2012.
        assert_eq!(machines[0].from, 1_346_025_600);
        assert_eq!(
            machines[0].steps[2],
            Step {
                at: 1_345_637_853,
                done: Done::Session
            }
        );
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let said = |text: &str| Trace::parse("t", text).unwrap_err().to_string();
        assert!(said("hello").contains("machine,dt_s,state"));
        assert!(said("machine,dt_s,state\n0,5,U\n0,x,U\n").starts_with("line 3: no seconds"));
        assert!(said("machine,dt_s,state\n0,5,Z\n").contains("none of U, A, F and O"));
        assert!(said("machine,dt_s,state\n").contains("no machine"));
        assert!(said("{\"format\":1}").contains("missing field"));
        let mut usage = UsageHistogram::new(2);
        let text = serde_json::to_string(&usage).unwrap();
        assert_eq!(Trace::parse("t", &text), Err(TraceError::Empty));
        usage.hours[9].on_seconds = 3600;
        let text = serde_json::to_string(&usage).unwrap();
        assert!(matches!(
            Trace::parse("t", &text).unwrap().recorded,
            Recorded::Histogram(_)
        ));
    }
}
