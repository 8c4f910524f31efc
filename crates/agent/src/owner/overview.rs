//! The watch's status in the owner's words. Pure: everything comes in as arguments.

use super::guests::Guests;
use super::protocol::{
    CpuView, DiskView, MemoryView, Mode, NetworkView, Overview, RunningView, SignalView, Totals,
    Why,
};
use crate::watch::status::{Running, Status};
use gleaner_harvest::{Cause, OwnerWish, Sample, Verdict};
use gleaner_model::{NodeState, Signal, Span, Time};

/// Who a node is; nothing of it changes while the agent runs.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) data: String,
}

/// What is known beside the status.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Beside {
    pub(crate) connected: bool,
    /// What the node offers at most.
    pub(crate) offered: super::protocol::Offered,
    /// What the agent's directory takes, in bytes.
    pub(crate) disk_used: u64,
    pub(crate) today: Totals,
}

/// What the PC does for the pool, in one word.
pub(crate) fn mode(status: &Status, offered: f64) -> Mode {
    match (status.state, status.decision.verdict) {
        (NodeState::Refused | NodeState::Quarantined, _) => Mode::Refused,
        (_, Verdict::Run) if !stopped(status) => working(status, offered),
        _ => Mode::Paused,
    }
}

/// Whether the node pauses for a reason of its own (its disk is full), though the owner leaves
/// it to tasks. The state follows a decision within moments; until then it still tells the
/// decision before, which counts no more.
fn stopped(status: &Status) -> bool {
    status.state != NodeState::Online && !status.reason.starts_with(&follows(Cause::Sleeping))
}

/// What the text of a cause begins with.
fn follows(cause: Cause) -> String {
    format!("{}: ", cause.effect())
}

fn working(status: &Status, offered: f64) -> Mode {
    if status.running.is_empty() {
        Mode::Idle
    } else if status.decision.cause.effect() == "slowed"
        || f64::from(status.allowance.cpus.milli) / 1000.0 < offered
    {
        Mode::Slowed
    } else {
        Mode::Working
    }
}

/// What the PC does and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) mode: Mode,
    /// The rule that decides, as a word.
    pub(crate) rule: String,
    /// The same as a sentence.
    pub(crate) reason: String,
}

/// What the PC does and why, the wish of the pool's admin included: it holds where the owner and
/// the PC itself would let tasks run.
pub(crate) fn judge(status: &Status, offered: f64, wish: Option<&str>) -> Judged {
    let own = Judged {
        mode: mode(status, offered),
        rule: rule(status),
        reason: sentence(status),
    };
    let reason = match wish {
        None => return own,
        Some(_) if matches!(own.mode, Mode::Paused | Mode::Refused) => return own,
        Some("drain") => "The pool's admin lets this PC finish what it has and take no more",
        Some("evict") => "The pool's admin took the work of this PC back",
        Some(_) => "The pool's admin paused this PC",
    };
    let ends = wish == Some("drain") && !status.running.is_empty();
    Judged {
        mode: if ends { own.mode } else { Mode::Paused },
        rule: "admin".to_owned(),
        reason: reason.to_owned(),
    }
}

/// The rule that decides, as a word.
pub(crate) fn rule(status: &Status) -> String {
    match (status.state, status.decision.verdict) {
        (NodeState::Refused, _) => "self-test".to_owned(),
        (NodeState::Paused, Verdict::Run) if stopped(status) => "disk".to_owned(),
        _ => serde_json::to_value(status.decision.cause)
            .ok()
            .and_then(|cause| Some(cause.get("cause")?.as_str()?.to_owned()))
            .unwrap_or_default(),
    }
}

/// Why, as a sentence; never empty.
pub(crate) fn sentence(status: &Status) -> String {
    let own = status.state == NodeState::Refused
        || status.decision.verdict == Verdict::Run && stopped(status);
    let said = match own && !status.reason.is_empty() {
        true => status.reason.clone(),
        false => status.decision.cause.to_string(),
    };
    // What follows from it stands beside it already.
    let said = said
        .strip_prefix(&follows(status.decision.cause))
        .unwrap_or(&said);
    let mut letters = said.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// The overview of a node.
pub(crate) fn overview(
    identity: &Identity,
    status: &Status,
    guests: &Guests,
    beside: &Beside,
) -> Overview {
    let share = |permille: u16| f64::from(permille) / 1000.0;
    let memory = status.sample.memory.value();
    let (owner_paused, until) = match status.wish {
        Some(OwnerWish::Pause { until }) => (true, until),
        Some(OwnerWish::Resume) | None => (false, None),
    };
    let judged = judge(status, beside.offered.cpus, guests.wish());
    let allowed = match judged.mode {
        Mode::Paused | Mode::Refused => 0.0,
        // The brain knows all of the PC's processors; some of them may not be offered.
        Mode::Idle | Mode::Working | Mode::Slowed => {
            (f64::from(status.allowance.cpus.milli) / 1000.0).min(beside.offered.cpus)
        }
    };
    Overview {
        id: identity.id.clone(),
        name: identity.name.clone(),
        state: status.state,
        mode: judged.mode,
        reason: judged.reason,
        since: status.decision.since,
        owner_paused,
        until,
        at: status.at,
        server: identity.server.clone(),
        connected: beside.connected,
        data: identity.data.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu: CpuView {
            offered: beside.offered.cpus,
            allowed,
            owner: share(status.shares.owner),
            tasks: share(status.shares.harvested),
            idle: share(status.shares.idle),
        },
        memory: MemoryView {
            used: status.running.iter().map(|one| one.memory.0).sum(),
            allowed: status.allowance.memory.0,
            available: memory.map(|memory| memory.available.0),
            total: memory.map(|memory| memory.total.0),
        },
        disk: DiskView {
            used: beside.disk_used,
            allowed: beside.offered.disk,
            free: status.sample.disk_free.value().map(|free| free.0),
            speed: share(status.allowance.io_permille),
        },
        network: NetworkView {
            today: beside.today.network,
            allowed: status.allowance.transfers,
            metered: status.sample.metered.value().copied(),
        },
        running: status
            .running
            .iter()
            .map(|one| running(one, guests))
            .collect(),
        today: beside.today,
    }
}

fn running(one: &Running, guests: &Guests) -> RunningView {
    let name = guests.name(one.job);
    RunningView {
        id: one.attempt,
        job: one.job,
        name: name.job,
        user: name.user,
        state: one.state,
        since: one.since,
        cpus: one.cpus,
        cpus_allowed: f64::from(one.allowed.cpus.milli) / 1000.0,
        cpu_seconds: one.cpu_seconds,
        memory: one.memory.0,
        memory_allowed: one.allowed.memory.0,
        disk: one.disk.0,
        network: one.network.0,
    }
}

/// The rule that decides, and what it saw.
pub(crate) fn why(identity: &Identity, status: &Status, judged: Judged) -> Why {
    Why {
        name: identity.name.clone(),
        mode: judged.mode,
        rule: judged.rule,
        reason: judged.reason,
        verdict: status.decision.verdict,
        since: status.decision.since,
        relief: status.decision.relief,
        signals: signals(&status.sample, status.at),
        settings: status.settings.clone(),
    }
}

fn yes(value: bool, is: &str, is_not: &str) -> String {
    if value { is } else { is_not }.to_owned()
}

fn percent(permille: u16) -> String {
    format!("{} %", (u32::from(permille) + 5) / 10)
}

/// Every sense in words. What it says comes from its value alone, so that nothing about what the
/// owner does can slip in.
fn signals(sample: &Sample, now: Time) -> Vec<SignalView> {
    let mut all = person(sample, now);
    all.extend(machine(sample, now));
    all
}

/// The senses that tell whether somebody is there.
fn person(sample: &Sample, now: Time) -> Vec<SignalView> {
    let ago = |then: &Time| format!("last used {} ago", now.since(*then));
    let sessions = view("sessions", &sample.sessions, now, |sessions| {
        let locked = yes(sessions.locked, ", locked", "");
        let film = yes(sessions.idle_inhibited, ", a program asks not to idle", "");
        let (people, active, remote) = (sessions.people, sessions.active, sessions.remote);
        format!("{people} logged in, {active} in front of it, {remote} remote{locked}{film}")
    });
    let screen = view("screen", &sample.attention, now, |attention| {
        let words = [
            (attention.full_screen, "full screen"),
            (attention.presenting, "presenting"),
            (attention.game, "a game"),
        ];
        let said: Vec<_> = words.iter().filter(|one| one.0).map(|one| one.1).collect();
        match said.is_empty() {
            true => "nothing special".to_owned(),
            false => said.join(", "),
        }
    });
    vec![
        view("keyboard, pointer, touch", &sample.input, now, ago),
        view("terminals and ssh", &sample.terminal, now, ago),
        view("desktop", &sample.desktop, now, ago),
        sessions,
        screen,
    ]
}

/// The senses that tell how the PC does.
fn machine(sample: &Sample, now: Time) -> Vec<SignalView> {
    vec![
        view("processors", &sample.load, now, |load| {
            let (owner, tasks) = (percent(load.owner), percent(load.tasks));
            let busiest = percent(load.busiest);
            format!("owner {owner}, tasks {tasks}, owner's busiest {busiest}")
        }),
        view("your programs' wait", &sample.delay, now, |delay| {
            percent(*delay)
        }),
        view("pressure", &sample.pressure, now, |pressure| {
            let cpu = pressure.cpu.map_or_else(|| "unknown".to_owned(), percent);
            let (memory, io) = (percent(pressure.memory), percent(pressure.io));
            format!("CPU {cpu}, memory {memory}, disk {io}")
        }),
        view("memory", &sample.memory, now, |memory| {
            let (free, all) = (memory.available, memory.total);
            let faults = memory.major_faults;
            format!("{free} of {all} available, {faults} major faults/s")
        }),
        view("power", &sample.power, now, |power| {
            let source = yes(power.mains, "mains", "battery");
            match power.charge {
                Some(charge) => format!("{source}, charged to {charge} %"),
                None => source,
            }
        }),
        view("heat", &sample.heat, now, |heat| {
            let throttled = yes(heat.throttled, ", slowed to cool", "");
            format!("{} °C{throttled}", heat.celsius)
        }),
        view("connection", &sample.metered, now, |metered| {
            yes(*metered, "metered", "not metered")
        }),
        view("free disk", &sample.disk_free, now, ToString::to_string),
        view("sleep", &sample.sleeping, now, |sleeping| {
            yes(*sleeping, "about to sleep", "awake")
        }),
    ]
}

fn view<T>(
    name: &str,
    signal: &Signal<T>,
    now: Time,
    say: impl FnOnce(&T) -> String,
) -> SignalView {
    let (state, says, at) = match signal {
        Signal::Absent => ("absent", "this PC has none".to_owned(), None),
        Signal::Failed { since } => {
            let words = "there is one, but it cannot be read";
            ("failed", words.to_owned(), Some(*since))
        }
        Signal::Seen { value, at } => ("seen", say(value), Some(*at)),
    };
    SignalView {
        name: name.to_owned(),
        state: state.to_owned(),
        says,
        age: at.map(|at| Span::as_seconds(now.since(at))),
    }
}
